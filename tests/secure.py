"""TLS for the tests of a running server: a client with its records in its own hands, and a server."""

import contextlib
import functools
import socket
import ssl
import tempfile
import time
from pathlib import Path

from certificates import AUTHORITY, client_context
from support import Client, Server


class SecureSocket:
    """A connected socket with TLS over it, that can do what clients do wrong.

    Where the server ends without close_notify, `recv` raises ConnectionAbortedError: an answer may have
    been cut.
    """

    def __init__(self, sock, context, session=None, name="localhost"):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def do(self, call, *arguments):
        """Do something with the TLS object, as often as it wants to have received more."""
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                if not self.take():
                    raise ConnectionAbortedError("the end, without close_notify") from None
            else:
                self.flush()
                return result

    def take(self):
        data = self.sock.recv(65536)
        self.incoming.write(data)
        return bool(data)

    def flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def sealed(self, data):
        """What goes over the wire for it."""
        self.ssl.write(data)
        return self.outgoing.read()

    def sendall(self, data):
        view = memoryview(data)
        for start in range(0, len(view), 65536):
            self.sock.sendall(self.sealed(view[start : start + 65536]))

    def recv(self, size):
        try:
            return self.do(self.ssl.read, size)
        except ssl.SSLZeroReturnError:  # both have said that it is the end
            return b""

    def say_end(self):
        """close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.ssl.unwrap()
        with contextlib.suppress(OSError):
            self.flush()

    def shutdown(self, how):
        assert how == socket.SHUT_WR
        self.say_end()
        self.sock.shutdown(how)

    def close(self):
        if self.sock.fileno() >= 0:
            self.say_end()
        self.sock.close()


class SecureClient(Client):
    """A client that speaks TLS."""

    def __init__(self, address, *, context=None, session=None, shakes_hands=True, **options):
        super().__init__(address, **options)
        self.plain = self.socket
        self.socket = SecureSocket(self.plain, context or trusting(), session)
        if shakes_hands:
            try:
                self.shake_hands()
            except BaseException:
                self.plain.close()
                raise

    def shake_hands(self):
        self.socket.do(self.socket.ssl.do_handshake)

    def reset(self):
        self.socket = self.plain
        super().reset()

    def readable(self, seconds=0.0):
        """Whether something can be read that is not for OpenSSL itself, as tickets are."""
        until = time.monotonic() + seconds
        while not self.received:
            with contextlib.suppress(ssl.SSLWantReadError):
                data = self.socket.ssl.read(65536)
                self.received += data
                return True
            if not super().readable(max(until - time.monotonic(), 0)):
                return False
            if not self.socket.take():
                return True
        return True


class SecureServer(Server):
    """A server in a thread of this process that speaks TLS."""

    client_class = SecureClient

    def __init__(self, app, **options):
        certfile, keyfile = certificate()
        super().__init__(app, **{"certfile": certfile, "keyfile": keyfile, **options})

    @property
    def url(self):
        return f"https://localhost:{self.port}"


@functools.cache
def directory():
    """A directory that is removed at the end."""
    return tempfile.TemporaryDirectory(prefix="fw-tls-")


@functools.cache
def certificate(kind="ec"):
    """Paths of a certificate for localhost, and of its key."""
    return AUTHORITY.write(Path(directory().name), kind, "localhost", kind=kind)


@functools.cache
def trusting():
    """The context of a client that knows who has signed it."""
    return client_context()
