/*
 * The server's life with its clients: pipelines, bodies, time-outs, memory, cancel and stop.
 */
/* backends: both */
#include "unit/http_check.h"

#define KEPT(method, path)   method " " path " HTTP/1.1\r\nHost: x\r\n\r\n"
#define CLOSED(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#define POST(path, fields)   "POST " path " HTTP/1.1\r\nHost: x\r\n" fields "\r\n"
#define OK(len, more)                                                                              \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " len "\r\n" more "\r\n"

/* ---- Handlers ---- */

static int hello(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return shoal_http_reply_text(request, 200, "hello");
}

/* The whole body, asked for twice. */
static int whole(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_str body, again;
    int rc = shoal_http_body_read_all(request, 1000, &body);
    if (rc < 0)
        return rc;
    rc = shoal_http_body_read_all(request, 1000, &again);
    SHOAL_EXPECT(rc == 0 && again.ptr == body.ptr && shoal_str_equal(again, body));
    return shoal_http_reply(request, 200, "text/plain", body.ptr, body.len);
}

static int sleep_result;

static int sleeper(struct shoal_http_request *request, void *arg)
{
    sleep_result = shoal_sleep_ns((uint64_t)(uintptr_t)arg * SHOAL_NS_PER_MS);
    return sleep_result < 0 ? sleep_result : hello(request, NULL);
}

#define LARGE (UINT64_C(8) << 20)
static int large_result;

static int large(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    static char piece[50000];
    int rc = shoal_http_begin(request, 200, NULL, LARGE);
    for (uint64_t at = 0; at < LARGE && rc == 0; at += sizeof(piece)) {
        uint64_t n = LARGE - at < sizeof(piece) ? LARGE - at : sizeof(piece);
        net_fill(piece, n, at);
        rc = shoal_http_write(request, piece, n);
        const struct shoal_stream *stream = &request->connection->stream;
        SHOAL_EXPECT(stream->out.bytes + stream->sending.bytes <= 2 * SHOAL_STREAM_OUT_HIGH);
    }
    return large_result = rc;
}

static struct shoal_future *future_sum(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    int rc = shoal_http_reply(request, 200, "text/plain", "sum", 3);
    return rc == 0 ? shoal_future_ready(NULL) : shoal_future_failed(rc, NULL);
}

static struct shoal_http_server *start_with(const struct shoal_http_options *options)
{
    struct shoal_http_server *server = shoal_http_server_new(options);
    SHOAL_EXPECT(server != NULL);
    SHOAL_EXPECT_INT(shoal_http_route(server, "GET", "/", hello, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "GET", "/p/:name", hello, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "GET", "/large", large, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "GET", "/sleep", sleeper, (void *)5), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "GET", "/sleep/long", sleeper, (void *)600000), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "POST", "/ignored", hello, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "POST", "/whole", whole, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "POST", "/stream", stream_back, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route_future(server, "GET", "/sum", future_sum, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_start(server), 0);
    return server;
}

static struct shoal_http_server *start(void)
{
    struct shoal_http_options options;
    shoal_http_options_init(&options);
    options.port = 0;
    return start_with(&options);
}

static void stop(struct shoal_http_server *server)
{
    shoal_http_server_free(server);
    net_expect_clean_everywhere();
}

/* ---- Pipelines and bodies ---- */

