/*
 * Parser of HTTP/1.1 request heads; the contract and the promises are in the header.
 *
 *      resume ──> request_line ──> field_line ... ──> finish
 *   (is a look     method SP        name ":" value     what needs the whole head
 *    worth it?)    target SP        -> field_meaning
 *                  version CRLF
 *
 *  1. `parse` is prefix-stable: it judges strictly from left to right, so once a prefix is refused,
 *     every longer input is refused with the same status. Only `finish` looks at the whole.
 *     Promise 2 of the header rests on this.
 *  2. A second call on the same head does not parse again unless it may give an answer: the end of
 *     the head or a bad line end is among the new bytes, a limit is reached, or the size has passed
 *     a power of two. These parses add up to twice the size, so that promise 3 holds.
 *  3. The end of the input is the smaller of `len` and the limit of the head, so that what follows
 *     the limit cannot change the verdict.
 *  4. Steps return 1 to go on, 0 for "incomplete", or a negative status, and advance `s->p` only
 *     over what they have accepted.
 */
#include "shoal/net/http/http1_parser.h"

#include <limits.h>
#include <string.h>

#include "shoal/net/http/http1_scan_impl.h"

enum {
    METHOD_BYTES_MAX = 32,
    REQUEST_LINE_PREFIX_MAX = 2 + METHOD_BYTES_MAX + 1, /* CRLF, method, SP */
};

struct parse {
    const char *begin, *p, *end;
    const struct shoal_http_limits *limits;
    struct shoal_http1_head *head;
    struct shoal_str authority; /* from the target, if it has one */
    bool has_authority;
    bool has_host;
    bool has_upgrade;
    bool conn_close, conn_keep_alive, conn_upgrade;
    bool coding_unknown;
    bool expect_unknown;
};

static inline struct shoal_str str_between(const char *from, const char *to)
{
    return shoal_str_make(from, (size_t)(to - from));
}

static inline bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

static inline struct shoal_str trim(const char *from, const char *to)
{
    while (from < to && is_ows(*from))
        from++;
    while (to > from && is_ows(to[-1]))
        to--;
    return str_between(from, to);
}

/* Is the name, without case, the literal `lower`? For sizes from 4 up, known when compiled; the
 * loads overlap. Setting the case bit is safe, since no other token byte becomes a letter or '-'.
 */
static inline __attribute__((always_inline)) bool name_is(const char *p, const char *lower,
                                                          size_t size)
{
    if (size >= 8) {
        const uint64_t fold = UINT64_C(0x2020202020202020);
        for (size_t at = 0; at < size; at += 8) {
            uint64_t a, b;
            const size_t from = at + 8 <= size ? at : size - 8;
            memcpy(&a, p + from, 8);
            memcpy(&b, lower + from, 8);
            if ((a | fold) != b)
                return false;
        }
        return true;
    }
    uint32_t a, b, c, d;
    memcpy(&a, p, 4);
    memcpy(&b, lower, 4);
    memcpy(&c, p + size - 4, 4);
    memcpy(&d, lower + size - 4, 4);
    return (a | 0x20202020U) == b && (c | 0x20202020U) == d;
}

static const char *const method_names[] = {
    [SHOAL_HTTP_GET] = "GET",         [SHOAL_HTTP_HEAD] = "HEAD",
    [SHOAL_HTTP_POST] = "POST",       [SHOAL_HTTP_PUT] = "PUT",
    [SHOAL_HTTP_DELETE] = "DELETE",   [SHOAL_HTTP_CONNECT] = "CONNECT",
    [SHOAL_HTTP_OPTIONS] = "OPTIONS", [SHOAL_HTTP_TRACE] = "TRACE",
    [SHOAL_HTTP_PATCH] = "PATCH",     [SHOAL_HTTP_OTHER] = "OTHER",
};

static enum shoal_http_method method_of(struct shoal_str name)
{
    for (unsigned m = 0; m < SHOAL_HTTP_OTHER; m++) {
        if (strlen(method_names[m]) == name.len && memcmp(method_names[m], name.ptr, name.len) == 0)
            return (enum shoal_http_method)m;
    }
    return SHOAL_HTTP_OTHER;
}

