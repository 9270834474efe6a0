/*
 * Writing files on both backends, with and without the ring's operations: contents against a model,
 * sizes, many writers, and refusals.
 */
/* backends: both */
#include <signal.h>

#include <sys/resource.h>

#include "shoal/runtime/errors.h"

#include "unit/file_check.h"

/* ---- Against a model ---- */

#define MODEL_BYTES (1u << 18)
#define STEPS       (600 / SHOAL_TEST_SLOWDOWN)

struct model {
    struct shoal_file file;
    unsigned char data[MODEL_BYTES];
    unsigned char scratch[MODEL_BYTES];
    uint64_t size;
    uint64_t random;
};

static uint64_t below(struct model *model, uint64_t limit)
{
    return shoal_test_random(&model->random) % limit;
}

static void scribble(struct model *model, size_t len)
{
    for (size_t i = 0; i < len; i++)
        model->scratch[i] = (unsigned char)shoal_test_random(&model->random);
}

/* `len` bytes of scratch are at `offset` now. */
static void note(struct model *model, uint64_t offset, size_t len)
{
    memcpy(model->data + offset, model->scratch, len);
    if (len > 0 && offset + len > model->size)
        model->size = offset + len;
}

static int step_write(struct model *model, uint64_t offset, size_t len)
{
    scribble(model, len);
    if (below(model, 2) == 0) {
        HOLD(shoal_file_write_all(&model->file, model->scratch, len, offset) == 0);
        note(model, offset, len);
        return 0;
    }
    int rc = shoal_file_write(&model->file, model->scratch, len, offset);
    HOLD(rc >= 0 && (size_t)rc <= len && (rc > 0 || len == 0));
    note(model, offset, (size_t)rc);
    return 0;
}

static int step_writev(struct model *model, uint64_t offset, size_t len)
{
    struct iovec vecs[5];
    size_t at = 0;
    scribble(model, len);
    for (int i = 0; i < 5; i++) {
        size_t piece = i == 4 ? len - at : below(model, len - at + 1);
        vecs[i] = (struct iovec){.iov_base = model->scratch + at, .iov_len = piece};
        at += piece;
    }
    int rc = shoal_file_writev(&model->file, vecs, 5, offset);
    HOLD(rc >= 0 && (size_t)rc <= len && (rc > 0 || len == 0));
    note(model, offset, (size_t)rc);
    return 0;
}

static int step_append(struct model *model, size_t len)
{
    if (model->size + len > MODEL_BYTES)
        return 0;
    scribble(model, len);
    int rc = shoal_file_append(&model->file, model->scratch, len);
    HOLD(rc >= 0 && (size_t)rc <= len);
    note(model, model->size, (size_t)rc);
    return 0;
}

static int step_read(struct model *model, uint64_t offset, size_t len)
{
    uint64_t there = offset < model->size ? model->size - offset : 0;
    size_t expected = len < there ? len : (size_t)there;
    memset(model->scratch, 0xee, len);
    int rc;
    if (below(model, 3) == 0) {
        rc = shoal_file_read_exact(&model->file, model->scratch, len, offset);
        HOLD(rc == (expected == len ? 0 : SHOAL_EEOF));
        HOLD(memcmp(model->scratch, model->data + offset, expected) == 0);
        return 0;
    }
    if (below(model, 2) == 0) {
        size_t cut = below(model, len + 1);
        struct iovec vecs[3] = {
            {model->scratch, cut}, {NULL, 0}, {model->scratch + cut, len - cut}};
        rc = shoal_file_readv(&model->file, vecs, 3, offset);
    } else {
        rc = shoal_file_read(&model->file, model->scratch, len, offset);
    }
    HOLD(rc >= 0 && (size_t)rc <= expected && (rc > 0 || expected == 0));
    HOLD(memcmp(model->scratch, model->data + offset, (size_t)rc) == 0);
    return 0;
}

static int step_size(struct model *model, uint64_t offset, size_t len)
{
    struct shoal_file_stat facts;
    int rc = 0;
    switch (below(model, 5)) {
    case 0:
        rc = shoal_file_truncate(&model->file, offset);
        if (offset < model->size)
            memset(model->data + offset, 0, MODEL_BYTES - offset);
        model->size = offset;
        break;
    case 1:
        rc = len > 0 ? shoal_file_allocate(&model->file, 0, offset, len) : 0;
        if (len > 0 && offset + len > model->size)
            model->size = offset + len;
        break;
    case 2:
        rc = len > 0 ? shoal_file_allocate(&model->file, SHOAL_FILE_PUNCH_HOLE, offset, len) : 0;
        memset(model->data + offset, 0, len);
        break;
    case 3:
        rc = len > 0 ? shoal_file_allocate(&model->file, SHOAL_FILE_KEEP_SIZE, offset, len) : 0;
        break;
    default:
        rc = shoal_file_sync_data(&model->file);
        break;
    }
    HOLD(rc == 0);
    HOLD(shoal_file_stat(&model->file, &facts) == 0 && facts.size_bytes == model->size);
    return 0;
}

