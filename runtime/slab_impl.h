/*
 * A slab: objects of one size for one core, recycled without touching the allocator.
 *
 * 1. Taking and giving back is a push or pop on a list that only this core sees.
 * 2. Chunks come from shoal_mem (so they count against --memory) and stay until the slab ends.
 * 3. Checked builds (SHOAL_DEBUG, ASan) put a header before each object with its state, a
 *    generation and the place that took it, and keep what was given back in a quarantine, poisoned,
 *    so that a stale pointer meets poison and not a neighbour; poison that was written to is found
 *    at the next take. What is live at the end is named.
 *
 *   checked:   | chunk | header object | header object | ...     release: | chunk | object | ...
 */
#ifndef SHOAL_RUNTIME_SLAB_IMPL_H
#define SHOAL_RUNTIME_SLAB_IMPL_H

#include <stdint.h>

#include "shoal/runtime/mem_report.h"
#include "shoal/runtime/slab.h"

#if defined(SHOAL_DEBUG) || defined(SHOAL_ASAN)
#define SHOAL_SLAB_CHECKED 1
#endif

/* `alignment` is 16 or 64. Allocates nothing yet. */
void shoal_slab_init(struct shoal_slab *slab, const char *name, uint32_t object_bytes,
                     uint32_t alignment);

/* Frees the chunks. Objects still live are reported in checked builds; returns their number. */
uint32_t shoal_slab_deinit(struct shoal_slab *slab);

/* How many objects are taken and not given back. O(free): counted when asked, not on the way. */
uint32_t shoal_slab_live(const struct shoal_slab *slab);

/*
 * Makes sure that there is a chunk: what every core must be able to do is not left to the hour when
 * memory has run out. 0 or -ENOMEM.
 */
int shoal_slab_reserve(struct shoal_slab *slab);

/* For the failure injector: from now on each take has to ask. Takes of kept objects undo it. */
void shoal_slab_hide(struct shoal_slab *slab);

/* What shoal_slab_stats() reports of one slab. O(objects). */
void shoal_slab_describe(const struct shoal_slab *slab, struct shoal_slab_stats *out);

/* The slow paths: a new chunk; the checked forms. */
void *shoal_slab_take_slow(struct shoal_slab *slab, const void *place);
void shoal_slab_give_checked(struct shoal_slab *slab, void *object);

/* Aborts unless `object` is a live object of this slab. Nothing in release builds. */
#ifdef SHOAL_SLAB_CHECKED
void shoal_slab_check_live(const struct shoal_slab *slab, const void *object, const char *what);
#else
static inline void shoal_slab_check_live(const struct shoal_slab *slab, const void *object,
                                         const char *what)
{
    (void)slab;
    (void)object;
    (void)what;
}
#endif

/* An uninitialised object, or NULL when out of memory. `place`: the code address to blame. */
static inline void *shoal_slab_take_at(struct shoal_slab *slab, const void *place)
{
#ifdef SHOAL_SLAB_CHECKED
    return shoal_slab_take_slow(slab, place);
#else
    struct shoal_slab_item *item = slab->free;
    if (SHOAL_UNLIKELY(item == NULL))
        return shoal_slab_take_slow(slab, place);
    slab->free = item->next;
    return item;
#endif
}

static inline void *shoal_slab_take(struct shoal_slab *slab)
{
    return shoal_slab_take_at(slab, __builtin_return_address(0));
}

static inline void shoal_slab_give(struct shoal_slab *slab, void *object)
{
#ifdef SHOAL_SLAB_CHECKED
    shoal_slab_give_checked(slab, object);
#else
    struct shoal_slab_item *item = (struct shoal_slab_item *)object;
    item->next = slab->free;
    slab->free = item;
#endif
}

#endif
