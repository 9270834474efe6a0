/*
 * Signals: see signal.h.
 *
 *   kernel -> on_signal(), any thread -> receiver of each core that wants it: counters, a task
 *          -> drain(), from that core's loop -> subscriptions -> waiters and hooks
 *
 * Dispositions belong to the process, so what is here is global: the list of receivers (one for
 * each core that ever subscribed), and what each signal's disposition was before.
 *
 * 1. The handler runs on any thread, also in the middle of this file, and takes no lock: receivers
 *    are counters and a list that is changed only by atomic stores.
 * 2. A receiver leaves the list at its core's end, and is freed once no handler is under way
 *    (`in_handler`): none that starts later can find it.
 * 3. `wanted` is set before the handler is installed: the first delivery counts.
 *
 * Rejected: signalfd. A signal must then be blocked in every thread, also in those that libraries
 * start; its default action is lost with that, and a program that a library starts inherits the
 * blocked mask.
 */
#include "shoal/runtime/signal.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include <pthread.h>
#include <sched.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/event_wait_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/signal_impl.h"

#define NUMBERS 65 /* 1 to 64 */

struct receiver {
    struct shoal_task task;
    struct shoal_core *core;
    _Atomic(struct receiver *) next;
    _Atomic bool queued; /* the task is on its way */
    _Atomic uint64_t wanted;
    _Atomic uint32_t arrived[NUMBERS];

    /* The core's alone. */
    struct shoal_list subscriptions;
    uint64_t was_blocked; /* unblocked on the core's thread by a subscription */
};

/* The process's. `lock` guards all but what the handler reads. */
static struct {
    pthread_mutex_t lock;
    _Atomic(struct receiver *) receivers;
    atomic_uint in_handler;
    struct {
        unsigned users; /* cores */
        struct sigaction before;
    } taken[NUMBERS];
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t bit_of(int number)
{
    return UINT64_C(1) << (number - 1);
}

/* ---- In the handler ---- */

static void on_signal(int number)
{
    int saved_errno = errno;
    /* seq_cst here and below: pairs with the load in receiver_end(). */
    atomic_fetch_add_explicit(&process.in_handler, 1, memory_order_seq_cst);
    struct receiver *receiver = atomic_load_explicit(&process.receivers, memory_order_seq_cst);
    while (receiver != NULL) {
        if ((atomic_load_explicit(&receiver->wanted, memory_order_relaxed) & bit_of(number)) != 0) {
            /* Before `queued` is tested; pairs with the exchanges in drain(). */
            atomic_fetch_add_explicit(&receiver->arrived[number], 1, memory_order_release);
            if (!atomic_exchange_explicit(&receiver->queued, true, memory_order_acq_rel))
                shoal_core_post_foreign(receiver->core, &receiver->task);
        }
        receiver = atomic_load_explicit(&receiver->next, memory_order_acquire);
    }
    atomic_fetch_sub_explicit(&process.in_handler, 1, memory_order_seq_cst);
    errno = saved_errno;
}

/* ---- On the core ---- */

static int take_count(struct shoal_signal *signal)
{
    int count = signal->count > INT_MAX ? INT_MAX : (int)signal->count;
    signal->count -= (uint64_t)count;
    return count;
}

static void deliver(struct shoal_signal *signal)
{
    if (signal->hook != NULL)
        signal->hook(signal);
    else if (shoal_list_linked(&signal->waiters))
        (void)shoal_event_end_first(&signal->waiters, take_count(signal));
}

/* From the start each time: a hook may unsubscribe any of them. */
static struct shoal_signal *find_fresh(const struct receiver *receiver)
{
    SHOAL_LIST_FOREACH (node, &receiver->subscriptions) {
        struct shoal_signal *signal = SHOAL_CONTAINER_OF(node, struct shoal_signal, node);
        if (signal->fresh)
            return signal;
    }
    return NULL;
}

static void drain(struct shoal_task *task)
{
    struct receiver *receiver = SHOAL_CONTAINER_OF(task, struct receiver, task);
    atomic_exchange_explicit(&receiver->queued, false, memory_order_acq_rel);
    uint32_t arrived[NUMBERS];
    for (int i = 1; i < NUMBERS; i++)
        arrived[i] = atomic_exchange_explicit(&receiver->arrived[i], 0, memory_order_acquire);
    SHOAL_LIST_FOREACH (node, &receiver->subscriptions) {
        struct shoal_signal *signal = SHOAL_CONTAINER_OF(node, struct shoal_signal, node);
        signal->count += arrived[signal->number];
        signal->fresh = arrived[signal->number] > 0;
    }
    struct shoal_signal *signal;
    while ((signal = find_fresh(receiver)) != NULL) {
        signal->fresh = false;
        deliver(signal);
    }
}

static void receiver_unlink(struct receiver *receiver)
{
    _Atomic(struct receiver *) *link = &process.receivers;
    struct receiver *found;
    while ((found = atomic_load_explicit(link, memory_order_relaxed)) != receiver)
        link = &found->next;
    atomic_store_explicit(link, atomic_load_explicit(&receiver->next, memory_order_relaxed),
                          memory_order_seq_cst);
}

/* At the core's end, when its loop has ended. */
static void receiver_end(struct shoal_core *core)
{
    struct receiver *receiver = core->layers[SHOAL_LAYER_SIGNAL];
    struct shoal_list *node;
    while ((node = receiver->subscriptions.next) != &receiver->subscriptions)
        shoal_signal_unsubscribe(SHOAL_CONTAINER_OF(node, struct shoal_signal, node));
    pthread_mutex_lock(&process.lock);
    receiver_unlink(receiver);
    pthread_mutex_unlock(&process.lock);
    while (atomic_load_explicit(&process.in_handler, memory_order_seq_cst) > 0)
        sched_yield();
    core->layers[SHOAL_LAYER_SIGNAL] = NULL;
    shoal_mem_free(receiver, sizeof(*receiver));
}

static struct receiver *receiver_of(struct shoal_core *core)
{
    struct receiver *receiver = core->layers[SHOAL_LAYER_SIGNAL];
    if (receiver != NULL)
        return receiver;
    receiver = shoal_mem_alloc_zeroed(sizeof(*receiver));
    if (receiver == NULL)
        return NULL;
    receiver->core = core;
    receiver->task.run = drain;
    shoal_list_init(&receiver->subscriptions);
    core->layers[SHOAL_LAYER_SIGNAL] = receiver;
    core->layer_end[SHOAL_LAYER_SIGNAL] = receiver_end;
    pthread_mutex_lock(&process.lock);
    atomic_store_explicit(&receiver->next,
                          atomic_load_explicit(&process.receivers, memory_order_relaxed),
                          memory_order_relaxed);
    /* Publishes the members; pairs with the load in on_signal(). */
    atomic_store_explicit(&process.receivers, receiver, memory_order_seq_cst);
    pthread_mutex_unlock(&process.lock);
    return receiver;
}

/* ---- Dispositions ---- */

static bool can_be_had(int number)
{
    static const int never[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                SIGTRAP, SIGSYS,  SIGABRT, 32,     33};
    if (number < 1 || number >= NUMBERS || number == SHOAL_STALL_SIGNAL ||
        number == SHOAL_PROBE_SIGNAL)
        return false;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(never); i++)
        if (number == never[i])
            return false;
    return true;
}

