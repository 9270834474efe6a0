/* backends: both */
/*
 * Scopes, deadlines and fiber-local data.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/scope.h"

#include "unit/scope_check.h"

static int leave_waits(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child children[50] = {{0}};
    shoal_scope_enter(&scope, NULL);
    for (int i = 0; i < 50; i++) {
        children[i].sleep_ns = (uint64_t)(i % 7) * 100000;
        SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &children[i], "child"), 0);
    }
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    for (int i = 0; i < 50; i++)
        SHOAL_EXPECT_INT(children[i].ended, 1);
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0); /* an empty one */
    return 0;
}

static void scope_leave_waits_for_all_children(void **state)
{
    (void)state;
    shoal_test_run(1, leave_waits, NULL);
}

static int failure_kept(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child quick = {.result = -EIO}, slow = {.sleep_ns = 2 * MS, .result = -EPERM};
    struct child positive = {.result = 7};
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &slow, "slow"), 0);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &positive, "positive"), 0);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &quick, "quick"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -EIO);
    SHOAL_EXPECT_INT(slow.slept, 0); /* without the option nobody is cancelled */
    SHOAL_EXPECT_INT(slow.ended + quick.ended + positive.ended, 3);
    return 0;
}

static void scope_failure_of_the_first_child_is_returned(void **state)
{
    (void)state;
    shoal_test_run(1, failure_kept, NULL);
}

static int failure_cancels(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child quick = {.sleep_ns = MS, .result = -EIO}, slow = {.sleep_ns = HOUR_NS};
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.cancel_on_failure = true});
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &slow, "slow"), 0);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &quick, "quick"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ECANCELED); /* the owner, too, until it leaves */
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -EIO);
    SHOAL_EXPECT_INT(slow.slept, -ECANCELED);
    SHOAL_EXPECT(!shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    return 0;
}

static void scope_failure_cancels_the_others_when_asked(void **state)
{
    (void)state;
    shoal_test_run(1, failure_cancels, NULL);
}

static int deadline_ends(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child child = {.sleep_ns = HOUR_NS};
    SHOAL_EXPECT(shoal_fiber_deadline_ns() == SHOAL_NS_FOREVER);
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * MS});
    SHOAL_EXPECT(shoal_fiber_deadline_ns() <= shoal_now_ns() + 2 * MS);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "child"), 0);
    struct shoal_future *never = shoal_future_new();
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_yield(), -ETIMEDOUT);
    shoal_future_resolve(never, NULL);
    SHOAL_EXPECT_INT(shoal_await(never, NULL), -ETIMEDOUT); /* also where it is ready */
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT_INT(child.slept, -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), 0);
    SHOAL_EXPECT(shoal_fiber_deadline_ns() == SHOAL_NS_FOREVER);
    return 0;
}

static void scope_deadline_ends_the_owners_waits_and_the_children(void **state)
{
    (void)state;
    shoal_test_run(1, deadline_ends, NULL);
}

static void fail_cancelled(void *ctx)
{
    shoal_future_fail(ctx, -ECANCELED, "asked to");
}

static int deadline_in_await(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = MS});
    struct shoal_future *pending = shoal_future_new();
    shoal_future_on_cancel(pending, fail_cancelled, pending);
    SHOAL_EXPECT_INT(shoal_await(pending, NULL), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    return 0;
}

static void scope_deadline_in_an_await_is_a_timeout(void **state)
{
    (void)state;
    shoal_test_run(1, deadline_in_await, NULL);
}

static int deadline_in_leave(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child child = {.sleep_ns = HOUR_NS};
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = MS});
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT_INT(child.slept, -ETIMEDOUT);
    /* In time: the timer is gone with the scope. */
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = MS});
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * MS), 0);
    return 0;
}

static void scope_deadline_while_leaving_cancels_the_children(void **state)
{
    (void)state;
    shoal_test_run(1, deadline_in_leave, NULL);
}

