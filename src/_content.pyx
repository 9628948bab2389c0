"""Request content, and the wsgi.input over it.

The loop receives straight into memory that content_space() gives; when that is used up, content_spill() moves
it to a spool file, so an upload of any size holds no more than a staging area. It knows neither sockets nor
framing: the connection does the receiving, the parser has decoded the chunks. An Input has all of the content
and never waits for a client.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy
from posix.types cimport off_t
from posix.unistd cimport close, pread

from fastwsgi._platform cimport platform_temporary_file, platform_write_all

import os
from tempfile import gettempdir


cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PyNumber_AsSsize_t(object number, void* overflow) except? -1


cdef enum:
    FIRST_CAPACITY = 16 * 1024  # for content of unknown length
    LEAST_ROOM = 4 * 1024       # below it, a receive is not worth its system call
    STAGING = 128 * 1024        # what is gathered for one write to the spool
    BLOCK_SIZE = 64 * 1024      # what is read ahead from the spool for lines and small reads
    READ_AT_ONCE = 1 << 30      # some systems refuse to read more than 2 GiB at once


cdef void content_init(content_t* content) noexcept nogil:
    content.data = NULL
    content.size = 0
    content.capacity = 0
    content.spool = -1
    content.spooled = 0


cdef int content_space(
    content_t* content, uint64_t expected, size_t memory_limit, char** space, size_t* room
) noexcept nogil:
    """Where the next bytes may be put, and how many; never more than are still expected.

    With CONTENT_READY, room is 0 only when all of the content is there.
    """
    cdef uint64_t missing = expected - content_length(content)
    cdef size_t capacity = content.capacity
    cdef char* data
    if content_must_spill(content, expected, memory_limit):
        return CONTENT_SPILL
    if content.spool >= 0:
        capacity = STAGING
    elif expected != UINT64_MAX:
        capacity = expected
    elif capacity - content.size < LEAST_ROOM:
        capacity = min(max(2 * capacity, <size_t>FIRST_CAPACITY), memory_limit)
    if capacity > content.capacity:
        data = <char*>realloc(content.data, capacity)
        if data == NULL:
            return CONTENT_NO_MEMORY
        content.data = data
        content.capacity = capacity
    space[0] = content.data + content.size
    room[0] = min(missing, <uint64_t>(content.capacity - content.size))
    return CONTENT_READY


cdef void content_add(content_t* content, size_t size) noexcept nogil:
    """So many bytes have been put into the space."""
    content.size += size


cdef int content_append(
    content_t* content, const char* data, size_t size, uint64_t expected, size_t memory_limit, size_t* taken
) noexcept nogil:
    """Copy data[0:size], or as much as there is room for; with CONTENT_READY, taken is size.

    Bytes beyond what is expected are not taken either.
    """
    cdef char* space
    cdef size_t room
    cdef int outcome
    taken[0] = 0
    while taken[0] < size:
        outcome = content_space(content, expected, memory_limit, &space, &room)
        if outcome != CONTENT_READY:
            return outcome
        if room == 0:
            break
        room = min(room, size - taken[0])
        memcpy(space, data + taken[0], room)
        content.size += room
        taken[0] += room
    return CONTENT_READY


cdef bint content_must_spill(const content_t* content, uint64_t expected, size_t memory_limit) noexcept nogil:
    """Whether content_spill() has to come before the next byte.

    Content known to pass the limit goes to the spool from its first byte, by way of the staging area.
    """
    if content_length(content) == expected:
        return False
    if content.spool >= 0:
        return content.size >= STAGING
    if expected != UINT64_MAX:
        return expected > memory_limit
    return content.size >= memory_limit


cdef int content_spill(content_t* content, const char* directory) noexcept nogil:
    """Write what is in memory to the spool, which is made if need be; 0 or errno. May block.

    After an error nothing is lost, and the call may be repeated.
    """
    cdef int error
    if content.spool < 0:
        content.spool = platform_temporary_file(directory)
        if content.spool < 0:
            return errno
    error = platform_write_all(content.spool, content.data, content.size, <off_t>content.spooled)
    if error:
        return error
    content.spooled += content.size
    content.size = 0
    if content.capacity != STAGING:
        free(content.data)
        content.data = NULL
        content.capacity = 0
    return 0


cdef uint64_t content_length(const content_t* content) noexcept nogil:
    return content.spooled + content.size


cdef void content_free(content_t* content) noexcept nogil:
    """Give everything back; the content is empty then, and may be used again."""
    free(content.data)
    if content.spool >= 0:
        close(content.spool)
    content_init(content)


cdef inline uint64_t limit_of(object size) except? 0:
    """A size as the io module takes it: None and negative numbers mean no limit."""
    cdef Py_ssize_t limit
    if size is None:
        return UINT64_MAX
    limit = PyNumber_AsSsize_t(size, NULL)
    return UINT64_MAX if limit < 0 else <uint64_t>limit


# In all methods: the GIL may be given up while the spool is read, and with it the critical section that
# stands for it without a GIL. So a read moves the offset first, and a line is only valid if the offset has
# not moved meanwhile. Threads that read from one Input share its bytes out among them.
@cython.final
@cython.freelist(64)
cdef class Input:
    """The request content as a binary file: wsgi.input by PEP 3333, with all of the content already there.

    What io.BufferedReader and io.TextIOWrapper ask of a raw file is there too. close() leaves it open: it is
    the server's, and lives as long as somebody holds it.
    """

    def __cinit__(self):
        content_init(&self.content)

    def __dealloc__(self):
        if self.content.spool >= 0:
            # Closing an unlinked file gives its blocks back, which takes a while for a large one.
            with nogil:
                content_free(&self.content)
        else:
            content_free(&self.content)

    @property
    def closed(self):
        return False

    def read(self, size=-1):
        """The next size bytes, fewer only at the end; all that remain when size is negative or None."""
        cdef uint64_t limit = limit_of(size)
        with cython.critical_section(self):
            return self.take(limit)

    def read1(self, size=-1):
        """As read()."""
        cdef uint64_t limit = limit_of(size)
        with cython.critical_section(self):
            return self.take(limit)

    def readinto(self, buffer):
        """Fill buffer, a writable bytes-like object, as far as there is content; the number of bytes."""
        cdef Py_buffer view
        cdef uint64_t start
        cdef size_t size
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        except BufferError:
            message = f"readinto() needs a writable bytes-like object, not {type(buffer).__name__}"
            raise TypeError(message) from None
        try:
            with cython.critical_section(self):
                start = self.offset
                size = min(<uint64_t>view.len, self.length - start)
                self.offset = start + size
                self.fill(<char*>view.buf, start, size)
            return size
        finally:
            PyBuffer_Release(&view)

    def readinto1(self, buffer):
        """As readinto()."""
        return self.readinto(buffer)

    def readline(self, size=-1):
        """The next line with its newline, at most size bytes of it; empty at the end."""
        cdef uint64_t limit = limit_of(size)
        with cython.critical_section(self):
            return self.take_line(limit)

    def readlines(self, hint=-1):
        """The remaining lines; none is begun once hint bytes have been read, if hint is positive."""
        cdef uint64_t limit = limit_of(hint) or UINT64_MAX
        cdef uint64_t total = 0
        cdef list lines = []
        cdef bytes line
        while total < limit:
            with cython.critical_section(self):
                line = self.take_line(UINT64_MAX)
            if not line:
                break
            lines.append(line)
            total += PyBytes_GET_SIZE(line)
        return lines

    def __iter__(self):
        return self

    def __next__(self):
        cdef bytes line
        with cython.critical_section(self):
            line = self.take_line(UINT64_MAX)
        if not line:
            raise StopIteration
        return line

    def readable(self):
        return True

    def writable(self):
        return False

    def seekable(self):
        return False

    def flush(self):
        """Nothing: there is nothing to write."""

    def close(self):
        """Nothing: a middleware that closes its input must not take it from the next one."""

    cdef bytes take(self, uint64_t limit):
        """The next bytes, at most limit."""
        cdef uint64_t start = self.offset
        cdef uint64_t size = min(limit, self.length - start)
        cdef bytes taken = self.block
        if size == 0:
            return b""
        if size > <uint64_t>PY_SSIZE_T_MAX:
            raise MemoryError
        self.offset = start + size
        if taken is not None and self.block_start == start and <uint64_t>PyBytes_GET_SIZE(taken) == size:
            return taken
        taken = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        self.fill(PyBytes_AS_STRING(taken), start, <size_t>size)
        return taken

    cdef bytes take_line(self, uint64_t limit):
        """The bytes up to and with the next newline, at most limit."""
        cdef uint64_t start, at, end
        cdef const char* piece
        cdef const char* newline
        cdef size_t size
        cdef list pieces
        cdef bytes line
        while True:
            start = at = self.offset
            end = start + min(limit, self.length - start)
            pieces = None
            line = b""
            while at < end:
                piece = self.window(at, &size)
                size = min(<uint64_t>size, end - at)
                newline = <const char*>memchr(piece, c"\n", size)
                if newline != NULL:
                    size = newline + 1 - piece
                    end = at + size
                at += size
                line = PyBytes_FromStringAndSize(piece, size)
                if at < end or pieces is not None:
                    if pieces is None:
                        pieces = []
                    pieces.append(line)
            if pieces is not None:
                line = b"".join(pieces)
            if self.offset == start:
                self.offset = end
                return line

    cdef int fill(self, char* target, uint64_t offset, size_t size) except -1:
        """Copy content[offset:offset + size], which must exist, to target."""
        cdef const char* piece
        cdef size_t piece_size
        while size > 0:
            if size >= BLOCK_SIZE and offset < self.content.spooled:
                piece_size = min(<uint64_t>size, self.content.spooled - offset)
                self.read_spool(target, offset, piece_size)
            else:
                piece = self.window(offset, &piece_size)
                piece_size = min(piece_size, size)
                memcpy(target, piece, piece_size)
            target += piece_size
            offset += piece_size
            size -= piece_size
        return 0

    cdef const char* window(self, uint64_t offset, size_t* size) except NULL:
        """The content from offset, where some must be, as far as it lies in one piece in memory.

        Borrowed until the GIL is given up.
        """
        cdef bytes block = self.block
        cdef uint64_t block_end = 0 if block is None else self.block_start + PyBytes_GET_SIZE(block)
        if block is None or not self.block_start <= offset < block_end:
            if offset >= self.content.spooled:
                size[0] = <size_t>(self.content.spooled + self.content.size - offset)
                return self.content.data + (offset - self.content.spooled)
            block_end = offset + min(<uint64_t>BLOCK_SIZE, self.content.spooled - offset)
            # A new object each time: another thread may be looking at the old one.
            block = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(block_end - offset))
            self.read_spool(PyBytes_AS_STRING(block), offset, <size_t>(block_end - offset))
            self.block = block
            self.block_start = offset
        size[0] = <size_t>(block_end - offset)
        return PyBytes_AS_STRING(block) + (offset - self.block_start)

    cdef int read_spool(self, char* target, uint64_t offset, size_t size) except -1:
        """Read spool[offset:offset + size], which must exist, to target; gives up the GIL."""
        cdef int spool = self.content.spool
        cdef int error = 0
        cdef ssize_t result
        with nogil:
            while size > 0:
                result = pread(spool, target, min(size, <size_t>READ_AT_ONCE), <off_t>offset)
                if result > 0:
                    target += result
                    offset += result
                    size -= result
                elif result == 0:
                    error = EIO
                    break
                elif errno != EINTR:
                    error = errno
                    break
        if error:
            # What cannot be read stays ahead: an application that tries again must not take this for the end.
            self.offset = min(self.offset, offset)
            raise OSError(error, "cannot read the spooled request content: " + os.strerror(error))
        return 0


cdef Input input_empty():
    """An Input over nothing. It never changes, so one may serve any number of requests."""
    return Input.__new__(Input)


cdef Input input_from_bytes(const char* data, size_t size):
    """An Input over a copy of data[0:size], which read() then returns without another."""
    cdef Input input = Input.__new__(Input)
    input.block = PyBytes_FromStringAndSize(data, size)
    input.length = size
    return input


cdef Input input_from_content(content_t* content):
    """An Input that takes over what content holds; content is empty then."""
    cdef Input input = Input.__new__(Input)
    input.content = content[0]
    input.length = content_length(content)
    content_init(content)
    return input


@cython.final
cdef class Content:
    """Request content without a connection, to be driven by tests."""

    cdef content_t content
    cdef uint64_t expected
    cdef size_t memory_limit
    cdef bytes directory

    def __cinit__(self, expected=None, *, memory_limit=CONTENT_MEMORY, directory=None):
        content_init(&self.content)
        self.expected = UINT64_MAX if expected is None else expected
        self.memory_limit = memory_limit
        self.directory = os.fsencode(gettempdir() if directory is None else directory)

    def __dealloc__(self):
        content_free(&self.content)

    @property
    def length(self):
        return content_length(&self.content)

    @property
    def spooled(self):
        """How many bytes are in the spool; None when there is none."""
        return self.content.spooled if self.content.spool >= 0 else None

    @property
    def spool(self):
        """The descriptor of the spool, or -1."""
        return self.content.spool

    @property
    def capacity(self):
        """How much memory the content has."""
        return self.content.capacity

    @property
    def must_spill(self):
        return content_must_spill(&self.content, self.expected, self.memory_limit)

    def append(self, bytes data not None):
        """Copy data into the content, spilling when it has to; the number of bytes taken."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef size_t size = PyBytes_GET_SIZE(data)
        cdef size_t total = 0
        cdef size_t taken
        cdef int outcome
        while True:
            outcome = content_append(
                &self.content, start + total, size - total, self.expected, self.memory_limit, &taken
            )
            total += taken
            if outcome == CONTENT_READY:
                break
            if outcome == CONTENT_NO_MEMORY:
                raise MemoryError
            self.spill()
        return total

    def receive(self, bytes data not None):
        """Put as much of data as one content_space() has room for; the number of bytes."""
        cdef char* space
        cdef size_t room
        cdef int outcome = content_space(&self.content, self.expected, self.memory_limit, &space, &room)
        if outcome == CONTENT_SPILL:
            self.spill()
            outcome = content_space(&self.content, self.expected, self.memory_limit, &space, &room)
        if outcome != CONTENT_READY:
            raise MemoryError
        room = min(room, <size_t>PyBytes_GET_SIZE(data))
        if room > 0:
            memcpy(space, PyBytes_AS_STRING(data), room)
        content_add(&self.content, room)
        return room

    def spill(self):
        cdef const char* directory = self.directory
        cdef int error
        with nogil:
            error = content_spill(&self.content, directory)
        if error:
            raise OSError(error, os.strerror(error))

    def input(self):
        """Move the content to an Input."""
        return input_from_content(&self.content)


def small_input(bytes data not None):
    """An Input over content that was received together with its head."""
    return input_from_bytes(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) if data else input_empty()
