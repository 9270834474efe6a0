/*
 * Writing files in a row: see file_stream.h.
 *
 *     current
 *        |
 *   [ gathers ][ free ][ BUSY ][ BUSY ] ...      slots, round and round, each with its offset
 *
 * 1. Writes are on their way at the same time and end in any order; no two are for the same bytes,
 *    since a seek waits for all. With `append` they go one after the other (WAITING), in order.
 * 2. The first failure, by offset, is kept for good. What is behind it and has not begun is
 *    dropped.
 * 3. With O_DIRECT a slot ends at a multiple of the alignment. One that does not (a flush) and the
 *    one behind it go through the page cache, while no other is on its way: a direct write beside
 *    pages that are dirtied meanwhile makes the kernel fail the next sync (their folio may be
 *    shared by both, and cannot be dropped).
 */
#include <errno.h>
#include <string.h>

#include <sys/uio.h>

#include "shoal/runtime/file_stream_impl.h"

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_BUSY };

struct slot {
    struct shoal_file_call call;
    struct shoal_file_writer *writer;
    char *buf;
    uint64_t offset;
    uint32_t len;
    uint32_t written;
    uint8_t state;
    bool buffered; /* although the file has O_DIRECT */
};

struct shoal_file_writer {
    struct shoal_file_stream stream;
    uint64_t offset; /* of the current slot; with `append`, from 0 on */
    uint64_t start;
    uint64_t failed_offset;
    uint32_t gathered; /* in the current slot */
    uint32_t current;
    uint32_t pending; /* slots that are not free */
    int error;
    bool append;
    bool discarding;
    struct slot slots[];
};

static size_t writer_bytes(uint32_t buffers)
{
    return sizeof(struct shoal_file_writer) + buffers * sizeof(struct slot);
}

int shoal_file_writer_new(struct shoal_file_writer **out, struct shoal_file *file,
                          const struct shoal_file_writer_options *options)
{
    static const struct shoal_file_writer_options defaults = {0};
    struct shoal_file_stream stream;
    *out = NULL;
    if (options == NULL)
        options = &defaults;
    bool append = options->append || file->appends;
    if (append && file->direct)
        return -EINVAL;
    int rc = shoal_file_begin_writing(shoal_file_core(), file);
    if (rc < 0)
        return rc;
    rc = shoal_file_stream_init(&stream, file, options->buffer_bytes, options->buffers,
                                options->offset_bytes);
    if (rc < 0)
        return rc;
    struct shoal_file_writer *writer = shoal_mem_alloc_zeroed(writer_bytes(stream.buffers));
    if (writer == NULL) {
        shoal_file_stream_deinit(&stream);
        return -ENOMEM;
    }
    writer->stream = stream;
    writer->append = append;
    writer->offset = append ? 0 : options->offset_bytes;
    writer->start = writer->offset;
    for (uint32_t i = 0; i < stream.buffers; i++) {
        writer->slots[i].writer = writer;
        writer->slots[i].buf = stream.memory + (size_t)i * stream.buffer_bytes;
    }
    *out = writer;
    return 0;
}

/* ---- Slots ---- */

static void start_write(struct slot *slot)
{
    const struct shoal_file_writer *writer = slot->writer;
    slot->call.fd.fd = writer->stream.file->fd;
    slot->call.op.kind = SHOAL_IO_WRITE;
    slot->call.op.arg.rw.data = slot->buf + slot->written;
    slot->call.op.arg.rw.len = slot->len - slot->written;
    slot->call.op.arg.rw.offset = writer->append ? 0 : slot->offset + slot->written;
    slot->call.op.arg.rw.flags = writer->append ? RWF_APPEND : 0;
    shoal_file_call_start(shoal_core_self, &slot->call);
}

static void free_slot(struct slot *slot)
{
    slot->state = SLOT_FREE;
    slot->writer->pending--;
}

static void note_failure(struct shoal_file_writer *writer, const struct slot *slot, int error)
{
    uint64_t at = slot->offset + slot->written;
    if (writer->error == 0 || at < writer->failed_offset) {
        writer->error = error;
        writer->failed_offset = at;
    }
}

static bool is_alone(const struct slot *slot)
{
    return slot->writer->append || slot->buffered;
}

/* Starts those that wait, in their order, as far as what is under way lets them. */
static void begin_waiting(struct shoal_file_writer *writer)
{
    const struct slot *busy = NULL;
    for (uint32_t i = 0; i < writer->stream.buffers; i++)
        if (writer->slots[i].state == SLOT_BUSY)
            busy = &writer->slots[i];
    for (uint32_t i = 0; i < writer->stream.buffers; i++) {
        struct slot *slot = &writer->slots[(writer->current + i) % writer->stream.buffers];
        if (slot->state != SLOT_WAITING)
            continue;
        if (writer->error != 0 || writer->discarding) {
            free_slot(slot);
            continue;
        }
        if (busy != NULL && (is_alone(slot) || is_alone(busy)))
            return;
        busy = slot;
        slot->state = SLOT_BUSY;
        if (slot->buffered)
            shoal_file_direct_off(writer->stream.file);
        start_write(slot);
    }
}

static void write_done(struct shoal_file_call *call)
{
    struct slot *slot = SHOAL_CONTAINER_OF(call, struct slot, call);
    struct shoal_file_writer *writer = slot->writer;
    int result = call->result == 0 ? -EIO : call->result;
    if (result > 0)
        slot->written += (uint32_t)result;
    bool again = slot->written < slot->len && (result > 0 || result == -EINTR);
    if (again && !writer->discarding) {
        start_write(slot);
        return;
    }
    if (slot->buffered)
        shoal_file_direct_on(writer->stream.file);
    if (result < 0)
        note_failure(writer, slot, result);
    free_slot(slot);
    begin_waiting(writer);
    shoal_file_stream_wake(&writer->stream);
}

