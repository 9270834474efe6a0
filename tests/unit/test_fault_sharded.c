/*
 * Without memory: services, map-reduce, barriers and commands to all cores. See fault_check.h for
 * what a walk is.
 */
/* backends: both */
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/all_cores.h"
#include "shoal/smp/core_barrier.h"
#include "shoal/smp/map_reduce.h"
#include "shoal/smp/replicated.h"
#include "shoal/smp/service_group.h"
#include "shoal/smp/sharded.h"

#include "unit/fault_check.h"

/* Whether each instance that was started has been stopped. */
static int instances[FAULT_CORES];
static struct shoal_service_group *group;

static void note(int *rc, int code)
{
    if (*rc == 0 && code < 0)
        *rc = code;
}

struct thing {
    void *memory;
};

static int make_thing(void *instance, void *arg)
{
    (void)arg;
    ((struct thing *)instance)->memory = shoal_mem_alloc(100);
    if (((struct thing *)instance)->memory == NULL)
        return -ENOMEM;
    instances[shoal_core_id()]++;
    return 0;
}

static void free_thing(void *instance)
{
    shoal_mem_free(((struct thing *)instance)->memory, 100);
    instances[shoal_core_id()]--;
}

static const struct shoal_sharded_ops things = {
    .name = "things",
    .instance_bytes = sizeof(struct thing),
    .start = make_thing,
    .stop = free_thing,
};

static int touch(void *instance, void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = 1;
    return instance == NULL || ((struct thing *)instance)->memory != NULL ? 0 : -EIO;
}

static int touch_and_yield(void *instance, void *arg, union shoal_value *out)
{
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    return touch(instance, arg, out);
}

static int frees;

static void count_free(void *arg)
{
    (void)arg;
    frees--;
}

static int add(void *arg, union shoal_value *left, const union shoal_value *right)
{
    (void)arg;
    left->u64 += right->u64;
    return 0;
}

/* All that a service can do. */
static int use_service(struct shoal_sharded *service)
{
    const struct shoal_sharded_call plain = {.fn = touch}, fiber = {.fiber_fn = touch_and_yield};
    const struct shoal_sharded_call with = {
        .fiber_fn = touch, .arg_free = count_free, .timeout_ns = SHOAL_NS_PER_S};
    const struct shoal_map_reduce spec = {
        .sharded = service, .map = touch, .reduce = add, .shape = SHOAL_MAP_REDUCE_TREE};
    union shoal_value sum;
    int rc = 0;
    for (unsigned core = 0; core < FAULT_CORES; core++) {
        note(&rc, shoal_await(shoal_sharded_invoke(service, core, touch, NULL), NULL));
        note(&rc, shoal_await(shoal_sharded_invoke_copy(service, core, touch, "x", 1), NULL));
        note(&rc, shoal_await(shoal_sharded_invoke_fiber(service, core, touch, NULL), NULL));
        frees++;
        note(&rc, shoal_await(shoal_sharded_call(service, core, &with), NULL));
    }
    note(&rc, shoal_sharded_invoke_all(service, &plain));
    note(&rc, shoal_sharded_invoke_others(service, &fiber));
    note(&rc, shoal_await(shoal_sharded_invoke_all_future(service, &fiber), NULL));
    int mapped = shoal_map_reduce(&spec, &sum);
    if (mapped == 0)
        SHOAL_EXPECT_INT(sum.u64, FAULT_CORES);
    note(&rc, mapped);
    note(&rc, shoal_await(shoal_map_reduce_future(&spec), &sum));
    return rc;
}

