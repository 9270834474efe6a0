/*
 * A core's memory: its share of --memory, its figures, and what debug builds catch.
 */
#include <signal.h>

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/mem.h"
#include "shoal/runtime/mem_report.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

static int check_alignment(void *arg)
{
    (void)arg;
    for (size_t bytes = 1; bytes < 5000; bytes += 7) {
        char *plain = shoal_mem_alloc(bytes);
        SHOAL_EXPECT_INT((uintptr_t)plain % 16, 0);
        memset(plain, 0xff, bytes);
        shoal_mem_free(plain, bytes);
        char *zeroed = shoal_mem_alloc_zeroed(bytes);
        for (size_t i = 0; i < bytes; i++)
            if (zeroed[i] != 0)
                return 1;
        shoal_mem_free(zeroed, bytes);
        for (size_t alignment = 16; alignment <= 4096; alignment *= 2) {
            char *aligned = shoal_mem_alloc_aligned(bytes, alignment);
            SHOAL_EXPECT_INT((uintptr_t)aligned % alignment, 0);
            memset(aligned, 0xff, bytes);
            shoal_mem_free_aligned(aligned, bytes, alignment);
        }
    }
    shoal_mem_free(NULL, 100);
    return 0;
}

static void mem_alloc_is_aligned_and_zeroed_on_request(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_alignment, NULL), 0);
}

static int check_stats(void *arg)
{
    (void)arg;
    struct shoal_mem_stats before, during, after;
    shoal_mem_stats(&before);
    char *one = shoal_mem_alloc(1000);
    char *two = shoal_mem_alloc(2000);
    shoal_mem_stats(&during);
    shoal_mem_free(one, 1000);
    shoal_mem_free(two, 2000);
    shoal_mem_stats(&after);
    SHOAL_EXPECT_INT(during.used_bytes, before.used_bytes + 3000);
    SHOAL_EXPECT_INT(during.allocs, before.allocs + 2);
    SHOAL_EXPECT(during.peak_bytes >= during.used_bytes);
    SHOAL_EXPECT_INT(after.used_bytes, before.used_bytes);
    SHOAL_EXPECT_INT(during.frees, before.frees);
    SHOAL_EXPECT_INT(after.frees, before.frees + 2);
    SHOAL_EXPECT_INT(after.failures, 0);
    SHOAL_EXPECT(after.limit_bytes == UINT64_MAX);
    return 0;
}

static void mem_stats_count_what_is_out(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stats, NULL), 0);
}

/* ---- Reports ---- */

struct slab_look {
    const char *name;
    struct shoal_slab_stats stats;
    uint64_t bytes;
    uint32_t slabs;
};

static void look_at_slab(void *arg, const struct shoal_slab_stats *stats)
{
    struct slab_look *look = arg;
    look->slabs++;
    look->bytes += stats->bytes;
    SHOAL_EXPECT(stats->live <= stats->objects);
    SHOAL_EXPECT(stats->bytes >= (uint64_t)stats->objects * stats->object_bytes);
    SHOAL_EXPECT_INT(stats->chunks > 0, stats->objects > 0);
    if (strcmp(stats->name, look->name) == 0)
        look->stats = *stats;
}

static struct slab_look look_at(const char *name)
{
    struct slab_look look = {.name = name};
    shoal_slab_stats(look_at_slab, &look);
    return look;
}

static int sleep_long(void *arg)
{
    (void)arg;
    char touched[20000];
    memset(touched, 1, sizeof(touched));
    __asm__ volatile("" ::"r"(touched) : "memory");
    return shoal_sleep_ns(3600 * UINT64_C(1000000000));
}

