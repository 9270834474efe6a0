/*
 * A counting semaphore for the fibers and futures of one core.
 *
 *   struct shoal_semaphore slots;
 *   shoal_semaphore_init(&slots, 4);
 *   int rc = shoal_semaphore_acquire(&slots, 1, SHOAL_NS_PER_S);
 *   if (rc == 0) { ...; shoal_semaphore_release(&slots, 1); }
 *
 * 1. First come, first served: whoever wants many units and is first in line is not overtaken by
 *    those behind who want few.
 * 2. Released units go to who waits, within the release: they are never up for grabs between.
 * 3. A wait that ends early takes nothing; units granted to a future that nobody consumes go back.
 */
#ifndef SHOAL_RUNTIME_SEMAPHORE_H
#define SHOAL_RUNTIME_SEMAPHORE_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_semaphore {
    struct shoal_wait_queue queue; /* private, as is the rest */
    uint64_t units;
};

/* A semaphore of `units` units, which may be 0. Allocates nothing. */
SHOAL_API void shoal_semaphore_init(struct shoal_semaphore *semaphore, uint64_t units);

/* Nobody may wait, nor hold a future with units of it. Units that are out do not matter. */
SHOAL_API void shoal_semaphore_deinit(struct shoal_semaphore *semaphore);

/*
 * Waits for `n` units and takes them. 0; -ETIMEDOUT, or the code of the fiber's cancel, with none
 * taken. More than there will ever be waits until one of those. On a fiber; yields if it has to
 * wait. See wait_queue.h for `timeout_ns` and for what the forms have in common.
 */
SHOAL_API int shoal_semaphore_acquire(struct shoal_semaphore *semaphore, uint64_t n,
                                      uint64_t timeout_ns);

/* Takes `n` units if they are there and nobody waits; whether it did. Does not yield. */
SHOAL_API bool shoal_semaphore_try_acquire(struct shoal_semaphore *semaphore, uint64_t n);

/*
 * A future that resolves once `n` units are the consumer's, to be released as any others: value
 * slice.ptr and slice.size are not to be relied on. -ETIMEDOUT, -ECANCELED by a cancel of the
 * future, -ENOMEM. Discarding it, and awaiting it with NULL for the value, give the units back.
 */
SHOAL_API struct shoal_future *shoal_semaphore_acquire_future(struct shoal_semaphore *semaphore,
                                                              uint64_t n, uint64_t timeout_ns);

/*
 * Gives back, or adds, `n` units. Any fiber or continuation of the core, not only who acquired.
 * Does not yield.
 */
SHOAL_API void shoal_semaphore_release(struct shoal_semaphore *semaphore, uint64_t n);

/* Units that are free now; they may be too few for who is first in line. */
SHOAL_API uint64_t shoal_semaphore_available(const struct shoal_semaphore *semaphore);

/* How many fibers and futures wait. */
SHOAL_API uint32_t shoal_semaphore_waiting(const struct shoal_semaphore *semaphore);

SHOAL_END_DECLS

#endif
