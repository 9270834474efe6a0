/*
 * A barrier of all cores: the promises of core_barrier.h.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/core_barrier.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define ROUNDS  (2000 / SHOAL_TEST_SLOWDOWN)
#define FOREVER SHOAL_NS_FOREVER

static struct shoal_core_barrier *barrier;

static void begin(uint32_t fibers)
{
    SHOAL_EXPECT_INT(shoal_core_barrier_new(&barrier, fibers), 0);
}

static void pause_a_little(void)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(20 * SHOAL_NS_PER_US), 0);
}

/* ---- All go on together ---- */

static int plain_total; /* written by all in turn, ordered by the barrier alone */
static atomic_uint arrived, firsts;
static uint32_t fibers_a_core;

static int meet_often(void *arg)
{
    (void)arg;
    const unsigned all = shoal_core_count() * fibers_a_core;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        atomic_fetch_add(&arrived, 1);
        int rc = shoal_core_barrier_wait(barrier, FOREVER);
        SHOAL_EXPECT(rc == 0 || rc == 1);
        atomic_fetch_add(&firsts, (unsigned)rc);
        if (!SHOAL_EXPECT(atomic_load(&arrived) >= round * 2 * all - all)) /* none is missing */
            break;
        if (rc == 1)
            plain_total += 1;
        atomic_fetch_add(&arrived, 1);
        SHOAL_EXPECT(shoal_core_barrier_wait(barrier, FOREVER) >= 0);
        SHOAL_EXPECT(atomic_load(&arrived) >= round * 2 * all);
        SHOAL_EXPECT_INT(plain_total, round);
    }
    return 0;
}

static int meet_often_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct shoal_fiber *fibers[4];
    for (uint32_t i = 0; i < fibers_a_core; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], meet_often, NULL, "meets"), 0);
    for (uint32_t i = 0; i < fibers_a_core; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT_INT(shoal_core_barrier_generation(barrier), 2 * ROUNDS);
    return 0;
}

static int check_together(void *arg)
{
    (void)arg;
    const unsigned cores = shoal_core_count();
    struct shoal_future *all[8];
    for (fibers_a_core = 1; fibers_a_core <= 3; fibers_a_core += 2) {
        plain_total = 0;
        atomic_store(&arrived, 0);
        atomic_store(&firsts, 0);
        begin(fibers_a_core);
        for (unsigned i = 0; i < cores; i++)
            all[i] = shoal_submit_fiber_to(i, meet_often_here, NULL);
        for (unsigned i = 0; i < cores; i++)
            SHOAL_EXPECT_INT(shoal_await(all[i], NULL), 0);
        SHOAL_EXPECT_INT(atomic_load(&firsts), ROUNDS); /* one of all, each time */
        shoal_core_barrier_free(barrier);
    }
    return 0;
}

static void core_barrier_all_go_on_together_again_and_again(void **state)
{
    (void)state;
    static const unsigned cores[] = {1, 2, 3, 8};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++)
        assert_int_equal(shoal_test_run(cores[i], check_together, NULL), 0);
}

/* ---- More fibers than it is for ---- */

static atomic_uint passed, waiting;

static int wait_once(void *arg)
{
    (void)arg;
    atomic_fetch_add(&waiting, 1);
    int rc = shoal_core_barrier_wait(barrier, FOREVER);
    SHOAL_EXPECT(rc >= 0);
    atomic_fetch_add(&passed, 1);
    return rc;
}

static int wait_there(void *arg, union shoal_value *out)
{
    (void)out;
    return wait_once(arg);
}

static int check_extra(void *arg)
{
    (void)arg;
    struct shoal_fiber *extra[3];
    begin(1);
    atomic_store(&passed, 0);
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&extra[i], wait_once, NULL, "waits"), 0);
    pause_a_little();
    for (unsigned n = 1; n <= 3; n++) { /* each round of the others lets one of these go */
        struct shoal_future *one = shoal_submit_fiber_to(1, wait_there, NULL);
        struct shoal_future *two = shoal_submit_fiber_to(2, wait_there, NULL);
        SHOAL_EXPECT(shoal_await(one, NULL) == 0 && shoal_await(two, NULL) == 0);
        while (atomic_load(&passed) < 3 * n)
            pause_a_little();
        SHOAL_EXPECT_INT(atomic_load(&passed), 3 * n);
        SHOAL_EXPECT_INT(shoal_core_barrier_generation(barrier), n);
    }
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT(shoal_fiber_join(extra[i]) >= 0);
    shoal_core_barrier_free(barrier);
    return 0;
}

