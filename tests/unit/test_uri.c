/*
 * Tests of percent-decoding, path segments and query parameters.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/net/http/uri.h"

static void assert_str(struct shoal_str str, const char *expected)
{
    if (!shoal_str_equal(str, shoal_str_from(expected)))
        print_error("'%.*s' is not '%s'\n", (int)str.len, str.ptr, expected);
    assert_true(shoal_str_equal(str, shoal_str_from(expected)));
}

/* Decodes from an allocation of exactly the size: into another, and in place. */
static void check_decode(const char *text, unsigned flags, int64_t expected, const char *decoded)
{
    const size_t len = strlen(text);
    char *in = malloc(len + 1);
    char *out = malloc(len + 1);
    assert_non_null(in);
    assert_non_null(out);
    char *raw = in + 1; /* odd address, ends with the allocation */
    memcpy(raw, text, len);
    const struct shoal_str str = shoal_str_make(raw, len);
    assert_int_equal(shoal_uri_decode(str, out, len, flags), expected);
    if (expected >= 0) {
        assert_memory_equal(out, decoded, (size_t)expected);
        assert_int_equal(shoal_uri_decode(str, out, (size_t)expected, flags), expected);
        if (expected > 0)
            assert_int_equal(shoal_uri_decode(str, out, (size_t)expected - 1, flags), -ENOSPC);
    }
    assert_int_equal(shoal_uri_decode(str, raw, len, flags), expected);
    if (expected >= 0)
        assert_memory_equal(raw, decoded, (size_t)expected);
    free(in);
    free(out);
}

static void uri_decode_valid_gives_bytes(void **unused)
{
    (void)unused;
    check_decode("", 0, 0, "");
    check_decode("abc", 0, 3, "abc");
    check_decode("%41%6a%4A", 0, 3, "AjJ");
    check_decode("a%20b+c", 0, 5, "a b+c");
    check_decode("a%20b+c%2b", SHOAL_URI_PLUS_SPACE, 6, "a b c+");
    check_decode("%2541", 0, 3, "%41");
    check_decode("%ff%FE", 0, 2, "\xff\xfe");
    check_decode("a%00b", SHOAL_URI_ALLOW_NUL, 3, "a\0b");
    char none;
    assert_int_equal(shoal_uri_decode(shoal_str_make(NULL, 0), &none, 0, 0), 0);
}

static void uri_decode_all_bytes_round_trip(void **unused)
{
    (void)unused;
    static const char upper[] = "0123456789ABCDEF", lower[] = "0123456789abcdef";
    for (unsigned c = 0; c < 256; c++) {
        const char text[] = {'%', upper[c >> 4], lower[c & 15], '\0'};
        const char byte = (char)c;
        check_decode(text, SHOAL_URI_ALLOW_NUL, 1, &byte);
    }
}

static void uri_decode_wrong_escape_is_refused(void **unused)
{
    (void)unused;
    static const char *const rows[] = {"%",    "a%",  "%4",  "%g0", "%0g",  "%%41",  "%4%1",
                                       "% 41", "%+1", "%-1", "%0x", "a%4",  "%:0",   "%/0",
                                       "%@0",  "%`0", "%G0", "%00", "x%00", "%0%30", "%u0041"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++)
        check_decode(rows[i], SHOAL_URI_PLUS_SPACE, -EINVAL, NULL);
    char out[4];
    assert_int_equal(shoal_uri_decode(shoal_str_make("%41", 2), out, 4, 0), -EINVAL);
    assert_int_equal(shoal_uri_decode(shoal_str_make("%41", 1), out, 4, 0), -EINVAL);
}

static void uri_path_next_walks_segments(void **unused)
{
    (void)unused;
    static const struct {
        const char *path;
        const char *segments[5];
    } rows[] = {
        {"", {NULL}},
        {"*", {NULL}},
        {"a/b", {NULL}},
        {"/", {"", NULL}},
        {"/a", {"a", NULL}},
        {"/a/b", {"a", "b", NULL}},
        {"/a/", {"a", "", NULL}},
        {"//", {"", "", NULL}},
        {"/a//b", {"a", "", "b", NULL}},
        {"/a%2Fb/../.", {"a%2Fb", "..", ".", NULL}},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        struct shoal_str path = shoal_str_from(rows[i].path), segment;
        for (size_t at = 0; rows[i].segments[at] != NULL; at++) {
            assert_true(shoal_path_next(&path, &segment));
            assert_str(segment, rows[i].segments[at]);
        }
        assert_false(shoal_path_next(&path, &segment));
    }
}

