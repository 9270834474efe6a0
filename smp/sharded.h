/*
 * Services: one instance on each core, started and stopped together, called from any core.
 *
 *   static const struct shoal_sharded_ops ops = {
 *       .name = "cache", .instance_bytes = sizeof(struct cache), .start = open, .stop = close};
 *   struct shoal_sharded *cache;
 *   int rc = shoal_sharded_start(&cache, &(struct shoal_sharded_options){.ops = &ops});
 *   ...
 *   rc = shoal_await(shoal_sharded_invoke(cache, shoal_key_core(key, length), find, &query),
 * &value);
 *
 * 1. Each instance is memory of its own core, and is touched by that core alone: nothing of a
 *    service is shared, and an invocation on the calling core takes no atomic operation.
 * 2. All start, or none stays: when one fails, those that had started are stopped again, the last
 *    core first, before the call returns the failure.
 * 3. A service stops with the program (it is hooked into shoal_at_stop(): the last one started
 *    stops first), or before by shoal_sharded_stop(). Three steps, each ended on all cores before
 *    the next begins:
 *      close  nobody comes in any more; what runs inside goes on to its end, or is cancelled when
 *             the time-out has passed
 *      stop   `stop` of each instance: all instances are there, none is used by anybody
 *      free   the memory of each
 * 4. An invocation that comes after the close fails with SHOAL_ECLOSED and says which service it
 *    was. So a late one is an error, never a use of what is gone: the handle stays until
 *    shoal_sharded_free(), or the end of the program.
 * 5. A stop never fails and takes no memory: neither full rings nor a lack of memory keep it up.
 * 6. Outcomes are those of shoal/smp/submit.h: value, code and text come back whole, a cancel and
 *    the deadline of the calling fiber reach the target, what `arg` points to may lie on the stack
 *    of the fiber that waits. In the service's group, if it has one, as said in
 *    shoal/smp/service_group.h.
 */
#ifndef SHOAL_SMP_SHARDED_H
#define SHOAL_SMP_SHARDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

SHOAL_BEGIN_DECLS

struct shoal_service_group;
struct shoal_sharded;

struct shoal_sharded_ops {
    const char *name; /* for errors and reports; kept by reference */
    /* Of one instance: zeroed before `start`, aligned to a cache line. 0 is fine. */
    size_t instance_bytes;
    /*
     * Makes an instance ready, on a fiber of its core; `arg` is the one of the options. 0, or a
     * negative code: then it has left nothing behind, and `stop` is not called. It may invoke on
     * instances that have started before (SHOAL_SHARDED_IN_ORDER: those of lower cores); others
     * fail with SHOAL_ECLOSED. NULL: nothing to do.
     */
    int (*start)(void *instance, void *arg);
    /* Undoes that, on a fiber of the same core. It may await, and is not cancelled. NULL: as above.
     */
    void (*stop)(void *instance);
};

enum shoal_sharded_order {
    SHOAL_SHARDED_PARALLEL, /* all cores start at once, and stop at once */
    SHOAL_SHARDED_IN_ORDER, /* core 0, then core 1, and so on; they stop in reverse */
};

struct shoal_sharded_options {
    const struct shoal_sharded_ops *ops; /* kept by reference */
    void *arg;                           /* for `start` on every core */
    struct shoal_service_group *group; /* of all invocations; NULL: the default one. Outlives it */
    enum shoal_sharded_order order;
};

/* ---- Life: on fibers of core 0 ---- */

/*
 * Starts an instance on each core and waits until all have started. 0 with `*out` to use on any
 * core. Otherwise the failure of the lowest core that failed; shoal_error_message() tells which
 * core and why. -EINVAL: no ops, no name, or an instance of 1 GiB or more; -ENOMEM; what `start`
 * returned; -ECANCELED and -ETIMEDOUT when the calling fiber was cancelled: instances that were
 * starting are cancelled, and those that had started are stopped. Yields.
 */
SHOAL_API int shoal_sharded_start(struct shoal_sharded **out,
                                  const struct shoal_sharded_options *options);

/*
 * Stops `sharded` as said in 3. above. Invocations that run inside have `timeout_ns`
 * (SHOAL_NS_FOREVER: no limit) to end; after that they are cancelled, and still waited for. With
 * the program's stop that is --shutdown-timeout. Returns when all is done, also when the calling
 * fiber is cancelled meanwhile; a second call waits for the first. Not from inside an invocation of
 * the service, nor from its own `start` or `stop`: it would wait for itself. NULL, and a service
 * that has stopped, are fine. Yields.
 */
SHOAL_API void shoal_sharded_stop(struct shoal_sharded *sharded, uint64_t timeout_ns);

