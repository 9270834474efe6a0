/*
 * Files on both backends: contents, confinement, cancel, and what odd kernels answer.
 *
 * The system calls that file.c makes itself are replaced here by wrappers that can be told to
 * answer as another kernel would, so that the slow path is taken although everything is cached,
 * and to hold a call until the test lets it go. Each case runs on a fiber and returns 0, or the
 * number of the line that did not hold.
 */
/* backends: both */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/file.h"
#include "shoal/runtime/task.h"

#include "shoal/smp/app.h"
#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define BIG_BYTES (8u * 1024 * 1024 + 123)

#define HOLD(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return __LINE__;                                                                       \
        }                                                                                          \
    } while (0)

/* ---- System calls as told ---- */

static struct {
    atomic_int openat2_cached_errno; /* 0: as the kernel answers */
    atomic_int openat2_errno;
    atomic_int openat2_failures; /* how often openat2_errno is still given; -1: always */
    atomic_int preadv2_errno;    /* -1: 0 bytes */
    atomic_int preadv2_calls;
    atomic_bool hold_pread;
    atomic_int closed_fd;
    atomic_long closed_by;
} told;

static sem_t pread_entered, pread_go;

static void tell_nothing(void)
{
    told.openat2_cached_errno = 0;
    told.openat2_errno = 0;
    told.openat2_failures = 0;
    told.preadv2_errno = 0;
    told.preadv2_calls = 0;
    told.hold_pread = false;
    told.closed_fd = -1;
}

static void tell_nothing_is_cached(void)
{
    told.openat2_cached_errno = EAGAIN;
    told.preadv2_errno = EAGAIN;
}

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_openat2) {
        const struct open_how *how = (const struct open_how *)a[2];
        bool cached = (how->resolve & RESOLVE_CACHED) != 0;
        int fault = 0;
        if (cached)
            fault = told.openat2_cached_errno;
        else if (told.openat2_failures != 0) {
            fault = told.openat2_errno;
            told.openat2_failures--;
        }
        if (fault != 0) {
            errno = fault;
            return -1;
        }
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t preadv2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    static ssize_t (*next)(int, const struct iovec *, int, off_t, int);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "preadv2");
    told.preadv2_calls++;
    if (told.preadv2_errno == -1)
        return 0;
    if (told.preadv2_errno != 0) {
        errno = told.preadv2_errno;
        return -1;
    }
    return next(fd, vec, count, offset, flags);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    if (told.hold_pread) {
        sem_post(&pread_entered);
        sem_wait(&pread_go);
    }
    struct iovec vec = {.iov_base = buf, .iov_len = len};
    return preadv(fd, &vec, 1, offset);
}

int close(int fd)
{
    if (fd == told.closed_fd)
        told.closed_by = gettid();
    return (int)syscall(SYS_close, fd);
}

/* ---- The files ---- */

static char base[] = "/tmp/shoal_test_file_XXXXXX";
static int base_fd = -1; /* the temporary directory */
static int root_fd = -1; /* base/root: nothing outside of it may be reached */

static unsigned char big_byte(uint64_t offset)
{
    uint64_t x = offset * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned char)(x >> 56 ^ x >> 31);
}

