"""The threads of a worker over one loop.

Exactly one of the application threads and the keeper leads: it waits, accepts, receives, parses, sends and expires
for all, and, if it is an application thread, runs complete requests itself, there and then. When it stays away for a
tick, the keeper takes the lead and gives it to a thread that is free, or leads alone while all are in the application.
A worker with several loops has a crew for each; they share listeners and a journal, and the first one speaks for all.
The GIL line runs through this module: the crew_ functions are below it, the class at the end is above.
"""

import _thread
import os
import resource
import sys
import threading
from contextlib import suppress
from functools import partial

from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset, strcpy, strlen
from posix.unistd cimport close, usleep

from fastwsgi._accesslog cimport (
    LOGGED_APPLICATION, LOGGED_CONTENT, LOGGED_GIL, LOGGED_HEAD, LOGGED_QUEUE, LOGGED_SENDING, LOGGED_WHOLE, LogFormat,
    record_t,
)
from fastwsgi._buffer cimport buffer_free
from fastwsgi._connection cimport (
    ADVANCE_READY, ALARM_OVERDUE, ALARM_QUEUE, ALARM_SPENT, ALARM_STOP, HALF_CLOSED_MS, OUT_MOST, OWNER_LOOP,
    OWNER_QUEUE, PIPELINE_MOST, POST_FINISHED, SLOT_BUSY, SLOT_LOST, SLOT_MASK, SLOT_REVOKED, STATE_EXCHANGE,
    STATE_QUEUED, TELL_ENDED, TELL_MASK, TELL_SLOW, TRANSMIT_LOST, connection_advance, connection_attend,
    connection_close, connection_drop, connection_enter, connection_flush, connection_identify, connection_is_local,
    connection_keep_watch, connection_list_t, connection_lost, connection_make_plain, connection_new, connection_next,
    connection_post, connection_refuse, connection_settle, connection_stepped, connection_t, connection_watch,
    exchange_times, list_append, list_take, loop_look_at_clock, loop_remind, loop_say, loop_t, probe_t, record_client,
    request_t, slot_borrow, slot_claim, slot_free, slot_init, slot_log, slot_quiet, slot_rest, slot_t, slot_waiting,
)
from fastwsgi._environ cimport environ_template
from fastwsgi._encoding cimport Encodings
from fastwsgi._exchange cimport Context, exchange_run
from fastwsgi._exchange import FileWrapper
from fastwsgi._guard cimport Guard
from fastwsgi._journal cimport LEVEL_ERROR, LEVEL_WARNING, journal_end, journal_is_full, journal_open, journal_take
from fastwsgi._lead cimport LEAD_AWAY, lead_call, lead_leave, lead_next, lead_owner, lead_return
from fastwsgi._local cimport local_answer
from fastwsgi._loop cimport (
    TURN_DRAINED, TURN_IDLE, TURN_LOST, loop_close, loop_drain, loop_hurry, loop_listen, loop_open,
    loop_taken_over, loop_turn,
)
from fastwsgi._outbox cimport outbox_is_empty
from fastwsgi._overdue cimport SAMPLE_MS, exchange_revoke, overdue_arm, overdue_look, slots_end
from fastwsgi._parser cimport KNOWN_X_REQUEST_ID, field_t, parser_t
from fastwsgi._platform cimport (
    WATCH_READ, atomic_head_t, condition_init, condition_wait, head_load, head_take, line_load, line_replace,
    line_store, platform_clock_ns, platform_name_thread, platform_now_ns, platform_own_clock, platform_thread_cpu_ns,
    platform_wait_readable, platform_write_some, pointer_store_relaxed, poller_close, pthread_cond_destroy,
    pthread_cond_signal, pthread_cond_wait, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock,
    sockaddr_storage, wake_drain, wake_write, word_add, word_count, word_load, word_load_relaxed, word_replace,
    word_store, word_store_relaxed, word_store_release, word_swap,
)
from fastwsgi._refusals cimport REFUSAL_QUEUE_TIMEOUT, REFUSAL_REVOKED, REFUSAL_STOPPING
from fastwsgi._requestid cimport id_source_set
from fastwsgi._response cimport TAKES_PATH, TAKES_TARGET
from fastwsgi._router cimport Router, router_t
from fastwsgi._static cimport Site, files_t
from fastwsgi._stats cimport (
    DEADLINE_CONTENT, DEADLINE_HANDSHAKE, DEADLINE_HEAD, DEADLINE_IDLE, DEADLINE_SEND, PHASE_APPLICATION, STACK_SHOWN,
    WANTS_NOTHING, WANTS_REQUESTS, Row, count_answer, measures_t, private_row, shown_line, shown_stack, shown_t,
    shown_text, threads_most,
)
from fastwsgi._tls cimport Tls, tls_free, tls_step, tls_t
from fastwsgi._trust cimport trust_set
from fastwsgi import gil, mounts
from fastwsgi._stacks import stack_text, stacks
from fastwsgi.errors import RequestTimeout
from fastwsgi.greening import original
from fastwsgi.logs import wants_colours
from fastwsgi.rewrite import rewritten

cimport cython

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, object exception)

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size) noexcept

cdef enum:
    WRITE_MS = 100              # that the reader of the access log may take for a piece
    LINES_PAUSE_US = 10000      # so that the access log is written a hundred times a second at most
    TELL_MS = 1000              # until it is said how many log records were left out
    HURRY_MS = 5                # between two looks at what is still held by a thread

cdef int64_t BEGIN_NS = 10000000000     # that is waited for threads to begin; they do at once

# An application that lets gevent patch `threading`, before it imports us or later, shall not turn ours into greenlets.
start_new_thread = original(_thread, "start_new_thread")
# Python (3.13) can wait for ever at its end for a thread that is at its own at that moment, where there is no GIL.
start_joinable_thread = original(_thread, "start_joinable_thread") if gil.IS_FREE_THREADED else None
get_ident = original(_thread, "get_ident")


# ---- averages ----

cdef uint8_t cell_of(connection_t* connection) noexcept nogil:
    """The cell of a request: a hash of listener, method, route, and the first path segment of its application."""
    cdef request_t* request = connection.request
    cdef const char* path = request.buffer.data + request.start + request.parser.path.start
    cdef uint64_t mix = <uint64_t>connection.listener * 31 + request.parser.method
    cdef size_t i
    cdef size_t size = request.parser.path.length
    cdef size_t start = 1
    if request.route != NULL:
        # What is beneath a mounted application is what differs; other spellings of its path have cells of their own.
        mix = mix * 31 + request.route.index
        start += request.route.script_length
    size = min(size, start + 31)
    for i in range(start, size):
        if path[i] == c"/":
            break
        mix = mix * 131 + <uint8_t>path[i]
    return <uint8_t>((mix * <uint64_t>0x9E3779B97F4A7C15) >> 56)


cdef inline bint cell_is_slow(cell_t* cell) noexcept nogil:
    return word_load_relaxed(&cell.wall_ns) > WAITS_NS


cdef inline bint cell_waits(cell_t* cell) noexcept nogil:
    """Its exchanges take long, and neither they nor those beside them need most of that for computing."""
    return cell_is_slow(cell) and word_load_relaxed(&cell.busy_ns) * 2 < word_load_relaxed(&cell.wall_ns)


