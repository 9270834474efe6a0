/*
 * The test harness itself: what a run returns, what fails it, and what it leaves as it was.
 */
/* backends: both */
#include <signal.h>

#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/mem.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"
#include "shoal/smp/test.h"

#include "unit/harness.h"

/* ---- A framework that notes what it is told ---- */

static char told[256];
static unsigned times_told;

static void note_told(const char *text)
{
    snprintf(told, sizeof(told), "%s", text);
    times_told++;
}

/* What harness.c has installed; put back at the end of each test that replaces it. */
static void fail_in_cmocka(const char *text)
{
    fail_msg("%s", text);
}

static int begin_noting(void **state)
{
    (void)state;
    told[0] = '\0';
    times_told = 0;
    shoal_test_on_failure(note_told);
    return 0;
}

static int end_noting(void **state)
{
    (void)state;
    shoal_test_on_failure(fail_in_cmocka);
    return 0;
}

/* ---- What it returns ---- */

static int give_back(void *arg)
{
    return (int)(intptr_t)arg;
}

static void run_returns_what_the_function_returned(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, give_back, (void *)0), 0);
    assert_int_equal(shoal_test_run(2, give_back, (void *)7), 7);
    assert_int_equal(shoal_test_run(1, give_back, (void *)(intptr_t)-EIO), 1);
    assert_int_equal(times_told, 0);
}

static int look_around(void *arg)
{
    SHOAL_EXPECT_INT(shoal_core_count(), (intptr_t)arg);
    SHOAL_EXPECT_INT(shoal_core_id(), 0);
    SHOAL_EXPECT(shoal_fiber_self() != NULL);
    return shoal_yield();
}

static void run_has_the_cores_asked_for_even_more_than_cpus(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, look_around, (void *)1), 0);
    assert_int_equal(shoal_test_run(7, look_around, (void *)7), 0);
    assert_int_equal(shoal_test_run(0, look_around, (void *)1), 0);
    assert_int_equal(times_told, 0);
}

static int on_backend(void *arg)
{
    SHOAL_EXPECT_STR(shoal_core_io_backend(), (const char *)arg);
    return 0;
}

static void run_takes_the_backend_of_the_environment_or_of_the_options(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, on_backend, getenv("SHOAL_TEST_IO_BACKEND")), 0);
    const struct shoal_test_options options = {.io_backend = "epoll"};
    assert_int_equal(shoal_test_run_options(&options, on_backend, "epoll"), 0);
    assert_int_equal(times_told, 0);
}

static uint64_t own_number;
static const struct shoal_option own_options[] = {
    {"number", SHOAL_OPTION_UINT, &own_number, "N", "A number.", 0, 100, NULL, NULL},
    {.name = NULL},
};

static void run_parses_words_with_the_programs_own_options(void **state)
{
    (void)state;
    const char *words[] = {"--number", "12", "--task-quota-us", "100", NULL};
    const struct shoal_test_options options = {.words = words, .options = own_options};
    assert_int_equal(shoal_test_run_options(&options, give_back, (void *)3), 3);
    assert_int_equal(own_number, 12);
    const char *unknown[] = {"--numbre", "12", NULL};
    const struct shoal_test_options wrong = {.words = unknown, .options = own_options};
    assert_int_equal(shoal_test_run_options(&wrong, give_back, NULL), 2);
    const char *many[128];
    for (unsigned i = 0; i < 127; i++)
        many[i] = "--poll-mode";
    many[127] = NULL;
    const struct shoal_test_options too_many = {.words = many};
    assert_int_equal(shoal_test_run_options(&too_many, give_back, NULL), 2);
}

/* ---- Expectations ---- */

static int expect_wrongly_on_core(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    SHOAL_EXPECT_INT(shoal_core_id(), -5);
    return 0;
}

static void *expect_wrongly_on_thread(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_STR("a", "b");
    return NULL;
}

