/*
 * shoal_for_each(), shoal_map(), shoal_filter(): order, limits, failures, cancels.
 */
#include "shoal/runtime/task.h"

#include "unit/combine_check.h"

#define ITEMS 10

/* Work on each item is an operation here, which the test settles. */
static struct op ops[ITEMS];
static int begun;
static int under_way_max;
static bool fails_at_once[ITEMS];
static bool ready_at_once[ITEMS];

static int under_way(void)
{
    int count = 0;
    for (int i = 0; i < begun; i++)
        count += !ops[i].settled;
    return count;
}

static struct shoal_future *begin_op(void *arg, const union shoal_value *in)
{
    const enum op_cancel cancel = (enum op_cancel)(uintptr_t)arg;
    SHOAL_EXPECT_INT(in->u64, begun); /* in order */
    int index = begun++;
    if (fails_at_once[index] || ready_at_once[index]) {
        ops[index].settled = true;
        return fails_at_once[index] ? op_failed(-EIO, "at once") : op_ready(index * 100);
    }
    struct shoal_future *future = op_begin(&ops[index], cancel);
    int now = under_way();
    under_way_max = now > under_way_max ? now : under_way_max;
    return future;
}

static struct shoal_each each_op(size_t limit, enum op_cancel cancel)
{
    begun = under_way_max = 0;
    memset(fails_at_once, 0, sizeof(fails_at_once));
    memset(ready_at_once, 0, sizeof(ready_at_once));
    return (struct shoal_each){
        .count = ITEMS, .limit = limit, .fn = begin_op, .arg = (void *)(uintptr_t)cancel};
}

/* ---- Order and limit ---- */

static int check_map(void *arg)
{
    size_t limit = (size_t)arg;
    int most = limit == 0 || limit > ITEMS ? ITEMS : (int)limit;
    uint64_t random = 7 + limit;
    static const int64_t numbers[] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900};
    struct shoal_each work = each_op(limit, OP_FAILS);
    ready_at_once[3] = ready_at_once[4] = true;
    struct shoal_future *map = shoal_map(&work);
    SHOAL_EXPECT_INT(begun, 0); /* never inside the call */
    settle_down();
    SHOAL_EXPECT_INT(begun < ITEMS, limit != 0 && limit < ITEMS - 2);
    while (begun < ITEMS || under_way() > 0) {
        int index = (int)(shoal_test_random(&random) % (unsigned)begun);
        if (!ops[index].settled)
            op_resolve(&ops[index], index * 100);
        settle_down();
        SHOAL_EXPECT(under_way() == most || begun == ITEMS); /* room is used */
    }
    SHOAL_EXPECT(under_way_max <= most);
    expect_results(map, numbers, ITEMS);
    return 0;
}

static void map_any_order_gives_item_order_and_keeps_the_limit(void **state)
{
    (void)state;
    static const size_t limits[] = {0, 1, 2, 3, ITEMS - 1, ITEMS, ITEMS + 1, SIZE_MAX};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(limits); i++)
        check_clean(check_map, (void *)limits[i]);
}

static struct shoal_future *twice(void *arg, const union shoal_value *in)
{
    SHOAL_EXPECT_INT((intptr_t)arg, 77);
    return op_ready(2 * in->i64);
}

static int check_items(void *arg)
{
    (void)arg;
    union shoal_value items[3] = {{.i64 = 5}, {.i64 = -6}, {.i64 = 7}};
    static const int64_t numbers[] = {10, -12, 14};
    struct shoal_each work = {.items = items, .count = 3, .fn = twice, .arg = (void *)77};
    struct shoal_future *map = shoal_map(&work);
    memset(items, 0xff, sizeof(items)); /* they were copied */
    memset(&work, 0xff, sizeof(work));
    expect_results(map, numbers, 3);
    work = (struct shoal_each){.count = 0, .fn = twice};
    expect_results(shoal_map(&work), NULL, 0);
    expect_results(shoal_filter(&work), NULL, 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_for_each(&work), NULL), 0);
    return 0;
}

static void map_items_are_copied_and_none_give_none(void **state)
{
    (void)state;
    check_clean(check_items, NULL);
}

