/*
 * shoal_when_all() and its kin: order, failures, cancels, discards, and what becomes of values.
 */
#include "shoal/runtime/mem.h"
#include "shoal/runtime/slab_impl.h"

#include "unit/combine_check.h"

#define CASES 3 /* inputs of the exhaustive test */

/* ---- Values ---- */

static int check_order(void *arg)
{
    (void)arg;
    /* Each order in which three can settle. */
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    static const int64_t numbers[] = {10, 11, 12};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(orders); i++) {
        for (int rounds = 0; rounds < 2; rounds++) {
            struct op ops[3];
            struct shoal_future *futures[3];
            for (int k = 0; k < 3; k++)
                futures[k] = op_begin(&ops[k], OP_STAYS);
            struct shoal_future *all = shoal_when_all(futures, 3);
            for (int k = 0; k < 3; k++) {
                SHOAL_EXPECT(shoal_future_is_pending(all));
                op_resolve(&ops[orders[i][k]], 10 + orders[i][k]);
                if (rounds != 0)
                    settle_down();
            }
            expect_results(all, numbers, 3);
        }
    }
    return 0;
}

static void when_all_any_order_gives_input_order(void **state)
{
    (void)state;
    check_clean(check_order, NULL);
}

static int check_empty(void *arg)
{
    (void)arg;
    expect_results(shoal_when_all(NULL, 0), NULL, 0);
    expect_results(shoal_when_all_or_cancel(NULL, 0), NULL, 0);
    SHOAL_EXPECT_INT(shoal_await_all(NULL, 0, NULL), 0);
    shoal_discard(shoal_when_all(NULL, 0));
    return 0;
}

static void when_all_empty_gives_empty(void **state)
{
    (void)state;
    check_clean(check_empty, NULL);
}

static int check_many(void *arg)
{
    (void)arg;
    enum { COUNT = 1000 };
    static struct op ops[COUNT];
    static struct shoal_future *futures[COUNT];
    static union shoal_value values[COUNT];
    for (int i = 0; i < COUNT; i++)
        futures[i] = i % 3 == 0 ? op_ready(i) : op_begin(&ops[i], OP_STAYS);
    struct shoal_future *all = shoal_when_all(futures, COUNT);
    for (int i = COUNT; i-- > 0;)
        if (i % 3 != 0)
            op_resolve(&ops[i], i);
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(all, &value), 0);
    struct shoal_results *results = value.ptr;
    SHOAL_EXPECT(results->indices == NULL);
    SHOAL_EXPECT(value.slice.size == 0 && value.slice.tag == 0); /* nothing of the stack */
    for (int i = 0; i < COUNT; i++)
        SHOAL_EXPECT_INT(value_take(&results->values[i]), i);
    shoal_results_free(results);
    for (int i = 0; i < COUNT; i++)
        futures[i] = op_ready(i);
    SHOAL_EXPECT_INT(shoal_await_all(futures, COUNT, values), 0);
    for (int i = 0; i < COUNT; i++)
        SHOAL_EXPECT_INT(value_take(&values[i]), i);
    return 0;
}

static void when_all_of_a_thousand_is_exact(void **state)
{
    (void)state;
    check_clean(check_many, NULL);
}

