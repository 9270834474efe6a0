/*
 * Mailboxes: for each ordered pair of cores (from, to) a ring of requests and a ring of answers.
 *
 *   from                                                   to
 *   outbox --writes--> requests[256], one line each  --reads--> inbox
 *          <--reads--  answers[256],  one line each  <--writes--
 *
 * 1. A slot carries everything inline and its own sequence number: a handoff moves one line.
 *    Indices run freely, are masked, and are private to their side.
 * 2. A request takes a credit, which its answer gives back: at most 256 are in flight, so there is
 *    always room for an answer, and a slot that is written again has been read (a request that is
 *    not yet read is in flight, and so are all those behind it).
 * 3. Memory is freed by the core that made it. A failure's text belongs to the answering core: it
 *    stays with the slot until that slot is written again; the asking core copies it.
 * 4. Who has put something into a ring sets its bit in the other core's `dirty` word by an atomic
 *    RMW and then wakes that core. The receiver exchanges the word, then reads the rings. The RMW
 *    orders the publishing before the look at `asleep` (see runtime/core.c), so nothing is lost.
 *
 * The pair's memory is made by `from` at the first submit and found by `to` through its dirty bit.
 */
#ifndef SHOAL_SMP_MAILBOX_IMPL_H
#define SHOAL_SMP_MAILBOX_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/submit.h"

#define SHOAL_RING_SLOTS SHOAL_SUBMIT_IN_FLIGHT_MAX

enum shoal_request_kind {
    SHOAL_REQUEST_PLAIN,
    SHOAL_REQUEST_COPY,
    SHOAL_REQUEST_FIBER,
    SHOAL_REQUEST_FUTURE,
};

/* A function to run and its argument, as they travel. */
struct shoal_call {
    union {
        shoal_submit_fn *plain;
        shoal_submit_future_fn *future;
    } fn;
    union {
        void *arg;
        unsigned char copy[SHOAL_SUBMIT_COPY_MAX];
    };
};

struct shoal_request_slot {
    _Atomic uint32_t sequence;
    uint16_t id;
    uint8_t kind;
    uint8_t unused;
    struct shoal_call call;
    uint64_t unused_tail;
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_request_slot) == SHOAL_CACHE_LINE, "one line a request");

struct shoal_answer_slot {
    _Atomic uint32_t sequence;
    int32_t code;
    uint16_t id;
    uint16_t unused[3];
    const char *text;
    union shoal_value value;
    uint64_t unused_tail[2];
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_answer_slot) == SHOAL_CACHE_LINE, "one line an answer");

/* The memory that two cores share, one pair and direction. */
struct shoal_channel {
    struct shoal_request_slot requests[SHOAL_RING_SLOTS];
    struct shoal_answer_slot answers[SHOAL_RING_SLOTS];
};

/* The asking side's private part. */
struct shoal_outbox {
    struct shoal_channel *channel;
    uint32_t next_request;
    uint32_t next_answer;
    uint32_t credits;
    uint16_t free_ids[SHOAL_RING_SLOTS];
    struct shoal_future *waiting[SHOAL_RING_SLOTS]; /* by id */
    struct shoal_list credit_waiters;
};

/* The answering side's private part. */
struct shoal_inbox {
    struct shoal_task task; /* runs requests, some at a time */
    bool queued;
    struct shoal_mail *mail;
    unsigned from;
    struct shoal_channel *channel;
    uint32_t next_request;
    uint32_t next_answer;
    char *texts[SHOAL_RING_SLOTS]; /* of the answers in the slots */
};

/* One core's mail. */
struct shoal_mail {
    struct shoal_core *core;
    struct shoal_fleet *fleet;
    struct shoal_poller poller;
    struct shoal_outbox **outboxes; /* by target; made when first used */
    struct shoal_inbox **inboxes;   /* by sender */
    struct shoal_slab calls;        /* requests that run on a fiber or end by a future */
    uint32_t in_flight;             /* submits of this core that have no answer yet */
    uint64_t received;              /* requests run; for the stop's rounds */
    bool closed;
    _Atomic uint64_t *dirty; /* written by the other cores; a bit a core */
};

/* What all cores share; read-only after the start but for the channel pointers. */
struct shoal_fleet {
    unsigned cores;
    struct shoal_core **core;
    struct shoal_mail **mail;
    _Atomic(struct shoal_channel *) *channels; /* [from * cores + to] */
};

/* 0, or -ENOMEM, and then there is nothing to deinit. */
int shoal_mail_init(struct shoal_mail *mail, struct shoal_core *core, struct shoal_fleet *fleet);

/* Once no core sends any more: first the answering side's texts, then the rings. */
void shoal_mail_deinit(struct shoal_mail *mail);

static inline struct shoal_mail *shoal_mail_self(void)
{
    return (struct shoal_mail *)shoal_core_self->layers[SHOAL_LAYER_SMP];
}

#endif
