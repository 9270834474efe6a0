/*
 * Fibers: yields between two and between sixteen fibers, and the whole life of a short one.
 */
#include <stddef.h>

#include <shoal/shoal.h>

#include "micro.h"

struct yielders {
    struct micro_watch *watch;
    uint64_t each;
    uint64_t total;
    unsigned running;
};

static int yield_often(void *arg)
{
    struct yielders *yielders = arg;
    if (yielders->running++ == 0)
        micro_start(yielders->watch);
    for (uint64_t i = 0; i < yielders->each; i++)
        (void)shoal_yield();
    if (--yielders->running == 0)
        micro_stop(yielders->watch, yielders->total);
    return 0;
}

static void yield_among(struct micro_watch *watch, uint64_t ops, unsigned fibers)
{
    struct shoal_fiber *fiber[16];
    struct yielders yielders = {watch, ops / fibers + 1, 0, 0};
    yielders.total = yielders.each * fibers;
    for (unsigned i = 0; i < fibers; i++)
        if (shoal_fiber_spawn(&fiber[i], yield_often, &yielders, "yielder") != 0)
            return;
    for (unsigned i = 0; i < fibers; i++)
        (void)shoal_fiber_join(fiber[i]);
}

static void yield_two(struct micro_watch *watch, uint64_t ops)
{
    yield_among(watch, ops, 2);
}

static void yield_sixteen(struct micro_watch *watch, uint64_t ops)
{
    yield_among(watch, ops, 16);
}

static int return_at_once(void *arg)
{
    uint64_t *calls = arg;
    (*calls)++;
    return 0;
}

static void spawn_join(struct micro_watch *watch, uint64_t ops)
{
    uint64_t calls = 0;
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        struct shoal_fiber *fiber;
        if (shoal_fiber_spawn(&fiber, return_at_once, &calls, "child") == 0)
            (void)shoal_fiber_join(fiber);
    }
    micro_stop(watch, calls);
}

static void spawn_many(struct micro_watch *watch, uint64_t ops)
{
    enum { AT_ONCE = 32 }; /* fewer than the pool keeps warm */
    struct shoal_fiber *fiber[AT_ONCE];
    uint64_t calls = 0;
    micro_start(watch);
    while (calls < ops) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            if (shoal_fiber_spawn(&fiber[i], return_at_once, &calls, "child") != 0)
                return;
        for (unsigned i = 0; i < AT_ONCE; i++)
            (void)shoal_fiber_join(fiber[i]);
    }
    micro_stop(watch, calls);
}

const struct micro_case micro_fiber_cases[] = {
    {"fiber-yield", "one yield and resume, two fibers", yield_two, micro_limit_switch,
     "one register switch, indirect jump", 0},
    {"fiber-yield-16", "the same, sixteen fibers", yield_sixteen, micro_limit_switch,
     "one register switch, indirect jump", 0},
    {"fiber-spawn-join", "a fiber spawned and joined", spawn_join, micro_limit_two_switches,
     "two register switches", 0},
    {"fiber-spawn-join-32", "the same, 32 spawned before the first is joined", spawn_many,
     micro_limit_two_switches, "two register switches", 0},
    {.name = NULL},
};
