/*
 * Looking at a running program: the fibers of a core, where each one stands and what it waits for.
 *
 * The report of all cores, which SIGQUIT prints, is in shoal/smp/inspect.h.
 */
#ifndef SHOAL_RUNTIME_INSPECT_H
#define SHOAL_RUNTIME_INSPECT_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/fiber.h"

SHOAL_BEGIN_DECLS

/* What is known of a fiber. Everything it points to is valid while `visit` runs. */
struct shoal_inspect_fiber {
    const struct shoal_fiber *fiber;
    const char *name;
    const char *state;     /* "ready", "running", "parked", or "done": returned and not joined */
    const char *waits_for; /* in words; NULL unless it is parked */
    const char *group;     /* its scheduling group */
    shoal_fiber_fn *fn;
    unsigned core;
    bool cancelled;
    void *const *frames;  /* code addresses, the innermost first */
    unsigned frame_count; /* 0 for a fiber that is running or done */
};

/* Returns whether to go on. Must not yield, spawn, cancel or join. */
typedef bool shoal_inspect_fiber_fn(void *ctx, const struct shoal_inspect_fiber *fiber);

/*
 * Calls `visit(ctx, ...)` for each fiber of the calling core, in the order in which they were
 * spawned. Returns how many it was called for. Costs some microseconds a fiber, for its stack;
 * allocates nothing; does not yield. Core threads only.
 */
SHOAL_API unsigned shoal_inspect_fibers(shoal_inspect_fiber_fn *visit, void *ctx);

/*
 * Writes what is at the code address `pc`, as in "httpd(+0x1f3a4) serve+0x5c", into `out` of `size`
 * bytes, at least 1; what does not fit is cut. Returns the length. The name comes from the symbol
 * table of the file on disk, so that static functions have one, and that may take a millisecond:
 * better done on a helper thread (shoal_blocking_call). Any thread; allocates nothing.
 */
SHOAL_API size_t shoal_inspect_symbol(const void *pc, char *out, size_t size);

SHOAL_END_DECLS

#endif
