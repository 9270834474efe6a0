/*
 * shoal_repeat(), shoal_do_until(), shoal_reduce(), shoal_pipeline(), shoal_async().
 */
#include "shoal/runtime/task.h"

#include "unit/combine_check.h"

static uintptr_t stack_low, stack_high;

static void note_stack(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    stack_low = stack_low == 0 || here < stack_low ? here : stack_low;
    stack_high = here > stack_high ? here : stack_high;
}

/* ---- repeat and do_until ---- */

struct steps {
    struct op op;
    int made;
    int stop_at;
    int fail_at;
    bool wait; /* each step is pending, and the test settles it */
};

static struct shoal_future *step(void *arg)
{
    struct steps *steps = arg;
    note_stack();
    steps->made++;
    if (steps->wait)
        return op_begin(&steps->op, OP_FAILS);
    if (steps->made == steps->fail_at)
        return op_failed(-EIO, "step");
    return op_ready(steps->made == steps->stop_at ? 1000 + steps->made : 0);
}

static bool done(void *arg)
{
    const struct steps *steps = arg;
    return steps->made == steps->stop_at;
}

static void expect_number(struct shoal_future *future, int64_t number)
{
    union shoal_value value;
    if (SHOAL_EXPECT_INT(shoal_await(future, &value), 0))
        SHOAL_EXPECT_INT(value_take(&value), number);
}

static int check_repeat(void *arg)
{
    (void)arg;
    struct steps steps = {.stop_at = 5};
    struct shoal_future *repeat = shoal_repeat(step, &steps);
    SHOAL_EXPECT_INT(steps.made, 0); /* never inside the call */
    expect_number(repeat, 1005);
    SHOAL_EXPECT_INT(steps.made, 5);
    SHOAL_EXPECT_INT(values_dropped, 4);
    steps = (struct steps){.stop_at = 100, .fail_at = 40};
    expect_failure(shoal_repeat(step, &steps), -EIO, "step");
    SHOAL_EXPECT_INT(steps.made, 40);
    steps = (struct steps){.stop_at = 1};
    shoal_discard(shoal_repeat(step, &steps));
    settle_down();
    SHOAL_EXPECT_INT(values_live, 0);
    steps = (struct steps){.wait = true};
    repeat = shoal_repeat(step, &steps);
    for (int i = 1; i <= 3; i++) {
        settle_down();
        SHOAL_EXPECT_INT(steps.made, i);
        op_resolve(&steps.op, i == 3);
    }
    expect_number(repeat, 1);
    return 0;
}

static void repeat_goes_on_until_a_value_is_not_zero(void **state)
{
    (void)state;
    check_clean(check_repeat, NULL);
}

