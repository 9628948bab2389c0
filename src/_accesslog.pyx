"""The access log's format, and the line it makes of an exchange.

The atoms are gunicorn's, and a few of ours. A line is text, or a JSON object with a key for each atom. All that came from
the network is escaped, so that no client can forge a line or reach the terminal of who reads the log; a line is ASCII in
any case. It knows neither where lines go nor when: they are bytes in the caller's buffer.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset
from posix.types cimport time_t

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t, span_t
from fastwsgi._parser cimport (
    KNOWN_AUTHORIZATION, KNOWN_NONE, KNOWN_X_REQUEST_ID, field_t, known_find, limits_default, limits_t, parser_feed, parser_free,
    parser_init, parser_t,
)

import json
import os
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
    ATOM_NONE                   # nothing but the literal before it
    ATOM_PEER
    ATOM_USER
    ATOM_TIME
    ATOM_REQUEST_LINE
    ATOM_METHOD
    ATOM_TARGET
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
    ATOM_REQUEST_ID
    ATOM_REQUEST_FIELD
    ATOM_RESPONSE_FIELD
    ATOM_ENVIRON
    # Of the short format.
    ATOM_CLOCK
    ATOM_SHORT_STATUS
    ATOM_SHORT_TIME
    ATOM_SHORT_SIZE

cdef enum:
    CHUNK = 16                  # a literal that is no longer is copied as so many octets
    CREDENTIALS = 192           # how much of the decoded credentials is looked at for the user name
    SECOND_NS = 1000000000
    FIXED_MOST = 112            # of an atom, all that it may write without a look at how much room there is
    NO_VALUE = 0xFFFFFFFF       # the length of a value that environ does not have

# For who writes an application, and reads along: when, what, and what came of it.
SHORT = "short"
DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# By its letters, what an atom is and the key that it has in JSON.
cdef dict ATOMS = {
    "h": (ATOM_PEER, "remote_addr"),
    "u": (ATOM_USER, "user"),
    "t": (ATOM_TIME, "time"),
    "r": (ATOM_REQUEST_LINE, "request"),
    "m": (ATOM_METHOD, "method"),
    "target": (ATOM_TARGET, "target"),
    "U": (ATOM_PATH, "path"),
    "q": (ATOM_QUERY, "query"),
    "H": (ATOM_PROTOCOL, "protocol"),
    "s": (ATOM_STATUS, "status"),
    "B": (ATOM_CONTENT_BYTES, "bytes"),
    "b": (ATOM_CONTENT_BYTES_OR_DASH, "bytes"),
    "id": (ATOM_REQUEST_ID, "request_id"),
}
cdef dict FIELD_ATOMS = {"f": (b"referer", "referer"), "a": (b"user-agent", "user_agent"), "host": (b"host", "host")}
cdef dict NAMED_ATOMS = {
    "i": (ATOM_REQUEST_FIELD, "request_header_"),
    "o": (ATOM_RESPONSE_FIELD, "response_header_"),
    "e": (ATOM_ENVIRON, "environ_"),
}
# Each takes the name of a time before it, too: %({queue}D)s.
cdef dict TIME_ATOMS = {
    "T": (ATOM_SECONDS, "_s"),
    "M": (ATOM_MILLISECONDS, "_ms"),
    "D": (ATOM_MICROSECONDS, "_us"),
    "L": (ATOM_DECIMAL_SECONDS, "_seconds"),
}
# By its name, the time of record_t that it is. What is added here is an atom, and a key of JSON.
cdef dict TIMES = {
    "duration": LOGGED_WHOLE,
    "head": LOGGED_HEAD,
    "content": LOGGED_CONTENT,
    "queue": LOGGED_QUEUE,
    "gil": LOGGED_GIL,
    "application": LOGGED_APPLICATION,
    "sending": LOGGED_SENDING,
}

# What JSON lines have where no format asks for something else.
cdef str JSON_FORMAT = (
    "%(t)s%(h)s%(u)s%(m)s%(target)s%(H)s%(host)s%(s)s%(B)s"
    + "".join([f"%({{{name}}}D)s" for name in TIMES]) + "%(f)s%(a)s%(id)s"
)
cdef list SHORT_PIECES = [
    ("time", ATOM_CLOCK, KNOWN_NONE, b""),
    ("", ATOM_NONE, KNOWN_NONE, b" "),
    ("status", ATOM_SHORT_STATUS, KNOWN_NONE, b""),
    ("", ATOM_NONE, KNOWN_NONE, b" "),
    ("method", ATOM_METHOD, KNOWN_NONE, b""),
    ("", ATOM_NONE, KNOWN_NONE, b" "),
    ("target", ATOM_TARGET, KNOWN_NONE, b""),
    ("", ATOM_NONE, KNOWN_NONE, b"  "),
    ("duration", ATOM_SHORT_TIME, LOGGED_WHOLE, b""),
    ("", ATOM_NONE, KNOWN_NONE, b" "),
    ("bytes", ATOM_SHORT_SIZE, KNOWN_NONE, b""),
]
# Python's formatting, which the atoms come from, lets these be written with a d.
cdef frozenset NUMBERS = frozenset("sBTMD")

# The numbers below 100, for two digits at a time.
cdef const char* pairs = (
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    b"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
)

# What a line is made of where there was none, or no whole line of one.
cdef parser_t no_request

cdef object PIECES = re.compile(
    r"(?P<literal>[^%]+)|%%|%\((?:\{(?P<name>[^{}()]+)\})?(?P<atom>[^{}()]+)\)(?P<conversion>[sd])"
)


# Writing: `at` is where the next octet goes. What has a greatest size (literals, numbers, times, quotes) is written as
# it is: there are format.spare octets for all of that behind `end`. What has none is held against `end`, and a function
# that writes such values returns NULL once something did not fit.

cdef inline char* put(char* at, const char* end, const char* data, size_t size) noexcept nogil:
    if at == NULL or <ssize_t>size > end - at:
        return NULL
    memcpy(at, data, size)
    return at + size


cdef inline char* put_chunk(char* at, const char* text, size_t size) noexcept nogil:
    """No more than CHUNK octets, where there are as many to read: copying a fixed number is done without a call."""
    memcpy(at, text, CHUNK)
    return at + size


cdef inline char* put_literal(char* at, const char* text, size_t size) noexcept nogil:
    """A literal of a format, which has CHUNK octets behind it."""
    if size > CHUNK:
        memcpy(at, text, size)
        return at + size
    return put_chunk(at, text, size)


cdef inline char* put_nothing(char* at, bint is_json) noexcept nogil:
    """Where there is no value."""
    if is_json:
        memcpy(at, b"null", 4)
        return at + 4
    at[0] = c"-"
    return at + 1


cdef inline char* put_quote(char* at, bint is_json) noexcept nogil:
    """What strings of JSON begin and end with."""
    if is_json and at != NULL:
        at[0] = c'"'
        at += 1
    return at


cdef inline char* put_two(char* at, uint32_t number) noexcept nogil:
    memcpy(at, pairs + 2 * number, 2)
    return at + 2


cdef inline char* put_number(char* at, uint64_t number) noexcept nogil:
    cdef uint32_t hundreds
    if number >= 10000:
        return put_long(at, number)
    hundreds = <uint32_t>number // 100
    if hundreds >= 10:
        at = put_two(at, hundreds)
    elif hundreds:
        at[0] = <char>(c"0" + hundreds)
        at += 1
    elif number < 10:
        at[0] = <char>(c"0" + number)
        return at + 1
    return put_two(at, <uint32_t>number - 100 * hundreds)


cdef char* put_long(char* at, uint64_t number) noexcept nogil:
    cdef uint32_t last = number % 10000
    return put_two(put_two(put_number(at, number // 10000), last // 100), last % 100)


cdef inline char* put_status(char* at, int status, bint is_json) noexcept nogil:
    return put_number(at, <uint32_t>status) if status > 0 else put_nothing(at, is_json)


cdef inline char* put_fraction(char* at, uint32_t microseconds) noexcept nogil:
    """Less than a million of them, as what stands behind a number of seconds."""
    at[0] = c"."
    return put_two(put_two(put_two(at + 1, microseconds // 10000), microseconds // 100 % 100), microseconds % 100)


cdef inline char* put_decimal_seconds(char* at, uint64_t microseconds) noexcept nogil:
    return put_fraction(put_number(at, microseconds // 1000000), <uint32_t>(microseconds % 1000000))


cdef extern from * nogil:
    """
    typedef signed char sixteen_t __attribute__((vector_size(16)));
    typedef long long two_t __attribute__((vector_size(16)));

    /* is_plain() of sixteen octets at once; those from 0x80 on are less than 0. */
    static inline int are_plain(uint64_t first, uint64_t last) {
        sixteen_t octets = (sixteen_t)(two_t){(long long)first, (long long)last};
        two_t plain = (two_t)((octets > 0x1F) & ~((octets == 0x7F) | (octets == '"') | (octets == '\\\\')));
        return (plain[0] & plain[1]) == -1;
    }
    """
    bint are_plain(uint64_t first, uint64_t last) noexcept


cdef inline bint is_plain(unsigned char octet) noexcept nogil:
    return 0x20 <= octet < 0x7F and octet != c'"' and octet != c"\\"


cdef inline bint copy_plain(char* at, const char* data, size_t far) noexcept nogil:
    """Copy eight octets and the eight that are so far behind their beginning; True if all of them are plain."""
    cdef uint64_t first, last
    memcpy(&first, data, 8)
    memcpy(&last, data + far, 8)
    memcpy(at, &first, 8)
    memcpy(at + far, &last, 8)
    return are_plain(first, last)


cdef inline size_t put_plain(char* at, const char* data, size_t size) noexcept nogil:
    """Copy data, of eight octets or more; returns how many of them, from the first on, are known to be plain."""
    cdef size_t done = 0
    if size < 16:
        return size if copy_plain(at, data, size - 8) else 0
    while size - done >= 16:
        if not copy_plain(at + done, data + done, 8):
            return done
        done += 16
    # The last sixteen: some of these are done.
    return size if done == size or copy_plain(at + size - 16, data + size - 16, 8) else done


cdef char* put_escaped(char* at, const char* end, const char* data, size_t size, bint is_json) noexcept nogil:
    """Visible ASCII and spaces as they are, but \\" and \\\\; all else, obs-text too, as \\xHH, or \\u00HH in JSON."""
    cdef size_t done = 0
    if at == NULL:
        return NULL
    if 8 <= size and <ssize_t>size <= end - at:
        done = put_plain(at, data, size)
        if done == size:
            return at + size
    return put_each(at + done, end, data + done, size - done, is_json)


