/*
 * Messages to a core that never idles: how long until the answer is there. Core 1 has endless ready
 * work, of tasks of at most 5 us, or of 100 us; core 0 asks at random moments, with one in flight.
 *
 *   one      one task that posts itself again
 *   crowd    1,000 ready tasks, each of which posts itself again
 *   mixed    the same, of random lengths up to the longest
 *   rare     the same, short ones of which one in 64 is as long as the longest
 *   fibers   200 fibers that yield
 *   groups   fibers in four scheduling groups with ten times the main one's shares each
 *
 * A core that ran its queue to the end before it looks for messages would take 5 ms for `crowd`,
 * and one that waits for its quota half a millisecond. What must be reached: a p99 of 20 us, and
 * with tasks of 100 us one task more.
 */
#include "smp.h"

#define CROWD         1000u
#define FIBERS        200u
#define GROUPS        4u
#define GROUP_FIBERS  8u
#define SHORT_NS      (5 * SHOAL_NS_PER_US)
#define LONG_NS       (100 * SHOAL_NS_PER_US)
#define TINY_NS       150u
#define RARE          64u
#define PAUSE_NS      (20 * SHOAL_NS_PER_US)
#define SAMPLE_NS_MAX SHOAL_NS_PER_S /* even where each answer takes its time */
#define OPS_SHORT     2000u
#define OPS_LONG      400u

enum length { LENGTH_FULL, LENGTH_RANDOM, LENGTH_RARE };

/* What core 1 is told; it belongs to core 1 from the start of the load to its end. */
struct load {
    enum length length;
    uint64_t longest_ns;
    unsigned tasks;
    unsigned fibers; /* of each group */
    unsigned groups; /* 0: the main one */
};

static struct {
    struct load load;
    struct shoal_task tasks[CROWD];
    struct shoal_sched_group *groups[GROUPS];
    uint64_t random;
    unsigned live;
    bool stop;
    struct shoal_future *ended;
} there;

static uint64_t length_ns(void)
{
    uint64_t random = smp_random(&there.random);
    switch (there.load.length) {
    case LENGTH_RANDOM:
        return random % there.load.longest_ns;
    case LENGTH_RARE:
        return random % RARE == 0 ? there.load.longest_ns : TINY_NS;
    default:
        return there.load.longest_ns;
    }
}

/* Holds the core; the reads of the clock at the end are part of the length. */
static void work(void)
{
    uint64_t until_ns = shoal_now_ns() + length_ns();
    while (shoal_now_ns() < until_ns)
        ;
}

static void one_ends(void)
{
    if (--there.live == 0 && there.ended != NULL)
        shoal_future_resolve(there.ended, NULL);
}

static void run_task(struct shoal_task *task)
{
    work();
    if (there.stop)
        one_ends();
    else
        shoal_task_post(task);
}

static int run_fiber(void *arg)
{
    (void)arg;
    while (!there.stop) {
        work();
        (void)shoal_yield();
    }
    one_ends();
    return 0;
}

static void spawn(struct shoal_sched_group *group)
{
    struct shoal_sched_group *own = shoal_sched_group_self();
    if (group != NULL)
        shoal_sched_group_enter(group);
    for (unsigned i = 0; i < there.load.fibers; i++)
        smp_check(shoal_fiber_spawn_detached(run_fiber, NULL, "load"), "a fiber");
    there.live += there.load.fibers;
    shoal_sched_group_enter(own);
}

/* On a fiber of core 1. */
static int load_start(void *arg, union shoal_value *out)
{
    there.load = *(const struct load *)arg;
    there.random = 88172645463325252;
    there.live = there.load.tasks;
    there.stop = false;
    there.ended = NULL;
    for (unsigned i = 0; i < there.load.tasks; i++) {
        there.tasks[i].run = run_task;
        shoal_task_post(&there.tasks[i]);
    }
    for (unsigned i = 0; i < there.load.groups; i++) {
        if (there.groups[i] == NULL)
            smp_check(shoal_sched_group_new(&there.groups[i], "load", SHOAL_SCHED_SHARES_MAX),
                      "a scheduling group");
        spawn(there.groups[i]);
    }
    if (there.load.groups == 0)
        spawn(NULL);
    out->u64 = there.live;
    return 0;
}

/* On a fiber of core 1: returns once the load has ended. */
static int load_stop(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = 0;
    there.stop = true;
    if (there.live == 0)
        return 0;
    there.ended = shoal_future_new();
    return shoal_await(there.ended, NULL);
}

