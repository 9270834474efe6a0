/*
 * Map-reduce: see map_reduce.h.
 *
 * There is a slot for each core, in memory of the calling core (on its stack, if they fit). A core
 * maps into its own slot. Whoever has awaited the answer of a core may read that core's slot, and
 * folds it into its own. So no message carries a value, and no other core allocates anything.
 *
 *   | slot 0: head, accumulator | slot 1: head, accumulator | ...      each from a new cache line
 *
 * The tree over cores [lo, hi) is rooted at core lo. It gives away the upper half of its share,
 * then the upper half of what is left, until only lo is left, which it maps itself:
 *
 *   [0, 8):  0 asks 4 for [4, 8), 2 for [2, 4), 1 for [1, 2);  4 asks 6 and 5;  2 asks 3;  6 asks 7
 *
 * and folds the answers from the nearest to the farthest, which is the order of the cores.
 *
 * All messages of a tree go from lower to higher cores, but for the one to its root. So even with
 * all in one service group, none waits for a credit in a circle.
 */
#include "shoal/smp/map_reduce.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"

#include "shoal/smp/all_cores_impl.h"
#include "shoal/smp/sharded_impl.h"
#include "shoal/smp/submit.h"

#define STACK_BYTES 4096
#define DEPTH_MAX   16 /* of a tree: core numbers are 16 bits */
#define FAN_MAX     64 /* futures on the stack */
#define BYTES_MAX   ((size_t)1 << 30)

struct run;

struct slot {
    struct run *run;
    uint32_t lo; /* which core's */
    uint32_t hi; /* end of its share of a tree */
    int32_t code;
    bool full;       /* the accumulator holds something that is in no other slot */
    uint64_t unused; /* the accumulator is aligned to 16 */
};
SHOAL_STATIC_ASSERT(sizeof(struct slot) == 32, "a value and its head are one line");

struct run {
    const struct shoal_map_reduce *value; /* one of the two */
    const struct shoal_map_reduce_into *into;
    struct shoal_sharded *sharded;
    struct shoal_service_group *group;
    unsigned char *slots;
    size_t stride;
    size_t bytes; /* of an accumulator */
    uint32_t cores;
    bool on_fiber; /* the mapper may yield */
};

static struct slot *slot_of(const struct run *run, unsigned core)
{
    return (struct slot *)(void *)(run->slots + core * run->stride);
}

/* ---- The user's functions ---- */

static int call_map(void *instance, void *ctx, union shoal_value *out)
{
    struct slot *slot = ctx;
    const struct run *run = slot->run;
    (void)out;
    if (run->value != NULL)
        return (run->on_fiber ? run->value->map_fiber : run->value->map)(
            instance, run->value->arg, (union shoal_value *)(void *)(slot + 1));
    return (run->on_fiber ? run->into->map_fiber : run->into->map)(instance, run->into->arg,
                                                                   slot + 1);
}

static int call_reduce(const struct run *run, struct slot *left, const struct slot *right)
{
    if (run->value != NULL)
        return run->value->reduce(run->value->arg, (union shoal_value *)(void *)(left + 1),
                                  (const union shoal_value *)(const void *)(right + 1));
    return run->into->reduce(run->into->arg, left + 1, right + 1);
}

static void call_drop(const struct run *run, struct slot *slot)
{
    if (!slot->full)
        return;
    slot->full = false;
    if (run->value != NULL && run->value->drop != NULL)
        run->value->drop((union shoal_value *)(void *)(slot + 1));
    else if (run->into != NULL && run->into->drop != NULL)
        run->into->drop(slot + 1);
}

/* ---- On each core ---- */

/* The message that maps one core, and what a node of a tree does with its own. */
static int map_slot(void *ctx, union shoal_value *out)
{
    struct slot *slot = ctx;
    const struct run *run = slot->run;
    memset(slot + 1, 0, run->bytes);
    slot->code = run->on_fiber ? shoal_sharded_run_inside(run->sharded, call_map, slot, out)
                               : shoal_sharded_run(run->sharded, call_map, slot, out);
    slot->full = slot->code >= 0;
    return slot->code;
}

/* Folds `right`, which has been awaited, into `left`. */
static int fold(const struct run *run, struct slot *left, struct slot *right)
{
    int code = call_reduce(run, left, right);
    if (code >= 0)
        right->full = false; /* it is part of `left` */
    else
        right->code = code;
    return code < 0 ? code : 0;
}

