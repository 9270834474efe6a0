/*
 * A read-write lock: see rwlock.h, and sync_impl.h for how waiting works.
 */
#include "shoal/runtime/rwlock.h"

#include "shoal/runtime/sync_impl.h"

enum { READ, WRITE }; /* a waiter's `n` */

static struct shoal_rwlock *of_queue(struct shoal_wait_queue *queue)
{
    return SHOAL_CONTAINER_OF(queue, struct shoal_rwlock, queue);
}

/* Takes the lock if nobody's hold is against it; does not look at the line. */
static bool enter(struct shoal_rwlock *lock, uint64_t how)
{
    if (lock->writer || (how == WRITE && lock->readers > 0))
        return false;
    if (how == WRITE)
        lock->writer = true;
    else
        lock->readers++;
    return true;
}

static void serve(struct shoal_wait_queue *queue)
{
    struct shoal_rwlock *lock = of_queue(queue);
    if (queue->serving)
        return;
    queue->serving = true;
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(queue)) != NULL && enter(lock, waiter->n))
        shoal_waiter_end(waiter, 0);
    queue->serving = false;
}

static bool take(struct shoal_rwlock *lock, uint64_t how)
{
    return lock->queue.count == 0 && enter(lock, how);
}

static void give_back(union shoal_value *value)
{
    struct shoal_rwlock *lock = of_queue(value->slice.ptr);
    if (value->slice.size == WRITE)
        shoal_rwlock_write_unlock(lock);
    else
        shoal_rwlock_read_unlock(lock);
}

void shoal_rwlock_init(struct shoal_rwlock *lock)
{
    shoal_wait_queue_init(&lock->queue, "rwlock", serve);
    lock->readers = 0;
    lock->writer = false;
}

void shoal_rwlock_deinit(struct shoal_rwlock *lock)
{
    shoal_wait_queue_deinit(&lock->queue);
    SHOAL_CHECK(!lock->writer && lock->readers == 0, "rwlock %p ends while it is locked",
                (void *)lock);
}

static int lock_fiber(struct shoal_rwlock *lock, uint64_t how, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&lock->queue, how == WRITE ? "write_lock" : "read_lock");
    if (SHOAL_UNLIKELY(rc < 0) || SHOAL_LIKELY(take(lock, how)))
        return rc;
    struct shoal_waiter waiter = {.n = how};
    return shoal_waiter_park(&lock->queue, &waiter, timeout_ns);
}

int shoal_rwlock_read_lock(struct shoal_rwlock *lock, uint64_t timeout_ns)
{
    return lock_fiber(lock, READ, timeout_ns);
}

int shoal_rwlock_write_lock(struct shoal_rwlock *lock, uint64_t timeout_ns)
{
    return lock_fiber(lock, WRITE, timeout_ns);
}

bool shoal_rwlock_try_read_lock(struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "try_read_lock");
    return take(lock, READ);
}

bool shoal_rwlock_try_write_lock(struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "try_write_lock");
    return take(lock, WRITE);
}

static struct shoal_future *lock_future(struct shoal_rwlock *lock, uint64_t how,
                                        uint64_t timeout_ns)
{
    shoal_wait_queue_check(&lock->queue, how == WRITE ? "write_lock" : "read_lock");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&lock->queue, 0, give_back, &waiter);
    if (waiter == NULL)
        return future;
    waiter->n = how;
    if (take(lock, how))
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

struct shoal_future *shoal_rwlock_read_lock_future(struct shoal_rwlock *lock, uint64_t timeout_ns)
{
    return lock_future(lock, READ, timeout_ns);
}

struct shoal_future *shoal_rwlock_write_lock_future(struct shoal_rwlock *lock, uint64_t timeout_ns)
{
    return lock_future(lock, WRITE, timeout_ns);
}

void shoal_rwlock_read_unlock(struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "read_unlock");
    SHOAL_CHECK(lock->readers > 0, "rwlock %p: read_unlock, and nobody reads", (void *)lock);
    lock->readers--;
    serve(&lock->queue);
}

void shoal_rwlock_write_unlock(struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "write_unlock");
    SHOAL_CHECK(lock->writer, "rwlock %p: write_unlock, and nobody writes", (void *)lock);
    lock->writer = false;
    serve(&lock->queue);
}

void shoal_rwlock_downgrade(struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "downgrade");
    SHOAL_CHECK(lock->writer, "rwlock %p: downgrade, and nobody writes", (void *)lock);
    lock->writer = false;
    lock->readers = 1;
    serve(&lock->queue);
}

uint32_t shoal_rwlock_readers(const struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "readers");
    return lock->readers;
}

bool shoal_rwlock_writing(const struct shoal_rwlock *lock)
{
    shoal_wait_queue_check(&lock->queue, "writing");
    return lock->writer;
}