static void put(const char *path, const void *data, size_t len)
{
    int fd = openat(base_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(base));
    base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fchmod(base_fd, 0755), 0);
    assert_int_equal(mkdirat(base_fd, "root", 0755), 0);
    assert_int_equal(mkdirat(base_fd, "root/sub", 0755), 0);
    put("secret.txt", "secret", 6);
    put("root/hello.txt", "hello world\n", 12);
    put("root/sub/inner.txt", "inner", 5);
    put("root/locked.txt", "locked", 6);
    assert_int_equal(fchmodat(base_fd, "root/locked.txt", 0, 0), 0);
    assert_int_equal(symlinkat("sub/inner.txt", base_fd, "root/link_in"), 0);
    assert_int_equal(symlinkat("../secret.txt", base_fd, "root/link_out"), 0);
    assert_int_equal(symlinkat("../../secret.txt", base_fd, "root/sub/link_out"), 0);
    assert_int_equal(symlinkat("/etc/passwd", base_fd, "root/link_absolute"), 0);
    assert_int_equal(symlinkat("..", base_fd, "root/up"), 0);
    assert_int_equal(symlinkat("link_loop", base_fd, "root/link_loop"), 0);
    assert_int_equal(mkfifoat(base_fd, "root/fifo", 0644), 0);
    unsigned char *big = malloc(BIG_BYTES);
    assert_non_null(big);
    for (uint64_t i = 0; i < BIG_BYTES; i++)
        big[i] = big_byte(i);
    put("root/big.bin", big, BIG_BYTES);
    free(big);
    root_fd = openat(base_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root_fd >= 0);
    sem_init(&pread_entered, 0, 0);
    sem_init(&pread_go, 0, 0);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    static const char *const files[] = {
        "root/hello.txt", "root/sub/inner.txt", "root/locked.txt", "root/link_in",
        "root/link_out",  "root/sub/link_out",  "root/up",         "root/link_absolute",
        "root/link_loop", "root/fifo",          "root/big.bin",    "root/sparse.bin",
        "root/made.txt",  "secret.txt"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(files); i++)
        (void)unlinkat(base_fd, files[i], 0);
    (void)unlinkat(base_fd, "root/sub", AT_REMOVEDIR);
    (void)unlinkat(base_fd, "root", AT_REMOVEDIR);
    close(root_fd);
    close(base_fd);
    return rmdir(base);
}

static int open_in(struct shoal_file *out, const char *path)
{
    const struct shoal_file_how how = {.flags = O_RDONLY, .resolve = SHOAL_FILE_BENEATH};
    return shoal_file_open(out, root_fd, path, &how);
}

static bool is_big(const unsigned char *data, int len, uint64_t offset)
{
    for (int i = 0; i < len; i++)
        if (data[i] != big_byte(offset + (uint64_t)i))
            return false;
    return true;
}

/* Each case with everything cached, and again with nothing. */
static void run_both_ways(shoal_fiber_fn *fn)
{
    tell_nothing();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing();
}

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
        "../secret.txt", "sub/../../secret.txt", "./../root/hello.txt", "/etc/passwd", "/",
        "..",            "link_out",             "sub/link_out",        "up/secret.txt",
        "up",            "link_absolute",        "sub/../link_out",     "//etc/passwd",
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
    HOLD(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    HOLD(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int rc = open_in(&file, "hello.txt");
    HOLD(setrlimit(RLIMIT_NOFILE, &before) == 0);
    HOLD(rc == -EMFILE && file.fd == -1);
    HOLD(open_in(&file, "hello.txt") == 0);
    shoal_file_close(&file);
    return 0;
}

static void file_open_without_descriptors_fails(void **state)
{
    (void)state;
    run_both_ways(descriptors_fiber);
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

/* ---- Many at a time ---- */

#define READERS 64
#define ROUNDS  40

static int reader_fiber(void *arg)
{
    struct shoal_file *file = arg;
    unsigned char data[3000];
    uint64_t x = (uint64_t)(uintptr_t)data;
    for (int i = 0; i < ROUNDS; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t offset = (x >> 20) % (BIG_BYTES - sizeof(data));
        int rc = shoal_file_read(file, data, sizeof(data), offset);
        HOLD(rc > 0 && is_big(data, rc, offset));
        if (i % 8 == 0) {
            struct shoal_file own;
            HOLD(open_in(&own, i % 16 == 0 ? "sub/inner.txt" : "link_in") == 0);
            HOLD(shoal_file_read(&own, data, sizeof(data), 0) == 5);
            shoal_file_close(&own);
        }
    }
    return 0;
}

static int crowd(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_fiber *fibers[READERS];
    struct shoal_file file;
    int failed = open_in(&file, "big.bin");
    for (int i = 0; i < READERS; i++)
        failed |= shoal_fiber_spawn(&fibers[i], reader_fiber, &file, "reader");
    for (int i = 0; i < READERS; i++)
        failed |= shoal_fiber_join(fibers[i]);
    shoal_file_close(&file);
    out->i64 = failed;
    return 0;
}

static int crowd_fiber(void *arg)
{
    (void)arg;
    struct shoal_future *there = shoal_submit_fiber_to(1, crowd, NULL);
    union shoal_value here, other;
    HOLD(crowd(NULL, &here) == 0);
    HOLD(shoal_await(there, &other) == 0);
    HOLD(here.i64 == 0 && other.i64 == 0);
    return 0;
}

static void file_read_many_fibers_on_two_cores_get_their_own(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(2, crowd_fiber, NULL), 0);
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(2, crowd_fiber, NULL), 0);
    tell_nothing();
}

