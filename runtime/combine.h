/*
 * Combinators: several futures, or several steps, as one future.
 *
 *   struct shoal_future *parts[] = {fetch("a"), fetch("b")};
 *   union shoal_value values[2];
 *   int rc = shoal_await_all(parts, 2, values);
 *
 * What holds for all of them, shoal_retry() (retry.h) included:
 *
 * 1. Futures that are given are consumed by the call, whatever comes of it, but for those that
 *    SHOAL_LOSERS_KEEP and shoal_when_settled() give back. The array of them is not kept.
 * 2. The functions that are given run from the loop, one at a time, in the scheduling group of the
 *    call, and never inside it. They must return a future, not NULL. Structs that describe the
 *    work are copied, with the arrays that they point at; what `arg` points at is the caller's, and
 *    must live until the returned future has settled.
 * 3. The returned future settles when all that was begun has ended, so that what it worked on may
 *    lie on the stack of the fiber that awaits it. Exceptions say so (SHOAL_LOSERS_LEAVE,
 *    shoal_timeout_leave()).
 * 4. A cancel of the returned future is passed on to all that is under way, and nothing more is
 *    begun. The outcome is what those then give: their first failure; -ECANCELED if there is none
 *    but something was left to do; or the value, if it was complete all the same. A discard does
 *    not cancel: the work goes on to its end, and its value is dropped.
 * 5. Values that nobody gets (of those that succeeded where the whole fails, of losers, of a
 *    consumer that is gone) go to their drop hooks, once.
 * 6. A failure keeps its code and text. Of several, the first in time is reported; of those that
 *    had failed before the call, the one that stands first.
 * 7. Where memory has run out the result fails with -ENOMEM, and what was given is cancelled. Calls
 *    that wait on the fiber, and those with one input (a time limit, a pipeline), wait for its end
 *    first. Several inputs of another call are discarded: what they work on must outlive them.
 * 8. The stack stays constant, for any number of steps and any depth of nesting, and other tasks
 *    get their turn in between.
 *
 * All of this belongs to one core; no call yields but shoal_await_all() and its kin. A call
 * allocates its result and one state, both from slabs: the state of up to 16 futures fits.
 *
 * A fiber needs none of this for a loop, a condition or a step after another: plain C does that.
 */
#ifndef SHOAL_RUNTIME_COMBINE_H
#define SHOAL_RUNTIME_COMBINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

/* ---- Functions on fibers, as futures ---- */

/*
 * A function that runs on a fiber of its own, and so may await and yield. `*in` and `*out` live on
 * until it returns; `*out` begins as zeros. Returns 0, or a negative code, which becomes the
 * failure, with shoal_error_message() of that fiber as its text.
 */
typedef int shoal_async_fn(void *arg, const union shoal_value *in, union shoal_value *out);

/*
 * Runs `fn(arg, in, out)` on a new fiber. `*in` is copied (NULL: zeros). A cancel of the returned
 * future cancels the fiber. If the value owns something, give the future a drop hook by
 * shoal_future_on_drop() right away.
 */
SHOAL_API struct shoal_future *shoal_async(shoal_async_fn *fn, void *arg,
                                           const union shoal_value *in);

/* The same, with a name for the fiber in reports, which is kept by reference. */
SHOAL_API struct shoal_future *shoal_async_named(shoal_async_fn *fn, void *arg,
                                                 const union shoal_value *in, const char *name);

/* ---- Results ---- */

/*
 * Several values, in the `ptr` of a future's value. Who consumes that future owns them: the values
 * are then the caller's, as after an await of each, and shoal_results_free() frees what holds them.
 */
struct shoal_results {
    size_t count;
    union shoal_value *values;
    const uint64_t *indices; /* of the input that each value came from; NULL: all, in order */
};

/* Frees the arrays, not what the values own. NULL is fine. */
SHOAL_API void shoal_results_free(struct shoal_results *results);

/* Hands each value to the drop hook that it came with, then frees. NULL is fine. */
SHOAL_API void shoal_results_drop(struct shoal_results *results);

