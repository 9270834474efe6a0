/*
 * The stop: its order, what waits, what is in flight, and exit codes.
 */
/* backends: both */
#include <signal.h>
#include <stdatomic.h>

#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/timer.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

/* ---- Exit codes ---- */

static int give_back(void *arg)
{
    return (int)(intptr_t)arg;
}

static int say_config_error(void *arg)
{
    (void)arg;
    return shoal_config_error("--thing: \"%d\" is wrong", 5);
}

static int run_config_error(void *arg)
{
    return shoal_test_run(1, say_config_error, arg);
}

static void stop_exit_code_is_what_run_returned(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, give_back, (void *)0), 0);
    assert_int_equal(shoal_test_run(2, give_back, (void *)37), 37);
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_config_error, NULL);
    assert_int_equal(child.exit_code, 2);
    assert_string_equal(child.text, "test: --thing: \"5\" is wrong\n");
}

static int run_failing(void *arg)
{
    return shoal_test_run(1, give_back, arg);
}

static void stop_exit_code_of_a_failure_is_one_and_says_why(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_failing, (void *)(intptr_t)-EADDRINUSE);
    assert_int_equal(child.exit_code, 1);
    assert_non_null(strstr(child.text, "Address already in use"));
}

static void stop_bad_option_ends_with_two_before_anything_starts(void **state)
{
    (void)state;
    const char *const options[] = {"--memory", "1K", NULL};
    assert_int_equal(shoal_test_run_with(1, options, give_back, NULL), 2);
}

/* ---- Hooks ---- */

static char order[16];

static void hook(void *arg)
{
    size_t len = strlen(order);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0); /* it may await, and is not cancelled */
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), 0);
    order[len] = *(const char *)arg;
}

static int with_hooks(void *arg)
{
    (void)arg;
    memset(order, 0, sizeof(order));
    SHOAL_EXPECT_INT(shoal_at_stop(hook, "a"), 0);
    SHOAL_EXPECT_INT(shoal_at_stop(hook, "b"), 0);
    SHOAL_EXPECT_INT(shoal_at_stop(hook, "c"), 0);
    return 0;
}

static void stop_hooks_run_in_reverse_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, with_hooks, NULL), 0);
    assert_string_equal(order, "cba");
}

/* ---- Waiters and messages ---- */

static atomic_int cancelled, answered;

static int sleep_for_ever(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_FOREVER), -ECANCELED);
    SHOAL_EXPECT(shoal_core_stopping());
    atomic_fetch_add(&cancelled, 1);
    return 0;
}

static int spawn_sleepers(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (int i = 0; i < 20; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(sleep_for_ever, NULL, "sleeper"), 0);
    return 0;
}

static int leave_sleepers(void *arg)
{
    (void)arg;
    atomic_store(&cancelled, 0);
    for (unsigned core = 0; core < 3; core++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, spawn_sleepers, NULL), NULL), 0);
    return 0;
}

static void stop_cancels_every_sleeper_on_every_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_sleepers, NULL), 0);
    assert_int_equal(atomic_load(&cancelled), 60);
}

static atomic_int begun;

static int sleep_and_answer(void *arg, union shoal_value *out)
{
    (void)arg;
    shoal_fiber_shield(); /* a handler that lets nothing stop it half-way */
    atomic_fetch_add(&begun, 1);
    (void)shoal_sleep_ns(5 * SHOAL_NS_PER_MS);
    shoal_fiber_unshield();
    out->i64 = 99;
    return 0;
}

static int ask_and_note(void *arg)
{
    union shoal_value value = {.i64 = 0};
    unsigned to = (unsigned)(intptr_t)arg;
    if (shoal_await(shoal_submit_fiber_to(to, sleep_and_answer, NULL), &value) == 0 &&
        value.i64 == 99)
        atomic_fetch_add(&answered, 1);
    return 0;
}

static int spawn_askers(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (intptr_t i = 0; i < 30; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(ask_and_note, (void *)(i % 3), "asker"), 0);
    return 0;
}

