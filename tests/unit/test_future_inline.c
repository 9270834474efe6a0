/*
 * The calls of future.h that are inlined agree with the library's own: each kind of consumer on
 * each state, by either form and by any mixture of them. Checked builds inline nothing; there both
 * are the same functions.
 */
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"

#include "unit/harness.h"

static union shoal_value value_of(int64_t number)
{
    union shoal_value value;
    for (size_t i = 0; i < sizeof(value.bytes); i++)
        value.bytes[i] = (unsigned char)(number + (int64_t)i * 7);
    value.i64 = number;
    return value;
}

static bool is_value_of(const union shoal_value *value, int64_t number)
{
    union shoal_value whole = value_of(number);
    return memcmp(value, &whole, sizeof(whole)) == 0;
}

/* ---- The two forms ---- */

struct calls {
    struct shoal_future *(*make)(void);
    struct shoal_future *(*ready)(const union shoal_value *value);
    struct shoal_future *(*then)(struct shoal_future *future, shoal_then_fn *fn, void *arg);
    void (*discard)(struct shoal_future *future);
    int (*await)(struct shoal_future *future, union shoal_value *out);
};

static struct shoal_future *inline_make(void)
{
    return shoal_future_new();
}

static struct shoal_future *inline_ready(const union shoal_value *value)
{
    return shoal_future_ready(value);
}

static struct shoal_future *inline_then(struct shoal_future *future, shoal_then_fn *fn, void *arg)
{
    return shoal_then(future, fn, arg);
}

static void inline_discard(struct shoal_future *future)
{
    shoal_discard(future);
}

static int inline_await(struct shoal_future *future, union shoal_value *out)
{
    return shoal_await(future, out);
}

/* [0] inlined, [1] the library's. Volatile: the compiler must not see through the pointers. */
static const volatile struct calls forms[2] = {
    {inline_make, inline_ready, inline_then, inline_discard, inline_await},
    {shoal_future_new, shoal_future_ready, shoal_then, shoal_discard, shoal_await},
};

/* A bit of `mix` for each call: which form it takes. */
#define FORM(mix, bit, call) (forms[(mix) >> (bit)&1].call)
#define MIXES                32

static uint32_t live(void)
{
    return shoal_slab_live(&shoal_core_self->hot.futures);
}

/* ---- Every consumer on every state ---- */

enum state { READY, READY_NULL, FAILED, LATE_VALUE, LATE_FAILURE, STATES };

static int dropped;

static void drop(union shoal_value *value)
{
    SHOAL_EXPECT(is_value_of(value, 5));
    dropped++;
}

static struct shoal_future *make(unsigned mix, enum state state, bool hook)
{
    union shoal_value value = value_of(5);
    if (state == READY && !hook)
        return FORM(mix, 1, ready)(&value);
    if (state == READY_NULL)
        return FORM(mix, 1, ready)(NULL);
    struct shoal_future *future = FORM(mix, 0, make)();
    SHOAL_EXPECT(shoal_future_is_pending(future));
    if (hook)
        shoal_future_on_drop(future, drop);
    if (state == READY)
        shoal_future_resolve(future, &value);
    else if (state == FAILED)
        shoal_future_fail(future, -EIO, "why");
    return future;
}

/* What the producer of a late one does, after the consumer has come. */
static void settle(struct shoal_future *future, enum state state)
{
    union shoal_value value = value_of(5);
    if (state == LATE_VALUE)
        shoal_future_resolve(future, &value);
    else if (state == LATE_FAILURE)
        shoal_future_fail(future, -EIO, "why");
}

static struct shoal_future *late_future;
static enum state late_state;

static int settle_later(void *arg)
{
    (void)arg;
    settle(late_future, late_state);
    return 0;
}

static bool fails(enum state state)
{
    return state == FAILED || state == LATE_FAILURE;
}

static void expect_outcome(enum state state, int code, const union shoal_value *value,
                           int64_t number)
{
    union shoal_value zero;
    memset(&zero, 0, sizeof(zero));
    if (fails(state)) {
        SHOAL_EXPECT_INT(code, -EIO);
        SHOAL_EXPECT_STR(shoal_error_message(), "why");
        SHOAL_EXPECT(is_value_of(value, 1)); /* untouched */
    } else {
        SHOAL_EXPECT_INT(code, 0);
        SHOAL_EXPECT(state == READY_NULL ? memcmp(value, &zero, sizeof(zero)) == 0
                                         : is_value_of(value, number));
    }
}

static void check_await(unsigned mix, enum state state, bool hook)
{
    union shoal_value value = value_of(1);
    for (int wanted = 0; wanted < 2; wanted++) {
        dropped = 0;
        struct shoal_future *future = make(mix, state, hook);
        late_future = future;
        late_state = state;
        if (shoal_future_is_pending(future))
            SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(settle_later, NULL, "late"), 0);
        int code = FORM(mix, 4, await)(future, wanted ? &value : NULL);
        SHOAL_EXPECT_INT(code, fails(state) ? -EIO : 0);
        SHOAL_EXPECT_INT(dropped, hook && !wanted && !fails(state));
        if (wanted)
            expect_outcome(state, code, &value, 5);
    }
}