static int check_pipeline(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    HTTP_EXPECT(server,
                KEPT("GET", "/") KEPT("HEAD", "/") KEPT("GET", "/sleep") CLOSED("GET", "/sum")
                    KEPT("GET", "/"),
                OK("5", "") "hello" OK("5", "")
                    OK("5", "") "hello" OK("3", "Connection: close\r\n") "sum");
    HTTP_EXPECT(server, POST("/ignored", "Content-Length: 7\r\n") "ignored" CLOSED("GET", "/"),
                OK("5", "") "hello" OK("5", "Connection: close\r\n") "hello");
    HTTP_EXPECT(server, POST("/whole", "Content-Length: 5\r\n") "abcde" CLOSED("GET", "/"),
                OK("5", "") "abcde" OK("5", "Connection: close\r\n") "hello");
    HTTP_EXPECT(
        server,
        POST("/whole",
             "Transfer-Encoding: chunked\r\n") "1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n" CLOSED("GET", "/"),
        OK("4", "") "abcd" OK("5", "Connection: close\r\n") "hello");
    HTTP_EXPECT(server,
                POST("/stream",
                     "Transfer-Encoding: chunked\r\n") "3\r\nabc\r\n0\r\n\r\n" CLOSED("GET", "/"),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Echo: yes\r\n\r\n"
                "3\r\nabc\r\n0\r\n\r\n" OK("5", "Connection: close\r\n") "hello");
    /* The client waits for 100: it comes with the first read, and not where nobody reads. */
    HTTP_EXPECT(server,
                POST("/whole", "Expect: 100-continue\r\nContent-Length: 0\r\n") CLOSED("GET", "/"),
                OK("0", "") OK("5", "Connection: close\r\n") "hello");
    struct shoal_stream *client = http_connect(server);
    static char text[HTTP_TEXT_MAX];
    int rc;
    static const char expect[] =
        POST("/whole", "Expect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n");
    SHOAL_EXPECT_INT(shoal_stream_write(client, expect, sizeof(expect) - 1), 0);
    SHOAL_EXPECT_INT(net_read_rest(client, text, 25, &rc), 25);
    SHOAL_EXPECT(memcmp(text, "HTTP/1.1 100 Continue\r\n\r\n", 25) == 0);
    SHOAL_EXPECT_INT(shoal_stream_write(client, "abc", 3), 0);
    SHOAL_EXPECT_INT(http_rest(client, text), SHOAL_EEOF);
    http_expect_text(text, OK("3", "Connection: close\r\n") "abc", __FILE__, __LINE__);
    shoal_stream_close(client);
    HTTP_EXPECT(server, POST("/ignored", "Expect: 100-continue\r\nContent-Length: 3\r\n"),
                OK("5", "") "hello");
    stop(server);
    return 0;
}

static void server_pipelined_requests_and_bodies_are_answered_in_order(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_pipeline, NULL), 0);
}

/* ---- Slow readers ---- */

static int check_large(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    struct shoal_stream *client = http_connect(server);
    static const char ask[] = CLOSED("GET", "/large");
    large_result = 1;
    SHOAL_EXPECT_INT(shoal_stream_write(client, ask, sizeof(ask) - 1), 0);
    shoal_stream_flush(client);
    net_pause_ms(50);
    SHOAL_EXPECT_INT(large_result, 1); /* waits for us */
    char *text = malloc(LARGE + 1000);
    int rc;
    size_t len = net_read_rest(client, text, LARGE + 1000, &rc);
    SHOAL_EXPECT_INT(rc, SHOAL_EEOF);
    SHOAL_EXPECT(len > LARGE && net_is(text + len - LARGE, LARGE, 0));
    SHOAL_EXPECT_INT(large_result, 0);
    free(text);
    shoal_stream_close(client);
    /* A client that goes in the middle ends the handler. */
    client = http_connect(server);
    large_result = 1;
    SHOAL_EXPECT_INT(shoal_stream_write(client, ask, sizeof(ask) - 1), 0);
    shoal_stream_flush(client);
    net_pause_ms(10);
    shoal_stream_close(client);
    for (int i = 0; i < 3000 && large_result == 1; i++)
        net_pause_ms(1);
    SHOAL_EXPECT(large_result == -EPIPE || large_result == -ECONNRESET);
    stop(server);
    return 0;
}

static void server_handler_waits_for_a_slow_reader_and_fails_when_it_goes(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_large, NULL), 0);
}

/* ---- Time ---- */

static int check_timeouts(void *arg)
{
    (void)arg;
    struct shoal_http_options options;
    shoal_http_options_init(&options);
    options.port = 0;
    options.header_timeout_ns = options.body_timeout_ns = 30 * SHOAL_NS_PER_MS;
    options.idle_timeout_ns = options.write_timeout_ns = 30 * SHOAL_NS_PER_MS;
    struct shoal_http_server *server = start_with(&options);
#define LATE                                                                                       \
    "HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n"           \
    "Connection: close\r\n\r\n408 Request Timeout\n"
    HTTP_EXPECT(server, "", "");
    HTTP_EXPECT(server, "GET / HT", LATE);
    HTTP_EXPECT(server, KEPT("GET", "/"), OK("5", "") "hello");
    HTTP_EXPECT(server, POST("/whole", "Content-Length: 5\r\n") "ab", LATE);
    HTTP_EXPECT(server, KEPT("GET", "/") "GET", OK("5", "") "hello" LATE);
    /* Nobody takes the answer. */
    struct shoal_stream *client = http_connect(server);
    large_result = 1;
    static const char ask[] = KEPT("GET", "/large");
    SHOAL_EXPECT_INT(shoal_stream_write(client, ask, sizeof(ask) - 1), 0);
    shoal_stream_flush(client);
    for (int i = 0; i < 3000 && large_result == 1; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(large_result, -ETIMEDOUT);
    shoal_stream_close(client);
    stop(server);
    return 0;
}

static void server_time_outs_answer_or_close_in_every_phase(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_timeouts, NULL), 0);
}

