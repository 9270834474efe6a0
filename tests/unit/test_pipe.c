/*
 * The pipe: bytes, back-pressure, both ends' closes, waits that end early.
 */
/* backends: both */
#include "shoal/runtime/mutex.h"
#include "shoal/runtime/pipe.h"

#include "unit/sync_check.h"

static struct shoal_pipe stream;

static void begin(size_t capacity)
{
    sync_clock_begin();
    SHOAL_EXPECT_INT(shoal_pipe_init(&stream, capacity), 0);
}

static void end(void)
{
    SHOAL_EXPECT_INT(sync_waiters(), 0);
    shoal_pipe_deinit(&stream);
    sync_clock_end();
}

struct transfer {
    const char *data;
    char buffer[16];
    size_t bytes;
    uint64_t timeout_ns;
};

static int write_some(void *arg)
{
    struct transfer *transfer = arg;
    return (int)shoal_pipe_write(&stream, transfer->data, transfer->bytes, transfer->timeout_ns);
}

static int read_some(void *arg)
{
    struct transfer *transfer = arg;
    return (int)shoal_pipe_read(&stream, transfer->buffer, transfer->bytes, transfer->timeout_ns);
}

static struct shoal_fiber *waiting(shoal_fiber_fn *fn, struct transfer *transfer)
{
    struct shoal_fiber *fiber = sync_spawn(fn, transfer);
    sync_settle();
    SHOAL_EXPECT(!sync_done(fiber));
    return fiber;
}

static void expect_read(size_t bytes, const char *expected)
{
    char buffer[32] = "";
    SHOAL_EXPECT_INT(shoal_pipe_try_read(&stream, buffer, bytes), strlen(expected));
    SHOAL_EXPECT(memcmp(buffer, expected, strlen(expected)) == 0);
}

static int check_bytes(void *arg)
{
    (void)arg;
    begin(5);
    char buffer[8];
    SHOAL_EXPECT_INT(shoal_pipe_try_read(&stream, buffer, 8), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_pipe_read(&stream, buffer, 8, 0), -ETIMEDOUT);
    SHOAL_EXPECT_INT(shoal_pipe_read(&stream, buffer, 0, FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "abc", 3, FOREVER), 3);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "", 0, FOREVER), 0);
    SHOAL_EXPECT_INT(shoal_pipe_length(&stream), 3);
    expect_read(2, "ab");
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "defgh", 5), 4); /* over the ring's end */
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "h", 1), -EAGAIN);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "h", 1, 0), -ETIMEDOUT);
    expect_read(8, "cdefg");
    /* A write that is larger than the ring goes through it piece by piece, and is not torn. */
    struct transfer large = {.data = "0123456789ab", .bytes = 12, .timeout_ns = FOREVER};
    struct transfer other = {.data = "XY", .bytes = 2, .timeout_ns = FOREVER};
    struct shoal_fiber *first = waiting(write_some, &large);
    struct shoal_fiber *second = waiting(write_some, &other);
    expect_read(3, "012");
    expect_read(4, "3456");
    expect_read(5, "789ab");
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 12);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 2);
    expect_read(5, "XY");
    /* Readers in line get what comes, in order. */
    struct transfer one = {.bytes = 2, .timeout_ns = FOREVER};
    struct transfer two = {.bytes = 16, .timeout_ns = FOREVER};
    first = waiting(read_some, &one);
    second = waiting(read_some, &two);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "pqrs", 4, FOREVER), 4);
    SHOAL_EXPECT_INT(shoal_fiber_join(first), 2);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), 2);
    SHOAL_EXPECT(memcmp(one.buffer, "pq", 2) == 0 && memcmp(two.buffer, "rs", 2) == 0);
    SHOAL_EXPECT_INT(shoal_pipe_length(&stream), 0);
    struct shoal_pipe none;
    SHOAL_EXPECT_INT(shoal_pipe_init(&none, 0), -EINVAL);
    end();
    return 0;
}

static void pipe_passes_bytes_in_order_within_its_buffer(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_bytes, NULL), 0);
}

