/*
 * Select: one source is used, the others are left as they were; fairness; races.
 */
/* backends: both */
#include "shoal/runtime/abort_source.h"
#include "shoal/runtime/broadcast.h"
#include "shoal/runtime/channel.h"
#include "shoal/runtime/pipe.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/semaphore.h"

#include "unit/sync_check.h"

static struct shoal_channel in, out;
static struct shoal_semaphore semaphore;
static struct shoal_abort_source aborted;
static struct shoal_broadcast broadcast;
static struct shoal_subscriber subscriber;
static struct shoal_pipe stream;
static struct shoal_future *future;

static void begin(void)
{
    const struct shoal_channel_options options = {.item_bytes = sizeof(int), .capacity = 1};
    const struct shoal_broadcast_options publish = {sizeof(int), 1, SHOAL_BROADCAST_WAIT};
    sync_clock_begin();
    SHOAL_EXPECT_INT(shoal_channel_init(&in, &options), 0);
    SHOAL_EXPECT_INT(shoal_channel_init(&out, &options), 0);
    SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &publish), 0);
    SHOAL_EXPECT_INT(shoal_pipe_init(&stream, 4), 0);
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    shoal_semaphore_init(&semaphore, 0);
    shoal_abort_source_init(&aborted);
    future = shoal_future_new();
}

static void end(void)
{
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_broadcast_unsubscribe(&subscriber);
    shoal_broadcast_deinit(&broadcast);
    shoal_pipe_deinit(&stream);
    shoal_channel_deinit(&in);
    shoal_channel_deinit(&out);
    shoal_semaphore_deinit(&semaphore);
    shoal_abort_source_deinit(&aborted);
    sync_clock_end();
}

static void resolve(int64_t number)
{
    union shoal_value value = {.i64 = number};
    shoal_future_resolve(future, &value);
}

/* What a select over all kinds of sources comes to. */
struct attempt {
    uint64_t timeout_ns;
    uint64_t timer_ns;
    int chosen;
    int result;
    int received; /* -1: nothing */
};

enum { RECEIVE, SEND, SUBSCRIBER, PIPE, ACQUIRE, FUTURE, ABORT, TIMER, CASES };

static int select_all(void *arg)
{
    struct attempt *attempt = arg;
    int sent = 77;
    attempt->received = -1;
    struct shoal_select_case cases[CASES] = {
        [RECEIVE] = shoal_select_receive(&in, &attempt->received),
        [SEND] = shoal_select_send(&out, &sent),
        [SUBSCRIBER] = shoal_select_subscriber(&subscriber, &attempt->received),
        [PIPE] = shoal_select_pipe(&stream),
        [ACQUIRE] = shoal_select_acquire(&semaphore, 2),
        [FUTURE] = shoal_select_future(future),
        [ABORT] = shoal_select_abort(&aborted),
        [TIMER] = attempt->timer_ns == FOREVER ? shoal_select_never()
                                               : shoal_select_after(attempt->timer_ns),
    };
    for (int i = 0; i < CASES; i++)
        cases[i].result = 99;
    attempt->chosen = shoal_select(cases, CASES, attempt->timeout_ns);
    attempt->result = attempt->chosen >= 0 ? cases[attempt->chosen].result : 0;
    return attempt->chosen;
}

static void fill_out(void)
{
    int item = 0;
    SHOAL_EXPECT_INT(shoal_channel_try_send(&out, &item), 0);
}

static int drain_out(void)
{
    int item = -1;
    return shoal_channel_try_receive(&out, &item) == 0 ? item : -1;
}

/* Makes `source` ready, or takes it back. */
static void make_ready(int source)
{
    int item = 40 + source;
    switch (source) {
    case RECEIVE:
        SHOAL_EXPECT_INT(shoal_channel_try_send(&in, &item), 0);
        break;
    case SEND:
        SHOAL_EXPECT_INT(drain_out(), 0);
        break;
    case SUBSCRIBER:
        SHOAL_EXPECT_INT(shoal_broadcast_try_publish(&broadcast, &item), 0);
        break;
    case PIPE:
        SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "x", 1), 1);
        break;
    case ACQUIRE:
        shoal_semaphore_release(&semaphore, 2);
        break;
    case FUTURE:
        resolve(5);
        break;
    case ABORT:
        SHOAL_EXPECT(shoal_abort_request(&aborted, -EIO, NULL));
        break;
    default:
        sync_pass(3 * TICK);
        break;
    }
}

