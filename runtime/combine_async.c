/*
 * A function on a fiber of its own, as a future: see combine.h.
 */
#include <errno.h>

#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"

struct async {
    struct shoal_future *result;
    struct shoal_fiber *fiber; /* detached: alive until it has settled `result` */
    shoal_async_fn *fn;
    void *arg;
    union shoal_value in;
};

static void cancel_async(void *ctx)
{
    struct async *async = ctx;
    shoal_fiber_cancel(async->fiber);
}

static int run_async(void *arg)
{
    struct async *async = arg;
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = async->fn(async->arg, &async->in, &out);
    struct shoal_future *result = async->result;
    shoal_combine_release(async, sizeof(*async));
    if (code < 0)
        shoal_future_fail(result, code, shoal_error_message());
    else
        shoal_future_resolve(result, &out);
    return 0;
}

struct shoal_future *shoal_async_named(shoal_async_fn *fn, void *arg, const union shoal_value *in,
                                       const char *name)
{
    struct async *async = shoal_combine_alloc(sizeof(*async));
    if (async == NULL)
        return shoal_combine_no_memory();
    /* The future first: a fiber that was spawned cannot be taken back. */
    struct shoal_future *result = shoal_future_new();
    if (shoal_future_is_immortal(result) ||
        shoal_fiber_spawn(&async->fiber, run_async, async, name) < 0) {
        shoal_combine_release(async, sizeof(*async));
        if (!shoal_future_is_immortal(result)) {
            shoal_discard(result);
            shoal_future_fail(result, -ENOMEM, NULL);
        }
        return shoal_combine_no_memory();
    }
    async->result = result;
    async->fn = fn;
    async->arg = arg;
    async->in = in != NULL ? *in : (union shoal_value){.slice = {NULL, 0, 0}};
    shoal_fiber_detach(async->fiber);
    shoal_future_on_cancel(result, cancel_async, async);
    return result;
}

struct shoal_future *shoal_async(shoal_async_fn *fn, void *arg, const union shoal_value *in)
{
    return shoal_async_named(fn, arg, in, "async");
}
