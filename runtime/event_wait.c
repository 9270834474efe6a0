/*
 * See event_wait_impl.h.
 */
#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/event_wait_impl.h"
#include "shoal/runtime/future.h"

struct waiter {
    struct shoal_list node;
    struct shoal_timer timer;
    struct shoal_fiber *fiber; /* NULL: a future's */
    struct shoal_future *future;
    int64_t code;
    bool ended;
};

static void end(struct waiter *waiter, int64_t code)
{
    shoal_list_remove(&waiter->node);
    if (waiter->fiber != NULL) {
        shoal_timer_cancel(&waiter->timer);
        waiter->code = code;
        waiter->ended = true;
        shoal_fiber_make_ready(shoal_core_self, waiter->fiber);
        return;
    }
    struct shoal_future *future = waiter->future;
    shoal_mem_free(waiter, sizeof(*waiter));
    if (code < 0)
        shoal_future_fail(future, (int)code, NULL);
    else
        shoal_future_resolve(future, &(union shoal_value){.i64 = code});
}

static void time_out(struct shoal_timer *timer)
{
    end(SHOAL_CONTAINER_OF(timer, struct waiter, timer), -ETIMEDOUT);
}

static void cancel_fiber(struct shoal_fiber *fiber)
{
    struct waiter *waiter = fiber->wait_ctx;
    if (!waiter->ended)
        end(waiter, fiber->cancel_code);
}

int shoal_event_wait(struct shoal_list *list, const char *what, uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a wait for a %s outside a fiber", what);
    struct shoal_fiber *fiber = core->fiber;
    int cancelled = shoal_fiber_cancel_code(fiber);
    if (cancelled != 0)
        return cancelled;
    if (timeout_ns == 0)
        return -ETIMEDOUT;
    struct waiter waiter = {.fiber = fiber};
    shoal_list_push_back(list, &waiter.node);
    shoal_timer_init(&waiter.timer, time_out);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&waiter.timer, timeout_ns);
    shoal_fiber_wait_begin(fiber, what, cancel_fiber, &waiter);
    while (!waiter.ended)
        shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    return (int)waiter.code;
}

static void cancel_future(void *ctx)
{
    end(ctx, -ECANCELED);
}

struct shoal_future *shoal_event_future(struct shoal_list *list)
{
    struct waiter *waiter = shoal_mem_alloc_zeroed(sizeof(*waiter));
    if (waiter == NULL)
        return shoal_future_failed(-ENOMEM, NULL);
    waiter->future = shoal_future_new();
    if (waiter->future == shoal_core_self->no_memory) {
        struct shoal_future *failed = waiter->future;
        shoal_mem_free(waiter, sizeof(*waiter));
        return failed;
    }
    shoal_future_on_cancel(waiter->future, cancel_future, waiter);
    shoal_list_push_back(list, &waiter->node);
    return waiter->future;
}

bool shoal_event_end_first(struct shoal_list *list, int64_t code)
{
    if (!shoal_list_linked(list))
        return false;
    end(SHOAL_CONTAINER_OF(list->next, struct waiter, node), code);
    return true;
}

void shoal_event_end_all(struct shoal_list *list, int64_t code)
{
    while (shoal_event_end_first(list, code))
        continue;
}

bool shoal_event_has_fiber(const struct shoal_list *list)
{
    SHOAL_LIST_FOREACH (node, list)
        if (SHOAL_CONTAINER_OF(node, struct waiter, node)->fiber != NULL)
            return true;
    return false;
}
