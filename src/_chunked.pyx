"""The chunked transfer coding (RFC 9112, 7.1): bytes in, content out, decoded in place.

Takes in every octet it is given, so nothing has to be kept between two receives. Knows no socket and, below the Python
face at the end, no Python object.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from fastwsgi._octets cimport IN_QUOTED, IN_TOKEN, IN_VALUE, is_blank, is_digit, octet_kinds
from fastwsgi._parser cimport CONTENT_DONE, NEED_MORE, limits_t, outcome_name, set_limits
from fastwsgi._refusals cimport *

cdef enum:
    CHUNK_DIGITS_MAX = 16
    OVERHEAD_PER_OCTET = 8

cdef enum:
    CHUNK_SIZE_BEGIN
    CHUNK_SIZE
    CHUNK_EXTENSION_GAP         # a semicolon must come
    CHUNK_NAME_BEGIN
    CHUNK_NAME
    CHUNK_NAME_GAP              # a semicolon or an equals sign must come
    CHUNK_VALUE_BEGIN
    CHUNK_VALUE
    CHUNK_QUOTED
    CHUNK_QUOTED_PAIR
    CHUNK_QUOTED_END
    CHUNK_LINE_LF
    CHUNK_DATA
    CHUNK_DATA_CR
    CHUNK_DATA_LF
    TRAILER_LINE_BEGIN
    TRAILER_NAME
    TRAILER_NAME_GAP            # refused in any case; the next octet says why
    TRAILER_NAME_CR             # likewise
    TRAILER_VALUE
    TRAILER_LINE_LF
    TRAILER_END_LF
    CHUNKED_DONE


cdef inline int hex_value(uint8_t octet) noexcept nogil:
    """Value of a hexadecimal digit, -1 for any other octet."""
    if is_digit(octet):
        return octet - c'0'
    octet |= 0x20
    if octet >= c'a' and octet <= c'f':
        return octet - c'a' + 10
    return -1


cdef void chunked_reset(chunked_t* chunked) noexcept nogil:
    memset(chunked, 0, sizeof(chunked_t))


cdef int extension_step(int state, uint8_t octet) noexcept nogil:
    """The state after an octet of a chunk extension other than CR and LF, or -reason (RFC 9112, 7.1.1)."""
    cdef uint8_t kinds = octet_kinds[octet]
    if state == CHUNK_QUOTED:
        if octet == c'"':
            return CHUNK_QUOTED_END
        if octet == c'\\':
            return CHUNK_QUOTED_PAIR
        return CHUNK_QUOTED if kinds & IN_QUOTED != 0 else -REFUSAL_BAD_CHUNK_EXTENSION
    if state == CHUNK_QUOTED_PAIR:
        return CHUNK_QUOTED if kinds & IN_VALUE != 0 else -REFUSAL_BAD_CHUNK_EXTENSION
    if octet == c';':
        if state == CHUNK_NAME_BEGIN or state == CHUNK_VALUE_BEGIN:
            return -REFUSAL_BAD_CHUNK_EXTENSION
        return CHUNK_NAME_BEGIN
    if is_blank(octet):
        if state == CHUNK_NAME_BEGIN or state == CHUNK_VALUE_BEGIN:
            return state
        return CHUNK_NAME_GAP if state == CHUNK_NAME or state == CHUNK_NAME_GAP else CHUNK_EXTENSION_GAP
    if octet == c'=' and (state == CHUNK_NAME or state == CHUNK_NAME_GAP):
        return CHUNK_VALUE_BEGIN
    if octet == c'"' and state == CHUNK_VALUE_BEGIN:
        return CHUNK_QUOTED
    if kinds & IN_TOKEN != 0:
        if state == CHUNK_NAME_BEGIN or state == CHUNK_NAME:
            return CHUNK_NAME
        if state == CHUNK_VALUE_BEGIN or state == CHUNK_VALUE:
            return CHUNK_VALUE
    return -REFUSAL_BAD_CHUNK_EXTENSION


cdef int chunk_line_step(chunked_t* chunked, const limits_t* limits, uint64_t most, uint8_t octet) noexcept nogil:
    """Take in one octet of a chunk line; 0 or -reason."""
    cdef int state = chunked.state
    cdef int digit
    chunked.overhead += 1
    if state == CHUNK_LINE_LF:
        if octet != c'\n':
            return -REFUSAL_BARE_CR
        if chunked.overhead > limits.chunk_overhead + OVERHEAD_PER_OCTET * chunked.content:
            return -REFUSAL_CHUNK_OVERHEAD
        # The size of the chunk is known, and so is what is too much, before it comes.
        if chunked.remaining > most - chunked.content:
            return -REFUSAL_CONTENT_TOO_LARGE
        chunked.is_last = chunked.remaining == 0
        chunked.line = 0
        chunked.digits = 0
        chunked.state = TRAILER_LINE_BEGIN if chunked.is_last else CHUNK_DATA
        return 0
    if octet == c'\n':
        return -REFUSAL_BARE_LF
    if octet == c'\r':
        if state == CHUNK_SIZE or state == CHUNK_NAME or state == CHUNK_VALUE or state == CHUNK_QUOTED_END:
            chunked.state = CHUNK_LINE_LF
            return 0
        return -REFUSAL_BAD_CHUNK_SIZE if state == CHUNK_SIZE_BEGIN else -REFUSAL_BAD_CHUNK_EXTENSION
    chunked.line += 1
    if chunked.line > limits.chunk_line:
        return -REFUSAL_CHUNK_LINE_TOO_LONG
    if state == CHUNK_SIZE_BEGIN or state == CHUNK_SIZE:
        digit = hex_value(octet)
        if digit >= 0:
            # Leading zeros are digits too: a size of any length would be a line that never ends.
            if chunked.digits == CHUNK_DIGITS_MAX or chunked.remaining >> 59 != 0:
                return -REFUSAL_CHUNK_SIZE_OVERFLOW
            chunked.digits += 1
            chunked.remaining = chunked.remaining << 4 | <uint64_t>digit
            chunked.state = CHUNK_SIZE
            return 0
        if state == CHUNK_SIZE_BEGIN or not (octet == c';' or is_blank(octet)):
            return -REFUSAL_BAD_CHUNK_SIZE
    state = extension_step(state, octet)
    if state < 0:
        return state
    chunked.state = <uint8_t>state
    return 0


cdef int trailer_step(chunked_t* chunked, const limits_t* limits, uint8_t octet) noexcept nogil:
    """Take in one octet of the trailer section; 0, CONTENT_DONE or -reason."""
    cdef int state = chunked.state
    chunked.overhead += 1
    if state == TRAILER_END_LF:
        if octet != c'\n':
            return -REFUSAL_BARE_CR
        chunked.state = CHUNKED_DONE
        return CONTENT_DONE
    if state == TRAILER_LINE_BEGIN and octet == c'\r':
        chunked.state = TRAILER_END_LF
        return 0
    chunked.line += 1
    if chunked.line > limits.trailer_size:
        return -REFUSAL_TRAILER_TOO_LARGE
    if state == TRAILER_VALUE:
        if octet_kinds[octet] & IN_VALUE != 0:
            return 0
        if octet == c'\r':
            chunked.state = TRAILER_LINE_LF
            return 0
        return -REFUSAL_BARE_LF if octet == c'\n' else -REFUSAL_BAD_FIELD_VALUE
    if state == TRAILER_LINE_LF:
        if octet != c'\n':
            return -REFUSAL_BARE_CR
        chunked.state = TRAILER_LINE_BEGIN
        return 0
    if state == TRAILER_NAME_CR:
        return -REFUSAL_NO_COLON if octet == c'\n' else -REFUSAL_BARE_CR
    if state == TRAILER_NAME_GAP:
        if is_blank(octet):
            return 0
        return -REFUSAL_SPACE_BEFORE_COLON if octet == c':' else -REFUSAL_BAD_FIELD_NAME
    if octet_kinds[octet] & IN_TOKEN != 0:
        chunked.state = TRAILER_NAME
        return 0
    if octet == c':':
        if state == TRAILER_LINE_BEGIN:
            return -REFUSAL_EMPTY_FIELD_NAME
        chunked.state = TRAILER_VALUE
        return 0
    if is_blank(octet):
        if state == TRAILER_LINE_BEGIN:
            return -REFUSAL_OBS_FOLD
        chunked.state = TRAILER_NAME_GAP
        return 0
    if octet == c'\r':
        chunked.state = TRAILER_NAME_CR
        return 0
    return -REFUSAL_BARE_LF if octet == c'\n' else -REFUSAL_BAD_FIELD_NAME


cdef int chunked_feed(chunked_t* chunked, const limits_t* limits, uint64_t most, char* data, size_t size,
                      size_t* consumed, size_t* decoded) noexcept nogil:
    """Decode data[0:size] in place; return CONTENT_DONE, NEED_MORE or -reason.

    The content found is data[0:decoded], and the first `consumed` octets have been used: all of them with
    NEED_MORE, with CONTENT_DONE what is left is the next request. Trailer fields are checked and dropped.
    """
    cdef const char* at = data
    cdef const char* end = data + size
    cdef char* out = data
    cdef size_t part
    cdef int result = CONTENT_DONE if chunked.state == CHUNKED_DONE else NEED_MORE
    while result == NEED_MORE and at < end:
        if chunked.state == CHUNK_DATA:
            part = <size_t>(end - at)
            if part > chunked.remaining:
                part = <size_t>chunked.remaining
            if out != at:
                memmove(out, at, part)
            out += part
            at += part
            chunked.content += part
            chunked.remaining -= part
            if chunked.remaining == 0:
                chunked.state = CHUNK_DATA_CR
            continue
        if chunked.state < CHUNK_DATA:
            result = chunk_line_step(chunked, limits, most, <uint8_t>at[0])
        elif chunked.state > CHUNK_DATA_LF:
            result = trailer_step(chunked, limits, <uint8_t>at[0])
        else:
            chunked.overhead += 1
            if at[0] != (c'\r' if chunked.state == CHUNK_DATA_CR else c'\n'):
                result = -REFUSAL_BAD_CHUNK_END
            else:
                chunked.state = CHUNK_DATA_LF if chunked.state == CHUNK_DATA_CR else CHUNK_SIZE_BEGIN
        if result >= 0:
            at += 1
    consumed[0] = <size_t>(at - data)
    decoded[0] = <size_t>(out - data)
    return result


# --- Python face --------------------------------------------------------------------------------------------

cdef class ChunkedDecoder:
    """Chunked content. Limits are given by name as to RequestParser."""

    cdef chunked_t chunked
    cdef limits_t limits

    def __cinit__(self, **limits):
        set_limits(&self.limits, limits)
        chunked_reset(&self.chunked)

    def feed(self, data: bytes) -> tuple[str, bytes, int]:
        """Take in more bytes; the outcome, the content in them and how many were used.

        The outcome is "NEED_MORE", "CONTENT_DONE" or the name of the refusal.
        """
        cdef size_t consumed, decoded
        cdef size_t size = <size_t>len(data)
        cdef char* copy = <char*>malloc(size + (size == 0))
        if copy == NULL:
            raise MemoryError
        try:
            memcpy(copy, <const char*>data, size)
            result = outcome_name(chunked_feed(&self.chunked, &self.limits, self.limits.content, copy, size, &consumed,
                                               &decoded))
            return result, copy[:decoded], consumed
        finally:
            free(copy)

    @property
    def content(self) -> int:
        """Octets of content so far."""
        return self.chunked.content

    @property
    def overhead(self) -> int:
        """Octets of framing so far, the trailer section included."""
        return self.chunked.overhead


def size() -> int:
    """Size of the struct in bytes."""
    return sizeof(chunked_t)
