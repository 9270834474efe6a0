/*
 * Map-reduce over all cores: the promises of map_reduce.h, for both shapes.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/scope.h"

#include "shoal/smp/map_reduce.h"
#include "shoal/smp/service_group.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

static const enum shoal_map_reduce_shape shapes[] = {SHOAL_MAP_REDUCE_LINEAR, SHOAL_MAP_REDUCE_TREE,
                                                     SHOAL_MAP_REDUCE_AUTO};

/* ---- Values: a range of cores, so that only the right order can be folded ---- */

static atomic_int mapped, reduced, dropped;
static atomic_uint reducers; /* a bit for each core that has folded */
static int fail_map_on, fail_reduce_of;

static void clear(void)
{
    atomic_store(&mapped, 0);
    atomic_store(&reduced, 0);
    atomic_store(&dropped, 0);
    atomic_store(&reducers, 0);
    fail_map_on = -1;
    fail_reduce_of = -1;
}

static int map_range(void *instance, void *arg, union shoal_value *out)
{
    int core = shoal_core_id();
    SHOAL_EXPECT(instance == NULL && arg == &mapped);
    SHOAL_EXPECT(out->slice.ptr == NULL && out->slice.size == 0 && out->slice.tag == 0);
    atomic_fetch_add(&mapped, 1);
    if (core == fail_map_on)
        return -EIO;
    out->slice.size = (uint64_t)core;
    out->slice.tag = (uint64_t)core + 1;
    return 0;
}

/* The lowest cores take longest. */
static int map_range_slowly(void *instance, void *arg, union shoal_value *out)
{
    uint64_t delay = (uint64_t)(16 - shoal_core_id() % 16) * 30;
    int rc = shoal_sleep_ns(delay * SHOAL_NS_PER_US);
    if (rc < 0)
        return rc;
    if (shoal_core_id() == fail_map_on)
        return shoal_await(shoal_future_failed(-EIO, "core %d is broken", fail_map_on), NULL);
    return map_range(instance, arg, out);
}

static int join_ranges(void *arg, union shoal_value *left, const union shoal_value *right)
{
    SHOAL_EXPECT(arg == &mapped);
    SHOAL_EXPECT_INT(left->slice.tag, right->slice.size); /* neighbours, and in this order */
    atomic_fetch_add(&reduced, 1);
    atomic_fetch_or(&reducers, 1u << (shoal_core_id() % 32));
    if ((int)right->slice.size == fail_reduce_of)
        return -ERANGE;
    left->slice.tag = right->slice.tag;
    return 0;
}

static void drop_range(union shoal_value *value)
{
    atomic_fetch_add(&dropped, (int)(value->slice.tag - value->slice.size));
}

static struct shoal_map_reduce spec_of(enum shoal_map_reduce_shape shape, bool fiber)
{
    return (struct shoal_map_reduce){
        .map = fiber ? NULL : map_range,
        .map_fiber = fiber ? map_range_slowly : NULL,
        .reduce = join_ranges,
        .arg = &mapped,
        .drop = drop_range,
        .shape = shape,
    };
}

static int check_all_shapes(void *arg, union shoal_value *unused)
{
    (void)arg;
    (void)unused;
    const unsigned cores = shoal_core_count();
    for (size_t shape = 0; shape < SHOAL_ARRAY_SIZE(shapes); shape++) {
        for (int way = 0; way < 4; way++) {
            const struct shoal_map_reduce spec = spec_of(shapes[shape], (way & 1) != 0);
            union shoal_value out = {.slice = {NULL, 77, 77}};
            clear();
            int rc = (way & 2) != 0 ? shoal_await(shoal_map_reduce_future(&spec), &out)
                                    : shoal_map_reduce(&spec, &out);
            SHOAL_EXPECT_INT(rc, 0);
            SHOAL_EXPECT_INT(out.slice.size, 0);
            SHOAL_EXPECT_INT(out.slice.tag, cores);
            SHOAL_EXPECT_INT(atomic_load(&mapped), cores);
            SHOAL_EXPECT_INT(atomic_load(&reduced), cores - 1);
            SHOAL_EXPECT_INT(atomic_load(&dropped), 0);
        }
    }
    return 0;
}

