/*
 * Tests of what the request head parser reads out of fields: Host, Content-Length,
 * Transfer-Encoding, Connection, Upgrade, Expect. Whatever could be framed in two ways is refused.
 *
 *  1. Each row is tried in all the ways of http1_check.h.
 */
#include "shoal/net/http/http1_parser.h"

#include "http1_check.h"

static void http1_framing_host_is_judged(void **unused)
{
    (void)unused;
    static const struct {
        const char *value;
        int expected;
    } rows[] = {{"a", OK},
                {"a.example", OK},
                {"A-b_c~d.e", OK},
                {"127.0.0.1:8080", OK},
                {"[::1]", OK},
                {"[::1]:80", OK},
                {"a:", OK},
                {"a:0", OK},
                {"a:65535", OK},
                {"", OK},
                {"a%20b", OK},
                {"!$&'()*+,;=", OK},
                {"[::ffff:1.2.3.4]:1", OK},
                {"abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz:80", OK},
                {"a:65536", -400},
                {"a:000080", -400},
                {"a:-1", -400},
                {"a:8x", -400},
                {"a:1:2", -400},
                {":80", -400},
                {"a b", -400},
                {"a/b", -400},
                {"a?b", -400},
                {"a#b", -400},
                {"u@a", -400},
                {"a\\b", -400},
                {"<a>", -400},
                {"\"a\"", -400},
                {"a%2", -400},
                {"a%zz", -400},
                {"a%2z", -400},
                {"a%2z:80", -400},
                {"%", -400},
                {"[", -400},
                {"[]", -400},
                {"[:]", -400},
                {"[::1", -400},
                {"::1", -400},
                {"[::1]x", -400},
                {"[g::1]", -400},
                {"[fe80::1%25e]", -400},
                {"\x80", -400},
                {"a|b", -400},
                {"a, b", -400},
                {"a^b", -400},
                {"a`b", -400},
                {"a\tb", -400},
                {"[v1.a]", -400}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[256];
        int len = snprintf(text, sizeof(text), GET11 "hOsT: %s \r\n" END, rows[i].value);
        struct parsed p;
        check(&p, text, (size_t)len, rows[i].expected);
        if (rows[i].expected == OK)
            assert_str(p.head.host, rows[i].value);
        free(p.buf);
    }
}

static void http1_framing_one_host_is_required(void **unused)
{
    (void)unused;
    const struct row more[] = {{LIT(GET11 END), -400},
                               {LIT(GET11 "Hos: a\r\n" END), -400},
                               {LIT(GET11 "Hosts: a\r\n" END), -400},
                               {LIT(GET11 H H END), -400},
                               {LIT(GET11 H "host: b\r\n" END), -400},
                               {LIT("GET http://b/ HTTP/1.1\r\n" END), -400},
                               {LIT("GET http://b/ HTTP/1.1\r\nHost: \x80\r\n" END), -400},
                               {LIT("GET / HTTP/1.0\r\n" END), OK},
                               {LIT("GET / HTTP/1.0\r\n" H H END), -400},
                               {LIT("GET / HTTP/1.0\r\nHost: /\r\n" END), -400}};
    CHECK_ROWS(more);
}

static void http1_framing_content_length_is_judged(void **unused)
{
    (void)unused;
#define CL(value) LIT("POST / HTTP/1.1\r\n" H "Content-Length: " value "\r\n" END)
    const struct row rows[] = {{CL("0"), OK},
                               {CL("9223372036854775807"), OK},
                               {CL("0005"), OK},
                               {CL(" 5 "), OK},
                               {CL("00000000000000000000000000005"), OK},
                               {CL("9223372036854775808"), -400},
                               {CL("18446744073709551615"), -400},
                               {CL("18446744073709551616"), -400},
                               {CL("18446744073709551621"), -400},
                               {CL("99999999999999999999999999"), -400},
                               {CL(""), -400},
                               {CL("+5"), -400},
                               {CL("-5"), -400},
                               {CL("-0"), -400},
                               {CL("5, 5"), -400},
                               {CL("5,5"), -400},
                               {CL("5 5"), -400},
                               {CL("0x5"), -400},
                               {CL("5;"), -400},
                               {CL("5.0"), -400},
                               {CL("1e3"), -400},
                               {CL("five"), -400},
                               {CL("\xb2"), -400},
                               {CL("5\r\nContent-Length: 6"), -400},
                               {CL("5\r\ncontent-length: 5"), -400},
                               {CL("0\r\nX: y\r\nCONTENT-LENGTH: 0"), -400}};
#undef CL
    CHECK_ROWS(rows);
    struct parsed p;
    check(&p, LIT("POST / HTTP/1.0\r\ncOnTeNt-LeNgTh:0123456789012\r\n" END), OK);
    assert_true(p.head.has_content_length);
    assert_int_equal(p.head.content_length, 123456789012);
    free(p.buf);
}

