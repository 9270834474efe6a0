/*
 * What future.c and future_chain.c share: taking, giving back and settling, inlined into both.
 */
#ifndef SHOAL_RUNTIME_FUTURE_SETTLE_IMPL_H
#define SHOAL_RUNTIME_FUTURE_SETTLE_IMPL_H

#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/owner_impl.h"

/* In a checked build: this is a live future of the calling core. */
static inline void shoal_future_check_mine(const struct shoal_future *future, const char *what)
{
#ifdef SHOAL_SLAB_CHECKED
    const struct shoal_core *core = shoal_core_self;
    if (core == NULL)
        SHOAL_CHECK_OWNER(future->core, what, "future %p", (const void *)future);
    else if (future != core->no_memory)
        shoal_slab_check_live(&core->hot.futures, future, what);
#else
    (void)future;
    (void)what;
#endif
}

/* A pending one; NULL when out of memory. `place`: the code address to blame. */
static inline struct shoal_future *shoal_future_take(struct shoal_core *core, const void *place)
{
    struct shoal_future *future = shoal_slab_take_at(&core->hot.futures, place);
    if (SHOAL_UNLIKELY(future == NULL))
        return NULL;
    future->word = core->hot.pending_word;
    return future;
}

static inline void shoal_future_give(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_LIKELY(!shoal_future_is_immortal(future)))
        shoal_slab_give(&core->hot.futures, future);
}

/* Frees what a settled future owns. */
static inline void shoal_future_drop_outcome(struct shoal_future *future)
{
    if (future->state == SHOAL_FUTURE_FAILED) {
        shoal_text_free(future->text);
        future->text = NULL;
    } else if ((future->flags & SHOAL_FUTURE_DROPS) != 0) {
        future->drop(&future->value);
    }
}

/* Queues the consumer of `future` in the scheduling group that has registered it. */
static inline void shoal_future_post(struct shoal_core *core, struct shoal_future *future)
{
    if (SHOAL_LIKELY(future->group == core->hot.group))
        shoal_task_queue_push(core->hot.ready, &future->task);
    else
        shoal_sched_wake(core, &core->groups[future->group], &future->task);
}

/* Makes the outcome of a settled future -ENOMEM. */
static inline void shoal_future_spoil_outcome(struct shoal_future *future)
{
    shoal_future_drop_outcome(future);
    future->state = SHOAL_FUTURE_FAILED;
    future->error = -ENOMEM;
    future->text = NULL;
}

/* The task of a future that a `then` consumes. */
void shoal_future_run_then(struct shoal_task *task);

/* For consumers that are no `then`. */
void shoal_future_settled_slow(struct shoal_core *core, struct shoal_future *future);

/* Hands a future that has just settled to its consumer, if that has come already. */
static inline void shoal_future_settled(struct shoal_core *core, struct shoal_future *future)
{
    if (future->consumer_kind == SHOAL_CONSUMER_THEN) {
        future->task.run = shoal_future_run_then;
        shoal_future_post(core, future);
    } else if (future->consumer_kind != SHOAL_CONSUMER_NONE) {
        shoal_future_settled_slow(core, future);
    }
}

static inline void shoal_future_settle_ready(struct shoal_core *core, struct shoal_future *future)
{
    future->state = SHOAL_FUTURE_READY;
    shoal_future_settled(core, future);
}

/* `text_move` is taken over. Aborts unless `code` is from SHOAL_ERROR_MIN to -1. */
void shoal_future_settle_failed(struct shoal_core *core, struct shoal_future *future, int code,
                                char *text_move);

#endif
