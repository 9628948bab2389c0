"""What requests leave behind: blocks of memory that a sampled one has allocated and that are still there afterwards.

Python's allocators are wrapped. What the thread of a sample allocates is followed until it is freed, by whichever
thread: so it does not matter what else runs meanwhile, and garbage, caches and queues show by how their blocks end.
Knows no request and no route. With the GIL throughout, as what it wraps; not for Pythons without one.
"""

import gc
import os
import sys

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport INT64_MAX, UINT32_MAX, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strlen, strncmp, strstr

from fastwsgi._platform cimport platform_now_ns, platform_thread_cpu_ns

cdef extern from "Python.h" nogil:
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        PyObject* co_filename
        PyObject* co_name
        int co_firstlineno
    ctypedef struct PyDictObject:
        void* ma_keys
    void PyMem_GetAllocator(PyMemAllocatorDomain domain, PyMemAllocatorEx* allocator)
    void PyMem_SetAllocator(PyMemAllocatorDomain domain, PyMemAllocatorEx* allocator)
    void* PyObject_Malloc(size_t size)
    void PyObject_Free(void* address)
    unsigned long PyThread_get_thread_ident()
    int PyGILState_Check()
    int PyGC_Disable()
    int PyGC_Enable()
    PyThreadState* PyThreadState_Get()
    PyFrameObject* PyThreadState_GetFrame(PyThreadState* state)
    PyFrameObject* PyFrame_GetBack(PyFrameObject* frame)
    PyCodeObject* PyFrame_GetCode(PyFrameObject* frame)
    int PyFrame_GetLasti(PyFrameObject* frame)
    int PyCode_Addr2Line(PyCodeObject* code, int offset)
    const char* PyUnicode_AsUTF8(PyObject* text)
    void PyErr_Fetch(PyObject** kind, PyObject** error, PyObject** traceback)
    void PyErr_Restore(PyObject* kind, PyObject* error, PyObject* traceback)

cdef extern from "Python.h":
    PyObject* PyTuple_New(Py_ssize_t size)
    int _PyTuple_Resize(PyObject** row, Py_ssize_t size)

cdef extern from *:
    # Without a look at types: what has a reference count.
    """
    #define survivors_hold(what) Py_INCREF((PyObject *)(what))
    #define survivors_let_go(what) Py_DECREF((PyObject *)(what))
    """
    void survivors_hold(void* what) nogil
    void survivors_let_go(void* what) nogil

cdef enum:
    FRESH_FIRST = 1 << 12       # slots for the blocks of a sample at first
    FRESH_MOST = 1 << 18        # and at most; they are full with half as many
    KEPT_FIRST = 1 << 8         # for those that are followed: few, so that each free() finds them in the cache
    KEPT_MOST = 1 << 15
    PLACES = 1 << 13            # slots; full at three quarters
    DEPTH_MOST = 64             # frames that are looked at for a line of the application
    FREE_LIST_MOST = 2000       # objects in one of Python's free lists
    KINDS = 3                   # of objects with free lists: lists, dicts, floats; and
    TUPLE_MOST = 20             # tuples of so many items
    GC_HEAD = 16                # octets before an object that may be in cycles

cdef int64_t PAUSE_NS = 20000000            # between two samples
cdef int64_t SHARE = 100                    # one of so many nanoseconds may be spent
cdef int64_t NOTE_NS = 1000                 # what it takes to note a block, at most
cdef int64_t STEP_NS = 100                  # and to look at a frame
cdef int64_t PATIENCE_NS = 5000000000       # for the end of a sample, if another one could begin


# ---- blocks by address ----

cdef bint table_open(table_t* table, size_t slots) noexcept nogil:
    """False if memory is out."""
    table.blocks = <block_t*>calloc(slots, sizeof(block_t))
    table.mask = slots - 1
    table.count = 0
    return table.blocks != NULL


cdef void table_close(table_t* table) noexcept nogil:
    free(table.blocks)
    table.blocks = NULL
    table.count = 0