static int check_report(void *arg)
{
    (void)arg;
    enum { FIBERS = 320 };
    struct shoal_fiber *fibers[FIBERS];
    struct shoal_mem_report before, during, after;
    const struct slab_look futures = look_at("future");
    const struct slab_look own = look_at("fiber");
    shoal_mem_report(&before);
    SHOAL_EXPECT_INT(before.slabs, own.slabs);
    SHOAL_EXPECT_INT(before.slab_bytes, own.bytes);
    SHOAL_EXPECT(before.slab_live_bytes > 0 && before.slab_live_bytes < before.slab_bytes);
    SHOAL_EXPECT(before.buffers > 0 && before.buffers_free == before.buffers);
    SHOAL_EXPECT(before.buffer_bytes >= UINT64_C(8000) * before.buffers);
    SHOAL_EXPECT(before.other_bytes > 0);
    SHOAL_EXPECT(before.other_bytes + before.slab_bytes + before.buffer_bytes <=
                 before.allocator.used_bytes);
    SHOAL_EXPECT(own.stats.live >= 1 && own.stats.object_bytes > 0);

    struct shoal_future *future = shoal_future_new();
    char *single = shoal_mem_alloc(5000);
    for (int i = 0; i < FIBERS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], sleep_long, NULL, "sleeper"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_mem_report(&during);
    SHOAL_EXPECT_INT(look_at("future").stats.live, futures.stats.live + 1);
    SHOAL_EXPECT_INT(look_at("fiber").stats.live,
                     own.stats.live + FIBERS - (before.fibers_free - during.fibers_free));
    SHOAL_EXPECT_INT(during.fibers, before.fibers + FIBERS);
    SHOAL_EXPECT_INT(during.other_bytes, before.other_bytes + 5000);
    SHOAL_EXPECT(during.stack_reserved_bytes >= FIBERS * UINT64_C(65536));
    SHOAL_EXPECT(during.stack_committed_bytes >= before.stack_committed_bytes + FIBERS * 20000);
    SHOAL_EXPECT(during.stack_committed_bytes <= during.stack_reserved_bytes);

    const struct shoal_fiber_options large = {.name = "large", .stack_bytes = 8u << 20};
    struct shoal_fiber *own_stack;
    struct shoal_mem_report with_large;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(&own_stack, sleep_long, NULL, &large), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_mem_report(&with_large);
    SHOAL_EXPECT(with_large.stack_reserved_bytes >= during.stack_reserved_bytes + (8u << 20));
    SHOAL_EXPECT(with_large.stack_committed_bytes >= during.stack_committed_bytes + 20000);
    SHOAL_EXPECT(with_large.stack_committed_bytes < during.stack_committed_bytes + (4u << 20));
    shoal_fiber_cancel(own_stack);
    SHOAL_EXPECT_INT(shoal_fiber_join(own_stack), -ECANCELED);

    shoal_future_resolve(future, NULL);
    shoal_discard(future);
    shoal_mem_free(single, 5000);
    for (int i = 0; i < FIBERS; i++) {
        shoal_fiber_cancel(fibers[i]);
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), -ECANCELED);
    }
    shoal_mem_report(&after);
    SHOAL_EXPECT_INT(after.other_bytes, before.other_bytes);
    SHOAL_EXPECT_INT(after.fibers, before.fibers);
    SHOAL_EXPECT(after.fibers_free >= FIBERS);
    SHOAL_EXPECT(after.stack_committed_bytes < during.stack_committed_bytes); /* trimmed */
    SHOAL_EXPECT_INT(look_at("future").stats.live, futures.stats.live);
    return 0;
}

static void mem_report_adds_up(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_report, NULL), 0);
}

static int write_report(void *arg)
{
    (void)arg;
    shoal_mem_report_log();
    return 0;
}

static int run_write_report(void *arg)
{
    const char *const options[] = {"--log-level", "info", "--memory", "64M", NULL};
    (void)arg;
    return shoal_test_run_with(1, options, write_report, NULL);
}

static void mem_report_in_the_log_names_slabs(void **state)
{
    (void)state;
    static const char *const wanted[] = {" future ",        " fiber ", " slice ",
                                         "receive buffers", "stacks",  "limit 67108864"};
    static struct shoal_test_child child;
    shoal_test_in_child(&child, run_write_report, NULL);
    assert_int_equal(child.exit_code, 0);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(wanted); i++)
        if (strstr(child.text, wanted[i]) == NULL)
            fail_msg("no \"%s\" in:\n%s", wanted[i], child.text);
}

static int leak_memory(void *arg)
{
    static void *volatile kept[3]; /* LeakSanitizer is to see nothing wrong */
    (void)arg;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(kept); i++)
        kept[i] = shoal_mem_alloc(1000);
    return 0;
}

static int run_leak_memory(void *arg)
{
    return shoal_test_run(1, leak_memory, arg);
}

