/*
 * Children: start, standard descriptors, environment, wait, signals; and what must not leak into
 * them or be left of them.
 */
/* backends: both */
#include <signal.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/process.h"

#include "shoal/smp/app.h"

#include "unit/process_check.h"

/* ---- Exit status ---- */

static int exit_codes(void *arg)
{
    static const int codes[] = {0, 1, 42, 255};
    (void)arg;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(codes); i++) {
        char script[32];
        snprintf(script, sizeof(script), "exit %d", codes[i]);
        struct shoal_process *process = start_sh(script, NULL);
        struct shoal_process_status status;
        SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
        SHOAL_EXPECT(!status.signalled && !status.core_dumped && status.signal == 0);
        SHOAL_EXPECT_INT(status.exit_code, codes[i]);
        SHOAL_EXPECT(status.memory_bytes_max > 100000);
        memset(&status, 0, sizeof(status));
        SHOAL_EXPECT_INT(shoal_process_wait(process, &status, 0), 0); /* again, and at once */
        SHOAL_EXPECT_INT(status.exit_code, codes[i]);
        SHOAL_EXPECT_INT(shoal_process_status(process, NULL), 0);
        SHOAL_EXPECT_INT(shoal_process_signal(process, SIGTERM), -ESRCH);
        shoal_process_free(process);
    }
    return 0;
}

static void process_exit_code_is_told_any_number_of_times(void **state)
{
    (void)state;
    run_clean(1, exit_codes, NULL);
}

static int killed_by_signal(void *arg)
{
    (void)arg;
    struct shoal_process_status status;
    struct shoal_process *process = start_sh("kill -TERM $$; sleep 60 >/dev/null 2>&1", NULL);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT(status.signalled && !status.core_dumped);
    SHOAL_EXPECT_INT(status.signal, SIGTERM);
    SHOAL_EXPECT_INT(status.exit_code, 128 + SIGTERM);
    shoal_process_free(process);

    process = start_sh("exec sleep 60", NULL);
    SHOAL_EXPECT_INT(shoal_process_status(process, &status), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_process_signal(process, 0), 0);
    SHOAL_EXPECT_INT(shoal_process_signal(process, 12345), -EINVAL);
    SHOAL_EXPECT_INT(shoal_process_signal_group(process, SIGTERM), -EINVAL); /* has none */
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGUSR1), 0);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT_INT(status.signal, SIGUSR1);
    shoal_process_free(process);
    return 0;
}

static void process_killed_by_a_signal_says_so(void **state)
{
    (void)state;
    run_clean(1, killed_by_signal, NULL);
}

static int cpu_times(void *arg)
{
    (void)arg;
    struct shoal_process_status status;
    struct shoal_process *process =
        start_sh("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done", NULL);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT(status.user_time_ns + status.system_time_ns > SHOAL_NS_PER_MS);
    shoal_process_free(process);
    return 0;
}

static void process_status_tells_cpu_time(void **state)
{
    (void)state;
    run_clean(1, cpu_times, NULL);
}

/* ---- Waiting ---- */

static int wait_long(void *arg)
{
    return shoal_process_wait(arg, NULL, LONG_NS);
}

static int waits(void *arg)
{
    (void)arg;
    struct shoal_process_status status;
    struct shoal_process *process = start_sh("exec sleep 60", NULL);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, 2 * SHOAL_NS_PER_MS), -ETIMEDOUT);
    for (int rest = 0; rest < 2; rest++) {
        struct shoal_fiber *fiber = NULL;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, wait_long, process, "waiter"), 0);
        for (int i = 0; i < rest; i++)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    struct shoal_future *cancelled = shoal_process_wait_future(process);
    struct shoal_future *future = shoal_process_wait_future(process);
    shoal_discard(shoal_process_wait_future(process));
    shoal_future_cancel(cancelled);
    SHOAL_EXPECT_INT(shoal_await(cancelled, NULL), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_process_signal(process, 0), 0); /* nothing of that has hurt it */
    struct shoal_fiber *fibers[3];
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], wait_long, process, "waiter"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGKILL), 0);
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(future, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 128 + SIGKILL);
    future = shoal_process_wait_future(process); /* known by now */
    SHOAL_EXPECT(!shoal_future_is_pending(future));
    SHOAL_EXPECT_INT(shoal_await(future, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 128 + SIGKILL);
    shoal_process_free(process);
    return 0;
}

