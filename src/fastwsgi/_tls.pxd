# The second transport of a connection. What the loop does with it is inline here, without the GIL; what OpenSSL does is
# a step (docs/decisions/0010-tls.md).

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t
from fastwsgi._outbox cimport outbox_t


cdef enum:
    REASON_ROOM = 120
    RECORD_HEAD = 5
    RECORD_MOST = 16384 + 2048      # RFC 8446, 5.2, and RFC 5246, 6.2.3: content of a record
    KEPT_MOST = 1024                # of a buffer, while its connection is idle


cdef struct tls_t:
    # Of one connection. Who may touch what, and when: docs/decisions/0010-tls.md.
    tls_t* next                 # in loop.spent
    # Python objects, owned; NULL before the first step.
    PyObject* incoming          # MemoryBIO
    PyObject* outgoing
    PyObject* ssl               # SSLObject
    PyObject* feed              # methods, each bound once: of incoming,
    PyObject* read              # of the object behind SSLObject,
    PyObject* write
    PyObject* take              # and of outgoing
    PyObject* template          # of environ
    buffer_t wire_in            # received, not given to OpenSSL yet
    size_t whole                # octets of wire_in that are whole records
    int records                 # so many
    buffer_t plain_in           # read from OpenSSL, not taken yet
    size_t taken
    buffer_t plain_out          # to be sealed: what the loop itself answers
    buffer_t wire_out           # to be sent
    bint is_stepping
    bint is_open                # the handshake is done
    bint is_resumed             # with a session of before
    bint is_counted             # the loop has seen that it is open
    bint has_ended              # the client has said that nothing more comes
    bint said_end               # close_notify is on its way, or cannot be any more
    bint wants_end              # the next step says it
    bint has_failed             # `reason` says why; no step does anything any more
    bint is_file_short          # the file of the outbox ended before its announced length
    char reason[REASON_ROOM]


cdef class Tls:
    # What the TLS connections of a worker share.
    cdef object source          # its `context` is what connections begin with
    cdef bint asks_client       # for a certificate
    cdef list templates         # of environ, one for each listener
    cdef dict known             # (listener, protocol, cipher): the template with these in it


# With the GIL. A step never raises: what failed is in the struct.
cdef int tls_step(Tls shared, tls_t* tls, outbox_t* outbox) noexcept
cdef int tls_seal(tls_t* tls, buffer_t* out, size_t start) except -1
cdef bytes tls_sealed(tls_t* tls, const char* data, size_t size)
cdef int tls_end(tls_t* tls, buffer_t* out) except -1
cdef dict tls_template(Tls shared, tls_t* tls, int listener)
cdef void tls_free(tls_t* tls) noexcept


cdef inline bint tls_has_plain(const tls_t* tls) noexcept nogil:
    return tls.plain_in.size > tls.taken


cdef inline size_t tls_take(tls_t* tls, char* at, size_t room) noexcept nogil:
    """Up to `room` octets of what was read."""
    cdef size_t size = min(tls.plain_in.size - tls.taken, room)
    memcpy(at, tls.plain_in.data + tls.taken, size)
    tls.taken += size
    if tls.taken == tls.plain_in.size:
        tls.plain_in.size = tls.taken = 0
    return size


cdef inline void tls_cut(tls_t* tls) noexcept nogil:
    """Find the records that are whole; where there is none to be seen, OpenSSL shall say what is wrong."""
    cdef const uint8_t* at
    cdef size_t size
    while tls.wire_in.size - tls.whole >= RECORD_HEAD:
        at = <const uint8_t*>tls.wire_in.data + tls.whole
        size = at[3] << 8 | at[4]
        if not 20 <= at[0] <= 24 or at[1] != 3 or size > RECORD_MOST:
            tls.whole = tls.wire_in.size
            tls.records += 1
            return
        if tls.wire_in.size - tls.whole < RECORD_HEAD + size:
            return
        tls.whole += RECORD_HEAD + size
        tls.records += 1


cdef inline void tls_rest(tls_t* tls) noexcept nogil:
    """The connection is idle: keep no more than what a small request needs."""
    if tls.plain_in.capacity > KEPT_MOST and not tls_has_plain(tls):
        buffer_free(&tls.plain_in)
    if tls.wire_in.capacity > KEPT_MOST and not tls.wire_in.size:
        buffer_free(&tls.wire_in)
    if tls.wire_out.capacity > KEPT_MOST:
        buffer_free(&tls.wire_out)
    if tls.plain_out.capacity > KEPT_MOST:
        buffer_free(&tls.plain_out)
