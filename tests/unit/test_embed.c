/*
 * The runtime inside a host: each promise of embed.h.
 */
/* backends: both */
#include <signal.h>

#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/fault.h"
#include "shoal/runtime/stall_impl.h"

#include "shoal/smp/app.h"

#include "unit/foreign_check.h"

static struct shoal_embed_options options_of(int (*setup)(void *arg), int (*run)(void *arg),
                                             void *arg)
{
    static const char *words[] = {"--overprovisioned", "--io-backend", "auto", NULL};
    const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
    if (backend != NULL && backend[0] != '\0')
        words[2] = backend;
    return (struct shoal_embed_options){
        .cores = FOREIGN_CORES, .words = words, .setup = setup, .run = run, .arg = arg};
}

static struct shoal_embed *start(const struct shoal_embed_options *options)
{
    struct shoal_embed *embed;
    struct shoal_embed_failure failure;
    if (shoal_embed_start(&embed, options, &failure) < 0)
        fail_msg("no runtime: %s", failure.text);
    return embed;
}

/* Waits for the end; returns the exit code. */
static int end(struct shoal_embed *embed)
{
    int code = -1, again = -1;
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, &code), 0);
    assert_int_equal(shoal_embed_wait(embed, 0, &again), 0);
    assert_int_equal(again, code);
    assert_int_equal(shoal_embed_free(embed), 0);
    assert_int_equal(shoal_test_failures(), 0);
    return code;
}

/* ---- Starts and ends ---- */

static int count_cores(void *arg, union shoal_value *out)
{
    (void)arg;
    out->i64 = shoal_core_count();
    return 0;
}

static void embed_starts_and_stops_any_number_of_times(void **state)
{
    (void)state;
    for (int round = 0; round < 40 / SHOAL_TEST_SLOWDOWN; round++) {
        struct shoal_embed *embed = foreign_start();
        struct shoal_foreign_answer answer = {.text = NULL};
        const struct shoal_foreign_call call = {.core = 1, .fn = count_cores};
        assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
        assert_int_equal(answer.value.i64, FOREIGN_CORES);
        assert_int_equal(shoal_embed_wait(embed, 0, NULL), -ETIMEDOUT);
        assert_int_equal(shoal_embed_free(embed), -EBUSY);
        foreign_stop(embed);
    }
    assert_int_equal(shoal_embed_free(NULL), 0);
}

static void embed_second_runtime_is_refused(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_embed *second = (void *)1;
    struct shoal_embed_failure failure;
    const struct shoal_embed_options options = options_of(NULL, NULL, NULL);
    assert_int_equal(shoal_embed_start(&second, &options, &failure), -EBUSY);
    assert_null(second);
    assert_int_equal(failure.exit_code, 1);
    assert_string_equal(failure.text, "a runtime runs in this process already");
    assert_int_equal(shoal_embed_start(&second, &options, NULL), -EBUSY);
    const struct shoal_foreign_call call = {.core = 1, .fn = count_cores};
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), 0); /* the first one goes on */
    foreign_stop(embed);
}

static void embed_stop_is_asked_for_any_number_of_times(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    for (int i = 0; i < 5; i++)
        shoal_embed_stop(embed);
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL), 0);
    shoal_embed_stop(embed); /* also afterwards */
    assert_int_equal(end(embed), 0);
    foreign_running = NULL;
}

static int stop_here(void *arg, union shoal_value *out)
{
    struct shoal_embed *embed = arg;
    out->i64 = shoal_embed_wait(embed, 0, NULL);
    if (shoal_core_id() == 1)
        shoal_stop_request();
    shoal_embed_stop(embed);
    return 0;
}

static void embed_stop_may_come_from_any_core(void **state)
{
    (void)state;
    for (unsigned core = 0; core < FOREIGN_CORES; core++) {
        const struct shoal_embed_options options = options_of(NULL, NULL, NULL);
        struct shoal_embed *embed = start(&options);
        struct shoal_foreign_answer answer = {.text = NULL};
        const struct shoal_foreign_call call = {.core = core, .fn = stop_here, .arg = embed};
        assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
        assert_int_equal(answer.value.i64, -EDEADLK);
        assert_int_equal(end(embed), 0);
    }
}

static void embed_descriptor_is_readable_at_the_end(void **state)
{
    (void)state;
    const struct shoal_embed_options options = options_of(NULL, NULL, NULL);
    struct shoal_embed *embed = start(&options);
    struct pollfd fd = {.fd = shoal_embed_fd(embed), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, 0), 0);
    shoal_embed_stop(embed);
    assert_int_equal(poll(&fd, 1, -1), 1);
    assert_int_equal(end(embed), 0);
}

