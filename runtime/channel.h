/*
 * A bounded channel: messages of one size, copied in and out, from any number of senders to any
 * number of receivers on one core. Each message is received once, in the order of the sends.
 *
 *   struct shoal_channel_options options = {.item_bytes = sizeof(struct job), .capacity = 16};
 *   int rc = shoal_channel_init(&jobs, &options);
 *   ...
 *   while ((rc = shoal_channel_receive(&jobs, &job, SHOAL_NS_FOREVER)) == 0)
 *       work(&job);                                    // ends with SHOAL_ECLOSED
 *
 * 1. When `capacity` messages wait, senders do; a capacity of 0 hands over from sender to receiver.
 * 2. Senders and receivers are served first come, first served.
 * 3. Once it is closed, sends fail; receives go on until nothing is left, and then fail.
 * 4. A send that fails has sent nothing. A message that was given to a receiver stays with it; one
 *    that was given to a future that nobody consumes goes back to its place, before all that were
 *    sent after it.
 */
#ifndef SHOAL_RUNTIME_CHANNEL_H
#define SHOAL_RUNTIME_CHANNEL_H

#include "shoal/runtime/future.h"
#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_channel_options {
    uint32_t item_bytes;      /* of a message, at least 1: a pointer, or a struct that is copied */
    uint32_t capacity;        /* messages that wait without anybody to receive them; may be 0 */
    void (*drop)(void *item); /* frees what a message owns that is left at the end; may be NULL */
};

struct shoal_channel {
    struct shoal_wait_queue senders; /* private, as is the rest */
    struct shoal_wait_queue receivers;
    struct shoal_list handed;   /* waiters with a message, whose futures have it to be taken */
    struct shoal_list returned; /* waiters with a message that was not taken, oldest first */
    unsigned char *ring;
    void (*drop)(void *item);
    uint64_t head; /* number of the next message to be received */
    uint64_t tail; /* number of the next message to be sent */
    uint32_t item_bytes;
    uint32_t capacity;
    uint32_t slot; /* of `head` in the ring */
    uint32_t returned_count;
    bool closed;
};

/* Allocates the room for `capacity` messages. 0; -EINVAL for items of 0 bytes; -ENOMEM. */
SHOAL_API int shoal_channel_init(struct shoal_channel *channel,
                                 const struct shoal_channel_options *options);

/*
 * Nobody may wait, nor hold a future with a message that is not taken. Messages that are left go
 * to `drop`.
 */
SHOAL_API void shoal_channel_deinit(struct shoal_channel *channel);

/*
 * Sends a copy of `*item`, waiting for room. 0; SHOAL_ECLOSED; -ETIMEDOUT, or the code of the
 * fiber's cancel, not sent. On a fiber; yields if it has to wait. See wait_queue.h.
 */
SHOAL_API int shoal_channel_send(struct shoal_channel *channel, const void *item,
                                 uint64_t timeout_ns);

/* Sends if there is room: 0, -EAGAIN, SHOAL_ECLOSED. Does not yield. */
SHOAL_API int shoal_channel_try_send(struct shoal_channel *channel, const void *item);

/*
 * Sends a copy of `*item`, made now. The future resolves, with a value that means nothing, once it
 * is in the channel. SHOAL_ECLOSED, -ETIMEDOUT, -ECANCELED, -ENOMEM: not sent. A discarded one
 * sends all the same.
 */
SHOAL_API struct shoal_future *shoal_channel_send_future(struct shoal_channel *channel,
                                                         const void *item, uint64_t timeout_ns);

/*
 * Waits for a message and moves it to `*item`. 0; SHOAL_ECLOSED when it is closed and empty;
 * -ETIMEDOUT, or the code of the fiber's cancel. On a fiber; yields if it has to wait.
 */
SHOAL_API int shoal_channel_receive(struct shoal_channel *channel, void *item, uint64_t timeout_ns);

/* Receives if there is a message: 0, -EAGAIN, SHOAL_ECLOSED. Does not yield. */
SHOAL_API int shoal_channel_try_receive(struct shoal_channel *channel, void *item);

/*
 * A future that resolves once a message is the consumer's, who moves it out of the value by
 * shoal_channel_take(), once. SHOAL_ECLOSED, -ETIMEDOUT, -ECANCELED, -ENOMEM. Discarding it, and
 * awaiting it with NULL for the value, leave the message in the channel.
 */
SHOAL_API struct shoal_future *shoal_channel_receive_future(struct shoal_channel *channel,
                                                            uint64_t timeout_ns);

/* Moves the message that `value` of a receive's future stands for to `*item`. Does not yield. */
SHOAL_API void shoal_channel_take(const union shoal_value *value, void *item);

/* Closes it: senders in line fail with SHOAL_ECLOSED, and so do receivers. Does not yield. */
SHOAL_API void shoal_channel_close(struct shoal_channel *channel);

SHOAL_API bool shoal_channel_closed(const struct shoal_channel *channel);

/* How many messages could be received at once. */
SHOAL_API uint64_t shoal_channel_length(const struct shoal_channel *channel);

SHOAL_END_DECLS

#endif
