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

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/core_impl.h"
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
    atomic_int close_errno;
    atomic_int close_calls; /* of closed_fd */

    /* What helper threads do; 0: as the kernel answers. */
    atomic_bool hold_pwrite;
    atomic_long held_byte; /* hold_pwrite holds writes that touch it only; -1: all */
    atomic_int pread_errno, pwrite_errno, sync_errno, list_errno;
    atomic_long pread_fails_at,
        pwrite_fails_at;                 /* reads and writes that touch this byte; -1: all */
    atomic_long pread_ends_at;           /* once: the file seems to end there; -1: nowhere */
    atomic_long pread_most, pwrite_most; /* so many bytes at a time */
    atomic_int interruptions;            /* how often pwrite is interrupted */
    atomic_bool untyped;                 /* a file system without types in directories */
    atomic_int preads, pwrites;

    /* What statx says of direct I/O, with dio_told. */
    atomic_bool dio_told, dio_known;
    atomic_uint dio_memory, dio_offset;
} told;

static sem_t pread_entered, pread_go, pwrite_entered, pwrite_go;

static inline void tell_nothing(void)
{
    told.openat2_cached_errno = 0;
    told.openat2_errno = 0;
    told.openat2_failures = 0;
    told.preadv2_errno = 0;
    told.preadv2_calls = 0;
    told.hold_pread = false;
    told.closed_fd = -1;
    told.close_errno = 0;
    told.close_calls = 0;
    told.hold_pwrite = false;
    told.held_byte = -1;
    told.pread_errno = 0;
    told.pwrite_errno = 0;
    told.sync_errno = 0;
    told.list_errno = 0;
    told.pread_fails_at = -1;
    told.pread_ends_at = -1;
    told.pwrite_fails_at = -1;
    told.pread_most = 0;
    told.pwrite_most = 0;
    told.interruptions = 0;
    told.untyped = false;
    told.preads = 0;
    told.pwrites = 0;
    told.dio_told = false;
}

static inline void tell_nothing_is_cached(void)
{
    told.openat2_cached_errno = EAGAIN;
    told.preadv2_errno = EAGAIN;
}

static long (*next_syscall)(long, ...);
static ssize_t (*next_preadv2)(int, const struct iovec *, int, off_t, int);
static int (*next_fdatasync)(int);
static int (*next_statx)(int, const char *, int, unsigned, struct statx *);

/* Before there are threads. */
__attribute__((constructor)) static void find_next(void)
{
    *(void **)&next_syscall = dlsym(RTLD_NEXT, "syscall");
    *(void **)&next_preadv2 = dlsym(RTLD_NEXT, "preadv2");
    *(void **)&next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&next_statx = dlsym(RTLD_NEXT, "statx");
}

/* As linux_dirent64. */
struct listed {
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    uint8_t type;
};

