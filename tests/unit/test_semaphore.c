/*
 * The semaphore: order, hand-over, waits that end early.
 */
/* backends: both */
#include "shoal/runtime/semaphore.h"

#include "unit/sync_check.h"

static struct shoal_semaphore semaphore;

static void begin(uint64_t units)
{
    sync_clock_begin();
    shoal_semaphore_init(&semaphore, units);
}

static void end(uint64_t units)
{
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), units);
    SHOAL_EXPECT_INT(shoal_semaphore_waiting(&semaphore), 0);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_semaphore_deinit(&semaphore);
    sync_clock_end();
}

/* On a fiber: `arg` units, for as long as it takes. */
static int acquire(void *arg)
{
    return shoal_semaphore_acquire(&semaphore, (uint64_t)(uintptr_t)arg, FOREVER);
}

static int acquire_two_ticks(void *arg)
{
    return shoal_semaphore_acquire(&semaphore, (uint64_t)(uintptr_t)arg, 2 * TICK);
}

static int return_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, uint64_t n)
{
    struct shoal_fiber *fiber = sync_spawn(fn, (void *)(uintptr_t)n);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int check_counting(void *arg)
{
    (void)arg;
    begin(3);
    SHOAL_EXPECT_INT(shoal_semaphore_acquire(&semaphore, 2, FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 1);
    SHOAL_EXPECT(!shoal_semaphore_try_acquire(&semaphore, 2));
    struct shoal_fiber *other = sync_spawn(return_at_once, NULL);
    SHOAL_EXPECT_INT(shoal_semaphore_acquire(&semaphore, 2, 0), -ETIMEDOUT); /* does not wait */
    SHOAL_EXPECT(!sync_done(other));                                         /* nor yield */
    SHOAL_EXPECT_INT(shoal_fiber_join(other), 0);
    SHOAL_EXPECT(shoal_semaphore_try_acquire(&semaphore, 1));
    SHOAL_EXPECT(!shoal_semaphore_try_acquire(&semaphore, 1));
    SHOAL_EXPECT(shoal_semaphore_try_acquire(&semaphore, 0));
    struct shoal_fiber *fiber = waiting(acquire, 2);
    SHOAL_EXPECT_INT(shoal_semaphore_waiting(&semaphore), 1);
    shoal_semaphore_release(&semaphore, 1);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    shoal_semaphore_release(&semaphore, 2);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore),
                     1); /* given at once, not when it runs */
    SHOAL_EXPECT(!sync_done(fiber));
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    end(1);
    return 0;
}

static void semaphore_units_are_taken_and_given(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_counting, NULL), 0);
}

static int check_order(void *arg)
{
    (void)arg;
    begin(0);
    struct shoal_fiber *big = waiting(acquire, 3);
    struct shoal_fiber *small = waiting(acquire, 1);
    struct shoal_future *last = shoal_semaphore_acquire_future(&semaphore, 1, FOREVER);
    shoal_semaphore_release(&semaphore, 2);
    sync_settle();
    SHOAL_EXPECT(!sync_done(big) && !sync_done(small)); /* nobody overtakes who wants many */
    SHOAL_EXPECT(shoal_future_is_pending(last));
    SHOAL_EXPECT(!shoal_semaphore_try_acquire(&semaphore, 1));
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 2);
    shoal_semaphore_release(&semaphore, 1);
    sync_settle();
    SHOAL_EXPECT(sync_done(big) && !sync_done(small));
    shoal_semaphore_release(&semaphore, 1);
    sync_settle();
    SHOAL_EXPECT(sync_done(small) && shoal_future_is_pending(last));
    shoal_semaphore_release(&semaphore, 5);
    SHOAL_EXPECT(!shoal_future_is_pending(last));
    SHOAL_EXPECT_INT(sync_await(last), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0);
    end(4);
    return 0;
}

static void semaphore_serves_in_order_and_none_overtakes_the_big(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
}

static int check_time_out(void *arg)
{
    (void)arg;
    begin(1);
    struct shoal_fiber *big = waiting(acquire_two_ticks, 2);
    struct shoal_fiber *small = waiting(acquire, 1);
    sync_pass(TICK);
    SHOAL_EXPECT(!sync_done(big));
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0); /* the way is free: its unit was there */
    big = waiting(acquire, 2);
    small = sync_spawn(acquire, (void *)0);
    sync_settle();
    SHOAL_EXPECT(!sync_done(small));
    shoal_fiber_cancel(big); /* the same, by a cancel */
    SHOAL_EXPECT_INT(shoal_fiber_join(small), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(big), -ECANCELED);
    struct shoal_future *first = shoal_semaphore_acquire_future(&semaphore, 2, FOREVER);
    struct shoal_future *second = shoal_semaphore_acquire_future(&semaphore, 0, FOREVER);
    struct shoal_future *third = shoal_semaphore_acquire_future(&semaphore, 1, TICK);
    shoal_future_cancel(first);
    SHOAL_EXPECT(!shoal_future_is_pending(second));
    sync_pass(TICK);
    SHOAL_EXPECT_INT(sync_await(first), -ECANCELED);
    SHOAL_EXPECT_INT(sync_await(second), 0);
    SHOAL_EXPECT_INT(sync_await(third), -ETIMEDOUT);
    SHOAL_EXPECT_INT(sync_await(shoal_semaphore_acquire_future(&semaphore, 1, 0)), -ETIMEDOUT);
    end(0);
    return 0;
}

