/*
 * Reading files in a row: see file_stream.h.
 *
 *        first                 first + used
 *          |                        |
 *   ... [ FULL ][ FULL ][ BUSY ][ BUSY ][ empty ] ...      slots, round and round
 *          ^ position                   ^ next_offset
 *
 * 1. A slot holds the bytes from its offset on, and nothing else: what lies behind a slot that came
 *    out short is not given out before the gap is known to be the end of the file.
 * 2. What is cached is copied into the first slot when it is asked for; only when that fails are
 *    the slots behind it started, up to the size that the file has by then. On helper threads that
 *    is done with O_DIRECT only: through the page cache the reads would arrive there in any order,
 *    which the system's own read-ahead takes for random access (measured: half the speed at five
 *    times the CPU time), and what it has brought is had without a thread.
 * 3. The end of the file is believed of a read that was started by the call that returns it.
 */
#include <errno.h>
#include <string.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/file_stream_impl.h"

enum slot_state { SLOT_EMPTY, SLOT_BUSY, SLOT_FULL };

struct slot {
    struct shoal_file_call call;
    struct shoal_file_reader *reader;
    char *buf;
    uint64_t offset;
    uint32_t filled;
    int error; /* of the read behind `filled` */
    uint8_t state;
};

struct shoal_file_reader {
    struct shoal_file_stream stream;
    uint64_t position;
    uint64_t next_offset; /* of the next slot to be started */
    uint64_t end;         /* as asked for */
    uint64_t size;        /* as far as it makes sense to read ahead */
    uint32_t first;
    uint32_t used;
    uint32_t shown; /* bytes of the last peek that are not consumed */
    bool dropping;
    struct slot slots[];
};

static size_t reader_bytes(uint32_t buffers)
{
    return sizeof(struct shoal_file_reader) + buffers * sizeof(struct slot);
}

static struct slot *slot_at(struct shoal_file_reader *reader, uint32_t index)
{
    return &reader->slots[(reader->first + index) % reader->stream.buffers];
}

int shoal_file_reader_new(struct shoal_file_reader **out, struct shoal_file *file,
                          const struct shoal_file_reader_options *options)
{
    static const struct shoal_file_reader_options defaults = {0};
    struct shoal_file_stream stream;
    *out = NULL;
    if (options == NULL)
        options = &defaults;
    int rc = shoal_file_stream_init(&stream, file, options->buffer_bytes, options->buffers,
                                    options->offset_bytes);
    if (rc < 0)
        return rc;
    struct shoal_file_reader *reader = shoal_mem_alloc_zeroed(reader_bytes(stream.buffers));
    if (reader == NULL) {
        shoal_file_stream_deinit(&stream);
        return -ENOMEM;
    }
    reader->stream = stream;
    reader->position = options->offset_bytes;
    reader->end = options->end_bytes != 0 ? options->end_bytes : UINT64_MAX;
    for (uint32_t i = 0; i < stream.buffers; i++) {
        reader->slots[i].reader = reader;
        reader->slots[i].buf = stream.memory + (size_t)i * stream.buffer_bytes;
    }
    *out = reader;
    return 0;
}

/* ---- Slots ---- */

static void start_read(struct slot *slot)
{
    const struct shoal_file_stream *stream = &slot->reader->stream;
    slot->call.fd.fd = stream->file->fd;
    slot->call.op.kind = SHOAL_IO_READ;
    slot->call.op.arg.rw.data = slot->buf + slot->filled;
    slot->call.op.arg.rw.len = stream->buffer_bytes - slot->filled;
    slot->call.op.arg.rw.offset = slot->offset + slot->filled;
    slot->call.op.arg.rw.flags = 0;
    shoal_file_call_start(shoal_core_self, &slot->call);
}

/* Whether a read that gave so much has more to give: the end of a direct read is not aligned. */
static bool goes_on(const struct slot *slot)
{
    const struct shoal_file_stream *stream = &slot->reader->stream;
    return slot->filled < stream->buffer_bytes && slot->filled % stream->need.offset_bytes == 0 &&
           !slot->reader->dropping;
}

