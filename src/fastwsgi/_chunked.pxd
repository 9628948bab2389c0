# The chunked transfer coding, decoded in place.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastwsgi._parser cimport limits_t


cdef struct chunked_t:
    # Decodes the chunked coding (RFC 9112, 7.1). Takes in every octet it is given: nothing has to be kept.
    uint64_t remaining      # of the chunk; while its size is read, the size so far
    uint64_t content        # octets of content so far
    uint64_t overhead       # octets of framing so far
    uint32_t line           # octets of this chunk line, or of the trailer section
    uint8_t state
    uint8_t digits
    uint8_t is_last


cdef void chunked_reset(chunked_t* chunked) noexcept nogil
# most: octets of content.
cdef int chunked_feed(chunked_t* chunked, const limits_t* limits, uint64_t most, char* data, size_t size,
                      size_t* consumed, size_t* decoded) noexcept nogil
