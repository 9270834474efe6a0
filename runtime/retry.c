/*
 * Attempts with delays in between: see retry.h.
 *
 *   begin -> under way (`attempt`) -> failed -> delay (timer) -> begin ...
 *
 * Each begin is a task of its own, also without a delay: attempts that fail at once use no stack,
 * and others get their turn. The last failure is kept in `base`, where a cancel finds its text.
 */
#include "shoal/runtime/retry.h"

#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/timer.h"

struct retry {
    struct shoal_combine base;
    struct shoal_retry how;
    struct shoal_timer timer;
    struct shoal_future *attempt; /* under way; NULL without */
    uint64_t delay_ns;            /* the next one, before jitter */
    uint64_t random;
    uint32_t made; /* attempts begun */
};

static void finish(struct retry *retry, struct shoal_outcome *outcome)
{
    shoal_combine_settle(&retry->base, outcome);
    shoal_combine_free(&retry->base);
}

/* Gives up for a cancel; what is known of the last failure goes along. */
static void finish_cancelled(struct retry *retry)
{
    retry->base.code = -ECANCELED;
    shoal_combine_settle_failed(&retry->base);
    shoal_combine_free(&retry->base);
}

/* splitmix64 */
static uint64_t next_random(struct retry *retry)
{
    uint64_t x = retry->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* `number` times `percent` / 100, or the highest number. */
static uint64_t percent_of(uint64_t number, uint32_t percent)
{
    unsigned __int128 product = (unsigned __int128)number * percent / 100;
    return product > UINT64_MAX ? UINT64_MAX : (uint64_t)product;
}

/* The delay after the attempt that has just failed. */
static uint64_t take_delay(struct retry *retry)
{
    uint64_t delay_ns = retry->delay_ns;
    uint64_t max_ns = retry->how.delay_max_ns;
    if (max_ns != 0 && delay_ns > max_ns)
        delay_ns = max_ns;
    retry->delay_ns = percent_of(delay_ns, retry->how.growth_percent);
    uint64_t span_ns = percent_of(delay_ns, retry->how.jitter_percent);
    if (span_ns > 0)
        delay_ns -= next_random(retry) % (span_ns == UINT64_MAX ? span_ns : span_ns + 1);
    return delay_ns;
}

static bool wants_again(struct retry *retry, const struct shoal_outcome *outcome,
                        uint64_t *delay_ns)
{
    if (retry->base.cancelled)
        return false;
    if (retry->how.attempts != SHOAL_RETRY_UNLIMITED && retry->made >= retry->how.attempts)
        return false;
    *delay_ns = take_delay(retry);
    if (retry->how.again == NULL)
        return outcome->code != -ECANCELED;
    const struct shoal_retry_failure failure = {
        .attempt = retry->made,
        .code = outcome->code,
        .text = outcome->text != NULL ? outcome->text : "",
        .delay_ns = *delay_ns,
    };
    return retry->how.again(retry->how.arg, &failure);
}

static void run_begin(struct shoal_task *task);

static void attempt_ended(struct retry *retry, struct shoal_outcome *outcome)
{
    uint64_t delay_ns;
    if (outcome->code == 0 || !wants_again(retry, outcome, &delay_ns)) {
        finish(retry, outcome);
        return;
    }
    shoal_text_free(retry->base.text);
    retry->base.text = outcome->text;
    if (delay_ns == 0 || retry->base.cancelled) /* the latter by `again` */
        shoal_combine_post(&retry->base, run_begin);
    else
        shoal_timer_arm(&retry->timer, delay_ns);
}

static void fire(struct shoal_timer *timer)
{
    struct retry *retry = SHOAL_CONTAINER_OF(timer, struct retry, timer);
    shoal_combine_post(&retry->base, run_begin);
}

static void run_attempt(struct shoal_task *task)
{
    struct shoal_outcome outcome;
    struct retry *retry = shoal_combine_outcome(task, &outcome);
    retry->attempt = NULL;
    attempt_ended(retry, &outcome);
}

static void run_begin(struct shoal_task *task)
{
    struct retry *retry = SHOAL_CONTAINER_OF(task, struct retry, base.task);
    retry->base.posted = false;
    if (retry->base.cancelled) {
        finish_cancelled(retry);
        return;
    }
    if (retry->made < SHOAL_RETRY_UNLIMITED)
        retry->made++;
    const union shoal_value in = {.slice = {(void *)(uintptr_t)retry->made, 0, 0}};
    const struct shoal_call call = {retry->how.fn, retry->how.fiber, retry->how.drop,
                                    retry->how.arg, retry->how.name};
    struct shoal_future *attempt = shoal_combine_call(&call, &in);
    struct shoal_outcome outcome;
    if (shoal_combine_take(attempt, run_attempt, retry, &outcome)) {
        attempt_ended(retry, &outcome);
        return;
    }
    retry->attempt = attempt;
    if (retry->base.cancelled) /* by the function itself */
        shoal_future_cancel(attempt);
}

static void cancel_retry(struct shoal_combine *combine)
{
    struct retry *retry = SHOAL_CONTAINER_OF(combine, struct retry, base);
    if (retry->attempt != NULL)
        shoal_future_cancel(retry->attempt);
    else if (shoal_timer_cancel(&retry->timer))
        finish_cancelled(retry);
}

/* What is wrong with `how`; NULL if nothing. */
static const char *fault_of(const struct shoal_retry *how)
{
    if ((how->fn == NULL) == (how->fiber == NULL))
        return "one of fn and fiber is to be set";
    if (how->attempts == 0)
        return "attempts is 0, and is to be 1 or more";
    if (how->jitter_percent > 100)
        return "jitter_percent is over 100";
    if (how->growth_percent != 0 && how->growth_percent < 100)
        return "growth_percent is under 100";
    return NULL;
}

struct shoal_future *shoal_retry(const struct shoal_retry *how)
{
    const char *fault = fault_of(how);
    if (fault != NULL)
        return shoal_future_failed(-EINVAL, "%s", fault);
    struct retry *retry = shoal_combine_new(sizeof(*retry), cancel_retry);
    if (retry == NULL)
        return shoal_combine_no_memory();
    retry->how = *how;
    if (how->growth_percent == 0)
        retry->how.growth_percent = 200;
    retry->delay_ns = how->delay_ns;
    retry->random = how->seed != 0 ? how->seed : shoal_now_ns() ^ (uintptr_t)retry;
    shoal_timer_init(&retry->timer, fire);
    shoal_combine_post(&retry->base, run_begin);
    return retry->base.result;
}
