/*
 * The channel: order, bounds, closing, and messages that change hands while waits end early.
 */
/* backends: both */
#include "shoal/runtime/channel.h"

#include "unit/sync_check.h"

static struct shoal_channel channel;

static void begin(uint32_t capacity)
{
    sync_clock_begin();
    const struct shoal_channel_options options = {.item_bytes = sizeof(int), .capacity = capacity};
    SHOAL_EXPECT_INT(shoal_channel_init(&channel, &options), 0);
}

static void end(void)
{
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 0);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_channel_deinit(&channel);
    sync_clock_end();
}

struct transfer {
    uint64_t timeout_ns;
    int item;
};

static int send_item(void *arg)
{
    struct transfer *transfer = arg;
    int rc = shoal_channel_send(&channel, &transfer->item, transfer->timeout_ns);
    return rc;
}

static int receive_item(void *arg)
{
    struct transfer *transfer = arg;
    return shoal_channel_receive(&channel, &transfer->item, transfer->timeout_ns);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, struct transfer *transfer)
{
    struct shoal_fiber *fiber = sync_spawn(fn, transfer);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static void expect_next(int expected)
{
    int item = -1;
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &item), 0);
    SHOAL_EXPECT_INT(item, expected);
}

static int try_send(int item)
{
    return shoal_channel_try_send(&channel, &item);
}

/* The message of a receive's future. */
static int await_item(struct shoal_future *future)
{
    union shoal_value value;
    int item = -1;
    int rc = shoal_await(future, &value);
    if (rc < 0)
        return rc;
    shoal_channel_take(&value, &item);
    return item;
}

static int check_order(void *arg)
{
    (void)arg;
    begin(3);
    int item;
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &item), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_channel_receive(&channel, &item, 0), -ETIMEDOUT);
    for (int round = 0; round < 5; round++) { /* over the ring's end */
        for (int i = 0; i < 3; i++)
            SHOAL_EXPECT_INT(try_send(i), 0);
        SHOAL_EXPECT_INT(try_send(3), -EAGAIN);
        SHOAL_EXPECT_INT(shoal_channel_send(&channel, &item, 0), -ETIMEDOUT);
        SHOAL_EXPECT_INT(shoal_channel_length(&channel), 3);
        expect_next(0);
        SHOAL_EXPECT_INT(try_send(3), 0);
        for (int i = 1; i < 4; i++)
            expect_next(i);
    }
    /* Senders in line follow the ring, in order. */
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(try_send(i), 0);
    struct transfer third = {FOREVER, 3}, fifth = {FOREVER, 5};
    struct shoal_fiber *fiber = waiting(send_item, &third);
    int four = 4;
    struct shoal_future *future = shoal_channel_send_future(&channel, &four, FOREVER);
    four = -1; /* it was copied */
    struct shoal_fiber *last = waiting(send_item, &fifth);
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 6);
    for (int i = 0; i < 6; i++)
        expect_next(i);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(last), 0);
    /* Receivers in line are served in order, at once. */
    struct transfer first = {FOREVER, -1}, second = {FOREVER, -1};
    fiber = waiting(receive_item, &first);
    future = shoal_channel_receive_future(&channel, FOREVER);
    last = waiting(receive_item, &second);
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(try_send(i), 0);
    SHOAL_EXPECT_INT(first.item, 0); /* before it has run */
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 1);
    SHOAL_EXPECT_INT(await_item(future), 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(last), 0);
    SHOAL_EXPECT_INT(second.item, 2);
    expect_next(3);
    end();
    return 0;
}

static void channel_delivers_in_order_within_its_bound(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_order, NULL), 0);
}

