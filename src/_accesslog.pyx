"""The access log's format, and the line it makes of an exchange.

The atoms are gunicorn's. All that came from the network is escaped, so that no client can forge a line or
reach the terminal of who reads the log. It knows neither where lines go nor when: they are bytes in the
caller's buffer.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset
from posix.types cimport time_t
from posix.unistd cimport getpid

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t, span_t
from fastwsgi._parser cimport (
    KNOWN_AUTHORIZATION, KNOWN_NONE, field_t, known_find, limits_default, limits_t, parser_feed, parser_free,
    parser_init, parser_t,
)

import re


cdef extern from "time.h" nogil:
    ctypedef struct tm_t "struct tm":
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        long tm_gmtoff

    tm_t* localtime_r(const time_t* time, tm_t* result)


cdef enum:
    ATOM_LITERAL
    ATOM_PEER
    ATOM_USER
    ATOM_TIME
    ATOM_REQUEST_LINE
    ATOM_METHOD
    ATOM_PATH
    ATOM_QUERY
    ATOM_PROTOCOL
    ATOM_STATUS
    ATOM_CONTENT_BYTES
    ATOM_CONTENT_BYTES_OR_DASH
    ATOM_SECONDS
    ATOM_MILLISECONDS
    ATOM_MICROSECONDS
    ATOM_DECIMAL_SECONDS
    ATOM_PROCESS
    ATOM_REQUEST_FIELD
    ATOM_RESPONSE_FIELD
    ATOM_ENVIRON

cdef enum:
    CREDENTIALS = 192           # how much of the decoded credentials is looked at for the user name
    NO_VALUE = 0xFFFFFFFF       # the length of a value that environ does not have

DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

cdef dict ATOMS = {
    "h": ATOM_PEER,
    "u": ATOM_USER,
    "t": ATOM_TIME,
    "r": ATOM_REQUEST_LINE,
    "m": ATOM_METHOD,
    "U": ATOM_PATH,
    "q": ATOM_QUERY,
    "H": ATOM_PROTOCOL,
    "s": ATOM_STATUS,
    "B": ATOM_CONTENT_BYTES,
    "b": ATOM_CONTENT_BYTES_OR_DASH,
    "T": ATOM_SECONDS,
    "M": ATOM_MILLISECONDS,
    "D": ATOM_MICROSECONDS,
    "L": ATOM_DECIMAL_SECONDS,
    "p": ATOM_PROCESS,
}
cdef dict FIELD_ATOMS = {"f": b"referer", "a": b"user-agent"}
cdef dict NAMED_ATOMS = {"i": ATOM_REQUEST_FIELD, "o": ATOM_RESPONSE_FIELD, "e": ATOM_ENVIRON}
# Python's formatting, which the atoms come from, lets these be written with a d.
cdef frozenset NUMBERS = frozenset("sBTMD")

cdef object PIECES = re.compile(
    r"(?P<literal>[^%]+)|%%|%\((?:\{(?P<name>[^{}()]+)\})?(?P<atom>[^{}()]+)\)(?P<conversion>[sd])"
)


# Writing: `at` is where the next octet goes, NULL once something did not fit; each call takes and returns it.

cdef inline char* put(char* at, const char* end, const char* data, size_t size) noexcept nogil:
    if at == NULL or size > <size_t>(end - at):
        return NULL
    memcpy(at, data, size)
    return at + size


cdef inline char* put_dash(char* at, const char* end) noexcept nogil:
    return put(at, end, b"-", 1)


cdef inline char* put_number(char* at, const char* end, uint64_t number) noexcept nogil:
    cdef char digits[20]
    cdef int first = 20
    while True:
        first -= 1
        digits[first] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            return put(at, end, digits + first, 20 - first)


cdef inline char* put_decimal_seconds(char* at, const char* end, uint64_t microseconds) noexcept nogil:
    cdef char fraction[8]
    cdef uint64_t rest = microseconds % 1000000
    cdef int i
    fraction[0] = c"."
    for i in range(6, 0, -1):
        fraction[i] = <char>(c"0" + rest % 10)
        rest //= 10
    return put(put_number(at, end, microseconds // 1000000), end, fraction, 7)


cdef inline bint is_plain(unsigned char octet) noexcept nogil:
    return 0x20 <= octet < 0x7F and octet != c'"' and octet != c"\\"


cdef inline bint are_plain(uint64_t octets) noexcept nogil:
    """is_plain() of eight octets at once: each term has the high bit of an octet set that is not plain.

    A carry or borrow into the next octet can only come from one that is not plain itself.
    """
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t control = octets - 0x20 * ones
    cdef uint64_t quote = (octets ^ 0x22 * ones) - ones
    cdef uint64_t backslash = (octets ^ 0x5C * ones) - ones
    cdef uint64_t delete = octets + ones
    return (octets | control | quote | backslash | delete) & (0x80 * ones) == 0


cdef char* put_escaped(char* at, const char* end, const char* data, size_t size) noexcept nogil:
    """Visible ASCII and spaces as they are, but \\" and \\\\; all else, obs-text too, as \\xHH."""
    cdef const char* digits = b"0123456789abcdef"
    cdef uint64_t octets
    cdef unsigned char octet
    cdef size_t done = 0
    if at == NULL:
        return NULL
    if 8 <= size <= <size_t>(end - at):
        while done + 8 <= size:
            memcpy(&octets, data + done, 8)
            if not are_plain(octets):
                break
            memcpy(at + done, &octets, 8)
            done += 8
        else:
            # What is left is less than a word; with some of what is done, it is one.
            memcpy(&octets, data + size - 8, 8)
            if are_plain(octets):
                memcpy(at + size - 8, &octets, 8)
                return at + size
        at += done
        data += done
        size -= done
    while size > 0:
        octet = data[0]
        if is_plain(octet):
            if at == end:
                return NULL
            at[0] = data[0]
            at += 1
        elif octet == c'"' or octet == c"\\":
            if end - at < 2:
                return NULL
            at[0] = c"\\"
            at[1] = data[0]
            at += 2
        else:
            if end - at < 4:
                return NULL
            at[0] = c"\\"
            at[1] = c"x"
            at[2] = digits[octet >> 4]
            at[3] = digits[octet & 15]
            at += 4
        data += 1
        size -= 1
    return at