static void process_wait_ended_early_changes_nothing(void **state)
{
    (void)state;
    run_clean(1, waits, NULL);
}

static int reaped_by_another(void *arg)
{
    (void)arg;
    struct shoal_process *process = start_sh("exec sleep 60", NULL);
    struct shoal_future *future = shoal_process_wait_future(process);
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGKILL), 0);
    SHOAL_EXPECT_INT(waitpid(shoal_process_id(process), NULL, 0), shoal_process_id(process));
    SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, LONG_NS), -ECHILD);
    SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, 0), -ECHILD);
    SHOAL_EXPECT_INT(shoal_process_status(process, NULL), -ECHILD);
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGTERM), -ESRCH);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECHILD);
    SHOAL_EXPECT_INT(shoal_await(shoal_process_wait_future(process), NULL), -ECHILD);
    shoal_process_free(process);
    return 0;
}

static void process_reaped_by_somebody_else_is_an_error(void **state)
{
    (void)state;
    run_clean(1, reaped_by_another, NULL);
}

/* ---- What cannot be started ---- */

static void fails(const struct shoal_process_how *how, int code, const char *text)
{
    struct shoal_process *process = NULL;
    if (!SHOAL_EXPECT_INT(shoal_process_spawn(&process, how), code))
        shoal_process_free(process);
    SHOAL_EXPECT(process == NULL);
    if (!SHOAL_EXPECT(strstr(shoal_error_message(), text) != NULL))
        fprintf(stderr, "it says: %s\n", shoal_error_message());
}

static void fails_to_run(const char *program, int code, const char *text)
{
    const char *const argv[] = {program, NULL};
    fails(&(struct shoal_process_how){.argv = argv}, code, text);
}

static int cannot_start(void *arg)
{
    (void)arg;
    static const char *const sh[] = {"sh", "-c", "exit 0", NULL};
    static const char *const nothing[] = {NULL};
    char file[] = "/tmp/shoal-test-process-XXXXXX";
    int fd = mkstemp(file);
    SHOAL_EXPECT_INT(write(fd, "exit 0\n", 7), 7);
    close(fd);
    fails_to_run("/no/such/program", -ENOENT, "cannot run \"/no/such/program\": ");
    fails_to_run("no-such-program-anywhere", -ENOENT, "cannot run \"no-such-program-anywhere\": ");
    fails_to_run("", -ENOENT, "the name of the program is empty");
    fails_to_run("/tmp", -EACCES, "cannot run \"/tmp\": ");
    fails_to_run("/bin/sh/x", -ENOTDIR, "cannot run \"/bin/sh/x\": ");
    fails_to_run(file, -EACCES, "cannot run ");
    SHOAL_EXPECT_INT(chmod(file, 0700), 0);
    fails_to_run(file, -ENOEXEC, "cannot run "); /* no shell jumps in */
    unlink(file);
    fails(&(struct shoal_process_how){.argv = nothing}, -EINVAL, "argv is empty");
    fails(&(struct shoal_process_how){0}, -EINVAL, "argv is empty");
    fails(&(struct shoal_process_how){.argv = sh, .directory = "/no/such"}, -ENOENT,
          "cannot start \"sh\" in directory \"/no/such\": ");
    fails(&(struct shoal_process_how){.argv = sh, .directory = "/bin/sh"}, -ENOTDIR,
          "in directory \"/bin/sh\": ");
    fails(&(struct shoal_process_how){.argv = sh,
                                      .in = {SHOAL_PROCESS_PIPE, 0},
                                      .out = {SHOAL_PROCESS_PIPE, 0},
                                      .directory = "/no/such"},
          -ENOENT, "in directory \"/no/such\": "); /* its pipes are closed again */
    fails(&(struct shoal_process_how){.argv = sh, .in = {SHOAL_PROCESS_FD, 987654}}, -EBADF,
          "descriptor 987654: ");
    fails(&(struct shoal_process_how){.argv = sh, .in = {SHOAL_PROCESS_FD, -1}}, -EBADF,
          "descriptor -1: ");
    fails(&(struct shoal_process_how){.argv = sh, .in = {SHOAL_PROCESS_STDOUT, 0}}, -EINVAL,
          "in: kind 4 is not allowed here");
    fails(&(struct shoal_process_how){.argv = sh, .out = {SHOAL_PROCESS_STDOUT, 0}}, -EINVAL,
          "out: kind 4 is not allowed here");
    static const char *const nameless[] = {"=x", NULL};
    fails(&(struct shoal_process_how){.argv = sh, .env = nameless}, -EINVAL, "\"=x\" has no name");
    static const char *const empty_path[] = {"PATH=:", NULL};
    fails(&(struct shoal_process_how){.argv = sh, .env = empty_path}, -ENOENT, "PATH is empty");
    const struct shoal_process_fd twice[] = {{0, 5}, {1, 5}};
    fails(&(struct shoal_process_how){.argv = sh, .fds = twice, .fd_count = 2}, -EINVAL,
          "descriptor 5 of the child is given twice");
    const struct shoal_process_fd low[] = {{0, 2}};
    fails(&(struct shoal_process_how){.argv = sh, .fds = low, .fd_count = 1}, -EINVAL,
          "descriptor 2 of the child is given twice");
    fails(&(struct shoal_process_how){.argv = sh, .fds = low, .fd_count = 65}, -EINVAL,
          "65 descriptors for the child (allowed: up to 64)");
    return 0;
}

