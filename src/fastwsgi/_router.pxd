# Host and path of a request to the route that it takes. One table, made at start; never changed after.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastwsgi._guard cimport guard_t
from fastwsgi._response cimport field_lines_t
from fastwsgi._static cimport site_t


# What a route does with its requests.
cdef enum action_t:
    ACTION_APPLICATION
    ACTION_STATIC
    ACTION_ANSWER           # the same for all, but for the Location of a redirect


# Of what the target of a redirect is made.
cdef enum piece_kind_t:
    PIECE_TEXT
    PIECE_SCHEME            # http or https
    PIECE_HOST              # as the client has called us, without a port
    PIECE_URI               # path and query, as they came
    PIECE_PATH
    PIECE_QUERY             # with its "?"; nothing if there is none
    PIECE_REST              # of the path, behind that of the route

cdef struct piece_t:
    piece_kind_t kind
    const char* text        # borrowed from Router.kept
    uint32_t size


cdef struct route_t:
    uint32_t index          # in Router.routes
    uint8_t action          # action_t
    int application         # of Context.applications, also where a file that is not there is its; -1: none
    uint32_t script_length  # octets of the path that become SCRIPT_NAME for it: where it is mounted
    const guard_t* guard    # borrowed from Router.guards; NULL: nothing stands before it
    const site_t* site      # of ACTION_STATIC, owned by Router.sites; or NULL
    bint is_internal        # only for what an application hands over
    uint32_t root_length    # octets of the path that the action stands for: the rest is looked for beneath it
    field_lines_t lines     # of every response; its items are owned by the router, what they borrow is in Router.kept
    # Of an answer that the loop gives without looking for anything.
    int status
    const char* status_line # borrowed, as the next ones
    uint32_t status_size
    int other_status        # for methods other than GET and HEAD; 0: the same
    const char* other_line
    uint32_t other_size
    const char* content
    uint32_t content_size
    piece_t* pieces         # owned; of Location, if there are any
    int piece_count
    bint needs_host         # one of them is PIECE_HOST


cdef struct entry_t:
    uint64_t hash
    const char* path        # borrowed from Router.kept; NULL: an empty place
    uint32_t size
    uint32_t route          # index


cdef struct table_t:
    # The routes of a host, by path, in a table with open addressing.
    entry_t* entries        # owned
    uint32_t mask
    uint64_t lengths        # bit i: there is a path whose length is i, modulo 64
    uint32_t deepest        # segments of the longest path
    uint32_t root           # index of the route "/"


cdef struct host_t:
    uint64_t hash
    const char* name        # borrowed from Router.kept: "example.com", or ".example.com" for *.example.com; NULL: empty
    uint32_t size
    table_t table


cdef struct router_t:
    route_t* routes         # owned
    uint32_t count
    host_t* hosts           # owned, a table as above; NULL: every host is served the same
    uint32_t host_mask
    uint64_t host_lengths   # as table_t.lengths, of whole names
    uint32_t host_firsts    # and their first octets, as bits of what they are modulo 32
    uint64_t suffix_lengths # and of what follows the stars
    table_t any             # of every other host


# Write the path as routes know it: %HH decoded, slashes merged, dot segments gone. `out` has room for `size` octets;
# returns how many there are, or -1 for a path that leads out of the root. It begins with a slash.
cdef ssize_t path_resolve(const char* path, size_t size, char* out) noexcept nogil
# The same for a path that is decoded already; `out` may be where it is.
cdef ssize_t path_merge(const char* path, size_t size, char* out) noexcept nogil
# Would a path without "%" stay the same? False at a guess: there may be a name that begins with a dot.
cdef bint path_is_plain(const char* path, size_t size) noexcept nogil

# Of an authority: how much of it is the host, without a port.
cdef size_t host_length(const char* authority, size_t size) noexcept nogil
# The route for an authority (with its port, if any, of any case) and a path that path_resolve has written, or
# would not change. Never NULL.
cdef const route_t* router_match(const router_t* router, const char* authority, size_t authority_size,
                                 const char* path, size_t size) noexcept nogil


cdef class Router:
    cdef router_t router
    cdef readonly tuple routes      # of mounts.Route
    cdef tuple guards               # what stands before each: a Guard, or None
    cdef list kept                  # octets that the structs borrow
    cdef list sites                 # of Site: what route_t.site is of

    cdef const char* keep(self, bytes octets) except NULL
    cdef int fill_lines(self, field_lines_t* lines, tuple given) except -1
    cdef int fill_answer(self, route_t* route, object answer) except -1
    cdef int fill(self, table_t* table, list indexes) except -1
