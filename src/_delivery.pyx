"""Files as answers of the loop: found beneath the route of a request, or named by the application.

A file that is remembered is answered at once. Any other is looked for by the leader while it is away, and only in turns
that do not hold the GIL, because the disk may be slow. Small content goes out with its head; of a large file the outbox
sends what is wanted, from a descriptor of its own.
"""

from libc.errno cimport ELOOP, EMFILE, ENFILE, EXDEV, errno
from libc.stdint cimport UINT64_MAX, uint16_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, strerror
from posix.types cimport off_t
from posix.unistd cimport close

from fastwsgi._answer cimport (
    answer_begin, answer_done, answer_end, answer_head, answer_text, put_encoded, request_path,
)
from fastwsgi._buffer cimport buffer_append, buffer_reserve, buffer_t, span_t
from fastwsgi._conditions cimport (
    CODINGS, RANGES_MOST, RANGES_UNSATISFIED, codings_accepted, conditions_are_given, precondition, range_t,
    ranges_wanted,
)
from fastwsgi._connection cimport (
    ADVANCE_LOST, ADVANCE_READY, ADVANCE_WAIT, HANDED_PATH, HANDED_TARGET, OWNER_LOOP, OWNER_QUEUE, OWNER_THREAD,
    POST_FINISHED, STATE_SENDING, TRANSMIT_DONE, connection_defer, connection_enter, connection_flush, connection_post,
    connection_refuse, connection_send_ready, connection_settle, connection_t, connection_watch, list_append, loop_say, loop_t,
    connection_router, request_authority, request_t, slot_t,
)
from fastwsgi._journal cimport LEVEL_ERROR, LEVEL_WARNING
from fastwsgi._lead cimport lead_leave, lead_return
from fastwsgi._outbox cimport outbox_add, outbox_add_file, outbox_add_part, outbox_new, outbox_t
from fastwsgi._parser cimport METHOD_GET, METHOD_HEAD, parser_t
from fastwsgi._platform cimport WATCH_WRITE, dup_cloexec, platform_wall_seconds
from fastwsgi._refusals cimport REFUSAL_NO_MEMORY
from fastwsgi._response cimport head_field, head_start, lines_have
from fastwsgi._router cimport ACTION_STATIC, path_merge, path_resolve, route_t, router_match, router_t
from fastwsgi._static cimport (
    file_form, file_free, file_look, file_new, file_t, files_close_descriptors, files_find, files_put, form_t, site_t,
)

cdef enum:
    PART_HEAD = 512         # octets, at most, that stand before a part of several, but for its type
    BOUNDARY = 20           # digits


cdef struct delivery_t:
    # What is sent of a form.
    const form_t* form
    int status
    range_t ranges[RANGES_MOST]
    int count               # of these; 0: all of it
    uint64_t length         # of the content
    char boundary[BOUNDARY + 1]
    size_t part_ends[RANGES_MOST + 1]   # of the texts of parts, which are in own.values


# ---- finding ----

cdef int pass_on(loop_t* loop, connection_t* connection) noexcept nogil:
    """No file: the application has it."""
    connection.request.is_passed_on = True
    connection.request.is_handed_over = False
    connection.owner = OWNER_QUEUE
    list_append(&loop.ready, connection)
    return ADVANCE_READY


cdef void say_why(loop_t* loop, connection_t* connection, const file_t* file) noexcept nogil:
    """A file is there and cannot be served: that is for somebody to see to."""
    if file.error == EXDEV or file.error == ELOOP:
        loop_say(loop, LEVEL_WARNING, b"refused with 403 Forbidden: a symbolic link that leads out of the directory that "
                 b"is served, or to a place that cannot be told", connection, NULL)
    elif file.error and file.status >= 403 and file.status != 404:
        loop_say(loop, LEVEL_WARNING if file.status == 403 else LEVEL_ERROR, b"a file cannot be served", connection,
                 strerror(file.error))


