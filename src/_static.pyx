"""Files beneath directories: what a path is, in which codings it is there, and what is remembered of it.

A lookup never leaves its directory: the kernel resolves the path with RESOLVE_BENEATH, or, where it cannot, the path is
walked without following any symbolic link. It touches nothing that others change, so that the leader can do it away.
What was found is remembered for FRESH_MS, with the content of small files and the descriptors of others: by the leader
alone, so there is no lock. Knows nothing of connections and requests.
"""

import os

from libc cimport errno as c_errno
from libc.errno cimport (
    EACCES, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV, ENOENT, ENOMEM, ENOTDIR, ENXIO, EPERM, EXDEV, errno,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen
from posix.unistd cimport close

from fastwsgi._buffer cimport buffer_append, buffer_free, buffer_t
from fastwsgi._conditions cimport CODING_BROTLI, CODING_GZIP, CODING_IDENTITY, CODING_ZSTD, CODINGS
from fastwsgi._response cimport date_t, date_write
from fastwsgi._types cimport name_is_hashed, type_of

cimport cython

cdef extern from "platform/beneath.h" nogil:
    enum: BENEATH_FILE
    enum: BENEATH_DIRECTORY
    enum: PATH_MAX
    cdef struct beneath_kind:
        bint is_file
        bint is_directory
        uint64_t size
        int64_t modified
    int beneath_root(const char* path) noexcept
    int beneath_resolve(int root, const char* path, int flags) noexcept
    int beneath_walk(int root, const char* path, int flags) noexcept
    bint beneath_can_resolve() noexcept
    int beneath_status(int fd, beneath_kind* kind) noexcept
    ssize_t beneath_read(int fd, char* data, size_t size) noexcept

cdef enum:
    UNSETTLED = 2       # seconds: a file that has changed since then may change again in the same second
    READ_TRIES = 3      # of a file that changes while it is read

cdef const char* coding_name[CODINGS]
cdef const char* coding_ending[CODINGS]
coding_name[<int>CODING_BROTLI] = b"br"
coding_name[<int>CODING_ZSTD] = b"zstd"
coding_name[<int>CODING_GZIP] = b"gzip"
coding_ending[<int>CODING_BROTLI] = b".br"
coding_ending[<int>CODING_ZSTD] = b".zst"
coding_ending[<int>CODING_GZIP] = b".gz"


# ---- looking ----

cdef int status_of(int error) noexcept nogil:
    """What a client is told when a path cannot be opened."""
    if error in (ENOENT, ENOTDIR, ENAMETOOLONG, ENXIO, ENODEV):
        return 404
    if error in (EACCES, EPERM, EXDEV, ELOOP):
        return 403
    if error in (EMFILE, ENFILE, ENOMEM):
        return 503
    return 500


cdef inline int open_beneath(const site_t* site, int root, const char* path, int flags) noexcept nogil:
    if not path[0]:
        path = b"."
    return beneath_walk(root, path, flags) if site.walks else beneath_resolve(root, path, flags)


cdef int open_file(const site_t* site, int root, const char* path, beneath_kind* kind, int* status) noexcept nogil:
    """A regular file; else -1 and in *status what it is instead: 301 a directory, or an error, whose errno is left."""
    cdef int fd = open_beneath(site, root, path, BENEATH_FILE)
    if fd < 0 and errno == EACCES:
        # A directory that may be searched though not read is one all the same.
        fd = open_beneath(site, root, path, BENEATH_DIRECTORY)
        if fd < 0:
            c_errno.errno = EACCES
    if fd < 0:
        status[0] = status_of(errno)
        return -1
    if beneath_status(fd, kind) < 0:
        status[0] = 500
    elif kind.is_directory:
        status[0] = 301
    elif kind.is_file:
        status[0] = 200
        return fd
    else:
        status[0] = 404         # a FIFO, a socket, a device
    close(fd)
    return -1


cdef int read_form(form_t* form, beneath_kind* kind) noexcept nogil:
    """Take a small file into memory; 0, or -1 with errno."""
    cdef int tries
    cdef ssize_t size
    for tries in range(READ_TRIES):
        free(form.content)
        form.content = NULL
        if form.size > FILE_KEPT:
            return 0
        form.content = <char*>malloc(form.size + 1)
        if form.content == NULL:
            return -1
        # One octet more than there should be, so that growing is noticed too.
        size = beneath_read(form.fd, form.content, form.size + 1)
        if size < 0:
            return -1
        if <uint64_t>size == form.size:
            break
        if beneath_status(form.fd, kind) < 0:
            return -1
        form.size = kind.size
    else:
        # It goes on changing: this much of it there was.
        form.size = min(<uint64_t>size, form.size)
    close(form.fd)
    form.fd = -1
    return 0


cdef int form_field(form_t* form, const char* name, const char* value, size_t size) noexcept nogil:
    return -1 if (buffer_append(&form.lines, name, strlen(name)) or buffer_append(&form.lines, value, size)
                  or buffer_append(&form.lines, b"\r\n", 2)) else 0


cdef int form_cache_control(const site_t* site, const char* name, size_t size, form_t* form) noexcept nogil:
    cdef const char* value = b"max-age=3600"
    if site.expires == EXPIRES_OFF:
        return 0
    if site.expires == EXPIRES_GIVEN:
        value = site.cache_control
    elif name_is_hashed(name, size):
        value = b"max-age=31536000, immutable"
    return form_field(form, b"Cache-Control: ", value, strlen(value))


cdef int form_lines(const site_t* site, const file_t* file, const char* name, form_t* form) noexcept nogil:
    """Write what is told of a form; 0, or -1 when memory is out."""
    cdef date_t date
    cdef size_t size = strlen(name)
    if form_field(form, b"Content-Type: ", file.type, strlen(file.type)):
        return -1
    form.type_end = form.lines.size
    if form.coding != CODING_IDENTITY and form_field(
            form, b"Content-Encoding: ", coding_name[form.coding], strlen(coding_name[form.coding])):
        return -1
    if form_field(form, b"Accept-Ranges: ", b"bytes", 5):
        return -1
    form.form_end = form.lines.size
    date_write(&date, form.validators.modified)
    # The line of the Date field without its name and its end.
    if (form_field(form, b"Last-Modified: ", date.line + 6, 29)
            or form_field(form, b"ETag: W/" if form.validators.is_weak else b"ETag: ", form.tag,
                          form.validators.etag_size)
            or (file.form_count > 1 and form_field(form, b"Vary: ", b"Accept-Encoding", 15))):
        return -1
    form.about_end = form.lines.size
    return form_cache_control(site, name, size, form)


cdef form_t* take_form(file_t* file, int coding, int fd, beneath_kind* kind, int64_t now) noexcept nogil:
    """One more form of a file, which owns the descriptor now; NULL with errno."""
    cdef form_t* form = &file.forms[file.form_count]
    form.coding = coding
    form.fd = fd
    form.size = kind.size
    if read_form(form, kind) < 0:
        if form.fd >= 0:
            close(form.fd)
        free(form.content)
        memset(form, 0, sizeof(form_t))
        return NULL
    form.validators.modified = kind.modified
    form.validators.is_weak = now - kind.modified < UNSETTLED
    # As nginx has it, so that what clients have cached stays good. Codings that it does not have are told apart: what is
    # packed has the time of its file, and perhaps the size of another one.
    if coding == CODING_IDENTITY or coding == CODING_GZIP:
        form.validators.etag_size = <size_t>snprintf(form.tag, ETAG_ROOM, b'"%llx-%llx"',
                                                     <unsigned long long>kind.modified, <unsigned long long>form.size)
    else:
        form.validators.etag_size = <size_t>snprintf(
            form.tag, ETAG_ROOM, b'"%llx-%llx-%d"', <unsigned long long>kind.modified, <unsigned long long>form.size, coding)
    form.validators.etag = form.tag
    file.form_count += 1
    return form


cdef void look_for_sidecars(const site_t* site, int root, char* path, file_t* file, int64_t now) noexcept nogil:
    """Take in what stands beside a file in other codings, unless it is older; path has room for an ending."""
    cdef size_t size = strlen(path)
    cdef beneath_kind kind
    cdef int coding, fd, status
    for coding in range(<int>CODING_IDENTITY + 1, <int>CODINGS):
        memcpy(path + size, coding_ending[coding], strlen(coding_ending[coding]) + 1)
        fd = open_file(site, root, path, &kind, &status)
        if fd >= 0 and kind.modified < file.forms[0].validators.modified:
            close(fd)
        elif fd >= 0:
            take_form(file, coding, fd, &kind, now)
    path[size] = 0


cdef bint has_index(const site_t* site, int root, char* path) noexcept nogil:
    """A directory, without a slash behind it, has a file that stands for it; path has room for that."""
    cdef size_t size = strlen(path)
    cdef beneath_kind kind
    cdef int i, status
    cdef int fd = -1
    for i in range(site.index_count):
        if size + strlen(site.indexes[i]) < PATH_MAX - 8:
            path[size] = c"/"
            memcpy(path + size + 1, site.indexes[i], strlen(site.indexes[i]) + 1)
            fd = open_file(site, root, path, &kind, &status)
        if fd >= 0:
            close(fd)
            break
    path[size] = 0
    return fd >= 0


cdef void look_at_file(const site_t* site, int root, char* path, file_t* file, int64_t now) noexcept nogil:
    """Find out what a path is; path has room for an ending."""
    cdef beneath_kind kind
    cdef int i, fd
    c_errno.errno = 0
    fd = open_file(site, root, path, &kind, &file.status)
    if fd >= 0:
        file.type = type_of(path, strlen(path))
        if take_form(file, CODING_IDENTITY, fd, &kind, now) == NULL:
            fd = -1
            file.status = status_of(errno)
    file.error = 0 if fd >= 0 else errno
    if file.status == 301 and (site.fallback != NULL or site.falls_to_application) and not has_index(site, root, path):
        file.status = 404
    if fd < 0:
        return
    look_for_sidecars(site, root, path, file, now)
    for i in range(file.form_count):
        if form_lines(site, file, path, &file.forms[i]):
            file.status = 503
            file.error = ENOMEM


cdef void look_at_directory(const site_t* site, int root, char* path, file_t* file, int64_t now) noexcept nogil:
    """The same for a path that ends with a slash, or is empty: its index."""
    cdef size_t size = strlen(path), room = PATH_MAX - 8 - size
    cdef int i, fd
    for i in range(site.index_count):
        if strlen(site.indexes[i]) >= room:
            continue
        memcpy(path + size, site.indexes[i], strlen(site.indexes[i]) + 1)
        look_at_file(site, root, path, file, now)
        if file.status == 301:
            file.status = 404
        if file.status != 404:
            return
    path[size] = 0
    fd = open_beneath(site, root, path, BENEATH_DIRECTORY)
    file.error = 0 if fd >= 0 else errno
    file.status = 403 if fd >= 0 else status_of(errno)
    if fd >= 0:
        close(fd)


cdef void look_in(const site_t* site, const char* directory, const char* given, size_t size, file_t* file,
                  int64_t now) noexcept nogil:
    cdef char path[PATH_MAX]
    cdef int root
    if size >= PATH_MAX - 8:
        file.status = 404
        file.error = ENAMETOOLONG
        return
    memcpy(path, given, size)
    path[size] = 0
    root = beneath_root(directory)
    if root < 0:
        file.error = errno
        file.status = status_of(errno)
        return
    if size == 0 or path[size - 1] == c"/":
        look_at_directory(site, root, path, file, now)
    else:
        look_at_file(site, root, path, file, now)
    close(root)


cdef bint is_missing(const file_t* file) noexcept nogil:
    """It is no file, nor a directory with an index."""
    return file.status == 404 or (file.status == 403 and not file.error)


cdef bint leads_into(const root_t* root, const char* path, size_t size) noexcept nogil:
    return root.prefix == NULL or (size > root.prefix_size and path[root.prefix_size] == c"/"
                                   and memcmp(path, root.prefix, root.prefix_size) == 0)


cdef uint64_t hash_of(const site_t* site, const char* path, size_t size) noexcept nogil:
    cdef uint64_t hash = <uint64_t>site
    cdef size_t i
    for i in range(size):
        hash = (hash ^ <uint8_t>path[i]) * <uint64_t>0x100000001B3
    return hash * <uint64_t>0x9E3779B97F4A7C15


cdef file_t* file_new(const site_t* site, const char* path, size_t size) noexcept nogil:
    """What is to be found out of a path; NULL when memory is out."""
    cdef file_t* file = <file_t*>calloc(1, sizeof(file_t) + size)
    if file != NULL:
        file.site = site
        file.hash = hash_of(site, path, size)
        file.path_size = size
        memcpy(file.path, path, size)
    return file


cdef void file_look(file_t* file, int64_t now) noexcept nogil:
    """Find it out, by the disk; now: seconds since 1970."""
    cdef const site_t* site = file.site
    cdef const root_t* root
    cdef size_t skipped
    cdef int i
    file.status = 404
    if memchr(file.path, 0, file.path_size) != NULL:
        return
    for i in range(site.root_count):
        root = &site.roots[i]
        if is_missing(file) and leads_into(root, file.path, file.path_size):
            skipped = 0 if root.prefix == NULL else root.prefix_size + 1
            look_in(site, root.directory, file.path + skipped, file.path_size - skipped, file, now)
    if site.fallback != NULL and is_missing(file):
        look_in(site, site.roots[0].directory, site.fallback, strlen(site.fallback), file, now)
    if site.falls_to_application and is_missing(file):
        file.status = 404


cdef void file_free(file_t* file) noexcept nogil:
    cdef int i
    if file == NULL:
        return
    for i in range(file.form_count):
        if file.forms[i].fd >= 0:
            close(file.forms[i].fd)
        free(file.forms[i].content)
        buffer_free(&file.forms[i].lines)
    free(file)


cdef const form_t* file_form(const file_t* file, const uint16_t* weights) noexcept nogil:
    """The form that is worth most to a client, and of several such the smallest."""
    cdef const form_t* best = &file.forms[0]
    cdef const form_t* form
    cdef int i
    for i in range(1, file.form_count):
        form = &file.forms[i]
        if weights[form.coding] and (weights[form.coding] > weights[best.coding] or (
                weights[form.coding] == weights[best.coding] and form.size < best.size)):
            best = form
    return best


# ---- remembering ----

cdef file_t** link_to(files_t* files, uint64_t hash, const site_t* site, const char* path, size_t size) noexcept nogil:
    """Where the one of that path hangs, or would."""
    cdef file_t** link = &files.buckets[hash >> 54]
    while link[0] != NULL and not (
            link[0].hash == hash and link[0].site == site and link[0].path_size == size
            and memcmp(link[0].path, path, size) == 0):
        link = &link[0].next
    return link


cdef void use_first(files_t* files, file_t* file) noexcept nogil:
    file.older = files.newest
    file.newer = NULL
    if files.newest != NULL:
        files.newest.newer = file
    else:
        files.oldest = file
    files.newest = file


cdef void use_no_more(files_t* files, file_t* file) noexcept nogil:
    if file.newer != NULL:
        file.newer.older = file.older
    else:
        files.newest = file.older
    if file.older != NULL:
        file.older.newer = file.newer
    else:
        files.oldest = file.newer


cdef void weigh(files_t* files, const file_t* file, int sign) noexcept nogil:
    """Count what is kept of a file, or what was."""
    cdef int i
    files.count += sign
    for i in range(file.form_count):
        if file.forms[i].fd >= 0:
            files.descriptors += sign
        else:
            files.kept += <size_t>(sign * <int64_t>file.forms[i].size)


cdef void forget(files_t* files, file_t** link) noexcept nogil:
    cdef file_t* file = link[0]
    link[0] = file.next
    use_no_more(files, file)
    weigh(files, file, -1)
    file_free(file)


cdef void forget_oldest(files_t* files) noexcept nogil:
    cdef file_t* file = files.oldest
    forget(files, link_to(files, file.hash, file.site, file.path, file.path_size))


cdef file_t* files_find(files_t* files, const site_t* site, const char* path, size_t size, int64_t now_ms) noexcept nogil:
    """What is remembered of a path; NULL if it has to be looked for. It may be forgotten with the next files_put."""
    cdef file_t* file = link_to(files, hash_of(site, path, size), site, path, size)[0]
    if file == NULL or now_ms - file.looked_ms >= FRESH_MS:
        return NULL
    if files.newest != file:
        use_no_more(files, file)
        use_first(files, file)
    return file


cdef void files_put(files_t* files, file_t* file, int64_t now_ms) noexcept nogil:
    """Remember what was just found, and forget what is not used."""
    cdef file_t** link = link_to(files, file.hash, file.site, file.path, file.path_size)
    if link[0] != NULL:
        forget(files, link)
        link = link_to(files, file.hash, file.site, file.path, file.path_size)
    file.looked_ms = now_ms
    link[0] = file
    file.next = NULL
    use_first(files, file)
    weigh(files, file, 1)
    while files.oldest != file and (files.count > FILES_MOST or files.kept > KEPT_MOST
                                    or files.descriptors > DESCRIPTORS_MOST):
        forget_oldest(files)


cdef void files_close_descriptors(files_t* files) noexcept nogil:
    """Descriptors have run out: forget what has any, and everything else."""
    while files.oldest != NULL:
        forget_oldest(files)


cdef void files_free(files_t* files) noexcept nogil:
    if files != NULL:
        files_close_descriptors(files)
        free(files)


# ---- the Python face ----

cdef bint can_resolve = beneath_can_resolve()


cdef char* copy_of(object text) except NULL:
    """The octets of a path, for C."""
    cdef bytes octets = os.fsencode(text)
    cdef char* copy
    if b"\0" in octets:
        raise ValueError(f"a path with NUL: {text!r}")
    copy = <char*>malloc(<size_t>len(octets) + 1)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, <const char*>octets, <size_t>len(octets) + 1)
    return copy


