# Files beneath directories: looked up without ever leaving them, and remembered for a second.

from libc.stdint cimport int64_t, uint16_t, uint64_t

from fastwsgi._buffer cimport buffer_t
from fastwsgi._conditions cimport CODINGS, validators_t


cdef enum:
    FILE_KEPT = 32 * 1024       # the content of files up to this size is kept in memory
    KEPT_MOST = 16 << 20        # of all of them
    FILES_MOST = 2048           # that are remembered, those that are not there included
    DESCRIPTORS_MOST = 128      # of larger files
    FRESH_MS = 1000             # then it is looked for again
    BUCKETS = 1024
    ETAG_ROOM = 40


# What is told to caches where the application does not say it.
cdef enum expires_t:
    EXPIRES_AUTO                # for ever where the name has a hash, an hour otherwise
    EXPIRES_OFF                 # nothing
    EXPIRES_GIVEN               # site.cache_control


cdef struct root_t:
    char* directory             # owned
    char* prefix                # owned: paths begin with this and a slash, which are taken off; NULL: any path
    size_t prefix_size


cdef struct site_t:
    # One place where files are served; never changes.
    root_t* roots               # owned; the first that has the file gives it
    int root_count
    char** indexes              # owned, as each of them
    int index_count
    char* fallback              # owned: the file for paths that are none; or NULL
    bint falls_to_application   # paths that are no file are the application's
    expires_t expires
    char* cache_control         # owned; or NULL
    bint walks                  # there is no openat2


cdef struct form_t:
    # A file, or a sidecar with another coding of it.
    int coding                  # coding_t
    int fd                      # owned; -1: its content is in memory
    char* content               # owned
    uint64_t size
    validators_t validators     # the etag is in `tag`
    char tag[ETAG_ROOM]
    # Field lines: Content-Type; up to form_end what else a 304 has not; up to about_end what a 304 has too; and last
    # Cache-Control, if any.
    buffer_t lines              # owned
    size_t type_end
    size_t form_end
    size_t about_end


cdef struct file_t:
    # What a path is. On its own at first, then remembered.
    file_t* next                # of its bucket
    file_t* newer
    file_t* older
    const site_t* site
    uint64_t hash
    int64_t looked_ms
    int status                  # 200; 301: a directory, and its slash is missing; 403, 404, 500, 503
    int error                   # the errno behind 403, 500 and 503
    const char* type            # static: the media type
    form_t forms[<int>CODINGS]
    int form_count              # the first of them is the file itself
    size_t path_size
    char path[1]                # goes on behind the struct


cdef struct files_t:
    # Those that are remembered.
    file_t* buckets[BUCKETS]
    file_t* newest
    file_t* oldest
    int count
    int descriptors
    size_t kept


cdef file_t* file_new(const site_t* site, const char* path, size_t size) noexcept nogil     # path: decoded, beneath
cdef void file_look(file_t* file, int64_t now) noexcept nogil       # may block on the disk; touches nothing of others
cdef void file_free(file_t* file) noexcept nogil

# By the leader alone.
cdef file_t* files_find(files_t* files, const site_t* site, const char* path, size_t size, int64_t now_ms) noexcept nogil
cdef void files_put(files_t* files, file_t* file, int64_t now_ms) noexcept nogil     # owns it from then on
cdef void files_close_descriptors(files_t* files) noexcept nogil
cdef void files_free(files_t* files) noexcept nogil

cdef const form_t* file_form(const file_t* file, const uint16_t* weights) noexcept nogil


cdef class Site:
    cdef site_t site
