"""Listening sockets: read an address, bind or adopt, say where it is, take the socket file away at the end.

A socket that whoever started us has made (`fd://3`; systemd does so) is borrowed: the next server may get the
same one, with the connections that wait in it. So its file is not unlinked, and it may not be shut down.
"""

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from fastwsgi import holders
from fastwsgi._process import stop_hearing
from fastwsgi.errors import ConfigError

LOWEST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
LONGEST_BACKLOG = Path("/proc/sys/net/core/somaxconn")

IPV6_ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
REUSE_PORT = (socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", 0))
CAN_REUSE_PORT = REUSE_PORT[1] != 0

# What an address may begin with: without it there is TLS if there is a certificate.
SCHEMES = ("http", "https")

HANDED_OVER = "whoever starts the server opens it (systemd: ListenStream=, and Accept=no)"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host (empty: every address) and port, a unix socket ("@name": an abstract one), or
    the descriptor of a socket that listens already.

    `scheme` is what was said to be spoken there, http or https.
    """

    text: str
    host: str = ""
    port: int = 0
    unix: str | None = None
    fd: int | None = None
    scheme: str = ""


def parse_address(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT, :PORT, unix:/path, unix:@name or fd://NUMBER, perhaps with http:// or
    https:// before it.

    Raises ConfigError for anything else.
    """
    for scheme in SCHEMES:
        if text.startswith(f"{scheme}://"):
            return replace(parse_plain(text.removeprefix(f"{scheme}://")), text=text, scheme=scheme)
    return parse_plain(text)


def parse_plain(text: str) -> Address:
    """Read an address that does not say what is spoken there."""
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdecimal() and len(number) <= 6):
            raise ConfigError(f"cannot listen at {text}: give the number of a descriptor, as in fd://3")
        return Address(text, fd=int(number))
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


@dataclass(frozen=True, slots=True)
class SocketFile:
    """Where a unix socket of ours is, and which file that was."""

    path: str
    identity: tuple[int, int]

    @classmethod
    def at(cls, path: str) -> Self:
        return cls(os.path.abspath(path), file_identity(path))

    def unlink(self) -> None:
        """Unlink it if it is still the same."""
        with suppress(OSError):
            if file_identity(self.path) == self.identity:
                os.unlink(self.path)


