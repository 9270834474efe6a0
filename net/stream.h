/*
 * A connected socket (TCP or Unix) as a stream of bytes, for fibers, with back-pressure both ways.
 *
 * 1. Reading: data arrives in slices of the core's receive pool. When a few are held unread, the
 *    stream stops receiving and goes on once they are taken. Freeing slices is the reader's part.
 * 2. Writing: bytes are gathered and sent together: at a flush, when the fiber next waits, or when
 *    SHOAL_STREAM_OUT_HIGH bytes wait; beyond that the writer waits until they have drained.
 * 3. Small data is copied; a slice that is written is taken over, and freed once it is sent.
 * 4. One fiber reads and one writes at a time (the same or two). All on the core of the stream.
 * 5. A wait returns -ECANCELED when its fiber is cancelled; the stream stays usable.
 */
#ifndef SHOAL_NET_STREAM_H
#define SHOAL_NET_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/buffer.h"
#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_address;
struct shoal_stream;

#define SHOAL_STREAM_OUT_HIGH 65536u

/*
 * Connects to `address`, at most `timeout_ns` (SHOAL_NS_FOREVER: as long as the system tries). 0
 * with *out to be closed; -errno. On a fiber; yields.
 */
SHOAL_API int shoal_stream_connect(struct shoal_stream **out, const struct shoal_address *address,
                                   uint64_t timeout_ns);

/*
 * Waits for data and returns 0 with *out, which is the caller's to free; SHOAL_EEOF at the end of
 * the peer's stream; -errno once the connection is broken. On a fiber; yields if nothing is there.
 */
SHOAL_API int shoal_stream_read(struct shoal_stream *stream, struct shoal_slice **out);

/*
 * Writes a copy of `len` bytes. 0, or -errno of the connection (-EPIPE, -ECONNRESET, -ENOMEM),
 * after which nothing more can be written; -ECANCELED, with a part or all of it gathered. 0 means
 * gathered, not sent. On a fiber; yields when too much waits to be sent.
 */
SHOAL_API int shoal_stream_write(struct shoal_stream *stream, const void *data, size_t len);

/* The same for a slice, which is taken over whatever the result. */
SHOAL_API int shoal_stream_write_slice(struct shoal_stream *stream, struct shoal_slice *slice);

/* Hands what is gathered to the kernel. Does not wait; errors show at the next call that does. */
SHOAL_API void shoal_stream_flush(struct shoal_stream *stream);

/* Flushes and waits until the kernel has taken everything. 0 or -errno. On a fiber; yields. */
SHOAL_API int shoal_stream_drain(struct shoal_stream *stream);

/* Drains, then ends the stream of bytes to the peer (FIN). 0 or -errno. On a fiber; yields. */
SHOAL_API int shoal_stream_shutdown(struct shoal_stream *stream);

/* Ends the connection, at which no fiber may wait, and frees the stream once the kernel has let go
 * of its buffers. What was not drained is lost. Does not yield. NULL is fine. */
SHOAL_API void shoal_stream_close(struct shoal_stream *stream);

SHOAL_END_DECLS

#endif