static void check_discard(unsigned mix, enum state state, bool hook)
{
    dropped = 0;
    struct shoal_future *future = make(mix, state, hook);
    FORM(mix, 3, discard)(future);
    settle(future, state);
    SHOAL_EXPECT_INT(dropped, hook && !fails(state));
}

static int then_calls;

static int pass_on(void *arg, const union shoal_value *in, union shoal_value *out)
{
    SHOAL_EXPECT(arg == &then_calls);
    for (size_t i = 0; i < sizeof(out->bytes); i++)
        SHOAL_EXPECT_INT(out->bytes[i], 0);
    then_calls++;
    *out = *in;
    return 0;
}

/* Everything that is ready, and what that makes ready, has had its turn. */
static void let_run(void)
{
    for (int i = 0; i < 16; i++)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
}

static void check_then(unsigned mix, enum state state, bool hook)
{
    for (int end = 0; end < 3; end++) {
        dropped = then_calls = 0;
        union shoal_value value = value_of(1);
        struct shoal_future *future = make(mix, state, hook);
        struct shoal_future *last = FORM(mix, 2, then)(future, pass_on, &then_calls);
        SHOAL_EXPECT(last != future && shoal_future_is_pending(last));
        last = FORM(mix ^ 4, 2, then)(last, pass_on, &then_calls); /* the other form behind it */
        if (end == 1)
            FORM(mix, 3, discard)(last);
        settle(future, state);
        SHOAL_EXPECT_INT(then_calls, 0); /* never inside */
        if (end == 2) {                  /* it is ready by the time of the await */
            let_run();
            SHOAL_EXPECT(!shoal_future_is_pending(last));
        }
        if (end != 1)
            expect_outcome(state, FORM(mix, 4, await)(last, &value), &value, 5);
        else
            let_run();
        SHOAL_EXPECT_INT(then_calls, fails(state) ? 0 : 2);
        SHOAL_EXPECT_INT(dropped, 0); /* the function took the value over */
    }
}

static int caught(void *arg, int code, const char *text, union shoal_value *out)
{
    ++*(int *)arg;
    SHOAL_EXPECT_INT(code, -EIO);
    SHOAL_EXPECT_STR(text, "why");
    *out = value_of(9);
    return 0;
}

static void finally(void *arg)
{
    ++*(int *)arg;
}

static struct shoal_future *inner_ready(void *arg, const union shoal_value *in)
{
    ++*(int *)arg;
    return shoal_future_ready(in);
}

/* The consumers that are not inlined, on what inlined calls have made and before those. */
static void check_others(unsigned mix, enum state state, bool hook)
{
    int calls = 0;
    then_calls = dropped = 0;
    union shoal_value value = value_of(1);
    struct shoal_future *future = make(mix, state, hook);
    struct shoal_future *last = shoal_catch(future, caught, &calls);
    last = FORM(mix, 2, then)(last, pass_on, &then_calls);
    settle(future, state);
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(last, &value), 0);
    if (fails(state))
        SHOAL_EXPECT(is_value_of(&value, 9));
    else
        expect_outcome(state, 0, &value, 5);
    SHOAL_EXPECT_INT(calls, fails(state));
    SHOAL_EXPECT_INT(then_calls, 1);

    value = value_of(1);
    calls = 0;
    future = make(mix, state, hook);
    last = shoal_finally(future, finally, &calls);
    last = shoal_then_future(last, inner_ready, &calls);
    last = FORM(mix, 2, then)(last, pass_on, &then_calls);
    settle(future, state);
    SHOAL_EXPECT_INT(calls, 0);
    expect_outcome(state, FORM(mix, 4, await)(last, &value), &value, 5);
    SHOAL_EXPECT_INT(calls, fails(state) ? 1 : 2);
    SHOAL_EXPECT_INT(dropped, 0);
}

static int every_pair(void *arg)
{
    (void)arg;
    uint32_t before = live();
    for (unsigned mix = 0; mix < MIXES; mix++) {
        for (enum state state = READY; state < STATES; state++) {
            for (int hook = 0; hook < 2; hook++) {
                if (hook != 0 && state == READY_NULL)
                    continue;
                check_await(mix, state, hook);
                check_discard(mix, state, hook);
                check_then(mix, state, hook);
                check_others(mix, state, hook);
                SHOAL_EXPECT_INT(live(), before);
            }
        }
    }
    return 0;
}

static void future_inline_and_library_agree_on_every_consumer_and_state(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, every_pair, NULL), 0);
}

