/*
 * Once: one runs, the others wait; a failure hands the turn on.
 */
/* backends: both */
#include "shoal/runtime/once.h"

#include "unit/sync_check.h"

static struct shoal_once once;
static int runs;
static int outcome;

static int slow_work(void *arg)
{
    (void)arg;
    runs++;
    int rc = shoal_sleep_ns(2 * TICK);
    return rc < 0 ? rc : outcome;
}

static int run_slow(void *arg)
{
    return shoal_once_run(&once, slow_work, NULL, *(uint64_t *)arg);
}

static void begin(int result)
{
    runs = 0;
    outcome = result;
    shoal_once_init(&once);
}

static int check_success(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER, tick = TICK;
    sync_clock_begin();
    begin(0);
    struct shoal_fiber *runner = sync_spawn(run_slow, &tick); /* which its work does not obey */
    struct shoal_fiber *waiter = sync_spawn(run_slow, &forever);
    struct shoal_fiber *late = sync_spawn(run_slow, &tick);
    struct shoal_fiber *cancelled = sync_spawn(run_slow, &forever);
    struct shoal_future *future = shoal_once_run_future(&once, slow_work, NULL, FOREVER);
    struct shoal_future *gone = shoal_once_run_future(&once, slow_work, NULL, FOREVER);
    shoal_discard(shoal_once_run_future(&once, slow_work, NULL, FOREVER));
    sync_settle();
    SHOAL_EXPECT_INT(runs, 1);
    SHOAL_EXPECT(!shoal_once_done(&once));
    SHOAL_EXPECT_INT(shoal_once_run(&once, slow_work, NULL, 0), -ETIMEDOUT);
    shoal_fiber_cancel(cancelled);
    shoal_future_cancel(gone);
    SHOAL_EXPECT_INT(sync_await(gone), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_fiber_join(cancelled), -ECANCELED);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    SHOAL_EXPECT(!sync_done(runner) && !sync_done(waiter));
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(runner), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(waiter), 0);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    SHOAL_EXPECT(shoal_once_done(&once));
    SHOAL_EXPECT_INT(shoal_once_run(&once, slow_work, NULL, FOREVER), 0);
    SHOAL_EXPECT_INT(sync_await(shoal_once_run_future(&once, slow_work, NULL, 0)), 0);
    SHOAL_EXPECT_INT(runs, 1);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_once_deinit(&once);
    sync_clock_end();
    return 0;
}

static void once_runs_one_function_while_the_others_wait(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_success, NULL), 0);
}

static int check_failure(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER;
    sync_clock_begin();
    begin(-EIO);
    struct shoal_fiber *fibers[4];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        fibers[i] = sync_spawn(run_slow, &forever);
    sync_settle();
    SHOAL_EXPECT_INT(runs, 1);
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[0]), -EIO);
    SHOAL_EXPECT_INT(runs, 2);     /* the next in line tries */
    shoal_fiber_cancel(fibers[1]); /* and is cancelled in the middle */
    sync_settle();
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[1]), -ECANCELED);
    SHOAL_EXPECT_INT(runs, 3);
    outcome = 7; /* any number from 0 up is a success */
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[2]), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[3]), 0);
    SHOAL_EXPECT_INT(runs, 3);
    shoal_once_deinit(&once);
    begin(-EIO); /* with nobody in line: the next call tries again */
    SHOAL_EXPECT_INT(sync_await(shoal_future_ready(NULL)), 0);
    struct shoal_future *future = shoal_once_run_future(&once, slow_work, NULL, FOREVER);
    sync_settle();
    SHOAL_EXPECT_INT(runs, 1);
    shoal_future_cancel(future); /* reaches the function */
    SHOAL_EXPECT_INT(sync_await(future), -ECANCELED);
    future = shoal_once_run_future(&once, slow_work, NULL, FOREVER);
    sync_pass(0);
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(sync_await(future), -EIO);
    outcome = 0;
    future = shoal_once_run_future(&once, slow_work, NULL, FOREVER);
    sync_pass(0);
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    SHOAL_EXPECT_INT(runs, 3);
    /* The turn that was handed to a fiber which is cancelled before it runs is handed on. */
    shoal_once_deinit(&once);
    begin(-EIO);
    for (size_t i = 0; i < 3; i++)
        fibers[i] = sync_spawn(run_slow, &forever);
    sync_settle();
    shoal_fiber_cancel(fibers[0]);
    while (!sync_done(fibers[0]))
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_cancel(fibers[1]);
    sync_settle();
    SHOAL_EXPECT(sync_done(fibers[1]) && !sync_done(fibers[2]));
    outcome = 0;
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[0]), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[1]), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[2]), 0);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_once_deinit(&once);
    sync_clock_end();
    return 0;
}

static void once_failure_hands_the_turn_to_the_next(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_failure, NULL), 0);
}

/* ---- Stress ---- */

struct world {
    int inside;
    int successes;
};

static int random_work(void *arg)
{
    struct world *world = arg;
    unsigned chance = (unsigned)runs++;
    SHOAL_EXPECT_INT(++world->inside, 1);
    SHOAL_EXPECT_INT(world->successes, 0);
    int rc = shoal_sleep_ns(chance % 4 * TICK);
    world->inside--;
    if (rc == 0 && chance % 5 != 0)
        return -EIO;
    world->successes += rc == 0;
    return rc;
}

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->inside <= 1);
    SHOAL_EXPECT(once.runner != NULL || once.queue.count == 0);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    int code = 0;
    union shoal_value value;
    if (sync_random(actor, 4) == 0)
        (void)sync_end_somehow(
            actor, shoal_once_run_future(&once, random_work, world, sync_random_timeout(actor)),
            &value, &code);
    else
        code = shoal_once_run(&once, random_work, world, sync_random_timeout(actor));
    SHOAL_EXPECT(sync_early(code) || code == -EIO || (code == 0 && world->successes == 1));
}

static void end_round(void *arg)
{
    struct world *world = arg;
    while (once.runner != NULL) /* a discarded future's fiber */
        sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_once_done(&once), world->successes);
    world->successes = 0;
    shoal_once_deinit(&once);
    shoal_once_init(&once);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 200,
                                       .actors = 6,
                                       .steps = 6,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    begin(0);
    sync_stress_run(&stress);
    shoal_once_deinit(&once);
    return 0;
}

static void once_succeeds_once_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

static int run_itself(void *arg)
{
    return shoal_once_run(&once, run_itself, arg, FOREVER);
}

static int start_itself(void *arg)
{
    begin(0);
    return run_itself(arg);
}

static void once_within_itself_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, start_itself, "that it runs itself");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_runs_one_function_while_the_others_wait),
        cmocka_unit_test(once_failure_hands_the_turn_to_the_next),
        cmocka_unit_test(once_succeeds_once_under_stress),
        cmocka_unit_test(once_within_itself_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
