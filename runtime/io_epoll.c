/*
 * The epoll backend: completion-shaped operations over readiness.
 *
 * Each socket is registered once, edge-triggered, for input and output. An edge sets bits in
 * `ready` and queues the operation that waits; the system call itself is made by that operation's
 * task, so that a connection's read, handler and write stay together in the cache, and take their
 * turn in the run queue like everything else. A short read has emptied the socket: the next edge
 * will tell when there is more, and no read is spent on hearing EAGAIN.
 *
 * Sends are tried inside submit, and complete through the queue all the same.
 *
 * 1. `ready` is cleared only by EAGAIN or a short transfer, never guessed.
 * 2. An event's pointer is good while the batch is walked: nothing is freed before its tasks run.
 *
 * Rejected: level-triggered (the kernel looks at each ready socket once more, a turn later).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"

#define EVENTS_MAX      64 /* few enough that what an event touches is cached when its task runs */
#define ACCEPTS_AT_ONCE 32
#define OWNER_LINES     6
#define READY_IN        1u
#define READY_OUT       2u
#define READY_HANGUP    4u

struct epoll_backend {
    int fd;
    bool no_pwait2; /* kernel before 5.11 */
    struct epoll_event events[EVENTS_MAX];
};

static void epoll_close(struct shoal_core *core)
{
    struct epoll_backend *backend = core->io.backend;
    close(backend->fd);
    shoal_mem_free(backend, sizeof(*backend));
    core->io.backend = NULL;
}

static int epoll_open(struct shoal_core *core, char *error, size_t error_size)
{
    struct epoll_backend *backend = shoal_mem_alloc_zeroed(sizeof(*backend));
    if (backend == NULL)
        return -ENOMEM;
    backend->fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (backend->fd < 0 || epoll_ctl(backend->fd, EPOLL_CTL_ADD, core->wake_fd, &event) != 0) {
        int rc = -errno;
        snprintf(error, error_size, "epoll: %s", strerror(errno));
        if (backend->fd >= 0)
            close(backend->fd);
        shoal_mem_free(backend, sizeof(*backend));
        return rc;
    }
    core->io.backend = backend;
    core->io.native = 0;
    /* A first chunk, so that whoever finds no buffer knows that some will come back. */
    if (!shoal_bufpool_grow(&core->buffers)) {
        snprintf(error, error_size, "no memory for receive buffers");
        epoll_close(core);
        return -ENOMEM;
    }
    return 0;
}

static int epoll_add(struct shoal_core *core, struct shoal_io_fd *fd)
{
    const struct epoll_backend *backend = core->io.backend;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = fd};
    fd->ready = READY_OUT;
    fd->in = NULL;
    fd->out = NULL;
    if (epoll_ctl(backend->fd, EPOLL_CTL_ADD, fd->fd, &event) != 0)
        return -errno;
    fd->registered = true;
    return 0;
}

static void epoll_remove(struct shoal_core *core, struct shoal_io_fd *fd)
{
    const struct epoll_backend *backend = core->io.backend;
    if (fd->registered)
        (void)epoll_ctl(backend->fd, EPOLL_CTL_DEL, fd->fd, NULL);
    fd->registered = false;
}

/* ---- Operations ---- */

static void go_on(struct shoal_task *task);

static void queue_go_on(struct shoal_core *core, struct shoal_io_op *op)
{
    if (op->state == SHOAL_IO_QUEUED)
        return;
    op->state = SHOAL_IO_QUEUED;
    op->task.run = go_on;
    shoal_core_post(core, &op->task);
}

static void resume_starved(struct shoal_bufpool_waiter *waiter)
{
    struct shoal_io_op *op = SHOAL_CONTAINER_OF(waiter, struct shoal_io_op, arg.starved);
    queue_go_on(shoal_core_self, op);
}

static void finish_in(struct shoal_core *core, struct shoal_io_op *op, int result)
{
    op->fd->in = NULL;
    shoal_io_complete(core, op, result);
}

/*
 * With many connections their structs have left the cache since their last request. What lies
 * around the operation is its owner's, and is fetched while the system call runs.
 */
static void prefetch_owner(const struct shoal_io_op *op)
{
    const char *at = (const char *)op;
    for (size_t line = 1; line <= OWNER_LINES; line++)
        __builtin_prefetch(at + line * SHOAL_CACHE_LINE, 1);
}

