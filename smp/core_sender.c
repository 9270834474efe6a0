/*
 * Channels between cores: the sending end. See core_channel_impl.h for the layout.
 *
 * 1. Senders are in line only while no credit was found: whoever comes later looks first whether
 *    some has come for those in line.
 * 2. A value is published at once, by a plain store. Whether the home looks is verified by the
 *    core's next look at messages, unless it plainly does not: then the bell is rung at once.
 * 3. Nothing of the inlet is touched once the goodbye has been posted.
 */
#include <errno.h>

#include "shoal/runtime/errors.h"

#include "shoal/smp/core_channel_impl.h"
#include "shoal/smp/submit.h"

/* ---- Values and credit ---- */

static bool has_credit(struct shoal_core_sender *sender)
{
    if (SHOAL_LIKELY(sender->sent - sender->head_seen < sender->credit))
        return true;
    if (sender->closed)
        return false;
    /* acquire: the home has done with the places. Pairs with core_channel.c:publish_head(). */
    sender->head_seen = atomic_load_explicit(&sender->inlet->head, memory_order_acquire);
    return sender->sent - sender->head_seen < sender->credit;
}

/* The home does not look: its bell is rung, and the word says so. */
static void ring_home(struct shoal_core_sender *sender)
{
    (void)shoal_ring_watch(&sender->inlet->tail_watched); /* on the home's behalf */
    shoal_core_channel_post(sender->home, &sender->inlet->bell);
}

/* With a look at messages: does the home look at what was sent since the last one? */
void shoal_core_sender_verify(struct shoal_core_sender *sender)
{
    shoal_list_remove(&sender->unverified);
    if (!shoal_ring_verify(&sender->inlet->tail_watched))
        ring_home(sender);
}

/* Sends. There is credit, and the end is open. */
static void put(struct shoal_core_sender *sender, const void *item)
{
    shoal_core_item_copy(sender->items + (size_t)sender->slot * sender->item_bytes, item,
                         sender->item_bytes);
    if (++sender->slot == sender->credit)
        sender->slot = 0;
    /* release: pairs with the acquire load in core_channel.c:has_value(). */
    atomic_store_explicit(&sender->inlet->tail, ++sender->sent, memory_order_release);
    SHOAL_DELAY_POINT();
    if (shoal_list_linked(&sender->unverified))
        return;
    shoal_list_push_back(&shoal_core_channels_self()->unverified, &sender->unverified);
    if (!shoal_ring_seems_watched(&sender->inlet->tail_watched))
        ring_home(sender);
}

/* Lets those in line send what there is credit for. Whether that was anything. */
static bool serve(struct shoal_core_sender *sender)
{
    struct shoal_wait_queue *line = &sender->line;
    struct shoal_waiter *first;
    bool any = false;
    while ((first = shoal_wait_queue_first(line)) != NULL && has_credit(sender)) {
        put(sender, first->item);
        shoal_waiter_end(first, 0);
        any = true;
    }
    return any;
}

/* 0, -EAGAIN or SHOAL_ECLOSED. */
static int send_now(struct shoal_core_sender *sender, const void *item)
{
    if (sender->closed)
        return SHOAL_ECLOSED;
    if (SHOAL_UNLIKELY(sender->line.count > 0))
        (void)serve(sender);
    if (sender->line.count > 0 || !has_credit(sender))
        return -EAGAIN;
    put(sender, item);
    return 0;
}

/* Somebody is about to wait: from now on the core's looks look here too. */
static void get_hungry(struct shoal_core_sender *sender)
{
    if (!shoal_list_linked(&sender->hungry))
        shoal_list_push_back(&shoal_core_channels_self()->hungry_senders, &sender->hungry);
}

bool shoal_core_sender_look(struct shoal_core_sender *sender)
{
    bool any = serve(sender);
    if (sender->line.count == 0)
        shoal_list_remove(&sender->hungry);
    return any;
}

/* Before the core sleeps: has a bell rung with the next credit. */
bool shoal_core_sender_ask(struct shoal_core_sender *sender)
{
    if (sender->line.count == 0)
        return false;
    if (!sender->asked) {
        sender->asked = true;
        shoal_ring_unwatch(&sender->inlet->head_watched);
    }
    return has_credit(sender);
}

void shoal_core_sender_bell(struct shoal_task *task)
{
    struct shoal_core_sender *sender =
        SHOAL_CONTAINER_OF(task, struct shoal_core_sender, credit_bell);
    sender->asked = false;
    (void)serve(sender);
}

/* ---- Life ---- */

struct attach_request {
    struct shoal_core_channel *channel;
    struct shoal_core_sender *sender;
};

/* On the home. */
static int attach(void *arg, union shoal_value *out)
{
    (void)out;
    const struct attach_request *request = arg;
    return shoal_core_inlet_new(request->channel, request->sender);
}

