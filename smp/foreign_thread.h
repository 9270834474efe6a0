/*
 * Foreign threads: how a thread that is no core (a host's main loop, a library's, Python's) has
 * functions run on a core and gets their outcomes.
 *
 *   struct shoal_foreign_call call = {.core = 1, .fn = count_rows, .arg = table};
 *   int rc = shoal_foreign_run(&call, NULL, &answer);         // waits for the answer
 *
 *   shoal_foreign_port_submit(port, calls, 100);              // or: does not wait; the descriptor
 *   ... poll() says that shoal_foreign_port_fd() is readable  //     tells when to drain
 *   int n = shoal_foreign_port_drain(port, outcomes, 100);
 *
 * 1. A call always ends, with the value, the code and the text that the function gave, or with a
 *    code of its own. What was submitted by one thread to one core starts in that order.
 * 2. What is in flight in a port is bounded; at the bound a submit takes no more (-ENOBUFS), and
 *    the thread drains before it goes on. Once its port is made, a thread allocates nothing.
 * 3. Between a drain that found nothing left and the next one, the first outcome makes the
 *    descriptor readable, and those that follow it cost no system call: one wake-up drains all.
 * 4. A cancel and a time-out reach the core: what has not begun there never does; a fiber and a
 *    future are cancelled. A function that runs as a plain task is not interrupted. The call ends
 *    only when the core has answered, so that `arg` may point into the caller's stack.
 * 5. While the runtime stops, calls are taken until its services have stopped. Then those in flight
 *    are cancelled as all fibers are, and each is answered before the cores end. Later calls fail
 *    with SHOAL_ESTOPPING, and so do calls before any runtime runs. Outcomes that have come can be
 *    drained at any time, also when no runtime is left.
 * 6. A port is used by one thread at a time, and lives until it is freed, not as long as a thread
 *    or a runtime. A thread that ends without freeing its port leaves it to whoever has the
 *    pointer.
 * 7. In a child after fork() there are no cores: calls fail with SHOAL_ESTOPPING, what was in
 *    flight is answered in the parent alone, and a port may be freed and nothing else.
 */
#ifndef SHOAL_SMP_FOREIGN_THREAD_H
#define SHOAL_SMP_FOREIGN_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/submit.h"

SHOAL_BEGIN_DECLS

#define SHOAL_FOREIGN_IN_FLIGHT_MAX 65536
#define SHOAL_FOREIGN_TEXT_MAX      512 /* bytes of the longest text of a failure, with its end */

/* How a call has ended. */
struct shoal_foreign_outcome {
    uint64_t tag; /* the call's */
    int32_t code; /* 0, or negative */
    uint32_t core;
    const char *text; /* of a failure; "" without. Never NULL */
    union shoal_value value;
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_foreign_outcome) == 48, "other languages read it");

typedef void shoal_foreign_done_fn(const struct shoal_foreign_outcome *outcome);

/* A call; what is zero is not asked for. Its layout is one that other languages can write. */
struct shoal_foreign_call {
    shoal_submit_fn *fn; /* one of the three: see submit.h */
    shoal_submit_fiber_fn *fiber_fn;
    shoal_submit_future_fn *future_fn;
    void *arg;
    uint64_t timeout_ns; /* from the submit on; then it ends with -ETIMEDOUT */
    uint64_t tag;        /* comes back with the outcome; tells calls apart for a cancel */
    shoal_foreign_done_fn *done;
    uint32_t core;
    bool done_on_core;
};
SHOAL_STATIC_ASSERT(sizeof(struct shoal_foreign_call) == 64, "one cache line a call");

/* ---- One call, waited for ---- */

/* The answer to shoal_foreign_run(). */
struct shoal_foreign_answer {
    union shoal_value value; /* zero after a failure */
    char *text;              /* the caller's: the text of a failure is put here, "" without */
    size_t text_size;        /* of that; SHOAL_FOREIGN_TEXT_MAX holds any text */
};

/* Lets one thread end what another waits for. All of it is private. */
struct shoal_foreign_cancel {
    pthread_mutex_t lock;
    void *slot;
    bool cancelled;
};

/* Any thread; the latter when nobody uses it any more. */
SHOAL_API void shoal_foreign_cancel_init(struct shoal_foreign_cancel *cancel);
SHOAL_API void shoal_foreign_cancel_deinit(struct shoal_foreign_cancel *cancel);

/*
 * Ends the shoal_foreign_run() that uses `cancel`, and each later one, with -ECANCELED, or with the
 * result that was there first. Any thread but a core, which would wait for a lock that threads
 * hold.
 */
SHOAL_API void shoal_foreign_cancel(struct shoal_foreign_cancel *cancel);

