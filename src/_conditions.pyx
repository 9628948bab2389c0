"""What a request wants of a file: preconditions, ranges, codings (RFC 9110, 12 to 14).

Field values in, verdicts out. Knows no file, no connection and no clock.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint16_t, uint64_t
from libc.string cimport memcmp, memset

from fastwsgi._octets cimport IN_TOKEN, is_blank, is_digit, octet_kinds
from fastwsgi._parser cimport (
    HEAD_DONE, KNOWN_ACCEPT_ENCODING, KNOWN_IF_MATCH, KNOWN_IF_MODIFIED_SINCE, KNOWN_IF_NONE_MATCH, KNOWN_IF_RANGE,
    KNOWN_IF_UNMODIFIED_SINCE, KNOWN_RANGE, field_t, limits_default, limits_t, parser_feed, parser_free, parser_init,
    parser_reset, parser_t,
)

cimport cython

cdef uint64_t CONDITIONS = (
    <uint64_t>1 << <int>KNOWN_IF_MATCH | <uint64_t>1 << <int>KNOWN_IF_NONE_MATCH
    | <uint64_t>1 << <int>KNOWN_IF_MODIFIED_SINCE | <uint64_t>1 << <int>KNOWN_IF_UNMODIFIED_SINCE
    | <uint64_t>1 << <int>KNOWN_RANGE)


cdef bint conditions_are_given(const parser_t* parser) noexcept nogil:
    """Perhaps not simply the whole file is wanted."""
    return parser.known_seen & CONDITIONS != 0


cdef inline bint has(const parser_t* parser, int known) noexcept nogil:
    return (parser.known_seen >> known) & 1


cdef const field_t* only(const parser_t* parser, int known) noexcept nogil:
    """The field line of that name; NULL if there is none, or more than one."""
    cdef const field_t* found = NULL
    cdef uint64_t i
    if not has(parser, known):
        return NULL
    for i in range(parser.field_count):
        if parser.fields[i].known == known:
            if found != NULL:
                return NULL
            found = &parser.fields[i]
    return found


cdef inline bint is_word(const char* text, const char* word, size_t size) noexcept nogil:
    """text[0:size] is word, whatever its case; word is in lower case and of letters."""
    cdef size_t i
    for i in range(size):
        if (text[i] | 0x20) != word[i]:
            return False
    return True


# ---- dates ----

cdef int digits(const char* text, int count) noexcept nogil:
    """A number of so many digits; -1 if it is none. A blank may stand for the first of two."""
    cdef int number = 0
    cdef int i
    for i in range(count):
        if text[i] == c" " and i == 0 and count == 2:
            continue
        if not is_digit(text[i]):
            return -1
        number = number * 10 + text[i] - c"0"
    return number


cdef int month_of(const char* text) noexcept nogil:
    cdef const char* names = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    cdef int i
    for i in range(12):
        if memcmp(text, names + 3 * i, 3) == 0:
            return i + 1
    return -1


cdef int64_t date_read(const char* text, size_t size) noexcept nogil:
    """Seconds since 1970 of an HTTP-date in any of its three forms (RFC 9110, 5.6.7); -1 if it is none."""
    cdef const char* clock
    cdef int day, month, year, hour, minute, second
    cdef int64_t era, year_of_era, day_of_year
    cdef size_t comma = 0
    while comma < size and text[comma] != c",":
        comma += 1
    if size == 29 and comma == 3:               # Sun, 06 Nov 1994 08:49:37 GMT
        day = digits(text + 5, 2)
        month = month_of(text + 8)
        year = digits(text + 12, 4)
        clock = text + 17
    elif size == 24 and comma == size:          # Sun Nov  6 08:49:37 1994
        day = digits(text + 8, 2)
        month = month_of(text + 4)
        year = digits(text + 20, 4)
        clock = text + 11
    elif comma < size and size == comma + 24 and text[comma + 4] == c"-":   # Sunday, 06-Nov-94 08:49:37 GMT
        day = digits(text + comma + 2, 2)
        month = month_of(text + comma + 5)
        year = digits(text + comma + 9, 2)
        if year >= 0:
            year += 1900 if year >= 70 else 2000
        clock = text + comma + 12
    else:
        return -1
    hour = digits(clock, 2)
    minute = digits(clock + 3, 2)
    second = digits(clock + 6, 2)
    if (day < 1 or day > 31 or month < 0 or year < 1970 or hour < 0 or hour > 23 or minute < 0 or minute > 59
            or second < 0 or second > 60 or clock[2] != c":" or clock[5] != c":"):
        return -1
    # Days since 1 March of year 0, in eras of 400 years: as date_write has it, backwards.
    if month < 3:
        year -= 1
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return ((era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468) * 86400
            + hour * 3600 + minute * 60 + second)


# ---- preconditions ----

cdef bint tag_matches(const char* text, size_t size, const validators_t* validators, bint is_strong) noexcept nogil:
    """One of the entity-tags of a list is that of the file, by strong or weak comparison (RFC 9110, 8.8.3.2)."""
    cdef size_t at = 0, start
    cdef bint is_weak
    while at < size:
        if is_blank(text[at]) or text[at] == c",":
            at += 1
            continue
        if text[at] == c"*":
            return True
        is_weak = size - at > 2 and text[at] == c"W" and text[at + 1] == c"/"
        if is_weak:
            at += 2
        if text[at] != c'"':
            return False
        start = at
        at += 1
        while at < size and text[at] != c'"':
            at += 1
        if at == size:
            return False
        at += 1
        if (at - start == validators.etag_size and memcmp(text + start, validators.etag, at - start) == 0
                and not (is_strong and (is_weak or validators.is_weak))):
            return True
    return False


cdef bint tags_match(const parser_t* parser, const char* data, int known, const validators_t* validators,
                     bint is_strong) noexcept nogil:
    cdef const field_t* field
    cdef uint64_t i
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known == known and tag_matches(data + field.value.start, field.value.length, validators, is_strong):
            return True
    return False


cdef int64_t date_of(const parser_t* parser, const char* data, int known) noexcept nogil:
    """The date of a field; -1 if there is none that can be read."""
    cdef const field_t* field = only(parser, known)
    return -1 if field == NULL else date_read(data + field.value.start, field.value.length)


cdef int precondition(const parser_t* parser, const char* data, const validators_t* validators) noexcept nogil:
    """200: go on; 304: the client has it; 412: it is not what the client thinks it is. For GET and HEAD."""
    cdef int64_t date
    # RFC 9110, 13.2.2.
    if has(parser, KNOWN_IF_MATCH):
        if not tags_match(parser, data, KNOWN_IF_MATCH, validators, True):
            return 412
    else:
        date = date_of(parser, data, KNOWN_IF_UNMODIFIED_SINCE)
        if date >= 0 and validators.modified > date:
            return 412
    if has(parser, KNOWN_IF_NONE_MATCH):
        return 304 if tags_match(parser, data, KNOWN_IF_NONE_MATCH, validators, False) else 200
    date = date_of(parser, data, KNOWN_IF_MODIFIED_SINCE)
    return 304 if date >= 0 and validators.modified <= date else 200


# ---- ranges ----

cdef bint range_applies(const parser_t* parser, const char* data, const validators_t* validators) noexcept nogil:
    """If-Range (RFC 9110, 13.1.5): the client has a part of this very version."""
    cdef const field_t* field = only(parser, KNOWN_IF_RANGE)
    cdef const char* text
    if field == NULL:
        return not has(parser, KNOWN_IF_RANGE)
    text = data + field.value.start
    if field.value.length and (text[0] == c'"' or text[0] == c"W"):
        return tag_matches(text, field.value.length, validators, True)
    return not validators.is_weak and date_read(text, field.value.length) == validators.modified


cdef uint64_t position(const char* text, size_t size, size_t* at) noexcept nogil:
    """A number; UINT64_MAX if there is none. One that is too large is the largest."""
    cdef uint64_t number = 0
    cdef size_t start = at[0]
    while at[0] < size and is_digit(text[at[0]]):
        if number < UINT64_MAX // 16:
            number = number * 10 + <uint64_t>(text[at[0]] - c"0")
        at[0] += 1
    return UINT64_MAX if at[0] == start else number


cdef inline void skip_blanks(const char* text, size_t size, size_t* at) noexcept nogil:
    while at[0] < size and is_blank(text[at[0]]):
        at[0] += 1


cdef int ranges_read(const char* text, size_t size, uint64_t file_size, range_t* ranges) noexcept nogil:
    """As ranges_wanted; text: what is behind "bytes="."""
    cdef size_t at = 0
    cdef uint64_t first, last, start, end, total = 0
    cdef int count = 0
    while True:
        while at < size and (is_blank(text[at]) or text[at] == c","):
            at += 1
        if at == size:
            break
        first = position(text, size, &at)
        skip_blanks(text, size, &at)
        if at == size or text[at] != c"-":
            return RANGES_UNSATISFIED
        at += 1
        skip_blanks(text, size, &at)
        last = position(text, size, &at)
        skip_blanks(text, size, &at)
        if (first == UINT64_MAX and last == UINT64_MAX) or (at < size and text[at] != c","):
            return RANGES_UNSATISFIED
        if first == UINT64_MAX:
            start = file_size - min(last, file_size)
            end = file_size
        else:
            start = first
            end = file_size if last >= file_size else last + 1
        if start >= end:
            if start == 0:
                return 0    # of an empty file, from its beginning: that is all of it
            continue        # nothing of it is there
        if count == RANGES_MOST:
            return 0
        ranges[count] = range_t(start, end)
        count += 1
        total += end - start
    if not count:
        return RANGES_UNSATISFIED
    # Parts that overlap cost more than the whole is worth (RFC 9110, 14.2).
    return count if total <= file_size else 0


cdef int ranges_wanted(const parser_t* parser, const char* data, const validators_t* validators, uint64_t size,
                       range_t* ranges) noexcept nogil:
    """How many parts of the file are wanted; 0: all of it; RANGES_UNSATISFIED: it has none of these (416)."""
    cdef const field_t* field = only(parser, KNOWN_RANGE)
    cdef const char* text
    if field == NULL:
        return 0
    text = data + field.value.start
    if field.value.length < 7 or not is_word(text, b"bytes", 5) or text[5] != c"=":
        return 0
    if not range_applies(parser, data, validators):
        return 0
    return ranges_read(text + 6, field.value.length - 6, size, ranges)


# ---- codings ----

cdef int coding_of(const char* text, size_t size) noexcept nogil:
    """The coding of a name; CODINGS: any, "*"; -1: another one."""
    if size == 2 and is_word(text, b"br", 2):
        return CODING_BROTLI
    if size == 4 and is_word(text, b"gzip", 4):
        return CODING_GZIP
    if size == 4 and is_word(text, b"zstd", 4):
        return CODING_ZSTD
    if size == 6 and is_word(text, b"x-gzip", 6):
        return CODING_GZIP
    if size == 8 and is_word(text, b"identity", 8):
        return CODING_IDENTITY
    return CODINGS if size == 1 and text[0] == c"*" else -1


cdef uint16_t weight(const char* text, size_t size, size_t* at) noexcept nogil:
    """What follows the name of a coding, up to the next comma: the thousandths of its q-value, WEIGHT_MOST without."""
    cdef uint16_t thousandths = WEIGHT_MOST
    cdef uint16_t scale = 100
    while at[0] < size and text[at[0]] != c",":
        if (text[at[0]] | 0x20) == c"q" and at[0] + 2 < size and text[at[0] + 1] == c"=" and is_digit(text[at[0] + 2]):
            thousandths = WEIGHT_MOST if text[at[0] + 2] != c"0" else 0
            at[0] += 3
            if at[0] < size and text[at[0]] == c"." and not thousandths:
                at[0] += 1
                while at[0] < size and is_digit(text[at[0]]):
                    thousandths += scale * <uint16_t>(text[at[0]] - c"0")
                    scale //= 10
                    at[0] += 1
            continue
        at[0] += 1
    return thousandths


cdef void codings_accepted(const parser_t* parser, const char* data, uint16_t* weights) noexcept nogil:
    """What each coding is worth to the client (Accept-Encoding): 0 is not at all, WEIGHT_MOST most.

    The identity is worth something to everybody who does not say otherwise.
    """
    cdef bint named[CODINGS]
    cdef const field_t* field
    cdef const char* text
    cdef uint16_t others = 0, found
    cdef bint has_others = False
    cdef size_t at, start, size
    cdef uint64_t i
    cdef int coding
    memset(named, 0, sizeof(named))
    memset(weights, 0, <int>CODINGS * sizeof(uint16_t))
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known != KNOWN_ACCEPT_ENCODING:
            continue
        text = data + field.value.start
        size = field.value.length
        at = 0
        while at < size:
            if not octet_kinds[<unsigned char>text[at]] & IN_TOKEN:
                at += 1
                continue
            start = at
            while at < size and octet_kinds[<unsigned char>text[at]] & IN_TOKEN:
                at += 1
            coding = coding_of(text + start, at - start)
            found = weight(text, size, &at)
            if coding == CODINGS:
                others = found
                has_others = True
            elif coding >= 0:
                weights[coding] = found
                named[coding] = True
    for coding in range(<int>CODINGS):
        if not named[coding] and has_others:
            weights[coding] = others
        elif not named[coding] and coding == CODING_IDENTITY:
            weights[coding] = 1


# ---- the Python face ----

@cython.final
cdef class Asked:
    """What a request head asks of a file, for tests: Asked({"Range": "bytes=0-4"})."""

    cdef limits_t limits
    cdef parser_t parser
    cdef bytes head

    def __cinit__(self, *fields):
        limits_default(&self.limits)
        parser_init(&self.parser, &self.limits)
        parser_reset(&self.parser)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.head = f"GET / HTTP/1.1\r\nHost: test.example\r\n{lines}\r\n".encode("latin-1")
        if parser_feed(&self.parser, self.head, len(self.head)) != HEAD_DONE:
            raise ValueError(f"not a request head: {self.head!r}")

    def __dealloc__(self):
        parser_free(&self.parser)

    def precondition(self, bytes etag not None, int64_t modified, bint is_weak=False):
        """200, 304 or 412 for a file with that entity-tag (in quotes) and time."""
        cdef validators_t validators = validators_t(etag, len(etag), is_weak, modified)
        return precondition(&self.parser, self.head, &validators)

    def ranges(self, uint64_t size, bytes etag not None=b'""', int64_t modified=0, bint is_weak=False):
        """The parts that are wanted of a file of that size, [] for all of it; None if it has none of them."""
        cdef validators_t validators = validators_t(etag, len(etag), is_weak, modified)
        cdef range_t found[RANGES_MOST]
        cdef int count = ranges_wanted(&self.parser, self.head, &validators, size, found)
        if count == RANGES_UNSATISFIED:
            return None
        return [(found[i].start, found[i].end) for i in range(count)]

    def codings(self):
        """The weights of identity, br, zstd and gzip."""
        cdef uint16_t weights[CODINGS]
        codings_accepted(&self.parser, self.head, weights)
        return tuple([weights[i] for i in range(<int>CODINGS)])


def seconds_of(bytes text not None):
    """Seconds since 1970 of an HTTP-date, or -1."""
    return date_read(text, len(text))