cdef inline size_t table_home(const table_t* table, void* address) noexcept nogil:
    return <size_t>((<uint64_t>address * <uint64_t>0x9E3779B97F4A7C15) >> 40) & table.mask


cdef inline block_t* table_find(const table_t* table, void* address) noexcept nogil:
    cdef size_t i = table_home(table, address)
    while table.blocks[i].address != NULL:
        if table.blocks[i].address == address:
            return &table.blocks[i]
        i = (i + 1) & table.mask
    return NULL


cdef void table_add(table_t* table, block_t block) noexcept nogil:
    """There has to be room."""
    cdef size_t i = table_home(table, block.address)
    while table.blocks[i].address != NULL and table.blocks[i].address != block.address:
        i = (i + 1) & table.mask
    if table.blocks[i].address == NULL:
        table.count += 1
    table.blocks[i] = block


cdef void table_remove(table_t* table, block_t* block) noexcept nogil:
    cdef size_t gap = <size_t>(block - table.blocks)
    cdef size_t i = gap
    while True:
        i = (i + 1) & table.mask
        if table.blocks[i].address == NULL:
            break
        # It may move up unless its home lies behind the gap.
        if (i - table_home(table, table.blocks[i].address)) & table.mask >= (i - gap) & table.mask:
            table.blocks[gap] = table.blocks[i]
            gap = i
    table.blocks[gap].address = NULL
    table.count -= 1


cdef bint table_has_room(table_t* table, size_t more, size_t most) noexcept nogil:
    """For so many more, in a larger table if need be; False if that would have more slots than `most`."""
    cdef table_t larger
    cdef size_t i
    while table.count + more > table.mask // 2 + 1:
        if table.mask + 1 >= most or not table_open(&larger, (table.mask + 1) * 2):
            return False
        for i in range(table.mask + 1):
            if table.blocks[i].address != NULL:
                table_add(&larger, table.blocks[i])
        table_close(table)
        table[0] = larger
    return True


# ---- lines of code ----

cdef bint is_library(const watch_t* watch, const char* filename) noexcept nogil:
    return (filename == NULL or filename[0] == c"<" and strncmp(filename, b"<frozen", 7) == 0
            or strstr(filename, b"/site-packages/") != NULL or strstr(filename, b"/dist-packages/") != NULL
            or strncmp(filename, watch.library, strlen(watch.library)) == 0
            or strncmp(filename, watch.ours, strlen(watch.ours)) == 0)


cdef uint16_t place_of(watch_t* watch, PyFrameObject* frame) noexcept nogil:
    """The number of the line that a frame is at; 0 if there are too many."""
    cdef PyCodeObject* code = PyFrame_GetCode(frame)
    cdef int offset = PyFrame_GetLasti(frame)
    cdef uint64_t mix = (<uint64_t>code ^ <uint64_t>offset << 48) * <uint64_t>0x9E3779B97F4A7C15
    cdef size_t i = mix >> 51
    cdef const char* filename
    cdef place_t* place
    # The frame has it, too.
    survivors_let_go(code)
    while True:
        i = i & (PLACES - 1) or 1       # 0 is nowhere
        place = &watch.places[i]
        if place.code == NULL:
            break
        if (place.code == <void*>code and place.offset == offset and place.filename == code.co_filename
                and place.first_line == code.co_firstlineno):
            return <uint16_t>i
        i += 1
    if watch.places_used >= PLACES * 3 // 4:
        return 0
    watch.places_used += 1
    place.code = code
    place.offset = offset
    place.filename = code.co_filename
    place.function = code.co_name
    survivors_hold(place.filename)
    survivors_hold(place.function)
    place.first_line = code.co_firstlineno
    place.line = PyCode_Addr2Line(code, offset)
    filename = PyUnicode_AsUTF8(place.filename)
    place.is_library = is_library(watch, filename)
    return <uint16_t>i


