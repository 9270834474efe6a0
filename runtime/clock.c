/*
 * The system clock, and the calibration of the cycle counter.
 *
 * The counter serves only "has this task run for 0.5 ms": an error of a per mille is nothing, so
 * 200 us of calibration at start are enough. Where the architecture tells the frequency, it is
 * read.
 */
#include <time.h>

#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/core_impl.h"

static uint64_t system_now_ns(const struct shoal_clock *clock)
{
    (void)clock;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SHOAL_NS_PER_S + (uint64_t)ts.tv_nsec;
}

const struct shoal_clock shoal_clock_system = {.now_ns = system_now_ns};

uint64_t shoal_now_ns(void)
{
    const struct shoal_clock *clock =
        shoal_core_self != NULL ? shoal_core_self->clock : &shoal_clock_system;
    return clock->now_ns(clock);
}

uint64_t shoal_coarse_now_ns(void)
{
    return shoal_core_self->now_ns;
}

uint64_t shoal_clock_cycles_per_ms(void)
{
#if defined(__aarch64__)
    uint64_t hz;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
    return hz / 1000;
#elif defined(__x86_64__)
    const uint64_t span_ns = 200 * SHOAL_NS_PER_US;
    uint64_t start_ns = system_now_ns(NULL);
    uint64_t start = shoal_cycles();
    uint64_t now_ns;
    do {
        now_ns = system_now_ns(NULL);
    } while (now_ns - start_ns < span_ns);
    return (shoal_cycles() - start) * SHOAL_NS_PER_MS / (now_ns - start_ns);
#else
    return SHOAL_NS_PER_MS;
#endif
}
