"""Content codings (RFC 9110, 8.4.1): which one an answer gets, what its head says then, and the coder of it.

Knows heads of requests and answers, and no connection. What compresses is Python's (compression.py).
"""

import _thread

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcpy, memmove, memset, strlen

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_reserve
from fastwsgi._octets cimport is_blank, is_digit
from fastwsgi._parser cimport (
    HEAD_DONE, KNOWN_ACCEPT_ENCODING, KNOWN_AUTHORIZATION, KNOWN_COOKIE, KNOWN_SEC_FETCH_SITE, field_t,
    limits_default, limits_t, parser_feed, parser_free, parser_init, parser_t,
)
from fastwsgi._response cimport RESPONSE_OK, head_field, head_start, head_t

from fastwsgi.greening import original

cimport cython

allocate_lock = original(_thread, "allocate_lock")

cdef enum:
    QUALITY_MOST = 1000     # q=1, in thousandths
    HEAD_GROWTH = 80        # more than the lines of an answer become longer by

cdef const char* coding_names[3]
coding_names[:] = [b"gzip", b"br", b"zstd"]


cdef inline bint is_word(const char* text, size_t size, const char* word) noexcept nogil:
    """text[0:size] is word, in any case; text has no control characters, word only small letters, digits and - + *."""
    cdef size_t i
    if size != strlen(word):
        return False
    for i in range(size):
        if (text[i] | 0x20) != word[i]:
            return False
    return True


cdef struct line_t:
    # A field line of a head that head_field has written, and where the next one begins.
    const char* name
    size_t name_size
    const char* value       # without the blanks around it
    size_t value_size
    const char* next


cdef inline const char* next_line(const char* at, const char* end) noexcept nogil:
    return <const char*>memchr(at, c"\n", <size_t>(end - at)) + 1


cdef inline line_t line_at(const char* at, const char* end) noexcept nogil:
    cdef line_t line
    cdef const char* last
    line.name = at
    line.next = next_line(at, end)
    line.value = <const char*>memchr(at, c":", <size_t>(end - at))
    line.name_size = <size_t>(line.value - at)
    line.value += 1
    last = line.next - 2
    while line.value < last and is_blank(<uint8_t>line.value[0]):
        line.value += 1
    while last > line.value and is_blank(<uint8_t>(last - 1)[0]):
        last -= 1
    line.value_size = <size_t>(last - line.value)
    return line


cdef inline const char* first_line(const head_t* head) noexcept nogil:
    """Behind the status line."""
    return next_line(head.lines.data, head.lines.data + head.lines.size)


cdef bint has_element(const char* value, size_t size, const char* word) noexcept nogil:
    """One element of the list is the word, perhaps with a parameter behind it."""
    cdef size_t start = 0, end
    while start < size:
        while start < size and (is_blank(<uint8_t>value[start]) or value[start] == c","):
            start += 1
        end = start
        while end < size and value[end] != c"," and value[end] != c"=" and not is_blank(<uint8_t>value[end]):
            end += 1
        if is_word(value + start, end - start, word):
            return True
        while end < size and value[end] != c",":
            end += 1
        start = end
    return False


cdef bint is_fixed(const line_t* line) noexcept nogil:
    """The line forbids that its content is changed, or tells something of it that would not be true any more."""
    if is_word(line.name, line.name_size, b"cache-control"):
        return has_element(line.value, line.value_size, b"no-transform")
    return (is_word(line.name, line.name_size, b"content-encoding")
            or is_word(line.name, line.name_size, b"content-range")
            or is_word(line.name, line.name_size, b"content-digest")
            or is_word(line.name, line.name_size, b"content-md5")
            or is_word(line.name, line.name_size, b"repr-digest")
            or is_word(line.name, line.name_size, b"digest"))


cdef inline char small(char octet) noexcept nogil:
    return octet | 0x20 if c"A" <= octet <= c"Z" else octet