static int check_do_until(void *arg)
{
    (void)arg;
    struct steps steps = {.stop_at = 5};
    union shoal_value value = {.i64 = 9};
    SHOAL_EXPECT_INT(shoal_await(shoal_do_until(done, step, &steps), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 0);
    SHOAL_EXPECT_INT(steps.made, 5);
    SHOAL_EXPECT_INT(values_dropped, 5); /* all, also one that is not 0 */
    steps = (struct steps){.stop_at = 0};
    SHOAL_EXPECT_INT(shoal_await(shoal_do_until(done, step, &steps), NULL), 0);
    SHOAL_EXPECT_INT(steps.made, 0);
    steps = (struct steps){.stop_at = 100, .fail_at = 40};
    expect_failure(shoal_do_until(done, step, &steps), -EIO, "step");
    SHOAL_EXPECT_INT(steps.made, 40);
    return 0;
}

static void do_until_asks_before_each_step(void **state)
{
    (void)state;
    check_clean(check_do_until, NULL);
}

static int check_loop_cancel(void *arg)
{
    (void)arg;
    struct steps steps = {.wait = true};
    struct shoal_future *repeat = shoal_repeat(step, &steps);
    shoal_future_cancel(repeat); /* before the first step */
    expect_failure(repeat, -ECANCELED, "");
    SHOAL_EXPECT_INT(steps.made, 0);
    repeat = shoal_repeat(step, &steps);
    settle_down();
    shoal_future_cancel(repeat);
    expect_failure(repeat, -ECANCELED, "was asked to end");
    SHOAL_EXPECT_INT(steps.made, 1);
    /* The step succeeds, and wants to go on. */
    steps = (struct steps){.wait = true};
    repeat = shoal_repeat(step, &steps);
    settle_down();
    steps.op.cancel = OP_SUCCEEDS;
    steps.op.number = 0;
    shoal_future_cancel(repeat);
    expect_failure(repeat, -ECANCELED, "");
    SHOAL_EXPECT_INT(steps.made, 1);
    /* It was the last one. */
    repeat = shoal_repeat(step, &steps);
    settle_down();
    steps.op.cancel = OP_SUCCEEDS;
    steps.op.number = 4;
    shoal_future_cancel(repeat);
    expect_number(repeat, 4);
    /* Endless, of steps that are ready: a cancel comes in between. */
    steps = (struct steps){.stop_at = -1};
    repeat = shoal_repeat(step, &steps);
    settle_down();
    shoal_future_cancel(repeat);
    expect_failure(repeat, -ECANCELED, "");
    SHOAL_EXPECT(steps.made > 0);
    return 0;
}

static void loop_cancel_reaches_the_step_and_begins_no_more(void **state)
{
    (void)state;
    check_clean(check_loop_cancel, NULL);
}

#define MANY (1000000 / SHOAL_TEST_SLOWDOWN)

static long others;
static bool others_stop;

static void run_other(struct shoal_task *task)
{
    others++;
    if (!others_stop)
        shoal_task_post(task);
}

struct pending_steps {
    struct shoal_task task;
    struct shoal_future *future;
    int made;
};

static void resolve_step(struct shoal_task *task)
{
    struct pending_steps *steps = SHOAL_CONTAINER_OF(task, struct pending_steps, task);
    const union shoal_value value = {.i64 = steps->made == MANY};
    shoal_future_resolve(steps->future, &value);
}

static struct shoal_future *pending_step(void *arg)
{
    struct pending_steps *steps = arg;
    note_stack();
    steps->made++;
    steps->future = shoal_future_new();
    steps->task.run = resolve_step;
    shoal_task_post(&steps->task);
    return steps->future;
}

static int check_million(void *arg)
{
    (void)arg;
    struct shoal_task task = {.run = run_other};
    stack_low = stack_high = 0;
    others = 0;
    others_stop = false;
    shoal_task_post(&task);
    struct steps steps = {.stop_at = MANY};
    expect_number(shoal_repeat(step, &steps), 1000 + MANY);
    SHOAL_EXPECT(others > MANY / 32);
    SHOAL_EXPECT(stack_high - stack_low < 1024);
    stack_low = stack_high = 0;
    struct pending_steps pending = {.made = 0};
    SHOAL_EXPECT_INT(shoal_await(shoal_repeat(pending_step, &pending), NULL), 0);
    SHOAL_EXPECT_INT(pending.made, MANY);
    SHOAL_EXPECT(stack_high - stack_low < 1024);
    others_stop = true;
    settle_down();
    return 0;
}

static void loop_of_a_million_steps_uses_constant_stack_and_gives_way(void **state)
{
    (void)state;
    check_clean(check_million, NULL);
}

/* ---- reduce ---- */

static struct op reduce_op;

static struct shoal_future *append_digit(void *arg, const union shoal_value *sum,
                                         const union shoal_value *item)
{
    const char *how = arg;
    int64_t digits = value_take(sum) * 10 + item->i64; /* the sum is ours */
    note_stack();
    if (item->i64 == 3 && how != NULL && how[0] == 'f')
        return op_failed(-EIO, "three");
    if (item->i64 == 3 && how != NULL && how[0] == 'w')
        return op_begin(&reduce_op, OP_FAILS);
    return op_ready(digits);
}

static int check_reduce(void *arg)
{
    (void)arg;
    union shoal_value items[] = {{.i64 = 1}, {.i64 = 2}, {.i64 = 3}, {.i64 = 4}};
    struct shoal_reduction work = {.items = items,
                                   .count = 4,
                                   .fn = append_digit,
                                   .initial.slice = {(void *)9, 0, 0x5a},
                                   .drop = value_drop};
    values_live++;
    struct shoal_future *sum = shoal_reduce(&work);
    SHOAL_EXPECT_INT(values_live, 1); /* never inside the call */
    memset(items, 0xff, sizeof(items));
    expect_number(sum, 91234);
    work.items = NULL;
    values_live++;
    expect_number(shoal_reduce(&work), 90123); /* indices */
    work.count = 0;
    values_live++;
    expect_number(shoal_reduce(&work), 9);
    values_live++;
    shoal_discard(shoal_reduce(&work));
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);
    work.count = 5;
    work.arg = (void *)"fail";
    values_live++;
    expect_failure(shoal_reduce(&work), -EIO, "three");
    SHOAL_EXPECT_INT(values_live, 0);
    values_live++;
    sum = shoal_reduce(&work);
    shoal_future_cancel(sum); /* the first sum is dropped */
    expect_failure(sum, -ECANCELED, "");
    SHOAL_EXPECT_INT(values_live, 0);
    work.arg = (void *)"wait";
    values_live++;
    sum = shoal_reduce(&work);
    settle_down();
    shoal_future_cancel(sum);
    SHOAL_EXPECT_INT(reduce_op.cancels, 1);
    expect_failure(sum, -ECANCELED, "was asked to end");
    values_live++;
    sum = shoal_reduce(&work);
    settle_down();
    reduce_op.cancel = OP_SUCCEEDS;
    shoal_future_cancel(sum);
    expect_failure(sum, -ECANCELED, ""); /* one was left */
    return 0;
}

