/*
 * What a handler asks of its request: fields, parameters, and the body.
 */
#include "shoal/net/http/request.h"

#include <errno.h>
#include <string.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"

#include "shoal/net/http/http_impl.h"

#define WHOLE_BODY_MAX (UINT64_C(1) << 30) /* as large as a slice can be */

const struct shoal_http1_head *shoal_http_head(const struct shoal_http_request *request)
{
    shoal_http_check_mine(request, "head");
    return &request->head;
}

struct shoal_str shoal_http_header(const struct shoal_http_request *request, const char *name)
{
    shoal_http_check_mine(request, "header");
    const struct shoal_str *value = shoal_http1_head_field(&request->head, name, NULL);
    return value != NULL ? *value : shoal_str_from("");
}

struct shoal_str shoal_http_param(const struct shoal_http_request *request, const char *name)
{
    shoal_http_check_mine(request, "param");
    struct shoal_str wanted = shoal_str_from(name);
    for (unsigned i = 0; i < request->param_count; i++)
        if (shoal_str_equal(request->params[i].name, wanted))
            return request->params[i].value;
    return shoal_str_from("");
}

uint64_t shoal_http_body_length(const struct shoal_http_request *request)
{
    shoal_http_check_mine(request, "body_length");
    return request->head.chunked ? UINT64_MAX : request->head.content_length;
}

/* ---- The body ---- */

/* The body cannot be read to its end: the connection ends with the answer. */
static int fail_body(struct shoal_http_request *request, int code)
{
    request->body_error = code;
    request->connection->close_after = true;
    request->connection->linger = true;
    return code;
}

/* Waits for input on the body's clock. */
static int wait_input(struct shoal_http_request *request)
{
    struct shoal_http_connection *connection = request->connection;
    struct shoal_stream *stream = &connection->stream;
    if (stream->in.bytes > 0)
        return 0;
    if (request->head.expect_continue && !request->continue_sent &&
        request->reply_state == SHOAL_HTTP_NOT_BEGUN) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        request->continue_sent = true;
        if (shoal_stream_append(stream, go_on, sizeof(go_on) - 1) < 0)
            return -ENOMEM;
    }
    uint64_t timeout_ns = connection->shard->server->options.body_timeout_ns;
    shoal_http_connection_phase(connection, SHOAL_HTTP_BODY,
                                shoal_deadline_ns(shoal_now_ns(), timeout_ns));
    int rc = shoal_stream_wait_in(stream);
    shoal_http_connection_phase(connection, SHOAL_HTTP_HANDLER, SHOAL_NS_FOREVER);
    return rc;
}

/* Hands out `len` bytes at `data`, which lie in the first slice, and consumes `consumed`. */
static void hand_out(struct shoal_http_request *request, const char *data, size_t len,
                     size_t consumed, struct shoal_str *piece)
{
    struct shoal_stream *stream = &request->connection->stream;
    request->piece_block = stream->in.head->block;
    request->piece_block->refs++;
    *piece = shoal_str_make(data, len);
    request->body_read += len;
    shoal_chain_consume(&stream->in, consumed);
    shoal_stream_resume(stream);
}

/* 1: a piece; 0: the end; -EAGAIN: more input is needed; or a failure. */
static int next_chunk(struct shoal_http_request *request, struct shoal_str *piece)
{
    struct shoal_stream *stream = &request->connection->stream;
    const struct shoal_slice *slice = stream->in.head;
    uint64_t limit = request->connection->shard->server->options.body_bytes_max;
    size_t consumed;
    struct shoal_str data;
    int rc =
        shoal_http1_chunked_decode(&request->chunked, slice->data, slice->len, &consumed, &data);
    if (rc < 0)
        return fail_body(request, SHOAL_EHTTP_SYNTAX);
    uint64_t announced = request->chunked.body_bytes + request->chunked.chunk_left;
    if (announced > limit)
        return fail_body(request, SHOAL_EHTTP_BODY_TOO_LARGE);
    if (rc == SHOAL_HTTP1_CHUNKED_DATA) {
        hand_out(request, data.ptr, data.len, consumed, piece);
        return 1;
    }
    shoal_chain_consume(&stream->in, consumed);
    shoal_stream_resume(stream);
    return rc == SHOAL_HTTP1_CHUNKED_END ? 0 : -EAGAIN;
}

