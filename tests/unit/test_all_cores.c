/*
 * Invocations and functions on several cores: the promises of sharded.h and all_cores.h, and that
 * neither allocates once it runs.
 */
/* backends: both */
#include "shoal/runtime/combine.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/all_cores.h"

#include "unit/sharded_check.h"

static struct shoal_service_group *group;

#define STEADY (20000 / SHOAL_TEST_SLOWDOWN)

static int marker;

static int fail_odd(void *instance, void *arg, union shoal_value *out)
{
    (void)arg;
    const struct counter *mine = instance;
    out->u64 = 100 + mine->core;
    return mine->core % 2 == 0 ? 0 : -EPERM;
}

static int fail_odd_slowly(void *instance, void *arg, union shoal_value *out)
{
    const struct counter *mine = instance;
    SHOAL_EXPECT_INT(shoal_sleep_ns((8 - mine->core) * 100 * SHOAL_NS_PER_US), 0);
    if (mine->core % 2 == 0)
        return fail_odd(instance, arg, out);
    return shoal_await(shoal_future_failed(-EPERM, "%u is odd", mine->core), NULL);
}

/* ---- Several cores ---- */

static int check_several_from(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    union shoal_value values[CORES_MAX];
    const unsigned cores = shoal_core_count(), here = (unsigned)shoal_core_id();
    unsigned failed = 77;
    for (int way = 0; way < 8; way++) {
        bool others = (way & 1) != 0, fiber = (way & 2) != 0, future = (way & 4) != 0;
        struct shoal_sharded_call call = {.values = values, .failed_core = &failed};
        *(fiber ? &call.fiber_fn : &call.fn) = fiber ? count_slowly : count;
        memset(values, 0xee, sizeof(values));
        int rc;
        if (future)
            rc = shoal_await(others ? shoal_sharded_invoke_others_future(service, &call)
                                    : shoal_sharded_invoke_all_future(service, &call),
                             NULL);
        else
            rc = others ? shoal_sharded_invoke_others(service, &call)
                        : shoal_sharded_invoke_all(service, &call);
        SHOAL_EXPECT_INT(rc, 0);
        SHOAL_EXPECT_INT(failed, 77);
        for (unsigned i = 0; i < cores; i++)
            SHOAL_EXPECT(values[i].slice.size ==
                         (others && i == here ? UINT64_C(0xeeeeeeeeeeeeeeee) : i));
        call.values = NULL; /* not wanted */
        SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), 0);
    }
    return 0;
}

static int check_several(void *arg)
{
    (void)arg;
    if (!begin(group))
        return 1;
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(i, check_several_from, NULL), NULL), 0);
    shoal_sharded_free(service);
    return 0;
}

static int check_several_in_group(void *arg)
{
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "counters", 16), 0);
    int rc = check_several(arg);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
    return rc;
}

static void sharded_invoke_all_and_others_from_each_core(void **state)
{
    (void)state;
    group = NULL;
    static const unsigned cores[] = {1, 2, 3, CORES_MAX};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++)
        assert_int_equal(shoal_test_run(cores[i], check_several, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_several_in_group, NULL), 0);
}

static int check_several_fail(void *arg)
{
    (void)arg;
    union shoal_value values[CORES_MAX];
    unsigned failed = 77;
    struct shoal_sharded_call call = {.fn = fail_odd, .values = values, .failed_core = &failed};
    if (!begin(NULL))
        return 1;
    memset(values, 0, sizeof(values));
    SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), -EPERM);
    SHOAL_EXPECT_INT(failed, 1);
    SHOAL_EXPECT_STR(shoal_error_message(), "counters: core 1: Operation not permitted");
    for (unsigned i = 0; i < shoal_core_count(); i += 2)
        SHOAL_EXPECT_INT(values[i].u64, 100 + i); /* those that did succeed */
    call.fn = NULL;
    call.fiber_fn = fail_odd_slowly; /* the lowest core is the last to fail */
    failed = 77;
    SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), -EPERM);
    SHOAL_EXPECT_INT(failed, 1);
    SHOAL_EXPECT_STR(shoal_error_message(), "counters: core 1: 1 is odd");
    SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke_others_future(service, &call), NULL), -EPERM);
    SHOAL_EXPECT_STR(shoal_error_message(), "counters: core 1: 1 is odd");
    call.timeout_ns = 1;
    SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), -EINVAL);
    SHOAL_EXPECT_INT(
        shoal_sharded_invoke_all(service, &(struct shoal_sharded_call){.values = values}), -EINVAL);
    shoal_sharded_stop(service, 0);
    call.timeout_ns = 0;
    SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), SHOAL_ECLOSED);
    SHOAL_EXPECT_STR(shoal_error_message(), "service \"counters\" has stopped");
    return 0;
}

static void sharded_invoke_all_tells_the_lowest_core_that_failed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(4, check_several_fail, NULL), 0);
}

static atomic_int sleeping;

static int sleep_counted(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)arg;
    (void)out;
    atomic_fetch_add(&sleeping, 1);
    int rc = shoal_sleep_ns(SHOAL_NS_FOREVER);
    atomic_fetch_sub(&sleeping, 1);
    return rc;
}

static int ask_all(void *arg)
{
    (void)arg;
    return shoal_sharded_invoke_all(service,
                                    &(struct shoal_sharded_call){.fiber_fn = sleep_counted});
}

