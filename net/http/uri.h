/*
 * The parts of a request target: percent-decoding, path segments, query parameters.
 *
 *  1. Splitting comes before decoding: `%2F` is a character of a segment and never a separator,
 *     and `%26` never ends a parameter.
 *  2. Decoding is strict: `%` without two hexadecimal digits is an error, never passed through;
 *     an encoded NUL is one too unless it is asked for, since most of what decoded text is handed
 *     to stops at it. Nothing is decoded twice.
 *  3. Nothing here knows the file system; `..` is a segment like any other. Whoever serves files
 *     lets the kernel confine the path.
 *
 * All functions here are pure, allocate nothing, and may be called on any thread.
 */
#ifndef SHOAL_NET_HTTP_URI_H
#define SHOAL_NET_HTTP_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

#include "shoal/net/http/str.h"

SHOAL_BEGIN_DECLS

#define SHOAL_URI_PLUS_SPACE 1U /* '+' is a space: in queries and forms, not in paths */
#define SHOAL_URI_ALLOW_NUL  2U /* "%00" is a NUL byte, instead of an error */

/*
 * Decodes `in` to `buf`, which may be the memory of `in` itself (`(char *)in.ptr`) but must not
 * overlap it otherwise. At most in.len bytes are written, and no NUL after them.
 * Returns the bytes written; -EINVAL for a wrong escape or NUL; -ENOSPC when `size` is too small
 * (in both cases what is in `buf` is undefined).
 */
SHOAL_API SHOAL_NODISCARD int64_t shoal_uri_decode(struct shoal_str in, char *buf, size_t size,
                                                   unsigned flags);

/*
 * Takes the next segment off *path, which is raw and starts with '/' (or is what a call before left
 * over). False when there is none. "/a/b" has "a" and "b"; "/a/" has "a" and ""; "/" has "";
 * "" and "*" have none. *segment is raw and points into the path.
 */
SHOAL_API bool shoal_path_next(struct shoal_str *path, struct shoal_str *segment);

/*
 * Takes the next parameter off *query, raw. False when there is none. Empty ones ("a=1&&b=2") are
 * passed over; without '=' the value is empty. *name and *value are raw and point into the query.
 */
SHOAL_API bool shoal_query_next(struct shoal_str *query, struct shoal_str *name,
                                struct shoal_str *value);

/*
 * The value of the first parameter whose decoded name is `name`, decoded ('+' is a space) into
 * `buf` and NUL-terminated. Parameters whose names are wrongly encoded are passed over.
 * Returns its length; -ENOENT if there is none; -EINVAL if its encoding is wrong or holds a NUL;
 * -ENOSPC if it and the NUL do not fit `size`.
 */
SHOAL_API SHOAL_NODISCARD int64_t shoal_query_get(struct shoal_str query, const char *name,
                                                  char *buf, size_t size);

/*
 * The same for a decimal integer: digits with an optional '-', nothing else.
 * Returns 0 and sets *value; -ENOENT if there is none; -EINVAL if it is no integer; -ERANGE if it
 * is not in [min, max]. *value is untouched unless 0 is returned.
 */
SHOAL_API SHOAL_NODISCARD int shoal_query_get_i64(struct shoal_str query, const char *name,
                                                  int64_t min, int64_t max, int64_t *value);

SHOAL_END_DECLS

#endif
