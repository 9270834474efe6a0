/*
 * Fuzz target of the command line.
 *
 *  1. Accepted values are within the limits of their options, choices have an index that exists.
 *  2. A refused line has one line of text without control characters, however small its buffer.
 *  3. The same words give the same result again; `--name value` and `--name=value` mean the same.
 *  4. Words that are no options come out in their order, after all others, and none is lost.
 *
 * Input: one byte (bit 0: other words are allowed), then the words, each ended by NUL.
 */
#include "shoal/runtime/options.h"

#include "fuzz/fuzz_input.h"

enum { WORDS_MAX = 24, TEXT_MAX = 2048 };

static struct values {
    bool flag;
    bool flag_given;
    uint64_t number;
    uint64_t any_number;
    uint64_t size;
    uint64_t seconds_ns;
    const char *string;
    int choice;
} values;

static const char *const choices[] = {"one", "two", "three-and-more", NULL};
static const struct shoal_option first_table[] = {
    {"flag", SHOAL_OPTION_FLAG, &values.flag, NULL, "A flag.", 0, 0, NULL, &values.flag_given},
    {"number", SHOAL_OPTION_UINT, &values.number, "N", "A number.", 5, 1000, NULL, NULL},
    {"any", SHOAL_OPTION_UINT, &values.any_number, "N", "Any number.", 0, 0, NULL, NULL},
    {.name = NULL},
};
static const struct shoal_option second_table[] = {
    {"size", SHOAL_OPTION_SIZE, &values.size, "SIZE", "A size.", 16, UINT64_C(1) << 40, NULL, NULL},
    {"seconds", SHOAL_OPTION_SECONDS_NS, &values.seconds_ns, "S", "Seconds.", 1000,
     UINT64_C(3600000000000), NULL, NULL},
    {"string", SHOAL_OPTION_STRING, &values.string, "TEXT", "A text.", 0, 0, NULL, NULL},
    {"choice", SHOAL_OPTION_CHOICE, &values.choice, NULL, "A choice.", 0, 0, choices, NULL},
    {.name = NULL},
};
static const struct shoal_option *const tables[] = {first_table, second_table, NULL};

static enum shoal_options_result parse(int argc, char *const *words, char **argv, int *rest,
                                       char *error, size_t error_size)
{
    values = (struct values){.number = 7, .size = 64, .seconds_ns = 5000, .string = "default"};
    for (int i = 0; i <= argc; i++)
        argv[i] = words[i];
    return shoal_options_parse(argc, argv, tables, "1", NULL, rest, error, error_size);
}

static void require_values(int argc, char *const *words)
{
    REQUIRE(values.number >= 5 && values.number <= 1000);
    REQUIRE(values.size >= 16 && values.size <= UINT64_C(1) << 40);
    REQUIRE(values.seconds_ns >= 1000 && values.seconds_ns <= UINT64_C(3600000000000));
    REQUIRE(values.choice >= 0 && values.choice <= 2);
    REQUIRE(values.flag == values.flag_given);
    bool inside = strcmp(values.string, "default") == 0;
    for (int i = 1; i < argc && !inside; i++)
        inside = values.string >= words[i] && values.string <= words[i] + strlen(words[i]);
    REQUIRE(inside);
}

static bool same_values(const struct values *a, const struct values *b)
{
    return a->flag == b->flag && a->number == b->number && a->any_number == b->any_number &&
           a->size == b->size && a->seconds_ns == b->seconds_ns && a->choice == b->choice &&
           strcmp(a->string, b->string) == 0;
}

/* All words are there still, and those from `rest` on are in the order in which they came. */
static void require_permuted(int argc, char *const *words, char *const *argv, int rest)
{
    REQUIRE(rest >= 1 && rest <= argc);
    bool seen[WORDS_MAX] = {false};
    int last = 0;
    for (int i = 1; i < argc; i++) {
        int from = 1;
        while (from < argc && (argv[i] != words[from] || seen[from]))
            from++;
        REQUIRE(from < argc);
        seen[from] = true;
        if (i >= rest) {
            REQUIRE(from > last);
            last = from;
        }
    }
}

/* Joins `--name` and its value into one word, where there are just these two. */
static void try_joined(char *const *words)
{
    char joined[TEXT_MAX + 2], error[2][256];
    char *argv[4];
    char *two[] = {words[0], words[1], words[2], NULL};
    char *one[] = {words[0], joined, NULL};
    if (strncmp(words[1], "--", 2) != 0 || words[1][2] == '\0' || strchr(words[1], '=') != NULL ||
        strncmp(words[2], "--", 2) == 0)
        return;
    snprintf(joined, sizeof(joined), "%s=%s", words[1], words[2]);
    enum shoal_options_result apart = parse(3, two, argv, NULL, error[0], sizeof(error[0]));
    struct values first = values;
    enum shoal_options_result together = parse(2, one, argv, NULL, error[1], sizeof(error[1]));
    if (strcmp(words[1], "--flag") == 0) { /* takes no value: another error each */
        REQUIRE(apart == SHOAL_OPTIONS_BAD && together == SHOAL_OPTIONS_BAD);
        return;
    }
    REQUIRE(apart == together);
    REQUIRE(apart != SHOAL_OPTIONS_OK || same_values(&first, &values));
}

static bool asks_for_help(int argc, char *const *words)
{
    for (int i = 1; i < argc; i++)
        if (strncmp(words[i], "--help", 6) == 0 || strncmp(words[i], "--version", 9) == 0)
            return true;
    return false;
}

static void try_words(int argc, char *const *words, bool with_rest)
{
    char error[512], again[512], tiny[8];
    char *argv[WORDS_MAX + 1];
    int rest = -1;
    int *rest_out = with_rest ? &rest : NULL;
    enum shoal_options_result result = parse(argc, words, argv, rest_out, error, sizeof(error));
    REQUIRE(result == SHOAL_OPTIONS_OK || result == SHOAL_OPTIONS_BAD);
    struct values first = values;
    if (result == SHOAL_OPTIONS_OK) {
        require_values(argc, words);
        if (with_rest)
            require_permuted(argc, words, argv, rest);
    } else {
        fuzz_require_error_line(error, sizeof(error));
        REQUIRE(parse(argc, words, argv, rest_out, tiny, sizeof(tiny)) == SHOAL_OPTIONS_BAD);
        fuzz_require_error_line(tiny, sizeof(tiny));
        REQUIRE(strncmp(tiny, error, sizeof(tiny) - 1) == 0);
    }
    REQUIRE(parse(argc, words, argv, rest_out, again, sizeof(again)) == result);
    REQUIRE(result != SHOAL_OPTIONS_OK || same_values(&first, &values));
    REQUIRE(result != SHOAL_OPTIONS_BAD || strcmp(error, again) == 0);
    if (argc == 3)
        try_joined(words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    char program[] = "program";
    char *words[WORDS_MAX + 1] = {program};
    int argc = 1;
    if (size > TEXT_MAX)
        return 0;
    const bool with_rest = (fuzz_byte(&in) & 1) != 0;
    while (fuzz_more(&in) && argc < WORDS_MAX)
        words[argc++] = fuzz_word(&in);
    words[argc] = NULL;
    if (!asks_for_help(argc, words))
        try_words(argc, words, with_rest);
    for (int i = 1; i < argc; i++)
        free(words[i]);
    return 0;
}