static inline int parse_method(struct parse *s)
{
    const char *start = s->p;
    if (SHOAL_LIKELY(s->end - start >= 4 && memcmp(start, "GET ", 4) == 0)) {
        s->head->method = SHOAL_HTTP_GET;
        s->head->method_name = shoal_str_make(start, 3);
        s->p = start + 4;
        return 1;
    }
    const char *stop = s->end - start > METHOD_BYTES_MAX ? start + METHOD_BYTES_MAX + 1 : s->end;
    const char *p = shoal_scan_portable(start, stop, SHOAL_HTTP_TOKEN);
    if (p - start > METHOD_BYTES_MAX)
        return -501;
    if (p == s->end)
        return 0;
    if (*p != ' ' || p == start)
        return -400;
    s->head->method_name = str_between(start, p);
    s->head->method = method_of(s->head->method_name);
    s->p = p + 1;
    return 1;
}

/* Target as bytes: up to the SP, with the place of the first '?'. Its form is judged afterwards. */
static inline int parse_target(struct parse *s)
{
    const char *start = s->p;
    const char *mark = shoal_scan(s->begin, start, s->end, SHOAL_HTTP_PATH);
    const char *p = mark;
    if (mark < s->end && *mark == '?')
        p = shoal_scan(s->begin, mark + 1, s->end, SHOAL_HTTP_TARGET);
    if (p - start > (ptrdiff_t)s->limits->uri_bytes_max)
        return -414;
    if (p == s->end)
        return 0;
    if (*p != ' ' || p == start)
        return -400;
    s->head->target = str_between(start, p);
    s->head->path = str_between(start, mark);
    s->head->query = mark < p ? str_between(mark + 1, p) : str_between(p, p);
    s->p = p + 1;
    return 1;
}

/* "HTTP/" DIGIT "." DIGIT CRLF, one byte at a time: for short input and for what is wrong. */
static int parse_version_slow(struct parse *s)
{
    static const char form[] = "HTTP/d.d\r\n";
    for (int i = 0; form[i] != '\0'; i++) {
        if (s->p + i == s->end)
            return 0;
        const char c = s->p[i];
        if (form[i] == 'd' ? (c < '0' || c > '9') : c != form[i])
            return -400;
    }
    if (s->p[5] != '1')
        return -505;
    s->head->minor_version = (uint8_t)(s->p[7] - '0');
    s->p += 10;
    return 1;
}

static inline int parse_version(struct parse *s)
{
    if (SHOAL_LIKELY(s->end - s->p >= 10 && memcmp(s->p, "HTTP/1.1\r\n", 10) == 0)) {
        s->head->minor_version = 1;
        s->p += 10;
        return 1;
    }
    return parse_version_slow(s);
}

/* Skips `[` address `]`; NULL if it is none. Which addresses exist is for the resolver to say. */
static const char *skip_ip_literal(const char *p, const char *end)
{
    const char *start = ++p;
    while (p < end && (shoal_http_hex(*p) >= 0 || *p == ':' || *p == '.'))
        p++;
    return p - start >= 2 && p < end && *p == ']' ? p + 1 : NULL;
}

/* uri-host [ ":" port ] of RFC 3986, without userinfo and IPvFuture; not empty. */
static bool host_valid(const char *begin, struct shoal_str host, bool needs_port)
{
    const char *p = host.ptr;
    const char *end = p + host.len;
    if (p < end && *p == '[') {
        p = skip_ip_literal(p, end);
        if (p == NULL)
            return false;
    } else {
        for (;;) {
            p = shoal_scan(begin, p, end, SHOAL_HTTP_HOST);
            if (SHOAL_LIKELY(p == end || *p != '%'))
                break;
            if (end - p < 3 || shoal_http_hex(p[1]) < 0 || shoal_http_hex(p[2]) < 0)
                return false;
            p += 3;
        }
        if (p == host.ptr)
            return false;
    }
    if (p == end)
        return !needs_port;
    if (*p++ != ':' || end - p > 5)
        return false;
    uint32_t port = 0;
    const char *digits = p;
    for (; p < end; p++) {
        const unsigned digit = (uint8_t)*p - (unsigned)'0';
        if (digit > 9)
            return false;
        port = port * 10 + digit;
    }
    return port <= 65535 && !(needs_port && digits == end);
}

