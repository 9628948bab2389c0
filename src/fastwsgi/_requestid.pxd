# The id of a request: what may be one, and new ones.

from libc.stdint cimport uint64_t


cdef enum:
    ID_MADE = 32            # octets of those that are made here
    ID_MOST = 128           # and of what is taken from a peer


cdef struct id_source_t:
    bint is_on              # --request-id
    char start[ID_MADE / 2] # what all of this worker begin with
    uint64_t keys[4]        # secret; the last two are odd


cdef int id_source_set(id_source_t* source, bint is_on) except -1
cdef bint id_is_sane(const char* text, size_t size) noexcept nogil
# number: of the request, another for each that this source makes an id for.
cdef void id_make(const id_source_t* source, uint64_t number, char* id) noexcept nogil
