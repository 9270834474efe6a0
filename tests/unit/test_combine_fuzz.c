/*
 * Random trees of all combinators over futures that settle in random order, are cancelled and
 * discarded in the midst of it, under a manual clock, and in each second round with memory that
 * runs out now and then: nothing may be left, and each value must have been dropped once.
 * SHOAL_TEST_SEED=N repeats the round that a failure names; SHOAL_TEST_ROUNDS=N makes more of them.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/retry.h"
#include "shoal/runtime/shared_future.h"

#include "unit/combine_check.h"

#define ROOTS    4
#define OPS      2048
#define NODES    600 /* combinators a round */
#define CHILDREN 4
#define ROUNDS   (10000 / SHOAL_TEST_SLOWDOWN)

static uint64_t state; /* of the random numbers */
static struct op ops[OPS];
static unsigned op_count;
static unsigned nodes;
static bool memory_fails;

static unsigned pick(unsigned below)
{
    return (unsigned)((shoal_test_random(&state) >> 20) % below);
}

/* Drops a value of unknown origin: one that counts, results, or none. */
static void drop_any(union shoal_value *value)
{
    if (value->slice.tag == 0x5a)
        value_drop(value);
    else
        shoal_results_drop(value->ptr);
}

static struct shoal_future *build(unsigned depth);

static struct shoal_future *leaf(void)
{
    unsigned kind = pick(6);
    if (kind == 0 || op_count == OPS)
        return op_ready(pick(2));
    if (kind == 1)
        return op_failed(-EIO, "leaf");
    return op_begin(&ops[op_count++], (enum op_cancel)pick(3));
}

/* An argument that says how deep what a function makes may be. */
static void *deep(unsigned depth)
{
    return (void *)(uintptr_t)depth;
}

static unsigned depth_of(void *arg)
{
    return (unsigned)(uintptr_t)arg;
}

/* ---- Functions for those that take some ---- */

static struct shoal_future *make_for_item(void *arg, const union shoal_value *in)
{
    (void)in;
    return build(depth_of(arg));
}

static struct shoal_future *make_stage(void *arg, const union shoal_value *in)
{
    union shoal_value value = *in;
    drop_any(&value);
    return build(depth_of(arg));
}

static int plain_stage(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    *out = *in;
    return pick(8) == 0 ? (drop_any(out), -EIO) : 0;
}

static int await_on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    if (pick(3) == 0)
        (void)shoal_yield();
    if (pick(4) == 0)
        return shoal_await_timeout(build(depth_of(arg)), pick(2000), out);
    return shoal_await(build(depth_of(arg)), out);
}

static int fiber_stage(void *arg, const union shoal_value *in, union shoal_value *out)
{
    union shoal_value value = *in;
    drop_any(&value);
    return await_on_fiber(arg, in, out);
}

/* Takes one after the other as they settle, and keeps the rest. */
static int await_one_by_one(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    (void)out;
    struct shoal_future *futures[CHILDREN];
    size_t count = pick(CHILDREN) + 1;
    for (size_t i = 0; i < count; i++)
        futures[i] = build(depth_of(arg));
    if (pick(2) == 0)
        (void)shoal_await(shoal_when_settled(futures, count), NULL);
    int rc;
    do {
        struct shoal_winner winner;
        rc = shoal_await_any(futures, count, SHOAL_LOSERS_KEEP, &winner);
        if (rc == 0)
            drop_any(&winner.value);
    } while (rc != -EINVAL && !shoal_fiber_cancelled());
    for (size_t i = 0; i < count; i++) {
        if (futures[i] == NULL)
            continue;
        shoal_future_cancel(futures[i]);
        shoal_discard(futures[i]);
    }
    return rc == -EINVAL ? 0 : rc;
}

static struct shoal_future *make_step(void *arg)
{
    return build(depth_of(arg));
}

static bool is_done(void *arg)
{
    (void)arg;
    return pick(4) == 0;
}

static struct shoal_future *add_item(void *arg, const union shoal_value *sum,
                                     const union shoal_value *item)
{
    (void)item;
    return make_stage(arg, sum);
}

static int copy_any(const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    if (pick(10) == 0)
        return -ENOSPC;
    values_live++;
    out->slice.tag = 0x5a;
    return 0;
}

