# The PROXY protocol: who the client is, in front of the first request.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t

from fastwsgi._networks cimport address_t


cdef enum:
    PROXY_V1 = 1            # the versions that are taken, as bits
    PROXY_V2 = 2

cdef enum proxy_source_t:
    SOURCE_PROXY            # the proxy itself (a health check)
    SOURCE_HIDDEN           # a client that it cannot name, or that has no address of IP
    SOURCE_ADDRESS

# What proxy_parse returns, but for the size of the header.
cdef enum:
    PROXY_MORE = 0
    PROXY_MISSING = -1      # it does not begin with one
    PROXY_BAD = -2          # it begins with one that is malformed


cdef struct proxy_t:
    address_t address       # of SOURCE_ADDRESS
    uint16_t port
    uint8_t source


# data: all that has come of a connection so far.
cdef int proxy_parse(const char* data, size_t size, int versions, proxy_t* proxy) noexcept nogil
