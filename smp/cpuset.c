/*
 * Lists of CPUs as people type them: "0-3,8".
 *
 * 1. The grammar is strict: decimal numbers, '-' and ',', no blanks, nothing empty. What was typed
 *    twice or backwards is most likely a slip, so it is an error and not quietly repaired.
 * 2. Formatting is the inverse: runs of two or more become a range, in ascending order.
 *
 * Rejected: hwloc_bitmap_list_sscanf, which reads "3-0" and "1,1" without a word, and takes "5-"
 * for all CPUs from 5 on.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shoal/runtime/errors.h"

#include "shoal/smp/cpuset_impl.h"

/* Writes `--cpuset: "text": what is wrong`. */
static SHOAL_PRINTF(4, 5) int bad(const char *text, char *error, size_t error_size, const char *fmt,
                                  ...)
{
    char what[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    if (error_size > 0) {
        snprintf(error, error_size, "--cpuset: \"%.100s\" %s (allowed: a list such as 0-3,8)", text,
                 what);
        for (char *at = error; *at != 0; at++)
            if ((unsigned char)*at < 0x20 || *at == 0x7f)
                *at = '?';
    }
    return SHOAL_EOPTION;
}

/* Reads a decimal number, CPU_SETSIZE if it is larger; returns how many characters it has. */
static size_t read_cpu(const char *text, int *out)
{
    size_t length = 0;
    *out = 0;
    for (; text[length] >= '0' && text[length] <= '9'; length++) {
        *out = *out * 10 + (text[length] - '0');
        if (*out > CPU_SETSIZE)
            *out = CPU_SETSIZE;
    }
    return length;
}

int shoal_cpuset_parse(const char *text, cpu_set_t *out, char *error, size_t error_size)
{
    CPU_ZERO(out);
    if (*text == 0)
        return bad(text, error, error_size, "is empty");
    for (const char *at = text;;) {
        int first, last;
        int item = (int)strcspn(at, ",");
        item = item > 40 ? 40 : item;
        const char *start = at;
        size_t digits = read_cpu(at, &first);
        bool valid = digits > 0;
        last = first;
        at += digits;
        if (valid && *at == '-') {
            digits = read_cpu(at + 1, &last);
            valid = digits > 0;
            at += digits + 1;
        }
        if (!valid || (*at != ',' && *at != 0))
            return bad(text, error, error_size, "has \"%.*s\", which is no CPU and no range", item,
                       start);
        if (first >= CPU_SETSIZE || last >= CPU_SETSIZE)
            return bad(text, error, error_size, "has %.*s, but the last possible CPU is %d", item,
                       start, CPU_SETSIZE - 1);
        if (first > last)
            return bad(text, error, error_size, "has the reversed range %d-%d", first, last);
        for (int cpu = first; cpu <= last; cpu++) {
            if (CPU_ISSET(cpu, out))
                return bad(text, error, error_size, "names CPU %d twice", cpu);
            CPU_SET(cpu, out);
        }
        if (*at == 0)
            return 0;
        at++;
    }
}

const char *shoal_cpuset_format(const cpu_set_t *set, char *out, size_t size)
{
    size_t length = 0;
    out[0] = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, set))
            continue;
        int last = cpu;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
            last++;
        char item[32];
        const char *comma = length > 0 ? "," : "";
        int item_length = last > cpu ? snprintf(item, sizeof(item), "%s%d-%d", comma, cpu, last)
                                     : snprintf(item, sizeof(item), "%s%d", comma, cpu);
        if (length + (size_t)item_length + sizeof(",...") > size) {
            memcpy(out + length, ",...", sizeof(",..."));
            return out;
        }
        memcpy(out + length, item, (size_t)item_length + 1);
        length += (size_t)item_length;
        cpu = last;
    }
    if (length == 0)
        snprintf(out, size, "none");
    return out;
}
