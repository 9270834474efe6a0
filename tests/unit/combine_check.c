/*
 * See combine_check.h.
 */
#include "unit/combine_check.h"

#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/timer.h"

int values_live;
int values_dropped;

void value_drop(union shoal_value *value)
{
    SHOAL_EXPECT(value->slice.tag == 0x5a); /* nothing else comes here */
    value->slice.tag = 0;
    values_live--;
    values_dropped++;
}

int64_t value_take(const union shoal_value *value)
{
    SHOAL_EXPECT(value->slice.tag == 0x5a);
    values_live--;
    return value->i64;
}

static union shoal_value value_make(int64_t number)
{
    values_live++;
    return (union shoal_value){.slice = {(void *)(intptr_t)number, 0, 0x5a}};
}

static void cancel_op(void *ctx)
{
    struct op *op = ctx;
    op->cancels++;
    if (op->settled)
        return;
    if (op->cancel == OP_FAILS)
        op_fail(op, -ECANCELED, "was asked to end");
    else if (op->cancel == OP_SUCCEEDS)
        op_resolve(op, op->number);
}

struct shoal_future *op_begin(struct op *op, enum op_cancel cancel)
{
    *op = (struct op){.future = shoal_future_new(), .cancel = cancel, .number = -1};
    if (!shoal_future_is_pending(op->future)) { /* out of memory */
        op->settled = true;
        return op->future;
    }
    shoal_future_on_cancel(op->future, cancel_op, op);
    shoal_future_on_drop(op->future, value_drop);
    return op->future;
}

void op_resolve(struct op *op, int64_t number)
{
    if (op->settled)
        return;
    union shoal_value value = value_make(number);
    op->settled = true;
    shoal_future_resolve(op->future, &value);
}

void op_fail(struct op *op, int code, const char *text)
{
    if (op->settled)
        return;
    op->settled = true;
    shoal_future_fail(op->future, code, text);
}

struct shoal_future *op_ready(int64_t number)
{
    struct op op;
    struct shoal_future *future = op_begin(&op, OP_STAYS);
    op_resolve(&op, number);
    return future;
}

struct shoal_future *op_failed(int code, const char *text)
{
    return shoal_future_failed(code, "%s", text);
}

void settle_down(void)
{
    for (int i = 0; i < 50; i++)
        (void)shoal_yield();
}

int held(void)
{
    struct shoal_core *core = shoal_core_self;
    return (int)shoal_slab_live(&core->hot.futures) + (int)shoal_combine_pool_live(&core->combines);
}

void expect_failure(struct shoal_future *future, int code, const char *text)
{
    SHOAL_EXPECT_INT(shoal_await(future, NULL), code);
    if (strcmp(shoal_error_message(), text) != 0)
        fprintf(stderr, "text is \"%s\", not \"%s\"\n", shoal_error_message(), text);
    SHOAL_EXPECT(strcmp(shoal_error_message(), text) == 0);
}

void expect_results(struct shoal_future *future, const int64_t *numbers, size_t count)
{
    union shoal_value value;
    if (!SHOAL_EXPECT_INT(shoal_await(future, &value), 0))
        return;
    struct shoal_results *results = value.ptr;
    if (SHOAL_EXPECT_INT(results->count, count))
        for (size_t i = 0; i < count; i++)
            SHOAL_EXPECT_INT(value_take(&results->values[i]), numbers[i]);
    shoal_results_free(results);
}

struct clean_run {
    int (*fn)(void *arg);
    void *arg;
};

static int run_clean(void *arg)
{
    struct clean_run *run = arg;
    values_live = values_dropped = 0;
    int before = held();
    int rc = run->fn(run->arg);
    settle_down();
    SHOAL_EXPECT_INT(held(), before);
    SHOAL_EXPECT_INT(values_live, 0);
    SHOAL_EXPECT_INT(shoal_core_self->timers.armed, 0);
    return rc;
}

void check_clean(int (*fn)(void *arg), void *arg)
{
    struct clean_run run = {fn, arg};
    assert_int_equal(shoal_test_run(1, run_clean, &run), 0);
}
