/*
 * Assertions. SHOAL_CHECK is always on and is for what cannot happen; SHOAL_DCHECK is for debug
 * builds (SHOAL_DEBUG). Bad input and exhausted resources are errors, never assertions.
 */
#ifndef SHOAL_RUNTIME_CHECK_H
#define SHOAL_RUNTIME_CHECK_H

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* Writes `file:line: function: text` with the core and fiber that run now, and aborts. */
SHOAL_API SHOAL_NORETURN void shoal_panic(const char *file, int line, const char *function,
                                          const char *fmt, ...) SHOAL_PRINTF(4, 5);

SHOAL_END_DECLS

#define SHOAL_PANIC(...) shoal_panic(__FILE__, __LINE__, __func__, __VA_ARGS__)

/* SHOAL_CHECK(cond, "text %d", value): the text is required, so that a report says what broke. */
#define SHOAL_CHECK(cond, ...)                                                                     \
    do {                                                                                           \
        if (SHOAL_UNLIKELY(!(cond)))                                                               \
            SHOAL_PANIC(__VA_ARGS__);                                                              \
    } while (0)

#ifdef SHOAL_DEBUG
#define SHOAL_DCHECK(cond, ...) SHOAL_CHECK(cond, __VA_ARGS__)
#else
#define SHOAL_DCHECK(cond, ...)                                                                    \
    do {                                                                                           \
        if (0 && (cond))                                                                           \
            SHOAL_PANIC(__VA_ARGS__);                                                              \
    } while (0)
#endif

#endif