static void core_barrier_extra_fibers_wait_for_the_next_time(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_extra, NULL), 0);
}

/* ---- Leaving early ---- */

static int wait_and_tell(void *arg)
{
    *(int *)arg = shoal_core_barrier_wait(barrier, FOREVER);
    return 0;
}

static int check_leave(void *arg)
{
    (void)arg;
    struct shoal_fiber *first;
    int code = 77;
    begin(1);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, SHOAL_NS_PER_MS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&first, wait_and_tell, &code, "waits"), 0);
    pause_a_little();
    shoal_fiber_cancel(first);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT_INT(code, -ECANCELED);
    struct shoal_scope scope;
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = SHOAL_NS_PER_MS});
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -ETIMEDOUT); /* at once, now */
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    /* Those on the other cores come and find that this one is not there. */
    atomic_store(&passed, 0);
    struct shoal_future *one = shoal_submit_fiber_to(1, wait_there, NULL);
    struct shoal_future *two = shoal_submit_fiber_to(2, wait_there, NULL);
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(atomic_load(&passed), 0);
    SHOAL_EXPECT(shoal_core_barrier_wait(barrier, FOREVER) >= 0);
    SHOAL_EXPECT(shoal_await(one, NULL) == 0 && shoal_await(two, NULL) == 0);
    shoal_core_barrier_free(barrier);
    return 0;
}

static void core_barrier_who_leaves_early_has_not_arrived(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_leave, NULL), 0);
}

/* A second fiber takes the place of the one that leaves: home need not be asked. */
static int check_stand_in(void *arg)
{
    (void)arg;
    struct shoal_fiber *first, *second;
    int first_code = 77, second_code = 77;
    begin(1);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&first, wait_and_tell, &first_code, "first"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&second, wait_and_tell, &second_code, "second"), 0);
    pause_a_little();
    shoal_fiber_cancel(first);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT_INT(first_code, -ECANCELED);
    SHOAL_EXPECT_INT(second_code, 77);
    SHOAL_EXPECT(shoal_await(shoal_submit_fiber_to(1, wait_there, NULL), NULL) == 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 0);
    SHOAL_EXPECT(second_code >= 0);
    shoal_core_barrier_free(barrier);
    return 0;
}

static void core_barrier_another_stands_in_for_who_leaves(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_stand_in, NULL), 0);
}

/* ---- Cancels and time-outs that race with the opening ---- */

static atomic_bool racing;
static atomic_ulong went_on, left_early;

static int race_here(void *arg, union shoal_value *out)
{
    (void)out;
    uint64_t random = (uintptr_t)arg * 7919 + 1;
    while (atomic_load(&racing)) {
        uint64_t kind = shoal_test_random(&random) % 4;
        uint64_t timeout_ns = kind == 0 ? 500 : kind == 1 ? 20000 : SHOAL_NS_PER_MS;
        int rc = shoal_core_barrier_wait(barrier, timeout_ns);
        if (rc >= 0)
            atomic_fetch_add(&went_on, 1);
        else if (SHOAL_EXPECT_INT(rc, -ETIMEDOUT))
            atomic_fetch_add(&left_early, 1);
        if (shoal_test_random(&random) % 8 == 0)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    return 0;
}

static int generation_there(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = shoal_core_barrier_generation(barrier);
    return 0;
}

static int check_race(void *arg)
{
    uint32_t fibers = (uint32_t)(uintptr_t)arg;
    struct shoal_future *all[3 * 4];
    unsigned count = 0;
    begin(fibers);
    atomic_store(&racing, true);
    atomic_store(&went_on, 0);
    atomic_store(&left_early, 0);
    for (unsigned core = 0; core < 3; core++)
        for (uint32_t i = 0; i < fibers + 1; i++, count++) /* one to stand in, now and then */
            all[count] = shoal_submit_fiber_to(core, race_here, (void *)(uintptr_t)count);
    while (atomic_load(&went_on) < 3000 / SHOAL_TEST_SLOWDOWN ||
           atomic_load(&left_early) < 300 / SHOAL_TEST_SLOWDOWN)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    atomic_store(&racing, false);
    for (unsigned i = 0; i < count; i++)
        SHOAL_EXPECT_INT(shoal_await(all[i], NULL), 0);
    union shoal_value first, other;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(0, generation_there, NULL), &first), 0);
    for (unsigned core = 1; core < 3; core++) {
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, generation_there, NULL), &other), 0);
        SHOAL_EXPECT_INT(other.u64, first.u64); /* it opened for all, each time */
    }
    SHOAL_EXPECT_INT(atomic_load(&went_on), first.u64 * 3 * fibers); /* and for so many */
    shoal_core_barrier_free(barrier);
    return 0;
}

