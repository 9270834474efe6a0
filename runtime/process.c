/*
 * The life of a child after its start: see process.h.
 *
 * A one-shot poll of the pidfd runs from the start on. When it ends, the child is reaped, which
 * settles its status, and everybody who waits is told. A pidfd becomes readable when the child can
 * be reaped; where it cannot all the same (a debugger holds it), or the poll fails for want of
 * memory, a timer looks again.
 *
 * The number of a child that is not reaped yet cannot belong to anybody else: that is what makes a
 * signal to its group safe.
 */
#include "shoal/runtime/process.h"

#include <errno.h>
#include <signal.h>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/event_wait_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/process_impl.h"

#define RETRY_NS     (10 * SHOAL_NS_PER_MS)
#define LAST_LOOK_MS 2000

struct processes {
    struct shoal_list all;
};

static struct shoal_process *check_mine(const struct shoal_process *process, const char *what)
{
    SHOAL_CHECK_OWNER(process->core, what, "process %d", (int)process->pid);
    SHOAL_DCHECK(!process->freed, "a %s of process %d, which was freed", what, (int)process->pid);
    return (struct shoal_process *)(uintptr_t)process;
}

/* ---- The end ---- */

static void destroy(struct shoal_process *process)
{
    shoal_list_remove(&process->node);
    shoal_mem_free(process, sizeof(*process));
}

static int64_t outcome(const struct shoal_process *process)
{
    return process->ended < 0 ? process->ended : process->status.exit_code;
}

/* Looks whether the child has ended; then it is reaped and its pidfd closed. */
static bool look(struct shoal_process *process)
{
    int rc = shoal_process_reap(process->pidfd, &process->status);
    if (rc == 0)
        return false;
    process->ended = rc;
    close(process->pidfd);
    process->pidfd = -1;
    return true;
}

static void look_and_tell(struct shoal_process *process)
{
    if (!look(process)) {
        shoal_timer_arm(&process->retry, RETRY_NS);
        return;
    }
    if (process->freed)
        destroy(process);
    else
        shoal_event_end_all(&process->waiters, outcome(process));
}

static void exit_done(struct shoal_io_op *op)
{
    look_and_tell(SHOAL_CONTAINER_OF(op, struct shoal_process, exit_op));
}

static void retry(struct shoal_timer *timer)
{
    look_and_tell(SHOAL_CONTAINER_OF(timer, struct shoal_process, retry));
}

void shoal_process_kill(struct shoal_process *process)
{
    if (process->own_group)
        (void)shoal_process_signal_group(process, SIGKILL);
    else
        (void)shoal_process_signal(process, SIGKILL);
}

/* At the core's end, when nothing polls any more. */
static void end_one(struct shoal_process *process)
{
    shoal_timer_cancel(&process->retry);
    if (!process->freed) {
        SHOAL_WARN("process %d was never freed", (int)process->pid);
        shoal_process_pipe_close(&process->in);
        shoal_process_pipe_close(&process->out);
        shoal_process_pipe_close(&process->err);
        if (process->ended == 0 && !process->leave)
            shoal_process_kill(process);
    }
    if (process->ended == 0 && !process->leave) {
        struct pollfd last = {.fd = process->pidfd, .events = POLLIN};
        (void)poll(&last, 1, LAST_LOOK_MS);
    }
    if (process->ended == 0 && !look(process)) {
        if (!process->leave)
            SHOAL_WARN("process %d does not end although it was killed", (int)process->pid);
        close(process->pidfd);
    }
    destroy(process);
}

static void processes_end(struct shoal_core *core)
{
    struct processes *processes = core->layers[SHOAL_LAYER_PROCESS];
    while (shoal_list_linked(&processes->all))
        end_one(SHOAL_CONTAINER_OF(processes->all.next, struct shoal_process, node));
    core->layers[SHOAL_LAYER_PROCESS] = NULL;
    shoal_mem_free(processes, sizeof(*processes));
}

/* ---- The start ---- */

int shoal_processes_ready(void)
{
    struct shoal_core *core = shoal_core_self;
    if (core->layers[SHOAL_LAYER_PROCESS] != NULL)
        return 0;
    struct processes *processes = shoal_mem_alloc(sizeof(*processes));
    if (processes == NULL)
        return -ENOMEM;
    shoal_list_init(&processes->all);
    core->layers[SHOAL_LAYER_PROCESS] = processes;
    core->layer_end[SHOAL_LAYER_PROCESS] = processes_end;
    return 0;
}

