# What all answers of the loop by itself begin and end with.

from libc.stdint cimport uint64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._connection cimport connection_t, loop_t, request_t


cdef const char* request_path(loop_t* loop, request_t* request, size_t* size) noexcept nogil
cdef int put_encoded(buffer_t* out, const char* path, size_t size) noexcept nogil

# Around each: answer_begin, the whole answer into loop.own.out, answer_end.
cdef bint answer_begin(loop_t* loop, connection_t* connection) noexcept nogil
cdef int answer_fields(loop_t* loop, connection_t* connection) noexcept nogil
cdef int answer_end(loop_t* loop, connection_t* connection, int status, bint is_built) noexcept nogil
# Or all of it at once: a line of text, and one more field, unless its name is NULL.
cdef int answer_text(loop_t* loop, connection_t* connection, const char* status_line, const char* text,
                     const char* name, const char* value, size_t value_size) noexcept nogil
cdef int answer_content(loop_t* loop, connection_t* connection, bint keep_alive, bint is_built, const char* text,
                        size_t size) noexcept nogil
cdef int answer_head(loop_t* loop, connection_t* connection, bint has_content, uint64_t length,
                     bint keep_alive) noexcept nogil
cdef void answer_done(loop_t* loop, connection_t* connection, int status) noexcept nogil
