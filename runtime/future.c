/*
 * Futures: see future.h for the contract and future_inline.h for the layout.
 *
 * Settling a future queues its consumer; nothing of the consumer runs inside. A derived future is
 * made by the task of the one it comes from: `run_then` and its kin run from the queue, read the
 * upstream's outcome, give the upstream back to the slab, and settle the derived one. That is why a
 * chain of any length needs no stack. Where the derived future is consumed by a `then` in its turn,
 * `run_then` goes on with that one itself, as long as the loop would have run another task: a trip
 * through the queue less. It overtakes what is queued by up to a batch.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
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

static void run_then(struct shoal_task *task);

static void check_mine(const struct shoal_future *future, const char *what)
{
#ifdef SHOAL_DEBUG
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL, "%s of a future on a thread that is no core", what);
    if (future != core->no_memory)
        shoal_slab_check_live(&core->hot.futures, future, what);
#else
    (void)future;
    (void)what;
#endif
}

static inline struct shoal_future *future_take(struct shoal_core *core, const void *place)
{
    struct shoal_future *future = shoal_slab_take_at(&core->hot.futures, place);
    if (SHOAL_UNLIKELY(future == NULL))
        return NULL;
    future->word = core->hot.pending_word;
    return future;
}

static inline void future_give(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_LIKELY(!shoal_future_is_immortal(future)))
        shoal_slab_give(&core->hot.futures, future);
}

int shoal_futures_init(struct shoal_core *core)
{
    shoal_slab_init(&core->hot.futures, "future", sizeof(struct shoal_future), SHOAL_CACHE_LINE);
    struct shoal_future word = {.core = (uint16_t)core->id, .flags = SHOAL_FUTURE_PLAIN};
    word.state = SHOAL_FUTURE_READY;
    core->hot.ready_word = word.word;
    word.state = SHOAL_FUTURE_PENDING;
    core->hot.pending_word = word.word;
    word.flags |= SHOAL_FUTURE_DERIVED;
    core->hot.derived_word = word.word;
    core->hot.run_then = run_then;
    core->no_memory = future_take(core, __builtin_return_address(0));
    if (core->no_memory == NULL)
        return -ENOMEM;
    core->no_memory->state = SHOAL_FUTURE_FAILED;
    core->no_memory->error = -ENOMEM;
    core->no_memory->text = NULL;
    core->no_memory->flags |= SHOAL_FUTURE_IMMORTAL;
    return 0;
}

unsigned shoal_futures_deinit(struct shoal_core *core)
{
    shoal_slab_give(&core->hot.futures, core->no_memory);
    core->no_memory = NULL;
    return shoal_slab_deinit(&core->hot.futures);
}

/* ---- Producing ---- */

static inline void drop_outcome(struct shoal_future *future)
{
    if (future->state == SHOAL_FUTURE_FAILED) {
        shoal_text_free(future->text);
        future->text = NULL;
    } else if ((future->flags & SHOAL_FUTURE_DROPS) != 0) {
        future->drop(&future->value);
    }
}

/* Queues the consumer of `future` in the scheduling group that has registered it. */
static inline void post(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_LIKELY(future->group == core->hot.group))
        shoal_task_queue_push(core->hot.ready, &future->task);
    else
        shoal_sched_wake(core, &core->groups[future->group], &future->task);
}

/* Makes the outcome of a settled future -ENOMEM. */
static void spoil_outcome(struct shoal_future *future)
{
    drop_outcome(future);
    future->state = SHOAL_FUTURE_FAILED;
    future->error = -ENOMEM;
    future->text = NULL;
}

static void settled_slow(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_UNLIKELY((future->consumer_kind & SHOAL_CONSUMER_SPOILED) != 0)) {
        future->consumer_kind &= (uint8_t)~SHOAL_CONSUMER_SPOILED;
        spoil_outcome(future);
    }
    switch (future->consumer_kind) {
    case SHOAL_CONSUMER_FIBER:
        shoal_fiber_make_ready(core, future->consumer.fiber);
        break;
    case SHOAL_CONSUMER_THEN:
        future->task.run = run_then;
        post(core, future);
        break;
    case SHOAL_CONSUMER_TASK:
        post(core, future);
        break;
    case SHOAL_CONSUMER_DISCARD:
        drop_outcome(future);
        future_give(core, future);
        break;
    default:
        break;
    }
}

