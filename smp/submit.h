/*
 * Messages between cores: run a function on another core and get its outcome as a future here.
 *
 *   struct shoal_future *count = shoal_submit_to(1, count_rows, table);
 *
 * 1. Between one pair of cores, functions start in the order in which they were submitted: those
 *    that run as tasks among each other, and those that run on fibers likewise.
 * 2. What may be in flight towards a core is bounded (SHOAL_SUBMIT_IN_FLIGHT_MAX, or the bound of
 *    a service group, see shoal/smp/service_group.h). At the bound a fiber waits its turn, in
 *    order; a plain task gets a future failed with -ENOBUFS.
 * 3. The value, the code and the text of a failure come back whole. A submit always ends.
 * 4. A submit to one's own core runs from the queue like any other, and costs a task.
 * 5. A cancel and a time-out reach the target: what has not begun there never does, and what waits
 *    there is cancelled. The future settles only once the target has answered, so that whatever
 *    `arg` points to may lie on the stack of the fiber that awaits it.
 * 6. The deadline of the calling fiber (shoal/runtime/scope.h) travels with the message: it holds
 *    for the fiber on the target too.
 * 7. While the runtime stops, submits go on until the last message is answered; after that they
 *    fail with SHOAL_ESTOPPING.
 */
#ifndef SHOAL_SMP_SUBMIT_H
#define SHOAL_SMP_SUBMIT_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

#define SHOAL_SUBMIT_IN_FLIGHT_MAX 256
#define SHOAL_SUBMIT_COPY_MAX      40

/*
 * Runs on the target core, as a task: it must not yield. Returns 0 with `*out` (zeroed before) as
 * the value, or a negative code. Pointers in `*out` belong to the target core.
 */
typedef int shoal_submit_fn(void *arg, union shoal_value *out);

/* The same on a fiber of the target core: it may await. */
typedef int shoal_submit_fiber_fn(void *arg, union shoal_value *out);

/* The same, with a future (of the target core) as its outcome. */
typedef struct shoal_future *shoal_submit_future_fn(void *arg);

/* Number of cores of this program. Any thread, while it runs. */
SHOAL_API unsigned shoal_core_count(void);

/*
 * Runs `fn(arg)` on `core`. `arg` is handed over by pointer: what it points to must stay until the
 * future has resolved. Never NULL; see shoal/runtime/future.h. Fails with SHOAL_ENOCORE (`core` is
 * not below shoal_core_count()), -ENOBUFS, -ENOMEM, SHOAL_ESTOPPING, -ECANCELED (the calling fiber
 * was cancelled while it waited its turn). Core threads only; yields only in a fiber at the bound.
 */
SHOAL_API struct shoal_future *shoal_submit_to(unsigned core, shoal_submit_fn *fn, void *arg);
SHOAL_API struct shoal_future *shoal_submit_fiber_to(unsigned core, shoal_submit_fiber_fn *fn,
                                                     void *arg);
SHOAL_API struct shoal_future *shoal_submit_future_to(unsigned core, shoal_submit_future_fn *fn,
                                                      void *arg);

/*
 * The same as shoal_submit_to, with a copy of `size` bytes (at most SHOAL_SUBMIT_COPY_MAX, else
 * -EMSGSIZE) that `fn` gets a pointer to, valid while it runs.
 */
SHOAL_API struct shoal_future *shoal_submit_copy_to(unsigned core, shoal_submit_fn *fn,
                                                    const void *data, size_t size);

struct shoal_service_group;

/* A submit with all that it can have; what is zero is not asked for. */
struct shoal_submit {
    shoal_submit_fn *fn; /* one of the three */
    shoal_submit_fiber_fn *fiber_fn;
    shoal_submit_future_fn *future_fn;
    void *arg;
    void (*arg_free)(void *arg);       /* hands `arg` over: see below */
    uint64_t timeout_ns;               /* from now on; 0: none but the calling fiber's deadline */
    struct shoal_service_group *group; /* whose bound holds; NULL: the default one's */
};

/*
 * As shoal_submit_to() and its kin; `call` is copied. With `timeout_ns` it may also fail with
 * -ETIMEDOUT: before it began, or because the fiber or the future on the target ended so. A
 * function that has begun as a plain task is not interrupted.
 *
 * `arg_free(arg)`, where given, is called once, on the calling core, from the queue or inside this
 * call: when the target has answered, or when the message could not be sent. Then `arg` need not
 * outlive anything: who asked may drop the future (shoal_future_discard(), shoal_timeout()) and
 * forget it.
 */
SHOAL_API struct shoal_future *shoal_submit(unsigned core, const struct shoal_submit *call);

SHOAL_END_DECLS

#endif
