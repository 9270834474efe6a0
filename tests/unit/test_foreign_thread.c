/*
 * Calls of foreign threads that are waited for: each promise of shoal_foreign_run().
 */
/* backends: both */
#include <sched.h>

#include "shoal/runtime/fault.h"

#include "unit/foreign_check.h"

static struct shoal_foreign_call plain(unsigned core, shoal_submit_fn *fn, void *arg)
{
    return (struct shoal_foreign_call){.core = core, .fn = fn, .arg = arg};
}

/* ---- Values ---- */

static void run_value_comes_back_from_every_core_and_kind(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_answer answer = {.text = NULL};
    for (unsigned core = 0; core < FOREIGN_CORES; core++) {
        const struct shoal_foreign_call calls[] = {
            {.core = core, .fn = foreign_plus, .arg = (void *)5},
            {.core = core, .fiber_fn = foreign_plus, .arg = (void *)5},
            {.core = core, .future_fn = foreign_plus_future, .arg = (void *)5},
        };
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(calls); i++) {
            answer.value.i64 = -1;
            assert_int_equal(shoal_foreign_run(&calls[i], NULL, &answer), 0);
            assert_int_equal(answer.value.i64, 5 + core * 1000);
            assert_int_equal(shoal_foreign_run(&calls[i], NULL, NULL), 0);
        }
    }
    foreign_stop(embed);
}

/* ---- Failures ---- */

static char long_text[SHOAL_FOREIGN_TEXT_MAX];

static int fail_plain(void *arg, union shoal_value *out)
{
    out->i64 = 77; /* not the caller's to see */
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

static void run_failure_brings_code_and_whole_text(void **state)
{
    (void)state;
    char text[SHOAL_FOREIGN_TEXT_MAX];
    char small[8];
    struct shoal_foreign_answer answer = {.text = text, .text_size = sizeof(text)};
    struct shoal_embed *embed = foreign_start();
    for (size_t i = 0; i < sizeof(long_text) - 1; i++)
        long_text[i] = (char)('a' + i % 26);
    struct shoal_foreign_call call = plain(1, fail_plain, (void *)-EPERM);
    memset(text, 'x', sizeof(text));
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), -EPERM);
    assert_string_equal(text, "");
    assert_int_equal(answer.value.i64, 0);
    call = (struct shoal_foreign_call){.core = 1, .fiber_fn = fail_in_await};
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), -EIO);
    assert_string_equal(text, long_text);
    call = (struct shoal_foreign_call){.core = 0, .future_fn = fail_future};
    text[0] = '\0';
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), -EIO);
    assert_string_equal(text, long_text);
    answer = (struct shoal_foreign_answer){.text = small, .text_size = sizeof(small)};
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), -EIO);
    assert_string_equal(small, "abcdefg");
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), -EIO);
    foreign_stop(embed);
}

static int run_on_core(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_foreign_call call = plain(0, foreign_plus, NULL);
    struct shoal_foreign_port *port;
    out->i64 = shoal_foreign_run(&call, NULL, NULL);
    SHOAL_EXPECT_INT(shoal_foreign_port_new(&port, 4), -EDEADLK);
    return 0;
}

static void run_bad_call_is_refused_with_a_reason(void **state)
{
    (void)state;
    char text[128];
    struct shoal_foreign_answer answer = {.text = text, .text_size = sizeof(text)};
    struct shoal_foreign_call call = plain(0, foreign_plus, NULL);
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), SHOAL_ESTOPPING);
    struct shoal_embed *embed = foreign_start();
    call.core = 2;
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), SHOAL_ENOCORE);
    assert_string_equal(text, "core 2 does not exist (allowed: 0 to 1)");
    call.core = 0;
    call.fiber_fn = foreign_plus;
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), -EINVAL);
    assert_string_equal(text, "a call with 2 functions (allowed: one)");
    call = plain(1, run_on_core, NULL);
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
    assert_int_equal(answer.value.i64, -EDEADLK);
    foreign_stop(embed);
    call = plain(0, foreign_plus, NULL);
    assert_int_equal(shoal_foreign_run(&call, NULL, &answer), SHOAL_ESTOPPING);
}

/* ---- Time-outs ---- */

static atomic_int begun;

static int count_begun(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    atomic_fetch_add(&begun, 1);
    return 0;
}

static void *hold_core(void *gate)
{
    struct shoal_foreign_call call = plain(1, foreign_hold, gate);
    SHOAL_EXPECT_INT(shoal_foreign_run(&call, NULL, NULL), 0);
    return NULL;
}

static void *open_later(void *gate)
{
    for (int i = 0; i < 100; i++)
        foreign_pause();
    atomic_store((atomic_int *)gate, 1);
    return NULL;
}