static int check_faulty(void *arg)
{
    (void)arg;
    struct shoal_each work = {.count = 3};
    expect_failure(shoal_map(&work), -EINVAL, "one of fn and fiber is to be set");
    work.fn = twice;
    work.fiber = (shoal_async_fn *)shoal_test_unexpected_then;
    expect_failure(shoal_for_each(&work), -EINVAL, "one of fn and fiber is to be set");
    work.fiber = NULL;
    work.count = SIZE_MAX / 8; /* no such memory */
    work.items = NULL;
    work.limit = 1;
    SHOAL_EXPECT_INT(shoal_await(shoal_map(&work), NULL), -ENOMEM);
    work.count = SIZE_MAX / 8 + 2; /* in bytes that is few, if they wrap around */
    SHOAL_EXPECT_INT(shoal_await(shoal_map(&work), NULL), -ENOMEM);
    return 0;
}

static void each_without_a_function_or_memory_fails(void **state)
{
    (void)state;
    check_clean(check_faulty, NULL);
}

/* ---- Failures ---- */

static int check_failure(void *arg)
{
    bool cancels = arg != NULL;
    struct shoal_each work = each_op(3, OP_FAILS);
    work.cancel_on_failure = cancels;
    struct shoal_future *map = shoal_map(&work);
    settle_down();
    op_resolve(&ops[1], 1);
    settle_down();
    SHOAL_EXPECT_INT(begun, 4);
    op_fail(&ops[2], -EIO, "item 2");
    settle_down();
    SHOAL_EXPECT_INT(begun, 4); /* no more are begun */
    SHOAL_EXPECT_INT(values_dropped, 1);
    SHOAL_EXPECT_INT(ops[0].cancels, cancels);
    SHOAL_EXPECT_INT(ops[3].cancels, cancels);
    if (!cancels) {
        SHOAL_EXPECT(shoal_future_is_pending(map));
        op_resolve(&ops[3], 3);
        settle_down();
        SHOAL_EXPECT_INT(values_dropped, 2); /* at once */
        op_fail(&ops[0], -EPERM, "item 0");
    }
    expect_failure(map, -EIO, "item 2");
    /* At once, in the midst of others. */
    work = each_op(4, OP_FAILS);
    work.cancel_on_failure = cancels;
    fails_at_once[2] = true;
    map = shoal_map(&work);
    settle_down();
    SHOAL_EXPECT_INT(begun, 3);
    op_resolve(&ops[0], 0);
    op_resolve(&ops[1], 0);
    expect_failure(map, -EIO, "at once");
    return 0;
}

static void map_failure_begins_no_more_and_waits(void **state)
{
    (void)state;
    check_clean(check_failure, NULL);
    check_clean(check_failure, (void *)1);
}

/* ---- Cancel and discard ---- */

