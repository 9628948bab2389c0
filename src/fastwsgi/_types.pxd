# What a file is, by its name: the Content-Type, and whether the name changes with the content.

cdef const char* type_of(const char* name, size_t size) noexcept nogil      # never NULL
cdef bint name_is_hashed(const char* name, size_t size) noexcept nogil
