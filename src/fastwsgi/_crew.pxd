# The threads of a worker over one loop: who leads it, who is in the application, how the lead passes on.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._connection cimport connection_list_t, connection_t, loop_t, slot_t
from fastwsgi._exchange cimport Context
from fastwsgi._journal cimport journal_t
from fastwsgi._overdue cimport overdue_t
from fastwsgi._platform cimport atomic_head_t, atomic_word_t, pthread_cond_t
from fastwsgi._router cimport router_t
from fastwsgi._static cimport Site
from fastwsgi._stats cimport Row, row_t


cdef enum:
    TICK_NS = 1000000           # the keeper takes the lead from a leader that is away for that long
    CALM_LOOKS = 256            # of the keeper, then they are twice as far apart, and once more after as many
    CALM_LOSS = 64              # of them are forgotten for each time that the lead had to be taken
    IDLE_TICKS = 4              # without any movement, then the keeper parks
    WAITS_NS = 500000           # exchanges that take longer, most of it off the CPU, wait
    HOLD_NS = 5000000           # for so long a computing exchange has the GIL to itself
    HOLD_NAP_MS = 1             # between two looks at it
    SAMPLE = 64                 # one exchange of so many runs inline all the same, to measure afresh
    CELLS = 256

# What a thread does next.
cdef enum work_t:
    WORK_RUN            # an exchange: slot.connection
    WORK_STEP           # a TLS step: slot.stepping
    WORK_NONE           # nothing without waiting
    WORK_LEAD           # it was given the lead
    WORK_END            # the crew has ended

# crew_t.stop
cdef enum:
    STOP_DRAIN = 1      # the whole server stops, or there is just this worker
    STOP_LEAVE          # others go on at the listeners that are shared


cdef struct cell_t:
    # How long exchanges of one kind take, on average; of mount, method and first path segment.
    atomic_word_t wall_ns
    atomic_word_t busy_ns       # CPU time, times the exchanges at a time; only followed while wall_ns is over WAITS_NS
    atomic_word_t count


cdef struct common_t:
    # What all crews of a worker have together.
    journal_t journal
    row_t* row                  # the worker's: that of its first loop
    atomic_word_t going         # crews that have not ended
    atomic_word_t handed        # requests, to the application; only counted with max_requests


cdef struct crew_t:
    loop_t loop
    common_t* common            # borrowed
    slot_t* slots               # [1] to [most]; [0] is not used, those behind overdue.used not yet
    int ready_slots             # made ready: [0] to this one
    uint8_t takes               # fields of the application that name a file: TAKES_
    int threads                 # of the application
    int most                    # threads and replacements of those that were lost
    uint64_t keeper             # its number in the lead word
    overdue_t overdue
    int64_t queue_ms            # a request may wait for a thread
    uint64_t max_requests       # that are handed to the application, then another worker is wanted; 0: any number
    int64_t tick_ns             # TICK_NS, or what a stress test has set
    # Under loop.lead.mutex:
    connection_list_t queue     # complete requests that wait for a thread, in order
    connection_list_t steps     # TLS steps that are left to the stepper
    bint spent_waits            # there is something in loop.spent for it
    pthread_cond_t stepper      # it waits here
    pthread_cond_t beginning    # here waits who has started the threads
    slot_t* free_first          # threads that wait for work, the last one first
    bint has_ended
    # Shared.
    atomic_word_t free          # free threads
    atomic_word_t begun         # threads that have been free once
    atomic_word_t gil_wanted    # one thread waits for the GIL to begin an exchange
    atomic_word_t alive         # threads that have not ended
    atomic_word_t ended
    atomic_word_t stop          # STOP_: drain, within the grace
    atomic_word_t grace_ms
    atomic_word_t revokes       # a slot has to_revoke
    atomic_word_t held          # the keeper leads and holds free threads back
    int64_t grace_ends_ms       # the leader's
    bint grace_is_over
    bint drains
    cell_t cells[CELLS]


cdef class Common:
    cdef common_t common


cdef class Crew:
    cdef crew_t* crew           # owned
    cdef Common common          # keeps the memory; the worker's other crews have it, too
    cdef list ending            # threads to be joined
    cdef list others            # the first crew's: those of the worker's other loops
    cdef Context context
    cdef list routers           # none without routes; those for TLS and for others, where they differ
    cdef Site sendfile_site     # of --sendfile-root; None without
    cdef readonly Row row       # what others see of this worker, or of this loop of it
    cdef list listeners
    cdef int kick_fd            # owned, where no other worker has one; or -1
    cdef object log
    cdef int access_fd
    cdef buffer_t lines         # of the main thread, in exchange for the journal's
    cdef buffer_t records
    cdef size_t written         # of lines
    cdef bint has_untold        # log records were left out, and it was not said yet
    cdef int write_error        # of the last attempt to write lines: an errno, or 0
    cdef int told_error         # what was said of it
    cdef uint64_t lost_lines    # since that was said
    cdef public double beat         # `attend` comes back after so many seconds at the latest; 0: any time
    cdef public int watched_fd      # and when this is readable or has ended; -1: none
    cdef bint is_started
    cdef bint is_closed
    cdef int lost               # threads, after the end
    cdef bint is_short          # of threads: too many were lost
    cdef double timeout         # seconds, as the log says it
    cdef dict thread_ids        # of the threads that have not ended, by slot; 0: not running yet
    cdef dict told_lost         # of threads that were given up: the exchange that this was said of, by slot

    cdef const router_t* _route(self, object plan, object guards) except? NULL
    cdef int serve_files(self, settings, bint is_first) except -1
    cdef bint is_over(self) noexcept
    cdef int thread_ends(self) noexcept
    cdef int look_after(self, list records) except -1
    cdef int _tell_of_lines(self, int error, bint is_fresh, uint64_t lost, list records) except -1
    cdef int close(self) noexcept
    # What greenlets do in another way (_greenlets):
    cdef int use_slots(self) except -1
    cdef int start_thread(self, int index) except -1
    cdef dict stacks(self)
    cdef int interrupt(self, int index, uint64_t number) except -1
    cdef int patience_ms(self) noexcept


cdef int crew_use_slots(crew_t* crew, Row row, int last, int measured) except -1
cdef void crew_queue_ready(crew_t* crew) noexcept nogil
cdef void crew_sift_queue(crew_t* crew) noexcept nogil
cdef void crew_look(crew_t* crew) noexcept nogil
cdef connection_t* crew_next(crew_t* crew) noexcept nogil
cdef int crew_begin(crew_t* crew, slot_t* slot, connection_t* connection) noexcept nogil
cdef int crew_after_leading(crew_t* crew, slot_t* slot) noexcept nogil
cdef bint crew_give_back(crew_t* crew, slot_t* slot) noexcept nogil
cdef void crew_took(crew_t* crew, slot_t* slot) noexcept nogil
cdef void crew_end(crew_t* crew) noexcept nogil
cdef void measure_took(slot_t* slot) noexcept nogil
cdef void let_go(atomic_head_t* spent) noexcept
