"""What values options take: how one is read from text or from a Python value, and how it is shown."""

import ipaddress
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


def reload_engine() -> Kind:
    """What notices changes of files; what gunicorn calls inotify is within watchfiles."""
    engines = choice("auto", "poll", "watchfiles")

    def read(value: object) -> object:
        return "auto" if value == "inotify" else engines.read(value)

    return Kind(engines.metavar, read)


def expiry() -> Kind:
    """For how long something may be kept: a word or a time."""
    words, times = choice("auto", "off", "immutable"), duration(10 * 365 * 86400.0)

    def read(value: object) -> object:
        if words.takes(value):
            return words.read(value)
        try:
            return times.read(value)
        except ValueError as error:
            raise ValueError(f"auto, off, immutable or {error}") from None

    return Kind(
        "TIME|auto|off|immutable", read, lambda value: value if isinstance(value, str) else times.show(value)
    )


def numbered(*words: str) -> Kind:
    """One of the words, in any case, or its number from 0 on."""

    def read(value: object) -> str:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(words):
            return words[number]
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value.lower()

    return Kind("|".join(words), read)


def tls_version() -> Kind:
    """1.2 or 1.3, perhaps with TLS or TLSv before it."""
    versions = choice("1.2", "1.3")

    def read(value: object) -> object:
        return versions.read(re.sub("^tlsv?", "", str(value).lower()))

    return Kind(versions.metavar, read)


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


def switch_or_port() -> Kind:
    """On, off, or the number of a port: as text."""
    port = count(2, 65535)

    def read(value: object) -> str:
        is_on = switched(value)
        if is_on is not None:
            return "on" if is_on else "off"
        try:
            return str(port.read(value))
        except ValueError:
            raise ValueError("on, off or the number of a port") from None

    return Kind("[=PORT]", read, alone="on", is_switch=True)


def on_or(kind: Kind, on: str) -> Kind:
    """What the other kind takes; true, as the option alone, is this value of it, and false is 0."""

    def read(value: object) -> object:
        try:
            return kind.read(value)
        except ValueError as error:
            is_on = switched(value)
            if is_on is None:
                raise ValueError(f"on, off or {error}") from None
            return kind.read(on if is_on else 0)

    return replace(kind, read=read, alone=on)


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


def file_pairs() -> Kind:
    """A tuple of CERT,KEY: two files, or one that has both; the word none is an empty one."""

    def read(value: object) -> tuple[str, ...]:
        if value == "none":
            return ()
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)):
            raise ValueError("a list of CERT,KEY")
        for one in values:
            if not isinstance(one, str) or "\0" in one or not all(one.split(",")) or one.count(",") > 1:
                raise ValueError("CERT,KEY: the file of a certificate and that of its key")
        return tuple(values)

    return Kind("CERT,KEY", read, lambda value: " ".join(value) or "none")


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


