# What the processes of a server know of each other, in memory that they share: of each worker how it is and what it has
# counted, of each of its threads what it serves. A dead worker's rows say what it died of.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastwsgi._platform cimport atomic_word_t, bits_of, word_count, word_store_release, words_store, words_store_whole
from fastwsgi._refusals cimport REFUSAL_END


cdef enum:
    LOST_LEAST = 4              # replacements of lost threads that there are at least; and as many as threads
    # Octets that are shown, each a multiple of eight.
    LINE_SHOWN = 200            # of method and target
    CLIENT_SHOWN = 64
    ID_SHOWN = 64
    STACK_SHOWN = 8192          # of a sampled stack: the innermost frames
    LEAKS_SHOWN = 8192          # of what is known of leaks

# row_t.state: what a worker is at.
cpdef enum row_state_t:
    ROW_EMPTY
    ROW_STARTING                # not ready yet
    ROW_SERVING
    ROW_DRAINING                # it accepts nothing more

# row_t.wants: why a worker should be replaced.
cpdef enum wants_t:
    WANTS_NOTHING
    WANTS_REQUESTS              # --max-requests
    WANTS_MEMORY                # --max-worker-memory
    WANTS_LIFETIME              # --max-worker-lifetime
    WANTS_THREADS               # too many of its threads were lost

cdef enum:
    ROW_STATES = ROW_DRAINING + 1

# What connections wait for, each kind with a deadline of its own: those of one kind share one duration, so each kind is
# a queue that is already in order.
cdef enum deadline_t:
    DEADLINE_NONE
    DEADLINE_HEAD       # the whole request head
    DEADLINE_CONTENT    # between two reads of content
    DEADLINE_SEND       # without progress
    DEADLINE_IDLE       # keep-alive
    DEADLINE_LINGER
    DEADLINE_HANDSHAKE  # of TLS
    DEADLINES

# Where the time of a request goes.
cdef enum time_t:
    TIME_ALL            # from the complete request to the end of its exchange
    TIME_HEAD           # its head comes in
    TIME_CONTENT        # its content comes in
    TIME_QUEUE          # complete, it waits for a thread
    TIME_GIL            # its thread waits for the GIL
    TIME_APPLICATION
    TIME_SENDING        # its thread gives the answer to the kernel, or waits until the client has read
    TIME_DELIVERY       # the exchange is over, and the loop waits until the client has read the rest
    TIMES

cdef enum:
    # Upper bounds of a histogram that are told, each twice the one before: 2**-16 s (15 us) to 2**6 s (64 s).
    BOUNDS = 23
    BUCKETS = 38        # whatever 64 bits of nanoseconds come to (observe)
    METHODS = 10        # method_t
    STATUSES = 401      # 200 to 599, and last any other or none
    CLASSES = 5         # by the hundred

# shown_t.phase, as long as the thread is in the exchange; before and after that it waits for the GIL.
cdef enum phase_t:
    PHASE_APPLICATION
    PHASE_CLIENT                # all buffers are full: it waits until the client has read
    PHASE_CLOSE                 # in close() of the iterable
    PHASES


cdef struct shown_t:
    # What a thread serves. Written by the thread, but for `taken`.
    atomic_word_t number        # of the exchange; 0: none, or the text changes: what is read while it changes is void
    atomic_word_t phase
    atomic_word_t taken         # the number of the last exchange that was taken away from it; the leader's
    atomic_word_t bound_ns      # when it was given the exchange
    atomic_word_t began_ns      # when that began, with the GIL; 0: it has not, or is over
    atomic_word_t requests      # handed to the application so far
    atomic_word_t sizes         # of line, client and request_id, an octet each
    atomic_word_t condemned     # the number of an exchange that shall be taken away; an operator's
    atomic_word_t ident         # of the thread, by which faulthandler calls it
    # The last sampled stack, whose text is in the row's `stacks`; the main thread's.
    atomic_word_t stack_ns      # when; 0: there is none, or it changes: what is read while it changes is void
    atomic_word_t stack_number  # of which exchange
    atomic_word_t stack_size
    atomic_word_t line[LINE_SHOWN / 8]
    atomic_word_t client[CLIENT_SHOWN / 8]
    atomic_word_t request_id[ID_SHOWN / 8]


cdef struct histogram_t:
    atomic_word_t counts[BUCKETS]
    atomic_word_t sum_ns


cdef struct measures_t:
    # What becomes more with each request. Each word has one writer at a time: a thread, or whoever holds its slot; the
    # row's have the leader.
    histogram_t times[TIMES]    # of exchanges; what took no time is not counted: totals() adds it
    atomic_word_t requests[METHODS][CLASSES]
    atomic_word_t statuses[STATUSES]
    atomic_word_t received      # octets
    atomic_word_t sent
    atomic_word_t failed        # the application raised
    atomic_word_t pad[2]        # to whole cache lines: each has a writer of its own


cdef struct counters_t:
    # Written by the leader, or by a thread for its own exchange; read by anyone.
    atomic_word_t accepted
    atomic_word_t refused[REFUSAL_END]
    atomic_word_t lost_clients
    atomic_word_t expired[DEADLINES]
    atomic_word_t taken         # times the lead was taken from a thread that was away
    atomic_word_t passed        # times the lead was passed on before a request that waits
    atomic_word_t queued        # requests that waited for a thread
    atomic_word_t revoked
    atomic_word_t timeouts      # of them for --timeout
    atomic_word_t lost          # threads given up, for good or until they came back
    atomic_word_t left          # clients that left while their request waited for a thread
    atomic_word_t yielded       # times that another worker was better placed to accept
    atomic_word_t lock_waits    # times that the crew's mutex was not free; under that mutex
    atomic_word_t lock_wait_ns
    atomic_word_t handshakes    # of TLS, done
    atomic_word_t handshakes_resumed    # of them
    atomic_word_t handshakes_failed     # refused, left off, or too slow


