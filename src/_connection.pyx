"""A connection: receive, feed the parser, send, keep alive, close, and the deadlines of each state.

Everything here is called by the leader for a connection that the loop owns, except what says otherwise (transmit,
post, claim: by the thread of an exchange). Knows the loop's structures, not its turn, and nothing of Python.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset
from posix.unistd cimport close

from fastwsgi._accesslog cimport LOGGED_WHOLE, accesslog_line, put_escaped, record_t
from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_reserve
from fastwsgi._chunked cimport chunked_feed, chunked_reset
from fastwsgi._content cimport (
    CONTENT_NO_MEMORY, CONTENT_READY, CONTENT_SPILL,
    content_add, content_append, content_free, content_init, content_length, content_space, content_spill,
)
from fastwsgi._guard cimport guard_borrow_page, guard_judge, guard_return_page, guard_t
from fastwsgi._journal cimport LEVEL_WARNING, journal_line, journal_record
from fastwsgi._lead cimport lead_leave, lead_return
from fastwsgi._outbox cimport (
    OUTBOX_EMPTY, OUTBOX_FILE_SHORT, OUTBOX_SEAL, OUTBOX_WAITS,
    outbox_add, outbox_free, outbox_is_empty, outbox_new, outbox_seals, outbox_send, outbox_t,
)
from fastwsgi._networks cimport ADDRESS_ROOM, address_parse, address_t, address_text, networks_match_peer
from fastwsgi._parser cimport (
    CONTENT_DONE, HEAD_DONE, KNOWN_AUTHORIZATION, KNOWN_X_REQUEST_ID, METHOD_CONNECT, METHOD_HEAD, METHOD_OTHER, NEED_MORE,
    TARGET_ABSOLUTE, field_t, parser_feed, parser_free, parser_init, parser_reset, parser_t,
)
from fastwsgi._platform cimport (
    SHUT_RDWR, SHUT_WR, WATCH_END, WATCH_GONE, WATCH_READ, WATCH_WRITE, condition_init, head_push, iovec, line_load,
    line_replace, line_store, platform_address_octets, platform_has_ended, platform_has_finished, platform_has_octets,
    platform_now_ns, platform_recv, platform_send, platform_send_pieces, platform_set_reset, platform_wall_ns,
    platform_wall_seconds, platform_would_block, poller_wake, poller_watch, pthread_cond_broadcast,
    pthread_cond_destroy, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, shutdown,
    sockaddr_storage,
    word_add, word_count, word_load, word_load_relaxed, word_or, word_store, word_swap,
)
from fastwsgi._proxy cimport PROXY_MISSING, PROXY_MORE, SOURCE_ADDRESS, SOURCE_PROXY, proxy_parse, proxy_t
from fastwsgi._refusals cimport (
    REFUSAL_BAD_PROXY_HEADER, REFUSAL_CONNECT, REFUSAL_CONTENT_TIMEOUT, REFUSAL_CONTENT_TOO_LARGE,
    REFUSAL_HTTP_ON_TLS_PORT, REFUSAL_MISDIRECTED, REFUSAL_NO_MEMORY, REFUSAL_NO_PROXY_HEADER, REFUSAL_PATH_ESCAPES,
    REFUSAL_SPOOL_FULL, refusal_info, refusal_info_t, refusal_is_expected, refusal_is_of_route,
)
from fastwsgi._requestid cimport ID_MADE, ID_MOST, id_is_sane, id_make
from fastwsgi._response cimport refused_t, response_refuse
from fastwsgi._router cimport path_is_plain, path_resolve, route_t, router_match, router_t
from fastwsgi._static cimport file_free
from fastwsgi._stats cimport (
    DEADLINE_CONTENT, DEADLINE_HANDSHAKE, DEADLINE_HEAD, DEADLINE_IDLE, DEADLINE_LINGER, DEADLINE_NONE, DEADLINE_SEND,
    TIME_DELIVERY, count_answer, observe,
)
from fastwsgi._tls cimport tls_cut, tls_has_plain, tls_rest, tls_t, tls_take
from fastwsgi._trust cimport REMARK_ROOM, trust_concerns, trust_head

cdef extern from * nogil:
    """
    #include <sched.h>
    #include <string.h>
    """
    int sched_yield() noexcept

cdef enum:
    SPARE_CONNECTIONS = 256
    SPARE_REQUESTS = 64
    LINGER_ROOM = 16384
    ALL_MEMORY = <size_t>-1
    SIFT_MS = 50                # between two looks through the queue for clients that left, at least
    HANDSHAKES_MOST = 1024      # that are not done, in a worker
    TLS_SAY_MS = 10000          # between two lines on handshakes that failed
    SPENT_MS = 1000             # that Python objects of connections that are gone may wait

# What each state is called in a log line: "... while receiving the request head".
cdef const char* state_text[STATES]
state_text[<int>STATE_NEW] = b"waiting for a request"
state_text[<int>STATE_HANDSHAKE] = b"in the TLS handshake"
state_text[<int>STATE_HEAD] = b"receiving the request head"
state_text[<int>STATE_CONTENT] = b"receiving the request content"
state_text[<int>STATE_QUEUED] = b"waiting for a thread"
state_text[<int>STATE_EXCHANGE] = b"in the application"
state_text[<int>STATE_SENDING] = b"sending the response"
state_text[<int>STATE_IDLE] = b"waiting for the next request"
state_text[<int>STATE_LINGER] = b"closing"
state_text[<int>STATE_CLOSED] = b"closed"

# The deadline under which each state stands.
cdef uint8_t state_deadline[STATES]
state_deadline[<int>STATE_NEW] = DEADLINE_HEAD
state_deadline[<int>STATE_HANDSHAKE] = DEADLINE_HANDSHAKE
state_deadline[<int>STATE_HEAD] = DEADLINE_HEAD
state_deadline[<int>STATE_CONTENT] = DEADLINE_CONTENT
state_deadline[<int>STATE_QUEUED] = DEADLINE_NONE
state_deadline[<int>STATE_EXCHANGE] = DEADLINE_NONE
state_deadline[<int>STATE_SENDING] = DEADLINE_SEND
state_deadline[<int>STATE_IDLE] = DEADLINE_IDLE
state_deadline[<int>STATE_LINGER] = DEADLINE_LINGER
state_deadline[<int>STATE_CLOSED] = DEADLINE_NONE


cdef inline size_t smaller(size_t a, size_t b) noexcept nogil:
    return a if a < b else b


cdef char* put_start(char* at, const char* data, span_t span, size_t most) noexcept nogil:
    """Write a span, escaped, or only its beginning; an octet takes four at most."""
    cdef size_t size = min(span.length, most)
    at = put_escaped(at, at + 4 * size, data + span.start, size, False)
    if size < span.length:
        memcpy(at, b"...", 3)
        at += 3
    return at


cdef char* put_request(char* at, request_t* request) noexcept nogil:
    """Write method and target of a request whose request line is complete; returns where they end."""
    cdef const char* data = request.buffer.data + request.start
    at = put_start(at, data, request.parser.method_name, METHOD_SHOWN)
    at[0] = c" "
    return put_start(at + 1, data, request.parser.target, TARGET_SHOWN)


cdef void loop_say(loop_t* loop, int level, const char* text, connection_t* connection,
                   const char* detail) noexcept nogil:
    """A log record: what happened, to whom, with which request, while doing what; detail may be NULL."""
    cdef char line[TOLD_ROOM + 512]
    cdef char what[TOLD_ROOM]
    cdef char name[ID_MOST + 16]
    cdef const char* colon = b": "
    cdef record_t record
    what[0] = name[0] = 0
    if detail == NULL:
        colon = detail = b""
    if connection == NULL:
        snprintf(line, sizeof(line), b"%s%s%s", text, colon, detail)
    else:
        record_client(&record, connection)
        if not record.peer_size:
            record.peer = b"on a unix socket"
            record.peer_size = 16
        if connection.request != NULL and connection.request.parser.target.length:
            memcpy(what, b", ", 2)
            put_request(what + 2, connection.request)[0] = 0
        if record.id_size:
            snprintf(name, sizeof(name), b", request id %.*s", <int>record.id_size, record.id)
        snprintf(line, sizeof(line), b"%s (client %.*s%s%s, while %s)%s%s", text, <int>record.peer_size, record.peer,
                 what, name, state_text[connection.state], colon, detail)
    journal_record(loop.journal, level, line)


# ---- slots: who may touch the connection of an exchange ----

cdef int slot_init(slot_t* slot, int index) noexcept nogil:
    """Make it ready; 0, or -1."""
    memset(slot, 0, sizeof(slot_t))
    slot.index = index
    if pthread_mutex_init(&slot.mutex, NULL) or condition_init(&slot.moved) or condition_init(&slot.turn):
        return -1
    return 0


cdef void slot_free(slot_t* slot) noexcept nogil:
    buffer_free(&slot.out)
    buffer_free(&slot.head.lines)
    buffer_free(&slot.head.handed)
    buffer_free(&slot.line)
    buffer_free(&slot.values)
    pthread_cond_destroy(&slot.turn)
    pthread_cond_destroy(&slot.moved)
    pthread_mutex_destroy(&slot.mutex)


cdef bint slot_claim(slot_t* slot) noexcept nogil:
    """QUIET to BUSY, by its thread; False if the exchange was revoked.

    The leader holds it only to send, so the wait is short.
    """
    while not slot_borrow(slot):
        if line_load(&slot.word) & SLOT_MASK >= SLOT_REVOKED:
            return False
        sched_yield()
    return True


cdef void slot_rest(slot_t* slot) noexcept nogil:
    """Wait until whoever holds a slot has let go of it."""
    while line_load(&slot.word) & SLOT_MASK == SLOT_BUSY:
        sched_yield()


cdef bint slot_borrow(slot_t* slot) noexcept nogil:
    """QUIET to BUSY, without waiting; False if somebody else is at it (and will send by itself) or it was revoked."""
    cdef uint64_t word = line_load(&slot.word)
    return word & SLOT_MASK == SLOT_QUIET and line_replace(&slot.word, word, word | SLOT_BUSY)


cdef void slot_quiet(slot_t* slot) noexcept nogil:
    line_store(&slot.word, line_load(&slot.word) & ~<uint64_t>SLOT_MASK)


cdef void slot_attend(loop_t* loop, slot_t* slot) noexcept nogil:
    """With the slot held, by its thread: the leader hears of an outbox that waits."""
    cdef connection_t* connection = slot.connection
    if connection != NULL and connection.outbox != NULL and not outbox_is_empty(connection.outbox):
        connection_post(loop, connection, POST_ATTEND)


cdef void slot_release(loop_t* loop, slot_t* slot) noexcept nogil:
    """BUSY to QUIET, by its thread; the leader sees to what is left in the outbox."""
    slot_attend(loop, slot)
    slot_quiet(slot)
    slot_make_up(loop, slot)


cdef void slot_make_up(loop_t* loop, slot_t* slot) noexcept nogil:
    """After QUIET, by its thread: have the leader watch again for room in a socket, if it found the slot busy."""
    # It says `missed` and then looks at the slot again; one of us sees the other. One that was meant for the exchange
    # before this does no harm.
    while word_load(&slot.missed) and word_swap(&slot.missed, 0) and slot_claim(slot):
        # With nothing to send, too: then the leader sees to it that it hears of a client that leaves.
        if slot.connection != NULL:
            connection_post(loop, slot.connection, POST_ATTEND)
        slot_quiet(slot)


cdef void slot_moved(slot_t* slot) noexcept nogil:
    """Tell producers that wait that something has changed: bytes left, the client left, it was revoked."""
    if word_load(&slot.waits):
        pthread_mutex_lock(&slot.mutex)
        slot.progress += 1
        if slot.movers != NULL and not slot.is_mover:
            slot.is_mover = True
            slot.next_mover = slot.movers[0]
            slot.movers[0] = slot
        pthread_cond_broadcast(&slot.moved)
        pthread_mutex_unlock(&slot.mutex)


cdef uint64_t slot_waiting(const slot_t* slot) noexcept nogil:
    """Bytes in `out` that no kernel has seen."""
    return slot.out.size - slot.out_sent


cdef void slot_log(loop_t* loop, slot_t* slot, record_t* record, int64_t at_ns) noexcept nogil:
    """Write the access log line of an exchange that was over at that time."""
    cdef ssize_t size
    if at_ns >= slot.wall_until_ns:
        # A clock that is set goes unseen for a second at most.
        slot.wall_ahead_ns = platform_wall_ns() - platform_now_ns()
        slot.wall_until_ns = at_ns + 1000000000
    record.wall_ns = at_ns + slot.wall_ahead_ns
    if buffer_reserve(&slot.line, loop.access.spare + 1024) < 0:
        return
    while True:
        size = accesslog_line(loop.access, record, &slot.stamp, slot.line.data, slot.line.capacity)
        if size >= 0:
            journal_line(loop.journal, slot.line.data, <size_t>size)
            return
        if buffer_reserve(&slot.line, slot.line.capacity * 2) < 0:
            return


cdef void connection_identify(loop_t* loop, connection_t* connection, slot_t* slot) noexcept nogil:
    """--request-id: have its request called by what a trusted peer says, or by an id of ours.

    By the thread that has the slot. What is not believed is left out of the environ.
    """
    cdef request_t* request = connection.request
    cdef parser_t* parser
    cdef field_t* found = NULL
    cdef uint32_t i
    if not loop.ids.is_on or request == NULL or request.id.length:
        return
    parser = &request.parser
    if not request.is_parsing and (parser.known_seen >> <int>KNOWN_X_REQUEST_ID) & 1:
        for i in range(parser.field_count):
            if parser.fields[i].known == KNOWN_X_REQUEST_ID:
                parser.fields[i].is_left_out = True
                found = &parser.fields[i]
        if connection.is_trusted and not found.is_repeated and id_is_sane(
                request.buffer.data + request.start + found.value.start, found.value.length):
            request.id = found.value
            request.is_id_made = False
            return
    id_make(&loop.ids, <uint64_t>slot.index << 48 | slot.number, request.made_id)
    request.id.length = ID_MADE
    request.is_id_made = True


# ---- leases ----

cdef inline void request_begin(loop_t* loop, request_t* request) noexcept nogil:
    """Nothing of it is known yet."""
    request.is_parsing = True
    request.is_complete = False
    request.refusal = 0
    request.route = NULL
    request.retry_after = 0
    request.is_passed_on = request.is_handed_over = False
    request.content_began_ms = 0
    request.began_ns = loop.now_ns
    parser_reset(&request.parser)
    request.id.length = 0


cdef request_t* request_lease(loop_t* loop) noexcept nogil:
    """What a connection needs while a request comes in; NULL when memory is out."""
    cdef request_t* request = loop.spare_requests
    if request != NULL:
        loop.spare_requests = request.next
        loop.spare_request_count -= 1
    else:
        request = <request_t*>calloc(1, sizeof(request_t))
        if request == NULL:
            return NULL
        content_init(&request.content)
        parser_init(&request.parser, &loop.limits)
    request.start = 0
    request.buffer.size = 0
    if request.buffer.capacity == 0 and buffer_reserve(&request.buffer, RECEIVE_ROOM) < 0:
        parser_free(&request.parser)
        free(request)
        return NULL
    request_begin(loop, request)
    return request


cdef inline void forget_file(request_t* request) noexcept nogil:
    """It is over: what was kept for an answer of the loop is not needed any more."""
    if request.handed.data != NULL:
        buffer_free(&request.handed)
    if request.found != NULL:
        file_free(request.found)
        request.found = NULL


cdef void request_release(loop_t* loop, request_t* request) noexcept nogil:
    """Give it back."""
    if request == NULL:
        return
    content_free(&request.content)
    forget_file(request)
    if request.buffer.capacity > RECEIVE_ROOM or loop.spare_request_count >= SPARE_REQUESTS:
        buffer_free(&request.buffer)
    if loop.spare_request_count >= SPARE_REQUESTS:
        parser_free(&request.parser)
        free(request)
        return
    request.next = loop.spare_requests
    loop.spare_requests = request
    loop.spare_request_count += 1


# ---- birth, states, death ----

cdef connection_t* connection_new(loop_t* loop, int fd, int listener, const sockaddr_storage* peer) noexcept nogil:
    """A connection for an accepted socket, which it owns now; NULL when memory is out."""
    cdef connection_t* connection = loop.spare_connections
    cdef address_t address
    cdef address_t* known = &address
    cdef int port
    if connection != NULL:
        loop.spare_connections = connection.next
        loop.spare_connection_count -= 1
        memset(connection, 0, sizeof(connection_t))
    else:
        connection = <connection_t*>calloc(1, sizeof(connection_t))
        if connection == NULL:
            return NULL
    if loop.listeners[listener].is_tls:
        connection.tls = <tls_t*>calloc(1, sizeof(tls_t))
        if connection.tls == NULL:
            free(connection)
            return NULL
    connection.fd = fd
    connection.listener = <uint16_t>listener
    if platform_address_octets(peer, address.octets, &port):
        connection.peer_size = <uint8_t>address_text(&address, connection.peer_text)
    else:
        known = NULL
    connection.peer_port = <uint16_t>port
    connection.is_trusted = networks_match_peer(&loop.trust.forwarders, known)
    connection.awaits_proxy = loop.trust.proxy_versions and networks_match_peer(&loop.trust.proxies, known)
    connection.after = loop.connections
    if loop.connections != NULL:
        loop.connections.before = connection
    loop.connections = connection
    loop.open_count += 1
    word_count(&loop.counters.accepted, 1)
    word_count(&loop.row.connections, 1)
    connection_enter(loop, connection, STATE_NEW)
    return connection


cdef void deadline_leave(loop_t* loop, connection_t* connection) noexcept nogil:
    cdef deadline_queue_t* queue = &loop.deadlines[connection.deadline]
    if connection.earlier != NULL:
        connection.earlier.later = connection.later
    else:
        queue.first = connection.later
    if connection.later != NULL:
        connection.later.earlier = connection.earlier
    else:
        queue.last = connection.earlier
    word_count(&loop.row.waits_for[connection.deadline], -1)
    connection.earlier = connection.later = NULL
    connection.deadline = DEADLINE_NONE


cdef void deadline_join(loop_t* loop, connection_t* connection, int kind) noexcept nogil:
    cdef deadline_queue_t* queue = &loop.deadlines[kind]
    word_count(&loop.row.waits_for[kind], 1)
    connection.deadline = <uint8_t>kind
    connection.expires_ms = loop.now_ms + queue.duration_ms
    connection.earlier = queue.last
    if queue.last != NULL:
        queue.last.later = connection
    else:
        queue.first = connection
    queue.last = connection


cdef void connection_enter(loop_t* loop, connection_t* connection, state_t state) noexcept nogil:
    """Change the state; arms the deadline of the new one. A request head has one deadline in all, and a handshake."""
    cdef int kind = state_deadline[<int>state]
    connection.state = <uint8_t>state
    if kind == connection.deadline and (kind == DEADLINE_HEAD or kind == DEADLINE_HANDSHAKE):
        return
    if connection.deadline != DEADLINE_NONE:
        deadline_leave(loop, connection)
    if kind != DEADLINE_NONE:
        deadline_join(loop, connection, kind)


cdef int connection_watch(loop_t* loop, connection_t* connection, int flags) noexcept nogil:
    """Watch its socket for flags (0: not at all); -1 if that fails, and then the connection is closed if it is ours."""
    if connection.watched == flags:
        return 0
    if poller_watch(&loop.poller, connection.fd, connection.watched, flags, connection) < 0:
        if flags:
            loop_say(loop, LEVEL_WARNING, b"a connection could not be watched and is closed", connection, NULL)
            if connection.owner == OWNER_LOOP:
                connection_close(loop, connection)
            return -1
    connection.watched = <uint8_t>flags
    return 0


cdef void delivery_ends(loop_t* loop, connection_t* connection) noexcept nogil:
    observe(loop.measures, TIME_DELIVERY, loop.now_ns - connection.delivers_since_ns)
    connection.delivers_since_ns = 0


cdef void connection_close(loop_t* loop, connection_t* connection) noexcept nogil:
    """Put it on the list of those that are closed and freed at the end of the turn: a late event meets STATE_CLOSED."""
    if connection.state == STATE_CLOSED:
        return
    if connection.delivers_since_ns:
        delivery_ends(loop, connection)
    if connection.state == STATE_HANDSHAKE:
        word_count(&loop.counters.handshakes_failed, 1)
    loop.open_count -= 1
    connection_enter(loop, connection, STATE_CLOSED)
    connection_watch(loop, connection, 0)
    list_append(&loop.closing, connection)


cdef void connection_free(loop_t* loop, connection_t* connection) noexcept nogil:
    """Close the socket and free; only for what came off the closing list."""
    request_release(loop, connection.request)
    outbox_free(connection.outbox)
    free(connection.proxy_text)
    connection_make_plain(loop, connection)
    if connection.wants_reset:
        platform_set_reset(connection.fd)
    close(connection.fd)
    if connection.before != NULL:
        connection.before.after = connection.after
    else:
        loop.connections = connection.after
    if connection.after != NULL:
        connection.after.before = connection.before
    word_count(&loop.row.connections, -1)
    if loop.spare_connection_count < SPARE_CONNECTIONS:
        connection.next = loop.spare_connections
        loop.spare_connections = connection
        loop.spare_connection_count += 1
    else:
        free(connection)


cdef void connection_linger(loop_t* loop, connection_t* connection) noexcept nogil:
    """Close our side and read the peer's to its end, so that no reset overtakes the answer (RFC 9112, 9.6)."""
    request_release(loop, connection.request)
    connection.request = NULL
    if shutdown(connection.fd, SHUT_WR) < 0:
        connection_close(loop, connection)
        return
    connection_enter(loop, connection, STATE_LINGER)
    connection_watch(loop, connection, WATCH_READ)


