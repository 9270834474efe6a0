/*
 * The io_uring backend: one ring a core, entered once a turn.
 *
 * Multishot accept and receive stay armed in the kernel; received data comes in buffers of the
 * core's pool, which the kernel picks from a buffer ring. Sends are queued and go out together at
 * the turn's end. With DEFER_TASKRUN completions become visible only inside an enter: the ring's
 * TASKRUN flag says when one is worth it, so that a turn with nothing to submit and nothing to
 * collect makes no system call.
 *
 * user_data is the operation's address; the low bits tell what else a completion may be:
 *
 *   ...000  operation        ...001  ignored (the answer to a cancel)      ...010  wake-up
 *                            ...011  time to look at receives (5)
 *
 * 1. An operation belongs to the kernel until a completion without F_MORE; a close does not cancel.
 * 2. ENOBUFS is no error of the caller's: the pool grows, or the receive waits in its line.
 * 3. A multishot that the kernel ends for reasons of its own (its fairness limit, an overflow, a
 *    kernel without multishot receive) is armed again here; the caller sees one operation.
 * 4. When the submission queue is full and the kernel does not take more, operations wait in
 *    `backlog`, in order, and requests to cancel in `cancels`, linked by the operation's task,
 *    which nobody else uses while the operation is with the kernel.
 * 5. The kernel may lose the end of a multishot receive. Data and a reset that both come while the
 *    receive is being armed, between its attempt to read and its place in the socket's wait queue,
 *    make one event; it takes the data and waits for another event, which never comes. (6.18 at
 *    least, and any end of an AF_UNIX peer since 6.17. Before a68ed2df7213, in 6.18.20, the same
 *    befell an armed receive whenever both came before its next turn.) So a receive that has given
 *    data and not ended is looked at once, LOOK_PERIOD_NS later at most: where poll(2) tells of an
 *    end it is armed anew, and finds what it missed. What comes after that look is not lost, for
 *    the receive waits by then.
 *
 * Each set-up flag that the kernel refuses is left out and the next attempt made, newest first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/uring_compat.h"
#include "shoal/runtime/uring_file_impl.h"

#define SQ_ENTRIES   1024
#define CQ_ENTRIES   8192
#define BUFFER_GROUP 0

#define TAG_MASK   UINT64_C(7)
#define TAG_IGNORE UINT64_C(1)
#define TAG_WAKE   UINT64_C(2)
#define TAG_LOOK   UINT64_C(3)

#define LOOK_PERIOD_NS (500 * SHOAL_NS_PER_MS)
#define LOOK_NEXT_NS   SHOAL_NS_PER_MS /* to the next part of a long list */
#define LOOK_BATCH     64              /* sockets with one poll(2) */
#define LOOK_BATCHES   8               /* at a time */

struct uring_backend {
    struct io_uring ring;
    struct io_uring_buf_ring *buffers;
    struct shoal_task_queue backlog;
    struct shoal_task_queue cancels;
    struct shoal_list doubted; /* receives that have given data since the last look began */
    struct shoal_list looking; /* those that this look has still to come to */
    struct __kernel_timespec look_in;
    bool recv_multishot;
    bool wake_armed;
    bool look_armed;
};

static size_t buffer_ring_bytes(void)
{
    return SHOAL_BUFPOOL_MAX * sizeof(struct io_uring_buf);
}

/* ---- Set-up ---- */

static int setup_ring(struct io_uring *ring)
{
    static const unsigned attempts[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0,
    };
    int rc = -EINVAL;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(attempts) && rc == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags =
                attempts[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
            .cq_entries = CQ_ENTRIES,
        };
        rc = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    return rc;
}

static void give_to_kernel(struct shoal_bufpool *pool, struct shoal_buffer *buffer)
{
    struct uring_backend *backend = pool->kernel;
    io_uring_buf_ring_add(backend->buffers, buffer->block.data, SHOAL_BUFFER_BYTES, buffer->id,
                          io_uring_buf_ring_mask(SHOAL_BUFPOOL_MAX), 0);
    io_uring_buf_ring_advance(backend->buffers, 1);
}

