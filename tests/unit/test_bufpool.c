/*
 * The pool of receive buffers: growth, its bound, and the line of those who wait.
 */
#include "shoal/runtime/bufpool_impl.h"
#include "shoal/runtime/core_impl.h"

#include "unit/harness.h"

static struct shoal_slice *taken[SHOAL_BUFPOOL_MAX + 1];

static uint32_t take_all(struct shoal_bufpool *pool)
{
    uint32_t count = 0;
    while (count <= SHOAL_BUFPOOL_MAX && (taken[count] = shoal_bufpool_take(pool)) != NULL)
        count++;
    return count;
}

static int check_bound(void *arg)
{
    (void)arg;
    struct shoal_bufpool *pool = &shoal_core_self->buffers;
    uint32_t count = take_all(pool);
    SHOAL_EXPECT_INT(count, SHOAL_BUFPOOL_MAX);
    SHOAL_EXPECT_INT(pool->free_count, 0);
    for (uint32_t i = 0; i < count; i++) {
        SHOAL_EXPECT_INT(taken[i]->block->size, SHOAL_BUFFER_BYTES);
        taken[i]->data[0] = (char)i;
        taken[i]->data[SHOAL_BUFFER_BYTES - 1] = (char)i;
    }
    for (uint32_t i = 0; i < count; i++) {
        SHOAL_EXPECT(taken[i]->data[0] == (char)i &&
                     taken[i]->data[SHOAL_BUFFER_BYTES - 1] == (char)i);
        shoal_slice_free(taken[i]);
    }
    SHOAL_EXPECT_INT(pool->free_count, SHOAL_BUFPOOL_MAX);
    SHOAL_EXPECT_INT(take_all(pool), SHOAL_BUFPOOL_MAX); /* all of them are there again */
    for (uint32_t i = 0; i < count; i++)
        shoal_slice_free(taken[i]);
    return 0;
}

static void bufpool_grows_to_its_bound_and_recycles(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bound, NULL), 0);
}

struct waiter {
    struct shoal_bufpool_waiter base;
    int resumed;
    int order;
};

static int resumed_total;

static void resume(struct shoal_bufpool_waiter *base)
{
    struct waiter *waiter = SHOAL_CONTAINER_OF(base, struct waiter, base);
    waiter->resumed++;
    waiter->order = resumed_total++;
}

static int check_line(void *arg)
{
    (void)arg;
    struct shoal_bufpool *pool = &shoal_core_self->buffers;
    uint32_t count = take_all(pool);
    SHOAL_EXPECT(count > 0 && count < SHOAL_BUFPOOL_MAX); /* the memory limit came first */
    struct waiter waiters[3];
    memset(waiters, 0, sizeof(waiters));
    resumed_total = 0;
    for (int i = 0; i < 3; i++) {
        waiters[i].base.resume = resume;
        shoal_bufpool_wait(pool, &waiters[i].base);
    }
    shoal_slice_free(taken[--count]); /* one buffer is enough to go on */
    SHOAL_EXPECT_INT(waiters[0].resumed, 1);
    SHOAL_EXPECT_INT(waiters[1].resumed, 0);
    shoal_slice_free(taken[--count]);
    shoal_slice_free(taken[--count]);
    for (int i = 0; i < 3; i++) {
        SHOAL_EXPECT_INT(waiters[i].resumed, 1);
        SHOAL_EXPECT_INT(waiters[i].order, i);
    }
    while (count > 0)
        shoal_slice_free(taken[--count]);
    SHOAL_EXPECT_INT(resumed_total, 3);
    return 0;
}

static void bufpool_waiters_resume_in_order_with_the_first_buffer(void **state)
{
    (void)state;
    const char *const options[] = {"--memory", "16M", NULL};
    assert_int_equal(shoal_test_run_with(1, options, check_line, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bufpool_grows_to_its_bound_and_recycles),
        cmocka_unit_test(bufpool_waiters_resume_in_order_with_the_first_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
