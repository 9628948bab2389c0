"""TLS: what OpenSSL does for a connection, through the interpreter's ssl module, with the GIL.

A step takes what was received, shakes hands or reads, seals what is to be sent, and waits for nothing. The thread of an
exchange seals what it adds to its slot. Knows octets and buffers, no sockets; who may call what for which connection,
and when, is in docs/decisions/0010-tls.md.
"""

import ssl
from ssl import MemoryBIO, SSLWantReadError, SSLZeroReturnError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, strncpy
from posix.types cimport off_t

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_reserve, buffer_t
from fastwsgi._outbox cimport outbox_next_part, outbox_seals, outbox_t

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* memory, Py_ssize_t size, int flags)
    int PyBUF_READ
    int PyBUF_WRITE

cdef extern from "unistd.h" nogil:
    ssize_t pread(int file, void* data, size_t size, off_t offset) noexcept

cdef enum:
    COPIED_MOST = 2048
    FILE_PIECE = 128 * 1024     # of a file, in one step

# Names of RFC 4514, and what else is common in the subject of a client's certificate.
cdef dict SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "streetAddress": "street",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
}


cdef class Tls:

    def __init__(self, source, list templates):
        """source: has an ssl.SSLContext, its `context`; templates: of environ, one for each listener."""
        # Asked for in the middle of a connection it is of no use to anybody but who wants to keep us busy.
        if not source.context.options & ssl.OP_NO_RENEGOTIATION:        # or else one from before gevent's patch would recurse
            source.context.options |= ssl.OP_NO_RENEGOTIATION
        self.source = source
        self.asks_client = source.context.verify_mode != ssl.CERT_NONE
        self.templates = templates
        self.known = {}


cdef inline PyObject* own(object thing):
    Py_INCREF(thing)
    return <PyObject*>thing


cdef int tls_open(Tls shared, tls_t* tls) except -1:
    """Make the Python objects of a connection."""
    incoming = MemoryBIO()
    outgoing = MemoryBIO()
    wrapped = shared.source.context.wrap_bio(incoming, outgoing, server_side=True)
    # Its methods cost a call of Python less than those of the object around it.
    inner = getattr(wrapped, "_sslobj", wrapped)
    tls.incoming = own(incoming)
    tls.outgoing = own(outgoing)
    tls.ssl = own(wrapped)
    tls.feed = own(incoming.write)
    tls.read = own(inner.read)
    tls.write = own(inner.write)
    tls.take = own(outgoing.read)
    return 0


cdef void tls_free(tls_t* tls) noexcept:
    """Let go of everything; with the GIL."""
    Py_XDECREF(tls.feed)
    Py_XDECREF(tls.read)
    Py_XDECREF(tls.write)
    Py_XDECREF(tls.take)
    Py_XDECREF(tls.template)
    Py_XDECREF(tls.ssl)
    Py_XDECREF(tls.incoming)
    Py_XDECREF(tls.outgoing)
    buffer_free(&tls.wire_in)
    buffer_free(&tls.plain_in)
    buffer_free(&tls.plain_out)
    buffer_free(&tls.wire_out)
    free(tls)


cdef inline object octets(const char* data, size_t size):
    """data[0:size] for a method that only reads it: few of them are copied sooner than a view of them is made."""
    if size <= COPIED_MOST:
        return PyBytes_FromStringAndSize(data, <Py_ssize_t>size)
    return PyMemoryView_FromMemory(<char*>data, <Py_ssize_t>size, PyBUF_READ)


cdef int take_wire(tls_t* tls, buffer_t* out) except -1:
    """Append what OpenSSL wants to have sent."""
    cdef bytes wire = <bytes>(<object>tls.take)()
    if buffer_append(out, PyBytes_AS_STRING(wire), <size_t>PyBytes_GET_SIZE(wire)) < 0:
        raise MemoryError
    return 0


cdef bytes tls_sealed(tls_t* tls, const char* data, size_t size):
    """data[0:size] as records, and before them what OpenSSL had to send still."""
    (<object>tls.write)(octets(data, size))
    return <bytes>(<object>tls.take)()