cdef bint is_of(const media_type_t* kind, const char* text, size_t size) noexcept nogil:
    """A media type is of the kind; any case."""
    cdef size_t i
    if size < <size_t>(kind.before_size + kind.behind_size) or (kind.is_exact and size > kind.before_size):
        return False
    for i in range(kind.before_size):
        if small(text[i]) != kind.before[i]:
            return False
    text += size - kind.behind_size
    for i in range(kind.behind_size):
        if small(text[i]) != kind.behind[i]:
            return False
    return True


cdef bint is_listed(const media_type_t* kinds, size_t count, const char* value, size_t size) noexcept nogil:
    """The media type that a Content-Type begins with is of one of the kinds."""
    cdef size_t i, length = 0
    while length < size and value[length] != c";" and value[length] != c"," and not is_blank(<uint8_t>value[length]):
        length += 1
    for i in range(count):
        if is_of(&kinds[i], value, length):
            return True
    return False


cdef bint head_can_change(const head_t* head, const media_type_t* kinds, size_t count) noexcept nogil:
    """The content may be put into a coding, if a client takes it."""
    cdef const char* at = first_line(head)
    cdef const char* end = head.lines.data + head.lines.size
    cdef line_t line
    cdef bint listed = False
    # None of these has content, or it is a part that stands for its place in the whole.
    if head.status == 204 or head.status == 205 or head.status == 206 or head.status == 226 or head.status == 304:
        return False
    while at < end:
        # All names that mean something here begin with one of these.
        if (at[0] | 0x20) not in (c"c", c"d", c"r"):
            at = next_line(at, end)
            continue
        line = line_at(at, end)
        at = line.next
        if is_word(line.name, line.name_size, b"content-type"):
            listed = is_listed(kinds, count, line.value, line.value_size)
            if not listed:
                return False
        elif is_fixed(&line):
            return False
    return listed


cdef int read_quality(const char* text, size_t size) noexcept nogil:
    """A qvalue (RFC 9110, 12.4.2) in thousandths; 0 for what is none."""
    cdef int quality = 0, digit = 100
    cdef size_t i = 2
    if size == 0 or text[0] == c"1":
        return QUALITY_MOST if size else 0
    if text[0] != c"0" or size < 2 or text[1] != c".":
        return 0
    while i < size and i < 5 and is_digit(<uint8_t>text[i]):
        quality += digit * (text[i] - c"0")
        digit //= 10
        i += 1
    return quality


cdef struct wishes_t:
    # In thousandths; -1: not named.
    int codings[<int>CODING_END]
    int identity
    int others


cdef void read_wishes(wishes_t* wishes, const char* value, size_t size) noexcept nogil:
    """What an Accept-Encoding says (RFC 9110, 12.5.3)."""
    cdef size_t i = 0, start, end
    cdef int quality, coding
    while i < size:
        while i < size and (is_blank(<uint8_t>value[i]) or value[i] == c","):
            i += 1
        start = i
        while i < size and value[i] != c"," and value[i] != c";" and not is_blank(<uint8_t>value[i]):
            i += 1
        end = i
        quality = QUALITY_MOST
        while i < size and value[i] != c",":
            if (value[i] | 0x20) == c"q" and i + 1 < size and value[i + 1] == c"=" and (
                    value[i - 1] == c";" or is_blank(<uint8_t>value[i - 1])):
                quality = read_quality(value + i + 2, size - i - 2)
            i += 1
        if end - start == 1 and value[start] == c"*":
            wishes.others = quality
        elif is_word(value + start, end - start, b"identity"):
            wishes.identity = quality
        elif is_word(value + start, end - start, b"x-gzip"):    # RFC 9110, 8.4.1.3
            wishes.codings[<int>CODING_GZIP] = quality
        else:
            for coding in range(<int>CODING_END):
                if is_word(value + start, end - start, coding_names[coding]):
                    wishes.codings[coding] = quality


cdef const field_t* first_field(const parser_t* parser, int known) noexcept nogil:
    """The first field of a known name that has been seen."""
    cdef uint32_t i = 0
    while parser.fields[i].known != known:
        i += 1
    return &parser.fields[i]


