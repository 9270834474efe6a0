/*
 * Futures. Everything is made, run and given back inside the measured stretch: a figure covers the
 * whole life of what it names.
 *
 * A batch is as large as the first cache allows, so that what the loop costs once a batch (one
 * await of the fiber that measures) is shared by many. It counts, too.
 */
#include <stddef.h>

#include <shoal/shoal.h>

#include "micro.h"

static struct shoal_future *promises[MICRO_BATCH];
static uint64_t remaining;
static struct shoal_future *all_done;

static int add_one(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    out->u64 = in->u64 + 1;
    return 0;
}

static int add_and_count(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    out->u64 = in->u64 + 1;
    if (--remaining == 0)
        shoal_future_resolve(all_done, NULL);
    return 0;
}

/* Waits until `add_and_count` has run `remaining` times. */
static void wait_for_batch(void)
{
    (void)shoal_await(all_done, NULL);
}

static void begin_batch(uint64_t count)
{
    remaining = count;
    all_done = shoal_future_new();
}

static void then_suspended(struct micro_watch *watch, uint64_t ops)
{
    const union shoal_value value = {.u64 = 1};
    uint64_t done = 0;
    micro_start(watch);
    while (done < ops) {
        begin_batch(MICRO_CHAINS);
        for (unsigned i = 0; i < MICRO_CHAINS; i++) {
            promises[i] = shoal_future_new();
            struct shoal_future *future = shoal_then(promises[i], add_one, NULL);
            future = shoal_then(future, add_one, NULL);
            shoal_discard(shoal_then(future, add_and_count, NULL));
        }
        for (unsigned i = 0; i < MICRO_CHAINS; i++)
            shoal_future_resolve(promises[i], &value);
        wait_for_batch();
        done += (uint64_t)3 * MICRO_CHAINS;
    }
    micro_stop(watch, done);
}

static void then_ready(struct micro_watch *watch, uint64_t ops)
{
    const union shoal_value value = {.u64 = 1};
    uint64_t done = 0;
    micro_start(watch);
    while (done < ops) {
        begin_batch(MICRO_BATCH);
        for (unsigned i = 0; i < MICRO_BATCH; i++)
            shoal_discard(shoal_then(shoal_future_ready(&value), add_and_count, NULL));
        wait_for_batch();
        done += MICRO_BATCH;
    }
    micro_stop(watch, done);
}

static void await_ready(struct micro_watch *watch, uint64_t ops)
{
    union shoal_value value = {.u64 = 1};
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        union shoal_value out;
        MICRO_USE(&value);
        (void)shoal_await(shoal_future_ready(&value), &out);
        MICRO_USE(out.u64);
    }
    micro_stop(watch, ops);
}

static void await_resolved(struct micro_watch *watch, uint64_t ops)
{
    union shoal_value value = {.u64 = 1};
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        union shoal_value out;
        struct shoal_future *future = shoal_future_new();
        shoal_future_resolve(future, &value);
        (void)shoal_await(future, &out);
        MICRO_USE(out.u64);
    }
    micro_stop(watch, ops);
}

static void resolve_from_task(struct shoal_task *task);

static struct {
    struct shoal_task task;
    struct shoal_future *future;
} resolver = {{.run = resolve_from_task}, NULL};

static void resolve_from_task(struct shoal_task *task)
{
    (void)task;
    shoal_future_resolve(resolver.future, NULL);
}

static void await_suspended(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        resolver.future = shoal_future_new();
        shoal_task_post(&resolver.task);
        (void)shoal_await(resolver.future, NULL);
    }
    micro_stop(watch, ops);
}

static void new_discard(struct micro_watch *watch, uint64_t ops)
{
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        struct shoal_future *future = shoal_future_new();
        shoal_discard(future);
        shoal_future_resolve(future, NULL);
    }
    micro_stop(watch, ops);
}

static void ready_discard(struct micro_watch *watch, uint64_t ops)
{
    const union shoal_value value = {.u64 = 1};
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++)
        shoal_discard(shoal_future_ready(&value));
    micro_stop(watch, ops);
}

const struct micro_case micro_future_cases[] = {
    {"then-suspended", "one continuation of a chain of 3, resolved later", then_suspended,
     micro_limit_task_chain, "slab, run queue and indirect call", 0},
    {"then-ready", "a ready future and one continuation", then_ready, micro_limit_task,
     "slab, run queue and indirect call", 0},
    {"await-ready", "a ready future made and awaited", await_ready, micro_limit_slab,
     "slab take and give", 0},
    {"await-resolved", "a promise made, resolved and awaited", await_resolved, micro_limit_slab,
     "slab take and give", 0},
    {"await-suspended", "a promise awaited, and resolved by a task", await_suspended,
     micro_limit_two_switches, "two register switches", 0},
    {"future-new-discard", "a promise made, discarded and resolved", new_discard, micro_limit_slab,
     "slab take and give", 0},
    {"future-ready-discard", "a ready future made and discarded", ready_discard, micro_limit_slab,
     "slab take and give", 0},
    {.name = NULL},
};
