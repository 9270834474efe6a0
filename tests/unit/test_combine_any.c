/*
 * shoal_when_any(), shoal_when_some(), shoal_when_settled(): who wins, and what becomes of losers.
 */
#include "unit/combine_check.h"

/* Expects one winner, and takes its value. */
static void expect_winner(struct shoal_future *any, uint64_t index, int64_t number)
{
    union shoal_value value;
    if (!SHOAL_EXPECT_INT(shoal_await(any, &value), 0))
        return;
    struct shoal_results *results = value.ptr;
    SHOAL_EXPECT_INT(results->count, 1);
    SHOAL_EXPECT_INT(results->indices[0], index);
    SHOAL_EXPECT_INT(value_take(&results->values[0]), number);
    shoal_results_free(results);
}

static void begin(struct op *ops, struct shoal_future **futures, int count, enum op_cancel cancel)
{
    for (int i = 0; i < count; i++)
        futures[i] = op_begin(&ops[i], cancel);
}

/* ---- JOIN ---- */

static int check_join(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    begin(ops, futures, 3, OP_STAYS);
    struct shoal_future *any = shoal_when_any(futures, 3, SHOAL_LOSERS_JOIN);
    settle_down();
    SHOAL_EXPECT_INT(ops[0].cancels, 0);
    op_resolve(&ops[1], 11);
    settle_down();
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    SHOAL_EXPECT_INT(ops[2].cancels, 1);
    SHOAL_EXPECT(shoal_future_is_pending(any)); /* the losers have not ended */
    op_resolve(&ops[0], 10);
    op_fail(&ops[2], -EIO, "too late to matter");
    expect_winner(any, 1, 11);
    SHOAL_EXPECT_INT(values_dropped, 1);
    /* A failure that comes first is the outcome. */
    begin(ops, futures, 3, OP_FAILS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_JOIN);
    op_fail(&ops[2], -EIO, "first");
    expect_failure(any, -EIO, "first");
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    /* Two in one turn: the one that settled first. */
    begin(ops, futures, 3, OP_FAILS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_JOIN);
    op_resolve(&ops[2], 12);
    op_resolve(&ops[0], 10);
    expect_winner(any, 2, 12);
    SHOAL_EXPECT_INT(values_dropped, 2);
    return 0;
}

static void when_any_join_cancels_the_losers_and_waits_for_them(void **state)
{
    (void)state;
    check_clean(check_join, NULL);
}

static int check_ready(void *arg)
{
    const enum shoal_losers losers = (enum shoal_losers)(uintptr_t)arg;
    struct op op;
    /* The lowest index of those that are ready. */
    struct shoal_future *futures[4] = {op_begin(&op, OP_FAILS), op_ready(1), op_ready(2), NULL};
    struct shoal_future *pending = futures[0];
    struct shoal_future *loser = futures[2];
    expect_winner(shoal_when_any(futures, 4, losers), 1, 1);
    if (losers != SHOAL_LOSERS_KEEP) {
        SHOAL_EXPECT_INT(op.cancels, 1);
        SHOAL_EXPECT_INT(values_dropped, 1);
    } else {
        SHOAL_EXPECT(futures[0] == pending && futures[1] == NULL && futures[2] == loser);
        SHOAL_EXPECT_INT(op.cancels, 0);
        expect_winner(shoal_when_any(futures, 4, losers), 2, 2);
        op_resolve(&op, 0);
        expect_winner(shoal_when_any(futures, 4, losers), 0, 0);
    }
    /* None at all, and an array of nothing. */
    futures[0] = futures[1] = futures[2] = NULL;
    expect_failure(shoal_when_any(futures, 4, losers), -EINVAL, "1 of 0 futures are wanted");
    expect_failure(shoal_when_any(futures, 0, losers), -EINVAL, "1 of 0 futures are wanted");
    return 0;
}

static void when_any_ready_inputs_win_by_index(void **state)
{
    (void)state;
    check_clean(check_ready, (void *)SHOAL_LOSERS_JOIN);
    check_clean(check_ready, (void *)SHOAL_LOSERS_LEAVE);
    check_clean(check_ready, (void *)SHOAL_LOSERS_KEEP);
}

