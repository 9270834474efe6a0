/*
 * Without memory: what fibers and futures wait at. See fault_check.h for what a walk is.
 */
#include "shoal/runtime/abort_source.h"
#include "shoal/runtime/barrier.h"
#include "shoal/runtime/broadcast.h"
#include "shoal/runtime/channel.h"
#include "shoal/runtime/condition.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/future.h"
#include "shoal/runtime/gate.h"
#include "shoal/runtime/mutex.h"
#include "shoal/runtime/pipe.h"
#include "shoal/runtime/rwlock.h"
#include "shoal/runtime/semaphore.h"

#include "unit/fault_check.h"

/* The first failure counts. */
static void note(int *rc, int code)
{
    if (*rc == 0 && code < 0)
        *rc = code;
}

/* ---- Units: none may be lost ---- */

static int semaphore_scene(void)
{
    struct shoal_semaphore semaphore;
    shoal_semaphore_init(&semaphore, 2);
    struct shoal_future *both = shoal_semaphore_acquire_future(&semaphore, 2, SHOAL_NS_FOREVER);
    struct shoal_future *one = shoal_semaphore_acquire_future(&semaphore, 1, SHOAL_NS_FOREVER);
    struct shoal_future *dropped = shoal_semaphore_acquire_future(&semaphore, 1, SHOAL_NS_FOREVER);
    int rc = shoal_await(both, NULL); /* with NULL the units go back */
    shoal_discard(dropped);
    union shoal_value value;
    int rc_one = shoal_await(one, &value);
    if (rc_one == 0)
        shoal_semaphore_release(&semaphore, 1);
    SHOAL_EXPECT_INT(shoal_yield(), 0);
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 2);
    shoal_semaphore_deinit(&semaphore);
    note(&rc, rc_one);
    return rc;
}

static int locks_scene(void)
{
    struct shoal_mutex mutex;
    struct shoal_rwlock lock;
    union shoal_value value;
    shoal_mutex_init(&mutex);
    shoal_rwlock_init(&lock);
    int rc = shoal_mutex_lock(&mutex, SHOAL_NS_FOREVER);
    struct shoal_future *next = shoal_mutex_lock_future(&mutex, SHOAL_NS_FOREVER);
    shoal_mutex_unlock(&mutex);
    int locked = shoal_await(next, &value);
    if (locked == 0)
        shoal_mutex_unlock(&mutex);
    note(&rc, locked);
    struct shoal_future *reader = shoal_rwlock_read_lock_future(&lock, SHOAL_NS_FOREVER);
    struct shoal_future *writer = shoal_rwlock_write_lock_future(&lock, SHOAL_NS_FOREVER);
    locked = shoal_await(reader, &value);
    if (locked == 0)
        shoal_rwlock_read_unlock(&lock);
    note(&rc, locked);
    locked = shoal_await(writer, &value);
    if (locked == 0)
        shoal_rwlock_write_unlock(&lock);
    note(&rc, locked);
    SHOAL_EXPECT(!shoal_mutex_locked(&mutex) && !shoal_rwlock_writing(&lock));
    shoal_mutex_deinit(&mutex);
    shoal_rwlock_deinit(&lock);
    return rc;
}

/* ---- Messages: none may be lost, or freed twice ---- */

static int items;

static void drop_item(void *item)
{
    items -= *(int *)item;
}

static int send_three(void *arg)
{
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        const int one = 1;
        rc = shoal_channel_send(arg, &one, SHOAL_NS_FOREVER);
        items += rc == 0;
    }
    shoal_channel_close(arg);
    return rc;
}

/* One by a future, the others on this fiber. */
static int receive_all(struct shoal_channel *channel)
{
    union shoal_value value;
    int one;
    int rc = shoal_await(shoal_channel_receive_future(channel, SHOAL_NS_FOREVER), &value);
    if (rc == 0) {
        shoal_channel_take(&value, &one);
        items -= one;
    }
    int next;
    while ((next = shoal_channel_receive(channel, &one, SHOAL_NS_FOREVER)) == 0)
        items -= one;
    SHOAL_EXPECT_INT(next, SHOAL_ECLOSED);
    return rc == SHOAL_ECLOSED ? 0 : rc;
}

static int channel_scene(void)
{
    const struct shoal_channel_options options = {
        .item_bytes = sizeof(int), .capacity = 1, .drop = drop_item};
    const int one = 1;
    struct shoal_channel channel;
    struct shoal_fiber *sender;
    items = 0;
    int rc = shoal_channel_init(&channel, &options);
    if (rc < 0)
        return rc;
    int spawned = shoal_fiber_spawn(&sender, send_three, &channel, "sender");
    if (spawned < 0)
        shoal_channel_close(&channel);
    rc = receive_all(&channel);
    if (spawned == 0)
        SHOAL_EXPECT_INT(shoal_fiber_join(sender), 0);
    else
        rc = spawned;
    int late = shoal_await(shoal_channel_send_future(&channel, &one, SHOAL_NS_FOREVER), NULL);
    SHOAL_EXPECT(late == SHOAL_ECLOSED || late == -ENOMEM);
    shoal_channel_deinit(&channel);
    SHOAL_EXPECT_INT(items, 0);
    return rc;
}