static void read_done(struct shoal_file_call *call)
{
    struct slot *slot = SHOAL_CONTAINER_OF(call, struct slot, call);
    if (call->result > 0)
        slot->filled += (uint32_t)call->result;
    bool interrupted = call->result == -EINTR && !slot->reader->dropping;
    if (interrupted || (call->result > 0 && goes_on(slot))) {
        start_read(slot);
        return;
    }
    slot->error = call->result < 0 ? call->result : 0;
    slot->state = SLOT_FULL;
    shoal_file_stream_wake(&slot->reader->stream);
}

static struct slot *take_slot(struct shoal_file_reader *reader)
{
    struct slot *slot = slot_at(reader, reader->used++);
    slot->offset = reader->next_offset;
    slot->filled = 0;
    slot->error = 0;
    slot->state = SLOT_FULL;
    reader->next_offset += reader->stream.buffer_bytes;
    return slot;
}

static void start_slot(struct shoal_file_reader *reader)
{
    struct slot *slot = take_slot(reader);
    slot->state = SLOT_BUSY;
    slot->call.done = read_done;
    start_read(slot);
}

/* Whether reading ahead helps, see 2. above. */
static bool looks_ahead(const struct shoal_file_reader *reader)
{
    const struct shoal_core *core = shoal_core_self;
    return reader->stream.file->direct || (core->io.native & SHOAL_IO_BIT(SHOAL_IO_READ)) != 0;
}

static void read_ahead(struct shoal_file_reader *reader)
{
    uint64_t limit = reader->size < reader->end ? reader->size : reader->end;
    if (!looks_ahead(reader))
        return;
    while (reader->used < reader->stream.buffers && reader->next_offset < limit)
        start_slot(reader);
}

/* Ends and forgets all slots. */
static void drop_slots(struct shoal_file_reader *reader)
{
    struct shoal_core *core = shoal_core_self;
    reader->dropping = true;
    for (uint32_t i = 0; i < reader->used; i++)
        if (slot_at(reader, i)->state == SLOT_BUSY)
            shoal_file_call_cancel(core, &slot_at(reader, i)->call);
    shoal_fiber_shield();
    for (uint32_t i = 0; i < reader->used; i++)
        while (slot_at(reader, i)->state == SLOT_BUSY)
            (void)shoal_file_stream_wait(&reader->stream, "file read");
    shoal_fiber_unshield();
    for (uint32_t i = 0; i < reader->used; i++)
        slot_at(reader, i)->state = SLOT_EMPTY;
    reader->dropping = false;
    reader->used = 0;
}

/* Bytes of the first slot from the position on. */
static uint32_t available(struct shoal_file_reader *reader)
{
    const struct slot *slot = slot_at(reader, 0);
    if (reader->position < slot->offset)
        return 0; /* the slot before came out short */
    uint64_t skip = reader->position - slot->offset;
    uint64_t bytes = slot->filled > skip ? slot->filled - skip : 0;
    uint64_t left = reader->end - reader->position;
    return (uint32_t)(bytes < left ? bytes : left);
}

static void pop_slot(struct shoal_file_reader *reader)
{
    slot_at(reader, 0)->state = SLOT_EMPTY;
    reader->first = (reader->first + 1) % reader->stream.buffers;
    reader->used--;
}

/* ---- Filling ---- */

/* How far it makes sense to read ahead: files of /proc and devices have no size. */
static uint64_t size_now(const struct shoal_core *core, const struct shoal_file *file)
{
    struct statx now;
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_STAT, .fd = &fd};
    op.arg.path.path = "";
    op.arg.path.other = &now;
    op.arg.path.extra = STATX_TYPE | STATX_SIZE;
    op.arg.path.flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
    if (!core->io.ops->real_files || shoal_file_op_now(&op) < 0 || !S_ISREG(now.stx_mode) ||
        now.stx_size == 0)
        return UINT64_MAX;
    return now.stx_size;
}

/* Starts at the position, all slots empty. False when that is the end of the file. */
static bool begin(struct shoal_file_reader *reader)
{
    struct shoal_core *core = shoal_core_self;
    struct shoal_file_stream *stream = &reader->stream;
    reader->next_offset = reader->position - reader->position % stream->need.offset_bytes;
    struct iovec vec = {.iov_base = slot_at(reader, 0)->buf, .iov_len = stream->buffer_bytes};
    int rc = shoal_file_read_cached(stream->file, &vec, 1, reader->next_offset);
    if (rc > 0) {
        struct slot *slot = take_slot(reader);
        slot->filled = (uint32_t)rc;
        reader->size = 0; /* no read-ahead: the system does that for what goes through its cache */
        return true;
    }
    reader->size = size_now(core, stream->file);
    if (reader->position >= reader->size)
        return false;
    start_slot(reader);
    read_ahead(reader);
    return true;
}