cdef void connection_post(loop_t* loop, connection_t* connection, uint64_t why) noexcept nogil:
    """Bring it to the leader's notice through `done`; by the thread that owns it. With POST_FINISHED it is the loop's."""
    if word_or(&connection.post, why) == 0:
        head_push(&loop.done, connection, <void**>&connection.next_done)
    # The leader announces its sleep and then looks at `done`; one of us sees the other.
    if line_load(&loop.lead.sleeping):
        poller_wake(&loop.poller)


# ---- receiving ----

cdef int content_failed(int outcome) noexcept nogil:
    return ADVANCE_SPILL if outcome == CONTENT_SPILL else -<int>REFUSAL_NO_MEMORY


cdef int advance_content(loop_t* loop, connection_t* connection) noexcept nogil:
    """The head is complete: see to the content that is in the receive buffer behind it."""
    cdef request_t* request = connection.request
    cdef size_t head = request.parser.head_size
    cdef size_t available = request.buffer.size - request.start - head
    cdef char* bytes_behind = request.buffer.data + request.start + head
    cdef size_t consumed = 0, decoded = 0, taken = 0
    cdef int result
    request.content_start = head
    if request.parser.is_chunked:
        result = NEED_MORE
        if available:
            result = chunked_feed(&request.chunked, &loop.limits, request.content_most, bytes_behind, available,
                                  &consumed, &decoded)
        if result < 0:
            return result
        if result == CONTENT_DONE:
            request.is_inline = True
            request.content_size = decoded
            request.end = head + consumed
            request.is_complete = True
            return ADVANCE_READY
        request.is_inline = False
        # The memory limit is larger than any receive buffer, so chunked content asks for no spill here.
        result = content_append(&request.content, bytes_behind, decoded, UINT64_MAX, loop.request_memory, &taken)
    else:
        if available >= request.parser.content_length:
            request.is_inline = True
            request.content_size = <size_t>request.parser.content_length
            request.end = head + request.content_size
            request.is_complete = True
            return ADVANCE_READY
        request.is_inline = head + request.parser.content_length <= RECEIVE_ROOM
        if request.is_inline:
            result = CONTENT_READY
        else:
            result = content_append(&request.content, bytes_behind, available, request.parser.content_length,
                                    loop.request_memory, &taken)
            if taken < available:
                # It asks for a spill first; connection_advance comes back for the rest.
                memmove(bytes_behind, bytes_behind + taken, available - taken)
                request.buffer.size -= taken
                connection_enter(loop, connection, STATE_CONTENT)
                return content_failed(result)
    if result == CONTENT_NO_MEMORY:
        return -<int>REFUSAL_NO_MEMORY
    if not request.is_inline:
        request.buffer.size = request.start + head
    connection_enter(loop, connection, STATE_CONTENT)
    if available:
        # The client has not waited for it (RFC 9110, 10.1.1).
        request.parser.expects_continue = False
    return ADVANCE_CONTINUE if request.parser.expects_continue else ADVANCE_WAIT


