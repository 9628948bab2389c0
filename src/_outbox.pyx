"""What a socket did not take.

Memory first (`--response-buffer`), then an unlinked spool file (`--response-spool`), past that the caller is told how
much was taken and waits. Last a piece of a file, or several with text between them. Holds wire bytes only; knows neither connections nor threads. Whoever calls holds the
connection.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memmove
from posix.types cimport off_t
from posix.unistd cimport close, ftruncate

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t
from fastwsgi._platform cimport (
    atomic_word_t, platform_send, platform_sendfile, platform_temporary_file, platform_would_block, platform_write_all,
    word_count,
)

cdef enum:
    FILE_PIECE = 1 << 20        # of one sendfile: the others have a turn in between


cdef outbox_t* outbox_new() noexcept nogil:
    """An empty outbox, owned by the caller; NULL when memory is out."""
    cdef outbox_t* outbox = <outbox_t*>calloc(1, sizeof(outbox_t))
    if outbox != NULL:
        outbox.spool = -1
        outbox.file = -1
    return outbox


cdef void outbox_free(outbox_t* outbox) noexcept nogil:
    if outbox == NULL:
        return
    buffer_free(&outbox.memory)
    if outbox.spool >= 0:
        close(outbox.spool)
    if outbox.file >= 0:
        close(outbox.file)
    buffer_free(&outbox.texts)
    free(outbox.parts)
    free(outbox)


cdef bint outbox_is_empty(const outbox_t* outbox) noexcept nogil:
    return (outbox.memory_sent == outbox.memory.size and outbox.spool_sent == outbox.spool_size
            and outbox.file_left == 0 and outbox.part_index == outbox.part_count)


cdef size_t outbox_add(outbox_t* outbox, const char* data, size_t size, size_t memory_limit,
                       uint64_t spool_limit, const char* directory) noexcept nogil:
    """Keep data[0:size] as far as the limits allow; returns how much was taken. May block on the disk.

    A spool that cannot be opened or written counts as full: the producer waits for the client instead.
    """
    cdef size_t taken = 0, room, waiting
    if size == 0:
        return 0
    if outbox.spool_sent == outbox.spool_size:
        waiting = outbox.memory.size - outbox.memory_sent
        room = memory_limit - waiting if memory_limit > waiting else 0
        taken = size if size < room else room
        if taken:
            # Once what was sent outweighs what waits, the move costs less than the sending did.
            if outbox.memory_sent and outbox.memory_sent >= waiting:
                memmove(outbox.memory.data, outbox.memory.data + outbox.memory_sent, waiting)
                outbox.memory.size = waiting
                outbox.memory_sent = 0
            if buffer_append(&outbox.memory, data, taken) < 0:
                taken = 0
        if taken == size:
            return size
    # What is sent stays on the disk until all is: the limit is on the file.
    if outbox.spool_size >= spool_limit:
        return taken
    room = <size_t>(spool_limit - outbox.spool_size)
    if size - taken < room:
        room = size - taken
    if outbox.spool < 0:
        outbox.spool = platform_temporary_file(directory)
        if outbox.spool < 0:
            return taken
    if platform_write_all(outbox.spool, data + taken, room, <off_t>outbox.spool_size):
        return taken
    outbox.spool_size += room
    return taken + room


cdef void outbox_add_file(outbox_t* outbox, int file, off_t offset, uint64_t size, bint seals) noexcept nogil:
    """Send size bytes of file from offset on, after everything else; the outbox owns the descriptor now.

    seals: not as they are; whoever sends adds them sealed, a piece whenever OUTBOX_SEAL says so.
    """
    outbox.seals_file = seals
    outbox.file = file
    outbox.file_offset = offset
    outbox.file_left = size


cdef int outbox_add_part(outbox_t* outbox, const char* text, size_t text_size, off_t offset,
                         uint64_t size) noexcept nogil:
    """Send text, and then another piece of the file, after everything else; 0, or -1 when memory is out."""
    cdef part_t* parts = <part_t*>realloc(outbox.parts, <size_t>(outbox.part_count + 1) * sizeof(part_t))
    if parts == NULL:
        return -1
    outbox.parts = parts
    if buffer_append(&outbox.texts, text, text_size) < 0:
        return -1
    parts[outbox.part_count] = part_t(text_size, offset, size)
    outbox.part_count += 1
    return 0


cdef int outbox_next_part(outbox_t* outbox, buffer_t* text) noexcept nogil:
    """Everything before it is sent: the next part is what waits; 0, or -1 when memory is out.

    What goes before its piece of the file is appended to text.
    """
    cdef const part_t* part = &outbox.parts[outbox.part_index]
    if buffer_append(text, outbox.texts.data + outbox.texts_sent, part.text_size) < 0:
        return -1
    outbox.texts_sent += part.text_size
    outbox.file_offset = part.offset
    outbox.file_left = part.size
    outbox.part_index += 1
    return 0


cdef inline int send_failed() noexcept nogil:
    return OUTBOX_WAITS if platform_would_block() else OUTBOX_LOST


cdef int outbox_send(outbox_t* outbox, int socket, bint one_piece, atomic_word_t* octets) noexcept nogil:
    """Send until the socket is full, all is sent or, if one_piece, one read of a file. May block on the disk.

    octets: a counter of what is sent.
    """
    cdef int outcome
    while True:
        outcome = send_all(outbox, socket, one_piece, octets)
        if outcome != OUTBOX_EMPTY or outbox.part_index == outbox.part_count:
            break
        if outbox.seals_file:
            return OUTBOX_SEAL
        if outbox_next_part(outbox, &outbox.memory) < 0:
            return OUTBOX_LOST
    if outcome == OUTBOX_EMPTY and outbox.file >= 0:
        close(outbox.file)
        outbox.file = -1
    return outcome


cdef int send_all(outbox_t* outbox, int socket, bint one_piece, atomic_word_t* octets) noexcept nogil:
    """The same, up to the next part."""
    cdef ssize_t n
    cdef off_t offset
    cdef bint more = outbox.spool_size > outbox.spool_sent or (outbox.file_left > 0 and not outbox.seals_file)
    while outbox.memory_sent < outbox.memory.size:
        n = platform_send(socket, outbox.memory.data + outbox.memory_sent,
                          outbox.memory.size - outbox.memory_sent, more)
        if n < 0:
            return send_failed()
        outbox.memory_sent += <size_t>n
        word_count(octets, n)
    outbox.memory.size = 0
    outbox.memory_sent = 0
    while outbox.spool_sent < outbox.spool_size:
        offset = <off_t>outbox.spool_sent
        n = platform_sendfile(socket, outbox.spool, &offset,
                              <size_t>min(outbox.spool_size - outbox.spool_sent, <uint64_t>FILE_PIECE))
        if n < 0:
            return send_failed()
        if n == 0:
            return OUTBOX_FILE_SHORT
        outbox.spool_sent += <uint64_t>n
        word_count(octets, n)
        if one_piece and outbox.spool_sent < outbox.spool_size:
            return OUTBOX_WAITS
    if outbox.spool_size:
        # All read: give the disk space back and start again at the front.
        if ftruncate(outbox.spool, 0) == 0:
            outbox.spool_sent = 0
            outbox.spool_size = 0
    if outbox.seals_file and outbox.file_left:
        return OUTBOX_SEAL
    while outbox.file_left:
        n = platform_sendfile(socket, outbox.file, &outbox.file_offset,
                              <size_t>min(outbox.file_left, <uint64_t>FILE_PIECE))
        if n < 0:
            return send_failed()
        if n == 0:
            return OUTBOX_FILE_SHORT
        outbox.file_left -= <uint64_t>n
        word_count(octets, n)
    return OUTBOX_EMPTY