static void try_recv(struct shoal_core *core, struct shoal_io_op *op)
{
    struct shoal_io_fd *fd = op->fd;
    struct shoal_slice *slice = shoal_bufpool_take(&core->buffers);
    if (slice == NULL) {
        op->state = SHOAL_IO_STARVED;
        op->arg.starved.resume = resume_starved;
        shoal_bufpool_wait(&core->buffers, &op->arg.starved);
        return;
    }
    prefetch_owner(op);
    ssize_t got = recv(fd->fd, slice->data, slice->block->size, MSG_DONTWAIT);
    op->state = SHOAL_IO_PENDING;
    if (SHOAL_LIKELY(got > 0)) {
        slice->len = (uint32_t)got;
        /* A short read has emptied the socket, unless the peer's end of stream waits behind it. */
        if (slice->len < slice->block->size && (fd->ready & READY_HANGUP) == 0)
            fd->ready &= (uint8_t)~READY_IN;
        else
            queue_go_on(core, op);
        core->io.in_task = true;
        op->on->shot(op, (int)got, slice);
        return;
    }
    int error = errno;
    shoal_slice_free(slice);
    if (got == 0)
        finish_in(core, op, 0);
    else if (error == EAGAIN)
        fd->ready &= (uint8_t)~READY_IN;
    else if (error == EINTR)
        queue_go_on(core, op);
    else
        finish_in(core, op, -error);
}

/* Whether accept's error is one of the new connection, not of the listener; accept(2). */
static bool is_transient(int error)
{
    return error == ECONNABORTED || error == EINTR || error == EPROTO || error == EPERM ||
           error == ENETDOWN || error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET ||
           error == EHOSTUNREACH || error == ENETUNREACH;
}

static void try_accept(struct shoal_core *core, struct shoal_io_op *op)
{
    op->state = SHOAL_IO_PENDING;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int fd = accept4(op->fd->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            op->on->shot(op, fd, NULL);
            if (op->cancelling)
                break;
        } else if (errno == EAGAIN) {
            op->fd->ready &= (uint8_t)~READY_IN;
            return;
        } else if (!is_transient(errno)) {
            finish_in(core, op, -errno);
            return;
        }
    }
    if (op->cancelling)
        finish_in(core, op, -ECANCELED);
    else
        queue_go_on(core, op);
}

