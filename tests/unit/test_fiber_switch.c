/*
 * The register switch and its unwind information, without a core: contexts on bare memory.
 *
 * Built three times: for this processor, for this processor with ucontext in place of the assembly,
 * and for aarch64 (tests/cross). What must survive a call by the ABI has to survive a switch, and
 * an unwinder that stands on another stack has to find the registers of a parked fiber.
 */
#include <stdint.h>
#include <string.h>

#include <sys/mman.h>
#include <unwind.h>

#include "shoal/runtime/fiber_impl.h"
#include "shoal/runtime/inspect_impl.h"

#include "unit/harness.h"

/* The sanitizers do not see bare contexts change; with them, test_fiber and test_inspect must do.
 */
#if !defined(SHOAL_ASAN) && !defined(SHOAL_TSAN)
#define BARE_CONTEXTS 1
#endif

#ifdef BARE_CONTEXTS

#define STACK_BYTES (256u * 1024)

/*
 * shoal_test_switch(save_sp, load_sp, in, out) fills all registers that a call preserves from `in`,
 * switches, and stores them to `out`. shoal_test_switch_return is where the switch comes back to.
 */
#if defined(__x86_64__)
#define REGISTERS 6
static const int dwarf_number[REGISTERS] = {3, 6, 12, 13, 14, 15};
__asm__(".text\n"
        ".globl shoal_test_switch\n"
        ".type shoal_test_switch, @function\n"
        "shoal_test_switch:\n"
        ".cfi_startproc\n"
        "    pushq %rbx\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %rbx, 0\n"
        "    pushq %rbp\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %rbp, 0\n"
        "    pushq %r12\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %r12, 0\n"
        "    pushq %r13\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %r13, 0\n"
        "    pushq %r14\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %r14, 0\n"
        "    pushq %r15\n    .cfi_adjust_cfa_offset 8\n    .cfi_rel_offset %r15, 0\n"
        "    pushq %rcx\n    .cfi_adjust_cfa_offset 8\n"
        "    movq 0(%rdx), %rbx\n    movq 8(%rdx), %rbp\n    movq 16(%rdx), %r12\n"
        "    movq 24(%rdx), %r13\n   movq 32(%rdx), %r14\n   movq 40(%rdx), %r15\n"
        "    call shoal_fiber_switch\n"
        ".globl shoal_test_switch_return\n"
        "shoal_test_switch_return:\n"
        "    popq %rcx\n    .cfi_adjust_cfa_offset -8\n"
        "    movq %rbx, 0(%rcx)\n    movq %rbp, 8(%rcx)\n    movq %r12, 16(%rcx)\n"
        "    movq %r13, 24(%rcx)\n   movq %r14, 32(%rcx)\n   movq %r15, 40(%rcx)\n"
        "    popq %r15\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %r15\n"
        "    popq %r14\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %r14\n"
        "    popq %r13\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %r13\n"
        "    popq %r12\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %r12\n"
        "    popq %rbp\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %rbp\n"
        "    popq %rbx\n    .cfi_adjust_cfa_offset -8\n    .cfi_restore %rbx\n"
        "    ret\n"
        ".cfi_endproc\n"
        ".size shoal_test_switch, . - shoal_test_switch\n");
#elif defined(__aarch64__)
#define REGISTERS 19 /* x19 to x28, x29, d8 to d15 */
static const int dwarf_number[REGISTERS] = {19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
                                            29, 72, 73, 74, 75, 76, 77, 78, 79};
