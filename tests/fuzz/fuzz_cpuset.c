/*
 * Fuzz target of lists of CPUs.
 *
 *  1. The verdict and the set are those of a second parser, written another way.
 *  2. An accepted set, written and read again, is the same; written into less room it is a prefix
 *     that says so.
 *  3. A refusal has one line of text.
 *
 * Input: the list.
 */
#include <sched.h>

#include "shoal/runtime/errors.h"

#include "shoal/smp/cpuset_impl.h"

#include "fuzz/fuzz_input.h"

enum { TEXT_MAX = 4096 };

/* A number at *at that is all digits; -1 if there is none or it is too large. */
static long number(const char **at)
{
    char *end;
    if (**at < '0' || **at > '9')
        return -1;
    long value = strtol(*at, &end, 10); /* LONG_MAX when it does not fit */
    *at = end;
    return value < CPU_SETSIZE ? value : -1;
}

static bool model_parse(const char *text, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (const char *at = text;; at++) {
        long first = number(&at);
        long last = first;
        if (first >= 0 && *at == '-') {
            at++;
            last = number(&at);
        }
        if (first < 0 || last < first)
            return false;
        for (long cpu = first; cpu <= last; cpu++) {
            if (CPU_ISSET(cpu, out))
                return false;
            CPU_SET(cpu, out);
        }
        if (*at == '\0')
            return true;
        if (*at != ',')
            return false;
    }
}

static void require_written(const cpu_set_t *set)
{
    static char text[8 * CPU_SETSIZE], cut[8 * CPU_SETSIZE];
    char error[256];
    cpu_set_t again;
    REQUIRE(shoal_cpuset_format(set, text, sizeof(text)) == text);
    REQUIRE(shoal_cpuset_parse(text, &again, error, sizeof(error)) == 0);
    REQUIRE(CPU_EQUAL(set, &again));
    const size_t len = strlen(text);
    for (size_t room = 16; room < len + 2 && room < 64; room++) {
        memset(cut, 'x', sizeof(cut));
        shoal_cpuset_format(set, cut, room);
        const size_t cut_len = strnlen(cut, room);
        REQUIRE(cut_len < room && cut[room] == 'x');
        if (strcmp(cut, text) == 0)
            continue;
        REQUIRE(cut_len >= 4 && strcmp(cut + cut_len - 4, ",...") == 0);
        REQUIRE(strncmp(cut, text, cut_len - 4) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    char error[256];
    cpu_set_t set, expected;
    if (size > TEXT_MAX)
        return 0;
    char *text = fuzz_word(&in);
    const int rc = shoal_cpuset_parse(text, &set, error, sizeof(error));
    REQUIRE((rc == 0) == model_parse(text, &expected));
    if (rc == 0) {
        REQUIRE(CPU_EQUAL(&set, &expected));
        require_written(&set);
    } else {
        REQUIRE(rc == SHOAL_EOPTION);
        fuzz_require_error_line(error, sizeof(error));
    }
    free(text);
    return 0;
}