static void http1_framing_transfer_encoding_is_judged(void **unused)
{
    (void)unused;
#define TE(value) LIT("POST / HTTP/1.1\r\n" H "Transfer-Encoding: " value "\r\n" END)
    const struct row rows[] = {
        {TE("chunked"), OK},
        {TE("CHUNKed"), OK},
        {TE("gzip"), -501},
        {TE("identity"), -501},
        {TE("xchunked"), -501},
        {TE("chunkedx"), -501},
        {TE("gzip, chunked"), -501},
        {TE("gzip;q=1, chunked"), -501},
        {TE("gzip ; q=1"), -501},
        {TE("gzip x"), -400},
        {TE("gzip/x"), -400},
        {TE("gzip\r\nTransfer-Encoding: chunked"), -501},
        {TE("gzip\r\nExpect: x"), -501},
        {TE("chunked, gzip"), -400},
        {TE("chunked, chunked"), -400},
        {TE("chunked\r\nTransfer-Encoding: chunked"), -400},
        {TE("chunked\r\ntransfer-encoding: gzip"), -400},
        {TE("chunked\r\ntransfer-encoding: "), -400},
        {TE("chunked;q=1"), -400},
        {TE("chunked chunked"), -400},
        {TE("chunked gzip"), -400},
        {TE("\"chunked\""), -400},
        {TE("'chunked"), -501},
        {TE(""), -400},
        {TE(","), -400},
        {TE("chunked,"), -400},
        {TE(",chunked"), -400},
        {TE("gzip,,chunked"), -400},
        {TE(";chunked"), -400},
        {TE("chunked=1"), -400},
        {TE("chunked/"), -400},
        {TE("\x80"), -400},
        {TE("\x0b"
            "chunked"),
         -400},
        {TE("chunked\r\nContent-Length: 5"), -400},
        {TE("gzip\r\nContent-Length: 5"), -400},
        {LIT("POST / HTTP/1.1\r\n" H "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" END),
         -400},
        {LIT("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n" END), -400},
        {LIT("POST / HTTP/1.0\r\n" H "Transfer-Encoding: gzip\r\n" END), -400},
        {LIT("POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n" END), -400}};
#undef TE
    CHECK_ROWS(rows);
    struct parsed p;
    check(&p, LIT("POST / HTTP/1.1\r\n" H "tRANSFER-eNCODING:chunked\r\n" END), OK);
    assert_true(p.head.chunked);
    assert_false(p.head.has_content_length);
    free(p.buf);
    check(&p,
          LIT("POST / HTTP/1.1\r\n" H "Transfer_Encoding: chunked\r\nTransfer-Encodinh: x\r\n" END),
          OK);
    assert_false(p.head.chunked);
    free(p.buf);
}

static void http1_framing_connection_decides_keep_alive(void **unused)
{
    (void)unused;
    static const struct {
        int minor;
        const char *fields;
        bool keep_alive, upgrade;
    } rows[] = {{1, "", true, false},
                {0, "", false, false},
                {1, "Connection: close\r\n", false, false},
                {1, "connection: CLOSE\r\n", false, false},
                {1, "Connection: keep-alive\r\n", true, false},
                {0, "Connection: Keep-Alive\r\n", true, false},
                {1, "Connection: keep-alive, close\r\n", false, false},
                {0, "Connection: close, keep-alive\r\n", false, false},
                {0, "Connection: x,, keep-alive ,\r\n", true, false},
                {1, "Connection: x\r\nConnection: y,close\r\n", false, false},
                {1, "Connection: closed, xclose, clos\r\n", true, false},
                {0, "Connection: keep-alives\r\n", false, false},
                {1, "Connection:\r\n", true, false},
                {1, "Proxy-Connection: close\r\n", true, false},
                {1, "Connection: Upgrade\r\nUpgrade: websocket\r\n", true, true},
                {1, "UPGRADE: h2c\r\nConnection: close, UPGRADE\r\n", false, true},
                {1, "Upgrade: websocket\r\n", true, false},
                {1, "Connection: upgrade\r\n", true, false},
                {1, "Connection: upgrade\r\nUpgrade:\r\n", true, false},
                {0, "Connection: upgrade\r\nUpgrade: websocket\r\n", false, false}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char text[256];
        const int len = snprintf(text, sizeof(text), "GET / HTTP/1.%d\r\n" H "%s" END,
                                 rows[i].minor, rows[i].fields);
        struct parsed p;
        check(&p, text, (size_t)len, OK);
        assert_int_equal(p.head.keep_alive, rows[i].keep_alive);
        assert_int_equal(p.head.upgrade, rows[i].upgrade);
        free(p.buf);
    }
}

static void http1_framing_expectation_is_judged(void **unused)
{
    (void)unused;
    const struct row rows[] = {{LIT(GET11 H "Expect: 200-ok\r\n" END), -417},
                               {LIT(GET11 H "Expect:\r\n" END), -417},
                               {LIT(GET11 H "expect: 100-continue, x\r\n" END), -417},
                               {LIT(GET11 H "Expect: 100-continue\r\nExpect: x\r\n" END), -417},
                               {LIT("GET / HTTP/1.0\r\nExpect: x\r\n" END), -417},
                               {LIT(GET11 "Expect: x\r\n" END), -400},
                               {LIT(GET11 H "Expects: x\r\n" END), OK},
                               {LIT(GET11 H "Expert: x\r\nExport: x\r\nUnpect: x\r\n" END), OK},
                               {LIT(GET11 H "Accept: x\r\n" END), OK}};
    CHECK_ROWS(rows);
    struct parsed p;
    check(&p, LIT("PUT / HTTP/1.1\r\n" H "EXPECT: 100-Continue\r\n" END), OK);
    assert_true(p.head.expect_continue);
    free(p.buf);
    check(&p, LIT("PUT / HTTP/1.0\r\n" H "Expect: 100-continue\r\n" END), OK);
    assert_false(p.head.expect_continue);
    free(p.buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http1_framing_host_is_judged),
        cmocka_unit_test(http1_framing_one_host_is_required),
        cmocka_unit_test(http1_framing_content_length_is_judged),
        cmocka_unit_test(http1_framing_transfer_encoding_is_judged),
        cmocka_unit_test(http1_framing_connection_decides_keep_alive),
        cmocka_unit_test(http1_framing_expectation_is_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
