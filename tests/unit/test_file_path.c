/*
 * Names of files on both backends: facts by path, rename, links, unlink, directories made and
 * removed, and a file system that is full or read-only.
 */
/* backends: both */
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shoal/runtime/directory.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/file_path.h"
#include "shoal/runtime/file_stream.h"

#include "unit/file_check.h"

static struct shoal_file_name name_of(const char *path)
{
    return (struct shoal_file_name){root_fd, path};
}

static int rename_in(const char *from, const char *to, unsigned flags)
{
    const struct shoal_file_name a = name_of(from), b = name_of(to);
    return shoal_file_rename(&a, &b, flags);
}

static int make(const char *path, const char *text)
{
    struct shoal_file file;
    int rc = open_for(&file, path, O_WRONLY | O_CREAT | O_TRUNC);
    if (rc == 0)
        rc = shoal_file_write_all(&file, text, strlen(text), 0);
    shoal_file_close(&file);
    return rc;
}

static bool says(const char *path, const char *text)
{
    struct shoal_file file;
    char buf[64] = "";
    int rc = open_for(&file, path, O_RDONLY);
    if (rc == 0)
        rc = shoal_file_read(&file, buf, sizeof(buf) - 1, 0);
    shoal_file_close(&file);
    return rc >= 0 && strcmp(buf, text) == 0;
}