static int leave_messages(void *arg)
{
    (void)arg;
    atomic_store(&answered, 0);
    atomic_store(&begun, 0);
    for (unsigned core = 0; core < 3; core++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, spawn_askers, NULL), NULL), 0);
    while (atomic_load(&begun) < 90) /* what has not begun is cancelled */
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    return 0;
}

static void stop_messages_in_flight_are_answered(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_messages, NULL), 0);
    assert_int_equal(atomic_load(&answered), 90);
}

static int wait_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_sleep_ns(SHOAL_NS_FOREVER);
}

static int wait_for_other_core(void *arg)
{
    unsigned to = 1 - (unsigned)shoal_core_id();
    (void)arg;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(to, wait_there, NULL), NULL), -ECANCELED);
    atomic_fetch_add(&cancelled, 1);
    return 0;
}

static int spawn_waiter(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_fiber_spawn_detached(wait_for_other_core, NULL, "waiter");
}

static int leave_crossed_waits(void *arg)
{
    (void)arg;
    atomic_store(&cancelled, 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, spawn_waiter, NULL), NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(0, spawn_waiter, NULL), NULL), 0);
    return shoal_sleep_ns(2 * SHOAL_NS_PER_MS);
}

static void stop_cores_that_wait_for_each_other_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, leave_crossed_waits, NULL), 0);
    assert_int_equal(atomic_load(&cancelled), 2);
}

/* A fiber that asks the other core again and again, and ends only when a wait says so. */
static int ask_until_cancelled(void *arg)
{
    unsigned to = 1 - (unsigned)shoal_core_id();
    int rc;
    do {
        rc = shoal_await(shoal_submit_fiber_to(to, sleep_and_answer, arg), NULL);
    } while (rc == 0);
    SHOAL_EXPECT_INT(rc, -ECANCELED);
    atomic_fetch_add(&cancelled, 1);
    return 0;
}

static int spawn_asker(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_fiber_spawn_detached(ask_until_cancelled, NULL, "asker");
}

static int leave_askers(void *arg)
{
    (void)arg;
    atomic_store(&cancelled, 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, spawn_asker, NULL), NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(0, spawn_asker, NULL), NULL), 0);
    return shoal_sleep_ns(2 * SHOAL_NS_PER_MS);
}

static void stop_reaches_loops_over_messages(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, leave_askers, NULL), 0);
    assert_int_equal(atomic_load(&cancelled), 2);
}

#define RELAY_HOPS (20000 / SHOAL_TEST_SLOWDOWN)

/* A relay that moves to another core each time: work that runs from the rounds. */
static int relay(void *arg, union shoal_value *out)
{
    intptr_t left = (intptr_t)arg;
    (void)out;
    if (left == 0) {
        atomic_fetch_add(&answered, 1);
        return 0;
    }
    unsigned to = ((unsigned)shoal_core_id() + 1) % 3;
    shoal_discard(shoal_submit_to(to, relay, (void *)(left - 1)));
    return 0;
}

static int leave_relay(void *arg)
{
    (void)arg;
    atomic_store(&answered, 0);
    shoal_discard(shoal_submit_to(1, relay, (void *)RELAY_HOPS));
    return 0;
}

static void stop_waits_for_work_that_moves_between_cores(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, leave_relay, NULL), 0);
    assert_int_equal(atomic_load(&answered), 1);
}

/* A message whose answer comes from a timer: no fiber of any core tells that it is in flight. */
static struct shoal_timer late_timer;
static struct shoal_future *late_future;

static void resolve_late(struct shoal_timer *timer)
{
    (void)timer;
    atomic_fetch_add(&answered, 1);
    shoal_future_resolve(late_future, NULL);
}

static struct shoal_future *answer_late(void *arg)
{
    (void)arg;
    shoal_timer_init(&late_timer, resolve_late);
    shoal_timer_arm(&late_timer, 20 * SHOAL_NS_PER_MS);
    late_future = shoal_future_new();
    return late_future;
}

