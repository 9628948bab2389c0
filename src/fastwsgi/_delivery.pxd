# Files as answers of the loop.

from fastwsgi._connection cimport connection_t, loop_t
from fastwsgi._static cimport site_t


# Both return as connection_handle does.
cdef int deliver(loop_t* loop, connection_t* connection, const site_t* site, size_t root_length) noexcept nogil
cdef int deliver_handed(loop_t* loop, connection_t* connection) noexcept nogil