static int model_fiber(void *arg)
{
    static struct model model;
    (void)arg;
    memset(&model, 0, sizeof(model));
    model.random = 4711;
    HOLD(open_for(&model.file, "model.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    for (int i = 0; i < STEPS; i++) {
        uint64_t offset = below(&model, MODEL_BYTES);
        size_t len = below(&model, below(&model, 8) == 0 ? MODEL_BYTES : 9000);
        if (len > MODEL_BYTES - offset)
            len = MODEL_BYTES - offset;
        int rc;
        switch (below(&model, 8)) {
        case 0:
        case 1:
            rc = step_write(&model, offset, len);
            break;
        case 2:
            rc = step_writev(&model, offset, len);
            break;
        case 3:
            rc = step_append(&model, len / 4);
            break;
        case 4:
            rc = step_size(&model, offset, len);
            break;
        default:
            rc = step_read(&model, offset, len);
            break;
        }
        HOLD(rc == 0);
    }
    HOLD(shoal_file_sync(&model.file) == 0);
    HOLD(pread(model.file.fd, model.scratch, MODEL_BYTES, 0) == (ssize_t)model.size);
    HOLD(memcmp(model.scratch, model.data, model.size) == 0);
    HOLD(shoal_file_close(&model.file) == 0);
    return 0;
}

static void file_write_random_operations_match_a_model(void **state)
{
    (void)state;
    run_all_ways(model_fiber);
}

static int each_kind_fiber(void *arg)
{
    (void)arg;
    uint32_t native = shoal_core_self->io.native;
    HOLD(on_epoll() ? native == 0 : (native & SHOAL_IO_BIT(SHOAL_IO_WRITE)) != 0);
    HOLD((native & SHOAL_IO_BIT(SHOAL_IO_SEND)) == 0);
    for (uint32_t kind = SHOAL_IO_READ; kind < SHOAL_IO_KINDS; kind++) {
        shoal_core_self->io.native = native & ~SHOAL_IO_BIT(kind);
        int rc = model_fiber(NULL);
        shoal_core_self->io.native = native;
        HOLD(rc == 0);
    }
    return 0;
}

static void file_write_works_without_any_one_operation_of_the_ring(void **state)
{
    (void)state;
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, each_kind_fiber, NULL), 0);
    tell_nothing();
}

/* ---- Sizes ---- */

static int big_write_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    unsigned char *data = malloc(BIG_BYTES);
    HOLD(data != NULL && open_for(&file, "copy.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    for (uint64_t i = 0; i < BIG_BYTES; i++)
        data[i] = big_byte(i);
    int rc = shoal_file_write(&file, data, BIG_BYTES, 5);
    HOLD(rc > 0 && rc <= (int)SHOAL_FILE_WRITE_MAX);
    HOLD(shoal_file_write_all(&file, data, BIG_BYTES, 0) == 0);
    memset(data, 0, BIG_BYTES);
    HOLD(shoal_file_read_exact(&file, data, BIG_BYTES, 0) == 0);
    HOLD(is_big(data, BIG_BYTES, 0));
    HOLD(shoal_file_read_exact(&file, data, BIG_BYTES + 1 - 100, 100) == SHOAL_EEOF);
    const uint64_t far = (UINT64_C(6) << 30) + 11;
    HOLD(shoal_file_write_all(&file, "far", 3, far) == 0);
    HOLD(shoal_file_writeback(&file, 0, far) == 0);
    HOLD(shoal_file_writeback(&file, far, 0) == 0);
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == far + 3);
    HOLD(facts.allocated_bytes < far && facts.links == 1 && facts.user == geteuid());
    char text[4] = "";
    HOLD(pread(file.fd, text, 3, (off_t)far) == 3 && strcmp(text, "far") == 0);
    HOLD(shoal_file_allocate(&file, SHOAL_FILE_PUNCH_HOLE, far - 4096, 8192) == 0);
    HOLD(shoal_file_read(&file, text, 3, far) == 3 && memcmp(text, "\0\0\0", 3) == 0);
    HOLD(shoal_file_truncate(&file, 7) == 0);
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == 7);
    HOLD(shoal_file_close(&file) == 0);
    free(data);
    return 0;
}

