/*
 * Channels between cores: the receiving end. See core_channel_impl.h for the layout.
 *
 *   inlet, inlet ... -> returned -> receiver ... receiver
 *
 * 1. Receivers are in line only while nothing was found: whoever comes later looks first whether
 *    something has come for those in line.
 * 2. Inlets with values take turns; nobody's turn is longer than TURN values.
 * 3. Values are numbered in the order in which they are taken from the inlets. What a future has
 *    been given keeps its number, so that it can go back before all that were taken after it, in
 *    the waiter that carries it (as in runtime/channel.c).
 * 4. An inlet whose sender has said goodbye goes when it is empty; it is active until then.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/errors.h"

#include "shoal/smp/core_channel_impl.h"

#define TURN        8
#define EMPTY_LOOKS 256

/* ---- Inlets ---- */

static bool has_value(struct shoal_core_inlet *inlet)
{
    if (inlet->received != inlet->tail_seen)
        return true;
    /* acquire: pairs with the release store in core_sender.c:put(). */
    inlet->tail_seen = atomic_load_explicit(&inlet->tail, memory_order_acquire);
    return inlet->received != inlet->tail_seen;
}

/* The sender waits for a bell: it is rung, and the word says so. */
static void ring_sender(struct shoal_core_inlet *inlet)
{
    (void)shoal_ring_watch(&inlet->head_watched); /* on the sender's behalf */
    shoal_core_channel_post(inlet->from, &inlet->sender->credit_bell);
}

static void publish_head(struct shoal_core_inlet *inlet)
{
    if (inlet->returned == inlet->received)
        return;
    inlet->returned = inlet->received;
    /* release: the items have been copied. Pairs with the load in core_sender.c:has_credit(). */
    atomic_store_explicit(&inlet->head, inlet->received, memory_order_release);
    SHOAL_DELAY_POINT();
}

/* With a look at messages: what was received since the last one goes back. */
void shoal_core_inlet_settle(struct shoal_core_inlet *inlet)
{
    shoal_list_remove(&inlet->owing);
    publish_head(inlet);
    if (!shoal_ring_verify(&inlet->head_watched))
        ring_sender(inlet);
}

/* A value has been received. */
static void give_back(const struct shoal_core_channel *channel, struct shoal_core_inlet *inlet)
{
    if (inlet->sender == NULL)
        return;
    if (!shoal_list_linked(&inlet->owing))
        shoal_list_push_back(&shoal_core_channels_self()->owing, &inlet->owing);
    if (inlet->received - inlet->returned < channel->batch)
        return;
    publish_head(inlet);
    if (!shoal_ring_seems_watched(&inlet->head_watched))
        ring_sender(inlet);
}

static void free_inlet(struct shoal_core_inlet *inlet)
{
    shoal_list_remove(&inlet->node);
    shoal_list_remove(&inlet->active);
    shoal_list_remove(&inlet->owing);
    shoal_mem_free_aligned(inlet, inlet->bytes, SHOAL_CACHE_LINE);
}

static void make_active(struct shoal_core_inlet *inlet)
{
    inlet->empty_looks = 0;
    if (!shoal_list_linked(&inlet->active))
        shoal_list_push_back(&inlet->channel->active, &inlet->active);
}

/*
 * Ceases to look at an active inlet, so that its bell will be rung. Whether something was found in
 * it after all: then it is active again, or its bell is on the way.
 */
static bool cease(struct shoal_core_inlet *inlet)
{
    shoal_list_remove(&inlet->active);
    shoal_ring_unwatch(&inlet->tail_watched);
    if (!has_value(inlet))
        return false;
    /* If the bit is there again, the sender has seen it missing and rung. */
    if ((shoal_ring_watch(&inlet->tail_watched) & SHOAL_RING_WATCHED) == 0)
        make_active(inlet);
    return true;
}

static void next_turn(struct shoal_core_channel *channel, struct shoal_core_inlet *inlet)
{
    inlet->taken_in_turn = 0;
    if (inlet->active.next == inlet->active.prev) /* alone */
        return;
    shoal_list_unlink(&inlet->active);
    shoal_list_push_back(&channel->active, &inlet->active);
}

