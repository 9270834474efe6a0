/*
 * Without memory, what is built on futures and fibers: scopes, data of fibers, combinators, files
 * written and read as streams, directories. See fault_check.h for what a walk is.
 */
/* backends: both */
#include <fcntl.h>

#include "shoal/runtime/combine.h"
#include "shoal/runtime/directory.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/file.h"
#include "shoal/runtime/file_path.h"
#include "shoal/runtime/file_stream.h"
#include "shoal/runtime/retry.h"
#include "shoal/runtime/scope.h"
#include "shoal/runtime/shared_future.h"

#include "unit/fault_check.h"

/* The first failure counts. */
static void note(int *rc, int code)
{
    if (*rc == 0 && code < 0)
        *rc = code;
}

/* What a value owns, so that one which nobody frees is seen. */
static int live;

static void drop_live(union shoal_value *value)
{
    (void)value;
    live--;
}

static struct shoal_future *owned(int64_t number)
{
    struct shoal_future *future = shoal_future_new();
    if (future == shoal_core_self->no_memory)
        return future;
    const union shoal_value value = {.i64 = number};
    shoal_future_on_drop(future, drop_live);
    live++;
    shoal_future_resolve(future, &value);
    return future;
}

/* ---- Scopes ---- */

static void free_local(void *value)
{
    shoal_mem_free(value, 40);
}

static const struct shoal_fiber_key local_key = {.destroy = free_local};

static int keep_local(void *arg)
{
    (void)arg;
    void *value = shoal_mem_alloc(40);
    if (value == NULL)
        return -ENOMEM;
    int rc = shoal_fiber_local_set(&local_key, value);
    if (rc < 0) {
        shoal_mem_free(value, 40);
        return rc;
    }
    rc = shoal_yield();
    SHOAL_EXPECT(shoal_fiber_local_get(&local_key) == value);
    return rc;
}

static int sleep_long(void *arg)
{
    (void)arg;
    int rc = shoal_sleep_ns(3600 * SHOAL_NS_PER_S);
    SHOAL_EXPECT_INT(rc, -ECANCELED);
    return 0;
}

static int scopes_scene(void)
{
    struct shoal_scope outer, inner;
    const struct shoal_scope_options options = {.timeout_ns = 3600 * SHOAL_NS_PER_S,
                                                .cancel_on_failure = true};
    const struct shoal_fiber_options large = {.name = "large", .stack_bytes = 1u << 20};
    int rc = 0;
    shoal_scope_enter(&outer, &options);
    note(&rc, shoal_scope_spawn(&outer, keep_local, NULL, "local"));
    note(&rc, shoal_scope_spawn_with(&outer, keep_local, NULL, &large));
    shoal_scope_enter(&inner, NULL);
    note(&rc, shoal_scope_spawn(&inner, sleep_long, NULL, "sleeper"));
    shoal_scope_cancel(&inner);
    (void)shoal_scope_leave(&inner);
    int left = shoal_scope_leave(&outer);
    SHOAL_EXPECT(left == 0 || left == -ENOMEM);
    note(&rc, left);
    return rc;
}

/* ---- Combinators ---- */

static struct shoal_future *twice(void *arg, const union shoal_value *in)
{
    (void)arg;
    return owned(in->i64 * 2);
}

static int twice_on_fiber(void *arg, const union shoal_value *in, union shoal_value *out)
{
    (void)arg;
    int rc = shoal_yield();
    if (rc < 0)
        return rc;
    live++;
    out->i64 = in->i64 * 2;
    return 0;
}

static struct shoal_future *third_time(void *arg, const union shoal_value *in)
{
    (void)arg;
    return in->u64 < 3 ? shoal_future_failed(-EIO, "not yet") : owned(3);
}

static int take_results(struct shoal_future *future, int64_t first)
{
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc < 0)
        return rc;
    struct shoal_results *results = value.ptr;
    SHOAL_EXPECT(results->count > 0 && results->values[0].i64 == first);
    shoal_results_drop(results);
    return 0;
}

static int take_one(struct shoal_future *future, int64_t wanted)
{
    union shoal_value value;
    int rc = shoal_await(future, &value);
    if (rc == 0) {
        SHOAL_EXPECT_INT(value.i64, wanted);
        live--;
    }
    return rc;
}

static int shared(void)
{
    const struct shoal_shared_hooks *none = NULL;
    struct shoal_shared_future *source = shoal_shared_future_new(shoal_future_ready(NULL), none);
    if (source == NULL)
        return -ENOMEM;
    int rc = shoal_await(shoal_shared_future_get(source), NULL);
    note(&rc, shoal_await(shoal_shared_future_get(source), NULL));
    shoal_shared_future_unref(source);
    return rc;
}

