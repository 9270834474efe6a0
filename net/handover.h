/*
 * Handing a connection over to another core, which serves it from then on.
 *
 *   static void serve(struct shoal_stream *stream, void *arg)  { ... }   (on core 2)
 *   ...
 *   int rc = shoal_handover_stream(stream, 2, serve, arg);
 *   if (rc < 0)
 *       serve(stream, arg);                                              (here, then)
 *
 * 1. A connection moves only at a safe point: nothing that has been received is unread, nothing
 *    that has been written is unsent, and no fiber waits at it. What the peer sends meanwhile waits
 *    in the socket.
 * 2. It is never lost: where the other core cannot take it, the call fails and says why, and the
 *    connection is the caller's as it was, to be served, tried elsewhere, or closed.
 * 3. Connections are handed over by the library itself, before they become streams, where
 *    --accept-balance says so; see docs/balancing.md.
 */
#ifndef SHOAL_NET_HANDOVER_H
#define SHOAL_NET_HANDOVER_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/listen.h"

SHOAL_BEGIN_DECLS

/*
 * Has `core` serve the connection of `stream`: there `serve(stream, arg)` is called on a fiber,
 * with a stream of that core, which is closed after it returns. On a fiber of the stream's core;
 * yields until the other core has taken it; no other fiber may use the stream meanwhile. It may be
 * the caller's own core.
 *
 * 0, and `stream` is an empty shell: it is still the caller's to close (shoal_listen() does that
 * itself), and everything else fails with SHOAL_ECLOSED. Otherwise a negative code, with a text in
 * shoal_error_message(), and the stream goes on as it was:
 *   -EBUSY          a fiber waits at it
 *   -ENOTEMPTY      received data has not been read, or written data has not been sent
 *                   (shoal_stream_drain() first)
 *   SHOAL_EEOF, -errno   the peer has ended it, or it is broken
 *   SHOAL_ECLOSED   it is closed, or was handed over before
 *   SHOAL_ENOCORE   no such core
 *   -ENOMEM, SHOAL_ESTOPPING   the other core cannot take it
 *   -ECANCELED, -ETIMEDOUT     the calling fiber was cancelled before anything was sent
 */
SHOAL_API int shoal_handover_stream(struct shoal_stream *stream, unsigned core,
                                    shoal_connection_fn *serve, void *arg);

/*
 * The same for the descriptor of a connected stream socket (TCP or Unix) that no stream has: what a
 * program has accepted, made or been passed itself. 0, and it is the other core's to close.
 * Otherwise it is still the caller's, as it was; in place of the first four codes above: -EBADF,
 * -ENOTSOCK, -EPROTOTYPE (it is not of type SOCK_STREAM), -EINVAL (it listens), -ENOTCONN.
 */
SHOAL_API int shoal_handover_fd(int fd, unsigned core, shoal_connection_fn *serve, void *arg);

/* What the calling core has done so far. */
struct shoal_handover_stats {
    uint64_t handed;  /* connections that other cores took */
    uint64_t kept;    /* connections that no other core took: served here, or the call failed */
    uint64_t taken;   /* connections of other cores that were taken here */
    uint64_t refused; /* connections of other cores that were not */
    uint64_t open;    /* accepted and taken connections that are open here now */
};

/* Core threads only; does not yield. */
SHOAL_API void shoal_handover_stats(struct shoal_handover_stats *out);

SHOAL_END_DECLS

#endif
