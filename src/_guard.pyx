"""What stands before a route: who may, how often, how much, who has to say who he is, and whether it is closed.

A request is judged when its head is complete, before any of its content is received. Passwords are not verified here,
since that takes long: only that there is one. Knows no request and no connection.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastwsgi._networks cimport address_parse, address_t, networks_free, networks_match, networks_set, networks_t
from fastwsgi._platform cimport (
    platform_now_ns, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    word_load_relaxed, word_store,
)
from fastwsgi._rates cimport Rate, rate_wait
from fastwsgi._refusals cimport (
    REFUSAL_ADDRESS, REFUSAL_MAINTENANCE, REFUSAL_NO_CREDENTIALS, REFUSAL_RATE, refusal_info,
)
from fastwsgi._response cimport page_t

cimport cython

cdef enum:
    MAINTENANCE_S = 60      # after that a client may look again


cdef inline bint has_client(const networks_t* networks, const address_t* address) noexcept nogil:
    if networks.has_everyone:
        return True
    return networks.has_unix if address == NULL else networks_match(networks, address)


cdef inline bint may_enter(const guard_t* guard, const address_t* address) noexcept nogil:
    """allow and deny, the one that the route has first before the other; whom neither has, `allow` leaves out."""
    if guard.denies_first and has_client(&guard.deny, address):
        return False
    if guard.has_allow and has_client(&guard.allow, address):
        return True
    return not guard.has_allow and not (guard.has_deny and has_client(&guard.deny, address))


cdef int guard_judge(const guard_t* guard, const address_t* address, bint has_credentials, int64_t now_ns,
                     uint32_t* retry_after) noexcept nogil:
    cdef address_t nobody
    cdef uint64_t wait_us
    if guard.maintenance != NULL and word_load_relaxed(&guard.maintenance.is_on) and not has_client(
            &guard.maintenance.passes, address):
        retry_after[0] = MAINTENANCE_S
        return -<int>REFUSAL_MAINTENANCE
    if (guard.has_allow or guard.has_deny) and not may_enter(guard, address):
        return -<int>REFUSAL_ADDRESS
    if guard.has_rate:
        if address == NULL:
            # All of them together: who hides is not to have more than others.
            memset(nobody.octets, 0, sizeof(nobody.octets))
            address = &nobody
        wait_us = rate_wait(&guard.rate, address, now_ns, True)
        if wait_us:
            retry_after[0] = <uint32_t>((wait_us + 999999) // 1000000)
            return -<int>REFUSAL_RATE
    if guard.needs_user and not has_credentials:
        return -<int>REFUSAL_NO_CREDENTIALS
    return 0


cdef const page_t* guard_borrow_page(const guard_t* guard, int reason, int status) noexcept nogil:
    cdef int i
    if reason == REFUSAL_MAINTENANCE:
        pthread_mutex_lock(&guard.maintenance.mutex)
        return &guard.maintenance.page if guard.maintenance.has_page else NULL
    for i in range(guard.page_count):
        if guard.pages[i].status == status:
            return &guard.pages[i]
    return NULL


cdef void guard_return_page(const guard_t* guard, int reason) noexcept nogil:
    if reason == REFUSAL_MAINTENANCE:
        pthread_mutex_unlock(&guard.maintenance.mutex)


# ---- Python face ----

cdef int clients_set(networks_t* networks, object given) except -1:
    networks_set(networks, given)
    # Without an address a client is in no network: here that has to be said.
    networks.has_unix = "unix" in given
    return 0


cdef int page_set(page_t* page, int status, bytes kind, bytes content) except -1:
    page.status = status
    page.type = kind
    page.type_size = <size_t>len(kind)
    page.content = content
    page.size = <size_t>len(content)
    return 0


@cython.final
cdef class Guard:
    """What stands before a route, and what its errors are answered with.

    allow, deny: addresses and networks, "*", "unix"; None: no such key. pages: (status, type, content) of each.
    maintenance: who comes in while the route is closed; None: it never is.
    """

    def __cinit__(self, *, allow=None, deny=None, bint denies_first=False, Rate rate=None, doorkeeper=None,
                  bytes challenge not None=b"", content_most=None, pages=(), maintenance=None):
        cdef guard_t* guard = &self.guard
        cdef int i
        if allow is not None:
            guard.has_allow = True
            clients_set(&guard.allow, allow)
        if deny is not None:
            guard.has_deny = True
            guard.denies_first = denies_first
            clients_set(&guard.deny, deny)
        self.rate = rate
        if rate is not None:
            guard.has_rate = True
            guard.rate = rate.rate
        self.doorkeeper = doorkeeper
        guard.needs_user = doorkeeper is not None
        self.challenge = challenge
        guard.challenge = challenge
        guard.challenge_size = <size_t>len(challenge)
        if content_most is not None:
            guard.has_content_most = True
            guard.content_most = content_most or UINT64_MAX
        self.pages = tuple(pages)
        guard.page_count = len(self.pages)
        guard.pages = <page_t*>calloc(len(self.pages) + 1, sizeof(page_t))
        if guard.pages == NULL:
            raise MemoryError
        for i, (status, kind, content) in enumerate(self.pages):
            page_set(&guard.pages[i], status, kind, content)
        if maintenance is not None:
            guard.maintenance = <maintenance_t*>calloc(1, sizeof(maintenance_t))
            if guard.maintenance == NULL or pthread_mutex_init(&guard.maintenance.mutex, NULL):
                raise MemoryError
            clients_set(&guard.maintenance.passes, maintenance)

    def __dealloc__(self):
        networks_free(&self.guard.allow)
        networks_free(&self.guard.deny)
        free(self.guard.pages)
        if self.guard.maintenance != NULL:
            networks_free(&self.guard.maintenance.passes)
            pthread_mutex_destroy(&self.guard.maintenance.mutex)
            free(self.guard.maintenance)

    def close(self, tuple page):
        """Closed for maintenance from now on; page: (type, content) of the answer, or None for the server's own."""
        cdef maintenance_t* maintenance = self.guard.maintenance
        if maintenance == NULL:
            raise ValueError("there is no maintenance for this route")
        # Held for no longer than it takes to copy a page, and never by a thread that waits for the GIL.
        pthread_mutex_lock(&maintenance.mutex)
        maintenance.has_page = page is not None
        if page is not None:
            page_set(&maintenance.page, 503, page[0], page[1])
        pthread_mutex_unlock(&maintenance.mutex)
        self.closed_page = page
        word_store(&maintenance.is_on, 1)

    def open(self):
        """Open again."""
        if self.guard.maintenance != NULL:
            word_store(&self.guard.maintenance.is_on, 0)

    def judge(self, bytes address, *, bint has_credentials=False, now_ns=None):
        """(name of the refusal or None, seconds until the client may come again) for a client; None: of no address."""
        cdef address_t client
        cdef const address_t* known = NULL
        cdef uint32_t retry_after = 0
        cdef int result
        if address is not None:
            if not address_parse(address, <size_t>len(address), &client):
                raise ValueError(f"no address: {address!r}")
            known = &client
        result = guard_judge(&self.guard, known, has_credentials, platform_now_ns() if now_ns is None else now_ns,
                             &retry_after)
        return refusal_info(-result).name.decode() if result else None, retry_after

    def page(self, int status, reason=0):
        """(type, content) that an error is answered with; None: the server's own text."""
        cdef const page_t* page = guard_borrow_page(&self.guard, reason, status)
        found = None if page == NULL else (page.type[:page.type_size], page.content[:page.size])
        guard_return_page(&self.guard, reason)
        return found
