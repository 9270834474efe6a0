/*
 * Streams: each promise of stream.h on a connected pair, and what they cost when all goes wrong.
 */
/* backends: both */
#include "unit/net_check.h"

#define BULK (UINT64_C(64) << 20)

/* ---- Many bytes ---- */

struct flow {
    struct shoal_stream *stream;
    uint64_t bytes;
    uint64_t done;
    uint64_t held_max; /* the most that waited to be read */
    int rc;
};

static unsigned released;

static void count_release(void *ctx)
{
    free(ctx);
    released++;
}

/* Writes in pieces of all sizes, copied and taken over. */
static int write_flow(void *arg)
{
    struct flow *flow = arg;
    uint64_t random = 88172645463325252u;
    const size_t size = 100000;
    char *copy = malloc(size); /* its own: a write may wait in the middle of it */
    while (flow->done < flow->bytes && flow->rc == 0) {
        uint64_t n = 1 + shoal_test_random(&random) % size;
        if (n > flow->bytes - flow->done)
            n = flow->bytes - flow->done;
        if (n % 3 == 0) {
            char *own = malloc(n);
            net_fill(own, n, flow->done);
            flow->rc = shoal_stream_write_slice(
                flow->stream, shoal_slice_take_over(own, (uint32_t)n, count_release, own, "test"));
        } else {
            net_fill(copy, n, flow->done);
            flow->rc = shoal_stream_write(flow->stream, copy, n);
        }
        flow->done += n;
    }
    free(copy);
    return flow->rc == 0 ? shoal_stream_shutdown(flow->stream) : flow->rc;
}

static int read_flow(void *arg)
{
    struct flow *flow = arg;
    struct shoal_slice *slice;
    bool same = true;
    while ((flow->rc = shoal_stream_read(flow->stream, &slice)) == 0) {
        same = same && net_is(slice->data, slice->len, flow->done);
        flow->done += slice->len;
        shoal_slice_free(slice);
        if (flow->stream->in.bytes > flow->held_max)
            flow->held_max = flow->stream->in.bytes;
    }
    SHOAL_EXPECT(same);
    SHOAL_EXPECT_INT(flow->rc, SHOAL_EEOF);
    SHOAL_EXPECT_INT(flow->done, flow->bytes);
    return 0;
}

static int check_bulk(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    net_pair(ends);
    const uint64_t bytes = BULK / SHOAL_TEST_SLOWDOWN;
    struct flow flows[4] = {{.stream = ends[0], .bytes = bytes},
                            {.stream = ends[1], .bytes = bytes},
                            {.stream = ends[0], .bytes = bytes},
                            {.stream = ends[1], .bytes = bytes}};
    struct shoal_fiber *fibers[4];
    for (int i = 0; i < 4; i++)
        fibers[i] = net_spawn(i < 2 ? write_flow : read_flow, &flows[i]);
    for (int i = 0; i < 4; i++)
        SHOAL_EXPECT_INT(shoal_fiber_join(fibers[i]), 0);
    SHOAL_EXPECT(flows[2].held_max < 1 << 20 && flows[3].held_max < 1 << 20);
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    net_expect_clean();
    return 0;
}

static void stream_64_mib_both_ways_at_once_arrive_bit_exact(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bulk, NULL), 0);
}

/* ---- Back-pressure ---- */

/* Waits until `*value` has not changed for a while: whoever changes it is parked. */
static void wait_still(const uint64_t *value)
{
    uint64_t before;
    do {
        before = *value;
        net_pause_ms(20);
    } while (*value != before);
}

static int check_writer_parks(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    net_pair(ends);
    struct flow out = {.stream = ends[0], .bytes = UINT64_C(32) << 20};
    struct flow in = {.stream = ends[1], .bytes = out.bytes};
    uint64_t used = shoal_core_self->mem.stats.used_bytes;
    struct shoal_fiber *writer = net_spawn(write_flow, &out);
    for (uint64_t stop = 0; stop <= 3 << 20; stop += 1 << 20) {
        struct shoal_slice *slice;
        while (in.done < stop && shoal_stream_read(ends[1], &slice) == 0) {
            SHOAL_EXPECT(net_is(slice->data, slice->len, in.done));
            in.done += slice->len;
            shoal_slice_free(slice);
        }
        wait_still(&out.done);
        SHOAL_EXPECT(out.done < stop + (4 << 20));
        SHOAL_EXPECT(ends[0]->writer == writer);
        SHOAL_EXPECT(ends[0]->out.bytes + ends[0]->sending.bytes <= 4 * SHOAL_STREAM_OUT_HIGH);
        SHOAL_EXPECT(ends[1]->paused); /* what is not read is not received for ever either */
        SHOAL_EXPECT(ends[1]->in.bytes <= 1 << 20);
        SHOAL_EXPECT(shoal_core_self->mem.stats.used_bytes - used < 4 << 20);
    }
    struct shoal_fiber *reader = net_spawn(read_flow, &in);
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(reader), 0);
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    net_expect_clean();
    return 0;
}

