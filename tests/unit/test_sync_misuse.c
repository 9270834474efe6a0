/*
 * All of sync: what is touched on another core is stopped, naming both (debug builds); what ends
 * while somebody waits is stopped; a wait outside a fiber is; no memory is an error.
 */
#include "shoal/runtime/abort_source.h"
#include "shoal/runtime/barrier.h"
#include "shoal/runtime/broadcast.h"
#include "shoal/runtime/channel.h"
#include "shoal/runtime/condition.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/gate.h"
#include "shoal/runtime/mutex.h"
#include "shoal/runtime/once.h"
#include "shoal/runtime/pipe.h"
#include "shoal/runtime/rate_limiter.h"
#include "shoal/runtime/rwlock.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/semaphore.h"

#include "shoal/smp/submit.h"

#include "unit/sync_check.h"

/* One of each, made on core 0, in a state in which its wait has to wait. */
static struct shoal_abort_source source;
static struct shoal_barrier barrier;
static struct shoal_broadcast broadcast;
static struct shoal_channel channel;
static struct shoal_condition condition;
static struct shoal_gate gate;
static struct shoal_mutex mutex;
static struct shoal_once once;
static struct shoal_pipe stream;
static struct shoal_rate_limiter limiter;
static struct shoal_rwlock rwlock;
static struct shoal_semaphore semaphore;
static struct shoal_subscriber subscriber;

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void make_all(void)
{
    const struct shoal_channel_options messages = {.item_bytes = sizeof(int), .capacity = 1};
    const struct shoal_broadcast_options news = {sizeof(int), 1, SHOAL_BROADCAST_WAIT};
    const struct shoal_rate_limiter_options rate = {1, SHOAL_NS_PER_S * 3600, 1};
    shoal_abort_source_init(&source);
    shoal_barrier_init(&barrier, 2);
    SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &news), 0);
    shoal_broadcast_subscribe(&broadcast, &subscriber);
    SHOAL_EXPECT_INT(shoal_channel_init(&channel, &messages), 0);
    shoal_condition_init(&condition);
    shoal_gate_init(&gate);
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
    shoal_mutex_init(&mutex);
    SHOAL_EXPECT_INT(sync_await(shoal_mutex_lock_future(&mutex, 0)), 0); /* of no fiber */
    shoal_once_init(&once);
    SHOAL_EXPECT_INT(shoal_pipe_init(&stream, 1), 0);
    SHOAL_EXPECT_INT(shoal_rate_limiter_init(&limiter, &rate), 0);
    SHOAL_EXPECT(shoal_rate_limiter_try_acquire(&limiter, 1));
    shoal_rwlock_init(&rwlock);
    SHOAL_EXPECT(shoal_rwlock_try_write_lock(&rwlock));
    shoal_semaphore_init(&semaphore, 0);
}

static void end_all(void)
{
    shoal_abort_source_deinit(&source);
    shoal_barrier_deinit(&barrier);
    shoal_broadcast_unsubscribe(&subscriber);
    shoal_broadcast_deinit(&broadcast);
    shoal_channel_deinit(&channel);
    shoal_condition_deinit(&condition);
    shoal_gate_leave(&gate);
    shoal_gate_deinit(&gate);
    shoal_mutex_unlock(&mutex);
    shoal_mutex_deinit(&mutex);
    shoal_once_deinit(&once);
    shoal_pipe_deinit(&stream);
    shoal_rate_limiter_deinit(&limiter);
    shoal_rwlock_write_unlock(&rwlock);
    shoal_rwlock_deinit(&rwlock);
    shoal_semaphore_deinit(&semaphore);
}

enum {
    ABORT,
    BARRIER,
    SUBSCRIBER,
    CHANNEL,
    CONDITION,
    GATE,
    MUTEX,
    ONCE,
    PIPE,
    LIMITER,
    READ,
    WRITE,
    SEMAPHORE,
    KINDS
};

/* Waits as long as `timeout_ns` at one of them, on a fiber or by a future. */
static int wait_at(int kind, uint64_t timeout_ns)
{
    int item;
    char byte;
    switch (kind) {
    case ABORT:
        return shoal_abort_wait(&source, timeout_ns);
    case BARRIER:
        return shoal_barrier_wait(&barrier, timeout_ns);
    case SUBSCRIBER:
        return shoal_subscriber_receive(&subscriber, &item, timeout_ns);
    case CHANNEL:
        return shoal_channel_receive(&channel, &item, timeout_ns);
    case CONDITION:
        return shoal_condition_wait(&condition, NULL, timeout_ns);
    case GATE:
        return shoal_gate_close(&gate, timeout_ns);
    case MUTEX:
        return shoal_mutex_lock(&mutex, timeout_ns);
    case ONCE:
        return shoal_once_run(&once, nothing, NULL, timeout_ns);
    case PIPE:
        return (int)shoal_pipe_read(&stream, &byte, 1, timeout_ns);
    case LIMITER:
        return shoal_rate_limiter_acquire(&limiter, 1, timeout_ns);
    case READ:
        return shoal_rwlock_read_lock(&rwlock, timeout_ns);
    case WRITE:
        return shoal_rwlock_write_lock(&rwlock, timeout_ns);
    default:
        return shoal_semaphore_acquire(&semaphore, 1, timeout_ns);
    }
}

