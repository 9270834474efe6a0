/*
 * Connections that go from one listener to another, as the balancer has it. Whatever fails, nobody
 * is lost, and all is counted where it is served.
 */
/* backends: both */
#include "shoal/smp/app.h"

#include "unit/handover_check.h"

static const char *const balanced[] = {"--accept-balance", "balanced", NULL};

/* ---- From listener to listener ---- */

/* Has this core's listener hand all that it accepts to the other core, and look at nothing. */
static int cross_here(void *arg, union shoal_value *out)
{
    (void)out;
    const struct shoal_listening *listening = arg;
    struct shoal_balancer *balancer = listening->listeners[shoal_core_id()]->balancer;
    balancer->next_look_ns = UINT64_MAX;
    balancer->looked_open = UINT32_MAX - CORES;
    balancer->share = 1024;
    balancer->by_busy.core[0] = (uint16_t)(1 - shoal_core_id());
    balancer->by_busy.count = 1;
    balancer->by_busy.next = 0;
    return 0;
}

static void cross(struct shoal_listening *listening)
{
    for (unsigned core = 0; core < CORES; core++)
        SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, cross_here, listening), NULL), 0);
}

static struct shoal_listening *listen_crossed(const struct shoal_address *address,
                                              shoal_connection_fn *serve)
{
    struct shoal_listening *listening = NULL;
    memset((void *)served, 0, sizeof(served));
    SHOAL_EXPECT_INT(shoal_listen(&listening, address, serve, NULL), 0);
    cross(listening);
    return listening;
}

static int client(const struct shoal_address *at)
{
    int fd = socket(at->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SHOAL_EXPECT_INT(connect(fd, (const struct sockaddr *)&at->storage, at->len), 0);
    return fd;
}

static int check_cross(void *arg)
{
    (void)arg;
    char text[64];
    const struct shoal_address addresses[2] = {net_address("127.0.0.1", 0),
                                               net_unix_address(text, sizeof(text))};
    unsigned all = 0;
    for (int round = 0; round < 2; round++) {
        struct shoal_listening *listening = listen_crossed(&addresses[round], echo);
        int fds[40];
        for (int i = 0; i < 40; i++)
            fds[i] = client(shoal_listening_address(listening));
        for (int i = 0; i < 40; i++)
            SHOAL_EXPECT_INT(expect_echo(fds[i], "ping"), 0);
        all += 40;
        struct shoal_handover_stats sum = stats_sum();
        SHOAL_EXPECT_INT(sum.handed, all);
        SHOAL_EXPECT_INT(sum.taken, all);
        SHOAL_EXPECT_INT(sum.kept + sum.refused, 0);
        SHOAL_EXPECT_INT(sum.open, 40);
        SHOAL_EXPECT_INT(stats_of(0).open, served[0]);
        SHOAL_EXPECT_INT(stats_of(1).open, served[1]);
        for (int i = 0; i < 40; i++)
            close(fds[i]);
        expect_open(0);
        shoal_listening_stop(listening);
    }
    net_expect_clean_everywhere();
    return 0;
}

static void listener_hands_over_before_the_stream_and_counts_on_the_other_side(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_cross, NULL), 0);
}

static int check_kernel(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening;
    SHOAL_EXPECT_INT(shoal_listen(&listening, &any, greet, NULL), 0);
    SHOAL_EXPECT(listening->loads == NULL && listening->listeners[0]->balancer == NULL);
    shoal_listening_stop(listening);
    return 0;
}

static void listener_without_the_option_balances_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_kernel, NULL), 0);
}

/* ---- The target has no memory ---- */

