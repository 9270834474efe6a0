/*
 * Files: see file.h. Here: open and close.
 *
 *   open   openat2 with RESOLVE_CACHED, at once -> not cached -> ring, or helper thread
 *   close  at once, unless that frees the file's blocks or may write -> helper thread
 *
 * 1. Nothing here is allocated: operations and arguments are on the stack of the fiber, which stays
 *    until they have ended.
 * 2. A call that is answered at once looks at the fiber's cancel and at the core's quota itself,
 *    since it passes by the loop that otherwise does.
 * 3. Opening is done with O_NONBLOCK, so that a FIFO or a device cannot hold a thread, and the flag
 *    is taken off again: a read of a file system without RWF_NOWAIT would fail through the ring.
 *
 * Rejected: the io_uring CLOSE operation, see uring_file.c. Closing at once whatever was written: a
 * file that was truncated and written again starts its writeback in close (ext4), and a network
 * file system writes there and reports what went wrong.
 *
 * A new operation is a kind in io_impl.h, its system call in file_op.c, and its place in
 * uring_file.c where the ring knows it.
 */
#include "shoal/runtime/file.h"

#include <errno.h>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/file_impl.h"

/* openat2 asks for another try when a rename crossed its way out of a `..`. */
#define OPEN_TRIES 8

/* ---- Open ---- */

struct open_args {
    int dirfd;
    const char *path;
    struct shoal_open_how how;
};

static int open_waiting(struct shoal_core *core, struct open_args *args)
{
    struct shoal_io_fd dir = {.fd = args->dirfd};
    struct shoal_io_op op = {.kind = SHOAL_IO_OPEN, .fd = &dir};
    op.arg.open.path = args->path;
    op.arg.open.how = &args->how;
    return shoal_file_run(core, &op);
}

static int open_slowly(struct shoal_core *core, struct open_args *args)
{
    uint64_t flags = args->how.flags;
    int rc = -EAGAIN;
    for (unsigned i = 0; i < OPEN_TRIES && rc == -EAGAIN; i++) {
        /* The last try may wait: for the holder of a lease, who has been asked to give it up. */
        if (i == OPEN_TRIES - 1)
            args->how.flags = flags & ~(uint64_t)O_NONBLOCK;
        rc = open_waiting(core, args);
    }
    args->how.flags = flags;
    return rc;
}

static int open_cached(const struct shoal_core *core, const struct open_args *args)
{
    if (!core->io.ops->real_files || (args->how.flags & (O_CREAT | O_TRUNC)) != 0)
        return -EAGAIN; /* they write to the disk: never answered from a cache */
    struct shoal_io_fd dir = {.fd = args->dirfd};
    struct shoal_open_how how = args->how;
    how.resolve |= RESOLVE_CACHED;
    struct shoal_io_op op = {.kind = SHOAL_IO_OPEN, .fd = &dir};
    op.arg.open.path = args->path;
    op.arg.open.how = &how;
    int rc = shoal_file_op_now(&op);
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

/* A read of O_DIRECT waits for the disk whatever RWF_NOWAIT says. */
static void set_flags(const struct shoal_core *core, struct shoal_file *file, uint64_t flags)
{
    file->direct = (flags & O_DIRECT) != 0;
    file->appends = (flags & O_APPEND) != 0;
    file->cached_read = core->io.ops->real_files && !file->direct;
}

int shoal_file_open(struct shoal_file *out, int dirfd, const char *path,
                    const struct shoal_file_how *how)
{
    struct shoal_core *core = shoal_file_core();
    *out = (struct shoal_file){.fd = -1, .core = (uint16_t)core->id};
    int code = shoal_fiber_cancel_code(core->fiber);
    if (code < 0)
        return code;
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
    int fd = open_cached(core, &args);
    if (fd == -EAGAIN)
        fd = open_slowly(core, &args);
    else
        shoal_file_give_way();
    if (fd < 0)
        return fd;
    if (opens && (how->flags & O_NONBLOCK) == 0 && core->io.ops->real_files)
        (void)fcntl(fd, F_SETFL, (int)how->flags);
    out->fd = fd;
    set_flags(core, out, how->flags);
    return 0;
}

int shoal_file_adopt(struct shoal_file *out, int fd)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL, "a file is adopted outside a core");
    *out = (struct shoal_file){.fd = -1, .core = (uint16_t)core->id};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    out->fd = fd;
    set_flags(core, out, (uint64_t)flags);
    return 0;
}

/* ---- Close ---- */

/* Whether a close may take long: a file without a name is deleted by it. */
static bool close_deletes(int fd)
{
    struct statx now;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_NLINK, &now) == 0 &&
           S_ISREG(now.stx_mode) && now.stx_nlink == 0;
}

int shoal_file_close(struct shoal_file *file)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_CLOSE, .fd = &fd};
    if (fd.fd < 0)
        return 0;
    shoal_file_check_mine(file);
    file->fd = -1;
    int rc = -EAGAIN;
    bool slow = file->written || !core->io.ops->real_files || close_deletes(fd.fd);
    if (core->fiber != NULL && slow) {
        shoal_fiber_shield();
        rc = shoal_file_run(core, &op);
        shoal_fiber_unshield();
    }
    return rc == -EAGAIN ? shoal_file_op_now(&op) : rc;
}
