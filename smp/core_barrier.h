/*
 * A barrier of all cores: fibers of every core wait for each other, again and again.
 *
 *   struct shoal_core_barrier *barrier;                               made once
 *   rc = shoal_core_barrier_new(&barrier, 1);
 *   ...
 *   rc = shoal_core_barrier_wait(barrier, SHOAL_NS_FOREVER);          on a fiber of each core
 *
 * 1. It opens when so many fibers as it was made for have arrived on every core, and lets exactly
 *    these go on. More than that on a core wait for the next time. What a core has written before
 *    it arrived, all see after it.
 * 2. Who leaves early (time-out, cancel) has not arrived: the others wait for another in its place,
 *    as in shoal/runtime/barrier.h. If the barrier opens first, the wait succeeds, and the cancel
 *    comes at the fiber's next one. Nobody is ever let go with one missing.
 * 3. Whoever cannot come back breaks the barrier (shoal_core_barrier_break()): all who wait, and
 *    all who come later, on every core, get its code. A broken barrier stays so.
 * 4. Waiting allocates nothing and needs no room in a ring: it does not fail for want of either.
 */
#ifndef SHOAL_SMP_CORE_BARRIER_H
#define SHOAL_SMP_CORE_BARRIER_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_core_barrier;

/*
 * Makes a barrier for `fibers_per_core` (at least 1) fibers of each core. It belongs to the calling
 * core, and any core may use it once it has been told of it, by a message. 0; -EINVAL; -ENOMEM.
 * Core threads only; does not yield.
 */
SHOAL_API int shoal_core_barrier_new(struct shoal_core_barrier **out, uint32_t fibers_per_core);

/*
 * Frees it: on a fiber of the core that made it, once nobody waits any more nor will. Fibers that
 * the barrier has let go need not have run yet. NULL is fine. Yields.
 */
SHOAL_API void shoal_core_barrier_free(struct shoal_core_barrier *barrier);

/*
 * Arrives and waits for the others. 1 for one of all that go on together, 0 for the rest;
 * -ETIMEDOUT after `timeout_ns` (0: at once, SHOAL_NS_FOREVER: never), or the code of the fiber's
 * cancel: not arrived; the code of a break. On a fiber of any core; yields.
 */
SHOAL_API int shoal_core_barrier_wait(struct shoal_core_barrier *barrier, uint64_t timeout_ns);

/*
 * Breaks the barrier with `code` (negative). Of several breaks one wins. Those who wait learn of it
 * soon, not before the call returns; the calling core's next wait fails. Any core; does not yield.
 */
SHOAL_API void shoal_core_barrier_break(struct shoal_core_barrier *barrier, int code);

/* How often the calling core has gone on. */
SHOAL_API uint64_t shoal_core_barrier_generation(const struct shoal_core_barrier *barrier);

SHOAL_END_DECLS

#endif
