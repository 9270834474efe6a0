/*
 * Channels between cores, inside. For each sender end the home has an inlet, a ring of its own:
 *
 *   sender's core                                            home
 *   struct shoal_core_sender                                 struct shoal_core_inlet
 *     writes items[], then `tail`        ---------------->     reads `tail`, then items[]
 *     reads `head` when out of credit    <----------------     writes `head`, some values at a time
 *     bell (a foreign task of the inlet) ---------------->     takes the inlet up again
 *            goes on with who waits      <----------------     credit_bell (one of the sender)
 *
 * 1. `tail` and `head` count values sent and received; each is written by one core alone. The items
 *    between them belong to the home, the others to the sender.
 * 2. Each of the two has a word in which its reader says whether it looks at it by itself, as
 *    rings of messages have (ring_impl.h, 3 and 4). Who publishes for a reader that does not look
 *    sets that bit for it and rings: a bell is an embedded task, posted to the reader's core, so
 *    it needs no memory and cannot fail. The bit is taken back only by the reader, and only once
 *    the bell has run: a bell is never in two queues.
 * 3. The home looks at an inlet by itself while it is `active`: with each look at messages as long
 *    as somebody waits for the channel. It ceases to after EMPTY_LOOKS looks that found nothing,
 *    and before the core sleeps. A channel that nobody waits for is not looked at.
 * 4. A sender looks at `head` with each look at messages while somebody waits for credit, and has a
 *    bell rung before its core sleeps.
 * 5. Received values are given back, and what was published to a reader that seems to look is
 *    verified, with the core's next look at messages: once for all of them.
 * 6. A sender says goodbye by `farewell`, a task posted to the home after all its bells; after it
 *    the sender touches the inlet no more. The home posts it back, after all bells of its own;
 *    after that the home touches the sender no more. So each side frees its own memory, in any
 *    order of events, with nobody waiting. A home that closes only asks for that goodbye
 *    (`please_close`).
 * 7. When the loops of all cores have ended, each core drops what its channels hold, and then frees
 *    what it made itself: no goodbye has to arrive for that.
 *
 * Rejected, by measure: a message of submit.h for each value (several times the processor time of a
 * value in a stream: an answer for each, which nobody wants; and the in-flight bound of everything
 * else); one word for `tail` and the bit, so that each send is an atomic read-modify-write (a fifth
 * more for a value in a stream, and the sender waits for the line).
 */
#ifndef SHOAL_SMP_CORE_CHANNEL_IMPL_H
#define SHOAL_SMP_CORE_CHANNEL_IMPL_H

#include <stdatomic.h>
#include <string.h>

#include "shoal/runtime/list.h"
#include "shoal/runtime/sync_impl.h"
#include "shoal/runtime/task.h"

#include "shoal/smp/core_channel.h"
#include "shoal/smp/ring_impl.h"

struct shoal_core_inlet {
    /* Of the home. */
    struct shoal_list node;   /* of the channel's inlets */
    struct shoal_list active; /* of those that are looked at */
    struct shoal_list owing;  /* of the core's, with values to give back or to verify */
    struct shoal_core_channel *channel;
    struct shoal_core_sender *sender; /* NULL: it has said goodbye */
    unsigned char *items;
    uint32_t received;
    uint32_t returned; /* what `head` says */
    uint32_t tail_seen;
    uint32_t slot; /* of the next value */
    uint32_t taken_in_turn;
    uint32_t empty_looks;
    size_t bytes; /* of this allocation */
    uint16_t from;

    /* Shared. The lines are apart, by who writes them. */
    _Atomic uint32_t tail __attribute__((aligned(SHOAL_CACHE_LINE)));
    _Atomic uint32_t tail_watched __attribute__((aligned(SHOAL_CACHE_LINE)));
    struct shoal_task bell;
    _Atomic uint32_t head __attribute__((aligned(SHOAL_CACHE_LINE)));
    _Atomic uint32_t head_watched __attribute__((aligned(SHOAL_CACHE_LINE)));
};

struct shoal_core_sender {
    /* Of the sender's core. */
    struct shoal_wait_queue line; /* who waits for credit */
    struct shoal_list node;       /* of the core's senders */
    struct shoal_list hungry;     /* of those for which somebody waits */
    struct shoal_list unverified; /* of those that have sent since the last look */
    struct shoal_core_inlet *inlet;
    unsigned char *items;
    uint32_t sent;
    uint32_t head_seen;
    uint32_t slot;
    uint32_t credit;
    uint32_t item_bytes;
    uint16_t home;
    bool closed;
    bool freed;
    bool parted; /* the home has answered the goodbye */
    bool asked;  /* for a bell; it may be on its way */

