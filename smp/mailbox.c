/*
 * Mailboxes: sending requests, running them, answering. See mailbox_impl.h for the protocol.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"

#include "shoal/smp/mailbox_impl.h"

#define SLOT_MASK       (SHOAL_RING_SLOTS - 1)
#define REQUESTS_A_TASK 8

static size_t dirty_words(const struct shoal_fleet *fleet)
{
    return (fleet->cores + 63) / 64;
}

/* Tells core `to` that this core has put something into a ring for it. */
static void announce(struct shoal_mail *mail, unsigned to)
{
    struct shoal_mail *target = mail->fleet->mail[to];
    /* seq_cst RMW: after the slot's release store, before the look at `asleep`. Pairs with the
     * exchange in poll_mail(), and with the one in runtime/core.c:may_sleep(). */
    atomic_fetch_or_explicit(&target->dirty[mail->core->id / 64],
                             UINT64_C(1) << (mail->core->id % 64), memory_order_seq_cst);
    shoal_core_wake(target->core);
}

/* ---- Asking ---- */

static struct shoal_outbox *outbox_new(struct shoal_mail *mail, unsigned to)
{
    struct shoal_outbox *outbox = shoal_mem_alloc_zeroed(sizeof(*outbox));
    struct shoal_channel *channel = shoal_mem_alloc_aligned(sizeof(*channel), SHOAL_CACHE_LINE);
    if (outbox == NULL || channel == NULL) {
        shoal_mem_free(outbox, sizeof(*outbox));
        shoal_mem_free_aligned(channel, sizeof(*channel), SHOAL_CACHE_LINE);
        return NULL;
    }
    memset(channel, 0, sizeof(*channel));
    outbox->channel = channel;
    outbox->credits = SHOAL_RING_SLOTS;
    for (unsigned i = 0; i < SHOAL_RING_SLOTS; i++)
        outbox->free_ids[i] = (uint16_t)(SHOAL_RING_SLOTS - 1 - i);
    shoal_list_init(&outbox->credit_waiters);
    mail->outboxes[to] = outbox;
    /* release: pairs with the acquire load in channel_from(). */
    atomic_store_explicit(&mail->fleet->channels[mail->core->id * mail->fleet->cores + to], channel,
                          memory_order_release);
    return outbox;
}

struct credit_waiter {
    struct shoal_list node;
    struct shoal_fiber *fiber;
    bool cancelled;
};

/* Lets the first in the line go on, if there is a credit for it. */
static void wake_credit_waiter(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    if (outbox->credits == 0 || !shoal_list_linked(&outbox->credit_waiters))
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
    wake_credit_waiter(mail, outbox); /* the credit that woke this one is the next one's */
    return fiber->cancel_code;
}

static void send_request(struct shoal_mail *mail, struct shoal_outbox *outbox, unsigned to,
                         enum shoal_request_kind kind, const struct shoal_call *call,
                         struct shoal_future *future)
{
    uint16_t id = outbox->free_ids[--outbox->credits];
    outbox->waiting[id] = future;
    mail->in_flight++;
    uint32_t index = outbox->next_request++;
    struct shoal_request_slot *slot = &outbox->channel->requests[index & SLOT_MASK];
    slot->id = id;
    slot->kind = (uint8_t)kind;
    slot->call = *call;
    /* release: pairs with the acquire load in run_requests(). */
    atomic_store_explicit(&slot->sequence, index + 1, memory_order_release);
    announce(mail, to);
    mail->core->last_active_ns = mail->core->now_ns; /* an answer may come soon: worth a spin */
    wake_credit_waiter(mail, outbox);                /* each in the line wakes the next */
}

static void take_answer(struct shoal_mail *mail, struct shoal_outbox *outbox,
                        const struct shoal_answer_slot *slot)
{
    uint16_t id = slot->id;
    struct shoal_future *future = outbox->waiting[id];
    outbox->waiting[id] = NULL;
    outbox->free_ids[outbox->credits++] = id;
    mail->in_flight--;
    if (slot->code < 0)
        shoal_future_fail(future, slot->code, slot->text);
    else
        shoal_future_resolve(future, &slot->value);
}

static void take_answers(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    for (;;) {
        uint32_t index = outbox->next_answer;
        const struct shoal_answer_slot *slot = &outbox->channel->answers[index & SLOT_MASK];
        /* acquire: pairs with the release store in answer(). */
        if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != index + 1)
            break;
        outbox->next_answer = index + 1;
        take_answer(mail, outbox, slot);
    }
    wake_credit_waiter(mail, outbox);
}

/* ---- Answering ---- */

