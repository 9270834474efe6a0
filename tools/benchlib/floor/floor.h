/*
 * What the two floor servers share: the fixed reply, the listener and the counting of requests.
 *
 * A floor is the least that a server on one thread can do and still answer: it reads, it counts,
 * it writes a fixed reply. It is the limit that tools/bench compares real servers with, so it
 * must be honest: one answer for each request, one write for what one read brought.
 *
 * 1. Nothing is parsed. The first bytes on a connection hold at least one whole request; its
 *    length is taken once, and from then on requests are counted by dividing bytes by it. This
 *    holds for a load generator, whose requests on one connection are all alike, and for
 *    nothing else: a floor is not a server.
 * 2. The reply has the headers that Shoal sends, so both move the same bytes.
 * 3. A connection that does not take its answers at once is closed; nothing is ever queued.
 */
#ifndef SHOAL_BENCH_FLOOR_H
#define SHOAL_BENCH_FLOOR_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOR_REPLY                                                                                \
    "HTTP/1.1 200 OK\r\n"                                                                          \
    "Server: shoal\r\n"                                                                            \
    "Date: Mon, 23 Nov 2026 14:00:00 GMT\r\n"                                                      \
    "Content-Type: text/plain\r\n"                                                                 \
    "Content-Length: 13\r\n"                                                                       \
    "\r\n"                                                                                         \
    "Hello, World!"

#define FLOOR_REPLY_SIZE  (sizeof(FLOOR_REPLY) - 1)
#define FLOOR_BUFFER_SIZE 4096u
#define FLOOR_BATCH_MAX   256u /* answers that one read can bring; 16 bytes a request at least */
#define FLOOR_FD_MAX      65536

struct floor_conn {
    uint32_t request_size; /* 0 until the first bytes came */
    uint32_t partial;      /* bytes of a request whose rest is still to come */
};

static struct floor_conn floor_conns[FLOOR_FD_MAX];
static char floor_replies[FLOOR_REPLY_SIZE * FLOOR_BATCH_MAX];

/* How many requests ended within these bytes; 0 means that the first is still incomplete. */
static inline uint32_t floor_count(struct floor_conn *conn, const char *data, uint32_t size)
{
    if (__builtin_expect(conn->request_size == 0, 0)) {
        const char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end == NULL) {
            fprintf(stderr, "floor: the first request did not come whole\n");
            exit(1);
        }
        conn->request_size = (uint32_t)(end - data) + 4;
    }
    uint32_t total = conn->partial + size;
    if (__builtin_expect(total == conn->request_size, 1)) {
        conn->partial = 0;
        return 1;
    }
    conn->partial = total % conn->request_size;
    uint32_t count = total / conn->request_size;
    if (count > FLOOR_BATCH_MAX) {
        fprintf(stderr, "floor: more than %u requests in one read\n", FLOOR_BATCH_MAX);
        exit(1);
    }
    return count;
}

/* A fresh connection; false when its descriptor is beyond the table. */
static inline int floor_conn_init(int fd)
{
    if (fd >= FLOOR_FD_MAX) {
        return 0;
    }
    floor_conns[fd] = (struct floor_conn){0, 0};
    return 1;
}

static inline void floor_die(const char *what, int code)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(code));
    exit(1);
}

/* Listens on a free port of loopback and says which; accepted sockets inherit TCP_NODELAY. */
static inline int floor_listen(void)
{
    for (uint32_t i = 0; i < FLOOR_BATCH_MAX; i++) {
        memcpy(floor_replies + i * FLOOR_REPLY_SIZE, FLOOR_REPLY, FLOOR_REPLY_SIZE);
    }
    signal(SIGPIPE, SIG_IGN);
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        floor_die("listen", errno);
    }
    fprintf(stderr, "listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    return fd;
}

#endif
