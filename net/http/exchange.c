/*
 * One request and its answer, on the connection's fiber: route, handle, make the end right.
 */
#include <errno.h>
#include <string.h>

#include <sys/socket.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/log.h"

#include "shoal/net/http/http_impl.h"
#include "shoal/net/http/uri.h"

unsigned shoal_http_status_of_error(int code)
{
    switch (code) {
    case -EINVAL:
    case SHOAL_EHTTP_SYNTAX:
        return 400;
    case -EACCES:
    case -EPERM:
        return 403;
    case -ENOENT:
        return 404;
    case SHOAL_EHTTP_BODY_TOO_LARGE:
        return 413;
    case -ENOMEM:
    case -ENOBUFS:
    case -ECANCELED:
    case SHOAL_ESTOPPING:
        return 503;
    case -ETIMEDOUT:
        return 504;
    default:
        return 500;
    }
}

void shoal_http_request_clear(struct shoal_http_request *request)
{
    const size_t from = offsetof(struct shoal_http_request, head_block);
    memset((char *)request + from, 0, offsetof(struct shoal_http_request, params) - from);
}

void shoal_http_request_release(struct shoal_http_request *request)
{
    shoal_http_block_unref(&request->head_block);
    shoal_http_block_unref(&request->piece_block);
    if (SHOAL_UNLIKELY(request->whole_body != NULL))
        shoal_slice_free(request->whole_body);
    if (SHOAL_UNLIKELY(request->decoded != NULL))
        shoal_slice_free(request->decoded);
    if (SHOAL_UNLIKELY(request->extra != NULL))
        shoal_mem_free(request->extra, SHOAL_HTTP_EXTRA_BYTES_MAX);
}

/* Keeps the parameters of the route, decoded where they need it. 0, -EINVAL, -ENOMEM. */
static int keep_params(struct shoal_http_request *request, const struct shoal_route_match *match)
{
    size_t encoded = 0;
    for (uint32_t i = 0; i < match->param_count; i++)
        if (memchr(match->params[i].raw.ptr, '%', match->params[i].raw.len) != NULL)
            encoded += match->params[i].raw.len;
    if (encoded > 0 &&
        (request->decoded = shoal_slice_new((uint32_t)encoded, "http parameters")) == NULL)
        return -ENOMEM;
    char *to = request->decoded != NULL ? request->decoded->data : NULL;
    for (uint32_t i = 0; i < match->param_count; i++) {
        struct shoal_str value = match->params[i].raw;
        if (value.len > 0 && memchr(value.ptr, '%', value.len) != NULL) {
            int64_t len = shoal_uri_decode(value, to, value.len, 0);
            if (len < 0)
                return -EINVAL;
            value = shoal_str_make(to, (size_t)len);
            to += len;
        }
        request->params[i].name = match->params[i].name;
        request->params[i].value = value;
    }
    request->param_count = (uint8_t)match->param_count;
    return 0;
}

static void begin_body(struct shoal_http_request *request)
{
    const struct shoal_http1_head *head = &request->head;
    request->body_left = head->content_length;
    request->body_done = !head->chunked && head->content_length == 0;
    if (head->chunked)
        shoal_http1_chunked_init(&request->chunked, NULL);
}

static void no_route(struct shoal_http_request *request, const struct shoal_route_match *match)
{
    if (match->node == NULL) {
        if (request->head.method == SHOAL_HTTP_OPTIONS && request->head.path.len == 1 &&
            request->head.path.ptr[0] == '*')
            (void)shoal_http_reply(request, 204, NULL, NULL, 0);
        else
            shoal_http_reply_error(request, 404, NULL);
        return;
    }
    char allow[256];
    shoal_router_allow(match->node, allow, sizeof(allow));
    (void)shoal_http_set_header(request, "Allow", allow);
    shoal_http_reply_error(request, 405, NULL);
}

/* `*text`: why it failed, if its future says so. Another await's text would be another's secret. */
static int call_handler(struct shoal_http_request *request, const struct shoal_route *route,
                        const char **text)
{
    if (route->handler != NULL)
        return route->handler(request, route->arg);
    int code = shoal_await(route->future_handler(request, route->arg), NULL);
    *text = shoal_error_message();
    return code;
}

