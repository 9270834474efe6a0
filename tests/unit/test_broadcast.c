/*
 * The broadcast: everyone receives everything, or counts what it lost.
 */
/* backends: both */
#include "shoal/runtime/broadcast.h"

#include "unit/sync_check.h"

static struct shoal_broadcast broadcast;

static void begin(uint32_t capacity, enum shoal_broadcast_policy policy)
{
    sync_clock_begin();
    const struct shoal_broadcast_options options = {sizeof(int), capacity, policy};
    SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &options), 0);
}

static void end(void)
{
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_broadcast_deinit(&broadcast);
    sync_clock_end();
}

struct transfer {
    struct shoal_subscriber *subscriber;
    uint64_t timeout_ns;
    int item;
};

static int publish_item(void *arg)
{
    struct transfer *transfer = arg;
    return shoal_broadcast_publish(&broadcast, &transfer->item, transfer->timeout_ns);
}

static int receive_item(void *arg)
{
    struct transfer *transfer = arg;
    return shoal_subscriber_receive(transfer->subscriber, &transfer->item, transfer->timeout_ns);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, struct transfer *transfer)
{
    struct shoal_fiber *fiber = sync_spawn(fn, transfer);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static int try_publish(int item)
{
    return shoal_broadcast_try_publish(&broadcast, &item);
}

static void expect_next(struct shoal_subscriber *subscriber, int expected)
{
    int item = -1;
    SHOAL_EXPECT_INT(shoal_subscriber_try_receive(subscriber, &item), 0);
    SHOAL_EXPECT_INT(item, expected);
}

static int check_wait(void *arg)
{
    (void)arg;
    int item = -1;
    struct shoal_subscriber fast, slow;
    begin(2, SHOAL_BROADCAST_WAIT);
    for (int i = 0; i < 5; i++)
        SHOAL_EXPECT_INT(try_publish(i), 0); /* to nobody */
    shoal_broadcast_subscribe(&broadcast, &fast);
    SHOAL_EXPECT_INT(shoal_subscriber_try_receive(&fast, &item), -EAGAIN); /* from now on */
    SHOAL_EXPECT_INT(try_publish(5), 0);
    shoal_broadcast_subscribe(&broadcast, &slow);
    SHOAL_EXPECT_INT(try_publish(6), 0);
    SHOAL_EXPECT_INT(try_publish(7), -EAGAIN); /* `fast` has not received yet */
    expect_next(&fast, 5);
    SHOAL_EXPECT_INT(try_publish(7), 0);
    expect_next(&fast, 6);
    expect_next(&fast, 7);
    SHOAL_EXPECT_INT(shoal_subscriber_try_receive(&fast, &item), -EAGAIN);
    struct transfer eight = {NULL, FOREVER, 8}, late = {NULL, TICK, -8};
    struct shoal_fiber *publisher = waiting(publish_item, &eight); /* `slow` has two */
    struct shoal_fiber *hopeless = waiting(publish_item, &late);
    int nine = 9;
    struct shoal_future *future = shoal_broadcast_publish_future(&broadcast, &nine, FOREVER);
    nine = -1; /* it was copied */
    struct shoal_future *cancelled = shoal_broadcast_publish_future(&broadcast, &nine, FOREVER);
    shoal_future_cancel(cancelled);
    SHOAL_EXPECT_INT(sync_await(cancelled), -ECANCELED);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(hopeless), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_broadcast_publish(&broadcast, &nine, 0), -ETIMEDOUT);
    struct transfer got = {&fast, FOREVER, -1};
    struct shoal_fiber *receiver = waiting(receive_item, &got);
    expect_next(&slow, 6); /* room for 8, which goes to who waits */
    SHOAL_EXPECT_INT(shoal_fiber_join(publisher), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(receiver), 0);
    SHOAL_EXPECT_INT(got.item, 8);
    SHOAL_EXPECT(shoal_future_is_pending(future));
    shoal_broadcast_unsubscribe(&slow); /* nobody holds it up any more */
    SHOAL_EXPECT_INT(sync_await(future), 0);
    expect_next(&fast, 9);
    SHOAL_EXPECT_INT(shoal_subscriber_lost(&fast), 0);
    shoal_broadcast_unsubscribe(&fast);
    end();
    return 0;
}

static void broadcast_waits_for_the_slowest(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_wait, NULL), 0);
}

