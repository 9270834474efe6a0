/*
 * Changes of files: single, recursive, moved, lost; and races with what is made meanwhile.
 */
/* backends: both */
#include <stdatomic.h>

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shoal/runtime/clock.h"
#include "shoal/runtime/core.h"
#include "shoal/runtime/fiber.h"
#include "shoal/runtime/watch.h"

#include "unit/harness.h"

#define LONG_NS  (10 * SHOAL_NS_PER_S)
#define QUIET_NS (60 * SHOAL_NS_PER_MS) /* longer than a moved directory is waited for */

/* ---- A directory of our own, and what is done in it ---- */

static char base[64];

static const char *at(const char *name)
{
    static char paths[4][600];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s%s%s", base, name[0] != '\0' ? "/" : "", name);
    return path;
}

static int remove_one(const char *path, const struct stat *found, int type, struct FTW *ftw)
{
    (void)found;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void clear(void)
{
    if (base[0] != '\0')
        nftw(base, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    base[0] = '\0';
}

static int set_up(void **state)
{
    (void)state;
    snprintf(base, sizeof(base), "/tmp/shoal-test-watch-XXXXXX");
    return mkdtemp(base) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    clear();
    return 0;
}

static void make_dir(const char *name)
{
    SHOAL_EXPECT_INT(mkdir(at(name), 0700), 0);
}

static void write_file(const char *name)
{
    int fd = open(at(name), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    SHOAL_EXPECT_INT(write(fd, "x", 1), 1);
    close(fd);
}

static void move(const char *from, const char *to)
{
    SHOAL_EXPECT_INT(rename(at(from), at(to)), 0);
}

static struct shoal_watch *watch_new(void)
{
    struct shoal_watch *watch = NULL;
    SHOAL_EXPECT_INT(shoal_watch_new(&watch), 0);
    return watch;
}

static int add(struct shoal_watch *watch, const char *name, uint32_t kinds, bool recursive)
{
    int id = shoal_watch_add(watch, at(name),
                             &(struct shoal_watch_how){.kinds = kinds, .recursive = recursive});
    if (!SHOAL_EXPECT(id > 0))
        fprintf(stderr, "it is: %d, %s\n", id, shoal_error_message());
    return id;
}

/* The next event is to be this one; returns its cookie. */
static uint32_t expect_event(struct shoal_watch *watch, int id, uint32_t kinds, const char *path)
{
    struct shoal_watch_event event = {.path = ""};
    SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0);
    bool same = event.id == id && event.kinds == kinds && strcmp(event.path, path) == 0;
    if (!SHOAL_EXPECT(same))
        fprintf(stderr, "it is: %d 0x%x \"%s\", error %d\nand not: %d 0x%x \"%s\"\n", event.id,
                event.kinds, event.path, event.error, id, kinds, path);
    return event.cookie;
}

static void expect_quiet(struct shoal_watch *watch)
{
    struct shoal_watch_event event;
    int rc = shoal_watch_next(watch, &event, QUIET_NS);
    if (!SHOAL_EXPECT_INT(rc, -ETIMEDOUT))
        fprintf(stderr, "it is: %d 0x%x \"%s\"\n", event.id, event.kinds, event.path);
}

/* Takes events until this one has come. */
static void expect_sometime(struct shoal_watch *watch, uint32_t kinds, const char *path)
{
    struct shoal_watch_event event;
    do {
        if (!SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0))
            return;
    } while ((event.kinds & kinds) == 0 || strcmp(event.path, path) != 0);
}

/* ---- One file, one directory ---- */

static int watch_one(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    struct shoal_watch_event event;
    int dir = add(watch, "", 0, false);
    SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, 0), -ETIMEDOUT);
    write_file("a");
    expect_event(watch, dir, SHOAL_WATCH_CREATED, "a");
    expect_event(watch, dir, SHOAL_WATCH_MODIFIED, "a");
    expect_event(watch, dir, SHOAL_WATCH_WRITTEN, "a");
    SHOAL_EXPECT_INT(chmod(at("a"), 0400), 0);
    expect_event(watch, dir, SHOAL_WATCH_ATTRIBUTES, "a");
    move("a", "b");
    uint32_t from = expect_event(watch, dir, SHOAL_WATCH_MOVED_FROM, "a");
    uint32_t to = expect_event(watch, dir, SHOAL_WATCH_MOVED_TO, "b");
    SHOAL_EXPECT(from != 0 && from == to);
    make_dir("sub");
    expect_event(watch, dir, SHOAL_WATCH_CREATED, "sub");
    write_file("sub/deep"); /* not recursive */
    SHOAL_EXPECT_INT(unlink(at("b")), 0);
    expect_event(watch, dir, SHOAL_WATCH_DELETED, "b");
    expect_quiet(watch);

    write_file("c");
    expect_sometime(watch, SHOAL_WATCH_WRITTEN, "c");
    int file = add(watch, "c", SHOAL_WATCH_MODIFIED, false);
    SHOAL_EXPECT(file != dir);
    SHOAL_EXPECT_INT(truncate(at("c"), 0), 0);
    expect_event(watch, dir, SHOAL_WATCH_MODIFIED, "c");
    expect_event(watch, file, SHOAL_WATCH_MODIFIED, "");
    move("c", "d");
    expect_event(watch, dir, SHOAL_WATCH_MOVED_FROM, "c");
    expect_event(watch, dir, SHOAL_WATCH_MOVED_TO, "d");
    expect_event(watch, file, SHOAL_WATCH_MOVED_SELF, "");
    SHOAL_EXPECT_INT(unlink(at("d")), 0);
    expect_sometime(watch, SHOAL_WATCH_GONE, "");
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, file), -ENOENT);
    shoal_watch_free(watch);
    return 0;
}