/*
 * Stops `sharded` if it runs (without limit) and frees the handle: nobody may use it any more. Not
 * needed at the end of the program. NULL is fine. Yields.
 */
SHOAL_API void shoal_sharded_free(struct shoal_sharded *sharded);

/* ---- On each core ---- */

/*
 * The instance of the calling core; NULL when it is not there (not started yet, or stopped). It
 * stays valid inside an invocation, and otherwise until the caller yields. Any core; does not
 * yield.
 */
SHOAL_API void *shoal_sharded_local(const struct shoal_sharded *sharded);

/*
 * The same for code that is no invocation and yields: the instance stays until the leave. NULL once
 * the service closes. Does not yield.
 */
SHOAL_API void *shoal_sharded_enter(struct shoal_sharded *sharded);
SHOAL_API void shoal_sharded_leave(struct shoal_sharded *sharded);

/* The service that `instance` is of. On its core, from `start` on until `stop` has returned. */
SHOAL_API struct shoal_sharded *shoal_sharded_of(void *instance);

/* As given in the ops. Any core. */
SHOAL_API const char *shoal_sharded_name(const struct shoal_sharded *sharded);

/* ---- Invocations: from any core ---- */

/*
 * Runs on the core of `instance`, inside the service. Returns 0 with `*out` (zeroed before), or a
 * negative code. As a task it must not yield; on a fiber it may.
 */
typedef int shoal_sharded_fn(void *instance, void *arg, union shoal_value *out);

#define SHOAL_SHARDED_COPY_MAX 24

/*
 * Runs `fn(instance, arg)` on `core`: as a task, or on a fiber. Never NULL; fails as
 * shoal_submit_to() does, and with SHOAL_ECLOSED. Core threads only; yields only in a fiber at the
 * bound of messages in flight.
 */
SHOAL_API struct shoal_future *shoal_sharded_invoke(struct shoal_sharded *sharded, unsigned core,
                                                    shoal_sharded_fn *fn, void *arg);
SHOAL_API struct shoal_future *shoal_sharded_invoke_fiber(struct shoal_sharded *sharded,
                                                          unsigned core, shoal_sharded_fn *fn,
                                                          void *arg);

/*
 * As shoal_sharded_invoke(), with a copy of `bytes` bytes (at most SHOAL_SHARDED_COPY_MAX, else
 * -EMSGSIZE) that `fn` gets a pointer to, aligned to 8, followed by zeros up to that limit, and
 * valid while it runs.
 */
SHOAL_API struct shoal_future *shoal_sharded_invoke_copy(struct shoal_sharded *sharded,
                                                         unsigned core, shoal_sharded_fn *fn,
                                                         const void *data, size_t bytes);

/* An invocation with all that it can have; what is zero is not asked for. */
struct shoal_sharded_call {
    shoal_sharded_fn *fn;       /* as a task; */
    shoal_sharded_fn *fiber_fn; /* or on a fiber: one of the two */
    void *arg;
    /* On one core only: as in struct shoal_submit. */
    void (*arg_free)(void *arg);
    uint64_t timeout_ns;
    /* On several cores only. */
    union shoal_value *values; /* room for one of each core, by its number; NULL: not wanted */
    unsigned *failed_core;     /* set when it fails; NULL: not wanted */
};

/* As above, on one core. `call` is copied. */
SHOAL_API struct shoal_future *shoal_sharded_call(struct shoal_sharded *sharded, unsigned core,
                                                  const struct shoal_sharded_call *call);

/*
 * Runs it on all cores at once, the calling one included, or on all others, and waits until all
 * have ended. 0 with `call->values` (those of cores that were not asked are left alone). Otherwise
 * the failure of the lowest core that failed, whose number `*call->failed_core` gets, with a text
 * that tells it; values of the cores that succeeded are there all the same. A cancel of the calling
 * fiber is passed on to all. On a fiber; yields.
 */
SHOAL_API int shoal_sharded_invoke_all(struct shoal_sharded *sharded,
                                       const struct shoal_sharded_call *call);
SHOAL_API int shoal_sharded_invoke_others(struct shoal_sharded *sharded,
                                          const struct shoal_sharded_call *call);

/*
 * The same as a future, which carries no value of its own. `call` is copied; what it points at must
 * stay until the future has settled. The deadline of the calling fiber holds. -ENOMEM: nothing was
 * invoked. Any core; does not yield.
 */
SHOAL_API struct shoal_future *
shoal_sharded_invoke_all_future(struct shoal_sharded *sharded,
                                const struct shoal_sharded_call *call);
SHOAL_API struct shoal_future *
shoal_sharded_invoke_others_future(struct shoal_sharded *sharded,
                                   const struct shoal_sharded_call *call);

SHOAL_END_DECLS

#endif
