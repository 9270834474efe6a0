/*
 * Listening on every core, and connecting: each promise of listen.h and of shoal_stream_connect().
 */
/* backends: both */
#include <sys/resource.h>
#include <sys/stat.h>

#include "shoal/net/listen_impl.h"

#include "unit/net_check.h"

static _Atomic unsigned served[8]; /* by core */

/* Sends back all that comes. */
static void echo(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    struct shoal_slice *slice;
    served[shoal_core_id()]++;
    while (shoal_stream_read(stream, &slice) == 0)
        if (shoal_stream_write_slice(stream, slice) < 0)
            return;
    (void)shoal_stream_shutdown(stream);
}

static void greet(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    served[shoal_core_id()]++;
    (void)shoal_stream_write(stream, "hello", 5);
}

static struct shoal_listening *listen_at(const struct shoal_address *address,
                                         shoal_connection_fn *serve)
{
    struct shoal_listening *listening = NULL;
    memset((void *)served, 0, sizeof(served));
    SHOAL_EXPECT_INT(shoal_listen(&listening, address, serve, NULL), 0);
    return listening;
}

/* ---- Echo between cores ---- */

static int ask_echo(void *arg, union shoal_value *out)
{
    (void)out;
    const size_t size = 200000;
    char *sent = malloc(size);
    char *got = malloc(size);
    for (int round = 0; round < 20; round++) {
        struct shoal_stream *stream;
        int rc = shoal_stream_connect(&stream, arg, 10 * SHOAL_NS_PER_S);
        if (!SHOAL_EXPECT_INT(rc, 0))
            break;
        size_t len = (size_t)(round * round * 500);
        net_fill(sent, len, (uint64_t)round);
        for (size_t at = 0; at < len; at += 30000) /* less than the sockets hold */
            SHOAL_EXPECT_INT(
                shoal_stream_write(stream, sent + at, len - at < 30000 ? len - at : 30000), 0);
        SHOAL_EXPECT_INT(shoal_stream_shutdown(stream), 0);
        SHOAL_EXPECT_INT(net_read_rest(stream, got, size, &rc), len);
        SHOAL_EXPECT(memcmp(got, sent, len) == 0);
        shoal_stream_close(stream);
    }
    free(sent);
    free(got);
    return 0;
}

static int check_echo(void *arg)
{
    (void)arg;
    char text[64];
    struct shoal_address addresses[2] = {net_address("127.0.0.1", 0),
                                         net_unix_address(text, sizeof(text))};
    for (int i = 0; i < 2; i++) {
        struct shoal_listening *listening = listen_at(&addresses[i], echo);
        struct shoal_address at = *shoal_listening_address(listening);
        struct shoal_future *asked[4];
        for (unsigned j = 0; j < 4; j++)
            asked[j] = shoal_submit_fiber_to(j % 2, ask_echo, &at);
        for (unsigned j = 0; j < 4; j++)
            SHOAL_EXPECT_INT(shoal_await(asked[j], NULL), 0);
        SHOAL_EXPECT_INT(served[0] + served[1], 80);
        SHOAL_EXPECT(i == 1 || (served[0] > 0 && served[1] > 0));
        shoal_listening_stop(listening);
        net_expect_clean_everywhere();
    }
    return 0;
}

static void listen_echo_between_fibers_of_two_cores_over_tcp_and_unix(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_echo, NULL), 0);
}

/* ---- Addresses ---- */

static int check_addresses(void *arg)
{
    (void)arg;
    struct shoal_listening *first, *second = NULL;
    struct shoal_address any = net_address("127.0.0.1", 0);
    first = listen_at(&any, greet);
    struct shoal_address at = *shoal_listening_address(first);
    SHOAL_EXPECT(shoal_address_port(&at) != 0);
    SHOAL_EXPECT_INT(shoal_listen(&second, &at, greet, NULL), -EADDRINUSE);
    SHOAL_EXPECT(second == NULL);
    shoal_listening_stop(first);
    first = listen_at(&at, greet); /* free again at once */
    shoal_listening_stop(first);
    shoal_listening_stop(NULL);
    struct shoal_address elsewhere = net_address("203.0.113.7", 0);
    SHOAL_EXPECT_INT(shoal_listen(&second, &elsewhere, greet, NULL), -EADDRNOTAVAIL);
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    uint64_t limit = stats->limit_bytes;
    for (uint64_t room = 0; room < 1200; room += 50) {
        stats->limit_bytes = stats->used_bytes + room;
        int rc = shoal_listen(&second, &at, greet, NULL);
        stats->limit_bytes = limit;
        SHOAL_EXPECT(rc == 0 || rc == -ENOMEM);
        if (rc == 0)
            shoal_listening_stop(second);
    }
    return 0;
}