static int combinators_scene(void)
{
    const union shoal_value items[] = {{.i64 = 1}, {.i64 = 2}, {.i64 = 3}};
    const struct shoal_each by_future = {.items = items, .count = 3, .limit = 2, .fn = twice};
    const struct shoal_each by_fiber = {
        .items = items, .count = 3, .fiber = twice_on_fiber, .drop = drop_live};
    const struct shoal_retry retry = {.fn = third_time, .attempts = 5};
    live = 0;
    struct shoal_future *three[] = {owned(1), owned(2), owned(3)};
    int rc = take_results(shoal_when_all(three, 3), 1);
    note(&rc, take_results(shoal_map(&by_future), 2));
    note(&rc, take_results(shoal_map(&by_fiber), 2));
    note(&rc, take_one(shoal_retry(&retry), 3));
    note(&rc, take_one(shoal_timeout(owned(5), SHOAL_NS_PER_S), 5));
    note(&rc, shared());
    SHOAL_EXPECT_INT(live, 0);
    return rc;
}

/* ---- Files ---- */

static char folder[64];

static int make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/shoal-fault-%d", (int)getpid());
    int rc = shoal_directory_make(AT_FDCWD, folder, 0700);
    return rc == -EAGAIN ? -ENOMEM : rc;
}

static void remove_folder(void)
{
    (void)rmdir(folder);
}

/* A helper thread that cannot be had is no memory. */
static int no_thread(int rc)
{
    return rc == -EAGAIN ? -ENOMEM : rc;
}

static int write_file(struct shoal_file *file)
{
    const struct shoal_file_writer_options options = {.buffer_bytes = 4096, .buffers = 2};
    struct shoal_file_writer *writer;
    int rc = shoal_file_writer_new(&writer, file, &options);
    if (rc < 0)
        return rc;
    static char line[3000];
    memset(line, 'x', sizeof(line));
    for (int i = 0; i < 5 && rc == 0; i++)
        rc = shoal_file_writer_write(writer, line, sizeof(line));
    int closed = shoal_file_writer_close(writer);
    return rc < 0 ? rc : closed;
}

static int read_file(struct shoal_file *file)
{
    const struct shoal_file_reader_options options = {.buffer_bytes = 4096, .buffers = 2};
    struct shoal_file_reader *reader;
    int rc = shoal_file_reader_new(&reader, file, &options);
    if (rc < 0)
        return rc;
    char piece[2000];
    size_t len = 0;
    while ((rc = shoal_file_reader_read(reader, piece, sizeof(piece))) > 0)
        len += (size_t)rc;
    shoal_file_reader_free(reader);
    if (rc == 0)
        SHOAL_EXPECT_INT(len, 15000);
    return rc;
}

static int list_folder(void)
{
    struct shoal_directory directory;
    struct shoal_directory_entry entry;
    int rc = shoal_directory_open(&directory, AT_FDCWD, folder, 0);
    if (rc < 0)
        return rc;
    while ((rc = shoal_directory_next(&directory, &entry)) > 0)
        ;
    shoal_directory_close(&directory);
    return rc;
}

static int files_scene(void)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/file", folder);
    const struct shoal_file_how how = {.flags = O_RDWR | O_CREAT | O_TRUNC, .mode = 0600};
    struct shoal_file file;
    int rc = shoal_file_open(&file, AT_FDCWD, path, &how);
    if (rc < 0)
        return no_thread(rc);
    rc = write_file(&file);
    if (rc == 0)
        rc = read_file(&file);
    (void)shoal_file_close(&file);
    note(&rc, list_folder());
    (void)unlink(path);
    return no_thread(rc);
}

/* ---- The walks ---- */

static void walk_warm(const struct fault_walk *walk)
{
    assert_int_equal(shoal_test_run(FAULT_CORES, fault_walk_warm, (void *)(uintptr_t)walk), 0);
}

static void scopes_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "scopes", .scene = scopes_scene};
    walk_warm(&walk);
    fault_walk_cold(&walk);
}

static void combinators_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {.name = "combinators", .scene = combinators_scene};
    walk_warm(&walk);
    fault_walk_cold(&walk);
}

static void files_without_memory_fail_and_leak_nothing(void **state)
{
    (void)state;
    const struct fault_walk walk = {
        .name = "files", .scene = files_scene, .begin = make_folder, .end = remove_folder};
    walk_warm(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scopes_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(combinators_without_memory_fail_and_leak_nothing),
        cmocka_unit_test(files_without_memory_fail_and_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
