/*
 * Fibers: life, cancelling, stacks.
 */
/* backends: both */
#include <signal.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/io.h"
#include "shoal/runtime/sanitizer_impl.h"

#include "unit/harness.h"

static struct shoal_fiber *spawn(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, "child"), 0);
    return fiber;
}

static int identity(void *arg)
{
    return (int)(intptr_t)arg;
}

static int add_one(void *arg)
{
    ++*(int *)arg;
    return 0;
}

static int check_life(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber = spawn(identity, (void *)42);
    SHOAL_EXPECT(strcmp(shoal_fiber_name(fiber), "child") == 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 42);
    fiber = spawn(identity, (void *)-7); /* joined after it has returned */
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -7);
    int ran = 0;
    shoal_fiber_detach(spawn(add_one, &ran)); /* before it runs */
    SHOAL_EXPECT_INT(ran, 0);                 /* never inside the spawn */
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(ran, 1);
    fiber = spawn(add_one, &ran);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_detach(fiber); /* after it has returned */
    SHOAL_EXPECT_INT(ran, 2);
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(add_one, &ran, "detached"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(ran, 3);
    SHOAL_EXPECT(strcmp(shoal_fiber_name(shoal_fiber_self()), "main") == 0);
    return 0;
}

static void fiber_is_joined_or_detached_at_any_time(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_life, NULL), 0);
}

static char trace[64];
static size_t traced;

static int trace_thrice(void *arg)
{
    for (int i = 0; i < 3; i++) {
        trace[traced++] = *(const char *)arg;
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    }
    return 0;
}

static int check_yield(void *arg)
{
    (void)arg;
    traced = 0;
    memset(trace, 0, sizeof(trace));
    struct shoal_fiber *a = spawn(trace_thrice, "a");
    struct shoal_fiber *b = spawn(trace_thrice, "b");
    struct shoal_fiber *c = spawn(trace_thrice, "c");
    SHOAL_EXPECT_INT(shoal_fiber_join(a), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(b), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(c), 0);
    SHOAL_EXPECT(strcmp(trace, "abcabcabc") == 0);
    return 0;
}

static void fiber_yield_lets_all_others_run_in_turn(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_yield, NULL), 0);
}

static int check_sleep(void *arg)
{
    (void)arg;
    static const uint64_t delays[] = {0, 1, 1000, 999999, 3000000};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(delays); i++) {
        uint64_t start = shoal_now_ns();
        SHOAL_EXPECT_INT(shoal_sleep_ns(delays[i]), 0);
        SHOAL_EXPECT(shoal_now_ns() - start >= delays[i]);
    }
    return 0;
}

static void fiber_sleep_is_never_short(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_sleep, NULL), 0);
}

/* ---- Cancelling ---- */

static int sleep_long(void *arg)
{
    (void)arg;
    int first = shoal_sleep_ns(SHOAL_NS_FOREVER);
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_sleep_ns(1), -ECANCELED); /* and every later wait */
    SHOAL_EXPECT_INT(shoal_yield(), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_poll_fd(0, POLLIN), -ECANCELED);
    return first;
}

static void cancel_to_failure(void *ctx)
{
    shoal_future_fail(*(struct shoal_future **)ctx, -EINTR, "asked to end");
}

static int await_cancellable(void *arg)
{
    (void)arg;
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_cancel(future, cancel_to_failure, &future);
    return shoal_await(future, NULL);
}

static int join_sleeper(void *arg)
{
    (void)arg;
    return shoal_fiber_join(spawn(sleep_long, NULL));
}

static int poll_never(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = shoal_poll_fd(fd, POLLIN);
    close(fd);
    return rc;
}

