/*
 * The --help page, and the words for what an option's value may be.
 *
 * 1. Tables keep their order and are set apart by an empty line; all help texts begin in one
 *    column, and lines end before column 80 unless a single word does not fit.
 * 2. A default is shown where the target holds a value that the option itself would accept: a
 *    number outside of its limits stands for "decided at start", which the help text explains.
 * 3. Sizes and seconds are shown in the form in which they are typed.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/options_help_impl.h"

enum { COLUMN_MAX = 34, WIDTH = 80, TEXT_MAX = 256 };

/* Appends to the text in `out`, cut to `size`. */
static SHOAL_PRINTF(3, 4) void append(char *out, size_t size, const char *fmt, ...)
{
    size_t length = strlen(out);
    va_list args;
    va_start(args, fmt);
    vsnprintf(out + length, size - length, fmt, args);
    va_end(args);
}

static void append_number(char *out, size_t size, enum shoal_option_type type, uint64_t number)
{
    if (type == SHOAL_OPTION_SECONDS_NS) {
        uint64_t fraction = number % 1000000000;
        append(out, size, "%" PRIu64, number / 1000000000);
        if (fraction == 0)
            return;
        append(out, size, ".%09" PRIu64, fraction);
        for (size_t end = strlen(out); end > 0 && out[end - 1] == '0'; end--)
            out[end - 1] = 0;
        return;
    }
    const char *suffix = "\0\0k\0M\0G\0T";
    if (type == SHOAL_OPTION_SIZE)
        for (; number != 0 && number % 1024 == 0 && suffix[0] != 'T'; number /= 1024)
            suffix += 2;
    append(out, size, "%" PRIu64 "%.1s", number, suffix);
}

static void append_choices(char *out, size_t size, const struct shoal_option *option,
                           const char *separator)
{
    for (int i = 0; option->choices[i] != NULL; i++)
        append(out, size, "%s%s", i > 0 ? separator : "", option->choices[i]);
}

void shoal_option_allowed(const struct shoal_option *option, char *out, size_t size)
{
    if (size == 0)
        return;
    out[0] = 0;
    switch (option->type) {
    case SHOAL_OPTION_FLAG:
        return;
    case SHOAL_OPTION_STRING:
        append(out, size, "%s", option->value_name != NULL ? option->value_name : "TEXT");
        return;
    case SHOAL_OPTION_CHOICE:
        append_choices(out, size, option, ", ");
        return;
    default:
        break;
    }
    append_number(out, size, option->type, option->min);
    if (option->max == 0) {
        append(out, size, " or more");
    } else if (option->max != option->min) {
        append(out, size, " to ");
        append_number(out, size, option->type, option->max);
    }
    if (option->type == SHOAL_OPTION_SECONDS_NS)
        append(out, size, " seconds, at most 9 decimals");
}

/* Writes the default of `option` as it would be typed; leaves `out` empty if there is none. */
static void describe_default(const struct shoal_option *option, char *out, size_t size)
{
    out[0] = 0;
    switch (option->type) {
    case SHOAL_OPTION_FLAG:
        if (*(const bool *)option->target)
            append(out, size, "on");
        return;
    case SHOAL_OPTION_STRING:
        if (*(const char *const *)option->target != NULL)
            append(out, size, "%s", *(const char *const *)option->target);
        return;
    case SHOAL_OPTION_CHOICE: {
        int chosen = *(const int *)option->target;
        for (int i = 0; option->choices[i] != NULL; i++)
            if (i == chosen)
                append(out, size, "%s", option->choices[i]);
        return;
    }
    default: {
        uint64_t number = *(const uint64_t *)option->target;
        if (number >= option->min && (option->max == 0 || number <= option->max))
            append_number(out, size, option->type, number);
        return;
    }
    }
}

/* Writes the left column: name and value. */
static void describe_name(const struct shoal_option *option, char *out, size_t size)
{
    out[0] = 0;
    append(out, size, "  --%s", option->name);
    if (option->type == SHOAL_OPTION_FLAG)
        return;
    append(out, size, " ");
    if (option->type == SHOAL_OPTION_CHOICE)
        append_choices(out, size, option, "|");
    else
        append(out, size, "%s", option->value_name != NULL ? option->value_name : "VALUE");
}

/* Prints words from `column` on, where the cursor is, and wraps them there. */
static void print_wrapped(const char *text, size_t column)
{
    size_t at = column;
    while (*text != 0) {
        size_t word = strcspn(text, " ");
        if (at > column && at + 1 + word > WIDTH - 1) {
            printf("\n%*s", (int)column, "");
            at = column;
        } else if (at > column) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)word, text);
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void print_line(const char *name, const char *help, size_t column)
{
    size_t length = strlen(name);
    if (length + 2 > column)
        printf("%s\n%*s", name, (int)column, "");
    else
        printf("%-*s", (int)column, name);
    print_wrapped(help, column);
}

static void print_option(const struct shoal_option *option, size_t column)
{
    char name[TEXT_MAX], value[TEXT_MAX], help[4 * TEXT_MAX] = "";
    describe_name(option, name, sizeof(name));
    describe_default(option, value, sizeof(value));
    append(help, sizeof(help), "%s", option->help != NULL ? option->help : "");
    if (value[0] != 0)
        append(help, sizeof(help), " (default: %s)", value);
    print_line(name, help, column);
}

/* The column in which help texts begin: behind the longest name that is not overlong. */
static size_t find_column(const struct shoal_option *const *tables)
{
    size_t column = sizeof("  --version") - 1 + 2;
    for (const struct shoal_option *const *table = tables; *table != NULL; table++) {
        for (const struct shoal_option *option = *table; option->name != NULL; option++) {
            char name[TEXT_MAX];
            describe_name(option, name, sizeof(name));
            size_t wanted = strlen(name) + 2;
            if (wanted > column && wanted <= COLUMN_MAX)
                column = wanted;
        }
    }
    return column;
}

void shoal_options_print_help(const char *program, const struct shoal_option *const *tables,
                              const char *about)
{
    const char *slash = strrchr(program, '/');
    printf("Usage: %s [OPTION]...\n", slash != NULL ? slash + 1 : program);
    if (about != NULL)
        printf("%s\n", about);
    size_t column = find_column(tables);
    for (const struct shoal_option *const *table = tables; *table != NULL; table++) {
        if ((*table)->name == NULL)
            continue;
        putchar('\n');
        for (const struct shoal_option *option = *table; option->name != NULL; option++)
            print_option(option, column);
    }
    putchar('\n');
    print_line("  --help", "Shows this page.", column);
    print_line("  --version", "Shows the version.", column);
    fflush(stdout);
}