static void watch_tells_what_happens_to_a_file_and_in_a_directory(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_one, NULL), 0);
}

static int watch_kinds(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    int id = add(watch, "", SHOAL_WATCH_OPENED | SHOAL_WATCH_READ | SHOAL_WATCH_DELETED, true);
    write_file("a");
    expect_sometime(watch, SHOAL_WATCH_OPENED, "a");
    int fd = open(at("a"), O_RDONLY);
    char byte;
    SHOAL_EXPECT_INT(read(fd, &byte, 1), 1);
    close(fd);
    expect_event(watch, id, SHOAL_WATCH_OPENED, "a");
    expect_event(watch, id, SHOAL_WATCH_READ, "a");
    make_dir("sub");                /* followed although CREATED is not asked for */
    struct shoal_watch_event event; /* one reads it: the watch itself, as it looks into it */
    SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0);
    while (shoal_watch_next(watch, &event, QUIET_NS) == 0)
        SHOAL_EXPECT((event.kinds & ~(SHOAL_WATCH_OPENED | SHOAL_WATCH_READ)) == 0);
    write_file("sub/b");
    expect_sometime(watch, SHOAL_WATCH_OPENED, "sub/b");
    SHOAL_EXPECT_INT(unlink(at("sub/b")), 0);
    expect_event(watch, id, SHOAL_WATCH_DELETED, "sub/b");
    shoal_watch_free(watch);
    return 0;
}

static void watch_tells_only_what_was_asked_for(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_kinds, NULL), 0);
}

static int watch_ids(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    make_dir("one");
    make_dir("two");
    int one = add(watch, "one", 0, false);
    int two = add(watch, "two", 0, true);
    SHOAL_EXPECT(one != two);
    make_dir("one/x");
    make_dir("two/x");
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, one), 0);
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, one), -ENOENT);
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, 99), -ENOENT);
    expect_event(watch, two, SHOAL_WATCH_CREATED, "x"); /* what waited of the other is gone */
    make_dir("one/y");
    expect_quiet(watch);
    int again = add(watch, "one", 0, false);
    SHOAL_EXPECT(again != one);
    make_dir("one/z");
    expect_event(watch, again, SHOAL_WATCH_CREATED, "z");
    SHOAL_EXPECT_INT(rmdir(at("one/x")) | rmdir(at("one/y")) | rmdir(at("one/z")), 0);
    SHOAL_EXPECT_INT(rmdir(at("one")), 0);
    expect_sometime(watch, SHOAL_WATCH_GONE, "");
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, again), -ENOENT);
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, two), 0);
    make_dir("two/y");
    expect_quiet(watch);
    shoal_watch_free(watch);
    return 0;
}

