"""A parsed request to the environ of PEP 3333.

What is the same for all requests of a listener is in a template that is copied; the rest comes from the spans of the
parser. Field names that the parser knows have their key made at import; nothing from the network is kept.
"""

from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from fastwsgi._buffer cimport span_t
from fastwsgi._content cimport Input, input_empty, input_from_bytes
from fastwsgi._forwarded cimport SCHEME_HTTPS
from fastwsgi._parser cimport (
    HEAD_DONE, KNOWN_CONTENT_LENGTH, KNOWN_COOKIE, KNOWN_NONE, KNOWN_TRANSFER_ENCODING, METHOD_GET, METHOD_OTHER,
    TARGET_ABSOLUTE, TARGET_ASTERISK, field_t, known_name, known_name_t, limits_default, limits_t, parser_feed,
    parser_free, parser_init, parser_t,
)
from fastwsgi._router cimport path_merge, route_t
from fastwsgi._trust cimport forwarded_t

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    char* PyUnicode_1BYTE_DATA(object text)

cdef enum:
    KNOWN_MOST = 64
    NAME_ROOM = 256

# One object each, so that setting it in a copy of the template finds it by identity.
cdef str CLIENT_GONE = "fastwsgi.client_gone"
cdef str EARLY_HINTS = "wsgi.early_hints"

# Constants, made at import: the environ keys of the known field names, and the names of the methods.
cdef tuple known_keys
cdef tuple method_names = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")

cdef tuple keys_make():
    cdef list keys = [None]
    cdef const known_name_t* known
    cdef int index
    for index in range(1, KNOWN_MOST):
        known = known_name(index)
        if known == NULL:
            break
        key = (<bytes>known.name[:known.length]).decode("ascii").upper().replace("-", "_")
        keys.append(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key)
    return tuple(keys)

known_keys = keys_make()


cdef inline str ascii_text(const char* data, size_t size):
    cdef str value
    if size < 2:
        # One octet or none: the interpreter has these ready.
        return <str>PyUnicode_DecodeLatin1(data, <Py_ssize_t>size, NULL)
    value = <str>PyUnicode_New(<Py_ssize_t>size, 127)
    memcpy(PyUnicode_1BYTE_DATA(value), data, size)
    return value


cdef inline str text(const char* data, span_t span, bint is_ascii):
    if is_ascii:
        return ascii_text(data + span.start, span.length)
    return <str>PyUnicode_DecodeLatin1(data + span.start, span.length, NULL)


cdef inline int digit(char octet) noexcept:
    return octet - c"0" if octet <= c"9" else (octet | 0x20) - c"a" + 10


cdef str percent_decode(const char* data, span_t span):
    """The path with its %HH decoded, each octet as one character (PEP 3333, "Unicode Issues")."""
    cdef const char* octets = data + span.start
    cdef size_t i = 0, size = 0
    cdef uint8_t octet, all_octets = 0
    cdef uint8_t* out
    cdef str value
    while i < span.length:
        if octets[i] == c"%":
            octet = <uint8_t>(digit(octets[i + 1]) << 4 | digit(octets[i + 2]))
            i += 3
        else:
            octet = <uint8_t>octets[i]
            i += 1
        all_octets |= octet
        size += 1
    value = <str>PyUnicode_New(<Py_ssize_t>size, 255 if all_octets & 0x80 else 127)
    out = <uint8_t*>PyUnicode_1BYTE_DATA(value)
    i = 0
    while i < span.length:
        if octets[i] == c"%":
            out[0] = <uint8_t>(digit(octets[i + 1]) << 4 | digit(octets[i + 2]))
            i += 3
        else:
            out[0] = <uint8_t>octets[i]
            i += 1
        out += 1
    return value


cdef str field_key(const char* name, size_t size):
    """HTTP_ and the name in capitals with underscores."""
    cdef char out[NAME_ROOM]
    cdef size_t i
    cdef char octet
    if size > NAME_ROOM - 5:
        return "HTTP_" + (<bytes>name[:size]).decode("latin-1").upper().replace("-", "_")
    memcpy(out, b"HTTP_", 5)
    for i in range(size):
        octet = name[i]
        if c"a" <= octet <= c"z":
            octet -= 32
        elif octet == c"-":
            octet = c"_"
        out[5 + i] = octet
    return <str>PyUnicode_DecodeLatin1(out, <Py_ssize_t>(5 + size), NULL)