static int check_from_each(void *arg)
{
    (void)arg;
    unsigned step = shoal_core_count() > 8 ? 7 : 1;
    for (unsigned i = 0; i < shoal_core_count(); i += step)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(i, check_all_shapes, NULL), NULL), 0);
    return 0;
}

static void map_reduce_folds_in_the_order_of_the_cores(void **state)
{
    (void)state;
    static const unsigned cores[] = {1, 2, 3, 5, 8, 17};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++)
        assert_int_equal(shoal_test_run(cores[i], check_from_each, NULL), 0);
}

/* More than fit on the stack, slots and futures alike. */
static void map_reduce_of_many_cores(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(70, check_from_each, NULL), 0);
}

static int check_where(void *arg)
{
    (void)arg;
    union shoal_value out;
    struct shoal_map_reduce spec = spec_of(SHOAL_MAP_REDUCE_LINEAR, false);
    clear();
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
    SHOAL_EXPECT_INT(atomic_load(&reducers), 1); /* core 0 alone */
    clear();
    spec.shape = SHOAL_MAP_REDUCE_TREE;
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
    SHOAL_EXPECT_INT(atomic_load(&reducers), 0x55); /* each that has others below it */
    clear();
    spec.shape = SHOAL_MAP_REDUCE_AUTO;
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
    SHOAL_EXPECT_INT(atomic_load(&reducers), 1);
    return 0;
}

static int check_where_many(void *arg)
{
    (void)arg;
    union shoal_value out;
    struct shoal_map_reduce spec = spec_of(SHOAL_MAP_REDUCE_AUTO, false);
    clear();
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
    SHOAL_EXPECT(atomic_load(&reducers) != 1);
    return 0;
}

static void map_reduce_is_linear_for_few_cores_and_a_tree_for_many(void **state)
{
    (void)state;
    assert_int_equal(SHOAL_MAP_REDUCE_LINEAR_MAX, 8);
    assert_int_equal(shoal_test_run(8, check_where, NULL), 0);
    assert_int_equal(shoal_test_run(9, check_where_many, NULL), 0);
}

/* ---- Failures ---- */

static void check_failure_on(int core, enum shoal_map_reduce_shape shape, bool fiber)
{
    const int cores = (int)shoal_core_count();
    char text[64];
    unsigned failed = 99;
    struct shoal_map_reduce spec = spec_of(shape, fiber);
    union shoal_value out = {.u64 = 4711};
    spec.failed_core = &failed;
    clear();
    fail_map_on = core;
    SHOAL_EXPECT_INT(shoal_await(shoal_future_failed(-EPERM, "an older text"), NULL), -EPERM);
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -EIO);
    SHOAL_EXPECT_INT(failed, core);
    SHOAL_EXPECT_INT(out.u64, 4711);
    if (fiber)
        snprintf(text, sizeof(text), "map-reduce: core %d: core %d is broken", core, core);
    else
        snprintf(text, sizeof(text), "map-reduce: core %d: Input/output error", core);
    SHOAL_EXPECT_STR(shoal_error_message(), text);
    SHOAL_EXPECT_INT(atomic_load(&mapped) + fiber, cores); /* all have ended */
    SHOAL_EXPECT_INT(atomic_load(&dropped), cores - 1);
    clear();
    if (core == 0)
        return;
    fail_reduce_of = core;
    int rc = shoal_map_reduce(&spec, &out);
    if (rc == 0) { /* in a tree it may have been in the middle of a range that was folded */
        SHOAL_EXPECT(shape == SHOAL_MAP_REDUCE_TREE);
        return;
    }
    SHOAL_EXPECT_INT(rc, -ERANGE);
    SHOAL_EXPECT_INT(failed, core);
    SHOAL_EXPECT_INT(atomic_load(&mapped), cores);
    SHOAL_EXPECT_INT(atomic_load(&dropped), cores);
}