/* `text_move` becomes the slot's until the slot is written again. */
static void answer(struct shoal_inbox *inbox, uint16_t id, int code, char *text_move,
                   const union shoal_value *value)
{
    uint32_t index = inbox->next_answer++;
    struct shoal_answer_slot *slot = &inbox->channel->answers[index & SLOT_MASK];
    char **text = &inbox->texts[index & SLOT_MASK];
    shoal_text_free(*text);
    *text = text_move;
    slot->id = id;
    slot->code = code;
    slot->text = text_move;
    slot->value = *value;
    /* release: pairs with the acquire load in take_answers(). */
    atomic_store_explicit(&slot->sequence, index + 1, memory_order_release);
    announce(inbox->mail, inbox->from);
}

/* A request that outlives its slot. */
struct long_call {
    struct shoal_task task;    /* own core only */
    struct shoal_inbox *inbox; /* NULL: of this core, answered into `future` */
    struct shoal_future *future;
    uint16_t id;
    uint8_t kind;
    struct shoal_call call;
};

static void finish_long(struct long_call *call, int code, const char *text,
                        const union shoal_value *value)
{
    struct shoal_mail *mail = shoal_mail_self();
    if (call->inbox != NULL) {
        answer(call->inbox, call->id, code, code < 0 ? shoal_text_copy(text) : NULL, value);
    } else {
        mail->in_flight--;
        if (code < 0)
            shoal_future_fail(call->future, code, text);
        else
            shoal_future_resolve(call->future, value);
    }
    shoal_slab_give(&mail->calls, call);
}

static void long_settled(struct shoal_task *task)
{
    void *call;
    char *text;
    union shoal_value value = {.slice = {NULL, 0, 0}};
    int code = shoal_future_outcome(task, &call, &value, &text);
    finish_long(call, code, text, &value);
    shoal_text_free(text);
}

static int fiber_call(void *arg)
{
    struct long_call *call = arg;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = call->call.fn.plain(call->call.arg, &out);
    finish_long(call, code, code < 0 ? shoal_error_message() : NULL, &out);
    return 0;
}

/* Starts a call that may take its time; its end answers. */
static void start_long(struct long_call *call)
{
    union shoal_value out = {.slice = {NULL, 0, 0}};
    switch (call->kind) {
    case SHOAL_REQUEST_FIBER:
        if (shoal_fiber_spawn_detached(fiber_call, call, "submit") != 0)
            finish_long(call, -ENOMEM, NULL, &out);
        break;
    case SHOAL_REQUEST_FUTURE:
        if (shoal_future_consume(call->call.fn.future(call->call.arg), long_settled, call) != 0)
            finish_long(call, -ENOMEM, NULL, &out);
        break;
    default: {
        void *arg = call->kind == SHOAL_REQUEST_COPY ? call->call.copy : call->call.arg;
        int code = call->call.fn.plain(arg, &out);
        finish_long(call, code, NULL, &out);
        break;
    }
    }
}

static void run_request(struct shoal_inbox *inbox, const struct shoal_request_slot *slot)
{
    struct shoal_mail *mail = inbox->mail;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    uint16_t id = slot->id;
    mail->received++;
    if (slot->kind == SHOAL_REQUEST_PLAIN || slot->kind == SHOAL_REQUEST_COPY) {
        struct shoal_call call = slot->call;
        int code = call.fn.plain(slot->kind == SHOAL_REQUEST_COPY ? call.copy : call.arg, &out);
        answer(inbox, id, code, NULL, &out);
        return;
    }
    struct long_call *call = shoal_slab_take(&mail->calls);
    if (call == NULL) {
        answer(inbox, id, -ENOMEM, NULL, &out);
        return;
    }
    *call = (struct long_call){.inbox = inbox, .id = id, .kind = slot->kind, .call = slot->call};
    start_long(call);
}

static void run_requests(struct shoal_task *task)
{
    struct shoal_inbox *inbox = SHOAL_CONTAINER_OF(task, struct shoal_inbox, task);
    inbox->queued = false;
    for (int i = 0; i < REQUESTS_A_TASK; i++) {
        uint32_t index = inbox->next_request;
        const struct shoal_request_slot *slot = &inbox->channel->requests[index & SLOT_MASK];
        /* acquire: pairs with the release store in send_request(). */
        if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != index + 1)
            return;
        inbox->next_request = index + 1;
        run_request(inbox, slot);
    }
    inbox->queued = true;
    shoal_core_post(inbox->mail->core, &inbox->task);
}

