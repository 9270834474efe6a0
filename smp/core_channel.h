/*
 * Channels between cores: values of one size go from senders on any cores to the one core that made
 * the channel, its home, and are copied in and out.
 *
 *   core 1                                         core 0, the home
 *   shoal_core_sender_new(&sender, channel);       shoal_core_channel_new(&channel, &options);
 *   shoal_core_channel_send(sender, &job, FOREVER)
 *                                                  shoal_core_channel_receive(channel, &job, ...)
 *   shoal_core_sender_free(sender);                shoal_core_channel_free(channel);
 *
 * 1. Each sender end has a credit: so many values may be on their way from it, or wait for somebody
 *    to receive them. Without credit a fiber waits, in order, and shoal_core_channel_try_send()
 *    says -EAGAIN. A value that is received gives its credit back.
 * 2. The values of one end are received once each, in the order of the sends. Ends take turns.
 * 3. Any number of fibers of its core may use an end, and any number of the home the channel; they
 *    are served first come, first served.
 * 4. A send that returned 0 is not lost: its value is received, or handed to `drop` on the home. A
 *    send that failed has sent nothing.
 * 5. A value allocates nothing, and a lone one is never held back for company. Those that come in
 *    while the other core is busy are taken together, and so are the credits on their way back.
 * 6. When the program stops, ends that are still open are freed with it, by the cores that made
 *    them, and what is left in them goes to `drop`.
 *
 * What a value points to belongs to the core that made it: see foreign_ptr.h for a way home.
 */
#ifndef SHOAL_SMP_CORE_CHANNEL_H
#define SHOAL_SMP_CORE_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/future.h"
#include "shoal/runtime/select.h"

SHOAL_BEGIN_DECLS

#define SHOAL_CORE_CHANNEL_CREDIT_MAX     65536
#define SHOAL_CORE_CHANNEL_ITEM_BYTES_MAX 65536

struct shoal_core_channel; /* the home's end */
struct shoal_core_sender;  /* an end of another core, or of the home */

struct shoal_core_channel_options {
    uint32_t item_bytes;      /* of a value, 1 to SHOAL_CORE_CHANNEL_ITEM_BYTES_MAX */
    uint32_t credit;          /* of each sender end, 1 to SHOAL_CORE_CHANNEL_CREDIT_MAX */
    uint32_t senders;         /* the channel closes once so many ends have been closed; 0: only by
                                 shoal_core_channel_close() */
    void (*drop)(void *item); /* frees, on the home, what a value owns that nobody receives; must
                                 not yield; may be NULL */
};

/* ---- The home ---- */

/*
 * Makes a channel whose home is the calling core. 0; -EINVAL when one of `options` is out of its
 * range; -ENOMEM. Core threads only; does not yield.
 */
SHOAL_API int shoal_core_channel_new(struct shoal_core_channel **out,
                                     const struct shoal_core_channel_options *options);

/*
 * Closes the channel and gives it up: nobody may wait for it, hold a future with a value that is
 * not taken, or be about to make a sender end. Values that are left, and those that are still sent,
 * go to `drop`; the memory goes once every sender end has learned of it. NULL is fine. On the home;
 * does not yield.
 */
SHOAL_API void shoal_core_channel_free(struct shoal_core_channel *channel);

/*
 * Closes it: sends fail with SHOAL_ECLOSED as soon as their core has learned of it. Receives go on
 * until nothing is left that was sent before, and then fail. On the home; does not yield.
 */
SHOAL_API void shoal_core_channel_close(struct shoal_core_channel *channel);

/* Whether it is closed, though values may be left. On the home. */
SHOAL_API bool shoal_core_channel_closed(const struct shoal_core_channel *channel);

/* How many values could be received at once. O(sender ends). On the home. */
SHOAL_API uint64_t shoal_core_channel_length(const struct shoal_core_channel *channel);

/*
 * Waits for a value and moves it to `*item`. 0; SHOAL_ECLOSED when it is closed, every sender end
 * has learned of it, and nothing is left; -ETIMEDOUT after `timeout_ns` (0: at once,
 * SHOAL_NS_FOREVER: never); the code of the fiber's cancel. On a fiber of the home; yields if it
 * has to wait.
 */
