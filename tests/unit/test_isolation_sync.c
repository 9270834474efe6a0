/*
 * Cores share nothing: each call on each primitive of sync, made on another core than it belongs
 * to, in checked builds. See isolation_check.h.
 */
#include "shoal/runtime/abort_source.h"
#include "shoal/runtime/barrier.h"
#include "shoal/runtime/broadcast.h"
#include "shoal/runtime/channel.h"
#include "shoal/runtime/clock.h"
#include "shoal/runtime/condition.h"
#include "shoal/runtime/gate.h"
#include "shoal/runtime/mutex.h"
#include "shoal/runtime/once.h"
#include "shoal/runtime/pipe.h"
#include "shoal/runtime/rate_limiter.h"
#include "shoal/runtime/rwlock.h"
#include "shoal/runtime/select.h"
#include "shoal/runtime/semaphore.h"

#include "unit/isolation_check.h"

#define AN_HOUR (SHOAL_NS_PER_S * 3600)

static int item;
static char byte;
static union shoal_value value;
static struct shoal_future *future;

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static bool holds(void *arg)
{
    (void)arg;
    return true;
}

static void select_now(struct shoal_select_case source)
{
    (void)shoal_select(&source, 1, 0);
}

/* ---- Abort source, barrier, condition ---- */

static struct shoal_abort_source source;
static struct shoal_abort_subscription subscription;
static struct shoal_barrier barrier;
static struct shoal_condition condition;

static void make_source(void)
{
    shoal_abort_source_init(&source);
    future = shoal_future_ready(NULL);
}

static void make_barrier(void)
{
    shoal_barrier_init(&barrier, 1);
}

static void make_condition(void)
{
    shoal_condition_init(&condition);
}

static void called(struct shoal_abort_subscription *caller, int code, const char *text)
{
    (void)caller;
    (void)code;
    (void)text;
}

#define EVENTS(X)                                                                                  \
    X(abort_request, "request of abort source 0x", source,                                         \
      (void)shoal_abort_request(&source, -ECANCELED, NULL))                                        \
    X(abort_set_timeout, "set_deadline of abort source 0x", source,                                \
      shoal_abort_set_timeout(&source, AN_HOUR))                                                   \
    X(abort_set_deadline, "set_deadline of abort source 0x", source,                               \
      shoal_abort_set_deadline(&source, UINT64_MAX))                                               \
    X(abort_code, "code of abort source 0x", source, (void)shoal_abort_code(&source))              \
    X(abort_text, "text of abort source 0x", source, (void)shoal_abort_text(&source))              \
    X(abort_subscribe, "subscribe of abort source 0x", source,                                     \
      (void)shoal_abort_subscribe(&source, &subscription, called, NULL))                           \
    X(abort_link_fiber, "subscribe of abort source 0x", source,                                    \
      shoal_abort_link_fiber(&source, &subscription, NULL))                                        \
    X(abort_link, "link of abort source 0x", source, (void)shoal_abort_link(&source, future))      \
    X(abort_wait, "wait of abort source 0x", source, (void)shoal_abort_wait(&source, 0))           \
    X(abort_future, "wait of abort source 0x", source,                                             \
      shoal_discard(shoal_abort_future(&source, AN_HOUR)))                                         \
    X(abort_select, "select of abort source 0x", source, select_now(shoal_select_abort(&source)))  \
    X(abort_deinit, "deinit of abort source 0x", source, shoal_abort_source_deinit(&source))       \
    X(barrier_wait, "wait of barrier 0x", barrier, (void)shoal_barrier_wait(&barrier, 0))          \
    X(barrier_future, "wait of barrier 0x", barrier,                                               \
      shoal_discard(shoal_barrier_wait_future(&barrier, 0)))                                       \
    X(barrier_generation, "generation of barrier 0x", barrier,                                     \
      (void)shoal_barrier_generation(&barrier))                                                    \
    X(barrier_waiting, "waiting of barrier 0x", barrier, (void)shoal_barrier_waiting(&barrier))    \
    X(barrier_deinit, "deinit of barrier 0x", barrier, shoal_barrier_deinit(&barrier))             \
    X(condition_wait, "wait of condition 0x", condition,                                           \
      (void)shoal_condition_wait(&condition, NULL, 0))                                             \
    X(condition_wait_for, "wait_for of condition 0x", condition,                                   \
      (void)shoal_condition_wait_for(&condition, holds, NULL, 0))                                  \
    X(condition_future, "wait of condition 0x", condition,                                         \
      shoal_discard(shoal_condition_wait_future(&condition, 0)))                                   \
    X(condition_signal, "signal of condition 0x", condition, shoal_condition_signal(&condition))   \
    X(condition_broadcast, "broadcast of condition 0x", condition,                                 \
      shoal_condition_broadcast(&condition))                                                       \
    X(condition_waiting, "waiting of condition 0x", condition,                                     \
      (void)shoal_condition_waiting(&condition))                                                   \
    X(condition_deinit, "deinit of condition 0x", condition, shoal_condition_deinit(&condition))

