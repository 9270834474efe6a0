/*
 * Character classes of HTTP and the search for the first byte outside a class.
 *
 * The search is where a parser of HTTP spends its time, so it goes 16 bytes at a time where the
 * compiler has SSE2 (every x86-64) and byte by byte through the table elsewhere.
 *
 *  1. `shoal_scan_portable` defines the meaning; `shoal_scan` must agree with it for every input.
 *     The unit tests compare them for each byte and offset, the fuzz target for whole requests.
 *  2. No byte outside [begin, end) is ever read: the last, short step loads the 16 bytes that end
 *     at `end` and shifts away those before `p`. This is why `begin` is asked for.
 *  3. This is the only place of HTTP with vector code; `SHOAL_HTTP_SCAN_PORTABLE` turns it off.
 *
 * Rejected: PCMPESTRI (slow, and needs SSE4.2), a load that runs over `end` inside the page
 * (right for the hardware, wrong for ASan and valgrind), AVX2 with dispatch at run time (names and
 * values are mostly shorter than 16 bytes).
 */
#ifndef SHOAL_NET_HTTP_HTTP1_SCAN_IMPL_H
#define SHOAL_NET_HTTP_HTTP1_SCAN_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__) && !defined(SHOAL_HTTP_SCAN_PORTABLE)
#include <emmintrin.h>
#define SHOAL_HTTP_SCAN_SSE2 1
#endif

#include "shoal/runtime/compiler.h"

enum shoal_http_class {
    SHOAL_HTTP_TOKEN = 1,  /* RFC 9110 tchar: methods, field names, codings */
    SHOAL_HTTP_VALUE = 2,  /* field values: HTAB, SP, visible ASCII, 0x80-0xff */
    SHOAL_HTTP_TARGET = 4, /* request target: visible ASCII without '#' */
    SHOAL_HTTP_PATH = 8,   /* the same without '?' */
    SHOAL_HTTP_HOST = 16,  /* reg-name of RFC 3986, but for '%', which takes two digits with it */
};

#define C_T (SHOAL_HTTP_TOKEN)
#define C_V (SHOAL_HTTP_VALUE)
#define C_U (SHOAL_HTTP_VALUE | SHOAL_HTTP_TARGET | SHOAL_HTTP_PATH)
#define C_H (SHOAL_HTTP_HOST)
static const uint8_t shoal_http_classes[256] = {
    ['\t'] = C_V,
    [' '] = C_V,
    ['!'] = C_T | C_U | C_H,
    ['"'] = C_U,
    ['#'] = C_T | C_V,
    ['$'] = C_T | C_U | C_H,
    ['%'] = C_T | C_U,
    ['&' ... '\''] = C_T | C_U | C_H,
    ['(' ... ')'] = C_U | C_H,
    ['*' ... '+'] = C_T | C_U | C_H,
    [','] = C_U | C_H,
    ['-' ... '.'] = C_T | C_U | C_H,
    ['/'] = C_U,
    ['0' ... '9'] = C_T | C_U | C_H,
    [':'] = C_U,
    [';'] = C_U | C_H,
    ['<'] = C_U,
    ['='] = C_U | C_H,
    ['>'] = C_U,
    ['?'] = SHOAL_HTTP_VALUE | SHOAL_HTTP_TARGET,
    ['@'] = C_U,
    ['A' ... 'Z'] = C_T | C_U | C_H,
    ['[' ... ']'] = C_U,
    ['^'] = C_T | C_U,
    ['_'] = C_T | C_U | C_H,
    ['`'] = C_T | C_U,
    ['a' ... 'z'] = C_T | C_U | C_H,
    ['{'] = C_U,
    ['|'] = C_T | C_U,
    ['}'] = C_U,
    ['~'] = C_T | C_U | C_H,
    [0x80 ... 0xff] = C_V,
};
#undef C_T
#undef C_V
#undef C_U
#undef C_H