SHOAL_API int shoal_core_channel_receive(struct shoal_core_channel *channel, void *item,
                                         uint64_t timeout_ns);

/* Receives if there is a value: 0, -EAGAIN, SHOAL_ECLOSED. On the home; does not yield. */
SHOAL_API int shoal_core_channel_try_receive(struct shoal_core_channel *channel, void *item);

/*
 * A future that resolves once a value is the consumer's, who moves it out by
 * shoal_core_channel_take(), once. SHOAL_ECLOSED, -ETIMEDOUT, -ECANCELED, -ENOMEM. Discarding it,
 * and awaiting it with NULL for the value, leave the value in the channel, before all that its end
 * has sent after it. On the home; does not yield.
 */
SHOAL_API struct shoal_future *shoal_core_channel_receive_future(struct shoal_core_channel *channel,
                                                                 uint64_t timeout_ns);

/* Moves what `value` of a receive's future stands for to `*item`. On the home; does not yield. */
SHOAL_API void shoal_core_channel_take(const union shoal_value *value, void *item);

/* ---- Sender ends ---- */

/*
 * Makes an end of `channel` for the calling core, which may be the home too. The channel, of which
 * this core has been told by a message, must not be freed before the call has returned. 0;
 * SHOAL_ECLOSED; -ENOMEM; and as shoal_submit_to(). On a fiber; yields.
 */
SHOAL_API int shoal_core_sender_new(struct shoal_core_sender **out,
                                    struct shoal_core_channel *channel);

/*
 * Closes the end and gives it up: nobody may wait for it. What it has sent is still received. Needs
 * neither the channel to be there nor memory, and cannot fail. NULL is fine. On the end's core;
 * does not yield.
 */
SHOAL_API void shoal_core_sender_free(struct shoal_core_sender *sender);

/* Closes the end: who waits for credit fails with SHOAL_ECLOSED. On its core; does not yield. */
SHOAL_API void shoal_core_sender_close(struct shoal_core_sender *sender);

/* Whether the end is closed, from either side. On its core. */
SHOAL_API bool shoal_core_sender_closed(const struct shoal_core_sender *sender);

/* How many values can be sent without waiting. On its core. */
SHOAL_API uint32_t shoal_core_sender_credit(const struct shoal_core_sender *sender);

/*
 * Sends a copy of `*item`, waiting for credit. 0; SHOAL_ECLOSED; -ETIMEDOUT after `timeout_ns` (0:
 * at once), or the code of the fiber's cancel: not sent. On a fiber of the end's core; yields if it
 * has to wait.
 */
SHOAL_API int shoal_core_channel_send(struct shoal_core_sender *sender, const void *item,
                                      uint64_t timeout_ns);

/* Sends if there is credit: 0, -EAGAIN, SHOAL_ECLOSED. On the end's core; does not yield. */
SHOAL_API int shoal_core_channel_try_send(struct shoal_core_sender *sender, const void *item);

/*
 * Sends a copy of `*item`, made now. The future resolves, with a value that means nothing, once it
 * is sent. SHOAL_ECLOSED, -ETIMEDOUT, -ECANCELED, -ENOMEM: not sent. A discarded one sends all the
 * same. On the end's core; does not yield.
 */
SHOAL_API struct shoal_future *shoal_core_channel_send_future(struct shoal_core_sender *sender,
                                                              const void *item,
                                                              uint64_t timeout_ns);

/* ---- Cases of a select (shoal/runtime/select.h) ---- */

/* A value received to `*item`, or SHOAL_ECLOSED; one sent from `*item`, or SHOAL_ECLOSED. */
SHOAL_API struct shoal_select_case shoal_select_core_receive(struct shoal_core_channel *channel,
                                                             void *item);
SHOAL_API struct shoal_select_case shoal_select_core_send(struct shoal_core_sender *sender,
                                                          const void *item);

SHOAL_END_DECLS

#endif