class Listener:
    """A bound and listening socket: non-blocking, close-on-exec."""

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        file: SocketFile | None = None,
        *,
        is_borrowed: bool = False,
        is_own: bool = False,
    ) -> None:
        """`address` is the text that asked for it, `file` what has to be unlinked in the end.

        is_borrowed: it goes on to listen after our end. is_own: one worker alone has it.
        """
        self.socket = sock
        self.address = address
        self.is_borrowed = is_borrowed
        self.is_own = is_own
        self.is_tls = False  # see `mark`
        self._file = file

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Self:
        """Make it again from its `state`, after an exec; raise ConfigError if the descriptor is not it."""
        address = state["address"]
        file = None if state["file"] is None else SocketFile(state["file"][0], tuple(state["file"][1]))
        sock = adopt(Address(address, fd=state["fd"]), listens=state["listens"])
        return cls(sock, address, file, is_borrowed=state["is_borrowed"])

    @property
    def state(self) -> dict[str, Any]:
        """What another program in this process needs to go on with it, for JSON.

        For the exec its descriptor has to be made inheritable (`socket.set_inheritable`).
        """
        return {
            "fd": self.socket.fileno(),
            "address": self.address,
            "listens": self.listens,
            "is_borrowed": self.is_borrowed,
            "file": None if self._file is None else [self._file.path, self._file.identity],
        }

    @property
    def listens(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    @property
    def can_be_cloned(self) -> bool:
        """A clone has a queue of its own: for TCP, bound with reuse_port.

        Not one that is borrowed: it would go on to listen beside its clones, and nobody would serve it.
        """
        is_ours = self.socket.family != socket.AF_UNIX and not self.is_borrowed
        return is_ours and bool(CAN_REUSE_PORT and self.socket.getsockopt(*REUSE_PORT))

    def rest(self) -> None:
        """Keep the address without listening: among clones, what nobody serves would get its share."""
        if self.can_be_cloned:
            with suppress(OSError):  # it does not listen
                self.socket.shutdown(socket.SHUT_RDWR)

    def listen(self, backlog: int) -> None:
        """Have the kernel queue so many clients, from now on or instead of another number.

        How many wait in a borrowed one is a matter of whoever has opened it.
        """
        if not self.is_borrowed:
            self.socket.listen(backlog)

    def clone(self) -> "Listener":
        """Make one more at the same address, with a queue of its own.

        It does not listen yet: from `listen` on, whoever has it must serve it. Where it cannot be had it is
        one more descriptor of the same queue: unix sockets, those that are borrowed, or were bound without
        reuse_port or, before --user, by root.
        """
        family, name = self.socket.family, self.socket.getsockname()
        if self.can_be_cloned:
            dual_stack = family == socket.AF_INET6 and not self.socket.getsockopt(*IPV6_ONLY)
            with suppress(OSError):
                sock = bind_one(family, name, dual_stack=dual_stack, reuse_port=True)
                return Listener(sock, self.address, is_own=True)
        return Listener(self.socket.dup(), self.address, is_borrowed=self.is_borrowed)

    def mark(self, has_tls: bool) -> None:
        """Say whether there is a certificate: then TLS is spoken here, unless the address says http."""
        self.is_tls = has_tls and parse_address(self.address).scheme != "http"

    @property
    def url(self) -> str:
        """Where to find it, for people: a URL that can be clicked, or unix:PATH."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            path = name if isinstance(name, str) else "@" + os.fsdecode(name[1:])
            return f"https://unix:{path}" if self.is_tls else f"unix:{path}"
        host, port = name[:2]
        scheme = "https" if self.is_tls else "http"
        if host in ("::", "0.0.0.0"):
            return f"{scheme}://127.0.0.1:{port} (every address)"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def give_to(self, uid: int, gid: int) -> None:
        """Let a user and a group own its socket file, if it has one; raise ConfigError if that fails."""
        if self._file is not None:
            try:
                os.chown(self._file.path, uid, gid, follow_symlinks=False)
            except OSError as error:
                raise ConfigError(
                    f"--user, --group: cannot give {self._file.path} to user {uid} and group {gid}: "
                    f"{error.strerror}"
                ) from None

    @property
    def is_elsewhere(self) -> bool:
        """The path of its address counts from the current directory, and that is another by now."""
        path = parse_address(self.address).unix
        return self._file is not None and path is not None and self._file.path != os.path.abspath(path)

    def close(self) -> None:
        """Close it, and unlink its socket file if that is still the one it made."""
        self.socket.close()
        if self._file is not None:
            self._file.unlink()
            self._file = None

    def give_up(self) -> None:
        """Close it while workers have it still: each accepts, as it leaves, who is queued there."""
        if not self.is_borrowed:
            stop_hearing(self.socket.fileno())
        self.close()

    def uses(self, address: Address) -> bool:
        """It is there, or at the same port of another host name or address."""
        name = self.socket.getsockname()
        if isinstance(name, tuple):
            return bool(address.port) and name[1] == address.port
        if self._file is None or address.unix is None:
            return False
        return self._file.path == os.path.abspath(address.unix)


class AddressInUseError(ConfigError):
    """A socket listens there already."""


def open_listeners(
    bind: Sequence[str],
    backlog: int,
    *,
    reuse_port: bool = False,
    kept: Sequence[Listener] = (),
    option: str = "--bind",
) -> list[Listener]:
    """Bind and listen at each address, all or none; raise ConfigError where one cannot be had.

    A host name is bound at each of its addresses. `[::]` and an empty host take IPv4 as well, unless
    0.0.0.0 is asked for beside them. `reuse_port`: for `Listener.clone`.

    Those of `kept` whose address is in `bind` are taken over as they are. The others are the caller's to
    close, when nobody serves them any more. `option`: what has asked for the addresses.
    """
    if reuse_port and not CAN_REUSE_PORT:
        raise ConfigError("--reuse-port: this system does not have it")
    addresses = [parse_address(text) for text in bind]
    places = [replace(address, text="", scheme="") for address in addresses]
    for address, place in zip(addresses, places, strict=True):
        if places.count(place) > 1 and (address.port or address.unix or address.fd is not None):
            raise ConfigError(f"cannot listen at {address.text} twice; give it once (--bind)")
    ipv4_ports = {address.port for address in addresses if address.host == "0.0.0.0"}
    there = group([listener for listener in kept if not listener.is_elsewhere])
    listeners: list[Listener] = []
    try:
        for address in addresses:
            if there.get(address.text):
                listeners += there[address.text].pop(0)
                continue
            try:
                listeners += open_one(
                    address, backlog, dual_stack=address.port not in ipv4_ports, reuse_port=reuse_port
                )
            except AddressInUseError as error:
                ours = next((listener for listener in kept if listener.uses(address)), None)
                if ours is None:
                    raise ConfigError(f"{error} ({option})") from None
                raise ConfigError(
                    f"cannot listen at {address.text}: that is taken, and this server itself listens at "
                    f"{ours.address}; to change from one to the other, stop and start it"
                ) from None
    except BaseException:
        for listener in listeners:
            if listener not in kept:
                listener.close()
        raise
    return listeners


def group(listeners: Sequence[Listener]) -> dict[str, list[list[Listener]]]:
    """Listeners by the address that asked for them; one that is there twice, with port 0, has two lists."""
    found: dict[str, dict[object, list[Listener]]] = {}
    for listener in listeners:
        name = listener.socket.getsockname()
        port = name[1] if isinstance(name, tuple) else None
        found.setdefault(listener.address, {}).setdefault(port, []).append(listener)
    return {address: list(by_port.values()) for address, by_port in found.items()}


def open_one(address: Address, backlog: int, *, dual_stack: bool, reuse_port: bool) -> list[Listener]:
    """The listeners for one address: several for a host with several addresses."""
    if address.fd is not None:
        listeners = [Listener(adopt(address), address.text, is_borrowed=True)]
    elif address.unix is not None:
        sock = bind_unix(address)
        file = None if address.unix.startswith("@") else SocketFile.at(address.unix)
        listeners = [Listener(sock, address.text, file)]
    else:
        sockets = bind_tcp(address, dual_stack=dual_stack, reuse_port=reuse_port)
        listeners = [Listener(sock, address.text) for sock in sockets]
    try:
        for listener in listeners:
            listener.socket.listen(backlog)
    except OSError as error:
        for listener in listeners:
            listener.close()
        # Two sockets may be bound to one port with SO_REUSEADDR; only one of them may listen.
        raise cannot_listen(address, error) from None
    return listeners


def longest_backlog() -> int:
    """The most connections this kernel queues for a listener."""
    return kernel_number(LONGEST_BACKLOG, otherwise=65535)


def bind_tcp(address: Address, *, dual_stack: bool, reuse_port: bool) -> list[socket.socket]:
    """Bind a socket for each address of the host, all at the same port."""
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, (host, _, *scope) in resolve(address):
        port = bound[0].getsockname()[1] if bound else address.port
        try:
            name = (host, port, *scope)
            bound.append(bind_one(family, name, dual_stack=dual_stack, reuse_port=reuse_port))
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


def bind_one(
    family: socket.AddressFamily, name: tuple[Any, ...], *, dual_stack: bool, reuse_port: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_tcp_options(sock)
        if reuse_port:
            sock.setsockopt(*REUSE_PORT, 1)
        if family == socket.AF_INET6:
            only = not (name[0] == "::" and dual_stack)
            sock.setsockopt(*IPV6_ONLY, only)
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def set_tcp_options(sock: socket.socket) -> None:
    """Set what accepted sockets inherit, and when they are accepted."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        # A connection is accepted when its first octets are here, or after a second (decision 0006).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)


def adopt(address: Address, *, listens: bool = True) -> socket.socket:
    """Take over the descriptor of a socket, one that listens already; raise ConfigError if it is none."""
    try:
        sock = socket.socket(fileno=address.fd)
    except OSError as error:
        reason = "nothing is open there" if error.errno == errno.EBADF else "this is not a socket"
        raise ConfigError(f"cannot listen at {address.text}: {reason}; {HANDED_OVER}") from None
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    is_stream = sock.family in families and sock.type == socket.SOCK_STREAM
    if not is_stream or (listens and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        sock.detach()
        raise ConfigError(
            f"cannot listen at {address.text}: this socket does not listen for streams; {HANDED_OVER}"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX:
        # What is not plain TCP inside, such as MPTCP, may not have them all.
        with suppress(OSError):
            set_tcp_options(sock)
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
        return AddressInUseError(
            f"cannot listen at {address.text}: another server is listening there{who_listens(address)}; "
            "stop it, or choose another address"
        )
    if error.errno in (errno.EACCES, errno.EPERM) and address.unix is None:
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


def who_listens(address: Address) -> str:
    """The processes that have an address, as far as this one may see them; empty if it sees none."""
    found = holders.of_unix(address.unix) if address.unix is not None else holders.of_port(address.port)
    return f" ({', '.join(found)})" if found else ""


def kernel_number(file: Path, otherwise: int) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return otherwise