cdef int advance_proxy(loop_t* loop, connection_t* connection) noexcept nogil:
    """Take the PROXY protocol header off the buffer; ADVANCE_READY once it is read, ADVANCE_WAIT or -reason."""
    cdef request_t* request = connection.request
    cdef proxy_t proxy
    cdef int size = proxy_parse(request.buffer.data, request.buffer.size, loop.trust.proxy_versions, &proxy)
    if size == PROXY_MORE:
        connection_enter(loop, connection, STATE_HEAD)
        return ADVANCE_WAIT
    if size < 0:
        return -<int>(REFUSAL_NO_PROXY_HEADER if size == PROXY_MISSING else REFUSAL_BAD_PROXY_HEADER)
    if proxy.source == SOURCE_ADDRESS:
        connection.proxy_text = <char*>malloc(ADDRESS_ROOM)
        if connection.proxy_text == NULL:
            return -<int>REFUSAL_NO_MEMORY
        memcpy(connection.proxy_text, connection.peer_text, ADDRESS_ROOM)
        connection.peer_size = <uint8_t>address_text(&proxy.address, connection.peer_text)
        connection.peer_port = proxy.port
        connection.is_trusted = networks_match_peer(&loop.trust.forwarders, &proxy.address)
    elif proxy.source != SOURCE_PROXY:
        connection.is_trusted = False       # nobody knows who it is
    connection.awaits_proxy = False
    request.start = <size_t>size
    if request.start < request.buffer.size:
        return ADVANCE_READY
    # Nothing of a request yet.
    request_release(loop, request)
    connection.request = NULL
    if connection.state == STATE_HEAD:
        connection_enter(loop, connection, STATE_NEW)
    return ADVANCE_WAIT


