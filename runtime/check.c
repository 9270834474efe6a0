/*
 * The end of a process that found itself broken.
 *
 * 1. One line with place, text, core and fiber, then a backtrace, then abort(): a core file shows
 *    the panicking frame, and no atexit handler runs over broken state.
 * 2. Nothing is allocated and no lock of ours is taken: the heap may be what is broken. The text is
 *    formatted with vsnprintf, which does not allocate for the formats in use here.
 * 3. Of several threads that panic at once the first one reports in full; the others write their
 *    line and wait a while, so that their abort does not cut its backtrace short.
 * 4. A panic inside a panic (a fiber name that cannot be read) aborts at once.
 */
#include "shoal/runtime/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"
#include "shoal/runtime/context_impl.h"

enum { PANIC_LINE_BYTES_MAX = 2000, PANIC_TEXT_BYTES_MAX = 1500 };

static _Thread_local bool panicking;             /* this thread */
static atomic_flag reporting = ATOMIC_FLAG_INIT; /* some thread; never cleared */

static void write_all(const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

void shoal_panic(const char *file, int line, const char *function, const char *fmt, ...)
{
    if (panicking)
        abort();
    panicking = true;

    char text[PANIC_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        memcpy(text, "(text that cannot be formatted)", sizeof("(text that cannot be formatted)"));
    va_end(args);

    char core[16] = "-";
    if (shoal_context_core >= 0)
        snprintf(core, sizeof(core), "%d", shoal_context_core);
    const char *fiber = shoal_context_fiber_name != NULL ? shoal_context_fiber_name() : NULL;

    char out[PANIC_LINE_BYTES_MAX];
    int length = snprintf(out, sizeof(out) - 1, "panic: %s:%d: %s: %s (core %s, %s%.60s)\n", file,
                          line, function, text, core, fiber != NULL ? "fiber " : "no fiber",
                          fiber != NULL ? fiber : "");
    size_t end = length < 0 ? 0 : (size_t)length;
    if (end > sizeof(out) - 2) {
        end = sizeof(out) - 2;
        out[end - 1] = '\n';
    }
    write_all(out, end);

    if (atomic_flag_test_and_set(&reporting)) {
        struct timespec grace = {.tv_sec = 2};
        nanosleep(&grace, NULL);
    } else {
        shoal_backtrace_write(STDERR_FILENO, 1);
    }
    abort();
}
