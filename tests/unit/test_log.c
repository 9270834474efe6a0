/*
 * Log lines, panics and backtraces: what comes out on stderr, byte for byte where it is fixed.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/context_impl.h"
#include "shoal/runtime/log.h"

static char captured[65536];

/* Runs `function` with stderr in a file, and leaves what it wrote in `captured`. */
static size_t capture(void (*function)(void))
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int saved = dup(STDERR_FILENO);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    function();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    ssize_t length = pread(fileno(file), captured, sizeof(captured) - 1, 0);
    assert_true(length >= 0);
    captured[length] = 0;
    fclose(file);
    return (size_t)length;
}

static int matches(const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int rc = regexec(&regex, captured, 0, NULL, 0);
    regfree(&regex);
    if (rc != 0)
        print_message("no match for %s in:\n%s\n", pattern, captured);
    return rc == 0;
}

#define STAMP "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void write_info(void)
{
    shoal_log_write(SHOAL_LOG_INFO, "io backend: %s", "epoll");
}

static void log_write_on_a_core_has_the_fixed_form(void **state)
{
    (void)state;
    shoal_context_core = 3;
    capture(write_info);
    shoal_context_core = -1;
    assert_true(matches(STAMP "info  core 3: io backend: epoll\n$"));
}

static void log_write_on_a_foreign_thread_says_core_dash(void **state)
{
    (void)state;
    capture(write_info);
    assert_true(matches(STAMP "info  core -: io backend: epoll\n$"));
}

static void log_write_date_is_the_date_of_today(void **state)
{
    (void)state;
    char before[32], after[32];
    struct tm tm;
    time_t now = time(NULL);
    strftime(before, sizeof(before), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now, &tm));
    capture(write_info);
    now = time(NULL);
    strftime(after, sizeof(after), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now, &tm));
    assert_true(strncmp(captured, before, 19) >= 0);
    assert_true(strncmp(captured, after, 19) <= 0);
}

static void write_all_levels(void)
{
    SHOAL_ERROR("e");
    SHOAL_WARN("w");
    SHOAL_INFO("i");
    SHOAL_DEBUGF("d");
}

static void log_level_warn_hides_info_and_debug(void **state)
{
    (void)state;
    shoal_log_set_level(SHOAL_LOG_WARN);
    assert_false(shoal_log_enabled(SHOAL_LOG_INFO));
    capture(write_all_levels);
    shoal_log_set_level(SHOAL_LOG_INFO);
    assert_true(matches(STAMP "error core -: e\n[^\n]* warn  core -: w\n$"));
}

static void log_level_debug_shows_all(void **state)
{
    (void)state;
    shoal_log_set_level(SHOAL_LOG_DEBUG);
    capture(write_all_levels);
    shoal_log_set_level(SHOAL_LOG_INFO);
    assert_true(matches(": e\n.*: w\n.*: i\n.*debug core -: d\n$"));
}

static void write_control(void)
{
    SHOAL_INFO("%s", "a\nb\tc\x1b[31m\x7f \xc2\x9b \xc3\xa9");
}

static void log_write_control_characters_are_escaped(void **state)
{
    (void)state;
    capture(write_control);
    assert_true(matches(": a\\\\x0ab\\\\x09c\\\\x1b\\[31m\\\\x7f \\\\xc2\\\\x9b \xc3\xa9\n$"));
}

static char long_text[1500];

static void write_long(void)
{
    SHOAL_INFO("%s", long_text);
}

static void log_write_long_line_is_cut_with_dots(void **state)
{
    (void)state;
    for (size_t length = 900; length < sizeof(long_text); length++) {
        memset(long_text, 'x', length);
        long_text[length] = 0;
        size_t written = capture(write_long);
        size_t whole = strlen("2026-11-23T14:00:00.123Z info  core -: ") + length + 1;
        assert_int_equal(written, whole <= 1001 ? whole : 1001);
        assert_int_equal(strcmp(captured + written - 4, "...\n") == 0, whole > 1001);
        assert_ptr_equal(strchr(captured, '\n'), captured + written - 1);
    }
}

