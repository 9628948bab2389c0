# How often clients come: rates, counted for all workers in one table of shared memory.

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._networks cimport address_t
from fastwsgi._platform cimport atomic_word_t


cdef struct rates_t:
    # In shared memory; the words come behind it.
    uint64_t secret[3]          # so that nobody can choose addresses that share a word
    int64_t began_ns            # times in the words count from here
    uint64_t pad[4]             # to a cache line


cdef struct rate_t:
    rates_t* table              # borrowed
    uint64_t number             # what tells it from the other rates of the table
    uint64_t interval_us        # between two requests, on average
    uint64_t burst_us           # so far ahead of that a client may be


# May a client have one more at this moment? 0, or after how many microseconds it may. takes: if so, it has it.
cdef uint64_t rate_wait(const rate_t* rate, const address_t* address, int64_t now_ns, bint takes) noexcept nogil


cdef class Rates:
    cdef rates_t* table         # in `memory`
    cdef object memory
    cdef Py_buffer view
    cdef uint64_t given         # numbers


cdef class Rate:
    cdef rate_t rate
    cdef Rates rates            # keeps the memory
