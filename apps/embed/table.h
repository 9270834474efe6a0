/*
 * Words and how often they have come: a table on each core, each word on one of them.
 */
#ifndef SHOAL_APPS_EMBED_TABLE_H
#define SHOAL_APPS_EMBED_TABLE_H

#include <shoal/shoal.h>

#define WORD_MAX 64 /* with its end */

/* Makes a table on each core, and sees to it that they are freed. As setup of the runtime. */
int table_setup(void *arg);

/* The core that has `word`. Any thread. */
unsigned table_core_of(const char *word, unsigned cores);

/* Counts the word at `arg`; `out`: how often it has come. On its core. */
int table_count(void *arg, union shoal_value *out);

#endif