ISOLATION_TABLE(events, EVENTS);

/* ---- What carries messages ---- */

static struct shoal_broadcast broadcast;
static struct shoal_subscriber subscriber;
static struct shoal_channel channel;
static struct shoal_pipe pipe_;

static void make_broadcast(void)
{
    const struct shoal_broadcast_options options = {sizeof(int), 1, SHOAL_BROADCAST_WAIT};
    SHOAL_EXPECT_INT(shoal_broadcast_init(&broadcast, &options), 0);
}

static void make_subscriber(void)
{
    make_broadcast();
    shoal_broadcast_subscribe(&broadcast, &subscriber);
}

static void make_channel(void)
{
    const struct shoal_channel_options options = {.item_bytes = sizeof(int), .capacity = 1};
    SHOAL_EXPECT_INT(shoal_channel_init(&channel, &options), 0);
}

static void make_message(void)
{
    make_channel();
    SHOAL_EXPECT_INT(shoal_channel_try_send(&channel, &item), 0);
    SHOAL_EXPECT_INT(shoal_await(shoal_channel_receive_future(&channel, 0), &value), 0);
}

static void make_pipe(void)
{
    SHOAL_EXPECT_INT(shoal_pipe_init(&pipe_, 1), 0);
}

#define CARRIERS(X)                                                                                \
    X(subscribe, "subscribe of broadcast (publish) 0x", broadcast,                                 \
      shoal_broadcast_subscribe(&broadcast, &subscriber))                                          \
    X(unsubscribe, "deinit of broadcast (receive) 0x", subscriber,                                 \
      shoal_broadcast_unsubscribe(&subscriber))                                                    \
    X(publish, "publish of broadcast (publish) 0x", broadcast,                                     \
      (void)shoal_broadcast_publish(&broadcast, &item, 0))                                         \
    X(try_publish, "try_publish of broadcast (publish) 0x", broadcast,                             \
      (void)shoal_broadcast_try_publish(&broadcast, &item))                                        \
    X(publish_future, "publish of broadcast (publish) 0x", broadcast,                              \
      shoal_discard(shoal_broadcast_publish_future(&broadcast, &item, 0)))                         \
    X(subscriber_receive, "receive of broadcast (receive) 0x", subscriber,                         \
      (void)shoal_subscriber_receive(&subscriber, &item, 0))                                       \
    X(subscriber_try, "try_receive of broadcast (receive) 0x", subscriber,                         \
      (void)shoal_subscriber_try_receive(&subscriber, &item))                                      \
    X(subscriber_future, "ready of broadcast (receive) 0x", subscriber,                            \
      shoal_discard(shoal_subscriber_ready_future(&subscriber, 0)))                                \
    X(subscriber_lost, "lost of broadcast (receive) 0x", subscriber,                               \
      (void)shoal_subscriber_lost(&subscriber))                                                    \
    X(subscriber_select, "select of broadcast (receive) 0x", subscriber,                           \
      select_now(shoal_select_subscriber(&subscriber, &item)))                                     \
    X(broadcast_close, "close of broadcast (publish) 0x", broadcast,                               \
      shoal_broadcast_close(&broadcast))                                                           \
    X(broadcast_closed, "closed of broadcast (publish) 0x", broadcast,                             \
      (void)shoal_broadcast_closed(&broadcast))                                                    \
    X(broadcast_deinit, "deinit of broadcast (publish) 0x", broadcast,                             \
      shoal_broadcast_deinit(&broadcast))                                                          \
    X(channel_send, "send of channel (send) 0x", channel,                                          \
      (void)shoal_channel_send(&channel, &item, 0))                                                \
    X(channel_try_send, "try_send of channel (send) 0x", channel,                                  \
      (void)shoal_channel_try_send(&channel, &item))                                               \
    X(channel_send_future, "send of channel (send) 0x", channel,                                   \
      shoal_discard(shoal_channel_send_future(&channel, &item, 0)))                                \
    X(channel_receive, "receive of channel (receive) 0x", channel,                                 \
      (void)shoal_channel_receive(&channel, &item, 0))                                             \
    X(channel_try_receive, "try_receive of channel (receive) 0x", channel,                         \
      (void)shoal_channel_try_receive(&channel, &item))                                            \
    X(channel_receive_future, "receive of channel (receive) 0x", channel,                          \
      shoal_discard(shoal_channel_receive_future(&channel, 0)))                                    \
    X(channel_take, "take of channel (receive) 0x", message, shoal_channel_take(&value, &item))    \
    X(channel_select_send, "select of channel (send) 0x", channel,                                 \
      select_now(shoal_select_send(&channel, &item)))                                              \
    X(channel_select_receive, "select of channel (receive) 0x", channel,                           \
      select_now(shoal_select_receive(&channel, &item)))                                           \
    X(channel_close, "close of channel (send) 0x", channel, shoal_channel_close(&channel))         \
    X(channel_closed, "closed of channel (send) 0x", channel,                                      \
      (void)shoal_channel_closed(&channel))                                                        \
    X(channel_length, "length of channel (send) 0x", channel,                                      \
      (void)shoal_channel_length(&channel))                                                        \
    X(channel_deinit, "deinit of channel (send) 0x", channel, shoal_channel_deinit(&channel))      \
    X(pipe_read, "read of pipe (read) 0x", pipe, (void)shoal_pipe_read(&pipe_, &byte, 1, 0))       \
    X(pipe_try_read, "try_read of pipe (read) 0x", pipe,                                           \
      (void)shoal_pipe_try_read(&pipe_, &byte, 1))                                                 \
    X(pipe_write, "write of pipe (write) 0x", pipe, (void)shoal_pipe_write(&pipe_, &byte, 1, 0))   \
    X(pipe_try_write, "try_write of pipe (write) 0x", pipe,                                        \
      (void)shoal_pipe_try_write(&pipe_, &byte, 1))                                                \
    X(pipe_readable, "readable of pipe (read) 0x", pipe,                                           \
      shoal_discard(shoal_pipe_readable_future(&pipe_, 0)))                                        \
    X(pipe_writable, "writable of pipe (write) 0x", pipe,                                          \
      shoal_discard(shoal_pipe_writable_future(&pipe_, 0)))                                        \
    X(pipe_select, "select of pipe (read) 0x", pipe, select_now(shoal_select_pipe(&pipe_)))        \
    X(pipe_close_write, "close_write of pipe (write) 0x", pipe, shoal_pipe_close_write(&pipe_, 0)) \
    X(pipe_close_read, "close_read of pipe (read) 0x", pipe, shoal_pipe_close_read(&pipe_, 0))     \
    X(pipe_length, "length of pipe (read) 0x", pipe, (void)shoal_pipe_length(&pipe_))              \
    X(pipe_deinit, "deinit of pipe (read) 0x", pipe, shoal_pipe_deinit(&pipe_))

