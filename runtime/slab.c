/*
 * Slabs: see slab_impl.h for the layout and the invariants.
 */
#include <errno.h>
#include <string.h>

#include <dlfcn.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fault_impl.h"
#include "shoal/runtime/log.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/slab_impl.h"

#ifdef SHOAL_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(ptr, bytes)   ASAN_POISON_MEMORY_REGION(ptr, bytes)
#define UNPOISON(ptr, bytes) ASAN_UNPOISON_MEMORY_REGION(ptr, bytes)
#else
#define POISON(ptr, bytes)   ((void)(ptr))
#define UNPOISON(ptr, bytes) ((void)(ptr))
#endif

#define CHUNK_BYTES 16384u
/* Below a page, jemalloc would move each chunk by a random offset into a page of its own: 25 %. */
#define CHUNK_ALIGNMENT 4096u
#define OBJECTS_MIN     8u
#define QUARANTINE_MAX  64u
#define REPORTED_MAX    8u
#define POISON_BYTE     0xdb

struct shoal_slab_chunk {
    struct shoal_slab_chunk *next;
    uint32_t objects;
} __attribute__((aligned(SHOAL_CACHE_LINE)));

struct shoal_slab_header {
    struct shoal_slab_header *next;
    const void *place;
    uint32_t magic;
    uint32_t generation;
    int32_t core;
} __attribute__((aligned(SHOAL_CACHE_LINE)));

#define MAGIC_LIVE 0x51ab11feu
#define MAGIC_FREE 0x51abdeadu

#ifdef SHOAL_SLAB_CHECKED
#define HEADER_BYTES ((uint32_t)sizeof(struct shoal_slab_header))
#else
#define HEADER_BYTES 0u
#endif

void shoal_slab_init(struct shoal_slab *slab, const char *name, uint32_t object_bytes,
                     uint32_t alignment)
{
    memset(slab, 0, sizeof(*slab));
    slab->name = name;
    slab->object_bytes = object_bytes;
    slab->alignment = alignment;
    uint32_t step = alignment > HEADER_BYTES ? alignment : HEADER_BYTES; /* headers are aligned */
    slab->stride_bytes = HEADER_BYTES + ((object_bytes + step - 1) & ~(step - 1));
    uint32_t least = (uint32_t)sizeof(struct shoal_slab_chunk) + OBJECTS_MIN * slab->stride_bytes;
    slab->chunk_bytes = least > CHUNK_BYTES ? least : CHUNK_BYTES;
    shoal_list_init(&slab->registered);
    if (shoal_core_self != NULL)
        shoal_list_push_back(&shoal_core_self->mem.slabs, &slab->registered);
}

static char *chunk_object(const struct shoal_slab *slab, struct shoal_slab_chunk *chunk, uint32_t i)
{
    return (char *)(chunk + 1) + (size_t)i * slab->stride_bytes + HEADER_BYTES;
}

#ifdef SHOAL_SLAB_CHECKED
static struct shoal_slab_header *header_of(const void *object)
{
    return (struct shoal_slab_header *)((uintptr_t)object - HEADER_BYTES);
}

static void item_put(struct shoal_slab *slab, void *object)
{
    struct shoal_slab_header *header = header_of(object);
    header->next = slab->kept;
    slab->kept = header;
}

static void *item_pop(struct shoal_slab *slab)
{
    struct shoal_slab_header *header = slab->kept;
    if (header == NULL)
        return NULL;
    slab->kept = header->next;
    return (char *)header + HEADER_BYTES;
}
#else
static void item_put(struct shoal_slab *slab, void *object)
{
    struct shoal_slab_item *item = object;
    item->next = slab->free;
    slab->free = item;
}

static void *item_pop(struct shoal_slab *slab)
{
    struct shoal_slab_item *item = slab->free;
    if (item != NULL)
        slab->free = item->next;
    return item;
}
#endif

