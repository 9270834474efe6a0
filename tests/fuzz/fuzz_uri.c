/*
 * Fuzz target of the URI functions.
 *
 *  1. Decoding in place and into another buffer agree, and what was decoded, encoded again byte for
 *     byte, decodes to the same.
 *  2. A buffer of exactly the decoded size suffices, and one byte less does not.
 *  3. Walking segments and parameters ends, and every part lies inside the input, in order; joined
 *     again the segments are the path.
 *  4. The value of a parameter is found by its decoded name.
 *
 * Input: one byte of flags, then the text. Link with uri.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shoal/net/http/uri.h"

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

enum { TEXT_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_decode(const char *text, size_t len, unsigned flags)
{
    static char out[TEXT_MAX], encoded[3 * TEXT_MAX], again[TEXT_MAX];
    static const char digits[] = "0123456789abcdef";
    char *in_place = malloc(len + 1);
    REQUIRE(in_place != NULL);
    memcpy(in_place + 1, text, len);
    const int64_t n = shoal_uri_decode(shoal_str_make(text, len), out, len, flags);
    REQUIRE(n == -EINVAL || (n >= 0 && (size_t)n <= len));
    REQUIRE(shoal_uri_decode(shoal_str_make(in_place + 1, len), in_place + 1, len, flags) == n);
    if (n >= 0) {
        REQUIRE(memcmp(in_place + 1, out, (size_t)n) == 0);
        for (int64_t i = 0; i < n; i++) {
            encoded[3 * i] = '%';
            encoded[3 * i + 1] = digits[(uint8_t)out[i] >> 4];
            encoded[3 * i + 2] = digits[(uint8_t)out[i] & 15];
        }
        const struct shoal_str str = shoal_str_make(encoded, 3 * (size_t)n);
        REQUIRE(shoal_uri_decode(str, again, (size_t)n, flags) == n);
        REQUIRE(memcmp(again, out, (size_t)n) == 0);
        if (n > 0)
            REQUIRE(shoal_uri_decode(str, again, (size_t)n - 1, flags) == -ENOSPC);
        if (!(flags & SHOAL_URI_ALLOW_NUL))
            REQUIRE(memchr(text, '\0', len) != NULL || memchr(out, '\0', (size_t)n) == NULL);
    }
    free(in_place);
}

static void walk_path(const char *text, size_t len)
{
    struct shoal_str path = shoal_str_make(text, len), segment;
    const char *at = text;
    while (shoal_path_next(&path, &segment)) {
        REQUIRE(*at == '/' && segment.ptr == at + 1);
        at += 1 + segment.len;
        REQUIRE(memchr(segment.ptr, '/', segment.len) == NULL);
        REQUIRE(path.ptr == at && path.len == len - (size_t)(at - text));
    }
    REQUIRE(at == (len != 0 && text[0] == '/' ? text + len : text));
}

static void walk_query(const char *text, size_t len)
{
    static char decoded[TEXT_MAX + 1], value_buf[TEXT_MAX + 1], found[TEXT_MAX + 1];
    const struct shoal_str query = shoal_str_make(text, len);
    struct shoal_str rest = query, name, value;
    const char *at = text;
    for (int parameters = 0; shoal_query_next(&rest, &name, &value); parameters++) {
        REQUIRE(name.ptr >= at && value.ptr >= name.ptr + name.len);
        at = value.ptr + value.len;
        REQUIRE(at <= text + len && rest.ptr >= at && rest.ptr + rest.len == text + len);
        int64_t number;
        const int64_t n = shoal_uri_decode(name, decoded, TEXT_MAX, SHOAL_URI_PLUS_SPACE);
        if (n < 0 || parameters > 8)
            continue;
        decoded[n] = '\0';
        if (strlen(decoded) != (size_t)n)
            continue;
        const int64_t found_len = shoal_query_get(query, decoded, found, sizeof(found));
        REQUIRE(found_len >= 0 || found_len == -EINVAL);
        const int rc = shoal_query_get_i64(query, decoded, INT64_MIN, INT64_MAX, &number);
        REQUIRE(rc == 0 || rc == -EINVAL || rc == -ERANGE);
        REQUIRE(rc == -EINVAL || strspn(found, "-0123456789") == (size_t)found_len);
        if (parameters == 0) { /* nothing before it can match */
            const int64_t m = shoal_uri_decode(value, value_buf, TEXT_MAX, SHOAL_URI_PLUS_SPACE);
            REQUIRE(m == found_len && (m < 0 || memcmp(value_buf, found, (size_t)m) == 0));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > TEXT_MAX)
        return 0;
    const size_t len = size - 1;
    char *text = malloc(len + 1);
    REQUIRE(text != NULL);
    memcpy(text + 1, data + 1, len); /* the end of the allocation is the end of the text */
    try_decode(text + 1, len, data[0] & 3U);
    walk_path(text + 1, len);
    walk_query(text + 1, len);
    free(text);
    return 0;
}
