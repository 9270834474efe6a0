/*
 * Invocations of services: see sharded.h, sharded_impl.h.
 *
 * A plain function travels whole in its message, with its argument. On a fiber, with a time-out, an
 * argument to free or in a service's own group, the message carries a pointer instead: to a record
 * from a pool of the calling core, freed when the target has answered, or, where somebody waits for
 * all cores, to the stack of who waits.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/errors.h"

#include "shoal/smp/all_cores_impl.h"
#include "shoal/smp/sharded_impl.h"
#include "shoal/smp/submit.h"

/* What is invoked. */
struct invocation {
    struct shoal_sharded *sharded;
    shoal_sharded_fn *fn;
    __extension__ union {
        void *arg;
        uint64_t copy[SHOAL_SHARDED_COPY_MAX / sizeof(uint64_t)];
    };
};
SHOAL_STATIC_ASSERT(sizeof(struct invocation) <= SHOAL_SUBMIT_COPY_MAX, "it travels in a message");

#define ARG_MESSAGE_BYTES (offsetof(struct invocation, arg) + sizeof(void *))

/* An invocation that its message only points to. */
struct record {
    struct invocation what;
    void (*arg_free)(void *arg);
};

/* ---- On the target ---- */

static int run_arg(void *message, union shoal_value *out)
{
    const struct invocation *what = message;
    return shoal_sharded_run(what->sharded, what->fn, what->arg, out);
}

static int run_copy(void *message, union shoal_value *out)
{
    struct invocation *what = message;
    return shoal_sharded_run(what->sharded, what->fn, what->copy, out);
}

static int run_on_fiber(void *message, union shoal_value *out)
{
    const struct invocation *what = message;
    return shoal_sharded_run_inside(what->sharded, what->fn, what->arg, out);
}

/* ---- One core ---- */

static struct shoal_future *refuse_closed(const struct shoal_sharded *sharded)
{
    return shoal_future_failed(SHOAL_ECLOSED, "service \"%s\" has stopped", sharded->ops->name);
}

static void record_free(void *ctx)
{
    struct record *record = ctx;
    void (*arg_free)(void *arg) = record->arg_free;
    void *arg = record->what.arg;
    shoal_combine_release(record, sizeof(*record));
    if (arg_free != NULL)
        arg_free(arg);
}

/* By a record; `submit` says how. Takes over `arg_free`. */
static struct shoal_future *send_record(unsigned core, const struct invocation *what,
                                        void (*arg_free)(void *arg), struct shoal_submit *submit)
{
    struct record *record = shoal_combine_alloc(sizeof(*record));
    if (record == NULL) {
        if (arg_free != NULL)
            arg_free(what->arg);
        return shoal_combine_no_memory();
    }
    record->what = *what;
    record->arg_free = arg_free;
    submit->arg = record;
    submit->arg_free = record_free;
    submit->group = what->sharded->group;
    return shoal_submit(core, submit);
}

struct shoal_future *shoal_sharded_invoke(struct shoal_sharded *sharded, unsigned core,
                                          shoal_sharded_fn *fn, void *arg)
{
    if (SHOAL_UNLIKELY(!shoal_sharded_seems_open(sharded)))
        return refuse_closed(sharded);
    struct invocation what = {.sharded = sharded, .fn = fn, .arg = arg};
    if (sharded->group == NULL)
        return shoal_submit_copy_to(core, run_arg, &what, ARG_MESSAGE_BYTES);
    struct shoal_submit submit = {.fn = run_arg};
    return send_record(core, &what, NULL, &submit);
}

struct shoal_future *shoal_sharded_invoke_fiber(struct shoal_sharded *sharded, unsigned core,
                                                shoal_sharded_fn *fn, void *arg)
{
    if (SHOAL_UNLIKELY(!shoal_sharded_seems_open(sharded)))
        return refuse_closed(sharded);
    const struct invocation what = {.sharded = sharded, .fn = fn, .arg = arg};
    struct shoal_submit submit = {.fiber_fn = run_on_fiber};
    return send_record(core, &what, NULL, &submit);
}

