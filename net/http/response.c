/*
 * Responses: the head is written straight into the stream's output block, the body behind it.
 */
#include "shoal/net/http/response.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"

#include "shoal/net/http/http_impl.h"

#define STATUS_MIN 200
#define STATUS_MAX 999
/* Status line, common fields, lengths: without the handler's fields and the content type. */
#define HEAD_BYTES_MAX   512u
#define TYPE_BYTES_MAX   256u
#define CHUNK_PREFIX_MAX 24u

const char *shoal_http_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

/* ---- Pieces of a head ---- */

static char *put(char *to, const char *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

#define PUT_LITERAL(to, literal) put(to, literal, sizeof(literal) - 1)

static char *put_number(char *to, uint64_t number)
{
    char digits[20];
    unsigned n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return put(to, digits + n, sizeof(digits) - n);
}

void shoal_http_shard_refresh_date(struct shoal_http_shard *shard, uint64_t now_ns)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    /* IMF-fixdate, RFC 9110 5.6.7 */
    int len = snprintf(shard->common, sizeof(shard->common),
                       "\r\nServer: shoal\r\nDate: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                       days[utc.tm_wday], utc.tm_mday, months[utc.tm_mon], utc.tm_year + 1900,
                       utc.tm_hour, utc.tm_min, utc.tm_sec);
    shard->common_len = (uint32_t)len;
    shard->date_valid_until_ns = now_ns + SHOAL_NS_PER_S - (uint64_t)now.tv_nsec;
}

static char *put_status(char *to, const struct shoal_http_request *request, unsigned status)
{
    to = PUT_LITERAL(to, "HTTP/1.1 "); /* the server's version, to a 1.0 client too; RFC 9110 6.2 */
    if (SHOAL_LIKELY(status == 200)) {
        to = PUT_LITERAL(to, "200 OK");
    } else {
        const char *reason = shoal_http_reason(status);
        to = put_number(to, status);
        *to++ = ' ';
        to = put(to, reason, strlen(reason));
    }
    struct shoal_http_shard *shard = request->connection->shard;
    uint64_t now_ns = shoal_core_self->now_ns;
    if (SHOAL_UNLIKELY(now_ns >= shard->date_valid_until_ns))
        shoal_http_shard_refresh_date(shard, now_ns);
    return put(to, shard->common, shard->common_len);
}

/* Whether the connection ends with this answer, as far as is known now. */
static bool will_close(struct shoal_http_request *request)
{
    struct shoal_http_connection *connection = request->connection;
    if (SHOAL_UNLIKELY(connection->shard->stopping && connection->stream.in.bytes == 0))
        connection->close_after = true;
    return connection->close_after || !request->head.keep_alive;
}

static char *put_connection(char *to, struct shoal_http_request *request)
{
    if (SHOAL_UNLIKELY(will_close(request)))
        return PUT_LITERAL(to, "Connection: close\r\n");
    if (SHOAL_UNLIKELY(request->head.minor_version == 0))
        return PUT_LITERAL(to, "Connection: keep-alive\r\n");
    return to;
}

static char *put_length(char *to, struct shoal_http_request *request, unsigned status,
                        uint64_t length)
{
    if (status == 204 || (status == 304 && length == 0))
        return to; /* RFC 9110 8.6: none with 204; with 304 that of the body that is left out */
    if (length != SHOAL_HTTP_CHUNKED) {
        to = PUT_LITERAL(to, "Content-Length: ");
        to = put_number(to, length);
        return PUT_LITERAL(to, "\r\n");
    }
    if (request->head.minor_version > 0) {
        request->chunked_reply = true;
        return PUT_LITERAL(to, "Transfer-Encoding: chunked\r\n");
    }
    request->connection->close_after = true; /* its end is the body's end */
    return to;
}

static int check_begin(const struct shoal_http_request *request, unsigned status,
                       struct shoal_str type)
{
    if (request->reply_state != SHOAL_HTTP_NOT_BEGUN)
        return SHOAL_EHTTP_STATE;
    if (status < STATUS_MIN || status > STATUS_MAX)
        return -EINVAL;
    if (type.len > TYPE_BYTES_MAX || !shoal_http_field_value_valid(type))
        return SHOAL_EHTTP_FIELD;
    return request->connection->stream.out_error;
}

