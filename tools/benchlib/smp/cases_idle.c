/*
 * Messages to a core that has nothing else to do and looks for more: round trips with 1, 16 and
 * 256 in flight, asked for in the two ways in which programs keep several in flight.
 *
 *   shoal       a fiber holds a window of futures and awaits the oldest
 *   shoal-then  as many chains: the continuation of each answer submits the next
 *
 * And the kinds of call: a copied argument, a fiber, a future, and calls to one's own core.
 */
#include <string.h>

#include "smp.h"

#define WINDOW_MAX 256u

/* The target's own: what the functions there work on. */
static struct {
    uint64_t counter;
} there __attribute__((aligned(128)));

static int add_one(void *arg, union shoal_value *out)
{
    uint64_t *counter = arg;
    out->u64 = ++*counter;
    return 0;
}

static int add_copy(void *arg, union shoal_value *out)
{
    uint64_t words[5];
    memcpy(words, arg, sizeof(words));
    there.counter += words[0] + words[4];
    out->u64 = there.counter;
    return 0;
}

static struct shoal_future *add_future(void *arg)
{
    uint64_t *counter = arg;
    return shoal_future_ready(&(union shoal_value){.u64 = ++*counter});
}

static struct shoal_future *call_plain(unsigned core)
{
    return shoal_submit_to(core, add_one, &there.counter);
}

static struct shoal_future *call_copy(unsigned core)
{
    uint64_t words[5] = {1, 0, 0, 0, 0};
    return shoal_submit_copy_to(core, add_copy, words, sizeof(words));
}

static struct shoal_future *call_fiber(unsigned core)
{
    return shoal_submit_fiber_to(core, add_one, &there.counter);
}

static struct shoal_future *call_future(unsigned core)
{
    return shoal_submit_future_to(core, add_future, &there.counter);
}

/* ---- A fiber with a window ---- */

typedef struct shoal_future *call_fn(unsigned core);

/* Inlined, so that each call below is a direct one, as in a user's loop. */
static inline __attribute__((always_inline)) uint64_t
window_of(uint64_t ops, struct smp_sample *sample, unsigned core, unsigned window, call_fn *call)
{
    struct shoal_future *futures[WINDOW_MAX];
    union shoal_value value;
    uint64_t sum = 0;
    uint64_t sent = 0;
    uint64_t begin_ns = shoal_now_ns();
    for (; sent < window && sent < ops; sent++)
        futures[sent] = call(core);
    for (uint64_t i = 0; i < ops; i++) {
        struct shoal_future **oldest = &futures[i % window];
        smp_check(shoal_await(*oldest, &value), "a message");
        sum += value.u64;
        if (sent < ops) {
            *oldest = call(core);
            sent++;
        }
    }
    SMP_USE(sum);
    return smp_ns_each(sample, shoal_now_ns() - begin_ns, ops);
}

#define WINDOW_CASE(name, core, window, call)                                                      \
    static uint64_t name(uint64_t ops, struct smp_sample *sample)                                  \
    {                                                                                              \
        return window_of(ops, sample, core, window, call);                                         \
    }

WINDOW_CASE(plain_1, smp_target(), 1, call_plain)
WINDOW_CASE(plain_16, smp_target(), 16, call_plain)
WINDOW_CASE(plain_256, smp_target(), 256, call_plain)
WINDOW_CASE(copy_1, smp_target(), 1, call_copy)
WINDOW_CASE(copy_16, smp_target(), 16, call_copy)
WINDOW_CASE(copy_256, smp_target(), 256, call_copy)
WINDOW_CASE(fiber_1, smp_target(), 1, call_fiber)
WINDOW_CASE(fiber_16, smp_target(), 16, call_fiber)
WINDOW_CASE(fiber_256, smp_target(), 256, call_fiber)
WINDOW_CASE(future_1, smp_target(), 1, call_future)
WINDOW_CASE(future_16, smp_target(), 16, call_future)
WINDOW_CASE(future_256, smp_target(), 256, call_future)
WINDOW_CASE(self_1, 0, 1, call_plain)
WINDOW_CASE(self_16, 0, 16, call_plain)

/* ---- Chains ---- */

static struct {
    uint64_t to_send;
    uint64_t to_come;
    uint64_t sum;
    struct shoal_future *done;
    unsigned core;
} chains;

