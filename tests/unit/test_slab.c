/*
 * Slabs: recycling, and what the checked builds catch.
 */
#include "shoal/runtime/slab_impl.h"

#include "unit/harness.h"

#define OBJECT_BYTES 48

static void slab_objects_are_aligned_and_apart(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {16, 64};
    for (size_t a = 0; a < SHOAL_ARRAY_SIZE(alignments); a++) {
        struct shoal_slab slab;
        shoal_slab_init(&slab, "thing", OBJECT_BYTES, alignments[a]);
        unsigned char *objects[2000];
        for (int i = 0; i < 2000; i++) {
            objects[i] = shoal_slab_take(&slab);
            assert_non_null(objects[i]);
            assert_int_equal((uintptr_t)objects[i] % alignments[a], 0);
            memset(objects[i], i & 0xff, OBJECT_BYTES);
        }
        assert_int_equal(shoal_slab_live(&slab), 2000);
        for (int i = 0; i < 2000; i++) {
            for (int byte = 0; byte < OBJECT_BYTES; byte++)
                assert_int_equal(objects[i][byte], i & 0xff);
            shoal_slab_give(&slab, objects[i]);
        }
        assert_int_equal(shoal_slab_deinit(&slab), 0);
    }
}

static void slab_given_back_is_used_again(void **state)
{
    (void)state;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "thing", OBJECT_BYTES, 16);
    for (int i = 0; i < 1000; i++)
        shoal_slab_give(&slab, shoal_slab_take(&slab));
    struct shoal_slab_chunk *chunks = slab.chunks;
    for (int i = 0; i < 100000; i++) {
        void *one = shoal_slab_take(&slab);
        void *two = shoal_slab_take(&slab);
        shoal_slab_give(&slab, one);
        shoal_slab_give(&slab, two);
    }
    assert_ptr_equal(slab.chunks, chunks); /* no chunk came on top */
    assert_int_equal(shoal_slab_deinit(&slab), 0);
}

static void slab_large_objects_share_a_chunk(void **state)
{
    (void)state;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "big", 10000, 64);
    void *first = shoal_slab_take(&slab);
    struct shoal_slab_chunk *chunk = slab.chunks;
    void *second = shoal_slab_take(&slab);
    assert_ptr_equal(slab.chunks, chunk);
    shoal_slab_give(&slab, first);
    shoal_slab_give(&slab, second);
    shoal_slab_deinit(&slab);
}

static int leak_some(void *arg)
{
    (void)arg;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "thing", OBJECT_BYTES, 16);
    for (int i = 0; i < 20; i++)
        (void)shoal_slab_take(&slab);
    return (int)shoal_slab_deinit(&slab);
}

static void slab_live_at_the_end_is_reported(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, leak_some, NULL);
    assert_int_equal(child.exit_code, 20);
    assert_non_null(strstr(child.text, "thing"));
#ifdef SHOAL_SLAB_CHECKED
    unsigned lines = 0;
    for (const char *at = child.text; (at = strstr(at, "never consumed; made at")) != NULL; at++)
        lines++;
    assert_int_equal(lines, 8); /* the rest is left out */
#endif
}

#ifdef SHOAL_SLAB_CHECKED
static int free_twice(void *arg)
{
    (void)arg;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "thing", OBJECT_BYTES, 16);
    void *object = shoal_slab_take(&slab);
    shoal_slab_give(&slab, object);
    shoal_slab_give(&slab, object);
    return 0;
}

static int touch_stale(void *arg)
{
    (void)arg;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "thing", OBJECT_BYTES, 16);
    void *object = shoal_slab_take(&slab);
    shoal_slab_check_live(&slab, object, "use");
    shoal_slab_give(&slab, object);
    for (int i = 0; i < 60; i++) /* a stale pointer does not meet its successor at once */
        if (shoal_slab_take(&slab) == object)
            return 1;
    shoal_slab_check_live(&slab, object, "use");
    return 0;
}

/* The planted bug: a write through a pointer to an object that was given back. */
static int write_stale(void *arg)
{
    (void)arg;
    struct shoal_slab slab;
    shoal_slab_init(&slab, "thing", OBJECT_BYTES, 16);
    volatile char *object = shoal_slab_take(&slab);
    shoal_slab_give(&slab, (void *)(uintptr_t)object);
    object[5] = 1;
    for (int i = 0; i < 10000; i++) /* past the quarantine */
        shoal_slab_give(&slab, shoal_slab_take(&slab));
    return 0;
}

static void slab_double_give_aborts(void **state)
{
    (void)state;
    shoal_test_aborts_with(free_twice, NULL, "free of a thing that was given back");
}

static void slab_stale_pointer_aborts(void **state)
{
    (void)state;
    shoal_test_aborts_with(touch_stale, NULL, "use of a thing that was given back");
}

static void slab_planted_use_after_free_is_caught(void **state)
{
    (void)state;
#ifdef SHOAL_ASAN
    struct shoal_test_child child;
    shoal_test_in_child(&child, write_stale, NULL);
    assert_int_not_equal(child.exit_code, 0);
    assert_non_null(strstr(child.text, "use-after-poison"));
#else
    shoal_test_aborts_with(write_stale, NULL, "was written after it was given back");
#endif
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slab_objects_are_aligned_and_apart),
        cmocka_unit_test(slab_given_back_is_used_again),
        cmocka_unit_test(slab_large_objects_share_a_chunk),
        cmocka_unit_test(slab_live_at_the_end_is_reported),
#ifdef SHOAL_SLAB_CHECKED
        cmocka_unit_test(slab_double_give_aborts),
        cmocka_unit_test(slab_stale_pointer_aborts),
        cmocka_unit_test(slab_planted_use_after_free_is_caught),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
