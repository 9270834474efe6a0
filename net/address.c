/*
 * Addresses of sockets: see address.h.
 *
 * 1. What has the form of an address and is none is an error here; it is never looked up as a name.
 * 2. `len` of a Unix address counts the path with its NUL, and of an abstract name exactly its
 *    bytes: there a NUL is part of the name.
 * 3. Addresses of peers are formatted too, and a peer may choose an abstract name: whatever it
 *    holds, the text is one printable line.
 */
#include "shoal/net/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <net/if.h>

#include "shoal/runtime/check.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/resolve.h"

#define UNIX_PREFIX   "unix:"
#define UNIX_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)
#define PATH_OFFSET   offsetof(struct sockaddr_un, sun_path)

#define ALLOWED "allowed: an IPv4 or IPv6 address, unix:/path or unix:@name"

/* Returns -EINVAL with a text in `error`: one line, whatever it quotes. */
#define FAIL(error, error_size, ...)                                                               \
    ((void)snprintf((error), (error_size), __VA_ARGS__), make_error((error), (error_size)))

static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

static int make_error(char *error, size_t error_size)
{
    if (error_size > 0)
        make_printable(error);
    return -EINVAL;
}

/* ---- Reading ---- */

static bool is_unix_text(const char *host)
{
    return strncmp(host, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

static int parse_unix(struct shoal_address *out, const char *host, char *error, size_t error_size)
{
    const char *path = host + strlen(UNIX_PREFIX);
    size_t len = strlen(path);
    if (path[0] != '/' && (path[0] != '@' || len == 1))
        return FAIL(error, error_size,
                    "\"%.100s\" is no Unix socket (allowed: unix:/path, absolute, or unix:@name)",
                    host);
    if (len > UNIX_PATH_MAX)
        return FAIL(error, error_size,
                    "\"%.60s...\" is a path of %zu bytes (allowed: up to %zu after \"unix:\")",
                    host, len, UNIX_PATH_MAX);
    memset(out, 0, sizeof(*out));
    out->local.sun_family = AF_UNIX;
    memcpy(out->local.sun_path, path, len);
    bool abstract = path[0] == '@';
    if (abstract)
        out->local.sun_path[0] = '\0';
    out->len = (socklen_t)(PATH_OFFSET + len + (abstract ? 0 : 1));
    return 0;
}

static void from_storage(struct shoal_address *out, const struct sockaddr_storage *storage)
{
    memset(out, 0, sizeof(*out));
    out->storage = *storage;
    out->len = shoal_resolved_len(storage);
}

/* Takes `[...]` off `host`; whether there were such brackets. */
static bool take_brackets(const char *host, char *inner, size_t inner_size)
{
    size_t len = strlen(host);
    if (len < 2 || host[0] != '[' || host[len - 1] != ']' || len - 2 >= inner_size)
        return false;
    memcpy(inner, host + 1, len - 2);
    inner[len - 2] = '\0';
    return true;
}

static bool parse_ip(struct shoal_address *out, const char *host, uint16_t port)
{
    struct sockaddr_storage storage;
    char inner[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
    bool bracketed = take_brackets(host, inner, sizeof(inner));
    if (!shoal_resolve_literal(bracketed ? inner : host, port, &storage))
        return false;
    if (bracketed && storage.ss_family != AF_INET6)
        return false;
    from_storage(out, &storage);
    return true;
}

/* Names do not have these. */
static bool looks_like_ip6(const char *host)
{
    return strpbrk(host, "[]:") != NULL;
}

static int fail_ip6(const char *host, char *error, size_t error_size)
{
    const char *scope = strchr(host, '%');
    if (scope != NULL)
        return FAIL(error, error_size,
                    "\"%.100s\" is no IPv6 address of an interface here (" ALLOWED ")", host);
    return FAIL(error, error_size, "\"%.100s\" is no IPv6 address (" ALLOWED ")", host);
}

int shoal_address_parse(struct shoal_address *out, const char *host, uint16_t port, char *error,
                        size_t error_size)
{
    if (is_unix_text(host))
        return parse_unix(out, host, error, error_size);
    if (parse_ip(out, host, port))
        return 0;
    if (looks_like_ip6(host))
        return fail_ip6(host, error, error_size);
    return FAIL(error, error_size, "\"%.100s\" is no address (" ALLOWED ")", host);
}

int shoal_address_resolve(struct shoal_address *out, unsigned max, const char *host, uint16_t port,
                          char *error, size_t error_size)
{
    SHOAL_CHECK(max > 0, "no room for an address");
    if (is_unix_text(host) || looks_like_ip6(host)) {
        int rc = shoal_address_parse(out, host, port, error, error_size);
        return rc < 0 ? rc : 1;
    }
    struct shoal_resolved found;
    int rc = shoal_resolve(host, NULL, &found, error, error_size);
    if (rc < 0)
        return rc;
    unsigned count = found.count < max ? found.count : max;
    for (unsigned i = 0; i < count; i++) {
        from_storage(&out[i], &found.address[i]);
        shoal_address_set_port(&out[i], port);
    }
    return (int)count;
}

/* ---- Writing ---- */

static void format_ip6(const struct sockaddr_in6 *ip6, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN];
    char name[IF_NAMESIZE];
    unsigned port = ntohs(ip6->sin6_port);
    (void)inet_ntop(AF_INET6, &ip6->sin6_addr, text, sizeof(text));
    if (ip6->sin6_scope_id == 0)
        (void)snprintf(out, size, "[%s]:%u", text, port);
    else if (if_indextoname(ip6->sin6_scope_id, name) != NULL)
        (void)snprintf(out, size, "[%s%%%s]:%u", text, name, port);
    else
        (void)snprintf(out, size, "[%s%%%u]:%u", text, ip6->sin6_scope_id, port);
}

static void format_unix(const struct shoal_address *address, char *out, size_t size)
{
    char path[UNIX_PATH_MAX + 2] = "";
    size_t len = address->len > PATH_OFFSET ? address->len - PATH_OFFSET : 0;
    if (len > UNIX_PATH_MAX + 1)
        len = UNIX_PATH_MAX + 1;
    memcpy(path, address->local.sun_path, len);
    if (len > 0 && path[0] == '\0') {
        path[0] = '@';
        for (size_t i = 1; i < len; i++)
            if (path[i] == '\0')
                path[i] = '?';
    }
    (void)snprintf(out, size, UNIX_PREFIX "%s", path);
}

char *shoal_address_format(const struct shoal_address *address, char *out, size_t size)
{
    char text[INET_ADDRSTRLEN];
    switch (address->any.sa_family) {
    case AF_INET:
        (void)inet_ntop(AF_INET, &address->ip4.sin_addr, text, sizeof(text));
        (void)snprintf(out, size, "%s:%u", text, (unsigned)ntohs(address->ip4.sin_port));
        break;
    case AF_INET6:
        format_ip6(&address->ip6, out, size);
        break;
    case AF_UNIX:
        format_unix(address, out, size);
        break;
    default:
        (void)snprintf(out, size, "(address family %u)", (unsigned)address->any.sa_family);
        break;
    }
    make_printable(out);
    return out;
}

uint16_t shoal_address_port(const struct shoal_address *address)
{
    switch (address->any.sa_family) {
    case AF_INET:
        return ntohs(address->ip4.sin_port);
    case AF_INET6:
        return ntohs(address->ip6.sin6_port);
    default:
        return 0;
    }
}

void shoal_address_set_port(struct shoal_address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET)
        address->ip4.sin_port = htons(port);
    else if (address->any.sa_family == AF_INET6)
        address->ip6.sin6_port = htons(port);
}
