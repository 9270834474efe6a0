/*
 * A read-write lock for the fibers and futures of one core: many readers, or one writer.
 *
 * 1. One line for both, first come, first served: a reader that comes while a writer waits goes
 *    behind it, so that neither readers nor writers starve.
 * 2. When the lock comes free, the first in line gets it; if that is a reader, with all readers
 *    that follow it directly.
 * 3. Not recursive: a reader that locks for reading again waits behind a writer that waits for it.
 */
#ifndef SHOAL_RUNTIME_RWLOCK_H
#define SHOAL_RUNTIME_RWLOCK_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_rwlock {
    struct shoal_wait_queue queue; /* private, as is the rest */
    uint32_t readers;
    bool writer;
};

/* An unlocked lock. Allocates nothing. */
SHOAL_API void shoal_rwlock_init(struct shoal_rwlock *lock);

/* It must be unlocked. */
SHOAL_API void shoal_rwlock_deinit(struct shoal_rwlock *lock);

/*
 * Waits for the lock. 0; -ETIMEDOUT, or the code of the fiber's cancel, without it. On a fiber;
 * yields if it has to wait. See wait_queue.h.
 */
SHOAL_API int shoal_rwlock_read_lock(struct shoal_rwlock *lock, uint64_t timeout_ns);
SHOAL_API int shoal_rwlock_write_lock(struct shoal_rwlock *lock, uint64_t timeout_ns);

/* Locks if that needs no wait and nobody is in line; whether it did. Does not yield. */
SHOAL_API bool shoal_rwlock_try_read_lock(struct shoal_rwlock *lock);
SHOAL_API bool shoal_rwlock_try_write_lock(struct shoal_rwlock *lock);

/*
 * Futures that resolve once the lock is the consumer's, to be unlocked as any other. -ETIMEDOUT,
 * -ECANCELED, -ENOMEM. Discarding one, and awaiting it with NULL for the value, unlock.
 */
SHOAL_API struct shoal_future *shoal_rwlock_read_lock_future(struct shoal_rwlock *lock,
                                                             uint64_t timeout_ns);
SHOAL_API struct shoal_future *shoal_rwlock_write_lock_future(struct shoal_rwlock *lock,
                                                              uint64_t timeout_ns);

/* Unlock; abort when it is not locked that way. Do not yield. */
SHOAL_API void shoal_rwlock_read_unlock(struct shoal_rwlock *lock);
SHOAL_API void shoal_rwlock_write_unlock(struct shoal_rwlock *lock);

/* Makes a writer's lock a reader's, without letting a writer in between. Does not yield. */
SHOAL_API void shoal_rwlock_downgrade(struct shoal_rwlock *lock);

/* How many read now; whether somebody writes. */
SHOAL_API uint32_t shoal_rwlock_readers(const struct shoal_rwlock *lock);
SHOAL_API bool shoal_rwlock_writing(const struct shoal_rwlock *lock);

SHOAL_END_DECLS

#endif
