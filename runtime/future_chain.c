/*
 * Continuations: then, then_future, catch, finally, and consumers of the library's own.
 *
 * A derived future is made by the task of the one it comes from: `run_then` and its kin run from
 * the queue, read the upstream's outcome, give the upstream back to the slab, and settle the
 * derived one. That is why a chain of any length needs no stack. Where the derived future is
 * consumed by a `then` in its turn, `run_then` goes on with that one itself, as long as the loop
 * would have run another task: a trip through the queue less. It overtakes what is queued by up to
 * a batch.
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/future_settle_impl.h"

/* Moves the outcome of `from` to `to`, frees `from`, and settles `to`. */
static void forward(struct shoal_core *core, struct shoal_future *from, struct shoal_future *to)
{
    int code = from->error;
    if (from->state == SHOAL_FUTURE_FAILED) {
        char *text = from->text;
        shoal_future_give(core, from);
        shoal_future_settle_failed(core, to, code, text);
    } else {
        to->flags &= (uint8_t)~SHOAL_FUTURE_DERIVED;
        SHOAL_VALUE_COPY(&to->value, &from->value);
        if (SHOAL_UNLIKELY((from->flags & SHOAL_FUTURE_DROPS) != 0)) {
            to->flags |= SHOAL_FUTURE_DROPS;
            to->drop = from->drop;
        }
        shoal_future_give(core, from);
        shoal_future_settle_ready(core, to);
    }
}

static struct shoal_future *upstream_of(struct shoal_task *task, struct shoal_future **derived)
{
    struct shoal_future *upstream = SHOAL_CONTAINER_OF(task, struct shoal_future, task);
    *derived = upstream->consumer.derived;
    return upstream;
}

/* Settles `derived` by a function's code; its value is in place already. */
static void settle_by_code(struct shoal_core *core, struct shoal_future *derived, int code)
{
    if (SHOAL_UNLIKELY(code < 0))
        shoal_future_settle_failed(core, derived, code, NULL);
    else
        shoal_future_settle_ready(core, derived);
}

/* Clears the payload for the value to come; from here on `derived` cannot be cancelled. */
static void begin_value(struct shoal_future *derived)
{
    derived->flags &= (uint8_t)~SHOAL_FUTURE_DERIVED;
    memset(&derived->value, 0, sizeof(derived->value));
}

void shoal_future_run_then(struct shoal_task *task)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    for (;;) {
        if (SHOAL_UNLIKELY(upstream->state == SHOAL_FUTURE_FAILED)) {
            forward(core, upstream, derived);
            return;
        }
        shoal_then_fn *fn = derived->derived.fn.then;
        void *arg = derived->derived.arg;
        begin_value(derived);
        int code = fn(arg, &upstream->value, &derived->value);
        shoal_slab_give(&core->hot.futures, upstream);
        if (SHOAL_UNLIKELY(code < 0)) {
            shoal_future_settle_failed(core, derived, code, NULL);
            return;
        }
        derived->state = SHOAL_FUTURE_READY;
        /* The next link, in place of a trip through the queue. */
        if (derived->consumer_and_group != core->hot.then_consumer || core->budget == 0) {
            shoal_future_settled(core, derived);
            return;
        }
        core->budget--;
        upstream = derived;
        derived = upstream->consumer.derived;
    }
}

static void run_adopt(struct shoal_task *task)
{
    struct shoal_future *derived;
    struct shoal_future *inner = upstream_of(task, &derived);
    forward(shoal_core_self, inner, derived);
}

/* Makes `derived` end as `inner` does. */
static void adopt(struct shoal_core *core, struct shoal_future *inner, struct shoal_future *derived)
{
    if (shoal_future_is_immortal(inner)) {
        shoal_future_settle_failed(core, derived, inner->error, NULL);
        return;
    }
    SHOAL_CHECK(shoal_future_is_free(inner), "future %p is consumed twice", (void *)inner);
    shoal_future_set_consumer(inner, SHOAL_CONSUMER_TASK);
    inner->group = core->hot.group;
    inner->consumer.derived = derived;
    inner->task.run = run_adopt;
    derived->derived.upstream = inner;
    if (inner->state != SHOAL_FUTURE_PENDING)
        shoal_core_post(core, &inner->task);
}

static void run_then_future(struct shoal_task *task)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    if (upstream->state == SHOAL_FUTURE_FAILED) {
        forward(core, upstream, derived);
        return;
    }
    derived->derived.upstream = NULL;
    struct shoal_future *inner =
        derived->derived.fn.then_future(derived->derived.arg, &upstream->value);
    shoal_future_give(core, upstream);
    adopt(core, inner, derived);
}

static void run_catch(struct shoal_task *task)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    if (upstream->state == SHOAL_FUTURE_READY) {
        forward(core, upstream, derived);
        return;
    }
    char *text = upstream->text;
    int upstream_code = upstream->error;
    shoal_catch_fn *fn = derived->derived.fn.caught;
    void *arg = derived->derived.arg;
    begin_value(derived);
    int code = fn(arg, upstream_code, text != NULL ? text : "", &derived->value);
    shoal_future_give(core, upstream);
    if (code < 0 && code == upstream_code) {
        shoal_future_settle_failed(core, derived, code, text);
        return;
    }
    shoal_text_free(text);
    settle_by_code(core, derived, code);
}