static void process_that_cannot_start_says_why(void **state)
{
    (void)state;
    run_clean(1, cannot_start, NULL);
}

static int spawn_cancelled(void *arg)
{
    struct shoal_process *process = NULL;
    static const char *const argv[] = {"sleep", "60", NULL};
    *(bool *)arg = true;
    int rc = shoal_process_spawn(&process, &(struct shoal_process_how){.argv = argv});
    if (rc == 0)
        SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, LONG_NS), -ECANCELED);
    shoal_process_free(process);
    return rc;
}

static int cancel_spawns(void *arg)
{
    (void)arg;
    for (int rest = 0; rest < 2; rest++) {
        struct shoal_fiber *fiber = NULL;
        bool begun = false;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, spawn_cancelled, &begun, "spawner"), 0);
        while (rest > 0 && !begun)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        /* Not at all, or, if a helper thread had begun already, it is delivered. */
        int rc = shoal_fiber_join(fiber);
        SHOAL_EXPECT(rc == -ECANCELED || (rc == 0 && rest > 0));
    }
    return 0;
}

static void process_spawn_cancelled_leaves_nothing(void **state)
{
    (void)state;
    run_clean(1, cancel_spawns, NULL);
}

/* ---- What the child gets ---- */

static int environment(void *arg)
{
    (void)arg;
    setenv("SHOAL_TEST_KEPT", "kept", 1);
    setenv("SHOAL_TEST_CHANGED", "old", 1);
    setenv("SHOAL_TEST_REMOVED", "there", 1);
    static const char *const env[] = {"SHOAL_TEST_CHANGED=older", "SHOAL_TEST_REMOVED",
                                      "SHOAL_TEST_NEW=a=b", "SHOAL_TEST_CHANGED=new", NULL};
    static const char script[] = "echo $SHOAL_TEST_KEPT.$SHOAL_TEST_CHANGED."
                                 "${SHOAL_TEST_REMOVED-none}.$SHOAL_TEST_NEW; "
                                 "env | grep -c ^SHOAL_TEST_CHANGED";
    expect_sh(script, "kept.old.there.\n1\n", NULL);
    expect_sh(script, "kept.new.none.a=b\n1\n", &(struct shoal_process_how){.env = env});
    static const char *const few[] = {"PATH=/usr/bin:/bin", "ONLY=0", "ONLY=1", NULL};
    static const char *const env_argv[] = {"env", NULL};
    expect_output("PATH=/usr/bin:/bin\nONLY=1\n",
                  &(struct shoal_process_how){.argv = env_argv, .env = few, .env_clear = true});
    expect_output("", &(struct shoal_process_how){.argv = env_argv, .env_clear = true});
    /* The program is looked for in the child's PATH. */
    static const char *const elsewhere[] = {"PATH=/no/such::/etc/passwd:/proc", NULL};
    fails(&(struct shoal_process_how){.argv = env_argv, .env = elsewhere}, -ENOENT, "cannot run");
    static const char *const renamed[] = {"another name", "-c", "echo $0", NULL};
    expect_output("another name\n", &(struct shoal_process_how){.argv = renamed, .path = "sh"});
    return 0;
}

