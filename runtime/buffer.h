/*
 * Buffers: reference-counted blocks of memory, and slices of them, chained for gather.
 *
 *   chain -> slice -> slice -> ...            a slice is a stretch of one block
 *              |        |
 *            block    block (refs, data, owner, release hook)
 *
 * 1. A block is freed on its core, by its release hook, when the last slice of it is.
 * 2. The bytes of a slice are the holder's to read until it frees the slice; whoever made the block
 *    says whether they may be written.
 * 3. Data that is received lies in blocks of the core's pool: freeing its slices is what lets the
 *    core receive more.
 */
#ifndef SHOAL_RUNTIME_BUFFER_H
#define SHOAL_RUNTIME_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_block {
    char *data;
    void (*release)(struct shoal_block *block); /* called once, when `refs` has reached 0 */
    const char *owner;                          /* who made it, for reports; static */
    uint32_t size;                              /* bytes at `data` */
    uint32_t refs;
};

struct shoal_slice {
    struct shoal_slice *next;
    struct shoal_block *block;
    char *data;
    uint32_t len;
    bool embedded; /* lives in its block; others come from a slab */
    uint16_t core; /* private: whose it is, in checked builds */
};

struct shoal_chain {
    struct shoal_slice *head;
    struct shoal_slice *tail;
    size_t bytes;
    uint32_t slices;
};

/* A block of `size` bytes with one slice of length 0 at its start, `size` up to 1 GiB. NULL: no
 * memory. */
SHOAL_API struct shoal_slice *shoal_slice_new(uint32_t size, const char *owner);

/*
 * A slice of memory that the caller hands over: `release(ctx)` is called on this core when the last
 * slice of it is freed. NULL when out of memory; then nothing is taken over.
 */
SHOAL_API struct shoal_slice *shoal_slice_take_over(void *data, uint32_t len,
                                                    void (*release)(void *ctx), void *ctx,
                                                    const char *owner);

/* Another slice of the same block: `len` bytes from `offset` of `slice`. NULL when out of memory.
 */
SHOAL_API struct shoal_slice *shoal_slice_share(const struct shoal_slice *slice, uint32_t offset,
                                                uint32_t len);

/* Frees one slice (not those behind it). NULL is fine. */
SHOAL_API void shoal_slice_free(struct shoal_slice *slice);

static inline void shoal_chain_init(struct shoal_chain *chain)
{
    chain->head = NULL;
    chain->tail = NULL;
    chain->bytes = 0;
    chain->slices = 0;
}

static inline void shoal_chain_push(struct shoal_chain *chain, struct shoal_slice *slice)
{
    slice->next = NULL;
    if (chain->tail != NULL)
        chain->tail->next = slice;
    else
        chain->head = slice;
    chain->tail = slice;
    chain->bytes += slice->len;
    chain->slices++;
}

/* Takes the first slice out; NULL if there is none. */
static inline struct shoal_slice *shoal_chain_take(struct shoal_chain *chain)
{
    struct shoal_slice *slice = chain->head;
    if (slice == NULL)
        return NULL;
    chain->head = slice->next;
    if (chain->head == NULL)
        chain->tail = NULL;
    chain->bytes -= slice->len;
    chain->slices--;
    slice->next = NULL;
    return slice;
}

/* Drops `bytes` from the front; at most what is there. */
SHOAL_API void shoal_chain_consume(struct shoal_chain *chain, size_t bytes);

/* Frees all slices. */
SHOAL_API void shoal_chain_clear(struct shoal_chain *chain);

SHOAL_END_DECLS

#endif
