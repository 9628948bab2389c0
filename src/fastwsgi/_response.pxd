# Status and field lines in, response head out: checks, framing, Date, and the answer to a refused request.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

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
    RESPONSE_TAKEN = 2              # for the server: kept in head.handed
    LINES_MOST = 64                 # of the server's own

# head_t.takes, and then head_t.hands: fields by which an application leaves the answer to the server.
cdef enum:
    TAKES_TARGET = 1                # X-Accel-Redirect
    TAKES_PATH = 2                  # X-Sendfile

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
    uint8_t is_coded        # the content leaves in a coding
    uint8_t takes           # which fields are heeded; set once
    uint8_t hands           # which one came
    buffer_t handed         # owned; its value


cdef struct field_line_t:
    # One that the server adds by itself: "Name: value" and CRLF.
    const char* text        # borrowed
    uint32_t size
    uint32_t name_size


cdef struct field_lines_t:
    field_line_t* items     # owned by who has made them
    int count               # LINES_MOST at most
    bint has_server         # Server is one of them


cdef struct date_t:
    # The Date line of the last second, one for each thread; starts as zeroes.
    int64_t second
    char line[40]


cdef struct page_t:
    # What an error is answered with instead of its text (`error-page`, `maintenance`). All borrowed.
    int status
    const char* type            # the value of Content-Type
    size_t type_size
    const char* content
    size_t size


cdef struct refused_t:
    # What is told to a client whose request is refused, beside the reason. Starts as zeroes; all borrowed.
    const char* request_id
    size_t id_size              # 0: none
    const field_lines_t* lines  # of the server's own; NULL: none
    const page_t* page          # NULL: the text of the reason
    const char* challenge       # the value of WWW-Authenticate
    size_t challenge_size       # 0: none
    uint32_t retry_after        # seconds; 0: what the reason says
    bint is_head_request
    bint keep_alive
    int version_minor


cdef int head_start(head_t* head, const char* status, size_t size) noexcept nogil
cdef int head_hint(head_t* head) noexcept nogil      # -1: memory is out
cdef int head_field(head_t* head, const char* name, size_t name_size,
                    const char* value, size_t value_size) noexcept nogil
# Last before head_finish: adds lines whose names are not in the head yet.
cdef int head_lines(head_t* head, const field_lines_t* lines) noexcept nogil
cdef framing_t head_framing(const head_t* head, bint is_head_request, int version_minor,
                            bint size_is_known) noexcept nogil
# Only those field lines that go with any content: not what is told of a file, or of its length.
cdef int lines_keep(const head_t* head, buffer_t* kept) noexcept nogil
cdef bint lines_have(const char* lines, size_t size, const char* name, size_t name_size) noexcept nogil
cdef void date_write(date_t* date, int64_t now) noexcept nogil
cdef int head_finish(const head_t* head, buffer_t* out, framing_t framing, bint length_is_ours, uint64_t length,
                     bint keep_alive, int version_minor, date_t* date, int64_t now) noexcept nogil
cdef int response_refuse(int reason, const refused_t* told, buffer_t* out, date_t* date, int64_t now) noexcept nogil
cdef int response_probe(head_t* head, int status, bint is_head_request, bint keep_alive, int version_minor,
                        buffer_t* out, date_t* date, int64_t now) noexcept nogil
cdef size_t chunk_line(char* out, uint64_t size) noexcept nogil
