/*
 * The contract between the library and an I/O backend: operations are submitted and complete.
 *
 * 1. An operation is a struct of its caller that lives, with all that it points to, until `done`
 *    has been called. `done` is called exactly once a submit, from the loop, never inside submit
 *    or cancel. After it the struct may be submitted again or freed.
 * 2. A multishot operation (ACCEPT, RECV) also calls `shot` for each result before that. `shot`
 *    may run inside the loop's I/O phase: it stores and queues, and calls no user code (unless
 *    core->io.in_task says that it has a task of its own).
 * 3. Cancel asks; the operation still ends with its own `done`, as -ECANCELED or with what won.
 * 4. A socket's struct shoal_io_fd is registered before its first operation and forgotten before
 *    the descriptor is closed, when none of its operations is pending.
 * 5. A backend needs nothing of its caller but this header; a simulated one can be added.
 */
#ifndef SHOAL_RUNTIME_IO_IMPL_H
#define SHOAL_RUNTIME_IO_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/socket.h>

#include "shoal/runtime/bufpool_impl.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/task.h"

struct shoal_core;
struct shoal_fiber;
struct shoal_io_op;

enum shoal_io_kind {
    SHOAL_IO_ACCEPT,  /* multishot: result is a descriptor; backend decides on O_NONBLOCK */
    SHOAL_IO_RECV,    /* multishot: slices of the core's pool; ends with 0 at end of stream */
    SHOAL_IO_SEND,    /* one buffer; result: bytes taken, may be short */
    SHOAL_IO_SENDMSG, /* a struct msghdr; the same */
    SHOAL_IO_CONNECT,
    SHOAL_IO_POLL, /* one shot, level; any descriptor */

    /*
     * Files: those whose bit is in io.native are submitted to the backend, the others run on a
     * helper thread, by shoal_file_op_now(). The descriptor (of the file, or of the directory from
     * which a path leads) is fd->fd, which need not be registered. The result is that of the system
     * call.
     */
    SHOAL_IO_READ,      /* arg.rw */
    SHOAL_IO_READV,     /* arg.rw: `len` vectors at `data` */
    SHOAL_IO_WRITE,     /* arg.rw */
    SHOAL_IO_WRITEV,    /* arg.rw: `len` vectors at `data` */
    SHOAL_IO_SYNC,      /* arg.range.how: 0, or 1 for the data only */
    SHOAL_IO_SYNC_SOME, /* arg.range.how: flags of sync_file_range(2) */
    SHOAL_IO_ALLOCATE,  /* arg.range.how: mode of fallocate(2) */
    SHOAL_IO_TRUNCATE,  /* arg.range.len: the new size */
    SHOAL_IO_CLOSE,
    SHOAL_IO_OPEN,     /* arg.open; openat2(2) */
    SHOAL_IO_STAT,     /* arg.path: `other` is a struct statx, `extra` the mask */
    SHOAL_IO_RENAME,   /* arg.path: to `other`, from directory `extra` on */
    SHOAL_IO_LINK,     /* the same */
    SHOAL_IO_SYMLINK,  /* arg.path: `other` is what the link says */
    SHOAL_IO_READLINK, /* arg.path: `other` is a buffer of `extra` bytes */
    SHOAL_IO_UNLINK,   /* arg.path */
    SHOAL_IO_MKDIR,    /* arg.path: `extra` is the mode */
    SHOAL_IO_LIST,     /* arg.rw; getdents64(2), from the start if `flags` is not 0 */
    SHOAL_IO_KINDS,
};

#define SHOAL_IO_BIT(kind) (UINT32_C(1) << (kind))
SHOAL_STATIC_ASSERT(SHOAL_IO_KINDS <= 32, "io.native has a bit for each kind");

enum shoal_io_state {
    SHOAL_IO_IDLE,
    SHOAL_IO_PENDING, /* with the backend */
    SHOAL_IO_QUEUED,  /* its task is queued, to go on or to complete */
    SHOAL_IO_STARVED, /* waits for a buffer of the pool */
    SHOAL_IO_BACKLOG, /* waits for a place in the submission queue */
};