@cython.final
cdef class Site:
    """Directories whose files are served at one place."""

    def __cinit__(self, roots, *, indexes=("index.html",), fallback=None, bint falls_to_application=False,
                  expires="auto", walks=None):
        cdef int i
        memset(&self.site, 0, sizeof(site_t))
        self.site.walks = not can_resolve if walks is None else walks
        self.site.roots = <root_t*>calloc(<size_t>len(roots), sizeof(root_t))
        self.site.indexes = <char**>calloc(<size_t>len(indexes) + 1, sizeof(char*))
        if self.site.roots == NULL or self.site.indexes == NULL:
            raise MemoryError
        for directory, prefix in roots:
            i = self.site.root_count
            self.site.root_count += 1
            self.site.roots[i].directory = copy_of(directory)
            if prefix:
                self.site.roots[i].prefix = copy_of(prefix)
                self.site.roots[i].prefix_size = strlen(self.site.roots[i].prefix)
        for index in indexes:
            self.site.indexes[self.site.index_count] = copy_of(index)
            self.site.index_count += 1
        if fallback is not None:
            self.site.fallback = copy_of(fallback)
        self.site.falls_to_application = falls_to_application
        if expires == "off":
            self.site.expires = EXPIRES_OFF
        elif expires != "auto":
            self.site.expires = EXPIRES_GIVEN
            self.site.cache_control = copy_of(expires)

    def __dealloc__(self):
        cdef int i
        for i in range(self.site.root_count):
            free(self.site.roots[i].directory)
            free(self.site.roots[i].prefix)
        for i in range(self.site.index_count):
            free(self.site.indexes[i])
        free(self.site.roots)
        free(self.site.indexes)
        free(self.site.fallback)
        free(self.site.cache_control)

    def look(self, bytes path not None, int64_t now=0):
        """For tests: (status, [(coding, size, tag, field lines, content or None)]) of a path; now: of the clock."""
        cdef file_t* file = file_new(&self.site, path, len(path))
        if file == NULL:
            raise MemoryError
        try:
            with nogil:
                file_look(file, now)
            return file.status, [form_shown(&file.forms[i]) for i in range(file.form_count)]
        finally:
            file_free(file)


cdef tuple form_shown(form_t* form):
    name = (<bytes>coding_name[form.coding]).decode() if form.coding else "identity"
    return (name, form.size, form.tag.decode(), form.lines.data[:form.lines.size].decode("latin-1"),
            form.content[:form.size] if form.fd < 0 else None)


@cython.final
cdef class Files:
    """What is remembered, for tests."""

    cdef files_t* files
    cdef readonly int looks         # at the disk

    def __cinit__(self):
        self.files = <files_t*>calloc(1, sizeof(files_t))
        if self.files == NULL:
            raise MemoryError

    def __dealloc__(self):
        files_free(self.files)

    def find(self, Site site not None, bytes path not None, int64_t now_ms):
        """The status of a path, by a look at the disk where it is not remembered."""
        cdef file_t* file = files_find(self.files, &site.site, path, len(path), now_ms)
        if file == NULL:
            self.looks += 1
            file = file_new(&site.site, path, len(path))
            if file == NULL:
                raise MemoryError
            file_look(file, now_ms // 1000)
            files_put(self.files, file, now_ms)
        return file.status

    @property
    def held(self):
        """How many are remembered, descriptors, octets of content."""
        return self.files.count, self.files.descriptors, self.files.kept
