/*
 * Lists of CPUs as people type them: "0-3,8".
 */
#ifndef SHOAL_SMP_CPUSET_IMPL_H
#define SHOAL_SMP_CPUSET_IMPL_H

#include <stddef.h>

#include <sched.h>

#include "shoal/runtime/compiler.h"

/*
 * Parses `text` into *out. Returns 0, or SHOAL_EOPTION with one line in `error` that names the
 * option --cpuset, the value and what is wrong with it. CPUs go from 0 to CPU_SETSIZE - 1.
 */
SHOAL_NODISCARD int shoal_cpuset_parse(const char *text, cpu_set_t *out, char *error,
                                       size_t error_size);

/*
 * Writes `set` as a list such as "0-3,8" and returns `out`. An empty set is "none"; what does not
 * fit ends with ",...". `size` is 16 at least.
 */
const char *shoal_cpuset_format(const cpu_set_t *set, char *out, size_t size);

#endif