static int setup_buffers(struct uring_backend *backend, struct shoal_bufpool *pool)
{
    if (shoal_fault_alloc("buffer ring", buffer_ring_bytes()))
        return -ENOMEM;
    void *memory =
        mmap(NULL, buffer_ring_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)memory,
        .ring_entries = SHOAL_BUFPOOL_MAX,
        .bgid = BUFFER_GROUP,
    };
    int rc = io_uring_register_buf_ring(&backend->ring, &reg, 0);
    if (rc < 0) {
        munmap(memory, buffer_ring_bytes());
        return rc;
    }
    backend->buffers = memory;
    io_uring_buf_ring_init(backend->buffers);
    pool->kernel = backend;
    pool->give_to_kernel = give_to_kernel;
    return shoal_bufpool_grow(pool) ? 0 : -ENOMEM;
}

static void uring_close(struct shoal_core *core)
{
    struct uring_backend *backend = core->io.backend;
    io_uring_queue_exit(&backend->ring);
    if (backend->buffers != NULL)
        munmap(backend->buffers, buffer_ring_bytes());
    core->buffers.give_to_kernel = NULL;
    shoal_mem_free(backend, sizeof(*backend));
    core->io.backend = NULL;
}

/* What this kernel knows. Without an answer nothing is taken for granted. */
static void probe(struct shoal_core *core, struct uring_backend *backend)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&backend->ring);
    backend->recv_multishot =
        probe != NULL && io_uring_opcode_supported(probe, SHOAL_URING_OP_SEND_ZC);
    core->io.native = probe != NULL ? shoal_uring_file_kinds(probe) : 0;
    io_uring_free_probe(probe);
}

static int uring_open(struct shoal_core *core, char *error, size_t error_size)
{
    struct uring_backend *backend = shoal_mem_alloc_zeroed(sizeof(*backend));
    if (backend == NULL)
        return -ENOMEM;
    int rc = setup_ring(&backend->ring);
    if (rc < 0) {
        snprintf(error, error_size, "io_uring_setup: %s", strerror(-rc));
        shoal_mem_free(backend, sizeof(*backend));
        return rc;
    }
    core->io.backend = backend;
    shoal_task_queue_init(&backend->backlog);
    shoal_task_queue_init(&backend->cancels);
    shoal_list_init(&backend->doubted);
    shoal_list_init(&backend->looking);
    rc = setup_buffers(backend, &core->buffers);
    if (rc < 0) {
        snprintf(error, error_size, "io_uring provided buffers: %s", strerror(-rc));
        uring_close(core);
        return rc;
    }
    probe(core, backend);
    (void)io_uring_register_ring_fd(&backend->ring); /* an optimisation; fine without */
    return 0;
}

static int uring_add(struct shoal_core *core, struct shoal_io_fd *fd)
{
    (void)core;
    fd->registered = true;
    return 0;
}

static void uring_remove(struct shoal_core *core, struct shoal_io_fd *fd)
{
    (void)core;
    fd->registered = false;
}

/* ---- Submitting ---- */

/* Pushes what is queued to the kernel. Transient refusals leave it queued for the next turn. */
static void flush(struct uring_backend *backend)
{
    int rc = io_uring_submit(&backend->ring);
    SHOAL_CHECK(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR || rc == -ENOMEM,
                "io_uring_enter: %s", strerror(-rc));
}

static struct io_uring_sqe *get_sqe(struct uring_backend *backend)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&backend->ring);
    if (SHOAL_LIKELY(sqe != NULL))
        return sqe;
    flush(backend);
    return io_uring_get_sqe(&backend->ring);
}

