"""Answers of the loop by itself, without a thread and without Python: which one a request gets.

Called by the leader for a complete request of a connection that the loop owns.
"""

from libc.string cimport memmove

from fastwsgi._answer cimport answer_begin, answer_content, answer_end, answer_text, put_encoded, request_path
from fastwsgi._buffer cimport buffer_append, buffer_t, span_t
from fastwsgi._connection cimport (
    ADVANCE_WAIT, HANDED_NOTHING, connection_is_probe, connection_is_secure, connection_refuse, connection_t, loop_t,
    probe_matches, request_authority, request_t, slot_t,
)
from fastwsgi._delivery cimport deliver, deliver_handed
from fastwsgi._parser cimport METHOD_GET, METHOD_HEAD, TARGET_ASTERISK, parser_t
from fastwsgi._platform cimport platform_wall_seconds, word_load_relaxed
from fastwsgi._refusals cimport REFUSAL_NO_HOST
from fastwsgi._response cimport head_field, head_start, response_probe
from fastwsgi._router cimport (
    ACTION_STATIC, PIECE_HOST, PIECE_PATH, PIECE_QUERY, PIECE_REST, PIECE_SCHEME, PIECE_TEXT, host_length, piece_t,
    route_t,
)


cdef int answer_probe(loop_t* loop, connection_t* connection) noexcept nogil:
    """Answer --health or --ready."""
    cdef request_t* request = connection.request
    cdef bint is_head_request = request.parser.method == METHOD_HEAD
    cdef bint is_stopping = word_load_relaxed(&loop.draining) or word_load_relaxed(&loop.board.stopping)
    cdef bint keep_alive = answer_begin(loop, connection)
    cdef bint is_built
    cdef int status = 200
    cdef slot_t* own = &loop.own
    if request.parser.method != METHOD_GET and not is_head_request:
        status = 405
    elif is_stopping and probe_matches(&loop.ready_probe, request):
        status = 503
    is_built = response_probe(&own.head, status, is_head_request, keep_alive, request.parser.version_minor, &own.out,
                              &own.date, platform_wall_seconds()) == 0
    if is_built and not is_head_request:
        own.sent = own.head.content_length
    return answer_end(loop, connection, status, is_built)


cdef int add_rest(loop_t* loop, request_t* request, buffer_t* out) noexcept nogil:
    """Append what follows the path of the route; -1 if memory is out."""
    cdef size_t before = request.route.root_length, size
    cdef const char* path = request_path(loop, request, &size)
    if path == NULL:
        return -1
    if size < before:
        return 0
    # One that is plain is as the client has encoded it.
    if not request.path_is_odd:
        return buffer_append(out, path + before, size - before)
    return put_encoded(out, path + before, size - before)


cdef int add_piece(loop_t* loop, connection_t* connection, const piece_t* piece, buffer_t* out) noexcept nogil:
    """Append a part of a Location; -1 if memory is out."""
    cdef request_t* request = connection.request
    cdef parser_t* parser = &request.parser
    cdef const char* data = request.buffer.data + request.start
    cdef span_t span
    if piece.kind == PIECE_TEXT:
        return buffer_append(out, piece.text, piece.size)
    if piece.kind == PIECE_SCHEME:
        return buffer_append(out, b"https", 5 if connection_is_secure(connection) else 4)
    if piece.kind == PIECE_HOST:
        span = request_authority(request)
        return buffer_append(out, data + span.start, host_length(data + span.start, span.length))
    if piece.kind == PIECE_REST:
        return add_rest(loop, request, out)
    if piece.kind != PIECE_QUERY:
        if parser.target_form == TARGET_ASTERISK:
            return buffer_append(out, b"/", 1)
        if buffer_append(out, data + parser.path.start, parser.path.length) < 0:
            return -1
    if piece.kind == PIECE_PATH or not parser.has_query:
        return 0
    # Its "?" stands right before it.
    return buffer_append(out, data + parser.query.start - 1, parser.query.length + 1)


cdef int make_location(loop_t* loop, connection_t* connection, buffer_t* out) noexcept nogil:
    """Where a redirect leads; -1 if memory is out."""
    cdef const route_t* route = connection.request.route
    cdef int i
    cdef size_t slashes = 1
    out.size = 0
    for i in range(route.piece_count):
        if add_piece(loop, connection, &route.pieces[i], out) < 0:
            return -1
    # A path that begins with two slashes would be another host (RFC 3986, 4.2).
    while out.size > slashes and out.data[0] == c"/" and out.data[slashes] == c"/":
        slashes += 1
    out.size -= slashes - 1
    memmove(out.data, out.data + slashes - 1, out.size)
    return 0


cdef int answer_route(loop_t* loop, connection_t* connection) noexcept nogil:
    """What a route says without looking for anything: a redirect, a status with a text, or that there is nothing."""
    cdef request_t* request = connection.request
    cdef const route_t* route = request.route
    cdef slot_t* own = &loop.own
    cdef bint keep_alive
    cdef bint is_built
    if route.needs_host and not request_authority(request).length:
        connection_refuse(loop, connection, REFUSAL_NO_HOST)
        return ADVANCE_WAIT
    keep_alive = answer_begin(loop, connection)
    if route.other_status and request.parser.method != METHOD_GET and request.parser.method != METHOD_HEAD:
        is_built = head_start(&own.head, route.other_line, route.other_size) == 0
    else:
        is_built = head_start(&own.head, route.status_line, route.status_size) == 0
    if route.piece_count:
        is_built = (is_built and make_location(loop, connection, &own.values) == 0
                    and head_field(&own.head, b"Location", 8, own.values.data, own.values.size) == 0)
    return answer_content(loop, connection, keep_alive, is_built, route.content, route.content_size)


cdef int local_answer(loop_t* loop, connection_t* connection) noexcept nogil:
    """Answer a request that connection_is_local; returns as connection_handle does."""
    cdef request_t* request = connection.request
    if connection_is_probe(loop, connection):
        return answer_probe(loop, connection)
    if request.is_handed_over and request.handed_as != HANDED_NOTHING:
        return deliver_handed(loop, connection)
    if request.route.action != ACTION_STATIC:
        return answer_route(loop, connection)
    if request.route.is_internal:
        return answer_text(loop, connection, b"404 Not Found", b"there is no such file\n", NULL, NULL, 0)
    return deliver(loop, connection, request.route.site, request.route.root_length)
