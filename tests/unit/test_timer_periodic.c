/* backends: both */
/*
 * Periodic timers, on a wheel whose time the test moves, and on a core.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/timer_impl.h"

#include "unit/harness.h"

#define TICK (UINT64_C(1) << SHOAL_TIMER_TICK_BITS)

static struct shoal_timer_wheel wheel;

struct periodic {
    struct shoal_timer timer;
    int fired;
    uint64_t next_ns[8]; /* deadline as `fire` has seen it */
};

static void note(struct shoal_timer *timer)
{
    struct periodic *periodic = SHOAL_CONTAINER_OF(timer, struct periodic, timer);
    periodic->next_ns[periodic->fired++ % 8] = timer->deadline_ns;
}

static void arm(struct periodic *periodic, void (*fire)(struct shoal_timer *), uint64_t first_ns,
                uint64_t period_ns)
{
    *periodic = (struct periodic){.fired = 0};
    shoal_timer_init(&periodic->timer, fire);
    shoal_timer_wheel_arm(&wheel, &periodic->timer, first_ns);
    periodic->timer.period_ns = period_ns;
}

static void timer_periodic_fires_each_period_without_drift(void **state)
{
    (void)state;
    struct periodic periodic;
    shoal_timer_wheel_init(&wheel, 0);
    arm(&periodic, note, 1000000, 1000000);
    for (uint64_t i = 1; i <= 5; i++) {
        /* Looked at late each time, and each time by another amount. */
        assert_int_equal(shoal_timer_wheel_expire(&wheel, i * 1000000 - TICK), 0);
        assert_int_equal(shoal_timer_wheel_expire(&wheel, i * 1000000 + i * 5000), 1);
        assert_int_equal(periodic.fired, (int)i);
        assert_int_equal(periodic.next_ns[i - 1], (i + 1) * 1000000);
    }
    assert_int_equal(wheel.armed, 1);
    shoal_timer_wheel_cancel(&wheel, &periodic.timer);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 100000000), 0);
    assert_int_equal(wheel.armed, 0);
}

static void timer_periodic_missed_periods_fire_once(void **state)
{
    (void)state;
    struct periodic periodic;
    shoal_timer_wheel_init(&wheel, 0);
    arm(&periodic, note, 1000000, 1000000);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 7500000), 1);
    assert_int_equal(periodic.next_ns[0], 8000000);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 7900000), 0);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 8000000 + TICK), 1);
    assert_int_equal(periodic.next_ns[1], 9000000);
    shoal_timer_wheel_cancel(&wheel, &periodic.timer);
}

static void timer_periodic_at_the_end_of_time_does_not_wrap(void **state)
{
    (void)state;
    struct periodic periodic;
    shoal_timer_wheel_init(&wheel, 0);
    arm(&periodic, note, 5000, UINT64_MAX - 10);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 10000), 1);
    assert_int_equal(periodic.next_ns[0], SHOAL_NS_FOREVER);
    shoal_timer_wheel_cancel(&wheel, &periodic.timer);
}

static void note_and_stop(struct shoal_timer *timer)
{
    note(timer);
    shoal_timer_wheel_cancel(&wheel, timer);
}

static void timer_periodic_cancelled_inside_stays_so(void **state)
{
    (void)state;
    struct periodic periodic;
    shoal_timer_wheel_init(&wheel, 0);
    arm(&periodic, note_and_stop, 1000000, 1000000);
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 1000000 + TICK), 1);
    assert_false(shoal_timer_armed(&periodic.timer));
    assert_int_equal(shoal_timer_wheel_expire(&wheel, 5000000), 0);
    assert_int_equal(wheel.armed, 0);
}

static void note_and_go_on(struct shoal_timer *timer)
{
    struct periodic *periodic = SHOAL_CONTAINER_OF(timer, struct periodic, timer);
    note(timer);
    if (periodic->fired == 3)
        shoal_timer_arm(timer, SHOAL_NS_PER_MS); /* once more, and only once */
}

static int on_core(void *arg)
{
    (void)arg;
    struct periodic periodic = {.fired = 0};
    shoal_timer_init(&periodic.timer, note_and_go_on);
    shoal_timer_arm_every(&periodic.timer, shoal_now_ns() + 50000, 50000);
    while (periodic.fired < 3)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    while (shoal_timer_armed(&periodic.timer))
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(periodic.fired, 4);
    uint64_t step_ns = periodic.next_ns[1] - periodic.next_ns[0];
    SHOAL_EXPECT_INT(step_ns % 50000, 0); /* in step, whatever was missed */
    return 0;
}

static void timer_periodic_armed_once_inside_is_periodic_no_more(void **state)
{
    (void)state;
    shoal_test_run(1, on_core, NULL);
}

static int period_zero(void *arg)
{
    (void)arg;
    struct shoal_timer timer;
    shoal_timer_init(&timer, note);
    shoal_timer_arm_every(&timer, 0, 0);
    return 0;
}

static void timer_periodic_period_of_zero_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, period_zero, "period of 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_periodic_fires_each_period_without_drift),
        cmocka_unit_test(timer_periodic_missed_periods_fire_once),
        cmocka_unit_test(timer_periodic_at_the_end_of_time_does_not_wrap),
        cmocka_unit_test(timer_periodic_cancelled_inside_stays_so),
        cmocka_unit_test(timer_periodic_armed_once_inside_is_periodic_no_more),
        cmocka_unit_test(timer_periodic_period_of_zero_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
