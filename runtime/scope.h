/*
 * Scopes: fibers that belong together and end together, with a deadline for all that they do.
 *
 *   struct shoal_scope scope;
 *   shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * SHOAL_NS_PER_S});
 *   shoal_scope_spawn(&scope, fetch, &a, "fetch a");
 *   shoal_scope_spawn(&scope, fetch, &b, "fetch b");
 *   int rc = shoal_scope_leave(&scope);     all have ended, and nothing of them is left
 *
 * 1. A scope is entered and left by one fiber, its owner, on whose stack it may lie. Scopes nest.
 * 2. Leaving waits for every fiber that was spawned in it; when the owner is cancelled, they are
 *    cancelled and still waited for.
 * 3. A deadline, or shoal_scope_cancel(), cancels the children, for good, and the owner until it
 *    leaves the scope: its waits return -ETIMEDOUT, or -ECANCELED, from then on.
 * 4. A deadline holds for the whole tree: scopes inside, their fibers, and what they wait for. The
 *    nearest one wins.
 */
#ifndef SHOAL_RUNTIME_SCOPE_H
#define SHOAL_RUNTIME_SCOPE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/list.h"
#include "shoal/runtime/timer.h"

SHOAL_BEGIN_DECLS

struct shoal_scope_options {
    uint64_t timeout_ns;    /* from the enter on; 0: no deadline of its own */
    bool cancel_on_failure; /* the first child to fail cancels the scope */
};

/* The caller's memory, until it has been left. All of it is private. */
struct shoal_scope {
    struct shoal_list children; /* shoal_fiber.sibling */
    struct shoal_fiber *owner;
    struct shoal_scope *outer;
    struct shoal_timer timer;
    uint64_t deadline_ns;
    int failure;   /* of the first child that failed */
    int cancelled; /* code of the scope's cancel; 0 without */
    bool cancel_on_failure;
    bool leaving;
};

/* Enters `scope` on the running fiber. `options` may be NULL: no deadline. Does not yield. */
SHOAL_API void shoal_scope_enter(struct shoal_scope *scope,
                                 const struct shoal_scope_options *options);

/*
 * Spawns a fiber in `scope`, from any fiber of this core, before the owner has left it. A child of
 * a scope that is cancelled already begins cancelled. 0; -ENOMEM. Does not yield.
 */
SHOAL_API int shoal_scope_spawn(struct shoal_scope *scope, shoal_fiber_fn *fn, void *arg,
                                const char *name);
SHOAL_API int shoal_scope_spawn_with(struct shoal_scope *scope, shoal_fiber_fn *fn, void *arg,
                                     const struct shoal_fiber_options *options);

/* Cancels the scope, see 3. above. From any fiber or continuation of this core. */
SHOAL_API void shoal_scope_cancel(struct shoal_scope *scope);

/*
 * Waits for all children and leaves the scope, which must be the innermost of the running fiber.
 * Returns the result of the first child that failed of itself (a negative one); else -ETIMEDOUT if
 * the deadline has cancelled the scope; else 0. Yields.
 */
SHOAL_API int shoal_scope_leave(struct shoal_scope *scope);

/* The nearest deadline that holds for the running fiber; SHOAL_NS_FOREVER without. */
SHOAL_API uint64_t shoal_fiber_deadline_ns(void);

SHOAL_END_DECLS

#endif
