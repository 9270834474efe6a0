/*
 * See harness.h.
 */
#include "unit/harness.h"

#include <signal.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static bool in_child;

static void end_test(const char *text)
{
    if (in_child)
        _exit(SHOAL_TEST_FAILED);
    fail_msg("%s", text);
}

__attribute__((constructor)) static void tell_cmocka(void)
{
    shoal_test_on_failure(end_test);
}

int shoal_test_run_with(unsigned cores, const char *const *words, int (*fn)(void *arg), void *arg)
{
    const struct shoal_test_options options = {
        .cores = cores, .words = words, .leaks_allowed = true, .signals = true};
    return shoal_test_run_options(&options, fn, arg);
}

static SHOAL_NORETURN void be_child(int err, int (*fn)(void *arg), void *arg)
{
    static const int caught[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS}; /* by cmocka */
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(caught); i++)
        signal(caught[i], SIG_DFL);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(err, STDERR_FILENO);
    in_child = true;
    int code = fn(arg);
    fflush(NULL);
    _exit(code);
}

void shoal_test_in_child(struct shoal_test_child *child, int (*fn)(void *arg), void *arg)
{
    int ends[2];
    memset(child, 0, sizeof(*child));
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        be_child(ends[1], fn, arg);
    }
    close(ends[1]);
    size_t len = 0;
    char rest[1024];
    for (;;) {
        bool full = len == sizeof(child->text) - 1;
        ssize_t n = full ? read(ends[0], rest, sizeof(rest))
                         : read(ends[0], child->text + len, sizeof(child->text) - 1 - len);
        if (n <= 0)
            break;
        len += full ? 0 : (size_t)n;
    }
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    child->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    child->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void shoal_test_aborts_with(int (*fn)(void *arg), void *arg, const char *text)
{
    struct shoal_test_child child;
    shoal_test_in_child(&child, fn, arg);
    if (child.signal != SIGABRT || strstr(child.text, text) == NULL)
        fail_msg("signal %d, exit code %d, no \"%s\" in:\n%s", child.signal, child.exit_code, text,
                 child.text);
}

int shoal_test_unexpected_then(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    (void)in;
    (void)out;
    SHOAL_EXPECT_NEVER("this continuation is to be skipped");
    return 0;
}

struct fiber_run {
    unsigned cores;
    int (*fn)(void *arg);
};

static int run_fiber(void *arg)
{
    const struct fiber_run *run = arg;
    return shoal_test_run(run->cores, run->fn, NULL);
}

void shoal_test_fiber_aborts_with(unsigned cores, int (*fn)(void *arg), const char *text)
{
    struct fiber_run run = {cores, fn};
    shoal_test_aborts_with(run_fiber, &run, text);
}
