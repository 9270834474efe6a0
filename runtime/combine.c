/*
 * What the combinators share: see combine_impl.h.
 *
 * Cancelling. A cancel passes from a combinator to those inside it. Done by plain calls, its stack
 * would grow with the nesting. So only the outermost call works: those that it causes put their
 * combinator into a list of the core and return, and it goes on until that list is empty. Nothing
 * is freed meanwhile, since what a cancel settles is only queued (a state that settles in its own
 * cancel has left the list by then).
 */
#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/combine_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

/* ---- Memory ---- */

/* Odd numbers of cache lines; the last holds the state of 16 futures. */
static const uint32_t class_bytes[SHOAL_COMBINE_CLASSES] = {64, 192, 576, 960};

static struct shoal_slab *slab_for(struct shoal_combine_pool *pool, size_t bytes)
{
    for (unsigned i = 0; i < SHOAL_COMBINE_CLASSES; i++)
        if (bytes <= class_bytes[i])
            return &pool->slabs[i];
    return NULL;
}

static void pool_open(struct shoal_combine_pool *pool)
{
    for (unsigned i = 0; i < SHOAL_COMBINE_CLASSES; i++)
        shoal_slab_init(&pool->slabs[i], "combinator", class_bytes[i], SHOAL_CACHE_LINE);
    pool->cancel_tail = &pool->cancel_head;
    pool->open = true;
}

unsigned shoal_combine_pool_deinit(struct shoal_combine_pool *pool)
{
    unsigned live = 0;
    for (unsigned i = 0; pool->open && i < SHOAL_COMBINE_CLASSES; i++)
        live += shoal_slab_deinit(&pool->slabs[i]);
    pool->open = false;
    return live;
}

unsigned shoal_combine_pool_live(const struct shoal_combine_pool *pool)
{
    unsigned live = 0;
    for (unsigned i = 0; pool->open && i < SHOAL_COMBINE_CLASSES; i++)
        live += shoal_slab_live(&pool->slabs[i]);
    return live;
}

void *shoal_combine_alloc(size_t bytes)
{
    SHOAL_CHECK_ON_CORE("making of a combinator");
    struct shoal_combine_pool *pool = &shoal_core_self->combines;
    if (SHOAL_UNLIKELY(!pool->open))
        pool_open(pool);
    struct shoal_slab *slab = slab_for(pool, bytes);
    return slab != NULL ? shoal_slab_take(slab) : shoal_mem_alloc(bytes);
}

void shoal_combine_release(void *state, size_t bytes)
{
    struct shoal_slab *slab = slab_for(&shoal_core_self->combines, bytes);
    if (slab != NULL)
        shoal_slab_give(slab, state);
    else
        shoal_mem_free(state, bytes);
}

/* ---- A combinator ---- */

static void on_cancel(void *ctx)
{
    struct shoal_combine *combine = ctx;
    struct shoal_combine_pool *pool = &shoal_core_self->combines;
    if (combine->cancelled)
        return;
    combine->cancelled = true;
    combine->link = NULL;
    *pool->cancel_tail = combine;
    pool->cancel_tail = &combine->link;
    if (pool->cancelling)
        return;
    pool->cancelling = true;
    while ((combine = pool->cancel_head) != NULL) {
        pool->cancel_head = combine->link;
        if (pool->cancel_head == NULL)
            pool->cancel_tail = &pool->cancel_head;
        combine->cancel(combine);
    }
    pool->cancelling = false;
}

void *shoal_combine_new_in(size_t bytes, size_t zeroed,
                           void (*cancel)(struct shoal_combine *combine))
{
    struct shoal_combine *combine = shoal_combine_alloc(bytes);
    if (combine == NULL)
        return NULL;
    struct shoal_future *result = shoal_future_new();
    if (shoal_future_is_immortal(result)) {
        shoal_combine_release(combine, bytes);
        return NULL;
    }
    memset(combine, 0, zeroed);
    combine->bytes = bytes;
    combine->core = (uint16_t)shoal_core_self->id;
    combine->group = shoal_core_self->hot.group;
    combine->result = result;
    combine->cancel = cancel;
    shoal_future_on_cancel(result, on_cancel, combine);
    return combine;
}

void *shoal_combine_new(size_t bytes, void (*cancel)(struct shoal_combine *combine))
{
    return shoal_combine_new_in(bytes, bytes, cancel);
}

