/*
 * A function on all cores at once, with no service behind it.
 *
 *   int rc = shoal_all_cores(&(struct shoal_all_cores){.fn = flush, .arg = &what});
 *
 * For a value that all cores are to have a copy of, see shoal/smp/replicated.h; to fold what the
 * cores return into one, shoal/smp/map_reduce.h.
 */
#ifndef SHOAL_SMP_ALL_CORES_H
#define SHOAL_SMP_ALL_CORES_H

#include <stdbool.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/submit.h"

SHOAL_BEGIN_DECLS

struct shoal_service_group;

struct shoal_all_cores {
    shoal_submit_fn *fn;               /* as a task; */
    shoal_submit_fiber_fn *fiber_fn;   /* or on a fiber: one of the two */
    void *arg;                         /* the same for all */
    bool others;                       /* all but the calling core */
    struct shoal_service_group *group; /* of the messages; NULL: the default one */
    union shoal_value *values; /* room for one of each core, by its number; NULL: not wanted */
    unsigned *failed_core;     /* set when it fails; NULL: not wanted */
};

/*
 * Runs it on all cores and waits until all have ended. 0 with `values` (those of cores that were
 * not asked are left alone). Otherwise the failure of the lowest core that failed, whose number
 * `*failed_core` gets, with a text that tells it; values of the cores that succeeded are there all
 * the same. -EINVAL without a function, or with two. A cancel of the calling fiber is passed on to
 * all, and its deadline holds for all. Allocates nothing for up to 64 cores. On a fiber of any
 * core; yields.
 */
SHOAL_API int shoal_all_cores(const struct shoal_all_cores *what);

/*
 * The same as a future, which carries no value of its own. `what` is copied; what it points at must
 * stay until the future has settled. -ENOMEM: nothing was run. Any core; does not yield.
 */
SHOAL_API struct shoal_future *shoal_all_cores_future(const struct shoal_all_cores *what);

SHOAL_END_DECLS

#endif
