"""What values options take: how one is read from text or from a Python value, and how it is shown."""

import ipaddress
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an option takes: how one is read from text or a Python value, and how it is shown.

    `read` raises ValueError with the expectation as its message ("a number from 1 to 1024").
    """

    metavar: str
    read: Callable[[object], object]
    show: Callable[[Any], str] = str
    # What the option means on the command line when no value follows.
    alone: str | None = None
    # It stands alone unless its value is in the same word (--preload=strict), and `--no-NAME` is "off".
    is_switch: bool = False

    def takes(self, value: object) -> bool:
        try:
            self.read(value)
        except ValueError:
            return False
        return True


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


def choice(*words: str, alone: str | None = None) -> Kind:
    """One of the words, in any case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value.lower()

    return Kind("|".join(words), read, alone=alone)


SWITCH = {"on": True, "true": True, "yes": True, "1": True}
SWITCH |= {"off": False, "false": False, "no": False, "0": False}


def switched(value: object) -> bool | None:
    """On or off, or None if the value is neither."""
    if isinstance(value, str):
        return SWITCH.get(value.lower())
    return value if isinstance(value, bool) else None


def switch() -> Kind:
    """True or false."""

    def read(value: object) -> bool:
        is_on = switched(value)
        if is_on is None:
            raise ValueError("on or off, true or false")
        return is_on

    return Kind("", read, lambda value: "on" if value else "off", "on", is_switch=True)


def switch_or(*words: str) -> Kind:
    """On, off, or one of the words: as text."""

    def read(value: object) -> str:
        is_on = switched(value)
        if is_on is not None:
            return "on" if is_on else "off"
        return str(choice("on", "off", *words).read(value))

    return Kind(f"[={'|'.join(words)}]", read, alone="on", is_switch=True)


def word_or(word: str, kind: Kind) -> Kind:
    """A word, or what the other kind takes."""

    def read(value: object) -> object:
        if isinstance(value, str) and value.lower() == word:
            return word
        try:
            return kind.read(value)
        except ValueError as error:
            raise ValueError(f"{word} or {error}") from None

    return Kind(f"{word}|{kind.metavar}", read, lambda value: word if value == word else kind.show(value))


def share() -> Kind:
    """A share of something: text such as 80%."""

    def read(value: object) -> str:
        found = re.fullmatch(r"([1-9][0-9]?|100)\s*%", value.strip()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("a share such as 80%")
        return f"{found[1]}%"

    return Kind("SHARE", read)


def size_or_share() -> Kind:
    """Bytes, or a share of something."""
    sizes, shares = size(1 << 50, 1 << 20), share()

    def read(value: object) -> object:
        if shares.takes(value):
            return shares.read(value)
        try:
            return sizes.read(value)
        except ValueError as error:
            raise ValueError(f"{error} or a share such as 80%") from None

    return Kind("SIZE|SHARE", read, lambda value: value if isinstance(value, str) else sizes.show(value))


def path() -> Kind:
    """The path of a target, as clients send it."""

    def read(value: object) -> str:
        if (
            not isinstance(value, str)
            or not re.fullmatch("/[!-~]{0,254}", value)
            or set(value) & set('?#"<>')
        ):
            raise ValueError("a path such as /healthz (no query)")
        return value

    return Kind("PATH", read)


def everywhere() -> Kind:
    """A port, as the address that stands for every address of this host."""
    port = count(0, 65535)
    return Kind("PORT", lambda value: f":{port.read(value)}")


def assignments() -> Kind:
    """A tuple of NAME=VALUE; a mapping is one, too, and so is the word none."""

    def read(value: object) -> tuple[str, ...]:
        if value == "none":
            return ()
        if isinstance(value, Mapping):
            value = [f"{name}={one}" for name, one in value.items()]
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)):
            raise ValueError("a list of NAME=VALUE")
        for one in values:
            if not isinstance(one, str) or one.find("=") < 1 or "\0" in one:
                raise ValueError("NAME=VALUE")
        return tuple(values)

    return Kind("NAME=VALUE", read, lambda value: shlex.join(value) or "none")


