/*
 * Timers, one million live.
 *
 * Deadlines: a quarter within a second (retries, delays), half within a minute (the timeouts of
 * connections and requests), a quarter within an hour (sessions, caches), each evenly spread, drawn
 * from a fixed seed; and five seconds later than that, so that nothing fires while it is measured.
 *
 *   timer-arm, timer-cancel   a million stays armed; 1,024 more are armed and cancelled again and
 *                             again, as the timeouts of what goes on just now are
 *   ...-all                   the million itself, in the order in which it lies in memory
 *   ...-random                the same in random order: each one is a cache miss
 *
 * The limit does the same to as many intrusive lists as the wheel has slots in use, with objects of
 * the same size in the same order: the list is all that it knows.
 */
#include <stddef.h>
#include <stdlib.h>

#include <shoal/shoal.h>

#include "micro.h"

#define LIVE      1000000u
#define HOT       1024u
#define SLOTS     128u /* what the deadlines above come to, a power of two */
#define HOT_LOOPS 64u

enum order { IN_ORDER, HOT_GROUP, RANDOM_ORDER };

struct plain {
    struct shoal_list node;
    unsigned char rest[sizeof(struct shoal_timer) - sizeof(struct shoal_list)];
};

static struct {
    struct shoal_timer *timers; /* LIVE, then HOT */
    struct plain *plain;
    uint64_t *deadlines_ns;
    uint32_t *permutation;
    struct shoal_list slots[SLOTS];
} all;

static void never(struct shoal_timer *timer)
{
    (void)timer;
}

static uint64_t draw_delay_ns(uint64_t *seed)
{
    uint64_t kind = micro_random(seed) % 4;
    uint64_t span_ns = SHOAL_NS_PER_S * (kind == 0 ? 1u : kind == 3 ? 3600u : 60u);
    return micro_random(seed) % span_ns;
}

static void prepare(void)
{
    if (all.timers != NULL)
        return;
    all.timers = calloc(LIVE + HOT, sizeof(*all.timers));
    all.plain = calloc(LIVE + HOT, sizeof(*all.plain));
    all.deadlines_ns = calloc(LIVE + HOT, sizeof(*all.deadlines_ns));
    all.permutation = calloc(LIVE, sizeof(*all.permutation));
    if (all.timers == NULL || all.plain == NULL || all.deadlines_ns == NULL ||
        all.permutation == NULL)
        abort();
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < LIVE + HOT; i++) {
        shoal_timer_init(&all.timers[i], never);
        shoal_list_init(&all.plain[i].node);
        all.deadlines_ns[i] = draw_delay_ns(&seed);
    }
    for (uint32_t i = 0; i < LIVE; i++)
        all.permutation[i] = i;
    for (uint32_t i = LIVE - 1; i > 0; i--) {
        uint32_t other = (uint32_t)(micro_random(&seed) % (i + 1));
        uint32_t kept = all.permutation[i];
        all.permutation[i] = all.permutation[other];
        all.permutation[other] = kept;
    }
    for (uint32_t i = 0; i < SLOTS; i++)
        shoal_list_init(&all.slots[i]);
}

/* What the delays count from. */
static uint64_t base_ns(void)
{
    return shoal_now_ns() + 5 * SHOAL_NS_PER_S;
}

/* ---- Shoal's timers ---- */

static void arm_all(const uint32_t *permutation)
{
    const uint64_t base = base_ns();
    for (uint32_t i = 0; i < LIVE; i++) {
        uint32_t which = permutation != NULL ? permutation[i] : i;
        shoal_timer_arm_at(&all.timers[which], base + all.deadlines_ns[which]);
    }
}

static void cancel_all(const uint32_t *permutation)
{
    for (uint32_t i = 0; i < LIVE; i++)
        (void)shoal_timer_cancel(&all.timers[permutation != NULL ? permutation[i] : i]);
}

static void measure_hot(struct micro_watch *arm, struct micro_watch *cancel)
{
    struct micro_watch unused = {0};
    arm_all(NULL);
    for (unsigned loop = 0; loop < HOT_LOOPS; loop++) {
        const uint64_t base = base_ns();
        micro_start(arm != NULL ? arm : &unused);
        for (uint32_t i = LIVE; i < LIVE + HOT; i++)
            shoal_timer_arm_at(&all.timers[i], base + all.deadlines_ns[i]);
        micro_stop(arm != NULL ? arm : &unused, HOT);
        micro_start(cancel != NULL ? cancel : &unused);
        for (uint32_t i = LIVE; i < LIVE + HOT; i++)
            (void)shoal_timer_cancel(&all.timers[i]);
        micro_stop(cancel != NULL ? cancel : &unused, HOT);
    }
    cancel_all(NULL);
}

