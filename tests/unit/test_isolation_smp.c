/*
 * Cores share nothing but what is made for it: the ends of a channel between cores, and a stream
 * that is handed over, each on another core than it belongs to, in checked builds; and what threads
 * that are no cores may not call. See isolation_check.h.
 */
#include "shoal/runtime/clock.h"
#include "shoal/runtime/select.h"

#include "shoal/smp/core_channel.h"
#include "shoal/smp/submit.h"

#include "shoal/net/handover.h"

#include "unit/isolation_check.h"
#include "unit/net_check.h"

static int item;
static union shoal_value value;

static void select_now(struct shoal_select_case source)
{
    (void)shoal_select(&source, 1, 0);
}

static struct shoal_core_channel *channel;
static struct shoal_core_sender *sender;
static struct shoal_stream *stream;

static void make_channel(void)
{
    const struct shoal_core_channel_options options = {.item_bytes = sizeof(int), .credit = 4};
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), 0);
}

static void make_sender(void)
{
    make_channel();
    SHOAL_EXPECT_INT(shoal_core_sender_new(&sender, channel), 0);
}

static void make_message(void)
{
    make_sender();
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &item), 0);
    SHOAL_EXPECT_INT(
        shoal_await(shoal_core_channel_receive_future(channel, SHOAL_NS_FOREVER), &value), 0);
}

static void make_stream(void)
{
    int raw;
    net_half(&stream, &raw);
}

static void serve(struct shoal_stream *served, void *arg)
{
    (void)served;
    (void)arg;
}

#define SMP(X)                                                                                     \
    X(receive, "receive of core channel", channel,                                                 \
      (void)shoal_core_channel_receive(channel, &item, 0))                                         \
    X(try_receive, "try_receive of core channel", channel,                                         \
      (void)shoal_core_channel_try_receive(channel, &item))                                        \
    X(receive_future, "receive of core channel", channel,                                          \
      shoal_discard(shoal_core_channel_receive_future(channel, 0)))                                \
    X(take, "take of core channel", message, shoal_core_channel_take(&value, &item))               \
    X(closed, "closed of core channel", channel, (void)shoal_core_channel_closed(channel))         \
    X(length, "length of core channel", channel, (void)shoal_core_channel_length(channel))         \
    X(select_receive, "select of core channel", channel,                                           \
      select_now(shoal_select_core_receive(channel, &item)))                                       \
    X(close, "close of core channel", channel, shoal_core_channel_close(channel))                  \
    X(free, "deinit of core channel", channel, shoal_core_channel_free(channel))                   \
    X(send, "send of core channel", sender, (void)shoal_core_channel_send(sender, &item, 0))       \
    X(try_send, "try_send of core channel", sender,                                                \
      (void)shoal_core_channel_try_send(sender, &item))                                            \
    X(send_future, "send of core channel", sender,                                                 \
      shoal_discard(shoal_core_channel_send_future(sender, &item, 0)))                             \
    X(credit, "credit of core channel", sender, (void)shoal_core_sender_credit(sender))            \
    X(sender_closed, "closed of core channel", sender, (void)shoal_core_sender_closed(sender))     \
    X(select_send, "select of core channel", sender,                                               \
      select_now(shoal_select_core_send(sender, &item)))                                           \
    X(sender_close, "close of core channel", sender, shoal_core_sender_close(sender))              \
    X(sender_free, "deinit of core channel", sender, shoal_core_sender_free(sender))               \
    X(handover, "handover of stream 0x", stream,                                                   \
      (void)shoal_handover_stream(stream, 0, serve, NULL))

ISOLATION_TABLE(cases, SMP);

/* ---- Threads that are no cores ---- */

static int answer(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return 0;
}

static struct shoal_future *answer_later(void *arg)
{
    (void)arg;
    return shoal_future_ready(NULL);
}

static void post_task(void)
{
    static struct shoal_task task;
    shoal_task_post(&task);
}

static void make_nothing(void)
{
}

#define FOREIGN(X)                                                                                 \
    X(submit_to, "submit", nothing, (void)shoal_submit_to(1, answer, NULL))                        \
    X(submit_fiber_to, "submit", nothing, (void)shoal_submit_fiber_to(1, answer, NULL))            \
    X(submit_future_to, "submit", nothing, (void)shoal_submit_future_to(1, answer_later, NULL))    \
    X(submit_copy_to, "submit", nothing, (void)shoal_submit_copy_to(1, answer, &item, 4))          \
    X(submit, "submit", nothing,                                                                   \
      (void)shoal_submit(1, &(const struct shoal_submit){.fn = answer}))                           \
    X(task_post, "task_post", nothing, post_task())                                                \
    X(need_preempt, "need_preempt", nothing, (void)shoal_need_preempt())                           \
    X(stopping, "core_stopping", nothing, (void)shoal_core_stopping())                             \
    X(io_backend, "core_io_backend", nothing, (void)shoal_core_io_backend())

ISOLATION_TABLE(foreigners, FOREIGN);

static void isolation_smp_at_home_nothing_is_said(void **state)
{
    (void)state;
    isolation_expect_silence(ISOLATION_ARGS(cases));
}

#if SHOAL_OWNER_CHECKED
static void isolation_ends_between_cores_on_another_core_abort(void **state)
{
    (void)state;
    isolation_expect_aborts(ISOLATION_ARGS(cases));
}

static void isolation_smp_on_a_thread_without_core_aborts(void **state)
{
    (void)state;
    isolation_expect_foreign_aborts(ISOLATION_ARGS(foreigners));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isolation_smp_at_home_nothing_is_said),
#if SHOAL_OWNER_CHECKED
        cmocka_unit_test(isolation_ends_between_cores_on_another_core_abort),
        cmocka_unit_test(isolation_smp_on_a_thread_without_core_aborts),
#endif
    };
    (void)foreigners;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
