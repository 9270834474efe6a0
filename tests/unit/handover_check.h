/*
 * What the tests of connections that change cores share: servers that note where they ran, what
 * each core has counted, and clients that do not block their core for long.
 */
#ifndef SHOAL_TESTS_UNIT_HANDOVER_CHECK_H
#define SHOAL_TESTS_UNIT_HANDOVER_CHECK_H

#include "shoal/net/handover.h"
#include "shoal/net/listen_impl.h"

#include "unit/fault_check.h"
#include "unit/net_check.h"

#define CORES 2

static _Atomic unsigned served[CORES]; /* by core */

static inline void greet(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    served[shoal_core_id()]++;
    (void)shoal_stream_write(stream, "hello", 5);
}

/* Sends back all that comes. */
static inline void echo(struct shoal_stream *stream, void *arg)
{
    (void)arg;
    struct shoal_slice *slice;
    served[shoal_core_id()]++;
    while (shoal_stream_read(stream, &slice) == 0)
        if (shoal_stream_write_slice(stream, slice) < 0)
            return;
    (void)shoal_stream_shutdown(stream);
}

static inline int stats_here(void *arg, union shoal_value *out)
{
    (void)out;
    shoal_handover_stats(arg);
    return 0;
}

static inline struct shoal_handover_stats stats_of(unsigned core)
{
    struct shoal_handover_stats stats;
    SHOAL_EXPECT_INT(shoal_await(shoal_submit_to(core, stats_here, &stats), NULL), 0);
    return stats;
}

static inline struct shoal_handover_stats stats_sum(void)
{
    struct shoal_handover_stats sum = stats_of(0), other = stats_of(1);
    sum.handed += other.handed;
    sum.kept += other.kept;
    sum.taken += other.taken;
    sum.refused += other.refused;
    sum.open += other.open;
    return sum;
}

/* Waits until so many accepted connections are open on both cores. */
static inline void expect_open(unsigned wanted)
{
    for (int i = 0; i < 3000 && stats_sum().open != wanted; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(stats_sum().open, wanted);
}

static inline int expect_echo(int fd, const char *text)
{
    char got[64] = "";
    ssize_t len = (ssize_t)strlen(text);
    SHOAL_EXPECT_INT(send(fd, text, (size_t)len, MSG_NOSIGNAL), len);
    for (int i = 0; i < 3000; i++) {
        ssize_t n = recv(fd, got, sizeof(got), MSG_DONTWAIT | MSG_PEEK);
        if (n >= len || n == 0)
            break;
        net_pause_ms(1);
    }
    SHOAL_EXPECT_INT(recv(fd, got, sizeof(got), MSG_DONTWAIT), len);
    return memcmp(got, text, (size_t)len);
}

static inline void expect_end(int fd)
{
    char byte;
    for (int i = 0; i < 3000 && recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0; i++)
        net_pause_ms(1);
    SHOAL_EXPECT_INT(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    close(fd);
}

#endif