static struct shoal_future *future_at(int kind)
{
    switch (kind) {
    case ABORT:
        return shoal_abort_future(&source, FOREVER);
    case BARRIER:
        return shoal_barrier_wait_future(&barrier, FOREVER);
    case SUBSCRIBER:
        return shoal_subscriber_ready_future(&subscriber, FOREVER);
    case CHANNEL:
        return shoal_channel_receive_future(&channel, FOREVER);
    case CONDITION:
        return shoal_condition_wait_future(&condition, FOREVER);
    case GATE:
        return shoal_gate_close_future(&gate, FOREVER);
    case MUTEX:
        return shoal_mutex_lock_future(&mutex, FOREVER);
    case ONCE:
        return shoal_once_run_future(&once, nothing, NULL, FOREVER);
    case PIPE:
        return shoal_pipe_readable_future(&stream, FOREVER);
    case LIMITER:
        return shoal_rate_limiter_acquire_future(&limiter, 1, FOREVER);
    case READ:
        return shoal_rwlock_read_lock_future(&rwlock, FOREVER);
    case WRITE:
        return shoal_rwlock_write_lock_future(&rwlock, FOREVER);
    default:
        return shoal_semaphore_acquire_future(&semaphore, 1, FOREVER);
    }
}

static int check_early_ends(void *arg)
{
    (void)arg;
    sync_clock_begin();
    make_all();
    for (int kind = 0; kind < KINDS; kind++) {
        if (kind == ONCE) /* does not wait for anybody here */
            continue;
        SHOAL_EXPECT_INT(wait_at(kind, 0), -ETIMEDOUT);
        struct shoal_future *future = future_at(kind);
        SHOAL_EXPECT(shoal_future_is_pending(future));
        shoal_future_cancel(future);
        shoal_future_cancel(future); /* again: nothing */
        SHOAL_EXPECT_INT(sync_await(future), -ECANCELED);
    }
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    end_all();
    sync_clock_end();
    return 0;
}

static void sync_wait_ends_by_no_time_and_by_cancel_at_every_primitive(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early_ends, NULL), 0);
}

static int wait_cancelled(void *arg)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(FOREVER), -ECANCELED);
    /* Even where it would not have to wait. */
    return wait_at((int)(intptr_t)arg, FOREVER);
}

static int check_cancelled_before(void *arg)
{
    (void)arg;
    make_all();
    shoal_semaphore_release(&semaphore, 1);
    int item = 3;
    SHOAL_EXPECT_INT(shoal_channel_try_send(&channel, &item), 0);
    SHOAL_EXPECT_INT(shoal_broadcast_try_publish(&broadcast, &item), 0);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "x", 1), 1);
    for (intptr_t kind = 0; kind < KINDS; kind++) {
        struct shoal_fiber *fiber = sync_spawn(wait_cancelled, (void *)kind);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    SHOAL_EXPECT_INT(shoal_semaphore_available(&semaphore), 1);
    SHOAL_EXPECT_INT(shoal_channel_length(&channel), 1);
    SHOAL_EXPECT_INT(shoal_pipe_length(&stream), 1);
    SHOAL_EXPECT(!shoal_once_done(&once));
    end_all();
    return 0;
}

static void sync_wait_on_a_cancelled_fiber_takes_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancelled_before, NULL), 0);
}

/* ---- No memory ---- */

static struct shoal_future *start(int what)
{
    static const char large[100];
    int item = 1;
    switch (what) {
    case KINDS:
        return shoal_channel_send_future(&channel, &item, FOREVER);
    case KINDS + 1:
        return shoal_broadcast_publish_future(&broadcast, &item, FOREVER);
    case KINDS + 2:
        return shoal_pipe_writable_future(&stream, FOREVER);
    case KINDS + 3: /* consumes the other whatever comes */
        return shoal_abort_link(&source, shoal_condition_wait_future(&condition, FOREVER));
    case KINDS + 4: {
        struct shoal_channel wide;
        const struct shoal_channel_options options = {.item_bytes = sizeof(large), .capacity = 1};
        if (shoal_channel_init(&wide, &options) < 0)
            return shoal_future_failed(-ENOMEM, NULL);
        struct shoal_future *future = shoal_channel_send_future(&wide, large, FOREVER);
        shoal_channel_deinit(&wide);
        return future;
    }
    default:
        return future_at(what);
    }
}

