/*
 * Shared futures: each numbered promise of shared_future.h.
 */
#include "shoal/runtime/shared_future.h"

#include "unit/combine_check.h"

#define CONSUMERS 5

static int copies;
static int copy_code;

static int copy_value(const union shoal_value *in, union shoal_value *out)
{
    SHOAL_EXPECT_INT(in->slice.tag, 0x5a);
    SHOAL_EXPECT_INT(out->u64, 0);
    if (copy_code < 0)
        return copy_code;
    copies++;
    values_live++;
    *out = *in;
    out->i64 += 1000;
    return 0;
}

static const struct shoal_shared_hooks copying = {.copy = copy_value, .drop = value_drop};

static void expect_number(struct shoal_future *future, int64_t number)
{
    union shoal_value value;
    if (SHOAL_EXPECT_INT(shoal_await(future, &value), 0))
        SHOAL_EXPECT_INT(value_take(&value), number);
}

/* The same without a copy of its own. */
static void expect_borrowed(struct shoal_future *future, int64_t number)
{
    union shoal_value value;
    if (SHOAL_EXPECT_INT(shoal_await(future, &value), 0)) {
        SHOAL_EXPECT_INT(value.i64, number);
        SHOAL_EXPECT_INT(value.slice.tag, 0x5a);
    }
}

static int check_bitwise(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_future *futures[CONSUMERS];
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), NULL);
    SHOAL_EXPECT(shoal_shared_future_is_pending(shared));
    for (int i = 0; i < CONSUMERS; i++)
        futures[i] = shoal_shared_future_get(shared);
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(futures[0]));
    op_resolve(&op, 5);
    for (int i = 0; i < CONSUMERS; i++)
        expect_borrowed(futures[i], 5);
    SHOAL_EXPECT(!shoal_shared_future_is_pending(shared));
    struct shoal_future *late = shoal_shared_future_get(shared);
    SHOAL_EXPECT(!shoal_future_is_pending(late)); /* at once */
    expect_borrowed(late, 5);
    shoal_discard(shoal_shared_future_get(shared)); /* a borrowed value is not dropped */
    SHOAL_EXPECT(shoal_shared_future_ref(shared) == shared);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(values_dropped, 0);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(values_dropped, 1); /* with the last reference, once */
    shoal_shared_future_unref(NULL);
    /* Made from one that is ready. */
    shared = shoal_shared_future_new(op_ready(6), NULL);
    SHOAL_EXPECT(!shoal_shared_future_is_pending(shared));
    expect_borrowed(shoal_shared_future_get(shared), 6);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(values_dropped, 2);
    return 0;
}

static void shared_future_value_goes_to_each_and_is_dropped_with_the_last_reference(void **state)
{
    (void)state;
    check_clean(check_bitwise, NULL);
}

static int check_failure(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    struct shoal_future *early = shoal_shared_future_get(shared);
    struct shoal_future *other = shoal_shared_future_get(shared);
    op_fail(&op, -EIO, "why");
    expect_failure(early, -EIO, "why");
    expect_failure(other, -EIO, "why");
    expect_failure(shoal_shared_future_get(shared), -EIO, "why");
    shoal_shared_future_unref(shared);
    shared = shoal_shared_future_new(op_failed(-EPERM, "before"), NULL);
    expect_failure(shoal_shared_future_get(shared), -EPERM, "before");
    shoal_shared_future_unref(shared);
    return 0;
}

static void shared_future_failure_keeps_code_and_text_for_each(void **state)
{
    (void)state;
    check_clean(check_failure, NULL);
}

static int check_copies(void *arg)
{
    (void)arg;
    struct op op;
    copies = copy_code = 0;
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    struct shoal_future *taken = shoal_shared_future_get(shared);
    struct shoal_future *dropped = shoal_shared_future_get(shared);
    struct shoal_future *discarded = shoal_shared_future_get(shared);
    shoal_discard(discarded);
    op_resolve(&op, 5);
    settle_down();
    SHOAL_EXPECT_INT(copies, 2); /* none for the one that was discarded */
    shoal_discard(dropped);
    SHOAL_EXPECT_INT(values_dropped, 1);
    shoal_shared_future_unref(shared); /* copies live on */
    SHOAL_EXPECT_INT(values_dropped, 2);
    expect_number(taken, 1005);
    shared = shoal_shared_future_new(op_ready(6), &copying);
    copy_code = -ENOSPC;
    expect_failure(shoal_shared_future_get(shared), -ENOSPC, "");
    copy_code = 0;
    expect_number(shoal_shared_future_get(shared), 1006);
    shoal_shared_future_unref(shared);
    return 0;
}

