/*
 * Stops of services, by call and with the program: the promises of sharded.h.
 */
/* backends: both */
#include "shoal/smp/app.h"

#include "unit/sharded_check.h"

/* ---- Stops ---- */

static int hold(void *instance, void *arg, union shoal_value *out)
{
    (void)arg;
    atomic_fetch_add(&holding, 1);
    while (atomic_load(&held)) {
        int rc = shoal_sleep_ns(50 * SHOAL_NS_PER_US);
        if (rc < 0) {
            atomic_fetch_sub(&holding, 1);
            return rc;
        }
    }
    SHOAL_EXPECT_INT(((struct instance *)instance)->magic, 0x1234);
    atomic_fetch_sub(&holding, 1);
    out->u64 = 5;
    return 0;
}

static int stop_it(void *arg)
{
    shoal_sharded_stop(arg, SHOAL_NS_FOREVER);
    note('s', 0);
    return 0;
}

static int check_waits(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    struct shoal_future *inside[6];
    struct shoal_fiber *first, *second;
    union shoal_value value;
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), 0);
    atomic_store(&held, true);
    for (unsigned i = 0; i < 6; i++)
        inside[i] = shoal_sharded_invoke_fiber(sharded, i % 3, hold, NULL);
    while (atomic_load(&holding) < 6)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&first, stop_it, sharded, "stop"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&second, stop_it, sharded, "stop"), 0);
    while (shoal_sharded_enter(sharded) != NULL) { /* until the close has reached this core */
        shoal_sharded_leave(sharded);
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    }
    for (unsigned i = 0; i < 3; i++) /* nobody comes in any more */
        SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke_fiber(sharded, i, hold, NULL), NULL),
                         SHOAL_ECLOSED);
    SHOAL_EXPECT_STR(shoal_error_message(), "service \"noting\" has stopped");
    shoal_fiber_cancel(first); /* to no effect */
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(atomic_load(&live), 3);
    SHOAL_EXPECT_INT(atomic_load(&holding), 6);
    atomic_store(&held, false);
    for (unsigned i = 0; i < 6; i++) {
        SHOAL_EXPECT_INT(shoal_await(inside[i], &value), 0);
        SHOAL_EXPECT_INT(value.u64, 5);
    }
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 0); /* not before the first */
    SHOAL_EXPECT_INT(atomic_load(&live), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    return 0;
}

static void sharded_stop_waits_for_who_is_inside_and_lets_nobody_in(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(3, check_waits, NULL), 0);
}

static int check_times_out(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    struct shoal_future *inside[6];
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), 0);
    atomic_store(&held, true);
    for (unsigned i = 0; i < 6; i++)
        inside[i] = shoal_sharded_invoke_fiber(sharded, i % 3, hold, NULL);
    while (atomic_load(&holding) < 6)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_sharded_stop(sharded, SHOAL_NS_PER_MS);
    SHOAL_EXPECT_INT(atomic_load(&live), 0);
    SHOAL_EXPECT_INT(atomic_load(&holding), 0);
    for (unsigned i = 0; i < 6; i++)
        SHOAL_EXPECT_INT(shoal_await(inside[i], NULL), -ECANCELED);
    return 0;
}

static void sharded_stop_cancels_who_is_inside_when_its_time_has_passed(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(3, check_times_out, NULL), 0);
}

/* All credits towards core 1 are held by invocations that only the stop can end. */
static int check_full_rings(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    static struct shoal_future *inside[SHOAL_SUBMIT_IN_FLIGHT_MAX];
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_IN_ORDER), 0);
    atomic_store(&held, true);
    for (int i = 0; i < SHOAL_SUBMIT_IN_FLIGHT_MAX; i++)
        inside[i] = shoal_sharded_invoke_fiber(sharded, 1, hold, NULL);
    while (atomic_load(&holding) < SHOAL_SUBMIT_IN_FLIGHT_MAX)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_sharded_stop(sharded, 0);
    SHOAL_EXPECT_INT(atomic_load(&live), 0);
    for (int i = 0; i < SHOAL_SUBMIT_IN_FLIGHT_MAX; i++)
        SHOAL_EXPECT_INT(shoal_await(inside[i], NULL), -ECANCELED);
    return 0;
}

static void sharded_stop_needs_no_room_in_a_ring(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(2, check_full_rings, NULL), 0);
}

static int hold_by_enter(void *arg, union shoal_value *out)
{
    struct shoal_sharded *sharded = arg;
    const struct instance *mine = shoal_sharded_enter(sharded);
    (void)out;
    if (!SHOAL_EXPECT(mine != NULL))
        return 1;
    atomic_fetch_add(&holding, 1);
    while (atomic_load(&held))
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    SHOAL_EXPECT_INT(mine->magic, 0x1234);
    SHOAL_EXPECT_INT(atomic_load(&live), 3);
    shoal_sharded_leave(sharded);
    return 0;
}

static int check_enter(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    struct shoal_fiber *stopper;
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), 0);
    atomic_store(&held, true);
    struct shoal_future *entered = shoal_submit_fiber_to(2, hold_by_enter, sharded);
    while (atomic_load(&holding) < 1)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&stopper, stop_it, sharded, "stop"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    atomic_store(&held, false);
    SHOAL_EXPECT_INT(shoal_await(entered, NULL), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(stopper), 0);
    return 0;
}

static void sharded_enter_keeps_the_instance_until_the_leave(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(3, check_enter, NULL), 0);
}

/* ---- The program's stop ---- */

static char stopped[8];

static void stop_named(void *instance)
{
    const char *name = shoal_sharded_name(shoal_sharded_of(instance));
    if (shoal_core_id() == 0)
        stopped[strlen(stopped)] = name[0];
}

