/*
 * The balancer: which core should serve a connection that this one has accepted.
 *
 *   each core:   load line  { open, closed, clock of its thread }   written by it alone
 *                    |  read by the others, each line at most once per interval, relaxed
 *                    v
 *   each listener:  view of all cores -> plan (whom to give the next few) -> pick, one per accept
 *
 * 1. A load line costs its core a plain store when a connection opens or closes: no atomic
 *    read-modify-write, and no miss unless somebody has just read it.
 * 2. O(cores) work is done at most once per interval, which grows with their number, or once for as
 *    many connections as there are cores; a pick between two looks is O(1). Nothing runs while
 *    nobody connects: no timer, no poll.
 * 3. Two reasons to hand over, each with its own plan:
 *    connections: this core serves more than the mean by a margin, and connections last. It goes on
 *    until it is well inside the margin again (hysteresis).
 *    time: this core uses much of its CPU, and more than the mean does. A share of the fresh
 *    connections goes to those that have time; it grows by steps while that does not help, and
 *    shrinks when it has.
 * 4. Numbers are stale by an interval and more. So nothing is decided by them alone: a plan is
 *    short; what was given is added to the view; and the target takes a connection that was sent
 *    for the sake of numbers only while it serves fewer than the sender did (`below`). However
 *    stale the view, a hand-over never makes the fullest core fuller.
 * 5. Among equals each core begins to look behind itself, so that not all choose the same.
 *
 * Rejected: one counter or lock for all (exact, and a line that every accept of every core takes
 * from the others); a program in the kernel that picks the socket (costs nothing, but knows neither
 * counts nor load, and a Unix socket has none to pick); all accepts on one core (a bottleneck, and
 * its view of the others lags behind that of itself); counting in messages (the count lags most
 * where a core is busiest); a timer that publishes how busy a core is (wakes idle cores: whoever
 * asks reads the thread's clock instead).
 */
#ifndef SHOAL_NET_BALANCE_IMPL_H
#define SHOAL_NET_BALANCE_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "shoal/runtime/compiler.h"

#define SHOAL_BALANCE_PLAN_MAX 16

/* What a core tells the others of itself. Lives as long as its core. */
struct shoal_load {
    _Atomic uint32_t open;       /* accepted connections that it serves */
    _Atomic uint32_t closed;     /* those that it has served, ever; wraps */
    _Atomic uint64_t changed_us; /* when one of the two last changed, and until then: */
    _Atomic uint64_t lived_us;   /* the time that all its connections have been open, added up */
    clockid_t cpu_clock;         /* of its thread; written before anybody else can see the line */
} __attribute__((aligned(SHOAL_CACHE_LINE)));

/*
 * Only its own core writes a line, so that loads and stores do. relaxed: no order is needed; what a
 * reader takes for one moment may be two, a change apart, which is less than what it is old.
 */
static inline void shoal_load_count(struct shoal_load *load, uint64_t now_ns, bool closed)
{
    uint32_t open = atomic_load_explicit(&load->open, memory_order_relaxed);
    uint64_t now_us = now_ns / 1000;
    uint64_t passed_us = now_us - atomic_load_explicit(&load->changed_us, memory_order_relaxed);
    atomic_store_explicit(&load->lived_us,
                          atomic_load_explicit(&load->lived_us, memory_order_relaxed) +
                              open * passed_us,
                          memory_order_relaxed);
    atomic_store_explicit(&load->changed_us, now_us, memory_order_relaxed);
    atomic_store_explicit(&load->open, closed ? open - 1 : open + 1, memory_order_relaxed);
    if (closed)
        atomic_store_explicit(&load->closed,
                              atomic_load_explicit(&load->closed, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

static inline uint32_t shoal_load_open(const struct shoal_load *load)
{
    return atomic_load_explicit(&load->open, memory_order_relaxed);
}

/* One core, as another one saw it last. */
struct shoal_balance_view {
    uint32_t open;
    uint32_t closed;   /* when it was last judged how long connections last */
    uint64_t lived_us; /* the same */
    uint64_t cpu_ns;   /* that its thread had used when it was last judged how busy the cores are */
    uint16_t busy;     /* CPU time between the last two of these, in 1/1024 of one CPU */
    bool there;        /* its listener runs */
};

struct shoal_balance_plan {
    uint16_t core[SHOAL_BALANCE_PLAN_MAX];
    uint8_t count;
    uint8_t next;
};

struct shoal_balancer {
    _Atomic(struct shoal_load *) *loads; /* by core; NULL while it does not listen */
    unsigned self;
    unsigned cores;
    uint64_t interval_ns;
    uint64_t next_look_ns;
    uint32_t looked_open; /* connections of this core, at the last look */
    uint64_t counted_ns;  /* when it was last judged how long connections last, */
    uint64_t timed_ns;    /* and how busy the cores are */
    bool samples_cpu;     /* not in poll mode, where all are busy all the time */
    bool over;            /* too many connections here */
    bool brief;           /* connections come and go fast: their number says little */
    uint16_t share;       /* of fresh connections that others with more time get, in 1/1024 */
    uint16_t owed;        /* what is left over from `share` of those before */
    struct shoal_balance_plan by_open;
    struct shoal_balance_plan by_busy;
    struct shoal_balance_view view[]; /* by core */
};

struct shoal_balance_target {
    unsigned core;
    uint32_t below; /* it is to take the connection only while it serves fewer than so many */
};

/* A balancer of the calling core; `loads` as above. NULL when out of memory. */
struct shoal_balancer *shoal_balancer_new(_Atomic(struct shoal_load *) *loads, unsigned cores,
                                          bool samples_cpu);
void shoal_balancer_free(struct shoal_balancer *balancer);

/* Whether somebody else should serve the next connection, and who. */
bool shoal_balancer_pick(struct shoal_balancer *balancer, uint64_t now_ns,
                         struct shoal_balance_target *out);

/*
 * The parts of a pick, for tests: what follows from the view.
 *   judge_counts: in `elapsed_us` so many connections have ended on all cores, and all that were
 *                 open were so for `lived_us`, added up
 *   judge_times:  `busy` of all has been read
 *   plan:         `open` of all has been read
 */
void shoal_balancer_judge_counts(struct shoal_balancer *balancer, uint64_t elapsed_us,
                                 uint64_t closed, uint64_t lived_us);
void shoal_balancer_judge_times(struct shoal_balancer *balancer);
void shoal_balancer_plan(struct shoal_balancer *balancer);

/* The CPU clock of the calling thread, for other threads to read. */
clockid_t shoal_load_cpu_clock(void);

#endif