cdef int advance_trust(loop_t* loop, connection_t* connection) noexcept nogil:
    """The head has fields that not everybody is believed; 0 or -reason."""
    cdef request_t* request = connection.request
    cdef char remark[REMARK_ROOM]
    cdef int result = trust_head(&loop.trust, &request.parser, request.buffer.data + request.start,
                                 connection.is_trusted, &request.forwarded, remark)
    if remark[0]:
        connection_enter(loop, connection, STATE_HEAD)
        loop_say(loop, LEVEL_WARNING, remark, connection, NULL)
    return result


cdef span_t request_authority(request_t* request) noexcept nogil:
    """What the client calls us: of a proxy that is believed, of the target, or of the Host field; perhaps nothing."""
    cdef parser_t* parser = &request.parser
    cdef span_t nothing
    if request.forwarded.is_set and request.forwarded.host.length:
        return request.forwarded.host
    if parser.target_form == TARGET_ABSOLUTE:
        return parser.authority
    if parser.host_field >= 0:
        return parser.fields[parser.host_field].value
    nothing.start = nothing.length = 0
    return nothing


cdef int advance_route(loop_t* loop, connection_t* connection, const router_t* router) noexcept nogil:
    """Find its route; 0 or -reason."""
    cdef request_t* request = connection.request
    cdef const char* data = request.buffer.data + request.start
    cdef span_t authority = request_authority(request)
    cdef const char* path = data + request.parser.path.start
    cdef size_t size = request.parser.path.length
    cdef size_t script_length = request.forwarded.script_length if request.forwarded.is_set else 0
    cdef ssize_t resolved
    # What a proxy has mounted us at is not ours.
    path += script_length
    size -= script_length
    request.path_is_odd = False
    if size == 0 or path[0] != c"/":
        path = b"/"         # OPTIONS *, or just where we are mounted
        size = 1
    elif size > 1 and (request.parser.path_needs_decoding or not path_is_plain(path, size)):
        request.path_is_odd = True
        loop.path.size = 0
        if buffer_reserve(&loop.path, size) < 0:
            return -<int>REFUSAL_NO_MEMORY
        resolved = path_resolve(path, size, loop.path.data)
        if resolved < 0:
            connection_enter(loop, connection, STATE_HEAD)
            return -<int>REFUSAL_PATH_ESCAPES
        path = loop.path.data
        size = <size_t>resolved
    request.route = router_match(router, data + authority.start, authority.length, path, size)
    return 0


