/*
 * Addresses: what text means what, what is refused and how, and that formatting is its inverse.
 */
/* backends: both */
#include <net/if.h>
#include <unistd.h>

#include "shoal/runtime/errors.h"

#include "shoal/net/address.h"

#include "unit/harness.h"

static void parse_ok(struct shoal_address *out, const char *host, uint16_t port)
{
    char error[SHOAL_ADDRESS_ERROR_MAX] = "";
    if (shoal_address_parse(out, host, port, error, sizeof(error)) != 0)
        fail_msg("\"%s\": %s", host, error);
}

static void assert_formats(const char *host, uint16_t port, const char *text)
{
    struct shoal_address address;
    char out[SHOAL_ADDRESS_TEXT_MAX];
    parse_ok(&address, host, port);
    assert_ptr_equal(shoal_address_format(&address, out, sizeof(out)), out);
    assert_string_equal(out, text);
}

static void assert_refused(const char *host, const char *text)
{
    struct shoal_address address;
    char error[SHOAL_ADDRESS_ERROR_MAX] = "";
    assert_int_equal(shoal_address_parse(&address, host, 1, error, sizeof(error)), -EINVAL);
    if (strstr(error, text) == NULL || strstr(error, "allowed: ") == NULL)
        fail_msg("\"%s\": %s", host, error);
    assert_null(strchr(error, '\n'));
    assert_true(strlen(error) < sizeof(error) - 1);
}

static void address_ip_text_comes_back_with_its_port(void **state)
{
    (void)state;
    assert_formats("127.0.0.1", 8080, "127.0.0.1:8080");
    assert_formats("0.0.0.0", 0, "0.0.0.0:0");
    assert_formats("::1", 8080, "[::1]:8080");
    assert_formats("[::1]", 65535, "[::1]:65535");
    assert_formats("::", 80, "[::]:80");
    assert_formats("2001:DB8:0:0::1", 443, "[2001:db8::1]:443");
    assert_formats("::ffff:192.0.2.1", 1, "[::ffff:192.0.2.1]:1");
}

static void address_scope_names_the_interface(void **state)
{
    (void)state;
    struct shoal_address address;
    parse_ok(&address, "[fe80::1%12345]", 80);
    assert_int_equal(address.ip6.sin6_scope_id, 12345);
    assert_formats("fe80::1%12345", 80, "[fe80::1%12345]:80");
    unsigned lo = if_nametoindex("lo");
    if (lo == 0) {
        print_message("SKIP: missing feature: an interface called lo\n");
        skip();
    }
    char number[32];
    snprintf(number, sizeof(number), "fe80::1%%%u", lo);
    assert_formats("fe80::1%lo", 80, "[fe80::1%lo]:80");
    assert_formats("[fe80::1%lo]", 80, "[fe80::1%lo]:80");
    assert_formats(number, 80, "[fe80::1%lo]:80");
}

static void address_unix_path_is_taken_whole(void **state)
{
    (void)state;
    struct shoal_address address;
    parse_ok(&address, "unix:/run/shoal.sock", 80);
    assert_true(shoal_address_is_unix(&address));
    assert_string_equal(address.local.sun_path, "/run/shoal.sock");
    assert_int_equal(address.len, offsetof(struct sockaddr_un, sun_path) + 16);
    assert_int_equal(shoal_address_port(&address), 0);
    shoal_address_set_port(&address, 99);
    assert_string_equal(address.local.sun_path, "/run/shoal.sock");
    assert_formats("unix:/run/shoal.sock", 80, "unix:/run/shoal.sock");
    assert_formats("unix:/with space:and@more", 80, "unix:/with space:and@more");
}

static void address_unix_abstract_name_has_no_terminator(void **state)
{
    (void)state;
    struct shoal_address address;
    parse_ok(&address, "unix:@shoal", 0);
    assert_int_equal(address.local.sun_path[0], 0);
    assert_memory_equal(address.local.sun_path + 1, "shoal", 5);
    assert_int_equal(address.len, offsetof(struct sockaddr_un, sun_path) + 6);
    assert_formats("unix:@shoal", 0, "unix:@shoal");
}

