/*
 * Messages between cores: each numbered promise of submit.h.
 */
/* backends: both */
#include <stdatomic.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define LOAD (100000 / SHOAL_TEST_SLOWDOWN)

static int core_plus(void *arg, union shoal_value *out)
{
    out->i64 = (intptr_t)arg + shoal_core_id() * 1000;
    return 0;
}

static int fill_all(void *arg, union shoal_value *out)
{
    (void)arg;
    for (size_t i = 0; i < sizeof(out->bytes); i++)
        out->bytes[i] = (unsigned char)(i + 1);
    return 0;
}

static int check_zeroed(void *arg, union shoal_value *out)
{
    (void)arg;
    for (size_t i = 0; i < sizeof(out->bytes); i++)
        SHOAL_EXPECT_INT(out->bytes[i], 0);
    return 0;
}

static int check_values(void *arg)
{
    (void)arg;
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_core_count(), 3);
    for (unsigned core = 0; core < 3; core++) {
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, core_plus, (void *)5), &value), 0);
        SHOAL_EXPECT_INT(value.i64, 5 + (int)core * 1000);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, fill_all, NULL), &value), 0);
        for (size_t i = 0; i < sizeof(value.bytes); i++)
            SHOAL_EXPECT_INT(value.bytes[i], i + 1);
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, check_zeroed, NULL), &value), 0);
    }
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(3, core_plus, NULL), NULL), SHOAL_ENOCORE);
    SHOAL_EXPECT(strstr(shoal_error_message(), "core 3 does not exist (allowed: 0 to 2)") != NULL);
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(99, core_plus, NULL), NULL), SHOAL_ENOCORE);
    return 0;
}

static void submit_value_comes_back_whole_from_every_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_values, NULL), 0);
}

/* ---- Failures ---- */

static char long_text[500];

static int fail_plain(void *arg, union shoal_value *out)
{
    (void)out;
    return (int)(intptr_t)arg;
}

static int fail_in_await(void *arg, union shoal_value *out)
{
    (void)arg;
    return shoal_await(shoal_future_failed(-EIO, "%s", long_text), out);
}

static struct shoal_future *fail_future(void *arg)
{
    (void)arg;
    return shoal_future_failed(-EIO, "%s", long_text);
}

static struct shoal_future *later_future(void *arg)
{
    struct shoal_future *answer = shoal_submit_to(0, core_plus, arg); /* of yet another core */
    return answer;
}

static int check_failures(void *arg)
{
    (void)arg;
    union shoal_value value;
    for (size_t i = 0; i < sizeof(long_text) - 1; i++)
        long_text[i] = (char)('a' + i % 26);
    for (unsigned core = 0; core < 2; core++) {
        for (int round = 0; round < 1000 / SHOAL_TEST_SLOWDOWN; round++) {
            struct shoal_future *f = shoal_submit_to(core, fail_plain, (void *)-EPERM);
            SHOAL_EXPECT_INT(shoal_await(f, NULL), -EPERM);
            SHOAL_EXPECT(shoal_error_message()[0] == '\0');
            SHOAL_EXPECT_INT(shoal_await(shoal_submit_fiber_to(core, fail_in_await, NULL), NULL),
                             -EIO);
            SHOAL_EXPECT(strcmp(shoal_error_message(), long_text) == 0);
            SHOAL_EXPECT_INT(shoal_await(shoal_submit_future_to(core, fail_future, NULL), NULL),
                             -EIO);
            SHOAL_EXPECT(strcmp(shoal_error_message(), long_text) == 0);
            f = shoal_submit_future_to(core, later_future, (void *)4);
            SHOAL_EXPECT_INT(shoal_await(f, &value), 0);
            SHOAL_EXPECT_INT(value.i64, 4);
        }
    }
    return 0;
}

static void submit_failure_brings_code_and_long_text(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_failures, NULL), 0);
}

/* ---- Copies ---- */

static int sum_bytes(void *arg, union shoal_value *out)
{
    const unsigned char *bytes = arg;
    for (int i = 0; i < SHOAL_SUBMIT_COPY_MAX; i++)
        out->i64 += bytes[i];
    bytes = NULL;
    memset(arg, 0, SHOAL_SUBMIT_COPY_MAX); /* the copy is the function's while it runs */
    return 0;
}

static int check_copy(void *arg)
{
    (void)arg;
    union shoal_value value;
    unsigned char bytes[SHOAL_SUBMIT_COPY_MAX + 1];
    for (unsigned core = 0; core < 2; core++) {
        memset(bytes, 2, sizeof(bytes));
        struct shoal_future *f =
            shoal_submit_copy_to(core, sum_bytes, bytes, SHOAL_SUBMIT_COPY_MAX);
        memset(bytes, 9, sizeof(bytes)); /* the caller's again at once */
        SHOAL_EXPECT_INT(shoal_await(f, &value), 0);
        SHOAL_EXPECT_INT(value.i64, 2 * SHOAL_SUBMIT_COPY_MAX);
        f = shoal_submit_copy_to(core, sum_bytes, bytes, sizeof(bytes));
        SHOAL_EXPECT_INT(shoal_await(f, NULL), -EMSGSIZE);
    }
    return 0;
}