static int check_target_without_memory(void *arg)
{
    (void)arg;
    static struct shoal_fault_plan all = {.nth = 1, .count = UINT64_MAX};
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_crossed(&any, echo);
    int fds[30];
    /* Core 0 has all that it needs before, and core 1 nothing after. */
    for (int i = 0; i < 30; i++)
        fds[i] = client(shoal_listening_address(listening));
    for (int i = 0; i < 30; i++) {
        SHOAL_EXPECT_INT(expect_echo(fds[i], "warm"), 0);
        close(fds[i]);
    }
    expect_open(0);
    uint64_t kept = stats_of(0).kept;
    unsigned before = served[0];
    fault_arm(2, &all);
    /* The kernel deals to both; what it gives to core 1 itself goes to core 0, if the message finds
     * memory, or is refused for good, as without any balancing. */
    unsigned answered = 0;
    for (int i = 0; i < 30; i++)
        fds[i] = client(shoal_listening_address(listening));
    for (int i = 0; i < 30; i++) {
        char got[4];
        if (send(fds[i], "ping", 4, MSG_NOSIGNAL) != 4)
            continue;
        ssize_t n = -1;
        for (int j = 0; j < 3000 && n < 0; j++) {
            n = recv(fds[i], got, 4, MSG_DONTWAIT);
            if (n < 0 && errno == ECONNRESET)
                n = 0;
            if (n < 0)
                net_pause_ms(1);
        }
        answered += n == 4;
    }
    (void)fault_disarm(2);
    SHOAL_EXPECT(stats_of(0).kept > kept);
    SHOAL_EXPECT_INT(served[0] - before, answered);
    SHOAL_EXPECT(stats_of(0).kept - kept <= answered); /* all that core 0 had accepted */
    for (int i = 0; i < 30; i++)
        close(fds[i]);
    expect_open(0);
    shoal_listening_stop(listening);
    net_expect_clean_everywhere();
    return 0;
}

static void listener_whose_target_has_no_memory_serves_itself(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_target_without_memory, NULL), 0);
}

/* ---- The target is at its limit ---- */

#define LIMIT   3
#define CLIENTS 20

static struct {
    struct shoal_listener *by[CLIENTS * 2];
    int fds[CLIENTS * 2];
    unsigned count; /* accepted on this core, ever */
    unsigned open;
    unsigned open_max;
} holds[CORES] __attribute__((aligned(64)));

static int hold(struct shoal_listener *listener, int fd, void *arg)
{
    (void)arg;
    unsigned core = (unsigned)shoal_core_id();
    unsigned n = holds[core].count++;
    holds[core].by[n] = listener;
    holds[core].fds[n] = fd;
    if (++holds[core].open > holds[core].open_max)
        holds[core].open_max = holds[core].open;
    shoal_load_count(&shoal_net_self()->load, shoal_coarse_now_ns(), false);
    return 0;
}

/* Closes the oldest of this core; `out`: how many there have been, and how many are open. */
static int let_go_here(void *arg, union shoal_value *out)
{
    unsigned core = (unsigned)shoal_core_id();
    if (arg != NULL && holds[core].open > 0) {
        unsigned oldest = holds[core].count - holds[core].open--;
        close(holds[core].fds[oldest]);
        shoal_load_count(&shoal_net_self()->load, shoal_coarse_now_ns(), true);
        shoal_listener_closed(holds[core].by[oldest]);
    }
    out->slice.size = holds[core].count;
    out->slice.tag = holds[core].open;
    return 0;
}

static unsigned let_go(unsigned core, bool close_one, unsigned *open)
{
    union shoal_value value = {.slice = {NULL, 0, 0}};
    SHOAL_EXPECT_INT(
        shoal_await(shoal_submit_to(core, let_go_here, close_one ? holds : NULL), &value), 0);
    *open += (unsigned)value.slice.tag;
    return (unsigned)value.slice.size;
}

