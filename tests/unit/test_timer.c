/*
 * Timers: the wheel against a naive model on a clock of the test's own, and the public calls.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/timer_impl.h"

#include "unit/harness.h"

struct probe {
    struct shoal_timer timer;
    unsigned fired;
    uint64_t fired_ns;
    unsigned order;
};

static struct shoal_timer_wheel wheel;
static uint64_t now_ns;
static unsigned fired_total;

static void note(struct shoal_timer *timer)
{
    struct probe *probe = SHOAL_CONTAINER_OF(timer, struct probe, timer);
    probe->fired++;
    probe->fired_ns = now_ns;
    probe->order = fired_total++;
}

static void begin(uint64_t start_ns)
{
    now_ns = start_ns;
    fired_total = 0;
    shoal_timer_wheel_init(&wheel, start_ns);
}

static void arm(struct probe *probe, uint64_t deadline_ns)
{
    memset(probe, 0, sizeof(*probe));
    shoal_timer_init(&probe->timer, note);
    shoal_timer_wheel_arm(&wheel, &probe->timer, deadline_ns);
}

static unsigned expire_at(uint64_t at_ns)
{
    now_ns = at_ns;
    return shoal_timer_wheel_expire(&wheel, at_ns);
}

/* Invariant 1 of timer_impl.h, and the bits and the count that go with it. */
static void check_wheel(void)
{
    uint64_t members = 0;
    SHOAL_LIST_FOREACH (due, &wheel.due)
        members++;
    for (unsigned level = 0; level < SHOAL_TIMER_LEVELS; level++) {
        unsigned shift = level * SHOAL_TIMER_LEVEL_BITS;
        for (unsigned slot = 0; slot < SHOAL_TIMER_SLOTS; slot++) {
            const struct shoal_list *head = &wheel.slots[level][slot];
            assert_int_equal(shoal_list_linked(head), wheel.occupied[level] >> slot & 1);
            if (!shoal_list_linked(head))
                continue;
            assert_true(slot > (wheel.cursor_tick >> shift & (SHOAL_TIMER_SLOTS - 1)));
            SHOAL_LIST_FOREACH (node, head) {
                const struct shoal_timer *timer =
                    SHOAL_CONTAINER_OF(node, struct shoal_timer, node);
                uint64_t tick = (timer->deadline_ns + 1023) >> SHOAL_TIMER_TICK_BITS;
                if (timer->deadline_ns > UINT64_MAX - 1023)
                    tick = UINT64_MAX >> SHOAL_TIMER_TICK_BITS;
                assert_int_equal(tick >> shift & (SHOAL_TIMER_SLOTS - 1), slot);
                assert_int_equal(tick >> shift >> SHOAL_TIMER_LEVEL_BITS,
                                 wheel.cursor_tick >> shift >> SHOAL_TIMER_LEVEL_BITS);
                assert_true(wheel.next_ns <= tick << SHOAL_TIMER_TICK_BITS);
                members++;
            }
        }
    }
    assert_int_equal(members, wheel.armed);
}

static void wheel_timer_fires_at_its_tick_and_not_before(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 1023, 1024, 1025, 65535 * 1024, 123456789012345};
    static const uint64_t delays[] = {0,       1,     1023,  1024,    1025,      63 * 1024,
                                      65536,   65537, 66000, 4194304, 268435456, 3600000000000,
                                      1u << 31};
    for (size_t s = 0; s < SHOAL_ARRAY_SIZE(starts); s++) {
        for (size_t d = 0; d < SHOAL_ARRAY_SIZE(delays); d++) {
            begin(starts[s]);
            struct probe probe;
            uint64_t deadline = starts[s] + delays[d];
            arm(&probe, deadline);
            check_wheel();
            if (delays[d] > 0)
                assert_int_equal(expire_at(deadline - 1), 0);
            check_wheel();
            assert_int_equal(expire_at(deadline + 1024), 1);
            assert_int_equal(probe.fired, 1);
            assert_int_equal(wheel.armed, 0);
            assert_true(shoal_timer_wheel_next_ns(&wheel) == SHOAL_NS_FOREVER);
        }
    }
}

