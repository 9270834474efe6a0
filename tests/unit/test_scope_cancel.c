/* backends: both */
/*
 * Scopes in scopes, shields, and cancels that race with the end of a scope.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/scope.h"

#include "unit/scope_check.h"

static int cancel_then_sleep(void *arg)
{
    shoal_scope_cancel(arg); /* a child cancels the scope that it runs in */
    return shoal_sleep_ns(HOUR_NS);
}

static int child_cancels(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child child = {.sleep_ns = HOUR_NS};
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, cancel_then_sleep, &scope, "canceller"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(child.slept, -ECANCELED);
    SHOAL_EXPECT(!shoal_fiber_cancelled()); /* the owner was leaving */
    shoal_scope_enter(&scope, NULL);
    shoal_scope_cancel(&scope); /* the owner itself */
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), 0);
    return 0;
}

static void scope_cancelled_from_inside_ends(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, child_cancels, NULL), 0);
}

static int fail_after_cancel(void *arg)
{
    (void)shoal_sleep_ns(HOUR_NS);
    return *(int *)arg;
}

static int late_failures(void *arg)
{
    (void)arg;
    static const struct {
        int codes[2];
        int expected;
    } cases[] = {
        {{-ECANCELED, -ECANCELED}, 0}, /* what was asked for is no failure */
        {{-ECANCELED, -EIO}, -EIO},    /* a failure on the way out is one */
        {{-EIO, -EPERM}, -EIO},        /* the first one stays */
        {{-ETIMEDOUT, 0}, -ETIMEDOUT}, /* not by this cancel */
        {{5, 0}, 0},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++) {
        struct shoal_scope scope;
        int codes[2] = {cases[i].codes[0], cases[i].codes[1]};
        shoal_scope_enter(&scope, &(struct shoal_scope_options){.cancel_on_failure = true});
        for (int j = 0; j < 2; j++)
            SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, fail_after_cancel, &codes[j], "late"), 0);
        SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
        shoal_scope_cancel(&scope);
        SHOAL_EXPECT_INT(shoal_scope_leave(&scope), cases[i].expected);
    }
    return 0;
}

static void scope_cancelled_child_that_fails_of_itself_is_told(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, late_failures, NULL), 0);
}

static int spawn_late(void *arg)
{
    (void)shoal_sleep_ns(MS);
    static struct child grown;
    grown = (struct child){.sleep_ns = MS, .result = -EPERM};
    return shoal_scope_spawn(arg, child_main, &grown, "spawned by a child");
}

static int children_spawn(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    shoal_scope_enter(&scope, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, spawn_late, &scope, "child"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -EPERM); /* waits for that one, too */
    return 0;
}

static void scope_leave_waits_for_what_children_spawn_meanwhile(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, children_spawn, NULL), 0);
}

/* Cancels of both kinds at once: what is left when the scopes are gone one by one. */
static int layered_main(void *arg)
{
    struct shoal_scope outer, inner;
    shoal_scope_enter(&outer, &(struct shoal_scope_options){.timeout_ns = MS});
    shoal_scope_enter(&inner, NULL);
    shoal_scope_cancel(&inner);
    SHOAL_EXPECT_INT(shoal_yield(), -ECANCELED);
    shoal_fiber_shield();
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * MS), 0); /* the outer one's deadline passes */
    SHOAL_EXPECT(!shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), 0);
    shoal_fiber_unshield();
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_scope_leave(&inner), 0);
    SHOAL_EXPECT_INT(shoal_yield(), -ETIMEDOUT);
    if (arg != NULL)
        shoal_fiber_cancel(shoal_fiber_self());
    SHOAL_EXPECT_INT(shoal_scope_leave(&outer), -ETIMEDOUT);
    return shoal_yield();
}

static int layers(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, layered_main, NULL, "layers"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, layered_main, &fiber, "layers"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    return 0;
}

static void scope_cancels_of_several_layers_end_each_with_its_own(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, layers, NULL), 0);
}