/* ---- Several futures ---- */

/*
 * All of `futures`: results in the order given, whatever the order in which they come; an empty
 * array gives empty results. After a failure the others are waited for, not cancelled, and their
 * values are dropped.
 */
SHOAL_API struct shoal_future *shoal_when_all(struct shoal_future *const *futures, size_t count);

/* The same, where the first failure cancels the others. */
SHOAL_API struct shoal_future *shoal_when_all_or_cancel(struct shoal_future *const *futures,
                                                        size_t count);

/*
 * Waits on the calling fiber for all of `futures`, and writes their values to `values[0..count)`
 * (NULL: not wanted, they are dropped). Returns 0, or the first failure, with its text in
 * shoal_error_message(); then `values` is untouched. Yields, unless all have settled.
 */
SHOAL_API int shoal_await_all(struct shoal_future *const *futures, size_t count,
                              union shoal_value *values);

/* What becomes of the futures that are not needed once the outcome is known. */
enum shoal_losers {
    /* Cancelled, and the result waits until they have ended. Late values are dropped. */
    SHOAL_LOSERS_JOIN,
    /* Cancelled, and the result does not wait: what they work on must outlive them. */
    SHOAL_LOSERS_LEAVE,
    /*
     * Untouched, and the caller's again. `futures` is used until the result has settled, and must
     * not be looked at before: then the entries of those that were consumed (winners, and failures
     * on the way) are NULL. A cancel leaves all that are pending to the caller, who ends the wait
     * with -ECANCELED, and a result that was there already is delivered.
     */
    SHOAL_LOSERS_KEEP,
};

/*
 * The first of `futures` to settle: results with one value and its index, or its failure. Entries
 * that are NULL are passed over, so that an array that was used with SHOAL_LOSERS_KEEP can be used
 * again for the rest. Of those that had settled before the call the lowest index wins. Without any
 * future it fails with -EINVAL.
 */
SHOAL_API struct shoal_future *shoal_when_any(struct shoal_future **futures, size_t count,
                                              enum shoal_losers losers);

/*
 * The first `needed` of `futures` to succeed, in the order in which they did. Fails with the first
 * failure once too few are left. 0 gives empty results at once; more than there are futures fails
 * with -EINVAL, and the futures are losers in both cases. NULL is passed over.
 */
SHOAL_API struct shoal_future *shoal_when_some(struct shoal_future **futures, size_t count,
                                               size_t needed, enum shoal_losers losers);

struct shoal_winner {
    size_t index;            /* of the one that settled first; `count` if none did */
    union shoal_value value; /* if it succeeded */
};

/*
 * Waits on the calling fiber for the first of `futures` to settle, as shoal_when_any() does, and
 * returns its code. `out->index` tells which it was, also when it failed.
 */
SHOAL_API int shoal_await_any(struct shoal_future **futures, size_t count, enum shoal_losers losers,
                              struct shoal_winner *out);

/*
 * Waits until each of `futures` has settled, and consumes none: none of them may be touched before
 * the returned future has settled; then each is the caller's again, with its value or failure. NULL
 * is passed over. A cancel ends the wait with -ECANCELED, and does not reach them.
 */
SHOAL_API struct shoal_future *shoal_when_settled(struct shoal_future *const *futures,
                                                  size_t count);

/* ---- A time limit ---- */

/*
 * `future`, if it settles within `timeout_ns` (SHOAL_NS_FOREVER: no limit). Otherwise it is
 * cancelled, and once it has ended the result fails with -ETIMEDOUT; a value that came late is
 * dropped. One that has settled when the limit passes is in time; one that has settled before the
 * call is returned as it is.
 */
SHOAL_API struct shoal_future *shoal_timeout(struct shoal_future *future, uint64_t timeout_ns);

/*
 * The same, but -ETIMEDOUT comes when the limit passes, even if `future` takes long to end. What it
 * works on must outlive it.
 */
