# A connection and what it needs: receive, parse, send, keep-alive, lingering close, deadlines. Declares the loop as
# far as connections know it; _loop works it, _crew leads it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from fastwsgi._accesslog cimport log_format_t, record_t, stamp_t
from fastwsgi._buffer cimport buffer_t, span_t
from fastwsgi._chunked cimport chunked_t
from fastwsgi._content cimport content_t
from fastwsgi._forwarded cimport SCHEME_HTTPS, SCHEME_NONE
from fastwsgi._journal cimport journal_t
from fastwsgi._lead cimport lead_t
from fastwsgi._networks cimport ADDRESS_ROOM
from fastwsgi._outbox cimport outbox_t
from fastwsgi._parser cimport limits_t, parser_t
from fastwsgi._platform cimport (
    atomic_head_t, atomic_line_t, atomic_pointer_t, atomic_word_t, cpu_clock_t, event_t, platform_now_ns,
    pointer_load_relaxed, poller_t, pthread_cond_t, pthread_mutex_t, sockaddr_storage, wake_t,
)
from fastwsgi._requestid cimport ID_MADE, ID_MOST, id_source_t
from fastwsgi._response cimport date_t, field_lines_t, head_t
from fastwsgi._router cimport ACTION_APPLICATION, route_t, router_t
from fastwsgi._static cimport file_t, files_t, site_t
from fastwsgi._stats cimport (
    DEADLINES, TIME_ALL, TIME_APPLICATION, TIME_CONTENT, TIME_GIL, TIME_HEAD, TIME_QUEUE, TIME_SENDING, board_t,
    counters_t, measures_t, observe, row_t, shown_t,
)
from fastwsgi._tls cimport tls_t
from fastwsgi._trust cimport forwarded_t, trust_t


cdef enum state_t:
    STATE_NEW           # accepted, nothing received; or a TLS handshake and nothing more
    STATE_HANDSHAKE     # in the TLS handshake
    STATE_HEAD          # receiving a request head
    STATE_CONTENT       # receiving request content
    STATE_QUEUED        # the request is complete and waits for a thread
    STATE_EXCHANGE      # in the application
    STATE_SENDING       # the exchange is over, the socket was full
    STATE_IDLE          # kept for the next request
    STATE_LINGER        # our side is closed, the peer's is read until it ends
    STATE_CLOSED        # on the loop's closing list

cdef enum:
    STATES = STATE_CLOSED + 1

# One owner at a time. LOOP: whoever leads. QUEUE: the ready list, the crew's queue, and then the thread that runs the
# exchange; the word is written by the leader only, so that nobody else's read of it is a race. THREAD: a leader that
# is away for this connection. From both it comes back to the loop by the leader's own hand, or through `done`.
cdef enum owner_t:
    OWNER_LOOP
    OWNER_QUEUE
    OWNER_THREAD

# connection_t.post: why it is in `done`.
cdef enum:
    POST_ATTEND = 1     # its exchange runs, and its outbox wants to be sent
    POST_FINISHED = 2   # it is the loop's again

# slot_t.word: the number of the exchange << 2, and one of these.
cdef enum:
    SLOT_QUIET          # nobody touches the connection
    SLOT_BUSY           # its thread, or the leader, does
    SLOT_REVOKED        # the connection was taken away; it is the leader's
    SLOT_LOST           # and the thread has not come back since
    SLOT_MASK = 3

# connection_t.gone
cdef enum:
    GONE_HALF = 1       # the client has ended its side; it may still read
    GONE_WHOLE = 2      # it reads no more

# loop_t.withheld
cdef enum:
    HELD_FULL = 1       # open_most is reached, and none of them is idle
    HELD_OUT = 2        # no descriptors or no memory left
    HELD_YIELDS = 4     # another worker is better placed to accept (_loop)
    HELD_ORDER = 8      # requests wait for a thread: those after them can wait where any worker finds them

# When the leader has to look at something, apart from the deadlines of connections.
cdef enum alarm_t:
    ALARM_STOP          # the grace is over, or something could not be revoked yet
    ALARM_QUEUE         # a request has waited long enough for a thread
    ALARM_OVERDUE       # exchanges are looked at
    ALARM_SPENT         # somebody with the GIL has to let go of what is in loop.spent
    ALARMS