static void listen_port_in_use_is_refused_and_a_failed_start_leaves_it_free(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_addresses, NULL), 0);
}

static int check_unix(void *arg)
{
    (void)arg;
    char text[64];
    struct stat info;
    struct shoal_address at = net_unix_address(text, sizeof(text));
    const char *path = text + 5;
    struct shoal_listening *first = listen_at(&at, greet), *second = NULL;
    SHOAL_EXPECT_INT(shoal_listen(&second, &at, greet, NULL), -EADDRINUSE);
    SHOAL_EXPECT_INT(stat(path, &info), 0); /* the live one's */
    shoal_listening_stop(first);
    SHOAL_EXPECT_INT(stat(path, &info), -1);
    int stale = net_socket(AF_UNIX);
    SHOAL_EXPECT_INT(bind(stale, (const struct sockaddr *)&at.storage, at.len), 0);
    close(stale);
    first = listen_at(&at, greet); /* what is left over is replaced */
    shoal_listening_stop(first);
    int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    SHOAL_EXPECT_INT(shoal_listen(&second, &at, greet, NULL), -EADDRINUSE);
    SHOAL_EXPECT_INT(stat(path, &info), 0); /* not a socket: not touched */
    close(file);
    unlink(path);
    return 0;
}

static void listen_unix_socket_file_is_removed_only_if_it_is_ours_or_stale(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_unix, NULL), 0);
}

/* ---- Stop ---- */

#define QUEUED 40

static int check_stop_drains(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_at(&any, greet);
    struct shoal_address at = *shoal_listening_address(listening);
    int fds[QUEUED];
    for (int i = 0; i < QUEUED; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        SHOAL_EXPECT_INT(connect(fds[i], (const struct sockaddr *)&at.storage, at.len), 0);
    }
    shoal_listening_stop(listening); /* this core has not looked since */
    for (int i = 0; i < 3000 && served[0] + served[1] < QUEUED; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(served[0] + served[1], QUEUED);
    net_expect_clean_everywhere();
    for (int i = 0; i < QUEUED; i++) {
        char text[8];
        SHOAL_EXPECT_INT(recv(fds[i], text, sizeof(text), MSG_WAITALL), 5);
        close(fds[i]);
    }
    struct shoal_stream *stream;
    SHOAL_EXPECT_INT(shoal_stream_connect(&stream, &at, SHOAL_NS_FOREVER), -ECONNREFUSED);
    return 0;
}

static void listen_stop_serves_what_waits_in_the_accept_queues(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_stop_drains, NULL), 0);
}

/* ---- Limits ---- */

static int open_fds[64];
static unsigned open_count;
static struct shoal_listener *accepted_by;

static int keep_open(struct shoal_listener *listener, int fd, void *arg)
{
    (void)arg;
    accepted_by = listener;
    open_fds[open_count++] = fd;
    return 0;
}

static int check_limit(void *arg)
{
    (void)arg;
    struct shoal_listening *listening = NULL;
    struct shoal_address any = net_address("127.0.0.1", 0);
    open_count = 0;
    SHOAL_EXPECT_INT(shoal_listen_raw(&listening, &any, 3, keep_open, NULL), 0);
    struct shoal_stream *streams[10];
    for (int i = 0; i < 10; i++)
        SHOAL_EXPECT_INT(
            shoal_stream_connect(&streams[i], shoal_listening_address(listening), SHOAL_NS_FOREVER),
            0);
    for (unsigned closed = 0; closed <= 7; closed++) {
        for (int i = 0; i < 1000 && open_count < 3 + closed; i++)
            net_pause_ms(1);
        net_pause_ms(3);
        SHOAL_EXPECT_INT(open_count, 3 + closed); /* never more than three at once */
        close(open_fds[closed]);
        shoal_listener_closed(accepted_by);
    }
    shoal_listening_stop(listening);
    close(open_fds[8]);
    close(open_fds[9]);
    for (int i = 0; i < 10; i++)
        shoal_stream_close(streams[i]);
    net_expect_clean();
    return 0;
}

static void listen_limit_of_open_connections_holds_and_goes_on_as_they_close(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_limit, NULL), 0);
}

