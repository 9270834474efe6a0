/*
 * The one wrapper around the allocator.
 *
 * jemalloc's entry points are weak: a program that links it gets an arena a core, one that does not
 * (Python without the preload, sanitizer builds) gets libc. The choice is made by the linker, once.
 *
 * Debug builds put a header before each block, so that a free on another core, of another size, or
 * a second time is caught:
 *
 *   | padding up to the alignment | node, place, bytes, core, magic | block ...
 *
 * The headers of a core's blocks form a list, so that what was never freed is named at its end.
 */
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/mem_impl.h"
#include "shoal/runtime/owner_impl.h"

#define JEMALLOC __attribute__((weak, visibility("default")))
extern void *mallocx(size_t size, int flags) JEMALLOC;
extern void sdallocx(void *ptr, size_t size, int flags) JEMALLOC;
extern int mallctl(const char *name, void *old, size_t *old_len, void *new_value,
                   size_t new_len) JEMALLOC;

#define MIN_ALIGNMENT 16

#ifdef SHOAL_DEBUG
#define LIVE_MAGIC   0x5a0a11feu
#define FREED_MAGIC  0x5a0adeadu
#define REPORTED_MAX 8u
struct debug_header {
    struct shoal_list node;
    const void *place;
    uint64_t unused;
    uint64_t bytes;
    int32_t core;
    uint32_t magic; /* last: a write just before the block spoils it */
};
SHOAL_STATIC_ASSERT(sizeof(struct debug_header) == 48, "three times the least alignment");
#endif

int shoal_mem_uses_jemalloc(void)
{
    return mallocx != NULL && sdallocx != NULL && mallctl != NULL;
}

void shoal_mem_init(struct shoal_mem *mem, uint64_t limit_bytes)
{
    memset(mem, 0, sizeof(*mem));
    mem->stats.limit_bytes = limit_bytes;
    shoal_list_init(&mem->slabs);
    shoal_list_init(&mem->blocks);
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
    if (bytes > stats->limit_bytes - stats->used_bytes)
        return false;
    stats->used_bytes += bytes;
    if (stats->used_bytes > stats->peak_bytes)
        stats->peak_bytes = stats->used_bytes;
    stats->allocs++;
    return true;
}

static void uncharge(struct shoal_core *core, size_t bytes)
{
    if (core == NULL)
        return;
    core->mem.stats.used_bytes -= bytes;
    core->mem.stats.frees++;
}

static void *failed(struct shoal_core *core)
{
    if (core != NULL)
        core->mem.stats.failures++;
    return NULL;
}

#ifdef SHOAL_DEBUG
static size_t prefix_bytes(size_t alignment)
{
    return (sizeof(struct debug_header) + alignment - 1) & ~(alignment - 1);
}

static struct debug_header *header_of(void *block)
{
    return (struct debug_header *)(void *)((char *)block - sizeof(struct debug_header));
}

static void *debug_mark(struct shoal_core *core, char *raw, size_t bytes, size_t alignment,
                        const void *place)
{
    char *block = raw + prefix_bytes(alignment);
    struct debug_header *header = header_of(block);
    *header = (struct debug_header){
        .place = place, .bytes = bytes, .core = shoal_context_core, .magic = LIVE_MAGIC};
    shoal_list_init(&header->node);
    if (core != NULL)
        shoal_list_push_back(&core->mem.blocks, &header->node);
    return block;
}

static void *debug_unmark(void *ptr, size_t bytes, size_t alignment)
{
    struct debug_header *header = header_of(ptr);
    SHOAL_CHECK(header->magic != FREED_MAGIC, "memory %p is freed twice", ptr);
    SHOAL_CHECK(header->magic == LIVE_MAGIC, "memory %p did not come from shoal_mem_alloc", ptr);
    SHOAL_CHECK_OWNER(header->core, "free", "memory %p", ptr);
    SHOAL_CHECK(header->bytes == bytes, "memory %p of %zu bytes is freed as %zu bytes", ptr,
                (size_t)header->bytes, bytes);
    header->magic = FREED_MAGIC;
    shoal_list_remove(&header->node);
    return (char *)ptr - prefix_bytes(alignment);
}

static void report_blocks(const struct shoal_mem *mem)
{
    unsigned reported = 0;
    SHOAL_LIST_FOREACH (node, &mem->blocks) {
        const struct debug_header *header = SHOAL_CONTAINER_OF(node, struct debug_header, node);
        if (reported++ >= REPORTED_MAX)
            return;
        Dl_info info = {0};
        (void)dladdr(header->place, &info);
        SHOAL_ERROR("%llu bytes at %p were never freed; allocated at %p (%s)",
                    (unsigned long long)header->bytes, (const void *)(header + 1), header->place,
                    info.dli_sname != NULL ? info.dli_sname : "no symbol");
    }
}
#else
static size_t prefix_bytes(size_t alignment)
{
    (void)alignment;
    return 0;
}

static void *debug_mark(const struct shoal_core *core, char *raw, size_t bytes, size_t alignment,
                        const void *place)
{
    (void)core;
    (void)bytes;
    (void)alignment;
    (void)place;
    return raw;
}

static void *debug_unmark(void *ptr, size_t bytes, size_t alignment)
{
    (void)bytes;
    (void)alignment;
    return ptr;
}

static void report_blocks(const struct shoal_mem *mem)
{
    (void)mem;
}
#endif

static void *alloc_at(size_t bytes, size_t alignment, const void *place)
{
    struct shoal_core *core = shoal_core_self;
    SHOAL_DCHECK(bytes > 0, "allocation of 0 bytes");
    if (shoal_fault_alloc("memory", bytes) || bytes > SIZE_MAX / 2 || !charge(core, bytes))
        return failed(core);
    char *raw = raw_alloc(bytes + prefix_bytes(alignment), alignment);
    if (raw == NULL) {
        uncharge(core, bytes);
        return failed(core);
    }
    return debug_mark(core, raw, bytes, alignment, place);
}

void *shoal_mem_alloc_aligned(size_t bytes, size_t alignment)
{
    return alloc_at(bytes, alignment, __builtin_return_address(0));
}

void *shoal_mem_alloc(size_t bytes)
{
    return alloc_at(bytes, MIN_ALIGNMENT, __builtin_return_address(0));
}

void *shoal_mem_alloc_zeroed(size_t bytes)
{
    void *ptr = alloc_at(bytes, MIN_ALIGNMENT, __builtin_return_address(0));
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
    SHOAL_CHECK_ON_CORE("statistics of memory");
    *out = shoal_core_self->mem.stats;
}

uint64_t shoal_mem_deinit(const struct shoal_mem *mem, unsigned id)
{
    uint64_t out = mem->stats.used_bytes;
    if (out == 0)
        return 0;
    report_blocks(mem);
    SHOAL_WARN("core %u ends with %llu bytes that were never freed%s", id, (unsigned long long)out,
#ifdef SHOAL_DEBUG
               "");
#else
               " (a debug build names the places)");
#endif
    return out;
}
