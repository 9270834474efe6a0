/*
 * Files, used from a fiber without blocking its core.
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
 *    may lie on the caller's stack. A result that was faster than the cancel is delivered; else the
 *    result is the code of the cancel: -ECANCELED, or -ETIMEDOUT of a deadline. In the lists of
 *    errors below it is not named again, nor -EAGAIN: no helper thread can be had.
 * 3. Several fibers may use one file at the same time; it is closed when none of them does. Each
 *    call says its offset: there is no position to share.
 * 4. A file that is closed or was never opened has `fd` -1: calls on it return -EBADF.
 * 5. A file may not grow beyond RLIMIT_FSIZE: a program that sets that limit ignores SIGXFSZ, as
 *    the system otherwise ends it in place of giving -EFBIG.
 *
 * By name, see file_path.h and directory.h; in a row, file_stream.h; past the page cache,
 * file_direct.h.
 */
#ifndef SHOAL_RUNTIME_FILE_H
#define SHOAL_RUNTIME_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

struct iovec;

/* What one read gives or one write takes at most: a longer copy would hold the core. */
#define SHOAL_FILE_READ_MAX  (1u << 20)
#define SHOAL_FILE_WRITE_MAX (1u << 20)

/* How many vectors one call takes (the kernel's UIO_MAXIOV). */
#define SHOAL_FILE_VECTORS_MAX 1024u

/* For `resolve`. The path and its symbolic links may not lead out of `dirfd`: else -EXDEV. */
#define SHOAL_FILE_BENEATH UINT64_C(1)
/* For `resolve`. No symbolic link in the whole path: else -ELOOP. */
#define SHOAL_FILE_NO_SYMLINKS UINT64_C(2)

/* How to open; members may be added at the end, and 0 means the default. */
struct shoal_file_how {
    uint64_t flags;   /* O_* of open(2); O_CLOEXEC is implied */
    uint64_t mode;    /* permissions, with O_CREAT and O_TMPFILE only (else 0) */
    uint64_t resolve; /* SHOAL_FILE_*; 0: as open(2) does */
};

/* Embedded in its owner. */
struct shoal_file {
    int fd;                   /* for system calls that Shoal does not have; stays the file's */
    uint16_t core;            /* private: who opened it */
    bool cached_read;         /* private: the file system tells what is in its cache */
    bool direct;              /* private: opened with O_DIRECT */
    bool appends;             /* private: opened with O_APPEND */
    bool written;             /* private: its close may take long */
    uint16_t buffered_writes; /* private: for which O_DIRECT is off */
};

struct shoal_file_stat {
    uint64_t size_bytes;
    uint64_t inode;
    uint64_t device;
    int64_t mtime_s; /* since 1970-01-01 UTC */
    uint32_t mtime_fraction_ns;
    uint32_t mode; /* type and permissions: S_ISREG(mode) and so on */
    uint32_t links;
    uint32_t user;
    uint32_t group;
    uint32_t block_bytes; /* a good size for reads and writes */
    uint64_t allocated_bytes;
    int64_t atime_s;
    int64_t ctime_s;
    int64_t born_s; /* 0 if the file system does not keep it */
    uint32_t atime_fraction_ns;
    uint32_t ctime_fraction_ns;
    uint32_t born_fraction_ns;
};

/*
 * Opens `path`, relative to `dirfd` (AT_FDCWD: the working directory), and sets `*out`; on failure
 * out->fd is -1. Never waits for a peer: a FIFO opens at once, or fails with -ENXIO for writing.
 * Returns 0 or -errno: -ENOENT, -EACCES, -EXDEV and -ELOOP (see `resolve`), -EMFILE, -EINVAL
 * (unknown flags; O_DIRECT where the file system has none), -ENOSYS (a kernel before 5.6: there is
 * no openat2).
 */
SHOAL_API int shoal_file_open(struct shoal_file *out, int dirfd, const char *path,
                              const struct shoal_file_how *how);

/*
 * Makes a file of a descriptor that something else has opened (memfd_create(2), mkstemp(3)), and
 * which is the file's from now on. Its flags are looked at once, now. 0, or -EBADF: then nothing is
 * taken over. Does not yield; need not be on a fiber.
 */
SHOAL_API int shoal_file_adopt(struct shoal_file *out, int fd);

/* ---- Reading ---- */

/*
 * Reads up to `len` bytes at `offset_bytes` into `buf`. Returns how many: 0 at the end of the file
 * only, else perhaps fewer than `len`, and SHOAL_FILE_READ_MAX at most; call again for the rest.
 * -EISDIR, -EIO, -EBADF (not open for reading), -EINVAL (an offset beyond INT64_MAX; O_DIRECT, see
 * file_direct.h). For regular files and block devices; what cannot seek is refused with -ESPIPE.
 */
