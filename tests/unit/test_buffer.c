/*
 * Blocks, slices and chains: lifetimes and lengths.
 */
#include "shoal/runtime/buffer.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/mem.h"

#include "unit/harness.h"

static struct shoal_slice *slice_with(const char *text)
{
    struct shoal_slice *slice = shoal_slice_new((uint32_t)strlen(text), "test");
    memcpy(slice->data, text, strlen(text));
    slice->len = (uint32_t)strlen(text);
    return slice;
}

static uint64_t used(void)
{
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    return stats.used_bytes;
}

static int check_share(void *arg)
{
    (void)arg;
    uint64_t before = used();
    struct shoal_slice *whole = slice_with("hello, world");
    struct shoal_slice *world = shoal_slice_share(whole, 7, 5);
    struct shoal_slice *nothing = shoal_slice_share(whole, 12, 0);
    struct shoal_slice *or_ = shoal_slice_share(world, 1, 2);
    SHOAL_EXPECT_INT(whole->block->refs, 4);
    SHOAL_EXPECT(memcmp(world->data, "world", 5) == 0 && world->len == 5);
    shoal_slice_free(whole); /* the block lives on */
    SHOAL_EXPECT(memcmp(world->data, "world", 5) == 0);
    shoal_slice_free(world);
    SHOAL_EXPECT(memcmp(or_->data, "or", 2) == 0);
    shoal_slice_free(nothing);
    shoal_slice_free(or_);
    shoal_slice_free(NULL);
    SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->slices), 0);
    SHOAL_EXPECT(used() <= before + 20000); /* a chunk of slices */
    return 0;
}

static void slice_share_keeps_the_block_alive(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_share, NULL), 0);
}

static void count(void *ctx)
{
    ++*(int *)ctx;
}

static int check_take_over(void *arg)
{
    (void)arg;
    static char bytes[100];
    int released = 0;
    struct shoal_slice *slice = shoal_slice_take_over(bytes, 100, count, &released, "test");
    SHOAL_EXPECT(slice->data == bytes && slice->len == 100);
    struct shoal_slice *half = shoal_slice_share(slice, 50, 50);
    shoal_slice_free(slice);
    SHOAL_EXPECT_INT(released, 0);
    shoal_slice_free(half);
    SHOAL_EXPECT_INT(released, 1);
    return 0;
}

static void slice_take_over_releases_once_after_the_last_share(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_take_over, NULL), 0);
}

static void flatten(const struct shoal_chain *chain, char *out, size_t size)
{
    size_t len = 0;
    unsigned slices = 0;
    for (const struct shoal_slice *slice = chain->head; slice != NULL; slice = slice->next) {
        SHOAL_EXPECT(len + slice->len < size);
        memcpy(out + len, slice->data, slice->len);
        len += slice->len;
        slices++;
    }
    out[len] = '\0';
    SHOAL_EXPECT_INT(len, chain->bytes);
    SHOAL_EXPECT_INT(slices, chain->slices);
}

static int check_chain(void *arg)
{
    (void)arg;
    struct shoal_chain chain;
    char text[64];
    shoal_chain_init(&chain);
    SHOAL_EXPECT(shoal_chain_take(&chain) == NULL);
    shoal_chain_push(&chain, slice_with("abc"));
    shoal_chain_push(&chain, slice_with("defg"));
    shoal_chain_push(&chain, slice_with("hi"));
    flatten(&chain, text, sizeof(text));
    SHOAL_EXPECT(strcmp(text, "abcdefghi") == 0);
    shoal_chain_consume(&chain, 0);
    shoal_chain_consume(&chain, 2);
    flatten(&chain, text, sizeof(text));
    SHOAL_EXPECT(strcmp(text, "cdefghi") == 0);
    shoal_chain_consume(&chain, 1); /* just the end of a slice */
    SHOAL_EXPECT_INT(chain.slices, 2);
    shoal_chain_consume(&chain, 5); /* over a border */
    flatten(&chain, text, sizeof(text));
    SHOAL_EXPECT(strcmp(text, "i") == 0);
    struct shoal_slice *last = shoal_chain_take(&chain);
    SHOAL_EXPECT(chain.head == NULL && chain.tail == NULL && chain.bytes == 0);
    shoal_chain_push(&chain, last);
    shoal_chain_push(&chain, slice_with("x"));
    shoal_chain_clear(&chain);
    SHOAL_EXPECT_INT(chain.slices, 0);
    SHOAL_EXPECT(chain.head == NULL && chain.tail == NULL && chain.bytes == 0);
    return 0;
}

static void chain_consume_drops_from_the_front(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_chain, NULL), 0);
}

static int consume_too_much(void *arg)
{
    (void)arg;
    struct shoal_chain chain;
    shoal_chain_init(&chain);
    shoal_chain_push(&chain, slice_with("abc"));
    shoal_chain_consume(&chain, 4);
    return 0;
}

static int share_too_much(void *arg)
{
    (void)arg;
    (void)shoal_slice_share(slice_with("abc"), 2, 2);
    return 0;
}

static int run_one_core(void *arg)
{
    int (*fn)(void *) = *(int (**)(void *))arg;
    return shoal_test_run(1, fn, NULL);
}

static void chain_consume_of_more_than_there_is_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = consume_too_much;
    shoal_test_aborts_with(run_one_core, &fn, "4 bytes consumed of a chain of 3");
}

static void slice_share_beyond_the_end_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = share_too_much;
    shoal_test_aborts_with(run_one_core, &fn, "a share of 2 bytes at 2 of a slice of 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice_share_keeps_the_block_alive),
        cmocka_unit_test(slice_take_over_releases_once_after_the_last_share),
        cmocka_unit_test(chain_consume_drops_from_the_front),
        cmocka_unit_test(chain_consume_of_more_than_there_is_aborts),
        cmocka_unit_test(slice_share_beyond_the_end_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
