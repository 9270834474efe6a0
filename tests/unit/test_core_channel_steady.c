/*
 * Channels between cores: no wake-up is lost, and a value allocates nothing.
 */
/* backends: both */
#include "unit/core_channel_check.h"

#define LOAD (200000 / SHOAL_TEST_SLOWDOWN)

struct stream {
    struct shoal_core_channel *channel;
};

/* ---- Sleep ---- */

struct ping {
    struct shoal_core_channel *there;
    struct shoal_core_channel *back;
};

static int answer_pings(void *arg, union shoal_value *out)
{
    (void)out;
    struct ping *ping = arg;
    ping->there = make_channel(sizeof(intptr_t), 1, 1, NULL);
    struct shoal_core_sender *sender = make_sender(ping->back);
    intptr_t value = 0;
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    while (shoal_core_channel_receive(ping->there, &value, FOREVER) == 0) {
        for (volatile intptr_t spin = value * 53 % 1024; spin > 0; spin--)
            ;
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    }
    shoal_core_sender_free(sender);
    shoal_core_channel_free(ping->there);
    return 0;
}

/* Each value meets the other core at another moment of its falling asleep. */
static int check_wakes(void *arg)
{
    (void)arg;
    struct ping ping;
    intptr_t value;
    ping.back = make_channel(sizeof(intptr_t), 1, 1, NULL);
    struct shoal_future *done = start_on(1, answer_pings, &ping);
    SHOAL_EXPECT_INT(shoal_core_channel_receive(ping.back, &value, FOREVER), 0);
    struct shoal_core_sender *sender = make_sender(ping.there);
    for (intptr_t i = 0; i < LOAD / 4; i++) {
        for (volatile intptr_t spin = i * 37 % 2048; spin > 0; spin--)
            ;
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &i, FOREVER), 0);
        SHOAL_EXPECT_INT(shoal_core_channel_receive(ping.back, &value, FOREVER), 0);
        if (!SHOAL_EXPECT_INT(value, i))
            break;
    }
    shoal_core_sender_free(sender);
    SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    shoal_core_channel_free(ping.back);
    return 0;
}

static void core_channel_wakes_a_core_that_falls_asleep(void **state)
{
    (void)state;
    const char *const options[] = {"--idle-poll-time-us", "0", NULL};
    assert_int_equal(shoal_test_run_with(2, options, check_wakes, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_wakes, NULL), 0);
}

/* ---- Memory ---- */

static uint64_t allocs_here(void)
{
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    return stats.allocs;
}

static int send_steadily(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct shoal_core_sender *sender = make_sender(stream->channel);
    uint64_t before = 0;
    for (int i = 0; i < LOAD; i++) {
        if (i == LOAD / 4)
            before = allocs_here();
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &i, FOREVER), 0);
    }
    SHOAL_EXPECT_INT(allocs_here() - before, 0);
    shoal_core_sender_free(sender);
    return 0;
}

static int check_steady(void *arg)
{
    (void)arg;
    struct stream stream = {make_channel(sizeof(int), 16, 1, NULL)};
    struct shoal_future *done = start_on(1, send_steadily, &stream);
    uint64_t before = 0;
    int value;
    for (int i = 0; i < LOAD; i++) {
        if (i == LOAD / 4)
            before = allocs_here();
        SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER), 0);
    }
    SHOAL_EXPECT_INT(allocs_here() - before, 0);
    SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    shoal_core_channel_free(stream.channel);
    return 0;
}

static void core_channel_value_allocates_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_steady, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_channel_wakes_a_core_that_falls_asleep),
        cmocka_unit_test(core_channel_value_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
