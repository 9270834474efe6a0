/*
 * The parent's ends of a child's pipes: a read or a write that does not block, and a poll where it
 * would. The same on both I/O backends; the kernel's pipe is the only buffer.
 *
 * Rejected: READ and WRITE operations of io_uring, which for a pipe poll inside as well, and would
 * pin the caller's buffer in an operation that a cancel has to wait for.
 */
#include <errno.h>
#include <limits.h>

#include <poll.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/process_impl.h"

/* Begins the use of `pipe` by the running fiber. */
static int begin(struct shoal_process_pipe *pipe, const char *what)
{
    SHOAL_CHECK_OWNER(pipe->core, what, "a pipe of a process (%p)", (void *)pipe);
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a %s of a pipe outside a fiber", what);
    SHOAL_CHECK(!pipe->busy, "a %s of a pipe that another fiber uses", what);
    if (pipe->fd < 0)
        return -EBADF;
    /* A child that is always ready must not keep the core. */
    int rc = shoal_need_preempt() ? shoal_yield() : shoal_fiber_cancel_code(core->fiber);
    pipe->busy = rc == 0;
    return rc;
}

/* After a call that failed: 0 when it is to be tried again. */
static int failed(const struct shoal_process_pipe *pipe, short events)
{
    if (errno == EINTR)
        return 0;
    if (errno != EAGAIN)
        return -errno;
    int ready = shoal_poll_fd(pipe->fd, events);
    return ready < 0 ? ready : 0;
}

int shoal_process_pipe_read(struct shoal_process_pipe *pipe, void *buf, size_t len)
{
    int rc = begin(pipe, "read");
    if (rc < 0)
        return rc;
    if (len > INT_MAX)
        len = INT_MAX;
    ssize_t got = -1;
    while (rc == 0 && (got = read(pipe->fd, buf, len)) < 0)
        rc = failed(pipe, POLLIN);
    pipe->busy = false;
    return rc < 0 ? rc : (int)got;
}

int shoal_process_pipe_write(struct shoal_process_pipe *pipe, const void *data, size_t len,
                             size_t *written)
{
    const char *from = data;
    size_t done = 0;
    int rc = begin(pipe, "write");
    if (rc == 0) {
        while (rc == 0 && done < len) {
            ssize_t n = write(pipe->fd, from + done, len - done);
            if (n >= 0)
                done += (size_t)n;
            else
                rc = failed(pipe, POLLOUT);
            if (rc == 0 && done < len && shoal_need_preempt())
                rc = shoal_yield();
        }
        pipe->busy = false;
    }
    if (written != NULL)
        *written = done;
    return rc;
}

void shoal_process_pipe_close(struct shoal_process_pipe *pipe)
{
    SHOAL_CHECK_OWNER(pipe->core, "close", "a pipe of a process (%p)", (void *)pipe);
    SHOAL_CHECK(!pipe->busy, "a pipe is closed while a fiber uses it");
    if (pipe->fd >= 0)
        close(pipe->fd);
    pipe->fd = -1;
}
