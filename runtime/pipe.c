/*
 * A pipe: see pipe.h, and sync_impl.h for how waiting works.
 *
 * A waiter has in `item` the next byte to copy and in `n` how many are left; without an `item` it
 * wants to know and not to copy. Readers are in line only while the ring is empty, writers only
 * while it is full: serve() restores that.
 */
#include "shoal/runtime/pipe.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/sync_impl.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Moves up to `bytes` out of the ring; how many. */
static size_t take_out(struct shoal_pipe *pipe, void *data, size_t bytes)
{
    size_t count = smaller(bytes, pipe->used);
    size_t straight = smaller(count, pipe->capacity - pipe->start);
    memcpy(data, pipe->ring + pipe->start, straight);
    memcpy((char *)data + straight, pipe->ring, count - straight);
    pipe->start = (pipe->start + count) % pipe->capacity;
    pipe->used -= count;
    return count;
}

static size_t put_in(struct shoal_pipe *pipe, const void *data, size_t bytes)
{
    size_t end = (pipe->start + pipe->used) % pipe->capacity;
    size_t count = smaller(bytes, pipe->capacity - pipe->used);
    size_t straight = smaller(count, pipe->capacity - end);
    memcpy(pipe->ring + end, data, straight);
    memcpy(pipe->ring, (const char *)data + straight, count - straight);
    pipe->used += count;
    return count;
}

static bool serve_reader(struct shoal_pipe *pipe)
{
    struct shoal_waiter *reader = shoal_wait_queue_first(&pipe->readers);
    if (reader == NULL || pipe->used == 0)
        return false;
    int count = 0;
    if (reader->item != NULL)
        count = (int)take_out(pipe, reader->item, reader->n);
    shoal_waiter_end(reader, count);
    return true;
}

static bool serve_writer(struct shoal_pipe *pipe)
{
    struct shoal_waiter *writer = shoal_wait_queue_first(&pipe->writers);
    if (writer == NULL || pipe->used == pipe->capacity)
        return false;
    if (writer->item != NULL) {
        size_t count = put_in(pipe, writer->item, writer->n);
        writer->item = (char *)writer->item + count;
        writer->n -= count;
    }
    if (writer->item == NULL || writer->n == 0)
        shoal_waiter_end(writer, 0);
    return true;
}

static void serve(struct shoal_pipe *pipe)
{
    while (serve_reader(pipe) || serve_writer(pipe)) {
    }
}

/* What a read returns when there is nothing to read; 0 while there may come more. */
static int reader_end(const struct shoal_pipe *pipe)
{
    return pipe->read_end != 0 ? -EPIPE : pipe->write_end;
}

static int writer_end(const struct shoal_pipe *pipe)
{
    return pipe->read_end != 0 ? pipe->read_end : pipe->write_end != 0 ? -EPIPE : 0;
}

/* A result is an int: no single copy is larger. */
static ssize_t read_now(struct shoal_pipe *pipe, void *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    if (pipe->used == 0)
        return reader_end(pipe) != 0 ? reader_end(pipe) : -EAGAIN;
    size_t count = take_out(pipe, data, smaller(bytes, INT32_MAX));
    serve(pipe);
    return (ssize_t)count;
}

static ssize_t write_now(struct shoal_pipe *pipe, const void *data, size_t bytes)
{
    int rc = writer_end(pipe);
    if (rc != 0 || bytes == 0)
        return rc;
    if (pipe->used == pipe->capacity)
        return -EAGAIN;
    size_t count = put_in(pipe, data, bytes);
    serve(pipe);
    return (ssize_t)count;
}

/* ---- Life ---- */

int shoal_pipe_init(struct shoal_pipe *pipe, size_t capacity_bytes)
{
    if (capacity_bytes == 0)
        return -EINVAL;
    memset(pipe, 0, sizeof(*pipe));
    pipe->ring = shoal_mem_alloc(capacity_bytes);
    if (pipe->ring == NULL)
        return -ENOMEM;
    pipe->capacity = capacity_bytes;
    shoal_wait_queue_init(&pipe->readers, "pipe (read)", NULL);
    shoal_wait_queue_init(&pipe->writers, "pipe (write)", NULL);
    return 0;
}

void shoal_pipe_deinit(struct shoal_pipe *pipe)
{
    shoal_wait_queue_deinit(&pipe->readers);
    shoal_wait_queue_deinit(&pipe->writers);
    shoal_mem_free(pipe->ring, pipe->capacity);
}

