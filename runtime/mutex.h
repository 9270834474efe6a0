/*
 * A mutex for the fibers and futures of one core: needed only where a fiber waits in the middle of
 * what others must not see half done.
 *
 * 1. First come, first served; an unlock hands the lock to the first in line.
 * 2. A fiber that locks twice is stopped with a message: it would wait for itself.
 * 3. Any fiber or continuation of the core may unlock, not only who locked.
 */
#ifndef SHOAL_RUNTIME_MUTEX_H
#define SHOAL_RUNTIME_MUTEX_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_mutex {
    struct shoal_wait_queue queue; /* private, as is the rest */
    struct shoal_fiber *holder;    /* NULL: free, or a future's */
    bool locked;
};

/* An unlocked mutex. Allocates nothing. */
SHOAL_API void shoal_mutex_init(struct shoal_mutex *mutex);

/* It must be unlocked. */
SHOAL_API void shoal_mutex_deinit(struct shoal_mutex *mutex);

/*
 * Waits for the lock and takes it. 0; -ETIMEDOUT, or the code of the fiber's cancel, without it. On
 * a fiber; yields if it has to wait. See wait_queue.h.
 */
SHOAL_API int shoal_mutex_lock(struct shoal_mutex *mutex, uint64_t timeout_ns);

/* Locks it if it is free; whether it was. Does not yield. */
SHOAL_API bool shoal_mutex_try_lock(struct shoal_mutex *mutex);

/*
 * A future that resolves once the lock is the consumer's, to be unlocked as any other. -ETIMEDOUT,
 * -ECANCELED, -ENOMEM. Discarding it, and awaiting it with NULL for the value, unlock.
 */
SHOAL_API struct shoal_future *shoal_mutex_lock_future(struct shoal_mutex *mutex,
                                                       uint64_t timeout_ns);

/* Unlocks; aborts when it is not locked. Does not yield. */
SHOAL_API void shoal_mutex_unlock(struct shoal_mutex *mutex);

SHOAL_API bool shoal_mutex_locked(const struct shoal_mutex *mutex);

SHOAL_END_DECLS

#endif