static void watch_removed_tells_no_more(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_ids, NULL), 0);
}

/* ---- What cannot be watched ---- */

static void fails(struct shoal_watch *watch, const char *path, const struct shoal_watch_how *how,
                  int code, const char *text)
{
    SHOAL_EXPECT_INT(shoal_watch_add(watch, path, how), code);
    if (!SHOAL_EXPECT(strstr(shoal_error_message(), text) != NULL))
        fprintf(stderr, "it says: %s\n", shoal_error_message());
}

static int watch_refused(void *arg)
{
    (void)arg;
    static char long_path[5000];
    memset(long_path, 'x', sizeof(long_path) - 1);
    struct shoal_watch *watch = watch_new();
    write_file("file");
    make_dir("dir");
    make_dir("dir/sub");
    SHOAL_EXPECT_INT(symlink("dir", at("link")), 0);
    fails(watch, at("no"), NULL, -ENOENT, "cannot watch \"/tmp/shoal-test-watch-");
    fails(watch, at("file"), &(struct shoal_watch_how){.directory = true}, -ENOTDIR, "directory");
    fails(watch, at("file"), &(struct shoal_watch_how){.recursive = true}, -ENOTDIR, "directory");
    fails(watch, long_path, NULL, -ENAMETOOLONG, "too long");
    fails(watch, "", NULL, -ENOENT, "cannot watch \"\"");
    fails(watch, at("file"), &(struct shoal_watch_how){.kinds = SHOAL_WATCH_GONE}, -EINVAL,
          "kinds 0x1000 are not to be asked for (allowed: any of 0x1ff)");
    int id = add(watch, "dir", 0, true);
    fails(watch, at("dir"), NULL, -EEXIST, "it is watched already, by this name or another");
    fails(watch, at("link"), NULL, -EEXIST, "it is watched already");
    fails(watch, at("dir/sub"), NULL, -EEXIST, "it is watched already");
    /* And nothing of that has changed the one that is there. */
    write_file("dir/sub/a");
    expect_event(watch, id, SHOAL_WATCH_CREATED, "sub/a");
    expect_event(watch, id, SHOAL_WATCH_MODIFIED, "sub/a");
    expect_event(watch, id, SHOAL_WATCH_WRITTEN, "sub/a");
    int link = shoal_watch_add(watch, at("link"), &(struct shoal_watch_how){.no_symlink = true});
    SHOAL_EXPECT(link > id);
    SHOAL_EXPECT_INT(unlink(at("link")), 0);
    expect_sometime(watch, SHOAL_WATCH_GONE, "");
    expect_quiet(watch);
    shoal_watch_free(watch);
    shoal_watch_free(NULL);
    return 0;
}

static void watch_that_cannot_be_had_says_why(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_refused, NULL), 0);
}

static int no_instances(void *arg)
{
    (void)arg;
    struct rlimit old;
    struct rlimit few = {3, 3};
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    struct shoal_watch *watch = NULL;
    int rc = shoal_watch_new(&watch);
    setrlimit(RLIMIT_NOFILE, &old);
    SHOAL_EXPECT_INT(rc, -EMFILE);
    SHOAL_EXPECT(watch == NULL);
    SHOAL_EXPECT(strstr(shoal_error_message(), "fs.inotify.max_user_instances") != NULL);
    return 0;
}

static void watch_without_descriptors_names_the_limit(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, no_instances, NULL), 0);
}

/* A limit for a user namespace of this process's own; the machine's stays as it is. */
static bool lower_watch_limit(const char *limit)
{
    if (unshare(CLONE_NEWUSER) != 0)
        return false;
    int fd = open("/proc/sys/user/max_inotify_watches", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, limit, strlen(limit)) > 0;
    close(fd);
    return done;
}