static void semaphore_wait_that_ends_early_lets_those_behind_through(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_time_out, NULL), 0);
}

static int check_races(void *arg)
{
    (void)arg;
    begin(0);
    struct shoal_fiber *fiber = waiting(acquire, 1);
    shoal_semaphore_release(&semaphore, 1);
    shoal_fiber_cancel(fiber); /* the unit was faster */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    fiber = waiting(acquire, 1);
    shoal_fiber_cancel(fiber);
    shoal_semaphore_release(&semaphore, 1); /* the cancel was faster */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT(shoal_semaphore_try_acquire(&semaphore, 1));
    fiber = waiting(acquire_two_ticks, 1);
    shoal_semaphore_release(&semaphore, 1);
    sync_pass(2 * TICK); /* granted, and late before it ran */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    fiber = sync_spawn(acquire, (void *)1);
    shoal_fiber_cancel(fiber); /* before it ran at all: it takes nothing that is there */
    shoal_semaphore_release(&semaphore, 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT(shoal_semaphore_try_acquire(&semaphore, 1));
    fiber = waiting(acquire, 1);
    shoal_fiber_make_ready(shoal_core_self, fiber); /* woken for nothing */
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    shoal_fiber_make_ready(shoal_core_self, fiber);
    shoal_fiber_cancel(fiber); /* while it is on its way for nothing */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    end(0);
    return 0;
}

static void semaphore_race_is_won_by_one_and_loses_no_unit(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_races, NULL), 0);
}

#define CROWD 20000

static int check_consumer_gone(void *arg)
{
    (void)arg;
    begin(1);
    shoal_discard(shoal_semaphore_acquire_future(&semaphore, 1, FOREVER)); /* ready */
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 1);
    SHOAL_EXPECT_INT(shoal_await(shoal_semaphore_acquire_future(&semaphore, 1, FOREVER), NULL), 0);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 1);
    SHOAL_EXPECT_INT(sync_await(shoal_semaphore_acquire_future(&semaphore, 1, FOREVER)), 0);
    struct shoal_future *future = shoal_semaphore_acquire_future(&semaphore, 1, FOREVER);
    shoal_semaphore_release(&semaphore, 1);
    shoal_future_cancel(future); /* late: it has its unit */
    SHOAL_EXPECT_INT(sync_await(future), 0);
    /* A crowd that nobody waits for lets one after the other through, on little stack. */
    for (int i = 0; i < CROWD; i++)
        shoal_discard(shoal_semaphore_acquire_future(&semaphore, 1, FOREVER));
    struct shoal_fiber *fiber = waiting(acquire, 1);
    SHOAL_EXPECT_INT(shoal_semaphore_waiting(&semaphore), CROWD + 1);
    shoal_semaphore_release(&semaphore, 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    end(0);
    return 0;
}

static void semaphore_units_of_a_future_without_consumer_go_back(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_consumer_gone, NULL), 0);
}

/* ---- Stress ---- */

#define UNITS 5

struct world {
    uint64_t held;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->held + shoal_semaphore_available(&semaphore) <= UNITS);
    const struct shoal_waiter *first = shoal_wait_queue_first(&semaphore.queue);
    SHOAL_EXPECT(first == NULL || first->n > shoal_semaphore_available(&semaphore));
}

static void hold(struct sync_actor *actor, struct world *world, uint64_t n)
{
    world->held += n;
    check_world(world);
    if (sync_random(actor, 2) == 0)
        (void)shoal_sleep_ns(sync_random(actor, 3) * TICK);
    world->held -= n;
    shoal_semaphore_release(&semaphore, n);
    check_world(world);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    uint64_t n = 1 + sync_random(actor, 4);
    union shoal_value value;
    int code = -EAGAIN;
    bool got;
    switch (sync_random(actor, 4)) {
    case 0:
        got = shoal_semaphore_try_acquire(&semaphore, n);
        break;
    case 1:
        got = sync_end_somehow(
            actor, shoal_semaphore_acquire_future(&semaphore, n, sync_random_timeout(actor)),
            &value, &code);
        SHOAL_EXPECT(code == 0 || sync_early(code));
        break;
    default:
        code = shoal_semaphore_acquire(&semaphore, n, sync_random_timeout(actor));
        got = code == 0;
        SHOAL_EXPECT(got || sync_early(code));
        break;
    }
    if (got)
        hold(actor, world, n);
}

static void end_round(void *arg)
{
    SHOAL_EXPECT_INT(((struct world *)arg)->held, 0);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), UNITS);
    SHOAL_EXPECT_INT(shoal_semaphore_waiting(&semaphore), 0);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 300,
                                       .actors = 12,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_semaphore_init(&semaphore, UNITS);
    sync_stress_run(&stress);
    shoal_semaphore_deinit(&semaphore);
    return 0;
}

static void semaphore_units_are_conserved_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(semaphore_units_are_taken_and_given),
        cmocka_unit_test(semaphore_serves_in_order_and_none_overtakes_the_big),
        cmocka_unit_test(semaphore_wait_that_ends_early_lets_those_behind_through),
        cmocka_unit_test(semaphore_race_is_won_by_one_and_loses_no_unit),
        cmocka_unit_test(semaphore_units_of_a_future_without_consumer_go_back),
        cmocka_unit_test(semaphore_units_are_conserved_under_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
