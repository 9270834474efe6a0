/*
 * The report of all cores: they come in order, one that is held is named with its stack, and
 * nothing of it disturbs.
 */
#include <stdatomic.h>
#include <time.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/inspect_impl.h"

#include "shoal/smp/submit.h"

#include "unit/inspect_check.h"

static int stop_early(void *arg)
{
    (void)arg;
    struct collected all;
    collected_init(&all);
    all.answer = -EPIPE;
    SHOAL_EXPECT_INT(shoal_inspect_all(collect, &all), -EPIPE);
    SHOAL_EXPECT_INT(all.pieces, 1);
    free(all.text);
    struct shoal_fiber *self = shoal_fiber_self();
    collected_init(&all);
    shoal_fiber_cancel(self);
    SHOAL_EXPECT_INT(shoal_inspect_all(collect, &all), -ECANCELED);
    SHOAL_EXPECT_INT(all.pieces, 0);
    free(all.text);
    return 0;
}

static void report_ends_with_what_its_writer_returns_or_with_the_cancel(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, stop_early, NULL), 0);
}

static int report_from_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    for (unsigned i = 0; i < 5; i++) {
        struct collected all;
        collected_init(&all);
        all.yields = true;
        SHOAL_EXPECT_INT(shoal_inspect_all(collect, &all), 0);
        SHOAL_EXPECT(says(&all, "core 0: ") && says(&all, "core 1: ") && says(&all, "core 2: "));
        free(all.text);
    }
    return 0;
}

static int report_from_everywhere(void *arg)
{
    (void)arg;
    struct shoal_future *futures[3];
    for (unsigned i = 0; i < 3; i++)
        futures[i] = shoal_submit_fiber_to(i, report_from_here, NULL);
    for (unsigned i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_await(futures[i], NULL), 0);
    return 0;
}

static void report_can_be_made_on_all_cores_at_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, report_from_everywhere, NULL), 0);
}

static int report_without_memory(void *arg)
{
    (void)arg;
    enum { BLOCK = 64 << 10, BLOCKS = 4096 };
    static void *blocks[BLOCKS];
    unsigned count = 0;
    while (count < BLOCKS && (blocks[count] = shoal_mem_alloc(BLOCK)) != NULL)
        count++;
    SHOAL_EXPECT(count < BLOCKS);
    struct collected all;
    report(&all);
    SHOAL_EXPECT(says(&all, "core 0: ") && says(&all, "core 1: "));
    free(all.text);
    while (count > 0)
        shoal_mem_free(blocks[--count], BLOCK);
    return 0;
}

static void report_needs_none_of_the_memory_that_is_limited(void **state)
{
    (void)state;
    const char *const words[] = {"--memory", "32M", NULL};
    assert_int_equal(shoal_test_run_with(2, words, report_without_memory, NULL), 0);
}

/* ---- A core that is held ---- */

static _Atomic bool held, let_go;

static __attribute__((noinline)) void hold_the_core(void)
{
    struct timespec ts;
    atomic_store(&held, true);
    while (!atomic_load(&let_go))
        clock_gettime(CLOCK_MONOTONIC, &ts); /* a call: where a sanitizer lets signals in */
}

static int hold(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    hold_the_core();
    return 0;
}

static struct shoal_future *hold_core_1(bool by_fiber)
{
    atomic_store(&held, false);
    atomic_store(&let_go, false);
    struct shoal_future *future =
        by_fiber ? shoal_submit_fiber_to(1, hold, NULL) : shoal_submit_to(1, hold, NULL);
    while (!atomic_load(&held))
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return future;
}

