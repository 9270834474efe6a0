/*
 * Outboxes: their life, their credit, what is staged in them, and the answers that come back. See
 * mailbox_impl.h and outbox_impl.h.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_settle_impl.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/outbox_impl.h"

/* ---- Outboxes ---- */

static struct shoal_mail_channel *channel_new(uint32_t slots)
{
    size_t bytes = shoal_mail_channel_bytes(slots);
    struct shoal_mail_channel *channel = shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    if (channel == NULL)
        return NULL;
    memset((void *)channel, 0, bytes);
    channel->slots = slots;
    unsigned char *end = (unsigned char *)channel + bytes;
    channel->answers = (struct shoal_answer_slot *)(void *)end - slots;
    channel->requests = (struct shoal_request_slot *)(void *)channel->answers - slots;
    channel->cancels = (_Atomic uint64_t *)(void *)(channel + 1);
    return channel;
}

static void outbox_free_parts(struct shoal_outbox *outbox)
{
    size_t slots = (size_t)outbox->mask + 1;
    shoal_mem_free((void *)outbox->waiting, slots * sizeof(struct shoal_future *));
    shoal_mem_free(outbox->free_ids, slots * sizeof(uint16_t));
    shoal_mem_free(outbox->arg_frees, slots * sizeof(struct shoal_arg_free));
    if (outbox->channel != NULL)
        shoal_mem_free_aligned(outbox->channel, shoal_mail_channel_bytes((uint32_t)slots),
                               SHOAL_CACHE_LINE);
    shoal_box_free(outbox, sizeof(*outbox));
}

static void flush_requests(struct shoal_ring_writer *writer)
{
    struct shoal_outbox *outbox = SHOAL_CONTAINER_OF(writer, struct shoal_outbox, writer);
    const struct shoal_request_slot *end = outbox->staged + writer->staged;
    uint32_t index = outbox->next_request - writer->staged;
    writer->staged = 0;
    for (const struct shoal_request_slot *from = outbox->staged; from != end; from++) {
        struct shoal_request_slot *slot = &outbox->requests[index++ & outbox->mask];
        uint64_t head = atomic_load_explicit(&from->head, memory_order_relaxed);
        slot->call.fn = from->call.fn;
        slot->call.arg = from->call.arg;
        slot->deadline_ns = from->deadline_ns;
        if (SHOAL_UNLIKELY(shoal_slot_info(head) >> 16 == SHOAL_REQUEST_COPY))
            memcpy(slot->call.copy, from->call.copy, sizeof(slot->call.copy));
        SHOAL_DELAY_POINT();
        /* release: pairs with the acquire load in serve.c:request_head(). */
        atomic_store_explicit(&slot->head, head, memory_order_release);
    }
}

static void outbox_init(struct shoal_outbox *outbox, const struct shoal_service_group *group,
                        unsigned to)
{
    struct shoal_mail_channel *channel = outbox->channel;
    outbox->requests = channel->requests;
    outbox->answers = channel->answers;
    outbox->credits_max = group->in_flight_max;
    outbox->credits = group->in_flight_max;
    for (unsigned i = 0; i < group->in_flight_max; i++)
        outbox->free_ids[i] = (uint16_t)(group->in_flight_max - 1 - i);
    outbox->cancel_key = (uintptr_t)to << SHOAL_KEY_TO_SHIFT | (uintptr_t)group->id
                                                                   << SHOAL_KEY_GROUP_SHIFT;
    outbox->writer.watched = &channel->requests_watched;
    outbox->writer.to = (uint16_t)to;
    outbox->writer.flush = flush_requests;
    outbox->reader.watched = &channel->answers_watched;
    shoal_list_init(&outbox->reader.node);
    shoal_list_init(&outbox->credit_waiters);
}

