/*
 * For tests of programs that use Shoal: a test function runs on a fiber of core 0 of a program with
 * as many cores as it wants, and comes back to the ordinary function of whatever test framework
 * called it (cmocka, Check, or a plain main).
 *
 *   static int sums_up(void *arg)                       // on a fiber: it may await
 *   {
 *       SHOAL_EXPECT_INT(count_words("a b"), 2);
 *       return 0;
 *   }
 *   ... if (shoal_test_run(2, sums_up, NULL) != 0) the test has failed ...
 *
 * 1. Such a run is a whole program, started and stopped. A process may have any number of them, one
 *    after the other; it needs no options and handles no signals, so that Ctrl-C still ends it.
 * 2. An expectation that does not hold is noted with its place, and the function goes on: leaving a
 *    fiber by longjmp, as assertions of test frameworks do, would leave its core in the middle of
 *    something. At the end of the run the framework is told.
 * 3. What was made and never consumed or freed (futures, fibers, slices, memory of a core) fails
 *    the run; builds with SHOAL_DEBUG name it.
 * 4. A manual clock stands still. Nothing waits for real time: a test moves time on, and each timer
 *    fires at its nanosecond, in order, over all cores.
 *
 * Not part of <shoal/shoal.h>: a test includes <shoal/smp/test.h> beside it.
 */
#ifndef SHOAL_SMP_TEST_H
#define SHOAL_SMP_TEST_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/options.h"

SHOAL_BEGIN_DECLS

/* What a run returns when an expectation did not hold, or something was never consumed. */
#define SHOAL_TEST_FAILED 99

enum shoal_test_clock {
    SHOAL_TEST_CLOCK_SYSTEM, /* time passes as it does */
    SHOAL_TEST_CLOCK_MANUAL, /* time moves only by shoal_test_clock_advance() and its kin */
    SHOAL_TEST_CLOCK_AUTO,   /* the same; and when nothing else is left to do on any core, by itself
                                to the next timer */
};

struct shoal_test_options {
    unsigned cores;                     /* 0: one */
    const char *io_backend;             /* "io_uring", "epoll" or "auto"; NULL: what the environment
                                           says in SHOAL_TEST_IO_BACKEND, else "auto" */
    enum shoal_test_clock clock;        /* what the cores tell the time by */
    const char *const *words;           /* more of a command line, ended by NULL; NULL: none */
    const struct shoal_option *options; /* which options of its own `words` may give; NULL: none */
    bool leaks_allowed;                 /* what was never consumed is reported, but no failure */
    bool signals; /* SIGINT and SIGTERM stop the run, as they stop a program */
};

/*
 * Runs `fn(arg)` on a fiber of core 0 of a program with `cores` cores, with the backend that
 * SHOAL_TEST_IO_BACKEND names, and makes sure that this one runs; there may be more cores than
 * CPUs. Returns when all cores have ended: 0 when `fn` returned 0 and all was well; what `fn`
 * returned, or 1 when that was negative; SHOAL_TEST_FAILED; 2 when the program could not start,
 * with the reason on standard error. Not on a core; from one thread at a time.
 */
SHOAL_API int shoal_test_run(unsigned cores, int (*fn)(void *arg), void *arg);

/* The same with options, which are only read during the call. */
SHOAL_API int shoal_test_run_options(const struct shoal_test_options *options, int (*fn)(void *arg),
                                     void *arg);

/*
 * Has `failed(text)` called at the end of each run that has failed, on the thread that called it,
 * once everything is torn down: it may jump away, as cmocka's fail_msg() does. NULL: nobody; then
 * `text` goes to standard error. Before a run.
 */
SHOAL_API void shoal_test_on_failure(void (*failed)(const char *text));

/* ---- Expectations: on any core, any fiber, and any other thread ---- */

/* Note a failure with its place unless the condition holds; their value is whether it does. */
#define SHOAL_EXPECT(cond) shoal_test_expect((cond), #cond, __FILE__, __LINE__)
#define SHOAL_EXPECT_INT(a, b)                                                                     \
    shoal_test_expect_int((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)
#define SHOAL_EXPECT_STR(a, b) shoal_test_expect_str((a), (b), #a " == " #b, __FILE__, __LINE__)

/* Notes a failure: this place is not to be reached. */
#define SHOAL_EXPECT_NEVER(text) shoal_test_expect(false, text, __FILE__, __LINE__)

SHOAL_API bool shoal_test_expect(bool holds, const char *text, const char *file, int line);
SHOAL_API bool shoal_test_expect_int(long long a, long long b, const char *text, const char *file,
                                     int line);
SHOAL_API bool shoal_test_expect_str(const char *a, const char *b, const char *text,
                                     const char *file, int line);

/* How many expectations have not held in this run so far. */
SHOAL_API unsigned shoal_test_failures(void);

/*
 * ---- The manual clock ----
 *
 * On a fiber of any core of a run with such a clock; by one fiber at a time. All three wait until
 * everything is at rest: no core has anything to run, no message is on its way, no helper thread is
 * at work, and what is ready in the kernel has been taken up. What the kernel is still working on
 * (a read from a disk) is waited for only a moment: await it before you move time. Only then time
 * moves, to the deadline of one timer after the other; each time, everything comes to rest again
 * before the next one.
 *
 * They return 0, or -ECANCELED (or the deadline's -ETIMEDOUT) when the calling fiber is cancelled,
 * in which case time stands wherever it was. They yield.
 */

/* Moves time on by `ns`; every timer that is due by then has fired, in order, on its core. */
SHOAL_API int shoal_test_clock_advance(uint64_t ns);

/* Moves time on to the next timer of any core, which fires. -ENOENT when there is none. */
SHOAL_API int shoal_test_clock_advance_to_next(void);

/* Leaves time where it is: returns when everything is at rest. */
SHOAL_API int shoal_test_clock_settle(void);

SHOAL_END_DECLS

#endif
