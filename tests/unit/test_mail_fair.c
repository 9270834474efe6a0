/*
 * Messages where something else wants the core as well: timers, tasks, I/O and other messages. No
 * case measures time: what must not starve is waited for while the flood goes on until it has come,
 * or counted in calls.
 */
/* backends: both */
#include <stdatomic.h>

#include <fcntl.h>
#include <poll.h>

#include "shoal/runtime/io.h"

#include "unit/mail_check.h"

/* ---- Timers of a core that runs nothing but plain calls ---- */

static struct shoal_timer lone_timer;
static atomic_bool timer_fired;

static void on_timer(struct shoal_timer *timer)
{
    (void)timer;
    atomic_store(&timer_fired, true);
}

static int arm_timer(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_timer_init(&lone_timer, on_timer);
    shoal_timer_arm(&lone_timer, SHOAL_NS_PER_MS);
    return 0;
}

static int timer_of_a_plain_call(void *arg)
{
    (void)arg;
    atomic_store(&timer_fired, false);
    (void)shoal_sleep_ns(5 * SHOAL_NS_PER_MS); /* core 1 looks for messages by now, or sleeps */
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, arm_timer, NULL), NULL), 0);
    while (!atomic_load(&timer_fired))
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static int timer_in_a_flood_of_plain_calls(void *arg)
{
    (void)arg;
    atomic_store(&timer_fired, false);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, arm_timer, NULL), NULL), 0);
    while (!atomic_load(&timer_fired))
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_nothing, NULL), NULL), 0);
    return 0;
}

static void mail_timer_armed_by_a_plain_call_fires(void **state)
{
    (void)state;
    mail_run_with(2, mail_polling, timer_of_a_plain_call);
    mail_run_with(2, mail_sleepy, timer_of_a_plain_call);
    mail_run_with(2, mail_spinning, timer_in_a_flood_of_plain_calls);
    mail_run_with(2, mail_polling, timer_in_a_flood_of_plain_calls);
}

/* ---- The deadline of a future call, on a core that runs nothing else ---- */

static void cancel_it(void *ctx)
{
    shoal_future_fail(ctx, -ECANCELED, NULL);
}

static struct shoal_future *never(void *arg)
{
    (void)arg;
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_cancel(future, cancel_it, future);
    return future;
}

static int timeout_of_a_future_call(void *arg)
{
    (void)arg;
    struct shoal_submit call = {.future_fn = never, .timeout_ns = 3 * SHOAL_NS_PER_MS};
    (void)shoal_sleep_ns(5 * SHOAL_NS_PER_MS);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), -ETIMEDOUT);
    return 0;
}

static void mail_timeout_reaches_a_core_that_polls(void **state)
{
    (void)state;
    mail_run_with(2, mail_polling, timeout_of_a_future_call);
    mail_run_with(2, mail_sleepy, timeout_of_a_future_call);
}

/* ---- A flood of messages leaves room for tasks, timers and I/O ---- */

static atomic_bool flood_over;
static atomic_uint flood_calls;

static int short_call(void *arg, union shoal_value *out)
{
    (void)out;
    if (arg != NULL)
        mail_burn(200000);
    atomic_fetch_add(&flood_calls, 1);
    return 0;
}

#define FLOOD_WINDOW 128

/* Keeps the window to core 0 full until the other work is done. */
static int flood_core_0(void *arg, union shoal_value *out)
{
    struct shoal_future *future[FLOOD_WINDOW];
    (void)out;
    for (unsigned i = 0; i < FLOOD_WINDOW; i++)
        future[i] = shoal_submit_to(0, short_call, arg);
    for (unsigned i = 0; !atomic_load(&flood_over); i = (i + 1) % FLOOD_WINDOW) {
        SHOAL_EXPECT_INT(shoal_await(future[i], NULL), 0);
        future[i] = shoal_submit_to(0, short_call, arg);
    }
    for (unsigned i = 0; i < FLOOD_WINDOW; i++)
        SHOAL_EXPECT_INT(shoal_await(future[i], NULL), 0);
    return 0;
}

static int write_later(void *arg)
{
    const int *fd = arg;
    for (char i = 1; i <= 20; i++) {
        (void)shoal_sleep_ns(50000);
        SHOAL_EXPECT_INT(write(*fd, &i, 1), 1);
    }
    return 0;
}

/* Readiness of a descriptor reaches the core in the flood. */
static void through_a_pipe(void)
{
    int fd[2];
    struct shoal_fiber *writer;
    if (!SHOAL_EXPECT_INT(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0))
        return;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&writer, write_later, &fd[1], "writer"), 0);
    for (char i = 1; i <= 20; i++) {
        char byte = 0;
        SHOAL_EXPECT(shoal_poll_fd(fd[0], POLLIN) > 0);
        SHOAL_EXPECT_INT(read(fd[0], &byte, 1), 1);
        SHOAL_EXPECT_INT(byte, i);
    }
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), 0);
    close(fd[0]);
    close(fd[1]);
}

