# What Forwarded (RFC 7239) and the X-Forwarded fields say, value by value. Spans count from the value's first octet.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t

from fastwsgi._buffer cimport span_t
from fastwsgi._networks cimport Networks, address_t, networks_t


cdef enum scheme_t:
    SCHEME_NONE             # nothing is said
    SCHEME_HTTP
    SCHEME_HTTPS
    SCHEME_BAD

cdef enum node_kind_t:
    NODE_BAD
    NODE_ADDRESS
    NODE_HIDDEN             # "unknown", an obfuscated identifier, or no `for` at all

# What is found in the hops of a value.
cdef enum hops_t:
    HOPS_BAD = -1           # malformed
    HOPS_NONE               # there are none
    HOPS_TRUSTED            # all are trusted; the first is the nearest to the client
    HOPS_CLIENT             # the right-most that is not


cdef struct node_t:
    address_t address
    uint16_t port           # 0: not known
    uint8_t kind            # node_kind_t


cdef struct hop_t:
    node_t node
    uint8_t scheme          # scheme_t
    span_t host             # of no length: not said


# A node of RFC 7239, 6, or as X-Forwarded-For has it: an address of IPv6 without brackets too.
cdef int node_parse(const char* data, size_t size, bint needs_brackets, node_t* node) noexcept nogil
cdef scheme_t scheme_parse(const char* data, size_t size) noexcept nogil
cdef bint is_host(const char* data, size_t size) noexcept nogil         # with or without a port
cdef int port_parse(const char* data, size_t size) noexcept nogil       # 1 to 65535; 0 if it is none

# Only the last element of a list is what the peer itself says; the whole value where there is no comma.
cdef span_t last_element(const char* data, size_t size) noexcept nogil

# hop: where HOPS_TRUSTED or HOPS_CLIENT is returned; of forwarded_for without scheme and host.
cdef hops_t forwarded_for(const char* data, size_t size, const networks_t* trusted, hop_t* hop) noexcept nogil
cdef hops_t forwarded_elements(const char* data, size_t size, const networks_t* trusted, hop_t* hop) noexcept nogil
