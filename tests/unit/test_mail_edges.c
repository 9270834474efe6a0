/*
 * The edges of messages: cancels before a call begins, time-outs at the bound, service groups that
 * come and go, no memory for the other end of a ring, texts of failures.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/scope.h"

#include "unit/mail_check.h"

/* ---- What has not begun never does ---- */

static atomic_bool began;

static int note_began(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_store(&began, true);
    return 0;
}

/* The call is read, and lies behind many tasks when the cancel, or the end of its time, comes. */
static int cancel_behind_tasks(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++) {
        struct shoal_submit call = {.fiber_fn = note_began};
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_begin_endless, NULL), NULL), 0);
        atomic_store(&began, false);
        struct shoal_future *future = shoal_submit(1, &call);
        mail_burn(30000);
        shoal_future_cancel(future);
        int rc = shoal_await(future, NULL);
        SHOAL_EXPECT(rc == (atomic_load(&began) ? 0 : -ECANCELED));
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, mail_end_endless, NULL), NULL), 0);
    }
    return 0;
}

static void mail_cancelled_call_that_has_not_begun_never_does(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, cancel_behind_tasks);
}

/* ---- A time-out at the bound ---- */

static atomic_bool hold_on;

static int hold(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    while (atomic_load(&hold_on))
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static int timeout_at_the_bound(void *arg)
{
    (void)arg;
    struct shoal_service_group *group;
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "one", 1), 0);
    atomic_store(&hold_on, true);
    struct shoal_submit call = {.fiber_fn = hold, .group = group};
    struct shoal_future *held = shoal_submit(1, &call);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 1), 1);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), -EBUSY);
    call.fiber_fn = note_began;
    call.timeout_ns = 2 * SHOAL_NS_PER_MS;
    atomic_store(&began, false);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), -ETIMEDOUT);
    SHOAL_EXPECT(!atomic_load(&began));
    atomic_store(&hold_on, false);
    SHOAL_EXPECT_INT(shoal_await(held, NULL), 0);
    call.timeout_ns = 0;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), 0);
    SHOAL_EXPECT_INT(shoal_service_group_in_flight(group, 1), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    return 0;
}

static void mail_timeout_ends_the_wait_at_the_bound(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, timeout_at_the_bound);
}

/* ---- The line for a credit ---- */

#define HELD 2

static atomic_uint held_ended;
static atomic_uint together;

static int hold_and_count(void *arg, union shoal_value *out)
{
    (void)hold(arg, out);
    atomic_fetch_add(&held_ended, 1);
    return 0;
}

/* Ends once all calls of the line have begun. */
static int meet(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&together, 1);
    while (atomic_load(&together) < HELD)
        (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return 0;
}

static int wait_in_line(void *arg)
{
    struct shoal_submit call = {.fiber_fn = meet, .group = arg};
    return shoal_await(shoal_submit(1, &call), NULL);
}

/* A full group, and fibers in the line, who may find no memory when it is their turn. */
static void release_the_line(unsigned in_flight, bool no_memory)
{
    struct shoal_service_group *group;
    struct shoal_future *held[HELD] = {NULL};
    struct shoal_fiber *fiber[HELD];
    SHOAL_EXPECT_INT(shoal_service_group_new(&group, "line", in_flight), 0);
    atomic_store(&hold_on, true);
    atomic_store(&held_ended, 0);
    atomic_store(&together, 0);
    struct shoal_submit call = {.fiber_fn = hold_and_count, .group = group};
    for (unsigned i = 0; i < in_flight; i++)
        held[i] = shoal_submit(1, &call);
    for (unsigned i = 0; i < HELD; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber[i], wait_in_line, group, "in line"), 0);
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    if (no_memory)
        shoal_fault_arm(&(struct shoal_fault_plan){.chance_ppm = 1000000});
    atomic_store(&hold_on, false);
    while (atomic_load(&held_ended) < in_flight) /* no look until all have ended */
        ;
    mail_burn(5 * SHOAL_NS_PER_MS);
    for (unsigned i = 0; i < HELD; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber[i]), no_memory ? -ENOMEM : 0);
    shoal_fault_disarm(NULL);
    for (unsigned i = 0; i < in_flight; i++)
        SHOAL_EXPECT_INT(shoal_await(held[i], NULL), 0);
    SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
}

static int line_for_a_credit(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++) {
        release_the_line(HELD, false);
        release_the_line(1, true);
    }
    return 0;
}

static void mail_credits_that_come_together_wake_the_whole_line(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, line_for_a_credit);
}

/* ---- Service groups come and go ---- */

static int use_group(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_submit call = {.fn = mail_nothing, .group = arg};
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit(i, &call), NULL), 0);
    return 0;
}

static void use_group_everywhere(struct shoal_service_group *group)
{
    struct shoal_future *done[MAIL_CORES_MAX] = {NULL};
    for (unsigned i = 0; i < shoal_core_count(); i++)
        done[i] = shoal_submit_fiber_to(i, use_group, group);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
}

static int make_group(void *arg, union shoal_value *out)
{
    (void)out;
    return shoal_service_group_new(arg, "of core 1", 2);
}

static int free_group(void *arg, union shoal_value *out)
{
    (void)out;
    return shoal_service_group_free(arg);
}

