/*
 * Pipes of children, with back-pressure and without deadlock, and programs run to their end.
 */
/* backends: both */
#include <signal.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#if __has_include(<seccomp.h>)
#include <seccomp.h>
#define WITH_SECCOMP 1
#endif

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/process.h"

#include "unit/process_check.h"

#define LARGE_BYTES ((size_t)(10 << 20))

static char *make_large(void)
{
    char *data = malloc(LARGE_BYTES);
    uint64_t seed = 88172645463325252u;
    for (size_t i = 0; i < LARGE_BYTES; i += 8) {
        uint64_t random = shoal_test_random(&seed);
        memcpy(data + i, &random, 8);
    }
    return data;
}

static struct shoal_process *start_cat(void)
{
    return start(&(struct shoal_process_how){.argv = (const char *const[]){"cat", NULL},
                                             .in = {SHOAL_PROCESS_PIPE, 0},
                                             .out = {SHOAL_PROCESS_PIPE, 0}});
}

/* ---- Pipes ---- */

struct feeder {
    struct shoal_process_pipe *pipe;
    const char *data;
    size_t written;
};

static int feed_large(void *arg)
{
    struct feeder *feeder = arg;
    int rc = shoal_process_pipe_write(feeder->pipe, feeder->data, LARGE_BYTES, &feeder->written);
    shoal_process_pipe_close(feeder->pipe);
    return rc;
}

static int through_cat(void *arg)
{
    (void)arg;
    char *data = make_large();
    struct shoal_process *cat = start_cat();
    struct feeder feeder = {shoal_process_stdin(cat), data, 0};
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, feed_large, &feeder, "feeder"), 0);
    char part[30000];
    size_t at = 0;
    bool same = true;
    int rc;
    while ((rc = shoal_process_pipe_read(shoal_process_stdout(cat), part, sizeof(part))) > 0) {
        same = same && at + (size_t)rc <= LARGE_BYTES && memcmp(data + at, part, (size_t)rc) == 0;
        at += (size_t)rc;
    }
    SHOAL_EXPECT_INT(rc, 0);
    SHOAL_EXPECT_INT(at, LARGE_BYTES);
    SHOAL_EXPECT(same);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(feeder.written, LARGE_BYTES);
    SHOAL_EXPECT_INT(shoal_process_wait(cat, NULL, LONG_NS), 0);
    SHOAL_EXPECT_INT(shoal_process_pipe_read(feeder.pipe, part, 1), -EBADF); /* closed */
    SHOAL_EXPECT_INT(shoal_process_pipe_write(feeder.pipe, part, 1, NULL), -EBADF);
    shoal_process_pipe_close(feeder.pipe);
    shoal_process_free(cat);
    free(data);
    return 0;
}

static void pipe_carries_much_both_ways(void **state)
{
    (void)state;
    run_clean(1, through_cat, NULL);
}

/* Nobody reads: the write waits once the pipe is full, and nothing is buffered elsewhere. */
static int back_pressure(void *arg)
{
    (void)arg;
    char *data = make_large();
    struct shoal_process *process = start(&(struct shoal_process_how){
        .argv = (const char *const[]){"sleep", "60", NULL}, .in = {SHOAL_PROCESS_PIPE, 0}});
    struct feeder feeder = {shoal_process_stdin(process), data, 0};
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, feed_large, &feeder, "feeder"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(5 * SHOAL_NS_PER_MS), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT(feeder.written > 0 && feeder.written <= 65536);
    shoal_process_free(process);

    /* Nobody can read any more: an error, and no SIGPIPE that kills. */
    process = start(&(struct shoal_process_how){.argv = (const char *const[]){"true", NULL},
                                                .in = {SHOAL_PROCESS_PIPE, 0}});
    SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, LONG_NS), 0);
    size_t written = 1;
    SHOAL_EXPECT_INT(shoal_process_pipe_write(shoal_process_stdin(process), "x", 1, &written),
                     -EPIPE);
    SHOAL_EXPECT_INT(written, 0);
    shoal_process_free(process);

    /* It breaks while the write waits. */
    process = start(&(struct shoal_process_how){.argv = (const char *const[]){"sleep", "60", NULL},
                                                .in = {SHOAL_PROCESS_PIPE, 0}});
    feeder = (struct feeder){shoal_process_stdin(process), data, 0};
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, feed_large, &feeder, "feeder"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGKILL), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -EPIPE);
    SHOAL_EXPECT(feeder.written > 0 && feeder.written <= 65536);
    shoal_process_free(process);
    free(data);
    return 0;
}

