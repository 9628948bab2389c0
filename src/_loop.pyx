"""The turn of a worker's loop: wait, accept, receive, dispatch, send, expire, close.

Called by whoever leads, and by nobody else. Knows connections, not threads and nothing of Python: a complete request
is put into loop.ready, and loop_turn returns. Everything taken from the kernel is in the loop's structures before it
returns, so that whoever takes the lead finds it there.
"""

from libc.errno cimport EBADF, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strerror
from posix.unistd cimport close

from fastwsgi._connection cimport (
    ADVANCE_LOST, ALARMS, ADVANCE_SPILL, HELD_FULL, HELD_ORDER, HELD_OUT, HELD_YIELDS, OWNER_LOOP, POST_FINISHED,
    STATE_CLOSED, STATE_CONTENT, STATE_HANDSHAKE, STATE_HEAD, STATE_IDLE, STATE_LINGER, STATE_NEW, STATE_QUEUED,
    STATE_SENDING, connection_advance, connection_attend, connection_close, connection_enter, connection_free,
    connection_give_up, connection_go_on, connection_gone, connection_handle, connection_heard, connection_is_local,
    connection_new, connection_receive, connection_refuse, connection_send_ready, connection_settle, connection_slot,
    connection_stepped, connection_t, connection_watch, list_append, list_take, listener_t, loop_look_at_clock, loop_say,
    loop_t, request_t, slot_free, slot_init,
)
from fastwsgi._buffer cimport buffer_free
from fastwsgi._journal cimport LEVEL_ERROR, LEVEL_WARNING, journal_leave, journal_share
from fastwsgi._parser cimport limits_default, parser_free
from fastwsgi._platform cimport (
    EVENT_GONE, SHUT_RDWR, SHUT_WR, WATCH_EDGE, WATCH_EXCLUSIVE, WATCH_READ, WATCH_WRITE, condition_init, event_t,
    head_load, head_take, line_load, line_store, listen, platform_accept, platform_drop_new, platform_give_up,
    platform_has_octets, platform_hear_near, platform_is_given_up, platform_is_listening, platform_reach,
    platform_wait_readable, platform_would_block, pointer_store_relaxed, poller_close, poller_has_edges, poller_open,
    poller_wait, poller_watch, pthread_cond_destroy, pthread_mutex_destroy, pthread_mutex_init, shutdown,
    sockaddr_storage, socklen_t, wake_write, word_count, word_load, word_load_relaxed, word_store, word_swap,
)
from fastwsgi._refusals cimport REFUSAL_CONTENT_TIMEOUT, REFUSAL_HEAD_TIMEOUT, REFUSAL_SPOOL_FULL
from fastwsgi._static cimport files_free
from fastwsgi._stats cimport (
    DEADLINE_HANDSHAKE, DEADLINE_HEAD, DEADLINE_IDLE, DEADLINE_LINGER, DEADLINE_NONE, DEADLINES, ROW_SERVING,
    board_row, row_is_busy, row_t,
)
from fastwsgi._trust cimport trust_free

cdef enum:
    EVENTS_MOST = 64
    ACCEPT_MOST = 64            # connections of one turn
    ACCEPT_SHARED = 8           # where other workers have the same listeners
    ACCEPT_REST = 65536         # of one listener at the end: more than any kernel queues
    IDLE_LOOKS = 8              # for a connection that can be closed to make room
    ACCEPT_PAUSE_MS = 500       # when descriptors have run out
    ACCEPT_SAY_MS = 10000       # and how often that is said
    ORDER_MS = 10               # how long requests may have waited for a thread, and no more are accepted meanwhile
    # How a new connection fares with a worker: a thread is free; none is; and requests wait for one.
    RANK_FREE = 0
    RANK_FULL = 1
    RANK_WAITING = 2
    # Of the same rank, another one is better placed to accept if it has fewer connections by so many, or by a part of its own.
    YIELD_LEAST = 4
    YIELD_PART = 16
    # The same while it serves something: then nobody gains by leaving it what it cannot see to at once.
    YIELD_BUSY_LEAST = 12
    YIELD_BUSY_PART = 3
    YIELD_MS = 1000             # at most, or until a kick; if connections wait then, the others do not accept, ...
    ANYWAY_TURNS = 1000         # ... and for so many turns that bring some it does not matter what they have
    NAP_MS = 20                 # and where no kick is heard
    ANYWAY_TURNS_NAP = 1


cdef int loop_open(loop_t* loop, bint use_poll) noexcept nogil:
    """Make it ready; 0, or -1 with errno. The memory is the caller's, zeroed but for what is borrowed."""
    loop_look_at_clock(loop)
    limits_default(&loop.limits)
    loop.last_call_ms = DRAIN_ACCEPT_LOCAL_MS
    loop.last_idle_ms = DRAIN_IDLE_MS
    loop.deadlines[<int>DEADLINE_LINGER].duration_ms = DEADLINE_LINGER_MS
    if pthread_mutex_init(&loop.lead.mutex, NULL) or condition_init(&loop.lead.keeper) or slot_init(&loop.own, 0):
        return -1
    loop.own.measures = loop.measures
    if poller_open(&loop.poller, use_poll) < 0:
        return -1
    journal_share(loop.journal)
    return 0