# RFC 5424, 6.2.1, by the names of syslog(3).
FACILITIES = {
    **{
        name: number
        for number, name in enumerate(
            (
                "kern",
                "user",
                "mail",
                "daemon",
                "auth",
                "syslog",
                "lpr",
                "news",
                "uucp",
                "cron",
                "authpriv",
                "ftp",
            )
        )
    },
    **{f"local{number}": 16 + number for number in range(8)},
}


def facility() -> Kind:
    """The name of a facility of syslog, perhaps with LOG_ before it."""
    names = choice(*FACILITIES)

    def read(value: object) -> object:
        return names.read(value.lower().removeprefix("log_") if isinstance(value, str) else value)

    return Kind("FACILITY", read)


def mapping() -> Kind:
    """A dict, or one as JSON; empty is None."""

    def read(value: object) -> object:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, Mapping):
            raise ValueError("an object of JSON")
        return value or None

    return Kind("JSON", read, lambda value: json.dumps(value, default=repr))


def text(metavar: str) -> Kind:
    """Any text but none at all."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"a valid {metavar.lower()}")
        return value

    return Kind(metavar, read)


def words(metavar: str) -> Kind:
    """What stands in a datagram for statsd, or nothing."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[!-~]*", value) or set(value) & set("|@"):
            raise ValueError("printable ASCII without spaces, | and @")
        return value

    return Kind(metavar, read)


def datagrams() -> Kind:
    """Where datagrams go."""

    def read(value: object) -> str:
        if isinstance(value, str):
            path = value.removeprefix("unix:").removeprefix("//")
            if value.startswith("unix:") and path and "\0" not in path:
                return f"unix:{path}"
            host, _, port = value.rpartition(":")
            if host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536:
                return value
        raise ValueError("HOST:PORT or unix:/path")

    return Kind("ADDRESS", read)


def networks() -> Kind:
    """Whom to trust: a list of addresses and networks, and the words *, unix and none."""

    def read(value: object) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise ValueError("a list of addresses")
        # No address at all is what an empty list has with gunicorn too: then unix sockets are left.
        words = tuple(word for word in map(str.strip, given) if word) or ("unix",)
        for word in words:
            if word not in ("*", "unix", "none"):
                read_network(word)
        if "none" in words and len(words) > 1:
            raise ValueError("a list: none stands alone")
        return words

    return Kind("ADDRESSES", read, ",".join)


def read_network(text: str) -> None:
    """Raise ValueError, with the expectation as its message, for what is no address and no network."""
    expected = "addresses, networks such as 10.0.0.0/8, *, unix or none, separated by commas"
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{expected}: what is {text}?") from None
    if "%" in text:
        raise ValueError(f"{expected}: {text} has a zone")
    if found.ip != found.network.network_address:
        raise ValueError(f"{expected}: {text} has bits beyond its prefix, {found.network} has not")


def field_names() -> Kind:
    """Field names, in upper case."""

    def read(value: object) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise ValueError("a list of field names")
        names = tuple(name.upper() for name in map(str.strip, given) if name)
        if not all(re.fullmatch("[A-Z0-9_-]+", name) for name in names):
            raise ValueError("a list of field names, separated by commas")
        return names

    return Kind("NAMES", read, ",".join)


def mode(high: int) -> Kind:
    """Bits of a file mode: text is octal."""

    def read(value: object) -> int:
        digits = re.fullmatch("(?:0o)?([0-7]{1,4})", value.strip()) if isinstance(value, str) else None
        number = int(digits[1], 8) if digits else value
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= high:
            raise ValueError(f"an octal number from 0 to {high:o}")
        return number

    return Kind("MODE", read, lambda value: f"{value:03o}")


def name_or_number(metavar: str) -> Kind:
    """The name of a user or a group, or its number, as text."""

    def read(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return str(value)
        return text(metavar).read(value)

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
