/*
 * A barrier: a fixed number of fibers and futures of one core wait for each other, again and again.
 *
 * 1. The one that makes the number full lets all go, and the next generation begins.
 * 2. Who leaves early (time-out, cancel) has not arrived: the others wait for another in its place.
 */
#ifndef SHOAL_RUNTIME_BARRIER_H
#define SHOAL_RUNTIME_BARRIER_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_barrier {
    struct shoal_wait_queue queue; /* private, as is the rest */
    uint64_t generation;
    uint32_t parties;
};

/* A barrier for `parties`, at least 1 (aborts otherwise). Allocates nothing. */
SHOAL_API void shoal_barrier_init(struct shoal_barrier *barrier, uint32_t parties);

/* Nobody may wait. */
SHOAL_API void shoal_barrier_deinit(struct shoal_barrier *barrier);

/*
 * Arrives and waits for the others. 1 for the last to arrive, 0 for the others; -ETIMEDOUT, or the
 * code of the fiber's cancel, not arrived. On a fiber; yields unless it is the last. See
 * wait_queue.h.
 */
SHOAL_API int shoal_barrier_wait(struct shoal_barrier *barrier, uint64_t timeout_ns);

/*
 * Arrives; a future that resolves when all have, with slice.size 1 for the last to arrive, 0 for
 * the others. -ETIMEDOUT, -ECANCELED, -ENOMEM, not arrived. A discarded one has arrived.
 */
SHOAL_API struct shoal_future *shoal_barrier_wait_future(struct shoal_barrier *barrier,
                                                         uint64_t timeout_ns);

/* How often all have met; how many wait for the next time. */
SHOAL_API uint64_t shoal_barrier_generation(const struct shoal_barrier *barrier);
SHOAL_API uint32_t shoal_barrier_waiting(const struct shoal_barrier *barrier);

SHOAL_END_DECLS

#endif