void shoal_combine_free(struct shoal_combine *combine)
{
    SHOAL_DCHECK(combine->result == NULL && !combine->posted,
                 "a combinator ends before its result");
    SHOAL_CHECK_OWNER(combine->core, "free", "combinator %p", (void *)combine);
    shoal_text_free(combine->text);
    shoal_combine_release(combine, combine->bytes);
}

void shoal_combine_post(struct shoal_combine *combine, void (*run)(struct shoal_task *task))
{
    SHOAL_DCHECK(!combine->posted, "a combinator is queued twice");
    combine->posted = true;
    combine->task.run = run;
    shoal_core_post_to(shoal_core_self, &shoal_core_self->groups[combine->group], &combine->task);
}

void shoal_combine_settle(struct shoal_combine *combine, struct shoal_outcome *outcome)
{
    struct shoal_future *result = combine->result;
    combine->result = NULL;
    if (outcome->code < 0) {
        shoal_future_fail_move(result, outcome->code, outcome->text);
        return;
    }
    if (outcome->drop != NULL)
        shoal_future_on_drop(result, outcome->drop);
    shoal_future_resolve(result, &outcome->value);
}

void shoal_combine_settle_failed(struct shoal_combine *combine)
{
    struct shoal_outcome outcome = {.code = combine->code, .text = combine->text};
    combine->text = NULL;
    shoal_combine_settle(combine, &outcome);
}

void shoal_combine_fault(struct shoal_combine *combine, int code, char *text_move)
{
    if (combine->code != 0) {
        shoal_text_free(text_move);
        return;
    }
    combine->code = code;
    combine->text = text_move;
}

/* ---- Inputs ---- */

/* Moves the outcome out of a future that has settled (the immortal one, too), and frees it. */
static void *take_settled(struct shoal_future *future, struct shoal_outcome *out)
{
    void *ctx;
    bool ready = future->state == SHOAL_FUTURE_READY;
    out->drop = ready ? shoal_future_drop_hook(future) : NULL;
    out->code = shoal_future_outcome(&future->task, &ctx, &out->value, &out->text);
    return ctx;
}

bool shoal_combine_take(struct shoal_future *future, void (*run)(struct shoal_task *task),
                        void *ctx, struct shoal_outcome *out)
{
    SHOAL_CHECK(future != NULL, "a combinator was given NULL in place of a future");
    if (shoal_future_is_pending(future)) {
        (void)shoal_future_consume(future, run, ctx);
        return false;
    }
    SHOAL_CHECK(shoal_future_is_free(future), "future %p is consumed twice", (void *)future);
    (void)take_settled(future, out);
    return true;
}

void *shoal_combine_outcome(struct shoal_task *task, struct shoal_outcome *out)
{
    return take_settled(SHOAL_CONTAINER_OF(task, struct shoal_future, task), out);
}

void shoal_outcome_drop(struct shoal_outcome *outcome)
{
    if (outcome->code < 0)
        shoal_text_free(outcome->text);
    else if (outcome->drop != NULL)
        outcome->drop(&outcome->value);
}

struct shoal_future *shoal_combine_no_memory(void)
{
    return shoal_core_self->no_memory;
}

static void cancel_each(struct shoal_future *const *futures, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (futures[i] != NULL)
            shoal_future_cancel(futures[i]);
}

struct shoal_future *shoal_combine_spoil(struct shoal_future *future)
{
    shoal_future_cancel(future);
    return shoal_future_spoil(future);
}

void shoal_combine_discard(struct shoal_future *const *futures, size_t count)
{
    cancel_each(futures, count);
    for (size_t i = 0; i < count; i++)
        if (futures[i] != NULL)
            shoal_discard(futures[i]);
}

int shoal_combine_await_no_memory(struct shoal_future *const *futures, size_t count)
{
    cancel_each(futures, count);
    for (size_t i = 0; i < count; i++)
        if (futures[i] != NULL)
            (void)shoal_await(futures[i], NULL);
    return shoal_await(shoal_core_self->no_memory, NULL);
}

struct shoal_future *shoal_combine_call(const struct shoal_call *call, const union shoal_value *in)
{
    if (call->fn != NULL)
        return call->fn(call->arg, in);
    struct shoal_future *future =
        shoal_async_named(call->fiber, call->arg, in, call->name != NULL ? call->name : "async");
    if (call->drop != NULL)
        shoal_future_on_drop(future, call->drop);
    return future;
}
