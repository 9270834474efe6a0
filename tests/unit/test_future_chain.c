/*
 * Chains from within: how long ones run, what continuations may do to their own future, whose drop
 * hook holds, in which scheduling group they run, and which codes there are.
 */
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/task.h"
#include "shoal/runtime/typed.h"

#include "unit/harness.h"

/* ---- Long chains ---- */

#define LINKS (1000000 / SHOAL_TEST_SLOWDOWN)

/* Everything that is ready, and what that makes ready, has had its turn. */
static void let_run(void)
{
    for (int i = 0; i < 16; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
}

static struct long_chain {
    uintptr_t stack_low, stack_high;
    int64_t links_run;
    int64_t seen_links; /* by the task, when it last ran */
    int64_t gap_max;    /* links between two runs of the task */
    uint64_t task_runs;
    struct shoal_task task;
    bool over;
} chain;

static int next_link(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    chain.stack_low = here < chain.stack_low ? here : chain.stack_low;
    chain.stack_high = here > chain.stack_high ? here : chain.stack_high;
    chain.links_run++;
    out->i64 = in->i64 + 1;
    return 0;
}

static void take_turn(struct shoal_task *task)
{
    chain.task_runs++;
    int64_t gap = chain.links_run - chain.seen_links;
    chain.gap_max = gap > chain.gap_max ? gap : chain.gap_max;
    chain.seen_links = chain.links_run;
    if (!chain.over)
        shoal_task_post(task);
}

static int long_chain(void *arg)
{
    bool failing = arg != NULL;
    chain = (struct long_chain){.stack_low = UINTPTR_MAX, .task.run = take_turn};
    struct shoal_future *first = shoal_future_new();
    struct shoal_future *last = first;
    for (int i = 0; i < LINKS; i++) {
        last = shoal_then(last, next_link, NULL);
        if (shoal_need_preempt())
            (void)shoal_yield();
    }
    shoal_task_post(&chain.task);
    if (failing)
        shoal_future_fail(first, -EIO, "at the root");
    else
        shoal_resolve_i64(first, 0);
    int64_t sum = 0;
    SHOAL_EXPECT_INT(shoal_await_i64(last, &sum), failing ? -EIO : 0);
    chain.over = true;
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    if (failing) {
        SHOAL_EXPECT_STR(shoal_error_message(), "at the root");
        SHOAL_EXPECT_INT(chain.links_run, 0);
        SHOAL_EXPECT(chain.task_runs >= LINKS / 32);
    } else {
        SHOAL_EXPECT_INT(sum, LINKS);
        SHOAL_EXPECT_INT(chain.links_run, LINKS);
        SHOAL_EXPECT(chain.stack_high - chain.stack_low < 64);
        SHOAL_EXPECT(chain.gap_max <= 32); /* what else is queued comes once a batch at least */
        SHOAL_EXPECT(chain.task_runs >= LINKS / 32);
    }
    SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->hot.futures), 1);
    return 0;
}

static void future_chain_of_a_million_gives_others_their_turn(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, long_chain, NULL), 0);
    assert_int_equal(shoal_test_run(1, long_chain, (void *)1), 0);
}

/* Links of both kinds that are made while the chain runs: no end in sight when it begins. */
static struct shoal_future *grow(void *arg, const union shoal_value *in)
{
    if (in->i64 >= LINKS / 10)
        return shoal_ready_i64(in->i64);
    return shoal_then_future(shoal_then(shoal_ready_i64(in->i64), next_link, NULL), grow, arg);
}

static int growing_chain(void *arg)
{
    (void)arg;
    chain = (struct long_chain){.stack_low = UINTPTR_MAX};
    int64_t sum = 0;
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_then_future(shoal_ready_i64(0), grow, NULL), &sum), 0);
    SHOAL_EXPECT_INT(sum, LINKS / 10);
    SHOAL_EXPECT(chain.stack_high - chain.stack_low < 64);
    return 0;
}