static void log_write_cut_never_splits_a_character_or_escape(void **state)
{
    (void)state;
    for (size_t start = 900; start < 980; start++) {
        memset(long_text, 'x', start);
        memset(long_text + start, 0, sizeof(long_text) - start);
        for (size_t at = start; at + 4 < sizeof(long_text) - 1; at += 4)
            memcpy(long_text + at, start % 2 ? "\xf0\x9f\x90\x9f" : "\n\n\n\n", 4);
        size_t written = capture(write_long);
        assert_in_range(written, 990, 1001);
        size_t tail = strspn(strchr(captured, 'x'), "x");
        const char *rest = strchr(captured, 'x') + tail;
        size_t escaped = strlen(rest) - strlen("...\n");
        assert_int_equal(escaped % 4, 0);
        assert_string_equal(rest + escaped, "...\n");
    }
}

static void log_write_escape_at_the_end_is_within_the_limit(void **state)
{
    (void)state;
    for (size_t length = 950; length < 970; length++) {
        memset(long_text, 'x', length);
        memcpy(long_text + length, "\n", 2);
        size_t written = capture(write_long);
        assert_in_range(written, 990, 1001);
        assert_true(strcmp(captured + written - 5, "\\x0a\n") == 0 ||
                    strcmp(captured + written - 4, "...\n") == 0);
    }
}

static void write_error_text(void)
{
    errno = EPIPE;
    SHOAL_INFO("%m");
    assert_int_equal(errno, EPIPE);
}

static void log_write_keeps_errno(void **state)
{
    (void)state;
    capture(write_error_text);
    assert_true(matches(": Broken pipe\n$"));
}

static void *write_many(void *argument)
{
    (void)argument;
    for (int i = 0; i < 500; i++)
        SHOAL_INFO("%s", "begin-abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-end");
    return NULL;
}

static void log_write_two_threads_lines_do_not_mix(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_many, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    FILE *file = fdopen(ends[0], "r");
    char line[1100];
    int lines = 0;
    for (; fgets(line, sizeof(line), file) != NULL; lines++) {
        assert_non_null(strstr(line, " core -: begin-abc"));
        assert_string_equal(line + strlen(line) - 5, "-end\n");
    }
    fclose(file);
    assert_int_equal(lines, 1000);
}

static void log_write_full_pipe_drops_the_line_and_returns(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    static char filler[4096];
    while (write(ends[1], filler, sizeof(filler)) > 0)
        ;
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    write_info();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[0]);
    close(ends[1]);
}

/* ---- panics, in a child each ---- */

static void (*doomed)(void);

static void run_doomed_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL); /* cmocka has its own */
        doomed();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static __attribute__((noinline)) void inner_function_that_panics(void)
{
    SHOAL_CHECK(1 + 1 == 3, "sum is %d\nforged line", 2);
}

static const char *fiber_name(void)
{
    return "accept \"loop\"";
}

static const char *fiber_name_that_panics(void)
{
    SHOAL_PANIC("a name that cannot be had");
}

static void panic_in_a_fiber(void)
{
    shoal_context_core = 7;
    shoal_context_fiber_name = fiber_name;
    inner_function_that_panics();
}

static void panic_with_a_bad_name(void)
{
    shoal_context_fiber_name = fiber_name_that_panics;
    inner_function_that_panics();
}

static void panic_with_a_long_text(void)
{
    memset(long_text, 'y', sizeof(long_text) - 1);
    SHOAL_PANIC("%s%s%s", long_text, long_text, long_text);
}

static void check_failed_reports_place_core_fiber_and_frames(void **state)
{
    (void)state;
    doomed = panic_in_a_fiber;
    capture(run_doomed_child);
    assert_true(matches("^panic: [^ ]*test_log\\.c:[0-9]+: inner_function_that_panics: sum is 2"));
    assert_true(matches("\\(core 7, fiber accept \"loop\"\\)\n"));
    assert_true(matches("\n    #0  [^\n]*\\(\\+0x[0-9a-f]+\\) inner_function_that_panics\\+0x"));
}

static void check_failed_outside_of_fibers_says_so(void **state)
{
    (void)state;
    doomed = inner_function_that_panics;
    capture(run_doomed_child);
    assert_true(matches("\\(core -, no fiber\\)\n"));
}