static void reduce_goes_in_order_and_hands_the_sum_on(void **state)
{
    (void)state;
    check_clean(check_reduce, NULL);
}

/* ---- pipeline ---- */

static struct op stage_op;

static int stage_then(void *arg, const union shoal_value *in, union shoal_value *out)
{
    int64_t number = value_take(in) * 10 + 1;
    if (arg != NULL)
        return *(int *)arg;
    values_live++;
    *out = (union shoal_value){.slice = {(void *)(intptr_t)number, 0, 0x5a}};
    return 0;
}

static struct shoal_future *stage_future(void *arg, const union shoal_value *in)
{
    int64_t number = value_take(in) * 10 + 2;
    if (arg != NULL)
        return op_failed(*(int *)arg, "stage");
    return op_ready(number);
}

static struct shoal_future *stage_wait(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)value_take(in);
    return op_begin(&stage_op, OP_FAILS);
}

static int stage_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    int64_t number = value_take(in) * 10 + 3;
    int rc = shoal_sleep_ns(1000);
    if (arg != NULL)
        return shoal_await(op_failed(*(int *)arg, "fiber"), NULL);
    if (rc < 0)
        return rc;
    values_live++;
    *out = (union shoal_value){.slice = {(void *)(intptr_t)number, 0, 0x5a}};
    return 0;
}

static int check_pipeline(void *arg)
{
    (void)arg;
    struct shoal_stage stages[] = {{.then = stage_then, .drop = value_drop},
                                   {.then_future = stage_future},
                                   {.fiber = stage_fiber, .drop = value_drop},
                                   {.then = stage_then, .drop = value_drop}};
    struct shoal_future *line = shoal_pipeline(op_ready(9), stages, 4);
    SHOAL_EXPECT_INT(values_live, 1); /* never inside the call */
    memset(stages, 0xff, sizeof(stages));
    expect_number(line, 91231);
    struct op op;
    struct shoal_future *input = op_begin(&op, OP_FAILS);
    SHOAL_EXPECT(shoal_pipeline(input, stages, 0) == input);
    const struct shoal_stage two[] = {{.then_future = stage_future},
                                      {.then = stage_then, .drop = value_drop}};
    line = shoal_pipeline(input, two, 2);
    settle_down();
    op_resolve(&op, 8);
    expect_number(line, 821);
    shoal_discard(shoal_pipeline(op_ready(1), two, 2));
    settle_down();
    SHOAL_EXPECT_INT(values_dropped, 1);
    expect_failure(shoal_pipeline(op_failed(-EIO, "input"), two, 2), -EIO, "input");
    return 0;
}

static void pipeline_each_kind_of_stage_in_order(void **state)
{
    (void)state;
    check_clean(check_pipeline, NULL);
}

static int check_pipeline_failures(void *arg)
{
    (void)arg;
    int code = -EPERM;
    const struct shoal_stage never = {.then = shoal_test_unexpected_then};
    struct shoal_stage stages[] = {{.then = stage_then, .arg = &code}, never};
    expect_failure(shoal_pipeline(op_ready(1), stages, 2), -EPERM, "");
    stages[0] = (struct shoal_stage){.then_future = stage_future, .arg = &code};
    expect_failure(shoal_pipeline(op_ready(1), stages, 2), -EPERM, "stage");
    stages[0] = (struct shoal_stage){.fiber = stage_fiber, .arg = &code};
    expect_failure(shoal_pipeline(op_ready(1), stages, 2), -EPERM, "fiber");
    stages[0] = (struct shoal_stage){.arg = &code};
    expect_failure(shoal_pipeline(op_ready(1), stages, 2), -EINVAL,
                   "stage 0 has none, or several, of its functions");
    stages[0] = (struct shoal_stage){.then = stage_then, .fiber = stage_fiber};
    expect_failure(shoal_pipeline(op_ready(1), stages, 2), -EINVAL,
                   "stage 0 has none, or several, of its functions");
    return 0;
}

static void pipeline_failure_skips_the_rest_and_keeps_its_text(void **state)
{
    (void)state;
    check_clean(check_pipeline_failures, NULL);
}

