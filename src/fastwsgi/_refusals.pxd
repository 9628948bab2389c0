# Every way a request can be refused, named once. The sans-IO modules return a reason as a negative number;
# the table behind refusal_info says what the client is told and what the log says.

cpdef enum refusal_t:
    # The request line.
    REFUSAL_TLS_ON_PLAIN_PORT = 1
    REFUSAL_HTTP2_PREFACE
    REFUSAL_EMPTY_LINES
    REFUSAL_REQUEST_LINE_TOO_LONG
    REFUSAL_BAD_METHOD
    REFUSAL_METHOD_TOO_LONG
    REFUSAL_BAD_REQUEST_LINE
    REFUSAL_BAD_TARGET
    REFUSAL_TARGET_FRAGMENT
    REFUSAL_BAD_PERCENT
    REFUSAL_TARGET_FORM
    REFUSAL_BAD_SCHEME
    REFUSAL_USERINFO
    REFUSAL_BAD_AUTHORITY
    REFUSAL_BAD_VERSION
    REFUSAL_VERSION_NOT_SUPPORTED
    # Lines of the field section and of the trailer section.
    REFUSAL_BARE_LF
    REFUSAL_BARE_CR
    REFUSAL_OBS_FOLD
    REFUSAL_NO_COLON
    REFUSAL_EMPTY_FIELD_NAME
    REFUSAL_SPACE_BEFORE_COLON
    REFUSAL_BAD_FIELD_NAME
    REFUSAL_BAD_FIELD_VALUE
    REFUSAL_TOO_MANY_FIELDS
    REFUSAL_FIELD_TOO_LARGE
    REFUSAL_HEAD_TOO_LARGE
    REFUSAL_TRAILER_TOO_LARGE
    # What single fields say.
    REFUSAL_NO_HOST
    REFUSAL_TWO_HOSTS
    REFUSAL_BAD_HOST
    REFUSAL_BAD_CONTENT_LENGTH
    REFUSAL_TWO_CONTENT_LENGTHS
    REFUSAL_CONTENT_LENGTH_OVERFLOW
    REFUSAL_TWO_FRAMINGS
    REFUSAL_BAD_TRANSFER_ENCODING
    REFUSAL_TRANSFER_ENCODING_IN_HTTP10
    REFUSAL_CHUNKED_TWICE
    REFUSAL_CHUNKED_NOT_LAST
    REFUSAL_UNKNOWN_CODING
    REFUSAL_EXPECTATION
    # The chunked coding.
    REFUSAL_BAD_CHUNK_SIZE
    REFUSAL_CHUNK_SIZE_OVERFLOW
    REFUSAL_BAD_CHUNK_EXTENSION
    REFUSAL_CHUNK_LINE_TOO_LONG
    REFUSAL_BAD_CHUNK_END
    REFUSAL_CHUNK_OVERHEAD
    # What is believed of whom.
    REFUSAL_UNDERSCORE
    REFUSAL_BAD_FORWARDED
    REFUSAL_FORWARDED_CONFLICT
    REFUSAL_SCRIPT_NAME
    REFUSAL_NO_PROXY_HEADER
    REFUSAL_BAD_PROXY_HEADER
    # What guards a route.
    REFUSAL_ADDRESS
    REFUSAL_NO_CREDENTIALS
    REFUSAL_WRONG_CREDENTIALS
    REFUSAL_GUESSING
    REFUSAL_RATE
    REFUSAL_VERIFYING
    REFUSAL_MAINTENANCE
    # The connection and what stands behind it.
    REFUSAL_CONNECT
    REFUSAL_MISDIRECTED
    REFUSAL_PATH_ESCAPES
    REFUSAL_HEAD_TIMEOUT
    REFUSAL_CONTENT_TIMEOUT
    REFUSAL_CONTENT_TOO_LARGE
    REFUSAL_SPOOL_FULL
    REFUSAL_NO_MEMORY
    REFUSAL_REVOKED
    REFUSAL_STOPPING
    REFUSAL_QUEUE_TIMEOUT
    REFUSAL_TIMEOUT
    REFUSAL_APPLICATION_ERROR
    REFUSAL_HTTP_ON_TLS_PORT
    REFUSAL_END         # one past the last reason


cdef struct refusal_info_t:
    int status
    const char* phrase  # the reason phrase of RFC 9110, 15
    const char* name    # "REFUSAL_BAD_METHOD"
    const char* text    # what was wrong, for the log


cdef const refusal_info_t* refusal_info(int reason) noexcept nogil


cdef inline bint refusal_is_of_route(int reason) noexcept nogil:
    """There is nothing wrong with the request but what it asks for, or when, or who asks."""
    return REFUSAL_ADDRESS <= reason <= REFUSAL_MAINTENANCE


cdef inline bint refusal_is_expected(int reason) noexcept nogil:
    """Nobody has to read of it in the log."""
    return reason == REFUSAL_NO_CREDENTIALS or reason == REFUSAL_MAINTENANCE
