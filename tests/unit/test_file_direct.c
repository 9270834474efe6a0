/*
 * Direct I/O on both backends: what alignment is asked for, what is said when it is not kept, and
 * streams at any offset. What needs O_DIRECT ends early on a file system without it.
 */
/* backends: both */
#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/future.h"

#include "unit/file_check.h"

/* 0, or -EINVAL where the file system has no O_DIRECT. */
static int open_direct(struct shoal_file *out, const char *path, uint64_t flags)
{
    return open_for(out, path, flags | O_DIRECT);
}

static int aligned_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_alignment need;
    int rc = open_direct(&file, "direct.bin", O_RDWR | O_CREAT | O_TRUNC);
    if (rc == -EINVAL)
        return 0;
    HOLD(rc == 0 && shoal_file_alignment(&file, &need) == 0);
    HOLD(need.memory_bytes > 0 && need.offset_bytes > 0);
    unsigned char *data = shoal_file_buffer_new(&need, 40000);
    HOLD(data != NULL && (uintptr_t)data % need.memory_bytes == 0);
    size_t len = 9 * (size_t)need.offset_bytes;
    HOLD(len <= 40000);
    for (size_t i = 0; i < len; i++)
        data[i] = big_byte(i);
    HOLD(shoal_file_write_all(&file, data, len, need.offset_bytes) == 0);
    memset(data, 0, len);
    HOLD(shoal_file_read_exact(&file, data, len, need.offset_bytes) == 0);
    HOLD(is_big(data, (int)len, 0));
    struct iovec vecs[2] = {{data, need.offset_bytes}, {data + len / 3, 2 * need.offset_bytes}};
    HOLD(shoal_file_readv(&file, vecs, 2, 0) == 3 * (int)need.offset_bytes);
    HOLD(is_big(data + len / 3, (int)need.offset_bytes * 2, 0));
    HOLD(shoal_file_read(&file, data, len, len + need.offset_bytes) == 0);
    shoal_file_buffer_free(&need, data, 40000);
    shoal_file_buffer_free(&need, NULL, 40000);
    HOLD(shoal_file_buffer_new(&need, SIZE_MAX) == NULL);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(shoal_file_alignment(&file, &need) == -EBADF);
    return 0;
}

static void direct_aligned_reads_and_writes_work(void **state)
{
    (void)state;
    run_all_ways(aligned_fiber);
}

static int misaligned_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_alignment need;
    char text[100];
    int rc = open_direct(&file, "big.bin", O_RDWR);
    if (rc == -EINVAL)
        return 0;
    HOLD(rc == 0 && shoal_file_alignment(&file, &need) == 0);
    char *data = shoal_file_buffer_new(&need, 8192);
    HOLD(data != NULL);
    rc = shoal_file_read(&file, data, 8192, 100);
    if (rc >= 0)
        goto end; /* this one does not mind */
    HOLD(rc == -EINVAL);
    (void)snprintf(text, sizeof(text), "direct read: the offset 100 is no multiple of %u",
                   need.offset_bytes);
    HOLD(strcmp(shoal_error_message(), text) == 0);
    HOLD(shoal_file_write(&file, data, 700, 0) == -EINVAL);
    (void)snprintf(text, sizeof(text), "direct write: the length 700 is no multiple of %u",
                   need.offset_bytes);
    HOLD(strcmp(shoal_error_message(), text) == 0);
    struct iovec vecs[2] = {{data, 4096}, {data + 4096, 33}};
    HOLD(shoal_file_readv(&file, vecs, 2, 0) == -EINVAL);
    HOLD(strstr(shoal_error_message(), "the length 33 ") != NULL);
    HOLD(shoal_file_writev(&file, vecs, 2, 4096) == -EINVAL);
    HOLD(strstr(shoal_error_message(), "direct write: the length 33 ") != NULL);
end:
    shoal_file_buffer_free(&need, data, 8192);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void direct_misaligned_is_refused_with_a_text(void **state)
{
    (void)state;
    run_all_ways(misaligned_fiber);
}

static int told_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_file_alignment need;
    struct shoal_file_reader *reader;
    HOLD(open_in(&file, "hello.txt") == 0);
    file.direct = true;
    told.dio_told = true;
    told.dio_known = true;
    told.dio_memory = 64;
    told.dio_offset = 2048;
    HOLD(shoal_file_alignment(&file, &need) == 0 && need.known);
    HOLD(need.memory_bytes == 64 && need.offset_bytes == 2048);
    char *data = shoal_file_buffer_new(&need, 5);
    HOLD(data != NULL && (uintptr_t)data % 64 == 0);
    memset(data, 0, 2048); /* rounded up */
    shoal_file_buffer_free(&need, data, 5);
    told.pread_errno = EINVAL;
    uint32_t native = shoal_core_self->io.native;
    shoal_core_self->io.native = 0;
    file.cached_read = false;
    char block[2049] __attribute__((aligned(64)));
    HOLD(shoal_file_read(&file, block + 1, 2048, 0) == -EINVAL);
    HOLD(strstr(shoal_error_message(), "is not aligned to 64 bytes") != NULL);
    told.dio_offset = 0; /* the kernel: this file has no direct I/O */
    HOLD(shoal_file_alignment(&file, &need) == -EOPNOTSUPP);
    HOLD(shoal_file_reader_new(&reader, &file, NULL) == -EOPNOTSUPP);
    told.dio_offset = 48;
    HOLD(shoal_file_alignment(&file, &need) == 0 && !need.known && need.offset_bytes == 4096);
    told.dio_known = false; /* a kernel before 6.1 */
    told.dio_offset = 512;
    HOLD(shoal_file_alignment(&file, &need) == 0 && !need.known);
    HOLD(need.memory_bytes == 4096 && need.offset_bytes == 4096);
    HOLD(shoal_file_read(&file, block, 2048, 1024) == -EINVAL);
    HOLD(strstr(shoal_error_message(), "the offset 1024 is no multiple of 4096") != NULL);
    shoal_core_self->io.native = native;
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void direct_alignment_is_what_the_kernel_says_or_a_safe_guess(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, told_fiber, NULL), 0);
    tell_nothing();
}