static inline bool shoal_http_is(char c, enum shoal_http_class cls)
{
    return (shoal_http_classes[(uint8_t)c] & cls) != 0;
}

/* First byte in [p, end) that is not of `cls`, or `end`. */
static inline const char *shoal_scan_portable(const char *p, const char *end,
                                              enum shoal_http_class cls)
{
    while (p < end && shoal_http_is(*p, cls))
        p++;
    return p;
}

#ifdef SHOAL_HTTP_SCAN_SSE2

/* Is each byte of `v` in [low, low + span]? 0xff or 0. */
static inline __attribute__((always_inline)) __m128i shoal_scan_range(__m128i v, char low,
                                                                      char span)
{
    const __m128i off = _mm_sub_epi8(v, _mm_set1_epi8(low));
    return _mm_cmpeq_epi8(_mm_min_epu8(off, _mm_set1_epi8(span)), off);
}

/*
 * One bit for each of the 16 bytes at `p` that may be outside `cls`. Exact for VALUE, TARGET and
 * PATH; for TOKEN and HOST it knows letters, digits, '-' and '.', and the caller asks the table
 * about the rest.
 */
static inline __attribute__((always_inline)) unsigned shoal_scan_stops(const char *p,
                                                                       enum shoal_http_class cls)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i stops;
    if (cls == SHOAL_HTTP_VALUE) {
        stops =
            _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), shoal_scan_range(v, 0, 0x1f));
        stops = _mm_or_si128(stops, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
    } else if (cls == SHOAL_HTTP_TARGET || cls == SHOAL_HTTP_PATH) {
        /* Signed: controls, SP and everything from 0x80 up are below '!'. */
        stops = _mm_cmplt_epi8(v, _mm_set1_epi8('!'));
        stops = _mm_or_si128(stops, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
        stops = _mm_or_si128(stops, _mm_cmpeq_epi8(v, _mm_set1_epi8('#')));
        if (cls == SHOAL_HTTP_PATH)
            stops = _mm_or_si128(stops, _mm_cmpeq_epi8(v, _mm_set1_epi8('?')));
    } else {
        const __m128i lower = _mm_or_si128(v, _mm_set1_epi8(0x20));
        const __m128i common = _mm_or_si128(
            _mm_or_si128(shoal_scan_range(lower, 'a', 25), shoal_scan_range(v, '0', 9)),
            shoal_scan_range(v, '-', 1));
        return (unsigned)_mm_movemask_epi8(common) ^ 0xffffU;
    }
    return (unsigned)_mm_movemask_epi8(stops);
}

#endif

/* The same as shoal_scan_portable; `begin` <= `p` is where the memory that may be read starts. */
static inline __attribute__((always_inline)) const char *
shoal_scan(const char *begin, const char *p, const char *end, enum shoal_http_class cls)
{
#ifdef SHOAL_HTTP_SCAN_SSE2
    while (p < end) {
        const ptrdiff_t left = end - p;
        unsigned stops;
        if (SHOAL_LIKELY(left >= 16))
            stops = shoal_scan_stops(p, cls);
        else if (end - begin >= 16)
            stops = shoal_scan_stops(end - 16, cls) >> (16 - left);
        else
            break;
        if (stops == 0) {
            if (left <= 16)
                return end;
            p += 16;
            continue;
        }
        p += __builtin_ctz(stops);
        if ((cls != SHOAL_HTTP_TOKEN && cls != SHOAL_HTTP_HOST) || !shoal_http_is(*p, cls))
            return p;
        p++;
    }
#else
    (void)begin;
#endif
    return shoal_scan_portable(p, end, cls);
}

/* Value of a hexadecimal digit, or -1. */
static inline int shoal_http_hex(char c)
{
    const unsigned digit = (uint8_t)c - (unsigned)'0';
    if (digit <= 9)
        return (int)digit;
    const unsigned letter = ((uint8_t)c | 0x20U) - (unsigned)'a';
    return letter <= 5 ? (int)letter + 10 : -1;
}

#endif
