/*
 * Channels between cores: order, credit, ends of waits, closing from either side.
 */
/* backends: both */
#include "unit/core_channel_check.h"

#define LOAD (200000 / SHOAL_TEST_SLOWDOWN)

struct value {
    uint32_t from;
    uint32_t number;
};

struct stream {
    struct shoal_core_channel *channel;
    uint32_t count;
    uint32_t fibers;
    atomic_int ready;
    atomic_int go;
};

/* ---- Order ---- */

struct part {
    struct shoal_core_sender *sender;
    uint32_t from;
    uint32_t count;
};

static int send_numbers(void *arg)
{
    const struct part *part = arg;
    for (uint32_t i = 0; i < part->count; i++) {
        struct value value = {part->from, i};
        if (!SHOAL_EXPECT_INT(shoal_core_channel_send(part->sender, &value, FOREVER), 0))
            break;
        value.number = UINT32_MAX; /* it was copied */
    }
    return 0;
}

/* An end, which some fibers use. */
static int send_stream(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct part parts[4];
    struct shoal_fiber *fibers[4];
    struct shoal_core_sender *sender = make_sender(stream->channel);
    for (uint32_t i = 0; i < stream->fibers; i++) {
        parts[i] = (struct part){sender, (uint32_t)shoal_core_id() * 4 + i, stream->count};
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], send_numbers, &parts[i], "part"), 0);
    }
    for (uint32_t i = 0; i < stream->fibers; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    shoal_core_sender_free(sender);
    return 0;
}

static void check_streams(uint32_t credit, uint32_t fibers, uint32_t count)
{
    unsigned cores = shoal_core_count();
    uint32_t next[64 * 4] = {0};
    struct stream stream = {.count = count, .fibers = fibers};
    struct shoal_future *senders[64];
    stream.channel = make_channel(sizeof(struct value), credit, cores, NULL);
    for (unsigned core = 0; core < cores; core++)
        senders[core] = start_on(core, send_stream, &stream);
    struct value value;
    uint64_t received = 0;
    int rc;
    while ((rc = shoal_core_channel_receive(stream.channel, &value, FOREVER)) == 0) {
        received++;
        if (!SHOAL_EXPECT(value.from < cores * 4) ||
            !SHOAL_EXPECT_INT(value.number, next[value.from]++))
            break;
    }
    SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(received, (uint64_t)cores * fibers * count);
    for (unsigned core = 0; core < cores; core++)
        SHOAL_EXPECT_INT(shoal_await(senders[core], NULL), 0);
    shoal_core_channel_free(stream.channel);
}

static int check_order(void *arg)
{
    (void)arg;
    uint32_t count = LOAD / shoal_core_count();
    check_streams(1, 1, count / 20);
    check_streams(2, 4, count / 20);
    check_streams(7, 2, count / 4);
    check_streams(64, 1, count);
    check_streams(1000, 3, count / 2);
    return 0;
}

static void core_channel_keeps_the_order_of_each_sender(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_order, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_order, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_order, NULL), 0);
}

/* Values of all sizes, over the ring's end. */
static int send_bytes(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    unsigned char bytes[1000];
    struct shoal_core_sender *sender = make_sender(stream->channel);
    for (uint32_t i = 0; i < 100; i++) {
        memset(bytes, (int)i + 1, stream->count);
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, bytes, FOREVER), 0);
    }
    shoal_core_sender_free(sender);
    return 0;
}

static int check_sizes(void *arg)
{
    (void)arg;
    static const uint32_t sizes[] = {1, 3, 8, 17, 64, 100, 1000};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(sizes); i++) {
        struct stream stream = {.count = sizes[i]};
        stream.channel = make_channel(sizes[i], 5, 1, NULL);
        struct shoal_future *done = start_on(1, send_bytes, &stream);
        unsigned char bytes[1001];
        memset(bytes, 0xee, sizeof(bytes));
        for (uint32_t n = 0; n < 100; n++) {
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, bytes, FOREVER), 0);
            for (uint32_t b = 0; b < sizes[i]; b++)
                if (!SHOAL_EXPECT_INT(bytes[b], n + 1))
                    return 1;
            SHOAL_EXPECT_INT(bytes[sizes[i]], 0xee);
        }
        SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, bytes, FOREVER), SHOAL_ECLOSED);
        SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
        shoal_core_channel_free(stream.channel);
    }
    return 0;
}

static void core_channel_value_arrives_whole(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_sizes, NULL), 0);
}

/* ---- Credit ---- */