cdef inline bint was_seen(const parser_t* parser, int known) noexcept nogil:
    return (parser.known_seen >> known) & 1


cdef bint is_of_another_site(const parser_t* parser, const char* data) noexcept nogil:
    """A browser asks for a page of another site, with what tells us who its user is.

    How long a compressed answer is tells something of secrets in it to whoever chooses another part of it (BREACH), and
    sees many. Such a one makes the user's browser ask, and this is how its requests look.
    """
    cdef const field_t* field
    if not was_seen(parser, KNOWN_SEC_FETCH_SITE) or not (
            was_seen(parser, KNOWN_COOKIE) or was_seen(parser, KNOWN_AUTHORIZATION)):
        return False
    field = first_field(parser, KNOWN_SEC_FETCH_SITE)
    return is_word(data + field.value.start, field.value.length, b"cross-site")


cdef int choose_coding(const parser_t* parser, const char* data, const int* order, int count) noexcept nogil:
    """The coding that the client likes best; of those that it likes as well, the first in the order."""
    cdef wishes_t wishes
    cdef const field_t* field
    cdef uint32_t i
    cdef int k, quality, best = <int>CODING_NONE, best_quality = 0
    # Who sent a 1.0 request is hardly sure of what it says here, and would get no length.
    if not was_seen(parser, KNOWN_ACCEPT_ENCODING) or not parser.version_minor or is_of_another_site(parser, data):
        return CODING_NONE
    memset(&wishes, 0xff, sizeof(wishes))
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known == KNOWN_ACCEPT_ENCODING:
            read_wishes(&wishes, data + field.value.start, field.value.length)
    for k in range(count):
        quality = wishes.codings[order[k]]
        if quality < 0:
            quality = wishes.others
        if quality > best_quality:
            best = order[k]
            best_quality = quality
    return best if best_quality >= wishes.identity else <int>CODING_NONE


