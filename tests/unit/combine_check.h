/*
 * For the tests of combinators: futures that a test settles when it wants, values that are counted
 * until they are dropped or taken, and the count of what a core holds.
 */
#ifndef SHOAL_TESTS_UNIT_COMBINE_CHECK_H
#define SHOAL_TESTS_UNIT_COMBINE_CHECK_H

#include "shoal/runtime/combine.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"

#include "unit/harness.h"

/* How an operation takes a cancel. */
enum op_cancel { OP_FAILS, OP_STAYS, OP_SUCCEEDS };

/* A producer in the hands of the test. */
struct op {
    struct shoal_future *future;
    enum op_cancel cancel;
    int cancels; /* how often it was asked to end */
    int number;  /* what it succeeds with when it is cancelled */
    bool settled;
};

/* A pending future whose value counts. */
struct shoal_future *op_begin(struct op *op, enum op_cancel cancel);
void op_resolve(struct op *op, int64_t number);
void op_fail(struct op *op, int code, const char *text);

/* A future that has succeeded with a value that counts, or has failed. */
struct shoal_future *op_ready(int64_t number);
struct shoal_future *op_failed(int code, const char *text);

/* Values that were made, and neither dropped nor taken. */
extern int values_live;
/* Values that were dropped since the start of the test. */
extern int values_dropped;

void value_drop(union shoal_value *value);

/* Says that a value which counts is the test's now. Returns its number. */
int64_t value_take(const union shoal_value *value);

/* Lets what is queued run, several rounds of it. */
void settle_down(void);

/* How many futures and states of combinators the core holds. */
int held(void);

/* Awaits `future`, and expects `code` and `text` ("" for none). */
void expect_failure(struct shoal_future *future, int code, const char *text);

/* Awaits `future`, and expects these numbers as its results, which it takes and frees. */
void expect_results(struct shoal_future *future, const int64_t *numbers, size_t count);

/*
 * Runs `fn` on a fiber of one core, and expects that it leaves behind no future, no state and no
 * value. With `arg`, as shoal_test_run().
 */
void check_clean(int (*fn)(void *arg), void *arg);

#endif
