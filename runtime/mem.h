/*
 * Memory of one core: from its own jemalloc arena where jemalloc is linked (libc's malloc
 * otherwise), counted against the core's share of --memory.
 *
 * 1. What a core allocates is freed on that core; debug builds abort, naming both cores.
 * 2. Sizes are given back at the free, as to sdallocx; debug builds check them.
 * 3. Never mixed with malloc and free.
 * 4. What a core has not given back when it ends is reported; debug builds name the places.
 */
#ifndef SHOAL_RUNTIME_MEM_H
#define SHOAL_RUNTIME_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/*
 * `bytes` (> 0) of uninitialised memory, aligned to 16. NULL when the core's share of --memory or
 * the system's memory is used up. Does not yield.
 */
SHOAL_API void *shoal_mem_alloc(size_t bytes);

/* The same, zeroed. */
SHOAL_API void *shoal_mem_alloc_zeroed(size_t bytes);

/* The same as shoal_mem_alloc, aligned to `alignment`, a power of two of at least 16. */
SHOAL_API void *shoal_mem_alloc_aligned(size_t bytes, size_t alignment);

/* Frees what one of the functions above gave, with the same `bytes`. NULL is fine. */
SHOAL_API void shoal_mem_free(void *ptr, size_t bytes);

/* Frees what shoal_mem_alloc_aligned gave. */
SHOAL_API void shoal_mem_free_aligned(void *ptr, size_t bytes, size_t alignment);

struct shoal_mem_stats {
    uint64_t used_bytes;  /* handed out and not given back */
    uint64_t peak_bytes;  /* highest used_bytes */
    uint64_t limit_bytes; /* this core's share of --memory; UINT64_MAX without */
    uint64_t allocs;      /* calls that took memory from the allocator */
    uint64_t frees;       /* calls that gave memory back to it */
    uint64_t failures;    /* calls that returned NULL */
};

/*
 * The calling core's figures. All memory that Shoal takes for a core is counted; what libraries
 * (libc, hwloc, liburing) take for themselves is not. mem_report.h tells more.
 */
SHOAL_API void shoal_mem_stats(struct shoal_mem_stats *out);

SHOAL_END_DECLS

#endif
