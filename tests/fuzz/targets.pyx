# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What libFuzzer runs: one function for each target, and the program around them.

A target gets octets, drives a module without Python and checks what holds for any octets; a broken property aborts,
which libFuzzer takes for a crash. What a module said is checked here again in the most obvious way, and it may not
depend on how the octets were cut. Every feed gets a copy of its own, exactly as large as its contents, so that the
address sanitizer sees a read past the end, and a pointer kept from an earlier feed.

To add a target: a `try_` function, its line in `target_named`, and its seeds in tools/fuzz.py.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport fprintf, sprintf, stderr
from libc.stdlib cimport abort, free, getenv, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strcmp, strlen, strncmp
from libc.time cimport gmtime_r, strftime, time_t, tm

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_reserve, buffer_t, span_t
from fastwsgi._chunked cimport chunked_feed, chunked_reset, chunked_t
from fastwsgi._forwarded cimport *
from fastwsgi._networks cimport networks_match, networks_t, network_t
from fastwsgi._parser cimport *
from fastwsgi._proxy cimport *
from fastwsgi._response cimport *
from fastwsgi._trust cimport *


cdef extern from "<ctype.h>" nogil:
    int isalnum(int octet)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t size)

cdef extern from *:
    """
    /* MODULES is X(_parser) X(_chunked) and so on, by tools/fuzz.py: built into the program under their own names. */
    #define X(name) PyMODINIT_FUNC PyInit_##name(void);
    X(targets) MODULES
    #undef X
    #define X(name) || PyImport_AppendInittab("fastwsgi." #name, PyInit_##name)
    static int add_modules(void) { return PyImport_AppendInittab("targets", PyInit_targets) MODULES; }
    #undef X
    """
    int add_modules()
    void Py_InitializeEx(int with_signals)
    void* import_module "PyImport_ImportModule" (const char* name)
    void PyErr_Print()

cdef extern from "<sanitizer/lsan_interface.h>" nogil:
    void __lsan_disable()
    void __lsan_enable()


cdef void insist(bint holds, const char* what) noexcept nogil:
    if not holds:
        fprintf(stderr, "does not hold: %s\n", what)
        abort()


# --- octets that arrive -------------------------------------------------------------------------------------

cdef struct stream_t:
    # Octets on their way: those before `begin` have been used, those before `arrived` are there.
    const char* data
    size_t size
    size_t begin
    size_t arrived
    size_t largest          # octets in a piece
    uint64_t chance


cdef uint64_t draw(uint64_t* chance) noexcept nogil:
    """The next number of xorshift64."""
    chance[0] ^= chance[0] << 13
    chance[0] ^= chance[0] >> 7
    chance[0] ^= chance[0] << 17
    return chance[0]


cdef void stream_open(stream_t* stream, const char* data, size_t size, bint in_pieces) noexcept nogil:
    """Begin to send data[0:size]; the octets themselves decide how they are cut."""
    cdef size_t i
    memset(stream, 0, sizeof(stream_t))
    stream.data = data
    stream.size = size
    if not in_pieces:
        stream.arrived = size
        return
    stream.chance = 0xcbf29ce484222325ULL
    for i in range(size):
        stream.chance = (stream.chance ^ <uint8_t>data[i]) * 0x100000001b3ULL
    stream.chance |= 1
    # Now mostly small pieces, now mostly large ones, but not so many that it takes long.
    stream.largest = (<size_t>1 << draw(&stream.chance) % 10) + size // 64


cdef bint stream_more(stream_t* stream) noexcept nogil:
    """Let another piece arrive; False if nothing more comes."""
    if stream.arrived == stream.size:
        return False
    stream.arrived += 1 + draw(&stream.chance) % stream.largest
    if stream.arrived > stream.size:
        stream.arrived = stream.size
    return True


cdef char* copy_of(const char* data, size_t size) noexcept nogil:
    cdef char* copy = <char*>malloc(size)
    memcpy(copy, data, size)
    return copy


cdef void note(buffer_t* said, const void* what, size_t size) noexcept nogil:
    insist(buffer_append(said, <const char*>what, size) == 0, b"there is memory")


# --- looking again ------------------------------------------------------------------------------------------