static int broadcast_scene(void)
{
    const struct shoal_broadcast_options options = {.item_bytes = sizeof(int), .capacity = 2};
    struct shoal_broadcast broadcast;
    struct shoal_subscriber subscriber;
    int item = 7;
    int rc = shoal_broadcast_init(&broadcast, &options);
    if (rc < 0)
        return rc;
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    struct shoal_future *sent = shoal_broadcast_publish_future(&broadcast, &item, SHOAL_NS_FOREVER);
    rc = shoal_await(sent, NULL);
    if (rc == 0) {
        item = 0;
        rc = shoal_subscriber_receive(&subscriber, &item, SHOAL_NS_FOREVER);
        SHOAL_EXPECT_INT(item, 7);
    }
    shoal_broadcast_unsubscribe(&subscriber);
    shoal_broadcast_deinit(&broadcast);
    return rc;
}

static int pipe_scene(void)
{
    struct shoal_pipe pipe;
    char text[8] = "";
    int rc = shoal_pipe_init(&pipe, 100);
    if (rc < 0)
        return rc;
    struct shoal_future *readable = shoal_pipe_readable_future(&pipe, SHOAL_NS_FOREVER);
    SHOAL_EXPECT_INT(shoal_pipe_write(&pipe, "bytes", 5, SHOAL_NS_FOREVER), 5);
    rc = shoal_await(readable, NULL);
    SHOAL_EXPECT_INT(shoal_pipe_read(&pipe, text, sizeof(text), SHOAL_NS_FOREVER), 5);
    SHOAL_EXPECT(memcmp(text, "bytes", 5) == 0);
    shoal_pipe_deinit(&pipe);
    return rc;
}

/* ---- Meetings ---- */

static int meetings_scene(void)
{
    struct shoal_gate gate;
    struct shoal_barrier barrier;
    struct shoal_condition condition;
    struct shoal_abort_source source;
    shoal_gate_init(&gate);
    shoal_barrier_init(&barrier, 1);
    shoal_condition_init(&condition);
    shoal_abort_source_init(&source);
    int rc = shoal_gate_enter(&gate);
    struct shoal_future *closed = shoal_gate_close_future(&gate, SHOAL_NS_FOREVER);
    SHOAL_EXPECT(shoal_gate_closed(&gate));
    shoal_gate_leave(&gate);
    note(&rc, shoal_await(closed, NULL));
    note(&rc, shoal_await(shoal_barrier_wait_future(&barrier, SHOAL_NS_FOREVER), NULL));
    struct shoal_future *told = shoal_condition_wait_future(&condition, SHOAL_NS_FOREVER);
    shoal_condition_signal(&condition);
    note(&rc, shoal_await(told, NULL));
    struct shoal_future *aborted = shoal_abort_future(&source, SHOAL_NS_FOREVER);
    SHOAL_EXPECT(shoal_abort_request(&source, -EDOM, "a text"));
    SHOAL_EXPECT_INT(shoal_abort_code(&source), -EDOM);
    int code = shoal_await(aborted, NULL);
    SHOAL_EXPECT(code == -EDOM || code == -ENOMEM);
    note(&rc, code == -EDOM ? 0 : code);
    shoal_abort_source_deinit(&source);
    shoal_condition_deinit(&condition);
    shoal_barrier_deinit(&barrier);
    shoal_gate_deinit(&gate);
    return rc;
}

/* ---- The walks ---- */

static const struct fault_walk walks[] = {
    {.name = "semaphore", .scene = semaphore_scene},
    {.name = "locks", .scene = locks_scene},
    {.name = "channel", .scene = channel_scene},
    {.name = "broadcast", .scene = broadcast_scene},
    {.name = "pipe", .scene = pipe_scene},
    {.name = "meetings", .scene = meetings_scene},
};

static void waiting_without_memory_fails_and_loses_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)&walks[i]),
                         0);
}

static int everything(void)
{
    int rc = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(walks); i++)
        note(&rc, walks[i].scene());
    return rc;
}

static void waiting_in_a_fresh_program_without_memory_fails_and_loses_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "waiting", .scene = everything};
    fault_walk_cold(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_without_memory_fails_and_loses_nothing),
        cmocka_unit_test(waiting_in_a_fresh_program_without_memory_fails_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