SHOAL_API struct shoal_future *shoal_timeout_leave(struct shoal_future *future,
                                                   uint64_t timeout_ns);

/*
 * Waits on the calling fiber for `future`, as shoal_await(shoal_timeout(future, timeout_ns), out)
 * does, but allocates nothing. Yields, unless `future` has settled.
 */
SHOAL_API int shoal_await_timeout(struct shoal_future *future, uint64_t timeout_ns,
                                  union shoal_value *out);

/* ---- Several items ---- */

/*
 * Work on each of several items: shoal_map(&(struct shoal_each){.count = n, .limit = 8, .fn = f}).
 * One of `fn` and `fiber` is set. After a failure no more items are begun, and those under way are
 * waited for.
 */
struct shoal_each {
    const union shoal_value *items; /* copied; NULL: each item is its own index, in `u64` */
    size_t count;
    size_t limit;             /* how many are under way at once; 0: all */
    shoal_then_future_fn *fn; /* returns a future for one item */
    shoal_async_fn *fiber;    /* or works on one item on a fiber of its own */
    shoal_drop_fn *drop;    /* frees a value of `fiber` (a future of `fn` has a hook of its own) */
    void *arg;              /* for either */
    const char *name;       /* of the fibers, for reports; kept by reference; NULL: "async" */
    bool cancel_on_failure; /* a failure cancels those under way */
};

/* Each item; what comes of it is dropped. */
SHOAL_API struct shoal_future *shoal_for_each(const struct shoal_each *each);

/* Results: the value for each item, in the order of the items. */
SHOAL_API struct shoal_future *shoal_map(const struct shoal_each *each);

/*
 * Results: the items for which the value's `u64` was not 0, in order, with their indices. They
 * remain the caller's, who owns what they refer to.
 */
SHOAL_API struct shoal_future *shoal_filter(const struct shoal_each *each);

/* The future of a new sum, of `*sum`, which it owns, and the next item. */
typedef struct shoal_future *shoal_reduce_fn(void *arg, const union shoal_value *sum,
                                             const union shoal_value *item);

struct shoal_reduction {
    const union shoal_value *items; /* as in struct shoal_each */
    size_t count;
    shoal_reduce_fn *fn;
    void *arg;
    union shoal_value initial; /* the first sum; the result, if there are no items */
    shoal_drop_fn *drop;       /* frees `initial` if `fn` is never called */
};

/* One item after another; the value is the last sum. */
SHOAL_API struct shoal_future *shoal_reduce(const struct shoal_reduction *reduction);

/* ---- Several times ---- */

typedef struct shoal_future *shoal_step_fn(void *arg);
typedef bool shoal_done_fn(void *arg);

/* `step(arg)` again and again, until the value of one is not 0 (its `u64`): that is the result. */
SHOAL_API struct shoal_future *shoal_repeat(shoal_step_fn *step, void *arg);

/* `step(arg)` until `done(arg)`, which is asked before each; values of steps are dropped. */
SHOAL_API struct shoal_future *shoal_do_until(shoal_done_fn *done, shoal_step_fn *step, void *arg);

/* ---- One after another ---- */

/* A stage gets the value of the one before, and owns it. One of the three functions is set. */
struct shoal_stage {
    shoal_then_fn *then;               /* may not yield */
    shoal_then_future_fn *then_future; /* its future's value goes on */
    shoal_async_fn *fiber;             /* on a fiber of its own */
    shoal_drop_fn *drop;               /* frees a value that `then` or `fiber` has made */
    void *arg;
    const char *name; /* of the fiber, for reports; kept by reference; NULL: "async" */
};

/*
 * The value of `future` through `stages[0]`, then `stages[1]`, and so on. A failure skips the rest.
 * The same as a chain of shoal_then(), with one state in place of a future for each stage. Without
 * stages it returns `future`.
 */
SHOAL_API struct shoal_future *shoal_pipeline(struct shoal_future *future,
                                              const struct shoal_stage *stages, size_t count);

SHOAL_END_DECLS

#endif
