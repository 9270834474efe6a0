/*
 * A program run to its end: one fiber feeds its input, one reads each output, and the caller waits
 * for them and for the child, so that no pipe can fill up while nobody looks.
 *
 * 1. The first thing that goes wrong (a limit, memory, the time-out, a cancel) kills the child and
 *    cancels the three; the call returns when they and the child have ended.
 * 2. Their ends are joined before the result is looked at: all state is on the caller's stack.
 * 3. Whoever feeds an input that nobody reads any more has done its part.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/event_wait_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/process_impl.h"

#define FIRST_ROOM_BYTES 4096
#define DISCARD_BYTES    16384 /* on the reading fiber's stack */

struct run {
    struct shoal_process *process;
    const struct shoal_process_run_how *how;
    struct shoal_list waiters; /* the caller, until `active` is 0 or `code` says otherwise */
    unsigned active;
    int code; /* what went wrong first */
};

struct reader {
    struct run *run;
    struct shoal_process_pipe *pipe;
    struct shoal_process_output *output;
    uint64_t bytes_max;
    const char *name;
    struct shoal_fiber *fiber;
    bool full; /* it is over its limit */
};

static void went_wrong(struct run *run, int code)
{
    if (run->code == 0)
        run->code = code;
    shoal_event_end_all(&run->waiters, run->code);
}

static int finish(struct run *run, int rc)
{
    run->active--;
    if (rc < 0)
        went_wrong(run, rc);
    else if (run->active == 0)
        shoal_event_end_all(&run->waiters, 0);
    return rc;
}

/* ---- Input ---- */

static int feed(void *arg)
{
    struct run *run = arg;
    struct shoal_process_pipe *pipe = shoal_process_stdin(run->process);
    int rc = shoal_process_pipe_write(pipe, run->how->input, run->how->input_bytes, NULL);
    shoal_process_pipe_close(pipe);
    return finish(run, rc == -EPIPE ? 0 : rc);
}

/* ---- Outputs ---- */

/* Room for one byte more than `bytes`, by doubling, up to the limit and its terminating 0. */
static int make_room(struct reader *reader)
{
    struct shoal_process_output *output = reader->output;
    if (output->bytes + 1 < output->room_bytes)
        return 0;
    uint64_t most = reader->bytes_max + 1;
    uint64_t room = output->room_bytes == 0 ? FIRST_ROOM_BYTES : 2 * (uint64_t)output->room_bytes;
    if (room > most)
        room = most;
    char *data = shoal_mem_alloc((size_t)room);
    if (data == NULL)
        return -ENOMEM;
    if (output->bytes > 0)
        memcpy(data, output->data, output->bytes);
    shoal_mem_free(output->data, output->room_bytes);
    output->data = data;
    output->room_bytes = (size_t)room;
    return 0;
}

/* Reads what is over the limit: with `truncate` all of it, else one byte tells that there is any.
 */
static int read_over(struct reader *reader)
{
    char discarded[DISCARD_BYTES];
    int rc = shoal_process_pipe_read(reader->pipe, discarded, sizeof(discarded));
    if (rc <= 0)
        return rc;
    if (!reader->run->how->truncate) {
        reader->full = true;
        return -EMSGSIZE;
    }
    reader->output->truncated = true;
    return rc;
}

static int read_some(struct reader *reader)
{
    struct shoal_process_output *output = reader->output;
    if (output->bytes >= reader->bytes_max)
        return read_over(reader);
    int rc = make_room(reader);
    if (rc < 0)
        return rc;
    rc = shoal_process_pipe_read(reader->pipe, output->data + output->bytes,
                                 output->room_bytes - 1 - output->bytes);
    if (rc > 0)
        output->bytes += (size_t)rc;
    return rc;
}

static int read_all(void *arg)
{
    struct reader *reader = arg;
    int rc = make_room(reader); /* for the 0 of an output that is empty */
    if (rc == 0)
        do
            rc = read_some(reader);
        while (rc > 0);
    shoal_process_pipe_close(reader->pipe);
    return finish(reader->run, rc);
}

static int start_reader(struct run *run, struct reader *reader)
{
    if (reader->pipe == NULL)
        return 0;
    reader->run = run;
    int rc = shoal_fiber_spawn(&reader->fiber, read_all, reader, reader->name);
    run->active += rc == 0;
    return rc;
}

static uint64_t limit_or_default(uint64_t bytes_max)
{
    if (bytes_max == 0)
        return SHOAL_PROCESS_OUTPUT_BYTES_MAX;
    return bytes_max < SIZE_MAX / 2 ? bytes_max : SIZE_MAX / 2;
}