static int check_no_descriptors(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_stream *stream = NULL;
    struct rlimit before, few;
    SHOAL_EXPECT_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 200;
    SHOAL_EXPECT_INT(setrlimit(RLIMIT_NOFILE, &few),
                     0); /* io_uring asks when it begins to accept */
    struct shoal_listening *listening = listen_at(&any, greet);
    const struct shoal_address *at = shoal_listening_address(listening);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int taken[200];
    int count = 0;
    while ((taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    SHOAL_EXPECT_INT(connect(fd, (const struct sockaddr *)&at->storage, at->len), 0);
    net_pause_ms(20);
    SHOAL_EXPECT_INT(served[0], 0);
    SHOAL_EXPECT_INT(shoal_stream_connect(&stream, at, SHOAL_NS_FOREVER), -EMFILE);
    while (count > 0)
        close(taken[--count]);
    for (int i = 0; i < 3000 && served[0] < 1; i++)
        net_pause_ms(1);
    net_expect_clean(); /* it is sent: the next call blocks this core */
    char text[8];
    SHOAL_EXPECT_INT(recv(fd, text, sizeof(text), MSG_WAITALL), 5);
    close(fd);
    shoal_listening_stop(listening);
    SHOAL_EXPECT_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    return 0;
}

static void listen_without_descriptors_goes_on_once_there_are_some(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(1, (const char *const[]){"--log-level", "error", NULL},
                                         check_no_descriptors, NULL),
                     0);
}

/* ---- Connecting ---- */

static int connect_for_ever(void *arg)
{
    struct shoal_stream *stream;
    return shoal_stream_connect(&stream, arg, SHOAL_NS_FOREVER);
}

static int check_connect(void *arg)
{
    (void)arg;
    struct shoal_address at = net_address("127.0.0.1", 0);
    struct shoal_stream *stream;
    int fd = net_socket(AF_INET);
    SHOAL_EXPECT_INT(bind(fd, (const struct sockaddr *)&at.storage, at.len), 0);
    SHOAL_EXPECT_INT(getsockname(fd, (struct sockaddr *)&at.storage, &at.len), 0);
    SHOAL_EXPECT_INT(shoal_stream_connect(&stream, &at, SHOAL_NS_FOREVER), -ECONNREFUSED);
    SHOAL_EXPECT_INT(listen(fd, 0), 0); /* a queue of one, which nobody empties */
    int full[4];
    for (int i = 0; i < 4; i++) {
        full[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(full[i], (const struct sockaddr *)&at.storage, at.len);
    }
    SHOAL_EXPECT_INT(shoal_stream_connect(&stream, &at, 20 * SHOAL_NS_PER_MS), -ETIMEDOUT);
    struct shoal_fiber *fiber = net_spawn(connect_for_ever, &at);
    net_pause_ms(5);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    fiber = net_spawn(connect_for_ever, &at);
    shoal_fiber_cancel(fiber); /* before it has begun */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    for (int i = 0; i < 4; i++)
        close(full[i]);
    close(fd);
    struct shoal_address nobody = net_address("unix:/tmp/shoal-test-nobody.sock", 0);
    SHOAL_EXPECT_INT(shoal_stream_connect(&stream, &nobody, SHOAL_NS_FOREVER), -ENOENT);
    return 0;
}

static void connect_refused_timed_out_and_cancelled_say_so(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_connect, NULL), 0);
}

/* The peer resets: what is waited for fails, and what is written after. */
static void reset_it(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    struct shoal_slice *slice;
    if (shoal_stream_read(stream, &slice) == 0)
        shoal_slice_free(slice);
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(stream->fd.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static int check_reset(void *arg)
{
    (void)arg;
    struct shoal_address any = net_address("127.0.0.1", 0);
    struct shoal_listening *listening = listen_at(&any, reset_it);
    struct shoal_stream *stream;
    struct shoal_slice *slice;
    SHOAL_EXPECT_INT(
        shoal_stream_connect(&stream, shoal_listening_address(listening), SHOAL_NS_FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_stream_write(stream, "x", 1), 0);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), -ECONNRESET);
    SHOAL_EXPECT_INT(shoal_stream_read(stream, &slice), -ECONNRESET);
    SHOAL_EXPECT_INT(shoal_stream_write(stream, "x", 1), 0);
    SHOAL_EXPECT_INT(shoal_stream_drain(stream), -EPIPE);
    shoal_stream_close(stream);
    shoal_listening_stop(listening);
    net_expect_clean();
    return 0;
}

static void stream_reset_by_the_peer_fails_reads_and_writes(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_reset, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listen_echo_between_fibers_of_two_cores_over_tcp_and_unix),
        cmocka_unit_test(listen_port_in_use_is_refused_and_a_failed_start_leaves_it_free),
        cmocka_unit_test(listen_unix_socket_file_is_removed_only_if_it_is_ours_or_stale),
        cmocka_unit_test(listen_stop_serves_what_waits_in_the_accept_queues),
        cmocka_unit_test(listen_limit_of_open_connections_holds_and_goes_on_as_they_close),
        cmocka_unit_test(listen_without_descriptors_goes_on_once_there_are_some),
        cmocka_unit_test(connect_refused_timed_out_and_cancelled_say_so),
        cmocka_unit_test(stream_reset_by_the_peer_fails_reads_and_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
