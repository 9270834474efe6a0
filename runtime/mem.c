/*
 * The one wrapper around the allocator.
 *
 * jemalloc's entry points are weak: a program that links it gets an arena a core, one that does not
 * (Python without the preload, sanitizer builds) gets libc. The choice is made by the linker, once.
 *
 * Debug builds put a header before each block, so that a free on another core, of another size, or
 * a second time is caught:
 *
 *   | padding up to the alignment | magic, core, bytes | block ...
 */
#include <stdlib.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/mem_impl.h"

#define JEMALLOC __attribute__((weak, visibility("default")))
extern void *mallocx(size_t size, int flags) JEMALLOC;
extern void sdallocx(void *ptr, size_t size, int flags) JEMALLOC;
extern int mallctl(const char *name, void *old, size_t *old_len, void *new_value,
                   size_t new_len) JEMALLOC;

#define MIN_ALIGNMENT 16

#ifdef SHOAL_DEBUG
#define LIVE_MAGIC  0x5a0a11feu
#define FREED_MAGIC 0x5a0adeadu
struct debug_header {
    uint32_t magic;
    int32_t core;
    uint64_t bytes;
};
SHOAL_STATIC_ASSERT(sizeof(struct debug_header) == MIN_ALIGNMENT, "header keeps the alignment");
#endif

int shoal_mem_uses_jemalloc(void)
{
    return mallocx != NULL && sdallocx != NULL && mallctl != NULL;
}

void shoal_mem_init(struct shoal_mem *mem, uint64_t limit_bytes)
{
    memset(mem, 0, sizeof(*mem));
    mem->stats.limit_bytes = limit_bytes;
    if (!shoal_mem_uses_jemalloc())
        return;
    unsigned arena;
    size_t len = sizeof(arena);
    /* Without an arena of its own the core shares jemalloc's: slower, not wrong. */
    if (mallctl("arenas.create", &arena, &len, NULL, 0) == 0)
        (void)mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena));
}

static int alignment_flag(size_t alignment)
{
    return alignment <= MIN_ALIGNMENT ? 0 : __builtin_ctzl(alignment);
}

/* jemalloc aligns its smallest size class to 8 bytes only. */
static size_t jemalloc_bytes(size_t bytes)
{
    return bytes < MIN_ALIGNMENT ? MIN_ALIGNMENT : bytes;
}

static void *raw_alloc(size_t bytes, size_t alignment)
{
    if (shoal_mem_uses_jemalloc())
        return mallocx(jemalloc_bytes(bytes), alignment_flag(alignment));
    if (alignment <= MIN_ALIGNMENT)
        return malloc(bytes);
    void *ptr;
    return posix_memalign(&ptr, alignment, bytes) == 0 ? ptr : NULL;
}

static void raw_free(void *ptr, size_t bytes, size_t alignment)
{
    if (shoal_mem_uses_jemalloc())
        sdallocx(ptr, jemalloc_bytes(bytes), alignment_flag(alignment));
    else
        free(ptr);
}

static bool charge(struct shoal_core *core, size_t bytes)
{
    if (core == NULL)
        return true;
    struct shoal_mem_stats *stats = &core->mem.stats;
    if (bytes > stats->limit_bytes - stats->used_bytes) {
        stats->failures++;
        return false;
    }
    stats->used_bytes += bytes;
    if (stats->used_bytes > stats->peak_bytes)
        stats->peak_bytes = stats->used_bytes;
    stats->allocs++;
    return true;
}

static void uncharge(struct shoal_core *core, size_t bytes)
{
    if (core != NULL)
        core->mem.stats.used_bytes -= bytes;
}

#ifdef SHOAL_DEBUG
static size_t prefix_bytes(size_t alignment)
{
    return alignment;
}

static void *debug_mark(char *raw, size_t bytes, size_t alignment)
{
    char *block = raw + prefix_bytes(alignment);
    struct debug_header *header = (struct debug_header *)(void *)(block - sizeof(*header));
    header->magic = LIVE_MAGIC;
    header->core = shoal_context_core;
    header->bytes = bytes;
    return block;
}

static void *debug_unmark(void *ptr, size_t bytes, size_t alignment)
{
    struct debug_header *header = (struct debug_header *)(void *)((char *)ptr - sizeof(*header));
    SHOAL_CHECK(header->magic != FREED_MAGIC, "memory %p is freed twice", ptr);
    SHOAL_CHECK(header->magic == LIVE_MAGIC, "memory %p did not come from shoal_mem_alloc", ptr);
    SHOAL_CHECK(header->core == shoal_context_core, "memory %p of core %d is freed on core %d", ptr,
                header->core, shoal_context_core);
    SHOAL_CHECK(header->bytes == bytes, "memory %p of %zu bytes is freed as %zu bytes", ptr,
                (size_t)header->bytes, bytes);
    header->magic = FREED_MAGIC;
    return (char *)ptr - prefix_bytes(alignment);
}
#else
static size_t prefix_bytes(size_t alignment)
{
    (void)alignment;
    return 0;
}

static void *debug_mark(char *raw, size_t bytes, size_t alignment)
{
    (void)bytes;
    (void)alignment;
    return raw;
}

static void *debug_unmark(void *ptr, size_t bytes, size_t alignment)
{
    (void)bytes;
    (void)alignment;
    return ptr;
}
#endif

void *shoal_mem_alloc_aligned(size_t bytes, size_t alignment)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_DCHECK(bytes > 0, "allocation of 0 bytes");
    if (bytes > SIZE_MAX / 2 || !charge(core, bytes))
        return NULL;
    char *raw = raw_alloc(bytes + prefix_bytes(alignment), alignment);
    if (raw == NULL) {
        uncharge(core, bytes);
        if (core != NULL)
            core->mem.stats.failures++;
        return NULL;
    }
    return debug_mark(raw, bytes, alignment);
}

void *shoal_mem_alloc(size_t bytes)
{
    return shoal_mem_alloc_aligned(bytes, MIN_ALIGNMENT);
}

void *shoal_mem_alloc_zeroed(size_t bytes)
{
    void *ptr = shoal_mem_alloc(bytes);
    if (ptr != NULL)
        memset(ptr, 0, bytes);
    return ptr;
}

void shoal_mem_free_aligned(void *ptr, size_t bytes, size_t alignment)
{
    if (ptr == NULL)
        return;
    void *raw = debug_unmark(ptr, bytes, alignment);
    raw_free(raw, bytes + prefix_bytes(alignment), alignment);
    uncharge(shoal_core_self, bytes);
}

void shoal_mem_free(void *ptr, size_t bytes)
{
    shoal_mem_free_aligned(ptr, bytes, MIN_ALIGNMENT);
}

void shoal_mem_stats(struct shoal_mem_stats *out)
{
    *out = shoal_core_self->mem.stats;
}