cdef struct sums_t:
    # Of workers that have ended; all words.
    atomic_word_t ended[ROW_STATES]     # workers, by what they were at
    counters_t counters
    measures_t measures


cdef struct row_t:
    # One loop of a worker; the first one's speaks for the worker. The first line is written by Python, here or in the
    # supervisor, but for `wants`; of the other loops only `state` is.
    atomic_word_t pid
    atomic_word_t generation
    atomic_word_t state
    atomic_word_t beat          # when the main thread last had the GIL: monotonic nanoseconds
    atomic_word_t wants
    atomic_word_t born          # monotonic nanoseconds
    atomic_word_t pad[2]
    # What the others look at before they accept. It does as long as it has room and does not drain.
    atomic_word_t accepts
    atomic_word_t waiting       # requests that wait for a thread now; the crew's, under its mutex
    atomic_word_t full          # all its threads are in the application; the keeper's
    atomic_word_t yields        # it leaves what comes to others
    atomic_word_t connections   # live now
    atomic_word_t waits_for[DEADLINES]  # of them
    # What is known of leaks, whose text is behind the stacks; the main thread's.
    atomic_word_t leaks_number  # of times that it was written, twice; odd: it changes
    atomic_word_t leaks_size
    atomic_word_t slots         # threads that it has had, the lost and those in their place among them, so far ...
    atomic_word_t measured      # ... and how many measures they have: greenlets have one for all
    atomic_word_t pad_more
    counters_t counters
    measures_t measures         # of what the leader does itself


cdef struct board_t:
    # The head of the memory; the rows come behind it, and behind each row its threads, then their stacks, then the text
    # on leaks. Memory that is never touched takes no pages: stacks cost nothing until one is sampled.
    uint64_t magic
    uint64_t layout
    uint64_t workers
    uint64_t loops              # of each worker, side by side
    uint64_t threads            # of each loop
    atomic_word_t stopping      # the whole server stops
    # The supervisor's.
    atomic_word_t began         # when the server started: seconds since 1970
    atomic_word_t changes       # odd while the sums, and rows with them, change
    sums_t retired


cdef class Board:
    cdef Py_buffer memory
    cdef board_t* board         # in `memory`
    cdef readonly int workers
    cdef readonly int threads
    cdef readonly int loops


cdef class Row:
    cdef readonly Board board   # keeps the memory
    cdef row_t* row
    cdef shown_t* shown         # of thread 1 at [0]
    cdef atomic_word_t* stacks  # STACK_SHOWN octets for each of these
    cdef measures_t* measures   # the same
    cdef atomic_word_t* leaks_text      # LEAKS_SHOWN octets
    cdef readonly int index     # of the worker
    cdef readonly int loop      # from 0 on
    cdef list rest              # the rows of the worker's other loops; empty if this is one of them

    cdef inline int thread_number(self, int thread) noexcept nogil:
        """What a thread of this loop, from 1 on, is called in its worker: replacements come after all threads."""
        cdef int threads = self.board.threads
        if thread <= threads:
            return self.loop * threads + thread
        return self.board.loops * threads + self.loop * (threads_most(threads) - threads) + thread - threads

    cdef Row find_thread(self, int* number)
    cdef object serves(self, int thread)


cdef inline int threads_most(int threads) noexcept nogil:
    """The threads of a worker, and replacements of those that are lost."""
    return threads + max(threads, <int>LOST_LEAST)


cdef inline void observe(measures_t* measures, time_t time, int64_t ns) noexcept nogil:
    """Count a time; 0 is left out by those who have it often."""
    cdef histogram_t* histogram = &measures.times[<int>time]
    # In units of 2**-17 s, which is 2**27 / 17592 ns: half of the first bound.
    word_count(&histogram.counts[bits_of(<uint64_t>ns * 17592 >> 27 | 1) - 1], 1)
    word_count(&histogram.sum_ns, ns)


cdef inline void count_answer(measures_t* measures, int method, int status) noexcept nogil:
    """Count a request that is over; status 0: it had no answer."""
    cdef uint32_t index = status - 200
    if index >= STATUSES - 1:
        index = STATUSES - 1
    word_count(&measures.requests[method][index // 100], 1)
    word_count(&measures.statuses[index], 1)


cdef inline void shown_text(shown_t* shown, const char* line, size_t line_size, const char* client, size_t client_size,
                            const char* request_id, size_t id_size) noexcept nogil:
    """Write what a thread serves, cut to what is shown; shown.number is 0 meanwhile.

    Seven octets may be read behind line and client.
    """
    line_size = min(line_size, <size_t>LINE_SHOWN)
    client_size = min(client_size, <size_t>CLIENT_SHOWN)
    words_store_whole(shown.line, line, line_size)
    words_store_whole(shown.client, client, client_size)
    if id_size:
        id_size = min(id_size, <size_t>ID_SHOWN)
        words_store(shown.request_id, request_id, id_size)
    word_store_release(&shown.sizes, line_size | client_size << 8 | id_size << 16)


cdef row_t* board_row(board_t* board, int index) noexcept nogil     # of all loops of all workers
cdef bint row_is_busy(board_t* board, row_t* row) noexcept nogil
cdef bytes shown_line(shown_t* shown)
cdef void shown_stack(Row row, int thread, uint64_t number, const char* text, size_t size) noexcept
cdef Row private_row(int threads, int loops)
