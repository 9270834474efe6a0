/*
 * Watching files: the calls of watch.h, and what becomes of the kernel's events.
 *
 * A directory that is moved within a recursive root comes as two events with one cookie. From the
 * first on it is `away`; the second puts it, with all below it, where it is now. Where none comes
 * within AWAY_NS of an empty queue, it has left the root, and its watches end. (The kernel queues
 * both within one system call, but another thread's events may stand between them.)
 *
 * After an overflow the trees are made anew by a scan before LOST is told: whoever looks at
 * everything then misses nothing that comes later.
 */
#include "shoal/runtime/watch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <poll.h>
#include <unistd.h>

#include "shoal/runtime/blocking.h"
#include "shoal/runtime/check.h"
#include "shoal/runtime/core_impl.h"
#include "shoal/runtime/errors.h"
#include "shoal/runtime/future_impl.h"
#include "shoal/runtime/owner_impl.h"
#include "shoal/runtime/watch_impl.h"

#define AWAY_NS    (20 * SHOAL_NS_PER_MS)
#define NONE_THERE 2 /* of step() */

static const struct {
    uint32_t kind;
    uint32_t mask;
} kinds[] = {
    {SHOAL_WATCH_CREATED, IN_CREATE},        {SHOAL_WATCH_DELETED, IN_DELETE},
    {SHOAL_WATCH_MOVED_FROM, IN_MOVED_FROM}, {SHOAL_WATCH_MOVED_TO, IN_MOVED_TO},
    {SHOAL_WATCH_MODIFIED, IN_MODIFY},       {SHOAL_WATCH_WRITTEN, IN_CLOSE_WRITE},
    {SHOAL_WATCH_ATTRIBUTES, IN_ATTRIB},     {SHOAL_WATCH_OPENED, IN_OPEN},
    {SHOAL_WATCH_READ, IN_ACCESS},
};

#define KINDS_ALL (SHOAL_WATCH_CHANGES | SHOAL_WATCH_OPENED | SHOAL_WATCH_READ)

static uint32_t mask_of_kinds(uint32_t wanted)
{
    uint32_t mask = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(kinds); i++)
        if ((wanted & kinds[i].kind) != 0)
            mask |= kinds[i].mask;
    return mask;
}

static uint32_t kinds_of_mask(uint32_t mask)
{
    uint32_t found = 0;
    for (size_t i = 0; i < SHOAL_ARRAY_SIZE(kinds); i++)
        if ((mask & kinds[i].mask) != 0)
            found |= kinds[i].kind;
    return found;
}

static struct shoal_fiber *check_mine(const struct shoal_watch *watch, const char *what)
{
    SHOAL_CHECK_OWNER(watch->core, what, "watch %p", (const void *)watch);
    return shoal_core_self->fiber;
}

/* ---- Making ---- */

int shoal_watch_new(struct shoal_watch **out)
{
    const struct shoal_core *core = shoal_core_self;
    SHOAL_CHECK(core != NULL && core->fiber != NULL, "a watch is made outside a fiber");
    *out = NULL;
    struct shoal_watch *watch = shoal_mem_alloc(sizeof(*watch));
    if (watch == NULL)
        return -ENOMEM;
    memset(watch, 0, offsetof(struct shoal_watch, path));
    watch->core = (uint16_t)core->id;
    shoal_list_init(&watch->roots);
    shoal_list_init(&watch->away);
    shoal_list_init(&watch->troubled);
    shoal_watch_scan_init(&watch->scan, watch);
    int rc = shoal_watch_buckets_init(watch);
    if (rc == 0) {
        watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (watch->fd >= 0) {
            *out = watch;
            return 0;
        }
        rc = -errno;
        shoal_watch_buckets_free(watch);
    }
    shoal_mem_free(watch, sizeof(*watch));
    if (rc == -EMFILE)
        return shoal_fiber_explain(
            rc, "no inotify instance: the limit fs.inotify.max_user_instances of this user, "
                "or that of the process's descriptors (ulimit -n), is reached");
    return rc == -ENOMEM ? rc
                         : shoal_fiber_explain(rc, "no inotify instance: %s", shoal_error_text(rc));
}

static int close_descriptor(void *arg)
{
    close((int)(intptr_t)arg);
    return 0;
}

static int close_on_helper(void *arg)
{
    shoal_fiber_shield();
    if (shoal_blocking_call(close_descriptor, arg) < 0)
        (void)close_descriptor(arg);
    shoal_fiber_unshield();
    return 0;
}

