"""What of a request head is believed, and from whom.

From a peer in --forwarded-allow-ips the forwarding fields say who the client is and how it has asked; from any other
they are left out of the environ. Names with an underscore are the business of --header-map and --forwarder-headers.
Where trusted fields are malformed at the very place that decides, or contradict each other, the proxy has let a
client's own copy through, and every guess could be the client's: the request is refused.

Looks at heads that have such fields, and at no others. Knows no connection; the log is the caller's.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset, strlen

from fastwsgi._buffer cimport span_t
from fastwsgi._forwarded cimport (
    HOPS_BAD, HOPS_CLIENT, HOPS_NONE, NODE_ADDRESS, SCHEME_BAD, SCHEME_HTTP, SCHEME_HTTPS, SCHEME_NONE,
    forwarded_elements, forwarded_for, hop_t, hops_t, is_host, last_element, port_parse, scheme_parse, scheme_t,
)
from fastwsgi._networks cimport address_t, address_text, networks_free, networks_set
from fastwsgi._parser cimport (
    HEAD_DONE, KNOWN_FORWARDED, KNOWN_NONE, KNOWN_X_FORWARDED_FOR, KNOWN_X_FORWARDED_HOST, KNOWN_X_FORWARDED_PORT,
    KNOWN_X_FORWARDED_PROTO, KNOWN_X_FORWARDED_SSL, TARGET_ASTERISK, field_t, limits_default, limits_t, outcome_name,
    parser_feed, parser_free, parser_init,
)
from fastwsgi._proxy cimport PROXY_V1, PROXY_V2
from fastwsgi._refusals cimport (
    REFUSAL_BAD_FORWARDED, REFUSAL_FORWARDED_CONFLICT, REFUSAL_SCRIPT_NAME, REFUSAL_UNDERSCORE,
)

cdef const char* FORWARDING = b"x-forwarded-"

cdef enum:
    FORWARDING_SIZE = 12
    NAME_SHOWN = 64         # of a name, in the log


# ---- names ----

cdef inline char lowered(char octet) noexcept nogil:
    return octet | 0x20 if c"A" <= octet <= c"Z" else octet


cdef inline char keyed(char octet) noexcept nogil:
    """As in the environ's key, where a hyphen is an underscore."""
    return c"_" if octet == c"-" else lowered(octet)


cdef bint is_same(const char* data, const field_t* a, const field_t* b) noexcept nogil:
    """Their names have one key."""
    cdef uint32_t i
    if a.name.length != b.name.length:
        return False
    for i in range(a.name.length):
        if keyed(data[a.name.start + i]) != keyed(data[b.name.start + i]):
            return False
    return True


cdef bint is_word(const char* data, span_t span, const char* word) noexcept nogil:
    """In any case; the word is in lower case."""
    cdef uint32_t i
    if strlen(word) != span.length:
        return False
    for i in range(span.length):
        if lowered(data[span.start + i]) != word[i]:
            return False
    return True


cdef bint has_underscore(const char* data, const field_t* field) noexcept nogil:
    cdef uint32_t i
    for i in range(field.name.length):
        if data[field.name.start + i] == c"_":
            return True
    return False


cdef bint is_forwarding(const char* data, const field_t* field) noexcept nogil:
    """One of those that only a proxy may send, or one with their key."""
    cdef int i
    if field.known != KNOWN_NONE:
        return trust_concerns(<uint64_t>1 << field.known)
    if is_word(data, field.name, b"x_real_ip"):
        return True
    if field.name.length < FORWARDING_SIZE:
        return False
    for i in range(FORWARDING_SIZE):
        if keyed(data[field.name.start + i]) != keyed(FORWARDING[i]):
            return False
    return True


cdef bint is_forwarder_name(const trust_t* trust, const char* data, const field_t* field) noexcept nogil:
    """It is in --forwarder-headers."""
    cdef const char* name = trust.names
    while name[0]:
        if is_word(data, field.name, name):
            return True
        name += strlen(name) + 1
    return False