static int few_watches(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    char name[64];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        make_dir(name);
    }
    fails(watch, base, &(struct shoal_watch_how){.recursive = true}, -ENOSPC,
          "the limit fs.inotify.max_user_watches of this user is reached");
    expect_quiet(watch); /* nothing is left of it */
    for (int i = 4; i < 8; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        SHOAL_EXPECT_INT(rmdir(at(name)), 0);
    }
    int id = add(watch, "", SHOAL_WATCH_CREATED, true); /* five; one more is allowed */
    make_dir("d1/e1");
    expect_event(watch, id, SHOAL_WATCH_CREATED, "d1/e1");
    make_dir("d1/e2");
    expect_event(watch, id, SHOAL_WATCH_CREATED, "d1/e2");
    struct shoal_watch_event event;
    SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0);
    SHOAL_EXPECT_INT(event.kinds, SHOAL_WATCH_LOST);
    SHOAL_EXPECT_INT(event.error, -ENOSPC);
    SHOAL_EXPECT(event.id == id && strcmp(event.path, "d1/e2") == 0);
    make_dir("d1/e1/f"); /* no more room either, but the rest is still told */
    expect_event(watch, id, SHOAL_WATCH_CREATED, "d1/e1/f");
    shoal_watch_free(watch);
    return 0;
}

static int run_few_watches(void *arg)
{
    if (!lower_watch_limit("6"))
        return 77; /* this machine lets nobody do that */
    return shoal_test_run(1, few_watches, arg);
}

static void watch_over_the_limit_of_watches_names_it(void **state)
{
    (void)state;
    struct shoal_test_child child;
    shoal_test_in_child(&child, run_few_watches, NULL);
    if (child.exit_code != 0 && child.exit_code != 77)
        fail_msg("exit code %d: %s", child.exit_code, child.text);
}

/* ---- Recursive ---- */

static int watch_tree(void *arg)
{
    (void)arg;
    make_dir("a");
    make_dir("a/b");
    make_dir("a/b/c");
    write_file("a/b/c/old");
    SHOAL_EXPECT_INT(symlink("/usr", at("a/link")), 0); /* not followed */
    struct shoal_watch *watch = watch_new();
    int id = add(watch, "a",
                 SHOAL_WATCH_CREATED | SHOAL_WATCH_DELETED | SHOAL_WATCH_MODIFIED |
                     SHOAL_WATCH_MOVED_FROM | SHOAL_WATCH_MOVED_TO,
                 true);
    expect_quiet(watch); /* what was there is no news */
    write_file("a/b/c/old");
    expect_sometime(watch, SHOAL_WATCH_MODIFIED, "b/c/old");
    make_dir("a/new");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "new");
    expect_quiet(watch);
    write_file("a/new/file");
    expect_event(watch, id, SHOAL_WATCH_CREATED, "new/file");
    expect_event(watch, id, SHOAL_WATCH_MODIFIED, "new/file");
    /* Moved within: what is below goes with it. */
    move("a/b", "a/new/b2");
    uint32_t from = expect_event(watch, id, SHOAL_WATCH_MOVED_FROM, "b");
    SHOAL_EXPECT_INT(expect_event(watch, id, SHOAL_WATCH_MOVED_TO, "new/b2"), from);
    write_file("a/new/b2/c/old");
    expect_sometime(watch, SHOAL_WATCH_MODIFIED, "new/b2/c/old");
    move("a/new", "a/newer");
    expect_sometime(watch, SHOAL_WATCH_MOVED_TO, "newer");
    write_file("a/newer/b2/c/more");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "newer/b2/c/more");
    expect_sometime(watch, SHOAL_WATCH_MODIFIED, "newer/b2/c/more");
    /* Moved out: no more of it. */
    move("a/newer/b2", "out");
    expect_event(watch, id, SHOAL_WATCH_MOVED_FROM, "newer/b2");
    expect_quiet(watch);
    write_file("out/c/old");
    expect_quiet(watch);
    /* Moved in: news, with all that is in it. */
    move("out", "a/in");
    expect_event(watch, id, SHOAL_WATCH_MOVED_TO, "in");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "in/c");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "in/c/old");
    write_file("a/in/c/old");
    expect_sometime(watch, SHOAL_WATCH_MODIFIED, "in/c/old");
    shoal_watch_free(watch);
    return 0;
}