/* What a chosen source leaves behind. */
static void expect_used(int source, const struct attempt *attempt)
{
    union shoal_value value;
    char byte;
    SHOAL_EXPECT_INT(attempt->chosen, source);
    SHOAL_EXPECT_INT(attempt->result, 0);
    SHOAL_EXPECT_INT(attempt->received,
                     source == RECEIVE || source == SUBSCRIBER ? 40 + source : -1);
    SHOAL_EXPECT_INT(drain_out(), source == SEND ? 77 : 0);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 0);
    SHOAL_EXPECT_INT(shoal_pipe_try_read(&stream, &byte, 1), source == PIPE ? 1 : -EAGAIN);
    SHOAL_EXPECT_INT(shoal_channel_length(&in), 0);
    SHOAL_EXPECT_INT(in.receivers.count + out.senders.count + semaphore.queue.count +
                         subscriber.queue.count + stream.readers.count + aborted.queue.count,
                     0);
    if (source != FUTURE)
        resolve(5);
    SHOAL_EXPECT_INT(shoal_await(future, &value), 0); /* consumed by nobody yet */
    SHOAL_EXPECT_INT(value.i64, 5);
}

static int check_each(void *arg)
{
    (void)arg;
    for (int waits = 0; waits < 2; waits++) {
        for (int source = 0; source < CASES; source++) {
            begin();
            fill_out();
            struct attempt attempt = {.timeout_ns = waits ? FOREVER : 0, .timer_ns = FOREVER};
            if (source == TIMER)
                attempt.timer_ns = waits ? 3 * TICK : 0;
            struct shoal_fiber *fiber = NULL;
            if (waits) {
                fiber = sync_spawn(select_all, &attempt);
                sync_settle();
                SHOAL_EXPECT(!sync_done(fiber));
                make_ready(source);
                shoal_fiber_cancel(fiber); /* too late */
                SHOAL_EXPECT_INT(shoal_fiber_join(fiber), source);
            } else {
                SHOAL_EXPECT_INT(select_all(&attempt), source == TIMER ? TIMER : -ETIMEDOUT);
                if (source != TIMER) {
                    make_ready(source);
                    SHOAL_EXPECT_INT(select_all(&attempt), source);
                }
            }
            expect_used(source, &attempt);
            end();
        }
    }
    return 0;
}

static void select_uses_the_source_that_is_ready_and_no_other(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_each, NULL), 0);
}

static int check_races(void *arg)
{
    (void)arg;
    /* Two become ready before the fiber runs: the first is used, the second stays as it is. */
    for (int first = 0; first < TIMER; first++) {
        for (int second = 0; second < TIMER; second++) {
            if (first == second || first == FUTURE)
                continue; /* a future and something else: either */
            begin();
            fill_out();
            struct attempt attempt = {.timeout_ns = 3 * TICK, .timer_ns = FOREVER};
            struct shoal_fiber *fiber = sync_spawn(select_all, &attempt);
            sync_settle();
            make_ready(first);
            make_ready(second);
            sync_pass(3 * TICK); /* and the time is up, too */
            SHOAL_EXPECT_INT(shoal_fiber_join(fiber), first);
            SHOAL_EXPECT_INT(attempt.received,
                             first == RECEIVE || first == SUBSCRIBER ? 40 + first : -1);
            int item = -1;
            SHOAL_EXPECT_INT(shoal_channel_length(&in), second == RECEIVE);
            (void)shoal_channel_try_receive(&in, &item);
            SHOAL_EXPECT_INT(drain_out(), first == SEND ? 77 : second == SEND ? -1 : 0);
            SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), second == ACQUIRE ? 2 : 0);
            SHOAL_EXPECT_INT(shoal_subscriber_try_receive(&subscriber, &item),
                             second == SUBSCRIBER ? 0 : -EAGAIN);
            if (second != FUTURE)
                resolve(1);
            SHOAL_EXPECT_INT(sync_await(future), 0);
            end();
        }
    }
    return 0;
}

static void select_race_uses_one_source_and_loses_nothing_of_the_other(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_races, NULL), 0);
}