static int take_disposition(int number)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    int rc = 0;
    pthread_mutex_lock(&process.lock);
    if (process.taken[number].users == 0)
        rc = sigaction(number, &action, &process.taken[number].before);
    if (rc == 0)
        process.taken[number].users++;
    else
        rc = -errno;
    pthread_mutex_unlock(&process.lock);
    return rc;
}

static void give_disposition(int number)
{
    pthread_mutex_lock(&process.lock);
    if (--process.taken[number].users == 0)
        (void)sigaction(number, &process.taken[number].before, NULL);
    pthread_mutex_unlock(&process.lock);
}

/* Blocks or unblocks `number` on this thread; returns whether it was blocked before. */
static bool set_blocked(int number, bool block)
{
    sigset_t set;
    sigset_t before;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, &before);
    return sigismember(&before, number) == 1;
}

/* The core begins to want `number`, which it did not before. */
static int want(struct receiver *receiver, int number)
{
    uint64_t bit = bit_of(number);
    atomic_fetch_or_explicit(&receiver->wanted, bit, memory_order_seq_cst);
    int rc = take_disposition(number);
    if (rc < 0) {
        atomic_fetch_and_explicit(&receiver->wanted, ~bit, memory_order_seq_cst);
        return rc;
    }
    receiver->was_blocked &= ~bit;
    if (set_blocked(number, false))
        receiver->was_blocked |= bit;
    return 0;
}

static void want_no_more(struct receiver *receiver, int number)
{
    uint64_t bit = bit_of(number);
    if ((receiver->was_blocked & bit) != 0)
        (void)set_blocked(number, true);
    give_disposition(number);
    atomic_fetch_and_explicit(&receiver->wanted, ~bit, memory_order_seq_cst);
    atomic_store_explicit(&receiver->arrived[number], 0, memory_order_relaxed);
}

