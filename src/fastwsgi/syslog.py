"""A syslog daemon: where it is, and how a record for it begins."""

import logging
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

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

    def connect(self) -> socket.socket:
        """A socket that does not block; raise ConfigError if nobody is there."""
        try:
            return self._connect()
        except OSError as error:
            raise ConfigError(f"--log-syslog-to {self.address}: {error.strerror or error}") from None

    def _connect(self) -> socket.socket:
        found = ADDRESS.fullmatch(self.address)
        if not found:
            raise ConfigError(
                f"--log-syslog-to {self.address}: not unix:///path, udp://host:port or tcp://host:port"
            )
        if found["path"]:
            types = [socket.SOCK_DGRAM, socket.SOCK_STREAM]
            if found["type"]:
                types = [socket.SOCK_DGRAM if found["type"] == "dgram" else socket.SOCK_STREAM]
            return connect_first([(socket.AF_UNIX, kind, found["path"]) for kind in types])
        kind = socket.SOCK_DGRAM if found["scheme"] == "udp" else socket.SOCK_STREAM
        host = found["ipv6"] or found["host"] or "localhost"
        rows = socket.getaddrinfo(host, int(found["port"] or PORT), type=kind)
        return connect_first([(family, kind, address) for family, kind, _, _, address in rows])


def connect_first(places: list[tuple[int, int, object]]) -> socket.socket:
    """Connect to the first that can be; raise the last OSError if none can."""
    failed: OSError | None = None
    for family, kind, address in places:
        sock = socket.socket(family, kind)
        try:
            sock.settimeout(CONNECT_PATIENCE)
            sock.connect(address)  # type: ignore[arg-type]
            sock.setblocking(False)
            return sock
        except OSError as error:
            failed = error
            sock.close()
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
        self._syslog = syslog
        self._connect_after = 0.0
        super().__init__(syslog.connect().detach())

    def reconnect(self) -> None:
        if monotonic() < self._connect_after:
            return
        self._connect_after = monotonic() + CONNECT_PAUSE
        assert self._socket is not None
        family = self._socket.family
        with suppress(OSError):
            address = self._socket.getpeername() if family != socket.AF_UNIX else None
            path = ADDRESS.fullmatch(self._syslog.address)
            fresh = socket.socket(family, self._socket.type)
            with fresh:
                fresh.setblocking(False)
                fresh.connect_ex(address or (path["path"] if path else ""))
                os.dup2(fresh.fileno(), self.fd, inheritable=False)
