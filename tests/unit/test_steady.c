/*
 * No allocation in steady state: counts what the core takes from the allocator while it works.
 */
/* backends: both */
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/timer.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define ROUNDS (100000 / SHOAL_TEST_SLOWDOWN)
#define WARM   1000

static int add_one(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    out->i64 = in->i64 + 1;
    return 0;
}

static int chain(void)
{
    struct shoal_future *first = shoal_future_new();
    struct shoal_future *last = shoal_then(first, add_one, NULL);
    last = shoal_then(shoal_then(last, add_one, NULL), add_one, NULL);
    shoal_future_resolve(first, NULL);
    union shoal_value value;
    int rc = shoal_await(last, &value);
    return rc == 0 && value.i64 == 3 ? 0 : -1;
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int spawn_and_join(void)
{
    struct shoal_fiber *fiber;
    int rc = shoal_fiber_spawn(&fiber, nothing, NULL, "child");
    return rc == 0 ? shoal_fiber_join(fiber) : rc;
}

static int plus_one(void *arg, union shoal_value *out)
{
    out->i64 = (intptr_t)arg + 1;
    return 0;
}

static int back(void *arg, union shoal_value *out)
{
    return shoal_await(shoal_submit_to(0, plus_one, arg), out);
}

static int both_ways(void)
{
    union shoal_value value;
    int rc = shoal_await(shoal_submit_fiber_to(1, back, (void *)4), &value);
    if (rc == 0)
        rc = shoal_await(shoal_submit_to(0, plus_one, (void *)4), &value); /* to itself */
    return rc == 0 && value.i64 == 5 ? 0 : -1;
}

static void never(struct shoal_timer *timer)
{
    (void)timer;
    SHOAL_EXPECT_NEVER("this timer is cancelled");
}

static int arm_and_cancel(void)
{
    struct shoal_timer timer;
    shoal_timer_init(&timer, never);
    shoal_timer_arm(&timer, SHOAL_NS_PER_S);
    return shoal_timer_cancel(&timer) ? 0 : -1;
}

static int round_of_all(int event)
{
    if (chain() != 0 || spawn_and_join() != 0 || both_ways() != 0 || arm_and_cancel() != 0)
        return -1;
    return shoal_poll_fd(event, POLLIN) == POLLIN && shoal_sleep_ns(0) == 0 ? 0 : -1;
}

static int read_allocs(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    out->u64 = stats.allocs;
    return 0;
}

static uint64_t allocs_of(unsigned core)
{
    union shoal_value value = {.u64 = 0};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, read_allocs, NULL), &value), 0);
    return value.u64;
}

static int check_steady(void *arg)
{
    (void)arg;
    int event = eventfd(1, EFD_NONBLOCK);
    for (int i = 0; i < WARM; i++)
        SHOAL_EXPECT_INT(round_of_all(event), 0);
    uint64_t before_0 = allocs_of(0);
    uint64_t before_1 = allocs_of(1);
    for (int i = 0; i < ROUNDS; i++)
        if (!SHOAL_EXPECT_INT(round_of_all(event), 0))
            break;
    SHOAL_EXPECT_INT(allocs_of(0) - before_0, 0);
    SHOAL_EXPECT_INT(allocs_of(1) - before_1, 0);
    close(event);
    return 0;
}

static void steady_state_allocates_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_steady, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