static int work_in_a_flood(void *call_arg)
{
    unsigned cores = shoal_core_count();
    struct shoal_future *done[MAIL_CORES_MAX] = {NULL};
    atomic_store(&flood_over, false);
    for (unsigned i = 1; i < cores; i++)
        done[i] = shoal_submit_fiber_to(i, flood_core_0, call_arg);
    for (int i = 0; i < 200; i++)
        (void)shoal_yield();
    for (int i = 0; i < 10; i++)
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    through_a_pipe();
    atomic_store(&flood_over, true);
    for (unsigned i = 1; i < cores; i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
    return 0;
}

static int work_in_a_flood_of_short_calls(void *arg)
{
    (void)arg;
    return work_in_a_flood(NULL);
}

static int work_in_a_flood_of_long_calls(void *arg)
{
    (void)arg;
    return work_in_a_flood((void *)1);
}

static void mail_flood_leaves_room_for_tasks_timers_and_io(void **state)
{
    (void)state;
    mail_run_with(3, mail_sleepy, work_in_a_flood_of_short_calls);
    mail_run_with(3, mail_sleepy, work_in_a_flood_of_long_calls);
    mail_run_with(2, mail_spinning, work_in_a_flood_of_short_calls);
    mail_run_with(2, mail_spinning, work_in_a_flood_of_long_calls);
}

/* ---- Timers between long calls: counted in calls, not in time ---- */

#define LONG_CALL_NS 200000
#define LATE_MAX     20 /* calls that may run from the arming on; five take as long as the timer */

static struct late_timer {
    struct shoal_timer timer;
    unsigned calls;
    unsigned fired_after;
    bool armed;
} late;

static void on_late_timer(struct shoal_timer *timer)
{
    (void)timer;
    late.fired_after = late.calls;
}

static int long_call(void *arg, union shoal_value *out)
{
    (void)arg;
    mail_burn(LONG_CALL_NS);
    out->u64 = late.fired_after;
    if (!late.armed) {
        late = (struct late_timer){.armed = true};
        shoal_timer_init(&late.timer, on_late_timer);
        shoal_timer_arm(&late.timer, SHOAL_NS_PER_MS);
    }
    late.calls++;
    return 0;
}

/* Core 1 runs nothing but these calls, and there is always one more. */
static int timers_between_long_calls(void *arg)
{
    (void)arg;
    for (int trial = 0; trial < 6; trial++) {
        struct shoal_future *future[8];
        union shoal_value value = {.u64 = 0};
        late.armed = false;
        late.fired_after = 0;
        for (unsigned i = 0; i < 8; i++)
            future[i] = shoal_submit_to(1, long_call, NULL);
        for (unsigned i = 0; i < 100 && value.u64 == 0; i++) {
            SHOAL_EXPECT_INT(shoal_await(future[i % 8], &value), 0);
            future[i % 8] = shoal_submit_to(1, long_call, NULL);
        }
        for (unsigned i = 0; i < 8; i++)
            SHOAL_EXPECT_INT(shoal_await(future[i], NULL), 0);
        SHOAL_EXPECT(late.fired_after > 0 && late.fired_after <= LATE_MAX);
        if (late.fired_after > LATE_MAX)
            fprintf(stderr, "the timer fired after %u calls\n", late.fired_after);
    }
    return 0;
}

static void mail_timer_fires_between_long_calls(void **state)
{
    (void)state;
    mail_run_with(2, mail_spinning, timers_between_long_calls);
}

/* ---- Endless tasks leave room for messages, from every core ---- */

static int ask_core_1(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (int i = 0; i < 200 / SHOAL_TEST_SLOWDOWN; i++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_nothing, NULL), NULL), 0);
    return 0;
}

static int messages_among_tasks(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_begin_endless, NULL), NULL), 0);
    struct shoal_future *other = shoal_submit_fiber_to(2, ask_core_1, NULL);
    (void)ask_core_1(NULL, NULL);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_end_endless, NULL), NULL), 0);
    return 0;
}

static void mail_endless_tasks_leave_room_for_messages(void **state)
{
    (void)state;
    mail_run_with(3, mail_sleepy, messages_among_tasks);
    mail_run_with(3, mail_spinning, messages_among_tasks);
}

/* ---- A sleeping core hears of a message at once, whatever the sender does next ---- */

static atomic_bool heard;

static int hear(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_store(&heard, true);
    return 0;
}

static int send_and_go_on(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++) {
        (void)shoal_await(shoal_submit_to(1, mail_nothing, NULL), NULL);
        (void)shoal_sleep_ns(20 * SHOAL_NS_PER_MS); /* core 1 sleeps, and watches no ring */
        atomic_store(&heard, false);
        struct shoal_future *future = shoal_submit_to(1, hear, NULL);
        while (!atomic_load(&heard)) /* without a look at messages */
            ;
        SHOAL_EXPECT_INT(shoal_await(future, NULL), 0);
    }
    return 0;
}

static void mail_message_to_a_sleeping_core_waits_for_no_look(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, send_and_go_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_timer_armed_by_a_plain_call_fires),
        cmocka_unit_test(mail_timeout_reaches_a_core_that_polls),
        cmocka_unit_test(mail_flood_leaves_room_for_tasks_timers_and_io),
        cmocka_unit_test(mail_timer_fires_between_long_calls),
        cmocka_unit_test(mail_endless_tasks_leave_room_for_messages),
        cmocka_unit_test(mail_message_to_a_sleeping_core_waits_for_no_look),
    };
    mail_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
