/*
 * Option parsing: each wrong input with its exact error line, and the --help page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "shoal/runtime/options.h"

static struct {
    uint64_t smp, memory, timeout_ns, any;
    const char *host;
    int backend;
    bool poll, smp_given;
} got;

static const char *const backends[] = {"auto", "io_uring", "epoll", NULL};

static const struct shoal_option first_table[] = {
    {.name = "smp",
     .type = SHOAL_OPTION_UINT,
     .target = &got.smp,
     .value_name = "N",
     .help = "Number of cores; without it, all CPUs that there are.",
     .min = 1,
     .max = 1024,
     .given = &got.smp_given},
    {.name = "memory",
     .type = SHOAL_OPTION_SIZE,
     .target = &got.memory,
     .value_name = "BYTES",
     .help = "Memory.",
     .min = 1 << 20,
     .max = 1ULL << 40},
    {.name = "poll-mode", .type = SHOAL_OPTION_FLAG, .target = &got.poll, .help = "Never sleep."},
    {.name = "io-backend",
     .type = SHOAL_OPTION_CHOICE,
     .target = &got.backend,
     .help = "How I/O is done, in a text that is so long that it must be wrapped at least once.",
     .choices = backends},
    {0},
};
static const struct shoal_option second_table[] = {
    {.name = "host",
     .type = SHOAL_OPTION_STRING,
     .target = &got.host,
     .value_name = "ADDRESS",
     .help = "Address."},
    {.name = "idle-timeout",
     .type = SHOAL_OPTION_SECONDS_NS,
     .target = &got.timeout_ns,
     .value_name = "SECONDS",
     .help = "Idle time.",
     .max = 86400000000000},
    {.name = "any",
     .type = SHOAL_OPTION_UINT,
     .target = &got.any,
     .value_name = "N",
     .help = "Any."},
    {0},
};
static const struct shoal_option *const tables[] = {first_table, second_table, NULL};

static char error[256];
static int rest;
static char *words[16];

/* Parses the NULL-terminated words; positional ones are allowed if `positional`. */
static enum shoal_options_result parse_words(bool positional, const char *first, va_list list)
{
    memset(&got, 0, sizeof(got));
    got.memory = 512 << 20;
    got.timeout_ns = 500000000;
    got.host = "127.0.0.1";
    memset(error, 0, sizeof(error));
    int count = 0;
    words[count++] = (char *)"/usr/bin/program";
    for (const char *word = first; word != NULL; word = va_arg(list, const char *))
        words[count++] = (char *)word;
    words[count] = NULL;
    rest = -1;
    return shoal_options_parse(count, words, tables, "shoal 1.2.3", "Does a thing.",
                               positional ? &rest : NULL, error, sizeof(error));
}

static __attribute__((sentinel)) enum shoal_options_result parse(const char *first, ...)
{
    va_list list;
    va_start(list, first);
    enum shoal_options_result result = parse_words(false, first, list);
    va_end(list);
    return result;
}

static __attribute__((sentinel)) enum shoal_options_result parse_rest(const char *first, ...)
{
    va_list list;
    va_start(list, first);
    enum shoal_options_result result = parse_words(true, first, list);
    va_end(list);
    return result;
}

#define ASSERT_BAD(text, ...)                                                                      \
    do {                                                                                           \
        assert_int_equal(parse(__VA_ARGS__, NULL), SHOAL_OPTIONS_BAD);                             \
        assert_string_equal(error, text);                                                          \
    } while (0)

static void options_parse_all_kinds_are_stored(void **state)
{
    (void)state;
    assert_int_equal(parse("--smp", "4", "--memory=2G", "--poll-mode", "--io-backend", "epoll",
                           "--host", "unix:/a=b", "--idle-timeout=1.25", NULL),
                     SHOAL_OPTIONS_OK);
    assert_int_equal(got.smp, 4);
    assert_true(got.smp_given);
    assert_int_equal(got.memory, 2ULL << 30);
    assert_true(got.poll);
    assert_int_equal(got.backend, 2);
    assert_string_equal(got.host, "unix:/a=b");
    assert_int_equal(got.timeout_ns, 1250000000);
}