static int outer_deadline_reaches(void *arg)
{
    (void)arg;
    struct shoal_scope outer, inner;
    struct child child = {.sleep_ns = HOUR_NS}, late = {.sleep_ns = HOUR_NS};
    shoal_scope_enter(&outer, &(struct shoal_scope_options){.timeout_ns = MS});
    shoal_scope_enter(&inner, NULL);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&inner, child_main, &child, "child"), 0);
    shoal_fiber_shield(); /* the owner goes on undisturbed, what it has spawned does not */
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * MS), 0);
    SHOAL_EXPECT_INT(child.ended, 1);
    SHOAL_EXPECT_INT(child.slept, -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&inner, child_main, &late, "late"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&inner), 0);
    SHOAL_EXPECT_INT(late.slept, -ETIMEDOUT);
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(shoal_scope_leave(&outer), -ETIMEDOUT);
    return 0;
}

static void scope_inside_a_cancelled_one_spawns_cancelled_fibers(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, outer_deadline_reaches, NULL), 0);
}

static int clean_up(void *arg)
{
    struct child *goodbye = arg;
    SHOAL_EXPECT_INT(shoal_sleep_ns(HOUR_NS), -ETIMEDOUT);
    struct shoal_scope scope;
    shoal_fiber_shield();
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = 2 * MS});
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, goodbye, "goodbye"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    shoal_fiber_unshield();
    return 0;
}

static int shielded_timeout(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child goodbye = {.sleep_ns = HOUR_NS};
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = MS});
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, clean_up, &goodbye, "cleaner"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), -ETIMEDOUT);
    SHOAL_EXPECT_INT(goodbye.slept, -ETIMEDOUT);
    return 0;
}

static void scope_timeout_of_a_shielded_cleanup_holds(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, shielded_timeout, NULL), 0);
}

struct race {
    struct shoal_scope scope;
    struct child child;
    struct shoal_fiber *owner;
    bool entered;
    bool last_ended;
};

static int race_owner(void *arg)
{
    struct race *race = arg;
    shoal_scope_enter(&race->scope, NULL);
    race->entered = true;
    struct child quick = {.sleep_ns = MS};
    SHOAL_EXPECT_INT(shoal_scope_spawn(&race->scope, child_main, &quick, "quick"), 0);
    SHOAL_EXPECT_INT(shoal_scope_leave(&race->scope), 0);
    return 0;
}

/* The last child has ended and its owner is about to run: another child, and then a cancel. */
static int cancel_woken_owner(void *arg)
{
    (void)arg;
    struct race race = {.child = {.sleep_ns = 2 * SHOAL_NS_PER_S}};
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&race.owner, race_owner, &race, "owner"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT(race.entered);
    while (shoal_list_linked(&race.scope.children))
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(race.owner->state, SHOAL_FIBER_READY);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&race.scope, child_main, &race.child, "late"), 0);
    shoal_fiber_cancel(race.owner);
    SHOAL_EXPECT_INT(shoal_fiber_join(race.owner), 0);
    SHOAL_EXPECT_INT(race.child.slept, -ECANCELED);
    return 0;
}

static void scope_cancel_of_an_owner_that_was_woken_is_not_lost(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, cancel_woken_owner, NULL), 0);
}

static int endless_timeout(void *arg)
{
    (void)arg;
    struct shoal_scope scope;
    struct child child = {.sleep_ns = 1000};
    shoal_scope_enter(&scope, &(struct shoal_scope_options){.timeout_ns = SHOAL_NS_FOREVER});
    SHOAL_EXPECT(shoal_fiber_deadline_ns() == SHOAL_NS_FOREVER);
    SHOAL_EXPECT_INT(shoal_scope_spawn(&scope, child_main, &child, "child"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(MS), 0);
    SHOAL_EXPECT(shoal_timer_armed(&scope.timer));
    SHOAL_EXPECT_INT(shoal_scope_leave(&scope), 0);
    SHOAL_EXPECT(!shoal_timer_armed(&scope.timer)); /* it would fire into the dead scope */
    return 0;
}

static void scope_timeout_of_forever_never_comes(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, endless_timeout, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scope_cancelled_from_inside_ends),
        cmocka_unit_test(scope_cancelled_child_that_fails_of_itself_is_told),
        cmocka_unit_test(scope_leave_waits_for_what_children_spawn_meanwhile),
        cmocka_unit_test(scope_cancels_of_several_layers_end_each_with_its_own),
        cmocka_unit_test(scope_inside_a_cancelled_one_spawns_cancelled_fibers),
        cmocka_unit_test(scope_timeout_of_a_shielded_cleanup_holds),
        cmocka_unit_test(scope_cancel_of_an_owner_that_was_woken_is_not_lost),
        cmocka_unit_test(scope_timeout_of_forever_never_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
