# Who leads: the lead word and what hangs by it (docs/decisions/0001-one-leads.md). Inline functions only.
#
# The word is a sequence number, the leader (0: nobody; 1 to N: an application thread; N + 1: the keeper) and
# whether the leader is away, that is, inside something that may block. Only the leader changes a word that is not
# away; a word that is away may be replaced by the keeper, who then leads.

from libc.stdint cimport uint64_t

from fastwsgi._platform cimport (
    atomic_line_t, line_load, line_replace, line_store, poller_t, poller_wake,
    pthread_cond_signal, pthread_cond_t, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)


cdef enum:
    LEAD_AWAY = 1


cdef struct lead_t:
    atomic_line_t word
    atomic_line_t sleeping      # the leader waits in the poller, or is about to
    atomic_line_t attention     # somebody wants the leader to look at more than events
    atomic_line_t parked        # the keeper waits without a tick
    pthread_mutex_t mutex       # of the crew: its queue, its free threads, who is given the lead
    pthread_cond_t keeper       # the keeper waits here


cdef inline uint64_t lead_owner(uint64_t word) noexcept nogil:
    return (word >> 1) & 0x7fff


cdef inline uint64_t lead_next(uint64_t word, uint64_t owner) noexcept nogil:
    return (((word >> 16) + 1) << 16) | (owner << 1)


cdef inline uint64_t lead_leave(lead_t* lead) noexcept nogil:
    """The leader is about to do something that may block; returns the word to come back with."""
    cdef uint64_t word = line_load(&lead.word) | LEAD_AWAY
    line_store(&lead.word, word)
    # The keeper says `parked` and then looks at the word again; one of us sees the other.
    if line_load(&lead.parked):
        pthread_mutex_lock(&lead.mutex)
        pthread_cond_signal(&lead.keeper)
        pthread_mutex_unlock(&lead.mutex)
    return word


cdef inline bint lead_return(lead_t* lead, uint64_t away) noexcept nogil:
    """The leader is back; False if the lead was taken meanwhile."""
    return line_replace(&lead.word, away, lead_next(away, lead_owner(away)))


cdef inline bint lead_holds(lead_t* lead, uint64_t away) noexcept nogil:
    """True while the lead has not been taken from the thread that went away with this word."""
    return line_load(&lead.word) == away


cdef inline void lead_call(lead_t* lead, poller_t* poller) noexcept nogil:
    """Make the leader look at more than its events; any thread, any time."""
    line_store(&lead.attention, 1)
    # The leader announces its sleep and then looks at `attention`; one of us sees the other.
    if line_load(&lead.sleeping):
        poller_wake(poller)
