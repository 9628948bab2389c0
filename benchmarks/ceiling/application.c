/* Ceiling: the loop calls a WSGI application with a full environ, in one thread that keeps the GIL while there is work.
 *
 *     import ceiling; ceiling.run(application, template, port)
 *
 * template is the environ of every request: the keys that do not change. Well-formed requests are taken for granted,
 * repeated field lines are not joined and chunked content is not read: what is left out makes the ceiling higher.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <time.h>

#include "loop.h"

#define KNOWN_FIELDS 64
#define FIELD_NAME_SIZE 40

static PyObject *application, *template, *start_response, *bytes_io;
static PyObject *key_method, *key_path, *key_query, *key_uri, *key_protocol, *key_address;
static PyObject *key_content_length, *key_input, *name_close;
static PyObject *text_get, *text_empty, *text_http11, *text_http10, *text_address;

/* The environ keys of field names seen before, found by their exact spelling. */
static struct {
    size_t size;
    char name[FIELD_NAME_SIZE];
    PyObject *key;
} known[KNOWN_FIELDS];
static int known_count;

/* What start_response writes to. One request runs at a time, so one of it is enough. */
static struct {
    struct output *output;
    size_t from;
    int started, has_length;
} response;

static char closing_fields[96];
static size_t closing_fields_size;
static time_t closing_fields_second;

static void refresh_date(void) {
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == closing_fields_second) return;
    closing_fields_second = now.tv_sec;
    gmtime_r(&now.tv_sec, &utc);
    closing_fields_size = strftime(closing_fields, sizeof closing_fields,
                                   "Server: ceiling\r\nDate: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
}

static int wait_for_events(int epoll, struct epoll_event *events) {
    int count = epoll_wait(epoll, events, EVENTS, 0);
    if (count == 0) {
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(epoll, events, EVENTS, -1);
        Py_END_ALLOW_THREADS
    }
    if (count < 0 && PyErr_CheckSignals() < 0) {
        PyErr_Print();
        exit(1);
    }
    refresh_date();
    return count;
}

static PyObject *make_key(const char *name, size_t size) {
    char text[256] = "HTTP_";
    size_t at = 5;
    for (size_t i = 0; i < size && at < sizeof text - 1; i++) {
        char c = name[i];
        text[at++] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 32 : c;
    }
    if (!strcmp(text, "HTTP_CONTENT_TYPE") || !strcmp(text, "HTTP_CONTENT_LENGTH"))
        return PyUnicode_InternFromString(text + 5);
    return PyUnicode_InternFromString(text);
}

/* Returns a borrowed reference where the name is remembered, which real requests soon are. */
static PyObject *field_key(const char *name, size_t size) {
    for (int i = 0; i < known_count; i++)
        if (known[i].size == size && !memcmp(known[i].name, name, size)) return known[i].key;
    PyObject *key = make_key(name, size);
    if (known_count < KNOWN_FIELDS && size <= FIELD_NAME_SIZE) {
        known[known_count].size = size;
        memcpy(known[known_count].name, name, size);
        known[known_count++].key = key;
    }
    return key;
}