static void future_chain_that_grows_as_it_runs_uses_constant_stack(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, growing_chain, NULL), 0);
}

/* ---- What a continuation does to its own future ---- */

static int dropped;

static void drop(union shoal_value *value)
{
    SHOAL_EXPECT_INT(value->i64, 5);
    dropped++;
}

static void drop_other(union shoal_value *value)
{
    SHOAL_EXPECT_INT(value->i64, 5);
    dropped += 100;
}

static struct shoal_future *itself;
static struct shoal_future *inner;
static bool discard_itself; /* else it is cancelled */

static void touch_itself(void)
{
    if (discard_itself)
        shoal_discard(itself);
    else
        shoal_future_cancel(itself);
}

static int then_touch(void *arg, const union shoal_value *in, union shoal_value *out)
{
    *out = *in;
    out->slice.tag = 1; /* where what it comes from was kept */
    SHOAL_EXPECT(shoal_future_is_pending(itself));
    if (discard_itself)
        shoal_future_on_drop(itself, drop);
    touch_itself();
    SHOAL_EXPECT_INT(out->i64, in->i64); /* the place for the value is not disturbed */
    return *(int *)arg;
}

static int catch_touch(void *arg, int code, const char *text, union shoal_value *out)
{
    out->i64 = 5;
    out->slice.tag = 1;
    if (discard_itself)
        shoal_future_on_drop(itself, drop);
    touch_itself();
    SHOAL_EXPECT_STR(text, "why");
    SHOAL_EXPECT_INT(code, -EIO);
    return *(int *)arg;
}

static void finally_touch(void *arg)
{
    (void)arg;
    touch_itself();
}

static struct shoal_future *then_future_touch(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)in;
    inner = shoal_future_new();
    shoal_future_on_drop(inner, drop);
    touch_itself();
    return inner;
}

/* The derived future of one continuation of each kind, which runs when the root is resolved. */
static struct shoal_future *derived_of(int kind, struct shoal_future *root, int *code)
{
    switch (kind) {
    case 0:
        return shoal_then(root, then_touch, code);
    case 1:
        return shoal_catch(root, catch_touch, code);
    case 2:
        return shoal_finally(root, finally_touch, NULL);
    default:
        return shoal_then_future(root, then_future_touch, NULL);
    }
}

static int touched(void *arg)
{
    discard_itself = arg != NULL;
    for (int kind = 0; kind < 4; kind++) {
        for (int failing = 0; failing < 2; failing++) {
            int code = failing != 0 && kind < 2 ? -EPERM : 0;
            dropped = 0;
            struct shoal_future *root = shoal_future_new();
            if (kind == 2)
                shoal_future_on_drop(root, drop);
            itself = derived_of(kind, root, &code);
            if (kind == 1 || (kind == 2 && failing != 0))
                shoal_future_fail(root, -EIO, "why");
            else
                shoal_resolve_i64(root, 5);
            let_run();
            bool fails = code != 0 || (kind >= 2 && failing != 0);
            if (kind == 3) {
                if (fails)
                    shoal_future_fail(inner, -EIO, NULL);
                else
                    shoal_resolve_i64(inner, 5);
                let_run();
            }
            SHOAL_EXPECT_INT(dropped, discard_itself && !fails);
            int64_t value = 1;
            if (!discard_itself) {
                int rc = shoal_await_i64(itself, &value);
                SHOAL_EXPECT_INT(rc, !fails ? 0 : kind < 2 ? -EPERM : -EIO);
                SHOAL_EXPECT_INT(value, fails ? 1 : 5);
            }
            SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->hot.futures), 1);
        }
    }
    return 0;
}

static void future_cancelled_or_discarded_by_its_own_continuation_is_settled_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, touched, NULL), 0);
    assert_int_equal(shoal_test_run(1, touched, (void *)1), 0);
}

