/*
 * Names to IP addresses, through the system's resolver (/etc/hosts, DNS, whatever NSS has).
 */
#ifndef SHOAL_RUNTIME_RESOLVE_H
#define SHOAL_RUNTIME_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_RESOLVED_MAX      16  /* addresses of one name; more are dropped */
#define SHOAL_RESOLVE_ERROR_MAX 256 /* enough for any text of this header */

/* The caller's own; about 2 KB. */
struct shoal_resolved {
    unsigned count;
    struct sockaddr_storage address[SHOAL_RESOLVED_MAX]; /* AF_INET or AF_INET6, best first */
};

/*
 * Finds the addresses of `host`, each with the port of `service` (a number or a name; NULL: 0).
 * A literal address is taken as it is, without a thread or a wait; names are looked up on a helper
 * thread, where a cancel does not interrupt the lookup: the call returns once it has ended, which
 * may take what the system's resolver allows itself. The strings are copied.
 * Returns 0 with `*out` holding at least one address; SHOAL_ERESOLVE, -ENOMEM, -EAGAIN (no
 * thread), -ECANCELED, with a one-line text in `error` that names the host. On a fiber; may yield.
 */
SHOAL_API int shoal_resolve(const char *host, const char *service, struct shoal_resolved *out,
                            char *error, size_t error_size);

/*
 * Reads a literal, "192.0.2.1", "2001:db8::1" or "fe80::1%eth0" (name or number of the interface),
 * into `*out` with port `port`. Returns whether it is one. Any thread; does not yield.
 */
SHOAL_API bool shoal_resolve_literal(const char *host, uint16_t port, struct sockaddr_storage *out);

/* Bytes of `address` that count for bind(2) and connect(2). */
SHOAL_API socklen_t shoal_resolved_len(const struct sockaddr_storage *address);

SHOAL_END_DECLS

#endif
