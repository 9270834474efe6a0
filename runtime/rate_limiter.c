/*
 * A token bucket: see rate_limiter.h, and sync_impl.h for how waiting works.
 *
 * Time becomes credit by multiplication alone, so that nothing is ever rounded away: `tokens` a
 * nanosecond, and a token costs `interval_ns`. The division that tells when enough will be there
 * rounds up, and what has accrued beyond stays in the bucket.
 *
 * While somebody waits, the bucket is not cut at `burst`: what accrued while a timer was late
 * belongs to those in line, who were due by then. When the line is empty it is cut.
 */
#include "shoal/runtime/rate_limiter.h"

#include <errno.h>

#include "shoal/runtime/sync_impl.h"

#define CREDIT_MAX (UINT64_C(1) << 62)

static struct shoal_rate_limiter *of_queue(struct shoal_wait_queue *queue)
{
    return SHOAL_CONTAINER_OF(queue, struct shoal_rate_limiter, queue);
}

static uint64_t cost(const struct shoal_rate_limiter *limiter, uint64_t n)
{
    return n * limiter->interval_ns;
}

/* A bucket that nobody waits at holds no more than `burst`. */
static void cut(struct shoal_rate_limiter *limiter)
{
    if (limiter->queue.count == 0 && limiter->credit > cost(limiter, limiter->burst))
        limiter->credit = cost(limiter, limiter->burst);
}

static void add(struct shoal_rate_limiter *limiter, uint64_t credit)
{
    limiter->credit = credit < CREDIT_MAX - limiter->credit ? limiter->credit + credit : CREDIT_MAX;
    cut(limiter);
}

static void accrue(struct shoal_rate_limiter *limiter)
{
    uint64_t now_ns = shoal_now_ns();
    uint64_t credit;
    if (__builtin_mul_overflow(now_ns - limiter->seen_ns, limiter->tokens, &credit))
        credit = CREDIT_MAX;
    limiter->seen_ns = now_ns;
    add(limiter, credit);
}

/* Sets the timer for the first in line, who lacks something. */
static void expect(struct shoal_rate_limiter *limiter, const struct shoal_waiter *waiter)
{
    uint64_t lack = cost(limiter, waiter->n) - limiter->credit;
    uint64_t wait_ns = lack / limiter->tokens + (lack % limiter->tokens != 0);
    shoal_timer_arm_at(&limiter->timer, shoal_deadline_ns(limiter->seen_ns, wait_ns));
}

static void serve(struct shoal_wait_queue *queue)
{
    struct shoal_rate_limiter *limiter = of_queue(queue);
    if (queue->serving)
        return;
    queue->serving = true;
    accrue(limiter);
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(queue)) != NULL &&
           cost(limiter, waiter->n) <= limiter->credit) {
        limiter->credit -= cost(limiter, waiter->n);
        shoal_waiter_end(waiter, 0);
    }
    queue->serving = false;
    cut(limiter);
    if (waiter != NULL)
        expect(limiter, waiter);
    else
        shoal_timer_cancel(&limiter->timer);
}

static void time_comes(struct shoal_timer *timer)
{
    serve(&SHOAL_CONTAINER_OF(timer, struct shoal_rate_limiter, timer)->queue);
}

static bool take(struct shoal_rate_limiter *limiter, uint64_t n)
{
    if (limiter->queue.count > 0)
        return false;
    accrue(limiter);
    if (n > limiter->burst || cost(limiter, n) > limiter->credit)
        return false;
    limiter->credit -= cost(limiter, n);
    return true;
}

static void give_back(union shoal_value *value)
{
    struct shoal_rate_limiter *limiter = of_queue(value->slice.ptr);
    add(limiter, cost(limiter, value->slice.size));
    serve(&limiter->queue);
}

int shoal_rate_limiter_init(struct shoal_rate_limiter *limiter,
                            const struct shoal_rate_limiter_options *options)
{
    uint64_t full;
    if (options->tokens == 0 || options->tokens >= CREDIT_MAX || options->interval_ns == 0 ||
        options->burst == 0)
        return -EINVAL;
    if (__builtin_mul_overflow(options->burst, options->interval_ns, &full) || full >= CREDIT_MAX)
        return -EINVAL;
    shoal_wait_queue_init(&limiter->queue, "rate limiter", serve);
    shoal_timer_init(&limiter->timer, time_comes);
    limiter->tokens = options->tokens;
    limiter->interval_ns = options->interval_ns;
    limiter->burst = options->burst;
    limiter->credit = full;
    limiter->seen_ns = shoal_now_ns();
    return 0;
}

void shoal_rate_limiter_deinit(struct shoal_rate_limiter *limiter)
{
    shoal_wait_queue_deinit(&limiter->queue);
}

/* In line, with a timer if it is the first. */
static void expect_first(struct shoal_rate_limiter *limiter, const struct shoal_waiter *waiter)
{
    if (limiter->queue.count == 0)
        expect(limiter, waiter);
}

int shoal_rate_limiter_acquire(struct shoal_rate_limiter *limiter, uint64_t n, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&limiter->queue, "acquire");
    if (rc < 0)
        return rc;
    if (n > limiter->burst)
        return -EINVAL;
    if (take(limiter, n))
        return 0;
    struct shoal_waiter waiter = {.n = n};
    if (timeout_ns > 0)
        expect_first(limiter, &waiter);
    return shoal_waiter_park(&limiter->queue, &waiter, timeout_ns);
}

bool shoal_rate_limiter_try_acquire(struct shoal_rate_limiter *limiter, uint64_t n)
{
    shoal_wait_queue_check(&limiter->queue, "try_acquire");
    return take(limiter, n);
}

struct shoal_future *shoal_rate_limiter_acquire_future(struct shoal_rate_limiter *limiter,
                                                       uint64_t n, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&limiter->queue, "acquire");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&limiter->queue, 0, give_back, &waiter);
    if (waiter == NULL)
        return future;
    waiter->n = n;
    if (n > limiter->burst) {
        shoal_waiter_end(waiter, -EINVAL);
    } else if (take(limiter, n)) {
        shoal_waiter_end(waiter, 0);
    } else {
        if (timeout_ns > 0)
            expect_first(limiter, waiter);
        shoal_waiter_start(waiter, timeout_ns);
    }
    return future;
}

uint64_t shoal_rate_limiter_available(struct shoal_rate_limiter *limiter)
{
    shoal_wait_queue_check(&limiter->queue, "available");
    accrue(limiter);
    return limiter->credit / limiter->interval_ns;
}
