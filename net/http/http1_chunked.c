/*
 * Decoder of the chunked transfer coding; the contract and the limits are in the header.
 *
 *      SIZE ──> EXT_SPACE ──> EXT ──> SIZE_LF ──> DATA ──> DATA_CR ──> DATA_LF ──> SIZE
 *        └────────────────────────────^   └─ size 0 ─> LINE ──> NAME ──> VALUE ──> VALUE_LF ─> LINE
 *                                                        └────> END_LF ──> (end)
 *
 *  1. A step takes one byte, but for DATA, which takes all that is there. Beside the data a chunk
 *     has a handful of bytes, and the steps of one are straight switches.
 *  2. A step that is wrong returns a negative status, which is then kept: a broken body stays so.
 *  3. SIZE is also the step before the first digit; `size_digits` tells them apart.
 *
 * Rejected: looking for whole lines (a line cut in two would have to be kept by the caller).
 */
#include "shoal/net/http/http1_chunked.h"

#include <string.h>

#include "shoal/net/http/http1_scan_impl.h"

enum step {
    SIZE,
    EXT_SPACE,
    EXT,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    LINE,
    NAME,
    VALUE,
    VALUE_LF,
    END_LF
};

enum {
    SIZE_DIGITS_MAX = 16,
    EXTENSION_BYTES_MAX = 4096,
    EXTENSION_DATA_SHARE = 16, /* one byte more for so many bytes of body */
    TRAILER_BYTES_MAX = 8192,
    TRAILER_FIELDS_MAX = 64,
};

void shoal_http1_chunked_init(struct shoal_http1_chunked *state,
                              struct shoal_http1_trailers *trailers)
{
    *state = (struct shoal_http1_chunked){.trailers = trailers, .step = SIZE};
}

/* Counts a byte of an extension. */
static int extension_count(struct shoal_http1_chunked *state)
{
    const uint64_t allowed = EXTENSION_BYTES_MAX + state->body_bytes / EXTENSION_DATA_SHARE;
    return ++state->extension_bytes > allowed ? -400 : 0;
}

static int step_size(struct shoal_http1_chunked *state, char c)
{
    const int digit = shoal_http_hex(c);
    if (digit >= 0) {
        if (state->size_digits == SIZE_DIGITS_MAX)
            return -400;
        state->size_digits++;
        state->chunk_left = state->chunk_left << 4 | (unsigned)digit;
        return 0;
    }
    if (state->size_digits == 0 || state->chunk_left > (uint64_t)INT64_MAX - state->body_bytes)
        return -400;
    if (c == '\r') {
        state->step = SIZE_LF;
        return 0;
    }
    if (c != ';' && c != ' ' && c != '\t')
        return -400;
    state->step = c == ';' ? EXT : EXT_SPACE;
    return extension_count(state);
}

static int step_extension(struct shoal_http1_chunked *state, char c)
{
    if (c == '\r' && state->step == EXT) {
        state->step = SIZE_LF;
        return 0;
    }
    if (state->step == EXT_SPACE) {
        if (c == ';')
            state->step = EXT;
        else if (c != ' ' && c != '\t')
            return -400;
    }
    return shoal_http_is(c, SHOAL_HTTP_VALUE) ? extension_count(state) : -400;
}

/* Keeps a byte of a trailer line, if somebody wants it. */
static int trailer_keep(struct shoal_http1_chunked *state, char c)
{
    struct shoal_http1_trailers *trailers = state->trailers;
    if (trailers == NULL)
        return 0;
    if (trailers->used == trailers->buf_size)
        return -431;
    trailers->buf[trailers->used++] = c;
    return 0;
}

static void trailer_hand_over(struct shoal_http1_trailers *trailers)
{
    if (trailers == NULL)
        return;
    const struct shoal_str name = shoal_str_make(trailers->buf, trailers->name_len);
    const char *value = trailers->buf + trailers->name_len;
    const char *end = trailers->buf + trailers->used;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (value < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    trailers->field(trailers->arg, name, shoal_str_make(value, (size_t)(end - value)));
}

static int step_trailer_name(struct shoal_http1_chunked *state, char c)
{
    struct shoal_http1_trailers *trailers = state->trailers;
    if (c == ':' && state->step == NAME) {
        state->step = VALUE;
        if (trailers != NULL)
            trailers->name_len = trailers->used;
        return 0;
    }
    if (!shoal_http_is(c, SHOAL_HTTP_TOKEN))
        return -400;
    if (state->step == LINE) {
        if (state->trailer_count == TRAILER_FIELDS_MAX)
            return -431;
        state->trailer_count++;
        state->step = NAME;
        if (trailers != NULL)
            trailers->used = 0;
    }
    return trailer_keep(state, c);
}

/* One byte of the trailer section: 0 to go on, END after the empty line. */
static int step_trailer(struct shoal_http1_chunked *state, char c)
{
    if (state->step == END_LF)
        return c == '\n' ? SHOAL_HTTP1_CHUNKED_END : -400;
    if (c == '\r' && state->step == LINE) {
        state->step = END_LF;
        return 0;
    }
    if (++state->trailer_bytes > TRAILER_BYTES_MAX)
        return -431;
    switch (state->step) {
    case LINE:
    case NAME:
        return step_trailer_name(state, c);
    case VALUE:
        if (c == '\r') {
            state->step = VALUE_LF;
            return 0;
        }
        return shoal_http_is(c, SHOAL_HTTP_VALUE) ? trailer_keep(state, c) : -400;
    default: /* VALUE_LF */
        if (c != '\n')
            return -400;
        trailer_hand_over(state->trailers);
        state->step = LINE;
        return 0;
    }
}

/* One byte outside the data: 0 to go on, END, or a negative status. */
static int step_byte(struct shoal_http1_chunked *state, char c)
{
    switch (state->step) {
    case SIZE:
        return step_size(state, c);
    case EXT_SPACE:
    case EXT:
        return step_extension(state, c);
    case SIZE_LF:
        state->step = state->chunk_left != 0 ? DATA : LINE;
        state->size_digits = 0;
        return c == '\n' ? 0 : -400;
    case DATA_CR:
        state->step = DATA_LF;
        return c == '\r' ? 0 : -400;
    case DATA_LF:
        state->step = SIZE;
        return c == '\n' ? 0 : -400;
    default:
        return step_trailer(state, c);
    }
}

int shoal_http1_chunked_decode(struct shoal_http1_chunked *state, const char *in, size_t len,
                               size_t *consumed, struct shoal_str *piece)
{
    size_t at = 0;
    *piece = shoal_str_make(in, 0);
    while (state->status == 0 && at < len) {
        if (state->step == DATA) {
            size_t size = len - at < UINT32_MAX ? len - at : UINT32_MAX;
            if (size >= state->chunk_left) {
                size = (size_t)state->chunk_left;
                state->step = DATA_CR;
            }
            *piece = shoal_str_make(in + at, size);
            state->chunk_left -= size;
            state->body_bytes += size;
            *consumed = at + size;
            return SHOAL_HTTP1_CHUNKED_DATA;
        }
        state->status = (int16_t)step_byte(state, in[at++]);
    }
    *consumed = at;
    return state->status;
}
