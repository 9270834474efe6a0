/*
 * Lists of CPUs: what is accepted, each error line, and formatting as the inverse.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/runtime/errors.h"

#include "shoal/smp/cpuset_impl.h"

static char error[256];
static cpu_set_t set;

static void assert_round_trip(const char *text, const char *expected, int count)
{
    char out[4096];
    assert_int_equal(shoal_cpuset_parse(text, &set, error, sizeof(error)), 0);
    assert_int_equal(CPU_COUNT(&set), count);
    assert_string_equal(shoal_cpuset_format(&set, out, sizeof(out)), expected);
}

static void assert_bad(const char *text, const char *what)
{
    char expected[256];
    snprintf(expected, sizeof(expected), "--cpuset: \"%s\" %s (allowed: a list such as 0-3,8)",
             text, what);
    assert_int_equal(shoal_cpuset_parse(text, &set, error, sizeof(error)), SHOAL_EOPTION);
    assert_string_equal(error, expected);
}

static void cpuset_parse_list_is_normalised(void **state)
{
    (void)state;
    assert_round_trip("0-3,8", "0-3,8", 5);
    assert_true(CPU_ISSET(3, &set) && CPU_ISSET(8, &set) && !CPU_ISSET(4, &set));
    assert_round_trip("0", "0", 1);
    assert_round_trip("8,0,1", "0-1,8", 3);
    assert_round_trip("5-5", "5", 1);
    assert_round_trip("2,0-1,3-4", "0-4", 5);
    assert_round_trip("0-1023", "0-1023", 1024);
    assert_round_trip("1023", "1023", 1);
    assert_round_trip("007", "7", 1);
}

static void cpuset_parse_empty_is_bad(void **state)
{
    (void)state;
    assert_bad("", "is empty");
}

static void cpuset_parse_malformed_names_the_item(void **state)
{
    (void)state;
    assert_bad("0,,1", "has \"\", which is no CPU and no range");
    assert_bad("0,", "has \"\", which is no CPU and no range");
    assert_bad(",0", "has \"\", which is no CPU and no range");
    assert_bad("1-", "has \"1-\", which is no CPU and no range");
    assert_bad("0,-1", "has \"-1\", which is no CPU and no range");
    assert_bad("0-1-2", "has \"0-1-2\", which is no CPU and no range");
    assert_bad("0 ,1", "has \"0 \", which is no CPU and no range");
    assert_bad("all", "has \"all\", which is no CPU and no range");
    assert_bad("0x1", "has \"0x1\", which is no CPU and no range");
    assert_bad("1;2", "has \"1;2\", which is no CPU and no range");
}

static void cpuset_parse_reversed_range_is_bad(void **state)
{
    (void)state;
    assert_bad("3-0", "has the reversed range 3-0");
}

static void cpuset_parse_overlap_is_bad(void **state)
{
    (void)state;
    assert_bad("1,1", "names CPU 1 twice");
    assert_bad("0-3,2-5", "names CPU 2 twice");
}

static void cpuset_parse_beyond_the_last_cpu_is_bad(void **state)
{
    (void)state;
    assert_bad("1024", "has 1024, but the last possible CPU is 1023");
    assert_bad("0-1024", "has 0-1024, but the last possible CPU is 1023");
    assert_bad("1,99999999999999999999",
               "has 99999999999999999999, but the last possible CPU is 1023");
}

static void cpuset_parse_control_character_stays_on_one_line(void **state)
{
    (void)state;
    assert_int_equal(shoal_cpuset_parse("1\n2", &set, error, sizeof(error)), SHOAL_EOPTION);
    assert_null(strchr(error, '\n'));
}

static void cpuset_format_empty_set_is_none(void **state)
{
    (void)state;
    char out[16];
    CPU_ZERO(&set);
    assert_string_equal(shoal_cpuset_format(&set, out, sizeof(out)), "none");
}

static void cpuset_format_too_long_is_cut_at_an_item(void **state)
{
    (void)state;
    CPU_ZERO(&set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu += 2)
        CPU_SET(cpu, &set);
    char out[64];
    for (size_t size = 16; size <= sizeof(out); size++) {
        memset(out, 'x', sizeof(out));
        shoal_cpuset_format(&set, out, size);
        assert_true(strlen(out) < size);
        assert_string_equal(out + strlen(out) - 4, ",...");
    }
    assert_string_equal(shoal_cpuset_format(&set, out, 16), "0,2,4,6,8,...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpuset_parse_list_is_normalised),
        cmocka_unit_test(cpuset_parse_empty_is_bad),
        cmocka_unit_test(cpuset_parse_malformed_names_the_item),
        cmocka_unit_test(cpuset_parse_reversed_range_is_bad),
        cmocka_unit_test(cpuset_parse_overlap_is_bad),
        cmocka_unit_test(cpuset_parse_beyond_the_last_cpu_is_bad),
        cmocka_unit_test(cpuset_parse_control_character_stays_on_one_line),
        cmocka_unit_test(cpuset_format_empty_set_is_none),
        cmocka_unit_test(cpuset_format_too_long_is_cut_at_an_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
