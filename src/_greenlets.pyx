"""The greenlets of a worker over one loop, inside gevent's hub: with --gevent, instead of the crew's threads.

gevent's hub stands where the crew has its keeper. It watches the loop's poller and its next deadline, and then gives the
lead to a greenlet that is free, which runs complete requests itself, there and then. When the application waits for
something, the hub has control again: it takes the lead, sends what the exchange has left in its slot, and gives the lead
to the next greenlet. All that happens in one thread; so what is said in _crew of two that meet is not needed here.
"""

import sys
import threading
from contextlib import suppress

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._connection cimport (
    ALARM_OVERDUE, ALARM_QUEUE, ALARM_SPENT, SLOT_BUSY, SLOT_MASK, connection_stepped, connection_t, list_take,
    loop_look_at_clock, loop_t, slot_t,
)
from fastwsgi._crew cimport (
    WORK_END, WORK_NONE, WORK_RUN, Crew, crew_after_leading, crew_begin, crew_end, crew_give_back, crew_look,
    crew_next, crew_queue_ready, crew_sift_queue, crew_t, crew_took, crew_use_slots, let_go, measure_took,
)
from fastwsgi._exchange cimport exchange_run
from fastwsgi._lead cimport LEAD_AWAY, lead_next, lead_owner, lead_return
from fastwsgi._loop cimport TURN_DRAINED, TURN_IDLE, loop_turn, loop_wait_ms
from fastwsgi._overdue cimport overdue_arm, overdue_look
from fastwsgi._platform cimport (
    head_load, line_load, line_store, poller_descriptor, word_add, word_load, word_load_relaxed, word_store,
    word_store_relaxed,
)
from fastwsgi._tls cimport tls_step

from fastwsgi._crew import get_ident
from fastwsgi._stacks import stack_of
from fastwsgi.errors import RequestTimeout

cdef enum:
    READS = 1                   # of a watcher of gevent
    FULL_MS = 100               # until a log whose reader was too slow is tried again

cdef double LINES_PAUSE = 0.01  # so that the access log is written a hundred times a second at most


