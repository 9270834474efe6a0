/*
 * A core's looks at its mail, its announcements to others, and its life. See mailbox_impl.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/check.h"

#include "shoal/smp/mailbox_impl.h"

/* A ring that was empty for so many looks in a row is left to announce itself again: some
 * microseconds of a core that spins, a millisecond of one that works. */
#define EMPTY_LOOKS_MAX 256
#define BURST_FIRST     8

static size_t dirty_words(const struct shoal_mail *mail)
{
    return (mail->cores + 63) / 64;
}

/* ---- Telling others ---- */

void shoal_mail_announce(struct shoal_mail *mail, unsigned to)
{
    struct shoal_mail *target = mail->fleet->mail[to];
    SHOAL_DELAY_POINT();
    /* seq_cst RMW: after the slot's release store, before the look at `asleep`. Pairs with the
     * exchange in take_dirty(), and with the one in runtime/core.c:may_sleep(). */
    atomic_fetch_or_explicit(&target->dirty[mail->core->id / 64],
                             UINT64_C(1) << (mail->core->id % 64), memory_order_seq_cst);
    SHOAL_DELAY_POINT();
    shoal_core_wake(mail->fleet->core[to]); /* not `target->core`, whose line it writes itself */
}

void shoal_mail_verify(struct shoal_mail *mail)
{
    while (mail->unverified != NULL) {
        struct shoal_ring_writer *writer = mail->unverified;
        mail->unverified = writer->next;
        writer->unverified = false;
        shoal_writer_flush(writer);
        if (!shoal_ring_verify(writer->watched))
            shoal_mail_announce(mail, writer->to);
    }
}

/* ---- Looking ---- */

static struct shoal_mail_channel *
channel_from(const struct shoal_mail *mail, const struct shoal_service_group *group, unsigned from)
{
    /* acquire: pairs with the release store in outbox.c:outbox_new(). */
    return atomic_load_explicit(&group->channels[from * mail->cores + mail->core->id],
                                memory_order_acquire);
}

/* NULL: the other core has only answered so far, or, with `*no_memory` set, there is no memory. */
static struct shoal_inbox *inbox_get(struct shoal_mail *mail,
                                     const struct shoal_service_group *group, unsigned from,
                                     bool *no_memory)
{
    struct shoal_mail_row *row = &mail->rows[group->id];
    if (row->inboxes != NULL && row->inboxes[from] != NULL)
        return row->inboxes[from];
    struct shoal_mail_channel *channel = channel_from(mail, group, from);
    if (channel == NULL)
        return NULL;
    if (row->inboxes == NULL)
        row->inboxes = shoal_mem_alloc_zeroed(mail->cores * sizeof(struct shoal_inbox *));
    if (row->inboxes != NULL)
        row->inboxes[from] = shoal_inbox_new(mail, channel, from);
    if (row->inboxes == NULL || row->inboxes[from] == NULL) {
        *no_memory = true;
        return NULL;
    }
    return row->inboxes[from];
}

/* Has all rings from `peer` watched. False when there is no memory for that by now. */
static bool watch_peer(struct shoal_mail *mail, unsigned peer)
{
    bool no_memory = false;
    for (unsigned id = 0; id < SHOAL_SERVICE_GROUPS_MAX; id++) {
        const struct shoal_service_group *group = shoal_fleet_group(mail->fleet, id);
        if (group == NULL)
            continue;
        struct shoal_outbox **outboxes = mail->rows[id].outboxes;
        if (outboxes != NULL && outboxes[peer] != NULL)
            shoal_mail_watch(&mail->watched_outboxes, &outboxes[peer]->reader);
        struct shoal_inbox *inbox = inbox_get(mail, group, peer, &no_memory);
        if (inbox == NULL)
            continue;
        uint32_t was = shoal_mail_watch(&mail->watched_inboxes, &inbox->reader);
        if (SHOAL_UNLIKELY((was & SHOAL_RING_CANCELS) != 0))
            shoal_inbox_cancels(mail, inbox);
    }
    return !no_memory;
}

static void take_dirty(struct shoal_mail *mail)
{
    for (size_t word = 0; word < dirty_words(mail); word++) {
        if (SHOAL_LIKELY(atomic_load_explicit(&mail->dirty[word], memory_order_relaxed) == 0))
            continue;
        SHOAL_DELAY_POINT();
        /* seq_cst: pairs with the fetch_or in shoal_mail_announce(); the rings are read after it.
         */
        uint64_t bits = atomic_exchange_explicit(&mail->dirty[word], 0, memory_order_seq_cst);
        for (; bits != 0; bits &= bits - 1) {
            unsigned peer = (unsigned)word * 64 + (unsigned)__builtin_ctzll(bits);
            if (SHOAL_UNLIKELY(!watch_peer(mail, peer))) /* to be looked at again */
                atomic_fetch_or_explicit(&mail->dirty[word], UINT64_C(1) << (peer % 64),
                                         memory_order_relaxed);
        }
    }
}

