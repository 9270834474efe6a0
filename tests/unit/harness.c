/*
 * See harness.h.
 */
#include "unit/harness.h"

#include <signal.h>
#include <stdatomic.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/core.h"

#include "shoal/smp/app.h"

#define OPTIONS_MAX 24

static atomic_int failures;
static bool in_child;

bool shoal_test_expect(bool holds, const char *text, const char *file, int line)
{
    if (!holds) {
        fprintf(stderr, "%s:%d: core %d: does not hold: %s\n", file, line, shoal_core_id(), text);
        atomic_fetch_add(&failures, 1);
    }
    return holds;
}

bool shoal_test_expect_int(long long a, long long b, const char *text, const char *file, int line)
{
    if (a != b) {
        fprintf(stderr, "%s:%d: core %d: does not hold: %s (%lld, %lld)\n", file, line,
                shoal_core_id(), text, a, b);
        atomic_fetch_add(&failures, 1);
    }
    return a == b;
}

struct test_run {
    int (*fn)(void *arg);
    void *arg;
    const char *backend;
};

static int run_checked(void *arg)
{
    struct test_run *run = arg;
    if (strcmp(run->backend, "auto") != 0)
        SHOAL_EXPECT(strcmp(run->backend, shoal_core_io_backend()) == 0);
    return run->fn(run->arg);
}

static const char *backend_wanted(void)
{
    const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
    return backend != NULL && backend[0] != '\0' ? backend : "auto";
}

int shoal_test_run_with(unsigned cores, const char *const *options, int (*fn)(void *arg), void *arg)
{
    char smp[16];
    snprintf(smp, sizeof(smp), "%u", cores);
    struct test_run run = {fn, arg, backend_wanted()};
    const char *words[OPTIONS_MAX] = {"test", "--smp", smp, "--io-backend", run.backend};
    int count = 5;
    words[count++] = "--log-level";
    words[count++] = "warn";
    if (cores > (unsigned)sysconf(_SC_NPROCESSORS_ONLN))
        words[count++] = "--overprovisioned";
    for (; options != NULL && *options != NULL && count < OPTIONS_MAX - 1; options++)
        words[count++] = *options;
    const struct shoal_program program = {.name = "test", .run = run_checked, .arg = &run};
    int code = shoal_main(count, (char **)(uintptr_t)words, &program);
    int failed = atomic_exchange(&failures, 0);
    if (failed == 0)
        return code;
    if (in_child)
        _exit(99);
    fail_msg("%d expectations did not hold", failed);
    return code;
}

int shoal_test_run(unsigned cores, int (*fn)(void *arg), void *arg)
{
    return shoal_test_run_with(cores, NULL, fn, arg);
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
