/*
 * Operations on files, by the backend or on a helper thread: see file_impl.h.
 *
 * 1. An operation and its arguments are the waiting fiber's, or a stream's, which stay until it has
 *    ended: nothing is allocated.
 * 2. "Interrupted" is no result: the operation is made again, unless the fiber is cancelled, which
 *    the second try finds out.
 */
#include <errno.h>
#include <stdio.h>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shoal/runtime/file_impl.h"

/* The kernel's "interrupted, to be restarted", which the ring hands out as it is. */
#define KERNEL_ERESTARTSYS (-512)

SHOAL_STATIC_ASSERT(sizeof(struct shoal_open_how) == sizeof(struct open_how), "handed to io_uring");

static int is_interrupted(int rc)
{
    return rc == -EINTR || rc == KERNEL_ERESTARTSYS;
}

/* ---- On a thread ---- */

static long write_now(const struct shoal_io_op *op)
{
    struct iovec vec = {.iov_base = op->arg.rw.data, .iov_len = op->arg.rw.len};
    int fd = op->fd->fd;
    off_t offset = (off_t)op->arg.rw.offset;
    if (op->arg.rw.flags == 0)
        return pwrite(fd, vec.iov_base, vec.iov_len, offset);
    return pwritev2(fd, &vec, 1, offset, op->arg.rw.flags);
}

static long contents_now(const struct shoal_io_op *op)
{
    int fd = op->fd->fd;
    off_t offset = (off_t)op->arg.rw.offset;
    off_t from = (off_t)op->arg.range.offset;
    off_t len = (off_t)op->arg.range.len;
    switch (op->kind) {
    case SHOAL_IO_READ:
        return pread(fd, op->arg.rw.data, op->arg.rw.len, offset);
    case SHOAL_IO_READV:
        return preadv(fd, op->arg.rw.data, (int)op->arg.rw.len, offset);
    case SHOAL_IO_WRITE:
        return write_now(op);
    case SHOAL_IO_WRITEV:
        return pwritev2(fd, op->arg.rw.data, (int)op->arg.rw.len, offset, op->arg.rw.flags);
    case SHOAL_IO_SYNC:
        return op->arg.range.how != 0 ? fdatasync(fd) : fsync(fd);
    case SHOAL_IO_SYNC_SOME:
        return sync_file_range(fd, from, len, op->arg.range.how);
    case SHOAL_IO_ALLOCATE:
        return fallocate(fd, (int)op->arg.range.how, from, len);
    case SHOAL_IO_TRUNCATE:
        return ftruncate(fd, len);
    case SHOAL_IO_LIST:
        if (op->arg.rw.flags != 0 && lseek(fd, 0, SEEK_SET) < 0)
            return -1;
        return syscall(SYS_getdents64, fd, op->arg.rw.data, op->arg.rw.len);
    case SHOAL_IO_CLOSE:
        /* By number, as it was opened: TSan, which follows open() and close(), has not seen it. */
        return syscall(SYS_close, fd);
    default:
        SHOAL_PANIC("file operation of unknown kind %u", op->kind);
    }
}

static long name_now(const struct shoal_io_op *op)
{
    int dirfd = op->fd->fd;
    const char *path = op->arg.path.path;
    void *other = op->arg.path.other;
    uint32_t extra = op->arg.path.extra;
    uint32_t flags = op->arg.path.flags;
    switch (op->kind) {
    case SHOAL_IO_OPEN:
        return syscall(SYS_openat2, dirfd, op->arg.open.path, op->arg.open.how,
                       sizeof(*op->arg.open.how));
    case SHOAL_IO_STAT:
        return statx(dirfd, path, (int)flags, extra, other);
    case SHOAL_IO_RENAME:
        return renameat2(dirfd, path, (int)extra, other, flags);
    case SHOAL_IO_LINK:
        return linkat(dirfd, path, (int)extra, other, (int)flags);
    case SHOAL_IO_SYMLINK:
        return symlinkat(other, dirfd, path);
    case SHOAL_IO_READLINK:
        return readlinkat(dirfd, path, other, extra);
    case SHOAL_IO_UNLINK:
        return unlinkat(dirfd, path, (int)flags);
    case SHOAL_IO_MKDIR:
        return mkdirat(dirfd, path, extra);
    default:
        return contents_now(op);
    }
}

int shoal_file_op_now(void *arg)
{
    const struct shoal_io_op *op = arg;
    long rc;
    do
        rc = name_now(op);
    while (rc < 0 && errno == EINTR && op->kind != SHOAL_IO_CLOSE);
    if (rc < 0 && op->kind == SHOAL_IO_CLOSE && errno == EINTR)
        return 0; /* closed all the same: made again, it would close another's descriptor */
    return rc < 0 ? -errno : (int)rc;
}

/* ---- On a fiber ---- */

int shoal_file_run_on_thread(struct shoal_core *core, struct shoal_io_op *op)
{
    return shoal_blocking_run(core, shoal_file_op_now, op, shoal_io_kind_name(op->kind));
}

int shoal_file_run(struct shoal_core *core, struct shoal_io_op *op)
{
    int rc;
    do
        rc = shoal_file_native(core, op) ? shoal_io_run(core, op)
                                         : shoal_file_run_on_thread(core, op);
    while (is_interrupted(rc));
    return rc;
}

/* ---- Several at a time ---- */

static void end_call(struct shoal_file_call *call, int result)
{
    call->result = is_interrupted(result) ? -EINTR : result;
    call->done(call);
}

static void ring_done(struct shoal_io_op *op)
{
    end_call(SHOAL_CONTAINER_OF(op, struct shoal_file_call, op), op->result);
}

static void thread_done(struct shoal_blocking_job *job)
{
    end_call(SHOAL_CONTAINER_OF(job, struct shoal_file_call, job), job->result);
}

static void no_thread(struct shoal_task *task)
{
    struct shoal_blocking_job *job = SHOAL_CONTAINER_OF(task, struct shoal_blocking_job, task);
    job->done(job);
}

void shoal_file_call_start(struct shoal_core *core, struct shoal_file_call *call)
{
    static const struct shoal_io_handler handler = {.done = ring_done};
    call->op.fd = &call->fd;
    call->on_thread = !shoal_file_native(core, &call->op);
    if (!call->on_thread) {
        call->op.on = &handler;
        call->op.state = SHOAL_IO_IDLE;
        shoal_io_submit(core, &call->op);
        return;
    }
    call->job =
        (struct shoal_blocking_job){.fn = shoal_file_op_now, .arg = &call->op, .done = thread_done};
    int rc = shoal_blocking_submit(core, &call->job);
    if (rc < 0) {
        call->job.result = rc;
        call->job.task.run = no_thread;
        shoal_core_post(core, &call->job.task);
    }
}

void shoal_file_call_cancel(struct shoal_core *core, struct shoal_file_call *call)
{
    if (call->on_thread)
        shoal_blocking_cancel(core, &call->job);
    else
        shoal_io_cancel(core, &call->op);
}