static void prepare(const struct uring_backend *backend, struct io_uring_sqe *sqe,
                    struct shoal_io_op *op)
{
    switch (op->kind) {
    case SHOAL_IO_RECV:
        io_uring_prep_recv(sqe, op->fd->fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = BUFFER_GROUP;
        if (backend->recv_multishot)
            sqe->ioprio |= IORING_RECV_MULTISHOT;
        break;
    case SHOAL_IO_ACCEPT:
        if (op->careful)
            io_uring_prep_accept(sqe, op->fd->fd, NULL, NULL, SOCK_CLOEXEC);
        else
            io_uring_prep_multishot_accept(sqe, op->fd->fd, NULL, NULL, SOCK_CLOEXEC);
        break;
    case SHOAL_IO_SEND:
        io_uring_prep_send(sqe, op->fd->fd, op->arg.send.data, op->arg.send.len, MSG_NOSIGNAL);
        break;
    case SHOAL_IO_SENDMSG:
        io_uring_prep_sendmsg(sqe, op->fd->fd, op->arg.msg, MSG_NOSIGNAL);
        break;
    case SHOAL_IO_CONNECT:
        io_uring_prep_connect(sqe, op->fd->fd, op->arg.connect.address,
                              op->arg.connect.address_len);
        break;
    case SHOAL_IO_POLL:
        io_uring_prep_poll_add(sqe, op->fd->fd, op->poll_events);
        break;
    default:
        shoal_uring_prepare_file(sqe, op);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
}

static void uring_submit(struct shoal_core *core, struct shoal_io_op *op)
{
    struct uring_backend *backend = core->io.backend;
    struct io_uring_sqe *sqe = get_sqe(backend);
    if (SHOAL_UNLIKELY(sqe == NULL)) {
        op->state = SHOAL_IO_BACKLOG;
        shoal_task_queue_push(&backend->backlog, &op->task);
        return;
    }
    op->state = SHOAL_IO_PENDING;
    prepare(backend, sqe, op);
}

/* Asks the kernel to cancel `op`; false where it takes nothing now. */
static bool try_cancel(struct uring_backend *backend, struct shoal_io_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(backend);
    if (SHOAL_UNLIKELY(sqe == NULL))
        return false;
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORE);
    return true;
}

/* The same; where the kernel takes nothing now, the request waits. */
static void send_cancel(struct uring_backend *backend, struct shoal_io_op *op)
{
    op->cancel_waits = !try_cancel(backend, op);
    if (SHOAL_UNLIKELY(op->cancel_waits))
        shoal_task_queue_push(&backend->cancels, &op->task);
}

/* `op` is no longer with the kernel: its request to cancel has no object. */
static void forget_cancel(struct uring_backend *backend, struct shoal_io_op *op)
{
    struct shoal_task_queue others;
    shoal_task_queue_init(&others);
    struct shoal_task *task;
    while ((task = shoal_task_queue_take(&backend->cancels)) != NULL)
        if (task != &op->task)
            shoal_task_queue_push(&others, task);
    shoal_task_queue_init(&backend->cancels);
    while ((task = shoal_task_queue_take(&others)) != NULL)
        shoal_task_queue_push(&backend->cancels, task);
    op->cancel_waits = 0;
}

static bool has_backlog(const struct uring_backend *backend)
{
    return backend->backlog.head != NULL || backend->cancels.head != NULL;
}

static void submit_backlog(struct shoal_core *core)
{
    struct uring_backend *backend = core->io.backend;
    while (backend->cancels.head != NULL && io_uring_sq_space_left(&backend->ring) > 0)
        send_cancel(backend, SHOAL_CONTAINER_OF(shoal_task_queue_take(&backend->cancels),
                                                struct shoal_io_op, task));
    while (backend->backlog.head != NULL && io_uring_sq_space_left(&backend->ring) > 0) {
        struct shoal_task *task = shoal_task_queue_take(&backend->backlog);
        struct shoal_io_op *op = SHOAL_CONTAINER_OF(task, struct shoal_io_op, task);
        if (op->cancelling)
            shoal_io_complete(core, op, -ECANCELED);
        else
            uring_submit(core, op);
    }
}

static void uring_cancel(struct shoal_core *core, struct shoal_io_op *op)
{
    struct uring_backend *backend = core->io.backend;
    if (op->state == SHOAL_IO_STARVED) {
        shoal_list_remove(&op->arg.starved.node);
        shoal_io_complete(core, op, -ECANCELED);
        return;
    }
    if (op->state != SHOAL_IO_PENDING)
        return; /* completed already, or in the backlog, which looks at `cancelling` */
    send_cancel(backend, op);
}

/* ---- Completing ---- */

static void arm_again(struct shoal_core *core, struct shoal_io_op *op)
{
    if (op->cancelling)
        shoal_io_complete(core, op, -ECANCELED);
    else
        uring_submit(core, op);
}

static void resume_starved(struct shoal_bufpool_waiter *waiter)
{
    arm_again(shoal_core_self, SHOAL_CONTAINER_OF(waiter, struct shoal_io_op, arg.starved));
}

static void out_of_buffers(struct shoal_core *core, struct shoal_io_op *op)
{
    if (core->buffers.free_count > 0 || shoal_bufpool_grow(&core->buffers)) {
        arm_again(core, op);
        return;
    }
    op->state = SHOAL_IO_STARVED;
    op->arg.starved.resume = resume_starved;
    shoal_bufpool_wait(&core->buffers, &op->arg.starved);
}

/* ---- Ends that the kernel may have lost: see 5 above ---- */

static void doubt(struct uring_backend *backend, struct shoal_io_op *op)
{
    op->doubted = 1;
    shoal_list_push_back(&backend->doubted, &op->arg.starved.node);
}

static void trust(struct shoal_io_op *op)
{
    op->doubted = 0;
    shoal_list_remove(&op->arg.starved.node);
}

static void arm_look(struct uring_backend *backend)
{
    bool begun = shoal_list_linked(&backend->looking);
    if (!begun && !shoal_list_linked(&backend->doubted))
        return;
    struct io_uring_sqe *sqe = get_sqe(backend);
    if (sqe == NULL)
        return; /* tried again before the next wait */
    backend->look_in.tv_nsec = (long long)(begun ? LOOK_NEXT_NS : LOOK_PERIOD_NS);
    io_uring_prep_timeout(sqe, &backend->look_in, 0, 0);
    io_uring_sqe_set_data64(sqe, TAG_LOOK);
    backend->look_armed = true;
}

/* Looks at the next of `looking`, up to a batch; false when none is left. */
static bool look_at_batch(struct uring_backend *backend)
{
    struct pollfd sockets[LOOK_BATCH];
    struct shoal_io_op *ops[LOOK_BATCH];
    nfds_t count = 0;
    while (count < LOOK_BATCH && shoal_list_linked(&backend->looking)) {
        struct shoal_io_op *op =
            SHOAL_CONTAINER_OF(backend->looking.next, struct shoal_io_op, arg.starved.node);
        trust(op);
        sockets[count] = (struct pollfd){.fd = op->fd->fd, .events = POLLRDHUP};
        ops[count++] = op;
    }
    int ended = count > 0 ? poll(sockets, count, 0) : 0;
    for (nfds_t i = 0; i < count && ended != 0; i++) {
        if (ended > 0 && sockets[i].revents == 0)
            continue;
        /* It ends with -ECANCELED, and is armed again unless its owner wants it cancelled. */
        if (ended < 0 || !try_cancel(backend, ops[i]))
            doubt(backend, ops[i]);
    }
    return count > 0;
}

static void look(struct uring_backend *backend)
{
    backend->look_armed = false;
    if (!shoal_list_linked(&backend->looking))
        shoal_list_splice(&backend->looking, &backend->doubted);
    for (int i = 0; i < LOOK_BATCHES && look_at_batch(backend); i++) {
    }
    arm_look(backend);
}

static void on_recv(struct shoal_core *core, struct shoal_io_op *op, int result, unsigned flags)
{
    struct uring_backend *backend = core->io.backend;
    struct shoal_slice *slice = NULL;
    if (SHOAL_UNLIKELY((flags & IORING_CQE_F_MORE) == 0) && op->doubted)
        trust(op);
    if ((flags & IORING_CQE_F_BUFFER) != 0)
        slice = shoal_bufpool_filled(&core->buffers, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT),
                                     result > 0 ? (uint32_t)result : 0);
    if (SHOAL_LIKELY(result > 0)) {
        if (SHOAL_UNLIKELY((flags & IORING_CQE_F_MORE) == 0))
            arm_again(core, op);
        else if (!op->doubted)
            doubt(backend, op);
        op->on->shot(op, result, slice);
        return;
    }
    shoal_slice_free(slice);
    if ((flags & IORING_CQE_F_MORE) != 0)
        return;
    if (result == -ENOBUFS && !op->cancelling)
        out_of_buffers(core, op);
    else if (result == -EINTR || result == -EAGAIN || result == -ECANCELED)
        arm_again(core, op); /* unless its owner has it cancelled */
    else
        shoal_io_complete(core, op, result == -ENOBUFS ? -ECANCELED : result);
}