static void file_write_big_and_far_offsets_count_all_bits(void **state)
{
    (void)state;
    run_all_ways(big_write_fiber);
}

static int short_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    unsigned char data[5000], back[5000];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = big_byte(i);
    HOLD(open_for(&file, "short.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    told.pwrite_most = 700;
    told.pread_most = 900;
    told.interruptions = 3;
    HOLD(shoal_file_write(&file, data, sizeof(data), 0) == 700);
    HOLD(shoal_file_write_all(&file, data, sizeof(data), 0) == 0);
    HOLD(shoal_file_read(&file, back, sizeof(back), 0) == 900);
    HOLD(shoal_file_read_exact(&file, back, sizeof(back), 0) == 0);
    HOLD(memcmp(data, back, sizeof(data)) == 0);
    told.pwrite_errno = ENODATA; /* takes nothing */
    HOLD(shoal_file_write_all(&file, data, sizeof(data), 0) == -EIO);
    told.pwrite_errno = EDQUOT;
    HOLD(shoal_file_write_all(&file, data, sizeof(data), 0) == -EDQUOT);
    told.pwrite_fails_at = 4500; /* after some that went well */
    HOLD(shoal_file_write_all(&file, data, sizeof(data), 0) == -EDQUOT);
    told.pread_errno = EIO;
    told.pread_fails_at = 4500;
    HOLD(shoal_file_read_exact(&file, back, sizeof(back), 0) == -EIO);
    told.sync_errno = EIO;
    HOLD(shoal_file_sync_data(&file) == -EIO);
    tell_nothing();
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_write_short_writes_are_finished_and_errors_told(void **state)
{
    (void)state;
    tell_nothing_is_cached();
    run_on_threads(short_fiber);
    tell_nothing();
}

static int vectors_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    char text[3][4];
    struct iovec in[3] = {{text[0], 4}, {text[1], 1}, {text[2], 4}};
    const char *words = "abcdefghijkl";
    struct iovec out[3] = {{(void *)(uintptr_t)words, 5}, {NULL, 0}, {(void *)(uintptr_t)words, 4}};
    HOLD(open_for(&file, "vectors.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_writev(&file, out, 3, 2) == 9);
    HOLD(shoal_file_readv(&file, in, 3, 2) == 9);
    HOLD(memcmp(text[0], "abcd", 4) == 0 && text[1][0] == 'e' && memcmp(text[2], "abcd", 4) == 0);
    HOLD(shoal_file_readv(&file, in, 0, 2) == 0 && shoal_file_writev(&file, out, 0, 2) == 0);
    HOLD(shoal_file_readv(&file, in, 3, 11) == 0);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_vectors_are_filled_one_after_the_other(void **state)
{
    (void)state;
    run_all_ways(vectors_fiber);
}

/* ---- Many ---- */

#define WRITERS      32
#define RECORDS      (40 / SHOAL_TEST_SLOWDOWN + 2)
#define RECORD_BYTES 96

struct appender {
    struct shoal_file *file;
    int number;
};

static int append_fiber(void *arg)
{
    const struct appender *appender = arg;
    char record[RECORD_BYTES];
    for (int i = 0; i < RECORDS; i++) {
        memset(record, 'a' + appender->number % 26, sizeof(record));
        (void)snprintf(record, sizeof(record), "%d %d", appender->number, i);
        HOLD(shoal_file_append(appender->file, record, sizeof(record)) == RECORD_BYTES);
    }
    return 0;
}

static int check_records(struct shoal_file *file)
{
    int next[WRITERS] = {0};
    char record[RECORD_BYTES];
    for (int i = 0; i < WRITERS * RECORDS; i++) {
        HOLD(shoal_file_read_exact(file, record, RECORD_BYTES, (uint64_t)i * RECORD_BYTES) == 0);
        char *rest;
        long number = strtol(record, &rest, 10);
        long count = strtol(rest, NULL, 10);
        HOLD(number >= 0 && number < WRITERS && count == next[number]);
        HOLD(record[RECORD_BYTES - 1] == 'a' + number % 26);
        next[number]++;
    }
    HOLD(shoal_file_read(file, record, 1, (uint64_t)WRITERS * RECORDS * RECORD_BYTES) == 0);
    return 0;
}

static int appenders_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct appender appenders[WRITERS];
    struct shoal_fiber *fibers[WRITERS];
    HOLD(open_for(&file, "log.txt", O_RDWR | O_CREAT | O_TRUNC) == 0);
    for (int i = 0; i < WRITERS; i++) {
        appenders[i] = (struct appender){&file, i};
        HOLD(shoal_fiber_spawn(&fibers[i], append_fiber, &appenders[i], "append") == 0);
    }
    for (int i = 0; i < WRITERS; i++)
        HOLD(shoal_fiber_join(fibers[i]) == 0);
    HOLD(check_records(&file) == 0);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_append_by_many_fibers_overlaps_nothing(void **state)
{
    (void)state;
    run_all_ways(appenders_fiber);
}

#define REGION 5000

static int region_fiber(void *arg)
{
    const struct appender *mine = arg;
    unsigned char data[REGION], back[REGION];
    uint64_t at = (uint64_t)mine->number * REGION;
    for (int round = 0; round < 10; round++) {
        memset(data, mine->number * 7 + round, sizeof(data));
        HOLD(shoal_file_write_all(mine->file, data, sizeof(data), at) == 0);
        HOLD(shoal_file_read_exact(mine->file, back, sizeof(back), at) == 0);
        HOLD(memcmp(data, back, sizeof(data)) == 0);
        if (round % 5 == 0)
            HOLD(shoal_file_sync_data(mine->file) == 0);
    }
    return 0;
}

static int regions_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct appender regions[WRITERS];
    struct shoal_fiber *fibers[WRITERS];
    HOLD(open_for(&file, "regions.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    for (int i = 0; i < WRITERS; i++) {
        regions[i] = (struct appender){&file, i};
        HOLD(shoal_fiber_spawn(&fibers[i], region_fiber, &regions[i], "region") == 0);
    }
    for (int i = 0; i < WRITERS; i++)
        HOLD(shoal_fiber_join(fibers[i]) == 0);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_write_by_many_fibers_is_what_each_reads(void **state)
{
    (void)state;
    run_all_ways(regions_fiber);
}

/* ---- Refusals ---- */

static int refused_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct iovec one = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    static struct iovec many[SHOAL_FILE_VECTORS_MAX + 1];
    HOLD(open_for(&file, "hello.txt", O_RDONLY) == 0);
    HOLD(shoal_file_write(&file, "x", 1, 0) == -EBADF);
    HOLD(shoal_file_writev(&file, &one, 1, 0) == -EBADF);
    HOLD(shoal_file_append(&file, "x", 1) == -EBADF);
    HOLD(shoal_file_truncate(&file, 1) == -EINVAL);
    HOLD(shoal_file_allocate(&file, 0, 0, 1) == -EBADF);
    HOLD(shoal_file_readv(&file, many, SHOAL_FILE_VECTORS_MAX + 1, 0) == -EINVAL);
    HOLD(shoal_file_readv(&file, many, SHOAL_FILE_VECTORS_MAX, 0) == 0);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(shoal_file_write(&file, "x", 1, 0) == -EBADF && shoal_file_sync(&file) == -EBADF);
    HOLD(open_for(&file, "hello.txt", O_RDWR) == 0);
    HOLD(shoal_file_write(&file, "x", 1, (uint64_t)INT64_MAX + 1) == -EINVAL);
    HOLD(shoal_file_write_all(&file, "xy", 2, INT64_MAX) == -EINVAL);
    HOLD(shoal_file_read_exact(&file, many, 2, INT64_MAX) == -EINVAL);
    HOLD(shoal_file_write_all(&file, "x", 1, UINT64_MAX) == -EINVAL);
    HOLD(shoal_file_writev(&file, many, SHOAL_FILE_VECTORS_MAX + 1, 0) == -EINVAL);
    HOLD(shoal_file_readv(&file, &one, 1, UINT64_MAX) == -EINVAL);
    HOLD(shoal_file_truncate(&file, UINT64_MAX) == -EINVAL);
    HOLD(shoal_file_allocate(&file, 0, 0, 0) == -EINVAL);
    HOLD(shoal_file_allocate(&file, 64, 0, 1) == -EINVAL);
    HOLD(shoal_file_allocate(&file, 0, UINT64_MAX, 1) == -EINVAL);
    HOLD(shoal_file_write(&file, "", 0, 0) == 0 && shoal_file_write_all(&file, "", 0, 0) == 0);
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == 12);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(open_for(&file, "fifo", O_RDWR) == 0);
    HOLD(shoal_file_write(&file, "x", 1, 0) == -ESPIPE);
    HOLD(shoal_file_sync(&file) == -EINVAL);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(open_for(&file, "sub", O_WRONLY) == -EISDIR);
    HOLD(open_for(&file, "/dev/full", O_WRONLY) == 0);
    HOLD(shoal_file_write(&file, "x", 1, 0) == -ENOSPC);
    HOLD(shoal_file_write_all(&file, "x", 1, 0) == -ENOSPC);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_write_refusals_have_their_codes(void **state)
{
    (void)state;
    run_all_ways(refused_fiber);
}

static int limit_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct rlimit before, small;
    char block[3000] = {1};
    HOLD(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = before;
    small.rlim_cur = 10000;
    HOLD(open_for(&file, "limited.bin", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(setrlimit(RLIMIT_FSIZE, &small) == 0);
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < 30000; at += sizeof(block))
        rc = shoal_file_write_all(&file, block, sizeof(block), at);
    int truncated = shoal_file_truncate(&file, 20000);
    HOLD(setrlimit(RLIMIT_FSIZE, &before) == 0);
    HOLD(rc == -EFBIG && truncated == -EFBIG);
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes == 10000);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static void file_write_beyond_the_size_limit_fails(void **state)
{
    (void)state;
    run_all_ways(limit_fiber); /* the runtime ignores SIGXFSZ, which would end the program */
}

/* ---- Adopt and close ---- */

static int adopt_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    int fd = openat(root_fd, "log.txt", O_RDWR | O_APPEND | O_CLOEXEC | O_CREAT, 0644);
    HOLD(fd >= 0 && ftruncate(fd, 0) == 0);
    HOLD(shoal_file_adopt(&file, fd) == 0 && file.fd == fd && file.appends && !file.direct);
    HOLD(shoal_file_write_all(&file, "one", 3, 0) == 0);
    HOLD(shoal_file_write_all(&file, "two", 3, 0) == 0); /* O_APPEND: the offset does not count */
    char text[8] = "";
    HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 6 && memcmp(text, "onetwo", 6) == 0);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(fcntl(fd, F_GETFD) == -1);
    HOLD(shoal_file_adopt(&file, fd) == -EBADF && file.fd == -1);
    return 0;
}

static void file_adopt_takes_a_descriptor_over(void **state)
{
    (void)state;
    run_all_ways(adopt_fiber);
}

static int close_error_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_for(&file, "log.txt", O_RDWR | O_CREAT) == 0);
    HOLD(shoal_file_write_all(&file, "x", 1, 0) == 0);
    told.closed_fd = file.fd;
    told.close_errno = EDQUOT;
    HOLD(shoal_file_close(&file) == -EDQUOT && file.fd == -1);
    HOLD(told.closed_by != gettid() && told.close_calls == 1);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(open_for(&file, "log.txt", O_RDWR) == 0);
    HOLD(shoal_file_write_all(&file, "x", 1, 0) == 0);
    told.closed_fd = file.fd;
    told.close_errno = EINTR;
    told.close_calls = 0;
    HOLD(shoal_file_close(&file) == 0 && told.close_calls == 1);
    tell_nothing();
    HOLD(open_for(&file, "log.txt", O_RDWR) == 0);
    told.closed_fd = file.fd;
    HOLD(shoal_file_close(&file) == 0);
    HOLD(told.closed_by == gettid()); /* nothing was written: at once */
    return 0;
}

static void file_close_tells_of_late_writes_and_closes_once(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, close_error_fiber, NULL), 0);
    tell_nothing();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_write_random_operations_match_a_model),
        cmocka_unit_test(file_write_works_without_any_one_operation_of_the_ring),
        cmocka_unit_test(file_write_big_and_far_offsets_count_all_bits),
        cmocka_unit_test(file_write_short_writes_are_finished_and_errors_told),
        cmocka_unit_test(file_vectors_are_filled_one_after_the_other),
        cmocka_unit_test(file_append_by_many_fibers_overlaps_nothing),
        cmocka_unit_test(file_write_by_many_fibers_is_what_each_reads),
        cmocka_unit_test(file_write_refusals_have_their_codes),
        cmocka_unit_test(file_write_beyond_the_size_limit_fails),
        cmocka_unit_test(file_adopt_takes_a_descriptor_over),
        cmocka_unit_test(file_close_tells_of_late_writes_and_closes_once),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
