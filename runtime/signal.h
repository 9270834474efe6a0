/*
 * Signals of the process, waited for on a fiber or as a future.
 *
 *   struct shoal_signal hangup;
 *   int rc = shoal_signal_subscribe(&hangup, SIGHUP);
 *   while (rc >= 0 && (rc = shoal_signal_next(&hangup, SHOAL_NS_FOREVER)) > 0)
 *       reload();
 *   shoal_signal_unsubscribe(&hangup);
 *
 * 1. A signal does what it does by default (signal(7)) until it is subscribed to, and again when
 *    the last subscription has ended. From the subscription on none is missed: what comes while
 *    nobody waits is counted, and the next wait returns at once.
 * 2. The kernel keeps no more than one pending signal of a number (below SIGRTMIN) for a process:
 *    two that come at the same moment may count as one.
 * 3. Any core may subscribe; each subscription, on whatever core, gets every delivery.
 * 4. SIGINT and SIGTERM may be subscribed to as well; they still stop the program (smp/app.h).
 * 5. Not to be had: SIGKILL and SIGSTOP (signal(7)); SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
 *    SIGSYS and SIGABRT, which report a fault of the instruction that runs; and what libc and
 *    Shoal use (32, 33, SIGRTMIN + 1 and + 2).
 */
#ifndef SHOAL_RUNTIME_SIGNAL_H
#define SHOAL_RUNTIME_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/list.h"

SHOAL_BEGIN_DECLS

struct shoal_future;

/* A subscription, embedded in its owner, and where it is while subscribed. All members are private.
 */
struct shoal_signal {
    struct shoal_list node;
    struct shoal_list waiters;
    void (*hook)(struct shoal_signal *signal);
    uint64_t count; /* deliveries that no wait has returned */
    int number;
    uint16_t core;
    bool fresh;
};

/*
 * Begins to count deliveries of signal `number` into `signal`, for the calling core, and unblocks
 * it on the core's thread. 0; -EINVAL for a number that cannot be had (see 5.); -ENOMEM. Core
 * threads only; does not yield.
 */
SHOAL_API int shoal_signal_subscribe(struct shoal_signal *signal, int number);

/*
 * Waits until the signal has been delivered, at most `timeout_ns` (0: not at all;
 * SHOAL_NS_FOREVER). Returns how many deliveries there were since the last call, at least 1 and at
 * most INT_MAX; -ETIMEDOUT, -ECANCELED: then none was taken. Several fibers may wait: the first one
 * gets them. On a fiber of the subscribing core; yields unless there is one already.
 */
SHOAL_API int shoal_signal_next(struct shoal_signal *signal, uint64_t timeout_ns);

/*
 * The same as a future: `i64` is the number of deliveries. A cancel fails it with -ECANCELED. A
 * delivery that resolves a future which nobody consumes is gone.
 */
SHOAL_API struct shoal_future *shoal_signal_next_future(struct shoal_signal *signal);

/*
 * Ends the subscription; the signal's earlier disposition returns with the last one. Futures that
 * are pending fail with -ECANCELED; no fiber may wait. On the subscribing core. Does not yield.
 */
SHOAL_API void shoal_signal_unsubscribe(struct shoal_signal *signal);

/*
 * Subscribes, waits for one delivery and unsubscribes: for a signal that is awaited once. 0,
 * -EINVAL, -ETIMEDOUT, -ECANCELED, -ENOMEM. On a fiber; yields.
 */
SHOAL_API int shoal_signal_wait(int number, uint64_t timeout_ns);

/* The same as a future; the subscription ends with it. */
SHOAL_API struct shoal_future *shoal_signal_future(int number);

SHOAL_END_DECLS

#endif
