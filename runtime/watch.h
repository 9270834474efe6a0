/*
 * Changes of files and directories, as they happen; inotify(7).
 *
 *   struct shoal_watch *watch;
 *   struct shoal_watch_event event;
 *   int rc = shoal_watch_new(&watch);
 *   int id = shoal_watch_add(watch, "templates", &(struct shoal_watch_how){.recursive = true});
 *   while ((rc = shoal_watch_next(watch, &event, SHOAL_NS_FOREVER)) == 0)
 *       reload(event.path);
 *   shoal_watch_free(watch);
 *
 * 1. Events come in the order in which the kernel saw the changes. Two equal ones in a row may come
 *    as one.
 * 2. When events were lost, that is an event of its own (SHOAL_WATCH_LOST): look at everything.
 * 3. A file is watched as the file it is: by a name that is given to another later, nothing is
 *    seen. To follow a file that is replaced (as editors do), watch its directory.
 * 4. A recursive watch follows directories as they are made, moved and removed, but no symbolic
 *    link. What is found in a directory that is new, or was moved in, is told as CREATED; what was
 *    made there in that moment may be told twice, but is not missed.
 * 5. Only changes made through this machine's kernel are seen (not those of other NFS clients), and
 *    not those of mapped memory.
 * 6. A struct shoal_watch is used on the core that made it. It holds one of the user's inotify
 *    instances (fs.inotify.max_user_instances, often 128), and each watched file or directory one
 *    of the watches (fs.inotify.max_user_watches).
 */
#ifndef SHOAL_RUNTIME_WATCH_H
#define SHOAL_RUNTIME_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct shoal_future;
struct shoal_watch;

/* What happened: bits of an event's `kinds`, and what to watch for. */
#define SHOAL_WATCH_CREATED    UINT32_C(0x001) /* an entry of a directory was made */
#define SHOAL_WATCH_DELETED    UINT32_C(0x002) /* an entry was removed */
#define SHOAL_WATCH_MOVED_FROM UINT32_C(0x004) /* an entry was renamed: its old place; `cookie` */
#define SHOAL_WATCH_MOVED_TO   UINT32_C(0x008) /* its new place */
#define SHOAL_WATCH_MODIFIED   UINT32_C(0x010) /* written to, or truncated */
#define SHOAL_WATCH_WRITTEN    UINT32_C(0x020) /* closed by somebody who had it open for writing */
#define SHOAL_WATCH_ATTRIBUTES UINT32_C(0x040) /* permissions, times, owner, links */
#define SHOAL_WATCH_OPENED     UINT32_C(0x080)
#define SHOAL_WATCH_READ       UINT32_C(0x100) /* a recursive watch also reads, as it looks around */

/* Always watched for. */
#define SHOAL_WATCH_GONE UINT32_C(0x1000) /* what was added is removed: the watch has ended */
#define SHOAL_WATCH_MOVED_SELF                                                                     \
    UINT32_C(0x2000)                      /* what was added is renamed; see shoal_watch_add        \
                                           */
#define SHOAL_WATCH_LOST UINT32_C(0x4000) /* events were lost; `error` and `path` tell more */

/* What 0 in `kinds` of struct shoal_watch_how means. */
#define SHOAL_WATCH_CHANGES                                                                        \
    (SHOAL_WATCH_CREATED | SHOAL_WATCH_DELETED | SHOAL_WATCH_MOVED_FROM | SHOAL_WATCH_MOVED_TO |   \
     SHOAL_WATCH_MODIFIED | SHOAL_WATCH_WRITTEN | SHOAL_WATCH_ATTRIBUTES)

/* Members may be added at the end, and 0 means the default. */
struct shoal_watch_how {
    uint32_t kinds;  /* SHOAL_WATCH_*; 0: SHOAL_WATCH_CHANGES */
    bool recursive;  /* a directory with all below it */
    bool directory;  /* it must be a directory, else -ENOTDIR; implied by `recursive` */
    bool no_symlink; /* a symbolic link is watched itself */
};

struct shoal_watch_event {
    int id;            /* what shoal_watch_add() returned; 0 for LOST of all */
    uint32_t kinds;    /* SHOAL_WATCH_* */
    uint32_t cookie;   /* the same in MOVED_FROM and MOVED_TO of one rename; else 0 */
    int error;         /* LOST: why; -EOVERFLOW, or why a directory below could not be watched */
    bool is_directory; /* what it happened to is a directory */
    /*
     * Relative to what was added; "" when it happened to that itself. Stays until the next
     * shoal_watch_next() or shoal_watch_free().
     */
    const char *path;
};

/*
 * Makes a watch that watches nothing yet. 0; -EMFILE (descriptors of the process, or
 * fs.inotify.max_user_instances; shoal_error_message() says both), -ENFILE, -ENOMEM. On a fiber.
 */
SHOAL_API int shoal_watch_new(struct shoal_watch **out);

/*
 * Ends all, discards what was not taken. No fiber and no future may wait. Does not yield: the
 * descriptor is closed on a helper thread. NULL is fine.
 */
SHOAL_API void shoal_watch_free(struct shoal_watch *watch);

/*
 * Watches `path`, which is copied, from now on. Returns its id, 1 or more, or a negative code, with
 * a text in shoal_error_message(): -ENOENT, -EACCES, -ENOTDIR, -ENAMETOOLONG; -ENOSPC (the limit
 * fs.inotify.max_user_watches is reached); -EEXIST (this file or directory is watched already, by
 * this name or another); -EINVAL (unknown kinds), -ENOMEM, -ECANCELED. On failure nothing is left.
 *
 * With `recursive` all directories that are there are watched when it returns. When the root itself
 * is moved (MOVED_SELF), new directories below cannot be found any more: add it again. Names below
 * it that are longer than a path may be are told as LOST.
 *
 * `how` NULL: the defaults. On a fiber; yields: the disk is asked on a helper thread.
 */
SHOAL_API int shoal_watch_add(struct shoal_watch *watch, const char *path,
                              const struct shoal_watch_how *how);

/*
 * Ends the watch `id`; none of its events are told any more. 0; -ENOENT: there is none, perhaps
 * because it has ended by GONE. Does not yield.
 */
SHOAL_API int shoal_watch_remove(struct shoal_watch *watch, int id);

/*
 * Waits for the next event, at most `timeout_ns` (0: not at all; SHOAL_NS_FOREVER). 0 with *out;
 * -ETIMEDOUT, -ECANCELED: no event is lost by that. -ENOMEM. One fiber at a time. Yields.
 */
SHOAL_API int shoal_watch_next(struct shoal_watch *watch, struct shoal_watch_event *out,
                               uint64_t timeout_ns);

/*
 * The same as a future: `ptr` is a struct shoal_watch_event that belongs to the watch and stays, as
 * its path does, until the next shoal_watch_next() or shoal_watch_next_future(). A cancel fails it
 * with -ECANCELED; an event that resolves a future which nobody consumes is gone.
 */
SHOAL_API struct shoal_future *shoal_watch_next_future(struct shoal_watch *watch);

SHOAL_END_DECLS

#endif
