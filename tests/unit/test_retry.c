/*
 * shoal_retry(): how often, how long in between, and what is reported.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/retry.h"
#include "shoal/runtime/sched_group.h"
#include "shoal/runtime/task.h"

#include "unit/combine_check.h"
/* backends: both */

#define SHORT (100 * SHOAL_NS_PER_US)

struct tries {
    uint32_t made;
    uint32_t succeed_at; /* 0: never */
    uint32_t refuse_at;  /* the failure after which `again` says no; 0: none */
    uint32_t asked;
    uint64_t delays[64];
    uint64_t at_ns[64];
    bool wait;
    struct op op;
};

static struct shoal_future *attempt(void *arg, const union shoal_value *in)
{
    struct tries *tries = arg;
    tries->at_ns[tries->made % 64] = shoal_now_ns();
    SHOAL_EXPECT_INT(in->u64, ++tries->made); /* from 1 */
    if (tries->wait)
        return op_begin(&tries->op, OP_FAILS);
    if (tries->made == tries->succeed_at)
        return op_ready(1000 + tries->made);
    return shoal_future_failed(-100 - (int)(tries->made % 10), "attempt %u", tries->made);
}

static bool again(void *arg, const struct shoal_retry_failure *failure)
{
    struct tries *tries = arg;
    char text[32];
    SHOAL_EXPECT_INT(failure->attempt, tries->made);
    SHOAL_EXPECT_INT(failure->code, -100 - (int)(tries->made % 10));
    snprintf(text, sizeof(text), "attempt %u", tries->made);
    SHOAL_EXPECT(strcmp(failure->text, text) == 0);
    tries->delays[tries->asked++ % 64] = failure->delay_ns;
    return failure->attempt != tries->refuse_at;
}

static void expect_number(struct shoal_future *future, int64_t number)
{
    union shoal_value value;
    if (SHOAL_EXPECT_INT(shoal_await(future, &value), 0))
        SHOAL_EXPECT_INT(value_take(&value), number);
}

/* ---- How often ---- */

static int check_attempts(void *arg)
{
    (void)arg;
    for (uint32_t allowed = 1; allowed <= 5; allowed++) {
        for (uint32_t succeed_at = 0; succeed_at <= 6; succeed_at++) {
            struct tries tries = {.succeed_at = succeed_at};
            struct shoal_retry how = {
                .fn = attempt, .arg = &tries, .attempts = allowed, .again = again};
            struct shoal_future *future = shoal_retry(&how);
            SHOAL_EXPECT_INT(tries.made, 0); /* never inside the call */
            memset(&how, 0xff, sizeof(how));
            if (succeed_at != 0 && succeed_at <= allowed) {
                expect_number(future, 1000 + succeed_at);
                SHOAL_EXPECT_INT(tries.made, succeed_at);
                SHOAL_EXPECT_INT(tries.asked, succeed_at - 1);
            } else {
                char text[32]; /* of the last one */
                snprintf(text, sizeof(text), "attempt %u", allowed);
                expect_failure(future, -100 - (int)allowed, text);
                SHOAL_EXPECT_INT(tries.made, allowed);
                SHOAL_EXPECT_INT(tries.asked, allowed - 1);
            }
        }
    }
    return 0;
}

static void retry_makes_the_exact_number_of_attempts_and_keeps_the_last_error(void **state)
{
    (void)state;
    check_clean(check_attempts, NULL);
}

static int check_predicate(void *arg)
{
    (void)arg;
    struct tries tries = {.refuse_at = 3};
    struct shoal_retry how = {
        .fn = attempt, .arg = &tries, .attempts = SHOAL_RETRY_UNLIMITED, .again = again};
    expect_failure(shoal_retry(&how), -103, "attempt 3");
    SHOAL_EXPECT_INT(tries.made, 3);
    return 0;
}

static void retry_predicate_ends_it_early(void **state)
{
    (void)state;
    check_clean(check_predicate, NULL);
}

static struct shoal_future *give_cancelled(void *arg, const union shoal_value *in)
{
    (void)in;
    ++*(int *)arg;
    return shoal_future_failed(-ECANCELED, "by somebody");
}

