/*
 * Futures: see future.h for the contract and future_impl.h for the layout.
 *
 * Settling a future queues its consumer; nothing of the consumer runs inside. A derived future is
 * made by the task of the one it comes from: `run_then` and its kin run from the queue, read the
 * upstream's outcome, give the upstream back to the slab, and settle the derived one. That is why a
 * chain of any length needs no stack and a continuation costs one trip through the queue.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"

#define TEXT_BYTES_MAX 512

char *shoal_text_copy(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return NULL;
    size_t len = strnlen(text, TEXT_BYTES_MAX - 1);
    char *copy = shoal_mem_alloc(len + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void shoal_text_free(char *text)
{
    if (text != NULL)
        shoal_mem_free(text, strlen(text) + 1);
}

static void check_mine(const struct shoal_future *future, const char *what)
{
#ifdef SHOAL_DEBUG
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL, "%s of a future on a thread that is no core", what);
    if (future != core->no_memory)
        shoal_slab_check_live(&core->futures, future, what);
#else
    (void)future;
    (void)what;
#endif
}

static struct shoal_future *future_take(struct shoal_core *core, const void *place)
{
    struct shoal_future *future = shoal_slab_take_at(&core->futures, place);
    if (SHOAL_UNLIKELY(future == NULL))
        return NULL;
    future->error = 0;
    future->core = (uint16_t)core->id;
    future->state = SHOAL_FUTURE_PENDING;
    future->consumer_kind = SHOAL_CONSUMER_NONE;
    future->is_derived = 0;
    future->immortal = 0;
    future->drop = NULL;
    future->root.cancel = NULL;
    return future;
}

static void future_give(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_LIKELY(!future->immortal))
        shoal_slab_give(&core->futures, future);
}

int shoal_futures_init(struct shoal_core *core)
{
    shoal_slab_init(&core->futures, "future", sizeof(struct shoal_future), SHOAL_CACHE_LINE);
    core->no_memory = future_take(core, __builtin_return_address(0));
    if (core->no_memory == NULL)
        return -ENOMEM;
    core->no_memory->state = SHOAL_FUTURE_FAILED;
    core->no_memory->error = -ENOMEM;
    core->no_memory->text = NULL;
    core->no_memory->immortal = 1;
    return 0;
}

unsigned shoal_futures_deinit(struct shoal_core *core)
{
    shoal_slab_give(&core->futures, core->no_memory);
    core->no_memory = NULL;
    return shoal_slab_deinit(&core->futures);
}

/* ---- Producing ---- */

static void drop_outcome(struct shoal_future *future)
{
    if (future->state == SHOAL_FUTURE_FAILED) {
        shoal_text_free(future->text);
        future->text = NULL;
    } else if (future->drop != NULL) {
        future->drop(&future->value);
    }
}

/* Hands a future that has just settled to its consumer, if that has come already. */
static void settled(struct shoal_core *core, struct shoal_future *future)
{
    switch (future->consumer_kind) {
    case SHOAL_CONSUMER_FIBER:
        shoal_fiber_make_ready(core, future->consumer.fiber);
        break;
    case SHOAL_CONSUMER_TASK:
        shoal_core_post(core, &future->task);
        break;
    case SHOAL_CONSUMER_DISCARD:
        drop_outcome(future);
        future_give(core, future);
        break;
    default:
        break;
    }
}

static void settle_failed(struct shoal_core *core, struct shoal_future *future, int code,
                          char *text_move)
{
    future->state = SHOAL_FUTURE_FAILED;
    future->error = code;
    future->text = text_move;
    settled(core, future);
}

static void settle_ready(struct shoal_core *core, struct shoal_future *future)
{
    future->state = SHOAL_FUTURE_READY;
    settled(core, future);
}

static struct shoal_future *new_at(const void *place)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *future = future_take(core, place);
    return future != NULL ? future : core->no_memory;
}

struct shoal_future *shoal_future_new(void)
{
    return new_at(__builtin_return_address(0));
}

