/*
 * Percent-decoding, path segments and query parameters; the contract is in the header.
 *
 *  1. Decoded text is never longer than raw text, and byte i is written only after byte i was read:
 *     this is what makes decoding in place right.
 *  2. A name is compared while it is decoded, so that no buffer bounds it.
 */
#include "shoal/net/http/uri.h"

#include <errno.h>
#include <string.h>

#include "shoal/net/http/http1_scan_impl.h"

/* Decodes the character at *p, and moves *p past it; -EINVAL if its escape is wrong. */
static inline int decode_one(const char **p, const char *end, unsigned flags)
{
    const char c = **p;
    if (SHOAL_LIKELY(c != '%')) {
        *p += 1;
        return c == '+' && (flags & SHOAL_URI_PLUS_SPACE) ? ' ' : (uint8_t)c;
    }
    if (end - *p < 3)
        return -EINVAL;
    const int high = shoal_http_hex((*p)[1]);
    const int low = shoal_http_hex((*p)[2]);
    if (high < 0 || low < 0)
        return -EINVAL;
    *p += 3;
    return high << 4 | low;
}

int64_t shoal_uri_decode(struct shoal_str in, char *buf, size_t size, unsigned flags)
{
    if (in.len == 0)
        return 0; /* its pointer may be NULL */
    const char *p = in.ptr;
    const char *end = in.ptr + in.len;
    size_t used = 0;
    while (p < end) {
        const int c = decode_one(&p, end, flags);
        if (c < 0 || (c == 0 && !(flags & SHOAL_URI_ALLOW_NUL)))
            return -EINVAL;
        if (used == size)
            return -ENOSPC;
        buf[used++] = (char)c;
    }
    return (int64_t)used;
}

bool shoal_path_next(struct shoal_str *path, struct shoal_str *segment)
{
    if (path->len == 0 || path->ptr[0] != '/')
        return false;
    const char *start = path->ptr + 1;
    const size_t left = path->len - 1;
    const char *slash = memchr(start, '/', left);
    const size_t size = slash != NULL ? (size_t)(slash - start) : left;
    *segment = shoal_str_make(start, size);
    *path = shoal_str_make(start + size, left - size);
    return true;
}

bool shoal_query_next(struct shoal_str *query, struct shoal_str *name, struct shoal_str *value)
{
    while (query->len != 0) {
        const char *start = query->ptr;
        const char *amp = memchr(start, '&', query->len);
        const size_t size = amp != NULL ? (size_t)(amp - start) : query->len;
        const size_t used = size + (amp != NULL);
        *query = shoal_str_make(start + used, query->len - used);
        if (size == 0)
            continue;
        const char *equals = memchr(start, '=', size);
        const size_t name_size = equals != NULL ? (size_t)(equals - start) : size;
        const size_t value_at = equals != NULL ? name_size + 1 : size;
        *name = shoal_str_make(start, name_size);
        *value = shoal_str_make(start + value_at, size - value_at);
        return true;
    }
    return false;
}

/* Is `raw`, decoded, the same as `name`? */
static bool name_matches(struct shoal_str raw, const char *name)
{
    const char *p = raw.ptr;
    const char *end = raw.ptr + raw.len;
    while (p < end) {
        const int c = decode_one(&p, end, SHOAL_URI_PLUS_SPACE);
        if (c <= 0 || c != (uint8_t)*name)
            return false;
        name++;
    }
    return *name == '\0';
}

static bool query_find(struct shoal_str query, const char *wanted, struct shoal_str *value)
{
    struct shoal_str name;
    while (shoal_query_next(&query, &name, value)) {
        if (name_matches(name, wanted))
            return true;
    }
    return false;
}

int64_t shoal_query_get(struct shoal_str query, const char *name, char *buf, size_t size)
{
    struct shoal_str value;
    if (!query_find(query, name, &value))
        return -ENOENT;
    const int64_t len = shoal_uri_decode(value, buf, size, SHOAL_URI_PLUS_SPACE);
    if (len < 0)
        return len;
    if ((size_t)len == size)
        return -ENOSPC;
    buf[len] = '\0';
    return len;
}

int shoal_query_get_i64(struct shoal_str query, const char *name, int64_t min, int64_t max,
                        int64_t *value)
{
    struct shoal_str raw;
    if (!query_find(query, name, &raw))
        return -ENOENT;
    const char *p = raw.ptr;
    const char *end = raw.ptr + raw.len;
    int64_t total = 0; /* kept negative, where there is room for INT64_MIN */
    bool overflow = false;
    int c = p < end ? decode_one(&p, end, 0) : -EINVAL;
    const bool negative = c == '-';
    if (negative)
        c = p < end ? decode_one(&p, end, 0) : -EINVAL;
    for (;;) {
        if (c < '0' || c > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(total, 10, &total) ||
            __builtin_sub_overflow(total, c - '0', &total))
            overflow = true;
        if (p == end)
            break;
        c = decode_one(&p, end, 0);
    }
    if (overflow || (!negative && total == INT64_MIN))
        return -ERANGE;
    total = negative ? total : -total;
    if (total < min || total > max)
        return -ERANGE;
    *value = total;
    return 0;
}
