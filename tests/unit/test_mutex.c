/*
 * The mutex: exclusion, order, hand-over, misuse.
 */
/* backends: both */
#include "shoal/runtime/mutex.h"

#include "unit/sync_check.h"

static struct shoal_mutex mutex;

static void begin(void)
{
    sync_clock_begin();
    shoal_mutex_init(&mutex);
}

static void end(void)
{
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_mutex_deinit(&mutex);
    sync_clock_end();
}

static int lock(void *arg)
{
    (void)arg;
    return shoal_mutex_lock(&mutex, FOREVER);
}

static int lock_two_ticks(void *arg)
{
    (void)arg;
    return shoal_mutex_lock(&mutex, 2 * TICK);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn)
{
    struct shoal_fiber *fiber = sync_spawn(fn, NULL);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int check_order(void *arg)
{
    (void)arg;
    begin();
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
    SHOAL_EXPECT_INT(shoal_mutex_lock(&mutex, 0), 0);
    SHOAL_EXPECT(shoal_mutex_locked(&mutex));
    SHOAL_EXPECT(!shoal_mutex_try_lock(&mutex));
    struct shoal_fiber *first = waiting(lock);
    struct shoal_future *second = shoal_mutex_lock_future(&mutex, FOREVER);
    struct shoal_fiber *third = waiting(lock);
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT(!shoal_mutex_try_lock(&mutex)); /* it is the first one's, which has not run yet */
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT(shoal_future_is_pending(second));
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT(!shoal_future_is_pending(second));
    sync_settle();
    SHOAL_EXPECT(!sync_done(third));
    SHOAL_EXPECT_INT(sync_await(second), 0);
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT_INT(shoal_fiber_join(third), 0);
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT(shoal_mutex_try_lock(&mutex));
    shoal_mutex_unlock(&mutex);
    end();
    return 0;
}

static void mutex_is_handed_over_in_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
}

static int check_early(void *arg)
{
    (void)arg;
    begin();
    SHOAL_EXPECT_INT(sync_await(shoal_mutex_lock_future(&mutex, FOREVER)), 0);
    SHOAL_EXPECT_INT(sync_await(shoal_mutex_lock_future(&mutex, 0)), -ETIMEDOUT);
    struct shoal_fiber *late = waiting(lock_two_ticks);
    struct shoal_fiber *cancelled = waiting(lock);
    struct shoal_fiber *patient = waiting(lock);
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    shoal_fiber_cancel(cancelled);
    SHOAL_EXPECT_INT(shoal_fiber_join(cancelled), -ECANCELED);
    shoal_mutex_unlock(&mutex);
    shoal_fiber_cancel(patient); /* it has the lock */
    SHOAL_EXPECT_INT(shoal_fiber_join(patient), 0);
    shoal_mutex_unlock(&mutex);
    shoal_discard(shoal_mutex_lock_future(&mutex, FOREVER));
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
    SHOAL_EXPECT_INT(shoal_await(shoal_mutex_lock_future(&mutex, FOREVER), NULL), 0);
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
    SHOAL_EXPECT(shoal_mutex_try_lock(&mutex));
    for (int i = 0; i < 20000; i++) /* each unlocks for the next, on little stack */
        shoal_discard(shoal_mutex_lock_future(&mutex, FOREVER));
    patient = waiting(lock);
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT_INT(shoal_fiber_join(patient), 0);
    shoal_mutex_unlock(&mutex);
    end();
    return 0;
}

static void mutex_wait_that_ends_early_never_holds_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early, NULL), 0);
}

/* ---- Stress ---- */

static void check_world(void *arg)
{
    const int *inside = arg;
    SHOAL_EXPECT(*inside <= 1);
    SHOAL_EXPECT(shoal_mutex_locked(&mutex) || mutex.queue.count == 0);
}

static void step(struct sync_actor *actor, void *arg)
{
    int *inside = arg;
    union shoal_value value;
    int code = 0;
    bool got;
    switch (sync_random(actor, 4)) {
    case 0:
        got = shoal_mutex_try_lock(&mutex);
        break;
    case 1:
        got = sync_end_somehow(actor, shoal_mutex_lock_future(&mutex, sync_random_timeout(actor)),
                               &value, &code);
        break;
    default:
        code = shoal_mutex_lock(&mutex, sync_random_timeout(actor));
        got = code == 0;
        break;
    }
    SHOAL_EXPECT(code == 0 || sync_early(code));
    if (!got)
        return;
    SHOAL_EXPECT_INT(++*inside, 1);
    (void)shoal_sleep_ns(sync_random(actor, 3) * TICK);
    SHOAL_EXPECT_INT(--*inside, 0);
    shoal_mutex_unlock(&mutex);
}

static void end_round(void *arg)
{
    (void)arg;
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
}

static int check_stress(void *arg)
{
    (void)arg;
    int inside = 0;
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 10,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &inside};
    shoal_mutex_init(&mutex);
    sync_stress_run(&stress);
    shoal_mutex_deinit(&mutex);
    return 0;
}

static void mutex_lets_one_in_at_a_time_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

/* ---- Misuse ---- */

static int lock_twice(void *arg)
{
    (void)arg;
    shoal_mutex_init(&mutex);
    (void)shoal_mutex_lock(&mutex, FOREVER);
    return shoal_mutex_lock(&mutex, FOREVER);
}

static int lock_twice_after_wait(void *arg)
{
    (void)arg;
    (void)shoal_mutex_lock(&mutex, FOREVER);
    return shoal_mutex_lock(&mutex, FOREVER);
}

static int be_handed_and_lock_twice(void *arg)
{
    shoal_mutex_init(&mutex);
    (void)shoal_mutex_lock(&mutex, FOREVER);
    struct shoal_fiber *fiber = sync_spawn(lock_twice_after_wait, arg);
    sync_settle();
    shoal_mutex_unlock(&mutex);
    return shoal_fiber_join(fiber);
}

static int unlock_unlocked(void *arg)
{
    (void)arg;
    shoal_mutex_init(&mutex);
    shoal_mutex_unlock(&mutex);
    return 0;
}

static int end_locked(void *arg)
{
    (void)arg;
    shoal_mutex_init(&mutex);
    (void)shoal_mutex_try_lock(&mutex);
    shoal_mutex_deinit(&mutex);
    return 0;
}

static void mutex_misuse_aborts_with_a_message(void **state)
{
    (void)state;
    static const struct {
        shoal_fiber_fn *fn;
        const char *text;
    } cases[] = {
        {lock_twice, "which it has locked already"},
        {be_handed_and_lock_twice, "fiber \"waiter\" locks mutex"},
        {unlock_unlocked, "and was not locked"},
        {end_locked, "ends while it is locked"},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++)
        shoal_test_fiber_aborts_with(1, cases[i].fn, cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutex_is_handed_over_in_order),
        cmocka_unit_test(mutex_wait_that_ends_early_never_holds_it),
        cmocka_unit_test(mutex_lets_one_in_at_a_time_under_stress),
        cmocka_unit_test(mutex_misuse_aborts_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