/* ---- What the host gives ---- */

static int set_up(void *arg)
{
    int rc = shoal_await(shoal_submit_to(1, count_cores, NULL), NULL); /* all cores run */
    *(int *)arg = rc == 0 ? 7 : rc;
    return rc;
}

static int run_once(void *arg)
{
    *(int *)arg *= 6;
    return *(int *)arg;
}

static int run_failing(void *arg)
{
    (void)arg;
    return shoal_await(shoal_future_failed(-EADDRINUSE, "port 80 belongs to another"), NULL);
}

static int run_wrong_option(void *arg)
{
    (void)arg;
    return shoal_config_error("--thing: \"%d\" is wrong", 5);
}

static void embed_exit_code_and_text_are_what_a_program_would_have(void **state)
{
    (void)state;
    char text[SHOAL_EMBED_TEXT_MAX];
    int number = 0;
    struct shoal_embed_options options = options_of(set_up, run_once, &number);
    struct shoal_embed *embed = start(&options);
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL), 0);
    shoal_embed_text(embed, text, sizeof(text));
    assert_string_equal(text, "");
    assert_int_equal(end(embed), 42);
    options = options_of(NULL, run_failing, NULL);
    embed = start(&options);
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL), 0);
    shoal_embed_text(embed, text, sizeof(text));
    assert_string_equal(text, "port 80 belongs to another");
    assert_int_equal(end(embed), 1);
    options = options_of(NULL, run_wrong_option, NULL);
    embed = start(&options);
    assert_int_equal(shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL), 0);
    shoal_embed_text(embed, text, sizeof(text));
    assert_string_equal(text, "--thing: \"5\" is wrong");
    assert_int_equal(end(embed), 2);
}

static int fail_silently(void *arg)
{
    (void)arg;
    return -EACCES;
}

static void expect_refused(const struct shoal_embed_options *options, int rc, int exit_code,
                           const char *text)
{
    struct shoal_embed *embed = (void *)1;
    struct shoal_embed_failure failure;
    assert_int_equal(shoal_embed_start(&embed, options, &failure), rc);
    assert_null(embed);
    assert_int_equal(failure.exit_code, exit_code);
    assert_string_equal(failure.text, text);
    assert_int_equal(shoal_embed_start(&embed, options, NULL), rc);
}

static void embed_start_that_fails_says_why_and_leaves_nothing(void **state)
{
    (void)state;
    struct shoal_embed_options options = options_of(run_failing, NULL, NULL);
    expect_refused(&options, -EADDRINUSE, 1, "port 80 belongs to another");
    options = options_of(run_wrong_option, NULL, NULL);
    expect_refused(&options, SHOAL_EOPTION, 2, "--thing: \"5\" is wrong");
    options = options_of(fail_silently, NULL, NULL);
    expect_refused(&options, -EACCES, 1, "Permission denied");
    foreign_stop(foreign_start());
}

static void embed_wrong_options_come_back_as_text(void **state)
{
    (void)state;
    static const struct {
        const char *words[4];
        const char *text;
    } cases[] = {
        {{"--smp", "0"}, "--smp: \"0\" is out of range (allowed: 1 to 1024)"},
        {{"--no-such"}, NULL},
        {{"--cpuset", "9999"}, NULL},
        {{"--memory", "1K"}, "--memory: \"1024\" is too small for 2 cores (allowed: at least 16M)"},
        {{"--help"}, "--help: an embedded runtime does not answer it"},
        {{"--version"}, "--version: an embedded runtime does not answer it"},
        {{"word"}, "\"word\" is not an option (--help lists all)"},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++) {
        struct shoal_embed *embed;
        struct shoal_embed_failure failure;
        struct shoal_embed_options options = {.cores = 2, .words = cases[i].words};
        assert_int_equal(shoal_embed_start(&embed, &options, &failure), SHOAL_EOPTION);
        assert_int_equal(failure.exit_code, 2);
        assert_true(strlen(failure.text) > 0);
        if (cases[i].text != NULL && strcmp(cases[i].words[0], "--memory") != 0)
            assert_string_equal(failure.text, cases[i].text);
    }
    const char *many[400];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(many); i++)
        many[i] = "--overprovisioned";
    many[399] = NULL;
    const struct shoal_embed_options options = {.words = many};
    expect_refused(&options, SHOAL_EOPTION, 2, "more than 256 words of options");
}

