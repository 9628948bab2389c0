# What a socket did not take: in memory, then in a spool file, and last a piece of a file of the application's.

from libc.stdint cimport uint64_t
from posix.types cimport off_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._platform cimport atomic_word_t


cdef enum:
    OUTBOX_EMPTY = 0        # all is sent
    OUTBOX_WAITS = 1        # the socket is full
    OUTBOX_LOST = -1        # the peer is gone
    OUTBOX_FILE_SHORT = -2  # the application's file ended before its announced length


cdef struct outbox_t:
    buffer_t memory         # goes first; refilled only while the spool is empty
    size_t memory_sent
    int spool               # owned; -1 until needed
    uint64_t spool_sent
    uint64_t spool_size     # spool[spool_sent:spool_size] waits
    int file                # owned; -1: none. Goes last; nothing is added after it
    off_t file_offset
    uint64_t file_left


cdef outbox_t* outbox_new() noexcept nogil
cdef void outbox_free(outbox_t* outbox) noexcept nogil
cdef bint outbox_is_empty(const outbox_t* outbox) noexcept nogil
cdef size_t outbox_add(outbox_t* outbox, const char* data, size_t size, size_t memory_limit,
                       uint64_t spool_limit, const char* directory) noexcept nogil
cdef void outbox_add_file(outbox_t* outbox, int file, off_t offset, uint64_t size) noexcept nogil
cdef int outbox_send(outbox_t* outbox, int socket, bint one_piece, atomic_word_t* octets) noexcept nogil