static void uri_query_next_walks_parameters(void **unused)
{
    (void)unused;
    static const struct {
        const char *query;
        const char *pairs[7];
    } rows[] = {
        {"", {NULL}},
        {"&", {NULL}},
        {"&&&", {NULL}},
        {"a=1", {"a", "1", NULL}},
        {"a=1&b=2", {"a", "1", "b", "2", NULL}},
        {"&a=1&&b=2&", {"a", "1", "b", "2", NULL}},
        {"a&b=&=c", {"a", "", "b", "", "", "c", NULL}},
        {"a=b=c&=", {"a", "b=c", "", "", NULL}},
        {"a=%26&b%3D=+", {"a", "%26", "b%3D", "+", NULL}},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        struct shoal_str query = shoal_str_from(rows[i].query), name, value;
        for (size_t at = 0; rows[i].pairs[at] != NULL; at += 2) {
            assert_true(shoal_query_next(&query, &name, &value));
            assert_str(name, rows[i].pairs[at]);
            assert_str(value, rows[i].pairs[at + 1]);
        }
        assert_false(shoal_query_next(&query, &name, &value));
    }
}

static void uri_query_get_decodes_first_match(void **unused)
{
    (void)unused;
    static const struct {
        const char *query, *name, *value;
        int64_t expected; /* length or error */
    } rows[] = {
        {"ms=5", "ms", "5", 1},
        {"x=1&ms=5&ms=6", "ms", "5", 1},
        {"ms", "ms", "", 0},
        {"m%73=a+b%26c", "ms", "a b&c", 5},
        {"a+b=c", "a b", "c", 1},
        {"%zz=1&ms=2", "ms", "2", 1},
        {"=x", "", "x", 1},
        {"ms%00=1", "ms\0", "", -ENOENT},
        {"mss=1&m=2&Ms=3", "ms", "", -ENOENT},
        {"", "ms", "", -ENOENT},
        {"ms=%", "ms", "", -EINVAL},
        {"ms=a%00", "ms", "", -EINVAL},
        {"ms=1234567", "ms", "1234567", 7},
        {"ms=12345678", "ms", "", -ENOSPC},
        {"ms=123456789", "ms", "", -ENOSPC},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        char *buf = malloc(8);
        assert_non_null(buf);
        const struct shoal_str query = shoal_str_from(rows[i].query);
        assert_int_equal(shoal_query_get(query, rows[i].name, buf, 8), rows[i].expected);
        if (rows[i].expected >= 0)
            assert_string_equal(buf, rows[i].value);
        free(buf);
    }
    assert_int_equal(shoal_query_get(shoal_str_from("a="), "a", NULL, 0), -ENOSPC);
    assert_int_equal(shoal_query_get(shoal_str_make(NULL, 0), "a", NULL, 0), -ENOENT);
}

static void uri_query_get_i64_is_strict(void **unused)
{
    (void)unused;
    static const struct {
        const char *query;
        int64_t min, max;
        int expected;
        int64_t value;
    } rows[] = {
        {"n=0", 0, 10, 0, 0},
        {"n=10", 0, 10, 0, 10},
        {"n=007", 0, 10, 0, 7},
        {"n=%31%30", 0, 10, 0, 10},
        {"n=-5", -5, 5, 0, -5},
        {"n=9223372036854775807", INT64_MIN, INT64_MAX, 0, INT64_MAX},
        {"n=-9223372036854775808", INT64_MIN, INT64_MAX, 0, INT64_MIN},
        {"n=9223372036854775808", INT64_MIN, INT64_MAX, -ERANGE, 0},
        {"n=-9223372036854775809", INT64_MIN, INT64_MAX, -ERANGE, 0},
        {"n=99999999999999999999999", INT64_MIN, INT64_MAX, -ERANGE, 0},
        {"n=99999999999999999999999x", INT64_MIN, INT64_MAX, -EINVAL, 0},
        {"n=11", 0, 10, -ERANGE, 0},
        {"n=-1", 0, 10, -ERANGE, 0},
        {"n=", 0, 10, -EINVAL, 0},
        {"n", 0, 10, -EINVAL, 0},
        {"n=-", -9, 10, -EINVAL, 0},
        {"n=--1", -9, 10, -EINVAL, 0},
        {"n=+1", 0, 10, -EINVAL, 0},
        {"n=%2B1", 0, 10, -EINVAL, 0},
        {"n=1+", 0, 10, -EINVAL, 0},
        {"n=+", 0, 10, -EINVAL, 0},
        {"n=1.0", 0, 10, -EINVAL, 0},
        {"n=0x1", 0, 10, -EINVAL, 0},
        {"n=1%", 0, 10, -EINVAL, 0},
        {"n=1%00", 0, 10, -EINVAL, 0},
        {"m=1", 0, 10, -ENOENT, 0},
    };
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(rows); i++) {
        int64_t value = 4711;
        const int rc = shoal_query_get_i64(shoal_str_from(rows[i].query), "n", rows[i].min,
                                           rows[i].max, &value);
        if (rc != rows[i].expected)
            print_error("%s\n", rows[i].query);
        assert_int_equal(rc, rows[i].expected);
        assert_true(value == (rc == 0 ? rows[i].value : 4711));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uri_decode_valid_gives_bytes),
        cmocka_unit_test(uri_decode_all_bytes_round_trip),
        cmocka_unit_test(uri_decode_wrong_escape_is_refused),
        cmocka_unit_test(uri_path_next_walks_segments),
        cmocka_unit_test(uri_query_next_walks_parameters),
        cmocka_unit_test(uri_query_get_decodes_first_match),
        cmocka_unit_test(uri_query_get_i64_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
