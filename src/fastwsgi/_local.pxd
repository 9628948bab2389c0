# Answers of the loop by itself: which one a request gets.

from fastwsgi._connection cimport connection_t, loop_t


# For loop.answer.
cdef int local_answer(loop_t* loop, connection_t* connection) noexcept nogil
