/*
 * Fuzz target of the chunked decoder.
 *
 *  1. Decoded whole and decoded in pieces (sizes drawn from the input), body, trailers, verdict and
 *     the place of the verdict are the same.
 *  2. Pieces lie inside the input, in order, and are counted right; MORE consumes everything; a
 *     verdict is kept.
 *  3. An accepted body, coded again in one chunk, decodes to the same.
 *
 * Input: one byte of seed for the cuts, then the coded body. Link with http1_chunked.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shoal/net/http/http1_chunked.h"

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

enum { INPUT_MAX = 16384 };

struct result {
    int status;
    size_t used, body_len, trailers_len;
    char body[INPUT_MAX];
    char trailers[2 * INPUT_MAX];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void keep(struct result *result, struct shoal_str str, char mark)
{
    REQUIRE(result->trailers_len + str.len + 1 <= sizeof(result->trailers));
    if (str.len != 0)
        memcpy(result->trailers + result->trailers_len, str.ptr, str.len);
    result->trailers_len += str.len;
    result->trailers[result->trailers_len++] = mark;
}

static void keep_trailer(void *arg, struct shoal_str name, struct shoal_str value)
{
    REQUIRE(name.len != 0 && memchr(name.ptr, ':', name.len) == NULL);
    REQUIRE(value.len == 0 || (value.ptr[0] != ' ' && value.ptr[value.len - 1] != ' '));
    keep(arg, name, '\0');
    keep(arg, value, '\n');
}

static bool feed(struct shoal_http1_chunked *state, const char *in, size_t len,
                 struct result *result)
{
    for (size_t at = 0;;) {
        size_t consumed;
        struct shoal_str piece;
        result->status = shoal_http1_chunked_decode(state, in + at, len - at, &consumed, &piece);
        REQUIRE(consumed <= len - at);
        at += consumed;
        result->used += consumed;
        if (result->status != SHOAL_HTTP1_CHUNKED_DATA) {
            REQUIRE(piece.len == 0);
            REQUIRE(result->status != SHOAL_HTTP1_CHUNKED_MORE || at == len);
            return result->status == SHOAL_HTTP1_CHUNKED_MORE;
        }
        REQUIRE(piece.len != 0 && piece.len <= consumed && piece.ptr + piece.len == in + at);
        memcpy(result->body + result->body_len, piece.ptr, piece.len);
        result->body_len += piece.len;
        REQUIRE(state->body_bytes == result->body_len);
    }
}

static void decode(struct result *result, const char *in, size_t len, unsigned seed)
{
    char buf[256];
    struct shoal_http1_trailers trailers = {
        .field = keep_trailer, .arg = result, .buf = buf, .buf_size = sizeof(buf)};
    struct shoal_http1_chunked state;
    shoal_http1_chunked_init(&state, seed % 2 == 0 ? &trailers : NULL);
    result->status = 0;
    result->used = result->body_len = result->trailers_len = 0;
    const unsigned piece_max = seed < 2 ? 0 : seed % 3 == 0 ? 1 : seed % 3 == 1 ? 5 : 100;
    bool more = true;
    for (size_t at = 0; more && at < len;) {
        seed = seed * 1103515245U + 12345U;
        size_t step = piece_max == 0 ? len : 1 + (seed >> 16) % piece_max;
        step = step < len - at ? step : len - at;
        more = feed(&state, in + at, step, result);
        at += step;
    }
    if (!more) {
        const int status = result->status;
        REQUIRE(!feed(&state, "0\r\n\r\n", 5, result) && result->status == status);
    }
}

static void require_round_trip(const struct result *first)
{
    static struct result second;
    static char coded[INPUT_MAX + 64];
    size_t len = 0;
    if (first->body_len != 0) {
        len = (size_t)snprintf(coded, 32, "%zX\r\n", first->body_len);
        memcpy(coded + len, first->body, first->body_len);
        len += first->body_len;
        memcpy(coded + len, "\r\n", 2);
        len += 2;
    }
    memcpy(coded + len, "0\r\n\r\n", 5);
    len += 5;
    decode(&second, coded, len, 1);
    REQUIRE(second.status == SHOAL_HTTP1_CHUNKED_END && second.used == len);
    REQUIRE(second.body_len == first->body_len);
    REQUIRE(memcmp(second.body, first->body, first->body_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct result whole, part;
    if (size < 1 || size > INPUT_MAX)
        return 0;
    const size_t len = size - 1;
    char *in = malloc(len + 1);
    REQUIRE(in != NULL);
    memcpy(in + 1, data + 1, len); /* the end of the allocation is the end of the input */
    const unsigned seed = data[0] + 2U;
    decode(&whole, in + 1, len, seed % 2);
    decode(&part, in + 1, len, seed);
    REQUIRE(part.status == whole.status && part.used == whole.used);
    REQUIRE(part.body_len == whole.body_len && part.trailers_len == whole.trailers_len);
    REQUIRE(memcmp(part.body, whole.body, whole.body_len) == 0);
    REQUIRE(memcmp(part.trailers, whole.trailers, whole.trailers_len) == 0);
    if (whole.status == SHOAL_HTTP1_CHUNKED_END)
        require_round_trip(&whole);
    free(in);
    return 0;
}
