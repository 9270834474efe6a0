/*
 * The stall detector: who holds a core is named, at a bounded rate.
 */
#include <time.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * SHOAL_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static __attribute__((noinline)) void burn(uint64_t ns)
{
    uint64_t end_ns = cpu_ns() + ns;
    while (cpu_ns() < end_ns)
        ;
}

static int spin(void *arg)
{
    burn((uint64_t)(uintptr_t)arg * SHOAL_NS_PER_MS);
    return 0;
}

static int spin_as_fiber(void *arg)
{
    struct shoal_fiber *fiber;
    if (shoal_fiber_spawn(&fiber, spin, arg, "hog") != 0)
        return 1;
    return shoal_fiber_join(fiber);
}

static int spin_as_task(void *arg, union shoal_value *out)
{
    (void)out;
    return spin(arg);
}

static int spin_on_core_1(void *arg)
{
    return shoal_await(shoal_submit_to(1, spin_as_task, arg), NULL);
}

static int spin_in_pieces(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        burn(2 * SHOAL_NS_PER_MS);
        (void)shoal_yield();
    }
    return 0;
}

static const char *notify_ms = "10";

static int run_quick(void *arg)
{
    int (*fn)(void *) = *(int (**)(void *))arg;
    const char *const options[] = {"--blocked-reactor-notify-ms", notify_ms, NULL};
    return shoal_test_run_with(2, options, fn, (void *)200);
}

static unsigned count_reports(const char *text)
{
    unsigned count = 0;
    for (; (text = strstr(text, "is held for over")) != NULL; text++)
        count++;
    return count;
}

static void stall_of_a_fiber_is_reported_with_its_name(void **state)
{
    (void)state;
    int (*fn)(void *) = spin_as_fiber;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_quick, &fn);
    assert_int_equal(child.exit_code, 0);
    assert_non_null(strstr(child.text, "core 0 is held for over"));
    assert_non_null(strstr(child.text, "fiber \"hog\""));
    assert_int_equal(count_reports(child.text), 1); /* one a second, however many ticks */
}

static void stall_of_a_task_is_reported_with_its_core(void **state)
{
    (void)state;
    int (*fn)(void *) = spin_on_core_1;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_quick, &fn);
    assert_int_equal(child.exit_code, 0);
    assert_non_null(strstr(child.text, "core 1 is held for over"));
    assert_non_null(strstr(child.text, "a task"));
}

static void stall_is_not_reported_of_those_who_yield(void **state)
{
    (void)state;
    int (*fn)(void *) = spin_in_pieces;
    struct shoal_test_child child;
    notify_ms = "60"; /* far above a piece, even where a sanitizer slows it down */
    shoal_test_in_child(&child, run_quick, &fn);
    notify_ms = "10";
    assert_int_equal(child.exit_code, 0);
    assert_int_equal(count_reports(child.text), 0);
}

static void stall_detector_turned_off_reports_nothing(void **state)
{
    (void)state;
    int (*fn)(void *) = spin_as_fiber;
    struct shoal_test_child child;
    notify_ms = "0";
    shoal_test_in_child(&child, run_quick, &fn);
    notify_ms = "10";
    assert_int_equal(child.exit_code, 0);
    assert_int_equal(count_reports(child.text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stall_of_a_fiber_is_reported_with_its_name),
        cmocka_unit_test(stall_of_a_task_is_reported_with_its_core),
        cmocka_unit_test(stall_is_not_reported_of_those_who_yield),
        cmocka_unit_test(stall_detector_turned_off_reports_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