/* Hands over what the current slot has gathered and goes on with the next. */
static void push(struct shoal_file_writer *writer)
{
    struct slot *slot = &writer->slots[writer->current];
    uint32_t unit = writer->stream.need.offset_bytes;
    slot->offset = writer->offset;
    slot->len = writer->gathered;
    slot->written = 0;
    slot->call.done = write_done;
    slot->buffered = slot->offset % unit != 0 || slot->len % unit != 0;
    writer->offset += writer->gathered;
    writer->gathered = 0;
    writer->current = (writer->current + 1) % writer->stream.buffers;
    writer->pending++;
    slot->state = SLOT_WAITING;
    begin_waiting(writer);
}

/* Until the current slot is free. 0, the code of a cancel, the writer's error. */
static int wait_for_room(struct shoal_file_writer *writer)
{
    int rc = 0;
    while (rc == 0 && writer->slots[writer->current].state != SLOT_FREE)
        rc = shoal_file_stream_wait(&writer->stream, "file write");
    return writer->error != 0 ? writer->error : rc;
}

/* ---- Calls ---- */

static int enter(const struct shoal_file_writer *writer)
{
    const struct shoal_core *core = shoal_file_core();
    shoal_file_check_mine(writer->stream.file);
    return writer->error != 0 ? writer->error : shoal_fiber_cancel_code(core->fiber);
}

int shoal_file_writer_write(struct shoal_file_writer *writer, const void *data, size_t len)
{
    const char *at = data;
    int rc = enter(writer);
    while (rc == 0 && len > 0) {
        rc = wait_for_room(writer);
        if (rc < 0)
            break;
        uint32_t room = writer->stream.buffer_bytes -
                        (uint32_t)(writer->offset % writer->stream.need.offset_bytes);
        size_t bytes = len < room - writer->gathered ? len : room - writer->gathered;
        memcpy(writer->slots[writer->current].buf + writer->gathered, at, bytes);
        writer->gathered += (uint32_t)bytes;
        at += bytes;
        len -= bytes;
        if (writer->gathered == room) {
            push(writer);
            shoal_file_give_way();
        }
    }
    return rc;
}

int shoal_file_writer_flush(struct shoal_file_writer *writer)
{
    int rc = enter(writer);
    if (rc == 0 && writer->gathered > 0)
        push(writer);
    if (writer->error != 0) /* what is under way ends all the same, and may have failed before it */
        rc = shoal_fiber_cancel_code(shoal_core_self->fiber);
    while (rc == 0 && writer->pending > 0)
        rc = shoal_file_stream_wait(&writer->stream, "file write");
    return writer->error != 0 ? writer->error : rc;
}

int shoal_file_writer_sync(struct shoal_file_writer *writer)
{
    int rc = shoal_file_writer_flush(writer);
    if (rc < 0)
        return rc;
    rc = shoal_file_sync_data(writer->stream.file);
    if (rc < 0 && rc != shoal_fiber_cancel_code(shoal_core_self->fiber)) {
        writer->error = rc;
        writer->failed_offset = writer->start;
    }
    return rc;
}

uint64_t shoal_file_writer_tell(const struct shoal_file_writer *writer)
{
    shoal_file_check_mine(writer->stream.file);
    return writer->offset + writer->gathered;
}

int shoal_file_writer_seek(struct shoal_file_writer *writer, uint64_t offset_bytes)
{
    if (offset_bytes > INT64_MAX || writer->append)
        return -EINVAL;
    int rc = shoal_file_writer_flush(writer);
    if (rc < 0)
        return rc;
    writer->offset = offset_bytes;
    writer->start = offset_bytes;
    return 0;
}

uint64_t shoal_file_writer_written(const struct shoal_file_writer *writer)
{
    shoal_file_check_mine(writer->stream.file);
    uint64_t until = writer->error != 0 ? writer->failed_offset : writer->offset;
    for (uint32_t i = 0; i < writer->stream.buffers; i++) {
        const struct slot *slot = &writer->slots[i];
        if (slot->state != SLOT_FREE && slot->offset + slot->written < until)
            until = slot->offset + slot->written;
    }
    return until - writer->start;
}

static void end(struct shoal_file_writer *writer)
{
    while (writer->pending > 0)
        (void)shoal_file_stream_wait(&writer->stream, "file write");
    shoal_file_stream_deinit(&writer->stream);
    shoal_mem_free(writer, writer_bytes(writer->stream.buffers));
}

int shoal_file_writer_close(struct shoal_file_writer *writer)
{
    if (writer == NULL)
        return 0;
    shoal_file_check_mine(writer->stream.file);
    shoal_fiber_shield();
    int rc = shoal_file_writer_flush(writer);
    end(writer);
    shoal_fiber_unshield();
    return rc;
}

void shoal_file_writer_discard(struct shoal_file_writer *writer)
{
    if (writer == NULL)
        return;
    struct shoal_core *core = shoal_file_core();
    shoal_file_check_mine(writer->stream.file);
    writer->discarding = true;
    shoal_fiber_shield();
    for (uint32_t i = 0; i < writer->stream.buffers; i++)
        if (writer->slots[i].state == SLOT_BUSY)
            shoal_file_call_cancel(core, &writer->slots[i].call);
    end(writer);
    shoal_fiber_unshield();
}
