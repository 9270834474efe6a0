/*
 * Answering: running requests, and what of them outlives its slot. See mailbox_impl.h.
 *
 * A plain function writes its value into a local variable, and from there it goes into the slot at
 * once with the rest: the asker looks at the slot while the function runs.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/mailbox_impl.h"

#define BURST_MAX 32

/* ---- Answers ---- */

/* The slot that is next, or the one where it is staged (as requests are, see submit.c). */
static inline struct shoal_answer_slot *answer_slot(struct shoal_inbox *inbox)
{
    uint32_t at = inbox->next_answer & inbox->mask;
    if (SHOAL_UNLIKELY(inbox->texts_kept > 0) && inbox->texts[at] != NULL) {
        shoal_text_free(inbox->texts[at]);
        inbox->texts[at] = NULL;
        inbox->texts_kept--;
    }
    return inbox->writer.unverified ? &inbox->staged[inbox->writer.staged] : &inbox->answers[at];
}

static void flush_answers(struct shoal_ring_writer *writer)
{
    struct shoal_inbox *inbox = SHOAL_CONTAINER_OF(writer, struct shoal_inbox, writer);
    const struct shoal_answer_slot *end = inbox->staged + writer->staged;
    uint32_t index = inbox->next_answer - writer->staged;
    writer->staged = 0;
    for (const struct shoal_answer_slot *from = inbox->staged; from != end; from++) {
        struct shoal_answer_slot *slot = &inbox->answers[index++ & inbox->mask];
        uint64_t head = atomic_load_explicit(&from->head, memory_order_relaxed);
        SHOAL_VALUE_COPY(&slot->value, &from->value);
        if (SHOAL_UNLIKELY((shoal_slot_info(head) & SHOAL_ANSWER_FAILED) != 0)) {
            slot->text = from->text;
            slot->code = from->code;
        }
        SHOAL_DELAY_POINT();
        /* release: pairs with the acquire load in outbox.c:answer_head(). */
        atomic_store_explicit(&slot->head, head, memory_order_release);
    }
}

static inline void answer_publish(struct shoal_inbox *inbox, struct shoal_answer_slot *slot,
                                  uint32_t info)
{
    uint64_t head = shoal_slot_head(inbox->next_answer++, info);
    if (inbox->writer.unverified) {
        atomic_store_explicit(&slot->head, head, memory_order_relaxed); /* staged: private */
        if (++inbox->writer.staged == SHOAL_STAGED_MAX)
            flush_answers(&inbox->writer);
        return;
    }
    SHOAL_DELAY_POINT();
    /* release: pairs with the acquire load in outbox.c:answer_head(). */
    atomic_store_explicit(&slot->head, head, memory_order_release);
    shoal_mail_published(inbox->mail, &inbox->writer);
}

static inline void answer_value(struct shoal_inbox *inbox, uint16_t id,
                                const union shoal_value *value)
{
    struct shoal_answer_slot *slot = answer_slot(inbox);
    SHOAL_VALUE_COPY(&slot->value, value);
    answer_publish(inbox, slot, id);
}

/* `text_move` becomes the slot's until the slot is written again; it is lost without memory. */
static SHOAL_NOINLINE void answer_failure(struct shoal_inbox *inbox, uint16_t id, int code,
                                          char *text_move)
{
    struct shoal_answer_slot *slot = answer_slot(inbox);
    if (text_move != NULL && inbox->texts == NULL)
        inbox->texts = shoal_mem_alloc_zeroed(((size_t)inbox->mask + 1) * sizeof(char *));
    if (text_move != NULL && inbox->texts == NULL) {
        shoal_text_free(text_move);
        text_move = NULL;
    }
    if (text_move != NULL) {
        inbox->texts[inbox->next_answer & inbox->mask] = text_move;
        inbox->texts_kept++;
    }
    slot->text = text_move;
    slot->code = code;
    answer_publish(inbox, slot, id | SHOAL_ANSWER_FAILED);
}

static void answer(struct shoal_inbox *inbox, uint16_t id, int code, char *text_move,
                   const union shoal_value *value)
{
    if (code < 0)
        answer_failure(inbox, id, code, text_move);
    else
        answer_value(inbox, id, value);
}

/* ---- Calls that outlive their slot, and those of this core ---- */

static void call_end(struct shoal_long_call *call, int code, const char *text,
                     const union shoal_value *value)
{
    struct shoal_mail *mail = shoal_mail_self();
    struct shoal_arg_free arg_free = {NULL, NULL};
    if (call->inbox != NULL) {
        call->inbox->calls[call->id & call->inbox->mask] = NULL;
        call->inbox->long_calls--;
        answer(call->inbox, call->id, code, code < 0 ? shoal_text_copy(text) : NULL, value);
    } else {
        mail->local_in_flight--;
        arg_free = call->arg_free;
        if (code < 0)
            shoal_future_fail(call->future, code, text);
        else
            shoal_future_resolve(call->future, value);
    }
    shoal_slab_give(&mail->calls, call);
    if (arg_free.fn != NULL)
        arg_free.fn(arg_free.arg);
}

