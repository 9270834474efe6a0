/*
 * The limits of messages between two cores that are awake: a cache line there and one back, and
 * bare slots that carry a function, its argument and its answer.
 *
 *   asks    request[i & MASK]: sequence, function, argument   --->   calls it
 *           answer[i & MASK]:  sequence, value                <---
 *
 * 1. A slot is one cache line with its own sequence number, which is written last; there is no
 *    shared index, so that a message costs one line there and one line back.
 * 2. Indices are private to their side and go on from sample to sample, as the sequences do.
 * 3. The asking side takes what has come and then fills up to what may be in flight: what any user
 *    of a ring would write.
 * 4. Tried and left out, since none was faster at all three depths: `pause` while waiting, an
 *    answer that overwrites its request, prefetches of the slots to come for reading or for
 *    writing, answers in bursts, slots that are neighbours in the ring but not in memory.
 */
#include "smp.h"

#define LINE  64
#define SLOTS 256u
#define MASK  (SLOTS - 1)

/* ---- A line there and a line back ---- */

static struct {
    _Atomic uint64_t there __attribute__((aligned(2 * LINE)));
    _Atomic uint64_t back __attribute__((aligned(2 * LINE)));
} lines;

static int line_peer(void *arg, union shoal_value *out)
{
    const uint64_t *ops = arg;
    smp_peer_begun();
    for (uint64_t i = 1; i <= *ops; i++) {
        while (atomic_load_explicit(&lines.there, memory_order_acquire) != i)
            ;
        atomic_store_explicit(&lines.back, i, memory_order_release);
    }
    out->u64 = *ops;
    return 0;
}

uint64_t smp_limit_line(uint64_t ops, struct smp_sample *sample)
{
    atomic_store_explicit(&lines.there, 0, memory_order_relaxed);
    atomic_store_explicit(&lines.back, 0, memory_order_relaxed);
    smp_peer_start(line_peer, &ops);
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 1; i <= ops; i++) {
        atomic_store_explicit(&lines.there, i, memory_order_release);
        while (atomic_load_explicit(&lines.back, memory_order_acquire) != i)
            ;
    }
    uint64_t ns = shoal_now_ns() - begin_ns;
    smp_peer_join();
    return smp_ns_each(sample, ns, ops);
}

/* Both sides write the same line: this kind of processor sees that, and hands it over whole. */
static int one_line_peer(void *arg, union shoal_value *out)
{
    const uint64_t *ops = arg;
    smp_peer_begun();
    for (uint64_t i = 0; i < *ops; i++) {
        while (atomic_load_explicit(&lines.there, memory_order_acquire) != 2 * i + 1)
            ;
        atomic_store_explicit(&lines.there, 2 * i + 2, memory_order_release);
    }
    out->u64 = *ops;
    return 0;
}

uint64_t smp_limit_one_line(uint64_t ops, struct smp_sample *sample)
{
    atomic_store_explicit(&lines.there, 0, memory_order_relaxed);
    smp_peer_start(one_line_peer, &ops);
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < ops; i++) {
        atomic_store_explicit(&lines.there, 2 * i + 1, memory_order_release);
        while (atomic_load_explicit(&lines.there, memory_order_acquire) != 2 * i + 2)
            ;
    }
    uint64_t ns = shoal_now_ns() - begin_ns;
    smp_peer_join();
    return smp_ns_each(sample, ns, ops);
}

/* ---- Slots ---- */

struct request {
    _Atomic uint64_t sequence;
    uint64_t (*fn)(uint64_t *arg);
    uint64_t *arg;
} __attribute__((aligned(LINE)));

struct answer {
    _Atomic uint64_t sequence;
    uint64_t value;
} __attribute__((aligned(LINE)));

struct ring {
    struct request requests[SLOTS];
    struct answer answers[SLOTS];
    struct { /* the asking side's */
        uint64_t sent;
        uint64_t taken;
    } ask __attribute__((aligned(2 * LINE)));
    struct { /* the answering side's */
        uint64_t next;
        uint64_t counter;
    } serve __attribute__((aligned(2 * LINE)));
};

static struct ring rings[2];

static uint64_t add_one(uint64_t *arg)
{
    return ++*arg;
}

/* Unknown to the compiler, as a function that comes in a message is. */
static uint64_t (*volatile function)(uint64_t *arg) = add_one;

