/*
 * shoal_submit(): time-outs, deadlines, cancels, arguments that are handed over, and texts.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

static int explain(void *arg, union shoal_value *out)
{
    (void)out;
    return shoal_fiber_explain(-EDOM, "core %d does not like \"%s\"", shoal_core_id(),
                               (const char *)arg);
}

static int fail_silently(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return -ERANGE;
}

static int check_texts(void *arg)
{
    (void)arg;
    char name[] = "tea";
    for (unsigned core = 0; core < 2; core++) {
        char expected[64];
        snprintf(expected, sizeof(expected), "core %u does not like \"tea\"", core);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, explain, name), NULL), -EDOM);
        SHOAL_EXPECT_STR(shoal_error_message(), expected);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, fail_silently, NULL), NULL), -ERANGE);
        SHOAL_EXPECT_STR(shoal_error_message(), "");
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(core, explain, name), NULL), -EDOM);
        SHOAL_EXPECT_STR(shoal_error_message(), expected);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_copy_to(core, explain, name, sizeof(name)), NULL),
                         -EDOM);
        SHOAL_EXPECT_STR(shoal_error_message(), expected);
    }
    return 0;
}

static void submit_text_of_a_plain_failure_comes_back(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_texts, NULL), 0);
}

/* ---- Time ---- */

static int sleep_long(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_sleep_ns(1000 * SHOAL_NS_PER_S);
}

static void end_future(void *ctx)
{
    shoal_future_fail(ctx, -ECANCELED, NULL);
}

/* Pending until it is cancelled. */
static struct shoal_future *sleep_future(void *arg)
{
    struct shoal_future *future = shoal_future_new();
    (void)arg;
    shoal_future_on_cancel(future, end_future, future);
    return future;
}

static int check_timeouts(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        const struct shoal_submit on_fiber = {.fiber_fn = sleep_long,
                                              .timeout_ns = 2 * SHOAL_NS_PER_MS};
        SHOAL_EXPECT_INT(shoal_await(shoal_submit(core, &on_fiber), NULL), -ETIMEDOUT);
        const struct shoal_submit by_future = {.future_fn = sleep_future,
                                               .timeout_ns = 2 * SHOAL_NS_PER_MS};
        SHOAL_EXPECT_INT(shoal_await(shoal_submit(core, &by_future), NULL), -ETIMEDOUT);
    }
    return 0;
}

static void submit_timeout_ends_what_waits_on_the_target(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_timeouts, NULL), 0);
}

static atomic_bool held;
static atomic_bool go_on;
static atomic_int ran;

static int hold(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_store(&held, true);
    while (!atomic_load(&go_on))
        ;
    return 0;
}

static int count_run(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&ran, 1);
    return 0;
}

/* Holds core 1 in a plain function; the future of that. */
static struct shoal_future *hold_core_1(void)
{
    atomic_store(&held, false);
    atomic_store(&go_on, false);
    atomic_store(&ran, 0);
    struct shoal_future *holding = shoal_submit_to(1, hold, NULL);
    while (!atomic_load(&held))
        (void)shoal_yield();
    return holding;
}

static int check_late(void *arg)
{
    (void)arg;
    struct shoal_future *holding = hold_core_1();
    const struct shoal_submit kinds[] = {
        {.fn = count_run, .timeout_ns = SHOAL_NS_PER_MS},
        {.fiber_fn = count_run, .timeout_ns = SHOAL_NS_PER_MS},
    };
    struct shoal_future *late[2];
    for (unsigned i = 0; i < 2; i++)
        late[i] = shoal_submit(1, &kinds[i]);
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT(shoal_future_is_pending(late[0])); /* the target has to say so */
    atomic_store(&go_on, true);
    for (unsigned i = 0; i < 2; i++)
        SHOAL_EXPECT_INT(shoal_await(late[i], NULL), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_await(holding, NULL), 0);
    SHOAL_EXPECT_INT(atomic_load(&ran), 0);
    return 0;
}

static void submit_that_comes_too_late_never_runs(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_late, NULL), 0);
}

static int tell_deadline(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = shoal_fiber_deadline_ns();
    return 0;
}

static int check_inherited(void *arg)
{
    (void)arg;
    union shoal_value value;
    struct shoal_scope scope;
    const struct shoal_scope_options options = {.timeout_ns = 100 * SHOAL_NS_PER_S};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(1, tell_deadline, NULL), &value), 0);
    SHOAL_EXPECT(value.u64 == SHOAL_NS_FOREVER);
    shoal_scope_enter(&scope, &options);
    uint64_t mine_ns = shoal_fiber_deadline_ns();
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(1, tell_deadline, NULL), &value), 0);
    /* The clocks of two cores differ by what they were read at. */
    SHOAL_EXPECT(value.u64 <= mine_ns + SHOAL_NS_PER_S && value.u64 + SHOAL_NS_PER_S >= mine_ns);
    const struct shoal_submit shorter = {.fiber_fn = tell_deadline,
                                         .timeout_ns = 50 * SHOAL_NS_PER_S};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &shorter), &value), 0);
    SHOAL_EXPECT(value.u64 + 40 * SHOAL_NS_PER_S < mine_ns);
    shoal_fiber_shield();
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(1, tell_deadline, NULL), &value), 0);
    SHOAL_EXPECT(value.u64 == SHOAL_NS_FOREVER);
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    return 0;
}

static void submit_takes_the_deadline_of_the_fiber_along(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_inherited, NULL), 0);
}

static int check_scope_over(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        struct shoal_scope scope;
        const struct shoal_scope_options options = {.timeout_ns = 2 * SHOAL_NS_PER_MS};
        shoal_scope_enter(&scope, &options);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(core, sleep_long, NULL), NULL),
                         -ETIMEDOUT);
        SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    }
    return 0;
}

