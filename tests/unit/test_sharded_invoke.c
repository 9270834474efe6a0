/*
 * Invocations of services on one core: the promises of sharded.h.
 */
/* backends: both */
#include "shoal/smp/key_owner.h"

#include "unit/sharded_check.h"

static struct shoal_service_group *group;

static int fail_odd(void *instance, void *arg, union shoal_value *out)
{
    (void)arg;
    const struct counter *mine = instance;
    out->u64 = 100 + mine->core;
    return mine->core % 2 == 0 ? 0 : -EPERM;
}

/* ---- One core ---- */

static int check_one(void *arg)
{
    (void)arg;
    union shoal_value value;
    if (!begin(group))
        return 1;
    for (unsigned core = 0; core < shoal_core_count(); core++) {
        for (uintptr_t n = 1; n <= 3; n++) {
            SHOAL_EXPECT_INT(
                shoal_await(shoal_sharded_invoke(service, core, count, (void *)1), &value), 0);
            SHOAL_EXPECT_INT(value.slice.size, core);
            SHOAL_EXPECT_INT(value.slice.tag, 2 * n - 1);
            SHOAL_EXPECT_INT(
                shoal_await(shoal_sharded_invoke_fiber(service, core, count_slowly, (void *)1),
                            &value),
                0);
            SHOAL_EXPECT_INT(value.slice.size, core);
            SHOAL_EXPECT_INT(value.slice.tag, 2 * n);
        }
    }
    SHOAL_EXPECT_INT(
        shoal_await(shoal_sharded_invoke(service, shoal_core_count(), count, NULL), NULL),
        SHOAL_ENOCORE);
    shoal_sharded_free(service);
    return 0;
}

static int check_one_in_group(void *arg)
{
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "counters", 16), 0);
    int rc = check_one(arg);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
    return rc;
}

static void sharded_invoke_reaches_the_instance_of_each_core(void **state)
{
    (void)state;
    group = NULL;
    assert_int_equal(shoal_test_run(1, check_one, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_one, NULL), 0);
    assert_int_equal(shoal_test_run(CORES_MAX, check_one, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_one_in_group, NULL), 0);
}

static int in_group_now(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)arg;
    (void)out;
    return shoal_sleep_ns(SHOAL_NS_FOREVER);
}

/* The bound of the group holds, and not that of the others. */
static int check_bound(void *arg)
{
    (void)arg;
    struct shoal_future *inside[4];
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "counters", 4), 0);
    if (!begin(group))
        return 1;
    for (int i = 0; i < 4; i++)
        inside[i] = shoal_sharded_invoke_fiber(service, 1, in_group_now, NULL);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 1), 4);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(NULL, 1), 0);
    shoal_sharded_stop(service, 0);
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_await(inside[i], NULL), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 1), 0);
    shoal_sharded_free(service);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
    return 0;
}

static void sharded_invoke_counts_in_the_group_of_its_service(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_bound, NULL), 0);
}

static int sum_copy(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    SHOAL_EXPECT_INT((uintptr_t)arg % 8, 0);
    for (int i = 0; i < SHOAL_SHARDED_COPY_MAX; i++)
        out->u64 += ((unsigned char *)arg)[i];
    return 0;
}

static int check_copy(void *arg)
{
    (void)arg;
    if (!begin(group))
        return 1;
    unsigned char bytes[SHOAL_SHARDED_COPY_MAX + 1];
    for (unsigned core = 0; core < 2; core++) {
        union shoal_value value;
        memset(bytes, 3, sizeof(bytes));
        struct shoal_future *f =
            shoal_sharded_invoke_copy(service, core, sum_copy, bytes, SHOAL_SHARDED_COPY_MAX);
        memset(bytes, 9, sizeof(bytes)); /* the caller's again at once */
        SHOAL_EXPECT_INT(shoal_await(f, &value), 0);
        SHOAL_EXPECT_INT(value.u64, 3 * SHOAL_SHARDED_COPY_MAX);
        f = shoal_sharded_invoke_copy(service, core, sum_copy, bytes, sizeof(bytes));
        SHOAL_EXPECT_INT(shoal_await(f, NULL), -EMSGSIZE);
        f = shoal_sharded_invoke_copy(service, core, sum_copy, NULL, 0);
        SHOAL_EXPECT_INT(shoal_await(f, &value), 0);
        SHOAL_EXPECT_INT(value.u64, 0); /* what is not given is zero */
    }
    shoal_sharded_free(service);
    return 0;
}

static int check_copy_in_group(void *arg)
{
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "counters", 16), 0);
    int rc = check_copy(arg);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    group = NULL;
    return rc;
}

static void sharded_invoke_copy_is_a_copy_and_bounded(void **state)
{
    (void)state;
    group = NULL;
    assert_int_equal(shoal_test_run(2, check_copy, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_copy_in_group, NULL), 0);
}

