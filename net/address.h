/*
 * Addresses of sockets: IPv4, IPv6 and Unix.
 *
 *   text            meaning
 *   192.0.2.1       IPv4
 *   2001:db8::1     IPv6; in brackets or not; fe80::1%eth0 names the interface (or its number)
 *   unix:/run/x     a Unix socket with this path
 *   unix:@x         the same with a name in the abstract space, without a file
 *   example.org     a name: shoal_address_resolve() only
 *
 * Texts of errors are one line that names the value and what is allowed; the caller puts what it
 * was for (an option) in front: `--host: "unix:x" is no ... (allowed: ...)`.
 */
#ifndef SHOAL_NET_ADDRESS_H
#define SHOAL_NET_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

#define SHOAL_ADDRESS_TEXT_MAX  128 /* enough for any shoal_address_format() */
#define SHOAL_ADDRESS_ERROR_MAX 256 /* enough for any error text of this header */

/* A plain value: copied by assignment. bind(2) takes (&address.any, address.len). */
struct shoal_address {
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
        struct sockaddr_un local;
        struct sockaddr_storage storage;
    };
    socklen_t len;
};

/*
 * Reads an address, not a name, into `*out`. `port` is ignored for a Unix socket. Returns 0, or
 * -EINVAL with a text in `error`. Any thread; does not yield.
 */
SHOAL_API int shoal_address_parse(struct shoal_address *out, const char *host, uint16_t port,
                                  char *error, size_t error_size);

/*
 * The same for names too: stores up to `max` addresses (> 0), best first, into the array `out` and
 * returns how many. -EINVAL, SHOAL_ERESOLVE, -ENOMEM, -EAGAIN, -ECANCELED with a text in `error`.
 * On a fiber; yields for a name, see shoal_resolve().
 */
SHOAL_API int shoal_address_resolve(struct shoal_address *out, unsigned max, const char *host,
                                    uint16_t port, char *error, size_t error_size);

/*
 * Writes "127.0.0.1:8080", "[::1]:8080", "[fe80::1%eth0]:80", "unix:/path", "unix:@name", or
 * "unix:" for a socket without a name, into `out`; cut to `size` (> 0) bytes with the NUL. A
 * character that would not print is written as '?'. Returns `out`. Any thread; does not yield.
 */
SHOAL_API char *shoal_address_format(const struct shoal_address *address, char *out, size_t size);

/* The port; 0 for a Unix socket. */
SHOAL_API uint16_t shoal_address_port(const struct shoal_address *address);

/* Sets the port; nothing for a Unix socket. */
SHOAL_API void shoal_address_set_port(struct shoal_address *address, uint16_t port);

static inline bool shoal_address_is_unix(const struct shoal_address *address)
{
    return address->any.sa_family == AF_UNIX;
}

SHOAL_END_DECLS

#endif
