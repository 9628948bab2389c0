/* The least a keep-alive HTTP server does on Linux: one thread, level-triggered epoll, one receive and one send per
 * turn of a connection however many requests arrived in it. Both ceilings include this file, so that they differ in
 * what they answer and in nothing else. No limits, no deadlines, no error answers: a ceiling, not a server.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_SIZE 32768
#define EVENTS 64

struct connection {
    int fd;
    int closing;   /* close once everything is sent */
    size_t filled; /* octets in received */
    char *unsent;  /* what the kernel refused; owned, NULL when there is none */
    size_t unsent_size, unsent_from;
    char received[RECEIVE_SIZE];
};

struct output {
    char *data;
    size_t size, room;
};

/* The including file says how to wait and what to answer. take_request appends the answer to one request at the start
 * of data[0:size] and returns the octets of that request; 0 when it is not complete yet. */
static int wait_for_events(int epoll, struct epoll_event *events);
static size_t take_request(struct connection *connection, const char *data, size_t size, struct output *output);

static inline char *output_reserve(struct output *output, size_t size) {
    if (output->size + size > output->room) {
        output->room = (output->size + size) * 2;
        output->data = realloc(output->data, output->room);
        if (!output->data) abort();
    }
    return output->data + output->size;
}

static inline void output_append(struct output *output, const char *data, size_t size) {
    memcpy(output_reserve(output, size), data, size);
    output->size += size;
}

static int listen_on(int port) {
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (void *)&address, sizeof address) < 0 || listen(fd, 2048) < 0) return -1;
    return fd;
}

static void connection_close(struct connection *connection) {
    close(connection->fd);
    free(connection->unsent);
    free(connection);
}

static void watch(int epoll, struct connection *connection, int operation, uint32_t wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = connection};
    epoll_ctl(epoll, operation, connection->fd, &event);
}

static void accept_all(int epoll, int listener) {
    int yes = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = malloc(sizeof *connection);
        if (!connection) abort();
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        /* Field by field: clearing the receive buffer would cost more than the rest of the accept. */
        connection->fd = fd;
        connection->closing = 0;
        connection->filled = 0;
        connection->unsent = NULL;
        watch(epoll, connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Returns 0 when the connection is gone. */
static int send_rest(int epoll, struct connection *connection) {
    size_t left = connection->unsent_size - connection->unsent_from;
    ssize_t sent = send(connection->fd, connection->unsent + connection->unsent_from, left, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent > 0) connection->unsent_from += sent;
    if (connection->unsent_from < connection->unsent_size) return 1;
    free(connection->unsent);
    connection->unsent = NULL;
    watch(epoll, connection, EPOLL_CTL_MOD, EPOLLIN);
    return !connection->closing;
}

static int send_output(int epoll, struct connection *connection, struct output *output) {
    ssize_t sent = send(connection->fd, output->data, output->size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent < 0) sent = 0;
    if ((size_t)sent == output->size) return !connection->closing;
    connection->unsent_size = output->size - sent;
    connection->unsent_from = 0;
    connection->unsent = malloc(connection->unsent_size);
    if (!connection->unsent) abort();
    memcpy(connection->unsent, output->data + sent, connection->unsent_size);
    watch(epoll, connection, EPOLL_CTL_MOD, EPOLLOUT);
    return 1;
}

/* Returns 0 when the connection is to be closed. */
static int serve(int epoll, struct connection *connection, struct output *output) {
    if (connection->unsent) return send_rest(epoll, connection);

    ssize_t received = recv(connection->fd, connection->received + connection->filled,
                            sizeof connection->received - connection->filled, 0);
    if (received <= 0) return received < 0 && errno == EAGAIN;
    connection->filled += received;

    size_t from = 0, taken;
    output->size = 0;
    while (!connection->closing && from < connection->filled) {
        taken = take_request(connection, connection->received + from, connection->filled - from, output);
        if (taken == 0) break;
        from += taken;
    }
    connection->filled -= from;
    if (connection->filled == sizeof connection->received) return 0;
    if (connection->filled && from) memmove(connection->received, connection->received + from, connection->filled);
    return output->size == 0 || send_output(epoll, connection, output);
}

static void loop_run(int listener) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct output output = {0};
    struct epoll_event events[EVENTS];
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting);
    for (;;) {
        int count = wait_for_events(epoll, events);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection)
                accept_all(epoll, listener);
            else if (!serve(epoll, connection, &output))
                connection_close(connection);
        }
    }
}
