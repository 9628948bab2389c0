# What a request wants of a file: only if it has changed, only a part of it, which coding.

from libc.stdint cimport int64_t, uint16_t, uint64_t

from fastwsgi._parser cimport parser_t


# Content codings, in the order in which equals are preferred.
cdef enum coding_t:
    CODING_IDENTITY
    CODING_BROTLI
    CODING_ZSTD
    CODING_GZIP
    CODINGS

cdef enum:
    WEIGHT_MOST = 1000      # a q-value of 1
    RANGES_MOST = 16        # of one request; with more it gets the whole file
    RANGES_UNSATISFIED = -1


cdef struct validators_t:
    # What tells one version of a file from another.
    const char* etag        # quotes included, without W/
    size_t etag_size
    bint is_weak            # neither of them: it may change again without changing them
    int64_t modified        # seconds since 1970


cdef struct range_t:
    uint64_t start
    uint64_t end            # one past the last octet


# The fields of the request that make a difference here.
cdef bint conditions_are_given(const parser_t* parser) noexcept nogil
cdef void codings_accepted(const parser_t* parser, const char* data, uint16_t* weights) noexcept nogil  # [CODINGS]
cdef int precondition(const parser_t* parser, const char* data, const validators_t* validators) noexcept nogil
cdef int ranges_wanted(const parser_t* parser, const char* data, const validators_t* validators, uint64_t size,
                       range_t* ranges) noexcept nogil      # [RANGES_MOST]
cdef int64_t date_read(const char* text, size_t size) noexcept nogil