cdef int loop_listen(loop_t* loop, const int* fds, int count, int peers_begin, int peers_end,
                     int kick_fd) noexcept nogil:
    """Watch the listeners, as the loops of these rows of the board do; 0, or -1 with errno."""
    cdef bint shares = peers_end - peers_begin > 1
    cdef int i
    cdef listener_t* kick
    loop.listeners = <listener_t*>calloc(<size_t>count + 1, sizeof(listener_t))
    if loop.listeners == NULL:
        return -1
    loop.listener_count = count
    loop.listens = True
    loop.shares = shares
    loop.peers_begin = peers_begin
    loop.peers_end = peers_end
    loop.accept_most = ACCEPT_SHARED if shares else ACCEPT_MOST
    loop.listener_flags = WATCH_READ | WATCH_EXCLUSIVE if shares else WATCH_READ
    for i in range(count):
        loop.listeners[i].fd = fds[i]
        loop.listeners[i].index = i
    watch_listeners(loop)
    for i in range(count):
        if not loop.listeners[i].is_watched:
            return -1
    loop.kick.reader = loop.kick.writer = -1
    loop.yield_ms = NAP_MS
    loop.anyway_most = ANYWAY_TURNS_NAP
    if shares and kick_fd >= 0 and poller_has_edges(&loop.poller):
        kick = &loop.listeners[count]
        if poller_watch(&loop.poller, kick_fd, 0, WATCH_READ | WATCH_EDGE, kick) < 0:
            return -1
        kick.is_watched = True
        loop.kick.reader = loop.kick.writer = kick_fd
        loop.yield_ms = YIELD_MS
        loop.anyway_most = ANYWAY_TURNS
    return 0


cdef void loop_close(loop_t* loop) noexcept nogil:
    """Close and free everything that is left; nobody leads any more."""
    cdef connection_t* connection
    cdef request_t* request
    while loop.connections != NULL:
        connection = loop.connections
        connection_free(loop, connection)
    while loop.spare_connections != NULL:
        connection = loop.spare_connections
        loop.spare_connections = connection.next
        free(connection)
    while loop.spare_requests != NULL:
        request = loop.spare_requests
        loop.spare_requests = request.next
        parser_free(&request.parser)
        buffer_free(&request.buffer)
        free(request)
    poller_close(&loop.poller)
    slot_free(&loop.own)
    journal_leave(loop.journal)
    pthread_cond_destroy(&loop.lead.keeper)
    pthread_mutex_destroy(&loop.lead.mutex)
    trust_free(&loop.trust)
    files_free(loop.files)
    free(loop.listeners)
    free(loop.spool_directory)
    buffer_free(&loop.path)
    free(loop.health_probe.path)
    free(loop.ready_probe.path)


cdef inline bint has_found(loop_t* loop) noexcept nogil:
    """There is something that is not the loop's to do: an exchange, or a TLS step."""
    return loop.ready.first != NULL or loop.steps.first != NULL


# ---- accepting ----

cdef void watch_listener(loop_t* loop, listener_t* listener, bint on) noexcept nogil:
    # Added or removed, never changed: an exclusive one cannot be (epoll_ctl(2)).
    on = on and not listener.is_left
    if listener.is_watched != on and poller_watch(
            &loop.poller, listener.fd, loop.listener_flags if listener.is_watched else 0,
            loop.listener_flags if on else 0, listener) == 0:
        listener.is_watched = on


cdef void watch_listeners(loop_t* loop) noexcept nogil:
    """Watch all that are ours, or none where there is a reason not to; the other workers are told."""
    cdef bint on = loop.listens and not loop.withheld
    cdef bint leaves = False
    cdef bint was_watched
    cdef int i
    for i in range(loop.listener_count):
        was_watched = loop.listeners[i].is_watched
        watch_listener(loop, &loop.listeners[i], on)
        leaves |= was_watched and not loop.listeners[i].is_watched
    word_store(&loop.row.accepts, loop.listens and not loop.withheld & ~HELD_YIELDS)
    word_store(&loop.row.yields, loop.listens and loop.withheld == HELD_YIELDS)
    # Who is kept from accepting by order only is so for a moment, and all others are busy, too.
    if leaves and loop.withheld != HELD_ORDER and loop.kick.writer >= 0:
        # What waits in the kernel's queue has woken us already, and will wake nobody else.
        wake_write(&loop.kick)


cdef void withhold(loop_t* loop, int reason) noexcept nogil:
    """Do not accept, for that reason."""
    loop.withheld |= reason
    watch_listeners(loop)


