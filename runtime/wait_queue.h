/*
 * What every primitive of sync has inside: a line of fibers and futures that wait. Programs only
 * hold it as a part of a semaphore, a channel and so on; its fields are private.
 *
 * Three rules hold for all of them:
 *
 * 1. A form without `_future` is called on a fiber and yields when it has to wait. It returns 0 or
 *    a positive result, or: -ETIMEDOUT after `timeout_ns` (0: at once, SHOAL_NS_FOREVER: never),
 *    the fiber's cancel code (-ECANCELED, or -ETIMEDOUT by the fiber's deadline), or what its
 *    header names. On a fiber that is cancelled already it returns that code without looking.
 * 2. A form with `_future` may be called anywhere on the core and never yields. The future fails by
 *    the same codes; shoal_future_cancel() takes it out of the line. What it was given goes back
 *    when its consumer is gone (discarded, or awaited with no place for the value).
 * 3. Who is served is decided by the one who gives: it takes the first in line out and hands over.
 *    From then on neither a time-out nor a cancel reaches the waiter, so that nothing is lost and
 *    nobody overtakes.
 *
 * A primitive belongs to the core that called its `_init`; debug builds abort elsewhere. It
 * outlives those who wait: a `_deinit` aborts when somebody is in line.
 */
#ifndef SHOAL_RUNTIME_WAIT_QUEUE_H
#define SHOAL_RUNTIME_WAIT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/timer.h"

SHOAL_BEGIN_DECLS

struct shoal_fiber;
struct shoal_future;
struct shoal_selection;

struct shoal_wait_queue {
    struct shoal_list waiters; /* first in, first out */
    /* Somebody has left the line empty-handed: who is behind may be served now. May be NULL. */
    void (*left)(struct shoal_wait_queue *queue);
    const char *what; /* "semaphore", for reports */
    uint32_t count;
    uint16_t core;
    bool serving; /* the line is being served: whoever frees more leaves it to that loop */
};

struct shoal_waiter {
    struct shoal_list node;
    struct shoal_wait_queue *queue;
    union {
        struct shoal_fiber *fiber;
        struct shoal_future *future;
        struct shoal_selection *selection;
    } who;
    void *item; /* where to, or where from, a message is copied; NULL: nothing is */
    uint64_t n; /* units, bytes: as the primitive likes */
    struct shoal_timer timer;
    int32_t result;
    uint8_t kind;
    bool queued;
    bool ended;
    bool kept; /* stays after the future is resolved, whose value points at it */
};

SHOAL_END_DECLS

#endif