static void wheel_next_is_never_after_the_first_deadline(void **state)
{
    (void)state;
    begin(5000);
    struct probe far, near;
    arm(&far, UINT64_C(1) << 50);
    assert_true(shoal_timer_wheel_next_ns(&wheel) <= (UINT64_C(1) << 50));
    arm(&near, 1000000);
    assert_true(shoal_timer_wheel_next_ns(&wheel) <= 1000000 + 1023);
    /* Walking from one announced time to the next reaches both, and ends. */
    unsigned steps = 0;
    while (shoal_timer_wheel_next_ns(&wheel) != SHOAL_NS_FOREVER && steps < 1000) {
        expire_at(shoal_timer_wheel_next_ns(&wheel));
        check_wheel();
        steps++;
    }
    assert_int_equal(near.fired, 1);
    assert_int_equal(far.fired, 1);
    assert_true(near.fired_ns >= 1000000 && near.fired_ns <= 1000000 + 1023);
    assert_true(far.fired_ns >= UINT64_C(1) << 50);
    assert_true(steps <= 2 * SHOAL_TIMER_LEVELS);
}

static void wheel_deadlines_at_the_end_of_time_stay_inside(void **state)
{
    (void)state;
    static const uint64_t deadlines[] = {UINT64_MAX,        UINT64_MAX - 1, UINT64_MAX - 1023,
                                         UINT64_MAX - 1024, UINT64_MAX / 2, UINT64_C(1) << 63};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(deadlines); i++) {
        begin(77777777);
        struct probe probe;
        arm(&probe, deadlines[i]);
        check_wheel();
        assert_int_equal(expire_at(UINT64_C(1) << 62), 0);
        check_wheel();
        shoal_timer_wheel_cancel(&wheel, &probe.timer);
        check_wheel();
        assert_int_equal(expire_at(UINT64_MAX), 0);
    }
}

static void wheel_fires_in_the_order_of_ticks(void **state)
{
    (void)state;
    begin(0);
    static struct probe probes[1000];
    uint64_t random = 42;
    for (int i = 0; i < 1000; i++)
        arm(&probes[i], shoal_test_random(&random) % 1000000000);
    for (uint64_t t = 0; t <= 1000001024; t += 1024)
        expire_at(t);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(probes[i].fired, 1);
        for (int j = 0; j < i; j++)
            if (probes[i].timer.deadline_ns + 1024 < probes[j].timer.deadline_ns)
                assert_true(probes[i].order < probes[j].order);
    }
}

static void wheel_cancelled_never_fires(void **state)
{
    (void)state;
    begin(1000);
    struct probe due, near, far;
    arm(&due, 500);
    arm(&near, 100000);
    arm(&far, 100000000000);
    shoal_timer_wheel_cancel(&wheel, &due.timer);
    shoal_timer_wheel_cancel(&wheel, &near.timer);
    shoal_timer_wheel_cancel(&wheel, &far.timer);
    check_wheel();
    assert_int_equal(expire_at(200000000000), 0);
    assert_int_equal(due.fired + near.fired + far.fired, 0);
    assert_true(shoal_timer_wheel_next_ns(&wheel) == SHOAL_NS_FOREVER);
}

static struct probe victim;

static void fire_and_cancel(struct shoal_timer *timer)
{
    note(timer);
    if (shoal_timer_armed(&victim.timer))
        shoal_timer_wheel_cancel(&wheel, &victim.timer);
}

static void wheel_cancel_of_one_due_in_the_same_turn_wins(void **state)
{
    (void)state;
    begin(0);
    struct probe first;
    memset(&first, 0, sizeof(first));
    shoal_timer_init(&first.timer, fire_and_cancel);
    shoal_timer_wheel_arm(&wheel, &first.timer, 2000);
    arm(&victim, 2000);
    assert_int_equal(expire_at(10000), 1);
    assert_int_equal(first.fired, 1);
    assert_int_equal(victim.fired, 0);
    check_wheel();
}

static void fire_and_rearm(struct shoal_timer *timer)
{
    note(timer);
    struct probe *probe = SHOAL_CONTAINER_OF(timer, struct probe, timer);
    if (probe->fired < 5)
        shoal_timer_wheel_arm(&wheel, timer, now_ns); /* due already: the next turn's */
}

static void wheel_rearmed_while_firing_waits_for_the_next_turn(void **state)
{
    (void)state;
    begin(0);
    struct probe probe;
    memset(&probe, 0, sizeof(probe));
    shoal_timer_init(&probe.timer, fire_and_rearm);
    shoal_timer_wheel_arm(&wheel, &probe.timer, 1024);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(expire_at(1024 * 10 * i), 1);
        assert_int_equal(probe.fired, i);
        check_wheel();
    }
    assert_int_equal(expire_at(1024 * 1000), 0);
}