cdef int look(loop_t* loop, connection_t* connection, const site_t* site, const char* path, size_t size,
              file_t** found) noexcept nogil:
    """Look for a file at the disk; *found is NULL if that has to wait, or ends elsewhere, as is returned then."""
    cdef file_t* file
    cdef uint64_t away
    cdef int tries
    found[0] = NULL
    if not loop.may_block:
        connection_defer(loop, connection)
        return ADVANCE_WAIT
    for tries in range(2):
        file = file_new(site, path, size)
        if file == NULL:
            connection_refuse(loop, connection, REFUSAL_NO_MEMORY)
            return ADVANCE_WAIT
        # The path may be in memory of the loop, which is not ours while away: the file has a copy.
        connection.request.found = file
        connection.owner = OWNER_THREAD
        away = lead_leave(&loop.lead)
        file_look(file, platform_wall_seconds())
        if not lead_return(&loop.lead, away):
            connection_post(loop, connection, POST_FINISHED)
            return ADVANCE_LOST
        connection.owner = OWNER_LOOP
        connection.request.found = NULL
        if tries or not loop.files.descriptors or (file.error != EMFILE and file.error != ENFILE):
            break
        # Those that are only kept to be quick are needed more elsewhere.
        files_close_descriptors(loop.files)
        file_free(file)
    found[0] = file
    return ADVANCE_WAIT


cdef int find(loop_t* loop, connection_t* connection, const site_t* site, const char* path, size_t size,
              const file_t** found) noexcept nogil:
    """What is at a path; *found is NULL as in look."""
    cdef file_t* file = files_find(loop.files, site, path, size, loop.now_ms)
    # A thread may have found it already, and lost the lead meanwhile.
    cdef file_t* looked = connection.request.found
    cdef int outcome = ADVANCE_WAIT
    found[0] = file
    connection.request.found = NULL
    if file != NULL:
        if looked != NULL:
            file_free(looked)
        return outcome
    file = looked
    if file == NULL:
        outcome = look(loop, connection, site, path, size, &file)
    if file != NULL:
        say_why(loop, connection, file)
        # What may be over in a moment is forgotten at once.
        files_put(loop.files, file, loop.now_ms if file.status < 500 else 0)
        found[0] = file
    return outcome


# ---- heads ----

cdef inline size_t lines_of(const request_t* request) noexcept nogil:
    """How much of request.handed are field lines of the application."""
    return request.handed_lines if request.is_handed_over else 0


cdef int put_lines(loop_t* loop, connection_t* connection, const delivery_t* delivery) noexcept nogil:
    """The field lines of a file; those of an application that has handed it over come first. 0, or -1."""
    cdef buffer_t* lines = &loop.own.head.lines
    cdef const request_t* request = connection.request
    cdef const form_t* form = delivery.form
    cdef const char* given = request.handed.data
    cdef size_t size = lines_of(request), start, end
    loop.own.head.has_date |= lines_have(given, size, b"date", 4)
    loop.own.head.has_server |= lines_have(given, size, b"server", 6)
    loop.own.head.has_request_id |= lines_have(given, size, b"x-request-id", 12)
    if buffer_append(lines, given, size):
        return -1
    start = form.form_end if delivery.status == 304 else 0
    if delivery.count > 1 or (start == 0 and lines_have(given, size, b"content-type", 12)):
        start = form.type_end
    end = form.about_end if lines_have(given, size, b"cache-control", 13) else form.lines.size
    return buffer_append(lines, form.lines.data + start, end - start)


cdef int put_range(loop_t* loop, const delivery_t* delivery) noexcept nogil:
    """What tells the client which part, or parts, it gets; 0, or less."""
    cdef char text[96]
    cdef int size
    if delivery.count == 1:
        size = snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", <unsigned long long>delivery.ranges[0].start,
                        <unsigned long long>delivery.ranges[0].end - 1, <unsigned long long>delivery.form.size)
        return head_field(&loop.own.head, b"Content-Range", 13, text, <size_t>size)
    size = snprintf(text, sizeof(text), "multipart/byteranges; boundary=%s", delivery.boundary)
    return head_field(&loop.own.head, b"Content-Type", 12, text, <size_t>size)


