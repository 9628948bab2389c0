/* The poller over epoll(7). Included by poller.h only. */
#include <sys/epoll.h>

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

enum { EPOLL_MOST = 64 };

static inline uint32_t poller_epoll_mask(int flags) {
    return (flags & WATCH_READ ? EPOLLIN : 0) | (flags & WATCH_WRITE ? EPOLLOUT : 0)
           | (flags & WATCH_END ? EPOLLRDHUP : 0) | (flags & WATCH_EXCLUSIVE ? EPOLLEXCLUSIVE : 0) | (flags & WATCH_EDGE ? (uint32_t)EPOLLET : 0);
}

static inline int poller_epoll_open(int wake_fd) {
    struct epoll_event event;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) return -1;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, wake_fd, &event) < 0) {
        close(epoll);
        return -1;
    }
    return epoll;
}

static inline int poller_epoll_watch(int epoll, int fd, int before, int after, void *item) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = poller_epoll_mask(after);
    event.data.ptr = item;
    return epoll_ctl(epoll, !after ? EPOLL_CTL_DEL : before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

static inline int poller_epoll_wait(int epoll, wake_t *wake, event_t *events, int most, int timeout_ms) {
    struct epoll_event ready[EPOLL_MOST];
    int count = 0;
    int n = epoll_wait(epoll, ready, most < EPOLL_MOST ? most : EPOLL_MOST, timeout_ms);
    for (int i = 0; i < n; i++) {
        uint32_t mask = ready[i].events;
        if (ready[i].data.ptr == NULL) {
            wake_drain(wake);
            continue;
        }
        events[count].item = ready[i].data.ptr;
        events[count].flags = (mask & (EPOLLIN | EPOLLRDHUP) ? WATCH_READ : 0) | (mask & EPOLLOUT ? WATCH_WRITE : 0)
                              | (mask & (EPOLLERR | EPOLLHUP) ? EVENT_GONE : 0);
        count++;
    }
    return count;
}
