/*
 * Signals, and the orderly stop: see app.h for its order.
 *
 * Fibers are cancelled and messages drained in rounds over all cores, which never wait for one
 * core alone: what it does may wait for another that has not been told to cancel yet.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/signal_impl.h"

#include "shoal/smp/launch_impl.h"

#define QUIESCE_LOOK_NS     (SHOAL_NS_PER_MS)
#define QUIESCE_ROUNDS_FAST 4
#define QUIESCE_GRACE_NS    (5 * SHOAL_NS_PER_S)
#define EXIT_BY_SIGNAL      128

/* ---- Being asked to stop ---- */

/*
 * Blocked until core 0 subscribes, so that a signal which comes during the start is not lost, and
 * on all other threads for good: core 0's takes them.
 */
void shoal_signals_block(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGQUIT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    /* Inherited, it would have the kernel throw away the exit status of children. */
    struct sigaction child;
    if (sigaction(SIGCHLD, NULL, &child) == 0 && child.sa_handler == SIG_IGN)
        signal(SIGCHLD, SIG_DFL);
}

static void on_stop_signal(struct shoal_signal *signal)
{
    signal->count = 0;
    if (shoal_launch_current->stop_requested)
        _exit(EXIT_BY_SIGNAL + signal->number);
    SHOAL_INFO("stopping (%s)", signal->number == SIGINT ? "SIGINT" : "SIGTERM");
    shoal_stop_request();
}

static void on_quit_signal(struct shoal_signal *signal)
{
    signal->count = 0;
    shoal_inspect_print();
}

int shoal_signals_start(struct shoal_launch *launch)
{
    int rc = shoal_signal_hook(&launch->interrupt, SIGINT, on_stop_signal);
    if (rc == 0)
        rc = shoal_signal_hook(&launch->terminate, SIGTERM, on_stop_signal);
    return rc < 0 ? rc : shoal_signal_hook(&launch->quit, SIGQUIT, on_quit_signal);
}

struct stop_waiter {
    struct shoal_list node;
    struct shoal_fiber *fiber;
    bool cancelled;
};

static void cancel_stop_wait(struct shoal_fiber *fiber)
{
    struct stop_waiter *waiter = fiber->wait_ctx;
    waiter->cancelled = true;
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

int shoal_stop_wait(void)
{
    struct shoal_launch *launch = shoal_launch_current;
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core->id == 0 && core->fiber != NULL, "a stop is waited for on a fiber of core 0");
    if (shoal_fiber_cancelled_now(core->fiber))
        return core->fiber->cancel_code;
    struct stop_waiter waiter = {.fiber = core->fiber};
    shoal_list_push_back(&launch->stop_waiters, &waiter.node);
    shoal_fiber_wait_begin(core->fiber, "stop", cancel_stop_wait, &waiter);
    while (!launch->stop_requested && !waiter.cancelled)
        shoal_fiber_park(core, core->fiber);
    shoal_fiber_wait_end(core->fiber);
    shoal_list_remove(&waiter.node);
    return waiter.cancelled ? core->fiber->cancel_code : 0;
}

static void request_here(struct shoal_launch *launch)
{
    launch->stop_requested = true;
    SHOAL_LIST_FOREACH (node, &launch->stop_waiters)
        shoal_fiber_make_ready(shoal_core_self,
                               SHOAL_CONTAINER_OF(node, struct stop_waiter, node)->fiber);
}

static void requested_elsewhere(struct shoal_task *task)
{
    request_here(SHOAL_CONTAINER_OF(task, struct shoal_launch, stop_task));
}

void shoal_stop_post(struct shoal_launch *launch)
{
    /* relaxed: one of many that ask posts the task, and the task carries nothing. */
    if (atomic_exchange_explicit(&launch->stop_posted, true, memory_order_relaxed))
        return;
    launch->stop_task.run = requested_elsewhere;
    shoal_core_post_foreign(launch->fleet.core[0], &launch->stop_task);
}

void shoal_stop_request(void)
{
    struct shoal_launch *launch = shoal_launch_current;
    SHOAL_CHECK(shoal_core_self != NULL, "a stop is requested on a thread that is no core");
    if (shoal_core_self->id == 0)
        request_here(launch);
    else
        shoal_stop_post(launch);
}

int shoal_at_stop(void (*stop)(void *arg), void *arg)
{
    SHOAL_CHECK_OWNER(0, "at_stop", "the program's stop hooks");
    struct shoal_stop_hook *hook = shoal_mem_alloc(sizeof(*hook));
    if (hook == NULL)
        return -ENOMEM;
    hook->stop = stop;
    hook->arg = arg;
    shoal_list_push_back(&shoal_launch_current->stop_hooks, &hook->node);
    return 0;
}

bool shoal_at_stop_cancel(void (*stop)(void *arg), void *arg)
{
    SHOAL_CHECK_OWNER(0, "at_stop_cancel", "the program's stop hooks");
    SHOAL_LIST_FOREACH_SAFE (node, &shoal_launch_current->stop_hooks) {
        struct shoal_stop_hook *hook = SHOAL_CONTAINER_OF(node, struct shoal_stop_hook, node);
        if (hook->stop != stop || hook->arg != arg)
            continue;
        shoal_list_remove(&hook->node);
        shoal_mem_free(hook, sizeof(*hook));
        return true;
    }
    return false;
}