static int check_hand_to_hand(void *arg)
{
    (void)arg;
    begin(0);
    struct transfer one = {FOREVER, 1}, two = {FOREVER, 2}, got = {FOREVER, -1};
    SHOAL_EXPECT_INT(try_send(1), -EAGAIN);
    struct shoal_fiber *sender = waiting(send_item, &one);
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 1);
    expect_next(1);
    SHOAL_EXPECT_INT(shoal_fiber_join(sender), 0);
    struct shoal_fiber *receiver = waiting(receive_item, &got);
    sender = sync_spawn(send_item, &two);
    SHOAL_EXPECT_INT(shoal_fiber_join(sender), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(receiver), 0);
    SHOAL_EXPECT_INT(got.item, 2);
    struct shoal_future *future = shoal_channel_receive_future(&channel, FOREVER);
    SHOAL_EXPECT_INT(try_send(3), 0);
    SHOAL_EXPECT_INT(try_send(4), -EAGAIN);
    shoal_discard(future); /* it goes back, though there is no room for it */
    SHOAL_EXPECT_INT(try_send(4), -EAGAIN);
    sender = waiting(send_item, &one);
    expect_next(3);
    SHOAL_EXPECT(!sync_done(sender));
    SHOAL_EXPECT_INT(await_item(shoal_channel_receive_future(&channel, FOREVER)), 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(sender), 0);
    end();
    return 0;
}

static void channel_without_capacity_hands_over_from_hand_to_hand(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_hand_to_hand, NULL), 0);
}

static int check_early(void *arg)
{
    (void)arg;
    begin(1);
    struct transfer late = {2 * TICK, 8}, patient = {FOREVER, 9}, got = {FOREVER, -1};
    SHOAL_EXPECT_INT(try_send(0), 0);
    struct shoal_fiber *first = waiting(send_item, &late);
    struct shoal_fiber *second = waiting(send_item, &patient);
    struct shoal_future *future = shoal_channel_send_future(&channel, &late.item, FOREVER);
    shoal_future_cancel(future);
    SHOAL_EXPECT_INT(sync_await(future), -ECANCELED);
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), -ETIMEDOUT); /* not sent */
    expect_next(0);
    shoal_fiber_cancel(second); /* its message is in the ring: sent */
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 0);
    first = waiting(send_item, &late);
    shoal_fiber_cancel(first);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), -ECANCELED);
    expect_next(9);
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &got.item), -EAGAIN);
    first = waiting(receive_item, &got);
    SHOAL_EXPECT_INT(try_send(5), 0);
    shoal_fiber_cancel(first); /* it has the message */
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 0);
    SHOAL_EXPECT_INT(got.item, 5);
    first = waiting(receive_item, &got);
    shoal_fiber_cancel(first);
    SHOAL_EXPECT_INT(try_send(6), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), -ECANCELED);
    future = shoal_channel_receive_future(&channel, 0);
    SHOAL_EXPECT_INT(await_item(future), 6);
    SHOAL_EXPECT_INT(await_item(shoal_channel_receive_future(&channel, 0)), -ETIMEDOUT);
    future = shoal_channel_receive_future(&channel, TICK);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(await_item(future), -ETIMEDOUT);
    future = shoal_channel_receive_future(&channel, FOREVER);
    shoal_future_cancel(future);
    SHOAL_EXPECT_INT(await_item(future), -ECANCELED);
    end();
    return 0;
}

static void channel_wait_that_ends_early_moves_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early, NULL), 0);
}

#define CROWD 20000

static int check_consumer_gone(void *arg)
{
    (void)arg;
    begin(4);
    struct shoal_future *futures[4];
    for (int i = 0; i < 4; i++)
        futures[i] = shoal_channel_receive_future(&channel, FOREVER);
    for (int i = 0; i < 8; i++)
        SHOAL_EXPECT_INT(try_send(i), 0);
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 4);
    shoal_discard(futures[2]); /* they go back in front, in their order */
    shoal_discard(futures[3]);
    shoal_discard(futures[0]);
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 7);
    SHOAL_EXPECT_INT(try_send(8), -EAGAIN);
    expect_next(0);
    SHOAL_EXPECT_INT(shoal_await(shoal_channel_receive_future(&channel, FOREVER), NULL), 0);
    SHOAL_EXPECT_INT(await_item(futures[1]), 1);
    for (int i = 2; i < 8; i++)
        expect_next(i);
    /* One that goes back while others wait is theirs. */
    futures[0] = shoal_channel_receive_future(&channel, FOREVER);
    SHOAL_EXPECT_INT(try_send(9), 0);
    struct transfer got = {FOREVER, -1};
    struct shoal_fiber *fiber = waiting(receive_item, &got);
    shoal_discard(futures[0]);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(got.item, 9);
    /* A crowd that nobody waits for passes it on, on little stack. */
    for (int i = 0; i < CROWD; i++)
        shoal_discard(shoal_channel_receive_future(&channel, FOREVER));
    fiber = waiting(receive_item, &got);
    SHOAL_EXPECT_INT(try_send(10), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(got.item, 10);
    end();
    return 0;
}

