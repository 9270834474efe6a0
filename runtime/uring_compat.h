/*
 * What Debian's liburing 2.3 does not know, or knows only as an enumerator that #ifdef cannot see.
 * The one place for raw values; each names the kernel that brought it.
 */
#ifndef SHOAL_RUNTIME_URING_COMPAT_H
#define SHOAL_RUNTIME_URING_COMPAT_H

#include <liburing.h>

/* Linux 6.0, include/uapi/linux/io_uring.h: its presence tells that multishot receive is there. */
#define SHOAL_URING_OP_SEND_ZC 47

/* Linux 6.9, the same header: ftruncate(2), the size in `off`. */
#define SHOAL_URING_OP_FTRUNCATE 55

#endif