struct shoal_future *shoal_future_ready(const union shoal_value *value)
{
    struct shoal_future *future = new_at(__builtin_return_address(0));
    if (!future->immortal)
        shoal_future_resolve(future, value);
    return future;
}

struct shoal_future *shoal_future_failed(int code, const char *fmt, ...)
{
    char text[TEXT_BYTES_MAX] = "";
    if (fmt != NULL) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(text, sizeof(text), fmt, args);
        va_end(args);
    }
    struct shoal_future *future = new_at(__builtin_return_address(0));
    if (!future->immortal)
        shoal_future_fail(future, code, text);
    return future;
}

void shoal_future_on_cancel(struct shoal_future *future, shoal_cancel_fn *cancel, void *ctx)
{
    check_mine(future, "on_cancel");
    if (future->immortal)
        return;
    SHOAL_DCHECK(future->state == SHOAL_FUTURE_PENDING && !future->is_derived,
                 "a cancel hook belongs to a pending future of a producer");
    future->root.cancel = cancel;
    future->root.ctx = ctx;
}

void shoal_future_on_drop(struct shoal_future *future, shoal_drop_fn *drop)
{
    check_mine(future, "on_drop");
    if (future->immortal)
        return;
    SHOAL_DCHECK(future->state == SHOAL_FUTURE_PENDING, "a drop hook comes before the value");
    future->drop = drop;
}

void shoal_future_resolve(struct shoal_future *future, const union shoal_value *value)
{
    check_mine(future, "resolve");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    if (value != NULL)
        future->value = *value;
    else
        memset(&future->value, 0, sizeof(future->value));
    settle_ready(shoal_core_self, future);
}

void shoal_future_fail(struct shoal_future *future, int code, const char *text)
{
    check_mine(future, "fail");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    SHOAL_DCHECK(code < 0, "a failure needs a negative code, not %d", code);
    settle_failed(shoal_core_self, future, code, shoal_text_copy(text));
}

/* ---- Consuming ---- */

bool shoal_future_is_pending(const struct shoal_future *future)
{
    check_mine(future, "is_pending");
    return future->state == SHOAL_FUTURE_PENDING;
}

void shoal_future_cancel(struct shoal_future *future)
{
    check_mine(future, "cancel");
    while (future->state == SHOAL_FUTURE_PENDING && future->is_derived &&
           future->derived.upstream != NULL)
        future = future->derived.upstream;
    if (future->state == SHOAL_FUTURE_PENDING && !future->is_derived && future->root.cancel != NULL)
        future->root.cancel(future->root.ctx);
}

void shoal_discard(struct shoal_future *future)
{
    check_mine(future, "discard");
    SHOAL_CHECK(future->consumer_kind == SHOAL_CONSUMER_NONE, "future %p is consumed twice",
                (void *)future);
    if (future->state == SHOAL_FUTURE_PENDING) {
        future->consumer_kind = SHOAL_CONSUMER_DISCARD;
        return;
    }
    drop_outcome(future);
    future_give(shoal_core_self, future);
}

/* Takes the outcome out of a settled future and frees it. */
static int take_outcome(struct shoal_core *core, struct shoal_future *future,
                        union shoal_value *out)
{
    int error = future->error;
    if (SHOAL_LIKELY(future->state == SHOAL_FUTURE_READY)) {
        if (out != NULL)
            *out = future->value;
        else if (future->drop != NULL)
            future->drop(&future->value);
    } else {
        shoal_fiber_set_message(core->fiber, future->text);
        if (!future->immortal)
            future->text = NULL;
    }
    future_give(core, future);
    return error;
}

static void wait_settled(struct shoal_core *core, struct shoal_fiber *fiber,
                         struct shoal_future *future)
{
    future->consumer_kind = SHOAL_CONSUMER_FIBER;
    future->consumer.fiber = fiber;
    fiber->waits_for = "future";
    fiber->waiting_future = future;
    do {
        shoal_fiber_park(core, fiber);
    } while (future->state == SHOAL_FUTURE_PENDING);
    fiber->waiting_future = NULL;
    fiber->waits_for = NULL;
}

