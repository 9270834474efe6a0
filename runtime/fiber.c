/*
 * Fibers: spawn, run, park, join, cancel, sleep. See fiber.h and fiber_impl.h.
 *
 * A fiber's entry never returns: it runs the function it was given, marks itself done, and parks
 * for the loop to reap; a later spawn switches right back to it with another function.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/log.h"
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

static void switch_to_loop(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    shoal_asan_start_switch(&fiber->asan_fake_stack, pool->loop_stack, pool->loop_stack_bytes);
    shoal_tsan_switch(pool->loop_tsan_fiber);
    shoal_fiber_switch(&fiber->sp, core->loop_sp);
    shoal_asan_finish_switch(fiber->asan_fake_stack, &pool->loop_stack, &pool->loop_stack_bytes);
}

static void fiber_entry(void *arg)
{
    struct shoal_fiber *fiber = arg;
    struct shoal_core *core = shoal_core_self;
    shoal_asan_finish_switch(NULL, &core->fibers.loop_stack, &core->fibers.loop_stack_bytes);
    for (;;) {
        fiber->result = fiber->fn(fiber->arg);
        SHOAL_CHECK(fiber->shields == 0, "fiber \"%s\" returns while shielded", fiber->name);
        fiber->state = SHOAL_FIBER_DONE;
        switch_to_loop(core, fiber);
    }
}

static void fiber_release(struct shoal_core *core, struct shoal_fiber *fiber)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    shoal_fiber_set_message(fiber, NULL);
    fiber->state = SHOAL_FIBER_FREE;
    shoal_list_remove(&fiber->node);
    pool->live_count--;
    if (++pool->free_count > SHOAL_FIBERS_HOT) {
        shoal_stack_trim(pool, fiber->stack);
        fiber->has_context = false;
        shoal_list_push_back(&pool->free, &fiber->node);
    } else {
        /* Front: the stack that was used last is the warmest. */
        shoal_list_push_back(pool->free.next, &fiber->node);
    }
}

static void fiber_done(struct shoal_core *core, struct shoal_fiber *fiber)
{
    if (fiber->joiner != NULL)
        shoal_fiber_make_ready(core, fiber->joiner);
    else if (fiber->detached)
        fiber_release(core, fiber);
}

void shoal_fiber_run(struct shoal_core *core, struct shoal_fiber *fiber)
{
    SHOAL_DCHECK(core->fiber == NULL, "fiber \"%s\" is run inside another", fiber->name);
    fiber->state = SHOAL_FIBER_RUNNING;
    core->fiber = fiber;
    void *fake_stack = NULL;
    shoal_asan_start_switch(&fake_stack, fiber->stack, core->fibers.stack_bytes);
    shoal_tsan_switch(fiber->tsan_fiber);
    shoal_fiber_switch(&core->loop_sp, fiber->sp);
    shoal_asan_finish_switch(fake_stack, NULL, NULL);
    core->fiber = NULL;
    if (fiber->state == SHOAL_FIBER_DONE)
        fiber_done(core, fiber);
    else if (fiber->on_park != NULL)
        fiber->on_park(fiber);
}

void shoal_fiber_park(struct shoal_core *core, struct shoal_fiber *fiber)
{
    SHOAL_DCHECK(core->fiber == fiber, "a fiber parks only itself");
    fiber->state = SHOAL_FIBER_PARKED;
    switch_to_loop(core, fiber);
}

void shoal_fiber_make_ready(struct shoal_core *core, struct shoal_fiber *fiber)
{
    if (fiber->state != SHOAL_FIBER_PARKED)
        return;
    fiber->state = SHOAL_FIBER_READY;
    shoal_core_post(core, &fiber->task);
}

static void run_task(struct shoal_task *task)
{
    shoal_fiber_run(shoal_core_self, SHOAL_CONTAINER_OF(task, struct shoal_fiber, task));
}

/* ---- Making ---- */