__asm__(".text\n"
        ".globl shoal_test_switch\n"
        ".type shoal_test_switch, %function\n"
        "shoal_test_switch:\n"
        ".cfi_startproc\n"
        "    sub sp, sp, #176\n    .cfi_adjust_cfa_offset 176\n"
        "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n   stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n     stp d10, d11, [sp, #112]\n   stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n  str x3, [sp, #160]\n"
        "    .cfi_rel_offset x19, 0\n    .cfi_rel_offset x20, 8\n     .cfi_rel_offset x21, 16\n"
        "    .cfi_rel_offset x22, 24\n   .cfi_rel_offset x23, 32\n    .cfi_rel_offset x24, 40\n"
        "    .cfi_rel_offset x25, 48\n   .cfi_rel_offset x26, 56\n    .cfi_rel_offset x27, 64\n"
        "    .cfi_rel_offset x28, 72\n   .cfi_rel_offset x29, 80\n    .cfi_rel_offset x30, 88\n"
        "    ldp x19, x20, [x2, #0]\n    ldp x21, x22, [x2, #16]\n    ldp x23, x24, [x2, #32]\n"
        "    ldp x25, x26, [x2, #48]\n   ldp x27, x28, [x2, #64]\n    ldr x29, [x2, #80]\n"
        "    ldr d8, [x2, #88]\n  ldr d9, [x2, #96]\n   ldr d10, [x2, #104]\n"
        "    ldr d11, [x2, #112]\n ldr d12, [x2, #120]\n ldr d13, [x2, #128]\n"
        "    ldr d14, [x2, #136]\n ldr d15, [x2, #144]\n"
        "    bl shoal_fiber_switch\n"
        ".globl shoal_test_switch_return\n"
        "shoal_test_switch_return:\n"
        "    ldr x3, [sp, #160]\n"
        "    stp x19, x20, [x3, #0]\n    stp x21, x22, [x3, #16]\n    stp x23, x24, [x3, #32]\n"
        "    stp x25, x26, [x3, #48]\n   stp x27, x28, [x3, #64]\n    str x29, [x3, #80]\n"
        "    str d8, [x3, #88]\n  str d9, [x3, #96]\n   str d10, [x3, #104]\n"
        "    str d11, [x3, #112]\n str d12, [x3, #120]\n str d13, [x3, #128]\n"
        "    str d14, [x3, #136]\n str d15, [x3, #144]\n"
        "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n   ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n     ldp d10, d11, [sp, #112]\n   ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #176\n    .cfi_adjust_cfa_offset -176\n"
        "    .cfi_restore x19\n    .cfi_restore x20\n    .cfi_restore x21\n    .cfi_restore x22\n"
        "    .cfi_restore x23\n    .cfi_restore x24\n    .cfi_restore x25\n    .cfi_restore x26\n"
        "    .cfi_restore x27\n    .cfi_restore x28\n    .cfi_restore x29\n    .cfi_restore x30\n"
        "    ret\n"
        ".cfi_endproc\n"
        ".size shoal_test_switch, . - shoal_test_switch\n");
#endif

void shoal_test_switch(void **save_sp, void *load_sp, const uint64_t *in, uint64_t *out);
extern const char shoal_test_switch_return[];

/* One side of the game: a stack, what its registers must hold, and where to go back to. */
struct side {
    char *stack;
    void *sp;
    void *home_sp;
    uint64_t random;
    uint64_t in[REGISTERS];
    uint64_t out[REGISTERS];
    unsigned switches;
    unsigned wrong;
    unsigned depth;
    uint64_t misaligned;
    const void *returns[8]; /* of the functions that it is in, the innermost first */
    unsigned return_count;
};

static void side_init(struct side *side, uint64_t seed, unsigned colour, void (*entry)(void *))
{
    memset(side, 0, sizeof(*side));
    side->random = seed * 2654435761u + 1;
    side->stack =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(side->stack != MAP_FAILED);
    side->sp = shoal_fiber_context(side->stack, STACK_BYTES - colour * 256, entry, side);
}

static void side_deinit(struct side *side)
{
    munmap(side->stack, STACK_BYTES);
}

/* Fills the registers with new numbers, gives way, and compares. */
static __attribute__((noinline)) void give_way(struct side *side)
{
    for (unsigned i = 0; i < REGISTERS; i++)
        side->in[i] = shoal_test_random(&side->random);
    shoal_test_switch(&side->sp, side->home_sp, side->in, side->out);
    side->switches++;
    side->wrong += memcmp(side->in, side->out, sizeof(side->in)) != 0;
}

/* The test's own stack switches to `side` in the same way. */
static void visit(struct side *home, struct side *side)
{
    for (unsigned i = 0; i < REGISTERS; i++)
        home->in[i] = shoal_test_random(&home->random);
    shoal_test_switch(&side->home_sp, side->sp, home->in, home->out);
    home->wrong += memcmp(home->in, home->out, sizeof(home->in)) != 0;
}

static void play_for_ever(void *arg)
{
    struct side *side = arg;
    for (;;)
        give_way(side);
}

static void switch_keeps_registers_among_many_contexts(void **state)
{
    (void)state;
    enum { SIDES = 200, ROUNDS = 40000 };
    static struct side sides[SIDES];
    struct side home = {.random = 99};
    for (unsigned i = 0; i < SIDES; i++)
        side_init(&sides[i], i, i % 16, play_for_ever);
    unsigned total = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        visit(&home, &sides[shoal_test_random(&home.random) % SIDES]);
    for (unsigned i = 0; i < SIDES; i++) {
        assert_int_equal(sides[i].wrong, 0);
        total += sides[i].switches;
        side_deinit(&sides[i]);
    }
    assert_int_equal(home.wrong, 0);
    assert_true(total > ROUNDS - 2 * SIDES);
}