cdef uint16_t current_place(watch_t* watch) noexcept nogil:
    """The innermost line of the application, or else the innermost; 0 if there is none."""
    cdef PyFrameObject* frame
    cdef PyFrameObject* outer
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* traceback
    cdef uint16_t place, found = 0
    cdef bint collects
    cdef int i
    if not PyGILState_Check():
        return 0
    # Frames become objects when they are looked at. Garbage is not to be collected here, where any block is allocated.
    collects = PyGC_Disable()
    # An exception may be on its way where a block is allocated: what fails here must not take its place.
    PyErr_Fetch(&kind, &error, &traceback)
    frame = PyThreadState_GetFrame(PyThreadState_Get())
    for i in range(DEPTH_MOST):
        if frame == NULL:
            break
        watch.steps += 1
        place = place_of(watch, frame)
        if i == 0:
            found = place
        if place and not watch.places[place].is_library:
            found = place
            break
        outer = PyFrame_GetBack(frame)
        survivors_let_go(frame)
        frame = outer
    if frame != NULL:
        survivors_let_go(frame)
    PyErr_Restore(kind, error, traceback)
    if collects:
        PyGC_Enable()
    return found


# ---- the allocators ----

cdef inline bint is_watched(const watch_t* watch) noexcept nogil:
    """This thread is sampled."""
    return watch.thread and watch.thread == PyThread_get_thread_ident()


cdef void note_allocated(watch_t* watch, void* address, size_t size) noexcept nogil:
    cdef block_t block
    if address == NULL or not is_watched(watch):
        return
    watch.seen += 1
    if watch.drains:
        return
    block.place = 0
    if not watch.is_inside:
        watch.is_inside = True
        block.place = current_place(watch)
        watch.is_inside = False
    block.address = address
    block.size = <uint32_t>min(size, <size_t>UINT32_MAX)
    block.sample = 0
    if not watch.is_too_large:
        if table_has_room(&watch.fresh, 1, FRESH_MOST):
            table_add(&watch.fresh, block)
        else:
            watch.is_too_large = True


cdef void note_freed(watch_t* watch, void* address) noexcept nogil:
    cdef block_t* block
    cdef sample_t* sample
    if watch.fresh.count:
        block = table_find(&watch.fresh, address)
        if block != NULL:
            table_remove(&watch.fresh, block)
            return
    if watch.kept.count:
        block = table_find(&watch.kept, address)
        if block != NULL:
            sample = &watch.samples[block.sample]
            sample.alive -= 1
            sample.octets -= block.size
            sample.collected += watch.collects
            table_remove(&watch.kept, block)
    # Garbage is not what this request has let go of.
    if is_watched(watch) and not watch.drains and not watch.collects:
        watch.older += 1


cdef void note_moved(watch_t* watch, void* before, void* address, size_t size) noexcept nogil:
    cdef block_t* found
    cdef block_t block
    if watch.fresh.count:
        found = table_find(&watch.fresh, before)
        if found != NULL:
            block = found[0]
            table_remove(&watch.fresh, found)
            block.address = address
            block.size = <uint32_t>min(size, <size_t>UINT32_MAX)
            table_add(&watch.fresh, block)
            return
    if watch.kept.count and address != before:
        found = table_find(&watch.kept, before)
        if found != NULL:
            # As large as its sample has left it: what it grows by now is another one's.
            block = found[0]
            table_remove(&watch.kept, found)
            block.address = address
            table_add(&watch.kept, block)


cdef void* hook_malloc(void* ctx, size_t size) noexcept nogil:
    cdef hook_t* hook = <hook_t*>ctx
    cdef void* address
    if not hook.watch.thread:
        return hook.base.malloc(hook.base.ctx, size)
    address = hook.base.malloc(hook.base.ctx, size)
    note_allocated(hook.watch, address, size)
    return address


cdef void* hook_calloc(void* ctx, size_t number, size_t size) noexcept nogil:
    cdef hook_t* hook = <hook_t*>ctx
    cdef void* address = hook.base.calloc(hook.base.ctx, number, size)
    if hook.watch.thread:
        note_allocated(hook.watch, address, number * size)
    return address