#define MODEL_TIMERS (1000000 / SHOAL_TEST_SLOWDOWN)

static uint64_t random_delay(uint64_t *random)
{
    uint64_t span = shoal_test_random(random) % 44; /* from nanoseconds to hours */
    return shoal_test_random(random) & ((UINT64_C(1) << span) - 1);
}

static void wheel_a_million_agree_with_a_naive_model(void **state)
{
    (void)state;
    struct probe *probes = calloc(MODEL_TIMERS, sizeof(*probes));
    assert_non_null(probes);
    uint64_t random = 20261123;
    begin(987654321);
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        arm(&probes[i], now_ns + random_delay(&random));
    for (int round = 0; round < 60; round++) {
        for (int change = 0; change < 2000; change++) {
            struct probe *probe = &probes[shoal_test_random(&random) % MODEL_TIMERS];
            if (shoal_timer_armed(&probe->timer))
                shoal_timer_wheel_cancel(&wheel, &probe->timer);
            if (shoal_test_random(&random) % 4 != 0)
                arm(probe, now_ns + random_delay(&random));
        }
        uint64_t before_ns = now_ns;
        expire_at(now_ns + random_delay(&random));
        uint64_t armed = 0;
        for (size_t i = 0; i < MODEL_TIMERS; i++) {
            const struct probe *probe = &probes[i];
            bool is_armed = shoal_timer_armed(&probe->timer);
            armed += is_armed;
            if (probe->fired > 0 && probe->fired_ns == now_ns && now_ns != before_ns)
                assert_true(probe->timer.deadline_ns <= now_ns);
            assert_true(probe->fired <= 1 && (!is_armed || probe->fired == 0));
            if (is_armed) /* what is left is not late by more than a tick */
                assert_true(probe->timer.deadline_ns + 1024 > now_ns);
        }
        assert_int_equal(armed, wheel.armed);
        check_wheel();
    }
    free(probes);
}

/* ---- The public calls ---- */

struct live_probe {
    struct shoal_timer timer;
    unsigned fired;
    uint64_t late_from_ns;
};

static void note_live(struct shoal_timer *timer)
{
    struct live_probe *probe = SHOAL_CONTAINER_OF(timer, struct live_probe, timer);
    probe->fired++;
    SHOAL_EXPECT(shoal_now_ns() >= probe->late_from_ns);
    SHOAL_EXPECT(!shoal_timer_armed(timer));
    if (probe->fired < 3) {
        probe->late_from_ns = shoal_now_ns() + SHOAL_NS_PER_MS;
        shoal_timer_arm(timer, SHOAL_NS_PER_MS);
    }
}

static int use_timers(void *arg)
{
    (void)arg;
    struct live_probe probe = {.fired = 0};
    shoal_timer_init(&probe.timer, note_live);
    SHOAL_EXPECT(!shoal_timer_cancel(&probe.timer));
    shoal_timer_arm(&probe.timer, SHOAL_NS_PER_S * 1000);
    SHOAL_EXPECT(shoal_timer_armed(&probe.timer));
    probe.late_from_ns = shoal_now_ns() + 2 * SHOAL_NS_PER_MS;
    shoal_timer_arm(&probe.timer, 2 * SHOAL_NS_PER_MS); /* moves it */
    while (probe.fired < 3)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    shoal_timer_arm(&probe.timer, SHOAL_NS_FOREVER);
    SHOAL_EXPECT(shoal_timer_cancel(&probe.timer));
    SHOAL_EXPECT(!shoal_timer_armed(&probe.timer));
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    SHOAL_EXPECT_INT(probe.fired, 3);
    return 0;
}

static void timer_public_calls_arm_move_fire_and_cancel(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, use_timers, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wheel_timer_fires_at_its_tick_and_not_before),
        cmocka_unit_test(wheel_next_is_never_after_the_first_deadline),
        cmocka_unit_test(wheel_deadlines_at_the_end_of_time_stay_inside),
        cmocka_unit_test(wheel_fires_in_the_order_of_ticks),
        cmocka_unit_test(wheel_cancelled_never_fires),
        cmocka_unit_test(wheel_cancel_of_one_due_in_the_same_turn_wins),
        cmocka_unit_test(wheel_rearmed_while_firing_waits_for_the_next_turn),
        cmocka_unit_test(wheel_a_million_agree_with_a_naive_model),
        cmocka_unit_test(timer_public_calls_arm_move_fire_and_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