static int next_counted(struct shoal_http_request *request, struct shoal_str *piece)
{
    const struct shoal_slice *slice = request->connection->stream.in.head;
    uint32_t len = slice->len < request->body_left ? slice->len : (uint32_t)request->body_left;
    request->body_left -= len;
    hand_out(request, slice->data, len, len, piece);
    return 1;
}

int shoal_http_body_read(struct shoal_http_request *request, struct shoal_str *piece)
{
    shoal_http_check_mine(request, "body_read");
    shoal_http_block_unref(&request->piece_block);
    while (!request->body_done) {
        if (request->body_error != 0)
            return request->body_error;
        int rc = wait_input(request);
        if (rc == -ECANCELED)
            return rc;
        if (rc < 0)
            return fail_body(request, rc);
        if (request->head.chunked) {
            rc = next_chunk(request, piece);
            request->body_done = rc == 0;
        } else {
            rc = next_counted(request, piece);
            request->body_done = request->body_left == 0;
        }
        if (rc != -EAGAIN)
            return rc;
    }
    return 0;
}

/* Has the whole body's memory hold `bytes`; by doubling, where they are more than it does. */
static bool make_room(struct shoal_http_request *request, uint64_t bytes)
{
    struct shoal_slice *whole = request->whole_body;
    if (whole != NULL && whole->block->size >= bytes)
        return true;
    uint64_t size = whole != NULL && bytes < WHOLE_BODY_MAX / 2 ? bytes * 2 : bytes;
    if (size > WHOLE_BODY_MAX)
        return false;
    struct shoal_slice *larger = shoal_slice_new((uint32_t)size, "http body");
    if (larger == NULL)
        return false;
    if (whole != NULL) {
        memcpy(larger->data, whole->data, whole->len);
        larger->len = whole->len;
        shoal_slice_free(whole);
    }
    request->whole_body = larger;
    return true;
}

int shoal_http_body_read_all(struct shoal_http_request *request, uint32_t bytes_max,
                             struct shoal_str *body)
{
    struct shoal_str piece;
    uint64_t announced = shoal_http_body_length(request);
    if (announced != UINT64_MAX && announced > bytes_max)
        return fail_body(request, SHOAL_EHTTP_BODY_TOO_LARGE);
    int rc;
    while ((rc = shoal_http_body_read(request, &piece)) > 0) {
        uint64_t have = request->whole_body != NULL ? request->whole_body->len : 0;
        if (have + piece.len > bytes_max) {
            rc = fail_body(request, SHOAL_EHTTP_BODY_TOO_LARGE);
            break;
        }
        if (!make_room(request, announced != UINT64_MAX ? announced : have + piece.len)) {
            rc = fail_body(request, -ENOMEM); /* the piece is lost */
            break;
        }
        memcpy(request->whole_body->data + have, piece.ptr, piece.len);
        request->whole_body->len += piece.len;
    }
    const struct shoal_slice *whole = request->whole_body;
    *body = whole != NULL ? shoal_str_make(whole->data, whole->len) : shoal_str_from("");
    return rc;
}

bool shoal_http_body_skip(struct shoal_http_request *request)
{
    if (request->body_error != 0 || request->connection->aborted)
        return false;
    /* A client that still waits for 100 may send the body or not: nobody can tell. */
    if (request->head.expect_continue && !request->continue_sent && request->body_read == 0 &&
        request->connection->stream.in.bytes == 0)
        return false;
    request->continue_sent = true;
    uint64_t start = request->body_read;
    if (!request->head.chunked && request->body_left > SHOAL_HTTP_DRAIN_BYTES_MAX)
        return false;
    struct shoal_str piece;
    int rc;
    while ((rc = shoal_http_body_read(request, &piece)) > 0)
        if (request->body_read - start > SHOAL_HTTP_DRAIN_BYTES_MAX)
            return false;
    return rc == 0;
}
