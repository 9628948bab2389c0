/* What differs by operating system, or that Cython cannot say: sockets without blocking, sendfile, clocks,
   condition variables on the monotonic clock, the temporary file. Nothing here knows HTTP. */
#ifndef FASTWSGI_PLATFORM_H
#define FASTWSGI_PLATFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/filter.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#elif defined(__FreeBSD__)
#include <sys/procctl.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SO_NOSIGPIPE is set on the connection instead */
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

static inline int64_t platform_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* How many bits a number has, which is not 0. */
static inline unsigned bits_of(uint64_t number) { return 64 - (unsigned)__builtin_clzll(number); }

/* CPU time of the calling thread; costs a system call. */
static inline int64_t platform_thread_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The CPU clock of one thread, for another one to read. Where there is none it stands still. */
#if defined(__APPLE__)
typedef int cpu_clock_t;
static inline cpu_clock_t platform_own_clock(void) { return 0; }
static inline int64_t platform_clock_ns(cpu_clock_t clock) { (void)clock; return 0; }
#else
typedef clockid_t cpu_clock_t;
static inline cpu_clock_t platform_own_clock(void) {
    clockid_t clock;
    return pthread_getcpuclockid(pthread_self(), &clock) ? CLOCK_THREAD_CPUTIME_ID : clock;
}
static inline int64_t platform_clock_ns(cpu_clock_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) ? 0 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
#endif

/* Have the children of a child that ends become ours, not those of process 1. 0, or -1 with errno. */
static inline int platform_become_subreaper(void) {
#if defined(__linux__)
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
#elif defined(__FreeBSD__)
    return procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* The wall clock, only to be shown: it may jump. */
static inline int64_t platform_wall_seconds(void) {
    struct timespec t;
#if defined(CLOCK_REALTIME_COARSE)
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
#else
    clock_gettime(CLOCK_REALTIME, &t);
#endif
    return (int64_t)t.tv_sec;
}

/* The time of day, since 1970. */
static inline int64_t platform_wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int platform_set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -1;
    return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* The next connection, non-blocking and close-on-exec; -1 with errno. */
/* The same socket under a number that is none of a standard stream. An application that has closed one of these goes on
   printing: what it says is for nobody then, and not for a client. */
static inline int platform_above_standard(int fd) {
    int null, above = fcntl(fd, F_DUPFD_CLOEXEC, 3), error = errno;
    if (above < 0) {
        close(fd);
        errno = error;
        return -1;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        close(fd);
    } else {
        dup2(null, fd);
        if (null > 2) close(null);
    }
    return above;
}

static inline int platform_accept(int listener, struct sockaddr_storage *address, socklen_t *size) {
    int fd;
    do {
#if defined(__linux__)
        fd = accept4(listener, (struct sockaddr *)address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
        fd = accept(listener, (struct sockaddr *)address, size);
#endif
    } while (fd < 0 && errno == EINTR);
#if !defined(__linux__)
    if (fd >= 0) {
#if defined(SO_NOSIGPIPE)
        int one = 1;
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
        if (platform_set_nonblocking(fd) < 0) { int error = errno; close(fd); errno = error; return -1; }
    }
#endif
    return fd < 0 || fd > 2 ? fd : platform_above_standard(fd);
}

/* Whoever has this listener sees that it is given up: a time limit for sending, which a listener has no use for. */
static inline void platform_give_up(int listener) {
    struct timeval sign = {3600, 0};
    setsockopt(listener, SOL_SOCKET, SO_SNDTIMEO, &sign, sizeof sign);
}

static inline int platform_is_given_up(int listener) {
    struct timeval sign = {0, 0};
    socklen_t size = sizeof sign;
    return getsockopt(listener, SOL_SOCKET, SO_SNDTIMEO, &sign, &size) == 0 && sign.tv_sec > 0;
}

/* Have a TCP listener hear no new SYN, while the handshakes that have begun are completed and queued: those who come
   later send their SYN again in a second, and find it closed or another server there. For every process that shares
   the socket. 0, or -1 where that cannot be had. */
static inline int platform_drop_new(int listener) {
#if defined(__linux__)
    /* A socket filter sees the segment from the TCP header on; its flags are octet 13: SYN 0x02, ACK 0x10. */
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {sizeof instructions / sizeof *instructions, instructions};
    return setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
#else
    (void)listener;
    return -1;
#endif
}

/* A TCP socket hears only who is so near that no router is between and says so (RFC 5082), which hardly anybody does;
   or, again, everybody. Of a listener that is true of SYN alone: whatever comes of handshakes that have begun is heard,
   but the connections inherit it. 0, or -1 where that cannot be had. */
static inline int platform_hear_near(int fd, int only) {
    int ttl = only ? 255 : 0, heard = -1;
#if defined(IP_MINTTL)
    heard &= setsockopt(fd, IPPROTO_IP, IP_MINTTL, &ttl, sizeof ttl);
#endif
#if defined(IPV6_MINHOPCOUNT)
    heard &= setsockopt(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, &ttl, sizeof ttl);
#endif
    (void)ttl;
    return heard;
}

/* Where a TCP listener can be reached from: 1: only from this machine; 0: from others; -1: it is none of TCP. */
static inline int platform_reach(int listener) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &size) < 0) return -1;
    if (address.ss_family == AF_INET) return (ntohl(((struct sockaddr_in *)&address)->sin_addr.s_addr) >> 24) == 127;
    if (address.ss_family == AF_INET6) return !!IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&address)->sin6_addr);
    return -1;
}