/*
 * Has `call` done and waits for its end; its `tag` and `done` are not used. `cancel` and `answer`
 * may be NULL. Returns the code: the function's, or -ETIMEDOUT, -ECANCELED, SHOAL_ENOCORE, -EINVAL
 * (not exactly one function), -ENOMEM (on the core), SHOAL_ESTOPPING, -EDEADLK (called on a core,
 * which it would block: use shoal_submit()). Signal handlers that run meanwhile do not end it, and
 * the calling thread cannot be cancelled (pthread_cancel) in it. Blocks the thread.
 */
SHOAL_API int shoal_foreign_run(const struct shoal_foreign_call *call,
                                struct shoal_foreign_cancel *cancel,
                                struct shoal_foreign_answer *answer);

/* ---- Ports ---- */

struct shoal_foreign_port;

/*
 * A port with room for `in_flight_max` calls (1 to SHOAL_FOREIGN_IN_FLIGHT_MAX) whose outcomes have
 * not been drained. 0; -EINVAL; -ENOMEM; -EMFILE and its kin (no descriptor); -EDEADLK on a core. A
 * runtime need not run.
 */
SHOAL_API int shoal_foreign_port_new(struct shoal_foreign_port **out, unsigned in_flight_max);

/*
 * Cancels what is in flight, waits until the cores have answered, and frees `port`: a core that is
 * busy delays it. No `done` is called by it any more but those that run on a core. NULL is fine.
 */
SHOAL_API void shoal_foreign_port_free(struct shoal_foreign_port *port);

/*
 * Submits `calls` in order; they are copied. Returns how many were taken, from the first on: fewer
 * than `count` when one of them cannot be. When the first cannot be, the reason: -ENOBUFS (as many
 * as may be are in flight: drain), SHOAL_ENOCORE, -EINVAL, SHOAL_ESTOPPING; see
 * shoal_foreign_port_error(). Each core is woken once for all that it got. Does not block.
 *
 * How a call with `done` reports: with `done_on_core`, on its core, as a task that may not yield
 * and must not use the port; nothing is drained for it, and no descriptor becomes readable.
 * Without, on the thread that drains, inside its drain. A call without `done` is put into the
 * drain's array.
 */
SHOAL_API int shoal_foreign_port_submit(struct shoal_foreign_port *port,
                                        const struct shoal_foreign_call *calls, unsigned count);

/*
 * Takes up to `max` outcomes, and calls `done` of those that have one, which does not count.
 * Returns how many were put into `outcomes` (NULL with `max` 0, when all calls have a `done`). What
 * is left keeps the descriptor readable. Texts are valid until the next drain. A `done` may submit
 * and cancel, but not drain. Does not block.
 */
SHOAL_API int shoal_foreign_port_drain(struct shoal_foreign_port *port,
                                       struct shoal_foreign_outcome *outcomes, unsigned max);

/* A drain and a submit in one call: what a loop in another language does once a turn. */
struct shoal_foreign_turn {
    const struct shoal_foreign_call *calls;
    struct shoal_foreign_outcome *outcomes;
    uint32_t calls_count;
    uint32_t calls_taken; /* out */
    uint32_t outcomes_max;
    uint32_t outcomes_count; /* out */
    int32_t code;            /* out: 0, or why the call after the last one taken was not */
    uint32_t unused;
};

/* Drains first, so that what has ended makes room. Returns outcomes_count. Does not block. */
SHOAL_API int shoal_foreign_port_turn(struct shoal_foreign_port *port,
                                      struct shoal_foreign_turn *turn);

/*
 * Waits until there is something to drain: 0; -ETIMEDOUT after `timeout_ns` (SHOAL_NS_FOREVER:
 * none); -EINTR when a signal handler ran; -EDEADLK on a core; -ENOENT when nothing is in flight
 * that could end it. Blocks the thread.
 */
SHOAL_API int shoal_foreign_port_wait(struct shoal_foreign_port *port, uint64_t timeout_ns);

/*
 * Asks the cores to end all calls of this port that have `tag`. Their outcomes still come: mostly
 * -ECANCELED. Returns how many were asked. O(in_flight_max). Does not block.
 */
SHOAL_API int shoal_foreign_port_cancel(struct shoal_foreign_port *port, uint64_t tag);

/* An eventfd to poll for reading, and for nothing else: the drain reads it. */
SHOAL_API int shoal_foreign_port_fd(const struct shoal_foreign_port *port);

/* Calls without a drained outcome. */
SHOAL_API unsigned shoal_foreign_port_in_flight(const struct shoal_foreign_port *port);

/* Why the last submit took fewer calls than it was given; "" when it did not. */
SHOAL_API const char *shoal_foreign_port_error(const struct shoal_foreign_port *port);

SHOAL_END_DECLS

#endif
