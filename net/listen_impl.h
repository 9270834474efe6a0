/*
 * Listening inside: one listener a core, for streams (listen.h) and for protocols that take the
 * bare descriptor.
 */
#ifndef SHOAL_NET_LISTEN_IMPL_H
#define SHOAL_NET_LISTEN_IMPL_H

#include "shoal/runtime/core_impl.h"

#include "shoal/net/listen.h"

struct shoal_listener {
    struct shoal_io_fd fd;
    struct shoal_io_op accept;
    struct shoal_timer retry;
    struct shoal_listening *listening;
    struct shoal_fiber *stopper; /* waits for the accept operation to end */
    uint64_t last_warning_ns;
    uint32_t open; /* connections that were accepted here and have not been reported closed */
    uint32_t open_max;
    bool paused; /* at the limit */
    bool closing;
};

/* Takes over a new connection's descriptor, on the core that accepted it. May not yield. */
typedef void shoal_accepted_fn(struct shoal_listener *listener, int fd, void *arg);

/*
 * As shoal_listen(), with descriptors in place of streams. Each core accepts while fewer than
 * `open_max` of its connections are open; the others wait in the kernel's queue.
 */
int shoal_listen_raw(struct shoal_listening **out, const struct shoal_address *address,
                     uint32_t open_max, shoal_accepted_fn *accepted, void *arg);

/*
 * A connection of this core has closed: there is room for another, and what failed for want of
 * descriptors may work now.
 */
void shoal_listener_closed(struct shoal_listener *listener);

#endif