cdef int tls_seal(tls_t* tls, buffer_t* out, size_t start) except -1:
    """Seal what `out` has from start on, in its place; if that fails, it is gone: it must not leave as it was."""
    cdef size_t size = out.size - start
    cdef bytes wire
    if not size:
        return 0
    out.size = start
    wire = tls_sealed(tls, out.data + start, size)
    if buffer_append(out, PyBytes_AS_STRING(wire), <size_t>PyBytes_GET_SIZE(wire)) < 0:
        raise MemoryError
    return 0


cdef int tls_end(tls_t* tls, buffer_t* out) except -1:
    """Append close_notify: nothing more is sealed after it."""
    tls.said_end = True
    if not tls.is_open or tls.has_failed:
        return 0
    try:
        # It is said first, and then asked whether the client has said the same.
        (<object>tls.ssl).unwrap()
    except ssl.SSLError:
        pass
    return take_wire(tls, out)


cdef int shake_hands(tls_t* tls) except -1:
    """As far as what was received allows."""
    wrapped = <object>tls.ssl
    try:
        wrapped.do_handshake()
    except SSLWantReadError:
        return 0
    tls.is_open = True
    tls.is_resumed = wrapped.session_reused
    return 0


cdef int read_all(tls_t* tls, int records) except -1:
    """Read what was given to OpenSSL: so many records, each of them whole, so that nothing has to be tried."""
    cdef Py_ssize_t left, size
    cdef buffer_t* plain = &tls.plain_in
    cdef bytes data
    incoming = <object>tls.incoming
    while records and not tls.has_ended:
        records -= 1
        left = incoming.pending
        if not left:
            return 0
        # Never more than it takes sealed.
        if buffer_reserve(plain, <size_t>left) < 0:
            raise MemoryError
        try:
            if left <= <Py_ssize_t>COPIED_MOST:
                data = <bytes>(<object>tls.read)(left)
                size = PyBytes_GET_SIZE(data)
                memcpy(plain.data + plain.size, PyBytes_AS_STRING(data), <size_t>size)
            else:
                size = (<object>tls.read)(left, PyMemoryView_FromMemory(plain.data + plain.size, left, PyBUF_WRITE))
        except SSLWantReadError:
            return 0        # a message for OpenSSL itself
        except SSLZeroReturnError:
            size = 0
        if size == 0:
            tls.has_ended = True
        plain.size += <size_t>size
    return 0


cdef int seal_piece(tls_t* tls, outbox_t* outbox) except -1:
    """Seal the next piece of the outbox's file."""
    cdef size_t size = <size_t>min(outbox.file_left, <uint64_t>FILE_PIECE)
    cdef char* piece = <char*>malloc(size)
    cdef ssize_t n = -1
    if piece == NULL:
        raise MemoryError
    try:
        with nogil:         # the disk may be slow
            while True:
                n = pread(outbox.file, piece, size, outbox.file_offset)
                if n >= 0 or errno != EINTR:
                    break
        if n <= 0:
            tls.is_file_short = True
            return 0
        wire = tls_sealed(tls, piece, <size_t>n)
    finally:
        free(piece)
    if buffer_append(&tls.wire_out, PyBytes_AS_STRING(wire), <size_t>PyBytes_GET_SIZE(wire)) < 0:
        raise MemoryError
    outbox.file_offset += n
    outbox.file_left -= <uint64_t>n
    return 0


