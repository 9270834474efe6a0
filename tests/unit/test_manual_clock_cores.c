/*
 * The manual clock of test runs, beyond one core: several cores share one time, messages, I/O and
 * helper threads come before what is due; cancelling, the end of a run, and wrong use.
 */
/* backends: both */
#include <stdatomic.h>

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/io.h"

#include "shoal/smp/app.h"
#include "shoal/smp/launch_impl.h"
#include "shoal/smp/submit.h"
#include "shoal/smp/test_impl.h"

#include "unit/clock_check.h"

/* ---- Several cores ---- */

#define CORES 3

static atomic_uint journal_len;
static uint64_t journal_ns[256];

static void write_journal(void)
{
    unsigned at = atomic_fetch_add(&journal_len, 1);
    journal_ns[at % 256] = shoal_now_ns();
}

static int write_journal_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    write_journal();
    return 0;
}

/* Sleeps 20 times, and each time has the next core write as well. */
static int sleep_and_tell(void *arg, union shoal_value *out)
{
    const uint64_t nap_ns = (uint64_t)(uintptr_t)arg;
    const unsigned other = ((unsigned)shoal_core_id() + 1) % CORES;
    (void)out;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t until_ns = shoal_now_ns() + nap_ns;
        SHOAL_EXPECT_INT(shoal_sleep_ns(nap_ns), 0);
        SHOAL_EXPECT_INT(shoal_now_ns(), until_ns);
        write_journal();
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(other, write_journal_there, NULL), NULL), 0);
        SHOAL_EXPECT_INT(shoal_now_ns(), until_ns); /* no moment passes under way */
    }
    return 0;
}

static void check_journal(unsigned len)
{
    SHOAL_EXPECT_INT(atomic_load(&journal_len), len);
    for (unsigned i = 1; i < len; i++)
        SHOAL_EXPECT(journal_ns[i - 1] <= journal_ns[i]);
}

static int all_cores_share_one_time_fn(void *arg)
{
    (void)arg;
    struct shoal_future *done[CORES];
    atomic_store(&journal_len, 0);
    for (uintptr_t i = 0; i < CORES; i++)
        done[i] = shoal_submit_fiber_to((unsigned)i, sleep_and_tell, (void *)(1000 + 3 * i));
    SHOAL_EXPECT_INT(shoal_test_clock_advance(20 * 1000), 0);
    SHOAL_EXPECT(!shoal_future_is_pending(done[0]));
    SHOAL_EXPECT(shoal_future_is_pending(done[1]));
    SHOAL_EXPECT_INT(shoal_test_clock_advance(20 * 6), 0);
    for (unsigned i = 0; i < CORES; i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
    check_journal(20 * 2 * CORES);
    return 0;
}
CLOCK_TEST(all_cores_share_one_time, CORES, MANUAL)

static int all_cores_move_by_themselves_fn(void *arg)
{
    (void)arg;
    struct shoal_future *done[CORES];
    uint64_t start_ns = shoal_now_ns();
    atomic_store(&journal_len, 0);
    for (uintptr_t i = 0; i < CORES; i++)
        done[i] = shoal_submit_fiber_to((unsigned)i, sleep_and_tell, (void *)(HOUR_NS + 3 * i));
    for (unsigned i = 0; i < CORES; i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + 20 * (HOUR_NS + 6));
    check_journal(20 * 2 * CORES);
    return 0;
}
CLOCK_TEST(all_cores_move_by_themselves, CORES, AUTO)

static int move_from_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_EXPECT_INT(shoal_core_id(), 1);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(5000), 0);
    SHOAL_EXPECT_INT(shoal_test_clock_advance_to_next(), 0);
    return 0;
}

static int any_core_moves_the_time_fn(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    struct noting_timer timers[2] = {{.fired_ns = 0}, {.fired_ns = 0}};
    for (unsigned i = 0; i < 2; i++) {
        shoal_timer_init(&timers[i].timer, note_firing);
        shoal_timer_arm(&timers[i].timer, 4000 + 2000 * (uint64_t)i);
    }
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(1, move_from_there, NULL), NULL), 0);
    SHOAL_EXPECT_INT(timers[0].fired_ns, start_ns + 4000);
    SHOAL_EXPECT_INT(timers[1].fired_ns, start_ns + 6000);
    return 0;
}
CLOCK_TEST(any_core_moves_the_time, 2, MANUAL)

/* ---- The world outside ---- */

static int pipe_ends[2];

static void *write_later(void *arg)
{
    usleep(20000);
    SHOAL_EXPECT_INT(write(pipe_ends[1], "x", 1), 1);
    return arg;
}

/* A core that nobody wakes by a timer still wakes for I/O. */
static int io_wakes_a_core_whose_time_stands_fn(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    pthread_t thread;
    SHOAL_EXPECT_INT(pipe(pipe_ends), 0);
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, write_later, NULL), 0);
    SHOAL_EXPECT(shoal_poll_fd(pipe_ends[0], POLLIN) >= 0);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    pthread_join(thread, NULL);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}