#ifdef SHOAL_SLAB_CHECKED
void shoal_slab_hide(struct shoal_slab *slab)
{
    (void)slab; /* each take asks anyway */
}
#else
static struct shoal_slab_item *hidden(const struct shoal_slab *slab)
{
    return (struct shoal_slab_item *)(void *)slab->kept;
}

void shoal_slab_hide(struct shoal_slab *slab)
{
    struct shoal_slab_item *first = slab->free;
    if (first == NULL)
        return;
    if (slab->kept != NULL) {
        struct shoal_slab_item *last = first;
        while (last->next != NULL)
            last = last->next;
        last->next = hidden(slab);
    }
    slab->kept = (struct shoal_slab_header *)(void *)first;
    slab->free = NULL;
}
#endif

#ifdef SHOAL_SLAB_CHECKED
/* Whatever wrote through a stale pointer while the object was free has left a trace in the poison.
 */
static void check_poison(const struct shoal_slab *slab, const void *object)
{
    const unsigned char *bytes = object;
    for (uint32_t i = 0; i < slab->object_bytes; i++)
        SHOAL_CHECK(bytes[i] == POISON_BYTE,
                    "a %s (%p, byte %u) was written after it was given back", slab->name, object,
                    i);
}
#endif

/* Leaves `free` as it is when out of memory. */
static void add_chunk(struct shoal_slab *slab)
{
    struct shoal_slab_chunk *chunk = shoal_mem_alloc_aligned(slab->chunk_bytes, CHUNK_ALIGNMENT);
    if (chunk == NULL)
        return;
    chunk->next = slab->chunks;
    slab->chunks = chunk;
    chunk->objects = (slab->chunk_bytes - (uint32_t)sizeof(*chunk)) / slab->stride_bytes;
    slab->objects += chunk->objects;
    for (uint32_t i = chunk->objects; i-- > 0;) {
        char *object = chunk_object(slab, chunk, i);
#ifdef SHOAL_SLAB_CHECKED
        *header_of(object) = (struct shoal_slab_header){.magic = MAGIC_FREE};
        POISON(object, slab->object_bytes);
#endif
        item_put(slab, object);
    }
}

int shoal_slab_reserve(struct shoal_slab *slab)
{
    if (slab->chunks == NULL)
        add_chunk(slab);
    return slab->chunks != NULL ? 0 : -ENOMEM;
}

uint32_t shoal_slab_live(const struct shoal_slab *slab)
{
    uint32_t free = slab->quarantined;
#ifdef SHOAL_SLAB_CHECKED
    for (const struct shoal_slab_header *item = slab->kept; item != NULL; item = item->next)
        free++;
#else
    for (const struct shoal_slab_item *item = hidden(slab); item != NULL; item = item->next)
        free++;
    for (const struct shoal_slab_item *item = slab->free; item != NULL; item = item->next)
        free++;
#endif
    return slab->objects - free;
}

void shoal_slab_describe(const struct shoal_slab *slab, struct shoal_slab_stats *out)
{
    *out = (struct shoal_slab_stats){.name = slab->name,
                                     .object_bytes = slab->object_bytes,
                                     .objects = slab->objects,
                                     .live = shoal_slab_live(slab)};
    for (const struct shoal_slab_chunk *chunk = slab->chunks; chunk != NULL; chunk = chunk->next)
        out->chunks++;
    out->bytes = (uint64_t)out->chunks * slab->chunk_bytes;
}

#ifdef SHOAL_SLAB_CHECKED
/* Marks an object that was just taken, after a look at what it went through while it was free. */
static void mark_taken(const struct shoal_slab *slab, void *object, const void *place)
{
    struct shoal_slab_header *header = header_of(object);
    SHOAL_CHECK(header->magic == MAGIC_FREE, "slab %s is corrupt at %p", slab->name, object);
    header->magic = MAGIC_LIVE;
    header->generation++;
    header->core = shoal_context_core;
    header->place = place;
    UNPOISON(object, slab->object_bytes);
    if (header->generation > 1)
        check_poison(slab, object);
    memset(object, POISON_BYTE, slab->object_bytes);
}
#else
static void mark_taken(struct shoal_slab *slab, const void *object, const void *place)
{
    (void)object;
    (void)place;
    if (SHOAL_UNLIKELY(shoal_fault_armed))
        shoal_slab_hide(slab);
}