cdef inline char* put(char* out, const char* text, size_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef int head_encode(head_t* head, int coding) noexcept nogil:
    cdef const char* at
    cdef const char* end
    cdef char* out
    cdef line_t line
    cdef size_t size = head.lines.size
    cdef bint has_vary = False, varies = False, is_coded = coding != CODING_NONE
    # The new lines are written behind the old ones.
    # A line has ten octets or more, and becomes longer by two at most.
    if buffer_reserve(&head.lines, 2 * size + HEAD_GROWTH) < 0:
        return -1
    end = head.lines.data + size
    at = first_line(head)
    while at < end:
        if (at[0] | 0x20) == c"v":
            line = line_at(at, end)
            if is_word(line.name, line.name_size, b"vary"):
                has_vary = True
                varies |= (has_element(line.value, line.value_size, b"accept-encoding")
                           or has_element(line.value, line.value_size, b"*"))
        at = next_line(at, end)
    if not is_coded and (varies or not has_vary):
        return 0 if varies else buffer_append(&head.lines, b"Vary: Accept-Encoding\r\n", 23)
    at = first_line(head)
    out = put(head.lines.data + size, head.lines.data, <size_t>(at - head.lines.data))
    while at < end:
        line = line_at(at, end)
        at = line.next
        if is_coded and (is_word(line.name, line.name_size, b"content-length")
                         or is_word(line.name, line.name_size, b"accept-ranges")):
            continue
        if is_coded and is_word(line.name, line.name_size, b"etag") and line.value[0] == c'"':
            # RFC 9110, 8.8.1: a strong one would promise the same octets.
            out = put(out, b"ETag: W/", 8)
            out = put(out, line.value, line.value_size)
        elif not varies and is_word(line.name, line.name_size, b"vary"):
            out = put(out, b"Vary: ", 6)
            out = put(out, line.value, line.value_size)
            if line.value_size:
                out = put(out, b", ", 2)
            out = put(out, b"Accept-Encoding", 15)
            varies = True
        else:
            out = put(out, line.name, <size_t>(line.next - 2 - line.name))
        out = put(out, b"\r\n", 2)
    if not varies:
        out = put(out, b"Vary: Accept-Encoding\r\n", 23)
    if is_coded:
        out = put(out, b"Content-Encoding: ", 18)
        out = put(out, coding_names[coding], strlen(coding_names[coding]))
        out = put(out, b"\r\n", 2)
        head.has_content_length = False
        head.is_coded = True
    head.lines.size = <size_t>(out - end)
    memmove(head.lines.data, end, head.lines.size)
    return 0


@cython.final
cdef class Encodings:

    def __cinit__(self, makers, types, uint64_t least):
        """makers: of streams by coding, the one that is liked best first; types: patterns of media types."""
        cdef size_t i
        cdef int coding
        cdef media_type_t* kind
        self.make_lock = allocate_lock
        self.lock = allocate_lock()
        self.least = least
        self.makers = [None] * <int>CODING_END
        for name, make in makers.items():
            coding = CODINGS.index(name)
            self.makers[coding] = make
            self.order[self.count] = coding
            self.count += 1
        self.type_count = <size_t>len(types)
        self.types = <media_type_t*>calloc(self.type_count, sizeof(media_type_t))
        if self.types == NULL:
            raise MemoryError
        self.patterns = []
        for i, pattern in enumerate(types):
            before, star, behind = pattern.lower().encode("ascii").partition(b"*")
            self.patterns += [before, behind]
            kind = &self.types[i]
            kind.before, kind.before_size = before, len(before)
            kind.behind, kind.behind_size = behind, len(behind)
            kind.is_exact = not star

    def __dealloc__(self):
        free(self.types)

    cdef bint can_code(self, const head_t* head) noexcept:
        return head_can_change(head, self.types, self.type_count)

    cdef int choose(self, const parser_t* parser, const char* data) noexcept:
        return choose_coding(parser, data, self.order, self.count)

    cdef Coder coder(self, int coding, bint size_is_known, uint64_t size):
        cdef Coder coder = <Coder>Coder.__new__(Coder)
        coder.stream = self.makers[coding](size if size_is_known else None)
        coder.lock = self.make_lock()
        coder.coding = coding
        return coder

    def head(self, request, status, fields):
        """The coding of an answer of this status and these fields to a request, and the lines of its head."""
        cdef parser_t parser
        cdef limits_t limits
        cdef head_t head
        cdef int coding
        limits_default(&limits)
        memset(&parser, 0, sizeof(parser))
        memset(&head, 0, sizeof(head))
        parser_init(&parser, &limits)
        try:
            if parser_feed(&parser, request, len(request)) != HEAD_DONE or head_start(&head, status, len(status)) < 0:
                raise ValueError("not a whole head")
            for name, value in fields:
                if head_field(&head, name, len(name), value, len(value)) != RESPONSE_OK:
                    raise ValueError(f"not a field: {name!r}")
            coding = CODING_NONE
            if self.can_code(&head):
                coding = self.choose(&parser, request)
                if head_encode(&head, coding) < 0:
                    raise MemoryError
            return CODINGS[coding] if coding >= 0 else None, head.lines.data[:head.lines.size]
        finally:
            parser_free(&parser)
            buffer_free(&head.lines)


@cython.final
cdef class Coder:

    cdef bytes whole(self, bytes data):
        stream = self.take_stream()
        return stream.feed(data) + stream.end()

    cdef bytes block(self, bytes data):
        stream = self.take_stream()
        coded = stream.feed(data)
        if not self.is_patient:
            coded += stream.flush()
        self.stream = stream
        return coded

    cdef bytes end(self):
        return self.take_stream().end()

    cdef object take_stream(self):
        """A stream that fails is not here any more: what it would make of the next block would not fit what it made."""
        stream = self.stream
        if stream is None:
            raise RuntimeError("content was given after it had failed to be compressed")
        self.stream = None
        return stream


CODINGS = tuple(name.decode() for name in coding_names)
