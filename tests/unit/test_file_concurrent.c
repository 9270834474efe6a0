/*
 * Files on both backends: many fibers at a time, cancels at any moment, leases, and closing.
 */
/* backends: both */
#include <signal.h>

#include "shoal/runtime/task.h"

#include "shoal/smp/submit.h"

#include "unit/file_check.h"

/* ---- Many at a time ---- */

#define READERS 64
#define ROUNDS  40

static int reader_fiber(void *arg)
{
    struct shoal_file *file = arg;
    unsigned char data[3000];
    uint64_t x = (uint64_t)(uintptr_t)data;
    for (int i = 0; i < ROUNDS; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t offset = (x >> 20) % (BIG_BYTES - sizeof(data));
        int rc = shoal_file_read(file, data, sizeof(data), offset);
        HOLD(rc > 0 && is_big(data, rc, offset));
        if (i % 8 == 0) {
            struct shoal_file own;
            HOLD(open_in(&own, i % 16 == 0 ? "sub/inner.txt" : "link_in") == 0);
            HOLD(shoal_file_read(&own, data, sizeof(data), 0) == 5);
            shoal_file_close(&own);
        }
    }
    return 0;
}

static int crowd(void *arg, union shoal_value *out)
{
    (void)arg;
    struct shoal_fiber *fibers[READERS];
    struct shoal_file file;
    int failed = open_in(&file, "big.bin");
    for (int i = 0; i < READERS; i++)
        failed |= shoal_fiber_spawn(&fibers[i], reader_fiber, &file, "reader");
    for (int i = 0; i < READERS; i++)
        failed |= shoal_fiber_join(fibers[i]);
    shoal_file_close(&file);
    out->i64 = failed;
    return 0;
}

static int crowd_fiber(void *arg)
{
    (void)arg;
    struct shoal_future *there = shoal_submit_fiber_to(1, crowd, NULL);
    union shoal_value here, other;
    HOLD(crowd(NULL, &here) == 0);
    HOLD(shoal_await(there, &other) == 0);
    HOLD(here.i64 == 0 && other.i64 == 0);
    return 0;
}

static void file_read_many_fibers_on_two_cores_get_their_own(void **state)
{
    (void)state;
    static const char *const two_cores[] = {"--overprovisioned", NULL};
    tell_nothing();
    assert_int_equal(shoal_test_run_with(2, two_cores, crowd_fiber, NULL), 0);
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run_with(2, two_cores, crowd_fiber, NULL), 0);
    tell_nothing();
}

static int alarm_fiber(void *arg)
{
    (void)shoal_sleep_ns(1000000);
    *(bool *)arg = true;
    return 0;
}

static int greedy_fiber(void *arg)
{
    (void)arg;
    bool rang = false;
    struct shoal_fiber *alarm;
    struct shoal_file file;
    char text[16];
    HOLD(open_in(&file, "hello.txt") == 0);
    HOLD(shoal_fiber_spawn(&alarm, alarm_fiber, &rang, "alarm") == 0);
    while (!rang)
        HOLD(shoal_file_read(&file, text, sizeof(text), 0) == 12);
    shoal_file_close(&file);
    HOLD(shoal_fiber_join(alarm) == 0);
    rang = false;
    HOLD(shoal_fiber_spawn(&alarm, alarm_fiber, &rang, "alarm") == 0);
    while (!rang) {
        HOLD(open_in(&file, "hello.txt") == 0);
        shoal_file_close(&file);
    }
    HOLD(shoal_fiber_join(alarm) == 0);
    return 0;
}

static void file_read_of_cached_data_lets_others_run(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, greedy_fiber, NULL), 0);
}

/* ---- Cancel ---- */

struct attempt {
    struct shoal_file file;
    char text[16];
    int first;
    int second;
    bool returned;
};

static int cancelled_before_fiber(void *arg)
{
    struct attempt *attempt = arg;
    struct shoal_file other;
    struct shoal_file_stat facts;
    char text[4];
    shoal_fiber_cancel(shoal_fiber_self());
    HOLD(open_in(&other, "hello.txt") == -ECANCELED && other.fd == -1);
    HOLD(shoal_file_read(&attempt->file, text, sizeof(text), 0) == -ECANCELED);
    HOLD(shoal_file_stat(&attempt->file, &facts) == -ECANCELED);
    shoal_fiber_shield();
    HOLD(shoal_file_read(&attempt->file, text, sizeof(text), 0) == 4);
    shoal_fiber_unshield();
    shoal_file_close(&attempt->file);
    HOLD(attempt->file.fd == -1);
    return 0;
}

