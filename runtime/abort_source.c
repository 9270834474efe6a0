/*
 * An abort source: see abort_source.h, and sync_impl.h for how waiting works.
 *
 * Functions are called inside the request, not from the queue: a subscription may be taken back at
 * any time, and a queued task could not be.
 */
#include "shoal/runtime/abort_source.h"

#include <errno.h>

#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/sync_impl.h"

static void deadline_comes(struct shoal_timer *timer)
{
    (void)shoal_abort_request(SHOAL_CONTAINER_OF(timer, struct shoal_abort_source, deadline),
                              -ETIMEDOUT, NULL);
}

void shoal_abort_source_init(struct shoal_abort_source *source)
{
    shoal_wait_queue_init(&source->queue, "abort source", NULL);
    shoal_list_init(&source->subscriptions);
    shoal_timer_init(&source->deadline, deadline_comes);
    source->text = NULL;
    source->code = 0;
}

void shoal_abort_source_deinit(struct shoal_abort_source *source)
{
    shoal_wait_queue_deinit(&source->queue);
    SHOAL_CHECK(!shoal_list_linked(&source->subscriptions),
                "abort source %p ends while somebody is subscribed", (void *)source);
    shoal_timer_cancel(&source->deadline);
    shoal_text_free(source->text);
    source->text = NULL;
}

bool shoal_abort_request(struct shoal_abort_source *source, int code, const char *text)
{
    shoal_wait_queue_check(&source->queue, "request");
    SHOAL_CHECK(code < 0, "an abort needs a negative code, not %d", code);
    if (source->code != 0)
        return false;
    source->code = code;
    source->text = shoal_text_copy(text);
    shoal_timer_cancel(&source->deadline);
    struct shoal_list *node;
    while ((node = shoal_list_take_front(&source->subscriptions)) != NULL) {
        struct shoal_abort_subscription *subscription =
            SHOAL_CONTAINER_OF(node, struct shoal_abort_subscription, node);
        subscription->fn(subscription, code, shoal_abort_text(source));
    }
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(&source->queue)) != NULL) {
        if (waiter->kind == SHOAL_WAITER_FUTURE)
            shoal_waiter_fail(waiter, code, shoal_abort_text(source));
        else
            shoal_waiter_end(waiter, 0);
    }
    return true;
}