static bool is_there(const char *path)
{
    return faccessat(root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- Facts ---- */

static int facts_fiber(void *arg)
{
    (void)arg;
    struct shoal_file_stat facts, link;
    struct stat real;
    HOLD(shoal_file_stat_path(root_fd, "hello.txt", 0, &facts) == 0);
    HOLD(fstatat(root_fd, "hello.txt", &real, 0) == 0);
    HOLD(facts.size_bytes == 12 && facts.inode == real.st_ino && facts.device == real.st_dev);
    HOLD(facts.mtime_s == real.st_mtim.tv_sec && facts.ctime_s == real.st_ctim.tv_sec);
    HOLD(facts.mtime_fraction_ns == (uint32_t)real.st_mtim.tv_nsec);
    HOLD(facts.mode == (S_IFREG | 0644) && facts.links == 1 && facts.group == real.st_gid);
    HOLD(facts.block_bytes == (uint32_t)real.st_blksize);
    HOLD(facts.allocated_bytes == (uint64_t)real.st_blocks * 512);
    HOLD(shoal_file_stat_path(root_fd, "link_in", 0, &facts) == 0 && facts.size_bytes == 5);
    HOLD(shoal_file_stat_path(root_fd, "link_in", SHOAL_FILE_NO_FOLLOW, &link) == 0);
    HOLD(S_ISLNK(link.mode) && link.size_bytes == strlen("sub/inner.txt"));
    HOLD(shoal_file_stat_path(root_fd, "sub", 0, &facts) == 0 && S_ISDIR(facts.mode));
    HOLD(shoal_file_stat_path(root_fd, "fifo", 0, &facts) == 0 && S_ISFIFO(facts.mode));
    HOLD(shoal_file_stat_path(AT_FDCWD, "/dev/null", 0, &facts) == 0 && S_ISCHR(facts.mode));
    HOLD(shoal_file_stat_path(root_fd, "nothing", 0, &facts) == -ENOENT);
    HOLD(shoal_file_stat_path(root_fd, "hello.txt/x", 0, &facts) == -ENOTDIR);
    HOLD(shoal_file_stat_path(root_fd, "link_loop", 0, &facts) == -ELOOP);
    HOLD(shoal_file_stat_path(-5, "hello.txt", 0, &facts) == -EBADF);
    HOLD(shoal_file_stat_path(root_fd, "hello.txt", 8, &facts) == -EINVAL);
    HOLD(shoal_file_stat_path(root_fd, "", 0, &facts) == -ENOENT);
    return 0;
}

static void path_stat_tells_what_is_there(void **state)
{
    (void)state;
    run_all_ways(facts_fiber);
}

static int leak_fiber(void *arg)
{
    (void)arg;
    struct shoal_file_stat facts;
    int before = count_descriptors();
    for (int i = 0; i < 100; i++)
        HOLD(shoal_file_stat_path(root_fd, i % 2 == 0 ? "hello.txt" : "link_out", 0, &facts) == 0);
    HOLD(count_descriptors() == before);
    return 0;
}

static void path_stat_leaves_no_descriptor(void **state)
{
    (void)state;
    run_all_ways(leak_fiber);
}

/* ---- Names ---- */

static int rename_fiber(void *arg)
{
    (void)arg;
    HOLD(make("a", "first") == 0 && make("b", "second") == 0);
    HOLD(rename_in("a", "b", SHOAL_FILE_NO_REPLACE) == -EEXIST && says("a", "first"));
    HOLD(rename_in("a", "b", SHOAL_FILE_EXCHANGE) == 0 && says("a", "second") &&
         says("b", "first"));
    HOLD(rename_in("a", "c", SHOAL_FILE_EXCHANGE) == -ENOENT);
    HOLD(rename_in("a", "c", SHOAL_FILE_NO_REPLACE) == 0 && says("c", "second") && !is_there("a"));
    HOLD(rename_in("c", "b", 0) == 0 && says("b", "second") && !is_there("c"));
    HOLD(rename_in("b", "c", SHOAL_FILE_NO_REPLACE | SHOAL_FILE_EXCHANGE) == -EINVAL);
    HOLD(rename_in("b", "c", 16) == -EINVAL);
    HOLD(rename_in("nothing", "c", 0) == -ENOENT);
    HOLD(rename_in("b", "sub", 0) == -EISDIR && rename_in("sub", "b", 0) == -ENOTDIR);
    HOLD(rename_in("sub", "sub/below", 0) == -EINVAL);
    int sub = openat(root_fd, "sub", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const struct shoal_file_name from = name_of("b"), to = {sub, "moved"};
    HOLD(sub >= 0 && shoal_file_rename(&from, &to, 0) == 0 && says("sub/moved", "second"));
    close(sub);
    HOLD(shoal_file_unlink(root_fd, "sub/moved") == 0 && !is_there("sub/moved"));
    return 0;
}

static void path_rename_replaces_keeps_or_exchanges(void **state)
{
    (void)state;
    run_all_ways(rename_fiber);
}

static int links_fiber(void *arg)
{
    (void)arg;
    char text[32];
    struct shoal_file_stat facts;
    const struct shoal_file_name one = name_of("one"), two = name_of("two"), sub = name_of("sub"),
                                 symbolic = name_of("symbolic"), hard = name_of("hard");
    HOLD(make("one", "text") == 0);
    HOLD(shoal_file_link(&one, &two) == 0 && says("two", "text"));
    HOLD(shoal_file_link(&one, &two) == -EEXIST && shoal_file_link(&sub, &hard) == -EPERM);
    HOLD(shoal_file_stat_path(root_fd, "one", 0, &facts) == 0 && facts.links == 2);
    HOLD(shoal_file_symlink("one", root_fd, "symbolic") == 0 && says("symbolic", "text"));
    HOLD(shoal_file_symlink("one", root_fd, "symbolic") == -EEXIST);
    HOLD(shoal_file_link(&symbolic, &hard) == 0); /* the link, not what it leads to */
    HOLD(shoal_file_stat_path(root_fd, "hard", SHOAL_FILE_NO_FOLLOW, &facts) == 0 &&
         S_ISLNK(facts.mode));
    memset(text, 'x', sizeof(text));
    HOLD(shoal_file_readlink(root_fd, "symbolic", text, sizeof(text)) == 3);
    HOLD(strcmp(text, "one") == 0 && text[4] == 'x');
    HOLD(shoal_file_readlink(root_fd, "symbolic", text, 4) == 3);
    HOLD(shoal_file_readlink(root_fd, "symbolic", text, 3) == -ENAMETOOLONG);
    HOLD(shoal_file_readlink(root_fd, "symbolic", text, 0) == -ENAMETOOLONG);
    HOLD(shoal_file_readlink(root_fd, "one", text, sizeof(text)) == -EINVAL);
    HOLD(shoal_file_readlink(root_fd, "nothing", text, sizeof(text)) == -ENOENT);
    static const char *const made[] = {"one", "two", "symbolic", "hard"};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(made); i++)
        HOLD(shoal_file_unlink(root_fd, made[i]) == 0 && !is_there(made[i]));
    HOLD(shoal_file_unlink(root_fd, "one") == -ENOENT);
    HOLD(shoal_file_unlink(root_fd, "sub") == -EISDIR);
    return 0;
}

static void path_links_lead_where_they_say(void **state)
{
    (void)state;
    run_all_ways(links_fiber);
}

static int directories_fiber(void *arg)
{
    (void)arg;
    struct shoal_file_stat facts;
    char longest[300];
    memset(longest, 'n', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    HOLD(shoal_directory_make(root_fd, "made", 0700) == 0);
    HOLD(shoal_file_stat_path(root_fd, "made", 0, &facts) == 0 && facts.mode == (S_IFDIR | 0700));
    HOLD(shoal_directory_make(root_fd, "made", 0700) == -EEXIST);
    HOLD(shoal_directory_make(root_fd, "no/where", 0700) == -ENOENT);
    HOLD(shoal_directory_make(root_fd, longest, 0700) == -ENAMETOOLONG);
    HOLD(shoal_file_unlink(root_fd, longest) == -ENAMETOOLONG);
    HOLD(rename_in("hello.txt", longest, 0) == -ENAMETOOLONG);
    HOLD(make("made/inside", "x") == 0);
    HOLD(shoal_directory_remove(root_fd, "made") == -ENOTEMPTY);
    HOLD(shoal_file_unlink(root_fd, "made") == -EISDIR);
    HOLD(shoal_directory_remove(root_fd, "made/inside") == -ENOTDIR);
    HOLD(shoal_file_unlink(root_fd, "made/inside") == 0);
    struct shoal_file dir; /* a new name is safe once its directory is synced */
    HOLD(open_for(&dir, "made", O_RDONLY | O_DIRECTORY) == 0 && shoal_file_sync(&dir) == 0);
    HOLD(shoal_file_close(&dir) == 0);
    HOLD(shoal_directory_remove(root_fd, "made") == 0 && !is_there("made"));
    HOLD(shoal_directory_remove(root_fd, "made") == -ENOENT);
    return 0;
}

static void path_directories_are_made_and_removed(void **state)
{
    (void)state;
    run_all_ways(directories_fiber);
}

/* ---- Cancel ---- */

static int before_fiber(void *arg)
{
    const int *code = arg;
    struct shoal_file_stat facts;
    struct shoal_directory dir;
    char text[8];
    const struct shoal_file_name from = name_of("hello.txt"), to = name_of("other");
    struct shoal_file file, none;
    struct iovec vec = {text, sizeof(text)};
    HOLD(open_for(&file, "hello.txt", O_RDWR) == 0);
    shoal_fiber_cancel(shoal_fiber_self());
    shoal_fiber_self()->cancel_code = (int16_t)*code;
    HOLD(shoal_file_stat_path(root_fd, "hello.txt", 0, &facts) == *code);
    HOLD(shoal_file_rename(&from, &to, 0) == *code && shoal_file_link(&from, &to) == *code);
    HOLD(shoal_file_symlink("x", root_fd, "other") == *code);
    HOLD(shoal_file_unlink(root_fd, "hello.txt") == *code);
    HOLD(shoal_file_readlink(root_fd, "link_in", text, sizeof(text)) == *code);
    HOLD(shoal_directory_make(root_fd, "other", 0700) == *code);
    HOLD(shoal_directory_remove(root_fd, "sub") == *code);
    HOLD(shoal_directory_open(&dir, root_fd, "sub", 0) == *code);
    HOLD(open_for(&none, "hello.txt", O_RDONLY) == *code);
    HOLD(shoal_file_read(&file, text, 1, 0) == *code &&
         shoal_file_readv(&file, &vec, 1, 0) == *code);
    HOLD(shoal_file_write(&file, text, 1, 0) == *code && shoal_file_append(&file, "x", 1) == *code);
    HOLD(shoal_file_writev(&file, &vec, 1, 0) == *code && shoal_file_sync(&file) == *code);
    HOLD(shoal_file_truncate(&file, 0) == *code && shoal_file_allocate(&file, 0, 0, 99) == *code);
    HOLD(shoal_file_stat(&file, &facts) == *code && shoal_file_writeback(&file, 0, 0) == *code);
    HOLD(shoal_file_close(&file) == 0);
    HOLD(!is_there("other") && is_there("hello.txt") && is_there("sub"));
    return 0;
}

static int cancelled_fiber(void *arg)
{
    (void)arg;
    int codes[] = {-ECANCELED, -ETIMEDOUT};
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(codes); i++) {
        struct shoal_fiber *fiber;
        HOLD(shoal_fiber_spawn(&fiber, before_fiber, &codes[i], "cancelled") == 0);
        HOLD(shoal_fiber_join(fiber) == 0);
    }
    HOLD(says("hello.txt", "hello world\n"));
    return 0;
}

static void path_calls_on_a_cancelled_fiber_do_nothing(void **state)
{
    (void)state;
    run_all_ways(cancelled_fiber);
}

struct mover {
    char names[2][16];
    bool second; /* the file has the second name */
};

/* Moves one file to and fro, and knows after each call where it is: cancelled or not. */
static int move_fiber(void *arg)
{
    struct mover *mover = arg;
    for (;;) {
        int rc = rename_in(mover->names[mover->second], mover->names[!mover->second],
                           SHOAL_FILE_NO_REPLACE);
        if (rc == 0)
            mover->second = !mover->second;
        HOLD(is_there(mover->names[mover->second]) && !is_there(mover->names[!mover->second]));
        if (rc == -ECANCELED)
            return 0;
        HOLD(rc == 0);
    }
}

#define MOVERS 12

static int storm_fiber(void *arg)
{
    (void)arg;
    static struct mover movers[MOVERS];
    struct shoal_fiber *fibers[MOVERS];
    uint64_t random = 99;
    for (int i = 0; i < MOVERS; i++) {
        movers[i].second = false;
        (void)snprintf(movers[i].names[0], sizeof(movers[i].names[0]), "from%d", i);
        (void)snprintf(movers[i].names[1], sizeof(movers[i].names[1]), "to%d", i);
        HOLD(make(movers[i].names[0], "x") == 0);
    }
    for (int round = 0; round < 60 / SHOAL_TEST_SLOWDOWN; round++) {
        for (int i = 0; i < MOVERS; i++)
            HOLD(shoal_fiber_spawn(&fibers[i], move_fiber, &movers[i], "mover") == 0);
        for (uint64_t i = 0; i < shoal_test_random(&random) % 9; i++)
            HOLD(shoal_yield() == 0);
        if (round % 2 == 0)
            HOLD(shoal_sleep_ns(shoal_test_random(&random) % 200000) == 0);
        for (int i = 0; i < MOVERS; i++)
            shoal_fiber_cancel(fibers[i]);
        for (int i = 0; i < MOVERS; i++)
            HOLD(shoal_fiber_join(fibers[i]) == 0);
    }
    for (int i = 0; i < MOVERS; i++)
        HOLD(shoal_file_unlink(root_fd, movers[i].names[movers[i].second]) == 0);
    return 0;
}

static void path_rename_cancelled_at_any_moment_says_whether_it_happened(void **state)
{
    (void)state;
    run_all_ways(storm_fiber);
}

/* ---- A small file system ---- */

static int full_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    static char data[3u << 20];
    HOLD(open_for(&file, "mnt/big", O_RDWR | O_CREAT | O_TRUNC) == 0);
    HOLD(shoal_file_write_all(&file, data, sizeof(data), 0) == -ENOSPC);
    struct shoal_file_stat facts;
    HOLD(shoal_file_stat(&file, &facts) == 0);
    HOLD(facts.size_bytes > 0 && facts.size_bytes <= (1u << 20)); /* what there was room for */
    HOLD(shoal_file_truncate(&file, 0) == 0);
    HOLD(shoal_file_allocate(&file, 0, 0, sizeof(data)) == -ENOSPC);
    HOLD(shoal_file_truncate(&file, 0) == 0);
    struct shoal_file_writer *writer;
    HOLD(shoal_file_writer_new(&writer, &file, NULL) == 0);
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < sizeof(data); at += 10000)
        rc = shoal_file_writer_write(writer, data, 10000);
    HOLD(rc == -ENOSPC && shoal_file_writer_write(writer, "x", 1) == -ENOSPC);
    uint64_t written = shoal_file_writer_written(writer);
    HOLD(shoal_file_writer_close(writer) == -ENOSPC);
    HOLD(shoal_file_stat(&file, &facts) == 0 && facts.size_bytes >= written && written > 0);
    HOLD(shoal_file_truncate(&file, 0) == 0);
    HOLD(shoal_file_write_all(&file, data, 1000, 0) == 0); /* there is room again */
    HOLD(shoal_file_close(&file) == 0);
    HOLD(shoal_file_unlink(root_fd, "mnt/big") == 0);
    const struct shoal_file_name from = name_of("hello.txt"), to = name_of("mnt/hello.txt");
    HOLD(shoal_file_rename(&from, &to, 0) == -EXDEV && shoal_file_link(&from, &to) == -EXDEV);
    return 0;
}

