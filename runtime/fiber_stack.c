/*
 * Memory of fiber stacks: batches of one mapping, committed as they are touched.
 *
 * A guard by MADV_GUARD_INSTALL costs no mapping of its own, so that 100,000 stacks stay far from
 * vm.max_map_count; older kernels get mprotect. Debian 12's headers do not know the constant.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/sanitizer_impl.h"

#define BATCH_STACKS             16
#define LINUX_MADV_GUARD_INSTALL 102 /* Linux 6.13, include/uapi/asm-generic/mman-common.h */
#define ADVICE_OF_NOBODY         0x7fff

struct shoal_stack_batch {
    struct shoal_stack_batch *next;
    char *memory;
    unsigned taken;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Makes the lowest page of a stack fault. Qemu's user mode takes any advice and does nothing: where
 * one that cannot exist is taken, none is believed.
 */
static int guard(char *stack)
{
    if (madvise(stack, page_bytes(), ADVICE_OF_NOBODY) != 0 &&
        madvise(stack, page_bytes(), LINUX_MADV_GUARD_INSTALL) == 0)
        return 0;
    return mprotect(stack, page_bytes(), PROT_NONE);
}

static struct shoal_stack_batch *batch_new(struct shoal_fiber_pool *pool)
{
    struct shoal_stack_batch *batch = shoal_mem_alloc(sizeof(*batch));
    if (batch == NULL)
        return NULL;
    size_t bytes = (size_t)BATCH_STACKS * pool->stack_bytes;
    batch->memory = MAP_FAILED;
    if (!shoal_fault_alloc("fiber stacks", bytes))
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
    if (guard(stack) != 0)
        return NULL;
    batch->taken++;
    return stack;
}

size_t shoal_stack_round(size_t bytes)
{
    const size_t page = page_bytes();
    return (bytes + page - 1) & ~(page - 1);
}

char *shoal_stack_map(size_t bytes)
{
    if (shoal_fault_alloc("fiber stack", bytes))
        return NULL;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return NULL;
    if (guard(stack) != 0) {
        munmap(stack, bytes);
        return NULL;
    }
    return stack;
}

void shoal_stack_unmap(char *stack, size_t bytes)
{
    shoal_sanitizer_forget_stack(stack, bytes); /* or whoever gets the addresses next inherits */
    munmap(stack, bytes);
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
        shoal_sanitizer_forget_stack(batch->memory, (size_t)BATCH_STACKS * pool->stack_bytes);
        munmap(batch->memory, (size_t)BATCH_STACKS * pool->stack_bytes);
        shoal_mem_free(batch, sizeof(*batch));
    }
}

/* Pages of a mapping that are in memory; mincore(2). */
static uint64_t resident_bytes(char *memory, size_t bytes)
{
    unsigned char pages[1024];
    uint64_t resident = 0;
    const size_t page = page_bytes();
    for (size_t at = 0; at < bytes;) {
        size_t piece = bytes - at < sizeof(pages) * page ? bytes - at : sizeof(pages) * page;
        if (mincore(memory + at, piece, pages) != 0)
            return resident;
        for (size_t i = 0; i < piece / page; i++)
            resident += (pages[i] & 1) != 0 ? page : 0;
        at += piece;
    }
    return resident;
}

void shoal_stack_usage(const struct shoal_fiber_pool *pool, struct shoal_stack_usage *out)
{
    const size_t bytes = (size_t)BATCH_STACKS * pool->stack_bytes;
    *out = (struct shoal_stack_usage){0};
    for (const struct shoal_stack_batch *batch = pool->batches; batch != NULL;
         batch = batch->next) {
        out->reserved_bytes += bytes;
        out->committed_bytes += resident_bytes(batch->memory, bytes);
        out->bookkeeping_bytes += sizeof(*batch);
    }
    SHOAL_LIST_FOREACH (node, &pool->live) {
        const struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        if (fiber->stack_bytes == pool->stack_bytes)
            continue;
        out->reserved_bytes += fiber->stack_bytes; /* mapped for it alone */
        out->committed_bytes += resident_bytes(fiber->stack, fiber->stack_bytes);
    }
}