static void watch_recursive_follows_directories(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_tree, NULL), 0);
}

static int watch_gone_below(void *arg)
{
    (void)arg;
    make_dir("a");
    make_dir("a/b");
    struct shoal_watch *watch = watch_new();
    int id = add(watch, "a", SHOAL_WATCH_CHANGES & ~SHOAL_WATCH_ATTRIBUTES, true);
    for (int i = 0; i < 3; i++) { /* the same name again and again */
        SHOAL_EXPECT_INT(rmdir(at("a/b")), 0);
        expect_event(watch, id, SHOAL_WATCH_DELETED, "b");
        make_dir("a/b");
        expect_event(watch, id, SHOAL_WATCH_CREATED, "b");
        expect_quiet(watch);
        write_file("a/b/file");
        expect_sometime(watch, SHOAL_WATCH_CREATED, "b/file");
        SHOAL_EXPECT_INT(unlink(at("a/b/file")), 0);
        expect_sometime(watch, SHOAL_WATCH_DELETED, "b/file");
    }
    /* One takes the other's place. */
    make_dir("a/c");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "c");
    expect_quiet(watch);
    move("a/c", "a/b");
    expect_sometime(watch, SHOAL_WATCH_MOVED_TO, "b");
    write_file("a/b/from-c");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "b/from-c");
    move("a", "z");
    expect_sometime(watch, SHOAL_WATCH_MOVED_SELF, "");
    SHOAL_EXPECT_INT(unlink(at("z/b/from-c")) | rmdir(at("z/b")) | rmdir(at("z")), 0);
    expect_sometime(watch, SHOAL_WATCH_GONE, "");
    expect_quiet(watch);
    shoal_watch_free(watch);
    return 0;
}

static void watch_recursive_follows_removals(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_gone_below, NULL), 0);
}

/* From one recursive root into another of the same watch. */
static int watch_two_trees(void *arg)
{
    (void)arg;
    make_dir("a");
    make_dir("a/x");
    make_dir("a/x/y");
    make_dir("b");
    struct shoal_watch *watch = watch_new();
    const uint32_t kinds = SHOAL_WATCH_CREATED | SHOAL_WATCH_MOVED_FROM | SHOAL_WATCH_MOVED_TO;
    int a = add(watch, "a", kinds, true);
    int b = add(watch, "b", kinds, true);
    move("a/x", "b/x");
    uint32_t cookie = expect_event(watch, a, SHOAL_WATCH_MOVED_FROM, "x");
    SHOAL_EXPECT_INT(expect_event(watch, b, SHOAL_WATCH_MOVED_TO, "x"), cookie);
    expect_event(watch, b, SHOAL_WATCH_CREATED, "x/y");
    expect_quiet(watch);
    write_file("b/x/y/file");
    expect_event(watch, b, SHOAL_WATCH_CREATED, "x/y/file");
    expect_quiet(watch);
    SHOAL_EXPECT_INT(shoal_watch_remove(watch, a), 0);
    write_file("b/x/y/more");
    expect_event(watch, b, SHOAL_WATCH_CREATED, "x/y/more");
    shoal_watch_free(watch);
    return 0;
}

static void watch_moved_between_roots_belongs_to_the_new_one(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_two_trees, NULL), 0);
}

/* ---- Races: a tree is made as fast as it goes, and every file of it must be told ---- */

#define RACE_WIDTH 12
#define RACE_FILES (RACE_WIDTH * RACE_WIDTH * 2)

