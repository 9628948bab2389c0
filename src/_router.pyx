"""Host and path of a request to the route that it takes.

Routes come from mounts.py with all that they inherit; here is only the finding, by hashes of those beginnings of the
path, and ends of the host, that have the length of one that is known. Knows no request and no connection.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

from fastwsgi._guard cimport Guard
from fastwsgi._octets cimport is_digit
from fastwsgi._platform cimport platform_now_ns
from fastwsgi._response cimport LINES_MOST, field_line_t, field_lines_t
from fastwsgi._static cimport Site

from fastwsgi import mounts

from fastwsgi.mounts import status_line

cdef enum:
    SEGMENTS_MOST = 64      # of a route's path

ACTIONS = {"app": ACTION_APPLICATION, "static": ACTION_STATIC, "answer": ACTION_ANSWER}

PIECES = {
    "": PIECE_TEXT,
    "scheme": PIECE_SCHEME,
    "host": PIECE_HOST,
    "uri": PIECE_URI,
    "path": PIECE_PATH,
    "query": PIECE_QUERY,
    "rest": PIECE_REST,
}

cdef const uint64_t PRIME = <uint64_t>0x1e3779b97f4a7c15
# Octets or-ed with this are the same in either case; others may be, too, which only a comparison can tell.
cdef const uint64_t ANY_CASE = <uint64_t>0x2020202020202020


cdef inline uint64_t octets_hash(const char* text, size_t size, uint64_t fold) noexcept nogil:
    # What clients send is only looked for, never kept: nothing is won by making it collide.
    cdef uint64_t hash = size
    cdef uint64_t word
    cdef size_t i = 0
    while i + 8 <= size:
        memcpy(&word, text + i, 8)
        hash = (hash ^ (word | fold)) * PRIME
        i += 8
    if i < size and size >= 8:
        memcpy(&word, text + size - 8, 8)
        return (hash ^ (word | fold)) * PRIME
    while i < size:
        hash = (hash ^ (<uint8_t>text[i] | (fold & 0xff))) * PRIME
        i += 1
    return hash


cdef inline uint8_t lower(char octet) noexcept nogil:
    return <uint8_t>(octet | 0x20 if c"A" <= octet <= c"Z" else octet)


cdef inline uint32_t place(uint64_t hash, uint32_t mask) noexcept nogil:
    return <uint32_t>(hash >> 32) & mask


cdef inline uint64_t length_bit(size_t size) noexcept nogil:
    return <uint64_t>1 << (size & 63)


# ---- paths ----

cdef inline int digit(char octet) noexcept nogil:
    return octet - c"0" if octet <= c"9" else (octet | 0x20) - c"a" + 10


cdef inline ssize_t segment_ends(char* out, ssize_t start, ssize_t end) noexcept nogil:
    """A segment is out[start:end]: where the path ends if it is a dot segment, -1 out of the root, else `end`."""
    if end - start == 1 and out[start] == c".":
        return start
    if end - start == 2 and out[start] == c"." and out[start + 1] == c".":
        start -= 1
        while start > 0:
            start -= 1
            if out[start] == c"/":
                return start + 1
        return -1
    return end


cdef ssize_t path_resolve(const char* path, size_t size, char* out) noexcept nogil:
    cdef size_t i = 0, end = 0
    while i < size:
        out[end] = path[i]
        if path[i] == c"%" and i + 2 < size:
            out[end] = <char>(digit(path[i + 1]) << 4 | digit(path[i + 2]))
            i += 2
        i += 1
        end += 1
    return path_merge(out, end, out)


cdef ssize_t path_merge(const char* path, size_t size, char* out) noexcept nogil:
    cdef size_t i
    cdef ssize_t start = 0, end = 0, stop
    for i in range(size):
        if path[i] != c"/":
            out[end] = path[i]
            end += 1
            continue
        stop = segment_ends(out, start, end)
        if stop < 0:
            return -1
        if stop == end and (end == 0 or end > start):
            out[end] = c"/"
            end += 1
        else:
            end = stop
        start = end
    return segment_ends(out, start, end)


cdef bint path_is_plain(const char* path, size_t size) noexcept nogil:
    cdef uint64_t ones = <uint64_t>0x0101010101010101
    cdef uint64_t slashes = <uint64_t>0x2f2f2f2f2f2f2f2f
    cdef uint64_t here, behind, either
    cdef size_t i = 0
    # A slash with a slash or a dot behind it, which differ in their last bit; eight octets at a time.
    while i + 9 <= size:
        memcpy(&here, path + i, 8)
        memcpy(&behind, path + i + 1, 8)
        either = (here ^ slashes) | ((behind | ones) ^ slashes)
        # An octet of it is zero.
        if (either - ones) & ~either & (ones << 7):
            return False
        i += 8
    while i + 1 < size:
        if path[i] == c"/" and (path[i + 1] | 1) == c"/":
            return False
        i += 1
    return True


# ---- finding ----

cdef inline const entry_t* entry_find(const table_t* table, const char* path, size_t size) noexcept nogil:
    """The entry of a path, or the empty one where it would be."""
    cdef uint64_t hash = octets_hash(path, size, 0)
    cdef uint32_t at = place(hash, table.mask)
    cdef const entry_t* entry
    while True:
        entry = &table.entries[at]
        if entry.path == NULL or (entry.hash == hash and entry.size == size and memcmp(entry.path, path, size) == 0):
            return entry
        at = (at + 1) & table.mask


cdef uint32_t table_find(const table_t* table, const char* path, size_t size) noexcept nogil:
    """The index of the route whose path is the longest that the path begins with, at the end of a segment."""
    cdef uint32_t found = table.root
    cdef uint32_t depth
    cdef const char* end = path + size
    cdef const char* at = path
    cdef const entry_t* entry
    for depth in range(table.deepest):
        if at + 1 >= end:
            break
        at = <const char*>memchr(at + 1, c"/", <size_t>(end - at - 1))
        if at == NULL:
            at = end
        if not table.lengths & length_bit(<size_t>(at - path)):
            continue
        entry = entry_find(table, path, <size_t>(at - path))
        if entry.path != NULL:
            found = entry.route
    return found


cdef inline bint is_name(const char* name, const char* given, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if <uint8_t>name[i] != lower(given[i]):
            return False
    return True


cdef inline const host_t* host_at(const router_t* router, const char* name, size_t size) noexcept nogil:
    """The entry of a host, or the empty one where it would be."""
    cdef uint64_t hash = octets_hash(name, size, ANY_CASE)
    cdef uint32_t at = place(hash, router.host_mask)
    cdef const host_t* host
    while True:
        host = &router.hosts[at]
        if host.name == NULL or (host.hash == hash and host.size == size and is_name(host.name, name, size)):
            return host
        at = (at + 1) & router.host_mask


cdef size_t host_length(const char* authority, size_t size) noexcept nogil:
    cdef size_t i = size
    # What follows the last colon is a port, unless that is one of an IPv6 address.
    while i > 0 and is_digit(<uint8_t>authority[i - 1]):
        i -= 1
    if i > 0 and authority[i - 1] == c":":
        return i - 1
    return size


cdef inline uint32_t first_bit(const char* name) noexcept nogil:
    # The same for either case, and not for much else.
    return <uint32_t>1 << (<uint8_t>name[0] & 31)


cdef inline bint may_have_host(const router_t* router, const char* authority, size_t size) noexcept nogil:
    """At a guess: False for most hosts whose routes are those of any."""
    return router.suffix_lengths or (size and router.host_firsts & first_bit(authority))


cdef const table_t* host_find(const router_t* router, const char* name, size_t size) noexcept nogil:
    """The routes of a host: those of its name, or else of the longest *.suffix, or else of any."""
    cdef const host_t* host
    cdef size_t i
    size = host_length(name, size)
    # RFC 3986, 3.2.2: a dot at the end says only that the name is whole.
    if size > 1 and name[size - 1] == c".":
        size -= 1
    if router.host_lengths & length_bit(size):
        host = host_at(router, name, size)
        if host.name != NULL:
            return &host.table
    if router.suffix_lengths:
        for i in range(1, size):
            if name[i] == c"." and router.suffix_lengths & length_bit(size - i):
                host = host_at(router, name + i, size - i)
                if host.name != NULL:
                    return &host.table
    return &router.any


cdef const route_t* router_match(const router_t* router, const char* authority, size_t authority_size,
                                 const char* path, size_t size) noexcept nogil:
    cdef const table_t* table = &router.any
    if may_have_host(router, authority, authority_size):
        table = host_find(router, authority, authority_size)
    if size == 1:
        return &router.routes[table.root]
    return &router.routes[table_find(table, path, size)]


# ---- Python face ----

def resolve(bytes path not None):
    """The path as routes know it; None if it leads out of the root."""
    cdef bytearray out = bytearray(len(path) + 1)
    cdef ssize_t size = path_resolve(path, <size_t>len(path), out)
    return None if size < 0 else bytes(out[:size])


def is_plain(bytes path not None):
    """`resolve` would not change it."""
    return b"%" not in path and path_is_plain(path, <size_t>len(path))


cdef uint32_t room_for(size_t count):
    """A power of two, at least twice as many."""
    cdef uint32_t room = 2
    while room < 2 * count:
        room *= 2
    return room


cdef class Router:
    """The table of routes: Router(routes) of mounts.Route, each host's "/" among them.

    guards: what stands before each of them.
    """

    def __cinit__(self, routes, guards=()):
        cdef route_t* made
        cdef host_t* host
        cdef uint32_t index
        cdef size_t size
        cdef bytes name
        self.routes = tuple(routes)
        self.guards = tuple(guards) or (None,) * len(self.routes)
        self.kept = []
        self.sites = []
        self.router.routes = <route_t*>calloc(<size_t>len(self.routes) + 1, sizeof(route_t))
        if self.router.routes == NULL:
            raise MemoryError
        self.router.count = <uint32_t>len(self.routes)
        by_host = {}
        for index, (route, guard) in enumerate(zip(self.routes, self.guards, strict=True)):
            made = &self.router.routes[index]
            made.index = index
            made.action = ACTIONS[route.action]
            made.application = route.application
            made.guard = NULL if guard is None else &(<Guard>guard).guard
            made.script_length = prefix_length(route.application_path)
            made.root_length = prefix_length(route.action_path)
            made.is_internal = route.values.get("internal", False)
            if made.action == ACTION_STATIC:
                site = Site(mounts.static_roots(route), **mounts.static_settings(route))
                self.sites.append(site)
                made.site = &(<Site>site).site
            self.fill_lines(&made.lines, route.fields)
            if route.answer is not None:
                self.fill_answer(made, route.answer)
            by_host.setdefault(route.host, []).append(index)
        self.fill(&self.router.any, by_host.pop(""))
        if not by_host:
            return
        self.router.host_mask = room_for(len(by_host)) - 1
        self.router.hosts = <host_t*>calloc(self.router.host_mask + 1, sizeof(host_t))
        if self.router.hosts == NULL:
            raise MemoryError
        for pattern, indexes in by_host.items():
            name = pattern.removeprefix("*").encode("ascii")
            size = <size_t>len(name)
            host = <host_t*>host_at(&self.router, name, size)
            host.hash, host.name, host.size = octets_hash(name, size, ANY_CASE), self.keep(name), <uint32_t>size
            if name.startswith(b"."):
                self.router.suffix_lengths |= length_bit(size)
            else:
                self.router.host_lengths |= length_bit(size)
                self.router.host_firsts |= first_bit(name)
            self.fill(&host.table, indexes)

    def __dealloc__(self):
        cdef uint32_t i
        if self.router.hosts != NULL:
            for i in range(self.router.host_mask + 1):
                free(self.router.hosts[i].table.entries)
            free(self.router.hosts)
        for i in range(self.router.count):
            free(self.router.routes[i].lines.items)
            free(self.router.routes[i].pieces)
        free(self.router.any.entries)
        free(self.router.routes)

    cdef const char* keep(self, bytes octets) except NULL:
        """The octets, as long as this lives."""
        self.kept.append(octets)
        return octets

    cdef int fill_lines(self, field_lines_t* lines, tuple given) except -1:
        """Fields (name, value) to lines."""
        cdef bytes line
        if len(given) > LINES_MOST:
            raise ValueError(f"more than {LINES_MOST} response fields")
        lines.items = <field_line_t*>calloc(<size_t>len(given) + 1, sizeof(field_line_t))
        if lines.items == NULL:
            raise MemoryError
        for name, value in given:
            line = f"{name}: {value}\r\n".encode("latin-1")
            lines.items[lines.count] = field_line_t(self.keep(line), <uint32_t>len(line), <uint32_t>len(name))
            lines.count += 1
            if name.lower() == "server":
                lines.has_server = True
        return 0

    cdef int fill_answer(self, route_t* route, object answer) except -1:
        """An answer that is the same for all requests, but for its Location (mounts.Answer)."""
        cdef bytes text
        route.status = answer.status
        text = answer.status_line.encode("latin-1")
        route.status_line, route.status_size = self.keep(text), <uint32_t>len(text)
        route.other_status = answer.other_status
        text = status_line(answer.other_status or answer.status).encode("latin-1")
        route.other_line, route.other_size = self.keep(text), <uint32_t>len(text)
        text = answer.content.encode("utf-8")
        route.content, route.content_size = self.keep(text), <uint32_t>len(text)
        route.pieces = <piece_t*>calloc(<size_t>len(answer.location) + 1, sizeof(piece_t))
        if route.pieces == NULL:
            raise MemoryError
        for name, value in answer.location:
            text = value.encode("ascii")
            route.pieces[route.piece_count] = piece_t(PIECES[name], self.keep(text), <uint32_t>len(text))
            route.piece_count += 1
            route.needs_host |= name == "host"
        return 0

    cdef int fill(self, table_t* table, list indexes) except -1:
        """Make the table of a host's routes."""
        cdef entry_t* entry
        cdef size_t size
        cdef bytes path
        table.mask = room_for(len(indexes)) - 1
        table.entries = <entry_t*>calloc(table.mask + 1, sizeof(entry_t))
        if table.entries == NULL:
            raise MemoryError
        for index in indexes:
            path = self.routes[index].path.encode("utf-8")
            if path == b"/":
                table.root = index
                continue
            if path.count(b"/") > SEGMENTS_MOST:
                raise ValueError(f"{path!r} has too many segments")
            table.deepest = max(table.deepest, <uint32_t>path.count(b"/"))
            size = <size_t>len(path)
            entry = <entry_t*>entry_find(table, path, size)
            entry.hash, entry.path, entry.size = octets_hash(path, size, 0), self.keep(path), <uint32_t>size
            entry.route = index
            table.lengths |= length_bit(size)
        return 0

    def match(self, bytes authority not None, bytes path not None):
        """The route of a request with this Host and this path; None if the path leads out of the root."""
        found = resolve(path)
        return None if found is None else self.routes[self.find(authority, found)]

    def find(self, bytes authority not None, bytes path not None):
        """The same with a path that is resolved, and returning the index."""
        return router_match(&self.router, authority, <size_t>len(authority), path, <size_t>len(path)).index

    def time(self, bytes authority not None, bytes path not None, int times):
        """How many nanoseconds the core takes for it, on average of so many times."""
        cdef uint64_t sum = 0
        cdef int64_t began_ns = platform_now_ns()
        cdef const char* name = authority
        cdef const char* octets = path
        cdef size_t name_size = <size_t>len(authority), size = <size_t>len(path)
        cdef int i
        with nogil:
            for i in range(times):
                if path_is_plain(octets, size):
                    sum += router_match(&self.router, name, name_size, octets, size).index
        # The sum is used, so that nothing of it can be left out.
        return (platform_now_ns() - began_ns) / times if sum + 1 else 0.0


cdef uint32_t prefix_length(str path):
    """Octets of a path that stand before what is beneath it."""
    return 0 if path == "/" else <uint32_t>len(path.encode("utf-8"))
