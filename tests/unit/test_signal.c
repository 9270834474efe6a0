/*
 * Signals: subscriptions, waits and futures; what is not subscribed to keeps its default.
 */
/* backends: both */
#include <signal.h>
#include <stdatomic.h>

#include <pthread.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/signal.h"
#include "shoal/runtime/signal_impl.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define LONG_NS (30 * SHOAL_NS_PER_S)

static void send(int number)
{
    SHOAL_EXPECT_INT(kill(getpid(), number), 0);
}

static int send_later(void *arg)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
    send(*(const int *)arg);
    return 0;
}

static bool is_default(int number)
{
    struct sigaction action;
    sigaction(number, NULL, &action);
    return action.sa_handler == SIG_DFL;
}

/* ---- Waiting ---- */

static int wait_for_each(void *arg)
{
    const int numbers[] = {SIGHUP,  SIGUSR1, SIGUSR2, SIGWINCH,     SIGCHLD,
                           SIGALRM, SIGQUIT, SIGCONT, SIGRTMIN + 7, SIGPIPE};
    (void)arg;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(numbers); i++) {
        SHOAL_EXPECT_INT(
            shoal_fiber_spawn_detached(send_later, (void *)(uintptr_t)&numbers[i], "sender"), 0);
        SHOAL_EXPECT_INT(shoal_signal_wait(numbers[i], LONG_NS), 0);
        SHOAL_EXPECT(is_default(numbers[i]) || numbers[i] == SIGPIPE);
    }
    return 0;
}

static void signal_wait_returns_when_it_comes(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, wait_for_each, NULL), 0);
}

static int wait_usr1(void *arg)
{
    (void)arg;
    return shoal_signal_wait(SIGUSR1, SHOAL_NS_FOREVER);
}

static int wait_in_vain(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_signal_wait(SIGUSR1, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_signal_wait(SIGUSR1, SHOAL_NS_PER_MS), -ETIMEDOUT);
    for (int rest = 0; rest < 2; rest++) { /* before it waits, and while it does */
        struct shoal_fiber *fiber = NULL;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, wait_usr1, NULL, "waiter"), 0);
        for (int i = 0; i < rest; i++)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    SHOAL_EXPECT(is_default(SIGUSR1));
    return 0;
}

static void signal_wait_ends_by_timeout_or_cancel(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, wait_in_vain, NULL), 0);
}

static int ask_for_the_forbidden(void *arg)
{
    const int numbers[] = {-1,      0,      65,     1000,        SIGKILL, SIGSTOP,
                           SIGSEGV, SIGBUS, SIGFPE, SIGILL,      SIGTRAP, SIGSYS,
                           SIGABRT, 32,     33,     SIGRTMIN + 1};
    (void)arg;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(numbers); i++) {
        struct shoal_signal signal;
        SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, numbers[i]), -EINVAL);
        SHOAL_EXPECT_INT(shoal_signal_wait(numbers[i], LONG_NS), -EINVAL);
        SHOAL_EXPECT_INT(shoal_await(shoal_signal_future(numbers[i]), NULL), -EINVAL);
    }
    return 0;
}

static void signal_that_cannot_be_had_is_refused(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, ask_for_the_forbidden, NULL), 0);
}

/* ---- Counting ---- */

static int count_while_nobody_waits(void *arg)
{
    (void)arg;
    struct shoal_signal signal;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR2), 0);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, 0), -ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        send(SIGUSR2);
        SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
    }
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, 0), 3);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, 0), -ETIMEDOUT);
    for (int i = 0; i < 2; i++) {
        int number = SIGUSR2;
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(send_later, &number, "sender"), 0);
        SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    }
    /* A wait that the signal ends takes its time-out with it. */
    for (int i = 0; i < 10; i++) {
        int number = SIGUSR2;
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(send_later, &number, "sender"), 0);
        int rc = shoal_signal_next(&signal, 4 * SHOAL_NS_PER_MS);
        SHOAL_EXPECT(rc == 1 || rc == -ETIMEDOUT);
        char rest[256]; /* where the wait has been on the stack */
        memset(rest, 0, sizeof(rest));
        SHOAL_EXPECT_INT(shoal_sleep_ns(6 * SHOAL_NS_PER_MS), 0);
        SHOAL_EXPECT_INT(rest[i], 0);
        if (rc < 0)
            SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    }
    shoal_signal_unsubscribe(&signal);
    return 0;
}

static void signal_subscription_counts_what_nobody_waits_for(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, count_while_nobody_waits, NULL), 0);
}