static void unwatch(struct shoal_ring_reader *reader)
{
    shoal_list_remove(&reader->node);
    shoal_ring_unwatch(reader->watched);
}

/* After a look that found nothing. */
static inline void count_empty(struct shoal_list *watched, struct shoal_ring_reader *reader,
                               bool (*has_any)(const struct shoal_ring_reader *reader))
{
    if (SHOAL_LIKELY(++reader->empty_looks < EMPTY_LOOKS_MAX))
        return;
    unwatch(reader);
    if (has_any(reader))
        shoal_mail_watch(watched, reader);
}

static struct shoal_outbox *outbox_of(const struct shoal_ring_reader *reader)
{
    return SHOAL_CONTAINER_OF(reader, struct shoal_outbox, reader);
}

static struct shoal_inbox *inbox_of(const struct shoal_ring_reader *reader)
{
    return SHOAL_CONTAINER_OF(reader, struct shoal_inbox, reader);
}

static bool has_answer(const struct shoal_ring_reader *reader)
{
    return shoal_outbox_has_answer(outbox_of(reader));
}

static bool has_request(const struct shoal_ring_reader *reader)
{
    return shoal_inbox_has_request(inbox_of(reader));
}

static unsigned look_at_answers(struct shoal_mail *mail)
{
    unsigned found = 0;
    SHOAL_LIST_FOREACH_SAFE (node, &mail->watched_outboxes) {
        struct shoal_ring_reader *reader = SHOAL_CONTAINER_OF(node, struct shoal_ring_reader, node);
        unsigned taken = shoal_outbox_take_answers(mail, outbox_of(reader));
        if (taken == 0)
            count_empty(&mail->watched_outboxes, reader, has_answer);
        else
            reader->empty_looks = 0;
        found += taken;
    }
    return found;
}

static unsigned look_at_requests(struct shoal_mail *mail)
{
    unsigned found = 0;
    SHOAL_LIST_FOREACH_SAFE (node, &mail->watched_inboxes) {
        struct shoal_ring_reader *reader = SHOAL_CONTAINER_OF(node, struct shoal_ring_reader, node);
        unsigned ran = shoal_inbox_run(mail, inbox_of(reader));
        if (ran == 0)
            count_empty(&mail->watched_inboxes, reader, has_request);
        else
            reader->empty_looks = 0;
        found += ran;
    }
    mail->core->groups[0].tasks += found;
    return found;
}

static bool poll_mail(struct shoal_poller *poller)
{
    struct shoal_mail *mail = SHOAL_CONTAINER_OF(poller, struct shoal_mail, poller);
    shoal_mail_verify(mail);
    take_dirty(mail);
    unsigned found = look_at_answers(mail);
    return found + look_at_requests(mail) > 0;
}

/* Ceases to watch the rings of a list. Whether any of them holds something. */
static bool unwatch_all(struct shoal_list *watched,
                        bool (*has_any)(const struct shoal_ring_reader *reader))
{
    bool any = false;
    SHOAL_LIST_FOREACH_SAFE (node, watched) {
        struct shoal_ring_reader *reader = SHOAL_CONTAINER_OF(node, struct shoal_ring_reader, node);
        unwatch(reader);
        if (!has_any(reader))
            continue;
        shoal_mail_watch(watched, reader);
        any = true;
        break; /* there is no sleep now */
    }
    return any;
}

static bool mail_pending(struct shoal_poller *poller)
{
    struct shoal_mail *mail = SHOAL_CONTAINER_OF(poller, struct shoal_mail, poller);
    shoal_mail_verify(mail);
    if (unwatch_all(&mail->watched_inboxes, has_request) ||
        unwatch_all(&mail->watched_outboxes, has_answer))
        return true;
    SHOAL_DELAY_POINT();
    for (size_t word = 0; word < dirty_words(mail); word++)
        if (atomic_load_explicit(&mail->dirty[word], memory_order_seq_cst) != 0)
            return true;
    return false;
}

/* ---- Counting ---- */

unsigned shoal_mail_in_flight(const struct shoal_mail *mail)
{
    unsigned sum = mail->local_in_flight;
    for (unsigned id = 0; id < SHOAL_SERVICE_GROUPS_MAX; id++)
        for (unsigned i = 0; mail->rows[id].outboxes != NULL && i < mail->cores; i++)
            sum += shoal_outbox_in_flight(mail->rows[id].outboxes[i]);
    return sum;
}

