# Bytes in, request head out, and how its content is framed. Spans are offsets into the bytes given to parser_feed.

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, uint8_t, uint32_t, uint64_t

from fastwsgi._buffer cimport span_t


# What parser_feed and chunked_feed return; a refusal is returned as -reason (refusal_t).
cdef enum:
    NEED_MORE = 0
    HEAD_DONE = 1
    CONTENT_DONE = 2


cpdef enum method_t:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_CONNECT
    METHOD_OPTIONS
    METHOD_TRACE
    METHOD_PATCH


# RFC 9112, 3.2.
cpdef enum target_form_t:
    TARGET_ORIGIN
    TARGET_ABSOLUTE
    TARGET_AUTHORITY
    TARGET_ASTERISK


# Indexes into the table of known field names. Only the names the server itself looks at have a word here; the
# table goes on up to KNOWN_END.
cdef enum:
    KNOWN_NONE = 0
    KNOWN_HOST
    KNOWN_CONNECTION
    KNOWN_CONTENT_LENGTH
    KNOWN_TRANSFER_ENCODING
    KNOWN_EXPECT
    KNOWN_WATCHED_END       # the parser itself acts on the names before this one
    KNOWN_CONTENT_TYPE = KNOWN_WATCHED_END
    KNOWN_COOKIE
    KNOWN_TE
    KNOWN_TRAILER
    KNOWN_UPGRADE
    KNOWN_IF_MATCH
    KNOWN_IF_NONE_MATCH
    KNOWN_IF_MODIFIED_SINCE
    KNOWN_IF_UNMODIFIED_SINCE
    KNOWN_IF_RANGE
    KNOWN_RANGE
    KNOWN_ACCEPT_ENCODING
    KNOWN_AUTHORIZATION
    KNOWN_REFERER
    KNOWN_USER_AGENT
    KNOWN_FORWARDED
    KNOWN_X_FORWARDED_FOR
    KNOWN_X_FORWARDED_HOST
    KNOWN_X_FORWARDED_PORT
    KNOWN_X_FORWARDED_PREFIX
    KNOWN_X_FORWARDED_PROTO
    KNOWN_X_FORWARDED_SSL
    KNOWN_X_REAL_IP
    KNOWN_X_REQUEST_ID
    KNOWN_SEC_FETCH_SITE
    KNOWN_NAMED_END         # the rest has no word: 64 ids at most, known_seen is a bit set


cdef struct known_name_t:
    char padding[8]         # the comparison reads whole words that end inside the name
    char name[55]           # lower case, zero-terminated
    uint8_t length


cdef struct field_t:
    span_t name
    span_t value            # without the white space around it
    uint8_t known           # index into the table of known names; KNOWN_NONE: not one of them
    uint8_t is_repeated     # a field line of the same known name came before this one
    uint8_t is_ascii        # no octet of the value is 0x80 or above
    uint8_t is_left_out     # of the environ. At first that is a name with an underscore, because HTTP_A_B could mean it
                            # or A-B; then _trust has its say


cdef struct limits_t:
    # Filled once from the settings. A line is measured without its CRLF.
    uint32_t request_line
    uint32_t fields         # 32767 at most (host_field)
    uint32_t field_size
    uint32_t head_size      # from the first octet to the empty line
    uint32_t chunk_line     # chunk size and extensions
    uint32_t trailer_size
    uint64_t content        # of one request
    uint32_t chunk_overhead # octets of chunk framing allowed beyond eight for each octet of content


cdef struct parser_t:
    const limits_t* limits  # borrowed; outlives the parser
    field_t* fields         # owned; kept over parser_reset
    uint64_t content_length # 0 unless has_content_length
    uint64_t known_seen     # bit i: a field line with known name i came; bit 0: one with an underscore in its name, or
                            # one of X-Forwarded-* that is not known
    uint32_t position       # start of the first line not yet parsed
    uint32_t scanned        # no LF from position to here
    uint32_t field_count
    uint32_t field_capacity
    uint32_t head_size      # at HEAD_DONE: content, or the next request, begins here
    span_t request_line     # without CRLF
    span_t method_name
    span_t target
    span_t path             # before "?"; never empty but for TARGET_AUTHORITY; "*" for TARGET_ASTERISK
    span_t query            # after "?"
    span_t authority        # of TARGET_ABSOLUTE and TARGET_AUTHORITY
    int16_t host_field      # index of the Host field; -1: none
    uint8_t state
    uint8_t empty_lines
    uint8_t method          # method_t
    uint8_t target_form     # target_form_t
    uint8_t version_minor   # 0 or 1; a higher one is taken for 1 (RFC 9110, 2.5)
    uint8_t target_is_https # of TARGET_ABSOLUTE
    uint8_t has_query       # there is a "?", even with nothing after it
    uint8_t path_needs_decoding     # there is a "%" in the path
    uint8_t path_is_ascii   # no raw octet of 0x80 or above in it (a "%" may hide one)
    uint8_t query_is_ascii
    uint8_t has_content_length
    uint8_t is_chunked
    uint8_t keep_alive      # what RFC 9112, 9.3 says for this request
    uint8_t expects_continue        # HTTP/1.1, Expect: 100-continue, and there is content to come
    # For the parser alone.
    uint8_t connection_close
    uint8_t connection_keep_alive
    uint8_t expectation


cdef void limits_default(limits_t* limits) noexcept nogil
cdef const known_name_t* known_name(int known) noexcept nogil      # NULL from KNOWN_END on: the table's end
cdef int known_find(const char* name, size_t length) noexcept nogil     # any case; KNOWN_NONE if not there

# Is this a host with an optional port, and nothing else (RFC 9110, 4.2 and 7.2)? text[length] must be readable and be
# no part of a host.
cdef bint is_authority(const uint8_t* text, size_t length, bint may_be_empty, bint needs_port) noexcept nogil

cdef void parser_init(parser_t* parser, const limits_t* limits) noexcept nogil
cdef void parser_reset(parser_t* parser) noexcept nogil             # before each request
cdef int parser_feed(parser_t* parser, const char* data, size_t size) noexcept nogil
cdef void parser_free(parser_t* parser) noexcept nogil

# For the Python faces.
cdef str outcome_name(int result)
cdef int set_limits(limits_t* limits, dict given) except -1