cdef int make_parts(loop_t* loop, delivery_t* delivery) noexcept nogil:
    """The text before each of several parts, and the last boundary; adds up the length. 0, or -1 (RFC 9110, 14.6)."""
    cdef buffer_t* texts = &loop.own.values
    cdef const form_t* form = delivery.form
    cdef const range_t* part
    cdef int i, size
    texts.size = 0
    snprintf(delivery.boundary, sizeof(delivery.boundary), "%020llu",
             <unsigned long long>(<uint64_t>loop.now_ns * <uint64_t>0x9E3779B97F4A7C15 + loop.own.number))
    delivery.length = 0
    for i in range(delivery.count + 1):
        if buffer_reserve(texts, form.type_end + PART_HEAD) < 0:
            return -1
        if i == delivery.count:
            size = snprintf(texts.data + texts.size, PART_HEAD, "\r\n--%s--\r\n", delivery.boundary)
        else:
            part = &delivery.ranges[i]
            # The line of the type has its end.
            size = snprintf(texts.data + texts.size, form.type_end + PART_HEAD,
                            "\r\n--%s\r\n%.*sContent-Range: bytes %llu-%llu/%llu\r\n\r\n", delivery.boundary,
                            <int>form.type_end, form.lines.data, <unsigned long long>part.start,
                            <unsigned long long>part.end - 1, <unsigned long long>form.size)
            delivery.length += part.end - part.start
        texts.size += <size_t>size
        delivery.part_ends[i] = texts.size
    delivery.length += texts.size
    return 0


# ---- content ----

cdef int put_content(loop_t* loop, const delivery_t* delivery) noexcept nogil:
    """Content that is in memory, behind the head; 0, or -1."""
    cdef buffer_t* out = &loop.own.out
    cdef const char* content = delivery.form.content
    cdef const char* texts = loop.own.values.data
    cdef size_t start = 0
    cdef int i
    if delivery.count == 0:
        return buffer_append(out, content, <size_t>delivery.form.size)
    for i in range(delivery.count):
        if delivery.count > 1:
            if buffer_append(out, texts + start, delivery.part_ends[i] - start):
                return -1
            start = delivery.part_ends[i]
        if buffer_append(out, content + delivery.ranges[i].start,
                         <size_t>(delivery.ranges[i].end - delivery.ranges[i].start)):
            return -1
    if delivery.count > 1:
        return buffer_append(out, texts + start, delivery.part_ends[delivery.count] - start)
    return 0


cdef int put_file(loop_t* loop, connection_t* connection, const delivery_t* delivery, int copy) noexcept nogil:
    """The head, and content of a file that is not in memory, into the outbox, which owns the descriptor; 0, or -1."""
    cdef slot_t* own = &loop.own
    cdef outbox_t* outbox = connection.outbox
    cdef const char* texts = own.values.data
    cdef const range_t* part
    cdef size_t start = 0
    cdef int i
    if outbox == NULL:
        outbox = connection.outbox = outbox_new()
        if outbox == NULL:
            close(copy)
            return -1
    outbox_add_file(outbox, copy, 0, 0, connection.tls != NULL)
    if delivery.count < 2:
        outbox.file_offset = <off_t>delivery.ranges[0].start if delivery.count else 0
        outbox.file_left = delivery.length
    else:
        for i in range(delivery.count):
            part = &delivery.ranges[i]
            if outbox_add_part(outbox, texts + start, delivery.part_ends[i] - start, <off_t>part.start,
                               part.end - part.start):
                return -1
            start = delivery.part_ends[i]
        if outbox_add_part(outbox, texts + start, delivery.part_ends[delivery.count] - start, 0, 0):
            return -1
    if connection.tls != NULL:
        # All of it has to be sealed: connection_settle sees to that.
        return 0 if connection_flush(loop, connection, own) == TRANSMIT_DONE else -1
    if outbox_add(outbox, own.out.data, own.out.size, <size_t>-1, UINT64_MAX, loop.spool_directory) < own.out.size:
        return -1
    own.out.size = 0
    return 0