cdef void* hook_realloc(void* ctx, void* before, size_t size) noexcept nogil:
    cdef hook_t* hook = <hook_t*>ctx
    cdef void* address = hook.base.realloc(hook.base.ctx, before, size)
    if before == NULL:
        if hook.watch.thread:
            note_allocated(hook.watch, address, size)
    elif address != NULL and (hook.watch.thread or hook.watch.kept.count):
        note_moved(hook.watch, before, address, size)
    return address


cdef void hook_free(void* ctx, void* address) noexcept nogil:
    cdef hook_t* hook = <hook_t*>ctx
    if (hook.watch.thread or hook.watch.kept.count) and address != NULL:
        note_freed(hook.watch, address)
    hook.base.free(hook.base.ctx, address)


cdef void wrap(watch_t* watch, PyMemAllocatorDomain domain, hook_t* hook) noexcept:
    cdef PyMemAllocatorEx ours
    hook.watch = watch
    PyMem_GetAllocator(domain, &hook.base)
    ours.ctx = hook
    ours.malloc = hook_malloc
    ours.calloc = hook_calloc
    ours.realloc = hook_realloc
    ours.free = hook_free
    PyMem_SetAllocator(domain, &ours)


cdef void unwrap(PyMemAllocatorDomain domain, hook_t* hook) noexcept:
    """Put back what was there, unless somebody has wrapped it once more."""
    cdef PyMemAllocatorEx now
    PyMem_GetAllocator(domain, &now)
    if now.ctx == hook:
        PyMem_SetAllocator(domain, &hook.base)


# ---- samples ----

cdef object new_object(int kind):
    """One of those that come from free lists, where they are not seen as allocated."""
    if kind == 0:
        return []
    if kind == 1:
        return {"": None}
    return 0.5 * kind


