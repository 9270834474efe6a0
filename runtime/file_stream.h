/*
 * Files read or written in a row, through a few buffers, while the disk works ahead or behind.
 *
 *   struct shoal_file_reader *reader;
 *   int rc = shoal_file_reader_new(&reader, &file, NULL);
 *   while (rc == 0 && (n = shoal_file_reader_read(reader, buf, sizeof(buf))) > 0)
 *       ...
 *   shoal_file_reader_free(reader);
 *
 *   struct shoal_file_writer *writer;
 *   rc = shoal_file_writer_new(&writer, &file, NULL);
 *   rc = shoal_file_writer_write(writer, line, strlen(line));
 *   ...
 *   rc = shoal_file_writer_close(writer);      the place where a late error shows at last
 *
 * 1. Memory is bounded: `buffers` of `buffer_bytes` each, taken when the stream is made. A reader
 *    that has filled them reads no further until some is consumed; a writer whose buffers are all
 *    on their way waits for one.
 * 2. A reader reads ahead only where data has to be waited for: what the system has in its cache is
 *    copied when it is asked for. Where helper threads do the reading, and not with O_DIRECT, it
 *    leaves reading ahead to the system.
 * 3. An error of a write that went on behind the caller's back is kept: each later call of the
 *    writer returns it, the close as well, so that who looks at the close alone misses nothing.
 * 4. Files opened with O_DIRECT work at any offset and length: the streams see to the alignment.
 * 5. All calls are made on a fiber of the core that made the stream, one at a time, and may yield.
 *    The file outlives the stream and may be used by others meanwhile. After the code of a cancel
 *    (-ECANCELED, -ETIMEDOUT) a stream is as usable as before.
 */
#ifndef SHOAL_RUNTIME_FILE_STREAM_H
#define SHOAL_RUNTIME_FILE_STREAM_H

#include "shoal/runtime/file.h"

SHOAL_BEGIN_DECLS

#define SHOAL_FILE_STREAM_BUFFER_BYTES     (64u * 1024) /* the default */
#define SHOAL_FILE_STREAM_BUFFER_BYTES_MIN 512u
#define SHOAL_FILE_STREAM_BUFFER_BYTES_MAX SHOAL_FILE_WRITE_MAX
#define SHOAL_FILE_STREAM_BUFFERS          4u /* the default */
#define SHOAL_FILE_STREAM_BUFFERS_MAX      16u

/* ---- Reading ---- */

struct shoal_file_reader;

/* Members may be added at the end, and 0 means the default. */
struct shoal_file_reader_options {
    uint64_t offset_bytes; /* where to begin */
    uint64_t end_bytes;    /* where to stop, as at the end of the file; 0: at the end of the file */
    uint32_t buffer_bytes;
    uint32_t buffers; /* at least 1: no read-ahead */
};

/*
 * A reader of `file`. `options` may be NULL. 0 with *out to be freed; -ENOMEM; -EINVAL (a buffer
 * out of the limits above, an offset beyond INT64_MAX); -EBADF. Reads nothing yet.
 */
SHOAL_API int shoal_file_reader_new(struct shoal_file_reader **out, struct shoal_file *file,
                                    const struct shoal_file_reader_options *options);

/*
 * Reads up to `len` bytes (> 0) into `buf`. Returns how many, at least 1; 0 at the end of the file,
 * where a later call sees what has been added by then; -errno of the read at this place (what comes
 * before it was delivered), which is made again by the next call.
 */
SHOAL_API int shoal_file_reader_read(struct shoal_file_reader *reader, void *buf, size_t len);

/* The same for all of `len` bytes, of any length. 0; SHOAL_EEOF when the file ends before; -errno.
 * What was read until then is consumed. */
SHOAL_API int shoal_file_reader_read_exact(struct shoal_file_reader *reader, void *buf, size_t len);

/*
 * Without a copy: waits for data and sets `*data` to what is buffered. Returns how many bytes, or
 * as shoal_file_reader_read(). They stay, and are the reader's, until the next call on it.
 */