static void run_timeout_ends_what_waits_and_what_has_not_begun(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct shoal_foreign_call call = {.core = 1, .fiber_fn = foreign_wait};
    call.timeout_ns = SHOAL_NS_PER_MS;
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), -ETIMEDOUT);
    call = (struct shoal_foreign_call){.core = 1, .future_fn = foreign_wait_future};
    call.timeout_ns = SHOAL_NS_PER_MS;
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), -ETIMEDOUT);
    call = (struct shoal_foreign_call){.core = 1, .fiber_fn = foreign_plus};
    call.timeout_ns = 3600 * SHOAL_NS_PER_S; /* and its timer is gone at the end */
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), 0);

    /* While the core is held, what has a short time-out is over before it begins. */
    atomic_int gate[2] = {0, 0};
    pthread_t holder, opener;
    assert_int_equal(pthread_create(&holder, NULL, hold_core, gate), 0);
    foreign_await(&gate[1], 1);
    assert_int_equal(pthread_create(&opener, NULL, open_later, gate), 0);
    call = plain(1, count_begun, NULL);
    call.timeout_ns = 1;
    assert_int_equal(shoal_foreign_run(&call, NULL, NULL), -ETIMEDOUT);
    assert_int_equal(atomic_load(&begun), 0);
    pthread_join(holder, NULL);
    pthread_join(opener, NULL);
    foreign_stop(embed);
}

/* ---- Cancel ---- */

struct waiter {
    pthread_t thread;
    struct shoal_foreign_call call;
    struct shoal_foreign_cancel cancel;
    int code;
};

static void *be_waiter(void *arg)
{
    struct waiter *waiter = arg;
    waiter->code = shoal_foreign_run(&waiter->call, &waiter->cancel, NULL);
    return NULL;
}

/* Until the call of `waiter` is on its way, or has ended. */
static void await_posted(struct waiter *waiter)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&waiter->cancel.lock);
        bool posted = waiter->cancel.slot != NULL;
        pthread_mutex_unlock(&waiter->cancel.lock);
        if (posted)
            return;
        sched_yield();
    }
}

static void start_waiter(struct waiter *waiter)
{
    waiter->code = 1;
    assert_int_equal(pthread_create(&waiter->thread, NULL, be_waiter, waiter), 0);
}

static void run_cancel_from_another_thread_ends_it(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    struct waiter waiter;
    atomic_int waits = 0;
    for (int kind = 0; kind < 2; kind++) {
        waiter.call =
            kind == 0 ? (struct shoal_foreign_call){.core = 1, .fiber_fn = foreign_wait}
                      : (struct shoal_foreign_call){.core = 1, .future_fn = foreign_wait_future};
        waiter.call.arg = &waits;
        shoal_foreign_cancel_init(&waiter.cancel);
        start_waiter(&waiter);
        foreign_await(&waits, kind + 1);
        shoal_foreign_cancel(&waiter.cancel);
        shoal_foreign_cancel(&waiter.cancel); /* twice is as good */
        pthread_join(waiter.thread, NULL);
        assert_int_equal(waiter.code, -ECANCELED);
        /* It stays cancelled. */
        struct shoal_foreign_call call = plain(1, count_begun, NULL);
        atomic_store(&begun, 0);
        assert_int_equal(shoal_foreign_run(&call, &waiter.cancel, NULL), -ECANCELED);
        assert_int_equal(atomic_load(&begun), 0);
        shoal_foreign_cancel_deinit(&waiter.cancel);
    }
    foreign_stop(embed);
}

/* What has not begun when it is cancelled never does. */
static void run_cancel_before_the_begin_keeps_it_from_beginning(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    atomic_int gate[2] = {0, 0};
    pthread_t holder;
    struct waiter waiter = {.call = plain(1, count_begun, NULL)};
    atomic_store(&begun, 0);
    shoal_foreign_cancel_init(&waiter.cancel);
    assert_int_equal(pthread_create(&holder, NULL, hold_core, gate), 0);
    foreign_await(&gate[1], 1);
    start_waiter(&waiter);
    for (bool posted = false; !posted;) {
        pthread_mutex_lock(&waiter.cancel.lock);
        posted = waiter.cancel.slot != NULL;
        pthread_mutex_unlock(&waiter.cancel.lock);
    }
    shoal_foreign_cancel(&waiter.cancel);
    atomic_store(&gate[0], 1);
    pthread_join(waiter.thread, NULL);
    pthread_join(holder, NULL);
    assert_int_equal(waiter.code, -ECANCELED);
    assert_int_equal(atomic_load(&begun), 0);
    shoal_foreign_cancel_deinit(&waiter.cancel);
    foreign_stop(embed);
}

