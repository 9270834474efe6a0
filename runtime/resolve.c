/*
 * Names to addresses: see resolve.h.
 *
 * 1. The helper thread sees only the request, which is on the stack of the fiber that waits for it:
 *    the caller's strings may change or go while it waits.
 * 2. What ends in a number is an address or nothing. getaddrinfo would take "127.1" or "0x7f000001"
 *    for 127.0.0.1; who checks an address before using it does not expect that.
 * 3. The flags ask for nothing that depends on the machine's interfaces (AI_ADDRCONFIG): a loopback
 *    address must resolve without a network.
 *
 * Rejected: giving up a lookup at a cancel. Its memory would have to outlive the core's loop.
 */
#include "shoal/runtime/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"

#define HOST_MAX    254 /* a DNS name as text, with its last dot */
#define SERVICE_MAX 63

#define DIGITS "0123456789"

struct lookup {
    char host[HOST_MAX + 1];
    char service[SERVICE_MAX + 1]; /* "": none */
    struct shoal_resolved *out;
    int gai;       /* EAI_* */
    int gai_errno; /* with EAI_SYSTEM */
};

/* Returns `code` with a text in `error`: one line, whatever it quotes. */
#define FAIL(code, error, error_size, ...)                                                         \
    ((void)snprintf((error), (error_size), __VA_ARGS__),                                           \
     make_one_line((code), (error), (error_size)))

static int make_one_line(int code, char *error, size_t error_size)
{
    for (char *c = error; error_size > 0 && *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return code;
}

/* ---- Literals ---- */

static bool parse_decimal(const char *text, uint32_t max, uint32_t *out)
{
    uint64_t value = 0;
    if (*text == '\0' || strlen(text) > 10 || strspn(text, DIGITS) != strlen(text))
        return false;
    for (; *text != '\0'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    *out = (uint32_t)value;
    return value <= max;
}

static bool parse_scope(const char *text, uint32_t *out)
{
    if (parse_decimal(text, UINT32_MAX, out))
        return *out != 0;
    if (strlen(text) >= IF_NAMESIZE)
        return false;
    *out = if_nametoindex(text);
    return *out != 0;
}

bool shoal_resolve_literal(const char *host, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in ip4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char text[INET6_ADDRSTRLEN];
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, host, &ip4.sin_addr) == 1) {
        memcpy(out, &ip4, sizeof(ip4));
        return true;
    }
    size_t len = strcspn(host, "%");
    if (len >= sizeof(text))
        return false;
    memcpy(text, host, len);
    text[len] = '\0';
    if (inet_pton(AF_INET6, text, &ip6.sin6_addr) != 1)
        return false;
    if (host[len] == '%' && !parse_scope(host + len + 1, &ip6.sin6_scope_id))
        return false;
    memcpy(out, &ip6, sizeof(ip6));
    return true;
}

socklen_t shoal_resolved_len(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* ---- Names ---- */

/* Whether the last label looks like a number, as no name of a host does. */
static bool ends_in_number(const char *host)
{
    size_t len = strlen(host);
    if (len > 0 && host[len - 1] == '.')
        len--;
    size_t start = len;
    while (start > 0 && host[start - 1] != '.')
        start--;
    if (start == len)
        return false;
    const char *label = host + start;
    if (len - start >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X'))
        return strspn(label + 2, DIGITS "abcdefABCDEF") >= len - start - 2;
    return strspn(label, DIGITS) >= len - start;
}

static const char *wrong_with(const char *host)
{
    if (host[0] == '\0')
        return "it is empty";
    if (strlen(host) > HOST_MAX)
        return "it is longer than 253 characters";
    if (strpbrk(host, ":%") != NULL)
        return "a name has no colon and no percent sign, and it is no valid IPv6 address";
    if (ends_in_number(host))
        return "it is no valid IPv4 address";
    for (const char *c = host; *c != '\0'; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '/')
            return "it has a character that no name has";
    return NULL;
}

static void keep(struct shoal_resolved *out, const struct addrinfo *info)
{
    bool known = info->ai_family == AF_INET || info->ai_family == AF_INET6;
    if (!known || info->ai_addrlen > sizeof(out->address[0]) || out->count == SHOAL_RESOLVED_MAX)
        return;
    struct sockaddr_storage *slot = &out->address[out->count];
    memset(slot, 0, sizeof(*slot));
    memcpy(slot, info->ai_addr, info->ai_addrlen);
    out->count++;
}

/* On a helper thread. */
static int look_up(void *arg)
{
    struct lookup *lookup = arg;
    const char *service = lookup->service[0] != '\0' ? lookup->service : NULL;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    lookup->gai = getaddrinfo(lookup->host, service, &hints, &list);
    lookup->gai_errno = errno;
    if (lookup->gai != 0)
        return lookup->gai == EAI_MEMORY ? -ENOMEM : SHOAL_ERESOLVE;
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next)
        keep(lookup->out, info);
    freeaddrinfo(list);
    if (lookup->out->count > 0)
        return 0;
    lookup->gai = EAI_NODATA;
    return SHOAL_ERESOLVE;
}

/* Names what the lookup was given: the caller's strings may be gone by now. */
static int look_up_failed(const struct lookup *lookup, int rc, char *error, size_t error_size)
{
    const char *text = shoal_error_text(rc);
    if (rc == SHOAL_ERESOLVE && lookup->gai == EAI_SERVICE)
        return FAIL(rc, error, error_size, "cannot resolve \"%.100s\": unknown service \"%s\"",
                    lookup->host, lookup->service);
    if (rc == SHOAL_ERESOLVE)
        text = lookup->gai == EAI_SYSTEM ? shoal_error_text(lookup->gai_errno)
                                         : gai_strerror(lookup->gai);
    return FAIL(rc, error, error_size, "cannot resolve \"%.100s\": %s", lookup->host, text);
}

int shoal_resolve(const char *host, const char *service, struct shoal_resolved *out, char *error,
                  size_t error_size)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a name is resolved outside a fiber");
    out->count = 0;
    int code = shoal_fiber_cancel_code(core->fiber);
    if (code < 0)
        return FAIL(code, error, error_size, "cannot resolve \"%.100s\": %s", host,
                    shoal_error_text(code));
    if (service == NULL)
        service = "";
    uint32_t port = 0;
    bool port_known = *service == '\0' || parse_decimal(service, UINT16_MAX, &port);
    bool digits = *service != '\0' && strspn(service, DIGITS) == strlen(service);
    if ((digits && !port_known) || strlen(service) > SERVICE_MAX)
        return FAIL(SHOAL_ERESOLVE, error, error_size,
                    "cannot resolve \"%.100s\": \"%.70s\" is no port (allowed: 0 to 65535 or the "
                    "name of a service)",
                    host, service);
    bool literal = shoal_resolve_literal(host, (uint16_t)port, &out->address[0]);
    if (literal && port_known) {
        out->count = 1;
        return 0;
    }
    const char *wrong = literal ? NULL : wrong_with(host);
    if (wrong != NULL)
        return FAIL(SHOAL_ERESOLVE, error, error_size,
                    "cannot resolve \"%.100s\": %s (allowed: an IPv4 or IPv6 address, or a name)",
                    host, wrong);
    struct lookup lookup = {.out = out};
    memcpy(lookup.host, host, strlen(host));
    memcpy(lookup.service, service, strlen(service));
    int rc = shoal_blocking_call(look_up, &lookup);
    return rc == 0 ? 0 : look_up_failed(&lookup, rc, error, error_size);
}