static void core_barrier_time_outs_that_race_with_the_opening_lose_nobody(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_race, (void *)1), 0);
    assert_int_equal(shoal_test_run(3, check_race, (void *)3), 0);
}

/* ---- Breaking ---- */

static int wait_for_break(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&waiting, 1);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -EPIPE);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -EPIPE); /* it stays so */
    return 0;
}

static int break_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_core_barrier_break(barrier, -EPIPE);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -EPIPE); /* here at once */
    shoal_core_barrier_break(barrier, -EIO);                             /* too late */
    return 0;
}

static int check_break(void *arg)
{
    unsigned breaker = (unsigned)(uintptr_t)arg;
    struct shoal_future *all[4];
    begin(2);
    atomic_store(&waiting, 0);
    for (unsigned i = 0; i < 4; i++) /* two on core 1, which arrives; one on 0 and 2 */
        all[i] = shoal_submit_fiber_to(i < 3 ? i : 1, wait_for_break, NULL);
    while (atomic_load(&waiting) < 4)
        pause_a_little();
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(breaker, break_there, NULL), NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_await(all[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -EPIPE);
    shoal_core_barrier_free(barrier);
    return 0;
}

static int break_at_once(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_core_barrier_break(barrier, -(int)(uintptr_t)arg);
    return 0;
}

static int check_breaks(void *arg)
{
    (void)arg;
    struct shoal_future *all[3];
    begin(1);
    for (uintptr_t i = 0; i < 3; i++)
        all[i] = shoal_submit_to((unsigned)i, break_at_once, (void *)(i + 1));
    for (unsigned i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_await(all[i], NULL), 0);
    shoal_core_barrier_free(barrier); /* with breaks still on their way */
    return 0;
}

static void core_barrier_break_fails_all_who_wait_and_who_come(void **state)
{
    (void)state;
    for (uintptr_t core = 0; core < 3; core++)
        assert_int_equal(shoal_test_run(3, check_break, (void *)core), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(shoal_test_run(3, check_breaks, NULL), 0);
}

/* ---- The stop of the program; freeing ---- */

static int wait_till_stop(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_EXPECT_INT(shoal_core_barrier_wait(barrier, FOREVER), -ECANCELED);
    atomic_fetch_add(&passed, 1);
    return 0;
}

static int keeper_of_barrier(void *arg)
{
    (void)arg;
    (void)shoal_sleep_ns(FOREVER); /* until the stop */
    shoal_fiber_shield();
    while (atomic_load(&passed) < 4)
        pause_a_little();
    shoal_core_barrier_free(barrier);
    shoal_fiber_unshield();
    return 0;
}

static int leave_waiters(void *arg)
{
    (void)arg;
    begin(2);
    atomic_store(&passed, 0);
    for (unsigned i = 0; i < 4; i++) /* core 1 arrives, and must leave again */
        shoal_discard(shoal_submit_fiber_to(i < 3 ? i : 1, wait_till_stop, NULL));
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(keeper_of_barrier, NULL, "keeper"), 0);
    return shoal_sleep_ns(SHOAL_NS_PER_MS);
}

static void core_barrier_stop_of_the_program_lets_all_out(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_waiters, NULL), 0);
    assert_int_equal(atomic_load(&passed), 4);
}

