/*
 * Delay points, in the builds that have them: see delay_impl.h.
 */
#include "shoal/runtime/delay_impl.h"

#ifdef SHOAL_DELAY_POINTS

#include <errno.h>
#include <stddef.h>
#include <time.h>

#include <sched.h>

#define MILLION  1000000u
#define SPIN_MAX 200u /* rounds: some hundred nanoseconds */

_Thread_local bool shoal_delay_armed;

static _Thread_local struct delay_state {
    struct shoal_delay_plan plan;
    struct shoal_delay_stats stats;
    uint64_t random;
} delay __attribute__((tls_model("initial-exec")));

/* splitmix64 */
static uint64_t next_random(struct delay_state *state)
{
    uint64_t z = state->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void spin(uint32_t rounds)
{
    for (volatile uint32_t i = 0; i < rounds; i++)
        ;
}

void shoal_delay_pass(void)
{
    struct delay_state *state = &delay;
    uint64_t random = next_random(state);
    state->stats.passed++;
    if (random % MILLION >= state->plan.chance_ppm)
        return;
    state->stats.delayed++;
    int saved = errno;
    uint32_t kind = (uint32_t)(random >> 40) % 4;
    uint32_t size = (uint32_t)(random >> 32) & 0xffff;
    if (kind < 2)
        spin(size % SPIN_MAX);
    else if (kind == 2 || state->plan.sleep_ns_max == 0)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = (long)size * state->plan.sleep_ns_max / 0x10000},
                  NULL);
    errno = saved;
}

void shoal_delay_arm(const struct shoal_delay_plan *plan)
{
    delay.plan = *plan;
    if (delay.plan.sleep_ns_max > 999999999)
        delay.plan.sleep_ns_max = 999999999;
    delay.stats = (struct shoal_delay_stats){0, 0};
    delay.random = plan->seed;
    shoal_delay_armed = true;
}

void shoal_delay_disarm(struct shoal_delay_stats *out)
{
    shoal_delay_armed = false;
    if (out != NULL)
        *out = delay.stats;
    delay.stats = (struct shoal_delay_stats){0, 0};
}

#endif
