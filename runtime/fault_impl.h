/*
 * The failure injector inside: what the slow ways to memory ask.
 *
 * 1. The state is the thread's and not the core's: what is allocated before a core exists, and
 *    after it has gone, can fail as well.
 * 2. An inline take of a slab's free object asks nobody. In release builds, free objects are
 *    therefore moved out of its sight (shoal_slab_hide) when a plan is armed, at each poll of the
 *    loop, and at each take that gets here. Checked builds have no inline take.
 */
#ifndef SHOAL_RUNTIME_FAULT_IMPL_H
#define SHOAL_RUNTIME_FAULT_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/slab_impl.h"

extern _Thread_local bool shoal_fault_armed
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* With a plan armed: counts one allocation of `bytes` (0: unknown); whether it is to fail. */
bool shoal_fault_count(const char *what, size_t bytes);

static inline bool shoal_fault_alloc(const char *what, size_t bytes)
{
    return SHOAL_UNLIKELY(shoal_fault_armed) && shoal_fault_count(what, bytes);
}

/* The same for what is taken from a list of free ones on a hot path: checked builds only. */
static inline bool shoal_fault_reuse(const char *what, size_t bytes)
{
#ifdef SHOAL_SLAB_CHECKED
    return shoal_fault_alloc(what, bytes);
#else
    (void)what;
    (void)bytes;
    return false;
#endif
}

/* Once the thread is a core: its loop hides free objects from now on, if a plan is armed. */
void shoal_fault_attach(void);

#endif
