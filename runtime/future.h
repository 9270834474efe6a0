/*
 * Futures: a value or an error that comes later, on this core.
 *
 *   struct shoal_future *sum = shoal_then(shoal_submit_to(1, load, NULL), add_one, NULL);
 *   union shoal_value value;
 *   int rc = shoal_await(sum, &value);
 *
 * 1. One producer resolves a future once; one consumer consumes it once: it is awaited, chained
 *    (shoal_then and its kin), or discarded. After that the pointer is dead.
 * 2. A failure carries a code (0 or negative, see errors.h) and an optional text. It skips `then`,
 *    keeps both through any chain, and ends at shoal_catch, at the await, or at the discard.
 * 3. Continuations run from the loop, never inside the call that registers them or that resolves
 *    their future; a chain of any length uses constant stack. An await of a future that is ready
 *    returns at once.
 * 4. No call returns NULL: where memory has run out, the result is a future that fails with
 *    -ENOMEM. A continuation that finds none is skipped, and the failure comes when what is before
 *    it in the chain has ended: not earlier, since that may still use the consumer's memory.
 * 5. A value whose consumer is gone is handed to the drop hook that its producer gave. Where a
 *    value passes through unchanged (catch, finally, the future that then_future returned), so does
 *    its hook, in place of one that was given to the future after.
 * 6. Futures never leave their core. Debug builds abort on another core's future, on a second
 *    resolve, on a second consume, and report at stop what was never consumed, with its place.
 */
#ifndef SHOAL_RUNTIME_FUTURE_H
#define SHOAL_RUNTIME_FUTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* What a future carries, 24 bytes; who makes the future says which member. */
union shoal_value {
    void *ptr;
    int64_t i64;
    uint64_t u64;
    double f64;
    int fd;
    struct {
        void *ptr;
        uint64_t size;
        uint64_t tag;
    } slice;
    unsigned char bytes[24];
};

struct shoal_future;

/* `*out` from `*in`; returns 0, or a negative code that fails the chain. May not yield. */
typedef int shoal_then_fn(void *arg, const union shoal_value *in, union shoal_value *out);

/* The same, with a future as its result, whose outcome becomes that of the chain. */
typedef struct shoal_future *shoal_then_future_fn(void *arg, const union shoal_value *in);

/* Gets a failure; returns 0 with `*out` set to go on, or a negative code to fail again. */
typedef int shoal_catch_fn(void *arg, int code, const char *text, union shoal_value *out);

/*
 * Runs whatever the outcome, which passes through unchanged. It runs even where the chain itself
 * finds no memory: then at once, inside shoal_finally (the only continuation that ever does).
 */
typedef void shoal_finally_fn(void *arg);

/* Frees what a value owns, when nobody will consume it. May not yield. */
typedef void shoal_drop_fn(union shoal_value *value);

/* Asks the producer of a pending future to end early; it still resolves, perhaps with a value. */
typedef void shoal_cancel_fn(void *ctx);

/* ---- Producers ---- */

/* A pending future, for its one producer to resolve or fail, and its one consumer. */
SHOAL_API struct shoal_future *shoal_future_new(void);

/* A future that has its value already (`value` is copied; NULL for none), or its failure. */
SHOAL_API struct shoal_future *shoal_future_ready(const union shoal_value *value);
SHOAL_API struct shoal_future *shoal_future_failed(int code, const char *fmt, ...)
    SHOAL_PRINTF(2, 3);

/* Who is asked when the consumer is cancelled. Pending futures only. */
SHOAL_API void shoal_future_on_cancel(struct shoal_future *future, shoal_cancel_fn *cancel,
                                      void *ctx);

/* Who frees the value when the consumer is gone. Before the future is resolved. */
SHOAL_API void shoal_future_on_drop(struct shoal_future *future, shoal_drop_fn *drop);

/* Ends the producer's part. `value` is copied (NULL for none); `text` is copied (NULL for none). */
SHOAL_API void shoal_future_resolve(struct shoal_future *future, const union shoal_value *value);
SHOAL_API void shoal_future_fail(struct shoal_future *future, int code, const char *text);

/* ---- Consumers ---- */

SHOAL_API bool shoal_future_is_pending(const struct shoal_future *future);

/*
 * Waits for `future` on the calling fiber, consumes it, and returns its code; `*out` (NULL if not
 * wanted) gets the value when the code is 0. The failure's text, if any, stays readable through
 * shoal_error_message() until the fiber's next failing await. When the fiber is cancelled the
 * producer is asked to end, and the await returns once it has. Yields unless the future is ready.
 */
SHOAL_API int shoal_await(struct shoal_future *future, union shoal_value *out);

/* Text of the last failure that an await of this fiber returned; "" without. Lifetime as above. */
SHOAL_API const char *shoal_error_message(void);

/* Consumes `future` and returns the future of what follows. See the function types above. */
SHOAL_API struct shoal_future *shoal_then(struct shoal_future *future, shoal_then_fn *fn,
                                          void *arg);
SHOAL_API struct shoal_future *shoal_then_future(struct shoal_future *future,
                                                 shoal_then_future_fn *fn, void *arg);
SHOAL_API struct shoal_future *shoal_catch(struct shoal_future *future, shoal_catch_fn *fn,
                                           void *arg);
SHOAL_API struct shoal_future *shoal_finally(struct shoal_future *future, shoal_finally_fn *fn,
                                             void *arg);

/* Consumes `future` without looking; a value that comes later goes to the drop hook. */
SHOAL_API void shoal_discard(struct shoal_future *future);

/* Asks the producer to end early. The future stays to be consumed. */
SHOAL_API void shoal_future_cancel(struct shoal_future *future);

SHOAL_END_DECLS

#include "shoal/runtime/future_inline.h"

#endif
