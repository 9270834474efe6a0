/*
 * Tests of the chunked decoder.
 *
 *  1. Each row is decoded whole, cut at each point, and byte by byte, each piece in an allocation
 *     of exactly its size; body, trailers and verdict must be the same.
 *  2. Every limit is tried at its value and one beyond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/net/http/http1_chunked.h"

#define LIT(text)     (text), sizeof(text) - 1
#define TRAILER_BYTES 64

struct result {
    int status;
    size_t used; /* input bytes up to the verdict */
    uint64_t body_bytes;
    size_t body_len, trailers_len;
    char body[65536];
    char trailers[1024]; /* "name=value;" for each */
};

static void keep_trailer(void *arg, struct shoal_str name, struct shoal_str value)
{
    struct result *result = arg;
    const int n = snprintf(result->trailers + result->trailers_len,
                           sizeof(result->trailers) - result->trailers_len, "%.*s=%.*s;",
                           (int)name.len, name.ptr, (int)value.len, value.ptr);
    result->trailers_len += (size_t)n;
}

/* Decodes the `len` bytes at `text` in one go of the decoder's loop; false when it ended. */
static bool feed(struct shoal_http1_chunked *state, const char *text, size_t len,
                 struct result *result)
{
    char *copy = malloc(len);
    assert_true(len == 0 || copy != NULL);
    if (len != 0)
        memcpy(copy, text, len);
    size_t at = 0;
    for (;;) {
        size_t consumed = 12345;
        struct shoal_str piece;
        result->status = shoal_http1_chunked_decode(state, copy + at, len - at, &consumed, &piece);
        assert_true(consumed <= len - at);
        if (result->status == SHOAL_HTTP1_CHUNKED_DATA) {
            assert_true(piece.len != 0 && piece.ptr >= copy + at);
            assert_true(piece.ptr + piece.len == copy + at + consumed);
            assert_true(result->body_len + piece.len <= sizeof(result->body));
            memcpy(result->body + result->body_len, piece.ptr, piece.len);
            result->body_len += piece.len;
        } else {
            assert_int_equal(piece.len, 0);
        }
        at += consumed;
        result->used += consumed;
        result->body_bytes = state->body_bytes;
        assert_int_equal(result->body_bytes, result->body_len);
        if (result->status == SHOAL_HTTP1_CHUNKED_DATA)
            continue;
        if (result->status == SHOAL_HTTP1_CHUNKED_MORE)
            assert_int_equal(at, len);
        break;
    }
    free(copy);
    return result->status == SHOAL_HTTP1_CHUNKED_MORE;
}

/* Feeds [0, first), then `step` bytes at a time. */
static void decode(struct result *result, const char *text, size_t len, size_t first, size_t step,
                   bool with_trailers)
{
    char buf[TRAILER_BYTES];
    struct shoal_http1_trailers trailers = {
        .field = keep_trailer, .arg = result, .buf = buf, .buf_size = sizeof(buf)};
    struct shoal_http1_chunked state;
    shoal_http1_chunked_init(&state, with_trailers ? &trailers : NULL);
    memset(result, 0, sizeof(*result));
    bool more = feed(&state, text, first, result);
    for (size_t at = first; more && at < len; at += step)
        more = feed(&state, text + at, len - at < step ? len - at : step, result);
    if (!more) { /* a verdict is kept */
        const int status = result->status;
        assert_false(feed(&state, LIT("5\r\nhello\r\n0\r\n\r\n"), result));
        assert_int_equal(result->status, status);
    }
}

static struct result whole, part;

static void assert_same_result(void)
{
    assert_int_equal(part.status, whole.status);
    assert_int_equal(part.used, whole.used);
    assert_int_equal(part.body_len, whole.body_len);
    assert_memory_equal(part.body, whole.body, whole.body_len);
    assert_string_equal(part.trailers, whole.trailers);
}

/* Decodes in all ways; the result is left in `whole`. */
static void check(const char *text, size_t len, int expected)
{
    decode(&whole, text, len, len, 1, false);
    const int without = whole.status;
    const size_t body_len = whole.body_len;
    decode(&whole, text, len, len, 1, true);
    if (whole.status != expected)
        print_error("%d, not %d: %.*s\n", whole.status, expected, (int)len, text);
    assert_int_equal(whole.status, expected);
    assert_int_equal(without, expected);
    assert_int_equal(whole.body_len, body_len);
    for (size_t first = 0; first <= len && len < 1000; first++) {
        decode(&part, text, len, first, len, true);
        assert_same_result();
    }
    for (size_t step = 1; step <= 4; step++) {
        decode(&part, text, len, 0, step, true);
        assert_same_result();
    }
}

