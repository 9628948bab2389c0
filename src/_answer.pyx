"""What all answers of the loop by itself begin and end with.

Called by the leader for a complete request of a connection that the loop owns. An answer is made in loop.own, whose
`sent` says how many octets of content it has.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport strlen

from fastwsgi._buffer cimport buffer_append, buffer_reserve, buffer_t
from fastwsgi._connection cimport (
    ADVANCE_WAIT, TRANSMIT_DONE, TRANSMIT_LOST, connection_close, connection_count, connection_flush,
    connection_identify, connection_log, connection_route, connection_settle, connection_t, loop_t, request_id, request_t,
    slot_t, transmit_t,
)
from fastwsgi._guard cimport guard_borrow_page
from fastwsgi._octets cimport IN_HOST, octet_kinds
from fastwsgi._parser cimport METHOD_HEAD
from fastwsgi._platform cimport platform_wall_seconds, word_add, word_load_relaxed
from fastwsgi._response cimport FRAMING_LENGTH, FRAMING_NONE, head_field, head_finish, head_lines, head_start, page_t
from fastwsgi._router cimport path_resolve, route_t


cdef const char* request_path(loop_t* loop, request_t* request, size_t* size) noexcept nogil:
    """The path of a request as routes know it; NULL if memory is out. It may be in loop.path."""
    cdef const char* path = request.buffer.data + request.start + request.parser.path.start
    size[0] = request.parser.path.length
    if request.forwarded.is_set:
        # What a proxy has mounted us at is not ours.
        path += request.forwarded.script_length
        size[0] -= request.forwarded.script_length
    if not request.path_is_odd:
        return path
    loop.path.size = 0
    if buffer_reserve(&loop.path, size[0]) < 0:
        return NULL
    size[0] = <size_t>path_resolve(path, size[0], loop.path.data)
    return loop.path.data


cdef int put_encoded(buffer_t* out, const char* path, size_t size) noexcept nogil:
    """Append a path that was decoded as a target has it; -1 if memory is out."""
    cdef const char* hexadecimal = b"0123456789ABCDEF"
    cdef size_t i
    cdef uint8_t octet
    if buffer_reserve(out, 3 * size) < 0:
        return -1
    for i in range(size):
        octet = <uint8_t>path[i]
        # RFC 3986, 3.3: what may stand in a path as it is.
        if octet_kinds[octet] & IN_HOST or octet in (c"/", c":", c"@", c","):
            out.data[out.size] = <char>octet
            out.size += 1
            continue
        out.data[out.size] = c"%"
        out.data[out.size + 1] = hexadecimal[octet >> 4]
        out.data[out.size + 2] = hexadecimal[octet & 15]
        out.size += 3
    return 0


cdef bint answer_begin(loop_t* loop, connection_t* connection) noexcept nogil:
    """An answer is to be made: loop.own is empty; returns whether the connection is kept after it."""
    cdef slot_t* own = &loop.own
    cdef request_t* request = connection.request
    cdef bint keep_alive
    if not request.is_handed_over:
        connection.requests += 1        # and else it is counted already
    keep_alive = (request.parser.keep_alive and not connection.closes
                  and connection.requests < loop.keep_alive_requests and not word_load_relaxed(&loop.draining))
    if not keep_alive:
        connection.closes = True
        # Where it was our decision, the client may be sending the next request.
        connection.lingers = request.parser.keep_alive
    own.out.size = own.out_sent = 0
    own.sent = 0
    own.number += 1
    return keep_alive


cdef int answer_fields(loop_t* loop, connection_t* connection) noexcept nogil:
    """Add to loop.own.head what is the server's own in every answer; 0, or less when memory is out."""
    cdef slot_t* own = &loop.own
    cdef request_t* request = connection.request
    cdef const route_t* route = connection_route(loop, connection)
    cdef int result = 0
    if loop.ids.is_on:
        connection_identify(loop, connection, own)
        if not own.head.has_request_id:
            result = head_field(&own.head, b"X-Request-ID", 12, request_id(request), request.id.length)
    if result == 0 and route != NULL:
        result = head_lines(&own.head, &route.lines)
    return result


cdef int answer_head(loop_t* loop, connection_t* connection, bint has_content, uint64_t length,
                     bint keep_alive) noexcept nogil:
    """Put the whole head into loop.own.out; has_content: False where the status allows none. 0, or less."""
    cdef slot_t* own = &loop.own
    cdef int result = answer_fields(loop, connection)
    if result < 0:
        return result
    return head_finish(&own.head, &own.out, FRAMING_LENGTH if has_content else FRAMING_NONE, has_content, length,
                       keep_alive, connection.request.parser.version_minor, &own.date, platform_wall_seconds())


cdef void answer_done(loop_t* loop, connection_t* connection, int status) noexcept nogil:
    """It is made: count it, log it."""
    connection_count(loop, connection, status)
    connection_log(loop, connection, status, loop.own.sent, 0)
    connection.is_answered = True


cdef int answer_end(loop_t* loop, connection_t* connection, int status, bint is_built) noexcept nogil:
    """Send what loop.own has, count it, log it; is_built: False if memory was out. Returns as connection_handle does."""
    cdef transmit_t sent = TRANSMIT_LOST
    if is_built:
        sent = connection_flush(loop, connection, &loop.own)
    answer_done(loop, connection, status)
    if sent != TRANSMIT_DONE:
        word_add(&loop.counters.lost_clients, 1)
        connection_close(loop, connection)
        return ADVANCE_WAIT
    return connection_settle(loop, connection)


cdef const page_t* error_page(loop_t* loop, connection_t* connection, int status) noexcept nogil:
    """What its route answers with, for such a status; or NULL."""
    cdef const route_t* route = connection_route(loop, connection)
    if status < 400 or route == NULL or route.guard == NULL:
        return NULL
    return guard_borrow_page(route.guard, 0, status)


cdef int answer_content(loop_t* loop, connection_t* connection, bint keep_alive, bint is_built, const char* text,
                        size_t size) noexcept nogil:
    """End an answer whose head is begun (is_built: without trouble) with a text, or the route's page for such an error.

    Returns as connection_handle does.
    """
    cdef slot_t* own = &loop.own
    cdef int status = own.head.status
    cdef page_t page = page_t(status, b"text/plain; charset=utf-8", 25, text, size)
    cdef const page_t* own_page = error_page(loop, connection, status)
    if own_page != NULL:
        page = own_page[0]
    if page.size:
        is_built = is_built and head_field(&own.head, b"Content-Type", 12, page.type, page.type_size) == 0
    is_built = is_built and answer_head(loop, connection, status != 204 and status != 304, page.size, keep_alive) == 0
    if is_built and connection.request.parser.method != METHOD_HEAD:
        is_built = buffer_append(&own.out, page.content, page.size) == 0
        own.sent = page.size
    return answer_end(loop, connection, status, is_built)


cdef int answer_text(loop_t* loop, connection_t* connection, const char* status_line, const char* text,
                     const char* name, const char* value, size_t value_size) noexcept nogil:
    """Answer with a line of text, and one more field, unless its name is NULL; returns as connection_handle does."""
    cdef bint keep_alive = answer_begin(loop, connection)
    cdef slot_t* own = &loop.own
    cdef bint is_built = (
        head_start(&own.head, status_line, strlen(status_line)) == 0
        and (name == NULL or head_field(&own.head, name, strlen(name), value, value_size) == 0))
    return answer_content(loop, connection, keep_alive, is_built, text, strlen(text))
