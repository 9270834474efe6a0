/*
 * The pool of receive buffers: see bufpool_impl.h.
 */
#include <string.h>

#include "shoal/runtime/bufpool_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/owner_impl.h"

static void buffer_give(struct shoal_bufpool *pool, struct shoal_buffer *buffer)
{
    pool->free_count++;
    if (pool->give_to_kernel != NULL) {
        pool->give_to_kernel(pool, buffer);
        return;
    }
    buffer->next_free = pool->free;
    pool->free = buffer;
}

static void resume_waiters(struct shoal_bufpool *pool)
{
    if (SHOAL_LIKELY(!shoal_list_linked(&pool->starved)))
        return;
    for (uint32_t n = pool->free_count; n > 0; n--) {
        struct shoal_list *node = shoal_list_take_front(&pool->starved);
        if (node == NULL)
            return;
        struct shoal_bufpool_waiter *waiter =
            SHOAL_CONTAINER_OF(node, struct shoal_bufpool_waiter, node);
        waiter->resume(waiter);
    }
}

static void buffer_release(struct shoal_block *block)
{
    struct shoal_bufpool *pool = &shoal_core_self->buffers;
    buffer_give(pool, SHOAL_CONTAINER_OF(block, struct shoal_buffer, block));
    resume_waiters(pool);
}

void shoal_bufpool_init(struct shoal_bufpool *pool)
{
    memset(pool, 0, sizeof(*pool));
    shoal_list_init(&pool->starved);
}

void shoal_bufpool_deinit(struct shoal_bufpool *pool)
{
    for (uint32_t i = 0; i < pool->count / SHOAL_BUFPOOL_CHUNK; i++) {
        shoal_mem_free(pool->chunks[i], SHOAL_BUFPOOL_CHUNK * sizeof(struct shoal_buffer));
        shoal_mem_free_aligned(pool->memory[i], SHOAL_BUFPOOL_CHUNK * SHOAL_BUFFER_BYTES, 4096);
    }
    pool->count = 0;
}

bool shoal_bufpool_grow(struct shoal_bufpool *pool)
{
    if (pool->count == SHOAL_BUFPOOL_MAX)
        return false;
    size_t chunk_bytes = SHOAL_BUFPOOL_CHUNK * sizeof(struct shoal_buffer);
    size_t memory_bytes = SHOAL_BUFPOOL_CHUNK * SHOAL_BUFFER_BYTES;
    struct shoal_buffer *chunk = shoal_mem_alloc(chunk_bytes);
    char *memory = shoal_mem_alloc_aligned(memory_bytes, 4096);
    if (chunk == NULL || memory == NULL) {
        shoal_mem_free(chunk, chunk_bytes);
        shoal_mem_free_aligned(memory, memory_bytes, 4096);
        return false;
    }
    uint32_t at = pool->count / SHOAL_BUFPOOL_CHUNK;
    pool->chunks[at] = chunk;
    pool->memory[at] = memory;
    for (uint32_t i = 0; i < SHOAL_BUFPOOL_CHUNK; i++) {
        struct shoal_buffer *buffer = &chunk[i];
        buffer->block = (struct shoal_block){.data = memory + (size_t)i * SHOAL_BUFFER_BYTES,
                                             .release = buffer_release,
                                             .owner = "receive pool",
                                             .size = SHOAL_BUFFER_BYTES};
        buffer->id = (uint16_t)(pool->count + i);
        buffer_give(pool, buffer);
    }
    pool->count += SHOAL_BUFPOOL_CHUNK;
    return true;
}

static struct shoal_slice *hand_out(struct shoal_bufpool *pool, struct shoal_buffer *buffer,
                                    uint32_t len)
{
    pool->free_count--;
    buffer->block.refs = 1;
    buffer->slice = (struct shoal_slice){
        .block = &buffer->block, .data = buffer->block.data, .len = len, .embedded = true};
    SHOAL_NOTE_OWNER(buffer->slice.core);
    return &buffer->slice;
}

struct shoal_slice *shoal_bufpool_take(struct shoal_bufpool *pool)
{
    if (pool->free == NULL && !shoal_bufpool_grow(pool))
        return NULL;
    struct shoal_buffer *buffer = pool->free;
    pool->free = buffer->next_free;
    return hand_out(pool, buffer, 0);
}

struct shoal_slice *shoal_bufpool_filled(struct shoal_bufpool *pool, uint16_t id, uint32_t len)
{
    SHOAL_CHECK(id < pool->count, "the kernel names buffer %u of %u", id, pool->count);
    struct shoal_buffer *buffer = &pool->chunks[id / SHOAL_BUFPOOL_CHUNK][id % SHOAL_BUFPOOL_CHUNK];
    return hand_out(pool, buffer, len);
}

void shoal_bufpool_wait(struct shoal_bufpool *pool, struct shoal_bufpool_waiter *waiter)
{
    shoal_list_push_back(&pool->starved, &waiter->node);
}