static void process_environment_is_inherited_changed_or_cleared(void **state)
{
    (void)state;
    run_clean(1, environment, NULL);
}

static int places(void *arg)
{
    (void)arg;
    expect_sh("pwd", "/usr\n", &(struct shoal_process_how){.directory = "/usr"});
    static const char *const relative[] = {"./bin/env", "echo", "here", NULL};
    expect_output("here\n", &(struct shoal_process_how){.argv = relative, .directory = "/usr"});
    /* Words with spaces and quotes are not split or interpreted. */
    static const char *const words[] = {"printf", "<%s>", "a b", "$HOME", "\"'", "", NULL};
    expect_output("<a b><$HOME><\"'><>", &(struct shoal_process_how){.argv = words});
    return 0;
}

static void process_directory_and_words_are_as_given(void **state)
{
    (void)state;
    run_clean(1, places, NULL);
}

static int signal_state(void *arg)
{
    (void)arg;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    expect_sh("cat /proc/self/status | grep -E 'SigBlk|SigIgn|SigCgt'",
              "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n",
              NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    signal(SIGUSR2, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    /* A writer whose reader has left is told by SIGPIPE, although this process ignores it. */
    struct shoal_process *process = start(&(struct shoal_process_how){
        .argv = (const char *const[]){"yes", NULL}, .out = {SHOAL_PROCESS_PIPE, 0}});
    shoal_process_pipe_close(shoal_process_stdout(process));
    struct shoal_process_status status;
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT_INT(status.signal, SIGPIPE);
    shoal_process_free(process);
    return 0;
}

static void process_signals_are_as_for_a_fresh_program(void **state)
{
    (void)state;
    run_clean(2, signal_state, NULL);
}

static int affinity(void *arg)
{
    const char *all = arg;
    cpu_set_t pinned;
    SHOAL_EXPECT_INT(sched_getaffinity(0, sizeof(pinned), &pinned), 0);
    SHOAL_EXPECT_INT(CPU_COUNT(&pinned), 1);
    char expected[256];
    snprintf(expected, sizeof(expected), "%s\n", all);
    for (int i = 0; i < 2; i++)
        expect_sh("grep Cpus_allowed: /proc/self/status", expected, NULL);
    return 0;
}

static void process_may_run_on_all_cpus_of_the_program(void **state)
{
    (void)state;
    char line[256];
    char mine[256] = "";
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "Cpus_allowed:", 13) == 0)
            snprintf(mine, sizeof(mine), "%s", line);
    fclose(file);
    mine[strcspn(mine, "\n")] = '\0';
    static const char *const pin[] = {"--thread-affinity", "on", NULL};
    assert_int_equal(shoal_test_run_with(2, pin, affinity, mine), 0);
}

/* ---- Descriptors ---- */

/* 3 is the directory that ls itself has opened. */
static const char list_fds[] = "exec ls -1v /proc/self/fd";

static int descriptors(void *arg)
{
    (void)arg;
    int leaky[20];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(leaky); i++)
        leaky[i] = open("/dev/null", O_RDONLY); /* not close-on-exec */
    expect_sh(list_fds, "0\n1\n2\n3\n", NULL);
    int ends[2];
    SHOAL_EXPECT_INT(pipe2(ends, O_CLOEXEC), 0);
    /* In each other's way on purpose: each is to become the other. */
    const struct shoal_process_fd fds[] = {
        {ends[1], ends[0]}, {ends[0], ends[1]}, {leaky[3], 50}, {leaky[3], leaky[3]}};
    char expected[128];
    char script[512];
    int numbers[] = {ends[0], ends[1], leaky[3]};
    for (int i = 0; i < 3; i++) /* ascending: leaky[3] was opened first */
        for (int j = i + 1; j < 3; j++)
            if (numbers[j] < numbers[i]) {
                int swap = numbers[i];
                numbers[i] = numbers[j];
                numbers[j] = swap;
            }
    snprintf(expected, sizeof(expected), "0\n1\n2\n3\n%d\n%d\n%d\n50\n", numbers[0], numbers[1],
             numbers[2]);
    expect_sh(list_fds, expected, &(struct shoal_process_how){.fds = fds, .fd_count = 4});
    snprintf(script, sizeof(script), "echo through > /proc/self/fd/%d; head -n1 < /proc/self/fd/%d",
             ends[0], ends[1]);
    expect_sh(script, "through\n", &(struct shoal_process_how){.fds = fds, .fd_count = 4});
    close(ends[0]);
    close(ends[1]);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(leaky); i++)
        close(leaky[i]);
    return 0;
}

