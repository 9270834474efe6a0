/*
 * One core's mail: its ends of the rings that it shares with other cores (ring_impl.h).
 *
 *   submit.c    asks: puts requests into outboxes, hands answers over to futures
 *   serve.c     answers: runs the requests of inboxes
 *   mailbox.c   looks at rings that are watched and at dirty bits; announces; life
 *
 * 1. Rings that were active just now are watched: looked at directly, each time. The others
 *    announce themselves in the dirty bitmap of the core, one bit for each other core. What a look
 *    costs depends on who is active, not on how many cores there are.
 * 2. Who announces sets its bit by a read-modify-write and then looks whether the core sleeps; the
 *    core says that it sleeps and then looks at the bitmap: of the two, at least one sees the other
 *    (see also runtime/core.c). No ring is watched by a core that sleeps.
 * 3. Plain requests run inside the look, which is made by the loop and not by a task: at most a
 *    burst for each ring, so that tasks, timers and I/O get their turn.
 * 4. Memory is freed by the core that made it: a channel by the core that asks, the text of a
 *    failure by the one that answers.
 */
#ifndef SHOAL_SMP_MAILBOX_IMPL_H
#define SHOAL_SMP_MAILBOX_IMPL_H

#include <string.h>

#include <pthread.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/owner_impl.h"

#include "shoal/smp/ring_impl.h"
#include "shoal/smp/service_group.h"

struct shoal_mail;

/* The reading side of a ring. */
struct shoal_ring_reader {
    struct shoal_list node; /* of the core's watched rings; of none while it is not */
    _Atomic uint32_t *watched;
    uint32_t empty_looks; /* in a row */
};

/* The writing side of a ring. */
struct shoal_ring_writer {
    struct shoal_ring_writer *next; /* of the core's unverified rings */
    _Atomic uint32_t *watched;
    void (*flush)(struct shoal_ring_writer *writer); /* writes what is staged into the ring */
    uint16_t to;
    bool unverified;
    uint32_t staged; /* how many slots wait to be written */
};

/* Slots that are staged at most; see submit.c. */
#define SHOAL_STAGED_MAX 16

/* What is done with the argument of a request that has ended. */
struct shoal_arg_free {
    void (*fn)(void *arg);
    void *arg;
};

/* The asking side's private part of a channel. Its first cache line is all that a look needs. */
struct shoal_outbox {
    struct shoal_ring_reader reader;
    const struct shoal_answer_slot *answers;
    struct shoal_request_slot *requests;
    uint32_t mask;
    uint32_t next_answer;
    uint32_t next_request;
    uint32_t credits;
    struct shoal_ring_writer writer;
    uint32_t credits_max;
    uintptr_t cancel_key; /* what leads from a future's cancel hook to here; the id is added */
    struct shoal_list credit_waiters;
    struct shoal_mail_channel *channel;
    struct shoal_arg_free *arg_frees; /* by id; made when first used */
    struct shoal_future **waiting;    /* by id */
    uint16_t *free_ids;
    struct shoal_request_slot staged[SHOAL_STAGED_MAX];
};
SHOAL_STATIC_ASSERT(offsetof(struct shoal_outbox, writer) == SHOAL_CACHE_LINE, "the first line");

struct shoal_long_call;

/* The answering side's private part, likewise. */
struct shoal_inbox {
    struct shoal_ring_reader reader;
    const struct shoal_request_slot *requests;
    struct shoal_answer_slot *answers;
    uint32_t mask;
    uint32_t next_request;
    uint32_t next_answer;
    uint32_t texts_kept; /* how many of `texts` are not NULL */
    struct shoal_ring_writer writer;
    struct shoal_mail *mail;
    _Atomic uint64_t *cancels;
    char **texts;                   /* of the answers in the slots */
    struct shoal_long_call **calls; /* by id: requests that have outlived their slot */
    uint64_t *cancelled;            /* by id: a bit for requests that were cancelled before they
                                       were read */
    uint32_t cancelled_count;
    uint64_t long_calls; /* that run */
    struct shoal_answer_slot staged[SHOAL_STAGED_MAX];
};
SHOAL_STATIC_ASSERT(offsetof(struct shoal_inbox, writer) == SHOAL_CACHE_LINE, "the first line");

