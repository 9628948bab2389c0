"""Status and field lines in, response head out.

Checks what the application gives (no CR, LF, NUL or other control character can leave), leaves out hop-by-hop
fields, chooses the framing, writes the Date once a second, and writes the answer to every refused request. Knows no
socket and no Python object; time is an argument.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset, strlen

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_reserve, buffer_t
from fastwsgi._octets cimport IN_TOKEN, IN_VALUE, is_blank, octet_kinds
from fastwsgi._refusals cimport REFUSAL_QUEUE_TIMEOUT, REFUSAL_STOPPING, refusal_info, refusal_info_t

cdef enum:
    LENGTH_DIGITS = 19      # of a Content-Length that always fits uint64_t
    TAIL_ROOM = 256         # more than the lines that head_finish adds


cdef inline bint is_word(const char* name, const char* word, size_t size) noexcept nogil:
    """name[0:size] is word, whatever its case; word is in lower case and has no other octets than letters and -."""
    cdef uint64_t given, wanted
    cdef size_t i
    if size >= 8:
        # Eight octets at a time; the last eight may be compared in part for the second time.
        for i in range(0, size, 8):
            memcpy(&given, name + min(i, size - 8), 8)
            memcpy(&wanted, word + min(i, size - 8), 8)
            if (given | <uint64_t>0x2020202020202020) != wanted:
                return False
        return True
    for i in range(size):
        if (name[i] | 0x20) != word[i]:
            return False
    return True


cdef inline char* put(char* out, const char* text, size_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef char* put_number(char* out, uint64_t number) noexcept nogil:
    cdef char digits[20]
    cdef int n = 0
    while True:
        digits[n] = <char>(c"0" + number % 10)
        n += 1
        number //= 10
        if number == 0:
            break
    while n:
        n -= 1
        out[0] = digits[n]
        out += 1
    return out


cdef size_t chunk_line(char* out, uint64_t size) noexcept nogil:
    """Write the chunk-size line (RFC 9112, 7.1); at most 18 octets, returns how many."""
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef int shift = 60
    cdef size_t n = 0
    while shift and not (size >> shift):
        shift -= 4
    while shift >= 0:
        out[n] = hexadecimal[(size >> shift) & 15]
        n += 1
        shift -= 4
    out[n] = c"\r"
    out[n + 1] = c"\n"
    return n + 2


cdef int head_start(head_t* head, const char* status, size_t size) noexcept nogil:
    """Begin a head with the application's status ("404 Not Found"), dropping what was in it."""
    cdef size_t i
    cdef char* out
    head.lines.size = 0
    head.content_length = 0
    head.has_content_length = head.has_date = head.has_server = head.has_request_id = head.closes = 0
    head.is_coded = head.hands = 0
    if size < 3 or (size > 3 and status[3] != c" "):
        return RESPONSE_BAD_STATUS
    head.status = 0
    for i in range(3):
        if not c"0" <= status[i] <= c"9":
            return RESPONSE_BAD_STATUS
        head.status = head.status * 10 + status[i] - c"0"
    for i in range(3, size):
        if not octet_kinds[<uint8_t>status[i]] & IN_VALUE:
            return RESPONSE_BAD_STATUS
    if head.status < 200:
        return RESPONSE_BAD_STATUS_CODE
    if buffer_reserve(&head.lines, size + 12) < 0:
        return RESPONSE_NO_MEMORY
    out = put(head.lines.data, b"HTTP/1.1 ", 9)
    out = put(out, status, size)
    if size == 3:
        out = put(out, b" ", 1)     # RFC 9112, 4: the space is there even when the phrase is not
    out = put(out, b"\r\n", 2)
    head.lines.size = <size_t>(out - head.lines.data)
    return RESPONSE_OK


cdef int head_hint(head_t* head) noexcept nogil:
    """Begin the head of a 103 (RFC 8297), dropping what was in it."""
    head.status = 103
    head.lines.size = 0
    return buffer_append(&head.lines, b"HTTP/1.1 103 Early Hints\r\n", 26)


