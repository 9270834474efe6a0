/*
 * What the tests of isolation share: one core makes an object, another uses it, and the program
 * ends with a text that names the object and both cores. Of each case also the opposite: on its
 * own core the same call on the same object is nobody's fault, on a core that is not the first.
 *
 * A test lists its cases as X(name, text, make, call): `text` begins what is said, up to the
 * object's address or name; `make_...()` makes the object; `call` uses it, and does not wait.
 */
#ifndef SHOAL_TESTS_UNIT_ISOLATION_CHECK_H
#define SHOAL_TESTS_UNIT_ISOLATION_CHECK_H

#include "shoal/runtime/owner_impl.h"

#include "unit/harness.h"

struct isolation_case {
    const char *name;
    const char *text;
    void (*make)(void);
    void (*call)(void);
};

#define ISOLATION_FUNCTION(name, text, make, call)                                                 \
    static void call_##name(void)                                                                  \
    {                                                                                              \
        call;                                                                                      \
    }
#define ISOLATION_ENTRY(name, text, make, call) {#name, text, make_##make, call_##name},

/* `static const struct isolation_case TABLE[]` of the list. */
#define ISOLATION_TABLE(table, LIST)                                                               \
    LIST(ISOLATION_FUNCTION)                                                                       \
    static const struct isolation_case table[] = {LIST(ISOLATION_ENTRY)}

/* Each made on one of two cores and used on the other, in a child of its own. */
void isolation_expect_aborts(const struct isolation_case *cases, size_t count);

/* Each made and used on core 1, in one child: nothing is said. */
void isolation_expect_silence(const struct isolation_case *cases, size_t count);

/* Each made on core 0 and used on a thread that is no core. */
void isolation_expect_foreign_aborts(const struct isolation_case *cases, size_t count);

#define ISOLATION_ARGS(table) (table), SHOAL_ARRAY_SIZE(table)

#endif
