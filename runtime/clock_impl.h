/*
 * The clock as an interface, and the cycle counter for deadlines within a turn.
 */
#ifndef SHOAL_RUNTIME_CLOCK_IMPL_H
#define SHOAL_RUNTIME_CLOCK_IMPL_H

#include "shoal/runtime/clock.h"

/* What a core asks for the time; a simulated clock is another instance. */
struct shoal_clock {
    uint64_t (*now_ns)(const struct shoal_clock *clock);
};

extern const struct shoal_clock shoal_clock_system;

static inline uint64_t shoal_cycles(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    return shoal_clock_system.now_ns(&shoal_clock_system);
#endif
}

/* Cycles in `ns`, from a calibration made once for each core at its start. */
uint64_t shoal_clock_cycles_per_ms(void);

/* a + b, or SHOAL_NS_FOREVER where that does not fit. */
static inline uint64_t shoal_deadline_ns(uint64_t now_ns, uint64_t timeout_ns)
{
    return timeout_ns > UINT64_MAX - now_ns ? SHOAL_NS_FOREVER : now_ns + timeout_ns;
}

#endif
