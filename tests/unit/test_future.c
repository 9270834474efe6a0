/*
 * Futures: each numbered promise of future.h.
 */
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/mem.h"

#include "unit/harness.h"

static union shoal_value value_of(int64_t number)
{
    union shoal_value value = {.slice = {NULL, 0, 0}};
    value.i64 = number;
    return value;
}

static struct shoal_future *ready(int64_t number)
{
    union shoal_value value = value_of(number);
    return shoal_future_ready(&value);
}

static int add(void *arg, const union shoal_value *in, union shoal_value *out)
{
    out->i64 = in->i64 + (intptr_t)arg;
    return 0;
}

static int fail_with(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    (void)out;
    return (int)(intptr_t)arg;
}

/* ---- Values and failures ---- */

static int check_values(void *arg)
{
    (void)arg;
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(ready(7), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 7);
    SHOAL_EXPECT_INT(shoal_await(shoal_then(ready(7), add, (void *)3), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 10);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), &value), 0);
    for (size_t i = 0; i < sizeof(value.bytes); i++)
        SHOAL_EXPECT_INT(value.bytes[i], 0);
    union shoal_value whole;
    for (size_t i = 0; i < sizeof(whole.bytes); i++)
        whole.bytes[i] = (unsigned char)(i + 1);
    struct shoal_future *pending = shoal_future_new();
    SHOAL_EXPECT(shoal_future_is_pending(pending));
    shoal_future_resolve(pending, &whole);
    SHOAL_EXPECT(!shoal_future_is_pending(pending));
    SHOAL_EXPECT_INT(shoal_await(pending, &value), 0);
    SHOAL_EXPECT(memcmp(&value, &whole, sizeof(value)) == 0);
    SHOAL_EXPECT_INT(shoal_await(ready(7), NULL), 0);
    return 0;
}

static void future_value_arrives_whole(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_values, NULL), 0);
}

static int check_failures(void *arg)
{
    (void)arg;
    union shoal_value value = value_of(5);
    struct shoal_future *failed = shoal_future_failed(-EIO, "disk %d is gone", 3);
    failed = shoal_then(shoal_then(failed, shoal_test_unexpected_then, NULL),
                        shoal_test_unexpected_then, NULL);
    SHOAL_EXPECT_INT(shoal_await(failed, &value), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "disk 3 is gone") == 0);
    SHOAL_EXPECT_INT(value.i64, 5); /* untouched */
    SHOAL_EXPECT_INT(shoal_await(ready(1), NULL), 0);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "disk 3 is gone") == 0); /* until the next failure */
    SHOAL_EXPECT_INT(shoal_await(shoal_future_failed(-EPIPE, NULL), NULL), -EPIPE);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "") == 0);
    failed = shoal_then(shoal_then(ready(1), fail_with, (void *)-ENOENT),
                        shoal_test_unexpected_then, NULL);
    SHOAL_EXPECT_INT(shoal_await(failed, NULL), -ENOENT);
    failed = shoal_future_new();
    char text[32] = "copied";
    shoal_future_fail(failed, -EIO, text);
    text[0] = 'X';
    SHOAL_EXPECT_INT(shoal_await(failed, NULL), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "copied") == 0);
    return 0;
}

static void future_failure_skips_then_and_keeps_code_and_text(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_failures, NULL), 0);
}

static int rescue(void *arg, int code, const char *text, union shoal_value *out)
{
    SHOAL_EXPECT_INT(code, -EIO);
    SHOAL_EXPECT(strcmp(text, "why") == 0);
    out->i64 = (intptr_t)arg;
    return 0;
}

static int not_mine(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)text;
    (void)out;
    return code;
}

static int other_code(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)code;
    (void)text;
    (void)out;
    return (int)(intptr_t)arg;
}

static int check_catch(void *arg)
{
    (void)arg;
    union shoal_value value;
    struct shoal_future *f = shoal_catch(shoal_future_failed(-EIO, "why"), rescue, (void *)9);
    SHOAL_EXPECT_INT(shoal_await(shoal_then(f, add, (void *)1), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 10);
    f = shoal_catch(shoal_future_failed(-EIO, "why"), not_mine, NULL);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "why") == 0);
    f = shoal_catch(shoal_future_failed(-EIO, "why"), other_code, (void *)-EPERM);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), -EPERM);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "") == 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_catch(ready(4), rescue, NULL), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 4); /* a value passes by */
    return 0;
}

