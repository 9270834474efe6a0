/*
 * Memory of fiber stacks: batches of one mapping, committed as they are touched.
 *
 * A guard by MADV_GUARD_INSTALL costs no mapping of its own, so that 100,000 stacks stay far from
 * vm.max_map_count; older kernels get mprotect. Debian 12's headers do not know the constant.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/mem.h"

#define BATCH_STACKS             16
#define LINUX_MADV_GUARD_INSTALL 102 /* Linux 6.13, include/uapi/asm-generic/mman-common.h */

struct shoal_stack_batch {
    struct shoal_stack_batch *next;
    char *memory;
    unsigned taken;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static struct shoal_stack_batch *batch_new(struct shoal_fiber_pool *pool)
{
    struct shoal_stack_batch *batch = shoal_mem_alloc(sizeof(*batch));
    if (batch == NULL)
        return NULL;
    size_t bytes = (size_t)BATCH_STACKS * pool->stack_bytes;
    batch->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (batch->memory == MAP_FAILED) {
        shoal_mem_free(batch, sizeof(*batch));
        return NULL;
    }
    /* A huge page would commit two megabytes for a fiber that uses two pages. */
    (void)madvise(batch->memory, bytes, MADV_NOHUGEPAGE);
    batch->taken = 0;
    batch->next = pool->batches;
    pool->batches = batch;
    return batch;
}

void shoal_stack_reserve(struct shoal_fiber_pool *pool)
{
    if (pool->batches == NULL)
        (void)batch_new(pool);
}

char *shoal_stack_take(struct shoal_fiber_pool *pool)
{
    struct shoal_stack_batch *batch = pool->batches;
    if (batch == NULL || batch->taken == BATCH_STACKS) {
        batch = batch_new(pool);
        if (batch == NULL)
            return NULL;
    }
    char *stack = batch->memory + (size_t)batch->taken * pool->stack_bytes;
    if (madvise(stack, page_bytes(), LINUX_MADV_GUARD_INSTALL) != 0 &&
        mprotect(stack, page_bytes(), PROT_NONE) != 0)
        return NULL;
    batch->taken++;
    return stack;
}

void shoal_stack_trim(const struct shoal_fiber_pool *pool, char *stack)
{
    size_t guard = page_bytes();
    (void)madvise(stack + guard, pool->stack_bytes - guard, MADV_DONTNEED);
}

void shoal_stacks_free(struct shoal_fiber_pool *pool)
{
    while (pool->batches != NULL) {
        struct shoal_stack_batch *batch = pool->batches;
        pool->batches = batch->next;
        munmap(batch->memory, (size_t)BATCH_STACKS * pool->stack_bytes);
        shoal_mem_free(batch, sizeof(*batch));
    }
}
