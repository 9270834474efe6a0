/*
 * Blocks and slices: see buffer.h.
 */
#include "shoal/runtime/buffer.h"

#include "shoal/runtime/buffer_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"

struct heap_block {
    struct shoal_block block;
    struct shoal_slice slice;
    char bytes[];
};

struct foreign_block {
    struct shoal_block block;
    struct shoal_slice slice;
    void (*release)(void *ctx);
    void *ctx;
};

static void heap_release(struct shoal_block *block)
{
    struct heap_block *heap = SHOAL_CONTAINER_OF(block, struct heap_block, block);
    shoal_mem_free(heap, sizeof(*heap) + block->size);
}

static void foreign_release(struct shoal_block *block)
{
    struct foreign_block *foreign = SHOAL_CONTAINER_OF(block, struct foreign_block, block);
    foreign->release(foreign->ctx);
    shoal_mem_free(foreign, sizeof(*foreign));
}

struct shoal_slice *shoal_slice_new(uint32_t size, const char *owner)
{
    struct heap_block *heap = shoal_mem_alloc(sizeof(*heap) + size);
    if (heap == NULL)
        return NULL;
    heap->block = (struct shoal_block){
        .data = heap->bytes, .release = heap_release, .owner = owner, .size = size, .refs = 1};
    heap->slice =
        (struct shoal_slice){.block = &heap->block, .data = heap->bytes, .embedded = true};
    SHOAL_NOTE_OWNER(heap->slice.core);
    return &heap->slice;
}

struct shoal_slice *shoal_slice_take_over(void *data, uint32_t len, void (*release)(void *ctx),
                                          void *ctx, const char *owner)
{
    struct foreign_block *foreign = shoal_mem_alloc(sizeof(*foreign));
    if (foreign == NULL)
        return NULL;
    foreign->release = release;
    foreign->ctx = ctx;
    foreign->block = (struct shoal_block){
        .data = data, .release = foreign_release, .owner = owner, .size = len, .refs = 1};
    foreign->slice =
        (struct shoal_slice){.block = &foreign->block, .data = data, .len = len, .embedded = true};
    SHOAL_NOTE_OWNER(foreign->slice.core);
    return &foreign->slice;
}

struct shoal_slice *shoal_slice_share(const struct shoal_slice *slice, uint32_t offset,
                                      uint32_t len)
{
    shoal_slice_check_mine(slice, "share");
    SHOAL_CHECK(offset <= slice->len && len <= slice->len - offset,
                "a share of %u bytes at %u of a slice of %u", len, offset, slice->len);
    struct shoal_slice *share = shoal_slab_take(&shoal_core_self->slices);
    if (share == NULL)
        return NULL;
    *share = (struct shoal_slice){.block = slice->block, .data = slice->data + offset, .len = len};
    SHOAL_NOTE_OWNER(share->core);
    slice->block->refs++;
    return share;
}

void shoal_slice_free(struct shoal_slice *slice)
{
    if (slice == NULL)
        return;
    shoal_slice_check_mine(slice, "free");
    struct shoal_block *block = slice->block;
    SHOAL_DCHECK(block->refs > 0, "a slice of a freed block (%s)", block->owner);
    if (!slice->embedded)
        shoal_slab_give(&shoal_core_self->slices, slice);
    if (--block->refs == 0)
        block->release(block);
}

void shoal_chain_consume(struct shoal_chain *chain, size_t bytes)
{
    SHOAL_CHECK(bytes <= chain->bytes, "%zu bytes consumed of a chain of %zu", bytes, chain->bytes);
    while (bytes > 0) {
        struct shoal_slice *slice = chain->head;
        shoal_slice_check_mine(slice, "consume");
        if (bytes < slice->len) {
            slice->data += bytes;
            slice->len -= (uint32_t)bytes;
            chain->bytes -= bytes;
            return;
        }
        bytes -= slice->len;
        shoal_slice_free(shoal_chain_take(chain));
    }
}

void shoal_chain_clear(struct shoal_chain *chain)
{
    struct shoal_slice *slice;
    while ((slice = shoal_chain_take(chain)) != NULL)
        shoal_slice_free(slice);
}
