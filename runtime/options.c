/*
 * Command-line options.
 *
 * 1. Words are handled from left to right and the first error ends it: targets of options before
 *    it are then already written, so a caller that gets SHOAL_OPTIONS_BAD must not use them.
 * 2. A later occurrence of an option replaces an earlier one.
 * 3. An error is one line that names the option, the value as given and what is allowed; control
 *    characters in what the user typed are shown as '?', so that it stays one line.
 * 4. Numbers are parsed here, digit by digit: strtoull takes blanks, signs, hexadecimal and silent
 *    garbage, and the locale would decide about decimals.
 * 5. A separate word that begins with "--" is never taken as a value: `--host --port 80` is a
 *    forgotten value. `--host=--port` says it if that is meant.
 *
 * Rejected: getopt_long, which prints its own errors, accepts abbreviations (a later option makes a
 * script's abbreviation ambiguous) and knows neither types nor limits.
 */
#include "shoal/runtime/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/options_help_impl.h"

struct parse {
    const struct shoal_option *const *tables;
    char *error;
    size_t error_size;
};

/* Writes the error line and gives SHOAL_OPTIONS_BAD. */
static SHOAL_PRINTF(2, 3) enum shoal_options_result
    bad(const struct parse *parse, const char *fmt, ...)
{
    if (parse->error_size == 0)
        return SHOAL_OPTIONS_BAD;
    va_list args;
    va_start(args, fmt);
    vsnprintf(parse->error, parse->error_size, fmt, args);
    va_end(args);
    for (char *at = parse->error; *at != 0; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    return SHOAL_OPTIONS_BAD;
}

static const struct shoal_option *find(const struct parse *parse, const char *name, size_t length)
{
    for (const struct shoal_option *const *table = parse->tables; *table != NULL; table++)
        for (const struct shoal_option *option = *table; option->name != NULL; option++)
            if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
                return option;
    return NULL;
}

enum { NAME_LENGTH_MAX = 63 }; /* longer words get no suggestion */

/* How many characters must be changed, added, removed or swapped with the next to make a into b. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][NAME_LENGTH_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = above2[j - 2] + 1 < best ? above2[j - 2] + 1 : best;
            row[j] = best;
        }
    }
    return rows[a_length % 3][b_length];
}

/* Makes `name` the best match so far if it is one. A longer beginning counts as near, too. */
static void consider(const char *word, size_t length, const char *name, const char **best,
                     size_t *best_distance)
{
    size_t name_length = strlen(name);
    if (name_length > NAME_LENGTH_MAX)
        return;
    size_t distance = edit_distance(word, length, name, name_length);
    if (length >= 3 && name_length > length && memcmp(word, name, length) == 0)
        distance = 1;
    if (distance < *best_distance) {
        *best = name;
        *best_distance = distance;
    }
}

/* The option whose name is nearest to the word, or NULL if none is near enough. */
static const char *nearest(const struct parse *parse, const char *word, size_t length)
{
    if (length == 0 || length > NAME_LENGTH_MAX)
        return NULL;
    const char *best = NULL;
    size_t best_distance = length < 4 ? 2 : length / 3 + 2; /* exclusive */
    for (const struct shoal_option *const *table = parse->tables; *table != NULL; table++)
        for (const struct shoal_option *option = *table; option->name != NULL; option++)
            consider(word, length, option->name, &best, &best_distance);
    consider(word, length, "help", &best, &best_distance);
    consider(word, length, "version", &best, &best_distance);
    return best;
}

static enum shoal_options_result unknown(const struct parse *parse, const char *word)
{
    size_t dashes = strspn(word, "-");
    size_t length = strcspn(word + dashes, "=");
    const char *near = nearest(parse, word + dashes, length);
    int shown = (int)(dashes + length < 100 ? dashes + length : 100);
    if (near != NULL)
        return bad(parse, "%.*s: no such option (did you mean --%s?)", shown, word, near);
    return bad(parse, "%.*s: no such option (--help lists all)", shown, word);
}

/* Reads decimal digits; returns how many, and UINT64_MAX in *out where they do not fit. */
static size_t read_digits(const char *text, uint64_t *out)
{
    size_t length = 0;
    *out = 0;
    for (; text[length] >= '0' && text[length] <= '9'; length++) {
        uint64_t digit = (uint64_t)(text[length] - '0');
        if (*out > (UINT64_MAX - digit) / 10)
            *out = UINT64_MAX;
        else
            *out = *out * 10 + digit;
    }
    return length;
}

static uint64_t multiply_saturated(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static bool parse_uint(const char *text, uint64_t *out)
{
    size_t digits = read_digits(text, out);
    return digits > 0 && text[digits] == 0;
}

static bool parse_size(const char *text, uint64_t *out)
{
    size_t digits = read_digits(text, out);
    if (digits == 0)
        return false;
    unsigned shift = 0;
    switch (text[digits]) {
    case 0:
        return true;
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    case 'T':
        shift = 40;
        break;
    default:
        return false;
    }
    *out = multiply_saturated(*out, (uint64_t)1 << shift);
    return text[digits + 1] == 0;
}

static bool parse_seconds(const char *text, uint64_t *out)
{
    uint64_t seconds, fraction = 0;
    size_t digits = read_digits(text, &seconds);
    if (digits == 0)
        return false;
    text += digits;
    if (*text == '.') {
        digits = read_digits(text + 1, &fraction);
        if (digits == 0 || digits > 9)
            return false;
        text += digits + 1;
        for (; digits < 9; digits++)
            fraction *= 10;
    }
    if (__builtin_add_overflow(multiply_saturated(seconds, 1000000000), fraction, out))
        *out = UINT64_MAX;
    return *text == 0;
}

/* Parses the value of a number of any kind into its target. */
static enum shoal_options_result set_number(const struct parse *parse,
                                            const struct shoal_option *option, const char *value)
{
    uint64_t number = 0;
    bool valid;
    const char *kind;
    if (option->type == SHOAL_OPTION_SIZE) {
        valid = parse_size(value, &number);
        kind = "not a size in whole bytes, or with k, M, G or T";
    } else if (option->type == SHOAL_OPTION_SECONDS_NS) {
        valid = parse_seconds(value, &number);
        kind = "not a number of seconds";
    } else {
        valid = parse_uint(value, &number);
        kind = "not a whole number";
    }
    /* UINT64_MAX stands for overflow, whatever the limits are */
    bool in_range = number >= option->min && (option->max == 0 || number <= option->max) &&
                    number != UINT64_MAX;
    if (valid && in_range) {
        *(uint64_t *)option->target = number;
        return SHOAL_OPTIONS_OK;
    }
    char allowed[128];
    shoal_option_allowed(option, allowed, sizeof(allowed));
    return bad(parse, "--%s: \"%.100s\" is %s (allowed: %s)", option->name, value,
               valid ? "out of range" : kind, allowed);
}

static enum shoal_options_result set_choice(const struct parse *parse,
                                            const struct shoal_option *option, const char *value)
{
    for (int i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(option->choices[i], value) == 0) {
            *(int *)option->target = i;
            return SHOAL_OPTIONS_OK;
        }
    }
    char allowed[128];
    shoal_option_allowed(option, allowed, sizeof(allowed));
    return bad(parse, "--%s: \"%.100s\" is not one of its values (allowed: %s)", option->name,
               value, allowed);
}

/* Sets the option to `value`, which is NULL where none was given. */
static enum shoal_options_result set(const struct parse *parse, const struct shoal_option *option,
                                     const char *value)
{
    enum shoal_options_result result = SHOAL_OPTIONS_OK;
    char allowed[128];
    shoal_option_allowed(option, allowed, sizeof(allowed));
    if (option->type == SHOAL_OPTION_FLAG) {
        if (value != NULL)
            return bad(parse, "--%s: \"%.100s\" was given, but it takes no value (allowed: --%s)",
                       option->name, value, option->name);
        *(bool *)option->target = true;
    } else if (value == NULL) {
        return bad(parse, "--%s: its value is missing (allowed: %s)", option->name, allowed);
    } else if (*value == 0) {
        return bad(parse, "--%s: \"\" is empty (allowed: %s)", option->name, allowed);
    } else if (option->type == SHOAL_OPTION_STRING) {
        *(const char **)option->target = value;
    } else if (option->type == SHOAL_OPTION_CHOICE) {
        result = set_choice(parse, option, value);
    } else {
        result = set_number(parse, option, value);
    }
    if (result == SHOAL_OPTIONS_OK && option->given != NULL)
        *option->given = true;
    return result;
}

/*
 * Handles argv[at], which begins with a dash, and says in *used how many words it took.
 * `*answer` becomes "help" or "version" if that is what was asked for.
 */
static enum shoal_options_result handle(const struct parse *parse, char **argv, int argc, int at,
                                        int *used, const char **answer)
{
    const char *word = argv[at];
    *used = 1;
    if (word[1] != '-')
        return unknown(parse, word);
    const char *name = word + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;

    const struct shoal_option *option = find(parse, name, length);
    if (option != NULL) {
        bool next_is_value = at + 1 < argc && strncmp(argv[at + 1], "--", 2) != 0;
        if (value == NULL && option->type != SHOAL_OPTION_FLAG && next_is_value) {
            value = argv[at + 1];
            *used = 2;
        }
        return set(parse, option, value);
    }
    if (strncmp(word, "--help", 6) == 0 && length == 4)
        *answer = "help";
    else if (strncmp(word, "--version", 9) == 0 && length == 7)
        *answer = "version";
    else
        return unknown(parse, word);
    if (value != NULL)
        return bad(parse, "--%s: \"%.100s\" was given, but it takes no value (allowed: --%s)",
                   *answer, value, *answer);
    return SHOAL_OPTIONS_EXIT;
}

/* Moves the words [at, at + count) in front of the words [first, at), keeping both orders. */
static void move_before(char **argv, int first, int at, int count)
{
    for (int i = 0; i < count; i++) {
        char *word = argv[at + i];
        memmove(&argv[first + i + 1], &argv[first + i], sizeof(argv[0]) * (size_t)(at - first));
        argv[first + i] = word;
    }
}

enum shoal_options_result shoal_options_parse(int argc, char **argv,
                                              const struct shoal_option *const *tables,
                                              const char *version, const char *about, int *rest,
                                              char *error, size_t error_size)
{
    const struct parse parse = {.tables = tables, .error = error, .error_size = error_size};
    const char *answer = NULL;
    int first_rest = argc > 0 ? 1 : 0; /* where the words that are no options begin so far */
    for (int at = first_rest; at < argc;) {
        bool end = strcmp(argv[at], "--") == 0;
        bool is_option = argv[at][0] == '-' && argv[at][1] != 0;
        if (rest == NULL && (end ? at + 1 < argc : !is_option))
            return bad(&parse, "\"%.100s\" is not an option (--help lists all)",
                       argv[end ? at + 1 : at]);
        if (!end && !is_option) {
            at++;
            continue;
        }
        int used = 1;
        enum shoal_options_result result =
            end ? SHOAL_OPTIONS_OK : handle(&parse, argv, argc, at, &used, &answer);
        if (result == SHOAL_OPTIONS_BAD)
            return result;
        if (result == SHOAL_OPTIONS_EXIT) {
            if (answer != NULL && strcmp(answer, "help") == 0)
                shoal_options_print_help(argc > 0 ? argv[0] : "", tables, about);
            else
                printf("%s\n", version != NULL ? version : "");
            fflush(stdout);
            return result;
        }
        move_before(argv, first_rest, at, used);
        first_rest += used;
        at += used;
        if (end)
            break;
    }
    if (rest != NULL)
        *rest = first_rest;
    return SHOAL_OPTIONS_OK;
}