cdef inline void average(atomic_word_t* value, int64_t latest) noexcept nogil:
    cdef int64_t before = <int64_t>word_load_relaxed(value)
    word_store_relaxed(value, <uint64_t>(before + (latest - before) // 8))


cdef int others_run(crew_t* crew, slot_t* slot) noexcept nogil:
    """How many other threads are in the application."""
    cdef int count = 0
    cdef int i
    for i in range(1, slots_end(&crew.overdue)):
        if (i != slot.index and word_load_relaxed(&crew.slots[i].shown.number)
                and line_load(&crew.slots[i].word) & SLOT_MASK != SLOT_LOST):
            count += 1
    return count


cdef void measure_start(crew_t* crew, slot_t* slot, bint had_gil) noexcept nogil:
    """An exchange begins, with the GIL; had_gil: since it was bound."""
    word_store_relaxed(&slot.shown.began_ns, word_load_relaxed(&slot.shown.bound_ns) if had_gil
                       else <uint64_t>platform_now_ns())
    slot.began_cpu_ns = platform_thread_cpu_ns() if cell_is_slow(&crew.cells[slot.cell]) else 0


cdef void measure_took(slot_t* slot) noexcept nogil:
    """An exchange has ended: how long it took, with the GIL."""
    slot.ended_ns = platform_now_ns()
    slot.took_ns = slot.ended_ns - <int64_t>word_load_relaxed(&slot.shown.began_ns)
    word_store_relaxed(&slot.shown.began_ns, 0)


cdef void measure_end(crew_t* crew, slot_t* slot) noexcept nogil:
    cdef cell_t* cell = &crew.cells[slot.cell]
    measure_took(slot)
    average(&cell.wall_ns, slot.took_ns)
    if slot.began_cpu_ns:
        # Those who compute side by side wait for each other's GIL: that looks as if they waited for something else.
        average(&cell.busy_ns, (platform_thread_cpu_ns() - slot.began_cpu_ns) * (1 + others_run(crew, slot)))


cdef inline void count_exchange(slot_t* slot, const request_t* request) noexcept nogil:
    """Count the exchange of a slot, which is over and was not taken away from its thread."""
    cdef measures_t* measures = slot.measures
    cdef int64_t ended_ns = slot.ended_ns
    if slot.is_lost:
        slot.status = 499
    if not request.is_handed_over:      # or else the loop counts it when it answers
        count_answer(measures, request.parser.method, slot.status)
    exchange_times(measures, request, <int64_t>word_load_relaxed(&slot.shown.bound_ns), ended_ns - slot.took_ns,
                   ended_ns, slot.sending_ns)


cdef void log_exchange(loop_t* loop, slot_t* slot, connection_t* connection) noexcept nogil:
    """The access log line of one that was counted, if there is a log."""
    cdef const request_t* request = connection.request
    cdef int64_t bound_ns, began_ns
    cdef record_t record
    if loop.access == NULL or request.is_handed_over or slot.is_unlogged:
        return
    record.data = request.buffer.data + request.start
    record.parser = &request.parser
    record_client(&record, connection)
    record.head = slot.head.lines.data
    record.head_size = slot.head.lines.size
    record.values = slot.values.data
    record.values_size = slot.values.size
    record.status = slot.status
    record.content_bytes = slot.sent
    if loop.access.needs_times:
        bound_ns = <int64_t>word_load_relaxed(&slot.shown.bound_ns)
        began_ns = slot.ended_ns - slot.took_ns
        record.times_ns[<int>LOGGED_WHOLE] = <uint64_t>slot.took_ns
        record.times_ns[<int>LOGGED_HEAD] = <uint64_t>(request.head_ns - request.began_ns)
        record.times_ns[<int>LOGGED_CONTENT] = <uint64_t>(request.ready_ns - request.head_ns)
        record.times_ns[<int>LOGGED_QUEUE] = <uint64_t>(bound_ns - request.ready_ns)
        record.times_ns[<int>LOGGED_GIL] = <uint64_t>(began_ns - bound_ns)
        record.times_ns[<int>LOGGED_APPLICATION] = <uint64_t>(slot.took_ns - slot.sending_ns)
        record.times_ns[<int>LOGGED_SENDING] = <uint64_t>slot.sending_ns
    slot_log(loop, slot, &record, slot.ended_ns)


# ---- the queue, the free threads, the lead (with the mutex held where it says "locked") ----

cdef inline void crew_lock(crew_t* crew) noexcept nogil:
    if pthread_mutex_trylock(&crew.loop.lead.mutex):
        crew_lock_patiently(crew)


cdef void crew_lock_patiently(crew_t* crew) noexcept nogil:
    """Another thread has it: how long that takes is counted."""
    cdef int64_t began_ns = platform_now_ns()
    pthread_mutex_lock(&crew.loop.lead.mutex)
    word_count(&crew.loop.counters.lock_waits, 1)
    word_count(&crew.loop.counters.lock_wait_ns, platform_now_ns() - began_ns)


cdef inline void crew_unlock(crew_t* crew) noexcept nogil:
    pthread_mutex_unlock(&crew.loop.lead.mutex)


cdef inline bint keeper_leads(crew_t* crew) noexcept nogil:
    return lead_owner(line_load(&crew.loop.lead.word)) == crew.keeper


cdef inline bint queue_waits(crew_t* crew) noexcept nogil:
    """The next request of the queue is of a kind that waits: worth a thread of its own.

    Others are left to the leader: threads that take them would only fight it for the GIL, and its turn is over soon;
    if it is not, the lead will be taken from it.
    """
    return crew.queue.first != NULL and cell_waits(&crew.cells[cell_of(crew.queue.first)])


cdef void locked_call_for_queue(crew_t* crew) noexcept nogil:
    """Requests wait in the queue and nobody waits for the GIL: see that somebody takes the next."""
    if crew.queue.first == NULL or word_load(&crew.gil_wanted) or word_load(&crew.held):
        return
    if crew.free_first != NULL and queue_waits(crew):
        pthread_cond_signal(&crew.free_first.turn)
    elif not keeper_leads(crew):
        # The leader may be asleep in the poller.
        lead_call(&crew.loop.lead, &crew.loop.poller)


cdef inline void locked_show_queue(crew_t* crew) noexcept nogil:
    """Let the loop know since when the first of the queue waits."""
    if crew.queue.first != NULL:
        word_store_relaxed(&crew.loop.queued_since_ms, <uint64_t>crew.queue.first.queued_ms)


cdef void crew_queue_ready(crew_t* crew) noexcept nogil:
    """The leader cannot run its ready requests now: they wait in the queue for any thread."""
    cdef connection_t* connection
    cdef int count = 0
    if crew.loop.ready.first == NULL:
        return
    crew_lock(crew)
    while True:
        connection = list_take(&crew.loop.ready)
        if connection == NULL:
            break
        connection.queued_ms = crew.loop.now_ms
        connection.expires_ms = crew.loop.now_ms + crew.queue_ms
        if word_load_relaxed(&connection.gone):
            # The client left while a TLS step was made for it.
            connection.expires_ms = min(connection.expires_ms, crew.loop.now_ms + HALF_CLOSED_MS)
        loop_remind(&crew.loop, ALARM_QUEUE, connection.expires_ms)
        connection_keep_watch(&crew.loop, connection)
        list_append(&crew.queue, connection)
        count += 1
    overdue_arm(&crew.loop, &crew.overdue)
    locked_show_queue(crew)
    word_store(&crew.loop.row.waiting, word_load(&crew.loop.row.waiting) + <uint64_t>count)
    word_count(&crew.loop.counters.queued, count)
    locked_call_for_queue(crew)
    crew_unlock(crew)


cdef void crew_leave_steps(crew_t* crew) noexcept nogil:
    """The leader cannot make its TLS steps now: they are the stepper's."""
    cdef connection_t* connection
    if crew.loop.steps.first == NULL:
        return
    crew_lock(crew)
    while crew.loop.steps.first != NULL:
        connection = list_take(&crew.loop.steps)
        list_append(&crew.steps, connection)
    pthread_cond_signal(&crew.stepper)
    crew_unlock(crew)


cdef connection_t* crew_await_step(crew_t* crew) noexcept nogil:
    """The stepper's: the next connection; NULL if there is something in loop.spent, or the crew has ended."""
    cdef connection_t* connection
    crew_lock(crew)
    while crew.steps.first == NULL and not crew.spent_waits and not crew.has_ended:
        pthread_cond_wait(&crew.stepper, &crew.loop.lead.mutex)
    crew.spent_waits = False
    connection = list_take(&crew.steps)
    crew_unlock(crew)
    return connection


cdef void crew_see_to_spent(crew_t* crew) noexcept nogil:
    """Have the stepper let go of what nobody else with the GIL has let go of meanwhile."""
    crew.loop.alarms[<int>ALARM_SPENT] = 0
    if head_load(&crew.loop.spent) != NULL:
        crew_lock(crew)
        crew.spent_waits = True
        pthread_cond_signal(&crew.stepper)
        crew_unlock(crew)


cdef connection_t* locked_take_queued(crew_t* crew) noexcept nogil:
    cdef connection_t* connection = list_take(&crew.queue)
    if connection != NULL:
        locked_show_queue(crew)
        word_store(&crew.loop.row.waiting, word_load(&crew.loop.row.waiting) - 1)
    return connection


cdef void locked_be_free(crew_t* crew, slot_t* slot) noexcept nogil:
    if not slot.is_free:
        slot.is_free = True
        slot.next_free = crew.free_first
        crew.free_first = slot
        word_store(&crew.free, word_load(&crew.free) + 1)


cdef void locked_not_free(crew_t* crew, slot_t* slot) noexcept nogil:
    cdef slot_t** link = &crew.free_first
    if slot.is_free:
        while link[0] != slot:
            link = &link[0].next_free
        link[0] = slot.next_free
        slot.is_free = False
        word_store(&crew.free, word_load(&crew.free) - 1)


cdef void crew_begin_thread(crew_t* crew, slot_t* slot) noexcept nogil:
    """A thread is there: free, and only then counted, for the keeper looks at both without the mutex."""
    crew_lock(crew)
    locked_be_free(crew, slot)
    word_add(&crew.begun, 1)
    pthread_cond_signal(&crew.beginning)
    crew_unlock(crew)


cdef void crew_await_threads(crew_t* crew) noexcept nogil:
    """Who says that it serves has its threads: others leave connections to it."""
    cdef int64_t until_ns = platform_now_ns() + BEGIN_NS
    crew_lock(crew)
    while word_load(&crew.begun) < <uint64_t>crew.threads and not crew.has_ended and platform_now_ns() < until_ns:
        condition_wait(&crew.beginning, &crew.loop.lead.mutex, BEGIN_NS)
    crew_unlock(crew)


cdef void locked_give_lead(crew_t* crew, bint to_keeper_too) noexcept nogil:
    """The leader gives the lead to the thread that became free last, or else to the keeper."""
    cdef slot_t* heir = crew.free_first
    cdef uint64_t word = line_load(&crew.loop.lead.word)
    if heir != NULL:
        locked_not_free(crew, heir)
        line_store(&crew.loop.lead.word, lead_next(word, <uint64_t>heir.index))
        pthread_cond_signal(&heir.turn)
    elif to_keeper_too:
        line_store(&crew.loop.lead.word, lead_next(word, crew.keeper))
        pthread_cond_signal(&crew.loop.lead.keeper)


cdef void crew_has_ended(crew_t* crew) noexcept nogil:
    if word_replace(&crew.ended, 0, 1):
        word_add(&crew.common.going, -1)


cdef inline bint all_have_ended(crew_t* crew) noexcept nogil:
    """All crews of the worker have."""
    return not word_load(&crew.common.going)


cdef void crew_end(crew_t* crew) noexcept nogil:
    """Everything is drained: send all threads home."""
    cdef int i
    crew_lock(crew)
    crew.has_ended = True
    crew_has_ended(crew)
    for i in range(1, slots_end(&crew.overdue)):
        pthread_cond_signal(&crew.slots[i].turn)
    pthread_cond_signal(&crew.loop.lead.keeper)
    pthread_cond_signal(&crew.stepper)
    pthread_cond_signal(&crew.beginning)
    crew_unlock(crew)
    wake_write(&crew.loop.journal.wake)


# ---- what the leader sees to between turns ----

cdef void crew_refuse_queued(crew_t* crew) noexcept nogil:
    cdef connection_t* connection
    crew_queue_ready(crew)
    while True:
        crew_lock(crew)
        connection = locked_take_queued(crew)
        crew_unlock(crew)
        if connection == NULL:
            return
        connection.owner = OWNER_LOOP
        connection_refuse(&crew.loop, connection, REFUSAL_STOPPING)


cdef void crew_sift_queue(crew_t* crew) noexcept nogil:
    """Requests that waited too long for a thread are answered with 503, those whose client has left are dropped."""
    cdef loop_t* loop = &crew.loop
    cdef connection_list_t staying, leaving
    cdef connection_t* connection
    cdef uint64_t count = 0
    memset(&staying, 0, sizeof(staying))
    memset(&leaving, 0, sizeof(leaving))
    loop.alarms[<int>ALARM_QUEUE] = 0
    crew_lock(crew)
    while True:
        connection = list_take(&crew.queue)
        if connection == NULL:
            break
        if connection.expires_ms <= loop.now_ms:
            list_append(&leaving, connection)
        else:
            list_append(&staying, connection)
            count += 1
            loop_remind(loop, ALARM_QUEUE, connection.expires_ms)
    crew.queue = staying
    locked_show_queue(crew)
    word_store(&crew.loop.row.waiting, count)
    crew_unlock(crew)
    while True:
        connection = list_take(&leaving)
        if connection == NULL:
            return
        connection.owner = OWNER_LOOP
        if word_load_relaxed(&connection.gone):
            connection_drop(loop, connection)
        else:
            connection_refuse(loop, connection, REFUSAL_QUEUE_TIMEOUT)


cdef void crew_look_overdue(crew_t* crew) noexcept nogil:
    """Look after the exchanges of other threads when it is time, and no more when there are none."""
    cdef loop_t* loop = &crew.loop
    if loop.now_ms >= loop.alarms[<int>ALARM_OVERDUE]:
        loop.alarms[<int>ALARM_OVERDUE] = 0
        if overdue_look(loop, &crew.overdue):
            return
    elif others_run(crew, &loop.own):
        return
    # Under the mutex: who takes from the queue is running by the time it is empty.
    crew_lock(crew)
    loop.alarms[<int>ALARM_OVERDUE] = 0
    if crew.queue.first != NULL or others_run(crew, &loop.own):
        overdue_arm(loop, &crew.overdue)
    crew_unlock(crew)


cdef inline void crew_see_to_alarms(crew_t* crew) noexcept nogil:
    """What the leader sees to between turns, when it is time."""
    cdef loop_t* loop = &crew.loop
    if loop.alarms[<int>ALARM_QUEUE] and loop.now_ms >= loop.alarms[<int>ALARM_QUEUE]:
        crew_sift_queue(crew)
    if loop.alarms[<int>ALARM_OVERDUE]:
        crew_look_overdue(crew)
    if loop.alarms[<int>ALARM_SPENT] and loop.now_ms >= loop.alarms[<int>ALARM_SPENT]:
        crew_see_to_spent(crew)


cdef void crew_look(crew_t* crew) noexcept nogil:
    """What the leader sees to between turns: stop, the end of the grace, exchanges to be revoked."""
    cdef loop_t* loop = &crew.loop
    cdef slot_t* slot
    cdef int i
    cdef bint is_pending = False
    cdef uint64_t number
    cdef uint64_t stop = word_load(&crew.stop)
    if word_load(&crew.revokes) and word_swap(&crew.revokes, 0):
        for i in range(1, slots_end(&crew.overdue)):
            slot = &crew.slots[i]
            number = word_load(&slot.to_revoke)
            if not number:
                continue
            if exchange_revoke(loop, slot, number, REFUSAL_REVOKED):
                word_replace(&slot.to_revoke, number, 0)
            else:
                is_pending = True
        if is_pending:
            word_store(&crew.revokes, 1)
        loop.alarms[<int>ALARM_STOP] = loop.now_ms + HURRY_MS if is_pending else crew.grace_ends_ms
    if not stop:
        return
    if not crew.drains:
        crew.drains = True
        loop_drain(loop, stop == STOP_LEAVE)
        crew.grace_ends_ms = loop.now_ms + <int64_t>word_load(&crew.grace_ms)
        loop.alarms[<int>ALARM_STOP] = crew.grace_ends_ms
    elif loop.now_ms + <int64_t>word_load(&crew.grace_ms) < crew.grace_ends_ms:
        crew.grace_ends_ms = loop.now_ms + <int64_t>word_load(&crew.grace_ms)
        loop.alarms[<int>ALARM_STOP] = crew.grace_ends_ms
    if loop.now_ms >= crew.grace_ends_ms:
        if not crew.grace_is_over:
            crew.grace_is_over = True
            if loop.connections != NULL and word_load(&crew.grace_ms):
                loop_say(loop, LEVEL_WARNING, b"the grace is over: what still runs is cut (--graceful-timeout)",
                         NULL, NULL)
        crew_refuse_queued(crew)
        for i in range(1, slots_end(&crew.overdue)):
            exchange_revoke(loop, &crew.slots[i], 0, REFUSAL_REVOKED)
        loop_hurry(loop)
        loop.alarms[<int>ALARM_STOP] = loop.now_ms + HURRY_MS


# ---- an application thread ----

cdef void show(slot_t* slot, connection_t* connection) noexcept nogil:
    """Let others see what a thread serves from now on."""
    cdef shown_t* shown = slot.shown
    cdef request_t* request = connection.request
    cdef parser_t* parser = &request.parser
    cdef const char* data = request.buffer.data + request.start
    cdef field_t* field
    cdef record_t client
    record_client(&client, connection)
    if not client.id_size and parser.known_seen & (<uint64_t>1 << <int>KNOWN_X_REQUEST_ID):
        field = parser.fields
        while field.known != KNOWN_X_REQUEST_ID:
            field += 1
        client.id = data + field.value.start
        client.id_size = field.value.length
    # Method and target stand side by side, and the rest of the request line behind them.
    shown_text(shown, data + parser.method_name.start,
               parser.target.start + parser.target.length - parser.method_name.start, client.peer, client.peer_size,
               client.id, client.id_size)
    word_store_relaxed(&shown.phase, PHASE_APPLICATION)
    word_store_relaxed(&shown.bound_ns, <uint64_t>platform_now_ns())
    word_count(&shown.requests, 1)
    word_store_release(&shown.number, slot.number)


cdef void count_request(crew_t* crew) noexcept nogil:
    """One more was handed to the application: say once when that is enough."""
    word_add(&crew.common.handed, 1)
    if word_load(&crew.common.handed) >= crew.max_requests and word_replace(
            &crew.common.row.wants, <int>WANTS_NOTHING, <int>WANTS_REQUESTS):
        wake_write(&crew.loop.journal.wake)


cdef void crew_bind(crew_t* crew, slot_t* slot, connection_t* connection) noexcept nogil:
    """The request of a connection becomes the exchange of a slot."""
    # The leader may hold it for a moment, for a connection that it had before.
    slot_claim(slot)
    pointer_store_relaxed(&connection.slot, slot)
    slot.connection = connection
    slot.head_sent = slot.has_ended = False
    connection.requests += 1
    slot.number += 1
    slot.cell = cell_of(connection)
    if crew.loop.ids.is_on:
        connection_identify(&crew.loop, connection, slot)
    show(slot, connection)
    line_store(&slot.word, slot.number << 2)
    if crew.max_requests:
        count_request(crew)


cdef int crew_begin(crew_t* crew, slot_t* slot, connection_t* connection) noexcept nogil:
    """The leader begins an exchange: here and now, or, if it will wait, after passing the lead on."""
    cdef cell_t* cell
    cdef uint64_t count
    crew_bind(crew, slot, connection)
    connection.state = STATE_EXCHANGE
    cell = &crew.cells[slot.cell]
    if cell_waits(cell):
        count = word_load_relaxed(&cell.count)
        word_store_relaxed(&cell.count, count + 1)
        if count % SAMPLE:
            if slot_waiting(slot):
                # Nobody will send for us from here on; a client that is lost shows at the next block.
                connection_flush(&crew.loop, connection, slot)
                if connection.outbox != NULL and not outbox_is_empty(connection.outbox):
                    connection_attend(&crew.loop, connection)
            connection_keep_watch(&crew.loop, connection)
            slot.away = 0
            word_count(&crew.loop.counters.passed, 1)
            crew_lock(crew)
            locked_give_lead(crew, True)
            crew_unlock(crew)
            return WORK_RUN
    slot.away = lead_leave(&crew.loop.lead)
    return WORK_RUN


cdef connection_t* crew_next(crew_t* crew) noexcept nogil:
    """The next request for the leader itself; NULL: somebody else has taken it."""
    cdef connection_t* connection
    if not word_load_relaxed(&crew.loop.row.waiting):
        return list_take(&crew.loop.ready)
    # In order: what is in the queue came first.
    crew_queue_ready(crew)
    crew_lock(crew)
    connection = locked_take_queued(crew)
    crew_unlock(crew)
    return connection


cdef int crew_lead(crew_t* crew, slot_t* slot, bint has_gil) noexcept nogil:
    """Lead until there is an exchange to run, the lead is lost, or (with the GIL) there is nothing to do."""
    cdef loop_t* loop = &crew.loop
    cdef connection_t* connection
    cdef int turn
    while True:
        if word_load_relaxed(&crew.stop) or word_load_relaxed(&crew.revokes):
            crew_look(crew)
        crew_see_to_alarms(crew)
        if loop.steps.first != NULL:
            # Before any exchange: handshakes and probes need nothing else.
            if has_gil or word_replace(&crew.gil_wanted, 0, 1):
                slot.stepping = list_take(&loop.steps)
                slot.away = lead_leave(&loop.lead)
                return WORK_STEP
            crew_leave_steps(crew)
        if word_load_relaxed(&crew.loop.row.waiting) or loop.ready.first != NULL:
            if has_gil or word_replace(&crew.gil_wanted, 0, 1):
                connection = crew_next(crew)
                if connection != NULL:
                    return crew_begin(crew, slot, connection)
                if not has_gil:
                    word_store(&crew.gil_wanted, 0)
            else:
                # One waits for the GIL already; more of them would only fight for it.
                crew_queue_ready(crew)
        turn = loop_turn(loop, not has_gil)
        if turn == TURN_LOST:
            return WORK_NONE
        if turn == TURN_DRAINED:
            crew_end(crew)
            return WORK_END
        if turn == TURN_IDLE and has_gil:
            return WORK_NONE


cdef int crew_follow(crew_t* crew, slot_t* slot) noexcept nogil:
    """Wait for the lead, or for a request that nobody else takes."""
    cdef int work
    crew_lock(crew)
    while True:
        if crew.has_ended:
            work = WORK_END
            break
        if lead_owner(line_load(&crew.loop.lead.word)) == <uint64_t>slot.index:
            work = WORK_LEAD
            break
        if not word_load(&crew.held) and queue_waits(crew) and word_replace(&crew.gil_wanted, 0, 1):
            crew_bind(crew, slot, locked_take_queued(crew))
            slot.away = 0
            work = WORK_RUN
            break
        locked_be_free(crew, slot)
        if crew.queue.first != NULL or keeper_leads(crew):
            lead_call(&crew.loop.lead, &crew.loop.poller)
        pthread_cond_wait(&slot.turn, &crew.loop.lead.mutex)
    locked_not_free(crew, slot)
    crew_unlock(crew)
    return work


cdef int crew_wait(crew_t* crew, slot_t* slot, bint leads) noexcept nogil:
    """Without the GIL: lead or follow until there is an exchange to run, or the crew has ended."""
    cdef int work
    while True:
        work = crew_lead(crew, slot, False) if leads else crew_follow(crew, slot)
        if work != WORK_NONE and work != WORK_LEAD:
            return work
        leads = work == WORK_LEAD
        if leads:
            loop_taken_over(&crew.loop)
            overdue_arm(&crew.loop, &crew.overdue)


cdef void crew_has_gil(crew_t* crew) noexcept nogil:
    """A thread that waited for the GIL to begin has it: the next one may wait."""
    word_store(&crew.gil_wanted, 0)
    if word_load(&crew.loop.row.waiting):
        crew_lock(crew)
        locked_call_for_queue(crew)
        crew_unlock(crew)


cdef bint crew_give_back(crew_t* crew, slot_t* slot) noexcept nogil:
    """The exchange of a thread that does not lead is over: its connection returns through `done`.

    False if the thread was given up meanwhile: another one has its place.
    """
    cdef bint has_place = True
    cdef connection_t* connection
    if slot_claim(slot):
        connection = slot.connection
        connection.is_answered = not connection.request.is_handed_over
        count_exchange(slot, connection.request)
        log_exchange(&crew.loop, slot, connection)
        if slot_waiting(slot) and connection_flush(&crew.loop, connection, slot) == TRANSMIT_LOST:
            connection_lost(&crew.loop, connection)
        slot.connection = NULL
        slot_quiet(slot)
        connection_post(&crew.loop, connection, POST_FINISHED)
    else:
        # Revoked: the connection is the leader's, and what was still to be sent is dropped.
        slot.out.size = slot.out_sent = 0
        slot.number += 1
        has_place = line_replace(&slot.word, (slot.number - 1) << 2 | SLOT_REVOKED, slot.number << 2)
        if not has_place:
            line_store(&slot.word, slot.number << 2)
    return has_place


cdef int crew_after_leading(crew_t* crew, slot_t* slot) noexcept nogil:
    """The exchange is over and the lead was never lost: WORK_RUN for a pipelined one, else its answer is sent."""
    cdef loop_t* loop = &crew.loop
    cdef connection_t* connection = slot.connection
    cdef request_t* request = connection.request
    cdef bint is_handed_over = request.is_handed_over
    slot.connection = NULL
    pointer_store_relaxed(&connection.slot, NULL)
    connection.owner = OWNER_LOOP
    connection.is_answered = not is_handed_over
    count_exchange(slot, request)
    log_exchange(loop, slot, connection)
    loop.may_block = False      # with the GIL held
    if (not is_handed_over and request.start + request.end < request.buffer.size and connection.outbox == NULL
            and not connection.closes and connection.inline_count < PIPELINE_MOST and slot_waiting(slot) < OUT_MOST):
        connection_next(loop, connection)
        connection.inline_count += 1
        if (connection_advance(loop, connection) == ADVANCE_READY and not word_load_relaxed(&crew.loop.row.waiting)
                and not connection_is_local(loop, connection)):
            # Pipelined: its answer leaves together with this one.
            request.ready_ns = loop.now_ns
            connection_enter(loop, connection, STATE_QUEUED)
            connection.owner = OWNER_QUEUE
            return crew_begin(crew, slot, connection)
    if slot_waiting(slot) and connection_flush(loop, connection, slot) == TRANSMIT_LOST:
        word_add(&loop.counters.lost_clients, 1)
        connection_close(loop, connection)
    elif is_handed_over:
        connection_enter(loop, connection, STATE_QUEUED)
        loop.answer(loop, connection)
    else:
        connection_settle(loop, connection)
    return WORK_NONE


cdef int crew_after_step(crew_t* crew, slot_t* slot) noexcept nogil:
    """After a TLS step, with the GIL: what it has brought, if the lead was not lost."""
    cdef connection_t* connection = slot.stepping
    cdef bint leads = lead_return(&crew.loop.lead, slot.away)
    slot.stepping = NULL
    slot.away = 0
    if not leads:
        connection_post(&crew.loop, connection, POST_FINISHED)
        return WORK_NONE
    crew.loop.may_block = False
    connection_stepped(&crew.loop, connection)
    return crew_lead(crew, slot, True)


cdef int crew_after(crew_t* crew, slot_t* slot) noexcept nogil:
    """After an exchange, with the GIL: the next one, if there is one without waiting."""
    cdef bint leads = slot.away and lead_return(&crew.loop.lead, slot.away)
    cdef int work = WORK_NONE
    word_store_relaxed(&slot.shown.number, 0)
    slot.away = 0
    if leads:
        work = crew_after_leading(crew, slot)
        return crew_lead(crew, slot, True) if work == WORK_NONE else work
    if not crew_give_back(crew, slot):
        return WORK_END
    if not word_load(&crew.loop.row.waiting):
        return WORK_NONE
    crew_lock(crew)
    # One that computes goes on with the next of its kind, if it is alone: that spares it the lead and the keeper a turn.
    if queue_waits(crew) or (
            crew.queue.first != NULL and keeper_leads(crew) and cell_is_slow(&crew.cells[cell_of(crew.queue.first)])
            and not others_run(crew, slot)):
        crew_bind(crew, slot, locked_take_queued(crew))
        work = WORK_RUN
    crew_unlock(crew)
    return work


# ---- the keeper ----

cdef void keeper_took(crew_t* crew, slot_t* slot) noexcept nogil:
    """The lead was taken from the thread of a slot."""
    loop_taken_over(&crew.loop)
    crew_took(crew, slot)


cdef void crew_took(crew_t* crew, slot_t* slot) noexcept nogil:
    """The lead was taken from a slot: send what waited there for the end of its exchange."""
    cdef loop_t* loop = &crew.loop
    cdef connection_t* connection
    word_count(&loop.counters.taken, 1)
    # If the thread is at it, it will see that the lead is gone and send by itself; and then that it was missed.
    if not slot_borrow(slot):
        word_store(&slot.missed, 1)
        if not slot_borrow(slot):
            return
    connection = slot.connection
    if connection != NULL and slot_waiting(slot):
        # A client that is lost shows at the next block.
        connection_flush(loop, connection, slot)
        if connection.outbox != NULL and not outbox_is_empty(connection.outbox):
            connection_attend(loop, connection)
    if connection != NULL:
        connection_keep_watch(loop, connection)
    slot_quiet(slot)


cdef void keeper_see(slot_t* slot, int64_t now) noexcept nogil:
    """Remember how much CPU time the thread of a slot has used up to now."""
    slot.seen_number = line_load(&slot.word) >> 2
    slot.seen_ns = now
    slot.seen_cpu_ns = platform_clock_ns(slot.clock)


cdef bint keeper_spares(crew_t* crew, slot_t* slot, int64_t now) noexcept nogil:
    """The thread of a slot computes, and has not done so for long: another one would only fight it for the GIL.

    Two threads that both compute take the GIL from each other whenever one lets go of it for a moment, as every call
    of a database does, and each time costs two switches. So a computing exchange has HOLD_NS to itself; one that
    waits, as its CPU clock shows, is not spared for longer than a look.
    """
    cdef int64_t began_ns = <int64_t>word_load_relaxed(&slot.shown.began_ns)
    cdef int64_t cpu_ns
    cdef bint computes = True       # until the next look tells
    if not began_ns or now - began_ns > HOLD_NS:
        return False
    if slot.seen_number == line_load(&slot.word) >> 2:
        if now - slot.seen_ns < crew.tick_ns // 2:
            return True
        cpu_ns = platform_clock_ns(slot.clock) - slot.seen_cpu_ns
        computes = cpu_ns * 2 > now - slot.seen_ns
    keeper_see(slot, now)
    return computes


cdef bint keeper_holds(crew_t* crew) noexcept nogil:
    """A thread computes that is to be spared."""
    cdef int64_t now = platform_now_ns()
    cdef bint holds = False
    cdef int i
    for i in range(1, slots_end(&crew.overdue)):
        if word_load_relaxed(&crew.slots[i].shown.number):
            holds |= keeper_spares(crew, &crew.slots[i], now)
    return holds


cdef void keeper_lead(crew_t* crew) noexcept nogil:
    """Lead while every thread is in the application, or the one that is computes."""
    cdef bint is_over = False
    cdef bint has_free, have_begun
    loop_taken_over(&crew.loop)
    overdue_arm(&crew.loop, &crew.overdue)
    while not is_over:
        crew.loop.nap_ms = 0
        have_begun = word_load(&crew.begun) >= <uint64_t>crew.threads
        has_free = word_load(&crew.free) > 0
        word_store_relaxed(&crew.loop.row.full, have_begun and not has_free)
        if has_free:
            word_store(&crew.held, keeper_holds(crew))
            if word_load(&crew.held):
                crew.loop.nap_ms = HOLD_NAP_MS
            else:
                crew_lock(crew)
                locked_give_lead(crew, False)
                is_over = not keeper_leads(crew)
                crew_unlock(crew)
                if is_over:
                    return
        else:
            word_store(&crew.held, 0)
        crew_look(crew)
        crew_queue_ready(crew)
        crew_leave_steps(crew)
        crew_see_to_alarms(crew)
        if loop_turn(&crew.loop, True) == TURN_DRAINED:
            word_store(&crew.held, 0)
            crew_end(crew)
            return


cdef bint keeper_is_due(crew_t* crew, uint64_t word, uint64_t seen, int64_t seen_ns, int64_t now) noexcept nogil:
    """The leader has been away for a tick: in its exchange, or on the way to it since the keeper looked last.

    One that computes is on its way back, and has what comes meanwhile done sooner than anybody else.
    """
    cdef slot_t* slot
    cdef int64_t began_ns
    if not word & LEAD_AWAY:
        return False
    slot = &crew.slots[lead_owner(word)]
    began_ns = <int64_t>word_load_relaxed(&slot.shown.began_ns)
    if began_ns and now - began_ns >= crew.tick_ns:
        return not keeper_spares(crew, slot, now)
    return word == seen and now - seen_ns >= crew.tick_ns and not keeper_spares(crew, slot, now)


cdef void crew_keep(crew_t* crew) noexcept nogil:
    """The keeper: looks after the leader while there is traffic, and takes the lead from one that stays away.

    Looks are a tick apart, and up to four while no leader stays away for long: each costs the leader a bit of its core.
    """
    cdef uint64_t word, seen = 0
    cdef int64_t now, seen_ns = 0, pause = crew.tick_ns
    cdef int idle = 0, calm = 0
    cdef uint64_t myself = crew.keeper
    crew_lock(crew)
    while not crew.has_ended:
        word = line_load(&crew.loop.lead.word)
        now = platform_now_ns()
        if keeper_is_due(crew, word, seen, seen_ns, now) and line_replace(&crew.loop.lead.word, word,
                                                                          lead_next(word, myself)):
            crew_unlock(crew)
            keeper_took(crew, &crew.slots[lead_owner(word)])
            keeper_lead(crew)
            crew_lock(crew)
            idle = 0
            calm = max(calm - CALM_LOSS, 0)
            continue
        if lead_owner(word) == myself:
            crew_unlock(crew)
            keeper_lead(crew)
            crew_lock(crew)
            idle = 0
            calm = max(calm - CALM_LOSS, 0)
            continue
        if word != seen:
            seen = word
            seen_ns = now
            idle = 0
            if calm < CALM_LOOKS * 2:
                calm += 1
            pause = crew.tick_ns << (calm // CALM_LOOKS)
            if word & LEAD_AWAY:
                keeper_see(&crew.slots[lead_owner(word)], now)
                if not word_load_relaxed(&crew.slots[lead_owner(word)].shown.began_ns):
                    pause = crew.tick_ns        # not in an exchange: it takes a second look to tell for how long
        elif not word & LEAD_AWAY:
            idle += 1
        if idle >= IDLE_TICKS:
            line_store(&crew.loop.lead.parked, 1)
            # A leader goes away and then looks at `parked`; one of us sees the other.
            if line_load(&crew.loop.lead.word) == seen:
                pthread_cond_wait(&crew.loop.lead.keeper, &crew.loop.lead.mutex)
            line_store(&crew.loop.lead.parked, 0)
            idle = calm = 0
            pause = crew.tick_ns
        else:
            condition_wait(&crew.loop.lead.keeper, &crew.loop.lead.mutex, pause)
    crew_unlock(crew)


# ---- above the GIL line ----

cdef crew_t* crew_new(int threads, Row row) except NULL:
    cdef crew_t* crew = NULL
    if posix_memalign(<void**>&crew, 64, sizeof(crew_t)) or crew == NULL:
        raise MemoryError
    memset(crew, 0, sizeof(crew_t))
    crew.threads = threads
    crew.most = threads_most(threads)
    crew.keeper = <uint64_t>(crew.most + 1)
    crew.tick_ns = TICK_NS
    if posix_memalign(<void**>&crew.slots, 64, <size_t>(crew.most + 1) * sizeof(slot_t)) or crew.slots == NULL:
        free(crew)
        raise MemoryError
    if condition_init(&crew.stepper) or condition_init(&crew.beginning):
        raise MemoryError
    crew.overdue.slots = crew.slots
    crew.loop.board = row.board.board
    crew.loop.row = row.row
    crew.loop.counters = &row.row.counters
    crew.loop.measures = &row.row.measures
    return crew


cdef int crew_use_slots(crew_t* crew, Row row, int last, int measured) except -1:
    """Make slots ready, up to this one; all those behind the one that is measured last count in the same place."""
    cdef slot_t* slot
    cdef int i
    for i in range(crew.ready_slots, last + 1):
        slot = &crew.slots[i]
        if slot_init(slot, i) < 0:
            raise MemoryError
        slot.head.takes = crew.takes
        if i:
            slot.shown = &row.shown[i - 1]
            slot.measures = &row.measures[min(i, measured) - 1]
        crew.ready_slots = i + 1
    if <uint64_t>last > word_load(&row.row.slots):
        word_store(&row.row.measured, <uint64_t>min(last, measured))
        word_store(&row.row.slots, <uint64_t>last)
    return 0


cdef char* text_copy(bytes text) except NULL:
    cdef char* copy = <char*>malloc(<size_t>len(text) + 1)
    if copy == NULL:
        raise MemoryError
    strcpy(copy, text)
    return copy


cdef int probe_set(probe_t* probe, object path) except -1:
    """A path that the loop answers by itself, or None."""
    if path is not None:
        probe.path = text_copy(path.encode())
        probe.size = strlen(probe.path)
    return 0


cdef int open_most() except -1:
    """As many connections as a worker may hold: four fifths of the descriptors, 50,000 at most."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 50000 if files == resource.RLIM_INFINITY else min(50000, max(files * 4 // 5, 1))


cdef bytes CUT = b"  ...\n"


cdef str why_not_written(int error):
    return "nobody reads it fast enough" if error in (0, EINTR, ETIMEDOUT) else os.strerror(error)


cdef void let_go(atomic_head_t* spent) noexcept:
    """Free what connections have left that are gone."""
    cdef tls_t* tls = <tls_t*>head_take(spent)
    cdef tls_t* following
    while tls != NULL:
        following = tls.next
        tls_free(tls)
        tls = following


def secure_port(listeners):
    """The port of the first listener that has TLS; 443 if none of them has a port."""
    for listener in listeners:
        name = listener.socket.getsockname()
        if listener.is_tls and isinstance(name, tuple):
            return name[1]
    return 443


def server_name(listener):
    """SERVER_NAME and SERVER_PORT for a listening socket: never empty (PEP 3333)."""
    name = listener.getsockname()
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]        # RFC 3875, 4.1.14
        return host, str(name[1])
    return "localhost", "80"


@cython.final
cdef class Common:
    """What all crews of a worker have together; the journal ends with the last loop that has it."""

    def __cinit__(self):
        if journal_open(&self.common.journal) < 0:
            raise OSError(errno, "the event loop could not be opened: no descriptors left?")

    def __dealloc__(self):
        journal_end(&self.common.journal)


@cython.no_gc_clear      # the row has to be there until the end: the core writes to it
cdef class Crew:
    """The threads of a worker over one loop: the one class of the core that the Python side starts."""

    def __cinit__(self):
        self.is_closed = True
        self.kick_fd = -1
        memset(&self.lines, 0, sizeof(self.lines))
        memset(&self.records, 0, sizeof(self.records))

    def __init__(self, app, listeners, settings, log, int access_fd=-1, Row row=None, int kick_fd=-1,
                 bytes line_start=b"", mounted=(), guards=(), tls=None, bint has_others=False, int loops=1,
                 Common common=None):
        """Make ready to serve an application at listeners (listener.py); line_start: of each access log line.

        mounted: the applications of routes, in the order of mounts.targets; app is None if these have all. guards: what
        stands before each route of mounts.plan. tls: its `context` is for the connections of listeners that are `is_tls`.

        row: of a board that others have too, cleared; without it the worker is alone. If there are others, all have
        the same listeners (but for those that are `is_own`), and kick_fd, an eventfd for all of them that is never read, lets
        each hear when another one does not accept any more. has_others: what wsgi.multiprocess says.

        loops: of this worker. Each has a crew with its part of the threads; this one is the first and speaks for all, or
        it is made by the first, which gives it what they have in common.
        """
        import tempfile

        from fastwsgi import __version__, compression
        cdef int threads, i
        cdef int* fds
        cdef loop_t* loop
        cdef bint is_first = common is None
        if self.crew != NULL:
            raise RuntimeError("a crew is made once")
        self.others = []
        self.ending = []
        self.listeners = [listener.socket for listener in listeners]
        self.log = log
        self.access_fd = access_fd
        self.row = private_row((settings.concurrency - 1) // loops + 1, loops) if row is None else row
        threads = settings.concurrency // loops + (self.row.loop < settings.concurrency % loops)
        if loops > 1 or self.row.board.loops > 1:
            threads = min(threads, self.row.board.threads)
        self.thread_ids = {}
        self.told_lost = {}
        self.timeout = settings.timeout
        self.watched_fd = -1
        self.context = Context()
        plan, plain_plan = mounts.plans(settings, app is not None, secure_port(listeners) if tls is not None else 0)
        applications = [app, *mounted]
        self.context.applications = [
            rewritten(applications[number], rewriting) for number, rewriting in plan.applications
        ]
        self.context.log = log
        errors = sys.stderr or open(os.devnull, "w")
        for listener in listeners:
            name, port = server_name(listener.socket)
            self.context.templates.append(environ_template(
                name, port, threads * loops > 1, has_others, errors, FileWrapper, f"fastwsgi/{__version__}",
                tls is not None and listener.is_tls, settings.early_hints))
        self.context.hints_early = settings.early_hints
        if tls is not None:
            self.context.tls = Tls(tls, self.context.templates)
        if self.row.board.threads < threads:
            raise ValueError(f"a row of {self.row.board.threads} threads is not enough for {threads}")
        self.crew = crew_new(threads, self.row)
        self.use_slots()
        loop = self.context.loop = &self.crew.loop
        self.common = Common() if is_first else common
        self.crew.common = &self.common.common
        loop.journal = &self.common.common.journal
        if is_first:
            self.common.common.row = self.row.row
        if loop_open(loop, settings.poller == "poll") < 0:
            raise OSError(errno, "the event loop could not be opened: no descriptors left?")
        self.is_closed = False
        word_add(&self.common.common.going, 1)
        loop.answer = local_answer
        loop.deadlines[<int>DEADLINE_IDLE].duration_ms = <int64_t>(settings.keep_alive * 1000)
        loop.deadlines[<int>DEADLINE_HEAD].duration_ms = <int64_t>(settings.header_timeout * 1000)
        loop.deadlines[<int>DEADLINE_HANDSHAKE].duration_ms = <int64_t>(settings.header_timeout * 1000)
        loop.deadlines[<int>DEADLINE_CONTENT].duration_ms = <int64_t>(settings.body_timeout * 1000)
        loop.deadlines[<int>DEADLINE_SEND].duration_ms = <int64_t>(settings.send_timeout * 1000)
        self.crew.overdue.timeout_ms = <int64_t>(settings.timeout * 1000)
        self.crew.overdue.slow_ms = <int64_t>(settings.log_slow * 1000)
        # Where somebody sees them.
        self.crew.overdue.sample_ms = 0 if row is None else SAMPLE_MS
        self.crew.queue_ms = <int64_t>(settings.queue_timeout * 1000)
        # Of the worker, and so a part of that.
        loop.open_most = ((settings.worker_connections or open_most()) - 1) // loops + 1
        loop.content_rate = settings.body_min_rate
        loop.keep_alive_requests = settings.keep_alive_requests
        trust_set(&loop.trust, settings)
        self.routers = []
        loop.router = loop.plain_router = self._route(plan, guards)
        if self.routers:
            self.context.router = <Router>self.routers[0]
        if plain_plan is not plan:
            # The same routes but for their fields, or none that has a guard.
            loop.plain_router = self._route(plain_plan, guards if settings.tls_redirect == "off" else ())
        self.serve_files(settings, is_first)
        id_source_set(&loop.ids, settings.request_id)
        loop.limits.request_line = settings.limit_request_line
        loop.limits.fields = settings.limit_request_fields
        loop.limits.field_size = settings.limit_request_field_size
        loop.limits.head_size = settings.limit_request_head
        loop.limits.trailer_size = settings.limit_request_trailer
        loop.limits.chunk_overhead = settings.limit_chunk_overhead
        loop.content_most = settings.limit_request_body or UINT64_MAX
        # The parser refuses what is too much for every route.
        loop.limits.content = loop.content_most
        for guard in guards:
            if guard is not None and (<Guard>guard).guard.has_content_most:
                loop.limits.content = max(loop.limits.content, (<Guard>guard).guard.content_most)
        # Not less than a receive buffer can hold.
        loop.request_memory = <size_t>max(settings.request_buffer, 128 * 1024)
        # Enough for a producer that waits to have something to wait for.
        loop.response_memory = <size_t>max(settings.response_buffer, 64 * 1024)
        loop.response_spool = <uint64_t>settings.response_spool
        loop.spool_directory = text_copy(tempfile.gettempdir().encode(sys.getfilesystemencoding(), "surrogateescape"))
        probe_set(&loop.health_probe, settings.health)
        probe_set(&loop.ready_probe, settings.ready)
        loop.tells_times = settings.server_timing
        if settings.compress:
            self.context.encodings = Encodings(compression.makers(settings.compress), settings.compress_types,
                                               settings.compress_min_length)
        loop.has_probes = loop.health_probe.path != NULL or loop.ready_probe.path != NULL
        if access_fd >= 0:
            self.context.access = LogFormat(settings.access_logformat, is_json=settings.log_format == "json",
                                            prefix=line_start,
                                            has_colours=settings.access_logfile == "-" and wants_colours(access_fd))
            self.context.logs_access = True
            loop.access = &self.context.access.format
        fds = <int*>calloc(<size_t>max(len(self.listeners), 1), sizeof(int))
        if fds == NULL:
            raise MemoryError
        for i in range(len(self.listeners)):
            fds[i] = self.listeners[i].fileno()
        if loops > 1 and kick_fd < 0 and hasattr(os, "eventfd"):
            self.kick_fd = kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        all_loops = range(self.row.board.workers * self.row.board.loops)
        peers = all_loops
        if any(listener.is_own for listener in listeners):
            peers = all_loops[self.row.index * self.row.board.loops:][:loops]
        i = loop_listen(loop, fds, len(self.listeners), peers.start, peers.stop, kick_fd)
        free(fds)
        if i < 0:
            raise OSError(errno, "a listener could not be watched")
        for i, listener in enumerate(listeners):
            loop.listeners[i].is_own = listener.is_own
            loop.listeners[i].is_borrowed = listener.is_borrowed
            loop.listeners[i].is_tls = tls is not None and listener.is_tls
        if is_first:
            for i in range(1, loops):
                self.others.append(Crew(app, listeners, settings, log, access_fd, self.row.of_loop(i), kick_fd, line_start,
                                        mounted, guards, tls, has_others, loops, self.common))

    cdef const router_t* _route(self, object plan, object guards) except? NULL:
        """The table of a plan's routes, as long as this lives; NULL if there are none."""
        cdef Router router
        if not plan.routes:
            return NULL
        router = Router(plan.routes, guards)
        self.routers.append(router)
        return &router.router

    cdef int serve_files(self, settings, bint is_first) except -1:
        """What files take: memory of them, and fields of the application that name one."""
        cdef loop_t* loop = &self.crew.loop
        cdef uint8_t takes = 0
        cdef Router router
        cdef bint has_sites = False
        cdef int i
        routes = []
        for router in self.routers:
            routes += router.routes
            has_sites |= len(router.sites) > 0
        for missing in mounts.missing_directories(settings, routes) if is_first else ():
            self.log.warning("%s", missing)
        if settings.sendfile_root:
            self.sendfile_site = Site(mounts.sendfile_roots(settings.sendfile_root), indexes=(), expires="off")
            loop.sendfile_site = &self.sendfile_site.site
            takes |= TAKES_PATH
        if any(route.values.get("internal") for route in routes):
            takes |= TAKES_TARGET
        if takes or has_sites:
            loop.files = <files_t*>calloc(1, sizeof(files_t))
            if loop.files == NULL:
                raise MemoryError
        self.crew.takes = takes
        for i in range(self.crew.ready_slots):
            self.crew.slots[i].head.takes = takes
        return 0

    cdef int use_slots(self) except -1:
        """Make ready what all threads need, and those that may take the places of lost ones."""
        crew_use_slots(self.crew, self.row, self.crew.most, self.crew.most)
        word_store(&self.crew.overdue.used, <uint64_t>self.crew.threads)
        return 0

    def __dealloc__(self):
        # No thread is left: each holds a reference to the crew.
        cdef int i
        if self.crew != NULL:
            for i in range(self.crew.ready_slots):
                slot_free(&self.crew.slots[i])
            if not self.is_closed:
                loop_close(&self.crew.loop)
            let_go(&self.crew.loop.spent)
            pthread_cond_destroy(&self.crew.stepper)
            pthread_cond_destroy(&self.crew.beginning)
            free(self.crew.slots)
            free(self.crew)
        if self.kick_fd >= 0:
            close(self.kick_fd)
        buffer_free(&self.lines)
        buffer_free(&self.records)

    @property
    def wakeup_fd(self):
        """Non-blocking; a byte written to it makes `attend` return. For `signal.set_wakeup_fd`."""
        return self.crew.loop.journal.wake.writer

    def adopt(self, sock):
        """Serve a connection as if it had been accepted at the first listener; before `start`.

        A PROXY protocol header is not expected, nor TLS. The socket is empty afterwards.
        """
        cdef loop_t* loop = &self.crew.loop
        cdef sockaddr_storage nobody
        cdef connection_t* connection
        if self.is_started:
            raise RuntimeError("a connection is adopted before the start")
        sock.setblocking(False)
        memset(&nobody, 0, sizeof(nobody))
        loop_look_at_clock(loop)
        connection = connection_new(loop, sock.fileno(), 0, &nobody)
        if connection == NULL:
            raise MemoryError
        sock.detach()
        connection.awaits_proxy = False
        connection_make_plain(loop, connection)
        if connection_watch(loop, connection, WATCH_READ) < 0:
            raise OSError(errno, "a connection could not be watched")

    def open_wakeup(self):
        """Descriptors of the caller's own, both ends of what `wakeup_fd` is one of; it outlives the crew."""
        return os.dup(self.crew.loop.journal.wake.reader), os.dup(self.crew.loop.journal.wake.writer)

    def start(self):
        """Start the threads, and wait until they are there."""
        cdef int i
        with cython.critical_section(self):      # others may stop it already
            self.is_started = True
        # The keeper leads until a thread is free: no request may hold the GIL before there is one who keeps.
        line_store(&self.crew.loop.lead.word, lead_next(0, self.crew.keeper))
        try:
            self._start_helper(self._keep)
            for i in range(1, self.crew.threads + 1):
                self.start_thread(i)
            if self.context.tls is not None:
                self._start_helper(self._step)
            for other in self.others:
                other.start()
        except BaseException:
            self.stop(0)
            if not word_load(&self.crew.alive):
                crew_has_ended(self.crew)
            raise
        with nogil:
            crew_await_threads(self.crew)

    def _start(self, run, *arguments):
        """Start a thread; it is waited for once it has said that it ends, where that matters."""
        if start_joinable_thread is None:
            start_new_thread(run, arguments)
        else:
            self.ending.append(start_joinable_thread(partial(run, *arguments), daemon=True))

    def _start_helper(self, run):
        word_add(&self.crew.alive, 1)
        try:
            self._start(run)
        except BaseException:
            word_add(&self.crew.alive, -1)
            raise

    cdef int start_thread(self, int index) except -1:
        word_store(&self.crew.overdue.used, max(<uint64_t>index, word_load(&self.crew.overdue.used)))
        self.thread_ids[index] = 0
        word_add(&self.crew.alive, 1)
        try:
            self._start(self._work, index)
        except BaseException:
            del self.thread_ids[index]
            word_add(&self.crew.alive, -1)
            raise
        return 0

    def _keep(self):
        """The keeper's thread."""
        platform_name_thread(b"fastwsgi-keeper")
        with nogil:
            crew_keep(self.crew)
        self.thread_ends()

    def _step(self):
        """The stepper's thread: TLS steps that no leader can make."""
        cdef crew_t* crew = self.crew
        cdef connection_t* connection
        platform_name_thread(b"fastwsgi-tls")
        while not word_load(&crew.ended):
            with nogil:
                connection = crew_await_step(crew)
            let_go(&crew.loop.spent)
            if connection != NULL:
                tls_step(self.context.tls, connection.tls, connection.outbox)
                connection_post(&crew.loop, connection, POST_FINISHED)
        self.thread_ends()

    def _work(self, int index):
        """An application thread."""
        cdef crew_t* crew = self.crew
        cdef slot_t* slot = &crew.slots[index]
        cdef int work
        cdef int64_t sample = 0
        cdef bint leads = False, had_gil
        name = self._name(index)
        thread = threading.current_thread()
        thread.name = name
        # Or the threads that the application starts would be daemons too, and be cut off at the end.
        thread._daemonic = False
        platform_name_thread(name.encode())
        slot.clock = platform_own_clock()
        self.thread_ids[index] = get_ident()
        word_store_relaxed(&slot.shown.ident, self.thread_ids[index])
        crew_begin_thread(crew, slot)
        try:
            while True:
                with nogil:
                    work = crew_wait(crew, slot, leads)
                if work == WORK_END:
                    break
                crew_has_gil(crew)
                had_gil = False
                while work == WORK_RUN or work == WORK_STEP:
                    if work == WORK_STEP:
                        tls_step(self.context.tls, slot.stepping.tls, slot.stepping.outbox)
                        if head_load(&crew.loop.spent) != NULL:
                            let_go(&crew.loop.spent)
                        had_gil = True
                        work = crew_after_step(crew, slot)
                        continue
                    measure_start(crew, slot, had_gil)
                    had_gil = True
                    if self.context.survivors is not None:
                        sample = self.context.survivors.begin(<int64_t>word_load_relaxed(&slot.shown.began_ns))
                    try:
                        exchange_run(self.context, slot)
                    except BaseException as error:
                        # The logging of the application failed on what the application did: the thread goes on.
                        with suppress(BaseException):
                            sys.stderr.write(f"fastwsgi: an exchange could not be logged: {error!r}\n")
                    measure_end(crew, slot)
                    if sample and self.context.survivors.end(sample):
                        with suppress(MemoryError):
                            self.context.survivors.label(shown_line(slot.shown))
                    if line_load(&slot.word) & SLOT_MASK == SLOT_BUSY:
                        with nogil:     # the leader sends from it, perhaps from a slow disk
                            slot_rest(slot)
                    work = crew_after(crew, slot)
                if work == WORK_END:
                    break
                leads = lead_owner(line_load(&crew.loop.lead.word)) == <uint64_t>index
        finally:
            # The thread was not started by threading, which would otherwise list it for ever.
            try:
                with suppress(KeyError, AttributeError):
                    del threading._active[get_ident()]
                del self.thread_ids[index]
            finally:
                self.thread_ends()

    cdef int thread_ends(self) noexcept:
        """The end of a thread is heard of even where there is no memory for anything else."""
        # Without a GIL the main thread must not close what this writes to, once it has seen that all have ended.
        with cython.critical_section(self):
            word_add(&self.crew.alive, -1)
            if self.lost:
                self.close()        # given up as lost, and here it is after all
            else:
                wake_write(&self.crew.loop.journal.wake)

    @property
    def finished(self):
        """Every thread has ended and every connection is closed, or the grace is over."""
        cdef Crew other
        for other in self.others:
            if not other.is_over():
                return False
        return self.is_over()

    cdef bint is_over(self) noexcept:
        cdef int i
        cdef int stuck = 0
        if not word_load(&self.crew.ended):
            return False
        for i in range(1, slots_end(&self.crew.overdue)):
            if line_load(&self.crew.slots[i].word) & SLOT_MASK >= SLOT_REVOKED:
                stuck += 1
        return word_load(&self.crew.alive) <= <uint64_t>stuck

    def attend(self):
        """Wait without the GIL for something that the main thread shall do; write access log lines meanwhile.

        Returns records for the error log (level, text), perhaps none, when such records have come, a byte was
        written to `wakeup_fd`, `watched_fd` is readable or has ended, the row has come to want something, after
        `beat` seconds, or when the crew has finished (then at once, each time).
        """
        cdef loop_t* loop = &self.crew.loop
        cdef uint64_t lost_lines = 0, lost_records = 0
        cdef size_t written
        cdef int64_t until_ns = 0
        cdef int error = 0, wait_ms = 0
        cdef bint is_fresh = self.written == self.lines.size
        cdef bint is_calm = is_fresh and not self.has_untold and not self.write_error and not self.told_error
        cdef const char* text
        cdef Crew other
        if self.is_closed:
            return []
        if not loop.is_inside:      # or else it was waited for before
            wait_ms = self.patience_ms()
        with nogil:
            if wait_ms > 0:
                until_ns = platform_now_ns() + wait_ms * <int64_t>1000000
            while True:
                if not all_have_ended(self.crew):
                    is_calm &= platform_wait_readable(loop.journal.wake.reader, self.watched_fd, wait_ms) == 1
                is_calm &= not wake_drain(&loop.journal.wake)
                if self.access_fd >= 0 and not loop.is_inside and not all_have_ended(self.crew):
                    is_calm &= usleep(LINES_PAUSE_US) == 0
                if is_fresh:
                    self.written = 0
                    self.has_untold = journal_take(loop.journal, &self.lines, &self.records,
                                                   all_have_ended(self.crew), &lost_lines, &lost_records)
                if self.lines.size > self.written:
                    error = platform_write_some(self.access_fd, self.lines.data + self.written,
                                                self.lines.size - self.written, &written,
                                                0 if loop.is_inside and not all_have_ended(self.crew) else WRITE_MS)
                    self.written += written
                # Nothing but lines, and all of them are written: that needs no GIL, which an exchange may have.
                if (not is_calm or error or self.has_untold or lost_lines or self.records.size or lost_records
                        or loop.is_inside or all_have_ended(self.crew)):
                    break
                if until_ns:
                    wait_ms = <int>((until_ns - platform_now_ns()) // 1000000)
                    if wait_ms <= 0:
                        break
        # With the GIL, which shows that it can be had.
        word_store_relaxed(&loop.row.beat, <uint64_t>platform_now_ns())
        records = []
        if error and all_have_ended(self.crew):
            lost_lines += self.lines.data[self.written:self.lines.size].count(b"\n")
            self.written = self.lines.size
        elif error == EINTR or error == ETIMEDOUT or not (error or is_fresh):
            # The rest after the signal's handler has run, or when the reader has caught up; what came while it waited.
            wake_write(&loop.journal.wake)
        self._tell_of_lines(error, is_fresh, lost_lines, records)
        text = self.records.data
        while text < self.records.data + self.records.size:
            records.append((<int>text[0], (<bytes>(text + 1)).decode("utf-8", "backslashreplace")))
            text += strlen(text + 1) + 2
        self.records.size = 0
        if lost_records:
            records.append((LEVEL_WARNING, f"{lost_records} more log records were left out"))
        self.look_after(records)
        for other in self.others:
            other.look_after(records)
        if self.finished:
            for other in self.others:
                with cython.critical_section(other):
                    other.close()
            with cython.critical_section(self):
                self.close()
            if not self.lost_threads:
                for other in (self, *self.others):
                    while other.ending:
                        other.ending.pop().join()
        return records

    cdef int look_after(self, list records) except -1:
        """See to exchanges that take long, and to threads that were lost."""
        if word_load(&self.crew.overdue.samples):
            self._sample()
        self._tell(records)
        if word_load(&self.crew.overdue.fresh):
            self._replace_lost(records)
        return 0

    cdef int patience_ms(self) noexcept:
        """How long the main thread may wait; -1: for ever."""
        cdef int wait_ms = max(<int>(self.beat * 1000), 1) if self.beat else -1
        if (self.has_untold or self.write_error) and not 0 <= wait_ms < TELL_MS:
            wait_ms = TELL_MS
        return wait_ms

    @property
    def has_lost_reader(self):
        """The access log could not be written, and not because nobody reads: perhaps nobody is there any more."""
        return self.write_error not in (0, ETIMEDOUT)

    def _sample(self):
        """Let others see where the exchanges are that have been running for long."""
        cdef slot_t* slot
        cdef bytes text
        cdef uint64_t number
        cdef int64_t began_ns, now_ns = platform_now_ns()
        cdef int i
        word_store(&self.crew.overdue.samples, 0)
        found = self.stacks()
        for i in range(1, slots_end(&self.crew.overdue)):
            slot = &self.crew.slots[i]
            number = word_load(&slot.shown.number)
            began_ns = <int64_t>word_load_relaxed(&slot.shown.began_ns)
            stack = found.get(i)
            if number and began_ns and stack is not None and now_ns - began_ns >= self.crew.overdue.sample_ms * 1000000:
                text = stack_text(stack).encode("utf-8", "backslashreplace")
                if len(text) > STACK_SHOWN:
                    # The innermost frames say most.
                    text = CUT + text[text.find(b"\n", len(text) - STACK_SHOWN + len(CUT)) + 1:]
                # It may have gone on to another one meanwhile.
                if word_load(&slot.shown.number) == number:
                    shown_stack(self.row, i, number, text, <size_t>len(text))
        # Of the time, a fiftieth at most.
        word_store_relaxed(&self.crew.overdue.pause_ms, <uint64_t>((platform_now_ns() - now_ns) // 20000))

    cdef dict stacks(self):
        """Where threads are, by slot, as stacks() has it."""
        found = stacks()
        # A copy: without a GIL a thread may end meanwhile.
        return {index: found.get(ident) for index, ident in self.thread_ids.copy().items()}

    cdef int interrupt(self, int index, uint64_t number) except -1:
        """Raise RequestTimeout in what runs in a slot, if that is still the application."""
        cdef slot_t* slot = &self.crew.slots[index]
        # What is in the application now stays there until it finds its number again: an exchange after it cannot be hit.
        if word_replace(&slot.in_application, number, number + 1):
            slot.is_raised = True
            PyThreadState_SetAsyncExc(<unsigned long>word_load_relaxed(&slot.shown.ident), RequestTimeout)
            word_store(&slot.in_application, number)
        return 0

    cdef int _tell_of_lines(self, int error, bint is_fresh, uint64_t lost, list records) except -1:
        """Say once what is wrong with the access log, and when that is over.

        What cannot be written waits, as far as there is room: for a reader, and for one of a full disk, too. is_fresh: all
        that waited before was written.
        """
        self.write_error = 0 if error == EINTR else error
        self.lost_lines += lost
        why = why_not_written(error)
        if self.write_error and error != self.told_error and (
                error != ETIMEDOUT or lost or journal_is_full(self.crew.loop.journal)):
            self.told_error = error
            records.append((LEVEL_WARNING, f"the access log cannot be written, and lines are lost when too many wait: {why}"))
        if is_fresh and not error and self.told_error:
            why = why_not_written(self.told_error)
            self.told_error = 0
            records.append((LEVEL_WARNING,
                            f"the access log is written again; {self.lost_lines} lines were lost: {why}"))
        elif lost:
            records.append((LEVEL_WARNING, f"{lost} access log lines were lost: {why}"))
        if not self.told_error:
            self.lost_lines = 0
        return 0

    def _tell(self, list records):
        """Say what the leader found out about exchanges that take long, and interrupt those that took too long."""
        cdef slot_t* slot
        cdef uint64_t tells, to_raise
        cdef int i
        for i in range(1, slots_end(&self.crew.overdue)):
            slot = &self.crew.slots[i]
            to_raise = word_load(&slot.to_raise)
            if to_raise:
                self.interrupt(i, to_raise)
            word_replace(&slot.to_raise, to_raise, 0)
            tells = word_load(&slot.tells)
            if tells:
                what = (<bytes>slot.told).decode("ascii", "backslashreplace")
                age = slot.told_age_ms / 1000.0
                where = self._stack(i, line_load(&slot.word) >> 2 == tells >> 2)
                if tells & TELL_MASK == TELL_SLOW:
                    records.append((LEVEL_WARNING, f"{what} is slow: after {age:.1f} s (--log-slow) it is {where}"))
                elif tells & TELL_MASK == TELL_ENDED:
                    records.append((LEVEL_ERROR, f"{what} was ended by hand (fastwsgi top) and taken away from its {self.context.noun}, "
                                    f"after {age:.1f} s, {where}"))
                else:
                    records.append((LEVEL_ERROR, f"{what} made no progress for {self.timeout:g} s (--timeout) and was "
                                    f"taken away from its {self.context.noun}, after {age:.1f} s in all, {where}"))
                word_store(&slot.tells, 0)

    def _stack(self, int index, bint is_running):
        """Where a thread is, in words."""
        stack = self.stacks().get(index) if is_running else None
        if stack is None:
            return "at its end"
        return f"in {self.context.noun} {self._name(index)} at\n{stack_text(stack)}".rstrip()

    def _name(self, int index):
        """What a thread is called."""
        return f"fastwsgi-{self.row.thread_number(index)}"

    def _replace_lost(self, list records):
        """Start a thread for each that was given up, as long as there are not too many of these."""
        cdef int i
        given_up = self._given_up()
        while word_load(&self.crew.overdue.fresh) and not word_load(&self.crew.ended):
            for i in range(1, self.crew.most + 1):
                if i not in self.thread_ids:
                    break
            else:
                i = 0
            what = "there are too many of these"
            if i:
                try:
                    self.start_thread(i)
                    what = f"{self._name(i)} takes its place"
                except RuntimeError as error:
                    what = str(error)
                    i = 0
            word_add(&self.crew.overdue.fresh, -1)
            if not i and not word_load(&self.crew.stop):
                self.is_short = True
            who = next(given_up, f"a {self.context.noun} does not come back from the application")
            records.append((LEVEL_ERROR, f"{who} and is given up; {what}"))

    def _given_up(self):
        """Of each thread that was given up, and of which that was not said yet: what it does not come back from."""
        cdef int i
        for i in range(1, slots_end(&self.crew.overdue)):
            one = self.row.serves(i) if line_load(&self.crew.slots[i].word) & SLOT_MASK == SLOT_LOST else None
            if one is not None and self.told_lost.get(i) != one.number:
                self.told_lost[i] = one.number
                yield (f"{self.context.noun} {self._name(i)} does not come back from {one.line} for {one.client}, "
                       f"after {one.age:.1f} s,")

    cdef int close(self) noexcept:
        """Give back every descriptor; the memory goes with the object. In a critical section."""
        self.lost = <int>word_load(&self.crew.alive)
        if self.lost == 0 and not self.is_closed:
            self.is_closed = True
            loop_close(&self.crew.loop)
            let_go(&self.crew.loop.spent)
            if self.kick_fd >= 0:
                close(self.kick_fd)
                self.kick_fd = -1

    def stop(self, double grace, bint leave=False):
        """Begin to drain: accept what is queued, finish what runs within `grace` seconds.

        leave: other workers stay, and accept what is queued at shared listeners; it counts in the first call. What is
        queued at borrowed ones is left to the next server in any case.
        From any thread and from signal handlers; a later call can shorten the grace, 0 means now.
        """
        cdef uint64_t grace_ms = <uint64_t>(max(grace, 0.0) * 1000)
        cdef Crew other
        for other in self.others:
            other.stop(grace, leave)
        with cython.critical_section(self):
            if self.is_closed:
                return
            if not word_load(&self.crew.stop) or grace_ms < word_load(&self.crew.grace_ms):
                word_store(&self.crew.grace_ms, grace_ms)
            word_store(&self.crew.loop.draining, 1)
            word_replace(&self.crew.stop, 0, STOP_LEAVE if leave else STOP_DRAIN)
            if self.is_started:
                lead_call(&self.crew.loop.lead, &self.crew.loop.poller)
            else:
                crew_has_ended(self.crew)

    def revoke(self, int thread):
        """Take the exchange that runs on a thread (1 to N) away from it: 503, or a reset if the head has left."""
        cdef int number = thread
        cdef Row row = self.row.find_thread(&number)
        if row is not None and row.loop:
            self.others[row.loop - 1].revoke_here(number)
        else:
            self.revoke_here(number)

    def revoke_here(self, int thread):
        """The same for a thread of this crew alone."""
        cdef slot_t* slot
        with cython.critical_section(self):
            if self.is_closed or not 1 <= thread < max(slots_end(&self.crew.overdue), self.crew.threads + 1):
                raise ValueError(f"no thread {thread}")
            if thread >= self.crew.ready_slots:
                return      # a greenlet that there was no work for yet
            slot = &self.crew.slots[thread]
            word_store(&slot.to_revoke, line_load(&slot.word) >> 2)
            word_store(&self.crew.revokes, 1)
            lead_call(&self.crew.loop.lead, &self.crew.loop.poller)

    @property
    def max_requests(self):
        """So many are handed to the application, then `row.wants` is WANTS_REQUESTS; 0: any number. Before `start`."""
        return self.crew.max_requests

    @max_requests.setter
    def max_requests(self, uint64_t number):
        cdef Crew other
        for other in (self, *self.others):
            other.crew.max_requests = number

    @property
    def lost_threads(self):
        """After the end: threads that are still in the application."""
        cdef Crew other
        return self.lost + sum([other.lost for other in self.others])

    @property
    def is_exhausted(self):
        """So many threads were given up that there is no place for another one: the worker has to end."""
        cdef Crew other
        return self.is_short or any([other.is_short for other in self.others])

    @property
    def survivors(self):
        """What samples the memory that exchanges leave behind, or None. Set before `start`."""
        return self.context.survivors

    @survivors.setter
    def survivors(self, survivors):
        cdef Crew other
        for other in (self, *self.others):
            other.context.survivors = survivors

    @property
    def tick(self):
        """After so many seconds away the leader loses the lead (0.001). Shorter ones are for stress tests."""
        return self.crew.tick_ns / 1e9

    @tick.setter
    def tick(self, double seconds):
        cdef Crew other
        for other in (self, *self.others):
            other.crew.tick_ns = <int64_t>(seconds * 1e9)

    @property
    def last_call(self):
        """How long clients of this machine have, at the stop, that were just connecting: seconds (0.01)."""
        return self.crew.loop.last_call_ms / 1000

    @last_call.setter
    def last_call(self, double seconds):
        cdef Crew other
        for other in (self, *self.others):
            other.crew.loop.last_call_ms = <int64_t>(seconds * 1000)

    @property
    def last_idle(self):
        """How long idle connections have, at the stop, for a request that is on its way: seconds (0.25)."""
        return self.crew.loop.last_idle_ms / 1000

    @last_idle.setter
    def last_idle(self, double seconds):
        cdef Crew other
        for other in (self, *self.others):
            other.crew.loop.last_idle_ms = <int64_t>(seconds * 1000)

    def counters(self):
        """Counts since the start (`requests`) and of this moment (`connections`, `exchanges`), by name."""
        return self.row.counters()

    def after_fork_in_child(self):
        """In a process that the application forked: let go of sockets and poller, which are the parent's.

        The thread that called fork is still in the application; should it come back, the process ends.
        """
        cdef connection_t* connection = self.crew.loop.connections
        cdef Crew other
        for other in self.others:
            other.after_fork_in_child()
        if self.is_closed:
            return
        self.context.is_forked = True
        if self.context.survivors is not None:
            self.context.survivors.close()
        while connection != NULL:
            if connection.fd >= 0:
                close(connection.fd)
                connection.fd = -1
            connection = connection.after
        for listener in self.listeners:
            listener.close()
        poller_close(&self.crew.loop.poller)