static void submit_copy_is_a_copy_and_bounded(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_copy, NULL), 0);
}

/* ---- Order and load ---- */

static intptr_t expected_next;

static int note_order(void *arg, union shoal_value *out)
{
    (void)out;
    SHOAL_EXPECT_INT((intptr_t)arg, expected_next);
    expected_next = (intptr_t)arg + 1;
    return 0;
}

static int check_order(void *arg)
{
    unsigned core = (unsigned)(intptr_t)arg;
    expected_next = 0;
    for (intptr_t i = 0; i < LOAD; i++)
        shoal_discard(shoal_submit_to(core, note_order, (void *)i));
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, core_plus, NULL), &value), 0);
    SHOAL_EXPECT_INT(expected_next, LOAD);
    return 0;
}

static void submit_order_of_a_pair_is_kept(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_order, (void *)0), 0);
    assert_int_equal(shoal_test_run(2, check_order, (void *)1), 0);
}

static int send_load(void *arg)
{
    unsigned to = (unsigned)(intptr_t)arg;
    union shoal_value value;
    for (int i = 0; i < LOAD / 4; i++) {
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(to, core_plus, (void *)(intptr_t)i), &value),
                         0);
        if (!SHOAL_EXPECT_INT(value.i64, i + (int)to * 1000))
            break;
    }
    return 0;
}

static int load_from_here(void *arg, union shoal_value *out)
{
    (void)out;
    struct shoal_fiber *fibers[4];
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], send_load, arg, "load"), 0);
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    return 0;
}

static int check_both_ways(void *arg)
{
    (void)arg;
    union shoal_value unused;
    struct shoal_future *other = shoal_submit_fiber_to(1, load_from_here, (void *)0);
    (void)load_from_here((void *)1, &unused);
    SHOAL_EXPECT_INT(shoal_await(other, NULL), 0);
    return 0;
}

static void submit_load_both_ways_is_answered_in_full(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_both_ways, NULL), 0);
}

/* Each answer and each request meets a core at another moment of its falling asleep. */
static int check_wakes(void *arg)
{
    (void)arg;
    union shoal_value value;
    for (intptr_t i = 0; i < LOAD; i++) {
        for (volatile intptr_t spin = i * 37 % 2048; spin > 0; spin--)
            ;
        if (!SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, core_plus, NULL), &value), 0))
            break;
    }
    return 0;
}

static void submit_wakes_a_core_that_falls_asleep(void **state)
{
    (void)state;
    const char *const options[] = {"--idle-poll-time-us", "0", NULL};
    assert_int_equal(shoal_test_run_with(2, options, check_wakes, NULL), 0);
}

static int bounce(void *arg, union shoal_value *out)
{
    intptr_t left = (intptr_t)arg;
    if (left == 0) {
        out->i64 = 0;
        return 0;
    }
    unsigned to = 1 - (unsigned)shoal_core_id();
    int rc = shoal_await(shoal_submit_fiber_to(to, bounce, (void *)(left - 1)), out);
    out->i64++;
    return rc;
}

static int check_nested(void *arg)
{
    (void)arg;
    struct shoal_future *f[60];
    union shoal_value value;
    for (int i = 0; i < 60; i++)
        f[i] = shoal_submit_fiber_to((unsigned)i % 2, bounce, (void *)6);
    for (int i = 0; i < 60; i++) {
        SHOAL_EXPECT_INT(shoal_await(f[i], &value), 0);
        SHOAL_EXPECT_INT(value.i64, 6);
    }
    return 0;
}

static void submit_nested_back_and_forth_ends(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_nested, NULL), 0);
}

/* ---- The bound ---- */

static atomic_bool gate;

static int hold(void *arg, union shoal_value *out)
{
    (void)out;
    while (!atomic_load(&gate))
        if (shoal_sleep_ns(SHOAL_NS_PER_MS) != 0)
            return -ECANCELED;
    return (int)(intptr_t)arg;
}

static struct shoal_future *held[SHOAL_SUBMIT_IN_FLIGHT_MAX];
static int resumed_order[8];
static int resumed;

static int submit_beyond(void *arg)
{
    union shoal_value value;
    struct shoal_future *f = shoal_submit_to(1, core_plus, arg); /* parks */
    resumed_order[resumed++] = (int)(intptr_t)arg;
    int rc = shoal_await(f, &value);
    if (rc == 0)
        SHOAL_EXPECT_INT(value.i64, 1000 + (intptr_t)arg);
    return rc;
}

static struct {
    struct shoal_task task;
    int code;
    bool ran;
} plain;

