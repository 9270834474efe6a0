/*
 * Fuzz target of the addresses that people type.
 *
 *  1. A plain IPv4 or IPv6 address is taken as inet_pton() takes it.
 *  2. What is accepted, formatted, taken apart and read again, is the same address; formatted into
 *     less room it is cut.
 *  3. A refusal has one line of text.
 *
 * Input: two bytes of port, then the text.
 */
#include <errno.h>

#include <arpa/inet.h>

#include "shoal/net/address.h"

#include "fuzz/fuzz_input.h"

enum { TEXT_MAX = 1024 };

static bool same(const struct shoal_address *a, const struct shoal_address *b)
{
    return a->len == b->len && memcmp(&a->any, &b->any, a->len) == 0;
}

static void require_as_inet_pton(const struct shoal_address *address, const char *text, int rc,
                                 uint16_t port)
{
    struct in_addr ip4;
    struct in6_addr ip6;
    if (inet_pton(AF_INET, text, &ip4) == 1) {
        REQUIRE(rc == 0 && address->any.sa_family == AF_INET);
        REQUIRE(address->ip4.sin_addr.s_addr == ip4.s_addr);
        REQUIRE(ntohs(address->ip4.sin_port) == port);
    } else if (inet_pton(AF_INET6, text, &ip6) == 1) {
        REQUIRE(rc == 0 && address->any.sa_family == AF_INET6);
        REQUIRE(memcmp(&address->ip6.sin6_addr, &ip6, sizeof(ip6)) == 0);
        REQUIRE(ntohs(address->ip6.sin6_port) == port);
    }
}

/* "host:port" or "[host]:port" back into an address. */
static void require_read_again(const struct shoal_address *address, const char *text)
{
    char host[SHOAL_ADDRESS_TEXT_MAX], error[SHOAL_ADDRESS_ERROR_MAX];
    struct shoal_address again;
    snprintf(host, sizeof(host), "%s", text);
    if (!shoal_address_is_unix(address)) {
        char *colon = strrchr(host, ':');
        REQUIRE(colon != NULL);
        REQUIRE((uint16_t)strtoul(colon + 1, NULL, 10) == shoal_address_port(address));
        *colon = '\0';
    } else if (strchr(text, '?') != NULL) {
        return; /* a character that does not print, or a real question mark */
    }
    REQUIRE(shoal_address_parse(&again, host, shoal_address_port(address), error, sizeof(error)) ==
            0);
    REQUIRE(same(address, &again));
}

static void require_cut(const struct shoal_address *address, const char *text)
{
    char cut[SHOAL_ADDRESS_TEXT_MAX + 1];
    for (size_t room = 1; room <= strlen(text); room++) {
        memset(cut, 'x', sizeof(cut));
        REQUIRE(shoal_address_format(address, cut, room) == cut);
        REQUIRE(strlen(cut) == room - 1 && cut[room] == 'x' && strncmp(cut, text, room - 1) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    char error[SHOAL_ADDRESS_ERROR_MAX], text[SHOAL_ADDRESS_TEXT_MAX];
    struct shoal_address address;
    if (size > TEXT_MAX)
        return 0;
    const uint16_t port = (uint16_t)fuzz_number(&in, 2);
    char *host = fuzz_word(&in);
    const int rc = shoal_address_parse(&address, host, port, error, sizeof(error));
    require_as_inet_pton(&address, host, rc, port);
    if (rc == 0) {
        REQUIRE(address.len > 0 && address.len <= sizeof(address.storage));
        REQUIRE(shoal_address_port(&address) == (shoal_address_is_unix(&address) ? 0 : port));
        shoal_address_format(&address, text, sizeof(text));
        require_cut(&address, text);
        require_read_again(&address, text);
        shoal_address_set_port(&address, 1);
        REQUIRE(shoal_address_port(&address) == (shoal_address_is_unix(&address) ? 0 : 1));
    } else {
        REQUIRE(rc == -EINVAL);
        fuzz_require_error_line(error, sizeof(error));
    }
    free(host);
    return 0;
}
