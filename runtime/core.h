/*
 * What a program can ask about the core that it runs on.
 */
#ifndef SHOAL_RUNTIME_CORE_H
#define SHOAL_RUNTIME_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* Number of the calling core, from 0; -1 on a thread that is no core. */
SHOAL_API int shoal_core_id(void);

/* "io_uring" or "epoll": the backend that the whole process chose. Core threads only. */
SHOAL_API const char *shoal_core_io_backend(void);

/* Whether the core has begun to stop: no new work should be started. Core threads only. */
SHOAL_API bool shoal_core_stopping(void);

SHOAL_END_DECLS

#endif