void shoal_abort_set_deadline(struct shoal_abort_source *source, uint64_t deadline_ns)
{
    shoal_wait_queue_check(&source->queue, "set_deadline");
    shoal_timer_cancel(&source->deadline);
    if (source->code == 0 && deadline_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm_at(&source->deadline, deadline_ns);
}

void shoal_abort_set_timeout(struct shoal_abort_source *source, uint64_t timeout_ns)
{
    shoal_abort_set_deadline(source, shoal_deadline_ns(shoal_now_ns(), timeout_ns));
}

int shoal_abort_code(const struct shoal_abort_source *source)
{
    shoal_wait_queue_check(&source->queue, "code");
    return source->code;
}

const char *shoal_abort_text(const struct shoal_abort_source *source)
{
    shoal_wait_queue_check(&source->queue, "text");
    return source->text != NULL ? source->text : "";
}

/* ---- Subscribers ---- */

int shoal_abort_subscribe(struct shoal_abort_source *source,
                          struct shoal_abort_subscription *subscription, shoal_abort_fn *fn,
                          void *arg)
{
    shoal_wait_queue_check(&source->queue, "subscribe");
    subscription->fn = fn;
    subscription->arg = arg;
    SHOAL_NOTE_OWNER(subscription->core);
    shoal_list_init(&subscription->node);
    if (source->code == 0)
        shoal_list_push_back(&source->subscriptions, &subscription->node);
    return source->code;
}

void shoal_abort_unsubscribe(struct shoal_abort_subscription *subscription)
{
    if (subscription->node.next == NULL)
        return;
    SHOAL_CHECK_OWNER(subscription->core, "unsubscribe", "subscription %p", (void *)subscription);
    shoal_list_remove(&subscription->node);
}

static void cancel_fiber(struct shoal_abort_subscription *subscription, int code, const char *text)
{
    (void)code;
    (void)text;
    shoal_fiber_cancel(subscription->arg);
}

void shoal_abort_link_fiber(struct shoal_abort_source *source,
                            struct shoal_abort_subscription *subscription,
                            struct shoal_fiber *fiber)
{
    if (shoal_abort_subscribe(source, subscription, cancel_fiber, fiber) < 0)
        shoal_fiber_cancel(fiber);
}

/* ---- Futures ---- */

struct link {
    struct shoal_abort_subscription subscription;
    struct shoal_future *inner; /* consumed; settles after the abort has asked it to end */
    struct shoal_future *outer;
    char *text; /* of the abort: the source may be gone when `inner` settles */
    int code;   /* of the abort, 0 without */
};
SHOAL_STATIC_ASSERT(sizeof(struct link) <= sizeof(struct shoal_future_waiter),
                    "a link comes from the slab of waiters");

static void cancel_inner(void *ctx)
{
    shoal_future_cancel(((struct link *)ctx)->inner);
}

static void link_aborted(struct shoal_abort_subscription *subscription, int code, const char *text)
{
    struct link *link = SHOAL_CONTAINER_OF(subscription, struct link, subscription);
    link->code = code;
    link->text = shoal_text_copy(text);
    shoal_future_cancel(link->inner);
}

static void link_settled(struct shoal_task *task)
{
    const struct shoal_future *inner = SHOAL_CONTAINER_OF(task, struct shoal_future, task);
    bool ready = inner->state == SHOAL_FUTURE_READY;
    shoal_drop_fn *drop = ready ? shoal_future_drop_hook(inner) : NULL;
    union shoal_value value;
    char *text;
    void *ctx;
    int code = shoal_future_outcome(task, &ctx, &value, &text);
    struct link link = *(struct link *)ctx;
    shoal_abort_unsubscribe(&((struct link *)ctx)->subscription);
    shoal_slab_give(&shoal_core_self->waiters, ctx);
    if (code >= 0) {
        if (drop != NULL)
            shoal_future_on_drop(link.outer, drop);
        shoal_future_resolve(link.outer, &value);
    } else if (link.code < 0) {
        shoal_future_fail(link.outer, link.code, link.text);
    } else {
        shoal_future_fail(link.outer, code, text);
    }
    shoal_text_free(link.text);
    shoal_text_free(text);
}

struct shoal_future *shoal_abort_link(struct shoal_abort_source *source,
                                      struct shoal_future *future)
{
    struct shoal_core *core = shoal_core_self;
    shoal_wait_queue_check(&source->queue, "link");
    struct link *link = shoal_slab_take(&core->waiters);
    struct shoal_future *outer = link != NULL ? shoal_future_new() : core->no_memory;
    if (outer == core->no_memory || future == core->no_memory) {
        if (link != NULL)
            shoal_slab_give(&core->waiters, link);
        if (outer != core->no_memory)
            shoal_future_fail(outer, -ENOMEM, NULL);
        shoal_future_cancel(future);
        shoal_discard(future);
        return outer;
    }
    *link = (struct link){.inner = future, .outer = outer};
    shoal_future_on_cancel(outer, cancel_inner, link);
    (void)shoal_future_consume(future, link_settled, link);
    int code = shoal_abort_subscribe(source, &link->subscription, link_aborted, NULL);
    if (code < 0)
        link_aborted(&link->subscription, code, shoal_abort_text(source));
    return outer;
}

int shoal_abort_wait(struct shoal_abort_source *source, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&source->queue, "wait");
    if (rc < 0 || source->code != 0)
        return rc;
    struct shoal_waiter waiter = {.n = 0};
    return shoal_waiter_park(&source->queue, &waiter, timeout_ns);
}

struct shoal_future *shoal_abort_future(struct shoal_abort_source *source, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&source->queue, "wait");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&source->queue, 0, NULL, &waiter);
    if (waiter == NULL)
        return future;
    if (source->code != 0)
        shoal_waiter_fail(waiter, source->code, shoal_abort_text(source));
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

/* ---- As a source of a select ---- */

static bool source_ready(const struct shoal_select_case *source)
{
    return shoal_abort_code(source->object) != 0;
}

static void source_take(struct shoal_select_case *source)
{
    source->result = 0;
}

static struct shoal_wait_queue *source_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_abort_source *)source->object)->queue;
}

struct shoal_select_case shoal_select_abort(struct shoal_abort_source *source)
{
    static const struct shoal_select_ops ops = {source_ready, source_take, source_queue};
    shoal_wait_queue_check(&source->queue, "select");
    return (struct shoal_select_case){.ops = &ops, .object = source};
}