static int nested_deadlines(void *arg)
{
    (void)arg;
    struct shoal_scope outer, inner;
    shoal_scope_enter(&outer, &(struct shoal_scope_options){.timeout_ns = 2 * MS});
    uint64_t nearest_ns = shoal_fiber_deadline_ns();
    shoal_scope_enter(&inner, &(struct shoal_scope_options){.timeout_ns = HOUR_NS});
    SHOAL_EXPECT(shoal_fiber_deadline_ns() == nearest_ns);
    struct child child = {.sleep_ns = HOUR_NS};
    SHOAL_EXPECT_INT(shoal_scope_spawn(&inner, child_main, &child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&inner), 0); /* it was the outer one's deadline */
    SHOAL_EXPECT_INT(child.slept, -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&outer), -ETIMEDOUT);

    shoal_scope_enter(&outer, &(struct shoal_scope_options){.timeout_ns = HOUR_NS});
    shoal_scope_enter(&inner, &(struct shoal_scope_options){.timeout_ns = MS});
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_leave(&inner), -ETIMEDOUT);
    SHOAL_EXPECT(!shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&outer), 0);
    return 0;
}

static void scope_nested_the_nearest_deadline_wins(void **state)
{
    (void)state;
    shoal_test_run(1, nested_deadlines, NULL);
}

static int grandchild_deadline(void *arg)
{
    uint64_t *deadline_ns = arg;
    *deadline_ns = shoal_fiber_deadline_ns();
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT(shoal_fiber_deadline_ns() == *deadline_ns);
    struct child child = {.sleep_ns = HOUR_NS};
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "grandchild"), 0);
    int rc = shoal_scope_leave(&scope); /* cancelled as a child: so are its own */
    SHOAL_EXPECT_INT(rc, 0);
    SHOAL_EXPECT_INT(child.slept, -ETIMEDOUT);
    return shoal_sleep_ns(1000);
}

static int tree_deadline(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    uint64_t seen_ns = 0;
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * MS});
    uint64_t deadline_ns = shoal_fiber_deadline_ns();
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, grandchild_deadline, &seen_ns, "child"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT(seen_ns == deadline_ns);
    return 0;
}

static void scope_deadline_holds_for_the_whole_tree(void **state)
{
    (void)state;
    shoal_test_run(1, tree_deadline, NULL);
}

static int canceller(void *arg)
{
    (void)shoal_sleep_ns(MS);
    shoal_scope_cancel(arg);
    shoal_scope_cancel(arg); /* twice is as good as once */
    return 0;
}

static int cancel_scope(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child child = {.sleep_ns = HOUR_NS}, late = {.sleep_ns = HOUR_NS};
    struct shoal_fiber *other;
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&other, canceller, &scope, "canceller"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &late, "late"), 0);
    shoal_fiber_shield();
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0); /* asked for, and so no failure */
    SHOAL_EXPECT_INT(child.slept, -ECANCELED);
    SHOAL_EXPECT_INT(late.slept, -ECANCELED);
    SHOAL_EXPECT_INT(shoal_fiber_join(other), 0);
    return 0;
}

static void scope_cancel_ends_with_the_scope(void **state)
{
    (void)state;
    shoal_test_run(1, cancel_scope, NULL);
}

static int owner_main(void *arg)
{
    struct child *child = arg;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT(shoal_fiber_cancelled()); /* its own cancel outlives the scope */
    return shoal_sleep_ns(HOUR_NS);
}

static int owner_cancelled(void *arg)
{
    (void)arg;
    struct child child = {.sleep_ns = HOUR_NS};
    struct shoal_fiber *owner;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&owner, owner_main, &child, "owner"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(MS), 0);
    shoal_fiber_cancel(owner);
    SHOAL_EXPECT_INT(shoal_fiber_join(owner), -ECANCELED);
    SHOAL_EXPECT_INT(child.slept, -ECANCELED);
    SHOAL_EXPECT_INT(child.ended, 1);
    return 0;
}

static void scope_cancel_of_the_owner_cancels_the_children_and_waits(void **state)
{
    (void)state;
    shoal_test_run(1, owner_cancelled, NULL);
}

static int leak_scope(void *arg)
{
    (void)arg;
    static struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    return 0;
}

static void scope_not_left_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, leak_scope, "returns from within a scope");
}

static int cross_scopes(void *arg)
{
    (void)arg;
    struct shoal_scope outer, inner;
    shoal_scope_enter(&outer, NULL);
    shoal_scope_enter(&inner, NULL);
    return shoal_scope_leave(&outer);
}

static void scope_left_out_of_order_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, cross_scopes, "not the innermost");
}

/* ---- Fiber-local data ---- */

static int destroyed;

static void count_destroyed(void *value)
{
    destroyed += *(int *)value;
    SHOAL_EXPECT(shoal_fiber_self() != NULL);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0); /* it may wait */
}