static struct shoal_outbox *outbox_new(struct shoal_mail *mail,
                                       const struct shoal_service_group *group, unsigned to)
{
    struct shoal_mail_row *row = &mail->rows[group->id];
    if (row->outboxes == NULL)
        row->outboxes = shoal_mem_alloc_zeroed(mail->cores * sizeof(struct shoal_outbox *));
    struct shoal_outbox *outbox = row->outboxes != NULL ? shoal_box_new(sizeof(*outbox)) : NULL;
    if (outbox == NULL)
        return NULL;
    outbox->mask = group->slots - 1;
    outbox->waiting = shoal_mem_alloc_zeroed(group->slots * sizeof(struct shoal_future *));
    outbox->free_ids = shoal_mem_alloc_zeroed(group->slots * sizeof(uint16_t));
    outbox->channel = channel_new(group->slots);
    if (outbox->waiting == NULL || outbox->free_ids == NULL || outbox->channel == NULL) {
        outbox_free_parts(outbox);
        return NULL;
    }
    outbox_init(outbox, group, to);
    row->outboxes[to] = outbox;
    /* release: pairs with the acquire load in mailbox.c:channel_from(). */
    atomic_store_explicit(&group->channels[mail->core->id * mail->cores + to], outbox->channel,
                          memory_order_release);
    return outbox;
}

struct shoal_outbox *shoal_outbox_get(struct shoal_mail *mail,
                                      const struct shoal_service_group *group, unsigned to)
{
    struct shoal_outbox **outboxes = mail->rows[group->id].outboxes;
    if (outboxes != NULL && outboxes[to] != NULL)
        return outboxes[to];
    return outbox_new(mail, group, to);
}

void shoal_outbox_free(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    (void)mail;
    shoal_list_remove(&outbox->reader.node);
    outbox_free_parts(outbox);
}

/* ---- Credit ---- */

struct credit_waiter {
    struct shoal_list node;
    struct shoal_fiber *fiber;
    bool cancelled;
};

void shoal_outbox_wake_first(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    if (outbox->credits == 0)
        return;
    struct credit_waiter *first =
        SHOAL_CONTAINER_OF(outbox->credit_waiters.next, struct credit_waiter, node);
    shoal_fiber_make_ready(mail->core, first->fiber);
}