static int read_only_fiber(void *arg)
{
    (void)arg;
    struct shoal_file file;
    HOLD(open_for(&file, "mnt/new", O_RDWR | O_CREAT) == -EROFS && file.fd == -1);
    HOLD(open_for(&file, "mnt/old", O_RDWR) == -EROFS);
    HOLD(shoal_directory_make(root_fd, "mnt/dir", 0700) == -EROFS);
    HOLD(rename_in("mnt/old", "mnt/new", 0) == -EROFS);
    HOLD(shoal_file_unlink(root_fd, "mnt/old") == -EROFS);
    HOLD(shoal_file_symlink("old", root_fd, "mnt/new") == -EROFS);
    HOLD(says("mnt/old", ""));
    return 0;
}

/* In a process of its own, which has mounts of its own where the system allows that. */
static int small_disk(void *arg)
{
    (void)arg;
    if (mkdirat(root_fd, "mnt", 0755) != 0)
        return 2;
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/root/mnt", base);
    if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("shoal_test", path, "tmpfs", 0, "size=1m") != 0) {
        fprintf(stderr, "no mounts here: %s\n", strerror(errno));
        return unlinkat(root_fd, "mnt", AT_REMOVEDIR);
    }
    (void)snprintf(path, sizeof(path), "%s/root", base);
    root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* with the new mount */
    (void)snprintf(path, sizeof(path), "%s/root/mnt", base);
    tell_nothing();
    int rc = shoal_test_run(1, full_fiber, NULL);
    shoal_fiber_fn *fn = full_fiber;
    if (rc == 0)
        rc = shoal_test_run(1, without_ring, &fn);
    int old = openat(root_fd, "mnt/old", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (rc != 0 || old < 0 || close(old) != 0 ||
        mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        return 3;
    rc = shoal_test_run(1, read_only_fiber, NULL);
    fn = read_only_fiber;
    if (rc == 0)
        rc = shoal_test_run(1, without_ring, &fn);
    (void)umount2(path, MNT_DETACH);
    (void)unlinkat(root_fd, "mnt", AT_REMOVEDIR);
    return rc == 0 ? 0 : 4;
}

static void path_full_and_read_only_file_systems_say_so(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, small_disk, NULL);
    if (child.exit_code != 0)
        fail_msg("exit code %d, signal %d: %s", child.exit_code, child.signal, child.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(path_stat_tells_what_is_there),
        cmocka_unit_test(path_stat_leaves_no_descriptor),
        cmocka_unit_test(path_rename_replaces_keeps_or_exchanges),
        cmocka_unit_test(path_links_lead_where_they_say),
        cmocka_unit_test(path_directories_are_made_and_removed),
        cmocka_unit_test(path_calls_on_a_cancelled_fiber_do_nothing),
        cmocka_unit_test(path_rename_cancelled_at_any_moment_says_whether_it_happened),
        cmocka_unit_test(path_full_and_read_only_file_systems_say_so),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
