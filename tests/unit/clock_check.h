/*
 * What the tests of the manual clock share: runs with one, and timers that note when they fire.
 */
#ifndef SHOAL_TESTS_UNIT_CLOCK_CHECK_H
#define SHOAL_TESTS_UNIT_CLOCK_CHECK_H

#include "shoal/runtime/clock.h"
#include "shoal/runtime/timer.h"

#include "unit/harness.h"

#define HOUR_NS (3600 * SHOAL_NS_PER_S)

static inline void run_on(unsigned cores, enum shoal_test_clock clock, int (*fn)(void *arg))
{
    const struct shoal_test_options options = {.cores = cores, .clock = clock};
    assert_int_equal(shoal_test_run_options(&options, fn, NULL), 0);
}

#define CLOCK_TEST(name, cores, kind)                                                              \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        run_on(cores, SHOAL_TEST_CLOCK_##kind, name##_fn);                                         \
    }

/* A timer that notes when it fired. */
struct noting_timer {
    struct shoal_timer timer;
    uint64_t fired_ns;      /* 0: not yet */
    unsigned *fired_so_far; /* of a group of timers; NULL: no matter */
    unsigned order;         /* in that group, from 1 */
};

static inline void note_firing(struct shoal_timer *timer)
{
    struct noting_timer *noting = SHOAL_CONTAINER_OF(timer, struct noting_timer, timer);
    noting->fired_ns = shoal_now_ns();
    if (noting->fired_so_far != NULL)
        noting->order = ++*noting->fired_so_far;
}

#endif
