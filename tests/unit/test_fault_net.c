/*
 * Without memory, between clients and servers: streams, requests of all kinds, a server's start and
 * stop. See fault_check.h for what a walk is.
 */
/* backends: both */
#include "shoal/runtime/file.h"

#include "shoal/smp/app.h"

#include "shoal/net/listen.h"

#include "unit/fault_check.h"
#include "unit/http_check.h"

/* ---- Streams ---- */

#define ECHO_BYTES 20000u

static struct shoal_listening *echoes;

static void echo(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    struct shoal_slice *slice;
    while (shoal_stream_read(stream, &slice) == 0)
        if (shoal_stream_write_slice(stream, slice) < 0)
            return;
}

static int have_net(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    return shoal_net_self() != NULL ? 0 : -ENOMEM;
}

/* What each core makes with its first connection, and keeps. */
static int warm_net(void)
{
    int rc = 0;
    for (unsigned i = 0; i < FAULT_CORES && rc == 0; i++)
        rc = shoal_await(shoal_submit_to(i, have_net, NULL), NULL);
    return rc;
}

static int begin_echo(void)
{
    int rc = warm_net();
    if (rc < 0)
        return rc;
    const struct shoal_address address = net_address("127.0.0.1", 0);
    return shoal_listen(&echoes, &address, echo, NULL);
}

static void end_echo(void)
{
    shoal_listening_stop(echoes);
    echoes = NULL;
}

/* The peer has no memory: it says so by going away. */
static int as_no_memory(int rc)
{
    return rc == SHOAL_EEOF || rc == -ECONNRESET || rc == -EPIPE || rc == -ENOTCONN ? -ENOMEM : rc;
}

/* A copied piece, a slice of its own, and a copy again, each also after a failure of the others. */
static int write_all(struct shoal_stream *stream, const char *bytes)
{
    int first = shoal_stream_write(stream, bytes, ECHO_BYTES / 2);
    struct shoal_slice *slice = shoal_slice_new(ECHO_BYTES / 4, "test");
    if (slice == NULL)
        return -ENOMEM;
    slice->len = ECHO_BYTES / 4;
    memcpy(slice->data, bytes + ECHO_BYTES / 2, slice->len);
    int second = shoal_stream_write_slice(stream, slice);
    int third = shoal_stream_write(stream, bytes + ECHO_BYTES / 4 * 3, ECHO_BYTES / 4);
    if (first < 0) /* nothing may follow a hole */
        SHOAL_EXPECT(second < 0 && third < 0);
    if (second < 0)
        SHOAL_EXPECT(third < 0);
    return third < 0 ? third : shoal_stream_shutdown(stream);
}

static int stream_scene(void)
{
    static char sent[ECHO_BYTES], got[ECHO_BYTES];
    struct shoal_stream *stream;
    int rc = shoal_stream_connect(&stream, shoal_listening_address(echoes), SHOAL_NS_FOREVER);
    if (rc < 0)
        return rc;
    net_fill(sent, sizeof(sent), 0);
    rc = write_all(stream, sent);
    if (rc == 0) {
        size_t len = net_read_rest(stream, got, sizeof(got), &rc);
        SHOAL_EXPECT(net_is(got, len, 0));
    }
    shoal_stream_close(stream);
    return as_no_memory(rc);
}

/* ---- Handlers ---- */

static int hello(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return shoal_http_reply_text(request, 200, "hello");
}

static int greet(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_str name = shoal_http_param(request, "name");
    return shoal_http_reply(request, 200, "text/plain", name.ptr, name.len);
}

static int whole(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_str body;
    int rc = shoal_http_body_read_all(request, 1000, &body);
    return rc < 0 ? rc : shoal_http_reply(request, 200, "text/plain", body.ptr, body.len);
}

static int add_one(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    out->i64 = in->i64 + 1;
    return 0;
}

static int respond(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)out;
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)in->i64);
    return shoal_http_reply_text(arg, 200, text);
}

static struct shoal_future *sum(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    const union shoal_value four = {.i64 = 4};
    struct shoal_future *five = shoal_then(shoal_future_ready(&four), add_one, NULL);
    return shoal_then(five, respond, request);
}

static int tell_core(void *arg, union shoal_value *out)
{
    (void)arg;
    out->i64 = shoal_core_id();
    return 0;
}

