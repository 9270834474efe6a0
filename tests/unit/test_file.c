/*
 * Files on both backends: contents, confinement, refusals, and what odd kernels answer.
 */
/* backends: both */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "shoal/runtime/directory.h"
#include "shoal/runtime/file_path.h"

#include "unit/file_check.h"

/* ---- Contents ---- */

static int backend_fiber(void *arg)
{
    (void)arg;
    const char *wanted = getenv("SHOAL_TEST_IO_BACKEND");
    HOLD(wanted == NULL || strcmp(shoal_core_io_backend(), wanted) == 0);
    return 0;
}

static void file_backend_is_the_one_asked_for(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, backend_fiber, NULL), 0);
}

static int read_back_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    char text[64] = "";
    HOLD(open_in(&file, "hello.txt") == 0);
    HOLD(file.fd >= 0);
    HOLD((fcntl(file.fd, F_GETFD) & FD_CLOEXEC) != 0);
    HOLD((fcntl(file.fd, F_GETFL) & O_NONBLOCK) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 12);
    HOLD(memcmp(text, "hello world\n", 12) == 0);
    HOLD(shoal_file_read(&file, text, 5, 6) == 5);
    HOLD(memcmp(text, "world", 5) == 0);
    HOLD(shoal_file_read(&file, text, 0, 0) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), 12) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), 1u << 30) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), INT64_MAX) <= 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), (uint64_t)INT64_MAX + 1) == -EINVAL);
    HOLD(shoal_file_read(&file, text, sizeof(text), UINT64_MAX) == -EINVAL);
    shoal_file_close(&file);
    HOLD(file.fd == -1);
    shoal_file_close(&file);
    HOLD(shoal_file_read(&file, text, sizeof(text), 0) == -EBADF);
    return 0;
}

static void file_read_returns_what_was_written(void **state)
{
    (void)state;
    run_both_ways(read_back_fiber);
}

static int big_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    unsigned char *data = malloc(BIG_BYTES);
    HOLD(data != NULL && open_in(&file, "big.bin") == 0);
    uint64_t offset = 0;
    int rc;
    while ((rc = shoal_file_read(&file, data, BIG_BYTES, offset)) > 0) {
        HOLD(rc <= (int)SHOAL_FILE_READ_MAX && is_big(data, rc, offset));
        offset += (uint64_t)rc;
    }
    HOLD(rc == 0 && offset == BIG_BYTES);
    HOLD(shoal_file_read(&file, data, 100, BIG_BYTES - 40) == 40);
    HOLD(is_big(data, 40, BIG_BYTES - 40));
    shoal_file_close(&file);
    free(data);
    return 0;
}

static void file_read_big_file_comes_whole(void **state)
{
    (void)state;
    run_both_ways(big_fiber);
}

static int sparse_fiber(void *arg)
{
    (void)arg;
    const uint64_t far = (UINT64_C(5) << 30) + 7;
    struct shoal_file file;
    struct shoal_file_stat facts;
    char text[8] = "";
    int fd = openat(root_fd, "sparse.bin", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    HOLD(fd >= 0 && pwrite(fd, "mark", 4, (off_t)far) == 4);
    close(fd);
    HOLD(open_in(&file, "sparse.bin") == 0);
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == far + 4);
    HOLD(shoal_file_read(&file, text, sizeof(text), far) == 4 && memcmp(text, "mark", 4) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), far - (UINT64_C(4) << 30)) == 8);
    HOLD(memcmp(text, "\0\0\0\0", 4) == 0);
    shoal_file_close(&file);
    return 0;
}

static void file_read_offset_beyond_4g_counts_all_bits(void **state)
{
    (void)state;
    run_both_ways(sparse_fiber);
}

static int stat_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_stat facts;
    const struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 4102444800, .tv_nsec = 123456789}};
    struct stat real;
    HOLD(utimensat(root_fd, "hello.txt", times, 0) == 0);
    HOLD(fstatat(root_fd, "hello.txt", &real, 0) == 0);
    HOLD(open_in(&file, "hello.txt") == 0);
    HOLD(shoal_file_stat(&file, &facts) == 0);
    HOLD(facts.size_bytes == 12 && facts.inode == real.st_ino && facts.device == real.st_dev);
    HOLD(facts.mtime_s == 4102444800 && facts.mtime_fraction_ns == 123456789);
    HOLD(facts.mode == (S_IFREG | 0644));
    shoal_file_close(&file);
    HOLD(shoal_file_stat(&file, &facts) == -EBADF);
    return 0;
}