SHOAL_API int shoal_file_reader_peek(struct shoal_file_reader *reader, const void **data);

/* Goes on behind `bytes` of what the last peek has shown. Does not yield. */
SHOAL_API void shoal_file_reader_consume(struct shoal_file_reader *reader, size_t bytes);

/* The offset of the next byte that will be read. Does not yield. */
SHOAL_API uint64_t shoal_file_reader_tell(const struct shoal_file_reader *reader);

/*
 * Goes on at `offset_bytes`. Within what is buffered it costs nothing; else what is under way is
 * cancelled, waited for and dropped. 0, or -EINVAL (beyond INT64_MAX).
 */
SHOAL_API int shoal_file_reader_seek(struct shoal_file_reader *reader, uint64_t offset_bytes);

/* Cancels what is under way, waits for its end, and frees. Works on a cancelled fiber too. NULL is
 * fine. */
SHOAL_API void shoal_file_reader_free(struct shoal_file_reader *reader);

/* ---- Writing ---- */

struct shoal_file_writer;

/* Members may be added at the end, and 0 means the default. */
struct shoal_file_writer_options {
    uint64_t offset_bytes; /* where to begin */
    uint32_t buffer_bytes;
    uint32_t buffers; /* at least 1; with `append` one is on its way at a time */
    bool append;      /* at the end of the file, whatever its size by then */
};

/*
 * A writer of `file`, which is open for writing. `options` may be NULL. 0 with *out to be closed;
 * -ENOMEM; -EINVAL (as above); -EBADF, -ESPIPE. A file with O_APPEND is appended to whatever
 * `options` say; with O_DIRECT that is -EINVAL.
 */
SHOAL_API int shoal_file_writer_new(struct shoal_file_writer **out, struct shoal_file *file,
                                    const struct shoal_file_writer_options *options);

/*
 * Writes a copy of `len` bytes: 0 means gathered, not written. Waits while all buffers are on their
 * way. -errno of an earlier write (-ENOSPC, -EDQUOT, -EFBIG, -EIO, -EBADF), see 3. above: nothing
 * is taken any more. After the code of a cancel a part of `data` may be gathered; tell says how
 * much.
 */
SHOAL_API int shoal_file_writer_write(struct shoal_file_writer *writer, const void *data,
                                      size_t len);

/*
 * Waits until the system has taken all that was gathered. 0; -errno of the first write that failed,
 * once no other is under way; the code of a cancel (it goes on all the same).
 */
SHOAL_API int shoal_file_writer_flush(struct shoal_file_writer *writer);

/* Flushes, and waits until the data is on the disk (fdatasync). 0, -errno as the flush; an error of
 * the sync is kept, too. */
SHOAL_API int shoal_file_writer_sync(struct shoal_file_writer *writer);

/* The offset of the next byte that will be written; with `append`, how many bytes were gathered.
 * Does not yield. */
SHOAL_API uint64_t shoal_file_writer_tell(const struct shoal_file_writer *writer);

/*
 * Flushes and goes on at `offset_bytes`, so that writes to one place happen in the order in which
 * they were made. 0; -EINVAL (beyond INT64_MAX, or with `append`); as the flush.
 */
SHOAL_API int shoal_file_writer_seek(struct shoal_file_writer *writer, uint64_t offset_bytes);

/* How many bytes from the start of the writer (or its last seek) on are written without a gap. All
 * of them, unless a write failed. Does not yield. */
SHOAL_API uint64_t shoal_file_writer_written(const struct shoal_file_writer *writer);

/*
 * Writes what is gathered, waits for the end of all writes, and frees the writer, also on a
 * cancelled fiber. The file stays open. 0, or -errno of the first write that failed, told before or
 * not. NULL is fine.
 */
SHOAL_API int shoal_file_writer_close(struct shoal_file_writer *writer);

/* The same without writing what is only gathered. What was on its way may be written or not. */
SHOAL_API void shoal_file_writer_discard(struct shoal_file_writer *writer);

SHOAL_END_DECLS

#endif
