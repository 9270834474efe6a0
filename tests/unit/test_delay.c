/*
 * Delay points: a plan decides, per thread, and without one nothing happens.
 */
#include <pthread.h>

#include "shoal/runtime/delay_impl.h"

#include "unit/harness.h"

#define POINTS 10000

static struct shoal_delay_stats pass_points(const struct shoal_delay_plan *plan)
{
    struct shoal_delay_stats stats;
    shoal_delay_arm(plan);
    for (int i = 0; i < POINTS; i++)
        SHOAL_DELAY_POINT();
    shoal_delay_disarm(&stats);
    return stats;
}

#ifdef SHOAL_DELAY_POINTS

static void delay_with_a_chance_holds_up_so_many(void **state)
{
    (void)state;
    struct shoal_delay_stats none = pass_points(&(struct shoal_delay_plan){.seed = 1});
    assert_int_equal(none.passed, POINTS);
    assert_int_equal(none.delayed, 0);
    struct shoal_delay_stats all =
        pass_points(&(struct shoal_delay_plan){.seed = 1, .chance_ppm = 1000000});
    assert_int_equal(all.delayed, POINTS);
    struct shoal_delay_plan plan = {.seed = 7, .chance_ppm = 100000, .sleep_ns_max = 100};
    struct shoal_delay_stats some = pass_points(&plan);
    assert_true(some.delayed > POINTS / 20 && some.delayed < POINTS / 5);
    assert_int_equal(pass_points(&plan).delayed, some.delayed); /* the seed decides */
}

static void delay_disarmed_counts_nothing(void **state)
{
    (void)state;
    struct shoal_delay_stats stats;
    (void)pass_points(&(struct shoal_delay_plan){.seed = 1, .chance_ppm = 1000000});
    SHOAL_DELAY_POINT();
    shoal_delay_disarm(&stats);
    assert_int_equal(stats.passed, 0);
    shoal_delay_disarm(NULL);
}

static void *pass_unarmed(void *arg)
{
    (void)arg;
    SHOAL_DELAY_POINT();
    return (void *)(uintptr_t)shoal_delay_armed;
}

static void delay_armed_on_one_thread_leaves_others_alone(void **state)
{
    (void)state;
    pthread_t thread;
    void *armed;
    struct shoal_delay_stats stats;
    shoal_delay_arm(&(struct shoal_delay_plan){.chance_ppm = 1000000});
    assert_int_equal(pthread_create(&thread, NULL, pass_unarmed, NULL), 0);
    assert_int_equal(pthread_join(thread, &armed), 0);
    assert_null(armed);
    errno = EPERM;
    SHOAL_DELAY_POINT();
    assert_int_equal(errno, EPERM);
    shoal_delay_disarm(&stats);
    assert_int_equal(stats.passed, 1);
}

#else

static void delay_in_other_builds_is_nothing(void **state)
{
    (void)state;
    struct shoal_delay_stats stats = pass_points(&(struct shoal_delay_plan){.chance_ppm = 1000000});
    assert_int_equal(stats.passed, 0);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef SHOAL_DELAY_POINTS
        cmocka_unit_test(delay_with_a_chance_holds_up_so_many),
        cmocka_unit_test(delay_disarmed_counts_nothing),
        cmocka_unit_test(delay_armed_on_one_thread_leaves_others_alone),
#else
        cmocka_unit_test(delay_in_other_builds_is_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
