/*
 * A time limit for a future: see combine.h.
 *
 * The limit passes when the timer fires and the future is still pending. One that has settled, and
 * is only queued to report, was in time.
 */
#include <errno.h>
#include <stdio.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/timer.h"

struct timeout {
    struct shoal_combine base;
    struct shoal_timer timer;
    struct shoal_future *future;
    uint64_t limit_ns;
    bool leave;
    bool passed;
};

char *shoal_combine_timeout_text(uint64_t limit_ns)
{
    char text[64];
    snprintf(text, sizeof(text), "timed out after %llu.%06llu ms",
             (unsigned long long)(limit_ns / SHOAL_NS_PER_MS),
             (unsigned long long)(limit_ns % SHOAL_NS_PER_MS));
    return shoal_text_copy(text);
}

static void fail_late(struct timeout *timeout)
{
    shoal_combine_fault(&timeout->base, -ETIMEDOUT, shoal_combine_timeout_text(timeout->limit_ns));
    shoal_combine_settle_failed(&timeout->base);
}

static void fire(struct shoal_timer *timer)
{
    struct timeout *timeout = SHOAL_CONTAINER_OF(timer, struct timeout, timer);
    if (!shoal_future_is_pending(timeout->future))
        return;
    timeout->passed = true;
    if (timeout->leave)
        fail_late(timeout);
    shoal_future_cancel(timeout->future);
}

static void run_future(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct timeout *timeout = shoal_combine_outcome(task, &outcome);
    (void)shoal_timer_cancel(&timeout->timer);
    if (!timeout->passed) {
        shoal_combine_settle(&timeout->base, &outcome);
    } else {
        if (timeout->base.result != NULL)
            fail_late(timeout);
        shoal_outcome_drop(&outcome);
    }
    shoal_combine_free(&timeout->base);
}

static void cancel_timeout(struct shoal_combine *combine)
{
    shoal_future_cancel(SHOAL_CONTAINER_OF(combine, struct timeout, base)->future);
}

static struct shoal_future *with_limit(struct shoal_future *future, uint64_t limit_ns, bool leave)
{
    if (!shoal_future_is_pending(future))
        return future;
    struct timeout *timeout = shoal_combine_new(sizeof(*timeout), cancel_timeout);
    if (timeout == NULL)
        return shoal_combine_spoil(future);
    timeout->future = future;
    timeout->limit_ns = limit_ns;
    timeout->leave = leave;
    shoal_timer_init(&timeout->timer, fire);
    (void)shoal_future_consume(future, run_future, timeout);
    if (limit_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&timeout->timer, limit_ns);
    return timeout->base.result;
}

struct shoal_future *shoal_timeout(struct shoal_future *future, uint64_t timeout_ns)
{
    return with_limit(future, timeout_ns, false);
}

struct shoal_future *shoal_timeout_leave(struct shoal_future *future, uint64_t timeout_ns)
{
    return with_limit(future, timeout_ns, true);
}
