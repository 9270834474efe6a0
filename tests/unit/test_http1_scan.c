/*
 * Tests of the character classes of HTTP and of the search through them.
 *
 *  1. The vector search is compared with its portable twin for each byte value at each offset of
 *     sizes around 16 and 32, in allocations of exactly that size.
 *     Without vector code both are the same, and this says nothing.
 *  2. The class table is compared with the grammar, written out a second time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/net/http/http1_scan_impl.h"

static void scan_compare(const char *begin, const char *p, const char *end)
{
#define SAME(cls) assert_ptr_equal(shoal_scan(begin, p, end, cls), shoal_scan_portable(p, end, cls))
    SAME(SHOAL_HTTP_TOKEN);
    SAME(SHOAL_HTTP_VALUE);
    SAME(SHOAL_HTTP_TARGET);
    SAME(SHOAL_HTTP_PATH);
    SAME(SHOAL_HTTP_HOST);
#undef SAME
}

static void http1_scan_vector_equals_portable(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {1, 7, 15, 16, 17, 31, 32, 33, 40};
    for (size_t s = 0; s < SHOAL_ARRAY_SIZE(sizes); s++) {
        const size_t size = sizes[s];
        char *text = malloc(size);
        assert_non_null(text);
        for (unsigned c = 0; c < 256; c++) {
            for (size_t at = 0; at < size; at++) {
                memset(text, c & 1 ? 'a' : '_', size);
                text[at] = (char)c;
                for (size_t from = 0; from <= size; from += from < 17 ? 1 : 5)
                    scan_compare(text, text + from, text + size);
            }
        }
        free(text);
    }
}

/* The classes against the grammar, written out a second time. */
static void http1_scan_classes_follow_grammar(void **unused)
{
    (void)unused;
    for (int c = 0; c < 256; c++) {
        const bool alnum =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool visible = c > 0x20 && c < 0x7f;
        const bool token = alnum || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        const bool host = alnum || (c != 0 && strchr("-._~!$&'()*+,;=", c) != NULL);
        assert_int_equal(shoal_http_is((char)c, SHOAL_HTTP_TOKEN), token);
        assert_int_equal(shoal_http_is((char)c, SHOAL_HTTP_HOST), host);
        assert_int_equal(shoal_http_is((char)c, SHOAL_HTTP_VALUE),
                         visible || c == ' ' || c == '\t' || c >= 0x80);
        assert_int_equal(shoal_http_is((char)c, SHOAL_HTTP_TARGET), visible && c != '#');
        assert_int_equal(shoal_http_is((char)c, SHOAL_HTTP_PATH), visible && c != '#' && c != '?');
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *digit = c != 0 ? strchr(digits, c) : NULL;
        assert_int_equal(shoal_http_hex((char)c), digit != NULL ? (digit - digits) % 16 : -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http1_scan_vector_equals_portable),
        cmocka_unit_test(http1_scan_classes_follow_grammar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
