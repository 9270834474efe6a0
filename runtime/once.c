/*
 * Once: see once.h, and sync_impl.h for how waiting works.
 *
 * A waiter that ends with YOUR_TURN is the runner from that moment on: it must run its function,
 * even if it has been cancelled meanwhile, so that those behind it are not forgotten.
 */
#include "shoal/runtime/once.h"

#include <errno.h>

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/sync_impl.h"

#define YOUR_TURN 1

void shoal_once_init(struct shoal_once *once)
{
    shoal_wait_queue_init(&once->queue, "once", NULL);
    once->runner = NULL;
    once->done = false;
}

void shoal_once_deinit(struct shoal_once *once)
{
    shoal_wait_queue_deinit(&once->queue);
    SHOAL_CHECK(once->runner == NULL, "once %p ends while fiber \"%s\" runs it", (void *)once,
                shoal_fiber_name(once->runner));
}

static int run_as_runner(struct shoal_once *once, shoal_once_fn *fn, void *arg)
{
    int rc = fn(arg);
    struct shoal_waiter *next = shoal_wait_queue_first(&once->queue);
    if (rc >= 0) {
        once->done = true;
        once->runner = NULL;
        shoal_wait_queue_end_all(&once->queue, 0);
        return 0;
    }
    once->runner = next != NULL ? next->who.fiber : NULL;
    if (next != NULL)
        shoal_waiter_end(next, YOUR_TURN);
    return rc;
}

int shoal_once_run(struct shoal_once *once, shoal_once_fn *fn, void *arg, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&once->queue, "run");
    if (rc < 0 || once->done)
        return rc;
    struct shoal_fiber *self = shoal_core_self->fiber;
    SHOAL_CHECK(once->runner != self, "fiber \"%s\" waits for the once %p that it runs itself",
                shoal_fiber_name(self), (void *)once);
    if (once->runner != NULL) {
        struct shoal_waiter waiter = {.n = 0};
        rc = shoal_waiter_park(&once->queue, &waiter, timeout_ns);
        if (rc != YOUR_TURN)
            return rc;
    }
    once->runner = self;
    return run_as_runner(once, fn, arg);
}

/* ---- As a future ---- */

struct call {
    struct shoal_once *once;
    shoal_once_fn *fn;
    void *arg;
    uint64_t timeout_ns;
    struct shoal_future *future;
    struct shoal_fiber *fiber;
};
SHOAL_STATIC_ASSERT(sizeof(struct call) <= sizeof(struct shoal_future_waiter),
                    "a call comes from the slab of waiters");

static int run_call(void *arg)
{
    struct call *call = arg;
    struct call copy = *call;
    int rc = shoal_once_run(copy.once, copy.fn, copy.arg, copy.timeout_ns);
    shoal_slab_give(&shoal_core_self->waiters, call);
    if (rc < 0)
        shoal_future_fail(copy.future, rc, NULL);
    else
        shoal_future_resolve(copy.future, NULL);
    return 0;
}

static void cancel_call(void *ctx)
{
    shoal_fiber_cancel(((struct call *)ctx)->fiber);
}

struct shoal_future *shoal_once_run_future(struct shoal_once *once, shoal_once_fn *fn, void *arg,
                                           uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    shoal_wait_queue_check(&once->queue, "run");
    if (once->done)
        return shoal_future_ready(NULL);
    struct call *call = shoal_slab_take(&core->waiters);
    if (call == NULL)
        return core->no_memory;
    *call = (struct call){once, fn, arg, timeout_ns, shoal_future_new(), NULL};
    struct shoal_future *future = call->future;
    if (future == core->no_memory || shoal_fiber_spawn(&call->fiber, run_call, call, "once") < 0) {
        shoal_slab_give(&core->waiters, call);
        if (future != core->no_memory)
            shoal_future_fail(future, -ENOMEM, NULL);
        return future;
    }
    shoal_future_on_cancel(future, cancel_call, call);
    shoal_fiber_detach(call->fiber);
    return future;
}

bool shoal_once_done(const struct shoal_once *once)
{
    shoal_wait_queue_check(&once->queue, "done");
    return once->done;
}
