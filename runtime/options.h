/*
 * Command-line options: tables of options, parsed into the caller's variables, with errors that
 * name the option, the value and what is allowed. Runs before any core starts; main thread only.
 */
#ifndef SHOAL_RUNTIME_OPTIONS_H
#define SHOAL_RUNTIME_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

enum shoal_option_type {
    SHOAL_OPTION_FLAG, /* bool *target; takes no value: present means true */
    SHOAL_OPTION_UINT, /* uint64_t *target; decimal within [min, max] */
    SHOAL_OPTION_SIZE, /* uint64_t *target; bytes, suffix k/K, M, G, T (binary) allowed, within
                          [min, max] */
    SHOAL_OPTION_SECONDS_NS, /* uint64_t *target in nanoseconds; given in seconds, decimals allowed;
                                min, max in ns */
    SHOAL_OPTION_STRING,     /* const char **target: points into argv */
    SHOAL_OPTION_CHOICE,     /* int *target: index in `choices` */
};

struct shoal_option {
    const char *name; /* without the leading dashes; NULL ends a table */
    enum shoal_option_type type;
    void *target;               /* holds the default before parsing */
    const char *value_name;     /* for --help, such as "N"; NULL for flags and choices */
    const char *help;           /* one sentence */
    uint64_t min, max;          /* numbers only; max 0 means no upper limit */
    const char *const *choices; /* NULL-terminated */
    bool *given;                /* optional: set when the option appears */
};

enum shoal_options_result {
    SHOAL_OPTIONS_OK,
    SHOAL_OPTIONS_EXIT, /* --help or --version was answered on stdout */
    SHOAL_OPTIONS_BAD,  /* `error` says why */
};

/*
 * Parses argv against `tables` (NULL-terminated array of NULL-name-terminated tables).
 * Understands `--opt value`, `--opt=value`, `--help`, `--version`, and `--`. What is no option (and
 * all after `--`) is an error unless `rest` is given: then argv is permuted and *rest is set to the
 * index of the first such word. `version` is the text of --version, `about` one line for --help.
 * On SHOAL_OPTIONS_BAD, `error` (error_size bytes) holds one line without newline, such as
 * `--smp: "0" is out of range (allowed: 1 to 1024)`; an unknown option suggests the nearest name.
 */
SHOAL_API enum shoal_options_result shoal_options_parse(int argc, char **argv,
                                                        const struct shoal_option *const *tables,
                                                        const char *version, const char *about,
                                                        int *rest, char *error, size_t error_size);

SHOAL_END_DECLS

#endif
