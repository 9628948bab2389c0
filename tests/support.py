"""What the tests of a running server share: waiting, a strict raw client, and a server in a thread.

Nothing here knows how the server works inside: it is spoken to over sockets, watched through `counters()`,
and judged by its log, its descriptors and its threads.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import logging
import os
import re
import select
import socket
import struct
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import ClassVar
from wsgiref.validate import validator

import fastwsgi

# How long a test waits for something that should come at once; only failures take so long.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "10"))

TEXT = ("Content-Type", "text/plain")

# For other programs: what is preloaded for the server (a sanitizer) is not meant for them.
ENVIRONMENT = {**os.environ, "LD_PRELOAD": ""}


def wait_until(condition, what, seconds=PATIENCE):
    """Wait until condition() is true; fail with `what` when it does not become so. Returns its value."""
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


# Requests


def request(target="/", method="GET", fields=(), content=None, version="1.1"):
    """The bytes of a request. Host and Content-Length are added where they are missing."""
    fields = list(fields)
    names = {name.lower() for name, _ in fields}
    if version == "1.1" and "host" not in names:
        fields.insert(0, ("Host", "test.example"))
    if content is not None and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", len(content)))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (content or b"")


def chunked(content, size=1000, trailer=b""):
    """The chunked coding of content, in chunks of `size` bytes."""
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n" + trailer + b"\r\n"


def framed(content, framing, **arguments):
    """The bytes of a POST whose content is framed by "length" or as "chunked"."""
    if framing == "length":
        return request(method="POST", content=content, **arguments)
    fields = [*arguments.pop("fields", ()), ("Transfer-Encoding", "chunked")]
    return request(method="POST", fields=fields, content=chunked(content), **arguments)


# Responses


class Malformed(AssertionError):
    """The server sent something that is not a response by RFC 9112."""


class Incomplete(AssertionError):
    """The connection ended before the response did."""

    def __init__(self, where, response=None, content=b""):
        super().__init__(f"connection ended {where}")
        self.response = response
        self.content = bytes(content)


@dataclass
class Response:
    version: str
    status: int
    reason: str
    fields: list
    framing: str = "none"  # "length", "chunked", "close", or "none" where there is no content by definition
    content: bytes = b""
    interim: list = field(default_factory=list)

    def all(self, name):
        return [value for other, value in self.fields if other.lower() == name.lower()]

    def __getitem__(self, name):
        """The value of a field that occurs at most once; None when it is absent."""
        values = self.all(name)
        if len(values) > 1:
            raise Malformed(f"{name} occurs {len(values)} times")
        return values[0] if values else None

    @property
    def text(self):
        return self.content.decode()

    @property
    def closes(self):
        return "close" in [option.strip().lower() for option in ",".join(self.all("Connection")).split(",")]


STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([^\x00\r\n]*?)[\t ]*")
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT")


class Client:
    """A raw connection with a strict response parser."""

    def __init__(self, address, timeout=PATIENCE, receive_buffer=None, tls=None):
        """tls: the context of an ssl client."""
        self.socket = socket.socket(family_of(address))
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.received = bytearray()
        self.octets = 0  # ever received

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Close with a reset: what a crashed client or an impatient balancer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(self, *arguments, **options):
        """Send one request (the arguments are those of `request`), return the response."""
        method = options.get("method", arguments[1] if len(arguments) > 1 else "GET")
        self.send(request(*arguments, **options))
        return self.read_response(method)

    def receive(self):
        """Receive once; False at the end of the connection."""
        data = self.socket.recv(262144)
        self.received += data
        self.octets += len(data)
        return bool(data)

    def readable(self, seconds=0.0):
        return bool(self.received) or bool(select.select([self.socket], [], [], seconds)[0])

    def take(self, size):
        """Exactly the next `size` bytes."""
        while len(self.received) < size:
            if not self.receive():
                raise Incomplete("in the content", content=self.received)
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    def take_line(self):
        while (end := self.received.find(b"\n")) < 0:
            if not self.receive():
                raise Incomplete(f"in a line, after {bytes(self.received)!r}")
        line = self.take(end + 1)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise Malformed(f"line end in {line!r}")
        return line[:-2]

    def take_fields(self):
        fields = []
        while line := self.take_line():
            match = FIELD_LINE.fullmatch(line)
            if not match:
                raise Malformed(f"field line {line!r}")
            fields.append((match[1].decode(), match[2].decode("latin-1")))
        return fields

    def read_head(self):
        line = self.take_line()
        match = STATUS_LINE.fullmatch(line)
        if not match:
            raise Malformed(f"status line {line!r}")
        version, status, reason = match[1].decode(), int(match[2]), match[3].decode("latin-1")
        return Response(version, status, reason, self.take_fields())

    def read_response(self, method="GET"):
        """The next final response, checked; interim ones are in its `interim`."""
        interim = []
        while (response := self.read_head()).status < 200:
            if response["Content-Length"] or response["Transfer-Encoding"]:
                raise Malformed(f"content in a {response.status}")
            interim.append(response)
        response.interim = interim
        response.framing = framing_of(response, method)
        if not DATE.fullmatch(response["Date"] or ""):
            raise Malformed(f"Date: {response['Date']}")
        try:
            if response.framing == "length":
                response.content = self.take(int(response["Content-Length"]))
            elif response.framing == "chunked":
                response.content = self.take_chunks()
            elif response.framing == "close":
                response.content = self.take_rest()
        except Incomplete as error:
            error.response = response
            raise
        return response

    def take_chunks(self):
        content = bytearray()
        try:
            while size := self.take_chunk_size():
                content += self.take(size)
                if self.take(2) != b"\r\n":
                    raise Malformed("no CRLF after a chunk")
        except Incomplete as error:
            if error.content:
                content += error.content
            raise Incomplete("between chunks", content=content) from None
        if trailer := self.take_fields():
            raise Malformed(f"trailer section {trailer}")
        return bytes(content)

    def take_chunk_size(self):
        line = self.take_line()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", line):
            raise Malformed(f"chunk size {line!r}")
        return int(line, 16)

    def take_chunk(self):
        """The content of one chunk: to see a block arrive while the response goes on."""
        data = self.take(self.take_chunk_size())
        if self.take(2) != b"\r\n":
            raise Malformed("no CRLF after a chunk")
        return data

    def take_rest(self):
        while self.receive():
            pass
        return self.take(len(self.received))

    def expect_end(self):
        """The server closes in order (no reset) and sends nothing more before."""
        assert not self.receive(), f"more bytes: {bytes(self.received)[:200]!r}"

    def expect_gone(self):
        """The server closes in any way, and sends nothing more before."""
        with contextlib.suppress(ConnectionError):
            self.expect_end()


def family_of(address):
    if isinstance(address, (str, bytes)):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def framing_of(response, method):
    """RFC 9112, 6.3, for a response; Malformed when it breaks one of the MUSTs on the way."""
    length, coding = response["Content-Length"], response["Transfer-Encoding"]
    if length is not None and coding is not None:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if length is not None and not re.fullmatch("[0-9]+", length):
        raise Malformed(f"Content-Length: {length}")
    if coding is not None and (coding.lower() != "chunked" or response.version == "HTTP/1.0"):
        raise Malformed(f"Transfer-Encoding: {coding} in {response.version}")
    if response.status == 204 and (length, coding) != (None, None):
        raise Malformed("framing fields in a 204")
    if method == "HEAD" or response.status in (204, 304):
        return "none"
    if coding:
        return "chunked"
    if length is not None:
        return "length"
    if response.version == "HTTP/1.1" and not response.closes:
        raise Malformed("content ends with the connection, but no Connection: close")
    return "close"


# Applications


def text(content=b"hello", status="200 OK", fields=()):
    """An application that always gives this answer, as a list of one block."""

    def application(environ, start_response):
        start_response(status, [TEXT, *fields])
        return [content]

    return application


def answering(function):
    """An application that answers with the text function(environ) returns."""

    def application(environ, start_response):
        content = function(environ)
        start_response("200 OK", [TEXT])
        return [content if isinstance(content, bytes) else str(content).encode()]

    return application


@answering
def echo(environ):
    """The request content."""
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


@answering
def target_of(environ):
    return environ["PATH_INFO"]


class Body:
    """An iterable that counts the calls of its close()."""

    def __init__(self, blocks=(b"one", b"two")):
        self.blocks = iter(blocks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        self.closed += 1


class Gate:
    """Holds exchanges inside the application until opened, and tells how many are inside.

    Stopping the server opens it, so that a test that fails does not hold up the others.
    """

    made: ClassVar = weakref.WeakSet()

    def __init__(self):
        self.made.add(self)
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def hold(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        opened = self.opened.wait(3 * PATIENCE)
        with self.lock:
            self.inside -= 1
        assert opened, "the gate was never opened"

    def wait_entered(self, count=1):
        for _ in range(count):
            assert self.entered.acquire(timeout=PATIENCE), "the application was not entered"

    def open(self):
        self.opened.set()


# The server in a thread


class ErrorLog(logging.Handler):
    """The error log of fastwsgi: every warning and worse has to be expected by the test."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines = []
        self.expected = collections.Counter()
        self.allowed = set()

    def emit(self, record):
        self.lines.append((record.levelno, self.format(record)))

    def matching(self, words):
        return [line for _, line in self.lines if words.lower() in line.lower()]

    def expect(self, words, times=1):
        """Wait for a line with these words; at the end of the test there are exactly so many."""
        self.expected[words] += times
        count = self.expected[words]
        wait_until(lambda: len(self.matching(words)) >= count, lambda: f"{words!r} in the log: {self.lines}")

    def allow(self, words):
        """A line with these words may be there."""
        self.allowed.add(words)

    def check(self):
        for words, count in self.expected.items():
            assert len(self.matching(words)) == count, f"{count} x {words!r} in the log: {self.lines}"
        known = [words.lower() for words in (*self.expected, *self.allowed)]
        for level, line in list(self.lines):
            if level >= logging.WARNING and not any(words in line.lower() for words in known):
                raise AssertionError(f"unexpected in the error log: {line}")


