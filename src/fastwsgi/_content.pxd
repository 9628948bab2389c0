# Request content: received completely before the application runs, in memory first, then in a spool file.

from libc.stdint cimport uint64_t


cdef enum:
    CONTENT_READY           # go on
    CONTENT_SPILL           # memory is used up: content_spill(), which may block, then the same call again
    CONTENT_NO_MEMORY

cdef enum:
    CONTENT_MEMORY = 512 * 1024     # the memory limit, unless the settings say otherwise


cdef struct content_t:
    # The content is spool[0:spooled], then data[0:size]. It moves as a whole: connection, then Input.
    char* data          # owned
    size_t size         # bytes in use
    size_t capacity     # bytes allocated
    int spool           # owned descriptor; -1 while everything is in memory
    uint64_t spooled    # bytes in the spool


# `expected` is the Content-Length, or UINT64_MAX for chunked content; `directory` is where spool files go.
cdef void content_init(content_t* content) noexcept nogil
cdef int content_space(
    content_t* content, uint64_t expected, size_t memory_limit, char** space, size_t* room
) noexcept nogil
cdef void content_add(content_t* content, size_t size) noexcept nogil
cdef int content_append(
    content_t* content, const char* data, size_t size, uint64_t expected, size_t memory_limit, size_t* taken
) noexcept nogil
cdef bint content_must_spill(const content_t* content, uint64_t expected, size_t memory_limit) noexcept nogil
cdef int content_spill(content_t* content, const char* directory) noexcept nogil
cdef uint64_t content_length(const content_t* content) noexcept nogil
cdef void content_free(content_t* content) noexcept nogil


cdef class Input:
    cdef content_t content      # owned
    cdef bytes block            # all of a small content, or what was read ahead from the spool; or None
    cdef uint64_t block_start   # where in the content the block begins
    cdef uint64_t offset        # of the next byte to be read
    cdef uint64_t length

    cdef bytes take(self, uint64_t limit)
    cdef bytes take_line(self, uint64_t limit)
    cdef int fill(self, char* target, uint64_t offset, size_t size) except -1
    cdef const char* window(self, uint64_t offset, size_t* size) except NULL
    cdef int read_spool(self, char* target, uint64_t offset, size_t size) except -1


cdef Input input_empty()
cdef Input input_from_bytes(const char* data, size_t size)
cdef Input input_from_content(content_t* content)
