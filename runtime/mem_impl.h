/*
 * A core's allocator state.
 */
#ifndef SHOAL_RUNTIME_MEM_IMPL_H
#define SHOAL_RUNTIME_MEM_IMPL_H

#include "shoal/runtime/list.h"
#include "shoal/runtime/mem.h"

struct shoal_mem {
    struct shoal_mem_stats stats;
    struct shoal_list slabs;  /* struct shoal_slab.registered */
    struct shoal_list blocks; /* debug builds: what is handed out, by its header */
};

/* Whether allocations go to jemalloc; the same answer during the whole life of the process. */
int shoal_mem_uses_jemalloc(void);

/* Gives the calling thread a jemalloc arena of its own (once a core, at its start). */
void shoal_mem_init(struct shoal_mem *mem, uint64_t limit_bytes);

/* Once all that core `id` made is freed: reports what is still out. Returns its bytes. */
uint64_t shoal_mem_deinit(const struct shoal_mem *mem, unsigned id);

#endif
