/*
 * The layout of a future: one cache line.
 *
 *    0  task      queued when the future has settled and a continuation consumes it
 *   16  value     24 bytes; while pending it holds what only a pending future needs:
 *                 a root: the cancel hook and its context; a derived one: the function that will
 *                 make it, that function's argument, and the future it comes from
 *   40  consumer  the awaiting fiber, or the derived future
 *   48  drop (pending, ready) or text (failed)
 *   56  error, core, state, consumer kind and flags
 */
#ifndef SHOAL_RUNTIME_FUTURE_IMPL_H
#define SHOAL_RUNTIME_FUTURE_IMPL_H

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/task.h"

enum shoal_future_state { SHOAL_FUTURE_PENDING = 1, SHOAL_FUTURE_READY, SHOAL_FUTURE_FAILED };

enum shoal_future_consumer {
    SHOAL_CONSUMER_NONE,
    SHOAL_CONSUMER_FIBER,
    SHOAL_CONSUMER_TASK,
    SHOAL_CONSUMER_DISCARD,
};

struct shoal_future {
    struct shoal_task task;
    union {
        union shoal_value value;
        struct {
            shoal_cancel_fn *cancel;
            void *ctx;
        } root;
        struct {
            union {
                shoal_then_fn *then;
                shoal_then_future_fn *then_future;
                shoal_catch_fn *caught;
                shoal_finally_fn *finally;
            } fn;
            void *arg;
            struct shoal_future *upstream; /* NULL once it has run */
        } derived;
    };
    union {
        struct shoal_fiber *fiber;
        struct shoal_future *derived;
        void *ctx; /* of a task of the library's own */
    } consumer;
    union {
        shoal_drop_fn *drop;
        char *text;
    };
    int32_t error;
    uint16_t core;
    uint8_t state;
    uint8_t consumer_kind : 3;
    uint8_t is_derived : 1;
    uint8_t immortal : 1; /* the core's -ENOMEM future: may be consumed any number of times */
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_future) == SHOAL_CACHE_LINE, "a future is a cache line");

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

/* Copies and frees the text of a failure; NULL in, or no memory, gives NULL. */
char *shoal_text_copy(const char *text);
void shoal_text_free(char *text);

#endif
