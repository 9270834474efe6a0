/*
 * Buffers inside: see buffer.h.
 */
#ifndef SHOAL_RUNTIME_BUFFER_IMPL_H
#define SHOAL_RUNTIME_BUFFER_IMPL_H

#include "shoal/runtime/buffer.h"
#include "shoal/runtime/owner_impl.h"

static inline void shoal_slice_check_mine(const struct shoal_slice *slice, const char *op)
{
    SHOAL_CHECK_OWNER(slice->core, op, "slice %p (%s)", (const void *)slice, slice->block->owner);
}

#endif