/* ---- LEAVE ---- */

static int check_leave(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    begin(ops, futures, 3, OP_STAYS);
    struct shoal_future *any = shoal_when_any(futures, 3, SHOAL_LOSERS_LEAVE);
    op_resolve(&ops[1], 11);
    expect_winner(any, 1, 11); /* the results are freed before the losers end */
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    op_resolve(&ops[0], 10);
    op_fail(&ops[2], -EIO, "late");
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);
    /* And after. */
    begin(ops, futures, 3, OP_FAILS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_LEAVE);
    op_resolve(&ops[1], 11);
    settle_down();
    SHOAL_EXPECT(!shoal_future_is_pending(any));
    expect_winner(any, 1, 11);
    /* A failure, with others left behind. */
    begin(ops, futures, 3, OP_STAYS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_LEAVE);
    op_fail(&ops[0], -EIO, "first");
    expect_failure(any, -EIO, "first");
    op_resolve(&ops[1], 1);
    op_resolve(&ops[2], 2);
    return 0;
}

static void when_any_leave_settles_before_the_losers_end(void **state)
{
    (void)state;
    check_clean(check_leave, NULL);
}

/* ---- KEEP ---- */

static int check_keep(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    union shoal_value value;
    begin(ops, futures, 3, OP_FAILS);
    struct shoal_future *first = futures[0];
    struct shoal_future *any = shoal_when_any(futures, 3, SHOAL_LOSERS_KEEP);
    op_resolve(&ops[1], 11);
    expect_winner(any, 1, 11);
    SHOAL_EXPECT(futures[0] == first && futures[1] == NULL && futures[2] != NULL);
    SHOAL_EXPECT_INT(ops[0].cancels + ops[2].cancels, 0);
    op_resolve(&ops[0], 10); /* awaited by itself */
    SHOAL_EXPECT_INT(shoal_await(futures[0], &value), 0);
    SHOAL_EXPECT_INT(value_take(&value), 10);
    /* Again, for the rest; a failure is consumed too. */
    futures[0] = NULL;
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_KEEP);
    op_fail(&ops[2], -EIO, "why");
    expect_failure(any, -EIO, "why");
    SHOAL_EXPECT(futures[2] == NULL);
    /* Those that settle in the same turn lose, and stay usable. */
    begin(ops, futures, 3, OP_FAILS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_KEEP);
    for (int i = 3; i-- > 0;)
        op_resolve(&ops[i], i);
    expect_winner(any, 2, 2);
    for (int i = 0; i < 2; i++) {
        SHOAL_EXPECT_INT(shoal_await(futures[i], &value), 0);
        SHOAL_EXPECT_INT(value_take(&value), i);
    }
    return 0;
}

static void when_any_keep_leaves_the_losers_usable(void **state)
{
    (void)state;
    check_clean(check_keep, NULL);
}

static int check_keep_cancel(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    union shoal_value value;
    begin(ops, futures, 3, OP_FAILS);
    struct shoal_future *any = shoal_when_any(futures, 3, SHOAL_LOSERS_KEEP);
    shoal_future_cancel(any);
    expect_failure(any, -ECANCELED, "");
    for (int i = 0; i < 3; i++) {
        SHOAL_EXPECT_INT(ops[i].cancels, 0);
        op_resolve(&ops[i], i);
        SHOAL_EXPECT_INT(shoal_await(futures[i], &value), 0);
        SHOAL_EXPECT_INT(value_take(&value), i);
    }
    /* One had settled: that result is delivered. */
    begin(ops, futures, 3, OP_FAILS);
    any = shoal_when_any(futures, 3, SHOAL_LOSERS_KEEP);
    op_resolve(&ops[2], 2);
    shoal_future_cancel(any);
    SHOAL_EXPECT(shoal_future_is_pending(any));
    op_resolve(&ops[0], 0); /* given back already: does not win */
    expect_winner(any, 2, 2);
    op_resolve(&ops[1], 1);
    for (int i = 0; i < 2; i++) {
        SHOAL_EXPECT_INT(shoal_await(futures[i], &value), 0);
        SHOAL_EXPECT_INT(value_take(&value), i);
    }
    return 0;
}

