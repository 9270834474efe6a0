/*
 * The texts of owner_impl.h.
 */
#include <stdarg.h>
#include <stdio.h>

#include "shoal/runtime/owner_impl.h"

#define NAME_BYTES_MAX 160

/* "core 3", or what there is in its place. */
static void name_core(char *out, size_t size, int core, const char *none)
{
    if (core < 0 || core == SHOAL_OWNER_NONE)
        snprintf(out, size, "%s", none);
    else
        snprintf(out, size, "core %d", core);
}

void shoal_owner_panic(const char *file, int line, const char *function, int owner, const char *op,
                       const char *fmt, ...)
{
    char object[NAME_BYTES_MAX] = "";
    char whose[32];
    char here[32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(object, sizeof(object), fmt, args);
    va_end(args);
    name_core(whose, sizeof(whose), owner, "no core");
    name_core(here, sizeof(here), shoal_context_core, "a thread that is no core");
    shoal_panic(file, line, function, "%s of %s of %s on %s", op, object, whose, here);
}

void shoal_foreign_panic(const char *file, int line, const char *function, const char *op)
{
    shoal_panic(file, line, function, "%s on a thread that is no core", op);
}