/* The inlet whose turn it is; NULL when nothing has come. */
static struct shoal_core_inlet *next_inlet(struct shoal_core_channel *channel)
{
    SHOAL_LIST_FOREACH_SAFE (node, &channel->active) {
        struct shoal_core_inlet *inlet = SHOAL_CONTAINER_OF(node, struct shoal_core_inlet, active);
        if (SHOAL_LIKELY(has_value(inlet))) {
            inlet->empty_looks = 0;
            return inlet;
        }
        if (++inlet->empty_looks >= EMPTY_LOOKS && cease(inlet) &&
            shoal_list_linked(&inlet->active))
            return inlet;
    }
    return NULL;
}

/* The next value of `inlet`, which has one. */
static void *next_item(const struct shoal_core_channel *channel,
                       const struct shoal_core_inlet *inlet)
{
    return inlet->items + (size_t)inlet->slot * channel->item_bytes;
}

static void pass_item(struct shoal_core_channel *channel, struct shoal_core_inlet *inlet)
{
    if (++inlet->slot == channel->credit)
        inlet->slot = 0;
    inlet->received++;
    give_back(channel, inlet);
    if (inlet->sender == NULL && !has_value(inlet))
        free_inlet(inlet);
    else if (++inlet->taken_in_turn >= TURN)
        next_turn(channel, inlet);
}

static void drop_items(struct shoal_core_channel *channel, struct shoal_core_inlet *inlet)
{
    while (has_value(inlet)) {
        if (channel->drop != NULL)
            channel->drop(next_item(channel, inlet));
        if (++inlet->slot == channel->credit)
            inlet->slot = 0;
        inlet->received++;
    }
}

/* ---- Handing out ---- */

static struct shoal_waiter *first_returned(const struct shoal_core_channel *channel)
{
    struct shoal_list *node = channel->returned.next;
    return node == &channel->returned ? NULL : SHOAL_CONTAINER_OF(node, struct shoal_waiter, node);
}

/* Closed, with nothing left and nothing that can still come. */
static bool finished(const struct shoal_core_channel *channel)
{
    return channel->closed && channel->senders == 0 && channel->returned_count == 0 &&
           !shoal_list_linked(&channel->inlets);
}

/* Moves the oldest value to `item`; its number in `*number`. False when there is none. */
static bool take_oldest(struct shoal_core_channel *channel, void *item, uint64_t *number)
{
    struct shoal_waiter *back = first_returned(channel);
    if (SHOAL_UNLIKELY(back != NULL)) {
        *number = back->n;
        memcpy(item, back->item, channel->item_bytes);
        shoal_list_remove(&back->node);
        channel->returned_count--;
        shoal_waiter_free(back);
        return true;
    }
    struct shoal_core_inlet *inlet = next_inlet(channel);
    if (inlet == NULL)
        return false;
    shoal_core_item_copy(item, next_item(channel, inlet), channel->item_bytes);
    pass_item(channel, inlet);
    *number = channel->received++;
    return true;
}

/* Ends `receiver`, whose `item` holds value `number`. */
static void hand(struct shoal_core_channel *channel, struct shoal_waiter *receiver, uint64_t number)
{
    receiver->n = number;
    if (receiver->kind == SHOAL_WAITER_FUTURE) {
        shoal_waiter_remove(receiver);
        receiver->kept = true;
        shoal_list_push_back(&channel->handed, &receiver->node);
    }
    shoal_waiter_end(receiver, 0);
}

/* Gives those in line what has come. Whether that was anything. */
static bool serve(struct shoal_core_channel *channel)
{
    struct shoal_wait_queue *queue = &channel->receivers;
    if (queue->serving)
        return false;
    queue->serving = true;
    struct shoal_waiter *receiver;
    uint64_t number;
    bool any = false;
    while ((receiver = shoal_wait_queue_first(queue)) != NULL &&
           take_oldest(channel, receiver->item, &number)) {
        hand(channel, receiver, number);
        any = true;
    }
    queue->serving = false;
    if (SHOAL_UNLIKELY(finished(channel)))
        shoal_wait_queue_end_all(queue, SHOAL_ECLOSED);
    return any;
}

