/*
 * Name resolution: literals without the resolver, names with it, and what it may answer.
 *
 * getaddrinfo is replaced by one that counts, holds and fails as told, and else asks the system's.
 */
/* backends: both */
#include <stdatomic.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <unistd.h>

#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/resolve.h"

#include "unit/harness.h"

static struct {
    atomic_int calls;
    atomic_long thread;
    atomic_bool hold;
    atomic_int answer; /* EAI_*; 0: the system's */
    atomic_int answer_errno;
    atomic_uint many; /* answer with so many addresses */
    char host[300];   /* what a held call was asked for, read after the wait */
} told;

static sem_t entered, go;

static int answer_many(unsigned count, struct addrinfo **out)
{
    struct entry {
        struct addrinfo info;
        struct sockaddr_in ip4;
    };
    struct addrinfo **tail = out;
    for (unsigned i = 0; i < count; i++) {
        struct entry *entry = calloc(1, sizeof(*entry));
        if (entry == NULL)
            return EAI_MEMORY;
        entry->ip4.sin_family = AF_INET;
        entry->ip4.sin_addr.s_addr = htonl(0x0a000000 + i);
        entry->info.ai_family = i == 1 ? AF_UNIX : AF_INET; /* one that nobody asked for */
        entry->info.ai_addr = (struct sockaddr *)&entry->ip4;
        entry->info.ai_addrlen = sizeof(entry->ip4);
        *tail = &entry->info;
        tail = &entry->info.ai_next;
    }
    return 0;
}

static int (*next_getaddrinfo)(const char *, const char *, const struct addrinfo *,
                               struct addrinfo **);
static void (*next_freeaddrinfo)(struct addrinfo *);

__attribute__((constructor)) static void find_next(void)
{
    *(void **)&next_getaddrinfo = dlsym(RTLD_NEXT, "getaddrinfo");
    *(void **)&next_freeaddrinfo = dlsym(RTLD_NEXT, "freeaddrinfo");
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    told.thread = gettid();
    if (told.hold) {
        sem_post(&entered);
        sem_wait(&go);
        snprintf(told.host, sizeof(told.host), "%s", host);
    }
    told.calls++;
    if (told.many > 0)
        return answer_many(told.many, out);
    if (told.answer != 0) {
        errno = told.answer_errno;
        return told.answer;
    }
    return next_getaddrinfo(host, service, hints, out);
}

void freeaddrinfo(struct addrinfo *list)
{
    if (told.many == 0) {
        next_freeaddrinfo(list);
        return;
    }
    while (list != NULL) {
        struct addrinfo *rest = list->ai_next;
        free(list);
        list = rest;
    }
}

static void tell_nothing(void)
{
    told.calls = 0;
    told.thread = 0;
    told.hold = false;
    told.answer = 0;
    told.many = 0;
    told.host[0] = '\0';
}

/* ---- Literals ---- */

static void resolve_literal_ip4_is_taken_as_it_is(void **state)
{
    (void)state;
    struct sockaddr_storage storage;
    struct sockaddr_in ip4;
    assert_true(shoal_resolve_literal("192.0.2.7", 8080, &storage));
    memcpy(&ip4, &storage, sizeof(ip4));
    assert_int_equal(ip4.sin_family, AF_INET);
    assert_int_equal(ntohs(ip4.sin_port), 8080);
    assert_int_equal(ntohl(ip4.sin_addr.s_addr), 0xc0000207);
    assert_int_equal(shoal_resolved_len(&storage), sizeof(struct sockaddr_in));
}

static void resolve_literal_ip6_keeps_its_interface(void **state)
{
    (void)state;
    struct sockaddr_storage storage;
    struct sockaddr_in6 ip6;
    assert_true(shoal_resolve_literal("2001:db8::17", 443, &storage));
    memcpy(&ip6, &storage, sizeof(ip6));
    assert_int_equal(ip6.sin6_family, AF_INET6);
    assert_int_equal(ntohs(ip6.sin6_port), 443);
    assert_int_equal(ip6.sin6_addr.s6_addr[15], 0x17);
    assert_int_equal(ip6.sin6_scope_id, 0);
    assert_int_equal(shoal_resolved_len(&storage), sizeof(struct sockaddr_in6));
    assert_true(shoal_resolve_literal("fe80::1%7", 0, &storage));
    memcpy(&ip6, &storage, sizeof(ip6));
    assert_int_equal(ip6.sin6_scope_id, 7);
    unsigned lo = if_nametoindex("lo");
    if (lo != 0) {
        assert_true(shoal_resolve_literal("fe80::1%lo", 0, &storage));
        memcpy(&ip6, &storage, sizeof(ip6));
        assert_int_equal(ip6.sin6_scope_id, lo);
    }
}

