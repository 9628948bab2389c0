"""Bytes in, request head out, and how its content is framed.

Knows no socket, no clock and, below the Python face at the end, no Python object. Strict by RFC 9112: what
could be understood in two ways is refused. Where the standard leaves a choice:

- A line is judged when its LF has come, so the outcome cannot depend on how the bytes were cut. A line over
  its limit is refused for that, whatever else is wrong with it.
- A path may have what RFC 3986 allows and also [ ] ^ ` { | } and octets of 0x80 and above, which browsers and
  common libraries leave raw; its percent-encoding must be right. A query is the application's own: every
  visible octet but #, and those of 0x80 and above.
- A host is a reg-name without comma (a list of two hosts), or an IPv6 address in brackets (no IPvFuture, no
  zone).
"""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from fastwsgi._octets cimport IN_HEX, IN_HOST, IN_TOKEN, IN_VALUE, IS_UNDERSCORE, is_blank, is_digit, octet_kinds
from fastwsgi._refusals cimport *


cdef extern from *:
    const int BYTE_ORDER_HERE "__BYTE_ORDER__"
    const int BYTE_ORDER_BIG "__ORDER_BIG_ENDIAN__"
    uint64_t byte_swap "__builtin_bswap64" (uint64_t word) noexcept nogil
    int count_trailing_zeros "__builtin_ctzll" (uint64_t word) noexcept nogil


# What remains to be read of a head.
cdef enum:
    STATE_REQUEST_LINE
    STATE_FIELDS
    STATE_DONE

# Where the scan of a path or a query has to look closer; 0 is an octet to go on over.
cdef enum:
    STOP_PERCENT = 1
    STOP_HIGH           # 0x80 and above
    STOP_QUERY
    STOP_END

cdef enum:
    EMPTY_LINES_MAX = 8
    METHOD_MAX = 32
    KNOWN_LONGEST = 30
    KNOWN_END = 64
    KNOWN_SLOTS = 256
    PORT_DIGITS_MAX = 5
    TLS_HANDSHAKE = 0x16        # RFC 8446, 5.1: the first octet of a ClientHello's record

cdef uint8_t path_stops[256]
cdef uint8_t query_stops[256]
cdef known_name_t known_names[KNOWN_END]
cdef uint8_t known_slots[KNOWN_SLOTS]
cdef uint64_t known_bits[KNOWN_END]     # 0 for KNOWN_NONE
cdef const char* method_names[METHOD_PATCH + 1]


# --- words of eight octets ----------------------------------------------------------------------------------

cdef inline uint64_t word_load(const uint8_t* at) noexcept nogil:
    """The eight octets from `at` on, the first in the lowest place."""
    cdef uint64_t word
    memcpy(&word, at, 8)
    if BYTE_ORDER_HERE == BYTE_ORDER_BIG:
        word = byte_swap(word)
    return word


cdef inline uint64_t word_load_within(const uint8_t* at, const uint8_t* last) noexcept nogil:
    """The same, but beyond `last`, the last whole word there is, with zeros for what is missing."""
    if at <= last:
        return word_load(at)
    return word_load(last) >> <int>(8 * (at - last))