static int rescue(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)text;
    (void)out;
    return pick(2) == 0 ? 0 : code;
}

static bool go_on(void *arg, const struct shoal_retry_failure *failure)
{
    (void)arg;
    (void)failure;
    return pick(5) != 0;
}

/* ---- Trees ---- */

static struct shoal_future *build_when(unsigned depth)
{
    struct shoal_future *futures[CHILDREN];
    const enum shoal_losers losers = pick(2) == 0 ? SHOAL_LOSERS_JOIN : SHOAL_LOSERS_LEAVE;
    size_t count = pick(CHILDREN + 1);
    for (size_t i = 0; i < count; i++)
        futures[i] = build(depth);
    switch (pick(4)) {
    case 0:
        return shoal_when_all(futures, count);
    case 1:
        return shoal_when_all_or_cancel(futures, count);
    case 2:
        return shoal_when_any(futures, count, losers);
    default:
        return shoal_when_some(futures, count, pick(CHILDREN), losers);
    }
}

static struct shoal_future *build_each(unsigned depth)
{
    struct shoal_each work = {
        .count = pick(5), .limit = pick(4), .arg = deep(depth), .cancel_on_failure = pick(2) == 0};
    if (pick(8) == 0) { /* more than a burst */
        work.count = 40;
        work.arg = deep(0);
    }
    if (pick(2) == 0) {
        work.fn = make_for_item;
    } else {
        work.fiber = await_on_fiber;
        work.drop = drop_any;
    }
    switch (pick(3)) {
    case 0:
        return shoal_for_each(&work);
    case 1:
        return shoal_map(&work);
    default:
        return shoal_filter(&work);
    }
}

static struct shoal_future *build_loop(unsigned depth)
{
    if (pick(3) == 0)
        return shoal_do_until(is_done, make_step, deep(depth));
    struct shoal_reduction sum = {.count = pick(4),
                                  .fn = add_item,
                                  .arg = deep(depth),
                                  .initial.slice.tag = 0x5a,
                                  .drop = drop_any};
    values_live++;
    return shoal_reduce(&sum);
}

static struct shoal_future *build_pipeline(unsigned depth)
{
    struct shoal_stage stages[4];
    size_t count = pick(5);
    for (size_t i = 0; i < count; i++) {
        stages[i] = (struct shoal_stage){.arg = deep(depth), .drop = drop_any};
        switch (pick(3)) {
        case 0:
            stages[i].then = plain_stage;
            break;
        case 1:
            stages[i].then_future = make_stage;
            break;
        default:
            stages[i].fiber = fiber_stage;
        }
    }
    return shoal_pipeline(build(depth), stages, count);
}

static struct shoal_future *build_shared(unsigned depth)
{
    static const struct shoal_shared_hooks hooks = {.copy = copy_any, .drop = drop_any};
    struct shoal_shared_future *shared = shoal_shared_future_new(build(depth), &hooks);
    struct shoal_future *futures[CHILDREN];
    size_t count = pick(CHILDREN + 1);
    for (size_t i = 0; i < count; i++) {
        futures[i] = shoal_shared_future_get(shared);
        if (pick(4) == 0)
            shoal_future_cancel(futures[i]);
    }
    if (pick(6) == 0)
        shoal_shared_future_cancel(shared);
    shoal_shared_future_unref(shared);
    return shoal_when_all(futures, count);
}

static struct shoal_future *build(unsigned depth)
{
    if (depth == 0 || nodes >= NODES)
        return leaf();
    nodes++;
    depth--;
    uint64_t limit_ns = pick(8) == 0 ? SHOAL_NS_FOREVER : pick(2000);
    struct shoal_retry retry = {.fn = make_for_item,
                                .arg = deep(depth),
                                .attempts = pick(4) + 1,
                                .delay_ns = pick(1000),
                                .jitter_percent = pick(101),
                                .seed = 1 + pick(1000),
                                .again = go_on};
    switch (pick(11)) {
    case 0:
    case 1:
        return build_when(depth);
    case 2:
        return build_each(depth);
    case 3:
        return build_loop(depth);
    case 4:
        return build_pipeline(depth);
    case 5:
        return build_shared(depth);
    case 6:
        return shoal_timeout(build(depth), limit_ns);
    case 7:
        return shoal_timeout_leave(build(depth), limit_ns);
    case 8:
        return shoal_retry(&retry);
    case 9:
        return shoal_async(await_one_by_one, deep(depth), NULL);
    default:
        return shoal_catch(build(depth), rescue, NULL);
    }
}

