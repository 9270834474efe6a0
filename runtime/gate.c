/*
 * A gate: see gate.h, and sync_impl.h for how waiting works.
 */
#include "shoal/runtime/gate.h"

#include "shoal/runtime/errors.h"
#include "shoal/runtime/sync_impl.h"

void shoal_gate_init(struct shoal_gate *gate)
{
    shoal_wait_queue_init(&gate->queue, "gate", NULL);
    gate->inside = 0;
    gate->closed = false;
}

void shoal_gate_deinit(struct shoal_gate *gate)
{
    shoal_wait_queue_deinit(&gate->queue);
    SHOAL_CHECK(gate->inside == 0, "gate %p ends while %llu are inside", (void *)gate,
                (unsigned long long)gate->inside);
}

int shoal_gate_enter(struct shoal_gate *gate)
{
    shoal_wait_queue_check(&gate->queue, "enter");
    if (gate->closed)
        return SHOAL_ECLOSED;
    gate->inside++;
    return 0;
}

void shoal_gate_leave(struct shoal_gate *gate)
{
    shoal_wait_queue_check(&gate->queue, "leave");
    SHOAL_CHECK(gate->inside > 0, "gate %p: more have left than entered", (void *)gate);
    if (--gate->inside == 0 && gate->closed)
        shoal_wait_queue_end_all(&gate->queue, 0);
}

int shoal_gate_close(struct shoal_gate *gate, uint64_t timeout_ns)
{
    int rc = shoal_wait_queue_enter(&gate->queue, "close");
    gate->closed = true;
    if (rc < 0 || gate->inside == 0)
        return rc;
    struct shoal_waiter waiter = {.n = 0};
    return shoal_waiter_park(&gate->queue, &waiter, timeout_ns);
}

struct shoal_future *shoal_gate_close_future(struct shoal_gate *gate, uint64_t timeout_ns)
{
    shoal_wait_queue_check(&gate->queue, "close");
    gate->closed = true;
    struct shoal_waiter *waiter;
    struct shoal_future *future = shoal_waiter_new(&gate->queue, 0, NULL, &waiter);
    if (waiter == NULL)
        return future;
    if (gate->inside == 0)
        shoal_waiter_end(waiter, 0);
    else
        shoal_waiter_start(waiter, timeout_ns);
    return future;
}

bool shoal_gate_closed(const struct shoal_gate *gate)
{
    shoal_wait_queue_check(&gate->queue, "closed");
    return gate->closed;
}

uint64_t shoal_gate_inside(const struct shoal_gate *gate)
{
    shoal_wait_queue_check(&gate->queue, "inside");
    return gate->inside;
}
