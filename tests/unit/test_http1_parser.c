/*
 * Tests of the request head parser: request line, targets, field syntax, limits, and feeding.
 * What the fields mean is in test_http1_framing.c, the byte search in test_http1_scan.c.
 *
 *  1. Every rule of the header is a row of a table, and each row is tried in all the ways of
 *     http1_check.h.
 *  2. Limits are tried at their value and one beyond, and with every byte on the way there.
 */
#include "shoal/net/http/http1_parser.h"

#include "http1_check.h"

static void http1_parser_plain_get_fills_head(void **unused)
{
    (void)unused;
    struct parsed p;
    check(&p,
          LIT("GET /a/b?x=1?y HTTP/1.1\r\nHost: h:80\r\nX-Two:\t two words \t\r\nEmpty:\r\n"
              "Blank:  \r\nobs: \x80\xff\r\n\r\n"),
          OK);
    const struct shoal_http1_head *head = &p.head;
    assert_int_equal(head->method, SHOAL_HTTP_GET);
    assert_str(head->method_name, "GET");
    assert_str(head->target, "/a/b?x=1?y");
    assert_str(head->path, "/a/b");
    assert_str(head->query, "x=1?y");
    assert_str(head->host, "h:80");
    assert_int_equal(head->minor_version, 1);
    assert_true(head->keep_alive);
    assert_false(head->chunked);
    assert_false(head->has_content_length);
    assert_false(head->expect_continue);
    assert_false(head->upgrade);
    assert_int_equal(head->field_count, 5);
    assert_str(head->fields[1].name, "X-Two");
    assert_str(head->fields[1].value, "two words");
    assert_str(head->fields[2].value, "");
    assert_str(head->fields[3].value, "");
    assert_str(head->fields[4].value, "\x80\xff");
    free(p.buf);
}

static void http1_parser_bytes_after_head_are_left(void **unused)
{
    (void)unused;
    struct parsed p;
    const char text[] = GET11 H END "GET /next HTTP/1.1\r\n";
    assert_int_equal(parse_copy(&p, LIT(text), 0, &wide), strlen(GET11 H END));
    assert_int_equal(p.head.head_bytes, strlen(GET11 H END));
    free(p.buf);
}

static void http1_parser_one_empty_line_before_is_overlooked(void **unused)
{
    (void)unused;
    struct parsed p;
    check(&p, LIT("\r\n" GET11 H END), OK);
    assert_str(p.head.method_name, "GET");
    free(p.buf);
    const struct row rows[] = {{LIT(""), 0},
                               {LIT("\r"), 0},
                               {LIT("\r\n"), 0},
                               {LIT("\r\n\r\n" GET11 H END), -400},
                               {LIT("\n" GET11), -400},
                               {LIT("\rGET"), -400},
                               {LIT(" \r\n"), -400}};
    CHECK_ROWS(rows);
}

static void http1_parser_method_is_recognised(void **unused)
{
    (void)unused;
    const struct {
        const char *name;
        enum shoal_http_method method;
    } rows[] = {
        {"GET", SHOAL_HTTP_GET},        {"HEAD", SHOAL_HTTP_HEAD},
        {"POST", SHOAL_HTTP_POST},      {"PUT", SHOAL_HTTP_PUT},
        {"DELETE", SHOAL_HTTP_DELETE},  {"OPTIONS", SHOAL_HTTP_OPTIONS},
        {"TRACE", SHOAL_HTTP_TRACE},    {"PATCH", SHOAL_HTTP_PATCH},
        {"get", SHOAL_HTTP_OTHER},      {"GETS", SHOAL_HTTP_OTHER},
        {"GE", SHOAL_HTTP_OTHER},       {"Post", SHOAL_HTTP_OTHER},
        {"CONNECTS", SHOAL_HTTP_OTHER}, {"!#$%&'*+-.^_`|~09aZ", SHOAL_HTTP_OTHER},
        {"PROPFIND", SHOAL_HTTP_OTHER}, {"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", SHOAL_HTTP_OTHER}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[128];
        const int len = snprintf(text, sizeof(text), "%s /x HTTP/1.1\r\n" H END, rows[i].name);
        struct parsed p;
        check(&p, text, (size_t)len, OK);
        assert_int_equal(p.head.method, rows[i].method);
        assert_str(p.head.method_name, rows[i].name);
        free(p.buf);
        if (rows[i].method != SHOAL_HTTP_OTHER)
            assert_string_equal(shoal_http_method_name(rows[i].method), rows[i].name);
    }
    assert_string_equal(shoal_http_method_name(SHOAL_HTTP_CONNECT), "CONNECT");
    assert_string_equal(shoal_http_method_name(SHOAL_HTTP_OTHER), "OTHER");
}