static void shared_future_copy_hook_gives_each_its_own(void **state)
{
    (void)state;
    check_clean(check_copies, NULL);
}

/* ---- References ---- */

static int check_no_reference(void *arg)
{
    (void)arg;
    struct op op;
    copies = copy_code = 0;
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    struct shoal_future *future = shoal_shared_future_get(shared);
    shoal_shared_future_unref(shared); /* the private one still gets it */
    SHOAL_EXPECT_INT(op.cancels, 0);
    op_resolve(&op, 5);
    expect_number(future, 1005);
    SHOAL_EXPECT_INT(values_dropped, 1);
    /* Nobody at all: it goes on, and the value is dropped. */
    shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(op.cancels, 0);
    op_resolve(&op, 5);
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 2);
    /* The same with discarded ones. */
    shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    shoal_discard(shoal_shared_future_get(shared));
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(op.cancels, 0);
    op_fail(&op, -EIO, "nobody hears");
    return 0;
}

static void shared_future_without_references_serves_those_who_wait(void **state)
{
    (void)state;
    check_clean(check_no_reference, NULL);
}

static struct shoal_shared_future *unref_in_hook;

static void drop_and_unref(union shoal_value *value)
{
    value_drop(value);
    if (unref_in_hook != NULL)
        shoal_shared_future_unref(unref_in_hook);
    unref_in_hook = NULL;
}

static int copy_and_discard(const union shoal_value *in, union shoal_value *out)
{
    /* A hook that uses the shared future while outcomes are handed out. */
    if (unref_in_hook != NULL)
        shoal_shared_future_unref(unref_in_hook);
    unref_in_hook = NULL;
    return copy_value(in, out);
}

static int check_hooks(void *arg)
{
    (void)arg;
    static const struct shoal_shared_hooks hooks = {.copy = copy_and_discard,
                                                    .drop = drop_and_unref};
    struct op op;
    copies = copy_code = 0;
    unref_in_hook = shoal_shared_future_new(op_begin(&op, OP_FAILS), &hooks);
    struct shoal_future *first = shoal_shared_future_get(unref_in_hook);
    struct shoal_future *second = shoal_shared_future_get(unref_in_hook);
    op_resolve(&op, 5);
    expect_number(first, 1005);
    expect_number(second, 1005);
    SHOAL_EXPECT_INT(values_dropped, 1);
    return 0;
}

static void shared_future_last_reference_given_back_in_a_hook(void **state)
{
    (void)state;
    check_clean(check_hooks, NULL);
}

/* ---- Cancel ---- */

static int check_cancel_one(void *arg)
{
    (void)arg;
    struct op op;
    copies = copy_code = 0;
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    struct shoal_future *a = shoal_shared_future_get(shared);
    struct shoal_future *b = shoal_shared_future_get(shared);
    shoal_future_cancel(a);
    SHOAL_EXPECT(!shoal_future_is_pending(a)); /* at once */
    expect_failure(a, -ECANCELED, "");
    SHOAL_EXPECT_INT(op.cancels, 0);
    shoal_future_cancel(b); /* all, but there is a reference */
    SHOAL_EXPECT_INT(op.cancels, 0);
    expect_failure(b, -ECANCELED, "");
    a = shoal_shared_future_get(shared);
    op_resolve(&op, 5);
    expect_number(a, 1005);
    shoal_shared_future_unref(shared);
    return 0;
}

static void shared_future_cancel_of_one_leaves_the_others(void **state)
{
    (void)state;
    check_clean(check_cancel_one, NULL);
}