static int leave_late_answer(void *arg)
{
    (void)arg;
    atomic_store(&answered, 0);
    shoal_discard(shoal_submit_future_to(1, answer_late, NULL));
    return 0;
}

static void stop_waits_for_an_answer_that_no_fiber_waits_for(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, leave_late_answer, NULL), 0);
    assert_int_equal(atomic_load(&answered), 1);
}

/* ---- Being asked to stop ---- */

static int request_later(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    shoal_stop_request();
    return 0;
}

static int wait_for_request(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(request_later, NULL, "requester"), 0);
    SHOAL_EXPECT_INT(shoal_stop_wait(), 0);
    SHOAL_EXPECT_INT(shoal_stop_wait(), 0); /* at once from then on */
    return 5;
}

static int wait_for_signal(void *arg)
{
    (void)arg;
    kill(getpid(), SIGTERM);
    int rc = shoal_stop_wait();
    return rc == 0 ? 6 : rc;
}

static void stop_wait_ends_by_request_or_signal(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, wait_for_request, NULL), 5);
    assert_int_equal(shoal_test_run_with(2, NULL, wait_for_signal, NULL), 6);
}

static int wait_for_stop(void *arg)
{
    (void)arg;
    int rc = shoal_stop_wait();
    return rc;
}

static int cancel_stop_wait(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    for (int turns = 0; turns < 2; turns++) {
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, wait_for_stop, NULL, "waiter"), 0);
        if (turns > 0)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    return 0;
}

static void stop_wait_can_be_cancelled(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, cancel_stop_wait, NULL), 0);
}

static void slow_hook(void *arg)
{
    (void)arg;
    kill(getpid(), SIGINT); /* the second one, while this drains */
    (void)shoal_sleep_ns(60 * SHOAL_NS_PER_S);
}

static int stop_slowly(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_at_stop(slow_hook, NULL), 0);
    kill(getpid(), SIGTERM);
    return shoal_stop_wait();
}

static int run_stop_slowly(void *arg)
{
    return shoal_test_run_with(2, NULL, stop_slowly, arg);
}

static void stop_second_signal_ends_at_once(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_stop_slowly, NULL);
    assert_int_equal(child.exit_code, 128 + SIGINT);
}

static int never_ends(void *arg)
{
    (void)arg;
    shoal_fiber_shield();
    while (!shoal_fiber_cancelled()) /* never seen behind the shield */
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static int leave_one_that_never_ends(void *arg)
{
    (void)arg;
    return shoal_fiber_spawn_detached(never_ends, NULL, "stubborn");
}

static int run_stubborn(void *arg)
{
    return shoal_test_run(2, leave_one_that_never_ends, arg);
}

static void stop_gives_up_on_a_fiber_that_never_ends_and_names_it(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_stubborn, NULL);
    assert_int_equal(child.exit_code, 1);
    assert_non_null(strstr(child.text, "fiber \"stubborn\" does not end"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_exit_code_is_what_run_returned),
        cmocka_unit_test(stop_exit_code_of_a_failure_is_one_and_says_why),
        cmocka_unit_test(stop_bad_option_ends_with_two_before_anything_starts),
        cmocka_unit_test(stop_hooks_run_in_reverse_order),
        cmocka_unit_test(stop_cancels_every_sleeper_on_every_core),
        cmocka_unit_test(stop_messages_in_flight_are_answered),
        cmocka_unit_test(stop_cores_that_wait_for_each_other_end),
        cmocka_unit_test(stop_reaches_loops_over_messages),
        cmocka_unit_test(stop_waits_for_work_that_moves_between_cores),
        cmocka_unit_test(stop_waits_for_an_answer_that_no_fiber_waits_for),
        cmocka_unit_test(stop_wait_ends_by_request_or_signal),
        cmocka_unit_test(stop_wait_can_be_cancelled),
        cmocka_unit_test(stop_second_signal_ends_at_once),
        cmocka_unit_test(stop_gives_up_on_a_fiber_that_never_ends_and_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
