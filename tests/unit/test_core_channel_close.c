/*
 * Channels between cores: closing from either side, what is left, the stop of the program, misuse.
 */
/* backends: both */
#include "unit/core_channel_check.h"

struct scene {
    struct shoal_core_channel *channel;
    uint32_t count;
    atomic_int ready;
    atomic_int go;
    atomic_int sent;
};

static atomic_int dropped;
static atomic_int dropped_elsewhere;

static void drop_value(void *item)
{
    SHOAL_EXPECT(*(int *)item >= 0);
    *(int *)item = -1; /* once each */
    atomic_fetch_add(&dropped, 1);
    if (shoal_core_id() != 0)
        atomic_fetch_add(&dropped_elsewhere, 1);
}

static void begin(struct scene *scene, uint32_t count, uint32_t credit, uint32_t senders)
{
    memset(scene, 0, sizeof(*scene));
    scene->count = count;
    scene->channel = make_channel(sizeof(int), credit, senders, drop_value);
    atomic_store(&dropped, 0);
    atomic_store(&dropped_elsewhere, 0);
}

/* ---- By the home ---- */

static int send_until_closed(void *arg, union shoal_value *out)
{
    (void)out;
    struct scene *scene = arg;
    struct shoal_core_sender *sender = make_sender(scene->channel);
    atomic_fetch_add(&scene->ready, 1);
    int rc;
    for (int i = 0; (rc = shoal_core_channel_send(sender, &i, FOREVER)) == 0; i++)
        atomic_fetch_add(&scene->sent, 1);
    SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
    SHOAL_EXPECT(shoal_core_sender_closed(sender));
    SHOAL_EXPECT_INT(shoal_core_sender_credit(sender), 0);
    int more = 1;
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(sender, &more), SHOAL_ECLOSED);
    struct shoal_future *future = shoal_core_channel_send_future(sender, &more, FOREVER);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), SHOAL_ECLOSED);
    struct shoal_select_case cases[] = {shoal_select_core_send(sender, &more)};
    SHOAL_EXPECT_INT(shoal_select(cases, 1, FOREVER), 0);
    SHOAL_EXPECT_INT(cases[0].result, SHOAL_ECLOSED);
    shoal_core_sender_free(sender);
    return 0;
}

static int check_home_closes(void *arg)
{
    (void)arg;
    unsigned cores = shoal_core_count();
    for (uint32_t take = 0; take < 40; take += 13) {
        struct scene scene;
        struct shoal_future *senders[8];
        begin(&scene, 0, 16, 0);
        for (unsigned core = 0; core < cores; core++)
            senders[core] = start_on(core, send_until_closed, &scene);
        int value;
        for (uint32_t i = 0; i < take; i++)
            SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), 0);
        wait_for(&scene.ready, (int)cores);
        SHOAL_EXPECT(!shoal_core_channel_closed(scene.channel));
        shoal_core_channel_close(scene.channel);
        shoal_core_channel_close(scene.channel); /* again is nothing */
        SHOAL_EXPECT(shoal_core_channel_closed(scene.channel));
        uint32_t received = take;
        int rc;
        while ((rc = shoal_core_channel_receive(scene.channel, &value, FOREVER)) == 0)
            received++;
        SHOAL_EXPECT_INT(rc, SHOAL_ECLOSED);
        for (unsigned core = 0; core < cores; core++)
            SHOAL_EXPECT_INT(shoal_await(senders[core], NULL), 0);
        SHOAL_EXPECT_INT(received, atomic_load(&scene.sent)); /* none that was sent is lost */
        SHOAL_EXPECT_INT(shoal_core_channel_length(scene.channel), 0);
        struct shoal_core_sender *late = NULL;
        SHOAL_EXPECT_INT(shoal_core_sender_new(&late, scene.channel), SHOAL_ECLOSED);
        shoal_core_channel_free(scene.channel);
        SHOAL_EXPECT_INT(atomic_load(&dropped), 0);
    }
    return 0;
}

