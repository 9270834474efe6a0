/*
 * Files: see file.h.
 *
 *   open   openat2 with RESOLVE_CACHED, at once -> not cached -> ring, or helper thread
 *   read   preadv2 with RWF_NOWAIT, at once -> not cached -> ring, or helper thread
 *   stat   statx of what the kernel knows, at once
 *   close  at once, unless that frees the file's blocks -> helper thread
 *
 * 1. Nothing here is allocated: operations and arguments are on the stack of the fiber, which stays
 *    until they have ended.
 * 2. A call that is answered at once looks at the fiber's cancel and at the core's quota itself,
 *    since it passes by the loop that otherwise does.
 * 3. Opening is done with O_NONBLOCK, so that a FIFO or a device cannot hold a thread, and the flag
 *    is taken off again: a read of a file system without RWF_NOWAIT would fail through the ring.
 * 4. A read of 0 bytes with RWF_NOWAIT is not taken as the end of the file: kernels 5.9 and 5.10
 *    give it for data that is not cached.
 *
 * Rejected: the io_uring CLOSE operation. A close is cheap but for the cases below, and a core that
 * runs out of descriptors wants them back at once.
 *
 * A new operation (write, fsync) is a struct of its arguments, a function for the helper thread,
 * and a kind in io_impl.h.
 */
#include "shoal/runtime/file.h"

#include <errno.h>
#include <limits.h>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"

/* openat2 asks for another try when a rename crossed its way out of a `..`. */
#define OPEN_TRIES 8

/* The kernel's "interrupted, to be restarted", which the ring hands out as it is. */
#define KERNEL_ERESTARTSYS (-512)

SHOAL_STATIC_ASSERT(sizeof(struct shoal_open_how) == sizeof(struct open_how), "handed to io_uring");
SHOAL_STATIC_ASSERT(SHOAL_FILE_READ_MAX <= INT_MAX, "a read's result is an int");

/* The calling core, on whose fiber a file is used. */
static struct shoal_core *enter(void)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a file is used outside a fiber");
    return core;
}

static void check_mine(const struct shoal_file *file, const struct shoal_core *core)
{
    SHOAL_DCHECK(file->core == core->id, "a file of core %u is used on core %u", file->core,
                 core->id);
    (void)file;
    (void)core;
}

/* After an answer that did not pass by the loop. It stands, even when the fiber is cancelled. */
static void give_way(void)
{
    if (shoal_need_preempt())
        (void)shoal_yield();
}

/* ---- Open ---- */

struct open_args {
    int dirfd;
    const char *path;
    struct shoal_open_how how;
};

static int open_now(void *arg)
{
    const struct open_args *args = arg;
    long rc;
    do
        rc = syscall(SYS_openat2, args->dirfd, args->path, &args->how, sizeof(args->how));
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : (int)rc;
}

static int open_waiting(struct shoal_core *core, struct open_args *args)
{
    if (!core->io.ops->files)
        return shoal_blocking_call(open_now, args);
    struct shoal_io_fd dir = {.fd = args->dirfd};
    struct shoal_io_op op = {.kind = SHOAL_IO_OPEN, .fd = &dir};
    op.arg.open.path = args->path;
    op.arg.open.how = &args->how;
    int rc = shoal_io_run(core, &op);
    return rc == KERNEL_ERESTARTSYS ? -EINTR : rc;
}

static int open_slowly(struct shoal_core *core, struct open_args *args)
{
    uint64_t flags = args->how.flags;
    int rc = -EAGAIN;
    for (unsigned i = 0; i < OPEN_TRIES && (rc == -EAGAIN || rc == -EINTR); i++) {
        /* The last try may wait: for the holder of a lease, who has been asked to give it up. */
        if (i == OPEN_TRIES - 1)
            args->how.flags = flags & ~(uint64_t)O_NONBLOCK;
        rc = open_waiting(core, args);
    }
    args->how.flags = flags;
    return rc == -EINTR && shoal_fiber_cancelled_now(core->fiber) ? -ECANCELED : rc;
}

static int open_cached(const struct open_args *args)
{
    if ((args->how.flags & (O_CREAT | O_TRUNC)) != 0)
        return -EAGAIN; /* they write to the disk: never answered from a cache */
    struct open_args cached = *args;
    cached.how.resolve |= RESOLVE_CACHED;
    int rc = open_now(&cached);
    return rc == -EINVAL ? -EAGAIN : rc; /* a kernel before 5.12: no RESOLVE_CACHED */
}

static uint64_t kernel_resolve(uint64_t resolve)
{
    uint64_t out = 0;
    if ((resolve & SHOAL_FILE_BENEATH) != 0)
        out |= RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    if ((resolve & SHOAL_FILE_NO_SYMLINKS) != 0)
        out |= RESOLVE_NO_SYMLINKS;
    return out;
}

