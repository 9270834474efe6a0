/*
 * Without memory: child processes, signals and watched folders. See fault_check.h for what a walk
 * is.
 */
/* backends: both */
#include <fcntl.h>
#include <sys/stat.h>

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/process.h"
#include "shoal/runtime/signal.h"
#include "shoal/runtime/watch.h"

#include "unit/fault_check.h"

/* A helper thread that cannot be had is no memory. */
static int no_thread(int rc)
{
    return rc == -EAGAIN ? -ENOMEM : rc;
}

/* ---- Processes ---- */

static int run_program(void)
{
    static const char *const argv[] = {"cat", NULL};
    static char input[20000];
    memset(input, 'i', sizeof(input));
    const struct shoal_process_how how = {.argv = argv, .in = {SHOAL_PROCESS_PIPE, 0}};
    const struct shoal_process_run_how run = {.input = input, .input_bytes = sizeof(input)};
    struct shoal_process_result result = {0};
    int rc = shoal_process_run(&result, &how, &run);
    if (rc == 0) {
        SHOAL_EXPECT_INT(result.status.exit_code, 0);
        SHOAL_EXPECT_INT(result.out.bytes, sizeof(input));
    }
    shoal_process_result_free(&result);
    return rc;
}

static int spawn_and_kill(void)
{
    static const char *const argv[] = {"sleep", "3600", NULL};
    const struct shoal_process_how how = {.argv = argv};
    struct shoal_process *process;
    int rc = shoal_process_spawn(&process, &how);
    if (rc < 0)
        return rc;
    rc = shoal_process_wait(process, NULL, 0);
    SHOAL_EXPECT(rc == -ETIMEDOUT || rc == -ENOMEM);
    shoal_process_free(process);
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int process_scene(void)
{
    int rc = run_program();
    int killed = spawn_and_kill();
    return no_thread(rc < 0 ? rc : killed);
}

/* ---- Signals ---- */

static int signal_scene(void)
{
    struct shoal_signal usr;
    int rc = shoal_signal_subscribe(&usr, SIGUSR1);
    if (rc < 0)
        return rc;
    struct shoal_future *next = shoal_signal_next_future(&usr);
    (void)kill(getpid(), SIGUSR1);
    rc = shoal_await(next, NULL);
    if (rc == 0) {
        (void)kill(getpid(), SIGUSR1);
        rc = shoal_signal_next(&usr, SHOAL_NS_FOREVER);
        rc = rc > 0 ? 0 : rc;
    }
    shoal_signal_unsubscribe(&usr);
    return rc;
}

/* ---- Watches ---- */

static char folder[64];

static int make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/shoal-fault-watch-%d", (int)getpid());
    return mkdir(folder, 0700) == 0 ? 0 : -errno;
}

static void remove_folder(void)
{
    (void)rmdir(folder);
}

static int see_new_file(struct shoal_watch *watch)
{
    char path[80];
    struct shoal_watch_event event;
    snprintf(path, sizeof(path), "%s/file", folder);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    SHOAL_EXPECT(fd >= 0);
    close(fd);
    int rc = shoal_watch_next(watch, &event, 2 * SHOAL_NS_PER_S);
    (void)unlink(path);
    return rc;
}

static int watch_scene(void)
{
    struct shoal_watch *watch;
    int rc = shoal_watch_new(&watch);
    if (rc < 0)
        return rc;
    rc = shoal_watch_add(watch, folder, NULL);
    if (rc > 0)
        rc = see_new_file(watch);
    shoal_watch_free(watch);
    return no_thread(rc);
}

/* ---- The walks ---- */

static void walk_warm(const struct fault_walk *walk)
{
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)walk), 0);
}

static void processes_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "processes", .scene = process_scene};
    walk_warm(&walk);
    fault_walk_cold(&walk);
}

static void signals_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "signals", .scene = signal_scene};
    walk_warm(&walk);
    fault_walk_cold(&walk);
}

static void watches_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {
        .name = "watches", .scene = watch_scene, .begin = make_folder, .end = remove_folder};
    walk_warm(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(signals_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(watches_without_memory_fail_and_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
