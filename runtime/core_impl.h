/*
 * One core: everything that its thread owns, and the loop that runs it.
 *
 * 1. `shoal_core_self` is the only way from a thread to its core, and the only mutable global of
 *    the library beside it is the process's log level.
 * 2. Only the fields below `shared` are touched by other threads.
 * 3. The layers above hang their own state into `layers`, and their polling into `pollers`, so
 *    that this layer knows no other core.
 *
 * A turn of the loop (core.c):  tasks -> timers -> pollers -> I/O (submit, wait, reap).
 */
#ifndef SHOAL_RUNTIME_CORE_IMPL_H
#define SHOAL_RUNTIME_CORE_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sys/types.h>

#include "shoal/runtime/blocking_impl.h"
#include "shoal/runtime/bufpool_impl.h"
#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/combine_pool_impl.h"
#include "shoal/runtime/context_impl.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/core_inline.h"
#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/future_inline.h"
#include "shoal/runtime/io_impl.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/mem_impl.h"
#include "shoal/runtime/sched_group_impl.h"
#include "shoal/runtime/slab_impl.h"
#include "shoal/runtime/stall_impl.h"
#include "shoal/runtime/task.h"
#include "shoal/runtime/timer_impl.h"

struct shoal_future;

enum shoal_core_layer {
    SHOAL_LAYER_SIGNAL,
    SHOAL_LAYER_PROCESS,
    SHOAL_LAYER_SMP,
    SHOAL_LAYER_SHARDED,
    SHOAL_LAYER_CORE_CHANNEL,
    SHOAL_LAYER_NET,
    SHOAL_LAYER_COUNT
};

/* Something of a higher layer that a turn of the loop looks at. Must not block, nor call users. */
struct shoal_poller {
    struct shoal_list node;
    bool (*poll)(struct shoal_poller *poller);    /* queues work; whether it found any */
    bool (*pending)(struct shoal_poller *poller); /* the last look before sleep: anything to do? */
};

struct shoal_core_config {
    unsigned id;
    uint64_t memory_limit_bytes;
    uint64_t task_quota_ns;
    uint64_t idle_poll_ns;      /* how long to spin at most for more messages after the last */
    uint64_t stall_notify_ns;   /* 0: no stall detector */
    uint32_t fiber_stack_bytes; /* 0: default */
    bool poll_mode;
    const struct shoal_clock *clock; /* NULL: the system's */
    const struct shoal_io_ops *io;
    const void *helper_cpus; /* cpu_set_t for threads of the blocking pool; NULL: inherit */
};

struct shoal_core_counters {
    uint64_t turns;
    uint64_t sleeps;
    uint64_t wakes_sent;
};

struct shoal_core {
    struct shoal_core_inline hot; /* first: what inlined code touches */
    struct shoal_fiber *fiber;    /* running now; NULL while the loop itself runs */
    void *loop_sp;
    struct shoal_sched_group *current;
    uint32_t budget;        /* tasks that may run before the next look at messages */
    uint32_t batch;         /* what `budget` begins with: fewer while tasks are long */
    uint32_t careful_looks; /* for how many looks the batches stay small */
    uint32_t ready_groups;
    uint64_t now_ns;
    uint64_t virtual_time;
    uint64_t slice_start_cycles;
    struct shoal_tsc tsc;
    struct shoal_slab slices;
    struct shoal_slab waiters; /* of futures, see sync_impl.h */
    struct shoal_fiber_pool fibers;
    struct shoal_combine_pool combines;

    unsigned id;
    bool stopping;
    bool quit;
    uint64_t quota_cycles;
    uint64_t io_look_cycles;
    uint64_t look_cycles;
    uint32_t select_random;  /* which of several ready sources of a select is next */
    uint64_t last_active_ns; /* when messages last came or went */
    uint64_t spin_ns;        /* how long to spin for more after that; adapts */
    uint64_t io_looked_ns;   /* when I/O was last looked at */
    char *explanation;       /* shoal_fiber_explain() of code that runs on no fiber */
    const struct shoal_clock *clock;
    struct shoal_core_config config;
    struct shoal_core_counters counters;

    struct shoal_sched_group groups[SHOAL_SCHED_GROUPS_MAX];
    struct shoal_io io;
    struct shoal_bufpool buffers;
    struct shoal_timer_wheel timers;
    struct shoal_mem mem;
    struct shoal_list pollers;
    struct shoal_blocking_pool blocking;
    struct shoal_stall stall;
    struct shoal_future *no_memory; /* what a call returns when it cannot allocate a future */
    void *layers[SHOAL_LAYER_COUNT];
    void (*layer_end[SHOAL_LAYER_COUNT])(struct shoal_core *core); /* frees it; may be NULL */

    /* Shared: written by other threads. */
    struct {
        _Atomic(struct shoal_task *) foreign; /* a stack of tasks pushed by other threads */
        _Atomic bool asleep;
    } shared __attribute__((aligned(SHOAL_CACHE_LINE)));
    int wake_fd; /* eventfd; read-only after the start */
};

SHOAL_STATIC_ASSERT(offsetof(struct shoal_core, hot) == 0, "inlined code finds it there");

/* Sets up the calling thread as a core. On failure nothing is left behind; `error` says why. */
int shoal_core_init(struct shoal_core *core, const struct shoal_core_config *config, char *error,
                    size_t error_size);

/* Runs turns until shoal_core_quit(). */
void shoal_core_run(struct shoal_core *core);

/* Asks the loop to return once nothing is ready. Own core only. */
void shoal_core_quit(struct shoal_core *core);

/*
 * Runs what is ready and what other threads have posted, until there is nothing more; how many
 * tasks that were. After shoal_core_run(), while no core tears down yet.
 */
unsigned shoal_core_drain(struct shoal_core *core);

/* Tears the core down; reports what was never consumed. Returns the number of such objects. */
unsigned shoal_core_deinit(struct shoal_core *core);

/* The time now, from the cycle counter where it can be had. */
uint64_t shoal_core_clock_ns(struct shoal_core *core, uint64_t cycles);

/* For backends: looks at the clock again, after a wait and before what it brought is handled. */
void shoal_core_read_clock(struct shoal_core *core);

/* Wakes `core` if it sleeps. Any thread; the caller has published its work by an atomic RMW. */
void shoal_core_wake(struct shoal_core *core);

/* Queues `task` on `core` from any thread, and wakes it. The order of one thread is kept. */
void shoal_core_post_foreign(struct shoal_core *core, struct shoal_task *task);

/* Makes `group` the one whose tasks run. */
static inline void shoal_sched_set_current(struct shoal_core *core, struct shoal_sched_group *group)
{
    core->current = group;
    core->hot.ready = &group->ready;
    core->hot.group = group->id;
    core->hot.then_consumer = (uint16_t)(SHOAL_CONSUMER_THEN | group->id << 8);
}

/* Queues `task` on its own core, in the scheduling group that runs now. */
static inline void shoal_core_post(struct shoal_core *core, struct shoal_task *task)
{
    shoal_task_queue_push(core->hot.ready, task);
}

/* Queues `task` in `group`. */
static inline void shoal_core_post_to(struct shoal_core *core, struct shoal_sched_group *group,
                                      struct shoal_task *task)
{
    if (SHOAL_LIKELY(group == core->current))
        shoal_task_queue_push(&group->ready, task);
    else
        shoal_sched_wake(core, group, task);
}

#endif