/* ---- All of it ---- */

/* Waits until all fibers are through and the child has ended, or something went wrong. */
static int wait_through(struct run *run, uint64_t timeout_ns)
{
    const uint64_t deadline_ns = shoal_deadline_ns(shoal_now_ns(), timeout_ns);
    int rc = run->code;
    if (rc == 0 && run->active > 0)
        rc = shoal_event_wait(&run->waiters, "process output", timeout_ns);
    if (rc < 0)
        return rc;
    uint64_t now_ns = shoal_now_ns();
    uint64_t left_ns = SHOAL_NS_FOREVER;
    if (deadline_ns != SHOAL_NS_FOREVER)
        left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    return shoal_process_wait(run->process, NULL, left_ns);
}

static int end_fiber(struct shoal_fiber *fiber, bool cancel)
{
    if (fiber == NULL)
        return 0;
    if (cancel)
        shoal_fiber_cancel(fiber);
    return shoal_fiber_join(fiber);
}

static int drive(struct run *run, struct reader *out, struct reader *err)
{
    struct shoal_fiber *feeder = NULL;
    int rc = start_reader(run, out);
    rc = rc == 0 ? start_reader(run, err) : rc;
    if (rc == 0 && shoal_process_stdin(run->process) != NULL) {
        rc = shoal_fiber_spawn(&feeder, feed, run, "process input");
        run->active += rc == 0;
    }
    if (rc == 0)
        rc = wait_through(run, run->how->timeout_ns != 0 ? run->how->timeout_ns : SHOAL_NS_FOREVER);
    /* Whatever happened, nothing of this call outlives it. */
    shoal_fiber_shield();
    if (rc < 0)
        shoal_process_kill(run->process);
    (void)end_fiber(feeder, rc < 0);
    (void)end_fiber(out->fiber, rc < 0);
    (void)end_fiber(err->fiber, rc < 0);
    int lost = shoal_process_wait(run->process, NULL, SHOAL_NS_FOREVER);
    shoal_fiber_unshield();
    return rc < 0 ? rc : lost;
}

static void terminate_text(struct shoal_process_output *output)
{
    if (output->data != NULL)
        output->data[output->bytes] = '\0';
}

static void explain(const struct reader *out, const struct reader *err, const char *program)
{
    const struct reader *full = out->full ? out : err;
    if (full->full)
        (void)shoal_fiber_explain(0, "%s of \"%.100s\" is over %llu bytes", full->name, program,
                                  (unsigned long long)full->bytes_max);
}

int shoal_process_run(struct shoal_process_result *result, const struct shoal_process_how *how,
                      const struct shoal_process_run_how *run_how)
{
    static const struct shoal_process_run_how defaults;
    struct shoal_process_how piped = *how;
    struct run run = {.how = run_how != NULL ? run_how : &defaults};
    memset(result, 0, sizeof(*result));
    if (piped.out.kind == SHOAL_PROCESS_INHERIT)
        piped.out.kind = SHOAL_PROCESS_PIPE;
    if (piped.err.kind == SHOAL_PROCESS_INHERIT)
        piped.err.kind = SHOAL_PROCESS_PIPE;
    if (run.how->input != NULL)
        piped.in.kind = SHOAL_PROCESS_PIPE;
    piped.on_free = SHOAL_PROCESS_KILL;
    int rc = shoal_process_spawn(&run.process, &piped);
    if (rc < 0)
        return rc;
    shoal_list_init(&run.waiters);
    struct reader out = {.pipe = shoal_process_stdout(run.process),
                         .output = &result->out,
                         .bytes_max = limit_or_default(run.how->out_bytes_max),
                         .name = "process output"};
    struct reader err = {.pipe = shoal_process_stderr(run.process),
                         .output = &result->err,
                         .bytes_max = limit_or_default(run.how->err_bytes_max),
                         .name = "process error output"};
    rc = drive(&run, &out, &err);
    (void)shoal_process_status(run.process, &result->status);
    terminate_text(&result->out);
    terminate_text(&result->err);
    if (rc == -EMSGSIZE)
        explain(&out, &err, piped.path != NULL ? piped.path : piped.argv[0]);
    shoal_process_free(run.process);
    return rc;
}

void shoal_process_result_free(struct shoal_process_result *result)
{
    shoal_mem_free(result->out.data, result->out.room_bytes);
    shoal_mem_free(result->err.data, result->err.room_bytes);
    memset(&result->out, 0, sizeof(result->out));
    memset(&result->err, 0, sizeof(result->err));
}