static int service_scene(void)
{
    struct shoal_sharded *service;
    int rc = 0;
    for (int order = 0; order < 2; order++) {
        int started = shoal_sharded_start(
            &service, &(struct shoal_sharded_options){.ops = &things,
                                                      .group = group,
                                                      .order = (enum shoal_sharded_order)order});
        note(&rc, started);
        if (started == 0) {
            note(&rc, use_service(service));
            shoal_sharded_free(service);
        }
        SHOAL_EXPECT(instances[0] == 0 && instances[1] == 0);
    }
    for (int i = 0; i < 100 && frees > 0; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(frees, 0);
    return rc;
}

static int group_begin(void)
{
    return shoal_service_group_new(&group, "things", 8);
}

static void group_end(void)
{
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
}

/* ---- Accumulators, functions on all cores ---- */

struct large {
    uint64_t words[600]; /* more than fit on the stack */
};

static int map_large(void *instance, void *arg, void *accumulator)
{
    (void)instance;
    (void)arg;
    ((struct large *)accumulator)->words[599] = 1;
    return 0;
}

static int add_large(void *arg, void *left, const void *right)
{
    (void)arg;
    ((struct large *)left)->words[599] += ((const struct large *)right)->words[599];
    return 0;
}

static int nothing(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

static int all_cores_scene(void)
{
    struct large sum = {{0}};
    const struct shoal_map_reduce_into spec = {
        .bytes = sizeof(sum), .map_fiber = map_large, .reduce = add_large};
    int rc = shoal_map_reduce_into(&spec, &sum);
    if (rc == 0)
        SHOAL_EXPECT_INT(sum.words[599], FAULT_CORES);
    const struct shoal_all_cores what = {.fn = nothing}, fibers = {.fiber_fn = nothing};
    note(&rc, shoal_all_cores(&what));
    note(&rc, shoal_all_cores(&fibers));
    note(&rc, shoal_await(shoal_all_cores_future(&fibers), NULL));
    return rc;
}

static int replicated_scene(void)
{
    struct shoal_replicated *value;
    int rc = shoal_replicated_new(&value, "one", 3);
    if (rc < 0)
        return rc;
    note(&rc, shoal_replicated_set(value, "and two", 7));
    shoal_replicated_free(value);
    return rc;
}

/* ---- The barrier: only its making needs memory ---- */

static int wait_at(void *arg, union shoal_value *out)
{
    (void)out;
    int rc = shoal_core_barrier_wait(arg, 10 * SHOAL_NS_PER_S);
    return rc < 0 ? rc : 0;
}

static int barrier_scene(void)
{
    struct shoal_core_barrier *barrier;
    int rc = shoal_core_barrier_new(&barrier, 1);
    if (rc < 0)
        return rc;
    struct shoal_future *other = shoal_submit_fiber_to(1, wait_at, barrier);
    while (shoal_future_is_pending(other) && shoal_core_barrier_generation(barrier) == 0) {
        int waited = shoal_core_barrier_wait(barrier, SHOAL_NS_PER_MS);
        SHOAL_EXPECT(waited >= 0 || waited == -ETIMEDOUT);
    }
    note(&rc, shoal_await(other, NULL));
    shoal_core_barrier_free(barrier);
    return rc;
}

static const struct fault_walk walks[] = {
    {.name = "service", .scene = service_scene},
    {.name = "service in a group", .scene = service_scene, .begin = group_begin, .end = group_end},
    {.name = "all cores", .scene = all_cores_scene},
    {.name = "replicated", .scene = replicated_scene},
    {.name = "core barrier", .scene = barrier_scene},
};

static void fault_sharded_warm_leaves_no_trace(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)&walks[i]),
                         0);
}

static void fault_sharded_soak_leaves_no_trace(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) /* the others take too little memory for chance to meet it */
        assert_int_equal(shoal_test_run(FAULT_CORES, fault_soak, (void *)(uintptr_t)&walks[i]), 0);
}

static void fault_sharded_cold_leaves_no_trace(void **state)
{
    (void)state;
    fault_walk_cold(&walks[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_sharded_warm_leaves_no_trace),
        cmocka_unit_test(fault_sharded_soak_leaves_no_trace),
        cmocka_unit_test(fault_sharded_cold_leaves_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