static int check_results_drop(void *arg)
{
    (void)arg;
    union shoal_value value;
    struct shoal_future *futures[] = {op_ready(1), shoal_future_ready(NULL), op_ready(3)};
    SHOAL_EXPECT_INT(shoal_await(shoal_when_all(futures, 3), &value), 0);
    SHOAL_EXPECT_INT(values_dropped, 0);
    shoal_results_drop(value.ptr);
    SHOAL_EXPECT_INT(values_dropped, 2);
    shoal_results_drop(NULL);
    shoal_results_free(NULL);
    /* An await that does not want the value drops all of them. */
    futures[0] = op_ready(1);
    futures[1] = op_ready(2);
    SHOAL_EXPECT_INT(shoal_await(shoal_when_all(futures, 2), NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, 4);
    futures[0] = op_ready(1);
    SHOAL_EXPECT_INT(shoal_await_all(futures, 1, NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, 5);
    return 0;
}

static void when_all_results_that_are_dropped_drop_each_value(void **state)
{
    (void)state;
    check_clean(check_results_drop, NULL);
}

/* ---- Failures ---- */

static int check_first_failure(void *arg)
{
    (void)arg;
    struct op ops[4];
    struct shoal_future *futures[4];
    for (int i = 0; i < 4; i++)
        futures[i] = op_begin(&ops[i], OP_FAILS);
    struct shoal_future *all = shoal_when_all(futures, 4);
    op_resolve(&ops[3], 3);
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 0);
    op_fail(&ops[2], -EIO, "the first in time");
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);        /* what had come before is not kept */
    SHOAL_EXPECT(shoal_future_is_pending(all)); /* the others settle first */
    op_fail(&ops[0], -EPERM, "the first in order");
    op_resolve(&ops[1], 1);
    expect_failure(all, -EIO, "the first in time");
    SHOAL_EXPECT_INT(values_dropped, 2);
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(ops[i].cancels, 0);
    return 0;
}

static void when_all_first_failure_in_time_is_reported_when_all_have_settled(void **state)
{
    (void)state;
    check_clean(check_first_failure, NULL);
}

static int check_or_cancel(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[4];
    futures[0] = op_begin(&ops[0], OP_FAILS);
    futures[1] = op_begin(&ops[1], OP_STAYS);
    futures[2] = op_begin(&ops[2], OP_SUCCEEDS);
    struct shoal_future *all = shoal_when_all_or_cancel(futures, 3);
    settle_down();
    SHOAL_EXPECT_INT(ops[1].cancels, 0);
    op_fail(&ops[0], -EIO, "why");
    settle_down();
    SHOAL_EXPECT_INT(ops[1].cancels, 1);
    SHOAL_EXPECT_INT(ops[2].cancels, 1);
    SHOAL_EXPECT(shoal_future_is_pending(all)); /* the deaf one is waited for */
    op_resolve(&ops[1], 1);
    expect_failure(all, -EIO, "why");
    SHOAL_EXPECT_INT(values_dropped, 2);
    /* A failure that is there at once cancels those before and after it. */
    futures[0] = op_begin(&ops[0], OP_FAILS);
    futures[1] = op_failed(-EPIPE, "early");
    futures[2] = op_begin(&ops[1], OP_FAILS);
    futures[3] = op_ready(1);
    expect_failure(shoal_when_all_or_cancel(futures, 4), -EPIPE, "early");
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    SHOAL_EXPECT_INT(ops[1].cancels, 1);
    return 0;
}

static void when_all_or_cancel_failure_cancels_the_others_and_waits(void **state)
{
    (void)state;
    check_clean(check_or_cancel, NULL);
}

/* ---- Each combination of ready, pending and failing; awaited, cancelled, discarded ---- */

enum shape { READY, FAILED, LATER, FAILS_LATER, SHAPES };
enum fate { AWAITED, CANCELLED, DISCARDED, FATES };