static void call_fail(struct shoal_long_call *call, int code)
{
    call_end(call, code, NULL, NULL);
}

static void future_settled(struct shoal_task *task)
{
    void *ctx;
    char *text;
    union shoal_value value = {.slice = {NULL, 0, 0}};
    int code = shoal_future_outcome(task, &ctx, &value, &text);
    struct shoal_long_call *call = ctx;
    if (call->deadline_ns != SHOAL_NS_FOREVER)
        (void)shoal_timer_cancel(&call->timer);
    if (code == -ECANCELED && call->timed_out)
        code = -ETIMEDOUT;
    call_end(call, code, text, &value);
    shoal_text_free(text);
}

static void future_timed_out(struct shoal_timer *timer)
{
    struct shoal_long_call *call = SHOAL_CONTAINER_OF(timer, struct shoal_long_call, timer);
    call->timed_out = true;
    shoal_future_cancel(call->awaited);
}

static void start_future(struct shoal_long_call *call)
{
    call->awaited = call->call.fn.future(call->call.arg);
    if (shoal_future_consume(call->awaited, future_settled, call) != 0) {
        call_fail(call, -ENOMEM);
        return;
    }
    if (call->deadline_ns == SHOAL_NS_FOREVER)
        return;
    shoal_timer_init(&call->timer, future_timed_out);
    shoal_timer_arm_at(&call->timer, call->deadline_ns);
}

/* Why a request that comes to its turn now is not to run; 0 when it is. */
static inline int refusal(bool cancelled, uint64_t deadline_ns)
{
    if (SHOAL_UNLIKELY(cancelled))
        return -ECANCELED;
    /* By the clock itself: the call before this one may have taken its time. */
    return deadline_ns != SHOAL_NS_FOREVER && deadline_ns <= shoal_now_ns() ? -ETIMEDOUT : 0;
}

static int fiber_main(void *arg)
{
    struct shoal_long_call *call = arg;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    struct shoal_scope scope;
    struct shoal_scope_options options = {.timeout_ns = 0};
    int code = refusal(call->cancelled, call->deadline_ns);
    if (code < 0) {
        call_fail(call, code);
        return 0;
    }
    if (call->deadline_ns != SHOAL_NS_FOREVER) {
        uint64_t now_ns = shoal_now_ns();
        options.timeout_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 1;
    }
    shoal_scope_enter(&scope, &options);
    code = call->call.fn.plain(call->call.arg, &out);
    (void)shoal_scope_leave(&scope); /* it has no children */
    call_end(call, code, code < 0 ? shoal_error_message() : NULL, &out);
    return 0;
}

static void start_fiber(struct shoal_long_call *call)
{
    struct shoal_core *core = shoal_core_self;
    call->fiber = shoal_fiber_take(core, fiber_main, call, "submit");
    if (call->fiber == NULL)
        call_fail(call, -ENOMEM);
    else
        shoal_fiber_make_ready(core, call->fiber);
}

/* The text that a plain function has given for its failure, to be freed; NULL without. */
static char *take_explanation(struct shoal_core *core)
{
    char *text = core->explanation;
    core->explanation = NULL;
    return text;
}

static void run_local_plain(struct shoal_long_call *call)
{
    struct shoal_core *core = shoal_core_self;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    shoal_text_free(take_explanation(core));
    void *arg = call->kind == SHOAL_REQUEST_COPY ? call->call.copy : call->call.arg;
    int code = call->call.fn.plain(arg, &out);
    char *text = code < 0 ? take_explanation(core) : NULL;
    call_end(call, code, text, &out);
    shoal_text_free(text);
}

static void run_local(struct shoal_task *task)
{
    struct shoal_long_call *call = SHOAL_CONTAINER_OF(task, struct shoal_long_call, task);
    int code = refusal(call->cancelled, call->deadline_ns);
    shoal_mail_self()->local_received++;
    if (code < 0)
        call_fail(call, code);
    else if (call->kind == SHOAL_REQUEST_FIBER)
        start_fiber(call);
    else if (call->kind == SHOAL_REQUEST_FUTURE)
        start_future(call);
    else
        run_local_plain(call);
}

void shoal_call_local(struct shoal_mail *mail, struct shoal_long_call *call)
{
    call->task.run = run_local;
    mail->local_in_flight++;
    shoal_core_post(mail->core, &call->task);
}

