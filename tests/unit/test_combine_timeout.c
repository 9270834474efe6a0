/*
 * shoal_timeout() and shoal_timeout_leave(): in time, too late, and in between.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/task.h"
#include "shoal/runtime/timer.h"

#include "unit/combine_check.h"
/* backends: both */

#define SOON (2 * SHOAL_NS_PER_MS)
#define LATE (3600 * SHOAL_NS_PER_S)

typedef struct shoal_future *limit_fn(struct shoal_future *future, uint64_t timeout_ns);

static void expect_number(struct shoal_future *future, int64_t number)
{
    union shoal_value value;
    if (SHOAL_EXPECT_INT(shoal_await(future, &value), 0))
        SHOAL_EXPECT_INT(value_take(&value), number);
}

static int check_ready(void *arg)
{
    limit_fn *limit = *(limit_fn **)arg;
    struct shoal_future *future = op_ready(1);
    SHOAL_EXPECT(limit(future, 0) == future); /* ready: nothing to add */
    expect_number(future, 1);
    expect_failure(limit(op_failed(-EIO, "why"), 0), -EIO, "why");
    return 0;
}

static int check_in_time(void *arg)
{
    limit_fn *limit = *(limit_fn **)arg;
    struct op op;
    struct shoal_future *future = limit(op_begin(&op, OP_FAILS), LATE);
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(future));
    op_resolve(&op, 2);
    expect_number(future, 2);
    future = limit(op_begin(&op, OP_FAILS), LATE);
    op_fail(&op, -EIO, "why");
    expect_failure(future, -EIO, "why");
    SHOAL_EXPECT_INT(op.cancels, 0);
    future = limit(op_begin(&op, OP_FAILS), SHOAL_NS_FOREVER);
    SHOAL_EXPECT_INT(shoal_core_self->timers.armed, 0); /* no timer that a test would move on to */
    op_resolve(&op, 3);
    expect_number(future, 3);
    /* What the value owns is dropped by its own hook, if nobody wants it. */
    future = limit(op_begin(&op, OP_FAILS), LATE);
    shoal_discard(future);
    op_resolve(&op, 4);
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);
    return 0;
}

static int check_exceeded(void *arg)
{
    limit_fn *limit = *(limit_fn **)arg;
    struct op op;
    expect_failure(limit(op_begin(&op, OP_FAILS), SOON), -ETIMEDOUT, "timed out after 2.000000 ms");
    SHOAL_EXPECT_INT(op.cancels, 1);
    /* A late value is dropped. */
    expect_failure(limit(op_begin(&op, OP_SUCCEEDS), SOON), -ETIMEDOUT,
                   "timed out after 2.000000 ms");
    SHOAL_EXPECT_INT(op.cancels, 1);
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);
    /* No time at all. */
    expect_failure(limit(op_begin(&op, OP_FAILS), 0), -ETIMEDOUT, "timed out after 0.000000 ms");
    /* Discarded before the limit passes. */
    shoal_discard(limit(op_begin(&op, OP_FAILS), SOON));
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SOON), 0);
    SHOAL_EXPECT_INT(op.cancels, 1);
    return 0;
}