static void channel_message_of_a_future_without_consumer_goes_back(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_consumer_gone, NULL), 0);
}

static int check_close(void *arg)
{
    (void)arg;
    begin(1);
    struct transfer two = {FOREVER, 2}, got = {FOREVER, -1};
    SHOAL_EXPECT_INT(try_send(1), 0);
    struct shoal_fiber *sender = waiting(send_item, &two);
    struct shoal_future *future = shoal_channel_send_future(&channel, &two.item, FOREVER);
    SHOAL_EXPECT(!shoal_channel_closed(&channel));
    shoal_channel_close(&channel);
    shoal_channel_close(&channel);
    SHOAL_EXPECT(shoal_channel_closed(&channel));
    SHOAL_EXPECT_INT(shoal_fiber_join(sender), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(sync_await(future), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(try_send(3), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_channel_send(&channel, &two.item, FOREVER), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(sync_await(shoal_channel_send_future(&channel, &two.item, 0)), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_channel_receive(&channel, &got.item, FOREVER), 0); /* what is left */
    SHOAL_EXPECT_INT(got.item, 1);
    SHOAL_EXPECT_INT(shoal_channel_receive(&channel, &got.item, FOREVER), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &got.item), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(await_item(shoal_channel_receive_future(&channel, 0)), SHOAL_ECLOSED);
    end();
    begin(1);
    struct shoal_fiber *receiver = waiting(receive_item, &got);
    future = shoal_channel_receive_future(&channel, FOREVER);
    shoal_channel_close(&channel);
    SHOAL_EXPECT_INT(shoal_fiber_join(receiver), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(await_item(future), SHOAL_ECLOSED);
    end();
    begin(1); /* a message that goes back to a closed channel is there to be received */
    future = shoal_channel_receive_future(&channel, FOREVER);
    SHOAL_EXPECT_INT(try_send(4), 0);
    shoal_channel_close(&channel);
    shoal_discard(future);
    expect_next(4);
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &got.item), SHOAL_ECLOSED);
    end();
    return 0;
}

static void channel_close_fails_senders_and_lets_receivers_drain(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_close, NULL), 0);
}

/* ---- Large messages, and what is left at the end ---- */

struct large {
    unsigned char bytes[100];
};

static unsigned dropped[8];

static void drop_large(void *item)
{
    dropped[((struct large *)item)->bytes[99]]++;
}