/* An await on a fiber that was cancelled before: waits for the end, and drops the outcome. */
static int await_cancelled(struct shoal_core *core, struct shoal_future *future)
{
    shoal_future_cancel(future);
    if (future->state == SHOAL_FUTURE_PENDING)
        wait_settled(core, core->fiber, future);
    shoal_fiber_set_message(core->fiber, NULL);
    drop_outcome(future);
    future_give(core, future);
    return core->fiber->cancel_code;
}

int shoal_await(struct shoal_future *future, union shoal_value *out)
{
    struct shoal_core *core = shoal_core_self;
    check_mine(future, "await");
    SHOAL_CHECK(core->fiber != NULL, "await outside a fiber");
    SHOAL_CHECK(future->consumer_kind == SHOAL_CONSUMER_NONE, "future %p is consumed twice",
                (void *)future);
    struct shoal_fiber *fiber = core->fiber;
    if (SHOAL_UNLIKELY(shoal_fiber_cancelled_now(fiber)))
        return await_cancelled(core, future);
    if (future->state == SHOAL_FUTURE_PENDING)
        wait_settled(core, fiber, future);
    return take_outcome(core, future, out);
}

const char *shoal_error_message(void)
{
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    return fiber != NULL && fiber->message != NULL ? fiber->message : "";
}

/* ---- Chaining ---- */

/* Moves the outcome of `from` to `to`, frees `from`, and settles `to`. */
static void forward(struct shoal_core *core, struct shoal_future *from, struct shoal_future *to)
{
    int code = from->error;
    if (from->state == SHOAL_FUTURE_FAILED) {
        char *text = from->text;
        future_give(core, from);
        settle_failed(core, to, code, text);
    } else {
        to->value = from->value;
        to->drop = from->drop;
        future_give(core, from);
        settle_ready(core, to);
    }
}

static struct shoal_future *upstream_of(struct shoal_task *task, struct shoal_future **derived)
{
    struct shoal_future *upstream = SHOAL_CONTAINER_OF(task, struct shoal_future, task);
    *derived = upstream->consumer.derived;
    return upstream;
}

/* Settles `derived` by a function's code, with the value that the function has put into `out`. */
static void settle_by_code(struct shoal_core *core, struct shoal_future *derived, int code,
                           const union shoal_value *out)
{
    if (SHOAL_UNLIKELY(code < 0)) {
        settle_failed(core, derived, code, NULL);
        return;
    }
    derived->value = *out;
    settle_ready(core, derived);
}

static void run_then(struct shoal_task *task)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    if (SHOAL_UNLIKELY(upstream->state == SHOAL_FUTURE_FAILED)) {
        forward(core, upstream, derived);
        return;
    }
    union shoal_value out = {.slice = {NULL, 0, 0}};
    int code = derived->derived.fn.then(derived->derived.arg, &upstream->value, &out);
    future_give(core, upstream);
    settle_by_code(core, derived, code, &out);
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
    if (inner->immortal) {
        settle_failed(core, derived, inner->error, NULL);
        return;
    }
    SHOAL_CHECK(inner->consumer_kind == SHOAL_CONSUMER_NONE, "future %p is consumed twice",
                (void *)inner);
    inner->consumer_kind = SHOAL_CONSUMER_TASK;
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
    struct shoal_future *inner =
        derived->derived.fn.then_future(derived->derived.arg, &upstream->value);
    derived->derived.upstream = NULL;
    future_give(core, upstream);
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
    union shoal_value out = {.slice = {NULL, 0, 0}};
    char *text = upstream->text;
    int upstream_code = upstream->error;
    int code = derived->derived.fn.caught(derived->derived.arg, upstream_code,
                                          text != NULL ? text : "", &out);
    future_give(core, upstream);
    if (code < 0 && code == upstream_code) {
        settle_failed(core, derived, code, text);
        return;
    }
    shoal_text_free(text);
    settle_by_code(core, derived, code, &out);
}