static int check_early(void *arg)
{
    (void)arg;
    begin();
    fill_out();
    struct attempt attempt = {.timeout_ns = 2 * TICK, .timer_ns = 5 * TICK};
    struct shoal_fiber *fiber = sync_spawn(select_all, &attempt);
    sync_settle();
    sync_pass(2 * TICK);
    make_ready(RECEIVE); /* late */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_channel_length(&in), 1);
    int item;
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&in, &item), 0);
    attempt.timeout_ns = FOREVER;
    attempt.timer_ns = FOREVER;
    fiber = sync_spawn(select_all, &attempt);
    sync_settle();
    shoal_fiber_cancel(fiber);
    make_ready(ACQUIRE);
    make_ready(FUTURE);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 2);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    SHOAL_EXPECT(shoal_semaphore_try_acquire(&semaphore, 2));
    future = shoal_future_new();
    fiber = sync_spawn(select_all, &attempt);
    shoal_fiber_cancel(fiber); /* before it runs */
    make_ready(RECEIVE);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    SHOAL_EXPECT_INT(shoal_channel_try_receive(&in, &item), 0);
    /* A future that has settled wins against a time-out and a cancel that come later. */
    attempt.timeout_ns = TICK;
    fiber = sync_spawn(select_all, &attempt);
    sync_settle();
    resolve(3);
    shoal_fiber_cancel(fiber);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), FUTURE);
    SHOAL_EXPECT_INT(sync_await(future), 0);
    future = shoal_future_new();
    attempt.timeout_ns = FOREVER;
    fiber = sync_spawn(select_all, &attempt);
    sync_settle();
    shoal_fiber_make_ready(shoal_core_self, fiber); /* woken for nothing */
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    shoal_fiber_make_ready(shoal_core_self, fiber);
    shoal_fiber_cancel(fiber); /* on its way for nothing */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    shoal_discard(future);
    resolve(0);
    /* Nothing to wait for but the time, and a future in no list when it fails. */
    SHOAL_EXPECT_INT(shoal_select(NULL, 0, 0), -ETIMEDOUT);
    future = shoal_future_failed(-EIO, NULL);
    struct shoal_select_case failed[] = {shoal_select_never(), shoal_select_future(future)};
    SHOAL_EXPECT_INT(shoal_select(failed, 2, FOREVER), 1);
    SHOAL_EXPECT_INT(sync_await(future), -EIO);
    end();
    return 0;
}

static void select_that_ends_early_uses_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early, NULL), 0);
}

static int acquire_two(void *arg)
{
    (void)arg;
    struct attempt attempt = {.timeout_ns = FOREVER, .timer_ns = FOREVER};
    return select_all(&attempt);
}

static int acquire_one(void *arg)
{
    (void)arg;
    return shoal_semaphore_acquire(&semaphore, 1, FOREVER);
}

static int check_line(void *arg)
{
    (void)arg;
    begin();
    fill_out();
    shoal_semaphore_release(&semaphore, 1);
    struct shoal_fiber *selecting = sync_spawn(acquire_two, NULL);
    struct shoal_fiber *behind = sync_spawn(acquire_one, NULL);
    sync_settle();
    SHOAL_EXPECT(!sync_done(behind)); /* a select has its place in line like any other */
    make_ready(RECEIVE);
    sync_settle(); /* it has left the line: who is behind is served */
    SHOAL_EXPECT_INT(shoal_fiber_join(selecting), RECEIVE);
    SHOAL_EXPECT(sync_done(behind));
    SHOAL_EXPECT_INT(shoal_fiber_join(behind), 0);
    shoal_channel_close(&in);
    struct attempt attempt = {.timeout_ns = FOREVER, .timer_ns = FOREVER};
    SHOAL_EXPECT_INT(select_all(&attempt), RECEIVE); /* closed is ready, too */
    SHOAL_EXPECT_INT(attempt.result, SHOAL_ECLOSED);
    shoal_discard(future);
    resolve(0);
    SHOAL_EXPECT_INT(drain_out(), 0);
    end();
    begin();
    fill_out();
    selecting = sync_spawn(select_all, &attempt);
    sync_settle();
    shoal_channel_close(&out); /* seen by who waits */
    SHOAL_EXPECT_INT(shoal_fiber_join(selecting), SEND);
    SHOAL_EXPECT_INT(attempt.result, SHOAL_ECLOSED);
    shoal_discard(future);
    resolve(0);
    SHOAL_EXPECT_INT(drain_out(), 0);
    end();
    return 0;
}

static void select_case_stands_in_line_and_leaves_it(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_line, NULL), 0);
}

#define DRAWS 3000

static int count_draws(void *arg)
{
    unsigned *counts = arg;
    struct shoal_semaphore many[2];
    for (int i = 0; i < 2; i++)
        shoal_semaphore_init(&many[i], DRAWS);
    for (int i = 0; i < DRAWS; i++) {
        struct shoal_select_case cases[] = {shoal_select_acquire(&many[0], 1), shoal_select_never(),
                                            shoal_select_acquire(&many[1], 1)};
        int chosen = shoal_select(cases, SHOAL_ARRAY_SIZE(cases), FOREVER);
        SHOAL_EXPECT(chosen == 0 || chosen == 2);
        counts[chosen]++;
        (void)shoal_yield();
    }
    for (int i = 0; i < 2; i++)
        shoal_semaphore_deinit(&many[i]);
    return 0;
}

static int check_fair(void *arg)
{
    (void)arg;
    unsigned first[3] = {0}, second[3] = {0};
    struct shoal_fiber *a = sync_spawn(count_draws, first);
    struct shoal_fiber *b = sync_spawn(count_draws, second); /* in step with the first */
    SHOAL_EXPECT_INT(shoal_fiber_join(a), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(b), 0);
    for (int i = 0; i < 3; i += 2) {
        SHOAL_EXPECT(first[i] > DRAWS / 2 - 150 && first[i] < DRAWS / 2 + 150);
        SHOAL_EXPECT(second[i] > DRAWS / 2 - 150 && second[i] < DRAWS / 2 + 150);
    }
    return 0;
}