void shoal_call_cancel(struct shoal_long_call *call)
{
    call->cancelled = true;
    if (call->fiber != NULL)
        shoal_fiber_cancel(call->fiber);
    else if (call->awaited != NULL)
        shoal_future_cancel(call->awaited);
}

/* ---- Requests ---- */

/* Whether the asker has cancelled the request `id` before it was read. */
static SHOAL_NOINLINE bool take_cancelled(struct shoal_inbox *inbox, uint16_t id)
{
    uint64_t bit = UINT64_C(1) << (id % 64);
    if ((inbox->cancelled[id / 64] & bit) == 0)
        return false;
    inbox->cancelled[id / 64] &= ~bit;
    inbox->cancelled_count--;
    return true;
}

static void run_long(struct shoal_inbox *inbox, const struct shoal_request_slot *slot,
                     uint32_t info)
{
    uint16_t id = (uint16_t)info;
    uint8_t kind = (uint8_t)(info >> 16);
    if (inbox->calls == NULL)
        inbox->calls = shoal_mem_alloc_zeroed(((size_t)inbox->mask + 1) * sizeof(*inbox->calls));
    struct shoal_long_call *call =
        inbox->calls != NULL ? shoal_slab_take(&inbox->mail->calls) : NULL;
    if (call == NULL) {
        answer(inbox, id, -ENOMEM, NULL, NULL);
        return;
    }
    *call = (struct shoal_long_call){.inbox = inbox,
                                     .id = id,
                                     .kind = kind,
                                     .deadline_ns = slot->deadline_ns,
                                     .call = slot->call};
    inbox->calls[id & inbox->mask] = call;
    inbox->long_calls++;
    if (kind == SHOAL_REQUEST_FIBER)
        start_fiber(call);
    else
        start_future(call);
}

static inline void run_plain(struct shoal_core *core, struct shoal_inbox *inbox,
                             const struct shoal_request_slot *slot, uint32_t info)
{
    union shoal_value out = {.slice = {NULL, 0, 0}};
    if (SHOAL_UNLIKELY(core->explanation != NULL))
        shoal_text_free(take_explanation(core));
    /* The slot stays as it is while this runs: it is written again only once a later request has
     * been answered. */
    void *arg = info >> 16 == SHOAL_REQUEST_COPY ? (void *)slot->call.copy : slot->call.arg;
    int code = slot->call.fn.plain(arg, &out);
    if (SHOAL_LIKELY(code >= 0))
        answer_value(inbox, (uint16_t)info, &out);
    else
        answer_failure(inbox, (uint16_t)info, code, take_explanation(core));
}

static inline void run_request(struct shoal_core *core, struct shoal_inbox *inbox,
                               const struct shoal_request_slot *slot, uint32_t info)
{
    uint16_t id = (uint16_t)info;
    bool cancelled = SHOAL_UNLIKELY(inbox->cancelled_count > 0) && take_cancelled(inbox, id);
    int code = refusal(cancelled, slot->deadline_ns);
    if (SHOAL_UNLIKELY(code < 0))
        answer_failure(inbox, id, code, NULL);
    else if (SHOAL_LIKELY(info >> 16 <= SHOAL_REQUEST_COPY))
        run_plain(core, inbox, slot, info);
    else
        run_long(inbox, slot, info);
}

static inline const struct shoal_request_slot *request_slot(const struct shoal_inbox *inbox,
                                                            uint32_t index)
{
    return &inbox->requests[index & inbox->mask];
}

static inline uint64_t request_head(const struct shoal_inbox *inbox, uint32_t index)
{
    /* acquire: pairs with the release store in submit.c:slot_publish(). */
    return atomic_load_explicit(&request_slot(inbox, index)->head, memory_order_acquire);
}

/* Runs the request that follows, if it is there. */
static inline bool run_next(struct shoal_core *core, struct shoal_inbox *inbox)
{
    uint32_t index = inbox->next_request;
    uint64_t head = request_head(inbox, index);
    if (!shoal_slot_holds(head, index))
        return false;
    inbox->next_request = index + 1;
    run_request(core, inbox, request_slot(inbox, index), shoal_slot_info(head));
    return true;
}

bool shoal_inbox_has_request(const struct shoal_inbox *inbox)
{
    return shoal_slot_holds(request_head(inbox, inbox->next_request), inbox->next_request);
}

/* Long functions get smaller bursts, short ones larger. */
static void adapt_burst(struct shoal_mail *mail, unsigned ran, uint64_t took_cycles)
{
    const uint64_t look_cycles = mail->core->look_cycles;
    if (took_cycles > look_cycles)
        mail->burst = (ran + 1) / 2;
    else if (2 * took_cycles < look_cycles && mail->burst < BURST_MAX)
        mail->burst++;
}