static struct shoal_fiber *fiber_new(struct shoal_core *core)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    struct shoal_fiber *fiber = shoal_slab_take(&pool->slab);
    if (fiber == NULL)
        return NULL;
    memset(fiber, 0, sizeof(*fiber));
    fiber->stack = shoal_stack_take(pool);
    if (fiber->stack == NULL) {
        shoal_slab_give(&pool->slab, fiber);
        return NULL;
    }
    fiber->valgrind_stack =
        SHOAL_VALGRIND_STACK_REGISTER(fiber->stack, fiber->stack + pool->stack_bytes);
    shoal_list_init(&fiber->node);
    return fiber;
}

static void fiber_give_context(const struct shoal_fiber_pool *pool, struct shoal_fiber *fiber)
{
    size_t colour = (pool->live_count % COLOURS) * COLOUR_BYTES;
    shoal_sanitizer_forget_stack(fiber->stack, pool->stack_bytes);
    if (fiber->tsan_fiber != NULL)
        shoal_tsan_destroy(fiber->tsan_fiber);
    fiber->tsan_fiber = shoal_tsan_create();
    fiber->sp = shoal_fiber_context(fiber->stack, pool->stack_bytes - colour, fiber_entry, fiber);
    fiber->has_context = true;
    fiber->asan_fake_stack = NULL;
}

struct shoal_fiber *shoal_fiber_take(struct shoal_core *core, shoal_fiber_fn *fn, void *arg,
                                     const char *name)
{
    struct shoal_fiber_pool *pool = &core->fibers;
    struct shoal_list *node = shoal_list_take_front(&pool->free);
    struct shoal_fiber *fiber;
    if (SHOAL_LIKELY(node != NULL)) {
        fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        pool->free_count--;
    } else {
        fiber = fiber_new(core);
        if (fiber == NULL)
            return NULL;
    }
    if (!fiber->has_context)
        fiber_give_context(pool, fiber);
    pool->live_count++;
    fiber->task.run = run_task;
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->name = name;
    fiber->on_cancel = NULL;
    fiber->on_park = NULL;
    fiber->waits_for = NULL;
    fiber->waiting_future = NULL;
    fiber->joiner = NULL;
    fiber->core = (uint16_t)core->id;
    fiber->cancelled = false;
    fiber->detached = true;
    fiber->state = SHOAL_FIBER_PARKED;
    shoal_list_push_back(&pool->live, &fiber->node);
    return fiber;
}

int shoal_fiber_spawn(struct shoal_fiber **out, shoal_fiber_fn *fn, void *arg, const char *name)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = shoal_fiber_take(core, fn, arg, name);
    if (fiber == NULL)
        return -ENOMEM;
    fiber->detached = false;
    *out = fiber;
    shoal_fiber_make_ready(core, fiber);
    return 0;
}

int shoal_fiber_spawn_detached(shoal_fiber_fn *fn, void *arg, const char *name)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = shoal_fiber_take(core, fn, arg, name);
    if (fiber == NULL)
        return -ENOMEM;
    shoal_fiber_make_ready(core, fiber);
    return 0;
}

/* ---- Joining and cancelling ---- */

static void check_mine(const struct shoal_fiber *fiber, const char *what)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_DCHECK(core != NULL && fiber->core == core->id,
                 "%s of fiber \"%s\" of core %u on core %d", what, fiber->name, fiber->core,
                 shoal_context_core);
    SHOAL_DCHECK(fiber->state != SHOAL_FIBER_FREE, "%s of a fiber that is gone", what);
}

static void cancel_join(struct shoal_fiber *joiner)
{
    shoal_fiber_cancel(joiner->wait_ctx);
}

int shoal_fiber_join(struct shoal_fiber *fiber)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *self = core->fiber;
    check_mine(fiber, "join");
    SHOAL_CHECK(self != NULL && self != fiber, "a join happens on another fiber");
    SHOAL_CHECK(!fiber->detached && fiber->joiner == NULL, "fiber \"%s\" is joined twice",
                fiber->name);
    if (shoal_fiber_cancelled_now(self))
        shoal_fiber_cancel(fiber);
    if (fiber->state != SHOAL_FIBER_DONE) {
        fiber->joiner = self;
        shoal_fiber_wait_begin(self, "join", cancel_join, fiber);
        while (fiber->state != SHOAL_FIBER_DONE)
            shoal_fiber_park(core, self);
        shoal_fiber_wait_end(self);
    }
    int result = fiber->result;
    fiber_release(core, fiber);
    return result;
}