/* A descriptor as the backends see it. */
struct shoal_io_fd {
    int fd;
    uint8_t ready; /* epoll: what has been reported and not used up */
    bool registered;
    struct shoal_io_op *in;  /* epoll: who waits for input */
    struct shoal_io_op *out; /* epoll: who waits for output */
};

struct shoal_io_handler {
    void (*done)(struct shoal_io_op *op); /* result in op->result */
    void (*shot)(struct shoal_io_op *op, int result, struct shoal_slice *slice);
};

struct shoal_open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

struct shoal_io_op {
    struct shoal_task task;
    const struct shoal_io_handler *on;
    struct shoal_io_fd *fd;
    union {
        struct shoal_bufpool_waiter starved; /* RECV; io_uring: `node` also while `doubted` */
        struct {
            const void *data;
            uint32_t len;
        } send;
        struct msghdr *msg;
        struct {
            const struct sockaddr *address;
            socklen_t address_len;
        } connect;
        struct {
            struct shoal_io_fd own;
        } poll;
        struct {
            void *data; /* of a write too, which leaves it as it is */
            uint64_t offset;
            uint32_t len;
            int32_t flags; /* RWF_* */
        } rw;
        struct {
            uint64_t offset;
            uint64_t len;
            uint32_t how;
        } range;
        struct {
            const char *path;
            struct shoal_open_how *how;
        } open;
        struct {
            const char *path;
            void *other;
            uint32_t extra;
            uint32_t flags; /* AT_*, RENAME_* */
        } path;
    } arg;
    int32_t result;
    uint16_t poll_events;
    uint8_t kind;
    uint8_t state : 4;
    uint8_t cancelling : 1;
    uint8_t careful : 1;      /* ACCEPT: one at a time, so that a cancel stops it at once */
    uint8_t cancel_waits : 1; /* io_uring: the request to cancel waits for a place itself */
    uint8_t doubted : 1;      /* io_uring: RECV: the kernel may have lost its end */
};

struct shoal_io_ops {
    const char *name;
    /* Files are the system's own: what it has in memory is asked for by system calls. */
    bool real_files;
    /* Sets up the calling core, and io.native. 0, or -errno with a reason in `error`. */
    int (*open)(struct shoal_core *core, char *error, size_t error_size);
    void (*close)(struct shoal_core *core);
    void (*submit)(struct shoal_core *core, struct shoal_io_op *op);
    void (*cancel)(struct shoal_core *core, struct shoal_io_op *op);
    /* Starts and ends the use of a descriptor. 0 or -errno. */
    int (*add)(struct shoal_core *core, struct shoal_io_fd *fd);
    void (*remove)(struct shoal_core *core, struct shoal_io_fd *fd);
    /* Submits, waits up to `wait_ns` (0: not at all), and queues what has completed. */
    void (*poll)(struct shoal_core *core, uint64_t wait_ns);
    /* Whether a poll() between tasks may find something. Cheap. */
    bool (*pending)(struct shoal_core *core);
    bool pending_known; /* `pending` is certain; else it takes a system call to know */
    int accept_flags;   /* for accept4(2) */
    bool plain_send;    /* a send(2) tried first costs less than an operation */
};

struct shoal_io {
    const struct shoal_io_ops *ops;
    void *backend;
    uint32_t native; /* SHOAL_IO_BIT of each kind of file operation that the backend runs */
    uint32_t in_flight;
    bool in_task; /* `shot` is being called from a task of its own: it may go on at once */
};

extern const struct shoal_io_ops shoal_io_uring;
extern const struct shoal_io_ops shoal_io_epoll;

static inline bool shoal_io_busy(const struct shoal_io_op *op)
{
    return op->state != SHOAL_IO_IDLE;
}

void shoal_io_submit(struct shoal_core *core, struct shoal_io_op *op);

/* Harmless on an operation that is idle or asked already. */
void shoal_io_cancel(struct shoal_core *core, struct shoal_io_op *op);

/* For backends: queues the completion of `op`. */
void shoal_io_complete(struct shoal_core *core, struct shoal_io_op *op, int result);

/* Submits `op` and waits for it on the running fiber; a cancel of the fiber cancels it. */
int shoal_io_run(struct shoal_core *core, struct shoal_io_op *op);

/* What a fiber that waits for such an operation waits for, for reports. */
const char *shoal_io_kind_name(uint8_t kind);

#endif