#define MOVED 10

/* Their places are free, and where a careless child would put its copies meanwhile. */
static int moved_descriptors(void *arg)
{
    (void)arg;
    struct shoal_process_fd fds[MOVED];
    char script[MOVED * 64] = "";
    char expected[MOVED * 64] = "";
    for (int i = 0; i < MOVED; i++) {
        char name[16];
        snprintf(name, sizeof(name), "m%d", i);
        fds[i].fd = memfd_create(name, MFD_CLOEXEC);
    }
    for (int i = 0; i < MOVED; i++) {
        fds[i].child_fd = fds[MOVED - 1].fd + 8 + i;
        snprintf(script + strlen(script), 64, "readlink /proc/self/fd/%d; ", fds[i].child_fd);
        snprintf(expected + strlen(expected), 64, "/memfd:m%d (deleted)\n", i);
    }
    expect_sh(script, expected, &(struct shoal_process_how){.fds = fds, .fd_count = MOVED});
    for (int i = 0; i < MOVED; i++)
        close(fds[i].fd);
    return 0;
}

static void process_descriptors_are_moved_to_their_numbers(void **state)
{
    (void)state;
    run_clean(1, moved_descriptors, NULL);
}

static void process_has_no_descriptor_that_was_not_asked_for(void **state)
{
    (void)state;
    run_clean(2, descriptors, NULL);
}

static int standard(void *arg)
{
    (void)arg;
    char file[] = "/tmp/shoal-test-process-XXXXXX";
    int fd = mkstemp(file);
    unlink(file);
    struct shoal_process_how how = {.in = {SHOAL_PROCESS_NULL, 0},
                                    .out = {SHOAL_PROCESS_FD, fd},
                                    .err = {SHOAL_PROCESS_STDOUT, 0}};
    struct shoal_process *process =
        start_sh("readlink /proc/self/fd/0; echo one; echo two >&2", &how);
    SHOAL_EXPECT(shoal_process_stdin(process) == NULL);
    SHOAL_EXPECT(shoal_process_stdout(process) == NULL);
    SHOAL_EXPECT(shoal_process_stderr(process) == NULL);
    SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, LONG_NS), 0);
    shoal_process_free(process);
    char text[64] = "";
    SHOAL_EXPECT_INT(pread(fd, text, sizeof(text) - 1, 0), 18);
    SHOAL_EXPECT(strcmp(text, "/dev/null\none\ntwo\n") == 0);

    /* Both outputs in one pipe, in order. */
    how = (struct shoal_process_how){.out = {SHOAL_PROCESS_PIPE, 0},
                                     .err = {SHOAL_PROCESS_STDOUT, 0}};
    process = start_sh("echo a; echo b >&2; echo c", &how);
    expect_stream(shoal_process_stdout(process), "a\nb\nc\n");
    SHOAL_EXPECT_INT(shoal_process_wait(process, NULL, LONG_NS), 0);
    shoal_process_free(process);

    /* Inherited, even where this process has closed its own. */
    int kept = dup(STDIN_FILENO);
    close(STDIN_FILENO);
    expect_sh("readlink /proc/self/fd/0", "/dev/null\n", NULL);
    how = (struct shoal_process_how){.in = {SHOAL_PROCESS_PIPE, 0}, .out = {SHOAL_PROCESS_PIPE, 0}};
    process = start_sh("cat", &how); /* the pipe's own ends are below 3 now */
    SHOAL_EXPECT_INT(shoal_process_pipe_write(shoal_process_stdin(process), "hello", 5, NULL), 0);
    shoal_process_pipe_close(shoal_process_stdin(process));
    expect_stream(shoal_process_stdout(process), "hello");
    shoal_process_free(process);
    SHOAL_EXPECT_INT(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    char expected[64];
    snprintf(expected, sizeof(expected), "%s (deleted)\n", file);
    expect_sh("readlink /proc/self/fd/0", expected, NULL);
    dup2(kept, STDIN_FILENO);
    close(kept);
    close(fd);
    return 0;
}