void shoal_watch_free(struct shoal_watch *watch)
{
    if (watch == NULL)
        return;
    (void)check_mine(watch, "free");
    SHOAL_CHECK(!watch->busy, "a watch is freed while a fiber waits for it");
    /* Ends all watches at once. The kernel takes up to 50 ms for it (it waits for a grace period of
     * its own), which is no time for the core to be held. */
    void *fd = (void *)(intptr_t)watch->fd;
    watch->fd = -1; /* what follows asks the kernel for nothing */
    if (shoal_fiber_spawn_detached(close_on_helper, fd, "watch close") < 0)
        (void)close_descriptor(fd);
    shoal_watch_scan_deinit(&watch->scan);
    while (shoal_list_linked(&watch->roots))
        shoal_watch_root_end(watch,
                             SHOAL_CONTAINER_OF(watch->roots.next, struct shoal_watch_root, node));
    shoal_watch_buckets_free(watch);
    shoal_mem_free(watch, sizeof(*watch));
}

/* ---- Adding ---- */

static int explain(const char *path, int code)
{
    switch (code) {
    case -ECANCELED:
    case -ETIMEDOUT:
    case -ENOMEM:
        return code;
    case -ENOSPC:
        return shoal_fiber_explain(
            code,
            "cannot watch \"%.200s\": the limit fs.inotify.max_user_watches of this "
            "user is reached",
            path);
    case -EEXIST:
        return shoal_fiber_explain(
            code, "cannot watch \"%.200s\": it is watched already, by this name or another", path);
    default:
        return shoal_fiber_explain(code, "cannot watch \"%.200s\": %s", path,
                                   shoal_error_text(code));
    }
}

static struct shoal_watch_root *root_new(struct shoal_watch *watch, const char *path,
                                         const struct shoal_watch_how *how)
{
    size_t path_bytes = strlen(path) + 1;
    struct shoal_watch_root *root = shoal_mem_alloc(sizeof(*root) + path_bytes);
    if (root == NULL)
        return NULL;
    *root = (struct shoal_watch_root){
        .id = ++watch->last_id,
        .kinds = how->kinds != 0 ? how->kinds : SHOAL_WATCH_CHANGES,
        .refs = 1,
        .recursive = how->recursive,
        .path_bytes = path_bytes,
    };
    root->mask = mask_of_kinds(root->kinds) | IN_MOVE_SELF;
    if (how->recursive)
        root->mask |= IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO;
    if (how->recursive || how->directory)
        root->mask |= IN_ONLYDIR;
    if (how->no_symlink)
        root->mask |= IN_DONT_FOLLOW;
    memcpy(root->path, path, path_bytes);
    shoal_list_push_back(&watch->roots, &root->node);
    root->top = shoal_watch_node_new(watch, root, NULL, "");
    if (root->top != NULL)
        return root;
    shoal_watch_root_end(watch, root);
    return NULL;
}

struct add_top {
    int inotify;
    const char *path;
    uint32_t mask;
};

/* On a helper thread. */
static int add_top(void *arg)
{
    const struct add_top *add = arg;
    int wd = inotify_add_watch(add->inotify, add->path, add->mask | IN_MASK_CREATE);
    return wd >= 0 ? wd : -errno;
}

/* Why a directory below `root` could not be watched, if that is to fail the whole. */
static int trouble_of(const struct shoal_watch *watch, const struct shoal_watch_root *root)
{
    SHOAL_LIST_FOREACH (entry, &watch->troubled) {
        const struct shoal_watch_node *node =
            SHOAL_CONTAINER_OF(entry, struct shoal_watch_node, work);
        if (node->root == root && (node->parent == NULL || node->error == -ENOSPC))
            return node->error;
    }
    return 0;
}

static int add_below(struct shoal_watch *watch, struct shoal_watch_root *root)
{
    struct shoal_watch_event unused;
    struct shoal_watch_scan *scan = shoal_mem_alloc(sizeof(*scan));
    if (scan == NULL)
        return -ENOMEM;
    shoal_watch_scan_init(scan, watch);
    shoal_watch_scan_add(scan, root->top, false);
    int rc;
    while ((rc = shoal_watch_scan_run(scan, &unused)) > 0)
        continue;
    shoal_watch_scan_deinit(scan);
    shoal_mem_free(scan, sizeof(*scan));
    return rc < 0 ? rc : trouble_of(watch, root);
}

static int add_root(struct shoal_watch *watch, struct shoal_watch_root *root)
{
    struct add_top add = {watch->fd, root->path, root->mask};
    int rc = shoal_blocking_call(add_top, &add);
    if (rc < 0)
        return rc;
    shoal_watch_node_set_wd(watch, root->top, rc);
    return root->recursive ? add_below(watch, root) : 0;
}