cdef char* put_each(char* at, const char* end, const char* data, size_t size, bint is_json) noexcept nogil:
    """The same, octet by octet."""
    cdef ssize_t longest = 6 if is_json else 4
    cdef const char* digits = b"0123456789abcdef"
    cdef unsigned char octet
    while size > 0:
        octet = data[0]
        if is_plain(octet):
            if at >= end:
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
            if end - at < longest:
                return NULL
            at = put(at, end, b"\\u00" if is_json else b"\\x", <size_t>longest - 2)
            at[0] = digits[octet >> 4]
            at[1] = digits[octet & 15]
            at += 2
        data += 1
        size -= 1
    return at


cdef inline char* put_string(char* at, const char* end, const char* data, size_t size, bint is_json) noexcept nogil:
    return put_quote(put_escaped(put_quote(at, is_json), end, data, size, is_json), is_json)


cdef inline char* put_value(char* at, const char* end, const char* data, size_t size, bint is_json) noexcept nogil:
    return put_string(at, end, data, size, is_json) if size > 0 else put_nothing(at, is_json)


cdef inline char* put_span(char* at, const char* end, const record_t* record, span_t span, bint is_json) noexcept nogil:
    return put_value(at, end, record.data + span.start, span.length, is_json)


cdef inline char* put_more(
    char* at, const char* end, const char* data, size_t size, bint is_first, bint is_json
) noexcept nogil:
    """A value of a field, joined with those before it as RFC 9110, 5.3 joins them; the last quote is missing."""
    if not is_first:
        return put_escaped(put(at, end, b", ", 2), end, data, size, is_json)
    at = put_quote(at, is_json)
    return put_escaped(at, end, data, size, is_json) if size > 0 or is_json else put_nothing(at, False)


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