static void file_stat_tells_size_time_and_type(void **state)
{
    (void)state;
    run_both_ways(stat_fiber);
}

static int directory_fiber(void *arg)
{
    (void)arg;
    struct shoal_file dir, file;
    struct shoal_file_stat facts;
    char text[8];
    const struct shoal_file_how as_dir = {.flags = O_RDONLY | O_DIRECTORY};
    const struct shoal_file_how as_path = {.flags = O_PATH | O_DIRECTORY};
    const struct shoal_file_how plain = {.flags = O_RDONLY};
    HOLD(shoal_file_open(&dir, root_fd, "sub", &as_dir) == 0);
    HOLD(shoal_file_stat(&dir, &facts) == 0 && S_ISDIR(facts.mode));
    HOLD(shoal_file_read(&dir, text, sizeof(text), 0) == -EISDIR);
    HOLD(shoal_file_open(&file, dir.fd, "inner.txt", &plain) == 0);
    HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 5 && memcmp(text, "inner", 5) == 0);
    shoal_file_close(&file);
    shoal_file_close(&dir);
    HOLD(shoal_file_open(&file, root_fd, "hello.txt", &as_dir) == -ENOTDIR);
    HOLD(shoal_file_open(&dir, root_fd, "sub", &as_path) == 0);
    HOLD(shoal_file_read(&dir, text, sizeof(text), 0) == -EBADF);
    HOLD(shoal_file_open(&file, dir.fd, "inner.txt", &plain) == 0);
    shoal_file_close(&file);
    shoal_file_close(&dir);
    return 0;
}

static void file_open_directory_serves_as_dirfd(void **state)
{
    (void)state;
    run_both_ways(directory_fiber);
}

static int create_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_stat facts;
    struct shoal_file_how how = {
        .flags = O_RDWR | O_CREAT | O_EXCL, .mode = 0600, .resolve = SHOAL_FILE_BENEATH};
    HOLD(shoal_file_open(&file, root_fd, "made.txt", &how) == 0);
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.mode == (S_IFREG | 0600));
    shoal_file_close(&file);
    HOLD(shoal_file_open(&file, root_fd, "made.txt", &how) == -EEXIST);
    how.flags = O_RDONLY;
    HOLD(shoal_file_open(&file, root_fd, "made.txt", &how) == -EINVAL); /* a mode without use */
    HOLD(unlinkat(root_fd, "made.txt", 0) == 0);
    return 0;
}

static void file_open_create_takes_the_mode(void **state)
{
    (void)state;
    run_both_ways(create_fiber);
}

/* ---- Refusals ---- */

static int missing_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_in(&file, "nothing.txt") == -ENOENT && file.fd == -1);
    HOLD(open_in(&file, "nothing.txt") == -ENOENT);
    HOLD(open_in(&file, "nowhere/nothing.txt") == -ENOENT);
    HOLD(open_in(&file, "hello.txt/x") == -ENOTDIR);
    HOLD(open_in(&file, "") == -ENOENT);
    char longest[5000];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    HOLD(open_in(&file, longest) == -ENAMETOOLONG && file.fd == -1);
    const struct shoal_file_how odd = {.flags = O_RDONLY, .resolve = 1u << 20};
    HOLD(shoal_file_open(&file, root_fd, "hello.txt", &odd) == -EINVAL);
    const struct shoal_file_how unknown = {.flags = UINT64_C(1) << 40};
    HOLD(shoal_file_open(&file, root_fd, "hello.txt", &unknown) == -EINVAL);
    HOLD(shoal_file_open(&file, -7, "hello.txt", &(struct shoal_file_how){.flags = 0}) == -EBADF);
    return 0;
}

static void file_open_missing_fails(void **state)
{
    (void)state;
    run_both_ways(missing_fiber);
}

