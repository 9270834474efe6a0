/*
 * Fibers: spawn, run, park. See fiber.h and fiber_impl.h.
 *
 * A fiber's entry never returns: it runs the function it was given, marks itself done, and parks
 * for the loop to reap; a later spawn switches right back to it with another function.
 *
 * A fiber that gives way switches right to the next one, where that is what the loop would run
 * next, and not through the loop: half the switches. One that is done, or whose owner wants to know
 * when it gives way, always goes through the loop.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/sanitizer_impl.h"

#if defined(SHOAL_ASAN) || defined(SHOAL_TSAN)
#define STACK_FACTOR 4 /* instrumented frames are larger */
#else
#define STACK_FACTOR 1
#endif

/* Stacks that all begin at the same offset would fight for the same cache sets. */
#define COLOUR_BYTES 256u
#define COLOURS      16u

static const char *running_fiber_name(void)
{
    const struct shoal_core *core = shoal_core_self;
    return core != NULL && core->fiber != NULL ? core->fiber->name : NULL;
}

void shoal_fibers_init(struct shoal_core *core, uint32_t stack_bytes)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    memset(pool, 0, sizeof(*pool));
    shoal_fiber_locals_init(core);
    shoal_slab_init(&pool->slab, "fiber", sizeof(struct shoal_fiber), SHOAL_CACHE_LINE);
    shoal_list_init(&pool->live);
    shoal_list_init(&pool->free);
    pool->stack_bytes = (stack_bytes != 0 ? stack_bytes : SHOAL_FIBER_STACK_BYTES) * STACK_FACTOR;
    pool->loop_tsan_fiber = shoal_tsan_current();
    /* Later, when other cores have used memory up, this one can still run a few. */
    (void)shoal_slab_reserve(&pool->slab);
    shoal_stack_reserve(pool);
}

void shoal_fibers_install(void)
{
    shoal_context_fiber_name = running_fiber_name;
}

static void fiber_destroy(struct shoal_core *core, struct shoal_fiber *fiber)
{
    shoal_fiber_set_message(fiber, NULL);
    SHOAL_VALGRIND_STACK_DEREGISTER(fiber->valgrind_stack);
    if (fiber->tsan_fiber != NULL)
        shoal_tsan_destroy(fiber->tsan_fiber);
    if (fiber->stack_bytes != core->fibers.stack_bytes)
        shoal_stack_unmap(fiber->stack, fiber->stack_bytes);
    shoal_slab_give(&core->fibers.slab, fiber);
}

unsigned shoal_fibers_deinit(struct shoal_core *core)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    unsigned unjoined = 0;
    SHOAL_LIST_FOREACH (node, &pool->live) {
        const struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        SHOAL_CHECK(fiber->state == SHOAL_FIBER_DONE, "fiber \"%s\" still runs at the core's end",
                    fiber->name);
        SHOAL_ERROR("fiber \"%s\" was neither joined nor detached", fiber->name);
        unjoined++;
    }
    shoal_list_splice(&pool->free, &pool->live);
    struct shoal_list *node;
    while ((node = shoal_list_take_front(&pool->free)) != NULL)
        fiber_destroy(core, SHOAL_CONTAINER_OF(node, struct shoal_fiber, node));
    shoal_slab_deinit(&pool->slab);
    unjoined += shoal_slab_deinit(&pool->locals);
    shoal_stacks_free(pool);
    return unjoined;
}

unsigned shoal_fibers_running(const struct shoal_core *core)
{
    unsigned running = 0;
    SHOAL_LIST_FOREACH (node, &core->fibers.live)
        running += SHOAL_CONTAINER_OF(node, struct shoal_fiber, node)->state != SHOAL_FIBER_DONE;
    return running;
}

/* ---- Switching ---- */

static inline void begin_run(struct shoal_core *core, struct shoal_fiber *fiber)
{
    fiber->state = SHOAL_FIBER_RUNNING;
    core->fiber = fiber;
    core->hot.may_await = !shoal_fiber_cancelled_now(fiber);
}

