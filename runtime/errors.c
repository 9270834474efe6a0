/*
 * Names and texts of error codes.
 *
 * 1. Shoal's own codes come from error_table.h and nowhere else; all others are errno values, for
 *    which the C library knows name and text.
 * 2. Every pointer returned is static and the same for every call: strerrordesc_np neither
 *    allocates nor translates, unlike strerror.
 * 3. Codes of the table lie in [-4095, -1000], clear of any errno, and differ from each other;
 *    the compiler checks both (a duplicate is a duplicate case label).
 */
#include "shoal/runtime/errors.h"

#include <limits.h>
#include <string.h>

#define CHECK_RANGE(name, code, text, python)                                                      \
    SHOAL_STATIC_ASSERT((code) >= -4095 && (code) <= -1000, #name " is out of range");
SHOAL_ERROR_TABLE(CHECK_RANGE)
#undef CHECK_RANGE

/* The negative form of `code`. */
static int normalise(int code)
{
    return code > 0 ? -code : code;
}

const char *shoal_error_text(int code)
{
    code = normalise(code);
    switch (code) {
#define TEXT_CASE(name, code, text, python)                                                        \
    case name:                                                                                     \
        return text;
        SHOAL_ERROR_TABLE(TEXT_CASE)
#undef TEXT_CASE
    case 0:
        return "success";
    case INT_MIN: /* has no positive form to look up */
        return "unknown error";
    default:
        break;
    }
    const char *text = strerrordesc_np(-code);
    return text != NULL ? text : "unknown error";
}

const char *shoal_error_name(int code)
{
    code = normalise(code);
    switch (code) {
#define NAME_CASE(name, code, text, python)                                                        \
    case name:                                                                                     \
        return #name;
        SHOAL_ERROR_TABLE(NAME_CASE)
#undef NAME_CASE
    case 0:
        return "OK";
    case INT_MIN:
        return "UNKNOWN";
    default:
        break;
    }
    const char *name = strerrorname_np(-code);
    return name != NULL ? name : "UNKNOWN";
}