    /* Posted between the cores. */
    struct shoal_task credit_bell __attribute__((aligned(SHOAL_CACHE_LINE)));
    struct shoal_task please_close;
    struct shoal_task farewell;
};

struct shoal_core_channel {
    struct shoal_wait_queue receivers;
    struct shoal_list handed;   /* waiters with a value, whose futures have it to be taken */
    struct shoal_list returned; /* waiters with a value that was not taken, oldest first */
    struct shoal_list inlets;
    struct shoal_list active;
    struct shoal_list node;   /* of the core's channels */
    struct shoal_list hungry; /* of those for which somebody waits */
    void (*drop)(void *item);
    uint64_t received; /* number of the next value to be received */
    uint32_t returned_count;
    uint32_t item_bytes;
    uint32_t credit;
    uint32_t batch;        /* credits that go back at once, without waiting for the next look */
    uint32_t senders;      /* that have not said goodbye */
    uint32_t senders_left; /* until it closes by itself; 0: it does not */
    bool closed;
    bool freed;
};

/* What a core has of channels; made with the first end on it. */
struct shoal_core_channels {
    struct shoal_poller poller;
    struct shoal_list channels;
    struct shoal_list senders;
    struct shoal_list hungry_channels;
    struct shoal_list hungry_senders;
    struct shoal_list owing;
    struct shoal_list unverified;
    bool over; /* what is left has been dropped */
};

static inline struct shoal_core_channels *shoal_core_channels_self(void)
{
    return (struct shoal_core_channels *)shoal_core_self->layers[SHOAL_LAYER_CORE_CHANNEL];
}

/* core_channels.c: the same, made if need be; NULL when out of memory. */
struct shoal_core_channels *shoal_core_channels_get(void);

/*
 * Drops what the channels of the calling core hold and ends who waits, with -ECANCELED. For the end
 * of the program: once the loops of all cores have ended, before any core is torn down.
 */
void shoal_core_channels_quit(struct shoal_core *core);

/* Queues `task` on core `to`. The order of one core is kept. */
void shoal_core_channel_post(unsigned to, struct shoal_task *task);

/* core_channel.c: the home's part of the core's looks. */
bool shoal_core_channel_look(struct shoal_core_channel *channel);  /* whether it handed out */
bool shoal_core_channel_cease(struct shoal_core_channel *channel); /* whether it has something */
void shoal_core_inlet_settle(struct shoal_core_inlet *inlet);
void shoal_core_channel_quit(struct shoal_core_channel *channel);
void shoal_core_channel_destroy(struct shoal_core_channel *channel);

/* core_sender.c: the sender's part. */
bool shoal_core_sender_look(struct shoal_core_sender *sender);
bool shoal_core_sender_ask(struct shoal_core_sender *sender); /* whether it has credit by now */
void shoal_core_sender_verify(struct shoal_core_sender *sender);
void shoal_core_sender_quit(struct shoal_core_sender *sender);
void shoal_core_sender_destroy(struct shoal_core_sender *sender);

/*
 * core_channel.c, on the home, while the sender's fiber waits: a new inlet, which `sender` is told
 * of. From here on the home may ask it to close, even before that fiber runs.
 */
int shoal_core_inlet_new(struct shoal_core_channel *channel, struct shoal_core_sender *sender);

/* Run on the home: something has come; and: the sender says goodbye. */
void shoal_core_inlet_bell(struct shoal_task *task);
void shoal_core_inlet_farewell(struct shoal_task *task);

/* Runs on the sender's core: the home has ceased to know of it; and: the home wants it to close. */
void shoal_core_sender_part(struct shoal_task *task);
void shoal_core_sender_please_close(struct shoal_task *task);

/* Runs on the sender's core: there is credit. */
void shoal_core_sender_bell(struct shoal_task *task);

/* An item to or from its place in a ring. */
static inline void shoal_core_item_copy(void *to, const void *from, uint32_t bytes)
{
    if (bytes == sizeof(uint64_t))
        memcpy(to, from, sizeof(uint64_t));
    else
        memcpy(to, from, bytes);
}

#endif