static void core_channel_closed_by_home_is_drained_then_closed(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_home_closes, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_home_closes, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_home_closes, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_home_closes, NULL), 0);
}

static int check_home_frees(void *arg)
{
    (void)arg;
    unsigned cores = shoal_core_count();
    for (uint32_t take = 0; take < 40; take += 13) {
        struct scene scene;
        struct shoal_future *senders[8];
        begin(&scene, 0, 16, 0);
        for (unsigned core = 0; core < cores; core++)
            senders[core] = start_on(core, send_until_closed, &scene);
        int value;
        for (uint32_t i = 0; i < take; i++)
            SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), 0);
        wait_for(&scene.ready, (int)cores);
        shoal_core_channel_free(scene.channel);
        for (unsigned core = 0; core < cores; core++)
            SHOAL_EXPECT_INT(shoal_await(senders[core], NULL), 0);
        wait_for(&dropped, atomic_load(&scene.sent) - (int)take);
        SHOAL_EXPECT_INT(atomic_load(&dropped), atomic_load(&scene.sent) - (int)take);
        SHOAL_EXPECT_INT(atomic_load(&dropped_elsewhere), 0);
    }
    return 0;
}

static void core_channel_freed_by_home_drops_all_that_is_left_there(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_home_frees, NULL), 0);
    assert_int_equal(shoal_test_run(2, check_home_frees, NULL), 0);
    assert_int_equal(shoal_test_run(3, check_home_frees, NULL), 0);
    assert_int_equal(shoal_test_run(8, check_home_frees, NULL), 0);
}

/* ---- By the sender ---- */

static struct shoal_core_sender *closing;

static int send_closing(void *arg)
{
    int value = 99;
    atomic_fetch_add(&((struct scene *)arg)->sent, 1);
    return shoal_core_channel_send(closing, &value, FOREVER);
}

static int close_with_waiters(void *arg, union shoal_value *out)
{
    (void)out;
    struct scene *scene = arg;
    struct shoal_fiber *fibers[3];
    closing = make_sender(scene->channel);
    for (int i = 0; i < (int)scene->count; i++)
        SHOAL_EXPECT_INT(shoal_core_channel_send(closing, &i, FOREVER), 0);
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], send_closing, scene, "waits"), 0);
    int value = 98;
    struct shoal_future *future = shoal_core_channel_send_future(closing, &value, FOREVER);
    wait_for(&scene->sent, 3);
    SHOAL_EXPECT(!shoal_core_sender_closed(closing));
    shoal_core_sender_close(closing);
    shoal_core_sender_close(closing); /* again is nothing */
    SHOAL_EXPECT(shoal_core_sender_closed(closing));
    for (int i = 0; i < 3; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_await(future, NULL), SHOAL_ECLOSED);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(closing, &value), SHOAL_ECLOSED);
    atomic_store(&scene->ready, 1);
    wait_for(&scene->go, 1); /* the channel is gone by now */
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(closing, &value), SHOAL_ECLOSED);
    shoal_core_sender_free(closing);
    return 0;
}

static int check_sender_closes(void *arg)
{
    (void)arg;
    for (unsigned core = 0; core < 2; core++) {
        struct scene scene;
        int value;
        begin(&scene, 5, 5, 1);
        struct shoal_future *done = start_on(core, close_with_waiters, &scene);
        wait_for(&scene.ready, 1);
        for (int i = 0; i < 5; i++) {
            SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), 0);
            SHOAL_EXPECT_INT(value, i);
        }
        SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), SHOAL_ECLOSED);
        shoal_core_channel_free(scene.channel);
        atomic_store(&scene.go, 1);
        SHOAL_EXPECT_INT(shoal_await(done, NULL), 0);
    }
    return 0;
}

static void core_channel_closed_by_sender_ends_who_waits_and_keeps_what_was_sent(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_sender_closes, NULL), 0);
}

