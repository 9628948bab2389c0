# What the core has to say: access log lines and log records, bounded, until the main thread writes them.

from libc.stdint cimport uint64_t, int64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._platform cimport pthread_mutex_t, wake_t


cdef enum:
    LEVEL_DEBUG = 10        # the numbers of the logging module
    LEVEL_INFO = 20
    LEVEL_WARNING = 30
    LEVEL_ERROR = 40


cdef struct journal_t:
    pthread_mutex_t mutex
    wake_t wake             # owned; the main thread waits for it
    bint is_open
    int users               # loops that have it
    buffer_t lines          # access log lines, to be written as they are
    buffer_t records        # one byte of level, the text, a zero byte
    uint64_t lost_lines     # did not fit, because nobody reads the log fast enough
    uint64_t lost_records   # past the rate, or did not fit
    int64_t second          # of the rate
    int rate                # records in that second
    int64_t told_second     # when the main thread last heard of lost records


cdef int journal_open(journal_t* journal) noexcept nogil
cdef void journal_share(journal_t* journal) noexcept nogil
cdef void journal_leave(journal_t* journal) noexcept nogil
cdef void journal_end(journal_t* journal) noexcept nogil
cdef void journal_line(journal_t* journal, const char* line, size_t size) noexcept nogil
cdef void journal_record(journal_t* journal, int level, const char* text) noexcept nogil
cdef bint journal_is_full(journal_t* journal) noexcept nogil
cdef bint journal_take(journal_t* journal, buffer_t* lines, buffer_t* records, bint is_last,
                       uint64_t* lost_lines, uint64_t* lost_records) noexcept nogil
