/* Opening a path that cannot leave a directory, whatever symbolic links and dot segments are in it. */
#ifndef FASTWSGI_BENEATH_H
#define FASTWSGI_BENEATH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#endif
#ifndef O_PATH
#define O_PATH O_RDONLY
#endif
#ifndef PATH_MAX
#define PATH_MAX 4096
#endif

/* FILE: to be read, and it never waits, for a FIFO neither. DIRECTORY: only to see that it is one. */
enum { BENEATH_FILE = O_RDONLY | O_NONBLOCK | O_NOCTTY, BENEATH_DIRECTORY = O_PATH | O_DIRECTORY };

/* A directory, through symbolic links too: whoever configures it says where it is. */
static inline int beneath_root(const char *path) { return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC); }

/* With openat2(2): symbolic links that stay beneath the root are followed. -1 with EXDEV for others. */
static inline int beneath_resolve(int root, const char *path, int flags) {
#if defined(__linux__)
    struct { uint64_t flags, mode, resolve; } how = {(uint64_t)(flags | O_CLOEXEC), 0, 0x08 | 0x02};
    int fd, tries = 8;
    /* RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS; EAGAIN: something was renamed meanwhile. */
    do fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || (errno == EAGAIN && --tries)));
    return fd;
#else
    (void)root, (void)path, (void)flags;
    errno = ENOSYS;
    return -1;
#endif
}

/* Without it, segment by segment: symbolic links are refused (ELOOP, or ENOTDIR amid the path), and so is ".." (EXDEV). */
static inline int beneath_walk(int root, const char *path, int flags) {
    char segment[NAME_MAX + 1];
    int at = root, fd, error;
    for (;;) {
        size_t size = strcspn(path, "/");
        const char *rest = path + size + strspn(path + size, "/");
        if (size > NAME_MAX) {
            fd = -1;
            errno = ENAMETOOLONG;
        } else if (size == 2 && memcmp(path, "..", 2) == 0) {
            fd = -1;
            errno = EXDEV;
        } else {
            memcpy(segment, size ? path : ".", size ? size : 1);
            segment[size ? size : 1] = 0;
            fd = openat(at, segment, (*rest ? BENEATH_DIRECTORY : flags) | O_NOFOLLOW | O_CLOEXEC);
        }
        error = errno;
        if (at != root) close(at);
        errno = error;
        if (fd < 0 || !*rest) return fd;
        at = fd;
        path = rest;
    }
}

/* Is there an openat2, and may it be called here? Some sandboxes say EPERM. */
static inline int beneath_can_resolve(void) {
    int root = beneath_root("/"), fd;
    if (root < 0) return 0;
    fd = beneath_resolve(root, ".", BENEATH_DIRECTORY);
    close(root);
    if (fd < 0) return 0;
    close(fd);
    return 1;
}

/* What is behind a descriptor, without the fields that differ by system. */
struct beneath_kind { int is_file, is_directory; uint64_t size; int64_t modified; };

static inline int beneath_status(int fd, struct beneath_kind *kind) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -1;
    kind->is_file = S_ISREG(status.st_mode);
    kind->is_directory = S_ISDIR(status.st_mode);
    kind->size = (uint64_t)status.st_size;
    kind->modified = (int64_t)status.st_mtime;
    return 0;
}

/* All of size octets; how many there were, or -1. */
static inline ssize_t beneath_read(int fd, char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, data + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

#endif