static int come_and_go(void *arg, union shoal_value *out)
{
    (void)out;
    struct scene *scene = arg;
    struct shoal_core_sender *sender = make_sender(scene->channel);
    int value = shoal_core_id();
    SHOAL_EXPECT_INT(shoal_core_channel_send(sender, &value, FOREVER), 0);
    shoal_core_sender_free(sender);
    return 0;
}

/* The channel closes with the last of the ends that it was told of; one that is still open too. */
static int check_count(void *arg)
{
    (void)arg;
    struct scene scene;
    int value;
    begin(&scene, 0, 4, 3);
    for (int i = 0; i < 2; i++) {
        SHOAL_EXPECT_INT(run_on(1, come_and_go, &scene), 0);
        SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), 0);
        SHOAL_EXPECT_INT(value, 1);
    }
    /* While one waits; the ends of others, which are more than were announced, learn of it. */
    struct shoal_core_sender *mine = make_sender(scene.channel);
    SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, SHOAL_NS_PER_MS),
                     -ETIMEDOUT);
    SHOAL_EXPECT(!shoal_core_channel_closed(scene.channel));
    struct shoal_future *waits = shoal_core_channel_receive_future(scene.channel, FOREVER);
    SHOAL_EXPECT_INT(run_on(1, come_and_go, &scene), 0);
    union shoal_value got;
    SHOAL_EXPECT_INT(shoal_await(waits, &got), 0);
    shoal_core_channel_take(&got, &value);
    SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), SHOAL_ECLOSED);
    SHOAL_EXPECT(shoal_core_sender_closed(mine));
    shoal_core_sender_free(mine);
    shoal_core_channel_free(scene.channel);
    return 0;
}

static void core_channel_closes_with_the_last_of_its_senders(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_count, NULL), 0);
}

/* Ends come and go by the hundred while somebody receives: no memory stays behind. */
static int come_and_go_often(void *arg, union shoal_value *out)
{
    for (int i = 0; i < 300 / SHOAL_TEST_SLOWDOWN; i++)
        (void)come_and_go(arg, out);
    return 0;
}

static uint64_t used_here(void)
{
    struct shoal_mem_stats stats;
    shoal_mem_stats(&stats);
    return stats.used_bytes;
}

static int check_many_ends(void *arg)
{
    (void)arg;
    struct scene scene;
    begin(&scene, 0, 4, 0);
    struct shoal_future *done[2];
    for (unsigned i = 0; i < 2; i++)
        done[i] = start_on(i + 1, come_and_go_often, &scene);
    int value;
    uint64_t used = 0;
    const int all = 2 * (300 / SHOAL_TEST_SLOWDOWN);
    for (int i = 0; i < all; i++) {
        SHOAL_EXPECT_INT(shoal_core_channel_receive(scene.channel, &value, FOREVER), 0);
        SHOAL_EXPECT(value == 1 || value == 2);
        if (i == all / 2)
            used = used_here();
    }
    SHOAL_EXPECT(used_here() < used + 8192);
    for (int i = 0; i < 2; i++)
        SHOAL_EXPECT_INT(shoal_await(done[i], NULL), 0);
    shoal_core_channel_free(scene.channel);
    return 0;
}

static void core_channel_ends_that_come_and_go_leave_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(3, check_many_ends, NULL), 0);
}

/* ---- The stop of the program ---- */

static struct scene left;

static int wait_for_credit(void *arg)
{
    int value = 1;
    int rc;
    while ((rc = shoal_core_channel_send(arg, &value, FOREVER)) == 0)
        atomic_fetch_add(&left.sent, 1);
    SHOAL_EXPECT(rc == -ECANCELED || rc == SHOAL_ECLOSED);
    return 0;
}

static int wait_for_value(void *arg)
{
    int value;
    SHOAL_EXPECT_INT(shoal_core_channel_receive(arg, &value, FOREVER), -ECANCELED);
    return 0;
}