static inline int platform_is_listening(int socket) {
    int answer = 1;
    socklen_t size = sizeof answer;
    /* Where the question is not understood, the answer stays. */
    getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &answer, &size);
    return answer;
}

/* Close so that the peer sees a reset, not an end: what it got is not the whole answer. */
static inline void platform_set_reset(int fd) {
    struct linger linger = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* The last call failed only because it would have had to wait. */
static inline int platform_would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK; }

static inline ssize_t platform_recv(int fd, char *data, size_t size) {
    ssize_t n;
    do n = recv(fd, data, size, 0); while (n < 0 && errno == EINTR);
    return n;
}

/* 1 when something has come that was not received. */
static inline int platform_has_octets(int fd) {
    char octet;
    return recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The peer has ended its side, and everything before that was read. */
static inline int platform_has_ended(int fd) {
    char octet;
    return recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* The peer has ended its side, whether what came before that was read or not, where the kernel can tell. */
static inline int platform_has_finished(int fd) {
#if defined(POLLRDHUP)
    struct pollfd look = { .fd = fd, .events = POLLRDHUP };
    return poll(&look, 1, 0) > 0;
#else
    return platform_has_ended(fd);
#endif
}

static inline ssize_t platform_send(int fd, const char *data, size_t size, int more) {
    ssize_t n;
    do n = send(fd, data, size, MSG_NOSIGNAL | (more ? MSG_MORE : 0)); while (n < 0 && errno == EINTR);
    return n;
}

/* Several pieces in one send. */
static inline ssize_t platform_send_pieces(int fd, struct iovec *pieces, int count) {
    struct msghdr message;
    ssize_t n;
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    message.msg_iovlen = (size_t)count;
    do n = sendmsg(fd, &message, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n;
}

/* Up to size bytes of file from *offset on to a socket; moves *offset. The number of bytes sent, 0 at the
   end of the file, -1 with errno (EAGAIN: the socket is full). */
static inline ssize_t platform_sendfile(int socket, int file, off_t *offset, size_t size) {
    char block[65536];
    ssize_t n, sent;
#if defined(__linux__)
    do n = sendfile(socket, file, offset, size); while (n < 0 && errno == EINTR);
    if (n >= 0 || (errno != EINVAL && errno != ENOSYS)) return n;
    /* a file system without it */
#endif
    do n = pread(file, block, size < sizeof block ? size : sizeof block, *offset); while (n < 0 && errno == EINTR);
    if (n <= 0) return n;
    sent = platform_send(socket, block, (size_t)n, 0);
    if (sent > 0) *offset += sent;
    return sent;
}

/* All of data to file at offset; 0, or an errno. */
static inline int platform_write_all(int file, const char *data, size_t size, off_t offset) {
    while (size > 0) {
        ssize_t n = pwrite(file, data, size, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0) return ENOSPC;
        data += n;
        size -= (size_t)n;
        offset += n;
    }
    return 0;
}

/* How much of data is offered at a time to what is no file: whole lines where there are any, because others may write
   between two pieces; a datagram has one line. A pipe that is writable takes PIPE_BUF without blocking. */
static inline size_t platform_piece(const char *data, size_t size, int is_datagram) {
    size_t end;
    if (is_datagram) {
        const char *line_end = memchr(data, '\n', size);
        return line_end == NULL ? size : (size_t)(line_end - data) + 1;
    }
    if (size <= PIPE_BUF) return size;
    for (end = PIPE_BUF; end > 0 && data[end - 1] != '\n'; end--) {}
    return end > 0 ? end : PIPE_BUF;
}

/* What fd takes of data, which is lines: 0 when all is written, or an errno (EINTR: see to the signal first; ETIMEDOUT:
   nobody has read for a while, or it takes long). *written counts what went out. */
static inline int platform_write_some(int fd, const char *data, size_t size, size_t *written, int wait_ms) {
    struct stat status;
    int known = fstat(fd, &status) == 0;
    int is_file = known && S_ISREG(status.st_mode), is_socket = known && S_ISSOCK(status.st_mode), type = 0;
    socklen_t room = sizeof type;
    int64_t until = platform_now_ns() + 2 * wait_ms * (int64_t)1000000;
    if (is_socket) getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &room);
    *written = 0;
    while (*written < size) {
        size_t piece = size - *written;
        ssize_t n;
        if (!is_file) {
            struct pollfd one = {fd, POLLOUT, 0};
            int ready = poll(&one, 1, wait_ms);
            if (ready < 0) return errno;
            if (ready == 0 || (wait_ms && platform_now_ns() > until)) return ETIMEDOUT;
            piece = platform_piece(data + *written, piece, type == SOCK_DGRAM);
        }
        if (is_socket) {
            size_t length = piece - (type == SOCK_DGRAM);
            n = send(fd, data + *written, length, MSG_DONTWAIT | MSG_NOSIGNAL);
            /* Over UDP that is the answer to an earlier one, and is told once. */
            if (n < 0 && errno == ECONNREFUSED && type == SOCK_DGRAM)
                n = send(fd, data + *written, length, MSG_DONTWAIT | MSG_NOSIGNAL);
            /* One that is too long for a datagram is left out. */
            if (type == SOCK_DGRAM && (n >= 0 || errno == EMSGSIZE)) n = (ssize_t)piece;
        } else {
            n = write(fd, data + *written, piece);
        }
        if (n < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
        *written += (size_t)n;
    }
    return 0;
}

/* Which of two descriptors (-1: none) is readable or has ended: bits 1 and 2; 0 when the time is up or a signal came. */
static inline int platform_wait_readable(int fd, int other, int timeout_ms) {
    struct pollfd both[2] = {{fd, POLLIN, 0}, {other, POLLIN, 0}};
    return poll(both, 2, timeout_ms) > 0 ? (both[0].revents ? 1 : 0) | (both[1].revents ? 2 : 0) : 0;
}

static inline int platform_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 3); }

/* Once for each connection, and inet_ntop takes several times as long. */
static inline size_t platform_ipv4_text(const unsigned char *octets, char *text) {
    char *out = text;
    for (int i = 0; i < 4; i++) {
        unsigned octet = octets[i];
        if (octet >= 100) *out++ = (char)('0' + octet / 100);
        if (octet >= 10) *out++ = (char)('0' + octet / 10 % 10);
        *out++ = (char)('0' + octet % 10);
        *out++ = i < 3 ? '.' : 0;
    }
    return (size_t)(out - text) - 1;
}

/* The address as 16 octets, IPv4 as ::ffff:a.b.c.d: an IPv4 client of a dual-stack listener is what it is. 0 where there
   is none, as on a unix socket. */
static inline int platform_address_octets(const struct sockaddr_storage *address, unsigned char *octets, int *port) {
    *port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        memcpy(octets, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
        memcpy(octets + 12, &in->sin_addr, 4);
        *port = ntohs(in->sin_port);
        return 1;
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        memcpy(octets, &in->sin6_addr, 16);
        *port = ntohs(in->sin6_port);
        return 1;
    }
    return 0;
}

/* Those octets as text, 40 octets of room: the canonical form of IPv6 takes no more with its zero, since what ends in
   IPv4 is short. Returns its length. */
static inline size_t platform_octets_text(const unsigned char *octets, char *text) {
    if (memcmp(octets, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) return platform_ipv4_text(octets + 12, text);
    if (inet_ntop(AF_INET6, octets, text, 40) == NULL) text[0] = 0;
    return strlen(text);
}

/* And back: 1, or 0 for what is no address. */
static inline int platform_parse_octets(const char *text, unsigned char *octets) {
    memcpy(octets, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    return inet_pton(AF_INET, text, octets + 12) == 1 || inet_pton(AF_INET6, text, octets) == 1;
}

/* An unlinked file in directory, for reading and writing, close-on-exec; -1 with errno. */
static inline int platform_temporary_file(const char *directory) {
    char name[4096];
    int fd;
#if defined(O_TMPFILE)
    fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
#endif
    if (snprintf(name, sizeof name, "%s/fastwsgi-XXXXXX", directory) >= (int)sizeof name) {
        errno = ENAMETOOLONG;
        return -1;
    }
#if defined(__linux__)
    fd = mkostemp(name, O_CLOEXEC);
#else
    fd = mkstemp(name);
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
    if (fd >= 0) unlink(name);
    return fd;
}

/* ---- wake handle: a descriptor that one side polls and any thread may make readable ---- */

typedef struct { int reader, writer; } wake_t;

/* Over a pipe: one that any number of bytes may be written to, as signal.set_wakeup_fd does. */
static inline int wake_open_pipe(wake_t *wake) {
    int ends[2];
    if (pipe(ends) < 0) return -1;
    wake->reader = ends[0];
    wake->writer = ends[1];
    if (platform_set_nonblocking(ends[0]) < 0 || platform_set_nonblocking(ends[1]) < 0) {
        close(ends[0]);
        close(ends[1]);
        return -1;
    }
    return 0;
}

static inline int wake_open(wake_t *wake) {
#if defined(__linux__)
    wake->reader = wake->writer = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return wake->reader < 0 ? -1 : 0;
#else
    return wake_open_pipe(wake);
#endif
}

static inline void wake_close(wake_t *wake) {
    if (wake->reader >= 0) close(wake->reader);
    if (wake->writer >= 0 && wake->writer != wake->reader) close(wake->writer);
    wake->reader = wake->writer = -1;
}

static inline void wake_write(wake_t *wake) {
    uint64_t one = 1;
    int saved = errno;
    while (write(wake->writer, &one, sizeof one) < 0 && errno == EINTR) {}
    errno = saved; /* EAGAIN: it is readable already, which is all that was wanted */
}

/* Over a pipe: to be told from all other calls, those of signals too. */
#define WAKE_HINT '\xFF'
static inline void wake_hint(wake_t *wake) {
    char hint = WAKE_HINT;
    int saved = errno;
    while (write(wake->writer, &hint, 1) < 0 && errno == EINTR) {}
    errno = saved;
}

/* 1 when there was more than hints. */
static inline int wake_drain(wake_t *wake) {
    char bytes[64];
    int is_called = 0;
    ssize_t i, n;
    do {
        n = read(wake->reader, bytes, sizeof bytes);
        for (i = 0; i < n; i++) is_called |= bytes[i] != WAKE_HINT;
    } while (n == (ssize_t)sizeof bytes);
    return is_called;
}

/* ---- condition variable on the monotonic clock ---- */

static inline int condition_init(pthread_cond_t *condition) {
#if defined(__APPLE__)
    return pthread_cond_init(condition, NULL);
#else
    pthread_condattr_t attributes;
    int error;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return error;
#endif
}

/* Wait for at most ns; returns 0, or ETIMEDOUT. */
static inline int condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t ns) {
    struct timespec t;
#if defined(__APPLE__)
    t.tv_sec = ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return pthread_cond_timedwait_relative_np(condition, mutex, &t);
#else
    ns += platform_now_ns();
    t.tv_sec = ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return pthread_cond_timedwait(condition, mutex, &t);
#endif
}

static inline void platform_name_thread(const char *name) {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), name);
#elif defined(__APPLE__)
    pthread_setname_np(name);
#else
    (void)name;
#endif
}

#endif
