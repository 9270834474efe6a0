/*
 * Connections that a program hands over: shoal_handover_stream() and shoal_handover_fd(). Whatever
 * fails, they stay whose they were, and the call says why.
 */
/* backends: both */
#include "unit/handover_check.h"

/* ---- Streams ---- */

static int check_stream(void *arg)
{
    (void)arg;
    memset((void *)served, 0, sizeof(served));
    for (unsigned to = 0; to < CORES; to++) {
        struct shoal_stream *stream;
        struct shoal_slice *slice;
        int peer;
        net_half(&stream, &peer);
        SHOAL_EXPECT_INT(send(peer, "first", 5, 0), 5);
        SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
        shoal_slice_free(slice);
        SHOAL_EXPECT_INT(shoal_stream_write(stream, "seen", 4), 0);
        SHOAL_EXPECT_INT(shoal_stream_drain(stream), 0);
        SHOAL_EXPECT_INT(shoal_handover_stream(stream, to, echo, NULL), 0);
        /* What is left here says so, and has nothing to do with the connection. */
        SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), SHOAL_ECLOSED);
        SHOAL_EXPECT_INT(shoal_stream_write(stream, "x", 1), SHOAL_ECLOSED);
        SHOAL_EXPECT_INT(shoal_stream_drain(stream), SHOAL_ECLOSED);
        SHOAL_EXPECT_INT(shoal_handover_stream(stream, to, echo, NULL), SHOAL_ECLOSED);
        SHOAL_EXPECT(strstr(shoal_error_message(), "handed over already") != NULL);
        shoal_stream_close(stream);
        char seen[4];
        SHOAL_EXPECT_INT(recv(peer, seen, 4, MSG_WAITALL), 4);
        SHOAL_EXPECT_INT(expect_echo(peer, "after"), 0);
        SHOAL_EXPECT_INT(served[to], 1);
        SHOAL_EXPECT_INT(stats_of(to).open, 1);
        SHOAL_EXPECT_INT(shutdown(peer, SHUT_WR), 0);
        expect_end(peer);
        expect_open(0);
    }
    struct shoal_handover_stats mine = stats_of(0), other = stats_of(1);
    SHOAL_EXPECT_INT(mine.handed, 2);
    SHOAL_EXPECT_INT(mine.taken, 1);
    SHOAL_EXPECT_INT(other.taken, 1);
    SHOAL_EXPECT_INT(mine.kept + mine.refused + other.kept + other.refused, 0);
    net_expect_clean_everywhere();
    return 0;
}

static void stream_handed_over_goes_on_where_it_was(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_stream, NULL), 0);
}

static int read_for_ever(void *stream)
{
    struct shoal_slice *slice;
    return shoal_stream_read(stream, &slice);
}

static int check_refusals(void *arg)
{
    (void)arg;
    struct shoal_stream *stream;
    struct shoal_slice *slice;
    int peer;
    net_half(&stream, &peer);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, CORES, echo, NULL), SHOAL_ENOCORE);
    SHOAL_EXPECT(strstr(shoal_error_message(), "core 2 does not exist (allowed: 0 to 1)") != NULL);

    struct shoal_fiber *fiber = net_spawn(read_for_ever, stream);
    net_pause_ms(2);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, 1, echo, NULL), -EBUSY);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);

    SHOAL_EXPECT_INT(send(peer, "abc", 3, 0), 3);
    for (int i = 0; i < 3000 && stream->in.bytes == 0; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, 1, echo, NULL), -ENOTEMPTY);
    SHOAL_EXPECT(strstr(shoal_error_message(), "3 bytes have been received") != NULL);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
    shoal_slice_free(slice);

    SHOAL_EXPECT_INT(shoal_stream_write(stream, "wxyz", 4), 0);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, 1, echo, NULL), -ENOTEMPTY);
    SHOAL_EXPECT(strstr(shoal_error_message(), "4 bytes have been written") != NULL);
    SHOAL_EXPECT_INT(shoal_stream_drain(stream), 0);

    char got[4];
    SHOAL_EXPECT_INT(recv(peer, got, 4, MSG_DONTWAIT), 4); /* unread, they would reset it */
    close(peer);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), SHOAL_EEOF);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, 1, echo, NULL), SHOAL_EEOF);
    SHOAL_EXPECT(strstr(shoal_error_message(), "has ended") != NULL);
    shoal_stream_close(stream);
    net_expect_clean_everywhere();
    return 0;
}

static void stream_that_is_not_at_a_safe_point_stays_and_says_why(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_refusals, NULL), 0);
}

/* ---- In the middle of it ---- */

static int hand_over(void *stream)
{
    return shoal_handover_stream(stream, 1, echo, NULL);
}

