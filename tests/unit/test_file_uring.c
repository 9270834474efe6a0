/*
 * The ring's operations on files: which ones a kernel knows decides what goes to helper threads.
 *
 * The backend is compiled into this test once more, with a probe that answers as told.
 */
/* backends: io_uring */
#include <liburing.h>

#include "unit/file_check.h"

static bool no_probe;
static unsigned last_op = 255; /* the newest that the kernel admits to */

static struct io_uring_probe *probe_as_told(struct io_uring *ring)
{
    struct io_uring_probe *probe = no_probe ? NULL : io_uring_get_probe_ring(ring);
    for (unsigned op = 0; probe != NULL && op < probe->ops_len; op++)
        if (op > last_op)
            probe->ops[op].flags = 0;
    return probe;
}

#define io_uring_get_probe_ring probe_as_told
#include "shoal/runtime/io_uring.c"

static bool has(uint32_t kinds, enum shoal_io_kind kind)
{
    return (kinds & SHOAL_IO_BIT(kind)) != 0;
}

static int use_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    char text[8] = "";
    struct iovec vec = {text, 2};
    HOLD(strcmp(shoal_core_io_backend(), "io_uring") == 0);
    HOLD(open_for(&file, "made.txt", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_write_all(&file, "abcdef", 6, 0) == 0 && shoal_file_append(&file, "g", 1) == 1);
    HOLD(shoal_file_writev(&file, &vec, 1, 7) == 2 && shoal_file_sync(&file) == 0);
    HOLD(shoal_file_allocate(&file, 0, 0, 8192) == 0 && shoal_file_truncate(&file, 7) == 0);
    HOLD(shoal_file_read_exact(&file, text, 7, 0) == 0 && strcmp(text, "abcdefg") == 0);
    HOLD(shoal_file_close(&file) == 0);
    return 0;
}

static int all_fiber(void *arg)
{
    uint32_t kinds = shoal_core_self->io.native;
    HOLD(has(kinds, SHOAL_IO_READ) && has(kinds, SHOAL_IO_WRITE) && has(kinds, SHOAL_IO_WRITEV));
    HOLD(has(kinds, SHOAL_IO_SYNC) && has(kinds, SHOAL_IO_OPEN) && has(kinds, SHOAL_IO_STAT));
    HOLD(!has(kinds, SHOAL_IO_CLOSE) && !has(kinds, SHOAL_IO_LIST));
    HOLD(!has(kinds, SHOAL_IO_RECV) && !has(kinds, SHOAL_IO_POLL));
    HOLD(shoal_core_self->blocking.thread_count == 0);
    return use_fiber(arg);
}

static void uring_file_operations_of_this_kernel_are_used(void **state)
{
    (void)state;
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, all_fiber, NULL), 0);
    tell_nothing();
}

/* 5.6: it has openat2 and statx, and neither rename nor ftruncate. */
static int old_fiber(void *arg)
{
    uint32_t kinds = shoal_core_self->io.native;
    HOLD(has(kinds, SHOAL_IO_OPEN) && has(kinds, SHOAL_IO_STAT) && has(kinds, SHOAL_IO_WRITE));
    HOLD(!has(kinds, SHOAL_IO_RENAME) && !has(kinds, SHOAL_IO_MKDIR));
    HOLD(!has(kinds, SHOAL_IO_TRUNCATE));
    return use_fiber(arg);
}

static void uring_file_operations_of_an_old_kernel_go_to_threads(void **state)
{
    (void)state;
    last_op = IORING_OP_OPENAT2;
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, old_fiber, NULL), 0);
    tell_nothing();
    last_op = 255;
}

static int none_fiber(void *arg)
{
    HOLD(shoal_core_self->io.native == 0);
    int rc = use_fiber(arg);
    HOLD(shoal_core_self->blocking.thread_count > 0);
    return rc;
}

static void uring_without_a_probe_takes_nothing_for_granted(void **state)
{
    (void)state;
    no_probe = true;
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, none_fiber, NULL), 0);
    tell_nothing();
    no_probe = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uring_file_operations_of_this_kernel_are_used),
        cmocka_unit_test(uring_file_operations_of_an_old_kernel_go_to_threads),
        cmocka_unit_test(uring_without_a_probe_takes_nothing_for_granted),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
