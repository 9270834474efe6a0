/*
 * What readers and writers of files share: see file_stream.h and file_stream_impl.h.
 */
#include "shoal/runtime/file_stream.h"

#include <errno.h>

#include <fcntl.h>

#include "shoal/runtime/file_stream_impl.h"

static bool is_within(uint32_t x, uint32_t min, uint32_t max)
{
    return x >= min && x <= max;
}

int shoal_file_stream_init(struct shoal_file_stream *stream, struct shoal_file *file,
                           uint32_t buffer_bytes, uint32_t buffers, uint64_t offset_bytes)
{
    (void)shoal_file_core();
    shoal_file_check_mine(file);
    if (buffer_bytes == 0)
        buffer_bytes = SHOAL_FILE_STREAM_BUFFER_BYTES;
    if (buffers == 0)
        buffers = SHOAL_FILE_STREAM_BUFFERS;
    if (file->fd < 0)
        return -EBADF;
    if (offset_bytes > INT64_MAX || !is_within(buffers, 1, SHOAL_FILE_STREAM_BUFFERS_MAX) ||
        !is_within(buffer_bytes, SHOAL_FILE_STREAM_BUFFER_BYTES_MIN,
                   SHOAL_FILE_STREAM_BUFFER_BYTES_MAX))
        return -EINVAL;
    *stream = (struct shoal_file_stream){
        .file = file, .need = {.memory_bytes = 16, .offset_bytes = 1}, .buffers = buffers};
    if (file->direct) {
        int rc = shoal_file_alignment(file, &stream->need);
        if (rc < 0)
            return rc;
    }
    uint32_t unit = stream->need.offset_bytes;
    stream->buffer_bytes = (buffer_bytes + unit - 1) / unit * unit;
    stream->memory = shoal_file_buffer_new(&stream->need, (size_t)stream->buffer_bytes * buffers);
    return stream->memory != NULL ? 0 : -ENOMEM;
}

void shoal_file_stream_deinit(struct shoal_file_stream *stream)
{
    shoal_file_buffer_free(&stream->need, stream->memory,
                           (size_t)stream->buffer_bytes * stream->buffers);
    stream->memory = NULL;
}

void shoal_file_stream_wake(struct shoal_file_stream *stream)
{
    if (stream->waiter != NULL)
        shoal_fiber_make_ready(shoal_core_self, stream->waiter);
}

static void cancel_wait(struct shoal_fiber *fiber)
{
    struct shoal_file_stream *stream = fiber->wait_ctx;
    stream->cancelled = true;
    shoal_file_stream_wake(stream);
}

int shoal_file_stream_wait(struct shoal_file_stream *stream, const char *what)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_fiber *fiber = core->fiber;
    int code = shoal_fiber_cancel_code(fiber);
    if (code < 0)
        return code;
    SHOAL_CHECK(stream->waiter == NULL, "two fibers use one stream of a file");
    stream->waiter = fiber;
    stream->cancelled = false;
    shoal_fiber_wait_begin(fiber, what, cancel_wait, stream);
    shoal_fiber_park(core, fiber);
    shoal_fiber_wait_end(fiber);
    stream->waiter = NULL;
    return stream->cancelled ? fiber->cancel_code : 0;
}

static void set_direct(const struct shoal_file *file, bool direct)
{
    int flags = fcntl(file->fd, F_GETFL);
    if (flags >= 0)
        (void)fcntl(file->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT);
}

void shoal_file_direct_off(struct shoal_file *file)
{
    if (file->buffered_writes++ == 0)
        set_direct(file, false);
}

void shoal_file_direct_on(struct shoal_file *file)
{
    SHOAL_CHECK(file->buffered_writes > 0, "direct I/O of a file is on already");
    if (--file->buffered_writes == 0)
        set_direct(file, true);
}