/* ---- Stopping ---- */

static void stop_services(struct shoal_launch *launch)
{
    while (shoal_list_linked(&launch->stop_hooks)) {
        struct shoal_stop_hook *hook =
            SHOAL_CONTAINER_OF(launch->stop_hooks.prev, struct shoal_stop_hook, node);
        shoal_list_remove(&hook->node);
        hook->stop(hook->arg);
        shoal_mem_free(hook, sizeof(*hook));
    }
}

static void cancel_others(struct shoal_core *core)
{
    SHOAL_LIST_FOREACH_SAFE (node, &core->fibers.live) {
        struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        if (fiber != core->fiber)
            shoal_fiber_cancel(fiber);
    }
}

/* What a core still has to do, and how much it has been asked to do so far. */
struct tally {
    uint64_t work;
    uint64_t received;
    uint64_t foreign; /* the same of what foreign threads have posted */
};
SHOAL_STATIC_ASSERT(sizeof(struct tally) == sizeof(union shoal_value), "a tally is an answer");

/* Cancels all other fibers of this core; `out`: its tally. As a task, or on core 0's main fiber. */
static int quiesce(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_core *core = shoal_core_self;
    const struct shoal_mail *mail = shoal_mail_self();
    struct shoal_foreign_core *foreign = &shoal_launch_current->members[core->id]->foreign;
    core->stopping = true;
    cancel_others(core);
    shoal_foreign_cancel_all(foreign);
    const struct tally tally = {
        .work = shoal_fibers_running(core) - (core->fiber != NULL) + shoal_mail_in_flight(mail) +
                foreign->in_flight,
        .received = shoal_mail_received(mail),
        .foreign = foreign->received,
    };
    memcpy(out->bytes, &tally, sizeof(tally));
    return 0;
}

static void add_up(struct tally *sum, const union shoal_value *value)
{
    struct tally one;
    memcpy(&one, value->bytes, sizeof(one));
    sum->work += one.work;
    sum->received += one.received;
    sum->foreign += one.foreign;
}

/* One round over all cores. What threads have posted and no core has received yet is work, too. */
static struct tally quiesce_round(const struct shoal_launch *launch)
{
    struct tally sum = {0};
    union shoal_value found;
    (void)quiesce(NULL, &found);
    add_up(&sum, &found);
    for (unsigned i = 1; i < launch->fleet.cores; i++) {
        if (shoal_await(shoal_submit_to(i, quiesce, NULL), &found) == 0)
            add_up(&sum, &found);
        else
            sum.work++; /* no memory for the message: once more */
    }
    if (sum.foreign != shoal_foreign_posted())
        sum.work++;
    return sum;
}

static int name_busy(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    const struct shoal_core *core = shoal_core_self;
    SHOAL_LIST_FOREACH (node, &core->fibers.live) {
        const struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        if (fiber != core->fiber && fiber->state != SHOAL_FIBER_DONE)
            SHOAL_ERROR("fiber \"%s\" does not end although it was cancelled", fiber->name);
    }
    unsigned in_flight = shoal_mail_in_flight(shoal_mail_self());
    if (in_flight > 0)
        SHOAL_ERROR("%u messages have no answer", in_flight);
    in_flight = shoal_launch_current->members[core->id]->foreign.in_flight;
    if (in_flight > 0)
        SHOAL_ERROR("%u calls of foreign threads have no answer", in_flight);
    return 0;
}

/* The end of a program. A host goes on: it is told, and decides. */
static void give_up(struct shoal_launch *launch)
{
    union shoal_value unused;
    (void)name_busy(NULL, &unused);
    for (unsigned i = 1; i < launch->fleet.cores; i++)
        (void)shoal_await(shoal_submit_to(i, name_busy, NULL), NULL);
    if (!launch->hosted)
        _exit(1);
    launch->stuck(launch);
}

/*
 * Returns once no core has anything to do. That no core had in one round proves little: they are
 * asked one after the other, and what one had may have moved to another that was asked before. But
 * when in two rounds in a row none had, and none was asked anything between but by these rounds,
 * then nothing has moved.
 */
static void quiesce_all(struct shoal_launch *launch)
{
    uint64_t give_up_ns = shoal_now_ns() + QUIESCE_GRACE_NS;
    const uint64_t own_messages = launch->fleet.cores - 1;
    struct tally before = {.work = 1};
    for (unsigned round = 0;; round++) {
        struct tally now = quiesce_round(launch);
        if (now.work == 0 && before.work == 0 && now.received == before.received + own_messages)
            return;
        before = now;
        if (now.work > 0 && shoal_now_ns() > give_up_ns) {
            give_up(launch);
            give_up_ns = SHOAL_NS_FOREVER; /* said once */
        }
        (void)shoal_sleep_ns(round < QUIESCE_ROUNDS_FAST ? 0 : QUIESCE_LOOK_NS);
    }
}

void shoal_stop_all(struct shoal_launch *launch)
{
    launch->stop_requested = true;
    shoal_fiber_shield();
    stop_services(launch);
    shoal_foreign_close();
    quiesce_all(launch);
    shoal_fiber_unshield();
    shoal_mail_self()->closed = true;
    for (unsigned i = 1; i < launch->fleet.cores; i++)
        shoal_core_post_foreign(launch->fleet.core[i], &launch->members[i]->quit);
    shoal_core_quit(shoal_core_self);
}
