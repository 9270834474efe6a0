/*
 * A wait with a time limit on the calling fiber: see combine.h.
 *
 * The state lies on the fiber's stack. The future has it as its consumer until it has settled,
 * which is waited for in every case; then its task wakes the fiber.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/timer.h"

struct limited {
    struct shoal_timer timer;
    struct shoal_fiber *fiber;
    struct shoal_future *future; /* NULL once it has settled and `outcome` is there */
    struct shoal_outcome outcome;
    bool passed;
};

static void run_future(struct shoal_task *task)
{
    struct limited *limited = shoal_combine_ctx(task);
    (void)shoal_combine_outcome(task, &limited->outcome);
    limited->future = NULL;
    shoal_fiber_make_ready(shoal_core_self, limited->fiber);
}

static void fire(struct shoal_timer *timer)
{
    struct limited *limited = SHOAL_CONTAINER_OF(timer, struct limited, timer);
    if (limited->future == NULL || !shoal_future_is_pending(limited->future))
        return;
    limited->passed = true;
    shoal_future_cancel(limited->future);
}

static void cancel_wait(struct shoal_fiber *fiber)
{
    struct limited *limited = fiber->wait_ctx;
    if (limited->future != NULL)
        shoal_future_cancel(limited->future);
}

static void wait_settled(struct limited *limited, bool cancelled, uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    if (cancelled)
        shoal_future_cancel(limited->future);
    shoal_timer_init(&limited->timer, fire);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&limited->timer, timeout_ns);
    shoal_fiber_wait_begin(limited->fiber, "future with a time limit", cancel_wait, limited);
    while (limited->future != NULL)
        shoal_fiber_park(core, limited->fiber);
    shoal_fiber_wait_end(limited->fiber);
    (void)shoal_timer_cancel(&limited->timer);
}

/* Drops the outcome, and returns `code` with `text_move` as its text. */
static int fail(struct limited *limited, int code, char *text_move)
{
    shoal_outcome_drop(&limited->outcome);
    shoal_fiber_set_message(limited->fiber, text_move);
    return code;
}

int shoal_await_timeout(struct shoal_future *future, uint64_t timeout_ns, union shoal_value *out)
{
    struct shoal_fiber *fiber = shoal_core_self->fiber;
    SHOAL_CHECK(fiber != NULL, "await outside a fiber");
    struct limited limited = {.fiber = fiber, .future = future};
    int cancel_code = shoal_fiber_cancel_code(fiber);
    if (!shoal_combine_take(future, run_future, &limited, &limited.outcome))
        wait_settled(&limited, cancel_code < 0, timeout_ns);
    if (cancel_code < 0)
        return fail(&limited, cancel_code, NULL);
    if (limited.passed)
        return fail(&limited, -ETIMEDOUT, shoal_combine_timeout_text(timeout_ns));
    int code = limited.outcome.code;
    if (code < 0) {
        shoal_fiber_set_message(fiber, limited.outcome.text);
        cancel_code = shoal_fiber_cancel_code(fiber);
        return code == -ECANCELED && cancel_code < 0 ? cancel_code : code;
    }
    if (out != NULL)
        *out = limited.outcome.value;
    else
        shoal_outcome_drop(&limited.outcome);
    return 0;
}
