# Status and field lines in, response head out: checks, framing, Date, and the answer to a refused request.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from fastwsgi._buffer cimport buffer_t


cdef enum:
    RESPONSE_OK = 0
    RESPONSE_NO_MEMORY = -1
    RESPONSE_BAD_STATUS = -2        # not three digits, a space and a phrase
    RESPONSE_BAD_STATUS_CODE = -3   # 1xx, or not 200 to 999: not an application's to send
    RESPONSE_BAD_NAME = -4          # not a token
    RESPONSE_BAD_VALUE = -5         # a control character
    RESPONSE_BAD_LENGTH = -6        # Content-Length is not a number, or there are two
    RESPONSE_DROPPED = 1            # a hop-by-hop field: left out

# How the end of the content is told (RFC 9112, 6.3).
cdef enum framing_t:
    FRAMING_NONE = 0        # no content: HEAD, 204, 304
    FRAMING_LENGTH
    FRAMING_CHUNKED
    FRAMING_CLOSE


cdef struct head_t:
    buffer_t lines          # owned; status line and field lines, each with its CRLF
    uint64_t content_length # of the application's own Content-Length
    int status
    uint8_t has_content_length
    uint8_t has_date
    uint8_t has_server
    uint8_t has_request_id
    uint8_t closes          # the application said Connection: close


cdef struct date_t:
    # The Date line of the last second, one for each thread; starts as zeroes.
    int64_t second
    char line[40]


cdef int head_start(head_t* head, const char* status, size_t size) noexcept nogil
cdef int head_field(head_t* head, const char* name, size_t name_size,
                    const char* value, size_t value_size) noexcept nogil
cdef framing_t head_framing(const head_t* head, bint is_head_request, int version_minor,
                            bint size_is_known) noexcept nogil
cdef int head_finish(const head_t* head, buffer_t* out, framing_t framing, bint length_is_ours, uint64_t length,
                     bint keep_alive, int version_minor, date_t* date, int64_t now) noexcept nogil
# request_id: to be told to the client; of size 0: none
cdef int response_refuse(int reason, bint is_head_request, const char* request_id, size_t id_size, buffer_t* out,
                         date_t* date, int64_t now) noexcept nogil
cdef int response_probe(head_t* head, int status, bint is_head_request, bint keep_alive, int version_minor,
                        buffer_t* out, date_t* date, int64_t now) noexcept nogil
cdef size_t chunk_line(char* out, uint64_t size) noexcept nogil
