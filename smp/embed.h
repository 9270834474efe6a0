/*
 * Shoal inside a host: a program that keeps its own main(), main loop and signals, and has cores
 * run beside them.
 *
 *   struct shoal_embed *embed;
 *   struct shoal_embed_failure failure;
 *   if (shoal_embed_start(&embed, &(struct shoal_embed_options){.cores = 2}, &failure) < 0)
 *       return complain(failure.text);
 *   ...                                          calls by shoal/smp/foreign_thread.h
 *   shoal_embed_stop(embed);
 *   shoal_embed_wait(embed, SHOAL_NS_FOREVER, &exit_code);
 *   shoal_embed_free(embed);
 *
 * 1. Every core has a thread of its own; the host's threads stay the host's. The cores block all
 *    signals but those of faults, so that the host's handlers run on the host's threads.
 * 2. Nothing of the process is changed: no signal's action, no limit, no thread's mask or CPUs.
 * What is lost without it: reports of stalls, of held cores and the name of a fiber whose stack has
 *    overflowed. `diagnostics` has them, for as long as the runtime runs.
 * 3. Nothing is printed but log lines (shoal/runtime/log.h), and the process is not ended: what a
 *    program would print as its one line, and its exit code, come back from calls. What cannot go
 *    on (SHOAL_CHECK) aborts here, too.
 * 4. One runtime at a time in a process, any number one after the other. A second one is refused.
 * 5. A host may call exit() while the runtime runs: the cores run until the process is gone. What
 *    its exit handlers and destructors free, cores must not use: stop first if they do.
 * 6. fork() gives the child no cores: there, nothing of the parent's runtime may be called but
 *    shoal_embed_free(), and a runtime of its own may be started. A child that only calls exec
 *    needs nothing; shoal/runtime/process.h starts those from a core.
 */
#ifndef SHOAL_SMP_EMBED_H
#define SHOAL_SMP_EMBED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/compiler.h"
#include "shoal/runtime/options.h"

SHOAL_BEGIN_DECLS

#define SHOAL_EMBED_TEXT_MAX 512

struct shoal_embed;

/* What is zero has its default. All is copied, but what `options` and `arg` point to. */
struct shoal_embed_options {
    unsigned cores;           /* --smp; 0: the CPUs that the process may use */
    const char *const *words; /* more of a command line, without a program's name: "--memory", "1G",
                                 NULL; they come after the members above, and win */
    const struct shoal_option *options; /* which options of its own `words` may give; NULL: none */
    int (*setup)(void *arg); /* on a fiber of core 0, before the start returns; it may await. A
                                negative result ends the start; shoal_config_error() gives a text */
    int (*run)(void *arg);   /* on the same fiber, afterwards, as a program's: when it returns the
                                runtime stops, with its result as exit code. NULL: shoal_stop_wait */
    void *arg;
    bool diagnostics; /* takes SIGSEGV, SIGBUS (handing on what is not a fiber's), SIGRTMIN + 1 and
                         SIGRTMIN + 2 for reports */
};

/* Why there is no runtime. */
struct shoal_embed_failure {
    int exit_code; /* that of a program: 2 for what options are wrong, else 1 */
    char text[SHOAL_EMBED_TEXT_MAX];
};

/*
 * Starts the runtime; returns when all cores run and `setup` has returned: 0, and `*out` is to be
 * freed by shoal_embed_free(). Otherwise nothing is left behind, and `failure` (may be NULL) says
 * why: SHOAL_EOPTION (options), -EBUSY (one runs already, or has not been waited for), what `setup`
 * returned, -ENOMEM, -EAGAIN (threads). The log level is `warn` unless `words` say otherwise;
 * --help and --version are not answered. Any thread that is no core; blocks it for some
 * milliseconds.
 */
SHOAL_API int shoal_embed_start(struct shoal_embed **out, const struct shoal_embed_options *options,
                                struct shoal_embed_failure *failure);

/*
 * Asks the runtime to stop, as SIGTERM does a program (see shoal/smp/app.h for the order), and
 * returns at once. Any thread, any core; any number of times; not in a signal handler.
 */
SHOAL_API void shoal_embed_stop(struct shoal_embed *embed);

/*
 * Waits until the runtime has ended: 0, and `*exit_code` (may be NULL) is what a program's would
 * be, each time it is asked. -ETIMEDOUT after `timeout_ns` (0: only looks; SHOAL_NS_FOREVER: no
 * end); -EDEADLK on a core; SHOAL_ESTOPPING in a child after fork(). Does not ask for the stop. A
 * fiber that does not end although it was cancelled keeps the runtime from its end: after 5 seconds
 * it is named in the log, and shoal_embed_text() says so.
 */
SHOAL_API int shoal_embed_wait(struct shoal_embed *embed, uint64_t timeout_ns, int *exit_code);

/* An eventfd that is readable once the runtime has ended, for a host's loop: not to be read. */
SHOAL_API int shoal_embed_fd(const struct shoal_embed *embed);

/* Puts into `text` why `run` failed, or why the stop takes so long; "" otherwise. Any thread. */
SHOAL_API void shoal_embed_text(struct shoal_embed *embed, char *text, size_t size);

/* Frees a runtime that has ended: 0, or -EBUSY while it has not. NULL is fine. No core. */
SHOAL_API int shoal_embed_free(struct shoal_embed *embed);

SHOAL_END_DECLS

#endif
