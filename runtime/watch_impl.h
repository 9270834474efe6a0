/*
 * Watches inside: one inotify instance, and a tree of nodes for each root that was added.
 *
 *   watch --- root "templates", id 1 --- top (wd 1)
 *      |                                  +-- "mail" (wd 2)
 *      |                                  |     +-- "en" (wd 5)
 *      |                                  +-- "web" (wd 3)
 *      +----- root "app.conf", id 2 ----- top (wd 4)
 *
 * 1. A node is a file or directory that the kernel watches; only recursive roots have more than
 *    their top. A node's path is that of its ancestors: a moved directory takes one step.
 * 2. A directory is watched first and listed then: what is made in it in between is in the list,
 *    and may be told twice.
 * 3. What may wait for the disk runs on a helper thread and sees only the scan; the nodes may
 *    change meanwhile. A scan keeps a reference to the node it is at and asks whether it is
 *    `dead`.
 * 4. Events tell names, and watches are added by path: by then another directory may have the
 *    name. Whenever an event gives a name to a directory, a scan looks what is there (`verify`),
 *    and a node whose directory turns up elsewhere is looked at again (`contested`).
 * 5. A scan can be left at any wait (a cancel, an error) and goes on with the next call.
 */
#ifndef SHOAL_RUNTIME_WATCH_IMPL_H
#define SHOAL_RUNTIME_WATCH_IMPL_H

#include <limits.h>
#include <stdalign.h>
#include <stddef.h>

#include <sys/inotify.h>

#include "shoal/runtime/list.h"
#include "shoal/runtime/watch.h"

#define SHOAL_WATCH_RAW_BYTES   16384
#define SHOAL_WATCH_LIST_BYTES  16384
#define SHOAL_WATCH_BUCKETS_MIN 64
#define SHOAL_WATCH_PATH_BYTES  (PATH_MAX + NAME_MAX + 2)

struct shoal_watch_root {
    struct shoal_list node; /* of the watch; in no list once it has ended */
    int id;
    uint32_t kinds;
    uint32_t mask; /* of inotify, for each of its nodes */
    uint32_t refs; /* its nodes, and the watch */
    bool recursive;
    struct shoal_watch_node *top;
    size_t path_bytes;
    char path[]; /* as it was given */
};

struct shoal_watch_node {
    struct shoal_list bucket;
    struct shoal_list children;
    struct shoal_list sibling;
    struct shoal_list work; /* of a scan's `todo`, or the watch's `away` or `troubled` */
    struct shoal_watch_root *root;
    struct shoal_watch_node *parent; /* NULL: the top */
    int wd;                          /* -1: not watched yet */
    int error;                       /* why not, in `troubled` */
    uint32_t refs;                   /* the tree's, and scans' */
    uint32_t away_cookie;            /* it was moved, nobody knows where to; 0: it is in place */
    bool dead;
    bool tell;         /* what a scan finds in it is news */
    bool verify;       /* a scan is to see only whether it is still what is at its path */
    uint8_t contested; /* how often another node was found to be it */
    char *name;
    size_t name_bytes;
};

/* Walks over directories: watches each in `todo`, lists it, and adds those it finds. */
struct shoal_watch_scan {
    struct shoal_watch *watch;
    struct shoal_list todo;
    struct shoal_watch_node *at; /* referenced; NULL: between two */
    int fd;                      /* of the directory `at`; -1: not open */
    /* For the helper thread. */
    int inotify;
    uint32_t mask;
    int wd;
    size_t used; /* of `list` */
    size_t filled;
    char path[SHOAL_WATCH_PATH_BYTES];
    alignas(16) char list[SHOAL_WATCH_LIST_BYTES];
};

struct shoal_watch {
    int fd;
    uint16_t core;
    bool busy; /* a fiber is in shoal_watch_next() */
    bool lost; /* the kernel's queue has overflowed, which is not told yet */
    int last_id;
    struct shoal_list roots;
    struct shoal_list away;
    struct shoal_list troubled;
    struct shoal_list *buckets; /* by wd */
    size_t bucket_count;
    size_t node_count;
    struct shoal_watch_scan scan;
    struct shoal_watch_event event; /* of shoal_watch_next_future() */
    size_t raw_used;
    size_t raw_filled;
    char path[SHOAL_WATCH_PATH_BYTES]; /* of the event that was told last */
    alignas(struct inotify_event) char raw[SHOAL_WATCH_RAW_BYTES];
};

/* ---- watch_tree.c ---- */

int shoal_watch_buckets_init(struct shoal_watch *watch);
void shoal_watch_buckets_free(struct shoal_watch *watch);

/* A node below `parent` (NULL: the top of `root`), not watched yet; NULL when out of memory. */
struct shoal_watch_node *shoal_watch_node_new(struct shoal_watch *watch,
                                              struct shoal_watch_root *root,
                                              struct shoal_watch_node *parent, const char *name);

void shoal_watch_node_unref(struct shoal_watch_node *node);

/* Says that the kernel watches `node` as `wd`. */
void shoal_watch_node_set_wd(struct shoal_watch *watch, struct shoal_watch_node *node, int wd);

/* Takes `node` and all below it out of the tree and ends their watches. */
void shoal_watch_node_kill(struct shoal_watch *watch, struct shoal_watch_node *node);

/* Takes all below `node` out of the tree; the kernel still watches it, for a scan to find. */
void shoal_watch_node_forget_below(struct shoal_watch *watch, struct shoal_watch_node *node);

/* The same, and `node` itself is no longer what the kernel watches by its number. */
void shoal_watch_node_clear(struct shoal_watch *watch, struct shoal_watch_node *node);

struct shoal_watch_node *shoal_watch_node_find(const struct shoal_watch *watch, int wd);
struct shoal_watch_node *shoal_watch_child_find(const struct shoal_watch_node *parent,
                                                const char *name);

/* Makes `node` the child `name` of `parent`. 0 or -ENOMEM, with nothing changed. */
int shoal_watch_node_move(struct shoal_watch_node *node, struct shoal_watch_node *parent,
                          const char *name);

/* Where `node`, or its entry `name` (NULL: none), is below its root. 0 or -ENAMETOOLONG. */
int shoal_watch_node_path(const struct shoal_watch_node *node, const char *name, char *out,
                          size_t size);

/* Takes `root` out of the watch, with all its nodes. */
void shoal_watch_root_end(struct shoal_watch *watch, struct shoal_watch_root *root);
void shoal_watch_root_unref(struct shoal_watch_root *root);

/* ---- watch_scan.c ---- */

void shoal_watch_scan_init(struct shoal_watch_scan *scan, struct shoal_watch *watch);

/* Forgets what is still to do. */
void shoal_watch_scan_deinit(struct shoal_watch_scan *scan);

/* Puts `node` in line; `tell`: what is found in it is to be told. */
void shoal_watch_scan_add(struct shoal_watch_scan *scan, struct shoal_watch_node *node, bool tell);

/* The same for one that was moved with all below it: listed only if it is another directory. */
void shoal_watch_scan_verify(struct shoal_watch_scan *scan, struct shoal_watch_node *node);

/*
 * Goes on until there is an event to tell (1, in *out), nothing is left to do (0), or a wait ends
 * with a negative code. On a fiber; yields.
 */
int shoal_watch_scan_run(struct shoal_watch_scan *scan, struct shoal_watch_event *out);

#endif