static void select_is_fair_among_those_that_are_ready(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_fair, NULL), 0);
}

/* ---- Stress: messages between fibers that send and receive by select alone ---- */

#define PLACES 3

struct world {
    struct shoal_channel channels[PLACES];
    struct shoal_semaphore units;
    long held;
    long sent;
    long received;
    uint64_t sum_sent;
    uint64_t sum_received;
};

static void check_world(void *arg)
{
    struct world *world = arg;
    for (int i = 0; i < PLACES; i++) {
        const struct shoal_channel *channel = &world->channels[i];
        SHOAL_EXPECT(channel->receivers.count == 0 || channel->head == channel->tail);
    }
    SHOAL_EXPECT(world->held <= 2);
}

static struct shoal_select_case random_case(struct sync_actor *actor, struct world *world,
                                            uint64_t *sending, uint64_t *receiving, bool *sends)
{
    struct shoal_channel *channel = &world->channels[sync_random(actor, PLACES)];
    *sends = false;
    switch (sync_random(actor, 5)) {
    case 0:
        return shoal_select_acquire(&world->units, 1 + sync_random(actor, 2));
    case 1:
        return shoal_select_after(TICK * sync_random(actor, 8));
    case 2:
        *sends = true;
        return shoal_select_send(channel, sending);
    default:
        return shoal_select_receive(channel, receiving);
    }
}

static void step(struct sync_actor *actor, void *arg)
{
    struct world *world = arg;
    uint64_t sending = shoal_test_random(&actor->random), receiving = 0;
    struct shoal_select_case cases[4];
    bool sends[4];
    uint64_t wants[4];
    unsigned count = 1 + sync_random(actor, 4);
    for (unsigned i = 0; i < count; i++) {
        cases[i] = random_case(actor, world, &sending, &receiving, &sends[i]);
        wants[i] = cases[i].object == &world->units ? cases[i].n : 0;
    }
    int chosen = shoal_select(cases, count, sync_random_timeout(actor));
    if (chosen < 0) {
        SHOAL_EXPECT(sync_early(chosen));
        return;
    }
    SHOAL_EXPECT_INT(cases[chosen].result, 0);
    if (wants[chosen] > 0) {
        world->held += (long)wants[chosen];
        check_world(world);
        (void)shoal_yield();
        world->held -= (long)wants[chosen];
        shoal_semaphore_release(&world->units, wants[chosen]);
    } else if (sends[chosen]) {
        world->sent++;
        world->sum_sent += sending;
    } else if (cases[chosen].item != NULL) {
        world->received++;
        world->sum_received += receiving;
    }
    SHOAL_EXPECT(receiving == 0 || (!sends[chosen] && cases[chosen].item != NULL));
}

static void end_round(void *arg)
{
    struct world *world = arg;
    uint64_t item;
    for (int i = 0; i < PLACES; i++) {
        while (shoal_channel_try_receive(&world->channels[i], &item) == 0) {
            world->received++;
            world->sum_received += item;
        }
        SHOAL_EXPECT_INT(world->channels[i].senders.count + world->channels[i].receivers.count, 0);
    }
    SHOAL_EXPECT_INT(world->sent, world->received);
    SHOAL_EXPECT(world->sum_sent == world->sum_received);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&world->units), 2);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct world world = {.held = 0};
    const struct sync_stress stress = {.rounds = 300,
                                       .actors = 10,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    for (uint32_t i = 0; i < PLACES; i++) {
        const struct shoal_channel_options options = {.item_bytes = sizeof(uint64_t),
                                                      .capacity = i};
        SHOAL_EXPECT_INT(shoal_channel_init(&world.channels[i], &options), 0);
    }
    shoal_semaphore_init(&world.units, 2);
    sync_stress_run(&stress);
    SHOAL_EXPECT(world.received > 100);
    for (int i = 0; i < PLACES; i++)
        shoal_channel_deinit(&world.channels[i]);
    shoal_semaphore_deinit(&world.units);
    return 0;
}

static void select_messages_arrive_once_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(select_uses_the_source_that_is_ready_and_no_other),
        cmocka_unit_test(select_race_uses_one_source_and_loses_nothing_of_the_other),
        cmocka_unit_test(select_that_ends_early_uses_nothing),
        cmocka_unit_test(select_case_stands_in_line_and_leaves_it),
        cmocka_unit_test(select_is_fair_among_those_that_are_ready),
        cmocka_unit_test(select_messages_arrive_once_under_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