/* Beside other messages, from and to all cores, groups are made and freed on different cores. */
static int groups_come_and_go(void *arg)
{
    struct mail_holding before[MAIL_CORES_MAX] = {0}, after[MAIL_CORES_MAX] = {0};
    (void)arg;
    mail_delays(1, 50000, 5000);
    for (int i = 0; i < 60 / SHOAL_TEST_SLOWDOWN + 3; i++) {
        struct shoal_service_group *a, *b;
        if (i == 2)
            mail_on_all(mail_look, before);
        SHOAL_EXPECT_INT(shoal_service_group_new(&a, "a", 1 + (unsigned)i % 9), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, make_group, &b), NULL), 0);
        use_group_everywhere(a);
        use_group_everywhere(b);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(2, free_group, a), NULL), 0);
        use_group_everywhere(b);
        SHOAL_EXPECT_INT(shoal_service_group_free(b), 0);
    }
    mail_on_all(mail_disarm_delays_here, NULL);
    if (!SHOAL_EXPECT(mail_settle(before, after)))
        mail_say_difference(before, after);
    for (unsigned i = 0; i < shoal_core_count(); i++)
        SHOAL_EXPECT(after[i].used_bytes <= before[i].used_bytes + (256 << 10));
    return 0;
}

/* The deadline of who frees it ends nothing half-way. */
static int free_group_late(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct shoal_service_group *group;
        struct shoal_scope scope;
        SHOAL_EXPECT_INT(shoal_service_group_new(&group, "late", 8), 0);
        use_group_everywhere(group);
        shoal_scope_enter(&scope,
                          &(struct shoal_scope_options){.timeout_ns = 1 + 2000u * (unsigned)i});
        if (i % 2 == 0)
            mail_burn(100000);
        SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
        (void)shoal_scope_leave(&scope);
        mail_on_all(mail_nothing, NULL);
    }
    return 0;
}

/* Nobody frees them: their cores do, at the end. */
static int leave_groups(void *arg)
{
    (void)arg;
    struct shoal_service_group *a, *b;
    SHOAL_EXPECT_INT(shoal_service_group_new(&a, "a", 1), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, make_group, &b), NULL), 0);
    use_group_everywhere(a);
    use_group_everywhere(b);
    return 0;
}

static void mail_groups_come_and_go_on_all_cores(void **state)
{
    (void)state;
    mail_run_with(3, mail_sleepy, groups_come_and_go);
    mail_run_with(3, mail_sleepy, free_group_late);
    mail_run_with(3, mail_sleepy, leave_groups);
    mail_run_with(4, mail_polling, leave_groups);
}

/* ---- No memory for the other end of a ring ---- */

static int fail_some(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = 1, .count = (uintptr_t)arg});
    return 0;
}

static int fail_no_more(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    shoal_fault_disarm(NULL);
    return 0;
}

/* A first message of a group finds core 1 without memory for its end: it is looked at again. */
static int inbox_without_memory(void *arg)
{
    (void)arg;
    for (uintptr_t failures = 1; failures <= 6; failures++) {
        struct shoal_service_group *group;
        SHOAL_EXPECT_INT(shoal_service_group_new(&group, "new", 4), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, fail_some, (void *)failures), NULL), 0);
        struct shoal_submit call = {.fn = mail_nothing, .group = group};
        SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), 0);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, fail_no_more, NULL), NULL), 0);
        SHOAL_EXPECT_INT(shoal_service_group_free(group), 0);
    }
    return 0;
}

static void mail_no_memory_for_a_ring_is_tried_again(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, inbox_without_memory);
    mail_run_with(2, mail_spinning, inbox_without_memory);
}

/* ---- Texts of failures ---- */

static int fail_with_text(void *arg, union shoal_value *out)
{
    (void)out;
    char text[200];
    memset(text, 'a' + (int)((uintptr_t)arg % 26), sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    return shoal_fiber_explain(-EIO, "%s", text);
}

/* Each text is its own call's, and the rings keep no more of them than they have slots. */
static int texts_wrap_around(void *arg)
{
    (void)arg;
    struct mail_holding before[2] = {0}, after[2] = {0};
    for (unsigned i = 0; i < 5 * SHOAL_SUBMIT_IN_FLIGHT_MAX; i++) {
        if (i == 2 * SHOAL_SUBMIT_IN_FLIGHT_MAX)
            mail_on_all(mail_look, before);
        struct shoal_submit call = {.arg = (void *)(uintptr_t)i};
        call.fn = i % 2 == 0 ? fail_with_text : NULL;
        call.fiber_fn = i % 2 == 0 ? NULL : fail_with_text;
        SHOAL_EXPECT_INT(shoal_await(shoal_submit(1, &call), NULL), -EIO);
        SHOAL_EXPECT_INT(strlen(shoal_error_message()), 199);
        SHOAL_EXPECT_INT(shoal_error_message()[198], 'a' + (int)(i % 26));
    }
    mail_on_all(mail_look, after);
    for (unsigned i = 0; i < 2; i++)
        SHOAL_EXPECT(after[i].used_bytes <= before[i].used_bytes + 4096);
    return 0;
}

static void mail_texts_of_failures_are_kept_and_freed(void **state)
{
    (void)state;
    mail_run_with(2, mail_sleepy, texts_wrap_around);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_cancelled_call_that_has_not_begun_never_does),
        cmocka_unit_test(mail_timeout_ends_the_wait_at_the_bound),
        cmocka_unit_test(mail_credits_that_come_together_wake_the_whole_line),
        cmocka_unit_test(mail_groups_come_and_go_on_all_cores),
        cmocka_unit_test(mail_no_memory_for_a_ring_is_tried_again),
        cmocka_unit_test(mail_texts_of_failures_are_kept_and_freed),
    };
    mail_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