/* Bytes that the kernel had taken already come while the receiving ends. */
static int check_late(void *arg)
{
    (void)arg;
    struct shoal_stream *stream;
    struct shoal_slice *slice;
    int peer;
    net_half(&stream, &peer);
    struct shoal_fiber *fiber = net_spawn(hand_over, stream);
    (void)shoal_yield();
    SHOAL_EXPECT(stream->detaching);
    slice = shoal_slice_new(4, "test");
    memcpy(slice->data, "late", 4);
    slice->len = 4;
    shoal_chain_push(&stream->in, slice);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ENOTEMPTY);
    SHOAL_EXPECT(!stream->detaching && stream->reader == NULL);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
    SHOAL_EXPECT(slice->len == 4 && memcmp(slice->data, "late", 4) == 0);
    shoal_slice_free(slice);
    SHOAL_EXPECT_INT(send(peer, "more", 4, 0), 4); /* it goes on receiving */
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
    shoal_slice_free(slice);
    /* What waits in the socket is found there by whoever serves it then, or it is received here. */
    SHOAL_EXPECT_INT(send(peer, "last", 4, 0), 4);
    int rc = shoal_handover_stream(stream, 1, echo, NULL);
    SHOAL_EXPECT(rc == -ENOTEMPTY || rc == 0);
    if (rc < 0) {
        SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
        SHOAL_EXPECT_INT(shoal_stream_write_slice(stream, slice), 0);
        SHOAL_EXPECT_INT(shoal_stream_drain(stream), 0);
    }
    char got[4] = "";
    for (int i = 0; i < 3000 && recv(peer, got, 4, MSG_DONTWAIT) < 0; i++)
        net_pause_ms(1);
    SHOAL_EXPECT(memcmp(got, "last", 4) == 0);
    shoal_stream_close(stream);
    close(peer);
    expect_open(0);
    net_expect_clean_everywhere();
    return 0;
}

static void stream_that_receives_while_it_is_handed_over_stays_whole(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_late, NULL), 0);
}

static int check_cancelled(void *arg)
{
    (void)arg;
    struct shoal_stream *stream;
    int peer;
    net_half(&stream, &peer);
    struct shoal_fiber *fiber = net_spawn(hand_over, stream);
    shoal_fiber_cancel(fiber); /* before it has begun */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    fiber = net_spawn(hand_over, stream);
    (void)shoal_yield(); /* it has begun: it ends as if nothing had been */
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    shoal_stream_close(stream);
    SHOAL_EXPECT_INT(expect_echo(peer, "hello"), 0);
    close(peer);
    expect_open(0);
    net_expect_clean_everywhere();
    return 0;
}

static void handover_cancelled_either_has_not_begun_or_is_done(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_cancelled, NULL), 0);
}

/* A stream that a listener serves: its fiber hands it over and returns. */
static void hand_on(struct shoal_stream *stream, void *arg)
{
    unsigned to = 1 - (unsigned)shoal_core_id();
    int rc = shoal_handover_stream(stream, to, echo, arg);
    if (rc == -ENOTEMPTY) /* the client was faster */
        echo(stream, arg);
    else
        SHOAL_EXPECT_INT(rc, 0);
}

static int check_listened(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening;
    int fds[20];
    SHOAL_EXPECT_INT(shoal_listen(&listening, &any, hand_on, NULL), 0);
    const struct shoal_address *at = shoal_listening_address(listening);
    memset((void *)served, 0, sizeof(served));
    for (int i = 0; i < 20; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        SHOAL_EXPECT_INT(connect(fds[i], (const struct sockaddr *)&at->storage, at->len), 0);
    }
    for (int i = 0; i < 20; i++)
        SHOAL_EXPECT_INT(expect_echo(fds[i], "text"), 0);
    expect_open(20);
    SHOAL_EXPECT_INT(served[0] + served[1], 20);
    struct shoal_handover_stats sum = stats_sum();
    SHOAL_EXPECT(sum.handed > 0);
    SHOAL_EXPECT_INT(sum.handed, sum.taken);
    for (int i = 0; i < 20; i++)
        close(fds[i]);
    expect_open(0);
    shoal_listening_stop(listening);
    net_expect_clean_everywhere();
    return 0;
}

static void stream_of_a_listener_is_counted_where_it_went(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_listened, NULL), 0);
}

/* ---- Descriptors ---- */