static __attribute__((noinline)) uint64_t recurse(struct side *side, unsigned levels)
{
    volatile uint64_t mine[3] = {levels, levels * 3u, ~(uint64_t)levels};
    give_way(side);
    uint64_t sum = levels > 0 ? recurse(side, levels - 1) : 0;
    give_way(side);
    side->wrong += mine[0] != levels || mine[1] != levels * 3u || mine[2] != ~(uint64_t)levels;
    return sum + mine[0];
}

static void recurse_once(void *arg)
{
    struct side *side = arg;
    uint64_t sum = recurse(side, 500);
    side->depth = (unsigned)sum;
    for (;;)
        give_way(side);
}

static void switch_in_deep_recursion_keeps_the_frames(void **state)
{
    (void)state;
    struct side home = {.random = 5}, sides[3];
    for (unsigned i = 0; i < 3; i++)
        side_init(&sides[i], i, i, recurse_once);
    for (unsigned i = 0; i < 3 * 2000; i++)
        visit(&home, &sides[i % 3]);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(sides[i].depth, 500 * 501 / 2);
        assert_int_equal(sides[i].wrong, 0);
        side_deinit(&sides[i]);
    }
    assert_int_equal(home.wrong, 0);
}

static __attribute__((noinline)) void look_at_alignment(struct side *side)
{
    _Alignas(16) volatile unsigned char block[16];
    block[0] = 1;
    side->misaligned |= (uintptr_t)block % 16;
    side->misaligned |= (uintptr_t)__builtin_frame_address(0) % 16;
    char text[64];
    snprintf(text, sizeof(text), "%.3f", 1.5 * block[0]); /* saves vector registers, aligned */
    side->misaligned |= strcmp(text, "1.500") != 0;
}

static void look_and_play(void *arg)
{
    struct side *side = arg;
    look_at_alignment(side);
    for (;;)
        give_way(side);
}

static void context_begins_on_an_aligned_stack(void **state)
{
    (void)state;
    struct side home = {.random = 7};
    for (unsigned colour = 0; colour < 16; colour++) {
        struct side side;
        side_init(&side, colour, colour, look_and_play);
        visit(&home, &side);
        assert_int_equal(side.misaligned, 0);
        side_deinit(&side);
    }
}

/* ---- Unwinding ---- */

static void note_return(struct side *side, const void *address)
{
    side->returns[side->return_count++] = address;
}

static __attribute__((noinline)) void inner(struct side *side)
{
    side->return_count = 0;
    note_return(side, __builtin_return_address(0));
    for (;;)
        give_way(side);
}

/* A frame of variable size: its caller is found only if the frame register was. */
static __attribute__((noinline)) unsigned char variable_frame(struct side *side, size_t bytes)
{
    volatile unsigned char *room = __builtin_alloca(bytes);
    room[0] = (unsigned char)bytes;
    side->returns[6] = __builtin_return_address(0);
    inner(side);
    return room[bytes - 1];
}

static __attribute__((noinline)) void outer(struct side *side)
{
    side->returns[7] = __builtin_return_address(0);
    side->depth += variable_frame(side, 100 + side->random % 64);
    side->depth++; /* not a tail call */
}

static void enter_nested(void *arg)
{
    outer(arg);
    __builtin_trap();
}

static bool walk_of(const struct side *side, struct shoal_inspect_stack *out)
{
    struct shoal_fiber fiber = {.sp = side->sp, .stack = side->stack};
    shoal_inspect_stack_walk(&fiber, out);
    return shoal_fiber_visits;
}

static bool has_in_order(const struct shoal_inspect_stack *stack, const void *const *wanted,
                         unsigned count)
{
    unsigned found = 0;
    for (unsigned i = 0; i < stack->count && found < count; i++)
        found += stack->frame[i] == wanted[found];
    return found == count;
}

static void walk_of_a_parked_context_finds_every_frame_to_the_first(void **state)
{
    (void)state;
    struct side home = {.random = 3}, side;
    side_init(&side, 11, 3, enter_nested);
    for (unsigned i = 0; i < 5; i++)
        visit(&home, &side);
    struct shoal_inspect_stack stack;
    if (walk_of(&side, &stack)) {
        const void *const wanted[] = {shoal_test_switch_return, side.returns[0], side.returns[6],
                                      side.returns[7]};
        assert_true(has_in_order(&stack, wanted, SHOAL_ARRAY_SIZE(wanted)));
        assert_ptr_equal(stack.frame[0], shoal_test_switch_return);
        assert_int_equal(stack.count, 7); /* and give_way, the entry, the first frame */
    } else {
        assert_int_equal(stack.count, 0);
    }
    visit(&home, &side); /* it has not been disturbed */
    assert_int_equal(side.switches, 5);
    assert_int_equal(side.wrong + home.wrong, 0);
    side_deinit(&side);
}

