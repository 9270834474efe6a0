/*
 * The single-core micro-benchmark: what its files share.
 *
 * A case measures one operation of Shoal, and beside it the limit: the least work that any
 * implementation of it must do on this machine (a switch of registers, an indirect call, an insert
 * into a list), written out bare in limits.c.
 *
 * 1. A case repeats its operation, and calls micro_start() and micro_stop() around the stretches
 *    that count; both work on the watch, which sums them up. What lies between does not count.
 * 2. Time is the CPU time of the thread: what other processes do on the same CPU is left out.
 * 3. Allocations are the calls that shoal_mem_stats() counts between start and stop.
 * 4. All cases run on a fiber of core 0 of a program with one core; only public headers are used.
 */
#ifndef SHOAL_BENCH_MICRO_H
#define SHOAL_BENCH_MICRO_H

#include <stdint.h>

struct micro_watch {
    uint64_t begin_ns;
    uint64_t begin_allocs;
    uint64_t ns;
    uint64_t allocs;
    uint64_t ops;
};

/* Repeats the operation about `ops` times, and adds to the watch what it took. */
typedef void micro_fn(struct micro_watch *watch, uint64_t ops);

struct micro_case {
    const char *name;
    const char *what;       /* the operation, for people */
    micro_fn *run;          /* NULL ends a table */
    micro_fn *limit;        /* NULL: no limit is known */
    const char *limit_what; /* what the limit does */
    uint64_t ops;           /* operations a sample; 0: what takes about 1 ms */
};

void micro_start(struct micro_watch *watch);

/* `ops`: how many operations have been done since the start. */
void micro_stop(struct micro_watch *watch, uint64_t ops);

/* Tables of cases, each ended by one without a name. */
extern const struct micro_case micro_future_cases[];
extern const struct micro_case micro_fiber_cases[];
extern const struct micro_case micro_timer_cases[];
extern const struct micro_case micro_core_cases[];
extern const struct micro_case micro_combine_cases[];
extern const struct micro_case micro_sync_cases[];

/* limits.c. Those with a batch handle that many objects at a time, as their case does. */
#define MICRO_CHAINS 64  /* chains of three: 16 KiB of futures, which the first cache holds */
#define MICRO_BATCH  128 /* objects in all other batches */

micro_fn micro_limit_task_chain; /* slab, run queue, indirect call; 3 * MICRO_CHAINS objects */
micro_fn micro_limit_task;       /* the same, MICRO_BATCH objects */
micro_fn micro_limit_queue;      /* run queue and indirect call of embedded tasks */
micro_fn micro_limit_slab;       /* one object taken, written, read, given back */
micro_fn micro_limit_call;       /* an indirect call */
micro_fn micro_limit_switch;     /* one switch of registers, which ends in an indirect jump */
micro_fn micro_limit_two_switches;
micro_fn micro_limit_cycles; /* a read of the cycle counter */
micro_fn micro_limit_load;   /* a load and a compare */

/* Keeps the compiler from dropping a value. */
#define MICRO_USE(value) __asm__ volatile("" : : "g"(value) : "memory")

static inline uint64_t micro_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

#endif