static bool is_wanted(const struct receiver *receiver, int number)
{
    return (atomic_load_explicit(&receiver->wanted, memory_order_relaxed) & bit_of(number)) != 0;
}

/* ---- Subscriptions ---- */

int shoal_signal_hook(struct shoal_signal *signal, int number,
                      void (*hook)(struct shoal_signal *signal))
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL, "a signal is subscribed to on a thread that is no core");
    *signal = (struct shoal_signal){.hook = hook, .number = number, .core = (uint16_t)core->id};
    shoal_list_init(&signal->node);
    shoal_list_init(&signal->waiters);
    if (!can_be_had(number))
        return -EINVAL;
    struct receiver *receiver = receiver_of(core);
    if (receiver == NULL)
        return -ENOMEM;
    if (!is_wanted(receiver, number)) {
        int rc = want(receiver, number);
        if (rc < 0)
            return rc;
    }
    shoal_list_push_back(&receiver->subscriptions, &signal->node);
    return 0;
}

int shoal_signal_subscribe(struct shoal_signal *signal, int number)
{
    return shoal_signal_hook(signal, number, NULL);
}

static void check_mine(const struct shoal_signal *signal, const char *what)
{
    SHOAL_CHECK_OWNER(signal->core, what, "signal %d", signal->number);
    SHOAL_CHECK(shoal_list_linked(&signal->node), "a %s of signal %d, which is not subscribed to",
                what, signal->number);
}

void shoal_signal_unsubscribe(struct shoal_signal *signal)
{
    check_mine(signal, "unsubscribe");
    SHOAL_CHECK(!shoal_event_has_fiber(&signal->waiters),
                "signal %d is unsubscribed while a fiber waits for it", signal->number);
    struct receiver *receiver = shoal_core_self->layers[SHOAL_LAYER_SIGNAL];
    shoal_list_remove(&signal->node);
    shoal_event_end_all(&signal->waiters, -ECANCELED);
    SHOAL_LIST_FOREACH (node, &receiver->subscriptions)
        if (SHOAL_CONTAINER_OF(node, struct shoal_signal, node)->number == signal->number)
            return;
    want_no_more(receiver, signal->number);
}

int shoal_signal_next(struct shoal_signal *signal, uint64_t timeout_ns)
{
    check_mine(signal, "wait");
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    if (signal->count > 0 && fiber != NULL && shoal_fiber_cancel_code(fiber) == 0)
        return take_count(signal);
    return shoal_event_wait(&signal->waiters, "signal", timeout_ns);
}

struct shoal_future *shoal_signal_next_future(struct shoal_signal *signal)
{
    check_mine(signal, "wait");
    if (signal->count > 0)
        return shoal_future_ready(&(union shoal_value){.i64 = take_count(signal)});
    return shoal_event_future(&signal->waiters);
}

/* ---- Once ---- */

int shoal_signal_wait(int number, uint64_t timeout_ns)
{
    struct shoal_signal signal;
    int rc = shoal_signal_subscribe(&signal, number);
    if (rc < 0)
        return rc;
    rc = shoal_signal_next(&signal, timeout_ns);
    shoal_signal_unsubscribe(&signal);
    return rc > 0 ? 0 : rc;
}

struct once {
    struct shoal_signal signal;
    struct shoal_future *future;
};

static void once_end(struct once *once, int code)
{
    struct shoal_future *future = once->future;
    uint64_t count = once->signal.count;
    shoal_signal_unsubscribe(&once->signal);
    shoal_mem_free(once, sizeof(*once));
    if (code < 0)
        shoal_future_fail(future, code, NULL);
    else
        shoal_future_resolve(future, &(union shoal_value){.i64 = (int64_t)count});
}

static void once_delivered(struct shoal_signal *signal)
{
    once_end(SHOAL_CONTAINER_OF(signal, struct once, signal), 0);
}

static void once_cancel(void *ctx)
{
    once_end(ctx, -ECANCELED);
}

struct shoal_future *shoal_signal_future(int number)
{
    struct once *once = shoal_mem_alloc(sizeof(*once));
    if (once == NULL)
        return shoal_future_failed(-ENOMEM, NULL);
    int rc = shoal_signal_hook(&once->signal, number, once_delivered);
    if (rc < 0) {
        shoal_mem_free(once, sizeof(*once));
        return shoal_future_failed(rc, "signal %d cannot be waited for", number);
    }
    once->future = shoal_future_new();
    if (once->future == shoal_core_self->no_memory) {
        struct shoal_future *failed = once->future;
        shoal_signal_unsubscribe(&once->signal);
        shoal_mem_free(once, sizeof(*once));
        return failed;
    }
    shoal_future_on_cancel(once->future, once_cancel, once);
    return once->future;
}