static void process_standard_descriptors_are_as_asked(void **state)
{
    (void)state;
    run_clean(1, standard, NULL);
}

/* ---- Groups, users, the parent's end ---- */

static int groups(void *arg)
{
    (void)arg;
    struct shoal_process_status status;
    const char script[] = "set -- $(cat /proc/$$/stat); echo $1 $5 $6"; /* pid, group, session */
    for (int group = 0; group < 3; group++) {
        struct shoal_process_how how = {.out = {SHOAL_PROCESS_PIPE, 0},
                                        .group = (enum shoal_process_group)group};
        struct shoal_process *process = start_sh(script, &how);
        char expected[64];
        int pid = (int)shoal_process_id(process);
        snprintf(expected, sizeof(expected), "%d %d %d\n", pid, group == 0 ? getpgrp() : pid,
                 group == 2 ? pid : getsid(0));
        expect_stream(shoal_process_stdout(process), expected);
        shoal_process_free(process);
    }
    /* The whole group: the grandchild holds the pipe, and lets go of it. */
    struct shoal_process_how how = {.out = {SHOAL_PROCESS_PIPE, 0},
                                    .group = SHOAL_PROCESS_GROUP_NEW};
    struct shoal_process *process = start_sh("sleep 60 >/dev/null 2>&1 & echo up; wait", &how);
    char text[8];
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text)), 3);
    SHOAL_EXPECT_INT(shoal_process_signal_group(process, SIGTERM), 0);
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text)), 0);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT_INT(status.signal, SIGTERM);
    SHOAL_EXPECT_INT(shoal_process_signal_group(process, SIGTERM), -ESRCH);
    shoal_process_free(process);
    return 0;
}

static void process_group_and_session_are_its_own_when_asked(void **state)
{
    (void)state;
    run_clean(1, groups, NULL);
}

static int users(void *arg)
{
    (void)arg;
    const gid_t more[] = {65533, 65532};
    struct shoal_process_user user = {
        .uid = getuid(), .gid = getgid(), .groups = NULL, .group_count = 0};
    const struct shoal_process_how how = {.user = &user};
    if (getuid() !=
        0) { /* without privileges: the parent stays who it is, the child does not run */
        user.uid = 0;
        fails(&(struct shoal_process_how){.argv = (const char *const[]){"id", NULL}, .user = &user},
              -EPERM, "as user 0, group ");
        return 0;
    }
    expect_sh("id -u; id -g; id -G", "0\n0\n0\n", &how);
    user = (struct shoal_process_user){65534, 65531, more, 2};
    expect_sh("id -u; id -g; id -G | tr ' ' '\\n' | sort; grep Uid /proc/self/status",
              "65534\n65531\n65531\n65532\n65533\nUid:\t65534\t65534\t65534\t65534\n", &how);
    SHOAL_EXPECT_INT(getuid(), 0);
    SHOAL_EXPECT_INT(geteuid(), 0);
    return 0;
}

static void process_runs_as_another_user(void **state)
{
    (void)state;
    run_clean(1, users, NULL);
}