cdef inline char* put_value(char* at, const char* end, const char* data, size_t size) noexcept nogil:
    return put_escaped(at, end, data, size) if size > 0 else put_dash(at, end)


cdef inline char* put_span(char* at, const char* end, const record_t* record, span_t span) noexcept nogil:
    return put_value(at, end, record.data + span.start, span.length)


cdef bint is_name(const char* text, const char* name, size_t size) noexcept nogil:
    """Whether text[0:size] is the name, which is in lower case."""
    cdef size_t i
    cdef unsigned char octet
    for i in range(size):
        octet = text[i]
        if c"A" <= octet <= c"Z":
            octet |= 0x20
        if octet != <unsigned char>name[i]:
            return False
    return True


cdef char* put_request_field(
    char* at, const char* end, const record_t* record, const char* name, size_t size, int known
) noexcept nogil:
    """The values of the field, joined as RFC 9110, 5.3 joins them."""
    cdef const parser_t* parser = record.parser
    cdef const field_t* field
    cdef bint found = False
    cdef uint32_t i
    if known != KNOWN_NONE and not (parser.known_seen >> known) & 1:
        return put_dash(at, end)
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known != known:
            continue
        if known == KNOWN_NONE and not (
            field.name.length == size and is_name(record.data + field.name.start, name, size)
        ):
            continue
        if found:
            at = put(at, end, b", ", 2)
            at = put_escaped(at, end, record.data + field.value.start, field.value.length)
        else:
            at = put_span(at, end, record, field.value)
        found = True
    return at if found else put_dash(at, end)


cdef char* put_response_field(
    char* at, const char* end, const record_t* record, const char* name, size_t size
) noexcept nogil:
    cdef const char* line = record.head
    cdef const char* head_end = record.head + record.head_size
    cdef const char* line_end
    cdef const char* value
    cdef const char* value_end
    cdef bint found = False
    while line < head_end:
        line_end = <const char*>memchr(line, c"\n", head_end - line)
        if line_end == NULL:
            line_end = head_end
        if <size_t>(line_end - line) > size and line[size] == c":" and is_name(line, name, size):
            value = line + size + 1
            value_end = line_end - 1 if (line_end - 1)[0] == c"\r" else line_end
            while value < value_end and (value[0] == c" " or value[0] == c"\t"):
                value += 1
            if found:
                at = put(at, end, b", ", 2)
                at = put_escaped(at, end, value, value_end - value)
            else:
                at = put_value(at, end, value, value_end - value)
            found = True
        line = line_end + 1
    return at if found else put_dash(at, end)