static int check_fd(void *arg)
{
    (void)arg;
    int fds[2], pipes[2];
    SHOAL_EXPECT_INT(shoal_handover_fd(-1, 1, echo, NULL), -EBADF);
    SHOAL_EXPECT_INT(pipe2(pipes, O_CLOEXEC), 0);
    SHOAL_EXPECT_INT(shoal_handover_fd(pipes[0], 1, echo, NULL), -ENOTSOCK);
    close(pipes[0]);
    close(pipes[1]);
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
    SHOAL_EXPECT_INT(shoal_handover_fd(fds[0], 1, echo, NULL), -EPROTOTYPE);
    close(fds[0]);
    close(fds[1]);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SHOAL_EXPECT_INT(shoal_handover_fd(fd, 1, echo, NULL), -ENOTCONN);
    SHOAL_EXPECT_INT(listen(fd, 1), 0);
    SHOAL_EXPECT_INT(shoal_handover_fd(fd, 1, echo, NULL), -EINVAL);
    SHOAL_EXPECT(strstr(shoal_error_message(), "listens") != NULL);
    close(fd);
    for (unsigned to = 0; to < CORES; to++) /* however it blocked before */
        for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
            SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, fds), 0);
            SHOAL_EXPECT_INT(shoal_handover_fd(fds[0], CORES, echo, NULL), SHOAL_ENOCORE);
            SHOAL_EXPECT_INT((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0, flags != 0);
            SHOAL_EXPECT_INT(send(fds[1], "early ", 6, 0), 6); /* it waits in the socket */
            SHOAL_EXPECT_INT(shoal_handover_fd(fds[0], to, echo, NULL), 0);
            bool blocks = (shoal_core_self->io.ops->accept_flags & SOCK_NONBLOCK) == 0;
            SHOAL_EXPECT_INT((fcntl(fds[0], F_GETFL) & O_NONBLOCK) == 0, blocks);
            net_pause_ms(5);
            char early[6];
            SHOAL_EXPECT_INT(recv(fds[1], early, 6, flags != 0 ? 0 : MSG_WAITALL), 6);
            SHOAL_EXPECT_INT(expect_echo(fds[1], "late"), 0);
            close(fds[1]);
            expect_open(0);
        }
    net_expect_clean_everywhere();
    return 0;
}

static void descriptor_handed_over_is_served_and_others_are_refused(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_fd, NULL), 0);
}

/* ---- No memory on the other core ---- */

static int check_no_memory(void *arg)
{
    (void)arg;
    static struct shoal_fault_plan all = {.nth = 1, .count = UINT64_MAX};
    struct shoal_stream *stream;
    struct shoal_slice *slice;
    int peer, fds[2];
    (void)shoal_await(shoal_submit_to(1, stats_here, &(struct shoal_handover_stats){0}), NULL);
    net_half(&stream, &peer);
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    int flags = fcntl(fds[0], F_GETFL);
    fault_arm(2, &all);
    int stream_rc = shoal_handover_stream(stream, 1, echo, NULL);
    int fd_rc = shoal_handover_fd(fds[0], 1, echo, NULL);
    SHOAL_EXPECT(strstr(shoal_error_message(), "core 1 cannot take") != NULL);
    (void)fault_disarm(2);
    SHOAL_EXPECT_INT(stream_rc, -ENOMEM);
    SHOAL_EXPECT_INT(fd_rc, -ENOMEM);
    SHOAL_EXPECT_INT(fcntl(fds[0], F_GETFL), flags);
    SHOAL_EXPECT_INT(stats_of(0).kept, 2);
    SHOAL_EXPECT_INT(send(peer, "still here", 10, 0), 10);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), 0);
    shoal_slice_free(slice);
    SHOAL_EXPECT_INT(shoal_handover_stream(stream, 1, echo, NULL), 0);
    SHOAL_EXPECT_INT(shoal_handover_fd(fds[0], 1, echo, NULL), 0);
    SHOAL_EXPECT_INT(expect_echo(peer, "there"), 0);
    SHOAL_EXPECT_INT(expect_echo(fds[1], "too"), 0);
    shoal_stream_close(stream);
    close(peer);
    close(fds[1]);
    expect_open(0);
    net_expect_clean_everywhere();
    return 0;
}

static void handover_to_a_core_without_memory_fails_and_can_be_repeated(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(CORES, check_no_memory, NULL), 0);
}

/* ---- Misuse ---- */

#ifdef SHOAL_DEBUG
static struct shoal_stream *stray;

static int hand_over_there(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_handover_stream(stray, 0, echo, NULL);
}

static int check_wrong_core(void *arg)
{
    (void)arg;
    int peer;
    net_half(&stray, &peer);
    return shoal_await(shoal_submit_fiber_to(1, hand_over_there, NULL), NULL);
}

static void handover_of_another_cores_stream_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(CORES, check_wrong_core, "of core 0 on core 1");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_handed_over_goes_on_where_it_was),
        cmocka_unit_test(stream_that_is_not_at_a_safe_point_stays_and_says_why),
        cmocka_unit_test(stream_that_receives_while_it_is_handed_over_stays_whole),
        cmocka_unit_test(handover_cancelled_either_has_not_begun_or_is_done),
        cmocka_unit_test(stream_of_a_listener_is_counted_where_it_went),
        cmocka_unit_test(descriptor_handed_over_is_served_and_others_are_refused),
        cmocka_unit_test(handover_to_a_core_without_memory_fails_and_can_be_repeated),
#ifdef SHOAL_DEBUG
        cmocka_unit_test(handover_of_another_cores_stream_aborts),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