cdef void accept_again(loop_t* loop, int reason) noexcept nogil:
    """That reason not to accept is gone."""
    loop.withheld &= ~reason
    watch_listeners(loop)


# ---- several workers at the same listeners (docs/decisions/0007-sharing-listeners.md) ----

cdef int64_t own_load(loop_t* loop) noexcept nogil:
    """What has to become less before a worker that yields looks at the others again."""
    return (loop.open_count + <int64_t>word_load_relaxed(&loop.row.waiting)
            + <int64_t>word_load_relaxed(&loop.row.full))


cdef inline int rank_of(row_t* row) noexcept nogil:
    if word_load_relaxed(&row.waiting):
        return RANK_WAITING
    return RANK_FULL if word_load_relaxed(&row.full) else RANK_FREE


cdef int64_t room_to_accept(loop_t* loop) noexcept nogil:
    """How many connections this worker may accept before another one is better placed; 0 or less: one is now.

    That is one with a better rank; of the same rank, one with clearly fewer connections; none where requests wait there.
    Of those with the best rank, the one with the fewest connections never finds another: so there is always one that accepts.
    """
    cdef int rank = rank_of(loop.row)
    cdef int their_rank
    cdef int64_t room = ACCEPT_SHARED
    cdef int64_t theirs, margin
    cdef row_t* row
    cdef int i
    for i in range(loop.peers_begin, loop.peers_end):
        row = board_row(loop.board, i)
        their_rank = rank_of(row)
        if (row == loop.row or word_load_relaxed(&row.state) != ROW_SERVING or not word_load(&row.accepts)
                or their_rank == RANK_WAITING or their_rank > rank):
            continue
        if their_rank < rank:
            return 0
        theirs = <int64_t>word_load_relaxed(&row.connections)
        margin = max(theirs // YIELD_PART, <int64_t>YIELD_LEAST)
        if loop.withheld & HELD_YIELDS:
            margin //= 2        # or it would be there and back with each connection
        if theirs + margin <= loop.open_count and row_is_busy(loop.board, row):
            margin = max(theirs // YIELD_BUSY_PART, <int64_t>YIELD_BUSY_LEAST)
        room = min(room, theirs + margin - loop.open_count)
    return room


cdef void call_for_help(loop_t* loop) noexcept nogil:
    """More came at once than one takes in a turn: who yields may do so no longer."""
    cdef int i
    for i in range(loop.peers_begin, loop.peers_end):
        if word_load_relaxed(&board_row(loop.board, i).yields):
            wake_write(&loop.kick)
            return


cdef bint is_served_in_order(loop_t* loop) noexcept nogil:
    """Requests wait here, and not for long yet: what comes after them is better left in the kernel's queue.

    That is one for all workers, and who is done first takes the next. Where threads are away for longer than that,
    everything is accepted: what the loop answers alone, such as probes, must not wait for them.
    """
    return (word_load_relaxed(&loop.row.waiting) > 0
            and loop.now_ms < <int64_t>word_load_relaxed(&loop.queued_since_ms) + ORDER_MS)


cdef bint has_turn_to_accept(loop_t* loop) noexcept nogil:
    """Something can be accepted: by us, as much as loop.accept_budget says then, or by another worker."""
    cdef int64_t room
    if loop.shares and loop.accept_budget == loop.accept_most:      # once in a turn
        if loop.anyway_turns:
            loop.anyway_turns -= 1
            return True
        # Before the look: what becomes less after it is then noticed.
        loop.yields_at = own_load(loop)
        room = room_to_accept(loop)
        if room <= 0:
            word_count(&loop.counters.yielded, 1)
            loop.yields_until_ms = loop.now_ms + loop.yield_ms
            withhold(loop, HELD_YIELDS)
            return False
        if is_served_in_order(loop):
            withhold(loop, HELD_ORDER)
            return False
        loop.accept_budget = <int>min(loop.accept_budget, room)
    return True


cdef bint somebody_waits(loop_t* loop) noexcept nogil:
    """A connection is in the kernel's queue."""
    cdef int i
    for i in range(loop.listener_count):
        if platform_wait_readable(loop.listeners[i].fd, -1, 0):
            return True
    return False


cdef void see_to_yield(loop_t* loop, bint is_kicked) noexcept nogil:
    """While yielding: go on accepting when it is our turn again, or when the others do not accept at all."""
    cdef bint is_over = loop.now_ms >= loop.yields_until_ms
    if not is_over and not is_kicked and own_load(loop) >= loop.yields_at:
        return
    loop.yields_at = own_load(loop)
    if room_to_accept(loop) > 0:
        accept_again(loop, HELD_YIELDS)
    elif is_over:
        if somebody_waits(loop):
            # Who is full gains little by what it accepts, and is soon somebody who waits, or free.
            loop.anyway_turns = 1 if rank_of(loop.row) == RANK_FULL else loop.anyway_most
        accept_again(loop, HELD_YIELDS)


cdef void loop_kicked(loop_t* loop) noexcept nogil:
    """Another worker does not watch the listeners any more, or has died."""
    cdef int i
    if loop.withheld & HELD_YIELDS:
        see_to_yield(loop, True)
    elif loop.listens and not loop.withheld:
        # Watched anew, since that brings an event for what waits already.
        for i in range(loop.listener_count):
            watch_listener(loop, &loop.listeners[i], False)
            watch_listener(loop, &loop.listeners[i], True)


# ---- accepting ----

cdef void say_accepting_pauses(loop_t* loop, int level, const char* text, const char* detail) noexcept nogil:
    if loop.now_ms >= loop.accept_said_ms + ACCEPT_SAY_MS or not loop.accept_said_ms:
        loop.accept_said_ms = loop.now_ms
        loop_say(loop, level, text, NULL, detail)


cdef connection_t* idle_one(loop_t* loop) noexcept nogil:
    """The connection that is idle for longest, and has nothing that waits to be received; or NULL."""
    cdef connection_t* connection = loop.deadlines[<int>DEADLINE_IDLE].first
    cdef int looks
    for looks in range(IDLE_LOOKS):
        if connection == NULL or not platform_has_octets(connection.fd):
            return connection
        connection = connection.later
    return NULL


cdef bint has_room(loop_t* loop) noexcept nogil:
    """One connection more is within --worker-connections, or one that is idle can be closed for it."""
    return loop.open_count < loop.open_most or idle_one(loop) != NULL


cdef void pause_when_full(loop_t* loop) noexcept nogil:
    """No room: go on when there is some (loop_turn)."""
    say_accepting_pauses(loop, LEVEL_WARNING,
                         b"as many connections as --worker-connections allows, and none of them idle: others wait", NULL)
    withhold(loop, HELD_FULL)


cdef void pause_accepting(loop_t* loop) noexcept nogil:
    """Out of descriptors or memory: look again later, and do not spin meanwhile."""
    say_accepting_pauses(loop, LEVEL_ERROR,
                         b"no more connections can be accepted; raise the limit of open files (ulimit -n)",
                         strerror(errno))
    loop.accept_again_ms = loop.now_ms + ACCEPT_PAUSE_MS
    withhold(loop, HELD_OUT)


cdef connection_t* accept_one(loop_t* loop, listener_t* listener) noexcept nogil:
    """The next connection that the kernel has queued; NULL when there is none, or none can be had now."""
    cdef sockaddr_storage address
    cdef socklen_t size
    cdef connection_t* connection
    cdef connection_t* makes_room = NULL
    cdef int fd
    while loop.accept_budget > 0:
        loop.accept_budget -= 1
        if loop.open_count >= loop.open_most:
            makes_room = idle_one(loop)
            if makes_room == NULL:
                if platform_wait_readable(listener.fd, -1, 0):
                    pause_when_full(loop)
                return NULL
        size = sizeof(address)
        fd = platform_accept(listener.fd, &address, &size)
        if fd >= 0:
            if loop.hears_near:
                platform_hear_near(fd, False)
            connection = connection_new(loop, fd, listener.index, &address)
            if connection == NULL:
                close(fd)
                pause_accepting(loop)
            elif makes_room != NULL:
                connection_close(loop, makes_room)
            return connection
        if platform_would_block():
            return NULL
        if errno == EMFILE or errno == ENFILE or errno == ENOMEM or errno == ENOBUFS:
            pause_accepting(loop)
            return NULL
        if errno == EINVAL or errno == EBADF or errno == ENOTSOCK:
            # One that is shared ends with the first worker that ends; perhaps before we were told.
            if (loop.listens and not word_load(&loop.draining) and not word_load(&loop.board.stopping)
                    and not platform_is_given_up(listener.fd)):
                loop_say(loop, LEVEL_ERROR, b"a listening socket was closed by somebody else", NULL, strerror(errno))
            watch_listener(loop, listener, False)
            return NULL
        # Any other error is of a connection that is lost already (accept(2), "Error handling").
    return NULL


cdef int loop_accept(loop_t* loop, listener_t* listener) noexcept nogil:
    """Accept until a request is complete, the kernel's queue is empty or the others have waited enough.

    1: come again for the same listener; 0: done with it; ADVANCE_LOST.
    """
    cdef connection_t* connection
    while True:
        connection = accept_one(loop, listener)
        if connection == NULL:
            return 0
        # The request is here already (listener.py, TCP_DEFER_ACCEPT); what is not is watched for.
        if connection_receive(loop, connection) == ADVANCE_LOST:
            return ADVANCE_LOST
        if has_found(loop):
            return 1
        if connection.state == STATE_NEW and loop.listens_until_ms:
            connection_enter(loop, connection, STATE_IDLE)


cdef int listener_event(loop_t* loop, listener_t* listener) noexcept nogil:
    """Somebody wants to connect, or kicks; ADVANCE_LOST if the lead was taken meanwhile."""
    cdef int outcome
    if not listener.is_watched:
        return 0        # not since this turn's events were taken
    if listener == &loop.listeners[loop.listener_count]:
        loop_kicked(loop)
        return 0
    if not has_turn_to_accept(loop):
        if loop.withheld == HELD_YIELDS:
            loop.accept_more = listener
            loop.accept_more_at = loop.event_index + ACCEPT_SHARED
        return 0
    outcome = loop_accept(loop, listener)
    if outcome != ADVANCE_LOST and (outcome == 1 or not loop.accept_budget):
        # There may be more: at once, or when some of the others have had their turn.
        loop.accept_more = listener
        loop.accept_more_at = loop.event_index if loop.accept_budget else loop.event_index + ACCEPT_SHARED
    return outcome


cdef inline bint accepts_more(loop_t* loop) noexcept nogil:
    """It is the turn of a listener again, amid those of the connections.

    A turn of many requests takes long: who waits to be accepted does not wait for all of them.
    """
    return loop.accept_more != NULL and loop.event_index >= loop.accept_more_at


cdef int accept_more(loop_t* loop) noexcept nogil:
    """Go on with the listener that has more; ADVANCE_LOST if the lead was taken meanwhile."""
    cdef listener_t* listener = loop.accept_more
    if loop.withheld == HELD_YIELDS:
        # The others may have caught up; their kick is heard of in the next turn only.
        if room_to_accept(loop) <= 0:
            loop.accept_more_at = loop.event_index + ACCEPT_SHARED
            return 0
        accept_again(loop, HELD_YIELDS)
    loop.accept_more = NULL
    loop_look_at_clock(loop)        # or those that come now would have waited since the turn began
    if not loop.accept_budget:
        loop.accept_budget = loop.accept_most
        if loop.shares:
            call_for_help(loop)
    return listener_event(loop, listener)


# ---- the turn ----

cdef int loop_event(loop_t* loop, event_t* event) noexcept nogil:
    """See to one event; ADVANCE_LOST if the lead was taken meanwhile."""
    cdef connection_t* connection
    if event.item >= <void*>loop.listeners and event.item <= <void*>(loop.listeners + loop.listener_count):
        return listener_event(loop, <listener_t*>event.item)
    connection = <connection_t*>event.item
    if connection.state == STATE_CLOSED:
        return 0
    if connection.owner != OWNER_LOOP:
        # Not ours to read now; whoever takes it out of `done` watches it again.
        if event.flags & EVENT_GONE:
            connection_gone(loop, connection)
            # Removed, because HUP and ERR cannot be masked and would come again and again.
            connection_watch(loop, connection, 0)
        elif event.flags & WATCH_WRITE:
            return connection_send_ready(loop, connection)
        else:
            connection_heard(loop, connection)
        return 0
    if connection.state == STATE_SENDING:
        return connection_send_ready(loop, connection)
    return connection_receive(loop, connection)


cdef int take_done(loop_t* loop) noexcept nogil:
    """Take in what came back from threads; ADVANCE_LOST if the lead was taken meanwhile."""
    cdef connection_t* connection = <connection_t*>head_take(&loop.done)
    cdef connection_t* following
    cdef connection_t* first = NULL
    cdef uint64_t why
    cdef int outcome = 0
    while connection != NULL:       # the stack has the last one first
        following = connection.next_done
        connection.next_done = first
        first = connection
        connection = following
    # The rest of it must not be on our stack only, should we go away for one of them.
    if loop.returned == NULL:
        loop.returned = first
    else:
        connection = loop.returned
        while connection.next_done != NULL:
            connection = connection.next_done
        connection.next_done = first
    while outcome != ADVANCE_LOST and loop.returned != NULL:
        connection = loop.returned
        loop.returned = connection.next_done
        why = word_swap(&connection.post, 0)
        if connection.state == STATE_CLOSED:
            continue                # revoked while it was in `done`
        if why & POST_FINISHED:
            connection.owner = OWNER_LOOP
            pointer_store_relaxed(&connection.slot, NULL)
            if connection.tls != NULL and connection.tls.is_stepping:
                outcome = connection_stepped(loop, connection)
            elif connection.state == STATE_CONTENT and connection.request.spill_error:
                connection_refuse(loop, connection, REFUSAL_SPOOL_FULL)
            elif connection.state == STATE_CONTENT:
                outcome = connection_handle(loop, connection, connection_advance(loop, connection))
            elif not connection.is_answered and connection.request != NULL and connection_is_local(loop, connection):
                # Its exchange has handed it over, or its file was looked for.
                connection_enter(loop, connection, STATE_QUEUED)
                outcome = loop.answer(loop, connection)
            else:
                outcome = connection_settle(loop, connection)
        elif connection.owner != OWNER_LOOP and connection_slot(connection) != NULL:
            connection_attend(loop, connection)
    return outcome


cdef int take_backlog(loop_t* loop) noexcept nogil:
    """Go on with the connections whose buffered requests had to wait for the others."""
    cdef connection_t* last = loop.backlog.last
    cdef connection_t* connection
    while True:
        connection = list_take(&loop.backlog)
        if connection == NULL:
            return 0
        connection.owner = OWNER_LOOP
        if connection_go_on(loop, connection) == ADVANCE_LOST:
            return ADVANCE_LOST
        if connection == last:
            return 0


cdef int take_blocking(loop_t* loop) noexcept nogil:
    """Go on with the connections whose next step may block, now that nobody waits for the GIL because of it."""
    cdef connection_t* connection
    cdef int outcome = 0
    while outcome != ADVANCE_LOST and loop.blocking.first != NULL:
        connection = list_take(&loop.blocking)
        connection.owner = OWNER_LOOP
        if connection.state == STATE_SENDING:
            outcome = connection_send_ready(loop, connection)
            if outcome != ADVANCE_LOST and connection.state == STATE_SENDING:
                connection_watch(loop, connection, WATCH_WRITE)
        elif connection.state == STATE_QUEUED:
            outcome = loop.answer(loop, connection)
        else:
            outcome = connection_handle(loop, connection, ADVANCE_SPILL)
    return outcome


cdef void expire(loop_t* loop) noexcept nogil:
    """End what has passed its deadline."""
    cdef int kind
    cdef connection_t* connection
    for kind in range(<int>DEADLINE_NONE + 1, <int>DEADLINES):
        while True:
            connection = loop.deadlines[kind].first
            if connection == NULL or connection.expires_ms > loop.now_ms:
                break
            word_count(&loop.counters.expired[kind], 1)
            if connection.owner != OWNER_LOOP:
                connection_give_up(loop, connection)
            elif connection.state == STATE_HEAD:
                connection_refuse(loop, connection, REFUSAL_HEAD_TIMEOUT)
            elif connection.state == STATE_CONTENT:
                connection_refuse(loop, connection, REFUSAL_CONTENT_TIMEOUT)
            elif connection.state in (STATE_NEW, STATE_IDLE) and platform_has_octets(connection.fd):
                connection_enter(loop, connection, STATE_IDLE)      # it has asked in this very turn
            elif connection.tls != NULL and connection.state in (STATE_NEW, STATE_IDLE):
                connection.closes = True
                connection_settle(loop, connection)     # with close_notify
            else:
                if connection.state == STATE_IDLE:
                    # It may ask in this very moment: what it sees then is the end, and the reset only behind that.
                    shutdown(connection.fd, SHUT_WR)
                # Nobody is owed an answer (RFC 9112, 9.5), but one that was not read to its end is cut visibly.
                connection.wants_reset = connection.state == STATE_SENDING
                connection_close(loop, connection)


cdef void free_closed(loop_t* loop) noexcept nogil:
    """Close and free what was given up in this turn, but for what is still in `done`."""
    cdef connection_t* last = loop.closing.last
    cdef connection_t* connection
    while loop.closing.first != NULL:
        connection = list_take(&loop.closing)
        if word_load(&connection.post):
            list_append(&loop.closing, connection)
        else:
            connection_free(loop, connection)
        if connection == last:
            return


cdef int loop_wait_ms(loop_t* loop) noexcept nogil:
    """How long the poller may wait: until the next deadline; -1: for ever."""
    cdef int64_t until = 0
    cdef int kind
    cdef connection_t* first
    for kind in range(<int>ALARMS):
        if loop.alarms[kind] and (until == 0 or loop.alarms[kind] < until):
            until = loop.alarms[kind]
    if loop.listens_until_ms and (until == 0 or loop.listens_until_ms < until):
        until = loop.listens_until_ms
    if loop.withheld & HELD_OUT and (until == 0 or loop.accept_again_ms < until):
        until = loop.accept_again_ms
    if loop.withheld & HELD_YIELDS and (until == 0 or loop.yields_until_ms < until):
        until = loop.yields_until_ms
    if loop.withheld & HELD_ORDER and (until == 0 or loop.now_ms + ORDER_MS < until):
        until = loop.now_ms + ORDER_MS
    for kind in range(<int>DEADLINE_NONE + 1, <int>DEADLINES):
        first = loop.deadlines[kind].first
        if first != NULL and (until == 0 or first.expires_ms < until):
            until = first.expires_ms
    if loop.nap_ms and (until == 0 or until > loop.now_ms + loop.nap_ms):
        return <int>loop.nap_ms
    if until == 0:
        return -1
    if until <= loop.now_ms:
        return 0
    return <int>min(until - loop.now_ms, <int64_t>3600000)


cdef void see_to_withheld(loop_t* loop) noexcept nogil:
    """Go on accepting where the reason not to is gone."""
    if loop.withheld & HELD_FULL and has_room(loop):
        accept_again(loop, HELD_FULL)
    if loop.withheld & HELD_OUT and loop.now_ms >= loop.accept_again_ms:
        accept_again(loop, HELD_OUT)
    if loop.withheld & HELD_YIELDS:
        see_to_yield(loop, False)
    if loop.withheld & HELD_ORDER and not is_served_in_order(loop):
        accept_again(loop, HELD_ORDER)


cdef int loop_turn(loop_t* loop, bint may_wait) noexcept nogil:
    """Go on with this turn's events, or begin the next turn; returns at the first complete request or TLS step.

    may_wait: sleep in the poller when nothing is ready (never with the GIL held).
    """
    cdef int timeout, outcome
    loop.may_block = may_wait
    if has_found(loop):
        return TURN_READY
    while True:
        if accepts_more(loop):
            outcome = accept_more(loop)
        elif loop.event_index < loop.event_count:
            loop.event_index += 1
            outcome = loop_event(loop, &loop.events[loop.event_index - 1])
        else:
            break
        if outcome == ADVANCE_LOST:
            return TURN_LOST
        if has_found(loop):
            return TURN_READY
    # After a turn of one event another one is unlikely to be there: not worth a look with the GIL held.
    if not may_wait and (loop.blocking.first != NULL or (loop.event_count < 2 and loop.backlog.first == NULL)
                         or loop.is_inside):
        return TURN_IDLE
    if loop.blocking.first != NULL:
        if take_blocking(loop) == ADVANCE_LOST:
            return TURN_LOST
        if has_found(loop):
            return TURN_READY
    expire(loop)
    if loop.steps.first != NULL:
        return TURN_READY
    free_closed(loop)
    if loop.connections == NULL and not loop.listens and word_load_relaxed(&loop.draining):
        return TURN_DRAINED
    if loop.withheld:
        see_to_withheld(loop)
    timeout = loop_wait_ms(loop) if may_wait and loop.backlog.first == NULL and not loop.is_inside else 0
    if timeout != 0:
        # Announce the sleep, look once more, sleep: whoever pushes or calls looks at the announcement after it.
        line_store(&loop.lead.sleeping, 1)
        if head_load(&loop.done) != NULL or loop.returned != NULL or line_load(&loop.lead.attention):
            timeout = 0
        loop.event_count = poller_wait(&loop.poller, loop.events, EVENTS_MOST, timeout)
        line_store(&loop.lead.sleeping, 0)
    else:
        loop.event_count = poller_wait(&loop.poller, loop.events, EVENTS_MOST, 0)
    loop.event_index = 0
    if loop.withheld == HELD_YIELDS:
        loop.accept_more_at = ACCEPT_SHARED
    else:
        loop.accept_more = NULL
    loop.accept_budget = loop.accept_most
    loop_look_at_clock(loop)
    if line_load(&loop.lead.attention):
        line_store(&loop.lead.attention, 0)
    if loop.listens_until_ms and loop.now_ms >= loop.listens_until_ms:
        stop_listening(loop, False)
    if (head_load(&loop.done) != NULL or loop.returned != NULL) and take_done(loop) == ADVANCE_LOST:
        return TURN_LOST
    if loop.backlog.first != NULL and take_backlog(loop) == ADVANCE_LOST:
        return TURN_LOST
    if has_found(loop):
        return TURN_READY
    return TURN_AGAIN if loop.event_count else TURN_IDLE


cdef void loop_taken_over(loop_t* loop) noexcept nogil:
    """The lead has changed hands: old events are dropped, since level-triggered ones come again; a kick does not."""
    cdef int i
    cdef bint is_kicked = False
    for i in range(loop.event_index, loop.event_count):
        is_kicked |= loop.events[i].item == <void*>&loop.listeners[loop.listener_count]
    loop.event_index = 0
    loop.event_count = 0
    loop.accept_more = NULL
    if is_kicked:
        loop_kicked(loop)
    # Whoever called for attention may have been answered by a leader that went away before it looked.
    line_store(&loop.lead.attention, 1)


# ---- the end ----

cdef void stop_hearing(loop_t* loop) noexcept nogil:
    """Let handshakes that have begun come to their end, and nothing new begin, for all processes that share a listener."""
    cdef connection_t* connection
    cdef int i, fd, reach
    loop.shares = False         # all of them end
    accept_again(loop, HELD_YIELDS | HELD_ORDER)
    loop.listens_until_ms = loop.now_ms
    for i in range(loop.listener_count):
        fd = loop.listeners[i].fd
        if loop.listeners[i].is_left:
            continue
        platform_give_up(fd)
        reach = platform_reach(fd)
        if reach < 0:
            continue
        if platform_drop_new(fd) < 0:
            # Filters may be forbidden; what is accepted from now on, here or by others, is to hear everybody.
            if platform_hear_near(fd, True) < 0:
                continue
            loop.hears_near = True
        loop.listens_until_ms = max(loop.listens_until_ms,
                                    loop.now_ms + (loop.last_call_ms if reach else DRAIN_ACCEPT_MS))
    if loop.hears_near:
        connection = loop.connections
        while connection != NULL:
            if connection.state != STATE_CLOSED:
                platform_hear_near(connection.fd, False)
            connection = connection.after


cdef void leave_listeners(loop_t* loop, bint leaves) noexcept nogil:
    """Accept nothing more at those that others go on with, and leave what comes to them."""
    cdef listener_t* listener
    cdef int i
    loop.listens = False
    for i in range(loop.listener_count):
        listener = &loop.listeners[i]
        # Nobody goes on with one that a reload has given up.
        listener.is_left = listener.is_borrowed or (
            leaves and not listener.is_own and not platform_is_given_up(listener.fd))
        loop.listens |= not listener.is_left
    if not loop.listens:
        loop.withheld = 0
    watch_listeners(loop)


cdef void loop_drain(loop_t* loop, bint leaves) noexcept nogil:
    """Begin to end: idle connections have a moment left, and what the listeners bring is accepted until it ends.

    leaves: only this worker ends, and what its shared listeners bring is left to the others. Those that are borrowed
    are left in any case: the next server goes on with them.
    """
    cdef connection_t* connection = loop.connections
    cdef connection_t* following
    loop_look_at_clock(loop)
    loop.deadlines[<int>DEADLINE_IDLE].duration_ms = loop.last_idle_ms
    loop.deadlines[<int>DEADLINE_LINGER].duration_ms = DRAIN_LINGER_MS
    loop.deadlines[<int>DEADLINE_HANDSHAKE].duration_ms = min(
        loop.deadlines[<int>DEADLINE_HANDSHAKE].duration_ms, <int64_t>DRAIN_LINGER_MS)
    leave_listeners(loop, leaves)
    if loop.listens:
        stop_hearing(loop)
    while connection != NULL:
        following = connection.after
        if connection.state == STATE_NEW or connection.state == STATE_IDLE:
            connection_enter(loop, connection, STATE_IDLE)
        elif connection.state == STATE_LINGER:
            connection_enter(loop, connection, STATE_LINGER)
        elif connection.state == STATE_HANDSHAKE:
            connection.expires_ms = min(connection.expires_ms, loop.now_ms + DRAIN_LINGER_MS)
        connection = following


cdef void accept_rest(loop_t* loop, listener_t* listener) noexcept nogil:
    """Accept all that the kernel has queued, or can be had now; the next turn sees what they bring."""
    cdef connection_t* connection
    loop.accept_budget = ACCEPT_REST
    loop.open_most = ACCEPT_REST * 2        # those who are there already are answered
    while True:
        connection = accept_one(loop, listener)
        if connection == NULL:
            return
        connection_enter(loop, connection, STATE_IDLE)
        connection_watch(loop, connection, WATCH_READ)


cdef void stop_listening(loop_t* loop, bint is_hurried) noexcept nogil:
    """Accept what is queued and nothing after it: from here on clients are refused, not left waiting.

    Where descriptors have run out, that is tried again when some may be free, unless is_hurried.
    """
    cdef int i
    loop.withheld = 0
    for i in range(loop.listener_count):
        if loop.listeners[i].is_left:
            continue
        # Where the kernel could not be told to stop hearing. One that another worker has shut down would listen again.
        if platform_is_listening(loop.listeners[i].fd):
            listen(loop.listeners[i].fd, 0)
        accept_rest(loop, &loop.listeners[i])
    if loop.withheld & HELD_OUT and not is_hurried:
        loop.listens_until_ms = loop.accept_again_ms
        return
    loop.listens = False
    loop.listens_until_ms = 0
    watch_listeners(loop)
    for i in range(loop.listener_count):
        if loop.listeners[i].is_left:
            continue
        shutdown(loop.listeners[i].fd, SHUT_RDWR)
        # The queue of a unix socket outlives that; of TCP nothing is left.
        accept_rest(loop, &loop.listeners[i])
    loop.withheld = 0
    loop.accept_budget = 0


cdef void loop_hurry(loop_t* loop) noexcept nogil:
    """The grace is over: close what the loop owns."""
    cdef connection_t* connection
    cdef connection_t* following
    if loop.listens:
        stop_listening(loop, True)
    connection = loop.connections
    while connection != NULL:
        following = connection.after
        if connection.owner == OWNER_LOOP and connection.state != STATE_CLOSED:
            connection.wants_reset = connection.state == STATE_SENDING
            connection_close(loop, connection)
        connection = following
