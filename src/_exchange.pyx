"""One call of the application (PEP 3333): start_response, write, iteration, close, and file_wrapper.

An exchange runs on the thread whose slot it was given. It touches the connection only while it holds the slot, and
does not know whether it leads, but for one thing: bytes may wait in the slot for the end of the exchange while its
thread still has the lead, because whoever takes the lead sends them.
"""

import io
import os
import stat
import sys
from contextlib import suppress

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.math cimport ceil
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset
from posix.unistd cimport close, usleep

from fastwsgi._accesslog cimport accesslog_values
from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t
from fastwsgi._connection cimport (
    HANDED_NOTHING, HANDED_PATH, HANDED_TARGET, OUT_MOST, RESPONSE_DIRECT, SLOT_BUSY, SLOT_MASK, SLOT_REVOKED,
    TRANSMIT_DONE, TRANSMIT_FULL, TRANSMIT_LOST, connection_lost, connection_route, connection_t, connection_transmit,
    loop_t, request_id, request_t, slot_attend, slot_borrow, slot_make_up, slot_moved, slot_rest, slot_quiet,
    slot_release, slot_t, slot_waiting, transmit_t,
)
from fastwsgi._content cimport Input, content_length, input_from_bytes, input_from_content
from fastwsgi._encoding cimport CODING_NONE, Coder, Encodings, head_encode
from fastwsgi._environ cimport environ_build, environ_forward, environ_mount
from fastwsgi._guard cimport Guard, guard_borrow_page, guard_return_page, guard_t
from fastwsgi._lead cimport lead_holds
from fastwsgi._outbox cimport OUTBOX_LOST, outbox_add, outbox_add_file, outbox_new, outbox_send
from fastwsgi._parser cimport METHOD_HEAD, parser_t
from fastwsgi._platform cimport (
    dup_cloexec, line_load, platform_now_ns, platform_wall_seconds, pthread_cond_wait,
    pthread_mutex_lock, pthread_mutex_unlock, word_add, word_count, word_load,
    word_load_relaxed, word_replace, word_store_relaxed,
)
from fastwsgi._refusals cimport (
    REFUSAL_APPLICATION_ERROR, REFUSAL_GUESSING, REFUSAL_VERIFYING, REFUSAL_WRONG_CREDENTIALS, refusal_info,
)
from fastwsgi._response cimport (
    FRAMING_CHUNKED, FRAMING_CLOSE, FRAMING_LENGTH, FRAMING_NONE, RESPONSE_BAD_LENGTH, RESPONSE_BAD_NAME,
    RESPONSE_BAD_STATUS, RESPONSE_BAD_STATUS_CODE, RESPONSE_NO_MEMORY, RESPONSE_OK, RESPONSE_TAKEN, TAKES_TARGET,
    chunk_line, head_field, head_finish, head_framing, head_hint, head_lines, head_start, head_t, lines_keep, refused_t,
    response_refuse,
)
from fastwsgi._router cimport ACTION_APPLICATION, route_t
from fastwsgi._stats cimport PHASE_CLIENT, PHASE_CLOSE
from fastwsgi._tls cimport tls_end, tls_seal, tls_sealed, tls_t, tls_template

from fastwsgi.errors import RequestTimeout

cimport cython

cdef extern from "Python.h":
    # On borrowed references: these macros neither take nor keep one.
    int PyUnicode_1BYTE_KIND
    int PyUnicode_KIND(PyObject* text)
    bint PyUnicode_Check(PyObject* text)
    unsigned char* PyUnicode_1BYTE_DATA(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    bint PyTuple_Check(PyObject* item)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* item)
    unsigned long PyThread_get_thread_ident()
    int PyThreadState_SetAsyncExc(unsigned long thread, PyObject* exception)
    PyObject* PyTuple_GET_ITEM(PyObject* item, Py_ssize_t index)
    Py_ssize_t PySequence_Fast_GET_SIZE(object items)
    PyObject* PySequence_Fast_GET_ITEM(object items, Py_ssize_t index)
    # Calls without a tuple of arguments (PEP 590).
    ctypedef object (*ternaryfunc)(object called, object arguments, object named)
    ctypedef struct PyTypeObject:
        unsigned long tp_flags
        Py_ssize_t tp_vectorcall_offset
        ternaryfunc tp_call
    unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    Py_ssize_t PyVectorcall_NARGS(size_t flagged)

cdef enum:
    SEAL_PIECE = 128 * 1024     # of a large block, at a time
    INTERRUPTED_US = 10         # between two looks whether an exception has been raised in us

cdef tuple BUFFERED = (io.BufferedReader, io.BufferedRandom)


cdef class Context:

    def __cinit__(self):
        self.templates = []
        self.dropped_names = set()
        self.noun = "thread"

    cdef int warn_dropped(self, list names) except -1:
        """Say once that a field of the application is left out: an application that sends it does so every time."""
        for name in names:
            if name.lower() in ("connection", "content-length") or name.lower() in self.dropped_names:
                continue
            self.dropped_names.add(name.lower())
            self.log.warning("the application sends %s, a hop-by-hop field: it is left out, "
                             "because such fields are the server's (PEP 3333)", name)
        return 0


cdef int not_latin1(object text, str what) except -1:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be str, not {type(text).__name__}: {text!r}")
    raise ValueError(f"{what} has a character outside latin-1: {text!r}")


cdef inline int latin1(PyObject* text, str what, const char** data, Py_ssize_t* size) except -1:
    """The octets of a native string (PEP 3333, "A Note on String Types")."""
    if not PyUnicode_Check(text) or PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND:
        return not_latin1(<object>text, what)
    data[0] = <const char*>PyUnicode_1BYTE_DATA(text)
    size[0] = PyUnicode_GET_LENGTH(text)
    return 0


cdef int head_failed(int result, str what, object text) except -1:
    if result == RESPONSE_NO_MEMORY:
        raise MemoryError
    if result == RESPONSE_BAD_STATUS:
        raise ValueError(f"the status must be three digits, a space and a reason phrase, not {text!r}")
    if result == RESPONSE_BAD_STATUS_CODE:
        raise ValueError(f"a status below 200 is the server's to send, not the application's: {text!r}")
    if result == RESPONSE_BAD_NAME:
        raise ValueError(f"not a field name: {text!r}")
    if result == RESPONSE_BAD_LENGTH:
        raise ValueError(f"not one Content-Length that is a number: {text!r}")
    raise ValueError(f"{what} has a control character: {text!r}")


cdef struct milliseconds_t:
    int64_t whole
    int64_t thousandths


