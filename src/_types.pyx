"""What a file is, by its name: the media type that goes with its ending, and whether its content can ever change.

The table is ours, so that a file is the same everywhere; the mimetypes module asks the host.
"""

import re

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset, strcmp

from fastwsgi._octets cimport IN_HEX, is_digit, octet_kinds

cdef enum:
    ENDING_ROOM = 16        # longer endings are unknown
    TYPES_MOST = 256
    HASH_LEAST = 8          # hexadecimal digits that are a hash
    HASH_LETTERED = 8       # characters of a hash of letters and digits, as Vite and esbuild have them

cdef const char* UNKNOWN = b"application/octet-stream"

# Text has its charset with it: without one, what a browser takes it for depends on the reader.
cdef bytes TYPES = b"""
text/html; charset=utf-8                        htm html shtml
text/css; charset=utf-8                         css
text/javascript; charset=utf-8                  cjs js mjs
text/plain; charset=utf-8                       asc conf ini log text txt
text/csv; charset=utf-8                         csv
text/calendar; charset=utf-8                    ics
text/markdown; charset=utf-8                    markdown md
text/mathml; charset=utf-8                      mml
text/tab-separated-values; charset=utf-8        tsv
text/vcard; charset=utf-8                       vcf
text/vtt; charset=utf-8                         vtt
text/xml; charset=utf-8                         xml
application/atom+xml; charset=utf-8             atom
application/rss+xml; charset=utf-8              rss
application/xhtml+xml; charset=utf-8            xhtml
application/xslt+xml; charset=utf-8             xsl xslt
application/json                                json map
application/ld+json                             jsonld
application/geo+json                            geojson
application/manifest+json                       webmanifest
application/yaml                                yaml yml
application/toml                                toml
application/wasm                                wasm
application/pdf                                 pdf
application/postscript                          ai eps ps
application/rtf                                 rtf
application/epub+zip                            epub
application/gzip                                gz tgz
application/zip                                 zip
application/zstd                                zst
application/x-7z-compressed                     7z
application/x-bzip2                             bz2
application/x-xz                                xz
application/x-tar                               tar
application/vnd.rar                             rar
application/java-archive                        ear jar war
application/vnd.apple.mpegurl                   m3u8
application/dash+xml                            mpd
application/vnd.android.package-archive         apk
application/vnd.debian.binary-package           deb
application/x-redhat-package-manager            rpm
application/x-sh                                sh
application/x-httpd-php                         php
application/x-shockwave-flash                   swf
application/sql                                 sql
application/vnd.sqlite3                         sqlite sqlite3
application/msword                              doc
application/vnd.ms-excel                        xls
application/vnd.ms-powerpoint                   ppt
application/vnd.ms-fontobject                   eot
application/vnd.openxmlformats-officedocument.wordprocessingml.document     docx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet           xlsx
application/vnd.openxmlformats-officedocument.presentationml.presentation   pptx
application/vnd.oasis.opendocument.text         odt
application/vnd.oasis.opendocument.spreadsheet  ods
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.graphics     odg
application/vnd.google-earth.kml+xml            kml
application/vnd.google-earth.kmz                kmz
application/gpx+xml                             gpx
application/x-x509-ca-cert                      crt der pem
application/pgp-signature                       sig
font/collection                                 ttc
font/otf                                        otf
font/ttf                                        ttf
font/woff                                       woff
font/woff2                                      woff2
image/apng                                      apng
image/avif                                      avif
image/bmp                                       bmp
image/gif                                       gif
image/heic                                      heic
image/heif                                      heif
image/jpeg                                      jpe jpeg jpg
image/jxl                                       jxl
image/png                                       png
image/svg+xml                                   svg svgz
image/tiff                                      tif tiff
image/vnd.microsoft.icon                        cur ico
image/webp                                      webp
audio/aac                                       aac
audio/flac                                      flac
audio/midi                                      mid midi
audio/mp4                                       m4a
audio/mpeg                                      mp3
audio/ogg                                       oga ogg opus
audio/wav                                       wav
audio/webm                                      weba
model/gltf+json                                 gltf
model/gltf-binary                               glb
model/stl                                       stl
video/3gpp                                      3gp
video/mp2t                                      ts
video/mp4                                       m4v mp4
video/mpeg                                      mpeg mpg
video/ogg                                       ogv
video/quicktime                                 mov
video/webm                                      webm
video/x-matroska                                mkv
video/x-msvideo                                 avi
"""

