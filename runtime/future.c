/*
 * Futures: making, settling and awaiting them. See future.h for the contract, future_inline.h for
 * the layout, and future_chain.c for what follows a future.
 *
 * Settling a future queues its consumer; nothing of the consumer runs inside.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/future_settle_impl.h"
#include "shoal/runtime/owner_impl.h"

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
    core->hot.run_then = shoal_future_run_then;
    core->no_memory = shoal_future_take(core, __builtin_return_address(0));
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

void shoal_future_settled_slow(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_UNLIKELY((future->consumer_kind & SHOAL_CONSUMER_SPOILED) != 0)) {
        future->consumer_kind &= (uint8_t)~SHOAL_CONSUMER_SPOILED;
        shoal_future_spoil_outcome(future);
    }
    switch (future->consumer_kind) {
    case SHOAL_CONSUMER_FIBER:
        shoal_fiber_make_ready(core, future->consumer.fiber);
        break;
    case SHOAL_CONSUMER_THEN:
        future->task.run = shoal_future_run_then;
        shoal_future_post(core, future);
        break;
    case SHOAL_CONSUMER_TASK:
        shoal_future_post(core, future);
        break;
    case SHOAL_CONSUMER_DISCARD:
        shoal_future_drop_outcome(future);
        shoal_future_give(core, future);
        break;
    default:
        break;
    }
}

void shoal_future_settle_failed(struct shoal_core *core, struct shoal_future *future, int code,
                                char *text_move)
{
    SHOAL_CHECK(code < 0 && code >= SHOAL_ERROR_MIN, "a failure with code %d (allowed: %d to -1)",
                code, SHOAL_ERROR_MIN);
    future->state = SHOAL_FUTURE_FAILED;
    future->error = (int16_t)code;
    future->text = text_move;
    shoal_future_settled(core, future);
}

static struct shoal_future *new_at(const void *place)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK_ON_CORE("making of a future");
    struct shoal_future *future = shoal_future_take(core, place);
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

static struct shoal_future *ready_at(const union shoal_value *value, const void *place)
{
    struct shoal_future *future = new_at(place);
    if (!shoal_future_is_immortal(future))
        shoal_future_resolve(future, value);
    return future;
}

struct shoal_future *shoal_future_ready_slow(const union shoal_value *value)
{
    return ready_at(value, __builtin_return_address(0));
}

struct shoal_future *shoal_future_ready(const union shoal_value *value)
{
    return ready_at(value, __builtin_return_address(0));
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
    shoal_future_check_mine(future, "on_cancel");
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
    shoal_future_check_mine(future, "on_drop");
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
    shoal_future_check_mine(future, "resolve");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    future->flags &= (uint8_t)~SHOAL_FUTURE_HOOKED;
    if (value != NULL)
        SHOAL_VALUE_COPY(&future->value, value);
    else
        memset(&future->value, 0, sizeof(future->value));
    shoal_future_settle_ready(shoal_core_self, future);
}

void shoal_future_fail(struct shoal_future *future, int code, const char *text)
{
    shoal_future_check_mine(future, "fail");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    shoal_future_settle_failed(shoal_core_self, future, code, shoal_text_copy(text));
}

void shoal_future_fail_move(struct shoal_future *future, int code, char *text_move)
{
    shoal_future_check_mine(future, "fail");
    SHOAL_CHECK(future->state == SHOAL_FUTURE_PENDING, "future %p is resolved twice",
                (void *)future);
    shoal_future_settle_failed(shoal_core_self, future, code, text_move);
}

/* ---- Consuming ---- */

bool shoal_future_is_pending(const struct shoal_future *future)
{
    shoal_future_check_mine(future, "is_pending");
    return future->state == SHOAL_FUTURE_PENDING;
}

void shoal_future_cancel(struct shoal_future *future)
{
    shoal_future_check_mine(future, "cancel");
    while (future->state == SHOAL_FUTURE_PENDING && (future->flags & SHOAL_FUTURE_DERIVED) != 0 &&
           future->derived.upstream != NULL)
        future = future->derived.upstream;
    if (future->state == SHOAL_FUTURE_PENDING && (future->flags & SHOAL_FUTURE_HOOKED) != 0)
        future->root.cancel(future->root.ctx);
}

void shoal_discard_slow(struct shoal_future *future)
{
    shoal_future_check_mine(future, "discard");
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    if (future->state == SHOAL_FUTURE_PENDING) {
        shoal_future_set_consumer(future, SHOAL_CONSUMER_DISCARD);
        return;
    }
    shoal_future_drop_outcome(future);
    shoal_future_give(shoal_core_self, future);
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
    shoal_future_give(core, future);
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
    shoal_future_drop_outcome(future);
    shoal_future_give(core, future);
    return core->fiber->cancel_code;
}

int shoal_await_slow(struct shoal_future *future, union shoal_value *out)
{
    struct shoal_core *core = shoal_core_self;
    shoal_future_check_mine(future, "await");
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
    SHOAL_CHECK_ON_CORE("error_message");
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    return fiber != NULL && fiber->message != NULL ? fiber->message : "";
}
