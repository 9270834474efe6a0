/*
 * Error codes: 0 or negative, -errno or one of Shoal's own (error_table.h).
 * All functions here may be called on any thread and never yield.
 */
#ifndef SHOAL_RUNTIME_ERRORS_H
#define SHOAL_RUNTIME_ERRORS_H

#include "shoal/runtime/compiler.h"
#include "shoal/runtime/error_table.h"

SHOAL_BEGIN_DECLS

/* The lowest code there is; the kernel reserves as many. */
#define SHOAL_ERROR_MIN (-4095)

enum shoal_error {
#define SHOAL_ERROR_ENUM(name, code, text, python) name = code,
    SHOAL_ERROR_TABLE(SHOAL_ERROR_ENUM)
#undef SHOAL_ERROR_ENUM
};

/* Text of `code` (negative; a positive errno is accepted too). Never NULL; static storage. */
SHOAL_API const char *shoal_error_text(int code);

/* Symbolic name of `code`, such as "ECANCELED" or "SHOAL_EEOF"; "UNKNOWN" if there is none. */
SHOAL_API const char *shoal_error_name(int code);

SHOAL_END_DECLS

#endif