#ifdef SHOAL_TSAN
#define QUEUED 1 /* it delivers several that are pending as one */
#else
#define QUEUED 200
#endif

/* Those from SIGRTMIN up are queued by the kernel: none may be missing. */
static int count_queued(void *arg)
{
    (void)arg;
    struct shoal_signal signal;
    const int number = SIGRTMIN + 9;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, number), 0);
    int sum = 0;
    for (int i = 0; i < QUEUED; i++)
        SHOAL_EXPECT_INT(sigqueue(getpid(), number, (union sigval){0}), 0);
#ifdef SHOAL_TSAN
    usleep(1000); /* it keeps signals back for the fiber that runs, until a call that it knows */
#endif
    while (sum < QUEUED) {
        int rc = shoal_signal_next(&signal, LONG_NS);
        if (!SHOAL_EXPECT(rc > 0))
            break;
        sum += rc;
    }
    SHOAL_EXPECT_INT(sum, QUEUED);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, SHOAL_NS_PER_MS), -ETIMEDOUT);
    shoal_signal_unsubscribe(&signal);
    return 0;
}

static void signal_subscription_counts_each_delivery(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, count_queued, NULL), 0);
}

/* ---- Several subscriptions ---- */

static int hooked;

static void on_hook(struct shoal_signal *signal)
{
    SHOAL_EXPECT(shoal_fiber_self() == NULL);
    hooked += (int)signal->count;
    signal->count = 0;
}

static void on_hook_once(struct shoal_signal *signal)
{
    hooked += 100;
    shoal_signal_unsubscribe(signal);
}

static int subscribe_twice(void *arg)
{
    (void)arg;
    struct shoal_signal one;
    struct shoal_signal two;
    struct shoal_signal hook;
    struct shoal_signal once;
    hooked = 0;
    SHOAL_EXPECT_INT(shoal_signal_hook(&once, SIGHUP, on_hook_once), 0);
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&one, SIGHUP), 0);
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&two, SIGHUP), 0);
    SHOAL_EXPECT_INT(shoal_signal_hook(&hook, SIGHUP, on_hook), 0);
    send(SIGHUP);
    SHOAL_EXPECT_INT(shoal_signal_next(&one, LONG_NS), 1);
    SHOAL_EXPECT_INT(shoal_signal_next(&two, LONG_NS), 1);
    SHOAL_EXPECT_INT(hooked, 101);
    shoal_signal_unsubscribe(&one);
    SHOAL_EXPECT(!is_default(SIGHUP));
    send(SIGHUP);
    SHOAL_EXPECT_INT(shoal_signal_next(&two, LONG_NS), 1);
    SHOAL_EXPECT_INT(hooked, 102);
    shoal_signal_unsubscribe(&two);
    shoal_signal_unsubscribe(&hook);
    SHOAL_EXPECT(is_default(SIGHUP));
    return 0;
}

static void signal_subscriptions_all_get_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, subscribe_twice, NULL), 0);
}

static atomic_int ready_cores;
static atomic_int told_cores;

static int wait_on_core(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct shoal_signal signal;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
    atomic_fetch_add(&ready_cores, 1);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    atomic_fetch_add(&told_cores, 1);
    shoal_signal_unsubscribe(&signal);
    return 0;
}

static int wait_on_all_cores(void *arg)
{
    (void)arg;
    struct shoal_future *answers[3];
    atomic_store(&ready_cores, 0);
    atomic_store(&told_cores, 0);
    for (unsigned i = 0; i < 3; i++)
        answers[i] = shoal_submit_fiber_to(i, wait_on_core, NULL);
    while (atomic_load(&ready_cores) < 3)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    send(SIGUSR1);
    for (unsigned i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_await(answers[i], NULL), 0);
    SHOAL_EXPECT_INT(atomic_load(&told_cores), 3);
    return 0;
}

static void signal_reaches_every_core_that_subscribed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, wait_on_all_cores, NULL), 0);
}

/* ---- Futures ---- */

