/*
 * What the unit tests of the runtime share: running a function on a fiber of core 0, expectations
 * that may fail on any core and any stack, and children for what must abort.
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

/* In a build with a sanitizer or valgrind a large test does this part of its rounds. */
#if defined(SHOAL_ASAN) || defined(SHOAL_TSAN)
#define SHOAL_TEST_SLOWDOWN 10
#else
#define SHOAL_TEST_SLOWDOWN 1
#endif

/*
 * Runs `fn(arg)` on a fiber of core 0 of a program with `cores` cores, with the I/O backend that
 * SHOAL_TEST_IO_BACKEND names, and makes sure that this one runs. Fails the test when an
 * expectation did. Returns the program's exit code.
 */
int shoal_test_run(unsigned cores, int (*fn)(void *arg), void *arg);

/* The same with more words on the command line; NULL ends them. */
int shoal_test_run_with(unsigned cores, const char *const *options, int (*fn)(void *arg),
                        void *arg);

#define SHOAL_EXPECT(cond) shoal_test_expect((cond), #cond, __FILE__, __LINE__)
#define SHOAL_EXPECT_INT(a, b)                                                                     \
    shoal_test_expect_int((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)

/* Notes a failure: this place is not to be reached. */
#define SHOAL_EXPECT_NEVER(text) shoal_test_expect(false, text, __FILE__, __LINE__)

bool shoal_test_expect(bool holds, const char *text, const char *file, int line);
bool shoal_test_expect_int(long long a, long long b, const char *text, const char *file, int line);

struct shoal_test_child {
    int exit_code; /* -1 when a signal ended it */
    int signal;
    char text[32768]; /* of its standard error */
};

/* Runs `fn(arg)` in a child process, which exits with what it returns. */
void shoal_test_in_child(struct shoal_test_child *child, int (*fn)(void *arg), void *arg);

/* Fails the test unless the child was ended by abort() with `text` on its standard error. */
void shoal_test_aborts_with(int (*fn)(void *arg), void *arg, const char *text);

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
