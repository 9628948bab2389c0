# The greenlets of a worker over one loop, inside gevent's hub: with --gevent, instead of the crew's threads.

from libc.stdint cimport int64_t

from fastwsgi._connection cimport slot_t
from fastwsgi._crew cimport Crew


cdef class Greenlets(Crew):
    cdef object hub             # of gevent; None before the start
    cdef object switch_to_hub
    cdef object poller_watcher  # the loop's poller has events
    cdef object timer           # the loop's next deadline
    cdef object journal_watcher # there is something for the main greenlet
    cdef object life_watcher    # of watched_fd; None without
    cdef object attending       # what the main greenlet waits with; or None
    cdef list greenlets         # by slot; None: there is none
    cdef list free              # slots whose greenlet waits for an exchange, the last one first
    cdef dict waiting           # by slot, what producers wait with until their client has read
    cdef slot_t* movers         # slots of those that need not wait any more
    cdef int made               # slots up to this one have had a greenlet
    cdef unsigned long ident    # of the hub's thread
    cdef bint turns             # the hub gives turns at this moment
    cdef bint has_polled        # in this one
    cdef bint is_called         # there will be another one at once
    cdef int64_t due_ms         # when the timer rings; 0: not

    cdef int give_turns(self) except -1
    cdef int lead(self, slot_t* slot) except -1
    cdef int step(self) except -1
    cdef int see_to_alarms(self) except -1
    cdef int after(self, slot_t* slot) except -1
    cdef int next_free(self) except -1
    cdef bint park(self, int index) except -1
    cdef int call(self) except -1
    cdef int arm(self) except -1
    cdef int wake_producers(self) except -1
    cdef int end(self) except -1
    cdef int stop_watching(self) except -1
