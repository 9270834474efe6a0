/*
 * What readers and writers of files share: their buffers, and the wait of the fiber that uses them.
 */
#ifndef SHOAL_RUNTIME_FILE_STREAM_IMPL_H
#define SHOAL_RUNTIME_FILE_STREAM_IMPL_H

#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/file_impl.h"
#include "shoal/runtime/file_stream.h"

struct shoal_file_stream {
    struct shoal_file *file;
    struct shoal_file_alignment need; /* 1 and 16 without O_DIRECT */
    char *memory;                     /* of all buffers, one behind the other */
    uint32_t buffer_bytes;            /* a multiple of need.offset_bytes */
    uint32_t buffers;
    struct shoal_fiber *waiter;
    bool cancelled; /* the waiter */
};

/* Checks the options (0: the default) and takes the memory. 0, -EINVAL, -EBADF, -ENOMEM, -errno. */
int shoal_file_stream_init(struct shoal_file_stream *stream, struct shoal_file *file,
                           uint32_t buffer_bytes, uint32_t buffers, uint64_t offset_bytes);

void shoal_file_stream_deinit(struct shoal_file_stream *stream);

/* Waits for shoal_file_stream_wake(), or a wake-up for nothing. 0, or the code of a cancel. */
int shoal_file_stream_wait(struct shoal_file_stream *stream, const char *what);

void shoal_file_stream_wake(struct shoal_file_stream *stream);

/* Between these two, writes need no alignment. They nest, also over several streams of a file. */
void shoal_file_direct_off(struct shoal_file *file);
void shoal_file_direct_on(struct shoal_file *file);

#endif
