/*
 * A bounded channel: see channel.h, and sync_impl.h for how waiting works.
 *
 *   sender ... sender -> | ring: tail ... head | -> returned -> receiver ... receiver
 *
 * 1. Receivers are in line only while nothing can be received: the ring and `returned` are empty,
 *    and nobody is in line to send.
 * 2. Senders are in line only while the ring is full.
 * 3. Messages are numbered by their place in the order of sends. What a future has been given keeps
 *    its number, so that it can go back before all that are younger. It goes back in the waiter
 *    that carries it, which needs no room in the ring and cannot fail.
 */
#include "shoal/runtime/channel.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/sync_impl.h"

static void *slot_at(const struct shoal_channel *channel, uint64_t number)
{
    uint64_t slot = channel->slot + (number - channel->head);
    if (slot >= channel->capacity)
        slot -= channel->capacity;
    return channel->ring + slot * channel->item_bytes;
}

static bool ring_empty(const struct shoal_channel *channel)
{
    return channel->head == channel->tail;
}

static bool ring_full(const struct shoal_channel *channel)
{
    return channel->tail - channel->head == channel->capacity;
}

static struct shoal_waiter *first_returned(const struct shoal_channel *channel)
{
    struct shoal_list *node = channel->returned.next;
    return node == &channel->returned ? NULL : SHOAL_CONTAINER_OF(node, struct shoal_waiter, node);
}

static bool can_receive(const struct shoal_channel *channel)
{
    return !ring_empty(channel) || channel->returned_count > 0 || channel->senders.count > 0;
}

static bool can_send(const struct shoal_channel *channel)
{
    return channel->receivers.count > 0 || !ring_full(channel);
}

/* Puts the first sender's message into the ring, which has room. */
static void admit(struct shoal_channel *channel, struct shoal_waiter *sender)
{
    memcpy(slot_at(channel, channel->tail), sender->item, channel->item_bytes);
    channel->tail++;
    shoal_waiter_end(sender, 0);
}

/* Moves the oldest message to `item` and returns its number. There is one: can_receive(). */
static uint64_t take_oldest(struct shoal_channel *channel, void *item)
{
    struct shoal_waiter *back = first_returned(channel);
    if (back != NULL) {
        uint64_t number = back->n;
        memcpy(item, back->item, channel->item_bytes);
        shoal_list_remove(&back->node);
        channel->returned_count--;
        shoal_waiter_free(back);
        return number;
    }
    struct shoal_waiter *sender = shoal_wait_queue_first(&channel->senders);
    if (ring_empty(channel)) { /* of capacity 0: from hand to hand */
        memcpy(item, sender->item, channel->item_bytes);
        channel->tail++;
        shoal_waiter_end(sender, 0);
        return channel->head++;
    }
    memcpy(item, slot_at(channel, channel->head), channel->item_bytes);
    if (++channel->slot == channel->capacity)
        channel->slot = 0;
    channel->head++;
    if (sender != NULL)
        admit(channel, sender);
    return channel->head - 1;
}

/* Ends `receiver`, whose `item` holds message `number`. */
static void hand(struct shoal_channel *channel, struct shoal_waiter *receiver, uint64_t number)
{
    receiver->n = number;
    if (receiver->kind == SHOAL_WAITER_FUTURE) {
        shoal_waiter_remove(receiver);
        receiver->kept = true;
        shoal_list_push_back(&channel->handed, &receiver->node);
    }
    shoal_waiter_end(receiver, 0);
}

static void serve(struct shoal_channel *channel)
{
    struct shoal_wait_queue *queue = &channel->receivers;
    if (queue->serving)
        return;
    queue->serving = true;
    struct shoal_waiter *receiver;
    while (can_receive(channel) && (receiver = shoal_wait_queue_first(queue)) != NULL)
        hand(channel, receiver, take_oldest(channel, receiver->item));
    queue->serving = false;
}