cdef int send_file(loop_t* loop, connection_t* connection, int status) noexcept nogil:
    """Send an outbox that has a file, without waiting for the poller first; returns as connection_handle does."""
    cdef int outcome
    answer_done(loop, connection, status)
    if connection.tls != NULL:
        return connection_settle(loop, connection)
    connection.delivers_since_ns = loop.now_ns
    connection_enter(loop, connection, STATE_SENDING)
    outcome = connection_send_ready(loop, connection)
    if outcome != ADVANCE_LOST and connection.owner == OWNER_LOOP and connection.state == STATE_SENDING:
        connection_watch(loop, connection, WATCH_WRITE)
    return outcome


cdef const char* status_line(int status) noexcept nogil:
    return b"200 OK" if status == 200 else b"206 Partial Content" if status == 206 else b"304 Not Modified"


cdef int answer_not_satisfied(loop_t* loop, connection_t* connection, const form_t* form) noexcept nogil:
    """416: none of the ranges is there (RFC 9110, 15.5.17)."""
    cdef char text[48]
    cdef int size = snprintf(text, sizeof(text), "bytes */%llu", <unsigned long long>form.size)
    return answer_text(loop, connection, b"416 Range Not Satisfiable", b"the file has no such part\n", b"Content-Range",
                       text, <size_t>size)


cdef int answer_file(loop_t* loop, connection_t* connection, const file_t* file) noexcept nogil:
    """Answer with a file, as far as the client wants it."""
    cdef parser_t* parser = &connection.request.parser
    cdef const char* data = connection.request.buffer.data + connection.request.start
    cdef slot_t* own = &loop.own
    cdef uint16_t weights[CODINGS]
    cdef delivery_t delivery
    cdef bint has_content, keep_alive, is_built
    cdef int copy = -1
    delivery.form = &file.forms[0]
    delivery.status = 200
    delivery.count = 0
    if file.form_count > 1:
        codings_accepted(parser, data, weights)
        delivery.form = file_form(file, weights)
    if conditions_are_given(parser) and (parser.method == METHOD_GET or parser.method == METHOD_HEAD):
        delivery.status = precondition(parser, data, &delivery.form.validators)
        # RFC 9110, 14.2: a range is for GET alone.
        if delivery.status == 200 and parser.method == METHOD_GET:
            delivery.count = ranges_wanted(parser, data, &delivery.form.validators, delivery.form.size, delivery.ranges)
            if delivery.count > 1 and lines_have(connection.request.handed.data, lines_of(connection.request),
                                                 b"content-type", 12):
                # Its type would be that of the parts; ranges may be ignored (RFC 9110, 14.2).
                delivery.count = 0
    if delivery.status == 412:
        return answer_text(loop, connection, b"412 Precondition Failed", b"the file is not what the request expects\n",
                           NULL, NULL, 0)
    if delivery.count == RANGES_UNSATISFIED:
        return answer_not_satisfied(loop, connection, delivery.form)
    if delivery.count:
        delivery.status = 206
    has_content = delivery.status != 304
    if has_content and delivery.form.fd >= 0 and parser.method != METHOD_HEAD:
        # Of its own, so that it is there as long as the client reads, whatever is forgotten.
        copy = dup_cloexec(delivery.form.fd)
        if copy < 0:
            loop_say(loop, LEVEL_ERROR, b"a file cannot be served", connection, strerror(errno))
            return answer_missing(loop, connection, 503)
    keep_alive = answer_begin(loop, connection)
    delivery.length = delivery.form.size
    if delivery.count == 1:
        delivery.length = delivery.ranges[0].end - delivery.ranges[0].start
    is_built = (
        head_start(&own.head, status_line(delivery.status), 6 if delivery.status == 200 else
                   19 if delivery.status == 206 else 16) == 0
        and (delivery.count < 2 or make_parts(loop, &delivery) == 0)
        and (delivery.count == 0 or put_range(loop, &delivery) == 0)
        and put_lines(loop, connection, &delivery) == 0
        and answer_head(loop, connection, has_content, delivery.length, keep_alive) == 0)
    if is_built and has_content and parser.method != METHOD_HEAD:
        own.sent = delivery.length
        if copy >= 0:
            if put_file(loop, connection, &delivery, copy) == 0:
                return send_file(loop, connection, delivery.status)
            copy = -1
            is_built = False
        else:
            is_built = put_content(loop, &delivery) == 0
    if copy >= 0:
        close(copy)
    return answer_end(loop, connection, delivery.status, is_built)