static void check_one(const int *shapes, enum fate fate)
{
    struct op ops[CASES];
    struct shoal_future *futures[CASES];
    int code = 0;
    for (int i = 0; i < CASES; i++) {
        ops[i] = (struct op){.settled = true};
        if (shapes[i] == READY)
            futures[i] = op_ready(i);
        else if (shapes[i] == FAILED)
            futures[i] = op_failed(-100 - i, "now");
        else
            futures[i] = op_begin(&ops[i], OP_STAYS);
        if (shapes[i] == FAILED && code == 0)
            code = -100 - i;
    }
    for (int i = 0; i < CASES; i++)
        if (shapes[i] == FAILS_LATER && code == 0)
            code = -200 - i;
    struct shoal_future *all = shoal_when_all(futures, CASES);
    if (fate == CANCELLED)
        shoal_future_cancel(all);
    if (fate == DISCARDED)
        shoal_discard(all);
    for (int i = 0; i < CASES; i++) {
        if (shapes[i] == LATER)
            op_resolve(&ops[i], i);
        else if (shapes[i] == FAILS_LATER)
            op_fail(&ops[i], -200 - i, "then");
    }
    static const int64_t numbers[CASES] = {0, 1, 2};
    if (fate != DISCARDED && code == 0)
        expect_results(all, numbers, CASES);
    else if (fate != DISCARDED)
        expect_failure(all, code, code > -200 ? "now" : "then");
    settle_down();
    SHOAL_EXPECT_INT(values_live, 0);
}

static int check_each_combination(void *arg)
{
    (void)arg;
    int before = held();
    for (int mix = 0; mix < SHAPES * SHAPES * SHAPES; mix++) {
        const int shapes[CASES] = {mix % SHAPES, mix / SHAPES % SHAPES, mix / SHAPES / SHAPES};
        for (enum fate fate = AWAITED; fate < FATES; fate++)
            check_one(shapes, fate);
        SHOAL_EXPECT_INT(held(), before);
    }
    return 0;
}

static void when_all_each_combination_is_exact_and_leaks_nothing(void **state)
{
    (void)state;
    check_clean(check_each_combination, NULL);
}

/* ---- Cancel ---- */

static int check_cancel(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    futures[0] = op_begin(&ops[0], OP_FAILS);
    futures[1] = op_begin(&ops[1], OP_STAYS);
    futures[2] = op_ready(2);
    struct shoal_future *all = shoal_when_all(futures, 3);
    shoal_future_cancel(all);
    shoal_future_cancel(all); /* once is enough */
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    SHOAL_EXPECT_INT(ops[1].cancels, 1);
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(all));
    op_resolve(&ops[1], 1);
    expect_failure(all, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(values_dropped, 2);
    /* Complete all the same: the values are delivered. */
    static const int64_t numbers[] = {-1, -1};
    futures[0] = op_begin(&ops[0], OP_SUCCEEDS);
    futures[1] = op_begin(&ops[1], OP_SUCCEEDS);
    all = shoal_when_all(futures, 2);
    shoal_future_cancel(all);
    expect_results(all, numbers, 2);
    return 0;
}

static void when_all_cancel_reaches_each_and_waits(void **state)
{
    (void)state;
    check_clean(check_cancel, NULL);
}

static int wait_for_all(void *arg)
{
    struct op *ops = arg;
    struct shoal_future *futures[2] = {op_begin(&ops[0], OP_FAILS), op_begin(&ops[1], OP_STAYS)};
    union shoal_value values[2] = {{.i64 = 7}, {.i64 = 8}};
    int rc = shoal_await_all(futures, 2, values);
    SHOAL_EXPECT_INT(values[0].i64, 7); /* untouched */
    SHOAL_EXPECT_INT(values[1].i64, 8);
    return rc;
}

static int check_cancelled_fiber(void *arg)
{
    (void)arg;
    struct op ops[2];
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, wait_for_all, ops, "waiter"), 0);
    settle_down();
    shoal_fiber_cancel(fiber);
    settle_down();
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    SHOAL_EXPECT_INT(ops[1].cancels, 1);
    op_resolve(&ops[1], 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    return 0;
}

static void await_all_cancelled_fiber_returns_when_all_have_ended(void **state)
{
    (void)state;
    check_clean(check_cancelled_fiber, NULL);
}

/* ---- Nesting ---- */

#define DEPTH 20000