static int check_lose(void *arg)
{
    (void)arg;
    struct shoal_subscriber fast, slow;
    begin(3, SHOAL_BROADCAST_LOSE);
    shoal_broadcast_subscribe(&broadcast, &fast);
    shoal_broadcast_subscribe(&broadcast, &slow);
    for (int i = 0; i < 10; i++) {
        SHOAL_EXPECT_INT(try_publish(i), 0);
        expect_next(&fast, i);
    }
    SHOAL_EXPECT_INT(shoal_subscriber_lost(&slow), 7); /* known before it looks */
    for (int i = 7; i < 10; i++)
        expect_next(&slow, i);
    SHOAL_EXPECT_INT(shoal_subscriber_lost(&slow), 7);
    SHOAL_EXPECT_INT(shoal_subscriber_lost(&fast), 0);
    for (int i = 10; i < 14; i++)
        SHOAL_EXPECT_INT(shoal_broadcast_publish(&broadcast, &i, FOREVER), 0);
    expect_next(&slow, 11);
    SHOAL_EXPECT_INT(shoal_subscriber_lost(&slow), 8);
    shoal_broadcast_unsubscribe(&slow);
    shoal_broadcast_unsubscribe(&fast);
    end();
    return 0;
}

static void broadcast_goes_on_and_counts_what_is_lost(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_lose, NULL), 0);
}

static int check_receivers(void *arg)
{
    (void)arg;
    struct shoal_subscriber subscriber;
    int item;
    begin(2, SHOAL_BROADCAST_WAIT);
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    struct transfer first = {&subscriber, FOREVER, -1}, second = first;
    struct transfer late = {&subscriber, TICK, -1};
    struct shoal_fiber *a = waiting(receive_item, &first);
    struct shoal_future *ready = shoal_subscriber_ready_future(&subscriber, FOREVER);
    struct shoal_future *cancelled = shoal_subscriber_ready_future(&subscriber, FOREVER);
    struct shoal_fiber *b = waiting(receive_item, &late);
    struct shoal_fiber *c = waiting(receive_item, &second);
    shoal_future_cancel(cancelled);
    SHOAL_EXPECT_INT(sync_await(cancelled), -ECANCELED);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(b), -ETIMEDOUT);
    SHOAL_EXPECT_INT(try_publish(1), 0);
    SHOAL_EXPECT(shoal_future_is_pending(ready)); /* the message went to who came first */
    shoal_fiber_cancel(a);                        /* who has it */
    SHOAL_EXPECT_INT(shoal_fiber_join(a), 0);
    SHOAL_EXPECT_INT(first.item, 1);
    SHOAL_EXPECT_INT(try_publish(2), 0);
    SHOAL_EXPECT_INT(sync_await(ready), 0); /* and takes nothing */
    SHOAL_EXPECT_INT(shoal_fiber_join(c), 0);
    SHOAL_EXPECT_INT(second.item, 2);
    SHOAL_EXPECT_INT(try_publish(3), 0);
    SHOAL_EXPECT_INT(try_publish(4), 0);
    struct transfer five = {NULL, FOREVER, 5};
    a = waiting(publish_item, &five);
    SHOAL_EXPECT(!shoal_broadcast_closed(&broadcast));
    shoal_broadcast_close(&broadcast);
    SHOAL_EXPECT(shoal_broadcast_closed(&broadcast));
    SHOAL_EXPECT_INT(shoal_fiber_join(a), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(try_publish(6), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_subscriber_receive(&subscriber, &item, 0), 0); /* what is left */
    expect_next(&subscriber, 4);
    SHOAL_EXPECT_INT(shoal_subscriber_receive(&subscriber, &item, FOREVER), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(sync_await(shoal_subscriber_ready_future(&subscriber, 0)), 0);
    shoal_broadcast_unsubscribe(&subscriber);
    end();
    begin(2, SHOAL_BROADCAST_WAIT);
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    a = waiting(receive_item, &first);
    ready = shoal_subscriber_ready_future(&subscriber, FOREVER);
    shoal_broadcast_close(&broadcast);
    SHOAL_EXPECT_INT(shoal_fiber_join(a), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(sync_await(ready), 0);
    shoal_broadcast_unsubscribe(&subscriber);
    end();
    const struct shoal_broadcast_options bad[] = {{0, 1, SHOAL_BROADCAST_WAIT},
                                                  {1, 0, SHOAL_BROADCAST_WAIT}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(bad); i++)
        SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &bad[i]), -EINVAL);
    return 0;
}

static void broadcast_subscriber_waits_and_sees_the_close(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_receivers, NULL), 0);
}

/* ---- Stress ---- */

#define LISTENERS 3