/* The running fiber has come back from a switch, or has just begun. */
static inline void arrived(struct shoal_core *core, void *asan_fake_stack)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    const void *from;
    size_t from_bytes;
    shoal_asan_finish_switch(asan_fake_stack, &from, &from_bytes);
#ifdef SHOAL_ASAN
    if (pool->loop_left) {
        pool->loop_stack = from;
        pool->loop_stack_bytes = from_bytes;
        pool->loop_left = false;
    }
#else
    (void)pool;
#endif
}

static void switch_to_loop(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    shoal_asan_start_switch(&fiber->asan_fake_stack, pool->loop_stack, pool->loop_stack_bytes);
    shoal_tsan_switch(pool->loop_tsan_fiber);
    shoal_fiber_switch(&fiber->sp, core->loop_sp);
    arrived(core, fiber->asan_fake_stack);
}

static void switch_to_fiber(struct shoal_core *core, struct shoal_fiber *fiber,
                            struct shoal_fiber *next)
{
    begin_run(core, next);
    shoal_asan_start_switch(&fiber->asan_fake_stack, next->stack, next->stack_bytes);
    shoal_tsan_switch(next->tsan_fiber);
    shoal_fiber_switch(&fiber->sp, next->sp);
    arrived(core, fiber->asan_fake_stack);
}

static void run_task(struct shoal_task *task)
{
    shoal_fiber_run(shoal_core_self, SHOAL_CONTAINER_OF(task, struct shoal_fiber, task));
}

/* The fiber that the loop would run now, out of the queue; NULL when that is something else. */
static inline struct shoal_fiber *take_next(struct shoal_core *core)
{
    struct shoal_task_queue *ready = &core->current->ready;
    if (core->budget == 0 || ready->head == NULL || ready->head->run != run_task)
        return NULL;
    core->budget--;
    return SHOAL_CONTAINER_OF(shoal_task_queue_take(ready), struct shoal_fiber, task);
}

static inline void give_way(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_fiber *next = fiber->on_park == NULL ? take_next(core) : NULL;
    if (next == NULL)
        switch_to_loop(core, fiber);
    else if (next != fiber)
        switch_to_fiber(core, fiber, next);
    else
        begin_run(core, fiber); /* it is the only one */
}

static void fiber_entry(void *arg)
{
    struct shoal_fiber *fiber = arg;
    struct shoal_core *core = shoal_core_self;
    arrived(core, NULL);
    for (;;) {
        int result = fiber->fn(fiber->arg);
        SHOAL_CHECK(fiber->shields == 0, "fiber \"%s\" returns while shielded", fiber->name);
        SHOAL_CHECK(fiber->scope == NULL, "fiber \"%s\" returns from within a scope", fiber->name);
        if (SHOAL_UNLIKELY(fiber->locals != NULL))
            shoal_fiber_locals_free(core, fiber);
        fiber->result = result;
        fiber->state = SHOAL_FIBER_DONE;
        switch_to_loop(core, fiber);
    }
}

void shoal_fiber_release(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    shoal_fiber_set_message(fiber, NULL);
    fiber->state = SHOAL_FIBER_FREE;
    fiber->group->fibers--;
    shoal_list_unlink(&fiber->node);
    pool->live_count--;
    if (SHOAL_UNLIKELY(fiber->stack_bytes != pool->stack_bytes)) {
        fiber_destroy(core, fiber);
        return;
    }
    pool->free_count++;
    if (pool->hot_count == SHOAL_FIBERS_HOT) {
        shoal_stack_trim(pool, fiber->stack);
        fiber->has_context = false;
        shoal_list_push_back(&pool->free, &fiber->node);
    } else {
        /* Front: the stack that was used last is the warmest. */
        pool->hot_count++;
        shoal_list_push_back(pool->free.next, &fiber->node);
    }
}