/* A future's message that nobody has taken: back to its place. */
static void put_back(union shoal_value *value)
{
    struct shoal_waiter *waiter = value->slice.ptr;
    struct shoal_channel *channel =
        SHOAL_CONTAINER_OF(waiter->queue, struct shoal_channel, receivers);
    shoal_list_remove(&waiter->node);
    struct shoal_list *after = channel->returned.next;
    while (after != &channel->returned &&
           SHOAL_CONTAINER_OF(after, struct shoal_waiter, node)->n < waiter->n)
        after = after->next;
    shoal_list_push_back(after, &waiter->node); /* that is, before `after` */
    channel->returned_count++;
    serve(channel);
}

/* 0, -EAGAIN or SHOAL_ECLOSED. */
static int send_now(struct shoal_channel *channel, const void *item)
{
    if (channel->closed)
        return SHOAL_ECLOSED;
    struct shoal_waiter *receiver = shoal_wait_queue_first(&channel->receivers);
    if (receiver != NULL) {
        memcpy(receiver->item, item, channel->item_bytes);
        channel->tail++;
        hand(channel, receiver, channel->head++);
        return 0;
    }
    if (ring_full(channel))
        return -EAGAIN;
    memcpy(slot_at(channel, channel->tail), item, channel->item_bytes);
    channel->tail++;
    return 0;
}

static int receive_now(struct shoal_channel *channel, void *item)
{
    if (!can_receive(channel))
        return channel->closed ? SHOAL_ECLOSED : -EAGAIN;
    (void)take_oldest(channel, item);
    return 0;
}

/* ---- Life ---- */

int shoal_channel_init(struct shoal_channel *channel, const struct shoal_channel_options *options)
{
    if (options->item_bytes == 0)
        return -EINVAL;
    memset(channel, 0, sizeof(*channel));
    if (options->capacity > 0) {
        channel->ring = shoal_mem_alloc((size_t)options->capacity * options->item_bytes);
        if (channel->ring == NULL)
            return -ENOMEM;
    }
    shoal_wait_queue_init(&channel->senders, "channel (send)", NULL);
    shoal_wait_queue_init(&channel->receivers, "channel (receive)", NULL);
    shoal_list_init(&channel->handed);
    shoal_list_init(&channel->returned);
    channel->drop = options->drop;
    channel->item_bytes = options->item_bytes;
    channel->capacity = options->capacity;
    return 0;
}

void shoal_channel_deinit(struct shoal_channel *channel)
{
    shoal_wait_queue_deinit(&channel->senders);
    shoal_wait_queue_deinit(&channel->receivers);
    SHOAL_CHECK(!shoal_list_linked(&channel->handed),
                "channel %p ends while a future has a message of it that was not taken",
                (void *)channel);
    struct shoal_waiter *back;
    while ((back = first_returned(channel)) != NULL) {
        if (channel->drop != NULL)
            channel->drop(back->item);
        shoal_list_remove(&back->node);
        shoal_waiter_free(back);
    }
    for (; channel->drop != NULL && !ring_empty(channel); channel->tail--)
        channel->drop(slot_at(channel, channel->tail - 1));
    shoal_mem_free(channel->ring, (size_t)channel->capacity * channel->item_bytes);
}

void shoal_channel_close(struct shoal_channel *channel)
{
    shoal_wait_queue_check(&channel->senders, "close");
    channel->closed = true;
    shoal_wait_queue_end_all(&channel->senders, SHOAL_ECLOSED);
    shoal_wait_queue_end_all(&channel->receivers, SHOAL_ECLOSED);
}

bool shoal_channel_closed(const struct shoal_channel *channel)
{
    shoal_wait_queue_check(&channel->senders, "closed");
    return channel->closed;
}

uint64_t shoal_channel_length(const struct shoal_channel *channel)
{
    shoal_wait_queue_check(&channel->senders, "length");
    return channel->tail - channel->head + channel->returned_count + channel->senders.count;
}

/* ---- Sending ---- */

int shoal_channel_send(struct shoal_channel *channel, const void *item, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&channel->senders, "send");
    if (rc < 0)
        return rc;
    rc = send_now(channel, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = (void *)(uintptr_t)item};
    return shoal_waiter_park(&channel->senders, &waiter, timeout_ns);
}