/* absolute-form of http and https; userinfo is refused (RFC 9110 4.2.4). */
static int absolute_form(struct parse *s)
{
    struct shoal_http1_head *head = s->head;
    const char *p = head->target.ptr;
    const char *path_end = head->path.ptr + head->path.len;
    const struct shoal_str http = shoal_str_from("http://");
    const struct shoal_str https = shoal_str_from("https://");
    if (head->path.len > http.len && shoal_str_equal_nocase(shoal_str_make(p, http.len), http))
        p += http.len;
    else if (head->path.len > https.len &&
             shoal_str_equal_nocase(shoal_str_make(p, https.len), https))
        p += https.len;
    else
        return -400;
    const char *slash = memchr(p, '/', (size_t)(path_end - p));
    s->authority = str_between(p, slash != NULL ? slash : path_end);
    s->has_authority = true;
    if (!host_valid(s->begin, s->authority, false))
        return -400;
    /* An empty path means "/": the second slash before the authority is one. */
    head->path = slash != NULL ? str_between(slash, path_end) : str_between(p - 1, p);
    return 1;
}

static int target_form(struct parse *s)
{
    struct shoal_http1_head *head = s->head;
    if (head->method == SHOAL_HTTP_CONNECT) {
        if (!host_valid(s->begin, head->target, true))
            return -400;
        s->authority = head->target;
        s->has_authority = true;
        head->path.len = 0;
        return 1;
    }
    if (head->target.ptr[0] == '/')
        return 1;
    if (head->target.len == 1 && head->target.ptr[0] == '*')
        return head->method == SHOAL_HTTP_OPTIONS ? 1 : -400;
    return absolute_form(s);
}

static inline int parse_request_line(struct parse *s)
{
    /* RFC 9112 2.2: one empty line before the request line is overlooked. */
    if (SHOAL_UNLIKELY(s->p < s->end && *s->p == '\r')) {
        if (s->end - s->p < 2)
            return 0;
        if (s->p[1] != '\n')
            return -400;
        s->p += 2;
    }
    int rc = parse_method(s);
    if (rc > 0)
        rc = parse_target(s);
    if (rc > 0)
        rc = parse_version(s);
    if (rc <= 0)
        return rc;
    if (SHOAL_LIKELY(s->head->target.ptr[0] == '/' && s->head->method != SHOAL_HTTP_CONNECT))
        return 1;
    return target_form(s);
}

static int meaning_host(struct parse *s, struct shoal_str value)
{
    if (s->has_host || (value.len != 0 && !host_valid(s->begin, value, false)))
        return -400;
    s->has_host = true;
    s->head->host = value;
    return 1;
}

static int meaning_content_length(struct parse *s, struct shoal_str value)
{
    uint64_t total = 0;
    if (s->head->has_content_length || value.len == 0)
        return -400;
    for (uint32_t i = 0; i < value.len; i++) {
        const unsigned digit = (uint8_t)value.ptr[i] - (unsigned)'0';
        if (digit > 9 || total > ((uint64_t)INT64_MAX - digit) / 10)
            return -400;
        total = total * 10 + digit;
    }
    s->head->has_content_length = true;
    s->head->content_length = total;
    return 1;
}

/* The next element of a comma-separated list, trimmed; false after the last. An empty list and one
 * that ends in a comma have an empty last element. `*at` is NULL after the last. */
static bool list_next(const char **at, const char *end, struct shoal_str *element)
{
    if (*at == NULL)
        return false;
    const char *comma = memchr(*at, ',', (size_t)(end - *at));
    *element = trim(*at, comma != NULL ? comma : end);
    *at = comma != NULL ? comma + 1 : NULL;
    return true;
}

static int meaning_transfer_encoding(struct parse *s, struct shoal_str value)
{
    const char *at = value.ptr;
    const char *end = value.ptr + value.len;
    struct shoal_str element;
    while (list_next(&at, end, &element)) {
        const char *element_end = element.ptr + element.len;
        const char *p = shoal_scan_portable(element.ptr, element_end, SHOAL_HTTP_TOKEN);
        const struct shoal_str coding = str_between(element.ptr, p);
        const struct shoal_str rest = trim(p, element_end);
        /* Nothing may come after chunked, and no element may be empty or something else. */
        if (s->head->chunked || coding.len == 0 || (rest.len != 0 && rest.ptr[0] != ';'))
            return -400;
        if (!shoal_str_equal_nocase(coding, shoal_str_from("chunked")))
            s->coding_unknown = true;
        else if (rest.len != 0)
            return -400;
        else
            s->head->chunked = true;
    }
    return 1;
}