cdef inline int base64_digit(unsigned char octet) noexcept nogil:
    if c"A" <= octet <= c"Z":
        return octet - c"A"
    if c"a" <= octet <= c"z":
        return octet - c"a" + 26
    if c"0" <= octet <= c"9":
        return octet - c"0" + 52
    return 62 if octet == c"+" else 63 if octet == c"/" else -1


cdef char* put_user(char* at, const char* end, const record_t* record) noexcept nogil:
    """The user name of the Basic credentials (RFC 7617), however the application takes them."""
    cdef const parser_t* parser = record.parser
    cdef char decoded[CREDENTIALS]
    cdef const char* text = NULL
    cdef const char* colon
    cdef size_t size = 0
    cdef size_t length = 0
    cdef uint32_t bits = 0
    cdef int pending = 0
    cdef int digit
    cdef uint32_t i
    if parser == NULL or not (parser.known_seen >> KNOWN_AUTHORIZATION) & 1:
        return put_dash(at, end)
    for i in range(parser.field_count):
        if parser.fields[i].known == KNOWN_AUTHORIZATION:
            text = record.data + parser.fields[i].value.start
            size = parser.fields[i].value.length
            break
    if size < 6 or text[5] != c" " or not is_name(text, b"basic", 5):
        return put_dash(at, end)
    text += 6
    size -= 6
    while size > 0 and text[0] == c" ":
        text += 1
        size -= 1
    while size > 0 and length < sizeof(decoded):
        digit = base64_digit(text[0])
        if digit < 0:
            break
        bits = bits << 6 | digit
        pending += 6
        if pending >= 8:
            pending -= 8
            decoded[length] = <char>(bits >> pending & 0xFF)
            length += 1
        text += 1
        size -= 1
    colon = <const char*>memchr(decoded, c":", length)
    return put_dash(at, end) if colon == NULL else put_value(at, end, decoded, colon - decoded)


cdef char* put_time(char* at, const char* end, const record_t* record, stamp_t* stamp) noexcept nogil:
    """Local time with its zone, in English whatever the locale: log readers expect that."""
    cdef const char* months = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    cdef time_t second = <time_t>record.unix_time
    cdef tm_t local
    cdef long zone
    if stamp.size == 0 or stamp.second != record.unix_time:
        if localtime_r(&second, &local) == NULL:
            return put_dash(at, end)
        zone = local.tm_gmtoff // 60
        stamp.second = record.unix_time
        stamp.size = snprintf(
            stamp.text,
            sizeof(stamp.text),
            "[%02d/%.3s/%d:%02d:%02d:%02d %c%02ld%02ld]",
            local.tm_mday,
            months + 3 * local.tm_mon,
            local.tm_year + 1900,
            local.tm_hour,
            local.tm_min,
            local.tm_sec,
            <int>(c"-" if zone < 0 else c"+"),
            (-zone if zone < 0 else zone) // 60,
            (-zone if zone < 0 else zone) % 60,
        )
    return put(at, end, stamp.text, stamp.size)


cdef char* put_environ_value(char* at, const char* end, const record_t* record, size_t* used) noexcept nogil:
    """The next of the values that accesslog_values() gathered; they are in the order of their atoms."""
    cdef uint32_t length
    if record.values == NULL or record.values_size - used[0] < sizeof(length):
        return put_dash(at, end)
    memcpy(&length, record.values + used[0], sizeof(length))
    used[0] += sizeof(length)
    if length == <uint32_t>NO_VALUE:
        return put_dash(at, end)
    at = put_value(at, end, record.values + used[0], length)
    used[0] += length
    return at


