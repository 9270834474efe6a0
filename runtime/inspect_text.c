/*
 * Text from a snapshot. Runs on a helper thread, since finding a symbol reads a file.
 *
 *   core 0: 10002 fibers (1 running, 10001 parked), 10000 timers armed
 *     10000 fibers "http" (first 0x7f24c0002c40): parked, waits for sleep
 *         #0  libshoal.so.0(+0x1a2b3) shoal_fiber_park+0x1f
 *         ...
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/inspect_impl.h"

#define SYMBOL_BYTES   192
#define SYMBOLS_CACHED 64 /* a helper thread's stack holds them */
#define CUT            "... (the rest does not fit)\n"

struct symbol_cache {
    struct {
        const void *pc;
        char text[SYMBOL_BYTES];
    } entry[SYMBOLS_CACHED];
};

struct text {
    char *at;
    size_t size;
    size_t length;
    bool cut;
};

SHOAL_PRINTF(2, 3) static void put(struct text *text, const char *fmt, ...)
{
    if (text->cut)
        return;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text->at + text->length, text->size - text->length, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < text->size - text->length) {
        text->length += (size_t)n;
        return;
    }
    text->cut = true;
    if (text->size > sizeof(CUT)) {
        if (text->length > text->size - sizeof(CUT))
            text->length = text->size - sizeof(CUT);
        memcpy(text->at + text->length, CUT, sizeof(CUT));
        text->length += sizeof(CUT) - 1;
    }
}

/* A name may come from anywhere: it must not make lines of its own. */
static const char *plain(const char *name, char *out, size_t size)
{
    size_t n = 0;
    for (; *name != '\0' && n + 1 < size; name++)
        out[n++] = (unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name;
    out[n] = '\0';
    return out;
}

static const char *symbol(struct symbol_cache *cache, const void *pc)
{
    size_t slot = ((uintptr_t)pc >> 2) % SYMBOLS_CACHED;
    if (cache->entry[slot].pc != pc) {
        cache->entry[slot].pc = pc;
        (void)shoal_backtrace_describe(pc, cache->entry[slot].text, SYMBOL_BYTES);
    }
    return cache->entry[slot].text;
}

static void put_frames(struct text *text, struct symbol_cache *cache, void *const *frames,
                       unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(text, "      #%u  %s\n", i, symbol(cache, frames[i]));
}

static void put_group(struct text *text, struct symbol_cache *cache,
                      const struct shoal_inspect_group *group)
{
    static const char *const states[] = {
        [SHOAL_FIBER_READY] = "ready to run",
        [SHOAL_FIBER_RUNNING] = "running",
        [SHOAL_FIBER_PARKED] = "parked",
        [SHOAL_FIBER_DONE] = "done, not joined yet",
    };
    char name[sizeof(group->name)];
    plain(group->name, name, sizeof(name));
    if (group->count == 1)
        put(text, "  fiber \"%s\" (%p): ", name, (const void *)group->first);
    else
        put(text, "  %" PRIu32 " fibers \"%s\" (first %p): ", group->count, name,
            (const void *)group->first);
    put(text, "%s", states[group->state]);
    if (group->cancelled)
        put(text, ", cancelled");
    if (group->waits_for[0] != '\0') {
        char waits_for[sizeof(group->waits_for)];
        put(text, ", waits for %s", plain(group->waits_for, waits_for, sizeof(waits_for)));
    }
    if (group->maker != NULL)
        put(text, " (cancelled by %s)", symbol(cache, (const char *)group->maker + 1));
    if (group->group[0] != '\0') {
        char group_text[sizeof(group->group)];
        put(text, ", group \"%s\"", plain(group->group, group_text, sizeof(group_text)));
    }
    put(text, "\n");
    put_frames(text, cache, group->stack.frame, group->stack.count);
}

static void put_head(struct text *text, const struct shoal_inspect_snapshot *snapshot)
{
    static const struct {
        enum shoal_fiber_state state;
        const char *word;
    } states[] = {
        {SHOAL_FIBER_RUNNING, "running"},
        {SHOAL_FIBER_READY, "ready"},
        {SHOAL_FIBER_PARKED, "parked"},
        {SHOAL_FIBER_DONE, "done"},
    };
    put(text, "core %u: %" PRIu32 " fiber%s", snapshot->core, snapshot->fibers,
        snapshot->fibers == 1 ? "" : "s");
    const char *before = " (";
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(states); i++) {
        uint32_t count = snapshot->in_state[states[i].state];
        if (count == 0)
            continue;
        put(text, "%s%" PRIu32 " %s", before, count, states[i].word);
        before = ", ";
    }
    put(text, "%s, %" PRIu64 " timer%s armed\n", before[0] == ',' ? ")" : "",
        snapshot->timers_armed, snapshot->timers_armed == 1 ? "" : "s");
    if (snapshot->more[0] != '\0')
        put(text, "  %s\n", snapshot->more);
}

size_t shoal_inspect_render(const struct shoal_inspect_snapshot *snapshot, char *out, size_t size)
{
    struct text text = {.at = out, .size = size};
    struct symbol_cache cache;
    memset(&cache, 0, sizeof(cache));
    put_head(&text, snapshot);
    for (uint32_t i = 0; i < snapshot->group_count; i++)
        put_group(&text, &cache, &snapshot->groups[i]);
    if (snapshot->ungrouped > 0)
        put(&text, "  and %" PRIu32 " fibers that are like none of these\n", snapshot->ungrouped);
    if (snapshot->fibers > snapshot->looked_at)
        put(&text, "  and %" PRIu32 " fibers that were not looked at\n",
            snapshot->fibers - snapshot->looked_at);
    return text.length;
}

size_t shoal_inspect_render_frames(void *const *frames, unsigned count, char *out, size_t size)
{
    struct text text = {.at = out, .size = size};
    struct symbol_cache cache;
    memset(&cache, 0, sizeof(cache));
    put_frames(&text, &cache, frames, count);
    return text.length;
}
