# What of a request head is believed, and from whom.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastwsgi._buffer cimport span_t
from fastwsgi._networks cimport ADDRESS_ROOM, networks_t
from fastwsgi._parser cimport (
    KNOWN_FORWARDED, KNOWN_X_FORWARDED_FOR, KNOWN_X_FORWARDED_HOST, KNOWN_X_FORWARDED_PORT, KNOWN_X_FORWARDED_PREFIX,
    KNOWN_X_FORWARDED_PROTO, KNOWN_X_FORWARDED_SSL, KNOWN_X_REAL_IP, parser_t,
)


# What becomes of names with an underscore.
cdef enum header_map_t:
    MAP_DROP
    MAP_REFUSE
    MAP_DANGEROUS

cdef enum:
    REMARK_ROOM = 224
    SAID_MOST = 64          # names that a worker warns about; the rest is silence


cdef struct trust_t:
    # From the settings.
    networks_t forwarders   # whose forwarding fields are believed
    networks_t proxies      # who begins a connection with a PROXY protocol header
    int proxy_versions      # PROXY_ bits; 0: nobody does
    header_map_t header_map
    char* names             # owned: of --forwarder-headers, in lower case, each with a zero; the last one is empty
    # What has been said already; the leader's.
    bint has_said_untrusted
    int said_count
    uint64_t said[SAID_MOST]    # hashes of names


cdef struct forwarded_t:
    # What a trusted peer says of the client; spans count from the head's first octet.
    uint8_t is_set          # anything of it
    uint8_t scheme          # scheme_t
    uint8_t has_client      # client_text; empty for one that is hidden
    uint8_t client_size
    uint16_t client_port    # 0: not known
    uint16_t server_port    # 0: not said
    span_t host             # of no length: not said
    uint32_t script_length  # of the path, from its start: SCRIPT_NAME
    char client_text[ADDRESS_ROOM]


cdef inline bint trust_concerns(uint64_t known_seen) noexcept nogil:
    """Only a head with one of these (parser_t.known_seen) is looked at here."""
    return known_seen & (
        1 | <uint64_t>1 << KNOWN_FORWARDED | <uint64_t>1 << KNOWN_X_FORWARDED_FOR
        | <uint64_t>1 << KNOWN_X_FORWARDED_HOST | <uint64_t>1 << KNOWN_X_FORWARDED_PORT
        | <uint64_t>1 << KNOWN_X_FORWARDED_PREFIX | <uint64_t>1 << KNOWN_X_FORWARDED_PROTO
        | <uint64_t>1 << KNOWN_X_FORWARDED_SSL | <uint64_t>1 << KNOWN_X_REAL_IP
    ) != 0


# Marks the fields that are left out of the environ and fills forwarded; 0 or -reason. remark: a text for the log, or
# empty; REMARK_ROOM. One for a head: the rest is said at the next.
cdef int trust_head(trust_t* trust, parser_t* parser, const char* data, bint is_trusted,
                    forwarded_t* forwarded, char* remark) noexcept nogil
cdef void trust_free(trust_t* trust) noexcept nogil
cdef int trust_set(trust_t* trust, object settings) except -1


cdef class Trust:
    cdef trust_t trust
