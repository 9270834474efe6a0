/*
 * A borrowed run of bytes: pointer and length, not NUL-terminated, owned by someone else.
 *
 * HTTP hands out parts of the bytes that it received; copying or terminating them would cost more
 * than parsing them. A `shoal_str` lives as long as the memory that it points into, which the
 * function that returns it names. The length is 32 bits wide, so that a string is 16 bytes; no
 * protocol element is larger. A string of length 0 may have any pointer, also NULL.
 *
 * All functions here are pure: any thread may call them and they never yield.
 */
#ifndef SHOAL_NET_HTTP_STR_H
#define SHOAL_NET_HTTP_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_str {
    const char *ptr;
    uint32_t len;
};

/* The `len` bytes at `ptr`. */
static inline struct shoal_str shoal_str_make(const char *ptr, size_t len)
{
    struct shoal_str str = {ptr, (uint32_t)len};
    return str;
}

/* The bytes of the NUL-terminated `text`, without the NUL; free of cost for a literal. */
static inline struct shoal_str shoal_str_from(const char *text)
{
    return shoal_str_make(text, strlen(text));
}

/* Are both the same bytes? */
static inline bool shoal_str_equal(struct shoal_str a, struct shoal_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Are both the same text when the case of ASCII letters is ignored? No locale is asked. */
static inline bool shoal_str_equal_nocase(struct shoal_str a, struct shoal_str b)
{
    if (a.len != b.len)
        return false;
    for (uint32_t i = 0; i < a.len; i++) {
        unsigned char x = (unsigned char)a.ptr[i];
        unsigned char y = (unsigned char)b.ptr[i];
        if (x != y && ((x ^ y) != 0x20 || (unsigned char)((x | 0x20) - 'a') > 'z' - 'a'))
            return false;
    }
    return true;
}

SHOAL_END_DECLS

#endif
