/*
 * Listing directories: see directory.h.
 *
 * 1. One getdents64 fills the buffer with some hundred entries; the kernel keeps the position. It
 *    reads from the disk and has no form that does not wait, and the ring has no such operation:
 *    it always runs on a helper thread.
 * 2. A helper thread is not interrupted, so that no entry is lost: either it never began, or what
 *    it read is in the buffer before the cancelled call returns.
 *
 * Rejected: readdir(3), whose DIR allocates by itself and whose position cannot be shared.
 */
#include "shoal/runtime/directory.h"

#include <errno.h>
#include <string.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "shoal/runtime/file_impl.h"
#include "shoal/runtime/file_path.h"

/* As getdents64(2) writes it. */
struct kernel_entry {
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

int shoal_directory_open(struct shoal_directory *out, int dirfd, const char *path, uint64_t resolve)
{
    const struct shoal_file_how how = {.flags = O_RDONLY | O_DIRECTORY, .resolve = resolve};
    *out = (struct shoal_directory){.file = {.fd = -1}};
    int rc = shoal_file_open(&out->file, dirfd, path, &how);
    if (rc < 0)
        return rc;
    out->buf = shoal_mem_alloc(SHOAL_DIRECTORY_BYTES);
    if (out->buf == NULL) {
        (void)shoal_file_close(&out->file);
        return -ENOMEM;
    }
    return 0;
}

/* Reads the next batch. 1, 0 at the end. */
static int fill(struct shoal_core *core, struct shoal_directory *dir)
{
    struct shoal_io_fd fd = {.fd = dir->file.fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_LIST, .fd = &fd};
    op.arg.rw.data = dir->buf;
    op.arg.rw.len = SHOAL_DIRECTORY_BYTES;
    op.arg.rw.flags = dir->restart;
    int rc = shoal_file_run(core, &op);
    dir->at = 0;
    dir->len = rc > 0 ? (uint32_t)rc : 0;
    if (rc >= 0)
        dir->restart = false;
    if (rc == -ENOENT)
        return 0; /* it has been removed: nothing is left in it */
    return rc > 0 ? 1 : rc;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Some file systems keep no types in their directories. */
static int find_type(const struct shoal_directory *dir, struct shoal_directory_entry *entry)
{
    struct shoal_file_stat facts;
    int rc = shoal_file_stat_path(dir->file.fd, entry->name, SHOAL_FILE_NO_FOLLOW, &facts);
    if (rc == 0)
        entry->type = (uint8_t)IFTODT(facts.mode);
    return rc == -ENOENT ? 0 : rc;
}

int shoal_directory_next(struct shoal_directory *dir, struct shoal_directory_entry *out)
{
    struct shoal_core *core = shoal_file_core();
    shoal_file_check_mine(&dir->file);
    int rc = shoal_fiber_cancel_code(core->fiber);
    if (rc < 0)
        return rc;
    if (dir->buf == NULL)
        return -EBADF;
    for (;;) {
        if (dir->at == dir->len) {
            rc = fill(core, dir);
            if (rc <= 0)
                return rc;
        }
        const struct kernel_entry *entry = (const void *)(dir->buf + dir->at);
        SHOAL_CHECK(entry->bytes >= sizeof(*entry) && entry->bytes <= dir->len - dir->at,
                    "an entry of %u bytes in a directory", entry->bytes);
        *out = (struct shoal_directory_entry){
            .name = entry->name, .inode = entry->inode, .type = entry->type};
        if (!is_dots(entry->name)) {
            rc = entry->type == DT_UNKNOWN ? find_type(dir, out) : 0;
            if (rc < 0)
                return rc; /* the entry comes again */
            dir->at += entry->bytes;
            return 1;
        }
        dir->at += entry->bytes;
    }
}

void shoal_directory_rewind(struct shoal_directory *dir)
{
    shoal_file_check_mine(&dir->file);
    dir->at = 0;
    dir->len = 0;
    dir->restart = true;
}

void shoal_directory_close(struct shoal_directory *dir)
{
    if (dir->buf != NULL)
        shoal_file_check_mine(&dir->file);
    shoal_mem_free(dir->buf, SHOAL_DIRECTORY_BYTES);
    dir->buf = NULL;
    (void)shoal_file_close(&dir->file);
}