/* Freed as soon as one core is through, while others have not looked yet. */
static int check_free_early(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS / 4; i++) {
        struct shoal_future *one, *two;
        begin(1);
        one = shoal_submit_fiber_to(1, wait_there, NULL);
        two = shoal_submit_fiber_to(2, wait_there, NULL);
        SHOAL_EXPECT(shoal_core_barrier_wait(barrier, FOREVER) >= 0);
        shoal_core_barrier_free(barrier);
        barrier = NULL;
        (void)shoal_await(one, NULL);
        (void)shoal_await(two, NULL);
    }
    return 0;
}

static void core_barrier_free_as_soon_as_one_is_through(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_free_early, NULL), 0);
}

static int free_elsewhere(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_core_barrier_free(barrier);
    return 0;
}

static int misuse_free(void *arg)
{
    (void)arg;
    begin(1);
    return shoal_await(shoal_submit_fiber_to(1, free_elsewhere, NULL), NULL);
}

static int misuse_free_waited(void *arg)
{
    (void)arg;
    begin(1);
    atomic_store(&waiting, 0);
    shoal_discard(shoal_submit_fiber_to(1, wait_there, NULL));
    while (atomic_load(&waiting) < 1)
        pause_a_little();
    shoal_core_barrier_free(barrier);
    return 0;
}

static int misuse_break(void *arg)
{
    (void)arg;
    begin(1);
    shoal_core_barrier_break(barrier, 0);
    return 0;
}

static int check_bad_size(void *arg)
{
    (void)arg;
    struct shoal_core_barrier *none = (void *)&barrier;
    SHOAL_EXPECT_INT(shoal_core_barrier_new(&none, 0), -EINVAL);
    SHOAL_EXPECT(none == NULL);
    shoal_core_barrier_free(NULL);
    return 0;
}

static void core_barrier_misuse_is_told(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bad_size, NULL), 0);
    shoal_test_fiber_aborts_with(2, misuse_free, "of core 0 is freed on core 1");
    shoal_test_fiber_aborts_with(2, misuse_free_waited, "is freed while 1 wait on core 1");
    shoal_test_fiber_aborts_with(2, misuse_break, "is broken with code 0 (allowed: negative)");
}

/* ---- No memory at all ---- */

static int meet_without_memory(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct shoal_mem_stats before, after;
    shoal_mem_stats(&before);
    for (int i = 0; i < ROUNDS; i++)
        SHOAL_EXPECT(shoal_core_barrier_wait(barrier, FOREVER) >= 0);
    shoal_mem_stats(&after);
    SHOAL_EXPECT_INT(after.allocs - before.allocs, 0);
    return 0;
}

static int check_allocs(void *arg)
{
    (void)arg;
    begin(1);
    struct shoal_future *other = shoal_submit_fiber_to(1, meet_without_memory, NULL);
    (void)meet_without_memory(NULL, NULL);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    shoal_core_barrier_free(barrier);
    return 0;
}

static void core_barrier_wait_allocates_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_allocs, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_barrier_all_go_on_together_again_and_again),
        cmocka_unit_test(core_barrier_extra_fibers_wait_for_the_next_time),
        cmocka_unit_test(core_barrier_who_leaves_early_has_not_arrived),
        cmocka_unit_test(core_barrier_another_stands_in_for_who_leaves),
        cmocka_unit_test(core_barrier_time_outs_that_race_with_the_opening_lose_nobody),
        cmocka_unit_test(core_barrier_break_fails_all_who_wait_and_who_come),
        cmocka_unit_test(core_barrier_stop_of_the_program_lets_all_out),
        cmocka_unit_test(core_barrier_free_as_soon_as_one_is_through),
        cmocka_unit_test(core_barrier_misuse_is_told),
        cmocka_unit_test(core_barrier_wait_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
