/*
 * Direct I/O: see file_direct.h.
 *
 * Rejected: refusing what is not aligned before the kernel does. Some file systems (tmpfs) take
 * O_DIRECT and ask for nothing, others ask for less than they say; what works is not for us to
 * forbid. So the values are looked at only to explain a -EINVAL.
 */
#include "shoal/runtime/file_direct.h"

#include <errno.h>
#include <stdio.h>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "shoal/runtime/file_impl.h"
#include "shoal/runtime/future_impl.h"

#define GUESS_BYTES 4096u /* no disk of today asks for more */
#define TEXT_BYTES  160

static bool is_power_of_two(uint32_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

static void guess(int fd, const struct statx *facts, struct shoal_file_alignment *out)
{
    int sector = 0;
    *out = (struct shoal_file_alignment){.memory_bytes = GUESS_BYTES, .offset_bytes = GUESS_BYTES};
    if (S_ISBLK(facts->stx_mode) && ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0 &&
        is_power_of_two((uint32_t)sector))
        out->offset_bytes = (uint32_t)sector;
}

static int ask(const struct shoal_core *core, const struct shoal_file *file,
               struct shoal_file_alignment *out)
{
    struct statx facts = {.stx_mask = 0};
    struct shoal_io_fd fd = {.fd = file->fd};
    struct shoal_io_op op = {.kind = SHOAL_IO_STAT, .fd = &fd};
    op.arg.path.path = "";
    op.arg.path.other = &facts;
    op.arg.path.extra = STATX_TYPE | STATX_DIOALIGN;
    op.arg.path.flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
    int rc = core->io.ops->real_files ? shoal_file_op_now(&op) : 0;
    if (rc < 0)
        return rc;
    guess(file->fd, &facts, out);
    if ((facts.stx_mask & STATX_DIOALIGN) == 0)
        return 0;
    if (facts.stx_dio_mem_align == 0 || facts.stx_dio_offset_align == 0)
        return -EOPNOTSUPP;
    if (!is_power_of_two(facts.stx_dio_mem_align) || !is_power_of_two(facts.stx_dio_offset_align))
        return 0;
    *out = (struct shoal_file_alignment){.memory_bytes = facts.stx_dio_mem_align,
                                         .offset_bytes = facts.stx_dio_offset_align,
                                         .known = true};
    return 0;
}

int shoal_file_alignment(const struct shoal_file *file, struct shoal_file_alignment *out)
{
    const struct shoal_core *core = shoal_file_core();
    shoal_file_check_mine(file);
    int code = shoal_fiber_cancel_code(core->fiber);
    if (code < 0)
        return code;
    return file->fd < 0 ? -EBADF : ask(core, file, out);
}

/* Room in which shoal_mem_alloc_aligned() is content, too. */
static size_t memory_alignment(const struct shoal_file_alignment *need)
{
    return need->memory_bytes > 16 ? need->memory_bytes : 16;
}

static size_t round_up(const struct shoal_file_alignment *need, size_t bytes)
{
    return (bytes + need->offset_bytes - 1) & ~((size_t)need->offset_bytes - 1);
}

void *shoal_file_buffer_new(const struct shoal_file_alignment *need, size_t bytes)
{
    if (bytes > SIZE_MAX - need->offset_bytes)
        return NULL;
    return shoal_mem_alloc_aligned(round_up(need, bytes), memory_alignment(need));
}

void shoal_file_buffer_free(const struct shoal_file_alignment *need, void *buffer, size_t bytes)
{
    shoal_mem_free_aligned(buffer, round_up(need, bytes), memory_alignment(need));
}

/* ---- Why ---- */

/* Writes what is not aligned into `text`; whether anything is. */
static bool find_fault(const struct shoal_file_alignment *need, char *text, const char *what,
                       const struct iovec *vecs, int count, uint64_t offset_bytes)
{
    if (offset_bytes % need->offset_bytes != 0) {
        (void)snprintf(text, TEXT_BYTES, "direct %s: the offset %llu is no multiple of %u", what,
                       (unsigned long long)offset_bytes, need->offset_bytes);
        return true;
    }
    for (int i = 0; i < count; i++) {
        if (vecs[i].iov_len % need->offset_bytes != 0) {
            (void)snprintf(text, TEXT_BYTES, "direct %s: the length %zu is no multiple of %u", what,
                           vecs[i].iov_len, need->offset_bytes);
            return true;
        }
        if ((uintptr_t)vecs[i].iov_base % need->memory_bytes != 0) {
            (void)snprintf(text, TEXT_BYTES,
                           "direct %s: the memory at %p is not aligned to %u bytes", what,
                           vecs[i].iov_base, need->memory_bytes);
            return true;
        }
    }
    return false;
}

int shoal_file_explain(const struct shoal_file *file, int code, const char *what,
                       const struct iovec *vecs, int count, uint64_t offset_bytes)
{
    const struct shoal_core *core = shoal_core_self;
    struct shoal_file_alignment need;
    char text[TEXT_BYTES];
    if (SHOAL_LIKELY(code != -EINVAL || !file->direct))
        return code;
    if (ask(core, file, &need) == 0 && find_fault(&need, text, what, vecs, count, offset_bytes))
        return shoal_fiber_explain(code, "%s", text);
    return code;
}