/* ---- A round ---- */

static void settle_one(void)
{
    if (op_count == 0)
        return;
    struct op *op = &ops[pick(op_count)];
    if (pick(3) == 0)
        op_fail(op, -EIO, "operation");
    else
        op_resolve(op, pick(2));
}

static void expect_known(struct shoal_future *root)
{
    union shoal_value value;
    int rc = shoal_await(root, &value);
    if (rc == 0) {
        drop_any(&value);
        return;
    }
    SHOAL_EXPECT(rc == -EIO || rc == -ECANCELED || rc == -ETIMEDOUT || rc == -EINVAL ||
                 rc == -ENOSPC || rc == -ENOMEM);
    if (!memory_fails && (rc == -ETIMEDOUT || rc == -EINVAL)) /* their texts have come along */
        SHOAL_EXPECT(shoal_error_message()[0] != '\0');
}

static bool round_of(uint64_t seed)
{
    struct shoal_future *roots[ROOTS];
    int before = held();
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    op_count = nodes = 0;
    values_live = values_dropped = 0;
    memory_fails = seed % 2 == 0; /* now and then */
    if (memory_fails)
        shoal_fault_arm(&(struct shoal_fault_plan){.chance_ppm = 20000, .seed = seed});
    for (int i = 0; i < ROOTS; i++)
        roots[i] = build(3 + pick(5));
    for (unsigned steps = pick(200); steps > 0; steps--) {
        struct shoal_future **root = &roots[pick(ROOTS)];
        unsigned action = pick(20);
        if (action < 10)
            settle_one();
        else if (action < 15)
            (void)shoal_yield();
        else if (action < 17)
            (void)shoal_test_clock_advance(pick(500));
        else if (action < 18 && *root != NULL)
            shoal_future_cancel(*root);
        else if (action == 19 && *root != NULL && pick(4) == 0) {
            shoal_discard(*root);
            *root = NULL;
        }
    }
    unsigned settled = 0;
    for (unsigned quiet = 0; quiet < 3; quiet++) { /* what settles may make more of them */
        for (; settled < op_count; settled++) {
            op_resolve(&ops[settled], settled & 1);
            quiet = 0;
        }
        (void)shoal_test_clock_advance(100 * 1000);
    }
    shoal_fault_disarm(NULL);
    bool good = true;
    for (int i = 0; i < ROOTS; i++) {
        if (roots[i] == NULL)
            continue;
        if (!SHOAL_EXPECT(!shoal_future_is_pending(roots[i]))) {
            fprintf(stderr, "root %d of seed %llu does not end\n", i, (unsigned long long)seed);
            return false;
        }
        expect_known(roots[i]);
    }
    good = SHOAL_EXPECT_INT(held(), before) && good;
    good = SHOAL_EXPECT_INT(values_live, 0) && good;
    return good && shoal_test_failures() == 0;
}

static int check_rounds(void *arg)
{
    (void)arg;
    const char *seed = getenv("SHOAL_TEST_SEED");
    const char *rounds = getenv("SHOAL_TEST_ROUNDS");
    uint64_t first = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    uint64_t count = rounds != NULL ? strtoull(rounds, NULL, 10) : ROUNDS;
    for (uint64_t i = first; i < first + (seed != NULL && rounds == NULL ? 1 : count); i++) {
        if (round_of(i))
            continue;
        fprintf(stderr, "failed: SHOAL_TEST_SEED=%llu\n", (unsigned long long)i);
        break;
    }
    return 0;
}

static void combinators_random_trees_leak_nothing(void **test)
{
    (void)test;
    const struct shoal_test_options options = {.clock = SHOAL_TEST_CLOCK_MANUAL};
    assert_int_equal(shoal_test_run_options(&options, check_rounds, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(combinators_random_trees_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
