/*
 * Test runs: see test.h. A run is a program like any other, started by the same code; it has no
 * signal handling of its own, may have another clock, and what leaks counts.
 *
 * The number of failed expectations and the framework's function are the process's, since runs come
 * one after the other, and an expectation may stand on any thread.
 */
#include "shoal/smp/test.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sched.h>

#include "shoal/runtime/core.h"

#include "shoal/smp/launch_impl.h"
#include "shoal/smp/test_impl.h"

#define WORDS_MAX 64

static atomic_uint failures;
static void (*tell_framework)(const char *text);

/* ---- Expectations ---- */

static void note_failure(const char *file, int line, const char *text, const char *values)
{
    fprintf(stderr, "%s:%d: core %d: does not hold: %s%s\n", file, line, shoal_core_id(), text,
            values);
    atomic_fetch_add(&failures, 1);
}

bool shoal_test_expect(bool holds, const char *text, const char *file, int line)
{
    if (!holds)
        note_failure(file, line, text, "");
    return holds;
}

bool shoal_test_expect_int(long long a, long long b, const char *text, const char *file, int line)
{
    char values[64];
    if (a == b)
        return true;
    snprintf(values, sizeof(values), " (%lld, %lld)", a, b);
    note_failure(file, line, text, values);
    return false;
}

bool shoal_test_expect_str(const char *a, const char *b, const char *text, const char *file,
                           int line)
{
    char values[512];
    if (a == b || (a != NULL && b != NULL && strcmp(a, b) == 0))
        return true;
    snprintf(values, sizeof(values), " (\"%.200s\", \"%.200s\")", a != NULL ? a : "NULL",
             b != NULL ? b : "NULL");
    note_failure(file, line, text, values);
    return false;
}

unsigned shoal_test_failures(void)
{
    return atomic_load(&failures);
}

void shoal_test_on_failure(void (*failed)(const char *text))
{
    tell_framework = failed;
}

/* ---- What a run leaves as it was ---- */

static const int borrowed_signals[] = {SIGSEGV, SIGBUS, SIGPIPE, SIGXFSZ, SIGCHLD, SIGQUIT};

struct borrowed {
    struct sigaction action[SHOAL_ARRAY_SIZE(borrowed_signals)];
};

static void save_signals(struct borrowed *borrowed)
{
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(borrowed_signals); i++)
        sigaction(borrowed_signals[i], NULL, &borrowed->action[i]);
}

static void restore_signals(const struct borrowed *borrowed)
{
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(borrowed_signals); i++)
        sigaction(borrowed_signals[i], &borrowed->action[i], NULL);
}

/* ---- A run ---- */

struct test_run {
    int (*fn)(void *arg);
    void *arg;
    const char *backend;
    struct shoal_test_time *time; /* NULL: the system's */
};

static int run_checked(void *arg)
{
    struct test_run *run = arg;
    if (strcmp(run->backend, "auto") != 0)
        SHOAL_EXPECT_STR(shoal_core_io_backend(), run->backend);
    int code = run->fn(run->arg);
    if (run->time != NULL)
        shoal_test_time_release(run->time);
    return code;
}

static const char *backend_wanted(const struct shoal_test_options *options)
{
    if (options->io_backend != NULL)
        return options->io_backend;
    const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
    return backend != NULL && backend[0] != '\0' ? backend : "auto";
}

static bool more_than_cpus(unsigned cores)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || cores > (unsigned)CPU_COUNT(&cpus);
}

/* Runs the program; `*leaked` gets the number of objects that nobody has consumed. */
static int run_program(const struct shoal_test_options *options, unsigned cores,
                       struct test_run *run, unsigned *leaked)
{
    char smp[16];
    snprintf(smp, sizeof(smp), "%u", cores);
    const char *words[WORDS_MAX] = {"test",       "--smp",       smp,   "--io-backend",
                                    run->backend, "--log-level", "warn"};
    int count = 7;
    if (more_than_cpus(cores))
        words[count++] = "--overprovisioned";
    for (const char *const *word = options->words; word != NULL && *word != NULL; word++) {
        if (count == WORDS_MAX - 1) {
            fprintf(stderr, "test: more than %d words of options\n", WORDS_MAX - 1);
            return 2;
        }
        words[count++] = *word;
    }
    const struct shoal_program program = {
        .name = "test", .run = run_checked, .arg = run, .options = options->options};
    struct shoal_launch launch = {
        .program = &program, .host_signals = !options->signals, .test_time = run->time};
    struct borrowed borrowed;
    save_signals(&borrowed);
    int code = shoal_launch_program(&launch, count, (char **)(uintptr_t)words);
    restore_signals(&borrowed);
    *leaked = atomic_load(&launch.leaked);
    return code;
}

/* Tells of what went wrong, and returns what the run returns; the framework may not come back. */
static int judge(int code, unsigned failed, unsigned leaked)
{
    char text[160];
    if (failed == 0 && leaked == 0)
        return code;
    int len = 0;
    if (failed > 0)
        len = snprintf(text, sizeof(text), "%u expectation%s did not hold%s", failed,
                       failed == 1 ? "" : "s", leaked > 0 ? ", and " : "");
    if (leaked > 0)
        snprintf(text + len, sizeof(text) - (size_t)len, "%u object%s never consumed or freed",
                 leaked, leaked == 1 ? " was" : "s were");
    if (tell_framework != NULL)
        tell_framework(text);
    else
        fprintf(stderr, "test: %s\n", text);
    return SHOAL_TEST_FAILED;
}

int shoal_test_run_options(const struct shoal_test_options *options, int (*fn)(void *arg),
                           void *arg)
{
    const unsigned cores = options->cores != 0 ? options->cores : 1;
    struct shoal_test_time time;
    struct test_run run = {.fn = fn, .arg = arg, .backend = backend_wanted(options)};
    if (options->clock != SHOAL_TEST_CLOCK_SYSTEM) {
        if (shoal_test_time_init(&time, cores, options->clock == SHOAL_TEST_CLOCK_AUTO) != 0) {
            fprintf(stderr, "test: no memory for the clock of %u cores\n", cores);
            return 2;
        }
        run.time = &time;
    }
    unsigned leaked = 0;
    int code = run_program(options, cores, &run, &leaked);
    if (run.time != NULL)
        shoal_test_time_deinit(run.time);
    return judge(code, atomic_exchange(&failures, 0), options->leaks_allowed ? 0 : leaked);
}

int shoal_test_run(unsigned cores, int (*fn)(void *arg), void *arg)
{
    return shoal_test_run_options(&(struct shoal_test_options){.cores = cores}, fn, arg);
}
