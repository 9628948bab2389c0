/* Ceiling: every request gets the same answer, unread but for where it ends.
 *
 *     fixed PORT CONTENT_SIZE [close]
 */
#include "loop.h"

static char *answer;
static size_t answer_size;
static int close_each;

static int wait_for_events(int epoll, struct epoll_event *events) { return epoll_wait(epoll, events, EVENTS, -1); }

static size_t take_request(struct connection *connection, const char *data, size_t size, struct output *output) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    output_append(output, answer, answer_size);
    connection->closing = close_each;
    return end + 4 - data;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s PORT CONTENT_SIZE [close]\n", argv[0]);
        return 2;
    }
    size_t content_size = strtoul(argv[2], NULL, 10);
    close_each = argc > 3;
    answer = malloc(content_size + 512);
    if (!answer) return 1;
    /* The fields that a server sends with the hello application, so that as many octets travel. */
    answer_size = sprintf(answer,
                          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s"
                          "Server: ceiling\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
                          content_size, close_each ? "Connection: close\r\n" : "");
    if (content_size == 13)
        memcpy(answer + answer_size, "Hello, World!", 13);
    else
        memset(answer + answer_size, 'x', content_size);
    answer_size += content_size;

    int listener = listen_on(atoi(argv[1]));
    if (listener < 0) {
        perror("listen");
        return 1;
    }
    loop_run(listener);
}