/* On each core: a channel of its own that somebody waits for, and an end of core 0's. */
static int leave_open(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    int value = 2;
    struct shoal_core_channel *mine = make_channel(sizeof(int), 4, 0, drop_value);
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(wait_for_value, mine, "receiver"), 0);
    struct shoal_core_sender *unused = make_sender(mine);
    SHOAL_EXPECT(unused != NULL);
    struct shoal_core_sender *sender = make_sender(left.channel);
    shoal_discard(shoal_core_channel_send_future(sender, &value, FOREVER));
    atomic_fetch_add(&left.sent, 1);
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(wait_for_credit, sender, "sender"), 0);
    SHOAL_EXPECT_INT(shoal_fiber_spawn_detached(wait_for_credit, sender, "sender"), 0);
    return 0;
}

static int stop_with_open_channels(void *arg)
{
    const int taken = (int)(intptr_t)arg;
    begin(&left, 0, 3, 0);
    for (unsigned core = 0; core < shoal_core_count(); core++)
        SHOAL_EXPECT_INT(run_on(core, leave_open, NULL), 0);
    for (int i = 0; i < taken; i++) {
        int value;
        SHOAL_EXPECT_INT(shoal_core_channel_receive(left.channel, &value, FOREVER), 0);
    }
    return 0;
}

static void core_channel_left_open_is_freed_with_the_program(void **state)
{
    (void)state;
    static const unsigned cores[] = {1, 2, 3, 8};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cores); i++)
        for (int taken = 0; taken < 200; taken += 66) {
            assert_int_equal(
                shoal_test_run(cores[i], stop_with_open_channels, (void *)(intptr_t)taken), 0);
            assert_int_equal(atomic_load(&dropped), atomic_load(&left.sent) - taken);
            assert_int_equal(atomic_load(&dropped_elsewhere), 0);
        }
}

/* What only waits by futures, and what is half freed, on both sides. */
static int leave_futures(void *arg, union shoal_value *out)
{
    (void)out;
    int value = 5;
    struct shoal_core_sender *sender = make_sender(arg);
    for (int i = 0; i < 4; i++) /* two are sent, two wait for ever */
        shoal_discard(shoal_core_channel_send_future(sender, &value, FOREVER));
    struct shoal_core_sender *gone = make_sender(arg);
    SHOAL_EXPECT_INT(shoal_core_channel_try_send(gone, &value), 0);
    shoal_core_sender_free(gone);
    return 0;
}

static int stop_with_futures(void *arg)
{
    (void)arg;
    atomic_store(&dropped, 0);
    struct shoal_core_channel *full = make_channel(sizeof(int), 2, 0, drop_value);
    struct shoal_core_channel *empty = make_channel(sizeof(int), 2, 0, drop_value);
    struct shoal_core_channel *freed = make_channel(sizeof(int), 2, 0, drop_value);
    SHOAL_EXPECT_INT(run_on(1, leave_futures, full), 0);
    SHOAL_EXPECT_INT(run_on(1, leave_futures, freed), 0);
    shoal_discard(shoal_core_channel_receive_future(empty, FOREVER));
    shoal_core_channel_free(freed); /* its sender learns of it in the middle of the stop */
    return 0;
}

static void core_channel_futures_left_open_do_not_leak(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, stop_with_futures, NULL), 0);
    assert_true(atomic_load(&dropped) >= 6 && atomic_load(&dropped) <= 8);
}

/* ---- Misuse ---- */

static int check_options(void *arg)
{
    (void)arg;
    struct shoal_core_channel *channel = NULL;
    struct shoal_core_channel_options options = {.item_bytes = 0, .credit = 1};
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), -EINVAL);
    options.item_bytes = SHOAL_CORE_CHANNEL_ITEM_BYTES_MAX + 1;
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), -EINVAL);
    options.item_bytes = SHOAL_CORE_CHANNEL_ITEM_BYTES_MAX;
    options.credit = 0;
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), -EINVAL);
    options.credit = SHOAL_CORE_CHANNEL_CREDIT_MAX + 1;
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), -EINVAL);
    SHOAL_EXPECT(channel == NULL);
    options.credit = SHOAL_CORE_CHANNEL_CREDIT_MAX;
    options.item_bytes = 1;
    SHOAL_EXPECT_INT(shoal_core_channel_new(&channel, &options), 0);
    struct shoal_core_sender *sender = make_sender(channel);
    SHOAL_EXPECT_INT(shoal_core_sender_credit(sender), SHOAL_CORE_CHANNEL_CREDIT_MAX);
    shoal_core_sender_free(sender);
    shoal_core_channel_free(channel);
    shoal_core_sender_free(NULL);
    shoal_core_channel_free(NULL);
    return 0;
}