static int check_failures(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (int core = 0; core < (int)shoal_core_count(); core++)
        for (size_t shape = 0; shape < SHOAL_ARRAY_SIZE(shapes); shape++)
            for (int fiber = 0; fiber < 2; fiber++)
                check_failure_on(core, shapes[shape], fiber != 0);
    return 0;
}

static int check_failures_from(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(0, check_failures, NULL), NULL), 0);
    SHOAL_EXPECT_INT(
        shoal_await(shoal_submit_fiber_to(shoal_core_count() - 1, check_failures, NULL), NULL), 0);
    return 0;
}

static void map_reduce_failure_ends_it_once_all_have_ended_and_names_the_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_failures_from, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_failures_from, NULL), 0);
    assert_int_equal(shoal_test_run(6, check_failures_from, NULL), 0);
}

static int fail_even(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)arg;
    (void)out;
    return shoal_core_id() > 0 && shoal_core_id() % 2 == 0 ? -EBUSY - shoal_core_id() : 0;
}

static int add_nothing(void *arg, union shoal_value *left, const union shoal_value *right)
{
    (void)arg;
    (void)left;
    (void)right;
    return 0;
}

static int check_lowest(void *arg)
{
    (void)arg;
    union shoal_value out;
    for (size_t shape = 0; shape < SHOAL_ARRAY_SIZE(shapes); shape++) {
        unsigned failed = 99;
        const struct shoal_map_reduce spec = {.map = fail_even,
                                              .reduce = add_nothing,
                                              .shape = shapes[shape],
                                              .failed_core = &failed};
        SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -EBUSY - 2);
        SHOAL_EXPECT_INT(failed, 2);
    }
    struct shoal_map_reduce spec = {.map = fail_even};
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -EINVAL);
    spec.reduce = add_nothing;
    spec.map_fiber = fail_even;
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -EINVAL);
    SHOAL_EXPECT_INT(shoal_await(shoal_map_reduce_future(&spec), &out), -EINVAL);
    const struct shoal_map_reduce_into into = {.bytes = SIZE_MAX};
    SHOAL_EXPECT_INT(shoal_map_reduce_into(&into, &out), -EINVAL);
    return 0;
}

static void map_reduce_tells_the_lowest_failure_and_refuses_bad_specs(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(7, check_lowest, NULL), 0);
}

/* ---- Cancel ---- */

static atomic_int sleeping;

static int sleep_on(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)arg;
    (void)out;
    atomic_fetch_add(&sleeping, 1);
    int rc = shoal_sleep_ns(SHOAL_NS_FOREVER);
    atomic_fetch_sub(&sleeping, 1);
    return rc;
}

static int fold_sleepers(void *arg)
{
    union shoal_value out;
    return shoal_map_reduce(arg, &out);
}

static int check_cancel(void *arg)
{
    (void)arg;
    union shoal_value out;
    for (size_t shape = 0; shape < 2; shape++) {
        struct shoal_map_reduce spec = {
            .map_fiber = sleep_on, .reduce = add_nothing, .shape = shapes[shape]};
        struct shoal_fiber *fiber;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fold_sleepers, &spec, "folds"), 0);
        while (atomic_load(&sleeping) < 5)
            SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
        SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
        struct shoal_future *f = shoal_map_reduce_future(&spec);
        while (atomic_load(&sleeping) < 5)
            SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
        shoal_future_cancel(f);
        SHOAL_EXPECT_INT(shoal_await(f, &out), -ECANCELED);
        SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
        struct shoal_scope scope;
        shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = SHOAL_NS_PER_MS});
        SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -ETIMEDOUT);
        SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
        SHOAL_EXPECT_INT(atomic_load(&sleeping), 0);
    }
    return 0;
}

static int fold_cancelled(void *arg)
{
    (void)arg;
    unsigned failed = 99;
    union shoal_value out;
    struct shoal_map_reduce spec = spec_of(SHOAL_MAP_REDUCE_TREE, false);
    spec.failed_core = &failed;
    clear();
    SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), -ECANCELED);
    SHOAL_EXPECT_INT(failed, 1); /* the first to be awaited: no mapper has failed */
    SHOAL_EXPECT_STR(shoal_error_message(), "map-reduce: core 1: Operation canceled");
    SHOAL_EXPECT_INT(atomic_load(&mapped), atomic_load(&dropped));
    return 0;
}

