/*
 * The fibers of a core: one after the other for shoal_inspect_fibers(), grouped for a snapshot.
 *
 * What a fiber waits for comes from the word that its wait left in `waits_for`; a join adds the
 * name of the other fiber, and an await follows its future up the chain to the producer.
 */
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/inspect_impl.h"

#define CHAIN_MAX 1000 /* futures followed from one that is awaited */

static const char *const state_names[] = {
    [SHOAL_FIBER_FREE] = "free",       [SHOAL_FIBER_READY] = "ready",
    [SHOAL_FIBER_RUNNING] = "running", [SHOAL_FIBER_PARKED] = "parked",
    [SHOAL_FIBER_DONE] = "done",
};

static bool has_stack(const struct shoal_fiber *fiber)
{
    return fiber->state == SHOAL_FIBER_PARKED || fiber->state == SHOAL_FIBER_READY;
}

/* Cut to `size`. Ten thousand fibers are copied in one go: snprintf would be half of the time. */
static void copy_text(char *out, size_t size, const char *text)
{
    size_t length = strnlen(text, size - 1);
    memcpy(out, text, length);
    out[length] = '\0';
}

/* What an awaited future comes from. `*maker`: the hook of its producer, as a hint; or NULL. */
static void describe_future(const struct shoal_future *future,
                            const struct shoal_inspect_hooks *hooks, char *out, size_t size,
                            const void **maker)
{
    unsigned steps = 0;
    while (future->state == SHOAL_FUTURE_PENDING && (future->flags & SHOAL_FUTURE_DERIVED) != 0 &&
           future->derived.upstream != NULL && steps < CHAIN_MAX) {
        future = future->derived.upstream;
        steps++;
    }
    char chain[32] = "";
    if (steps > 0)
        snprintf(chain, sizeof(chain), ", %u steps on", steps);
    char producer[64] = "";
    if (future->state != SHOAL_FUTURE_PENDING) {
        snprintf(producer, sizeof(producer), " (settled)");
    } else if ((future->flags & SHOAL_FUTURE_DERIVED) == 0) {
        char text[48];
        if (hooks != NULL && hooks->describe_future(hooks->ctx, future, text, sizeof(text)))
            snprintf(producer, sizeof(producer), " of %s", text);
        else if ((future->flags & SHOAL_FUTURE_HOOKED) != 0)
            memcpy((void *)maker, &future->root.cancel, sizeof(*maker));
    }
    snprintf(out, size, "future%s%s", producer, chain);
}

/* Into `out`; "" unless the fiber waits for something. */
static void describe_wait(const struct shoal_fiber *fiber, const struct shoal_inspect_hooks *hooks,
                          char *out, size_t size, const void **maker)
{
    *maker = NULL;
    out[0] = '\0';
    if (fiber->state != SHOAL_FIBER_PARKED)
        return;
    if (fiber->waiting_future != NULL) {
        describe_future(fiber->waiting_future, hooks, out, size, maker);
    } else if (fiber->waits_for == NULL) {
        return;
    } else if (strcmp(fiber->waits_for, "join") == 0) {
        const struct shoal_fiber *other = fiber->wait_ctx;
        snprintf(out, size, "join of fiber \"%s\"", other->name);
    } else {
        copy_text(out, size, fiber->waits_for);
    }
}

unsigned shoal_inspect_fibers(shoal_inspect_fiber_fn *visit, void *ctx)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL, "fibers are looked at on a thread that is no core");
    unsigned visited = 0;
    SHOAL_LIST_FOREACH (node, &core->fibers.live) {
        const struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        char waits_for[96];
        const void *maker;
        describe_wait(fiber, NULL, waits_for, sizeof(waits_for), &maker);
        struct shoal_inspect_stack stack = {.count = 0};
        if (has_stack(fiber))
            shoal_inspect_stack_walk(fiber, &stack);
        struct shoal_inspect_fiber found = {
            .fiber = fiber,
            .name = fiber->name,
            .state = state_names[fiber->state],
            .waits_for = waits_for[0] != '\0' ? waits_for : NULL,
            .group = fiber->group->name,
            .fn = fiber->fn,
            .core = fiber->core,
            .cancelled = fiber->cancelled,
            .frames = stack.frame,
            .frame_count = stack.count,
        };
        visited++;
        if (!visit(ctx, &found))
            break;
    }
    return visited;
}