static int check_limit(void *arg)
{
    (void)arg;
    struct shoal_listening *listening = NULL;
    struct shoal_address any = net_address("127.0.0.1", 0);
    memset(holds, 0, sizeof(holds));
    SHOAL_EXPECT_INT(shoal_listen_raw(&listening, &any, LIMIT, hold, NULL), 0);
    cross(listening);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client(shoal_listening_address(listening));
    unsigned accepted = 0, idle = 0;
    for (int i = 0; i < 3000 && accepted < CLIENTS && idle < 200; i++) {
        unsigned open = 0, now = 0;
        bool close_one = i % 4 == 3;
        for (unsigned core = 0; core < CORES; core++)
            now += let_go(core, close_one, &open);
        SHOAL_EXPECT(open <= CORES * LIMIT);
        idle = now == accepted ? idle + 1 : 0;
        accepted = now;
        net_pause_ms(1);
    }
    SHOAL_EXPECT_INT(accepted, CLIENTS); /* nobody was closed for coming in too large a batch */
    SHOAL_EXPECT(holds[0].open_max <= LIMIT && holds[1].open_max <= LIMIT);
    struct shoal_handover_stats sum = stats_sum();
    SHOAL_EXPECT_INT(sum.handed, sum.taken);
    SHOAL_EXPECT_INT(sum.kept, sum.refused);
    SHOAL_EXPECT_INT(sum.handed + sum.kept, CLIENTS);
    for (unsigned core = 0; core < CORES; core++)
        for (unsigned i = 0; i < LIMIT; i++)
            (void)let_go(core, true, &idle);
    shoal_listening_stop(listening);
    SHOAL_EXPECT_INT(stats_sum().open, 0);
    for (int i = 0; i < CLIENTS; i++)
        expect_end(fds[i]);
    return 0;
}

static void listener_at_its_limit_refuses_and_nobody_is_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(shoal_test_run_with(CORES, balanced, check_limit, NULL), 0);
}

/* The last place is kept for what the target itself accepts at this moment. */
static int offer_last_place(void *arg, union shoal_value *out)
{
    struct shoal_listening *listening = arg;
    struct shoal_listener *listener = listening->listeners[0];
    listener->open = LIMIT - 1;
    out->u64 = shoal_io_busy(&listener->accept);
    return 0;
}

static int check_last_place(void *arg)
{
    (void)arg;
    struct shoal_listening *listening = NULL;
    struct shoal_address any = net_address("127.0.0.1", 0);
    union shoal_value value;
    memset(holds, 0, sizeof(holds));
    SHOAL_EXPECT_INT(shoal_listen_raw(&listening, &any, LIMIT, hold, NULL), 0);
    cross(listening);
    SHOAL_EXPECT_INT(offer_last_place(listening, &value), 0);
    SHOAL_EXPECT_INT(value.u64, 1);
    int fds[CLIENTS];
    unsigned count = 0;
    while (count < CLIENTS && stats_of(1).kept == 0) {
        fds[count++] = client(shoal_listening_address(listening));
        net_pause_ms(2);
    }
    SHOAL_EXPECT(stats_of(1).kept > 0);
    SHOAL_EXPECT_INT(stats_of(0).refused, stats_of(1).kept);
    listening->listeners[0]->open -= LIMIT - 1;
    for (unsigned core = 0, open = 0; core < CORES; core++)
        for (unsigned i = 0; i < LIMIT; i++)
            (void)let_go(core, true, &open);
    shoal_listening_stop(listening); /* it accepts what still waits */
    for (unsigned core = 0; core < CORES; core++)
        for (unsigned i = holds[core].count - holds[core].open; i < holds[core].count; i++)
            close(holds[core].fds[i]);
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
    return 0;
}

static void listener_keeps_its_last_place_for_its_own_accept(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_last_place, NULL), 0);
}

/* ---- Numbers that are old ---- */

static int check_below(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_crossed(&any, echo);
    /* Each believes that the other has fewer, and both are wrong: they have none. */
    for (unsigned core = 0; core < CORES; core++) {
        struct shoal_balancer *balancer = listening->listeners[core]->balancer;
        balancer->share = 0;
        balancer->by_open = (struct shoal_balance_plan){.count = 8};
        for (int i = 0; i < 8; i++)
            balancer->by_open.core[i] = (uint16_t)(1 - core);
    }
    int fd = client(shoal_listening_address(listening));
    SHOAL_EXPECT_INT(expect_echo(fd, "here"), 0);
    struct shoal_handover_stats sum = stats_sum();
    SHOAL_EXPECT_INT(sum.handed, 0);
    SHOAL_EXPECT_INT(sum.kept, 1);
    SHOAL_EXPECT_INT(sum.refused, 1);
    close(fd);
    expect_open(0);
    shoal_listening_stop(listening);
    net_expect_clean_everywhere();
    return 0;
}

