/*
 * What options look like to people: the --help page, and the words for what a value may be.
 */
#ifndef SHOAL_RUNTIME_OPTIONS_HELP_IMPL_H
#define SHOAL_RUNTIME_OPTIONS_HELP_IMPL_H

#include <stddef.h>

#include "shoal/runtime/options.h"

/* Writes what `option` accepts, such as `1 to 1024` or `auto, epoll`. Cut to `size`. */
void shoal_option_allowed(const struct shoal_option *option, char *out, size_t size);

/* Prints the --help page on stdout, with the targets' present values as defaults. */
void shoal_options_print_help(const char *program, const struct shoal_option *const *tables,
                              const char *about);

#endif