static int meaning_connection(struct parse *s, struct shoal_str value)
{
    const char *at = value.ptr;
    struct shoal_str element;
    while (list_next(&at, value.ptr + value.len, &element)) {
        if (element.len == 5 && name_is(element.ptr, "close", 5))
            s->conn_close = true;
        else if (element.len == 10 && name_is(element.ptr, "keep-alive", 10))
            s->conn_keep_alive = true;
        else if (element.len == 7 && name_is(element.ptr, "upgrade", 7))
            s->conn_upgrade = true;
    }
    return 1;
}

/* What the fields that this parser understands ask for. The rest is the handler's. */
static inline int field_meaning(struct parse *s, const struct shoal_http_field *field)
{
    const char *name = field->name.ptr;
    switch (field->name.len) {
    case 4:
        return name_is(name, "host", 4) ? meaning_host(s, field->value) : 1;
    case 6:
        if (name_is(name, "expect", 6)) {
            if (shoal_str_equal_nocase(field->value, shoal_str_from("100-continue")))
                s->head->expect_continue = true;
            else
                s->expect_unknown = true;
        }
        return 1;
    case 7:
        if (name_is(name, "upgrade", 7) && field->value.len != 0)
            s->has_upgrade = true;
        return 1;
    case 10:
        return name_is(name, "connection", 10) ? meaning_connection(s, field->value) : 1;
    case 14:
        return name_is(name, "content-length", 14) ? meaning_content_length(s, field->value) : 1;
    case 17:
        return name_is(name, "transfer-encoding", 17) ? meaning_transfer_encoding(s, field->value)
                                                      : 1;
    default:
        return 1;
    }
}

/* One line `name ":" OWS value OWS CRLF`; a line that starts with SP or HTAB (folding) has no
 * name and so is refused, as is SP before the colon. */
static inline int parse_field_line(struct parse *s)
{
    const char *end = s->end;
    if (s->head->field_count == s->limits->fields_max)
        return -431;
    struct shoal_http_field *field = &s->head->fields[s->head->field_count];
    const char *p = shoal_scan(s->begin, s->p, end, SHOAL_HTTP_TOKEN);
    if (p == end)
        return 0;
    if (*p != ':' || p == s->p)
        return -400;
    field->name = str_between(s->p, p);
    p++;
    if (SHOAL_LIKELY(p < end && *p == ' '))
        p++;
    while (SHOAL_UNLIKELY(p < end && is_ows(*p)))
        p++;
    const char *value = p;
    p = shoal_scan(s->begin, p, end, SHOAL_HTTP_VALUE);
    if (p == end)
        return 0;
    if (*p != '\r')
        return -400;
    if (end - p < 2)
        return 0;
    if (p[1] != '\n')
        return -400;
    s->p = p + 2;
    while (p > value && is_ows(p[-1]))
        p--;
    field->value = str_between(value, p);
    s->head->field_count++;
    return field_meaning(s, field);
}

/* What can be judged only once all fields are known. */
static inline int finish(struct parse *s)
{
    struct shoal_http1_head *head = s->head;
    const bool http11 = head->minor_version >= 1;
    const bool has_coding = head->chunked || s->coding_unknown;
    if (!s->has_host && http11)
        return -400;
    if (has_coding && (head->has_content_length || !http11))
        return -400;
    if (s->coding_unknown)
        return -501;
    if (s->expect_unknown)
        return -417;
    if (s->has_authority)
        head->host = s->authority;
    head->keep_alive = !s->conn_close && (http11 || s->conn_keep_alive);
    head->upgrade = http11 && s->has_upgrade && s->conn_upgrade;
    head->expect_continue = http11 && head->expect_continue;
    head->head_bytes = (uint32_t)(s->p - s->begin);
    return (int)head->head_bytes;
}

static int parse(const char *buf, size_t len, const struct shoal_http_limits *limits,
                 struct shoal_http1_head *head)
{
    struct parse s = {.begin = buf, .p = buf, .end = buf + len, .limits = limits, .head = head};
    *head = (struct shoal_http1_head){.fields = head->fields, .host = {buf, 0}};
    int rc = parse_request_line(&s);
    while (rc > 0) {
        if (s.p == s.end)
            return 0;
        if (*s.p == '\r') {
            if (s.end - s.p < 2)
                return 0;
            if (s.p[1] != '\n')
                return -400;
            s.p += 2;
            return finish(&s);
        }
        rc = parse_field_line(&s);
    }
    return rc;
}

