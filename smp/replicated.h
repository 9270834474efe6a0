/*
 * A value of which each core has a copy of its own, to read at no cost: a configuration, a table of
 * routes.
 *
 *   rc = shoal_replicated_new(&config, &initial, sizeof(initial));
 *   const struct config *mine = shoal_replicated_get(config, NULL);          on any core
 *   rc = shoal_replicated_set(config, &changed, sizeof(changed));            now and then
 *
 * 1. Reading is a load or two of memory that the core itself has allocated.
 * 2. A new value is copied to all cores first, and then all change over; if one core has no memory
 *    for it, none does. While they change over, some cores have the new value and others still the
 *    old one. Once the set has returned, all have the new one.
 * 3. Sets follow each other, from whatever core they come: all cores see the same values in the
 *    same order.
 * 4. The value is bytes: what it points to must not change, and must outlive all copies.
 * 5. It ends as a service does (shoal/smp/sharded.h): with the program, in reverse order, or by
 *    shoal_replicated_free().
 */
#ifndef SHOAL_SMP_REPLICATED_H
#define SHOAL_SMP_REPLICATED_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_replicated;

#define SHOAL_REPLICATED_BYTES_MAX ((size_t)1 << 30)

/*
 * Gives each core a copy of the `bytes` (up to SHOAL_REPLICATED_BYTES_MAX) at `data`. 0; -EINVAL;
 * -ENOMEM; -ECANCELED, -ETIMEDOUT, SHOAL_ESTOPPING as shoal_sharded_start(). On a fiber of core 0;
 * yields.
 */
SHOAL_API int shoal_replicated_new(struct shoal_replicated **out, const void *data, size_t bytes);

/* Frees it and all copies: nobody may use it any more. NULL is fine. As above; yields. */
SHOAL_API void shoal_replicated_free(struct shoal_replicated *replicated);

/*
 * The copy of the calling core, aligned to 16, valid until the caller yields; `*bytes` (NULL: not
 * wanted) gets its size. NULL once it has ended. Any core; does not yield.
 */
SHOAL_API const void *shoal_replicated_get(const struct shoal_replicated *replicated,
                                           size_t *bytes);

/* How often the calling core's copy was changed: 0 at first. Any core. */
SHOAL_API uint64_t shoal_replicated_version(const struct shoal_replicated *replicated);

/*
 * Changes the value on all cores, see 2. above. 0; or it has changed on none: -EINVAL; -ENOMEM;
 * SHOAL_ECLOSED; -ECANCELED, -ETIMEDOUT. `data` stays the caller's. On a fiber of any core; yields.
 */
SHOAL_API int shoal_replicated_set(struct shoal_replicated *replicated, const void *data,
                                   size_t bytes);

SHOAL_END_DECLS

#endif