def printable(metavar: str) -> Kind:
    """Text of one line, with letters of any language."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError("text of one line")
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


def read_network(text: str, others: str = "*, unix or none") -> None:
    """Raise ValueError, with the expectation as its message, for what is no address and no network."""
    expected = f"addresses, networks such as 10.0.0.0/8, {others}, separated by commas"
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{expected}: what is {text}?") from None
    if "%" in text:
        raise ValueError(f"{expected}: {text} has a zone")
    if found.ip != found.network.network_address:
        raise ValueError(f"{expected}: {text} has bits beyond its prefix, {found.network} has not")


def clients() -> Kind:
    """Addresses and networks of clients; * is every one, and unix those that have no address."""

    def read(value: object) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise ValueError("a list of addresses")
        words = tuple(word for word in map(str.strip, given) if word)
        if not words:
            raise ValueError("a list of at least one address")
        for word in words:
            if word not in ("*", "unix"):
                read_network(word, "* or unix")
        return words

    return Kind("ADDRESSES", read, ",".join)


@dataclass(frozen=True, eq=False, slots=True)
class Frequency:
    """So many in a second, a minute or an hour. Each that is read is one of its own."""

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    @property
    def interval(self) -> float:
        """Seconds from one to the next, on average."""
        return TIME_UNITS[self.unit] / self.count


def frequency() -> Kind:
    """How often something may happen, such as 10/s."""

    def read(value: object) -> Frequency:
        match = (
            re.fullmatch(r"([1-9][0-9]{0,5})\s*/\s*(s|m|h)", value.strip())
            if isinstance(value, str)
            else None
        )
        if match is None:
            raise ValueError("so many in a second, a minute or an hour: 10/s, 100/m, 1000/h")
        return Frequency(int(match[1]), match[2])

    return Kind("RATE", read)


def pages() -> Kind:
    """Statuses of errors and the file that they are answered with: 404,502=FILE."""

    def read(value: object) -> str:
        statuses, _, path = value.partition("=") if isinstance(value, str) else ("", "", "")
        words = [word.strip() for word in statuses.split(",")]
        if not path or "\0" in path or not all(re.fullmatch("[45][0-9][0-9]", word) for word in words):
            raise ValueError("statuses from 400 to 599 and a file, such as 404,502=errors.html")
        return f"{','.join(words)}={path}"

    return Kind("STATUSES=FILE", read)


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


# The content codings there are, and their levels.
CODINGS = {"gzip": (1, 9), "br": (0, 11), "zstd": (1, 19)}


def codings() -> Kind:
    """Content codings, the best first, each perhaps with a level; none of them is off."""

    def read(value: object) -> tuple[str, ...]:
        is_on = switched(value)
        if is_on is not None:
            return ("gzip",) if is_on else ()
        given = value.split(",") if isinstance(value, str) else value
        expected = f"off or a list of {', '.join(CODINGS)}, each once, perhaps with a level as in gzip:6"
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise ValueError(expected)
        words = tuple(one.strip().lower() for one in given)
        names = [word.partition(":")[0] for word in words]
        if len(set(names)) < len(names) or not all(name in CODINGS for name in names):
            raise ValueError(expected)
        for name, word in zip(names, words, strict=True):
            if word != name:
                try:
                    count(*CODINGS[name]).read(word.removeprefix(f"{name}:"))
                except ValueError as error:
                    raise ValueError(f"{expected}; the level of {name} is {error}") from None
        return words

    return Kind("CODINGS", read, lambda value: ",".join(value) or "off")


def media_types() -> Kind:
    """Patterns of media types: text/html, text/*, *+json."""

    def read(value: object) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
            raise ValueError("a list of media types")
        types = tuple(word for word in (one.strip().lower() for one in given) if word)
        for one in types:
            if (
                not re.fullmatch(r"[!-~]{1,127}", one)
                or set(one) & set(',;"')
                or one.count("*") > 1
                or not set(one) & set("/*")
            ):
                raise ValueError(
                    "a list of media types such as text/html, text/* or *+json, separated by commas"
                )
        return types

    return Kind("TYPES", read, ", ".join)


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


def beneath() -> Kind:
    """The path of a file, as it is from a directory that is named elsewhere."""
    one = text("FILE")

    def read(value: object) -> object:
        path = one.read(value)
        if str(path).startswith("/") or ".." in str(path).split("/"):
            raise ValueError("the path of a file as it is in that directory, such as index.html")
        return path

    return Kind(one.metavar, read)


def listed(one: Kind) -> Kind:
    """A tuple of values of a kind, also from one text with commas between them; none is an empty one."""
    metavar = one.metavar

    def read(value: object) -> tuple[object, ...]:
        if value == "none":
            return ()
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)):
            raise ValueError(f"a list such as {metavar},{metavar}")
        return tuple(one.read(part.strip() if isinstance(part, str) else part) for part in values)

    return Kind(f"{metavar}[,...]", read, lambda value: ",".join(value) or "none")


def each(kind: Kind) -> Kind:
    """A tuple of values of a kind, perhaps of none."""

    def read(value: object) -> tuple[object, ...]:
        if value == "none":
            return ()
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)):
            raise ValueError(f"a list of {kind.metavar.lower()}")
        return tuple(kind.read(one) for one in values)

    return Kind(kind.metavar, read, lambda value: shlex.join(map(kind.show, value)) or "none")


def optional(kind: Kind) -> Kind:
    """A kind whose default is None: off, or not given."""
    return Kind(kind.metavar, lambda value: None if value is None else kind.read(value), kind.show)


# Field names that mean something to the server itself.
OWN_FIELDS = {
    *("connection", "content-length", "content-type", "date", "keep-alive", "te", "trailer", "upgrade"),
    *("transfer-encoding", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
}

# What a redirect may have from its request, each with a $ before it.
VARIABLES = ("uri", "path", "query", "rest", "host", "scheme")
REDIRECTS = (301, 302, 303, 307, 308)


def template() -> Kind:
    """The target of a redirect."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.match(r"(https?|\$scheme)://[^/]|/", value):
            raise ValueError("an address such as https://example.com$uri or /new$rest")
        if not re.fullmatch(r"[!-~]*", value) or set(value) & set('<>"\\^`{|}'):
            raise ValueError("an address with nothing in it that has to be percent-encoded")
        for name in re.findall(r"\$(\w*)", value):
            if name not in VARIABLES:
                known = ", ".join(f"${one}" for one in VARIABLES)
                raise ValueError(f"an address: what is ${name}? There are {known}")
        return value

    return Kind("ADDRESS", read)


def redirect_status() -> Kind:
    """The status of a redirect."""

    def read(value: object) -> int:
        if str(value) not in map(str, REDIRECTS):
            raise ValueError(f"one of {', '.join(map(str, REDIRECTS))}")
        return int(str(value))

    return Kind("STATUS", read)


def fixed() -> Kind:
    """A status, perhaps with a text."""

    def read(value: object) -> str:
        found = re.fullmatch(r"([2-5][0-9][0-9])(?: +(.*))?", str(value), re.DOTALL)
        if found is None or isinstance(value, bool):
            raise ValueError("a status from 200 to 599, perhaps with a text behind it")
        return f"{found[1]} {found[2] or ''}".rstrip()

    return Kind("STATUS", read)


def authority() -> Kind:
    """A host, perhaps with a port."""

    def read(value: object) -> str:
        found = re.fullmatch(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", str(value).lower())
        if found is None:
            raise ValueError("a host such as example.com")
        return found[0]

    return Kind("HOST", read)


def rewriting() -> Kind:
    """A regular expression, what takes its place, and perhaps the status of a redirect."""

    def read(value: object) -> str:
        words = value.split() if isinstance(value, str) else []
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in map(str, REDIRECTS)):
            raise ValueError(
                "a regular expression, what takes its place, and perhaps 301, 302, 303, 307 or 308, "
                "with spaces between them"
            )
        try:
            groups = re.compile(words[0]).groups
        except re.error as error:
            raise ValueError(f"a regular expression: {error}") from None
        if any(int(number) > groups for number in re.findall(r"\$([0-9])", words[1])):
            raise ValueError(f"an expression with so many groups: it has {groups}")
        if not re.match(r"/|\$" if len(words) == 2 else r"/|\$|https?://", words[1]):
            raise ValueError("followed by a path, which begins with /")
        return " ".join(words)

    return Kind("'REGEX PATH'", read)


def field_line() -> Kind:
    """A response field."""

    def read(value: object) -> str:
        found = re.fullmatch(
            r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *((?:[\t -~\xa0-\xff]*[!-~\xa0-\xff])?)", str(value)
        )
        if found is None:
            raise ValueError("a field such as 'X-Robots-Tag: noindex'")
        if found[1].lower() in OWN_FIELDS:
            raise ValueError(f"a field that can be added: {found[1]} is the server's")
        return f"{found[1]}: {found[2]}"

    return Kind("'NAME: VALUE'", read)
