"""The one table of refusals: status code, reason phrase and log text of each.

Knows nothing of how a refusal comes about nor of how it is sent.
"""

cdef refusal_info_t refusals[REFUSAL_END]


cdef const refusal_info_t* refusal_info(int reason) noexcept nogil:
    """The row of a reason; that of REFUSAL_APPLICATION_ERROR for a number that is none."""
    if reason < 1 or reason >= REFUSAL_END:
        reason = REFUSAL_APPLICATION_ERROR
    return &refusals[reason]


cdef void enter(int reason, int status, const char* phrase, const char* name, const char* text) noexcept:
    refusals[reason] = refusal_info_t(status, phrase, name, text)


cdef void enter_all() noexcept:
    enter(REFUSAL_TLS_ON_PLAIN_PORT, 400, b"Bad Request", b"REFUSAL_TLS_ON_PLAIN_PORT",
          b"TLS handshake on a listener without TLS (https:// where http:// is served)")
    enter(REFUSAL_HTTP2_PREFACE, 505, b"HTTP Version Not Supported", b"REFUSAL_HTTP2_PREFACE",
          b"HTTP/2 connection preface on a listener that speaks HTTP/1.1")
    enter(REFUSAL_EMPTY_LINES, 400, b"Bad Request", b"REFUSAL_EMPTY_LINES",
          b"too many empty lines before the request line")
    enter(REFUSAL_REQUEST_LINE_TOO_LONG, 414, b"URI Too Long", b"REFUSAL_REQUEST_LINE_TOO_LONG",
          b"request line longer than --limit-request-line")
    enter(REFUSAL_BAD_METHOD, 400, b"Bad Request", b"REFUSAL_BAD_METHOD",
          b"request method empty or with an octet that is not allowed in a token")
    enter(REFUSAL_METHOD_TOO_LONG, 501, b"Not Implemented", b"REFUSAL_METHOD_TOO_LONG",
          b"request method longer than any in use")
    enter(REFUSAL_BAD_REQUEST_LINE, 400, b"Bad Request", b"REFUSAL_BAD_REQUEST_LINE",
          b"request line is not method, target and version with one space between them")
    enter(REFUSAL_BAD_TARGET, 400, b"Bad Request", b"REFUSAL_BAD_TARGET",
          b"octet in the request target that must be percent-encoded")
    enter(REFUSAL_TARGET_FRAGMENT, 400, b"Bad Request", b"REFUSAL_TARGET_FRAGMENT",
          b"'#' in the request target")
    enter(REFUSAL_BAD_PERCENT, 400, b"Bad Request", b"REFUSAL_BAD_PERCENT",
          b"'%' without two hexadecimal digits in the path of the request target")
    enter(REFUSAL_TARGET_FORM, 400, b"Bad Request", b"REFUSAL_TARGET_FORM",
          b"form of the request target does not go with the method")
    enter(REFUSAL_BAD_SCHEME, 400, b"Bad Request", b"REFUSAL_BAD_SCHEME",
          b"scheme of the request target is neither http nor https")
    enter(REFUSAL_USERINFO, 400, b"Bad Request", b"REFUSAL_USERINFO",
          b"user name in the authority of the request target")
    enter(REFUSAL_BAD_AUTHORITY, 400, b"Bad Request", b"REFUSAL_BAD_AUTHORITY",
          b"authority of the request target is not a host with an optional port")
    enter(REFUSAL_BAD_VERSION, 400, b"Bad Request", b"REFUSAL_BAD_VERSION",
          b"what follows the request target is not HTTP/digit.digit (or there is a space in the target)")
    enter(REFUSAL_VERSION_NOT_SUPPORTED, 505, b"HTTP Version Not Supported", b"REFUSAL_VERSION_NOT_SUPPORTED",
          b"HTTP version other than 1.x")

    enter(REFUSAL_BARE_LF, 400, b"Bad Request", b"REFUSAL_BARE_LF",
          b"line ends with LF alone instead of CRLF")
    enter(REFUSAL_BARE_CR, 400, b"Bad Request", b"REFUSAL_BARE_CR",
          b"CR without LF after it")
    enter(REFUSAL_OBS_FOLD, 400, b"Bad Request", b"REFUSAL_OBS_FOLD",
          b"field line begins with white space (obsolete line folding)")
    enter(REFUSAL_NO_COLON, 400, b"Bad Request", b"REFUSAL_NO_COLON",
          b"field line without a colon")
    enter(REFUSAL_EMPTY_FIELD_NAME, 400, b"Bad Request", b"REFUSAL_EMPTY_FIELD_NAME",
          b"field line without a name before the colon")
    enter(REFUSAL_SPACE_BEFORE_COLON, 400, b"Bad Request", b"REFUSAL_SPACE_BEFORE_COLON",
          b"white space between field name and colon")
    enter(REFUSAL_BAD_FIELD_NAME, 400, b"Bad Request", b"REFUSAL_BAD_FIELD_NAME",
          b"octet in a field name that is not allowed in a token")
    enter(REFUSAL_BAD_FIELD_VALUE, 400, b"Bad Request", b"REFUSAL_BAD_FIELD_VALUE",
          b"control octet in a field value")
    enter(REFUSAL_TOO_MANY_FIELDS, 431, b"Request Header Fields Too Large", b"REFUSAL_TOO_MANY_FIELDS",
          b"more field lines than --limit-request-fields")
    enter(REFUSAL_FIELD_TOO_LARGE, 431, b"Request Header Fields Too Large", b"REFUSAL_FIELD_TOO_LARGE",
          b"field line longer than --limit-request-field-size")
    enter(REFUSAL_HEAD_TOO_LARGE, 431, b"Request Header Fields Too Large", b"REFUSAL_HEAD_TOO_LARGE",
          b"request head larger than --limit-request-head")
    enter(REFUSAL_TRAILER_TOO_LARGE, 431, b"Request Header Fields Too Large", b"REFUSAL_TRAILER_TOO_LARGE",
          b"trailer section of chunked content larger than --limit-request-trailer")

    enter(REFUSAL_NO_HOST, 400, b"Bad Request", b"REFUSAL_NO_HOST",
          b"request without a Host field")
    enter(REFUSAL_TWO_HOSTS, 400, b"Bad Request", b"REFUSAL_TWO_HOSTS",
          b"more than one Host field line")
    enter(REFUSAL_BAD_HOST, 400, b"Bad Request", b"REFUSAL_BAD_HOST",
          b"Host field is not a host with an optional port")
    enter(REFUSAL_BAD_CONTENT_LENGTH, 400, b"Bad Request", b"REFUSAL_BAD_CONTENT_LENGTH",
          b"Content-Length is not a decimal number")
    enter(REFUSAL_TWO_CONTENT_LENGTHS, 400, b"Bad Request", b"REFUSAL_TWO_CONTENT_LENGTHS",
          b"more than one Content-Length, on several field lines or in a list")
    enter(REFUSAL_CONTENT_LENGTH_OVERFLOW, 413, b"Content Too Large", b"REFUSAL_CONTENT_LENGTH_OVERFLOW",
          b"Content-Length does not fit into 63 bits")
    enter(REFUSAL_TWO_FRAMINGS, 400, b"Bad Request", b"REFUSAL_TWO_FRAMINGS",
          b"both Content-Length and Transfer-Encoding (request smuggling)")
    enter(REFUSAL_BAD_TRANSFER_ENCODING, 400, b"Bad Request", b"REFUSAL_BAD_TRANSFER_ENCODING",
          b"Transfer-Encoding is not a list of transfer codings")
    enter(REFUSAL_TRANSFER_ENCODING_IN_HTTP10, 400, b"Bad Request", b"REFUSAL_TRANSFER_ENCODING_IN_HTTP10",
          b"Transfer-Encoding in an HTTP/1.0 request")
    enter(REFUSAL_CHUNKED_TWICE, 400, b"Bad Request", b"REFUSAL_CHUNKED_TWICE",
          b"Transfer-Encoding names chunked more than once")
    enter(REFUSAL_CHUNKED_NOT_LAST, 400, b"Bad Request", b"REFUSAL_CHUNKED_NOT_LAST",
          b"Transfer-Encoding names another coding after chunked")
    enter(REFUSAL_UNKNOWN_CODING, 501, b"Not Implemented", b"REFUSAL_UNKNOWN_CODING",
          b"transfer coding other than chunked")
    enter(REFUSAL_EXPECTATION, 417, b"Expectation Failed", b"REFUSAL_EXPECTATION",
          b"expectation other than 100-continue")

    enter(REFUSAL_BAD_CHUNK_SIZE, 400, b"Bad Request", b"REFUSAL_BAD_CHUNK_SIZE",
          b"chunk size is not a hexadecimal number")
    enter(REFUSAL_CHUNK_SIZE_OVERFLOW, 413, b"Content Too Large", b"REFUSAL_CHUNK_SIZE_OVERFLOW",
          b"chunk size of more than 63 bits or 16 digits")
    enter(REFUSAL_BAD_CHUNK_EXTENSION, 400, b"Bad Request", b"REFUSAL_BAD_CHUNK_EXTENSION",
          b"malformed chunk extension")
    enter(REFUSAL_CHUNK_LINE_TOO_LONG, 400, b"Bad Request", b"REFUSAL_CHUNK_LINE_TOO_LONG",
          b"line of chunk size and extensions too long")
    enter(REFUSAL_BAD_CHUNK_END, 400, b"Bad Request", b"REFUSAL_BAD_CHUNK_END",
          b"chunk data not followed by CRLF (size and data disagree)")
    enter(REFUSAL_CHUNK_OVERHEAD, 400, b"Bad Request", b"REFUSAL_CHUNK_OVERHEAD",
          b"chunked content is nearly all framing (--limit-chunk-overhead)")

    enter(REFUSAL_UNDERSCORE, 400, b"Bad Request", b"REFUSAL_UNDERSCORE",
          b"underscore in a field name (--header-map refuse)")
    enter(REFUSAL_BAD_FORWARDED, 400, b"Bad Request", b"REFUSAL_BAD_FORWARDED",
          b"malformed Forwarded or X-Forwarded field from a peer in --forwarded-allow-ips")
    enter(REFUSAL_FORWARDED_CONFLICT, 400, b"Bad Request", b"REFUSAL_FORWARDED_CONFLICT",
          b"forwarding fields that contradict each other: the proxy has to remove those that it does not set itself")
    enter(REFUSAL_SCRIPT_NAME, 400, b"Bad Request", b"REFUSAL_SCRIPT_NAME",
          b"path of the request does not begin with what the proxy sends as SCRIPT_NAME (--forwarder-headers)")
    # These two have no answer: their peer does not speak HTTP yet.
    enter(REFUSAL_NO_PROXY_HEADER, 400, b"Bad Request", b"REFUSAL_NO_PROXY_HEADER",
          b"connection does not begin with a header of the PROXY protocol (--proxy-protocol, --proxy-allow-from)")
    enter(REFUSAL_BAD_PROXY_HEADER, 400, b"Bad Request", b"REFUSAL_BAD_PROXY_HEADER",
          b"malformed header of the PROXY protocol (--proxy-protocol)")

    enter(REFUSAL_ADDRESS, 403, b"Forbidden", b"REFUSAL_ADDRESS",
          b"address of the client is not let in here (allow, deny)")
    enter(REFUSAL_NO_CREDENTIALS, 401, b"Unauthorized", b"REFUSAL_NO_CREDENTIALS",
          b"user and password are wanted here (auth)")
    enter(REFUSAL_WRONG_CREDENTIALS, 401, b"Unauthorized", b"REFUSAL_WRONG_CREDENTIALS",
          b"user or password is wrong (auth)")
    enter(REFUSAL_GUESSING, 429, b"Too Many Requests", b"REFUSAL_GUESSING",
          b"too many wrong passwords from this address (auth)")
    enter(REFUSAL_RATE, 429, b"Too Many Requests", b"REFUSAL_RATE",
          b"more requests from this address than are let in here (rate, burst)")
    enter(REFUSAL_VERIFYING, 503, b"Service Unavailable", b"REFUSAL_VERIFYING",
          b"too many passwords are being verified (auth)")
    enter(REFUSAL_MAINTENANCE, 503, b"Service Unavailable", b"REFUSAL_MAINTENANCE",
          b"closed for maintenance: its file is there (maintenance)")

    # RFC 9110, 9.3.6: a tunnel, which no WSGI application can open. The method is not implemented at all,
    # so 501 and not 405, which would need an Allow field.
    enter(REFUSAL_CONNECT, 501, b"Not Implemented", b"REFUSAL_CONNECT",
          b"CONNECT request (this server is no proxy)")
    # RFC 9110, 7.4: what is https must come over a connection that is secured for it.
    enter(REFUSAL_MISDIRECTED, 421, b"Misdirected Request", b"REFUSAL_MISDIRECTED",
          b"request target with https on a connection without TLS")
    enter(REFUSAL_PATH_ESCAPES, 400, b"Bad Request", b"REFUSAL_PATH_ESCAPES",
          b"path of the request leads out of the root by its .. segments")
    enter(REFUSAL_HEAD_TIMEOUT, 408, b"Request Timeout", b"REFUSAL_HEAD_TIMEOUT",
          b"request head not complete within --header-timeout")
    enter(REFUSAL_CONTENT_TIMEOUT, 408, b"Request Timeout", b"REFUSAL_CONTENT_TIMEOUT",
          b"request content paused for --body-timeout, or slower than --body-min-rate")
    enter(REFUSAL_CONTENT_TOO_LARGE, 413, b"Content Too Large", b"REFUSAL_CONTENT_TOO_LARGE",
          b"request content larger than --limit-request-body")
    # 500: 507 belongs to WebDAV and speaks of the resource, this of the server's own disk.
    enter(REFUSAL_SPOOL_FULL, 500, b"Internal Server Error", b"REFUSAL_SPOOL_FULL",
          b"request content could not be written to its spool file (disk full, no descriptor left, or TMPDIR not writable)")
    enter(REFUSAL_NO_MEMORY, 503, b"Service Unavailable", b"REFUSAL_NO_MEMORY",
          b"out of memory")
    enter(REFUSAL_REVOKED, 503, b"Service Unavailable", b"REFUSAL_REVOKED",
          b"exchange taken away from a thread that is stuck in the application")
    enter(REFUSAL_STOPPING, 503, b"Service Unavailable", b"REFUSAL_STOPPING",
          b"server is stopping")
    enter(REFUSAL_QUEUE_TIMEOUT, 503, b"Service Unavailable", b"REFUSAL_QUEUE_TIMEOUT",
          b"all threads were busy for --queue-timeout")
    enter(REFUSAL_TIMEOUT, 503, b"Service Unavailable", b"REFUSAL_TIMEOUT",
          b"the application gave nothing for --timeout")
    enter(REFUSAL_APPLICATION_ERROR, 500, b"Internal Server Error", b"REFUSAL_APPLICATION_ERROR",
          b"application failed before its response began")
    enter(REFUSAL_HTTP_ON_TLS_PORT, 400, b"Bad Request", b"REFUSAL_HTTP_ON_TLS_PORT",
          b"plain HTTP on a listener with TLS (http:// where https:// is served)")


enter_all()


# Name of the reason -> (status code, reason phrase, log text), in the order of refusal_t.
REFUSALS = {
    refusals[reason].name.decode(): (
        refusals[reason].status, refusals[reason].phrase.decode(), refusals[reason].text.decode())
    for reason in range(1, REFUSAL_END)
}