static int check_cancel(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    const struct shoal_sharded_call call = {.fiber_fn = sleep_counted};
    if (!begin(NULL))
        return 1;
    atomic_store(&sleeping, 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, ask_all, NULL, "asks all"), 0);
    while (atomic_load(&sleeping) < 3)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
    struct shoal_future *f = shoal_sharded_invoke_others_future(service, &call);
    while (atomic_load(&sleeping) < 2)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_future_cancel(f);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), -ECANCELED);
    SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
    struct shoal_scope scope;
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * SHOAL_NS_PER_MS});
    SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &call), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * SHOAL_NS_PER_MS});
    f = shoal_sharded_invoke_all_future(service, &call); /* the deadline holds for it */
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), -ETIMEDOUT);
    SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
    return 0;
}

static void sharded_invoke_all_passes_cancel_and_deadline_on(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_cancel, NULL), 0);
}

/* ---- Without a service ---- */

static int tell_core(void *arg, union shoal_value *out)
{
    SHOAL_EXPECT(arg == &marker);
    out->u64 = 10 + (unsigned)shoal_core_id();
    return 0;
}

static int fail_last(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    if ((unsigned)shoal_core_id() + 1 < shoal_core_count())
        return 0;
    return shoal_await(shoal_future_failed(-EBUSY, "the last one"), NULL);
}

static int check_all_cores(void *arg)
{
    (void)arg;
    union shoal_value values[3];
    unsigned failed = 77;
    struct shoal_all_cores what = {.fn = tell_core, .arg = &marker, .values = values};
    for (int way = 0; way < 4; way++) {
        memset(values, 0, sizeof(values));
        what.fn = (way & 1) != 0 ? NULL : tell_core;
        what.fiber_fn = (way & 1) != 0 ? tell_core : NULL;
        what.others = (way & 2) != 0;
        SHOAL_EXPECT_INT(shoal_all_cores(&what), 0);
        for (unsigned i = 0; i < 3; i++)
            SHOAL_EXPECT_INT(values[i].u64, what.others && i == 0 ? 0 : 10 + i);
        SHOAL_EXPECT_INT(shoal_await(shoal_all_cores_future(&what), NULL), 0);
    }
    what = (struct shoal_all_cores){.fiber_fn = fail_last, .failed_core = &failed};
    SHOAL_EXPECT_INT(shoal_all_cores(&what), -EBUSY);
    SHOAL_EXPECT_INT(failed, 2);
    SHOAL_EXPECT_STR(shoal_error_message(), "core 2: the last one");
    SHOAL_EXPECT_INT(shoal_all_cores(&(struct shoal_all_cores){.others = true}), -EINVAL);
    return 0;
}

static void all_cores_runs_on_each_and_tells_who_failed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_all_cores, NULL), 0);
}

static int tell_many(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = 10 + (unsigned)shoal_core_id();
    return 0;
}

/* More cores than fit on the stack. */
static int check_many_cores(void *arg)
{
    (void)arg;
    union shoal_value values[70];
    memset(values, 0, sizeof(values));
    SHOAL_EXPECT_INT(shoal_all_cores(&(struct shoal_all_cores){.fn = tell_many, .values = values}),
                     0);
    for (unsigned i = 0; i < 70; i++)
        SHOAL_EXPECT_INT(values[i].u64, 10 + i);
    return 0;
}

static void all_cores_of_more_than_fit_on_the_stack(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(70, check_many_cores, NULL), 0);
}

/* ---- Nothing is allocated once it runs ---- */

static int allocs_here(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    out->u64 = stats.allocs;
    return 0;
}

static uint64_t allocs(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < shoal_core_count(); i++) {
        union shoal_value value = {.u64 = 0};
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(i, allocs_here, NULL), &value), 0);
        sum += value.u64;
    }
    return sum;
}

static void invoke_each_way(void)
{
    const struct shoal_sharded_call all = {.fn = count}, fibers = {.fiber_fn = count_slowly};
    for (int i = 0; i < STEADY; i++) {
        unsigned core = (unsigned)i % shoal_core_count();
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke(service, core, count, NULL), NULL), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke_fiber(service, core, count, NULL), NULL),
                         0);
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_call(service, core, &fibers), NULL), 0);
        if (i % 16 != 0)
            continue;
        SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &all), 0);
        SHOAL_EXPECT_INT(shoal_sharded_invoke_all(service, &fibers), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke_all_future(service, &all), NULL), 0);
    }
}

static int check_steady(void *arg)
{
    (void)arg;
    if (!begin(group))
        return 1;
    invoke_each_way();
    uint64_t before = allocs();
    invoke_each_way();
    SHOAL_EXPECT_INT(allocs() - before, 0);
    shoal_sharded_free(service);
    return 0;
}

static int check_steady_in_group(void *arg)
{
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "counters", 16), 0);
    int rc = check_steady(arg);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
    return rc;
}

static void sharded_invoke_allocates_nothing_in_steady_state(void **state)
{
    (void)state;
    group = NULL;
    assert_int_equal(shoal_test_run(2, check_steady, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_steady_in_group, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharded_invoke_all_and_others_from_each_core),
        cmocka_unit_test(sharded_invoke_all_tells_the_lowest_core_that_failed),
        cmocka_unit_test(sharded_invoke_all_passes_cancel_and_deadline_on),
        cmocka_unit_test(all_cores_runs_on_each_and_tells_who_failed),
        cmocka_unit_test(all_cores_of_more_than_fit_on_the_stack),
        cmocka_unit_test(sharded_invoke_allocates_nothing_in_steady_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