static void set_text(PyObject *environ, PyObject *key, const char *text, size_t size) {
    PyObject *value = PyUnicode_DecodeLatin1(text, size, NULL);
    PyDict_SetItem(environ, key, value);
    Py_DECREF(value);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void set_path(PyObject *environ, const char *path, size_t size) {
    if (!memchr(path, '%', size)) {
        set_text(environ, key_path, path, size);
        return;
    }
    char *decoded = malloc(size);
    size_t at = 0;
    for (size_t i = 0; i < size; i++) {
        if (path[i] == '%' && i + 2 < size && hex_digit(path[i + 1]) >= 0 && hex_digit(path[i + 2]) >= 0) {
            decoded[at++] = hex_digit(path[i + 1]) * 16 + hex_digit(path[i + 2]);
            i += 2;
        } else
            decoded[at++] = path[i];
    }
    set_text(environ, key_path, decoded, at);
    free(decoded);
}

static void set_request_line(PyObject *environ, const char *line, const char *end) {
    const char *target = memchr(line, ' ', end - line) + 1;
    const char *target_end = memchr(target, ' ', end - target);
    const char *query = memchr(target, '?', target_end - target);
    if (target - line == 4 && !memcmp(line, "GET", 3))
        PyDict_SetItem(environ, key_method, text_get);
    else
        set_text(environ, key_method, line, target - 1 - line);
    set_text(environ, key_uri, target, target_end - target);
    set_path(environ, target, (query ? query : target_end) - target);
    if (query)
        set_text(environ, key_query, query + 1, target_end - query - 1);
    else
        PyDict_SetItem(environ, key_query, text_empty);
    PyDict_SetItem(environ, key_protocol, end[-1] == '1' ? text_http11 : text_http10);
    PyDict_SetItem(environ, key_address, text_address);
}

/* Sets the fields; returns the length of the content, and whether the connection ends with this request. */
static size_t set_fields(PyObject *environ, const char *line, const char *end, int *closing) {
    size_t content_length = 0;
    while (line < end) {
        const char *line_end = memchr(line, '\r', end - line);
        const char *colon = memchr(line, ':', line_end - line);
        const char *value = colon + 1;
        size_t name_size = colon - line;
        while (value < line_end && *value == ' ') value++;
        PyObject *key = field_key(line, name_size);
        set_text(environ, key, value, line_end - value);
        if (key == key_content_length)
            content_length = strtoul(value, NULL, 10);
        else if (name_size == 10 && line_end - value == 5 && !strncasecmp(line, "connection", 10) &&
                 !strncasecmp(value, "close", 5))
            *closing = 1;
        line = line_end + 2;
    }
    return content_length;
}

static PyObject *start_response_call(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    if (count < 2 || !PyUnicode_Check(arguments[0]) || !PyList_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "start_response(status, headers[, exc_info])");
        return NULL;
    }
    struct output *output = response.output;
    output->size = response.from;
    response.started = 1;
    response.has_length = 0;

    Py_ssize_t size, value_size;
    const char *text = PyUnicode_AsUTF8AndSize(arguments[0], &size), *value;
    output_append(output, "HTTP/1.1 ", 9);
    output_append(output, text, size);
    output_append(output, "\r\n", 2);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(arguments[1]); i++) {
        PyObject *pair = PyList_GET_ITEM(arguments[1], i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !(text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(pair, 0), &size)) ||
            !(value = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(pair, 1), &value_size))) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "headers are pairs of str");
            return NULL;
        }
        if (size == 14 && !strncasecmp(text, "content-length", 14)) response.has_length = 1;
        char *to = output_reserve(output, size + value_size + 4);
        memcpy(to, text, size);
        memcpy(to + size, ": ", 2);
        memcpy(to + size + 2, value, value_size);
        memcpy(to + size + 2 + value_size, "\r\n", 2);
        output->size += size + value_size + 4;
    }
    Py_RETURN_NONE;
}

static void append_end_of_head(struct output *output, int closing) {
    output_append(output, closing_fields, closing_fields_size);
    if (closing) output_append(output, "Connection: close\r\n", 19);
    output_append(output, "\r\n", 2);
}

static int append_single(struct output *output, PyObject *block, int closing) {
    if (!response.started || !PyBytes_Check(block)) return -1;
    if (!response.has_length) {
        char *to = output_reserve(output, 48);
        output->size += sprintf(to, "Content-Length: %zd\r\n", PyBytes_GET_SIZE(block));
    }
    append_end_of_head(output, closing);
    output_append(output, PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block));
    return 0;
}

static int append_iterated(struct output *output, PyObject *iterable, int closing) {
    PyObject *iterator = PyObject_GetIter(iterable), *block;
    int head_done = 0;
    if (!iterator) return -1;
    while ((block = PyIter_Next(iterator))) {
        if (!response.started || !PyBytes_Check(block)) {
            Py_DECREF(block);
            break;
        }
        Py_ssize_t size = PyBytes_GET_SIZE(block);
        if (!head_done) {
            if (!response.has_length) output_append(output, "Transfer-Encoding: chunked\r\n", 28);
            append_end_of_head(output, closing);
            head_done = 1;
        }
        if (size && !response.has_length) {
            char *to = output_reserve(output, 32);
            output->size += sprintf(to, "%zx\r\n", size);
        }
        output_append(output, PyBytes_AS_STRING(block), size);
        if (size && !response.has_length) output_append(output, "\r\n", 2);
        Py_DECREF(block);
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred() || !head_done) return -1;
    if (!response.has_length) output_append(output, "0\r\n\r\n", 5);
    return 0;
}