static int check_cancel_last(void *arg)
{
    (void)arg;
    struct op op;
    copies = copy_code = 0;
    /* Cancelled one after the other, no reference: the last cancels the source. */
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_STAYS), &copying);
    struct shoal_future *a = shoal_shared_future_get(shared);
    struct shoal_future *b = shoal_shared_future_get(shared);
    struct shoal_future *c = shoal_shared_future_get(shared);
    shoal_discard(c);
    shoal_shared_future_unref(shared);
    shoal_future_cancel(a);
    SHOAL_EXPECT_INT(op.cancels, 0);
    shoal_future_cancel(b);
    SHOAL_EXPECT_INT(op.cancels, 1);
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(b)); /* until the source has ended */
    op_fail(&op, -ECANCELED, "was asked to end");
    expect_failure(b, -ECANCELED, "was asked to end");
    expect_failure(a, -ECANCELED, "");
    /* The source succeeds all the same: the last one has it. */
    shared = shoal_shared_future_new(op_begin(&op, OP_SUCCEEDS), &copying);
    a = shoal_shared_future_get(shared);
    shoal_shared_future_unref(shared);
    shoal_future_cancel(a);
    expect_number(a, 999);
    SHOAL_EXPECT_INT(values_dropped, 1);
    /* Cancelled first, and the reference given back later. */
    shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    a = shoal_shared_future_get(shared);
    shoal_future_cancel(a);
    SHOAL_EXPECT_INT(op.cancels, 0);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(op.cancels, 1);
    expect_failure(a, -ECANCELED, "");
    /* One is left that wants it. */
    shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    a = shoal_shared_future_get(shared);
    b = shoal_shared_future_get(shared);
    shoal_future_cancel(a);
    shoal_shared_future_unref(shared);
    SHOAL_EXPECT_INT(op.cancels, 0);
    op_resolve(&op, 7);
    expect_number(b, 1007);
    expect_failure(a, -ECANCELED, "");
    return 0;
}

static void shared_future_cancel_of_the_last_reaches_the_source(void **state)
{
    (void)state;
    check_clean(check_cancel_last, NULL);
}

static int check_cancel_source(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), &copying);
    struct shoal_future *a = shoal_shared_future_get(shared);
    shoal_shared_future_cancel(shared);
    SHOAL_EXPECT_INT(op.cancels, 1);
    expect_failure(a, -ECANCELED, "was asked to end");
    shoal_shared_future_cancel(shared); /* has ended: nothing */
    shoal_shared_future_unref(shared);
    return 0;
}

static void shared_future_cancel_of_the_whole_reaches_all(void **state)
{
    (void)state;
    check_clean(check_cancel_source, NULL);
}

static int await_shared(void *arg)
{
    union shoal_value value;
    int rc = shoal_await(shoal_shared_future_get(arg), &value);
    return rc < 0 ? rc : (int)value.i64;
}

static int check_fibers(void *arg)
{
    (void)arg;
    struct op op;
    struct shoal_fiber *fibers[CONSUMERS];
    struct shoal_shared_future *shared = shoal_shared_future_new(op_begin(&op, OP_FAILS), NULL);
    for (int i = 0; i < CONSUMERS; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], await_shared, shared, "consumer"), 0);
    settle_down();
    shoal_fiber_cancel(fibers[2]);
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[2]), -ECANCELED);
    op_resolve(&op, 5);
    for (int i = 0; i < CONSUMERS; i++)
        if (i != 2)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 5);
    shoal_shared_future_unref(shared);
    return 0;
}

static void shared_future_serves_fibers(void **state)
{
    (void)state;
    check_clean(check_fibers, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_future_value_goes_to_each_and_is_dropped_with_the_last_reference),
        cmocka_unit_test(shared_future_failure_keeps_code_and_text_for_each),
        cmocka_unit_test(shared_future_copy_hook_gives_each_its_own),
        cmocka_unit_test(shared_future_without_references_serves_those_who_wait),
        cmocka_unit_test(shared_future_last_reference_given_back_in_a_hook),
        cmocka_unit_test(shared_future_cancel_of_one_leaves_the_others),
        cmocka_unit_test(shared_future_cancel_of_the_last_reaches_the_source),
        cmocka_unit_test(shared_future_cancel_of_the_whole_reaches_all),
        cmocka_unit_test(shared_future_serves_fibers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