# slot_t.tells: what the main thread shall say of an exchange; its number << 2, and one of these.
cdef enum:
    TELL_SLOW = 1       # it takes longer than --log-slow
    TELL_TIMEOUT        # it was revoked: --timeout
    TELL_ENDED          # it was revoked: an operator wanted that
    TELL_MASK = 3

cdef enum advance_t:
    ADVANCE_WAIT        # more has to be received
    ADVANCE_READY       # a request is complete
    ADVANCE_CONTINUE    # 100 (Continue) is due, then more has to be received
    ADVANCE_SPILL       # content has to be written to its spool first, which may block
    ADVANCE_STEP        # what was received has to be decrypted first
    ADVANCE_LOST        # the lead was taken while away; this connection went through `done`
    # a refusal is returned as -reason

cdef enum transmit_t:
    TRANSMIT_DONE       # the socket took everything, or the outbox holds the rest
    TRANSMIT_FULL       # memory and spool are full: the producer waits
    TRANSMIT_LOST       # the peer is gone

# request_t.handed: what it ends with.
cdef enum handed_t:
    HANDED_NOTHING      # the answer is that of the route
    HANDED_TARGET       # X-Accel-Redirect: a target whose route has the file
    HANDED_PATH         # X-Sendfile: where the file is

cdef enum:
    RECEIVE_ROOM = 32 * 1024    # of a leased buffer
    OUT_MOST = 64 * 1024        # of answers that may wait for the end of their exchange
    RESPONSE_DIRECT = 16 * 1024 # a block from this size on is not copied but sent from where it is
    PIPELINE_MOST = 16          # requests of one connection in one turn
    RATE_GRACE_MS = 15000       # of content, before its rate counts
    HALF_CLOSED_MS = 1000       # a request waits for a thread after its client has ended its side
    # Octets of a request that a log record has. Escaped, an octet takes four.
    METHOD_SHOWN = 16
    TARGET_SHOWN = 300
    TOLD_ROOM = 1400 + ID_MOST


cdef struct request_t:
    # Leased from the loop at the first byte of a request, given back when the connection is idle.
    request_t* next         # in the loop's list of spare ones
    parser_t parser         # its spans count from buffer.data + start
    buffer_t buffer         # received bytes
    size_t start            # where the head of this request begins
    size_t content_start    # inline content, from start
    size_t content_size     # inline content
    size_t end              # where the next request begins, from start; valid once it is complete
    content_t content       # content that did not fit the buffer
    chunked_t chunked
    bint is_inline          # the content, if any, is in the buffer
    int64_t content_began_ms    # when its first part was waited for; 0: not yet
    uint64_t content_received   # octets since then, framing included
    # When its first octet, its whole head, and all of it was there, by the clock of the turn.
    int64_t began_ns
    int64_t head_ns
    int64_t ready_ns
    bint is_parsing         # the head is not complete
    bint is_complete        # head and content are here
    span_t id               # of --request-id, a field's value; of no length until it is given, and without that option
    bint is_id_made         # then it is this, and the span says only how long
    char made_id[ID_MADE]
    forwarded_t forwarded   # what a trusted peer says of the client of this request, once the head is complete
    const route_t* route    # what its host and path have; NULL without routes, or while the head is not complete
    uint64_t content_most   # octets of content that it may have
    uint32_t retry_after    # seconds, for a client that is refused; 0: as the refusal has it
    bint path_is_odd        # with a route: its path has a "%" or is not plain (path_is_plain)
    int refusal             # what connection_advance said for good: -reason; 0: nothing wrong so far
    bint is_passed_on       # its route has files, and it is none of them: the application's
    bint is_handed_over     # its exchange has left the answer to the loop ...
    buffer_t handed         # ... with these field lines of the application, and behind them ...
    size_t handed_lines
    handed_t handed_as      # ... what this says
    file_t* found           # owned: what a thread has looked for that lost the lead meanwhile
    int spill_error         # errno of a spill that ended after the lead was taken


