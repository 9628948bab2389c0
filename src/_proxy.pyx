"""The header of the PROXY protocol, versions 1 and 2, at the very beginning of a connection.

Written by the specification of HAProxy's authors, and strict where that leaves a choice: an address or a port that is
not written as the specification has it, another transport than TCP, or a longer header than any proxy sends, is
refused. What a version 2 header has behind its addresses is passed over. The outcome is the same however the octets
were cut: what is refused early is refused with all that may follow. Knows no socket.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fastwsgi._networks cimport ADDRESS_ROOM, address_parse, address_text
from fastwsgi._octets cimport is_digit

cdef enum:
    V1_PREFIX = 6
    V1_MOST = 107           # with CRLF: what the longest line of the specification takes
    V2_SIGNATURE = 12
    V2_PREFIX = 16
    V2_MOST = 4096          # of addresses and what is behind them

# Version 2: command, family and transport.
cdef enum:
    LOCAL = 0x20
    PROXY = 0x21
    UNSPECIFIED = 0x00
    TCP_IPV4 = 0x11
    TCP_IPV6 = 0x21
    UNIX_STREAM = 0x31

cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


cdef inline bint begins(const char* data, size_t size, const char* with_this, size_t length) noexcept nogil:
    """As far as it is there."""
    return memcmp(data, with_this, size if size < length else length) == 0


cdef const char* word_end(const char* at, const char* end) noexcept nogil:
    while at < end and at[0] != c" ":
        at += 1
    return at


cdef int decimal_port(const char* at, const char* end) noexcept nogil:
    """A port without needless zeros; -1 if it is none."""
    cdef int port = 0
    if at == end or end - at > 5 or (at[0] == c"0" and end - at > 1):
        return -1
    while at < end:
        if not is_digit(<uint8_t>at[0]):
            return -1
        port = port * 10 + at[0] - c"0"
        at += 1
    return port if port <= 65535 else -1


cdef int v1_parse(const char* data, size_t size, proxy_t* proxy) noexcept nogil:
    cdef const char* end = <const char*>memchr(data, c"\n", size if size < V1_MOST else V1_MOST)
    cdef const char* at = data + V1_PREFIX
    cdef const char* stop
    cdef address_t address
    cdef bint is_ipv6
    cdef int i, port, header
    if end == NULL:
        return PROXY_MORE if size < V1_MOST else PROXY_BAD
    header = <int>(end - data) + 1
    end -= 1
    if end < at or end[0] != c"\r":
        return PROXY_BAD
    stop = word_end(at, end)
    if stop - at == 7 and memcmp(at, b"UNKNOWN", 7) == 0:
        # Whatever stands behind it is to be ignored.
        proxy.source = SOURCE_HIDDEN
        return header
    if stop - at != 4 or memcmp(at, b"TCP", 3) or (at[3] != c"4" and at[3] != c"6"):
        return PROXY_BAD
    is_ipv6 = at[3] == c"6"
    for i in range(4):      # both addresses, both ports; the first of each is the client's
        if stop == end:
            return PROXY_BAD
        at = stop + 1
        stop = word_end(at, end)
        if i < 2:
            if (memchr(at, c":", <size_t>(stop - at)) != NULL) != is_ipv6:
                return PROXY_BAD
            if not address_parse(at, <size_t>(stop - at), &address):
                return PROXY_BAD
            if i == 0:
                proxy.address = address
        else:
            port = decimal_port(at, stop)
            if port < 0:
                return PROXY_BAD
            if i == 2:
                proxy.port = <uint16_t>port
    if stop != end:
        return PROXY_BAD
    proxy.source = SOURCE_ADDRESS
    return header


cdef int v2_parse(const uint8_t* data, size_t size, proxy_t* proxy) noexcept nogil:
    cdef size_t length
    if size > V2_SIGNATURE and data[12] != LOCAL and data[12] != PROXY:
        return PROXY_BAD
    if size < V2_PREFIX:
        return PROXY_MORE
    length = <size_t>data[14] << 8 | data[15]
    if length > V2_MOST:
        return PROXY_BAD
    if data[12] == LOCAL:
        proxy.source = SOURCE_PROXY         # with any family, and any octets
    elif data[13] == UNSPECIFIED or (data[13] == UNIX_STREAM and length >= 216):
        proxy.source = SOURCE_HIDDEN
    elif not (data[13] == TCP_IPV4 and length >= 12) and not (data[13] == TCP_IPV6 and length >= 36):
        return PROXY_BAD
    if size < V2_PREFIX + length:
        return PROXY_MORE
    if data[12] == LOCAL or data[13] == UNSPECIFIED or data[13] == UNIX_STREAM:
        return <int>(V2_PREFIX + length)
    proxy.source = SOURCE_ADDRESS
    if data[13] == TCP_IPV4:
        memcpy(proxy.address.octets, MAPPED, 12)
        memcpy(&proxy.address.octets[12], data + V2_PREFIX, 4)
        proxy.port = <uint16_t>(data[24] << 8 | data[25])
    else:
        memcpy(proxy.address.octets, data + V2_PREFIX, 16)
        proxy.port = <uint16_t>(data[48] << 8 | data[49])
    return <int>(V2_PREFIX + length)


cdef int proxy_parse(const char* data, size_t size, int versions, proxy_t* proxy) noexcept nogil:
    """Read a header of one of the versions; its size, PROXY_MORE, PROXY_MISSING or PROXY_BAD."""
    memset(proxy, 0, sizeof(proxy_t))
    if size == 0:
        return PROXY_MORE
    if versions & PROXY_V1 and begins(data, size, b"PROXY ", V1_PREFIX):
        return v1_parse(data, size, proxy) if size > V1_PREFIX else PROXY_MORE
    if versions & PROXY_V2 and begins(data, size, SIGNATURE, V2_SIGNATURE):
        return v2_parse(<const uint8_t*>data, size, proxy) if size > V2_SIGNATURE else PROXY_MORE
    return PROXY_MISSING


# ---- Python face ----

def read_header(bytes data not None, int versions=PROXY_V1 | PROXY_V2):
    """See the stub."""
    cdef proxy_t proxy
    cdef char text[ADDRESS_ROOM]
    cdef int found = proxy_parse(data, <size_t>len(data), versions, &proxy)
    if found <= 0:
        return ("BAD", "MISSING", "MORE")[found + 2]
    address = None
    if proxy.source == SOURCE_ADDRESS:
        address = text[:address_text(&proxy.address, text)].decode()
    return found, ("proxy", "hidden", "address")[proxy.source], address, proxy.port
