/*
 * One core's loop.
 *
 *   turn:  run tasks (until the queue is empty or the quota is spent)
 *          expire timers
 *          poll (messages, and what foreign threads have posted)
 *          I/O: submit, reap; with nothing at all to do: sleep here
 *
 * While tasks run, messages are looked at every TASKS_A_LOOK tasks, so that a busy core answers
 * within a few tasks and not only at the quota's end; timers and I/O, which may cost a system call,
 * at the first of those looks that comes IO_LOOK_NS after the last. (A look at I/O with each look
 * at messages made an io_uring server enter the kernel once for four requests in place of
 * seventeen.)
 *
 * Sleep: announce (an atomic exchange of `asleep`), look once more at everything that other threads
 * write, and only then block. Whoever publishes work does so by an atomic read-modify-write and
 * then reads `asleep`: of the two, at least one sees the other. Pairs with shoal_core_wake().
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/log.h"

#define TASKS_A_LOOK 4
#define IO_LOOK_NS   (100 * SHOAL_NS_PER_US)

_Thread_local struct shoal_core *shoal_core_self;

int shoal_core_id(void)
{
    return shoal_context_core;
}

const char *shoal_core_io_backend(void)
{
    return shoal_core_self->io.ops->name;
}

bool shoal_core_stopping(void)
{
    return shoal_core_self->stopping;
}

void shoal_task_post(struct shoal_task *task)
{
    shoal_core_post(shoal_core_self, task);
}

bool shoal_need_preempt(void)
{
    return shoal_cycles() >= shoal_core_self->preempt_cycles;
}

/* ---- Work from other threads ---- */

void shoal_core_wake(struct shoal_core *core)
{
    /* Pairs with the exchange in may_sleep(): the caller's publishing RMW comes before this load
     * in the single order of seq_cst operations, the sleeper's exchange before its last look. */
    if (!atomic_load_explicit(&core->shared.asleep, memory_order_seq_cst))
        return;
    if (!atomic_exchange_explicit(&core->shared.asleep, false, memory_order_seq_cst))
        return; /* somebody else wakes it */
    const uint64_t one = 1;
    ssize_t rc = write(core->wake_fd, &one, sizeof(one));
    SHOAL_CHECK(rc == sizeof(one) || errno == EAGAIN, "eventfd: %s", strerror(errno));
}

void shoal_core_post_foreign(struct shoal_core *core, struct shoal_task *task)
{
    struct shoal_task *head = atomic_load_explicit(&core->shared.foreign, memory_order_relaxed);
    do {
        task->next = head;
        /* seq_cst: release for the task's contents, and the RMW that shoal_core_wake() asks for.
         * Pairs with the exchange in take_foreign(). */
    } while (!atomic_compare_exchange_weak_explicit(&core->shared.foreign, &head, task,
                                                    memory_order_seq_cst, memory_order_relaxed));
    shoal_core_wake(core);
}

static bool foreign_pending(struct shoal_core *core)
{
    return atomic_load_explicit(&core->shared.foreign, memory_order_seq_cst) != NULL;
}

static void take_foreign(struct shoal_core *core)
{
    if (SHOAL_LIKELY(atomic_load_explicit(&core->shared.foreign, memory_order_relaxed) == NULL))
        return;
    /* acquire: pairs with the compare-exchange in shoal_core_post_foreign(). */
    struct shoal_task *stack =
        atomic_exchange_explicit(&core->shared.foreign, NULL, memory_order_acquire);
    struct shoal_task *in_order = NULL;
    while (stack != NULL) {
        struct shoal_task *next = stack->next;
        stack->next = in_order;
        in_order = stack;
        stack = next;
    }
    while (in_order != NULL) {
        struct shoal_task *next = in_order->next;
        shoal_core_post(core, in_order);
        in_order = next;
    }
}

/* ---- The loop ---- */

static void poll_messages(struct shoal_core *core)
{
    take_foreign(core);
    SHOAL_LIST_FOREACH (node, &core->pollers) {
        struct shoal_poller *poller = SHOAL_CONTAINER_OF(node, struct shoal_poller, node);
        if (poller->poll(poller))
            core->last_active_ns = core->now_ns;
    }
}

void shoal_core_read_clock(struct shoal_core *core)
{
    core->now_ns = core->clock->now_ns(core->clock);
}

/* Between tasks, once they have run for a while: what has come due, and I/O that is ready. */
static void look_at_io(struct shoal_core *core)
{
    shoal_core_read_clock(core);
    shoal_timer_wheel_expire(&core->timers, core->now_ns);
    if (core->io.ops->pending(core))
        core->io.ops->poll(core, 0);
}

static void run_tasks(struct shoal_core *core)
{
    uint64_t start = shoal_cycles();
    core->preempt_cycles = start + core->quota_cycles;
    uint64_t io_look_cycles = start + core->io_look_cycles;
    unsigned until_look = TASKS_A_LOOK;
    struct shoal_task *task;
    while ((task = shoal_task_queue_take(&core->ready)) != NULL) {
        __builtin_prefetch(core->ready.head); /* the next task's object, if it has gone cold */
        core->stall.progress++;
        task->run(task);
        if (--until_look > 0)
            continue;
        until_look = TASKS_A_LOOK;
        poll_messages(core);
        uint64_t now = shoal_cycles();
        if (now >= core->preempt_cycles)
            break;
        if (now >= io_look_cycles) {
            look_at_io(core);
            io_look_cycles = now + core->io_look_cycles;
        }
    }
}