static int fill_up(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct shoal_core_sender *sender = make_sender(stream->channel);
    int value = 0;
    for (; value < (int)stream->count; value++) {
        SHOAL_EXPECT_INT(shoal_core_sender_credit(sender), stream->count - (uint32_t)value);
        SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), 0);
    }
    SHOAL_EXPECT_INT(shoal_core_sender_credit(sender), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, SHOAL_NS_PER_MS), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_await(shoal_core_channel_send_future(sender, &value, 0), NULL),
                     -ETIMEDOUT);
    atomic_store(&stream->ready, 1);
    wait_for(&stream->go, 1); /* one was received, so there is one credit again */
    while (shoal_core_sender_credit(sender) == 0)
        (void)shoal_sleep_ns(SHOAL_NS_PER_US);
    SHOAL_EXPECT_INT(shoal_core_sender_credit(sender), 1);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), -EAGAIN);
    shoal_core_sender_free(sender);
    return 0;
}

static int check_credit(void *arg)
{
    (void)arg;
    static const uint32_t credits[] = {1, 2, 9, 100};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(credits); i++)
        for (unsigned core = 0; core < 2; core++) {
            struct stream stream = {.count = credits[i]};
            int value = -1;
            stream.channel = make_channel(sizeof(value), credits[i], 1, NULL);
            SHOAL_EXPECT_INT(shoal_core_channel_try_receive(stream.channel, &value), -EAGAIN);
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, 0), -ETIMEDOUT);
            struct shoal_future *done = start_on(core, fill_up, &stream);
            wait_for(&stream.ready, 1);
            SHOAL_EXPECT_INT(shoal_core_channel_length(stream.channel), credits[i]);
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER), 0);
            SHOAL_EXPECT_INT(value, 0);
            atomic_store(&stream.go, 1);
            SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
            for (uint32_t n = 1; n <= credits[i]; n++) {
                SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER), 0);
                SHOAL_EXPECT_INT(value, n);
            }
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER),
                             SHOAL_ECLOSED);
            SHOAL_EXPECT_INT(shoal_core_channel_try_receive(stream.channel, &value), SHOAL_ECLOSED);
            shoal_core_channel_free(stream.channel);
        }
    return 0;
}

static void core_channel_credit_is_the_bound_and_comes_back(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_credit, NULL), 0);
}

/* Many wait for credit on one end: first come, first served, and nobody overtakes. */
static struct shoal_core_sender *shared_sender;
static atomic_int in_line;

static int send_in_line(void *arg)
{
    atomic_fetch_add(&in_line, 1);
    int value = (int)(intptr_t)arg;
    return shoal_core_channel_send(shared_sender, &value, FOREVER);
}

static int line_up(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct shoal_fiber *fibers[10];
    int value = 0;
    shared_sender = make_sender(stream->channel);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(shared_sender, &value), 0);
    for (intptr_t i = 0; i < 10; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], send_in_line, (void *)(i + 1), "in line"),
                         0);
    wait_for(&in_line, 10);
    value = 11;
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(shared_sender, &value), -EAGAIN);
    struct shoal_future *last = shoal_core_channel_send_future(shared_sender, &value, FOREVER);
    value = 12; /* it was copied */
    atomic_store(&stream->ready, 1);
    for (int i = 0; i < 10; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT_INT(shoal_await(last, NULL), 0);
    shoal_core_sender_free(shared_sender);
    return 0;
}

static int check_line(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        struct stream stream = {.count = 1};
        atomic_store(&in_line, 0);
        stream.channel = make_channel(sizeof(int), 1, 1, NULL);
        struct shoal_future *done = start_on(core, line_up, &stream);
        wait_for(&stream.ready, 1);
        for (int i = 0; i < 12; i++) {
            int value = -1;
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER), 0);
            SHOAL_EXPECT_INT(value, i);
        }
        SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
        shoal_core_channel_free(stream.channel);
    }
    return 0;
}

static void core_channel_senders_without_credit_are_served_in_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_line, NULL), 0);
}

/* What has come, be it value or credit, is for those in line, though nobody has looked yet. */
static int receive_two(void *arg)
{
    int value = -1;
    SHOAL_EXPECT_INT(shoal_core_channel_receive(arg, &value, FOREVER), 0);
    SHOAL_EXPECT_INT(value, 1);
    return 0;
}

static int send_two(void *arg)
{
    int value = 2;
    return shoal_core_channel_send(arg, &value, FOREVER);
}