static int as_futures(void *arg)
{
    (void)arg;
    union shoal_value value;
    struct shoal_signal signal;
    struct shoal_future *once = shoal_signal_future(SIGUSR1);
    SHOAL_EXPECT(shoal_future_is_pending(once));
    send(SIGUSR1);
    SHOAL_EXPECT_INT(shoal_await(once, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 1);
    SHOAL_EXPECT(is_default(SIGUSR1));
    once = shoal_signal_future(SIGUSR1);
    shoal_future_cancel(once);
    SHOAL_EXPECT(is_default(SIGUSR1));
    SHOAL_EXPECT_INT(shoal_await(once, NULL), -ECANCELED);

    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
    struct shoal_future *next = shoal_signal_next_future(&signal);
    send(SIGUSR1);
    SHOAL_EXPECT_INT(shoal_await(next, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 1);
    send(SIGUSR1);
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
    next = shoal_signal_next_future(&signal); /* ready */
    SHOAL_EXPECT(!shoal_future_is_pending(next));
    SHOAL_EXPECT_INT(shoal_await(next, NULL), 0);
    next = shoal_signal_next_future(&signal);
    shoal_future_cancel(next);
    SHOAL_EXPECT_INT(shoal_await(next, NULL), -ECANCELED);
    send(SIGUSR1); /* the cancelled one takes none */
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    next = shoal_signal_next_future(&signal);
    shoal_discard(shoal_signal_next_future(&signal));
    shoal_signal_unsubscribe(&signal);
    SHOAL_EXPECT_INT(shoal_await(next, NULL), -ECANCELED);
    return 0;
}

static void signal_futures_resolve_and_cancel(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, as_futures, NULL), 0);
}

/* ---- Dispositions and masks ---- */

static int die_of_hangup(void *arg)
{
    struct shoal_signal signal;
    if (arg != NULL) {
        SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGHUP), 0);
        shoal_signal_unsubscribe(&signal);
    }
    send(SIGHUP);
    return shoal_sleep_ns(LONG_NS);
}

static int run_and_die(void *arg)
{
    return shoal_test_run(2, die_of_hangup, arg);
}

static void signal_without_subscription_keeps_its_default(void **state)
{
    (void)state;
    static char after;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_and_die, NULL);
    assert_int_equal(child.signal, SIGHUP);
    shoal_test_in_child(&child, run_and_die, &after);
    assert_int_equal(child.signal, SIGHUP);
}

static atomic_int own_handler_calls;

static void own_handler(int number)
{
    (void)number;
    atomic_fetch_add(&own_handler_calls, 1);
}

static struct shoal_signal left_behind;

static int subscribe_and_leave(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&left_behind, SIGUSR2), 0);
    send(SIGUSR2);
    SHOAL_EXPECT_INT(shoal_signal_next(&left_behind, LONG_NS), 1);
    return 0;
}

static void signal_handler_of_the_program_returns_at_the_end(void **state)
{
    (void)state;
    signal(SIGUSR2, own_handler);
    atomic_store(&own_handler_calls, 0);
    assert_int_equal(shoal_test_run(1, subscribe_and_leave, NULL), 0);
    assert_int_equal(atomic_load(&own_handler_calls), 0);
    raise(SIGUSR2);
    assert_int_equal(atomic_load(&own_handler_calls), 1);
    signal(SIGUSR2, SIG_DFL);
}

static bool is_blocked(int number)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, number) == 1;
}

static int unblock_and_block(void *arg)
{
    (void)arg;
    sigset_t set;
    struct shoal_signal signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
    SHOAL_EXPECT(!is_blocked(SIGUSR1));
    send(SIGUSR1);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    shoal_signal_unsubscribe(&signal);
    SHOAL_EXPECT(is_blocked(SIGUSR1));
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
    shoal_signal_unsubscribe(&signal);
    SHOAL_EXPECT(!is_blocked(SIGUSR1));
    return 0;
}

static void signal_that_is_blocked_is_unblocked_while_subscribed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, unblock_and_block, NULL), 0);
}

/* ---- With the program's own ---- */

static int subscribe_to_terminate(void *arg)
{
    (void)arg;
    struct shoal_signal signal;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGTERM), 0);
    send(SIGTERM);
    SHOAL_EXPECT_INT(shoal_stop_wait(), 0);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    shoal_signal_unsubscribe(&signal);
    return 7;
}

static void signal_terminate_is_told_and_stops_the_program(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(2, NULL, subscribe_to_terminate, NULL), 7);
}

static int block_core(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    uint64_t end_ns = shoal_now_ns() + 20 * SHOAL_NS_PER_MS;
    while (shoal_now_ns() < end_ns)
        continue;
    return 0;
}

/* While the loop does not run, the handler does, and what it counts is told afterwards. */
static int signal_while_busy(void *arg)
{
    (void)arg;
    struct shoal_signal signal;
    SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
    struct shoal_future *busy = shoal_submit_to(1, block_core, NULL);
    send(SIGUSR1);
    (void)block_core(NULL, NULL);
    SHOAL_EXPECT_INT(shoal_signal_next(&signal, LONG_NS), 1);
    SHOAL_EXPECT_INT(shoal_await(busy, NULL), 0);
    shoal_signal_unsubscribe(&signal);
    return 0;
}