static void run_finally(struct shoal_task *task)
{
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    derived->derived.upstream = NULL;
    derived->derived.fn.finally(derived->derived.arg);
    forward(shoal_core_self, upstream, derived);
}

int shoal_future_consume(struct shoal_future *future, void (*run)(struct shoal_task *task),
                         void *ctx)
{
    shoal_future_check_mine(future, "consume");
    if (shoal_future_is_immortal(future))
        return -ENOMEM;
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    struct shoal_core *core = shoal_core_self;
    shoal_future_set_consumer(future, SHOAL_CONSUMER_TASK);
    future->group = core->hot.group;
    future->consumer.ctx = ctx;
    future->task.run = run;
    if (future->state != SHOAL_FUTURE_PENDING)
        shoal_core_post(core, &future->task);
    return 0;
}

int shoal_future_outcome(struct shoal_task *task, void **ctx, union shoal_value *value,
                         char **text_move)
{
    struct shoal_future *future = SHOAL_CONTAINER_OF(task, struct shoal_future, task);
    int code = future->error;
    *ctx = future->consumer.ctx;
    *text_move = NULL;
    if (future->state == SHOAL_FUTURE_FAILED)
        *text_move = future->text;
    else
        SHOAL_VALUE_COPY(value, &future->value);
    shoal_future_give(shoal_core_self, future);
    return code;
}

struct shoal_future *shoal_future_spoil(struct shoal_future *upstream)
{
    if (upstream->state == SHOAL_FUTURE_PENDING)
        upstream->consumer_kind = SHOAL_CONSUMER_SPOILED;
    else
        shoal_future_spoil_outcome(upstream);
    return upstream;
}

/*
 * The derived future of `*future`, which `run` will settle. NULL when out of memory: then `*future`
 * is what is to be returned.
 */
static struct shoal_future *chain(struct shoal_future **future, uint8_t consumer,
                                  void (*run)(struct shoal_task *), void *arg, const void *place)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *upstream = *future;
    shoal_future_check_mine(upstream, "chain");
    SHOAL_CHECK(shoal_future_is_free(upstream), "future %p is consumed twice", (void *)upstream);
    if (SHOAL_UNLIKELY(shoal_future_is_immortal(upstream))) {
        /* It cannot carry a continuation; one of its own can, if there is memory by now. */
        upstream = shoal_future_take(core, place);
        if (upstream == NULL)
            return NULL;
        shoal_future_settle_failed(core, upstream, -ENOMEM, NULL);
    }
    struct shoal_future *derived = shoal_future_take(core, place);
    if (SHOAL_UNLIKELY(derived == NULL)) {
        *future = shoal_future_spoil(upstream);
        return NULL;
    }
    derived->word = core->hot.derived_word;
    derived->derived.arg = arg;
    derived->derived.upstream = upstream;
    shoal_future_set_consumer(upstream, consumer);
    upstream->group = core->hot.group;
    upstream->consumer.derived = derived;
    upstream->task.run = run;
    if (upstream->state != SHOAL_FUTURE_PENDING)
        shoal_core_post(core, &upstream->task);
    return derived;
}

static struct shoal_future *then_at(struct shoal_future *future, shoal_then_fn *fn, void *arg,
                                    const void *place)
{
    struct shoal_future *derived =
        chain(&future, SHOAL_CONSUMER_THEN, shoal_future_run_then, arg, place);
    if (derived == NULL)
        return future;
    derived->derived.fn.then = fn;
    return derived;
}

struct shoal_future *shoal_then_slow(struct shoal_future *future, shoal_then_fn *fn, void *arg)
{
    return then_at(future, fn, arg, __builtin_return_address(0));
}

struct shoal_future *shoal_then(struct shoal_future *future, shoal_then_fn *fn, void *arg)
{
    return then_at(future, fn, arg, __builtin_return_address(0));
}

struct shoal_future *shoal_then_future(struct shoal_future *future, shoal_then_future_fn *fn,
                                       void *arg)
{
    struct shoal_future *derived =
        chain(&future, SHOAL_CONSUMER_TASK, run_then_future, arg, __builtin_return_address(0));
    if (derived == NULL)
        return future;
    derived->derived.fn.then_future = fn;
    return derived;
}

struct shoal_future *shoal_catch(struct shoal_future *future, shoal_catch_fn *fn, void *arg)
{
    struct shoal_future *derived =
        chain(&future, SHOAL_CONSUMER_TASK, run_catch, arg, __builtin_return_address(0));
    if (derived == NULL)
        return future;
    derived->derived.fn.caught = fn;
    return derived;
}

struct shoal_future *shoal_finally(struct shoal_future *future, shoal_finally_fn *fn, void *arg)
{
    struct shoal_future *derived =
        chain(&future, SHOAL_CONSUMER_TASK, run_finally, arg, __builtin_return_address(0));
    if (derived == NULL) {
        fn(arg);
        return future;
    }
    derived->derived.fn.finally = fn;
    return derived;
}