static int check_cancel(void *arg)
{
    limit_fn *limit = *(limit_fn **)arg;
    struct op op;
    struct shoal_future *future = limit(op_begin(&op, OP_FAILS), LATE);
    shoal_future_cancel(future);
    expect_failure(future, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(op.cancels, 1);
    future = limit(op_begin(&op, OP_SUCCEEDS), LATE);
    shoal_future_cancel(future);
    expect_number(future, -1); /* it won */
    return 0;
}

static void each_limit(int (*check)(void *))
{
    limit_fn *limit = shoal_timeout;
    check_clean(check, &limit);
    limit = shoal_timeout_leave;
    check_clean(check, &limit);
}

static void timeout_ready_future_is_returned_as_it_is(void **state)
{
    (void)state;
    each_limit(check_ready);
}

static void timeout_in_time_passes_the_outcome(void **state)
{
    (void)state;
    each_limit(check_in_time);
}

static void timeout_exceeded_cancels_and_drops_the_late_value(void **state)
{
    (void)state;
    each_limit(check_exceeded);
}

static void timeout_cancel_is_passed_on(void **state)
{
    (void)state;
    each_limit(check_cancel);
}

static int check_deaf(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_future *future = shoal_timeout(op_begin(&op, OP_STAYS), SOON);
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SOON), 0);
    SHOAL_EXPECT_INT(op.cancels, 1);
    SHOAL_EXPECT(shoal_future_is_pending(future)); /* waits for the operation */
    op_resolve(&op, 1);
    expect_failure(future, -ETIMEDOUT, "timed out after 2.000000 ms");
    SHOAL_EXPECT_INT(values_dropped, 1);
    future = shoal_timeout_leave(op_begin(&op, OP_STAYS), SOON);
    expect_failure(future, -ETIMEDOUT, "timed out after 2.000000 ms"); /* does not */
    SHOAL_EXPECT_INT(op.cancels, 1);
    op_fail(&op, -EIO, "nobody hears");
    settle_down();
    return 0;
}

static void timeout_of_a_deaf_operation_waits_or_leaves(void **state)
{
    (void)state;
    check_clean(check_deaf, NULL);
}

static struct op raced;

static void resolve_raced(struct shoal_timer *timer)
{
    (void)timer;
    op_resolve(&raced, 6);
}

static int check_race(void *arg)
{
    (void)arg;
    /* Both timers are due when the loop next looks; the value comes first, and is only queued. */
    struct shoal_timer timer;
    shoal_timer_init(&timer, resolve_raced);
    shoal_timer_arm(&timer, SOON / 2);
    struct shoal_future *future = shoal_timeout(op_begin(&raced, OP_FAILS), SOON);
    uint64_t until = shoal_now_ns() + 2 * SOON;
    while (shoal_now_ns() < until) {
    }
    expect_number(future, 6);
    SHOAL_EXPECT_INT(raced.cancels, 0);
    return 0;
}

static void timeout_that_is_due_loses_to_a_value_that_is_there(void **state)
{
    (void)state;
    check_clean(check_race, NULL);
}

static int check_nested(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_future *future = op_begin(&op, OP_FAILS);
    for (int i = 0; i < 1000; i++)
        future = shoal_timeout(future, i == 500 ? SOON : LATE);
    expect_failure(future, -ETIMEDOUT, "timed out after 2.000000 ms");
    SHOAL_EXPECT_INT(op.cancels, 1);
    return 0;
}

static void timeout_nested_the_shortest_counts(void **state)
{
    (void)state;
    check_clean(check_nested, NULL);
}

/* ---- On the fiber ---- */

static uint64_t burn_until_ns;

static void burn(struct shoal_task *task)
{
    (void)task;
    while (shoal_now_ns() < burn_until_ns) {
    }
}

static struct shoal_fiber *to_wake;

static void wake_for_nothing(struct shoal_task *task)
{
    (void)task;
    SHOAL_EXPECT_INT(shoal_core_self->timers.armed, 1); /* that of `raced`, none of the wait */
    shoal_fiber_make_ready(shoal_core_self, to_wake);
}

static int await_op(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    return shoal_await(op_begin(arg, OP_FAILS), out);
}