cdef inline uint64_t word_find_colon(uint64_t word) noexcept nogil:
    """Non-zero if there is a colon; then the lowest bit set is bit 7 of the first."""
    word ^= 0x3a3a3a3a3a3a3a3aULL
    return (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL


cdef inline uint64_t word_find_special(uint64_t word) noexcept nogil:
    """Non-zero if an octet is below 0x20 or above 0x7e; then the lowest bit set is bit 7 of the first."""
    return ((word + 0x0101010101010101ULL) | (word - 0x2020202020202020ULL) | word) & 0x8080808080808080ULL


cdef inline bint word_match(const uint8_t* text, const uint8_t* word, size_t length) noexcept nogil:
    """Is text[0:length] the word, in any case? The word has lower-case letters, digits and hyphens only.

    Goes backwards in whole words of eight octets, so eight octets before `text` and before `word` must be
    readable.
    """
    cdef uint64_t theirs, ours, letters
    cdef int shift
    while True:
        theirs = word_load(text + length - 8)
        ours = word_load(word + length - 8)
        if length < 8:
            shift = <int>(64 - 8 * length)
            theirs >>= shift
            ours >>= shift
        # The letters of the word, and only they, have 0x40 set: only for them upper case is the same.
        letters = (ours & 0x4040404040404040ULL) >> 1
        if (theirs | letters) != ours:
            return False
        if length <= 8:
            return True
        length -= 8


# --- known names --------------------------------------------------------------------------------------------

cdef inline int known_slot(uint64_t tail, size_t length) noexcept nogil:
    """Slot of a name by its length and its last four octets, the high half of `tail`.

    The factor was found by trial: it puts every known name into a slot of its own.
    """
    cdef uint32_t letters = <uint32_t>(tail >> 32) | <uint32_t>0x20202020
    return <int>(<uint32_t>((letters + <uint32_t>length) * <uint32_t>0x74619523) >> 24)


cdef inline int known_match(const uint8_t* name, size_t length) noexcept nogil:
    """The known name at `name`, or KNOWN_NONE.

    Reads the eight octets before the name, the last two of which must be CRLF: they are part of the slot of a
    name of two or three letters. length is 2 at least.
    """
    cdef int known = known_slots[known_slot(word_load(name + length - 8), length)]
    cdef const known_name_t* entry = &known_names[known]
    if entry.length != length or not word_match(name, <const uint8_t*>entry + sizeof(entry.padding), length):
        return KNOWN_NONE
    return known


cdef const known_name_t* known_name(int known) noexcept nogil:
    if known < 0 or known >= KNOWN_END:
        return NULL
    return &known_names[known]


cdef int known_find(const char* name, size_t length) noexcept nogil:
    cdef uint8_t line[8 + KNOWN_LONGEST]
    if length < 2 or length > KNOWN_LONGEST:
        return KNOWN_NONE
    memcpy(line, b"      \r\n", 8)
    memcpy(line + 8, name, length)
    return known_match(line + 8, length)


# --- authority ----------------------------------------------------------------------------------------------

cdef inline bint is_percent_encoded(const uint8_t* at) noexcept nogil:
    """at[0] is "%"; at[2] is looked at only if at[1] is a hexadecimal digit."""
    return octet_kinds[at[1]] & IN_HEX != 0 and octet_kinds[at[2]] & IN_HEX != 0


cdef bint is_ipv4(const uint8_t* at, const uint8_t* end) noexcept nogil:
    cdef int group, value
    cdef const uint8_t* start
    for group in range(4):
        if group > 0:
            if at == end or at[0] != c'.':
                return False
            at += 1
        start = at
        value = 0
        while at < end and is_digit(at[0]) and at - start < 3:
            value = value * 10 + at[0] - c'0'
            at += 1
        if at == start or value > 255 or (start[0] == c'0' and at - start > 1):
            return False
    return at == end


cdef bint is_ipv6(const uint8_t* at, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* start
    cdef int groups = 0
    cdef bint has_gap = False
    if end - at >= 2 and at[0] == c':' and at[1] == c':':
        has_gap = True
        at += 2
    elif at == end:
        return False
    while at < end:
        start = at
        while at < end and octet_kinds[at[0]] & IN_HEX != 0:
            at += 1
        if at < end and at[0] == c'.':
            groups += 2
            at = end if is_ipv4(start, end) else start
            if at == start:
                return False
            break
        if at == start or at - start > 4 or groups == 8:
            return False
        groups += 1
        if at == end:
            break
        if at[0] != c':':
            return False
        at += 1
        if at == end:
            return False
        if at[0] == c':':
            if has_gap:
                return False
            has_gap = True
            at += 1
    return groups < 8 if has_gap else groups == 8


cdef bint is_authority(const uint8_t* text, size_t length, bint may_be_empty, bint needs_port) noexcept nogil:
    """Is this a host with an optional port, and nothing else (RFC 9110, 4.2 and 7.2)?

    text[length] must be readable and be no part of a host, so that the scans end there.
    """
    cdef const uint8_t* at = text
    cdef const uint8_t* end = text + length
    cdef const uint8_t* port_start
    cdef uint32_t port = 0
    if length == 0:
        return may_be_empty
    if text[0] == c'[':
        at = <const uint8_t*>memchr(text, c']', length)
        if at == NULL or not is_ipv6(text + 1, at):
            return False
        at += 1
    else:
        while True:
            while octet_kinds[at[0]] & IN_HOST != 0:
                at += 1
            if at[0] != c'%' or not is_percent_encoded(at):
                break
            at += 3
        if at == text:
            return False
    if at == end:
        return not needs_port
    if at[0] != c':':
        return False
    at += 1
    port_start = at
    while is_digit(at[0]):
        port = port * 10 + at[0] - c'0'
        at += 1
    if at != end or at - port_start > PORT_DIGITS_MAX or port > 65535:
        return False
    return not needs_port or at > port_start


# --- limits -------------------------------------------------------------------------------------------------

cdef void limits_default(limits_t* limits) noexcept nogil:
    limits.request_line = 8190
    limits.fields = 100
    limits.field_size = 16384
    limits.head_size = 65536
    limits.chunk_line = 4096
    limits.trailer_size = 16384
    limits.chunk_overhead = 16384
    limits.content = UINT64_MAX


cdef int line_overrun(const parser_t* parser, size_t stop, size_t limit, int reason) noexcept nogil:
    """-reason, or that of the head, if a line that goes on to `stop` at least is over its limit; else 0."""
    cdef size_t line_stop = parser.position + limit + 2
    cdef size_t head_stop = parser.limits.head_size
    if stop <= line_stop and stop <= head_stop:
        return 0
    return -reason if line_stop <= head_stop else -REFUSAL_HEAD_TOO_LARGE


cdef int line_refused(const parser_t* parser, const uint8_t* base, size_t size,
                      size_t limit, int limit_reason, int reason) noexcept nogil:
    """-reason for the line at parser.position, unless the line is over its limit, which comes first."""
    cdef const uint8_t* lf = <const uint8_t*>memchr(base + parser.position, c'\n', size - parser.position)
    cdef int overrun = line_overrun(parser, <size_t>(lf - base) + 1, limit, limit_reason)
    return overrun if overrun != 0 else -reason


cdef inline int line_end_fault(const uint8_t* at, int reason) noexcept nogil:
    """Why an octet that ends a scan is wrong: a lone CR or LF by its own name, anything else by `reason`."""
    if at[0] == c'\n':
        return REFUSAL_BARE_LF
    if at[0] == c'\r' and at[1] != c'\n':
        return REFUSAL_BARE_CR
    return reason


# --- request line -------------------------------------------------------------------------------------------
#
# Every function from here to parser_feed works on a line whose LF is there: a scan that stops at LF needs no
# other bound, and two octets may be looked at when the first is not LF.

cdef int method_find(const uint8_t* name, size_t length) noexcept nogil:
    cdef int method
    for method in range(METHOD_GET, METHOD_PATCH + 1):
        if strlen(method_names[method]) == length and memcmp(method_names[method], name, length) == 0:
            return method
    return METHOD_OTHER


cdef inline bint is_scheme(const uint8_t* at, size_t length, const char* scheme,
                           size_t scheme_length) noexcept nogil:
    """Does at[0:length] begin with `scheme`, in any case, and "://"?"""
    cdef size_t i
    if length < scheme_length + 3 or memcmp(at + scheme_length, b"://", 3) != 0:
        return False
    for i in range(scheme_length):
        if at[i] | 0x20 != scheme[i]:
            return False
    return True


cdef inline const uint8_t* path_scan(parser_t* parser, const uint8_t* at) noexcept nogil:
    """Where the path ends, which is the fault if it ends neither there nor at "?"."""
    cdef uint8_t stop
    while True:
        while path_stops[at[0]] == 0:
            at += 1
        stop = path_stops[at[0]]
        if stop == STOP_PERCENT:
            if not is_percent_encoded(at):
                return at
            parser.path_needs_decoding = 1
            at += 3
        elif stop == STOP_HIGH:
            parser.path_is_ascii = 0
            at += 1
        else:
            return at


cdef inline const uint8_t* query_scan(parser_t* parser, const uint8_t* at) noexcept nogil:
    while True:
        while query_stops[at[0]] == 0:
            at += 1
        if query_stops[at[0]] != STOP_HIGH:
            return at
        parser.query_is_ascii = 0
        at += 1


cdef inline int target_fault(const uint8_t* at) noexcept nogil:
    """Why a target ends where no space is."""
    if at[0] == c'#':
        return REFUSAL_TARGET_FRAGMENT
    if at[0] == c'%':
        return REFUSAL_BAD_PERCENT
    if at[0] == c'\r':
        return line_end_fault(at, REFUSAL_BAD_REQUEST_LINE)
    return line_end_fault(at, REFUSAL_BAD_TARGET)


cdef inline const uint8_t* path_and_query(parser_t* parser, const uint8_t* base,
                                          const uint8_t* at) noexcept nogil:
    """Store path and query that begin at `at`; return where they end."""
    cdef const uint8_t* start = at
    at = path_scan(parser, at)
    parser.path.start = <uint32_t>(start - base)
    parser.path.length = <uint32_t>(at - start)
    if at[0] == c'?':
        start = at + 1
        at = query_scan(parser, start)
        parser.has_query = 1
        parser.query.start = <uint32_t>(start - base)
        parser.query.length = <uint32_t>(at - start)
    return at


cdef int target_other(parser_t* parser, const uint8_t* base, const uint8_t* start,
                      const uint8_t** stop) noexcept nogil:
    """The forms that do not begin with a slash; 0 or a reason. RFC 9112, 3.2.2 to 3.2.4."""
    cdef const uint8_t* end = start
    cdef const uint8_t* at
    cdef size_t length, scheme_length
    while query_stops[end[0]] == 0 or query_stops[end[0]] == STOP_HIGH:
        end += 1
    stop[0] = end
    if end[0] != c' ':
        return target_fault(end)
    length = <size_t>(end - start)
    if length == 0:
        return REFUSAL_BAD_REQUEST_LINE
    parser.path.start = <uint32_t>(start - base)
    if length == 1 and start[0] == c'*':
        parser.target_form = TARGET_ASTERISK
        parser.path.length = 1
        return 0
    if parser.method == METHOD_CONNECT:
        parser.target_form = TARGET_AUTHORITY
        parser.authority.start = <uint32_t>(start - base)
        parser.authority.length = <uint32_t>length
        if memchr(start, c'@', length) != NULL:
            return REFUSAL_USERINFO
        return 0 if is_authority(start, length, False, True) else REFUSAL_BAD_AUTHORITY
    if is_scheme(start, length, b"http", 4):
        scheme_length = 4
    elif is_scheme(start, length, b"https", 5):
        scheme_length = 5
        parser.target_is_https = 1
    else:
        at = <const uint8_t*>memchr(start, c':', length)
        if at != NULL and end - at >= 3 and at[1] == c'/' and at[2] == c'/':
            return REFUSAL_BAD_SCHEME
        return REFUSAL_TARGET_FORM
    parser.target_form = TARGET_ABSOLUTE
    start += scheme_length + 3
    at = start
    while at < end and at[0] != c'/' and at[0] != c'?':
        at += 1
    parser.authority.start = <uint32_t>(start - base)
    parser.authority.length = <uint32_t>(at - start)
    if memchr(start, c'@', parser.authority.length) != NULL:
        return REFUSAL_USERINFO
    if not is_authority(start, parser.authority.length, False, False):
        return REFUSAL_BAD_AUTHORITY
    end = path_and_query(parser, base, at)
    if parser.path.length == 0:
        # RFC 9110, 4.2.3: an empty path means "/", and there is one in "://" for the span to show.
        parser.path.start = <uint32_t>(start - base) - 1
        parser.path.length = 1
    stop[0] = end
    return 0 if end[0] == c' ' else target_fault(end)


cdef int version_other(parser_t* parser, const uint8_t* at, const uint8_t** stop) noexcept nogil:
    """The versions that are not HTTP/1.1, and the faulty ones; 0 or a reason."""
    cdef const uint8_t* start = at
    cdef const char* protocol = b"HTTP/"
    cdef int i
    for i in range(5):
        if at[0] != protocol[i]:
            if i == 0 and at[0] == c' ':
                return REFUSAL_BAD_REQUEST_LINE
            return line_end_fault(at, REFUSAL_BAD_VERSION)
        at += 1
    for i in range(3):
        if not (at[0] == c'.' if i == 1 else is_digit(at[0])):
            return line_end_fault(at, REFUSAL_BAD_VERSION)
        at += 1
    stop[0] = at
    if at[0] != c'\r' or at[1] != c'\n':
        return line_end_fault(at, REFUSAL_BAD_VERSION)
    if start[5] != c'1':
        return REFUSAL_VERSION_NOT_SUPPORTED
    parser.version_minor = 0 if start[7] == c'0' else 1
    return 0


cdef int request_line_parse(parser_t* parser, const uint8_t* base, size_t size) noexcept nogil:
    """Parse the line at parser.position; 0, then position is behind it, or a reason."""
    cdef const uint8_t* start = base + parser.position
    cdef const uint8_t* end = base + size
    cdef const uint8_t* at = start
    cdef const uint8_t* target
    cdef uint64_t word
    cdef int reason
    # The shortest request line has more than eight octets, so nothing right is missed here.
    word = word_load(at) if end - at >= 8 else 0
    if word & 0xffffffffULL == 0x20544547ULL:
        parser.method = METHOD_GET
        at += 3
    elif word & 0xffffffffffULL == 0x2054534f50ULL:
        parser.method = METHOD_POST
        at += 4
    else:
        while octet_kinds[at[0]] & IN_TOKEN != 0:
            at += 1
        if at[0] == c'\r':
            return line_end_fault(at, REFUSAL_BAD_REQUEST_LINE)
        if at[0] != c' ' or at == start:
            return line_end_fault(at, REFUSAL_BAD_METHOD)
        if at - start > METHOD_MAX:
            return REFUSAL_METHOD_TOO_LONG
        parser.method = <uint8_t>method_find(start, <size_t>(at - start))
    parser.method_name.start = parser.position
    parser.method_name.length = <uint32_t>(at - start)
    at += 1
    target = at
    parser.target_form = TARGET_ORIGIN
    parser.path_is_ascii = 1
    parser.query_is_ascii = 1
    if at[0] == c'/':
        at = path_and_query(parser, base, at)
        if at[0] != c' ':
            return target_fault(at)
    else:
        reason = target_other(parser, base, at, &at)
        if reason != 0:
            return reason
    parser.target.start = <uint32_t>(target - base)
    parser.target.length = <uint32_t>(at - target)
    at += 1
    if end - at >= 10 and word_load(at) == 0x312e312f50545448ULL and at[8] == c'\r' and at[9] == c'\n':
        parser.version_minor = 1
        at += 8
    else:
        reason = version_other(parser, at, &at)
        if reason == REFUSAL_VERSION_NOT_SUPPORTED:
            # RFC 9113, 3.4.
            if at - start == 14 and memcmp(start, b"PRI * HTTP/2.0", 14) == 0:
                return REFUSAL_HTTP2_PREFACE
        if reason != 0:
            return reason
    if (parser.method == METHOD_CONNECT) != (parser.target_form == TARGET_AUTHORITY):
        return REFUSAL_TARGET_FORM
    if parser.target_form == TARGET_ASTERISK and parser.method != METHOD_OPTIONS:
        return REFUSAL_TARGET_FORM
    parser.request_line.start = parser.position
    parser.request_line.length = <uint32_t>(at - start)
    parser.position = <uint32_t>(at - base) + 2
    return 0


cdef int request_line_feed(parser_t* parser, const uint8_t* base, size_t size) noexcept nogil:
    """Skip empty lines, then parse the request line; NEED_MORE, HEAD_DONE when it is done, or -reason."""
    cdef const uint8_t* start
    cdef const uint8_t* lf
    cdef size_t limit = parser.limits.request_line
    cdef size_t stop
    cdef int reason
    while True:
        start = base + parser.position
        if parser.position < size and start[0] == TLS_HANDSHAKE:
            return -REFUSAL_TLS_ON_PLAIN_PORT
        if base[size - 1] != c'\n' or parser.position == size:
            lf = <const uint8_t*>memchr(base + parser.scanned, c'\n', size - parser.scanned)
            if lf == NULL:
                parser.scanned = <uint32_t>size
                return line_overrun(parser, size + 1, limit, REFUSAL_REQUEST_LINE_TOO_LONG)
        if start[0] == c'\r' and start[1] == c'\n':
            # RFC 9112, 2.2: at least one empty line is to be ignored, some clients send one after a form.
            parser.empty_lines += 1
            stop = parser.position + 2
            reason = REFUSAL_EMPTY_LINES if parser.empty_lines > EMPTY_LINES_MAX else 0
            if reason == 0 and stop <= parser.limits.head_size:
                parser.position += 2
                parser.scanned = parser.position
                continue
        else:
            stop = parser.position
            reason = request_line_parse(parser, base, size)
            if reason == 0:
                if parser.request_line.length <= limit and parser.position <= parser.limits.head_size:
                    parser.scanned = parser.position
                    return HEAD_DONE
                parser.position = <uint32_t>stop
        return line_refused(parser, base, size, limit, REFUSAL_REQUEST_LINE_TOO_LONG, reason)


# --- field section ------------------------------------------------------------------------------------------

cdef inline uint32_t fields_room(const parser_t* parser) noexcept nogil:
    """How many fields there may be before fields_grow."""
    return parser.field_capacity if parser.field_capacity < parser.limits.fields else parser.limits.fields


cdef int fields_grow(parser_t* parser) noexcept nogil:
    """Room for one more field; 0 or a reason."""
    cdef field_t* fields
    cdef uint32_t capacity = parser.field_capacity * 2 if parser.field_capacity else 16
    if parser.field_count >= parser.limits.fields:
        return REFUSAL_TOO_MANY_FIELDS
    if capacity > parser.limits.fields:
        capacity = parser.limits.fields
    fields = <field_t*>realloc(parser.fields, capacity * sizeof(field_t))
    if fields == NULL:
        return REFUSAL_NO_MEMORY
    parser.fields = fields
    parser.field_capacity = capacity
    return 0


cdef int name_fault(const uint8_t* start) noexcept nogil:
    """What is wrong with a line that does not begin with a token and a colon."""
    cdef const uint8_t* at = start
    while octet_kinds[at[0]] & IN_TOKEN != 0:
        at += 1
    if at[0] == c':':
        return REFUSAL_EMPTY_FIELD_NAME
    if at[0] == c' ' or at[0] == c'\t':
        if at == start:
            return REFUSAL_OBS_FOLD
        while at[0] == c' ' or at[0] == c'\t':
            at += 1
        return REFUSAL_SPACE_BEFORE_COLON if at[0] == c':' else REFUSAL_BAD_FIELD_NAME
    return line_end_fault(at, REFUSAL_NO_COLON if at[0] == c'\r' else REFUSAL_BAD_FIELD_NAME)


cdef inline bint is_word(const uint8_t* text, size_t length, const char* padded,
                         size_t word_length) noexcept nogil:
    """Is text[0:length], inside a field line, the word that stands in `padded` behind eight octets?"""
    return length == word_length and word_match(text, <const uint8_t*>padded + 8, length)


cdef const uint8_t* list_next(const uint8_t** at, const uint8_t* end, size_t* length) noexcept nogil:
    """The next element of a comma-separated list, without the white space around it; NULL at the end."""
    cdef const uint8_t* start = at[0]
    cdef const uint8_t* stop
    if start > end:
        return NULL
    stop = <const uint8_t*>memchr(start, c',', <size_t>(end - start))
    if stop == NULL:
        stop = end
    # One past the end: the last element has been given. A comma at the very end leaves an empty one.
    at[0] = stop + 1
    while start < stop and is_blank(start[0]):
        start += 1
    while stop > start and is_blank((stop - 1)[0]):
        stop -= 1
    length[0] = <size_t>(stop - start)
    return start


cdef int host_note(parser_t* parser, const uint8_t* value, size_t length) noexcept nogil:
    # RFC 9112, 3.2.
    if parser.host_field >= 0:
        return REFUSAL_TWO_HOSTS
    if not is_authority(value, length, True, False):
        return REFUSAL_BAD_HOST
    parser.host_field = <int16_t>parser.field_count
    return 0


cdef void connection_note(parser_t* parser, const uint8_t* value, size_t length) noexcept nogil:
    # An option that is not understood, or not even a token, says nothing about the framing: passed over.
    cdef const uint8_t* at = value
    cdef const uint8_t* option
    cdef size_t option_length
    if is_word(value, length, b"        keep-alive", 10):
        parser.connection_keep_alive = 1
        return
    while True:
        option = list_next(&at, value + length, &option_length)
        if option == NULL:
            return
        if is_word(option, option_length, b"        close", 5):
            parser.connection_close = 1
        elif is_word(option, option_length, b"        keep-alive", 10):
            parser.connection_keep_alive = 1


cdef int content_length_note(parser_t* parser, const uint8_t* value, size_t length) noexcept nogil:
    # RFC 9112, 6.3 lets a recipient take a list of equal lengths for one. A sender of such a list has lost
    # count somewhere, and the next server may not agree with us.
    cdef uint64_t total = 0
    cdef bint is_overflow = False
    cdef bint is_list = False
    cdef bint has_digit = False
    cdef size_t i
    cdef uint64_t digit
    if parser.is_chunked:
        return REFUSAL_TWO_FRAMINGS
    for i in range(length):
        if is_digit(value[i]):
            has_digit = True
            digit = value[i] - c'0'
            if total > (0x7fffffffffffffffULL - digit) // 10:
                is_overflow = True
            else:
                total = total * 10 + digit
        elif value[i] == c',' or (is_list and is_blank(value[i])):
            is_list = True
        else:
            return REFUSAL_BAD_CONTENT_LENGTH
    if not has_digit:
        return REFUSAL_BAD_CONTENT_LENGTH
    if parser.has_content_length or is_list:
        return REFUSAL_TWO_CONTENT_LENGTHS
    if is_overflow:
        return REFUSAL_CONTENT_LENGTH_OVERFLOW
    parser.has_content_length = 1
    parser.content_length = total
    return 0


cdef int transfer_encoding_note(parser_t* parser, const uint8_t* value, size_t length) noexcept nogil:
    # RFC 9112, 6.1 and 6.3. Two framings in one message is how requests are smuggled, and no honest client
    # sends both.
    cdef const uint8_t* at = value
    cdef const uint8_t* coding
    cdef size_t coding_length, i
    cdef bint is_unknown = False
    if parser.has_content_length:
        return REFUSAL_TWO_FRAMINGS
    if parser.version_minor == 0:
        return REFUSAL_TRANSFER_ENCODING_IN_HTTP10
    while True:
        coding = list_next(&at, value + length, &coding_length)
        if coding == NULL:
            return REFUSAL_UNKNOWN_CODING if is_unknown else 0
        if coding_length == 0:
            return REFUSAL_BAD_TRANSFER_ENCODING
        for i in range(coding_length):
            if octet_kinds[coding[i]] & IN_TOKEN == 0:
                return REFUSAL_BAD_TRANSFER_ENCODING
        if is_word(coding, coding_length, b"        chunked", 7):
            if parser.is_chunked:
                return REFUSAL_CHUNKED_TWICE
            parser.is_chunked = 1
        elif parser.is_chunked:
            return REFUSAL_CHUNKED_NOT_LAST
        else:
            is_unknown = True


cdef int expect_note(parser_t* parser, const uint8_t* value, size_t length) noexcept nogil:
    # RFC 9110, 10.1.1: from an HTTP/1.0 client the field is ignored.
    if parser.version_minor == 0:
        return 0
    if not is_word(value, length, b"        100-continue", 12):
        return REFUSAL_EXPECTATION
    parser.expectation = 1
    return 0


cdef int field_note(parser_t* parser, int known, const uint8_t* value, size_t length) noexcept nogil:
    """Act on a field line with a name below KNOWN_WATCHED_END; 0 or a reason."""
    if known == KNOWN_HOST:
        return host_note(parser, value, length)
    if known == KNOWN_CONNECTION:
        connection_note(parser, value, length)
        return 0
    if known == KNOWN_CONTENT_LENGTH:
        return content_length_note(parser, value, length)
    if known == KNOWN_TRANSFER_ENCODING:
        return transfer_encoding_note(parser, value, length)
    return expect_note(parser, value, length)


cdef int head_finish(parser_t* parser) noexcept nogil:
    """What can be said only when the head is complete; 0 or a reason."""
    if parser.version_minor == 1 and parser.host_field < 0:
        return REFUSAL_NO_HOST
    # RFC 9112, 9.3.
    parser.keep_alive = parser.version_minor == 1 or parser.connection_keep_alive
    if parser.connection_close:
        parser.keep_alive = 0
    if parser.content_length > parser.limits.content:
        return REFUSAL_CONTENT_TOO_LARGE
    parser.expects_continue = parser.expectation and (parser.is_chunked or parser.content_length > 0)
    return 0


cdef int field_refused(parser_t* parser, const uint8_t* base, size_t size, const uint8_t* start,
                       int reason) noexcept nogil:
    parser.position = <uint32_t>(start - base)
    return line_refused(parser, base, size, parser.limits.field_size, REFUSAL_FIELD_TOO_LARGE, reason)


cdef int fields_feed(parser_t* parser, const uint8_t* base, size_t size) noexcept nogil:
    """Parse the field lines from parser.position on; HEAD_DONE, NEED_MORE or -reason."""
    cdef const uint8_t* end = base + size
    cdef const uint8_t* start = base + parser.position
    cdef const uint8_t* at
    cdef const uint8_t* colon
    cdef const uint8_t* value
    cdef const uint8_t* lf
    cdef size_t line_limit = <size_t>parser.limits.field_size + 2
    cdef size_t head_limit = parser.limits.head_size
    cdef const uint8_t* last_word = end - 8         # what came before has more than eight octets
    # All that is there is less than one line may have: nothing to be checked line by line.
    cdef bint is_within_limits = size <= line_limit and size <= head_limit
    cdef bint ends_with_lf = (end - 1)[0] == c'\n'
    cdef field_t* field
    cdef uint64_t hit
    cdef size_t length
    cdef uint8_t kinds, is_ascii
    cdef int known, reason
    cdef uint32_t room = fields_room(parser)
    while True:
        if not ends_with_lf or start == end:
            at = base + parser.scanned
            if at < start:
                at = start
            lf = <const uint8_t*>memchr(at, c'\n', <size_t>(end - at))
            if lf == NULL:
                parser.position = <uint32_t>(start - base)
                parser.scanned = <uint32_t>size
                return line_overrun(parser, size + 1, parser.limits.field_size, REFUSAL_FIELD_TOO_LARGE)

        if start[0] == c'\r' and start[1] == c'\n':
            reason = head_finish(parser)
            if reason != 0 or <size_t>(start - base) + 2 > head_limit:
                return field_refused(parser, base, size, start, reason)
            parser.position = <uint32_t>(start - base) + 2
            parser.head_size = parser.position
            parser.state = STATE_DONE
            return HEAD_DONE

        # The name. A colon found beyond this line shows as a name with CR or LF in it.
        colon = start
        while True:
            hit = word_find_colon(word_load_within(colon, last_word))
            if hit != 0:
                colon += count_trailing_zeros(hit) >> 3
                break
            colon += 8
            if colon >= end:
                colon = end
                break
        length = <size_t>(colon - start)
        known = KNOWN_NONE
        kinds = 0
        if length >= 2 and length <= KNOWN_LONGEST:
            known = known_match(start, length)
        if known == KNOWN_NONE:
            at = start
            while octet_kinds[at[0]] & IN_TOKEN != 0:
                kinds |= octet_kinds[at[0]]
                at += 1
            if at != colon or length == 0:
                return field_refused(parser, base, size, start, name_fault(start))
            if kinds & IS_UNDERSCORE or (start[0] | 0x20 == c'x' and length >= 12 and word_match(
                    start, <const uint8_t*>b"        x-forwarded-" + 8, 12)):
                parser.known_seen |= 1

        # The value.
        value = colon + 1
        if value[0] == c' ':
            value += 1
        while value[0] <= c' ' and is_blank(value[0]):
            value += 1
        at = value
        is_ascii = 1
        while True:
            hit = word_find_special(word_load_within(at, last_word))
            if hit == 0:
                at += 8
                continue
            at += count_trailing_zeros(hit) >> 3
            if octet_kinds[at[0]] & IN_VALUE == 0:
                break
            is_ascii &= at[0] < 0x80
            at += 1
        if at[0] != c'\r' or at[1] != c'\n':
            return field_refused(parser, base, size, start, line_end_fault(at, REFUSAL_BAD_FIELD_VALUE))
        if not is_within_limits:
            if <size_t>(at - start) + 2 > line_limit or <size_t>(at - base) + 2 > head_limit:
                return field_refused(parser, base, size, start, REFUSAL_FIELD_TOO_LARGE)

        if parser.field_count == room:
            reason = fields_grow(parser)
            if reason != 0:
                return field_refused(parser, base, size, start, reason)
            room = fields_room(parser)
        field = &parser.fields[parser.field_count]
        field.name.start = <uint32_t>(start - base)
        field.name.length = <uint32_t>length
        start = at + 2
        while (at - 1)[0] <= c' ' and at > value:
            at -= 1
        length = <size_t>(at - value)
        field.value.start = <uint32_t>(value - base)
        field.value.length = <uint32_t>length
        field.known = <uint8_t>known
        field.is_repeated = parser.known_seen & known_bits[known] != 0
        field.is_ascii = is_ascii
        field.is_left_out = kinds & IS_UNDERSCORE != 0
        parser.known_seen |= known_bits[known]
        if known != KNOWN_NONE and known < KNOWN_WATCHED_END:
            reason = field_note(parser, known, value, length)
            if reason != 0:
                return field_refused(parser, base, size, base + field.name.start, reason)
        parser.field_count += 1


# --- parser -------------------------------------------------------------------------------------------------

cdef void parser_init(parser_t* parser, const limits_t* limits) noexcept nogil:
    parser.limits = limits
    parser.fields = NULL
    parser.field_capacity = 0
    parser_reset(parser)


cdef void parser_reset(parser_t* parser) noexcept nogil:
    """Begin anew; only the limits and the array of fields stay."""
    cdef const limits_t* limits = parser.limits
    cdef field_t* fields = parser.fields
    cdef uint32_t capacity = parser.field_capacity
    memset(parser, 0, sizeof(parser_t))
    parser.limits = limits
    parser.fields = fields
    parser.field_capacity = capacity
    parser.host_field = -1


cdef int parser_feed(parser_t* parser, const char* data, size_t size) noexcept nogil:
    """Go on over data[0:size]; return HEAD_DONE, NEED_MORE or -reason.

    Call again with the same bytes and more after them: the search for the end of a line goes on where it
    stopped, and each line is parsed once. After HEAD_DONE or a refusal only parser_reset.
    """
    cdef const uint8_t* base = <const uint8_t*>data
    cdef int result
    if size == 0:
        return NEED_MORE
    if parser.state == STATE_REQUEST_LINE:
        result = request_line_feed(parser, base, size)
        if result != HEAD_DONE:
            return result
        parser.state = STATE_FIELDS
    return fields_feed(parser, base, size)


cdef void parser_free(parser_t* parser) noexcept nogil:
    free(parser.fields)
    parser.fields = NULL
    parser.field_capacity = 0


# --- constants, set at import -------------------------------------------------------------------------------

cdef void fill_stops() noexcept:
    cdef int octet
    for octet in range(256):
        path_stops[octet] = STOP_HIGH if octet >= 0x80 else STOP_END
        query_stops[octet] = path_stops[octet]
        if octet > 0x20 and octet < 0x7f and octet != c'#':
            query_stops[octet] = 0
            if memchr(b'"<>\\', octet, 4) == NULL:
                path_stops[octet] = 0
    path_stops[<int>c'%'] = STOP_PERCENT
    path_stops[<int>c'?'] = STOP_QUERY


cdef int fill_known(list names) except -1:
    cdef bytes name
    cdef int known = 0
    cdef size_t length
    cdef uint8_t line[8 + KNOWN_LONGEST]
    for name in names:
        known += 1
        length = <size_t>len(name)
        memcpy(known_names[known].name, <const char*>name, length)
        known_names[known].length = <uint8_t>length
        memcpy(line, b"      \r\n", 8)
        memcpy(line + 8, <const char*>name, length)
        known_slots[known_slot(word_load(line + length), length)] = <uint8_t>known
        known_bits[known] = <uint64_t>1 << known
    return 0


fill_stops()

method_names[:] = [
    b"", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
]

# In the order of the KNOWN_ words, then those without one.
fill_known([
    b"host", b"connection", b"content-length", b"transfer-encoding", b"expect",
    b"content-type", b"cookie", b"te", b"trailer", b"upgrade",
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range",
    b"accept-encoding", b"authorization", b"referer", b"user-agent", b"forwarded",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-proto",
    b"x-forwarded-ssl", b"x-real-ip", b"x-request-id", b"sec-fetch-site",
    b"accept", b"accept-charset", b"accept-language",
    b"access-control-request-headers", b"access-control-request-method",
    b"cache-control", b"content-encoding", b"content-language", b"dnt", b"from", b"max-forwards", b"origin",
    b"pragma", b"priority", b"proxy-authorization", b"save-data",
    b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform",
    b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-user", b"sec-gpc",
    b"traceparent", b"tracestate", b"upgrade-insecure-requests", b"via",
    b"x-amzn-trace-id", b"x-api-key", b"x-correlation-id", b"x-csrf-token", b"x-csrftoken",
    b"x-requested-with",
])


# --- Python face --------------------------------------------------------------------------------------------

KNOWN_NAMES = tuple(known_names[i].name.decode() for i in range(KNOWN_END))


def known_index(name: bytes) -> int:
    """Index of a field name in KNOWN_NAMES, in any case; 0 if it is not there."""
    return known_find(name, <size_t>len(name))


cdef str outcome_name(int result):
    if result < 0:
        return refusal_info(-result).name.decode()
    return ("NEED_MORE", "HEAD_DONE", "CONTENT_DONE")[result]


cdef int set_limits(limits_t* limits, dict given) except -1:
    cdef dict values
    limits_default(limits)
    values = limits[0]
    unknown = set(given) - set(values)
    if unknown:
        raise TypeError(f"no such limit: {', '.join(sorted(unknown))}")
    values.update(given)
    limits[0] = values
    return 0


cdef class RequestParser:
    """One request head. Limits are given by name: RequestParser(request_line=100)."""

    cdef parser_t parser
    cdef limits_t limits
    cdef char* data
    cdef size_t size

    def __cinit__(self, **limits):
        set_limits(&self.limits, limits)
        parser_init(&self.parser, &self.limits)

    def __dealloc__(self):
        parser_free(&self.parser)
        free(self.data)

    def feed(self, data: bytes) -> str:
        """Take in more bytes; "NEED_MORE", "HEAD_DONE" or the name of the refusal."""
        cdef size_t added = <size_t>len(data)
        # Exactly as large as its contents, so that a sanitizer sees a read past the end.
        cdef char* grown = <char*>realloc(self.data, self.size + added + (self.size + added == 0))
        if grown == NULL:
            raise MemoryError
        self.data = grown
        memcpy(self.data + self.size, <const char*>data, added)
        self.size += added
        return outcome_name(parser_feed(&self.parser, self.data, self.size))

    def reset(self) -> None:
        """Begin the next request; the bytes behind the head (`rest`) are to be fed again."""
        self.size = 0
        parser_reset(&self.parser)

    cdef bytes text(self, span_t span):
        return self.data[span.start:span.start + span.length]

    @property
    def method(self) -> bytes:
        return self.text(self.parser.method_name)

    @property
    def method_id(self) -> int:
        return self.parser.method

    @property
    def request_line(self) -> bytes:
        return self.text(self.parser.request_line)

    @property
    def target(self) -> bytes:
        return self.text(self.parser.target)

    @property
    def form(self) -> str:
        return ("origin", "absolute", "authority", "asterisk")[self.parser.target_form]

    @property
    def target_is_https(self) -> bool:
        return self.parser.target_is_https != 0

    @property
    def path(self) -> bytes:
        return self.text(self.parser.path)

    @property
    def path_needs_decoding(self) -> bool:
        return self.parser.path_needs_decoding != 0

    @property
    def path_is_ascii(self) -> bool:
        return self.parser.path_is_ascii != 0

    @property
    def query(self) -> bytes | None:
        """None without a "?"."""
        return self.text(self.parser.query) if self.parser.has_query else None

    @property
    def query_is_ascii(self) -> bool:
        return self.parser.query_is_ascii != 0

    @property
    def authority(self) -> bytes:
        return self.text(self.parser.authority)

    @property
    def version(self) -> tuple[int, int]:
        return 1, self.parser.version_minor

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        cdef uint32_t i
        return [(self.text(self.parser.fields[i].name), self.text(self.parser.fields[i].value))
                for i in range(self.parser.field_count)]

    @property
    def field_notes(self) -> list[tuple[str, bool, bool, bool]]:
        """Of each field: known name or "", is_repeated, is_ascii, is_left_out."""
        cdef uint32_t i
        cdef field_t* field
        notes = []
        for i in range(self.parser.field_count):
            field = &self.parser.fields[i]
            notes.append((KNOWN_NAMES[field.known], bool(field.is_repeated), bool(field.is_ascii),
                          bool(field.is_left_out)))
        return notes

    @property
    def host(self) -> bytes | None:
        """The value of the Host field."""
        if self.parser.host_field < 0:
            return None
        return self.text(self.parser.fields[self.parser.host_field].value)

    @property
    def content_length(self) -> int | None:
        return self.parser.content_length if self.parser.has_content_length else None

    @property
    def is_chunked(self) -> bool:
        return self.parser.is_chunked != 0

    @property
    def keep_alive(self) -> bool:
        return self.parser.keep_alive != 0

    @property
    def expects_continue(self) -> bool:
        return self.parser.expects_continue != 0

    @property
    def head_size(self) -> int:
        return self.parser.head_size

    @property
    def rest(self) -> bytes:
        """The bytes behind the head."""
        return self.data[self.parser.head_size:self.size]


def bench_head(data: bytes, rounds: int) -> int:
    """Parse the same head `rounds` times, for measuring; the sum of the results."""
    cdef limits_t limits
    cdef parser_t parser
    cdef const char* octets_in = data
    cdef size_t size = <size_t>len(data)
    cdef long left = rounds
    cdef long total = 0
    limits_default(&limits)
    parser_init(&parser, &limits)
    with nogil:
        while left > 0:
            parser_reset(&parser)
            total += parser_feed(&parser, octets_in, size)
            left -= 1
        parser_free(&parser)
    return total


def sizes() -> dict[str, int]:
    """Sizes of the structs in bytes."""
    return {"parser_t": sizeof(parser_t), "field_t": sizeof(field_t)}