static int escape_fiber(void *arg)
{
    (void)arg;
    static const char *const ways_out[] = {
        "../secret.txt",
        "sub/../../secret.txt",
        "./../root/hello.txt",
        "/etc/passwd",
        "/",
        "..",
        "link_out",
        "sub/link_out",
        "up/secret.txt",
        "up",
        "link_absolute",
        "sub/../link_out",
        "//etc/passwd",
    };
    struct shoal_file file;
    char inside[128];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(ways_out); i++) {
        int rc = open_in(&file, ways_out[i]);
        if (rc != -EXDEV || file.fd != -1) {
            fprintf(stderr, "%s: %d\n", ways_out[i], rc);
            return __LINE__;
        }
    }
    (void)snprintf(inside, sizeof(inside), "%s/root/hello.txt", base);
    HOLD(open_in(&file, inside) == -EXDEV);
    HOLD(open_in(&file, "link_loop") == -ELOOP);
    static const char *const ways_in[] = {"hello.txt", "sub/../hello.txt", "./sub/inner.txt",
                                          "link_in", "sub//inner.txt"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(ways_in); i++) {
        HOLD(open_in(&file, ways_in[i]) == 0);
        shoal_file_close(&file);
    }
    /* The very links of /proc, which jump where no path leads. */
    char number[16];
    int proc_fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HOLD(proc_fd >= 0);
    (void)snprintf(number, sizeof(number), "%d/secret.txt", base_fd);
    const struct shoal_file_how beneath = {.flags = O_RDONLY, .resolve = SHOAL_FILE_BENEATH};
    int rc = shoal_file_open(&file, proc_fd, number, &beneath);
    close(proc_fd);
    HOLD(rc == -ELOOP || rc == -EXDEV);
    return 0;
}

static void file_open_beneath_never_leaves_the_root(void **state)
{
    (void)state;
    run_both_ways(escape_fiber);
}

static int links_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    const struct shoal_file_how no_links = {.resolve = SHOAL_FILE_BENEATH | SHOAL_FILE_NO_SYMLINKS};
    const struct shoal_file_how anywhere = {.flags = O_RDONLY};
    HOLD(shoal_file_open(&file, root_fd, "link_in", &no_links) == -ELOOP);
    HOLD(shoal_file_open(&file, root_fd, "../secret.txt", &no_links) == -EXDEV);
    HOLD(shoal_file_open(&file, root_fd, "sub/inner.txt", &no_links) == 0);
    shoal_file_close(&file);
    HOLD(shoal_file_open(&file, root_fd, "../secret.txt", &anywhere) == 0);
    shoal_file_close(&file);
    HOLD(shoal_file_open(&file, AT_FDCWD, "/proc/self/status", &anywhere) == 0);
    char text[16];
    HOLD(shoal_file_read(&file, text, 5, 0) == 5 && memcmp(text, "Name:", 5) == 0);
    shoal_file_close(&file);
    return 0;
}

static void file_open_resolve_is_as_asked(void **state)
{
    (void)state;
    run_both_ways(links_fiber);
}

static int locked_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_in(&file, "locked.txt") == -EACCES && file.fd == -1);
    const struct shoal_file_how writing = {.flags = O_WRONLY, .resolve = SHOAL_FILE_BENEATH};
    HOLD(geteuid() == 65534 ? shoal_file_open(&file, root_fd, "hello.txt", &writing) == -EACCES
                            : true);
    return 0;
}

/* In a process of its own: what root may not open is nothing. */
static void file_open_without_permission_fails(void **state)
{
    (void)state;
    for (int cached = 0; cached < 2; cached++) {
        tell_nothing();
        if (!cached)
            tell_nothing_is_cached();
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
                _exit(99);
            (void)prctl(PR_SET_DUMPABLE, 1);
            int rc = shoal_test_run(1, locked_fiber, NULL);
            _exit(rc == 0 ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    tell_nothing();
}

static int fifo_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_stat facts;
    char text[4];
    HOLD(open_in(&file, "fifo") == 0);
    HOLD(shoal_file_stat(&file, &facts) == 0 && S_ISFIFO(facts.mode));
    tell_nothing();
    HOLD(shoal_file_read(&file, text, sizeof(text), 0) == -ESPIPE);
    shoal_file_close(&file);
    const struct shoal_file_how writing = {.flags = O_WRONLY, .resolve = SHOAL_FILE_BENEATH};
    HOLD(shoal_file_open(&file, root_fd, "fifo", &writing) == -ENXIO);
    return 0;
}

static void file_open_fifo_does_not_wait(void **state)
{
    (void)state;
    run_both_ways(fifo_fiber);
}

static int descriptors_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct rlimit before, none;
    struct shoal_directory dir;
    struct shoal_file_stat facts;
    HOLD(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    HOLD(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int rc = open_in(&file, "hello.txt");
    int listed = shoal_directory_open(&dir, root_fd, "sub", 0);
    int asked = shoal_file_stat_path(root_fd, "hello.txt", 0, &facts); /* needs none */
    HOLD(setrlimit(RLIMIT_NOFILE, &before) == 0);
    HOLD(rc == -EMFILE && file.fd == -1 && listed == -EMFILE);
    HOLD(asked == 0 && facts.size_bytes == 12);
    HOLD(open_in(&file, "hello.txt") == 0);
    shoal_file_close(&file);
    return 0;
}

static void file_open_without_descriptors_fails(void **state)
{
    (void)state;
    run_all_ways(descriptors_fiber);
}

/* ---- Other kernels ---- */

static int ready_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    char text[16];
    HOLD(open_in(&file, "hello.txt") == 0);
    for (int i = 0; i < 3; i++)
        HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 12);
    shoal_file_close(&file);
    return 0;
}