static const char *given_name;
static uint64_t given_number;

static int check_given(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_STR(given_name, "a name");
    SHOAL_EXPECT_INT(given_number, 12);
    return 0;
}

static void embed_words_are_copied_and_may_give_options_of_the_host(void **state)
{
    (void)state;
    char name[] = "a name";
    const char *words[] = {"--overprovisioned", "--name", name, "--number=12", "--smp", "1", NULL};
    const struct shoal_option own[] = {
        {"name", SHOAL_OPTION_STRING, &given_name, "NAME", "A name.", 0, 0, NULL, NULL},
        {"number", SHOAL_OPTION_UINT, &given_number, "N", "A number.", 0, 100, NULL, NULL},
        {.name = NULL}};
    const struct shoal_embed_options options = {
        .cores = 2, .words = words, .options = own, .setup = check_given};
    struct shoal_embed *embed = start(&options);
    memset(name, 'x', sizeof(name) - 1);
    assert_string_equal(given_name, "a name");
    assert_int_equal(shoal_core_count(), 1); /* the words win over the struct */
    shoal_embed_stop(embed);
    assert_int_equal(end(embed), 0);
}

/* ---- What stays the host's ---- */

struct process_state {
    struct sigaction actions[65];
    sigset_t mask;
    cpu_set_t cpus;
    struct rlimit files;
};

static void look_at_process(struct process_state *out)
{
    memset(out, 0, sizeof(*out));
    for (int i = 1; i < 65; i++)
        (void)sigaction(i, NULL, &out->actions[i]);
    pthread_sigmask(SIG_SETMASK, NULL, &out->mask);
    sched_getaffinity(0, sizeof(out->cpus), &out->cpus);
    getrlimit(RLIMIT_NOFILE, &out->files);
}

static void expect_same_process(const struct process_state *before, bool diagnostics)
{
    struct process_state now;
    look_at_process(&now);
    for (int i = 1; i < 65; i++) {
        bool ours = diagnostics && (i == SIGSEGV || i == SIGBUS || i == SHOAL_STALL_SIGNAL ||
                                    i == SHOAL_PROBE_SIGNAL);
        const int mine = SA_SIGINFO | SA_RESTART | SA_ONSTACK | SA_NODEFER | SA_RESETHAND;
        bool same = before->actions[i].sa_handler == now.actions[i].sa_handler &&
                    (before->actions[i].sa_flags & mine) == (now.actions[i].sa_flags & mine);
        if (same == ours)
            fail_msg("signal %d", i);
        assert_int_equal(sigismember(&before->mask, i), sigismember(&now.mask, i));
    }
    assert_true(CPU_EQUAL(&before->cpus, &now.cpus));
    assert_int_equal(before->files.rlim_cur, now.files.rlim_cur);
}

static int look_at_mask(void *arg, union shoal_value *out)
{
    sigset_t mask;
    (void)arg;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int i = 1; i < 64; i++)
        out->u64 |= sigismember(&mask, i) == 1 ? UINT64_C(1) << i : 0;
    return 0;
}

static void embed_changes_nothing_of_the_process(void **state)
{
    (void)state;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    const struct rlimit lower = {.rlim_cur = 300, .rlim_max = files.rlim_max};
    setrlimit(RLIMIT_NOFILE, &lower);
    struct process_state before;
    look_at_process(&before);
    struct shoal_embed *embed = foreign_start();
    expect_same_process(&before, false);
    for (unsigned core = 0; core < FOREIGN_CORES; core++) {
        struct shoal_foreign_answer answer = {.text = NULL};
        const struct shoal_foreign_call call = {.core = core, .fn = look_at_mask};
        assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
        static const int blocked[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGPIPE,
                                      SIGCHLD, SIGALRM, SIGUSR1, SIGXFSZ};
        static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(blocked); i++)
            assert_true((answer.value.u64 & UINT64_C(1) << blocked[i]) != 0);
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(open); i++)
            assert_true((answer.value.u64 & UINT64_C(1) << open[i]) == 0);
    }
    foreign_stop(embed);
    expect_same_process(&before, false);
    setrlimit(RLIMIT_NOFILE, &files);
}

static void embed_diagnostics_take_their_signals_for_the_time_being(void **state)
{
    (void)state;
    struct process_state before;
    struct shoal_embed_options options = options_of(NULL, NULL, NULL);
    options.diagnostics = true;
    look_at_process(&before);
    for (int round = 0; round < 2; round++) {
        struct shoal_embed *embed = start(&options);
        expect_same_process(&before, true);
        shoal_embed_stop(embed);
        assert_int_equal(end(embed), 0);
        expect_same_process(&before, false);
    }
}

