# Bytes with a length: the span, an offset into a buffer, and the buffer that grows. Inline functions only.

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef struct span_t:
    # An offset, not a pointer: a long field section makes the buffer grow, and growing moves it.
    uint32_t start
    uint32_t length


cdef struct buffer_t:
    char* data          # owned; NULL until the first reservation
    size_t size         # bytes in use
    size_t capacity     # bytes allocated


cdef inline int buffer_reserve(buffer_t* buffer, size_t room) noexcept nogil:
    """Make room for `room` more bytes; 0, or -1 when memory is out (the buffer is unchanged)."""
    cdef size_t capacity
    cdef char* data
    if buffer.capacity - buffer.size >= room:
        return 0
    capacity = buffer.capacity * 2 if buffer.capacity else 512
    while capacity - buffer.size < room:
        capacity *= 2
    data = <char*>realloc(buffer.data, capacity)
    if data == NULL:
        return -1
    buffer.data = data
    buffer.capacity = capacity
    return 0


cdef inline int buffer_append(buffer_t* buffer, const char* data, size_t size) noexcept nogil:
    """Append data[0:size]; 0, or -1 when memory is out."""
    if size == 0:
        return 0
    if buffer_reserve(buffer, size) < 0:
        return -1
    memcpy(buffer.data + buffer.size, data, size)
    buffer.size += size
    return 0


cdef inline void buffer_free(buffer_t* buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.size = 0
    buffer.capacity = 0
