/*
 * Directories: made, removed, and listed one entry at a time, from a fiber.
 *
 *   struct shoal_directory dir;
 *   struct shoal_directory_entry entry;
 *   int rc = shoal_directory_open(&dir, AT_FDCWD, "/var/spool", 0);
 *   while (rc == 0 && (rc = shoal_directory_next(&dir, &entry)) > 0)
 *       ...
 *   shoal_directory_close(&dir);
 *
 * 1. A listing holds SHOAL_DIRECTORY_BYTES of memory, however many entries there are.
 * 2. Entries come in no order. What is made or removed meanwhile comes or does not; all else comes
 *    exactly once.
 * 3. A cancelled call loses no entry: the listing goes on where it was.
 * 4. All calls are made on a fiber of the core that opened the directory; one fiber at a time.
 */
#ifndef SHOAL_RUNTIME_DIRECTORY_H
#define SHOAL_RUNTIME_DIRECTORY_H

#include "shoal/runtime/file.h"

SHOAL_BEGIN_DECLS

#define SHOAL_DIRECTORY_BYTES (32u * 1024)

/* Embedded in its owner. */
struct shoal_directory {
    struct shoal_file file; /* file.fd serves as `dirfd` for the entries */
    char *buf;              /* private */
    uint32_t len;
    uint32_t at;
    bool restart;
};

struct shoal_directory_entry {
    const char *name; /* without a path; good until the next call on the listing */
    uint64_t inode;
    uint8_t type; /* DT_REG, DT_DIR, DT_LNK... of readdir(3); DT_UNKNOWN if it has just gone */
};

/*
 * Opens the directory `path`, relative to `dirfd` (AT_FDCWD: the working directory), to be listed.
 * `resolve`: SHOAL_FILE_BENEATH and SHOAL_FILE_NO_SYMLINKS, see file.h. 0; on failure there is
 * nothing to close: -ENOENT, -ENOTDIR, -EACCES, -EMFILE, -ENOMEM, the code of a cancel. May yield.
 */
SHOAL_API int shoal_directory_open(struct shoal_directory *out, int dirfd, const char *path,
                                   uint64_t resolve);

/*
 * The next entry, never "." nor "..". Returns 1 with `*out`; 0 at the end, and again at each
 * further call; -EIO, the code of a cancel. May yield.
 */
SHOAL_API int shoal_directory_next(struct shoal_directory *dir, struct shoal_directory_entry *out);

/* Starts the listing again, with what is there by then. Does not yield. */
SHOAL_API void shoal_directory_rewind(struct shoal_directory *dir);

/* Does nothing with a directory that is closed. Works on a cancelled fiber too. */
SHOAL_API void shoal_directory_close(struct shoal_directory *dir);

/* Makes a directory with the permissions `mode` (less the umask). 0, -EEXIST, -ENOENT, -ENOSPC,
 * -EROFS, the code of a cancel. On a fiber; yields. */
SHOAL_API int shoal_directory_make(int dirfd, const char *path, unsigned mode);

/* Removes an empty directory. 0, -ENOTEMPTY, -ENOENT, -ENOTDIR, the code of a cancel. On a fiber;
 * yields. */
SHOAL_API int shoal_directory_remove(int dirfd, const char *path);

SHOAL_END_DECLS

#endif