/* ---- Streams ---- */

static int read_stream_fiber(void *arg)
{
    (void)arg;
    static unsigned char data[30000];
    struct shoal_file file;
    struct shoal_file_reader *reader;
    const struct shoal_file_reader_options options = {
        .offset_bytes = 1234567, .buffer_bytes = 5000, .buffers = 3};
    int rc = open_direct(&file, "big.bin", O_RDONLY);
    if (rc == -EINVAL)
        return 0;
    HOLD(rc == 0 && shoal_file_reader_new(&reader, &file, &options) == 0);
    uint64_t at = 1234567, random = 77;
    for (;;) {
        rc = shoal_file_reader_read(reader, data, shoal_test_random(&random) % 9000 + 1);
        HOLD(rc >= 0 && is_big(data, rc, at));
        at += (uint64_t)rc;
        if (rc == 0)
            break;
        if (shoal_test_random(&random) % 50 == 0) {
            at += shoal_test_random(&random) % 200000;
            at = at < BIG_BYTES ? at : BIG_BYTES;
            HOLD(shoal_file_reader_seek(reader, at) == 0);
        }
    }
    HOLD(at == BIG_BYTES && shoal_file_reader_read(reader, data, 1) == 0);
    HOLD(shoal_file_reader_seek(reader, BIG_BYTES - 3) == 0);
    HOLD(shoal_file_reader_read_exact(reader, data, 3) == 0 && is_big(data, 3, BIG_BYTES - 3));
    shoal_file_reader_free(reader);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void direct_reader_gives_the_file_at_any_offset(void **state)
{
    (void)state;
    run_all_ways(read_stream_fiber);
}

#define MODEL_BYTES 300000

static unsigned char model[MODEL_BYTES], back[MODEL_BYTES + 1];

static size_t writer_unit(const struct shoal_file *file)
{
    struct shoal_file_alignment need;
    return shoal_file_alignment(file, &need) == 0 ? need.offset_bytes : 512;
}

static int write_stream_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file, plain;
    struct shoal_file_writer *writer;
    const struct shoal_file_writer_options append = {.append = true};
    const struct shoal_file_writer_options options = {
        .offset_bytes = 333, .buffer_bytes = 4096, .buffers = 4};
    uint64_t random = 5, at = 333, size = 0;
    int rc = open_direct(&file, "direct_out.bin", O_RDWR | O_CREAT | O_TRUNC);
    if (rc == -EINVAL)
        return 0;
    memset(model, 0, sizeof(model));
    HOLD(rc == 0 && shoal_file_writer_new(&writer, &file, &append) == -EINVAL);
    HOLD(shoal_file_writer_new(&writer, &file, &options) == 0);
    memset(model + 333, 7, writer_unit(&file));
    HOLD(shoal_file_writer_write(writer, model + 333, writer_unit(&file)) == 0);
    HOLD(shoal_file_writer_flush(writer) == 0); /* a whole block at no multiple of blocks */
    at += writer_unit(&file);
    size = at;
    for (int i = 0; i < 300; i++) {
        size_t len = shoal_test_random(&random) % 3000;
        if (at + len > MODEL_BYTES)
            at = shoal_test_random(&random) % 1000;
        HOLD(at == shoal_file_writer_tell(writer) || shoal_file_writer_seek(writer, at) == 0);
        for (size_t k = 0; k < len; k++)
            model[at + k] = (unsigned char)shoal_test_random(&random);
        HOLD(shoal_file_writer_write(writer, model + at, len) == 0);
        at += len;
        size = at > size ? at : size;
        if (i % 41 == 40)
            HOLD(shoal_file_writer_flush(writer) == 0);
        if (i % 100 == 40)
            HOLD(shoal_file_writer_sync(writer) == 0);
    }
    HOLD(shoal_file_writer_close(writer) == 0);
    HOLD((fcntl(file.fd, F_GETFL) & O_DIRECT) != 0); /* as it was opened */
    HOLD(shoal_file_close(&file) == 0);
    HOLD(open_for(&plain, "direct_out.bin", O_RDONLY) == 0);
    HOLD(pread(plain.fd, back, sizeof(back), 0) == (ssize_t)size);
    HOLD(memcmp(back, model, size) == 0);
    HOLD(shoal_file_close(&plain) == 0);
    return 0;
}

static void direct_writer_writes_at_any_offset(void **state)
{
    (void)state;
    run_all_ways(write_stream_fiber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(direct_aligned_reads_and_writes_work),
        cmocka_unit_test(direct_misaligned_is_refused_with_a_text),
        cmocka_unit_test(direct_alignment_is_what_the_kernel_says_or_a_safe_guess),
        cmocka_unit_test(direct_reader_gives_the_file_at_any_offset),
        cmocka_unit_test(direct_writer_writes_at_any_offset),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
