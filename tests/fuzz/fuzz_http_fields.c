/*
 * Fuzz target of what decides about single fields of a head, which requests and responses share.
 *
 *  1. Names and values are valid where the grammar of RFC 9110 (5.1, 5.5) says so, byte by byte.
 *  2. A token is found in a list where splitting the list by commas and trimming finds it, in any
 *     case.
 *
 * Input: one byte, the length of a token; the token; then a list.
 */
#include <ctype.h>

#include <strings.h>

#include "shoal/net/http/http1_parser.h"

#include "fuzz/fuzz_input.h"

enum { TEXT_MAX = 1024 };

static bool model_name_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return len > 0;
}

static bool model_value_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool model_list_has(const char *list, size_t len, const char *token)
{
    const size_t token_len = strlen(token);
    for (size_t begin = 0; begin <= len;) {
        size_t end = begin;
        while (end < len && list[end] != ',')
            end++;
        size_t from = begin, to = end;
        while (from < to && (list[from] == ' ' || list[from] == '\t'))
            from++;
        while (to > from && (list[to - 1] == ' ' || list[to - 1] == '\t'))
            to--;
        if (to - from == token_len && strncasecmp(list + from, token, token_len) == 0)
            return true;
        begin = end + 1;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    char token[256];
    if (size > TEXT_MAX)
        return 0;
    size_t token_len = fuzz_byte(&in);
    for (size_t i = 0; i < token_len; i++) {
        token[i] = (char)tolower(fuzz_byte(&in));
        if (token[i] == '\0')
            token_len = i;
    }
    token[token_len] = '\0';
    const size_t len = (size_t)(in.end - in.at);
    char *text = malloc(len + 1);
    REQUIRE(text != NULL);
    if (len > 0)
        memcpy(text + 1, in.at, len); /* the end of the allocation is the end of the text */
    const struct shoal_str str = shoal_str_make(text + 1, len);
    REQUIRE(shoal_http_field_name_valid(str) == model_name_valid(text + 1, len));
    REQUIRE(shoal_http_field_value_valid(str) == model_value_valid(text + 1, len));
    if (model_name_valid(token, token_len))
        REQUIRE(shoal_http_list_has(str, token) == model_list_has(text + 1, len, token));
    free(text);
    return 0;
}
