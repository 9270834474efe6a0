/*
 * The layout of a slab, which inlined code of public headers must see; its functions are the
 * library's own (slab_impl.h). Programs leave it alone.
 */
#ifndef SHOAL_RUNTIME_SLAB_H
#define SHOAL_RUNTIME_SLAB_H

#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/list.h"

/* Lies over the first bytes of a free object, of whatever type. */
struct __attribute__((may_alias)) shoal_slab_item {
    struct shoal_slab_item *next;
};

struct shoal_slab_chunk;
struct shoal_slab_header;

struct shoal_slab {
    /* What a take may pop without a call. Checked builds keep nothing here, so that code which was
     * compiled without checks goes through theirs. */
    struct shoal_slab_item *free;
    /* Free objects that a take must ask for: all in checked builds; in others those that the
     * failure injector has hidden. */
    struct shoal_slab_header *kept;
    uint32_t objects; /* in all chunks */
    uint32_t object_bytes;
    uint32_t stride_bytes;
    uint32_t alignment;
    uint32_t chunk_bytes;
    uint32_t quarantined;
    struct shoal_slab_header *quarantine_head;
    struct shoal_slab_header *quarantine_tail;
    struct shoal_slab_chunk *chunks;
    const char *name;
    struct shoal_list registered; /* among the core's slabs, for reports */
};

#endif