int shoal_file_open(struct shoal_file *out, int dirfd, const char *path,
                    const struct shoal_file_how *how)
{
    struct shoal_core *core = enter();
    *out = (struct shoal_file){.fd = -1, .core = (uint16_t)core->id};
    if (shoal_fiber_cancelled_now(core->fiber))
        return -ECANCELED;
    if ((how->resolve & ~(SHOAL_FILE_BENEATH | SHOAL_FILE_NO_SYMLINKS)) != 0)
        return -EINVAL;
    bool opens = (how->flags & O_PATH) == 0; /* else it names the file only, and knows few flags */
    struct open_args args = {
        .dirfd = dirfd,
        .path = path,
        .how = {.flags = how->flags | O_CLOEXEC | (opens ? (uint64_t)O_NONBLOCK : 0),
                .mode = how->mode,
                .resolve = kernel_resolve(how->resolve)},
    };
    int fd = open_cached(&args);
    if (fd == -EAGAIN)
        fd = open_slowly(core, &args);
    else
        give_way();
    if (fd < 0)
        return fd;
    if (opens && (how->flags & O_NONBLOCK) == 0)
        (void)fcntl(fd, F_SETFL, (int)how->flags);
    out->fd = fd;
    out->cached_read = true;
    return 0;
}

/* ---- Read ---- */

struct read_args {
    int fd;
    void *buf;
    size_t len;
    off_t offset;
};

static int read_now(void *arg)
{
    const struct read_args *args = arg;
    ssize_t rc;
    do
        rc = pread(args->fd, args->buf, args->len, args->offset);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : (int)rc;
}

static int read_ring(struct shoal_core *core, const struct read_args *args)
{
    struct shoal_io_fd file = {.fd = args->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_READ, .fd = &file};
    int rc;
    do {
        op.arg.read.data = args->buf;
        op.arg.read.len = (uint32_t)args->len;
        op.arg.read.offset = (uint64_t)args->offset;
        rc = shoal_io_run(core, &op);
    } while (rc == -EINTR);
    return rc;
}

/* -EAGAIN when only a wait can tell. */
static int read_cached(struct shoal_file *file, const struct read_args *args)
{
    struct iovec vec = {.iov_base = args->buf, .iov_len = args->len};
    ssize_t rc = preadv2(args->fd, &vec, 1, args->offset, RWF_NOWAIT);
    if (rc > 0)
        return (int)rc;
    if (rc == 0)
        return -EAGAIN;
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        file->cached_read = false;
    return errno == EISDIR || errno == EBADF || errno == ESPIPE ? -errno : -EAGAIN;
}

int shoal_file_read(struct shoal_file *file, void *buf, size_t len, uint64_t offset_bytes)
{
    struct shoal_core *core = enter();
    check_mine(file, core);
    if (shoal_fiber_cancelled_now(core->fiber))
        return -ECANCELED;
    if (offset_bytes > INT64_MAX)
        return -EINVAL;
    struct read_args args = {
        .fd = file->fd,
        .buf = buf,
        .len = len < SHOAL_FILE_READ_MAX ? len : SHOAL_FILE_READ_MAX,
        .offset = (off_t)offset_bytes,
    };
    if (file->cached_read) {
        int rc = read_cached(file, &args);
        if (rc != -EAGAIN) {
            give_way();
            return rc;
        }
    }
    return core->io.ops->files ? read_ring(core, &args) : shoal_blocking_call(read_now, &args);
}

/* ---- Stat and close ---- */

int shoal_file_stat(const struct shoal_file *file, struct shoal_file_stat *out)
{
    struct shoal_core *core = enter();
    check_mine(file, core);
    if (shoal_fiber_cancelled_now(core->fiber))
        return -ECANCELED;
    if (file->fd < 0)
        return -EBADF;
    struct statx now;
    /* DONT_SYNC: a network file system answers from what the open has brought. */
    if (statx(file->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &now) != 0)
        return -errno;
    *out = (struct shoal_file_stat){
        .size_bytes = now.stx_size,
        .inode = now.stx_ino,
        .device = makedev(now.stx_dev_major, now.stx_dev_minor),
        .mtime_s = now.stx_mtime.tv_sec,
        .mtime_fraction_ns = now.stx_mtime.tv_nsec,
        .mode = now.stx_mode,
    };
    return 0;
}

/* As it was opened, by number: TSan, which follows open() and close(), has not seen it. */
static int close_now(void *arg)
{
    const int *fd = arg;
    (void)syscall(SYS_close, *fd); /* it is gone in any case, and nothing was written */
    return 0;
}

/* Whether a close may take long: a file without a name is deleted by it. */
static bool close_deletes(int fd)
{
    struct statx now;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_NLINK, &now) == 0 &&
           S_ISREG(now.stx_mode) && now.stx_nlink == 0;
}

void shoal_file_close(struct shoal_file *file)
{
    struct shoal_core *core = shoal_core_self;
    int fd = file->fd;
    if (fd < 0)
        return;
    check_mine(file, core);
    file->fd = -1;
    if (core->fiber != NULL && close_deletes(fd)) {
        shoal_fiber_shield();
        int rc = shoal_blocking_call(close_now, &fd);
        shoal_fiber_unshield();
        if (rc != -EAGAIN)
            return;
    }
    (void)close_now(&fd);
}