static void when_any_keep_cancel_gives_all_back(void **state)
{
    (void)state;
    check_clean(check_keep_cancel, NULL);
}

/* ---- Cancel and discard ---- */

static int check_cancel(void *arg)
{
    const enum shoal_losers losers = (enum shoal_losers)(uintptr_t)arg;
    struct op ops[2];
    struct shoal_future *futures[2];
    begin(ops, futures, 2, OP_FAILS);
    struct shoal_future *any = shoal_when_any(futures, 2, losers);
    shoal_future_cancel(any);
    expect_failure(any, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    SHOAL_EXPECT(ops[1].cancels >= 1);
    /* One that succeeds all the same wins. */
    futures[0] = op_begin(&ops[0], OP_SUCCEEDS);
    futures[1] = op_begin(&ops[1], OP_FAILS);
    any = shoal_when_any(futures, 2, losers);
    shoal_future_cancel(any);
    expect_winner(any, 0, -1);
    /* Nobody wants it. */
    begin(ops, futures, 2, OP_STAYS);
    any = shoal_when_any(futures, 2, losers);
    shoal_discard(any);
    op_resolve(&ops[0], 1);
    op_resolve(&ops[1], 1);
    settle_down();
    SHOAL_EXPECT_INT(values_live, 0);
    begin(ops, futures, 2, OP_STAYS);
    any = shoal_when_any(futures, 2, losers);
    op_resolve(&ops[0], 1);
    settle_down();
    shoal_discard(any);
    op_resolve(&ops[1], 1);
    return 0;
}

static void when_any_cancelled_or_discarded_leaks_nothing(void **state)
{
    (void)state;
    check_clean(check_cancel, (void *)SHOAL_LOSERS_JOIN);
    check_clean(check_cancel, (void *)SHOAL_LOSERS_LEAVE);
}

/* ---- await_any ---- */

static int check_await_any(void *arg)
{
    (void)arg;
    struct op ops[2];
    struct shoal_winner winner;
    struct shoal_future *futures[3] = {op_begin(&ops[0], OP_FAILS), op_ready(5), NULL};
    SHOAL_EXPECT_INT(shoal_await_any(futures, 3, SHOAL_LOSERS_JOIN, &winner), 0);
    SHOAL_EXPECT_INT(winner.index, 1);
    SHOAL_EXPECT_INT(value_take(&winner.value), 5);
    SHOAL_EXPECT_INT(ops[0].cancels, 1);
    futures[0] = op_begin(&ops[0], OP_FAILS);
    futures[1] = op_failed(-EIO, "why");
    SHOAL_EXPECT_INT(shoal_await_any(futures, 3, SHOAL_LOSERS_KEEP, &winner), -EIO);
    SHOAL_EXPECT_INT(winner.index, 1); /* also of a failure */
    SHOAL_EXPECT(strcmp(shoal_error_message(), "why") == 0);
    SHOAL_EXPECT(futures[0] != NULL && futures[1] == NULL);
    op_resolve(&ops[0], 9);
    SHOAL_EXPECT_INT(shoal_await_any(futures, 3, SHOAL_LOSERS_KEEP, &winner), 0);
    SHOAL_EXPECT_INT(winner.index, 0);
    SHOAL_EXPECT_INT(value_take(&winner.value), 9);
    SHOAL_EXPECT_INT(shoal_await_any(futures, 3, SHOAL_LOSERS_KEEP, &winner), -EINVAL);
    SHOAL_EXPECT_INT(winner.index, 3);
    return 0;
}

static void await_any_gives_index_and_value(void **state)
{
    (void)state;
    check_clean(check_await_any, NULL);
}

/* ---- when_some ---- */

static int check_some(void *arg)
{
    (void)arg;
    struct op ops[5];
    struct shoal_future *futures[5];
    union shoal_value value;
    begin(ops, futures, 5, OP_FAILS);
    struct shoal_future *some = shoal_when_some(futures, 5, 2, SHOAL_LOSERS_JOIN);
    op_fail(&ops[0], -EIO, "one can be spared");
    op_resolve(&ops[4], 4);
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(some));
    op_resolve(&ops[2], 2);
    SHOAL_EXPECT_INT(shoal_await(some, &value), 0);
    struct shoal_results *results = value.ptr;
    SHOAL_EXPECT_INT(results->count, 2);
    SHOAL_EXPECT_INT(results->indices[0], 4); /* in the order of their success */
    SHOAL_EXPECT_INT(results->indices[1], 2);
    SHOAL_EXPECT_INT(value_take(&results->values[0]), 4);
    SHOAL_EXPECT_INT(value_take(&results->values[1]), 2);
    shoal_results_free(results);
    SHOAL_EXPECT_INT(ops[1].cancels + ops[3].cancels, 2);
    /* Too few are left: the first failure, and what had come is dropped. */
    begin(ops, futures, 4, OP_FAILS);
    some = shoal_when_some(futures, 4, 3, SHOAL_LOSERS_JOIN);
    op_resolve(&ops[0], 0);
    op_fail(&ops[1], -EIO, "first");
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(some));
    op_fail(&ops[3], -EPERM, "second");
    expect_failure(some, -EIO, "first");
    SHOAL_EXPECT_INT(values_dropped, 1);
    SHOAL_EXPECT_INT(ops[2].cancels, 1);
    return 0;
}

