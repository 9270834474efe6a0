/*
 * Shared futures: one outcome for many consumers, on this core.
 *
 *   struct shoal_shared_future *config = shoal_shared_future_new(load_config(), NULL);
 *   ...
 *   rc = shoal_await(shoal_shared_future_get(config), &value);    // any number of times
 *   ...
 *   shoal_shared_future_unref(config);
 *
 * 1. Made from a future, the source, which it consumes. Each shoal_shared_future_get() gives a
 *    private future with the same outcome: the value, or the code and text.
 * 2. Values are copied bitwise, or by the `copy` hook. Without the hook they are borrowed: what
 *    they refer to is freed with the last reference, so hold one as long as you use it.
 * 3. The source's own value goes to the drop hook of the source, once: when it is there, the last
 *    reference has been given back, and all who waited have got their copies.
 * 4. Cancelling a private future ends that one at once with -ECANCELED; the others and the source
 *    go on. Once no reference is left, and no private future but cancelled and discarded ones, the
 *    source is cancelled, if any of them was cancelled. The private future whose cancel did so is
 *    the last: it gets the outcome that the source then has.
 * 5. What the source works on must therefore outlive the source, not just one consumer.
 * 6. Where memory has run out, the calls return a shared future, and private futures, that have
 *    failed with -ENOMEM; the source is cancelled and discarded.
 *
 * Everything here belongs to one core and does not yield.
 */
#ifndef SHOAL_RUNTIME_SHARED_FUTURE_H
#define SHOAL_RUNTIME_SHARED_FUTURE_H

#include <stdbool.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

struct shoal_shared_future;

struct shoal_shared_hooks {
    /*
     * Makes `*out`, which is zeros, a copy of `*in` with a life of its own. Returns 0, or a
     * negative code that fails this one private future. Runs inside shoal_shared_future_get() where
     * the outcome is there, else from the loop. NULL: bitwise.
     */
    int (*copy)(const union shoal_value *in, union shoal_value *out);
    shoal_drop_fn *drop; /* frees a copy whose consumer is gone; NULL: nothing to free */
};

/* Consumes `future`; `hooks` is copied (NULL: none). The caller gets the first reference. */
SHOAL_API struct shoal_shared_future *
shoal_shared_future_new(struct shoal_future *future, const struct shoal_shared_hooks *hooks);

/* A private future, to be consumed as any other. One that has settled already is ready. */
SHOAL_API struct shoal_future *shoal_shared_future_get(struct shoal_shared_future *shared);

SHOAL_API bool shoal_shared_future_is_pending(const struct shoal_shared_future *shared);

/* Cancels the source: all private futures get what comes of it. */
SHOAL_API void shoal_shared_future_cancel(struct shoal_shared_future *shared);

/* One more reference; returns `shared`. */
SHOAL_API struct shoal_shared_future *shoal_shared_future_ref(struct shoal_shared_future *shared);

/* One less. NULL is fine. */
SHOAL_API void shoal_shared_future_unref(struct shoal_shared_future *shared);

SHOAL_END_DECLS

#endif