cdef bint has_close(const char* value, size_t size) noexcept nogil:
    """One of the connection options in the list is "close" (RFC 9110, 7.6.1)."""
    cdef size_t start = 0, end
    while start < size:
        while start < size and (is_blank(<uint8_t>value[start]) or value[start] == c","):
            start += 1
        end = start
        while end < size and octet_kinds[<uint8_t>value[end]] & IN_TOKEN:
            end += 1
        if end - start == 5 and is_word(value + start, b"close", 5):
            return True
        start = end + 1
    return False


cdef int take(head_t* head, int what, const char* value, size_t size) noexcept nogil:
    """The application leaves the answer to the server."""
    head.hands = <uint8_t>what
    head.handed.size = 0
    return RESPONSE_NO_MEMORY if buffer_append(&head.handed, value, size) < 0 else RESPONSE_TAKEN


cdef int special_field(head_t* head, const char* name, size_t name_size,
                       const char* value, size_t value_size) noexcept nogil:
    """What a field means to the server itself; RESPONSE_DROPPED when it is not sent."""
    cdef size_t i
    if name_size == 4 and is_word(name, b"date", 4):
        head.has_date = True
    elif name_size == 6 and is_word(name, b"server", 6):
        head.has_server = True
    elif name_size == 12 and is_word(name, b"x-request-id", 12):
        head.has_request_id = True
    elif head.takes & TAKES_TARGET and name_size == 16 and is_word(name, b"x-accel-redirect", 16):
        return take(head, TAKES_TARGET, value, value_size)
    elif head.takes & TAKES_PATH and name_size == 10 and is_word(name, b"x-sendfile", 10):
        return take(head, TAKES_PATH, value, value_size)
    elif name_size == 14 and is_word(name, b"content-length", 14):
        if head.has_content_length or value_size == 0 or value_size > LENGTH_DIGITS:
            return RESPONSE_BAD_LENGTH
        for i in range(value_size):
            if not c"0" <= value[i] <= c"9":
                return RESPONSE_BAD_LENGTH
            head.content_length = head.content_length * 10 + <uint64_t>(value[i] - c"0")
        head.has_content_length = True
        # RFC 9110, 8.6: not in a 103 or a 204; and a 205 has the one that says 0 (15.3.6).
        if head.status == 103 or head.status == 204 or head.status == 205:
            return RESPONSE_DROPPED
    elif name_size == 10 and is_word(name, b"connection", 10):
        head.closes |= has_close(value, value_size)
        return RESPONSE_DROPPED
    # PEP 3333, "Other HTTP Features": hop-by-hop fields are the server's.
    elif ((name_size == 17 and is_word(name, b"transfer-encoding", 17))
          or (name_size == 10 and is_word(name, b"keep-alive", 10))
          or (name_size == 7 and (is_word(name, b"upgrade", 7) or is_word(name, b"trailer", 7)))
          or (name_size == 2 and is_word(name, b"te", 2))
          or (name_size == 18 and is_word(name, b"proxy-authenticate", 18))
          or (name_size == 19 and is_word(name, b"proxy-authorization", 19))
          or (name_size == 16 and is_word(name, b"proxy-connection", 16))):
        return RESPONSE_DROPPED
    return RESPONSE_OK


cdef inline bint is_clean(const char* value, size_t size) noexcept nogil:
    """value has no control character but tabs; eight octets at a time."""
    cdef uint64_t word, controls, deletes, found = 0
    cdef size_t i = 0
    cdef uint8_t kinds = IN_VALUE
    while i + 8 <= size:
        memcpy(&word, value + i, 8)
        # The high bit of each octet below 0x20, or equal to 0x7f; those of 0x80 and above are allowed.
        controls = (word - <uint64_t>0x2020202020202020) & ~word
        deletes = word ^ <uint64_t>0x7f7f7f7f7f7f7f7f
        found |= controls | ((deletes - <uint64_t>0x0101010101010101) & ~deletes)
        i += 8
    if found & <uint64_t>0x8080808080808080:
        i = 0       # a tab, or something worse
    while i < size:
        kinds &= octet_kinds[<uint8_t>value[i]]
        i += 1
    return kinds != 0


