/*
 * The plain answers: ready at once, streamed back, or after a wait.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "httpd.h"

#define SLEEP_MS_MAX 600000

int httpd_plaintext(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    return shoal_http_reply(request, 200, "text/plain", "Hello, World!", 13);
}

int httpd_json(struct shoal_http_request *request, void *arg)
{
    static const char body[] = "{\"message\":\"Hello, World!\"}";
    (void)arg;
    return shoal_http_reply(request, 200, "application/json", body, sizeof(body) - 1);
}

/* Sends the body back as it comes: nothing but the piece in hand is held. */
int httpd_echo(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    char type[128] = "application/octet-stream";
    struct shoal_str given = shoal_http_header(request, "Content-Type");
    if (given.len > 0 && given.len < sizeof(type)) {
        memcpy(type, given.ptr, given.len);
        type[given.len] = '\0';
    }
    struct shoal_str piece;
    int more = shoal_http_body_read(request, &piece);
    if (more < 0)
        return more;
    uint64_t length = shoal_http_body_length(request);
    int rc =
        shoal_http_begin(request, 200, type, length == UINT64_MAX ? SHOAL_HTTP_CHUNKED : length);
    while (rc == 0 && more > 0) {
        rc = shoal_http_write(request, piece.ptr, piece.len);
        if (rc == 0)
            more = shoal_http_body_read(request, &piece);
    }
    if (rc < 0 || more < 0)
        return rc < 0 ? rc : more;
    return shoal_http_end(request);
}

int httpd_sleep(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    int64_t ms = 0;
    int rc = shoal_query_get_i64(shoal_http_head(request)->query, "ms", 0, SLEEP_MS_MAX, &ms);
    if (rc < 0)
        return shoal_http_reply_text(request, 400, "ms: a number from 0 to 600000 is needed\n");
    rc = shoal_sleep_ns((uint64_t)ms * SHOAL_NS_PER_MS);
    if (rc < 0)
        return rc;
    char text[64];
    snprintf(text, sizeof(text), "slept %lld ms\n", (long long)ms);
    return shoal_http_reply_text(request, 200, text);
}

int httpd_greet(struct shoal_http_request *request, void *arg)
{
    (void)arg;
    struct shoal_str name = shoal_http_param(request, "name");
    int rc = shoal_http_begin(request, 200, "text/plain; charset=utf-8", (uint64_t)name.len + 9);
    if (rc == 0)
        rc = shoal_http_write(request, "Hello, ", 7);
    if (rc == 0)
        rc = shoal_http_write(request, name.ptr, name.len);
    if (rc == 0)
        rc = shoal_http_write(request, "!\n", 2);
    return rc < 0 ? rc : shoal_http_end(request);
}
