/*
 * A test as a user of the installed package would write it: on two cores, on a manual clock, and
 * one that has to fail.
 */
#include <stdio.h>

#include <shoal/shoal.h>
#include <shoal/smp/test.h>

static int told;

static void count_failure(const char *text)
{
    told++;
    (void)text;
}

static int core_number(void *arg, union shoal_value *out)
{
    (void)arg;
    out->i64 = shoal_core_id();
    return 0;
}

static int asks_core_1(void *arg)
{
    (void)arg;
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(1, core_number, NULL), &value), 0);
    SHOAL_EXPECT_INT(value.i64, 1);
    return 0;
}

static int naps(void *arg)
{
    (void)arg;
    uint64_t start_ns = shoal_now_ns();
    (void)shoal_sleep_ns(1000 * SHOAL_NS_PER_S);
    SHOAL_EXPECT_INT(shoal_now_ns() - start_ns, 1000 * SHOAL_NS_PER_S);
    return 5;
}

static int forgets_a_future(void *arg)
{
    (void)arg;
    (void)shoal_future_ready(NULL);
    return 0;
}

int main(void)
{
    const struct shoal_test_options on_auto_clock = {.cores = 2, .clock = SHOAL_TEST_CLOCK_AUTO};
    shoal_test_on_failure(count_failure);
    if (shoal_test_run(2, asks_core_1, NULL) != 0 ||
        shoal_test_run_options(&on_auto_clock, naps, NULL) != 5)
        return 1;
    if (told != 0 || shoal_test_run(1, forgets_a_future, NULL) != SHOAL_TEST_FAILED || told != 1)
        return 2;
    puts("user test: passed");
    return 0;
}