static int alarm_fiber(void *arg)
{
    (void)shoal_sleep_ns(1000000);
    *(bool *)arg = true;
    return 0;
}

static int greedy_fiber(void *arg)
{
    (void)arg;
    bool rang = false;
    struct shoal_fiber *alarm;
    struct shoal_file file;
    char text[16];
    HOLD(open_in(&file, "hello.txt") == 0);
    HOLD(shoal_fiber_spawn(&alarm, alarm_fiber, &rang, "alarm") == 0);
    while (!rang)
        HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 12);
    shoal_file_close(&file);
    HOLD(shoal_fiber_join(alarm) == 0);
    rang = false;
    HOLD(shoal_fiber_spawn(&alarm, alarm_fiber, &rang, "alarm") == 0);
    while (!rang) {
        HOLD(open_in(&file, "hello.txt") == 0);
        shoal_file_close(&file);
    }
    HOLD(shoal_fiber_join(alarm) == 0);
    return 0;
}

static void file_read_of_cached_data_lets_others_run(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, greedy_fiber, NULL), 0);
}

/* ---- Cancel ---- */

struct attempt {
    struct shoal_file file;
    char text[16];
    int first;
    int second;
    bool returned;
};

static int cancelled_before_fiber(void *arg)
{
    struct attempt *attempt = arg;
    struct shoal_file other;
    struct shoal_file_stat facts;
    char text[4];
    shoal_fiber_cancel(shoal_fiber_self());
    HOLD(open_in(&other, "hello.txt") == -ECANCELED && other.fd == -1);
    HOLD(shoal_file_read(&attempt->file, text, sizeof(text), 0) == -ECANCELED);
    HOLD(shoal_file_stat(&attempt->file, &facts) == -ECANCELED);
    shoal_fiber_shield();
    HOLD(shoal_file_read(&attempt->file, text, sizeof(text), 0) == 4);
    shoal_fiber_unshield();
    shoal_file_close(&attempt->file);
    HOLD(attempt->file.fd == -1);
    return 0;
}

static int cancel_before_fiber(void *arg)
{
    (void)arg;
    struct attempt attempt;
    struct shoal_fiber *fiber;
    HOLD(open_in(&attempt.file, "hello.txt") == 0);
    int fd = attempt.file.fd;
    HOLD(shoal_fiber_spawn(&fiber, cancelled_before_fiber, &attempt, "cancelled") == 0);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    return 0;
}

static void file_call_on_cancelled_fiber_fails_but_close(void **state)
{
    (void)state;
    run_both_ways(cancel_before_fiber);
}

static int reading_fiber(void *arg)
{
    struct attempt *attempt = arg;
    attempt->first = shoal_file_read(&attempt->file, attempt->text, sizeof(attempt->text), 0);
    attempt->returned = true;
    attempt->second = shoal_file_read(&attempt->file, attempt->text, sizeof(attempt->text), 0);
    return 0;
}