int shoal_watch_add(struct shoal_watch *watch, const char *path, const struct shoal_watch_how *how)
{
    static const struct shoal_watch_how defaults;
    struct shoal_fiber *fiber = check_mine(watch, "add");
    SHOAL_CHECK(fiber != NULL, "a watch is added to outside a fiber");
    int rc = shoal_fiber_cancel_code(fiber);
    if (rc < 0)
        return rc;
    if (how == NULL)
        how = &defaults;
    if ((how->kinds & ~KINDS_ALL) != 0)
        return shoal_fiber_explain(-EINVAL,
                                   "kinds 0x%x are not to be asked for (allowed: any of 0x%x)",
                                   how->kinds & ~KINDS_ALL, KINDS_ALL);
    if (strlen(path) >= PATH_MAX)
        return explain("", -ENAMETOOLONG);
    struct shoal_watch_root *root = root_new(watch, path, how);
    if (root == NULL)
        return -ENOMEM;
    int id = root->id;
    root->refs++;
    rc = add_root(watch, root);
    if (rc < 0 && shoal_list_linked(&root->node))
        shoal_watch_root_end(watch, root);
    if (rc < 0)
        rc = explain(root->path, rc);
    shoal_watch_root_unref(root);
    return rc < 0 ? rc : id;
}

int shoal_watch_remove(struct shoal_watch *watch, int id)
{
    (void)check_mine(watch, "remove");
    SHOAL_LIST_FOREACH (entry, &watch->roots) {
        struct shoal_watch_root *root = SHOAL_CONTAINER_OF(entry, struct shoal_watch_root, node);
        if (root->id != id)
            continue;
        shoal_watch_root_end(watch, root);
        return 0;
    }
    return -ENOENT;
}

/* ---- Events ---- */

/* The queue has overflowed: the trees are made anew. */
static void look_again(struct shoal_watch *watch)
{
    watch->lost = true;
    SHOAL_LIST_FOREACH (entry, &watch->roots) {
        struct shoal_watch_root *root = SHOAL_CONTAINER_OF(entry, struct shoal_watch_root, node);
        if (!root->recursive)
            continue;
        shoal_watch_node_forget_below(watch, root->top);
        shoal_watch_scan_add(&watch->scan, root->top, false);
    }
}

static void drop_away(struct shoal_watch *watch)
{
    while (shoal_list_linked(&watch->away))
        shoal_watch_node_kill(watch,
                              SHOAL_CONTAINER_OF(watch->away.next, struct shoal_watch_node, work));
}

static struct shoal_watch_node *find_away(const struct shoal_watch *watch, uint32_t cookie)
{
    SHOAL_LIST_FOREACH (entry, &watch->away) {
        struct shoal_watch_node *node = SHOAL_CONTAINER_OF(entry, struct shoal_watch_node, work);
        if (node->away_cookie == cookie)
            return node;
    }
    return NULL;
}

static void directory_left(struct shoal_watch *watch, const struct shoal_watch_node *parent,
                           const struct inotify_event *raw)
{
    struct shoal_watch_node *node = shoal_watch_child_find(parent, raw->name);
    if (node == NULL)
        return;
    if (node->wd < 0) { /* not seen yet: it is new wherever it turns up */
        shoal_watch_node_kill(watch, node);
        return;
    }
    node->away_cookie = raw->cookie;
    shoal_list_remove(&node->work);
    shoal_list_push_back(&watch->away, &node->work);
}

static int directory_came(struct shoal_watch *watch, struct shoal_watch_node *parent,
                          const struct inotify_event *raw)
{
    struct shoal_watch_node *moved =
        (raw->mask & IN_MOVED_TO) != 0 ? find_away(watch, raw->cookie) : NULL;
    if (moved != NULL && moved->root == parent->root) {
        int rc = shoal_watch_node_move(moved, parent, raw->name);
        if (rc < 0)
            return rc;
        moved->away_cookie = 0;
        shoal_watch_scan_verify(&watch->scan, moved);
        return 0;
    }
    const struct shoal_watch_node *there = shoal_watch_child_find(parent, raw->name);
    if (there != NULL && there->wd < 0 && shoal_list_linked(&there->work))
        return 0; /* it is in line: whatever is there then */
    struct shoal_watch_node *node = shoal_watch_node_new(watch, parent->root, parent, raw->name);
    if (node == NULL)
        return -ENOMEM;
    if (moved != NULL) /* from another root, which must let go of it first */
        shoal_watch_node_kill(watch, moved);
    shoal_watch_scan_add(&watch->scan, node, true);
    return 0;
}