unsigned shoal_inbox_run(struct shoal_mail *mail, struct shoal_inbox *inbox)
{
    struct shoal_core *core = mail->core;
    if (!shoal_inbox_has_request(inbox))
        return 0;
    /* A lone request is not timed, which costs more than it does, unless bursts have come to that.
     */
    uint64_t start_cycles = mail->burst == 1 ? shoal_cycles() : 0;
    unsigned ran = run_next(core, inbox);
    bool more = shoal_inbox_has_request(inbox);
    if (more && mail->burst > 1)
        start_cycles = shoal_cycles();
    while (ran < mail->burst && run_next(core, inbox))
        ran++;
    shoal_writer_flush(&inbox->writer);
    if (more)
        adapt_burst(mail, ran, shoal_cycles() - start_cycles);
    return ran;
}

/* ---- Cancels ---- */

static void mark_unread(struct shoal_inbox *inbox, uint16_t id)
{
    uint64_t head;
    for (uint32_t index = inbox->next_request;
         shoal_slot_holds(head = request_head(inbox, index), index); index++) {
        if ((uint16_t)shoal_slot_info(head) != id)
            continue;
        inbox->cancelled[id / 64] |= UINT64_C(1) << (id % 64);
        inbox->cancelled_count++;
        return;
    }
}

/* The request is running, or not read yet, or answered. */
static void cancel_one(struct shoal_inbox *inbox, uint16_t id)
{
    struct shoal_long_call *call = inbox->calls != NULL ? inbox->calls[id & inbox->mask] : NULL;
    if (call != NULL && call->id == id)
        shoal_call_cancel(call);
    else
        mark_unread(inbox, id);
}

void shoal_inbox_cancels(struct shoal_mail *mail, struct shoal_inbox *inbox)
{
    (void)mail;
    /* acq_rel: the bits that were set before are seen below. Pairs with submit.c:cancel_request().
     */
    atomic_fetch_and_explicit(inbox->reader.watched, ~SHOAL_RING_CANCELS, memory_order_acq_rel);
    for (uint32_t word = 0; word < shoal_mail_cancel_words(inbox->mask + 1); word++) {
        if (atomic_load_explicit(&inbox->cancels[word], memory_order_relaxed) == 0)
            continue;
        SHOAL_DELAY_POINT();
        /* acquire: pairs with the fetch_and in outbox.c:settle_marked(). */
        uint64_t bits = atomic_exchange_explicit(&inbox->cancels[word], 0, memory_order_acq_rel);
        for (; bits != 0; bits &= bits - 1) {
            SHOAL_DELAY_POINT();
            cancel_one(inbox, (uint16_t)(word * 64 + (unsigned)__builtin_ctzll(bits)));
        }
    }
}

/* ---- Life ---- */

struct shoal_inbox *shoal_inbox_new(struct shoal_mail *mail, struct shoal_mail_channel *channel,
                                    unsigned from)
{
    struct shoal_inbox *inbox = shoal_box_new(sizeof(*inbox));
    if (inbox == NULL)
        return NULL;
    inbox->cancelled =
        shoal_mem_alloc_zeroed(shoal_mail_cancel_words(channel->slots) * sizeof(uint64_t));
    if (inbox->cancelled == NULL) {
        shoal_box_free(inbox, sizeof(*inbox));
        return NULL;
    }
    inbox->requests = channel->requests;
    inbox->answers = channel->answers;
    inbox->mask = channel->slots - 1;
    inbox->cancels = channel->cancels;
    inbox->mail = mail;
    inbox->reader.watched = &channel->requests_watched;
    shoal_list_init(&inbox->reader.node);
    inbox->writer.watched = &channel->answers_watched;
    inbox->writer.to = (uint16_t)from;
    inbox->writer.flush = flush_answers;
    return inbox;
}

void shoal_inbox_free(struct shoal_mail *mail, struct shoal_inbox *inbox)
{
    size_t slots = (size_t)inbox->mask + 1;
    mail->freed_received += inbox->next_request;
    shoal_list_remove(&inbox->reader.node);
    for (size_t i = 0; inbox->texts != NULL && i < slots; i++)
        shoal_text_free(inbox->texts[i]);
    shoal_mem_free(inbox->texts, slots * sizeof(char *));
    shoal_mem_free(inbox->calls, slots * sizeof(*inbox->calls));
    shoal_mem_free(inbox->cancelled, shoal_mail_cancel_words((uint32_t)slots) * sizeof(uint64_t));
    shoal_box_free(inbox, sizeof(*inbox));
}
