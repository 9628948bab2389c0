# One line per exchange: a format compiled at start, filled in without the GIL.

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._parser cimport parser_t


cdef struct log_atom_t:
    int kind            # one of the ATOM_ values of the .pyx
    int known           # of a request field: its index in the parser's table of known names, or KNOWN_NONE; of a time:
                        # which of record_t
    const char* before  # before[0:before_size] is the literal before it
    size_t before_size
    const char* name    # name[0:size], in lower case
    size_t size


cdef struct log_format_t:
    log_atom_t* atoms   # owned; what comes behind the last literal is none
    size_t count
    char* text          # owned: what atoms point to, and some octets more, which may be read
    size_t spare        # what a line may take at most but for values of any length
    bint is_json
    bint has_colours    # ATOM_SHORT_STATUS has them
    bint needs_environ  # it has a %({name}e)s, so accesslog_values() comes before accesslog_line()
    bint needs_times    # it has one of record_t.times_ns


cdef enum:
    STAMP_ROOM = 64


cdef struct stamp_t:
    # The text of the last second, one for each thread that writes lines. It starts as zeroes.
    int64_t second_ns   # when it began, since 1970
    size_t size
    char text[STAMP_ROOM]
    char zone[24]       # in JSON: what comes after the fraction


# Times of an exchange that have atoms. One that comes has a name in TIMES of the .pyx.
cdef enum logged_t:
    LOGGED_WHOLE            # from the call of the application on
    # Where the time of its request went: time_t of _stats.
    LOGGED_HEAD
    LOGGED_CONTENT
    LOGGED_QUEUE
    LOGGED_GIL
    LOGGED_APPLICATION
    LOGGED_SENDING
    LOGGED_KINDS


cdef struct record_t:
    # All that it points to is borrowed until accesslog_line() returns.
    const char* data        # what the spans of the parser count from
    const parser_t* parser  # NULL: no request
    const char* peer        # the client's address as text
    size_t peer_size
    const char* head        # the response head as sent
    size_t head_size
    const char* values      # from accesslog_values(); may be NULL
    size_t values_size
    int status              # 0: no response
    uint64_t content_bytes  # of the response
    uint64_t times_ns[LOGGED_KINDS]
    int64_t wall_ns         # the time of day, since 1970
    const char* id          # the request's, as the application and the client get it
    size_t id_size          # 0: it has none that is ours


cdef class LogFormat:
    cdef log_format_t format    # owned; may be borrowed while the LogFormat lives


cdef int accesslog_values(const log_format_t* format, dict environ, buffer_t* values) except -1
cdef ssize_t accesslog_line(
    const log_format_t* format, const record_t* record, stamp_t* stamp, char* out, size_t capacity
) noexcept nogil
cdef char* put_escaped(char* at, const char* end, const char* data, size_t size, bint is_json) noexcept nogil
