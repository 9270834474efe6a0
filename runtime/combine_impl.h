/*
 * What the combinators share: a state per call, the outcome of a future as a thing of its own, and
 * the results that are handed out.
 *
 * 1. A state begins with struct shoal_combine. It is freed by a task or by its own cancel, never
 *    inside another call that holds it.
 * 2. An input future is held from shoal_combine_take() until its task has run; in between it may be
 *    cancelled, but not freed.
 * 3. This is the only place beside future.c that looks into struct shoal_future.
 */
#ifndef SHOAL_RUNTIME_COMBINE_IMPL_H
#define SHOAL_RUNTIME_COMBINE_IMPL_H

#include "shoal/runtime/combine.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/task.h"

/* How many steps a combinator makes in one task, where each is ready at once. */
#define SHOAL_COMBINE_BURST 16

struct shoal_combine {
    struct shoal_task task;                        /* for states that take turns of their own */
    struct shoal_future *result;                   /* NULL once it has settled */
    void (*cancel)(struct shoal_combine *combine); /* asked once, while `result` is pending */
    struct shoal_combine *link; /* in a list of the core: to be cancelled, or dropped */
    char *text;                 /* of `code` */
    size_t bytes;
    int32_t code; /* the failure that will be reported; 0 as long as there is none */
    uint16_t core;
    uint8_t group; /* scheduling group of the call: where `task` is queued */
    bool cancelled : 1;
    bool posted : 1; /* `task` is queued */
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_combine) == SHOAL_CACHE_LINE, "it heads every state");

/* How a future has ended. Whoever holds it owns the value (if `code` is 0) and the text. */
struct shoal_outcome {
    int code;
    shoal_drop_fn *drop;
    char *text;
    union shoal_value value;
};

/* ---- Memory ---- */

/* From the pool; NULL when out of memory. Not initialised. */
void *shoal_combine_alloc(size_t bytes);
void shoal_combine_release(void *state, size_t bytes);

/* ---- A combinator ---- */

/* A zeroed state with its pending result; NULL when out of memory. `_in` zeroes its begin only. */
void *shoal_combine_new_in(size_t bytes, size_t zeroed,
                           void (*cancel)(struct shoal_combine *combine));
void *shoal_combine_new(size_t bytes, void (*cancel)(struct shoal_combine *combine));

/* Frees a state that has settled. */
void shoal_combine_free(struct shoal_combine *combine);

/* Has `run` called from the loop with `combine->task`. */
void shoal_combine_post(struct shoal_combine *combine, void (*run)(struct shoal_task *task));

/* Gives the outcome, which is moved, to the result. */
void shoal_combine_settle(struct shoal_combine *combine, struct shoal_outcome *outcome);

/* Fails the result with what shoal_combine_fault() has noted. */
void shoal_combine_settle_failed(struct shoal_combine *combine);

/* Notes a failure, if it is the first; `text_move` is taken over either way. */
void shoal_combine_fault(struct shoal_combine *combine, int code, char *text_move);

/* ---- Inputs ---- */

/*
 * Consumes `future`. Returns true with `*out` if it has settled; else `run` will be called with
 * `ctx` once it has, and shoal_combine_outcome() gives both.
 */
bool shoal_combine_take(struct shoal_future *future, void (*run)(struct shoal_task *task),
                        void *ctx, struct shoal_outcome *out);

/* In such a `run`: the outcome, and `ctx` as the result; frees the future. */
void *shoal_combine_outcome(struct shoal_task *task, struct shoal_outcome *out);

/* In such a `run`: `ctx` alone. */
static inline void *shoal_combine_ctx(struct shoal_task *task)
{
    return SHOAL_CONTAINER_OF(task, struct shoal_future, task)->consumer.ctx;
}

/* Makes a future that was taken the caller's again. Only while pending, or in its `run`. */
static inline void shoal_combine_untake(struct shoal_future *future)
{
    shoal_future_set_consumer(future, SHOAL_CONSUMER_NONE);
    future->group = 0;
}

/* Whether the consumer of a pending future has discarded it. */
static inline bool shoal_combine_discarded(const struct shoal_future *future)
{
    return (future->consumer_kind & (uint8_t)~SHOAL_CONSUMER_SPOILED) == SHOAL_CONSUMER_DISCARD;
}

/* Frees what an outcome owns. */
void shoal_outcome_drop(struct shoal_outcome *outcome);

/* The future of out of memory. */
struct shoal_future *shoal_combine_no_memory(void);

/* Where a future finds no memory for what was to follow: cancelled, it stands in for that. */
struct shoal_future *shoal_combine_spoil(struct shoal_future *future);

/* Cancels and discards `count` futures; NULL among them is skipped. */
void shoal_combine_discard(struct shoal_future *const *futures, size_t count);

/* Where a wait on the fiber has found no memory: cancels them, and waits until each has ended. */
int shoal_combine_await_no_memory(struct shoal_future *const *futures, size_t count);

/* "timed out after ..." for a limit of so much; NULL when out of memory. */
char *shoal_combine_timeout_text(uint64_t limit_ns);

/* ---- Functions that make futures ---- */

/* What a user has given: one of `fn` and `fiber`. */
struct shoal_call {
    shoal_then_future_fn *fn;
    shoal_async_fn *fiber;
    shoal_drop_fn *drop; /* of a value of `fiber` */
    void *arg;
    const char *name; /* of the fiber */
};

/* The future of one call. */
struct shoal_future *shoal_combine_call(const struct shoal_call *call, const union shoal_value *in);

/* ---- Results ---- */

/*
 * The head of a state that becomes the results: what the consumer gets is `results`, inside.
 * The memory lives until both the combinator and the consumer have let go of it.
 *
 *   | state | drops | indices (or none) | slots | values |    all but the values begins as zeros
 */
struct shoal_results_box {
    struct shoal_combine base;
    struct shoal_results results;
    shoal_drop_fn **drops; /* of each value; NULL for those that are not there */
    uint32_t users;
};

struct shoal_results_shape {
    size_t state_bytes;
    size_t values;
    bool indices;
    size_t slots;
    size_t slot_bytes;
};

/* A state that begins with a box. NULL when out of memory. */
void *shoal_results_new(const struct shoal_results_shape *shape, void **slots,
                        void (*cancel)(struct shoal_combine *combine));

/* Drops the values that are there. */
void shoal_results_drop_values(struct shoal_results_box *box);

/* Hands the results to the consumer of the combinator, or fails it where a fault was noted. */
void shoal_results_settle(struct shoal_results_box *box);

/* The combinator, or the consumer, lets go of the memory. */
void shoal_results_put(struct shoal_results_box *box);

#endif