SHOAL_API int shoal_file_read(struct shoal_file *file, void *buf, size_t len,
                              uint64_t offset_bytes);

/* Reads all of `len` bytes, of any length. 0; SHOAL_EEOF when the file ends before; the above. */
SHOAL_API int shoal_file_read_exact(struct shoal_file *file, void *buf, size_t len,
                                    uint64_t offset_bytes);

/*
 * Reads into `count` vectors (at most SHOAL_FILE_VECTORS_MAX, else -EINVAL), one after the other.
 * Returns how many bytes; else as shoal_file_read(), without its limit. The array stays the
 * caller's and as it is.
 */
SHOAL_API int shoal_file_readv(struct shoal_file *file, const struct iovec *vecs, unsigned count,
                               uint64_t offset_bytes);

/* ---- Writing ---- */

/*
 * Writes up to `len` bytes at `offset_bytes` (with O_APPEND: at the end of the file). Returns how
 * many: perhaps fewer than `len`, and SHOAL_FILE_WRITE_MAX at most. -ENOSPC, -EDQUOT, -EFBIG, -EIO,
 * -EBADF (not open for writing), -EINVAL (as shoal_file_read()), -ESPIPE. What is written is in the
 * system's memory, and on the disk only after a sync.
 */
SHOAL_API int shoal_file_write(struct shoal_file *file, const void *data, size_t len,
                               uint64_t offset_bytes);

/* Writes all of `len` bytes, of any length. 0, or the above, after which a part may be written. */
SHOAL_API int shoal_file_write_all(struct shoal_file *file, const void *data, size_t len,
                                   uint64_t offset_bytes);

/* Writes `count` vectors; else as shoal_file_readv() and shoal_file_write(). */
SHOAL_API int shoal_file_writev(struct shoal_file *file, const struct iovec *vecs, unsigned count,
                                uint64_t offset_bytes);

/*
 * Writes at the end of the file, wherever that is by then: what several fibers or processes append
 * at the same time does not overlap. Returns how many bytes, as shoal_file_write().
 */
SHOAL_API int shoal_file_append(struct shoal_file *file, const void *data, size_t len);

/* ---- To the disk ---- */

/*
 * Waits until all that was written, and what the file system knows of the file, is on the disk:
 * fsync(2). 0, -EIO, -ENOSPC, -EDQUOT, -EINVAL (not a file that can be synced). An error is told
 * once, and what could not be written may be gone: do not take a second sync's 0 for success.
 */
SHOAL_API int shoal_file_sync(struct shoal_file *file);

/* The same for the data and what is needed to read it (size, not times): fdatasync(2). */
SHOAL_API int shoal_file_sync_data(struct shoal_file *file);

/*
 * Asks the system to begin to write this part (`len` 0: to the end) to the disk, so that a later
 * sync has less to do: sync_file_range(2). Nothing is safe because of it. 0, -EIO, -ESPIPE.
 */
SHOAL_API int shoal_file_writeback(struct shoal_file *file, uint64_t offset_bytes, uint64_t len);

/* ---- Size ---- */

/* Cuts the file, or extends it by zeros that take no space. 0, -EFBIG, -EINVAL (not open for
 * writing). */
SHOAL_API int shoal_file_truncate(struct shoal_file *file, uint64_t size_bytes);

/* For shoal_file_allocate(): the size stays as it is; the part is freed, and reads as zeros; the
 * part is made zeros. */
#define SHOAL_FILE_KEEP_SIZE  1u
#define SHOAL_FILE_PUNCH_HOLE 2u
#define SHOAL_FILE_ZERO       4u

/*
 * Takes space for `len` bytes (> 0) at `offset_bytes`, so that writing there finds it, and extends
 * the file to it; `flags` changes that. fallocate(2). 0, -ENOSPC, -EFBIG, -EOPNOTSUPP (the file
 * system has none), -EINVAL (unknown flags), -EBADF.
 */
SHOAL_API int shoal_file_allocate(struct shoal_file *file, unsigned flags, uint64_t offset_bytes,
                                  uint64_t len);

/* ---- Facts and end ---- */

/* Facts about the open file, as the kernel has them now. 0, -EBADF. */
SHOAL_API int shoal_file_stat(const struct shoal_file *file, struct shoal_file_stat *out);

/*
 * Closes `file`, and does nothing with one that is closed. The file is closed whatever the result:
 * 0, or what went wrong with a late write (-EIO, -ENOSPC, -EDQUOT of network file systems). Works
 * on a cancelled fiber too, and on the core outside of fibers, where it may block.
 */
SHOAL_API int shoal_file_close(struct shoal_file *file);

SHOAL_END_DECLS

#endif