static void pipe_write_waits_while_full_and_ends_when_broken(void **state)
{
    (void)state;
    run_clean(1, back_pressure, NULL);
}

static int read_byte(void *arg)
{
    char byte;
    return shoal_process_pipe_read(arg, &byte, 1);
}

static int cancel_reads(void *arg)
{
    (void)arg;
    struct shoal_process *cat = start_cat();
    struct shoal_fiber *fiber = NULL;
    char byte = 0;
    for (int rest = 0; rest < 3; rest++) {
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, read_byte, shoal_process_stdout(cat), "reader"),
                         0);
        for (int i = 0; i < rest; i++)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    /* None of those has taken anything. */
    SHOAL_EXPECT_INT(shoal_process_pipe_write(shoal_process_stdin(cat), "x", 1, NULL), 0);
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(cat), &byte, 1), 1);
    SHOAL_EXPECT_INT(byte, 'x');
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(cat), &byte, 0), 0);
    shoal_process_free(cat);
    return 0;
}

static void pipe_read_cancelled_takes_nothing(void **state)
{
    (void)state;
    run_clean(1, cancel_reads, NULL);
}

static int ticks;
static bool ticking;

static int tick(void *arg)
{
    (void)arg;
    while (ticking) {
        ticks++;
        SHOAL_EXPECT_INT(shoal_sleep_ns(100 * SHOAL_NS_PER_US), 0);
    }
    return 0;
}

/* A child that always has something must not keep the core from the others. */
static int read_zeros(void *arg)
{
    (void)arg;
    struct shoal_process *zeros = start(&(struct shoal_process_how){
        .argv = (const char *const[]){"cat", "/dev/zero", NULL}, .out = {SHOAL_PROCESS_PIPE, 0}});
    struct shoal_fiber *fiber = NULL;
    char part[16];
    ticks = 0;
    ticking = true;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, tick, NULL, "ticker"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(50 * SHOAL_NS_PER_MS), 0); /* the pipe is full then */
    int before = ticks;
    for (int i = 0; i < 4000; i++) /* not all that is in it: no read has to wait */
        SHOAL_EXPECT(shoal_process_pipe_read(shoal_process_stdout(zeros), part, sizeof(part)) > 0);
    SHOAL_EXPECT(ticks > before);
    ticking = false;
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    shoal_process_free(zeros);
    return 0;
}

static void pipe_that_is_always_ready_gives_way(void **state)
{
    (void)state;
    run_clean(1, read_zeros, NULL);
}

/* ---- Many ---- */

#define MANY 200

static int run_one_of_many(void *arg)
{
    int number = (int)(intptr_t)arg;
    char script[128];
    char expected[64];
    snprintf(script, sizeof(script), "read x; echo $x; exit %d", number % 200);
    snprintf(expected, sizeof(expected), "number %d\n", number);
    struct shoal_process_run_how run = {.input = expected, .input_bytes = strlen(expected)};
    struct shoal_process_result result;
    const char *const argv[] = {"sh", "-c", script, NULL};
    SHOAL_EXPECT_INT(shoal_process_run(&result, &(struct shoal_process_how){.argv = argv}, &run),
                     0);
    SHOAL_EXPECT_INT(result.status.exit_code, number % 200);
    SHOAL_EXPECT(result.out.data != NULL && strcmp(result.out.data, expected) == 0);
    shoal_process_result_free(&result);
    return 0;
}

