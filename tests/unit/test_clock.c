/* backends: both */
/*
 * The clock from the cycle counter, against the system's.
 */
#include <time.h>

#include "shoal/runtime/clock_impl.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"

#include "unit/harness.h"

static uint64_t system_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SHOAL_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Over many times the millisecond after which the system's clock is looked at. */
static int compare(void *arg)
{
    (void)arg;
    if (!shoal_core_self->tsc.usable) {
        fprintf(stderr, "SKIP: missing feature: a cycle counter with one rate\n");
        return 0;
    }
    uint64_t last_ns = 0, ahead = 0, back = 0, behind = 0, coarse_ahead = 0;
    const uint64_t rounds = 2000000 / SHOAL_TEST_SLOWDOWN;
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t before_ns = system_ns();
        uint64_t now_ns = shoal_now_ns();
        uint64_t after_ns = system_ns();
        ahead += now_ns > after_ns;
        back += now_ns < last_ns;
        behind += now_ns + 20 * SHOAL_NS_PER_US < before_ns;
        coarse_ahead += shoal_coarse_now_ns() > now_ns;
        last_ns = now_ns;
        if (i % 10000 == 0)
            (void)shoal_yield();
    }
    SHOAL_EXPECT_INT(ahead, 0);
    SHOAL_EXPECT_INT(back, 0);
    SHOAL_EXPECT_INT(coarse_ahead, 0);
    /* A reading between the two of a pair that something has interrupted may be late. */
    SHOAL_EXPECT(behind < rounds / 10);
    return 0;
}

static void clock_is_never_ahead_of_the_systems_and_never_goes_back(void **state)
{
    (void)state;
    shoal_test_run(1, compare, NULL);
}

/* The rate and the renewal, on a counter that is told what to say. */
static void clock_renewal_never_goes_back_even_if_the_rate_was_too_high(void **state)
{
    (void)state;
    struct shoal_tsc tsc;
    shoal_tsc_init(&tsc);
    uint64_t base_ns = tsc.base_ns;
    tsc.ns_per_cycle *= 2; /* as if it had been measured while something interrupted it */
    uint64_t told_ns = base_ns + shoal_tsc_ns(&tsc, tsc.renew_cycles - 1);
    while (shoal_cycles() - tsc.base_cycles < tsc.renew_cycles)
        ;
    assert_true(shoal_tsc_renew(&tsc) >= told_ns);
    /* From there on the rate is right again. */
    uint64_t cycles = shoal_tsc_cycles(&tsc, SHOAL_NS_PER_S);
    struct shoal_tsc other;
    shoal_tsc_init(&other);
    uint64_t ns = shoal_tsc_ns(&other, cycles);
    assert_true(ns > SHOAL_NS_PER_S / 10 * 9 && ns < SHOAL_NS_PER_S / 10 * 11);
}

static void clock_spans_convert_both_ways(void **state)
{
    (void)state;
    struct shoal_tsc tsc = {.ns_per_cycle = (UINT64_C(1) << 32) / 4 * 3}; /* 0.75 ns a cycle */
    assert_int_equal(shoal_tsc_ns(&tsc, 4000), 3000);
    assert_int_equal(shoal_tsc_cycles(&tsc, 3000), 4000);
    /* A year does not overflow. */
    const uint64_t year_ns = UINT64_C(365) * 86400 * SHOAL_NS_PER_S;
    assert_int_equal(shoal_tsc_ns(&tsc, shoal_tsc_cycles(&tsc, year_ns)), year_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_is_never_ahead_of_the_systems_and_never_goes_back),
        cmocka_unit_test(clock_renewal_never_goes_back_even_if_the_rate_was_too_high),
        cmocka_unit_test(clock_spans_convert_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
