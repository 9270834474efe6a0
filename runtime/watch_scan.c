/*
 * Walking over the directories of a recursive watch: see watch_impl.h. Whatever may wait for the
 * disk is done on a helper thread, one directory or one part of its list at a time.
 */
#include <errno.h>
#include <string.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/watch_impl.h"

#define CONTESTED_MAX 8 /* a mount may show one directory at two places */

/* What getdents64(2) gives. */
struct entry {
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    unsigned char type;
    char name[];
};

void shoal_watch_scan_init(struct shoal_watch_scan *scan, struct shoal_watch *watch)
{
    scan->watch = watch;
    shoal_list_init(&scan->todo);
    scan->at = NULL;
    scan->fd = -1;
}

static void leave(struct shoal_watch_scan *scan)
{
    if (scan->fd >= 0)
        close(scan->fd);
    scan->fd = -1;
    if (scan->at != NULL)
        shoal_watch_node_unref(scan->at);
    scan->at = NULL;
}

void shoal_watch_scan_deinit(struct shoal_watch_scan *scan)
{
    leave(scan);
    while (shoal_list_take_front(&scan->todo) != NULL)
        continue;
}

void shoal_watch_scan_add(struct shoal_watch_scan *scan, struct shoal_watch_node *node, bool tell)
{
    node->tell = tell;
    node->verify = false;
    shoal_list_remove(&node->work);
    shoal_list_push_back(&scan->todo, &node->work);
}

void shoal_watch_scan_verify(struct shoal_watch_scan *scan, struct shoal_watch_node *node)
{
    shoal_watch_scan_add(scan, node, true);
    node->verify = true;
}

/* ---- On a helper thread ---- */

static int watch_and_open(void *arg)
{
    struct shoal_watch_scan *scan = arg;
    scan->wd = inotify_add_watch(scan->inotify, scan->path, scan->mask);
    if (scan->wd < 0)
        return -errno;
    int follow = (scan->mask & IN_DONT_FOLLOW) != 0 ? O_NOFOLLOW : 0;
    scan->fd = open(scan->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow);
    return scan->fd >= 0 ? 0 : -errno;
}

