/*
 * What the calls on files share: an operation, run by the backend or on a helper thread.
 *
 * Each operation is a struct shoal_io_op with a kind and its arguments. A kind that is in io.native
 * goes to the backend; else a helper thread makes the system call, by shoal_file_op_now().
 *
 *   a fiber that waits                     shoal_file_run()
 *   a stream, several at a time            struct shoal_file_call
 */
#ifndef SHOAL_RUNTIME_FILE_IMPL_H
#define SHOAL_RUNTIME_FILE_IMPL_H

#include <limits.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/file.h"
#include "shoal/runtime/owner_impl.h"

SHOAL_STATIC_ASSERT(SHOAL_FILE_READ_MAX <= INT_MAX, "a read's result is an int");
SHOAL_STATIC_ASSERT(SHOAL_FILE_WRITE_MAX <= INT_MAX, "a write's result is an int");

/* The calling core, on whose fiber a file is used. */
static inline struct shoal_core *shoal_file_core(void)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a file is used outside a fiber");
    return core;
}

static inline void shoal_file_check_mine(const struct shoal_file *file)
{
    SHOAL_CHECK_OWNER(file->core, "use", "a file (descriptor %d)", file->fd);
}

/* After an answer that did not pass by the loop. It stands, even when the fiber is cancelled. */
static inline void shoal_file_give_way(void)
{
    if (shoal_need_preempt())
        (void)shoal_yield();
}

static inline bool shoal_file_native(const struct shoal_core *core, const struct shoal_io_op *op)
{
    return (core->io.native & SHOAL_IO_BIT(op->kind)) != 0;
}

/* The system call of a file operation (struct shoal_io_op *), which may block. */
int shoal_file_op_now(void *op);

/*
 * Runs `op` and waits on the running fiber until it has ended; a cancel of the fiber cancels it.
 * The code of the cancel, -EAGAIN (no thread can be had), or the operation's result.
 */
int shoal_file_run(struct shoal_core *core, struct shoal_io_op *op);

/* The same on a helper thread, whatever the backend knows. */
int shoal_file_run_on_thread(struct shoal_core *core, struct shoal_io_op *op);

/*
 * Reads at once what the system has in memory. -EAGAIN when only a wait can tell, and at the end
 * of the file.
 */
int shoal_file_read_cached(struct shoal_file *file, const struct iovec *vecs, int count,
                           uint64_t offset_bytes);

/* Before each write: 0, -ESPIPE, -EBADF. */
int shoal_file_begin_writing(const struct shoal_core *core, struct shoal_file *file);

/* Gives the fiber a text when `code` is -EINVAL and O_DIRECT's alignment may be why. Is `code`. */
int shoal_file_explain(const struct shoal_file *file, int code, const char *what,
                       const struct iovec *vecs, int count, uint64_t offset_bytes);

/* ---- Several operations at a time ---- */

/* Lives with its owner until `done`, which is called once a start, from the loop. */
struct shoal_file_call {
    struct shoal_io_op op; /* kind and arguments, set before each start */
    struct shoal_io_fd fd; /* the same; op.fd is set by the start */
    struct shoal_blocking_job job;
    void (*done)(struct shoal_file_call *call);
    int result;
    bool on_thread;
};

void shoal_file_call_start(struct shoal_core *core, struct shoal_file_call *call);

/* Asks a call that is under way to end early; it still ends with its `done`. */
void shoal_file_call_cancel(struct shoal_core *core, struct shoal_file_call *call);

#endif