static int expect_wrongly_everywhere(void *arg)
{
    (void)arg;
    SHOAL_EXPECT(!SHOAL_EXPECT_INT(1, 2));
    SHOAL_EXPECT(!SHOAL_EXPECT(false));
    SHOAL_EXPECT(!SHOAL_EXPECT_STR(NULL, "x"));
    SHOAL_EXPECT(!SHOAL_EXPECT_NEVER("on purpose"));
    SHOAL_EXPECT(SHOAL_EXPECT_INT(2, 2));
    SHOAL_EXPECT(SHOAL_EXPECT(true));
    SHOAL_EXPECT(SHOAL_EXPECT_STR("x", "x"));
    SHOAL_EXPECT(SHOAL_EXPECT_STR(NULL, NULL));
    SHOAL_EXPECT_INT(shoal_test_failures(), 4);
    (void)shoal_await(shoal_submit_to(1, expect_wrongly_on_core, NULL), NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, expect_wrongly_on_thread, NULL) == 0)
        pthread_join(thread, NULL);
    return 0;
}

static void expectation_that_does_not_hold_fails_its_run_alone(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, expect_wrongly_everywhere, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told, "6 expectations did not hold");
    assert_int_equal(times_told, 1);
    assert_int_equal(shoal_test_failures(), 0);
    assert_int_equal(shoal_test_run(2, give_back, (void *)4), 4);
    assert_int_equal(times_told, 1);
}

static int run_one_wrong(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_STR("left", "right");
    return 0;
}

static int run_without_framework(void *arg)
{
    (void)arg;
    shoal_test_on_failure(NULL);
    return shoal_test_run(1, run_one_wrong, NULL);
}

static void failure_is_told_with_place_core_and_values(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_without_framework, NULL);
    assert_int_equal(child.exit_code, SHOAL_TEST_FAILED);
    assert_non_null(strstr(child.text, "test_run.c:"));
    assert_non_null(strstr(child.text, "core 0: does not hold: \"left\" == \"right\" "
                                       "(\"left\", \"right\")"));
    assert_non_null(strstr(child.text, "test: 1 expectation did not hold\n"));
}

static jmp_buf out_of_run;

static void jump_away(const char *text)
{
    note_told(text);
    longjmp(out_of_run, 1);
}

static void framework_may_jump_away_from_a_failed_run(void **state)
{
    (void)state;
    shoal_test_on_failure(jump_away);
    for (volatile unsigned i = 1; i <= 3; i++) {
        if (setjmp(out_of_run) == 0) {
            (void)shoal_test_run(2, run_one_wrong, NULL);
            fail_msg("it did not jump");
        }
        assert_int_equal(times_told, i);
    }
    shoal_test_on_failure(note_told);
    assert_int_equal(shoal_test_run(2, give_back, NULL), 0);
}

/* ---- Leaks ---- */

static int forget_future(void *arg)
{
    (void)arg;
    (void)shoal_future_ready(NULL);
    return 0;
}

static int forget_on_core(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    (void)shoal_future_ready(NULL);
    (void)shoal_future_ready(NULL);
    return 0;
}

static int forget_elsewhere(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, forget_on_core, NULL), NULL), 0);
    return 0;
}

static int forget_fiber(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, give_back, NULL, "forgotten"), 0);
    return shoal_yield();
}

static int forget_memory(void *arg)
{
    *(void **)arg = shoal_mem_alloc(64);
    return 0;
}

static void what_is_never_consumed_fails_the_run(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, forget_future, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told, "1 object was never consumed or freed");
    assert_int_equal(shoal_test_run(2, forget_elsewhere, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told, "2 objects were never consumed or freed");
    assert_int_equal(shoal_test_run(1, forget_fiber, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told, "1 object was never consumed or freed");
    assert_int_equal(times_told, 3);
}

static void memory_never_freed_fails_the_run(void **state)
{
    (void)state;
    static void *lost[2]; /* still pointed at, so that LeakSanitizer leaves it to the harness */
    const struct shoal_test_options options = {.leaks_allowed = true};
    assert_int_equal(shoal_test_run(1, forget_memory, &lost[0]), SHOAL_TEST_FAILED);
    assert_string_equal(told, "1 object was never consumed or freed");
    assert_int_equal(shoal_test_run_options(&options, forget_memory, &lost[1]), 0);
    assert_int_equal(times_told, 1);
}

static void leaks_that_are_allowed_fail_nothing(void **state)
{
    (void)state;
    const struct shoal_test_options options = {.cores = 2, .leaks_allowed = true};
    assert_int_equal(shoal_test_run_options(&options, forget_elsewhere, NULL), 0);
    assert_int_equal(shoal_test_run_options(&options, run_one_wrong, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told, "1 expectation did not hold");
}

static int fail_and_forget(void *arg)
{
    (void)forget_future(arg);
    return run_one_wrong(arg);
}

static void failures_and_leaks_are_told_together(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, fail_and_forget, NULL), SHOAL_TEST_FAILED);
    assert_string_equal(told,
                        "1 expectation did not hold, and 1 object was never consumed or freed");
}

