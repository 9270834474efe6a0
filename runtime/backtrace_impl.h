/*
 * Symbolised backtraces for panics, stalls and fatal signals.
 */
#ifndef SHOAL_RUNTIME_BACKTRACE_IMPL_H
#define SHOAL_RUNTIME_BACKTRACE_IMPL_H

#include "shoal/runtime/compiler.h"

/*
 * Loads what unwinding needs (the first backtrace() of a process loads libgcc_s, which allocates).
 * Once, before shoal_backtrace_write is used in a signal handler; calling it again does no harm.
 */
void shoal_backtrace_init(void);

/*
 * Writes the calling thread's frames to `fd`, one line each:
 *     #2  shoal-httpd(+0x1f3a4) reactor_run+0x5c
 * without the innermost `skip` frames, the caller itself being the first. The offset in brackets is
 * what addr2line and gdb's `info symbol` take. Keeps errno. Does not allocate; needs about 4 KiB of
 * stack beside what the unwinder uses; may be called from a signal handler after
 * shoal_backtrace_init.
 */
void shoal_backtrace_write(int fd, unsigned skip);

/*
 * The calling thread's frames into `frames`, up to `max`, without symbols: those outside the one
 * that returns to `after`, or none when there is no such frame. Returns their number. Does not
 * allocate; may be called from a signal handler after shoal_backtrace_init.
 */
unsigned shoal_backtrace_collect(void **frames, unsigned max, const void *after);

/*
 * The text of one frame as above, without its number, into `out` of `size` bytes (at least 1).
 * Returns its length. Any thread; reads the module's file, which may take a millisecond.
 */
size_t shoal_backtrace_describe(const void *pc, char *out, size_t size);

#endif
