/*
 * Inspection inside: a parked fiber's stack, and a core's state in a form that another thread may
 * read at leisure.
 *
 *   on the core:        shoal_inspect_take()    copies and counts; a few microseconds a group
 *   on a helper thread: shoal_inspect_render()  finds symbols and makes text; milliseconds
 *
 * 1. A snapshot points at nothing but code: what it names may be gone when it is rendered.
 * 2. Fibers that cannot be told apart (name, state, what they wait for, stack) make one group with
 *    a count, so that ten thousand connections read as one.
 * 3. Nothing is allocated: whoever asks brings the memory.
 */
#ifndef SHOAL_RUNTIME_INSPECT_IMPL_H
#define SHOAL_RUNTIME_INSPECT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/inspect.h"

struct shoal_core;
struct shoal_future;

#define SHOAL_INSPECT_FRAMES_MAX 32
#define SHOAL_INSPECT_GROUPS_MAX 512
#define SHOAL_INSPECT_FIBERS_MAX 10000 /* looked at; the others are only counted */
#define SHOAL_INSPECT_BUCKETS    256

/* The stack of a fiber that does not run: addresses, and at which byte above `sp` each lies. */
struct shoal_inspect_stack {
    unsigned count;
    bool exact; /* `slot` is known for each frame */
    void *frame[SHOAL_INSPECT_FRAMES_MAX];
    uint32_t slot[SHOAL_INSPECT_FRAMES_MAX];
};

/* Walks the stack of `fiber`, of the calling core and not running. Nothing of it is written to. */
void shoal_inspect_stack_walk(const struct shoal_fiber *fiber, struct shoal_inspect_stack *out);

/* Whether a walk of `fiber` would give `known`; without a walk, may say no where it would. */
bool shoal_inspect_stack_matches(const struct shoal_fiber *fiber,
                                 const struct shoal_inspect_stack *known);

/*
 * Whether two innermost addresses are the same to a reader: a fiber gives way to the loop or to
 * another fiber, at two places of one function.
 */
static inline bool shoal_inspect_same_switch(const void *a, const void *b)
{
    return (uintptr_t)a - (uintptr_t)b + 2048 < 4096;
}

struct shoal_inspect_group {
    char name[48];
    char waits_for[96]; /* "": for nothing */
    char group[32];     /* "": the main one */
    shoal_fiber_fn *fn;
    const void *maker;               /* code that made the future waited for; NULL: not known */
    const struct shoal_fiber *first; /* an address to name, not to look into */
    uint32_t count;
    uint16_t next; /* in its bucket; 0: none, else index + 1 */
    uint8_t state;
    bool cancelled;
    struct shoal_inspect_stack stack;
};

struct shoal_inspect_snapshot {
    unsigned core;
    uint32_t fibers;
    uint32_t looked_at;
    uint32_t in_state[8]; /* by enum shoal_fiber_state, of those looked at */
    uint32_t ungrouped;   /* looked at, but there was no group left */
    uint32_t group_count;
    uint64_t timers_armed;
    char more[1024]; /* a line of the layers above, "" for none */
    uint16_t bucket[SHOAL_INSPECT_BUCKETS];
    struct shoal_inspect_group groups[SHOAL_INSPECT_GROUPS_MAX];
};

/* What the layers above know. */
struct shoal_inspect_hooks {
    /* Says in words who will settle `future` (pending, not derived), or returns false. */
    bool (*describe_future)(void *ctx, const struct shoal_future *future, char *out, size_t size);
    void *ctx;
};

/* Fills `out`, zeroed memory, on the core itself. `hooks` may be NULL. */
void shoal_inspect_take(struct shoal_core *core, const struct shoal_inspect_hooks *hooks,
                        struct shoal_inspect_snapshot *out);

/* Makes text of it, of at most `size` bytes with its zero; returns the length. Any thread. */
size_t shoal_inspect_render(const struct shoal_inspect_snapshot *snapshot, char *out, size_t size);

/* The same for frames that do not belong to a parked fiber, one line each. */
size_t shoal_inspect_render_frames(void *const *frames, unsigned count, char *out, size_t size);

/*
 * fiber_switch.S: calls fn(arg) so that an unwinder sees the parked context `sp` as its caller; the
 * address shoal_fiber_visit_return is that of the frame between. Without it (ucontext),
 * shoal_fiber_visits is false and stacks cannot be walked.
 */
void shoal_fiber_visit(void *sp, void (*fn)(void *arg), void *arg)
    __attribute__((visibility("hidden")));
extern const char shoal_fiber_visit_return[] __attribute__((visibility("hidden")));
extern const bool shoal_fiber_visits __attribute__((visibility("hidden")));

#endif
