/*
 * Combinators over ten futures, which is what a page made of ten queries waits for.
 */
#include <stddef.h>

#include <shoal/shoal.h>

#include "micro.h"

#define PARTS 10

static void all_of_ten(struct micro_watch *watch, uint64_t ops, bool resolved_before)
{
    struct shoal_future *parts[PARTS];
    struct shoal_future *promises[PARTS];
    const union shoal_value value = {.u64 = 1};
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        union shoal_value out;
        for (unsigned part = 0; part < PARTS; part++) {
            promises[part] = shoal_future_new();
            parts[part] = promises[part];
            if (resolved_before)
                shoal_future_resolve(promises[part], &value);
        }
        struct shoal_future *all = shoal_when_all(parts, PARTS);
        for (unsigned part = 0; part < PARTS && !resolved_before; part++)
            shoal_future_resolve(promises[part], &value);
        if (shoal_await(all, &out) == 0)
            shoal_results_free((struct shoal_results *)out.ptr);
    }
    micro_stop(watch, ops);
}

static void when_all_later(struct micro_watch *watch, uint64_t ops)
{
    all_of_ten(watch, ops, false);
}

static void when_all_ready(struct micro_watch *watch, uint64_t ops)
{
    all_of_ten(watch, ops, true);
}

static void await_all(struct micro_watch *watch, uint64_t ops)
{
    struct shoal_future *parts[PARTS];
    union shoal_value values[PARTS];
    const union shoal_value value = {.u64 = 1};
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        for (unsigned part = 0; part < PARTS; part++)
            parts[part] = shoal_future_ready(&value);
        (void)shoal_await_all(parts, PARTS, values);
        MICRO_USE(values[PARTS - 1].u64);
    }
    micro_stop(watch, ops);
}

/* Ten tasks and what they belong to: what any way of waiting for ten has to touch. */
static void limit_ten(struct micro_watch *watch, uint64_t ops)
{
    struct micro_watch single = {0};
    micro_limit_task(&single, ops * PARTS);
    watch->ns += single.ns;
    watch->ops += single.ops / PARTS;
}

const struct micro_case micro_combine_cases[] = {
    {"when-all-10", "ten promises, when_all, resolved, awaited", when_all_later, limit_ten,
     "ten times slab, run queue and indirect call", 0},
    {"when-all-10-ready", "the same, resolved before", when_all_ready, limit_ten,
     "ten times slab, run queue and indirect call", 0},
    {"await-all-10", "ten ready futures made and awaited together", await_all, limit_ten,
     "ten times slab, run queue and indirect call", 0},
    {.name = NULL},
};
