# One call of the application.

from libc.stdint cimport uint64_t

from fastwsgi._accesslog cimport LogFormat
from fastwsgi._connection cimport connection_t, loop_t, request_t, slot_t, transmit_t
from fastwsgi._encoding cimport Coder, Encodings
from fastwsgi._platform cimport atomic_word_t
from fastwsgi._response cimport framing_t, head_t
from fastwsgi._router cimport Router
from fastwsgi._survivors cimport Survivors
from fastwsgi._tls cimport Tls


cdef class Context:
    # What the exchanges of a worker share; only the names that were warned about change after the start.
    cdef list applications      # that of the command, or None, and those of routes
    cdef Router router          # or None
    cdef object log             # logging.Logger
    cdef list templates         # of environ, one for each listener
    cdef Tls tls                # or None
    cdef loop_t* loop           # borrowed from the crew, which outlives every exchange
    cdef bint logs_access
    cdef bint hints_early       # --early-hints
    cdef bint is_forked         # this process was forked by the application
    cdef str noun               # what runs an exchange, for the log
    cdef object greenlets       # with --gevent: has wait(slot, progress), which lets others run; or None
    cdef LogFormat access
    cdef set dropped_names      # of fields that were warned about
    cdef Survivors survivors    # with --leak-report: samples what exchanges leave; or None
    cdef Encodings encodings    # with --compress; or None

    cdef int warn_dropped(self, list names) except -1


cdef class Exchange:
    # Lives for one request; the application holds it as start_response and may keep it. Words are what its threads may
    # look at while another one changes them; the others belong to who holds the slot, or to a critical section.
    cdef void* called           # vectorcallfunc: how the interpreter calls it
    cdef Context context
    cdef loop_t* loop           # borrowed from the context
    cdef slot_t* slot           # borrowed; NULL once the exchange is over
    cdef uint64_t left          # of the announced Content-Length
    cdef Encodings encodings    # with --compress; or None
    cdef Coder coder            # of content that leaves in a coding; or None
    cdef list left_out          # names of fields that are not sent, until that was said; None
    cdef framing_t framing
    cdef bint is_started        # start_response was called
    cdef atomic_word_t is_judged       # whether the content leaves in a coding; says nothing without `encodings`
    cdef bint is_head_request
    cdef bint is_tls
    cdef bint is_green          # it runs in a greenlet
    cdef atomic_word_t is_lost         # the client left, or the exchange was revoked
    cdef atomic_word_t is_gone         # the client has left, or ended its side: what is_set() has seen
    cdef atomic_word_t is_revoked      # the slot is not to be touched any more
    cdef bint is_finished       # all of the content was given in one block
    cdef atomic_word_t has_ended       # the iterable has given all its blocks
    cdef bint has_failed        # the application raised
    cdef bint is_overrun        # more content than announced
    cdef bint drops_content
    cdef int version_minor

    cdef Write respond(self, object status, object headers, object exc_info)
    cdef int begin(self, object status, object headers, object exc_info) except -1
    cdef Coder current_coder(self)
    cdef int let_go_of_coder(self) except -1
    cdef bint has_slot(self) noexcept
    cdef int warn_left_out(self) except -1
    cdef int set_head(self, object status, object headers) except -1
    cdef int set_fields(self, head_t* head, object headers) except -1
    cdef int field_left_out(self, int result, tuple item) except -1
    cdef int commit_head(self, slot_t* slot, connection_t* connection, bint size_is_known, uint64_t size) except -1
    cdef int hand_over(self, slot_t* slot, request_t* request) except -1
    cdef int hand_back(self) except -1
    cdef int judge(self, bint size_is_known, uint64_t size) except -1
    cdef int judge_head(self, slot_t* slot, bint size_is_known, uint64_t size) except -1
    cdef int add(self, bytes block, bint is_whole) except -1
    cdef int add_coded(self, Coder coder, bytes block, bint is_whole) except -1
    cdef int end_coded(self, Coder coder) except -1
    cdef int head_coded(self, int coding) except -1
    cdef int put(self, bytes block, bint is_whole) except -1
    cdef int hint(self, object headers) except -1
    cdef int offer(self, slot_t* slot, const char* data, size_t size, const char* tail, size_t tail_size) except -1
    cdef slot_t* claim(self) except NULL
    cdef int rest(self, slot_t* slot) except -1
    cdef void release(self) noexcept
    cdef int flush(self) except -1
    cdef int add_sealed(self, slot_t* slot, size_t start, bytes block, size_t size, const char* tail,
                        size_t tail_size) except -1
    cdef transmit_t offer_in_greenlet(self, slot_t* slot, const char* data, size_t size, const char* tail,
                                      size_t tail_size, size_t* taken) except *
    cdef int finish(self) except -1
    cdef int send_file(self, object wrapper) except -1


cdef class Write:
    cdef Exchange exchange


cdef class EarlyHints:
    cdef Exchange exchange


# Never raises: what the application raised is logged and answered.
cdef int exchange_run(Context context, slot_t* slot) except -1