/* ---- The process around it ---- */

static unsigned entries(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    unsigned count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static void process_is_as_before_after_many_runs(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, look_around, (void *)3), 0);
    unsigned descriptors = entries("/proc/self/fd");
    unsigned threads = entries("/proc/self/task");
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(shoal_test_run(3, look_around, (void *)3), 0);
    /* The kernel takes a thread out of its table some time after the join, and rings likewise. */
    while (entries("/proc/self/fd") != descriptors || entries("/proc/self/task") > threads)
        usleep(1000);
}

static void own_handler(int number)
{
    (void)number;
}

static void signals_stay_the_hosts(void **state)
{
    (void)state;
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGPIPE, SIGINT, SIGTERM};
    struct sigaction former[SHOAL_ARRAY_SIZE(numbers)];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(numbers); i++) {
        struct sigaction action = {.sa_handler = own_handler};
        sigaction(numbers[i], &action, &former[i]);
    }
    sigset_t mask_before, mask_after;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    assert_int_equal(shoal_test_run(2, look_around, (void *)2), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(numbers); i++) {
        struct sigaction found;
        sigaction(numbers[i], &former[i], &found);
        assert_ptr_equal(found.sa_handler, own_handler);
        assert_int_equal(sigismember(&mask_before, numbers[i]),
                         sigismember(&mask_after, numbers[i]));
    }
}

static int terminate_itself(void *arg)
{
    (void)arg;
    (void)shoal_yield();
    raise(SIGTERM);
    return 3;
}

static int run_terminating(void *arg)
{
    signal(SIGTERM, SIG_DFL);
    return shoal_test_run(1, terminate_itself, arg);
}

static void a_signal_ends_the_process_as_without_a_run(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_terminating, NULL);
    assert_int_equal(child.signal, SIGTERM);
}

static int stop_by_signal(void *arg)
{
    (void)arg;
    kill(getpid(), SIGTERM);
    return shoal_stop_wait();
}

static void a_signal_stops_a_run_that_handles_them(void **state)
{
    (void)state;
    const struct shoal_test_options options = {.signals = true};
    assert_int_equal(shoal_test_run_options(&options, stop_by_signal, NULL), 0);
}

int main(void)
{
#define NOTING(test) cmocka_unit_test_setup_teardown(test, begin_noting, end_noting)
    const struct CMUnitTest tests[] = {
        NOTING(run_returns_what_the_function_returned),
        NOTING(run_has_the_cores_asked_for_even_more_than_cpus),
        NOTING(run_takes_the_backend_of_the_environment_or_of_the_options),
        NOTING(run_parses_words_with_the_programs_own_options),
        NOTING(expectation_that_does_not_hold_fails_its_run_alone),
        NOTING(failure_is_told_with_place_core_and_values),
        NOTING(framework_may_jump_away_from_a_failed_run),
        NOTING(what_is_never_consumed_fails_the_run),
        NOTING(memory_never_freed_fails_the_run),
        NOTING(leaks_that_are_allowed_fail_nothing),
        NOTING(failures_and_leaks_are_told_together),
        NOTING(process_is_as_before_after_many_runs),
        NOTING(signals_stay_the_hosts),
        NOTING(a_signal_ends_the_process_as_without_a_run),
        NOTING(a_signal_stops_a_run_that_handles_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