cdef inline milliseconds_t milliseconds(int64_t ns) noexcept nogil:
    return milliseconds_t(ns // 1000000, ns // 1000 % 1000)


cdef bint tell_times(slot_t* slot, const request_t* request) noexcept nogil:
    """Add where the time of a request went so far (Server-Timing of the W3C); False if memory is out."""
    cdef char text[256]
    cdef int64_t bound_ns = <int64_t>word_load_relaxed(&slot.shown.bound_ns)
    cdef int64_t began_ns = <int64_t>word_load_relaxed(&slot.shown.began_ns)
    cdef milliseconds_t head = milliseconds(request.head_ns - request.began_ns)
    cdef milliseconds_t content = milliseconds(request.ready_ns - request.head_ns)
    cdef milliseconds_t queue = milliseconds(bound_ns - request.ready_ns)
    cdef milliseconds_t gil = milliseconds(began_ns - bound_ns)
    cdef milliseconds_t app = milliseconds(platform_now_ns() - began_ns)
    # Not as fractions: the application may have set a locale that has a comma in them.
    cdef int size = snprintf(
        text, sizeof(text), "head;dur=%lld.%03lld, content;dur=%lld.%03lld, queue;dur=%lld.%03lld, gil;dur=%lld.%03lld, "
        "app;dur=%lld.%03lld", <long long>head.whole, <long long>head.thousandths, <long long>content.whole,
        <long long>content.thousandths, <long long>queue.whole, <long long>queue.thousandths, <long long>gil.whole,
        <long long>gil.thousandths, <long long>app.whole, <long long>app.thousandths)
    return head_field(&slot.head, b"Server-Timing", 13, text, <size_t>size) == RESPONSE_OK


cdef int seal(slot_t* slot, size_t start) except -1:
    """Over TLS: seal what the slot has from start on, in its place. What waits in a slot is as it goes out."""
    if slot.connection.tls != NULL:
        tls_seal(slot.connection.tls, &slot.out, start)
    return 0


cdef inline void unseal(slot_t* slot, size_t start) noexcept:
    """What cannot be sealed any more must not leave as it is."""
    if slot.connection.tls != NULL:
        slot.out.size = start


cdef transmit_t offer_once(loop_t* loop, slot_t* slot, const char* data, size_t size, const char* tail,
                           size_t tail_size, size_t* taken, uint64_t* progress) noexcept nogil:
    """Give the kernel what waits and then data and tail; TRANSMIT_FULL: slot_wait(), or the like, is to follow.

    The slot is held before and free afterwards: it must not be held by a thread that waits for the GIL, or the exchange
    could not be revoked.
    """
    cdef connection_t* connection = slot.connection
    cdef transmit_t outcome = connection_transmit(loop, connection, slot, data, size, tail, tail_size, taken)
    if outcome == TRANSMIT_LOST:
        connection_lost(loop, connection)
    elif outcome == TRANSMIT_FULL:
        # Before the leader can know of it: it tells of progress only if somebody waits.
        pthread_mutex_lock(&slot.mutex)
        word_add(&slot.waits, 1)
        progress[0] = slot.progress
        pthread_mutex_unlock(&slot.mutex)
    slot_release(loop, slot)
    return outcome


cdef void slot_wait(slot_t* slot, uint64_t progress) noexcept nogil:
    """Wait until something has changed: the client has read, or left, or the exchange was revoked."""
    pthread_mutex_lock(&slot.mutex)
    while slot.progress == progress:
        pthread_cond_wait(&slot.moved, &slot.mutex)
    pthread_mutex_unlock(&slot.mutex)


cdef uint64_t wait_begins(slot_t* slot) noexcept nogil:
    """What the slot was at, for wait_ends()."""
    cdef uint64_t phase = word_load_relaxed(&slot.shown.phase)
    word_store_relaxed(&slot.shown.phase, PHASE_CLIENT)
    return phase


cdef void wait_ends(slot_t* slot, uint64_t phase) noexcept nogil:
    word_add(&slot.waits, -1)
    word_store_relaxed(&slot.shown.phase, phase)
    # The client has read: that is progress, as a block is.
    word_count(&slot.blocks, 1)


cdef transmit_t offer_patiently(loop_t* loop, slot_t* slot, const char* data, size_t size, const char* tail,
                                size_t tail_size, size_t* taken) noexcept nogil:
    """The same as offer_once; where all buffers are full, wait until the client has read."""
    cdef uint64_t progress = 0, phase
    cdef transmit_t outcome = offer_once(loop, slot, data, size, tail, tail_size, taken, &progress)
    if outcome == TRANSMIT_FULL:
        phase = wait_begins(slot)
        slot_wait(slot, progress)
        wait_ends(slot, phase)
    return outcome


@cython.final
@cython.no_gc        # it lets go of the context, and with it of the application, when it is over
@cython.freelist(64)
cdef class Exchange:
    """The start_response callable of one request, and what becomes of it."""

    def __call__(self, status, headers, exc_info=None):
        """start_response of PEP 3333; returns write()."""
        return self.respond(status, headers, exc_info)

    cdef Write respond(self, object status, object headers, object exc_info):
        cdef Write write
        # Against the end of the exchange in another thread, where there is no GIL; nothing where there is one.
        with cython.critical_section(self):
            self.begin(status, headers, exc_info)
        write = <Write>Write.__new__(Write)
        write.exchange = self
        return write

    cdef int begin(self, object status, object headers, object exc_info) except -1:
        """Take status and fields; with the critical section held."""
        if self.slot == NULL:
            raise RuntimeError("start_response was called after the exchange had ended")
        if exc_info is not None:
            if self.slot.head_sent:
                try:
                    raise exc_info[1].with_traceback(exc_info[2])
                finally:
                    exc_info = None
        elif self.is_started:
            raise AssertionError("start_response was called a second time without exc_info")
        self.is_started = False
        word_store_relaxed(&self.is_judged, False)
        self.coder = None
        self.set_head(status, headers)
        self.is_started = True
        if self.left_out is not None:
            self.warn_left_out()
        return 0

    cdef int warn_left_out(self) except -1:
        """A log may let others run: the exchange can be over when it comes back."""
        cdef list names = self.left_out
        self.left_out = None
        return self.context.warn_dropped(names)

    cdef Coder current_coder(self):
        """A reference of its own: start_response, in another thread, may let go of it at this moment."""
        cdef Coder coder
        with cython.critical_section(self):
            coder = self.coder
        return coder

    cdef int let_go_of_coder(self) except -1:
        with cython.critical_section(self):
            self.coder = None
        return 0

    def is_set(self):
        """True once the client has left, or ended its side of the connection, which may be just that.

        As environ["fastwsgi.client_gone"]; from any thread, and after the exchange too.
        """
        cdef slot_t* slot
        if not word_load_relaxed(&self.is_lost) and self.has_slot():
            try:
                slot = self.claim()
            except (ConnectionError, RuntimeError):
                return word_load_relaxed(&self.is_lost) != 0
            if word_load_relaxed(&slot.connection.gone):
                word_store_relaxed(&self.is_gone, True)
            self.release()
        return word_load_relaxed(&self.is_lost) != 0 or word_load_relaxed(&self.is_gone) != 0

    def leave_unlogged(self):
        """Have no line of this exchange in the access log."""
        cdef slot_t* slot = self.claim()
        slot.is_unlogged = True
        self.release()

    cdef bint has_slot(self) noexcept:
        """The exchange has not ended."""
        with cython.critical_section(self):
            return self.slot != NULL

    cdef slot_t* claim(self) except NULL:
        """Hold the slot, and with it the connection; raises ConnectionError when the exchange was revoked."""
        cdef slot_t* slot
        cdef bint is_taken = False, is_ours = False
        while True:
            # With the GIL, or else the critical section: until it is NULL, the slot is of this exchange.
            with cython.critical_section(self):
                slot = self.slot
                if slot != NULL:
                    is_taken = (word_load_relaxed(&self.is_revoked)
                                or line_load(&slot.word) & SLOT_MASK >= SLOT_REVOKED)
                    is_ours = not is_taken and slot_borrow(slot)
            if slot == NULL:
                raise RuntimeError("the exchange has ended")
            if is_taken:
                break
            if is_ours:
                return slot
            self.rest(slot)
        word_store_relaxed(&self.is_lost, True)
        word_store_relaxed(&self.is_revoked, True)
        raise ConnectionError("the exchange was taken away from this thread")

    cdef int rest(self, slot_t* slot) except -1:
        """The leader sends from it at this moment, perhaps from a slow disk; or another thread of the application."""
        if self.is_green:
            self.context.greenlets.rest()
        else:
            with nogil:
                slot_rest(slot)
        return 0

    cdef void release(self) noexcept:
        """Let go of the slot, unless it was taken away, or given up while this thread of the application waited."""
        cdef slot_t* slot
        with cython.critical_section(self):
            slot = self.slot
        if not word_load_relaxed(&self.is_revoked) and slot != NULL:
            slot_attend(self.loop, slot)
            slot_quiet(slot)
            if word_load(&slot.missed):
                # Another thread of the application may hold it by now, and wait for the GIL to seal.
                with nogil:
                    slot_make_up(self.loop, slot)

    cdef int set_head(self, object status, object headers) except -1:
        """Check status and fields and write their lines (nothing is sent yet)."""
        cdef slot_t* slot = self.slot
        cdef const char* value = NULL
        cdef Py_ssize_t value_size = 0
        cdef int result
        latin1(<PyObject*>status, "the status", &value, &value_size)
        result = head_start(&slot.head, value, <size_t>value_size)
        if result < 0:
            head_failed(result, "the status", status)
        return self.set_fields(&slot.head, headers)

    cdef int set_fields(self, head_t* head, object headers) except -1:
        """Check fields and write their lines, but for those in `left_out`."""
        cdef const char* name = NULL
        cdef const char* value = NULL
        cdef Py_ssize_t name_size = 0, value_size = 0
        cdef Py_ssize_t i = 0
        cdef PyObject* item
        cdef int result
        if not isinstance(headers, (list, tuple)):
            raise TypeError(f"the fields must be a list of tuples, not {type(headers).__name__}")
        # Borrowed items: nothing in this loop runs code of the application, but for what raises; and no other thread
        # of it can change the list meanwhile.
        with cython.critical_section(headers):
            while i < PySequence_Fast_GET_SIZE(headers):
                item = PySequence_Fast_GET_ITEM(headers, i)
                i += 1
                if not PyTuple_Check(item) or PyTuple_GET_SIZE(item) != 2:
                    raise TypeError(f"a field must be a tuple of name and value, not {<object>item!r}")
                latin1(PyTuple_GET_ITEM(item, 0), "a field name", &name, &name_size)
                latin1(PyTuple_GET_ITEM(item, 1), "a field value", &value, &value_size)
                result = head_field(head, name, <size_t>name_size, value, <size_t>value_size)
                if result != RESPONSE_OK:
                    self.field_left_out(result, <tuple><object>item)
        return 0

    cdef int field_left_out(self, int result, tuple item) except -1:
        """A field is not sent: because it must not be, or because it cannot be. Nothing of the application runs here."""
        name, value = item
        if result == RESPONSE_TAKEN:
            return 0
        if result < 0:
            head_failed(result, f"the value of {name}", name if result == RESPONSE_BAD_NAME else value)
        if self.left_out is None:
            self.left_out = []
        self.left_out.append(name)
        return 0

    cdef int commit_head(self, slot_t* slot, connection_t* connection, bint size_is_known, uint64_t size) except -1:
        """Decide the framing and put the head into the slot; with the slot held."""
        cdef bint length_is_ours = False
        cdef bint keep_alive
        if not self.is_started:
            raise AssertionError("the application did not call start_response before its first block")
        if slot.head.hands:
            return self.hand_over(slot, connection.request)
        self.framing = head_framing(&slot.head, self.is_head_request, self.version_minor, size_is_known)
        self.drops_content = self.framing == FRAMING_NONE
        if not slot.head.has_content_length and size_is_known:
            # A HEAD that has no content at hand may have had some for GET: nothing is said then.
            length_is_ours = self.framing == FRAMING_LENGTH or (
                self.is_head_request and size and slot.head.status != 204 and slot.head.status != 304
                and not slot.head.is_coded)
            self.left = slot.head.content_length = size
        elif self.framing == FRAMING_LENGTH:
            self.left = slot.head.content_length
        if self.loop.tells_times and not tell_times(slot, connection.request):
            raise MemoryError
        if connection.request.id.length and not slot.head.has_request_id and head_field(
                &slot.head, b"X-Request-ID", 12, request_id(connection.request), connection.request.id.length) < 0:
            raise MemoryError
        if connection.request.route != NULL and connection.request.route.lines.count and head_lines(
                &slot.head, &connection.request.route.lines) < 0:
            raise MemoryError
        keep_alive = not slot.head.closes and self.framing != FRAMING_CLOSE and keeps_alive(self, connection)
        if head_finish(&slot.head, &slot.out, self.framing, length_is_ours, size, keep_alive, self.version_minor,
                       &slot.date, platform_wall_seconds()) < 0:
            raise MemoryError
        if not keep_alive:
            connection.closes = True
            # Where it was our decision, the client may be sending the next request.
            connection.lingers = connection.request.parser.keep_alive
        slot.status = slot.head.status
        slot.head_sent = True
        return 0

    cdef int judge(self, bint size_is_known, uint64_t size) except -1:
        """Decide whether the content leaves in a coding, before the head does; size is that of the content."""
        cdef slot_t* slot
        with cython.critical_section(self):
            slot = self.slot
            if slot == NULL or not self.is_started:
                return 0
            if slot.head.has_content_length:
                size_is_known = True
                size = slot.head.content_length
            if size_is_known and size < self.encodings.least:
                word_store_relaxed(&self.is_judged, True)
                return 0
        return self.judge_head(slot, size_is_known, size)

    cdef int judge_head(self, slot_t* slot, bint size_is_known, uint64_t size) except -1:
        """The same where there is enough content."""
        cdef connection_t* connection
        cdef Coder coder
        cdef int coding
        cdef bint is_counted
        with cython.critical_section(self):
            is_counted = slot.head.has_content_length
            if slot.head.hands or not self.encodings.can_code(&slot.head):
                word_store_relaxed(&self.is_judged, True)
                return 0
        self.claim()
        try:
            connection = slot.connection
            coding = self.encodings.choose(&connection.request.parser,
                                           connection.request.buffer.data + connection.request.start)
            # With the slot held, as an application may write from several threads.
            with cython.critical_section(self):
                if not word_load_relaxed(&self.is_judged) and (coding == CODING_NONE or self.is_head_request):
                    word_store_relaxed(&self.is_judged, True)
                    if head_encode(&slot.head, coding) < 0:
                        raise MemoryError
        finally:
            self.release()
        if not word_load_relaxed(&self.is_judged):
            with self.encodings.lock:
                if not word_load_relaxed(&self.is_judged):
                    coder = self.encodings.coder(coding, size_is_known, size)
                    coder.is_counted = is_counted
                    coder.left = size
                    with cython.critical_section(self):
                        self.coder = coder
                        word_store_relaxed(&self.is_judged, True)
        return 0

    cdef int hand_over(self, slot_t* slot, request_t* request) except -1:
        """The application has named a file: the loop answers with that, and with fields of the application."""
        cdef buffer_t* handed = &request.handed
        handed.size = 0
        if (lines_keep(&slot.head, handed) < 0):
            raise MemoryError
        request.handed_lines = handed.size
        if buffer_append(handed, slot.head.handed.data, slot.head.handed.size) < 0:
            raise MemoryError
        request.handed_as = HANDED_TARGET if slot.head.hands == TAKES_TARGET else HANDED_PATH
        request.is_handed_over = True
        if slot.head.closes:
            slot.connection.closes = True
        self.framing = FRAMING_NONE
        self.drops_content = True
        slot.status = slot.head.status
        slot.head_sent = slot.has_ended = True
        return 0

    cdef int hand_back(self) except -1:
        """The client may come in, and what its route has for it is the loop's to answer with."""
        cdef slot_t* slot = self.claim()
        cdef request_t* request = slot.connection.request
        request.handed.size = request.handed_lines = 0
        request.handed_as = HANDED_NOTHING
        request.is_handed_over = True
        slot.head_sent = slot.has_ended = True
        self.release()
        return 0

    cdef int add(self, bytes block, bint is_whole) except -1:
        """Send a block that is not empty; is_whole: it is all the content there will be."""
        cdef Coder coder
        if self.encodings is not None:
            if not word_load_relaxed(&self.is_judged):
                self.judge(is_whole, <uint64_t>PyBytes_GET_SIZE(block))
            coder = self.current_coder()
            if coder is not None:
                return self.add_coded(coder, block, is_whole)
        return self.put(block, is_whole)

    cdef int add_coded(self, Coder coder, bytes block, bint is_whole) except -1:
        """The same for content that leaves in a coding. What it announced is counted here, in octets of its own."""
        cdef bytes coded
        with coder.lock:
            if coder.is_counted:
                if <uint64_t>len(block) > coder.left:
                    self.is_overrun = True
                    block = block[:coder.left]
                    if not block:
                        return 0
                coder.left -= <uint64_t>len(block)
                is_whole = not coder.left
            if coder.is_begun:
                coded = coder.block(block)
                return self.put(coded, False) if coded else 0
            coded = coder.whole(block) if is_whole else coder.block(block)
            if is_whole and len(coded) >= len(block):
                # It was in one already, as a picture is, whatever its type says.
                self.let_go_of_coder()
                self.head_coded(CODING_NONE)
                return self.put(block, True)
            self.head_coded(coder.coding)
            coder.is_begun = True
            return self.put(coded, is_whole) if coded else 0

    cdef int end_coded(self, Coder coder) except -1:
        """The iterable has ended: send what the coder has kept, and the end of its content if all of it was given."""
        cdef bytes coded
        with coder.lock:
            coded = coder.end()
            if coder.is_counted and coder.left:
                self.left = coder.left
            elif coded:
                self.put(coded, False)
        return 0

    cdef int head_coded(self, int coding) except -1:
        """Let the head say what the content is in."""
        cdef slot_t* slot = self.claim()
        cdef int result
        with cython.critical_section(self):
            result = head_encode(&slot.head, coding)
        self.release()
        if result < 0:
            raise MemoryError
        return 0

    cdef int put(self, bytes block, bint is_whole) except -1:
        """Send octets as they shall arrive, and the head before the first of them."""
        cdef slot_t* slot = self.claim()
        cdef const char* data = PyBytes_AS_STRING(block)
        cdef size_t size = <size_t>PyBytes_GET_SIZE(block)
        cdef char line[24]
        cdef const char* tail = NULL
        cdef size_t tail_size = 0
        cdef size_t start = slot.out.size       # with TLS, what is behind it is to be sealed
        try:
            if not slot.head_sent:
                with cython.critical_section(self):     # against start_response, which does not hold the slot
                    self.commit_head(slot, slot.connection, is_whole, size)
            if self.drops_content:
                return seal(slot, start)
            if self.framing == FRAMING_LENGTH:
                if size > self.left:
                    self.is_overrun = True
                    size = <size_t>self.left
                    if not size:
                        return seal(slot, start)
                self.left -= size
                self.is_finished = is_whole and not self.left
            elif self.framing == FRAMING_CHUNKED:
                if buffer_append(&slot.out, line, chunk_line(line, size)) < 0:
                    unseal(slot, start)
                    raise MemoryError
                tail = b"\r\n"
                tail_size = 2
            slot.sent += size
            if slot.connection.tls != NULL:
                self.add_sealed(slot, start, block, size, tail, tail_size)
            elif size >= RESPONSE_DIRECT:
                self.offer(slot, data, size, tail, tail_size)
            elif buffer_append(&slot.out, data, size) < 0 or buffer_append(&slot.out, tail, tail_size) < 0:
                raise MemoryError
            elif slot_waiting(slot) >= OUT_MOST:
                self.offer(slot, NULL, 0, NULL, 0)
            slot.has_ended = self.framing == FRAMING_LENGTH and not self.left
        finally:
            self.release()
        return self.flush()

    cdef int add_sealed(self, slot_t* slot, size_t start, bytes block, size_t size, const char* tail,
                        size_t tail_size) except -1:
        """Seal what slot.out has from start on, then `size` octets of block and the tail; offer what is much."""
        cdef const char* data = PyBytes_AS_STRING(block)
        cdef bytes wire, end = b""
        cdef size_t piece
        if size < RESPONSE_DIRECT:
            # All of it in one record, head and all.
            if buffer_append(&slot.out, data, size) < 0 or buffer_append(&slot.out, tail, tail_size) < 0:
                unseal(slot, start)
                raise MemoryError
            seal(slot, start)
            if slot_waiting(slot) >= OUT_MOST:
                self.offer(slot, NULL, 0, NULL, 0)
            return 0
        seal(slot, start)
        while size:
            piece = min(size, <size_t>SEAL_PIECE)
            wire = tls_sealed(slot.connection.tls, data, piece)
            data += piece
            size -= piece
            if tail_size and not size:
                end = tls_sealed(slot.connection.tls, tail, tail_size)
            self.offer(slot, PyBytes_AS_STRING(wire), <size_t>PyBytes_GET_SIZE(wire),
                       PyBytes_AS_STRING(end), <size_t>PyBytes_GET_SIZE(end))
        return 0

    cdef int flush(self) except -1:
        """Send what waits in the slot, unless this thread has the lead: then whoever takes it sends it.

        That the lead is looked at after the slot was released closes the gap: a taker that found the slot held has
        replaced the lead word before.
        """
        cdef slot_t* slot
        with cython.critical_section(self):
            slot = self.slot
            if slot != NULL and slot.away and lead_holds(&self.loop.lead, slot.away):
                return 0
        self.claim()
        try:
            if slot_waiting(slot):
                self.offer(slot, NULL, 0, NULL, 0)
        finally:
            self.release()
        return 0

    cdef int offer(self, slot_t* slot, const char* data, size_t size, const char* tail, size_t tail_size) except -1:
        """Give the kernel what waits and then data and tail; with the slot held. Waits when all buffers are full."""
        cdef transmit_t outcome
        cdef size_t taken = 0
        cdef int64_t began_ns
        while True:
            began_ns = platform_now_ns()
            if slot.connection.outbox == NULL and size + slot_waiting(slot) <= OUT_MOST:
                outcome = connection_transmit(self.loop, slot.connection, slot, data, size, tail, tail_size, &taken)
                if outcome == TRANSMIT_LOST:
                    connection_lost(self.loop, slot.connection)
                if outcome == TRANSMIT_DONE:
                    slot_attend(self.loop, slot)
            else:
                if not self.is_green:
                    with nogil:
                        outcome = offer_patiently(self.loop, slot, data, size, tail, tail_size, &taken)
                else:
                    outcome = self.offer_in_greenlet(slot, data, size, tail, tail_size, &taken)
                self.claim()        # or it is another exchange's by now
            slot.sending_ns += platform_now_ns() - began_ns
            if outcome == TRANSMIT_LOST:
                word_store_relaxed(&self.is_lost, True)
                raise ConnectionError("the client is gone")
            if outcome == TRANSMIT_DONE:
                return 0
            data += taken
            size -= taken

    cdef transmit_t offer_in_greenlet(self, slot_t* slot, const char* data, size_t size, const char* tail,
                                      size_t tail_size, size_t* taken) except *:
        """As offer_patiently; others run meanwhile, and may raise something here."""
        cdef uint64_t progress = 0, phase
        cdef transmit_t outcome
        with nogil:
            outcome = offer_once(self.loop, slot, data, size, tail, tail_size, taken, &progress)
        if outcome == TRANSMIT_FULL:
            phase = wait_begins(slot)
            try:
                if not self.context.greenlets.wait(slot.index, progress):
                    with nogil:
                        slot_wait(slot, progress)
            finally:
                wait_ends(slot, phase)
        return outcome

    cdef int finish(self) except -1:
        """The iterable has ended: end the content as its framing says."""
        cdef slot_t* slot
        cdef Coder coder
        word_store_relaxed(&self.has_ended, True)
        if self.is_finished:
            return 0
        if self.encodings is not None:
            if not word_load_relaxed(&self.is_judged):
                self.judge(not self.is_head_request, 0)
            coder = self.current_coder()
            if coder is not None:
                self.end_coded(coder)
        slot = self.claim()
        cdef size_t start = slot.out.size
        try:
            if not slot.head_sent:
                # Something is left here where a coder was given less than was announced.
                with cython.critical_section(self):
                    self.commit_head(slot, slot.connection, not self.left, 0)
            if self.left and not self.drops_content:
                slot.connection.closes = True
            elif self.framing == FRAMING_CHUNKED and buffer_append(&slot.out, b"0\r\n\r\n", 5) < 0:
                unseal(slot, start)
                raise MemoryError
            seal(slot, start)
            slot.has_ended = True
        finally:
            self.release()
        return self.flush()

    cdef int hint(self, object headers) except -1:
        """Send a 103, unless the head has left, or the client is gone, or would take it for the answer."""
        cdef slot_t* slot
        cdef head_t head
        cdef size_t start
        if not self.version_minor:
            return 0
        memset(&head, 0, sizeof(head))
        try:
            with cython.critical_section(self):
                if self.slot == NULL:
                    return 0
                if head_hint(&head) < 0:
                    raise MemoryError
                self.set_fields(&head, headers)
                if self.left_out is not None:
                    self.warn_left_out()
            with suppress(ConnectionError, RuntimeError):       # RuntimeError: in another thread it has ended just now
                slot = self.claim()
                try:
                    if not slot.head_sent:
                        start = slot.out.size
                        if buffer_append(&head.lines, b"\r\n", 2) < 0 or buffer_append(
                                &slot.out, head.lines.data, head.lines.size) < 0:
                            raise MemoryError
                        seal(slot, start)
                        self.offer(slot, NULL, 0, NULL, 0)
                finally:
                    self.release()
        finally:
            buffer_free(&head.lines)
        return 0

    cdef int send_file(self, object wrapper) except -1:
        """Send a real file by sendfile(2); 0 when this one has to be read instead, 1 when done."""
        cdef slot_t* slot = self.slot
        cdef Coder coder
        cdef connection_t* connection
        cdef int fd, copy, outcome
        cdef int64_t offset, size, began_ns
        cdef uint64_t length
        cdef size_t waiting
        place = file_place((<FileWrapper>wrapper).filelike)
        if place is None or slot.head_sent:
            return 0
        fd, offset, size = place
        if self.encodings is not None:
            if not word_load_relaxed(&self.is_judged):
                self.judge(True, <uint64_t>size)
            coder = self.current_coder()
            if coder is not None:
                coder.is_patient = True
                return 0
        # A copy of the descriptor, so that close() can run before the client has read everything.
        copy = dup_cloexec(fd)
        if copy < 0:
            return 0
        try:
            self.claim()
        except ConnectionError:
            close(copy)
            raise
        try:
            connection = slot.connection
            if connection.outbox == NULL:
                connection.outbox = outbox_new()
                if connection.outbox == NULL:
                    raise MemoryError
            waiting = slot.out.size
            with cython.critical_section(self):
                self.commit_head(slot, connection, True, <uint64_t>size)
            seal(slot, waiting)
            length = min(<uint64_t>size, self.left)
            if self.drops_content or not length:
                return 1
            outbox_add_file(connection.outbox, copy, offset, length, connection.tls != NULL)
            copy = -1       # the outbox owns it
            if connection.tls != NULL:
                # The loop seals it, a piece at a time, when the exchange is over.
                self.left -= length
                slot.sent += length
                return 1
            waiting = slot_waiting(slot)
            if outbox_add(connection.outbox, slot.out.data + slot.out_sent, waiting, <size_t>-1, UINT64_MAX,
                          self.loop.spool_directory) < waiting:
                raise MemoryError
            slot.out.size = slot.out_sent = 0
            self.left -= length
            slot.sent += length
            began_ns = platform_now_ns()
            with nogil:
                outcome = outbox_send(connection.outbox, connection.fd, False, &slot.measures.sent)
                if outcome < 0:
                    connection.closes = True
                    connection.wants_reset = True
                slot_release(self.loop, slot)       # as in offer_patiently
            self.claim()
            slot.sending_ns += platform_now_ns() - began_ns
            if outcome < 0:
                word_store_relaxed(&self.is_lost, True)
                if outcome == OUTBOX_LOST:
                    word_add(&self.loop.counters.lost_clients, 1)
                    raise ConnectionError("the client is gone")
                raise OSError("the file became shorter while it was sent")
        finally:
            if copy >= 0:
                close(copy)
            self.release()
        return 1


cdef object exchange_called(PyObject* called, PyObject* const* arguments, size_t flagged, PyObject* names):
    """Exchange.__call__ as a vectorcallfunc: the interpreter makes no tuple for a call that has no names."""
    cdef Exchange exchange = <Exchange>called
    cdef Py_ssize_t i, count = PyVectorcall_NARGS(flagged)
    if names == NULL and (count == 2 or count == 3):
        return exchange.respond(<object>arguments[0], <object>arguments[1],
                                <object>arguments[2] if count == 3 else None)
    named = {} if names == NULL else {name: <object>arguments[count + i] for i, name in enumerate(<object>names)}
    return EXCHANGE_TYPE.tp_call(exchange, tuple([<object>arguments[i] for i in range(count)]), named)


cdef PyTypeObject* EXCHANGE_TYPE = <PyTypeObject*><PyObject*>Exchange


cdef int call_directly() except -1:
    """Have exchanges called by exchange_called. Cython has no word for that; it is said before there are any."""
    cdef Exchange one = Exchange.__new__(Exchange)
    EXCHANGE_TYPE.tp_vectorcall_offset = <char*>&one.called - <char*><PyObject*>one
    EXCHANGE_TYPE.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
    return 0

call_directly()


@cython.final
@cython.no_gc        # an exchange never refers to its write()
@cython.freelist(64)
cdef class Write:
    """The write callable of PEP 3333; an object of its own, because a bound method takes several times as long."""

    def __call__(self, data not None):
        """Send data before the iterable's blocks; raises ConnectionError when the client is gone."""
        cdef bint is_over
        with cython.critical_section(self.exchange):
            is_over = self.exchange.slot == NULL or word_load_relaxed(&self.exchange.has_ended)
            if not is_over:
                word_count(&self.exchange.slot.blocks, 1)
        if is_over:
            raise RuntimeError("write was called after the content had ended")
        if not isinstance(data, bytes):
            raise TypeError(f"write takes bytes, not {type(data).__name__}")
        if PyBytes_GET_SIZE(data):
            self.exchange.add(<bytes>data, False)


@cython.final
@cython.no_gc        # as Write
@cython.freelist(64)
cdef class EarlyHints:
    """environ["wsgi.early_hints"], as gunicorn has it: sends a 103 with these fields (RFC 8297)."""

    def __call__(self, headers):
        """Send the fields, a list as for start_response, at once. Does nothing when it is too late, or for HTTP/1.0."""
        self.exchange.hint(headers)


@cython.final
cdef class FileWrapper:
    """wsgi.file_wrapper: an iterable over a file; a real file is sent by sendfile(2) (PEP 3333)."""

    cdef readonly object filelike
    cdef readonly object blksize

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    def close(self):
        """Close the file, if it can be closed."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


cdef object file_place(object filelike):
    """(descriptor, offset, bytes left) of a regular file whose read() is the file's own; None for anything else.

    An object may well have the descriptor of a file and read something else: gzip.GzipFile does. One that passes
    everything on to a real file, as the wrappers of frameworks do, is as good as the file.
    """
    if type(filelike).__module__ == "tempfile":
        filelike = getattr(filelike, "file", None)
    file = getattr(getattr(filelike, "read", None), "__self__", None)
    if type(file) in BUFFERED:
        if type(file.raw) is not io.FileIO:
            return None
    elif type(file) is not io.FileIO:
        return None
    try:
        status = os.fstat(file.fileno())
        # Files of /proc and /sys have something in them for all their size of 0 or of a page, and no blocks: those
        # have to be read.
        if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
            return None
        if type(file) is io.BufferedRandom:
            file.flush()
        return file.fileno(), file.tell(), max(status.st_size - file.tell(), 0)
    except (OSError, ValueError):
        return None


cdef int iterate(Exchange exchange, object iterable) except -1:
    """Send the blocks of the iterable."""
    cdef Py_ssize_t length = -1
    cdef bytes block
    if type(iterable) is list:
        length = len(<list>iterable)
    elif type(iterable) is tuple:
        length = len(<tuple>iterable)
    elif type(iterable) is FileWrapper:
        if exchange.is_started and exchange.send_file(iterable):
            return 0
    elif isinstance(iterable, str):
        raise TypeError("the application returned str, not an iterable of bytes")
    elif hasattr(type(iterable), "__len__"):
        length = len(iterable)
    for item in iterable:
        if not isinstance(item, bytes):
            raise TypeError(f"the application's iterable gave {type(item).__name__}, not bytes")
        block = <bytes>item
        word_count(&exchange.slot.blocks, 1)
        if PyBytes_GET_SIZE(block):
            exchange.add(block, length == 1)
            if exchange.drops_content:
                break
    return 0


cdef int close_iterable(object iterable, slot_t* slot) except -1:
    """close() of PEP 3333, if there is one."""
    if type(iterable) is list or type(iterable) is tuple:
        return 0
    close = getattr(iterable, "close", None)
    if close is not None:
        word_store_relaxed(&slot.shown.phase, PHASE_CLOSE)
        close()
    return 0


cdef str request_text(connection_t* connection):
    """Method and target, for the log."""
    cdef request_t* request = connection.request
    cdef const char* data = request.buffer.data + request.start
    cdef parser_t* parser = &request.parser
    method = data[parser.method_name.start:parser.method_name.start + parser.method_name.length]
    target = data[parser.target.start:parser.target.start + parser.target.length]
    what = (method + b" " + target).decode("latin-1").encode("unicode_escape").decode("ascii")
    name = id_text(request)
    return f"{what} (request id {name})" if name else what


cdef str id_text(request_t* request):
    """Its id, or nothing."""
    return request_id(request)[:request.id.length].decode("ascii") if request.id.length else ""


cdef bint keeps_alive(Exchange exchange, connection_t* connection) noexcept:
    """The connection may be kept after an answer whose end can be told."""
    return (connection.request.parser.keep_alive and connection.requests < exchange.loop.keep_alive_requests
            and not word_load_relaxed(&exchange.loop.draining))


cdef int exchange_refuse(Exchange exchange, slot_t* slot, int reason, bint keep_alive, double retry_after=0) except -1:
    """Put the answer for a reason into the slot, which is held."""
    cdef connection_t* connection = slot.connection
    cdef request_t* request = connection.request
    cdef const route_t* route = connection_route(exchange.loop, connection)
    cdef const guard_t* guard = NULL if route == NULL else route.guard
    cdef refused_t told
    cdef size_t start = slot.out.size
    memset(&told, 0, sizeof(told))
    told.request_id = request_id(request)
    told.id_size = request.id.length
    told.lines = NULL if route == NULL else &route.lines
    told.is_head_request = exchange.is_head_request
    told.keep_alive = keep_alive
    told.version_minor = exchange.version_minor
    told.retry_after = <uint32_t>ceil(retry_after)
    with cython.critical_section(exchange):
        slot.head_sent = slot.has_ended = True
        slot.head.lines.size = 0
    slot.status = refusal_info(reason).status
    if not keep_alive:
        connection.closes = True
        connection.lingers = True
    if guard != NULL:
        told.challenge = guard.challenge
        told.challenge_size = guard.challenge_size if slot.status == 401 else 0
        told.page = guard_borrow_page(guard, reason, slot.status)
    if response_refuse(reason, &told, &slot.out, &slot.date, platform_wall_seconds()) < 0:
        connection.closes = True
        connection.wants_reset = True
    if guard != NULL:
        guard_return_page(guard, reason)
    return seal(slot, start)


# Why somebody is not let in, by the status of the answer.
cdef dict TURNED_AWAY = {
    401: REFUSAL_WRONG_CREDENTIALS,
    429: REFUSAL_GUESSING,
    503: REFUSAL_VERIFYING,
}


cdef bint exchange_admit(Context context, Exchange exchange, object doorkeeper, dict environ) except -1:
    """Have the client show who it is, which goes into the environ; False: it could not, and has its answer."""
    cdef slot_t* slot
    cdef int reason
    # As the route's other guards know it; empty for one behind a unix socket.
    judgement = doorkeeper.judge(environ.get("HTTP_AUTHORIZATION"), environ["REMOTE_ADDR"].encode("latin-1"))
    if judgement.user is not None:
        environ["REMOTE_USER"] = judgement.user.encode().decode("latin-1")
        environ["AUTH_TYPE"] = "Basic"
        return True
    reason = TURNED_AWAY[judgement.status]
    slot = exchange.claim()
    try:
        exchange_refuse(exchange, slot, reason, keeps_alive(exchange, slot.connection), judgement.retry_after)
        what = request_text(slot.connection)
    finally:
        exchange.release()
    word_add(&exchange.loop.counters.refused[reason], 1)
    exchange.flush()
    context.log.warning("%s: refused with %d for client %s: %s", what, judgement.status,
                        environ["REMOTE_ADDR"] or "on a unix socket", refusal_info(reason).text.decode())
    return False


cdef int exchange_failed(Context context, Exchange exchange, object error) except -1:
    """The application raised: to the log with its traceback, and a 500 if nothing has left yet."""
    cdef slot_t* slot = exchange.slot
    cdef connection_t* connection
    cdef double took = (platform_now_ns() - <int64_t>word_load_relaxed(&slot.shown.began_ns)) / 1e9
    exchange.has_failed = True
    if word_load_relaxed(&exchange.is_lost) and isinstance(error, ConnectionError):
        return 0
    try:
        exchange.claim()
    except ConnectionError:
        # What it was at has been said when it was taken away.
        if not isinstance(error, RequestTimeout):
            context.log.error("the application failed in %s fastwsgi-%d, after its exchange was taken away",
                              context.noun, slot.index, exc_info=error)
        return 0
    try:
        connection = slot.connection
        what = request_text(connection)
        word_count(&slot.measures.failed, 1)
        name = id_text(connection.request)
        connection.closes = True
        connection.lingers = True
        if slot.head_sent:
            # Without its end the client can tell; content that ends with the connection needs the reset.
            if exchange.framing == FRAMING_CLOSE and not word_load_relaxed(&exchange.has_ended):
                connection.wants_reset = True
        else:
            exchange_refuse(exchange, slot, REFUSAL_APPLICATION_ERROR, False)
    finally:
        exchange.release()
    # Answered first, and not with the slot held: handlers of the application may take their time.
    try:
        return exchange.flush()
    finally:
        context.log.error("%s: the application failed after %.3f s, in %s fastwsgi-%d", what, took, context.noun,
                          slot.index, exc_info=error, extra={"request_id": name} if name else None)


cdef int exchange_remarks(Context context, Exchange exchange, slot_t* slot) except -1:
    """Say what the application did wrong without failing."""
    if word_load_relaxed(&exchange.is_lost) or exchange.has_failed:
        return 0
    exchange.claim()
    what = request_text(slot.connection)
    exchange.release()
    if exchange.is_overrun:
        context.log.warning("%s: the application gave more content than its Content-Length of %d; the rest was cut",
                            what, slot.head.content_length)
    elif exchange.left and not exchange.drops_content:
        context.log.warning(
            "%s: the application gave %d bytes less than its Content-Length of %d; the connection is closed",
            what, exchange.left, slot.head.content_length)
    return 0


cdef int leave_child(Context context, object error) except -1:
    """The application has forked, and the child came back from it: it ends here, for everything else is the parent's."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        code = 1
        context.log.error("a process that the application forked failed", exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


cdef dict exchange_environ(Context context, Exchange exchange, slot_t* slot):
    """The environ of the request of slot.connection, wsgi.input over its content included; with the slot held."""
    cdef connection_t* connection = slot.connection
    cdef request_t* request = connection.request
    cdef const char* data = request.buffer.data + request.start
    cdef int64_t content_size = -1
    cdef Input body
    cdef dict environ
    cdef EarlyHints early_hints = None
    if context.hints_early:
        early_hints = <EarlyHints>EarlyHints.__new__(EarlyHints)
        early_hints.exchange = exchange
    exchange.is_head_request = request.parser.method == METHOD_HEAD
    exchange.version_minor = request.parser.version_minor
    if request.parser.has_content_length or request.parser.is_chunked:
        content_size = <int64_t>(request.content_size if request.is_inline else content_length(&request.content))
    if content_size <= 0 or (request.route != NULL and request.route.action != ACTION_APPLICATION
                             and not request.is_passed_on):
        # The loop may pass it on to the application: its content stays with the request until then.
        body = None
    elif request.is_inline:
        body = input_from_bytes(data + request.content_start, request.content_size)
    else:
        body = input_from_content(&request.content)
    cdef dict template = <dict>context.templates[connection.listener]
    exchange.is_tls = connection.tls != NULL
    if exchange.is_tls:
        template = tls_template(context.tls, connection.tls, connection.listener)
    environ = environ_build(template, &request.parser, data,
                            connection.peer_text, connection.peer_size, connection.peer_port, body, content_size,
                            exchange, early_hints)
    if connection.proxy_text != NULL or request.forwarded.is_set:
        environ_forward(environ, &request.parser, data, &request.forwarded,
                        connection.proxy_text if connection.proxy_text != NULL else connection.peer_text)
    if request.route != NULL and (request.path_is_odd or request.route.script_length):
        environ_mount(environ, request.route, request.path_is_odd)
    if request.id.length:
        environ["HTTP_X_REQUEST_ID"] = PyUnicode_DecodeLatin1(request_id(request), request.id.length, NULL)
    return environ


cdef int exchange_call(Context context, Exchange exchange, slot_t* slot, list environs) except -1:
    """Call the application and send what it gives; raises what it raises."""
    cdef request_t* request
    cdef Guard guard = None
    cdef bint is_local = False, is_admitted
    cdef int number
    # First of all: whoever takes the exchange away from here on finds it, and can interrupt it.
    word_store_relaxed(&slot.in_application, slot.number)
    exchange.claim()        # it may have been revoked while this thread waited for the GIL
    try:
        request = slot.connection.request
        number = 0 if request.route == NULL else request.route.application
        environ = exchange_environ(context, exchange, slot)
        if request.route != NULL and request.route.guard != NULL and request.route.guard.needs_user:
            guard = <Guard>context.router.guards[request.route.index]
            is_local = request.route.action != ACTION_APPLICATION and not request.is_passed_on
    finally:
        exchange.release()
    if environs is not None:
        environs.append(environ)
    if guard is not None:
        # Nothing may be raised between a lock of ours and its `try`.
        leave_application(slot)
        is_admitted = exchange_admit(context, exchange, guard.doorkeeper, environ)
        if is_admitted and is_local:
            exchange.hand_back()
        if is_local or not is_admitted:
            return 0
        word_store_relaxed(&slot.in_application, slot.number)
        exchange.claim()        # it may have been revoked meanwhile
        exchange.release()
    application = <object>context.applications[number]
    iterable = application(environ, exchange)
    if context.is_forked:
        leave_child(context, None)
    try:
        iterate(exchange, iterable)
        exchange.finish()
    finally:
        leave_application(slot)
        close_iterable(iterable, slot)
        if context.survivors is not None and context.survivors.is_sampled():
            context.survivors.name = environ.get("fastwsgi.route")
    return 0


cdef int leave_application(slot_t* slot) except -1:
    """From here on RequestTimeout is not raised any more; nor is one that has not been seen yet."""
    if word_load_relaxed(&slot.in_application):
        while not word_replace(&slot.in_application, slot.number, 0):
            # Without a GIL: it is raised at this very moment, and the number comes back.
            with nogil:
                usleep(INTERRUPTED_US)
    if slot.is_raised:
        slot.is_raised = False
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), NULL)
    return 0


