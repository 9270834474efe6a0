/*
 * Fibers: functions with a stack of their own that may wait without blocking their core.
 *
 * 1. A fiber never changes core, and runs until it waits, yields or returns.
 * 2. Each fiber is joined or detached, once; after that its pointer is dead.
 * 3. Cancelling asks the operation that the fiber waits for to end, and the wait returns only when
 *    it has ended; a result that was faster is delivered. From then on every wait returns
 *    -ECANCELED (-ETIMEDOUT, if a scope's deadline did it), but not between shoal_fiber_shield()
 *    and shoal_fiber_unshield(), for cleanup.
 * 4. A stack has a guard page below it; an overflow ends the program with the fiber's name.
 * 5. Fibers of a core share its floating-point control words.
 */
#ifndef SHOAL_RUNTIME_FIBER_H
#define SHOAL_RUNTIME_FIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_FIBER_STACK_MAX (UINT64_C(256) << 20)

struct shoal_fiber;
struct shoal_sched_group;

struct shoal_fiber_options {
    const char *name;                /* kept by reference, for reports; NULL: "fiber" */
    struct shoal_sched_group *group; /* NULL: the spawner's */
    size_t stack_bytes; /* up to SHOAL_FIBER_STACK_MAX; 0 or less than usual: 128 KiB */
};

/* A fiber's function; what it returns is what shoal_fiber_join() returns. */
typedef int shoal_fiber_fn(void *arg);

/*
 * Makes a fiber that will run `fn(arg)` from this core's queue. `name` is kept by reference, for
 * reports. Returns 0 with `*out` to be joined or detached; -ENOMEM. Does not yield.
 */
SHOAL_API int shoal_fiber_spawn(struct shoal_fiber **out, shoal_fiber_fn *fn, void *arg,
                                const char *name);

/* The same, detached at once. */
SHOAL_API int shoal_fiber_spawn_detached(shoal_fiber_fn *fn, void *arg, const char *name);

/*
 * The same as either, with options; detached when `out` is NULL. A stack that is larger than usual
 * is mapped for this fiber and unmapped after it: some microseconds. Returns also -EINVAL, for
 * `stack_bytes` over the limit.
 */
SHOAL_API int shoal_fiber_spawn_with(struct shoal_fiber **out, shoal_fiber_fn *fn, void *arg,
                                     const struct shoal_fiber_options *options);

/*
 * Waits until `fiber` has returned, frees it and returns its result. Called on a fiber. When the
 * caller is cancelled, `fiber` is cancelled and still waited for: a fiber is never abandoned.
 */
SHOAL_API int shoal_fiber_join(struct shoal_fiber *fiber);

/* Lets `fiber` free itself when it returns. */
SHOAL_API void shoal_fiber_detach(struct shoal_fiber *fiber);

/* Cancels `fiber`, see 3. above. Harmless when it has returned but is not joined yet. */
SHOAL_API void shoal_fiber_cancel(struct shoal_fiber *fiber);

/* Whether the running fiber has been cancelled (and is not shielded). */
SHOAL_API bool shoal_fiber_cancelled(void);

/* Begins and ends a stretch in which a cancel does not reach the running fiber's waits. Nests. */
SHOAL_API void shoal_fiber_shield(void);
SHOAL_API void shoal_fiber_unshield(void);

/* The running fiber; NULL outside fibers. */
SHOAL_API struct shoal_fiber *shoal_fiber_self(void);

SHOAL_API const char *shoal_fiber_name(const struct shoal_fiber *fiber);

/*
 * Says why what runs here fails: `return shoal_fiber_explain(-EDOM, "no root of %d", x)`. Returns
 * `code`. On a fiber the text becomes its shoal_error_message(); a function that was submitted
 * (shoal/smp/submit.h), plain or on a fiber, sends it back with its code. The text is cut at 511
 * bytes, and lost without memory. Does not yield.
 */
SHOAL_API int shoal_fiber_explain(int code, const char *fmt, ...) SHOAL_PRINTF(2, 3);

/* Lets everything else that is ready run first. Returns 0, or -ECANCELED. Yields. */
SHOAL_API int shoal_yield(void);

/* Waits `delay_ns` on the core's clock. Returns 0, or -ECANCELED. Yields. */
SHOAL_API int shoal_sleep_ns(uint64_t delay_ns);

/* Waits until `deadline_ns` on the core's clock; not at all when that has passed. The same. */
SHOAL_API int shoal_sleep_until_ns(uint64_t deadline_ns);

/*
 * Fiber-local data: a value for each fiber and key. A key is a constant of the program's.
 *
 *   static const struct shoal_fiber_key request_key = {.destroy = request_unref};
 */
struct shoal_fiber_key {
    void (*destroy)(void *value); /* called on the fiber when it returns; NULL: nothing to do */
};

/*
 * Sets the running fiber's value for `key`, which must outlive the fiber; the former value is
 * forgotten, not destroyed. NULL takes the value away. Returns 0; -ENOMEM. Does not yield.
 */
SHOAL_API int shoal_fiber_local_set(const struct shoal_fiber_key *key, void *value);

/* The running fiber's value for `key`; NULL if it has none. */
SHOAL_API void *shoal_fiber_local_get(const struct shoal_fiber_key *key);

SHOAL_END_DECLS

#endif
