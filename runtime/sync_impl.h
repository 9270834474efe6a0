/*
 * How the primitives of sync wait and hand over: one waiter for all of them.
 *
 *             shoal_waiter_park()            a fiber: the waiter is on its stack
 *             shoal_waiter_new() + _start()  a future: the waiter is from the core's slab
 *             shoal_waiter_push()            one case of a select: the waiter is in the case
 *                  |
 *        [ line of a primitive ] --- shoal_waiter_end(waiter, result): handed over, or closed
 *                  |
 *                  +--- time-out, cancel: out of the line with a failure, and then `left`
 *
 * 1. A waiter ends once. Ending takes it out of its line and disarms its timer in the same call,
 *    so that a time-out, a cancel and a hand-over cannot all reach it: the first of them wins.
 * 2. Whoever ends a waiter has taken the unit or the message from the primitive before, and does
 *    not look at it again: the fiber is queued, the future is settled, which may call its drop
 *    hook, and that calls the primitive. A loop that serves therefore sets `serving`, reads the
 *    primitive's state anew each time round, and drop hooks leave the serving to that loop: any
 *    number of discarded futures in a row need constant stack.
 * 3. No function of a user runs while a line is served, but for drop hooks of a future's value,
 *    which are the primitive's own.
 *
 * Rejected: waking the first in line and letting it try again (barging starves, and a cancel
 * between the wake-up and the try loses it); a promise for each waiter (an allocation, and an await
 * in every primitive).
 */
#ifndef SHOAL_RUNTIME_SYNC_IMPL_H
#define SHOAL_RUNTIME_SYNC_IMPL_H

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/wait_queue.h"

enum shoal_waiter_kind { SHOAL_WAITER_FIBER, SHOAL_WAITER_FUTURE, SHOAL_WAITER_SELECT };

#define SHOAL_WAITER_INLINE_BYTES 24u

/* A future's waiter, with room for a message on its way in or out. */
struct shoal_future_waiter {
    struct shoal_waiter waiter;
    unsigned char bytes[SHOAL_WAITER_INLINE_BYTES]; /* `item`, unless that is larger */
    uint32_t item_bytes;
};

void shoal_waiters_init(struct shoal_core *core);
unsigned shoal_waiters_deinit(struct shoal_core *core);

/* `what` is kept by reference. `left` may be NULL. */
void shoal_wait_queue_init(struct shoal_wait_queue *queue, const char *what,
                           void (*left)(struct shoal_wait_queue *queue));

/* Aborts when somebody is in line. */
void shoal_wait_queue_deinit(struct shoal_wait_queue *queue);

static inline void shoal_wait_queue_check(const struct shoal_wait_queue *queue, const char *op)
{
    SHOAL_CHECK_OWNER(queue->core, op, "%s %p", queue->what, (const void *)queue);
}

static inline struct shoal_waiter *shoal_wait_queue_first(const struct shoal_wait_queue *queue)
{
    struct shoal_list *node = queue->waiters.next;
    return node == &queue->waiters ? NULL : SHOAL_CONTAINER_OF(node, struct shoal_waiter, node);
}

/* Ends everyone in line now with `result`; who comes meanwhile stays. */
void shoal_wait_queue_end_all(struct shoal_wait_queue *queue, int result);

/*
 * What a fiber's form begins with: on this core, on a fiber. 0, or the code of the fiber's cancel,
 * which the form returns.
 */
int shoal_wait_queue_enter(const struct shoal_wait_queue *queue, const char *op);

/* Puts `waiter` at the end of the line and waits on the running fiber. Returns the result. */
int shoal_waiter_park(struct shoal_wait_queue *queue, struct shoal_waiter *waiter,
                      uint64_t timeout_ns);

/*
 * A pending future with a waiter that is not in line yet: end it, or start it. With `item_bytes`,
 * the waiter's `item` has room for so many. NULL in *out: no memory; the future says so.
 */
struct shoal_future *shoal_waiter_new(struct shoal_wait_queue *queue, uint32_t item_bytes,
                                      shoal_drop_fn *drop, struct shoal_waiter **out);
void shoal_waiter_start(struct shoal_waiter *waiter, uint64_t timeout_ns);

/* Frees a future's waiter: only one that was kept. */
void shoal_waiter_free(struct shoal_waiter *waiter);

/* In line, for a select. */
void shoal_waiter_push(struct shoal_wait_queue *queue, struct shoal_waiter *waiter);

/* Out of line, and its timer disarmed; not ended. Fine on one that is neither. */
void shoal_waiter_remove(struct shoal_waiter *waiter);

/*
 * Ends `waiter`: a fiber's wait returns `result`; a future fails when it is negative, and otherwise
 * gets the value {ptr: the queue, or the waiter if it is kept; size: n}.
 */
void shoal_waiter_end(struct shoal_waiter *waiter, int result);

/* The same, with the failure's text for a future. */
void shoal_waiter_fail(struct shoal_waiter *waiter, int code, const char *text);

/* select.c: a case of a select has been served. */
void shoal_selection_won(struct shoal_waiter *waiter);

struct shoal_select_case;

/* A kind of source that a select can wait for. */
struct shoal_select_ops {
    bool (*ready)(const struct shoal_select_case *source); /* `take` would succeed, now */
    void (*take)(struct shoal_select_case *source);        /* only when it is ready */
    struct shoal_wait_queue *(*queue)(const struct shoal_select_case *source);
};

#endif