/* A future's value that nobody has taken: back to its place. */
static void put_back(union shoal_value *value)
{
    struct shoal_waiter *waiter = value->slice.ptr;
    struct shoal_core_channel *channel =
        SHOAL_CONTAINER_OF(waiter->queue, struct shoal_core_channel, receivers);
    shoal_list_remove(&waiter->node);
    struct shoal_list *after = channel->returned.next;
    while (after != &channel->returned &&
           SHOAL_CONTAINER_OF(after, struct shoal_waiter, node)->n < waiter->n)
        after = after->next;
    shoal_list_push_back(after, &waiter->node); /* that is, before `after` */
    channel->returned_count++;
    (void)serve(channel);
}

/* 0, -EAGAIN or SHOAL_ECLOSED. */
static int receive_now(struct shoal_core_channel *channel, void *item)
{
    uint64_t number;
    if (SHOAL_UNLIKELY(channel->receivers.count > 0)) { /* what has come is theirs */
        (void)serve(channel);
        if (channel->receivers.count > 0)
            return -EAGAIN;
    }
    if (take_oldest(channel, item, &number))
        return 0;
    return finished(channel) ? SHOAL_ECLOSED : -EAGAIN;
}

/* Somebody is about to wait: from now on the core's looks look here too. */
static void get_hungry(struct shoal_core_channel *channel)
{
    if (!shoal_list_linked(&channel->hungry))
        shoal_list_push_back(&shoal_core_channels_self()->hungry_channels, &channel->hungry);
}

bool shoal_core_channel_look(struct shoal_core_channel *channel)
{
    bool any = serve(channel);
    if (channel->receivers.count == 0)
        shoal_list_remove(&channel->hungry);
    return any;
}

bool shoal_core_channel_cease(struct shoal_core_channel *channel)
{
    if (channel->receivers.count == 0)
        return false;
    struct shoal_list *first;
    while ((first = channel->active.next) != &channel->active)
        if (cease(SHOAL_CONTAINER_OF(first, struct shoal_core_inlet, active)))
            return true; /* the core does not sleep; the others stay as they are */
    return false;
}

/* ---- Life ---- */

int shoal_core_channel_new(struct shoal_core_channel **out,
                           const struct shoal_core_channel_options *options)
{
    if (options->item_bytes == 0 || options->item_bytes > SHOAL_CORE_CHANNEL_ITEM_BYTES_MAX ||
        options->credit == 0 || options->credit > SHOAL_CORE_CHANNEL_CREDIT_MAX)
        return -EINVAL;
    struct shoal_core_channels *mine = shoal_core_channels_get();
    struct shoal_core_channel *channel =
        mine != NULL ? shoal_mem_alloc_zeroed(sizeof(*channel)) : NULL;
    if (channel == NULL)
        return -ENOMEM;
    shoal_wait_queue_init(&channel->receivers, "core channel (receive)", NULL);
    shoal_list_init(&channel->handed);
    shoal_list_init(&channel->returned);
    shoal_list_init(&channel->inlets);
    shoal_list_init(&channel->active);
    shoal_list_init(&channel->hungry);
    channel->drop = options->drop;
    channel->item_bytes = options->item_bytes;
    channel->credit = options->credit;
    channel->batch = options->credit > 8 ? options->credit / 4 : options->credit;
    channel->senders_left = options->senders;
    shoal_list_push_back(&mine->channels, &channel->node);
    *out = channel;
    return 0;
}