cdef class Greenlets(Crew):
    """The same as Crew, in the thread that starts it, which has to run gevent's hub from then on."""

    cdef int use_slots(self) except -1:
        # The others when there are greenlets for them.
        crew_use_slots(self.crew, self.row, 1, 1)
        self.context.noun = "greenlet"
        return 0

    def start(self):
        """Have the hub watch the loop; greenlets are made when there is work for them."""
        from gevent import get_hub
        from gevent.lock import BoundedSemaphore

        cdef loop_t* loop = &self.crew.loop
        self.ident = get_ident()
        self.hub = get_hub()
        self.switch_to_hub = self.hub.switch
        self.greenlets = [None] * (self.crew.most + 1)
        self.free = []
        self.waiting = {}
        self.context.greenlets = self
        if self.context.encodings is not None:
            # Held while the client is waited for.
            self.context.encodings.make_lock = BoundedSemaphore
        loop.is_inside = True
        self.is_started = True
        line_store(&loop.lead.word, lead_next(0, self.crew.keeper))
        line_store(&loop.lead.sleeping, 1)
        self.poller_watcher = self.hub.loop.io(poller_descriptor(&loop.poller), READS)
        self.journal_watcher = self.hub.loop.io(loop.journal.wake.reader, READS)
        self.poller_watcher.start(self._turn)
        self.call()

    # ---- in the hub ----

    cdef int call(self) except -1:
        """There is something to do that the poller does not tell of: have a turn as soon as the hub can."""
        if not self.is_called:
            self.is_called = True
            self.hub.loop.run_callback(self._turn)
        return 0

    def _ring(self):
        """The loop's next deadline."""
        self.due_ms = 0
        self._turn()

    def _turn(self):
        """Have the loop go on; in the hub, which must not wait for anything."""
        cdef crew_t* crew = self.crew
        cdef loop_t* loop = &crew.loop
        self.is_called = False
        if self.turns or self.is_closed:
            return
        if word_load(&crew.ended):
            self.end()
            return
        # One that leads may wait amid that, for what some destructor does: it calls when it is back.
        if lead_owner(line_load(&loop.lead.word)) != crew.keeper:
            return
        self.turns = True
        self.has_polled = False
        line_store(&loop.lead.sleeping, 0)
        try:
            self.give_turns()
        finally:
            self.turns = False
            line_store(&loop.lead.sleeping, 1)
            if self.movers != NULL:
                self.wake_producers()
        if word_load(&crew.ended):
            self.end()
            return
        # Closing waits for the end of a turn, as what came back meanwhile waits for the next one; and so does the end.
        if (head_load(&loop.done) != NULL or loop.returned != NULL or line_load(&loop.lead.attention)
                or loop.closing.first != NULL or loop.blocking.first != NULL or loop.backlog.first != NULL
                or loop.steps.first != NULL
                or (word_load_relaxed(&loop.draining) and loop.connections == NULL and not loop.listens)):
            self.call()
        self.arm()

    cdef int give_turns(self) except -1:
        """Lead, by whichever greenlets are free, until what the poller has told of is seen to."""
        cdef crew_t* crew = self.crew
        cdef loop_t* loop = &crew.loop
        cdef uint64_t word
        cdef int index
        while True:
            index = self.next_free()
            if not index:
                # All of them are in the application: what comes waits in the queue.
                self.lead(NULL)
                return 0
            line_store(&loop.lead.word, lead_next(line_load(&loop.lead.word), <uint64_t>index))
            self.greenlets[index].switch()
            word = line_load(&loop.lead.word)
            if lead_owner(word) != <uint64_t>index or not word & LEAD_AWAY:
                return 0
            # It waits in the application.
            line_store(&loop.lead.word, lead_next(word, crew.keeper))
            crew_took(crew, &crew.slots[index])
            if not loop.alarms[<int>ALARM_OVERDUE]:
                overdue_arm(loop, &crew.overdue)

    cdef int lead(self, slot_t* slot) except -1:
        """Lead until there is an exchange to run in the slot (NULL: it has to wait), or nothing to do at once."""
        cdef crew_t* crew = self.crew
        cdef loop_t* loop = &crew.loop
        cdef connection_t* connection
        cdef int turn
        while True:
            if word_load_relaxed(&crew.stop) or word_load_relaxed(&crew.revokes):
                crew_look(crew)
            self.see_to_alarms()
            while loop.steps.first != NULL:
                self.step()
            if slot == NULL:
                crew_queue_ready(crew)
            elif loop.ready.first != NULL or word_load_relaxed(&loop.row.waiting):
                connection = crew_next(crew)
                if connection != NULL:
                    return crew_begin(crew, slot, connection)
            if self.has_polled:
                turn = loop_turn(loop, False)
            else:
                self.has_polled = True
                with nogil:
                    turn = loop_turn(loop, True)
            if turn == TURN_DRAINED:
                crew_end(crew)
                return WORK_END
            if turn == TURN_IDLE:
                return WORK_NONE

    cdef int step(self) except -1:
        """A step of TLS, which waits for nothing."""
        cdef loop_t* loop = &self.crew.loop
        cdef connection_t* connection = list_take(&loop.steps)
        tls_step(self.context.tls, connection.tls, connection.outbox)
        if head_load(&loop.spent) != NULL:
            let_go(&loop.spent)
        loop.may_block = False
        connection_stepped(loop, connection)
        return 0

    cdef int see_to_alarms(self) except -1:
        cdef loop_t* loop = &self.crew.loop
        if loop.alarms[<int>ALARM_QUEUE] and loop.now_ms >= loop.alarms[<int>ALARM_QUEUE]:
            crew_sift_queue(self.crew)
        if loop.alarms[<int>ALARM_OVERDUE] and loop.now_ms >= loop.alarms[<int>ALARM_OVERDUE]:
            loop.alarms[<int>ALARM_OVERDUE] = 0
            overdue_look(loop, &self.crew.overdue)
        if loop.alarms[<int>ALARM_SPENT] and loop.now_ms >= loop.alarms[<int>ALARM_SPENT]:
            loop.alarms[<int>ALARM_SPENT] = 0
            let_go(&loop.spent)
        return 0

    cdef int arm(self) except -1:
        """See that the timer rings at the next deadline; earlier does no harm, and is cheaper than to set it often."""
        cdef loop_t* loop = &self.crew.loop
        cdef int wait_ms
        loop_look_at_clock(loop)
        wait_ms = loop_wait_ms(loop)
        if wait_ms < 0 or (self.due_ms and self.due_ms <= loop.now_ms + wait_ms):
            return 0
        if self.timer is not None:
            self.timer.close()
        self.due_ms = loop.now_ms + max(wait_ms, 1)
        self.timer = self.hub.loop.timer(max(wait_ms, 1) / 1000.0)
        self.timer.start(self._ring)
        return 0

    cdef int wake_producers(self) except -1:
        """Their client has read, or is gone, or the exchange was taken away."""
        cdef slot_t* slot
        while self.movers != NULL:
            slot = self.movers
            self.movers = slot.next_mover
            slot.is_mover = False
            for waiter in self.waiting.get(slot.index, ()):
                self.hub.loop.run_callback(waiter.switch, None)
        return 0

    cdef int end(self) except -1:
        """Everything is drained: send all greenlets home."""
        self.stop_watching()
        while self.free:
            self.greenlets[self.free.pop()].switch()
        return 0

    def _throw(self, int index, uint64_t number):
        """Raise RequestTimeout in a greenlet, if it is still in the application with that exchange."""
        greenlet = self.greenlets[index]
        if greenlet is not None and word_load(&self.crew.slots[index].in_application) == number:
            greenlet.throw(RequestTimeout)

    cdef int interrupt(self, int index, uint64_t number) except -1:
        self.hub.loop.run_callback(self._throw, index, number)
        return 0

    # ---- greenlets ----

    cdef int next_free(self) except -1:
        """The slot of a greenlet that is free, or a new one; 0: there are as many as there may be."""
        while True:
            while self.free:
                index = self.free.pop()
                if not self.greenlets[index].dead:
                    return index
            while self.made < self.crew.threads and self.made + 1 in self.thread_ids:
                self.made += 1
            if self.made >= self.crew.threads:
                return 0
            self.start_thread(self.made + 1)

    cdef int start_thread(self, int index) except -1:
        from gevent import Greenlet

        crew_use_slots(self.crew, self.row, index, 1)
        self.crew.slots[index].movers = &self.movers
        word_store(&self.crew.overdue.used, max(<uint64_t>index, word_load(&self.crew.overdue.used)))
        self.greenlets[index] = Greenlet(self._work, index)
        self.thread_ids[index] = self.ident
        word_add(&self.crew.alive, 1)
        self.free.append(index)
        if not self.turns:
            self.call()
        return 0

    cdef bint park(self, int index) except -1:
        """Wait for the lead; False: end, because somebody has killed this greenlet, or all do."""
        from greenlet import GreenletExit

        cdef loop_t* loop = &self.crew.loop
        cdef uint64_t word = line_load(&loop.lead.word)
        if lead_owner(word) == <uint64_t>index:
            line_store(&loop.lead.word, lead_next(word, self.crew.keeper))
        if word_load(&self.crew.ended):
            return False        # given up as lost, it comes back when nobody is there to send it home
        self.free.append(index)
        if not self.turns:
            self.call()
        while True:
            try:
                self.switch_to_hub()
            except GreenletExit:
                with suppress(ValueError):
                    self.free.remove(index)
                return False
            except BaseException:
                # Of an application that has not cancelled its Timeout, say: meant for an exchange that is over.
                pass
            if word_load(&self.crew.ended):
                return False
            if lead_owner(line_load(&loop.lead.word)) == <uint64_t>index:
                return True

    cdef int after(self, slot_t* slot) except -1:
        """After an exchange: the next one, if there is one without waiting."""
        cdef bint leads = slot.away and lead_return(&self.crew.loop.lead, slot.away)
        cdef int work
        word_store_relaxed(&slot.shown.number, 0)
        slot.away = 0
        if leads:
            work = crew_after_leading(self.crew, slot)
            return self.lead(slot) if work == WORK_NONE else work
        return WORK_NONE if crew_give_back(self.crew, slot) else WORK_END

    def _work(self, int index):
        """A greenlet: it is started with the lead."""
        cdef slot_t* slot = &self.crew.slots[index]
        cdef int work
        word_store_relaxed(&slot.shown.ident, self.ident)
        thread = threading.current_thread()
        thread.name = f"fastwsgi-{index}"
        # Or the threads that the application starts would be daemons, as what stands for a greenlet is.
        thread._daemonic = False
        try:
            while True:
                work = self.lead(slot)
                while work == WORK_RUN:
                    word_store_relaxed(&slot.shown.began_ns, word_load_relaxed(&slot.shown.bound_ns))
                    try:
                        exchange_run(self.context, slot)
                    except BaseException as error:
                        # The logging of the application failed on what the application did: others go on.
                        with suppress(BaseException):
                            sys.stderr.write(f"fastwsgi: an exchange could not be logged: {error!r}\n")
                    measure_took(slot)
                    while line_load(&slot.word) & SLOT_MASK == SLOT_BUSY:
                        self.rest()
                    work = self.after(slot)
                if work == WORK_END or not self.park(index):
                    break
        finally:
            self.greenlets[index] = None
            del self.thread_ids[index]
            if self.free and not self.turns:
                self.call()         # one that led has found the end by itself: the others have to be sent home
            self.thread_ends()

    def rest(self):
        """Let others run for a moment: one of them holds a slot."""
        from gevent import sleep

        sleep(0)

    def wait(self, int index, uint64_t progress):
        """A producer in a slot waits for its client; False: in a thread, which has to wait in its own way."""
        from gevent.hub import Waiter

        cdef slot_t* slot = &self.crew.slots[index]
        if get_ident() != self.ident:
            return False
        waiters = self.waiting.setdefault(index, [])
        waiter = Waiter(self.hub)
        waiters.append(waiter)
        try:
            while slot.progress == progress:
                waiter.get()
                waiter.clear()
        finally:
            waiters.remove(waiter)
            if not waiters:
                self.waiting.pop(index, None)
        return True

    cdef dict stacks(self):
        return {index: stack_of(greenlet.gr_frame) for index, greenlet in enumerate(self.greenlets)
                if greenlet is not None and greenlet.gr_frame is not None}

    # ---- the main greenlet ----

    def _attended(self):
        """Something for the main greenlet."""
        waiter, self.attending = self.attending, None
        if waiter is not None:
            waiter.switch(None)

    def attend(self):
        """As Crew.attend; the hub runs while it waits."""
        from gevent import sleep
        from gevent.hub import Waiter

        cdef int wait_ms
        if self.is_closed:
            return []
        if not word_load(&self.crew.ended) and self.hub is not None:
            wait_ms = self.patience_ms()
            if self.write_error:
                wait_ms = FULL_MS
            waiter = self.attending = Waiter(self.hub)
            watchers = [] if self.write_error else [self.journal_watcher]
            if self.watched_fd >= 0:
                watchers.append(self.hub.loop.io(self.watched_fd, READS))
            if wait_ms >= 0:
                watchers.append(self.hub.loop.timer(wait_ms / 1000.0))
            try:
                for watcher in watchers:
                    watcher.start(self._attended)
                waiter.get()
            finally:
                self.attending = None
                for watcher in watchers:
                    watcher.stop()
                    if watcher is not self.journal_watcher:
                        watcher.close()
            if self.access_fd >= 0 and not word_load(&self.crew.ended):
                sleep(LINES_PAUSE)
        return Crew.attend(self)

    cdef int stop_watching(self) except -1:
        for watcher in (self.poller_watcher, self.timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self.poller_watcher = self.timer = None
        return 0

    cdef int close(self) noexcept:
        # Before the descriptors go, which others may have then.
        if self.hub is not None:
            self.stop_watching()
            if self.journal_watcher is not None:
                self.journal_watcher.close()
            self.journal_watcher = None
        return Crew.close(self)

    def after_fork_in_child(self):
        """In a process that the application forked: the hub of this one has nothing to do with it any more."""
        if self.hub is not None and not self.is_closed:
            self.stop_watching()
            if self.attending is not None:
                self.journal_watcher.stop()
        Crew.after_fork_in_child(self)