static int terminate(void *arg)
{
    (void)arg;
    struct shoal_process_status status;
    struct shoal_process *process = start_sh("exec sleep 60", NULL);
    SHOAL_EXPECT_INT(shoal_process_terminate(process, LONG_NS, &status), 0);
    SHOAL_EXPECT_INT(status.signal, SIGTERM);
    SHOAL_EXPECT_INT(shoal_process_terminate(process, LONG_NS, &status), 0); /* it has ended */
    shoal_process_free(process);

    struct shoal_process_how how = {.out = {SHOAL_PROCESS_PIPE, 0}};
    process = start_sh("trap '' TERM; echo up; while :; do sleep 60 >/dev/null 2>&1; done", &how);
    char text[8];
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text)), 3);
    SHOAL_EXPECT_INT(shoal_process_terminate(process, 5 * SHOAL_NS_PER_MS, &status), 0);
    SHOAL_EXPECT_INT(status.signal, SIGKILL);
    shoal_process_free(process);

    process = start_sh("exec sleep 60", NULL);
    SHOAL_EXPECT_INT(shoal_process_signal(process, SIGSTOP), 0);
    SHOAL_EXPECT_INT(shoal_process_terminate(process, LONG_NS, &status), 0); /* though stopped */
    SHOAL_EXPECT_INT(status.signal, SIGTERM);
    shoal_process_free(process);

    how.group = SHOAL_PROCESS_SESSION; /* and all that it has started */
    process = start_sh("sleep 60 & sleep 60 & echo up; wait", &how);
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text)), 3);
    SHOAL_EXPECT_INT(shoal_process_terminate(process, LONG_NS, &status), 0);
    SHOAL_EXPECT_INT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text)), 0);
    shoal_process_free(process);
    return 0;
}

static void process_terminate_asks_and_then_kills(void **state)
{
    (void)state;
    run_clean(1, terminate, NULL);
}

/* ---- Freeing ---- */

