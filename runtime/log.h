/*
 * Log lines on stderr: `2026-11-23T14:00:00.123Z info  core 0: text`, one write(2) a line, so that
 * lines of several cores never mix. A foreign thread logs as `core -`. No allocation, no lock; a
 * line over 1,000 bytes is cut and ends with `...`. Control characters are written as \xNN.
 */
#ifndef SHOAL_RUNTIME_LOG_H
#define SHOAL_RUNTIME_LOG_H

#include <stdbool.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

enum shoal_log_level { SHOAL_LOG_ERROR, SHOAL_LOG_WARN, SHOAL_LOG_INFO, SHOAL_LOG_DEBUG };

/* Sets the process's level. Before the cores start; default info. */
SHOAL_API void shoal_log_set_level(enum shoal_log_level level);

/* Whether lines of `level` are written. Any thread. */
SHOAL_API bool shoal_log_enabled(enum shoal_log_level level);

/* Writes one line. Any thread; not from a signal handler. Does not yield; may block on stderr. */
SHOAL_API void shoal_log_write(enum shoal_log_level level, const char *fmt, ...) SHOAL_PRINTF(2, 3);

SHOAL_END_DECLS

#define SHOAL_LOG(level, ...)                                                                      \
    do {                                                                                           \
        if (shoal_log_enabled(level))                                                              \
            shoal_log_write(level, __VA_ARGS__);                                                   \
    } while (0)
#define SHOAL_ERROR(...)  SHOAL_LOG(SHOAL_LOG_ERROR, __VA_ARGS__)
#define SHOAL_WARN(...)   SHOAL_LOG(SHOAL_LOG_WARN, __VA_ARGS__)
#define SHOAL_INFO(...)   SHOAL_LOG(SHOAL_LOG_INFO, __VA_ARGS__)
#define SHOAL_DEBUGF(...) SHOAL_LOG(SHOAL_LOG_DEBUG, __VA_ARGS__)

#endif