class Server:
    """A fastwsgi server in a thread of this process, with the check that it ends well."""

    client_class = Client

    def __init__(self, app, *, host="127.0.0.1", validate=True, tick=None, **options):
        """tick: the patience with a leader that is away, in seconds; for stress tests."""
        self.log = ErrorLog()
        self.logger = logging.getLogger("fastwsgi")
        self.logger.addHandler(self.log)
        self.logger.setLevel(logging.DEBUG)
        self.clients = []
        self.threads = options.get("threads")
        self.server = fastwsgi.make_server(host, 0, validator(app) if validate else app, **options)
        if tick is not None:
            self.server._worker._crew.tick = tick
        self.thread = threading.Thread(target=self.server.serve_forever, name="serve_forever", daemon=True)
        self.thread.start()

    @property
    def address(self):
        """Where it listens, as `connect` takes it."""
        return self.server.server_address

    @property
    def port(self):
        return self.server.server_port

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connect(self, address=None, **options):
        client = self.client_class(address or self.address, **options)
        self.clients.append(client)
        return client

    def ask(self, *arguments, **options):
        """One request over a connection of its own."""
        with self.connect() as client:
            return client.ask(*arguments, **options)

    def count(self, name):
        return self.server.counters()[name]

    def wait_count(self, name, value):
        wait_until(lambda: self.count(name) == value, lambda: f"{name} {value}: {self.server.counters()}")

    def stop(self):
        """Stop it, and see that no connection, no exchange and no unexpected log line is left."""
        for client in self.clients:
            client.close()
        for gate in Gate.made:
            gate.open()
        try:
            self.wait_count("connections", 0)
            self.wait_count("exchanges", 0)
        finally:
            self.server.shutdown()
            self.thread.join(PATIENCE)
            self.server.server_close()
            self.logger.removeHandler(self.log)
            self.logger.setLevel(logging.NOTSET)
        assert not self.thread.is_alive(), "serve_forever() did not end"
        self.log.check()


def resources():
    """What the kernel lends this process: how many descriptors and threads."""
    counts = {"descriptors": len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))}
    if sys.platform == "linux":
        counts["threads"] = len(os.listdir("/proc/self/task"))
    return counts


def wait_left_nothing(before):
    """Wait until the kernel lends this process no more than it did before."""

    def nothing_left():
        return all(count <= before[kind] for kind, count in resources().items())

    if not nothing_left():
        gc.collect()
        wait_until(nothing_left, lambda: f"left behind: {resources()}, there were {before}")
