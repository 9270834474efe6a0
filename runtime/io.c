/*
 * What the I/O backends share: completion through the run queue, and the wait of a fiber.
 */
#include "shoal/runtime/io.h"

#include <errno.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

void shoal_io_submit(struct shoal_core *core, struct shoal_io_op *op)
{
    SHOAL_DCHECK(op->state == SHOAL_IO_IDLE, "I/O operation %p is submitted twice", (void *)op);
    op->state = SHOAL_IO_PENDING;
    op->cancelling = 0;
    op->cancel_waits = 0;
    op->doubted = 0;
    core->io.in_flight++;
    core->io.ops->submit(core, op);
}

void shoal_io_cancel(struct shoal_core *core, struct shoal_io_op *op)
{
    if (op->state == SHOAL_IO_IDLE || op->cancelling)
        return;
    op->cancelling = 1;
    core->io.ops->cancel(core, op);
}

static void run_done(struct shoal_task *task)
{
    struct shoal_io_op *op = SHOAL_CONTAINER_OF(task, struct shoal_io_op, task);
    op->state = SHOAL_IO_IDLE;
    shoal_core_self->io.in_flight--;
    op->on->done(op);
}

void shoal_io_complete(struct shoal_core *core, struct shoal_io_op *op, int result)
{
    op->result = result;
    op->state = SHOAL_IO_QUEUED;
    op->task.run = run_done;
    shoal_core_post(core, &op->task);
}

/* ---- Fibers ---- */

struct fiber_handler {
    struct shoal_io_handler handler;
    struct shoal_fiber *fiber;
    bool ended;
};

static void wake_fiber(struct shoal_io_op *op)
{
    struct fiber_handler *waiting = SHOAL_CONTAINER_OF((struct shoal_io_handler *)(uintptr_t)op->on,
                                                       struct fiber_handler, handler);
    waiting->ended = true;
    shoal_fiber_make_ready(shoal_core_self, waiting->fiber);
}

static const char *const kind_names[] = {
    [SHOAL_IO_ACCEPT] = "accept",
    [SHOAL_IO_RECV] = "receive",
    [SHOAL_IO_SEND] = "send",
    [SHOAL_IO_SENDMSG] = "send",
    [SHOAL_IO_CONNECT] = "connect",
    [SHOAL_IO_POLL] = "poll",
    [SHOAL_IO_READ] = "file read",
    [SHOAL_IO_READV] = "file read",
    [SHOAL_IO_WRITE] = "file write",
    [SHOAL_IO_WRITEV] = "file write",
    [SHOAL_IO_SYNC] = "file sync",
    [SHOAL_IO_SYNC_SOME] = "file sync",
    [SHOAL_IO_ALLOCATE] = "file allocate",
    [SHOAL_IO_TRUNCATE] = "file truncate",
    [SHOAL_IO_CLOSE] = "file close",
    [SHOAL_IO_OPEN] = "file open",
    [SHOAL_IO_STAT] = "file stat",
    [SHOAL_IO_RENAME] = "file rename",
    [SHOAL_IO_LINK] = "file link",
    [SHOAL_IO_SYMLINK] = "file symlink",
    [SHOAL_IO_READLINK] = "file readlink",
    [SHOAL_IO_UNLINK] = "file unlink",
    [SHOAL_IO_MKDIR] = "directory make",
    [SHOAL_IO_LIST] = "directory list",
};
SHOAL_STATIC_ASSERT(SHOAL_ARRAY_SIZE(kind_names) == SHOAL_IO_KINDS, "each kind has a name");

const char *shoal_io_kind_name(uint8_t kind)
{
    return kind_names[kind];
}

static void cancel_op(struct shoal_fiber *fiber)
{
    shoal_io_cancel(shoal_core_self, fiber->wait_ctx);
}

int shoal_io_run(struct shoal_core *core, struct shoal_io_op *op)
{
    struct shoal_fiber *fiber = core->fiber;
    SHOAL_CHECK(fiber != NULL, "an I/O wait outside a fiber");
    if (shoal_fiber_cancelled_now(fiber))
        return fiber->cancel_code;
    struct fiber_handler waiting = {.handler = {.done = wake_fiber}, .fiber = fiber};
    op->on = &waiting.handler;
    op->state = SHOAL_IO_IDLE;
    shoal_io_submit(core, op);
    shoal_fiber_wait_begin(fiber, kind_names[op->kind], cancel_op, op);
    while (!waiting.ended)
        shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    if (op->result == -ECANCELED && shoal_fiber_cancelled_now(fiber))
        return fiber->cancel_code;
    return op->result;
}

int shoal_poll_fd(int fd, short events)
{
    SHOAL_CHECK_ON_CORE("poll_fd");
    struct shoal_io_op op = {.kind = SHOAL_IO_POLL, .poll_events = (uint16_t)events};
    op.arg.poll.own.fd = fd;
    op.fd = &op.arg.poll.own;
    return shoal_io_run(shoal_core_self, &op);
}