static int cancel_before_fiber(void *arg)
{
    (void)arg;
    struct attempt attempt;
    struct shoal_fiber *fiber;
    HOLD(open_in(&attempt.file, "hello.txt") == 0);
    int fd = attempt.file.fd;
    HOLD(shoal_fiber_spawn(&fiber, cancelled_before_fiber, &attempt, "cancelled") == 0);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    return 0;
}

static void file_call_on_cancelled_fiber_fails_but_close(void **state)
{
    (void)state;
    run_both_ways(cancel_before_fiber);
}

static int reading_fiber(void *arg)
{
    struct attempt *attempt = arg;
    attempt->first = shoal_file_read(&attempt->file, attempt->text, sizeof(attempt->text), 0);
    attempt->returned = true;
    attempt->second = shoal_file_read(&attempt->file, attempt->text, sizeof(attempt->text), 0);
    return 0;
}

/* epoll: the helper thread is inside pread when the cancel comes, and goes on to the end. */
static int cancel_in_thread(void)
{
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    HOLD(open_in(&attempt.file, "hello.txt") == 0);
    told.hold_pread = true;
    HOLD(shoal_fiber_spawn(&fiber, reading_fiber, &attempt, "reading") == 0);
    while (sem_trywait(&pread_entered) != 0)
        HOLD(shoal_sleep_ns(100000) == 0);
    shoal_fiber_cancel(fiber);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(!attempt.returned);
    told.hold_pread = false;
    sem_post(&pread_go);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == 12 && memcmp(attempt.text, "hello world\n", 12) == 0);
    HOLD(attempt.second == -ECANCELED);
    shoal_file_close(&attempt.file);
    return 0;
}

/* io_uring: the kernel waits for a FIFO's data (which only this test can make it do) and stops. */
static int cancel_in_ring(void)
{
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    const struct shoal_file_how both = {.flags = O_RDWR};
    HOLD(shoal_file_open(&attempt.file, root_fd, "fifo", &both) == 0);
    HOLD(shoal_fiber_spawn(&fiber, reading_fiber, &attempt, "reading") == 0);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(!attempt.returned);
    shoal_fiber_cancel(fiber);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == -ECANCELED && attempt.second == -ECANCELED);
    shoal_file_close(&attempt.file);
    return 0;
}

static int cancel_during_fiber(void *arg)
{
    (void)arg;
    return strcmp(shoal_core_io_backend(), "epoll") == 0 ? cancel_in_thread() : cancel_in_ring();
}

static void file_read_cancel_returns_when_it_has_ended(void **state)
{
    (void)state;
    tell_nothing();
    tell_nothing_is_cached();
    assert_int_equal(shoal_test_run(1, cancel_during_fiber, NULL), 0);
    tell_nothing();
}

static int held_write_fiber(void *arg)
{
    struct attempt *attempt = arg;
    attempt->first = shoal_file_write(&attempt->file, "written", 7, 0);
    attempt->returned = true;
    attempt->second = shoal_file_sync(&attempt->file);
    return 0;
}

/* The helper thread is inside pwrite when the cancel comes: what it does is done, and is told. */
static int cancel_write_fiber(void *arg)
{
    (void)arg;
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    HOLD(open_for(&attempt.file, "made.txt", O_RDWR | O_CREAT | O_TRUNC) == 0);
    told.hold_pwrite = true;
    HOLD(shoal_fiber_spawn(&fiber, held_write_fiber, &attempt, "writing") == 0);
    while (sem_trywait(&pwrite_entered) != 0)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(fiber->waits_for != NULL && strcmp(fiber->waits_for, "file write") == 0);
    shoal_fiber_cancel(fiber);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(100000) == 0);
    HOLD(!attempt.returned);
    told.hold_pwrite = false;
    sem_post(&pwrite_go);
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == 7 && attempt.second == -ECANCELED);
    HOLD(shoal_file_read(&attempt.file, attempt.text, 16, 0) == 7);
    HOLD(memcmp(attempt.text, "written", 7) == 0);
    HOLD(shoal_file_close(&attempt.file) == 0);
    return 0;
}

static void file_write_cancel_returns_when_it_has_ended(void **state)
{
    (void)state;
    tell_nothing();
    run_on_threads(cancel_write_fiber);
    tell_nothing();
}

/* Each record is 16 bytes of one letter; a write that says it was not made has left none. */
struct recorder {
    struct shoal_file file;
    int letter;
    uint64_t records;
};