/* ---- Memory ---- */

static const char *const asked[] = {
    CLOSED("GET", "/"),
    CLOSED("GET", "/p/a%20b"),
    CLOSED("PUT", "/"),
    POST("/whole", "Connection: close\r\nContent-Length: 5\r\n") "abcde",
    POST("/whole", "Connection: close\r\nTransfer-Encoding: chunked\r\n") "3\r\nabc\r\n2\r\nde\r\n"
                                                                          "0\r\n\r\n",
    POST("/stream", "Connection: close\r\nTransfer-Encoding: chunked\r\n") "5\r\nabcde\r\n0\r\n"
                                                                           "\r\n",
    KEPT("GET", "/") KEPT("GET", "/sleep") CLOSED("GET", "/sum"),
};

/* In two parts, so that a head has to be gathered, with `room` bytes left for the server's core. */
static void ask_in_want(const struct shoal_http_server *server, const char *request, uint64_t room)
{
    static char text[HTTP_TEXT_MAX];
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    uint64_t limit = stats->limit_bytes;
    struct shoal_stream *client = http_connect(server);
    if (!SHOAL_EXPECT(client != NULL))
        return;
    SHOAL_EXPECT_INT(shoal_stream_write(client, request, 10), 0);
    shoal_stream_flush(client);
    SHOAL_EXPECT_INT(shoal_stream_write(client, request + 10, strlen(request) - 10), 0);
    stats->limit_bytes = stats->used_bytes + room;
    net_pause_ms(1);
    shoal_stream_flush(client);
    int rc = http_rest(client, text); /* an end comes, whatever happens */
    stats->limit_bytes = limit;
    shoal_stream_close(client);
    SHOAL_EXPECT(rc == SHOAL_EEOF || rc == -ECONNRESET || rc == -EPIPE);
    SHOAL_EXPECT(text[0] == '\0' || strncmp(text, "HTTP/1.1 ", 9) == 0);
    /* A chunked answer that looks whole is whole. */
    const char *body = strstr(text, "\r\n\r\n");
    if (strstr(text, "chunked") != NULL && body != NULL && strstr(body, "0\r\n\r\n") != NULL)
        SHOAL_EXPECT(strstr(body, "abcde") != NULL);
}

static int check_memory(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    uint64_t used = 0, before = 1;
    /* Until all slabs have grown as far as they will: a leak never comes to rest. */
    for (int walk = 0; walk < 12 && used != before; walk++) {
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(asked); i++)
            for (uint64_t room = 0; room < 6000; room += 313 + (SHOAL_TEST_SLOWDOWN > 1 ? 900 : 0))
                ask_in_want(server, asked[i], room);
        HTTP_EXPECT(server, CLOSED("GET", "/"), OK("5", "Connection: close\r\n") "hello");
        net_expect_clean();
        before = used;
        used = shoal_core_self->mem.stats.used_bytes;
    }
    SHOAL_EXPECT_INT(used, before);
    stop(server);
    return 0;
}

static void server_out_of_memory_answers_or_closes_and_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(1, (const char *const[]){"--log-level", "error", NULL},
                                         check_memory, NULL),
                     0);
}

/* A fresh server's first request, with ever more memory. */
static int check_cold(void *arg)
{
    (void)arg;
    for (uint64_t room = 0; room < 300000; room += 10007) {
        struct shoal_http_server *server = start();
        struct shoal_stream *client = http_connect(server);
        struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
        uint64_t limit = stats->limit_bytes;
        static const char ask[] = CLOSED("GET", "/p/%41");
        static char text[HTTP_TEXT_MAX];
        SHOAL_EXPECT_INT(shoal_stream_write(client, ask, sizeof(ask) - 1), 0);
        stats->limit_bytes = stats->used_bytes + room;
        shoal_stream_flush(client);
        int rc = http_rest(client, text);
        stats->limit_bytes = limit;
        SHOAL_EXPECT(rc == SHOAL_EEOF || rc == -ECONNRESET);
        shoal_stream_close(client);
        stop(server);
    }
    return 0;
}