static void walk_of_a_new_context_finds_its_first_frame_alone(void **state)
{
    (void)state;
    struct side side;
    side_init(&side, 1, 0, play_for_ever);
    struct shoal_inspect_stack stack;
    bool walked = walk_of(&side, &stack);
    assert_int_equal(stack.count, walked ? 1 : 0);
    char text[256] = "";
    for (unsigned i = 0; i < stack.count; i++)
        (void)shoal_inspect_symbol(stack.frame[i], text, sizeof(text));
    assert_int_equal(strstr(text, " shoal_fiber_first_frame+") != NULL, walked);
    side_deinit(&side);
}

static void walk_writes_nothing_to_the_stack(void **state)
{
    (void)state;
    struct side home = {.random = 3}, side;
    side_init(&side, 11, 3, enter_nested);
    visit(&home, &side);
    char *copy = malloc(STACK_BYTES);
    assert_non_null(copy);
    memcpy(copy, side.stack, STACK_BYTES);
    struct shoal_inspect_stack stack;
    (void)walk_of(&side, &stack);
    assert_memory_equal(copy, side.stack, STACK_BYTES);
    free(copy);
    side_deinit(&side);
}

struct registers_seen {
    uint64_t value[REGISTERS];
    unsigned frames;
};

static _Unwind_Reason_Code look_at_registers(struct _Unwind_Context *context, void *arg)
{
    struct registers_seen *seen = arg;
    if ((const char *)_Unwind_GetIP(context) != shoal_test_switch_return)
        return _URC_NO_REASON;
    seen->frames++;
    for (unsigned i = 0; i < REGISTERS; i++)
        seen->value[i] = _Unwind_GetGR(context, dwarf_number[i]);
    return _URC_NO_REASON;
}

static void unwind_for_registers(void *arg)
{
    (void)_Unwind_Backtrace(look_at_registers, arg);
}

static void unwinder_finds_the_registers_of_a_parked_context(void **state)
{
    (void)state;
    struct side home = {.random = 8}, side;
    side_init(&side, 21, 5, play_for_ever);
    for (unsigned i = 0; i < 20 && shoal_fiber_visits; i++) {
        visit(&home, &side);
        struct registers_seen seen = {.frames = 0};
        shoal_fiber_visit(side.sp, unwind_for_registers, &seen);
        assert_int_equal(seen.frames, 1);
        assert_memory_equal(seen.value, side.in, sizeof(side.in));
    }
    side_deinit(&side);
}

/* As an unwinder sees it from a running fiber: the same end, and not the stack that it came from.
 */
static void unwind_from_inside(void *arg)
{
    struct side *side = arg;
    struct registers_seen seen = {.frames = 0};
    for (;;) {
        (void)_Unwind_Backtrace(look_at_registers, &seen);
        side->depth = seen.frames;
        give_way(side);
    }
}

static void unwinding_of_a_running_context_ends_at_its_first_frame(void **state)
{
    (void)state;
    struct side home = {.random = 8}, side;
    side_init(&side, 22, 0, unwind_from_inside);
    visit(&home, &side);
    visit(&home, &side);
    assert_int_equal(side.depth, 0); /* shoal_test_switch of the test is not among its callers */
    side_deinit(&side);
}

#endif

static void switch_implementation_is_the_expected_one(void **state)
{
    (void)state;
#if defined(SHOAL_TEST_UCONTEXT)
    assert_false(shoal_fiber_visits);
#else
    assert_true(shoal_fiber_visits);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(switch_implementation_is_the_expected_one),
#ifdef BARE_CONTEXTS
        cmocka_unit_test(switch_keeps_registers_among_many_contexts),
        cmocka_unit_test(switch_in_deep_recursion_keeps_the_frames),
        cmocka_unit_test(context_begins_on_an_aligned_stack),
        cmocka_unit_test(walk_of_a_parked_context_finds_every_frame_to_the_first),
        cmocka_unit_test(walk_of_a_new_context_finds_its_first_frame_alone),
        cmocka_unit_test(walk_writes_nothing_to_the_stack),
        cmocka_unit_test(unwinder_finds_the_registers_of_a_parked_context),
        cmocka_unit_test(unwinding_of_a_running_context_ends_at_its_first_frame),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
