/*
 * Facts about files, of an open one and by path: see file.h and file_path.h.
 *
 * By path: what the kernel has in its caches is had at once (openat2 with RESOLVE_CACHED and
 * O_PATH, statx of what that gives, close: three cheap system calls), since a statx through the
 * ring or on a helper thread costs a handoff in any case.
 */
#include <errno.h>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "shoal/runtime/file_impl.h"
#include "shoal/runtime/file_path.h"

#define MASK (STATX_BASIC_STATS | STATX_BTIME)

static void fill(struct shoal_file_stat *out, const struct statx *in)
{
    *out = (struct shoal_file_stat){
        .size_bytes = in->stx_size,
        .inode = in->stx_ino,
        .device = makedev(in->stx_dev_major, in->stx_dev_minor),
        .mtime_s = in->stx_mtime.tv_sec,
        .mtime_fraction_ns = in->stx_mtime.tv_nsec,
        .mode = in->stx_mode,
        .links = in->stx_nlink,
        .user = in->stx_uid,
        .group = in->stx_gid,
        .block_bytes = in->stx_blksize,
        .allocated_bytes = in->stx_blocks * 512,
        .atime_s = in->stx_atime.tv_sec,
        .ctime_s = in->stx_ctime.tv_sec,
        .born_s = in->stx_btime.tv_sec,
        .atime_fraction_ns = in->stx_atime.tv_nsec,
        .ctime_fraction_ns = in->stx_ctime.tv_nsec,
        .born_fraction_ns = in->stx_btime.tv_nsec,
    };
}

static void prepare(struct shoal_io_op *op, const char *path, uint32_t flags, struct statx *now)
{
    op->kind = SHOAL_IO_STAT;
    op->arg.path.path = path;
    op->arg.path.other = now;
    op->arg.path.extra = MASK;
    op->arg.path.flags = flags;
}

int shoal_file_stat(const struct shoal_file *file, struct shoal_file_stat *out)
{
    struct shoal_core *core = shoal_file_core();
    shoal_file_check_mine(file);
    int rc = shoal_fiber_cancel_code(core->fiber);
    if (rc < 0)
        return rc;
    if (file->fd < 0)
        return -EBADF;
    struct statx now;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.fd = &fd};
    /* DONT_SYNC: a network file system answers from what the open has brought. */
    prepare(&op, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, &now);
    rc = core->io.ops->real_files ? shoal_file_op_now(&op) : shoal_file_run(core, &op);
    if (rc == 0)
        fill(out, &now);
    return rc;
}

/* -EAGAIN when the way there is not all cached. */
static int stat_cached(int dirfd, const char *path, unsigned flags, struct statx *now)
{
    struct shoal_open_how how = {.flags = O_PATH | O_CLOEXEC |
                                          ((flags & SHOAL_FILE_NO_FOLLOW) != 0 ? O_NOFOLLOW : 0),
                                 .resolve = RESOLVE_CACHED};
    struct shoal_io_fd fd = {.fd = dirfd};
    struct shoal_io_op op = {.kind = SHOAL_IO_OPEN, .fd = &fd};
    op.arg.open.path = path;
    op.arg.open.how = &how;
    fd.fd = shoal_file_op_now(&op);
    if (fd.fd <
        0) /* a file that cannot be opened for a lack of descriptors has facts all the same */
        return fd.fd == -ENOENT || fd.fd == -ENOTDIR || fd.fd == -EACCES ? fd.fd : -EAGAIN;
    prepare(&op, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, now);
    int rc = shoal_file_op_now(&op);
    op.kind = SHOAL_IO_CLOSE;
    (void)shoal_file_op_now(&op);
    return rc;
}

int shoal_file_stat_path(int dirfd, const char *path, unsigned flags, struct shoal_file_stat *out)
{
    struct shoal_core *core = shoal_file_core();
    struct statx now;
    int rc = shoal_fiber_cancel_code(core->fiber);
    if (rc < 0)
        return rc;
    if ((flags & ~SHOAL_FILE_NO_FOLLOW) != 0)
        return -EINVAL;
    rc = core->io.ops->real_files ? stat_cached(dirfd, path, flags, &now) : -EAGAIN;
    if (rc == -EAGAIN) {
        struct shoal_io_fd fd = {.fd = dirfd};
        struct shoal_io_op op = {.fd = &fd};
        prepare(&op, path, (flags & SHOAL_FILE_NO_FOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0, &now);
        rc = shoal_file_run(core, &op);
    } else {
        shoal_file_give_way();
    }
    if (rc == 0)
        fill(out, &now);
    return rc;
}
