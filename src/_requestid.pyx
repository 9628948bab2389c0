"""The id of a request: what may be one, and new ones.

An id is 32 hexadecimal digits. Half of them is a random number that each worker draws when it starts; the other half
stands for the number of the request, mixed in a way that never gives the same twice, and that nobody who sees some of
them can count with. So it takes no lock, no system call and no clock. Knows nothing of requests.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastwsgi._octets cimport IN_TOKEN, octet_kinds

cimport cython


cdef uint64_t hexadecimal(uint64_t half) noexcept nogil:
    """The lower four octets as the eight digits that stand in memory for them, the highest first (little-endian)."""
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t nibbles, letters
    # Spread them, a nibble to an octet, the highest to the lowest.
    half = (half & 0xFFFF) << 32 | half >> 16
    half = (half & <uint64_t>0x000000FF000000FF) << 16 | (half & <uint64_t>0x0000FF000000FF00) >> 8
    nibbles = (half & <uint64_t>0x000F000F000F000F) << 8 | (half & <uint64_t>0x00F000F000F000F0) >> 4
    # From ten on they are letters: 39 is from "9" + 1 to "a".
    letters = (nibbles + 6 * ones) >> 4 & ones
    return nibbles + 0x30 * ones + letters * 39


cdef void write_digits(uint64_t number, char* out) noexcept nogil:
    cdef uint64_t digits = hexadecimal(number >> 32)
    memcpy(out, &digits, 8)
    digits = hexadecimal(<uint32_t>number)
    memcpy(out + 8, &digits, 8)


cdef void id_make(const id_source_t* source, uint64_t number, char* id) noexcept nogil:
    # Each step can be undone, so no two numbers become the same.
    number = (number ^ source.keys[0]) * source.keys[2]
    number = (number ^ number >> 32 ^ source.keys[1]) * source.keys[3]
    number ^= number >> 29
    memcpy(id, source.start, ID_MADE // 2)
    write_digits(number, id + ID_MADE // 2)


cdef bint id_is_sane(const char* text, size_t size) noexcept nogil:
    """It is of a length to be one, and has letters, digits and what else stands in a token or separates parts."""
    cdef size_t i
    if size == 0 or size > ID_MOST:
        return False
    for i in range(size):
        # Quotes, and what shells and log readers take for their own, are left out.
        if text[i] in (c"'", c"`", c"%", c"&", c"*", c"!", c"$", c"^"):
            return False
        if not octet_kinds[<uint8_t>text[i]] & IN_TOKEN and text[i] not in (c":", c"/", c"=", c"@", c";"):
            return False
    return True


cdef int id_source_set(id_source_t* source, bint is_on) except -1:
    """Draw what all ids of this worker have in common; in the process that makes them."""
    cdef bytes drawn = os.urandom(40)
    cdef uint64_t numbers[5]
    memcpy(numbers, <const char*>drawn, sizeof(numbers))
    source.is_on = is_on
    write_digits(numbers[0], source.start)
    memcpy(source.keys, &numbers[1], sizeof(source.keys))
    source.keys[2] |= 1
    source.keys[3] |= 1
    return 0


@cython.final
cdef class IdSource:
    """Ids for tests."""

    cdef id_source_t source

    def __cinit__(self):
        id_source_set(&self.source, True)

    def make(self, uint64_t number):
        """The id of a request by its number."""
        cdef char made[ID_MADE]
        id_make(&self.source, number, made)
        return (<bytes>made[:ID_MADE]).decode("ascii")


def is_sane(bytes text not None):
    """Whether an id is taken from a peer that is trusted."""
    return id_is_sane(text, len(text))


def sixteen_digits(uint64_t number):
    """A number as 16 hexadecimal digits."""
    cdef char out[16]
    write_digits(number, out)
    return (<bytes>out[:16]).decode("ascii")
