/*
 * Storage of the running context; context_impl.h has the rules.
 *
 * A file of its own, so that a unit test which links only the logger links nothing else, and so
 * that neither the logger nor the checks own a variable which the other one reads.
 */
#include <stddef.h>

#include "shoal/runtime/context_impl.h"

_Thread_local int shoal_context_core = -1;

const char *(*shoal_context_fiber_name)(void) = NULL;