cdef struct connection_t:
    int fd
    uint8_t state
    uint8_t owner
    uint8_t deadline            # the queue it is in
    uint8_t watched             # what the poller watches; a fact of the lead, not of the owner
    uint8_t closes              # after this answer
    uint8_t lingers             # close only after the peer has ended
    uint8_t wants_reset
    uint8_t client_closes       # it was the client that said this is the last request
    uint16_t listener           # index
    uint16_t peer_port
    uint8_t peer_size           # of peer_text; 0: a unix socket
    uint8_t inline_count        # requests in this turn
    uint8_t is_answered         # the request in the lease has had its exchange
    uint8_t is_trusted          # its forwarding fields are believed
    uint8_t awaits_proxy        # a PROXY protocol header has to come first
    uint32_t requests           # that were handed to the application
    connection_t* next          # in one of: ready, queue, backlog, closing, spare
    connection_t* next_done     # in `done`
    connection_t* earlier       # in its deadline queue
    connection_t* later
    int64_t expires_ms
    int64_t delivers_since_ns   # in STATE_SENDING; 0: not
    int64_t queued_ms           # since when it is in the queue; the crew's, under its mutex
    connection_t* before        # in the list of all
    connection_t* after
    request_t* request          # leased; NULL when idle
    outbox_t* outbox            # owned; NULL unless the socket was full
    tls_t* tls                  # owned; NULL: a plain one
    atomic_pointer_t slot       # of its exchange; a thread that took it from the queue writes it while the leader looks
    atomic_word_t post          # POST_ bits; not zero: in `done`
    atomic_word_t gone          # GONE_ bits; written by the leader
    char* proxy_text            # owned: the address that it was accepted from, where peer_text is by its PROXY header
    char peer_text[ADDRESS_ROOM]


cdef struct slot_t:
    # One for each application thread, as long as the crew lives.
    atomic_line_t word
    connection_t* connection    # of the exchange; whoever holds BUSY may touch it, the leader sees it change only then
    buffer_t out                # wire bytes that have not been offered to the kernel; touched only with BUSY
    size_t out_sent
    bint head_sent              # the head of this exchange is in `out` or beyond
    bint has_ended              # and all of its content; touched only with BUSY, as all since `out`
    uint64_t number             # of the exchange
    uint64_t away               # the lead word its thread went away with; 0 when it did not lead
    int index                   # 1 to N; 0: the loop's own
    atomic_word_t waits         # producers that wait for the client
    atomic_word_t missed        # the leader found it busy, and the socket is not watched any more
    pthread_mutex_t mutex       # of `progress`
    pthread_cond_t moved
    uint64_t progress
    # With greenlets, the list of slots whose producers can go on, which slot_moved adds to; NULL: they are threads.
    slot_t** movers
    slot_t* next_mover
    bint is_mover
    # The thread's own, never touched by another.
    connection_t* stepping      # the connection that it makes a TLS step for
    head_t head
    date_t date
    stamp_t stamp
    int64_t wall_ahead_ns       # by so much the time of day is ahead of the monotonic clock ...
    int64_t wall_until_ns       # ... up to this moment; then it is looked at again
    buffer_t line               # an access log line is made here
    buffer_t values
    int64_t began_cpu_ns        # 0: not measured
    int64_t took_ns             # the exchange, with the GIL
    int64_t ended_ns
    int64_t sending_ns          # of it
    bint is_lost                # its client was
    bint is_unlogged            # it shall have no line in the access log
    uint8_t cell                # of the averages
    uint64_t sent               # content bytes of this response
    int status
    shown_t* shown              # what others see of it, in the row of the worker; NULL for the loop's own
    measures_t* measures        # there, too; the row's for the loop's own
    atomic_word_t blocks        # given by applications, and waits for clients that ended, so far
    atomic_word_t in_application    # the number of the exchange while code of the application runs; changed with the GIL
    bint is_raised              # RequestTimeout was raised in it; touched with the GIL
    cpu_clock_t clock           # CPU time of this thread; written before it leads or is free for the first time
    # The keeper's: what it last saw of the exchange.
    uint64_t seen_number
    int64_t seen_ns
    int64_t seen_cpu_ns
    atomic_word_t to_revoke     # the number of an exchange that is to be taken away
    # The leader's: how far an exchange is (_overdue), and since when.
    uint64_t watched_number
    uint64_t watched_blocks
    int64_t watched_since_ms
    int64_t progress_ms
    int64_t revoked_ms
    uint64_t told_number        # was told of as slow
    # From the leader to the main thread, which clears `tells` when it has read the others.
    atomic_word_t tells
    atomic_word_t to_raise      # the number of an exchange in which RequestTimeout is to be raised
    int64_t told_age_ms
    char told[TOLD_ROOM]        # method, target and client, escaped
    # Of the crew.
    pthread_cond_t turn         # waits here for work or the lead
    slot_t* next_free
    bint is_free