cdef bint is_new(trust_t* trust, const char* data, const field_t* field) noexcept nogil:
    """Nothing was said of this name so far, and not of too many others; from now on it was."""
    cdef uint64_t mix = 0xcbf29ce484222325      # FNV-1a
    cdef uint32_t i
    cdef int known
    for i in range(field.name.length):
        mix = (mix ^ <uint8_t>lowered(data[field.name.start + i])) * <uint64_t>0x100000001b3
    for known in range(trust.said_count):
        if trust.said[known] == mix:
            return False
    if trust.said_count == SAID_MOST:
        return False
    trust.said[trust.said_count] = mix
    trust.said_count += 1
    return True


cdef void remark_field(char* remark, const char* before, const char* data, const field_t* field,
                       const char* after) noexcept nogil:
    # A name is a token, so nothing in it needs to be escaped.
    cdef int size = <int>field.name.length if field.name.length < NAME_SHOWN else NAME_SHOWN
    snprintf(remark, REMARK_ROOM, b"%s%.*s%s", before, size, data + field.name.start, after)


cdef int map_underscores(trust_t* trust, parser_t* parser, const char* data, bint is_trusted,
                         char* remark) noexcept nogil:
    """See to the names with an underscore; 0 or a reason."""
    cdef field_t* field
    cdef field_t* other
    cdef bint has_collisions = False
    cdef uint32_t i, k
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known != KNOWN_NONE or not has_underscore(data, field):
            continue
        if is_trusted and is_forwarder_name(trust, data, field):
            field.is_left_out = False
            for k in range(parser.field_count):
                other = &parser.fields[k]
                if k == i or not is_same(data, field, other):
                    continue
                if other.known == KNOWN_NONE and is_forwarder_name(trust, data, other):
                    return REFUSAL_FORWARDED_CONFLICT
                # The proxy's own word goes before what it has let through under the same key.
                other.is_left_out = True
        elif trust.header_map == MAP_REFUSE:
            return REFUSAL_UNDERSCORE
        elif trust.header_map == MAP_DANGEROUS:
            field.is_left_out = False
            has_collisions = True
        elif not remark[0] and is_new(trust, data, field):
            remark_field(remark, b"field ", data, field,
                         b" is dropped for the underscore in its name (--header-map; said once for each name)")
    if has_collisions:
        for i in range(parser.field_count):
            parser.fields[i].is_repeated = True
    return 0


# ---- what a trusted peer says ----

cdef hops_t find_hop(const trust_t* trust, const parser_t* parser, const char* data, int known,
                     hop_t* hop) noexcept nogil:
    """Go through the field lines of a name, the last one first, up to the hop that is the client."""
    cdef hops_t found = HOPS_NONE
    cdef hops_t result
    cdef hop_t here
    cdef span_t value
    cdef uint32_t i = parser.field_count
    while i > 0:
        i -= 1
        if parser.fields[i].known != known:
            continue
        value = parser.fields[i].value
        if known == KNOWN_FORWARDED:
            result = forwarded_elements(data + value.start, value.length, &trust.forwarders, &here)
        else:
            result = forwarded_for(data + value.start, value.length, &trust.forwarders, &here)
        if result == HOPS_BAD:
            return HOPS_BAD
        if result != HOPS_NONE:
            found = result
            hop[0] = here
            hop.host.start += value.start
        if result == HOPS_CLIENT:
            break
    return found


cdef span_t last_value(const parser_t* parser, const char* data, int known) noexcept nogil:
    """The last element of the field lines of a name; of no length if there is none."""
    cdef span_t span
    cdef uint32_t i = parser.field_count
    while i > 0:
        i -= 1
        if parser.fields[i].known == known:
            span = last_element(data + parser.fields[i].value.start, parser.fields[i].value.length)
            span.start += parser.fields[i].value.start
            if span.length:
                return span
    span.start = span.length = 0
    return span


cdef bint are_alike(const char* data, span_t a, span_t b) noexcept nogil:
    cdef uint32_t i
    if a.length != b.length:
        return False
    for i in range(a.length):
        if lowered(data[a.start + i]) != lowered(data[b.start + i]):
            return False
    return True