static int check_defaults(void *arg)
{
    (void)arg;
    int made = 0;
    struct shoal_retry how = {.fn = give_cancelled, .arg = &made, .attempts = 5};
    expect_failure(shoal_retry(&how), -ECANCELED, "by somebody");
    SHOAL_EXPECT_INT(made, 1); /* not tried again without a word of `again` */
    how.attempts = 0;
    expect_failure(shoal_retry(&how), -EINVAL, "attempts is 0, and is to be 1 or more");
    how.attempts = 1;
    how.jitter_percent = 101;
    expect_failure(shoal_retry(&how), -EINVAL, "jitter_percent is over 100");
    how.jitter_percent = 100;
    how.growth_percent = 99;
    expect_failure(shoal_retry(&how), -EINVAL, "growth_percent is under 100");
    how.growth_percent = 100;
    how.fn = NULL;
    expect_failure(shoal_retry(&how), -EINVAL, "one of fn and fiber is to be set");
    SHOAL_EXPECT_INT(made, 1);
    return 0;
}

static void retry_bad_numbers_are_named(void **state)
{
    (void)state;
    check_clean(check_defaults, NULL);
}

#define MANY (100000 / SHOAL_TEST_SLOWDOWN)

static int check_many(void *arg)
{
    (void)arg;
    struct tries tries = {.succeed_at = MANY};
    struct shoal_retry how = {
        .fn = attempt, .arg = &tries, .attempts = SHOAL_RETRY_UNLIMITED, .again = again};
    expect_number(shoal_retry(&how), 1000 + MANY);
    SHOAL_EXPECT_INT(tries.made, MANY);
    return 0;
}

static void retry_without_delay_uses_constant_stack(void **state)
{
    (void)state;
    check_clean(check_many, NULL);
}

/* ---- How long ---- */

static void make(struct tries *tries, struct shoal_retry how, uint32_t attempts)
{
    *tries = (struct tries){.made = 0};
    how.fn = attempt;
    how.arg = tries;
    how.attempts = attempts;
    how.again = again;
    SHOAL_EXPECT(shoal_await(shoal_retry(&how), NULL) < 0);
    for (uint32_t i = 0; i + 1 < attempts; i++)
        SHOAL_EXPECT(tries->at_ns[i + 1] - tries->at_ns[i] >= tries->delays[i]);
}

static int check_delays(void *arg)
{
    (void)arg;
    struct tries tries;
    make(&tries, (struct shoal_retry){.delay_ns = 1000}, 5);
    static const uint64_t doubled[] = {1000, 2000, 4000, 8000};
    SHOAL_EXPECT(memcmp(tries.delays, doubled, sizeof(doubled)) == 0);
    make(&tries, (struct shoal_retry){.delay_ns = 1000, .growth_percent = 150}, 5);
    static const uint64_t by_half[] = {1000, 1500, 2250, 3375};
    SHOAL_EXPECT(memcmp(tries.delays, by_half, sizeof(by_half)) == 0);
    make(&tries, (struct shoal_retry){.delay_ns = 1000, .growth_percent = 100}, 3);
    static const uint64_t constant[] = {1000, 1000};
    SHOAL_EXPECT(memcmp(tries.delays, constant, sizeof(constant)) == 0);
    make(&tries, (struct shoal_retry){.delay_ns = 1000, .delay_max_ns = 3000}, 5);
    static const uint64_t capped[] = {1000, 2000, 3000, 3000};
    SHOAL_EXPECT(memcmp(tries.delays, capped, sizeof(capped)) == 0);
    make(&tries, (struct shoal_retry){.delay_ns = 5000, .delay_max_ns = 3000}, 2);
    SHOAL_EXPECT_INT(tries.delays[0], 3000);
    return 0;
}

static void retry_delays_grow_up_to_the_cap(void **state)
{
    (void)state;
    check_clean(check_delays, NULL);
}

static int check_jitter(void *arg)
{
    (void)arg;
    struct tries tries, same, other;
    struct shoal_retry how = {
        .delay_ns = 1000, .growth_percent = 100, .jitter_percent = 30, .seed = 42};
    make(&tries, how, 60);
    uint64_t low = UINT64_MAX, high = 0;
    for (int i = 0; i < 59; i++) {
        low = tries.delays[i] < low ? tries.delays[i] : low;
        high = tries.delays[i] > high ? tries.delays[i] : high;
    }
    SHOAL_EXPECT(low >= 700 && low < 740);
    SHOAL_EXPECT(high <= 1000 && high > 960);
    make(&same, how, 60);
    SHOAL_EXPECT(memcmp(tries.delays, same.delays, sizeof(same.delays)) == 0);
    how.seed = 43;
    make(&other, how, 60);
    SHOAL_EXPECT(memcmp(tries.delays, other.delays, sizeof(other.delays)) != 0);
    how.seed = 0;
    make(&same, how, 60);
    make(&other, how, 60);
    SHOAL_EXPECT(memcmp(same.delays, other.delays, sizeof(other.delays)) != 0);
    how.jitter_percent = 100;
    how.delay_max_ns = 500;
    make(&tries, how, 60);
    for (int i = 0; i < 59; i++)
        SHOAL_EXPECT(tries.delays[i] <= 500); /* jitter never makes it longer */
    return 0;
}

