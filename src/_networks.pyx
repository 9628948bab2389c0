"""Addresses, and sets of them: who is trusted.

IPv4 is kept as IPv4-mapped IPv6, so that the client of a dual-stack listener is the same address in either form; a
network of IPv6 has no IPv4 in it all the same. Knows no socket; the settings are read once, with Python.
"""

import ipaddress

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

from fastwsgi._platform cimport platform_octets_text, platform_parse_octets

cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

cdef enum:
    MAPPED_SIZE = 12
    TEXT_MOST = 45          # of an address in any form: the last two groups may be written as IPv4


cdef bint address_is_ipv4(const address_t* address) noexcept nogil:
    return memcmp(address.octets, MAPPED, MAPPED_SIZE) == 0


cdef bint address_parse(const char* text, size_t size, address_t* address) noexcept nogil:
    """Read an address of IPv4 or IPv6, without brackets, port and zone; False if text[0:size] is none."""
    cdef char ended[TEXT_MOST + 1]
    if size > TEXT_MOST or memchr(text, 0, size) != NULL:
        return False
    memcpy(ended, text, size)
    ended[size] = 0
    return platform_parse_octets(ended, address.octets)


cdef size_t address_text(const address_t* address, char* text) noexcept nogil:
    """Write it in its canonical form; returns the length."""
    return platform_octets_text(address.octets, text)


cdef bint network_has(const network_t* network, const address_t* address) noexcept nogil:
    cdef int whole = network.bits >> 3
    cdef int rest = network.bits & 7
    cdef uint8_t mask = <uint8_t>(0xff00 >> rest)
    if address_is_ipv4(&network.address) != address_is_ipv4(address):
        return False
    if memcmp(network.address.octets, address.octets, whole):
        return False
    return rest == 0 or address.octets[whole] & mask == network.address.octets[whole]


cdef bint networks_match(const networks_t* networks, const address_t* address) noexcept nogil:
    cdef int i
    for i in range(networks.count):
        if network_has(&networks.items[i], address):
            return True
    return False


cdef bint networks_match_peer(const networks_t* networks, const address_t* address) noexcept nogil:
    if address == NULL:
        return networks.has_unix
    return networks.has_everyone or networks_match(networks, address)


cdef void networks_free(networks_t* networks) noexcept nogil:
    free(networks.items)
    networks.items = NULL
    networks.count = 0


cdef int networks_set(networks_t* networks, object given) except -1:
    cdef network_t* network
    cdef bytes packed
    networks_free(networks)
    networks.has_everyone = "*" in given
    networks.has_unix = "none" not in given
    found = [ipaddress.ip_network(text) for text in given if text not in ("*", "unix", "none")]
    networks.items = <network_t*>calloc(len(found) + 1, sizeof(network_t))
    if networks.items == NULL:
        raise MemoryError
    for one in found:
        network = &networks.items[networks.count]
        packed = one.network_address.packed
        if one.version == 4:
            memcpy(network.address.octets, MAPPED, MAPPED_SIZE)
            memcpy(&network.address.octets[MAPPED_SIZE], <const char*>packed, 4)
        else:
            memcpy(network.address.octets, <const char*>packed, 16)
        network.bits = one.prefixlen + (96 if one.version == 4 else 0)
        networks.count += 1
    return 0


# ---- Python face ----

def canonical(bytes text not None):
    """The address as REMOTE_ADDR has it; None if the text is none."""
    cdef address_t address
    cdef char out[ADDRESS_ROOM]
    if not address_parse(text, <size_t>len(text), &address):
        return None
    return out[:address_text(&address, out)].decode()


cdef class Networks:
    """A set of addresses from what a setting has: Networks("10.0.0.0/8", "::1")."""

    def __cinit__(self, *given):
        networks_set(&self.networks, given)

    def __dealloc__(self):
        networks_free(&self.networks)

    def __contains__(self, bytes text not None):
        """Is the address in one of the networks?"""
        cdef address_t address
        return address_parse(text, <size_t>len(text), &address) and networks_match(&self.networks, &address)

    def has_peer(self, bytes text):
        """Is the peer one of those? None: on a unix socket."""
        cdef address_t address
        if text is None:
            return networks_match_peer(&self.networks, NULL)
        return address_parse(text, <size_t>len(text), &address) and networks_match_peer(&self.networks, &address)
