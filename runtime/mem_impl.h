/*
 * A core's allocator state.
 */
#ifndef SHOAL_RUNTIME_MEM_IMPL_H
#define SHOAL_RUNTIME_MEM_IMPL_H

#include "shoal/runtime/mem.h"

struct shoal_mem {
    struct shoal_mem_stats stats;
};

/* Whether allocations go to jemalloc; the same answer during the whole life of the process. */
int shoal_mem_uses_jemalloc(void);

/* Gives the calling thread a jemalloc arena of its own (once a core, at its start). */
void shoal_mem_init(struct shoal_mem *mem, uint64_t limit_bytes);

#endif