static void stream_writer_to_nobody_who_reads_is_parked_and_goes_on(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_writer_parks, NULL), 0);
}

/* ---- Cancel ---- */

static int read_once(void *arg)
{
    struct flow *flow = arg;
    struct shoal_slice *slice = NULL;
    flow->rc = shoal_stream_read(flow->stream, &slice);
    shoal_slice_free(slice);
    return flow->rc;
}

static int check_cancel(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    net_pair(ends);
    struct flow in = {.stream = ends[1]};
    for (int i = 0; i < 100; i++) {
        struct shoal_fiber *reader = net_spawn(read_once, &in);
        if (i % 2 == 0)
            net_pause_ms(1);
        shoal_fiber_cancel(reader);
        SHOAL_EXPECT_INT(shoal_fiber_join(reader), -ECANCELED);
        SHOAL_EXPECT_INT(shoal_stream_write(ends[0], "usable", 6), 0);
        shoal_stream_flush(ends[0]);
        char text[6];
        int rc;
        SHOAL_EXPECT_INT(net_read_rest(ends[1], text, sizeof(text), &rc), 6);
        SHOAL_EXPECT(memcmp(text, "usable", 6) == 0);
    }
    struct flow out = {.stream = ends[0], .bytes = BULK};
    struct shoal_fiber *writer = net_spawn(write_flow, &out);
    wait_still(&out.done);
    shoal_fiber_cancel(writer);
    SHOAL_EXPECT_INT(shoal_fiber_join(writer), -ECANCELED);
    struct flow rest = {.stream = ends[1], .bytes = out.done};
    struct shoal_fiber *reader = net_spawn(read_flow, &rest);
    SHOAL_EXPECT_INT(shoal_stream_shutdown(ends[0]),
                     0); /* what was gathered is sent all the same */
    rest.bytes = ends[0]->sent_bytes - 600;
    SHOAL_EXPECT_INT(shoal_fiber_join(reader), 0);
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    net_expect_clean();
    return 0;
}

static void stream_read_or_write_cancelled_is_usable_after(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_cancel, NULL), 0);
}

/* ---- Ends ---- */

static int check_ends(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    struct shoal_slice *slice;
    char text[64];
    int rc;
    net_pair(ends);
    SHOAL_EXPECT_INT(shoal_stream_write(ends[0], "question", 8), 0);
    SHOAL_EXPECT_INT(shoal_stream_shutdown(ends[0]), 0);
    SHOAL_EXPECT_INT(net_read_rest(ends[1], text, sizeof(text), &rc), 8);
    SHOAL_EXPECT_INT(rc, SHOAL_EEOF);
    SHOAL_EXPECT_INT(shoal_stream_read(ends[1], &slice), SHOAL_EEOF); /* again and again */
    SHOAL_EXPECT_INT(shoal_stream_write(ends[1], "answer", 6), 0);    /* half closed only */
    SHOAL_EXPECT_INT(shoal_stream_drain(ends[1]), 0);
    SHOAL_EXPECT_INT(shoal_stream_shutdown(ends[1]), 0);
    SHOAL_EXPECT_INT(net_read_rest(ends[0], text, sizeof(text), &rc), 6);
    SHOAL_EXPECT(rc == SHOAL_EEOF && memcmp(text, "answer", 6) == 0);
    SHOAL_EXPECT_INT(shoal_stream_write(ends[0], "late", 4), 0);
    SHOAL_EXPECT_INT(shoal_stream_drain(ends[0]), -EPIPE);
    SHOAL_EXPECT_INT(shoal_stream_write(ends[0], "late", 4), -EPIPE);
    released = 0;
    char *own = malloc(4);
    SHOAL_EXPECT_INT(shoal_stream_write_slice(
                         ends[0], shoal_slice_take_over(own, 4, count_release, own, "test")),
                     -EPIPE);
    SHOAL_EXPECT_INT(released, 1);
    SHOAL_EXPECT_INT(shoal_stream_shutdown(ends[0]), -EPIPE);
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    shoal_stream_close(NULL);
    net_expect_clean();
    return 0;
}

static void stream_end_comes_after_the_data_and_leaves_the_other_way_open(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_ends, NULL), 0);
}

