/*
 * Scheduling groups: how the fibers and continuations of a core share its time.
 *
 * 1. Groups that have work ready get time in proportion to their shares; one that has none leaves
 *    its time to the others and does not save it up.
 * 2. A fiber runs in the group it was spawned in (its spawner's, unless told otherwise); a
 *    continuation in the group of the code that registered it.
 * 3. Each core has a main group, with SHOAL_SCHED_SHARES_DEFAULT shares, where everything runs that
 *    nobody has put elsewhere: what arrives from sockets and from other cores begins there.
 * 4. Time is handed over between tasks, never inside one: a long one asks shoal_need_preempt() and
 *    yields.
 */
#ifndef SHOAL_RUNTIME_SCHED_GROUP_H
#define SHOAL_RUNTIME_SCHED_GROUP_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_SCHED_GROUPS_MAX     16
#define SHOAL_SCHED_SHARES_MAX     1000
#define SHOAL_SCHED_SHARES_DEFAULT 100
#define SHOAL_SCHED_NAME_MAX       31

struct shoal_sched_group;

/*
 * Makes a group on the calling core. `name` is copied, up to SHOAL_SCHED_NAME_MAX bytes; `shares`
 * from 1 to SHOAL_SCHED_SHARES_MAX. Returns 0; -EINVAL for shares out of range; -ENOSPC when the
 * core has SHOAL_SCHED_GROUPS_MAX groups, the main one included. Does not yield.
 */
SHOAL_API int shoal_sched_group_new(struct shoal_sched_group **out, const char *name,
                                    unsigned shares);

/*
 * Frees `group`, which must have no fiber left and is not the main one: -EBUSY, -EINVAL.
 * Continuations that were registered in it and come later run in the main group, or in one that has
 * been made since and has taken its place.
 */
SHOAL_API int shoal_sched_group_free(struct shoal_sched_group *group);

/* From the next time slice on. 0, or -EINVAL for shares out of range. */
SHOAL_API int shoal_sched_group_set_shares(struct shoal_sched_group *group, unsigned shares);

/* The group in which the caller runs; the core's main group. Core threads only. */
SHOAL_API struct shoal_sched_group *shoal_sched_group_self(void);
SHOAL_API struct shoal_sched_group *shoal_sched_group_main(void);

/*
 * Moves the running fiber to `group`, at once: the rest of its time slice counts there. What it
 * spawns and registers from now on belongs there too. Does not yield.
 */
SHOAL_API void shoal_sched_group_enter(struct shoal_sched_group *group);

struct shoal_sched_group_stats {
    const char *name; /* valid until the group is freed */
    unsigned shares;
    unsigned fibers;     /* that live */
    uint64_t runtime_ns; /* that its tasks have held the core */
    uint64_t tasks;      /* that have run */
    uint64_t slices;     /* times that it got the core */
    uint64_t waited_ns;  /* that it had work ready and another group ran */
};

SHOAL_API void shoal_sched_group_stats(const struct shoal_sched_group *group,
                                       struct shoal_sched_group_stats *out);

/* The groups of the calling core, in order of their making: pass NULL first; NULL ends. */
SHOAL_API struct shoal_sched_group *
shoal_sched_group_next(const struct shoal_sched_group *previous);

SHOAL_END_DECLS

#endif