static void when_some_first_successes_win_and_spare_failures(void **state)
{
    (void)state;
    check_clean(check_some, NULL);
}

static int check_some_limits(void *arg)
{
    (void)arg;
    struct op ops[2];
    struct shoal_future *futures[3];
    begin(ops, futures, 2, OP_FAILS);
    futures[2] = op_ready(2);
    expect_failure(shoal_when_some(futures, 3, 4, SHOAL_LOSERS_JOIN), -EINVAL,
                   "4 of 3 futures are wanted");
    SHOAL_EXPECT_INT(ops[0].cancels + ops[1].cancels, 2);
    SHOAL_EXPECT_INT(values_dropped, 1);
    begin(ops, futures, 2, OP_FAILS);
    futures[2] = op_ready(2);
    expect_results(shoal_when_some(futures, 3, 0, SHOAL_LOSERS_JOIN), NULL, 0);
    SHOAL_EXPECT_INT(ops[0].cancels + ops[1].cancels, 2);
    expect_results(shoal_when_some(NULL, 0, 0, SHOAL_LOSERS_JOIN), NULL, 0);
    /* Kept: also where it cannot be. */
    begin(ops, futures, 2, OP_FAILS);
    futures[2] = op_ready(2);
    expect_failure(shoal_when_some(futures, 3, 4, SHOAL_LOSERS_KEEP), -EINVAL,
                   "4 of 3 futures are wanted");
    expect_results(shoal_when_some(futures, 3, 0, SHOAL_LOSERS_KEEP), NULL, 0);
    static const int64_t numbers[] = {2, 1, 0}; /* the ready one, then as they come */
    struct shoal_future *some = shoal_when_some(futures, 3, 3, SHOAL_LOSERS_KEEP);
    op_resolve(&ops[1], 1);
    op_resolve(&ops[0], 0);
    expect_results(some, numbers, 3);
    SHOAL_EXPECT(futures[0] == NULL && futures[1] == NULL && futures[2] == NULL);
    return 0;
}

static void when_some_none_or_too_many_are_answered_at_once(void **state)
{
    (void)state;
    check_clean(check_some_limits, NULL);
}

static int check_some_keep_cancel(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[3];
    begin(ops, futures, 3, OP_FAILS);
    struct shoal_future *some = shoal_when_some(futures, 3, 2, SHOAL_LOSERS_KEEP);
    op_resolve(&ops[0], 0);
    settle_down();
    shoal_future_cancel(some);
    expect_failure(some, -ECANCELED, "");
    SHOAL_EXPECT_INT(values_dropped, 1); /* the winner so far */
    SHOAL_EXPECT(futures[0] == NULL && futures[1] != NULL);
    shoal_discard(futures[1]);
    shoal_discard(futures[2]);
    op_resolve(&ops[1], 1);
    op_resolve(&ops[2], 2);
    return 0;
}