static void resolve_literal_anything_else_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "localhost",
                                        "1.2.3",
                                        "1.2.3.4.5",
                                        "256.1.1.1",
                                        "01.2.3.4",
                                        " 1.2.3.4",
                                        "1.2.3.4 ",
                                        "0x7f000001",
                                        "::1::",
                                        "[::1]",
                                        ":",
                                        "fe80::1%",
                                        "fe80::1%0",
                                        "fe80::1%4294967296",
                                        "fe80::1%99999999999999999999",
                                        "fe80::1%no_such_interface_here",
                                        "fe80::1%nope",
                                        "%1",
                                        "1.2.3.4%1",
                                        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001"};
    struct sockaddr_storage storage;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(texts); i++)
        if (shoal_resolve_literal(texts[i], 1, &storage))
            fail_msg("\"%s\" is taken for an address", texts[i]);
}

static int literal_fiber(void *arg)
{
    (void)arg;
    struct shoal_resolved found;
    struct sockaddr_in6 ip6;
    char error[SHOAL_RESOLVE_ERROR_MAX];
    SHOAL_EXPECT_INT(shoal_resolve("::1", "8080", &found, error, sizeof(error)), 0);
    SHOAL_EXPECT_INT(found.count, 1);
    memcpy(&ip6, &found.address[0], sizeof(ip6));
    SHOAL_EXPECT(ip6.sin6_family == AF_INET6 && ntohs(ip6.sin6_port) == 8080);
    SHOAL_EXPECT_INT(shoal_resolve("127.0.0.1", NULL, &found, error, sizeof(error)), 0);
    SHOAL_EXPECT_INT(found.count, 1);
    SHOAL_EXPECT_INT(found.address[0].ss_family, AF_INET);
    return 0;
}

static void resolve_of_literal_asks_nobody(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, literal_fiber, NULL), 0);
    assert_int_equal(told.calls, 0);
}

/* ---- Names ---- */

static int localhost_fiber(void *arg)
{
    (void)arg;
    struct shoal_resolved found;
    char error[SHOAL_RESOLVE_ERROR_MAX] = "";
    SHOAL_EXPECT_INT(shoal_resolve("localhost", "80", &found, error, sizeof(error)), 0);
    SHOAL_EXPECT(found.count >= 1);
    for (unsigned i = 0; i < found.count; i++) {
        struct sockaddr_in ip4;
        memcpy(&ip4, &found.address[i], sizeof(ip4)); /* the port is at the same place in both */
        SHOAL_EXPECT_INT(ntohs(ip4.sin_port), 80);
        SHOAL_EXPECT(ip4.sin_family == AF_INET6 || ntohl(ip4.sin_addr.s_addr) >> 24 == 127);
    }
    SHOAL_EXPECT_INT(told.calls, 1);
    SHOAL_EXPECT(told.thread != 0 && told.thread != gettid());
    return 0;
}

static void resolve_name_is_looked_up_on_another_thread(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, localhost_fiber, NULL), 0);
}

static int many_fiber(void *arg)
{
    (void)arg;
    struct shoal_resolved found;
    char error[SHOAL_RESOLVE_ERROR_MAX] = "";
    told.many = 100;
    SHOAL_EXPECT_INT(shoal_resolve("crowd.example", NULL, &found, error, sizeof(error)), 0);
    SHOAL_EXPECT_INT(found.count, SHOAL_RESOLVED_MAX);
    for (unsigned i = 0; i < found.count; i++) {
        struct sockaddr_in ip4;
        memcpy(&ip4, &found.address[i], sizeof(ip4));
        SHOAL_EXPECT_INT(ntohl(ip4.sin_addr.s_addr), 0x0a000000 + i + (i > 0));
    }
    return 0;
}

