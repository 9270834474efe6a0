/*
 * Time, in nanoseconds since an arbitrary point, monotonic.
 *
 * shoal_now_ns() reads the clock that the core was given (the system's, or a manual one in tests);
 * shoal_coarse_now_ns() is the same clock as the current turn of the loop saw it, at the cost of a
 * load. Cycle counts (private, for the preemption deadline) never leave their core.
 */
#ifndef SHOAL_RUNTIME_CLOCK_H
#define SHOAL_RUNTIME_CLOCK_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_NS_PER_US  UINT64_C(1000)
#define SHOAL_NS_PER_MS  UINT64_C(1000000)
#define SHOAL_NS_PER_S   UINT64_C(1000000000)
#define SHOAL_NS_FOREVER UINT64_MAX

/* Precise time; about 25 ns. Any thread (foreign threads read the system's clock). */
SHOAL_API uint64_t shoal_now_ns(void);

/* The time at which this turn of the loop looked at the clock; about 1 ns. Core threads only. */
SHOAL_API uint64_t shoal_coarse_now_ns(void);

SHOAL_END_DECLS

#endif