/* The top of a root tells about itself. */
static uint32_t top_kinds(struct shoal_watch *watch, struct shoal_watch_root *root, uint32_t mask)
{
    uint32_t found = kinds_of_mask(mask) & root->kinds;
    if ((mask & IN_MOVE_SELF) != 0)
        found |= SHOAL_WATCH_MOVED_SELF;
    if ((mask & IN_IGNORED) != 0) {
        found |= SHOAL_WATCH_GONE;
        shoal_watch_root_end(watch, root);
    }
    return found;
}

/* 1 when there is something to tell, in *out. */
static int handle(struct shoal_watch *watch, const struct inotify_event *raw,
                  struct shoal_watch_event *out)
{
    if ((raw->mask & IN_Q_OVERFLOW) != 0) {
        look_again(watch);
        return 0;
    }
    struct shoal_watch_node *node = shoal_watch_node_find(watch, raw->wd);
    if (node == NULL)
        return 0;
    struct shoal_watch_root *root = node->root;
    *out = (struct shoal_watch_event){
        .id = root->id, .cookie = raw->cookie, .is_directory = (raw->mask & IN_ISDIR) != 0};
    out->path = watch->path;
    watch->path[0] = '\0';
    if (raw->len == 0 && node->parent == NULL) {
        out->kinds = top_kinds(watch, root, raw->mask);
        return out->kinds != 0;
    }
    if (raw->len == 0) { /* a directory below: its parent tells, with its name */
        if ((raw->mask & IN_IGNORED) != 0) {
            node->wd = -1; /* it can be asked about no more */
            shoal_watch_node_kill(watch, node);
        }
        return 0;
    }
    out->kinds = kinds_of_mask(raw->mask) & root->kinds;
    if (shoal_watch_node_path(node, raw->name, watch->path, sizeof(watch->path)) < 0) {
        out->kinds = SHOAL_WATCH_LOST;
        out->error = -ENAMETOOLONG;
        return 1;
    }
    int rc = 0;
    if (root->recursive && out->is_directory && (raw->mask & (IN_CREATE | IN_MOVED_TO)) != 0)
        rc = directory_came(watch, node, raw);
    else if (root->recursive && out->is_directory && (raw->mask & IN_MOVED_FROM) != 0)
        directory_left(watch, node, raw);
    return rc < 0 ? rc : out->kinds != 0;
}

/* A directory that cannot be watched: told once, and then forgotten. */
static void tell_trouble(struct shoal_watch *watch, struct shoal_watch_event *out)
{
    struct shoal_watch_node *node =
        SHOAL_CONTAINER_OF(watch->troubled.next, struct shoal_watch_node, work);
    *out = (struct shoal_watch_event){.id = node->root->id,
                                      .kinds = SHOAL_WATCH_LOST,
                                      .error = node->error,
                                      .is_directory = true};
    out->path = watch->path;
    if (shoal_watch_node_path(node, NULL, watch->path, sizeof(watch->path)) < 0)
        watch->path[0] = '\0';
    if (node->parent != NULL)
        shoal_watch_node_kill(watch, node);
    else
        shoal_list_remove(&node->work);
}

/* ---- Waiting ---- */

struct timed_poll {
    struct shoal_io_op op;
    struct shoal_timer timer;
    bool timed_out;
};

static void poll_timed_out(struct shoal_timer *timer)
{
    struct timed_poll *poll = SHOAL_CONTAINER_OF(timer, struct timed_poll, timer);
    poll->timed_out = true;
    shoal_io_cancel(shoal_core_self, &poll->op);
}

/* Waits until the kernel has events: 0, -ETIMEDOUT, or what else ends the wait. */
static int wait_readable(const struct shoal_watch *watch, uint64_t timeout_ns)
{
    struct shoal_core *core = shoal_core_self;
    struct timed_poll poll = {.op = {.kind = SHOAL_IO_POLL, .poll_events = POLLIN}};
    poll.op.arg.poll.own.fd = watch->fd;
    poll.op.fd = &poll.op.arg.poll.own;
    if (timeout_ns == 0)
        return -ETIMEDOUT;
    shoal_timer_init(&poll.timer, poll_timed_out);
    if (timeout_ns != SHOAL_NS_FOREVER)
        shoal_timer_arm(&poll.timer, timeout_ns);
    int rc = shoal_io_run(core, &poll.op);
    shoal_timer_cancel(&poll.timer);
    if (rc >= 0)
        return 0;
    return poll.timed_out && shoal_fiber_cancel_code(core->fiber) == 0 ? -ETIMEDOUT : rc;
}