static void fiber_done(struct shoal_core *core, struct shoal_fiber *fiber)
{
    if (fiber->joiner != NULL)
        shoal_fiber_make_ready(core, fiber->joiner);
    else if (fiber->parent != NULL)
        shoal_scope_child_done(core, fiber);
    else if (fiber->detached)
        shoal_fiber_release(core, fiber);
}

void shoal_fiber_run(struct shoal_core *core, struct shoal_fiber *fiber)
{
    SHOAL_DCHECK(core->fiber == NULL, "fiber \"%s\" is run inside another", fiber->name);
    begin_run(core, fiber);
#ifdef SHOAL_ASAN
    core->fibers.loop_left = true;
#endif
    void *fake_stack = NULL;
    shoal_asan_start_switch(&fake_stack, fiber->stack, fiber->stack_bytes);
    shoal_tsan_switch(fiber->tsan_fiber);
    shoal_fiber_switch(&core->loop_sp, fiber->sp);
    shoal_asan_finish_switch(fake_stack, NULL, NULL);
    struct shoal_fiber *last = core->fiber; /* others may have run meanwhile */
    core->fiber = NULL;
    core->hot.may_await = false;
    if (last->state == SHOAL_FIBER_DONE)
        fiber_done(core, last);
    else if (last->on_park != NULL)
        last->on_park(last);
}

void shoal_fiber_park(struct shoal_core *core, struct shoal_fiber *fiber)
{
    SHOAL_DCHECK(core->fiber == fiber, "a fiber parks only itself");
    fiber->state = SHOAL_FIBER_PARKED;
    give_way(core, fiber);
}

void shoal_fiber_make_ready(struct shoal_core *core, struct shoal_fiber *fiber)
{
    if (fiber->state != SHOAL_FIBER_PARKED)
        return;
    fiber->state = SHOAL_FIBER_READY;
    shoal_core_post_to(core, fiber->group, &fiber->task);
}

int shoal_yield(void)
{
    SHOAL_CHECK_ON_CORE("yield");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "yield outside a fiber");
    fiber->state = SHOAL_FIBER_READY;
    shoal_core_post_to(core, fiber->group, &fiber->task);
    give_way(core, fiber);
    return shoal_fiber_cancel_code(fiber);
}

/* ---- Making ---- */

/* One with a stack of `stack_bytes`, the pool's usual size or a larger one of its own. */
static struct shoal_fiber *fiber_new(struct shoal_core *core, size_t stack_bytes)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    struct shoal_fiber *fiber = shoal_slab_take(&pool->slab);
    if (fiber == NULL)
        return NULL;
    memset(fiber, 0, sizeof(*fiber));
    fiber->stack_bytes = stack_bytes;
    fiber->stack =
        stack_bytes == pool->stack_bytes ? shoal_stack_take(pool) : shoal_stack_map(stack_bytes);
    if (fiber->stack == NULL) {
        shoal_slab_give(&pool->slab, fiber);
        return NULL;
    }
    fiber->valgrind_stack =
        SHOAL_VALGRIND_STACK_REGISTER(fiber->stack, fiber->stack + fiber->stack_bytes);
    return fiber;
}

static void fiber_give_context(const struct shoal_fiber_pool *pool, struct shoal_fiber *fiber)
{
    size_t colour = (pool->live_count % COLOURS) * COLOUR_BYTES;
    shoal_sanitizer_forget_stack(fiber->stack, fiber->stack_bytes);
    if (fiber->tsan_fiber != NULL)
        shoal_tsan_destroy(fiber->tsan_fiber);
    fiber->tsan_fiber = shoal_tsan_create();
    fiber->sp = shoal_fiber_context(fiber->stack, fiber->stack_bytes - colour, fiber_entry, fiber);
    fiber->has_context = true;
    fiber->asan_fake_stack = NULL;
}