/* A zeroed one of either, aligned to a cache line; NULL when out of memory. */
static inline void *shoal_box_new(size_t bytes)
{
    void *box = shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    return box != NULL ? memset(box, 0, bytes) : NULL;
}

static inline void shoal_box_free(void *box, size_t bytes)
{
    shoal_mem_free_aligned(box, bytes, SHOAL_CACHE_LINE);
}

/* A request that outlives its slot, or is of this core. */
struct shoal_long_call {
    struct shoal_task task;    /* own core only */
    struct shoal_inbox *inbox; /* NULL: of this core, answered into `future` */
    struct shoal_future *future;
    struct shoal_fiber *fiber;      /* FIBER: runs it */
    struct shoal_future *awaited;   /* FUTURE: its outcome */
    struct shoal_arg_free arg_free; /* own core only */
    struct shoal_timer timer;       /* FUTURE: its deadline */
    uint16_t id;
    uint8_t kind;
    bool cancelled;
    bool timed_out;
    uint64_t deadline_ns;
    struct shoal_call call;
};

/* A core's ends in one service group, by the other core; made when first used. */
struct shoal_mail_row {
    struct shoal_outbox **outboxes;
    struct shoal_inbox **inboxes;
};

struct shoal_mail {
    struct shoal_core *core;
    struct shoal_outbox **outboxes; /* of the default group: those of rows[0] */
    uint32_t cores;
    bool closed;
    uint32_t burst;                       /* requests run in one look at a ring */
    struct shoal_ring_writer *unverified; /* written since the last look */
    struct shoal_fleet *fleet;
    struct shoal_poller poller;
    struct shoal_list watched_outboxes;
    struct shoal_list watched_inboxes;
    struct shoal_slab calls;
    uint32_t local_in_flight; /* submits to itself that have not ended */
    uint64_t local_received;
    uint64_t freed_received;      /* by inboxes that are gone */
    struct shoal_list own_groups; /* made by this core */
    struct shoal_mail_row rows[SHOAL_SERVICE_GROUPS_MAX];
    _Atomic uint64_t *dirty; /* written by the other cores; a bit a core */
};

struct shoal_service_group {
    struct shoal_list node; /* of `own_groups` */
    unsigned id;
    unsigned in_flight_max;
    unsigned slots;
    unsigned home;                                  /* the core that made it, and frees it */
    _Atomic(struct shoal_mail_channel *) *channels; /* [from * cores + to] */
    char name[SHOAL_SERVICE_GROUP_NAME_MAX + 1];
};

/* What all cores share; read-only after the start but for `groups`. */
struct shoal_fleet {
    unsigned cores;
    struct shoal_core **core;
    struct shoal_mail **mail;
    pthread_mutex_t groups_lock;               /* of those that make and free groups */
    bool group_used[SHOAL_SERVICE_GROUPS_MAX]; /* under the lock; also while one is being freed */
    _Atomic(struct shoal_service_group *) groups[SHOAL_SERVICE_GROUPS_MAX];
    struct shoal_service_group default_group;
};

/* 0 or -ENOMEM, and then there is nothing to deinit. On the main thread, before the cores run. */
int shoal_fleet_mail_init(struct shoal_fleet *fleet);
void shoal_fleet_mail_deinit(struct shoal_fleet *fleet);

/* 0, or -ENOMEM, and then there is nothing to deinit. */
int shoal_mail_init(struct shoal_mail *mail, struct shoal_core *core, struct shoal_fleet *fleet);

/* Once no core sends any more. */
void shoal_mail_deinit(struct shoal_mail *mail);

static inline struct shoal_mail *shoal_mail_self(void)
{
    SHOAL_CHECK_ON_CORE("submit");
    return (struct shoal_mail *)shoal_core_self->layers[SHOAL_LAYER_SMP];
}