static void server_cold_start_out_of_memory_closes_cleanly(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(1, (const char *const[]){"--log-level", "error", NULL},
                                         check_cold, NULL),
                     0);
}

/* ---- Stop ---- */

static int check_stop(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    static char text[HTTP_TEXT_MAX];
    struct shoal_stream *idle = http_connect(server);
    struct shoal_stream *busy = http_connect(server);
    struct shoal_stream *stuck = http_connect(server);
    SHOAL_EXPECT_INT(shoal_stream_write(idle, KEPT("GET", "/"), strlen(KEPT("GET", "/"))), 0);
    SHOAL_EXPECT_INT(shoal_stream_write(busy, KEPT("GET", "/sleep"), strlen(KEPT("GET", "/sleep"))),
                     0);
    SHOAL_EXPECT_INT(
        shoal_stream_write(stuck, KEPT("GET", "/sleep/long"), strlen(KEPT("GET", "/sleep/long"))),
        0);
    shoal_stream_flush(idle);
    shoal_stream_flush(stuck);
    net_pause_ms(3);
    shoal_stream_flush(busy);
    net_pause_ms(1);
    sleep_result = 1;
    shoal_http_stop(server, 100 * SHOAL_NS_PER_MS);
    SHOAL_EXPECT_INT(sleep_result, -ECANCELED); /* the one that would have slept on */
    SHOAL_EXPECT_INT(http_rest(idle, text), SHOAL_EEOF);
    http_expect_text(text, OK("5", "") "hello", __FILE__, __LINE__);
    SHOAL_EXPECT_INT(http_rest(busy, text), SHOAL_EEOF);
    http_expect_text(text, OK("5", "Connection: close\r\n") "hello", __FILE__, __LINE__);
    (void)http_rest(stuck, text);
    SHOAL_EXPECT(strstr(text, "200") == NULL);
    shoal_stream_close(idle);
    shoal_stream_close(busy);
    shoal_stream_close(stuck);
    shoal_http_stop(server, 0); /* once more is fine */
    stop(server);
    /* With nobody but an idle client a stop does not wait. */
    server = start();
    idle = http_connect(server);
    SHOAL_EXPECT_INT(shoal_stream_write(idle, KEPT("GET", "/"), strlen(KEPT("GET", "/"))), 0);
    int rc;
    SHOAL_EXPECT_INT(net_read_rest(idle, text, 60, &rc), 60);
    shoal_http_stop(server, 3600 * SHOAL_NS_PER_S);
    SHOAL_EXPECT_INT(http_rest(idle, text), SHOAL_EEOF);
    shoal_stream_close(idle);
    stop(server);
    shoal_http_server_free(NULL);
    return 0;
}

static void server_stop_answers_closes_the_idle_and_cancels_the_stuck(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stop, NULL), 0);
}

/* The program's stop finds one server that is gone, one that runs, and one that was stopped. */
static int check_freed_before_stop(void *arg)
{
    (void)arg;
    struct shoal_http_server *gone = start();
    struct shoal_http_server *running = start();
    struct shoal_http_server *stopped = start();
    HTTP_EXPECT(running, CLOSED("GET", "/"), OK("5", "Connection: close\r\n") "hello");
    shoal_http_stop(stopped, 0);
    stop(gone);
    return 0;
}

static void server_freed_or_stopped_before_the_program_stops_is_fine(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(2, check_freed_before_stop, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_pipelined_requests_and_bodies_are_answered_in_order),
        cmocka_unit_test(server_handler_waits_for_a_slow_reader_and_fails_when_it_goes),
        cmocka_unit_test(server_time_outs_answer_or_close_in_every_phase),
        cmocka_unit_test(server_out_of_memory_answers_or_closes_and_leaks_nothing),
        cmocka_unit_test(server_cold_start_out_of_memory_closes_cleanly),
        cmocka_unit_test(server_stop_answers_closes_the_idle_and_cancels_the_stuck),
        cmocka_unit_test(server_freed_or_stopped_before_the_program_stops_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
