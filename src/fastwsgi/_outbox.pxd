# What a socket did not take: in memory, then in a spool file, and last a piece of a file, or several.

from libc.stdint cimport uint64_t
from posix.types cimport off_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._platform cimport atomic_word_t


cdef enum:
    OUTBOX_EMPTY = 0        # all is sent
    OUTBOX_WAITS = 1        # the socket is full
    OUTBOX_SEAL = 2         # the next piece of the file has to be sealed first
    OUTBOX_LOST = -1        # the peer is gone
    OUTBOX_FILE_SHORT = -2  # the file ended before its announced length


cdef struct part_t:
    # One more piece of the file, and what goes before it.
    size_t text_size        # of outbox.texts
    off_t offset
    uint64_t size


cdef struct outbox_t:
    buffer_t memory         # goes first; refilled only while the spool is empty
    size_t memory_sent
    int spool               # owned; -1 until needed
    uint64_t spool_sent
    uint64_t spool_size     # spool[spool_sent:spool_size] waits
    int file                # owned; -1: none. Goes last; nothing but parts of it is added after it
    off_t file_offset
    uint64_t file_left
    part_t* parts           # owned; [part_index:part_count] follow
    int part_count
    int part_index
    buffer_t texts          # of all parts
    size_t texts_sent
    bint seals_file         # it is for a TLS connection, and the file is as it is on the disk


cdef outbox_t* outbox_new() noexcept nogil
cdef void outbox_free(outbox_t* outbox) noexcept nogil
cdef bint outbox_is_empty(const outbox_t* outbox) noexcept nogil
cdef size_t outbox_add(outbox_t* outbox, const char* data, size_t size, size_t memory_limit,
                       uint64_t spool_limit, const char* directory) noexcept nogil
cdef void outbox_add_file(outbox_t* outbox, int file, off_t offset, uint64_t size, bint seals) noexcept nogil
cdef int outbox_add_part(outbox_t* outbox, const char* text, size_t text_size, off_t offset,
                         uint64_t size) noexcept nogil
cdef int outbox_next_part(outbox_t* outbox, buffer_t* text) noexcept nogil
cdef int outbox_send(outbox_t* outbox, int socket, bint one_piece, atomic_word_t* octets) noexcept nogil


cdef inline bint outbox_seals(const outbox_t* outbox) noexcept nogil:
    """What comes next is a piece of a file that has to be sealed, or text before one."""
    return (outbox.seals_file and (outbox.file_left > 0 or outbox.part_index < outbox.part_count) and outbox.memory_sent == outbox.memory.size
            and outbox.spool_sent == outbox.spool_size)
