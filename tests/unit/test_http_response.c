/*
 * Answers byte for byte: fields, framing, wrong use, and handlers that leave things undone.
 */
/* backends: both */
#include "unit/http_check.h"

#define CLOSE " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

/* ---- Handlers ---- */

static int hello(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return shoal_http_reply_text(request, 200, "hello");
}

static int bad_fields(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    static const char *const values[] = {"a\r\nb: c", "a\nb", "a\rb", "\x01", "a\x7f"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(values); i++) {
        SHOAL_EXPECT_INT(shoal_http_set_header(request, "X", values[i]), SHOAL_EHTTP_FIELD);
        SHOAL_EXPECT_INT(shoal_http_set_header(request, values[i], "x"), SHOAL_EHTTP_FIELD);
        SHOAL_EXPECT_INT(shoal_http_begin(request, 200, values[i], 0), SHOAL_EHTTP_FIELD);
        SHOAL_EXPECT_INT(shoal_http_reply(request, 200, values[i], "x", 1), SHOAL_EHTTP_FIELD);
    }
    static const char *const names[] = {
        "",           "a b",  "a:",     "content-length", "Transfer-Encoding",
        "CONNECTION", "Date", "Server", "Content-Type"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(names); i++)
        SHOAL_EXPECT_INT(shoal_http_set_header(request, names[i], "x"), SHOAL_EHTTP_FIELD);
    static const unsigned statuses[] = {0, 100, 101, 199, 1000, 4000000000u};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(statuses); i++)
        SHOAL_EXPECT_INT(shoal_http_begin(request, statuses[i], NULL, 0), -EINVAL);
    char type[300];
    memset(type, 'a', sizeof(type));
    type[257] = '\0';
    SHOAL_EXPECT_INT(shoal_http_begin(request, 200, type, 0), SHOAL_EHTTP_FIELD);
    SHOAL_EXPECT_INT(shoal_http_set_header(request, "X-Good", "a\tb \x80"), 0);
    static char large[4000];
    memset(large, 'v', sizeof(large) - 1);
    SHOAL_EXPECT_INT(shoal_http_set_header(request, "X-Large", large), -ENOBUFS);
    return shoal_http_reply(request, 299, NULL, "ok", 2);
}

static int full_fields(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    char value[81];
    memset(value, 'v', 80);
    value[80] = '\0';
    int count = 0;
    while (shoal_http_set_header(request, "Field-Name", value) == 0) /* 94 bytes each */
        count++;
    SHOAL_EXPECT_INT(count, 4000 / 94);
    return shoal_http_reply_text(request, 200, "full");
}

static int wrong_use(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_slice *slice = shoal_slice_new(8, "test");
    slice->len = 5;
    SHOAL_EXPECT_INT(shoal_http_write(request, "x", 1), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write(request, "", 0), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write_slice(request, slice), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write_slice(request, shoal_slice_new(8, "test")),
                     SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_end(request), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_begin(request, 200, "text/plain", 4), 0);
    SHOAL_EXPECT_INT(shoal_http_begin(request, 200, "text/plain", 4), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_set_header(request, "X", "late"), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_reply_text(request, 200, "twice"), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write(request, "12345", 5), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write(request, "", 0), 0);
    SHOAL_EXPECT_INT(shoal_http_write_slice(request, shoal_slice_new(8, "test")), 0);
    SHOAL_EXPECT_INT(shoal_http_write(request, "12", 2), 0);
    SHOAL_EXPECT_INT(shoal_http_end(request), SHOAL_EHTTP_STATE); /* two are missing */
    SHOAL_EXPECT_INT(shoal_http_write(request, "34", 2), 0);
    SHOAL_EXPECT_INT(shoal_http_end(request), 0);
    SHOAL_EXPECT_INT(shoal_http_end(request), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_write(request, "5", 1), SHOAL_EHTTP_STATE);
    SHOAL_EXPECT_INT(shoal_http_reply_text(request, 500, "twice"), SHOAL_EHTTP_STATE);
    return -EIO; /* too late to be told to anybody */
}