size_t shoal_inspect_symbol(const void *pc, char *out, size_t size)
{
    return shoal_backtrace_describe(pc, out, size);
}

/* ---- A snapshot ---- */

static unsigned bucket_of(const struct shoal_inspect_group *group)
{
    uintptr_t fn;
    memcpy(&fn, &group->fn, sizeof(fn));
    uint64_t hash = (uint64_t)fn + group->state;
    for (const char *at = group->waits_for; *at != '\0'; at++)
        hash = hash * 31 + (unsigned char)*at;
    return (unsigned)((hash * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

/* All but the stack. */
static bool same_fields(const struct shoal_inspect_group *a, const struct shoal_inspect_group *b)
{
    return a->fn == b->fn && a->state == b->state && a->cancelled == b->cancelled &&
           a->maker == b->maker && strcmp(a->name, b->name) == 0 &&
           strcmp(a->waits_for, b->waits_for) == 0 && strcmp(a->group, b->group) == 0;
}

static bool same_stack(const struct shoal_inspect_stack *a, const struct shoal_inspect_stack *b)
{
    return a->count == b->count &&
           (a->count == 0 ||
            (shoal_inspect_same_switch(a->frame[0], b->frame[0]) &&
             memcmp(a->frame + 1, b->frame + 1, (a->count - 1) * sizeof(a->frame[0])) == 0));
}

/* The group of `key` with the stack of `fiber`, or with `walked` once that is known; or NULL. */
static struct shoal_inspect_group *find_group(struct shoal_inspect_snapshot *out, unsigned bucket,
                                              const struct shoal_inspect_group *key,
                                              const struct shoal_fiber *fiber,
                                              const struct shoal_inspect_stack *walked)
{
    for (unsigned at = out->bucket[bucket]; at != 0; at = out->groups[at - 1].next) {
        struct shoal_inspect_group *group = &out->groups[at - 1];
        if (!same_fields(group, key))
            continue;
        if (!has_stack(fiber) ||
            (walked != NULL ? same_stack(&group->stack, walked)
                            : shoal_inspect_stack_matches(fiber, &group->stack)))
            return group;
    }
    return NULL;
}

static void add_fiber(struct shoal_inspect_snapshot *out, const struct shoal_fiber *fiber,
                      const struct shoal_inspect_hooks *hooks)
{
    struct shoal_inspect_group key;
    memset(&key, 0, offsetof(struct shoal_inspect_group, stack));
    copy_text(key.name, sizeof(key.name), fiber->name);
    copy_text(key.group, sizeof(key.group), fiber->group->id != 0 ? fiber->group->name : "");
    describe_wait(fiber, hooks, key.waits_for, sizeof(key.waits_for), &key.maker);
    key.fn = fiber->fn;
    key.state = fiber->state;
    key.cancelled = fiber->cancelled;
    key.first = fiber;
    key.count = 1;
    key.stack.count = 0;
    unsigned bucket = bucket_of(&key);
    struct shoal_inspect_group *group = find_group(out, bucket, &key, fiber, NULL);
    if (group == NULL && has_stack(fiber)) {
        shoal_inspect_stack_walk(fiber, &key.stack);
        group = find_group(out, bucket, &key, fiber, &key.stack);
    }
    if (group != NULL) {
        group->count++;
        return;
    }
    if (out->group_count == SHOAL_INSPECT_GROUPS_MAX) {
        out->ungrouped++;
        return;
    }
    key.next = out->bucket[bucket];
    out->groups[out->group_count++] = key;
    out->bucket[bucket] = (uint16_t)out->group_count;
}

void shoal_inspect_take(struct shoal_core *core, const struct shoal_inspect_hooks *hooks,
                        struct shoal_inspect_snapshot *out)
{
    out->core = core->id;
    out->timers_armed = core->timers.armed;
    out->fibers = core->fibers.live_count;
    SHOAL_LIST_FOREACH (node, &core->fibers.live) {
        if (out->looked_at == SHOAL_INSPECT_FIBERS_MAX)
            break;
        const struct shoal_fiber *fiber = SHOAL_CONTAINER_OF(node, struct shoal_fiber, node);
        out->looked_at++;
        out->in_state[fiber->state]++;
        add_fiber(out, fiber, hooks);
    }
}
