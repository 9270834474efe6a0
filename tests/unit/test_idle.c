/*
 * What an idle core does: sleep, spin for messages, or poll for ever, as its options say.
 */
/* backends: both */
#include <sched.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#include "unit/harness.h"

#define WAIT_NS (30 * SHOAL_NS_PER_MS)

static int count_sleeps(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = shoal_core_self->counters.sleeps;
    return 0;
}

static uint64_t sleeps_of(unsigned core)
{
    union shoal_value value = {.u64 = 0};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, count_sleeps, NULL), &value), 0);
    return value.u64;
}

/* How often core 1 went to sleep while nobody asked it anything for a while after a message. */
static uint64_t sleeps_meanwhile(void)
{
    uint64_t before = sleeps_of(1);
    SHOAL_EXPECT_INT(shoal_sleep_ns(WAIT_NS), 0);
    return sleeps_of(1) - before;
}

static int sleeps_at_once(void *arg)
{
    (void)arg;
    SHOAL_EXPECT(sleeps_meanwhile() >= 1);
    /* Each message finds it asleep, or just about to be: it never waits for one to come. */
    uint64_t before = sleeps_of(1);
    for (int i = 0; i < 20; i++) {
        SHOAL_EXPECT_INT(shoal_sleep_ns(2 * SHOAL_NS_PER_MS), 0);
        (void)sleeps_of(1);
    }
    SHOAL_EXPECT(sleeps_of(1) - before >= 10);
    return 0;
}

static int never_sleeps(void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(sleeps_meanwhile(), 0);
    return 0;
}

static int never_sleeps_but_timers_fire(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    SHOAL_EXPECT_INT(shoal_sleep_ns(WAIT_NS), 0);
    SHOAL_EXPECT(shoal_now_ns() - start_ns >= WAIT_NS);
    SHOAL_EXPECT_INT(shoal_core_self->counters.sleeps, 0);
    SHOAL_EXPECT_INT(sleeps_meanwhile(), 0);
    return 0;
}

static int tell_spin_ns(void *arg, union shoal_value *out)
{
    (void)arg;
    out->u64 = shoal_core_self->spin_ns;
    return 0;
}

static int learns_to_spin_less(void *arg)
{
    (void)arg;
    const uint64_t full_ns = shoal_core_self->config.idle_poll_ns;
    for (int i = 0; i < 20; i++) { /* core 1 spins after each of them, and nothing comes */
        (void)sleeps_of(1);
        SHOAL_EXPECT_INT(shoal_sleep_ns(5 * SHOAL_NS_PER_MS), 0);
    }
    union shoal_value value = {.u64 = 0};
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, tell_spin_ns, NULL), &value), 0);
    SHOAL_EXPECT(value.u64 < full_ns / 4);
    SHOAL_EXPECT(value.u64 > 0);
    return 0;
}

/* `fn` on core 0 of two, with options. */
static void run_with(const char *const *words, int (*fn)(void *arg))
{
    assert_int_equal(shoal_test_run_with(2, words, fn, NULL), 0);
}

static void idle_core_sleeps_at_once_without_idle_poll_time(void **state)
{
    static const char *const words[] = {"--idle-poll-time-us", "0", NULL};
    (void)state;
    run_with(words, sleeps_at_once);
}

static void idle_core_sleeps_at_once_when_overprovisioned(void **state)
{
    static const char *const words[] = {"--overprovisioned", "--idle-poll-time-us", "1000000",
                                        NULL};
    (void)state;
    run_with(words, sleeps_at_once);
}

static void idle_core_spins_for_its_idle_poll_time(void **state)
{
    static const char *const words[] = {"--idle-poll-time-us", "1000000", NULL};
    cpu_set_t cpus;
    (void)state;
    /* With more cores than CPUs nobody spins. */
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    if (CPU_COUNT(&cpus) >= 2)
        run_with(words, never_sleeps);
}

static void idle_core_never_sleeps_in_poll_mode(void **state)
{
    static const char *const words[] = {"--poll-mode", NULL};
    (void)state;
    run_with(words, never_sleeps_but_timers_fire);
}

static void idle_core_learns_that_spins_bring_nothing(void **state)
{
    static const char *const words[] = {"--idle-poll-time-us", "1000", NULL};
    cpu_set_t cpus;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    if (CPU_COUNT(&cpus) >= 2)
        run_with(words, learns_to_spin_less);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_core_sleeps_at_once_without_idle_poll_time),
        cmocka_unit_test(idle_core_sleeps_at_once_when_overprovisioned),
        cmocka_unit_test(idle_core_spins_for_its_idle_poll_time),
        cmocka_unit_test(idle_core_never_sleeps_in_poll_mode),
        cmocka_unit_test(idle_core_learns_that_spins_bring_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