static int tell_both(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_future *answers[FAULT_CORES];
    char text[FAULT_CORES + 1] = "";
    int rc = 0;
    for (unsigned i = 0; i < FAULT_CORES; i++)
        answers[i] = shoal_submit_to(i, tell_core, NULL);
    for (unsigned i = 0; i < FAULT_CORES; i++) {
        union shoal_value value = {.i64 = 0};
        int answered = shoal_await(answers[i], &value);
        rc = rc == 0 ? answered : rc;
        text[i] = (char)('0' + value.i64);
    }
    return rc < 0 ? rc : shoal_http_reply_text(request, 200, text);
}

/* As long as two pieces of the file, which come as slices that the stream takes over. */
static int send_file(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    enum { PIECE = 3000 };
    const struct shoal_file_how how = {.flags = O_RDONLY};
    struct shoal_file file;
    int rc = shoal_file_open(&file, AT_FDCWD, "/proc/self/exe", &how);
    if (rc < 0)
        return rc;
    rc = shoal_http_begin(request, 200, NULL, 2 * (uint64_t)PIECE);
    for (uint64_t at = 0; at < 2 * PIECE && rc >= 0; at += PIECE) {
        struct shoal_slice *slice = shoal_slice_new(PIECE, "file");
        rc = slice != NULL ? shoal_file_read(&file, slice->data, PIECE, at) : -ENOMEM;
        if (rc < 0) {
            shoal_slice_free(slice);
            break;
        }
        slice->len = (uint32_t)rc;
        memset(slice->data, 'f', slice->len); /* what a client can compare */
        rc = shoal_http_write_slice(request, slice);
    }
    shoal_file_close(&file);
    return rc < 0 ? rc : 0;
}

/* ---- Requests ---- */

static struct shoal_http_server *server;

static int new_server(struct shoal_http_server **out)
{
    struct shoal_http_options options;
    shoal_http_options_init(&options);
    options.port = 0;
    struct shoal_http_server *made = shoal_http_server_new(&options);
    (void)shoal_http_route(made, "GET", "/", hello, NULL); /* the start fails if one of these did */
    (void)shoal_http_route(made, "GET", "/p/:name", greet, NULL);
    (void)shoal_http_route(made, "POST", "/whole", whole, NULL);
    (void)shoal_http_route(made, "POST", "/stream", stream_back, NULL);
    (void)shoal_http_route(made, "GET", "/cores", tell_both, NULL);
    (void)shoal_http_route(made, "GET", "/file", send_file, NULL);
    (void)shoal_http_route_future(made, "GET", "/sum", sum, NULL);
    int rc = made != NULL ? shoal_http_start(made) : -ENOMEM;
    if (rc < 0) {
        shoal_http_server_free(made);
        return rc;
    }
    *out = made;
    return 0;
}

static int begin_server(void)
{
    return new_server(&server);
}

