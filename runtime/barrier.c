/*
 * A barrier: see barrier.h, and sync_impl.h for how waiting works.
 *
 * Who has arrived is who is in line: leaving the line needs no other bookkeeping.
 */
#include "shoal/runtime/barrier.h"

#include "shoal/runtime/sync_impl.h"

void shoal_barrier_init(struct shoal_barrier *barrier, uint32_t parties)
{
    SHOAL_CHECK(parties > 0, "a barrier of no parties");
    shoal_wait_queue_init(&barrier->queue, "barrier", NULL);
    barrier->generation = 0;
    barrier->parties = parties;
}

void shoal_barrier_deinit(struct shoal_barrier *barrier)
{
    shoal_wait_queue_deinit(&barrier->queue);
}

/* Whether the caller is the last; then all others are let go. */
static bool arrive(struct shoal_barrier *barrier)
{
    if (barrier->queue.count + 1 < barrier->parties)
        return false;
    barrier->generation++;
    shoal_wait_queue_end_all(&barrier->queue, 0);
    return true;
}

int shoal_barrier_wait(struct shoal_barrier *barrier, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&barrier->queue, "wait");
    if (rc < 0)
        return rc;
    if (arrive(barrier))
        return 1;
    struct shoal_waiter waiter = {.n = 0};
    return shoal_waiter_park(&barrier->queue, &waiter, timeout_ns);
}

struct shoal_future *shoal_barrier_wait_future(struct shoal_barrier *barrier, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&barrier->queue, "wait");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&barrier->queue, 0, NULL, &waiter);
    if (waiter == NULL)
        return future;
    if (arrive(barrier)) {
        waiter->n = 1;
        shoal_waiter_end(waiter, 0);
    } else {
        shoal_waiter_start(waiter, timeout_ns);
    }
    return future;
}

uint64_t shoal_barrier_generation(const struct shoal_barrier *barrier)
{
    shoal_wait_queue_check(&barrier->queue, "generation");
    return barrier->generation;
}

uint32_t shoal_barrier_waiting(const struct shoal_barrier *barrier)
{
    shoal_wait_queue_check(&barrier->queue, "waiting");
    return barrier->queue.count;
}
