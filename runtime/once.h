/*
 * Something that is to be done once on a core, by whoever comes first, while the others wait.
 *
 *   static int open_catalogue(void *arg);       // may wait
 *   int rc = shoal_once_run(&self->opened, open_catalogue, self, SHOAL_NS_FOREVER);
 *
 * 1. The function runs in one place at a time, and never again after it has returned 0 or more.
 * 2. Where it fails, its caller gets the failure, and the first in line runs it anew: a retry is
 *    only another call.
 * 3. A cancel reaches who runs the function as any fiber. If it fails by that, 2. holds.
 */
#ifndef SHOAL_RUNTIME_ONCE_H
#define SHOAL_RUNTIME_ONCE_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_once {
    struct shoal_wait_queue queue; /* private, as is the rest */
    struct shoal_fiber *runner;
    bool done;
};

/* 0 or more: done; negative: not done, may be tried again. Runs on a fiber and may wait. */
typedef int shoal_once_fn(void *arg);

SHOAL_API void shoal_once_init(struct shoal_once *once);

/* Nobody may run it or wait for it. */
SHOAL_API void shoal_once_deinit(struct shoal_once *once);

/*
 * Makes sure that it is done: runs `fn(arg)` on the calling fiber, or waits while another runs its
 * own. 0 once it is done; what `fn` returned if that is negative; while another runs it,
 * -ETIMEDOUT after `timeout_ns`, which does not limit `fn` itself; the code of the fiber's cancel.
 */
SHOAL_API int shoal_once_run(struct shoal_once *once, shoal_once_fn *fn, void *arg,
                             uint64_t timeout_ns);

/*
 * The same on a fiber of its own, which a cancel of the future cancels. The value means nothing.
 * -ENOMEM when there is no memory for a fiber.
 */
SHOAL_API struct shoal_future *shoal_once_run_future(struct shoal_once *once, shoal_once_fn *fn,
                                                     void *arg, uint64_t timeout_ns);

SHOAL_API bool shoal_once_done(const struct shoal_once *once);

SHOAL_END_DECLS

#endif
