"""A syslog daemon: where it is, and how a record for it begins."""

import errno
import logging
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastwsgi.errors import ConfigError
from fastwsgi.kinds import FACILITIES
from fastwsgi.outlets import Outlet

PORT = 514

# Where daemons listen on the machine itself.
USUAL_PATHS = ("/dev/log", "/var/run/syslog")
USUAL_HOST = "udp://localhost:514"

CONNECT_PATIENCE = 5.0
CONNECT_PAUSE = 1.0

SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG = 7

ADDRESS = re.compile(
    r"unix://(?P<path>/[^#]*)(?:#(?P<type>dgram|stream))?"
    r"|(?P<scheme>udp|tcp)://(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:\[\]/]*))(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Syslog:
    """--log-syslog-to, --log-syslog-facility and --log-syslog-prefix."""

    address: str
    facility: str
    tag: str

    def start(self, level: int, part: str = "") -> bytes:
        """What a record begins with: its priority (RFC 3164, 4.1.1), and who says it."""
        severity = next((number for least, number in SEVERITIES if level >= least), DEBUG)
        return f"<{FACILITIES[self.facility] << 3 | severity}>{self.tag}{part}[{os.getpid()}]: ".encode()

    def connect(self) -> tuple[int, "Peer"]:
        """A descriptor that does not block, and whom it leads to; raise ConfigError if nobody is there."""
        try:
            return self._connect()
        except OSError as error:
            raise ConfigError(f"--log-syslog-to {self.address}: {error.strerror or error}") from None

    def _connect(self) -> tuple[int, "Peer"]:
        found = ADDRESS.fullmatch(self.address)
        if not found:
            raise ConfigError(
                f"--log-syslog-to {self.address}: not unix:///path, udp://host:port or tcp://host:port"
            )
        if found["path"]:
            types = [socket.SOCK_DGRAM, socket.SOCK_STREAM]
            if found["type"]:
                types = [socket.SOCK_DGRAM if found["type"] == "dgram" else socket.SOCK_STREAM]
            return connect_first([Peer(socket.AF_UNIX, kind, found["path"]) for kind in types])
        kind = socket.SOCK_DGRAM if found["scheme"] == "udp" else socket.SOCK_STREAM
        host = found["ipv6"] or found["host"] or "localhost"
        rows = socket.getaddrinfo(host, int(found["port"] or PORT), type=kind)
        return connect_first([Peer(family, kind, address) for family, kind, _, _, address in rows])


class Peer:
    """Whom a descriptor is connected to, and how: so it can be connected anew."""

    def __init__(self, family: int, kind: int, address: Any) -> None:
        self._family, self._kind, self._address = family, kind, address
        self._renew_after = 0.0

    def connect(self) -> int:
        """A descriptor that does not block; raise OSError if nobody is there."""
        with socket.socket(self._family, self._kind) as sock:
            sock.settimeout(CONNECT_PATIENCE)
            sock.connect(self._address)
            sock.setblocking(False)
            return sock.detach()

    def renew(self, fd: int) -> bool:
        """Connect a descriptor anew, unless that was tried just now; False if it could not even be begun.

        Nothing is waited for: whoever writes to it sees the outcome.
        """
        if monotonic() < self._renew_after:
            return False
        self._renew_after = monotonic() + CONNECT_PAUSE
        with suppress(OSError), socket.socket(self._family, self._kind) as fresh:
            fresh.setblocking(False)
            if fresh.connect_ex(self._address) in (0, errno.EINPROGRESS):
                os.dup2(fresh.fileno(), fd, inheritable=False)
                return True
        return False


def connect_first(peers: list[Peer]) -> tuple[int, Peer]:
    """Connect to the first that can be; raise the last OSError if none can."""
    failed: OSError | None = None
    for peer in peers:
        try:
            return peer.connect(), peer
        except OSError as error:
            failed = error
    raise failed or OSError("no address")


def usual_address() -> str:
    if sys.platform != "win32":
        for path in USUAL_PATHS:
            if os.path.exists(path):
                return f"unix://{path}"
    return USUAL_HOST


class SyslogOutlet(Outlet):
    """The connection to a syslog daemon; made anew when that has gone and come again."""

    def __init__(self, syslog: Syslog) -> None:
        """Connect; raise ConfigError if that fails."""
        fd, self._peer = syslog.connect()
        super().__init__(fd)

    def _send(self, record: bytes) -> int:
        # TCP would take one more after the end of the connection, for nobody.
        if self._socket is not None and not self._is_datagram:
            with suppress(BlockingIOError):
                if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return super()._send(record)

    def reconnect(self) -> bool:
        return self._peer.renew(self.fd)