cdef bint is_token(const char* text, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if not isalnum(<uint8_t>text[i]) and memchr(b"!#$%&'*+-.^_`|~", text[i], 15) == NULL:
            return False
    return size > 0


cdef bint is_text(const char* text, size_t size) noexcept nogil:
    """Nothing in it ends a line or a string somewhere."""
    cdef size_t i
    for i in range(size):
        if (<uint8_t>text[i] < 0x20 and text[i] != c'\t') or text[i] == 0x7f:
            return False
    return True


cdef bint is_name(const char* text, size_t size, const char* name) noexcept nogil:
    return size == strlen(name) and strncasecmp(text, name, size) == 0


cdef bint is_span(span_t span, const char* data, const char* start, const char* end) noexcept nogil:
    return data + span.start == start and data + span.start + span.length == end


cdef const char* line_end(const char* line, const char* end) noexcept nogil:
    """The CRLF that ends the line, which has to be there; nothing before it looks like the end of a line."""
    cdef const char* cr = <const char*>memchr(line, c'\r', <size_t>(end - line))
    insist(cr != NULL and end - cr >= 2 and cr[1] == c'\n', b"a line ends with CRLF")
    insist(is_text(line, <size_t>(cr - line)), b"no control octet in a line")
    return cr


cdef const char* skip_blanks(const char* at, const char* end) noexcept nogil:
    while at < end and (at[0] == c' ' or at[0] == c'\t'):
        at += 1
    return at


cdef const char* drop_blanks(const char* start, const char* end) noexcept nogil:
    """Where start..end ends without the blanks at its end."""
    while end > start and ((end - 1)[0] == c' ' or (end - 1)[0] == c'\t'):
        end -= 1
    return end


# --- parser -------------------------------------------------------------------------------------------------

cdef void check_request_line(const parser_t* parser, const char* data, const char* line,
                             const char* end) noexcept nogil:
    cdef const char* target = <const char*>memchr(line, c' ', <size_t>(end - line)) + 1
    cdef const char* version
    cdef const char* query
    insist(target != <const char*>1, b"a space after the method")
    version = <const char*>memchr(target, c' ', <size_t>(end - target)) + 1
    insist(version != <const char*>1, b"a space after the target")
    insist(is_span(parser.request_line, data, line, end), b"the request line is where it is")
    insist(is_span(parser.method_name, data, line, target - 1), b"the method is where it is")
    insist(is_token(line, parser.method_name.length), b"the method is a token")
    insist(is_span(parser.target, data, target, version - 1), b"the target is where it is")
    insist(memchr(target, c'\t', <size_t>(end - target)) == NULL, b"no tab in the request line")
    insist(end - version == 8 and memcmp(version, b"HTTP/1.", 7) == 0, b"the version is 1.x")
    insist(parser.version_minor == (version[7] != c'0'), b"1.0 or better")
    query = <const char*>memchr(target, c'?', parser.target.length)
    insist(parser.has_query == (query != NULL and parser.target_form != TARGET_AUTHORITY), b"there is a query")
    if parser.has_query:
        insist(is_span(parser.query, data, query + 1, version - 1), b"the query is where it is")
    else:
        query = version - 1
    if parser.target_form == TARGET_ORIGIN:
        insist(target[0] == c'/' and is_span(parser.path, data, target, query), b"the path is all before the query")
    elif parser.target_form == TARGET_ASTERISK:
        insist(parser.target.length == 1 and target[0] == c'*', b"the asterisk is one")
        insist(is_span(parser.path, data, target, target + 1), b"and stands for the path")
    elif parser.target_form == TARGET_AUTHORITY:
        insist(parser.method == METHOD_CONNECT and parser.path.length == 0, b"an authority is CONNECT's")
        insist(is_span(parser.authority, data, target, query), b"the authority is the target")
    else:
        line = data + parser.authority.start
        insist(strncmp(line - 3, b"://", 3) == 0 and line - target >= 7, b"an authority comes after the scheme")
        line += parser.authority.length
        insist(line <= query and parser.authority.length > 0, b"and before the query")
        if line == query:
            insist(parser.path.length == 1 and data[parser.path.start] == c'/', b"an empty path is a slash")
        else:
            insist(line[0] == c'/' and is_span(parser.path, data, line, query), b"the path is all after it")


cdef void check_field(const parser_t* parser, const field_t* field, const char* data, const char* line,
                      const char* end, uint64_t seen) noexcept nogil:
    cdef const char* colon = <const char*>memchr(line, c':', <size_t>(end - line))
    cdef const char* value
    cdef const known_name_t* entry
    cdef int known = KNOWN_NONE + 1
    cdef bint is_ascii = True
    insist(colon != NULL, b"a colon in every field line")
    insist(is_token(line, <size_t>(colon - line)), b"a field name is a token")
    insist(is_span(field.name, data, line, colon), b"a field name is where it is")
    value = skip_blanks(colon + 1, end)
    end = drop_blanks(value, end)
    insist(is_span(field.value, data, value, end), b"a field value is where it is")
    while value < end:
        is_ascii = is_ascii and <uint8_t>value[0] < 0x80
        value += 1
    insist(field.is_ascii == is_ascii, b"is_ascii")
    insist(field.is_left_out == (memchr(line, c'_', field.name.length) != NULL), b"is_left_out")
    while True:
        entry = known_name(known)
        if entry == NULL or is_name(line, field.name.length, entry.name):
            break
        known += 1
    insist(field.known == (KNOWN_NONE if entry == NULL else known), b"a known name is known")
    insist(known_find(line, field.name.length) == field.known, b"and found")
    insist(field.is_repeated == (entry != NULL and seen >> known & 1 != 0), b"is_repeated")


cdef void check_framing(const parser_t* parser, const char* data) noexcept nogil:
    cdef const field_t* field
    cdef const char* name
    cdef const char* value
    cdef uint64_t length = 0
    cdef int hosts = 0, lengths = 0, codings = 0
    cdef uint32_t i, n
    for i in range(parser.field_count):
        field = &parser.fields[i]
        name = data + field.name.start
        value = data + field.value.start
        if is_name(name, field.name.length, b"Host"):
            insist(parser.host_field == <int>i, b"the Host field is where it is")
            hosts += 1
        elif is_name(name, field.name.length, b"Transfer-Encoding"):
            codings += 1
            insist(is_name(value, field.value.length, b"chunked"), b"chunked is the only coding")
        elif is_name(name, field.name.length, b"Content-Length"):
            lengths += 1
            insist(field.value.length > 0, b"Content-Length has digits")
            for n in range(field.value.length):
                insist(c'0' <= value[n] <= c'9', b"Content-Length has digits alone")
                length = length * 10 + <uint64_t>(value[n] - c'0')
                insist(length < 1ULL << 63, b"Content-Length fits")
    insist(hosts == 1 or (hosts == 0 and parser.version_minor == 0), b"one Host, unless in HTTP/1.0")
    insist((hosts == 1) == (parser.host_field >= 0), b"the Host field is there")
    insist(lengths + codings <= 1, b"one framing")
    insist(parser.has_content_length == lengths and parser.content_length == length, b"content_length")
    insist(parser.is_chunked == codings, b"is_chunked")
    insist(not codings or parser.version_minor == 1, b"no coding in HTTP/1.0")
    insist(length <= parser.limits.content, b"the content is within its limit")


cdef void check_head(const parser_t* parser, const limits_t* limits, const char* data, size_t size) noexcept nogil:
    """Read the head of data[0:size] once more, line by line."""
    cdef const char* end = data + parser.head_size
    cdef const char* line = data
    cdef const char* stop
    cdef uint64_t seen = 0
    cdef uint32_t i
    insist(parser.head_size <= size and parser.head_size <= limits.head_size, b"the head is within its limit")
    insist(parser.field_count <= limits.fields, b"not too many fields")
    while line_end(line, end) == line:
        line += 2
    stop = line_end(line, end)
    insist(<size_t>(stop - line) <= limits.request_line, b"the request line is within its limit")
    check_request_line(parser, data, line, stop)
    for i in range(parser.field_count):
        line = stop + 2
        stop = line_end(line, end)
        insist(<size_t>(stop - line) <= limits.field_size, b"a field line is within its limit")
        check_field(parser, &parser.fields[i], data, line, stop, seen)
        if parser.fields[i].known:
            seen |= 1ULL << parser.fields[i].known
        elif parser.fields[i].is_left_out or strncasecmp(line, b"x-forwarded-", 12) == 0:
            seen |= 1
    insist(seen == parser.known_seen, b"known_seen")
    insist(line_end(stop + 2, end) == stop + 2 and stop + 4 == end, b"an empty line ends the head")
    check_framing(parser, data)


cdef void note_head(buffer_t* said, const parser_t* parser) noexcept nogil:
    """Note all of a parser but what is its own business."""
    cdef parser_t copy
    memcpy(&copy, parser, sizeof(copy))
    copy.limits = NULL
    copy.fields = NULL
    copy.field_capacity = copy.scanned = 0
    note(said, &copy, sizeof(copy))
    note(said, parser.fields, parser.field_count * sizeof(field_t))


cdef int read_head(stream_t* stream, parser_t* parser, const limits_t* limits, buffer_t* said) noexcept nogil:
    """Read a head, noting what is in it; as parser_feed."""
    cdef int result
    cdef char* copy
    cdef size_t size
    parser_reset(parser)
    while True:
        size = stream.arrived - stream.begin
        copy = copy_of(stream.data + stream.begin, size)
        result = parser_feed(parser, copy, size)
        if result == HEAD_DONE:
            check_head(parser, limits, copy, size)
            note_head(said, parser)
            stream.begin += parser.head_size
        free(copy)
        if result != NEED_MORE or not stream_more(stream):
            return result


cdef int read_length(stream_t* stream, uint64_t length) noexcept nogil:
    while stream.arrived - stream.begin < length:
        if not stream_more(stream):
            return NEED_MORE
    stream.begin += length
    return CONTENT_DONE


cdef int read_connection(stream_t* stream, const limits_t* limits, buffer_t* said) noexcept nogil:
    """Read requests, one after the other; how it ended, as parser_feed."""
    cdef parser_t parser
    cdef int result
    parser_init(&parser, limits)
    while True:
        result = read_head(stream, &parser, limits, said)
        if result == HEAD_DONE:
            if parser.is_chunked:
                result = read_chunked(stream, limits, said)
            else:
                result = read_length(stream, parser.content_length)
        if result != CONTENT_DONE:
            parser_free(&parser)
            return result


# --- chunked ------------------------------------------------------------------------------------------------

cdef int read_chunked(stream_t* stream, const limits_t* limits, buffer_t* said) noexcept nogil:
    """Decode chunked content, noting it; as chunked_feed."""
    cdef chunked_t chunked
    cdef size_t size, consumed, decoded, start = stream.begin, content = said.size
    cdef char* copy
    cdef int result
    chunked_reset(&chunked)
    while True:
        size = stream.arrived - stream.begin
        copy = copy_of(stream.data + stream.begin, size)
        result = chunked_feed(&chunked, limits, limits.content, copy, size, &consumed, &decoded)
        insist(consumed <= size and decoded <= consumed, b"no more used than given, no more decoded than used")
        insist(result != NEED_MORE or consumed == size, b"all is used while more is needed")
        insist(memcmp(copy + consumed, stream.data + stream.begin + consumed, size - consumed) == 0,
               b"what follows is left alone")
        note(said, copy, decoded)
        free(copy)
        stream.begin += consumed
        if result != NEED_MORE or not stream_more(stream):
            break
    if result >= 0:
        insist(chunked.content + chunked.overhead == stream.begin - start, b"each octet is content or framing")
    insist(chunked.content == said.size - content, b"the content is counted")
    insist(chunked.content <= limits.content, b"the content is within its limit")
    if result == CONTENT_DONE:
        check_chunked(stream.data + start, stream.data + stream.begin, said.data + content, chunked.content)
        insist(chunked_feed(&chunked, limits, limits.content, said.data, 0, &consumed, &decoded) == CONTENT_DONE, b"done is done")
    note(said, &chunked, sizeof(chunked))
    return result


cdef void check_chunked(const char* line, const char* end, const char* content, uint64_t left) noexcept nogil:
    """Read chunked content line..end once more; it has to be content[0:left]."""
    cdef const char* at
    cdef const char* stop
    cdef const char* colon
    cdef uint64_t size
    cdef int digits
    while True:
        stop = line_end(line, end)
        size = 0
        digits = 0
        at = line
        while at < stop and memchr(b"0123456789abcdefABCDEF", at[0], 22) != NULL:
            size = size << 4 | <uint64_t>(at[0] - c'0' if at[0] <= c'9' else (at[0] | 0x20) - c'a' + 10)
            digits += 1
            at += 1
        insist(0 < digits <= 16, b"a chunk size has digits")
        at = skip_blanks(at, stop)
        insist(at[0] == c';' or (at == stop and (stop - 1)[0] != c' ' and (stop - 1)[0] != c'\t'),
               b"only extensions after the chunk size")
        line = stop + 2
        if size == 0:
            break
        insist(size <= left and <size_t>(end - line) > size, b"a chunk is all there")
        insist(memcmp(line, content, size) == 0, b"a chunk is the content")
        content += size
        left -= size
        line += size
        insist(line_end(line, end) == line, b"CRLF after a chunk")
        line += 2
    insist(left == 0, b"no content but that of chunks")
    while True:
        stop = line_end(line, end)
        if stop == line:
            break
        colon = <const char*>memchr(line, c':', <size_t>(stop - line))
        insist(colon != NULL and is_token(line, <size_t>(colon - line)), b"a trailer field has a name")
        line = stop + 2
    insist(stop + 2 == end, b"an empty line ends the trailer section")


# --- both ---------------------------------------------------------------------------------------------------

ctypedef int (*reader_t)(stream_t*, const limits_t*, buffer_t*) noexcept nogil


cdef int read_all(reader_t reader, const limits_t* limits, const char* data, size_t size, bint in_pieces,
                  buffer_t* said) noexcept nogil:
    cdef stream_t stream
    cdef int result
    memset(said, 0, sizeof(buffer_t))
    buffer_reserve(said, 512)
    stream_open(&stream, data, size, in_pieces)
    result = reader(&stream, limits, said)
    note(said, &result, sizeof(result))
    return result


cdef void insist_same(buffer_t* one, buffer_t* other, const char* what) noexcept nogil:
    """Frees the other."""
    insist(one.size == other.size and memcmp(one.data, other.data, one.size) == 0, what)
    buffer_free(other)


cdef void read_in_ways(reader_t reader, const limits_t* limits, const char* data, size_t size) noexcept nogil:
    cdef buffer_t whole, other
    cdef char* longer
    cdef int result = read_all(reader, limits, data, size, False, &whole)
    read_all(reader, limits, data, size, True, &other)
    insist_same(&whole, &other, b"how it is cut makes no difference")
    if result < 0:
        longer = <char*>malloc(size + 9)
        memcpy(longer, data, size)
        memcpy(longer + size, b"\r\n0\r\n\r\n\r\n", 9)
        read_all(reader, limits, longer, size + 9, False, &other)
        insist_same(&whole, &other, b"refused is refused, whatever follows")
        free(longer)
    buffer_free(&whole)


cdef void read_with_limits(reader_t reader, const char* data, size_t size) noexcept nogil:
    """With the limits as they are, and with limits so tight that they are met."""
    cdef limits_t limits
    limits_default(&limits)
    read_in_ways(reader, &limits, data, size)
    limits.request_line = 40
    limits.fields = 4
    limits.field_size = 30
    limits.head_size = 120
    limits.chunk_line = 10
    limits.trailer_size = 30
    limits.content = 20
    limits.chunk_overhead = 12
    read_in_ways(reader, &limits, data, size)


# --- response -----------------------------------------------------------------------------------------------

cdef struct tally_t:
    # How many field lines there are.
    int fields, lengths, codings, connections, dates, servers


cdef void tally_field(tally_t* tally, const char* name, size_t size) noexcept nogil:
    tally.fields += 1
    tally.lengths += is_name(name, size, b"Content-Length")
    tally.codings += is_name(name, size, b"Transfer-Encoding")
    tally.connections += is_name(name, size, b"Connection")
    tally.dates += is_name(name, size, b"Date")
    tally.servers += is_name(name, size, b"Server")


cdef void check_date(const char* line, size_t size, int64_t now) noexcept nogil:
    cdef char expected[64]
    cdef time_t seconds = now
    cdef tm broken_down
    gmtime_r(&seconds, &broken_down)
    insist(strftime(expected, sizeof(expected), b"Date: %a, %d %b %Y %H:%M:%S GMT", &broken_down) == size
           and memcmp(expected, line, size) == 0, b"the Date is right")


cdef void check_response(const buffer_t* out, const buffer_t* given, const tally_t* theirs, framing_t framing,
                         const head_t* head, bint keep_alive, int version_minor, int64_t now) noexcept nogil:
    """Read a response head once more. It begins with `given`, the lines that have been accepted."""
    cdef const char* end = out.data + out.size
    cdef const char* line = out.data
    cdef const char* stop = line_end(line, end)
    cdef const char* colon
    cdef tally_t tally
    insist(out.size > given.size and memcmp(out.data, given.data, given.size) == 0, b"accepted lines leave as given")
    insist(stop - line >= 13 and memcmp(line, b"HTTP/1.1 ", 9) == 0 and line[12] == c' ', b"a status line")
    memset(&tally, 0, sizeof(tally))
    while True:
        line = stop + 2
        stop = line_end(line, end)
        if stop == line:
            break
        colon = <const char*>memchr(line, c':', <size_t>(stop - line))
        insist(colon != NULL and is_token(line, <size_t>(colon - line)), b"a field line has a name")
        tally_field(&tally, line, <size_t>(colon - line))
        if is_name(line, <size_t>(colon - line), b"Date") and not theirs.dates:
            check_date(line, <size_t>(stop - line), now)
    insist(stop + 2 == end, b"an empty line ends the head")
    insist(tally.lengths + tally.codings <= 1, b"one framing")
    insist(tally.dates == theirs.dates or (theirs.dates == 0 and tally.dates == 1), b"a Date unless there is one")
    insist(tally.servers == theirs.servers or (theirs.servers == 0 and tally.servers == 1), b"likewise Server")
    insist(theirs.connections == 0 and theirs.codings == 0, b"hop-by-hop fields are the server's")
    insist(tally.connections == (not keep_alive or version_minor == 0), b"Connection where it is needed")
    insist(tally.codings == (framing == FRAMING_CHUNKED), b"Transfer-Encoding exactly when chunked")
    if framing == FRAMING_LENGTH or head.status == 205:
        insist(tally.lengths == 1, b"Content-Length exactly once")
    elif framing != FRAMING_NONE or head.status == 204:
        insist(tally.lengths == 0, b"no Content-Length")
    insist(framing != FRAMING_CHUNKED or version_minor == 1, b"no chunks for HTTP/1.0")
    insist(framing != FRAMING_CLOSE or not keep_alive, b"an end by closing is announced")


cdef const char* part_next(const char** at, const char* end, size_t* size) noexcept nogil:
    """An exact copy of the octets up to the next record separator, which are passed over; NULL at the end."""
    cdef const char* start = at[0]
    cdef const char* stop
    if start > end:
        return NULL
    stop = <const char*>memchr(start, 0x1e, <size_t>(end - start))
    if stop == NULL:
        stop = end
    at[0] = stop + 1
    size[0] = <size_t>(stop - start)
    return copy_of(start, size[0])


cdef void fit(buffer_t* buffer, size_t room) noexcept nogil:
    """Give a buffer exactly so much room.

    With one octet less than is about to be written, the sanitizer sees a writer that asks for less than it writes.
    """
    buffer.capacity = buffer.size + room
    buffer.data = <char*>realloc(buffer.data, buffer.capacity)


cdef void add_lines(buffer_t* given, const char* first, size_t first_size, const char* between,
                    const char* second, size_t second_size) noexcept nogil:
    note(given, first, first_size)
    note(given, between, strlen(between))
    note(given, second, second_size)
    note(given, b"\r\n", 2)


cdef bint add_field(head_t* head, buffer_t* given, tally_t* tally, const char* name, size_t name_size,
                    const char* value, size_t value_size) noexcept nogil:
    """Add a field as an application would; False if it is refused."""
    cdef int result
    fit(&head.lines, name_size + value_size + 3)
    result = head_field(head, name, name_size, value, value_size)
    if result == RESPONSE_BAD_NAME:
        insist(not is_token(name, name_size), b"only a bad name is refused")
    elif result == RESPONSE_BAD_VALUE:
        insist(not is_text(value, value_size), b"only a bad value is refused")
    else:
        insist(is_token(name, name_size) and is_text(value, value_size), b"a bad field is refused")
    if result == RESPONSE_OK:
        add_lines(given, name, name_size, b": ", value, value_size)
        tally_field(tally, name, name_size)
    return result >= 0


cdef void try_response(const char* data, size_t size) noexcept nogil:
    """The input: an octet of flags, four of time, then status, name, value, name, value and so on.

    A record separator stands between them; it is a control octet that no field may have, like all the others.
    """
    cdef const char* end = data + size
    cdef const char* name
    cdef const char* value
    cdef size_t name_size, value_size
    cdef head_t head
    cdef tally_t tally
    cdef buffer_t given, out, again
    cdef date_t date
    cdef framing_t framing
    cdef char expected[20]
    cdef char chunk[18]
    cdef uint8_t flags
    cdef uint32_t number
    cdef bint is_fine, is_ours, keep_alive, size_is_known
    cdef int version_minor
    if size < 5:
        return
    flags = <uint8_t>data[0]
    memcpy(&number, data + 1, 4)
    data += 5
    insist(chunk_line(chunk, number) == <size_t>sprintf(expected, b"%x\r\n", number)
           and memcmp(chunk, expected, strlen(expected)) == 0, b"a chunk size line is right")
    memset(&head, 0, sizeof(head))
    memset(&tally, 0, sizeof(tally))
    memset(&given, 0, sizeof(given))
    memset(&date, 0, sizeof(date))
    memset(&out, 0, sizeof(out))
    memset(&again, 0, sizeof(again))

    value = part_next(&data, end, &value_size)
    fit(&head.lines, value_size + (11 if value_size == 3 else 10))
    is_fine = head_start(&head, value, value_size) == RESPONSE_OK
    insist(not is_fine or is_text(value, value_size), b"a bad status is refused")
    add_lines(&given, b"HTTP/1.1", 8, b" ", value, value_size)
    if value_size == 3:
        given.size -= 2
        note(&given, b" \r\n", 3)
    free(<void*>value)
    while is_fine:
        name = part_next(&data, end, &name_size)
        if name == NULL:
            break
        value = part_next(&data, end, &value_size)
        if value != NULL:
            is_fine = add_field(&head, &given, &tally, name, name_size, value, value_size)
            free(<void*>value)
        free(<void*>name)

    if is_fine:
        insist(head.lines.size == given.size, b"nothing but the accepted lines")
        version_minor = flags & 1
        size_is_known = flags & 2 != 0
        framing = head_framing(&head, flags & 4 != 0, version_minor, size_is_known)
        keep_alive = flags & 8 != 0 and framing != FRAMING_CLOSE
        is_ours = framing == FRAMING_LENGTH and not head.has_content_length
        insist(head_finish(&head, &again, framing, is_ours, number, keep_alive, version_minor, &date, number) == 0,
               b"there is memory")
        fit(&out, again.size - 1)
        head_finish(&head, &out, framing, is_ours, number, keep_alive, version_minor, &date, number)
        insist_same(&out, &again, b"it does not matter that the date is known")
        check_response(&out, &given, &tally, framing, &head, keep_alive, version_minor, number)
        insist(framing != FRAMING_LENGTH or size_is_known or head.has_content_length, b"a length is known")
    buffer_free(&out)
    buffer_free(&given)
    buffer_free(&head.lines)


# --- whom to trust ------------------------------------------------------------------------------------------

cdef int header_at(const char* data, size_t size, int versions, proxy_t* proxy) noexcept nogil:
    cdef char* copy = copy_of(data, size)
    cdef int found = proxy_parse(copy, size, versions, proxy)
    free(copy)
    return found


cdef void try_proxy(const char* data, size_t size) noexcept nogil:
    """The input: an octet for the versions, then what comes over a connection."""
    cdef stream_t stream
    cdef proxy_t proxy, again
    cdef int versions, whole, found = PROXY_MORE
    if size == 0:
        return
    versions = 1 + <uint8_t>data[0] % 3
    data += 1
    size -= 1
    whole = header_at(data, size, versions, &proxy)
    stream_open(&stream, data, size, True)
    while found == PROXY_MORE and stream_more(&stream):
        found = header_at(data, stream.arrived, versions, &again)
    insist(found == whole and (whole <= 0 or memcmp(&proxy, &again, sizeof(proxy)) == 0),
           b"how it is cut makes no difference")
    if whole <= 0:
        insist(whole == PROXY_MORE or whole == PROXY_MISSING or whole == PROXY_BAD, b"an outcome")
        insist(whole != PROXY_MORE or size < 16 + 4096, b"a header has an end")
        return
    insist(<size_t>whole <= size, b"a header is no longer than what has come")
    insist(header_at(data, <size_t>whole, versions, &again) == whole, b"what is behind a header does not count")
    if data[0] == c'P':
        insist(versions & PROXY_V1 and whole <= 107 and data[whole - 2] == c'\r' and data[whole - 1] == c'\n',
               b"version 1 is one line")
        insist(memchr(data, c'\n', <size_t>whole - 1) == NULL, b"and no more")
    else:
        insist(versions & PROXY_V2 and whole == 16 + ((<uint8_t>data[14]) << 8 | <uint8_t>data[15]),
               b"version 2 says how long it is")


cdef network_t private_network
cdef networks_t trusted_networks


cdef const networks_t* trusted() noexcept nogil:
    """10.0.0.0/8, without Python."""
    memcpy(private_network.address.octets, b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\0", 16)
    private_network.bits = 104
    trusted_networks.items = &private_network
    trusted_networks.count = 1
    return &trusted_networks


cdef hops_t hops_in(bint is_forwarded, const char* data, size_t size, hop_t* hop) noexcept nogil:
    cdef char* copy = copy_of(data, size)
    cdef hops_t found
    if is_forwarded:
        found = forwarded_elements(copy, size, trusted(), hop)
    else:
        found = forwarded_for(copy, size, trusted(), hop)
    if found == HOPS_CLIENT:
        insist(hop.node.kind == NODE_HIDDEN or (
            hop.node.kind == NODE_ADDRESS and not networks_match(trusted(), &hop.node.address)), b"a client is not trusted")
    elif found == HOPS_TRUSTED:
        insist(hop.node.kind == NODE_ADDRESS and networks_match(trusted(), &hop.node.address), b"a trusted hop is trusted")
    if found > HOPS_NONE:
        insist(hop.scheme < SCHEME_BAD, b"a scheme is one")
        insist(hop.host.start + <size_t>hop.host.length <= size, b"a host is within the value")
        insist(hop.host.length == 0 or is_host(copy + hop.host.start, hop.host.length), b"a host is one")
    free(copy)
    return found


cdef void try_forwarded(const char* data, size_t size) noexcept nogil:
    """The input: an octet for the field's name, then its value."""
    cdef hop_t hop
    cdef buffer_t value
    cdef hops_t found
    cdef bint is_forwarded
    if size == 0:
        return
    is_forwarded = data[0] & 1
    hops_in(is_forwarded, data + 1, size - 1, &hop)
    # Whatever a client sends, what the proxy appends to it is what counts.
    memset(&value, 0, sizeof(value))
    note(&value, data + 1, size - 1)
    if is_forwarded:
        note(&value, b", for=192.0.2.1;proto=http", 26)
    else:
        note(&value, b", 192.0.2.1, 10.0.0.1", 21)
    found = hops_in(is_forwarded, value.data, value.size, &hop)
    insist(found == HOPS_CLIENT or (is_forwarded and found == HOPS_BAD), b"the proxy has the last word")
    if found == HOPS_CLIENT:
        insist(memcmp(hop.node.address.octets, b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01", 16) == 0,
               b"which names the client")
        insist(not is_forwarded or hop.scheme == SCHEME_HTTP, b"and the scheme")
    buffer_free(&value)


cdef void try_trust(const char* data, size_t size) noexcept nogil:
    """The input: an octet of flags, then a request head."""
    cdef limits_t limits
    cdef parser_t parser
    cdef trust_t trust
    cdef forwarded_t forwarded
    cdef char remark[REMARK_ROOM]
    cdef const char* names = b"script_name\0remote_user\0"
    cdef char* copy
    cdef const field_t* field
    cdef bint is_trusted
    cdef uint32_t i
    cdef int result
    if size == 0:
        return
    memset(&trust, 0, sizeof(trust))
    trust.forwarders = trusted()[0]
    trust.names = <char*>names
    trust.header_map = <header_map_t>((<uint8_t>data[0] >> 1) % 3)
    is_trusted = data[0] & 1
    limits_default(&limits)
    parser_init(&parser, &limits)
    copy = copy_of(data + 1, size - 1)
    if size > 1 and parser_feed(&parser, copy, size - 1) == HEAD_DONE and trust_concerns(parser.known_seen):
        result = trust_head(&trust, &parser, copy, is_trusted, &forwarded, remark)
        insist(result <= 0 and strlen(remark) < REMARK_ROOM, b"an outcome")
        insist(is_text(remark, strlen(remark)), b"a remark has no control octet")
        if result == 0:
            insist(is_trusted or not forwarded.is_set, b"only trusted peers are believed")
            insist(forwarded.script_length <= parser.path.length, b"a prefix of the path")
            for i in range(parser.field_count):
                field = &parser.fields[i]
                insist(is_trusted or field.is_left_out or field.name.length < 12
                       or strncasecmp(copy + field.name.start, b"x-forwarded-", 12) != 0, b"the others' fields are removed")
    free(copy)
    parser_free(&parser)


# --- the program --------------------------------------------------------------------------------------------

cdef void try_parser(const char* data, size_t size) noexcept nogil:
    """The input: what comes over a connection."""
    read_with_limits(read_connection, data, size)


cdef void try_chunked(const char* data, size_t size) noexcept nogil:
    """The input: chunked content, and what comes after it."""
    read_with_limits(read_chunked, data, size)


ctypedef void (*target_t)(const char*, size_t) noexcept nogil

cdef target_t target


cdef target_t target_named(const char* name) noexcept nogil:
    if strcmp(name, b"parser") == 0:
        return try_parser
    if strcmp(name, b"chunked") == 0:
        return try_chunked
    if strcmp(name, b"response") == 0:
        return try_response
    if strcmp(name, b"proxy") == 0:
        return try_proxy
    if strcmp(name, b"forwarded") == 0:
        return try_forwarded
    if strcmp(name, b"trust") == 0:
        return try_trust
    return NULL


cdef public int LLVMFuzzerInitialize(int* argc, char*** argv) noexcept:
    """Start Python for the one thing the modules need it for: their constants are made at import."""
    global target
    cdef const char* name = getenv(b"FUZZ_TARGET")
    target = NULL if name == NULL else target_named(name)
    insist(target != NULL, b"FUZZ_TARGET names a target")
    # What Python keeps until the end is no leak.
    __lsan_disable()
    insist(add_modules() == 0, b"the modules are known to Python")
    Py_InitializeEx(0)
    if import_module(b"targets") == NULL:
        PyErr_Print()
        abort()
    __lsan_enable()
    return 0


cdef public int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) noexcept nogil:
    target(<const char*>data, size)
    return 0
