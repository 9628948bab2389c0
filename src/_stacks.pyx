"""Where threads are at this moment.

Frames of a thread that runs change while they are read. With a GIL none runs but the one that reads, as long as it does
not let go of the GIL. Python code does, such as traceback.walk_stack(): what it goes on with may be another stack by
then, and Python 3.11 has crashed there. Without a GIL, all threads are stopped for as long as it takes to copy what is
shown of them: what sys._current_frames() gives could be gone before it is looked at. Such a copy is a list of (code,
line, globals), the innermost frame first.
"""

import linecache
import sys
import traceback

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState:
        pass
    ctypedef struct PyThreadState:
        unsigned long thread_id
    ctypedef struct PyFrameObject:
        pass
    PyInterpreterState* PyInterpreterState_Get()
    PyThreadState* PyInterpreterState_ThreadHead(PyInterpreterState* interpreter)
    PyThreadState* PyThreadState_Next(PyThreadState* state)
    PyFrameObject* PyThreadState_GetFrame(PyThreadState* state)
    PyFrameObject* PyFrame_GetBack(PyFrameObject* frame)
    int PyFrame_GetLineNumber(PyFrameObject* frame)
    void PyErr_Clear()
    bint PyGC_Disable()
    bint PyGC_Enable()

cdef extern from *:
    # All frames have references to what is held here, so that these are not the last ones.
    """
    #ifdef Py_GIL_DISABLED
    #define STACKS_STOP_THREADS 1
    /* The one function that a module may call which stops all threads and calls it back meanwhile. */
    #define stacks_while_stopped PyUnstable_GC_VisitObjects
    #define stacks_globals(frame) PyFrame_GetGlobals(frame)
    #else
    #define STACKS_STOP_THREADS 0
    #define stacks_while_stopped(look, into) ((void)(look), (void)(into))
    #define stacks_globals(frame) NULL
    #endif
    #define stacks_code(frame) ((PyObject *)PyFrame_GetCode(frame))
    #define stacks_let_go(frame) Py_DECREF((PyObject *)(frame))
    """
    bint STACKS_STOP_THREADS
    void stacks_while_stopped(int (*look)(PyObject* any, void* into) noexcept, void* into)
    PyObject* stacks_globals(PyFrameObject* frame)
    PyObject* stacks_code(PyFrameObject* frame)
    void stacks_let_go(PyFrameObject* frame)

cdef enum:
    DEPTH_MOST = 500            # of a stack: these innermost frames
    PLACES_FIRST = 256


cdef struct place_t:
    unsigned long thread
    PyObject* code              # owned, as `names`
    PyObject* names
    int line


cdef struct places_t:
    PyInterpreterState* interpreter
    place_t* places             # owned
    size_t count
    size_t room


cdef bint has_room(places_t* places) noexcept:
    """For one more; False if memory is out."""
    cdef size_t room = max(2 * places.room, <size_t>PLACES_FIRST)
    cdef place_t* larger
    if places.count < places.room:
        return True
    larger = <place_t*>PyMem_RawRealloc(places.places, room * sizeof(place_t))
    if larger == NULL:
        return False
    places.places = larger
    places.room = room
    return True


cdef void copy_stack(places_t* places, PyThreadState* state) noexcept:
    """Where a thread is that is stopped; what there is no memory for is left out."""
    cdef PyFrameObject* frame = PyThreadState_GetFrame(state)
    cdef PyFrameObject* outer
    cdef place_t* place
    cdef int depth = 0
    while frame != NULL and depth < DEPTH_MOST and has_room(places):
        place = &places.places[places.count]
        place.thread = state.thread_id
        place.code = stacks_code(frame)
        place.names = stacks_globals(frame)
        place.line = PyFrame_GetLineNumber(frame)
        places.count += 1
        depth += 1
        outer = PyFrame_GetBack(frame)
        stacks_let_go(frame)
        frame = outer
    if frame != NULL:
        stacks_let_go(frame)


cdef int copy_stacks(PyObject* any, void* into) noexcept:
    """Called while all other threads are stopped, with any object; 0: with no other one."""
    cdef places_t* places = <places_t*>into
    # The list of threads is locked.
    cdef PyThreadState* state = PyInterpreterState_ThreadHead(places.interpreter)
    while state != NULL:
        copy_stack(places, state)
        state = PyThreadState_Next(state)
    return 0


cdef dict stopped_stacks():
    cdef places_t places = places_t(PyInterpreterState_Get(), NULL, 0, 0)
    cdef place_t* place
    cdef dict found = {}
    cdef size_t i
    stacks_while_stopped(copy_stacks, &places)
    PyErr_Clear()       # of a frame that there was no memory for
    try:
        for i in range(places.count):
            place = &places.places[i]
            found.setdefault(place.thread, []).append((<object>place.code, place.line, <object>place.names))
    finally:
        for i in range(places.count):
            Py_DECREF(<object>places.places[i].code)
            Py_DECREF(<object>places.places[i].names)
        PyMem_RawFree(places.places)
    return found


def stack_of(frame):
    """The same of a frame that does not run; no Python code runs for this, but what the garbage collector may call."""
    cdef list stack = []
    while frame is not None:
        stack.append((frame.f_code, frame.f_lineno, frame.f_globals))
        frame = frame.f_back
    return stack


cdef dict held_stacks():
    """With a GIL, which nobody else gets meanwhile: a finalizer that the garbage collector runs could let go of it."""
    cdef dict found = {}
    cdef bint collects = PyGC_Disable()
    try:
        for ident, frame in sys._current_frames().items():
            found[ident] = stack_of(frame)
    finally:
        if collects:
            PyGC_Enable()
    return found


def stacks():
    """Where each thread is, by its identifier."""
    return stopped_stacks() if STACKS_STOP_THREADS else held_stacks()


def stack_text(stack):
    """A stack as a traceback shows it, the outermost frame first."""
    summary = traceback.StackSummary()
    try:
        for code, line, names in reversed(stack):
            linecache.lazycache(code.co_filename, names)
            summary.append(traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False))
        for name in {code.co_filename for code, _, _ in stack}:
            linecache.checkcache(name)
        return "".join(summary.format())
    except Exception as error:      # of a loader of the application, asked for a source line
        return f"  the stack cannot be shown: {error!r}\n"