static void submit_within_a_scope_ends_with_its_deadline(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_scope_over, NULL), 0);
}

/* ---- Cancel ---- */

static atomic_int cancelled_there;

static int sleep_until_cancelled(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&ran, 1);
    int rc = shoal_sleep_ns(1000 * SHOAL_NS_PER_S);
    if (rc == -ECANCELED)
        atomic_fetch_add(&cancelled_there, 1);
    return rc;
}

static int check_cancel(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        atomic_store(&ran, 0);
        atomic_store(&cancelled_there, 0);
        struct shoal_future *future = shoal_submit_fiber_to(core, sleep_until_cancelled, NULL);
        while (atomic_load(&ran) == 0)
            (void)shoal_yield();
        shoal_future_cancel(future);
        shoal_future_cancel(future); /* once more changes nothing */
        SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
        SHOAL_EXPECT_INT(atomic_load(&cancelled_there), 1);
        future = shoal_submit_future_to(core, sleep_future, NULL);
        shoal_future_cancel(future);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
    }
    return 0;
}

static void submit_cancel_reaches_what_waits_on_the_target(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_cancel, NULL), 0);
}

static int check_cancel_unread(void *arg)
{
    (void)arg;
    struct shoal_future *calls[3];
    struct shoal_future *holding = hold_core_1();
    for (unsigned i = 0; i < 3; i++)
        calls[i] = shoal_submit_to(1, count_run, NULL);
    shoal_future_cancel(calls[1]);
    atomic_store(&go_on, true);
    int codes[3];
    for (unsigned i = 0; i < 3; i++)
        codes[i] = shoal_await(calls[i], NULL);
    SHOAL_EXPECT_INT(codes[0], 0);
    SHOAL_EXPECT_INT(codes[2], 0);
    /* The core may have come to it before it looked for cancels. */
    SHOAL_EXPECT(codes[1] == -ECANCELED || codes[1] == 0);
    SHOAL_EXPECT_INT(atomic_load(&ran), codes[1] == 0 ? 3 : 2);
    SHOAL_EXPECT_INT(shoal_await(holding, NULL), 0);
    return 0;
}

static void submit_cancel_spares_its_neighbours(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_cancel_unread, NULL), 0);
}

/* ---- Arguments ---- */

static unsigned freed; /* on core 0 */

static void free_arg(void *arg)
{
    unsigned *times = arg;
    SHOAL_EXPECT_INT(shoal_core_id(), 0);
    (*times)++;
    freed++;
}

static int check_arg_free(void *arg)
{
    (void)arg;
    unsigned times[6] = {0};
    shoal_submit_fn *const plain[] = {count_run, fail_silently};
    freed = 0;
    for (unsigned core = 0; core < 2; core++) {
        for (unsigned i = 0; i < 2; i++) {
            const struct shoal_submit call = {
                .fn = plain[i], .arg = &times[core * 2 + i], .arg_free = free_arg};
            SHOAL_EXPECT_INT(shoal_await(shoal_submit(core, &call), NULL), i == 0 ? 0 : -ERANGE);
        }
    }
    const struct shoal_submit nowhere = {.fn = count_run, .arg = &times[4], .arg_free = free_arg};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(2, &nowhere), NULL), SHOAL_ENOCORE);
    const struct shoal_submit forgotten = {
        .fiber_fn = count_run, .arg = &times[5], .arg_free = free_arg};
    shoal_discard(shoal_submit(1, &forgotten));
    while (freed < 6)
        (void)shoal_yield();
    for (unsigned i = 0; i < 6; i++)
        SHOAL_EXPECT_INT(times[i], 1);
    return 0;
}

static void submit_frees_an_argument_once_on_the_calling_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_arg_free, NULL), 0);
}

static void free_and_ask_again(void *arg)
{
    unsigned *left = arg;
    freed++;
    if (--*left == 0)
        return;
    const struct shoal_submit again = {
        .fn = count_run, .arg = left, .arg_free = free_and_ask_again};
    shoal_discard(shoal_submit(1, &again));
}

static int check_arg_free_asks(void *arg)
{
    unsigned left = 1000;
    (void)arg;
    freed = 0;
    const struct shoal_submit first = {
        .fn = count_run, .arg = &left, .arg_free = free_and_ask_again};
    shoal_discard(shoal_submit(1, &first));
    while (left > 0)
        (void)shoal_yield();
    SHOAL_EXPECT_INT(freed, 1000);
    return 0;
}

static void submit_from_where_an_argument_is_freed_is_fine(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_arg_free_asks, NULL), 0);
}

static int submit_nothing(void *arg)
{
    const struct shoal_submit call = {.arg = arg};
    return shoal_await(shoal_submit(0, &call), NULL);
}

static void submit_without_a_function_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, submit_nothing, "a submit has 0 functions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submit_text_of_a_plain_failure_comes_back),
        cmocka_unit_test(submit_timeout_ends_what_waits_on_the_target),
        cmocka_unit_test(submit_that_comes_too_late_never_runs),
        cmocka_unit_test(submit_takes_the_deadline_of_the_fiber_along),
        cmocka_unit_test(submit_within_a_scope_ends_with_its_deadline),
        cmocka_unit_test(submit_cancel_reaches_what_waits_on_the_target),
        cmocka_unit_test(submit_cancel_spares_its_neighbours),
        cmocka_unit_test(submit_frees_an_argument_once_on_the_calling_core),
        cmocka_unit_test(submit_from_where_an_argument_is_freed_is_fine),
        cmocka_unit_test(submit_without_a_function_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