static struct shoal_future *ask(const struct run *run, unsigned core, bool node);

/* The share of a core that has answered with `code`: somebody in it has noted why, or nobody ran.
 */
static void note_unsent(const struct run *run, const struct slot *child, int code)
{
    for (unsigned i = child->lo; i < child->hi; i++)
        if (slot_of(run, i)->code < 0)
            return;
    slot_of(run, child->lo)->code = code;
}

/* The message to the root of a share, on a fiber. */
static int run_node(void *ctx, union shoal_value *out)
{
    struct slot *slot = ctx;
    const struct run *run = slot->run;
    struct shoal_future *futures[DEPTH_MAX];
    unsigned children[DEPTH_MAX];
    unsigned count = 0;
    for (unsigned hi = slot->hi; hi - slot->lo > 1; count++) {
        unsigned mid = slot->lo + (hi - slot->lo + 1) / 2;
        slot_of(run, mid)->hi = hi;
        children[count] = mid;
        futures[count] = ask(run, mid, hi - mid > 1);
        hi = mid;
    }
    struct shoal_first_failure first = {.code = 0};
    shoal_first_note(&first, slot->lo, map_slot(slot, out));
    while (count-- > 0) {
        struct slot *child = slot_of(run, children[count]);
        int code = shoal_first_await(&first, child->lo, futures[count], NULL);
        shoal_first_cancel(futures, count);
        if (code < 0)
            note_unsent(run, child, code);
        else if (first.code == 0)
            shoal_first_note(&first, child->lo, fold(run, slot, child));
    }
    return shoal_first_return(&first);
}

static struct shoal_future *ask(const struct run *run, unsigned core, bool node)
{
    struct slot *slot = slot_of(run, core);
    if (run->group == NULL && !node)
        return run->on_fiber ? shoal_submit_fiber_to(core, map_slot, slot)
                             : shoal_submit_to(core, map_slot, slot);
    struct shoal_submit submit = {.arg = slot, .group = run->group};
    if (node)
        submit.fiber_fn = run_node;
    else if (run->on_fiber)
        submit.fiber_fn = map_slot;
    else
        submit.fn = map_slot;
    return shoal_submit(core, &submit);
}

/* ---- On the calling core ---- */

static void run_linear(const struct run *run, struct shoal_first_failure *first,
                       struct shoal_future **futures)
{
    struct slot *sum = slot_of(run, 0);
    for (unsigned i = 0; i < run->cores; i++)
        futures[i] = ask(run, i, false);
    for (unsigned i = 0; i < run->cores; i++) {
        int code = shoal_first_await(first, i, futures[i], NULL);
        shoal_first_cancel(futures + i + 1, run->cores - i - 1);
        if (code == 0 && i > 0 && first->code == 0)
            shoal_first_note(first, i, fold(run, sum, slot_of(run, i)));
    }
}

static void run_tree(const struct run *run, struct shoal_first_failure *first)
{
    struct slot *root = slot_of(run, 0);
    union shoal_value unused;
    root->hi = run->cores;
    if (shoal_core_self->id == 0) {
        shoal_first_note(first, 0, run_node(root, &unused));
    } else {
        int code = shoal_first_await(first, 0, ask(run, 0, true), NULL);
        if (code < 0)
            note_unsent(run, root, code);
    }
    for (unsigned i = 0; i < run->cores && first->code < 0; i++) {
        first->core = i;
        if (slot_of(run, i)->code < 0)
            break;
    }
}

/* With memory for the slots; the result is in slot 0. */
static int run_with(struct run *run, enum shoal_map_reduce_shape shape, unsigned *failed_core)
{
    struct shoal_first_failure first = {.code = 0};
    struct shoal_future *futures[FAN_MAX];
    for (unsigned i = 0; i < run->cores; i++)
        *slot_of(run, i) = (struct slot){.run = run, .lo = i, .hi = i + 1};
    bool linear = shape == SHOAL_MAP_REDUCE_AUTO ? run->cores <= SHOAL_MAP_REDUCE_LINEAR_MAX
                                                 : shape == SHOAL_MAP_REDUCE_LINEAR;
    if (!linear) {
        run_tree(run, &first);
    } else if (run->cores <= FAN_MAX) {
        run_linear(run, &first, futures);
    } else {
        size_t bytes = run->cores * sizeof(struct shoal_future *);
        struct shoal_future **many = shoal_mem_alloc(bytes);
        if (many == NULL)
            return -ENOMEM;
        run_linear(run, &first, many);
        shoal_mem_free((void *)many, bytes);
    }
    if (first.code < 0 && failed_core != NULL)
        *failed_core = first.core;
    const char *name = run->sharded != NULL ? run->sharded->ops->name : "map-reduce";
    return shoal_first_report(&first, name);
}

