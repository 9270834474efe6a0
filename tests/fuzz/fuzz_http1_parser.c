/*
 * Fuzz target of the request head parser.
 *
 *  1. The parser compiled without vector code must give the same verdict and the same head.
 *  2. Fed in pieces (sizes drawn from the input) it must end in the verdict of the whole.
 *  3. A verdict on a prefix is the verdict on everything that starts with it.
 *  4. An accepted head keeps the promises of the header: strings inside the input, no control
 *     bytes, one framing, one Host.
 *
 * Input: one byte each for the limits of head (x 16), fields and target, one seed for the cuts,
 * then the bytes of the head. Link with http1_parser.c; the second copy is compiled in here.
 */
#include <stdlib.h>
#include <string.h>

#include "shoal/net/http/http1_parser.h"

#define SHOAL_HTTP_SCAN_PORTABLE
#define shoal_http1_parse_head       portable_parse_head
#define shoal_http1_head_field       portable_head_field
#define shoal_http_list_has          portable_list_has
#define shoal_http_field_name_valid  portable_field_name_valid
#define shoal_http_field_value_valid portable_field_value_valid
#define shoal_http_method_name       portable_method_name
int portable_parse_head(const char *buf, size_t len, size_t scanned,
                        const struct shoal_http_limits *limits, struct shoal_http1_head *head);
const struct shoal_str *portable_head_field(const struct shoal_http1_head *head, const char *name,
                                            uint32_t *from);
bool portable_list_has(struct shoal_str list, const char *token);
bool portable_field_name_valid(struct shoal_str name);
bool portable_field_value_valid(struct shoal_str value);
const char *portable_method_name(enum shoal_http_method method);
#include "../../net/http/http1_parser.c"
#undef shoal_http1_parse_head
#undef shoal_http1_head_field
#undef shoal_http_list_has
#undef shoal_http_field_name_valid
#undef shoal_http_field_value_valid
#undef shoal_http_method_name

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

#define FIELDS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same_str(struct shoal_str a, struct shoal_str b)
{
    return a.len == b.len && a.ptr == b.ptr;
}

static void require_same(const struct shoal_http1_head *a, const struct shoal_http1_head *b)
{
    REQUIRE(a->method == b->method && a->minor_version == b->minor_version);
    REQUIRE(a->keep_alive == b->keep_alive && a->chunked == b->chunked);
    REQUIRE(a->has_content_length == b->has_content_length && a->upgrade == b->upgrade);
    REQUIRE(a->content_length == b->content_length && a->expect_continue == b->expect_continue);
    REQUIRE(a->head_bytes == b->head_bytes && a->field_count == b->field_count);
    REQUIRE(same_str(a->method_name, b->method_name) && same_str(a->target, b->target));
    REQUIRE(same_str(a->path, b->path) && same_str(a->query, b->query));
    REQUIRE(same_str(a->host, b->host));
    for (uint32_t i = 0; i < a->field_count; i++) {
        REQUIRE(same_str(a->fields[i].name, b->fields[i].name));
        REQUIRE(same_str(a->fields[i].value, b->fields[i].value));
    }
}

static void require_inside(struct shoal_str str, const char *buf, int rc)
{
    REQUIRE(str.ptr >= buf && str.ptr + str.len <= buf + rc);
}

static void require_sound(const struct shoal_http1_head *head, const char *buf, int rc,
                          const struct shoal_http_limits *limits)
{
    REQUIRE((uint32_t)rc == head->head_bytes && head->head_bytes <= limits->head_bytes_max);
    REQUIRE(rc >= 4 && memcmp(buf + rc - 4, "\r\n\r\n", 4) == 0);
    REQUIRE(head->field_count <= limits->fields_max && head->target.len <= limits->uri_bytes_max);
    REQUIRE(!(head->chunked && (head->has_content_length || head->minor_version == 0)));
    REQUIRE(head->content_length <= INT64_MAX && head->minor_version <= 9);
    require_inside(head->method_name, buf, rc);
    require_inside(head->target, buf, rc);
    require_inside(head->path, buf, rc);
    require_inside(head->query, buf, rc);
    require_inside(head->host, buf, rc);
    REQUIRE(shoal_http_field_name_valid(head->method_name));
    REQUIRE(memchr(head->target.ptr, ' ', head->target.len) == NULL);
    for (uint32_t i = 0; i < head->field_count; i++) {
        const struct shoal_str value = head->fields[i].value;
        require_inside(head->fields[i].name, buf, rc);
        require_inside(value, buf, rc);
        REQUIRE(shoal_http_field_name_valid(head->fields[i].name));
        REQUIRE(shoal_http_field_value_valid(value));
        REQUIRE(value.len == 0 || (value.ptr[0] > ' ' || (uint8_t)value.ptr[0] >= 0x80));
        REQUIRE(value.len == 0 || (value.ptr[value.len - 1] != ' '));
    }
    uint32_t from = 0;
    const struct shoal_str *host = shoal_http1_head_field(head, "host", &from);
    REQUIRE(host != NULL || head->minor_version == 0);
    REQUIRE(shoal_http1_head_field(head, "host", &from) == NULL);
    from = 0;
    const bool has_length = shoal_http1_head_field(head, "content-length", &from) != NULL;
    REQUIRE(has_length == head->has_content_length);
    REQUIRE(shoal_http1_head_field(head, "content-length", &from) == NULL);
    REQUIRE((shoal_http1_head_field(head, "transfer-encoding", NULL) != NULL) == head->chunked);
}

/* Feeds pieces of drawn sizes; gives the first verdict. */
static int feed(const char *buf, size_t len, unsigned seed, const struct shoal_http_limits *limits,
                struct shoal_http1_head *head)
{
    size_t scanned = 0;
    const unsigned piece_max = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 7 : 200;
    for (;;) {
        seed = seed * 1103515245U + 12345U;
        const size_t step = 1 + (seed >> 16) % piece_max;
        const size_t have = len - scanned < step ? len : scanned + step;
        const int rc = shoal_http1_parse_head(buf, have, scanned, limits, head);
        if (rc != 0 || have == len)
            return rc;
        scanned = have;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct shoal_http_field fields[3][FIELDS_MAX];
    if (size < 4 || size > 16384)
        return 0;
    const struct shoal_http_limits limits = {16U * (data[0] + 1U), data[1], 16U * data[2] + 1};
    const size_t len = size - 4;
    /* With an end appended in a second run, so that every input comes to a verdict there. */
    char *buf = malloc(len + 4);
    REQUIRE(buf != NULL);
    memcpy(buf, data + 4, len);
    memcpy(buf + len, "\r\n\r\n", 4);
    struct shoal_http1_head whole = {.fields = fields[0]};
    struct shoal_http1_head portable = {.fields = fields[1]};
    struct shoal_http1_head fed = {.fields = fields[2]};
    int first = 0;
    for (size_t end = len; end <= len + 4; end += 4) {
        const int rc = shoal_http1_parse_head(buf, end, 0, &limits, &whole);
        REQUIRE(portable_parse_head(buf, end, 0, &limits, &portable) == rc);
        REQUIRE(first == 0 || rc == first);
        first = rc;
        const int fed_rc = feed(buf, end, data[3] + 1U, &limits, &fed);
        /* Without an end a fault may be found later than at once, but it is found. */
        REQUIRE(fed_rc == rc || (fed_rc == 0 && rc < 0 && end == len));
        if (rc > 0) {
            require_same(&portable, &whole);
            require_same(&fed, &whole);
            require_sound(&whole, buf, rc, &limits);
        }
    }
    REQUIRE(first != 0);
    free(buf);
    return 0;
}
