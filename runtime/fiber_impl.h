/*
 * Fibers inside: the struct, the pool of stacks, and how a wait is built.
 *
 * A wait: shoal_fiber_wait_begin(), park (until what is waited for has come: a wake-up may be for
 * nothing), shoal_fiber_wait_end(). Whoever ends the wait calls shoal_fiber_make_ready().
 * `on_cancel` asks that party to end the wait early; it does not end it. A wait that begins on a
 * cancelled fiber is not told again: look at shoal_fiber_cancel_code() first.
 *
 *   FREE -> READY -> RUNNING -> PARKED -> READY ...  RUNNING -> DONE -> FREE
 *
 * Stacks come in batches of one mapping, each with a guard page at its low end:
 *
 *   | guard | ......... stack 0 | guard | ......... stack 1 | ...
 *
 * A fiber that returns goes back to the pool with its context intact: the next spawn only sets a
 * function and switches to it. Beyond SHOAL_FIBERS_HOT such ones, a stack's pages are given back.
 */
#ifndef SHOAL_RUNTIME_FIBER_IMPL_H
#define SHOAL_RUNTIME_FIBER_IMPL_H

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/scope.h"
#include "shoal/runtime/slab_impl.h"
#include "shoal/runtime/task.h"

struct shoal_core;
struct shoal_future;

#define SHOAL_FIBERS_HOT        256
#define SHOAL_FIBER_STACK_BYTES (128u * 1024)

enum shoal_fiber_state {
    SHOAL_FIBER_FREE,
    SHOAL_FIBER_READY,
    SHOAL_FIBER_RUNNING,
    SHOAL_FIBER_PARKED,
    SHOAL_FIBER_DONE,
};

struct shoal_fiber_local;

struct shoal_fiber {
    struct shoal_task task;
    void *sp;
    struct shoal_sched_group *group;
    uint16_t shields;
    int16_t cancel_code; /* why it is cancelled: -ECANCELED, or -ETIMEDOUT by a deadline */
    uint8_t state;
    bool cancelled;
    bool detached;
    bool has_context; /* `sp` is a live context to switch to */
    shoal_fiber_fn *fn;
    void *arg;
    void (*on_cancel)(struct shoal_fiber *fiber);
    void *wait_ctx;
    void (*on_park)(struct shoal_fiber *fiber); /* in the loop, each time it has given way */
    const char *waits_for; /* for reports: a word or two, "semaphore"; NULL while it runs */
    struct shoal_future *waiting_future;
    struct shoal_fiber *joiner;
    char *message; /* text of the last failed await */
    const char *name;
    struct shoal_list node; /* live fibers of the core, or the free ones */
    char *stack;            /* lowest address, the guard */
    int32_t result;
    uint16_t core;
    int16_t own_cancel;               /* the code of its own cancel; 0 without */
    struct shoal_scope *scope;        /* the innermost that it has entered and not left */
    struct shoal_scope *parent;       /* the one that it was spawned in, and will be joined by */
    struct shoal_list sibling;        /* of the children of `parent` */
    uint64_t deadline_ns;             /* of `parent` and what is around it */
    struct shoal_fiber_local *locals; /* fiber_local.c */
    size_t stack_bytes;
    void *asan_fake_stack;
    void *tsan_fiber;
    unsigned valgrind_stack;
};

struct shoal_fiber_pool {
    struct shoal_slab slab;
    struct shoal_slab locals;
    struct shoal_list live;
    struct shoal_list free;
    struct shoal_stack_batch *batches;
    uint32_t free_count;
    uint32_t hot_count; /* of the free ones: whose stacks have kept their pages; they come first */
    uint32_t live_count;
    uint32_t stack_bytes;
    void *loop_asan_fake_stack;
    const void *loop_stack;
    size_t loop_stack_bytes;
    void *loop_tsan_fiber;
    bool loop_left; /* the next switch to arrive comes from the loop's stack */
};

/* Once, before the first core starts: lets reports name the running fiber. */
void shoal_fibers_install(void);

void shoal_fibers_init(struct shoal_core *core, uint32_t stack_bytes);

/* Returns the number of fibers that were neither joined nor detached. None may still run. */
unsigned shoal_fibers_deinit(struct shoal_core *core);

/* How many fibers of `core` have not returned. O(live). */
unsigned shoal_fibers_running(const struct shoal_core *core);