static const struct shoal_fiber_key key_a = {.destroy = count_destroyed};
static const struct shoal_fiber_key key_b = {.destroy = count_destroyed};
static const struct shoal_fiber_key key_c = {.destroy = NULL};

static int local_main(void *arg)
{
    int *value = arg;
    int other = 1000;
    SHOAL_EXPECT(shoal_fiber_local_get(&key_a) == NULL);
    SHOAL_EXPECT_INT(shoal_fiber_local_set(&key_a, value), 0);
    SHOAL_EXPECT_INT(shoal_fiber_local_set(&key_b, &other), 0);
    SHOAL_EXPECT_INT(shoal_fiber_local_set(&key_c, &other), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(shoal_fiber_local_get(&key_a) == value);
    SHOAL_EXPECT(shoal_fiber_local_get(&key_b) == &other);
    SHOAL_EXPECT(shoal_fiber_local_get(&key_c) == &other);
    SHOAL_EXPECT_INT(shoal_fiber_local_set(&key_b, NULL), 0); /* taken away: not destroyed */
    SHOAL_EXPECT_INT(shoal_fiber_local_set(&key_b, NULL), 0);
    SHOAL_EXPECT(shoal_fiber_local_get(&key_b) == NULL);
    return 0;
}

static int locals(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    int values[10];
    destroyed = 0;
    for (int round = 0; round < 2; round++) { /* a pooled fiber starts without */
        shoal_scope_enter(&scope, NULL);
        for (int i = 0; i < 10; i++) {
            values[i] = i;
            SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, local_main, &values[i], "local"), 0);
        }
        SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    }
    SHOAL_EXPECT_INT(destroyed, 90);
    SHOAL_EXPECT_INT(shoal_slab_live(&shoal_core_self->fibers.locals), 0);
    return 0;
}

static void fiber_local_values_belong_to_one_fiber_and_are_destroyed(void **state)
{
    (void)state;
    shoal_test_run(1, locals, NULL);
}

/* ---- Stacks of their own ---- */

static int deep(int levels)
{
    volatile char frame[4096];
    frame[0] = (char)levels;
    frame[sizeof(frame) - 1] = 1;
    return levels == 0 ? frame[0] : deep(levels - 1) + frame[sizeof(frame) - 1];
}

static int deep_main(void *arg)
{
    return deep(*(int *)arg);
}

static int large_stacks(void *arg)
{
    (void)arg;
    int levels = 1500; /* 6 MiB of frames */
    for (int round = 0; round < 3; round++) {
        struct shoal_fiber *fibers[4];
        const struct shoal_fiber_options options = {.name = "deep", .stack_bytes = 16u << 20};
        for (int i = 0; i < 4; i++)
            SHOAL_EXPECT_INT(shoal_fiber_spawn_with(&fibers[i], deep_main, &levels, &options), 0);
        for (int i = 0; i < 4; i++)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), levels);
    }
    int few = 3;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(NULL, deep_main, &few,
                                            &(struct shoal_fiber_options){.stack_bytes = 1}),
                     0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    struct shoal_fiber *none = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn_with(
                         &none, deep_main, &few,
                         &(struct shoal_fiber_options){.stack_bytes = SHOAL_FIBER_STACK_MAX + 1}),
                     -EINVAL);
    return 0;
}

static void fiber_stack_of_its_own_size_is_usable_and_given_back(void **state)
{
    (void)state;
    shoal_test_run(1, large_stacks, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scope_leave_waits_for_all_children),
        cmocka_unit_test(scope_failure_of_the_first_child_is_returned),
        cmocka_unit_test(scope_failure_cancels_the_others_when_asked),
        cmocka_unit_test(scope_deadline_ends_the_owners_waits_and_the_children),
        cmocka_unit_test(scope_deadline_in_an_await_is_a_timeout),
        cmocka_unit_test(scope_deadline_while_leaving_cancels_the_children),
        cmocka_unit_test(scope_nested_the_nearest_deadline_wins),
        cmocka_unit_test(scope_deadline_holds_for_the_whole_tree),
        cmocka_unit_test(scope_cancel_ends_with_the_scope),
        cmocka_unit_test(scope_cancel_of_the_owner_cancels_the_children_and_waits),
        cmocka_unit_test(scope_not_left_aborts),
        cmocka_unit_test(scope_left_out_of_order_aborts),
        cmocka_unit_test(fiber_local_values_belong_to_one_fiber_and_are_destroyed),
        cmocka_unit_test(fiber_stack_of_its_own_size_is_usable_and_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