static void address_unix_path_limit_is_the_kernels(void **state)
{
    (void)state;
    char host[5 + 109];
    char text[SHOAL_ADDRESS_TEXT_MAX];
    struct shoal_address address;
    memset(host, 'x', sizeof(host));
    memcpy(host, "unix:/", 6);
    host[5 + 108] = '\0';
    assert_refused(host, "108 bytes");
    host[5 + 107] = '\0';
    parse_ok(&address, host, 0);
    assert_int_equal(address.len, sizeof(struct sockaddr_un));
    assert_string_equal(shoal_address_format(&address, text, sizeof(text)), host);
    host[5] = '@';
    parse_ok(&address, host, 0);
    assert_int_equal(address.len, sizeof(struct sockaddr_un) - 1);
    assert_string_equal(shoal_address_format(&address, text, sizeof(text)), host);
    host[5 + 107] = 'x';
    host[5 + 108] = '\0';
    assert_refused(host, "allowed: up to 107");
}

static void address_malformed_text_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused("", "\"\" is no address");
    assert_refused("localhost", "\"localhost\" is no address");
    assert_refused("256.0.0.1", "\"256.0.0.1\" is no address");
    assert_refused("127.1", "is no address");
    assert_refused("127.0.0.1:80", "is no IPv6 address");
    assert_refused("[127.0.0.1]", "is no IPv6 address");
    assert_refused("[::1", "is no IPv6 address");
    assert_refused("::1]", "is no IPv6 address");
    assert_refused("[]", "is no IPv6 address");
    assert_refused("[::1]:80", "is no IPv6 address");
    assert_refused("[[::1]]", "is no IPv6 address");
    assert_refused("fe80::1%nope", "interface");
    assert_refused("unix:", "is no Unix socket");
    assert_refused("unix:@", "is no Unix socket");
    assert_refused("unix:relative", "is no Unix socket");
    assert_refused("UNIX:/run/x", "is no IPv6 address");
    assert_refused("two\nlines", "\"two?lines\"");
    assert_refused("unix:two\nlines", "two?lines");
    char longest[2000];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_refused(longest, "is no address");
    memset(longest, ':', sizeof(longest) - 1);
    assert_refused(longest, "is no IPv6 address");
    memcpy(longest, "unix:/", 6);
    assert_refused(longest, "1994 bytes");
}

static void address_port_is_read_and_set(void **state)
{
    (void)state;
    struct shoal_address address;
    parse_ok(&address, "127.0.0.1", 80);
    assert_int_equal(shoal_address_port(&address), 80);
    shoal_address_set_port(&address, 65535);
    assert_int_equal(shoal_address_port(&address), 65535);
    assert_int_equal(ntohs(address.ip4.sin_port), 65535);
    parse_ok(&address, "::1", 1234);
    assert_int_equal(shoal_address_port(&address), 1234);
    shoal_address_set_port(&address, 4321);
    assert_int_equal(ntohs(address.ip6.sin6_port), 4321);
}

static void address_format_of_strange_peers_is_one_line(void **state)
{
    (void)state;
    char text[SHOAL_ADDRESS_TEXT_MAX];
    struct shoal_address address = {.len = offsetof(struct sockaddr_un, sun_path)};
    address.local.sun_family = AF_UNIX;
    assert_string_equal(shoal_address_format(&address, text, sizeof(text)), "unix:");
    memcpy(address.local.sun_path, "\0a\0b\nc\x7f", 7);
    address.len += 7;
    assert_string_equal(shoal_address_format(&address, text, sizeof(text)), "unix:@a?b?c?");
    memset(address.local.sun_path, 'p', sizeof(address.local.sun_path)); /* no NUL: legal */
    address.len = sizeof(struct sockaddr_un);
    assert_int_equal(strlen(shoal_address_format(&address, text, sizeof(text))), 5 + 108);
    address.any.sa_family = AF_UNSPEC;
    assert_string_equal(shoal_address_format(&address, text, sizeof(text)), "(address family 0)");
    parse_ok(&address, "127.0.0.1", 8080);
    assert_string_equal(shoal_address_format(&address, text, 6), "127.0");
    assert_string_equal(shoal_address_format(&address, text, 1), "");
}

