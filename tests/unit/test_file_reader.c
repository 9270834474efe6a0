/*
 * Reading files in a row on both backends: contents, read-ahead, seeks, ends that move, errors.
 */
/* backends: both */
#include "shoal/runtime/errors.h"
#include "shoal/runtime/file_stream.h"

#include "unit/file_check.h"

static const struct shoal_file_reader_options small = {.buffer_bytes = 4096, .buffers = 3};

/* ---- Reading ---- */

static int whole_with(const struct shoal_file_reader_options *options)
{
    static unsigned char data[100000];
    struct shoal_file file;
    struct shoal_file_reader *reader;
    uint64_t at = 0, random = 3;
    HOLD(open_in(&file, "big.bin") == 0);
    HOLD(shoal_file_reader_new(&reader, &file, options) == 0);
    for (;;) {
        size_t len = shoal_test_random(&random) % (random % 16 == 0 ? sizeof(data) : 6000) + 1;
        int rc = shoal_file_reader_read(reader, data, len);
        HOLD(rc >= 0 && (size_t)rc <= len);
        if (rc == 0)
            break;
        HOLD(is_big(data, rc, at));
        at += (uint64_t)rc;
        HOLD(shoal_file_reader_tell(reader) == at);
    }
    HOLD(at == BIG_BYTES);
    HOLD(shoal_file_reader_read(reader, data, 1) == 0);
    HOLD(shoal_file_reader_read_exact(reader, data, 1) == SHOAL_EEOF);
    HOLD(shoal_file_reader_seek(reader, BIG_BYTES - 5) == 0);
    HOLD(shoal_file_reader_read_exact(reader, data, 5) == 0 && is_big(data, 5, BIG_BYTES - 5));
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static int whole_fiber(void *arg)
{
    (void)arg;
    const struct shoal_file_reader_options one = {.buffers = 1};
    const struct shoal_file_reader_options odd = {.buffer_bytes = 5001, .buffers = 16};
    HOLD(whole_with(NULL) == 0);
    HOLD(whole_with(&small) == 0);
    if (SHOAL_TEST_SLOWDOWN > 1)
        return 0;
    HOLD(whole_with(&one) == 0);
    HOLD(whole_with(&odd) == 0);
    return 0;
}

static void reader_gives_the_whole_file(void **state)
{
    (void)state;
    run_all_ways(whole_fiber);
}

static int seek_fiber(void *arg)
{
    (void)arg;
    static unsigned char data[20000];
    struct shoal_file file;
    struct shoal_file_reader *reader;
    uint64_t random = 17;
    HOLD(open_in(&file, "big.bin") == 0);
    HOLD(shoal_file_reader_new(&reader, &file, &small) == 0);
    for (int i = 0; i < 400 / SHOAL_TEST_SLOWDOWN; i++) {
        uint64_t at = shoal_file_reader_tell(reader);
        switch (shoal_test_random(&random) % 4) {
        case 0:
            at = shoal_test_random(&random) % (BIG_BYTES + 5000);
            break;
        case 1:
            at += shoal_test_random(&random) % 15000;
            break;
        case 2:
            at -= at < 3000 ? at : shoal_test_random(&random) % 3000;
            break;
        default:
            break;
        }
        HOLD(shoal_file_reader_seek(reader, at) == 0 && shoal_file_reader_tell(reader) == at);
        size_t len = shoal_test_random(&random) % sizeof(data) + 1;
        size_t there = at < BIG_BYTES ? BIG_BYTES - at : 0;
        int rc = shoal_file_reader_read_exact(reader, data, len);
        HOLD(rc == (len <= there ? 0 : SHOAL_EEOF));
        HOLD(is_big(data, (int)(len < there ? len : there), at));
    }
    HOLD(shoal_file_reader_seek(reader, (uint64_t)INT64_MAX + 1) == -EINVAL);
    HOLD(shoal_file_reader_seek(reader, INT64_MAX) == 0);
    HOLD(shoal_file_reader_read(reader, data, 1) == 0);
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void reader_seek_goes_on_there(void **state)
{
    (void)state;
    run_all_ways(seek_fiber);
}

static int peek_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_reader *reader;
    const struct shoal_file_reader_options part = {
        .offset_bytes = 1000, .end_bytes = 50000, .buffer_bytes = 4096, .buffers = 2};
    const void *data;
    uint64_t at = 1000;
    int rc;
    HOLD(open_in(&file, "big.bin") == 0);
    HOLD(shoal_file_reader_new(&reader, &file, &part) == 0);
    while ((rc = shoal_file_reader_peek(reader, &data)) > 0) {
        HOLD(is_big(data, rc, at));
        HOLD(shoal_file_reader_peek(reader, &data) == rc && is_big(data, rc, at));
        size_t bytes = rc > 1000 ? (size_t)rc / 2 : (size_t)rc;
        shoal_file_reader_consume(reader, bytes);
        at += bytes;
        HOLD(at <= 50000);
    }
    HOLD(rc == 0 && at == 50000);
    shoal_file_reader_consume(reader, 0);
    shoal_file_reader_free(reader);
    shoal_file_reader_free(NULL);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void reader_peek_shows_until_the_end_asked_for(void **state)
{
    (void)state;
    run_all_ways(peek_fiber);
}

static int proc_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_reader *reader;
    char text[6] = "";
    HOLD(open_for(&file, "/proc/self/status", O_RDONLY) == 0);
    HOLD(shoal_file_reader_new(&reader, &file, NULL) == 0);
    HOLD(shoal_file_reader_read_exact(reader, text, 5) == 0 && strcmp(text, "Name:") == 0);
    int rc;
    while ((rc = shoal_file_reader_read(reader, text, sizeof(text))) > 0)
        ;
    HOLD(rc == 0);
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void reader_of_a_file_without_size_reads_it(void **state)
{
    (void)state;
    run_all_ways(proc_fiber);
}

static int moving_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_reader *reader;
    static char block[40000], back[40000];
    memset(block, 'a', sizeof(block));
    HOLD(open_for(&file, "moving.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_reader_new(&reader, &file, &small) == 0);
    HOLD(shoal_file_reader_read(reader, back, 1) == 0);
    HOLD(shoal_file_write_all(&file, block, 5000, 0) == 0); /* it grows behind its end */
    HOLD(shoal_file_reader_read_exact(reader, back, 5000) == 0);
    HOLD(shoal_file_reader_read(reader, back, 1) == 0);
    HOLD(shoal_file_write_all(&file, block, sizeof(block), 5000) == 0);
    HOLD(shoal_file_reader_read_exact(reader, back, 6000) == 0);
    HOLD(memcmp(back, block, 6000) == 0);
    HOLD(shoal_file_truncate(&file, 12000) == 0); /* it shrinks under what was read ahead */
    uint64_t got = 11000;
    int rc;
    while ((rc = shoal_file_reader_read(reader, back, 700)) > 0)
        got += (uint64_t)rc;
    HOLD(rc == 0 && got >= 12000 && got <= 45000);
    HOLD(shoal_file_truncate(&file, 0) == 0);
    HOLD(shoal_file_reader_seek(reader, 100) == 0 && shoal_file_reader_read(reader, back, 1) == 0);
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void reader_end_of_a_file_that_moves_is_looked_at_anew(void **state)
{
    (void)state;
    run_all_ways(moving_fiber);
}

static int read_error_fiber(void *arg)
{
    (void)arg;
    static unsigned char data[70000];
    struct shoal_file file;
    struct shoal_file_reader *reader;
    HOLD(open_in(&file, "big.bin") == 0);
    HOLD(shoal_file_reader_new(&reader, &file, &small) == 0);
    told.pread_errno = EIO;
    told.pread_fails_at = 30000;
    told.pread_most = 1500;
    uint64_t at = 0;
    int rc;
    while ((rc = shoal_file_reader_read(reader, data, 1000)) > 0) {
        HOLD(is_big(data, rc, at));
        at += (uint64_t)rc;
    }
    HOLD(rc == -EIO && at <= 30000 && at >= 30000 - 1500); /* what comes before was delivered */
    HOLD(shoal_file_reader_tell(reader) == at);
    HOLD(shoal_file_reader_read(reader, data, 1000) == -EIO);
    told.pread_most = 1000;
    HOLD(shoal_file_reader_seek(reader, 28671) == 0);
    HOLD(shoal_file_reader_read(reader, data, 1) == 1);
    HOLD(shoal_file_reader_seek(reader, 30001) == 0); /* past the place, which the slot holds */
    HOLD(shoal_file_reader_read(reader, data, 1) == 1 && is_big(data, 1, 30001));
    HOLD(shoal_file_reader_seek(reader, at) == 0);
    told.pread_errno = 0;
    HOLD(shoal_file_reader_read_exact(reader, data, sizeof(data)) == 0);
    HOLD(is_big(data, sizeof(data), at));
    told.pread_errno = 0;
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static bool preads_come_to(int count)
{
    while (told.preads < count)
        if (shoal_sleep_ns(100000) < 0)
            return false;
    for (int i = 0; i < 20; i++)
        if (shoal_sleep_ns(100000) < 0)
            return false;
    return told.preads == count;
}

/* As with O_DIRECT, of a file that asks for no alignment. */
static void be_direct(struct shoal_file *file)
{
    file->direct = true;
    file->cached_read = false;
    told.dio_told = true;
    told.dio_known = true;
    told.dio_memory = 16;
    told.dio_offset = 1;
}

static int ahead_fiber(void *arg)
{
    (void)arg;
    unsigned char data[4096];
    struct shoal_file file;
    struct shoal_file_reader *reader;
    HOLD(open_in(&file, "big.bin") == 0);
    be_direct(&file);
    told.pread_most = 1500;
    HOLD(shoal_file_reader_new(&reader, &file, &small) == 0);
    HOLD(shoal_sleep_ns(1000000) == 0 && told.preads == 0); /* nothing was asked for yet */
    HOLD(shoal_file_reader_read(reader, data, 1) == 1);
    HOLD(preads_come_to(9)); /* 3 buffers of 4096 bytes in reads of 1500, and no further */
    HOLD(shoal_file_reader_read_exact(reader, data, 4095) == 0 && is_big(data, 4095, 1));
    HOLD(shoal_file_reader_read(reader, data, 1) == 1);
    HOLD(preads_come_to(12));
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

/* It was cut and grew again while it was read: slots that were read behind the cut have no gap. */
static int gap_fiber(void *arg)
{
    (void)arg;
    static unsigned char data[50000];
    static const long ends[] = {4096, 5000, 8191, 8192, 12287};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(ends); i++) {
        struct shoal_file file;
        struct shoal_file_reader *reader;
        HOLD(open_in(&file, "big.bin") == 0);
        be_direct(&file);
        told.pread_ends_at = ends[i];
        HOLD(shoal_file_reader_new(&reader, &file, &small) == 0);
        HOLD(shoal_file_reader_read_exact(reader, data, sizeof(data)) == 0);
        HOLD(is_big(data, sizeof(data), 0) && told.pread_ends_at == -1);
        HOLD(shoal_file_reader_seek(reader, 0) == 0);
        told.pread_ends_at = ends[i];
        HOLD(shoal_file_reader_read(reader, data, 10) == 10);
        HOLD(shoal_file_reader_seek(reader, (uint64_t)ends[i] + 50) == 0);
        HOLD(shoal_file_reader_read_exact(reader, data, 10000) == 0);
        HOLD(is_big(data, 10000, (uint64_t)ends[i] + 50));
        shoal_file_reader_free(reader);
        HOLD(shoal_file_close(&file) == 0);
        tell_nothing();
    }
    return 0;
}

static void reader_of_a_file_that_was_cut_and_grew_has_no_gap(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(gap_fiber);
}

static void reader_reads_ahead_as_far_as_its_buffers(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(ahead_fiber);
    tell_nothing();
}

static void reader_error_comes_at_its_place_and_is_tried_again(void **state)
{
    (void)state;
    tell_nothing_is_cached();
    run_on_threads(read_error_fiber);
    tell_nothing();
}

static int bad_reader_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_reader *reader;
    struct shoal_file_writer *writer;
    struct shoal_file_reader_options options = {.buffer_bytes = 511};
    char text[4];
    HOLD(open_in(&file, "big.bin") == 0);
    HOLD(shoal_file_reader_new(&reader, &file, &options) == -EINVAL && reader == NULL);
    options.buffer_bytes = SHOAL_FILE_STREAM_BUFFER_BYTES_MAX + 1;
    HOLD(shoal_file_reader_new(&reader, &file, &options) == -EINVAL);
    options = (struct shoal_file_reader_options){.buffers = SHOAL_FILE_STREAM_BUFFERS_MAX + 1};
    HOLD(shoal_file_reader_new(&reader, &file, &options) == -EINVAL);
    options = (struct shoal_file_reader_options){.offset_bytes = UINT64_MAX};
    HOLD(shoal_file_reader_new(&reader, &file, &options) == -EINVAL);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    HOLD(shoal_file_writer_write(writer, "x", 1) == 0); /* not open for writing: told late */
    HOLD(shoal_file_writer_close(writer) == -EBADF);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(shoal_file_reader_new(&reader, &file, NULL) == -EBADF);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == -EBADF && writer == NULL);
    HOLD(open_for(&file, "sub", O_RDONLY | O_DIRECTORY) == 0);
    HOLD(shoal_file_reader_new(&reader, &file, NULL) == 0);
    HOLD(shoal_file_reader_read(reader, text, 1) == -EISDIR);
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(open_for(&file, "fifo", O_RDWR) == 0);
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == -ESPIPE);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void stream_of_what_it_cannot_be_is_refused(void **state)
{
    (void)state;
    run_all_ways(bad_reader_fiber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reader_gives_the_whole_file),
        cmocka_unit_test(reader_seek_goes_on_there),
        cmocka_unit_test(reader_peek_shows_until_the_end_asked_for),
        cmocka_unit_test(reader_of_a_file_without_size_reads_it),
        cmocka_unit_test(reader_end_of_a_file_that_moves_is_looked_at_anew),
        cmocka_unit_test(reader_reads_ahead_as_far_as_its_buffers),
        cmocka_unit_test(reader_of_a_file_that_was_cut_and_grew_has_no_gap),
        cmocka_unit_test(reader_error_comes_at_its_place_and_is_tried_again),
        cmocka_unit_test(stream_of_what_it_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
