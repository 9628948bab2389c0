"""The settings. Each option is declared once, as a field of `Settings`: name, type, unit, default, help.

The command line, `--help` and the checks come from these declarations. Values are merged as
defaults < command line.
"""

import difflib
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

from fastwsgi.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an option takes: how one is read from text or a Python value, and how it is shown.

    `read` raises ValueError with the expectation as its message ("a number from 1 to 1024").
    """

    metavar: str
    read: Callable[[object], object]
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Option:
    """One option as the command line knows it; `flags` in the order in which help shows them."""

    name: str
    flags: tuple[str, ...]
    kind: Kind
    default: object
    help: str
    group: str
    repeatable: bool

    def read(self, value: object, where: str) -> object:
        """Return the checked value; raise ConfigError, saying where, if it is not one."""
        try:
            return self.kind.read(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {value!r} is not {error}") from None

    @property
    def shown_default(self) -> str:
        return "none" if self.default is None else self.kind.show(self.default)


def count(low: int, high: int) -> Kind:
    """A whole number from low to high."""

    def read(value: object) -> int:
        digits = value.strip() if isinstance(value, str) else value
        number = int(digits) if isinstance(digits, str) and digits.isascii() and digits.isdigit() else digits
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return Kind("N", read)


SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
TIME_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def show_in_units(value: float, units: dict[str, Any]) -> str:
    """Write a value with the largest unit that leaves it whole."""
    whole = [
        (unit, value / scale) for unit, scale in units.items() if value and value / scale == value // scale
    ]
    unit, number = max(whole, key=lambda pair: units[pair[0]], default=("", value))
    return f"{number:g}{unit}"


def size(high: int, low: int = 0) -> Kind:
    """Bytes: a whole number from low to high, or one with k, m, g or t (powers of 1024)."""

    def read(value: object) -> int:
        number: object = value
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]+)([kmgt]?)(?:i?b)?", value.strip().lower())
            number = int(match[1]) * SIZE_UNITS[match[2]] if match else None
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            least = f"at least {show_in_units(low, SIZE_UNITS)}, " if low else ""
            raise ValueError(
                f"a size such as 64k, 100m or 1g ({least}at most {show_in_units(high, SIZE_UNITS)})"
            )
        return number

    return Kind("SIZE", read, lambda value: show_in_units(value, SIZE_UNITS))


def duration(high: float, low: float = 0.0) -> Kind:
    """Seconds: a number from low to high, or one with ms, s, m, h or d."""

    def read(value: object) -> float:
        number: object = value
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d|)", value.strip().lower())
            number = float(match[1]) * TIME_UNITS[match[2]] if match else None
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not low <= number <= high:
            least = f"at least {show_in_units(low, TIME_UNITS)}, " if low else ""
            raise ValueError(
                f"a time such as 250ms, 30s or 2h ({least}at most {show_in_units(high, TIME_UNITS)})"
            )
        return float(number)

    return Kind("TIME", read, lambda value: show_in_units(value, TIME_UNITS))


def choice(*words: str) -> Kind:
    """One of the words, in any case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value.lower()

    return Kind("|".join(words), read)


