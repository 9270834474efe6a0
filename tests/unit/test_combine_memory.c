/*
 * Combinators without memory: each allocation of each scenario fails once. The result is then
 * -ENOMEM, or what it would have been, and nothing is left.
 */
#include "shoal/runtime/fault.h"
#include "shoal/runtime/retry.h"
#include "shoal/runtime/shared_future.h"
#include "shoal/runtime/timer.h"

#include "unit/combine_check.h"

#define WALK_MAX 500

static struct op ops[4];

static struct shoal_future *ready_item(void *arg, const union shoal_value *in)
{
    (void)arg;
    return op_ready((int64_t)in->u64);
}

static struct shoal_future *pass_on(void *arg, const union shoal_value *in)
{
    (void)arg;
    return op_ready(value_take(in));
}

static int pass_on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    *out = *in;
    return 0;
}

static int on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    union shoal_value value;
    int rc = shoal_await(op_ready((int64_t)in->u64), &value);
    if (rc == 0)
        *out = value;
    return rc;
}

static struct shoal_future *add_up(void *arg, const union shoal_value *sum,
                                   const union shoal_value *item)
{
    (void)arg;
    return op_ready(value_take(sum) + (int64_t)item->u64);
}

static struct shoal_future *one_step(void *arg)
{
    (void)arg;
    return op_ready(1);
}

static struct shoal_future *fail_twice(void *arg, const union shoal_value *in)
{
    (void)arg;
    return in->u64 < 3 ? op_failed(-EIO, "again") : op_ready(1);
}

static int copy_value(const union shoal_value *in, union shoal_value *out)
{
    values_live++;
    *out = *in;
    return 0;
}

static void resolve_first(struct shoal_timer *timer)
{
    (void)timer;
    op_resolve(&ops[0], 0);
}

/* ---- Scenarios ---- */

static int all(void)
{
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_FAILS), op_ready(1),
                                      op_begin(&ops[1], OP_FAILS)};
    struct shoal_future *whole = shoal_when_all(futures, 3);
    op_resolve(&ops[0], 0);
    op_resolve(&ops[1], 1);
    return shoal_await(whole, NULL);
}

static int all_large(void)
{
    struct shoal_future *futures[40];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(futures); i++)
        futures[i] = op_ready(1);
    return shoal_await_all(futures, SHOAL_ARRAY_SIZE(futures), NULL);
}

static int any_of(enum shoal_losers losers)
{
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_FAILS), op_begin(&ops[1], OP_FAILS)};
    struct shoal_future *any = shoal_when_any(futures, 2, losers);
    op_resolve(&ops[1], 1);
    int rc = shoal_await(any, NULL);
    for (size_t i = 0; losers == SHOAL_LOSERS_KEEP && i < 2; i++)
        if (futures[i] != NULL) /* not consumed, also where there was no memory */
            shoal_discard(futures[i]);
    op_resolve(&ops[0], 0);
    return rc;
}

static int any_join(void)
{
    return any_of(SHOAL_LOSERS_JOIN);
}

static int any_leave(void)
{
    return any_of(SHOAL_LOSERS_LEAVE);
}

static int any_keep(void)
{
    return any_of(SHOAL_LOSERS_KEEP);
}

static int settled(void)
{
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_FAILS), op_ready(1)};
    struct shoal_future *both = shoal_when_settled(futures, 2);
    op_resolve(&ops[0], 0);
    int rc = shoal_await(both, NULL);
    shoal_discard(futures[0]);
    shoal_discard(futures[1]);
    return rc;
}

static int timeout(void)
{
    struct shoal_future *future = shoal_timeout(op_begin(&ops[0], OP_FAILS), 1000000000);
    op_resolve(&ops[0], 0);
    return shoal_await(future, NULL);
}

static int late(void)
{
    int rc = shoal_await(shoal_timeout_leave(op_begin(&ops[0], OP_FAILS), 1000), NULL);
    SHOAL_EXPECT(ops[0].settled); /* where there was no memory it was cancelled */
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int map(void)
{
    return shoal_await(shoal_map(&(struct shoal_each){.count = 5, .limit = 2, .fn = ready_item}),
                       NULL);
}

static int map_on_fibers(void)
{
    return shoal_await(shoal_map(&(struct shoal_each){
                           .count = 5, .limit = 2, .fiber = on_fiber, .drop = value_drop}),
                       NULL);
}

static int filter(void)
{
    return shoal_await(shoal_filter(&(struct shoal_each){.count = 5, .limit = 2, .fn = ready_item}),
                       NULL);
}

static int for_each(void)
{
    return shoal_await(shoal_for_each(&(struct shoal_each){.count = 5, .fn = ready_item}), NULL);
}

static int reduce(void)
{
    struct shoal_reduction sum = {
        .count = 3, .fn = add_up, .drop = value_drop, .initial.slice.tag = 0x5a};
    values_live++;
    return shoal_await(shoal_reduce(&sum), NULL);
}

static int repeat(void)
{
    return shoal_await(shoal_repeat(one_step, NULL), NULL);
}

static int pipeline(void)
{
    const struct shoal_stage stages[] = {{.then_future = pass_on},
                                         {.fiber = pass_on_fiber, .drop = value_drop},
                                         {.then_future = pass_on}};
    return shoal_await(shoal_pipeline(op_ready(1), stages, 3), NULL);
}

static int retry(void)
{
    return shoal_await(shoal_retry(&(struct shoal_retry){.fn = fail_twice, .attempts = 3}), NULL);
}

static int shared(void)
{
    static const struct shoal_shared_hooks hooks = {.copy = copy_value, .drop = value_drop};
    struct shoal_shared_future *both = shoal_shared_future_new(op_begin(&ops[0], OP_FAILS), &hooks);
    struct shoal_future *first = shoal_shared_future_get(both);
    struct shoal_future *second = shoal_shared_future_get(both);
    (void)shoal_shared_future_is_pending(both);
    op_resolve(&ops[0], 1);
    int rc = shoal_await(first, NULL);
    shoal_discard(second);
    shoal_shared_future_cancel(both);
    shoal_shared_future_unref(shoal_shared_future_ref(both));
    shoal_shared_future_unref(both);
    return rc;
}

static int nested(void)
{
    struct shoal_future *futures[] = {
        shoal_retry(&(struct shoal_retry){.fn = fail_twice, .attempts = 3}),
        shoal_timeout(shoal_map(&(struct shoal_each){.count = 5, .fn = ready_item}), 1000000000)};
    return shoal_await(shoal_when_all(futures, 2), NULL);
}

/* Without memory the result waits for the end of what was given. */
static int timeout_end(void)
{
    struct shoal_future *future = shoal_timeout(op_begin(&ops[0], OP_STAYS), 1000000000);
    bool had_memory = ops[0].cancels == 0;
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(future) || ops[0].settled);
    op_resolve(&ops[0], 0);
    int rc = shoal_await(future, NULL);
    SHOAL_EXPECT(had_memory || rc == -ENOMEM);
    return rc;
}

