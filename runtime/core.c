/*
 * One core's loop.
 *
 *   turn:  read the clock, expire timers
 *          run tasks, group by group (until nothing is ready or the quota is spent)
 *          poll (messages, and what foreign threads have posted)
 *          I/O: submit, reap; with nothing at all to do: sleep here
 *
 * While tasks run, messages are looked at after every batch of them, so that a busy core answers
 * within a few tasks and not only at the quota's end. A batch is up to BATCH_MAX tasks, and fewer
 * while they are long: as many as take about LOOK_NS. (Reading the cycle counter costs as much as
 * two short tasks, so it is not read for each.) Timers and I/O, which may cost a system call, are
 * looked at after the first batch that ends IO_LOOK_NS after the last look. (A look at I/O with
 * each look at messages made an io_uring server enter the kernel once for four requests in place
 * of seventeen.)
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
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/sync_impl.h"

#define BATCH_MAX         32
#define LOOK_NS           (4 * SHOAL_NS_PER_US)
#define IO_LOOK_NS        (100 * SHOAL_NS_PER_US)
#define CAREFUL_LOOKS     8 /* for each LOOK_NS that a batch took */
#define CAREFUL_LOOKS_MAX 1024

#define IO_REST_NS (5 * SHOAL_NS_PER_US)

#define SPIN_CLOCK_ROUNDS 32
#define SPIN_FOUND_ROUNDS 4
#define SPIN_EAGER_ROUNDS 256
#define SPIN_SHARE_MIN    32

__thread struct shoal_core *shoal_core_self;

int shoal_core_id(void)
{
    return shoal_context_core;
}

const char *shoal_core_io_backend(void)
{
    SHOAL_CHECK_ON_CORE("core_io_backend");
    return shoal_core_self->io.ops->name;
}

bool shoal_core_stopping(void)
{
    SHOAL_CHECK_ON_CORE("core_stopping");
    return shoal_core_self->stopping;
}

void shoal_task_post(struct shoal_task *task)
{
    SHOAL_CHECK_ON_CORE("task_post");
    shoal_core_post(shoal_core_self, task);
}