ISOLATION_TABLE(carriers, CARRIERS);

/* ---- What is held ---- */

static struct shoal_gate gate;
static struct shoal_mutex mutex;
static struct shoal_once once;
static struct shoal_rate_limiter limiter;
static struct shoal_rwlock rwlock;
static struct shoal_semaphore semaphore;

static void make_gate(void)
{
    shoal_gate_init(&gate);
}

static void make_gate_inside(void)
{
    make_gate();
    SHOAL_EXPECT_INT(shoal_gate_enter(&gate), 0);
}

static void make_mutex(void)
{
    shoal_mutex_init(&mutex);
}

static void make_mutex_locked(void)
{
    make_mutex();
    SHOAL_EXPECT(shoal_mutex_try_lock(&mutex));
}

static void make_once(void)
{
    shoal_once_init(&once);
}

static void make_limiter(void)
{
    const struct shoal_rate_limiter_options options = {1, AN_HOUR, 1};
    SHOAL_EXPECT_INT(shoal_rate_limiter_init(&limiter, &options), 0);
}

static void make_rwlock(void)
{
    shoal_rwlock_init(&rwlock);
}

static void make_read_locked(void)
{
    make_rwlock();
    SHOAL_EXPECT(shoal_rwlock_try_read_lock(&rwlock));
}