struct world {
    struct shoal_subscriber subscribers[LISTENERS];
    int next[LISTENERS]; /* what each expects, in the order of publishing */
    bool lose;
};

static void check_world(void *arg)
{
    const struct world *world = arg;
    for (int i = 0; i < LISTENERS; i++)
        SHOAL_EXPECT(world->next[i] <= (int)broadcast.tail);
    if (!world->lose && broadcast.publishers.count > 0) {
        bool full = false;
        for (int i = 0; i < LISTENERS; i++)
            full |= broadcast.tail - world->subscribers[i].next >= broadcast.capacity;
        SHOAL_EXPECT(full);
    }
}

/* Messages are numbered as they are published: the sender cannot know its number beforehand. */
static void step_publish(struct sync_actor *actor)
{
    int item = (int)actor->number;
    int code = sync_random(actor, 3) == 0
                   ? shoal_broadcast_try_publish(&broadcast, &item)
                   : shoal_broadcast_publish(&broadcast, &item, sync_random_timeout(actor));
    SHOAL_EXPECT(code == 0 || code == -EAGAIN || sync_early(code));
}

static void step_receive(struct sync_actor *actor, struct world *world, int self)
{
    struct shoal_subscriber *subscriber = &world->subscribers[self];
    int item;
    uint64_t lost = shoal_subscriber_lost(subscriber);
    int code = sync_random(actor, 3) == 0
                   ? shoal_subscriber_try_receive(subscriber, &item)
                   : shoal_subscriber_receive(subscriber, &item, sync_random_timeout(actor));
    if (code == 0) {
        SHOAL_EXPECT(item >= LISTENERS);
        world->next[self]++;
    } else {
        SHOAL_EXPECT(code == -EAGAIN || sync_early(code));
    }
    SHOAL_EXPECT(world->lose || lost == 0);
}

static void step(struct sync_actor *actor, void *arg)
{
    if (actor->number < LISTENERS)
        step_receive(actor, arg, (int)actor->number);
    else
        step_publish(actor);
}

static void end_round(void *arg)
{
    struct world *world = arg;
    int item;
    for (int i = 0; i < LISTENERS; i++) {
        struct shoal_subscriber *subscriber = &world->subscribers[i];
        while (shoal_subscriber_try_receive(subscriber, &item) == 0)
            world->next[i]++;
        /* What was received and what was lost is what was published. */
        SHOAL_EXPECT_INT((uint64_t)world->next[i] + shoal_subscriber_lost(subscriber),
                         broadcast.tail);
    }
    SHOAL_EXPECT_INT(broadcast.publishers.count, 0);
}

static int check_stress(void *arg)
{
    struct world world = {.lose = *(bool *)arg};
    const struct sync_stress stress = {.rounds = 100,
                                       .actors = 7,
                                       .steps = 30,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    const struct shoal_broadcast_options options = {
        sizeof(int), 3, world.lose ? SHOAL_BROADCAST_LOSE : SHOAL_BROADCAST_WAIT};
    SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &options), 0);
    for (int i = 0; i < LISTENERS; i++)
        shoal_broadcast_subscribe(&broadcast, &world.subscribers[i]);
    sync_stress_run(&stress);
    SHOAL_EXPECT(broadcast.tail > 100);
    for (int i = 0; i < LISTENERS; i++)
        shoal_broadcast_unsubscribe(&world.subscribers[i]);
    shoal_broadcast_deinit(&broadcast);
    return 0;
}

static void broadcast_everyone_gets_or_counts_each_message_under_stress(void **state)
{
    (void)state;
    bool lose = false;
    assert_int_equal(shoal_test_run(1, check_stress, &lose), 0);
    lose = true;
    assert_int_equal(shoal_test_run(1, check_stress, &lose), 0);
}

static int end_subscribed(void *arg)
{
    (void)arg;
    struct shoal_subscriber subscriber;
    const struct shoal_broadcast_options options = {sizeof(int), 1, SHOAL_BROADCAST_WAIT};
    if (shoal_broadcast_init(&broadcast, &options) < 0)
        return 1;
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    shoal_broadcast_deinit(&broadcast);
    return 0;
}

static void broadcast_end_with_a_subscriber_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, end_subscribed, "while somebody is subscribed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broadcast_waits_for_the_slowest),
        cmocka_unit_test(broadcast_goes_on_and_counts_what_is_lost),
        cmocka_unit_test(broadcast_subscriber_waits_and_sees_the_close),
        cmocka_unit_test(broadcast_everyone_gets_or_counts_each_message_under_stress),
        cmocka_unit_test(broadcast_end_with_a_subscriber_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