static int plus_or_yield(void *arg, union shoal_value *out)
{
    (void)out;
    for (intptr_t i = 0; i < (intptr_t)arg; i++) {
        int rc = shoal_yield();
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The cancel meets the call at each of its stages. */
static void run_cancel_that_races_with_the_end_loses_nothing(void **state)
{
    (void)state;
    const int rounds = 4000 / SHOAL_TEST_SLOWDOWN;
    int cancelled = 0;
    struct shoal_embed *embed = foreign_start();
    for (int round = 0; round < rounds; round++) {
        struct waiter waiter = {.call = {.core = (unsigned)round % FOREIGN_CORES}};
        if (round % 3 == 0)
            waiter.call.fn = foreign_plus;
        else
            waiter.call.fiber_fn = plus_or_yield;
        waiter.call.arg = (void *)(intptr_t)(round % 17);
        shoal_foreign_cancel_init(&waiter.cancel);
        start_waiter(&waiter);
        await_posted(&waiter);
        for (volatile int spin = 0; spin < (round * 37) % 20000; spin++)
            ;
        shoal_foreign_cancel(&waiter.cancel);
        pthread_join(waiter.thread, NULL);
        assert_true(waiter.code == 0 || waiter.code == -ECANCELED);
        cancelled += waiter.code != 0;
        shoal_foreign_cancel_deinit(&waiter.cancel);
    }
    print_message("%d of %d cancelled\n", cancelled, rounds);
    foreign_stop(embed);
}

/* ---- Many threads ---- */

#define THREADS 8

static void *run_many(void *arg)
{
    const intptr_t me = (intptr_t)arg;
    char text[64];
    struct shoal_foreign_answer answer = {.text = text, .text_size = sizeof(text)};
    for (intptr_t i = 0; i < 2000 / SHOAL_TEST_SLOWDOWN; i++) {
        const unsigned core = (unsigned)(me + i) % FOREIGN_CORES;
        struct shoal_foreign_call call = {.core = core, .arg = (void *)(me * 100000 + i)};
        if (i % 4 == 0)
            call.fiber_fn = foreign_plus;
        else if (i % 4 == 1)
            call.future_fn = foreign_plus_future;
        else
            call.fn = foreign_plus;
        SHOAL_EXPECT_INT(shoal_foreign_run(&call, NULL, &answer), 0);
        SHOAL_EXPECT_INT(answer.value.i64, me * 100000 + i + core * 1000);
    }
    return NULL;
}

static void run_many_threads_get_each_their_own_answer(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    struct shoal_embed *embed = foreign_start();
    for (intptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_many, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    foreign_stop(embed);
}

/* ---- No memory ---- */

static int arm_one(void *arg, union shoal_value *out)
{
    (void)out;
    const struct shoal_fault_plan plan = {.nth = (uint64_t)(uintptr_t)arg};
    shoal_fault_arm(&plan);
    return 0;
}

static int disarm(void *arg, union shoal_value *out)
{
    struct shoal_fault_stats stats;
    (void)arg;
    shoal_fault_disarm(&stats);
    out->u64 = stats.failed;
    return 0;
}

static int pass_on(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    *out = *in;
    return 0;
}

static struct shoal_future *chain_of_own(void *arg)
{
    (void)arg;
    return shoal_then(shoal_future_ready(NULL), pass_on, NULL);
}

/* Whatever allocation of the core fails, the call ends, with 0 or -ENOMEM, and nothing leaks. */
static void run_without_memory_on_the_core_fails_and_ends(void **state)
{
    (void)state;
    struct shoal_embed *embed = foreign_start();
    for (int kind = 0; kind < 3; kind++) {
        unsigned failures = 0;
        for (uintptr_t nth = 1; nth < 30; nth++) {
            struct shoal_foreign_call call = plain(1, arm_one, (void *)nth);
            assert_int_equal(shoal_foreign_run(&call, NULL, NULL), 0);
            call = (struct shoal_foreign_call){.core = 1, .timeout_ns = SHOAL_NS_PER_S};
            if (kind == 0)
                call.fn = foreign_plus;
            else if (kind == 1)
                call.fiber_fn = plus_or_yield;
            else
                call.future_fn = chain_of_own;
            int rc = shoal_foreign_run(&call, NULL, NULL);
            assert_true(rc == 0 || rc == -ENOMEM);
            failures += rc != 0;
            struct shoal_foreign_answer answer = {.text = NULL};
            call = plain(1, disarm, NULL);
            assert_int_equal(shoal_foreign_run(&call, NULL, &answer), 0);
            assert_true(rc == 0 || answer.value.u64 > 0);
        }
#ifdef SHOAL_DEBUG
        assert_true(kind == 0 ? failures == 0 : failures > 0);
#endif
    }
    foreign_stop(embed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_value_comes_back_from_every_core_and_kind),
        cmocka_unit_test(run_failure_brings_code_and_whole_text),
        cmocka_unit_test(run_bad_call_is_refused_with_a_reason),
        cmocka_unit_test(run_timeout_ends_what_waits_and_what_has_not_begun),
        cmocka_unit_test(run_cancel_from_another_thread_ends_it),
        cmocka_unit_test(run_cancel_before_the_begin_keeps_it_from_beginning),
        cmocka_unit_test(run_cancel_that_races_with_the_end_loses_nothing),
        cmocka_unit_test(run_many_threads_get_each_their_own_answer),
        cmocka_unit_test(run_without_memory_on_the_core_fails_and_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
