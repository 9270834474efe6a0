/*
 * The one table of Shoal's own error codes: X(name, code, text, python_class).
 * Codes go from -4095 up, so that they share an int with -errno (which ends at -133) and both fit
 * the range that the kernel reserves for errors. Append only: codes are part of the ABI.
 */
#ifndef SHOAL_RUNTIME_ERROR_TABLE_H
#define SHOAL_RUNTIME_ERROR_TABLE_H

#define SHOAL_ERROR_TABLE(X)                                                                       \
    X(SHOAL_ESTOPPING, -4095, "the runtime is stopping", "StoppingError")                          \
    X(SHOAL_EEOF, -4094, "end of stream", "EndOfStreamError")                                      \
    X(SHOAL_EOPTION, -4093, "invalid option", "OptionError")                                       \
    X(SHOAL_ENOCORE, -4092, "no such core", "NoSuchCoreError")                                     \
    X(SHOAL_EHTTP_SYNTAX, -4091, "malformed HTTP message", "HttpSyntaxError")                      \
    X(SHOAL_EHTTP_BODY_TOO_LARGE, -4090, "HTTP body is over the limit", "HttpBodyTooLargeError")   \
    X(SHOAL_EHTTP_STATE, -4089, "HTTP response is past that point", "HttpStateError")              \
    X(SHOAL_EHTTP_FIELD, -4088, "invalid HTTP header field", "HttpFieldError")                     \
    X(SHOAL_ERESOLVE, -4087, "name cannot be resolved", "ResolveError")                            \
    X(SHOAL_ECLOSED, -4086, "it has been closed", "ClosedError")

#endif