cdef struct deadline_queue_t:
    connection_t* first
    connection_t* last
    int64_t duration_ms


cdef struct connection_list_t:
    connection_t* first
    connection_t* last


cdef struct listener_t:
    int fd
    int index
    bint is_own                 # no other worker has it
    bint is_borrowed            # it goes on to listen after the server's end
    bint is_left                # to others: not watched any more
    bint is_tls
    bint is_watched


cdef struct probe_t:
    char* path                  # owned; NULL: there is none
    size_t size


# Answers a request without a thread; returns as connection_handle does.
ctypedef int (*answer_t)(loop_t* loop, connection_t* connection) noexcept nogil


cdef struct loop_t:
    lead_t lead
    atomic_head_t done          # connections that come back
    poller_t poller
    event_t events[64]          # of this turn; whoever takes the lead drops them (level-triggered: they come again)
    int event_count
    int event_index
    int accept_budget
    int accept_most             # of a turn, or of a part of it
    listener_t* accept_more     # has more, or NULL ...
    int accept_more_at          # ... and its turn again at this event
    int64_t now_ns              # when the poller came back, in each turn
    int64_t now_ms
    listener_t* listeners       # and behind the last one what stands for the kick
    int listener_count
    int listener_flags          # what is watched of them
    int open_count              # connections that are not on the closing list
    int open_most
    bint listens
    int64_t listens_until_ms    # while draining; 0: no end is set
    bint hears_near             # ... and listeners that pass on platform_hear_near
    int64_t last_call_ms        # how long clients of this machine have then that were just connecting
    int64_t last_idle_ms        # how long idle connections have while draining
    int withheld                # HELD_: why listeners are not watched, though it listens
    int64_t accept_again_ms     # HELD_OUT until then
    int64_t accept_said_ms      # when the log had that
    int64_t tls_said_ms         # when it last had that a handshake failed, ...
    uint64_t tls_unsaid         # ... and how many have failed since
    bint shares                 # other workers have the same listeners
    int peers_begin             # rows of loops that have the same listeners, this one's among them: from here ...
    int peers_end               # ... and up to here
    wake_t kick                 # borrowed; each write to it is heard of by all of these; -1: none
    int64_t yield_ms            # it yields for so long at most ...
    int anyway_most             # ... and then not in so many turns, if the others have not accepted
    int anyway_turns            # that are left of these
    int64_t yields_at           # HELD_YIELDS from this load on ...
    int64_t yields_until_ms     # ... and until then
    atomic_word_t queued_since_ms   # since when the oldest request that waits for a thread does; the crew's
    connection_t* returned      # taken from `done`, by next_done, not yet seen to
    connection_list_t ready     # complete requests
    connection_list_t steps     # TLS connections that need one
    atomic_head_t spent         # tls_t of connections that are gone: Python objects hang from them
    connection_list_t backlog   # with bytes that wait for the next turn
    connection_list_t blocking  # with something to do that may block on the disk
    connection_list_t closing   # closed and freed at the end of the turn
    connection_t* connections   # all
    deadline_queue_t deadlines[DEADLINES]
    connection_t* spare_connections
    request_t* spare_requests
    int spare_connection_count
    int spare_request_count
    limits_t limits
    trust_t trust
    id_source_t ids
    const router_t* router      # borrowed; NULL: no routes
    const router_t* plain_router    # the same, unless what is not secure has others
    const site_t* sendfile_site # borrowed; NULL: no X-Sendfile
    files_t* files              # owned: what is remembered of files; NULL where none are served
    buffer_t path               # where the leader resolves a path
    uint64_t content_most       # octets of content, where a route has no limit of its own
    uint64_t content_rate       # least octets of content a second; 0: any
    uint32_t keep_alive_requests
    size_t request_memory
    size_t response_memory
    uint64_t response_spool
    char* spool_directory       # owned
    answer_t answer             # for what connection_is_local says; _local's, which stands above this room
    bint has_probes             # one of these has a path
    probe_t health_probe        # answered by the loop itself: this process lives
    probe_t ready_probe         # and wants more requests
    log_format_t* access        # borrowed; NULL: no access log
    journal_t* journal          # borrowed; all loops of this process have one
    slot_t own                  # for answers of the loop itself
    atomic_word_t draining      # from the call for it on: answers say that the connection is closed
    bint tells_times            # to clients, in Server-Timing
    bint may_block              # this turn does not hold the GIL
    bint is_inside              # another loop waits for its poller, and gives it turns: it never waits itself
    int64_t alarms[ALARMS]      # when the leader has to look again; 0: never
    int64_t nap_ms              # the longest wait; 0: any
    board_t* board              # borrowed, as all that is in it: this worker among others
    row_t* row
    counters_t* counters        # of the row
    measures_t* measures


