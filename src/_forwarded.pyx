"""What Forwarded (RFC 7239) and X-Forwarded-For say of the way a request has come, one value at a time.

Proxies append to these lists, so the right end is the peer's own word, and each trusted hop vouches for the one to its
left. The client is the right-most hop that is not trusted: what stands left of it may be the client's invention, and
is not looked at. For the same reason a value is malformed only where that hop is; but an element of Forwarded has
quoted strings, which can be read from the left alone, so there the whole value has to be well-formed.

Knows neither fields nor whom they come from.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from fastwsgi._networks cimport ADDRESS_ROOM, Networks, address_parse, address_text, networks_match
from fastwsgi._octets cimport IN_QUOTED, IN_TOKEN, IN_VALUE, is_blank, is_digit, octet_kinds
from fastwsgi._parser cimport is_authority

cdef enum:
    HOST_MOST = 264         # 253 of a name (RFC 1035, 2.3.4, as text), a colon and five digits; and some

# Parameters of an element of Forwarded; those of no meaning here have none.
cdef enum:
    SEEN_FOR = 1
    SEEN_HOST = 2
    SEEN_PROTO = 4
    SEEN_BY = 8


cdef inline bint is_word(const char* text, size_t size, const char* word, size_t word_size) noexcept nogil:
    """text[0:size] is the word, in any case; the word has lower-case letters only."""
    cdef size_t i
    if size != word_size:
        return False
    for i in range(size):
        if (text[i] | 0x20) != word[i]:
            return False
    return True


cdef inline span_t trimmed(const char* data, size_t start, size_t end) noexcept nogil:
    cdef span_t span
    while start < end and is_blank(<uint8_t>data[start]):
        start += 1
    while end > start and is_blank(<uint8_t>data[end - 1]):
        end -= 1
    span.start = <uint32_t>start
    span.length = <uint32_t>(end - start)
    return span


cdef span_t last_element(const char* data, size_t size) noexcept nogil:
    cdef size_t end = size
    cdef span_t span
    while True:
        while size > 0 and data[size - 1] != c",":
            size -= 1
        span = trimmed(data, size, end)
        # RFC 9110, 5.6.1.2: empty elements do not count.
        if span.length or size == 0:
            return span
        size -= 1
        end = size


cdef scheme_t scheme_parse(const char* data, size_t size) noexcept nogil:
    """The scheme of a request; ws and wss are how some proxies call that of a WebSocket handshake."""
    if is_word(data, size, b"https", 5) or is_word(data, size, b"wss", 3):
        return SCHEME_HTTPS
    if is_word(data, size, b"http", 4) or is_word(data, size, b"ws", 2):
        return SCHEME_HTTP
    return SCHEME_BAD


cdef int port_parse(const char* data, size_t size) noexcept nogil:
    cdef int port = 0
    cdef size_t i
    if size == 0 or size > 5:
        return 0
    for i in range(size):
        if not is_digit(<uint8_t>data[i]):
            return 0
        port = port * 10 + data[i] - c"0"
    return port if port <= 65535 else 0


cdef bint is_host(const char* data, size_t size) noexcept nogil:
    cdef char ended[HOST_MOST + 1]
    if size == 0 or size > HOST_MOST:
        return False
    memcpy(ended, data, size)
    ended[size] = 0
    return is_authority(<const uint8_t*>ended, size, False, False)


cdef inline bint is_obfuscated(const char* data, size_t size) noexcept nogil:
    # RFC 7239, 6.3.
    cdef size_t i
    cdef char octet
    if size < 2 or data[0] != c"_":
        return False
    for i in range(1, size):
        octet = data[i]
        if not (is_digit(<uint8_t>octet) or c"a" <= (octet | 0x20) <= c"z" or octet == c"." or octet == c"_"
                or octet == c"-"):
            return False
    return True


cdef inline bint has_colon(const char* data, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if data[i] == c":":
            return True
    return False


cdef int node_parse(const char* data, size_t size, bint needs_brackets, node_t* node) noexcept nogil:
    """Read a node; its kind, which is NODE_BAD if data[0:size] is none."""
    cdef size_t end = 0         # of the name; a colon and the port may be behind it
    cdef size_t start = 0
    cdef size_t colons = 0, i
    memset(node, 0, sizeof(node_t))
    if size and data[0] == c"[":
        start = 1
        while end < size and data[end] != c"]":
            end += 1
        if end == size:
            return NODE_BAD
        colons = 1              # this is where the port begins, if anywhere
    else:
        for i in range(size):
            if data[i] == c":":
                colons += 1
                end = i
        if colons != 1:
            end = size
        if colons > 1 and needs_brackets:
            return NODE_BAD
    if start:
        # IPv6 and nothing else has brackets.
        if end < 3 or not has_colon(data, end) or not address_parse(data + 1, end - 1, &node.address):
            return NODE_BAD
        end += 1
        node.kind = NODE_ADDRESS
    elif address_parse(data, end, &node.address):
        node.kind = NODE_ADDRESS
    elif is_word(data, end, b"unknown", 7) or is_obfuscated(data, end):
        node.kind = NODE_HIDDEN
    else:
        return NODE_BAD
    if end < size:
        node.port = <uint16_t>port_parse(data + end + 1, size - end - 1) if data[end] == c":" else 0
        if node.port == 0 and (data[end] != c":" or not is_obfuscated(data + end + 1, size - end - 1)):
            node.kind = NODE_BAD
    return node.kind


cdef inline bint is_trusted(const node_t* node, const networks_t* trusted) noexcept nogil:
    return node.kind == NODE_ADDRESS and networks_match(trusted, &node.address)


cdef hops_t forwarded_for(const char* data, size_t size, const networks_t* trusted, hop_t* hop) noexcept nogil:
    """Find the client in a list as X-Forwarded-For has it."""
    cdef hops_t found = HOPS_NONE
    cdef span_t element
    cdef node_t node
    while True:
        element = last_element(data, size)
        if element.length == 0:
            return found
        if node_parse(data + element.start, element.length, False, &node) == NODE_BAD:
            return HOPS_BAD
        memset(hop, 0, sizeof(hop_t))
        hop.node = node
        if not is_trusted(&node, trusted):
            return HOPS_CLIENT
        found = HOPS_TRUSTED
        size = element.start
        while size > 0 and data[size - 1] != c",":
            size -= 1
        if size == 0:
            return found
        size -= 1


cdef bint parameter_value(const char* data, size_t size, size_t* at, span_t* value, bint* is_escaped) noexcept nogil:
    """Read a token or a quoted string at *at; the span is what is in it."""
    cdef size_t i = at[0]
    is_escaped[0] = False
    if i < size and data[i] == c'"':
        i += 1
        value.start = <uint32_t>i
        while True:
            while i < size and octet_kinds[<uint8_t>data[i]] & IN_QUOTED:
                i += 1
            if i == size:
                return False
            if data[i] == c'"':
                break
            # RFC 9110, 5.6.4: a backslash, and what it stands before.
            if data[i] != c"\\" or i + 1 == size or not octet_kinds[<uint8_t>data[i + 1]] & IN_VALUE:
                return False
            is_escaped[0] = True
            i += 2
        value.length = <uint32_t>(i - value.start)
        at[0] = i + 1
        return True
    value.start = <uint32_t>i
    while i < size and octet_kinds[<uint8_t>data[i]] & IN_TOKEN:
        i += 1
    value.length = <uint32_t>(i - value.start)
    at[0] = i
    return value.length > 0


cdef bint element_read(const char* data, size_t size, size_t* at, hop_t* hop) noexcept nogil:
    """Read an element of Forwarded at *at, up to its comma or the end; False if that is none."""
    cdef size_t i = at[0], start
    cdef int seen = 0, parameter
    cdef bint is_escaped
    cdef span_t value
    memset(hop, 0, sizeof(hop_t))
    hop.node.kind = NODE_HIDDEN
    while True:
        while i < size and is_blank(<uint8_t>data[i]):
            i += 1
        if i < size and data[i] != c";" and data[i] != c",":
            start = i
            while i < size and octet_kinds[<uint8_t>data[i]] & IN_TOKEN:
                i += 1
            parameter = 0
            if is_word(data + start, i - start, b"for", 3):
                parameter = SEEN_FOR
            elif is_word(data + start, i - start, b"host", 4):
                parameter = SEEN_HOST
            elif is_word(data + start, i - start, b"proto", 5):
                parameter = SEEN_PROTO
            elif is_word(data + start, i - start, b"by", 2):
                parameter = SEEN_BY
            # RFC 7239, 4: each at most once in an element.
            if i == start or i == size or data[i] != c"=" or seen & parameter:
                return False
            seen |= parameter
            i += 1
            if not parameter_value(data, size, &i, &value, &is_escaped):
                return False
            # Nothing in an address, a host or a scheme needs a backslash.
            if parameter == SEEN_FOR:
                if is_escaped:
                    hop.node.kind = NODE_BAD
                else:
                    node_parse(data + value.start, value.length, True, &hop.node)
            elif parameter == SEEN_HOST:
                if is_escaped or not is_host(data + value.start, value.length):
                    return False
                hop.host = value
            elif parameter == SEEN_PROTO:
                hop.scheme = <uint8_t>scheme_parse(data + value.start, value.length)
            while i < size and is_blank(<uint8_t>data[i]):
                i += 1
        if i == size or data[i] == c",":
            at[0] = i
            return True
        if data[i] != c";":
            return False
        i += 1


cdef hops_t forwarded_elements(const char* data, size_t size, const networks_t* trusted, hop_t* hop) noexcept nogil:
    """Find the client in a list of elements as Forwarded has it."""
    cdef hops_t found = HOPS_NONE
    cdef hop_t element
    cdef size_t at = 0
    while True:
        while at < size and (is_blank(<uint8_t>data[at]) or data[at] == c","):
            at += 1
        if at == size:
            break
        if not element_read(data, size, &at, &element):
            return HOPS_BAD
        if not is_trusted(&element.node, trusted):
            found = HOPS_CLIENT
            hop[0] = element
        elif found == HOPS_NONE:
            found = HOPS_TRUSTED
            hop[0] = element
    if found > HOPS_NONE and (hop.node.kind == NODE_BAD or hop.scheme == SCHEME_BAD):
        return HOPS_BAD
    return found


# ---- Python face ----

cdef object hop_view(bytes value, hops_t found, const hop_t* hop):
    cdef char text[ADDRESS_ROOM]
    if found <= HOPS_NONE:
        return ("BAD", "NONE")[found + 1]
    address = None
    if hop.node.kind == NODE_ADDRESS:
        address = text[:address_text(&hop.node.address, text)].decode()
    return (("TRUSTED", "CLIENT")[found - 1], address, hop.node.port, (None, "http", "https", None)[hop.scheme],
            value[hop.host.start:hop.host.start + hop.host.length].decode("latin-1"))


def read_x_forwarded_for(bytes value not None, Networks trusted not None):
    """Which hop is the client; see the stub."""
    cdef hop_t hop
    cdef hops_t found = forwarded_for(value, <size_t>len(value), &trusted.networks, &hop)
    return hop_view(value, found, &hop)


def read_forwarded(bytes value not None, Networks trusted not None):
    """Which hop is the client; see the stub."""
    cdef hop_t hop
    cdef hops_t found = forwarded_elements(value, <size_t>len(value), &trusted.networks, &hop)
    return hop_view(value, found, &hop)