/* A continuation settles, discards and chains other futures; none of them runs inside it. */
static int work_inside(void *arg, const union shoal_value *in, union shoal_value *out)
{
    struct shoal_future **others = arg;
    shoal_discard(others[0]);
    shoal_future_resolve(others[1], in);
    others[2] = shoal_then(others[2], next_link, NULL);
    others[2] = shoal_then(others[2], next_link, NULL);
    shoal_discard(shoal_then(shoal_ready_i64(3), next_link, NULL));
    SHOAL_EXPECT_INT(chain.links_run, 0);
    SHOAL_EXPECT_INT(dropped, 1);
    *out = *in;
    return 0;
}

static int others_inside(void *arg)
{
    (void)arg;
    chain = (struct long_chain){.stack_low = UINTPTR_MAX};
    dropped = 0;
    struct shoal_future *others[3] = {shoal_future_new(), shoal_future_new(), shoal_ready_i64(7)};
    shoal_future_on_drop(others[0], drop);
    shoal_resolve_i64(others[0], 5);
    struct shoal_future *after = shoal_then(others[1], next_link, NULL);
    int64_t value = 0;
    SHOAL_EXPECT_INT(shoal_await_i64(shoal_then(shoal_ready_i64(5), work_inside, others), &value),
                     0);
    SHOAL_EXPECT_INT(value, 5);
    SHOAL_EXPECT_INT(shoal_await_i64(after, &value), 0);
    SHOAL_EXPECT_INT(value, 6);
    SHOAL_EXPECT_INT(shoal_await_i64(others[2], &value), 0);
    SHOAL_EXPECT_INT(value, 9);
    SHOAL_EXPECT_INT(chain.links_run, 4);
    return 0;
}

static void future_continuation_may_settle_discard_and_chain_others(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, others_inside, NULL), 0);
}

/* ---- Drop hooks ---- */

static int not_called(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)text;
    (void)out;
    SHOAL_EXPECT_NEVER("a value is caught");
    return code;
}

static void nothing(void *arg)
{
    (void)arg;
}

static struct shoal_future *give(void *arg, const union shoal_value *in)
{
    (void)in;
    return arg;
}

static struct shoal_future *droppable(shoal_drop_fn *hook)
{
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_drop(future, hook);
    return future;
}

/* Through `future`, which a root's value 5 will reach: how often, by whom it is dropped. */
static int drops_of(struct shoal_future *root, struct shoal_future *future, bool late)
{
    dropped = 0;
    if (late)
        shoal_discard(future);
    shoal_resolve_i64(root, 5);
    let_run();
    if (!late)
        shoal_discard(future);
    return dropped;
}

static int copy(void *arg, const union shoal_value *in, union shoal_value *out)
{
    *out = *in;
    return (int)(intptr_t)arg;
}

static int hooks(void *arg)
{
    (void)arg;
    for (int late = 0; late < 2; late++) {
        struct shoal_future *root = droppable(drop_other);
        shoal_future_on_drop(root, drop); /* replaced */
        SHOAL_EXPECT_INT(drops_of(root, root, late), 1);
        root = droppable(drop);
        shoal_future_on_drop(root, NULL); /* taken away */
        SHOAL_EXPECT_INT(drops_of(root, root, late), 0);
        root = droppable(drop); /* passes through what passes the value through */
        struct shoal_future *last = shoal_catch(root, not_called, NULL);
        last = shoal_finally(last, nothing, NULL);
        SHOAL_EXPECT_INT(drops_of(root, last, late), 1);
        root = droppable(drop); /* the inner future's value is the chain's */
        last = shoal_then_future(shoal_future_ready(NULL), give, root);
        let_run();
        SHOAL_EXPECT_INT(drops_of(root, shoal_finally(last, nothing, NULL), late), 1);
        root = droppable(drop_other); /* a function has taken the value over */
        SHOAL_EXPECT_INT(drops_of(root, shoal_then(root, copy, NULL), late), 0);
        root = droppable(drop_other); /* and what it made has a hook of its own */
        last = shoal_then(root, copy, NULL);
        shoal_future_on_drop(last, drop);
        SHOAL_EXPECT_INT(drops_of(root, shoal_catch(last, not_called, NULL), late), 1);
        root = droppable(drop); /* but not if it made nothing */
        last = shoal_then(root, copy, (void *)-EIO);
        shoal_future_on_drop(last, drop);
        SHOAL_EXPECT_INT(drops_of(root, last, late), 0);
        root = shoal_future_new(); /* a hook for what is passed through */
        last = shoal_finally(root, nothing, NULL);
        shoal_future_on_drop(last, drop);
        SHOAL_EXPECT_INT(drops_of(root, last, late), 1);
        SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->hot.futures), 1);
    }
    return 0;
}