static int chunked(struct shoal_http_request *request, void *arg)
{
    struct shoal_slice *slice = shoal_slice_new(8, "test");
    memcpy(slice->data, "slice", 5);
    slice->len = 5;
    int rc = shoal_http_begin(request, (unsigned)(uintptr_t)arg, "text/plain", SHOAL_HTTP_CHUNKED);
    SHOAL_EXPECT_INT(rc, 0);
    SHOAL_EXPECT_INT(shoal_http_write(request, "0123456789abcdef!", 17), 0);
    SHOAL_EXPECT_INT(shoal_http_write(request, "", 0), 0);
    SHOAL_EXPECT_INT(shoal_http_write_slice(request, slice), 0);
    return shoal_yield(); /* the end is the server's to add */
}

static int counted(struct shoal_http_request *request, void *arg)
{
    return shoal_http_reply(request, (unsigned)(uintptr_t)arg, NULL, "body", 4);
}

static int empty(struct shoal_http_request *request, void *arg)
{
    return shoal_http_reply(request, (unsigned)(uintptr_t)arg, NULL, NULL, 0);
}

/* Begins a body of `arg` bytes, writes two, and fails. */
static int breaks_off(struct shoal_http_request *request, void *arg)
{
    uint64_t length = arg != NULL ? 10 : SHOAL_HTTP_CHUNKED;
    SHOAL_EXPECT_INT(shoal_http_begin(request, 200, NULL, length), 0);
    SHOAL_EXPECT_INT(shoal_http_write(request, "ab", 2), 0);
    (void)shoal_yield();
    return -EIO;
}

static int too_short(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    SHOAL_EXPECT_INT(shoal_http_begin(request, 200, NULL, 10), 0);
    return shoal_http_write(request, "ab", 2);
}

static int no_reply(struct shoal_http_request *request, void *arg)
{
    (void)request;
    return (int)(intptr_t)arg;
}

static struct shoal_future *fails_later(struct shoal_http_request *request, void *arg)
{
    if (arg != NULL)
        SHOAL_EXPECT_INT(shoal_http_begin(request, 200, NULL, SHOAL_HTTP_CHUNKED), 0);
    return shoal_future_failed(-ENOENT, "no such thing");
}

#define HOARD_MAX 4096

/* Runs out of output blocks in the middle of a body, or of its end, and does not care. */
static int careless(struct shoal_http_request *request, void *arg)
{
    static void *hoard[HOARD_MAX];
    static char text[8000];
    unsigned hoarded = 0;
    struct shoal_slab *blocks = &shoal_net_self()->blocks;
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    const struct shoal_stream *stream = &request->connection->stream;
    uint64_t limit = stats->limit_bytes;
    memset(text, 'x', sizeof(text));
    if (arg != (void *)2)
        SHOAL_EXPECT_INT(shoal_http_begin(request, 200, NULL, SHOAL_HTTP_CHUNKED), 0);
    stats->limit_bytes = stats->used_bytes;
    while (hoarded < HOARD_MAX && (hoard[hoarded] = shoal_slab_take(blocks)) != NULL)
        hoarded++;
    const struct shoal_slice *tail = stream->out.tail;
    size_t space = (size_t)(tail->block->data + tail->block->size - (tail->data + tail->len));
    if (arg == (void *)2) {
        SHOAL_EXPECT_INT(shoal_http_reply(request, 200, NULL, text, sizeof(text)), -ENOMEM);
    } else if (arg == NULL) {
        SHOAL_EXPECT_INT(shoal_http_write(request, text, sizeof(text)), -ENOMEM);
    } else { /* "fff\r\n", the bytes, "\r\n", and 2 of the 5 bytes of the end */
        SHOAL_EXPECT_INT(shoal_http_write(request, text, space - 9), 0);
        SHOAL_EXPECT_INT(shoal_http_end(request), -ENOMEM);
    }
    stats->limit_bytes = limit;
    while (hoarded > 0)
        shoal_slab_give(blocks, hoard[--hoarded]);
    return 0;
}

