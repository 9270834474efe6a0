/*
 * The benchmark of messages between cores: what its files share.
 *
 * A case is one kind of work; its subjects do that work: Shoal in one or several ways, and bare
 * code without Shoal, the limits. In each round every subject of a case takes one sample, one right
 * after the other and in an order that turns, so that a machine which drifts moves all of them.
 *
 * 1. All subjects run on the same two threads: the limits are run by the cores themselves, as a
 *    function that core 1 is asked to run and that returns when the sample ends. So they share the
 *    CPUs, the pinning and the moment with what they are compared to.
 * 2. Time is wall-clock time: two CPUs are at work, and what is asked is when the answer comes.
 * 3. Allocations are what shoal_mem_stats() counts on all cores from before a sample to after it.
 * 4. Only public headers are used, and the shared library, as a user's program would.
 */
#ifndef SHOAL_BENCH_SMP_H
#define SHOAL_BENCH_SMP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <shoal/shoal.h>

/* What one sample says. Latencies only where the case is one of latencies, in the same unit. */
struct smp_sample {
    double value;
    double p50, p99, p999, max;
    bool has_latencies;
    double allocs; /* an operation; filled in by the harness */
};

/* Does its work about `ops` times; returns how many times it did. */
typedef uint64_t smp_fn(uint64_t ops, struct smp_sample *sample);

#define SMP_SUBJECTS_MAX 8

struct smp_subject {
    const char *name; /* "shoal", "limit", or another; NULL ends */
    smp_fn *run;
};

struct smp_case {
    const char *name; /* NULL ends a table */
    const char *unit;
    const char *what;
    unsigned cores_min;
    uint64_t ops;     /* of a sample; 0: what takes about as long as --sample-us says */
    bool limits_spin; /* subjects other than Shoal want a CPU for each core */
    struct smp_subject subjects[SMP_SUBJECTS_MAX];
};

/* Tables, each ended by a case without a name. */
extern const struct smp_case smp_idle_cases[];
extern const struct smp_case smp_call_cases[];
extern const struct smp_case smp_sleep_cases[];
extern const struct smp_case smp_wake_cases[];
extern const struct smp_case smp_busy_cases[];
extern const struct smp_case smp_mesh_cases[];

/* Once, before the cases of all cores run. */
void smp_mesh_init(void);

/* ---- For the cases ---- */

/* The core that is asked by cases between a pair: 1, or 0 where there is no other. */
unsigned smp_target(void);

/* Ends the program, for what cannot be gone on after; `what` says what failed. */
void smp_fail(const char *what, int code) __attribute__((noreturn));

static inline void smp_check(int code, const char *what)
{
    if (code < 0)
        smp_fail(what, code);
}

/* `ns` in all for `ops` operations becomes the sample's value. */
static inline uint64_t smp_ns_each(struct smp_sample *sample, uint64_t ns, uint64_t ops)
{
    sample->value = ops != 0 ? (double)ns / (double)ops : 0.0;
    return ops;
}

/* Sorts `ns` and fills the sample in, in microseconds. */
void smp_latencies(struct smp_sample *sample, uint64_t *ns, uint64_t count);

/* The same, with the median as the value. */
uint64_t smp_median_us(struct smp_sample *sample, uint64_t *ns, uint64_t count);

#define SMP_LATENCIES_MAX 20000
extern uint64_t smp_latency_ns[SMP_LATENCIES_MAX]; /* core 0's, for whoever runs */

/*
 * Has `fn(arg)` run on core 1 until it returns by itself, and returns once it has begun there:
 * the fiber may then hold core 0. `fn` begins with smp_peer_begun().
 */
void smp_peer_start(shoal_submit_fn *fn, void *arg);
void smp_peer_begun(void);
void smp_peer_join(void);

/* Waits for `ns` without sleeping, while the loop goes on. */
void smp_pause_awake(uint64_t ns);

/* ---- Limits ---- */

smp_fn smp_limit_line;      /* a cache line there and one back, each written by one side */
smp_fn smp_limit_one_line;  /* the same line there and back */
smp_fn smp_limit_slots_1;   /* slots with a sequence number each */
smp_fn smp_limit_slots_16;  /* that many in flight */
smp_fn smp_limit_slots_256; /* */
smp_fn smp_limit_mesh;      /* the same from both cores to each other */

/* Keeps the compiler from dropping a value. */
#define SMP_USE(value) __asm__ volatile("" : : "g"(value) : "memory")

static inline uint64_t smp_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

#endif
