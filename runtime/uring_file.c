/*
 * Operations on files as the ring takes them: see uring_file_impl.h.
 *
 * Which operations a kernel knows is asked once a ring, so that one that is missing runs on a
 * helper thread in place of failing with -EINVAL.
 *
 * Rejected: the CLOSE operation. It closes on the core's own thread unless the file has a `flush`
 * of its own (NFS, FUSE), and so holds the core while a local file system lets go of blocks.
 */
#include <fcntl.h>
#include <linux/openat2.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/uring_file_impl.h"

/* Indexed by kind; 0 (a NOP) where there is no such operation. */
static const uint8_t opcodes[SHOAL_IO_KINDS] = {
    [SHOAL_IO_READ] = IORING_OP_READ,          [SHOAL_IO_READV] = IORING_OP_READV,
    [SHOAL_IO_WRITE] = IORING_OP_WRITE,        [SHOAL_IO_WRITEV] = IORING_OP_WRITEV,
    [SHOAL_IO_SYNC] = IORING_OP_FSYNC,         [SHOAL_IO_SYNC_SOME] = IORING_OP_SYNC_FILE_RANGE,
    [SHOAL_IO_ALLOCATE] = IORING_OP_FALLOCATE, [SHOAL_IO_TRUNCATE] = SHOAL_URING_OP_FTRUNCATE,
    [SHOAL_IO_OPEN] = IORING_OP_OPENAT2,       [SHOAL_IO_STAT] = IORING_OP_STATX,
    [SHOAL_IO_RENAME] = IORING_OP_RENAMEAT,    [SHOAL_IO_LINK] = IORING_OP_LINKAT,
    [SHOAL_IO_SYMLINK] = IORING_OP_SYMLINKAT,  [SHOAL_IO_UNLINK] = IORING_OP_UNLINKAT,
    [SHOAL_IO_MKDIR] = IORING_OP_MKDIRAT,
};

uint32_t shoal_uring_file_kinds(const struct io_uring_probe *probe)
{
    uint32_t kinds = 0;
    for (uint32_t kind = SHOAL_IO_READ; kind < SHOAL_IO_KINDS; kind++)
        if (opcodes[kind] != 0 && io_uring_opcode_supported(probe, opcodes[kind]))
            kinds |= SHOAL_IO_BIT(kind);
    return kinds;
}

static void prepare_contents(struct io_uring_sqe *sqe, const struct shoal_io_op *op)
{
    int fd = op->fd->fd;
    switch (op->kind) {
    case SHOAL_IO_SYNC:
        io_uring_prep_fsync(sqe, fd, op->arg.range.how != 0 ? IORING_FSYNC_DATASYNC : 0);
        break;
    case SHOAL_IO_SYNC_SOME:
        io_uring_prep_sync_file_range(sqe, fd, (unsigned)op->arg.range.len, op->arg.range.offset,
                                      (int)op->arg.range.how);
        break;
    case SHOAL_IO_ALLOCATE:
        io_uring_prep_fallocate(sqe, fd, (int)op->arg.range.how, (off_t)op->arg.range.offset,
                                (off_t)op->arg.range.len);
        break;
    case SHOAL_IO_TRUNCATE:
        io_uring_prep_rw(SHOAL_URING_OP_FTRUNCATE, sqe, fd, NULL, 0, op->arg.range.len);
        break;
    default: /* reads and writes, which differ in the opcode only */
        io_uring_prep_rw(opcodes[op->kind], sqe, fd, op->arg.rw.data, op->arg.rw.len,
                         op->arg.rw.offset);
        sqe->rw_flags = op->arg.rw.flags;
        break;
    }
}

void shoal_uring_prepare_file(struct io_uring_sqe *sqe, const struct shoal_io_op *op)
{
    int fd = op->fd->fd;
    const char *path = op->arg.path.path;
    void *other = op->arg.path.other;
    uint32_t extra = op->arg.path.extra;
    uint32_t flags = op->arg.path.flags;
    SHOAL_CHECK(op->kind < SHOAL_IO_KINDS && opcodes[op->kind] != 0,
                "I/O operation of unknown kind %u", op->kind);
    switch (op->kind) {
    case SHOAL_IO_OPEN:
        io_uring_prep_openat2(sqe, fd, op->arg.open.path,
                              (struct open_how *)(void *)op->arg.open.how);
        break;
    case SHOAL_IO_STAT:
        io_uring_prep_statx(sqe, fd, path, (int)flags, extra, other);
        break;
    case SHOAL_IO_RENAME:
        io_uring_prep_renameat(sqe, fd, path, (int)extra, other, flags);
        break;
    case SHOAL_IO_LINK:
        io_uring_prep_linkat(sqe, fd, path, (int)extra, other, (int)flags);
        break;
    case SHOAL_IO_SYMLINK:
        io_uring_prep_symlinkat(sqe, other, fd, path);
        break;
    case SHOAL_IO_UNLINK:
        io_uring_prep_unlinkat(sqe, fd, path, (int)flags);
        break;
    case SHOAL_IO_MKDIR:
        io_uring_prep_mkdirat(sqe, fd, path, extra);
        break;
    default:
        prepare_contents(sqe, op);
        break;
    }
}
