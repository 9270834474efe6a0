/*
 * The memory that two cores share: a channel, made of two rings, for each ordered pair of cores and
 * service group that has exchanged a message.
 *
 *   from                                                     to
 *   outbox --writes--> requests[slots], one line each  --reads-->  inbox
 *          <--reads--- answers[slots],  one line each  <--writes--
 *
 * 1. A slot carries everything inline and its own sequence number: a handoff moves one line.
 *    Indices run freely, are masked, and are private to their side.
 * 2. A request takes a credit, which its answer gives back, and there are no more credits than
 *    slots. So there is always room for an answer, and a slot that is written again has been read
 *    (requests are read in order: when the answer of a later one is there, so has this one been).
 * 3. Beside each ring stands a word, `watched`, in which the reader says whether it looks at the
 *    ring by itself. Both sides touch it by read-modify-writes alone, so that these have one order:
 *
 *      writer: publishes a slot, then counts up      reader: takes WATCHED away, then looks at the
 *      `watched`; WATCHED was not there:             ring once more; something there: WATCHED again
 *      announces by the reader's dirty bit
 *
 *    If the writer's comes first, the reader's reads what the writer released, and its last look
 *    finds the slot. If the reader's comes first, the writer sees that it has to announce.
 * 4. The writer need not verify that at once. What it finds by a plain load is right but for the
 *    moment in which the reader ceases to watch; so a ring that seems to be watched is verified
 *    with the next look at messages, one for all slots written until then. The line with `watched`
 *    is the writer's own but when the reader changes its mind: verifying moves no line either.
 *
 * Rejected: a fence between publishing and a plain load of `watched` (the thread sanitizer does not
 * know fences); a membarrier(2) by the reader before it sleeps, which interrupts every core.
 */
#ifndef SHOAL_SMP_RING_IMPL_H
#define SHOAL_SMP_RING_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/delay_impl.h"

#include "shoal/smp/submit.h"

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

/*
 * A slot's head says which message the slot holds, by its index + 1, and 32 bits about it. It is
 * written last and read first, whole. All words of a slot are written one right after the other:
 * the other core looks at the slot meanwhile, and each look between two stores takes the line away
 * and costs a way there and back.
 */
static inline uint64_t shoal_slot_head(uint32_t index, uint32_t info)
{
    return (uint64_t)info << 32 | (uint32_t)(index + 1);
}

static inline bool shoal_slot_holds(uint64_t head, uint32_t index)
{
    return (uint32_t)head == (uint32_t)(index + 1);
}

static inline uint32_t shoal_slot_info(uint64_t head)
{
    return (uint32_t)(head >> 32);
}

/* The information in a request's head: its id among those in flight, and its kind. */
static inline uint32_t shoal_request_info(uint16_t id, enum shoal_request_kind kind)
{
    return (uint32_t)kind << 16 | id;
}

struct shoal_request_slot {
    _Atomic uint64_t head; /* with shoal_request_info() */
    struct shoal_call call;
    uint64_t deadline_ns; /* SHOAL_NS_FOREVER: none */
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_request_slot) == SHOAL_CACHE_LINE, "one line a request");

/* In an answer's head, beside the id: it is a failure, and `code` and `text` are valid. */
#define SHOAL_ANSWER_FAILED (UINT32_C(1) << 16)

struct shoal_answer_slot {
    _Atomic uint64_t head; /* with the id */
    union shoal_value value;
    const char *text; /* of a failure; the answering core's until the slot is written again */
    int64_t code;
    uint64_t unused[2];
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_answer_slot) == SHOAL_CACHE_LINE, "one line an answer");

/* The bits of a `watched` word. The others count the writer's verifications. */
#define SHOAL_RING_WATCHED  UINT32_C(1)
#define SHOAL_RING_CANCELS  UINT32_C(2) /* of requests: some bits of `cancels` are set */
#define SHOAL_RING_VERIFIED UINT32_C(4)

struct shoal_mail_channel {
    /* By the core that asks, but for the moments in which the other one begins or ceases to watch.
     */
    _Atomic uint32_t requests_watched __attribute__((aligned(SHOAL_CACHE_LINE)));
    /* By the core that answers, likewise. */
    _Atomic uint32_t answers_watched __attribute__((aligned(SHOAL_CACHE_LINE)));
    /* A bit for each request id, set by the core that asks and wants the request to end. Both are
     * read-only after the making but for what they point to. */
    uint32_t slots __attribute__((aligned(SHOAL_CACHE_LINE)));
    _Atomic uint64_t *cancels;
    struct shoal_request_slot *requests;
    struct shoal_answer_slot *answers;
};

/* The words of `cancels`: a bit for each id, of which there are two for each slot. */
static inline uint32_t shoal_mail_cancel_words(uint32_t slots)
{
    return (2 * slots + 63) / 64;
}

/* The bytes of a channel with everything that belongs to it; `slots` is a power of two. */
static inline size_t shoal_mail_channel_bytes(uint32_t slots)
{
    size_t cancels = (shoal_mail_cancel_words(slots) * sizeof(uint64_t) + SHOAL_CACHE_LINE - 1) &
                     ~(size_t)(SHOAL_CACHE_LINE - 1);
    return sizeof(struct shoal_mail_channel) + cancels +
           slots * (sizeof(struct shoal_request_slot) + sizeof(struct shoal_answer_slot));
}

/* ---- The reader of a ring ---- */

/* Says that this core looks at the ring from now on. Returns the word as it was. */
static inline uint32_t shoal_ring_watch(_Atomic uint32_t *watched)
{
    /* acquire: what the writer published before it last verified is seen. Pairs with
     * shoal_ring_verify(). */
    return atomic_fetch_or_explicit(watched, SHOAL_RING_WATCHED, memory_order_acq_rel);
}

/* Says that it does not; the ring is to be looked at once more. */
static inline void shoal_ring_unwatch(_Atomic uint32_t *watched)
{
    SHOAL_DELAY_POINT();
    /* acq_rel: reads what the writer's verification released, or is read by it. Pairs with
     * shoal_ring_verify(). */
    (void)atomic_fetch_and_explicit(watched, ~SHOAL_RING_WATCHED, memory_order_acq_rel);
    SHOAL_DELAY_POINT();
}

/* ---- The writer of a ring ---- */

/* Whether the reader seems to watch: right, unless it is just ceasing to. */
static inline bool shoal_ring_seems_watched(const _Atomic uint32_t *watched)
{
    return (atomic_load_explicit(watched, memory_order_relaxed) & SHOAL_RING_WATCHED) != 0;
}

/* Whether the reader will look at all that was published before this call. */
static inline bool shoal_ring_verify(_Atomic uint32_t *watched)
{
    SHOAL_DELAY_POINT();
    /* acq_rel: see 3. above. Pairs with shoal_ring_unwatch() and shoal_ring_watch(). */
    uint32_t was = atomic_fetch_add_explicit(watched, SHOAL_RING_VERIFIED, memory_order_acq_rel);
    return (was & SHOAL_RING_WATCHED) != 0;
}

#endif