static void http1_chunked_body_comes_out(void **unused)
{
    (void)unused;
    static const struct {
        const char *text, *body;
    } rows[] = {
        {"0\r\n\r\n", ""},
        {"000\r\n\r\n", ""},
        {"5\r\nhello\r\n0\r\n\r\n", "hello"},
        {"5\r\nhello\r\n6\r\n world\r\n00\r\n\r\n", "hello world"},
        {"A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n", "0123456789abcdefghij"},
        {"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n", "abc"},
        {"2\r\n\r\n\r\n1\r\n0\r\n0\r\n\r\n", "\r\n0"},
        {"3;a\r\nabc\r\n0;b=\"c;\\\" d\"\r\n\r\n", "abc"},
        {"3 ;a\r\nabc\r\n3\t ; a = b ; c\x80\r\ndef\r\n0;\r\n\r\n", "abcdef"},
        {"1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n", "0123456789012345678901234567890"},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        check(rows[i].text, strlen(rows[i].text), SHOAL_HTTP1_CHUNKED_END);
        assert_int_equal(whole.body_len, strlen(rows[i].body));
        assert_memory_equal(whole.body, rows[i].body, whole.body_len);
        assert_int_equal(whole.used, strlen(rows[i].text));
    }
}

static void http1_chunked_next_request_is_left(void **unused)
{
    (void)unused;
    check(LIT("1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n"), SHOAL_HTTP1_CHUNKED_END);
    assert_int_equal(whole.used, strlen("1\r\nx\r\n0\r\n\r\n"));
}

static void http1_chunked_malformed_is_refused(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        size_t len;
    } rows[] = {
        {LIT("\r\n")},
        {LIT("\n")},
        {LIT(" 5\r\nhello\r\n")},
        {LIT("5\nhello\r\n")},
        {LIT("5\rhello\r\n")},
        {LIT("5\r\r\nhello")},
        {LIT("5\r\nhello\n0\r\n\r\n")},
        {LIT("5\r\nhello\r0\r\n\r\n")},
        {LIT("5\r\nhello\rx0\r\n\r\n")},
        {LIT("5\r\nhellox\n0\r\n\r\n")},
        {LIT("5\r\nhello0\r\n\r\n")},
        {LIT("5\r\nhellox\r\n0\r\n\r\n")},
        {LIT("5\r\nhello\r\n\r\n0\r\n\r\n")},
        {LIT("+5\r\nhello\r\n")},
        {LIT("-5\r\nhello\r\n")},
        {LIT("0x5\r\nhello\r\n")},
        {LIT("g\r\n")},
        {LIT("5g\r\n")},
        {LIT("5,5\r\n")},
        {LIT("5 \r\nhello\r\n")},
        {LIT("5\t\r\nhello\r\n")},
        {LIT("5 5\r\nhello\r\n")},
        {LIT("5 a=b\r\nhello\r\n")},
        {LIT(";a\r\n")},
        {LIT("5;a\nhello")},
        {LIT("5;a\rb\nhello")},
        {LIT("5;a\x01\r\n")},
        {LIT("5;a\0\r\n")},
        {LIT("5;a\x7f\r\n")},
        {LIT("5 \n")},
        {LIT("00000000000000005\r\nhello\r\n")},
        {LIT("00000000000000000\r\n\r\n")},
        {LIT("8000000000000000\r\n")},
        {LIT("ffffffffffffffff\r\n")},
        {LIT("10000000000000005\r\n")},
        {LIT("1\r\nx\r\n7fffffffffffffff\r\n")},
        {LIT("0\n\r\n")},
        {LIT("0\r\n\n")},
        {LIT("0\r\n\rx")},
        {LIT("0\r\n\r\r\n")},
        {LIT("0\r\nA : b\r\n\r\n")},
        {LIT("0\r\n: b\r\n\r\n")},
        {LIT("0\r\nA\r\n\r\n")},
        {LIT("0\r\n A: b\r\n\r\n")},
        {LIT("0\r\nA: b\r\n c\r\n\r\n")},
        {LIT("0\r\nA: b\n\r\n")},
        {LIT("0\r\nA: b\rc\r\n\r\n")},
        {LIT("0\r\nA: b\0\r\n\r\n")},
        {LIT("0\r\nA: \x7f\r\n\r\n")},
        {LIT("0\r\nA\x80: b\r\n\r\n")},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++)
        check(rows[i].text, rows[i].len, -400);
}

static void http1_chunked_prefix_asks_for_more(void **unused)
{
    (void)unused;
    const char text[] = "5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        check(text, len, SHOAL_HTTP1_CHUNKED_MORE);
    check(LIT("7fffffffffffffff\r\n"), SHOAL_HTTP1_CHUNKED_MORE);
    check(LIT("1\r\nx\r\n7ffffffffffffffe\r\nxyz"), SHOAL_HTTP1_CHUNKED_MORE);
    assert_int_equal(whole.body_len, 4);
}

static void http1_chunked_announced_size_is_readable(void **unused)
{
    (void)unused;
    struct shoal_http1_chunked state;
    struct shoal_str piece;
    size_t consumed;
    shoal_http1_chunked_init(&state, NULL);
    assert_int_equal(shoal_http1_chunked_decode(&state, LIT("2\r\nab\r\n"), &consumed, &piece), 1);
    assert_int_equal(shoal_http1_chunked_decode(&state, LIT("\r\nfff\r\n"), &consumed, &piece), 0);
    assert_int_equal(state.body_bytes, 2);
    assert_int_equal(state.chunk_left, 0xfff);
}