static struct shoal_channel *channel_from(struct shoal_mail *mail, unsigned from)
{
    /* acquire: pairs with the release store in outbox_new(). */
    return atomic_load_explicit(&mail->fleet->channels[from * mail->fleet->cores + mail->core->id],
                                memory_order_acquire);
}

/* NULL: the other core has only answered so far, or there is no memory. */
static struct shoal_inbox *inbox_of(struct shoal_mail *mail, unsigned from)
{
    struct shoal_inbox *inbox = mail->inboxes[from];
    if (inbox != NULL)
        return inbox;
    struct shoal_channel *channel = channel_from(mail, from);
    if (channel == NULL)
        return NULL;
    inbox = shoal_mem_alloc_zeroed(sizeof(*inbox));
    if (inbox == NULL)
        return NULL;
    inbox->task.run = run_requests;
    inbox->mail = mail;
    inbox->from = from;
    inbox->channel = channel;
    mail->inboxes[from] = inbox;
    return inbox;
}

/* False when there is no memory to read the peer's requests by now: they are to be looked at again.
 */
static bool look_at_peer(struct shoal_mail *mail, unsigned peer)
{
    if (mail->outboxes[peer] != NULL)
        take_answers(mail, mail->outboxes[peer]);
    struct shoal_inbox *inbox = inbox_of(mail, peer);
    if (inbox != NULL && !inbox->queued) {
        inbox->queued = true;
        shoal_core_post(mail->core, &inbox->task);
    }
    return inbox != NULL || channel_from(mail, peer) == NULL;
}

static bool poll_mail(struct shoal_poller *poller)
{
    struct shoal_mail *mail = SHOAL_CONTAINER_OF(poller, struct shoal_mail, poller);
    bool found = false;
    for (size_t word = 0; word < dirty_words(mail->fleet); word++) {
        if (atomic_load_explicit(&mail->dirty[word], memory_order_relaxed) == 0)
            continue;
        /* seq_cst: pairs with the fetch_or in announce(); the rings are read after it. */
        uint64_t bits = atomic_exchange_explicit(&mail->dirty[word], 0, memory_order_seq_cst);
        while (bits != 0) {
            unsigned bit = (unsigned)__builtin_ctzll(bits);
            bits &= bits - 1;
            if (SHOAL_UNLIKELY(!look_at_peer(mail, (unsigned)word * 64 + bit)))
                atomic_fetch_or_explicit(&mail->dirty[word], UINT64_C(1) << bit,
                                         memory_order_relaxed);
            found = true;
        }
    }
    return found;
}

static bool mail_pending(struct shoal_poller *poller)
{
    const struct shoal_mail *mail = SHOAL_CONTAINER_OF(poller, struct shoal_mail, poller);
    for (size_t word = 0; word < dirty_words(mail->fleet); word++)
        if (atomic_load_explicit(&mail->dirty[word], memory_order_seq_cst) != 0)
            return true;
    return false;
}

/* ---- The public calls ---- */

static void run_local(struct shoal_task *task)
{
    start_long(SHOAL_CONTAINER_OF(task, struct long_call, task));
}

static void submit_local(struct shoal_mail *mail, struct long_call *call,
                         struct shoal_future *future, enum shoal_request_kind kind,
                         const struct shoal_call *what)
{
    *call = (struct long_call){
        .task = {.run = run_local}, .future = future, .kind = (uint8_t)kind, .call = *what};
    mail->in_flight++;
    shoal_core_post(mail->core, &call->task);
}

static struct shoal_future *submit(unsigned to, enum shoal_request_kind kind,
                                   const struct shoal_call *call)
{
    struct shoal_mail *mail = shoal_mail_self();
    if (SHOAL_UNLIKELY(to >= mail->fleet->cores))
        return shoal_future_failed(SHOAL_ENOCORE, "core %u does not exist (allowed: 0 to %u)", to,
                                   mail->fleet->cores - 1);
    if (SHOAL_UNLIKELY(mail->closed))
        return shoal_future_failed(SHOAL_ESTOPPING, NULL);
    bool local = to == mail->core->id;
    struct shoal_outbox *outbox = NULL;
    struct long_call *local_call = NULL;
    if (local) {
        local_call = shoal_slab_take(&mail->calls);
    } else {
        outbox = mail->outboxes[to] != NULL ? mail->outboxes[to] : outbox_new(mail, to);
        int rc = outbox != NULL ? wait_credit(mail, outbox) : 0;
        if (rc < 0)
            return shoal_future_failed(
                rc, rc == -ENOBUFS ? "%u messages to core %u are in flight" : NULL,
                SHOAL_RING_SLOTS, to);
    }
    struct shoal_future *future = shoal_future_new();
    if (SHOAL_UNLIKELY((outbox == NULL && local_call == NULL) || future == mail->core->no_memory)) {
        if (local_call != NULL)
            shoal_slab_give(&mail->calls, local_call);
        if (outbox != NULL)
            wake_credit_waiter(mail, outbox); /* this one's turn is the next one's */
        if (future != mail->core->no_memory)
            shoal_future_fail(future, -ENOMEM, NULL);
        return future;
    }
    if (local)
        submit_local(mail, local_call, future, kind, call);
    else
        send_request(mail, outbox, to, kind, call, future);
    return future;
}