static int check_overtaking(void *arg)
{
    (void)arg;
    struct shoal_core_channel *channel = make_channel(sizeof(int), 1, 0, NULL);
    struct shoal_core_sender *sender = make_sender(channel);
    struct shoal_fiber *fiber;
    int value = 0;
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_receive(channel, &value, FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, receive_two, channel, "first"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    value = 1;
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_try_receive(channel, &value), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, send_two, sender, "second"), 0);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_core_channel_try_receive(channel, &value), 0);
    SHOAL_EXPECT_INT(value, 1);
    value = 3;
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &value), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_core_channel_receive(channel, &value, FOREVER), 0);
    SHOAL_EXPECT_INT(value, 2);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    shoal_core_sender_free(sender);
    shoal_core_channel_free(channel);
    return 0;
}

static void core_channel_who_is_in_line_is_not_overtaken(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_overtaking, NULL), 0);
}

/* ---- Waits that end early ---- */

static int receive_one(void *arg)
{
    int value;
    return shoal_core_channel_receive(arg, &value, FOREVER);
}

static int send_one(void *arg)
{
    int value = 77;
    return shoal_core_channel_send(arg, &value, FOREVER);
}

static void cancel_and_join(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, "waits"), 0);
    SHOAL_EXPECT_INT(shoal_sleep_ns(SHOAL_NS_PER_MS), 0);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
}

static int check_sender_ends(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct shoal_core_sender *sender = make_sender(stream->channel);
    int value = 1;
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    cancel_and_join(send_one, sender);
    struct shoal_future *future = shoal_core_channel_send_future(sender, &value, FOREVER);
    shoal_future_cancel(future);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
    future = shoal_core_channel_send_future(sender, &value, SHOAL_NS_PER_MS);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), -ETIMEDOUT);
    value = 2;
    future = shoal_core_channel_send_future(sender, &value, FOREVER);
    atomic_store(&stream->ready, 1);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), 0);
    value = 3;
    shoal_discard(shoal_core_channel_send_future(sender, &value, FOREVER));
    value = 4;
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    shoal_core_sender_free(sender);
    return 0;
}

static int check_early(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        struct stream stream = {.count = 1};
        int value = -1;
        stream.channel = make_channel(sizeof(int), 1, 1, NULL);
        cancel_and_join(receive_one, stream.channel);
        SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, SHOAL_NS_PER_MS),
                         -ETIMEDOUT);
        struct shoal_future *future = shoal_core_channel_receive_future(stream.channel, FOREVER);
        shoal_future_cancel(future);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
        future = shoal_core_channel_receive_future(stream.channel, SHOAL_NS_PER_MS);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), -ETIMEDOUT);
        struct shoal_future *done = start_on(core, check_sender_ends, &stream);
        wait_for(&stream.ready, 1);
        for (int i = 1; i <= 4; i++) { /* what was not sent does not come */
            SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER), 0);
            SHOAL_EXPECT_INT(value, i);
        }
        SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
        SHOAL_EXPECT_INT(shoal_core_channel_receive(stream.channel, &value, FOREVER),
                         SHOAL_ECLOSED);
        shoal_core_channel_free(stream.channel);
    }
    return 0;
}

static void core_channel_wait_that_ends_early_moves_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_early, NULL), 0);
}

/* ---- Futures and selects ---- */

static int send_count(void *arg, union shoal_value *out)
{
    (void)out;
    struct stream *stream = arg;
    struct shoal_core_sender *sender = make_sender(stream->channel);
    for (uint32_t i = 0; i < stream->count; i++) {
        unsigned char big[40] = {(unsigned char)i};
        SHOAL_EXPECT_INT(shoal_core_channel_send(sender, big, FOREVER), 0);
    }
    shoal_core_sender_free(sender);
    return 0;
}

static int take_byte(struct shoal_future *future)
{
    union shoal_value value;
    unsigned char big[40];
    int rc = shoal_await(future, &value);
    if (rc < 0)
        return rc;
    shoal_core_channel_take(&value, big);
    return big[0];
}

