/*
 * A broadcast: each subscriber of a core receives each message that is published after it
 * subscribed, in order. Messages are of one size and copied.
 *
 * 1. The last `capacity` messages are kept. What a publisher does when a subscriber has not
 *    received the oldest of them yet is chosen at the init:
 *      SHOAL_BROADCAST_WAIT   it waits: no message is lost, and the slowest sets the pace
 *      SHOAL_BROADCAST_LOSE   it goes on: the slow subscriber loses its oldest message, counted
 * 2. Without subscribers a message is published to nobody.
 * 3. Once it is closed, publishing fails; subscribers receive what is left for them, and then fail.
 *
 * Messages are copied to several receivers and may be lost, so that they cannot own anything.
 */
#ifndef SHOAL_RUNTIME_BROADCAST_H
#define SHOAL_RUNTIME_BROADCAST_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

enum shoal_broadcast_policy { SHOAL_BROADCAST_WAIT, SHOAL_BROADCAST_LOSE };

struct shoal_broadcast_options {
    uint32_t item_bytes; /* of a message, at least 1 */
    uint32_t capacity;   /* messages that are kept, at least 1 */
    enum shoal_broadcast_policy policy;
};

struct shoal_broadcast {
    struct shoal_wait_queue publishers; /* private, as is the rest */
    struct shoal_list subscribers;
    unsigned char *ring;
    uint64_t tail; /* number of the next message */
    uint32_t item_bytes;
    uint32_t capacity;
    enum shoal_broadcast_policy policy;
    bool closed;
};

struct shoal_subscriber {
    struct shoal_wait_queue queue; /* private, as is the rest */
    struct shoal_list node;
    struct shoal_broadcast *broadcast;
    uint64_t next; /* number of the next message to receive */
    uint64_t lost;
};

/* Allocates the room for `capacity` messages. 0; -EINVAL for a 0 in the options; -ENOMEM. */
SHOAL_API int shoal_broadcast_init(struct shoal_broadcast *broadcast,
                                   const struct shoal_broadcast_options *options);

/* Nobody may be subscribed or wait. */
SHOAL_API void shoal_broadcast_deinit(struct shoal_broadcast *broadcast);

/* From now on; `subscriber` is the caller's and receives on the same core. Does not yield. */
SHOAL_API void shoal_broadcast_subscribe(struct shoal_broadcast *broadcast,
                                         struct shoal_subscriber *subscriber);

/* Nobody may wait at `subscriber`. What it has not received is nothing to anybody. */
SHOAL_API void shoal_broadcast_unsubscribe(struct shoal_subscriber *subscriber);

/*
 * Publishes a copy of `*item`. 0; SHOAL_ECLOSED; by SHOAL_BROADCAST_WAIT -ETIMEDOUT, or the code of
 * the fiber's cancel, not published. On a fiber; yields if it has to wait. See wait_queue.h.
 */
SHOAL_API int shoal_broadcast_publish(struct shoal_broadcast *broadcast, const void *item,
                                      uint64_t timeout_ns);

/* Publishes if that needs no wait: 0, -EAGAIN, SHOAL_ECLOSED. Does not yield. */
SHOAL_API int shoal_broadcast_try_publish(struct shoal_broadcast *broadcast, const void *item);

/*
 * Publishes a copy of `*item`, made now; resolves once that is done. SHOAL_ECLOSED, -ETIMEDOUT,
 * -ECANCELED, -ENOMEM: not published. A discarded one publishes all the same.
 */
SHOAL_API struct shoal_future *shoal_broadcast_publish_future(struct shoal_broadcast *broadcast,
                                                              const void *item,
                                                              uint64_t timeout_ns);

/*
 * Waits for this subscriber's next message and copies it to `*item`. 0; SHOAL_ECLOSED when it is
 * closed and all was received; -ETIMEDOUT, or the code of the fiber's cancel. On a fiber; yields if
 * it has to wait. Of several that wait at one subscriber each gets another message.
 */
SHOAL_API int shoal_subscriber_receive(struct shoal_subscriber *subscriber, void *item,
                                       uint64_t timeout_ns);

/* Receives if there is a message: 0, -EAGAIN, SHOAL_ECLOSED. Does not yield. */
SHOAL_API int shoal_subscriber_try_receive(struct shoal_subscriber *subscriber, void *item);

/*
 * Resolves, with a value that means nothing, once shoal_subscriber_try_receive() has something to
 * say other than -EAGAIN; it takes no message. -ETIMEDOUT, -ECANCELED, -ENOMEM.
 */
SHOAL_API struct shoal_future *shoal_subscriber_ready_future(struct shoal_subscriber *subscriber,
                                                             uint64_t timeout_ns);

/* How many messages this subscriber has lost so far. */
SHOAL_API uint64_t shoal_subscriber_lost(const struct shoal_subscriber *subscriber);

/* Closes it: publishers in line fail with SHOAL_ECLOSED, and so do subscribers. Does not yield. */
SHOAL_API void shoal_broadcast_close(struct shoal_broadcast *broadcast);

SHOAL_API bool shoal_broadcast_closed(const struct shoal_broadcast *broadcast);

SHOAL_END_DECLS

#endif
