/*
 * Asking: from the public calls to a request in its slot. See mailbox_impl.h and outbox_impl.h.
 *
 * The plain case goes straight through, without a call that is not inlined: shoal_submit_to() with
 * a credit, a future and an outbox at hand. All others meet in submit_slow().
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_settle_impl.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/outbox_impl.h"

/* ---- Sending ---- */

static void cancel_request(void *ctx)
{
    struct shoal_mail *mail = shoal_mail_self();
    uintptr_t key = (uintptr_t)ctx;
    unsigned id = (unsigned)(key & SHOAL_KEY_ID_MASK);
    unsigned to = (unsigned)(key >> SHOAL_KEY_TO_SHIFT) & SHOAL_KEY_ID_MASK;
    struct shoal_outbox *outbox = mail->rows[key >> SHOAL_KEY_GROUP_SHIFT].outboxes[to];
    struct shoal_mail_channel *channel = outbox->channel;
    struct shoal_future **waiting = &outbox->waiting[id & outbox->mask];
    if ((shoal_marks_of(*waiting) & SHOAL_MARK_CANCEL) != 0)
        return;
    *waiting = shoal_marked(*waiting, SHOAL_MARK_CANCEL);
    shoal_writer_flush(&outbox->writer); /* the request is in the ring before its cancel is seen */
    /* release: who sees the bit, led here by an earlier cancel, sees the request too. Pairs with
     * the exchange in serve.c:shoal_inbox_cancels(). */
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

/* After everything else of the slot. True: published_slowly() is to be called, too. */
static inline bool slot_publish(struct shoal_mail *mail, struct shoal_outbox *outbox,
                                struct shoal_request_slot *slot, uint32_t info)
{
    uint64_t head = shoal_slot_head(outbox->next_request++, info);
    if (outbox->writer.unverified) {
        atomic_store_explicit(&slot->head, head, memory_order_relaxed); /* staged: private */
        return ++outbox->writer.staged == SHOAL_STAGED_MAX;
    }
    SHOAL_DELAY_POINT();
    /* release: pairs with the acquire load in serve.c:request_head(). */
    atomic_store_explicit(&slot->head, head, memory_order_release);
    shoal_mail_note_published(mail, &outbox->writer);
    mail->core->last_active_ns = mail->core->now_ns; /* an answer comes soon: worth a spin */
    return !shoal_ring_seems_watched(outbox->writer.watched) ||
           !shoal_list_linked(&outbox->reader.node);
}

/* What is not done for each request. Returns `future`, for a call of it to be a function's last. */
static SHOAL_NOINLINE struct shoal_future *
published_slowly(struct shoal_mail *mail, struct shoal_outbox *outbox, struct shoal_future *future)
{
    if (outbox->writer.staged == SHOAL_STAGED_MAX) {
        shoal_writer_flush(&outbox->writer);
        return future;
    }
    if (!shoal_ring_seems_watched(outbox->writer.watched))
        shoal_mail_announce(mail, outbox->writer.to);
    if (!shoal_list_linked(&outbox->reader.node))
        shoal_mail_watch(&mail->watched_outboxes, &outbox->reader);
    return future;
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
    int rc = shoal_outbox_wait_credit(mail, outbox, what->timeout_ns);
    if (rc < 0)
        return refuse(what, rc == -ENOBUFS
                                ? shoal_future_failed(rc, "%u messages to core %u are in flight",
                                                      outbox->credits_max, what->to)
                                : shoal_future_failed(rc, NULL));
    struct shoal_future *future = shoal_future_new();
    if (SHOAL_UNLIKELY(future == mail->core->no_memory)) {
        shoal_outbox_wake_waiter(mail, outbox); /* this one's turn is the next one's */
        return no_memory(what);
    }
    uint16_t id = id_take(outbox, future);
    if (what->arg_free.fn != NULL) {
        outbox->arg_frees[id & outbox->mask] = what->arg_free;
        outbox->waiting[id & outbox->mask] = shoal_marked(future, SHOAL_MARK_ARG_FREE);
    }
    struct shoal_request_slot *slot = next_slot(outbox);
    slot->call = what->call;
    slot->deadline_ns = what->deadline_ns;
    if (slot_publish(mail, outbox, slot, shoal_request_info(id, what->kind)))
        (void)published_slowly(mail, outbox, future);
    shoal_outbox_wake_waiter(mail, outbox); /* each in the line wakes the next */
    return future;
}

static SHOAL_NOINLINE struct shoal_future *submit_slow(struct shoal_mail *mail, struct submit *what)
{
    if (SHOAL_UNLIKELY(what->to >= mail->cores))
        return refuse(what, shoal_future_failed(SHOAL_ENOCORE,
                                                "core %u does not exist (allowed: 0 to %u)",
                                                what->to, mail->cores - 1));
    if (SHOAL_UNLIKELY(mail->closed))
        return refuse(what, shoal_future_failed(SHOAL_ESTOPPING, NULL));
    return what->to == mail->core->id ? submit_local(mail, what) : submit_remote(mail, what);
}

static SHOAL_NOINLINE struct shoal_future *submit_call(unsigned to, enum shoal_request_kind kind,
                                                       const struct shoal_call *call)
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

/* False: what is not the plain case has to look for a future. */
static inline bool future_at_hand(const struct shoal_core *core)
{
#ifdef SHOAL_SLAB_CHECKED
    (void)core;
    return true;
#else
    return core->hot.futures.free != NULL;
#endif
}

static SHOAL_NOINLINE struct shoal_future *submit_slowly(unsigned core, shoal_submit_fn *fn,
                                                         void *arg, enum shoal_request_kind kind)
{
    struct shoal_call call = {.fn.plain = fn, .arg = arg};
    return submit_call(core, kind, &call);
}

/* Inlined into each public call. The plain case saves no register: each store in it counts. */
static inline __attribute__((always_inline)) struct shoal_future *
submit_now(unsigned core, enum shoal_request_kind kind, shoal_submit_fn *fn, void *arg,
           const void *place)
{
    struct shoal_mail *mail = shoal_mail_self();
    struct shoal_outbox *outbox = open_outbox(mail, core);
    if (SHOAL_UNLIKELY(outbox == NULL || !future_at_hand(mail->core)))
        return submit_slowly(core, fn, arg, kind);
    struct shoal_future *future = shoal_future_take(mail->core, place);
    if (SHOAL_UNLIKELY(future == NULL))
        return submit_slowly(core, fn, arg, kind);
    uint64_t deadline_ns = current_deadline_ns(mail->core);
    uint16_t id = id_take(outbox, future);
    struct shoal_request_slot *slot = next_slot(outbox);
    slot->call.fn.plain = fn;
    slot->call.arg = arg;
    slot->deadline_ns = deadline_ns;
    if (SHOAL_UNLIKELY(slot_publish(mail, outbox, slot, shoal_request_info(id, kind))))
        return published_slowly(mail, outbox, future);
    return future;
}

struct shoal_future *shoal_submit_to(unsigned core, shoal_submit_fn *fn, void *arg)
{
    return submit_now(core, SHOAL_REQUEST_PLAIN, fn, arg, __builtin_return_address(0));
}

struct shoal_future *shoal_submit_fiber_to(unsigned core, shoal_submit_fiber_fn *fn, void *arg)
{
    return submit_now(core, SHOAL_REQUEST_FIBER, fn, arg, __builtin_return_address(0));
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
    unsigned functions = (call->fn != NULL) + (call->fiber_fn != NULL) + (call->future_fn != NULL);
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
