/*
 * Files without memory and without helper threads: each allocation of a scenario fails in turn; an
 * error comes back, and nothing is left behind.
 */
/* backends: both */
#include "shoal/runtime/directory.h"
#include "shoal/runtime/fault.h"
#include "shoal/runtime/file_direct.h"
#include "shoal/runtime/file_path.h"
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/mem.h"

#include "unit/file_check.h"

#define WALK_MAX 200

/* What may come of it: no memory, or no thread. */
static bool is_want(int rc)
{
    return rc == -ENOMEM || rc == -EAGAIN;
}

static int copy(struct shoal_file *from, struct shoal_file *to)
{
    struct shoal_file_reader *reader;
    struct shoal_file_writer *writer;
    const void *data;
    int rc = shoal_file_reader_new(&reader, from, NULL);
    if (rc < 0)
        return rc;
    rc = shoal_file_writer_new(&writer, to, NULL);
    for (int i = 0; rc == 0 && i < 5; i++) {
        rc = shoal_file_reader_peek(reader, &data);
        if (rc <= 0)
            break;
        size_t bytes = (size_t)rc;
        rc = shoal_file_writer_write(writer, data, bytes);
        if (rc == 0)
            shoal_file_reader_consume(reader, bytes);
    }
    int closed = shoal_file_writer_close(writer);
    shoal_file_reader_free(reader);
    return rc < 0 ? rc : closed;
}

static int list(void)
{
    struct shoal_directory dir;
    struct shoal_directory_entry entry;
    int rc = shoal_directory_open(&dir, root_fd, ".", 0);
    if (rc < 0)
        return rc;
    while ((rc = shoal_directory_next(&dir, &entry)) > 0)
        ;
    shoal_directory_close(&dir);
    return rc;
}

static int scenario(void)
{
    struct shoal_file from, to;
    struct shoal_file_stat facts;
    int rc = open_in(&from, "big.bin");
    if (rc < 0)
        return rc;
    rc = open_for(&to, "copied.bin", O_RDWR | O_CREAT | O_TRUNC);
    if (rc == 0) {
        rc = copy(&from, &to);
        if (rc == 0)
            rc = shoal_file_sync_data(&to);
        int closed = shoal_file_close(&to);
        rc = rc < 0 ? rc : closed;
    }
    if (rc == 0)
        rc = shoal_file_stat_path(root_fd, "copied.bin", 0, &facts);
    if (rc == 0)
        rc = list();
    if (rc == 0)
        rc = shoal_file_unlink(root_fd, "copied.bin");
    (void)shoal_file_close(&from);
    return rc;
}

/* One run a program, so that no helper thread is there before. */
static int step_fiber(void *arg)
{
    struct shoal_fault_stats stats;
    struct shoal_mem_stats before, after;
    uint64_t *nth = arg;
    if (!on_epoll() && *nth % 2 == 0)
        shoal_core_self->io.native = 0;
    int open_before = count_descriptors();
    shoal_mem_stats(&before);
    shoal_fault_arm(&(struct shoal_fault_plan){.nth = *nth});
    int rc = scenario();
    shoal_fault_disarm(&stats);
    shoal_mem_stats(&after);
    HOLD(after.used_bytes == before.used_bytes && count_descriptors() == open_before);
    HOLD(stats.failed == 0 ? rc == 0 : rc == 0 || is_want(rc));
    HOLD(scenario() == 0); /* with memory, all is well again */
    if (stats.failed == 0)
        *nth = 0;
    return 0;
}

static void file_calls_without_memory_fail_and_leave_nothing(void **state)
{
    (void)state;
    tell_nothing_is_cached();
    for (uint64_t first = 1; first <= 2; first++) {
        uint64_t nth = first; /* odd: the ring; even: helper threads */
        for (int i = 0; i < WALK_MAX && nth != 0; i++) {
            uint64_t step = nth;
            assert_int_equal(shoal_test_run(1, step_fiber, &step), 0);
            nth = step == 0 ? 0 : nth + 2;
        }
        assert_int_equal(nth, 0); /* each of them was made to fail */
    }
    tell_nothing();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_calls_without_memory_fail_and_leave_nothing),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
