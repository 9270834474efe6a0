/*
 * A broadcast: see broadcast.h, and sync_impl.h for how waiting works.
 *
 *   ring:  | oldest kept ... | ... newest | tail
 *               ^ subscriber a     ^ subscriber b, each with the number of its next message
 *
 * 1. Who waits at a subscriber waits because it has received everything: next == tail.
 * 2. Publishers are in line only while the slowest subscriber is `capacity` behind.
 * 3. A lost message is noticed by the subscriber, when it looks: publishing stays O(waiting).
 *
 * A waiter without an `item` wants to know of a message and not to have it.
 */
#include "shoal/runtime/broadcast.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/sync_impl.h"

static struct shoal_subscriber *subscriber_of(struct shoal_list *node)
{
    return SHOAL_CONTAINER_OF(node, struct shoal_subscriber, node);
}

static void *slot_at(const struct shoal_broadcast *broadcast, uint64_t number)
{
    return broadcast->ring + number % broadcast->capacity * broadcast->item_bytes;
}

static bool has_room(const struct shoal_broadcast *broadcast)
{
    if (broadcast->policy == SHOAL_BROADCAST_LOSE)
        return true;
    SHOAL_LIST_FOREACH (node, &broadcast->subscribers)
        if (broadcast->tail - subscriber_of(node)->next >= broadcast->capacity)
            return false;
    return true;
}

/* Skips what is not kept any more. */
static void count_lost(struct shoal_subscriber *subscriber)
{
    const struct shoal_broadcast *broadcast = subscriber->broadcast;
    uint64_t behind = broadcast->tail - subscriber->next;
    if (behind > broadcast->capacity) {
        subscriber->lost += behind - broadcast->capacity;
        subscriber->next = broadcast->tail - broadcast->capacity;
    }
}

static void copy_next(struct shoal_subscriber *subscriber, void *item)
{
    count_lost(subscriber);
    memcpy(item, slot_at(subscriber->broadcast, subscriber->next),
           subscriber->broadcast->item_bytes);
    subscriber->next++;
}

static void deliver(struct shoal_subscriber *subscriber)
{
    struct shoal_waiter *waiter;
    while (subscriber->next != subscriber->broadcast->tail &&
           (waiter = shoal_wait_queue_first(&subscriber->queue)) != NULL) {
        if (waiter->item != NULL)
            copy_next(subscriber, waiter->item);
        shoal_waiter_end(waiter, 0);
    }
}

static void publish(struct shoal_broadcast *broadcast, const void *item)
{
    memcpy(slot_at(broadcast, broadcast->tail), item, broadcast->item_bytes);
    broadcast->tail++;
    SHOAL_LIST_FOREACH (node, &broadcast->subscribers)
        deliver(subscriber_of(node));
}

static void serve(struct shoal_broadcast *broadcast)
{
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(&broadcast->publishers)) != NULL &&
           has_room(broadcast)) {
        publish(broadcast, waiter->item);
        shoal_waiter_end(waiter, 0);
    }
}

/* 0, -EAGAIN or SHOAL_ECLOSED. */
static int publish_now(struct shoal_broadcast *broadcast, const void *item)
{
    if (broadcast->closed)
        return SHOAL_ECLOSED;
    if (!has_room(broadcast))
        return -EAGAIN;
    publish(broadcast, item);
    return 0;
}

static int receive_now(struct shoal_subscriber *subscriber, void *item)
{
    struct shoal_broadcast *broadcast = subscriber->broadcast;
    if (subscriber->next == broadcast->tail)
        return broadcast->closed ? SHOAL_ECLOSED : -EAGAIN;
    copy_next(subscriber, item);
    serve(broadcast);
    return 0;
}

/* ---- Life ---- */

int shoal_broadcast_init(struct shoal_broadcast *broadcast,
                         const struct shoal_broadcast_options *options)
{
    if (options->item_bytes == 0 || options->capacity == 0)
        return -EINVAL;
    memset(broadcast, 0, sizeof(*broadcast));
    broadcast->ring = shoal_mem_alloc((size_t)options->capacity * options->item_bytes);
    if (broadcast->ring == NULL)
        return -ENOMEM;
    shoal_wait_queue_init(&broadcast->publishers, "broadcast (publish)", NULL);
    shoal_list_init(&broadcast->subscribers);
    broadcast->item_bytes = options->item_bytes;
    broadcast->capacity = options->capacity;
    broadcast->policy = options->policy;
    return 0;
}

void shoal_broadcast_deinit(struct shoal_broadcast *broadcast)
{
    shoal_wait_queue_deinit(&broadcast->publishers);
    SHOAL_CHECK(!shoal_list_linked(&broadcast->subscribers),
                "broadcast %p ends while somebody is subscribed", (void *)broadcast);
    shoal_mem_free(broadcast->ring, (size_t)broadcast->capacity * broadcast->item_bytes);
}

