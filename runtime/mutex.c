/*
 * A mutex: see mutex.h, and sync_impl.h for how waiting works.
 */
#include "shoal/runtime/mutex.h"

#include "shoal/runtime/sync_impl.h"

static struct shoal_mutex *of_queue(struct shoal_wait_queue *queue)
{
    return SHOAL_CONTAINER_OF(queue, struct shoal_mutex, queue);
}

static void serve(struct shoal_wait_queue *queue)
{
    struct shoal_mutex *mutex = of_queue(queue);
    if (queue->serving)
        return;
    queue->serving = true;
    struct shoal_waiter *waiter;
    while (!mutex->locked && (waiter = shoal_wait_queue_first(queue)) != NULL) {
        mutex->locked = true;
        mutex->holder = waiter->kind == SHOAL_WAITER_FIBER ? waiter->who.fiber : NULL;
        shoal_waiter_end(waiter, 0);
    }
    queue->serving = false;
}

static bool take(struct shoal_mutex *mutex, struct shoal_fiber *holder)
{
    if (mutex->locked)
        return false;
    mutex->locked = true;
    mutex->holder = holder;
    return true;
}

static void give_back(union shoal_value *value)
{
    shoal_mutex_unlock(of_queue(value->slice.ptr));
}

void shoal_mutex_init(struct shoal_mutex *mutex)
{
    shoal_wait_queue_init(&mutex->queue, "mutex", NULL);
    mutex->holder = NULL;
    mutex->locked = false;
}

void shoal_mutex_deinit(struct shoal_mutex *mutex)
{
    shoal_wait_queue_deinit(&mutex->queue);
    SHOAL_CHECK(!mutex->locked, "mutex %p ends while it is locked", (void *)mutex);
}

int shoal_mutex_lock(struct shoal_mutex *mutex, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&mutex->queue, "lock");
    struct shoal_fiber *self = shoal_core_self->fiber;
    SHOAL_CHECK(!mutex->locked || mutex->holder != self,
                "fiber \"%s\" locks mutex %p, which it has locked already", shoal_fiber_name(self),
                (void *)mutex);
    if (SHOAL_UNLIKELY(rc < 0) || SHOAL_LIKELY(take(mutex, self)))
        return rc;
    struct shoal_waiter waiter = {.n = 1};
    return shoal_waiter_park(&mutex->queue, &waiter, timeout_ns);
}

bool shoal_mutex_try_lock(struct shoal_mutex *mutex)
{
    shoal_wait_queue_check(&mutex->queue, "try_lock");
    return take(mutex, shoal_core_self->fiber);
}

struct shoal_future *shoal_mutex_lock_future(struct shoal_mutex *mutex, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&mutex->queue, "lock");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&mutex->queue, 0, give_back, &waiter);
    if (waiter == NULL)
        return future;
    if (take(mutex, NULL))
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

void shoal_mutex_unlock(struct shoal_mutex *mutex)
{
    shoal_wait_queue_check(&mutex->queue, "unlock");
    SHOAL_CHECK(mutex->locked, "mutex %p is unlocked, and was not locked", (void *)mutex);
    mutex->locked = false;
    mutex->holder = NULL;
    serve(&mutex->queue);
}

bool shoal_mutex_locked(const struct shoal_mutex *mutex)
{
    shoal_wait_queue_check(&mutex->queue, "locked");
    return mutex->locked;
}