cdef inline int settle_scheme(uint8_t* scheme, scheme_t said) noexcept nogil:
    if said == SCHEME_NONE:
        return 0
    if said == SCHEME_BAD:
        return REFUSAL_BAD_FORWARDED
    if scheme[0] != SCHEME_NONE and scheme[0] != said:
        return REFUSAL_FORWARDED_CONFLICT
    scheme[0] = <uint8_t>said
    return 0


cdef int read_forwarding(const trust_t* trust, const parser_t* parser, const char* data,
                         forwarded_t* forwarded) noexcept nogil:
    """Who the client is and how it has asked; 0 or a reason."""
    cdef hop_t hop, other
    cdef hops_t found = find_hop(trust, parser, data, KNOWN_FORWARDED, &hop)
    cdef hops_t x_found = find_hop(trust, parser, data, KNOWN_X_FORWARDED_FOR, &other)
    cdef span_t said
    cdef scheme_t secure
    cdef int reason
    if found == HOPS_BAD or x_found == HOPS_BAD:
        return REFUSAL_BAD_FORWARDED
    if found != HOPS_NONE:
        forwarded.scheme = hop.scheme
        forwarded.host = hop.host
        if x_found != HOPS_NONE:
            if hop.node.kind != other.node.kind or memcmp(&hop.node.address, &other.node.address, sizeof(address_t)):
                return REFUSAL_FORWARDED_CONFLICT
            if other.node.port:
                hop.node.port = other.node.port
    elif x_found != HOPS_NONE:
        hop = other
    if found != HOPS_NONE or x_found != HOPS_NONE:
        forwarded.is_set = forwarded.has_client = True
        forwarded.client_port = hop.node.port
        if hop.node.kind == NODE_ADDRESS:
            forwarded.client_size = <uint8_t>address_text(&hop.node.address, forwarded.client_text)

    said = last_value(parser, data, KNOWN_X_FORWARDED_PROTO)
    if said.length:
        reason = settle_scheme(&forwarded.scheme, scheme_parse(data + said.start, said.length))
        if reason:
            return reason
    said = last_value(parser, data, KNOWN_X_FORWARDED_SSL)
    if said.length:
        secure = SCHEME_BAD
        if is_word(data, said, b"on"):
            secure = SCHEME_HTTPS
        elif is_word(data, said, b"off"):
            secure = SCHEME_HTTP
        reason = settle_scheme(&forwarded.scheme, secure)
        if reason:
            return reason

    said = last_value(parser, data, KNOWN_X_FORWARDED_HOST)
    if said.length:
        if not is_host(data + said.start, said.length):
            return REFUSAL_BAD_FORWARDED
        if forwarded.host.length and not are_alike(data, forwarded.host, said):
            return REFUSAL_FORWARDED_CONFLICT
        forwarded.host = said

    said = last_value(parser, data, KNOWN_X_FORWARDED_PORT)
    if said.length:
        forwarded.server_port = <uint16_t>port_parse(data + said.start, said.length)
        if not forwarded.server_port:
            return REFUSAL_BAD_FORWARDED
    forwarded.is_set |= forwarded.scheme != SCHEME_NONE or forwarded.host.length != 0 or forwarded.server_port != 0
    return 0


cdef int read_script_name(const trust_t* trust, const parser_t* parser, const char* data,
                          forwarded_t* forwarded) noexcept nogil:
    """Where in the path SCRIPT_NAME ends; 0 or a reason."""
    cdef const field_t* field
    cdef const char* path = data + parser.path.start
    cdef uint32_t i, length
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if field.known != KNOWN_NONE or field.is_left_out or not is_word(data, field.name, b"script_name"):
            continue
        length = field.value.length
        while length > 0 and data[field.value.start + length - 1] == c"/":
            length -= 1
        if not length or parser.target_form == TARGET_ASTERISK or not is_forwarder_name(trust, data, field):
            return 0
        # A segment's end in both, so that no %HH is cut in two.
        if length > parser.path.length or memcmp(path, data + field.value.start, length) or path[0] != c"/":
            return REFUSAL_SCRIPT_NAME
        if length < parser.path.length and path[length] != c"/":
            return REFUSAL_SCRIPT_NAME
        forwarded.is_set = True
        forwarded.script_length = length
        return 0
    return 0