/* Gets more events from the kernel: 1, or 0 when it has none. */
static int read_more(struct shoal_watch *watch)
{
    ssize_t got = read(watch->fd, watch->raw, sizeof(watch->raw));
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    watch->raw_used = 0;
    watch->raw_filled = (size_t)got;
    return 1;
}

static int handle_next(struct shoal_watch *watch, struct shoal_watch_event *out)
{
    const struct inotify_event *raw =
        (const struct inotify_event *)(const void *)(watch->raw + watch->raw_used);
    int rc = handle(watch, raw, out);
    if (rc >= 0)
        watch->raw_used += sizeof(*raw) + raw->len;
    return rc;
}

/* One step on the way to an event: 1 with one, 0 to go on, NONE_THERE when the kernel has none. */
static int step(struct shoal_watch *watch, struct shoal_watch_event *out)
{
    int rc = shoal_watch_scan_run(&watch->scan, out);
    if (rc != 0)
        return rc;
    if (shoal_list_linked(&watch->troubled)) {
        tell_trouble(watch, out);
        return 1;
    }
    if (watch->lost) {
        watch->lost = false;
        watch->path[0] = '\0';
        *out = (struct shoal_watch_event){
            .kinds = SHOAL_WATCH_LOST, .error = -EOVERFLOW, .path = watch->path};
        return 1;
    }
    if (watch->raw_used < watch->raw_filled)
        return handle_next(watch, out);
    rc = read_more(watch);
    return rc == 0 ? NONE_THERE : rc < 0 ? rc : 0;
}

static int next(struct shoal_watch *watch, struct shoal_watch_event *out, uint64_t timeout_ns)
{
    const uint64_t deadline_ns = shoal_deadline_ns(shoal_now_ns(), timeout_ns);
    for (;;) {
        int rc = shoal_fiber_cancel_code(shoal_core_self->fiber);
        if (rc == 0)
            rc = step(watch, out);
        if (rc == 0)
            continue;
        if (rc != NONE_THERE)
            return rc > 0 ? 0 : rc;
        uint64_t now_ns = shoal_now_ns();
        uint64_t left_ns = SHOAL_NS_FOREVER;
        if (deadline_ns != SHOAL_NS_FOREVER)
            left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        bool away = shoal_list_linked(&watch->away) && left_ns > AWAY_NS;
        rc = wait_readable(watch, away ? AWAY_NS : left_ns);
        if (away && rc == -ETIMEDOUT)
            drop_away(watch);
        else if (rc < 0)
            return rc;
    }
}

int shoal_watch_next(struct shoal_watch *watch, struct shoal_watch_event *out, uint64_t timeout_ns)
{
    const struct shoal_fiber *fiber = check_mine(watch, "wait");
    SHOAL_CHECK(fiber != NULL, "a watch is waited for outside a fiber");
    SHOAL_CHECK(!watch->busy, "two fibers wait for a watch");
    watch->busy = true;
    int rc = next(watch, out, timeout_ns);
    watch->busy = false;
    return rc;
}

/* ---- As a future: a fiber that waits ---- */

struct watch_future {
    struct shoal_watch *watch;
    struct shoal_future *future;
    struct shoal_fiber *fiber;
};

static int wait_for_future(void *arg)
{
    struct watch_future *waiting = arg;
    struct shoal_future *future = waiting->future;
    struct shoal_watch *watch = waiting->watch;
    int rc = shoal_watch_next(watch, &watch->event, SHOAL_NS_FOREVER);
    shoal_mem_free(waiting, sizeof(*waiting));
    if (rc < 0)
        shoal_future_fail(future, rc, NULL);
    else
        shoal_future_resolve(future, &(union shoal_value){.ptr = &watch->event});
    return 0;
}

static void cancel_future(void *ctx)
{
    struct watch_future *waiting = ctx;
    shoal_fiber_cancel(waiting->fiber);
}

struct shoal_future *shoal_watch_next_future(struct shoal_watch *watch)
{
    (void)check_mine(watch, "wait");
    struct shoal_future *future = shoal_future_new();
    if (future == shoal_core_self->no_memory)
        return future;
    struct watch_future *waiting = shoal_mem_alloc(sizeof(*waiting));
    int rc = waiting != NULL ? 0 : -ENOMEM;
    if (rc == 0) {
        *waiting = (struct watch_future){.watch = watch, .future = future};
        rc = shoal_fiber_spawn(&waiting->fiber, wait_for_future, waiting, "watch");
    }
    if (rc == 0) {
        shoal_fiber_detach(waiting->fiber);
        shoal_future_on_cancel(future, cancel_future, waiting);
        return future;
    }
    shoal_mem_free(waiting, sizeof(*waiting));
    shoal_future_fail(future, rc, NULL);
    return future;
}
