/*
 * Stack overflow: it ends the program with the fiber's name, whatever the stack's size, and however
 * large the frame that does it. Other faults are not called an overflow.
 */
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

/* Has the whole of it: a compiler would keep no more than what is used. */
#define USE(frame) __asm__ volatile("" : : "r"(frame) : "memory")

#define LEVELS 1000000 /* more than any stack here has room for */

/* Until there is no room. The sum keeps the compiler from making it a loop. */
static __attribute__((noinline)) int small_frames(unsigned level)
{
    volatile char frame[200];
    USE(frame);
    frame[0] = 1;
    frame[level % sizeof(frame)] = (char)level;
    return level < LEVELS ? small_frames(level + 1) + frame[0] : 0;
}

static __attribute__((noinline)) int large_frames(unsigned level)
{
    volatile char frame[48 * 1024]; /* far more than a guard page: each of its pages is probed */
    USE(frame);
    frame[0] = 1;
    frame[level % sizeof(frame)] = (char)level;
    return level < LEVELS ? large_frames(level + 1) + frame[0] : 0;
}

static __attribute__((noinline)) int frame_larger_than_the_stack(void)
{
    volatile char frame[6 * 1024 * 1024]; /* sanitizers have larger stacks */
    USE(frame);
    frame[0] = 1;
    frame[sizeof(frame) - 1] = 2;
    return frame[0];
}

static int overflow_small(void *arg)
{
    (void)arg;
    return small_frames(0);
}

static int overflow_large(void *arg)
{
    (void)arg;
    return large_frames(0);
}

static int overflow_at_once(void *arg)
{
    (void)arg;
    return frame_larger_than_the_stack();
}

static int fault(void *arg)
{
    *(volatile int *)arg = 1;
    return 0;
}

struct plan {
    shoal_fiber_fn *fn;
    size_t stack_bytes;
    void *arg;
    unsigned core;
};

static int run_on_core(void *arg, union shoal_value *out)
{
    (void)out;
    const struct plan *plan = arg;
    struct shoal_fiber *fibers[3];
    const struct shoal_fiber_options options = {.name = "deep one",
                                                .stack_bytes = plan->stack_bytes};
    /* Others lie around it, which must not be hit in its place. */
    for (unsigned i = 0; i < 3; i++)
        if (shoal_fiber_spawn_with(&fibers[i], plan->fn, plan->arg, &options) != 0)
            return -ENOMEM;
    for (unsigned i = 0; i < 3; i++)
        (void)shoal_fiber_join(fibers[i]);
    return 0;
}

static int run_plan(void *arg)
{
    const struct plan *plan = arg;
    return shoal_await(shoal_submit_fiber_to(plan->core, run_on_core, arg), NULL);
}

static int run_in_child(void *arg)
{
    const struct plan *plan = arg;
    return shoal_test_run(plan->core + 1, run_plan, arg);
}

static void expect_overflow(struct plan plan)
{
    shoal_test_aborts_with(run_in_child, &plan, "stack overflow in fiber \"deep one\"");
}

static void overflow_by_small_frames_names_the_fiber(void **state)
{
    (void)state;
    expect_overflow((struct plan){.fn = overflow_small});
}

static void overflow_by_frames_larger_than_the_guard_names_the_fiber(void **state)
{
    (void)state;
    expect_overflow((struct plan){.fn = overflow_large});
}

static void overflow_of_a_stack_of_its_own_size_names_the_fiber(void **state)
{
    (void)state;
    expect_overflow((struct plan){.fn = overflow_small, .stack_bytes = 1 << 20});
    expect_overflow((struct plan){.fn = overflow_large, .stack_bytes = 1 << 20});
}

static void overflow_by_one_frame_larger_than_the_stack_names_the_fiber(void **state)
{
    (void)state;
    expect_overflow((struct plan){.fn = overflow_at_once});
    expect_overflow((struct plan){.fn = overflow_at_once, .stack_bytes = 1 << 20});
}

static void overflow_on_another_core_names_the_fiber(void **state)
{
    (void)state;
    expect_overflow((struct plan){.fn = overflow_small, .core = 1});
}

static void fault_elsewhere_is_not_called_an_overflow(void **state)
{
    (void)state;
    struct plan plan = {.fn = fault, .arg = (void *)16};
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_in_child, &plan);
    assert_true(child.exit_code != 0); /* by SIGSEGV, or as a sanitizer ends it */
    assert_null(strstr(child.text, "stack overflow"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_by_small_frames_names_the_fiber),
        cmocka_unit_test(overflow_by_frames_larger_than_the_guard_names_the_fiber),
        cmocka_unit_test(overflow_of_a_stack_of_its_own_size_names_the_fiber),
        cmocka_unit_test(overflow_by_one_frame_larger_than_the_stack_names_the_fiber),
        cmocka_unit_test(overflow_on_another_core_names_the_fiber),
        cmocka_unit_test(fault_elsewhere_is_not_called_an_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