static int check_large(void *arg)
{
    (void)arg;
    memset(dropped, 0, sizeof(dropped));
    const struct shoal_channel_options options = {
        .item_bytes = sizeof(struct large), .capacity = 4, .drop = drop_large};
    SHOAL_EXPECT_INT(shoal_channel_init(&channel, &options), 0);
    struct large large;
    struct shoal_future *futures[2];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(futures); i++)
        futures[i] = shoal_channel_receive_future(&channel, FOREVER);
    for (int i = 0; i < 6; i++) {
        memset(&large, i, sizeof(large));
        SHOAL_EXPECT_INT(shoal_channel_try_send(&channel, &large), 0);
    }
    memset(&large, 6, sizeof(large));
    struct shoal_future *sending = shoal_channel_send_future(&channel, &large, FOREVER);
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(futures[0], &value), 0);
    memset(&large, 0xff, sizeof(large));
    shoal_channel_take(&value, &large);
    for (size_t i = 0; i < sizeof(large.bytes); i++)
        SHOAL_EXPECT_INT(large.bytes[i], 0);
    shoal_discard(futures[1]);
    for (int i = 1; i < 4; i++) { /* 4, 5 and 6 stay; 6 comes into the ring */
        SHOAL_EXPECT_INT(shoal_channel_try_receive(&channel, &large), 0);
        SHOAL_EXPECT_INT(large.bytes[50], i);
    }
    SHOAL_EXPECT_INT(sync_await(sending), 0);
    futures[0] = shoal_channel_receive_future(&channel, FOREVER);
    shoal_discard(futures[0]); /* 4 is given back, and dropped from there */
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 3);
    shoal_channel_deinit(&channel);
    for (unsigned i = 0; i < SHOAL_ARRAY_SIZE(dropped); i++)
        SHOAL_EXPECT_INT(dropped[i], i >= 4 && i <= 6);
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    const struct shoal_channel_options empty = {.item_bytes = 0, .capacity = 4};
    SHOAL_EXPECT_INT(shoal_channel_init(&channel, &empty), -EINVAL);
    return 0;
}

static void channel_large_messages_are_copied_and_dropped_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_large, NULL), 0);
}

/* ---- Stress ---- */

/* A message tells who sent it, and which of his it is. */
struct message {
    uint32_t sender;
    uint32_t number;
};

#define SENDERS 32

struct world {
    uint32_t sent[SENDERS]; /* by each actor of the round */
    uint64_t seen[SENDERS]; /* which of its first 64 have been received */
    uint32_t received;
    uint32_t sent_total;
    bool with_futures; /* whose receives may give back, and many receivers; else one, in order */
    uint32_t last[SENDERS];
};

static void receive(struct world *world, const struct message *message)
{
    SHOAL_EXPECT(message->sender < SENDERS && message->number < 64);
    uint64_t bit = UINT64_C(1) << message->number;
    SHOAL_EXPECT((world->seen[message->sender] & bit) == 0); /* once */
    world->seen[message->sender] |= bit;
    world->received++;
    if (!world->with_futures) {
        SHOAL_EXPECT(message->number == world->last[message->sender]); /* in order */
        world->last[message->sender]++;
    }
}

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->received <= world->sent_total + channel.senders.count);
    SHOAL_EXPECT(channel.receivers.count == 0 ||
                 (channel.head == channel.tail && channel.returned_count == 0 &&
                  channel.senders.count == 0));
    SHOAL_EXPECT(channel.senders.count == 0 || channel.tail - channel.head == channel.capacity);
    SHOAL_EXPECT(channel.tail - channel.head <= channel.capacity);
}

static void step_send(struct sync_actor *actor, struct world *world, uint32_t self)
{
    struct message message = {self, world->sent[self]};
    uint64_t timeout_ns = sync_random_timeout(actor);
    int code;
    union shoal_value value;
    if (timeout_ns == FOREVER && world->with_futures)
        timeout_ns = 7 * TICK; /* no cancel reaches the await below */
    /* Counted before: a message may be received before its sender runs again. */
    world->sent[self]++;
    world->sent_total++;
    switch (sync_random(actor, world->with_futures ? 4 : 3)) {
    case 0:
        code = shoal_channel_try_send(&channel, &message);
        SHOAL_EXPECT(code == 0 || code == -EAGAIN);
        break;
    case 3: {
        struct shoal_future *future = shoal_channel_send_future(&channel, &message, timeout_ns);
        if (sync_random(actor, 2) == 0)
            shoal_future_cancel(future);
        /* On a cancelled fiber an await does not tell how it ended. */
        shoal_fiber_shield();
        code = shoal_await(future, &value);
        shoal_fiber_unshield();
        break;
    }
    default:
        code = shoal_channel_send(&channel, &message, timeout_ns);
        SHOAL_EXPECT(code == 0 || sync_early(code));
        break;
    }
    if (code < 0) {
        world->sent[self]--;
        world->sent_total--;
    }
}