void shoal_broadcast_subscribe(struct shoal_broadcast *broadcast,
                               struct shoal_subscriber *subscriber)
{
    shoal_wait_queue_check(&broadcast->publishers, "subscribe");
    shoal_wait_queue_init(&subscriber->queue, "broadcast (receive)", NULL);
    shoal_list_push_back(&broadcast->subscribers, &subscriber->node);
    subscriber->broadcast = broadcast;
    subscriber->next = broadcast->tail;
    subscriber->lost = 0;
}

void shoal_broadcast_unsubscribe(struct shoal_subscriber *subscriber)
{
    shoal_wait_queue_deinit(&subscriber->queue);
    shoal_list_remove(&subscriber->node);
    serve(subscriber->broadcast);
}

void shoal_broadcast_close(struct shoal_broadcast *broadcast)
{
    shoal_wait_queue_check(&broadcast->publishers, "close");
    broadcast->closed = true;
    shoal_wait_queue_end_all(&broadcast->publishers, SHOAL_ECLOSED);
    SHOAL_LIST_FOREACH (node, &broadcast->subscribers) {
        struct shoal_waiter *waiter;
        while ((waiter = shoal_wait_queue_first(&subscriber_of(node)->queue)) != NULL)
            shoal_waiter_end(waiter, waiter->item != NULL ? SHOAL_ECLOSED : 0);
    }
}

bool shoal_broadcast_closed(const struct shoal_broadcast *broadcast)
{
    shoal_wait_queue_check(&broadcast->publishers, "closed");
    return broadcast->closed;
}

/* ---- Publishing ---- */

int shoal_broadcast_publish(struct shoal_broadcast *broadcast, const void *item,
                            uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&broadcast->publishers, "publish");
    if (rc < 0)
        return rc;
    rc = publish_now(broadcast, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = (void *)(uintptr_t)item};
    return shoal_waiter_park(&broadcast->publishers, &waiter, timeout_ns);
}

int shoal_broadcast_try_publish(struct shoal_broadcast *broadcast, const void *item)
{
    shoal_wait_queue_check(&broadcast->publishers, "try_publish");
    return publish_now(broadcast, item);
}

struct shoal_future *shoal_broadcast_publish_future(struct shoal_broadcast *broadcast,
                                                    const void *item, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&broadcast->publishers, "publish");
    struct shoal_waiter *waiter;
    struct shoal_future *future =
        shoal_waiter_new(&broadcast->publishers, broadcast->item_bytes, NULL, &waiter);
    if (waiter == NULL)
        return future;
    int rc = publish_now(broadcast, item);
    if (rc != -EAGAIN) {
        shoal_waiter_end(waiter, rc);
        return future;
    }
    memcpy(waiter->item, item, broadcast->item_bytes);
    shoal_waiter_start(waiter, timeout_ns);
    return future;
}

/* ---- Receiving ---- */

int shoal_subscriber_receive(struct shoal_subscriber *subscriber, void *item, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&subscriber->queue, "receive");
    if (rc < 0)
        return rc;
    rc = receive_now(subscriber, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = item};
    return shoal_waiter_park(&subscriber->queue, &waiter, timeout_ns);
}

int shoal_subscriber_try_receive(struct shoal_subscriber *subscriber, void *item)
{
    shoal_wait_queue_check(&subscriber->queue, "try_receive");
    return receive_now(subscriber, item);
}

static bool receivable(const struct shoal_subscriber *subscriber)
{
    return subscriber->next != subscriber->broadcast->tail || subscriber->broadcast->closed;
}

struct shoal_future *shoal_subscriber_ready_future(struct shoal_subscriber *subscriber,
                                                   uint64_t timeout_ns)
{
    shoal_wait_queue_check(&subscriber->queue, "ready");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&subscriber->queue, 0, NULL, &waiter);
    if (waiter == NULL)
        return future;
    if (receivable(subscriber))
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

uint64_t shoal_subscriber_lost(const struct shoal_subscriber *subscriber)
{
    shoal_wait_queue_check(&subscriber->queue, "lost");
    uint64_t behind = subscriber->broadcast->tail - subscriber->next;
    uint64_t capacity = subscriber->broadcast->capacity;
    return subscriber->lost + (behind > capacity ? behind - capacity : 0);
}

/* ---- As a source of a select ---- */

static bool source_ready(const struct shoal_select_case *source)
{
    return receivable(source->object);
}

static void source_take(struct shoal_select_case *source)
{
    source->result = receive_now(source->object, source->item);
}

static struct shoal_wait_queue *source_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_subscriber *)source->object)->queue;
}

struct shoal_select_case shoal_select_subscriber(struct shoal_subscriber *subscriber, void *item)
{
    static const struct shoal_select_ops ops = {source_ready, source_take, source_queue};
    shoal_wait_queue_check(&subscriber->queue, "select");
    return (struct shoal_select_case){.ops = &ops, .object = subscriber, .item = item};
}