static void http1_chunked_trailers_are_handed_over(void **unused)
{
    (void)unused;
    check(LIT("1\r\nx\r\n0\r\nA: b\r\nCc:\t d e \t\r\nE:\r\nF:  \r\n\r\n"),
          SHOAL_HTTP1_CHUNKED_END);
    assert_string_equal(whole.trailers, "A=b;Cc=d e;E=;F=;");
    check(LIT("0\r\nA: b\r\nB\x01: c\r\n\r\n"), -400);
    assert_string_equal(whole.trailers, "A=b;");
}

static void http1_chunked_trailer_line_must_fit_its_buffer(void **unused)
{
    (void)unused;
    for (int size = TRAILER_BYTES - 1; size <= TRAILER_BYTES + 1; size++) {
        char text[256];
        const int len = snprintf(text, sizeof(text), "0\r\nA: b\r\nNa:%0*d\r\n\r\n", size - 2, 1);
        const int expected = size <= TRAILER_BYTES ? SHOAL_HTTP1_CHUNKED_END : -431;
        decode(&whole, text, (size_t)len, (size_t)len, 1, true);
        assert_int_equal(whole.status, expected);
        decode(&part, text, (size_t)len, 0, 1, true);
        assert_same_result();
        decode(&whole, text, (size_t)len, (size_t)len, 1, false);
        assert_int_equal(whole.status, SHOAL_HTTP1_CHUNKED_END);
    }
}

static void http1_chunked_trailers_are_bounded(void **unused)
{
    (void)unused;
    static char text[16384];
    for (unsigned count = 64; count <= 65; count++) {
        size_t len = (size_t)snprintf(text, sizeof(text), "0\r\n");
        for (unsigned i = 0; i < count; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "A: b\r\n");
        len += (size_t)snprintf(text + len, sizeof(text) - len, "\r\n");
        check(text, len, count == 64 ? SHOAL_HTTP1_CHUNKED_END : -431);
    }
    for (int bytes = 8191; bytes <= 8193; bytes++) {
        const int len =
            snprintf(text, sizeof(text), "0\r\nA:%0*d\r\n\r\n", bytes - (int)strlen("A:\r\n"), 1);
        decode(&whole, text, (size_t)len, (size_t)len, 1, false);
        assert_int_equal(whole.status, bytes <= 8192 ? SHOAL_HTTP1_CHUNKED_END : -431);
        decode(&part, text, (size_t)len, 0, 7, false);
        assert_same_result();
    }
}

/* Body of `chunks` chunks of 16 bytes, each with `per_chunk` extension bytes; then one of `last`.
 */
static size_t write_extended(char *text, size_t size, int chunks, int per_chunk, int last)
{
    size_t len = 0;
    for (int i = 0; i < chunks; i++) {
        len += (size_t)snprintf(text + len, size - len, "10;%.*s\r\n0123456789abcdef\r\n",
                                per_chunk - 1, "xxxxxxxxxxxxxxxxxxxxxxxx");
    }
    len += (size_t)snprintf(text + len, size - len, "0;%0*d\r\n\r\n", last - 1, 0);
    return len;
}

static void http1_chunked_extensions_are_bounded(void **unused)
{
    (void)unused;
    static char text[65536];
    for (int last = 4095; last <= 4097; last++) {
        const int expected = last <= 4096 ? SHOAL_HTTP1_CHUNKED_END : -400;
        check(text, write_extended(text, sizeof(text), 0, 0, last), expected);
        /* 100 chunks earn 100 bytes, and 100 are used up by one each. */
        check(text, write_extended(text, sizeof(text), 100, 1, last), expected);
        /* 100 chunks with 11 bytes each use up 1000 more than they earn. */
        check(text, write_extended(text, sizeof(text), 100, 11, last - 1000), expected);
    }
    /* Even an empty extension counts. */
    size_t len = 0;
    for (int i = 0; i < 4500; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "1;\r\nx\r\n");
    decode(&whole, text, len, len, 1, false);
    assert_int_equal(whole.status, -400);
    /* Spaces before one count too. */
    len = (size_t)snprintf(text, sizeof(text), "1%*s;\r\n", 4096, "");
    decode(&whole, text, len, len, 1, false);
    assert_int_equal(whole.status, -400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http1_chunked_body_comes_out),
        cmocka_unit_test(http1_chunked_next_request_is_left),
        cmocka_unit_test(http1_chunked_malformed_is_refused),
        cmocka_unit_test(http1_chunked_prefix_asks_for_more),
        cmocka_unit_test(http1_chunked_announced_size_is_readable),
        cmocka_unit_test(http1_chunked_trailers_are_handed_over),
        cmocka_unit_test(http1_chunked_trailer_line_must_fit_its_buffer),
        cmocka_unit_test(http1_chunked_trailers_are_bounded),
        cmocka_unit_test(http1_chunked_extensions_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
