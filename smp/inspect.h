/*
 * A report of all cores: every fiber, its stack and what it waits for, the timers that are armed
 * and the messages that have no answer yet. SIGQUIT prints it; see docs/inspecting.md.
 */
#ifndef SHOAL_SMP_INSPECT_H
#define SHOAL_SMP_INSPECT_H

#include <stddef.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* Takes the next piece of the report; 0, or a negative code that ends it. May yield. */
typedef int shoal_inspect_write_fn(void *ctx, const char *text, size_t size);

/*
 * Asks one core after the other and hands `write` the text of each, in one piece, on the calling
 * fiber. A core is held for the time it takes to look at its fibers (some microseconds for each
 * different stack, at most 10,000 fibers); names of functions are found on a helper thread. A core
 * that does not answer within half a second is reported as such, with the stack of what holds it.
 * Memory is mapped for the duration, outside --memory.
 * Returns 0, what `write` returned, -ENOMEM, or -ECANCELED. Called on a fiber of any core; yields.
 */
SHOAL_API int shoal_inspect_all(shoal_inspect_write_fn *write, void *ctx);

SHOAL_END_DECLS

#endif