static void future_catch_rescues_passes_on_or_replaces(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_catch, NULL), 0);
}

static void count(void *arg)
{
    ++*(int *)arg;
}

static int check_finally(void *arg)
{
    (void)arg;
    int runs = 0;
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(shoal_finally(ready(4), count, &runs), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 4);
    SHOAL_EXPECT_INT(runs, 1);
    struct shoal_future *f = shoal_finally(shoal_future_failed(-EIO, "why"), count, &runs);
    SHOAL_EXPECT_INT(shoal_await(f, &value), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "why") == 0);
    SHOAL_EXPECT_INT(runs, 2);
    return 0;
}

static void future_finally_runs_either_way_and_changes_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_finally, NULL), 0);
}

static struct shoal_future *inner_pending;

static struct shoal_future *give_inner(void *arg, const union shoal_value *in)
{
    SHOAL_EXPECT_INT(in->i64, (intptr_t)arg);
    inner_pending = shoal_future_new();
    return inner_pending;
}

static struct shoal_future *give_ready(void *arg, const union shoal_value *in)
{
    return ready(in->i64 * (intptr_t)arg);
}

static struct shoal_future *give_failed(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)in;
    return shoal_future_failed(-EIO, "inner");
}

static int check_then_future(void *arg)
{
    (void)arg;
    union shoal_value value;
    struct shoal_future *f = shoal_then_future(ready(2), give_inner, (void *)2);
    f = shoal_then(f, add, (void *)1);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(shoal_future_is_pending(f));
    value = value_of(30);
    shoal_future_resolve(inner_pending, &value);
    SHOAL_EXPECT_INT(shoal_await(f, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 31);
    SHOAL_EXPECT_INT(shoal_await(shoal_then_future(ready(6), give_ready, (void *)7), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 42);
    SHOAL_EXPECT_INT(shoal_await(shoal_then_future(ready(6), give_failed, NULL), NULL), -EIO);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "inner") == 0);
    f = shoal_then_future(shoal_future_failed(-EPERM, "outer"), give_failed, NULL);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), -EPERM);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "outer") == 0);
    return 0;
}

static void future_then_future_takes_the_inner_outcome(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_then_future, NULL), 0);
}

/* ---- Chains ---- */

#define CHAIN 100000

static uintptr_t stack_low, stack_high;

static int add_and_note_stack(void *arg, const union shoal_value *in, union shoal_value *out)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    stack_low = stack_low == 0 || here < stack_low ? here : stack_low;
    stack_high = here > stack_high ? here : stack_high;
    return add(arg, in, out);
}

static int check_long_chain(void *arg)
{
    struct shoal_future *first = shoal_future_new();
    struct shoal_future *last = first;
    for (int i = 0; i < CHAIN; i++)
        last = shoal_then(last, add_and_note_stack, (void *)1);
    union shoal_value value = value_of(0);
    stack_low = stack_high = 0;
    bool failing = arg != NULL;
    if (failing)
        shoal_future_fail(first, -EIO, "from the far end");
    else
        shoal_future_resolve(first, &value);
    SHOAL_EXPECT_INT(shoal_await(last, &value), failing ? -EIO : 0);
    if (failing) {
        SHOAL_EXPECT(strcmp(shoal_error_message(), "from the far end") == 0);
    } else {
        SHOAL_EXPECT_INT(value.i64, CHAIN);
        SHOAL_EXPECT(stack_high - stack_low < 64);
    }
    return 0;
}

static void future_chain_of_any_length_uses_constant_stack(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_long_chain, NULL), 0);
    assert_int_equal(shoal_test_run(1, check_long_chain, (void *)1), 0);
}

static struct shoal_future *nest(void *arg, const union shoal_value *in)
{
    intptr_t left = (intptr_t)arg;
    if (left == 0)
        return ready(in->i64);
    return shoal_then_future(ready(in->i64 + 1), nest, (void *)(left - 1));
}

static int check_long_nest(void *arg)
{
    (void)arg;
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(shoal_then_future(ready(0), nest, (void *)CHAIN), &value), 0);
    SHOAL_EXPECT_INT(value.i64, CHAIN);
    return 0;
}

static void future_nested_then_future_uses_constant_stack(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_long_nest, NULL), 0);
}

