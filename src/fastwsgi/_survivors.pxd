# What sampled requests leave behind: the blocks of memory that their threads have allocated, until they are freed.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "Python.h" nogil:
    ctypedef enum PyMemAllocatorDomain:
        PYMEM_DOMAIN_MEM
        PYMEM_DOMAIN_OBJ
    ctypedef struct PyMemAllocatorEx:
        void* ctx
        void* (*malloc)(void* ctx, size_t size) noexcept nogil
        void* (*calloc)(void* ctx, size_t number, size_t size) noexcept nogil
        void* (*realloc)(void* ctx, void* address, size_t size) noexcept nogil
        void (*free)(void* ctx, void* address) noexcept nogil


cdef enum:
    SAMPLES_MOST = 8192         # that are followed at a time; each has a number below
    FOLLOWED = 64               # blocks of a sample
    UNSURE = 1 << 15            # in block_t.place: perhaps another object had the block before, in the same request
    DOMAINS = 2                 # of Python's allocators: MEM and OBJ


cdef struct block_t:
    void* address               # NULL: nothing here
    uint32_t size
    uint16_t sample
    uint16_t place


cdef struct table_t:
    # Blocks by address; open addressing, and what comes behind a removed one moves up.
    block_t* blocks
    size_t mask                 # slots - 1
    size_t count


cdef struct place_t:
    # A line of code that allocates.
    void* code                  # of which code object, NULL: nothing here; only compared: it may be gone
    PyObject* filename          # owned
    PyObject* function          # owned
    int offset                  # in the code
    int first_line              # of the code
    int line
    bint is_library             # Python's own, an installed package, or ours


cdef struct sample_t:
    uint32_t blocks             # left at its end
    uint32_t followed           # of these
    uint32_t alive              # of the followed
    uint64_t octets             # in those that are alive
    uint32_t collected          # of the followed: they were garbage in cycles
    uint32_t older              # blocks that it has freed and that were there before it


cdef struct watch_t


cdef struct hook_t:
    # An allocator of Python's, as it was before it was wrapped.
    PyMemAllocatorEx base
    watch_t* watch


cdef struct watch_t:
    # All of it is touched with the GIL only.
    hook_t hooks[DOMAINS]
    unsigned long thread        # that is sampled; 0: none
    bint is_inside              # it is looking for the place of a block
    bint drains                 # it is emptying free lists, or putting away what was found
    bint collects               # cyclic garbage is being collected
    bint is_too_large           # the sample had more blocks than can be followed
    uint64_t seen               # blocks that the thread has allocated
    uint64_t steps              # frames that were looked at for that
    uint32_t older
    table_t fresh               # blocks of the sample that runs
    table_t kept                # those that were left by samples
    place_t* places
    int places_used
    const char* library         # where Python's own modules are; borrowed
    const char* ours
    sample_t samples[SAMPLES_MOST]


cdef class Survivors:
    cdef watch_t* watch         # never freed: somebody may have kept the wrapped allocators
    cdef bytes library
    cdef bytes ours
    cdef list unused            # numbers of samples
    cdef list over              # samples that have ended: (number, line, name)
    cdef list held              # what was in free lists before the sample that runs
    cdef list taken             # what it has left there
    cdef readonly int collections       # full ones, so far
    cdef readonly bint is_blind         # somebody has put back the allocators of before
    cdef readonly bint is_full          # a sample could not be followed: forget some
    cdef readonly uint64_t too_large    # samples that had too many blocks
    cdef int64_t serial         # of the sample that runs
    cdef int64_t began_ns       # that one, or the last
    cdef int64_t next_ns        # the next may
    cdef int64_t spent_ns       # CPU time on it so far, by us
    cdef int64_t entered_ns     # the thread's CPU clock at the beginning of its exchange
    cdef uint32_t keys_size     # of the smallest dict that is not empty
    cdef int latest             # number of the last sample that is followed
    cdef object name            # of its route, by the application

    cdef int64_t begin(self, int64_t now_ns) noexcept
    cdef bint is_sampled(self) noexcept
    cdef bint end(self, int64_t serial) noexcept
    cdef bint follow(self) except -1
    cdef bint comes_from_free_list(self, const block_t* block) noexcept
    cdef int label(self, bytes line) except -1
    cdef void give_up(self) noexcept
    cdef int drain(self, list taken, bint forgets) except -1
    cdef int forget_object(self, PyObject* one) except -1
    cdef int forget_block(self, void* address) except -1
