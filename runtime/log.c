/*
 * Log lines on stderr.
 *
 * 1. A line is built on the stack and goes out in one write(2), so that lines of several threads do
 *    not mix: writes of up to PIPE_BUF bytes to a pipe are atomic, and a line is far below that.
 * 2. Nothing is allocated and no lock is taken. The date is therefore computed here: gmtime_r locks
 *    and looks at the environment.
 * 3. What is logged cannot forge a second line or steer a terminal: control characters (C0, DEL
 *    and the C1 range as UTF-8) are written as \xNN.
 * 4. A line that is too long ends with "...", and is cut between characters and between escapes.
 * 5. errno is left as it was, so that a caller may log before it looks at errno.
 * 6. If stderr cannot take a line within a second (a full non-blocking pipe), the line is dropped:
 *    a core must not stop for its log.
 *
 * Rejected: a buffer a core and a writer thread. It loses the last lines before a crash, which are
 * the ones that matter, and log lines are rare here.
 */
#include "shoal/runtime/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <poll.h>
#include <unistd.h>

#include "shoal/runtime/context_impl.h"

enum {
    LINE_BYTES_MAX = 1000, /* without the newline */
    WRITE_TIMEOUT_MS = 1000,
};

/* Relaxed: it is set before the cores start, and a line more or less does no harm. */
static _Atomic int log_level = SHOAL_LOG_INFO;

void shoal_log_set_level(enum shoal_log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

bool shoal_log_enabled(enum shoal_log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

static const char *level_name(enum shoal_log_level level)
{
    switch (level) {
    case SHOAL_LOG_ERROR:
        return "error";
    case SHOAL_LOG_WARN:
        return "warn";
    case SHOAL_LOG_INFO:
        return "info";
    case SHOAL_LOG_DEBUG:
        return "debug";
    }
    return "?";
}

/*
 * The civil date (Gregorian, UTC) of a day counted from 1970-01-01, which must not lie before that.
 * Years are counted from 1 March, so that the leap day is the last one of its year.
 */
static void civil_from_days(uint64_t days, unsigned *year, unsigned *month, unsigned *day)
{
    uint64_t shifted = days + 719468; /* from 0000-03-01 */
    uint64_t era = shifted / 146097;  /* 400 years each */
    uint64_t of_era = shifted % 146097;
    uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t march_month = (5 * of_year + 2) / 153;
    *day = (unsigned)(of_year - (153 * march_month + 2) / 5 + 1);
    *month = (unsigned)(march_month < 10 ? march_month + 3 : march_month - 9);
    *year = (unsigned)(era * 400 + year_of_era + (*month <= 2));
}

/* Writes date, level and core to `line`; returns the length. */
static size_t format_head(char *line, size_t size, enum shoal_log_level level)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seconds = now.tv_sec > 0 ? (uint64_t)now.tv_sec : 0;
    unsigned year, month, day, of_day = (unsigned)(seconds % 86400);
    civil_from_days(seconds / 86400, &year, &month, &day);

    char core[16] = "-";
    if (shoal_context_core >= 0)
        snprintf(core, sizeof(core), "%d", shoal_context_core);
    int length = snprintf(line, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ %-5s core %s: ", year,
                          month, day, of_day / 3600, of_day / 60 % 60, of_day % 60,
                          (unsigned)(now.tv_nsec / 1000000), level_name(level), core);
    return length < 0 ? 0 : (size_t)length;
}

/*
 * How the character at `text` is written: its bytes in *take, and whether they must be escaped.
 * Bytes that are no UTF-8 pass one by one.
 */
static bool needs_escape(const unsigned char *text, size_t *take)
{
    unsigned char c = text[0];
    *take = 1;
    if (c < 0x20 || c == 0x7f)
        return true;
    if (c == 0xc2 && text[1] >= 0x80 && text[1] <= 0x9f) {
        *take = 2;
        return true;
    }
    size_t wanted = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    while (*take < wanted && (text[*take] & 0xc0) == 0x80)
        ++*take;
    return false;
}

/*
 * Appends `text` to `line` (which has room for LINE_BYTES_MAX bytes from its start), escaped, and
 * cut with "..." if it does not fit. Returns the new length.
 */
static size_t append_escaped(char *line, size_t length, const char *text)
{
    bool cut = false;
    static const char hex[] = "0123456789abcdef";
    size_t cut_length = length; /* the last length that still leaves room for "..." */
    const unsigned char *at = (const unsigned char *)text;
    while (*at != 0) {
        size_t take;
        bool escape = needs_escape(at, &take);
        size_t grow = escape ? take * 4 : take;
        if (length + grow > LINE_BYTES_MAX) {
            cut = true;
            break;
        }
        for (size_t i = 0; i < take; i++) {
            if (escape) {
                line[length++] = '\\';
                line[length++] = 'x';
                line[length++] = hex[at[i] >> 4];
                line[length++] = hex[at[i] & 15];
            } else {
                line[length++] = (char)at[i];
            }
        }
        at += take;
        if (length <= LINE_BYTES_MAX - 3)
            cut_length = length;
    }
    if (!cut)
        return length;
    memcpy(line + cut_length, "...", 3);
    return cut_length + 3;
}

/* Writes all of `line`, in one write(2) unless stderr takes less. */
static void write_line(const char *line, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, line, length);
        if (written > 0) {
            line += written;
            length -= (size_t)written;
        } else if (written < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (poll(&ready, 1, WRITE_TIMEOUT_MS) == 0)
                return;
        } else if (written == 0 || errno != EINTR) {
            return; /* there is nowhere left to complain to */
        }
    }
}

void shoal_log_write(enum shoal_log_level level, const char *fmt, ...)
{
    if (!shoal_log_enabled(level))
        return;
    int saved_errno = errno;

    char text[LINE_BYTES_MAX + 1]; /* cut here, it is cut again behind the head */
    va_list args;
    va_start(args, fmt);
    errno = saved_errno; /* for %m */
    int text_length = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (text_length < 0)
        memcpy(text, "(text that cannot be formatted)", sizeof("(text that cannot be formatted)"));

    char line[LINE_BYTES_MAX + 1];
    size_t length = format_head(line, sizeof(line), level);
    length = append_escaped(line, length, text);
    line[length++] = '\n';
    write_line(line, length);
    errno = saved_errno;
}
