/*
 * Writing files, their size, and bringing them to the disk: see file.h.
 *
 * Rejected: a try with RWF_NOWAIT first, as reads have it. ext4, tmpfs and network file systems
 * refuse it for what goes to the page cache (measured on 6.18); XFS and btrfs take it, and there
 * the ring makes that very try by itself. Without it a write through the ring goes to a worker of
 * the kernel, which costs a handoff but never holds the core while the journal is full or writers
 * are throttled.
 */
#include <errno.h>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/file_impl.h"

/* What one sync_file_range covers at most: the ring takes 32 bits. A multiple of all page sizes. */
#define SYNC_PIECE_BYTES (UINT64_C(1) << 30)

static int refuse(const struct shoal_file *file, const struct shoal_core *core)
{
    shoal_file_check_mine(file);
    return shoal_fiber_cancel_code(core->fiber);
}

/* Once a file. The ring would write to a pipe or a socket and let the offset be. */
int shoal_file_begin_writing(const struct shoal_core *core, struct shoal_file *file)
{
    if (file->written)
        return 0;
    if (core->io.ops->real_files && lseek(file->fd, 0, SEEK_CUR) < 0)
        return -errno;
    file->written = true;
    return 0;
}

static int write_vec(struct shoal_file *file, const struct iovec *vec, uint64_t offset_bytes,
                     int32_t flags)
{
    struct shoal_core *core = shoal_file_core();
    int rc = refuse(file, core);
    if (rc < 0)
        return rc;
    if (offset_bytes > INT64_MAX)
        return -EINVAL;
    rc = shoal_file_begin_writing(core, file);
    if (rc < 0)
        return rc;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_WRITE, .fd = &fd};
    op.arg.rw.data = vec->iov_base;
    op.arg.rw.len =
        (uint32_t)(vec->iov_len < SHOAL_FILE_WRITE_MAX ? vec->iov_len : SHOAL_FILE_WRITE_MAX);
    op.arg.rw.offset = offset_bytes;
    op.arg.rw.flags = flags;
    return shoal_file_explain(file, shoal_file_run(core, &op), "write", vec, 1, offset_bytes);
}

int shoal_file_write(struct shoal_file *file, const void *data, size_t len, uint64_t offset_bytes)
{
    struct iovec vec = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return write_vec(file, &vec, offset_bytes, 0);
}

int shoal_file_append(struct shoal_file *file, const void *data, size_t len)
{
    struct iovec vec = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return write_vec(file, &vec, 0, RWF_APPEND);
}

int shoal_file_write_all(struct shoal_file *file, const void *data, size_t len,
                         uint64_t offset_bytes)
{
    const char *at = data;
    if (len > INT64_MAX || offset_bytes > INT64_MAX - len)
        return -EINVAL;
    while (len > 0) {
        int rc = shoal_file_write(file, at, len, offset_bytes);
        if (rc <= 0)
            return rc == 0 ? -EIO : rc; /* no file system takes nothing without a reason */
        at += rc;
        len -= (size_t)rc;
        offset_bytes += (uint64_t)rc;
    }
    return 0;
}

int shoal_file_writev(struct shoal_file *file, const struct iovec *vecs, unsigned count,
                      uint64_t offset_bytes)
{
    struct shoal_core *core = shoal_file_core();
    int rc = refuse(file, core);
    if (rc < 0)
        return rc;
    if (offset_bytes > INT64_MAX || count > SHOAL_FILE_VECTORS_MAX)
        return -EINVAL;
    rc = shoal_file_begin_writing(core, file);
    if (rc < 0)
        return rc;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_WRITEV, .fd = &fd};
    op.arg.rw.data = (void *)(uintptr_t)vecs;
    op.arg.rw.len = count;
    op.arg.rw.offset = offset_bytes;
    return shoal_file_explain(file, shoal_file_run(core, &op), "write", vecs, (int)count,
                              offset_bytes);
}

/* ---- Size and disk ---- */

static int run_range(struct shoal_file *file, enum shoal_io_kind kind, uint32_t how,
                     uint64_t offset_bytes, uint64_t len)
{
    struct shoal_core *core = shoal_file_core();
    int rc = refuse(file, core);
    if (rc < 0)
        return rc;
    if (offset_bytes > INT64_MAX || len > INT64_MAX)
        return -EINVAL;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = (uint8_t)kind, .fd = &fd};
    op.arg.range.offset = offset_bytes;
    op.arg.range.len = len;
    op.arg.range.how = how;
    return shoal_file_run(core, &op);
}

int shoal_file_sync(struct shoal_file *file)
{
    return run_range(file, SHOAL_IO_SYNC, 0, 0, 0);
}

int shoal_file_sync_data(struct shoal_file *file)
{
    return run_range(file, SHOAL_IO_SYNC, 1, 0, 0);
}

int shoal_file_writeback(struct shoal_file *file, uint64_t offset_bytes, uint64_t len)
{
    while (len > SYNC_PIECE_BYTES) {
        int rc = run_range(file, SHOAL_IO_SYNC_SOME, SYNC_FILE_RANGE_WRITE, offset_bytes,
                           SYNC_PIECE_BYTES);
        if (rc < 0)
            return rc;
        offset_bytes += SYNC_PIECE_BYTES;
        len -= SYNC_PIECE_BYTES;
    }
    return run_range(file, SHOAL_IO_SYNC_SOME, SYNC_FILE_RANGE_WRITE, offset_bytes, len);
}

int shoal_file_truncate(struct shoal_file *file, uint64_t size_bytes)
{
    file->written = true;
    return run_range(file, SHOAL_IO_TRUNCATE, 0, 0, size_bytes);
}

int shoal_file_allocate(struct shoal_file *file, unsigned flags, uint64_t offset_bytes,
                        uint64_t len)
{
    static const struct {
        unsigned flag;
        uint32_t mode;
    } modes[] = {
        {SHOAL_FILE_KEEP_SIZE, FALLOC_FL_KEEP_SIZE},
        {SHOAL_FILE_PUNCH_HOLE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
        {SHOAL_FILE_ZERO, FALLOC_FL_ZERO_RANGE},
    };
    uint32_t mode = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(modes); i++) {
        if ((flags & modes[i].flag) != 0)
            mode |= modes[i].mode;
        flags &= ~modes[i].flag;
    }
    if (flags != 0)
        return -EINVAL;
    file->written = true;
    return run_range(file, SHOAL_IO_ALLOCATE, mode, offset_bytes, len);
}