bool shoal_need_preempt(void)
{
    SHOAL_CHECK_ON_CORE("need_preempt");
    return shoal_cycles() >= shoal_core_self->hot.preempt_cycles;
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
    core->last_active_ns = core->now_ns;
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

/* Whether there were any. */
static bool poll_messages(struct shoal_core *core)
{
    bool found = false;
    take_foreign(core);
    SHOAL_LIST_FOREACH (node, &core->pollers) {
        struct shoal_poller *poller = SHOAL_CONTAINER_OF(node, struct shoal_poller, node);
        found |= poller->poll(poller);
    }
    if (found)
        core->last_active_ns = core->now_ns;
    return found;
}

void shoal_core_read_clock(struct shoal_core *core)
{
    core->now_ns = shoal_core_clock_ns(core, shoal_cycles());
}

static bool anything_ready(const struct shoal_core *core)
{
    return core->current->ready.head != NULL || shoal_sched_others_wait(core);
}

/* What came in from outside, looked at in the middle of a group's slice: it is the main group's. */
static void look(struct shoal_core *core, bool at_io)
{
    struct shoal_sched_group *running = core->current;
    shoal_sched_set_current(core, &core->groups[0]);
    poll_messages(core);
    if (at_io) {
        shoal_timer_wheel_expire(&core->timers, core->now_ns);
        if (core->io.ops->pending(core))
            core->io.ops->poll(core, 0);
    }
    shoal_sched_set_current(core, running);
    shoal_sched_note_main(core);
}

/*
 * Long tasks get smaller batches, short ones larger. After one that took very long the batches stay
 * at one task for a while, as long as the looks cost little beside what it took: long ones that are
 * rare among short ones must not meet in one batch.
 */
static void adapt_batch(struct shoal_core *core, uint64_t took_cycles)
{
    if (took_cycles > 4 * core->look_cycles) {
        uint64_t looks = CAREFUL_LOOKS * took_cycles / core->look_cycles;
        core->batch = 1;
        core->careful_looks = looks < CAREFUL_LOOKS_MAX ? (uint32_t)looks : CAREFUL_LOOKS_MAX;
    } else if (took_cycles > core->look_cycles) {
        core->batch = (core->batch + 1) / 2;
    } else if (core->careful_looks > 0) {
        core->careful_looks--;
    } else if (2 * took_cycles < core->look_cycles && core->batch < BATCH_MAX) {
        core->batch *= 2;
    }
}

/* Runs tasks of the current group until there are none or its time is up; returns the time. */
static uint64_t run_slice(struct shoal_core *core, uint64_t now_cycles, uint64_t *io_look_at)
{
    for (;;) {
        core->budget = core->batch;
        core->stall.progress++;
        struct shoal_task *task;
        while (core->budget > 0 && (task = shoal_task_queue_take(&core->current->ready)) != NULL) {
            core->budget--;
            if (task->next != NULL)
                __builtin_prefetch(task->next); /* it may have gone cold */
            task->run(task);
        }
        core->current->tasks += core->batch - core->budget;
        uint64_t before_cycles = now_cycles;
        now_cycles = shoal_cycles();
        adapt_batch(core, now_cycles - before_cycles);
        bool at_io = now_cycles >= *io_look_at;
        if (at_io) {
            core->now_ns = shoal_core_clock_ns(core, now_cycles);
            *io_look_at = now_cycles + core->io_look_cycles;
        }
        look(core, at_io);
        if (core->current->ready.head == NULL || now_cycles >= core->hot.preempt_cycles)
            return now_cycles;
        if (shoal_sched_others_wait(core) &&
            now_cycles - core->slice_start_cycles >= core->io_look_cycles)
            return now_cycles;
    }
}

static void run_tasks(struct shoal_core *core, uint64_t now_cycles)
{
    uint64_t io_look_at = now_cycles + core->io_look_cycles;
    core->hot.preempt_cycles = now_cycles + core->quota_cycles;
    while (shoal_sched_pick(core, now_cycles) != NULL) {
        now_cycles = run_slice(core, now_cycles, &io_look_at);
        shoal_sched_leave(core, now_cycles);
        core->now_ns = shoal_core_clock_ns(core, now_cycles);
        if (now_cycles >= core->hot.preempt_cycles)
            break;
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

/* Whether an idle core looks for messages for a while rather than sleep. */
static bool spins(const struct shoal_core *core)
{
    if (SHOAL_UNLIKELY(core->clock->wait_ns != NULL))
        return false; /* it may stand still */
    return core->now_ns - core->last_active_ns < core->spin_ns || core->config.poll_mode;
}

/* How long this turn's I/O phase may wait: 0 while there is anything else to do. */
static uint64_t idle_wait_ns(struct shoal_core *core)
{
    if (anything_ready(core) || core->quit)
        return 0;
    uint64_t next_ns = shoal_timer_wheel_next_ns(&core->timers);
    if (SHOAL_UNLIKELY(core->clock->wait_ns != NULL))
        return core->clock->wait_ns(core->clock, core, next_ns);
    if (next_ns <= core->now_ns)
        return 0;
    return next_ns == SHOAL_NS_FOREVER ? SHOAL_NS_FOREVER : next_ns - core->now_ns;
}

/* Looks at I/O without waiting; not often where each look is a system call. */
static void look_at_io(struct shoal_core *core)
{
    const struct shoal_io_ops *ops = core->io.ops;
    if (!ops->pending_known && core->now_ns - core->io_looked_ns < IO_REST_NS)
        return;
    if (!ops->pending(core))
        return;
    core->io_looked_ns = core->now_ns;
    ops->poll(core, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Plain requests run inside a round of a spin, and may take their time. */
static bool took_long(const struct shoal_core *core, uint64_t since_cycles)
{
    return shoal_cycles() - since_cycles >= core->look_cycles;
}

/*
 * Nothing is ready, but messages came or went just now: an answer by spinning beats a sleep and a
 * wake-up. Looks at messages until one brings work, or a timer is due, or `spin_ns` after the last
 * one. How long is worth it is learned: a spin in vain halves it.
 */
static void spin(struct shoal_core *core)
{
    uint64_t looked_cycles = shoal_cycles();
    look_at_io(core);
    for (unsigned round = 1; !anything_ready(core) && !core->quit; round++) {
        bool found = poll_messages(core);
        if (round % SPIN_CLOCK_ROUNDS == 0 ||
            (found && round % SPIN_FOUND_ROUNDS == 0 && took_long(core, looked_cycles))) {
            looked_cycles = shoal_cycles();
            shoal_core_read_clock(core);
            core->stall.progress++;
            look_at_io(core);
            if (core->now_ns >= shoal_timer_wheel_next_ns(&core->timers))
                return;
            if (!spins(core)) {
                core->spin_ns = core->spin_ns / 2 + core->config.idle_poll_ns / SPIN_SHARE_MIN;
                return;
            }
        }
        if (round > SPIN_EAGER_ROUNDS)
            relax();
    }
    core->spin_ns = core->config.idle_poll_ns;
}

static void io_phase(struct shoal_core *core)
{
    uint64_t wait_ns = idle_wait_ns(core);
    if (wait_ns > 0 && spins(core)) {
        spin(core);
    } else if (wait_ns > 0 && may_sleep(core)) {
        core->counters.sleeps++;
        core->io.ops->poll(core, wait_ns);
        atomic_store_explicit(&core->shared.asleep, false, memory_order_relaxed);
    } else {
        look_at_io(core);
    }
}

static void turn(struct shoal_core *core)
{
    uint64_t now_cycles = shoal_cycles();
    core->now_ns = shoal_core_clock_ns(core, now_cycles);
    core->counters.turns++;
    core->stall.progress++;
    shoal_timer_wheel_expire(&core->timers, core->now_ns);
    run_tasks(core, now_cycles);
    poll_messages(core);
    io_phase(core);
}

void shoal_core_run(struct shoal_core *core)
{
    while (!core->quit || anything_ready(core))
        turn(core);
}

unsigned shoal_core_drain(struct shoal_core *core)
{
    unsigned ran = 0;
    for (take_foreign(core); anything_ready(core); take_foreign(core)) {
        uint64_t now_cycles = shoal_cycles();
        while (shoal_sched_pick(core, now_cycles) != NULL) {
            struct shoal_task *task;
            while ((task = shoal_task_queue_take(&core->current->ready)) != NULL) {
                ran++;
                task->run(task);
            }
            shoal_sched_leave(core, now_cycles);
        }
    }
    return ran;
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
    shoal_tsc_init(&core->tsc);
    core->quota_cycles = shoal_tsc_cycles(&core->tsc, config->task_quota_ns);
    core->io_look_cycles = shoal_tsc_cycles(&core->tsc, IO_LOOK_NS);
    core->look_cycles = shoal_tsc_cycles(&core->tsc, LOOK_NS);
    core->batch = BATCH_MAX;
    core->spin_ns = config->idle_poll_ns;
    shoal_core_self = core;
    shoal_context_core = (int)config->id;
    shoal_mem_init(&core->mem, config->memory_limit_bytes);
    shoal_sched_init(core);
    shoal_list_init(&core->pollers);
    shoal_core_read_clock(core);
    shoal_timer_wheel_init(&core->timers, core->now_ns);
    shoal_bufpool_init(&core->buffers);
    shoal_slab_init(&core->slices, "slice", sizeof(struct shoal_slice), 16);
    shoal_waiters_init(core);
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
    shoal_text_free(core->explanation);
    core->explanation = NULL;
    unsigned leaked = shoal_combine_pool_deinit(&core->combines);
    leaked += shoal_futures_deinit(core);
    leaked += shoal_fibers_deinit(core);
    shoal_bufpool_deinit(&core->buffers);
    leaked += shoal_slab_deinit(&core->slices);
    leaked += shoal_waiters_deinit(core);
    close(core->wake_fd);
    shoal_core_self = NULL;
    shoal_context_core = -1;
    return leaked;
}