/* The result of one attempt to write; -EAGAIN when the socket is full. */
static int attempt_out(struct shoal_io_op *op)
{
    ssize_t n;
    switch (op->kind) {
    case SHOAL_IO_SEND:
        n = send(op->fd->fd, op->arg.send.data, op->arg.send.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        return n >= 0 ? (int)n : -errno;
    case SHOAL_IO_SENDMSG:
        n = sendmsg(op->fd->fd, op->arg.msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        return n >= 0 ? (int)n : -errno;
    default: {
        int error = 0;
        socklen_t len = sizeof(error);
        if (getsockopt(op->fd->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
            return -errno;
        return -error;
    }
    }
}

static void try_out(struct shoal_core *core, struct shoal_io_op *op)
{
    int result = attempt_out(op);
    if (result == -EAGAIN || result == -EINTR) {
        op->state = SHOAL_IO_PENDING;
        op->fd->out = op;
        if (result == -EINTR)
            queue_go_on(core, op);
        else
            op->fd->ready &= (uint8_t)~READY_OUT;
        return;
    }
    op->fd->out = NULL;
    shoal_io_complete(core, op, result);
}

static void go_on(struct shoal_task *task)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_io_op *op = SHOAL_CONTAINER_OF(task, struct shoal_io_op, task);
    if (op->cancelling) {
        if (op->fd->in == op)
            op->fd->in = NULL;
        if (op->fd->out == op)
            op->fd->out = NULL;
        shoal_io_complete(core, op, -ECANCELED);
        return;
    }
    switch (op->kind) {
    case SHOAL_IO_RECV:
        try_recv(core, op);
        break;
    case SHOAL_IO_ACCEPT:
        try_accept(core, op);
        break;
    default:
        try_out(core, op);
        break;
    }
}

static void start_connect(struct shoal_core *core, struct shoal_io_op *op)
{
    int rc = connect(op->fd->fd, op->arg.connect.address, op->arg.connect.address_len);
    if (rc == 0 || (errno != EINPROGRESS && errno != EINTR)) {
        shoal_io_complete(core, op, rc == 0 ? 0 : -errno);
        return;
    }
    op->fd->ready = 0; /* what was reported of the socket before it was connecting is void */
    op->fd->out = op;
}

/* A descriptor that somebody has registered here already is watched through a duplicate. */
static void start_poll(struct shoal_core *core, struct shoal_io_op *op)
{
    const struct epoll_backend *backend = core->io.backend;
    struct shoal_io_fd *own = &op->arg.poll.own;
    struct epoll_event event = {.events = op->poll_events | EPOLLONESHOT, .data.ptr = own};
    own->ready = 0;
    own->registered = false; /* here: whether own->fd is a duplicate to be closed */
    own->in = op;
    own->out = NULL;
    int rc = epoll_ctl(backend->fd, EPOLL_CTL_ADD, own->fd, &event) == 0 ? 0 : -errno;
    if (rc == -EEXIST) {
        int copy = dup(own->fd);
        if (copy < 0) {
            rc = -errno;
        } else {
            own->fd = copy;
            own->registered = true;
            rc = epoll_ctl(backend->fd, EPOLL_CTL_ADD, copy, &event) == 0 ? 0 : -errno;
            if (rc < 0)
                close(copy);
        }
    }
    if (rc == -EPERM) /* a regular file: always ready, as poll(2) says */
        shoal_io_complete(core, op, op->poll_events & (POLLIN | POLLOUT));
    else if (rc < 0)
        shoal_io_complete(core, op, rc);
}

static void end_poll(struct shoal_core *core, struct shoal_io_op *op, int result)
{
    const struct epoll_backend *backend = core->io.backend;
    struct shoal_io_fd *own = &op->arg.poll.own;
    (void)epoll_ctl(backend->fd, EPOLL_CTL_DEL, own->fd, NULL);
    if (own->registered)
        close(own->fd);
    own->in = NULL;
    shoal_io_complete(core, op, result);
}

static void epoll_submit(struct shoal_core *core, struct shoal_io_op *op)
{
    switch (op->kind) {
    case SHOAL_IO_RECV:
    case SHOAL_IO_ACCEPT:
        SHOAL_DCHECK(op->fd->in == NULL, "two operations wait for input of descriptor %d",
                     op->fd->fd);
        op->fd->in = op;
        if ((op->fd->ready & (READY_IN | READY_HANGUP)) != 0)
            queue_go_on(core, op);
        break;
    case SHOAL_IO_SEND:
    case SHOAL_IO_SENDMSG:
        try_out(core, op);
        break;
    case SHOAL_IO_CONNECT:
        start_connect(core, op);
        break;
    case SHOAL_IO_POLL:
        start_poll(core, op);
        break;
    default:
        shoal_io_complete(core, op, -EOPNOTSUPP);
        break;
    }
}

static void epoll_cancel(struct shoal_core *core, struct shoal_io_op *op)
{
    switch (op->state) {
    case SHOAL_IO_STARVED:
        shoal_list_remove(&op->arg.starved.node);
        finish_in(core, op, -ECANCELED);
        break;
    case SHOAL_IO_PENDING:
        if (op->kind == SHOAL_IO_POLL) {
            end_poll(core, op, -ECANCELED);
            break;
        }
        if (op->fd->in == op)
            op->fd->in = NULL;
        if (op->fd->out == op)
            op->fd->out = NULL;
        shoal_io_complete(core, op, -ECANCELED);
        break;
    default: /* its task is queued and looks at `cancelling`, or it has completed already */
        break;
    }
}

/* ---- Waiting ---- */

static void on_event(struct shoal_core *core, const struct epoll_event *event)
{
    struct shoal_io_fd *fd = event->data.ptr;
    if (fd == NULL)
        return; /* the wake-up: its work is found by the pollers */
    if (fd->in != NULL && fd->in->kind == SHOAL_IO_POLL) {
        end_poll(core, fd->in, (int)event->events);
        return;
    }
    if ((event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        fd->ready |= READY_IN | READY_OUT | READY_HANGUP;
    if ((event->events & EPOLLIN) != 0)
        fd->ready |= READY_IN;
    if ((event->events & EPOLLOUT) != 0)
        fd->ready |= READY_OUT;
    if (fd->in != NULL && fd->in->state == SHOAL_IO_PENDING && (fd->ready & READY_IN) != 0)
        queue_go_on(core, fd->in);
    if (fd->out != NULL && fd->out->state == SHOAL_IO_PENDING && (fd->ready & READY_OUT) != 0)
        queue_go_on(core, fd->out);
}

static int wait_events(struct epoll_backend *backend, uint64_t wait_ns)
{
    if (wait_ns == 0)
        return epoll_wait(backend->fd, backend->events, EVENTS_MAX, 0);
    if (wait_ns == SHOAL_NS_FOREVER)
        return epoll_wait(backend->fd, backend->events, EVENTS_MAX, -1);
    if (!backend->no_pwait2) {
        struct timespec timeout = {.tv_sec = (time_t)(wait_ns / SHOAL_NS_PER_S),
                                   .tv_nsec = (long)(wait_ns % SHOAL_NS_PER_S)};
        int n = epoll_pwait2(backend->fd, backend->events, EVENTS_MAX, &timeout, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
        backend->no_pwait2 = true;
    }
    uint64_t ms = wait_ns / SHOAL_NS_PER_MS + ((wait_ns % SHOAL_NS_PER_MS) != 0);
    return epoll_wait(backend->fd, backend->events, EVENTS_MAX, ms > 3600000 ? 3600000 : (int)ms);
}

static void epoll_poll(struct shoal_core *core, uint64_t wait_ns)
{
    struct epoll_backend *backend = core->io.backend;
    int n = wait_events(backend, wait_ns);
    SHOAL_CHECK(n >= 0 || errno == EINTR, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++)
        on_event(core, &backend->events[i]);
}

static bool epoll_pending(struct shoal_core *core)
{
    (void)core;
    return true; /* only a system call would tell */
}

const struct shoal_io_ops shoal_io_epoll = {
    .name = "epoll",
    .real_files = true,
    .open = epoll_open,
    .close = epoll_close,
    .submit = epoll_submit,
    .cancel = epoll_cancel,
    .add = epoll_add,
    .remove = epoll_remove,
    .poll = epoll_poll,
    .pending = epoll_pending,
    .accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC,
    .plain_send = true,
};
