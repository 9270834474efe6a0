/*
 * Futures inside; the layout is in future_inline.h, since some calls are inlined.
 */
#ifndef SHOAL_RUNTIME_FUTURE_IMPL_H
#define SHOAL_RUNTIME_FUTURE_IMPL_H

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/task.h"

/* The flags of a plain future of this build. */
#ifdef SHOAL_SLAB_CHECKED
#define SHOAL_FUTURE_PLAIN SHOAL_FUTURE_CHECKED
#else
#define SHOAL_FUTURE_PLAIN UINT8_C(0)
#endif

static inline bool shoal_future_is_immortal(const struct shoal_future *future)
{
    return (future->flags & SHOAL_FUTURE_IMMORTAL) != 0;
}

/* What frees the value of a future that is pending or ready; NULL: nothing to free. */
static inline shoal_drop_fn *shoal_future_drop_hook(const struct shoal_future *future)
{
    return (future->flags & SHOAL_FUTURE_DROPS) != 0 ? future->drop : NULL;
}

/* Whether nobody consumes `future` yet. */
static inline bool shoal_future_is_free(const struct shoal_future *future)
{
    return (future->consumer_kind & (uint8_t)~SHOAL_CONSUMER_SPOILED) == SHOAL_CONSUMER_NONE;
}

static inline void shoal_future_set_consumer(struct shoal_future *future, uint8_t kind)
{
    future->consumer_kind = (uint8_t)((future->consumer_kind & SHOAL_CONSUMER_SPOILED) | kind);
}

struct shoal_core;
int shoal_futures_init(struct shoal_core *core);
unsigned shoal_futures_deinit(struct shoal_core *core);

/*
 * Consumes `future` by a task of the library's own: once it has settled, `run` is called from the
 * queue, and gets at it by shoal_future_outcome(). Allocates nothing. Returns -ENOMEM, and nothing
 * will run, when `future` is the core's out-of-memory future.
 */
int shoal_future_consume(struct shoal_future *future, void (*run)(struct shoal_task *task),
                         void *ctx);

/*
 * In such a `run`: the context, the code and value, and the text (to be freed); frees the future.
 */
int shoal_future_outcome(struct shoal_task *task, void **ctx, union shoal_value *value,
                         char **text_move);

/* shoal_future_fail() with a text of shoal_text_copy()'s, which is taken over. */
void shoal_future_fail_move(struct shoal_future *future, int code, char *text_move);

/*
 * No memory for what would follow `upstream`: it stands in for that, and fails with -ENOMEM. Not
 * before it settles, since what works towards it uses what the consumer frees after the result.
 */
struct shoal_future *shoal_future_spoil(struct shoal_future *upstream);

/* Copies and frees the text of a failure; NULL in, or no memory, gives NULL. */
char *shoal_text_copy(const char *text);
void shoal_text_free(char *text);

#endif
