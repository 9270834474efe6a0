/*
 * Futures that are misused: what aborts, and what is reported at stop.
 */
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/slab_impl.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

static int resolve_twice(void *arg)
{
    (void)arg;
    struct shoal_future *future = shoal_future_new();
    shoal_future_resolve(future, NULL);
    shoal_future_resolve(future, NULL);
    return 0;
}

static int consume_twice(void *arg)
{
    (void)arg;
    struct shoal_future *future = shoal_future_new();
    shoal_discard(shoal_then(future, shoal_test_unexpected_then, NULL));
    shoal_discard(future);
    return 0;
}

#ifdef SHOAL_DEBUG
static int await_dead(void *arg)
{
    (void)arg;
    struct shoal_future *future = shoal_future_ready(NULL);
    (void)shoal_await(future, NULL);
    (void)shoal_await(future, NULL);
    return 0;
}

static int resolve_there(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_future_resolve(arg, NULL);
    return 0;
}

static int resolve_on_other_core(void *arg)
{
    (void)arg;
    return shoal_await(shoal_submit_to(1, resolve_there, shoal_future_new()), NULL);
}
#endif

static int run_one_core(void *arg)
{
    int (*fn)(void *) = *(int (**)(void *))arg;
    return shoal_test_run(1, fn, NULL);
}

static void future_second_resolve_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = resolve_twice;
    shoal_test_aborts_with(run_one_core, &fn, "is resolved twice");
}

static void future_second_consume_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = consume_twice;
    shoal_test_aborts_with(run_one_core, &fn, "is consumed twice");
}

#ifdef SHOAL_DEBUG
static int run_two_cores(void *arg)
{
    int (*fn)(void *) = *(int (**)(void *))arg;
    return shoal_test_run(2, fn, NULL);
}

static void future_use_after_consume_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = await_dead;
    shoal_test_aborts_with(run_one_core, &fn, "await of a future that was given back");
}

static void future_on_other_core_aborts_naming_both(void **state)
{
    (void)state;
    int (*fn)(void *) = resolve_on_other_core;
    shoal_test_aborts_with(run_two_cores, &fn, " of core 0 on core 1");
}
#endif

static int forget_one(void *arg)
{
    (void)arg;
    (void)shoal_future_ready(NULL);
    return 0;
}

static void future_never_consumed_is_reported_at_stop(void **state)
{
    (void)state;
    int (*fn)(void *) = forget_one;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_one_core, &fn);
    assert_int_equal(child.exit_code, SHOAL_TEST_FAILED);
#ifdef SHOAL_SLAB_CHECKED
    assert_non_null(strstr(child.text, "future 0x"));
    assert_non_null(strstr(child.text, "was never consumed; made at 0x"));
#else
    assert_non_null(strstr(child.text, "1 of slab future were never given back"));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(future_second_resolve_aborts),
        cmocka_unit_test(future_second_consume_aborts),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(future_use_after_consume_aborts),
        cmocka_unit_test(future_on_other_core_aborts_naming_both),
#endif
        cmocka_unit_test(future_never_consumed_is_reported_at_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