cdef class Survivors:
    """Samples of what exchanges leave behind; one in a process."""

    def __cinit__(self):
        cdef int i
        self.library = os.fsencode(os.path.join(os.path.dirname(os.__file__), ""))
        self.ours = os.fsencode(os.path.join(os.path.dirname(os.path.abspath(__file__)), ""))
        self.unused = list(range(SAMPLES_MOST))
        self.keys_size = sys.getsizeof({"": None}) - sys.getsizeof({})
        self.over = []
        self.watch = <watch_t*>calloc(1, sizeof(watch_t))
        if self.watch == NULL or not table_open(&self.watch.kept, KEPT_FIRST):
            raise MemoryError
        self.watch.places = <place_t*>calloc(PLACES, sizeof(place_t))
        if self.watch.places == NULL:
            raise MemoryError
        # They outlive this object, as what points to them does.
        Py_INCREF(self.library)
        Py_INCREF(self.ours)
        self.watch.library = self.library
        self.watch.ours = self.ours

    def open(self):
        """Begin: from here on each free() is looked at, and exchanges are sampled."""
        # It empties the free lists, which have thousands of tuples after all the imports.
        gc.collect()
        wrap(self.watch, PYMEM_DOMAIN_MEM, &self.watch.hooks[0])
        wrap(self.watch, PYMEM_DOMAIN_OBJ, &self.watch.hooks[1])
        gc.callbacks.append(self.collecting)

    def close(self):
        """Put back Python's allocators."""
        self.next_ns = INT64_MAX
        self.give_up()
        unwrap(PYMEM_DOMAIN_OBJ, &self.watch.hooks[1])
        unwrap(PYMEM_DOMAIN_MEM, &self.watch.hooks[0])
        if self.collecting in gc.callbacks:
            gc.callbacks.remove(self.collecting)

    def collecting(self, phase, info):
        """For gc.callbacks."""
        self.watch.collects = phase == "start"
        if phase == "stop" and info["generation"] == 2:
            self.collections += 1

    cdef int64_t begin(self, int64_t now_ns) noexcept:
        """A number for `end`, if this thread is sampled from here on; 0 if it is not."""
        cdef watch_t* watch = self.watch
        cdef int64_t began_ns
        if now_ns < self.next_ns or not self.unused:
            return 0
        if watch.thread:
            if now_ns - self.began_ns < PATIENCE_NS:
                return 0
            self.give_up()      # it waits, or streams, for long
        began_ns = platform_thread_cpu_ns()
        if not table_open(&watch.fresh, FRESH_FIRST):
            return 0
        self.serial += 1
        self.began_ns = now_ns
        watch.is_too_large = watch.is_inside = False
        watch.drains = True
        watch.seen = watch.steps = 0
        watch.thread = PyThread_get_thread_ident()
        PyObject_Free(PyObject_Malloc(1))
        if not watch.seen:
            self.give_up()
            self.is_blind = True
            self.next_ns = INT64_MAX
            return 0
        try:
            # Or what the exchange takes from free lists would not be seen, and what refills them would seem to be kept.
            self.held, self.taken = [], []
            self.drain(self.held, False)
        except MemoryError:
            self.give_up()
            return 0
        self.name = None
        watch.seen = watch.steps = 0
        watch.older = 0
        watch.drains = False
        self.entered_ns = platform_thread_cpu_ns()
        self.spent_ns = self.entered_ns - began_ns
        return self.serial

    cdef bint is_sampled(self) noexcept:
        """This thread is."""
        return is_watched(self.watch)

    cdef bint end(self, int64_t serial) noexcept:
        """The exchange of `begin` is over, and what it need not keep is dropped; True if `label` is wanted."""
        cdef watch_t* watch = self.watch
        cdef int64_t began_ns = platform_thread_cpu_ns()
        cdef bint is_followed = False
        if serial != self.serial or not is_watched(watch):
            return False
        # What comes from here on is no part of it.
        watch.drains = True
        # What the application takes by itself is not known; two bounds are.
        self.spent_ns += min(began_ns - self.entered_ns,
                             <int64_t>watch.seen * NOTE_NS + <int64_t>watch.steps * STEP_NS)
        try:
            self.drain(self.taken, True)
            is_followed = self.follow()
        except MemoryError:
            pass
        self.give_up()
        self.next_ns = platform_now_ns() + max(
            PAUSE_NS, SHARE * (platform_thread_cpu_ns() - began_ns + self.spent_ns))
        return is_followed

    cdef bint follow(self) except -1:
        """Follow the blocks that are left; False if that cannot be."""
        cdef watch_t* watch = self.watch
        cdef size_t step = (watch.fresh.count + FOLLOWED - 1) // FOLLOWED
        cdef size_t i, number = 0
        cdef block_t* block
        cdef sample_t* sample
        if watch.is_too_large:
            self.too_large += 1
            return False
        if not table_has_room(&watch.kept, FOLLOWED, KEPT_MOST):
            self.is_full = True
            return False
        self.latest = self.unused.pop()
        sample = &watch.samples[self.latest]
        memset(sample, 0, sizeof(sample_t))
        sample.blocks = <uint32_t>watch.fresh.count
        sample.older = watch.older
        for i in range(watch.fresh.mask + 1):
            block = &watch.fresh.blocks[i]
            if block.address != NULL:
                if number % step == 0:
                    sample.followed += 1
                    sample.alive += 1
                    sample.octets += block.size
                    block.sample = <uint16_t>self.latest
                    if self.comes_from_free_list(block):
                        block.place |= UNSURE
                    table_add(&watch.kept, block[0])
                number += 1
        return True

    cdef bint comes_from_free_list(self, const block_t* block) noexcept:
        """An object of a kind for which that may be: then another one had it before, from the line that is noted."""
        cdef PyObject** words = <PyObject**>block.address
        cdef PyObject* kind
        if block.size == self.keys_size or block.size < 24:
            return block.size == self.keys_size
        if block.size == 24:
            return words[1] == <PyObject*>float
        if block.size < 40:
            return False
        kind = words[GC_HEAD / 8 + 1]
        return kind == <PyObject*>list or kind == <PyObject*>dict or kind == <PyObject*>tuple

    cdef int label(self, bytes line) except -1:
        """Say what the sample was that has just ended."""
        self.over.append((self.latest, line, self.name))
        self.name = None
        return 0

    cdef void give_up(self) noexcept:
        """No thread is sampled any more."""
        self.watch.thread = 0
        table_close(&self.watch.fresh)
        self.held = self.taken = None

    cdef int drain(self, list taken, bint forgets) except -1:
        """Take what is in Python's free lists; forgets: it was freed by the sample, and is not left by it."""
        cdef watch_t* watch = self.watch
        cdef PyObject* row
        cdef uint64_t seen
        cdef int kind, i, _
        for kind in range(KINDS):
            for _ in range(FREE_LIST_MOST):
                seen = watch.seen
                one = new_object(kind)
                seen = watch.seen - seen
                if forgets:
                    # What is neither new nor of the sample was there before it.
                    watch.older += not self.forget_object(<PyObject*>one) and not seen
                    if kind == 1:
                        watch.older += not self.forget_block((<PyDictObject*><PyObject*>one).ma_keys) and not seen
                # The last one, too: it would be in the free list again.
                taken.append(one)
                # A dict has a free list for itself and one for its keys.
                if seen >= (2 if kind == 1 else 1):
                    break
        for kind in range(1, TUPLE_MOST + 1):
            for _ in range(FREE_LIST_MOST):
                seen = watch.seen
                row = PyTuple_New(kind)
                if row == NULL:
                    raise MemoryError
                if watch.seen != seen:
                    # Larger ones have no free list: these would become longer with each sample.
                    if _PyTuple_Resize(&row, TUPLE_MOST + 1) == 0:
                        survivors_let_go(row)
                    break
                if forgets:
                    watch.older += not self.forget_object(row)
                # The application may come upon it by gc.get_objects().
                for i in range(kind):
                    Py_INCREF(None)
                    PyTuple_SET_ITEM(<object>row, i, None)
                taken.append(<object>row)
                survivors_let_go(row)
        return 0

    cdef int forget_object(self, PyObject* one) except -1:
        """It is not left by the sample; 1 if it was one of its blocks."""
        return self.forget_block(one) or self.forget_block(<char*>one - GC_HEAD)

    cdef int forget_block(self, void* address) except -1:
        cdef block_t* block = table_find(&self.watch.fresh, address)
        if block == NULL:
            return 0
        table_remove(&self.watch.fresh, block)
        return 1

    # What the main thread does.

    def take(self):
        """The samples that have ended since the last time: their number, the line, and the name or None."""
        over, self.over = self.over, []
        return over

    def left(self, int sample):
        """What is known of a sample: see `Left` in leaks.py."""
        cdef sample_t* one = &self.watch.samples[sample]
        return one.blocks, one.followed, one.alive, one.octets, one.collected, one.older

    def places(self, samples):
        """Where what these samples have left was allocated, if it is there: file, function, line, octets."""
        cdef bytearray wanted = bytearray(SAMPLES_MOST)
        cdef char* is_wanted = wanted
        cdef table_t* kept = &self.watch.kept
        cdef block_t* block
        cdef place_t* place
        cdef size_t i
        cdef int sample
        for sample in samples:
            is_wanted[sample] = 1
        sure, unsure = {}, {}
        for i in range(kept.mask + 1):
            block = &kept.blocks[i]
            if block.address != NULL and is_wanted[block.sample]:
                octets = unsure if block.place & UNSURE else sure
                key = block.place & ~UNSURE
                octets[key] = octets.get(key, 0) + block.size
        octets = sure or unsure
        found = []
        for key, size in octets.items():
            place = &self.watch.places[<int>key]
            if place.code == NULL:
                found.append(("", "", 0, size))
            else:
                found.append((<object>place.filename, <object>place.function, place.line, size))
        return found

    def forget(self, int sample):
        """Follow the blocks of a sample no more."""
        cdef table_t* kept = &self.watch.kept
        cdef size_t i = 0
        self.is_full = False
        # What moves up when one is removed takes its slot, or is met behind it, or has been met at the front.
        while self.watch.samples[sample].alive and i <= kept.mask:
            if kept.blocks[i].address != NULL and kept.blocks[i].sample == sample:
                self.watch.samples[sample].alive -= 1
                table_remove(kept, &kept.blocks[i])
            else:
                i += 1
        self.unused.append(sample)
