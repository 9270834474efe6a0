/*
 * What the tests of the HTTP server share: a server on a port of its own, and clients that say
 * bytes and compare all that comes back.
 */
#ifndef SHOAL_TESTS_UNIT_HTTP_CHECK_H
#define SHOAL_TESTS_UNIT_HTTP_CHECK_H

#include "shoal/net/http/http_impl.h"
#include "shoal/net/http/server.h"

#include "unit/net_check.h"

#define HTTP_TEXT_MAX 65536

static inline struct shoal_http_server *http_server_new(void)
{
    struct shoal_http_options options;
    shoal_http_options_init(&options);
    options.port = 0;
    struct shoal_http_server *server = shoal_http_server_new(&options);
    SHOAL_EXPECT(server != NULL);
    return server;
}

/* A connection to `server`; NULL if it cannot be had. */
static inline struct shoal_stream *http_connect(const struct shoal_http_server *server)
{
    struct shoal_stream *stream = NULL;
    (void)shoal_stream_connect(&stream, shoal_listening_address(server->listening),
                               SHOAL_NS_FOREVER);
    return stream;
}

/* Takes "Server: ...Date: ...\r\n" out of `text`, wherever it stands. */
static inline void http_drop_common(char *text)
{
    char *from;
    while ((from = strstr(text, "Server: shoal\r\nDate: ")) != NULL) {
        char *end = strstr(from + 15, "\r\n");
        if (end == NULL)
            return;
        memmove(from, end + 2, strlen(end + 2) + 1);
    }
}

/* Reads what comes until the end, into `text`; returns why it ended. */
static inline int http_rest(struct shoal_stream *stream, char *text)
{
    int rc;
    text[net_read_rest(stream, text, HTTP_TEXT_MAX - 1, &rc)] = '\0';
    http_drop_common(text);
    return rc;
}

/* Sends `request` on a connection of its own and reads all that comes; why it ended. */
static inline int http_ask(const struct shoal_http_server *server, const char *request, char *text)
{
    text[0] = '\0';
    struct shoal_stream *stream = http_connect(server);
    if (stream == NULL)
        return -ECONNREFUSED;
    (void)shoal_stream_write(stream, request, strlen(request));
    shoal_stream_flush(stream);
    int rc = http_rest(stream, text);
    shoal_stream_close(stream);
    return rc;
}

static inline bool http_expect_text(const char *text, const char *wanted, const char *file,
                                    int line)
{
    bool same = strcmp(text, wanted) == 0;
    if (!same)
        fprintf(stderr, "got:\n%s\nwanted:\n%s\n", text, wanted);
    return shoal_test_expect(same, "the answer is as wanted", file, line);
}

#define HTTP_EXPECT(server, request, wanted)                                                       \
    do {                                                                                           \
        static char text_[HTTP_TEXT_MAX];                                                          \
        SHOAL_EXPECT_INT(http_ask(server, request, text_), SHOAL_EEOF);                            \
        http_expect_text(text_, wanted, __FILE__, __LINE__);                                       \
    } while (0)

/* A handler that sends the body back piece by piece, chunked. */
static inline int stream_back(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_str piece;
    int rc = shoal_http_set_header(request, "X-Echo", "yes");
    if (rc == 0)
        rc = shoal_http_begin(request, 200, NULL, SHOAL_HTTP_CHUNKED);
    while (rc == 0 && (rc = shoal_http_body_read(request, &piece)) > 0)
        rc = shoal_http_write(request, piece.ptr, piece.len);
    return rc;
}

#endif
