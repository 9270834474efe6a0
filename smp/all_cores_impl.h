/*
 * Awaiting the answers of several cores, and doing so on a fiber of its own.
 */
#ifndef SHOAL_SMP_ALL_CORES_IMPL_H
#define SHOAL_SMP_ALL_CORES_IMPL_H

#include <stddef.h>

#include "shoal/smp/all_cores.h"

/* ---- The failure of the lowest core is the one reported: await them in that order ---- */

struct shoal_first_failure {
    char *text; /* of its own; NULL without */
    int code;   /* 0 as long as there is none */
    unsigned core;
};

/* Notes a failure of `core` if it is the first, and takes its text from the running fiber. */
void shoal_first_note(struct shoal_first_failure *first, unsigned core, int code);

/* Awaits the answer of `core`, and notes its failure. */
int shoal_first_await(struct shoal_first_failure *first, unsigned core, struct shoal_future *future,
                      union shoal_value *out);

/* On a fiber that was cancelled: passes that on to all of `futures`, NULL among them, at once. */
void shoal_first_cancel(struct shoal_future *const *futures, unsigned count);

/*
 * The code, 0 without a failure; and as shoal_error_message() "SUBJECT: core 3: text", or without
 * the subject if that is NULL.
 */
int shoal_first_report(struct shoal_first_failure *first, const char *subject);

/* Gives the text to the running fiber as it is, and returns the code. */
int shoal_first_return(struct shoal_first_failure *first);

/* ---- All cores ---- */

/* shoal_all_cores(), where `copy_bytes` > 0 has `fn` get a copy of that much of `arg`. */
int shoal_all_cores_run(const struct shoal_all_cores *what, size_t copy_bytes, const char *subject);

/* ---- On a fiber of its own ---- */

#define SHOAL_BACKGROUND_MAX 96

typedef int shoal_background_fn(void *spec, union shoal_value *out);

/*
 * Runs fn(spec) with a copy of the `bytes` (up to SHOAL_BACKGROUND_MAX) of `spec` on a fiber for
 * which the deadline of the calling fiber holds, and which a cancel of the future cancels.
 */
struct shoal_future *shoal_background(shoal_background_fn *fn, const void *spec, size_t bytes,
                                      const char *name);

#endif