static int check_deep(void *arg)
{
    struct op op;
    struct shoal_future *future = op_begin(&op, OP_FAILS);
    for (int i = 0; i < DEPTH; i++)
        future = shoal_when_all(&future, 1);
    settle_down();
    if (arg == (void *)2) {
        op_resolve(&op, 5);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), 0); /* nor for each level of what it drops */
        SHOAL_EXPECT_INT(values_dropped, 1);
        return 0;
    }
    if (arg != NULL) {
        shoal_future_cancel(future); /* no stack for each level */
        expect_failure(future, -ECANCELED, "was asked to end");
        SHOAL_EXPECT_INT(op.cancels, 1);
        return 0;
    }
    op_resolve(&op, 5);
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(future, &value), 0);
    for (int i = 0; i < DEPTH; i++) {
        struct shoal_results *results = value.ptr;
        SHOAL_EXPECT_INT(results->count, 1);
        value = results->values[0];
        shoal_results_free(results);
    }
    SHOAL_EXPECT_INT(value_take(&value), 5);
    return 0;
}

static void when_all_nested_deeply_uses_constant_stack(void **state)
{
    (void)state;
    check_clean(check_deep, NULL);
    check_clean(check_deep, (void *)1);
    check_clean(check_deep, (void *)2);
}

#ifndef SHOAL_SLAB_CHECKED
static int check_allocations(void *arg)
{
    (void)arg;
    struct shoal_mem_stats before, after;
    for (int round = 0; round < 100; round++) {
        struct op ops[16];
        struct shoal_future *futures[16];
        union shoal_value values[16];
        if (round == 1)
            shoal_mem_stats(&before);
        for (int i = 0; i < 16; i++)
            futures[i] = op_begin(&ops[i], OP_STAYS);
        struct shoal_future *all = shoal_when_all(futures, 16);
        for (int i = 0; i < 16; i++)
            op_resolve(&ops[i], i);
        SHOAL_EXPECT_INT(shoal_await_all(&all, 1, values), 0);
        shoal_results_drop(values[0].ptr);
    }
    shoal_mem_stats(&after);
    SHOAL_EXPECT_INT(after.allocs, before.allocs);
    return 0;
}

static void when_all_of_sixteen_allocates_nothing_in_steady_state(void **state)
{
    (void)state;
    check_clean(check_allocations, NULL);
}
#endif

static int give_null(void *arg)
{
    struct shoal_future *futures[2] = {shoal_future_ready(NULL), NULL};
    (void)arg;
    shoal_discard(shoal_when_all(futures, 2));
    return 0;
}

static int give_twice(void *arg)
{
    struct shoal_future *future = shoal_future_new();
    struct shoal_future *futures[2] = {future, future};
    (void)arg;
    shoal_discard(shoal_when_all(futures, 2));
    return 0;
}

static void when_all_misuse_aborts_with_a_message(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, give_null, "was given NULL in place of a future");
    shoal_test_fiber_aborts_with(1, give_twice, "is consumed twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(when_all_any_order_gives_input_order),
        cmocka_unit_test(when_all_empty_gives_empty),
        cmocka_unit_test(when_all_of_a_thousand_is_exact),
        cmocka_unit_test(when_all_results_that_are_dropped_drop_each_value),
        cmocka_unit_test(when_all_first_failure_in_time_is_reported_when_all_have_settled),
        cmocka_unit_test(when_all_or_cancel_failure_cancels_the_others_and_waits),
        cmocka_unit_test(when_all_each_combination_is_exact_and_leaks_nothing),
        cmocka_unit_test(when_all_cancel_reaches_each_and_waits),
        cmocka_unit_test(await_all_cancelled_fiber_returns_when_all_have_ended),
        cmocka_unit_test(when_all_nested_deeply_uses_constant_stack),
#ifndef SHOAL_SLAB_CHECKED
        cmocka_unit_test(when_all_of_sixteen_allocates_nothing_in_steady_state),
#endif
        cmocka_unit_test(when_all_misuse_aborts_with_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