/* epoll: the helper thread is inside pread when the cancel comes, and goes on to the end. */
static int cancel_in_thread(void)
{
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    HOLD(open_in(&attempt.file, "hello.txt") == 0);
    told.hold_pread = true;
    HOLD(shoal_fiber_spawn(&fiber, reading_fiber, &attempt, "reading") == 0);
    while (sem_trywait(&pread_entered) != 0)
        HOLD(shoal_sleep_ns(100000) == 0);
    shoal_fiber_cancel(fiber);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(!attempt.returned);
    told.hold_pread = false;
    sem_post(&pread_go);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == 12 && memcmp(attempt.text, "hello world\n", 12) == 0);
    HOLD(attempt.second == -ECANCELED);
    shoal_file_close(&attempt.file);
    return 0;
}

/* io_uring: the kernel waits for a FIFO's data (which only this test can make it do) and stops. */
static int cancel_in_ring(void)
{
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    const struct shoal_file_how both = {.flags = O_RDWR};
    HOLD(shoal_file_open(&attempt.file, root_fd, "fifo", &both) == 0);
    HOLD(shoal_fiber_spawn(&fiber, reading_fiber, &attempt, "reading") == 0);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(!attempt.returned);
    shoal_fiber_cancel(fiber);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == -ECANCELED && attempt.second == -ECANCELED);
    shoal_file_close(&attempt.file);
    return 0;
}

static int cancel_during_fiber(void *arg)
{
    (void)arg;
    return strcmp(shoal_core_io_backend(), "epoll") == 0 ? cancel_in_thread() : cancel_in_ring();
}

static void file_read_cancel_returns_when_it_has_ended(void **state)
{
    (void)state;
    tell_nothing();
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, cancel_during_fiber, NULL), 0);
    tell_nothing();
}

static int storm_reader(void *arg)
{
    struct shoal_file *file = arg;
    unsigned char data[2000];
    for (uint64_t offset = 0;; offset = (offset + 77777) % (BIG_BYTES - sizeof(data))) {
        memset(data, 0, sizeof(data));
        int rc = shoal_file_read(file, data, sizeof(data), offset);
        if (rc == -ECANCELED)
            return 0;
        HOLD(rc > 0 && is_big(data, rc, offset));
        struct shoal_file own;
        rc = open_in(&own, "sub/inner.txt");
        if (rc == -ECANCELED)
            return own.fd == -1 ? 0 : __LINE__;
        HOLD(rc == 0);
        shoal_file_close(&own);
    }
}

static int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int storm_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_fiber *fibers[16];
    HOLD(open_in(&file, "big.bin") == 0);
    int before = count_descriptors();
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 16; i++)
            HOLD(shoal_fiber_spawn(&fibers[i], storm_reader, &file, "storm") == 0);
        for (int i = 0; i < round % 7; i++)
            HOLD(shoal_yield() == 0);
        if (round % 3 == 0)
            HOLD(shoal_sleep_ns(50000) == 0);
        for (int i = 0; i < 16; i++)
            shoal_fiber_cancel(fibers[i]);
        for (int i = 0; i < 16; i++)
            HOLD(shoal_fiber_join(fibers[i]) == 0);
    }
    HOLD(count_descriptors() == before);
    shoal_file_close(&file);
    return 0;
}

static void file_cancel_at_any_moment_loses_no_descriptor(void **state)
{
    (void)state;
    run_both_ways(storm_fiber);
}

/* ---- Leases and close ---- */

static int opening_fiber(void *arg)
{
    struct attempt *attempt = arg;
    attempt->first = open_in(&attempt->file, "hello.txt");
    attempt->returned = true;
    return 0;
}