static int chain_goes_on(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)out;
    chains.sum += in->u64;
    if (chains.to_send > 0) {
        chains.to_send--;
        shoal_discard(shoal_then(call_plain(chains.core), chain_goes_on, arg));
    }
    if (--chains.to_come == 0)
        shoal_future_resolve(chains.done, NULL);
    return 0;
}

static uint64_t chains_of(uint64_t ops, struct smp_sample *sample, unsigned count)
{
    uint64_t begin_ns = shoal_now_ns();
    chains.core = smp_target();
    chains.to_send = chains.to_come = ops;
    chains.done = shoal_future_new();
    for (unsigned i = 0; i < count && chains.to_send > 0; i++) {
        chains.to_send--;
        shoal_discard(shoal_then(call_plain(chains.core), chain_goes_on, NULL));
    }
    smp_check(shoal_await(chains.done, NULL), "a chain");
    return smp_ns_each(sample, shoal_now_ns() - begin_ns, ops);
}

static uint64_t chains_1(uint64_t ops, struct smp_sample *sample)
{
    return chains_of(ops, sample, 1);
}

static uint64_t chains_16(uint64_t ops, struct smp_sample *sample)
{
    return chains_of(ops, sample, 16);
}

static uint64_t chains_256(uint64_t ops, struct smp_sample *sample)
{
    return chains_of(ops, sample, 256);
}

const struct smp_case smp_idle_cases[] = {
    {"submit-idle-1",
     "ns",
     "a function on a core that polls, 1 in flight; limit: a cache line",
     2,
     0,
     true,
     {{"shoal", plain_1},
      {"limit", smp_limit_line},
      {"shoal-then", chains_1},
      {"one-line", smp_limit_one_line},
      {"bare-slots", smp_limit_slots_1}}},
    {"submit-idle-16",
     "ns",
     "the same, 16 in flight; limit: bare slots",
     2,
     0,
     true,
     {{"shoal", plain_16}, {"limit", smp_limit_slots_16}, {"shoal-then", chains_16}}},
    {"submit-idle-256",
     "ns",
     "the same, 256 in flight",
     2,
     0,
     true,
     {{"shoal", plain_256}, {"limit", smp_limit_slots_256}, {"shoal-then", chains_256}}},
    {.name = NULL},
};

const struct smp_case smp_call_cases[] = {
    {"submit-copy-1",
     "ns",
     "with 40 bytes copied, 1 in flight",
     2,
     0,
     true,
     {{"shoal", copy_1}, {"limit", smp_limit_line}}},
    {"submit-copy-16",
     "ns",
     "16 in flight",
     2,
     0,
     true,
     {{"shoal", copy_16}, {"limit", smp_limit_slots_16}}},
    {"submit-copy-256",
     "ns",
     "256 in flight",
     2,
     0,
     true,
     {{"shoal", copy_256}, {"limit", smp_limit_slots_256}}},
    {"submit-fiber-1",
     "ns",
     "a function on a fiber, 1 in flight",
     2,
     0,
     true,
     {{"shoal", fiber_1}, {"limit", smp_limit_line}}},
    {"submit-fiber-16",
     "ns",
     "16 in flight",
     2,
     0,
     true,
     {{"shoal", fiber_16}, {"limit", smp_limit_slots_16}}},
    {"submit-fiber-256",
     "ns",
     "256 in flight",
     2,
     0,
     true,
     {{"shoal", fiber_256}, {"limit", smp_limit_slots_256}}},
    {"submit-future-1",
     "ns",
     "a function that returns a future, 1 in flight",
     2,
     0,
     true,
     {{"shoal", future_1}, {"limit", smp_limit_line}}},
    {"submit-future-16",
     "ns",
     "16 in flight",
     2,
     0,
     true,
     {{"shoal", future_16}, {"limit", smp_limit_slots_16}}},
    {"submit-future-256",
     "ns",
     "256 in flight",
     2,
     0,
     true,
     {{"shoal", future_256}, {"limit", smp_limit_slots_256}}},
    {"submit-self-1", "ns", "to the own core, 1 in flight", 1, 0, false, {{"shoal", self_1}}},
    {"submit-self-16", "ns", "to the own core, 16 in flight", 1, 0, false, {{"shoal", self_16}}},
    {.name = NULL},
};
