"""What the processes of a server know of each other, in memory that they share.

A board has a row for each loop of each worker, and each row a part for each of its threads. The core writes it as it
goes; anyone with the same memory reads it, also when the worker is dead. To Python a worker is one `Row`, however many
loops it has. Knows no socket, no connection and no process.
"""

import mmap
import time
from collections import namedtuple
from typing import NamedTuple

from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from fastwsgi._platform cimport (
    platform_now_ns, platform_wall_seconds, word_count, word_load, word_load_relaxed, word_store, word_store_relaxed,
    word_store_release, words_load, words_store,
)
from fastwsgi._refusals cimport refusal_info

cimport cython

cdef enum:
    LAYOUT = 9                  # counts up when a struct of the .pxd changes
    LINE_BYTES = 64             # rows and threads begin on cache lines of their own
    LOOKS = 100                 # at sums that change meanwhile

cdef uint64_t MAGIC = <uint64_t>0x6472616f62207766      # "fw board"

# What a thread is at, for people.
cdef tuple PHASE_TEXT = ("in the application", "waiting for its client", "in close()")


# Upper bounds of the histograms, in seconds; what is more comes last.
TIME_BOUNDS = tuple([2.0 ** (i - 16) for i in range(BOUNDS)])

cdef tuple TIME_NAMES = ("all", "head", "content", "queue", "gil", "application", "sending", "delivery")
cdef tuple METHOD_NAMES = ("other", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
cdef tuple CLASS_NAMES = ("2xx", "3xx", "4xx", "5xx", "other")
cdef tuple DEADLINE_NAMES = ("none", "head", "content", "sending", "idle", "closing", "handshake")
cdef tuple ROW_NAMES = ("starting", "starting", "serving", "leaving")

# What workers have counted, those of now and those before them; see the .pyi.
Totals = namedtuple("Totals", (
    "began workers threads busy connections accepted requests statuses times received sent failed refused expired "
    "lost_clients left_queued queued lead_taken lead_passed timeouts revoked lost_threads yielded lock_waits "
    "lock_wait_seconds handshakes ended"
))


cdef inline size_t in_lines(size_t size) noexcept nogil:
    return (size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES


cdef inline size_t worker_size(int threads) noexcept nogil:
    """What of a row begins anew with each worker: all but the text of stacks and on leaks."""
    return in_lines(sizeof(row_t)) + threads_most(threads) * (in_lines(sizeof(shown_t)) + sizeof(measures_t))


cdef inline size_t row_size(int threads) noexcept nogil:
    return worker_size(threads) + threads_most(threads) * <size_t>STACK_SHOWN + <size_t>LEAKS_SHOWN


cdef row_t* board_row(board_t* board, int index) noexcept nogil:
    """A row by its place: those of a worker's loops stand side by side."""
    return <row_t*>(<char*>board + in_lines(sizeof(board_t)) + <size_t>index * row_size(<int>board.threads))


cdef inline shown_t* row_shown(row_t* row) noexcept nogil:
    """What the threads of a row serve; thread 1 at [0]."""
    return <shown_t*>(<char*>row + in_lines(sizeof(row_t)))


cdef inline int row_slots(board_t* board, row_t* row) noexcept nogil:
    """How many slots there are to look at; memory that others write to leads nowhere beyond it."""
    return <int>min(word_load_relaxed(&row.slots), <uint64_t>threads_most(<int>board.threads))


cdef inline int row_measured(board_t* board, row_t* row) noexcept nogil:
    return <int>min(word_load_relaxed(&row.measured), <uint64_t>threads_most(<int>board.threads))


cdef bint row_is_busy(board_t* board, row_t* row) noexcept nogil:
    """One of its threads serves something."""
    cdef int i
    for i in range(row_slots(board, row)):
        if word_load_relaxed(&row_shown(row)[i].number):
            return True
    return False


cdef bytes shown_line(shown_t* shown):
    """Method and target, for the thread itself: what it serves, or served last."""
    cdef char octets[LINE_SHOWN]
    cdef uint64_t size = word_load_relaxed(&shown.sizes) & 255
    words_load(octets, shown.line, (size + 7) // 8)
    return octets[:size]


cdef void shown_stack(Row row, int thread, uint64_t number, const char* text, size_t size) noexcept:
    """Write where a thread (from 1 on) was in an exchange; one writer at a time."""
    cdef shown_t* shown = &row.shown[thread - 1]
    size = min(size, <size_t>STACK_SHOWN)
    word_store(&shown.stack_ns, 0)
    words_store(row.stacks + (thread - 1) * (STACK_SHOWN / 8), text, size)
    word_store_relaxed(&shown.stack_number, number)
    word_store_relaxed(&shown.stack_size, size)
    word_store_release(&shown.stack_ns, <uint64_t>platform_now_ns())


class Running(NamedTuple):
    """What a thread serves."""

    thread: int
    phase: str
    line: str
    client: str
    request_id: str
    age: float
    number: int
    ident: int
    stack: str
    stack_age: float


cdef tuple sampled(Row row, int thread, uint64_t number, int64_t now_ns):
    """The last sample of an exchange: its text and its age in seconds; nothing and 0 if there is none."""
    cdef shown_t* shown = &row.shown[thread - 1]
    cdef char octets[STACK_SHOWN]
    cdef uint64_t at_ns = word_load(&shown.stack_ns)
    cdef uint64_t size = word_load_relaxed(&shown.stack_size)
    if not at_ns or word_load_relaxed(&shown.stack_number) != number or size > STACK_SHOWN:
        return "", 0.0
    words_load(octets, row.stacks + (thread - 1) * (STACK_SHOWN / 8), (size + 7) // 8)
    if word_load_relaxed(&shown.stack_ns) != at_ns:
        return "", 0.0
    # The first octets may be the rest of a character that was cut.
    return (<bytes>octets[:size]).decode("utf-8", "replace"), max(now_ns - <int64_t>at_ns, 0) / 1e9


cdef str text_of(atomic_word_t* words, uint64_t size):
    """Octets of a request, for a log: what is not printable ASCII is escaped."""
    cdef char octets[LINE_SHOWN]
    words_load(octets, words, (size + 7) // 8)
    return (<bytes>octets[:size]).decode("latin-1").encode("unicode_escape").decode("ascii")


cdef object served(Row row, int thread, int64_t now_ns):
    """What a thread serves, as Row.running has it; None when it serves nothing, or goes on to the next just now."""
    cdef shown_t* shown = &row.shown[thread - 1]
    cdef uint64_t number = word_load(&shown.number)
    cdef uint64_t sizes = word_load(&shown.sizes)
    cdef uint64_t phase = word_load_relaxed(&shown.phase)
    cdef int64_t since_ns = <int64_t>word_load_relaxed(&shown.began_ns)
    cdef uint64_t line_size = sizes & 255, client_size = sizes >> 8 & 255, id_size = sizes >> 16 & 255
    # Memory that others write to: nothing in it may lead beyond it.
    if not number or line_size > LINE_SHOWN or client_size > CLIENT_SHOWN or id_size > ID_SHOWN or phase >= PHASES:
        return None
    if since_ns:
        what = PHASE_TEXT[phase]
    else:
        what = "waiting for the GIL"
        since_ns = <int64_t>word_load_relaxed(&shown.bound_ns)
    if word_load_relaxed(&shown.taken) == number:
        what += ", taken away"
    line = text_of(shown.line, line_size)
    client = text_of(shown.client, client_size) or "a unix socket"
    request_id = text_of(shown.request_id, id_size)
    stack, stack_age = sampled(row, thread, number, now_ns)
    if word_load_relaxed(&shown.number) != number:
        return None
    return Running(row.thread_number(thread), what, line, client, request_id, max(now_ns - since_ns, 0) / 1e9, number,
                   word_load_relaxed(&shown.ident), stack, stack_age)


cdef void words_add(atomic_word_t* sums, atomic_word_t* words, size_t size) noexcept nogil:
    """Add so many octets of words to others, which nobody else writes to."""
    cdef size_t i
    for i in range(size // sizeof(atomic_word_t)):
        word_store_release(&sums[i], word_load(&sums[i]) + word_load(&words[i]))


cdef void words_clear(atomic_word_t* words, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size // sizeof(atomic_word_t)):
        word_store_release(&words[i], 0)


cdef void sums_add_row(sums_t* sums, Row row) noexcept:
    """Add what a worker has counted."""
    cdef int i
    words_add(<atomic_word_t*>&sums.counters, <atomic_word_t*>&row.row.counters, sizeof(counters_t))
    words_add(<atomic_word_t*>&sums.measures, <atomic_word_t*>&row.row.measures, sizeof(measures_t))
    for i in range(row_measured(row.board.board, row.row)):
        words_add(<atomic_word_t*>&sums.measures, <atomic_word_t*>&row.measures[i], sizeof(measures_t))


cdef inline void change(board_t* board) noexcept nogil:
    """Before and after what is retired changes."""
    word_store(&board.changes, word_load(&board.changes) + 1)


@cython.final
cdef class Board:
    """Memory with a row for each worker: a writable buffer of Board.size() octets, zeroed when it is new."""

    def __init__(self, memory, int workers, int threads, int loops=1):
        """Lay it out, or find again what was laid out in it; raise ValueError if that is something else.

        `threads` are those of each loop; there is room for replacements of lost ones, too.
        """
        cdef board_t* board
        if self.board != NULL:
            raise RuntimeError("a board is made once")
        if workers < 1 or threads < 1 or loops < 1:
            raise ValueError("a board has at least one worker with one thread")
        PyObject_GetBuffer(memory, &self.memory, PyBUF_CONTIG)
        if <size_t>self.memory.len < Board.size(workers, threads, loops) or <size_t>self.memory.buf % 8:
            raise ValueError(f"a board of {workers} workers with {threads} threads needs "
                             f"{Board.size(workers, threads, loops)} octets, not {self.memory.len}")
        board = <board_t*>self.memory.buf
        if not board.magic:
            board.magic = MAGIC
            board.layout = LAYOUT
            board.workers = <uint64_t>workers
            board.threads = <uint64_t>threads
            board.loops = <uint64_t>loops
            word_store(&board.began, <uint64_t>platform_wall_seconds())
        elif (board.magic != MAGIC or board.layout != LAYOUT or board.workers != <uint64_t>workers
                or board.threads != <uint64_t>threads or board.loops != <uint64_t>loops):
            raise ValueError("the memory is laid out for another version of fastwsgi, or for other numbers of workers "
                             "and threads")
        self.board = board
        self.workers = workers
        self.threads = threads
        self.loops = loops

    def __dealloc__(self):
        PyBuffer_Release(&self.memory)

    @staticmethod
    def size(int workers, int threads, int loops=1):
        """Octets that a board of so many workers takes, each with so many loops of so many threads."""
        return in_lines(sizeof(board_t)) + <size_t>workers * <size_t>loops * row_size(threads)

    @property
    def stopping(self):
        """The whole server stops: it is not ready any more."""
        return word_load(&self.board.stopping) != 0

    @stopping.setter
    def stopping(self, bint value):
        word_store(&self.board.stopping, value)

    def row(self, int index):
        """The row of a worker, from 0 on."""
        cdef Row row
        if not 0 <= index < self.workers:
            raise IndexError(f"no row {index}: there are {self.workers}")
        row = row_of(self, index, 0)
        row.rest = [row_of(self, index, loop) for loop in range(1, self.loops)]
        return row

    def inherit(self, Board former not None):
        """Take over what was counted by workers of another board, which have all ended."""
        change(self.board)
        change(former.board)
        words_add(<atomic_word_t*>&self.board.retired, <atomic_word_t*>&former.board.retired, sizeof(sums_t))
        words_clear(<atomic_word_t*>&former.board.retired, sizeof(sums_t))
        word_store(&self.board.began, min(word_load(&self.board.began), word_load(&former.board.began)))
        change(former.board)
        change(self.board)


cdef Row row_of(Board board, int index, int loop):
    """The row of one loop of a worker."""
    cdef Row row = <Row>Row.__new__(Row)
    row.board = board
    row.index = index
    row.loop = loop
    row.rest = []
    row.row = board_row(board.board, index * board.loops + loop)
    row.shown = row_shown(row.row)
    row.stacks = <atomic_word_t*>(<char*>row.row + worker_size(board.threads))
    row.leaks_text = row.stacks + threads_most(board.threads) * (STACK_SHOWN / 8)
    row.measures = <measures_t*>(<char*>row.shown + threads_most(board.threads) * in_lines(sizeof(shown_t)))
    return row


@cython.final
cdef class Row:
    """How a worker is, what it has counted, and what its threads serve; from Board.row()."""

    def __init__(self, *args, **kwargs):
        """Raise TypeError: rows come from Board.row()."""
        raise TypeError("rows come from Board.row()")

    def clear(self):
        """Make it ready for a new worker; the one before must be dead. The board keeps what it counted."""
        cdef board_t* board = self.board.board
        cdef uint64_t state = min(word_load(&self.row.state), <uint64_t>ROW_DRAINING)
        cdef Row one
        change(board)
        if word_load(&self.row.pid):
            word_count(&board.retired.ended[state], 1)
        for one in (self, *self.rest):
            sums_add_row(&board.retired, one)
            # Pages that nobody has written to are left alone: there may be many of them.
            words_clear(<atomic_word_t*>one.shown, row_slots(board, one.row) * in_lines(sizeof(shown_t)))
            words_clear(<atomic_word_t*>one.measures, row_measured(board, one.row) * sizeof(measures_t))
            words_clear(<atomic_word_t*>one.row, in_lines(sizeof(row_t)))
        change(board)

    def of_loop(self, int loop):
        """The row of one loop of this worker; the first is this one."""
        return self.rest[loop - 1] if loop else self

    @property
    def pid(self):
        return <int64_t>word_load_relaxed(&self.row.pid)

    @pid.setter
    def pid(self, uint64_t value):
        word_store_relaxed(&self.row.pid, value)

    @property
    def generation(self):
        return word_load_relaxed(&self.row.generation)

    @generation.setter
    def generation(self, uint64_t value):
        word_store_relaxed(&self.row.generation, value)

    @property
    def state(self):
        """One of row_state_t; Python's to write."""
        return word_load_relaxed(&self.row.state)

    @state.setter
    def state(self, uint64_t value):
        cdef Row one
        word_store_relaxed(&self.row.state, value)
        for one in self.rest:
            word_store_relaxed(&one.row.state, value)

    @property
    def beat(self):
        """When the main thread last had the GIL: nanoseconds of the monotonic clock; 0: it had not yet."""
        return word_load_relaxed(&self.row.beat)

    @beat.setter
    def beat(self, uint64_t value):
        word_store_relaxed(&self.row.beat, value)

    @property
    def wants(self):
        """Why it should be replaced: one of wants_t."""
        return word_load_relaxed(&self.row.wants)

    @wants.setter
    def wants(self, uint64_t value):
        word_store_relaxed(&self.row.wants, value)

    @property
    def born(self):
        """When it began: nanoseconds of the monotonic clock."""
        return word_load_relaxed(&self.row.born)

    @born.setter
    def born(self, uint64_t value):
        word_store_relaxed(&self.row.born, value)

    leaks_most = LEAKS_SHOWN

    @property
    def leaks(self):
        """What the worker knows of leaks, as it wrote it (JSON); empty: nothing, or it writes at this moment."""
        cdef char octets[LEAKS_SHOWN]
        cdef uint64_t number = word_load(&self.row.leaks_number)
        cdef uint64_t size = word_load_relaxed(&self.row.leaks_size)
        if number & 1 or size > LEAKS_SHOWN:
            return ""
        words_load(octets, self.leaks_text, (size + 7) // 8)
        if word_load(&self.row.leaks_number) != number:
            return ""
        return (<bytes>octets[:size]).decode("ascii", "replace")

    @leaks.setter
    def leaks(self, str text not None):
        cdef bytes octets = text.encode("ascii")
        if len(octets) > LEAKS_SHOWN:
            raise ValueError(f"more than {LEAKS_SHOWN} octets")
        word_store(&self.row.leaks_number, word_load(&self.row.leaks_number) + 1)
        words_store(self.leaks_text, octets, <size_t>len(octets))
        word_store_release(&self.row.leaks_size, <uint64_t>len(octets))
        word_store(&self.row.leaks_number, word_load(&self.row.leaks_number) + 1)

    cdef Row find_thread(self, int* number):
        """The loop whose thread is called so, and its number there; None if there is none."""
        cdef int threads = self.board.threads
        cdef int more = threads_most(threads) - threads
        cdef int place = number[0] - 1
        cdef int base = 1
        if place >= self.board.loops * threads:
            place -= self.board.loops * threads
            base += threads
            threads = more
        if not 0 <= place < self.board.loops * threads:
            return None
        number[0] = base + place % threads
        return self.of_loop(place // threads)

    def condemn(self, int thread, uint64_t number):
        """Have an exchange taken away from its thread, within a second; False if it does not run any more."""
        cdef Row one = self.find_thread(&thread)
        if one is None or not number or word_load(&one.shown[thread - 1].number) != number:
            return False
        word_store(&one.shown[thread - 1].condemned, number)
        return True

    def counters(self):
        """Counts since the start (`requests`) and of this moment (`connections`, `exchanges`, `waiting`), by name."""
        cdef Row one
        counts = counts_of(self)
        for one in self.rest:
            counts = {name: count + counts[name] for name, count in counts_of(one).items()}
        return counts

    cdef object serves(self, int thread):
        """What a thread of this loop (from 1 on) serves; None if nothing."""
        return served(self, thread, platform_now_ns())

    def running(self):
        """What its threads serve: a list of `Running`.

        Threads that go on to their next exchange at this moment are left out.
        """
        cdef int i
        cdef int64_t now_ns = platform_now_ns()
        cdef Row one
        found = []
        for one in (self, *self.rest):
            for i in range(row_slots(one.board.board, one.row)):
                what = served(one, i + 1, now_ns)
                if what is not None:
                    found.append(what)
        return found


cdef dict counts_of(Row row):
    """What a loop has counted, by name."""
    cdef counters_t* counters = &row.row.counters
    cdef int i
    cdef uint64_t requests = 0, exchanges = 0, refused = 0, expired = 0
    for i in range(row_slots(row.board.board, row.row)):
        requests += word_load_relaxed(&row.shown[i].requests)
        exchanges += word_load_relaxed(&row.shown[i].number) != 0
    for i in range(REFUSAL_END):
        refused += word_load_relaxed(&counters.refused[i])
    for i in range(DEADLINES):
        expired += word_load_relaxed(&counters.expired[i])
    return {
        "accepted": word_load_relaxed(&counters.accepted),
        "connections": word_load_relaxed(&row.row.connections),
        "requests": requests,
        "exchanges": exchanges,
        "refused": refused,
        "lost_clients": word_load_relaxed(&counters.lost_clients),
        "expired": expired,
        "queued": word_load_relaxed(&counters.queued),
        "waiting": word_load_relaxed(&row.row.waiting),
        "lead_taken": word_load_relaxed(&counters.taken),
        "lead_passed": word_load_relaxed(&counters.passed),
        "revoked": word_load_relaxed(&counters.revoked),
        "timeouts": word_load_relaxed(&counters.timeouts),
        "lost_threads": word_load_relaxed(&counters.lost),
        "left_queued": word_load_relaxed(&counters.left),
        "yielded": word_load_relaxed(&counters.yielded),
        "handshakes": word_load_relaxed(&counters.handshakes),
        "handshakes_resumed": word_load_relaxed(&counters.handshakes_resumed),
        "handshakes_failed": word_load_relaxed(&counters.handshakes_failed),
    }


cdef list buckets_of(histogram_t* histogram):
    """Counts by bound, not cumulative, and last of what is beyond them."""
    counts = [word_load_relaxed(&histogram.counts[i]) for i in range(BUCKETS)]
    return [*counts[:BOUNDS], sum(counts[BOUNDS:])]


cdef tuple histogram_of(sums_t* sums, int time, uint64_t exchanges):
    """Counts by bound and the sum in seconds. What took no time was not counted (exchange_times)."""
    counts = buckets_of(&sums.measures.times[time])
    counts[0] += max(exchanges - sum(counts), 0)
    return counts, word_load_relaxed(&sums.measures.times[time].sum_ns) / 1e9


cdef object totals_of(sums_t* sums, uint64_t began, list rows):
    cdef counters_t* counters = &sums.counters
    cdef measures_t* measures = &sums.measures
    cdef Row row
    cdef int i, j
    workers = dict.fromkeys(ROW_NAMES, 0)
    connections = dict.fromkeys(("handshake", "idle", "head", "content", "queued", "running", "sending", "closing"), 0)
    busy = threads = 0
    for row in rows:
        if not row.loop:
            workers[ROW_NAMES[min(row.state, <int>ROW_DRAINING)]] += 1
        if not row.loop or row_slots(row.board.board, row.row):
            threads += row.board.threads
        for i in range(DEADLINE_HEAD, DEADLINES):
            connections[DEADLINE_NAMES[i]] += word_load_relaxed(&row.row.waits_for[i])
        connections["queued"] += word_load_relaxed(&row.row.waiting)
        for i in range(row_slots(row.board.board, row.row)):
            busy += word_load_relaxed(&row.shown[i].number) != 0
    connections["running"] = busy
    exchanges = sum(buckets_of(&measures.times[<int>TIME_ALL]))
    return Totals(
        began=began,
        workers=workers,
        threads=threads,
        busy=busy,
        connections=connections,
        accepted=word_load_relaxed(&counters.accepted),
        requests={(METHOD_NAMES[i], CLASS_NAMES[j]): word_load_relaxed(&measures.requests[i][j])
                  for i in range(METHODS) for j in range(CLASSES)},
        statuses={(i + 200 if i < STATUSES - 1 else 0): word_load_relaxed(&measures.statuses[i])
                  for i in range(STATUSES) if word_load_relaxed(&measures.statuses[i])},
        times={TIME_NAMES[i]: histogram_of(sums, i, exchanges) for i in range(TIMES)},
        received=word_load_relaxed(&measures.received),
        sent=word_load_relaxed(&measures.sent),
        failed=word_load_relaxed(&measures.failed),
        refused={refusal_info(i).name.decode(): word_load_relaxed(&counters.refused[i])
                 for i in range(1, REFUSAL_END)},
        expired={DEADLINE_NAMES[i]: word_load_relaxed(&counters.expired[i]) for i in range(DEADLINE_HEAD, DEADLINES)},
        lost_clients=word_load_relaxed(&counters.lost_clients),
        left_queued=word_load_relaxed(&counters.left),
        queued=word_load_relaxed(&counters.queued),
        lead_taken=word_load_relaxed(&counters.taken),
        lead_passed=word_load_relaxed(&counters.passed),
        timeouts=word_load_relaxed(&counters.timeouts),
        revoked=word_load_relaxed(&counters.revoked),
        lost_threads=word_load_relaxed(&counters.lost),
        yielded=word_load_relaxed(&counters.yielded),
        lock_waits=word_load_relaxed(&counters.lock_waits),
        lock_wait_seconds=word_load_relaxed(&counters.lock_wait_ns) / 1e9,
        handshakes={
            "full": word_load_relaxed(&counters.handshakes) - word_load_relaxed(&counters.handshakes_resumed),
            "resumed": word_load_relaxed(&counters.handshakes_resumed),
            "failed": word_load_relaxed(&counters.handshakes_failed),
        },
        ended={name: sum([word_load_relaxed(&sums.ended[i]) for i in range(ROW_STATES) if ROW_NAMES[i] == name])
               for name in ROW_NAMES[1:]},
    )


def totals(boards):
    """What the workers of these boards have counted in all, as Totals; those that have ended, too.

    What is counted never becomes less, for the boards of one server that does not lose any.
    """
    cdef sums_t sums
    cdef Board board
    cdef Row row, one
    boards = list(boards)
    for _ in range(LOOKS):
        before = [word_load(&board.board.changes) for board in boards]
        memset(&sums, 0, sizeof(sums))
        rows = []
        for board in boards:
            words_add(<atomic_word_t*>&sums, <atomic_word_t*>&board.board.retired, sizeof(sums_t))
            for i in range(board.workers):
                row = board.row(i)
                if row.pid:
                    for one in (row, *row.rest):
                        rows.append(one)
                        sums_add_row(&sums, one)
        if before == [word_load(&board.board.changes) for board in boards] and not any(n & 1 for n in before):
            break
        time.sleep(0.001)
    began = min([word_load(&board.board.began) for board in boards], default=0)
    return totals_of(&sums, began, rows)


cdef Row private_row(int threads, int loops):
    """The row of a worker, in memory of this process alone."""
    memory = mmap.mmap(-1, Board.size(1, threads, loops), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return Board(memory, 1, threads, loops).row(0)
