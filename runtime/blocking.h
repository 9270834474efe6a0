/*
 * A few helper threads a core for calls that block: name resolution, and files where the I/O
 * backend is epoll. Threads start when needed, up to SHOAL_BLOCKING_THREADS_MAX a core, and run on
 * any CPU that the process may use. Calls beyond that wait in order; each waits on its own fiber.
 */
#ifndef SHOAL_RUNTIME_BLOCKING_H
#define SHOAL_RUNTIME_BLOCKING_H

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_BLOCKING_THREADS_MAX 4

/*
 * Runs `fn(arg)` on a helper thread and returns its result. `fn` may block; it must not call Shoal,
 * except functions that any thread may call. Called on a fiber; yields. A cancel does not interrupt
 * `fn`: the call returns once it has ended. -EAGAIN when no thread can be had; the code of the
 * cancel (-ECANCELED, -ETIMEDOUT) when the fiber was cancelled before a thread had begun.
 */
SHOAL_API int shoal_blocking_call(int (*fn)(void *arg), void *arg);

SHOAL_END_DECLS

#endif
