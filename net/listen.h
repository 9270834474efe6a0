/*
 * Listening on every core: each core has a listening socket of its own on the same address
 * (SO_REUSEPORT; the kernel spreads connections by a hash), and accepts for itself. A Unix socket
 * is one, from which all cores accept.
 *
 * 1. A port that another process holds is an error (-EADDRINUSE), even if that process would share
 *    it: the address is bound without SO_REUSEPORT first.
 * 2. All sockets are bound and listening before the first connection is accepted.
 * 3. Out of descriptors or memory, a core keeps its listener and tries again a little later, and
 *    whenever one of its connections has closed.
 */
#ifndef SHOAL_NET_LISTEN_H
#define SHOAL_NET_LISTEN_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/address.h"
#include "shoal/net/stream.h"

SHOAL_BEGIN_DECLS

struct shoal_listening;

/* Serves one connection, on a fiber of the core that accepted it, or that it was handed over to.
 * The stream is closed after it returns. */
typedef void shoal_connection_fn(struct shoal_stream *stream, void *arg);

/*
 * Listens at `address` on every core and calls `serve(stream, arg)` for each connection. 0 with
 * *out to be stopped; -EADDRINUSE, -EACCES, -EADDRNOTAVAIL and what else bind(2) and listen(2) say.
 * On a fiber of core 0; yields.
 */
SHOAL_API int shoal_listen(struct shoal_listening **out, const struct shoal_address *address,
                           shoal_connection_fn *serve, void *arg);

/* The address that was bound, with the port that the kernel chose when it was 0. */
SHOAL_API const struct shoal_address *
shoal_listening_address(const struct shoal_listening *listening);

/*
 * Accepts what waits in the kernel's queues, closes the sockets, and frees `listening`. Connections
 * go on. On a fiber of core 0; yields.
 */
SHOAL_API void shoal_listening_stop(struct shoal_listening *listening);

SHOAL_END_DECLS

#endif