/* Did the target of an unfinished request line outgrow its limit among the new bytes? */
static bool target_crosses_limit(const char *buf, size_t len, size_t scanned, size_t target_max)
{
    if (len <= target_max || scanned > target_max + REQUEST_LINE_PREFIX_MAX)
        return false;
    const size_t window = len < REQUEST_LINE_PREFIX_MAX ? len : REQUEST_LINE_PREFIX_MAX;
    const char *space = memchr(buf, ' ', window);
    if (space == NULL)
        return false;
    const size_t start = (size_t)(space - buf) + 1;
    return len > start + target_max && scanned <= start + target_max;
}

/* Is it worth parsing again, now that [scanned, len) has come? (Invariant 2.) */
static bool worth_parsing(const char *buf, size_t len, size_t scanned,
                          const struct shoal_http_limits *limits)
{
    const bool power_of_two_passed = (len ^ scanned) > (len & scanned);
    if (len >= limits->head_bytes_max || power_of_two_passed ||
        target_crosses_limit(buf, len, scanned, limits->uri_bytes_max))
        return true;
    const char *end = buf + len;
    const char *p = buf + scanned - 1; /* a CR there may just have got its LF */
    for (;;) {
        p = shoal_scan(buf, p, end, SHOAL_HTTP_VALUE);
        if (p == end)
            return false;
        if (*p == '\r') {
            if (p + 1 == end)
                return false;
            if (p[1] != '\n')
                return true;
            p++;
        }
        /* A LF ends the head when the line before it is empty; anything else here is a fault. */
        if (*p != '\n' || p == buf || p[-1] != '\r' || (p - buf >= 3 && p[-2] == '\n'))
            return true;
        p++;
    }
}

int shoal_http1_parse_head(const char *buf, size_t len, size_t scanned,
                           const struct shoal_http_limits *limits, struct shoal_http1_head *head)
{
    const size_t bytes_max = limits->head_bytes_max < INT_MAX ? limits->head_bytes_max : INT_MAX;
    if (len == 0 && bytes_max != 0)
        return 0;
    if (scanned != 0 && scanned <= len && !worth_parsing(buf, len, scanned, limits))
        return 0;
    const size_t visible = len < bytes_max ? len : bytes_max;
    const int rc = parse(buf, visible, limits, head);
    if (SHOAL_LIKELY(rc != 0) || len < bytes_max)
        return rc;
    /* The head does not end within its limit. Whose fault is it? The first line may be empty. */
    return visible > 2 && memchr(buf + 2, '\n', visible - 2) != NULL ? -431 : -414;
}

const struct shoal_str *shoal_http1_head_field(const struct shoal_http1_head *head,
                                               const char *name, uint32_t *from)
{
    const struct shoal_str wanted = shoal_str_from(name);
    for (uint32_t i = from != NULL ? *from : 0; i < head->field_count; i++) {
        if (!shoal_str_equal_nocase(head->fields[i].name, wanted))
            continue;
        if (from != NULL)
            *from = i + 1;
        return &head->fields[i].value;
    }
    if (from != NULL)
        *from = head->field_count;
    return NULL;
}

bool shoal_http_list_has(struct shoal_str list, const char *token)
{
    const struct shoal_str wanted = shoal_str_from(token);
    const char *at = list.ptr;
    struct shoal_str element;
    if (list.len == 0)
        return false;
    while (list_next(&at, list.ptr + list.len, &element)) {
        if (shoal_str_equal_nocase(element, wanted))
            return true;
    }
    return false;
}

bool shoal_http_field_name_valid(struct shoal_str name)
{
    if (name.len == 0)
        return false;
    const char *end = name.ptr + name.len;
    return shoal_scan(name.ptr, name.ptr, end, SHOAL_HTTP_TOKEN) == end;
}

bool shoal_http_field_value_valid(struct shoal_str value)
{
    if (value.len == 0)
        return true;
    const char *end = value.ptr + value.len;
    return shoal_scan(value.ptr, value.ptr, end, SHOAL_HTTP_VALUE) == end;
}

const char *shoal_http_method_name(enum shoal_http_method method)
{
    return (unsigned)method <= SHOAL_HTTP_OTHER ? method_names[method] : "OTHER";
}
