# What stands before a route: who may, how often, how much, who has to say who he is, and whether it is closed. And what
# errors are answered with.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastwsgi._networks cimport address_t, networks_t
from fastwsgi._platform cimport atomic_word_t, pthread_mutex_t
from fastwsgi._rates cimport Rate, rate_t
from fastwsgi._response cimport page_t


cdef struct maintenance_t:
    atomic_word_t is_on
    networks_t passes           # who comes in all the same
    pthread_mutex_t mutex       # of `page`, which another one may replace
    page_t page
    bint has_page


cdef struct guard_t:
    # Made at start; only `maintenance` changes after that.
    networks_t allow            # first match decides, in the order in which a route has them
    networks_t deny
    bint has_allow
    bint has_deny
    bint denies_first
    bint has_rate
    rate_t rate
    bint needs_user             # by the Doorkeeper
    const char* challenge       # borrowed, as what pages have
    size_t challenge_size
    bint has_content_most
    uint64_t content_most       # octets of content; UINT64_MAX: any number
    page_t* pages               # owned; the first one of a status counts
    int page_count
    maintenance_t* maintenance  # owned; NULL: there is no file for it


# May this request come in? 0, or -reason. address: NULL where the client has none. retry_after: in seconds, where the
# reason has one.
cdef int guard_judge(const guard_t* guard, const address_t* address, bint has_credentials, int64_t now_ns,
                     uint32_t* retry_after) noexcept nogil

# What a status is answered with, or NULL; to be given back by guard_return_page once it is copied.
cdef const page_t* guard_borrow_page(const guard_t* guard, int reason, int status) noexcept nogil
cdef void guard_return_page(const guard_t* guard, int reason) noexcept nogil


cdef class Guard:
    cdef guard_t guard
    cdef readonly object doorkeeper
    cdef Rate rate
    cdef bytes challenge        # these keep what is borrowed
    cdef tuple pages
    cdef tuple closed_page
