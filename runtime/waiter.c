/*
 * The waiter that all of sync shares: see sync_impl.h.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/sync_impl.h"

void shoal_waiters_init(struct shoal_core *core)
{
    shoal_slab_init(&core->waiters, "waiter", sizeof(struct shoal_future_waiter), 16);
    core->select_random = 2654435769u + core->id;
}

unsigned shoal_waiters_deinit(struct shoal_core *core)
{
    return shoal_slab_deinit(&core->waiters);
}

/* ---- Lines ---- */

void shoal_wait_queue_init(struct shoal_wait_queue *queue, const char *what,
                           void (*left)(struct shoal_wait_queue *queue))
{
    SHOAL_CHECK(shoal_core_self != NULL, "a %s is made on a thread that is no core", what);
    shoal_list_init(&queue->waiters);
    queue->left = left;
    queue->what = what;
    queue->count = 0;
    queue->core = (uint16_t)shoal_core_self->id;
    queue->serving = false;
}

void shoal_wait_queue_deinit(struct shoal_wait_queue *queue)
{
    shoal_wait_queue_check(queue, "deinit");
    SHOAL_CHECK(queue->count == 0, "%s %p ends while %u wait for it", queue->what, (void *)queue,
                queue->count);
    SHOAL_CHECK(!queue->serving, "%s %p ends while it is served", queue->what, (void *)queue);
}

void shoal_wait_queue_end_all(struct shoal_wait_queue *queue, int result)
{
    for (uint32_t present = queue->count; present > 0; present--) {
        struct shoal_waiter *waiter = shoal_wait_queue_first(queue);
        if (waiter == NULL)
            break;
        shoal_waiter_end(waiter, result);
    }
}

void shoal_waiter_push(struct shoal_wait_queue *queue, struct shoal_waiter *waiter)
{
    waiter->queue = queue;
    waiter->queued = true;
    queue->count++;
    shoal_list_push_back(&queue->waiters, &waiter->node);
}

void shoal_waiter_remove(struct shoal_waiter *waiter)
{
    if (waiter->queued) {
        waiter->queued = false;
        waiter->queue->count--;
        shoal_list_remove(&waiter->node);
    }
    shoal_timer_cancel(&waiter->timer);
}

/* ---- Ending ---- */

static void give_waiter(struct shoal_core *core, struct shoal_waiter *waiter)
{
    struct shoal_future_waiter *full =
        SHOAL_CONTAINER_OF(waiter, struct shoal_future_waiter, waiter);
    if (full->item_bytes > SHOAL_WAITER_INLINE_BYTES)
        shoal_mem_free(waiter->item, full->item_bytes);
    shoal_slab_give(&core->waiters, full);
}

void shoal_waiter_free(struct shoal_waiter *waiter)
{
    SHOAL_DCHECK(waiter->kept && waiter->ended, "a waiter is freed that is not over");
    give_waiter(shoal_core_self, waiter);
}

/* Once the future has settled, waiter and primitive belong to its consumer: nothing after that. */
static void end_future(struct shoal_core *core, struct shoal_waiter *waiter, const char *text)
{
    struct shoal_future *future = waiter->who.future;
    int result = waiter->result;
    union shoal_value value = {.slice = {waiter->queue, waiter->n, 0}};
    if (waiter->kept)
        value.slice.ptr = waiter;
    else
        give_waiter(core, waiter);
    if (result < 0)
        shoal_future_fail(future, result, text);
    else
        shoal_future_resolve(future, &value);
}

void shoal_waiter_fail(struct shoal_waiter *waiter, int code, const char *text)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_DCHECK(!waiter->ended, "a waiter for a %s ends twice", waiter->queue->what);
    shoal_waiter_remove(waiter);
    waiter->result = code;
    waiter->ended = true;
    switch (waiter->kind) {
    case SHOAL_WAITER_FIBER:
        shoal_fiber_make_ready(core, waiter->who.fiber);
        break;
    case SHOAL_WAITER_FUTURE:
        end_future(core, waiter, text);
        break;
    default:
        shoal_selection_won(waiter);
        break;
    }
}

