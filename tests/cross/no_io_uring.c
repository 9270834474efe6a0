/*
 * In place of runtime/io_uring.c where no liburing is installed for the processor: a backend that
 * cannot be opened. The tests ask for epoll.
 */
#include <errno.h>
#include <stdio.h>

#include "shoal/runtime/core_impl.h"

static int no_open(struct shoal_core *core, char *error, size_t error_size)
{
    (void)core;
    snprintf(error, error_size, "io_uring is not in this build");
    return -ENOSYS;
}

const struct shoal_io_ops shoal_io_uring = {.name = "io_uring", .open = no_open};