static int lease_fiber(void *arg)
{
    const bool *cancel = arg;
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    int holder = openat(root_fd, "hello.txt", O_RDWR | O_CLOEXEC);
    HOLD(holder >= 0);
    if (fcntl(holder, F_SETLEASE, F_WRLCK) != 0) {
        close(holder);
        return 0; /* a file system without leases */
    }
    HOLD(shoal_fiber_spawn(&fiber, opening_fiber, &attempt, "opening") == 0);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(200000) == 0);
    HOLD(!attempt.returned);
    if (*cancel) {
        shoal_fiber_cancel(fiber);
        HOLD(shoal_yield() == 0);
        if (strcmp(shoal_core_io_backend(), "epoll") == 0)
            HOLD(!attempt.returned && fcntl(holder, F_SETLEASE, F_UNLCK) == 0);
    } else {
        HOLD(fcntl(holder, F_SETLEASE, F_UNLCK) == 0);
    }
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == 0 || (*cancel && attempt.first == -ECANCELED));
    HOLD((attempt.first == 0) == (attempt.file.fd >= 0));
    shoal_file_close(&attempt.file);
    close(holder);
    return 0;
}

static void file_open_waits_for_the_holder_of_a_lease(void **state)
{
    (void)state;
    bool cancel = false;
    tell_nothing();
    signal(SIGIO, SIG_IGN); /* how the kernel tells the holder */
    assert_int_equal(shoal_test_run(1, lease_fiber, &cancel), 0);
    cancel = true;
    assert_int_equal(shoal_test_run(1, lease_fiber, &cancel), 0);
}

static int close_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_in(&file, "hello.txt") == 0);
    told.closed_fd = file.fd;
    shoal_file_close(&file);
    HOLD(told.closed_by == gettid());
    int fd = openat(root_fd, "made.txt", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    told.closed_fd = -1;
    close(fd);
    HOLD(open_in(&file, "made.txt") == 0);
    HOLD(unlinkat(root_fd, "made.txt", 0) == 0);
    told.closed_fd = file.fd;
    shoal_fiber_cancel(shoal_fiber_self());
    shoal_file_close(&file);
    HOLD(told.closed_by != gettid() && told.closed_by != 0);
    HOLD(fcntl(told.closed_fd, F_GETFD) == -1);
    return 0;
}

static int close_in_fiber(void *arg)
{
    struct shoal_fiber *fiber;
    HOLD(shoal_fiber_spawn(&fiber, close_fiber, arg, "close") == 0);
    return shoal_fiber_join(fiber);
}

static void file_close_of_deleted_file_leaves_the_core_free(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, close_in_fiber, NULL), 0);
    tell_nothing();
}

struct closer {
    struct shoal_task task;
    struct shoal_file file;
};

static void close_in_task(struct shoal_task *task)
{
    shoal_file_close(&SHOAL_CONTAINER_OF(task, struct closer, task)->file);
}

static int close_task_fiber(void *arg)
{
    (void)arg;
    struct closer closer = {.task = {.run = close_in_task}};
    HOLD(open_in(&closer.file, "hello.txt") == 0);
    shoal_task_post(&closer.task);
    while (closer.file.fd >= 0)
        HOLD(shoal_yield() == 0);
    return 0;
}

static void file_close_outside_of_fibers_works(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, close_task_fiber, NULL), 0);
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
        cmocka_unit_test(file_read_many_fibers_on_two_cores_get_their_own),
        cmocka_unit_test(file_read_of_cached_data_lets_others_run),
        cmocka_unit_test(file_call_on_cancelled_fiber_fails_but_close),
        cmocka_unit_test(file_read_cancel_returns_when_it_has_ended),
        cmocka_unit_test(file_cancel_at_any_moment_loses_no_descriptor),
        cmocka_unit_test(file_open_waits_for_the_holder_of_a_lease),
        cmocka_unit_test(file_close_of_deleted_file_leaves_the_core_free),
        cmocka_unit_test(file_close_outside_of_fibers_works),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