static void retry_jitter_shortens_by_up_to_its_part(void **state)
{
    (void)state;
    check_clean(check_jitter, NULL);
}

static bool note_delay(void *arg, const struct shoal_retry_failure *failure)
{
    uint64_t *delays = arg;
    delays[failure->attempt] = failure->delay_ns;
    return failure->delay_ns < UINT64_MAX / 2;
}

static struct shoal_future *fail_quietly(void *arg, const union shoal_value *in)
{
    (void)arg;
    (void)in;
    return op_failed(-EIO, "");
}

static int check_huge(void *arg)
{
    (void)arg;
    uint64_t delays[8] = {0};
    struct shoal_retry how = {.fn = fail_quietly,
                              .arg = delays,
                              .attempts = 60,
                              .delay_ns = 1000000,
                              .growth_percent = UINT32_MAX,
                              .again = note_delay};
    struct shoal_future *future = shoal_retry(&how);
    SHOAL_EXPECT_INT(shoal_test_clock_advance(24 * 3600 * SHOAL_NS_PER_S), 0);
    expect_failure(future, -EIO, ""); /* 1 ms, 12 hours, and then what is too much to count */
    SHOAL_EXPECT_INT(delays[1], 1000000);
    SHOAL_EXPECT_INT(delays[2], 1000000ull * UINT32_MAX / 100);
    SHOAL_EXPECT(delays[3] == UINT64_MAX);
    how.delay_ns = UINT64_MAX;
    expect_failure(shoal_retry(&how), -EIO, "");
    SHOAL_EXPECT(delays[1] == UINT64_MAX);
    how.jitter_percent = 100;
    how.seed = 1;
    how.again = NULL;
    future = shoal_retry(&how); /* any of all delays */
    SHOAL_EXPECT_INT(shoal_test_clock_advance(1), 0);
    shoal_future_cancel(future);
    expect_failure(future, -ECANCELED, "");
    return 0;
}

static void retry_huge_delays_do_not_wrap_around(void **state)
{
    (void)state;
    const struct shoal_test_options options = {.clock = SHOAL_TEST_CLOCK_MANUAL};
    assert_int_equal(shoal_test_run_options(&options, check_huge, NULL), 0);
}

/* ---- Cancel and discard ---- */

static int check_cancel(void *arg)
{
    (void)arg;
    struct tries tries = {.made = 0};
    struct shoal_retry how = {
        .fn = attempt, .arg = &tries, .attempts = 5, .delay_ns = 3600 * SHOAL_NS_PER_S};
    struct shoal_future *future = shoal_retry(&how);
    shoal_future_cancel(future); /* before the first */
    expect_failure(future, -ECANCELED, "");
    SHOAL_EXPECT_INT(tries.made, 0);
    future = shoal_retry(&how);
    settle_down();
    SHOAL_EXPECT_INT(tries.made, 1);
    shoal_future_cancel(future); /* in the delay: ends at once, with the text of the last */
    SHOAL_EXPECT(!shoal_future_is_pending(future));
    expect_failure(future, -ECANCELED, "attempt 1");
    /* During an attempt: it is told, and its failure is not tried again. */
    tries = (struct tries){.wait = true};
    future = shoal_retry(&how);
    settle_down();
    shoal_future_cancel(future);
    SHOAL_EXPECT_INT(tries.op.cancels, 1);
    expect_failure(future, -ECANCELED, "was asked to end");
    tries = (struct tries){.wait = true};
    how.again = NULL;
    future = shoal_retry(&how);
    settle_down();
    tries.op.cancel = OP_STAYS;
    shoal_future_cancel(future);
    op_fail(&tries.op, -EIO, "in the end");
    expect_failure(future, -EIO, "in the end");
    SHOAL_EXPECT_INT(tries.made, 1);
    /* Or its value is delivered. */
    tries = (struct tries){.wait = true};
    future = shoal_retry(&how);
    settle_down();
    tries.op.cancel = OP_SUCCEEDS;
    shoal_future_cancel(future);
    expect_number(future, -1);
    /* Discarded: goes on, and what comes is dropped. */
    tries = (struct tries){.succeed_at = 3};
    how.delay_ns = SHORT;
    shoal_discard(shoal_retry(&how));
    while (tries.made < 3)
        SHOAL_EXPECT_INT(shoal_sleep_ns(SHORT), 0);
    SHOAL_EXPECT_INT(values_dropped, 1);
    return 0;
}

