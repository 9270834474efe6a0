/*
 * The core's pool of receive buffers, from which both backends take.
 *
 * 1. Buffers come in chunks of 64 and are never freed before the core ends; the pool grows while it
 *    is short, up to SHOAL_BUFPOOL_MAX or the memory limit. A burst leaves address space touched,
 *    not lost: the next burst uses it.
 * 2. A buffer is with the pool (`free`, or in the kernel's ring) or with a holder, who frees its
 *    slice. Freeing it gives it back to the kernel at once.
 * 3. Whoever finds no buffer waits in `starved` and is called when some come back: no timer.
 */
#ifndef SHOAL_RUNTIME_BUFPOOL_IMPL_H
#define SHOAL_RUNTIME_BUFPOOL_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/buffer.h"
#include "shoal/runtime/list.h"

#define SHOAL_BUFFER_BYTES      8128u /* an odd number of lines: starts spread over cache sets */
#define SHOAL_BUFPOOL_CHUNK     64u
#define SHOAL_BUFPOOL_MAX       8192u /* buffers a core: 64 MiB; a power of two */
#define SHOAL_BUFPOOL_CHUNKS    (SHOAL_BUFPOOL_MAX / SHOAL_BUFPOOL_CHUNK)
#define SHOAL_BUFPOOL_LOW_WATER 16u

struct shoal_buffer {
    struct shoal_block block;
    struct shoal_slice slice;
    struct shoal_buffer *next_free;
    uint16_t id;
};

struct shoal_bufpool {
    struct shoal_buffer *free;
    uint32_t free_count; /* with the pool: in `free`, or in the kernel's ring */
    uint32_t count;
    struct shoal_buffer *chunks[SHOAL_BUFPOOL_CHUNKS];
    char *memory[SHOAL_BUFPOOL_CHUNKS];
    struct shoal_list starved; /* of struct shoal_bufpool_waiter */
    void (*give_to_kernel)(struct shoal_bufpool *pool, struct shoal_buffer *buffer); /* or NULL */
    void *kernel;
};

struct shoal_bufpool_waiter {
    struct shoal_list node;
    void (*resume)(struct shoal_bufpool_waiter *waiter);
};

void shoal_bufpool_init(struct shoal_bufpool *pool);
void shoal_bufpool_deinit(struct shoal_bufpool *pool);

/* Adds a chunk; false at the limit or when out of memory. */
bool shoal_bufpool_grow(struct shoal_bufpool *pool);

/* Takes a buffer for a read by this side (epoll); NULL when none is to be had. */
struct shoal_slice *shoal_bufpool_take(struct shoal_bufpool *pool);

/* The buffer that the kernel has filled. */
struct shoal_slice *shoal_bufpool_filled(struct shoal_bufpool *pool, uint16_t id, uint32_t len);

/* Puts `waiter` in the line for buffers. */
void shoal_bufpool_wait(struct shoal_bufpool *pool, struct shoal_bufpool_waiter *waiter);

/* Memory that the pool has taken. */
static inline uint64_t shoal_bufpool_bytes(const struct shoal_bufpool *pool)
{
    return (uint64_t)pool->count * (sizeof(struct shoal_buffer) + SHOAL_BUFFER_BYTES);
}

/* Whether buffers run low and no more are to be had, so that holders should copy, not hold. */
static inline bool shoal_bufpool_short(struct shoal_bufpool *pool)
{
    return SHOAL_UNLIKELY(pool->free_count < SHOAL_BUFPOOL_LOW_WATER) && !shoal_bufpool_grow(pool);
}

#endif
