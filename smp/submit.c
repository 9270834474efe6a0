/*
 * Asking: requests into outboxes, answers to futures. See mailbox_impl.h.
 *
 * A request's id, without its highest bit, is its place in `waiting`, where the pointer to its future
 * carries two marks: that its argument is to be freed with it, and that it was asked to end.
 *
 * Such a cancel is a bit in the channel, by id, which the other core takes and then applies to what
 * has that id. It must not hit the next request of the place. So the bit is taken back when the
 * answer has come; and because the other core may have taken it just then, without having applied
 * it, each place has two ids, used in turn. The other core answers nothing between taking the bit
 * and applying it: meanwhile a place may be used once more, with the other id, but not twice.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_settle_impl.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/mailbox_impl.h"

#define MARK_ARG_FREE ((uintptr_t)1)
#define MARK_CANCEL   ((uintptr_t)2)
#define MARKS         (MARK_ARG_FREE | MARK_CANCEL)

#define KEY_TO_SHIFT    16
#define KEY_GROUP_SHIFT 32
#define KEY_ID_MASK     ((UINT32_C(1) << KEY_TO_SHIFT) - 1)

static struct shoal_future *future_of(const struct shoal_future *marked)
{
    return (struct shoal_future *)((uintptr_t)marked & ~MARKS);
}

static struct shoal_future *mark(struct shoal_future *future, uintptr_t marks)
{
    return (struct shoal_future *)((uintptr_t)future | marks);
}

static uintptr_t marks_of(const struct shoal_future *marked)
{
    return (uintptr_t)marked & MARKS;
}

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

static void flush_requests(struct shoal_ring_writer *writer);

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
    outbox->cancel_key =
        (uintptr_t)to << KEY_TO_SHIFT | (uintptr_t)group->id << KEY_GROUP_SHIFT;
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
    struct shoal_outbox *outbox =
        row->outboxes != NULL ? shoal_box_new(sizeof(*outbox)) : NULL;
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

/* Lets the first in the line go on, if there is a credit for it. */
static void wake_credit_waiter(struct shoal_mail *mail, struct shoal_outbox *outbox)
{
    if (SHOAL_LIKELY(!shoal_list_linked(&outbox->credit_waiters)) || outbox->credits == 0)
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

/* The same for `timeout_ns` at most (0: as long as it takes); then -ETIMEDOUT. */
static int wait_credit_until(struct shoal_mail *mail, struct shoal_outbox *outbox,
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

/* ---- Sending ---- */

static void cancel_request(void *ctx)
{
    struct shoal_mail *mail = shoal_mail_self();
    uintptr_t key = (uintptr_t)ctx;
    unsigned id = (unsigned)(key & KEY_ID_MASK);
    unsigned to = (unsigned)(key >> KEY_TO_SHIFT) & KEY_ID_MASK;
    struct shoal_outbox *outbox = mail->rows[key >> KEY_GROUP_SHIFT].outboxes[to];
    struct shoal_mail_channel *channel = outbox->channel;
    struct shoal_future **waiting = &outbox->waiting[id & outbox->mask];
    if ((marks_of(*waiting) & MARK_CANCEL) != 0)
        return;
    *waiting = mark(*waiting, MARK_CANCEL);
    shoal_writer_flush(&outbox->writer); /* the request is in the ring before its cancel is seen */
    /* release: who sees the bit, led here by an earlier cancel, sees the request too. Pairs with the
     * exchange in serve.c:shoal_inbox_cancels(). */
    atomic_fetch_or_explicit(&channel->cancels[id / 64], UINT64_C(1) << (id % 64),
                             memory_order_release);
    SHOAL_DELAY_POINT();
    /* acq_rel: pairs with the one in serve.c:shoal_inbox_cancels(). */
    atomic_fetch_or_explicit(&channel->requests_watched, SHOAL_RING_CANCELS, memory_order_acq_rel);
    shoal_mail_announce(mail, to);
}

/* Whoever awaits the future gets hold of the request through it. */
static inline void hook_future(struct shoal_future *future, shoal_cancel_fn *cancel, void *ctx)
{
    future->flags |= SHOAL_FUTURE_HOOKED;
    future->root.cancel = cancel;
    future->root.ctx = ctx;
}

/* The deadline that holds for the code that runs now. */
static inline uint64_t current_deadline_ns(const struct shoal_core *core)
{
    const struct shoal_fiber *fiber = core->fiber;
    if (fiber == NULL || fiber->shields > 0)
        return SHOAL_NS_FOREVER;
    return fiber->scope != NULL ? fiber->scope->deadline_ns : fiber->deadline_ns;
}

/* Takes a credit for `future`; returns the request's id. */
static inline uint16_t id_take(struct shoal_outbox *outbox, struct shoal_future *future)
{
    uint16_t id = outbox->free_ids[--outbox->credits];
    outbox->waiting[id & outbox->mask] = future;
    hook_future(future, cancel_request, (void *)(outbox->cancel_key | id)); // NOLINT
    return id;
}

/*
 * Where the next request is to be written. A store to a line that the other core has read waits for
 * that line, and every store after it waits, too, as soon as the processor has some tens of them:
 * what a submit writes beside its slot. So only the first request since the last look goes into the
 * ring at once; those that follow are staged and then written one right after the other.
 */
static inline struct shoal_request_slot *next_slot(struct shoal_outbox *outbox)
{
    if (outbox->writer.unverified)
        return &outbox->staged[outbox->writer.staged];
    return &outbox->requests[outbox->next_request & outbox->mask];
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
        SHOAL_DELAY_POINT();
        /* release: pairs with the acquire load in serve.c:request_head(). */
        atomic_store_explicit(&slot->head, head, memory_order_release);
    }
}

/* After everything else of the slot. */
static inline void slot_publish(struct shoal_mail *mail, struct shoal_outbox *outbox,
                                struct shoal_request_slot *slot, uint32_t info)
{
    uint64_t head = shoal_slot_head(outbox->next_request++, info);
    if (outbox->writer.unverified) {
        atomic_store_explicit(&slot->head, head, memory_order_relaxed); /* staged: private */
        if (++outbox->writer.staged == SHOAL_STAGED_MAX)
            flush_requests(&outbox->writer);
        return;
    }
    SHOAL_DELAY_POINT();
    /* release: pairs with the acquire load in serve.c:request_head(). */
    atomic_store_explicit(&slot->head, head, memory_order_release);
    shoal_mail_published(mail, &outbox->writer);
    if (SHOAL_UNLIKELY(!shoal_list_linked(&outbox->reader.node)))
        shoal_mail_watch(&mail->watched_outboxes, &outbox->reader); /* an answer comes soon */
    mail->core->last_active_ns = mail->core->now_ns;                /* and is worth a spin */
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
    uintptr_t marks = marks_of(outbox->waiting[at]);
    struct shoal_future *future = future_of(outbox->waiting[at]);
    struct shoal_arg_free arg_free = {NULL, NULL};
    if ((marks & MARK_CANCEL) != 0)
        /* acq_rel: see the head of this file. Pairs with the exchange in serve.c. */
        atomic_fetch_and_explicit(&outbox->channel->cancels[id / 64],
                                  ~(UINT64_C(1) << (id % 64)), memory_order_acq_rel);
    if ((marks & MARK_ARG_FREE) != 0)
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
    if (SHOAL_UNLIKELY(marks_of(future) != 0)) {
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
        if (future_of(outbox->waiting[id]) == future)
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
        wake_credit_waiter(mail, outbox);
    return taken;
}

/* ---- The public calls ---- */

static void cancel_local(void *ctx)
{
    shoal_call_cancel(ctx);
}

/* A submit in all its parts. */
struct submit {
    struct shoal_call call;
    enum shoal_request_kind kind;
    unsigned to;
    const struct shoal_service_group *group;
    struct shoal_arg_free arg_free;
    uint64_t timeout_ns; /* 0: none */
    uint64_t deadline_ns;
};

/* Nothing was sent: `failed` says why. */
static struct shoal_future *refuse(const struct submit *what, struct shoal_future *failed)
{
    if (what->arg_free.fn != NULL)
        what->arg_free.fn(what->arg_free.arg);
    return failed;
}

static struct shoal_future *no_memory(const struct submit *what)
{
    return refuse(what, shoal_future_failed(-ENOMEM, NULL));
}

static struct shoal_future *submit_local(struct shoal_mail *mail, const struct submit *what)
{
    struct shoal_long_call *call = shoal_slab_take(&mail->calls);
    if (call == NULL)
        return no_memory(what);
    struct shoal_future *future = shoal_future_new();
    if (future == mail->core->no_memory) {
        shoal_slab_give(&mail->calls, call);
        return no_memory(what);
    }
    *call = (struct shoal_long_call){.future = future,
                                     .kind = (uint8_t)what->kind,
                                     .deadline_ns = what->deadline_ns,
                                     .arg_free = what->arg_free,
                                     .call = what->call};
    hook_future(future, cancel_local, call);
    shoal_call_local(mail, call);
    return future;
}

static bool room_for_arg_frees(struct shoal_outbox *outbox)
{
    if (outbox->arg_frees == NULL)
        outbox->arg_frees =
            shoal_mem_alloc_zeroed(((size_t)outbox->mask + 1) * sizeof(struct shoal_arg_free));
    return outbox->arg_frees != NULL;
}

static struct shoal_future *submit_remote(struct shoal_mail *mail, const struct submit *what)
{
    struct shoal_outbox *outbox = shoal_outbox_get(mail, what->group, what->to);
    if (outbox == NULL || (what->arg_free.fn != NULL && !room_for_arg_frees(outbox)))
        return no_memory(what);
    int rc = wait_credit_until(mail, outbox, what->timeout_ns);
    if (rc < 0)
        return refuse(what, rc == -ENOBUFS
                                ? shoal_future_failed(rc, "%u messages to core %u are in flight",
                                                      outbox->credits_max, what->to)
                                : shoal_future_failed(rc, NULL));
    struct shoal_future *future = shoal_future_new();
    if (SHOAL_UNLIKELY(future == mail->core->no_memory)) {
        wake_credit_waiter(mail, outbox); /* this one's turn is the next one's */
        return no_memory(what);
    }
    uint16_t id = id_take(outbox, future);
    if (what->arg_free.fn != NULL) {
        outbox->arg_frees[id & outbox->mask] = what->arg_free;
        outbox->waiting[id & outbox->mask] = mark(future, MARK_ARG_FREE);
    }
    struct shoal_request_slot *slot = next_slot(outbox);
    slot->call = what->call;
    slot->deadline_ns = what->deadline_ns;
    slot_publish(mail, outbox, slot, shoal_request_info(id, what->kind));
    wake_credit_waiter(mail, outbox); /* each in the line wakes the next */
    return future;
}

static SHOAL_NOINLINE struct shoal_future *submit_slow(struct shoal_mail *mail,
                                                       struct submit *what)
{
    if (SHOAL_UNLIKELY(what->to >= mail->cores))
        return refuse(what,
                      shoal_future_failed(SHOAL_ENOCORE, "core %u does not exist (allowed: 0 to %u)",
                                          what->to, mail->cores - 1));
    if (SHOAL_UNLIKELY(mail->closed))
        return refuse(what, shoal_future_failed(SHOAL_ESTOPPING, NULL));
    return what->to == mail->core->id ? submit_local(mail, what) : submit_remote(mail, what);
}

static SHOAL_NOINLINE struct shoal_future *
submit_call(unsigned to, enum shoal_request_kind kind, const struct shoal_call *call)
{
    struct shoal_mail *mail = shoal_mail_self();
    struct submit what = {.call = *call,
                          .kind = kind,
                          .to = to,
                          .group = &mail->fleet->default_group,
                          .deadline_ns = current_deadline_ns(mail->core)};
    return submit_slow(mail, &what);
}

/* The outbox towards `to` when nothing stands in the way of a plain message; else NULL. */
static inline struct shoal_outbox *open_outbox(const struct shoal_mail *mail, unsigned to)
{
    if (SHOAL_UNLIKELY(to >= mail->cores || mail->closed))
        return NULL;
    struct shoal_outbox *outbox = mail->outboxes[to];
    if (SHOAL_UNLIKELY(outbox == NULL || outbox->credits == 0 ||
                       shoal_list_linked(&outbox->credit_waiters)))
        return NULL;
    return outbox;
}

struct shoal_future *shoal_submit_to(unsigned core, shoal_submit_fn *fn, void *arg)
{
    struct shoal_mail *mail = shoal_mail_self();
    struct shoal_outbox *outbox = open_outbox(mail, core);
    struct shoal_future *future =
        outbox != NULL ? shoal_future_take(mail->core, __builtin_return_address(0)) : NULL;
    if (SHOAL_UNLIKELY(future == NULL)) {
        struct shoal_call call = {.fn.plain = fn, .arg = arg};
        return submit_call(core, SHOAL_REQUEST_PLAIN, &call);
    }
    uint64_t deadline_ns = current_deadline_ns(mail->core);
    uint16_t id = id_take(outbox, future);
    struct shoal_request_slot *slot = next_slot(outbox);
    slot->call.fn.plain = fn;
    slot->call.arg = arg;
    slot->deadline_ns = deadline_ns;
    slot_publish(mail, outbox, slot, shoal_request_info(id, SHOAL_REQUEST_PLAIN));
    return future;
}

struct shoal_future *shoal_submit_fiber_to(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    struct shoal_call call = {.fn.plain = fn, .arg = arg};
    return submit_call(core, SHOAL_REQUEST_FIBER, &call);
}

struct shoal_future *shoal_submit_future_to(unsigned core, shoal_submit_future_fn *fn, void *arg)
{
    struct shoal_call call = {.fn.future = fn, .arg = arg};
    return submit_call(core, SHOAL_REQUEST_FUTURE, &call);
}

struct shoal_future *shoal_submit_copy_to(unsigned core, shoal_submit_fn *fn, const void *data,
                                          size_t size)
{
    struct shoal_call call = {.fn.plain = fn};
    if (size > sizeof(call.copy))
        return shoal_future_failed(-EMSGSIZE, "a message of %zu bytes (allowed: up to %d)", size,
                                   SHOAL_SUBMIT_COPY_MAX);
    if (size > 0)
        memcpy(call.copy, data, size);
    return submit_call(core, SHOAL_REQUEST_COPY, &call);
}

struct shoal_future *shoal_submit(unsigned core, const struct shoal_submit *call)
{
    struct shoal_mail *mail = shoal_mail_self();
    unsigned functions =
        (call->fn != NULL) + (call->fiber_fn != NULL) + (call->future_fn != NULL);
    SHOAL_CHECK(functions == 1, "a submit has %u functions: it takes one of the three", functions);
    struct submit what = {
        .kind = call->fn != NULL         ? SHOAL_REQUEST_PLAIN
                : call->fiber_fn != NULL ? SHOAL_REQUEST_FIBER
                                         : SHOAL_REQUEST_FUTURE,
        .to = core,
        .group = call->group != NULL ? call->group : &mail->fleet->default_group,
        .arg_free = {call->arg_free, call->arg},
        .timeout_ns = call->timeout_ns,
        .deadline_ns = current_deadline_ns(mail->core),
    };
    what.call.arg = call->arg;
    if (call->future_fn != NULL)
        what.call.fn.future = call->future_fn;
    else
        what.call.fn.plain = call->fn != NULL ? call->fn : call->fiber_fn;
    if (call->timeout_ns != 0) {
        uint64_t deadline_ns = shoal_deadline_ns(shoal_now_ns(), call->timeout_ns);
        if (deadline_ns < what.deadline_ns)
            what.deadline_ns = deadline_ns;
    }
    return submit_slow(mail, &what);
}