static int set_flag(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)in;
    (void)out;
    *(bool *)arg = true;
    return 0;
}

static int check_never_inside(void *arg)
{
    (void)arg;
    bool ran = false;
    struct shoal_future *f = shoal_then(ready(1), set_flag, &ran);
    SHOAL_EXPECT(!ran); /* not inside the call that registers */
    SHOAL_EXPECT_INT(shoal_await(f, NULL), 0);
    SHOAL_EXPECT(ran);
    ran = false;
    struct shoal_future *pending = shoal_future_new();
    f = shoal_then(pending, set_flag, &ran);
    shoal_future_resolve(pending, NULL);
    SHOAL_EXPECT(!ran); /* nor inside the one that resolves */
    SHOAL_EXPECT_INT(shoal_await(f, NULL), 0);
    SHOAL_EXPECT(ran);
    /* An await of a ready future does not let anything else run. */
    bool other = false;
    f = shoal_then(ready(1), set_flag, &other);
    SHOAL_EXPECT_INT(shoal_await(ready(1), NULL), 0);
    SHOAL_EXPECT(!other);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), 0);
    return 0;
}

static void future_continuations_run_from_the_queue_only(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_never_inside, NULL), 0);
}

/* ---- Drop, discard, cancel ---- */

static int dropped;

static void drop(union shoal_value *value)
{
    dropped += (int)value->i64;
}

static struct shoal_future *droppable(void)
{
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_drop(future, drop);
    return future;
}

static int check_drop(void *arg)
{
    (void)arg;
    union shoal_value value = value_of(1);
    dropped = 0;
    struct shoal_future *f = droppable();
    shoal_discard(f);
    shoal_future_resolve(f, &value); /* the value comes late */
    SHOAL_EXPECT_INT(dropped, 1);
    f = droppable();
    shoal_future_resolve(f, &value);
    shoal_discard(f); /* it is there already */
    SHOAL_EXPECT_INT(dropped, 2);
    f = droppable();
    shoal_future_resolve(f, &value);
    SHOAL_EXPECT_INT(shoal_await(f, &value), 0); /* consumed: the caller's */
    SHOAL_EXPECT_INT(dropped, 2);
    f = droppable();
    shoal_future_resolve(f, &value);
    SHOAL_EXPECT_INT(shoal_await(f, NULL), 0); /* not wanted */
    SHOAL_EXPECT_INT(dropped, 3);
    int runs = 0;
    f = droppable();
    shoal_discard(shoal_finally(f, count, &runs)); /* passes through a chain */
    shoal_future_resolve(f, &value);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(runs, 1);
    SHOAL_EXPECT_INT(dropped, 4);
    f = droppable();
    shoal_discard(f);
    shoal_future_fail(f, -EIO, "nobody hears");
    SHOAL_EXPECT_INT(dropped, 4);
    shoal_discard(shoal_future_failed(-EIO, "nobody hears"));
    return 0;
}

static void future_unwanted_value_goes_to_the_drop_hook(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_drop, NULL), 0);
}

static void cancel_to_failure(void *ctx)
{
    shoal_future_fail(*(struct shoal_future **)ctx, -ECANCELED, "was asked to");
}

static int check_cancel_chain(void *arg)
{
    (void)arg;
    struct shoal_future *root = shoal_future_new();
    shoal_future_on_cancel(root, cancel_to_failure, &root);
    struct shoal_future *last = root;
    for (int i = 0; i < 100; i++)
        last = shoal_then(last, shoal_test_unexpected_then, NULL);
    shoal_future_cancel(last);
    SHOAL_EXPECT_INT(shoal_await(last, NULL), -ECANCELED);
    SHOAL_EXPECT(strcmp(shoal_error_message(), "was asked to") == 0);
    struct shoal_future *deaf = shoal_future_new();
    shoal_future_cancel(deaf); /* no hook: nothing happens */
    SHOAL_EXPECT(shoal_future_is_pending(deaf));
    shoal_future_resolve(deaf, NULL);
    shoal_future_cancel(deaf);
    SHOAL_EXPECT_INT(shoal_await(deaf, NULL), 0);
    return 0;
}

static struct shoal_future *cancel_root;

static struct shoal_future *inner_with_cancel(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)in;
    cancel_root = shoal_future_new();
    shoal_future_on_cancel(cancel_root, cancel_to_failure, &cancel_root);
    return cancel_root;
}