static void resolve_more_addresses_than_fit_are_dropped(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, many_fiber, NULL), 0);
    tell_nothing();
}

/* ---- Failures ---- */

static void expect_failure(const char *host, const char *service, int code,
                           const char *const *texts)
{
    struct shoal_resolved found = {.count = 99};
    char error[SHOAL_RESOLVE_ERROR_MAX] = "";
    SHOAL_EXPECT_INT(shoal_resolve(host, service, &found, error, sizeof(error)), code);
    SHOAL_EXPECT_INT(found.count, 0);
    SHOAL_EXPECT(strchr(error, '\n') == NULL && strlen(error) < sizeof(error) - 1);
    for (; *texts != NULL; texts++)
        if (!SHOAL_EXPECT(strstr(error, *texts) != NULL))
            fprintf(stderr, "\"%s\" is not in: %s\n", *texts, error);
}

#define EXPECT_FAILURE(host, service, code, ...)                                                   \
    expect_failure(host, service, code, (const char *const[]){__VA_ARGS__, NULL})

static int answers_fiber(void *arg)
{
    (void)arg;
    told.answer = EAI_NONAME;
    EXPECT_FAILURE("no.such.host.example", NULL, SHOAL_ERESOLVE, "\"no.such.host.example\"",
                   gai_strerror(EAI_NONAME));
    told.answer = EAI_AGAIN;
    EXPECT_FAILURE("slow.example", "80", SHOAL_ERESOLVE, "\"slow.example\"",
                   gai_strerror(EAI_AGAIN));
    told.answer = EAI_SYSTEM;
    told.answer_errno = EMFILE;
    EXPECT_FAILURE("broke.example", NULL, SHOAL_ERESOLVE, "\"broke.example\"",
                   shoal_error_text(-EMFILE));
    told.answer = EAI_MEMORY;
    EXPECT_FAILURE("huge.example", NULL, -ENOMEM, "\"huge.example\"", shoal_error_text(-ENOMEM));
    told.answer = EAI_SERVICE;
    EXPECT_FAILURE("a.example", "frobnicate", SHOAL_ERESOLVE, "\"a.example\"", "\"frobnicate\"");
    return 0;
}

static void resolve_failure_names_host_and_reason(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, answers_fiber, NULL), 0);
    tell_nothing();
}

static int malformed_fiber(void *arg)
{
    (void)arg;
    char longest[400];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    EXPECT_FAILURE("", NULL, SHOAL_ERESOLVE, "\"\"", "empty", "allowed");
    EXPECT_FAILURE(longest, NULL, SHOAL_ERESOLVE, "253", "allowed");
    EXPECT_FAILURE("127.1", NULL, SHOAL_ERESOLVE, "\"127.1\"", "IPv4", "allowed");
    EXPECT_FAILURE("0x7f000001", NULL, SHOAL_ERESOLVE, "IPv4");
    EXPECT_FAILURE("2130706433", NULL, SHOAL_ERESOLVE, "IPv4");
    EXPECT_FAILURE("example.0x1.", NULL, SHOAL_ERESOLVE, "IPv4");
    EXPECT_FAILURE("1.2.3.400", NULL, SHOAL_ERESOLVE, "IPv4");
    EXPECT_FAILURE("example.org:80", NULL, SHOAL_ERESOLVE, "IPv6", "allowed");
    EXPECT_FAILURE("fe80::1%nope", NULL, SHOAL_ERESOLVE, "IPv6");
    EXPECT_FAILURE("two words", NULL, SHOAL_ERESOLVE, "character");
    EXPECT_FAILURE("line\nbreak", NULL, SHOAL_ERESOLVE, "line?break");
    EXPECT_FAILURE("/etc/passwd", NULL, SHOAL_ERESOLVE, "character");
    EXPECT_FAILURE("localhost", "65536", SHOAL_ERESOLVE, "\"65536\"", "0 to 65535");
    EXPECT_FAILURE("127.0.0.1", "99999999999", SHOAL_ERESOLVE, "0 to 65535");
    EXPECT_FAILURE("localhost", longest, SHOAL_ERESOLVE, "0 to 65535");
    return 0;
}

static void resolve_malformed_host_is_never_looked_up(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, malformed_fiber, NULL), 0);
    assert_int_equal(told.calls, 0);
}