struct shoal_future *shoal_submit_to(unsigned core, shoal_submit_fn *fn, void *arg)
{
    struct shoal_call call = {.fn.plain = fn, .arg = arg};
    return submit(core, SHOAL_REQUEST_PLAIN, &call);
}

struct shoal_future *shoal_submit_fiber_to(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    struct shoal_call call = {.fn.plain = fn, .arg = arg};
    return submit(core, SHOAL_REQUEST_FIBER, &call);
}

struct shoal_future *shoal_submit_future_to(unsigned core, shoal_submit_future_fn *fn, void *arg)
{
    struct shoal_call call = {.fn.future = fn, .arg = arg};
    return submit(core, SHOAL_REQUEST_FUTURE, &call);
}

struct shoal_future *shoal_submit_copy_to(unsigned core, shoal_submit_fn *fn, const void *data,
                                          size_t size)
{
    struct shoal_call call = {.fn.plain = fn};
    if (size > sizeof(call.copy))
        return shoal_future_failed(-EMSGSIZE, "a message of %zu bytes (allowed: up to %d)", size,
                                   SHOAL_SUBMIT_COPY_MAX);
    memcpy(call.copy, data, size);
    return submit(core, SHOAL_REQUEST_COPY, &call);
}

/* ---- Life ---- */

static void free_tables(struct shoal_mail *mail)
{
    size_t table = mail->fleet->cores * sizeof(void *);
    shoal_mem_free(mail->outboxes, table);
    shoal_mem_free(mail->inboxes, table);
    shoal_mem_free_aligned((void *)mail->dirty, dirty_words(mail->fleet) * SHOAL_CACHE_LINE,
                           SHOAL_CACHE_LINE);
}

int shoal_mail_init(struct shoal_mail *mail, struct shoal_core *core, struct shoal_fleet *fleet)
{
    memset(mail, 0, sizeof(*mail));
    mail->core = core;
    mail->fleet = fleet;
    size_t table = fleet->cores * sizeof(void *);
    mail->outboxes = shoal_mem_alloc_zeroed(table);
    mail->inboxes = shoal_mem_alloc_zeroed(table);
    mail->dirty = shoal_mem_alloc_aligned(dirty_words(fleet) * SHOAL_CACHE_LINE, SHOAL_CACHE_LINE);
    if (mail->outboxes == NULL || mail->inboxes == NULL || mail->dirty == NULL) {
        free_tables(mail);
        return -ENOMEM;
    }
    memset((void *)mail->dirty, 0, dirty_words(fleet) * SHOAL_CACHE_LINE);
    shoal_slab_init(&mail->calls, "submit", sizeof(struct long_call), 16);
    mail->poller.poll = poll_mail;
    mail->poller.pending = mail_pending;
    shoal_list_push_back(&core->pollers, &mail->poller.node);
    core->layers[SHOAL_LAYER_SMP] = mail;
    return 0;
}

void shoal_mail_deinit(struct shoal_mail *mail)
{
    unsigned cores = mail->fleet->cores;
    for (unsigned i = 0; i < cores; i++) {
        struct shoal_inbox *inbox = mail->inboxes[i];
        for (unsigned slot = 0; inbox != NULL && slot < SHOAL_RING_SLOTS; slot++)
            shoal_text_free(inbox->texts[slot]);
        shoal_mem_free(inbox, sizeof(*inbox));
        struct shoal_outbox *outbox = mail->outboxes[i];
        if (outbox == NULL)
            continue;
        shoal_mem_free_aligned(outbox->channel, sizeof(*outbox->channel), SHOAL_CACHE_LINE);
        shoal_mem_free(outbox, sizeof(*outbox));
    }
    shoal_slab_deinit(&mail->calls);
    free_tables(mail);
    if (shoal_list_linked(&mail->poller.node))
        shoal_list_remove(&mail->poller.node);
    mail->core->layers[SHOAL_LAYER_SMP] = NULL;
}
