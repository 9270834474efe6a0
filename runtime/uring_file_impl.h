/*
 * Operations on files as the ring takes them, and which of them its kernel knows.
 */
#ifndef SHOAL_RUNTIME_URING_FILE_IMPL_H
#define SHOAL_RUNTIME_URING_FILE_IMPL_H

#include "shoal/runtime/io_impl.h"
#include "shoal/runtime/uring_compat.h"

/* The SHOAL_IO_BIT of each kind of file operation that the kernel of `probe` runs. */
uint32_t shoal_uring_file_kinds(const struct io_uring_probe *probe);

void shoal_uring_prepare_file(struct io_uring_sqe *sqe, const struct shoal_io_op *op);

#endif
