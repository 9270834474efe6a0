/*
 * Delay points: places where two threads meet, and where a test may hold one of them up.
 *
 *   atomic_store_explicit(&slot->sequence, index + 1, memory_order_release);
 *   SHOAL_DELAY_POINT(); // before the look at `watched`
 *
 * 1. In builds with SHOAL_DEBUG or the thread sanitizer a point costs a load of a thread-local
 *    flag, in others nothing at all: the macro is empty there, and so are the calls below.
 * 2. A thread that is armed comes by its delays from its own generator: the same seed gives the
 *    same decisions at the same points passed. What the other threads do meanwhile is not repeated.
 * 3. A delay is a short spin, a yield of the processor or a sleep. The sleeps matter where there
 *    are fewer processors than threads; the spins find what takes a few nanoseconds to go wrong.
 *
 * A flag of the process in place of one a thread would be a shared line at each point, and would
 * order what it is to disturb. Random preemption by a signal was left out: points can be put where
 * the protocol has its edges, and a signal lands in them once in a million times.
 */
#ifndef SHOAL_RUNTIME_DELAY_IMPL_H
#define SHOAL_RUNTIME_DELAY_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

#if defined(SHOAL_DEBUG) || defined(SHOAL_TSAN)
#define SHOAL_DELAY_POINTS 1
#endif

struct shoal_delay_plan {
    uint64_t seed;
    uint32_t chance_ppm;   /* of a delay at a point, in millionths */
    uint32_t sleep_ns_max; /* of those delays that sleep; 0: none does */
};

struct shoal_delay_stats {
    uint64_t passed; /* points since the thread was armed */
    uint64_t delayed;
};

#ifdef SHOAL_DELAY_POINTS

extern _Thread_local bool shoal_delay_armed
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* With a plan armed: spins, yields or sleeps, or does nothing. Never calls into the runtime. */
void shoal_delay_pass(void);

/* May stand anywhere on any thread, within the loop or a fiber; keeps `errno`. */
#define SHOAL_DELAY_POINT()                                                                        \
    do {                                                                                           \
        if (SHOAL_UNLIKELY(shoal_delay_armed))                                                     \
            shoal_delay_pass();                                                                    \
    } while (0)

/* Delays the calling thread (a core, as a rule) from now on as `plan` says, which is copied. */
void shoal_delay_arm(const struct shoal_delay_plan *plan);

/* Ends that; without a plan it does nothing. `out` (may be NULL): what came of it. */
void shoal_delay_disarm(struct shoal_delay_stats *out);

#else

#define SHOAL_DELAY_POINT()                                                                        \
    do {                                                                                           \
    } while (0)

static inline void shoal_delay_arm(const struct shoal_delay_plan *plan)
{
    (void)plan;
}

static inline void shoal_delay_disarm(struct shoal_delay_stats *out)
{
    if (out != NULL)
        *out = (struct shoal_delay_stats){0, 0};
}

#endif

#endif