cdef inline int add_field(dict environ, object key, const char* data, const field_t* field,
                          bint may_be_there) except -1:
    cdef str value = text(data, field.value, field.is_ascii)
    cdef PyObject* before
    if may_be_there:
        before = PyDict_GetItemWithError(environ, key)
        if before != NULL:
            # RFC 9110, 5.3, and for Cookie RFC 6265, 5.4.
            value = <str><object>before + ("; " if field.known == KNOWN_COOKIE else ",") + value
    return PyDict_SetItem(environ, key, value)


cdef dict environ_template(str server_name, str server_port, bint multithread, bint multiprocess,
                           object errors, object file_wrapper, str software, bint is_tls=False,
                           bint hints_early=False):
    """What is the same for every request of a listener.

    And what is for many, a GET of "/", so that these set it no more. More than 21 keys, so that its table has room for
    the fields of a browser and a copy of it never grows.
    """
    # One by one: a dict that grows knows that all its keys are str, one made in one go does not (CPython 3.11).
    cdef dict environ = {}
    for key, value in (
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/"),
        ("QUERY_STRING", ""),
        ("RAW_URI", "/"),
        ("REQUEST_URI", "/"),
        ("SERVER_NAME", server_name),
        ("SERVER_PORT", server_port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", software),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REMOTE_ADDR", ""),
        ("REMOTE_PORT", ""),
        ("wsgi.version", (1, 0)),
        ("wsgi.url_scheme", "https" if is_tls else "http"),
        # Requests without content share one: there is nothing in it that could change.
        ("wsgi.input", input_empty()),
        ("wsgi.input_terminated", True),
        ("wsgi.errors", errors),
        ("wsgi.multithread", multithread),
        ("wsgi.multiprocess", multiprocess),
        ("wsgi.run_once", False),
        ("wsgi.file_wrapper", file_wrapper),
        (CLIENT_GONE, None),
    ):
        environ[key] = value
    if is_tls:
        environ["HTTPS"] = "on"
    if hints_early:
        environ[EARLY_HINTS] = None
    return environ


cdef int add_target(dict environ, const parser_t* parser, const char* data) except -1:
    """What a target other than "/" says; that one is in the template."""
    cdef str target = text(data, parser.target, parser.path_is_ascii and parser.query_is_ascii)
    if parser.target_form == TARGET_ASTERISK:
        PyDict_SetItem(environ, "PATH_INFO", "")        # "OPTIONS *" asks about the whole server: no path at all
    elif parser.path_needs_decoding:
        PyDict_SetItem(environ, "PATH_INFO", percent_decode(data, parser.path))
    elif parser.path.length == parser.target.length:
        PyDict_SetItem(environ, "PATH_INFO", target)
    else:
        PyDict_SetItem(environ, "PATH_INFO", text(data, parser.path, parser.path_is_ascii))
    if parser.query.length:
        PyDict_SetItem(environ, "QUERY_STRING", text(data, parser.query, parser.query_is_ascii))
    PyDict_SetItem(environ, "RAW_URI", target)
    PyDict_SetItem(environ, "REQUEST_URI", target)
    return 0


cdef dict environ_build(dict template, const parser_t* parser, const char* data,
                        const char* peer, size_t peer_size, int peer_port, Input input, int64_t content_size,
                        object client_gone, object early_hints):
    """The environ of a request, as PEP 3333, "environ Variables", has it."""
    cdef dict environ = PyDict_Copy(template)
    cdef const field_t* field
    cdef uint32_t i
    cdef bint other_seen = False
    if parser.method != METHOD_GET:
        PyDict_SetItem(environ, "REQUEST_METHOD",
                       <object>method_names[parser.method] if parser.method != METHOD_OTHER
                       else text(data, parser.method_name, True))
    if parser.target.length > 1 or data[parser.target.start] != c"/":
        add_target(environ, parser, data)
    if not parser.version_minor:
        PyDict_SetItem(environ, "SERVER_PROTOCOL", "HTTP/1.0")
    if peer_size:
        PyDict_SetItem(environ, "REMOTE_ADDR", ascii_text(peer, peer_size))
        PyDict_SetItem(environ, "REMOTE_PORT", port_text(peer_port))
    if input is not None:
        PyDict_SetItem(environ, "wsgi.input", input)
    PyDict_SetItem(environ, CLIENT_GONE, client_gone)
    if early_hints is not None:
        PyDict_SetItem(environ, EARLY_HINTS, early_hints)
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.is_left_out:
            continue
        if field.known == KNOWN_NONE:
            add_field(environ, field_key(data + field.name.start, field.name.length), data, field,
                      other_seen or field.is_repeated)
            other_seen = True
        elif field.known != KNOWN_TRANSFER_ENCODING and field.known != KNOWN_CONTENT_LENGTH:
            add_field(environ, <object>known_keys[field.known], data, field, field.is_repeated)
    if content_size >= 0:
        PyDict_SetItem(environ, "CONTENT_LENGTH", str(content_size))
    if parser.target_form == TARGET_ABSOLUTE:
        # RFC 9112, 3.2.2: the target's authority replaces the Host field.
        PyDict_SetItem(environ, "HTTP_HOST", text(data, parser.authority, True))
    return environ