static void future_drop_hook_goes_with_the_value(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, hooks, NULL), 0);
}

/* ---- Scheduling groups ---- */

static struct shoal_sched_group *here;
static int group_calls;

static void expect_here(void)
{
    group_calls++;
    SHOAL_EXPECT(shoal_sched_group_self() == here);
}

static int here_then(void *arg, const union shoal_value *in, union shoal_value *out)
{
    expect_here();
    return copy(arg, in, out);
}

static int here_catch(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)text;
    (void)out;
    (void)arg;
    expect_here();
    return code;
}

static void here_finally(void *arg)
{
    (void)arg;
    expect_here();
}

/* What is registered here belongs here, too. */
static struct shoal_future *here_future(void *arg, const union shoal_value *in)
{
    (void)arg;
    expect_here();
    return shoal_then(shoal_ready_i64(in->i64), here_then, NULL);
}

static struct shoal_future *(*const volatile library_then)(struct shoal_future *, shoal_then_fn *,
                                                           void *) = shoal_then;

static struct shoal_future *all_kinds(struct shoal_future *root)
{
    struct shoal_future *last = shoal_then(root, here_then, NULL);
    last = shoal_then_future(last, here_future, NULL);
    last = library_then(last, here_then, NULL);
    last = shoal_finally(last, here_finally, NULL);
    last = shoal_then(shoal_then(last, here_then, NULL), here_then, (void *)-EIO);
    return shoal_finally(shoal_catch(last, here_catch, NULL), here_finally, NULL);
}

static int inherited(void *arg)
{
    (void)arg;
    struct shoal_sched_group *groups[3] = {shoal_sched_group_main()};
    SHOAL_EXPECT_INT(shoal_sched_group_new(&groups[1], "one", 50), 0);
    SHOAL_EXPECT_INT(shoal_sched_group_new(&groups[2], "two", 500), 0);
    for (int made = 0; made < 9; made++) { /* made in one group, resolved in another */
        bool late = made % 2 != 0;
        struct shoal_future *root = shoal_future_new();
        here = groups[made / 3];
        group_calls = 0;
        if (!late)
            shoal_resolve_i64(root, 1);
        shoal_sched_group_enter(here);
        struct shoal_future *last = all_kinds(root);
        shoal_sched_group_enter(groups[made % 3]);
        if (late)
            shoal_resolve_i64(root, 1);
        SHOAL_EXPECT_INT(shoal_await(last, NULL), -EIO);
        SHOAL_EXPECT(shoal_sched_group_self() == groups[made % 3]);
        SHOAL_EXPECT_INT(group_calls, 9);
        shoal_sched_group_enter(groups[0]);
    }
    SHOAL_EXPECT_INT(shoal_sched_group_free(groups[1]), 0);
    SHOAL_EXPECT_INT(shoal_sched_group_free(groups[2]), 0);
    return 0;
}

/* Links of two groups in turn: none runs on in the other's. */
static int in_group(void *arg, const union shoal_value *in, union shoal_value *out)
{
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    out->i64 = in->i64 + 1;
    return 0;
}

