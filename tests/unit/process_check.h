/*
 * What the tests of processes share: starting a shell, looking at what it says, and making sure
 * that nothing is left behind: no descriptor, no child, no zombie.
 */
#ifndef SHOAL_TESTS_UNIT_PROCESS_CHECK_H
#define SHOAL_TESTS_UNIT_PROCESS_CHECK_H

#include <dirent.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/process.h"

#include "unit/harness.h"

#define LONG_NS (60 * SHOAL_NS_PER_S)

__attribute__((unused)) static const char *const quiet[] = {"--log-level", "error", NULL};

static inline int atoi_checked(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

/* Descriptors of this process that are open. */
static inline int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* Children of this process, those that are zombies included. */
static inline int count_children(void)
{
    DIR *dir = opendir("/proc");
    int count = 0;
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char path[300];
        char text[512] = "";
        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        FILE *file = entry->d_name[0] >= '0' && entry->d_name[0] <= '9' ? fopen(path, "re") : NULL;
        if (file == NULL)
            continue;
        const char *end = fgets(text, sizeof(text), file) != NULL ? strrchr(text, ')') : NULL;
        if (end != NULL && atoi_checked(end + 4) == (int)getpid())
            count++;
        fclose(file);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* Runs `fn` and makes sure that it leaves nothing behind in this process. */
static inline void run_clean(unsigned cores, int (*fn)(void *arg), void *arg)
{
    int fds = count_fds();
    int children = count_children();
    assert_int_equal(shoal_test_run(cores, fn, arg), 0);
    assert_int_equal(count_fds(), fds);
    assert_int_equal(count_children(), children);
}

static inline struct shoal_process *start(const struct shoal_process_how *how)
{
    struct shoal_process *process = NULL;
    int rc = shoal_process_spawn(&process, how);
    if (!SHOAL_EXPECT_INT(rc, 0)) {
        fprintf(stderr, "%s\n", shoal_error_message());
        abort();
    }
    return process;
}

/* `script` in a shell, all else as `how` (NULL: the defaults) says. */
static inline struct shoal_process *start_sh(const char *script,
                                             const struct shoal_process_how *how)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct shoal_process_how with = how != NULL ? *how : (struct shoal_process_how){0};
    with.argv = argv;
    return start(&with);
}

/* Reads `pipe` to its end, which is to give `expected`. */
static inline void expect_stream(struct shoal_process_pipe *pipe, const char *expected)
{
    char text[4096];
    size_t len = 0;
    int rc;
    while ((rc = shoal_process_pipe_read(pipe, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)rc;
    SHOAL_EXPECT_INT(rc, 0);
    text[len] = '\0';
    if (!SHOAL_EXPECT(strcmp(text, expected) == 0))
        fprintf(stderr, "it is: %s\nand not: %s\n", text, expected);
}

/* Runs a program to its end, whose standard output is to be `expected`. */
static inline void expect_output(const char *expected, const struct shoal_process_how *how)
{
    struct shoal_process_how with = *how;
    struct shoal_process_status status;
    with.out.kind = SHOAL_PROCESS_PIPE;
    struct shoal_process *process = start(&with);
    expect_stream(shoal_process_stdout(process), expected);
    SHOAL_EXPECT_INT(shoal_process_wait(process, &status, LONG_NS), 0);
    SHOAL_EXPECT_INT(status.exit_code, 0);
    shoal_process_free(process);
}

static inline void expect_sh(const char *script, const char *expected,
                             const struct shoal_process_how *how)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct shoal_process_how with = how != NULL ? *how : (struct shoal_process_how){0};
    with.argv = argv;
    expect_output(expected, &with);
}

#endif