static int record_fiber(void *arg)
{
    struct recorder *recorder = arg;
    char record[16], back[16];
    for (;;) {
        uint64_t at = recorder->records * sizeof(record);
        memset(record, recorder->letter, sizeof(record));
        int rc = shoal_file_write(&recorder->file, record, sizeof(record), at);
        if (rc == (int)sizeof(record))
            recorder->records++;
        else if (rc == -ECANCELED)
            return pread(recorder->file.fd, back, sizeof(back), (off_t)at) == 0 ? 0 : __LINE__;
        else
            return __LINE__;
        if (recorder->records % 8 == 0)
            (void)shoal_file_sync_data(&recorder->file);
    }
}

static int write_storm_fiber(void *arg)
{
    (void)arg;
    enum { COUNT = 8 };
    static struct recorder recorders[COUNT];
    struct shoal_fiber *fibers[COUNT];
    uint64_t random = 7;
    for (int i = 0; i < COUNT; i++) {
        recorders[i] = (struct recorder){.letter = 'a' + i};
        HOLD(open_for(&recorders[i].file, ".", O_RDWR | O_TMPFILE) == 0);
    }
    for (int round = 0; round < 60 / SHOAL_TEST_SLOWDOWN; round++) {
        for (int i = 0; i < COUNT; i++)
            HOLD(shoal_fiber_spawn(&fibers[i], record_fiber, &recorders[i], "recorder") == 0);
        for (uint64_t i = 0; i < shoal_test_random(&random) % 6; i++)
            HOLD(shoal_yield() == 0);
        if (round % 2 == 0)
            HOLD(shoal_sleep_ns(shoal_test_random(&random) % 200000) == 0);
        for (int i = 0; i < COUNT; i++)
            shoal_fiber_cancel(fibers[i]);
        for (int i = 0; i < COUNT; i++)
            HOLD(shoal_fiber_join(fibers[i]) == 0);
    }
    uint64_t all = 0;
    for (int i = 0; i < COUNT; i++) {
        struct shoal_file_stat facts;
        HOLD(shoal_file_stat(&recorders[i].file, &facts) == 0);
        HOLD(facts.size_bytes == recorders[i].records * 16);
        all += recorders[i].records;
        HOLD(shoal_file_close(&recorders[i].file) == 0);
    }
    HOLD(all > 0);
    return 0;
}

static void file_write_cancelled_at_any_moment_says_whether_it_happened(void **state)
{
    (void)state;
    run_all_ways(write_storm_fiber);
}

static int storm_reader(void *arg)
{
    struct shoal_file *file = arg;
    unsigned char data[2000];
    for (uint64_t offset = 0;; offset = (offset + 77777) % (BIG_BYTES - sizeof(data))) {
        memset(data, 0, sizeof(data));
        int rc = shoal_file_read(file, data, sizeof(data), offset);
        if (rc == -ECANCELED)
            return 0;
        HOLD(rc > 0 && is_big(data, rc, offset));
        struct shoal_file own;
        rc = open_in(&own, "sub/inner.txt");
        if (rc == -ECANCELED)
            return own.fd == -1 ? 0 : __LINE__;
        HOLD(rc == 0);
        shoal_file_close(&own);
    }
}

static int storm_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    struct shoal_fiber *fibers[16];
    HOLD(open_in(&file, "big.bin") == 0);
    int before = count_descriptors();
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 16; i++)
            HOLD(shoal_fiber_spawn(&fibers[i], storm_reader, &file, "storm") == 0);
        for (int i = 0; i < round % 7; i++)
            HOLD(shoal_yield() == 0);
        if (round % 3 == 0)
            HOLD(shoal_sleep_ns(50000) == 0);
        for (int i = 0; i < 16; i++)
            shoal_fiber_cancel(fibers[i]);
        for (int i = 0; i < 16; i++)
            HOLD(shoal_fiber_join(fibers[i]) == 0);
    }
    HOLD(count_descriptors() == before);
    shoal_file_close(&file);
    return 0;
}

static void file_cancel_at_any_moment_loses_no_descriptor(void **state)
{
    (void)state;
    run_both_ways(storm_fiber);
}

/* ---- Leases and close ---- */

static int opening_fiber(void *arg)
{
    struct attempt *attempt = arg;
    attempt->first = open_in(&attempt->file, "hello.txt");
    attempt->returned = true;
    return 0;
}

