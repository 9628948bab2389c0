# Addresses, and sets of them: who is trusted.

from libc.stdint cimport uint8_t


cdef enum:
    ADDRESS_ROOM = 40           # of the canonical text: eight groups of four digits, seven colons, and a zero


cdef struct address_t:
    uint8_t octets[16]          # IPv6, or IPv4 as ::ffff:a.b.c.d


cdef struct network_t:
    address_t address           # the bits beyond `bits` are zero
    int bits


cdef struct networks_t:
    network_t* items            # owned
    int count
    bint has_everyone           # "*": every peer, whoever it is
    bint has_unix               # peers on unix sockets


cdef bint address_parse(const char* text, size_t size, address_t* address) noexcept nogil
cdef bint address_is_ipv4(const address_t* address) noexcept nogil
cdef size_t address_text(const address_t* address, char* text) noexcept nogil   # ADDRESS_ROOM; zero-terminated

# Is the address in one of the networks? "*" is none: it is said of peers, and a list of hops may have any address in it.
cdef bint networks_match(const networks_t* networks, const address_t* address) noexcept nogil
# Is the peer one of those? address: NULL for a peer on a unix socket.
cdef bint networks_match_peer(const networks_t* networks, const address_t* address) noexcept nogil
cdef void networks_free(networks_t* networks) noexcept nogil

# What the settings have: addresses, networks, "*", "unix", "none".
cdef int networks_set(networks_t* networks, object given) except -1


cdef class Networks:
    cdef networks_t networks