static void step_receive(struct sync_actor *actor, struct world *world)
{
    struct message message = {SENDERS, 0};
    uint64_t timeout_ns = sync_random_timeout(actor);
    int code = 0;
    union shoal_value value;
    if (world->with_futures && sync_random(actor, 2) == 0) {
        if (timeout_ns == FOREVER)
            timeout_ns = 7 * TICK; /* a discarded one must leave the line by the round's end */
        struct shoal_future *future = shoal_channel_receive_future(&channel, timeout_ns);
        if (sync_end_somehow(actor, future, &value, &code)) {
            shoal_channel_take(&value, &message);
            receive(world, &message);
        }
        return;
    }
    if (sync_random(actor, 4) == 0)
        code = shoal_channel_try_receive(&channel, &message);
    else
        code = shoal_channel_receive(&channel, &message, timeout_ns);
    if (code == 0)
        receive(world, &message);
    else
        SHOAL_EXPECT(sync_early(code) || code == -EAGAIN);
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    if (world->with_futures ? actor->number % 2 == 0 : actor->number > 0)
        step_send(actor, world, actor->number);
    else
        step_receive(actor, world);
}

static void end_round(void *arg)
{
    struct world *world = arg;
    struct message message;
    while (shoal_channel_try_receive(&channel, &message) == 0)
        receive(world, &message);
    SHOAL_EXPECT_INT(world->received, world->sent_total);
    for (uint32_t i = 0; i < SENDERS; i++) /* what failed was not sent, what did not was */
        SHOAL_EXPECT(world->seen[i] == (UINT64_C(1) << world->sent[i]) - 1);
    bool with_futures = world->with_futures;
    memset(world, 0, sizeof(*world));
    world->with_futures = with_futures;
}

static int check_stress(void *arg)
{
    struct world world = {.with_futures = *(bool *)arg};
    const struct sync_stress stress = {.rounds = 150,
                                       .actors = 12,
                                       .steps = 30,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    for (uint32_t capacity = 0; capacity < 4; capacity++) {
        const struct shoal_channel_options options = {.item_bytes = sizeof(struct message),
                                                      .capacity = capacity};
        SHOAL_EXPECT_INT(shoal_channel_init(&channel, &options), 0);
        sync_stress_run(&stress);
        shoal_channel_deinit(&channel);
    }
    return 0;
}

static void channel_each_message_arrives_once_and_in_order_under_stress(void **state)
{
    (void)state;
    bool with_futures = false;
    assert_int_equal(shoal_test_run(1, check_stress, &with_futures), 0);
}

static void channel_each_message_arrives_once_under_stress_of_all_kinds(void **state)
{
    (void)state;
    bool with_futures = true;
    assert_int_equal(shoal_test_run(1, check_stress, &with_futures), 0);
}

/* ---- Misuse ---- */

static int end_with_untaken(void *arg)
{
    (void)arg;
    const struct shoal_channel_options options = {.item_bytes = sizeof(int), .capacity = 1};
    union shoal_value value;
    int item = 1;
    if (shoal_channel_init(&channel, &options) < 0 || shoal_channel_try_send(&channel, &item) < 0 ||
        shoal_await(shoal_channel_receive_future(&channel, FOREVER), &value) < 0)
        return 1;
    shoal_channel_deinit(&channel);
    return 0;
}

static void channel_end_with_a_message_not_taken_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, end_with_untaken, "that was not taken");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channel_delivers_in_order_within_its_bound),
        cmocka_unit_test(channel_without_capacity_hands_over_from_hand_to_hand),
        cmocka_unit_test(channel_wait_that_ends_early_moves_nothing),
        cmocka_unit_test(channel_message_of_a_future_without_consumer_goes_back),
        cmocka_unit_test(channel_close_fails_senders_and_lets_receivers_drain),
        cmocka_unit_test(channel_large_messages_are_copied_and_dropped_at_the_end),
        cmocka_unit_test(channel_each_message_arrives_once_and_in_order_under_stress),
        cmocka_unit_test(channel_each_message_arrives_once_under_stress_of_all_kinds),
        cmocka_unit_test(channel_end_with_a_message_not_taken_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