static int run_many(void *arg)
{
    (void)arg;
    static struct shoal_fiber *fibers[MANY];
    for (int i = 0; i < MANY; i++)
        SHOAL_EXPECT_INT(
            shoal_fiber_spawn(&fibers[i], run_one_of_many, (void *)(intptr_t)i, "one of many"), 0);
    for (int i = 0; i < MANY; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT_INT(count_children(), 0);
    return 0;
}

static void run_of_many_at_once(void **state)
{
    (void)state;
    run_clean(2, run_many, NULL);
}

static int keep_many(void *arg)
{
    (void)arg;
    static struct shoal_process *processes[MANY];
    for (int i = 0; i < MANY; i++)
        processes[i] = start_sh("exec sleep 60", NULL);
    SHOAL_EXPECT_INT(count_children(), MANY);
    for (int i = 0; i < MANY; i++)
        if (i % 2 == 0)
            shoal_process_free(processes[i]);
        else
            SHOAL_EXPECT_INT(shoal_process_signal(processes[i], SIGTERM), 0);
    for (int i = 1; i < MANY; i += 2) {
        struct shoal_process_status status;
        SHOAL_EXPECT_INT(shoal_process_wait(processes[i], &status, LONG_NS), 0);
        SHOAL_EXPECT_INT(status.signal, SIGTERM);
        shoal_process_free(processes[i]);
    }
    while (count_children() > 0)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    return 0;
}

static void process_many_at_once_are_all_reaped(void **state)
{
    (void)state;
    run_clean(2, keep_many, NULL);
}

/* ---- Run ---- */

static int run_sh(struct shoal_process_result *result, const char *script,
                  const struct shoal_process_run_how *run)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    return shoal_process_run(result, &(struct shoal_process_how){.argv = argv}, run);
}

static int run_plain(void *arg)
{
    (void)arg;
    struct shoal_process_result result;
    SHOAL_EXPECT_INT(run_sh(&result, "echo out; echo err >&2; exit 3", NULL), 0);
    SHOAL_EXPECT_INT(result.status.exit_code, 3);
    SHOAL_EXPECT(strcmp(result.out.data, "out\n") == 0 && result.out.bytes == 4);
    SHOAL_EXPECT(strcmp(result.err.data, "err\n") == 0 && result.err.bytes == 4);
    SHOAL_EXPECT(!result.out.truncated && !result.err.truncated);
    shoal_process_result_free(&result);
    shoal_process_result_free(&result);

    SHOAL_EXPECT_INT(run_sh(&result, ":", NULL), 0); /* says nothing */
    SHOAL_EXPECT(result.out.data != NULL && result.out.bytes == 0 && result.out.data[0] == '\0');
    shoal_process_result_free(&result);

    const char *const argv[] = {"sh", "-c", "echo out; echo err >&2", NULL};
    struct shoal_process_how how = {
        .argv = argv, .out = {SHOAL_PROCESS_NULL, 0}, .err = {SHOAL_PROCESS_NULL, 0}};
    SHOAL_EXPECT_INT(shoal_process_run(&result, &how, NULL), 0);
    SHOAL_EXPECT(result.out.data == NULL && result.err.data == NULL);
    shoal_process_result_free(&result);
    how = (struct shoal_process_how){.argv = argv, .err = {SHOAL_PROCESS_STDOUT, 0}};
    SHOAL_EXPECT_INT(shoal_process_run(&result, &how, NULL), 0);
    SHOAL_EXPECT(strcmp(result.out.data, "out\nerr\n") == 0 && result.err.data == NULL);
    shoal_process_result_free(&result);

    const char *const nothing[] = {"/no/such/program", NULL};
    SHOAL_EXPECT_INT(shoal_process_run(&result, &(struct shoal_process_how){.argv = nothing}, NULL),
                     -ENOENT);
    SHOAL_EXPECT(strstr(shoal_error_message(), "cannot run \"/no/such/program\"") != NULL);
    shoal_process_result_free(&result);
    return 0;
}

static void run_captures_both_outputs(void **state)
{
    (void)state;
    run_clean(1, run_plain, NULL);
}

