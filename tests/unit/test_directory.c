/*
 * Listing directories on both backends: each entry once, while others are removed, at any cancel,
 * in bounded memory.
 */
/* backends: both */
#include "shoal/runtime/directory.h"
#include "shoal/runtime/file_path.h"
#include "shoal/runtime/mem.h"

#include "unit/file_check.h"

#define MANY (10000 / SHOAL_TEST_SLOWDOWN)

static unsigned char seen[10000];

static int make_many(void)
{
    char name[32];
    HOLD(mkdirat(root_fd, "many", 0755) == 0 || errno == EEXIST);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof(name), "many/entry-%05d", i);
        int fd = openat(root_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        HOLD(fd >= 0);
        close(fd);
        if (i % 10 == 0)
            HOLD(shoal_yield() == 0);
    }
    memset(seen, 0, sizeof(seen));
    return 0;
}

/* -1 for a name that was never made. */
static int number_of(const char *name)
{
    if (strncmp(name, "entry-", 6) != 0)
        return -1;
    char *end;
    long number = strtol(name + 6, &end, 10);
    return *end == '\0' && number >= 0 && number < MANY ? (int)number : -1;
}

static int note_entry(const struct shoal_directory_entry *entry)
{
    int number = number_of(entry->name);
    HOLD(number >= 0);
    HOLD(entry->type == DT_REG && entry->inode != 0);
    HOLD(++seen[number] == 1);
    return 0;
}

static int all_fiber(void *arg)
{
    (void)arg;
    struct shoal_directory dir;
    struct shoal_directory_entry entry;
    struct shoal_mem_stats before, after;
    HOLD(make_many() == 0);
    shoal_mem_stats(&before);
    HOLD(shoal_directory_open(&dir, root_fd, "many", SHOAL_FILE_BENEATH) == 0);
    for (int pass = 0; pass < 2; pass++) {
        int count = 0, rc;
        memset(seen, 0, sizeof(seen));
        while ((rc = shoal_directory_next(&dir, &entry)) == 1) {
            HOLD(note_entry(&entry) == 0);
            if (++count == MANY / 2 && pass == 0)
                break;
        }
        HOLD(pass == 0 ? rc == 1 : rc == 0 && count == MANY);
        if (pass == 0)
            shoal_directory_rewind(&dir); /* from the middle */
    }
    shoal_mem_stats(&after);
    HOLD(after.used_bytes - before.used_bytes < SHOAL_DIRECTORY_BYTES + 1024);
    HOLD(shoal_directory_next(&dir, &entry) == 0 && shoal_directory_next(&dir, &entry) == 0);
    shoal_directory_rewind(&dir);
    HOLD(shoal_directory_next(&dir, &entry) == 1);
    struct shoal_file file;
    const struct shoal_file_how how = {.flags = O_RDONLY};
    HOLD(shoal_file_open(&file, dir.file.fd, entry.name, &how) == 0);
    shoal_file_close(&file);
    shoal_directory_close(&dir);
    shoal_directory_close(&dir);
    shoal_mem_stats(&after);
    HOLD(after.used_bytes == before.used_bytes);
    HOLD(shoal_directory_next(&dir, &entry) == -EBADF);
    return 0;
}

static void directory_list_gives_each_entry_once(void **state)
{
    (void)state;
    run_all_ways(all_fiber);
}

static bool removed(int number)
{
    return number % 3 == 0;
}

#define REMOVERS 4

static int remover_fiber(void *arg)
{
    char name[32];
    for (int i = MANY - 1 - (int)(intptr_t)arg; i >= 0; i -= REMOVERS) {
        (void)snprintf(name, sizeof(name), "many/entry-%05d", i);
        if (removed(i))
            HOLD(shoal_file_unlink(root_fd, name) == 0);
    }
    return 0;
}

static int while_removed_fiber(void *arg)
{
    (void)arg;
    struct shoal_directory dir;
    struct shoal_directory_entry entry;
    struct shoal_fiber *fibers[REMOVERS];
    int rc;
    HOLD(make_many() == 0);
    HOLD(shoal_directory_open(&dir, root_fd, "many", 0) == 0);
    for (intptr_t i = 0; i < REMOVERS; i++)
        HOLD(shoal_fiber_spawn(&fibers[i], remover_fiber, (void *)i, "remover") == 0);
    for (int i = 0; (rc = shoal_directory_next(&dir, &entry)) == 1; i++) {
        HOLD(note_entry(&entry) == 0);
        if (i % 100 == 0)
            HOLD(shoal_yield() == 0);
    }
    HOLD(rc == 0);
    for (int i = 0; i < REMOVERS; i++)
        HOLD(shoal_fiber_join(fibers[i]) == 0);
    for (int i = 0; i < MANY; i++)
        HOLD(removed(i) || seen[i] == 1);
    shoal_directory_close(&dir);
    return 0;
}

static void directory_list_while_files_are_removed_misses_none_that_stays(void **state)
{
    (void)state;
    run_all_ways(while_removed_fiber);
}

/* ---- Cancel ---- */