static void mem_never_freed_is_reported_at_the_end(void **state)
{
    (void)state;
    static struct shoal_test_child child;
    shoal_test_in_child(&child, run_leak_memory, NULL);
    assert_int_equal(child.exit_code, SHOAL_TEST_FAILED);
    assert_non_null(strstr(child.text, "core 0 ends with 3000 bytes that were never freed"));
#ifdef SHOAL_DEBUG
    unsigned lines = 0;
    for (const char *at = child.text; (at = strstr(at, "1000 bytes at ")) != NULL; at++)
        lines++;
    assert_int_equal(lines, 3);
#endif
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

#define PIECE (64 * 1024)

static int use_up_memory(void *arg)
{
    (void)arg;
    void *pieces[1024];
    int count = 0;
    while (count < 1024 && (pieces[count] = shoal_mem_alloc(PIECE)) != NULL)
        count++;
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    SHOAL_EXPECT_INT(stats.limit_bytes, 8 << 20); /* a half of it for each core */
    SHOAL_EXPECT(count > 32 && count <= 128);
    SHOAL_EXPECT(stats.used_bytes <= stats.limit_bytes);
    SHOAL_EXPECT(stats.failures > 0);
    SHOAL_EXPECT(shoal_mem_alloc_zeroed(PIECE) == NULL);
    SHOAL_EXPECT(shoal_mem_alloc_aligned(PIECE, 4096) == NULL);
    SHOAL_EXPECT(shoal_mem_alloc(SIZE_MAX - 100) == NULL);
    /* What is made of memory fails by a code, and never aborts. */
    struct shoal_fiber *fibers[10000];
    int spawned = 0;
    int rc;
    while ((rc = shoal_fiber_spawn(&fibers[spawned], nothing, NULL, "nothing")) == 0)
        spawned++;
    SHOAL_EXPECT_INT(rc, -ENOMEM);
    while (count > 0)
        shoal_mem_free(pieces[--count], PIECE);
    while (spawned > 0)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[--spawned]), 0);
    void *again = shoal_mem_alloc(PIECE);
    SHOAL_EXPECT(again != NULL);
    shoal_mem_free(again, PIECE);
    return 0;
}

static void mem_limit_reached_gives_null(void **state)
{
    (void)state;
    const char *const options[] = {"--memory", "16M", NULL};
    assert_int_equal(shoal_test_run_with(2, options, use_up_memory, NULL), 0);
}

#ifdef SHOAL_DEBUG
static int free_here(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_mem_free(arg, 100);
    return 0;
}

static int free_on_other_core(void *arg)
{
    (void)arg;
    void *memory = shoal_mem_alloc(100);
    return shoal_await(shoal_submit_to(1, free_here, memory), NULL);
}

static int free_with_wrong_size(void *arg)
{
    (void)arg;
    shoal_mem_free(shoal_mem_alloc(100), 99);
    return 0;
}

static int free_twice(void *arg)
{
    (void)arg;
    void *memory = shoal_mem_alloc(5000);
    shoal_mem_free(memory, 5000);
    shoal_mem_free(memory, 5000);
    return 0;
}

static int free_foreign(void *arg)
{
    (void)arg;
    static char bytes[128] __attribute__((aligned(16)));
    shoal_mem_free(bytes + 64, 10);
    return 0;
}

static void mem_free_on_other_core_aborts_naming_both(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(2, free_on_other_core, " of core 0 on core 1");
}

static void mem_free_with_wrong_size_aborts(void **state)
{
    (void)state;
    shoal_test_aborts_with(free_with_wrong_size, NULL, "of 100 bytes is freed as 99 bytes");
}

static void mem_free_twice_aborts(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, free_twice, NULL);
    assert_true(child.signal == SIGABRT || child.exit_code > 0); /* a sanitizer may be the first */
#if !defined(SHOAL_ASAN) && !defined(SHOAL_TSAN)
    assert_non_null(strstr(child.text, "is freed twice"));
#endif
}

static void mem_free_of_other_memory_aborts(void **state)
{
    (void)state;
    shoal_test_aborts_with(free_foreign, NULL, "did not come from shoal_mem_alloc");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mem_alloc_is_aligned_and_zeroed_on_request),
        cmocka_unit_test(mem_stats_count_what_is_out),
        cmocka_unit_test(mem_report_adds_up),
        cmocka_unit_test(mem_report_in_the_log_names_slabs),
        cmocka_unit_test(mem_never_freed_is_reported_at_the_end),
        cmocka_unit_test(mem_limit_reached_gives_null),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(mem_free_on_other_core_aborts_naming_both),
        cmocka_unit_test(mem_free_with_wrong_size_aborts),
        cmocka_unit_test(mem_free_twice_aborts),
        cmocka_unit_test(mem_free_of_other_memory_aborts),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