def text(metavar: str) -> Kind:
    """Any text but none at all."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"a valid {metavar.lower()}")
        return value

    return Kind(metavar, read)


def several(kind: Kind) -> Kind:
    """A tuple of values of a kind; one value alone counts as a tuple of one."""

    def read(value: object) -> tuple[object, ...]:
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)) or not values:
            raise ValueError(f"a list with at least one {kind.metavar.lower()}")
        return tuple(kind.read(one) for one in values)

    return Kind(kind.metavar, read, lambda value: " ".join(map(kind.show, value)))


def optional(kind: Kind) -> Kind:
    """A kind whose default is None: off, or not given."""
    return Kind(kind.metavar, lambda value: None if value is None else kind.read(value), kind.show)


def option(default: T, kind: Kind, group: str, help: str, *flags: str, repeatable: bool = False) -> T:
    """Declare a field of `Settings`; `flags` are those besides `--name-of-the-field`."""
    metadata = {"kind": kind, "group": group, "help": help, "flags": flags, "repeatable": repeatable}
    return field(default=default, metadata=metadata)


ADDRESSES = "Where to listen"
CREW = "Threads and time"
MEMORY = "Memory and disk"
LIMITS = "What clients may send, and how slowly"
APPLICATION = "The application"
LOGS = "Logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked; the one object that crosses into the core.

    Values may be given as the command line takes them ("30s", "1m") or as Python values: times in
    seconds, sizes in bytes. Raises ConfigError when a value is wrong.
    """

    bind: tuple[str, ...] = option(
        ("127.0.0.1:8000",),
        several(text("ADDRESS")),
        ADDRESSES,
        "HOST:PORT, [IPV6]:PORT, :PORT (every address), unix:/path, or unix:@name (abstract, Linux); "
        "port 0 takes any free one; may be given several times",
        "-b",
        repeatable=True,
    )
    backlog: int = option(
        2048, count(1, 65535), ADDRESSES, "connections the kernel may queue; net.core.somaxconn caps it"
    )
    worker_connections: int | None = option(
        None,
        optional(count(1, 1 << 20)),
        ADDRESSES,
        "connections at a time; at the limit the longest idle ones are closed, then accepting pauses; "
        "none: as many as open files allow, 50000 at most",
    )
    threads: int = option(
        4, count(1, 1024), CREW, "threads that run the application: at most so many requests run at a time"
    )
    keep_alive: float = option(
        75.0,
        duration(86400.0),
        CREW,
        "how long an idle connection is kept; choose more than a balancer in front does",
    )
    queue_timeout: float = option(
        30.0,
        duration(86400.0, 0.1),
        CREW,
        "how long a request may wait for a thread; then it is answered with 503",
    )
    timeout: float = option(
        30.0,
        duration(86400.0),
        CREW,
        "how long a request may be in the application without giving anything to its client; then it is "
        "answered with 503, and RequestTimeout is raised in its thread; 0 is for ever",
        "-t",
    )
    graceful_timeout: float = option(
        25.0, duration(86400.0), CREW, "how long requests in progress may take to finish after TERM"
    )
    poller: str = option(
        "auto", choice("auto", "epoll", "poll"), CREW, "how to wait for sockets; for diagnosis, auto is best"
    )
    request_buffer: int = option(
        512 << 10,
        size(1 << 40),
        MEMORY,
        "request content kept in memory; what is longer goes to a spool file",
    )
    response_buffer: int = option(
        1 << 20, size(1 << 40), MEMORY, "response bytes kept in memory for a client that reads slowly"
    )
    response_spool: int = option(
        1 << 30, size(1 << 50), MEMORY, "and on disk after that; when both are full, the application waits"
    )
    limit_request_line: int = option(
        8190, size(1 << 20, 64), LIMITS, "the request line; a longer one is refused with 414"
    )
    limit_request_fields: int = option(
        100, count(1, 32767), LIMITS, "field lines of a request; more are refused with 431"
    )
    limit_request_field_size: int = option(
        16 << 10,
        size(1 << 20, 64),
        LIMITS,
        "one field line; a longer one is refused with 431",
        "--limit-request-field_size",
    )
    limit_request_head: int = option(
        64 << 10, size(16 << 20, 256), LIMITS, "request line and all field lines together; 431"
    )
    limit_request_trailer: int = option(
        16 << 10, size(16 << 20), LIMITS, "the trailer section behind chunked content; 431"
    )
    limit_chunk_overhead: int = option(
        16 << 10,
        size(1 << 30),
        LIMITS,
        "chunk framing beyond eight octets for each octet of content; 400",
    )
    limit_request_body: int = option(
        100 << 20,
        size(1 << 50),
        LIMITS,
        "request content; more is refused with 413, before it is received where the client says how much; "
        "0 is no limit",
    )
    header_timeout: float = option(
        15.0, duration(86400.0, 0.1), LIMITS, "how long a request head may take in all; 408"
    )
    body_timeout: float = option(
        30.0, duration(86400.0, 0.1), LIMITS, "how long request content may pause; 408"
    )
    body_min_rate: int = option(
        500,
        size(1 << 40),
        LIMITS,
        "octets of content a second, after the first 15 s; slower is 408; 0 is any",
    )
    send_timeout: float = option(
        60.0, duration(86400.0, 0.1), LIMITS, "how long a client may read nothing of its answer"
    )
    keep_alive_requests: int = option(
        1000, count(1, 1 << 30), LIMITS, "requests of one connection, which is closed after the last"
    )
    chdir: str | None = option(
        None, optional(text("DIRECTORY")), APPLICATION, "change to it before the import"
    )
    pythonpath: str | None = option(
        None, optional(text("PATHS")), APPLICATION, "directories to import from, separated by commas"
    )
    access_logfile: str | None = option(
        None, optional(text("FILE")), LOGS, "one line per request to this file; - is the standard output"
    )
    access_logformat: str = option(
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        text("FORMAT"),
        LOGS,
        "the line, with gunicorn's atoms",
    )
    error_logfile: str = option(
        "-", text("FILE"), LOGS, "messages and tracebacks; - is the standard error", "--log-file"
    )
    log_slow: float = option(
        5.0, duration(86400.0), LOGS, "requests that take longer are logged with their Python stack; 0 is off"
    )
    log_level: str = option(
        "info",
        choice("debug", "info", "warning", "error", "critical"),
        LOGS,
        "the least level that is logged",
    )

    def __post_init__(self) -> None:
        for declared in OPTIONS.values():
            value = declared.read(getattr(self, declared.name), declared.name)
            object.__setattr__(self, declared.name, value)


def declared_options() -> Iterator[Option]:
    """The options, in the order in which they are declared."""
    for row in fields(Settings):
        named = "--" + row.name.replace("_", "-")
        # The short one, the one named as the field, other names.
        flags = tuple(sorted((named, *row.metadata["flags"]), key=lambda flag: flag.startswith("--")))
        meta = row.metadata
        yield Option(
            row.name, flags, meta["kind"], row.default, meta["help"], meta["group"], meta["repeatable"]
        )


OPTIONS = {declared.name: declared for declared in declared_options()}


def merge(*layers: Mapping[str, object]) -> Settings:
    """Put layers of values over the defaults, later over earlier; raise ConfigError for a wrong value."""
    values = ChainMap(*map(dict, reversed(layers)))
    for name in values:
        if name not in OPTIONS:
            raise ConfigError(f"unknown setting {name}{did_you_mean(name, OPTIONS)}")
    return Settings(**cast("dict[str, Any]", dict(values)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean X?" for the known word nearest to this one, or nothing."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
