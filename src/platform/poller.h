/* The poller: which descriptors are ready. Five functions (open, watch, wait, wake, close) over two
   implementations, level-triggered both: poller_epoll.h on Linux, poller_poll.h on every POSIX system.
   Both are compiled on Linux, so that one build can be tested on either. */
#ifndef FASTWSGI_POLLER_H
#define FASTWSGI_POLLER_H

#include "platform.h"

/* WATCH_GONE alone: nothing but the end of the connection, which cannot be masked. WATCH_EXCLUSIVE: of the processes that
   watch it, not all need to be told; such a descriptor is watched or not, and nothing else can be changed.
   WATCH_END: that the peer has ended its side, with octets before that unread, told of as WATCH_READ; where the kernel
   cannot, as WATCH_GONE.
   WATCH_EDGE: told of once each time it is written to, and never read; only where poller_has_edges. */
enum { WATCH_READ = 1, WATCH_WRITE = 2, EVENT_GONE = 4, WATCH_GONE = 8, WATCH_EXCLUSIVE = 16, WATCH_EDGE = 32,
       WATCH_END = 64 };

typedef struct { void *item; int flags; } event_t;

#include "poller_poll.h"
#if defined(__linux__)
#include "poller_epoll.h"
#endif

typedef struct {
    wake_t wake;
    int use_poll;
    poll_set_t poll;
#if defined(__linux__)
    int epoll;
#endif
} poller_t;

/* 0, or -1 with errno; nothing is left open then. */
static inline int poller_open(poller_t *poller, int use_poll) {
    memset(poller, 0, sizeof *poller);
    if (wake_open(&poller->wake) < 0) return -1;
#if defined(__linux__)
    poller->epoll = -1;
    poller->use_poll = use_poll;
    if (!use_poll) {
        poller->epoll = poller_epoll_open(poller->wake.reader);
        if (poller->epoll >= 0) return 0;
        wake_close(&poller->wake);
        return -1;
    }
#else
    (void)use_poll;
    poller->use_poll = 1;
#endif
    if (poller_poll_open(&poller->poll, poller->wake.reader) == 0) return 0;
    wake_close(&poller->wake);
    return -1;
}

/* Change what is watched of fd from `before` to `after` (0: not at all); 0, or -1 with errno. Only the
   leader calls this. */
static inline int poller_watch(poller_t *poller, int fd, int before, int after, void *item) {
    if (before == after) return 0;
#if defined(__linux__)
    if (!poller->use_poll) return poller_epoll_watch(poller->epoll, fd, before, after, item);
#endif
    return poller_poll_watch(&poller->poll, fd, after, item);
}

static inline int poller_has_edges(const poller_t *poller) { return !poller->use_poll; }

/* Up to `most` events, waiting at most timeout_ms (-1: for ever); a wake-up ends the wait and is no event.
   An interrupted wait is one without events. */
static inline int poller_wait(poller_t *poller, event_t *events, int most, int timeout_ms) {
#if defined(__linux__)
    if (!poller->use_poll) return poller_epoll_wait(poller->epoll, &poller->wake, events, most, timeout_ms);
#endif
    return poller_poll_wait(&poller->poll, &poller->wake, events, most, timeout_ms);
}

/* End the wait of the leader, or its next one; any thread. */
static inline void poller_wake(poller_t *poller) { wake_write(&poller->wake); }

/* A descriptor that is readable while there are events; -1: there is none. */
static inline int poller_descriptor(const poller_t *poller) {
#if defined(__linux__)
    return poller->epoll;
#else
    (void)poller;
    return -1;
#endif
}

static inline void poller_close(poller_t *poller) {
#if defined(__linux__)
    if (poller->epoll >= 0) close(poller->epoll);
    poller->epoll = -1;
#endif
    poller_poll_close(&poller->poll);
    wake_close(&poller->wake);
}

#endif