void shoal_waiter_end(struct shoal_waiter *waiter, int result)
{
    shoal_waiter_fail(waiter, result, NULL);
}

/* Out of the line empty-handed. */
static void leave(struct shoal_waiter *waiter, int code)
{
    struct shoal_wait_queue *queue = waiter->queue;
    shoal_waiter_end(waiter, code);
    if (queue->left != NULL)
        queue->left(queue);
}

static void time_out(struct shoal_timer *timer)
{
    leave(SHOAL_CONTAINER_OF(timer, struct shoal_waiter, timer), -ETIMEDOUT);
}

static void arm(struct shoal_waiter *waiter, uint64_t timeout_ns)
{
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&waiter->timer, timeout_ns);
}

/* ---- Fibers ---- */

int shoal_wait_queue_enter(const struct shoal_wait_queue *queue, const char *op)
{
    shoal_wait_queue_check(queue, op);
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    SHOAL_CHECK(fiber != NULL, "%s of a %s outside a fiber", op, queue->what);
    return shoal_fiber_cancel_code(fiber);
}

static void cancel_fiber(struct shoal_fiber *fiber)
{
    leave(fiber->wait_ctx, fiber->cancel_code);
}

int shoal_waiter_park(struct shoal_wait_queue *queue, struct shoal_waiter *waiter,
                      uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    if (timeout_ns == 0)
        return -ETIMEDOUT;
    waiter->kind = SHOAL_WAITER_FIBER;
    waiter->who.fiber = fiber;
    shoal_timer_init(&waiter->timer, time_out);
    shoal_waiter_push(queue, waiter);
    arm(waiter, timeout_ns);
    shoal_fiber_wait_begin(fiber, queue->what, cancel_fiber, waiter);
    for (;;) {
        shoal_fiber_park(core, fiber);
        if (waiter->ended)
            break;
        /* Woken for nothing, and perhaps cancelled while it was on its way here. */
        if (shoal_fiber_cancelled_now(fiber))
            cancel_fiber(fiber);
        if (waiter->ended)
            break;
    }
    shoal_fiber_wait_end(fiber);
    return waiter->result;
}

/* ---- Futures ---- */

static void cancel_future(void *ctx)
{
    leave(ctx, -ECANCELED);
}

static struct shoal_waiter *take_waiter(struct shoal_core *core, uint32_t item_bytes)
{
    struct shoal_future_waiter *full = shoal_slab_take(&core->waiters);
    if (full == NULL)
        return NULL;
    memset(full, 0, sizeof(*full));
    full->item_bytes = item_bytes;
    full->waiter.item = item_bytes > 0 ? full->bytes : NULL;
    if (item_bytes <= SHOAL_WAITER_INLINE_BYTES)
        return &full->waiter;
    full->waiter.item = shoal_mem_alloc(item_bytes);
    if (full->waiter.item != NULL)
        return &full->waiter;
    shoal_slab_give(&core->waiters, full);
    return NULL;
}

struct shoal_future *shoal_waiter_new(struct shoal_wait_queue *queue, uint32_t item_bytes,
                                      shoal_drop_fn *drop, struct shoal_waiter **out)
{
    struct shoal_core *core = shoal_core_self;
    *out = NULL;
    struct shoal_waiter *waiter = take_waiter(core, item_bytes);
    if (waiter == NULL)
        return core->no_memory;
    struct shoal_future *future = shoal_future_new();
    if (future == core->no_memory) {
        give_waiter(core, waiter);
        return future;
    }
    waiter->kind = SHOAL_WAITER_FUTURE;
    waiter->queue = queue;
    waiter->who.future = future;
    shoal_timer_init(&waiter->timer, time_out);
    if (drop != NULL)
        shoal_future_on_drop(future, drop);
    *out = waiter;
    return future;
}

void shoal_waiter_start(struct shoal_waiter *waiter, uint64_t timeout_ns)
{
    if (timeout_ns == 0) {
        shoal_waiter_end(waiter, -ETIMEDOUT);
        return;
    }
    shoal_future_on_cancel(waiter->who.future, cancel_future, waiter);
    shoal_waiter_push(waiter->queue, waiter);
    arm(waiter, timeout_ns);
}