static int run_all(struct run *run, enum shoal_map_reduce_shape shape, unsigned *failed_core,
                   void *out)
{
    unsigned char on_stack[STACK_BYTES] __attribute__((aligned(SHOAL_CACHE_LINE)));
    shoal_fiber_set_message(shoal_core_self->fiber, NULL); /* not of what comes now */
    run->cores = shoal_core_count();
    run->stride =
        (sizeof(struct slot) + run->bytes + SHOAL_CACHE_LINE - 1) & ~(size_t)(SHOAL_CACHE_LINE - 1);
    size_t bytes = run->cores * run->stride;
    bool fits = bytes <= sizeof(on_stack);
    run->slots = fits ? on_stack : shoal_mem_alloc_aligned(bytes, SHOAL_CACHE_LINE);
    if (run->slots == NULL)
        return -ENOMEM;
    int code = run_with(run, shape, failed_core);
    if (code == 0) {
        memcpy(out, slot_of(run, 0) + 1, run->bytes);
    } else {
        for (unsigned i = 0; i < run->cores; i++)
            call_drop(run, slot_of(run, i));
    }
    if (!fits)
        shoal_mem_free_aligned(run->slots, bytes, SHOAL_CACHE_LINE);
    run->slots = NULL;
    return code;
}

static int check(bool whole, size_t bytes, const struct shoal_sharded *sharded)
{
    SHOAL_CHECK(shoal_core_self != NULL && shoal_core_self->fiber != NULL,
                "map-reduce outside a fiber");
    if (!whole)
        return shoal_fiber_explain(-EINVAL, "map-reduce needs one mapper, for a task or a fiber, "
                                            "and a function that folds");
    if (bytes > BYTES_MAX)
        return shoal_fiber_explain(-EINVAL, "an accumulator of %zu bytes (allowed: up to %zu)",
                                   bytes, BYTES_MAX);
    if (sharded != NULL && !shoal_sharded_seems_open(sharded))
        return shoal_fiber_explain(SHOAL_ECLOSED, "service \"%s\" has stopped", sharded->ops->name);
    return 0;
}

int shoal_map_reduce(const struct shoal_map_reduce *spec, union shoal_value *out)
{
    bool whole = (spec->map != NULL) != (spec->map_fiber != NULL) && spec->reduce != NULL;
    int rc = check(whole, 0, spec->sharded);
    if (rc < 0)
        return rc;
    struct run run = {
        .value = spec,
        .sharded = spec->sharded,
        .group = spec->sharded != NULL ? spec->sharded->group : spec->group,
        .bytes = sizeof(union shoal_value),
        .on_fiber = spec->map_fiber != NULL,
    };
    return run_all(&run, spec->shape, spec->failed_core, out);
}

int shoal_map_reduce_into(const struct shoal_map_reduce_into *spec, void *out)
{
    bool whole = (spec->map != NULL) != (spec->map_fiber != NULL) && spec->reduce != NULL;
    int rc = check(whole, spec->bytes, spec->sharded);
    if (rc < 0)
        return rc;
    struct run run = {
        .into = spec,
        .sharded = spec->sharded,
        .group = spec->sharded != NULL ? spec->sharded->group : spec->group,
        .bytes = spec->bytes,
        .on_fiber = spec->map_fiber != NULL,
    };
    return run_all(&run, spec->shape, spec->failed_core, out);
}

static int run_in_background(void *spec, union shoal_value *out)
{
    return shoal_map_reduce(spec, out);
}

struct shoal_future *shoal_map_reduce_future(const struct shoal_map_reduce *spec)
{
    SHOAL_STATIC_ASSERT(sizeof(*spec) <= SHOAL_BACKGROUND_MAX, "it is copied");
    struct shoal_future *future =
        shoal_background(run_in_background, spec, sizeof(*spec), "map-reduce");
    if (spec->drop != NULL)
        shoal_future_on_drop(future, spec->drop);
    return future;
}
