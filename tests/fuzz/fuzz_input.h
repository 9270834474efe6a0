/*
 * What fuzz targets share: a check that always counts, and the input taken apart into numbers and
 * words. An input that has run out gives zeros, so that every input means something.
 */
#ifndef SHOAL_TESTS_FUZZ_INPUT_H
#define SHOAL_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *at;
    const uint8_t *end;
};

static inline bool fuzz_more(const struct fuzz_input *in)
{
    return in->at < in->end;
}

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* A number of `bytes` bytes, little end first. */
static inline uint64_t fuzz_number(struct fuzz_input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)fuzz_byte(in) << (8 * i);
    return value;
}

/*
 * The bytes up to the next NUL or the end, as a string of its own allocation, so that a read past
 * its end is seen. To be freed.
 */
static inline char *fuzz_word(struct fuzz_input *in)
{
    const uint8_t *stop = in->at < in->end ? memchr(in->at, 0, (size_t)(in->end - in->at)) : NULL;
    const size_t len = (size_t)((stop != NULL ? stop : in->end) - in->at);
    char *word = malloc(len + 1);
    REQUIRE(word != NULL);
    if (len > 0)
        memcpy(word, in->at, len);
    word[len] = '\0';
    in->at = stop != NULL ? stop + 1 : in->end;
    return word;
}

/* The text of an error: one line, not empty, that ends within its buffer. */
static inline void fuzz_require_error_line(const char *error, size_t size)
{
    const size_t len = strnlen(error, size);
    REQUIRE(len > 0 && len < size);
    for (size_t i = 0; i < len; i++)
        REQUIRE((unsigned char)error[i] >= 0x20 && error[i] != 0x7f);
}

#endif