static int check_early(void *arg)
{
    (void)arg;
    begin(4);
    struct transfer large = {.data = "abcdefgh", .bytes = 8, .timeout_ns = 2 * TICK};
    struct shoal_fiber *fiber = waiting(write_some, &large);
    expect_read(2, "ab");
    sync_pass(2 * TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 6); /* two left the ring, four are in it */
    expect_read(8, "cdef");
    large.timeout_ns = FOREVER;
    fiber = waiting(write_some, &large);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 4);
    fiber = waiting(write_some, &large);
    shoal_fiber_cancel(fiber); /* nothing was written */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    expect_read(8, "abcd");
    struct transfer reader = {.bytes = 8, .timeout_ns = TICK};
    fiber = waiting(read_some, &reader);
    sync_pass(TICK);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ETIMEDOUT);
    reader.timeout_ns = FOREVER;
    fiber = waiting(read_some, &reader);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "x", 1), 1);
    shoal_fiber_cancel(fiber); /* it has the byte */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 1);
    fiber = waiting(read_some, &reader);
    shoal_fiber_cancel(fiber);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "y", 1), 1);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    expect_read(8, "y");
    end();
    return 0;
}

static void pipe_wait_that_ends_early_loses_no_byte(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_early, NULL), 0);
}

static int check_futures(void *arg)
{
    (void)arg;
    begin(2);
    struct shoal_future *readable = shoal_pipe_readable_future(&stream, FOREVER);
    struct transfer reader = {.bytes = 1, .timeout_ns = FOREVER};
    SHOAL_EXPECT_INT(sync_await(shoal_pipe_writable_future(&stream, 0)), 0);
    struct shoal_fiber *fiber = waiting(read_some, &reader);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "ab", 2), 2);
    SHOAL_EXPECT_INT(sync_await(readable), 0); /* takes nothing: the fiber behind it has read */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 1);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "c", 1), 1);
    SHOAL_EXPECT_INT(sync_await(shoal_pipe_readable_future(&stream, 0)), 0);
    struct shoal_future *writable = shoal_pipe_writable_future(&stream, FOREVER);
    struct shoal_future *late = shoal_pipe_writable_future(&stream, TICK);
    struct shoal_future *cancelled = shoal_pipe_writable_future(&stream, FOREVER);
    sync_pass(TICK);
    shoal_future_cancel(cancelled);
    SHOAL_EXPECT_INT(sync_await(late), -ETIMEDOUT);
    SHOAL_EXPECT_INT(sync_await(cancelled), -ECANCELED);
    SHOAL_EXPECT(shoal_future_is_pending(writable));
    expect_read(1, "b");
    SHOAL_EXPECT_INT(sync_await(writable), 0);
    expect_read(1, "c");
    readable = shoal_pipe_readable_future(&stream, FOREVER);
    shoal_pipe_close_write(&stream, 0);
    SHOAL_EXPECT_INT(sync_await(readable), 0); /* the end is something to read */
    SHOAL_EXPECT_INT(sync_await(shoal_pipe_readable_future(&stream, 0)), 0);
    SHOAL_EXPECT_INT(sync_await(shoal_pipe_writable_future(&stream, 0)), 0);
    end();
    return 0;
}

static void pipe_futures_tell_and_take_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_futures, NULL), 0);
}

static int check_close(void *arg)
{
    (void)arg;
    char buffer[4];
    begin(2); /* the writer ends it: after what it wrote */
    struct transfer more = {.data = "abcd", .bytes = 4, .timeout_ns = FOREVER};
    struct shoal_fiber *fiber = waiting(write_some, &more);
    shoal_pipe_close_write(&stream, -EIO);
    shoal_pipe_close_write(&stream, 0); /* only the first counts */
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 2);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "x", 1, FOREVER), -EPIPE);
    SHOAL_EXPECT_INT(shoal_pipe_try_write(&stream, "x", 1), -EPIPE);
    expect_read(4, "ab");
    SHOAL_EXPECT_INT(shoal_pipe_read(&stream, buffer, 4, FOREVER), -EIO);
    SHOAL_EXPECT_INT(shoal_pipe_try_read(&stream, buffer, 4), -EIO);
    end();
    begin(2);
    struct transfer reader = {.bytes = 2, .timeout_ns = FOREVER};
    fiber = waiting(read_some, &reader);
    shoal_pipe_close_write(&stream, 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), SHOAL_EEOF);
    end();
    begin(2); /* the reader ends it: at once */
    fiber = waiting(write_some, &more);
    struct shoal_fiber *second = waiting(write_some, &more);
    shoal_pipe_close_read(&stream, -ECONNRESET);
    shoal_pipe_close_read(&stream, 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 2);
    SHOAL_EXPECT_INT(shoal_fiber_join(second), -ECONNRESET);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "x", 1, FOREVER), -ECONNRESET);
    SHOAL_EXPECT_INT(shoal_pipe_length(&stream), 0);
    SHOAL_EXPECT_INT(shoal_pipe_read(&stream, buffer, 4, FOREVER), -EPIPE);
    end();
    begin(2);
    fiber = waiting(read_some, &reader);
    shoal_pipe_close_read(&stream, 0);
    SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -EPIPE);
    SHOAL_EXPECT_INT(shoal_pipe_write(&stream, "x", 1, FOREVER), -EPIPE);
    end();
    return 0;
}