static void options_parse_nothing_keeps_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, NULL), SHOAL_OPTIONS_OK);
    assert_int_equal(got.memory, 512 << 20);
    assert_false(got.smp_given);
    assert_int_equal(shoal_options_parse(0, words, tables, "", "", &rest, error, sizeof(error)),
                     SHOAL_OPTIONS_OK);
    assert_int_equal(rest, 0);
}

static void options_parse_twice_last_wins(void **state)
{
    (void)state;
    assert_int_equal(parse("--smp", "4", "--smp=2", NULL), SHOAL_OPTIONS_OK);
    assert_int_equal(got.smp, 2);
}

static void options_parse_limits_are_inclusive(void **state)
{
    (void)state;
    assert_int_equal(parse("--smp=1", "--memory=1M", "--idle-timeout=0", NULL), SHOAL_OPTIONS_OK);
    assert_int_equal(parse("--smp=1024", "--memory=1T", "--idle-timeout=86400", NULL),
                     SHOAL_OPTIONS_OK);
    assert_int_equal(parse("--any=18446744073709551614", NULL), SHOAL_OPTIONS_OK);
    assert_true(got.any == UINT64_MAX - 1);
}

static void options_parse_number_out_of_range_is_bad(void **state)
{
    (void)state;
    ASSERT_BAD("--smp: \"0\" is out of range (allowed: 1 to 1024)", "--smp", "0");
    ASSERT_BAD("--smp: \"1025\" is out of range (allowed: 1 to 1024)", "--smp=1025");
    ASSERT_BAD("--smp: \"18446744073709551617\" is out of range (allowed: 1 to 1024)",
               "--smp=18446744073709551617");
    ASSERT_BAD("--any: \"99999999999999999999999999\" is out of range (allowed: 0 or more)",
               "--any=99999999999999999999999999");
    assert_false(got.smp_given);
}

static void options_parse_number_malformed_is_bad(void **state)
{
    (void)state;
    static const char *const values[] = {"-1", "+1",  "0x10", "1e3", "2 ",  " 2",
                                         "2x", "1.5", "two",  "NaN", "inf", "١"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(values); i++) {
        char expected[128];
        snprintf(expected, sizeof(expected),
                 "--smp: \"%s\" is not a whole number (allowed: 1 to 1024)", values[i]);
        ASSERT_BAD(expected, "--smp", values[i]);
    }
    ASSERT_BAD("--smp: \"1?2\" is not a whole number (allowed: 1 to 1024)", "--smp", "1\n2");
}

static void options_parse_size_malformed_is_bad(void **state)
{
    (void)state;
    static const char *const values[] = {"1.5G", "512m", "M", "512MB", "-5M", "5 M", "0x5M", "5MM"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(values); i++) {
        char expected[160];
        snprintf(expected, sizeof(expected),
                 "--memory: \"%s\" is not a size in whole bytes, or with k, M, G or T (allowed: 1M "
                 "to 1T)",
                 values[i]);
        ASSERT_BAD(expected, "--memory", values[i]);
    }
    ASSERT_BAD("--memory: \"1023k\" is out of range (allowed: 1M to 1T)", "--memory=1023k");
    ASSERT_BAD("--memory: \"16777216T\" is out of range (allowed: 1M to 1T)", "--memory=16777216T");
}

static void options_parse_size_suffixes_are_binary(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {{"2048k", 2048 << 10}, {"2048K", 2048 << 10}, {"3M", 3 << 20},
                 {"1G", 1 << 30},       {"1T", 1ULL << 40},    {"1048577", 1048577}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse("--memory", cases[i].text, NULL), SHOAL_OPTIONS_OK);
        assert_int_equal(got.memory, cases[i].value);
    }
}

static void options_parse_seconds_decimals_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {{"0.5", 500000000}, {"10", 10000000000}, {"0.000000001", 1}, {"1.10", 1100000000}};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse("--idle-timeout", cases[i].text, NULL), SHOAL_OPTIONS_OK);
        assert_int_equal(got.timeout_ns, cases[i].value);
    }
}

