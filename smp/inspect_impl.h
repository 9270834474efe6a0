/*
 * The report of all cores inside: what SIGQUIT starts, and how a core that does not answer tells
 * where it is.
 */
#ifndef SHOAL_SMP_INSPECT_IMPL_H
#define SHOAL_SMP_INSPECT_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <pthread.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/inspect_impl.h"

#include "shoal/smp/inspect.h"

/*
 * The stack of a running thread, taken by a signal to it. One for the process. `state` is a number
 * that goes up with each use, and a phase: whoever moves it on by a compare-exchange may write.
 *
 *   IDLE -> ASKED (asker) -> WRITING (handler) -> DONE -> IDLE (asker)
 *              `-> IDLE (asker, out of patience: a handler that comes later does nothing)
 */
struct shoal_inspect_probe {
    _Atomic uint32_t state;
    struct shoal_task done; /* goes back to the asker's core */
    struct shoal_core *asker;
    struct shoal_fiber *fiber;
    bool arrived;
    unsigned frame_count;
    void *frame[SHOAL_INSPECT_FRAMES_MAX];
    char running[48]; /* name of the fiber that holds the core; "": a task does */
};

/* inspect_layout.c: for debuggers. */
struct shoal_gdb_field {
    char name[28];
    uint32_t value;
};
extern const struct shoal_gdb_field shoal_gdb_layout[] __attribute__((visibility("hidden")));

/* Once, before the cores start: the handler for the signal that asks a thread for its stack. */
void shoal_inspect_install(void);

/* Prints the report on standard error from a fiber of its own; one at a time. On core 0. */
void shoal_inspect_print(void);

#endif