uint64_t shoal_mail_received(const struct shoal_mail *mail)
{
    uint64_t sum = mail->local_received + mail->freed_received;
    for (unsigned id = 0; id < SHOAL_SERVICE_GROUPS_MAX; id++)
        for (unsigned i = 0; mail->rows[id].inboxes != NULL && i < mail->cores; i++)
            if (mail->rows[id].inboxes[i] != NULL)
                sum += mail->rows[id].inboxes[i]->next_request;
    return sum;
}

/* ---- Life ---- */

int shoal_fleet_mail_init(struct shoal_fleet *fleet)
{
    struct shoal_service_group *group = &fleet->default_group;
    group->in_flight_max = SHOAL_SUBMIT_IN_FLIGHT_MAX;
    group->slots = SHOAL_SUBMIT_IN_FLIGHT_MAX;
    snprintf(group->name, sizeof(group->name), "default");
    group->channels =
        shoal_mem_alloc_zeroed((size_t)fleet->cores * fleet->cores * sizeof(*group->channels));
    if (group->channels == NULL)
        return -ENOMEM;
    pthread_mutex_init(&fleet->groups_lock, NULL);
    atomic_store_explicit(&fleet->groups[0], group, memory_order_relaxed);
    return 0;
}

void shoal_fleet_mail_deinit(struct shoal_fleet *fleet)
{
    struct shoal_service_group *group = &fleet->default_group;
    if (group->channels == NULL)
        return;
    shoal_mem_free((void *)group->channels,
                   (size_t)fleet->cores * fleet->cores * sizeof(*group->channels));
    pthread_mutex_destroy(&fleet->groups_lock);
}

int shoal_mail_init(struct shoal_mail *mail, struct shoal_core *core, struct shoal_fleet *fleet)
{
    memset(mail, 0, sizeof(*mail));
    mail->core = core;
    mail->fleet = fleet;
    mail->cores = fleet->cores;
    mail->burst = BURST_FIRST;
    mail->rows[0].outboxes = shoal_mem_alloc_zeroed(fleet->cores * sizeof(struct shoal_outbox *));
    mail->outboxes = mail->rows[0].outboxes;
    mail->dirty = shoal_mem_alloc_aligned(dirty_words(mail) * SHOAL_CACHE_LINE, SHOAL_CACHE_LINE);
    if (mail->outboxes == NULL || mail->dirty == NULL) {
        shoal_mem_free((void *)mail->outboxes, fleet->cores * sizeof(struct shoal_outbox *));
        shoal_mem_free_aligned((void *)mail->dirty, dirty_words(mail) * SHOAL_CACHE_LINE,
                               SHOAL_CACHE_LINE);
        return -ENOMEM;
    }
    memset((void *)mail->dirty, 0, dirty_words(mail) * SHOAL_CACHE_LINE);
    shoal_list_init(&mail->watched_outboxes);
    shoal_list_init(&mail->watched_inboxes);
    shoal_list_init(&mail->own_groups);
    shoal_slab_init(&mail->calls, "submit", sizeof(struct shoal_long_call), 16);
    mail->poller.poll = poll_mail;
    mail->poller.pending = mail_pending;
    shoal_list_push_back(&core->pollers, &mail->poller.node);
    core->layers[SHOAL_LAYER_SMP] = mail;
    return 0;
}

void shoal_mail_deinit(struct shoal_mail *mail)
{
    size_t table_bytes = mail->cores * sizeof(void *);
    for (unsigned id = 0; id < SHOAL_SERVICE_GROUPS_MAX; id++) {
        struct shoal_mail_row *row = &mail->rows[id];
        for (unsigned i = 0; row->inboxes != NULL && i < mail->cores; i++)
            if (row->inboxes[i] != NULL)
                shoal_inbox_free(mail, row->inboxes[i]);
        for (unsigned i = 0; row->outboxes != NULL && i < mail->cores; i++)
            if (row->outboxes[i] != NULL)
                shoal_outbox_free(mail, row->outboxes[i]);
        shoal_mem_free((void *)row->inboxes, table_bytes);
        shoal_mem_free((void *)row->outboxes, table_bytes);
    }
    shoal_service_groups_deinit(mail);
    shoal_slab_deinit(&mail->calls);
    shoal_mem_free_aligned((void *)mail->dirty, dirty_words(mail) * SHOAL_CACHE_LINE,
                           SHOAL_CACHE_LINE);
    if (shoal_list_linked(&mail->poller.node))
        shoal_list_remove(&mail->poller.node);
    mail->core->layers[SHOAL_LAYER_SMP] = NULL;
}
