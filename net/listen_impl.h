/*
 * Listening inside: one listener a core, for streams (listen.h) and for protocols that take the
 * bare descriptor; and the handing over of an accepted connection to another core's listener.
 *
 *   accept_shot -> (--accept-balance balanced: hand_over? --message--> take_here on that core)
 *               -> listening->accepted()      <--answer-- settled: refused? then served here
 *
 * 1. A connection that is handed over keeps its place under `open_max` here until the answer has
 *    come: a refused one is served here, as if it had never left.
 * 2. The target counts it from the moment it takes it, under its own `open_max`.
 * 3. A listener ends only when all that it has handed over is answered, and `listening` only after
 *    all listeners: a message never meets memory that is gone.
 */
#ifndef SHOAL_NET_LISTEN_IMPL_H
#define SHOAL_NET_LISTEN_IMPL_H

#include "shoal/runtime/core_impl.h"

#include "shoal/net/balance_impl.h"
#include "shoal/net/listen.h"

#define SHOAL_LISTEN_UNLIMITED    UINT32_MAX
#define SHOAL_LISTEN_CAREFUL_ROOM 256u /* so near the limit accepts are made one at a time */
#define SHOAL_LISTEN_HANDING_MAX  64u  /* connections of one listener on their way to others */

struct shoal_listener {
    struct shoal_io_fd fd;
    struct shoal_io_op accept;
    struct shoal_timer retry;
    struct shoal_listening *listening;
    struct shoal_balancer *balancer; /* NULL: who accepts serves */
    struct shoal_fiber *stopper;     /* waits for the accept operation and the handed over to end */
    uint64_t last_warning_ns;
    uint32_t open; /* connections that were accepted here and have not been reported closed */
    uint32_t open_max;
    uint32_t handing; /* connections that were handed over, without an answer yet */
    bool paused;      /* at the limit */
    bool closing;
};

/*
 * Takes over a new connection's descriptor, on the core that is to serve it. 0; or a negative code,
 * and `fd` is still the caller's. May not yield. Counts the connection in shoal_net_self()->load,
 * from now until it closes.
 */
typedef int shoal_accepted_fn(struct shoal_listener *listener, int fd, void *arg);

struct shoal_listening {
    struct shoal_address address;
    unsigned cores;
    bool bound; /* the address is ours: a Unix socket's file is ours to remove */
    shoal_accepted_fn *accepted;
    shoal_connection_fn *serve; /* of streams */
    uint32_t open_max;          /* a core */
    void *arg;
    int *fds;                            /* by core, until the core has taken its own */
    struct shoal_listener **listeners;   /* by core; each belongs to its core */
    _Atomic(struct shoal_load *) *loads; /* by core, while it listens; NULL: nothing is balanced */
};

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

/* One more is open here, or was not to be had after all. */
void shoal_listener_take_room(struct shoal_listener *listener);
void shoal_listener_give_room(struct shoal_listener *listener);

/* Serves `fd`, which has its room, on this core; closes it where that cannot be. */
void shoal_listener_serve(struct shoal_listener *listener, int fd);

/* listen_handover.c: whether `fd`, which has its room, is on its way to another core. */
bool shoal_listener_hand_over(struct shoal_listener *listener, int fd);

/*
 * Serves `fd` as a stream, on a fiber of its own. 0; or a negative code, and `fd` is still the
 * caller's.
 */
int shoal_connection_start(int fd, shoal_connection_fn *serve, void *arg);

#endif