static void measure(enum order order, struct micro_watch *arm, struct micro_watch *cancel)
{
    struct micro_watch unused = {0};
    prepare();
    if (order == HOT_GROUP) {
        measure_hot(arm, cancel);
        return;
    }
    const uint32_t *permutation = order == RANDOM_ORDER ? all.permutation : NULL;
    micro_start(arm != NULL ? arm : &unused);
    arm_all(permutation);
    micro_stop(arm != NULL ? arm : &unused, LIVE);
    micro_start(cancel != NULL ? cancel : &unused);
    cancel_all(permutation);
    micro_stop(cancel != NULL ? cancel : &unused, LIVE);
}

/* ---- Bare lists ---- */

static inline void plain_insert(uint32_t i)
{
    shoal_list_push_back(&all.slots[all.deadlines_ns[i] % SLOTS], &all.plain[i].node);
}

static void insert_all(const uint32_t *permutation)
{
    for (uint32_t i = 0; i < LIVE; i++)
        plain_insert(permutation != NULL ? permutation[i] : i);
}

static void remove_all(const uint32_t *permutation)
{
    for (uint32_t i = 0; i < LIVE; i++)
        shoal_list_remove(&all.plain[permutation != NULL ? permutation[i] : i].node);
}

static void limit_hot(struct micro_watch *insert, struct micro_watch *removed)
{
    struct micro_watch unused = {0};
    insert_all(NULL);
    for (unsigned loop = 0; loop < HOT_LOOPS; loop++) {
        micro_start(insert != NULL ? insert : &unused);
        for (uint32_t i = LIVE; i < LIVE + HOT; i++)
            plain_insert(i);
        micro_stop(insert != NULL ? insert : &unused, HOT);
        micro_start(removed != NULL ? removed : &unused);
        for (uint32_t i = LIVE; i < LIVE + HOT; i++)
            shoal_list_remove(&all.plain[i].node);
        micro_stop(removed != NULL ? removed : &unused, HOT);
    }
    remove_all(NULL);
}

static void limit(enum order order, struct micro_watch *insert, struct micro_watch *removed)
{
    struct micro_watch unused = {0};
    prepare();
    if (order == HOT_GROUP) {
        limit_hot(insert, removed);
        return;
    }
    const uint32_t *permutation = order == RANDOM_ORDER ? all.permutation : NULL;
    micro_start(insert != NULL ? insert : &unused);
    insert_all(permutation);
    micro_stop(insert != NULL ? insert : &unused, LIVE);
    micro_start(removed != NULL ? removed : &unused);
    remove_all(permutation);
    micro_stop(removed != NULL ? removed : &unused, LIVE);
}

/* ---- Cases: `ops` is not asked for, the number of timers says how many ---- */

#define TIMER_CASE(name, order)                                                                    \
    static void name##_arm(struct micro_watch *watch, uint64_t ops)                                \
    {                                                                                              \
        (void)ops;                                                                                 \
        measure(order, watch, NULL);                                                               \
    }                                                                                              \
    static void name##_cancel(struct micro_watch *watch, uint64_t ops)                             \
    {                                                                                              \
        (void)ops;                                                                                 \
        measure(order, NULL, watch);                                                               \
    }                                                                                              \
    static void name##_insert(struct micro_watch *watch, uint64_t ops)                             \
    {                                                                                              \
        (void)ops;                                                                                 \
        limit(order, watch, NULL);                                                                 \
    }                                                                                              \
    static void name##_remove(struct micro_watch *watch, uint64_t ops)                             \
    {                                                                                              \
        (void)ops;                                                                                 \
        limit(order, NULL, watch);                                                                 \
    }

TIMER_CASE(in_order, IN_ORDER)
TIMER_CASE(hot, HOT_GROUP)
TIMER_CASE(random_order, RANDOM_ORDER)

static void arm_relative(struct micro_watch *watch, uint64_t ops)
{
    prepare();
    struct shoal_timer *timer = &all.timers[0];
    micro_start(watch);
    for (uint64_t i = 0; i < ops; i++) {
        shoal_timer_arm(timer, SHOAL_NS_PER_S + i);
        (void)shoal_timer_cancel(timer);
    }
    micro_stop(watch, ops);
}

const struct micro_case micro_timer_cases[] = {
    {"timer-arm", "armed while a million more are live", hot_arm, hot_insert,
     "insert into a bare list", (uint64_t)HOT *HOT_LOOPS},
    {"timer-cancel", "cancelled while a million more are live", hot_cancel, hot_remove,
     "remove from a bare list", (uint64_t)HOT *HOT_LOOPS},
    {"timer-arm-all", "armed, a million from none to all", in_order_arm, in_order_insert,
     "insert into a bare list", LIVE},
    {"timer-cancel-all", "cancelled, a million from all to none", in_order_cancel, in_order_remove,
     "remove from a bare list", LIVE},
    {"timer-arm-random", "armed, a million in random order", random_order_arm, random_order_insert,
     "insert into a bare list", LIVE},
    {"timer-cancel-random", "cancelled, a million in random order", random_order_cancel,
     random_order_remove, "remove from a bare list", LIVE},
    {"timer-relative", "armed from now and cancelled", arm_relative, micro_limit_cycles,
     "read of the cycle counter", 0},
    {.name = NULL},
};