void shoal_fiber_detach(struct shoal_fiber *fiber)
{
    check_mine(fiber, "detach");
    SHOAL_CHECK(!fiber->detached && fiber->joiner == NULL, "fiber \"%s\" is joined already",
                fiber->name);
    fiber->detached = true;
    if (fiber->state == SHOAL_FIBER_DONE)
        fiber_release(shoal_core_self, fiber);
}

/* Passes a cancel on to what the fiber waits for. */
static void interrupt_wait(struct shoal_fiber *fiber)
{
    if (fiber->shields != 0 || fiber->state != SHOAL_FIBER_PARKED)
        return;
    if (fiber->waiting_future != NULL)
        shoal_future_cancel(fiber->waiting_future);
    else if (fiber->on_cancel != NULL)
        fiber->on_cancel(fiber);
}

void shoal_fiber_cancel(struct shoal_fiber *fiber)
{
    check_mine(fiber, "cancel");
    if (fiber->cancelled || fiber->state == SHOAL_FIBER_DONE)
        return;
    fiber->cancelled = true;
    fiber->cancel_code = -ECANCELED;
    interrupt_wait(fiber);
}

bool shoal_fiber_cancelled(void)
{
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    return fiber != NULL && shoal_fiber_cancelled_now(fiber);
}

void shoal_fiber_shield(void)
{
    shoal_core_self->fiber->shields++;
}

void shoal_fiber_unshield(void)
{
    struct shoal_fiber *fiber = shoal_core_self->fiber;
    SHOAL_CHECK(fiber->shields > 0, "unshield without shield");
    fiber->shields--;
}

struct shoal_fiber *shoal_fiber_self(void)
{
    return shoal_core_self != NULL ? shoal_core_self->fiber : NULL;
}

const char *shoal_fiber_name(const struct shoal_fiber *fiber)
{
    return fiber->name;
}

void shoal_fiber_set_message(struct shoal_fiber *fiber, char *text_move)
{
    if (fiber == NULL) {
        shoal_text_free(text_move);
        return;
    }
    if (fiber->message != NULL)
        shoal_text_free(fiber->message);
    fiber->message = text_move;
}

/* ---- Waiting for time ---- */

int shoal_yield(void)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "yield outside a fiber");
    fiber->state = SHOAL_FIBER_READY;
    shoal_core_post(core, &fiber->task);
    switch_to_loop(core, fiber);
    return shoal_fiber_cancel_code(fiber);
}

struct sleeper {
    struct shoal_timer timer;
    struct shoal_fiber *fiber;
    bool cancelled;
};

static void sleeper_fire(struct shoal_timer *timer)
{
    struct sleeper *sleeper = SHOAL_CONTAINER_OF(timer, struct sleeper, timer);
    shoal_fiber_make_ready(shoal_core_self, sleeper->fiber);
}

static void sleeper_cancel(struct shoal_fiber *fiber)
{
    struct sleeper *sleeper = fiber->wait_ctx;
    if (!shoal_timer_cancel(&sleeper->timer))
        return; /* it has fired: the sleep is over */
    sleeper->cancelled = true;
    shoal_fiber_make_ready(shoal_core_self, fiber);
}

int shoal_sleep_ns(uint64_t delay_ns)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "sleep outside a fiber");
    if (shoal_fiber_cancelled_now(fiber))
        return fiber->cancel_code;
    struct sleeper sleeper = {.fiber = fiber};
    shoal_timer_init(&sleeper.timer, sleeper_fire);
    shoal_timer_arm(&sleeper.timer, delay_ns);
    shoal_fiber_wait_begin(fiber, "sleep", sleeper_cancel, &sleeper);
    shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    return sleeper.cancelled ? fiber->cancel_code : 0;
}
