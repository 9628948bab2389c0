# Content codings: which one an answer gets, what its head says then, and the coder of one answer.

from libc.stdint cimport uint8_t, uint64_t

from fastwsgi._parser cimport parser_t
from fastwsgi._response cimport head_t

cdef enum coding_t:
    CODING_GZIP
    CODING_BR
    CODING_ZSTD
    CODING_END
    CODING_NONE = -1        # this client gets the content as it is, another one may not


cdef struct media_type_t:
    # A pattern such as text/* or *+json: what stands before the star and what behind it, borrowed. Without a star all
    # of it is in the first.
    const char* before
    const char* behind
    uint8_t before_size
    uint8_t behind_size
    bint is_exact


cdef class Encodings:
    # What the settings decide, made at start; never changes.
    cdef readonly uint64_t least    # content that is known to be shorter is left as it is
    cdef object lock                # held while an answer gets its coder
    cdef object make_lock           # for those of coders
    cdef list makers                # of streams (compression.py), by coding_t; None: not among the settings
    cdef int order[<int>CODING_END]    # by coding_t
    cdef int count                  # of `order`
    cdef list patterns              # bytes that `types` points into
    cdef media_type_t* types        # owned
    cdef size_t type_count

    cdef bint can_code(self, const head_t* head) noexcept       # an answer with this head may get a coding
    # The coding that an answer to this request gets then; or CODING_NONE.
    cdef int choose(self, const parser_t* parser, const char* data) noexcept
    # size: of the content; any if that is not known
    cdef Coder coder(self, int coding, bint size_is_known, uint64_t size)


cdef class Coder:
    # Of one answer. Its methods let go of the GIL, so they are not called with a slot held.
    cdef object stream          # None while it works, and after it has failed or ended
    cdef object lock            # held from a block's coding until it is on its way: coded blocks have an order
    cdef int coding
    cdef bint is_begun          # the head says that there is a coding, and there is something in it
    cdef bint is_patient        # what it has need not leave with each block: it is from a file
    cdef bint is_counted        # the application has said how long its content is
    cdef uint64_t left          # of that

    cdef bytes whole(self, bytes data)      # and nothing after it
    cdef bytes block(self, bytes data)      # perhaps empty
    cdef bytes end(self)
    cdef object take_stream(self)


# Make the head say that its content is in a coding, or that it might have been (CODING_NONE); -1: memory is out.
cdef int head_encode(head_t* head, int coding) noexcept nogil