/* ---- A server of them ---- */

static struct shoal_http_server *start(void)
{
    struct shoal_http_server *server = http_server_new();
    static const struct {
        const char *path;
        shoal_http_handler *handler;
        intptr_t arg;
    } routes[] = {
        {"/hello", hello, 0},           {"/bad", bad_fields, 0},
        {"/full", full_fields, 0},      {"/wrong", wrong_use, 0},
        {"/chunked", chunked, 200},     {"/chunked204", chunked, 204},
        {"/chunked304", chunked, 304},  {"/c204", counted, 204},
        {"/c304", counted, 304},        {"/e204", empty, 204},
        {"/e304", empty, 304},          {"/e200", empty, 200},
        {"/break", breaks_off, 0},      {"/break10", breaks_off, 1},
        {"/short", too_short, 0},       {"/none", no_reply, 0},
        {"/enoent", no_reply, -ENOENT}, {"/eio", no_reply, -EIO},
        {"/enomem", no_reply, -ENOMEM}, {"/p/:name", hello, 0},
        {"/hole", careless, 0},         {"/noend", careless, 1},
        {"/half", careless, 2},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(routes); i++)
        SHOAL_EXPECT_INT(shoal_http_route(server, "GET", routes[i].path, routes[i].handler,
                                          (void *)routes[i].arg),
                         0);
    SHOAL_EXPECT_INT(shoal_http_route(server, "POST", "/hello", hello, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route_future(server, "GET", "/later", fails_later, NULL), 0);
    SHOAL_EXPECT_INT(shoal_http_route_future(server, "GET", "/begun", fails_later, (void *)1), 0);
    SHOAL_EXPECT_INT(shoal_http_start(server), 0);
    return server;
}

#define OK_HELLO                                                                                   \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"                         \
    "Connection: close\r\n\r\nhello"

static int check_fields(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    static char text[HTTP_TEXT_MAX];
    HTTP_EXPECT(server, "GET /bad" CLOSE,
                "HTTP/1.1 299 Unknown\r\nContent-Length: 2\r\nConnection: close\r\n"
                "X-Good: a\tb \x80\r\n\r\nok");
    SHOAL_EXPECT_INT(http_ask(server, "GET /full" CLOSE, text), SHOAL_EEOF);
    SHOAL_EXPECT(strstr(text, "v\r\n\r\nfull") != NULL);
    HTTP_EXPECT(server, "GET /wrong" CLOSE,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
                "Connection: close\r\n\r\n1234");
    HTTP_EXPECT(server, "PUT /hello" CLOSE,
                "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\n"
                "Content-Length: 23\r\nConnection: close\r\nAllow: POST, GET, HEAD\r\n\r\n"
                "405 Method Not Allowed\n");
    HTTP_EXPECT(server, "GET /p/%zz" CLOSE,
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                "Content-Length: 16\r\nConnection: close\r\n\r\n400 Bad Request\n");
    shoal_http_server_free(server);
    net_expect_clean_everywhere();
    return 0;
}

static void response_invalid_fields_and_wrong_use_are_refused_and_not_sent(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_fields, NULL), 0);
}