static int keep_code(void *arg, int code, const char *text, union shoal_value *out)
{
    (void)arg;
    (void)out;
    plain.code = code;
    SHOAL_EXPECT(strstr(text, "256 messages to core 1") != NULL);
    return 0;
}

static void submit_from_task(struct shoal_task *task)
{
    (void)task;
    plain.ran = true;
    shoal_discard(shoal_catch(shoal_submit_to(1, core_plus, NULL), keep_code, NULL));
}

static void fill_ring(void)
{
    atomic_store(&gate, false);
    resumed = 0;
    for (int i = 0; i < SHOAL_SUBMIT_IN_FLIGHT_MAX; i++)
        held[i] = shoal_submit_fiber_to(1, hold, NULL);
}

static void empty_ring(void)
{
    atomic_store(&gate, true);
    for (int i = 0; i < SHOAL_SUBMIT_IN_FLIGHT_MAX; i++)
        SHOAL_EXPECT_INT(shoal_await(held[i], NULL), 0);
}

static int check_bound(void *arg)
{
    (void)arg;
    fill_ring();
    plain.task.run = submit_from_task;
    shoal_task_post(&plain.task);
    struct shoal_fiber *fibers[8];
    for (intptr_t i = 0; i < 8; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], submit_beyond, (void *)i, "beyond"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(3 * SHOAL_NS_PER_MS), 0);
    SHOAL_EXPECT_INT(resumed, 0);
    SHOAL_EXPECT(plain.ran);
    SHOAL_EXPECT_INT(plain.code, -ENOBUFS);
    /* Others are not held up: neither the other direction nor other cores. */
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(2, core_plus, NULL), NULL), 0);
    shoal_fiber_cancel(fibers[3]); /* while it waits for credit */
    SHOAL_EXPECT_INT(shoal_fiber_join(fibers[3]), -ECANCELED);
    SHOAL_EXPECT_INT(resumed, 1);
    empty_ring();
    for (int i = 0; i < 8; i++)
        if (i != 3)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    static const int order[] = {3, 0, 1, 2, 4, 5, 6, 7};
    for (int i = 0; i < 8; i++)
        SHOAL_EXPECT_INT(resumed_order[i], order[i]);
    return 0;
}

static void submit_at_the_bound_parks_fibers_in_order_and_fails_tasks(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_bound, NULL), 0);
}

static int check_cancel_all_credit(void *arg)
{
    (void)arg;
    fill_ring();
    struct shoal_fiber *fibers[8];
    for (intptr_t i = 0; i < 8; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], submit_beyond, (void *)i, "beyond"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    atomic_store(&gate, true);
    for (int i = 0; i < 8; i += 2)
        shoal_fiber_cancel(fibers[i]);
    for (int i = 0; i < 8; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i % 2 == 0 ? -ECANCELED : 0);
    empty_ring();
    return 0;
}

static void submit_cancel_while_waiting_for_credit_passes_the_turn_on(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_cancel_all_credit, NULL), 0);
}

static int count_run(void *arg)
{
    ++*(int *)arg;
    return 0;
}

/* All credits come back between the cancel of the first in the line and its next run. */
static int check_cancel_meets_credit(void *arg)
{
    (void)arg;
    struct shoal_fiber *first, *second;
    fill_ring();
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&first, submit_beyond, (void *)0, "first"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&second, submit_beyond, (void *)1, "second"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    atomic_store(&gate, true);
    uint64_t end_ns = shoal_now_ns() + 50 * SHOAL_NS_PER_MS;
    while (shoal_now_ns() < end_ns) /* holds the core: answers arrive, and nobody looks */
        ;
    int runs = 0;
    for (int i = 0; i < 16; i++) /* tasks enough for a look at the mail before `first` runs */
        SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(count_run, &runs, "ahead"), 0);
    shoal_fiber_cancel(first);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), -ECANCELED);
    SHOAL_EXPECT_INT(runs, 16);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 0);
    empty_ring();
    return 0;
}

static void submit_credit_that_meets_a_cancel_goes_to_the_next(void **state)
{
    (void)state;
    const char *const options[] = {"--blocked-reactor-notify-ms", "0", NULL};
    assert_int_equal(shoal_test_run_with(2, options, check_cancel_meets_credit, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submit_value_comes_back_whole_from_every_core),
        cmocka_unit_test(submit_failure_brings_code_and_long_text),
        cmocka_unit_test(submit_copy_is_a_copy_and_bounded),
        cmocka_unit_test(submit_order_of_a_pair_is_kept),
        cmocka_unit_test(submit_load_both_ways_is_answered_in_full),
        cmocka_unit_test(submit_wakes_a_core_that_falls_asleep),
        cmocka_unit_test(submit_nested_back_and_forth_ends),
        cmocka_unit_test(submit_at_the_bound_parks_fibers_in_order_and_fails_tasks),
        cmocka_unit_test(submit_cancel_while_waiting_for_credit_passes_the_turn_on),
        cmocka_unit_test(submit_credit_that_meets_a_cancel_goes_to_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
