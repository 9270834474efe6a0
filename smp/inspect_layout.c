/*
 * What a debugger needs to find fibers: names and offsets, as a table in the library.
 *
 * tools/gdb/shoal.py reads it, so that it works on release builds, whose debug information has
 * lines and no types, on a core file of another version, and without guessing. The table is found
 * by its name in the symbol table; it ends with an empty name.
 */
#include <stddef.h>

#include "shoal/smp/inspect_impl.h"
#include "shoal/smp/launch_impl.h"

#if defined(SHOAL_FIBER_UCONTEXT)
#define SWITCH 0 /* a ucontext_t: not read */
#elif defined(__x86_64__)
#define SWITCH 1
#elif defined(__aarch64__)
#define SWITCH 2
#else
#define SWITCH 0
#endif

#define OFFSET(type, member) #type "." #member, (uint32_t)offsetof(struct shoal_##type, member)

const struct shoal_gdb_field shoal_gdb_layout[] = {
    {"version", 1},
    {"switch", SWITCH},
    {OFFSET(launch, fleet.cores)},
    {OFFSET(launch, fleet.core)},
    {OFFSET(core, id)},
    {OFFSET(core, fiber)},
    {OFFSET(core, fibers.live)},
    {OFFSET(core, timers.armed)},
    {OFFSET(fiber, node)},
    {OFFSET(fiber, sp)},
    {OFFSET(fiber, fn)},
    {OFFSET(fiber, name)},
    {OFFSET(fiber, state)},
    {OFFSET(fiber, cancelled)},
    {OFFSET(fiber, stack)},
    {OFFSET(fiber, stack_bytes)},
    {OFFSET(fiber, group)},
    {OFFSET(sched_group, name)},
    {OFFSET(fiber, waits_for)},
    {OFFSET(fiber, wait_ctx)},
    {OFFSET(fiber, waiting_future)},
    {"", 0},
};
