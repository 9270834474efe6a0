/*
 * The clock as an interface, and the cycle counter for deadlines within a turn.
 */
#ifndef SHOAL_RUNTIME_CLOCK_IMPL_H
#define SHOAL_RUNTIME_CLOCK_IMPL_H

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_inline.h"

struct shoal_core;

/* What a core asks for the time; a simulated clock is another instance. */
struct shoal_clock {
    uint64_t (*now_ns)(const struct shoal_clock *clock);
    /*
     * How long, in the system's time, `core` may wait for I/O and messages now that it has nothing
     * to do, with its next timer at `next_ns` (may be early). NULL: until then, time passes by
     * itself.
     */
    uint64_t (*wait_ns)(const struct shoal_clock *clock, struct shoal_core *core, uint64_t next_ns);
};

extern const struct shoal_clock shoal_clock_system;

/*
 * Time from the cycle counter, which costs less than half of a look at the system's clock. It is
 * set right by that clock each millisecond, runs on purpose slower than it by a quarter of a per
 * mille in between, and so is behind it by up to a quarter of a microsecond and never ahead: a
 * timer does not fire early by either clock.
 */
struct shoal_tsc {
    uint64_t base_cycles;
    uint64_t base_ns;
    uint64_t ns_per_cycle; /* times 2^32 */
    uint64_t renew_cycles; /* since the base, when it is time to set it right */
    uint64_t first_cycles; /* the rate is measured from here: 10 to 20 s ago, or the start */
    uint64_t first_ns;
    uint64_t next_first_cycles; /* and will be from here */
    uint64_t next_first_ns;
    bool usable; /* else only the rate is right */
};

/* Measures the rate, for about 200 us. */
void shoal_tsc_init(struct shoal_tsc *tsc);

/* Sets the base, and with it the rate, by the system's clock; returns the time. */
uint64_t shoal_tsc_renew(struct shoal_tsc *tsc);

/* A span of `cycles` in nanoseconds. */
static inline uint64_t shoal_tsc_ns(const struct shoal_tsc *tsc, uint64_t cycles)
{
    return (uint64_t)((unsigned __int128)cycles * tsc->ns_per_cycle >> 32);
}

/* A span of `ns` in cycles. */
static inline uint64_t shoal_tsc_cycles(const struct shoal_tsc *tsc, uint64_t ns)
{
    return (uint64_t)(((unsigned __int128)ns << 32) / tsc->ns_per_cycle);
}

/* a + b, or SHOAL_NS_FOREVER where that does not fit. */
static inline uint64_t shoal_deadline_ns(uint64_t now_ns, uint64_t timeout_ns)
{
    return timeout_ns > UINT64_MAX - now_ns ? SHOAL_NS_FOREVER : now_ns + timeout_ns;
}

#endif