static int run_large(void *arg)
{
    (void)arg;
    char *data = make_large();
    struct shoal_process_result result;
    struct shoal_process_run_how run = {.input = data,
                                        .input_bytes = LARGE_BYTES,
                                        .out_bytes_max = LARGE_BYTES,
                                        .err_bytes_max = LARGE_BYTES};
    SHOAL_EXPECT_INT(run_sh(&result, "tee /dev/stderr", &run), 0);
    SHOAL_EXPECT_INT(result.out.bytes, LARGE_BYTES);
    SHOAL_EXPECT_INT(result.err.bytes, LARGE_BYTES);
    SHOAL_EXPECT(memcmp(result.out.data, data, LARGE_BYTES) == 0);
    SHOAL_EXPECT(memcmp(result.err.data, data, LARGE_BYTES) == 0);
    SHOAL_EXPECT_INT(result.out.data[LARGE_BYTES], 0);
    shoal_process_result_free(&result);
    /* It reads nothing of its input, or only a part. */
    SHOAL_EXPECT_INT(run_sh(&result, "exit 5", &run), 0);
    SHOAL_EXPECT_INT(result.status.exit_code, 5);
    shoal_process_result_free(&result);
    SHOAL_EXPECT_INT(run_sh(&result, "head -c 100000 | wc -c", &run), 0);
    SHOAL_EXPECT(strcmp(result.out.data, "100000\n") == 0);
    shoal_process_result_free(&result);
    free(data);
    return 0;
}

static void run_feeds_and_captures_much_without_deadlock(void **state)
{
    (void)state;
    run_clean(1, run_large, NULL);
}

static int run_limited(void *arg)
{
    (void)arg;
    struct shoal_process_result result;
    struct shoal_process_run_how run = {.out_bytes_max = 5, .err_bytes_max = 3};
    SHOAL_EXPECT_INT(run_sh(&result, "printf 12345; printf abc >&2", &run), 0); /* just fits */
    SHOAL_EXPECT(strcmp(result.out.data, "12345") == 0 && strcmp(result.err.data, "abc") == 0);
    SHOAL_EXPECT(!result.out.truncated && !result.err.truncated);
    shoal_process_result_free(&result);

    SHOAL_EXPECT_INT(run_sh(&result, "printf 123456; sleep 60", &run), -EMSGSIZE);
    SHOAL_EXPECT(strstr(shoal_error_message(), "output of \"sh\" is over 5 bytes") != NULL);
    SHOAL_EXPECT(strcmp(result.out.data, "12345") == 0);
    SHOAL_EXPECT_INT(result.status.signal, SIGKILL);
    shoal_process_result_free(&result);
    SHOAL_EXPECT_INT(run_sh(&result, "printf abcd >&2; sleep 60", &run), -EMSGSIZE);
    SHOAL_EXPECT(strstr(shoal_error_message(), "error output of \"sh\" is over 3 bytes") != NULL);
    shoal_process_result_free(&result);

    run.truncate = true;
    SHOAL_EXPECT_INT(
        run_sh(&result, "head -c 1000000 /dev/zero | tr '\\0' x; printf abcd >&2; exit 4", &run),
        0);
    SHOAL_EXPECT_INT(result.status.exit_code, 4); /* it ran to its own end */
    SHOAL_EXPECT(strcmp(result.out.data, "xxxxx") == 0 && result.out.truncated);
    SHOAL_EXPECT(strcmp(result.err.data, "abc") == 0 && result.err.truncated);
    shoal_process_result_free(&result);

    SHOAL_EXPECT_INT(run_sh(&result, "head -c 1048577 /dev/zero", NULL), -EMSGSIZE); /* default */
    SHOAL_EXPECT_INT(result.out.bytes, 1048576);
    shoal_process_result_free(&result);
    run = (struct shoal_process_run_how){.out_bytes_max = UINT64_MAX};
    SHOAL_EXPECT_INT(run_sh(&result, "head -c 2000000 /dev/zero", &run), 0);
    SHOAL_EXPECT_INT(result.out.bytes, 2000000);
    shoal_process_result_free(&result);
    return 0;
}

static void run_over_a_limit_fails_or_truncates(void **state)
{
    (void)state;
    run_clean(1, run_limited, NULL);
}

static int run_sleeper(void *arg)
{
    struct shoal_process_result result;
    int rc = run_sh(&result, arg, NULL);
    SHOAL_EXPECT(rc >= 0 || result.status.signal == SIGKILL || result.out.data == NULL);
    shoal_process_result_free(&result);
    return rc;
}