int shoal_core_inlet_new(struct shoal_core_channel *channel, struct shoal_core_sender *sender)
{
    shoal_wait_queue_check(&channel->receivers, "a new sender");
    if (channel->closed)
        return SHOAL_ECLOSED;
    size_t bytes = sizeof(struct shoal_core_inlet) + (size_t)channel->credit * channel->item_bytes;
    struct shoal_core_inlet *inlet = shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    if (inlet == NULL)
        return -ENOMEM;
    memset(inlet, 0, sizeof(*inlet));
    shoal_list_init(&inlet->active);
    shoal_list_init(&inlet->owing);
    inlet->channel = channel;
    inlet->sender = sender;
    inlet->items = (unsigned char *)(inlet + 1);
    inlet->bytes = bytes;
    inlet->from = sender->line.core;
    inlet->bell.run = shoal_core_inlet_bell;
    /* Nobody waits for credit; and with the first value the bell is to be rung. */
    atomic_init(&inlet->head_watched, SHOAL_RING_WATCHED);
    shoal_list_push_back(&channel->inlets, &inlet->node);
    channel->senders++;
    sender->inlet = inlet;
    sender->items = inlet->items;
    return 0;
}

void shoal_core_inlet_bell(struct shoal_task *task)
{
    struct shoal_core_inlet *inlet = SHOAL_CONTAINER_OF(task, struct shoal_core_inlet, bell);
    make_active(inlet);
    (void)serve(inlet->channel);
}

void shoal_core_inlet_farewell(struct shoal_task *task)
{
    struct shoal_core_sender *sender = SHOAL_CONTAINER_OF(task, struct shoal_core_sender, farewell);
    struct shoal_core_inlet *inlet = sender->inlet;
    struct shoal_core_channel *channel = inlet->channel;
    inlet->sender = NULL;
    shoal_list_remove(&inlet->owing);
    channel->senders--;
    bool last = channel->senders_left > 0 && --channel->senders_left == 0;
    task->run = shoal_core_sender_part;
    shoal_core_channel_post(inlet->from, task);
    if (channel->freed)
        drop_items(channel, inlet);
    if (has_value(inlet))
        make_active(inlet);
    else
        free_inlet(inlet);
    if (last)
        shoal_core_channel_close(channel);
    if (channel->freed && channel->senders == 0)
        shoal_core_channel_destroy(channel);
    else
        (void)serve(channel);
}

void shoal_core_channel_close(struct shoal_core_channel *channel)
{
    shoal_wait_queue_check(&channel->receivers, "close");
    if (channel->closed)
        return;
    channel->closed = true;
    SHOAL_LIST_FOREACH (node, &channel->inlets) {
        struct shoal_core_inlet *inlet = SHOAL_CONTAINER_OF(node, struct shoal_core_inlet, node);
        if (inlet->sender != NULL)
            shoal_core_channel_post(inlet->from, &inlet->sender->please_close);
    }
    (void)serve(channel);
}

bool shoal_core_channel_closed(const struct shoal_core_channel *channel)
{
    shoal_wait_queue_check(&channel->receivers, "closed");
    return channel->closed;
}

uint64_t shoal_core_channel_length(const struct shoal_core_channel *channel)
{
    shoal_wait_queue_check(&channel->receivers, "length");
    uint64_t length = channel->returned_count;
    SHOAL_LIST_FOREACH (node, &channel->inlets) {
        const struct shoal_core_inlet *inlet =
            SHOAL_CONTAINER_OF(node, struct shoal_core_inlet, node);
        /* relaxed: only counted. */
        length += atomic_load_explicit(&inlet->tail, memory_order_relaxed) - inlet->received;
    }
    return length;
}

static void drop_returned(struct shoal_core_channel *channel)
{
    struct shoal_waiter *back;
    while ((back = first_returned(channel)) != NULL) {
        if (channel->drop != NULL)
            channel->drop(back->item);
        shoal_list_remove(&back->node);
        shoal_waiter_free(back);
    }
    channel->returned_count = 0;
}

/* Drops what the inlets hold; those without a sender go. */
static void drop_inlets(struct shoal_core_channel *channel)
{
    SHOAL_LIST_FOREACH_SAFE (node, &channel->inlets) {
        struct shoal_core_inlet *inlet = SHOAL_CONTAINER_OF(node, struct shoal_core_inlet, node);
        drop_items(channel, inlet);
        if (inlet->sender == NULL)
            free_inlet(inlet);
    }
}