/* Hands a future that has just settled to its consumer, if that has come already. */
static inline void settled(struct shoal_core *core, struct shoal_future *future)
{
    if (future->consumer_kind != SHOAL_CONSUMER_THEN) {
        settled_slow(core, future);
        return;
    }
    future->task.run = run_then;
    post(core, future);
}

static void settle_failed(struct shoal_core *core, struct shoal_future *future, int code,
                          char *text_move)
{
    SHOAL_CHECK(code < 0 && code >= SHOAL_ERROR_MIN, "a failure with code %d (allowed: %d to -1)",
                code, SHOAL_ERROR_MIN);
    future->state = SHOAL_FUTURE_FAILED;
    future->error = (int16_t)code;
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

struct shoal_future *shoal_future_new_slow(void)
{
    return new_at(__builtin_return_address(0));
}

struct shoal_future *shoal_future_new(void)
{
    return new_at(__builtin_return_address(0));
}

struct shoal_future *shoal_future_ready_slow(const union shoal_value *value)
{
    struct shoal_future *future = new_at(__builtin_return_address(0));
    if (!shoal_future_is_immortal(future))
        shoal_future_resolve(future, value);
    return future;
}

struct shoal_future *shoal_future_ready(const union shoal_value *value)
{
    struct shoal_future *future = new_at(__builtin_return_address(0));
    if (!shoal_future_is_immortal(future))
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
    if (!shoal_future_is_immortal(future))
        shoal_future_fail(future, code, text);
    return future;
}

void shoal_future_on_cancel(struct shoal_future *future, shoal_cancel_fn *cancel, void *ctx)
{
    check_mine(future, "on_cancel");
    if (shoal_future_is_immortal(future))
        return;
    SHOAL_DCHECK(future->state == SHOAL_FUTURE_PENDING &&
                     (future->flags & SHOAL_FUTURE_DERIVED) == 0,
                 "a cancel hook belongs to a pending future of a producer");
    future->flags |= SHOAL_FUTURE_HOOKED;
    future->root.cancel = cancel;
    future->root.ctx = ctx;
}

void shoal_future_on_drop(struct shoal_future *future, shoal_drop_fn *drop)
{
    check_mine(future, "on_drop");
    if (shoal_future_is_immortal(future))
        return;
    SHOAL_DCHECK(future->state == SHOAL_FUTURE_PENDING, "a drop hook comes before the value");
    future->drop = drop;
    if (drop != NULL)
        future->flags |= SHOAL_FUTURE_DROPS;
    else
        future->flags &= (uint8_t)~SHOAL_FUTURE_DROPS;
}

void shoal_future_resolve(struct shoal_future *future, const union shoal_value *value)
{
    check_mine(future, "resolve");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    future->flags &= (uint8_t)~SHOAL_FUTURE_HOOKED;
    if (value != NULL)
        SHOAL_VALUE_COPY(&future->value, value);
    else
        memset(&future->value, 0, sizeof(future->value));
    settle_ready(shoal_core_self, future);
}

void shoal_future_fail(struct shoal_future *future, int code, const char *text)
{
    check_mine(future, "fail");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    settle_failed(shoal_core_self, future, code, shoal_text_copy(text));
}

void shoal_future_fail_move(struct shoal_future *future, int code, char *text_move)
{
    check_mine(future, "fail");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    settle_failed(shoal_core_self, future, code, text_move);
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
    while (future->state == SHOAL_FUTURE_PENDING && (future->flags & SHOAL_FUTURE_DERIVED) != 0 &&
           future->derived.upstream != NULL)
        future = future->derived.upstream;
    if (future->state == SHOAL_FUTURE_PENDING && (future->flags & SHOAL_FUTURE_HOOKED) != 0)
        future->root.cancel(future->root.ctx);
}

void shoal_discard_slow(struct shoal_future *future)
{
    check_mine(future, "discard");
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    if (future->state == SHOAL_FUTURE_PENDING) {
        shoal_future_set_consumer(future, SHOAL_CONSUMER_DISCARD);
        return;
    }
    drop_outcome(future);
    future_give(shoal_core_self, future);
}

void shoal_discard(struct shoal_future *future)
{
    shoal_discard_slow(future);
}

/* Takes the outcome out of a settled future and frees it. */
static int take_outcome(struct shoal_core *core, struct shoal_future *future,
                        union shoal_value *out)
{
    int error = future->error;
    if (SHOAL_LIKELY(future->state == SHOAL_FUTURE_READY)) {
        if (out != NULL)
            SHOAL_VALUE_COPY(out, &future->value);
        else if ((future->flags & SHOAL_FUTURE_DROPS) != 0)
            future->drop(&future->value);
    } else {
        shoal_fiber_set_message(core->fiber, future->text);
        if (!shoal_future_is_immortal(future))
            future->text = NULL;
    }
    future_give(core, future);
    return error;
}

static void wait_settled(struct shoal_core *core, struct shoal_fiber *fiber,
                         struct shoal_future *future)
{
    shoal_future_set_consumer(future, SHOAL_CONSUMER_FIBER);
    future->consumer.fiber = fiber;
    fiber->waits_for = "future";
    fiber->waiting_future = future;
    for (;;) {
        shoal_fiber_park(core, fiber);
        if (SHOAL_LIKELY(future->state != SHOAL_FUTURE_PENDING))
            break;
        if (shoal_fiber_cancelled_now(fiber)) /* it may have come while the fiber was to run */
            shoal_future_cancel(future);
    }
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

int shoal_await_slow(struct shoal_future *future, union shoal_value *out)
{
    struct shoal_core *core = shoal_core_self;
    check_mine(future, "await");
    SHOAL_CHECK(core->fiber != NULL, "await outside a fiber");
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    struct shoal_fiber *fiber = core->fiber;
    if (SHOAL_UNLIKELY(shoal_fiber_cancelled_now(fiber)))
        return await_cancelled(core, future);
    if (future->state == SHOAL_FUTURE_PENDING)
        wait_settled(core, fiber, future);
    int code = take_outcome(core, future, out);
    if (SHOAL_UNLIKELY(code == -ECANCELED))
        return shoal_fiber_cancelled_now(fiber) ? fiber->cancel_code : code;
    return code;
}

int shoal_await(struct shoal_future *future, union shoal_value *out)
{
    return shoal_await_slow(future, out);
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
        to->flags &= (uint8_t)~SHOAL_FUTURE_DERIVED;
        SHOAL_VALUE_COPY(&to->value, &from->value);
        if (SHOAL_UNLIKELY((from->flags & SHOAL_FUTURE_DROPS) != 0)) {
            to->flags |= SHOAL_FUTURE_DROPS;
            to->drop = from->drop;
        }
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

/* Settles `derived` by a function's code; its value is in place already. */
static void settle_by_code(struct shoal_core *core, struct shoal_future *derived, int code)
{
    if (SHOAL_UNLIKELY(code < 0))
        settle_failed(core, derived, code, NULL);
    else
        settle_ready(core, derived);
}

/* Clears the payload for the value to come; from here on `derived` cannot be cancelled. */
static void begin_value(struct shoal_future *derived)
{
    derived->flags &= (uint8_t)~SHOAL_FUTURE_DERIVED;
    memset(&derived->value, 0, sizeof(derived->value));
}

static void run_then(struct shoal_task *task)
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
            settle_failed(core, derived, code, NULL);
            return;
        }
        derived->state = SHOAL_FUTURE_READY;
        /* The next link, in place of a trip through the queue. */
        if (derived->consumer_and_group != core->hot.then_consumer || core->budget == 0) {
            settled(core, derived);
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
        settle_failed(core, derived, inner->error, NULL);
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
    char *text = upstream->text;
    int upstream_code = upstream->error;
    shoal_catch_fn *fn = derived->derived.fn.caught;
    void *arg = derived->derived.arg;
    begin_value(derived);
    int code = fn(arg, upstream_code, text != NULL ? text : "", &derived->value);
    future_give(core, upstream);
    if (code < 0 && code == upstream_code) {
        settle_failed(core, derived, code, text);
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
    check_mine(future, "consume");
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
    future_give(shoal_core_self, future);
    return code;
}

struct shoal_future *shoal_future_spoil(struct shoal_future *upstream)
{
    if (upstream->state == SHOAL_FUTURE_PENDING)
        upstream->consumer_kind = SHOAL_CONSUMER_SPOILED;
    else
        spoil_outcome(upstream);
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
    check_mine(upstream, "chain");
    SHOAL_CHECK(shoal_future_is_free(upstream), "future %p is consumed twice", (void *)upstream);
    if (SHOAL_UNLIKELY(shoal_future_is_immortal(upstream))) {
        /* It cannot carry a continuation; one of its own can, if there is memory by now. */
        upstream = future_take(core, place);
        if (upstream == NULL)
            return NULL;
        settle_failed(core, upstream, -ENOMEM, NULL);
    }
    struct shoal_future *derived = future_take(core, place);
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
    struct shoal_future *derived = chain(&future, SHOAL_CONSUMER_THEN, run_then, arg, place);
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