cdef inline bint has_field(const record_t* record, const parser_t* parser, int known) noexcept nogil:
    """There may be a field of that name: KNOWN_NONE stands for many."""
    return ((parser.known_seen >> known) & 1 or known == KNOWN_NONE
            or (known == KNOWN_X_REQUEST_ID and record.id_size and parser != &no_request))


cdef char* put_request_field(
    char* at, const char* end, const record_t* record, const parser_t* parser, const char* name, size_t size, int known,
    bint is_json
) noexcept nogil:
    cdef const field_t* field = parser.fields
    cdef const field_t* fields_end = field + parser.field_count
    cdef bint found = False
    if known == KNOWN_X_REQUEST_ID and record.id_size:
        # Whatever the client has sent, this is what the application got.
        return put_string(at, end, record.id, record.id_size, is_json)
    while field < fields_end:
        if field.known == known and (known != KNOWN_NONE or (
            field.name.length == size and is_name(record.data + field.name.start, name, size)
        )):
            at = put_more(at, end, record.data + field.value.start, field.value.length, not found, is_json)
            found = True
        field += 1
    return put_quote(at, is_json) if found else put_nothing(at, is_json)


cdef inline char* put_request_id(
    char* at, const char* end, const record_t* record, const parser_t* parser, bint is_json
) noexcept nogil:
    """Ours, or what the client has sent."""
    if record.id_size:
        return put_string(at, end, record.id, record.id_size, is_json)
    if not has_field(record, parser, KNOWN_X_REQUEST_ID):
        return put_nothing(at, is_json)
    return put_request_field(at, end, record, parser, b"x-request-id", 12, KNOWN_X_REQUEST_ID, is_json)