cdef int trust_head(trust_t* trust, parser_t* parser, const char* data, bint is_trusted,
                    forwarded_t* forwarded, char* remark) noexcept nogil:
    cdef field_t* field
    cdef uint32_t i
    cdef int reason = 0
    memset(forwarded, 0, sizeof(forwarded_t))
    remark[0] = 0
    if parser.known_seen & 1:
        reason = map_underscores(trust, parser, data, is_trusted, remark)
    if is_trusted:
        if not reason:
            reason = read_forwarding(trust, parser, data, forwarded)
        if not reason and parser.known_seen & 1:
            reason = read_script_name(trust, parser, data, forwarded)
        return -reason
    for i in range(parser.field_count):
        field = &parser.fields[i]
        if is_forwarding(data, field):
            field.is_left_out = True
            if not remark[0] and not trust.has_said_untrusted:
                trust.has_said_untrusted = True
                remark_field(remark, b"field ", data, field,
                             b" and the like are left out: the peer is not in --forwarded-allow-ips (said once)")
    return -reason


cdef void trust_free(trust_t* trust) noexcept nogil:
    networks_free(&trust.forwarders)
    networks_free(&trust.proxies)
    free(trust.names)
    trust.names = NULL


cdef int trust_set(trust_t* trust, object settings) except -1:
    """Take what the settings say; free with trust_free."""
    cdef bytes names = b"".join(name.lower().encode() + b"\0" for name in settings.forwarder_headers) + b"\0"
    networks_set(&trust.forwarders, settings.forwarded_allow_ips)
    networks_set(&trust.proxies, settings.proxy_allow_from or settings.forwarded_allow_ips)
    versions = {"off": 0, "v1": PROXY_V1, "v2": PROXY_V2, "auto": PROXY_V1 | PROXY_V2}
    trust.proxy_versions = versions[settings.proxy_protocol]
    trust.header_map = {"drop": MAP_DROP, "refuse": MAP_REFUSE, "dangerous": MAP_DANGEROUS}[settings.header_map]
    free(trust.names)
    trust.names = <char*>malloc(len(names))
    if trust.names == NULL:
        raise MemoryError
    memcpy(trust.names, <const char*>names, len(names))
    return 0


# ---- Python face ----

cdef class Trust:
    """What a worker with these settings believes."""

    def __cinit__(self, settings):
        trust_set(&self.trust, settings)

    def __dealloc__(self):
        trust_free(&self.trust)

    def judge(self, bytes head not None, bint is_trusted):
        """See the stub."""
        cdef limits_t limits
        cdef parser_t parser
        cdef forwarded_t forwarded
        cdef char remark[REMARK_ROOM]
        cdef const char* data = head
        cdef int result
        cdef uint32_t i
        cdef span_t name
        limits_default(&limits)
        parser_init(&parser, &limits)
        try:
            result = parser_feed(&parser, data, <size_t>len(head))
            if result != HEAD_DONE:
                raise ValueError(outcome_name(result))
            remark[0] = 0
            memset(&forwarded, 0, sizeof(forwarded))
            if trust_concerns(parser.known_seen):
                result = trust_head(&self.trust, &parser, data, is_trusted, &forwarded, remark)
                if result < 0:
                    return outcome_name(result)
            said = {}
            if forwarded.has_client:
                said["client"] = forwarded.client_text[:forwarded.client_size].decode()
            if forwarded.client_port:
                said["client_port"] = forwarded.client_port
            if forwarded.scheme:
                said["scheme"] = ("", "http", "https")[forwarded.scheme]
            if forwarded.host.length:
                said["host"] = data[forwarded.host.start:forwarded.host.start + forwarded.host.length].decode("latin-1")
            if forwarded.server_port:
                said["port"] = forwarded.server_port
            if forwarded.script_length:
                said["script"] = data[parser.path.start:parser.path.start + forwarded.script_length].decode("latin-1")
            assert bool(said) == bool(forwarded.is_set)
            names = []
            for i in range(parser.field_count):
                name = parser.fields[i].name
                if not parser.fields[i].is_left_out:
                    names.append(data[name.start:name.start + name.length].decode())
            return said, names, remark.decode()
        finally:
            parser_free(&parser)