/* A fiber that will run `fn(arg)`, not queued yet; NULL when out of memory. Detached. */
struct shoal_fiber *shoal_fiber_take(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                     const char *name);

/* The same, as `options` say. */
struct shoal_fiber *shoal_fiber_take_with(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                          const struct shoal_fiber_options *options);

/* Gives a fiber that is done back to the pool. */
void shoal_fiber_release(struct shoal_core *core, struct shoal_fiber *fiber);

/* Runs `fiber` now, from the loop's context, until it parks or returns. */
void shoal_fiber_run(struct shoal_core *core, struct shoal_fiber *fiber);

/* Gives the core to others until shoal_fiber_make_ready(). On the running fiber. */
void shoal_fiber_park(struct shoal_core *core, struct shoal_fiber *fiber);

/* Queues a parked fiber; no effect on one that is queued already. */
void shoal_fiber_make_ready(struct shoal_core *core, struct shoal_fiber *fiber);

static inline bool shoal_fiber_cancelled_now(const struct shoal_fiber *fiber)
{
    return fiber->cancelled && fiber->shields == 0;
}

/* What a wait returns that the running fiber's cancel has ended, or prevented; 0 without one. */
static inline int shoal_fiber_cancel_code(const struct shoal_fiber *fiber)
{
    return SHOAL_UNLIKELY(shoal_fiber_cancelled_now(fiber)) ? fiber->cancel_code : 0;
}

/* Cancels `fiber` for good, with `code` for its waits to return. */
void shoal_fiber_cancel_with(struct shoal_fiber *fiber, int code);

/* Makes it cancelled for now, and ends its wait; no effect on one that is. */
void shoal_fiber_apply_cancel(struct shoal_core *core, struct shoal_fiber *fiber, int code);

/* scope.c: a fiber that was spawned in a scope has returned. */
void shoal_scope_child_done(struct shoal_core *core, struct shoal_fiber *fiber);

/* fiber_local.c */
void shoal_fiber_locals_init(struct shoal_core *core);
void shoal_fiber_locals_free(struct shoal_core *core, struct shoal_fiber *fiber);

/* `what` is kept by reference. See the top. */
static inline void shoal_fiber_wait_begin(struct shoal_fiber *fiber, const char *what,
                                          void (*on_cancel)(struct shoal_fiber *fiber), void *ctx)
{
    fiber->waits_for = what;
    fiber->on_cancel = on_cancel;
    fiber->wait_ctx = ctx;
}

static inline void shoal_fiber_wait_end(struct shoal_fiber *fiber)
{
    fiber->waits_for = NULL;
    fiber->on_cancel = NULL;
}

/* Takes over `text` as the message of the last failure (NULL: none). */
void shoal_fiber_set_message(struct shoal_fiber *fiber, char *text_move);

/* fiber_stack.c: memory of stacks. */
void shoal_stack_reserve(struct shoal_fiber_pool *pool); /* a first batch, if there is memory */
char *shoal_stack_take(struct shoal_fiber_pool *pool);
size_t shoal_stack_round(size_t bytes); /* up to whole pages */
char *shoal_stack_map(size_t bytes);    /* one of its own */
void shoal_stack_unmap(char *stack, size_t bytes);
void shoal_stack_trim(const struct shoal_fiber_pool *pool, char *stack);
void shoal_stacks_free(struct shoal_fiber_pool *pool);

/* For reports: what the stacks take. */
struct shoal_stack_usage {
    uint64_t reserved_bytes;    /* address space */
    uint64_t committed_bytes;   /* pages of it that are in memory */
    uint64_t bookkeeping_bytes; /* from shoal_mem_alloc() */
};
void shoal_stack_usage(const struct shoal_fiber_pool *pool, struct shoal_stack_usage *out);

/* fiber_guard.c: a handler for SIGSEGV that names the fiber whose stack has overflowed. */
void shoal_fiber_guard_install(void);
void *shoal_fiber_guard_thread_begin(void);
void shoal_fiber_guard_thread_end(void *altstack);

/* fiber_switch.S: saves the caller's context to *save_sp and goes on with `load_sp`. */
void shoal_fiber_switch(void **save_sp, void *load_sp);

/* Prepares `top` so that a switch to the result calls entry(arg), which must not return. */
void *shoal_fiber_context(char *low, size_t bytes, void (*entry)(void *), void *arg);

#endif
