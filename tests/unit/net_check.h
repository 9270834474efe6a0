/*
 * What the tests of streams, listeners and the HTTP server share: sockets, small clients on fibers,
 * and a look at what a core still holds.
 */
#ifndef SHOAL_TESTS_UNIT_NET_CHECK_H
#define SHOAL_TESTS_UNIT_NET_CHECK_H

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"

#include "shoal/smp/submit.h"

#include "shoal/net/address.h"
#include "shoal/net/stream_impl.h"

#include "unit/harness.h"

static inline struct shoal_fiber *net_spawn(shoal_fiber_fn *fn, void *arg)
{
    struct shoal_fiber *fiber = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, fn, arg, "child"), 0);
    return fiber;
}

static inline void net_pause_ms(unsigned ms)
{
    SHOAL_EXPECT_INT(shoal_sleep_ns(ms * SHOAL_NS_PER_MS), 0);
}

static inline struct shoal_address net_address(const char *host, uint16_t port)
{
    struct shoal_address address;
    char error[SHOAL_ADDRESS_ERROR_MAX];
    SHOAL_EXPECT_INT(shoal_address_parse(&address, host, port, error, sizeof(error)), 0);
    return address;
}

/* unix:/tmp/... of this process; `text` keeps it. */
static inline struct shoal_address net_unix_address(char *text, size_t size)
{
    snprintf(text, size, "unix:/tmp/shoal-test-%d.sock", (int)getpid());
    return net_address(text, 0);
}

/* A socket as the running backend wants it. */
static inline int net_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | shoal_core_self->io.ops->accept_flags, 0);
    SHOAL_EXPECT(fd >= 0);
    return fd;
}

/* One of two connected Unix sockets as a stream; the other is a plain descriptor. */
static inline void net_half(struct shoal_stream **stream, int *raw)
{
    int fds[2];
    int flags = shoal_core_self->io.ops->accept_flags;
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | flags, 0, fds), 0);
    SHOAL_EXPECT_INT(shoal_stream_adopt(stream, fds[0]), 0);
    *raw = fds[1];
}

/* Both as streams. */
static inline void net_pair(struct shoal_stream *streams[2])
{
    int raw;
    net_half(&streams[0], &raw);
    SHOAL_EXPECT_INT(shoal_stream_adopt(&streams[1], raw), 0);
}

/* The byte at `at` of a stream that is the same in every run, and has no short period. */
static inline unsigned char net_byte(uint64_t at)
{
    uint64_t x = (at >> 3) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned char)(x >> (8 * (at & 7)));
}

static inline void net_fill(char *to, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (char)net_byte(at + i);
}

static inline bool net_is(const char *bytes, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)bytes[i] != net_byte(at + i))
            return false;
    return true;
}

/* Reads until the end of the stream or `size` bytes; *rc: why it ended (0: full). */
static inline size_t net_read_rest(struct shoal_stream *stream, char *to, size_t size, int *rc)
{
    size_t len = 0;
    struct shoal_slice *slice;
    *rc = 0;
    while (len < size && (*rc = shoal_stream_read(stream, &slice)) == 0) {
        size_t n = slice->len < size - len ? slice->len : size - len;
        memcpy(to + len, slice->data, n);
        len += n;
        shoal_slice_free(slice);
    }
    return len;
}

/* Waits until this core holds no stream, no output and no received data. */
static inline void net_expect_clean(void)
{
    const struct shoal_core *core = shoal_core_self;
    const struct shoal_net *net = shoal_net_self();
    SHOAL_EXPECT(net != NULL);
    for (int i = 0; i < 3000 && shoal_slab_live(&net->streams) > 0; i++)
        net_pause_ms(1);
    net_pause_ms(1);
    SHOAL_EXPECT_INT(shoal_slab_live(&net->streams), 0);
    SHOAL_EXPECT_INT(shoal_slab_live(&net->blocks), 0);
    SHOAL_EXPECT_INT(shoal_slab_live(&net->vectors), 0);
    SHOAL_EXPECT_INT(shoal_slab_live(&core->slices), 0);
    SHOAL_EXPECT_INT(core->buffers.free_count, core->buffers.count);
}

static inline int net_expect_clean_here(void *arg, union shoal_value *out)
{
    (void)arg;
    (void)out;
    net_expect_clean();
    return 0;
}

/* The same on every core. */
static inline void net_expect_clean_everywhere(void)
{
    for (unsigned core = 0; core < shoal_core_count(); core++)
        SHOAL_EXPECT_INT(
            shoal_await(shoal_submit_fiber_to(core, net_expect_clean_here, NULL), NULL), 0);
}

#endif
