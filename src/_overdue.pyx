"""Exchanges that take too long: told of, taken away from their threads, and the threads given up that do not return.

All by the leader, between turns, without the GIL: a thread that holds it for ever stops nothing of this. What needs the
GIL, the stack of the thread and the exception in it, is the main thread's, who is told through the slot.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from fastwsgi._accesslog cimport record_t
from fastwsgi._connection cimport (
    ALARM_OVERDUE, OWNER_LOOP, SLOT_LOST, SLOT_MASK, SLOT_REVOKED, STATE_EXCHANGE, STATE_QUEUED, TELL_ENDED,
    TELL_SLOW, TELL_TIMEOUT, TRANSMIT_LOST, connection_close, connection_count, connection_enter, connection_flush,
    connection_log, connection_refuse,
    connection_settle, connection_t, exchange_times, loop_remind, loop_say, loop_t, put_request, record_client,
    slot_borrow, slot_moved, slot_quiet, slot_t, slot_waiting,
)
from fastwsgi._journal cimport LEVEL_WARNING
from fastwsgi._platform cimport (
    line_load, line_replace, line_store, platform_now_ns, pointer_store_relaxed, wake_write, word_add, word_count,
    word_load, word_load_relaxed, word_store, word_store_relaxed,
)
from fastwsgi._refusals cimport REFUSAL_REVOKED, REFUSAL_TIMEOUT


cdef int64_t pause_ms(const overdue_t* overdue) noexcept nogil:
    """Between two looks."""
    cdef int64_t pause = LOOK_MOST_MS
    if overdue.timeout_ms:
        pause = min(pause, overdue.timeout_ms // LOOKS)
    if overdue.slow_ms:
        pause = min(pause, overdue.slow_ms // LOOKS)
    return max(pause, 1)


cdef void overdue_arm(loop_t* loop, const overdue_t* overdue) noexcept nogil:
    """Exchanges may be running on other threads: look after them."""
    loop_remind(loop, ALARM_OVERDUE, loop.now_ms + pause_ms(overdue))


cdef void write_told(slot_t* slot, connection_t* connection, int64_t age_ms) noexcept nogil:
    """Method, target and client; with the slot held, and read by the main thread only after `tells`."""
    cdef const char* client
    cdef size_t client_size
    cdef record_t record
    cdef char* at
    record_client(&record, connection)
    client = record.peer
    client_size = record.peer_size
    if not client_size:
        client = b"a unix socket"
        client_size = 13
    at = put_request(slot.told, connection.request)
    memcpy(at, b" from ", 6)
    memcpy(at + 6, client, client_size)
    at += 6 + client_size
    if record.id_size:
        memcpy(at, b", request id ", 13)
        memcpy(at + 13, record.id, record.id_size)
        at += 13 + record.id_size
    at[0] = 0
    slot.told_age_ms = age_ms


cdef bint tell_slow(loop_t* loop, slot_t* slot, uint64_t number) noexcept nogil:
    """Have the main thread say where an exchange is; False if that has to wait."""
    cdef bint is_told = False
    if word_load(&slot.tells) or not slot_borrow(slot):
        return False
    if slot.connection != NULL and slot.number == number:
        write_told(slot, slot.connection, loop.now_ms - slot.watched_since_ms)
        is_told = True
    slot_quiet(slot)
    if is_told:
        word_store(&slot.tells, number << 2 | TELL_SLOW)
        wake_write(&loop.journal.wake)
    return True


cdef bint exchange_revoke(loop_t* loop, slot_t* slot, uint64_t number, int reason, uint64_t tells=0) noexcept nogil:
    """Take an exchange away from its thread: 503 if nothing has left, or else a reset; number 0: whichever it is.

    With tells, a TELL_ word, the main thread says so, and interrupts what runs.

    One whose answer is complete, while its close() is running, ends as it would have. False if the thread touches the
    connection at this moment: the leader has to look again.
    """
    cdef connection_t* connection
    cdef int64_t now_ns = platform_now_ns()
    cdef int64_t began_ns
    cdef uint64_t duration_ns = 0
    cdef bint is_told = False
    if not slot_borrow(slot):
        return line_load(&slot.word) & SLOT_MASK >= SLOT_REVOKED
    connection = slot.connection
    if connection == NULL or (number and number != slot.number):
        slot_quiet(slot)
        return True
    number = slot.number
    began_ns = <int64_t>word_load_relaxed(&slot.shown.began_ns)
    if began_ns:
        duration_ns = <uint64_t>(now_ns - began_ns)
    exchange_times(loop.measures, connection.request, <int64_t>word_load_relaxed(&slot.shown.bound_ns),
                   began_ns if began_ns else now_ns, now_ns, 0)
    if slot_waiting(slot) and connection_flush(loop, connection, slot) == TRANSMIT_LOST:
        connection.wants_reset = True
    slot.connection = NULL
    pointer_store_relaxed(&connection.slot, NULL)
    connection.owner = OWNER_LOOP
    connection.state = STATE_EXCHANGE       # for the log: from the queue it came without the leader's hand
    slot.revoked_ms = loop.now_ms
    word_store_relaxed(&slot.shown.taken, number)
    word_count(&loop.counters.revoked, 1)
    if reason == REFUSAL_TIMEOUT:
        word_count(&loop.counters.timeouts, 1)
    if tells:
        is_told = not word_load(&slot.tells)
        if is_told:
            write_told(slot, connection, loop.now_ms - slot.watched_since_ms)
    if slot.head_sent and not connection.request.is_handed_over:
        connection_count(loop, connection, slot.status)
        connection_log(loop, connection, slot.status, slot.sent, duration_ns)
    if connection.request.is_handed_over:
        # Only its close() is still running.
        connection.closes = True
        connection.lingers = True
        connection_enter(loop, connection, STATE_QUEUED)
        loop.may_block = False      # this is no turn, where the lead may be lost
        loop.answer(loop, connection)
    elif slot.has_ended:
        connection.is_answered = True
        connection.closes = True
        connection.lingers = True
        connection_settle(loop, connection)
    elif slot.head_sent:
        loop_say(loop, LEVEL_WARNING, b"an exchange was taken away from its thread and the connection reset",
                 connection, NULL)
        connection.wants_reset = True
        connection_close(loop, connection)
    else:
        connection_refuse(loop, connection, reason, duration_ns)
    line_store(&slot.word, number << 2 | SLOT_REVOKED)
    slot_moved(slot)
    loop_remind(loop, ALARM_OVERDUE, loop.now_ms + LOST_MS)
    if tells:
        word_store(&slot.to_raise, number)
        if is_told:
            word_store(&slot.tells, number << 2 | tells)
        wake_write(&loop.journal.wake)
    return True


cdef void give_up_thread(loop_t* loop, overdue_t* overdue, slot_t* slot, uint64_t number) noexcept nogil:
    """It has not come back from an exchange that was taken away from it: the main thread starts another one."""
    # The thread takes REVOKED away when it comes back; one of us is first.
    if line_replace(&slot.word, number << 2 | SLOT_REVOKED, number << 2 | SLOT_LOST):
        word_count(&loop.counters.lost, 1)
        word_add(&overdue.fresh, 1)
        wake_write(&loop.journal.wake)


cdef void see(slot_t* slot, uint64_t number, int64_t now_ms) noexcept nogil:
    """How far an exchange is: what it does for its client is progress, and so is waiting for the client."""
    cdef uint64_t blocks = word_load_relaxed(&slot.blocks)
    cdef int64_t began_ms
    if number != slot.watched_number:
        # Its thread may still wait for the GIL. Rounded up, as now_ms is rounded down: nothing ends before its time.
        began_ms = (<int64_t>word_load_relaxed(&slot.shown.began_ns) + 999999) // 1000000
        slot.watched_number = number
        slot.watched_since_ms = slot.progress_ms = began_ms if began_ms else now_ms
    elif blocks != slot.watched_blocks or word_load(&slot.waits):
        slot.progress_ms = now_ms
    slot.watched_blocks = blocks


cdef void ask_for_samples(loop_t* loop, overdue_t* overdue) noexcept nogil:
    """Have the main thread sample stacks; where the GIL is not to be had, it does so when it gets it."""
    if loop.now_ms - overdue.sampled_ms < max(overdue.sample_ms, <int64_t>word_load_relaxed(&overdue.pause_ms)):
        return
    overdue.sampled_ms = loop.now_ms
    word_store(&overdue.samples, 1)
    wake_write(&loop.journal.wake)


cdef bint overdue_look(loop_t* loop, overdue_t* overdue) noexcept nogil:
    """See to all exchanges; True while there are some, and the next look is due."""
    cdef slot_t* slot
    cdef uint64_t word, number
    cdef int64_t pause = pause_ms(overdue)
    cdef bint some = False
    cdef int64_t oldest_ms = 0
    cdef int i
    for i in range(1, slots_end(overdue)):
        slot = &overdue.slots[i]
        word = line_load(&slot.word)
        number = word >> 2
        if not word_load(&slot.shown.number) or word & SLOT_MASK == SLOT_LOST:
            continue
        some = True
        if word & SLOT_MASK == SLOT_REVOKED:
            # One that waits for the GIL is not lost.
            if loop.now_ms - slot.revoked_ms >= LOST_MS and word_load_relaxed(&slot.shown.began_ns):
                give_up_thread(loop, overdue, slot, number)
            continue
        see(slot, number, loop.now_ms)
        oldest_ms = max(oldest_ms, loop.now_ms - slot.watched_since_ms)
        if word_load_relaxed(&slot.shown.condemned) == number:
            if not exchange_revoke(loop, slot, number, REFUSAL_REVOKED, TELL_ENDED):
                pause = REVOKE_AGAIN_MS
        elif overdue.timeout_ms and loop.now_ms - slot.progress_ms >= overdue.timeout_ms:
            if not exchange_revoke(loop, slot, number, REFUSAL_TIMEOUT, TELL_TIMEOUT):
                pause = REVOKE_AGAIN_MS
        elif overdue.slow_ms and slot.told_number != number and loop.now_ms - slot.watched_since_ms >= overdue.slow_ms:
            if tell_slow(loop, slot, number):
                slot.told_number = number
    if some:
        loop.alarms[<int>ALARM_OVERDUE] = loop.now_ms + pause
    if overdue.sample_ms and oldest_ms >= overdue.sample_ms:
        ask_for_samples(loop, overdue)
    return some