static struct shoal_fiber *fiber_take(struct shoal_core *core, size_t stack_bytes)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    struct shoal_list *node = NULL;
    if (shoal_fault_reuse("fiber", sizeof(struct shoal_fiber)))
        return NULL;
    if (SHOAL_LIKELY(stack_bytes == pool->stack_bytes))
        node = shoal_list_take_front(&pool->free);
    struct shoal_fiber *fiber;
    if (SHOAL_LIKELY(node != NULL)) {
        fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        pool->free_count--;
        if (SHOAL_LIKELY(fiber->has_context))
            pool->hot_count--;
    } else {
        fiber = fiber_new(core, stack_bytes);
        if (fiber == NULL)
            return NULL;
    }
    if (SHOAL_UNLIKELY(!fiber->has_context))
        fiber_give_context(pool, fiber);
    return fiber;
}

/* A fiber in `group` that is not queued yet; detached. */
static struct shoal_fiber *fiber_make(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                      const char *name, struct shoal_sched_group *group,
                                      size_t stack_bytes)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    SHOAL_CHECK_OWNER(group->core, "spawn of a fiber", "scheduling group \"%s\"", group->name);
    SHOAL_DCHECK(group->used, "a fiber in a scheduling group that was freed");
    struct shoal_fiber *fiber = fiber_take(core, stack_bytes);
    if (SHOAL_UNLIKELY(fiber == NULL))
        return NULL;
    pool->live_count++;
    group->fibers++;
    fiber->task.run = run_task;
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->name = name;
    fiber->group = group;
    fiber->on_cancel = NULL;
    fiber->on_park = NULL;
    fiber->waits_for = NULL;
    fiber->waiting_future = NULL;
    fiber->joiner = NULL;
    fiber->parent = NULL;
    fiber->deadline_ns = SHOAL_NS_FOREVER;
    fiber->core = (uint16_t)core->id;
    fiber->own_cancel = 0;
    fiber->cancelled = false;
    fiber->detached = true;
    fiber->state = SHOAL_FIBER_PARKED;
    shoal_list_push_back(&pool->live, &fiber->node);
    return fiber;
}

struct shoal_fiber *shoal_fiber_take(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                     const char *name)
{
    return fiber_make(core, fn, arg, name, core->current, core->fibers.stack_bytes);
}

int shoal_fiber_spawn(struct shoal_fiber **out, shoal_fiber_fn *fn, void *arg, const char *name)
{
    SHOAL_CHECK_ON_CORE("spawn of a fiber");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = shoal_fiber_take(core, fn, arg, name);
    if (SHOAL_UNLIKELY(fiber == NULL))
        return -ENOMEM;
    fiber->detached = false;
    *out = fiber;
    shoal_fiber_make_ready(core, fiber);
    return 0;
}

int shoal_fiber_spawn_detached(shoal_fiber_fn *fn, void *arg, const char *name)
{
    SHOAL_CHECK_ON_CORE("spawn of a fiber");
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = shoal_fiber_take(core, fn, arg, name);
    if (fiber == NULL)
        return -ENOMEM;
    shoal_fiber_make_ready(core, fiber);
    return 0;
}

struct shoal_fiber *shoal_fiber_take_with(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                          const struct shoal_fiber_options *options)
{
    size_t bytes = core->fibers.stack_bytes;
    if (options->stack_bytes * STACK_FACTOR > bytes)
        bytes = shoal_stack_round(options->stack_bytes * STACK_FACTOR);
    return fiber_make(core, fn, arg, options->name != NULL ? options->name : "fiber",
                      options->group != NULL ? options->group : core->current, bytes);
}

int shoal_fiber_spawn_with(struct shoal_fiber **out, shoal_fiber_fn *fn, void *arg,
                           const struct shoal_fiber_options *options)
{
    SHOAL_CHECK_ON_CORE("spawn of a fiber");
    struct shoal_core *core = shoal_core_self;
    if (options->stack_bytes > SHOAL_FIBER_STACK_MAX)
        return -EINVAL;
    struct shoal_fiber *fiber = shoal_fiber_take_with(core, fn, arg, options);
    if (fiber == NULL)
        return -ENOMEM;
    if (out != NULL) {
        fiber->detached = false;
        *out = fiber;
    }
    shoal_fiber_make_ready(core, fiber);
    return 0;
}