static int run_ended_early(void *arg)
{
    (void)arg;
    /* The second is over at once, but its grandchild keeps the output open. */
    static char *const scripts[] = {"exec sleep 60", "sleep 60 & exit 0"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(scripts); i++) {
        struct shoal_process_result result;
        struct shoal_process_run_how run = {.timeout_ns = 50 * SHOAL_NS_PER_MS};
        SHOAL_EXPECT_INT(run_sh(&result, scripts[i], &run), -ETIMEDOUT);
        SHOAL_EXPECT_INT(result.status.signal, i == 0 ? SIGKILL : 0);
        shoal_process_result_free(&result);
    }
    /* Without its outputs nobody but the child itself is waited for. */
    const char *const argv[] = {"sleep", "60", NULL};
    struct shoal_process_how how = {
        .argv = argv, .out = {SHOAL_PROCESS_NULL, 0}, .err = {SHOAL_PROCESS_NULL, 0}};
    struct shoal_process_result result;
    SHOAL_EXPECT_INT(
        shoal_process_run(&result, &how,
                          &(struct shoal_process_run_how){.timeout_ns = 5 * SHOAL_NS_PER_MS}),
        -ETIMEDOUT);
    SHOAL_EXPECT_INT(result.status.signal, SIGKILL);
    shoal_process_result_free(&result);
    for (int rest = 0; rest < 3; rest++) {
        struct shoal_fiber *fiber = NULL;
        SHOAL_EXPECT_INT(
            shoal_fiber_spawn(&fiber, run_sleeper, (void *)(uintptr_t)scripts[0], "runner"), 0);
        if (rest > 0)
            SHOAL_EXPECT_INT(shoal_sleep_ns(rest == 1 ? 0 : 20 * SHOAL_NS_PER_MS), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    SHOAL_EXPECT_INT(count_children(), 0);
    return 0;
}

static void run_timed_out_or_cancelled_kills_the_child(void **state)
{
    (void)state;
    run_clean(1, run_ended_early, NULL);
}

static int leave_a_run(void *arg)
{
    return shoal_fiber_spawn_detached(run_sleeper, arg, "runner") != 0 ||
           shoal_sleep_ns(10 * SHOAL_NS_PER_MS) != 0;
}

static void run_under_way_when_the_program_stops_is_ended(void **state)
{
    static char script[] = "exec sleep 60";
    (void)state;
    run_clean(1, leave_a_run, script);
}

/* ---- Older kernels ---- */

#ifdef WITH_SECCOMP
static int without_close_range(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        (void)open("/dev/null", O_RDONLY);
    const struct shoal_process_fd fds[] = {{0, 7}};
    expect_sh("exec ls -1v /proc/self/fd", "0\n1\n2\n3\n7\n",
              &(struct shoal_process_how){.fds = fds, .fd_count = 1});
    return 0;
}

static int run_filtered(void *arg)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    (void)arg;
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(close_range), 0) != 0 ||
        seccomp_load(filter) != 0)
        return 1;
    return shoal_test_run(1, without_close_range, NULL);
}

static void process_descriptors_are_closed_without_close_range_too(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_filtered, NULL);
    if (child.exit_code != 0)
        fail_msg("exit code %d: %s", child.exit_code, child.text);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipe_carries_much_both_ways),
        cmocka_unit_test(pipe_write_waits_while_full_and_ends_when_broken),
        cmocka_unit_test(pipe_read_cancelled_takes_nothing),
        cmocka_unit_test(pipe_that_is_always_ready_gives_way),
        cmocka_unit_test(run_of_many_at_once),
        cmocka_unit_test(process_many_at_once_are_all_reaped),
        cmocka_unit_test(run_captures_both_outputs),
        cmocka_unit_test(run_feeds_and_captures_much_without_deadlock),
        cmocka_unit_test(run_over_a_limit_fails_or_truncates),
        cmocka_unit_test(run_timed_out_or_cancelled_kills_the_child),
        cmocka_unit_test(run_under_way_when_the_program_stops_is_ended),
#ifdef WITH_SECCOMP
        cmocka_unit_test(process_descriptors_are_closed_without_close_range_too),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