struct shoal_future *shoal_sharded_invoke_copy(struct shoal_sharded *sharded, unsigned core,
                                               shoal_sharded_fn *fn, const void *data, size_t bytes)
{
    if (bytes > SHOAL_SHARDED_COPY_MAX)
        return shoal_future_failed(-EMSGSIZE, "an argument of %zu bytes (allowed: up to %d)", bytes,
                                   SHOAL_SHARDED_COPY_MAX);
    if (SHOAL_UNLIKELY(!shoal_sharded_seems_open(sharded)))
        return refuse_closed(sharded);
    struct invocation what = {.sharded = sharded, .fn = fn, .copy = {0}};
    if (bytes > 0)
        memcpy(what.copy, data, bytes);
    if (sharded->group == NULL)
        return shoal_submit_copy_to(core, run_copy, &what, sizeof(what));
    struct shoal_submit submit = {.fn = run_copy};
    return send_record(core, &what, NULL, &submit);
}

struct shoal_future *shoal_sharded_call(struct shoal_sharded *sharded, unsigned core,
                                        const struct shoal_sharded_call *call)
{
    struct shoal_future *refused = NULL;
    if ((call->fn != NULL) == (call->fiber_fn != NULL))
        refused = shoal_future_failed(-EINVAL, "an invocation has a function for a task or one for "
                                               "a fiber");
    else if (!shoal_sharded_seems_open(sharded))
        refused = refuse_closed(sharded);
    if (refused != NULL) {
        if (call->arg_free != NULL)
            call->arg_free(call->arg);
        return refused;
    }
    const struct invocation what = {
        .sharded = sharded,
        .fn = call->fn != NULL ? call->fn : call->fiber_fn,
        .arg = call->arg,
    };
    struct shoal_submit submit = {.timeout_ns = call->timeout_ns};
    if (call->fn != NULL)
        submit.fn = run_arg;
    else
        submit.fiber_fn = run_on_fiber;
    return send_record(core, &what, call->arg_free, &submit);
}

/* ---- Several cores ---- */

static int invoke_several(struct shoal_sharded *sharded, const struct shoal_sharded_call *call,
                          bool others)
{
    if ((call->fn != NULL) == (call->fiber_fn != NULL) || call->arg_free != NULL ||
        call->timeout_ns != 0)
        return shoal_fiber_explain(-EINVAL, "an invocation of several cores has a function for a "
                                            "task or one for a fiber, and no time-out or "
                                            "argument to free");
    if (!shoal_sharded_seems_open(sharded))
        return shoal_fiber_explain(SHOAL_ECLOSED, "service \"%s\" has stopped", sharded->ops->name);
    struct invocation what = {
        .sharded = sharded,
        .fn = call->fn != NULL ? call->fn : call->fiber_fn,
        .arg = call->arg,
    };
    const struct shoal_all_cores all = {
        .fn = call->fn != NULL ? run_arg : NULL,
        .fiber_fn = call->fn != NULL ? NULL : run_on_fiber,
        .arg = &what,
        .others = others,
        .group = sharded->group,
        .values = call->values,
        .failed_core = call->failed_core,
    };
    bool copied = call->fn != NULL && sharded->group == NULL;
    return shoal_all_cores_run(&all, copied ? ARG_MESSAGE_BYTES : 0, sharded->ops->name);
}

int shoal_sharded_invoke_all(struct shoal_sharded *sharded, const struct shoal_sharded_call *call)
{
    return invoke_several(sharded, call, false);
}

int shoal_sharded_invoke_others(struct shoal_sharded *sharded,
                                const struct shoal_sharded_call *call)
{
    return invoke_several(sharded, call, true);
}

struct several {
    struct shoal_sharded *sharded;
    struct shoal_sharded_call call;
    bool others;
};
SHOAL_STATIC_ASSERT(sizeof(struct several) <= SHOAL_BACKGROUND_MAX, "it is copied");

static int run_several(void *spec, union shoal_value *out)
{
    const struct several *several = spec;
    (void)out;
    return invoke_several(several->sharded, &several->call, several->others);
}

struct shoal_future *shoal_sharded_invoke_all_future(struct shoal_sharded *sharded,
                                                     const struct shoal_sharded_call *call)
{
    const struct several several = {.sharded = sharded, .call = *call};
    return shoal_background(run_several, &several, sizeof(several), "invoke all");
}

struct shoal_future *shoal_sharded_invoke_others_future(struct shoal_sharded *sharded,
                                                        const struct shoal_sharded_call *call)
{
    const struct several several = {.sharded = sharded, .call = *call, .others = true};
    return shoal_background(run_several, &several, sizeof(several), "invoke others");
}