static int check_cancelled_before(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fold_cancelled, NULL, "folds"), 0);
    shoal_fiber_cancel(fiber);
    return shoal_fiber_join(fiber);
}

static void map_reduce_on_a_cancelled_fiber_fails_and_drops_what_was_mapped(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_cancelled_before, NULL), 0);
}

static void map_reduce_passes_cancel_and_deadline_on(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(5, check_cancel, NULL), 0);
}

static int check_drop(void *arg)
{
    (void)arg;
    const struct shoal_map_reduce spec = spec_of(SHOAL_MAP_REDUCE_TREE, false);
    clear();
    SHOAL_EXPECT_INT(shoal_await(shoal_map_reduce_future(&spec), NULL), 0);
    SHOAL_EXPECT_INT(atomic_load(&dropped), 3); /* nobody wanted the result */
    return 0;
}

static void map_reduce_future_drops_a_result_that_nobody_takes(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_drop, NULL), 0);
}

/* ---- Accumulators, in a service ---- */

struct histogram {
    uint64_t bins[1000];
};

static int open_bin(void *instance, void *arg)
{
    (void)arg;
    *(unsigned *)instance = (unsigned)shoal_core_id() * 10;
    return 0;
}

static int fill_bins(void *instance, void *arg, void *accumulator)
{
    struct histogram *mine = accumulator;
    SHOAL_EXPECT_INT((uintptr_t)accumulator % 16, 0);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(mine->bins); i++)
        SHOAL_EXPECT_INT(mine->bins[i], 0);
    mine->bins[*(unsigned *)instance] = *(uint64_t *)arg;
    mine->bins[999]++;
    return shoal_core_id() == fail_map_on ? -EIO : 0;
}

static int fill_bins_slowly(void *instance, void *arg, void *accumulator)
{
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    return fill_bins(instance, arg, accumulator);
}

static int add_bins(void *arg, void *left, const void *right)
{
    (void)arg;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(((struct histogram *)left)->bins); i++)
        ((struct histogram *)left)->bins[i] += ((const struct histogram *)right)->bins[i];
    return 0;
}

static void drop_bins(void *accumulator)
{
    atomic_fetch_add(&dropped, (int)((struct histogram *)accumulator)->bins[999]);
}

static int check_into(void *arg)
{
    static const struct shoal_sharded_ops ops = {
        .name = "bins", .instance_bytes = sizeof(unsigned), .start = open_bin};
    static struct histogram sum;
    struct shoal_service_group *group = NULL;
    struct shoal_sharded *service;
    uint64_t ones = 3;
    if (arg != NULL)
        SHOAL_EXPECT_INT(shoal_service_group_new(&group, "bins", 8), 0);
    SHOAL_EXPECT_INT(
        shoal_sharded_start(&service, &(struct shoal_sharded_options){.ops = &ops, .group = group}),
        0);
    struct shoal_map_reduce_into spec = {.sharded = service,
                                         .bytes = sizeof(sum),
                                         .reduce = add_bins,
                                         .arg = &ones,
                                         .drop = drop_bins};
    for (int way = 0; way < 4; way++) {
        clear();
        spec.map = (way & 1) != 0 ? NULL : fill_bins;
        spec.map_fiber = (way & 1) != 0 ? fill_bins_slowly : NULL;
        spec.shape = shapes[way / 2];
        memset(&sum, 0xff, sizeof(sum));
        SHOAL_EXPECT_INT(shoal_map_reduce_into(&spec, &sum), 0);
        for (unsigned i = 0; i < 999; i++)
            SHOAL_EXPECT_INT(sum.bins[i], i % 10 == 0 && i / 10 < shoal_core_count() ? 3 : 0);
        SHOAL_EXPECT_INT(sum.bins[999], shoal_core_count());
        SHOAL_EXPECT_INT(atomic_load(&dropped), 0);
        fail_map_on = 1;
        SHOAL_EXPECT_INT(shoal_map_reduce_into(&spec, &sum), -EIO);
        SHOAL_EXPECT_STR(shoal_error_message(), "bins: core 1: Input/output error");
        SHOAL_EXPECT_INT(atomic_load(&dropped), (int)shoal_core_count() - 1);
    }
    shoal_sharded_stop(service, 0);
    SHOAL_EXPECT_INT(shoal_map_reduce_into(&spec, &sum), SHOAL_ECLOSED);
    shoal_sharded_free(service);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    return 0;
}