/* ---- Cancel ---- */

static void fail_cancelled(void *ctx)
{
    shoal_future_fail(ctx, -ECANCELED, "asked to");
}

static int cancel_chains(void *arg)
{
    (void)arg;
    for (unsigned mix = 0; mix < MIXES; mix++) {
        struct shoal_future *root = FORM(mix, 0, make)();
        shoal_future_on_cancel(root, fail_cancelled, root);
        struct shoal_future *last = root;
        for (unsigned i = 0; i < 5; i++) /* links of both forms */
            last = FORM(mix, i, then)(last, shoal_test_unexpected_then, NULL);
        shoal_future_cancel(last);
        SHOAL_EXPECT(!shoal_future_is_pending(root));
        SHOAL_EXPECT_INT(FORM(mix, 4, await)(last, NULL), -ECANCELED);
        SHOAL_EXPECT_STR(shoal_error_message(), "asked to");
    }
    return 0;
}

static void future_inline_chain_passes_a_cancel_to_its_root(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, cancel_chains, NULL), 0);
}

/* ---- On a cancelled fiber ---- */

static int awaiter(void *arg)
{
    unsigned mix = *(unsigned *)arg;
    union shoal_value value = value_of(1), five = value_of(5);
    dropped = 0;
    shoal_fiber_cancel(shoal_fiber_self());
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), -ECANCELED);
    SHOAL_EXPECT(is_value_of(&value, 1));
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(make(mix, READY, true), &value), -ECANCELED);
    SHOAL_EXPECT_INT(dropped, 1);
    SHOAL_EXPECT_INT(shoal_yield(), -ECANCELED); /* another has run: it is known still */
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), -ECANCELED);
    shoal_fiber_shield();
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), 0);
    SHOAL_EXPECT(is_value_of(&value, 5));
    shoal_fiber_shield();
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), 0);
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(FORM(mix, 4, await)(FORM(mix, 1, ready)(&five), &value), -ECANCELED);
    return 0;
}

static int uncancelled(void *arg)
{
    union shoal_value five = value_of(5);
    for (int i = 0; i < 20; i++) {
        SHOAL_EXPECT_INT(shoal_yield(), 0);
        SHOAL_EXPECT_INT(FORM(*(unsigned *)arg, 4, await)(shoal_future_ready(&five), NULL), 0);
    }
    return 0;
}

static int cancelled(void *arg)
{
    (void)arg;
    for (unsigned mix = 0; mix < MIXES; mix++) {
        struct shoal_fiber *fibers[3];
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[0], uncancelled, &mix, "before"), 0);
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[1], awaiter, &mix, "cancelled"), 0);
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[2], uncancelled, &mix, "after"), 0);
        for (int i = 0; i < 3; i++)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    }
    return 0;
}

static void future_inline_await_sees_the_cancel_of_its_fiber_alone(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, cancelled, NULL), 0);
}

/* ---- Misuse ---- */

static int await_outside(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)out;
    return FORM(*(unsigned *)arg, 4, await)(FORM(*(unsigned *)arg, 1, ready)(in), NULL);
}

static int await_in_continuation(void *arg)
{
    unsigned *mix = arg;
    return shoal_await(FORM(*mix, 2, then)(shoal_future_ready(NULL), await_outside, mix), NULL);
}

#define BY_DISCARD MIXES /* beside the bits of a mix */

static int consume_twice(void *arg)
{
    unsigned mix = *(unsigned *)arg;
    struct shoal_future *future = FORM(mix, 0, make)();
    (void)FORM(mix, 2, then)(future, pass_on, &then_calls);
    if ((mix & BY_DISCARD) != 0)
        FORM(mix, 3, discard)(future);
    else
        (void)FORM(mix, 2, then)(future, pass_on, &then_calls);
    return 0;
}

static int run_await_in_continuation(void *arg)
{
    return shoal_test_run(1, await_in_continuation, arg);
}

static int run_consume_twice(void *arg)
{
    return shoal_test_run(1, consume_twice, arg);
}

static void future_inline_misuse_meets_the_librarys_checks(void **state)
{
    (void)state;
    for (unsigned mix = 0; mix < MIXES; mix += MIXES - 1) {
        shoal_test_aborts_with(run_await_in_continuation, &mix, "await outside a fiber");
        shoal_test_aborts_with(run_consume_twice, &mix, "is consumed twice");
        unsigned discards = mix | BY_DISCARD;
        shoal_test_aborts_with(run_consume_twice, &discards, "is consumed twice");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(future_inline_and_library_agree_on_every_consumer_and_state),
        cmocka_unit_test(future_inline_chain_passes_a_cancel_to_its_root),
        cmocka_unit_test(future_inline_await_sees_the_cancel_of_its_fiber_alone),
        cmocka_unit_test(future_inline_misuse_meets_the_librarys_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
