/*
 * The token bucket: exact on the test's clock, in order, with waits that end early.
 */
/* backends: both */
#include "shoal/runtime/rate_limiter.h"

#include "unit/sync_check.h"

static struct shoal_rate_limiter limiter;

static void begin(uint64_t tokens, uint64_t interval_ns, uint64_t burst)
{
    const struct shoal_rate_limiter_options options = {tokens, interval_ns, burst};
    SHOAL_EXPECT_INT(shoal_rate_limiter_init(&limiter, &options), 0);
}

static void end(void)
{
    SHOAL_EXPECT_INT(limiter.queue.count, 0);
    SHOAL_EXPECT(!shoal_timer_armed(&limiter.timer));
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_rate_limiter_deinit(&limiter);
}

static int acquire(void *arg)
{
    return shoal_rate_limiter_acquire(&limiter, (uint64_t)(uintptr_t)arg, FOREVER);
}

static int acquire_three_ticks(void *arg)
{
    return shoal_rate_limiter_acquire(&limiter, (uint64_t)(uintptr_t)arg, 3 * TICK);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, uint64_t n)
{
    struct shoal_fiber *fiber = sync_spawn(fn, (void *)(uintptr_t)n);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int check_bucket(void *arg)
{
    (void)arg;
    sync_clock_begin();
    begin(1, 4 * TICK, 3);                                       /* a token each four ticks */
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 3); /* full at first */
    SHOAL_EXPECT_INT(shoal_rate_limiter_acquire(&limiter, 2, 0), 0);
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 1));
    SHOAL_EXPECT(!shoal_rate_limiter_try_acquire(&limiter, 1));
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 0));
    SHOAL_EXPECT_INT(shoal_rate_limiter_acquire(&limiter, 1, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_rate_limiter_acquire(&limiter, 4, FOREVER), -EINVAL);
    SHOAL_EXPECT_INT(sync_await(shoal_rate_limiter_acquire_future(&limiter, 4, FOREVER)), -EINVAL);
    SHOAL_EXPECT(!shoal_rate_limiter_try_acquire(&limiter, 4));
    sync_pass(3 * TICK);
    SHOAL_EXPECT(!shoal_rate_limiter_try_acquire(&limiter, 1)); /* three quarters of one */
    sync_pass(1 * TICK);
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 1);
    sync_pass(5 * TICK);
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 2);
    sync_pass(1000 * TICK);
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 3); /* never more than that */
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 3));
    sync_pass(4 * TICK);
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 1));
    SHOAL_EXPECT(!shoal_rate_limiter_try_acquire(&limiter, 1));
    end();
    static const struct shoal_rate_limiter_options bad[] = {
        {0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {1, UINT64_C(1) << 40, 1 << 24}, {UINT64_MAX, 1, 1}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++)
        SHOAL_EXPECT_INT(shoal_rate_limiter_init(&limiter, &bad[i]), -EINVAL);
    sync_clock_end();
    return 0;
}

static void limiter_bucket_fills_by_time_up_to_the_burst(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bucket, NULL), 0);
}

static int check_order(void *arg)
{
    (void)arg;
    sync_clock_begin();
    begin(1, 4 * TICK, 3);
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 3));
    struct shoal_fiber *big = waiting(acquire, 2);
    struct shoal_fiber *small = waiting(acquire, 1);
    struct shoal_future *last = shoal_rate_limiter_acquire_future(&limiter, 1, FOREVER);
    sync_pass(4 * TICK);
    SHOAL_EXPECT(!sync_done(big) && !sync_done(small)); /* nobody overtakes who wants many */
    SHOAL_EXPECT(!shoal_rate_limiter_try_acquire(&limiter, 1));
    sync_pass(4 * TICK);
    SHOAL_EXPECT(sync_done(big) && !sync_done(small));
    sync_pass(4 * TICK);
    SHOAL_EXPECT(sync_done(small) && shoal_future_is_pending(last));
    sync_pass(3 * TICK);
    SHOAL_EXPECT(shoal_future_is_pending(last));
    sync_pass(1 * TICK);
    SHOAL_EXPECT_INT(sync_await(last), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0);
    /* A wait that ends early takes nothing, and the next in line is served by its own time. */
    big = waiting(acquire_three_ticks, 3);
    small = waiting(acquire, 1);
    sync_pass(3 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), -ETIMEDOUT);
    SHOAL_EXPECT(!sync_done(small));
    sync_pass(1 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0);
    big = waiting(acquire, 3);
    sync_pass(4 * TICK);
    small = waiting(acquire, 1);
    shoal_fiber_cancel(big);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0); /* its token was there */
    /* Of a future: cancelled, late, and given back. */
    last = shoal_rate_limiter_acquire_future(&limiter, 1, FOREVER);
    shoal_future_cancel(last);
    SHOAL_EXPECT_INT(sync_await(last), -ECANCELED);
    SHOAL_EXPECT(!shoal_timer_armed(&limiter.timer)); /* nobody waits: no timer */
    last = shoal_rate_limiter_acquire_future(&limiter, 1, TICK);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(sync_await(last), -ETIMEDOUT);
    SHOAL_EXPECT_INT(sync_await(shoal_rate_limiter_acquire_future(&limiter, 1, 0)), -ETIMEDOUT);
    sync_pass(8 * TICK);
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 2);
    shoal_discard(shoal_rate_limiter_acquire_future(&limiter, 2, FOREVER));
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), 2);
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 2));
    shoal_discard(shoal_rate_limiter_acquire_future(&limiter, 1, FOREVER)); /* pending */
    small = waiting(acquire, 1);
    sync_pass(4 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0); /* with the token that went back */
    end();
    sync_clock_end();
    return 0;
}