static void options_parse_seconds_malformed_is_bad(void **state)
{
    (void)state;
    static const char *const values[] = {"1.", ".5",           "1e3", "nan",  "inf",
                                         "-1", "1.0000000001", "1,5", "1.5s", "1.-5"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(values); i++) {
        char expected[160];
        snprintf(expected, sizeof(expected),
                 "--idle-timeout: \"%s\" is not a number of seconds (allowed: 0 to 86400 seconds, "
                 "at most 9 decimals)",
                 values[i]);
        ASSERT_BAD(expected, "--idle-timeout", values[i]);
    }
    assert_int_equal(parse("--idle-timeout=86400.000000001", NULL), SHOAL_OPTIONS_BAD);
    assert_int_equal(parse("--idle-timeout=99999999999999999999", NULL), SHOAL_OPTIONS_BAD);
}

static void options_parse_choice_unknown_lists_all(void **state)
{
    (void)state;
    ASSERT_BAD("--io-backend: \"kqueue\" is not one of its values (allowed: auto, io_uring, epoll)",
               "--io-backend", "kqueue");
    ASSERT_BAD("--io-backend: \"\" is empty (allowed: auto, io_uring, epoll)", "--io-backend=");
}

static void options_parse_value_missing_is_bad(void **state)
{
    (void)state;
    ASSERT_BAD("--smp: its value is missing (allowed: 1 to 1024)", "--smp");
    ASSERT_BAD("--host: its value is missing (allowed: ADDRESS)", "--host", "--smp", "2");
    ASSERT_BAD("--host: its value is missing (allowed: ADDRESS)", "--host", "--");
    ASSERT_BAD("--host: \"\" is empty (allowed: ADDRESS)", "--host", "");
    ASSERT_BAD("--smp: \"\" is empty (allowed: 1 to 1024)", "--smp=");
}

static void options_parse_value_with_dashes_needs_equals(void **state)
{
    (void)state;
    assert_int_equal(parse("--host=--x", NULL), SHOAL_OPTIONS_OK);
    assert_string_equal(got.host, "--x");
}

static void options_parse_flag_with_value_is_bad(void **state)
{
    (void)state;
    ASSERT_BAD("--poll-mode: \"yes\" was given, but it takes no value (allowed: --poll-mode)",
               "--poll-mode=yes");
    ASSERT_BAD("--help: \"x\" was given, but it takes no value (allowed: --help)", "--help=x");
    ASSERT_BAD("\"yes\" is not an option (--help lists all)", "--poll-mode", "yes");
}

static void options_parse_unknown_suggests_the_nearest(void **state)
{
    (void)state;
    ASSERT_BAD("--spm: no such option (did you mean --smp?)", "--spm", "2");
    ASSERT_BAD("--memroy: no such option (did you mean --memory?)", "--memroy=5");
    ASSERT_BAD("--idle: no such option (did you mean --idle-timeout?)", "--idle");
    ASSERT_BAD("-help: no such option (did you mean --help?)", "-help");
    ASSERT_BAD("--zzz: no such option (--help lists all)", "--zzz");
    ASSERT_BAD("-x: no such option (--help lists all)", "-x");
    ASSERT_BAD("--: no such option (--help lists all)", "--=5");
}

static void options_parse_positional_without_rest_is_bad(void **state)
{
    (void)state;
    ASSERT_BAD("\"file\" is not an option (--help lists all)", "file");
    ASSERT_BAD("\"--smp\" is not an option (--help lists all)", "--", "--smp");
    ASSERT_BAD("\"\" is not an option (--help lists all)", "");
    assert_int_equal(parse("--smp=2", "--", NULL), SHOAL_OPTIONS_OK);
}

