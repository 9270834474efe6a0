/*
 * A stream inside, for what embeds one (an HTTP connection) and must hold no fiber while it waits.
 *
 *   kernel -> recv (multishot) -> in ----> on->input (a task), or the fiber that reads
 *   reserve/commit -> out -> flush -> sending -> kernel ----> on->drained, or the fiber that writes
 *
 * 1. `sending` and what it points to belong to the kernel while `send` is busy.
 * 2. The stream's memory is its owner's again in on->closed, not before: then no operation is busy.
 * 3. A parked stream holds no block and no fiber: about 300 bytes.
 */
#ifndef SHOAL_NET_STREAM_IMPL_H
#define SHOAL_NET_STREAM_IMPL_H

#include "shoal/runtime/core_impl.h"

#include "shoal/net/balance_impl.h"
#include "shoal/net/handover.h"
#include "shoal/net/stream.h"

#define SHOAL_STREAM_HELD_MAX 4u    /* slices held unread before receiving pauses */
#define SHOAL_STREAM_BLOCK    4032u /* an odd number of cache lines: starts spread over the sets */
#define SHOAL_STREAM_IOV_MAX  16u

struct shoal_stream_events {
    void (*input)(struct shoal_stream *stream);   /* data, end or error; from the queue */
    void (*drained)(struct shoal_stream *stream); /* nothing waits to be sent, or sending failed */
    void (*closed)(struct shoal_stream *stream);  /* all over; free it */
};

struct shoal_stream {
    struct shoal_io_fd fd;
    struct shoal_io_op recv;
    struct shoal_io_op send;
    struct shoal_task input_task;
    const struct shoal_stream_events *on;
    struct shoal_chain in;
    struct shoal_chain out;
    struct shoal_chain sending;
    struct shoal_sendvec *vector; /* while more than one slice is being sent */
    struct shoal_fiber *reader;
    struct shoal_fiber *writer;
    uint64_t sent_bytes; /* ever: tells progress */
    int32_t in_error;    /* 0 while receiving; SHOAL_EEOF or -errno after */
    int32_t out_error;   /* 0, or why nothing can be sent any more */
    bool input_queued;
    uint16_t core;
    bool paused; /* receiving waits until `in` is taken */
    bool closing;
    bool detaching; /* is being handed over: `reader` waits for `recv` to end */
};

#define SHOAL_NET_HANDING_BYTES 16u

/* What connections of this core share; made with the first. */
struct shoal_net {
    struct shoal_load load;    /* a line of its own: other cores read it */
    struct shoal_slab blocks;  /* output blocks of SHOAL_STREAM_BLOCK */
    struct shoal_slab vectors; /* struct shoal_sendvec */
    struct shoal_slab streams;
    struct shoal_slab handings; /* connections on their way to other cores */
    struct shoal_handover_stats handover;
};

/* The core's net state; NULL when out of memory. */
struct shoal_net *shoal_net_self(void);

/* Takes over `fd`. 0, or -errno and `fd` is still the caller's. Starts to receive. */
int shoal_stream_init(struct shoal_stream *stream, int fd, const struct shoal_stream_events *on);

/* A stream of its own slab around `fd`, which is taken over only when 0 is returned. */
int shoal_stream_adopt(struct shoal_stream **out, int fd);

/* `bytes` (at most SHOAL_STREAM_BLOCK / 2) to be filled and committed at once; NULL: no memory. */
char *shoal_stream_reserve(struct shoal_stream *stream, uint32_t bytes);
void shoal_stream_commit(struct shoal_stream *stream, uint32_t bytes);

/* Gathers a copy, or a slice (taken over whatever the result), to be sent. Never waits. */
int shoal_stream_append(struct shoal_stream *stream, const void *data, size_t len);
int shoal_stream_append_slice(struct shoal_stream *stream, struct shoal_slice *slice);

/* Waits until at most `bytes` wait to be sent. 0 or the stream's error. On a fiber. */
int shoal_stream_wait_out(struct shoal_stream *stream, size_t bytes);

/* Waits until `in` has data. 0, SHOAL_EEOF, -errno, -ECANCELED. On a fiber. */
int shoal_stream_wait_in(struct shoal_stream *stream);

/* Goes on receiving when enough of `in` has been taken. */
void shoal_stream_resume(struct shoal_stream *stream);

/* Has all waits of one side, now and later, return `code`. */
void shoal_stream_fail_out(struct shoal_stream *stream, int code);
void shoal_stream_fail_in(struct shoal_stream *stream, int code);

/* Starts the end: on->closed is called once no operation is busy, from the queue. */
void shoal_stream_end(struct shoal_stream *stream);

static inline bool shoal_stream_unsent(const struct shoal_stream *stream)
{
    return stream->out.bytes + stream->sending.bytes > 0;
}

#endif