static int check_cancel(void *arg)
{
    (void)arg;
    struct shoal_each work = each_op(2, OP_FAILS);
    struct shoal_future *map = shoal_map(&work);
    shoal_future_cancel(map); /* before it has begun */
    expect_failure(map, -ECANCELED, "");
    SHOAL_EXPECT_INT(begun, 0);
    map = shoal_map(&work);
    settle_down();
    shoal_future_cancel(map);
    expect_failure(map, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(begun, 2);
    /* Those under way succeed, but not all was done. */
    work = each_op(2, OP_SUCCEEDS);
    map = shoal_map(&work);
    settle_down();
    shoal_future_cancel(map);
    expect_failure(map, -ECANCELED, "");
    SHOAL_EXPECT_INT(begun, 2);
    SHOAL_EXPECT_INT(values_live, 0);
    /* All was done. */
    static const int64_t numbers[] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    work = each_op(0, OP_SUCCEEDS);
    map = shoal_map(&work);
    settle_down();
    shoal_future_cancel(map);
    expect_results(map, numbers, ITEMS);
    /* Discarded: the work goes on to its end. */
    work = each_op(0, OP_STAYS);
    shoal_discard(shoal_map(&work));
    settle_down();
    SHOAL_EXPECT_INT(begun, ITEMS);
    for (int i = 0; i < ITEMS; i++)
        op_resolve(&ops[i], i);
    settle_down();
    SHOAL_EXPECT_INT(values_live, 0);
    return 0;
}

static void map_cancel_begins_no_more_and_reports_what_is_missing(void **state)
{
    (void)state;
    check_clean(check_cancel, NULL);
}

/* One item is under way while others are ready at once, and ends between two bursts of those. */
static struct shoal_future *end_first_item(void *arg, const union shoal_value *in)
{
    if (in->u64 == 0)
        return op_begin(&ops[0], OP_FAILS);
    if (in->u64 == (uint64_t)(uintptr_t)arg)
        op_resolve(&ops[0], 0);
    return op_ready((int64_t)in->u64);
}

static int check_bursts(void *arg)
{
    (void)arg;
    for (uintptr_t end_at = 10; end_at < 40; end_at++) {
        struct shoal_each work = {
            .count = 50, .limit = 3, .fn = end_first_item, .arg = (void *)end_at};
        union shoal_value value;
        SHOAL_EXPECT_INT(shoal_await(shoal_map(&work), &value), 0);
        struct shoal_results *results = value.ptr;
        for (int64_t i = 0; i < 50; i++)
            SHOAL_EXPECT_INT(value_take(&results->values[i]), i);
        shoal_results_free(results);
        /* Cancelled between two bursts. */
        struct shoal_future *map = shoal_map(&work);
        (void)shoal_yield();
        shoal_future_cancel(map);
        SHOAL_EXPECT_INT(shoal_await(map, NULL), -ECANCELED);
    }
    return 0;
}

static void map_item_that_ends_between_bursts_begins_no_second_one(void **state)
{
    (void)state;
    check_clean(check_bursts, NULL);
}

static struct shoal_future *cancelled_from_inside;

static struct shoal_future *cancel_whole(void *arg, const union shoal_value *in)
{
    (void)in;
    begun++;
    shoal_future_cancel(cancelled_from_inside);
    return op_begin(arg, OP_FAILS);
}

static int check_cancel_inside(void *arg)
{
    (void)arg;
    struct op op;
    begun = 0;
    cancelled_from_inside =
        shoal_map(&(struct shoal_each){.count = 5, .fn = cancel_whole, .arg = &op});
    expect_failure(cancelled_from_inside, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(begun, 1);
    return 0;
}

static void map_cancelled_by_its_own_function_ends(void **state)
{
    (void)state;
    check_clean(check_cancel_inside, NULL);
}

/* ---- for_each ---- */

#define MANY (1000000 / SHOAL_TEST_SLOWDOWN)

static uintptr_t stack_low, stack_high;
static long others;
static bool others_stop;

static void note_stack(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    stack_low = stack_low == 0 || here < stack_low ? here : stack_low;
    stack_high = here > stack_high ? here : stack_high;
}

static struct shoal_future *count_item(void *arg, const union shoal_value *in)
{
    note_stack();
    *(uint64_t *)arg += in->u64;
    return shoal_future_ready(NULL);
}

static void run_other(struct shoal_task *task)
{
    others++;
    if (!others_stop)
        shoal_task_post(task);
}

static int check_million(void *arg)
{
    (void)arg;
    uint64_t sum = 0;
    struct shoal_task task = {.run = run_other};
    others = 0;
    others_stop = false;
    stack_low = stack_high = 0;
    shoal_task_post(&task);
    SHOAL_EXPECT_INT(shoal_await(shoal_for_each(&(struct shoal_each){
                                     .count = MANY, .limit = 4, .fn = count_item, .arg = &sum}),
                                 NULL),
                     0);
    SHOAL_EXPECT(others > MANY / 32); /* in between, and not now and then only */
    others_stop = true;
    settle_down();
    SHOAL_EXPECT_INT(sum, (uint64_t)MANY * (MANY - 1) / 2);
    SHOAL_EXPECT(stack_high - stack_low < 1024);
    return 0;
}

static void for_each_a_million_ready_items_use_constant_stack_and_give_way(void **state)
{
    (void)state;
    check_clean(check_million, NULL);
}

static int check_values_dropped(void *arg)
{
    (void)arg;
    union shoal_value items[ITEMS] = {{.i64 = 0}};
    for (int i = 0; i < ITEMS; i++)
        items[i].i64 = i;
    struct shoal_each work = {.items = items, .count = ITEMS, .fn = twice, .arg = (void *)77};
    SHOAL_EXPECT_INT(shoal_await(shoal_for_each(&work), NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, ITEMS);
    work = each_op(1, OP_FAILS);
    fails_at_once[4] = true;
    for (int i = 0; i < 4; i++)
        ready_at_once[i] = true;
    expect_failure(shoal_for_each(&work), -EIO, "at once");
    SHOAL_EXPECT_INT(begun, 5);
    SHOAL_EXPECT_INT(values_dropped, ITEMS + 4);
    return 0;
}

static void for_each_values_are_dropped(void **state)
{
    (void)state;
    check_clean(check_values_dropped, NULL);
}

/* ---- On fibers ---- */

struct crowd {
    int now;
    int most;
    int cancelled;
};

static int work_on_item(void *arg, const union shoal_value *in, union shoal_value *out)
{
    struct crowd *crowd = arg;
    int most = ++crowd->now > crowd->most ? crowd->now : crowd->most;
    crowd->most = most;
    int rc = shoal_sleep_ns((ITEMS - in->u64) * 1000);
    crowd->now--;
    crowd->cancelled += rc == -ECANCELED;
    if (rc == 0 && in->u64 == 7 && crowd->most == 4)
        return shoal_await(op_failed(-EIO, "seven"), NULL);
    if (rc < 0)
        return rc;
    values_live++;
    *out = (union shoal_value){.slice = {(void *)(in->u64 + 1), 0, 0x5a}};
    return 0;
}

static int check_fibers(void *arg)
{
    (void)arg;
    struct crowd crowd = {0};
    static const int64_t numbers[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct shoal_each work = {
        .count = ITEMS, .limit = 3, .fiber = work_on_item, .drop = value_drop, .arg = &crowd};
    expect_results(shoal_map(&work), numbers, ITEMS);
    SHOAL_EXPECT_INT(crowd.most, 3);
    SHOAL_EXPECT_INT(shoal_await(shoal_for_each(&work), NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, ITEMS);
    crowd.most = 0;
    work.limit = 4;
    expect_failure(shoal_map(&work), -EIO, "seven");
    SHOAL_EXPECT_INT(crowd.now, 0);
    SHOAL_EXPECT_INT(values_live, 0);
    struct shoal_future *map = shoal_map(&work);
    (void)shoal_yield();
    (void)shoal_yield();
    shoal_future_cancel(map);
    SHOAL_EXPECT_INT(shoal_await(map, NULL), -ECANCELED);
    SHOAL_EXPECT_INT(crowd.now, 0);
    SHOAL_EXPECT_INT(crowd.cancelled, 4);
    return 0;
}

static void map_on_fibers_keeps_order_limit_and_text(void **state)
{
    (void)state;
    check_clean(check_fibers, NULL);
}

/* ---- filter ---- */

static struct shoal_future *is_odd(void *arg, const union shoal_value *in)
{
    (void)arg;
    if (in->i64 == 99)
        return op_failed(-EIO, "ninety-nine");
    return op_ready(in->i64 % 2);
}

static int check_filter(void *arg)
{
    (void)arg;
    union shoal_value items[] = {{.i64 = 4}, {.i64 = 7}, {.i64 = 8}, {.i64 = 9}, {.i64 = 11}};
    struct shoal_each work = {.items = items, .count = 5, .limit = 2, .fn = is_odd};
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(shoal_filter(&work), &value), 0);
    struct shoal_results *results = value.ptr;
    static const int64_t kept[] = {7, 9, 11};
    static const uint64_t indices[] = {1, 3, 4};
    SHOAL_EXPECT_INT(results->count, 3);
    for (int i = 0; i < 3; i++) {
        SHOAL_EXPECT_INT(results->values[i].i64, kept[i]);
        SHOAL_EXPECT_INT(results->indices[i], indices[i]);
    }
    shoal_results_drop(results);         /* the items are not dropped: they are the caller's */
    SHOAL_EXPECT_INT(values_dropped, 5); /* what the predicate gave is */
    work.items = NULL;
    work.count = 6;
    SHOAL_EXPECT_INT(shoal_await(shoal_filter(&work), &value), 0);
    results = value.ptr;
    SHOAL_EXPECT_INT(results->count, 3);
    SHOAL_EXPECT_INT(results->values[2].u64, 5);
    shoal_results_free(results);
    items[2].i64 = 99;
    work.items = items;
    work.count = 5;
    expect_failure(shoal_filter(&work), -EIO, "ninety-nine");
    return 0;
}

static void filter_keeps_items_in_order_with_their_indices(void **state)
{
    (void)state;
    check_clean(check_filter, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_any_order_gives_item_order_and_keeps_the_limit),
        cmocka_unit_test(map_items_are_copied_and_none_give_none),
        cmocka_unit_test(each_without_a_function_or_memory_fails),
        cmocka_unit_test(map_failure_begins_no_more_and_waits),
        cmocka_unit_test(map_cancel_begins_no_more_and_reports_what_is_missing),
        cmocka_unit_test(map_item_that_ends_between_bursts_begins_no_second_one),
        cmocka_unit_test(map_cancelled_by_its_own_function_ends),
        cmocka_unit_test(for_each_a_million_ready_items_use_constant_stack_and_give_way),
        cmocka_unit_test(for_each_values_are_dropped),
        cmocka_unit_test(map_on_fibers_keeps_order_limit_and_text),
        cmocka_unit_test(filter_keeps_items_in_order_with_their_indices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
