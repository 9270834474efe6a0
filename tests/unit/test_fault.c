/*
 * The failure injector itself: which allocations fail, and what becomes of free objects meanwhile.
 */
#include <pthread.h>

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/mem_report.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

/* Whether one allocation fails. */
static bool fails(void)
{
    void *memory = shoal_mem_alloc(100);
    bool failed = memory == NULL;
    shoal_mem_free(memory, 100);
    return failed;
}

static void arm(uint64_t nth, uint64_t count)
{
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = nth, .count = count});
}

static int check_nth(void *arg)
{
    (void)arg;
    struct shoal_fault_stats stats;
    struct shoal_mem_stats before, after;
    shoal_mem_stats(&before);
    for (uint64_t nth = 1; nth <= 5; nth++) {
        arm(nth, 0);
        for (uint64_t i = 1; i <= 8; i++)
            SHOAL_EXPECT_INT(fails(), i == nth);
        shoal_fault_disarm(&stats);
        SHOAL_EXPECT_INT(stats.asked, 8);
        SHOAL_EXPECT_INT(stats.failed, 1);
        arm(nth, 3);
        for (uint64_t i = 1; i <= 8; i++)
            SHOAL_EXPECT_INT(fails(), i >= nth && i < nth + 3);
        shoal_fault_disarm(&stats);
        SHOAL_EXPECT_INT(stats.failed, 3);
    }
    shoal_mem_stats(&after);
    SHOAL_EXPECT_INT(after.failures - before.failures, 20);
    SHOAL_EXPECT_INT(after.used_bytes, before.used_bytes);
    SHOAL_EXPECT(!fails());
    shoal_fault_disarm(&stats);
    SHOAL_EXPECT_INT(stats.asked, 0);
    return 0;
}

static void fault_nth_fails_that_one_and_those_behind_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_nth, NULL), 0);
}

#define DRAWS 10000

static unsigned draw(bool *out, uint64_t seed)
{
    unsigned failed = 0;
    shoal_fault_arm(&(struct shoal_fault_plan){.chance_ppm = 250000, .seed = seed});
    for (int i = 0; i < DRAWS; i++)
        failed += out[i] = fails();
    shoal_fault_disarm(NULL);
    return failed;
}

static int check_chance(void *arg)
{
    (void)arg;
    static bool one[DRAWS], same[DRAWS], other[DRAWS];
    unsigned failed = draw(one, 7);
    SHOAL_EXPECT(failed > DRAWS / 5 && failed < DRAWS * 3 / 10);
    SHOAL_EXPECT_INT(draw(same, 7), failed);
    SHOAL_EXPECT(memcmp(one, same, sizeof(one)) == 0);
    (void)draw(other, 8);
    SHOAL_EXPECT(memcmp(one, other, sizeof(one)) != 0);
    shoal_fault_arm(&(struct shoal_fault_plan){.chance_ppm = 1000000, .nth = 3});
    for (int i = 0; i < 10; i++)
        SHOAL_EXPECT(fails());
    shoal_fault_disarm(NULL);
    return 0;
}

static void fault_chance_is_that_of_its_seed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_chance, NULL), 0);
}

/* ---- Objects that are free ---- */

static void find_futures(void *arg, const struct shoal_slab_stats *stats)
{
    if (strcmp(stats->name, "future") == 0)
        *(struct shoal_slab_stats *)arg = *stats;
}

static struct shoal_slab_stats futures(void)
{
    struct shoal_slab_stats stats = {0};
    shoal_slab_stats(find_futures, &stats);
    return stats;
}

static void make_and_discard(void)
{
    shoal_discard(shoal_future_ready(NULL));
}

static int check_free_objects(void *arg)
{
    (void)arg;
    const struct shoal_core *core = shoal_core_self;
    for (int i = 0; i < 200; i++)
        make_and_discard(); /* past the quarantine of checked builds */
    const struct shoal_slab_stats before = futures();
    for (uint64_t nth = 1; nth < 4; nth++) {
        struct shoal_future *made[3];
        arm(nth, 0);
        for (uint64_t i = 0; i < 3; i++)
            made[i] = shoal_future_new();
        for (uint64_t i = 0; i < 3; i++)
            SHOAL_EXPECT_INT(made[i] == core->no_memory, i + 1 == nth);
        SHOAL_EXPECT_INT(futures().live, before.live + 2); /* hidden ones count as free */
        for (uint64_t i = 0; i < 3; i++) {
            if (made[i] != core->no_memory)
                shoal_future_resolve(made[i], NULL);
            shoal_discard(made[i]);
        }
        shoal_fault_disarm(NULL);
    }
    SHOAL_EXPECT_INT(futures().live, before.live);
    SHOAL_EXPECT_INT(futures().objects, before.objects);
    return 0;
}

