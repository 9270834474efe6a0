/*
 * Whose an object is. In checked builds each public call that takes an object of one core asks
 * whether that is the calling core, and ends the program if it is not. One text for all of them
 * says what was done to what, whose it is, and who did it:
 *
 *   lock of mutex 0x7f3a10 of core 0 on core 1
 *   cancel of timer 0x7f3a10 of core 1 on a thread that is no core
 *   spawn of a fiber on a thread that is no core
 *
 * 1. In release builds nothing of this is left: not a load, not a branch, not a text.
 * 2. The check comes before anything is read through the object but its owner's number, which is
 *    written once, before anybody else can know of the object.
 *
 * Rejected: a number for every object in a table of the side (a lookup for each call, and memory
 * that nobody frees), and thread annotations of the compiler (they know of locks, not of owners).
 */
#ifndef SHOAL_RUNTIME_OWNER_IMPL_H
#define SHOAL_RUNTIME_OWNER_IMPL_H

#include "shoal/runtime/check.h"
#include "shoal/runtime/context_impl.h"
#include "shoal/runtime/core_inline.h"

#if defined(SHOAL_DEBUG) || defined(SHOAL_ASAN)
#define SHOAL_OWNER_CHECKED 1
#else
#define SHOAL_OWNER_CHECKED 0
#endif

/* What an object notes, of whom nobody has asked yet whose it is. */
#define SHOAL_OWNER_NONE UINT16_MAX

/* The ends of SHOAL_CHECK_OWNER() and SHOAL_CHECK_ON_CORE(); `fmt` names the object. */
SHOAL_NORETURN void shoal_owner_panic(const char *file, int line, const char *function, int owner,
                                      const char *op, const char *fmt, ...) SHOAL_PRINTF(6, 7);
SHOAL_NORETURN void shoal_foreign_panic(const char *file, int line, const char *function,
                                        const char *op);

/*
 * SHOAL_CHECK_OWNER(scope->core, "cancel", "scope %p", scope): the calling thread is that core. The
 * object is named without its core, and nothing of it is looked at unless the check fails.
 */
#define SHOAL_CHECK_OWNER(owner, op, ...)                                                          \
    do {                                                                                           \
        if (SHOAL_OWNER_CHECKED &&                                                                 \
            SHOAL_UNLIKELY((uint16_t)(owner) != (uint16_t)shoal_context_core))                     \
            shoal_owner_panic(__FILE__, __LINE__, __func__, (int)(owner), (op), __VA_ARGS__);      \
    } while (0)

/* The calling core's number into what SHOAL_CHECK_OWNER() will be given; in checked builds only. */
#define SHOAL_NOTE_OWNER(field)                                                                    \
    do {                                                                                           \
        if (SHOAL_OWNER_CHECKED)                                                                   \
            (field) = (uint16_t)shoal_context_core;                                                \
    } while (0)

/* SHOAL_CHECK_ON_CORE("spawn of a fiber"): the calling thread is a core. */
#define SHOAL_CHECK_ON_CORE(op)                                                                    \
    do {                                                                                           \
        if (SHOAL_OWNER_CHECKED && SHOAL_UNLIKELY(shoal_core_self == NULL))                        \
            shoal_foreign_panic(__FILE__, __LINE__, __func__, (op));                               \
    } while (0)

#endif
