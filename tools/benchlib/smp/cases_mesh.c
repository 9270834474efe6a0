/*
 * All cores at once: every core asks every other, a function on all cores, a value from each, and a
 * barrier of all.
 *
 * all-to-all: on each core a fiber keeps WINDOW messages in flight towards each other core and
 * awaits the oldest of each in turn; all begin together. The value is messages (there and back) of
 * all cores in a microsecond, from the first fiber's start to the last one's end.
 */
#include "smp.h"

#define CORES_MAX 64u
#define WINDOW    16u

struct flood {
    uint64_t rounds;
    uint64_t begin_ns;
    uint64_t end_ns;
    uint64_t counter;
    struct shoal_future *futures[CORES_MAX][WINDOW];
} __attribute__((aligned(128)));

static struct flood floods[CORES_MAX];
static _Atomic unsigned arrived;

static unsigned cores_used(void)
{
    unsigned cores = shoal_core_count();
    return cores < CORES_MAX ? cores : CORES_MAX;
}

static int add_one(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = ++floods[shoal_core_id()].counter;
    return 0;
}

static void await_one(struct shoal_future *future)
{
    union shoal_value value;
    smp_check(shoal_await(future, &value), "a message");
    SMP_USE(value.u64);
}

/* On a fiber of each core. */
static int flood_others(void *arg, union shoal_value *out)
{
    (void)arg;
    unsigned self = (unsigned)shoal_core_id();
    unsigned cores = cores_used();
    struct flood *own = &floods[self];
    atomic_fetch_add_explicit(&arrived, 1, memory_order_acq_rel);
    while (atomic_load_explicit(&arrived, memory_order_acquire) < cores)
        (void)shoal_yield();
    own->begin_ns = shoal_now_ns();
    for (uint64_t round = 0; round < own->rounds + WINDOW; round++)
        for (unsigned core = 0; core < cores; core++) {
            if (core == self)
                continue;
            struct shoal_future **oldest = &own->futures[core][round % WINDOW];
            if (round >= WINDOW)
                await_one(*oldest);
            if (round < own->rounds)
                *oldest = shoal_submit_to(core, add_one, NULL);
        }
    own->end_ns = shoal_now_ns();
    out->u64 = own->rounds;
    return 0;
}

static uint64_t all_to_all(uint64_t ops, struct smp_sample *sample)
{
    unsigned cores = cores_used();
    uint64_t pairs = (uint64_t)cores * (cores - 1);
    uint64_t rounds = ops / pairs + WINDOW;
    struct shoal_future *ends[CORES_MAX];
    atomic_store_explicit(&arrived, 0, memory_order_relaxed);
    for (unsigned core = 0; core < cores; core++)
        floods[core].rounds = rounds;
    for (unsigned core = 0; core < cores; core++)
        ends[core] = shoal_submit_fiber_to(core, flood_others, NULL);
    uint64_t begin_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (unsigned core = 0; core < cores; core++) {
        smp_check(shoal_await(ends[core], NULL), "a flood");
        begin_ns = floods[core].begin_ns < begin_ns ? floods[core].begin_ns : begin_ns;
        end_ns = floods[core].end_ns > end_ns ? floods[core].end_ns : end_ns;
    }
    uint64_t messages = rounds * pairs;
    sample->value = end_ns > begin_ns ? 1e3 * (double)messages / (double)(end_ns - begin_ns) : 0.0;
    return messages;
}

/* ---- To all ---- */

static uint64_t broadcast(uint64_t ops, struct smp_sample *sample)
{
    const struct shoal_all_cores what = {.fn = add_one};
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < ops; i++)
        smp_check(shoal_all_cores(&what), "a broadcast");
    return smp_ns_each(sample, shoal_now_ns() - begin_ns, ops);
}

static uint64_t broadcast_by_hand(uint64_t ops, struct smp_sample *sample)
{
    unsigned cores = cores_used();
    struct shoal_future *answers[CORES_MAX];
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < ops; i++) {
        for (unsigned core = 0; core < cores; core++)
            answers[core] = shoal_submit_to(core, add_one, NULL);
        for (unsigned core = 0; core < cores; core++)
            await_one(answers[core]);
    }
    return smp_ns_each(sample, shoal_now_ns() - begin_ns, ops);
}

static int map_count(void *instance, void *arg, union shoal_value *out)
{
    (void)instance;
    return add_one(arg, out);
}

static int add_up(void *arg, union shoal_value *left, const union shoal_value *right)
{
    (void)arg;
    left->u64 += right->u64;
    return 0;
}

static uint64_t map_reduce_as(uint64_t ops, struct smp_sample *sample,
                              enum shoal_map_reduce_shape shape)
{
    const struct shoal_map_reduce spec = {.map = map_count, .reduce = add_up, .shape = shape};
    union shoal_value sum;
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < ops; i++)
        smp_check(shoal_map_reduce(&spec, &sum), "a map-reduce");
    SMP_USE(sum.u64);
    return smp_ns_each(sample, shoal_now_ns() - begin_ns, ops);
}

static uint64_t map_reduce(uint64_t ops, struct smp_sample *sample)
{
    return map_reduce_as(ops, sample, SHOAL_MAP_REDUCE_AUTO);
}

static uint64_t map_reduce_tree(uint64_t ops, struct smp_sample *sample)
{
    return map_reduce_as(ops, sample, SHOAL_MAP_REDUCE_TREE);
}

/* ---- The barrier ---- */

static struct shoal_core_barrier *all_meet;
static uint64_t meetings;

/* On a fiber of each core. */
static int meet(void *arg, union shoal_value *out)
{
    (void)arg;
    uint64_t begin_ns = shoal_now_ns();
    for (uint64_t i = 0; i < meetings; i++)
        smp_check(shoal_core_barrier_wait(all_meet, SHOAL_NS_FOREVER), "a barrier");
    out->u64 = shoal_now_ns() - begin_ns;
    return 0;
}

static uint64_t barrier(uint64_t ops, struct smp_sample *sample)
{
    union shoal_value took[SHOAL_CORES_MAX];
    if (all_meet == NULL)
        smp_check(shoal_core_barrier_new(&all_meet, 1), "a barrier");
    meetings = ops;
    smp_check(shoal_all_cores(&(struct shoal_all_cores){.fiber_fn = meet, .values = took}),
              "a barrier's cores");
    return smp_ns_each(sample, took[0].u64, ops);
}

static void barrier_free(void *arg)
{
    (void)arg;
    shoal_core_barrier_free(all_meet);
}

void smp_mesh_init(void)
{
    smp_check(shoal_at_stop(barrier_free, NULL), "what is called at the end");
}

const struct smp_case smp_mesh_cases[] = {
    {"all-to-all",
     "M/s",
     "each core to each other, 16 in flight for each pair",
     2,
     0,
     true,
     {{"shoal", all_to_all}, {"limit", smp_limit_mesh}}},
    {"broadcast",
     "ns",
     "a function on all cores, awaited; limit: a line there and back",
     1,
     0,
     true,
     {{"shoal", broadcast}, {"limit", smp_limit_line}, {"shoal-by-hand", broadcast_by_hand}}},
    {"map-reduce",
     "ns",
     "a value from each core, added up; limit: a line there and back",
     1,
     0,
     true,
     {{"shoal", map_reduce}, {"limit", smp_limit_line}, {"shoal-tree", map_reduce_tree}}},
    {"barrier",
     "ns",
     "a fiber of each core waits for the others; limit: a line there and back",
     1,
     0,
     true,
     {{"shoal", barrier}, {"limit", smp_limit_line}}},
    {.name = NULL},
};