cdef char* put_response_field(
    char* at, const char* end, const record_t* record, const char* name, size_t size, bint is_json
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
            at = put_more(at, end, value, value_end - value, not found, is_json)
            found = True
        line = line_end + 1
    return put_quote(at, is_json) if found else put_nothing(at, is_json)


cdef inline int base64_digit(unsigned char octet) noexcept nogil:
    if c"A" <= octet <= c"Z":
        return octet - c"A"
    if c"a" <= octet <= c"z":
        return octet - c"a" + 26
    if c"0" <= octet <= c"9":
        return octet - c"0" + 52
    return 62 if octet == c"+" else 63 if octet == c"/" else -1


cdef char* put_user(
    char* at, const char* end, const record_t* record, const parser_t* parser, bint is_json
) noexcept nogil:
    """The user name of the Basic credentials (RFC 7617), however the application takes them; there are some."""
    cdef char decoded[CREDENTIALS]
    cdef const char* text = NULL
    cdef const char* colon
    cdef size_t size = 0
    cdef size_t length = 0
    cdef uint32_t bits = 0
    cdef int pending = 0
    cdef int digit
    cdef uint32_t i
    for i in range(parser.field_count):
        if parser.fields[i].known == KNOWN_AUTHORIZATION:
            text = record.data + parser.fields[i].value.start
            size = parser.fields[i].value.length
            break
    if size < 6 or text[5] != c" " or not is_name(text, b"basic", 5):
        return put_nothing(at, is_json)
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
    if colon == NULL:
        return put_nothing(at, is_json)
    return put_value(at, end, decoded, colon - decoded, is_json)


cdef bint stamp_make(stamp_t* stamp, time_t second, bint is_json) noexcept nogil:
    """Local time with its zone, in English whatever the locale: log readers expect that; in JSON by RFC 3339."""
    cdef const char* months = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    cdef tm_t local
    cdef long zone, minutes
    cdef int sign
    if localtime_r(&second, &local) == NULL:
        return False
    zone = local.tm_gmtoff // 60
    sign = c"-" if zone < 0 else c"+"
    minutes = -zone if zone < 0 else zone
    if is_json:
        stamp.size = snprintf(
            stamp.text, sizeof(stamp.text), b'"%04d-%02d-%02dT%02d:%02d:%02d', local.tm_year + 1900, local.tm_mon + 1,
            local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec)
        snprintf(stamp.zone, sizeof(stamp.zone), b'%c%02ld:%02ld"', sign, minutes // 60, minutes % 60)
    else:
        stamp.size = snprintf(
            stamp.text, sizeof(stamp.text), "[%02d/%.3s/%d:%02d:%02d:%02d %c%02ld%02ld]", local.tm_mday,
            months + 3 * local.tm_mon, local.tm_year + 1900, local.tm_hour, local.tm_min, local.tm_sec, sign,
            minutes // 60, minutes % 60)
    stamp.second_ns = <int64_t>second * SECOND_NS
    return True


cdef inline char* put_time(char* at, const record_t* record, stamp_t* stamp, bint is_json) noexcept nogil:
    cdef uint64_t since_ns = <uint64_t>(record.wall_ns - stamp.second_ns)
    if stamp.size == 0 or since_ns >= SECOND_NS:
        if not stamp_make(stamp, <time_t>(record.wall_ns // SECOND_NS), is_json):
            return put_nothing(at, is_json)
        since_ns = <uint64_t>(record.wall_ns - stamp.second_ns)
    memcpy(at, stamp.text, STAMP_ROOM)
    at += stamp.size
    if is_json:
        at = put_chunk(put_fraction(at, <uint32_t>(since_ns // 1000)), stamp.zone, 7)
    return at


cdef char* put_clock(char* at, const record_t* record) noexcept nogil:
    """The time of day."""
    cdef time_t second = <time_t>(record.wall_ns // SECOND_NS)
    cdef tm_t local
    if localtime_r(&second, &local) == NULL:
        return put_nothing(at, False)
    return at + snprintf(at, FIXED_MOST, "%02d:%02d:%02d", local.tm_hour, local.tm_min, local.tm_sec)


cdef char* put_short_status(char* at, int status, bint has_colours) noexcept nogil:
    """By its class: green, cyan, yellow, red; 499 and what has no answer are nobody's fault, and grey."""
    cdef int colour = 90
    if status <= 0:
        memcpy(at, b"---", 3)
        return at + 3
    if not has_colours:
        return at + snprintf(at, FIXED_MOST, "%d", status)
    if status >= 500:
        colour = 31
    elif status >= 400 and status != 499:
        colour = 33
    elif 300 <= status < 400:
        colour = 36
    elif status < 300:
        colour = 32
    return at + snprintf(at, FIXED_MOST, "\33[%dm%d\33[0m", colour, status)


cdef char* put_short_time(char* at, uint64_t time_ns) noexcept nogil:
    if time_ns < <uint64_t>SECOND_NS:
        return at + snprintf(at, FIXED_MOST, "%.1fms", time_ns / 1e6)
    return at + snprintf(at, FIXED_MOST, "%.2fs", time_ns / 1e9)


cdef char* put_short_size(char* at, uint64_t size) noexcept nogil:
    if size < 1000:
        return at + snprintf(at, FIXED_MOST, "%dB", <int>size)
    if size < 1000000:
        return at + snprintf(at, FIXED_MOST, "%.1fkB", size / 1e3)
    return at + snprintf(at, FIXED_MOST, "%.1fMB", size / 1e6)


cdef char* put_environ_value(
    char* at, const char* end, const record_t* record, size_t* used, bint is_json
) noexcept nogil:
    """The next of the values that accesslog_values() gathered; they are in the order of their atoms."""
    cdef uint32_t length
    if record.values == NULL or record.values_size - used[0] < sizeof(length):
        return put_nothing(at, is_json)
    memcpy(&length, record.values + used[0], sizeof(length))
    used[0] += sizeof(length)
    if length == <uint32_t>NO_VALUE:
        return put_nothing(at, is_json)
    at = put_value(at, end, record.values + used[0], length, is_json)
    used[0] += length
    return at


cdef ssize_t accesslog_line(
    const log_format_t* format, const record_t* record, stamp_t* stamp, char* out, size_t capacity
) noexcept nogil:
    """Write the line with its newline to out; its length, or -1 when it is longer than capacity less format.spare."""
    cdef const parser_t* parser = record.parser
    cdef const log_atom_t* atom = format.atoms
    cdef bint is_json = format.is_json
    cdef const char* end = out + capacity - format.spare
    cdef char* at = out
    cdef size_t used = 0
    cdef int kind
    if capacity < format.spare:
        return -1
    if parser == NULL or not parser.request_line.length:
        parser = &no_request
    while True:
        at = put_literal(at, atom.before, atom.before_size)
        kind = atom.kind
        # Nothing but comparisons of the kind: that makes a table of it.
        if kind == ATOM_NONE:
            return at - out if at <= end else -1
        elif kind == ATOM_PEER:
            at = put_value(at, end, record.peer, record.peer_size, is_json)
        elif kind == ATOM_USER:
            if has_field(record, parser, KNOWN_AUTHORIZATION):
                at = put_user(at, end, record, parser, is_json)
            else:
                at = put_nothing(at, is_json)
        elif kind == ATOM_TIME:
            at = put_time(at, record, stamp, is_json)
        elif kind == ATOM_STATUS:
            at = put_status(at, record.status, is_json)
        elif kind == ATOM_CONTENT_BYTES:
            at = put_number(at, record.content_bytes)
        elif kind == ATOM_CONTENT_BYTES_OR_DASH:
            if record.content_bytes > 0 or is_json:
                at = put_number(at, record.content_bytes)
            else:
                at = put_nothing(at, False)
        elif kind == ATOM_SECONDS:
            at = put_number(at, record.times_ns[atom.known] // SECOND_NS)
        elif kind == ATOM_MILLISECONDS:
            at = put_number(at, record.times_ns[atom.known] // 1000000)
        elif kind == ATOM_MICROSECONDS:
            at = put_number(at, record.times_ns[atom.known] // 1000)
        elif kind == ATOM_DECIMAL_SECONDS:
            at = put_decimal_seconds(at, record.times_ns[atom.known] // 1000)
        elif kind == ATOM_RESPONSE_FIELD:
            at = put_response_field(at, end, record, atom.name, atom.size, is_json)
        elif kind == ATOM_ENVIRON:
            at = put_environ_value(at, end, record, &used, is_json)
        elif kind == ATOM_CLOCK:
            at = put_clock(at, record)
        elif kind == ATOM_SHORT_STATUS:
            at = put_short_status(at, record.status, format.has_colours)
        elif kind == ATOM_SHORT_TIME:
            at = put_short_time(at, record.times_ns[atom.known])
        elif kind == ATOM_SHORT_SIZE:
            at = put_short_size(at, record.content_bytes)
        elif kind == ATOM_REQUEST_ID:
            at = put_request_id(at, end, record, parser, is_json)
        elif kind == ATOM_REQUEST_LINE:
            at = put_span(at, end, record, parser.request_line, is_json)
        elif kind == ATOM_METHOD:
            at = put_span(at, end, record, parser.method_name, is_json)
        elif kind == ATOM_TARGET:
            at = put_span(at, end, record, parser.target, is_json)
        elif kind == ATOM_PATH:
            at = put_span(at, end, record, parser.path, is_json)
        elif kind == ATOM_QUERY:
            if parser == &no_request:
                at = put_nothing(at, is_json)
            else:
                at = put_string(at, end, record.data + parser.query.start, parser.query.length, is_json)
        elif kind == ATOM_PROTOCOL:
            if parser == &no_request:
                at = put_nothing(at, is_json)
            else:
                at = put_quote(at, is_json)
                memcpy(at, b"HTTP/1.1" if parser.version_minor else b"HTTP/1.0", 8)
                at = put_quote(at + 8, is_json)
        elif has_field(record, parser, atom.known):
            at = put_request_field(at, end, record, parser, atom.name, atom.size, atom.known, is_json)
        else:
            at = put_nothing(at, is_json)
        if at == NULL:
            return -1
        atom += 1


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
        text = environ_text(environ, PyBytes_FromStringAndSize(atom.name, atom.size))
        length = NO_VALUE if text is None else PyBytes_GET_SIZE(text)
        if buffer_append(values, <const char*>&length, sizeof(length)) < 0 or (
            text is not None and buffer_append(values, PyBytes_AS_STRING(text), length) < 0
        ):
            raise MemoryError
    return 0


cdef bytes environ_text(dict environ, bytes name):
    """The value of a variable as text, or None; its name is given in lower case, and may be in upper."""
    cdef str key = name.decode()
    # Python's own get: a thread of the application may change the environ at this moment, and what Cython makes of
    # `environ.get` holds the value too late for a Python without a GIL.
    get = (<object>environ).get
    value = get(key)
    if value is None:
        value = get(key.upper())
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


cdef list read_format(str format):
    """The pieces of a format, as (key in JSON, kind, known, text); ValueError if one is wrong."""
    cdef list pieces = []
    cdef Py_ssize_t end = 0
    for piece in PIECES.finditer(format):
        if piece.start() != end:
            break
        end = piece.end()
        name, atom = piece["name"], piece["atom"]
        if atom is None:
            literal = piece["literal"].encode("utf-8", "surrogateescape") if piece["literal"] else b"%"
            pieces.append(("", ATOM_NONE, KNOWN_NONE, literal))
            continue
        if piece["conversion"] == "d" and (name in NAMED_ATOMS or atom not in NUMBERS):
            raise ValueError(f"access log format: {piece.group()} is not a number; it is written with an s")
        pieces.append(read_atom(name, atom, piece.group()))
    if end != len(format):
        wrong = format[end : end + 12]
        raise ValueError(
            f"access log format: {wrong!r} begins no atom such as %(h)s; a percent sign is written %%"
        )
    return pieces


cdef tuple read_atom(object name, str atom, str written):
    cdef bytes text
    if atom in TIME_ATOMS and (name is None or name in TIMES):
        kind, unit = TIME_ATOMS[atom]
        name = name or "duration"
        return name + unit, kind, TIMES[name], b""
    if name is not None and atom in NAMED_ATOMS:
        kind, start = NAMED_ATOMS[atom]
        text = name.lower().encode()
        key = start + re.sub("[^a-z0-9]", "_", name.lower())
        return key, kind, known_find(text, len(text)) if kind == ATOM_REQUEST_FIELD else KNOWN_NONE, text
    if name is None and atom in FIELD_ATOMS:
        text, key = FIELD_ATOMS[atom]
        return key, ATOM_REQUEST_FIELD, known_find(text, len(text)), text
    if name is None and atom in ATOMS:
        kind, key = ATOMS[atom]
        return key, kind, KNOWN_NONE, b""
    if name is None and atom == "p":
        return "pid", ATOM_NONE, KNOWN_NONE, f"<{os.getpid()}>".encode()
    if name is None and atom == "l":
        # What identd would say (RFC 1413); nobody asks any more.
        return "", ATOM_NONE, KNOWN_NONE, b"-"
    raise ValueError(f"access log format: unknown atom {written}")


cdef list json_pieces(list pieces):
    """The same as a JSON object: each atom once, with its key before it, and no literals but what is JSON's."""
    cdef list keyed = []
    cdef set keys = {"level", "logger", "pid"}
    fixed = {"level": "info", "logger": "fastwsgi.access", "pid": os.getpid()}
    before = json.dumps(fixed, separators=(",", ":")).encode().removesuffix(b"}")
    for piece in pieces:
        key = piece[0]
        if key and key not in keys:
            keys.add(key)
            keyed.append(("", ATOM_NONE, KNOWN_NONE, before + f',"{key}":'.encode()))
            keyed.append(piece)
            before = b""
    return [*keyed, ("", ATOM_NONE, KNOWN_NONE, before + b"}")]


cdef list with_literals(list pieces):
    """The atoms among them, each with the literal before it as one text; the last one is none."""
    cdef list atoms = []
    cdef bytes literal = b""
    for _, kind, known, text in pieces:
        if kind == ATOM_NONE:
            literal += text
        else:
            atoms.append((literal, kind, known, text))
            literal = b""
    return [*atoms, (literal, ATOM_NONE, KNOWN_NONE, b"")]


@cython.final
cdef class LogFormat:
    """An access log format, compiled; ValueError, one line, if there is something wrong with it.

    format: "short" is one of ours. has_colours: that has, for a terminal.
    is_json: lines are JSON objects with a key for each atom; the default format stands for more keys than atoms then.
    prefix: what each line begins with, as it is. Made in the process that writes the lines, as they have its number.
    """

    def __cinit__(self, str format not None=DEFAULT_FORMAT, *, bint is_json=False, bytes prefix not None=b"",
                  bint has_colours=False):
        cdef list pieces
        if is_json and format in (DEFAULT_FORMAT, SHORT):
            pieces = read_format(JSON_FORMAT)
        else:
            pieces = SHORT_PIECES if format == SHORT else read_format(format)
        cdef bytes text
        cdef log_atom_t* atom
        cdef char* at
        if is_json:
            pieces = json_pieces(pieces)
        pieces = with_literals([("", ATOM_NONE, KNOWN_NONE, prefix), *pieces, ("", ATOM_NONE, KNOWN_NONE, b"\n")])
        text = b"".join([before + name for before, _, _, name in pieces]) + bytes(CHUNK)
        self.format.is_json = is_json
        self.format.has_colours = has_colours
        self.format.atoms = <log_atom_t*>malloc(len(pieces) * sizeof(log_atom_t))
        self.format.text = <char*>malloc(len(text))
        if self.format.atoms == NULL or self.format.text == NULL:
            raise MemoryError
        memcpy(self.format.text, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        at = self.format.text
        for before, kind, known, name in pieces:
            atom = &self.format.atoms[self.format.count]
            atom.kind = kind
            atom.known = known
            atom.before = at
            atom.before_size = len(before)
            atom.name = at + atom.before_size
            atom.size = len(name)
            at += atom.before_size + atom.size
            self.format.count += 1
            self.format.spare += max(atom.before_size, <size_t>CHUNK) + FIXED_MOST
            if kind == ATOM_ENVIRON:
                self.format.needs_environ = True
            elif kind in (ATOM_SECONDS, ATOM_MILLISECONDS, ATOM_MICROSECONDS, ATOM_DECIMAL_SECONDS, ATOM_SHORT_TIME):
                self.format.needs_times = True

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
        dict times_ns not None={},
        int64_t wall_ns=0,
        bytes request_id not None=b"",
        bytes head not None=b"",
        dict environ=None,
        size_t capacity=65536,
    ):
        """The line for an exchange, to be driven by tests; None if it does not fit into capacity.

        times_ns: the other times, by their names.
        """
        cdef record_t record
        cdef stamp_t stamp
        cdef limits_t limits
        cdef parser_t parser
        cdef buffer_t values
        cdef size_t room = capacity + self.format.spare
        cdef bytes line = PyBytes_FromStringAndSize(NULL, room)
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
            record.times_ns[<int>LOGGED_WHOLE] = duration_ns
            for name, time_ns in times_ns.items():
                record.times_ns[<int>TIMES[name]] = time_ns
            record.wall_ns = wall_ns
            record.id = PyBytes_AS_STRING(request_id)
            record.id_size = PyBytes_GET_SIZE(request_id)
            with nogil:
                size = accesslog_line(&self.format, &record, &stamp, out, room)
            return None if size < 0 else line[:size]
        finally:
            parser_free(&parser)
            buffer_free(&values)
