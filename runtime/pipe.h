/*
 * A pipe: a stream of bytes between fibers of one core, through a buffer of fixed size.
 *
 * 1. A writer waits while the buffer is full, a reader while it is empty; both first come, first
 *    served. What one write writes stays together.
 * 2. The writing side ends the stream by a close, with a code if something went wrong: the reader
 *    gets what was written before, and then that.
 * 3. The reading side ends it too: what is in the buffer is gone, and writers fail.
 * 4. Bytes are neither lost nor doubled when a wait ends early: a write tells how many it wrote, a
 *    read that ends early has read none.
 */
#ifndef SHOAL_RUNTIME_PIPE_H
#define SHOAL_RUNTIME_PIPE_H

#include <sys/types.h>

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_pipe {
    struct shoal_wait_queue readers; /* private, as is the rest */
    struct shoal_wait_queue writers;
    unsigned char *ring;
    size_t capacity;
    size_t start; /* of the oldest byte in the ring */
    size_t used;
    int write_end; /* 0 while open; then what readers get once the ring is empty */
    int read_end;  /* 0 while open; then what writers get */
};

/* Allocates a buffer of `capacity_bytes`. 0; -EINVAL for 0 bytes; -ENOMEM. */
SHOAL_API int shoal_pipe_init(struct shoal_pipe *pipe, size_t capacity_bytes);

/* Nobody may wait. What was not read is gone. */
SHOAL_API void shoal_pipe_deinit(struct shoal_pipe *pipe);

/*
 * Waits until there is something, and reads at most `bytes`. How many, at least 1 (0 only for
 * `bytes` of 0); SHOAL_EEOF, or the code of the writing side's close, at the end; -EPIPE when the
 * reading side is closed; -ETIMEDOUT, or the code of the fiber's cancel. On a fiber; yields if
 * there is nothing. See wait_queue.h.
 */
SHOAL_API ssize_t shoal_pipe_read(struct shoal_pipe *pipe, void *data, size_t bytes,
                                  uint64_t timeout_ns);

/* Reads what there is, at most `bytes`; -EAGAIN for nothing, or when others wait to read. */
SHOAL_API ssize_t shoal_pipe_try_read(struct shoal_pipe *pipe, void *data, size_t bytes);

/*
 * Writes all of `bytes`, waiting for room as often as needed. `bytes`, or fewer when it ended early
 * after some were written (then the next write tells why); otherwise the code of the reading
 * side's close (-EPIPE without one), -EPIPE after a close of the writing side, -ETIMEDOUT, or the
 * code of the fiber's cancel. `timeout_ns` is for the whole. On a fiber; yields if it has to wait.
 */
SHOAL_API ssize_t shoal_pipe_write(struct shoal_pipe *pipe, const void *data, size_t bytes,
                                   uint64_t timeout_ns);

/* Writes what there is room for; -EAGAIN for none, or when others wait to write. */
SHOAL_API ssize_t shoal_pipe_try_write(struct shoal_pipe *pipe, const void *data, size_t bytes);

/*
 * Resolve, with a value that means nothing, once shoal_pipe_try_read(), or _try_write(), has
 * something to say other than -EAGAIN; nothing is read or written. -ETIMEDOUT, -ECANCELED, -ENOMEM.
 */
SHOAL_API struct shoal_future *shoal_pipe_readable_future(struct shoal_pipe *pipe,
                                                          uint64_t timeout_ns);
SHOAL_API struct shoal_future *shoal_pipe_writable_future(struct shoal_pipe *pipe,
                                                          uint64_t timeout_ns);

/*
 * Ends the stream for the reader: with SHOAL_EEOF for a `code` of 0, otherwise with `code`
 * (negative). Writers in line get -EPIPE. Only the first call counts. Does not yield.
 */
SHOAL_API void shoal_pipe_close_write(struct shoal_pipe *pipe, int code);

/*
 * Ends the stream for writers: with -EPIPE for a `code` of 0, otherwise with `code` (negative).
 * Readers in line get -EPIPE. Only the first call counts. Does not yield.
 */
SHOAL_API void shoal_pipe_close_read(struct shoal_pipe *pipe, int code);

/* How many bytes wait to be read. */
SHOAL_API size_t shoal_pipe_length(const struct shoal_pipe *pipe);

SHOAL_END_DECLS

#endif
