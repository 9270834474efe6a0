/*
 * The condition: signals, broadcasts, the mutex around a wait, predicates.
 */
/* backends: both */
#include "shoal/runtime/condition.h"

#include "unit/sync_check.h"

static struct shoal_condition condition;
static struct shoal_mutex mutex;

static void begin(void)
{
    sync_clock_begin();
    shoal_condition_init(&condition);
    shoal_mutex_init(&mutex);
}

static void end(void)
{
    SHOAL_EXPECT_INT(shoal_condition_waiting(&condition), 0);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_condition_deinit(&condition);
    shoal_mutex_deinit(&mutex);
    sync_clock_end();
}

static int wait_plain(void *arg)
{
    (void)arg;
    return shoal_condition_wait(&condition, NULL, FOREVER);
}

static int wait_a_tick(void *arg)
{
    (void)arg;
    return shoal_condition_wait(&condition, NULL, TICK);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber = sync_spawn(fn, arg);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int check_signals(void *arg)
{
    (void)arg;
    begin();
    shoal_condition_signal(&condition); /* nobody: not remembered */
    struct shoal_fiber *first = waiting(wait_plain, NULL);
    struct shoal_fiber *second = waiting(wait_plain, NULL);
    struct shoal_future *third = shoal_condition_wait_future(&condition, FOREVER);
    struct shoal_fiber *late = waiting(wait_a_tick, NULL);
    SHOAL_EXPECT_INT(shoal_condition_waiting(&condition), 4);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    shoal_condition_signal(&condition);
    sync_settle();
    SHOAL_EXPECT(sync_done(first) && !sync_done(second));
    shoal_condition_signal(&condition);
    shoal_fiber_cancel(second); /* the signal was faster */
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 0);
    SHOAL_EXPECT(shoal_future_is_pending(third));
    first = waiting(wait_plain, NULL);
    shoal_fiber_cancel(first);
    shoal_condition_signal(&condition); /* goes to who is left */
    SHOAL_EXPECT_INT(shoal_fiber_join(first), -ECANCELED);
    SHOAL_EXPECT_INT(sync_await(third), 0);
    SHOAL_EXPECT_INT(shoal_condition_wait(&condition, NULL, 0), -ETIMEDOUT);
    third = shoal_condition_wait_future(&condition, FOREVER);
    shoal_future_cancel(third);
    SHOAL_EXPECT_INT(sync_await(third), -ECANCELED);
    end();
    return 0;
}

static void condition_signal_wakes_the_first_in_line(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_signals, NULL), 0);
}

static int check_broadcast(void *arg)
{
    (void)arg;
    begin();
    struct shoal_fiber *fibers[5];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        fibers[i] = waiting(wait_plain, NULL);
    shoal_discard(shoal_condition_wait_future(&condition, FOREVER));
    shoal_condition_broadcast(&condition);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT_INT(shoal_condition_waiting(&condition), 0);
    struct shoal_future *future = shoal_condition_wait_future(&condition, FOREVER);
    shoal_condition_broadcast(&condition);
    fibers[0] = waiting(wait_plain, NULL);
    shoal_discard(future); /* of a broadcast nothing goes on */
    sync_settle();
    SHOAL_EXPECT(!sync_done(fibers[0]));
    future = shoal_condition_wait_future(&condition, FOREVER);
    shoal_condition_signal(&condition);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[0]), 0);
    shoal_condition_signal(&condition);
    fibers[0] = waiting(wait_plain, NULL);
    shoal_discard(future); /* a signal goes on */
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[0]), 0);
    for (int i = 0; i < 20000; i++)
        shoal_discard(shoal_condition_wait_future(&condition, FOREVER));
    fibers[0] = waiting(wait_plain, NULL);
    fibers[1] = waiting(wait_plain, NULL);
    shoal_condition_signal(&condition); /* through all, to one, on little stack */
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[0]), 0);
    SHOAL_EXPECT_INT(shoal_condition_waiting(&condition), 1);
    shoal_condition_signal(&condition);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[1]), 0);
    end();
    return 0;
}

static void condition_broadcast_wakes_all_and_a_lost_signal_goes_on(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_broadcast, NULL), 0);
}

static int wait_with_mutex(void *arg)
{
    uint64_t *timeout_ns = arg;
    if (shoal_mutex_lock(&mutex, FOREVER) < 0)
        return -1;
    int rc = shoal_condition_wait(&condition, &mutex, *timeout_ns);
    SHOAL_EXPECT(shoal_mutex_locked(&mutex) && mutex.holder == shoal_fiber_self());
    shoal_mutex_unlock(&mutex);
    return rc;
}