static int check_cancel_inner(void *arg)
{
    (void)arg;
    struct shoal_future *last = shoal_then_future(ready(1), inner_with_cancel, NULL);
    last = shoal_then(last, shoal_test_unexpected_then, NULL);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    shoal_future_cancel(last);
    SHOAL_EXPECT_INT(shoal_await(last, NULL), -ECANCELED);
    return 0;
}

static void future_cancel_reaches_the_producer_through_a_chain(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancel_chain, NULL), 0);
    assert_int_equal(shoal_test_run(1, check_cancel_inner, NULL), 0);
}

/* ---- Out of memory ---- */

/* Takes all that is left, in pieces that get smaller. */
static size_t hog(void **pieces, size_t *sizes, size_t max)
{
    size_t count_taken = 0;
    for (size_t bytes = 1 << 20; bytes >= 64; bytes /= 2)
        while (count_taken < max && (pieces[count_taken] = shoal_mem_alloc(bytes)) != NULL)
            sizes[count_taken++] = bytes;
    return count_taken;
}

static int check_out_of_memory(void *arg)
{
    (void)arg;
    static void *pieces[4096];
    static size_t sizes[4096];
    dropped = 0;
    struct shoal_future *kept = droppable();
    union shoal_value value = value_of(1);
    size_t taken = hog(pieces, sizes, SHOAL_ARRAY_SIZE(pieces));
    static struct shoal_future *futures[1 << 16];
    size_t made = 0;
    while (made < SHOAL_ARRAY_SIZE(futures)) {
        struct shoal_future *future = shoal_future_new();
        SHOAL_EXPECT(future != NULL);
        if (!shoal_future_is_pending(future))
            break;
        futures[made++] = future;
    }
    SHOAL_EXPECT(made > 0 && made < SHOAL_ARRAY_SIZE(futures));
    SHOAL_EXPECT_INT(shoal_await(shoal_future_new(), &value), -ENOMEM);
    SHOAL_EXPECT_INT(shoal_await(ready(1), &value), -ENOMEM);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_failed(-EIO, "x"), &value), -ENOMEM);
    shoal_discard(shoal_future_new());
    value = value_of(1);
    shoal_future_resolve(kept, &value);
    /* What came before it in the chain is discarded. */
    SHOAL_EXPECT_INT(shoal_await(shoal_then(kept, shoal_test_unexpected_then, NULL), NULL),
                     -ENOMEM);
    SHOAL_EXPECT_INT(dropped, 1);
    int runs = 0;
    /* Giving `kept` back made room for one (not in checked builds, which quarantine it). */
    (void)shoal_await(shoal_finally(shoal_future_ready(NULL), count, &runs), NULL);
    SHOAL_EXPECT_INT(runs, 1);
    for (size_t i = 0; i < made; i++) {
        shoal_discard(futures[i]);
        shoal_future_resolve(futures[i], NULL);
    }
    while (taken > 0) {
        taken--;
        shoal_mem_free(pieces[taken], sizes[taken]);
    }
    SHOAL_EXPECT_INT(shoal_await(ready(5), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 5);
    SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->hot.futures),
                     1); /* the core's own -ENOMEM future */
    return 0;
}

static void future_out_of_memory_fails_with_enomem_and_leaks_nothing(void **state)
{
    (void)state;
    const char *const options[] = {"--memory", "16M", NULL};
    assert_int_equal(shoal_test_run_with(1, options, check_out_of_memory, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(future_value_arrives_whole),
        cmocka_unit_test(future_failure_skips_then_and_keeps_code_and_text),
        cmocka_unit_test(future_catch_rescues_passes_on_or_replaces),
        cmocka_unit_test(future_finally_runs_either_way_and_changes_nothing),
        cmocka_unit_test(future_then_future_takes_the_inner_outcome),
        cmocka_unit_test(future_chain_of_any_length_uses_constant_stack),
        cmocka_unit_test(future_nested_then_future_uses_constant_stack),
        cmocka_unit_test(future_continuations_run_from_the_queue_only),
        cmocka_unit_test(future_unwanted_value_goes_to_the_drop_hook),
        cmocka_unit_test(future_cancel_reaches_the_producer_through_a_chain),
        cmocka_unit_test(future_out_of_memory_fails_with_enomem_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