static int check_await(void *arg)
{
    (void)arg;
    struct op op;
    union shoal_value value;
    int before = held();
    SHOAL_EXPECT_INT(shoal_await_timeout(op_ready(1), 0, &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 1);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_ready(2), LATE, NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, 1);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_failed(-EIO, "why"), LATE, &value), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "why") == 0);
    struct shoal_future *slow = shoal_async(await_op, &op, NULL);
    struct shoal_timer timer;
    shoal_timer_init(&timer, resolve_raced);
    shoal_timer_arm(&timer, SOON / 2);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&raced, OP_FAILS), LATE, &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 6);
    SHOAL_EXPECT_INT(shoal_core_self->timers.armed, 0);
    /* Late: a failure, a value, and an operation that takes its time. */
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&raced, OP_FAILS), SOON, &value), -ETIMEDOUT);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "timed out after 2.000000 ms") == 0);
    SHOAL_EXPECT_INT(raced.cancels, 1);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&raced, OP_SUCCEEDS), SOON, &value), -ETIMEDOUT);
    SHOAL_EXPECT_INT(values_dropped, 2);
    shoal_timer_arm(&timer, 3 * SOON);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&raced, OP_STAYS), SOON, &value), -ETIMEDOUT);
    SHOAL_EXPECT(raced.settled); /* it had ended */
    SHOAL_EXPECT_INT(values_dropped, 3);
    /* Due together with the value. */
    shoal_timer_arm(&timer, SOON / 2);
    uint64_t until = shoal_now_ns() + 2 * SOON;
    struct shoal_future *future = op_begin(&raced, OP_FAILS);
    struct shoal_task task = {.run = burn};
    burn_until_ns = until;
    shoal_task_post(&task);
    SHOAL_EXPECT_INT(shoal_await_timeout(future, SOON, &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 6);
    SHOAL_EXPECT_INT(raced.cancels, 0);
    /* Woken while it waits without a limit. */
    struct shoal_task wake = {.run = wake_for_nothing};
    to_wake = shoal_fiber_self();
    shoal_task_post(&wake);
    shoal_timer_arm(&timer, SOON);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&raced, OP_FAILS), SHOAL_NS_FOREVER, &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 6);
    op_resolve(&op, 9);
    SHOAL_EXPECT_INT(shoal_await_timeout(slow, SHOAL_NS_FOREVER, &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 9);
    SHOAL_EXPECT_INT(held(), before);
    return 0;
}

static void await_timeout_is_as_exact_and_holds_nothing(void **state)
{
    (void)state;
    check_clean(check_await, NULL);
}

static int await_limited(void *arg)
{
    union shoal_value value = {.i64 = 3};
    int rc = shoal_await_timeout(op_begin(arg, ((struct op *)arg)->cancel), LATE, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value_take(&value), -1);
    /* From now on every wait fails; what it waits for is cancelled, and has ended. */
    struct op other;
    SHOAL_EXPECT_INT(shoal_await_timeout(op_begin(&other, OP_SUCCEEDS), LATE, &value), -ECANCELED);
    SHOAL_EXPECT_INT(other.cancels, 1);
    SHOAL_EXPECT_INT(shoal_await_timeout(op_ready(4), LATE, &value), -ECANCELED);
    return rc;
}

static int check_await_cancelled(void *arg)
{
    (void)arg;
    struct op op = {.cancel = OP_FAILS};
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, await_limited, &op, "limited"), 0);
    settle_down();
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(op.cancels, 1);
    op = (struct op){.cancel = OP_SUCCEEDS};
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, await_limited, &op, "limited"), 0);
    settle_down();
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0); /* it won */
    SHOAL_EXPECT_INT(values_dropped, 4);
    return 0;
}

static void await_timeout_on_a_cancelled_fiber_waits_for_the_end(void **state)
{
    (void)state;
    check_clean(check_await_cancelled, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeout_ready_future_is_returned_as_it_is),
        cmocka_unit_test(timeout_in_time_passes_the_outcome),
        cmocka_unit_test(timeout_exceeded_cancels_and_drops_the_late_value),
        cmocka_unit_test(timeout_cancel_is_passed_on),
        cmocka_unit_test(timeout_of_a_deaf_operation_waits_or_leaves),
        cmocka_unit_test(timeout_that_is_due_loses_to_a_value_that_is_there),
        cmocka_unit_test(timeout_nested_the_shortest_counts),
        cmocka_unit_test(await_timeout_is_as_exact_and_holds_nothing),
        cmocka_unit_test(await_timeout_on_a_cancelled_fiber_waits_for_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
