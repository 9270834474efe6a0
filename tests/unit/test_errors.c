/*
 * Error codes: every code has a name and a text, whether it is Shoal's or the system's.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/runtime/errors.h"

static void error_text_system_code_is_the_systems(void **state)
{
    (void)state;
    assert_string_equal(shoal_error_text(-ECONNRESET), "Connection reset by peer");
    assert_string_equal(shoal_error_name(-ECONNRESET), "ECONNRESET");
    assert_string_equal(shoal_error_name(-ECANCELED), "ECANCELED");
}

static void error_text_positive_code_equals_negative(void **state)
{
    (void)state;
    assert_ptr_equal(shoal_error_text(EPIPE), shoal_error_text(-EPIPE));
    assert_string_equal(shoal_error_name(EPIPE), "EPIPE");
}

static void error_text_own_code_comes_from_the_table(void **state)
{
    (void)state;
    assert_string_equal(shoal_error_text(SHOAL_EEOF), "end of stream");
    assert_string_equal(shoal_error_name(SHOAL_EEOF), "SHOAL_EEOF");
#define CHECK_ROW(row_name, code, text, python)                                                    \
    assert_string_equal(shoal_error_name(code), #row_name);                                        \
    assert_string_equal(shoal_error_text(code), text);                                             \
    assert_true(strlen(python) > 5);
    SHOAL_ERROR_TABLE(CHECK_ROW)
#undef CHECK_ROW
}

static void error_text_unknown_code_still_has_text(void **state)
{
    (void)state;
    static const int codes[] = {-2000, -134, -4096, -100000, INT_MIN, INT_MAX};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(codes); i++) {
        assert_string_equal(shoal_error_text(codes[i]), "unknown error");
        assert_string_equal(shoal_error_name(codes[i]), "UNKNOWN");
    }
}

static void error_text_zero_is_success(void **state)
{
    (void)state;
    assert_string_equal(shoal_error_text(0), "success");
    assert_string_equal(shoal_error_name(0), "OK");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_text_system_code_is_the_systems),
        cmocka_unit_test(error_text_positive_code_equals_negative),
        cmocka_unit_test(error_text_own_code_comes_from_the_table),
        cmocka_unit_test(error_text_unknown_code_still_has_text),
        cmocka_unit_test(error_text_zero_is_success),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