static void cancel_credit(struct shoal_fiber *fiber)
{
    struct credit_waiter *waiter = fiber->wait_ctx;
    waiter->cancelled = true;
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

/* Waits, in order, until the outbox has a credit for this fiber. 0 or a negative code. */
static int wait_credit(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    struct shoal_fiber *fiber = mail->core->fiber;
    if (outbox->credits > 0 && !shoal_list_linked(&outbox->credit_waiters))
        return 0;
    if (fiber == NULL)
        return -ENOBUFS;
    if (shoal_fiber_cancelled_now(fiber))
        return fiber->cancel_code;
    struct credit_waiter waiter = {.fiber = fiber};
    shoal_list_push_back(&outbox->credit_waiters, &waiter.node);
    shoal_fiber_wait_begin(fiber, "room in a ring", cancel_credit, &waiter);
    do {
        shoal_fiber_park(mail->core, fiber);
    } while (!waiter.cancelled &&
             (outbox->credits == 0 || outbox->credit_waiters.next != &waiter.node));
    shoal_fiber_wait_end(fiber);
    shoal_list_remove(&waiter.node);
    if (!waiter.cancelled)
        return 0;
    shoal_outbox_wake_waiter(mail, outbox); /* the credit that woke this one is the next one's */
    return fiber->cancel_code;
}

int shoal_outbox_wait_credit(struct shoal_mail *mail, struct shoal_outbox *outbox,
                             uint64_t timeout_ns)
{
    if (SHOAL_LIKELY(timeout_ns == 0 || mail->core->fiber == NULL || outbox->credits > 0))
        return wait_credit(mail, outbox);
    struct shoal_scope scope;
    const struct shoal_scope_options options = {.timeout_ns = timeout_ns};
    shoal_scope_enter(&scope, &options);
    int rc = wait_credit(mail, outbox);
    (void)shoal_scope_leave(&scope); /* it has no children */
    return rc;
}

/* ---- Answers ---- */

/* The id with which the place of a request that has ended is used next. */
static inline uint16_t other_id(const struct shoal_outbox *outbox, uint16_t id)
{
    return (uint16_t)(id ^ (outbox->mask + 1));
}

/* For a request that has marks. Its id is free again, and may have been taken again, afterwards. */
static SHOAL_NOINLINE void settle_marked(struct shoal_outbox *outbox,
                                         const struct shoal_answer_slot *slot, uint32_t info)
{
    uint16_t id = (uint16_t)info;
    uint16_t at = id & (uint16_t)outbox->mask;
    uintptr_t marks = shoal_marks_of(outbox->waiting[at]);
    struct shoal_future *future = shoal_unmarked(outbox->waiting[at]);
    struct shoal_arg_free arg_free = {NULL, NULL};
    if ((marks & SHOAL_MARK_CANCEL) != 0)
        /* acq_rel: see the head of this file. Pairs with the exchange in serve.c. */
        atomic_fetch_and_explicit(&outbox->channel->cancels[id / 64], ~(UINT64_C(1) << (id % 64)),
                                  memory_order_acq_rel);
    if ((marks & SHOAL_MARK_ARG_FREE) != 0)
        arg_free = outbox->arg_frees[at];
    outbox->waiting[at] = NULL;
    outbox->free_ids[outbox->credits++] = other_id(outbox, id);
    if ((info & SHOAL_ANSWER_FAILED) != 0)
        shoal_future_fail(future, (int)slot->code, slot->text);
    else
        shoal_future_resolve(future, &slot->value);
    if (arg_free.fn != NULL)
        arg_free.fn(arg_free.arg);
}

static inline void take_answer(struct shoal_mail *mail, struct shoal_outbox *outbox,
                               const struct shoal_answer_slot *slot, uint32_t info)
{
    uint16_t id = (uint16_t)info;
    uint16_t at = id & (uint16_t)outbox->mask;
    struct shoal_future *future = outbox->waiting[at];
    if (SHOAL_UNLIKELY(shoal_marks_of(future) != 0)) {
        settle_marked(outbox, slot, info);
        return;
    }
    outbox->waiting[at] = NULL;
    outbox->free_ids[outbox->credits++] = other_id(outbox, id);
    if (SHOAL_UNLIKELY((info & SHOAL_ANSWER_FAILED) != 0)) {
        shoal_future_fail(future, (int)slot->code, slot->text);
        return;
    }
    shoal_future_check_mine(future, "resolve");
    future->flags &= (uint8_t)~SHOAL_FUTURE_HOOKED;
    SHOAL_VALUE_COPY(&future->value, &slot->value);
    shoal_future_settle_ready(mail->core, future);
}

static inline const struct shoal_answer_slot *answer_slot(const struct shoal_outbox *outbox)
{
    return &outbox->answers[outbox->next_answer & outbox->mask];
}

static inline uint64_t answer_head(const struct shoal_outbox *outbox)
{
    /* acquire: pairs with the release store in serve.c:answer_publish(). */
    return atomic_load_explicit(&answer_slot(outbox)->head, memory_order_acquire);
}

bool shoal_outbox_has_answer(const struct shoal_outbox *outbox)
{
    return shoal_slot_holds(answer_head(outbox), outbox->next_answer);
}

bool shoal_outbox_awaits(const struct shoal_outbox *outbox, const struct shoal_future *future)
{
    for (uint32_t id = 0; id <= outbox->mask; id++)
        if (shoal_unmarked(outbox->waiting[id]) == future)
            return true;
    return false;
}

unsigned shoal_outbox_take_answers(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    unsigned taken = 0;
    uint64_t head;
    while (shoal_slot_holds(head = answer_head(outbox), outbox->next_answer)) {
        const struct shoal_answer_slot *slot = answer_slot(outbox);
        outbox->next_answer++;
        take_answer(mail, outbox, slot, shoal_slot_info(head));
        taken++;
    }
    if (taken > 0)
        shoal_outbox_wake_waiter(mail, outbox);
    return taken;
}