static void signal_that_comes_while_cores_are_busy_is_told(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, signal_while_busy, NULL), 0);
}

/* ---- A storm, while subscriptions come and go on two cores ---- */

#define STORM_ROUNDS (200 / SHOAL_TEST_SLOWDOWN)

static atomic_bool storm_over;

static void *storm(void *arg)
{
    (void)arg;
    while (!atomic_load(&storm_over)) {
        kill(getpid(), SIGUSR1);
        usleep(20);
    }
    return NULL;
}

static int come_and_go(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (int i = 0; i < STORM_ROUNDS; i++) {
        struct shoal_signal signal;
        SHOAL_EXPECT_INT(shoal_signal_subscribe(&signal, SIGUSR1), 0);
        SHOAL_EXPECT(shoal_signal_next(&signal, LONG_NS) > 0);
        shoal_signal_unsubscribe(&signal);
    }
    return 0;
}

static int weather_a_storm(void *arg)
{
    (void)arg;
    pthread_t thread;
    signal(SIGUSR1, SIG_IGN);
    atomic_store(&storm_over, false);
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, storm, NULL), 0);
    struct shoal_future *other = shoal_submit_fiber_to(1, come_and_go, NULL);
    SHOAL_EXPECT_INT(come_and_go(NULL, NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    if (arg == NULL) {
        atomic_store(&storm_over, true);
        pthread_join(thread, NULL);
    } else {
        pthread_detach(thread); /* it goes on while the cores end */
    }
    return 0;
}

static void signal_storm_while_subscriptions_come_and_go(void **state)
{
    static char go_on;
    (void)state;
    assert_int_equal(shoal_test_run(2, weather_a_storm, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(shoal_test_run(2, weather_a_storm, &go_on), 0);
        atomic_store(&storm_over, true);
        usleep(2000);
    }
    signal(SIGUSR1, SIG_DFL);
}

/* ---- Misuse ---- */

static struct shoal_signal shared;

static int wait_shared(void *arg)
{
    (void)arg;
    return shoal_signal_next(&shared, LONG_NS);
}

static int unsubscribe_under_a_fiber(void *arg)
{
    (void)arg;
    (void)shoal_signal_subscribe(&shared, SIGUSR1);
    (void)shoal_fiber_spawn_detached(wait_shared, NULL, "waiter");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_signal_unsubscribe(&shared);
    return 0;
}

static int unsubscribe_twice(void *arg)
{
    (void)arg;
    (void)shoal_signal_subscribe(&shared, SIGUSR1);
    shoal_signal_unsubscribe(&shared);
    shoal_signal_unsubscribe(&shared);
    return 0;
}

static void signal_misuse_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, unsubscribe_under_a_fiber,
                                 "signal 10 is unsubscribed while a fiber waits for it");
    shoal_test_fiber_aborts_with(1, unsubscribe_twice, "signal 10, which is not subscribed to");
}

#ifdef SHOAL_DEBUG
static int wait_shared_elsewhere(void *arg, union shoal_value *out)
{
    (void)out;
    return wait_shared(arg);
}

static int wait_on_another_core(void *arg)
{
    (void)arg;
    (void)shoal_signal_subscribe(&shared, SIGUSR1);
    return shoal_await(shoal_submit_fiber_to(1, wait_shared_elsewhere, NULL), NULL);
}

static void signal_of_another_core_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(2, wait_on_another_core, "wait of signal 10 of core 0 on core 1");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signal_wait_returns_when_it_comes),
        cmocka_unit_test(signal_wait_ends_by_timeout_or_cancel),
        cmocka_unit_test(signal_that_cannot_be_had_is_refused),
        cmocka_unit_test(signal_subscription_counts_what_nobody_waits_for),
        cmocka_unit_test(signal_subscription_counts_each_delivery),
        cmocka_unit_test(signal_subscriptions_all_get_it),
        cmocka_unit_test(signal_reaches_every_core_that_subscribed),
        cmocka_unit_test(signal_futures_resolve_and_cancel),
        cmocka_unit_test(signal_without_subscription_keeps_its_default),
        cmocka_unit_test(signal_handler_of_the_program_returns_at_the_end),
        cmocka_unit_test(signal_that_is_blocked_is_unblocked_while_subscribed),
        cmocka_unit_test(signal_terminate_is_told_and_stops_the_program),
        cmocka_unit_test(signal_that_comes_while_cores_are_busy_is_told),
        cmocka_unit_test(signal_storm_while_subscriptions_come_and_go),
        cmocka_unit_test(signal_misuse_aborts),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(signal_of_another_core_aborts),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