static void pipe_close_reaches_the_other_side(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_close, NULL), 0);
}

/* ---- Stress: one writer and one reader at a time see the same sequence of bytes ---- */

struct world {
    uint64_t written;
    uint64_t read;
    struct shoal_mutex *writing;
    struct shoal_mutex *reading;
};

static unsigned char byte_at(uint64_t index)
{
    return (unsigned char)(index * 7 + index / 251);
}

static void check_world(void *arg)
{
    const struct world *world = arg;
    SHOAL_EXPECT(world->read <= world->written + 64);
    SHOAL_EXPECT(stream.readers.count == 0 || stream.used == 0);
    SHOAL_EXPECT(stream.writers.count == 0 || stream.used == stream.capacity);
}

static void step_write(struct sync_actor *actor, struct world *world)
{
    unsigned char data[40];
    size_t bytes = 1 + sync_random(actor, sizeof(data));
    if (shoal_mutex_lock(world->writing, FOREVER) < 0)
        return;
    for (size_t i = 0; i < bytes; i++)
        data[i] = byte_at(world->written + i);
    ssize_t count = sync_random(actor, 3) == 0
                        ? shoal_pipe_try_write(&stream, data, bytes)
                        : shoal_pipe_write(&stream, data, bytes, sync_random_timeout(actor));
    if (count > 0)
        world->written += (uint64_t)count;
    else
        SHOAL_EXPECT(count == -EAGAIN || sync_early((int)count));
    shoal_mutex_unlock(world->writing);
}

static void check_bytes_read(struct world *world, const unsigned char *data, ssize_t count)
{
    for (ssize_t i = 0; i < count; i++)
        SHOAL_EXPECT(data[i] == byte_at(world->read++));
}

static void step_read(struct sync_actor *actor, struct world *world)
{
    unsigned char data[40];
    size_t bytes = 1 + sync_random(actor, sizeof(data));
    if (shoal_mutex_lock(world->reading, FOREVER) < 0)
        return;
    ssize_t count = sync_random(actor, 3) == 0
                        ? shoal_pipe_try_read(&stream, data, bytes)
                        : shoal_pipe_read(&stream, data, bytes, sync_random_timeout(actor));
    check_bytes_read(world, data, count);
    SHOAL_EXPECT(count > 0 || count == -EAGAIN || sync_early((int)count));
    shoal_mutex_unlock(world->reading);
}

static void step(struct sync_actor *actor, void *arg)
{
    if (actor->number % 2 == 0)
        step_write(actor, arg);
    else
        step_read(actor, arg);
}

static void end_round(void *arg)
{
    struct world *world = arg;
    unsigned char data[64];
    ssize_t count;
    while ((count = shoal_pipe_try_read(&stream, data, sizeof(data))) > 0)
        check_bytes_read(world, data, count);
    SHOAL_EXPECT_INT(world->read, world->written);
}

static int check_stress(void *arg)
{
    (void)arg;
    struct shoal_mutex writing, reading;
    struct world world = {.writing = &writing, .reading = &reading};
    const struct sync_stress stress = {.rounds = 150,
                                       .actors = 8,
                                       .steps = 20,
                                       .step = step,
                                       .check = check_world,
                                       .round_end = end_round,
                                       .arg = &world};
    shoal_mutex_init(&writing);
    shoal_mutex_init(&reading);
    SHOAL_EXPECT_INT(shoal_pipe_init(&stream, 13), 0);
    sync_stress_run(&stress);
    SHOAL_EXPECT(world.read > 1000);
    shoal_pipe_deinit(&stream);
    shoal_mutex_deinit(&writing);
    shoal_mutex_deinit(&reading);
    return 0;
}

static void pipe_bytes_arrive_once_and_in_order_under_stress(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, check_stress, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipe_passes_bytes_in_order_within_its_buffer),
        cmocka_unit_test(pipe_wait_that_ends_early_loses_no_byte),
        cmocka_unit_test(pipe_futures_tell_and_take_nothing),
        cmocka_unit_test(pipe_close_reaches_the_other_side),
        cmocka_unit_test(pipe_bytes_arrive_once_and_in_order_under_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