static void make_tree(const char *top)
{
    char name[200];
    snprintf(name, sizeof(name), "%s", top);
    make_dir(name);
    for (int i = 0; i < RACE_WIDTH; i++) {
        snprintf(name, sizeof(name), "%s/%d", top, i);
        make_dir(name);
        for (int j = 0; j < RACE_WIDTH; j++) {
            snprintf(name, sizeof(name), "%s/%d/%d", top, i, j);
            make_dir(name);
            for (int k = 0; k < 2; k++) {
                snprintf(name, sizeof(name), "%s/%d/%d/%d", top, i, j, k);
                write_file(name);
            }
            if (j % 4 == 0)
                SHOAL_EXPECT_INT(shoal_sleep_ns(j % 8 == 0 ? 0 : 200 * SHOAL_NS_PER_US), 0);
        }
    }
}

static int make_race_tree(void *arg)
{
    make_tree(arg);
    return 0;
}

/* Takes events until every file below `top` was told as CREATED. */
static void expect_tree(struct shoal_watch *watch, const char *top)
{
    static bool seen[RACE_FILES];
    int left = RACE_FILES;
    char format[64];
    memset(seen, 0, sizeof(seen));
    snprintf(format, sizeof(format), "%s/%%d/%%d/%%d", top);
    while (left > 0) {
        struct shoal_watch_event event;
        int i, j, k;
        if (!SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, 5 * SHOAL_NS_PER_S), 0))
            break;
        SHOAL_EXPECT_INT(event.kinds & SHOAL_WATCH_LOST, 0);
        if ((event.kinds & SHOAL_WATCH_CREATED) == 0 || sscanf(event.path, format, &i, &j, &k) != 3)
            continue;
        bool *one = &seen[(i * RACE_WIDTH + j) * 2 + k];
        left -= !*one;
        *one = true;
    }
    SHOAL_EXPECT_INT(left, 0);
}

static int watch_race(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    (void)add(watch, "", SHOAL_WATCH_CREATED, true);
    struct shoal_fiber *fiber = NULL;
    for (int round = 0; round < 2; round++) {
        char top[16];
        snprintf(top, sizeof(top), "t%d", round);
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, make_race_tree, top, "maker"), 0);
        expect_tree(watch, top);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), 0);
    }
    shoal_watch_free(watch);
    return 0;
}

static void watch_recursive_misses_nothing_of_a_tree_that_is_being_made(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_race, NULL), 0);
}

static atomic_bool churning;

static void *churn(void *arg)
{
    (void)arg;
    char from[64];
    char to[64];
    for (int i = 0; atomic_load(&churning); i++) { /* directories come, move and go */
        snprintf(from, sizeof(from), "c/x%d", i % 7);
        snprintf(to, sizeof(to), "c/m%d", i % 5);
        (void)mkdir(at(from), 0700);
        (void)rename(at(from), at(to));
        snprintf(from, sizeof(from), "c/m%d/in", i % 5);
        (void)mkdir(at(from), 0700);
        if (i % 3 == 0)
            (void)rename(at(from), at("c/up"));
        (void)rmdir(at("c/up"));
        (void)rmdir(at(from));
        if (i % 4 == 0)
            (void)rmdir(at(to));
        if (i % 3 == 0)
            usleep(i % 5 == 0 ? 300 : 50);
    }
    return NULL;
}

/* Whatever happens meanwhile, in the end the watch knows where everything is. */
static int watch_churn(void *arg)
{
    (void)arg;
    make_dir("c");
    struct shoal_watch *watch = watch_new();
    (void)add(watch, "", SHOAL_WATCH_CREATED, true);
    pthread_t thread;
    atomic_store(&churning, true);
    SHOAL_EXPECT_INT(pthread_create(&thread, NULL, churn, NULL), 0);
    struct shoal_watch_event event;
    for (int i = 0; i < 2000 / SHOAL_TEST_SLOWDOWN; i++)
        SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0);
    atomic_store(&churning, false);
    pthread_join(thread, NULL);
    while (shoal_watch_next(watch, &event, QUIET_NS) == 0)
        continue;
    char name[64];
    char below[64];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "c/m%d", i);
        (void)mkdir(at(name), 0700);
    }
    while (shoal_watch_next(watch, &event, QUIET_NS) == 0)
        continue;
    for (int i = 0; i < 5; i++) {
        snprintf(below, sizeof(below), "c/m%d/last", i);
        write_file(below);
        expect_sometime(watch, SHOAL_WATCH_CREATED, below);
    }
    shoal_watch_free(watch);
    return 0;
}