cdef struct known_type_t:
    char ending[ENDING_ROOM]
    const char* type

cdef known_type_t known_types[TYPES_MOST]
cdef int known_count = 0
cdef list keeps = []        # what known_types points to


cdef object learn():
    """Make the table, in order of the endings."""
    global known_count
    rows = {}
    for line in TYPES.decode().strip().splitlines():
        type_, endings = re.fullmatch(r"([^\s;]+(?:; charset=\S+)?) +(.*)", line).groups()
        for ending in endings.split():
            rows[ending.encode()] = type_.encode()
    for ending, type_ in sorted(rows.items()):
        keeps.append(type_)
        memcpy(known_types[known_count].ending, <const char*>ending, <size_t>len(ending) + 1)
        known_types[known_count].type = type_
        known_count += 1


learn()


cdef size_t last_dot(const char* name, size_t size) noexcept nogil:
    """Where the ending of a file's name begins, its dot included; size: it has none."""
    cdef size_t at = size
    while at > 0 and name[at - 1] != c"/":
        at -= 1
        if name[at] == c".":
            return at
    return size


cdef const char* type_of(const char* name, size_t size) noexcept nogil:
    """The Content-Type of a file; name may have directories in front."""
    cdef char ending[ENDING_ROOM]
    cdef size_t dot = last_dot(name, size), i
    cdef int low = 0, high = known_count, middle, order
    if size - dot < 2 or size - dot > ENDING_ROOM:
        return UNKNOWN
    memset(ending, 0, sizeof(ending))
    for i in range(dot + 1, size):
        ending[i - dot - 1] = name[i] | 0x20 if c"A" <= name[i] <= c"Z" else name[i]
    while low < high:
        middle = (low + high) // 2
        order = strcmp(ending, known_types[middle].ending)
        if order == 0:
            return known_types[middle].type
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return UNKNOWN


cdef bint is_hash(const char* part, size_t size) noexcept nogil:
    """Hexadecimal digits, among them a letter: or it could be a date or a version."""
    cdef bint has_digit = False, has_letter = False
    cdef size_t i
    if size < HASH_LEAST:
        return False
    for i in range(size):
        if not octet_kinds[<uint8_t>part[i]] & IN_HEX or c"A" <= part[i] <= c"F":
            return False
        if is_digit(part[i]):
            has_digit = True
        else:
            has_letter = True
    return has_digit and has_letter


cdef bint is_lettered_hash(const char* part, size_t size) noexcept nogil:
    """Eight letters and digits, capitals among them, as no word has them."""
    cdef bint has_digit = False, has_capital = False
    cdef size_t i
    if size != HASH_LETTERED:
        return False
    for i in range(size):
        if is_digit(part[i]):
            has_digit = True
        elif c"A" <= part[i] <= c"Z":
            has_capital = True
        elif not c"a" <= part[i] <= c"z":
            return False
    return has_digit and has_capital


cdef bint is_code(const char* name, size_t size) noexcept nogil:
    """A script or a style sheet, or a map of one: what bundlers give hashes of letters."""
    cdef const char* type = type_of(name, size)
    return type == type_of(b".js", 3) or type == type_of(b".css", 4) or type == type_of(b".map", 4)


cdef bint name_is_hashed(const char* name, size_t size) noexcept nogil:
    """app.3f2a9c1b.js, index-BXKz3j9a.js: a hash of the content stands between two dots or hyphens of the name."""
    cdef size_t end = last_dot(name, size), start = end, at
    cdef bint takes_letters = is_code(name, size)
    while start > 0 and name[start - 1] != c"/":
        start -= 1
    # The first part is the name proper, whatever it looks like.
    while start < end and name[start] != c"." and name[start] != c"-":
        start += 1
    while start < end:
        start += 1
        at = start
        while at < end and name[at] != c"." and name[at] != c"-":
            at += 1
        if is_hash(name + start, at - start) or (takes_letters and is_lettered_hash(name + start, at - start)):
            return True
        start = at
    return False


def content_type(bytes name not None):
    """The Content-Type of a file, by the ending of its name."""
    return type_of(name, len(name)).decode()


def is_hashed(bytes name not None):
    """Build tools have put a hash of the content into the name, so that it never changes under this one."""
    return name_is_hashed(name, len(name))