# ---- what else a path can be ----

cdef int put_location(request_t* request, const char* path, size_t size, buffer_t* out) noexcept nogil:
    """The target of a request with a slash behind its path, which is written as resolved; 0, or -1."""
    cdef const char* data = request.buffer.data + request.start
    cdef size_t script_length = request.forwarded.script_length if request.forwarded.is_set else 0
    out.size = 0
    # What a proxy has mounted us at stays in front.
    if (buffer_append(out, data + request.parser.path.start, script_length) or put_encoded(out, path, size)
            or buffer_append(out, b"/", 1)):
        return -1
    if not request.parser.has_query:
        return 0
    # Its "?" stands right before it.
    return buffer_append(out, data + request.parser.query.start - 1, request.parser.query.length + 1)


cdef int answer_directory(loop_t* loop, connection_t* connection, const char* path, size_t size) noexcept nogil:
    """301 to the same path with a slash: relative addresses in its index count from there."""
    cdef buffer_t* location = &loop.own.values
    if put_location(connection.request, path, size, location):
        connection_refuse(loop, connection, REFUSAL_NO_MEMORY)
        return ADVANCE_WAIT
    return answer_text(loop, connection, b"301 Moved Permanently", b"this is a directory\n", b"Location", location.data,
                       location.size)


cdef int answer_missing(loop_t* loop, connection_t* connection, int status) noexcept nogil:
    """Answer for what is no file, or none that can be served."""
    if status == 403:
        return answer_text(loop, connection, b"403 Forbidden", b"this may not be read\n", NULL, NULL, 0)
    if status == 503:
        return answer_text(loop, connection, b"503 Service Unavailable", b"try again later\n", b"Retry-After", b"5", 1)
    if status == 500:
        return answer_text(loop, connection, b"500 Internal Server Error", b"this cannot be read\n", NULL, NULL, 0)
    return answer_text(loop, connection, b"404 Not Found", b"there is no such file\n", NULL, NULL, 0)


cdef int answer_found(loop_t* loop, connection_t* connection, const file_t* file) noexcept nogil:
    if file.status == 200:
        return answer_file(loop, connection, file)
    return answer_missing(loop, connection, file.status)


cdef int deliver(loop_t* loop, connection_t* connection, const site_t* site, size_t root_length) noexcept nogil:
    """Answer with the file beneath the route of a request; root_length: of the path that stands for the directory."""
    cdef request_t* request = connection.request
    cdef const char* path
    cdef size_t size, skipped
    cdef const file_t* file
    cdef int outcome
    if request.parser.method != METHOD_GET and request.parser.method != METHOD_HEAD:
        if site.falls_to_application:
            return pass_on(loop, connection)
        return answer_text(loop, connection, b"405 Method Not Allowed", b"GET or HEAD\n", b"Allow", b"GET, HEAD", 9)
    path = request_path(loop, request, &size)
    if path == NULL:
        connection_refuse(loop, connection, REFUSAL_NO_MEMORY)
        return ADVANCE_WAIT
    if memchr(path, 0, size) != NULL:
        return answer_text(loop, connection, b"400 Bad Request", b"a path with NUL\n", NULL, NULL, 0)
    if size <= root_length:
        return answer_directory(loop, connection, path, size)
    skipped = root_length + 1       # the slash
    outcome = find(loop, connection, site, path + skipped, size - skipped, &file)
    if file == NULL:
        return outcome
    if file.status == 301:
        return answer_directory(loop, connection, path, size)
    if site.falls_to_application and file.status == 404:
        return pass_on(loop, connection)
    return answer_found(loop, connection, file)


