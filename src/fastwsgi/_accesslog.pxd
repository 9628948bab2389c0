# One line per exchange: a format compiled at start, filled without the GIL.

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._parser cimport parser_t


cdef struct log_atom_t:
    int kind            # one of the ATOM_ values of the .pyx
    size_t start        # its text (a literal, or a name in lower case) is format.text[start:start + size]
    size_t size


cdef struct log_format_t:
    log_atom_t* atoms       # owned
    size_t count
    char* text          # owned
    bint needs_environ  # has a %({name}e)s: accesslog_values() fills record.values first


cdef struct stamp_t:
    # The text of the last second, one for each thread that writes lines; starts as zeroes.
    int64_t second
    size_t size
    char text[48]


cdef struct record_t:
    # Everything is borrowed until accesslog_line() returns.
    const char* data        # what the spans of the parser count from
    const parser_t* parser  # NULL when there is no request head
    const char* peer        # the client's address as text
    size_t peer_size
    const char* head        # the response head as sent
    size_t head_size
    const char* values      # from accesslog_values(), or NULL
    size_t values_size
    int status              # 0 when no response was sent
    uint64_t content_bytes  # of the response, sent
    uint64_t duration_ns
    int64_t unix_time


cdef class AccessLog:
    cdef log_format_t format    # owned; may be borrowed for as long as the AccessLog lives


# The values of environ that the format names, appended to values; with the GIL, and only when needs_environ.
cdef int accesslog_values(const log_format_t* format, dict environ, buffer_t* values) except -1

# The length of the line with its newline, or -1 when it does not fit: again, with more room.
cdef ssize_t accesslog_line(
    const log_format_t* format, const record_t* record, stamp_t* stamp, char* out, size_t capacity
) noexcept nogil