cdef inline bint is_token(const uint8_t* name, size_t size) noexcept nogil:
    """RFC 9110, 5.6.2."""
    cdef uint8_t kinds = IN_TOKEN
    cdef size_t i = 0
    while i + 4 <= size:
        kinds &= octet_kinds[name[i]] & octet_kinds[name[i + 1]] & octet_kinds[name[i + 2]] & octet_kinds[name[i + 3]]
        i += 4
    while i < size:
        kinds &= octet_kinds[name[i]]
        i += 1
    return kinds != 0 and size != 0


cdef int head_field(head_t* head, const char* name, size_t name_size,
                    const char* value, size_t value_size) noexcept nogil:
    """Add a field line, or say why not."""
    cdef int result
    cdef char* out
    if not is_token(<const uint8_t*>name, name_size):
        return RESPONSE_BAD_NAME
    if not is_clean(value, value_size):
        return RESPONSE_BAD_VALUE
    # The names that mean something here begin with one of these letters.
    if (name[0] | 0x20) in (c"c", c"d", c"s", c"t", c"k", c"u", c"p", c"x"):
        result = special_field(head, name, name_size, value, value_size)
        if result != RESPONSE_OK:
            return result
    if buffer_reserve(&head.lines, name_size + value_size + 4) < 0:
        return RESPONSE_NO_MEMORY
    out = put(head.lines.data + head.lines.size, name, name_size)
    out[0] = c":"
    out[1] = c" "
    out = put(out + 2, value, value_size)
    out[0] = c"\r"
    out[1] = c"\n"
    head.lines.size += name_size + value_size + 4
    return RESPONSE_OK


cdef bint goes_with_content(const char* line, size_t size) noexcept nogil:
    return (lines_have(line, size, b"content-length", 14) or lines_have(line, size, b"content-encoding", 16)
            or lines_have(line, size, b"content-range", 13) or lines_have(line, size, b"accept-ranges", 13)
            or lines_have(line, size, b"etag", 4) or lines_have(line, size, b"last-modified", 13))


cdef int lines_keep(const head_t* head, buffer_t* kept) noexcept nogil:
    """Append the field lines of a head that go with any content; 0, or -1 when memory is out."""
    cdef const char* at = head.lines.data
    cdef const char* end = head.lines.data + head.lines.size
    cdef const char* following
    at = <const char*>memchr(at, c"\n", <size_t>(end - at)) + 1      # behind the status line
    while at < end:
        following = <const char*>memchr(at, c"\n", <size_t>(end - at)) + 1
        if not goes_with_content(at, <size_t>(following - at)) and buffer_append(
                kept, at, <size_t>(following - at)) < 0:
            return -1
        at = following
    return 0


cdef bint lines_have(const char* lines, size_t size, const char* name, size_t name_size) noexcept nogil:
    """One of the field lines has that name, which is in lower case."""
    cdef const char* at = lines
    cdef const char* end = lines + size
    while at < end:
        if <size_t>(end - at) > name_size and at[name_size] == c":" and is_word(at, name, name_size):
            return True
        at = <const char*>memchr(at, c"\n", <size_t>(end - at)) + 1
    return False


cdef inline bint is_same_name(const char* one, const char* other, size_t size) noexcept nogil:
    """Two field names are the same, whatever their case."""
    cdef size_t i
    for i in range(size):
        if one[i] != other[i] and ((one[i] ^ other[i]) != 0x20 or not c"a" <= (one[i] | 0x20) <= c"z"):
            return False
    return True