static void stop_hook(void *arg)
{
    (void)arg;
    stopped[strlen(stopped)] = 'h';
}

static int leave_services(void *arg)
{
    (void)arg;
    static const struct shoal_sharded_ops a = {
        .name = "a", .instance_bytes = 1, .stop = stop_named};
    static const struct shoal_sharded_ops b = {
        .name = "b", .instance_bytes = 1, .stop = stop_named};
    static const struct shoal_sharded_ops c = {
        .name = "c", .instance_bytes = 1, .stop = stop_named};
    struct shoal_sharded *one, *two, *three;
    memset(stopped, 0, sizeof(stopped));
    SHOAL_EXPECT_INT(shoal_sharded_start(&one, &(struct shoal_sharded_options){.ops = &a}), 0);
    SHOAL_EXPECT_INT(shoal_at_stop(stop_hook, NULL), 0);
    SHOAL_EXPECT_INT(shoal_sharded_start(&two, &(struct shoal_sharded_options){.ops = &b}), 0);
    SHOAL_EXPECT_INT(shoal_sharded_start(&three, &(struct shoal_sharded_options){.ops = &c}), 0);
    shoal_sharded_stop(two, SHOAL_NS_FOREVER); /* before the others, and not again with them */
    return 0;
}

static void sharded_stops_with_the_program_in_reverse_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_services, NULL), 0);
    assert_string_equal(stopped, "bcha");
}

static struct shoal_sharded *late;
static atomic_int late_codes;

static int invoke_when_stopped(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_FOREVER), -ECANCELED); /* services are gone by then */
    shoal_fiber_shield();
    unsigned to = ((unsigned)shoal_core_id() + 1) % shoal_core_count();
    SHOAL_EXPECT_INT(shoal_await(shoal_sharded_invoke_fiber(late, to, hold, NULL), NULL),
                     SHOAL_ECLOSED);
    SHOAL_EXPECT(shoal_sharded_local(late) == NULL);
    shoal_fiber_unshield();
    atomic_fetch_add(&late_codes, 1);
    return 0;
}

static int leave_latecomers(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(start_it(&late, SHOAL_SHARDED_PARALLEL), 0);
    for (unsigned i = 0; i < 3; i++)
        shoal_discard(shoal_submit_fiber_to(i, invoke_when_stopped, NULL));
    return shoal_sleep_ns(SHOAL_NS_PER_MS);
}

static void sharded_invocation_after_the_stop_fails_clearly(void **state)
{
    (void)state;
    forget();
    atomic_store(&late_codes, 0);
    assert_int_equal(shoal_test_run(3, leave_latecomers, NULL), 0);
    assert_int_equal(atomic_load(&late_codes), 3);
    assert_int_equal(atomic_load(&live), 0);
}

static int start_late(void *arg)
{
    struct shoal_sharded *sharded;
    (void)arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_FOREVER), -ECANCELED);
    shoal_fiber_shield();
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), SHOAL_ESTOPPING);
    SHOAL_EXPECT_STR(shoal_error_message(), "service \"noting\" has started too late");
    shoal_fiber_unshield();
    atomic_fetch_add(&late_codes, 1);
    return 0;
}

static int leave_a_starter(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(start_late, NULL, "late"), 0);
    return 0;
}

static void sharded_start_while_the_program_stops_is_undone(void **state)
{
    (void)state;
    forget();
    atomic_store(&late_codes, 0);
    assert_int_equal(shoal_test_run(3, leave_a_starter, NULL), 0);
    assert_int_equal(atomic_load(&late_codes), 1);
    assert_int_equal(atomic_load(&live), 0);
}

/* ---- Misuse ---- */

static int stop_inside(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    (void)out;
    shoal_sharded_stop(arg, 0);
    return 0;
}

static int misuse_stop_inside(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    forget();
    (void)start_it(&sharded, SHOAL_SHARDED_PARALLEL);
    return shoal_await(shoal_sharded_invoke_fiber(sharded, 0, stop_inside, sharded), NULL);
}

static int stop_elsewhere(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_sharded_stop(arg, 0);
    return 0;
}

static int misuse_stop_elsewhere(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    forget();
    (void)start_it(&sharded, SHOAL_SHARDED_PARALLEL);
    return shoal_await(shoal_submit_fiber_to(1, stop_elsewhere, sharded), NULL);
}

static int misuse_leave(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    forget();
    (void)start_it(&sharded, SHOAL_SHARDED_PARALLEL);
    shoal_sharded_leave(sharded);
    return 0;
}

static void sharded_misuse_aborts_and_says_what(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(2, misuse_stop_inside,
                                 "service \"noting\" is stopped from inside an invocation");
    shoal_test_fiber_aborts_with(2, misuse_stop_elsewhere,
                                 "a service is stopped on a fiber of core 0, not here (core 1)");
    shoal_test_fiber_aborts_with(2, misuse_leave, "more have left than entered");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharded_stop_waits_for_who_is_inside_and_lets_nobody_in),
        cmocka_unit_test(sharded_stop_cancels_who_is_inside_when_its_time_has_passed),
        cmocka_unit_test(sharded_stop_needs_no_room_in_a_ring),
        cmocka_unit_test(sharded_enter_keeps_the_instance_until_the_leave),
        cmocka_unit_test(sharded_stops_with_the_program_in_reverse_order),
        cmocka_unit_test(sharded_invocation_after_the_stop_fails_clearly),
        cmocka_unit_test(sharded_start_while_the_program_stops_is_undone),
        cmocka_unit_test(sharded_misuse_aborts_and_says_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