static void unhide(struct shoal_slab *slab)
{
    if (slab->free != NULL)
        return;
    slab->free = hidden(slab);
    slab->kept = NULL;
}
#endif

void *shoal_slab_take_slow(struct shoal_slab *slab, const void *place)
{
    if (shoal_fault_alloc(slab->name, slab->object_bytes))
        return NULL;
#ifndef SHOAL_SLAB_CHECKED
    unhide(slab);
#endif
    void *object = item_pop(slab);
    if (object == NULL) {
        add_chunk(slab);
        object = item_pop(slab);
    }
    if (object != NULL)
        mark_taken(slab, object, place);
    return object;
}

#ifdef SHOAL_SLAB_CHECKED
void shoal_slab_check_live(const struct shoal_slab *slab, const void *object, const char *what)
{
    const struct shoal_slab_header *header = header_of(object);
    SHOAL_CHECK(header->magic == MAGIC_LIVE, "%s of a %s that was given back (%p, generation %u)",
                what, slab->name, object, header->generation);
    SHOAL_CHECK_OWNER(header->core, what, "%s %p", slab->name, object);
}

void shoal_slab_give_checked(struct shoal_slab *slab, void *object)
{
    shoal_slab_check_live(slab, object, "free");
    struct shoal_slab_header *header = header_of(object);
    header->magic = MAGIC_FREE;
    memset(object, POISON_BYTE, slab->object_bytes);
    POISON(object, slab->object_bytes);

    header->next = NULL;
    if (slab->quarantine_tail != NULL)
        slab->quarantine_tail->next = header;
    else
        slab->quarantine_head = header;
    slab->quarantine_tail = header;
    if (++slab->quarantined <= QUARANTINE_MAX)
        return;
    struct shoal_slab_header *oldest = slab->quarantine_head;
    slab->quarantine_head = oldest->next;
    slab->quarantined--;
    item_put(slab, (char *)oldest + HEADER_BYTES);
}

static void report_live(struct shoal_slab *slab)
{
    uint32_t reported = 0;
    for (struct shoal_slab_chunk *chunk = slab->chunks; chunk != NULL; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->objects; i++) {
            const char *object = chunk_object(slab, chunk, i);
            const struct shoal_slab_header *header = header_of(object);
            if (header->magic != MAGIC_LIVE || reported++ >= REPORTED_MAX)
                continue;
            Dl_info info = {0};
            (void)dladdr(header->place, &info);
            SHOAL_ERROR("%s %p was never consumed; made at %p (%s)", slab->name,
                        (const void *)object, header->place,
                        info.dli_sname != NULL ? info.dli_sname : "no symbol");
        }
    }
}
#else
static void report_live(struct shoal_slab *slab)
{
    SHOAL_WARN("%u of slab %s were never given back (a debug build names the place)",
               shoal_slab_live(slab), slab->name);
}
#endif

uint32_t shoal_slab_deinit(struct shoal_slab *slab)
{
    uint32_t live = shoal_slab_live(slab);
    if (live > 0)
        report_live(slab);
    while (slab->chunks != NULL) {
        struct shoal_slab_chunk *chunk = slab->chunks;
        slab->chunks = chunk->next;
        UNPOISON(chunk, slab->chunk_bytes);
        shoal_mem_free_aligned(chunk, slab->chunk_bytes, CHUNK_ALIGNMENT);
    }
    slab->free = NULL;
    slab->kept = NULL;
    slab->objects = 0;
    shoal_list_remove(&slab->registered);
    return live;
}