static void fault_take_of_a_free_object_fails_too(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_free_objects, NULL), 0);
}

/* What is hidden is used again, with a plan and after it: the slab does not grow. */
static int check_reuse(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++)
        make_and_discard();
    const struct shoal_slab_stats before = futures();
    for (int round = 0; round < 3; round++) {
        arm(UINT64_MAX, 0);
        for (int i = 0; i < 5000; i++) {
            make_and_discard();
            if (i % 50 == 0)
                SHOAL_EXPECT_INT(shoal_sleep_ns(0), 0); /* the loop hides, too */
        }
        shoal_fault_disarm(NULL);
        for (int i = 0; i < 1000; i++)
            make_and_discard();
    }
    SHOAL_EXPECT_INT(futures().chunks, before.chunks);
    SHOAL_EXPECT_INT(futures().live, before.live);
    /* All of them at once: none has been lost. */
    static struct shoal_future *held[100000];
    uint32_t count = before.objects - before.live;
#ifdef SHOAL_SLAB_CHECKED
    count -= 64; /* in quarantine */
#endif
    for (uint32_t i = 0; i < count; i++)
        held[i] = shoal_future_ready(NULL);
    SHOAL_EXPECT_INT(futures().chunks, before.chunks);
    for (uint32_t i = 0; i < count; i++)
        shoal_discard(held[i]);
    return 0;
}

static void fault_hidden_objects_are_used_again(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_reuse, NULL), 0);
}

/* In steady state, after the loop has polled, each spawn and each future asks. */
static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void spawn_and_discard(int rounds)
{
    for (int i = 0; i < rounds; i++) {
        struct shoal_fiber *fiber;
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, nothing, NULL, "nothing"), 0);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
        make_and_discard();
        SHOAL_EXPECT_INT(shoal_sleep_ns(0), 0);
    }
}

static int check_steady(void *arg)
{
    (void)arg;
    struct shoal_fault_stats stats;
    spawn_and_discard(200); /* past the quarantine */
    arm(UINT64_MAX, 0);
    spawn_and_discard(100);
    shoal_fault_disarm(&stats);
#ifdef SHOAL_SLAB_CHECKED
    SHOAL_EXPECT_INT(stats.asked, 200);
#else
    SHOAL_EXPECT(stats.asked >= 100); /* fibers of the pool pass by */
#endif
    return 0;
}

static void fault_steady_state_can_fail(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_steady, NULL), 0);
}

/* ---- Whose allocations ---- */

static int ask_here(void *arg, union shoal_value *out)
{
    (void)arg;
    out->i64 = fails();
    return 0;
}

static void *ask_on_thread(void *arg)
{
    *(bool *)arg = shoal_fault_hit("test");
    return NULL;
}

static int check_others(void *arg)
{
    (void)arg;
    bool other = true;
    pthread_t thread;
    union shoal_value value = {.i64 = 1};
    struct shoal_future *future = shoal_submit_to(1, ask_here, NULL);
    shoal_fault_arm(&(struct shoal_fault_plan){.chance_ppm = 1000000});
    int rc = shoal_await(future, &value);
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, ask_on_thread, &other), 0);
    pthread_join(thread, NULL);
    SHOAL_EXPECT(shoal_fault_hit("test"));
    shoal_fault_disarm(NULL);
    SHOAL_EXPECT(!shoal_fault_hit("test"));
    SHOAL_EXPECT_INT(rc, 0);
    SHOAL_EXPECT_INT(value.i64, 0);
    SHOAL_EXPECT(!other);
    return 0;
}

static void fault_plan_is_of_its_thread_alone(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_others, NULL), 0);
}

/* ---- The option ---- */

struct parse_case {
    const char *text;
    struct shoal_fault_plan plan;
    int core;
};