static bool runs(pid_t pid)
{
    char path[64];
    char text[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool zombie = read(fd, text, sizeof(text) - 1) <= 0 || strstr(text, ") Z") != NULL;
    close(fd);
    return !zombie;
}

static int free_running(void *arg)
{
    (void)arg;
    struct shoal_mem_stats before;
    struct shoal_mem_stats after;
    shoal_mem_stats(&before);
    struct shoal_process *process = start_sh("exec sleep 60", NULL);
    shoal_mem_stats(&after);
    const uint64_t one_bytes = after.used_bytes - before.used_bytes;
    pid_t pid = shoal_process_id(process);
    struct shoal_future *future = shoal_process_wait_future(process);
    shoal_process_free(process);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
    while (runs(pid) || count_children() > 0)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    shoal_mem_stats(&after); /* its memory has gone with it, but for what a core keeps */
    SHOAL_EXPECT(after.used_bytes < before.used_bytes + one_bytes);

    struct shoal_process_how how = {.on_free = SHOAL_PROCESS_LEAVE};
    process = start_sh("exec sleep 60", &how);
    pid = shoal_process_id(process);
    shoal_process_free(process);
    SHOAL_EXPECT_INT(shoal_sleep_ns(5 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT(runs(pid));
    kill(pid, SIGKILL);
    while (count_children() > 0) /* it is reaped although nobody has it any more */
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);

    how = (struct shoal_process_how){.group = SHOAL_PROCESS_GROUP_NEW,
                                     .out = {SHOAL_PROCESS_PIPE, 0}};
    process = start_sh("sleep 60 & echo $!; wait", &how);
    char text[32] = "";
    SHOAL_EXPECT(shoal_process_pipe_read(shoal_process_stdout(process), text, sizeof(text) - 1) >
                 0);
    shoal_process_free(process);
    while (runs(atoi_checked(text)))
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    shoal_process_free(NULL);
    return 0;
}

static void process_freed_is_killed_or_left_as_asked(void **state)
{
    (void)state;
    run_clean(1, free_running, NULL);
}

static pid_t left_pid;

static int leave_running(void *arg)
{
    bool leave = arg != NULL;
    struct shoal_process_how how = {.on_free = leave ? SHOAL_PROCESS_LEAVE : SHOAL_PROCESS_KILL};
    left_pid = shoal_process_id(start_sh("exec sleep 60", &how)); /* never freed */
    shoal_process_free(start_sh("exec sleep 60", NULL)); /* freed a moment before the end */
    return 0;
}

static void process_at_the_end_of_the_program_is_killed_or_left(void **state)
{
    static char leave;
    (void)state;
    assert_int_equal(shoal_test_run_with(1, quiet, leave_running, NULL), 0);
    assert_int_equal(count_children(), 0);
    assert_int_equal(shoal_test_run_with(1, quiet, leave_running, &leave), 0);
    assert_true(runs(left_pid));
    assert_int_equal(count_children(), 1);
    kill(left_pid, SIGKILL);
    assert_int_equal(waitpid(left_pid, NULL, 0), left_pid);
}

static int tie_and_die(void *arg)
{
    int report = *(const int *)arg;
    struct shoal_process_how how = {.end_with_parent = true, .on_free = SHOAL_PROCESS_LEAVE};
    struct shoal_process *process = start_sh("exec sleep 60", &how);
    pid_t pid = shoal_process_id(process);
    SHOAL_EXPECT_INT(write(report, &pid, sizeof(pid)), sizeof(pid));
    raise(SIGKILL);
    return 0;
}

static int run_tie_and_die(void *arg)
{
    return shoal_test_run(1, tie_and_die, arg);
}

static void process_tied_to_its_parent_ends_with_it(void **state)
{
    (void)state;
    int ends[2];
    pid_t pid = 0;
    struct shoal_test_child child;
    assert_int_equal(pipe(ends), 0);
    shoal_test_in_child(&child, run_tie_and_die, &ends[1]);
    assert_int_equal(child.signal, SIGKILL);
    assert_int_equal(read(ends[0], &pid, sizeof(pid)), sizeof(pid));
    while (runs(pid))
        usleep(1000);
    close(ends[0]);
    close(ends[1]);
}

/* ---- Misuse ---- */

static int free_under_a_fiber(void *arg)
{
    (void)arg;
    /* The child would keep this process's standard error open after the abort. */
    struct shoal_process_how how = {.end_with_parent = true};
    struct shoal_process *process = start_sh("exec sleep 60", &how);
    (void)shoal_fiber_spawn_detached(wait_long, process, "waiter");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_process_free(process);
    return 0;
}

static int read_long(void *arg)
{
    char byte;
    return shoal_process_pipe_read(arg, &byte, 1);
}

static int read_twice(void *arg)
{
    (void)arg;
    struct shoal_process_how how = {.end_with_parent = true, .out = {SHOAL_PROCESS_PIPE, 0}};
    struct shoal_process *process = start_sh("exec sleep 60", &how);
    (void)shoal_fiber_spawn_detached(read_long, shoal_process_stdout(process), "reader");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return read_long(shoal_process_stdout(process));
}

static int close_under_a_fiber(void *arg)
{
    (void)arg;
    struct shoal_process_how how = {.end_with_parent = true, .out = {SHOAL_PROCESS_PIPE, 0}};
    struct shoal_process *process = start_sh("exec sleep 60", &how);
    (void)shoal_fiber_spawn_detached(read_long, shoal_process_stdout(process), "reader");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_process_pipe_close(shoal_process_stdout(process));
    return 0;
}

static void process_misuse_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, free_under_a_fiber, "is freed while a fiber waits for it");
    shoal_test_fiber_aborts_with(1, read_twice, "a read of a pipe that another fiber uses");
    shoal_test_fiber_aborts_with(1, close_under_a_fiber, "a pipe is closed while a fiber uses it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(process_exit_code_is_told_any_number_of_times),
        cmocka_unit_test(process_killed_by_a_signal_says_so),
        cmocka_unit_test(process_status_tells_cpu_time),
        cmocka_unit_test(process_wait_ended_early_changes_nothing),
        cmocka_unit_test(process_reaped_by_somebody_else_is_an_error),
        cmocka_unit_test(process_that_cannot_start_says_why),
        cmocka_unit_test(process_spawn_cancelled_leaves_nothing),
        cmocka_unit_test(process_environment_is_inherited_changed_or_cleared),
        cmocka_unit_test(process_directory_and_words_are_as_given),
        cmocka_unit_test(process_signals_are_as_for_a_fresh_program),
        cmocka_unit_test(process_may_run_on_all_cpus_of_the_program),
        cmocka_unit_test(process_descriptors_are_moved_to_their_numbers),
        cmocka_unit_test(process_has_no_descriptor_that_was_not_asked_for),
        cmocka_unit_test(process_standard_descriptors_are_as_asked),
        cmocka_unit_test(process_group_and_session_are_its_own_when_asked),
        cmocka_unit_test(process_runs_as_another_user),
        cmocka_unit_test(process_terminate_asks_and_then_kills),
        cmocka_unit_test(process_freed_is_killed_or_left_as_asked),
        cmocka_unit_test(process_at_the_end_of_the_program_is_killed_or_left),
        cmocka_unit_test(process_tied_to_its_parent_ends_with_it),
        cmocka_unit_test(process_misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
