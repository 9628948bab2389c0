# Everything of src/platform/*.h that the modules use; the only declarations of hand-written C.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.types cimport off_t


cdef extern from "platform/atomic.h" nogil:
    ctypedef struct atomic_word_t:
        pass
    ctypedef struct atomic_line_t:
        pass
    ctypedef struct atomic_pointer_t:
        pass
    ctypedef struct atomic_head_t:
        pass

    uint64_t word_load(atomic_word_t* word) noexcept
    void word_store(atomic_word_t* word, uint64_t value) noexcept
    uint64_t word_or(atomic_word_t* word, uint64_t bits) noexcept
    uint64_t word_swap(atomic_word_t* word, uint64_t value) noexcept
    bint word_replace(atomic_word_t* word, uint64_t old, uint64_t new) noexcept
    uint64_t word_load_relaxed(atomic_word_t* word) noexcept
    void word_store_relaxed(atomic_word_t* word, uint64_t value) noexcept
    void word_store_release(atomic_word_t* word, uint64_t value) noexcept
    void word_count(atomic_word_t* word, int64_t by) noexcept
    void word_add(atomic_word_t* word, int64_t by) noexcept
    void words_store(atomic_word_t* words, const char* text, size_t size) noexcept
    void words_store_whole(atomic_word_t* words, const char* text, size_t size) noexcept
    void words_load(char* text, atomic_word_t* words, size_t count) noexcept
    uint64_t line_load(atomic_line_t* line) noexcept
    void line_store(atomic_line_t* line, uint64_t value) noexcept
    bint line_replace(atomic_line_t* line, uint64_t old, uint64_t new) noexcept
    void* pointer_load_relaxed(atomic_pointer_t* pointer) noexcept
    void pointer_store_relaxed(atomic_pointer_t* pointer, void* value) noexcept
    void* head_load(atomic_head_t* head) noexcept
    void* head_take(atomic_head_t* head) noexcept
    void head_push(atomic_head_t* head, void* item, void** next) noexcept


cdef extern from "platform/platform.h" nogil:
    ctypedef unsigned int socklen_t
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef int cpu_clock_t
    ctypedef struct wake_t:
        int reader
        int writer
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    enum: AF_INET
    enum: AF_INET6
    enum: SHUT_WR
    enum: SHUT_RDWR

    int64_t platform_now_ns() noexcept
    unsigned int bits_of(uint64_t number) noexcept
    int64_t platform_thread_cpu_ns() noexcept
    int platform_become_subreaper() noexcept
    int64_t platform_wall_seconds() noexcept
    int64_t platform_wall_ns() noexcept
    cpu_clock_t platform_own_clock() noexcept
    int64_t platform_clock_ns(cpu_clock_t clock) noexcept
    int platform_accept(int listener, sockaddr_storage* address, socklen_t* size) noexcept
    void platform_give_up(int listener) noexcept
    bint platform_is_given_up(int listener) noexcept
    int platform_drop_new(int listener) noexcept
    int platform_hear_near(int fd, bint only) noexcept
    int platform_reach(int listener) noexcept
    bint platform_is_listening(int socket) noexcept
    void platform_set_reset(int fd) noexcept
    bint platform_would_block() noexcept
    bint platform_has_octets(int fd) noexcept
    bint platform_has_ended(int fd) noexcept
    bint platform_has_finished(int fd) noexcept
    ssize_t platform_recv(int fd, char* data, size_t size) noexcept
    ssize_t platform_send(int fd, const char* data, size_t size, int more) noexcept
    ssize_t platform_send_pieces(int fd, iovec* pieces, int count) noexcept
    ssize_t platform_sendfile(int socket, int file, off_t* offset, size_t size) noexcept
    int platform_write_all(int file, const char* data, size_t size, off_t offset) noexcept
    int platform_write_some(int fd, const char* data, size_t size, size_t* written, int wait_ms) noexcept
    int platform_wait_readable(int fd, int other, int timeout_ms) noexcept
    int platform_temporary_file(const char* directory) noexcept
    int platform_address_octets(const sockaddr_storage* address, uint8_t* octets, int* port) noexcept
    size_t platform_octets_text(const uint8_t* octets, char* text) noexcept
    int platform_parse_octets(const char* text, uint8_t* octets) noexcept
    void platform_name_thread(const char* name) noexcept

    int wake_open_pipe(wake_t* wake) noexcept
    void wake_close(wake_t* wake) noexcept
    void wake_write(wake_t* wake) noexcept
    void wake_hint(wake_t* wake) noexcept
    bint wake_drain(wake_t* wake) noexcept

    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) noexcept
    int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept
    int pthread_cond_destroy(pthread_cond_t* condition) noexcept
    int pthread_cond_broadcast(pthread_cond_t* condition) noexcept
    int pthread_cond_signal(pthread_cond_t* condition) noexcept
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) noexcept
    int condition_init(pthread_cond_t* condition) noexcept
    int condition_wait(pthread_cond_t* condition, pthread_mutex_t* mutex, int64_t ns) noexcept

    int listen(int fd, int backlog) noexcept
    int shutdown(int fd, int how) noexcept
    int dup_cloexec "platform_dup"(int fd) noexcept


cdef extern from "platform/poller.h" nogil:
    enum: WATCH_READ
    enum: WATCH_WRITE
    enum: WATCH_GONE
    enum: EVENT_GONE
    enum: WATCH_EXCLUSIVE
    enum: WATCH_EDGE
    enum: WATCH_END
    ctypedef struct event_t:
        void* item
        int flags
    ctypedef struct poller_t:
        pass

    int poller_open(poller_t* poller, int use_poll) noexcept
    int poller_watch(poller_t* poller, int fd, int before, int after, void* item) noexcept
    bint poller_has_edges(const poller_t* poller) noexcept
    int poller_descriptor(const poller_t* poller) noexcept
    int poller_wait(poller_t* poller, event_t* events, int most, int timeout_ms) noexcept
    void poller_wake(poller_t* poller) noexcept
    void poller_close(poller_t* poller) noexcept
