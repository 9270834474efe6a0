/*
 * The manual clock of test runs, on one core: time stands still, moves as asked, and takes timers
 * and fibers along in order.
 */
/* backends: both */
#include <unistd.h>

#include "shoal/runtime/fiber.h"

#include "unit/clock_check.h"

/* ---- Standing still ---- */

static int stands_still_fn(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    usleep(2000);
    for (unsigned i = 0; i < 1000; i++)
        (void)shoal_yield();
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    SHOAL_EXPECT_INT(shoal_coarse_now_ns(), start_ns);
    SHOAL_EXPECT_INT(shoal_test_clock_settle(), 0);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    return 0;
}
CLOCK_TEST(stands_still, 1, MANUAL)

static uint64_t starts_ns[2];

static int note_start(void *arg)
{
    (void)arg;
    starts_ns[starts_ns[0] != 0] = shoal_now_ns();
    return 0;
}

static void starts_at_the_same_time_in_every_run(void **state)
{
    (void)state;
    run_on(1, SHOAL_TEST_CLOCK_MANUAL, note_start);
    run_on(2, SHOAL_TEST_CLOCK_AUTO, note_start);
    assert_int_not_equal(starts_ns[0], 0);
    assert_int_equal(starts_ns[0], starts_ns[1]);
}

/* ---- Advancing ---- */

static int fires_at_its_nanosecond_fn(void *arg)
{
    (void)arg;
    static const uint64_t delays_ns[] = {1,       2,       1023,        1024,         1025,
                                         65535,   65536,   1000000,     67108863,     67108864,
                                         1 << 30, HOUR_NS, HOUR_NS + 1, 400 * HOUR_NS};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(delays_ns); i++) {
        struct noting_timer noting = {.fired_ns = 0};
        uint64_t start_ns = shoal_now_ns();
        shoal_timer_init(&noting.timer, note_firing);
        shoal_timer_arm(&noting.timer, delays_ns[i]);
        SHOAL_EXPECT_INT(shoal_test_clock_advance(delays_ns[i] - 1), 0);
        SHOAL_EXPECT_INT(noting.fired_ns, 0);
        SHOAL_EXPECT_INT(shoal_test_clock_advance(1), 0);
        SHOAL_EXPECT_INT(noting.fired_ns, start_ns + delays_ns[i]);
        SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + delays_ns[i]);
    }
    return 0;
}
CLOCK_TEST(fires_at_its_nanosecond, 1, MANUAL)

static int fires_in_order_of_deadlines_fn(void *arg)
{
    (void)arg;
    enum { TIMERS = 300 };
    static struct noting_timer timers[TIMERS];
    uint64_t seed = 88172645463325252u;
    const uint64_t start_ns = shoal_now_ns();
    unsigned fired_so_far = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        /* A third within the same tick, a third far apart, a third of equal deadlines. */
        uint64_t draw = shoal_test_random(&seed);
        uint64_t delay_ns = i % 3 == 0 ? 500000 + draw % 1024 : i % 3 == 1 ? draw % HOUR_NS : 700;
        timers[i] = (struct noting_timer){.fired_so_far = &fired_so_far};
        shoal_timer_init(&timers[i].timer, note_firing);
        shoal_timer_arm(&timers[i].timer, delay_ns);
    }
    SHOAL_EXPECT_INT(shoal_test_clock_advance(HOUR_NS), 0);
    SHOAL_EXPECT_INT(fired_so_far, TIMERS);
    for (unsigned i = 0; i < TIMERS; i++) {
        SHOAL_EXPECT_INT(timers[i].fired_ns, timers[i].timer.deadline_ns);
        for (unsigned j = 0; j < TIMERS; j++)
            if (timers[i].timer.deadline_ns < timers[j].timer.deadline_ns &&
                timers[i].order > timers[j].order)
                SHOAL_EXPECT_NEVER("a later timer has fired first");
    }
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + HOUR_NS);
    return 0;
}
CLOCK_TEST(fires_in_order_of_deadlines, 1, MANUAL)

static int cancelled_timer_never_fires_fn(void *arg)
{
    (void)arg;
    struct noting_timer timers[2] = {{.fired_ns = 0}, {.fired_ns = 0}};
    for (unsigned i = 0; i < 2; i++) {
        shoal_timer_init(&timers[i].timer, note_firing);
        shoal_timer_arm(&timers[i].timer, 1000 + i);
    }
    SHOAL_EXPECT_INT(shoal_test_clock_advance(1000), 0);
    SHOAL_EXPECT(shoal_timer_cancel(&timers[1].timer));
    SHOAL_EXPECT_INT(shoal_test_clock_advance(HOUR_NS), 0);
    SHOAL_EXPECT(timers[0].fired_ns != 0);
    SHOAL_EXPECT_INT(timers[1].fired_ns, 0);
    return 0;
}
CLOCK_TEST(cancelled_timer_never_fires, 1, MANUAL)

struct periodic {
    struct shoal_timer timer;
    uint64_t period_ns;
    uint64_t next_ns;
    unsigned fired;
};

static void fire_again(struct shoal_timer *timer)
{
    struct periodic *periodic = SHOAL_CONTAINER_OF(timer, struct periodic, timer);
    SHOAL_EXPECT_INT(shoal_now_ns(), periodic->next_ns);
    periodic->fired++;
    periodic->next_ns += periodic->period_ns;
    shoal_timer_arm(timer, periodic->period_ns);
}