static void limiter_serves_in_order_at_the_exact_time(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
}

struct demand {
    uint64_t granted;
    bool stop;
};

static int demand_always(void *arg)
{
    struct demand *demand = arg;
    while (!demand->stop && shoal_rate_limiter_acquire(&limiter, 1, FOREVER) == 0)
        demand->granted++;
    return 0;
}

static int check_drift(void *arg)
{
    (void)arg;
    static const struct {
        uint64_t tokens, interval_ns, burst;
    } rates[] = {
        {7, 1000, 10},               /* more than one a tick: several a timer */
        {3, 100000, 2},              /* 33,333 1/3 ns each: not a whole number */
        {999983, SHOAL_NS_PER_S, 5}, /* primes */
        {1, 1000003, 1},
    };
    sync_clock_begin();
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rates); i++) {
        begin(rates[i].tokens, rates[i].interval_ns, rates[i].burst);
        SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, rates[i].burst));
        struct demand demand = {0};
        struct shoal_fiber *fibers[40]; /* somebody waits at all times */
        for (size_t f = 0; f < SHOAL_ARRAY_SIZE(fibers); f++)
            fibers[f] = sync_spawn(demand_always, &demand);
        sync_settle();
        uint64_t passed_ns = 0;
        uint64_t random = 99;
        for (int step = 0; step < 300; step++) { /* timers come late, each by something else */
            uint64_t ns = shoal_test_random(&random) % 4000;
            sync_pass(ns);
            passed_ns += ns;
        }
        sync_pass(2048 - passed_ns % 1024 + 1024); /* past the last tick */
        passed_ns += 2048 - passed_ns % 1024 + 1024;
        uint64_t exact = passed_ns * rates[i].tokens / rates[i].interval_ns;
        uint64_t before = (passed_ns - 2048) * rates[i].tokens / rates[i].interval_ns;
        SHOAL_EXPECT(demand.granted <= exact);
        SHOAL_EXPECT(demand.granted >= before); /* the wheel's tick, not the sum of all */
        demand.stop = true;
        for (size_t f = 0; f < SHOAL_ARRAY_SIZE(fibers); f++) {
            shoal_fiber_cancel(fibers[f]);
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[f]), 0);
        }
        end();
    }
    sync_clock_end();
    return 0;
}

static void limiter_rate_does_not_drift_however_late_timers_are(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_drift, NULL), 0);
}

static int check_extremes(void *arg)
{
    (void)arg;
    sync_clock_begin();
    begin((UINT64_C(1) << 62) - 1, 1, (UINT64_C(1) << 61)); /* accrues beyond any integer */
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, UINT64_C(1) << 61));
    sync_pass(1000 * TICK);
    SHOAL_EXPECT_INT(shoal_rate_limiter_available(&limiter), UINT64_C(1) << 61);
    end();
    begin(1, SHOAL_NS_PER_S, 1000); /* one that comes after seconds */
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 1000));
    struct shoal_future *future = shoal_rate_limiter_acquire_future(&limiter, 10, FOREVER);
    sync_pass(10 * SHOAL_NS_PER_S - 2 * TICK);
    SHOAL_EXPECT(shoal_future_is_pending(future));
    sync_pass(3 * TICK);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    end();
    sync_clock_end();
    return 0;
}

static void limiter_extremes_do_not_overflow(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_extremes, NULL), 0);
}

/* ---- Stress: never more than the rate and the burst, and nobody waits without a timer ---- */

struct world {
    uint64_t start_ns;
    uint64_t taken;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    uint64_t ticks = (shoal_now_ns() - world->start_ns) / TICK;
    SHOAL_EXPECT(world->taken <= 5 + ticks / 2);
    SHOAL_EXPECT(limiter.queue.count == 0 || shoal_timer_armed(&limiter.timer));
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    uint64_t n = 1 + sync_random(actor, 5);
    uint64_t timeout_ns = sync_random_timeout(actor);
    union shoal_value value;
    int code = 0;
    bool got;
    if (world->start_ns == 0)
        world->start_ns = shoal_now_ns();
    switch (sync_random(actor, 4)) {
    case 0:
        got = shoal_rate_limiter_try_acquire(&limiter, n);
        break;
    case 1:
        got = sync_end_somehow(actor, shoal_rate_limiter_acquire_future(&limiter, n, timeout_ns),
                               &value, &code);
        break;
    default:
        code = shoal_rate_limiter_acquire(&limiter, n, timeout_ns);
        got = code == 0;
        break;
    }
    SHOAL_EXPECT(code == 0 || sync_early(code));
    world->taken += got ? n : 0;
}

static void end_round(void *arg)
{
    (void)arg;
    while (limiter.queue.count > 0) /* discarded futures */
        sync_pass(TICK);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 100,
                                       .actors = 8,
                                       .steps = 15,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    begin(1, 2 * TICK, 5);
    sync_stress_run(&stress);
    SHOAL_EXPECT(world.taken > 100);
    end();
    return 0;
}

static void limiter_lets_no_more_through_than_the_rate_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limiter_bucket_fills_by_time_up_to_the_burst),
        cmocka_unit_test(limiter_serves_in_order_at_the_exact_time),
        cmocka_unit_test(limiter_rate_does_not_drift_however_late_timers_are),
        cmocka_unit_test(limiter_extremes_do_not_overflow),
        cmocka_unit_test(limiter_lets_no_more_through_than_the_rate_under_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