int shoal_core_sender_new(struct shoal_core_sender **out, struct shoal_core_channel *channel)
{
    struct shoal_core_channels *mine = shoal_core_channels_get();
    struct shoal_core_sender *sender =
        mine != NULL ? shoal_mem_alloc_aligned(sizeof(*sender), SHOAL_CACHE_LINE) : NULL;
    if (sender == NULL)
        return -ENOMEM;
    memset(sender, 0, sizeof(*sender));
    shoal_wait_queue_init(&sender->line, "core channel (send)", NULL);
    shoal_list_init(&sender->hungry);
    shoal_list_init(&sender->unverified);
    sender->credit = channel->credit;
    sender->item_bytes = channel->item_bytes;
    sender->home = channel->receivers.core;
    sender->credit_bell.run = shoal_core_sender_bell;
    sender->please_close.run = shoal_core_sender_please_close;
    sender->farewell.run = shoal_core_inlet_farewell;
    shoal_list_push_back(&mine->senders, &sender->node);
    struct attach_request request = {channel, sender};
    int rc = shoal_await(shoal_submit_to(sender->home, attach, &request), NULL);
    if (sender->inlet == NULL) { /* on a cancelled fiber `rc` does not tell */
        shoal_core_sender_destroy(sender);
        return rc;
    }
    *out = sender;
    return 0;
}

void shoal_core_sender_close(struct shoal_core_sender *sender)
{
    shoal_wait_queue_check(&sender->line, "close");
    if (sender->closed)
        return;
    sender->closed = true;
    shoal_list_remove(&sender->hungry);
    shoal_list_remove(&sender->unverified); /* the goodbye has the home look, too */
    shoal_core_channel_post(sender->home, &sender->farewell);
    shoal_wait_queue_end_all(&sender->line, SHOAL_ECLOSED);
}

void shoal_core_sender_please_close(struct shoal_task *task)
{
    shoal_core_sender_close(SHOAL_CONTAINER_OF(task, struct shoal_core_sender, please_close));
}

void shoal_core_sender_part(struct shoal_task *task)
{
    struct shoal_core_sender *sender = SHOAL_CONTAINER_OF(task, struct shoal_core_sender, farewell);
    sender->parted = true;
    if (sender->freed)
        shoal_core_sender_destroy(sender);
}

void shoal_core_sender_free(struct shoal_core_sender *sender)
{
    if (sender == NULL)
        return;
    shoal_wait_queue_deinit(&sender->line);
    shoal_core_sender_close(sender);
    sender->freed = true;
    if (sender->parted)
        shoal_core_sender_destroy(sender);
}

void shoal_core_sender_quit(struct shoal_core_sender *sender)
{
    sender->closed = true;
    shoal_list_remove(&sender->hungry);
    shoal_list_remove(&sender->unverified);
    shoal_wait_queue_end_all(&sender->line, -ECANCELED);
}

void shoal_core_sender_destroy(struct shoal_core_sender *sender)
{
    shoal_list_remove(&sender->node);
    shoal_mem_free_aligned(sender, sizeof(*sender), SHOAL_CACHE_LINE);
}

bool shoal_core_sender_closed(const struct shoal_core_sender *sender)
{
    shoal_wait_queue_check(&sender->line, "closed");
    return sender->closed;
}

uint32_t shoal_core_sender_credit(const struct shoal_core_sender *sender)
{
    shoal_wait_queue_check(&sender->line, "credit");
    if (sender->closed || sender->line.count > 0)
        return 0;
    /* relaxed: only counted. */
    uint32_t head = atomic_load_explicit(&sender->inlet->head, memory_order_relaxed);
    return sender->credit - (sender->sent - head);
}

/* ---- Sending ---- */

int shoal_core_channel_send(struct shoal_core_sender *sender, const void *item, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&sender->line, "send");
    if (rc < 0)
        return rc;
    rc = send_now(sender, item);
    if (rc != -EAGAIN)
        return rc;
    struct shoal_waiter waiter = {.item = (void *)(uintptr_t)item};
    get_hungry(sender);
    return shoal_waiter_park(&sender->line, &waiter, timeout_ns);
}

int shoal_core_channel_try_send(struct shoal_core_sender *sender, const void *item)
{
    shoal_wait_queue_check(&sender->line, "try_send");
    return send_now(sender, item);
}

struct shoal_future *shoal_core_channel_send_future(struct shoal_core_sender *sender,
                                                    const void *item, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&sender->line, "send");
    struct shoal_waiter *waiter;
    struct shoal_future *future =
        shoal_waiter_new(&sender->line, sender->item_bytes, NULL, &waiter);
    if (waiter == NULL)
        return future;
    int rc = send_now(sender, item);
    if (rc != -EAGAIN) {
        shoal_waiter_end(waiter, rc);
        return future;
    }
    memcpy(waiter->item, item, sender->item_bytes);
    get_hungry(sender);
    shoal_waiter_start(waiter, timeout_ns);
    return future;
}

/* ---- As a source of a select ---- */

static bool send_ready(const struct shoal_select_case *source)
{
    struct shoal_core_sender *sender = source->object;
    (void)serve(sender);
    return sender->closed || (sender->line.count == 0 && has_credit(sender));
}

static void send_take(struct shoal_select_case *source)
{
    source->result = send_now(source->object, source->item);
}

static struct shoal_wait_queue *send_queue(const struct shoal_select_case *source)
{
    struct shoal_core_sender *sender = source->object;
    get_hungry(sender);
    return &sender->line;
}

struct shoal_select_case shoal_select_core_send(struct shoal_core_sender *sender, const void *item)
{
    static const struct shoal_select_ops ops = {send_ready, send_take, send_queue};
    shoal_wait_queue_check(&sender->line, "select");
    return (struct shoal_select_case){
        .ops = &ops, .object = sender, .item = (void *)(uintptr_t)item};
}