cdef int say_end(Exchange exchange) except -1:
    """Over TLS: where the connection closes after this answer, close_notify leaves when the exchange is given back.

    A client that is gone by then has had its whole answer.
    """
    cdef slot_t* slot = exchange.claim()
    cdef connection_t* connection = slot.connection
    try:
        if connection.closes and not (connection.wants_reset or connection.tls.said_end
                                      or connection.request.is_handed_over) and (
                connection.outbox == NULL or not connection.outbox.file_left):
            tls_end(connection.tls, &slot.out)
    finally:
        exchange.release()
    return 0


cdef inline bint exchange_leave(Exchange exchange, slot_t* slot) noexcept:
    """From here on the slot is the next exchange's; False if another thread of the application holds it."""
    cdef bint is_held
    with cython.critical_section(exchange):
        is_held = line_load(&slot.word) & SLOT_MASK == SLOT_BUSY
        if not is_held:
            exchange.slot = NULL
    return not is_held


cdef void exchange_leave_patiently(Exchange exchange, slot_t* slot) noexcept:
    try:
        while not exchange_leave(exchange, slot):
            exchange.rest(slot)
    except BaseException:
        # It was to end an exchange that is over: a greenlet has let others run meanwhile.
        exchange.slot = NULL


cdef int exchange_run(Context context, slot_t* slot) except -1:
    """Call the application for the request of slot.connection and send what it gives.

    Raises only when what the application did cannot be logged; the exchange is over then too.
    """
    cdef Exchange exchange = Exchange.__new__(Exchange)
    cdef list environs = [] if context.logs_access and context.access.format.needs_environ else None
    exchange.called = <void*>exchange_called
    exchange.context = context
    exchange.is_green = context.greenlets is not None
    exchange.encodings = context.encodings
    exchange.loop = context.loop
    exchange.slot = slot
    slot.sent = 0
    slot.is_unlogged = False
    slot.sending_ns = 0
    slot.status = 0
    slot.head.lines.size = 0
    slot.values.size = 0
    try:
        try:
            exchange_call(context, exchange, slot, environs)
            if context.is_forked:
                leave_child(context, None)
        except BaseException as error:
            leave_application(slot)
            if context.is_forked:
                # A child of the application's iterable has no client to send to.
                leave_child(context, None if word_load_relaxed(&exchange.is_lost) else error)
            try:
                exchange_failed(context, exchange, error)
            except ConnectionError:
                if not word_load_relaxed(&exchange.is_lost):    # the client left before its 500
                    raise
        try:
            if exchange.is_overrun or exchange.left:
                exchange_remarks(context, exchange, slot)
            if exchange.is_tls and not word_load_relaxed(&exchange.is_lost):
                say_end(exchange)
            if environs:
                accesslog_values(&context.access.format, environs[0], &slot.values)
        except ConnectionError:
            if not word_load_relaxed(&exchange.is_revoked):     # it was at its end: the leader has said so
                raise
    finally:
        slot.is_lost = word_load_relaxed(&exchange.is_lost) != 0
        if not exchange_leave(exchange, slot):
            exchange_leave_patiently(exchange, slot)
        exchange.context = None
        slot_moved(slot)        # a thread of the application that still waits to write
    return 0
