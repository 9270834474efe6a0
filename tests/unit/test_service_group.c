/*
 * Service groups: their bounds, and that they do not wait for each other.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/service_group.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

static atomic_bool open_gate;
static atomic_int inside;
static atomic_int inside_most;

static int wait_for_gate(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    int now = atomic_fetch_add(&inside, 1) + 1;
    int most = atomic_load(&inside_most);
    while (now > most && !atomic_compare_exchange_weak(&inside_most, &most, now))
        ;
    while (!atomic_load(&open_gate)) {
        int rc = shoal_sleep_ns(SHOAL_NS_PER_MS / 10);
        if (rc < 0)
            return rc;
    }
    atomic_fetch_sub(&inside, 1);
    return 0;
}

static int ask_in(struct shoal_service_group *group)
{
    const struct shoal_submit call = {.fiber_fn = wait_for_gate, .group = group};
    return shoal_await(shoal_submit(1, &call), NULL);
}

static int ask_fiber(void *arg)
{
    return ask_in(arg);
}

static int check_bound(void *arg)
{
    (void)arg;
    struct shoal_service_group *group;
    struct shoal_scope scope;
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "three", 3), 0);
    SHOAL_EXPECT_STR(shoal_service_group_name(group), "three");
    SHOAL_EXPECT_INT(shoal_service_group_in_flight_max(group), 3);
    atomic_store(&open_gate, false);
    atomic_store(&inside, 0);
    atomic_store(&inside_most, 0);
    shoal_scope_enter(&scope, NULL);
    for (int i = 0; i < 20; i++)
        SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, ask_fiber, group, "asks"), 0);
    while (atomic_load(&inside) < 3)
        (void)shoal_yield();
    for (int i = 0; i < 50; i++)
        (void)shoal_yield();
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 1), 3);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 0), 0);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(NULL, 1), 0);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 99), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), -EBUSY);
    atomic_store(&open_gate, true);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(atomic_load(&inside_most), 3);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    return 0;
}

static void service_group_bounds_what_is_in_flight(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_bound, NULL), 0);
}

struct refusal {
    struct shoal_task task;
    struct shoal_service_group *group;
    struct shoal_future *future;
};

static void ask_as_a_task(struct shoal_task *task)
{
    struct refusal *refusal = SHOAL_CONTAINER_OF(task, struct refusal, task);
    const struct shoal_submit call = {.fiber_fn = wait_for_gate, .group = refusal->group};
    refusal->future = shoal_submit(1, &call);
}

static int check_refusal(void *arg)
{
    (void)arg;
    struct shoal_service_group *group;
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "one", 1), 0);
    atomic_store(&open_gate, false);
    const struct shoal_submit call = {.fiber_fn = wait_for_gate, .group = group};
    struct shoal_future *first = shoal_submit(1, &call);
    struct refusal refusal = {.task.run = ask_as_a_task, .group = group};
    shoal_task_post(&refusal.task);
    while (refusal.future == NULL)
        (void)shoal_yield();
    SHOAL_EXPECT_INT(shoal_await(refusal.future, NULL), -ENOBUFS);
    SHOAL_EXPECT_STR(shoal_error_message(), "1 messages to core 1 are in flight");
    atomic_store(&open_gate, true);
    SHOAL_EXPECT_INT(shoal_await(first, NULL), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    return 0;
}

static void service_group_refuses_a_task_at_the_bound(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_refusal, NULL), 0);
}

/* ---- Nesting ---- */

static struct shoal_service_group *outer;
static struct shoal_service_group *inner;
static atomic_int leaves;

static int leaf(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&leaves, 1);
    return shoal_yield();
}

static int node(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    unsigned back = shoal_core_id() == 0 ? 1 : 0;
    const struct shoal_submit call = {.fiber_fn = leaf, .group = inner};
    return shoal_await(shoal_submit(back, &call), NULL);
}

#define ASKERS 32

static int ask_node(void *arg)
{
    const struct shoal_submit call = {.fiber_fn = node, .group = outer};
    (void)arg;
    return shoal_await(shoal_submit(shoal_core_id() == 0 ? 1 : 0, &call), NULL);
}

static int flood(void *arg, union shoal_value *out)
{
    struct shoal_scope scope;
    (void)arg;
    (void)out;
    shoal_scope_enter(&scope, NULL);
    for (int i = 0; i < ASKERS; i++)
        SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, ask_node, NULL, "asks"), 0);
    return shoal_scope_leave(&scope);
}

/* With one group for both, the handlers would hold all its credits and wait for one. */
static int check_nested(void *arg)
{
    (void)arg;
    atomic_store(&leaves, 0);
    SHOAL_EXPECT_INT(shoal_service_group_new(&outer, "outer", 4), 0);
    SHOAL_EXPECT_INT(shoal_service_group_new(&inner, "inner", 2), 0);
    struct shoal_future *there = shoal_submit_fiber_to(1, flood, NULL);
    union shoal_value unused;
    SHOAL_EXPECT_INT(flood(NULL, &unused), 0);
    SHOAL_EXPECT_INT(shoal_await(there, NULL), 0);
    SHOAL_EXPECT_INT(atomic_load(&leaves), 2 * ASKERS);
    SHOAL_EXPECT_INT(shoal_service_group_free(outer), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(inner), 0);
    return 0;
}

static void service_groups_that_nest_do_not_deadlock(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_nested, NULL), 0);
}

/* ---- Making them ---- */

static int check_making(void *arg)
{
    (void)arg;
    struct shoal_service_group *groups[SHOAL_SERVICE_GROUPS_MAX];
    char long_name[100];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    SHOAL_EXPECT_INT(shoal_service_group_new(&groups[0], "none", 0), -EINVAL);
    SHOAL_EXPECT_INT(shoal_service_group_new(&groups[0], "many", SHOAL_SERVICE_IN_FLIGHT_MAX + 1),
                     -EINVAL);
    for (int i = 1; i < SHOAL_SERVICE_GROUPS_MAX; i++)
        SHOAL_EXPECT_INT(shoal_service_group_new(&groups[i], long_name, (unsigned)i), 0);
    SHOAL_EXPECT_INT(strlen(shoal_service_group_name(groups[1])), SHOAL_SERVICE_GROUP_NAME_MAX);
    SHOAL_EXPECT_INT(shoal_service_group_new(&groups[0], "more", 1), -ENOSPC);
    SHOAL_EXPECT_INT(shoal_service_group_free(groups[3]), 0);
    SHOAL_EXPECT_INT(shoal_service_group_new(&groups[3], "again", SHOAL_SERVICE_IN_FLIGHT_MAX), 0);
    atomic_store(&open_gate, true);
    SHOAL_EXPECT_INT(ask_in(groups[3]), 0);
    SHOAL_EXPECT_INT(ask_in(groups[5]), 0);
    for (int i = 1; i < SHOAL_SERVICE_GROUPS_MAX - 1; i++)
        SHOAL_EXPECT_INT(shoal_service_group_free(groups[i]), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(NULL), 0);
    return 0; /* the last one is freed with the program */
}

static void service_groups_are_made_and_freed_up_to_the_limit(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_making, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(service_group_bounds_what_is_in_flight),
        cmocka_unit_test(service_group_refuses_a_task_at_the_bound),
        cmocka_unit_test(service_groups_that_nest_do_not_deadlock),
        cmocka_unit_test(service_groups_are_made_and_freed_up_to_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
