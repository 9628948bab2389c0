# Exchanges that take too long: told of, taken away from their threads, and the threads given up that do not come back.

from libc.stdint cimport int64_t, uint64_t

from fastwsgi._connection cimport loop_t, slot_t
from fastwsgi._platform cimport atomic_word_t, word_load


cdef enum:
    LOST_MS = 1000              # a thread may take to come back from an exchange that was revoked
    REVOKE_AGAIN_MS = 5         # when its thread was at the connection at that moment
    LOOKS = 8                   # in the time that is watched for ...
    LOOK_MOST_MS = 1000         # ... but at least one in so long
    SAMPLE_MS = 1000            # of older exchanges the stacks are sampled, about as often


cdef struct overdue_t:
    slot_t* slots               # borrowed; [1] to [used]
    atomic_word_t used
    atomic_word_t fresh         # threads that were given up and not replaced yet
    int64_t timeout_ms          # without progress; 0: any time
    int64_t slow_ms             # in all; 0: is not told of
    int64_t sample_ms           # the stacks of those that take longer are sampled; 0: never
    int64_t sampled_ms          # when that was last asked for
    atomic_word_t samples       # it is asked for now
    atomic_word_t pause_ms      # at least until then: as samples take their time, too; the main thread's


cdef inline int slots_end(overdue_t* overdue) noexcept nogil:
    """One past the last slot that is in use."""
    return <int>word_load(&overdue.used) + 1


cdef void overdue_arm(loop_t* loop, const overdue_t* overdue) noexcept nogil
cdef bint overdue_look(loop_t* loop, overdue_t* overdue) noexcept nogil
cdef bint exchange_revoke(loop_t* loop, slot_t* slot, uint64_t number, int reason, uint64_t tells=*) noexcept nogil
