# The turn: wait, accept, receive, dispatch, send, expire. Called by whoever leads.


from fastwsgi._connection cimport loop_t


cdef enum turn_t:
    TURN_READY          # loop.ready has a complete request, or loop.steps a connection
    TURN_AGAIN          # there are events to go on with
    TURN_IDLE           # nothing to do now
    TURN_LOST           # the lead was taken while away
    TURN_DRAINED        # draining, and the last connection is closed

cdef enum:
    DEADLINE_LINGER_MS = 5000
    # While draining: how long connections are still accepted whose handshake had begun (a round trip and the first
    # octets, over the network or on this machine, unless the crew says otherwise), ...
    DRAIN_ACCEPT_MS = 100
    DRAIN_ACCEPT_LOCAL_MS = 10
    # ... and how long a kept connection may still bring a request that was on its way.
    DRAIN_IDLE_MS = 250
    DRAIN_LINGER_MS = 1000


cdef int loop_open(loop_t* loop, bint use_poll) noexcept nogil
cdef int loop_listen(loop_t* loop, const int* fds, int count, int peers_begin, int peers_end,
                     int kick_fd) noexcept nogil
cdef int loop_turn(loop_t* loop, bint may_wait) noexcept nogil
cdef int loop_wait_ms(loop_t* loop) noexcept nogil
cdef void loop_taken_over(loop_t* loop) noexcept nogil
cdef void loop_drain(loop_t* loop, bint leaves) noexcept nogil
cdef void loop_hurry(loop_t* loop) noexcept nogil
cdef void loop_close(loop_t* loop) noexcept nogil