static int lister_fiber(void *arg)
{
    struct shoal_directory *dir = arg;
    struct shoal_directory_entry entry;
    int rc;
    while ((rc = shoal_directory_next(dir, &entry)) == 1)
        HOLD(note_entry(&entry) == 0);
    return rc;
}

static int cancels_fiber(void *arg)
{
    (void)arg;
    struct shoal_directory dir;
    uint64_t random = 5;
    int rc, rounds = 0;
    HOLD(make_many() == 0);
    int before = count_descriptors();
    HOLD(shoal_directory_open(&dir, root_fd, "many", 0) == 0);
    do {
        struct shoal_fiber *fiber;
        HOLD(shoal_fiber_spawn(&fiber, lister_fiber, &dir, "lister") == 0);
        for (uint64_t i = 0; i < shoal_test_random(&random) % 4; i++)
            HOLD(shoal_yield() == 0);
        if (rounds++ % 2 == 0)
            HOLD(shoal_sleep_ns(shoal_test_random(&random) % 300000) == 0);
        shoal_fiber_cancel(fiber);
        rc = shoal_fiber_join(fiber);
        HOLD(rc == 0 || rc == -ECANCELED);
    } while (rc != 0);
    for (int i = 0; i < MANY; i++)
        HOLD(seen[i] == 1);
    shoal_directory_close(&dir);
    HOLD(count_descriptors() == before);
    return 0;
}

static void directory_list_cancelled_at_any_moment_goes_on_where_it_was(void **state)
{
    (void)state;
    run_all_ways(cancels_fiber);
}

/* ---- Odd ones ---- */

static int odd_fiber(void *arg)
{
    (void)arg;
    struct shoal_directory dir, other;
    struct shoal_directory_entry entry;
    HOLD(shoal_directory_open(&dir, root_fd, "nothing", 0) == -ENOENT);
    HOLD(shoal_directory_open(&dir, root_fd, "hello.txt", 0) == -ENOTDIR);
    HOLD(shoal_directory_open(&dir, root_fd, "up", SHOAL_FILE_BENEATH) == -EXDEV);
    HOLD(shoal_directory_open(&dir, root_fd, "sub", UINT64_C(1) << 30) == -EINVAL);
    HOLD(shoal_directory_make(root_fd, "empty", 0755) == 0);
    HOLD(shoal_directory_open(&dir, root_fd, "empty", 0) == 0);
    HOLD(shoal_directory_next(&dir, &entry) == 0);
    HOLD(shoal_directory_make(root_fd, "empty/.hidden", 0755) == 0);
    HOLD(shoal_directory_open(&other, root_fd, "empty", 0) == 0);
    HOLD(shoal_directory_next(&other, &entry) == 1 && entry.type == DT_DIR);
    HOLD(strcmp(entry.name, ".hidden") == 0);
    HOLD(shoal_directory_remove(root_fd, "empty/.hidden") == 0);
    HOLD(shoal_directory_remove(root_fd, "empty") == 0);
    shoal_directory_rewind(&other);
    HOLD(shoal_directory_next(&other, &entry) == 0); /* it is gone, and so has nothing in it */
    shoal_directory_close(&other);
    shoal_directory_close(&dir);
    return 0;
}

static void directory_that_is_empty_or_gone_ends_at_once(void **state)
{
    (void)state;
    run_all_ways(odd_fiber);
}

static int untyped_fiber(void *arg)
{
    (void)arg;
    static const struct {
        const char *name;
        uint8_t type;
    } expected[] = {{"hello.txt", DT_REG}, {"sub", DT_DIR}, {"fifo", DT_FIFO}, {"link_in", DT_LNK}};
    struct shoal_directory dir;
    struct shoal_directory_entry entry;
    unsigned found = 0;
    int rc;
    told.untyped = true;
    HOLD(shoal_directory_open(&dir, root_fd, ".", 0) == 0);
    while ((rc = shoal_directory_next(&dir, &entry)) == 1)
        for (size_t i = 0; i < SHOAL_ARRAY_SIZE(expected); i++)
            if (strcmp(entry.name, expected[i].name) == 0) {
                HOLD(entry.type == expected[i].type);
                found++;
            }
    HOLD(rc == 0 && found == SHOAL_ARRAY_SIZE(expected));
    shoal_directory_rewind(&dir);
    told.list_errno = EIO;
    HOLD(shoal_directory_next(&dir, &entry) == -EIO);
    HOLD(shoal_directory_next(&dir, &entry) == -EIO);
    told.list_errno = 0;
    HOLD(shoal_directory_next(&dir, &entry) == 1); /* from the start, as asked for before */
    shoal_directory_close(&dir);
    told.untyped = false;
    return 0;
}

static void directory_without_types_is_asked_for_each(void **state)
{
    (void)state;
    run_all_ways(untyped_fiber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_list_gives_each_entry_once),
        cmocka_unit_test(directory_list_while_files_are_removed_misses_none_that_stays),
        cmocka_unit_test(directory_list_cancelled_at_any_moment_goes_on_where_it_was),
        cmocka_unit_test(directory_that_is_empty_or_gone_ends_at_once),
        cmocka_unit_test(directory_without_types_is_asked_for_each),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