static int pipeline_end(void)
{
    const struct shoal_stage stages[] = {{.then_future = pass_on}};
    struct shoal_future *future = shoal_pipeline(op_begin(&ops[0], OP_STAYS), stages, 1);
    bool had_memory = ops[0].cancels == 0;
    settle_down();
    SHOAL_EXPECT(shoal_future_is_pending(future) || ops[0].settled);
    op_resolve(&ops[0], 0);
    int rc = shoal_await(future, NULL);
    SHOAL_EXPECT(had_memory || rc == -ENOMEM);
    return rc;
}

static int await_any(void)
{
    struct shoal_winner winner;
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_SUCCEEDS), op_ready(1)};
    int rc = shoal_await_any(futures, 2, SHOAL_LOSERS_JOIN, &winner);
    SHOAL_EXPECT(ops[0].settled); /* memory or not: it was waited for */
    if (rc == 0)
        value_drop(&winner.value);
    return rc;
}

static int await_any_keep(void)
{
    struct shoal_winner winner;
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_FAILS), op_ready(1)};
    int rc = shoal_await_any(futures, 2, SHOAL_LOSERS_KEEP, &winner);
    if (rc == 0)
        value_drop(&winner.value);
    for (size_t i = 0; i < 2; i++)
        if (futures[i] != NULL) /* also those that there was no memory to wait for */
            shoal_discard(futures[i]);
    op_resolve(&ops[0], 0);
    return rc;
}

static int await_all(void)
{
    struct shoal_future *futures[] = {op_begin(&ops[0], OP_STAYS), op_ready(1)};
    union shoal_value values[2];
    struct shoal_timer timer;
    shoal_timer_init(&timer, resolve_first);
    shoal_timer_arm(&timer, 1000);
    int rc = shoal_await_all(futures, 2, values);
    SHOAL_EXPECT(ops[0].settled);
    (void)shoal_timer_cancel(&timer);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        value_drop(&values[i]);
    return rc;
}

static int await_timeout(void)
{
    int rc = shoal_await_timeout(op_begin(&ops[0], OP_FAILS), 1000, NULL);
    SHOAL_EXPECT(ops[0].settled);
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int check_walk(void *arg)
{
    int (*scenario)(void) = *(int (**)(void))arg;
    SHOAL_EXPECT_INT(scenario(), 0); /* slabs have their first chunks then */
    settle_down();
    int before = held();
    uint64_t n = 1;
    for (; n < WALK_MAX; n++) {
        struct shoal_fault_stats stats;
        shoal_fault_arm(&(struct shoal_fault_plan){.nth = n});
        int rc = scenario();
        settle_down();
        shoal_fault_disarm(&stats);
        if (rc != -ENOMEM)
            SHOAL_EXPECT_INT(rc, 0);
        if (!SHOAL_EXPECT_INT(values_live, 0) || !SHOAL_EXPECT_INT(held(), before)) {
            fprintf(stderr, "at allocation %llu\n", (unsigned long long)n);
            break;
        }
        if (stats.failed == 0)
            break;
    }
    SHOAL_EXPECT(n < WALK_MAX);
#ifdef SHOAL_DEBUG
    SHOAL_EXPECT(n > 2); /* it did have allocations */
#endif
    /* None at all. */
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = 1, .count = UINT64_MAX});
    int rc = scenario();
    settle_down();
    shoal_fault_disarm(NULL);
#ifdef SHOAL_DEBUG
    SHOAL_EXPECT_INT(rc, -ENOMEM);
#else
    SHOAL_EXPECT(rc == -ENOMEM || rc == 0);
#endif
    return 0;
}

static void combinators_each_allocation_may_fail(void **state)
{
    (void)state;
    static int (*const scenarios[])(void) = {
        all,         all_large,    any_join,  any_leave,      any_keep,  settled,
        timeout,     late,         map,       map_on_fibers,  filter,    for_each,
        reduce,      repeat,       pipeline,  retry,          shared,    nested,
        timeout_end, pipeline_end, await_any, await_any_keep, await_all, await_timeout};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(scenarios); i++) {
        int (*scenario)(void) = scenarios[i];
        check_clean(check_walk, &scenario);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(combinators_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
