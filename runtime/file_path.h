/*
 * Names of files: facts, rename, link and unlink, from a fiber, without blocking its core.
 *
 * 1. Each path is relative to a directory: a descriptor, AT_FDCWD for the working directory. An
 *    absolute path is what it is.
 * 2. All calls are made on a fiber and may yield. Paths are read until the call returns.
 * 3. A cancelled call returns only when its operation has ended. If it took place the result is 0;
 *    if it returns the code of the cancel (-ECANCELED, -ETIMEDOUT), it did not.
 * 4. Only shoal_file_open() can be told that a path must stay below its directory. To be safe with
 *    paths of others, open the directory with SHOAL_FILE_BENEATH and O_PATH, and give that and a
 *    name without a slash here.
 * 5. A new name is on the disk for good once its directory has been opened (O_DIRECTORY) and synced
 *    by shoal_file_sync().
 */
#ifndef SHOAL_RUNTIME_FILE_PATH_H
#define SHOAL_RUNTIME_FILE_PATH_H

#include "shoal/runtime/file.h"

SHOAL_BEGIN_DECLS

/* Not what a symbolic link at the end of the path leads to, but the link. */
#define SHOAL_FILE_NO_FOLLOW 1u

/* For shoal_file_rename(): fails with -EEXIST in place of replacing; makes the two change places.
 */
#define SHOAL_FILE_NO_REPLACE 1u
#define SHOAL_FILE_EXCHANGE   2u

/* A path and where it leads from. */
struct shoal_file_name {
    int dirfd;
    const char *path;
};

/*
 * Facts about the file at `path`. `flags`: 0 or SHOAL_FILE_NO_FOLLOW. 0, -ENOENT, -EACCES, -ELOOP,
 * -ENOTDIR, -ENAMETOOLONG, -EINVAL (unknown flags). What the kernel has cached is had at once.
 */
SHOAL_API int shoal_file_stat_path(int dirfd, const char *path, unsigned flags,
                                   struct shoal_file_stat *out);

/*
 * Gives the file `from` the name `to`, as renameat2(2), in one step: whoever looks sees the old or
 * the new file. `flags`: 0 (a file of that name is replaced), SHOAL_FILE_NO_REPLACE or
 * SHOAL_FILE_EXCHANGE. 0, -ENOENT, -EXDEV (another file system), -EEXIST, -ENOTEMPTY, -EISDIR,
 * -EROFS, -EINVAL (unknown flags; a directory into itself; a file system without the flag).
 */
SHOAL_API int shoal_file_rename(const struct shoal_file_name *from,
                                const struct shoal_file_name *to, unsigned flags);

/* Another name for the file `from`, which is not followed if it is a symbolic link. 0, -EEXIST,
 * -EXDEV, -EMLINK, -EPERM (a directory). */
SHOAL_API int shoal_file_link(const struct shoal_file_name *from, const struct shoal_file_name *to);

/* A symbolic link at `path` that says `target`. 0, -EEXIST, -ENOENT. */
SHOAL_API int shoal_file_symlink(const char *target, int dirfd, const char *path);

/*
 * What the symbolic link at `path` says, into `buf` of `size` bytes, with a zero at the end.
 * Returns its length; -ENAMETOOLONG when it does not fit, -EINVAL when it is no symbolic link.
 */
SHOAL_API int shoal_file_readlink(int dirfd, const char *path, char *buf, size_t size);

/* Removes the name; the file goes with its last name and descriptor. 0, -ENOENT, -EISDIR, -EPERM.
 */
SHOAL_API int shoal_file_unlink(int dirfd, const char *path);

SHOAL_END_DECLS

#endif