static int alternating(void *arg)
{
    (void)arg;
    struct shoal_sched_group *groups[2] = {shoal_sched_group_main()};
    SHOAL_EXPECT_INT(shoal_sched_group_new(&groups[1], "other", 100), 0);
    struct shoal_future *last = shoal_ready_i64(0);
    for (int i = 0; i < 1000; i++) {
        shoal_sched_group_enter(groups[i / 3 % 2]);
        last = shoal_then(last, in_group, groups[i / 3 % 2]);
    }
    shoal_sched_group_enter(groups[0]);
    int64_t sum = 0;
    SHOAL_EXPECT_INT(shoal_await_i64(last, &sum), 0);
    SHOAL_EXPECT_INT(sum, 1000);
    return 0;
}

static void future_continuations_run_in_the_group_that_registered_them(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, inherited, NULL), 0);
    assert_int_equal(shoal_test_run(1, alternating, NULL), 0);
}

/* ---- Codes ---- */

static int fail_with(void *arg)
{
    shoal_discard(shoal_future_failed(*(int *)arg, "x"));
    return 0;
}

static int fail_promise(void *arg)
{
    struct shoal_future *future = shoal_future_new();
    shoal_discard(future);
    shoal_future_fail(future, *(int *)arg, NULL);
    return 0;
}

static int then_returns(void *arg)
{
    struct shoal_future *future =
        shoal_then(shoal_future_ready(NULL), copy, (void *)(intptr_t) * (int *)arg);
    return shoal_await(future, NULL);
}

static int catch_returns_code(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)code;
    (void)text;
    (void)out;
    return *(int *)arg;
}

static int catch_returns(void *arg)
{
    return shoal_await(shoal_catch(shoal_future_failed(-EIO, NULL), catch_returns_code, arg), NULL);
}

static int (*const code_users[])(void *) = {fail_with, fail_promise, then_returns, catch_returns};

struct code_case {
    int (*fn)(void *arg);
    int code;
};

static int run_code_case(void *arg)
{
    struct code_case *code_case = arg;
    return shoal_test_run(1, code_case->fn, &code_case->code);
}

static int codes_in_range(void *arg)
{
    (void)arg;
    int lowest = SHOAL_ERROR_MIN, positive = 7;
    SHOAL_EXPECT_INT(shoal_await(shoal_future_failed(lowest, NULL), NULL), lowest);
    SHOAL_EXPECT_INT(then_returns(&lowest), lowest);
    SHOAL_EXPECT_INT(catch_returns(&lowest), lowest);
    /* Not a failure, and no code of the future either. */
    SHOAL_EXPECT_INT(then_returns(&positive), 0);
    SHOAL_EXPECT_INT(catch_returns(&positive), 0);
    return 0;
}

static void future_code_out_of_range_aborts(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, codes_in_range, NULL), 0);
    static const int codes[] = {SHOAL_ERROR_MIN - 1, -65536 - EIO, INT32_MIN, 0, 1};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(code_users); i++) {
        for (size_t j = 0; j < SHOAL_ARRAY_SIZE(codes); j++) {
            if (i >= 2 && codes[j] >= 0)
                continue;
            struct code_case code_case = {code_users[i], codes[j]};
            shoal_test_aborts_with(run_code_case, &code_case, "a failure with code");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(future_chain_of_a_million_gives_others_their_turn),
        cmocka_unit_test(future_chain_that_grows_as_it_runs_uses_constant_stack),
        cmocka_unit_test(future_cancelled_or_discarded_by_its_own_continuation_is_settled_once),
        cmocka_unit_test(future_continuation_may_settle_discard_and_chain_others),
        cmocka_unit_test(future_drop_hook_goes_with_the_value),
        cmocka_unit_test(future_continuations_run_in_the_group_that_registered_them),
        cmocka_unit_test(future_code_out_of_range_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