void shoal_core_channel_free(struct shoal_core_channel *channel)
{
    if (channel == NULL)
        return;
    shoal_wait_queue_deinit(&channel->receivers);
    SHOAL_CHECK(!shoal_list_linked(&channel->handed),
                "core channel %p ends while a future has a value of it that was not taken",
                (void *)channel);
    shoal_core_channel_close(channel);
    channel->freed = true;
    drop_returned(channel);
    drop_inlets(channel);
    if (channel->senders == 0)
        shoal_core_channel_destroy(channel);
}

void shoal_core_channel_quit(struct shoal_core_channel *channel)
{
    channel->closed = true;
    shoal_wait_queue_end_all(&channel->receivers, -ECANCELED);
    SHOAL_LIST_FOREACH (node, &channel->handed) /* their futures are reported */
        if (channel->drop != NULL)
            channel->drop(SHOAL_CONTAINER_OF(node, struct shoal_waiter, node)->item);
    drop_returned(channel);
    drop_inlets(channel);
}

/* Frees the memory, of which nobody knows any more. */
void shoal_core_channel_destroy(struct shoal_core_channel *channel)
{
    SHOAL_LIST_FOREACH_SAFE (node, &channel->inlets)
        free_inlet(SHOAL_CONTAINER_OF(node, struct shoal_core_inlet, node));
    shoal_list_remove(&channel->hungry);
    shoal_list_remove(&channel->node);
    shoal_mem_free(channel, sizeof(*channel));
}

/* ---- Receiving ---- */

int shoal_core_channel_receive(struct shoal_core_channel *channel, void *item, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&channel->receivers, "receive");
    if (rc < 0)
        return rc;
    rc = receive_now(channel, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = item};
    get_hungry(channel);
    return shoal_waiter_park(&channel->receivers, &waiter, timeout_ns);
}

int shoal_core_channel_try_receive(struct shoal_core_channel *channel, void *item)
{
    shoal_wait_queue_check(&channel->receivers, "try_receive");
    return receive_now(channel, item);
}

struct shoal_future *shoal_core_channel_receive_future(struct shoal_core_channel *channel,
                                                       uint64_t timeout_ns)
{
    shoal_wait_queue_check(&channel->receivers, "receive");
    struct shoal_waiter *waiter;
    struct shoal_future *future =
        shoal_waiter_new(&channel->receivers, channel->item_bytes, put_back, &waiter);
    if (waiter == NULL)
        return future;
    (void)serve(channel);
    uint64_t number;
    if (channel->receivers.count == 0 && take_oldest(channel, waiter->item, &number)) {
        hand(channel, waiter, number);
    } else if (finished(channel)) {
        shoal_waiter_end(waiter, SHOAL_ECLOSED);
    } else {
        get_hungry(channel);
        shoal_waiter_start(waiter, timeout_ns);
    }
    return future;
}

void shoal_core_channel_take(const union shoal_value *value, void *item)
{
    struct shoal_waiter *waiter = value->slice.ptr;
    struct shoal_core_channel *channel =
        SHOAL_CONTAINER_OF(waiter->queue, struct shoal_core_channel, receivers);
    shoal_wait_queue_check(&channel->receivers, "take");
    memcpy(item, waiter->item, channel->item_bytes);
    shoal_list_remove(&waiter->node);
    shoal_waiter_free(waiter);
}

/* ---- As a source of a select ---- */

static bool receive_ready(const struct shoal_select_case *source)
{
    struct shoal_core_channel *channel = source->object;
    (void)serve(channel);
    if (channel->receivers.count > 0)
        return false;
    return channel->returned_count > 0 || next_inlet(channel) != NULL || finished(channel);
}

static void receive_take(struct shoal_select_case *source)
{
    source->result = receive_now(source->object, source->item);
}

static struct shoal_wait_queue *receive_queue(const struct shoal_select_case *source)
{
    struct shoal_core_channel *channel = source->object;
    get_hungry(channel);
    return &channel->receivers;
}

struct shoal_select_case shoal_select_core_receive(struct shoal_core_channel *channel, void *item)
{
    static const struct shoal_select_ops ops = {receive_ready, receive_take, receive_queue};
    shoal_wait_queue_check(&channel->receivers, "select");
    return (struct shoal_select_case){.ops = &ops, .object = channel, .item = item};
}