int shoal_channel_try_send(struct shoal_channel *channel, const void *item)
{
    shoal_wait_queue_check(&channel->senders, "try_send");
    return send_now(channel, item);
}

struct shoal_future *shoal_channel_send_future(struct shoal_channel *channel, const void *item,
                                               uint64_t timeout_ns)
{
    shoal_wait_queue_check(&channel->senders, "send");
    struct shoal_waiter *waiter;
    struct shoal_future *future =
        shoal_waiter_new(&channel->senders, channel->item_bytes, NULL, &waiter);
    if (waiter == NULL)
        return future;
    int rc = send_now(channel, item);
    if (rc != -EAGAIN) {
        shoal_waiter_end(waiter, rc);
        return future;
    }
    memcpy(waiter->item, item, channel->item_bytes);
    shoal_waiter_start(waiter, timeout_ns);
    return future;
}

/* ---- Receiving ---- */

int shoal_channel_receive(struct shoal_channel *channel, void *item, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&channel->receivers, "receive");
    if (rc < 0)
        return rc;
    rc = receive_now(channel, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = item};
    return shoal_waiter_park(&channel->receivers, &waiter, timeout_ns);
}

int shoal_channel_try_receive(struct shoal_channel *channel, void *item)
{
    shoal_wait_queue_check(&channel->receivers, "try_receive");
    return receive_now(channel, item);
}

struct shoal_future *shoal_channel_receive_future(struct shoal_channel *channel,
                                                  uint64_t timeout_ns)
{
    shoal_wait_queue_check(&channel->receivers, "receive");
    struct shoal_waiter *waiter;
    struct shoal_future *future =
        shoal_waiter_new(&channel->receivers, channel->item_bytes, put_back, &waiter);
    if (waiter == NULL)
        return future;
    if (can_receive(channel))
        hand(channel, waiter, take_oldest(channel, waiter->item));
    else if (channel->closed)
        shoal_waiter_end(waiter, SHOAL_ECLOSED);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

void shoal_channel_take(const union shoal_value *value, void *item)
{
    struct shoal_waiter *waiter = value->slice.ptr;
    struct shoal_channel *channel =
        SHOAL_CONTAINER_OF(waiter->queue, struct shoal_channel, receivers);
    shoal_wait_queue_check(&channel->receivers, "take");
    memcpy(item, waiter->item, channel->item_bytes);
    shoal_list_remove(&waiter->node);
    shoal_waiter_free(waiter);
}

/* ---- As a source of a select ---- */

static bool send_ready(const struct shoal_select_case *source)
{
    const struct shoal_channel *channel = source->object;
    return channel->closed || can_send(channel);
}

static void send_take(struct shoal_select_case *source)
{
    source->result = send_now(source->object, source->item);
}

static struct shoal_wait_queue *send_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_channel *)source->object)->senders;
}

struct shoal_select_case shoal_select_send(struct shoal_channel *channel, const void *item)
{
    static const struct shoal_select_ops ops = {send_ready, send_take, send_queue};
    shoal_wait_queue_check(&channel->senders, "select");
    return (struct shoal_select_case){
        .ops = &ops, .object = channel, .item = (void *)(uintptr_t)item};
}

static bool receive_ready(const struct shoal_select_case *source)
{
    const struct shoal_channel *channel = source->object;
    return channel->closed || can_receive(channel);
}

static void receive_take(struct shoal_select_case *source)
{
    source->result = receive_now(source->object, source->item);
}

static struct shoal_wait_queue *receive_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_channel *)source->object)->receivers;
}

struct shoal_select_case shoal_select_receive(struct shoal_channel *channel, void *item)
{
    static const struct shoal_select_ops ops = {receive_ready, receive_take, receive_queue};
    shoal_wait_queue_check(&channel->receivers, "select");
    return (struct shoal_select_case){.ops = &ops, .object = channel, .item = item};
}