static int report_held(void *arg)
{
    bool by_fiber = arg != NULL;
    struct collected all;
    for (unsigned i = 0; i < 2; i++) {
        struct shoal_future *future = hold_core_1(by_fiber);
        report(&all);
        SHOAL_EXPECT(says(&all, by_fiber
                                    ? "core 1: does not answer: it is held by fiber \"submit\"\n"
                                    : "core 1: does not answer: it is held by a task\n"));
        SHOAL_EXPECT(says(&all, " hold_the_core+"));
        SHOAL_EXPECT(strstr(all.text, "core 0: ") == all.text &&
                     strstr(all.text, "core 2: ") != NULL);
        free(all.text);
        atomic_store(&let_go, true);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), 0);
    }
    report(&all); /* it answers again; the late answers have gone where they belong */
    SHOAL_EXPECT(says(&all, "\ncore 1: 0 fibers, "));
    free(all.text);
    return 0;
}

static const char *const no_stall_reports[] = {"--blocked-reactor-notify-ms", "0", NULL};

static void report_of_a_held_core_says_by_whom_and_where(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(3, no_stall_reports, report_held, (void *)1), 0);
    assert_int_equal(shoal_test_run_with(3, no_stall_reports, report_held, NULL), 0);
}

static int report_that_is_cancelled(void *arg)
{
    struct collected *all = arg;
    return shoal_inspect_all(collect, all);
}

static size_t mapped_pages(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    SHOAL_EXPECT(file != NULL && fscanf(file, "%lu", &pages) == 1);
    if (file != NULL)
        fclose(file);
    return pages;
}

static int cancel_reports(void *arg)
{
    (void)arg;
    size_t before = 0;
    for (unsigned i = 0; i < 12; i++) {
        struct collected all;
        collected_init(&all);
        struct shoal_future *future = hold_core_1(false);
        struct shoal_fiber *fiber = spawn(report_that_is_cancelled, &all, "reporter");
        while (all.pieces == 0)
            (void)shoal_sleep_ns(SHOAL_NS_PER_MS); /* core 0 is written, core 1 is asked */
        (void)shoal_sleep_ns((i + 1) * 5 * SHOAL_NS_PER_MS);
        shoal_fiber_cancel(fiber);
        int rc = shoal_fiber_join(fiber);
        SHOAL_EXPECT(rc == -ECANCELED ||
                     rc == 0); /* 0: on a slow machine, out of patience before */
        atomic_store(&let_go, true);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), 0);
        free(all.text);
        if (i == 3)
            before = mapped_pages();
    }
    (void)shoal_await(shoal_submit_to(1, cancel_sleepers, NULL), NULL);
    /* Eight more of them, of which a sanitizer's own maps may take the place of some. */
    SHOAL_EXPECT(mapped_pages() < before + SHOAL_TEST_SLOWDOWN * 4096);
    return 0;
}

static void report_that_is_cancelled_leaves_its_memory_to_the_late_answer(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(2, no_stall_reports, cancel_reports, NULL), 0);
}

static int report_held_from_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    struct collected all;
    report(&all);
    SHOAL_EXPECT(says(&all, "core 1: does not answer"));
    free(all.text);
    return 0;
}

static int report_held_from_two_cores(void *arg)
{
    (void)arg;
    struct shoal_future *future = hold_core_1(true);
    struct shoal_future *other = shoal_submit_fiber_to(2, report_held_from_here, NULL);
    union shoal_value unused;
    (void)report_held_from_here(NULL, &unused);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    atomic_store(&let_go, true);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), 0);
    return 0;
}

static void reports_of_a_held_core_from_two_cores_both_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(3, no_stall_reports, report_held_from_two_cores, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_ends_with_what_its_writer_returns_or_with_the_cancel),
        cmocka_unit_test(report_can_be_made_on_all_cores_at_once),
        cmocka_unit_test(report_needs_none_of_the_memory_that_is_limited),
        cmocka_unit_test(report_of_a_held_core_says_by_whom_and_where),
        cmocka_unit_test(report_that_is_cancelled_leaves_its_memory_to_the_late_answer),
        cmocka_unit_test(reports_of_a_held_core_from_two_cores_both_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
