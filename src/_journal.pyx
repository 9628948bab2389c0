"""What the core has to say, kept until the main thread of the worker writes it.

Writing to a log can block (a full pipe, a slow disk), and the loop may not. So lines and records go into two bounded
buffers; what does not fit is counted, and the count is said. Does not know what a line means.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset, strlen

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t
from fastwsgi._platform cimport (
    platform_now_ns, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    wake_close, wake_hint, wake_open_pipe, wake_write,
)

cdef enum:
    LINES_MOST = 1 << 20        # bytes of access log lines that may wait
    RECORDS_MOST = 1 << 16
    RECORDS_PER_SECOND = 20     # an attack may not fill the disk with log records


cdef int journal_open(journal_t* journal) noexcept nogil:
    """Make it ready; 0, or -1 with errno."""
    memset(journal, 0, sizeof(journal_t))
    if wake_open_pipe(&journal.wake) < 0:
        return -1
    if pthread_mutex_init(&journal.mutex, NULL):
        wake_close(&journal.wake)
        return -1
    journal.is_open = True
    return 0


cdef void journal_end(journal_t* journal) noexcept nogil:
    """Give back what it has, where that was not done yet; no loop has it."""
    if journal.is_open:
        journal.is_open = False
        wake_close(&journal.wake)
        pthread_mutex_destroy(&journal.mutex)
        buffer_free(&journal.lines)
        buffer_free(&journal.records)


cdef void journal_share(journal_t* journal) noexcept nogil:
    """A loop has it from now on."""
    pthread_mutex_lock(&journal.mutex)
    journal.users += 1
    pthread_mutex_unlock(&journal.mutex)


cdef void journal_leave(journal_t* journal) noexcept nogil:
    """A loop does not have it any more; the last one ends it."""
    cdef int users
    pthread_mutex_lock(&journal.mutex)
    journal.users -= 1
    users = journal.users
    pthread_mutex_unlock(&journal.mutex)
    if not users:
        journal_end(journal)


cdef void journal_line(journal_t* journal, const char* line, size_t size) noexcept nogil:
    """Keep an access log line; whoever waits for the journal need not look at anything else for it."""
    cdef bint is_first = False
    pthread_mutex_lock(&journal.mutex)
    if journal.lines.size + size > LINES_MOST or buffer_append(&journal.lines, line, size) < 0:
        journal.lost_lines += 1
    else:
        is_first = journal.lines.size == size
    pthread_mutex_unlock(&journal.mutex)
    if is_first:
        wake_hint(&journal.wake)


cdef void journal_record(journal_t* journal, int level, const char* text) noexcept nogil:
    """Keep a log record; at most RECORDS_PER_SECOND, the others are counted."""
    cdef size_t size = strlen(text)
    cdef int64_t second = platform_now_ns() // 1000000000
    cdef char mark = <char>level
    cdef bint wakes = True
    pthread_mutex_lock(&journal.mutex)
    if second != journal.second:
        journal.second = second
        journal.rate = 0
    journal.rate += 1
    if journal.rate > RECORDS_PER_SECOND or journal.records.size + size + 2 > RECORDS_MOST:
        journal.lost_records += 1
        wakes = journal.lost_records == 1       # it is said within a second that there are some
    elif buffer_append(&journal.records, &mark, 1) < 0 or buffer_append(&journal.records, text, size + 1) < 0:
        journal.records.size = 0
        journal.lost_records += 1
        wakes = journal.lost_records == 1
    pthread_mutex_unlock(&journal.mutex)
    if wakes:
        wake_write(&journal.wake)


cdef bint journal_is_full(journal_t* journal) noexcept nogil:
    """Lines have been left out since the last journal_take."""
    cdef bint is_full
    pthread_mutex_lock(&journal.mutex)
    is_full = journal.lost_lines > 0
    pthread_mutex_unlock(&journal.mutex)
    return is_full


cdef bint journal_take(journal_t* journal, buffer_t* lines, buffer_t* records, bint is_last,
                       uint64_t* lost_lines, uint64_t* lost_records) noexcept nogil:
    """Exchange the full buffers for the empty ones given.

    Lost records are told of once a second, for that is a record too, and at the end. True while some are untold: take
    again in a second.
    """
    cdef buffer_t swap
    cdef int64_t second = platform_now_ns() // 1000000000
    cdef bint is_untold
    lines.size = 0
    records.size = 0
    pthread_mutex_lock(&journal.mutex)
    swap = journal.lines
    journal.lines = lines[0]
    lines[0] = swap
    swap = journal.records
    journal.records = records[0]
    records[0] = swap
    lost_lines[0] = journal.lost_lines
    journal.lost_lines = 0
    lost_records[0] = 0
    if journal.lost_records and (is_last or journal.told_second != second):
        lost_records[0] = journal.lost_records
        journal.lost_records = 0
        journal.told_second = second
    is_untold = journal.lost_records > 0
    pthread_mutex_unlock(&journal.mutex)
    return is_untold
