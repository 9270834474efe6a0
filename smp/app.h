/*
 * Programs: shoal_main() gives a program its command line, its cores, its signals and its stop.
 *
 *   static int run(void *arg) { ... return shoal_stop_wait(); }
 *   int main(int argc, char **argv)
 *   {
 *       static const struct shoal_program program = {.name = "demo", .run = run};
 *       return shoal_main(argc, argv, &program);
 *   }
 *
 * `run` is called on a fiber of core 0 once every core runs; when it returns, the program stops:
 *
 *   1. services stop, the last started first (shoal_at_stop): they drain, at most
 * --shutdown-timeout
 *   2. calls of foreign threads are taken no more, and every fiber that still waits is cancelled
 * and waited for, on every core
 *   3. when no message is in flight on any core, the loops end; what was never consumed is reported
 *
 * The first SIGINT or SIGTERM ends shoal_stop_wait(); a second one ends the process at once, with
 * the exit code 128 + its number. SIGQUIT prints what all fibers do (smp/inspect.h) and ends
 * nothing.
 */
#ifndef SHOAL_SMP_APP_H
#define SHOAL_SMP_APP_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/options.h"

SHOAL_BEGIN_DECLS

struct shoal_program {
    const char *name;                   /* for messages */
    const char *version;                /* for --version; NULL: the library's */
    const char *about;                  /* one line for --help; NULL: none */
    const struct shoal_option *options; /* the program's own; NULL: none */
    int (*run)(void *arg);
    void *arg;
};

/*
 * Runs `program` to its end and returns the exit code: what `run` returned when that is not
 * negative, 1 when it failed, 2 when the command line or the configuration is wrong (`run` says so
 * by returning SHOAL_EOPTION after shoal_config_error(); all other cases print their line here).
 * Called once, on the main thread, before the process has other threads.
 */
SHOAL_API int shoal_main(int argc, char **argv, const struct shoal_program *program);

/* Waits until the program is asked to stop. 0, or -ECANCELED. On a fiber of core 0; yields. */
SHOAL_API int shoal_stop_wait(void);

/* Asks the program to stop, as a first SIGTERM does. On any core; does not yield. */
SHOAL_API void shoal_stop_request(void);

/*
 * Has `stop(arg)` called when the program stops: on a fiber of core 0, in reverse order, and
 * allowed to await. On core 0. 0 or -ENOMEM.
 */
SHOAL_API int shoal_at_stop(void (*stop)(void *arg), void *arg);

/*
 * Takes back what shoal_at_stop() was given, both arguments alike. False when it is not there: it
 * is being called, or was. On core 0.
 */
SHOAL_API bool shoal_at_stop_cancel(void (*stop)(void *arg), void *arg);

/*
 * Prints `name: text` on standard error as the one line of a configuration error and returns
 * SHOAL_EOPTION, to be returned from `run`.
 */
SHOAL_API int shoal_config_error(const char *fmt, ...) SHOAL_PRINTF(1, 2);

/* What the command line gave. */
SHOAL_API uint64_t shoal_config_shutdown_timeout_ns(void);
SHOAL_API uint32_t shoal_config_max_connections(void); /* of the whole program */
SHOAL_API bool shoal_config_accept_balanced(void);     /* --accept-balance balanced */

/* Logs which I/O backend runs, once; called by what starts to serve. On core 0. */
SHOAL_API void shoal_announce_backend(void);

SHOAL_END_DECLS

#endif
