/*
 * Waiting for descriptors of third-party libraries. Shoal's own sockets and files have calls of
 * their own (net/, runtime/file.h).
 */
#ifndef SHOAL_RUNTIME_IO_H
#define SHOAL_RUNTIME_IO_H

#include "shoal/runtime/compiler.h"

SHOAL_BEGIN_DECLS

/*
 * Waits until `fd` is ready for any of `events` (POLLIN, POLLOUT, POLLPRI; poll(2)), as it is now
 * or becomes: one shot, level-triggered, on both I/O backends. Returns the events that are ready
 * (POLLERR and POLLHUP may be among them), or -ECANCELED, -EBADF, -ENOMEM. Called on a fiber;
 * yields. `fd` must stay open until it returns.
 */
SHOAL_API int shoal_poll_fd(int fd, short events);

SHOAL_END_DECLS

#endif
