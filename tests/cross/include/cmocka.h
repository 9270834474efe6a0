/*
 * As much of cmocka as the unit tests use, for processors for which there is no cmocka to link: the
 * same names, and the same lines at the end, so that tools/checks/tally counts the cases.
 */
#ifndef SHOAL_TESTS_CROSS_CMOCKA_H
#define SHOAL_TESTS_CROSS_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
    int (*setup)(void **state);
    int (*teardown)(void **state);
};

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f, NULL, NULL                                                                          \
    }
#define cmocka_unit_test_setup_teardown(f, up, down)                                               \
    {                                                                                              \
#f, f, up, down                                                                            \
    }
#define cmocka_run_group_tests(tests, up, down)                                                    \
    cross_run(tests, sizeof(tests) / sizeof((tests)[0]), up, down)

int cross_run(const struct CMUnitTest *tests, size_t count, int (*up)(void **state),
              int (*down)(void **state));
void cross_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), noreturn));

#define print_message(...) printf(__VA_ARGS__)
#define fail_msg(...)      cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail()             fail_msg("fail()")

#define CROSS_ASSERT(cond, ...)                                                                    \
    do {                                                                                           \
        if (!(cond))                                                                               \
            cross_fail(__FILE__, __LINE__, __VA_ARGS__);                                           \
    } while (0)

#define assert_true(c)     CROSS_ASSERT((c), "%s", #c)
#define assert_false(c)    CROSS_ASSERT(!(c), "not %s", #c)
#define assert_null(p)     CROSS_ASSERT((p) == NULL, "%s is NULL", #p)
#define assert_non_null(p) CROSS_ASSERT((p) != NULL, "%s is not NULL", #p)

#define CROSS_COMPARE(a, op, b)                                                                    \
    do {                                                                                           \
        unsigned long long cross_a = (unsigned long long)(a), cross_b = (unsigned long long)(b);   \
        CROSS_ASSERT(cross_a op cross_b, "%s " #op " %s (%#llx, %#llx)", #a, #b, cross_a,          \
                     cross_b);                                                                     \
    } while (0)
#define assert_int_equal(a, b)     CROSS_COMPARE(a, ==, b)
#define assert_int_not_equal(a, b) CROSS_COMPARE(a, !=, b)
#define assert_ptr_equal(a, b)     CROSS_COMPARE((uintptr_t)(a), ==, (uintptr_t)(b))
#define assert_ptr_not_equal(a, b) CROSS_COMPARE((uintptr_t)(a), !=, (uintptr_t)(b))
#define assert_in_range(v, low, high)                                                              \
    CROSS_ASSERT((v) >= (low) && (v) <= (high), "%s is in %s..%s", #v, #low, #high)
#define assert_string_equal(a, b)                                                                  \
    CROSS_ASSERT(strcmp((a), (b)) == 0, "\"%s\" is \"%s\"", (const char *)(a), (const char *)(b))
#define assert_memory_equal(a, b, n) CROSS_ASSERT(memcmp((a), (b), (n)) == 0, "%s is %s", #a, #b)

#endif
