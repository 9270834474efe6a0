/*
 * What the tests of the request head parser share: one way to try a head in all ways.
 *
 *  1. `check` parses a head whole, cut at each point, and byte by byte, each time in a fresh
 *     allocation of exactly the size (so that ASan sees a byte read too many), and demands the same
 *     verdict and the same head.
 *  2. What is refused must stay refused with the same status when more bytes follow.
 */
#ifndef SHOAL_TESTS_HTTP1_CHECK_H
#define SHOAL_TESTS_HTTP1_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/net/http/http1_parser.h"

#define FIELDS_MAX 32
#define LIT(text)  (text), sizeof(text) - 1
#define H          "Host: a\r\n"
#define GET11      "GET / HTTP/1.1\r\n"
#define END        "\r\n"
#define OK         1 /* the whole row is the head */

struct row {
    const char *text;
    size_t len;
    int expected; /* OK, 0, or a negative status */
};

struct parsed {
    struct shoal_http1_head head;
    struct shoal_http_field fields[FIELDS_MAX];
    char *buf; /* the bytes that the head points into */
};

static const struct shoal_http_limits wide = {4096, FIELDS_MAX, 2048};

static inline int parse_copy(struct parsed *parsed, const char *text, size_t len, size_t scanned,
                             const struct shoal_http_limits *limits)
{
    parsed->buf = malloc(len);
    assert_true(len == 0 || parsed->buf != NULL);
    if (len != 0)
        memcpy(parsed->buf, text, len);
    parsed->head.fields = parsed->fields;
    return shoal_http1_parse_head(parsed->buf, len, scanned, limits, &parsed->head);
}

static inline void assert_same_str(const struct parsed *a, struct shoal_str x,
                                   const struct parsed *b, struct shoal_str y)
{
    assert_int_equal(x.len, y.len);
    assert_int_equal(x.ptr - a->buf, y.ptr - b->buf);
}

static inline void assert_same_head(const struct parsed *a, const struct parsed *b)
{
    const struct shoal_http1_head *x = &a->head, *y = &b->head;
    assert_int_equal(x->method, y->method);
    assert_int_equal(x->minor_version, y->minor_version);
    assert_int_equal(x->keep_alive, y->keep_alive);
    assert_int_equal(x->chunked, y->chunked);
    assert_int_equal(x->has_content_length, y->has_content_length);
    assert_int_equal(x->expect_continue, y->expect_continue);
    assert_int_equal(x->upgrade, y->upgrade);
    assert_int_equal(x->content_length, y->content_length);
    assert_int_equal(x->head_bytes, y->head_bytes);
    assert_int_equal(x->field_count, y->field_count);
    assert_same_str(a, x->method_name, b, y->method_name);
    assert_same_str(a, x->target, b, y->target);
    assert_same_str(a, x->path, b, y->path);
    assert_same_str(a, x->query, b, y->query);
    assert_same_str(a, x->host, b, y->host);
    for (uint32_t i = 0; i < x->field_count; i++) {
        assert_same_str(a, x->fields[i].name, b, y->fields[i].name);
        assert_same_str(a, x->fields[i].value, b, y->fields[i].value);
    }
}

/* Feeds [0, first), then `step` bytes at a time; the verdict must be that of `whole`. */
static inline void check_fed(const char *text, size_t len, size_t first, size_t step,
                             const struct shoal_http_limits *limits, int expected,
                             const struct parsed *whole)
{
    size_t scanned = 0;
    for (size_t have = first; have <= len;
         have = have + step < len || have == len ? have + step : len) {
        struct parsed part;
        const int rc = parse_copy(&part, text, have, scanned, limits);
        if (rc > 0 && rc == expected)
            assert_same_head(&part, whole);
        free(part.buf);
        if (rc != 0 || have == len) {
            if (rc != expected)
                print_error("fed %zu then %zu: %.*s\n", first, step, (int)len, text);
            assert_int_equal(rc, expected);
            return;
        }
        scanned = have;
    }
}

/* Parses `text` in all ways; `expected` is OK, 0 or a status. *whole then has the head; free it. */
static inline void check_limited(struct parsed *whole, const char *text, size_t len, int expected,
                                 const struct shoal_http_limits *limits)
{
    const int wanted = expected == OK ? (int)len : expected;
    const int rc = parse_copy(whole, text, len, 0, limits);
    if (rc != wanted)
        print_error("%d, not %d: %.*s\n", rc, wanted, (int)len, text);
    assert_int_equal(rc, wanted);
    /* What follows must not change a verdict, and brings an end for what is refused early. */
    const size_t more_len = len + 4;
    char *more = malloc(more_len);
    assert_non_null(more);
    memcpy(more, text, len);
    memcpy(more + len, "\r\n\r\n", 4);
    struct parsed again;
    if (rc != 0) {
        assert_int_equal(parse_copy(&again, more, more_len, 0, limits), wanted);
        free(again.buf);
    }
    const char *fed = rc < 0 ? more : text;
    const size_t fed_len = rc < 0 ? more_len : len;
    for (size_t first = 1; first < fed_len; first++)
        check_fed(fed, fed_len, first, fed_len, limits, wanted, whole);
    for (size_t step = 1; step <= 3; step++)
        check_fed(fed, fed_len, 1, step, limits, wanted, whole);
    free(more);
}

static inline void check(struct parsed *whole, const char *text, size_t len, int expected)
{
    check_limited(whole, text, len, expected, &wide);
}

static inline void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct parsed whole;
        check(&whole, rows[i].text, rows[i].len, rows[i].expected);
        free(whole.buf);
    }
}
#define CHECK_ROWS(rows) check_rows(rows, SHOAL_ARRAY_SIZE(rows))

static inline void assert_str(struct shoal_str str, const char *expected)
{
    if (!shoal_str_equal(str, shoal_str_from(expected)))
        print_error("'%.*s' is not '%s'\n", (int)str.len, str.ptr, expected);
    assert_true(shoal_str_equal(str, shoal_str_from(expected)));
}

#endif