static void watch_recursive_survives_directories_that_come_and_go(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_churn, NULL), 0);
}

/* Adding and removing while another fiber takes events. */
static int take_all(void *arg)
{
    struct shoal_watch_event event;
    int rc;
    while ((rc = shoal_watch_next(arg, &event, SHOAL_NS_FOREVER)) == 0)
        continue;
    return rc;
}

static int watch_add_meanwhile(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    make_tree("t");
    struct shoal_fiber *taker = NULL;
    SHOAL_EXPECT_INT(shoal_fiber_spawn(&taker, take_all, watch, "taker"), 0);
    (void)add(watch, "", 0, false);
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof(name), "t/0/%d/new%d", i % RACE_WIDTH, i);
        int id = add(watch, "t", 0, true);
        make_dir(name);
        SHOAL_EXPECT_INT(shoal_sleep_ns((uint64_t)(i % 3) * 100 * SHOAL_NS_PER_US), 0);
        SHOAL_EXPECT_INT(shoal_watch_remove(watch, id), 0);
    }
    shoal_fiber_cancel(taker);
    SHOAL_EXPECT_INT(shoal_fiber_join(taker), -ECANCELED);
    shoal_watch_free(watch);
    return 0;
}

static void watch_added_and_removed_while_a_fiber_waits(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_add_meanwhile, NULL), 0);
}

/* ---- Lost events ---- */

static int queue_limit(void)
{
    char text[32] = "16384";
    int fd = open("/proc/sys/fs/inotify/max_queued_events", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    return n > 0 ? (int)strtol(text, NULL, 10) : 16384;
}

static int watch_overflow(void *arg)
{
    (void)arg;
    make_dir("a");
    make_dir("a/known");
    make_dir("a/moved");
    struct shoal_watch *watch = watch_new();
    int id = add(watch, "a", SHOAL_WATCH_CHANGES, true);
    int fd = open(at("a/known/file"), O_CREAT | O_RDWR, 0600);
    for (int i = 0; i < queue_limit() / 2 + 100; i++) { /* two that alternate do not merge */
        SHOAL_EXPECT_INT(fchmod(fd, 0600), 0);
        SHOAL_EXPECT_INT(pwrite(fd, "x", 1, 0), 1);
    }
    close(fd);
    make_dir("a/unseen"); /* these events are lost */
    make_dir("a/unseen/deep");
    move("a/moved", "a/unseen/moved");
    SHOAL_EXPECT_INT(unlink(at("a/known/file")), 0);
    struct shoal_watch_event event;
    int before = 0;
    do {
        SHOAL_EXPECT_INT(shoal_watch_next(watch, &event, LONG_NS), 0);
        SHOAL_EXPECT((event.kinds & SHOAL_WATCH_CREATED) == 0 || before == 0);
        before++;
    } while ((event.kinds & SHOAL_WATCH_LOST) == 0);
    SHOAL_EXPECT(before > queue_limit() / 2);
    SHOAL_EXPECT_INT(event.id, 0);
    SHOAL_EXPECT_INT(event.error, -EOVERFLOW);
    SHOAL_EXPECT(event.path[0] == '\0');
    /* From here on everything is watched, wherever it is by now. */
    write_file("a/unseen/deep/one");
    expect_event(watch, id, SHOAL_WATCH_CREATED, "unseen/deep/one");
    write_file("a/unseen/moved/two");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "unseen/moved/two");
    write_file("a/known/three");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "known/three");
    shoal_watch_free(watch);
    return 0;
}

static void watch_overflow_is_told_and_everything_watched_again(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_overflow, NULL), 0);
}

/* ---- Waiting ---- */

static int next_long(void *arg)
{
    struct shoal_watch_event event;
    return shoal_watch_next(arg, &event, LONG_NS);
}