int shoal_http_begin(struct shoal_http_request *request, unsigned status, const char *type_text,
                     uint64_t length)
{
    shoal_http_check_mine(request, "begin");
    struct shoal_str type = shoal_str_make(type_text, type_text != NULL ? strlen(type_text) : 0);
    int rc = check_begin(request, status, type);
    if (SHOAL_UNLIKELY(rc < 0))
        return rc;
    struct shoal_stream *stream = &request->connection->stream;
    char *head = shoal_stream_reserve(stream, HEAD_BYTES_MAX + TYPE_BYTES_MAX);
    if (SHOAL_UNLIKELY(head == NULL))
        return -ENOMEM;
    char *to = put_status(head, request, status);
    if (type.len > 0) {
        to = PUT_LITERAL(to, "Content-Type: ");
        to = put(to, type.ptr, type.len);
        to = PUT_LITERAL(to, "\r\n");
    }
    to = put_length(to, request, status, length);
    to = put_connection(to, request);
    if (SHOAL_LIKELY(request->extra_len == 0))
        to = PUT_LITERAL(to, "\r\n");
    shoal_stream_commit(stream, (uint32_t)(to - head));
    if (request->extra_len > 0) {
        rc = shoal_stream_append(stream, request->extra, request->extra_len);
        if (rc == 0)
            rc = shoal_stream_append(stream, "\r\n", 2);
    }
    request->body_forbidden =
        request->head.method == SHOAL_HTTP_HEAD || status == 204 || status == 304;
    request->reply_left = length;
    request->reply_state = SHOAL_HTTP_BODY_FOLLOWS;
    if (SHOAL_UNLIKELY(rc < 0))
        shoal_http_connection_abort(request->connection); /* half a head cannot be taken back */
    return rc;
}

/* ---- Bodies ---- */

/* Waits for the client where a fiber can, once too much is gathered. */
static int hold_back(struct shoal_http_request *request)
{
    struct shoal_http_connection *connection = request->connection;
    struct shoal_stream *stream = &connection->stream;
    if (SHOAL_LIKELY(stream->out.bytes + stream->sending.bytes <= SHOAL_STREAM_OUT_HIGH) ||
        shoal_core_self->fiber == NULL)
        return stream->out_error;
    shoal_http_connection_watch_output(connection);
    return shoal_stream_wait_out(stream, SHOAL_STREAM_OUT_HIGH / 2);
}

static int append_body(struct shoal_http_request *request, const char *data, size_t len)
{
    while (len > 0) {
        size_t n = len < SHOAL_STREAM_OUT_HIGH ? len : SHOAL_STREAM_OUT_HIGH;
        int rc = shoal_stream_append(&request->connection->stream, data, n);
        if (rc == 0)
            rc = hold_back(request);
        if (rc < 0)
            return rc;
        data += n;
        len -= n;
    }
    return 0;
}

int shoal_http_reply(struct shoal_http_request *request, unsigned status, const char *type,
                     const void *body, size_t len)
{
    int rc = shoal_http_begin(request, status, type, len);
    if (SHOAL_UNLIKELY(rc < 0))
        return rc;
    request->reply_state = SHOAL_HTTP_ENDED;
    if (request->body_forbidden || len == 0)
        return 0;
    rc = append_body(request, body, len);
    if (SHOAL_UNLIKELY(rc < 0))
        shoal_http_connection_abort(request->connection);
    return rc;
}

int shoal_http_reply_text(struct shoal_http_request *request, unsigned status, const char *text)
{
    return shoal_http_reply(request, status, "text/plain", text, strlen(text));
}

void shoal_http_reply_error(struct shoal_http_request *request, unsigned status, const char *text)
{
    char line[160];
    if (text == NULL || text[0] == '\0')
        text = shoal_http_reason(status);
    int len = snprintf(line, sizeof(line), "%u %s\n", status, text);
    size_t bytes = len < (int)sizeof(line) ? (size_t)len : sizeof(line) - 1;
    if (shoal_http_reply(request, status, "text/plain", line, bytes) < 0)
        shoal_http_connection_abort(request->connection);
}

/* What stands between the head and the `len` bytes of a write, or says why it may not come. */
static int begin_write(struct shoal_http_request *request, size_t len)
{
    if (request->reply_state != SHOAL_HTTP_BODY_FOLLOWS)
        return SHOAL_EHTTP_STATE;
    if (request->reply_left != SHOAL_HTTP_CHUNKED) {
        if (len > request->reply_left)
            return SHOAL_EHTTP_STATE;
        request->reply_left -= len;
    }
    if (request->connection->stream.out_error != 0)
        return request->connection->stream.out_error;
    if (!request->chunked_reply || request->body_forbidden)
        return 0;
    char prefix[CHUNK_PREFIX_MAX];
    int n = snprintf(prefix, sizeof(prefix), "%zx\r\n", len);
    return shoal_stream_append(&request->connection->stream, prefix, (size_t)n);
}