static void make_write_locked(void)
{
    make_rwlock();
    SHOAL_EXPECT(shoal_rwlock_try_write_lock(&rwlock));
}

static void make_semaphore(void)
{
    shoal_semaphore_init(&semaphore, 1);
}

#define HELD(X)                                                                                    \
    X(gate_enter, "enter of gate 0x", gate, (void)shoal_gate_enter(&gate))                         \
    X(gate_leave, "leave of gate 0x", gate_inside, shoal_gate_leave(&gate))                        \
    X(gate_close, "close of gate 0x", gate, (void)shoal_gate_close(&gate, 0))                      \
    X(gate_close_future, "close of gate 0x", gate,                                                 \
      shoal_discard(shoal_gate_close_future(&gate, 0)))                                            \
    X(gate_closed, "closed of gate 0x", gate, (void)shoal_gate_closed(&gate))                      \
    X(gate_inside, "inside of gate 0x", gate, (void)shoal_gate_inside(&gate))                      \
    X(gate_deinit, "deinit of gate 0x", gate, shoal_gate_deinit(&gate))                            \
    X(mutex_lock, "lock of mutex 0x", mutex, (void)shoal_mutex_lock(&mutex, 0))                    \
    X(mutex_try_lock, "try_lock of mutex 0x", mutex, (void)shoal_mutex_try_lock(&mutex))           \
    X(mutex_future, "lock of mutex 0x", mutex, (void)shoal_mutex_lock_future(&mutex, 0))           \
    X(mutex_unlock, "unlock of mutex 0x", mutex_locked, shoal_mutex_unlock(&mutex))                \
    X(mutex_locked, "locked of mutex 0x", mutex, (void)shoal_mutex_locked(&mutex))                 \
    X(mutex_deinit, "deinit of mutex 0x", mutex, shoal_mutex_deinit(&mutex))                       \
    X(once_run, "run of once 0x", once, (void)shoal_once_run(&once, nothing, NULL, 0))             \
    X(once_future, "run of once 0x", once,                                                         \
      shoal_discard(shoal_once_run_future(&once, nothing, NULL, 0)))                               \
    X(once_done, "done of once 0x", once, (void)shoal_once_done(&once))                            \
    X(once_deinit, "deinit of once 0x", once, shoal_once_deinit(&once))                            \
    X(limiter_acquire, "acquire of rate limiter 0x", limiter,                                      \
      (void)shoal_rate_limiter_acquire(&limiter, 1, 0))                                            \
    X(limiter_try, "try_acquire of rate limiter 0x", limiter,                                      \
      (void)shoal_rate_limiter_try_acquire(&limiter, 1))                                           \
    X(limiter_future, "acquire of rate limiter 0x", limiter,                                       \
      shoal_discard(shoal_rate_limiter_acquire_future(&limiter, 1, 0)))                            \
    X(limiter_available, "available of rate limiter 0x", limiter,                                  \
      (void)shoal_rate_limiter_available(&limiter))                                                \
    X(limiter_deinit, "deinit of rate limiter 0x", limiter, shoal_rate_limiter_deinit(&limiter))   \
    X(read_lock, "read_lock of rwlock 0x", rwlock, (void)shoal_rwlock_read_lock(&rwlock, 0))       \
    X(write_lock, "write_lock of rwlock 0x", rwlock, (void)shoal_rwlock_write_lock(&rwlock, 0))    \
    X(try_read_lock, "try_read_lock of rwlock 0x", rwlock,                                         \
      (void)shoal_rwlock_try_read_lock(&rwlock))                                                   \
    X(try_write_lock, "try_write_lock of rwlock 0x", rwlock,                                       \
      (void)shoal_rwlock_try_write_lock(&rwlock))                                                  \
    X(read_future, "read_lock of rwlock 0x", rwlock,                                               \
      (void)shoal_rwlock_read_lock_future(&rwlock, 0))                                             \
    X(write_future, "write_lock of rwlock 0x", rwlock,                                             \
      (void)shoal_rwlock_write_lock_future(&rwlock, 0))                                            \
    X(read_unlock, "read_unlock of rwlock 0x", read_locked, shoal_rwlock_read_unlock(&rwlock))     \
    X(write_unlock, "write_unlock of rwlock 0x", write_locked, shoal_rwlock_write_unlock(&rwlock)) \
    X(downgrade, "downgrade of rwlock 0x", write_locked, shoal_rwlock_downgrade(&rwlock))          \
    X(readers, "readers of rwlock 0x", rwlock, (void)shoal_rwlock_readers(&rwlock))                \
    X(writing, "writing of rwlock 0x", rwlock, (void)shoal_rwlock_writing(&rwlock))                \
    X(rwlock_deinit, "deinit of rwlock 0x", rwlock, shoal_rwlock_deinit(&rwlock))                  \
    X(semaphore_acquire, "acquire of semaphore 0x", semaphore,                                     \
      (void)shoal_semaphore_acquire(&semaphore, 1, 0))                                             \
    X(semaphore_try, "try_acquire of semaphore 0x", semaphore,                                     \
      (void)shoal_semaphore_try_acquire(&semaphore, 1))                                            \
    X(semaphore_future, "acquire of semaphore 0x", semaphore,                                      \
      shoal_discard(shoal_semaphore_acquire_future(&semaphore, 1, 0)))                             \
    X(semaphore_release, "release of semaphore 0x", semaphore,                                     \
      shoal_semaphore_release(&semaphore, 1))                                                      \
    X(semaphore_available, "available of semaphore 0x", semaphore,                                 \
      (void)shoal_semaphore_available(&semaphore))                                                 \
    X(semaphore_waiting, "waiting of semaphore 0x", semaphore,                                     \
      (void)shoal_semaphore_waiting(&semaphore))                                                   \
    X(semaphore_select, "select of semaphore 0x", semaphore,                                       \
      select_now(shoal_select_acquire(&semaphore, 1)))                                             \
    X(semaphore_deinit, "deinit of semaphore 0x", semaphore, shoal_semaphore_deinit(&semaphore))