static int watch_waits(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    int id = add(watch, "", SHOAL_WATCH_CREATED, true);
    struct shoal_fiber *fiber = NULL;
    for (int rest = 0; rest < 2; rest++) {
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, next_long, watch, "waiter"), 0);
        for (int i = 0; i < rest; i++)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        SHOAL_EXPECT_INT(shoal_fiber_join(fiber), -ECANCELED);
    }
    make_dir("a");
    make_dir("a/b");
    /* Cancelled in the middle of looking into what is new: nothing is lost by it. */
    for (int i = 0; i < 30; i++) {
        SHOAL_EXPECT_INT(shoal_fiber_spawn(&fiber, next_long, watch, "waiter"), 0);
        SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_fiber_cancel(fiber);
        int rc = shoal_fiber_join(fiber);
        SHOAL_EXPECT(rc == -ECANCELED || rc == 0);
    }
    make_dir("a/b/c");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "a/b/c");

    struct shoal_future *future = shoal_watch_next_future(watch);
    make_dir("x");
    union shoal_value value;
    SHOAL_EXPECT_INT(shoal_await(future, &value), 0);
    const struct shoal_watch_event *event = value.ptr;
    while (strcmp(event->path, "x") != 0) {
        SHOAL_EXPECT_INT(shoal_await(shoal_watch_next_future(watch), &value), 0);
        event = value.ptr;
    }
    SHOAL_EXPECT(event->id == id && event->kinds == SHOAL_WATCH_CREATED && event->is_directory);
    for (int rest = 0; rest < 2; rest++) {
        future = shoal_watch_next_future(watch);
        for (int i = 0; i < rest; i++)
            SHOAL_EXPECT_INT(shoal_yield(), 0);
        shoal_future_cancel(future);
        SHOAL_EXPECT_INT(shoal_await(future, NULL), -ECANCELED);
    }
    make_dir("y");
    expect_sometime(watch, SHOAL_WATCH_CREATED, "y");
    shoal_watch_free(watch);
    return 0;
}

static void watch_wait_ended_early_loses_nothing(void **state)
{
    (void)state;
    assert_int_equal(shoal_test_run(1, watch_waits, NULL), 0);
}

static int free_while_waiting(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    (void)shoal_fiber_spawn_detached(next_long, watch, "waiter");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    shoal_watch_free(watch);
    return 0;
}

static int wait_twice(void *arg)
{
    (void)arg;
    struct shoal_watch *watch = watch_new();
    (void)shoal_fiber_spawn_detached(next_long, watch, "waiter");
    (void)shoal_sleep_ns(SHOAL_NS_PER_MS);
    return next_long(watch);
}

static void watch_misuse_aborts(void **state)
{
    (void)state;
    shoal_test_fiber_aborts_with(1, free_while_waiting,
                                 "a watch is freed while a fiber waits for it");
    shoal_test_fiber_aborts_with(1, wait_twice, "two fibers wait for a watch");
}

#define WATCH_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH_TEST(watch_tells_what_happens_to_a_file_and_in_a_directory),
        WATCH_TEST(watch_tells_only_what_was_asked_for),
        WATCH_TEST(watch_removed_tells_no_more),
        WATCH_TEST(watch_that_cannot_be_had_says_why),
        WATCH_TEST(watch_without_descriptors_names_the_limit),
        WATCH_TEST(watch_over_the_limit_of_watches_names_it),
        WATCH_TEST(watch_recursive_follows_directories),
        WATCH_TEST(watch_recursive_follows_removals),
        WATCH_TEST(watch_moved_between_roots_belongs_to_the_new_one),
        WATCH_TEST(watch_recursive_misses_nothing_of_a_tree_that_is_being_made),
        WATCH_TEST(watch_recursive_survives_directories_that_come_and_go),
        WATCH_TEST(watch_added_and_removed_while_a_fiber_waits),
        WATCH_TEST(watch_overflow_is_told_and_everything_watched_again),
        WATCH_TEST(watch_wait_ended_early_loses_nothing),
        WATCH_TEST(watch_misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