static int add_one(void *arg, union shoal_value *out)
{
    uint64_t *counter = arg;
    out->u64 = ++*counter;
    return 0;
}

static uint64_t ask_busy(uint64_t ops, struct smp_sample *sample, const struct load *load)
{
    static uint64_t counter;
    static uint64_t random = 2463534242;
    struct load copy = *load;
    smp_check(shoal_await(shoal_submit_fiber_to(1, load_start, &copy), NULL), "a load");
    uint64_t start_ns = shoal_now_ns();
    uint64_t asked = 0;
    while (asked < ops && shoal_now_ns() - start_ns < SAMPLE_NS_MAX) {
        smp_pause_awake(smp_random(&random) % PAUSE_NS);
        uint64_t begin_ns = shoal_now_ns();
        smp_check(shoal_await(shoal_submit_to(1, add_one, &counter), NULL), "a message");
        smp_latency_ns[asked++] = shoal_now_ns() - begin_ns;
    }
    smp_check(shoal_await(shoal_submit_fiber_to(1, load_stop, NULL), NULL), "a load's end");
    smp_latencies(sample, smp_latency_ns, asked);
    return asked;
}

#define LOAD_CASE(name, ...)                                                                       \
    static uint64_t name(uint64_t ops, struct smp_sample *sample)                                  \
    {                                                                                              \
        static const struct load load = {__VA_ARGS__};                                             \
        return ask_busy(ops, sample, &load);                                                       \
    }

LOAD_CASE(one, .longest_ns = SHORT_NS, .tasks = 1)
LOAD_CASE(crowd, .longest_ns = SHORT_NS, .tasks = CROWD)
LOAD_CASE(mixed, .longest_ns = SHORT_NS, .tasks = CROWD, .length = LENGTH_RANDOM)
LOAD_CASE(rare, .longest_ns = SHORT_NS, .tasks = CROWD, .length = LENGTH_RARE)
LOAD_CASE(fibers, .longest_ns = SHORT_NS, .fibers = FIBERS)
LOAD_CASE(groups, .longest_ns = SHORT_NS, .fibers = GROUP_FIBERS, .groups = GROUPS)
LOAD_CASE(one_long, .longest_ns = LONG_NS, .tasks = 1)
LOAD_CASE(crowd_long, .longest_ns = LONG_NS, .tasks = CROWD)
LOAD_CASE(mixed_long, .longest_ns = LONG_NS, .tasks = CROWD, .length = LENGTH_RANDOM)
LOAD_CASE(rare_long, .longest_ns = LONG_NS, .tasks = CROWD, .length = LENGTH_RARE)
LOAD_CASE(fibers_long, .longest_ns = LONG_NS, .fibers = FIBERS)
LOAD_CASE(groups_long, .longest_ns = LONG_NS, .fibers = GROUP_FIBERS, .groups = GROUPS)

#define BUSY(name, what, ops, fn)                                                                  \
    {                                                                                              \
        name, "us", what, 2, ops, false,                                                           \
        {                                                                                          \
            {                                                                                      \
                "shoal", fn                                                                        \
            }                                                                                      \
        }                                                                                          \
    }

const struct smp_case smp_busy_cases[] = {
    BUSY("submit-busy-one", "one task of 5 us, endlessly; p99", OPS_SHORT, one),
    BUSY("submit-busy-crowd", "1,000 ready tasks of 5 us", OPS_SHORT, crowd),
    BUSY("submit-busy-mixed", "1,000 ready tasks of up to 5 us", OPS_SHORT, mixed),
    BUSY("submit-busy-rare", "1,000 short ready tasks, one in 64 of 5 us", OPS_SHORT, rare),
    BUSY("submit-busy-fibers", "200 fibers that yield every 5 us", OPS_SHORT, fibers),
    BUSY("submit-busy-groups", "fibers in four scheduling groups", OPS_SHORT, groups),
    BUSY("submit-busy-100us-one", "one task of 100 us", OPS_LONG, one_long),
    BUSY("submit-busy-100us-crowd", "1,000 ready tasks of 100 us", OPS_LONG, crowd_long),
    BUSY("submit-busy-100us-mixed", "1,000 ready tasks of up to 100 us", OPS_LONG, mixed_long),
    BUSY("submit-busy-100us-rare", "1,000 short tasks, one in 64 of 100 us", OPS_LONG, rare_long),
    BUSY("submit-busy-100us-fibers", "200 fibers that yield every 100 us", OPS_LONG, fibers_long),
    BUSY("submit-busy-100us-groups", "fibers in four scheduling groups", OPS_LONG, groups_long),
    {.name = NULL},
};