static int check_receive_futures(void *arg)
{
    (void)arg;
    struct stream stream = {.count = 10};
    unsigned char big[40];
    stream.channel = make_channel(40, 4, 1, NULL);
    struct shoal_core_channel *channel = stream.channel;
    struct shoal_future *zero = shoal_core_channel_receive_future(channel, FOREVER);
    struct shoal_future *dropped = shoal_core_channel_receive_future(channel, FOREVER);
    struct shoal_future *second = shoal_core_channel_receive_future(channel, FOREVER);
    struct shoal_future *third = shoal_core_channel_receive_future(channel, FOREVER);
    shoal_discard(dropped); /* while it is pending */
    struct shoal_future *done = start_on(1, send_count, &stream);
    SHOAL_EXPECT_INT(take_byte(zero), 0);
    SHOAL_EXPECT_INT(take_byte(second), 1);
    SHOAL_EXPECT_INT(take_byte(third), 2);
    /* Of three that have a value the middle one is given up, and then the first. */
    zero = shoal_core_channel_receive_future(channel, FOREVER);
    second = shoal_core_channel_receive_future(channel, FOREVER);
    third = shoal_core_channel_receive_future(channel, FOREVER);
    SHOAL_EXPECT_INT(take_byte(third), 5);
    SHOAL_EXPECT_INT(shoal_await(second, NULL), 0);
    shoal_discard(zero);
    while (shoal_core_channel_length(channel) < 6)
        (void)shoal_sleep_ns(SHOAL_NS_PER_US);
    for (int i = 3; i < 10; i++)
        if (i != 5) {
            SHOAL_EXPECT_INT(shoal_core_channel_receive(channel, big, FOREVER), 0);
            SHOAL_EXPECT_INT(big[0], i);
        }
    zero = shoal_core_channel_receive_future(channel, FOREVER);
    SHOAL_EXPECT_INT(take_byte(zero), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    shoal_core_channel_free(channel);
    return 0;
}

static void core_channel_future_that_nobody_takes_gives_its_value_back(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_receive_futures, NULL), 0);
}

#define SELECTS 2000

/* Two channels come in, one goes out; all by selects. */
struct relay {
    struct shoal_core_channel *in[2];
    struct shoal_core_channel *back;
};

static int feed(void *arg, union shoal_value *out)
{
    (void)out;
    const struct relay *relay = arg;
    struct shoal_core_sender *ends[2] = {make_sender(relay->in[0]), make_sender(relay->in[1])};
    int next[2] = {0, 0};
    while (next[0] + next[1] < 2 * SELECTS) {
        struct shoal_select_case cases[2];
        for (int i = 0; i < 2; i++)
            cases[i] = next[i] < SELECTS ? shoal_select_core_send(ends[i], &next[i])
                                         : shoal_select_never();
        int which = shoal_select(cases, 2, FOREVER);
        if (!SHOAL_EXPECT(which == 0 || which == 1))
            break;
        SHOAL_EXPECT_INT(cases[which].result, 0);
        next[which]++;
    }
    shoal_core_sender_free(ends[0]);
    shoal_core_sender_free(ends[1]);
    return 0;
}

static int check_select(void *arg)
{
    (void)arg;
    struct relay relay;
    int next[2] = {0, 0};
    int open = 2;
    for (int i = 0; i < 2; i++)
        relay.in[i] = make_channel(sizeof(int), 3, 1, NULL);
    int none = -1;
    struct shoal_select_case idle[] = {shoal_select_core_receive(relay.in[0], &none)};
    SHOAL_EXPECT_INT(shoal_select(idle, 1, 0), -ETIMEDOUT);
    struct shoal_select_case late[] = {shoal_select_core_receive(relay.in[0], &none)};
    SHOAL_EXPECT_INT(shoal_select(late, 1, SHOAL_NS_PER_MS), -ETIMEDOUT);
    struct shoal_future *done = start_on(1, feed, &relay);
    bool closed[2] = {false, false};
    while (open > 0) {
        int values[2] = {-1, -1};
        struct shoal_select_case cases[2];
        for (int i = 0; i < 2; i++)
            cases[i] = closed[i] ? shoal_select_never()
                                 : shoal_select_core_receive(relay.in[i], &values[i]);
        int which = shoal_select(cases, 2, FOREVER);
        if (!SHOAL_EXPECT(which == 0 || which == 1))
            break;
        if (cases[which].result == SHOAL_ECLOSED) {
            closed[which] = true;
            open--;
            continue;
        }
        SHOAL_EXPECT_INT(cases[which].result, 0);
        SHOAL_EXPECT_INT(values[which], next[which]++);
        SHOAL_EXPECT_INT(values[1 - which], -1);
    }
    SHOAL_EXPECT_INT(next[0], SELECTS);
    SHOAL_EXPECT_INT(next[1], SELECTS);
    SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    shoal_core_channel_free(relay.in[0]);
    shoal_core_channel_free(relay.in[1]);
    return 0;
}

static void core_channel_ends_are_sources_of_a_select(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_select, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_channel_keeps_the_order_of_each_sender),
        cmocka_unit_test(core_channel_value_arrives_whole),
        cmocka_unit_test(core_channel_credit_is_the_bound_and_comes_back),
        cmocka_unit_test(core_channel_senders_without_credit_are_served_in_order),
        cmocka_unit_test(core_channel_who_is_in_line_is_not_overtaken),
        cmocka_unit_test(core_channel_wait_that_ends_early_moves_nothing),
        cmocka_unit_test(core_channel_future_that_nobody_takes_gives_its_value_back),
        cmocka_unit_test(core_channel_ends_are_sources_of_a_select),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