static void address_bound_by_the_kernel_is_the_same(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "::1", "unix:@shoal_test_address"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(hosts); i++) {
        struct shoal_address address, bound = {.len = sizeof(bound.storage)};
        char want[SHOAL_ADDRESS_TEXT_MAX], got[SHOAL_ADDRESS_TEXT_MAX];
        parse_ok(&address, hosts[i], 0);
        int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, &address.any, address.len) != 0) {
            assert_true(i == 1); /* a machine without IPv6 */
            close(fd);
            continue;
        }
        assert_int_equal(getsockname(fd, &bound.any, &bound.len), 0);
        assert_int_equal(bound.len, address.len);
        shoal_address_set_port(&address, shoal_address_port(&bound));
        assert_string_equal(shoal_address_format(&address, want, sizeof(want)),
                            shoal_address_format(&bound, got, sizeof(got)));
        close(fd);
    }
}

/* ---- With names ---- */

static int resolve_fiber(void *arg)
{
    (void)arg;
    struct shoal_address found[4];
    char error[SHOAL_ADDRESS_ERROR_MAX] = "";
    char text[SHOAL_ADDRESS_TEXT_MAX];
    int count = shoal_address_resolve(found, 4, "localhost", 8080, error, sizeof(error));
    SHOAL_EXPECT(count >= 1 && count <= 4);
    for (int i = 0; i < count; i++) {
        shoal_address_format(&found[i], text, sizeof(text));
        SHOAL_EXPECT(strcmp(text, "[::1]:8080") == 0 || strcmp(text, "127.0.0.1:8080") == 0);
    }
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 1, "localhost", 1, error, sizeof(error)), 1);
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "10.1.2.3", 99, error, sizeof(error)), 1);
    SHOAL_EXPECT(strcmp(shoal_address_format(found, text, sizeof(text)), "10.1.2.3:99") == 0);
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "[::1]", 99, error, sizeof(error)), 1);
    SHOAL_EXPECT(strcmp(shoal_address_format(found, text, sizeof(text)), "[::1]:99") == 0);
    SHOAL_EXPECT_INT(found[0].len, sizeof(struct sockaddr_in6));
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "unix:/x", 99, error, sizeof(error)), 1);
    SHOAL_EXPECT(shoal_address_is_unix(found));
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "unix:x", 9, error, sizeof(error)), -EINVAL);
    SHOAL_EXPECT(strstr(error, "\"unix:x\"") != NULL);
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "[::1", 9, error, sizeof(error)), -EINVAL);
    SHOAL_EXPECT(strstr(error, "\"[::1\"") != NULL);
    SHOAL_EXPECT_INT(shoal_address_resolve(found, 4, "127.1", 9, error, sizeof(error)),
                     SHOAL_ERESOLVE);
    SHOAL_EXPECT(strstr(error, "\"127.1\"") != NULL);
    return 0;
}

static void address_resolve_takes_names_and_addresses(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, resolve_fiber, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_ip_text_comes_back_with_its_port),
        cmocka_unit_test(address_scope_names_the_interface),
        cmocka_unit_test(address_unix_path_is_taken_whole),
        cmocka_unit_test(address_unix_abstract_name_has_no_terminator),
        cmocka_unit_test(address_unix_path_limit_is_the_kernels),
        cmocka_unit_test(address_malformed_text_is_refused_by_name),
        cmocka_unit_test(address_port_is_read_and_set),
        cmocka_unit_test(address_format_of_strange_peers_is_one_line),
        cmocka_unit_test(address_bound_by_the_kernel_is_the_same),
        cmocka_unit_test(address_resolve_takes_names_and_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
