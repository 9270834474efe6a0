/*
 * What a core's memory is used for: slab by slab, receive buffers, stacks of fibers, the rest.
 * All figures are of the calling core; another one is asked by shoal_submit_to().
 */
#ifndef SHOAL_RUNTIME_MEM_REPORT_H
#define SHOAL_RUNTIME_MEM_REPORT_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/mem.h"

SHOAL_BEGIN_DECLS

/* One slab: objects of one size that the core recycles. */
struct shoal_slab_stats {
    const char *name;      /* of what it holds, such as "future"; stays as long as the slab */
    uint32_t object_bytes; /* without the headers of checked builds */
    uint32_t live;         /* taken and not given back */
    uint32_t objects;      /* in all chunks, live or not */
    uint32_t chunks;       /* pieces taken from the allocator; kept until the slab ends */
    uint64_t bytes;        /* of the chunks */
};

typedef void shoal_slab_stats_fn(void *arg, const struct shoal_slab_stats *stats);

/*
 * Calls `each` for every slab of the calling core, oldest first. `each` may not yield. Walks the
 * free objects to count them: microseconds for thousands. Core threads only.
 */
SHOAL_API void shoal_slab_stats(shoal_slab_stats_fn *each, void *arg);

struct shoal_mem_report {
    struct shoal_mem_stats allocator;
    uint64_t slab_bytes;            /* chunks of all slabs */
    uint64_t slab_live_bytes;       /* live objects in them */
    uint64_t buffer_bytes;          /* receive buffers, kept until the core ends */
    uint64_t stack_reserved_bytes;  /* address space of fiber stacks; no part of used_bytes */
    uint64_t stack_committed_bytes; /* of that, pages that are in memory now */
    uint64_t other_bytes; /* the rest of allocator.used_bytes: what was allocated singly */
    uint32_t slabs;
    uint32_t buffers;
    uint32_t buffers_free; /* not held by anybody: with the pool, or with the kernel to be filled */
    uint32_t fibers;       /* that have not ended, or were not joined yet */
    uint32_t fibers_free;  /* kept for the next spawn */
};

/* Fills `out` for the calling core. As slow as shoal_slab_stats(), and a system call for each batch
 * of stacks. Does not yield. */
SHOAL_API void shoal_mem_report(struct shoal_mem_report *out);

/* Writes the same as a table to the log, at level info. */
SHOAL_API void shoal_mem_report_log(void);

SHOAL_END_DECLS

#endif
