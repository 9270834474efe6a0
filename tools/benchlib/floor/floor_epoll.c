/*
 * The floor with epoll: edge-triggered, one recv and one send for what a read brought.
 *
 * 1. A descriptor is registered once, at accept, and never modified.
 * 2. A read that filled less than the buffer has drained the socket: no second recv. A FIN that
 *    came with the data shows as EPOLLRDHUP in the same event.
 *
 * Rejected, because they cost more: recv again until EAGAIN (1-4 %), read/write in place of
 * recv/send (up to 4 %). Rejected, because they measured the same: level-triggered, all reads
 * before all writes, a look with time-out 0 before blocking, EPOLLOUT registered too.
 */
#include <sys/epoll.h>

#include "floor.h"

#define EVENTS_MAX 512

static char buffer[FLOOR_BUFFER_SIZE];

static void accept_all(int epoll_fd, int listen_fd)
{
    int fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd};
        if (!floor_conn_init(fd) || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            close(fd);
        }
    }
}

/* Answers what there is to read; false when the connection is at its end. */
static int serve(int fd)
{
    ssize_t size;
    do {
        size = recv(fd, buffer, sizeof(buffer), 0);
        if (size <= 0) {
            return size < 0 && errno == EAGAIN;
        }
        uint32_t count = floor_count(&floor_conns[fd], buffer, (uint32_t)size);
        size_t reply_size = count * FLOOR_REPLY_SIZE;
        if (count != 0 &&
            send(fd, floor_replies, reply_size, MSG_NOSIGNAL) != (ssize_t)reply_size) {
            return 0;
        }
    } while (size == (ssize_t)sizeof(buffer));
    return 1;
}

int main(void)
{
    static struct epoll_event events[EVENTS_MAX];
    int listen_fd = floor_listen();
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listen_fd};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) != 0) {
        floor_die("epoll", errno);
    }
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listen_fd) {
                accept_all(epoll_fd, listen_fd);
            } else if (!serve(fd) || (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
                close(fd);
            }
        }
    }
}