cdef uint64_t lines_there(const head_t* head, const field_lines_t* lines) noexcept nogil:
    """Bit i: the head has a field with the name of lines.items[i]."""
    cdef const char* end = head.lines.data + head.lines.size
    cdef const char* at = <const char*>memchr(head.lines.data, c"\n", head.lines.size) + 1
    cdef const char* colon
    cdef uint64_t found = 0
    cdef int i
    while at < end:
        colon = <const char*>memchr(at, c":", <size_t>(end - at))
        for i in range(lines.count):
            if lines.items[i].name_size == <size_t>(colon - at) and is_same_name(
                    lines.items[i].text, at, <size_t>(colon - at)):
                found |= <uint64_t>1 << i
        at = <const char*>memchr(colon, c"\n", <size_t>(end - colon)) + 1
    return found


cdef int head_lines(head_t* head, const field_lines_t* lines) noexcept nogil:
    """Add field lines of the server's own; what the application has set itself stays as it is."""
    cdef uint64_t there
    cdef int i
    if lines.count == 0:
        return RESPONSE_OK
    there = lines_there(head, lines)
    for i in range(lines.count):
        if not (there >> i) & 1 and buffer_append(&head.lines, lines.items[i].text, lines.items[i].size) < 0:
            return RESPONSE_NO_MEMORY
    head.has_server |= lines.has_server
    return RESPONSE_OK


cdef framing_t head_framing(const head_t* head, bint is_head_request, int version_minor,
                            bint size_is_known) noexcept nogil:
    """How the content will be framed; size_is_known: all of it is at hand."""
    if is_head_request or head.status == 204 or head.status == 205 or head.status == 304:
        return FRAMING_NONE
    if head.has_content_length or size_is_known:
        return FRAMING_LENGTH
    return FRAMING_CHUNKED if version_minor else FRAMING_CLOSE


cdef const char* DAYS = b"ThuFriSatSunMonTueWed"
cdef const char* MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