static void listener_with_old_numbers_is_refused_and_serves_itself(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_below, NULL), 0);
}

/* ---- Stop ---- */

#define QUEUED 40

static int check_stop(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_crossed(&any, greet);
    int fds[QUEUED];
    struct shoal_handover_stats before = stats_sum();
    for (int i = 0; i < QUEUED; i++)
        fds[i] = client(shoal_listening_address(listening));
    /* Core 1 has handed over what it accepted, and this core has not looked since. */
    shoal_listening_stop(listening);
    struct shoal_handover_stats after = stats_sum();
    SHOAL_EXPECT(after.handed + after.kept > before.handed + before.kept);
    for (int i = 0; i < 3000 && served[0] + served[1] < QUEUED; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(served[0] + served[1], QUEUED);
    net_expect_clean_everywhere();
    for (int i = 0; i < QUEUED; i++) {
        char text[8];
        SHOAL_EXPECT_INT(recv(fds[i], text, sizeof(text), MSG_WAITALL), 5);
        close(fds[i]);
    }
    SHOAL_EXPECT_INT(stats_sum().open, 0);
    return 0;
}

static void listener_stopped_with_connections_on_their_way_serves_all(void **state)
{
    (void)state;
    for (int i = 0; i < 20 / SHOAL_TEST_SLOWDOWN + 1; i++)
        assert_int_equal(shoal_test_run_with(CORES, balanced, check_stop, NULL), 0);
}

/* The stop begins while the other core, to which connections are on their way, does not look. */

static atomic_bool held;

static int hold_core(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    while (atomic_load(&held))
        usleep(100);
    return 0;
}

static int release_soon(void *arg)
{
    (void)arg;
    net_pause_ms(20);
    atomic_store(&held, false);
    return 0;
}

static int check_stop_waits(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_crossed(&any, greet);
    int fds[QUEUED];
    atomic_store(&held, true);
    struct shoal_future *holding = shoal_submit_to(1, hold_core, NULL);
    for (int i = 0; i < QUEUED; i++)
        fds[i] = client(shoal_listening_address(listening));
    for (int i = 0; i < 3000 && listening->listeners[0]->handing == 0; i++)
        net_pause_ms(1);
    SHOAL_EXPECT(listening->listeners[0]->handing > 0);
    struct shoal_fiber *fiber = net_spawn(release_soon, NULL);
    shoal_listening_stop(listening);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(shoal_await(holding, NULL), 0);
    for (int i = 0; i < 3000 && served[0] + served[1] < QUEUED; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(served[0] + served[1], QUEUED);
    net_expect_clean_everywhere();
    for (int i = 0; i < QUEUED; i++)
        close(fds[i]);
    expect_open(0);
    return 0;
}

static void listener_stopped_waits_for_the_answers_of_a_busy_core(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_stop_waits, NULL), 0);
}

/* The whole program ends while connections change cores. */
static int check_program_stop(void *arg)
{
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_crossed(&any, greet);
    for (int i = 0; i < QUEUED; i++)
        ((int *)arg)[i] = client(shoal_listening_address(listening));
    shoal_listening_stop(listening);
    return 0;
}

static void program_stopped_with_connections_on_their_way_serves_all(void **state)
{
    (void)state;
    for (int round = 0; round < 20 / SHOAL_TEST_SLOWDOWN + 1; round++) {
        int fds[QUEUED];
        assert_int_equal(shoal_test_run_with(CORES, balanced, check_program_stop, fds), 0);
        for (int i = 0; i < QUEUED; i++) {
            char text[8];
            assert_int_equal(recv(fds[i], text, sizeof(text), MSG_WAITALL), 5);
            close(fds[i]);
        }
    }
}