static int check_pipeline_cancel(void *arg)
{
    (void)arg;
    struct shoal_stage stages[] = {{.then = stage_then, .drop = value_drop},
                                   {.then_future = stage_wait},
                                   {.then = shoal_test_unexpected_then}};
    struct op op;
    struct shoal_future *line = shoal_pipeline(op_ready(1), stages, 3);
    shoal_future_cancel(line);
    expect_failure(line, -ECANCELED, "");
    SHOAL_EXPECT_INT(values_dropped, 1); /* the input */
    line = shoal_pipeline(op_begin(&op, OP_FAILS), stages, 3);
    shoal_future_cancel(line);
    expect_failure(line, -ECANCELED, "was asked to end");
    line = shoal_pipeline(op_ready(1), stages, 3);
    settle_down();
    shoal_future_cancel(line);
    SHOAL_EXPECT_INT(stage_op.cancels, 1);
    expect_failure(line, -ECANCELED, "was asked to end");
    /* The stage succeeds, but one is left. */
    line = shoal_pipeline(op_ready(1), stages, 3);
    settle_down();
    stage_op.cancel = OP_SUCCEEDS;
    shoal_future_cancel(line);
    expect_failure(line, -ECANCELED, "");
    /* It was the last one. */
    line = shoal_pipeline(op_ready(1), stages, 2);
    settle_down();
    stage_op.cancel = OP_SUCCEEDS;
    shoal_future_cancel(line);
    expect_number(line, -1);
    return 0;
}

static void pipeline_cancel_reaches_the_stage_and_drops_the_value(void **state)
{
    (void)state;
    check_clean(check_pipeline_cancel, NULL);
}

/* ---- async ---- */

static int give_name(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    SHOAL_EXPECT(strcmp(shoal_fiber_name(shoal_fiber_self()), arg) == 0);
    out->ptr = NULL;
    return 0;
}

static int check_names(void *arg)
{
    (void)arg;
    char *const given = "given", *const none = "async";
    SHOAL_EXPECT_INT(shoal_await(shoal_async(give_name, none, NULL), NULL), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_async_named(give_name, given, NULL, given), NULL), 0);
    struct shoal_each work = {.count = 1, .fiber = give_name, .arg = given, .name = given};
    SHOAL_EXPECT_INT(shoal_await(shoal_for_each(&work), NULL), 0);
    struct shoal_stage stage = {.fiber = give_name, .arg = given, .name = given};
    SHOAL_EXPECT_INT(shoal_await(shoal_pipeline(shoal_future_ready(NULL), &stage, 1), NULL), 0);
    stage = (struct shoal_stage){.fiber = give_name, .arg = none};
    SHOAL_EXPECT_INT(shoal_await(shoal_pipeline(shoal_future_ready(NULL), &stage, 1), NULL), 0);
    return 0;
}

static void async_fibers_have_the_name_given(void **state)
{
    (void)state;
    check_clean(check_names, NULL);
}

static int check_async(void *arg)
{
    (void)arg;
    union shoal_value in = {.slice = {(void *)4, 0, 0x5a}};
    int code = -EPERM;
    values_live++;
    struct shoal_future *future = shoal_async(stage_fiber, NULL, &in);
    memset(&in, 0xff, sizeof(in));
    SHOAL_EXPECT_INT(values_live, 1); /* never inside the call */
    expect_number(future, 43);
    in = (union shoal_value){.slice = {(void *)4, 0, 0x5a}};
    values_live++;
    expect_failure(shoal_async(stage_fiber, &code, &in), -EPERM, "fiber");
    values_live++;
    future = shoal_async(stage_fiber, NULL, &in);
    shoal_future_cancel(future); /* before its fiber runs: it still does */
    expect_failure(future, -ECANCELED, "");
    values_live++;
    future = shoal_async(stage_fiber, NULL, &in);
    (void)shoal_yield();
    shoal_future_cancel(future); /* in its sleep */
    expect_failure(future, -ECANCELED, "");
    values_live++;
    future = shoal_async(stage_fiber, NULL, &in);
    shoal_future_on_drop(future, value_drop);
    shoal_discard(future);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000000), 0);
    SHOAL_EXPECT_INT(values_dropped, 1);
    return 0;
}

static void async_runs_on_a_fiber_and_is_cancelled_with_its_future(void **state)
{
    (void)state;
    check_clean(check_async, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeat_goes_on_until_a_value_is_not_zero),
        cmocka_unit_test(do_until_asks_before_each_step),
        cmocka_unit_test(loop_cancel_reaches_the_step_and_begins_no_more),
        cmocka_unit_test(loop_of_a_million_steps_uses_constant_stack_and_gives_way),
        cmocka_unit_test(reduce_goes_in_order_and_hands_the_sum_on),
        cmocka_unit_test(pipeline_each_kind_of_stage_in_order),
        cmocka_unit_test(pipeline_failure_skips_the_rest_and_keeps_its_text),
        cmocka_unit_test(pipeline_cancel_reaches_the_stage_and_drops_the_value),
        cmocka_unit_test(async_fibers_have_the_name_given),
        cmocka_unit_test(async_runs_on_a_fiber_and_is_cancelled_with_its_future),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
