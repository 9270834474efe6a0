/*
 * A core's memory for combinators: slabs of four sizes, and larger states from shoal_mem. All is
 * zero until the first use, so that a core which never combines futures pays nothing.
 */
#ifndef SHOAL_RUNTIME_COMBINE_POOL_IMPL_H
#define SHOAL_RUNTIME_COMBINE_POOL_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/runtime/slab_impl.h"

#define SHOAL_COMBINE_CLASSES 4

struct shoal_combine;

struct shoal_combine_pool {
    struct shoal_slab slabs[SHOAL_COMBINE_CLASSES];
    /* Combinators whose cancel is still to be passed on; see combine.c. */
    struct shoal_combine *cancel_head;
    struct shoal_combine **cancel_tail;
    /* Results whose values are still to be dropped; see combine_results.c. */
    struct shoal_combine *drop_head;
    bool open;
    bool cancelling;
    bool dropping;
};

/* Frees the slabs; returns how many states were still in use, and reports them. */
unsigned shoal_combine_pool_deinit(struct shoal_combine_pool *pool);

/* How many states of slab sizes are in use. O(free). */
unsigned shoal_combine_pool_live(const struct shoal_combine_pool *pool);

#endif
