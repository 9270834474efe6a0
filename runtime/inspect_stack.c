/*
 * The stack of a parked fiber, by the unwinder of libgcc: it needs .eh_frame, which every build
 * has, and no frame pointers. See shoal_fiber_visit in fiber_switch.S for how it gets there.
 *
 * A walk costs about a microsecond a frame, most of it the search for the module. Ten thousand
 * fibers at one place are therefore not walked but compared: if the words in which a walked stack
 * kept its return addresses are the same in another, at the same distance from `sp`, a walk would
 * go the same way, since each step depends on the address found in the step before and nothing
 * else. (But for functions with a variable frame: there the words differ as well.)
 *
 * Where a return address lies is told by the canonical frame address on x86-64: one word below. On
 * aarch64 the function chooses; there the frame is searched, and what is not found exactly once
 * makes the stack not `exact`, so that others like it are walked.
 */
#include <string.h>

#include <unwind.h>

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/inspect_impl.h"

/* Reads words of other frames, between which the address sanitizer has put its red zones. */
#define READS_STACKS __attribute__((no_sanitize("address"), noinline))

struct walk {
    struct shoal_inspect_stack *out;
    const char *sp;
    const char *frame_low; /* where the frame begins that is searched next */
    bool inside;           /* past shoal_fiber_visit */
};

#if defined(__x86_64__)

static bool find_slot(struct walk *walk, const char *frame_high, const void *pc, uint32_t *slot)
{
    (void)pc;
    *slot = (uint32_t)(frame_high - sizeof(void *) - walk->sp);
    return true;
}

#else

READS_STACKS static bool find_slot(struct walk *walk, const char *frame_high, const void *pc,
                                   uint32_t *slot)
{
    unsigned found = 0;
    for (const char *at = walk->frame_low; at + sizeof(pc) <= frame_high; at += sizeof(pc)) {
        if (*(void *const *)(const void *)at != pc)
            continue;
        *slot = (uint32_t)(at - walk->sp);
        found++;
    }
    return found == 1;
}

#endif

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *arg)
{
    struct walk *walk = arg;
    struct shoal_inspect_stack *out = walk->out;
    void *pc = (void *)_Unwind_GetIP(context);
    if (!walk->inside) {
        walk->inside = pc == (const void *)shoal_fiber_visit_return;
        return _URC_NO_REASON;
    }
    if (pc == NULL || out->count == SHOAL_INSPECT_FRAMES_MAX)
        return _URC_END_OF_STACK;
    const char *frame_high = (const char *)_Unwind_GetCFA(context);
    out->exact &= find_slot(walk, frame_high, pc, &out->slot[out->count]);
    out->frame[out->count++] = pc;
    walk->frame_low = frame_high;
    return _URC_NO_REASON;
}

static __attribute__((noinline)) void walk_from_here(void *arg)
{
    (void)_Unwind_Backtrace(on_frame, arg);
}

void shoal_inspect_stack_walk(const struct shoal_fiber *fiber, struct shoal_inspect_stack *out)
{
    out->count = 0;
    out->exact = true;
    if (!shoal_fiber_visits)
        return;
    struct walk walk = {.out = out, .sp = fiber->sp, .frame_low = fiber->sp};
    shoal_fiber_visit(fiber->sp, walk_from_here, &walk);
}

READS_STACKS bool shoal_inspect_stack_matches(const struct shoal_fiber *fiber,
                                              const struct shoal_inspect_stack *known)
{
    const char *sp = fiber->sp;
    const char *high = fiber->stack + fiber->stack_bytes;
    if (!known->exact || known->count == 0)
        return false;
    for (unsigned i = 0; i < known->count; i++) {
        const char *at = sp + known->slot[i];
        if (at > high - sizeof(void *))
            return false;
        const void *pc = *(void *const *)(const void *)at;
        if (pc != known->frame[i] && (i > 0 || !shoal_inspect_same_switch(pc, known->frame[0])))
            return false;
    }
    return true;
}
