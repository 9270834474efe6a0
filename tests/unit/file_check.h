/*
 * What the tests of files share: a directory of files, and system calls that answer as told.
 *
 * The system calls that file.c makes itself are replaced by wrappers that can be told to answer as
 * another kernel would, so that the slow path is taken although everything is cached, and to hold
 * a call until the test lets it go. Included by one source of a program only.
 *
 * Each case runs on a fiber and returns 0, or the number of the line that did not hold.
 */
#ifndef SHOAL_TESTS_UNIT_FILE_CHECK_H
#define SHOAL_TESTS_UNIT_FILE_CHECK_H

#include <stdatomic.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/file.h"

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

static inline void tell_nothing(void)
{
    told.openat2_cached_errno = 0;
    told.openat2_errno = 0;
    told.openat2_failures = 0;
    told.preadv2_errno = 0;
    told.preadv2_calls = 0;
    told.hold_pread = false;
    told.closed_fd = -1;
}

static inline void tell_nothing_is_cached(void)
{
    told.openat2_cached_errno = EAGAIN;
    told.preadv2_errno = EAGAIN;
}

static long (*next_syscall)(long, ...);
static ssize_t (*next_preadv2)(int, const struct iovec *, int, off_t, int);

/* Before there are threads. */
__attribute__((constructor)) static void find_next(void)
{
    *(void **)&next_syscall = dlsym(RTLD_NEXT, "syscall");
    *(void **)&next_preadv2 = dlsym(RTLD_NEXT, "preadv2");
}

long syscall(long number, ...)
{
    if (next_syscall == NULL)
        find_next();
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_close && (int)a[0] == told.closed_fd)
        told.closed_by = gettid();
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
    return next_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t preadv2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    if (next_preadv2 == NULL)
        find_next();
    told.preadv2_calls++;
    if (told.preadv2_errno == -1)
        return 0;
    if (told.preadv2_errno != 0) {
        errno = told.preadv2_errno;
        return -1;
    }
    return next_preadv2(fd, vec, count, offset, flags);
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

/* ---- The files ---- */

static char base[] = "/tmp/shoal_test_file_XXXXXX";
static int base_fd = -1; /* the temporary directory */
static int root_fd = -1; /* base/root: nothing outside of it may be reached */

static inline unsigned char big_byte(uint64_t offset)
{
    uint64_t x = offset * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned char)(x >> 56 ^ x >> 31);
}

static inline void put(const char *path, const void *data, size_t len)
{
    int fd = openat(base_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static inline int make_files(void **state)
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

static inline int remove_files(void **state)
{
    (void)state;
    static const char *const files[] = {"root/hello.txt", "root/sub/inner.txt", "root/locked.txt",
                                        "root/link_in",   "root/link_out",      "root/sub/link_out",
                                        "root/up",        "root/link_absolute", "root/link_loop",
                                        "root/fifo",      "root/big.bin",       "root/sparse.bin",
                                        "root/made.txt",  "secret.txt"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(files); i++)
        (void)unlinkat(base_fd, files[i], 0);
    (void)unlinkat(base_fd, "root/sub", AT_REMOVEDIR);
    (void)unlinkat(base_fd, "root", AT_REMOVEDIR);
    close(root_fd);
    close(base_fd);
    return rmdir(base);
}

static inline int open_in(struct shoal_file *out, const char *path)
{
    const struct shoal_file_how how = {.flags = O_RDONLY, .resolve = SHOAL_FILE_BENEATH};
    return shoal_file_open(out, root_fd, path, &how);
}

static inline bool is_big(const unsigned char *data, int len, uint64_t offset)
{
    for (int i = 0; i < len; i++)
        if (data[i] != big_byte(offset + (uint64_t)i))
            return false;
    return true;
}

/* Each case with everything cached, and again with nothing. */
static inline void run_both_ways(shoal_fiber_fn *fn)
{
    tell_nothing();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing();
}

#endif