static int end_write(struct shoal_http_request *request, int rc)
{
    struct shoal_stream *stream = &request->connection->stream;
    if (rc == 0 && request->chunked_reply && !request->body_forbidden)
        rc = shoal_stream_append(stream, "\r\n", 2);
    if (rc == 0)
        rc = hold_back(request);
    if (SHOAL_UNLIKELY(rc < 0 && rc != SHOAL_EHTTP_STATE))
        shoal_http_connection_abort(request->connection); /* there may be a hole in the body */
    return rc;
}

/* An empty piece would be the last chunk. */
static int write_nothing(const struct shoal_http_request *request)
{
    return request->reply_state == SHOAL_HTTP_BODY_FOLLOWS ? 0 : SHOAL_EHTTP_STATE;
}

int shoal_http_write(struct shoal_http_request *request, const void *data, size_t len)
{
    shoal_http_check_mine(request, "write");
    if (len == 0)
        return write_nothing(request);
    int rc = begin_write(request, len);
    if (rc == 0 && !request->body_forbidden)
        rc = append_body(request, data, len);
    return end_write(request, rc);
}

int shoal_http_write_slice(struct shoal_http_request *request, struct shoal_slice *slice)
{
    shoal_http_check_mine(request, "write_slice");
    bool empty = slice->len == 0;
    int rc = empty ? write_nothing(request) : begin_write(request, slice->len);
    if (rc == 0 && !empty && !request->body_forbidden)
        rc = shoal_stream_append_slice(&request->connection->stream, slice);
    else
        shoal_slice_free(slice);
    return empty ? rc : end_write(request, rc);
}

int shoal_http_end(struct shoal_http_request *request)
{
    shoal_http_check_mine(request, "end");
    if (request->reply_state != SHOAL_HTTP_BODY_FOLLOWS)
        return SHOAL_EHTTP_STATE;
    if (request->reply_left != SHOAL_HTTP_CHUNKED && request->reply_left > 0 &&
        !request->body_forbidden)
        return SHOAL_EHTTP_STATE;
    request->reply_state = SHOAL_HTTP_ENDED;
    if (!request->chunked_reply || request->body_forbidden)
        return request->connection->stream.out_error;
    int rc = shoal_stream_append(&request->connection->stream, "0\r\n\r\n", 5);
    if (SHOAL_UNLIKELY(rc < 0))
        shoal_http_connection_abort(request->connection);
    return rc;
}

/* ---- Fields of the handler ---- */

static bool is_own(struct shoal_str name)
{
    static const char *const own[] = {
        "Date", "Server", "Content-Length", "Connection", "Transfer-Encoding", "Content-Type"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(own); i++)
        if (shoal_str_equal_nocase(name, shoal_str_from(own[i])))
            return true;
    return false;
}

int shoal_http_set_header(struct shoal_http_request *request, const char *name, const char *value)
{
    shoal_http_check_mine(request, "set_header");
    struct shoal_str field = shoal_str_from(name);
    struct shoal_str text = shoal_str_from(value);
    if (request->reply_state != SHOAL_HTTP_NOT_BEGUN)
        return SHOAL_EHTTP_STATE;
    if (!shoal_http_field_name_valid(field) || !shoal_http_field_value_valid(text) || is_own(field))
        return SHOAL_EHTTP_FIELD;
    if ((uint64_t)request->extra_len + field.len + text.len + 4 > SHOAL_HTTP_EXTRA_BYTES_MAX)
        return -ENOBUFS;
    if (request->extra == NULL) {
        request->extra = shoal_mem_alloc(SHOAL_HTTP_EXTRA_BYTES_MAX);
        if (request->extra == NULL)
            return -ENOMEM;
    }
    char *to = request->extra + request->extra_len;
    to = put(to, field.ptr, field.len);
    to = PUT_LITERAL(to, ": ");
    to = put(to, text.ptr, text.len);
    to = PUT_LITERAL(to, "\r\n");
    request->extra_len = (uint32_t)(to - request->extra);
    return 0;
}
