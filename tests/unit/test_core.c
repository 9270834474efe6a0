/*
 * The loop: fairness among tasks, and work that other threads post to a core that may sleep.
 */
/* backends: both */
#include <stdatomic.h>

#include <pthread.h>
#include <sched.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/task.h"

#include "unit/harness.h"

/* ---- Posts of foreign threads ---- */

#define POSTS (100000 / SHOAL_TEST_SLOWDOWN)

static struct poster {
    struct shoal_core *core;
    struct shoal_task task;
    atomic_int acknowledged;
    struct shoal_future *waiting;
} poster;

static void acknowledge(struct shoal_task *task)
{
    (void)task;
    atomic_fetch_add(&poster.acknowledged, 1);
}

static void end(struct shoal_task *task)
{
    (void)task;
    shoal_future_resolve(poster.waiting, NULL);
}

/* Posts again as soon as the last one has run, at ever other moments of the core's way to sleep. */
static void *post_all(void *arg)
{
    (void)arg;
    poster.task.run = acknowledge;
    for (int i = 0; i < POSTS; i++) {
        for (volatile int spin = i * 7 % 512; spin > 0; spin--)
            ;
        shoal_core_post_foreign(poster.core, &poster.task);
        while (atomic_load(&poster.acknowledged) != i + 1)
            ;
    }
    poster.task.run = end;
    shoal_core_post_foreign(poster.core, &poster.task);
    return NULL;
}

static int check_posts(void *arg)
{
    (void)arg;
    poster.core = shoal_core_self;
    atomic_store(&poster.acknowledged, 0);
    poster.waiting = shoal_future_new();
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    cpu_set_t cpus;
    memcpy(&cpus, shoal_core_self->config.helper_cpus, sizeof(cpus));
    if (CPU_COUNT(&cpus) > 1)
        CPU_CLR(sched_getcpu(), &cpus); /* both are to run at the same time */
    pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
    SHOAL_EXPECT_INT(pthread_create(&thread, &attr, post_all, NULL), 0);
    pthread_attr_destroy(&attr);
    SHOAL_EXPECT_INT(shoal_await(poster.waiting, NULL), 0); /* no timer: a lost wake-up hangs */
    pthread_join(thread, NULL);
    return shoal_yield();
}

static void core_foreign_post_wakes_a_core_that_falls_asleep(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_posts, NULL), 0);
}

struct numbered {
    struct shoal_task task;
    int number;
};

static int next_number;

static void check_number(struct shoal_task *task)
{
    SHOAL_EXPECT_INT(SHOAL_CONTAINER_OF(task, struct numbered, task)->number, next_number);
    next_number++;
}

static void *post_in_order(void *arg)
{
    struct numbered *tasks = arg;
    for (int i = 0; i < 1000; i++)
        shoal_core_post_foreign(poster.core, &tasks[i].task);
    return NULL;
}

static int check_post_order(void *arg)
{
    (void)arg;
    static struct numbered tasks[1000];
    poster.core = shoal_core_self;
    next_number = 0;
    for (int i = 0; i < 1000; i++)
        tasks[i] = (struct numbered){.task.run = check_number, .number = i};
    pthread_t thread;
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, post_in_order, tasks), 0);
    while (next_number < 1000)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    pthread_join(thread, NULL);
    return 0;
}

static void core_foreign_posts_of_one_thread_keep_their_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_post_order, NULL), 0);
}

/* ---- Fairness ---- */

static bool busy;

static int keep_busy(void *arg)
{
    (void)arg;
    while (busy)
        (void)shoal_yield();
    return 0;
}

static int check_fair(void *arg)
{
    (void)arg;
    busy = true;
    for (int i = 0; i < 50; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(keep_busy, NULL, "busy"), 0);
    for (int i = 0; i < 20; i++) /* timers go on although the queue is never empty */
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    busy = false;
    return 0;
}

static void core_timers_go_on_while_tasks_never_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_fair, NULL), 0);
}

static int check_preempt(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    bool asked = false;
    uint64_t end_ns = shoal_now_ns() + 2 * SHOAL_NS_PER_MS; /* the quota is 0.5 ms */
    while (shoal_now_ns() < end_ns)
        asked = shoal_need_preempt();
    SHOAL_EXPECT(asked);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    return 0;
}

static void core_need_preempt_is_asked_after_the_quota(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_preempt, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_foreign_post_wakes_a_core_that_falls_asleep),
        cmocka_unit_test(core_foreign_posts_of_one_thread_keep_their_order),
        cmocka_unit_test(core_timers_go_on_while_tasks_never_end),
        cmocka_unit_test(core_need_preempt_is_asked_after_the_quota),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