static int list_more(void *arg)
{
    struct shoal_watch_scan *scan = arg;
    long got = syscall(SYS_getdents64, scan->fd, scan->list, sizeof(scan->list));
    if (got < 0)
        return -errno;
    scan->used = 0;
    scan->filled = (size_t)got;
    for (size_t at = 0; at < scan->filled;) {
        struct entry *entry = (struct entry *)(void *)(scan->list + at);
        struct stat found;
        if (entry->type == DT_UNKNOWN &&
            fstatat(scan->fd, entry->name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(found.st_mode))
            entry->type = DT_DIR;
        at += entry->bytes;
    }
    return 0;
}

/* ---- On the core ---- */

/* The path of `node` as system calls want it. */
static int full_path(const struct shoal_watch_node *node, char *out)
{
    const struct shoal_watch_root *root = node->root;
    size_t len = strlen(root->path);
    memcpy(out, root->path, len);
    if (node->parent != NULL && len > 0 && out[len - 1] != '/')
        out[len++] = '/';
    return shoal_watch_node_path(node, NULL, out + len, PATH_MAX - len);
}

/* `node` cannot be watched: that is told, unless it is only gone again. */
static void give_up(struct shoal_watch *watch, struct shoal_watch_node *node, int code)
{
    if (node->parent != NULL && (code == -ENOENT || code == -ENOTDIR || code == -ELOOP)) {
        shoal_watch_node_kill(watch, node);
        return;
    }
    node->error = code;
    shoal_list_remove(&node->work);
    shoal_list_push_back(&watch->troubled, &node->work);
}

static bool is_below(const struct shoal_watch_node *node, const struct shoal_watch_node *above)
{
    for (; node != NULL; node = node->parent)
        if (node == above)
            return true;
    return false;
}

/* `known` is not, or perhaps not, what is at its path. False: this has been said too often. */
static bool look_again(struct shoal_watch *watch, struct shoal_watch_node *known)
{
    if (known->away_cookie != 0 || ++known->contested > CONTESTED_MAX) {
        shoal_watch_node_kill(watch, known);
        return false;
    }
    shoal_watch_scan_add(&watch->scan, known, true);
    return true;
}

/*
 * What is at the path of `at` is the directory that the kernel watches as `wd`, and that `known`
 * stood for so far. True: it is `at` now, and is to be listed. Another root keeps what it has.
 */
static bool take_from(struct shoal_watch *watch, struct shoal_watch_node *at,
                      struct shoal_watch_node *known)
{
    bool same_place = known->parent == at->parent && strcmp(known->name, at->name) == 0;
    if (known->root != at->root || known->parent == NULL || same_place) {
        shoal_watch_node_kill(watch, at);
        return false;
    }
    if (is_below(at, known)) { /* so that `known` must be something else by now */
        shoal_watch_node_kill(watch, at);
        if (look_again(watch, known))
            known->verify = true;
        return false;
    }
    shoal_watch_node_clear(watch, known);
    (void)look_again(watch, known);
    return true;
}

/* At the path of `at` is what the kernel watches as `wd`. False: it is not to be listed. */
static bool accept_wd(struct shoal_watch *watch, struct shoal_watch_node *at, int wd)
{
    bool verify = at->verify;
    at->verify = false;
    if (at->wd == wd)
        return !verify;
    if (at->wd >= 0) { /* another one has come in its place */
        shoal_watch_node_clear(watch, at);
        at->tell = true;
    }
    struct shoal_watch_node *known = shoal_watch_node_find(watch, wd);
    if (known != NULL && !take_from(watch, at, known))
        return false;
    shoal_watch_node_set_wd(watch, at, wd);
    return true;
}

/* Takes the first directory in line, watches it and opens it. */
static int enter(struct shoal_watch_scan *scan)
{
    struct shoal_watch *watch = scan->watch;
    struct shoal_watch_node *node =
        SHOAL_CONTAINER_OF(scan->todo.next, struct shoal_watch_node, work);
    scan->inotify = watch->fd;
    scan->mask = node->root->mask | IN_ONLYDIR | IN_MASK_ADD;
    if (node->parent != NULL)
        scan->mask |= IN_DONT_FOLLOW;
    scan->wd = -1;
    scan->fd = -1;
    scan->used = 0;
    scan->filled = 0;
    int rc = full_path(node, scan->path);
    node->refs++;
    shoal_list_remove(&node->work);
    scan->at = node;
    if (rc == 0)
        rc = shoal_blocking_call(watch_and_open, scan);
    if (scan->wd < 0 && (rc == -ECANCELED || rc == -ETIMEDOUT || rc == -EAGAIN)) {
        bool verify = node->verify;
        if (!node->dead)
            shoal_watch_scan_add(scan, node, node->tell); /* nothing was done: the next time */
        node->verify = verify;
        leave(scan);
        return rc;
    }
    bool go_on = !node->dead && scan->wd >= 0 && accept_wd(watch, node, scan->wd);
    if (node->dead && scan->wd >= 0 && shoal_watch_node_find(watch, scan->wd) == NULL)
        (void)inotify_rm_watch(watch->fd, scan->wd);
    if (rc < 0 && !node->dead)
        give_up(watch, node, rc);
    if (rc < 0 || !go_on)
        leave(scan);
    return 0;
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* One entry of the list; 1 when it is news. */
static int take_entry(struct shoal_watch_scan *scan, struct shoal_watch_event *out)
{
    struct shoal_watch *watch = scan->watch;
    struct shoal_watch_node *at = scan->at;
    const struct entry *entry = (const struct entry *)(const void *)(scan->list + scan->used);
    scan->used += entry->bytes;
    if (is_dot(entry->name))
        return 0;
    bool is_directory = entry->type == DT_DIR;
    if (is_directory && shoal_watch_child_find(at, entry->name) == NULL) {
        struct shoal_watch_node *child = shoal_watch_node_new(watch, at->root, at, entry->name);
        if (child == NULL) {
            scan->used -= entry->bytes;
            return -ENOMEM;
        }
        shoal_watch_scan_add(scan, child, at->tell);
    }
    if (!at->tell || (at->root->kinds & SHOAL_WATCH_CREATED) == 0)
        return 0;
    *out = (struct shoal_watch_event){
        .id = at->root->id, .kinds = SHOAL_WATCH_CREATED, .is_directory = is_directory};
    if (shoal_watch_node_path(at, entry->name, watch->path, sizeof(watch->path)) < 0)
        return 0; /* the directory it is in was told as LOST before */
    out->path = watch->path;
    return 1;
}

static int go_on_listing(struct shoal_watch_scan *scan, struct shoal_watch_event *out)
{
    if (scan->used < scan->filled)
        return take_entry(scan, out);
    int rc = shoal_blocking_call(list_more, scan);
    if (rc == -ECANCELED || rc == -ETIMEDOUT || rc == -EAGAIN)
        return rc;
    if (rc < 0 && !scan->at->dead)
        give_up(scan->watch, scan->at, rc);
    if (rc < 0 || scan->filled == 0)
        leave(scan);
    return 0;
}

int shoal_watch_scan_run(struct shoal_watch_scan *scan, struct shoal_watch_event *out)
{
    int rc = 0;
    while (rc == 0) {
        if (scan->at != NULL && scan->at->dead)
            leave(scan);
        if (scan->at != NULL)
            rc = go_on_listing(scan, out);
        else if (shoal_list_linked(&scan->todo))
            rc = enter(scan);
        else
            break;
    }
    return rc;
}
