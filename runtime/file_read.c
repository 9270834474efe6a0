/*
 * Reading files: see file.h.
 *
 *   preadv2 with RWF_NOWAIT, at once -> not cached -> ring, or helper thread
 *
 * 1. A read of 0 bytes with RWF_NOWAIT is not taken as the end of the file: kernels 5.9 and 5.10
 *    give it for data that is not cached.
 * 2. What is read at once is SHOAL_FILE_READ_MAX at most, however many vectors there are: a copy
 *    holds the core.
 */
#include <errno.h>

#include <sys/uio.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/file_impl.h"

int shoal_file_read_cached(struct shoal_file *file, const struct iovec *vecs, int count,
                           uint64_t offset_bytes)
{
    if (!file->cached_read)
        return -EAGAIN;
    ssize_t rc = preadv2(file->fd, vecs, count, (off_t)offset_bytes, RWF_NOWAIT);
    if (rc > 0)
        return (int)rc;
    if (rc == 0)
        return -EAGAIN;
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        file->cached_read = false;
    return errno == EISDIR || errno == EBADF || errno == ESPIPE ? -errno : -EAGAIN;
}

/* What every read and write looks at first. */
static int refuse(const struct shoal_file *file, const struct shoal_core *core,
                  uint64_t offset_bytes)
{
    shoal_file_check_mine(file);
    int code = shoal_fiber_cancel_code(core->fiber);
    if (code < 0)
        return code;
    return offset_bytes > INT64_MAX ? -EINVAL : 0;
}

int shoal_file_read(struct shoal_file *file, void *buf, size_t len, uint64_t offset_bytes)
{
    struct shoal_core *core = shoal_file_core();
    int rc = refuse(file, core, offset_bytes);
    if (rc < 0)
        return rc;
    struct iovec vec = {.iov_base = buf,
                        .iov_len = len < SHOAL_FILE_READ_MAX ? len : SHOAL_FILE_READ_MAX};
    rc = shoal_file_read_cached(file, &vec, 1, offset_bytes);
    if (rc != -EAGAIN) {
        shoal_file_give_way();
        return rc;
    }
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_READ, .fd = &fd};
    op.arg.rw.data = buf;
    op.arg.rw.len = (uint32_t)vec.iov_len;
    op.arg.rw.offset = offset_bytes;
    return shoal_file_explain(file, shoal_file_run(core, &op), "read", &vec, 1, offset_bytes);
}

int shoal_file_read_exact(struct shoal_file *file, void *buf, size_t len, uint64_t offset_bytes)
{
    char *at = buf;
    if (len > INT64_MAX || offset_bytes > INT64_MAX - len)
        return -EINVAL;
    while (len > 0) {
        int rc = shoal_file_read(file, at, len, offset_bytes);
        if (rc <= 0)
            return rc == 0 ? SHOAL_EEOF : rc;
        at += rc;
        len -= (size_t)rc;
        offset_bytes += (uint64_t)rc;
    }
    return 0;
}

static bool is_small(const struct iovec *vecs, unsigned count)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        if (vecs[i].iov_len > SHOAL_FILE_READ_MAX - bytes)
            return false;
        bytes += vecs[i].iov_len;
    }
    return true;
}

int shoal_file_readv(struct shoal_file *file, const struct iovec *vecs, unsigned count,
                     uint64_t offset_bytes)
{
    struct shoal_core *core = shoal_file_core();
    int rc = refuse(file, core, offset_bytes);
    if (rc < 0)
        return rc;
    if (count > SHOAL_FILE_VECTORS_MAX)
        return -EINVAL;
    rc = is_small(vecs, count) ? shoal_file_read_cached(file, vecs, (int)count, offset_bytes)
                               : -EAGAIN;
    if (rc != -EAGAIN) {
        shoal_file_give_way();
        return rc;
    }
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_READV, .fd = &fd};
    op.arg.rw.data = (void *)(uintptr_t)vecs;
    op.arg.rw.len = count;
    op.arg.rw.offset = offset_bytes;
    return shoal_file_explain(file, shoal_file_run(core, &op), "read", vecs, (int)count,
                              offset_bytes);
}
