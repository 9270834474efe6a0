/*
 * Typed futures: each member through ready, resolve and await, and the functions that the macros
 * define, in every kind of continuation.
 */
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/typed.h"

#include "unit/harness.h"

/* ---- Members ---- */

static int whole_word(void *arg, const union shoal_value *in, union shoal_value *out)
{
    *(union shoal_value *)arg = *in;
    *out = *in;
    return 0;
}

/* What a value holds beside its member is zero: a hook or a report may look at all of it. */
static bool rest_is_zero(const union shoal_value *value, size_t member_bytes)
{
    for (size_t i = member_bytes; i < sizeof(value->bytes); i++)
        if (value->bytes[i] != 0)
            return false;
    return true;
}

/* One member: ready, resolved, resolved through a chain; and left alone by a failure. */
#define CHECK_MEMBER(member, type, first, second)                                                  \
    static void check_##member(void)                                                               \
    {                                                                                              \
        type got = (second);                                                                       \
        SHOAL_EXPECT_INT(shoal_await_##member(shoal_ready_##member(first), &got), 0);              \
        SHOAL_EXPECT(got == (first));                                                              \
        struct shoal_future *future = shoal_future_new();                                          \
        shoal_resolve_##member(future, second);                                                    \
        SHOAL_EXPECT(!shoal_future_is_pending(future));                                            \
        SHOAL_EXPECT_INT(shoal_await_##member(future, &got), 0);                                   \
        SHOAL_EXPECT(got == (second));                                                             \
        union shoal_value seen;                                                                    \
        memset(&seen, 0xff, sizeof(seen));                                                         \
        future = shoal_future_new();                                                               \
        struct shoal_future *last = shoal_then(future, whole_word, &seen);                         \
        shoal_resolve_##member(future, first);                                                     \
        SHOAL_EXPECT_INT(shoal_await_##member(last, &got), 0);                                     \
        SHOAL_EXPECT(got == (first) && seen.member == (first));                                    \
        SHOAL_EXPECT(rest_is_zero(&seen, sizeof(seen.member)));                                    \
        last = shoal_then(shoal_ready_##member(second), whole_word, &seen);                        \
        SHOAL_EXPECT_INT(shoal_await_##member(last, &got), 0);                                     \
        SHOAL_EXPECT(seen.member == (second) && rest_is_zero(&seen, sizeof(seen.member)));         \
        got = (second);                                                                            \
        SHOAL_EXPECT_INT(shoal_await_##member(shoal_future_failed(-EIO, "why"), &got), -EIO);      \
        SHOAL_EXPECT(got == (second));                                                             \
        SHOAL_EXPECT_STR(shoal_error_message(), "why");                                            \
    }

static char object;

CHECK_MEMBER(ptr, void *, &object, NULL)
CHECK_MEMBER(i64, int64_t, INT64_MIN, INT64_MAX)
CHECK_MEMBER(u64, uint64_t, UINT64_MAX, UINT64_C(1))
CHECK_MEMBER(f64, double, -0x1.8p-1000, 0x1p900)
CHECK_MEMBER(fd, int, -1, INT32_MAX)

static int members(void *arg)
{
    (void)arg;
    check_ptr();
    check_i64();
    check_u64();
    check_f64();
    check_fd();
    return 0;
}

static void typed_member_arrives_as_it_was_and_a_failure_leaves_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, members, NULL), 0);
}

/* ---- Functions ---- */

struct account {
    int64_t limit;
    int calls;
};

SHOAL_THEN_FN(add, const int64_t *, i64, i64)
{
    *out = *in + *arg;
    return 0;
}

/* From one member to another. */
SHOAL_THEN_FN(half, void *, i64, f64)
{
    (void)arg;
    *out = (double)*in / 2;
    return 0;
}

SHOAL_THEN_FN(within, struct account *, i64, i64)
{
    arg->calls++;
    *out = *in;
    return *in > arg->limit ? -ERANGE : 0;
}

SHOAL_THEN_FUTURE_FN(twice, struct account *, i64)
{
    arg->calls++;
    if (*in > arg->limit)
        return shoal_future_failed(-EDOM, "%lld is over %lld", (long long)*in,
                                   (long long)arg->limit);
    return shoal_ready_i64(*in * 2);
}

SHOAL_CATCH_FN(limit_of, struct account *, i64)
{
    arg->calls++;
    if (code != -ERANGE && strcmp(text, "40 is over 30") != 0)
        return code;
    *out = arg->limit;
    return 0;
}

static int functions(void *arg)
{
    (void)arg;
    const int64_t two = 2;
    struct account account = {.limit = 30};
    int64_t number = 0;
    double fraction = 0;
    struct shoal_future *future = shoal_then(shoal_ready_i64(40), add, (void *)&two);
    SHOAL_EXPECT_INT(shoal_await_i64(future, &number), 0);
    SHOAL_EXPECT_INT(number, 42);
    future = shoal_then(shoal_then(shoal_ready_i64(3), add, (void *)&two), half, NULL);
    SHOAL_EXPECT_INT(shoal_await_f64(future, &fraction), 0);
    SHOAL_EXPECT(fraction == 2.5);
    future = shoal_then_future(shoal_ready_i64(7), twice, &account);
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_then(future, within, &account), &number), 0);
    SHOAL_EXPECT_INT(number, 14);
    SHOAL_EXPECT_INT(account.calls, 2);
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_then(shoal_ready_i64(31), within, &account), &number),
                     -ERANGE);
    SHOAL_EXPECT_INT(number, 14);
    future = shoal_catch(shoal_then(shoal_ready_i64(31), within, &account), limit_of, &account);
    SHOAL_EXPECT_INT(shoal_await_i64(future, &number), 0);
    SHOAL_EXPECT_INT(number, 30);
    future = shoal_then_future(shoal_ready_i64(40), twice, &account);
    number = 0;
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_catch(future, limit_of, &account), &number), 0);
    SHOAL_EXPECT_INT(number, 30); /* the text arrived */
    future = shoal_catch(shoal_future_failed(-EIO, "other"), limit_of, &account);
    SHOAL_EXPECT_INT(shoal_await_i64(future, &number), -EIO);
    SHOAL_EXPECT_STR(shoal_error_message(), "other");
    /* A failure passes them by. */
    account.calls = 0;
    future = shoal_then_future(shoal_future_failed(-EIO, NULL), twice, &account);
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_then(future, within, &account), &number), -EIO);
    SHOAL_EXPECT_INT(account.calls, 0);
    return 0;
}

static void typed_functions_see_their_argument_and_members(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, functions, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typed_member_arrives_as_it_was_and_a_failure_leaves_it),
        cmocka_unit_test(typed_functions_see_their_argument_and_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