cdef connection_t* connection_new(loop_t* loop, int fd, int listener, const sockaddr_storage* peer) noexcept nogil
cdef void connection_enter(loop_t* loop, connection_t* connection, state_t state) noexcept nogil
cdef int connection_watch(loop_t* loop, connection_t* connection, int flags) noexcept nogil
cdef int connection_receive(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_advance(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_next(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_handle(loop_t* loop, connection_t* connection, int outcome) noexcept nogil
cdef int connection_go_on(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_make_plain(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_stepped(loop_t* loop, connection_t* connection) noexcept nogil
cdef transmit_t connection_transmit(loop_t* loop, connection_t* connection, slot_t* slot,
                                    const char* data, size_t size, const char* tail, size_t tail_size,
                                    size_t* taken) noexcept nogil
cdef transmit_t connection_flush(loop_t* loop, connection_t* connection, slot_t* slot) noexcept nogil
cdef span_t request_authority(request_t* request) noexcept nogil
cdef void connection_defer(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_settle(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_send_ready(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_attend(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_gone(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_keep_watch(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_heard(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_drop(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_lost(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_give_up(loop_t* loop, connection_t* connection) noexcept nogil
cdef int connection_refuse(loop_t* loop, connection_t* connection, int reason, uint64_t duration_ns=*) noexcept nogil
cdef void connection_count(loop_t* loop, connection_t* connection, int status) noexcept nogil
cdef void connection_log(loop_t* loop, connection_t* connection, int status, uint64_t content_bytes,
                         uint64_t duration_ns) noexcept nogil
cdef void connection_linger(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_close(loop_t* loop, connection_t* connection) noexcept nogil
cdef void connection_post(loop_t* loop, connection_t* connection, uint64_t why) noexcept nogil
cdef void connection_free(loop_t* loop, connection_t* connection) noexcept nogil
cdef void request_release(loop_t* loop, request_t* request) noexcept nogil
cdef char* put_request(char* at, request_t* request) noexcept nogil
cdef void loop_say(loop_t* loop, int level, const char* text, connection_t* connection, const char* detail) noexcept nogil
cdef span_t request_authority(request_t* request) noexcept nogil
cdef void connection_identify(loop_t* loop, connection_t* connection, slot_t* slot) noexcept nogil
cdef void slot_log(loop_t* loop, slot_t* slot, record_t* record, int64_t at_ns) noexcept nogil
cdef int slot_init(slot_t* slot, int index) noexcept nogil
cdef void slot_free(slot_t* slot) noexcept nogil
cdef bint slot_claim(slot_t* slot) noexcept nogil
cdef void slot_rest(slot_t* slot) noexcept nogil
cdef bint slot_borrow(slot_t* slot) noexcept nogil
cdef void slot_quiet(slot_t* slot) noexcept nogil
cdef void slot_release(loop_t* loop, slot_t* slot) noexcept nogil
cdef void slot_attend(loop_t* loop, slot_t* slot) noexcept nogil
cdef void slot_make_up(loop_t* loop, slot_t* slot) noexcept nogil
cdef void slot_moved(slot_t* slot) noexcept nogil
cdef uint64_t slot_waiting(const slot_t* slot) noexcept nogil


cdef inline void loop_look_at_clock(loop_t* loop) noexcept nogil:
    loop.now_ns = platform_now_ns()
    loop.now_ms = loop.now_ns // 1000000


cdef inline void exchange_times(measures_t* measures, const request_t* request, int64_t bound_ns, int64_t began_ns,
                                int64_t ended_ns, int64_t sending_ns) noexcept nogil:
    """Where the time of a request went, when its exchange is over; by whoever holds its slot."""
    if request.head_ns != request.began_ns:
        observe(measures, TIME_HEAD, request.head_ns - request.began_ns)
    if request.ready_ns != request.head_ns:
        observe(measures, TIME_CONTENT, request.ready_ns - request.head_ns)
    observe(measures, TIME_QUEUE, bound_ns - request.ready_ns)
    if began_ns != bound_ns:
        observe(measures, TIME_GIL, began_ns - bound_ns)
    observe(measures, TIME_APPLICATION, ended_ns - began_ns - sending_ns)
    if sending_ns:
        observe(measures, TIME_SENDING, sending_ns)
    observe(measures, TIME_ALL, ended_ns - request.ready_ns)


cdef inline void loop_remind(loop_t* loop, alarm_t alarm, int64_t at_ms) noexcept nogil:
    """The leader has to look at something at that time at the latest."""
    if not loop.alarms[<int>alarm] or at_ms < loop.alarms[<int>alarm]:
        loop.alarms[<int>alarm] = at_ms


cdef inline bint request_has_content(const request_t* request) noexcept nogil:
    return request.parser.is_chunked or request.parser.content_length


cdef inline const char* request_id(request_t* request) noexcept nogil:
    """As long as request.id.length says; borrowed from the request."""
    return &request.made_id[0] if request.is_id_made else request.buffer.data + request.start + request.id.start


cdef inline void record_client(record_t* record, connection_t* connection) noexcept nogil:
    """The client, as REMOTE_ADDR has it, and what its request is called."""
    cdef request_t* request = connection.request
    record.id = NULL
    record.id_size = 0
    if request != NULL and request.id.length:
        record.id = request_id(request)
        record.id_size = request.id.length
    if request != NULL and not request.is_parsing and request.forwarded.has_client:
        record.peer = request.forwarded.client_text
        record.peer_size = request.forwarded.client_size
    else:
        record.peer = connection.peer_text
        record.peer_size = connection.peer_size


cdef inline slot_t* connection_slot(connection_t* connection) noexcept nogil:
    """The slot of its exchange, or NULL: a hint, to be held against slot.connection with the slot held."""
    return <slot_t*>pointer_load_relaxed(&connection.slot)


cdef inline bint probe_matches(probe_t* probe, request_t* request) noexcept nogil:
    return probe.path != NULL and request.parser.path.length == probe.size and memcmp(
        request.buffer.data + request.start + request.parser.path.start, probe.path, probe.size) == 0


cdef inline bint connection_is_probe(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its request is --health or --ready."""
    return loop.has_probes and (probe_matches(&loop.health_probe, connection.request)
                                or probe_matches(&loop.ready_probe, connection.request))


cdef inline bint connection_is_local(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its request is complete, and the loop answers it by itself: loop.answer."""
    cdef request_t* request = connection.request
    return (connection_is_probe(loop, connection) or request.is_handed_over
            or (request.route != NULL and request.route.action != ACTION_APPLICATION and not request.is_passed_on
                and (request.route.guard == NULL or not request.route.guard.needs_user)))


cdef inline bint connection_is_secure(const connection_t* connection) noexcept nogil:
    """Its client came by https: over TLS, or a proxy that is believed says so."""
    cdef request_t* request = connection.request
    if request != NULL and request.forwarded.is_set and request.forwarded.scheme != SCHEME_NONE:
        return request.forwarded.scheme == SCHEME_HTTPS
    return connection.tls != NULL


cdef inline const router_t* connection_router(const loop_t* loop, const connection_t* connection) noexcept nogil:
    """Its routes; NULL: none."""
    if loop.router == loop.plain_router or connection_is_secure(connection):
        return loop.router
    return loop.plain_router


cdef inline const route_t* connection_route(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its route, or that of all that has none yet; NULL without routes."""
    cdef request_t* request = connection.request
    cdef const router_t* router
    if request != NULL and request.route != NULL:
        return request.route
    router = connection_router(loop, connection)
    return NULL if router == NULL else &router.routes[router.any.root]


cdef inline void list_append(connection_list_t* list, connection_t* connection) noexcept nogil:
    connection.next = NULL
    if list.last != NULL:
        list.last.next = connection
    else:
        list.first = connection
    list.last = connection


cdef inline connection_t* list_take(connection_list_t* list) noexcept nogil:
    cdef connection_t* connection = list.first
    if connection != NULL:
        list.first = connection.next
        if list.first == NULL:
            list.last = NULL
        connection.next = NULL
    return connection