/* Whether the core may block; then `asleep` is announced and nothing can have been missed. */
static bool may_sleep(struct shoal_core *core)
{
    /* Pairs with the load in shoal_core_wake(). */
    atomic_exchange_explicit(&core->shared.asleep, true, memory_order_seq_cst);
    bool work = foreign_pending(core);
    SHOAL_LIST_FOREACH (node, &core->pollers) {
        struct shoal_poller *poller = SHOAL_CONTAINER_OF(node, struct shoal_poller, node);
        work |= poller->pending(poller);
    }
    if (work)
        atomic_store_explicit(&core->shared.asleep, false, memory_order_relaxed);
    return !work;
}

/* How long this turn's I/O phase may wait: 0 while there is anything else to do. */
static uint64_t idle_wait_ns(struct shoal_core *core)
{
    if (core->ready.head != NULL || core->config.poll_mode || core->quit)
        return 0;
    uint64_t next_ns = shoal_timer_wheel_next_ns(&core->timers);
    if (next_ns <= core->now_ns)
        return 0;
    /* Messages came or went just now: an answer by spinning beats a sleep and a wake-up. */
    if (core->now_ns - core->last_active_ns < core->config.idle_poll_ns)
        return 0;
    return next_ns == SHOAL_NS_FOREVER ? SHOAL_NS_FOREVER : next_ns - core->now_ns;
}

static void io_phase(struct shoal_core *core)
{
    uint64_t wait_ns = idle_wait_ns(core);
    if (wait_ns == 0 || !may_sleep(core)) {
        core->io.ops->poll(core, 0);
        return;
    }
    core->counters.sleeps++;
    core->io.ops->poll(core, wait_ns);
    atomic_store_explicit(&core->shared.asleep, false, memory_order_relaxed);
}

static void turn(struct shoal_core *core)
{
    shoal_core_read_clock(core);
    core->counters.turns++;
    core->stall.progress++;
    shoal_timer_wheel_expire(&core->timers, core->now_ns);
    run_tasks(core);
    poll_messages(core);
    io_phase(core);
}

void shoal_core_run(struct shoal_core *core)
{
    while (!core->quit || core->ready.head != NULL)
        turn(core);
}

void shoal_core_quit(struct shoal_core *core)
{
    core->quit = true;
}

/* ---- Life ---- */

static int open_io(struct shoal_core *core, char *error, size_t error_size)
{
    core->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (core->wake_fd < 0) {
        int rc = -errno;
        snprintf(error, error_size, "eventfd: %s", strerror(errno));
        return rc;
    }
    int rc = core->io.ops->open(core, error, error_size);
    if (rc < 0)
        close(core->wake_fd);
    return rc;
}

int shoal_core_init(struct shoal_core *core, const struct shoal_core_config *config, char *error,
                    size_t error_size)
{
    memset(core, 0, sizeof(*core));
    core->config = *config;
    core->id = config->id;
    core->clock = config->clock != NULL ? config->clock : &shoal_clock_system;
    core->io.ops = config->io;
    uint64_t cycles_per_ms = shoal_clock_cycles_per_ms();
    core->quota_cycles = config->task_quota_ns * cycles_per_ms / SHOAL_NS_PER_MS;
    core->io_look_cycles = IO_LOOK_NS * cycles_per_ms / SHOAL_NS_PER_MS;
    shoal_core_self = core;
    shoal_context_core = (int)config->id;
    shoal_mem_init(&core->mem, config->memory_limit_bytes);
    shoal_task_queue_init(&core->ready);
    shoal_list_init(&core->pollers);
    shoal_core_read_clock(core);
    shoal_timer_wheel_init(&core->timers, core->now_ns);
    shoal_bufpool_init(&core->buffers);
    shoal_slab_init(&core->slices, "slice", sizeof(struct shoal_slice), 16);
    shoal_fibers_init(core, config->fiber_stack_bytes);
    int rc = open_io(core, error, error_size);
    if (rc == 0) {
        rc = shoal_futures_init(core);
        if (rc < 0) {
            snprintf(error, error_size, "out of memory");
            core->io.ops->close(core);
            close(core->wake_fd);
        }
    }
    if (rc < 0) {
        shoal_bufpool_deinit(&core->buffers);
        (void)shoal_fibers_deinit(core);
        shoal_core_self = NULL;
        shoal_context_core = -1;
        return rc;
    }
    shoal_blocking_init(core);
    shoal_stall_start(core, config->stall_notify_ns);
    return 0;
}

unsigned shoal_core_deinit(struct shoal_core *core)
{
    shoal_stall_stop(core);
    shoal_blocking_deinit(core);
    if (core->timers.armed > 0)
        SHOAL_WARN("%llu timers were armed at the end and will not fire",
                   (unsigned long long)core->timers.armed);
    for (unsigned i = SHOAL_LAYER_COUNT; i-- > 0;)
        if (core->layer_end[i] != NULL)
            core->layer_end[i](core);
    core->io.ops->close(core);
    unsigned leaked = shoal_futures_deinit(core);
    leaked += shoal_fibers_deinit(core);
    shoal_bufpool_deinit(&core->buffers);
    leaked += shoal_slab_deinit(&core->slices);
    close(core->wake_fd);
    shoal_core_self = NULL;
    shoal_context_core = -1;
    return leaked;
}