static atomic_int handled;
static pthread_t host_thread;

static void on_term(int number)
{
    (void)number;
    if (pthread_equal(pthread_self(), host_thread))
        atomic_fetch_add(&handled, 1);
}

/* A signal to the process comes to the host's thread, and the runtime does not stop by it. */
static void embed_signals_are_handled_on_the_hosts_thread(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = on_term}, before;
    host_thread = pthread_self();
    sigaction(SIGTERM, &action, &before);
    struct shoal_embed *embed = foreign_start();
    for (int i = 1; i <= 20; i++) {
        kill(getpid(), SIGTERM);
        foreign_await(&handled, i);
    }
    assert_int_equal(shoal_embed_wait(embed, 0, NULL), -ETIMEDOUT);
    foreign_stop(embed);
    sigaction(SIGTERM, &before, NULL);
}

/* ---- Ends that are not orderly ---- */

static int write_to_closed_pipe(void *arg, union shoal_value *out)
{
    int ends[2];
    (void)arg;
    if (pipe(ends) != 0)
        return -errno;
    close(ends[0]);
    out->i64 = write(ends[1], "x", 1) < 0 ? -errno : 0; /* SIGPIPE's action is to end the process */
    close(ends[1]);
    return 0;
}

static int exit_with_cores(void *arg)
{
    struct shoal_foreign_answer answer = {.text = NULL};
    struct shoal_foreign_port *port;
    (void)arg;
    signal(SIGPIPE, SIG_DFL);
    (void)foreign_start();
    const struct shoal_foreign_call pipe_call = {.core = 1, .fn = write_to_closed_pipe};
    if (shoal_foreign_run(&pipe_call, NULL, &answer) != 0 || answer.value.i64 != -EPIPE)
        return 1;
    const struct shoal_foreign_call calls[] = {{.core = 1, .fiber_fn = foreign_wait},
                                               {.core = 0, .future_fn = foreign_wait_future}};
    if (shoal_foreign_port_new(&port, 4) != 0 || shoal_foreign_port_submit(port, calls, 2) != 2)
        return 1;
    exit(7);
}

static void embed_host_that_exits_without_a_stop_has_its_exit_code(void **state)
{
    (void)state;
    struct shoal_test_child child;
    for (int round = 0; round < 5; round++) {
        shoal_test_in_child(&child, exit_with_cores, NULL);
        assert_int_equal(child.signal, 0);
        assert_int_equal(child.exit_code, 7);
        assert_string_equal(child.text, "");
    }
}

static int stubborn(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_fiber_shield();
    atomic_fetch_add((atomic_int *)arg, 1);
    while (!shoal_fiber_cancelled()) /* never seen behind the shield */
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static int hang_in_stop(void *arg)
{
    atomic_int waits = 0;
    char text[SHOAL_EMBED_TEXT_MAX] = "";
    struct shoal_foreign_port *port;
    (void)arg;
    struct shoal_embed *embed = foreign_start();
    const struct shoal_foreign_call call = {.core = 1, .fiber_fn = stubborn, .arg = &waits};
    if (shoal_foreign_port_new(&port, 4) != 0 || shoal_foreign_port_submit(port, &call, 1) != 1)
        return 1;
    foreign_await(&waits, 1);
    shoal_embed_stop(embed);
    while (text[0] == '\0') {
        if (shoal_embed_wait(embed, 10 * SHOAL_NS_PER_MS, NULL) != -ETIMEDOUT)
            return 2;
        shoal_embed_text(embed, text, sizeof(text));
    }
    return strstr(text, "the log names them") != NULL ? 8 : 3;
}

/* The process is the host's: it is told, and goes on. */
static void embed_stop_that_hangs_is_told_and_does_not_end_the_host(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, hang_in_stop, NULL);
    assert_int_equal(child.exit_code, 8);
    assert_non_null(strstr(child.text, "fiber \"foreign call\" does not end"));
}

/* ---- Nothing is printed ---- */

