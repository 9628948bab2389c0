"""The application that is abused; the query says how much of what."""

import contextlib
import json
import os
import time
import zlib
from urllib.parse import parse_qs

TEXT = ("Content-Type", "text/plain")
PIECE = b"0123456789abcdef" * 4096
MEGABYTE = PIECE * 16


def application(environ, start_response):
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    return PATHS.get(environ["PATH_INFO"], unknown)(environ, start_response, query)


def unknown(environ, start_response, query):
    start_response("404 Not Found", [TEXT, ("Content-Length", "0")])
    return []


def hello(environ, start_response, query):
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"hello"]


def content(environ, start_response, query):
    """Reads the request content and says how long it is, with its checksum."""
    length = checksum = 0
    while piece := environ["wsgi.input"].read(65536):
        length += len(piece)
        checksum = zlib.crc32(piece, checksum)
    return answer(start_response, f"{length} {checksum}")


def big(environ, start_response, query):
    """So many octets, in blocks of 1 MiB at most: as a list, from a generator, by write() or from a file."""
    size = int(query["size"])
    how = query.get("how", "list")
    start = start_response("200 OK", [TEXT, ("Content-Length", str(size))])
    blocks = (MEGABYTE[: min(size - at, len(MEGABYTE))] for at in range(0, size, len(MEGABYTE)))
    if how == "write":
        for block in blocks:
            start(block)
        return []
    if how == "file":
        file = open("file", "rb")  # noqa: SIM115 - the server closes it
        return environ["wsgi.file_wrapper"](file)
    return list(blocks) if how == "list" else blocks


def wait(environ, start_response, query):
    time.sleep(float(query["seconds"]))
    return answer(start_response, "waited")


def allocate(environ, start_response, query):
    """Takes so much memory for the time of the request."""
    return answer(start_response, len(bytes(int(query["size"]))))


leaked = []


def leak(environ, start_response, query):
    """Takes all the memory there is, down to small pieces, and keeps it."""
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 9, 1 << 7, 1 << 5):
        with contextlib.suppress(MemoryError):
            while True:
                leaked.append(bytearray(size))
    return answer(start_response, "leaked")


def opened(environ, start_response, query):
    """Opens so many files at once."""
    files = []
    try:
        for _ in range(int(query["files"])):
            files.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for file in files:
            os.close(file)
    return answer(start_response, "opened")


def counters(environ, start_response, query):
    """What the server counts."""
    from fastwsgi import worker  # here, because other servers run this too

    [served] = worker._workers
    return answer(start_response, json.dumps(served.counters()))


def answer(start_response, value):
    start_response("200 OK", [TEXT])
    return [str(value).encode()]


PATHS = {
    "/": hello,
    "/content": content,
    "/big": big,
    "/wait": wait,
    "/allocate": allocate,
    "/leak": leak,
    "/opened": opened,
    "/counters": counters,
}