static int check_no_memory(void *arg)
{
    (void)arg;
    make_all();
    for (int what = 0; what < KINDS + 5; what++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) { /* the first allocation, the second, ... */
            const struct shoal_fault_plan plan = {.nth = nth};
            struct shoal_fault_stats stats;
            shoal_fault_arm(&plan);
            struct shoal_future *future = start(what);
            shoal_fault_disarm(&stats);
            failed = stats.failed > 0;
            SHOAL_EXPECT(nth < 10);
            shoal_future_cancel(future);
            int code = sync_await(future);
            SHOAL_EXPECT(failed ? code == -ENOMEM || code == -ECANCELED
                                : code == 0 || code == -ECANCELED);
            shoal_once_deinit(&once);
            shoal_once_init(&once);
            int item;
            (void)shoal_channel_try_receive(&channel, &item);
            (void)shoal_subscriber_try_receive(&subscriber, &item);
        }
    }
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    end_all();
    return 0;
}

static void sync_future_without_memory_fails_and_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_no_memory, NULL), 0);
}

/* ---- What aborts ---- */

struct misuse {
    int kind;
    bool elsewhere;
};

static int wait_forever(void *arg)
{
    return wait_at((int)(intptr_t)arg, FOREVER);
}

static int end_while_waiting(void *arg)
{
    const struct misuse *misuse = arg;
    make_all();
    (void)sync_spawn(wait_forever, (void *)(intptr_t)misuse->kind);
    sync_settle();
    if (misuse->kind == ABORT)
        shoal_abort_source_deinit(&source);
    else if (misuse->kind == SUBSCRIBER)
        shoal_broadcast_unsubscribe(&subscriber);
    else
        end_all();
    return 0;
}

static int run_end_while_waiting(void *arg)
{
    return shoal_test_run(1, end_while_waiting, arg);
}

static void sync_end_while_somebody_waits_aborts(void **state)
{
    (void)state;
    static const int kinds[] = {ABORT,     BARRIER, SUBSCRIBER, CHANNEL,
                                CONDITION, PIPE,    LIMITER,    SEMAPHORE};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(kinds); i++) {
        struct misuse misuse = {.kind = kinds[i]};
        shoal_test_aborts_with(run_end_while_waiting, &misuse, "ends while 1 wait for it");
    }
}

static void wait_in_task(struct shoal_task *task)
{
    (void)task;
    (void)wait_at(SEMAPHORE, FOREVER);
}

static int wait_outside(void *arg)
{
    (void)arg;
    static struct shoal_task task = {.run = wait_in_task};
    make_all();
    shoal_task_post(&task);
    return shoal_yield();
}

static void sync_wait_outside_a_fiber_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, wait_outside, "acquire of a semaphore outside a fiber");
}

#ifdef SHOAL_DEBUG
static int touch(void *arg, union shoal_value *out)
{
    (void)out;
    const struct misuse *misuse = arg;
    if (misuse->elsewhere)
        return wait_at(misuse->kind, 0);
    shoal_discard(future_at(misuse->kind));
    return 0;
}

static int touch_elsewhere(void *arg)
{
    make_all();
    return shoal_await(shoal_submit_fiber_to(1, touch, arg), NULL);
}

static int run_touch_elsewhere(void *arg)
{
    return shoal_test_run(2, touch_elsewhere, arg);
}

static void sync_touch_on_another_core_aborts_and_names_both(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct misuse misuse = {.kind = kind, .elsewhere = kind % 2 == 0};
        shoal_test_aborts_with(run_touch_elsewhere, &misuse, "of core 0 on core 1");
        misuse.elsewhere = !misuse.elsewhere;
        if (kind == CHANNEL || kind == SEMAPHORE)
            shoal_test_aborts_with(run_touch_elsewhere, &misuse, "of core 0 on core 1");
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sync_wait_ends_by_no_time_and_by_cancel_at_every_primitive),
        cmocka_unit_test(sync_wait_on_a_cancelled_fiber_takes_nothing),
        cmocka_unit_test(sync_future_without_memory_fails_and_leaves_nothing),
        cmocka_unit_test(sync_end_while_somebody_waits_aborts),
        cmocka_unit_test(sync_wait_outside_a_fiber_aborts),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(sync_touch_on_another_core_aborts_and_names_both),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
