/*
 * Starts of services: the promises of sharded.h.
 */
/* backends: both */
#include "shoal/runtime/scope.h"

#include "unit/sharded_check.h"

static int look_at_local(void *arg, union shoal_value *out)
{
    struct shoal_sharded *sharded = arg;
    const struct instance *mine = shoal_sharded_local(sharded);
    (void)out;
    SHOAL_EXPECT(mine != NULL && mine->core == (unsigned)shoal_core_id() && mine->arg == &diary);
    SHOAL_EXPECT(shoal_sharded_of((void *)(uintptr_t)mine) == sharded);
    SHOAL_EXPECT_STR(shoal_sharded_name(sharded), "noting");
    return 0;
}

static int no_local(void *arg, union shoal_value *out)
{
    (void)out;
    SHOAL_EXPECT(shoal_sharded_local(arg) == NULL);
    SHOAL_EXPECT(shoal_sharded_enter(arg) == NULL);
    return 0;
}

static int on_each(shoal_submit_fn *fn, void *arg)
{
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(i, fn, arg), NULL), 0);
    return 0;
}

/* ---- Start and stop ---- */

static int check_life(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    for (int round = 0; round < 3; round++) {
        await_in_start = round == 1;
        if (!SHOAL_EXPECT_INT(start_it(&sharded, (enum shoal_sharded_order)(round % 2)), 0))
            return 1;
        SHOAL_EXPECT_INT(atomic_load(&live), (int)shoal_core_count());
        on_each(look_at_local, sharded);
        shoal_sharded_stop(sharded, SHOAL_NS_FOREVER);
        SHOAL_EXPECT_INT(atomic_load(&live), 0);
        on_each(no_local, sharded);
        shoal_sharded_stop(sharded, SHOAL_NS_FOREVER); /* again: nothing to do */
        if (round != 1)
            shoal_sharded_free(sharded); /* the other one goes with the program */
    }
    shoal_sharded_stop(NULL, 0);
    shoal_sharded_free(NULL);
    return 0;
}

static void sharded_life_on_one_to_eight_cores(void **state)
{
    (void)state;
    static const unsigned cores[] = {1, 2, 3, CORES_MAX};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++) {
        forget();
        assert_int_equal(shoal_test_run(cores[i], check_life, NULL), 0);
    }
}

static int check_order(void *arg)
{
    (void)arg;
    char text[512];
    struct shoal_sharded *sharded;
    SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_IN_ORDER), 0);
    shoal_sharded_free(sharded);
    diary_text(text, sizeof(text));
    SHOAL_EXPECT_STR(text, "+0 +1 +2 +3 -3 -2 -1 -0");
    return 0;
}

static void sharded_in_order_starts_upwards_and_stops_downwards(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(4, check_order, NULL), 0);
}

static struct {
    atomic_int arrived;
    int wanted;
} meeting;

/* Ends only once all have begun: no order could do that. */
static int start_meeting(void *instance, void *arg)
{
    (void)instance;
    (void)arg;
    atomic_fetch_add(&meeting.arrived, 1);
    while (atomic_load(&meeting.arrived) < meeting.wanted)
        if (shoal_sleep_ns(SHOAL_NS_PER_US) != 0)
            return -ECANCELED;
    return 0;
}

static void stop_meeting(void *instance)
{
    (void)instance;
    atomic_fetch_sub(&meeting.arrived, 1);
    while (atomic_load(&meeting.arrived) > 0)
        (void)shoal_sleep_ns(SHOAL_NS_PER_US);
}

static int check_parallel(void *arg)
{
    (void)arg;
    static const struct shoal_sharded_ops ops = {
        .name = "meeting", .start = start_meeting, .stop = stop_meeting};
    struct shoal_sharded *sharded;
    atomic_store(&meeting.arrived, 0);
    meeting.wanted = (int)shoal_core_count();
    SHOAL_EXPECT_INT(shoal_sharded_start(&sharded, &(struct shoal_sharded_options){.ops = &ops}),
                     0);
    shoal_sharded_free(sharded);
    return 0;
}

static void sharded_parallel_starts_and_stops_all_at_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_parallel, NULL), 0);
}

/* ---- Starts that fail ---- */

static int check_failure(void *arg)
{
    (void)arg;
    char text[512];
    struct shoal_sharded *sharded = (void *)&diary;
    for (int core = 0; core < 4; core++) {
        forget();
        fail_on = core;
        fail_also_on = 3; /* the lowest is told */
        SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_IN_ORDER), -EIO);
        SHOAL_EXPECT(sharded == NULL);
        snprintf(text, sizeof(text), "noting: core %d: disk %d is full", core, core);
        SHOAL_EXPECT_STR(shoal_error_message(), text);
        SHOAL_EXPECT_INT(atomic_load(&live), 0);
        static const char *const wanted[] = {"", "+0 -0", "+0 +1 -1 -0", "+0 +1 +2 -2 -1 -0"};
        diary_text(text, sizeof(text));
        SHOAL_EXPECT_STR(text, wanted[core]);
        SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), -EIO);
        snprintf(text, sizeof(text), "noting: core %d: disk %d is full", core, core);
        SHOAL_EXPECT_STR(shoal_error_message(), text);
        SHOAL_EXPECT_INT(atomic_load(&live), 0);
        await_in_start = true; /* those who fail are the first to end */
        SHOAL_EXPECT_INT(start_it(&sharded, SHOAL_SHARDED_PARALLEL), -EIO);
        SHOAL_EXPECT_STR(shoal_error_message(), text);
        SHOAL_EXPECT_INT(atomic_load(&live), 0);
    }
    return 0;
}