static void on_accept(struct shoal_core *core, struct shoal_io_op *op, int result, unsigned flags)
{
    bool more = (flags & IORING_CQE_F_MORE) != 0;
    if (result >= 0) {
        if (!more)
            op->state = SHOAL_IO_QUEUED; /* not with the kernel: a cancel in `shot` is only noted */
        op->on->shot(op, result, NULL);
        if (!more)
            arm_again(core, op);
    } else if (!more) {
        if (result == -ECONNABORTED || result == -EINTR || result == -EAGAIN)
            arm_again(core, op);
        else
            shoal_io_complete(core, op, result);
    }
}

static void arm_wake(struct shoal_core *core)
{
    struct uring_backend *backend = core->io.backend;
    struct io_uring_sqe *sqe = get_sqe(backend);
    if (sqe == NULL)
        return; /* tried again before the next wait */
    io_uring_prep_poll_multishot(sqe, core->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, TAG_WAKE);
    backend->wake_armed = true;
}

static void on_completion(struct shoal_core *core, const struct io_uring_cqe *cqe)
{
    struct uring_backend *backend = core->io.backend;
    uint64_t data = cqe->user_data;
    if (SHOAL_UNLIKELY((data & TAG_MASK) != 0)) {
        if (data == TAG_WAKE && (cqe->flags & IORING_CQE_F_MORE) == 0)
            backend->wake_armed = false;
        else if (data == TAG_LOOK)
            look(backend);
        return;
    }
    struct shoal_io_op *op = (struct shoal_io_op *)(uintptr_t)data;
    if (SHOAL_UNLIKELY(op->cancel_waits) && (cqe->flags & IORING_CQE_F_MORE) == 0)
        forget_cancel(backend, op);
    if (op->kind == SHOAL_IO_RECV)
        on_recv(core, op, cqe->res, cqe->flags);
    else if (op->kind == SHOAL_IO_ACCEPT)
        on_accept(core, op, cqe->res, cqe->flags);
    else
        shoal_io_complete(core, op, cqe->res);
}