/* What is gathered goes out when its fiber waits for something else. */
static int check_flush(void *arg)
{
    (void)arg;
    struct shoal_stream *stream;
    int raw;
    char text[8];
    net_half(&stream, &raw);
    SHOAL_EXPECT_INT(shoal_stream_write(stream, "ab", 2), 0);
    net_pause_ms(2);
    SHOAL_EXPECT_INT(recv(raw, text, sizeof(text), MSG_DONTWAIT), -1); /* gathered, not sent */
    struct flow in = {.stream = stream};
    struct shoal_fiber *reader = net_spawn(read_once, &in);
    net_pause_ms(2);
    SHOAL_EXPECT_INT(recv(raw, text, sizeof(text), MSG_DONTWAIT), 2);
    shoal_stream_flush(stream);
    SHOAL_EXPECT_INT(shoal_stream_write(stream, "cd", 2), 0);
    shoal_stream_flush(stream);
    net_pause_ms(2);
    SHOAL_EXPECT_INT(recv(raw, text, sizeof(text), MSG_DONTWAIT), 2);
    close(raw);
    SHOAL_EXPECT_INT(shoal_fiber_join(reader), SHOAL_EEOF);
    shoal_stream_close(stream);
    net_expect_clean();
    return 0;
}

static void stream_gathered_bytes_go_out_at_a_flush_or_the_next_wait(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_flush, NULL), 0);
}

/* ---- Closing while busy ---- */

static int check_close_busy(void *arg)
{
    (void)arg;
    released = 0;
    unsigned written = 0;
    for (int round = 0; round < 60; round++) {
        struct shoal_stream *stream;
        int raw;
        net_half(&stream, &raw);
        for (int i = 0; i < round % 7; i++) {
            char *own = malloc(50000);
            memset(own, 'x', 50000);
            shoal_chain_push(&stream->out,
                             shoal_slice_take_over(own, 50000, count_release, own, "test"));
            written++;
            if (i % 2 == 0)
                shoal_stream_flush(stream);
        }
        if (round % 3 == 0)
            net_pause_ms(1);
        SHOAL_EXPECT(write(raw, "unread", 6) == 6);
        if (round % 5 == 0)
            (void)shoal_yield();
        shoal_stream_close(stream);
        close(raw);
    }
    net_expect_clean();
    SHOAL_EXPECT_INT(released, written);
    SHOAL_EXPECT_INT(shoal_core_self->io.in_flight <= 4, true);
    return 0;
}

static void stream_close_with_operations_in_flight_frees_all_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_close_busy, NULL), 0);
}

static int close_under_reader(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    net_pair(ends);
    struct flow in = {.stream = ends[0]};
    struct shoal_fiber *reader = net_spawn(read_once, &in);
    net_pause_ms(1);
    shoal_stream_close(ends[0]);
    return shoal_fiber_join(reader);
}

static int two_readers(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    net_pair(ends);
    struct flow in = {.stream = ends[0]};
    (void)net_spawn(read_once, &in);
    return shoal_fiber_join(net_spawn(read_once, &in));
}

static int run_one_core(void *arg)
{
    int (*fn)(void *) = *(int (**)(void *))arg;
    return shoal_test_run(1, fn, NULL);
}

static void stream_used_by_two_readers_or_closed_under_one_aborts(void **state)
{
    (void)state;
    int (*fn)(void *) = close_under_reader;
    shoal_test_aborts_with(run_one_core, &fn, "closed while a fiber waits");
    fn = two_readers;
    shoal_test_aborts_with(run_one_core, &fn, "two fibers use one side");
}

/* ---- Slices ---- */

static int write_small_slices(struct shoal_stream *stream, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        uint32_t len = i % 5; /* empty ones too */
        char *own = malloc(len + 1);
        net_fill(own, len, (uint64_t)i / 5 * 10 + (uint64_t)(i % 5) * (i % 5 - 1) / 2);
        rc = shoal_stream_write_slice(stream,
                                      shoal_slice_take_over(own, len, count_release, own, "test"));
    }
    return rc;
}

static int check_small_slices(void *arg)
{
    bool no_vector = arg != NULL;
    struct shoal_stream *ends[2];
    char text[2000];
    int rc;
    net_pair(ends);
    released = 0;
    SHOAL_EXPECT_INT(write_small_slices(ends[0], 1000), 0);
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    uint64_t limit = stats->limit_bytes;
    if (no_vector)
        stats->limit_bytes = stats->used_bytes; /* no vector is to be had: one by one, then */
    SHOAL_EXPECT_INT(shoal_stream_drain(ends[0]), 0);
    stats->limit_bytes = limit;
    SHOAL_EXPECT_INT(released, 1000);
    SHOAL_EXPECT_INT(net_read_rest(ends[1], text, sizeof(text), &rc), sizeof(text));
    SHOAL_EXPECT(net_is(text, sizeof(text), 0));
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    net_expect_clean();
    return 0;
}