CLOCK_TEST(io_wakes_a_core_whose_time_stands, 2, MANUAL)

/* What has been written must be read before time goes on, whoever writes and whoever reads. */
static int echo(void *arg)
{
    const int fd = (int)(intptr_t)arg;
    char byte;
    while (shoal_poll_fd(fd, POLLIN) >= 0 && read(fd, &byte, 1) == 1)
        SHOAL_EXPECT_INT(write(fd, &byte, 1), 1);
    return 0;
}

static int echo_there(void *arg, union shoal_value *out)
{
    (void)out;
    return echo(arg);
}

static void ping_pong(unsigned core)
{
    int ends[2];
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    struct shoal_future *done = shoal_submit_fiber_to(core, echo_there, (void *)(intptr_t)ends[1]);
    struct noting_timer deadline = {.fired_ns = 0};
    shoal_timer_init(&deadline.timer, note_firing);
    for (unsigned i = 0; i < 20; i++) {
        char byte = 0;
        shoal_timer_arm(&deadline.timer, 10);
        SHOAL_EXPECT_INT(write(ends[0], "p", 1), 1);
        SHOAL_EXPECT(shoal_poll_fd(ends[0], POLLIN) >= 0);
        SHOAL_EXPECT_INT(read(ends[0], &byte, 1), 1);
        SHOAL_EXPECT(shoal_timer_cancel(&deadline.timer));
    }
    SHOAL_EXPECT_INT(deadline.fired_ns, 0);
    close(ends[0]);
    SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    close(ends[1]);
}

static int what_is_ready_comes_before_what_is_due_fn(void *arg)
{
    (void)arg;
    ping_pong(0);
    ping_pong(1);
    return 0;
}
CLOCK_TEST(what_is_ready_comes_before_what_is_due, 2, AUTO)

static int block_a_while(void *arg)
{
    (void)arg;
    usleep(20000);
    return 12;
}

static int helpers_are_waited_for_fn(void *arg)
{
    (void)arg;
    struct noting_timer noting = {.fired_ns = 0};
    shoal_timer_init(&noting.timer, note_firing);
    for (unsigned i = 0; i < 3; i++) {
        shoal_timer_arm(&noting.timer, 1);
        SHOAL_EXPECT_INT(shoal_blocking_call(block_a_while, NULL), 12);
        SHOAL_EXPECT_INT(noting.fired_ns, 0);
        SHOAL_EXPECT(shoal_timer_cancel(&noting.timer));
    }
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), 0);
    return 0;
}
CLOCK_TEST(helpers_are_waited_for, 1, AUTO)

static int sleep_for_hours_takes_no_time_fn(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t start_ns = shoal_now_ns();
        SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS + i), 0);
        SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + HOUR_NS + i);
    }
    return 0;
}
CLOCK_TEST(sleep_for_hours_takes_no_time, 1, AUTO)

static int advance_on_a_clock_that_moves_by_itself_fn(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    struct noting_timer timers[2] = {{.fired_ns = 0}, {.fired_ns = 0}};
    for (unsigned i = 0; i < 2; i++) {
        shoal_timer_init(&timers[i].timer, note_firing);
        shoal_timer_arm(&timers[i].timer, 1000 + 1000 * (uint64_t)i);
    }
    SHOAL_EXPECT_INT(shoal_test_clock_advance(1500), 0);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + 1500);
    SHOAL_EXPECT(timers[0].fired_ns != 0 && timers[1].fired_ns == 0);
    (void)shoal_timer_cancel(&timers[1].timer);
    return 0;
}
CLOCK_TEST(advance_on_a_clock_that_moves_by_itself, 1, AUTO)

/* ---- Cancelling, and the end ---- */

static int advance_until_cancelled(void *arg)
{
    *(int *)arg = shoal_test_clock_advance(SHOAL_NS_PER_S);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(1), -ECANCELED); /* each wait from then on */
    return 0;
}

static int cancelled_advance_leaves_time_alone_fn(void *arg)
{
    (void)arg;
    int result = 1;
    uint64_t start_ns = shoal_now_ns();
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, advance_until_cancelled, &result, "advancer"), 0);
    for (unsigned i = 0; i < 5; i++)
        (void)shoal_yield(); /* something runs, so there is no rest yet */
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(result, -ECANCELED);
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(10), 0); /* and is free again */
    SHOAL_EXPECT_INT(shoal_now_ns(), start_ns + 10);
    return 0;
}
CLOCK_TEST(cancelled_advance_leaves_time_alone, 2, MANUAL)

static int hooks_run;

static void sleep_at_stop(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    hooks_run++;
}

static int leave_sleeper(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(400 * HOUR_NS), -ECANCELED);
    hooks_run++;
    return 0;
}

static int leave_sleeper_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_fiber_spawn_detached(leave_sleeper, NULL, "sleeper");
}