static void options_parse_positional_with_rest_is_permuted(void **state)
{
    (void)state;
    assert_int_equal(
        parse_rest("a", "--smp", "2", "-", "--poll-mode", "b", "--", "--smp", "c", NULL),
        SHOAL_OPTIONS_OK);
    static const char *const expected[] = {"--smp", "2", "--poll-mode", "--", "a",
                                           "-",     "b", "--smp",       "c"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(expected); i++)
        assert_string_equal(words[i + 1], expected[i]);
    assert_int_equal(rest, 5);
    assert_int_equal(got.smp, 2);
    assert_true(got.poll);
}

static void options_parse_error_buffer_too_small_is_cut(void **state)
{
    (void)state;
    char small[8] = "";
    words[1] = (char *)"--bogus";
    assert_int_equal(shoal_options_parse(2, words, tables, "", "", NULL, small, sizeof(small)),
                     SHOAL_OPTIONS_BAD);
    assert_string_equal(small, "--bogus");
    assert_int_equal(shoal_options_parse(2, words, tables, "", "", NULL, NULL, 0),
                     SHOAL_OPTIONS_BAD);
}

static char page[4096];

/* Parses one word with stdout in a file, and leaves what was printed in `page`. */
static enum shoal_options_result print(const char *word)
{
    FILE *file = tmpfile();
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    enum shoal_options_result result = parse(word, NULL);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    ssize_t length = pread(fileno(file), page, sizeof(page) - 1, 0);
    page[length > 0 ? length : 0] = 0;
    fclose(file);
    return result;
}

static void options_help_is_aligned_and_has_defaults(void **state)
{
    (void)state;
    assert_int_equal(print("--help"), SHOAL_OPTIONS_EXIT);
    assert_string_equal(
        page, "Usage: program [OPTION]...\n"
              "Does a thing.\n"
              "\n"
              "  --smp N                 Number of cores; without it, all CPUs that there are.\n"
              "  --memory BYTES          Memory. (default: 512M)\n"
              "  --poll-mode             Never sleep.\n"
              "  --io-backend auto|io_uring|epoll\n"
              "                          How I/O is done, in a text that is so long that it\n"
              "                          must be wrapped at least once. (default: auto)\n"
              "\n"
              "  --host ADDRESS          Address. (default: 127.0.0.1)\n"
              "  --idle-timeout SECONDS  Idle time. (default: 0.5)\n"
              "  --any N                 Any. (default: 0)\n"
              "\n"
              "  --help                  Shows this page.\n"
              "  --version               Shows the version.\n");
}

static void options_version_is_printed_alone(void **state)
{
    (void)state;
    assert_int_equal(print("--version"), SHOAL_OPTIONS_EXIT);
    assert_string_equal(page, "shoal 1.2.3\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_parse_all_kinds_are_stored),
        cmocka_unit_test(options_parse_nothing_keeps_defaults),
        cmocka_unit_test(options_parse_twice_last_wins),
        cmocka_unit_test(options_parse_limits_are_inclusive),
        cmocka_unit_test(options_parse_number_out_of_range_is_bad),
        cmocka_unit_test(options_parse_number_malformed_is_bad),
        cmocka_unit_test(options_parse_size_malformed_is_bad),
        cmocka_unit_test(options_parse_size_suffixes_are_binary),
        cmocka_unit_test(options_parse_seconds_decimals_are_exact),
        cmocka_unit_test(options_parse_seconds_malformed_is_bad),
        cmocka_unit_test(options_parse_choice_unknown_lists_all),
        cmocka_unit_test(options_parse_value_missing_is_bad),
        cmocka_unit_test(options_parse_value_with_dashes_needs_equals),
        cmocka_unit_test(options_parse_flag_with_value_is_bad),
        cmocka_unit_test(options_parse_unknown_suggests_the_nearest),
        cmocka_unit_test(options_parse_positional_without_rest_is_bad),
        cmocka_unit_test(options_parse_positional_with_rest_is_permuted),
        cmocka_unit_test(options_parse_error_buffer_too_small_is_cut),
        cmocka_unit_test(options_help_is_aligned_and_has_defaults),
        cmocka_unit_test(options_version_is_printed_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