static void retry_cancel_ends_a_delay_at_once_and_reaches_an_attempt(void **state)
{
    (void)state;
    check_clean(check_cancel, NULL);
}

static struct shoal_future *self;

static bool cancel_in_predicate(void *arg, const struct shoal_retry_failure *failure)
{
    (void)arg;
    (void)failure;
    shoal_future_cancel(self);
    return true;
}

static int check_cancel_inside(void *arg)
{
    (void)arg;
    struct tries tries = {.made = 0};
    self = shoal_retry(&(struct shoal_retry){.fn = attempt,
                                             .arg = &tries,
                                             .attempts = 5,
                                             .delay_ns = 3600 * SHOAL_NS_PER_S,
                                             .again = cancel_in_predicate});
    expect_failure(self, -ECANCELED, "attempt 1");
    SHOAL_EXPECT_INT(tries.made, 1);
    return 0;
}

static void retry_cancelled_by_its_own_predicate_ends(void **state)
{
    (void)state;
    check_clean(check_cancel_inside, NULL);
}

/* ---- On fibers ---- */

static int try_on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    SHOAL_EXPECT(strcmp(shoal_fiber_name(shoal_fiber_self()), "attempt") == 0);
    if (in->u64 < 3)
        return shoal_await(op_failed(-EIO, "not yet"), NULL);
    values_live++;
    *out = (union shoal_value){.slice = {arg, 0, 0x5a}};
    return 0;
}

static int check_fiber(void *arg)
{
    (void)arg;
    struct shoal_retry how = {.fiber = try_on_fiber,
                              .arg = (void *)5,
                              .attempts = 3,
                              .drop = value_drop,
                              .name = "attempt"};
    expect_number(shoal_retry(&how), 5);
    how.attempts = 2;
    expect_failure(shoal_retry(&how), -EIO, "not yet");
    how.attempts = 3;
    SHOAL_EXPECT_INT(shoal_await(shoal_retry(&how), NULL), 0);
    SHOAL_EXPECT_INT(values_dropped, 1);
    return 0;
}

static void retry_attempts_on_fibers(void **state)
{
    (void)state;
    check_clean(check_fiber, NULL);
}

/* ---- Scheduling groups ---- */

static struct shoal_future *note_group(void *arg, const union shoal_value *in)
{
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    return in->u64 < 4 ? op_failed(-EIO, "") : op_ready(1);
}

static int note_group_on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    SHOAL_EXPECT(shoal_sched_group_self() == arg);
    out->u64 = 0;
    return in->u64 < 4 ? -EIO : 0;
}

static int check_group(void *arg)
{
    (void)arg;
    struct shoal_sched_group *group;
    SHOAL_EXPECT_INT(shoal_sched_group_new(&group, "patient", 100), 0);
    shoal_sched_group_enter(group);
    struct shoal_retry how = {.fn = note_group, .arg = group, .attempts = 4, .delay_ns = 1000};
    SHOAL_EXPECT_INT(shoal_await(shoal_retry(&how), NULL), 0); /* also after a timer */
    how.fn = NULL;
    how.fiber = note_group_on_fiber;
    SHOAL_EXPECT_INT(shoal_await(shoal_retry(&how), NULL), 0);
    shoal_sched_group_enter(shoal_sched_group_main());
    settle_down();
    SHOAL_EXPECT_INT(shoal_sched_group_free(group), 0);
    return 0;
}

static void retry_runs_in_the_scheduling_group_of_the_call(void **state)
{
    (void)state;
    check_clean(check_group, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_makes_the_exact_number_of_attempts_and_keeps_the_last_error),
        cmocka_unit_test(retry_predicate_ends_it_early),
        cmocka_unit_test(retry_bad_numbers_are_named),
        cmocka_unit_test(retry_without_delay_uses_constant_stack),
        cmocka_unit_test(retry_delays_grow_up_to_the_cap),
        cmocka_unit_test(retry_jitter_shortens_by_up_to_its_part),
        cmocka_unit_test(retry_huge_delays_do_not_wrap_around),
        cmocka_unit_test(retry_cancel_ends_a_delay_at_once_and_reaches_an_attempt),
        cmocka_unit_test(retry_cancelled_by_its_own_predicate_ends),
        cmocka_unit_test(retry_attempts_on_fibers),
        cmocka_unit_test(retry_runs_in_the_scheduling_group_of_the_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
