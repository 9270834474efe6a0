/*
 * A condition: fibers and futures of one core wait until another says that something has changed.
 *
 *   while (queue_is_empty(&queue)) {
 *       int rc = shoal_condition_wait(&filled, NULL, SHOAL_NS_FOREVER);
 *       if (rc < 0)
 *           return rc;
 *   }
 *
 * 1. A signal wakes the first in line; without anybody in line it is not remembered.
 * 2. A signal that has reached a waiter is not lost: neither a time-out nor a cancel comes after
 *    it, and from a future that nobody consumes it goes on to the next in line.
 * 3. The mutex is needed only where a fiber waits between its look at the state and its use.
 */
#ifndef SHOAL_RUNTIME_CONDITION_H
#define SHOAL_RUNTIME_CONDITION_H

#include "shoal/runtime/mutex.h"
#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_condition {
    struct shoal_wait_queue queue; /* private, as is the rest */
    uint32_t pending;
};

/* Whether what a fiber waits for holds. May not yield. */
typedef bool shoal_condition_fn(void *arg);

SHOAL_API void shoal_condition_init(struct shoal_condition *condition);

/* Nobody may wait. */
SHOAL_API void shoal_condition_deinit(struct shoal_condition *condition);

/*
 * Waits for a signal. With `mutex` (NULL: none), which the caller holds, it is unlocked meanwhile
 * and locked again whatever the result, however long that takes, and even on a fiber that is
 * cancelled. 0 by a signal; -ETIMEDOUT; the code of the fiber's cancel. On a fiber; yields. What
 * the signal was for may be gone again: look.
 */
SHOAL_API int shoal_condition_wait(struct shoal_condition *condition, struct shoal_mutex *mutex,
                                   uint64_t timeout_ns);

/*
 * Waits until `holds(arg)`, which is asked at once and after each signal. 0 when it holds, even as
 * the time is up; -ETIMEDOUT; the code of the fiber's cancel. On a fiber; yields unless it holds.
 */
SHOAL_API int shoal_condition_wait_for(struct shoal_condition *condition, shoal_condition_fn *holds,
                                       void *arg, uint64_t timeout_ns);

/* A future that resolves by a signal; its value means nothing. -ETIMEDOUT, -ECANCELED, -ENOMEM. */
SHOAL_API struct shoal_future *shoal_condition_wait_future(struct shoal_condition *condition,
                                                           uint64_t timeout_ns);

/* Wakes the first in line, or everyone that is in line now. Do not yield. */
SHOAL_API void shoal_condition_signal(struct shoal_condition *condition);
SHOAL_API void shoal_condition_broadcast(struct shoal_condition *condition);

/* How many fibers and futures wait. */
SHOAL_API uint32_t shoal_condition_waiting(const struct shoal_condition *condition);

SHOAL_END_DECLS

#endif