/* Submits of this core that have no answer yet; requests run for others. O(rings). */
unsigned shoal_mail_in_flight(const struct shoal_mail *mail);
uint64_t shoal_mail_received(const struct shoal_mail *mail);

static inline unsigned shoal_outbox_in_flight(const struct shoal_outbox *outbox)
{
    return outbox != NULL ? outbox->credits_max - outbox->credits : 0;
}

/* ---- mailbox.c, for the others ---- */

/* Tells core `to` that this core has put something into a ring for it. */
void shoal_mail_announce(struct shoal_mail *mail, unsigned to);

/* After the first slot since the last look was published: sees to it that the reader will look. */
static inline void shoal_mail_note_published(struct shoal_mail *mail,
                                             struct shoal_ring_writer *writer)
{
    writer->unverified = true;
    writer->next = mail->unverified;
    mail->unverified = writer;
}

static inline void shoal_mail_published(struct shoal_mail *mail, struct shoal_ring_writer *writer)
{
    shoal_mail_note_published(mail, writer);
    if (!shoal_ring_seems_watched(writer->watched))
        shoal_mail_announce(mail, writer->to);
}

static inline void shoal_writer_flush(struct shoal_ring_writer *writer)
{
    if (writer->staged > 0)
        writer->flush(writer);
}

/* Writes all that is staged; verifies, and announces where needed, all that was published. */
void shoal_mail_verify(struct shoal_mail *mail);

/* Has the ring looked at directly from now on. Returns its `watched` word as it was. */
static inline uint32_t shoal_mail_watch(struct shoal_list *watched,
                                        struct shoal_ring_reader *reader)
{
    reader->empty_looks = 0;
    if (!shoal_list_linked(&reader->node))
        shoal_list_push_back(watched, &reader->node);
    return shoal_ring_watch(reader->watched);
}

static inline struct shoal_service_group *shoal_fleet_group(const struct shoal_fleet *fleet,
                                                            unsigned id)
{
    /* acquire: pairs with the release store in shoal_service_group_new(). */
    return atomic_load_explicit(&fleet->groups[id], memory_order_acquire);
}

/* ---- service_group.c ---- */

/* Frees the groups that this core has made and nobody has freed. */
void shoal_service_groups_deinit(struct shoal_mail *mail);

/* ---- submit.c ---- */

/* Hands over the answers that are there. Returns how many. */
unsigned shoal_outbox_take_answers(struct shoal_mail *mail, struct shoal_outbox *outbox);
bool shoal_outbox_has_answer(const struct shoal_outbox *outbox);

/* Whether `future` is of a request in flight. O(slots). */
bool shoal_outbox_awaits(const struct shoal_outbox *outbox, const struct shoal_future *future);

/* The outbox in `group` towards core `to`, made if need be; NULL when out of memory. */
struct shoal_outbox *shoal_outbox_get(struct shoal_mail *mail,
                                      const struct shoal_service_group *group, unsigned to);
void shoal_outbox_free(struct shoal_mail *mail, struct shoal_outbox *outbox);

/* ---- serve.c ---- */

/* Runs requests that are there, at most a burst. Returns how many. */
unsigned shoal_inbox_run(struct shoal_mail *mail, struct shoal_inbox *inbox);
bool shoal_inbox_has_request(const struct shoal_inbox *inbox);

/* What the asker wants to end, ends. */
void shoal_inbox_cancels(struct shoal_mail *mail, struct shoal_inbox *inbox);

/* Reads from `channel`; NULL when out of memory. */
struct shoal_inbox *shoal_inbox_new(struct shoal_mail *mail, struct shoal_mail_channel *channel,
                                    unsigned from);
void shoal_inbox_free(struct shoal_mail *mail, struct shoal_inbox *inbox);

/* A call of this core, which runs from the queue. */
void shoal_call_local(struct shoal_mail *mail, struct shoal_long_call *call);
void shoal_call_cancel(struct shoal_long_call *call);

#endif
