# What the processes of a server know of each other, in memory that they share: of each worker how it is and what it has
# counted, of each of its threads what it serves. A dead worker's row says what it died of.

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._platform cimport atomic_word_t, word_load_relaxed, word_store_relaxed


cdef enum:
    LOST_LEAST = 4              # replacements of lost threads that there are at least; and as many as threads
    # Octets that are shown, each a multiple of eight.
    LINE_SHOWN = 200            # of method and target
    CLIENT_SHOWN = 64
    ID_SHOWN = 64
    STACK_SHOWN = 8192          # of a sampled stack: the innermost frames

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
    # The last sampled stack, whose text is in the row's `stacks`; the main thread's.
    atomic_word_t stack_ns      # when; 0: there is none, or it changes: what is read while it changes is void
    atomic_word_t stack_number  # of which exchange
    atomic_word_t stack_size
    atomic_word_t line[LINE_SHOWN / 8]
    atomic_word_t client[CLIENT_SHOWN / 8]
    atomic_word_t request_id[ID_SHOWN / 8]


cdef struct counters_t:
    # Written by the leader, or by a thread for its own exchange; read by anyone.
    atomic_word_t accepted
    atomic_word_t connections   # live now
    atomic_word_t refused
    atomic_word_t lost_clients
    atomic_word_t expired
    atomic_word_t taken         # times the lead was taken from a thread that was away
    atomic_word_t passed        # times the lead was passed on before a request that waits
    atomic_word_t queued        # requests that waited for a thread
    atomic_word_t revoked
    atomic_word_t timeouts      # of them for --timeout
    atomic_word_t lost          # threads given up, for good or until they came back
    atomic_word_t left          # clients that left while their request waited for a thread
    atomic_word_t yielded       # times that another worker was better placed to accept


cdef struct row_t:
    # One worker. The first line is written by Python, here or in the supervisor, but for `wants`.
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
    atomic_word_t pad_more[2]
    counters_t counters


cdef struct board_t:
    # The head of the memory; the rows come behind it, and behind each row its threads, then their stacks. Memory that
    # is never touched takes no pages: stacks cost nothing until one is sampled.
    uint64_t magic
    uint64_t layout
    uint64_t workers
    uint64_t threads            # of each row
    atomic_word_t stopping      # the whole server stops
    atomic_word_t pad[3]


cdef class Board:
    cdef Py_buffer memory
    cdef board_t* board         # in `memory`
    cdef readonly int workers
    cdef readonly int threads


cdef class Row:
    cdef Board board            # keeps the memory
    cdef row_t* row
    cdef shown_t* shown         # of thread 1 at [0]
    cdef atomic_word_t* stacks  # STACK_SHOWN octets for each of these
    cdef readonly int index


cdef inline int threads_most(int threads) noexcept nogil:
    """The threads of a worker, and replacements of those that are lost."""
    return threads + max(threads, <int>LOST_LEAST)


cdef row_t* board_row(board_t* board, int index) noexcept nogil
cdef void shown_text(shown_t* shown, const char* line, size_t line_size, const char* client, size_t client_size,
                     const char* request_id, size_t id_size) noexcept nogil
cdef void shown_stack(Row row, int thread, uint64_t number, const char* text, size_t size) noexcept
cdef Row private_row(int threads)