static void run_finally(struct shoal_task *task)
{
    struct shoal_future *derived;
    struct shoal_future *upstream = upstream_of(task, &derived);
    derived->derived.fn.finally(derived->derived.arg);
    forward(shoal_core_self, upstream, derived);
}

int shoal_future_consume(struct shoal_future *future, void (*run)(struct shoal_task *task),
                         void *ctx)
{
    check_mine(future, "consume");
    if (future->immortal)
        return -ENOMEM;
    SHOAL_CHECK(future->consumer_kind == SHOAL_CONSUMER_NONE, "future %p is consumed twice",
                (void *)future);
    future->consumer_kind = SHOAL_CONSUMER_TASK;
    future->consumer.ctx = ctx;
    future->task.run = run;
    if (future->state != SHOAL_FUTURE_PENDING)
        shoal_core_post(shoal_core_self, &future->task);
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
        *value = future->value;
    future_give(shoal_core_self, future);
    return code;
}

/* The derived future of `upstream`, which `run` will settle; NULL when out of memory. */
static struct shoal_future *chain(struct shoal_future *upstream, void (*run)(struct shoal_task *),
                                  void *arg, const void *place)
{
    struct shoal_core *core = shoal_core_self;
    check_mine(upstream, "chain");
    SHOAL_CHECK(upstream->consumer_kind == SHOAL_CONSUMER_NONE, "future %p is consumed twice",
                (void *)upstream);
    if (SHOAL_UNLIKELY(upstream->immortal)) {
        /* It cannot carry a continuation; one of its own can, if there is memory by now. */
        upstream = future_take(core, place);
        if (upstream == NULL)
            return NULL;
        settle_failed(core, upstream, -ENOMEM, NULL);
    }
    struct shoal_future *derived = future_take(core, place);
    if (SHOAL_UNLIKELY(derived == NULL)) {
        shoal_discard(upstream);
        return NULL;
    }
    derived->is_derived = 1;
    derived->derived.arg = arg;
    derived->derived.upstream = upstream;
    upstream->consumer_kind = SHOAL_CONSUMER_TASK;
    upstream->consumer.derived = derived;
    upstream->task.run = run;
    if (upstream->state != SHOAL_FUTURE_PENDING)
        shoal_core_post(core, &upstream->task);
    return derived;
}

struct shoal_future *shoal_then(struct shoal_future *future, shoal_then_fn *fn, void *arg)
{
    struct shoal_future *derived = chain(future, run_then, arg, __builtin_return_address(0));
    if (derived == NULL)
        return shoal_core_self->no_memory;
    derived->derived.fn.then = fn;
    return derived;
}

struct shoal_future *shoal_then_future(struct shoal_future *future, shoal_then_future_fn *fn,
                                       void *arg)
{
    struct shoal_future *derived = chain(future, run_then_future, arg, __builtin_return_address(0));
    if (derived == NULL)
        return shoal_core_self->no_memory;
    derived->derived.fn.then_future = fn;
    return derived;
}

struct shoal_future *shoal_catch(struct shoal_future *future, shoal_catch_fn *fn, void *arg)
{
    struct shoal_future *derived = chain(future, run_catch, arg, __builtin_return_address(0));
    if (derived == NULL)
        return shoal_core_self->no_memory;
    derived->derived.fn.caught = fn;
    return derived;
}

struct shoal_future *shoal_finally(struct shoal_future *future, shoal_finally_fn *fn, void *arg)
{
    struct shoal_future *derived = chain(future, run_finally, arg, __builtin_return_address(0));
    if (derived == NULL) {
        fn(arg);
        return shoal_core_self->no_memory;
    }
    derived->derived.fn.finally = fn;
    return derived;
}