static void sharded_start_that_fails_stops_the_others_and_names_the_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(4, check_failure, NULL), 0);
}

static int check_options(void *arg)
{
    (void)arg;
    struct shoal_sharded *sharded;
    static const struct shoal_sharded_ops nameless = {.instance_bytes = 8};
    static const struct shoal_sharded_ops huge = {.name = "huge", .instance_bytes = SIZE_MAX};
    static const struct shoal_sharded_ops bare = {.name = "bare"};
    const struct shoal_sharded_ops *const bad[] = {NULL, &nameless, &huge};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++)
        SHOAL_EXPECT_INT(
            shoal_sharded_start(&sharded, &(struct shoal_sharded_options){.ops = bad[i]}), -EINVAL);
    SHOAL_EXPECT(strstr(shoal_error_message(), "service \"huge\": instances of") != NULL);
    SHOAL_EXPECT_INT(shoal_sharded_start(&sharded, &(struct shoal_sharded_options){.ops = &bare}),
                     0);
    SHOAL_EXPECT(shoal_sharded_local(sharded) != NULL); /* although it has no bytes */
    return 0;
}

static void sharded_options_are_checked(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_options, NULL), 0);
}

/* ---- Cancel ---- */

static int wait_in_start(void *instance, void *arg)
{
    (void)instance;
    (void)arg;
    if (shoal_core_id() == 1) {
        atomic_fetch_add(&live, 1);
        return 0;
    }
    atomic_fetch_add(&holding, 1);
    int rc = shoal_sleep_ns(SHOAL_NS_FOREVER);
    atomic_fetch_sub(&holding, 1);
    return rc;
}

static void stop_after_wait(void *instance)
{
    (void)instance;
    SHOAL_EXPECT_INT(shoal_core_id(), 1);
    note('-', 1);
}

static int start_waiting(void *arg)
{
    static const struct shoal_sharded_ops ops = {
        .name = "waiting", .start = wait_in_start, .stop = stop_after_wait};
    struct shoal_sharded *sharded;
    struct shoal_sharded_options options = {.ops = &ops, .order = *(enum shoal_sharded_order *)arg};
    int rc = shoal_sharded_start(&sharded, &options);
    SHOAL_EXPECT(sharded == NULL);
    return rc;
}

static int check_cancel(void *arg)
{
    (void)arg;
    enum shoal_sharded_order order = SHOAL_SHARDED_PARALLEL;
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, start_waiting, &order, "starter"), 0);
    while (atomic_load(&holding) < 2 || atomic_load(&live) < 1)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(atomic_load(&holding), 0);
    SHOAL_EXPECT_STR(diary.lines[0], "-1");
    order = SHOAL_SHARDED_IN_ORDER; /* core 0 hangs: core 1 is not asked */
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, start_waiting, &order, "starter"), 0);
    while (atomic_load(&holding) < 1)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_US), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(atomic_load(&diary.count), 1);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, start_waiting, &order, "starter"), 0);
    shoal_fiber_cancel(fiber); /* before it has begun */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    return 0;
}

static void sharded_start_cancelled_ends_those_that_start_and_stops_those_that_had(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(3, check_cancel, NULL), 0);
}

static int check_deadline(void *arg)
{
    (void)arg;
    enum shoal_sharded_order order = SHOAL_SHARDED_PARALLEL;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 5 * SHOAL_NS_PER_MS});
    SHOAL_EXPECT_INT(start_waiting(&order), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT_INT(atomic_load(&holding), 0);
    return 0;
}

static void sharded_start_ends_with_the_deadline_of_its_fiber(void **state)
{
    (void)state;
    forget();
    assert_int_equal(shoal_test_run(3, check_deadline, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharded_life_on_one_to_eight_cores),
        cmocka_unit_test(sharded_in_order_starts_upwards_and_stops_downwards),
        cmocka_unit_test(sharded_parallel_starts_and_stops_all_at_once),
        cmocka_unit_test(sharded_start_that_fails_stops_the_others_and_names_the_core),
        cmocka_unit_test(sharded_options_are_checked),
        cmocka_unit_test(sharded_start_cancelled_ends_those_that_start_and_stops_those_that_had),
        cmocka_unit_test(sharded_start_ends_with_the_deadline_of_its_fiber),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
