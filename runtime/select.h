/*
 * Select: a fiber waits for several sources at once and goes on with the first that is ready.
 *
 *   struct shoal_select_case cases[] = {
 *       shoal_select_receive(&jobs, &job),
 *       shoal_select_future(answer),
 *       shoal_select_abort(&abort),
 *   };
 *   switch (shoal_select(cases, SHOAL_ARRAY_SIZE(cases), 5 * SHOAL_NS_PER_S)) {
 *   case 0: ... cases[0].result is 0, and job has been received, or SHOAL_ECLOSED
 *   case 1: ... shoal_await(answer, &value) returns at once
 *   case 2: ... shoal_abort_code(&abort)
 *   default: ... -ETIMEDOUT, or the code of the fiber's cancel
 *   }
 *
 * 1. One source is used, or none; the others are as if nobody had asked: no message or unit is
 *    taken from them or put into them, and a future stays to be consumed.
 * 2. Of several that are ready at once any may be used, each as likely as the others.
 * 3. A case in line at a source has its place there like any other waiter.
 * 4. Cases are made anew for each select. What they point at outlives it.
 *
 * For futures alone there is when_any (see combinators); a select is for fibers.
 */
#ifndef SHOAL_RUNTIME_SELECT_H
#define SHOAL_RUNTIME_SELECT_H

#include <stddef.h>

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_abort_source;
struct shoal_channel;
struct shoal_pipe;
struct shoal_select_ops;
struct shoal_semaphore;
struct shoal_subscriber;

struct shoal_select_case {
    const struct shoal_select_ops *ops; /* private, as is the rest but for `result` */
    void *object;
    void *item;
    uint64_t n;
    int result; /* of the case that was chosen: 0, or its failure */
    struct shoal_waiter waiter;
};

/* A message received to `*item`, or SHOAL_ECLOSED; one sent from `*item`, or SHOAL_ECLOSED. */
SHOAL_API struct shoal_select_case shoal_select_receive(struct shoal_channel *channel, void *item);
SHOAL_API struct shoal_select_case shoal_select_send(struct shoal_channel *channel,
                                                     const void *item);

/* A message of a broadcast received to `*item`, or SHOAL_ECLOSED. */
SHOAL_API struct shoal_select_case shoal_select_subscriber(struct shoal_subscriber *subscriber,
                                                           void *item);

/* Something to read in a pipe, or its end: shoal_pipe_try_read() tells. Nothing is read. */
SHOAL_API struct shoal_select_case shoal_select_pipe(struct shoal_pipe *pipe);

/* `n` units of a semaphore. */
SHOAL_API struct shoal_select_case shoal_select_acquire(struct shoal_semaphore *semaphore,
                                                        uint64_t n);

/* A future that has settled. It is not consumed: await it, or select it again. */
SHOAL_API struct shoal_select_case shoal_select_future(struct shoal_future *future);

/* An abort that has been requested. */
SHOAL_API struct shoal_select_case shoal_select_abort(struct shoal_abort_source *source);

/* A time of shoal_now_ns(), or `delay_ns` after the call of this. SHOAL_NS_FOREVER: never. */
SHOAL_API struct shoal_select_case shoal_select_at(uint64_t deadline_ns);
SHOAL_API struct shoal_select_case shoal_select_after(uint64_t delay_ns);

/* Never ready: to leave a case out that is not wanted now. */
SHOAL_API struct shoal_select_case shoal_select_never(void);

/*
 * Waits until one of `cases` is ready, and uses it. Returns its index; -ETIMEDOUT after
 * `timeout_ns` (0: only looks), or the code of the fiber's cancel, with none used. On a fiber;
 * yields unless one is ready.
 */
SHOAL_API int shoal_select(struct shoal_select_case *cases, size_t count, uint64_t timeout_ns);

SHOAL_END_DECLS

#endif