/* Whether `code` says only that the client has gone: nobody is left to be answered. */
static bool client_left(const struct shoal_http_request *request, int code)
{
    return request->connection->stream.out_error != 0 ||
           (code != 0 && code == request->body_error &&
            code == request->connection->stream.in_error && code != -ETIMEDOUT);
}

static void log_failure(const struct shoal_http_request *request, int code)
{
    const struct shoal_http1_head *head = &request->head;
    SHOAL_WARN("%.*s %.*s: %s%s", (int)head->method_name.len, head->method_name.ptr,
               (int)head->path.len, head->path.ptr,
               code < 0 ? "the handler failed: " : "the handler has not replied",
               code < 0 ? shoal_error_text(code) : "");
}

/*
 * The client must not take half a body for the whole. What announces its end (a length, chunks)
 * lacks it then, and answers to earlier requests still go out; a body that ends with the connection
 * has to end with a reset.
 */
static void break_off(struct shoal_http_request *request)
{
    struct shoal_http_connection *connection = request->connection;
    connection->close_after = true;
    if (request->chunked_reply || request->reply_left != SHOAL_HTTP_CHUNKED)
        return;
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(connection->stream.fd.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    shoal_http_connection_abort(connection);
}

/* What the handler left undone. */
static void complete_reply(struct shoal_http_request *request, int code, const char *text)
{
    struct shoal_http_connection *connection = request->connection;
    if (code >= 0 && request->reply_state == SHOAL_HTTP_ENDED)
        return;
    if (client_left(request, code)) {
        shoal_http_connection_abort(connection);
        return;
    }
    if (request->reply_state == SHOAL_HTTP_NOT_BEGUN) {
        bool body_late = code == -ETIMEDOUT && request->body_error == code;
        unsigned status = body_late ? 408 : shoal_http_status_of_error(code < 0 ? code : -EIO);
        if (status == 500)
            log_failure(request, code);
        shoal_http_reply_error(request, status, status < 500 ? text : NULL);
        return;
    }
    if (request->reply_state == SHOAL_HTTP_BODY_FOLLOWS && code >= 0 &&
        shoal_http_end(request) == 0)
        return;
    if (request->reply_state != SHOAL_HTTP_ENDED)
        break_off(request);
}

static void dispatch(struct shoal_http_request *request)
{
    struct shoal_http_server *server = request->connection->shard->server;
    struct shoal_route_match match;
    shoal_router_find(&server->router, &request->head, &match);
    if (SHOAL_UNLIKELY(match.route == NULL)) {
        no_route(request, &match);
        return;
    }
    const char *text = NULL;
    int code = match.param_count > 0 ? keep_params(request, &match) : 0;
    if (code == 0)
        code = call_handler(request, match.route, &text);
    complete_reply(request, code, text);
}

void shoal_http_exchange(struct shoal_http_connection *connection,
                         struct shoal_http_request *request)
{
    struct shoal_http_shard *shard = connection->shard;
    shoal_http_connection_phase(connection, SHOAL_HTTP_HANDLER, SHOAL_NS_FOREVER);
    connection->requests++;
    shard->stats.requests++;
    begin_body(request);
    if (SHOAL_UNLIKELY(request->head.content_length > shard->server->options.body_bytes_max)) {
        connection->close_after = true;
        connection->linger = true;
        shoal_http_reply_error(request, 413, NULL);
        return;
    }
    dispatch(request);
    if (SHOAL_UNLIKELY(!request->head.keep_alive))
        connection->close_after = true;
    if (SHOAL_UNLIKELY(!request->body_done) && !shoal_http_body_skip(request)) {
        connection->close_after = true;
        connection->linger = true;
    }
    if (SHOAL_UNLIKELY(connection->close_after && connection->stream.in.bytes > 0))
        connection->linger = true; /* it sends more, which would bring a reset */
    if (SHOAL_UNLIKELY(shard->stopping && connection->stream.in.bytes == 0)) {
        connection->close_after = true;
        connection->linger = true;
    }
}