static struct shoal_future *nap_over;

static void await_nap_at_stop(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_await(nap_over, NULL), 0);
    hooks_run++;
}

static int nap_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_sleep_ns(SHOAL_NS_PER_MS);
}

/* Core 1 has fallen asleep without an end when time begins to pass: it must hear of that. */
static int what_sleeps_wakes_once_the_test_is_over_fn(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_at_stop(await_nap_at_stop, NULL), 0);
    nap_over = shoal_submit_fiber_to(1, nap_there, NULL);
    SHOAL_EXPECT_INT(shoal_test_clock_settle(), 0);
    SHOAL_EXPECT(shoal_future_is_pending(nap_over));
    return 0;
}
CLOCK_TEST(what_sleeps_wakes_once_the_test_is_over, 2, MANUAL)

static int time_passes_once_the_test_is_over_fn(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_at_stop(sleep_at_stop, NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, leave_sleeper_there, NULL), NULL), 0);
    return shoal_test_clock_settle();
}

static void time_passes_once_the_test_is_over(void **state)
{
    (void)state;
    hooks_run = 0;
    run_on(2, SHOAL_TEST_CLOCK_MANUAL, time_passes_once_the_test_is_over_fn);
    assert_int_equal(hooks_run, 2);
    run_on(2, SHOAL_TEST_CLOCK_AUTO, time_passes_once_the_test_is_over_fn);
    assert_int_equal(hooks_run, 4);
}

/* ---- Wrong use ---- */

static int advance_anyway(void *arg)
{
    (void)arg;
    return shoal_test_clock_advance(1);
}

static int advance_outside_a_run(void *arg)
{
    (void)arg;
    return shoal_test_clock_advance(1);
}

static int advance_twice_fn(void *arg)
{
    struct shoal_fiber *fiber;
    (void)shoal_fiber_spawn(&fiber, advance_anyway, arg, "second");
    return shoal_test_clock_advance(1);
}

static int run_advance_twice(void *arg)
{
    const struct shoal_test_options options = {.clock = SHOAL_TEST_CLOCK_MANUAL};
    return shoal_test_run_options(&options, advance_twice_fn, arg);
}

static void wrong_use_of_the_clock_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, advance_anyway, "manual clock");
    shoal_test_aborts_with(advance_outside_a_run, NULL, "on a fiber");
    shoal_test_aborts_with(run_advance_twice, NULL, "one fiber at a time");
}

static void set_flag(struct shoal_timer *timer)
{
    (void)timer;
}

static void *wake_main(void *arg)
{
    for (unsigned i = 0; i < 2; i++) {
        usleep(50000);
        SHOAL_EXPECT_INT(write(pipe_ends[1], "x", 1), 1);
    }
    return arg;
}

/* Nobody moves the time: a word about it, once, after a (shortened) while. */
static int forget_to_advance(void *arg)
{
    (void)arg;
    struct shoal_timer timer;
    pthread_t thread;
    shoal_launch_current->test_time->stuck_ns = SHOAL_NS_PER_MS;
    shoal_timer_init(&timer, set_flag);
    shoal_timer_arm(&timer, 777);
    SHOAL_EXPECT_INT(pipe(pipe_ends), 0);
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, wake_main, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        char byte;
        SHOAL_EXPECT(shoal_poll_fd(pipe_ends[0], POLLIN) >= 0);
        SHOAL_EXPECT_INT(read(pipe_ends[0], &byte, 1), 1);
    }
    pthread_join(thread, NULL);
    (void)shoal_timer_cancel(&timer);
    return 4;
}

static int run_forget_to_advance(void *arg)
{
    const struct shoal_test_options options = {.cores = 2, .clock = SHOAL_TEST_CLOCK_MANUAL};
    return shoal_test_run_options(&options, forget_to_advance, arg);
}

static void time_that_nobody_moves_is_told(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_forget_to_advance, NULL);
    assert_int_equal(child.exit_code, 4);
    const char *said = strstr(child.text, "stands still, 777 ns before the next timer");
    assert_non_null(said);
    assert_null(strstr(said + 1, "stands still"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_cores_share_one_time),
        cmocka_unit_test(all_cores_move_by_themselves),
        cmocka_unit_test(any_core_moves_the_time),
        cmocka_unit_test(io_wakes_a_core_whose_time_stands),
        cmocka_unit_test(what_is_ready_comes_before_what_is_due),
        cmocka_unit_test(helpers_are_waited_for),
        cmocka_unit_test(sleep_for_hours_takes_no_time),
        cmocka_unit_test(advance_on_a_clock_that_moves_by_itself),
        cmocka_unit_test(cancelled_advance_leaves_time_alone),
        cmocka_unit_test(what_sleeps_wakes_once_the_test_is_over),
        cmocka_unit_test(time_passes_once_the_test_is_over),
        cmocka_unit_test(wrong_use_of_the_clock_aborts),
        cmocka_unit_test(time_that_nobody_moves_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
