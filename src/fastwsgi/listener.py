"""Listening sockets: read an address, bind it, say where it is, take the socket file away at the end."""

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastwsgi.errors import ConfigError

LOWEST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
LONGEST_BACKLOG = Path("/proc/sys/net/core/somaxconn")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host (empty: every address) and port, or a unix socket ("@name": an abstract one)."""

    text: str
    host: str = ""
    port: int = 0
    unix: str | None = None


def parse_address(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT, :PORT, unix:/path or unix:@name; raise ConfigError for anything else."""
    if text.startswith("unix:"):
        name = text.removeprefix("unix:")
        if name in ("", "@"):
            raise ConfigError(f"cannot listen at {text}: the path is missing; give unix:/path/to/socket")
        return Address(text, unix=name)
    if "://" in text:
        raise ConfigError(f"cannot listen at {text}: give the address alone, such as 127.0.0.1:8000")
    host, colon, port = text.rpartition(":")
    if not colon and port.isdecimal():
        raise ConfigError(
            f"cannot listen at {text}: give 127.0.0.1:{port} (this machine alone) or :{port} (every address)"
        )
    if not colon or text.endswith("]"):
        raise ConfigError(f"cannot listen at {text}: the port is missing; give {text}:8000")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"cannot listen at {text}: an IPv6 address needs brackets, as in [::1]:8000")
    if host == "[]":
        raise ConfigError(f"cannot listen at {text}: give [::]:{port} for every address")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ConfigError(
            f"cannot listen at {text}: {port!r} is not a port, a number from 0 (any free one) to 65535"
        )
    return Address(text, host.strip("[]"), int(port))


class Listener:
    """A bound and listening socket: non-blocking, close-on-exec."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._file: tuple[str, tuple[int, int]] | None = None
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX and isinstance(name, str) and name:
            path = os.path.abspath(name)
            self._file = (path, file_identity(path))

    @property
    def url(self) -> str:
        """Where to find it, for people: a URL that can be clicked, or unix:PATH."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return "unix:" + (name if isinstance(name, str) else "@" + os.fsdecode(name[1:]))
        host, port = name[:2]
        if host in ("::", "0.0.0.0"):
            return f"http://127.0.0.1:{port} (every address)"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def give_to(self, uid: int, gid: int) -> None:
        """Let a user and a group own its socket file, if it has one; raise ConfigError if that fails."""
        if self._file is not None:
            try:
                os.chown(self._file[0], uid, gid, follow_symlinks=False)
            except OSError as error:
                raise ConfigError(
                    f"--user, --group: cannot give {self._file[0]} to user {uid} and group {gid}: "
                    f"{error.strerror}"
                ) from None

    def close(self) -> None:
        """Close it, and unlink its socket file if that is still the one it made."""
        self.socket.close()
        if self._file is not None:
            path, identity = self._file
            with suppress(OSError):
                if file_identity(path) == identity:
                    os.unlink(path)
            self._file = None


def open_listeners(bind: Sequence[str], backlog: int) -> list[Listener]:
    """Bind and listen at each address, all or none; raise ConfigError where one cannot be had.

    A host name is bound at each of its addresses. `[::]` and an empty host take IPv4 as well, unless
    0.0.0.0 is asked for beside them.
    """
    addresses = [parse_address(text) for text in bind]
    for address in addresses:
        if addresses.count(address) > 1 and (address.port or address.unix):
            raise ConfigError(f"cannot listen at {address.text} twice; give it once (--bind)")
    ipv4_ports = {address.port for address in addresses if address.host == "0.0.0.0"}
    listeners: list[Listener] = []
    try:
        for address in addresses:
            if address.unix is not None:
                sockets = [bind_unix(address)]
            else:
                sockets = bind_tcp(address, dual_stack=address.port not in ipv4_ports)
            for sock in sockets:
                listeners.append(Listener(sock))
            for sock in sockets:
                listen(sock, backlog, address)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def longest_backlog() -> int:
    """The most connections this kernel queues for a listener."""
    return kernel_number(LONGEST_BACKLOG, otherwise=65535)


def bind_tcp(address: Address, *, dual_stack: bool) -> list[socket.socket]:
    """Bind a socket for each address of the host, all at the same port."""
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, (host, _, *scope) in resolve(address):
        port = bound[0].getsockname()[1] if bound else address.port
        try:
            bound.append(bind_one(family, (host, port, *scope), dual_stack=dual_stack))
        except OSError as error:
            # localhost is often ::1 too where there is no IPv6: then its other address will do.
            failure = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
        if bound and not address.host:
            return bound
    if failure is None or (bound and failure.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)):
        return bound
    for sock in bound:
        sock.close()
    raise cannot_listen(address, failure)


def listen(sock: socket.socket, backlog: int, address: Address) -> None:
    try:
        sock.listen(backlog)
    except OSError as error:
        # Two sockets may be bound to one port with SO_REUSEADDR; only one of them may listen.
        raise cannot_listen(address, error) from None


def resolve(address: Address) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """The families and socket addresses of a host: host and port, and for IPv6 flow and scope."""
    if not address.host:
        return [(socket.AF_INET6, ("::", address.port)), (socket.AF_INET, ("0.0.0.0", address.port))]
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError):
        raise ConfigError(
            f"cannot listen at {address.text}: the host name {address.host!r} is not known"
        ) from None
    return list(dict.fromkeys((family, tuple(name)) for family, _, _, _, name in found))


def bind_one(family: socket.AddressFamily, name: tuple[Any, ...], *, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            # A connection is accepted when its first octets are here, or after a second (decision 0006).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        if family == socket.AF_INET6:
            only = not (name[0] == "::" and dual_stack)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix(address: Address) -> socket.socket:
    assert address.unix is not None
    abstract = address.unix.startswith("@")
    if not abstract:
        remove_stale(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind("\0" + address.unix[1:] if abstract else address.unix)
    except OSError as error:
        sock.close()
        raise cannot_listen(address, error) from None
    return sock


def remove_stale(address: Address) -> None:
    """Unlink a socket file that nobody listens behind; raise ConfigError if the path is otherwise taken."""
    path = str(address.unix)
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"cannot listen at {address.text}: this is not a socket; remove it or choose another"
        )
    identity = file_identity(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog must not hold us up: it is an answer too.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(OSError):
                if file_identity(path) == identity:
                    os.unlink(path)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise cannot_listen(address, error) from None
    raise cannot_listen(address, OSError(errno.EADDRINUSE, ""))


def file_identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def cannot_listen(address: Address, error: OSError) -> ConfigError:
    """Say in one line why an address cannot be had, and what to do."""
    if error.errno == errno.EADDRINUSE:
        reason = "another server is listening there; stop it, or choose another address (--bind)"
    elif error.errno in (errno.EACCES, errno.EPERM) and address.unix is None:
        lowest = kernel_number(LOWEST_FREE_PORT, otherwise=1024)
        reason = f"ports below {lowest} are for root; choose a higher one, such as 8000"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = "no permission to use this path; check the directory's owner and mode"
    elif error.errno == errno.ENOENT:
        reason = f"the directory {os.path.dirname(address.unix or '')} does not exist; create it"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "this machine has no such address; 0.0.0.0 or [::] stand for every address"
    else:
        reason = error.strerror or str(error)
    return ConfigError(f"cannot listen at {address.text}: {reason}")


def kernel_number(file: Path, otherwise: int) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return otherwise