cdef int advance_guard(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its route has a guard: 0, or -reason."""
    cdef request_t* request = connection.request
    cdef address_t address
    cdef address_t* known = &address
    cdef record_t client
    record_client(&client, connection)
    if not address_parse(client.peer, client.peer_size, &address):
        known = NULL
    return guard_judge(request.route.guard, known, (request.parser.known_seen >> <int>KNOWN_AUTHORIZATION) & 1,
                       loop.now_ns, &request.retry_after)


cdef int advance(loop_t* loop, connection_t* connection) noexcept nogil:
    cdef request_t* request = connection.request
    cdef const router_t* router
    cdef int result
    if request.is_complete:
        return ADVANCE_READY
    if request.is_parsing:
        result = parser_feed(&request.parser, request.buffer.data + request.start,
                             request.buffer.size - request.start)
        if result == NEED_MORE:
            connection_enter(loop, connection, STATE_HEAD)
            return ADVANCE_WAIT
        if result != HEAD_DONE:
            return result
        request.is_parsing = False
        request.head_ns = loop.now_ns
        request.forwarded.is_set = request.forwarded.has_client = False
        if trust_concerns(request.parser.known_seen):
            result = advance_trust(loop, connection)
            if result:
                return result
        if request.parser.method == METHOD_CONNECT:
            return -<int>REFUSAL_CONNECT
        # A gateway that is believed can say that the client came by TLS.
        if request.parser.target_is_https and not connection_is_secure(connection):
            return -<int>REFUSAL_MISDIRECTED
        request.content_most = loop.content_most
        router = connection_router(loop, connection)
        if router != NULL:
            result = advance_route(loop, connection, router)
            if not result and request.route.guard != NULL and not connection_is_probe(loop, connection):
                result = advance_guard(loop, connection)
                if request.route.guard.has_content_most:
                    request.content_most = request.route.guard.content_most
            if result:
                return result
        if not request.parser.is_chunked and not request.parser.content_length:
            request.is_inline = True
            request.content_start = request.end = request.parser.head_size
            request.content_size = 0
            request.is_complete = True
            return ADVANCE_READY
        if request.parser.content_length > request.content_most:
            return -<int>REFUSAL_CONTENT_TOO_LARGE
        if request.parser.is_chunked:
            chunked_reset(&request.chunked)
        return advance_content(loop, connection)
    if request.is_inline:
        # Content-Length content that fits the buffer; the rest of it has come, or a part.
        if request.buffer.size - request.start - request.parser.head_size < request.parser.content_length:
            connection_enter(loop, connection, STATE_CONTENT)
            return ADVANCE_CONTINUE if request.parser.expects_continue else ADVANCE_WAIT
        request.content_size = <size_t>request.parser.content_length
        request.end = request.parser.head_size + request.content_size
        request.is_complete = True
        return ADVANCE_READY
    if request.buffer.size - request.start > request.parser.head_size:
        return advance_content(loop, connection)
    return ADVANCE_CONTINUE if request.parser.expects_continue else ADVANCE_WAIT


cdef int connection_advance(loop_t* loop, connection_t* connection) noexcept nogil:
    """Parse what the buffer holds; nothing is sent and no list is touched. Called again, it says the same again."""
    cdef request_t* request = connection.request
    cdef int outcome = request.refusal
    if not outcome:
        outcome = advance(loop, connection)
        if outcome < 0:
            request.refusal = outcome
    return outcome


# ---- TLS: what was received is decrypted in a step, and taken from there ----

cdef inline bint awaits_wire(connection_t* connection) noexcept nogil:
    """What it receives next has to be decrypted."""
    return (connection.tls != NULL and not connection.awaits_proxy and not tls_has_plain(connection.tls)
            and not connection.tls.has_ended)


cdef ssize_t connection_recv(loop_t* loop, connection_t* connection, char* at, size_t room) noexcept nogil:
    """As recv(2): from the socket, or what was decrypted; not called where that has to come first."""
    cdef ssize_t n
    if connection.tls != NULL and not connection.awaits_proxy:
        return <ssize_t>tls_take(connection.tls, at, room)
    n = platform_recv(connection.fd, at, room)
    if n > 0:
        word_count(&loop.measures.received, n)
    return n


cdef void connection_make_plain(loop_t* loop, connection_t* connection) noexcept nogil:
    """Without TLS from here on. Python objects hang from it, and nobody here has the GIL."""
    if connection.tls != NULL:
        head_push(&loop.spent, connection.tls, <void**>&connection.tls.next)
        connection.tls = NULL
        loop_remind(loop, ALARM_SPENT, loop.now_ms + SPENT_MS)


cdef void make_room_for_handshake(loop_t* loop) noexcept nogil:
    """With as many handshakes as there may be, close the one that has gone on for longest."""
    cdef connection_t* connection
    if word_load_relaxed(&loop.row.waits_for[<int>DEADLINE_HANDSHAKE]) < <uint64_t>HANDSHAKES_MOST:
        return
    connection = loop.deadlines[<int>DEADLINE_HANDSHAKE].first
    while connection != NULL and connection.owner != OWNER_LOOP:
        connection = connection.later
    if connection != NULL:
        connection_close(loop, connection)


cdef int advance_wire(loop_t* loop, connection_t* connection) noexcept nogil:
    """Octets have come: ADVANCE_STEP, if there is a whole record, ADVANCE_WAIT or -reason."""
    cdef tls_t* tls = connection.tls
    cdef char first = tls.wire_in.data[0] | 0x20
    if not tls.is_open and tls.ssl == NULL and c"a" <= first <= c"z":
        connection_make_plain(loop, connection)
        return -<int>REFUSAL_HTTP_ON_TLS_PORT
    tls_cut(tls)
    if tls.is_open:
        if connection.request == NULL:
            connection_enter(loop, connection, STATE_HEAD)
    elif connection.state != STATE_HANDSHAKE:
        make_room_for_handshake(loop)
        connection_enter(loop, connection, STATE_HANDSHAKE)
    return ADVANCE_STEP if tls.whole else ADVANCE_WAIT


cdef int receive_wire(loop_t* loop, connection_t* connection, ssize_t* received) noexcept nogil:
    """Receive octets that have to be decrypted; *received as recv(2) has it."""
    cdef char octets[RECEIVE_ROOM]
    received[0] = platform_recv(connection.fd, octets, sizeof(octets))
    if received[0] <= 0:
        return ADVANCE_WAIT
    word_count(&loop.measures.received, received[0])
    if buffer_append(&connection.tls.wire_in, octets, <size_t>received[0]) < 0:
        return -<int>REFUSAL_NO_MEMORY
    return advance_wire(loop, connection)


cdef int advance_proxied(loop_t* loop, connection_t* connection) noexcept nogil:
    """What is behind the PROXY protocol header has to be decrypted."""
    cdef request_t* request = connection.request
    cdef int failed = buffer_append(&connection.tls.wire_in, request.buffer.data + request.start,
                                    request.buffer.size - request.start)
    request_release(loop, request)
    connection.request = NULL
    return -<int>REFUSAL_NO_MEMORY if failed else advance_wire(loop, connection)


cdef void connection_step(loop_t* loop, connection_t* connection) noexcept nogil:
    """Have a step made for it; connection_stepped goes on."""
    connection.tls.is_stepping = True
    connection.owner = OWNER_QUEUE
    list_append(&loop.steps, connection)


cdef int tls_failed(loop_t* loop, connection_t* connection) noexcept nogil:
    """OpenSSL has refused what came: the client is told why by an alert, and so is the log, not for each."""
    cdef tls_t* tls = connection.tls
    cdef char line[96]
    if tls.is_open:
        word_add(&loop.counters.lost_clients, 1)
    else:
        word_count(&loop.counters.handshakes_failed, 1)
    if loop.tls_said_ms and loop.now_ms < loop.tls_said_ms + TLS_SAY_MS:
        loop.tls_unsaid += 1
    else:
        snprintf(line, sizeof(line), b"a TLS %s failed", <const char*>(b"connection" if tls.is_open else b"handshake"))
        if loop.tls_unsaid:
            snprintf(line, sizeof(line), b"%llu more TLS connections and handshakes failed, and now this",
                     <unsigned long long>loop.tls_unsaid)
        loop.tls_said_ms = loop.now_ms
        loop.tls_unsaid = 0
        loop_say(loop, LEVEL_WARNING, line, connection, tls.reason)
    connection.closes = True
    connection_enter(loop, connection, STATE_SENDING)
    return connection_settle(loop, connection)


cdef bint send_wire(loop_t* loop, connection_t* connection) noexcept nogil:
    """Send what a step has sealed, and keep what the socket does not take; False if the client is gone."""
    cdef buffer_t* wire = &connection.tls.wire_out
    cdef outbox_t* outbox = connection.outbox
    cdef ssize_t n = 0
    cdef size_t size = wire.size
    wire.size = 0
    if outbox == NULL or outbox_is_empty(outbox) or outbox_seals(outbox):
        n = platform_send(connection.fd, wire.data, size, 0)
        if n < 0:
            if not platform_would_block():
                return False
            n = 0
        word_count(&loop.measures.sent, n)
    if <size_t>n == size:
        return True
    if outbox == NULL:
        outbox = connection.outbox = outbox_new()
    return outbox != NULL and outbox_add(outbox, wire.data + n, size - <size_t>n, ALL_MEMORY, UINT64_MAX,
                                         loop.spool_directory) == size - <size_t>n


cdef int connection_stepped(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its step is over: send what that has sealed, go on with what it has read; returns as connection_handle does."""
    cdef tls_t* tls = connection.tls
    tls.is_stepping = False
    connection.owner = OWNER_LOOP
    if tls.wire_out.size and not send_wire(loop, connection):
        word_add(&loop.counters.lost_clients, 1)
        connection.wants_reset = True
        connection_close(loop, connection)
        return ADVANCE_WAIT
    if tls.is_file_short:
        return file_is_short(loop, connection)
    if tls.has_failed:
        return tls_failed(loop, connection)
    if tls.is_open and not tls.is_counted:
        tls.is_counted = True
        word_count(&loop.counters.handshakes, 1)
        if tls.is_resumed:
            word_count(&loop.counters.handshakes_resumed, 1)
    if connection.state == STATE_SENDING:
        return connection_settle(loop, connection)
    if tls.is_open and connection.request == NULL and not tls_has_plain(tls):
        # Nothing of a request yet.
        if connection.requests:
            connection_enter(loop, connection, STATE_IDLE)
        else:
            connection_enter(loop, connection, STATE_IDLE if word_load_relaxed(&loop.draining) else STATE_NEW)
    elif connection.state == STATE_HANDSHAKE and tls.is_open:
        connection_enter(loop, connection, STATE_HEAD)
    if connection.outbox != NULL and not outbox_is_empty(connection.outbox):
        return connection_settle(loop, connection)      # or it could be made to keep ever more
    if tls_has_plain(tls) or tls.has_ended:
        return connection_receive(loop, connection)
    connection_watch(loop, connection, WATCH_READ)
    return ADVANCE_WAIT


cdef int receive_content(loop_t* loop, connection_t* connection, ssize_t* received) noexcept nogil:
    """Receive content straight to where it is kept; *received as recv(2) has it."""
    cdef request_t* request = connection.request
    cdef uint64_t expected = UINT64_MAX if request.parser.is_chunked else request.parser.content_length
    cdef char* space
    cdef size_t room, consumed = 0, decoded = 0
    cdef int result = content_space(&request.content, expected, loop.request_memory, &space, &room)
    received[0] = 1
    if result != CONTENT_READY:
        return content_failed(result)
    # The room is never more than what is missing: what comes behind the content is the next request's.
    received[0] = connection_recv(loop, connection, space, room)
    if received[0] <= 0:
        return ADVANCE_WAIT
    connection_enter(loop, connection, STATE_CONTENT)
    if not request.parser.is_chunked:
        content_add(&request.content, <size_t>received[0])
        if content_length(&request.content) < expected:
            return ADVANCE_WAIT
        request.end = request.parser.head_size
        request.is_complete = True
        return ADVANCE_READY
    result = chunked_feed(&request.chunked, &loop.limits, request.content_most, space, <size_t>received[0], &consumed,
                          &decoded)
    if result < 0:
        return result
    if result == CONTENT_DONE and buffer_append(&request.buffer, space + consumed,
                                                <size_t>received[0] - consumed) < 0:
        return -<int>REFUSAL_NO_MEMORY
    content_add(&request.content, decoded)
    if result == NEED_MORE:
        return ADVANCE_WAIT
    request.end = request.parser.head_size
    request.is_complete = True
    return ADVANCE_READY


cdef int receive_head(loop_t* loop, connection_t* connection, ssize_t* received) noexcept nogil:
    """Receive into the buffer and parse."""
    cdef request_t* request = connection.request
    cdef size_t kept
    cdef int outcome
    received[0] = 1
    if request == NULL:
        request = request_lease(loop)
        if request == NULL:
            return -<int>REFUSAL_NO_MEMORY
        connection.request = request
    elif request.start:
        # A part of a pipelined request: to the front, so that the buffer does not grow with each.
        kept = request.buffer.size - request.start
        memmove(request.buffer.data, request.buffer.data + request.start, kept)
        request.buffer.size = kept
        request.start = 0
    if request.buffer.size == request.buffer.capacity and buffer_reserve(&request.buffer, request.buffer.size) < 0:
        return -<int>REFUSAL_NO_MEMORY
    received[0] = connection_recv(loop, connection, request.buffer.data + request.buffer.size,
                                  request.buffer.capacity - request.buffer.size)
    if received[0] <= 0:
        return ADVANCE_WAIT
    request.buffer.size += <size_t>received[0]
    if connection.awaits_proxy:
        outcome = advance_proxy(loop, connection)
        if outcome != ADVANCE_READY:
            return outcome
        if connection.tls != NULL:
            return advance_proxied(loop, connection)
    return connection_advance(loop, connection)


cdef int receive_linger(loop_t* loop, connection_t* connection) noexcept nogil:
    cdef char nowhere[LINGER_ROOM]
    cdef ssize_t received = platform_recv(connection.fd, nowhere, sizeof(nowhere))
    if received == 0 or (received < 0 and not platform_would_block()):
        connection_close(loop, connection)
    return ADVANCE_WAIT


cdef bint content_is_slow(loop_t* loop, request_t* request, size_t received) noexcept nogil:
    """More content has come, and not all: it took longer than its grace and a second for each loop.content_rate."""
    if not request.content_began_ms:
        request.content_began_ms = loop.now_ms
        request.content_received = 0
        return False
    request.content_received += received
    return loop.content_rate and (loop.now_ms - request.content_began_ms - RATE_GRACE_MS) > <int64_t>(
        request.content_received * 1000 // loop.content_rate)


cdef int connection_receive(loop_t* loop, connection_t* connection) noexcept nogil:
    """Receive once and go on as far as the bytes allow; see connection_handle for what is returned."""
    cdef ssize_t received = 1
    cdef int outcome
    if connection.state == STATE_LINGER:
        return receive_linger(loop, connection)
    if awaits_wire(connection):
        outcome = receive_wire(loop, connection, &received)
        if received > 0:
            return connection_handle(loop, connection, outcome)
    elif connection.request != NULL and not connection.request.is_parsing and not connection.request.is_inline:
        outcome = receive_content(loop, connection, &received)
    else:
        outcome = receive_head(loop, connection, &received)
    if received > 0:
        if outcome == ADVANCE_WAIT and connection.state == STATE_CONTENT and content_is_slow(
                loop, connection.request, <size_t>received):
            outcome = -<int>REFUSAL_CONTENT_TIMEOUT
        return connection_handle(loop, connection, outcome)
    if received < 0 and platform_would_block():
        if connection.state == STATE_NEW or connection.state == STATE_IDLE:
            # The lease was for a byte that did not come.
            request_release(loop, connection.request)
            connection.request = NULL
        return connection_handle(loop, connection, ADVANCE_WAIT)
    if connection.state == STATE_HEAD or connection.state == STATE_CONTENT:
        word_add(&loop.counters.lost_clients, 1)
    if connection.tls != NULL and connection.tls.has_ended:
        connection.closes = True        # it has said so, and is answered
        return connection_settle(loop, connection)
    connection_close(loop, connection)
    return ADVANCE_WAIT


cdef void connection_defer(loop_t* loop, connection_t* connection) noexcept nogil:
    """What it needs next may block on the disk: not in a turn that holds the GIL."""
    connection.owner = OWNER_QUEUE
    connection_watch(loop, connection, 0)
    list_append(&loop.blocking, connection)


cdef int spill(loop_t* loop, connection_t* connection) noexcept nogil:
    """Write content to its spool; ADVANCE_LOST if the lead was taken meanwhile."""
    cdef uint64_t away
    cdef int error
    connection.owner = OWNER_THREAD
    away = lead_leave(&loop.lead)
    error = content_spill(&connection.request.content, loop.spool_directory)
    if not lead_return(&loop.lead, away):
        connection.request.spill_error = error
        connection_post(loop, connection, POST_FINISHED)
        return ADVANCE_LOST
    connection.owner = OWNER_LOOP
    if error:
        return -<int>REFUSAL_SPOOL_FULL
    return ADVANCE_WAIT


cdef int connection_handle(loop_t* loop, connection_t* connection, int outcome) noexcept nogil:
    """Act on what connection_advance or a receive said; returns ADVANCE_READY, ADVANCE_WAIT or ADVANCE_LOST.

    ADVANCE_READY: it is in loop.ready, or in loop.steps. What was sent before must have been offered to the kernel.
    """
    cdef const char* interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    cdef ssize_t sent
    if outcome == ADVANCE_READY:
        connection.request.ready_ns = loop.now_ns
        connection_enter(loop, connection, STATE_QUEUED)
        if connection_is_local(loop, connection):
            return loop.answer(loop, connection)
        connection.owner = OWNER_QUEUE
        list_append(&loop.ready, connection)
        return ADVANCE_READY
    if outcome == ADVANCE_SPILL and not loop.may_block:
        connection_defer(loop, connection)
        return ADVANCE_WAIT
    while outcome == ADVANCE_SPILL:
        outcome = spill(loop, connection)
        if outcome == ADVANCE_LOST:
            return ADVANCE_LOST
        if outcome == ADVANCE_WAIT:
            outcome = connection_advance(loop, connection)
    if outcome == ADVANCE_STEP:
        connection_step(loop, connection)
        return ADVANCE_READY
    if outcome == ADVANCE_CONTINUE and connection.tls != NULL:
        connection.request.parser.expects_continue = False
        if buffer_append(&connection.tls.plain_out, interim, 25) == 0:
            connection_step(loop, connection)
            return ADVANCE_READY
        outcome = -<int>REFUSAL_NO_MEMORY
    if outcome == ADVANCE_CONTINUE:
        connection.request.parser.expects_continue = False
        # A client that does not get it sends its content after a while (RFC 9110, 10.1.1), so where the socket is
        # full it is left out.
        sent = platform_send(connection.fd, interim, 25, 0)
        if sent > 0:
            word_count(&loop.measures.sent, sent)
        if sent != 25 and not (sent < 0 and platform_would_block()):
            word_add(&loop.counters.lost_clients, 1)
            connection_close(loop, connection)
            return ADVANCE_WAIT
    if outcome < 0:
        return connection_refuse(loop, connection, -outcome)
    if connection.tls != NULL and (tls_has_plain(connection.tls) or connection.tls.has_ended):
        return connection_receive(loop, connection)
    connection_watch(loop, connection, WATCH_READ)
    return ADVANCE_WAIT


cdef int connection_go_on(loop_t* loop, connection_t* connection) noexcept nogil:
    """Go on with what was received and not looked at; returns as connection_handle does."""
    if connection.request == NULL:
        return connection_receive(loop, connection)
    return connection_handle(loop, connection, connection_advance(loop, connection))


# ---- sending ----

cdef transmit_t connection_transmit(loop_t* loop, connection_t* connection, slot_t* slot,
                                    const char* data, size_t size, const char* tail, size_t tail_size,
                                    size_t* taken) noexcept nogil:
    """Send what waits in slot.out, then data, then tail; by a thread that holds its slot and can wait.

    What the socket does not take goes into the outbox, as far as its limits allow; *taken says how much of data was
    sent or kept (tail: only when that is all of it). What then still waits in slot.out, or of data, is sent by the
    next call. May block on the disk once the memory limit is passed.
    """
    cdef transmit_t outcome = transmit(loop, connection, slot, data, size, tail, tail_size, taken,
                                       loop.response_memory, loop.response_spool)
    if outcome == TRANSMIT_LOST:
        slot.out.size = slot.out_sent = 0       # or it would be sent to the next client of this slot
    return outcome


cdef transmit_t connection_flush(loop_t* loop, connection_t* connection, slot_t* slot) noexcept nogil:
    """Send or keep all that waits in slot.out, by whoever holds the slot and cannot wait; it is empty afterwards."""
    cdef size_t taken
    cdef transmit_t outcome
    if connection.tls != NULL and slot == &loop.own:
        # What the loop itself has to say is not sealed yet: connection_settle asks for the step.
        outcome = TRANSMIT_DONE
        if buffer_append(&connection.tls.plain_out, slot.out.data, slot.out.size) < 0:
            outcome = TRANSMIT_LOST
        slot.out.size = 0
        return outcome
    outcome = transmit(loop, connection, slot, NULL, 0, NULL, 0, &taken, ALL_MEMORY, UINT64_MAX)
    slot.out.size = slot.out_sent = 0
    return TRANSMIT_DONE if outcome == TRANSMIT_DONE else TRANSMIT_LOST


cdef transmit_t transmit(loop_t* loop, connection_t* connection, slot_t* slot,
                         const char* data, size_t size, const char* tail, size_t tail_size,
                         size_t* taken, size_t memory_limit, uint64_t spool_limit) noexcept nogil:
    cdef iovec pieces[3]
    cdef int count = 0
    cdef ssize_t n
    cdef size_t sent = 0, waiting = slot.out.size - slot.out_sent
    cdef char* out = slot.out.data + slot.out_sent
    cdef outbox_t* outbox = connection.outbox
    cdef int state
    taken[0] = 0
    if outbox != NULL and not outbox_is_empty(outbox):
        state = outbox_send(outbox, connection.fd, False, &slot.measures.sent)
        if state < 0:
            return TRANSMIT_LOST
    if outbox == NULL or outbox_is_empty(outbox) or outbox_seals(outbox):
        if waiting and not size:
            n = platform_send(connection.fd, out, waiting, 0)
        elif waiting or size:
            if waiting:
                pieces[count].iov_base = out
                pieces[count].iov_len = waiting
                count += 1
            pieces[count].iov_base = <void*>data
            pieces[count].iov_len = size
            count += 1
            if tail_size:
                pieces[count].iov_base = <void*>tail
                pieces[count].iov_len = tail_size
                count += 1
            n = platform_send_pieces(connection.fd, pieces, count)
        else:
            return TRANSMIT_DONE
        if n < 0:
            if not platform_would_block():
                return TRANSMIT_LOST
            n = 0
        sent = <size_t>n
        word_count(&slot.measures.sent, n)
        if sent == waiting + size + tail_size:
            slot.out.size = slot.out_sent = 0
            taken[0] = size
            return TRANSMIT_DONE
    if outbox == NULL:
        outbox = connection.outbox = outbox_new()
        if outbox == NULL:
            return TRANSMIT_LOST
    if sent < waiting:
        slot.out_sent += sent + outbox_add(outbox, out + sent, waiting - sent, memory_limit, spool_limit,
                                           loop.spool_directory)
        if slot_waiting(slot):
            # Nothing kept at all: memory is out, and nobody would tell a producer that waits to go on.
            return TRANSMIT_LOST if outbox_is_empty(outbox) else TRANSMIT_FULL
        sent = 0
    else:
        sent -= waiting
    slot.out.size = slot.out_sent = 0
    if sent < size:
        taken[0] = sent + outbox_add(outbox, data + sent, size - sent, memory_limit, spool_limit,
                                     loop.spool_directory)
        if taken[0] < size:
            return TRANSMIT_LOST if outbox_is_empty(outbox) else TRANSMIT_FULL
        sent = 0
    else:
        taken[0] = size
        sent -= size
    if sent < tail_size and outbox_add(outbox, tail + sent, tail_size - sent, ALL_MEMORY, UINT64_MAX,
                                       loop.spool_directory) < tail_size - sent:
        return TRANSMIT_LOST
    return TRANSMIT_DONE


cdef void connection_count(loop_t* loop, connection_t* connection, int status) noexcept nogil:
    """Count a request that no thread will count."""
    cdef request_t* request = connection.request
    cdef int method = METHOD_OTHER
    if request != NULL and not request.is_parsing:
        method = request.parser.method
    count_answer(loop.measures, method, status)


cdef void connection_log(loop_t* loop, connection_t* connection, int status, uint64_t content_bytes,
                         uint64_t duration_ns) noexcept nogil:
    """Write the access log line of a request that no thread will write it for."""
    cdef request_t* request = connection.request
    cdef record_t record
    if loop.access == NULL:
        return
    memset(&record, 0, sizeof(record))
    if request != NULL and not request.is_parsing:
        record.data = request.buffer.data + request.start
        record.parser = &request.parser
    record_client(&record, connection)
    record.status = status
    record.content_bytes = content_bytes
    record.times_ns[<int>LOGGED_WHOLE] = duration_ns
    slot_log(loop, &loop.own, &record, loop.now_ns)


cdef inline bint may_go_on(loop_t* loop, connection_t* connection, int reason) noexcept nogil:
    """What was refused is understood, and nothing of it is still to come: the next request may follow."""
    cdef request_t* request = connection.request
    return (refusal_is_of_route(reason) and not request_has_content(request) and request.parser.keep_alive
            and connection.requests < loop.keep_alive_requests and not word_load_relaxed(&loop.draining))


cdef int connection_refuse(loop_t* loop, connection_t* connection, int reason, uint64_t duration_ns=0) noexcept nogil:
    """Answer with the refusal's status, and close but for refusals of a route; logged and counted.

    duration_ns: how long its exchange has run. Returns as connection_handle does.
    """
    cdef const refusal_info_t* info = refusal_info(reason)
    cdef request_t* request = connection.request
    cdef bint is_head_request = request != NULL and not request.is_parsing and request.parser.method == METHOD_HEAD
    cdef const route_t* route = connection_route(loop, connection)
    cdef const guard_t* guard = NULL if route == NULL else route.guard
    cdef slot_t* own = &loop.own
    cdef record_t called
    cdef refused_t told
    cdef bint is_built
    cdef transmit_t sent = TRANSMIT_LOST
    cdef char line[160]
    word_count(&loop.counters.refused[reason], 1)
    if connection.state not in (STATE_CONTENT, STATE_QUEUED, STATE_EXCHANGE):
        connection.state = STATE_HEAD       # as soon as its bytes were seen
    own.number += 1
    connection_identify(loop, connection, own)
    record_client(&called, connection)
    if connection.awaits_proxy:
        # It has not come to speak HTTP: the specification wants it closed, and so do the proxies it is from.
        loop_say(loop, LEVEL_WARNING, b"closed without an answer", connection, info.text)
        connection_close(loop, connection)
        return ADVANCE_WAIT
    connection_count(loop, connection, info.status)
    if not refusal_is_expected(reason):
        snprintf(line, sizeof(line), b"refused with %d %s", info.status, info.phrase)
        loop_say(loop, LEVEL_WARNING, line, connection, info.text)
    memset(&told, 0, sizeof(told))
    told.request_id = called.id
    told.id_size = called.id_size
    told.lines = NULL if route == NULL else &route.lines
    told.is_head_request = is_head_request
    if refusal_is_of_route(reason):
        connection.requests += 1
        told.keep_alive = may_go_on(loop, connection, reason)
        told.version_minor = request.parser.version_minor
        told.retry_after = request.retry_after
        told.challenge = guard.challenge
        told.challenge_size = guard.challenge_size if info.status == 401 else 0
        request.end = request.parser.head_size
        connection.is_answered = True
    if not told.keep_alive:
        connection.closes = True
        connection.lingers = True
    own.out.size = own.out_sent = 0
    if guard != NULL:
        told.page = guard_borrow_page(guard, reason, info.status)
    is_built = response_refuse(reason, &told, &own.out, &own.date, platform_wall_seconds()) == 0
    if guard != NULL:
        guard_return_page(guard, reason)
    if is_built:
        sent = connection_flush(loop, connection, own)
    connection_log(loop, connection, info.status, 0, duration_ns)
    if sent == TRANSMIT_LOST:
        connection_close(loop, connection)
        return ADVANCE_WAIT
    return connection_settle(loop, connection)


cdef void connection_next(loop_t* loop, connection_t* connection) noexcept nogil:
    """Drop the request that was answered; what is behind it in the buffer is the next one."""
    cdef request_t* request = connection.request
    connection.is_answered = False
    connection.state = STATE_HEAD       # for the log: it may be refused before it has entered any
    request.start += request.end
    if request.start >= request.buffer.size:
        request_release(loop, request)
        connection.request = NULL
        return
    forget_file(request)
    content_free(&request.content)
    request_begin(loop, request)


cdef bint has_to_seal(connection_t* connection) noexcept nogil:
    """Something has to be sealed before it can go on: the loop's answer, a piece of a file, or the end of it all."""
    cdef tls_t* tls = connection.tls
    if tls.has_failed or connection.wants_reset or word_load_relaxed(&connection.gone) & GONE_WHOLE:
        return False
    # An answer and the end of it go together, if nothing comes in between.
    tls.wants_end = connection.closes and (connection.outbox == NULL or outbox_is_empty(connection.outbox))
    return (tls.plain_out.size or (tls.wants_end and tls.is_open and not tls.said_end)
            or (connection.outbox != NULL and outbox_seals(connection.outbox)))


cdef bint has_more(loop_t* loop, connection_t* connection) noexcept nogil:
    """There is more to look at, or the end; if not, it is idle, and keeps little."""
    if tls_has_plain(connection.tls) or connection.tls.has_ended:
        return True
    tls_rest(connection.tls)
    return False


cdef int connection_settle(loop_t* loop, connection_t* connection) noexcept nogil:
    """An answer is over and offered to the kernel: send the rest, close, or go on with the next request.

    Returns as connection_handle does.
    """
    if connection.tls != NULL and has_to_seal(connection):
        if connection.outbox != NULL and not connection.delivers_since_ns:
            connection.delivers_since_ns = loop.now_ns
        connection_enter(loop, connection, STATE_SENDING)
        connection_step(loop, connection)
        return ADVANCE_READY
    if connection.outbox != NULL:
        if connection.tls != NULL and outbox_seals(connection.outbox):
            # Nothing can be sealed any more (has_to_seal): what is cut shall look like that.
            connection.wants_reset = True
            connection_close(loop, connection)
            return ADVANCE_WAIT
        if word_load_relaxed(&connection.gone) & GONE_WHOLE:
            connection_close(loop, connection)
            return ADVANCE_WAIT
        if not outbox_is_empty(connection.outbox):
            if not connection.delivers_since_ns:
                connection.delivers_since_ns = loop.now_ns
            connection_enter(loop, connection, STATE_SENDING)
            connection_watch(loop, connection, WATCH_WRITE)
            return ADVANCE_WAIT
        outbox_free(connection.outbox)
        connection.outbox = NULL
        if connection.delivers_since_ns:
            delivery_ends(loop, connection)
        # Much of it is still in the kernel: the client is given the time to read that.
        connection.lingers = True
    if connection.wants_reset:
        connection_close(loop, connection)
        return ADVANCE_WAIT
    if connection.closes:
        # What is closed with octets unread is reset, and the end of the answer with it (RFC 9112, 9.6).
        if connection.lingers or platform_has_octets(connection.fd):
            connection_linger(loop, connection)
        else:
            connection_close(loop, connection)
        return ADVANCE_WAIT
    if connection.is_answered:
        connection_next(loop, connection)
    if connection.request == NULL and not (connection.tls != NULL and has_more(loop, connection)):
        connection.inline_count = 0
        connection_enter(loop, connection, STATE_IDLE)
        connection_watch(loop, connection, WATCH_READ)
        return ADVANCE_WAIT
    if connection.inline_count >= PIPELINE_MOST:
        # The others have a turn first.
        connection.inline_count = 0
        connection_enter(loop, connection, STATE_HEAD)
        connection.owner = OWNER_QUEUE
        list_append(&loop.backlog, connection)
        return ADVANCE_WAIT
    connection.inline_count += 1
    return connection_go_on(loop, connection)


cdef void connection_unattend(loop_t* loop, connection_t* connection) noexcept nogil:
    """The outbox of its running exchange is in other hands, or empty."""
    if connection.deadline != DEADLINE_NONE:
        deadline_leave(loop, connection)
    # That the client leaves shall still be heard of, once: it cannot be masked.
    connection_watch(loop, connection, 0 if word_load_relaxed(&connection.gone) & GONE_WHOLE else WATCH_GONE)


cdef bint running_borrow(loop_t* loop, connection_t* connection, slot_t* slot) noexcept nogil:
    """Hold the slot of a running exchange; False if its thread is at it, which then sees to the rest.

    Until then its room is not watched for: it would be reported again and again.
    """
    if slot == NULL:        # a leader is away for it: that comes back through `done`
        # Its deadline stays: nobody would arm it again.
        connection_watch(loop, connection, 0 if word_load_relaxed(&connection.gone) & GONE_WHOLE else WATCH_GONE)
        return False
    if not slot_borrow(slot):
        connection_unattend(loop, connection)
        # Its thread lets go of the slot and then looks at `missed`; one of us sees the other.
        word_store(&slot.missed, 1)
        if not slot_borrow(slot):
            return False
        connection_attend(loop, connection)
    if slot.connection != connection:
        slot_quiet(slot)
        connection_unattend(loop, connection)
        return False
    return True


cdef void connection_attend(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its exchange runs and its outbox waits: from now on the client has a while to read some of it."""
    if connection_watch(loop, connection, WATCH_WRITE) < 0:
        connection_give_up(loop, connection)
    elif connection.deadline == DEADLINE_NONE:
        deadline_join(loop, connection, DEADLINE_SEND)


cdef void remind_of_queue(loop_t* loop, int64_t at_ms) noexcept nogil:
    """Have the queue looked through, which is long perhaps: not for each client that leaves."""
    loop_remind(loop, ALARM_QUEUE, (at_ms // SIFT_MS + 1) * SIFT_MS)


cdef void connection_gone(loop_t* loop, connection_t* connection) noexcept nogil:
    """The client of a running exchange has left."""
    cdef slot_t* slot = connection_slot(connection)
    word_or(&connection.gone, GONE_WHOLE)
    if connection.deadline != DEADLINE_NONE:
        deadline_leave(loop, connection)
    # If it waits for a thread, it need not any more.
    connection.expires_ms = loop.now_ms
    remind_of_queue(loop, loop.now_ms)
    if slot != NULL:
        slot_moved(slot)


cdef void connection_lost(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its client left while an exchange was sending; by whoever holds the slot."""
    word_add(&loop.counters.lost_clients, 1)
    connection.closes = True
    connection.wants_reset = True


cdef void connection_keep_watch(loop_t* loop, connection_t* connection) noexcept nogil:
    """Its request will wait, or its exchange takes a while: hear of it when the client leaves."""
    if (not connection.watched or connection.watched == WATCH_GONE) and not word_load_relaxed(&connection.gone):
        connection_watch(loop, connection, WATCH_READ)


cdef void connection_heard(loop_t* loop, connection_t* connection) noexcept nogil:
    """The client of a request that waits or runs has sent something: the next request, or the end of its side."""
    # Over TLS there is close_notify before it, which nobody has read.
    cdef bint has_ended = (platform_has_finished(connection.fd) if connection.tls != NULL
                           else platform_has_ended(connection.fd))
    if has_ended:
        word_or(&connection.gone, GONE_HALF)
        if connection.deadline == DEADLINE_NONE:
            connection.expires_ms = min(connection.expires_ms, loop.now_ms + HALF_CLOSED_MS)
            remind_of_queue(loop, connection.expires_ms)
    connection_watch(loop, connection, WATCH_GONE if has_ended or connection.tls == NULL else WATCH_END)


cdef void connection_drop(loop_t* loop, connection_t* connection) noexcept nogil:
    """The client has left before its request was begun."""
    word_add(&loop.counters.left, 1)
    connection_count(loop, connection, 499)
    connection_log(loop, connection, 499, 0, 0)
    connection_close(loop, connection)


cdef void connection_give_up(loop_t* loop, connection_t* connection) noexcept nogil:
    """The client of a running exchange reads nothing: its thread shall see it as gone."""
    shutdown(connection.fd, SHUT_RDWR)
    connection_gone(loop, connection)


cdef int file_is_short(loop_t* loop, connection_t* connection) noexcept nogil:
    loop_say(loop, LEVEL_WARNING, b"a file became shorter while it was sent; the connection is reset", connection, NULL)
    connection.wants_reset = True
    connection_close(loop, connection)
    return ADVANCE_WAIT


cdef int connection_send_ready(loop_t* loop, connection_t* connection) noexcept nogil:
    """The socket has room again: send the outbox, of the loop's own or of a running exchange.

    Returns as connection_handle does.
    """
    cdef outbox_t* outbox
    cdef slot_t* slot = connection_slot(connection)
    cdef bint is_running = connection.owner != OWNER_LOOP
    cdef bint may_block
    cdef uint64_t away = 0
    cdef int outcome
    if is_running and not running_borrow(loop, connection, slot):
        return ADVANCE_WAIT
    outbox = connection.outbox
    if outbox == NULL or outbox_is_empty(outbox):
        if is_running:
            slot_quiet(slot)
            slot_moved(slot)
            connection_unattend(loop, connection)
            return ADVANCE_WAIT
        return connection_settle(loop, connection)
    # From a file: the disk may be slow.
    may_block = outbox.spool_sent < outbox.spool_size or (outbox.file >= 0 and not outbox.seals_file)
    if connection.deadline != DEADLINE_NONE:
        deadline_leave(loop, connection)
    deadline_join(loop, connection, DEADLINE_SEND)
    if may_block:
        if not is_running:
            if not loop.may_block:
                connection_defer(loop, connection)
                return ADVANCE_WAIT
            connection.owner = OWNER_THREAD
        away = lead_leave(&loop.lead)
    # For a running exchange one piece at a time: its thread may want to go on.
    outcome = outbox_send(outbox, connection.fd, is_running, &loop.measures.sent)
    if is_running:
        slot_quiet(slot)
        slot_moved(slot)
    if may_block:
        if not lead_return(&loop.lead, away):
            if not is_running:
                connection_post(loop, connection, POST_FINISHED)
            return ADVANCE_LOST
        if not is_running:
            connection.owner = OWNER_LOOP
    if is_running:
        if outcome != OUTBOX_WAITS:
            connection_unattend(loop, connection)
        return ADVANCE_WAIT
    if outcome == OUTBOX_WAITS:
        return ADVANCE_WAIT
    if outcome == OUTBOX_FILE_SHORT:
        return file_is_short(loop, connection)
    if outcome != OUTBOX_EMPTY and outcome != OUTBOX_SEAL:
        word_add(&loop.counters.lost_clients, 1)
        connection.wants_reset = True
        connection_close(loop, connection)
        return ADVANCE_WAIT
    return connection_settle(loop, connection)