static inline void put_request(struct ring *ring, uint64_t index, uint64_t (*fn)(uint64_t *arg))
{
    struct request *slot = &ring->requests[index & MASK];
    slot->fn = fn;
    slot->arg = &ring->serve.counter;
    /* release: pairs with the acquire load in answer_next(). */
    atomic_store_explicit(&slot->sequence, index + 1, memory_order_release);
}

static inline bool take_answer(struct ring *ring, uint64_t index, uint64_t *sum)
{
    const struct answer *slot = &ring->answers[index & MASK];
    /* acquire: pairs with the release store in answer_next(). */
    if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != index + 1)
        return false;
    *sum += slot->value;
    return true;
}

static inline bool answer_next(struct ring *ring, uint64_t index)
{
    const struct request *request = &ring->requests[index & MASK];
    /* acquire: pairs with the release store in put_request(). */
    if (atomic_load_explicit(&request->sequence, memory_order_acquire) != index + 1)
        return false;
    struct answer *answer = &ring->answers[index & MASK];
    answer->value = request->fn(request->arg);
    /* release: pairs with the acquire load in take_answer(). */
    atomic_store_explicit(&answer->sequence, index + 1, memory_order_release);
    return true;
}

static int slots_peer(void *arg, union shoal_value *out)
{
    const uint64_t *ops = arg;
    struct ring *ring = &rings[0];
    uint64_t next = ring->serve.next;
    uint64_t end = next + *ops;
    smp_peer_begun();
    while (next != end)
        if (answer_next(ring, next))
            next++;
    ring->serve.next = next;
    out->u64 = *ops;
    return 0;
}

static uint64_t slots(uint64_t ops, struct smp_sample *sample, uint64_t window)
{
    struct ring *ring = &rings[0];
    uint64_t (*fn)(uint64_t * arg) = function;
    smp_peer_start(slots_peer, &ops);
    uint64_t begin_ns = shoal_now_ns();
    uint64_t sent = ring->ask.sent;
    uint64_t taken = ring->ask.taken;
    uint64_t end = taken + ops;
    uint64_t sum = 0;
    while (taken != end) {
        uint64_t until = taken + window < end ? taken + window : end;
        for (; sent < until; sent++)
            put_request(ring, sent, fn);
        while (take_answer(ring, taken, &sum))
            taken++;
    }
    uint64_t ns = shoal_now_ns() - begin_ns;
    ring->ask.sent = sent;
    ring->ask.taken = taken;
    smp_peer_join();
    SMP_USE(sum);
    return smp_ns_each(sample, ns, ops);
}

uint64_t smp_limit_slots_1(uint64_t ops, struct smp_sample *sample)
{
    return slots(ops, sample, 1);
}

uint64_t smp_limit_slots_16(uint64_t ops, struct smp_sample *sample)
{
    return slots(ops, sample, 16);
}

uint64_t smp_limit_slots_256(uint64_t ops, struct smp_sample *sample)
{
    return slots(ops, sample, SLOTS);
}

/* ---- Both cores ask and answer ---- */

#define MESH_WINDOW 64u

static void mesh_side(struct ring *out, struct ring *in, uint64_t ops)
{
    uint64_t (*fn)(uint64_t * arg) = function;
    uint64_t sent = out->ask.sent;
    uint64_t taken = out->ask.taken;
    uint64_t end = taken + ops;
    uint64_t next = in->serve.next;
    uint64_t next_end = next + ops;
    uint64_t sum = 0;
    while (taken != end || next != next_end) {
        uint64_t until = taken + MESH_WINDOW < end ? taken + MESH_WINDOW : end;
        for (; sent < until; sent++)
            put_request(out, sent, fn);
        while (next != next_end && answer_next(in, next))
            next++;
        while (take_answer(out, taken, &sum))
            taken++;
    }
    out->ask.sent = sent;
    out->ask.taken = taken;
    in->serve.next = next;
    SMP_USE(sum);
}

static int mesh_peer(void *arg, union shoal_value *out)
{
    const uint64_t *ops = arg;
    smp_peer_begun();
    mesh_side(&rings[1], &rings[0], *ops);
    out->u64 = *ops;
    return 0;
}

/* The value is messages of both directions in a microsecond: M/s. */
uint64_t smp_limit_mesh(uint64_t ops, struct smp_sample *sample)
{
    smp_peer_start(mesh_peer, &ops);
    uint64_t begin_ns = shoal_now_ns();
    mesh_side(&rings[0], &rings[1], ops);
    uint64_t ns = shoal_now_ns() - begin_ns;
    smp_peer_join();
    sample->value = ns != 0 ? 2e3 * (double)ops / (double)ns : 0.0;
    return 2 * ops;
}
