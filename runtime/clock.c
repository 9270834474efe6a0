/*
 * The system clock, and time from the cycle counter.
 *
 * A pair of readings, one of each, is good when nothing came in between: it is taken again while
 * the counter has moved on further than a look at the clock takes. The counter is read after the
 * clock, so that what is late in a pair makes the time late and never early.
 */
#include <time.h>

#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/core_impl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CALIBRATION_NS (200 * SHOAL_NS_PER_US)
#define RENEW_NS       SHOAL_NS_PER_MS
#define FIRST_AGE_NS                                                                               \
    (10 * SHOAL_NS_PER_S) /* by then, what a suspend has spoiled is left behind                    \
                           */
#define SLOWER_SHIFT 12   /* the rate is made smaller by this part of it */
#define PAIR_CYCLES  200  /* between the counter before and after the clock, if all went well */
#define PAIR_TRIES   8

static uint64_t system_now_ns(const struct shoal_clock *clock)
{
    (void)clock;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SHOAL_NS_PER_S + (uint64_t)ts.tv_nsec;
}

const struct shoal_clock shoal_clock_system = {.now_ns = system_now_ns};

#if !defined(__x86_64__) && !defined(__aarch64__)
uint64_t shoal_clock_cycles(void)
{
    return system_now_ns(NULL);
}
#endif

/* Whether the counter runs at one rate whatever the processor does. */
static bool counter_is_steady(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & 1u << 8) != 0;
#else
    return true;
#endif
}

static uint64_t read_pair(uint64_t *cycles)
{
    uint64_t ns = 0;
    uint64_t closest = UINT64_MAX;
    for (int i = 0; i < PAIR_TRIES && closest > PAIR_CYCLES; i++) {
        uint64_t before = shoal_cycles();
        uint64_t now_ns = system_now_ns(NULL);
        uint64_t after = shoal_cycles();
        if (after - before >= closest)
            continue;
        closest = after - before;
        *cycles = after;
        ns = now_ns;
    }
    return ns;
}

static void set_rate(struct shoal_tsc *tsc, uint64_t now_ns, uint64_t now_cycles)
{
    uint64_t cycles = now_cycles - tsc->first_cycles;
    if (cycles == 0)
        return;
    uint64_t rate = (uint64_t)(((unsigned __int128)(now_ns - tsc->first_ns) << 32) / cycles);
    tsc->ns_per_cycle = rate - (rate >> SLOWER_SHIFT);
}

void shoal_tsc_init(struct shoal_tsc *tsc)
{
    *tsc = (struct shoal_tsc){.ns_per_cycle = UINT64_C(1) << 32, .usable = counter_is_steady()};
    tsc->first_ns = read_pair(&tsc->first_cycles);
    while (system_now_ns(NULL) - tsc->first_ns < CALIBRATION_NS)
        ;
    tsc->base_ns = read_pair(&tsc->base_cycles);
    tsc->next_first_ns = tsc->base_ns;
    tsc->next_first_cycles = tsc->base_cycles;
    set_rate(tsc, tsc->base_ns, tsc->base_cycles);
    tsc->renew_cycles = shoal_tsc_cycles(tsc, RENEW_NS);
}

uint64_t shoal_tsc_renew(struct shoal_tsc *tsc)
{
    uint64_t cycles = 0;
    uint64_t now_ns = read_pair(&cycles);
    uint64_t since = cycles - tsc->base_cycles;
    /* The latest that may have been told; only if the rate was too high is it ahead of now. */
    uint64_t told_ns =
        tsc->base_ns + shoal_tsc_ns(tsc, since < tsc->renew_cycles ? since : tsc->renew_cycles);
    set_rate(tsc, now_ns, cycles);
    if (SHOAL_UNLIKELY(now_ns - tsc->next_first_ns >= FIRST_AGE_NS)) {
        tsc->first_ns = tsc->next_first_ns;
        tsc->first_cycles = tsc->next_first_cycles;
        tsc->next_first_ns = now_ns;
        tsc->next_first_cycles = cycles;
    }
    tsc->base_cycles = cycles;
    tsc->base_ns = now_ns > told_ns ? now_ns : told_ns;
    return tsc->base_ns;
}

uint64_t shoal_core_clock_ns(struct shoal_core *core, uint64_t cycles)
{
    if (SHOAL_UNLIKELY(!core->tsc.usable || core->clock != &shoal_clock_system))
        return core->clock->now_ns(core->clock);
    uint64_t since = cycles - core->tsc.base_cycles;
    if (SHOAL_UNLIKELY(since >= core->tsc.renew_cycles))
        return shoal_tsc_renew(&core->tsc);
    return core->tsc.base_ns + (since * core->tsc.ns_per_cycle >> 32);
}

uint64_t shoal_now_ns(void)
{
    struct shoal_core *core = shoal_core_self;
    if (SHOAL_UNLIKELY(core == NULL))
        return system_now_ns(NULL);
    return shoal_core_clock_ns(core, shoal_cycles());
}

uint64_t shoal_coarse_now_ns(void)
{
    return shoal_core_self->now_ns;
}