static void fault_plan_as_text_is_read(void **state)
{
    (void)state;
    static const struct parse_case good[] = {
        {"nth=1", {.nth = 1, .seed = 1}, -1},
        {"nth=17,count=3,core=0", {.nth = 17, .count = 3, .seed = 1}, 0},
        {"p=0.01,seed=7", {.chance_ppm = 10000, .seed = 7}, -1},
        {"seed=9999999999999999999,p=0.000001,core=12",
         {.chance_ppm = 1, .seed = 9999999999999999999u},
         12},
        {"p=1", {.chance_ppm = 1000000, .seed = 1}, -1},
        {"p=1.000000", {.chance_ppm = 1000000, .seed = 1}, -1},
        {"p=0.123456,nth=5", {.chance_ppm = 123456, .nth = 5, .seed = 1}, -1},
    };
    static const char *const bad[] = {
        "",
        "nth",
        "nth=",
        "nth=x",
        "nth=0",
        "nth=-1",
        "n=1",
        "p=",
        "p=2",
        "p=1.1",
        "p=.5",
        "p=0.",
        "p=0.1234567",
        "p=0",
        "nth=1,",
        ",nth=1",
        "nth=1 ",
        "core=70000,nth=1",
        "seed=1",
        "count=5",
        "p=0x1",
        "nth=99999999999999999999",
        "nth=1;p=0.1",
    };
    char error[512];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(good); i++) {
        struct shoal_fault_plan plan;
        int core = 77;
        assert_int_equal(shoal_fault_parse(good[i].text, &plan, &core, error, sizeof(error)), 0);
        assert_int_equal(core, good[i].core);
        assert_int_equal(plan.nth, good[i].plan.nth);
        assert_int_equal(plan.count, good[i].plan.count);
        assert_int_equal(plan.chance_ppm, good[i].plan.chance_ppm);
        assert_true(plan.seed == good[i].plan.seed);
    }
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++) {
        struct shoal_fault_plan plan = {.nth = 42};
        int core;
        error[0] = '\0';
        if (shoal_fault_parse(bad[i], &plan, &core, error, sizeof(error)) != SHOAL_EOPTION)
            fail_msg("\"%s\" is taken for a plan", bad[i]);
        assert_int_equal(plan.nth, 42);
        assert_non_null(strstr(error, "--fail-alloc"));
    }
    static char text[1000];
    struct shoal_fault_plan plan;
    int core;
    memset(text, '1', sizeof(text) - 1);
    assert_int_equal(shoal_fault_parse(text, &plan, &core, error, sizeof(error)), SHOAL_EOPTION);
}

static int use_both_cores(void *arg)
{
    (void)arg;
    for (int i = 0; i < 50; i++) {
        union shoal_value value;
        (void)fails();
        (void)shoal_await(shoal_submit_to(1, ask_here, NULL), &value);
    }
    return 0;
}

static int run_with_option(void *arg)
{
    const char *const options[] = {"--fail-alloc", arg, NULL};
    return shoal_test_run_with(2, options, use_both_cores, NULL);
}

static void fault_option_fails_on_the_core_that_it_names(void **state)
{
    (void)state;
    static struct shoal_test_child child;
    static char chance[] = "p=0.3,core=1,seed=3", nth[] = "nth=60,core=0", early[] = "nth=2,core=1";
    shoal_test_in_child(&child, run_with_option, early); /* on core 0 that is in the placement */
    assert_null(strstr(child.text, "placement"));
    assert_non_null(strstr(child.text, "fails on purpose"));
    shoal_test_in_child(&child, run_with_option, chance);
    assert_non_null(strstr(child.text, "fails on purpose"));
    assert_non_null(strstr(child.text, "warn  core "));
    assert_null(strstr(child.text, "core 0: allocation"));
    shoal_test_in_child(&child, run_with_option, nth);
    assert_non_null(strstr(child.text, "core 0: allocation 60 ("));
    assert_non_null(strstr(child.text, "#0 ")); /* where */
    assert_null(strstr(child.text, "core 1: allocation"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_nth_fails_that_one_and_those_behind_it),
        cmocka_unit_test(fault_chance_is_that_of_its_seed),
        cmocka_unit_test(fault_take_of_a_free_object_fails_too),
        cmocka_unit_test(fault_hidden_objects_are_used_again),
        cmocka_unit_test(fault_steady_state_can_fail),
        cmocka_unit_test(fault_plan_is_of_its_thread_alone),
        cmocka_unit_test(fault_plan_as_text_is_read),
        cmocka_unit_test(fault_option_fails_on_the_core_that_it_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
