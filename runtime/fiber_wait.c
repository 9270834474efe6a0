/*
 * What fibers wait for among themselves: joining, cancelling, sleeping.
 *
 * A fiber is cancelled by itself (`own_cancel`, for good) or by a scope that it has entered (until
 * it leaves that). `cancelled` and `cancel_code` are the sum of both, kept up to date here.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/owner_impl.h"

#define EXPLANATION_BYTES_MAX 512

static void check_mine(const struct shoal_fiber *fiber, const char *what)
{
    SHOAL_CHECK_OWNER(fiber->core, what, "fiber \"%s\"", fiber->name);
    SHOAL_DCHECK(fiber->state != SHOAL_FIBER_FREE, "%s of a fiber that is gone", what);
}

static void cancel_join(struct shoal_fiber *joiner)
{
    shoal_fiber_cancel_with(joiner->wait_ctx, joiner->cancel_code);
}

int shoal_fiber_join(struct shoal_fiber *fiber)
{
    check_mine(fiber, "join");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *self = core->fiber;
    SHOAL_CHECK(self != NULL && self != fiber, "a join happens on another fiber");
    SHOAL_CHECK(!fiber->detached && fiber->joiner == NULL, "fiber \"%s\" is joined twice",
                fiber->name);
    if (SHOAL_UNLIKELY(shoal_fiber_cancelled_now(self)))
        shoal_fiber_cancel_with(fiber, self->cancel_code);
    if (fiber->state != SHOAL_FIBER_DONE) {
        fiber->joiner = self;
        shoal_fiber_wait_begin(self, "join", cancel_join, fiber);
        while (fiber->state != SHOAL_FIBER_DONE) {
            shoal_fiber_park(core, self);
            if (SHOAL_UNLIKELY(shoal_fiber_cancelled_now(self))) /* it may have come meanwhile */
                shoal_fiber_cancel_with(fiber, self->cancel_code);
        }
        shoal_fiber_wait_end(self);
    }
    int result = fiber->result;
    shoal_fiber_release(core, fiber);
    return result;
}

void shoal_fiber_detach(struct shoal_fiber *fiber)
{
    check_mine(fiber, "detach");
    SHOAL_CHECK(!fiber->detached && fiber->joiner == NULL, "fiber \"%s\" is joined already",
                fiber->name);
    fiber->detached = true;
    if (fiber->state == SHOAL_FIBER_DONE)
        shoal_fiber_release(shoal_core_self, fiber);
}

/* Passes a cancel on to what the fiber waits for. */
static void interrupt_wait(struct shoal_fiber *fiber)
{
    if (fiber->shields != 0 || fiber->state != SHOAL_FIBER_PARKED)
        return;
    if (fiber->waiting_future != NULL)
        shoal_future_cancel(fiber->waiting_future);
    else if (fiber->on_cancel != NULL)
        fiber->on_cancel(fiber);
}

void shoal_fiber_apply_cancel(struct shoal_core *core, struct shoal_fiber *fiber, int code)
{
    if (fiber->cancelled)
        return;
    fiber->cancelled = true;
    fiber->cancel_code = (int16_t)code;
    if (fiber == core->fiber)
        core->hot.may_await = !shoal_fiber_cancelled_now(fiber);
    interrupt_wait(fiber);
}

void shoal_fiber_cancel_with(struct shoal_fiber *fiber, int code)
{
    check_mine(fiber, "cancel");
    if (fiber->own_cancel != 0 || fiber->state == SHOAL_FIBER_DONE)
        return;
    fiber->own_cancel = (int16_t)code;
    shoal_fiber_apply_cancel(shoal_core_self, fiber, code);
}

void shoal_fiber_cancel(struct shoal_fiber *fiber)
{
    shoal_fiber_cancel_with(fiber, -ECANCELED);
}

bool shoal_fiber_cancelled(void)
{
    SHOAL_CHECK_ON_CORE("fiber_cancelled");
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    return fiber != NULL && shoal_fiber_cancelled_now(fiber);
}

void shoal_fiber_shield(void)
{
    SHOAL_CHECK_ON_CORE("shield");
    struct shoal_core *core = shoal_core_self;
    SHOAL_DCHECK(core->fiber != NULL, "shield outside a fiber");
    core->fiber->shields++;
    core->hot.may_await = true;
}

void shoal_fiber_unshield(void)
{
    SHOAL_CHECK_ON_CORE("unshield");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_DCHECK(fiber != NULL, "unshield outside a fiber");
    SHOAL_CHECK(fiber->shields > 0, "unshield without shield");
    fiber->shields--;
    core->hot.may_await = !shoal_fiber_cancelled_now(fiber);
}

struct shoal_fiber *shoal_fiber_self(void)
{
    return shoal_core_self != NULL ? shoal_core_self->fiber : NULL;
}

const char *shoal_fiber_name(const struct shoal_fiber *fiber)
{
    SHOAL_CHECK_OWNER(fiber->core, "name", "fiber \"%s\"", fiber->name);
    return fiber->name;
}

void shoal_fiber_set_message(struct shoal_fiber *fiber, char *text_move)
{
    if (fiber == NULL) {
        shoal_text_free(shoal_core_self->explanation);
        shoal_core_self->explanation = text_move;
        return;
    }
    if (fiber->message != NULL)
        shoal_text_free(fiber->message);
    fiber->message = text_move;
}

int shoal_fiber_explain(int code, const char *fmt, ...)
{
    char text[EXPLANATION_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    shoal_fiber_set_message(shoal_core_self->fiber, shoal_text_copy(text));
    return code;
}

/* ---- Waiting for time ---- */

struct sleeper {
    struct shoal_timer timer;
    struct shoal_fiber *fiber;
    bool cancelled;
};

static void sleeper_fire(struct shoal_timer *timer)
{
    struct sleeper *sleeper = SHOAL_CONTAINER_OF(timer, struct sleeper, timer);
    shoal_fiber_make_ready(shoal_core_self, sleeper->fiber);
}

static void sleeper_cancel(struct shoal_fiber *fiber)
{
    struct sleeper *sleeper = fiber->wait_ctx;
    if (!shoal_timer_cancel(&sleeper->timer))
        return; /* it has fired: the sleep is over */
    sleeper->cancelled = true;
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

int shoal_sleep_ns(uint64_t delay_ns)
{
    return shoal_sleep_until_ns(shoal_deadline_ns(shoal_now_ns(), delay_ns));
}

int shoal_sleep_until_ns(uint64_t deadline_ns)
{
    SHOAL_CHECK_ON_CORE("sleep");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "sleep outside a fiber");
    if (shoal_fiber_cancelled_now(fiber))
        return fiber->cancel_code;
    struct sleeper sleeper = {.fiber = fiber};
    shoal_timer_init(&sleeper.timer, sleeper_fire);
    shoal_timer_arm_at(&sleeper.timer, deadline_ns);
    shoal_fiber_wait_begin(fiber, "sleep", sleeper_cancel, &sleeper);
    do {
        shoal_fiber_park(core, fiber);
    } while (shoal_timer_armed(&sleeper.timer));
    shoal_fiber_wait_end(fiber);
    return sleeper.cancelled ? fiber->cancel_code : 0;
}
