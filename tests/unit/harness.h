/*
 * What the unit tests of the runtime share beside the harness that users have (shoal/smp/test.h):
 * its failures told to cmocka, runs with a command line, and children for what must abort.
 *
 * cmocka's assertions jump out of the function that fails, which must not happen on a fiber or on
 * another core: there SHOAL_EXPECT notes the failure and goes on, and the run fails at its end.
 */
#ifndef SHOAL_TESTS_UNIT_HARNESS_H
#define SHOAL_TESTS_UNIT_HARNESS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/future.h"

#include "shoal/smp/test.h"

/* With a sanitizer, or on an emulated processor, a large test does this part of its rounds. */
#if defined(SHOAL_ASAN) || defined(SHOAL_TSAN) || defined(SHOAL_TEST_EMULATED)
#define SHOAL_TEST_SLOWDOWN 10
#else
#define SHOAL_TEST_SLOWDOWN 1
#endif

/*
 * Runs `fn(arg)` as a program is run, with more words on its command line (NULL ends them; NULL:
 * none): SIGINT and SIGTERM stop it, and what it leaks is reported without failing the test.
 */
int shoal_test_run_with(unsigned cores, const char *const *words, int (*fn)(void *arg), void *arg);

struct shoal_test_child {
    int exit_code; /* -1 when a signal ended it */
    int signal;
    char text[32768]; /* of its standard error */
};

/* Runs `fn(arg)` in a child process, which exits with what it returns. */
void shoal_test_in_child(struct shoal_test_child *child, int (*fn)(void *arg), void *arg);

/* Fails the test unless the child was ended by abort() with `text` on its standard error. */
void shoal_test_aborts_with(int (*fn)(void *arg), void *arg, const char *text);

/* The same of `fn(NULL)` on a fiber of core 0 of a program with `cores` cores. */
void shoal_test_fiber_aborts_with(unsigned cores, int (*fn)(void *arg), const char *text);

/* Numbers that are the same in every run. */
static inline uint64_t shoal_test_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

/* A continuation that must be skipped: fails the test when it runs. */
int shoal_test_unexpected_then(void *arg, const union shoal_value *in, union shoal_value *out);

#endif
