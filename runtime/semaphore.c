/*
 * A counting semaphore: see semaphore.h, and sync_impl.h for how waiting works.
 *
 * Either nobody is in line, or there are too few units for the first: serve() restores that after
 * every change of either.
 */
#include "shoal/runtime/semaphore.h"

#include "shoal/runtime/select.h"
#include "shoal/runtime/sync_impl.h"

static struct shoal_semaphore *of_queue(struct shoal_wait_queue *queue)
{
    return SHOAL_CONTAINER_OF(queue, struct shoal_semaphore, queue);
}

static void serve(struct shoal_wait_queue *queue)
{
    struct shoal_semaphore *semaphore = of_queue(queue);
    if (queue->serving)
        return;
    queue->serving = true;
    struct shoal_waiter *waiter;
    while ((waiter = shoal_wait_queue_first(queue)) != NULL && waiter->n <= semaphore->units) {
        semaphore->units -= waiter->n;
        shoal_waiter_end(waiter, 0);
    }
    queue->serving = false;
}

static bool can_take(const struct shoal_semaphore *semaphore, uint64_t n)
{
    return semaphore->queue.count == 0 && n <= semaphore->units;
}

static bool take(struct shoal_semaphore *semaphore, uint64_t n)
{
    if (!can_take(semaphore, n))
        return false;
    semaphore->units -= n;
    return true;
}

static void give_back(union shoal_value *value)
{
    shoal_semaphore_release(of_queue(value->slice.ptr), value->slice.size);
}

void shoal_semaphore_init(struct shoal_semaphore *semaphore, uint64_t units)
{
    shoal_wait_queue_init(&semaphore->queue, "semaphore", serve);
    semaphore->units = units;
}

void shoal_semaphore_deinit(struct shoal_semaphore *semaphore)
{
    shoal_wait_queue_deinit(&semaphore->queue);
}

int shoal_semaphore_acquire(struct shoal_semaphore *semaphore, uint64_t n, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&semaphore->queue, "acquire");
    if (SHOAL_UNLIKELY(rc < 0) || SHOAL_LIKELY(take(semaphore, n)))
        return rc;
    struct shoal_waiter waiter = {.n = n};
    return shoal_waiter_park(&semaphore->queue, &waiter, timeout_ns);
}

bool shoal_semaphore_try_acquire(struct shoal_semaphore *semaphore, uint64_t n)
{
    shoal_wait_queue_check(&semaphore->queue, "try_acquire");
    return take(semaphore, n);
}

struct shoal_future *shoal_semaphore_acquire_future(struct shoal_semaphore *semaphore, uint64_t n,
                                                    uint64_t timeout_ns)
{
    shoal_wait_queue_check(&semaphore->queue, "acquire");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&semaphore->queue, 0, give_back, &waiter);
    if (waiter == NULL)
        return future;
    waiter->n = n;
    if (take(semaphore, n))
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

void shoal_semaphore_release(struct shoal_semaphore *semaphore, uint64_t n)
{
    shoal_wait_queue_check(&semaphore->queue, "release");
    SHOAL_CHECK(n <= UINT64_MAX - semaphore->units, "semaphore %p: %llu units are too many",
                (void *)semaphore, (unsigned long long)n);
    semaphore->units += n;
    serve(&semaphore->queue);
}

uint64_t shoal_semaphore_available(const struct shoal_semaphore *semaphore)
{
    shoal_wait_queue_check(&semaphore->queue, "available");
    return semaphore->units;
}

uint32_t shoal_semaphore_waiting(const struct shoal_semaphore *semaphore)
{
    shoal_wait_queue_check(&semaphore->queue, "waiting");
    return semaphore->queue.count;
}

/* ---- As a source of a select ---- */

static bool source_ready(const struct shoal_select_case *source)
{
    return can_take(source->object, source->n);
}

static void source_take(struct shoal_select_case *source)
{
    source->result = 0;
    (void)take(source->object, source->n);
}

static struct shoal_wait_queue *source_queue(const struct shoal_select_case *source)
{
    return &((struct shoal_semaphore *)source->object)->queue;
}

struct shoal_select_case shoal_select_acquire(struct shoal_semaphore *semaphore, uint64_t n)
{
    static const struct shoal_select_ops ops = {source_ready, source_take, source_queue};
    shoal_wait_queue_check(&semaphore->queue, "select");
    return (struct shoal_select_case){.ops = &ops, .object = semaphore, .n = n};
}