static void file_open_without_resolve_cached_works(void **state)
{
    (void)state;
    tell_nothing();
    told.openat2_cached_errno = EINVAL;
    assert_int_equal(shoal_test_run(1, ready_fiber, NULL), 0);
    tell_nothing();
}

static int nosys_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_in(&file, "hello.txt") == -ENOSYS && file.fd == -1);
    return 0;
}

static void file_open_without_openat2_says_so(void **state)
{
    (void)state;
    tell_nothing();
    told.openat2_cached_errno = ENOSYS;
    assert_int_equal(shoal_test_run(1, nosys_fiber, NULL), 0);
    tell_nothing();
}

static int rename_race_fiber(void *arg)
{
    const int *failures = arg;
    struct shoal_file file;
    if (strcmp(shoal_core_io_backend(), "epoll") != 0)
        return 0; /* the ring's openat2 is not ours to replace */
    told.openat2_cached_errno = EAGAIN;
    told.openat2_errno = EAGAIN;
    told.openat2_failures = *failures;
    int rc = open_in(&file, "hello.txt");
    tell_nothing();
    HOLD(*failures > 0 ? rc == 0 : rc == -EAGAIN);
    shoal_file_close(&file);
    return 0;
}

static void file_open_is_tried_again_after_a_race(void **state)
{
    (void)state;
    int some = 3, all = -1;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, rename_race_fiber, &some), 0);
    assert_int_equal(shoal_test_run(1, rename_race_fiber, &all), 0);
}

static void file_read_false_end_of_file_is_not_believed(void **state)
{
    (void)state;
    tell_nothing();
    told.preadv2_errno = -1;
    assert_int_equal(shoal_test_run(1, ready_fiber, NULL), 0);
    tell_nothing();
}

static void file_read_without_nowait_is_tried_once(void **state)
{
    (void)state;
    tell_nothing();
    told.preadv2_errno = EOPNOTSUPP;
    assert_int_equal(shoal_test_run(1, ready_fiber, NULL), 0);
    assert_int_equal(told.preadv2_calls, 1);
    tell_nothing();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_backend_is_the_one_asked_for),
        cmocka_unit_test(file_read_returns_what_was_written),
        cmocka_unit_test(file_read_big_file_comes_whole),
        cmocka_unit_test(file_read_offset_beyond_4g_counts_all_bits),
        cmocka_unit_test(file_stat_tells_size_time_and_type),
        cmocka_unit_test(file_open_directory_serves_as_dirfd),
        cmocka_unit_test(file_open_create_takes_the_mode),
        cmocka_unit_test(file_open_missing_fails),
        cmocka_unit_test(file_open_beneath_never_leaves_the_root),
        cmocka_unit_test(file_open_resolve_is_as_asked),
        cmocka_unit_test(file_open_without_permission_fails),
        cmocka_unit_test(file_open_fifo_does_not_wait),
        cmocka_unit_test(file_open_without_descriptors_fails),
        cmocka_unit_test(file_open_without_resolve_cached_works),
        cmocka_unit_test(file_open_without_openat2_says_so),
        cmocka_unit_test(file_open_is_tried_again_after_a_race),
        cmocka_unit_test(file_read_false_end_of_file_is_not_believed),
        cmocka_unit_test(file_read_without_nowait_is_tried_once),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