ISOLATION_TABLE(held, HELD);

static void isolation_sync_at_home_nothing_is_said(void **state)
{
    (void)state;
    isolation_expect_silence(ISOLATION_ARGS(events));
    isolation_expect_silence(ISOLATION_ARGS(carriers));
    isolation_expect_silence(ISOLATION_ARGS(held));
}

#if SHOAL_OWNER_CHECKED
static void isolation_abort_source_barrier_condition_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(events));
}

static void isolation_broadcast_channel_pipe_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(carriers));
}

static void isolation_gate_lock_limiter_semaphore_of_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(held));
}

static void isolation_sync_on_a_thread_without_core_aborts(void **state)
{
    (void)state;
    isolation_expect_foreign_aborts(events, 3);
    isolation_expect_foreign_aborts(carriers, 3);
    isolation_expect_foreign_aborts(held, 3);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolation_sync_at_home_nothing_is_said),
#if SHOAL_OWNER_CHECKED
        cmocka_unit_test(isolation_abort_source_barrier_condition_of_another_core_abort),
        cmocka_unit_test(isolation_broadcast_channel_pipe_of_another_core_abort),
        cmocka_unit_test(isolation_gate_lock_limiter_semaphore_of_another_core_abort),
        cmocka_unit_test(isolation_sync_on_a_thread_without_core_aborts),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