int shoal_file_reader_peek(struct shoal_file_reader *reader, const void **data)
{
    struct shoal_core *core = shoal_file_core();
    struct shoal_file_stream *stream = &reader->stream;
    shoal_file_check_mine(stream->file);
    int rc = shoal_fiber_cancel_code(core->fiber);
    bool fresh = false;
    reader->shown = 0;
    if (rc < 0)
        return rc;
    for (;;) {
        if (reader->position >= reader->end || reader->position > INT64_MAX)
            return 0;
        if (reader->used == 0) {
            fresh = true;
            if (!begin(reader))
                return 0;
            shoal_file_give_way();
        }
        struct slot *slot = slot_at(reader, 0);
        while (slot->state == SLOT_BUSY) {
            rc = shoal_file_stream_wait(stream, "file read");
            if (rc < 0 && slot->state == SLOT_BUSY)
                return rc;
        }
        reader->shown = available(reader);
        if (reader->shown > 0) {
            read_ahead(reader);
            *data = slot->buf + (reader->position - slot->offset);
            return (int)reader->shown;
        }
        /* Not so after a gap, nor where a seek has led past the place of the error. */
        bool here =
            reader->position >= slot->offset && reader->position <= slot->offset + slot->filled;
        rc = slot->error;
        drop_slots(reader);
        if (fresh || (here && rc < 0))
            return rc < 0 ? rc : 0;
    }
}

void shoal_file_reader_consume(struct shoal_file_reader *reader, size_t bytes)
{
    shoal_file_check_mine(reader->stream.file);
    SHOAL_CHECK(bytes <= reader->shown, "%zu bytes consumed of %u that were shown", bytes,
                reader->shown);
    if (bytes == 0)
        return;
    const struct slot *slot = slot_at(reader, 0);
    reader->shown -= (uint32_t)bytes;
    reader->position += bytes;
    if (reader->position == slot->offset + slot->filled && slot->error == 0)
        pop_slot(reader);
}

/* ---- On top ---- */

int shoal_file_reader_read(struct shoal_file_reader *reader, void *buf, size_t len)
{
    const void *data = NULL;
    int rc = shoal_file_reader_peek(reader, &data);
    if (rc <= 0)
        return rc;
    size_t bytes = (size_t)rc < len ? (size_t)rc : len;
    memcpy(buf, data, bytes);
    shoal_file_reader_consume(reader, bytes);
    return (int)bytes;
}

int shoal_file_reader_read_exact(struct shoal_file_reader *reader, void *buf, size_t len)
{
    char *at = buf;
    while (len > 0) {
        int rc = shoal_file_reader_read(reader, at, len);
        if (rc <= 0)
            return rc == 0 ? SHOAL_EEOF : rc;
        at += rc;
        len -= (size_t)rc;
    }
    return 0;
}

uint64_t shoal_file_reader_tell(const struct shoal_file_reader *reader)
{
    shoal_file_check_mine(reader->stream.file);
    return reader->position;
}

int shoal_file_reader_seek(struct shoal_file_reader *reader, uint64_t offset_bytes)
{
    const struct shoal_file_stream *stream = &reader->stream;
    (void)shoal_file_core();
    shoal_file_check_mine(stream->file);
    reader->shown = 0;
    if (offset_bytes > INT64_MAX)
        return -EINVAL;
    while (reader->used > 0) {
        const struct slot *slot = slot_at(reader, 0);
        if (offset_bytes >= slot->offset && offset_bytes - slot->offset < stream->buffer_bytes)
            break;
        if (offset_bytes < slot->offset || slot->state == SLOT_BUSY) {
            drop_slots(reader);
            break;
        }
        pop_slot(reader);
    }
    reader->position = offset_bytes;
    return 0;
}

void shoal_file_reader_free(struct shoal_file_reader *reader)
{
    if (reader == NULL)
        return;
    (void)shoal_file_core();
    shoal_file_check_mine(reader->stream.file);
    drop_slots(reader);
    shoal_file_stream_deinit(&reader->stream);
    shoal_mem_free(reader, reader_bytes(reader->stream.buffers));
}