static int check_framing(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    HTTP_EXPECT(server, "GET /hello" CLOSE, OK_HELLO);
    HTTP_EXPECT(server, "GET /chunked" CLOSE,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n11\r\n0123456789abcdef!\r\n5\r\nslice\r\n0\r\n\r\n");
    HTTP_EXPECT(server, "HEAD /chunked" CLOSE,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /chunked HTTP/1.0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
                "0123456789abcdef!slice");
    HTTP_EXPECT(server, "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
                "0123456789abcdef!slice");
    HTTP_EXPECT(server, "HEAD /hello" CLOSE,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
                "Connection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /chunked204" CLOSE,
                "HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /chunked304" CLOSE,
                "HTTP/1.1 304 Not Modified\r\nContent-Type: text/plain\r\n"
                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /c204" CLOSE, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /e204" CLOSE, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /c304" CLOSE,
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /e304" CLOSE,
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server, "GET /e200" CLOSE,
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    HTTP_EXPECT(server,
                "GET /e200 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /e200 HTTP/1.0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    shoal_http_server_free(server);
    net_expect_clean_everywhere();
    return 0;
}

static void response_framing_fits_the_method_the_status_and_the_version(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_framing, NULL), 0);
}

static int check_undone(void *arg)
{
    (void)arg;
    struct shoal_http_server *server = start();
    static char text[HTTP_TEXT_MAX];
#define KEPT_END   " HTTP/1.1\r\nHost: x\r\n\r\n"
#define KEPT       "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
#define KEPT_HELLO "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    /* The answer before it is whole; its own is seen to be broken; nothing comes after. */
    HTTP_EXPECT(server, KEPT "GET /break HTTP/1.1\r\nHost: x\r\n\r\n" KEPT,
                KEPT_HELLO "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
    HTTP_EXPECT(server, KEPT "GET /break10 HTTP/1.1\r\nHost: x\r\n\r\n" KEPT,
                KEPT_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
    HTTP_EXPECT(server, KEPT "GET /short HTTP/1.1\r\nHost: x\r\n\r\n" KEPT,
                KEPT_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
    HTTP_EXPECT(server, KEPT "GET /begun HTTP/1.1\r\nHost: x\r\n\r\n" KEPT,
                KEPT_HELLO "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    /* Where only the end of the connection tells the body's, it may not look like an end. */
    SHOAL_EXPECT_INT(http_ask(server, "GET /break HTTP/1.0\r\n\r\n", text), -ECONNRESET);
    /* A hole is not patched over: the connection ends, without an end of the body. */
    static const char *const careless_asks[] = {KEPT "GET /hole" KEPT_END KEPT,
                                                KEPT "GET /noend" KEPT_END KEPT,
                                                KEPT "GET /half" KEPT_END KEPT};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(careless_asks); i++) {
        (void)http_ask(server, careless_asks[i], text);
        const char *first = strstr(text, "hello");
        SHOAL_EXPECT(strstr(text, "0\r\n\r\n") == NULL);
        SHOAL_EXPECT(first == NULL || strstr(first + 1, "hello") == NULL);
    }
#define FAILED(status, len)                                                                        \
    "HTTP/1.1 " status "\r\nContent-Type: text/plain\r\nContent-Length: " len                      \
    "\r\nConnection: close\r\n\r\n"
    HTTP_EXPECT(server, "GET /none" CLOSE,
                FAILED("500 Internal Server Error", "26") "500 Internal Server Error\n");
    HTTP_EXPECT(server, "GET /eio" CLOSE,
                FAILED("500 Internal Server Error", "26") "500 Internal Server Error\n");
    HTTP_EXPECT(server, "GET /enoent" CLOSE, FAILED("404 Not Found", "14") "404 Not Found\n");
    HTTP_EXPECT(server, "GET /enomem" CLOSE,
                FAILED("503 Service Unavailable", "24") "503 Service Unavailable\n");
    HTTP_EXPECT(server, "GET /later" CLOSE, FAILED("404 Not Found", "18") "404 no such thing\n");
    shoal_http_server_free(server);
    net_expect_clean_everywhere();
    return 0;
}

static void response_left_undone_is_completed_or_broken_off_visibly(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run_with(1, (const char *const[]){"--log-level", "error", NULL},
                                         check_undone, NULL),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(response_invalid_fields_and_wrong_use_are_refused_and_not_sent),
        cmocka_unit_test(response_framing_fits_the_method_the_status_and_the_version),
        cmocka_unit_test(response_left_undone_is_completed_or_broken_off_visibly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