static void reap(struct shoal_core *core)
{
    struct uring_backend *backend = core->io.backend;
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned count = 0;
    io_uring_for_each_cqe(&backend->ring, head, cqe)
    {
        on_completion(core, cqe);
        count++;
    }
    io_uring_cq_advance(&backend->ring, count);
}

/* Whether completions wait for an enter to become visible. */
static bool kernel_has_more(const struct io_uring *ring)
{
    unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static bool uring_pending(struct shoal_core *core)
{
    const struct uring_backend *backend = core->io.backend;
    return io_uring_cq_ready(&backend->ring) > 0 || kernel_has_more(&backend->ring) ||
           io_uring_sq_ready(&backend->ring) > 0 || has_backlog(backend) || !backend->wake_armed;
}

static int enter(struct uring_backend *backend, uint64_t wait_ns)
{
    struct io_uring_cqe *cqe;
    if (wait_ns == SHOAL_NS_FOREVER)
        return io_uring_submit_and_wait(&backend->ring, 1);
    struct __kernel_timespec timeout = {.tv_sec = (long long)(wait_ns / SHOAL_NS_PER_S),
                                        .tv_nsec = (long long)(wait_ns % SHOAL_NS_PER_S)};
    return io_uring_submit_and_wait_timeout(&backend->ring, &cqe, 1, &timeout, NULL);
}

static void uring_poll(struct shoal_core *core, uint64_t wait_ns)
{
    struct uring_backend *backend = core->io.backend;
    int rc = 0;
    if (SHOAL_UNLIKELY(!backend->wake_armed))
        arm_wake(core);
    if (SHOAL_UNLIKELY(!backend->look_armed))
        arm_look(backend);
    /* While anything waits for a place in the queue, this is no time to sleep. */
    if (wait_ns > 0 && SHOAL_LIKELY(backend->wake_armed && !has_backlog(backend)))
        rc = enter(backend, wait_ns);
    else if (io_uring_sq_ready(&backend->ring) > 0 || kernel_has_more(&backend->ring))
        rc = io_uring_submit_and_get_events(&backend->ring);
    SHOAL_CHECK(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR || rc == -ETIME ||
                    rc == -ENOMEM,
                "io_uring_enter: %s", strerror(-rc));
    if (wait_ns > 0)
        shoal_core_read_clock(core);
    reap(core);
    if (SHOAL_UNLIKELY(has_backlog(backend)))
        submit_backlog(core);
}

const struct shoal_io_ops shoal_io_uring = {
    .name = "io_uring",
    .real_files = true,
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .add = uring_add,
    .remove = uring_remove,
    .poll = uring_poll,
    .pending = uring_pending,
    .pending_known = true,
    .accept_flags = SOCK_CLOEXEC,
};
