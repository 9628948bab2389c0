"""Clients that mean harm, in a process of their own: python hostile.py PORT KIND=COUNT ...

Prints "ready" when all have connected, goes on until its standard input ends, and then prints as JSON what it
has counted. Each client does its worst once a second; one that the server has closed connects again.
"""

import collections
import contextlib
import errno
import json
import resource
import select
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass

READY_SECONDS = 20.0
TICKS = 50  # of a second: each tick tends its part of the clients
CONNECTING_MOST = 256  # so that no handshake is lost to a full queue of the kernel
# One source address has fewer ports than this may want beside those that wait out their close.
CONNECTIONS_PER_ADDRESS = 4000
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>; the socket module does not name it


@dataclass(frozen=True)
class Kind:
    opening: bytes  # sent at once
    drip: bytes = b""  # sent every second after it
    sip: int = 0  # so many octets are read every second, and no others
    resets: bool = False  # every second


def post(fields, begun=b""):
    return b"POST /content HTTP/1.1\r\nHost: test.example\r\n" + fields + b"\r\n\r\n" + begun


def first_flight():
    """What a client of TLS sends first, for a new connection."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


HELLO = first_flight()
BOMB = b"0-," * 1200 + b"0-"

KINDS = {
    "head": Kind(b"GET / HTTP/1.1\r\nHost: test.example\r\nX-Slow: ", drip=b"x"),
    "content": Kind(post(b"Content-Length: 100000"), drip=b"x"),
    "chunks": Kind(post(b"Transfer-Encoding: chunked", b"ffff\r\n"), drip=b"x"),
    "announced": Kind(post(b"Content-Length: 500000", b"x" * 16384)),
    "reader": Kind(b"GET /big?size=4194304 HTTP/1.1\r\nHost: test.example\r\n\r\n", sip=512),
    "idle": Kind(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n"),
    "silent": Kind(b""),
    "resetting": Kind(b"GET / HT", resets=True),
    "half_hello": Kind(HELLO[: len(HELLO) // 2]),
    "hello": Kind(HELLO),
    "hello_resets": Kind(HELLO, resets=True),
    "bomb": Kind(
        b"GET /s/large.bin HTTP/1.1\r\nHost: test.example\r\nRange: bytes=" + BOMB + b"\r\n\r\n", sip=512
    ),
}


class Client:
    """One of them; `socket` is None while it has no connection."""

    def __init__(self, number, kind):
        self.address = (f"127.0.0.{2 + number // CONNECTIONS_PER_ADDRESS}", 0)
        self.kind = kind
        self.socket = None
        self.is_connecting = False


class Crowd:
    def __init__(self, port, kinds):
        self.server = ("127.0.0.1", port)
        self.clients = [Client(number, kind) for number, kind in enumerate(kinds)]
        self.poller = select.epoll()
        self.by_descriptor = {}
        self.connecting = 0
        self.counts = collections.Counter()
        self.answers = collections.Counter()

    def run(self, until):
        """Gather, say so, and be a nuisance until the file ends."""
        deadline = time.monotonic() + READY_SECONDS
        for client in self.clients:
            self.connect(client)
            while self.connecting >= CONNECTING_MOST and time.monotonic() < deadline:
                self.see_to_events(0.1)
        while self.connecting and time.monotonic() < deadline:
            self.see_to_events(0.1)
        print("ready", flush=True)
        tick = 0
        while not select.select([until], [], [], 0)[0]:
            begun = time.monotonic()
            for client in self.clients[tick % TICKS :: TICKS]:
                self.tend(client)
            tick += 1
            while (left := begun + 1 / TICKS - time.monotonic()) > 0:
                self.see_to_events(left)
        answers = {f"answered {status}": count for status, count in self.answers.items()}
        print(json.dumps({**self.counts, **answers, "held": len(self.by_descriptor)}), flush=True)

    def connect(self, client):
        client.socket = socket.socket()
        client.socket.setblocking(False)
        client.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if client.kind.sip:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.bind(client.address)
        error = client.socket.connect_ex(self.server)
        if error not in (0, errno.EINPROGRESS):
            self.counts[errno.errorcode[error]] += 1
            client.socket.close()
            client.socket = None
            return
        client.is_connecting = True
        self.connecting += 1
        self.by_descriptor[client.socket.fileno()] = client
        self.poller.register(client.socket, select.EPOLLOUT)

    def drop(self, client):
        self.connecting -= client.is_connecting
        client.is_connecting = False
        del self.by_descriptor[client.socket.fileno()]
        client.socket.close()
        client.socket = None

    def see_to_events(self, seconds):
        for descriptor, _ in self.poller.poll(seconds):
            client = self.by_descriptor[descriptor]
            try:
                if client.is_connecting:
                    self.connected(client)
                elif client.kind.sip:
                    # It reads in its own time: only the end is of interest.
                    raise ConnectionResetError
                else:
                    self.read(client, 65536)
            except OSError:
                self.counts["closed by the server"] += 1
                self.drop(client)

    def connected(self, client):
        if error := client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        client.is_connecting = False
        self.connecting -= 1
        self.counts["connections"] += 1
        self.poller.modify(client.socket, select.EPOLLHUP if client.kind.sip else select.EPOLLIN)
        client.socket.send(client.kind.opening)

    def read(self, client, size):
        with contextlib.suppress(BlockingIOError):
            data = client.socket.recv(size)
            if not data:
                raise ConnectionResetError
            self.counts["octets read"] += len(data)
            if data.startswith(b"HTTP/1.1 "):
                self.answers[data[9:12].decode()] += 1

    def tend(self, client):
        try:
            if client.socket is None:
                self.connect(client)
            elif client.is_connecting:
                return
            elif client.kind.resets:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.drop(client)
                self.connect(client)
            elif client.kind.sip:
                self.read(client, client.kind.sip)
            elif client.kind.drip:
                client.socket.send(client.kind.drip)
        except BlockingIOError:
            pass
        except OSError:
            self.counts["closed by the server"] += 1
            self.drop(client)


def main():
    port, *crowds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = []
    for crowd in crowds:
        name, count = crowd.split("=")
        kinds += [KINDS[name]] * int(count)
    Crowd(int(port), kinds).run(sys.stdin)


if __name__ == "__main__":
    main()