static void end_server(void)
{
    shoal_http_server_free(server);
    server = NULL;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#define POST(path, fields)                                                                         \
    "POST " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" fields "\r\n"
#define HEAD_OK    "HTTP/1.1 200 OK\r\n"
#define OK(len)    HEAD_OK "Content-Type: text/plain\r\nContent-Length: " len "\r\n" CLOSE "\r\n"
#define CLOSE      "Connection: close\r\n"
#define KEPT       "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
#define KEPT_HELLO HEAD_OK "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

static const struct {
    const char *ask;
    const char *answer;
} requests[] = {
    {GET("/"), OK("5") "hello"},
    {GET("/p/a%20b"), OK("3") "a b"},
    {POST("/whole", "Content-Length: 5\r\n") "abcde", OK("5") "abcde"},
    {POST("/whole", "Transfer-Encoding: chunked\r\n") "1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n",
     OK("4") "abcd"},
    {POST("/stream", "Transfer-Encoding: chunked\r\n") "3\r\nabc\r\n0\r\n\r\n",
     HEAD_OK "Transfer-Encoding: chunked\r\n" CLOSE "X-Echo: yes\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
    {GET("/sum"), OK("1") "5"},
    {GET("/cores"), OK("2") "01"},
    {GET("/none"),
     "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n" CLOSE
     "\r\n404 Not Found\n"},
    {KEPT KEPT GET("/"), KEPT_HELLO KEPT_HELLO OK("5") "hello"},
};

/*
 * The whole answer (0), or what a server says and does without memory (-ENOMEM): a 503 in place of
 * an answer, or an end before its own.
 */
static int compare(const char *answer, const char *wanted)
{
    if (strcmp(answer, wanted) == 0)
        return 0;
    size_t same = 0;
    while (answer[same] != '\0' && answer[same] == wanted[same])
        same++;
    if (answer[same] == '\0')
        return -ENOMEM;
    /* The status is where they part. */
    while (same > 0 && strncmp(answer + same, "HTTP/1.1 ", 9) != 0)
        same--;
    if (strncmp(answer + same, "HTTP/1.1 503 ", 13) == 0)
        return -ENOMEM;
    fprintf(stderr, "got:\n%s\nwanted:\n%s\n", answer, wanted);
    SHOAL_EXPECT_NEVER("an answer is right, or it is none");
    return -EPROTO;
}

static int ask(const struct shoal_http_server *whom, const char *text, const char *wanted)
{
    static char answer[HTTP_TEXT_MAX];
    struct shoal_stream *stream;
    int rc =
        shoal_stream_connect(&stream, shoal_listening_address(whom->listening), SHOAL_NS_FOREVER);
    if (rc < 0)
        return as_no_memory(rc);
    rc = shoal_stream_write(stream, text, strlen(text));
    if (rc == 0) {
        rc = http_rest(stream, answer);
        int code = compare(answer, wanted);
        SHOAL_EXPECT(as_no_memory(rc) == -ENOMEM);
        rc = code;
    }
    shoal_stream_close(stream);
    return as_no_memory(rc);
}

static int requests_scene(void)
{
    int rc = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(requests); i++) {
        int code = ask(server, requests[i].ask, requests[i].answer);
        rc = rc == 0 ? code : rc;
    }
    return rc;
}

static int file_scene(void)
{
    static char wanted[6200];
    int n = snprintf(wanted, sizeof(wanted), HEAD_OK "Content-Length: 6000\r\n" CLOSE "\r\n");
    memset(wanted + n, 'f', 6000);
    wanted[n + 6000] = '\0';
    return ask(server, GET("/file"), wanted);
}

/* ---- A server's life ---- */

static int server_scene(void)
{
    struct shoal_http_server *made;
    int rc = new_server(&made);
    if (rc < 0)
        return rc;
    rc = ask(made, requests[0].ask, requests[0].answer);
    shoal_http_server_free(made);
    return rc;
}

/* The program's stop is left to stop it, with a request under way. */
static int left_scene(void)
{
    struct shoal_http_server *made;
    int rc = new_server(&made);
    if (rc < 0)
        return rc;
    rc = ask(made, requests[0].ask, requests[0].answer);
    struct shoal_stream *client = http_connect(made);
    if (client == NULL)
        return -ENOMEM;
    (void)shoal_stream_write(client, KEPT, sizeof(KEPT) - 1);
    shoal_stream_flush(client);
    (void)shoal_yield();
    shoal_stream_close(client);
    return rc;
}

/* ---- The walks ---- */

static void walk_warm(const struct fault_walk *walk)
{
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)walk), 0);
}

static const struct fault_walk streams = {
    .name = "streams", .scene = stream_scene, .begin = begin_echo, .end = end_echo, .patience = 6};

static void streams_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    walk_warm(&streams);
    fault_walk_cold(&streams);
}

static void requests_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "requests",
                                    .scene = requests_scene,
                                    .begin = begin_server,
                                    .end = end_server,
                                    .patience = 3};
    const struct fault_walk file = {.name = "file",
                                    .scene = file_scene,
                                    .begin = begin_server,
                                    .end = end_server,
                                    .patience = 3};
    walk_warm(&walk);
    walk_warm(&file);
    fault_walk_cold(&walk);
}

static void requests_with_little_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {
        .name = "requests", .scene = requests_scene, .begin = begin_server, .end = end_server};
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_soak, (void *)(uintptr_t)&walk), 0);
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_soak, (void *)(uintptr_t)&streams), 0);
}

static void server_start_without_memory_fails_and_leaks_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "server", .scene = server_scene, .patience = 2};
    walk_warm(&walk);
}

static void stop_without_memory_ends_and_leaks_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "left server", .scene = left_scene};
    fault_walk_cold(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(requests_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(requests_with_little_memory_fail_and_leak_nothing),
        cmocka_unit_test(server_start_without_memory_fails_and_leaks_nothing),
        cmocka_unit_test(stop_without_memory_ends_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