static void core_channel_options_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_options, NULL), 0);
}

static int receive_for_ever(void *arg)
{
    int value;
    return shoal_core_channel_receive(arg, &value, FOREVER);
}

static int free_with_receiver(void *arg)
{
    (void)arg;
    struct shoal_core_channel *channel = make_channel(sizeof(int), 2, 0, NULL);
    (void)shoal_fiber_spawn_detached(receive_for_ever, channel, "receiver");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_core_channel_free(channel);
    return 0;
}

static int free_with_sender(void *arg)
{
    (void)arg;
    struct shoal_core_sender *sender = make_sender(make_channel(sizeof(int), 1, 0, NULL));
    (void)shoal_fiber_spawn_detached(wait_for_credit, sender, "sender");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_core_sender_free(sender);
    return 0;
}

static int free_with_untaken(void *arg)
{
    (void)arg;
    struct shoal_core_channel *channel = make_channel(sizeof(int), 1, 0, NULL);
    struct shoal_core_sender *sender = make_sender(channel);
    int value = 1;
    (void)shoal_core_channel_send(sender, &value, FOREVER);
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    struct shoal_future *future = shoal_core_channel_receive_future(channel, FOREVER);
    union shoal_value unused;
    (void)shoal_await(future, &unused);
    shoal_core_channel_free(channel);
    return 0;
}

#ifdef SHOAL_DEBUG
static int receive_elsewhere(void *arg, union shoal_value *out)
{
    (void)out;
    int value;
    return shoal_core_channel_try_receive(arg, &value);
}

static int use_channel_elsewhere(void *arg)
{
    (void)arg;
    return run_on(1, receive_elsewhere, make_channel(sizeof(int), 1, 0, NULL));
}

static int send_elsewhere(void *arg, union shoal_value *out)
{
    (void)out;
    int value = 1;
    return shoal_core_channel_try_send(arg, &value);
}

static int use_sender_elsewhere(void *arg)
{
    (void)arg;
    return run_on(1, send_elsewhere, make_sender(make_channel(sizeof(int), 1, 0, NULL)));
}
#endif

static void core_channel_misuse_aborts_and_says_why(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, free_with_receiver, "core channel (receive)");
    shoal_test_fiber_aborts_with(1, free_with_sender, "core channel (send)");
    shoal_test_fiber_aborts_with(1, free_with_untaken, "a value of it that was not taken");
#ifdef SHOAL_DEBUG
    shoal_test_fiber_aborts_with(2, use_channel_elsewhere, "core channel (receive)");
    shoal_test_fiber_aborts_with(2, use_sender_elsewhere, "core channel (send)");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_channel_closed_by_home_is_drained_then_closed),
        cmocka_unit_test(core_channel_freed_by_home_drops_all_that_is_left_there),
        cmocka_unit_test(core_channel_closed_by_sender_ends_who_waits_and_keeps_what_was_sent),
        cmocka_unit_test(core_channel_closes_with_the_last_of_its_senders),
        cmocka_unit_test(core_channel_ends_that_come_and_go_leave_nothing),
        cmocka_unit_test(core_channel_left_open_is_freed_with_the_program),
        cmocka_unit_test(core_channel_futures_left_open_do_not_leak),
        cmocka_unit_test(core_channel_options_out_of_range_are_refused),
        cmocka_unit_test(core_channel_misuse_aborts_and_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