cdef ssize_t accesslog_line(
    const log_format_t* format, const record_t* record, stamp_t* stamp, char* out, size_t capacity
) noexcept nogil:
    """Write the line with its newline to out; its length, or -1 when capacity is too small for it."""
    cdef const parser_t* parser = record.parser
    cdef bint has_request = parser != NULL and parser.request_line.length > 0
    cdef const char* end = out + capacity
    cdef char* at = out
    cdef const log_atom_t* atom
    cdef const char* text
    cdef size_t used = 0
    cdef size_t i
    for i in range(format.count):
        atom = &format.atoms[i]
        text = format.text + atom.start
        if atom.kind == ATOM_LITERAL:
            at = put(at, end, text, atom.size)
        elif atom.kind == ATOM_PEER:
            at = put_value(at, end, record.peer, record.peer_size)
        elif atom.kind == ATOM_USER:
            at = put_user(at, end, record)
        elif atom.kind == ATOM_TIME:
            at = put_time(at, end, record, stamp)
        elif atom.kind == ATOM_STATUS:
            at = put_number(at, end, record.status) if record.status > 0 else put_dash(at, end)
        elif atom.kind == ATOM_CONTENT_BYTES:
            at = put_number(at, end, record.content_bytes)
        elif atom.kind == ATOM_CONTENT_BYTES_OR_DASH:
            at = put_number(at, end, record.content_bytes) if record.content_bytes > 0 else put_dash(at, end)
        elif atom.kind == ATOM_SECONDS:
            at = put_number(at, end, record.duration_ns // 1000000000)
        elif atom.kind == ATOM_MILLISECONDS:
            at = put_number(at, end, record.duration_ns // 1000000)
        elif atom.kind == ATOM_MICROSECONDS:
            at = put_number(at, end, record.duration_ns // 1000)
        elif atom.kind == ATOM_DECIMAL_SECONDS:
            at = put_decimal_seconds(at, end, record.duration_ns // 1000)
        elif atom.kind == ATOM_PROCESS:
            at = put(at, end, b"<", 1)
            at = put_number(at, end, getpid())
            at = put(at, end, b">", 1)
        elif atom.kind == ATOM_RESPONSE_FIELD:
            at = put_response_field(at, end, record, text, atom.size)
        elif atom.kind == ATOM_ENVIRON:
            at = put_environ_value(at, end, record, &used)
        elif not has_request:
            at = put_dash(at, end)
        elif atom.kind == ATOM_REQUEST_LINE:
            at = put_span(at, end, record, parser.request_line)
        elif atom.kind == ATOM_METHOD:
            at = put_span(at, end, record, parser.method_name)
        elif atom.kind == ATOM_PATH:
            at = put_span(at, end, record, parser.path)
        elif atom.kind == ATOM_QUERY:
            at = put_escaped(at, end, record.data + parser.query.start, parser.query.length)
        elif atom.kind == ATOM_PROTOCOL:
            at = put(at, end, b"HTTP/1.1" if parser.version_minor else b"HTTP/1.0", 8)
        elif atom.kind == ATOM_REQUEST_FIELD:
            at = put_request_field(at, end, record, text, atom.size, atom.known)
        if at == NULL:
            return -1
    at = put(at, end, b"\n", 1)
    return -1 if at == NULL else at - out


cdef int accesslog_values(const log_format_t* format, dict environ, buffer_t* values) except -1:
    """Append what the %({name}e)s of the format stand for to values, which become record.values."""
    cdef const log_atom_t* atom
    cdef bytes text
    cdef uint32_t length
    cdef size_t i
    for i in range(format.count):
        atom = &format.atoms[i]
        if atom.kind != ATOM_ENVIRON:
            continue
        text = environ_text(environ, PyBytes_FromStringAndSize(format.text + atom.start, atom.size))
        length = NO_VALUE if text is None else PyBytes_GET_SIZE(text)
        if buffer_append(values, <const char*>&length, sizeof(length)) < 0 or (
            text is not None and buffer_append(values, PyBytes_AS_STRING(text), length) < 0
        ):
            raise MemoryError
    return 0


cdef bytes environ_text(dict environ, bytes name):
    """The value of a variable as text, or None; its name is given in lower case, and may be in upper."""
    cdef str key = name.decode()
    value = environ.get(key)
    if value is None:
        value = environ.get(key.upper())
    if value is None:
        return None
    try:
        text = str(value)
    except Exception:
        # An object that the application left there; its faults are no reason to lose the line.
        return None
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


cdef list compile_format(str format):
    """The atoms as (kind, known, text), with neighbouring literals joined; ValueError if one is wrong."""
    cdef list atoms = []
    cdef bytes literal = b""
    cdef bytes text
    cdef Py_ssize_t end = 0
    for piece in PIECES.finditer(format):
        if piece.start() != end:
            break
        end = piece.end()
        name, atom = piece["name"], piece["atom"]
        known = KNOWN_NONE
        text = b""
        if atom is None:
            literal += piece["literal"].encode("utf-8", "surrogateescape") if piece["literal"] else b"%"
            continue
        if piece["conversion"] == "d" and (name is not None or atom not in NUMBERS):
            raise ValueError(f"access log format: {piece.group()} is not a number; it is written with an s")
        if name is not None and atom in NAMED_ATOMS:
            kind = NAMED_ATOMS[atom]
            text = name.lower().encode()
        elif name is None and atom == "l":
            # What identd would say (RFC 1413); nobody asks any more.
            literal += b"-"
            continue
        elif name is None and atom in FIELD_ATOMS:
            kind = ATOM_REQUEST_FIELD
            text = FIELD_ATOMS[atom]
        elif name is None and atom in ATOMS:
            kind = ATOMS[atom]
        else:
            raise ValueError(f"access log format: unknown atom {piece.group()}")
        if kind == ATOM_REQUEST_FIELD:
            known = known_find(text, len(text))
        if literal:
            atoms.append((ATOM_LITERAL, KNOWN_NONE, literal))
            literal = b""
        atoms.append((kind, known, text))
    if end != len(format):
        wrong = format[end : end + 12]
        raise ValueError(
            f"access log format: {wrong!r} begins no atom such as %(h)s; a percent sign is written %%"
        )
    if literal:
        atoms.append((ATOM_LITERAL, KNOWN_NONE, literal))
    return atoms


@cython.final
cdef class LogFormat:
    """An access log format, compiled; ValueError, one line, if there is something wrong with it."""

    def __cinit__(self, str format not None=DEFAULT_FORMAT):
        cdef list atoms = compile_format(format)
        cdef bytes text = b"".join([piece[2] for piece in atoms])
        cdef log_atom_t* atom
        cdef size_t start = 0
        self.format.atoms = <log_atom_t*>malloc(max(len(atoms), 1) * sizeof(log_atom_t))
        self.format.text = <char*>malloc(max(len(text), 1))
        if self.format.atoms == NULL or self.format.text == NULL:
            raise MemoryError
        memcpy(self.format.text, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        for kind, known, name in atoms:
            atom = &self.format.atoms[self.format.count]
            atom.kind = kind
            atom.known = known
            atom.start = start
            atom.size = len(name)
            start += atom.size
            self.format.count += 1
            if kind == ATOM_ENVIRON:
                self.format.needs_environ = True

    def __dealloc__(self):
        free(self.format.atoms)
        free(self.format.text)

    @property
    def needs_environ(self):
        return self.format.needs_environ

    def line(
        self,
        bytes request=None,
        *,
        bytes peer not None=b"",
        int status=0,
        uint64_t content_bytes=0,
        uint64_t duration_ns=0,
        int64_t unix_time=0,
        bytes head not None=b"",
        dict environ=None,
        size_t capacity=65536,
    ):
        """The line for an exchange, to be driven by tests; None if it does not fit into capacity."""
        cdef record_t record
        cdef stamp_t stamp
        cdef limits_t limits
        cdef parser_t parser
        cdef buffer_t values
        cdef bytes line = PyBytes_FromStringAndSize(NULL, capacity)
        cdef char* out = PyBytes_AS_STRING(line)
        cdef ssize_t size
        memset(&record, 0, sizeof(record))
        memset(&stamp, 0, sizeof(stamp))
        memset(&values, 0, sizeof(values))
        limits_default(&limits)
        parser_init(&parser, &limits)
        try:
            if request is not None:
                parser_feed(&parser, PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request))
                record.data = PyBytes_AS_STRING(request)
                record.parser = &parser
            if environ is not None:
                accesslog_values(&self.format, environ, &values)
                record.values = values.data
                record.values_size = values.size
            record.peer = PyBytes_AS_STRING(peer)
            record.peer_size = PyBytes_GET_SIZE(peer)
            record.head = PyBytes_AS_STRING(head)
            record.head_size = PyBytes_GET_SIZE(head)
            record.status = status
            record.content_bytes = content_bytes
            record.duration_ns = duration_ns
            record.unix_time = unix_time
            with nogil:
                size = accesslog_line(&self.format, &record, &stamp, out, capacity)
            return None if size < 0 else line[:size]
        finally:
            parser_free(&parser)
            buffer_free(&values)