# ---- what an application hands over ----

cdef int not_handed(loop_t* loop, connection_t* connection, const char* text, const char* target,
                    size_t size, const char* reason) noexcept nogil:
    """It names what cannot be served: 404, and why, in the log."""
    cdef char detail[304]
    cdef const char* colon = b": " if reason[0] else b""
    snprintf(detail, sizeof(detail), b"%.*s%s%s", <int>min(size, 200), target, colon, reason)
    loop_say(loop, LEVEL_ERROR, text, connection, detail)
    return answer_missing(loop, connection, 404)


cdef const char* reason_for(const file_t* file, bint is_path) noexcept nogil:
    """Why a file that the application names cannot be served; is_path: by X-Sendfile."""
    if file.status == 301 or (file.status == 403 and not file.error):
        return b"this is a directory"
    if file.error == EXDEV or file.error == ELOOP:
        return b"a symbolic link leads out of the directory"
    if file.error:
        return strerror(file.error)
    return b"this is beneath no --sendfile-root, or no regular file" if is_path else b"this is no regular file"


cdef int deliver_path(loop_t* loop, connection_t* connection, const site_t* site, const char* path,
                      size_t size) noexcept nogil:
    cdef request_t* request = connection.request
    cdef const file_t* file
    cdef int outcome = find(loop, connection, site, path, size, &file)
    if file == NULL:
        return outcome
    if file.status == 200:
        return answer_file(loop, connection, file)
    return not_handed(
        loop, connection, b"the application names a file that cannot be served",
        request.handed.data + request.handed_lines, request.handed.size - request.handed_lines,
        reason_for(file, request.handed_as == HANDED_PATH))


cdef int deliver_target(loop_t* loop, connection_t* connection, const char* target, size_t size) noexcept nogil:
    """X-Accel-Redirect: a target, percent-encoded; a query has no meaning."""
    cdef const char* query = <const char*>memchr(target, c"?", size)
    cdef span_t authority = request_authority(connection.request)
    cdef const router_t* router = connection_router(loop, connection)
    cdef const route_t* route = NULL
    cdef ssize_t resolved
    if query != NULL:
        size = <size_t>(query - target)
    loop.path.size = 0
    if buffer_reserve(&loop.path, size + 1) < 0:
        connection_refuse(loop, connection, REFUSAL_NO_MEMORY)
        return ADVANCE_WAIT
    resolved = path_resolve(target, size, loop.path.data) if size and target[0] == c"/" else -1
    if resolved > 0 and router != NULL:
        route = router_match(
            router, connection.request.buffer.data + connection.request.start + authority.start, authority.length,
            loop.path.data, <size_t>resolved)
    if route == NULL or route.action != ACTION_STATIC or <size_t>resolved <= route.root_length:
        return not_handed(loop, connection, b"X-Accel-Redirect names what no route with static= has", target, size, b"")
    return deliver_path(loop, connection, route.site, loop.path.data + route.root_length + 1,
                        <size_t>resolved - route.root_length - 1)


cdef int deliver_handed(loop_t* loop, connection_t* connection) noexcept nogil:
    """Answer with the file that the application has named instead of giving its content."""
    cdef request_t* request = connection.request
    cdef const char* target = request.handed.data + request.handed_lines
    cdef size_t size = request.handed.size - request.handed_lines
    cdef ssize_t merged
    if request.handed_as == HANDED_TARGET:
        return deliver_target(loop, connection, target, size)
    loop.path.size = 0
    if buffer_reserve(&loop.path, size + 1) < 0:
        connection_refuse(loop, connection, REFUSAL_NO_MEMORY)
        return ADVANCE_WAIT
    merged = path_merge(target, size, loop.path.data) if size and target[0] == c"/" else -1
    if merged <= 0:
        return not_handed(loop, connection, b"X-Sendfile does not name a file by its whole path", target, size, b"")
    return deliver_path(loop, connection, loop.sendfile_site, loop.path.data + 1, <size_t>merged - 1)