static int lease_fiber(void *arg)
{
    const bool *cancel = arg;
    struct attempt attempt = {.first = 0};
    struct shoal_fiber *fiber;
    int holder = openat(root_fd, "hello.txt", O_RDWR | O_CLOEXEC);
    HOLD(holder >= 0);
    if (fcntl(holder, F_SETLEASE, F_WRLCK) != 0) {
        close(holder);
        return 0; /* a file system without leases */
    }
    HOLD(shoal_fiber_spawn(&fiber, opening_fiber, &attempt, "opening") == 0);
    for (int i = 0; i < 20; i++)
        HOLD(shoal_sleep_ns(200000) == 0);
    HOLD(!attempt.returned);
    if (*cancel) {
        shoal_fiber_cancel(fiber);
        HOLD(shoal_yield() == 0);
        if (strcmp(shoal_core_io_backend(), "epoll") == 0)
            HOLD(!attempt.returned && fcntl(holder, F_SETLEASE, F_UNLCK) == 0);
    } else {
        HOLD(fcntl(holder, F_SETLEASE, F_UNLCK) == 0);
    }
    HOLD(shoal_fiber_join(fiber) == 0);
    HOLD(attempt.first == 0 || (*cancel && attempt.first == -ECANCELED));
    HOLD((attempt.first == 0) == (attempt.file.fd >= 0));
    shoal_file_close(&attempt.file);
    close(holder);
    return 0;
}

static void file_open_waits_for_the_holder_of_a_lease(void **state)
{
    (void)state;
    bool cancel = false;
    tell_nothing();
    signal(SIGIO, SIG_IGN); /* how the kernel tells the holder */
    assert_int_equal(shoal_test_run(1, lease_fiber, &cancel), 0);
    cancel = true;
    assert_int_equal(shoal_test_run(1, lease_fiber, &cancel), 0);
}

static int close_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_in(&file, "hello.txt") == 0);
    told.closed_fd = file.fd;
    shoal_file_close(&file);
    HOLD(told.closed_by == gettid());
    int fd = openat(root_fd, "made.txt", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    told.closed_fd = -1;
    close(fd);
    HOLD(open_in(&file, "made.txt") == 0);
    HOLD(unlinkat(root_fd, "made.txt", 0) == 0);
    told.closed_fd = file.fd;
    shoal_fiber_cancel(shoal_fiber_self());
    shoal_file_close(&file);
    HOLD(told.closed_by != gettid() && told.closed_by != 0);
    HOLD(fcntl(told.closed_fd, F_GETFD) == -1);
    return 0;
}

static int close_in_fiber(void *arg)
{
    struct shoal_fiber *fiber;
    HOLD(shoal_fiber_spawn(&fiber, close_fiber, arg, "close") == 0);
    return shoal_fiber_join(fiber);
}

static void file_close_of_deleted_file_leaves_the_core_free(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, close_in_fiber, NULL), 0);
    tell_nothing();
}

struct closer {
    struct shoal_task task;
    struct shoal_file file;
};

static void close_in_task(struct shoal_task *task)
{
    shoal_file_close(&SHOAL_CONTAINER_OF(task, struct closer, task)->file);
}

static int close_task_fiber(void *arg)
{
    (void)arg;
    struct closer closer = {.task = {.run = close_in_task}};
    int fd = openat(root_fd, "made.txt", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    close(fd);
    HOLD(open_in(&closer.file, "made.txt") == 0);
    HOLD(unlinkat(root_fd, "made.txt", 0) == 0);
    shoal_task_post(&closer.task);
    while (closer.file.fd >= 0)
        HOLD(shoal_yield() == 0);
    return 0;
}

static void file_close_outside_of_fibers_works(void **state)
{
    (void)state;
    tell_nothing();
    assert_int_equal(shoal_test_run(1, close_task_fiber, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_read_many_fibers_on_two_cores_get_their_own),
        cmocka_unit_test(file_read_of_cached_data_lets_others_run),
        cmocka_unit_test(file_call_on_cancelled_fiber_fails_but_close),
        cmocka_unit_test(file_read_cancel_returns_when_it_has_ended),
        cmocka_unit_test(file_write_cancel_returns_when_it_has_ended),
        cmocka_unit_test(file_write_cancelled_at_any_moment_says_whether_it_happened),
        cmocka_unit_test(file_cancel_at_any_moment_loses_no_descriptor),
        cmocka_unit_test(file_open_waits_for_the_holder_of_a_lease),
        cmocka_unit_test(file_close_of_deleted_file_leaves_the_core_free),
        cmocka_unit_test(file_close_outside_of_fibers_works),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
