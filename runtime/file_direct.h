/*
 * Files past the page cache (O_DIRECT): the alignment that they ask for, and memory that has it.
 *
 *   struct shoal_file_alignment need;
 *   int rc = shoal_file_alignment(&file, &need);
 *   void *block = shoal_file_buffer_new(&need, 65536);
 *   rc = shoal_file_read(&file, block, 65536, 0);
 *   shoal_file_buffer_free(&need, block, 65536);
 *
 * Address, offset and length of each read and write are multiples of what the file asks for; the
 * last read of a file may give fewer bytes. Where the kernel refuses (-EINVAL), the text of
 * shoal_error_message() names the value and what it should be a multiple of. The streams of
 * file_stream.h see to the alignment themselves.
 *
 * Writing to one place directly and at the same time close by through the page cache (by another
 * descriptor) is asking for trouble: the kernel then fails the next sync with -EIO.
 */
#ifndef SHOAL_RUNTIME_FILE_DIRECT_H
#define SHOAL_RUNTIME_FILE_DIRECT_H

#include "shoal/runtime/file.h"

SHOAL_BEGIN_DECLS

struct shoal_file_alignment {
    uint32_t memory_bytes; /* of addresses; a power of two */
    uint32_t offset_bytes; /* of offsets and lengths; a power of two */
    bool known;            /* the kernel has told (since 6.1), else it is a guess that is safe */
};

/*
 * What `file`, opened with O_DIRECT, asks for. 0, -EBADF; -EOPNOTSUPP when the kernel says that
 * this file has no direct I/O; the code of a cancel. On a fiber; does not wait for the disk.
 */
SHOAL_API int shoal_file_alignment(const struct shoal_file *file, struct shoal_file_alignment *out);

/*
 * Memory for direct I/O on a file that asks for `need`: `bytes` (> 0, rounded up to a multiple of
 * need->offset_bytes). NULL: no memory. Freed on the core that took it, with the same arguments.
 */
SHOAL_API void *shoal_file_buffer_new(const struct shoal_file_alignment *need, size_t bytes);
SHOAL_API void shoal_file_buffer_free(const struct shoal_file_alignment *need, void *buffer,
                                      size_t bytes);

SHOAL_END_DECLS

#endif