static void when_some_keep_cancel_drops_the_winners_so_far(void **state)
{
    (void)state;
    check_clean(check_some_keep_cancel, NULL);
}

/* ---- when_settled ---- */

static int check_settled(void *arg)
{
    (void)arg;
    struct op ops[3];
    struct shoal_future *futures[5];
    union shoal_value value;
    begin(ops, futures, 3, OP_FAILS);
    futures[3] = op_ready(3);
    futures[4] = NULL;
    struct shoal_future *settled = shoal_when_settled(futures, 5);
    op_resolve(&ops[0], 0);
    op_fail(&ops[1], -EIO, "kept");
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(settled));
    op_resolve(&ops[2], 2);
    SHOAL_EXPECT_INT(shoal_await(settled, NULL), 0);
    expect_failure(futures[1], -EIO, "kept");
    for (int i = 0; i < 4; i++) {
        if (i == 1)
            continue;
        SHOAL_EXPECT(!shoal_future_is_pending(futures[i]));
        SHOAL_EXPECT_INT(shoal_await(futures[i], &value), 0);
        SHOAL_EXPECT_INT(value_take(&value), i);
    }
    SHOAL_EXPECT_INT(shoal_await(shoal_when_settled(NULL, 0), NULL), 0);
    /* A cancel gives them back untouched. */
    begin(ops, futures, 2, OP_FAILS);
    settled = shoal_when_settled(futures, 2);
    op_resolve(&ops[0], 0);
    shoal_future_cancel(settled); /* the first is queued to report, the second pending */
    SHOAL_EXPECT(shoal_future_is_pending(settled));
    expect_failure(settled, -ECANCELED, "");
    SHOAL_EXPECT_INT(ops[0].cancels + ops[1].cancels, 0);
    op_resolve(&ops[1], 1);
    shoal_discard(futures[0]);
    shoal_discard(futures[1]);
    /* All have settled: the cancel comes too late. */
    begin(ops, futures, 2, OP_FAILS);
    settled = shoal_when_settled(futures, 2);
    op_resolve(&ops[0], 0);
    op_resolve(&ops[1], 1);
    shoal_future_cancel(settled);
    SHOAL_EXPECT_INT(shoal_await(settled, NULL), 0);
    shoal_discard(futures[0]);
    shoal_discard(futures[1]);
    /* Only pending ones: it ends at once. */
    begin(ops, futures, 2, OP_FAILS);
    settled = shoal_when_settled(futures, 2);
    shoal_future_cancel(settled);
    SHOAL_EXPECT(!shoal_future_is_pending(settled));
    expect_failure(settled, -ECANCELED, "");
    for (int i = 0; i < 2; i++) {
        shoal_discard(futures[i]);
        op_resolve(&ops[i], i);
    }
    return 0;
}

static void when_settled_consumes_none(void **state)
{
    (void)state;
    check_clean(check_settled, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(when_any_join_cancels_the_losers_and_waits_for_them),
        cmocka_unit_test(when_any_ready_inputs_win_by_index),
        cmocka_unit_test(when_any_leave_settles_before_the_losers_end),
        cmocka_unit_test(when_any_keep_leaves_the_losers_usable),
        cmocka_unit_test(when_any_keep_cancel_gives_all_back),
        cmocka_unit_test(when_any_cancelled_or_discarded_leaks_nothing),
        cmocka_unit_test(await_any_gives_index_and_value),
        cmocka_unit_test(when_some_first_successes_win_and_spare_failures),
        cmocka_unit_test(when_some_none_or_too_many_are_answered_at_once),
        cmocka_unit_test(when_some_keep_cancel_drops_the_winners_so_far),
        cmocka_unit_test(when_settled_consumes_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