cdef int step(Tls shared, tls_t* tls, outbox_t* outbox) except -1:
    cdef size_t start = tls.wire_out.size
    cdef int records = tls.records
    if tls.ssl == NULL:
        tls_open(shared, tls)
    if tls.whole:
        (<object>tls.feed)(octets(tls.wire_in.data, tls.whole))
        tls.wire_in.size -= tls.whole
        if tls.wire_in.size:
            memmove(tls.wire_in.data, tls.wire_in.data + tls.whole, tls.wire_in.size)
        tls.whole = 0
        tls.records = 0
        if not tls.is_open:
            shake_hands(tls)
        if tls.is_open:
            read_all(tls, records)
    if outbox != NULL and outbox_seals(outbox) and not outbox.file_left and outbox_next_part(
            outbox, &tls.plain_out) < 0:
        raise MemoryError
    if tls.plain_out.size:
        if buffer_append(&tls.wire_out, tls.plain_out.data, tls.plain_out.size) < 0:
            raise MemoryError
        tls.plain_out.size = 0
        tls_seal(tls, &tls.wire_out, start)
    if outbox != NULL and outbox_seals(outbox) and outbox.file_left:
        seal_piece(tls, outbox)
    if tls.wants_end and not tls.said_end:
        tls_end(tls, &tls.wire_out)
    elif (<object>tls.outgoing).pending:
        take_wire(tls, &tls.wire_out)
    return 0


cdef int fail(tls_t* tls, object error) except -1:
    """Note why, and have the alert sent that tells the client."""
    tls.has_failed = tls.said_end = True
    reason = getattr(error, "reason", None)
    text = reason.replace("_", " ").lower() if reason else str(error) or type(error).__name__
    strncpy(tls.reason, text.encode("ascii", "backslashreplace"), REASON_ROOM - 1)
    if tls.take != NULL:
        take_wire(tls, &tls.wire_out)
    return 0


cdef int tls_step(Tls shared, tls_t* tls, outbox_t* outbox) noexcept:
    """Do for a connection what is to be done; what comes of it is in the struct."""
    if tls.has_failed:
        return 0
    try:
        step(shared, tls, outbox)
    except BaseException as error:
        # Whatever it is, MemoryError for one: this connection ends, and the thread goes on.
        tls.plain_out.size = 0
        try:
            fail(tls, error)
        except BaseException:
            tls.has_failed = tls.said_end = True
    return 0


# ---- what the application sees of it ----

cdef str name_text(names):
    """A name of a certificate as RFC 4514 has it, the last part first."""
    parts = []
    for several in reversed(names):
        parts.append("+".join(f"{SHORT_NAMES.get(kind, kind)}={escaped(value)}" for kind, value in several))
    return ",".join(parts)


cdef str escaped(str value):
    """RFC 4514, 2.4."""
    text = "".join("\\" + each if each in ',+"\\<>;' else each for each in value).replace("\0", "\\00")
    if text.endswith(" "):
        text = text.removesuffix(" ") + "\\ "
    return "\\" + text if text.startswith(("#", " ")) else text


cdef dict client_environ(wrapped):
    """SSL_CLIENT_: what is known of the client's certificate."""
    octets = wrapped.getpeercert(True)
    if not octets:
        return {"SSL_CLIENT_VERIFY": "NONE"}
    found = wrapped.getpeercert()
    return {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": native(name_text(found.get("subject", ()))),
        "SSL_CLIENT_I_DN": native(name_text(found.get("issuer", ()))),
        "SSL_CLIENT_M_SERIAL": found.get("serialNumber", ""),
        "SSL_CLIENT_V_START": found.get("notBefore", ""),
        "SSL_CLIENT_V_END": found.get("notAfter", ""),
        "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(octets),
    }


cdef str native(str text):
    """A native string (PEP 3333): the octets of its UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("latin-1")


cdef dict tls_template(Tls shared, tls_t* tls, int listener):
    """The environ that is the same for all requests of a connection."""
    if tls.template == NULL:
        wrapped = <object>tls.ssl
        key = (listener, wrapped.version(), wrapped.cipher()[0])
        template = shared.known.get(key)
        if template is None:
            template = dict(<dict>shared.templates[listener])
            template["SSL_PROTOCOL"] = key[1]
            template["SSL_CIPHER"] = key[2]
            # Never another one in the place of one that is there: without a GIL `get` could give that when it is gone.
            template = shared.known.setdefault(key, template)
        if shared.asks_client:
            template = template | client_environ(wrapped)
        tls.template = own(template)
    return <dict><object>tls.template
