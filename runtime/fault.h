/*
 * Making allocations fail on purpose, so that a test sees what a program does without memory.
 *
 *   for (uint64_t n = 1;; n++) {
 *       shoal_fault_arm(&(struct shoal_fault_plan){.nth = n});
 *       int rc = scenario();              // an error, or success without that memory
 *       struct shoal_fault_stats stats;
 *       shoal_fault_disarm(&stats);
 *       if (stats.failed == 0)
 *           break;                        // it asks for fewer than n: all of them were tried
 *       check_that_nothing_leaked();      // shoal_mem_report()
 *   }
 *
 * 1. What fails is what the calling core asks for: shoal_mem_alloc() and its kin, chunks of slabs,
 *    receive buffers, mappings of fiber stacks, new threads, and whatever asks shoal_fault_hit().
 * 2. An object taken from a slab counts as an allocation too, even where the slab has a free one:
 *    else a program that has run for a while would never fail. Builds with SHOAL_DEBUG or the
 *    address sanitizer count each take; in other builds a take right after a give may pass by,
 *    since a give and a take are a few instructions there that ask nobody.
 * 3. Without a plan this costs nothing: only the slow ways to memory look.
 * 4. Any program can be run so: --fail-alloc nth=100, or --fail-alloc p=0.01,seed=7. Each failure
 *    is then logged, the first one with its stack.
 *
 * Not reached: what libraries (libc, hwloc, liburing) allocate for themselves.
 */
#ifndef SHOAL_RUNTIME_FAULT_H
#define SHOAL_RUNTIME_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_fault_plan {
    uint64_t nth;        /* this allocation fails, counted from 1; 0: none by its number */
    uint64_t count;      /* and so many in all from there on; 0: it alone */
    uint32_t chance_ppm; /* beside that each fails with this chance, in millionths */
    uint64_t seed;       /* of the chance: the same seed gives the same choices */
    bool verbose;        /* log each failure, and the stack of the first */
};

struct shoal_fault_stats {
    uint64_t asked;  /* allocations since the plan was armed */
    uint64_t failed; /* those that were made to fail */
};

/*
 * Has allocations of the calling thread (a core, as a rule) fail from now on as `plan` says, which
 * is copied. Counts anew. Other cores are asked by shoal_submit_to(). Does not yield.
 */
SHOAL_API void shoal_fault_arm(const struct shoal_fault_plan *plan);

/* Ends that; without a plan it does nothing. `out` (may be NULL): what came of it. */
SHOAL_API void shoal_fault_disarm(struct shoal_fault_stats *out);

/*
 * Whether the allocation that the caller is about to make by other means than Shoal's shall fail.
 * `what` names it in the log. Any thread; false on one that has no plan.
 */
SHOAL_API bool shoal_fault_hit(const char *what);

/*
 * Reads a plan from `text`, a list of nth=N, count=N, p=CHANCE (0 to 1, six decimals), seed=N and
 * core=N, with commas between. `*core`: the core it is for, or -1 for all. 0, or SHOAL_EOPTION with
 * a line in `error` that says what is wrong.
 */
SHOAL_API int shoal_fault_parse(const char *text, struct shoal_fault_plan *out, int *core,
                                char *error, size_t error_size);

SHOAL_END_DECLS

#endif