static void map_reduce_into_accumulators_of_a_service(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_into, NULL), 0);
    assert_int_equal(shoal_test_run(5, check_into, NULL), 0);
    assert_int_equal(shoal_test_run(5, check_into, "in a group"), 0);
}

/* ---- Many at once, from all cores, in one small group: no circle of waiting ---- */

static struct shoal_service_group *narrow;

static int fold_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200 / SHOAL_TEST_SLOWDOWN; i++) {
        struct shoal_map_reduce spec = spec_of(SHOAL_MAP_REDUCE_TREE, false);
        union shoal_value out;
        spec.group = narrow;
        SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
        SHOAL_EXPECT_INT(out.slice.tag, shoal_core_count());
    }
    return 0;
}

static int fold_often_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct shoal_fiber *fibers[6];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], fold_often, NULL, "folds"), 0);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    return 0;
}

static int check_narrow(void *arg)
{
    (void)arg;
    struct shoal_future *all[5];
    clear();
    SHOAL_EXPECT_INT(shoal_service_group_new(&narrow, "narrow", 1), 0);
    for (unsigned i = 0; i < 5; i++)
        all[i] = shoal_submit_fiber_to(i, fold_often_here, NULL);
    for (unsigned i = 0; i < 5; i++)
        SHOAL_EXPECT_INT(shoal_await(all[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(narrow), 0);
    return 0;
}

static void map_reduce_trees_in_a_narrow_group_do_not_deadlock(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(5, check_narrow, NULL), 0);
}

/* ---- Steady state ---- */

static int check_steady(void *arg)
{
    (void)arg;
    struct shoal_mem_stats before, after;
    union shoal_value out;
    for (int round = 0; round < 2; round++) {
        shoal_mem_stats(&before);
        for (int i = 0; i < 1000 / SHOAL_TEST_SLOWDOWN; i++)
            for (size_t shape = 0; shape < 2; shape++) {
                const struct shoal_map_reduce spec = spec_of(shapes[shape], false);
                SHOAL_EXPECT_INT(shoal_map_reduce(&spec, &out), 0);
            }
        shoal_mem_stats(&after);
    }
    SHOAL_EXPECT_INT(after.allocs - before.allocs, 0);
    return 0;
}

static void map_reduce_allocates_nothing_in_steady_state(void **state)
{
    (void)state;
    clear();
    assert_int_equal(shoal_test_run(3, check_steady, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_reduce_folds_in_the_order_of_the_cores),
        cmocka_unit_test(map_reduce_of_many_cores),
        cmocka_unit_test(map_reduce_is_linear_for_few_cores_and_a_tree_for_many),
        cmocka_unit_test(map_reduce_failure_ends_it_once_all_have_ended_and_names_the_core),
        cmocka_unit_test(map_reduce_tells_the_lowest_failure_and_refuses_bad_specs),
        cmocka_unit_test(map_reduce_passes_cancel_and_deadline_on),
        cmocka_unit_test(map_reduce_on_a_cancelled_fiber_fails_and_drops_what_was_mapped),
        cmocka_unit_test(map_reduce_future_drops_a_result_that_nobody_takes),
        cmocka_unit_test(map_reduce_into_accumulators_of_a_service),
        cmocka_unit_test(map_reduce_trees_in_a_narrow_group_do_not_deadlock),
        cmocka_unit_test(map_reduce_allocates_nothing_in_steady_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