/* ---- Whatever allocation fails ---- */

static struct shoal_listening *crossed;

static int begin_crossed(void)
{
    const struct shoal_address any = net_address("127.0.0.1", 0);
    int rc = shoal_listen(&crossed, &any, echo, NULL);
    if (rc == 0)
        cross(crossed);
    return rc;
}

static void end_crossed(void)
{
    shoal_listening_stop(crossed);
    crossed = NULL;
    expect_open(0); /* nobody was counted who was not served */
}

/* Both ways: by the listener, and from the stream of a client of this core. */
static int crossed_scene(void)
{
    struct shoal_stream *stream;
    struct shoal_slice *slice;
    int fds[2];
    int rc = shoal_stream_connect(&stream, shoal_listening_address(crossed), SHOAL_NS_FOREVER);
    if (rc < 0)
        return rc;
    rc = shoal_stream_write(stream, "ping", 4);
    if (rc == 0)
        rc = shoal_stream_read(stream, &slice);
    if (rc == 0)
        shoal_slice_free(slice);
    shoal_stream_close(stream);
    if (rc < 0)
        return rc == SHOAL_EEOF || rc == -ECONNRESET || rc == -EPIPE ? -ENOMEM : rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -errno;
    rc = shoal_handover_fd(fds[0], 1, greet, NULL);
    if (rc < 0)
        close(fds[0]);
    close(fds[1]);
    return rc;
}

static const struct fault_walk crossed_walk = {
    .name = "crossed", .scene = crossed_scene, .begin = begin_crossed, .end = end_crossed};

static void handover_without_memory_nobody_is_lost_and_nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(FAULT_CORES, balanced, fault_walk_warm,
                                         (void *)(uintptr_t)&crossed_walk),
                     0);
    assert_int_equal(
        shoal_test_run_with(FAULT_CORES, balanced, fault_soak, (void *)(uintptr_t)&crossed_walk),
        0);
}

/* A listening that cannot be had leaves nothing behind. */
static int check_start_without_memory(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = NULL;
    struct fault_state before, after;
    SHOAL_EXPECT_INT(shoal_listen(&listening, &any, greet, NULL), 0);
    shoal_listening_stop(listening);
    fault_settle(&before, NULL);
    for (unsigned cores = 1; cores <= 3; cores++)
        for (uint64_t n = 1; n < 40; n++) {
            struct shoal_fault_plan plan = {.nth = n};
            fault_arm(cores, &plan);
            int rc = shoal_listen(&listening, &any, greet, NULL);
            (void)fault_disarm(cores);
            SHOAL_EXPECT(rc == 0 || rc == -ENOMEM);
            if (rc == 0)
                shoal_listening_stop(listening);
        }
    fault_settle(&after, &before);
    SHOAL_EXPECT(fault_same(&after, &before));
    fault_say_difference(&before, &after);
    return 0;
}

static void listen_balanced_without_memory_fails_clean(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(CORES, balanced, check_start_without_memory, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listener_hands_over_before_the_stream_and_counts_on_the_other_side),
        cmocka_unit_test(listener_without_the_option_balances_nothing),
        cmocka_unit_test(listener_whose_target_has_no_memory_serves_itself),
        cmocka_unit_test(listener_at_its_limit_refuses_and_nobody_is_lost),
        cmocka_unit_test(listener_keeps_its_last_place_for_its_own_accept),
        cmocka_unit_test(listener_with_old_numbers_is_refused_and_serves_itself),
        cmocka_unit_test(listener_stopped_with_connections_on_their_way_serves_all),
        cmocka_unit_test(listener_stopped_waits_for_the_answers_of_a_busy_core),
        cmocka_unit_test(program_stopped_with_connections_on_their_way_serves_all),
        cmocka_unit_test(handover_without_memory_nobody_is_lost_and_nothing_leaks),
        cmocka_unit_test(listen_balanced_without_memory_fails_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