cdef inline void put_two(char* out, int number) noexcept nogil:
    out[0] = <char>(c"0" + number // 10)
    out[1] = <char>(c"0" + number % 10)


cdef void date_write(date_t* date, int64_t now) noexcept nogil:
    """The Date line of `now` (seconds since 1970, UTC) in IMF-fixdate (RFC 9110, 5.6.7); 37 octets."""
    cdef int64_t days = now // 86400
    cdef int seconds = <int>(now % 86400)
    # Days since 1 March of year 0, in eras of 400 years: the calendar repeats after one.
    cdef int64_t shifted = days + 719468
    cdef int64_t era = shifted // 146097
    cdef int day_of_era = <int>(shifted - era * 146097)
    cdef int year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    cdef int day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef int month = (5 * day_of_year + 2) // 153
    cdef int day = day_of_year - (153 * month + 2) // 5 + 1
    cdef int year = <int>(year_of_era + era * 400)
    cdef char* out = date.line
    month += 2
    if month > 11:
        month -= 12
        year += 1
    memcpy(out, b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 37)
    memcpy(out + 6, DAYS + 3 * (days % 7), 3)
    put_two(out + 11, day)
    memcpy(out + 14, MONTHS + 3 * month, 3)
    put_two(out + 18, year // 100)
    put_two(out + 20, year % 100)
    put_two(out + 23, seconds // 3600)
    put_two(out + 26, seconds // 60 % 60)
    put_two(out + 29, seconds % 60)
    date.second = now


cdef inline char* put_date(char* out, date_t* date, int64_t now) noexcept nogil:
    if date.second != now or not date.line[0]:
        date_write(date, now)
    return put(out, date.line, 37)


cdef int head_finish(const head_t* head, buffer_t* out, framing_t framing, bint length_is_ours, uint64_t length,
                     bint keep_alive, int version_minor, date_t* date, int64_t now) noexcept nogil:
    """Append the whole head to out, with the lines that are the server's; length_is_ours: add Content-Length."""
    cdef char* end
    if buffer_reserve(out, head.lines.size + TAIL_ROOM) < 0:
        return RESPONSE_NO_MEMORY
    end = put(out.data + out.size, head.lines.data, head.lines.size)
    if not head.has_date:
        end = put_date(end, date, now)
    if not head.has_server:
        end = put(end, b"Server: fastwsgi\r\n", 18)
    if head.status == 205:
        end = put(end, b"Content-Length: 0\r\n", 19)
    elif length_is_ours:
        end = put(end, b"Content-Length: ", 16)
        end = put_number(end, length)
        end = put(end, b"\r\n", 2)
    elif framing == FRAMING_CHUNKED:
        end = put(end, b"Transfer-Encoding: chunked\r\n", 28)
    if not keep_alive:
        end = put(end, b"Connection: close\r\n", 19)
    elif not version_minor:
        end = put(end, b"Connection: keep-alive\r\n", 24)
    end = put(end, b"\r\n", 2)
    out.size = <size_t>(end - out.data)
    return RESPONSE_OK


cdef int response_refuse(int reason, const refused_t* told, buffer_t* out, date_t* date, int64_t now) noexcept nogil:
    """Append the whole answer to a request that is refused for `reason`.

    Its content tells a client what is wrong with its request, and nothing of what is wrong here.
    """
    cdef const refusal_info_t* info = refusal_info(reason)
    cdef page_t plain
    cdef const page_t* page = told.page
    cdef const char* end_of_text = b"\n"
    cdef uint32_t retry_after = told.retry_after
    cdef size_t phrase_size = strlen(info.phrase)
    cdef char* end
    cdef size_t lines_size = 0
    cdef int i
    cdef int count = 0 if told.lines == NULL else told.lines.count
    for i in range(count):
        lines_size += told.lines.items[i].size
    if page == NULL:
        plain.type = b"text/plain; charset=utf-8"
        plain.type_size = 25
        plain.content = info.text if info.status < 500 else info.phrase
        plain.size = strlen(plain.content)
        page = &plain
    else:
        end_of_text = b""
    if not retry_after and (reason == REFUSAL_QUEUE_TIMEOUT or reason == REFUSAL_STOPPING):
        retry_after = 5
    if buffer_reserve(out, phrase_size + page.type_size + page.size + lines_size + told.id_size + told.challenge_size
                      + TAIL_ROOM) < 0:
        return RESPONSE_NO_MEMORY
    end = put(out.data + out.size, b"HTTP/1.1 ", 9)
    end = put_number(end, <uint64_t>info.status)
    end = put(end, b" ", 1)
    end = put(end, info.phrase, phrase_size)
    end = put(end, b"\r\n", 2)
    end = put_date(end, date, now)
    if count == 0 or not told.lines.has_server:
        end = put(end, b"Server: fastwsgi\r\n", 18)
    for i in range(count):
        end = put(end, told.lines.items[i].text, told.lines.items[i].size)
    end = put(end, b"Content-Type: ", 14)
    end = put(end, page.type, page.type_size)
    end = put(end, b"\r\nContent-Length: ", 18)
    end = put_number(end, page.size + strlen(end_of_text))
    if retry_after:
        end = put(end, b"\r\nRetry-After: ", 15)
        end = put_number(end, retry_after)
    if told.challenge_size:
        end = put(end, b"\r\nWWW-Authenticate: ", 20)
        end = put(end, told.challenge, told.challenge_size)
    if told.id_size:
        end = put(end, b"\r\nX-Request-ID: ", 16)
        end = put(end, told.request_id, told.id_size)
    if not told.keep_alive:
        end = put(end, b"\r\nConnection: close", 19)
    elif not told.version_minor:
        end = put(end, b"\r\nConnection: keep-alive", 24)
    end = put(end, b"\r\n\r\n", 4)
    if not told.is_head_request:
        end = put(end, page.content, page.size)
        end = put(end, end_of_text, strlen(end_of_text))
    out.size = <size_t>(end - out.data)
    return RESPONSE_OK


cdef int response_probe(head_t* head, int status, bint is_head_request, bint keep_alive, int version_minor,
                        buffer_t* out, date_t* date, int64_t now) noexcept nogil:
    """Append the whole answer to a probe (--health, --ready): 200, 503 or 405.

    Its content length is left in head.content_length.
    """
    cdef const char* line = b"200 OK"
    cdef const char* text = b"ok\n"
    if status == 503:
        line = b"503 Service Unavailable"
        text = b"stopping\n"
    elif status == 405:
        line = b"405 Method Not Allowed"
        text = b"GET or HEAD\n"
    if (head_start(head, line, strlen(line))
            or head_field(head, b"Content-Type", 12, b"text/plain; charset=utf-8", 25)
            or head_field(head, b"Cache-Control", 13, b"no-store", 8)
            or (status == 405 and head_field(head, b"Allow", 5, b"GET, HEAD", 9))
            or head_finish(head, out, FRAMING_LENGTH, True, strlen(text), keep_alive, version_minor, date, now)
            or (not is_head_request and buffer_append(out, text, strlen(text)))):
        return RESPONSE_NO_MEMORY
    head.content_length = strlen(text)
    return RESPONSE_OK


cdef class ResponseHead:
    """A response head without a socket, for tests: start, field, finish."""

    cdef head_t head
    cdef date_t date

    def __cinit__(self):
        memset(&self.head, 0, sizeof(head_t))
        memset(&self.date, 0, sizeof(date_t))

    def __dealloc__(self):
        buffer_free(&self.head.lines)
        buffer_free(&self.head.handed)

    def start(self, bytes status not None):
        """Begin with a status such as b"200 OK"; returns 0 or one of the negative codes."""
        return head_start(&self.head, status, len(status))

    def field(self, bytes name not None, bytes value not None):
        """Add a field line; returns 0, 1 when it is left out, or one of the negative codes."""
        return head_field(&self.head, name, len(name), value, len(value))

    def finish(self, *, bint is_head_request=False, int version_minor=1, length=None, bint keep_alive=True,
               int64_t now=0):
        """The head as bytes and how the content is framed; length: of the content when all of it is at hand."""
        cdef buffer_t out
        cdef framing_t framing = head_framing(&self.head, is_head_request, version_minor, length is not None)
        cdef bint ours = framing == FRAMING_LENGTH and not self.head.has_content_length
        memset(&out, 0, sizeof(out))
        try:
            if head_finish(&self.head, &out, framing, ours, length or 0, keep_alive and framing != FRAMING_CLOSE,
                           version_minor, &self.date, now) < 0:
                raise MemoryError
            return out.data[:out.size], ("none", "length", "chunked", "close")[<int>framing]
        finally:
            buffer_free(&out)


def refuse(int reason, *, bint is_head_request=False, bytes request_id not None=b"", int64_t now=0, tuple page=None,
           bytes challenge not None=b"", uint32_t retry_after=0, bint keep_alive=False, int version_minor=1):
    """The whole answer to a request that is refused for a reason of `_refusals`; page: (type, content)."""
    cdef buffer_t out
    cdef date_t date
    cdef refused_t told
    cdef page_t given
    cdef bytes kind, content
    memset(&out, 0, sizeof(out))
    memset(&date, 0, sizeof(date))
    memset(&told, 0, sizeof(told))
    told.request_id, told.id_size = request_id, len(request_id)
    told.challenge, told.challenge_size = challenge, len(challenge)
    told.retry_after, told.is_head_request = retry_after, is_head_request
    told.keep_alive, told.version_minor = keep_alive, version_minor
    if page is not None:
        kind, content = page
        given.type, given.type_size, given.content, given.size = kind, len(kind), content, len(content)
        told.page = &given
    try:
        if response_refuse(reason, &told, &out, &date, now) < 0:
            raise MemoryError
        return out.data[:out.size]
    finally:
        buffer_free(&out)


def chunk_size_line(uint64_t size):
    """The line before a chunk of that size."""
    cdef char out[18]
    return out[:chunk_line(out, size)]