static void stream_small_and_empty_slices_arrive_in_order_each_released_once(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_small_slices, NULL), 0);
    assert_int_equal(shoal_test_run(1, check_small_slices, (void *)1), 0);
}

/* ---- Out of memory ---- */

static int check_no_memory(void *arg)
{
    (void)arg;
    struct shoal_stream *ends[2];
    static char text[20000];
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    uint64_t limit = stats->limit_bytes;
    unsigned refused = 0;
    net_pair(ends);
    net_fill(text, sizeof(text), 0);
    for (uint64_t room = 0; room < 200000; room += 9973) {
        struct shoal_stream *pair[2];
        net_pair(pair);
        stats->limit_bytes = stats->used_bytes + room;
        int rc = 0;
        for (int i = 0; i < 3 && rc == 0; i++)
            rc = shoal_stream_write(pair[0], text, sizeof(text));
        stats->limit_bytes = limit;
        if (rc < 0) {
            refused++;
            SHOAL_EXPECT_INT(rc, -ENOMEM);
            /* After a hole nothing may follow. */
            SHOAL_EXPECT_INT(shoal_stream_write(pair[0], "x", 1), -ENOMEM);
            SHOAL_EXPECT_INT(shoal_stream_drain(pair[0]), -ENOMEM);
        } else {
            SHOAL_EXPECT_INT(shoal_stream_drain(pair[0]), 0);
        }
        shoal_stream_close(pair[0]);
        struct shoal_slice *slice;
        uint64_t got = 0;
        while (shoal_stream_read(pair[1], &slice) == 0) {
            for (uint32_t i = 0; i < slice->len; i++)
                if ((unsigned char)slice->data[i] != net_byte((got + i) % sizeof(text))) {
                    SHOAL_EXPECT_NEVER("a hole in the output");
                    break;
                }
            got += slice->len;
            shoal_slice_free(slice);
        }
        SHOAL_EXPECT(rc < 0 || got == 3 * sizeof(text));
        shoal_stream_close(pair[1]);
    }
    SHOAL_EXPECT(refused > 0);
    shoal_stream_close(ends[0]);
    shoal_stream_close(ends[1]);
    net_expect_clean();
    return 0;
}

static void stream_out_of_memory_fails_the_write_and_all_later_ones(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_no_memory, NULL), 0);
}

static int check_adopt_no_memory(void *arg)
{
    (void)arg;
    int fds[2];
    struct shoal_stream *stream;
    struct shoal_mem_stats *stats = &shoal_core_self->mem.stats;
    uint64_t limit = stats->limit_bytes;
    SHOAL_EXPECT_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    for (int round = 0; round < 2; round++) {
        stats->limit_bytes = stats->used_bytes;
        SHOAL_EXPECT_INT(shoal_stream_adopt(&stream, fds[0]), -ENOMEM);
        stats->limit_bytes = limit;
        SHOAL_EXPECT(fcntl(fds[0], F_GETFD) >= 0); /* still the caller's */
        SHOAL_EXPECT(shoal_net_self() != NULL);
    }
    SHOAL_EXPECT_INT(shoal_stream_adopt(&stream, fds[0]), 0);
    shoal_stream_close(stream);
    close(fds[1]);
    net_expect_clean();
    return 0;
}

static void stream_adopt_without_memory_leaves_the_descriptor(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_adopt_no_memory, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_64_mib_both_ways_at_once_arrive_bit_exact),
        cmocka_unit_test(stream_writer_to_nobody_who_reads_is_parked_and_goes_on),
        cmocka_unit_test(stream_read_or_write_cancelled_is_usable_after),
        cmocka_unit_test(stream_end_comes_after_the_data_and_leaves_the_other_way_open),
        cmocka_unit_test(stream_gathered_bytes_go_out_at_a_flush_or_the_next_wait),
        cmocka_unit_test(stream_close_with_operations_in_flight_frees_all_once),
        cmocka_unit_test(stream_used_by_two_readers_or_closed_under_one_aborts),
        cmocka_unit_test(stream_small_and_empty_slices_arrive_in_order_each_released_once),
        cmocka_unit_test(stream_out_of_memory_fails_the_write_and_all_later_ones),
        cmocka_unit_test(stream_adopt_without_memory_leaves_the_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