static int tiny_buffer_fiber(void *arg)
{
    (void)arg;
    struct shoal_resolved found;
    char error[4] = "zzz";
    SHOAL_EXPECT_INT(shoal_resolve("", NULL, &found, error, 1), SHOAL_ERESOLVE);
    SHOAL_EXPECT(error[0] == '\0' && error[1] == 'z');
    SHOAL_EXPECT_INT(shoal_resolve("", NULL, &found, NULL, 0), SHOAL_ERESOLVE);
    return 0;
}

static void resolve_error_buffer_is_not_overrun(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, tiny_buffer_fiber, NULL), 0);
}

/* ---- Cancel ---- */

struct attempt {
    char *host;
    char *service;
    struct shoal_resolved found;
    int first;
    int second;
    bool returned;
};

static int resolving_fiber(void *arg)
{
    struct attempt *attempt = arg;
    char error[SHOAL_RESOLVE_ERROR_MAX] = "";
    attempt->first =
        shoal_resolve(attempt->host, attempt->service, &attempt->found, error, sizeof(error));
    attempt->returned = true;
    attempt->second = shoal_resolve("127.0.0.1", NULL, &attempt->found, error, sizeof(error));
    SHOAL_EXPECT(strstr(error, "\"127.0.0.1\"") != NULL);
    return 0;
}

static int cancel_fiber(void *arg)
{
    (void)arg;
    struct attempt attempt = {.host = strdup("localhost"), .service = strdup("80")};
    struct shoal_fiber *fiber;
    told.hold = true;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, resolving_fiber, &attempt, "resolving"), 0);
    while (sem_trywait(&entered) != 0)
        SHOAL_EXPECT_INT(shoal_sleep_ns(100000), 0);
    /* The caller's strings were copied. */
    memset(attempt.host, 'x', strlen(attempt.host));
    free(attempt.host);
    free(attempt.service);
    shoal_fiber_cancel(fiber);
    for (int i = 0; i < 20; i++)
        SHOAL_EXPECT_INT(shoal_sleep_ns(100000), 0);
    SHOAL_EXPECT(!attempt.returned);
    told.hold = false;
    sem_post(&go);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    SHOAL_EXPECT_INT(attempt.first, 0);
    SHOAL_EXPECT_INT(attempt.second, -ECANCELED);
    SHOAL_EXPECT(strcmp(told.host, "localhost") == 0);
    return 0;
}

static void resolve_cancel_returns_when_the_lookup_has_ended(void **state)
{
    (void)state;
    tell_nothing();
    sem_init(&entered, 0, 0);
    sem_init(&go, 0, 0);
    assert_int_equal(shoal_test_run(1, cancel_fiber, NULL), 0);
}

static int one_of_many_fiber(void *arg)
{
    (void)arg;
    struct shoal_resolved found;
    char error[SHOAL_RESOLVE_ERROR_MAX] = "";
    SHOAL_EXPECT_INT(shoal_resolve("localhost", NULL, &found, error, sizeof(error)), 0);
    SHOAL_EXPECT(found.count >= 1);
    return 0;
}

static int crowd_fiber(void *arg)
{
    (void)arg;
    struct shoal_fiber *fibers[50];
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fibers[i], one_of_many_fiber, NULL, "one"), 0);
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(fibers); i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT_INT(told.calls, SHOAL_ARRAY_SIZE(fibers));
    return 0;
}

static void resolve_many_at_a_time_all_get_an_answer(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, crowd_fiber, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolve_literal_ip4_is_taken_as_it_is),
        cmocka_unit_test(resolve_literal_ip6_keeps_its_interface),
        cmocka_unit_test(resolve_literal_anything_else_is_refused),
        cmocka_unit_test(resolve_of_literal_asks_nobody),
        cmocka_unit_test(resolve_name_is_looked_up_on_another_thread),
        cmocka_unit_test(resolve_more_addresses_than_fit_are_dropped),
        cmocka_unit_test(resolve_failure_names_host_and_reason),
        cmocka_unit_test(resolve_malformed_host_is_never_looked_up),
        cmocka_unit_test(resolve_error_buffer_is_not_overrun),
        cmocka_unit_test(resolve_cancel_returns_when_the_lookup_has_ended),
        cmocka_unit_test(resolve_many_at_a_time_all_get_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