static void check_failed_inside_a_panic_aborts_at_once(void **state)
{
    (void)state;
    doomed = panic_with_a_bad_name;
    assert_int_equal(capture(run_doomed_child), 0);
}

static void check_failed_long_text_still_names_the_core(void **state)
{
    (void)state;
    doomed = panic_with_a_long_text;
    capture(run_doomed_child);
    assert_true(matches("^panic: [^\n]*yyy \\(core -, no fiber\\)\n    #0 "));
}

static void check_true_condition_does_nothing(void **state)
{
    (void)state;
    SHOAL_CHECK(1 + 1 == 2, "sum");
    SHOAL_DCHECK(1 + 1 == 2, "sum");
}

/* ---- backtraces ---- */

static unsigned skip_frames;

static __attribute__((noinline)) void write_backtrace(void)
{
    errno = ENOENT;
    shoal_backtrace_write(STDERR_FILENO, skip_frames);
    assert_int_equal(errno, ENOENT);
}

static __attribute__((noinline)) void static_outer_function(void)
{
    write_backtrace();
    __asm__ volatile("" ::: "memory"); /* no tail call */
}

static void backtrace_write_names_static_functions_and_skips(void **state)
{
    (void)state;
    shoal_backtrace_init();
    skip_frames = 0;
    capture(static_outer_function);
    assert_true(matches("^    #0  [^\n]* write_backtrace\\+0x[^\n]*\n    #1  [^\n]* "
                        "static_outer_function\\+0x"));
    assert_true(matches(" main\\+0x[^\n]*\n"));
    skip_frames = 1;
    capture(static_outer_function);
    assert_true(matches("^    #0  [^\n]* static_outer_function\\+0x"));
}

static void backtrace_write_skip_beyond_the_end_says_no_frames(void **state)
{
    (void)state;
    skip_frames = 1000;
    capture(static_outer_function);
    assert_string_equal(captured, "    (no frames)\n");
}

static void handler(int number)
{
    (void)number;
    shoal_backtrace_write(STDERR_FILENO, 0);
    __asm__ volatile("" ::: "memory");
}

static __attribute__((noinline)) void function_that_is_interrupted(void)
{
    raise(SIGUSR1);
    __asm__ volatile("" ::: "memory");
}

static void backtrace_write_in_a_handler_shows_what_was_interrupted(void **state)
{
    (void)state;
    signal(SIGUSR1, handler);
    capture(function_that_is_interrupted);
    assert_true(matches("^    #0  [^\n]* handler\\+0x"));
    assert_true(matches(" function_that_is_interrupted\\+0x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_write_on_a_core_has_the_fixed_form),
        cmocka_unit_test(log_write_on_a_foreign_thread_says_core_dash),
        cmocka_unit_test(log_write_date_is_the_date_of_today),
        cmocka_unit_test(log_level_warn_hides_info_and_debug),
        cmocka_unit_test(log_level_debug_shows_all),
        cmocka_unit_test(log_write_control_characters_are_escaped),
        cmocka_unit_test(log_write_long_line_is_cut_with_dots),
        cmocka_unit_test(log_write_cut_never_splits_a_character_or_escape),
        cmocka_unit_test(log_write_escape_at_the_end_is_within_the_limit),
        cmocka_unit_test(log_write_keeps_errno),
        cmocka_unit_test(log_write_two_threads_lines_do_not_mix),
        cmocka_unit_test(log_write_full_pipe_drops_the_line_and_returns),
        cmocka_unit_test(check_failed_reports_place_core_fiber_and_frames),
        cmocka_unit_test(check_failed_outside_of_fibers_says_so),
        cmocka_unit_test(check_failed_inside_a_panic_aborts_at_once),
        cmocka_unit_test(check_failed_long_text_still_names_the_core),
        cmocka_unit_test(check_true_condition_does_nothing),
        cmocka_unit_test(backtrace_write_names_static_functions_and_skips),
        cmocka_unit_test(backtrace_write_skip_beyond_the_end_says_no_frames),
        cmocka_unit_test(backtrace_write_in_a_handler_shows_what_was_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