/* Ends all that wait in `queue`: with `code`, but those who only want to know with 0. */
static void end_line(struct shoal_wait_queue *queue, int code)
{
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(queue)) != NULL)
        shoal_waiter_end(waiter, waiter->item != NULL ? code : 0);
}

void shoal_pipe_close_write(struct shoal_pipe *pipe, int code)
{
    shoal_wait_queue_check(&pipe->writers, "close_write");
    if (pipe->write_end != 0)
        return;
    pipe->write_end = code < 0 ? code : SHOAL_EEOF;
    end_line(&pipe->writers, writer_end(pipe));
    end_line(&pipe->readers, reader_end(pipe));
}

void shoal_pipe_close_read(struct shoal_pipe *pipe, int code)
{
    shoal_wait_queue_check(&pipe->readers, "close_read");
    if (pipe->read_end != 0)
        return;
    pipe->read_end = code < 0 ? code : -EPIPE;
    pipe->used = 0;
    end_line(&pipe->writers, writer_end(pipe));
    end_line(&pipe->readers, reader_end(pipe));
}

size_t shoal_pipe_length(const struct shoal_pipe *pipe)
{
    shoal_wait_queue_check(&pipe->readers, "length");
    return pipe->used;
}

/* ---- Reading and writing ---- */

ssize_t shoal_pipe_read(struct shoal_pipe *pipe, void *data, size_t bytes, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&pipe->readers, "read");
    if (rc < 0)
        return rc;
    ssize_t count = read_now(pipe, data, bytes);
    if (count != -EAGAIN)
        return count;
    struct shoal_waiter waiter = {.item = data, .n = smaller(bytes, INT32_MAX)};
    return shoal_waiter_park(&pipe->readers, &waiter, timeout_ns);
}

ssize_t shoal_pipe_try_read(struct shoal_pipe *pipe, void *data, size_t bytes)
{
    shoal_wait_queue_check(&pipe->readers, "try_read");
    return read_now(pipe, data, bytes);
}

ssize_t shoal_pipe_write(struct shoal_pipe *pipe, const void *data, size_t bytes,
                         uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&pipe->writers, "write");
    if (rc < 0)
        return rc;
    /* More than once: readers in line have made room again. Then the ring is full. */
    size_t written = 0;
    ssize_t count;
    while ((count = write_now(pipe, (const char *)data + written, bytes - written)) > 0)
        written += (size_t)count;
    if (count != -EAGAIN)
        return written > 0 ? (ssize_t)written : count;
    struct shoal_waiter waiter = {.item = (char *)(uintptr_t)data + written, .n = bytes - written};
    rc = shoal_waiter_park(&pipe->writers, &waiter, timeout_ns);
    written = bytes - waiter.n;
    return written > 0 ? (ssize_t)written : rc;
}

ssize_t shoal_pipe_try_write(struct shoal_pipe *pipe, const void *data, size_t bytes)
{
    shoal_wait_queue_check(&pipe->writers, "try_write");
    return write_now(pipe, data, bytes);
}

static bool readable(const struct shoal_pipe *pipe)
{
    return pipe->used > 0 || reader_end(pipe) != 0;
}

static struct shoal_future *future_when(struct shoal_wait_queue *queue, bool now,
                                        uint64_t timeout_ns)
{
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(queue, 0, NULL, &waiter);
    if (waiter == NULL)
        return future;
    if (now)
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

struct shoal_future *shoal_pipe_readable_future(struct shoal_pipe *pipe, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&pipe->readers, "readable");
    return future_when(&pipe->readers, readable(pipe), timeout_ns);
}

struct shoal_future *shoal_pipe_writable_future(struct shoal_pipe *pipe, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&pipe->writers, "writable");
    bool now = pipe->used < pipe->capacity || writer_end(pipe) != 0;
    return future_when(&pipe->writers, now, timeout_ns);
}

/* ---- As a source of a select ---- */

static bool source_ready(const struct shoal_select_case *source)
{
    return readable(source->object);
}

static void source_take(struct shoal_select_case *source)
{
    source->result = 0;
}

static struct shoal_wait_queue *source_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_pipe *)source->object)->readers;
}

struct shoal_select_case shoal_select_pipe(struct shoal_pipe *pipe)
{
    static const struct shoal_select_ops ops = {source_ready, source_take, source_queue};
    shoal_wait_queue_check(&pipe->readers, "select");
    return (struct shoal_select_case){.ops = &ops, .object = pipe};
}