static int check_cancel(void *arg)
{
    (void)arg;
    static const struct {
        shoal_fiber_fn *fn;
        int result;
    } cases[] = {{sleep_long, -ECANCELED},
                 {await_cancellable, -EINTR},
                 {join_sleeper, -ECANCELED},
                 {poll_never, -ECANCELED}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++) {
        for (int turns = 0; turns < 4; turns++) { /* before it runs, when it waits, ... */
            struct shoal_fiber *fiber = spawn(cases[i].fn, NULL);
            for (int turn = 0; turn < turns; turn++)
                SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
            shoal_fiber_cancel(fiber);
            shoal_fiber_cancel(fiber); /* asking twice is fine */
            int expected = turns == 0 ? -ECANCELED : cases[i].result;
            SHOAL_EXPECT_INT(shoal_fiber_join(fiber), expected);
        }
    }
    struct shoal_fiber *done = spawn(identity, (void *)5);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_cancel(done); /* too late */
    SHOAL_EXPECT_INT(shoal_fiber_join(done), 5);
    return 0;
}

static void fiber_cancel_ends_every_kind_of_wait(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancel, NULL), 0);
}

static struct shoal_future *raced;

static int await_raced(void *arg)
{
    (void)arg;
    union shoal_value value = {.i64 = 0};
    SHOAL_EXPECT_INT(shoal_await(raced, &value), 0);
    SHOAL_EXPECT_INT(value.i64, 77);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1), -ECANCELED);
    return 0;
}

static int check_race(void *arg)
{
    (void)arg;
    union shoal_value value = {.i64 = 77};
    raced = shoal_future_new();
    struct shoal_fiber *fiber = spawn(await_raced, NULL);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_future_resolve(raced, &value);
    shoal_fiber_cancel(fiber); /* the result was faster */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    raced = shoal_future_new(); /* its producer cannot be cancelled: the wait goes on */
    fiber = spawn(await_raced, NULL);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    shoal_future_resolve(raced, &value);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    return 0;
}

static void fiber_cancel_delivers_a_result_that_was_faster(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_race, NULL), 0);
}

static int dropped;

static void drop(union shoal_value *value)
{
    dropped += (int)value->i64;
}

static int await_after_cancel(void *arg)
{
    (void)shoal_sleep_ns(SHOAL_NS_FOREVER);
    return shoal_await(arg, NULL);
}

static int check_await_after_cancel(void *arg)
{
    (void)arg;
    dropped = 0;
    struct shoal_future *future = shoal_future_new();
    shoal_future_on_drop(future, drop);
    struct shoal_fiber *fiber = spawn(await_after_cancel, future);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_sleep_ns(1000), 0);
    union shoal_value value = {.i64 = 3};
    shoal_future_resolve(future, &value);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(dropped, 3);
    return 0;
}

static void fiber_await_after_cancel_drops_the_value(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_await_after_cancel, NULL), 0);
}

static int shielded(void *arg)
{
    bool *waiting = arg;
    shoal_fiber_shield();
    shoal_fiber_shield();
    *waiting = true;
    int rc = shoal_sleep_ns(3 * SHOAL_NS_PER_MS);
    SHOAL_EXPECT(!shoal_fiber_cancelled());
    shoal_fiber_unshield();
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_future_ready(NULL), NULL), 0);
    shoal_fiber_unshield();
    SHOAL_EXPECT(shoal_fiber_cancelled());
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_FOREVER), -ECANCELED);
    return rc;
}

static int check_shield(void *arg)
{
    (void)arg;
    bool waiting = false;
    struct shoal_fiber *fiber = spawn(shielded, &waiting);
    while (!waiting)
        SHOAL_EXPECT_INT(shoal_yield(), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    return 0;
}

static void fiber_shield_keeps_a_cancel_off_until_its_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_shield, NULL), 0);
}

/* ---- Many, and stacks ---- */

#define CROWD (10000 / SHOAL_TEST_SLOWDOWN)

static int touch_and_sleep(void *arg)
{
    volatile char pages[16384];
    for (size_t i = 0; i < sizeof(pages); i += 512)
        pages[i] = (char)i;
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    for (size_t i = 0; i < sizeof(pages); i += 512)
        if (pages[i] != (char)i)
            return -1;
    return (int)(intptr_t)arg;
}

