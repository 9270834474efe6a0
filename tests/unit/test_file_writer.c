/*
 * Writing files in a row on both backends: contents against a model, late errors, bounds, cancels.
 */
/* backends: both */
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/mem.h"

#include "unit/file_check.h"

#define MODEL_BYTES (1u << 19)

static unsigned char model[MODEL_BYTES], piece[MODEL_BYTES];

static int check_model(struct shoal_file *file, uint64_t size)
{
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(file, &facts) == 0 && facts.size_bytes == size);
    HOLD(pread(file->fd, piece, MODEL_BYTES, 0) == (ssize_t)size);
    HOLD(memcmp(piece, model, size) == 0);
    return 0;
}

static int write_with(const struct shoal_file_writer_options *options, uint64_t flags)
{
    struct shoal_file file;
    struct shoal_file_writer *writer;
    uint64_t random = 23, size = 0, at = 0;
    memset(model, 0, sizeof(model));
    HOLD(open_for(&file, "written.bin", flags | O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, options) == 0);
    at = shoal_file_writer_tell(writer);
    for (int i = 0; i < 200; i++) {
        size_t len = shoal_test_random(&random) % (i % 20 == 0 ? 60000 : 3000);
        if (at + len > MODEL_BYTES)
            break;
        for (size_t k = 0; k < len; k++)
            model[at + k] = (unsigned char)shoal_test_random(&random);
        HOLD(shoal_file_writer_write(writer, model + at, len) == 0);
        at += len;
        HOLD(shoal_file_writer_tell(writer) == at);
        size = at > size ? at : size;
        if (i % 37 == 0) {
            HOLD(shoal_file_writer_flush(writer) == 0);
            HOLD(check_model(&file, size) == 0);
        }
        if (i % 50 == 49 && (options == NULL || !options->append)) {
            at = shoal_test_random(&random) % (size + 1000);
            HOLD(shoal_file_writer_seek(writer, at) == 0 && shoal_file_writer_written(writer) == 0);
        }
        if (i == 100)
            HOLD(shoal_file_writer_sync(writer) == 0);
    }
    HOLD(shoal_file_writer_flush(writer) == 0);
    HOLD(shoal_file_writer_close(writer) == 0);
    HOLD(check_model(&file, size) == 0);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static int write_fiber(void *arg)
{
    (void)arg;
    const struct shoal_file_writer_options one = {.buffers = 1, .buffer_bytes = 700};
    const struct shoal_file_writer_options odd = {
        .buffers = 7, .buffer_bytes = 3001, .offset_bytes = 77};
    const struct shoal_file_writer_options end = {.append = true, .buffer_bytes = 2000};
    HOLD(write_with(NULL, 0) == 0);
    HOLD(write_with(&one, 0) == 0);
    HOLD(write_with(&odd, 0) == 0);
    HOLD(write_with(&end, 0) == 0);
    HOLD(write_with(&end, O_APPEND) == 0);
    return 0;
}

static void writer_writes_what_it_was_given(void **state)
{
    (void)state;
    run_all_ways(write_fiber);
}

static int short_writes_fiber(void *arg)
{
    (void)arg;
    told.pwrite_most = 333;
    told.interruptions = 5;
    const struct shoal_file_writer_options one = {.buffers = 2, .buffer_bytes = 4000};
    return write_with(&one, 0);
}

static void writer_finishes_short_writes(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(short_writes_fiber);
    tell_nothing();
}

static int two_appenders_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *a, *b;
    const struct shoal_file_writer_options whole = {.append = true, .buffer_bytes = 1000};
    static char block[1000];
    HOLD(open_for(&file, "two.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writer_new(&a, &file, &whole) == 0);
    HOLD(shoal_file_writer_new(&b, &file, &whole) == 0);
    for (int i = 0; i < 40; i++) {
        memset(block, 'a' + i % 26, sizeof(block));
        HOLD(shoal_file_writer_write(a, block, sizeof(block)) == 0);
        memset(block, 'A' + i % 26, sizeof(block));
        HOLD(shoal_file_writer_write(b, block, sizeof(block)) == 0);
    }
    HOLD(shoal_file_writer_seek(a, 0) == -EINVAL);
    HOLD(shoal_file_writer_close(a) == 0 && shoal_file_writer_close(b) == 0);
    int lower = 0, upper = 0; /* each writer's blocks in its order, none torn */
    for (uint64_t i = 0; i < 80; i++) {
        HOLD(shoal_file_read_exact(&file, block, sizeof(block), i * sizeof(block)) == 0);
        for (size_t k = 1; k < sizeof(block); k++)
            HOLD(block[k] == block[0]);
        if (block[0] >= 'a')
            HOLD(block[0] == 'a' + lower++ % 26);
        else
            HOLD(block[0] == 'A' + upper++ % 26);
    }
    HOLD(lower == 40 && upper == 40);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_append_keeps_its_order(void **state)
{
    (void)state;
    run_all_ways(two_appenders_fiber);
}

/* ---- Late errors ---- */

static int full_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    static char block[20000];
    const struct shoal_file_writer_options options = {.buffer_bytes = 4096, .buffers = 2};
    HOLD(open_for(&file, "/dev/full", O_WRONLY) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    HOLD(shoal_file_writer_write(writer, "late", 4) == 0); /* gathered only */
    HOLD(shoal_file_writer_close(writer) == -ENOSPC);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    HOLD(shoal_file_writer_write(writer, "late", 4) == 0);
    HOLD(shoal_file_writer_flush(writer) == -ENOSPC);
    HOLD(shoal_file_writer_flush(writer) == -ENOSPC && shoal_file_writer_sync(writer) == -ENOSPC);
    HOLD(shoal_file_writer_seek(writer, 0) == -ENOSPC);
    HOLD(shoal_file_writer_write(writer, "x", 1) == -ENOSPC);
    HOLD(shoal_file_writer_written(writer) == 0);
    HOLD(shoal_file_writer_close(writer) == -ENOSPC);
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    int rc = 0; /* nobody waits for it: a later write brings the news */
    for (int i = 0; i < 1000 && rc == 0; i++) {
        rc = shoal_file_writer_write(writer, block, 1000);
        if (rc == 0 && i % 10 == 0)
            HOLD(shoal_yield() == 0);
    }
    HOLD(rc == -ENOSPC);
    HOLD(shoal_file_writer_close(writer) == -ENOSPC);
    HOLD(shoal_file_writer_close(NULL) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    HOLD(shoal_file_writer_write(writer, block, 5000) == 0);
    shoal_file_writer_discard(writer);
    shoal_file_writer_discard(NULL);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_late_error_is_told_by_every_later_call(void **state)
{
    (void)state;
    run_all_ways(full_fiber);
}

static int broken_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    static char block[64000];
    const struct shoal_file_writer_options options = {
        .buffer_bytes = 4096, .buffers = 4, .offset_bytes = 100};
    HOLD(open_for(&file, "broken.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    told.pwrite_errno = EIO;
    told.pwrite_fails_at = 15000;
    told.pwrite_most = 1000;
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    int rc = shoal_file_writer_write(writer, block, sizeof(block));
    HOLD(rc == -EIO);
    uint64_t written = shoal_file_writer_written(writer);
    HOLD(written <= 15000 - 100);
    HOLD(shoal_file_writer_flush(writer) == -EIO);
    written = shoal_file_writer_written(writer);
    HOLD(written == 3 * 4096); /* the fourth fails as a whole */
    HOLD(shoal_file_writer_close(writer) == -EIO);
    told.pwrite_errno = 0;
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    HOLD(shoal_file_writer_write(writer, block, sizeof(block)) == 0);
    HOLD(shoal_file_writer_flush(writer) == 0);
    HOLD(shoal_file_writer_written(writer) == sizeof(block));
    told.sync_errno = EIO;
    HOLD(shoal_file_writer_sync(writer) == -EIO);
    told.sync_errno = 0;
    HOLD(shoal_file_writer_sync(writer) == -EIO); /* the first error stays: what is lost is lost */
    HOLD(shoal_file_writer_written(writer) == 0);
    HOLD(shoal_file_writer_close(writer) == -EIO);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_error_in_the_middle_says_how_far_it_came(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(broken_fiber);
    tell_nothing();
}

/* The failure that counts is the first in the file, not the first in time. */
static int out_of_order_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    static char block[4 * 4096];
    const struct shoal_file_writer_options options = {.buffer_bytes = 4096, .buffers = 4};
    HOLD(open_for(&file, "order.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    told.pwrite_errno = EIO;
    told.hold_pwrite = true;
    told.held_byte = 0; /* the first is held, the others fail at once */
    (void)shoal_file_writer_write(writer, block, 3 * 4096);
    while (shoal_file_writer_write(writer, "", 0) == 0)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(shoal_file_writer_written(writer) == 0);
    sem_wait(&pwrite_entered);
    told.hold_pwrite = false;
    sem_post(&pwrite_go);
    HOLD(shoal_file_writer_flush(writer) == -EIO);
    HOLD(shoal_file_writer_written(writer) == 0);
    HOLD(shoal_file_writer_close(writer) == -EIO);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_errors_in_any_order_count_by_their_place(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(out_of_order_fiber);
    tell_nothing();
}

static int nothing_taken_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    HOLD(open_for(&file, "order.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    told.pwrite_errno = ENODATA; /* 0 bytes without a reason */
    HOLD(shoal_file_writer_write(writer, "x", 1) == 0);
    HOLD(shoal_file_writer_close(writer) == -EIO);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_whose_file_takes_nothing_says_so(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(nothing_taken_fiber);
    tell_nothing();
}

/* ---- Bounds and cancels ---- */

static int held_writer_fiber(void *arg)
{
    struct shoal_file_writer *writer = arg;
    static char block[100000];
    int rc = shoal_file_writer_write(writer, block, sizeof(block));
    HOLD(rc == -ECANCELED);
    HOLD(shoal_file_writer_flush(writer) == -ECANCELED);
    return 0;
}

static int bounded_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    struct shoal_fiber *fiber;
    struct shoal_mem_stats before, after;
    const struct shoal_file_writer_options options = {.buffer_bytes = 4096, .buffers = 3};
    HOLD(open_for(&file, "held.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    shoal_mem_stats(&before);
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    told.hold_pwrite = true;
    HOLD(shoal_fiber_spawn(&fiber, held_writer_fiber, writer, "held") == 0);
    for (int i = 0; i < 3; i++)
        while (sem_trywait(&pwrite_entered) != 0)
            HOLD(shoal_sleep_ns(100000) == 0);
    shoal_mem_stats(&after);
    HOLD(after.used_bytes - before.used_bytes < 3 * 4096 + 4096);
    HOLD(shoal_file_writer_tell(writer) == 3 * 4096); /* no more is taken */
    HOLD(told.pwrites == 3);
    shoal_fiber_cancel(fiber);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(shoal_file_writer_written(writer) == 0);
    told.hold_pwrite = false;
    for (int i = 0; i < 3; i++)
        sem_post(&pwrite_go);
    HOLD(shoal_file_writer_write(writer, "end", 3) == 0); /* as usable as before */
    HOLD(shoal_file_writer_close(writer) == 0);
    shoal_mem_stats(&after);
    HOLD(after.used_bytes == before.used_bytes);
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == 3 * 4096 + 3);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_takes_no_more_than_its_buffers(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(bounded_fiber);
    tell_nothing();
}

struct copy {
    struct shoal_file from;
    struct shoal_file to;
    uint64_t copied;
};

/* Copies until it is cancelled, and knows how much is on its way. */
static int copy_fiber(void *arg)
{
    struct copy *copy = arg;
    struct shoal_file_reader *reader;
    struct shoal_file_writer *writer;
    const struct shoal_file_reader_options in = {
        .offset_bytes = copy->copied, .buffer_bytes = 4096, .buffers = 3};
    const struct shoal_file_writer_options out = {
        .offset_bytes = copy->copied, .buffer_bytes = 2048, .buffers = 3};
    const void *data;
    int rc;
    HOLD(shoal_file_reader_new(&reader, &copy->from, &in) == 0);
    HOLD(shoal_file_writer_new(&writer, &copy->to, &out) == 0);
    while ((rc = shoal_file_reader_peek(reader, &data)) > 0) {
        HOLD(shoal_file_reader_tell(reader) == shoal_file_writer_tell(writer));
        uint64_t before = shoal_file_writer_tell(writer);
        int wrote = shoal_file_writer_write(writer, data, (size_t)rc);
        shoal_file_reader_consume(reader, shoal_file_writer_tell(writer) - before);
        if (wrote < 0) {
            rc = wrote;
            break;
        }
    }
    copy->copied = shoal_file_writer_tell(writer);
    shoal_file_reader_free(reader);
    HOLD(shoal_file_writer_close(writer) == 0);
    return rc;
}

static int cancels_fiber(void *arg)
{
    (void)arg;
    struct copy copy = {.copied = 0};
    uint64_t random = 31;
    int rc;
    HOLD(open_in(&copy.from, "big.bin") == 0);
    HOLD(open_for(&copy.to, "copy.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    int before = count_descriptors();
    struct shoal_mem_stats memory, after;
    shoal_mem_stats(&memory);
    for (int i = 0;; i++) {
        struct shoal_fiber *fiber;
        HOLD(shoal_fiber_spawn(&fiber, copy_fiber, &copy, "copy") == 0);
        if (i < 60 / SHOAL_TEST_SLOWDOWN) {
            for (uint64_t k = 0; k < shoal_test_random(&random) % 20; k++)
                HOLD(shoal_yield() == 0);
            if (i % 2 == 0)
                HOLD(shoal_sleep_ns(shoal_test_random(&random) % 1000000) == 0);
            shoal_fiber_cancel(fiber);
        }
        rc = shoal_fiber_join(fiber);
        HOLD(rc == 0 || rc == -ECANCELED);
        if (rc == 0)
            break;
    }
    shoal_mem_stats(&after);
    HOLD(after.used_bytes == memory.used_bytes && count_descriptors() == before);
    HOLD(copy.copied == BIG_BYTES);
    unsigned char *data = malloc(BIG_BYTES + 1);
    HOLD(data != NULL && shoal_file_read_exact(&copy.to, data, BIG_BYTES, 0) == 0);
    HOLD(is_big(data, BIG_BYTES, 0));
    free(data);
    HOLD(shoal_file_close(&copy.from) == 0 && shoal_file_close(&copy.to) == 0);
    return 0;
}

static void stream_cancelled_at_any_moment_loses_nothing(void **state)
{
    (void)state;
    run_all_ways(cancels_fiber);
}

static int discard_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_writer *writer;
    struct shoal_file_stat facts;
    static char block[3000];
    const struct shoal_file_writer_options append = {.buffer_bytes = 1000, .append = true};
    int tries = 0;
    HOLD(open_for(&file, "discarded.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    HOLD(shoal_file_writer_write(writer, "gone", 4) == 0);
    shoal_file_writer_discard(writer);
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == 0);
    do { /* two wait for the first, unless this fiber had to give way meanwhile */
        HOLD(shoal_file_truncate(&file, 0) == 0);
        HOLD(shoal_file_writer_new(&writer, &file, &append) == 0);
        HOLD(shoal_file_writer_write(writer, block, sizeof(block)) == 0);
        shoal_file_writer_discard(writer);
        HOLD(shoal_file_stat(&file, &facts) == 0);
    } while (facts.size_bytes > 1000 && tries++ < 100);
    HOLD(facts.size_bytes <= 1000);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void writer_discard_writes_nothing_more(void **state)
{
    (void)state;
    run_all_ways(discard_fiber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_writes_what_it_was_given),
        cmocka_unit_test(writer_finishes_short_writes),
        cmocka_unit_test(writer_append_keeps_its_order),
        cmocka_unit_test(writer_late_error_is_told_by_every_later_call),
        cmocka_unit_test(writer_error_in_the_middle_says_how_far_it_came),
        cmocka_unit_test(writer_errors_in_any_order_count_by_their_place),
        cmocka_unit_test(writer_whose_file_takes_nothing_says_so),
        cmocka_unit_test(writer_takes_no_more_than_its_buffers),
        cmocka_unit_test(stream_cancelled_at_any_moment_loses_nothing),
        cmocka_unit_test(writer_discard_writes_nothing_more),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
