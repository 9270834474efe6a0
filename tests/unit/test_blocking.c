/*
 * Blocking calls on helper threads.
 */
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include <pthread.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"

/* backends: both */
#include "unit/harness.h"

#define CALLS 100

static atomic_int running, running_max;

static int block_a_while(void *arg)
{
    int now = atomic_fetch_add(&running, 1) + 1;
    int max = atomic_load(&running_max);
    while (now > max && !atomic_compare_exchange_weak(&running_max, &max, now))
        ;
    struct timespec pause = {.tv_nsec = 1000000};
    nanosleep(&pause, NULL);
    SHOAL_EXPECT_INT(shoal_core_id(), -1);
    atomic_fetch_sub(&running, 1);
    return (int)(intptr_t)arg;
}

static int call(void *arg)
{
    return shoal_blocking_call(block_a_while, arg);
}

static int check_many(void *arg)
{
    (void)arg;
    struct shoal_fiber *fibers[CALLS];
    atomic_store(&running_max, 0);
    for (intptr_t i = 0; i < CALLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], call, (void *)i, "caller"), 0);
    for (intptr_t i = 0; i < CALLS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i);
    SHOAL_EXPECT(atomic_load(&running_max) <= SHOAL_BLOCKING_THREADS_MAX);
    SHOAL_EXPECT(atomic_load(&running_max) >= 2);
    return 0;
}

static void blocking_more_calls_than_threads_all_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_many, NULL), 0);
}

static atomic_int gate, entered, passed;

static int wait_at_gate(void *arg)
{
    struct timespec pause = {.tv_nsec = 1000000};
    atomic_fetch_add(&entered, 1);
    while (atomic_load(&gate) == 0)
        nanosleep(&pause, NULL);
    atomic_fetch_add(&passed, 1);
    return (int)(intptr_t)arg;
}

static void wait_entered(int count)
{
    while (atomic_load(&entered) < count)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
}

static int call_gate(void *arg)
{
    int rc = shoal_blocking_call(wait_at_gate, arg);
    SHOAL_EXPECT_INT(atomic_load(&passed), 1); /* the call has really ended */
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_blocking_call(wait_at_gate, arg), -ECANCELED);
    return rc;
}

static int check_cancel(void *arg)
{
    (void)arg;
    atomic_store(&gate, 0);
    atomic_store(&entered, 0);
    atomic_store(&passed, 0);
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, call_gate, (void *)6, "caller"), 0);
    wait_entered(1);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(atomic_load(&passed), 0);
    atomic_store(&gate, 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 6);
    return 0;
}

static void blocking_cancel_waits_for_the_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancel, NULL), 0);
}

static int call_gate_once(void *arg)
{
    return shoal_blocking_call(wait_at_gate, arg);
}

/* All threads are taken: the calls behind them have not begun, and end at once. */
static int check_cancel_queued(void *arg)
{
    (void)arg;
    enum { WAITING = 6, FIBERS = SHOAL_BLOCKING_THREADS_MAX + WAITING };
    struct shoal_fiber *fibers[FIBERS];
    atomic_store(&gate, 0);
    atomic_store(&entered, 0);
    atomic_store(&passed, 0);
    for (intptr_t i = 0; i < FIBERS; i++) {
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], call_gate_once, (void *)i, "caller"), 0);
        wait_entered((int)(i < SHOAL_BLOCKING_THREADS_MAX ? i + 1 : SHOAL_BLOCKING_THREADS_MAX));
    }
    SHOAL_EXPECT_INT(shoal_yield(), 0); /* the last one waits in the queue */
    for (int i = FIBERS - 1; i >= SHOAL_BLOCKING_THREADS_MAX; i -= 2) {
        shoal_fiber_cancel(fibers[i]);
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), -ECANCELED);
    }
    SHOAL_EXPECT_INT(atomic_load(&passed), 0);
    atomic_store(&gate, 1);
    for (int i = 0; i < SHOAL_BLOCKING_THREADS_MAX; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i);
    for (int i = FIBERS - 2; i >= SHOAL_BLOCKING_THREADS_MAX; i -= 2)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i);
    SHOAL_EXPECT_INT(atomic_load(&passed), SHOAL_BLOCKING_THREADS_MAX + WAITING / 2);
    return 0;
}

static void blocking_cancel_of_a_call_that_has_not_begun_ends_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancel_queued, NULL), 0);
}

static int note_signals(void *arg)
{
    (void)arg;
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    return sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1);
}

static int check_signals(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_blocking_call(note_signals, NULL), 1);
    return 0;
}

static void blocking_helpers_take_no_signals(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_signals, NULL), 0);
}

#define WAKES (20000 / SHOAL_TEST_SLOWDOWN)

static int spin_a_little(void *arg)
{
    for (volatile intptr_t i = (intptr_t)arg; i > 0; i--)
        ;
    return 0;
}

/* Each answer meets the core at another moment of its falling asleep; a lost one would hang. */
static int check_wakes(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < WAKES; i++)
        SHOAL_EXPECT_INT(shoal_blocking_call(spin_a_little, (void *)(i * 37 % 8192)), 0);
    return 0;
}

static void blocking_answer_wakes_a_core_that_falls_asleep(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_wakes, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocking_more_calls_than_threads_all_end),
        cmocka_unit_test(blocking_cancel_waits_for_the_end),
        cmocka_unit_test(blocking_cancel_of_a_call_that_has_not_begun_ends_it),
        cmocka_unit_test(blocking_helpers_take_no_signals),
        cmocka_unit_test(blocking_answer_wakes_a_core_that_falls_asleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