void shoal_process_begin(struct shoal_process *process)
{
    static const struct shoal_io_handler on_exit_op = {.done = exit_done};
    struct shoal_core *core = shoal_core_self;
    struct processes *processes = core->layers[SHOAL_LAYER_PROCESS];
    shoal_list_push_back(&processes->all, &process->node);
    shoal_list_init(&process->waiters);
    shoal_timer_init(&process->retry, retry);
    process->core = (uint16_t)core->id;
    process->exit_op.kind = SHOAL_IO_POLL;
    process->exit_op.poll_events = POLLIN;
    process->exit_op.on = &on_exit_op;
    process->exit_op.arg.poll.own.fd = process->pidfd;
    process->exit_op.fd = &process->exit_op.arg.poll.own;
    shoal_io_submit(core, &process->exit_op);
}

void shoal_process_free(struct shoal_process *process)
{
    if (process == NULL)
        return;
    check_mine(process, "free");
    SHOAL_CHECK(!shoal_event_has_fiber(&process->waiters),
                "process %d is freed while a fiber waits for it", (int)process->pid);
    shoal_event_end_all(&process->waiters, -ECANCELED);
    shoal_process_pipe_close(&process->in);
    shoal_process_pipe_close(&process->out);
    shoal_process_pipe_close(&process->err);
    if (process->ended != 0) {
        destroy(process);
        return;
    }
    if (!process->leave)
        shoal_process_kill(process);
    process->freed = true;
}

pid_t shoal_process_id(const struct shoal_process *process)
{
    check_mine(process, "id");
    return process->pid;
}

struct shoal_process_pipe *shoal_process_stdin(struct shoal_process *process)
{
    check_mine(process, "stdin");
    return process->in.piped ? &process->in : NULL;
}

struct shoal_process_pipe *shoal_process_stdout(struct shoal_process *process)
{
    check_mine(process, "stdout");
    return process->out.piped ? &process->out : NULL;
}

struct shoal_process_pipe *shoal_process_stderr(struct shoal_process *process)
{
    check_mine(process, "stderr");
    return process->err.piped ? &process->err : NULL;
}

/* ---- Waiting ---- */

int shoal_process_status(const struct shoal_process *process, struct shoal_process_status *out)
{
    check_mine(process, "status");
    if (process->ended == 0)
        return -EAGAIN;
    if (process->ended < 0)
        return process->ended;
    if (out != NULL)
        *out = process->status;
    return 0;
}

int shoal_process_wait(struct shoal_process *process, struct shoal_process_status *out,
                       uint64_t timeout_ns)
{
    check_mine(process, "wait");
    const struct shoal_fiber *fiber = shoal_core_self->fiber;
    if (process->ended == 0 || fiber == NULL || shoal_fiber_cancel_code(fiber) != 0) {
        int rc = shoal_event_wait(&process->waiters, "process", timeout_ns);
        if (rc < 0)
            return rc;
    }
    return shoal_process_status(process, out);
}

struct shoal_future *shoal_process_wait_future(struct shoal_process *process)
{
    check_mine(process, "wait");
    if (process->ended < 0)
        return shoal_future_failed(process->ended, NULL);
    if (process->ended > 0)
        return shoal_future_ready(&(union shoal_value){.i64 = outcome(process)});
    return shoal_event_future(&process->waiters);
}

/* ---- Signals ---- */

int shoal_process_signal(struct shoal_process *process, int number)
{
    check_mine(process, "signal");
    if (process->ended != 0)
        return -ESRCH;
    return syscall(SYS_pidfd_send_signal, process->pidfd, number, NULL, 0) == 0 ? 0 : -errno;
}

int shoal_process_signal_group(struct shoal_process *process, int number)
{
    check_mine(process, "signal");
    if (!process->own_group)
        return -EINVAL;
    if (process->ended != 0)
        return -ESRCH;
    return kill(-process->pid, number) == 0 ? 0 : -errno;
}

static int signal_all(struct shoal_process *process, int number)
{
    return process->own_group ? shoal_process_signal_group(process, number)
                              : shoal_process_signal(process, number);
}

int shoal_process_terminate(struct shoal_process *process, uint64_t grace_ns,
                            struct shoal_process_status *out)
{
    int rc = signal_all(process, SIGTERM);
    if (rc == 0)
        (void)signal_all(process, SIGCONT);
    rc = shoal_process_wait(process, out, rc == 0 ? grace_ns : SHOAL_NS_FOREVER);
    if (rc != -ETIMEDOUT)
        return rc;
    (void)signal_all(process, SIGKILL);
    return shoal_process_wait(process, out, SHOAL_NS_FOREVER);
}