static int fail_all_ways(void *arg)
{
    struct shoal_embed *embed;
    struct shoal_embed_failure failure;
    static const char *const bad[][3] = {
        {"--smp", "0", NULL}, {"--help", NULL, NULL}, {"--no-such", NULL, NULL}};
    int (*const setups[])(void *) = {run_failing, run_wrong_option, fail_silently};
    (void)arg;
    int wrong = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++) {
        const struct shoal_embed_options options = {.words = bad[i]};
        wrong += shoal_embed_start(&embed, &options, &failure) == 0;
    }
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(setups); i++) {
        struct shoal_embed_options options = options_of(setups[i], NULL, NULL);
        wrong += shoal_embed_start(&embed, &options, &failure) == 0;
        options = options_of(NULL, setups[i], NULL);
        wrong += shoal_embed_start(&embed, &options, &failure) != 0;
        wrong += shoal_embed_wait(embed, SHOAL_NS_FOREVER, NULL) != 0;
        wrong += shoal_embed_free(embed) != 0;
    }
    return wrong;
}

static void embed_failures_print_nothing(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, fail_all_ways, NULL);
    assert_string_equal(child.text, "");
    assert_int_equal(child.exit_code, 0);
}

/* ---- No memory ---- */

static void embed_without_memory_on_the_hosts_thread_does_not_start(void **state)
{
    (void)state;
    const struct shoal_embed_options options = options_of(NULL, NULL, NULL);
    for (uint64_t nth = 1;; nth++) {
        struct shoal_embed *embed;
        struct shoal_embed_failure failure;
        struct shoal_fault_stats stats;
        shoal_fault_arm(&(struct shoal_fault_plan){.nth = nth});
        int rc = shoal_embed_start(&embed, &options, &failure);
        shoal_fault_disarm(&stats);
        if (rc == 0) {
            shoal_embed_stop(embed);
            assert_int_equal(end(embed), 0);
        } else {
            assert_true(rc == -ENOMEM || rc == -EAGAIN);
            assert_int_equal(failure.exit_code, 1);
            assert_true(strlen(failure.text) > 0);
        }
        if (stats.failed == 0)
            break;
        assert_true(rc < 0);
    }
}

/* Each allocation of each core's start in turn: no runtime, or one that runs and stops. */
static void embed_without_memory_on_a_core_does_not_start(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (unsigned core = 0; core < FOREIGN_CORES; core++) {
        for (unsigned nth = 1; nth < 60; nth += SHOAL_TEST_SLOWDOWN == 1 ? 1 : 7) {
            char plan[32];
            snprintf(plan, sizeof(plan), "nth=%u,core=%u", nth, core);
            const char *words[] = {
                "--overprovisioned", "--io-backend", "auto", "--log-level", "error",
                "--fail-alloc",      plan,           NULL};
            const char *backend = getenv("SHOAL_TEST_IO_BACKEND");
            if (backend != NULL && backend[0] != '\0')
                words[2] = backend;
            const struct shoal_embed_options options = {.cores = 2, .words = words};
            struct shoal_embed *embed;
            struct shoal_embed_failure failure;
            int rc = shoal_embed_start(&embed, &options, &failure);
            if (rc == 0) {
                shoal_embed_stop(embed);
                (void)end(embed);
                continue;
            }
            failures++;
            assert_true(strlen(failure.text) > 0);
        }
    }
    print_message("%u starts failed\n", failures);
    assert_true(failures > 0);
    foreign_stop(foreign_start());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_starts_and_stops_any_number_of_times),
        cmocka_unit_test(embed_second_runtime_is_refused),
        cmocka_unit_test(embed_stop_is_asked_for_any_number_of_times),
        cmocka_unit_test(embed_stop_may_come_from_any_core),
        cmocka_unit_test(embed_descriptor_is_readable_at_the_end),
        cmocka_unit_test(embed_exit_code_and_text_are_what_a_program_would_have),
        cmocka_unit_test(embed_start_that_fails_says_why_and_leaves_nothing),
        cmocka_unit_test(embed_wrong_options_come_back_as_text),
        cmocka_unit_test(embed_words_are_copied_and_may_give_options_of_the_host),
        cmocka_unit_test(embed_changes_nothing_of_the_process),
        cmocka_unit_test(embed_diagnostics_take_their_signals_for_the_time_being),
        cmocka_unit_test(embed_signals_are_handled_on_the_hosts_thread),
        cmocka_unit_test(embed_host_that_exits_without_a_stop_has_its_exit_code),
        cmocka_unit_test(embed_stop_that_hangs_is_told_and_does_not_end_the_host),
        cmocka_unit_test(embed_failures_print_nothing),
        cmocka_unit_test(embed_without_memory_on_the_hosts_thread_does_not_start),
        cmocka_unit_test(embed_without_memory_on_a_core_does_not_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
