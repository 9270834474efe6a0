/*
 * A gate: counts what goes on inside, and closes once that has ended. It is how an object waits,
 * before it is freed, for the fibers and futures that still use it.
 *
 *   if (shoal_gate_enter(&server->gate) < 0)
 *       return SHOAL_ECLOSED;
 *   ...                                          // server is there
 *   shoal_gate_leave(&server->gate);
 *
 * 1. Once a close has begun nobody enters; it ends when all have left. There is no opening again.
 * 2. A close that ends early (time-out, cancel) leaves the gate closed: close again to go on
 *    waiting.
 */
#ifndef SHOAL_RUNTIME_GATE_H
#define SHOAL_RUNTIME_GATE_H

#include "shoal/runtime/wait_queue.h"

SHOAL_BEGIN_DECLS

struct shoal_gate {
    struct shoal_wait_queue queue; /* of those who close; private, as is the rest */
    uint64_t inside;
    bool closed;
};

/* An open gate with nobody inside. Allocates nothing. */
SHOAL_API void shoal_gate_init(struct shoal_gate *gate);

/* Nobody may be inside, nor wait in a close. */
SHOAL_API void shoal_gate_deinit(struct shoal_gate *gate);

/* Enters: 0, with a leave to follow; SHOAL_ECLOSED. Does not yield. */
SHOAL_API int shoal_gate_enter(struct shoal_gate *gate);

/* Leaves: on any fiber or continuation of the core. Does not yield. */
SHOAL_API void shoal_gate_leave(struct shoal_gate *gate);

/*
 * Closes the gate and waits until nobody is inside: not to be called by who is. Any number may
 * wait. 0; -ETIMEDOUT, or the code of the fiber's cancel (then the gate is closed, and some are
 * inside). On a fiber; yields if somebody is inside. See wait_queue.h.
 */
SHOAL_API int shoal_gate_close(struct shoal_gate *gate, uint64_t timeout_ns);

/* The same; the value means nothing. -ETIMEDOUT, -ECANCELED; -ENOMEM, with the gate closed. */
SHOAL_API struct shoal_future *shoal_gate_close_future(struct shoal_gate *gate,
                                                       uint64_t timeout_ns);

/* Whether a close has begun; how many are inside. */
SHOAL_API bool shoal_gate_closed(const struct shoal_gate *gate);
SHOAL_API uint64_t shoal_gate_inside(const struct shoal_gate *gate);

SHOAL_END_DECLS

#endif