static void http1_parser_bad_request_line_is_refused(void **unused)
{
    (void)unused;
    const struct row rows[] = {
        {LIT("GET  / HTTP/1.1\r\n" H END), -400},
        {LIT("GET /  HTTP/1.1\r\n" H END), -400},
        {LIT("GET\t/ HTTP/1.1\r\n" H END), -400},
        {LIT("GET /\tHTTP/1.1\r\n" H END), -400},
        {LIT(" GET / HTTP/1.1\r\n" H END), -400},
        {LIT(" / HTTP/1.1\r\n" H END), -400},
        {LIT("GET / HTTP/1.1 \r\n" H END), -400},
        {LIT("GET /\r\n" H END), -400},
        {LIT("GET\r\n"), -400},
        {LIT("G@T / HTTP/1.1\r\n"), -400},
        {LIT("G(T / HTTP/1.1\r\n"), -400},
        {LIT("G\x80T / HTTP/1.1\r\n"), -400},
        {LIT("G\0T / HTTP/1.1\r\n"), -400},
        {LIT("\x16\x03\x01\x02\x00\x01"), -400}, /* a TLS client */
        {LIT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" H END), -501},
        {LIT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"), -501},
        {LIT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF"), 0},
        {LIT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF@"), -400},
        {LIT("GET / HTTP/1.1\n" H END), -400},
        {LIT("GET / HTTP/1.1\r" H END), -400},
        {LIT("GET / HTTP/1.1\r\r\n" H END), -400}};
    CHECK_ROWS(rows);
}

static void http1_parser_version_is_judged(void **unused)
{
    (void)unused;
    const struct row rows[] = {{LIT("GET / HTTP/1.0\r\n" H END), OK},
                               {LIT("GET / HTTP/1.9\r\n" H END), OK},
                               {LIT("GET / HTTP/2.0\r\n" H END), -505},
                               {LIT("GET / HTTP/0.9\r\n" H END), -505},
                               {LIT("GET / HTTP/9.1\r\n" H END), -505},
                               {LIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), -505},
                               {LIT("GET / HTTP/2\r\n" H END), -400},
                               {LIT("GET / HTTP/1\r\n" H END), -400},
                               {LIT("GET / HTTP/1.\r\n" H END), -400},
                               {LIT("GET / HTTP/1.10\r\n" H END), -400},
                               {LIT("GET / HTTP/11.1\r\n" H END), -400},
                               {LIT("GET / HTTP/01.1\r\n" H END), -400},
                               {LIT("GET / http/1.1\r\n" H END), -400},
                               {LIT("GET / HTTP 1.1\r\n" H END), -400},
                               {LIT("GET / HTTP/1,1\r\n" H END), -400},
                               {LIT("GET / HTTP/a.1\r\n" H END), -400},
                               {LIT("GET / HTTP/1.x\r\n" H END), -400},
                               {LIT("GET / HTTQ"), -400},
                               {LIT("GET / HTTP/1.1x\r\n" H END), -400},
                               {LIT("GET / \r\n" H END), -400},
                               {LIT("GET / HTTP/1.1"), 0},
                               {LIT("GET / HTTP/2.0"), 0},
                               {LIT("GET / HTTP/2.0\r"), 0},
                               {LIT("GET / HTTP/2.0x"), -400}};
    CHECK_ROWS(rows);
    struct parsed p;
    check(&p, LIT("GET / HTTP/1.7\r\n" H END), OK);
    assert_int_equal(p.head.minor_version, 7);
    assert_true(p.head.keep_alive);
    free(p.buf);
}

static void http1_parser_target_form_is_split(void **unused)
{
    (void)unused;
    const struct {
        const char *line, *path, *query, *host;
    } rows[] = {{"GET /", "/", "", "a"},
                {"GET //x", "//x", "", "a"},
                {"GET /?", "/", "", "a"},
                {"GET /??", "/", "?", "a"},
                {"GET /%zz:@!$&'()*+,;=|\"<>\\^`{}[]", "/%zz:@!$&'()*+,;=|\"<>\\^`{}[]", "", "a"},
                {"GET /0123456789abcdef0123?456789abcdef?0", "/0123456789abcdef0123",
                 "456789abcdef?0", "a"},
                {"OPTIONS *", "*", "", "a"},
                {"OPTIONS /x", "/x", "", "a"},
                {"CONNECT h.example:443", "", "", "h.example:443"},
                {"CONNECT [::1]:443", "", "", "[::1]:443"},
                {"GET http://b/x?y", "/x", "y", "b"},
                {"GET HTTP://b:81/", "/", "", "b:81"},
                {"GET https://b", "/", "", "b"},
                {"GET http://b?q", "/", "q", "b"},
                {"GET http://b/x?u=http://c/", "/x", "u=http://c/", "b"},
                {"GET http://[::1]:8080/x", "/x", "", "[::1]:8080"},
                {"GET http://b//x", "//x", "", "b"},
                {"OPTIONS http://b", "/", "", "b"}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[256];
        const int len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\n" H END, rows[i].line);
        struct parsed p;
        check(&p, text, (size_t)len, OK);
        assert_str(p.head.target, strchr(rows[i].line, ' ') + 1);
        assert_str(p.head.path, rows[i].path);
        assert_str(p.head.query, rows[i].query);
        assert_str(p.head.host, rows[i].host);
        free(p.buf);
    }
}

static void http1_parser_bad_target_is_refused(void **unused)
{
    (void)unused;
    static const char *const lines[] = {"GET *",
                                        "POST *",
                                        "OPTIONS **",
                                        "OPTIONS *?x",
                                        "GET x",
                                        "GET x/y",
                                        "GET ?x",
                                        "GET /#f",
                                        "GET /a#",
                                        "GET /?#",
                                        "GET /\x7f",
                                        "GET /\x80",
                                        "GET /?\xff",
                                        "GET /\x01",
                                        "GET /?\x1f",
                                        "GET a:80",
                                        "GET http://",
                                        "GET http:///x",
                                        "GET http://u@b/",
                                        "GET http://u:p@b/x",
                                        "GET http:/b",
                                        "GET http:b",
                                        "GET ftp://b/",
                                        "GET ws://b/",
                                        "GET http://b:x/",
                                        "GET http://b:1:2/",
                                        "GET http://:80/",
                                        "GET http://?x",
                                        "GET https://",
                                        "GET http://b\\c/",
                                        "GET http://[::1/",
                                        "GET http://b:65536/",
                                        "CONNECT /",
                                        "CONNECT h",
                                        "CONNECT h:",
                                        "CONNECT :80",
                                        "CONNECT h:x",
                                        "CONNECT h:80/",
                                        "CONNECT http://h:80",
                                        "CONNECT h:80?x",
                                        "CONNECT *",
                                        "CONNECT u@h:80",
                                        "CONNECT [::1]",
                                        "CONNECT h:99999"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(lines); i++) {
        char text[256];
        const int len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\n" H END, lines[i]);
        struct parsed p;
        check(&p, text, (size_t)len, -400);
        free(p.buf);
    }
    const struct row rows[] = {{LIT("GET /\0 HTTP/1.1\r\n" H END), -400}};
    CHECK_ROWS(rows);
}

static void http1_parser_bad_field_is_refused(void **unused)
{
    (void)unused;
    const struct row rows[] = {
        {LIT(GET11 H "A : b\r\n" END), -400},
        {LIT(GET11 H "A\t: b\r\n" END), -400},
        {LIT(GET11 H ": b\r\n" END), -400},
        {LIT(GET11 H "A\r\n" END), -400},
        {LIT(GET11 H "A b: c\r\n" END), -400},
        {LIT(GET11 H "A(: b\r\n" END), -400},
        {LIT(GET11 H "A\"b\": c\r\n" END), -400},
        {LIT(GET11 H "A\x80: b\r\n" END), -400},
        {LIT(GET11 H "A\0: b\r\n" END), -400},
        {LIT(GET11 H "A/b: c\r\n" END), -400},
        {LIT(GET11 H "A@: c\r\n" END), -400},
        {LIT(GET11 H "A[: c\r\n" END), -400},
        {LIT(GET11 H "A{: c\r\n" END), -400},
        {LIT(GET11 " Host: a\r\n" END), -400},
        {LIT(GET11 H " folded\r\n" END), -400},
        {LIT(GET11 H "A: b\r\n\tfolded\r\n" END), -400},
        {LIT(GET11 H "A: b\r\n folded\r\n" END), -400},
        {LIT(GET11 H "A: b\r\n \r\n" END), -400},
        {LIT(GET11 H "A: b\n" END), -400},
        {LIT(GET11 H "A: b\rC: d\r\n" END), -400},
        {LIT(GET11 H "A: b\rXC: d\r\n" END), -400},
        {LIT(GET11 H "A: b\r\r\n" END), -400},
        {LIT(GET11 H "A: \r\r\n" END), -400},
        {LIT(GET11 H "A: b\0c\r\n" END), -400},
        {LIT(GET11 H "A: b\x01\r\n" END), -400},
        {LIT(GET11 H "A: b\x0b\r\n" END), -400},
        {LIT(GET11 H "A: \x0c\r\n" END), -400},
        {LIT(GET11 H "A: \x1f\r\n" END), -400},
        {LIT(GET11 H "A: \x7f\r\n" END), -400},
        {LIT(GET11 H "\n"), -400},
        {LIT(GET11 H "\rX"), -400},
        {LIT(GET11 H "A: b\r\n\n"), -400},
        {LIT(GET11 "Host: a\n\r\n"), -400},
        {LIT(GET11 "Host: a\n\n"), -400},
        {LIT(GET11 H "!#$%&'*+-.^_`|~09aZ: x\r\n" END), OK},
        {LIT(GET11 H "A: b\tc\x80\xff\r\n" END), OK},
        {LIT(GET11 H "A:b\r\n" END), OK},
        {LIT(GET11 H "A: : ::\r\n" END), OK},
        {LIT(GET11 H "A-name-longer-than-sixteen_bytes-with-a-break!: b\r\n" END), OK},
        {LIT(GET11 H "\r"), 0},
        {LIT(GET11 H "A: b\r"), 0},
        {LIT(GET11 H "A: b"), 0},
        {LIT(GET11 H "A:"), 0},
        {LIT(GET11 H "A"), 0},
        {LIT(GET11 H), 0}};
    CHECK_ROWS(rows);
}

static void http1_parser_limit_reached_passes_and_exceeded_fails(void **unused)
{
    (void)unused;
    const char text[] = "\r\nGET /abcdef?gh HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    const uint32_t len = sizeof(text) - 1;
    const uint32_t line = sizeof("\r\nGET /abcdef?gh HTTP/1.1\r\n") - 1;
    for (uint32_t bytes = 1; bytes <= len + 1; bytes++) {
        const struct shoal_http_limits limits = {bytes, FIELDS_MAX, 64};
        struct parsed p;
        check_limited(&p, text, len, bytes >= len ? OK : bytes >= line ? -431 : -414, &limits);
        free(p.buf);
    }
    for (uint32_t uri = 0; uri <= 11; uri++) {
        const struct shoal_http_limits limits = {4096, FIELDS_MAX, uri};
        struct parsed p;
        check_limited(&p, text, len, uri >= 10 ? OK : -414, &limits);
        free(p.buf);
    }
    for (uint32_t fields = 0; fields <= 3; fields++) {
        const struct shoal_http_limits limits = {4096, fields, 64};
        struct parsed p;
        check_limited(&p, text, len, fields >= 2 ? OK : -431, &limits);
        free(p.buf);
    }
}

/* An endless head is refused with the very byte that breaks the limit, however it comes. */
static void http1_parser_endless_head_is_refused_at_once(void **unused)
{
    (void)unused;
    const struct {
        const char *start;
        int expected;
        uint32_t refused_at; /* bytes */
    } rows[] = {{"GET /", -414, 4 + 300 + 1},
                {"\r\nPROPFIND /?", -414, 2 + 9 + 300 + 1},
                {GET11 "A: ", -431, 1000},
                {GET11 "", -431, 1000},
                {GET11 H "B: \x80", -431, 1000}};
    const struct shoal_http_limits limits = {1000, FIELDS_MAX, 300};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[1200];
        memset(text, 'x', sizeof(text));
        memcpy(text, rows[i].start, strlen(rows[i].start));
        for (size_t have = 1; have <= rows[i].refused_at; have++) {
            const int expected = have < rows[i].refused_at ? 0 : rows[i].expected;
            struct parsed p;
            assert_int_equal(parse_copy(&p, text, have, have - 1, &limits), expected);
            free(p.buf);
            assert_int_equal(parse_copy(&p, text, have, 0, &limits), expected);
            free(p.buf);
        }
        struct parsed p;
        assert_int_equal(parse_copy(&p, text, sizeof(text), 0, &limits), rows[i].expected);
        free(p.buf);
    }
}

/* Without an end of the head: bad line ends are found at once, other faults by the next doubling.
 */
static void http1_parser_fault_of_unfinished_head_is_found(void **unused)
{
    (void)unused;
    const struct {
        const char *seen, *next;
    } rows[] = {{GET11 H "A: b", "\n"},      {GET11 H "A: b\r", "x"}, {GET11 H "A: b", "\rx"},
                {GET11 H "A: b\r\nC", "\n"}, {GET11 H "A: b", "\1"},  {GET11 H "A: b", "\x7f"}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[128];
        const int len = snprintf(text, sizeof(text), "%s%s", rows[i].seen, rows[i].next);
        struct parsed p;
        assert_int_equal(parse_copy(&p, text, strlen(rows[i].seen), 0, &wide), 0);
        free(p.buf);
        assert_int_equal(parse_copy(&p, text, (size_t)len, strlen(rows[i].seen), &wide), -400);
        free(p.buf);
    }
    char text[200];
    memset(text, 'x', sizeof(text));
    memcpy(text, LIT("GET / HTTQ"));
    for (size_t have = 1; have <= 16; have++) {
        struct parsed p;
        assert_int_equal(parse_copy(&p, text, have, have - 1, &wide), have < 16 ? 0 : -400);
        free(p.buf);
    }
}

static void http1_parser_byte_by_byte_parses_rarely(void **unused)
{
    (void)unused;
    char text[4000];
    memset(text, 'x', sizeof(text));
    memcpy(text, LIT(GET11 H "A: "));
    for (size_t at = 100; at + 10 < sizeof(text); at += 100)
        memcpy(text + at, LIT("\r\nB: c"));
    memcpy(text + sizeof(text) - 4, LIT("\r\n\r\n"));
    const struct shoal_http_limits limits = {sizeof(text), 100, 2000};
    struct shoal_http_field fields[100];
    unsigned parses = 0;
    int rc = 0;
    for (size_t have = 1; have <= sizeof(text); have++) {
        struct shoal_http1_head head = {.fields = fields, .head_bytes = 12345};
        rc = shoal_http1_parse_head(text, have, have - 1, &limits, &head);
        parses += head.head_bytes != 12345;
    }
    assert_int_equal(rc, sizeof(text));
    assert_in_range(parses, 8, 16);
}

static void http1_parser_field_lookup_finds_all(void **unused)
{
    (void)unused;
    struct parsed p;
    check(&p, LIT(GET11 H "Cookie: a\r\nX: y\r\ncookie: b\r\n" END), OK);
    assert_str(*shoal_http1_head_field(&p.head, "COOKIE", NULL), "a");
    assert_str(*shoal_http1_head_field(&p.head, "x", NULL), "y");
    assert_null(shoal_http1_head_field(&p.head, "cooki", NULL));
    uint32_t from = 0;
    assert_str(*shoal_http1_head_field(&p.head, "cookie", &from), "a");
    assert_str(*shoal_http1_head_field(&p.head, "cookie", &from), "b");
    assert_null(shoal_http1_head_field(&p.head, "cookie", &from));
    assert_null(shoal_http1_head_field(&p.head, "cookie", &from));
    free(p.buf);
}

static void http1_parser_helpers_judge_tokens(void **unused)
{
    (void)unused;
    assert_true(shoal_http_list_has(shoal_str_from("a, B ,c"), "b"));
    assert_true(shoal_http_list_has(shoal_str_from("b"), "b"));
    assert_false(shoal_http_list_has(shoal_str_from("ab, bc"), "b"));
    assert_false(shoal_http_list_has(shoal_str_make(NULL, 0), "b"));
    assert_true(shoal_http_field_name_valid(shoal_str_from("X-Y_z")));
    assert_false(shoal_http_field_name_valid(shoal_str_from("X:")));
    assert_false(shoal_http_field_name_valid(shoal_str_from("X Y")));
    assert_false(shoal_http_field_name_valid(shoal_str_make(NULL, 0)));
    assert_true(shoal_http_field_value_valid(shoal_str_from("a\tb \xff")));
    assert_true(shoal_http_field_value_valid(shoal_str_make(NULL, 0)));
    assert_false(shoal_http_field_value_valid(shoal_str_from("a\r\nSet-Cookie: b")));
    assert_false(shoal_http_field_value_valid(shoal_str_from("a\n")));
    assert_false(shoal_http_field_value_valid(shoal_str_make("\0", 1)));
    assert_true(shoal_str_equal_nocase(shoal_str_from("aZ[@"), shoal_str_from("Az[@")));
    assert_false(shoal_str_equal_nocase(shoal_str_from("["), shoal_str_from("{")));
    assert_false(shoal_str_equal_nocase(shoal_str_from("@"), shoal_str_from("`")));
    assert_false(shoal_str_equal_nocase(shoal_str_from("\r"), shoal_str_from("-")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http1_parser_plain_get_fills_head),
        cmocka_unit_test(http1_parser_bytes_after_head_are_left),
        cmocka_unit_test(http1_parser_one_empty_line_before_is_overlooked),
        cmocka_unit_test(http1_parser_method_is_recognised),
        cmocka_unit_test(http1_parser_bad_request_line_is_refused),
        cmocka_unit_test(http1_parser_version_is_judged),
        cmocka_unit_test(http1_parser_target_form_is_split),
        cmocka_unit_test(http1_parser_bad_target_is_refused),
        cmocka_unit_test(http1_parser_bad_field_is_refused),
        cmocka_unit_test(http1_parser_limit_reached_passes_and_exceeded_fails),
        cmocka_unit_test(http1_parser_endless_head_is_refused_at_once),
        cmocka_unit_test(http1_parser_fault_of_unfinished_head_is_found),
        cmocka_unit_test(http1_parser_byte_by_byte_parses_rarely),
        cmocka_unit_test(http1_parser_field_lookup_finds_all),
        cmocka_unit_test(http1_parser_helpers_judge_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