cdef int environ_forward(dict environ, const parser_t* parser, const char* data, const forwarded_t* forwarded,
                         const char* peer) except -1:
    """Put over it what a proxy says of the client; peer: who says so."""
    cdef span_t path = parser.path
    environ["fastwsgi.peer_addr"] = peer.decode("ascii")
    if not forwarded.is_set:
        return 0
    if forwarded.has_client:
        environ["REMOTE_ADDR"] = forwarded.client_text[:forwarded.client_size].decode("ascii")
        environ["REMOTE_PORT"] = port_text(forwarded.client_port) if forwarded.client_port else ""
    if forwarded.scheme:
        if forwarded.scheme == SCHEME_HTTPS:
            environ["wsgi.url_scheme"] = "https"
        else:
            environ["wsgi.url_scheme"] = "http"
            environ.pop("HTTPS", None)
    if forwarded.host.length:
        host = environ["HTTP_HOST"] = text(data, forwarded.host, True)
        name, colon, port = host.rpartition(":")
        if not colon or port.endswith("]"):     # an IPv6 address has colons too
            name, port = host, ""
        environ["SERVER_NAME"] = name
        environ["SERVER_PORT"] = port or ("443" if environ["wsgi.url_scheme"] == "https" else "80")
    if forwarded.server_port:
        environ["SERVER_PORT"] = port_text(forwarded.server_port)
    if forwarded.script_length:
        path.length = forwarded.script_length
        environ["SCRIPT_NAME"] = percent_decode(data, path)
        path.start += path.length
        path.length = parser.path.length - path.length
        environ["PATH_INFO"] = percent_decode(data, path)
    return 0


cdef int environ_mount(dict environ, const route_t* route, bint is_odd) except -1:
    cdef str path = <str>environ["PATH_INFO"]
    cdef bytes octets
    cdef bytearray out
    if is_odd and path:
        # What a guard has seen is what the application gets.
        octets = path.encode("latin-1")
        out = bytearray(len(octets) + 1)
        path = out[:path_merge(octets, <size_t>len(octets), out)].decode("latin-1")
        environ["PATH_INFO"] = path
    if route.script_length:
        environ["SCRIPT_NAME"] = <str>environ["SCRIPT_NAME"] + path[:route.script_length]
        environ["PATH_INFO"] = path[route.script_length:]
    return 0


cdef inline str port_text(uint32_t port):
    cdef char digits[8]
    cdef int n = 8
    while True:
        n -= 1
        digits[n] = <char>(c"0" + port % 10)
        port //= 10
        if port == 0:
            return ascii_text(digits + n, 8 - n)


def environ_of(bytes request not None, *, str peer="127.0.0.1", int port=50000):
    """The environ of the request whose head and content are in `request`, for tests; ValueError if refused."""
    cdef parser_t parser
    cdef limits_t limits
    cdef bytes address = peer.encode()
    cdef int64_t content_size = -1
    cdef Input input = None
    cdef int result
    limits_default(&limits)
    memset(&parser, 0, sizeof(parser))
    parser_init(&parser, &limits)
    try:
        result = parser_feed(&parser, request, len(request))
        if result != HEAD_DONE:
            raise ValueError(f"not a whole request head: {result}")
        if parser.has_content_length:
            if parser.head_size + parser.content_length > <size_t>len(request):
                raise ValueError("not the whole content")
            content_size = <int64_t>parser.content_length
            input = input_from_bytes((<char*>request) + parser.head_size, parser.content_length)
        return environ_build(environ_template("localhost", "8000", False, False, None, None, "fastwsgi"), &parser,
                             request, address, len(address), port, input, content_size, None, None)
    finally:
        parser_free(&parser)