static int check_mutex(void *arg)
{
    (void)arg;
    begin();
    uint64_t timeout_ns = FOREVER;
    struct shoal_fiber *fiber = waiting(wait_with_mutex, &timeout_ns);
    SHOAL_EXPECT(shoal_mutex_try_lock(&mutex)); /* it is unlocked meanwhile */
    shoal_condition_signal(&condition);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber)); /* and returns with it locked */
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    fiber = waiting(wait_with_mutex, &timeout_ns);
    SHOAL_EXPECT(shoal_mutex_try_lock(&mutex));
    shoal_fiber_cancel(fiber);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber)); /* even a cancelled one */
    shoal_mutex_unlock(&mutex);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    timeout_ns = TICK;
    fiber = waiting(wait_with_mutex, &timeout_ns);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ETIMEDOUT);
    timeout_ns = 0;
    SHOAL_EXPECT_INT(shoal_fiber_join(sync_spawn(wait_with_mutex, &timeout_ns)), -ETIMEDOUT);
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
    end();
    return 0;
}

static void condition_mutex_is_held_after_every_wait(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_mutex, NULL), 0);
}

static int number;
static int asked;

static bool is_three(void *arg)
{
    (void)arg;
    asked++;
    return number == 3;
}

static int wait_for_three(void *arg)
{
    return shoal_condition_wait_for(&condition, is_three, NULL, *(uint64_t *)arg);
}

static int check_predicate(void *arg)
{
    (void)arg;
    begin();
    number = 3;
    uint64_t timeout_ns = 0;
    SHOAL_EXPECT_INT(wait_for_three(&timeout_ns), 0); /* it holds: no wait */
    number = 0;
    SHOAL_EXPECT_INT(wait_for_three(&timeout_ns), -ETIMEDOUT);
    timeout_ns = 3 * TICK;
    struct shoal_fiber *fiber = waiting(wait_for_three, &timeout_ns);
    asked = 0;
    shoal_condition_signal(&condition);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber) && asked == 1);
    sync_pass(2 * TICK);
    shoal_condition_broadcast(&condition);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    sync_pass(TICK); /* the time is for all of it, not for each wait */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ETIMEDOUT);
    timeout_ns = FOREVER;
    fiber = waiting(wait_for_three, &timeout_ns);
    number = 3;
    shoal_condition_signal(&condition);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    number = 0;
    timeout_ns = TICK;
    fiber = waiting(wait_for_three, &timeout_ns);
    number = 3; /* without a signal: seen as the time is up */
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    end();
    return 0;
}

static void condition_predicate_is_asked_after_each_signal(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_predicate, NULL), 0);
}

/* ---- Stress: signals that meet a waiter, and waits that end by one, are as many ---- */

struct world {
    long sent;
    long received;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->received <= world->sent);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    int code;
    if (sync_random(actor, 3) == 0) {
        world->sent += shoal_condition_waiting(&condition) > 0;
        shoal_condition_signal(&condition);
        return;
    }
    bool locked = sync_random(actor, 2) == 0 && shoal_mutex_lock(&mutex, FOREVER) == 0;
    code = shoal_condition_wait(&condition, locked ? &mutex : NULL, sync_random_timeout(actor));
    world->received += code == 0;
    SHOAL_EXPECT(code == 0 || sync_early(code));
    if (locked)
        shoal_mutex_unlock(&mutex);
}

static void end_round(void *arg)
{
    struct world *world = arg;
    SHOAL_EXPECT_INT(world->sent, world->received);
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex));
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 10,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_condition_init(&condition);
    shoal_mutex_init(&mutex);
    sync_stress_run(&stress);
    SHOAL_EXPECT(world.sent > 100);
    shoal_condition_deinit(&condition);
    shoal_mutex_deinit(&mutex);
    return 0;
}

static void condition_no_signal_is_lost_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

static int wait_unlocked(void *arg)
{
    (void)arg;
    shoal_condition_init(&condition);
    shoal_mutex_init(&mutex);
    return shoal_condition_wait(&condition, &mutex, FOREVER);
}

static void condition_wait_without_its_mutex_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, wait_unlocked, "without its mutex");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(condition_signal_wakes_the_first_in_line),
        cmocka_unit_test(condition_broadcast_wakes_all_and_a_lost_signal_goes_on),
        cmocka_unit_test(condition_mutex_is_held_after_every_wait),
        cmocka_unit_test(condition_predicate_is_asked_after_each_signal),
        cmocka_unit_test(condition_no_signal_is_lost_under_stress),
        cmocka_unit_test(condition_wait_without_its_mutex_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