static inline void forget_types(char *buf, long len)
{
    for (long at = 0; at < len;) {
        struct listed *entry = (void *)(buf + at);
        entry->type = DT_UNKNOWN;
        at += entry->bytes;
    }
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
    if (number == SYS_close && (int)a[0] == told.closed_fd) {
        told.closed_by = gettid();
        told.close_calls++;
        if (told.close_errno != 0) {
            (void)next_syscall(number, a[0]);
            errno = told.close_errno;
            return -1;
        }
    }
    if (number == SYS_getdents64) {
        if (told.list_errno != 0) {
            errno = told.list_errno;
            return -1;
        }
        long rc = next_syscall(number, a[0], a[1], a[2]);
        if (rc > 0 && told.untyped)
            forget_types((char *)a[1], rc);
        return rc;
    }
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

static inline bool touches(long at, size_t len, off_t offset)
{
    return at < 0 || (at >= offset && (size_t)(at - offset) < len);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    told.preads++;
    if (told.hold_pread) {
        sem_post(&pread_entered);
        sem_wait(&pread_go);
    }
    if (told.pread_most != 0 && len > (size_t)told.pread_most)
        len = (size_t)told.pread_most;
    if (told.pread_ends_at >= offset && touches(told.pread_ends_at, len, offset)) {
        len = (size_t)(told.pread_ends_at - offset);
        if (len == 0)
            told.pread_ends_at = -1;
    }
    if (told.pread_errno != 0 && touches(told.pread_fails_at, len, offset)) {
        errno = told.pread_errno;
        return -1;
    }
    struct iovec vec = {.iov_base = buf, .iov_len = len};
    return preadv(fd, &vec, 1, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    told.pwrites++;
    if (told.hold_pwrite && touches(told.held_byte, len, offset)) {
        sem_post(&pwrite_entered);
        sem_wait(&pwrite_go);
    }
    if (told.interruptions > 0) {
        told.interruptions--;
        errno = EINTR;
        return -1;
    }
    if (told.pwrite_errno != 0 && touches(told.pwrite_fails_at, len, offset)) {
        errno = told.pwrite_errno;
        return told.pwrite_errno == ENODATA ? 0 : -1; /* ENODATA: takes nothing without a reason */
    }
    if (told.pwrite_most != 0 && len > (size_t)told.pwrite_most)
        len = (size_t)told.pwrite_most;
    struct iovec vec = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    return pwritev(fd, &vec, 1, offset);
}

int fdatasync(int fd)
{
    if (told.sync_errno != 0) {
        errno = told.sync_errno;
        return -1;
    }
    return next_fdatasync(fd);
}

int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out)
{
    if (next_statx == NULL)
        find_next();
    int rc = next_statx(dirfd, path, flags, mask, out);
    if (rc == 0 && told.dio_told && (mask & STATX_DIOALIGN) != 0) {
        out->stx_mask &= ~STATX_DIOALIGN;
        if (told.dio_known)
            out->stx_mask |= STATX_DIOALIGN;
        out->stx_dio_mem_align = told.dio_memory;
        out->stx_dio_offset_align = told.dio_offset;
    }
    return rc;
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
    sem_init(&pwrite_entered, 0, 0);
    sem_init(&pwrite_go, 0, 0);
    return 0;
}

/* Everything in the directory, which it closes. */
static inline void remove_inside(int dirfd)
{
    DIR *dir = fdopendir(dirfd);
    if (dir == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd, entry->d_name, 0) == 0)
            continue;
        int below = openat(dirfd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            remove_inside(below);
        (void)unlinkat(dirfd, entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

static inline int remove_files(void **state)
{
    (void)state;
    close(root_fd);
    remove_inside(base_fd);
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

static inline int open_for(struct shoal_file *out, const char *path, uint64_t flags)
{
    bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    const struct shoal_file_how how = {.flags = flags, .mode = creates ? 0644 : 0};
    return shoal_file_open(out, root_fd, path, &how);
}

static inline bool on_epoll(void)
{
    return strcmp(shoal_core_io_backend(), "epoll") == 0;
}

/* ---- Ways ---- */

/* Each case with everything cached, and again with nothing. */
static inline void run_both_ways(shoal_fiber_fn *fn)
{
    tell_nothing();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, fn, NULL), 0);
    tell_nothing();
}

/* As with a ring whose kernel knows no operation on files: helper threads do everything. */
static inline int without_ring(void *arg)
{
    shoal_fiber_fn *const *fn = arg;
    shoal_core_self->io.native = 0;
    return (*fn)(NULL);
}

static inline void run_on_threads(shoal_fiber_fn *fn)
{
    assert_int_equal(shoal_test_run(1, without_ring, &fn), 0);
}

static inline void run_all_ways(shoal_fiber_fn *fn)
{
    run_both_ways(fn);
    tell_nothing_is_cached();
    run_on_threads(fn);
    tell_nothing();
}

static inline int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

#endif
