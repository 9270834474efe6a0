/*
 * A core's memory: its share of --memory, its figures, and what debug builds catch.
 */
#include <signal.h>

#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/mem.h"

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
    SHOAL_EXPECT_INT(after.failures, 0);
    SHOAL_EXPECT(after.limit_bytes == UINT64_MAX);
    return 0;
}

static void mem_stats_count_what_is_out(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stats, NULL), 0);
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

static int run_free_on_other_core(void *arg)
{
    return shoal_test_run(2, free_on_other_core, arg);
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
    static char bytes[64] __attribute__((aligned(16)));
    shoal_mem_free(bytes + 32, 10);
    return 0;
}

static void mem_free_on_other_core_aborts_naming_both(void **state)
{
    (void)state;
    shoal_test_aborts_with(run_free_on_other_core, NULL, "of core 0 is freed on core 1");
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