static int append_answer(struct output *output, PyObject *environ, int closing) {
    PyObject *arguments[2] = {environ, start_response};
    response.output = output;
    response.from = output->size;
    response.started = 0;
    PyObject *iterable = PyObject_Vectorcall(application, arguments, 2, NULL);
    if (!iterable) return -1;
    if (PyList_CheckExact(iterable) && PyList_GET_SIZE(iterable) == 1) {
        int result = append_single(output, PyList_GET_ITEM(iterable, 0), closing);
        Py_DECREF(iterable);
        return result;
    }
    int result = append_iterated(output, iterable, closing);
    PyObject *closer = PyObject_GetAttr(iterable, name_close);
    if (closer) {
        PyObject *closed = PyObject_CallNoArgs(closer);
        Py_XDECREF(closed);
        Py_DECREF(closer);
        if (!closed) result = -1;
    } else
        PyErr_Clear();
    Py_DECREF(iterable);
    return result;
}

static size_t take_request(struct connection *connection, const char *data, size_t size, struct output *output) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    const char *line_end = memchr(data, '\r', end + 1 - data);
    size_t head_size = end + 4 - data;

    PyObject *environ = PyDict_Copy(template);
    set_request_line(environ, data, line_end);
    size_t content_length = set_fields(environ, line_end + 2, end + 2, &connection->closing);
    if (size < head_size + content_length) {
        Py_DECREF(environ);
        connection->closing = 0;
        return 0;
    }
    if (content_length) {
        PyObject *content = PyObject_CallFunction(bytes_io, "y#", data + head_size, (Py_ssize_t)content_length);
        PyDict_SetItem(environ, key_input, content);
        Py_DECREF(content);
    }

    size_t from = output->size;
    if (append_answer(output, environ, connection->closing) < 0) {
        if (PyErr_Occurred()) PyErr_Print();
        output->size = from;
        output_append(output, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 77);
        connection->closing = 1;
    }
    Py_DECREF(environ);
    return head_size + content_length;
}

static PyObject *run(PyObject *self, PyObject *arguments) {
    int port;
    if (!PyArg_ParseTuple(arguments, "OO!i", &application, &PyDict_Type, &template, &port)) return NULL;
    int listener = listen_on(port);
    if (listener < 0) return PyErr_SetFromErrno(PyExc_OSError);
    refresh_date();
    loop_run(listener);
    Py_RETURN_NONE;
}

static PyMethodDef start_response_definition = {"start_response", (PyCFunction)(void (*)(void))start_response_call,
                                                METH_FASTCALL, NULL};
static PyMethodDef functions[] = {{"run", run, METH_VARARGS, "Serve application on 127.0.0.1:port for ever."}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "ceiling", NULL, -1, functions};

PyMODINIT_FUNC PyInit_ceiling(void) {
    key_method = PyUnicode_InternFromString("REQUEST_METHOD");
    key_path = PyUnicode_InternFromString("PATH_INFO");
    key_query = PyUnicode_InternFromString("QUERY_STRING");
    key_uri = PyUnicode_InternFromString("REQUEST_URI");
    key_protocol = PyUnicode_InternFromString("SERVER_PROTOCOL");
    key_address = PyUnicode_InternFromString("REMOTE_ADDR");
    key_content_length = PyUnicode_InternFromString("CONTENT_LENGTH");
    key_input = PyUnicode_InternFromString("wsgi.input");
    name_close = PyUnicode_InternFromString("close");
    text_get = PyUnicode_InternFromString("GET");
    text_empty = PyUnicode_InternFromString("");
    text_http11 = PyUnicode_InternFromString("HTTP/1.1");
    text_http10 = PyUnicode_InternFromString("HTTP/1.0");
    text_address = PyUnicode_InternFromString("127.0.0.1");
    start_response = PyCFunction_New(&start_response_definition, NULL);
    PyObject *io = PyImport_ImportModule("io");
    if (!io || !start_response) return NULL;
    bytes_io = PyObject_GetAttrString(io, "BytesIO");
    return PyModule_Create(&definition);
}