static int timer_armed_again_fires_each_period_fn(void *arg)
{
    (void)arg;
    struct periodic periodic = {.period_ns = 10 * SHOAL_NS_PER_MS};
    periodic.next_ns = shoal_now_ns() + periodic.period_ns;
    shoal_timer_init(&periodic.timer, fire_again);
    shoal_timer_arm(&periodic.timer, periodic.period_ns);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(SHOAL_NS_PER_S), 0);
    SHOAL_EXPECT_INT(periodic.fired, 100);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(SHOAL_NS_PER_S - 1), 0);
    SHOAL_EXPECT_INT(periodic.fired, 199);
    SHOAL_EXPECT(shoal_timer_cancel(&periodic.timer));
    return 0;
}
CLOCK_TEST(timer_armed_again_fires_each_period, 1, MANUAL)

static void fire_periodically(struct shoal_timer *timer)
{
    struct periodic *periodic = SHOAL_CONTAINER_OF(timer, struct periodic, timer);
    SHOAL_EXPECT_INT(shoal_now_ns(), periodic->next_ns);
    periodic->fired++;
    periodic->next_ns += periodic->period_ns;
}

static int periodic_timer_fires_each_period_fn(void *arg)
{
    (void)arg;
    struct periodic periodic = {.period_ns = 7001, .next_ns = shoal_now_ns() + 3};
    shoal_timer_init(&periodic.timer, fire_periodically);
    shoal_timer_arm_every(&periodic.timer, periodic.next_ns, periodic.period_ns);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(3 + 99 * periodic.period_ns), 0);
    SHOAL_EXPECT_INT(periodic.fired, 100);
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), 0);
    SHOAL_EXPECT_INT(periodic.fired, 101);
    SHOAL_EXPECT(shoal_timer_cancel(&periodic.timer));
    SHOAL_EXPECT_INT(shoal_test_clock_advance(HOUR_NS), 0);
    SHOAL_EXPECT_INT(periodic.fired, 101);
    return 0;
}
CLOCK_TEST(periodic_timer_fires_each_period, 1, MANUAL)

static void fire_a_few_times_at_once(struct shoal_timer *timer)
{
    struct periodic *periodic = SHOAL_CONTAINER_OF(timer, struct periodic, timer);
    if (++periodic->fired < 5)
        shoal_timer_arm(timer, 0);
}

static int timer_due_at_once_fires_without_time_moving_fn(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    struct periodic periodic = {.fired = 0};
    shoal_timer_init(&periodic.timer, fire_a_few_times_at_once);
    shoal_timer_arm_at(&periodic.timer, 1);
    SHOAL_EXPECT_INT(shoal_test_clock_settle(), 0);
    SHOAL_EXPECT_INT(periodic.fired, 5);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    return 0;
}
CLOCK_TEST(timer_due_at_once_fires_without_time_moving, 1, MANUAL)

/* ---- Fibers ---- */

static unsigned naps_taken;

static int take_naps(void *arg)
{
    const uint64_t nap_ns = (uint64_t)(uintptr_t)arg;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t before_ns = shoal_now_ns();
        SHOAL_EXPECT_INT(shoal_sleep_ns(nap_ns), 0);
        SHOAL_EXPECT_INT(shoal_now_ns(), before_ns + nap_ns);
        for (unsigned j = 0; j < 50; j++) /* all of it comes before the next moment */
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        SHOAL_EXPECT_INT(shoal_now_ns(), before_ns + nap_ns);
        naps_taken++;
    }
    return 0;
}

static int sleepers_wake_at_their_moments_fn(void *arg)
{
    (void)arg;
    struct shoal_fiber *fibers[3];
    naps_taken = 0;
    for (uintptr_t i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], take_naps, (void *)(1000 + i), "napper"), 0);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(2000), 0);
    SHOAL_EXPECT_INT(naps_taken, 4); /* 1000, 1001, 1002, 2000 */
    SHOAL_EXPECT_INT(shoal_test_clock_advance(2008), 0);
    SHOAL_EXPECT_INT(naps_taken, 12);
    for (unsigned i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    return 0;
}
CLOCK_TEST(sleepers_wake_at_their_moments, 1, MANUAL)

static int advance_to_next_stops_at_each_timer_fn(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), -ENOENT);
    struct noting_timer timers[3];
    uint64_t start_ns = shoal_now_ns();
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), -ENOENT);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    for (unsigned i = 0; i < 3; i++) {
        timers[i] = (struct noting_timer){.fired_ns = 0};
        shoal_timer_init(&timers[i].timer, note_firing);
        shoal_timer_arm(&timers[i].timer, i == 2 ? HOUR_NS : 100);
    }
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), 0);
    SHOAL_EXPECT_INT(timers[0].fired_ns, start_ns + 100);
    SHOAL_EXPECT_INT(timers[1].fired_ns, start_ns + 100);
    SHOAL_EXPECT_INT(timers[2].fired_ns, 0);
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), 0);
    SHOAL_EXPECT_INT(timers[2].fired_ns, start_ns + HOUR_NS);
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), -ENOENT);
    return 0;
}
CLOCK_TEST(advance_to_next_stops_at_each_timer, 1, MANUAL)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stands_still),
        cmocka_unit_test(starts_at_the_same_time_in_every_run),
        cmocka_unit_test(fires_at_its_nanosecond),
        cmocka_unit_test(fires_in_order_of_deadlines),
        cmocka_unit_test(cancelled_timer_never_fires),
        cmocka_unit_test(timer_armed_again_fires_each_period),
        cmocka_unit_test(periodic_timer_fires_each_period),
        cmocka_unit_test(timer_due_at_once_fires_without_time_moving),
        cmocka_unit_test(sleepers_wake_at_their_moments),
        cmocka_unit_test(advance_to_next_stops_at_each_timer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
