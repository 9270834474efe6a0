/*
 * A condition: see condition.h, and sync_impl.h for how waiting works.
 *
 * `pending` signals are those that discarded futures have passed on while the line is served: a
 * loop in place of a recursion.
 */
#include "shoal/runtime/condition.h"

#include <errno.h>

#include "shoal/runtime/sync_impl.h"

enum { BY_BROADCAST, BY_SIGNAL }; /* a waiter's `n` */

static void pass_on(union shoal_value *value)
{
    struct shoal_wait_queue *queue = value->slice.ptr;
    if (value->slice.size == BY_SIGNAL)
        shoal_condition_signal(SHOAL_CONTAINER_OF(queue, struct shoal_condition, queue));
}

void shoal_condition_init(struct shoal_condition *condition)
{
    shoal_wait_queue_init(&condition->queue, "condition", NULL);
    condition->pending = 0;
}

void shoal_condition_deinit(struct shoal_condition *condition)
{
    shoal_wait_queue_deinit(&condition->queue);
}

int shoal_condition_wait(struct shoal_condition *condition, struct shoal_mutex *mutex,
                         uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&condition->queue, "wait");
    if (rc < 0)
        return rc;
    SHOAL_CHECK(mutex == NULL || mutex->locked, "a wait for condition %p without its mutex",
                (void *)condition);
    if (mutex != NULL)
        shoal_mutex_unlock(mutex);
    struct shoal_waiter waiter = {.n = BY_BROADCAST};
    rc = shoal_waiter_park(&condition->queue, &waiter, timeout_ns);
    if (mutex != NULL) {
        shoal_fiber_shield();
        (void)shoal_mutex_lock(mutex, SHOAL_NS_FOREVER);
        shoal_fiber_unshield();
    }
    return rc;
}

int shoal_condition_wait_for(struct shoal_condition *condition, shoal_condition_fn *holds,
                             void *arg, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&condition->queue, "wait_for");
    if (rc < 0)
        return rc;
    if (holds(arg))
        return 0;
    uint64_t deadline_ns = SHOAL_NS_FOREVER;
    if (timeout_ns != SHOAL_NS_FOREVER)
        deadline_ns = shoal_deadline_ns(shoal_now_ns(), timeout_ns);
    for (;;) {
        if (deadline_ns != SHOAL_NS_FOREVER) {
            uint64_t now_ns = shoal_now_ns();
            timeout_ns = now_ns < deadline_ns ? deadline_ns - now_ns : 0;
        }
        rc = shoal_condition_wait(condition, NULL, timeout_ns);
        if (holds(arg))
            return 0;
        if (rc < 0)
            return rc;
    }
}

struct shoal_future *shoal_condition_wait_future(struct shoal_condition *condition,
                                                 uint64_t timeout_ns)
{
    shoal_wait_queue_check(&condition->queue, "wait");
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&condition->queue, 0, pass_on, &waiter);
    if (waiter != NULL)
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

void shoal_condition_signal(struct shoal_condition *condition)
{
    struct shoal_wait_queue *queue = &condition->queue;
    shoal_wait_queue_check(queue, "signal");
    condition->pending++;
    if (queue->serving)
        return;
    queue->serving = true;
    struct shoal_waiter *waiter;
    while (condition->pending > 0 && (waiter = shoal_wait_queue_first(queue)) != NULL) {
        condition->pending--;
        waiter->n = BY_SIGNAL;
        shoal_waiter_end(waiter, 0);
    }
    condition->pending = 0;
    queue->serving = false;
}

void shoal_condition_broadcast(struct shoal_condition *condition)
{
    shoal_wait_queue_check(&condition->queue, "broadcast");
    shoal_wait_queue_end_all(&condition->queue, 0);
}

uint32_t shoal_condition_waiting(const struct shoal_condition *condition)
{
    shoal_wait_queue_check(&condition->queue, "waiting");
    return condition->queue.count;
}
