"""How often clients come: rates, counted for all workers in one table of shared memory.

A rate allows each client one request in an interval, and to be ahead of that by a burst: the generic cell rate
algorithm, whose whole state is one time, when the client would be through with all that it has had. A word of the table
has that time and a tag of whose it is, so that one compare-and-swap takes a request: no lock, in no process. IPv6
addresses count by their first 64 bits, since that is what one customer has. Knows no socket and no request.
"""

import mmap
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

from fastwsgi._networks cimport address_is_ipv4, address_parse, address_t
from fastwsgi._platform cimport atomic_word_t, platform_now_ns, word_load_relaxed, word_replace

cimport cython

cdef enum:
    # A word is a tag of 20 bits and a time of 44: in microseconds that comes round after 203 days.
    TIME_BITS = 44
    WAYS = 8                # words of a set, which is a cache line: a client has one of them
    SETS = 16384            # a power of two; a MiB in all, of which what is never touched takes no memory
    SLACK_US = 60000000     # more than the clocks of two workers' turns are apart

cdef uint64_t TIME_MASK = (<uint64_t>1 << TIME_BITS) - 1

# How far ahead a client can be at most.
MOST_AHEAD = 24 * 3600
cdef uint64_t MOST_AHEAD_US = <uint64_t>24 * 3600 * 1000000


cdef inline uint64_t mixed(uint64_t number) noexcept nogil:
    """Another number for each, no bit of which tells anything of a single one (the last steps of SplitMix64)."""
    number = (number ^ number >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    number = (number ^ number >> 27) * <uint64_t>0x94D049BB133111EB
    return number ^ number >> 31


cdef uint64_t key_of(const rate_t* rate, const address_t* address) noexcept nogil:
    """What stands for a client of this rate; not 0 in its upper bits, where the tag is."""
    cdef const uint64_t* secret = rate.table.secret
    cdef uint64_t prefix, rest
    cdef uint64_t key = mixed(rate.number ^ secret[0])
    memcpy(&prefix, address.octets, 8)
    key = mixed(key ^ prefix ^ secret[1])
    if address_is_ipv4(address):
        memcpy(&rest, &address.octets[8], 8)
        key = mixed(key ^ rest ^ secret[2])
    return key if key >> TIME_BITS else key | <uint64_t>1 << TIME_BITS


cdef inline uint64_t ahead_of(uint64_t word, uint64_t now, uint64_t most) noexcept nogil:
    """How far the client of a word is ahead; 0 for one that is not, or was not heard of for long."""
    cdef uint64_t ahead = (word - now) & TIME_MASK
    return ahead if word and ahead <= most + SLACK_US else 0


cdef uint64_t rate_wait(const rate_t* rate, const address_t* address, int64_t now_ns, bint takes) noexcept nogil:
    """May a client have one more at this moment? 0, or after how many microseconds it may. takes: if so, it has it.

    A set that is full loses the client that is ahead least; that one begins anew.
    """
    cdef uint64_t now = <uint64_t>(now_ns - rate.table.began_ns) // 1000 & TIME_MASK
    cdef uint64_t key = key_of(rate, address)
    cdef atomic_word_t* words = <atomic_word_t*>(rate.table + 1) + (key & (SETS - 1)) * WAYS
    cdef atomic_word_t* at
    cdef uint64_t word, seen, ahead, least
    cdef int i
    while True:
        least = UINT64_MAX
        seen = 0
        at = words
        for i in range(WAYS):
            word = word_load_relaxed(&words[i])
            if word >> TIME_BITS == key >> TIME_BITS:
                at = &words[i]
                seen = word
                least = ahead_of(word, now, rate.interval_us + rate.burst_us)
                break
            ahead = ahead_of(word, now, MOST_AHEAD_US)
            if ahead < least:
                at = &words[i]
                seen = word
                least = ahead
        if seen >> TIME_BITS != key >> TIME_BITS:
            least = 0
        if least > rate.burst_us:
            return least - rate.burst_us
        if not takes or word_replace(
                at, seen, key >> TIME_BITS << TIME_BITS | ((now + least + rate.interval_us) & TIME_MASK)):
            return 0


# ---- Python face ----

@cython.final
cdef class Rates:
    """The table, for the processes that this one will fork and for itself."""

    def __cinit__(self):
        cdef bytes drawn = os.urandom(sizeof(uint64_t) * 3)
        self.memory = mmap.mmap(-1, sizeof(rates_t) + SETS * WAYS * sizeof(uint64_t))
        PyObject_GetBuffer(self.memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.table = <rates_t*>self.view.buf
        memcpy(self.table.secret, <const char*>drawn, sizeof(self.table.secret))
        self.table.began_ns = platform_now_ns()

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


@cython.final
cdef class Rate:
    """A rate of a table: one request in `interval` seconds, and `burst` of them ahead of that."""

    def __cinit__(self, Rates rates not None, double interval, int burst):
        if interval < 1e-6 or burst < 0 or interval * (burst + 1) > MOST_AHEAD:
            raise ValueError(f"an interval of {interval:g} s and a burst of {burst}: a microsecond at least, a day in all")
        self.rates = rates
        rates.given += 1
        self.rate.table = rates.table
        self.rate.number = rates.given
        self.rate.interval_us = <uint64_t>(interval * 1e6 + 0.5)
        self.rate.burst_us = self.rate.interval_us * <uint64_t>burst

    def wait(self, bytes address not None, *, bint takes=True, now_ns=None):
        """0.0 if the client may have one more, which it then has if it `takes` it; or in how many seconds it may."""
        cdef address_t client
        if not address_parse(address, <size_t>len(address), &client):
            raise ValueError(f"no address: {address!r}")
        return rate_wait(&self.rate, &client, platform_now_ns() if now_ns is None else now_ns, takes) / 1e6
