/*
 * The barrier: all or nobody, generation after generation.
 */
/* backends: both */
#include "shoal/runtime/barrier.h"

#include "unit/sync_check.h"

static struct shoal_barrier barrier;

static int meet(void *arg)
{
    return shoal_barrier_wait(&barrier, *(uint64_t *)arg);
}

static int check_generations(void *arg)
{
    (void)arg;
    uint64_t forever = FOREVER, tick = TICK;
    union shoal_value value;
    sync_clock_begin();
    shoal_barrier_init(&barrier, 3);
    for (int generation = 0; generation < 3; generation++) {
        SHOAL_EXPECT_INT(shoal_barrier_generation(&barrier), generation);
        struct shoal_fiber *first = sync_spawn(meet, &forever);
        struct shoal_future *second = shoal_barrier_wait_future(&barrier, FOREVER);
        sync_settle();
        SHOAL_EXPECT(!sync_done(first) && shoal_future_is_pending(second));
        SHOAL_EXPECT_INT(shoal_barrier_waiting(&barrier), 2);
        SHOAL_EXPECT_INT(shoal_barrier_wait(&barrier, 0), 1); /* the last need not wait */
        shoal_fiber_cancel(first);                            /* it has met them */
        SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
        SHOAL_EXPECT_INT(shoal_await(second, &value), 0);
        SHOAL_EXPECT_INT(value.slice.size, 0);
    }
    struct shoal_fiber *late = sync_spawn(meet, &tick);
    struct shoal_fiber *cancelled = sync_spawn(meet, &forever);
    sync_settle();
    SHOAL_EXPECT_INT(shoal_barrier_waiting(&barrier), 2);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(late), -ETIMEDOUT);
    shoal_fiber_cancel(cancelled);
    SHOAL_EXPECT_INT(shoal_fiber_join(cancelled), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_barrier_waiting(&barrier), 0); /* they have not arrived */
    SHOAL_EXPECT_INT(shoal_barrier_wait(&barrier, 0), -ETIMEDOUT);
    struct shoal_future *gone = shoal_barrier_wait_future(&barrier, FOREVER);
    shoal_future_cancel(gone);
    SHOAL_EXPECT_INT(sync_await(gone), -ECANCELED);
    shoal_discard(shoal_barrier_wait_future(&barrier, FOREVER)); /* this one has */
    struct shoal_fiber *first = sync_spawn(meet, &forever);
    sync_settle();
    struct shoal_future *last = shoal_barrier_wait_future(&barrier, FOREVER);
    SHOAL_EXPECT_INT(shoal_await(last, &value), 0);
    SHOAL_EXPECT_INT(value.slice.size, 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT_INT(shoal_barrier_generation(&barrier), 4);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_barrier_deinit(&barrier);
    shoal_barrier_init(&barrier, 1);
    SHOAL_EXPECT_INT(shoal_barrier_wait(&barrier, FOREVER), 1);
    shoal_barrier_deinit(&barrier);
    sync_clock_end();
    return 0;
}

static void barrier_lets_all_go_when_the_last_arrives(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_generations, NULL), 0);
}

/* ---- Stress: each generation has one last, and two that met it ---- */

struct world {
    uint64_t met;
    uint64_t lasts;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->lasts <= shoal_barrier_generation(&barrier));
    SHOAL_EXPECT(shoal_barrier_waiting(&barrier) < 3);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    int code = shoal_barrier_wait(&barrier, sync_random_timeout(actor));
    SHOAL_EXPECT(code == 0 || code == 1 || sync_early(code));
    world->met += code >= 0;
    world->lasts += code == 1;
}

static void end_round(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT_INT(world->lasts, shoal_barrier_generation(&barrier));
    SHOAL_EXPECT_INT(world->met, 3 * world->lasts);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {0};
    const struct sync_stress stress = {.rounds = 100,
                                       .actors = 8,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_barrier_init(&barrier, 3);
    sync_stress_run(&stress);
    SHOAL_EXPECT(world.lasts > 50);
    shoal_barrier_deinit(&barrier);
    return 0;
}

static void barrier_parties_meet_in_full_numbers_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

static int make_empty(void *arg)
{
    (void)arg;
    shoal_barrier_init(&barrier, 0);
    return 0;
}

static void barrier_of_nobody_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, make_empty, "a barrier of no parties");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barrier_lets_all_go_when_the_last_arrives),
        cmocka_unit_test(barrier_parties_meet_in_full_numbers_under_stress),
        cmocka_unit_test(barrier_of_nobody_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
