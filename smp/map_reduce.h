/*
 * Map-reduce: a value from each core, folded into one.
 *
 *   static int count(void *instance, void *arg, union shoal_value *out);       on each core
 *   static int add(void *arg, union shoal_value *left, const union shoal_value *right)
 *   {
 *       left->u64 += right->u64;
 *       return 0;
 *   }
 *   rc = shoal_map_reduce(&(struct shoal_map_reduce){.sharded = cache, .map = count, .reduce =
 * add}, &total);
 *
 * 1. The result is map(0) + map(1) + ... + map(N-1), in the order of the cores, where a + b stands
 *    for reduce(a, b): `reduce` must be associative, but need not be commutative. With it the
 *    result is the same in each run, whatever core is faster and however it is folded.
 * 2. With few cores (SHOAL_MAP_REDUCE_LINEAR_MAX) the calling core asks each core and folds. With
 *    more it is a tree: a core asks others for halves of what is left of its share, and folds what
 *    they give into its own, so that nobody folds more than log2(N) values. `reduce` then runs on
 *    any core: what it touches beside its arguments must be read-only.
 * 3. It ends when all cores have ended, also after a failure. The failure of the lowest core is the
 *    one returned, with a text that tells the core; one of `reduce` counts as that of the core
 *    whose value was to be added.
 * 4. A value is plain data, that any core may read. If it owns something, `drop` frees that on the
 *    calling core, for values that were mapped and are not part of a result.
 * 5. The deadline of the calling fiber holds on all cores, and its cancel reaches them.
 */
#ifndef SHOAL_SMP_MAP_REDUCE_H
#define SHOAL_SMP_MAP_REDUCE_H

#include <stddef.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/sharded.h"

SHOAL_BEGIN_DECLS

#define SHOAL_MAP_REDUCE_LINEAR_MAX 8

enum shoal_map_reduce_shape {
    SHOAL_MAP_REDUCE_AUTO,   /* linear up to SHOAL_MAP_REDUCE_LINEAR_MAX cores, else a tree */
    SHOAL_MAP_REDUCE_LINEAR, /* all folding on the calling core */
    SHOAL_MAP_REDUCE_TREE,
};

/* `*left` becomes left + right; see 1. above. 0, or a negative code. May not yield. */
typedef int shoal_reduce2_fn(void *arg, union shoal_value *left, const union shoal_value *right);

struct shoal_map_reduce {
    struct shoal_sharded *sharded; /* whose instances are mapped; NULL: `instance` is NULL */
    shoal_sharded_fn *map;         /* as a task; */
    shoal_sharded_fn *map_fiber;   /* or on a fiber: one of the two */
    shoal_reduce2_fn *reduce;
    void *arg; /* for both */
    shoal_drop_fn *drop;
    enum shoal_map_reduce_shape shape;
    struct shoal_service_group *group; /* without a service; NULL: the default one */
    unsigned *failed_core;             /* set when it fails; NULL: not wanted */
};

/*
 * As said above: 0 with `*out`, or the failure; then `*out` is untouched. -EINVAL: no mapper, or
 * two, or no `reduce`; SHOAL_ECLOSED: the service has stopped. Allocates nothing for up to 64
 * cores. On a fiber of any core; yields.
 */
SHOAL_API int shoal_map_reduce(const struct shoal_map_reduce *spec, union shoal_value *out);

/*
 * The same as a future, with the result as its value (which `drop` frees when nobody consumes it).
 * `spec` is copied; what it points at must stay until the future has settled. Does not yield.
 */
SHOAL_API struct shoal_future *shoal_map_reduce_future(const struct shoal_map_reduce *spec);

/* The same for accumulators of any size, such as histograms. */
struct shoal_map_reduce_into {
    struct shoal_sharded *sharded;
    size_t bytes; /* of an accumulator, up to 1 GiB */
    /* Fills in `accumulator`, zeroed and aligned to 16, on each core. */
    int (*map)(void *instance, void *arg, void *accumulator);
    int (*map_fiber)(void *instance, void *arg, void *accumulator);
    int (*reduce)(void *arg, void *left, const void *right);
    void *arg;
    void (*drop)(void *accumulator);
    enum shoal_map_reduce_shape shape;
    struct shoal_service_group *group;
    unsigned *failed_core;
};

/*
 * As shoal_map_reduce(); the result goes to `out`, of `spec->bytes` bytes. It takes memory for an
 * accumulator of each core from the calling core (-ENOMEM), unless all of them fit into 4 KiB.
 */
SHOAL_API int shoal_map_reduce_into(const struct shoal_map_reduce_into *spec, void *out);

SHOAL_END_DECLS

#endif
