/*
 * Names of files: see file_path.h. Each call is one operation of the backend or of a helper thread.
 */
#include "shoal/runtime/file_path.h"

#include <errno.h>
#include <stdio.h>

#include <fcntl.h>

#include "shoal/runtime/directory.h"
#include "shoal/runtime/file_impl.h"

static int run(enum shoal_io_kind kind, const struct shoal_file_name *at, void *other,
               uint32_t extra, uint32_t flags)
{
    struct shoal_core *core = shoal_file_core();
    struct shoal_io_fd fd = {.fd = at->dirfd};
    struct shoal_io_op op = {.kind = (uint8_t)kind, .fd = &fd};
    op.arg.path.path = at->path;
    op.arg.path.other = other;
    op.arg.path.extra = extra;
    op.arg.path.flags = flags;
    return shoal_file_run(core, &op);
}

static void *as_other(const char *text)
{
    return (void *)(uintptr_t)text;
}

int shoal_file_rename(const struct shoal_file_name *from, const struct shoal_file_name *to,
                      unsigned flags)
{
    uint32_t how = 0;
    if ((flags & ~(SHOAL_FILE_NO_REPLACE | SHOAL_FILE_EXCHANGE)) != 0)
        return -EINVAL;
    if ((flags & SHOAL_FILE_NO_REPLACE) != 0)
        how |= RENAME_NOREPLACE;
    if ((flags & SHOAL_FILE_EXCHANGE) != 0)
        how |= RENAME_EXCHANGE;
    return run(SHOAL_IO_RENAME, from, as_other(to->path), (uint32_t)to->dirfd, how);
}

int shoal_file_link(const struct shoal_file_name *from, const struct shoal_file_name *to)
{
    return run(SHOAL_IO_LINK, from, as_other(to->path), (uint32_t)to->dirfd, 0);
}

int shoal_file_symlink(const char *target, int dirfd, const char *path)
{
    const struct shoal_file_name at = {dirfd, path};
    return run(SHOAL_IO_SYMLINK, &at, as_other(target), 0, 0);
}

int shoal_file_readlink(int dirfd, const char *path, char *buf, size_t size)
{
    const struct shoal_file_name at = {dirfd, path};
    if (size == 0)
        return -ENAMETOOLONG;
    int rc = run(SHOAL_IO_READLINK, &at, buf, size < INT_MAX ? (uint32_t)size : INT_MAX, 0);
    if (rc < 0)
        return rc;
    if ((size_t)rc >= size)
        return -ENAMETOOLONG;
    buf[rc] = '\0';
    return rc;
}

int shoal_file_unlink(int dirfd, const char *path)
{
    const struct shoal_file_name at = {dirfd, path};
    return run(SHOAL_IO_UNLINK, &at, NULL, 0, 0);
}

int shoal_directory_make(int dirfd, const char *path, unsigned mode)
{
    const struct shoal_file_name at = {dirfd, path};
    return run(SHOAL_IO_MKDIR, &at, NULL, mode, 0);
}

int shoal_directory_remove(int dirfd, const char *path)
{
    const struct shoal_file_name at = {dirfd, path};
    return run(SHOAL_IO_UNLINK, &at, NULL, 0, AT_REMOVEDIR);
}