static int freed;

static void free_arg(void *arg)
{
    SHOAL_EXPECT_INT(shoal_core_id(), 0);
    SHOAL_EXPECT(arg == &freed);
    freed++;
}

static int sleep_there(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)arg;
    (void)out;
    return shoal_sleep_ns(SHOAL_NS_FOREVER);
}

/* Waits until the argument of a call has been freed, which comes from the queue. */
static void expect_freed(int times)
{
    for (int i = 0; i < 1000 && freed < times; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(freed, times);
}

static int check_call(void *arg)
{
    (void)arg;
    if (!begin(NULL))
        return 1;
    freed = 0;
    struct shoal_sharded_call call = {.fiber_fn = sleep_there, .arg = &freed, .arg_free = free_arg};
    for (unsigned core = 0; core < 2; core++) {
        freed = 0;
        call.timeout_ns = SHOAL_NS_PER_MS;
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_call(service, core, &call), NULL), -ETIMEDOUT);
        expect_freed(1);
        call.timeout_ns = 0;
        struct shoal_future *f = shoal_sharded_call(service, core, &call);
        shoal_future_cancel(f);
        SHOAL_EXPECT_INT(shoal_await(f, NULL), -ECANCELED);
        expect_freed(2);
        f = shoal_sharded_call(service, 99, &call);
        SHOAL_EXPECT_INT(shoal_await(f, NULL), SHOAL_ENOCORE);
        expect_freed(3);
        f = shoal_sharded_call(
            service, core,
            &(struct shoal_sharded_call){.fn = fail_odd, .arg = &freed, .arg_free = free_arg});
        SHOAL_EXPECT_INT(shoal_await(f, NULL), core == 0 ? 0 : -EPERM);
        expect_freed(4);
    }
    struct shoal_sharded_call both = call;
    both.fn = count;
    SHOAL_EXPECT_INT(shoal_await(shoal_sharded_call(service, 0, &both), NULL), -EINVAL);
    expect_freed(5);
    shoal_sharded_stop(service, 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_sharded_call(service, 0, &call), NULL), SHOAL_ECLOSED);
    expect_freed(6);
    return 0;
}

static void sharded_call_frees_its_argument_once_however_it_ends(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_call, NULL), 0);
}

static int check_owner(void *arg)
{
    (void)arg;
    union shoal_value value;
    if (!begin(NULL))
        return 1;
    for (uint64_t key = 0; key < 50; key++) {
        unsigned owner = shoal_key_core_u64(key);
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke(service, owner, count, NULL), &value), 0);
        SHOAL_EXPECT_INT(value.slice.size, owner);
    }
    return 0;
}

static void sharded_invoke_on_the_owner_of_a_key(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_owner, NULL), 0);
}

/* ---- Before all have started ---- */

static int ask_lower(void *instance, void *arg)
{
    struct shoal_sharded *mine = shoal_sharded_of(instance);
    unsigned here = (unsigned)shoal_core_id();
    (void)open_counter(instance, arg);
    if (here > 0)
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke(mine, here - 1, count, NULL), NULL), 0);
    if (here + 1 < shoal_core_count()) {
        int rc = shoal_await(shoal_sharded_invoke(mine, here + 1, count, NULL), NULL);
        SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
        SHOAL_EXPECT(strstr(shoal_error_message(), "service \"asking\" does not run on core") !=
                     NULL);
        rc = shoal_await(shoal_sharded_invoke_fiber(mine, here + 1, count, NULL), NULL);
        SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
        rc = shoal_await(shoal_sharded_invoke(mine, here, count, NULL), NULL);
        SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED); /* nor itself, yet */
    }
    return 0;
}

static int check_early(void *arg)
{
    (void)arg;
    static const struct shoal_sharded_ops asking = {
        .name = "asking", .instance_bytes = sizeof(struct counter), .start = ask_lower};
    SHOAL_EXPECT_INT(shoal_sharded_start(&service,
                                         &(struct shoal_sharded_options){
                                             .ops = &asking, .order = SHOAL_SHARDED_IN_ORDER}),
                     0);
    return 0;
}

static void sharded_invoke_while_it_starts_reaches_those_that_have(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_early, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharded_invoke_reaches_the_instance_of_each_core),
        cmocka_unit_test(sharded_invoke_counts_in_the_group_of_its_service),
        cmocka_unit_test(sharded_invoke_copy_is_a_copy_and_bounded),
        cmocka_unit_test(sharded_call_frees_its_argument_once_however_it_ends),
        cmocka_unit_test(sharded_invoke_on_the_owner_of_a_key),
        cmocka_unit_test(sharded_invoke_while_it_starts_reaches_those_that_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
