/* The poller over poll(2): an array of pollfd, its items beside it, and where each descriptor stands in it.
   Included by poller.h only. */
#include <poll.h>

#if !defined(POLLRDHUP)
#define POLLRDHUP 0
#endif

typedef struct {
    struct pollfd *fds;  /* [0] is the wake handle */
    void **items;
    int count, capacity;
    int *places;         /* by descriptor: its index in fds, or 0 */
    int place_count;
    int next;            /* where the last scan stopped, so that no descriptor is always last */
} poll_set_t;

static inline int poller_poll_reserve(poll_set_t *set, int fd) {
    if (set->count == set->capacity) {
        int capacity = set->capacity ? set->capacity * 2 : 64;
        struct pollfd *fds = (struct pollfd *)realloc(set->fds, (size_t)capacity * sizeof *fds);
        if (fds == NULL) return -1;
        set->fds = fds;
        void **items = (void **)realloc(set->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return -1;
        set->items = items;
        set->capacity = capacity;
    }
    if (fd >= set->place_count) {
        int count = set->place_count ? set->place_count : 64;
        while (count <= fd) count *= 2;
        int *places = (int *)realloc(set->places, (size_t)count * sizeof *places);
        if (places == NULL) return -1;
        memset(places + set->place_count, 0, (size_t)(count - set->place_count) * sizeof *places);
        set->places = places;
        set->place_count = count;
    }
    return 0;
}

static inline int poller_poll_watch(poll_set_t *set, int fd, int after, void *item) {
    int place = fd < set->place_count ? set->places[fd] : 0;
    if (!after) {
        int last;
        if (!place) return 0;
        last = --set->count;
        set->places[fd] = 0;
        if (place != last) {
            set->fds[place] = set->fds[last];
            set->items[place] = set->items[last];
            set->places[set->fds[place].fd] = place;
        }
        return 0;
    }
    if (!place) {
        if (poller_poll_reserve(set, fd) < 0) {
            errno = ENOMEM;
            return -1;
        }
        place = set->count++;
        set->places[fd] = place;
    }
    set->fds[place].fd = fd;
    set->fds[place].events = (short)((after & WATCH_READ ? POLLIN : 0) | (after & WATCH_WRITE ? POLLOUT : 0)
                                      | (after & WATCH_END ? POLLRDHUP : 0));
    set->fds[place].revents = 0;
    set->items[place] = item;
    return 0;
}

static inline void poller_poll_close(poll_set_t *set) {
    free(set->fds);
    free(set->items);
    free(set->places);
    memset(set, 0, sizeof *set);
}

static inline int poller_poll_open(poll_set_t *set, int wake_fd) {
    if (poller_poll_watch(set, wake_fd, WATCH_READ, NULL) < 0) return -1;
    if (set->places[wake_fd] == 0) return 0;
    poller_poll_close(set);
    return -1;
}

static inline int poller_poll_wait(poll_set_t *set, wake_t *wake, event_t *events, int most, int timeout_ms) {
    int count = 0;
    int n = poll(set->fds, (nfds_t)set->count, timeout_ms);
    if (n <= 0) return 0;
    if (set->fds[0].revents) {
        wake_drain(wake);
        n--;
    }
    if (set->next < 1 || set->next >= set->count) set->next = 1;
    for (int seen = 1, i = set->next; seen < set->count && n > 0 && count < most; seen++) {
        short mask = set->fds[i].revents;
        if (mask) {
            events[count].item = set->items[i];
            events[count].flags = (mask & (POLLIN | POLLRDHUP) ? WATCH_READ : 0) | (mask & POLLOUT ? WATCH_WRITE : 0)
                                  | (mask & (POLLERR | POLLHUP | POLLNVAL) ? EVENT_GONE : 0);
            count++;
            n--;
        }
        if (++i >= set->count) i = 1;
        set->next = i;
    }
    return count;
}