static size_t resident_kib(void)
{
    size_t total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%zu %zu", &total, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static int check_crowd(void *arg)
{
    (void)arg;
    static struct shoal_fiber *fibers[CROWD];
    size_t before = 0;
    for (int round = 0; round < 3; round++) {
        for (intptr_t i = 0; i < CROWD; i++)
            fibers[i] = spawn(touch_and_sleep, (void *)i);
        SHOAL_EXPECT(shoal_core_self->fibers.live_count >= CROWD);
        for (intptr_t i = 0; i < CROWD; i++)
            SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), i);
        size_t now = resident_kib();
        if (round == 0)
            before = now;
        /* 16 KiB each were touched; after the burst all but the hot ones have given theirs back. */
        SHOAL_EXPECT(now <= before + CROWD * 4);
#ifdef RUNNING_ON_VALGRIND
        bool bare = !RUNNING_ON_VALGRIND; /* which keeps books of its own on every byte */
#else
        bool bare = true;
#endif
#if SHOAL_TEST_SLOWDOWN == 1
        SHOAL_EXPECT(!bare || now < CROWD * 16);
#else
        (void)bare;
#endif
    }
    return 0;
}

static void fiber_ten_thousand_at_once_and_the_pool_is_trimmed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_crowd, NULL), 0);
}

static __attribute__((noinline)) int recurse(volatile char *above, int depth)
{
    volatile char frame[512];
    frame[0] = above != NULL ? above[0] : 1;
    int below = depth > 0 ? recurse(frame, depth - 1) : 0;
    return below + frame[0];
}

static int recurse_to(void *arg)
{
    return recurse(NULL, (int)(intptr_t)arg);
}

static int check_deep(void *arg)
{
    (void)arg;
    /* About 100 KiB of the 128. */
    SHOAL_EXPECT_INT(shoal_fiber_join(spawn(recurse_to, (void *)160)), 161);
    return 0;
}

static void fiber_deep_recursion_within_the_stack_is_fine(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_deep, NULL), 0);
}

static int overflow(void *arg)
{
    (void)arg;
    struct shoal_fiber *fiber;
    if (shoal_fiber_spawn(&fiber, recurse_to, (void *)1000000, "glutton") != 0)
        return 1;
    return shoal_fiber_join(fiber);
}

static int run_overflow(void *arg)
{
    return shoal_test_run(1, overflow, arg);
}

static void fiber_stack_overflow_names_the_fiber(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_overflow, NULL);
    assert_non_null(strstr(child.text, "glutton"));
    assert_int_equal(child.signal, SIGABRT);
}

static int join_itself(void *arg)
{
    (void)arg;
    return shoal_fiber_join(shoal_fiber_self());
}

static int leave_unjoined(void *arg)
{
    (void)arg;
    (void)spawn(identity, NULL);
    return shoal_yield();
}

static int run_leave_unjoined(void *arg)
{
    return shoal_test_run(1, leave_unjoined, arg);
}

static void fiber_join_of_itself_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, join_itself, "");
}

static void fiber_neither_joined_nor_detached_is_reported_at_stop(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_leave_unjoined, NULL);
    assert_int_equal(child.exit_code, SHOAL_TEST_FAILED);
    assert_non_null(strstr(child.text, "fiber \"child\" was neither joined nor detached"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fiber_is_joined_or_detached_at_any_time),
        cmocka_unit_test(fiber_yield_lets_all_others_run_in_turn),
        cmocka_unit_test(fiber_sleep_is_never_short),
        cmocka_unit_test(fiber_cancel_ends_every_kind_of_wait),
        cmocka_unit_test(fiber_cancel_delivers_a_result_that_was_faster),
        cmocka_unit_test(fiber_await_after_cancel_drops_the_value),
        cmocka_unit_test(fiber_shield_keeps_a_cancel_off_until_its_end),
        cmocka_unit_test(fiber_ten_thousand_at_once_and_the_pool_is_trimmed),
        cmocka_unit_test(fiber_deep_recursion_within_the_stack_is_fine),
        cmocka_unit_test(fiber_stack_overflow_names_the_fiber),
        cmocka_unit_test(fiber_join_of_itself_aborts),
        cmocka_unit_test(fiber_neither_joined_nor_detached_is_reported_at_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
