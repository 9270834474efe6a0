/*
 * Files, read from a fiber without blocking its core.
 *
 *   struct shoal_file file;
 *   struct shoal_file_how how = {.flags = O_RDONLY, .resolve = SHOAL_FILE_BENEATH};
 *   int rc = shoal_file_open(&file, root_fd, "img/logo.png", &how);
 *   ...
 *   shoal_file_close(&file);
 *
 * 1. All calls are made on a fiber of the core that opened the file; all may yield. What is in the
 *    kernel's caches already is had at once, without a wait.
 * 2. A cancelled call returns only when its operation has really ended, so that path and buffer
 *    may lie on the caller's stack. A result that was faster than the cancel is delivered.
 * 3. Several fibers may read one file at the same time; it is closed when none of them does.
 * 4. A file that is closed or was never opened has `fd` -1.
 */
#ifndef SHOAL_RUNTIME_FILE_H
#define SHOAL_RUNTIME_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/* What one read gives at most: a longer copy would hold the core. */
#define SHOAL_FILE_READ_MAX (1u << 20)

/* For `resolve`. The path and its symbolic links may not lead out of `dirfd`: else -EXDEV. */
#define SHOAL_FILE_BENEATH UINT64_C(1)
/* For `resolve`. No symbolic link in the whole path: else -ELOOP. */
#define SHOAL_FILE_NO_SYMLINKS UINT64_C(2)

/* How to open; members may be added at the end, and 0 means the default. */
struct shoal_file_how {
    uint64_t flags;   /* O_* of open(2); O_CLOEXEC is implied */
    uint64_t mode;    /* permissions, with O_CREAT only (else 0) */
    uint64_t resolve; /* SHOAL_FILE_*; 0: as open(2) does */
};

/* Embedded in its owner. */
struct shoal_file {
    int fd;           /* for system calls that Shoal does not have; stays the file's */
    uint16_t core;    /* private: who opened it */
    bool cached_read; /* private: the file system tells what is in its cache */
};

struct shoal_file_stat {
    uint64_t size_bytes;
    uint64_t inode;
    uint64_t device;
    int64_t mtime_s; /* since 1970-01-01 UTC */
    uint32_t mtime_fraction_ns;
    uint32_t mode; /* type and permissions: S_ISREG(mode) and so on */
};

/*
 * Opens `path`, relative to `dirfd` (AT_FDCWD: the working directory), and sets `*out`; on failure
 * out->fd is -1. Never waits for a peer: a FIFO opens at once, or fails with -ENXIO for writing.
 * Returns 0 or -errno: -ENOENT, -EACCES, -EXDEV and -ELOOP (see `resolve`), -EMFILE, -EINVAL
 * (unknown flags), -ENOSYS (a kernel before 5.6: there is no openat2), -ECANCELED.
 */
SHOAL_API int shoal_file_open(struct shoal_file *out, int dirfd, const char *path,
                              const struct shoal_file_how *how);

/*
 * Reads up to `len` bytes at `offset_bytes` into `buf`. Returns how many: 0 at the end of the file
 * only, else perhaps fewer than `len`, and SHOAL_FILE_READ_MAX at most; call again for the rest.
 * -EISDIR, -EIO, -EBADF (not open for reading), -EINVAL (an offset beyond INT64_MAX), -ECANCELED.
 * For regular files and block devices; what cannot seek is refused with -ESPIPE.
 */
SHOAL_API int shoal_file_read(struct shoal_file *file, void *buf, size_t len,
                              uint64_t offset_bytes);

/* Facts about the open file, as the kernel has them now. 0, -EBADF, -ECANCELED. */
SHOAL_API int shoal_file_stat(const struct shoal_file *file, struct shoal_file_stat *out);

/*
 * Closes `file`, and does nothing with one that is closed. Works on a cancelled fiber too, and on
 * the core outside of fibers.
 */
SHOAL_API void shoal_file_close(struct shoal_file *file);

SHOAL_END_DECLS

#endif
