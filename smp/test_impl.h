/*
 * The manual clock of a test run: one time for all cores, and who finds out that all are at rest.
 *
 * A core with nothing to do asks its clock how long it may wait (struct shoal_clock, wait_ns). So
 * the clock hears from every core that comes to rest, and the last one of them moves time.
 *
 *   round 7:  core 0 looks, looks again, quiet       core 1 looks, looks again, quiet -> all quiet:
 *   round 8:  time has moved; both look anew ...
 *
 * 1. A core is quiet in a round when it has found nothing to run twice in that round, with a look
 *    at I/O in between; with operations in flight, a third time after waiting GRACE_NS for them;
 *    and when none of its helper threads is at work, for which it looks again every GRACE_NS.
 * 2. A core that has run anything since its last look begins a new round, in which no core is
 *    quiet: it may have sent something to one that was. Cores that have not looked in this round
 *    are poked.
 * 3. Only when all cores are quiet in one and the same round is everything at rest. Then time goes
 *    on to the goal of shoal_test_clock_advance(), but no further than the next timer of any core;
 *    or, on a clock that moves by itself, to that timer; and a new round begins. Without either,
 *    all cores sleep.
 * 4. Once the test function has returned, time passes as the system's does: the stop needs it.
 *
 * Pokes are tasks, which the cores count out again, so that they are not taken for something that
 * ran. All is guarded by the lock but the time itself, which any core may read.
 */
#ifndef SHOAL_SMP_TEST_IMPL_H
#define SHOAL_SMP_TEST_IMPL_H

#include <stdatomic.h>

#include <pthread.h>

#include "shoal/runtime/clock_impl.h"

#include "shoal/smp/mailbox_impl.h"
#include "shoal/smp/test.h"

/* What one core last told. Written by that core, under the lock. */
struct shoal_test_core {
    struct shoal_test_time *time;
    struct shoal_core *core;
    struct shoal_task poke;
    bool poked; /* the task is queued */
    bool quiet;
    bool helpers_work; /* threads of its blocking pool */
    unsigned looks;    /* in `round` */
    uint64_t round;    /* of its last look */
    uint64_t work;     /* tasks and timers that have run by then */
    uint64_t pokes;    /* tasks that do not count */
    uint64_t fired;    /* timers that this clock has fired itself */
    uint64_t next_ns;  /* its first timer */
} __attribute__((aligned(SHOAL_CACHE_LINE)));

struct shoal_test_wait;

struct shoal_test_time {
    struct shoal_clock clock; /* first: the cores see this */
    bool moves_by_itself;
    unsigned cores;
    struct shoal_test_core *core; /* `cores` of them */
    _Atomic uint64_t now_ns;
    _Atomic uint64_t released_ns; /* the system's time at the end of the test; 0 before */
    pthread_mutex_t lock;
    uint64_t round;
    struct shoal_test_wait *wait; /* who wants time to move; NULL: nobody */
    uint64_t stuck_ns;            /* real time without anything to do that is worth a word */
    uint64_t stuck_round;
    uint64_t stuck_since_ns;
    bool stuck_told;
};

/* 0 or -ENOMEM. */
int shoal_test_time_init(struct shoal_test_time *time, unsigned cores, bool moves_by_itself);
void shoal_test_time_deinit(struct shoal_test_time *time);

/* From here on time passes. On a core, while all cores still run. */
void shoal_test_time_release(struct shoal_test_time *time);

#endif
