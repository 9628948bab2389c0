"""What stands before routes, from their keys: files are read, and what all workers share is made."""

import mimetypes
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastwsgi._guard import Guard
from fastwsgi._rates import Rate, Rates
from fastwsgi.errors import ConfigError
from fastwsgi.kinds import Frequency
from fastwsgi.logs import LOG
from fastwsgi.mounts import Route, prefixes
from fastwsgi.passwords import Doorkeeper, signature

# What a page may have at most: it is kept in memory, and in one piece.
PAGE_MOST = 1 << 20
# Between two looks whether the file of a maintenance is there.
PAUSE = 0.5
REALM = "restricted"

# The keys that make a guard.
GUARDING = (
    "allow",
    "deny",
    "rate",
    "burst",
    "auth",
    "realm",
    "limit-request-body",
    "error-page",
    "maintenance",
    "maintenance-allow",
)

# By name alone, and the same on every machine: no file of the system is read.
TYPES = mimetypes.MimeTypes(filenames=())


class Guards:
    """What stands before each route of a plan, in its order; made before the workers are forked."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Read the files that routes name; raise ConfigError for one that cannot be used."""
        self._rates: Rates | None = None
        self._limits: dict[tuple[int, int], Rate] = {}
        self._doorkeepers: dict[str, Doorkeeper] = {}
        self._pages: dict[str, tuple[bytes, bytes]] = {}
        self._closable: dict[str, Closable] = {}
        self._looks_at = 0.0
        made: dict[tuple[tuple[str, int], ...], Guard] = {}
        found: list[Guard | None] = []
        self._of_places: dict[tuple[str, str], Guard | None] = {}
        for route in routes:
            # Routes that have all from the same lines share a guard, and with it what clients may have.
            key = tuple((name, id(route.values[name])) for name in route.values if name in GUARDING)
            if key and key not in made:
                try:
                    made[key] = self._guard(route.values)
                except ConfigError as error:
                    raise ConfigError(f"route {route.host}{route.path}: {error}") from None
            found.append(made.get(key))
            self._of_places[route.host, route.path] = made.get(key)
        self.of_routes: Sequence[Guard | None] = tuple(found)
        self.look()

    def of(self, routes: Iterable[Route]) -> Sequence[Guard | None]:
        """Those of a plan that may have more routes by now (mounts.announce), which have what is around."""
        return tuple(map(self._around, routes))

    def _around(self, route: Route) -> Guard | None:
        places = ((route.host, path) for path in prefixes(route.path))
        return next((self._of_places[place] for place in places if place in self._of_places), None)

    def _guard(self, values: Mapping[str, Any]) -> Guard:
        order = [name for name in values if name in ("allow", "deny")]
        auth, closed = values.get("auth", "none"), values.get("maintenance", "none")
        guard = Guard(
            allow=values.get("allow"),
            deny=values.get("deny"),
            denies_first=order[:1] == ["deny"],
            rate=self._rate(values),
            doorkeeper=None if auth == "none" else self._doorkeeper(auth),
            challenge=challenge(values.get("realm", REALM)) if auth != "none" else b"",
            content_most=values.get("limit-request-body"),
            pages=[page for given in values.get("error-page", ()) for page in self._pages_of(given)],
            maintenance=None if closed == "none" else values.get("maintenance-allow", ()),
        )
        if closed != "none":
            path = os.path.abspath(closed)
            self._closable.setdefault(path, Closable(path)).guards.append(guard)
        return guard

    def _table(self) -> Rates:
        if self._rates is None:
            self._rates = Rates()
        return self._rates

    def _rate(self, values: Mapping[str, Any]) -> Rate | None:
        given = values.get("rate")
        if not isinstance(given, Frequency):
            return None
        burst = values.get("burst", given.count - 1)
        key = (id(given), burst)
        if key not in self._limits:
            try:
                self._limits[key] = Rate(self._table(), given.interval, burst)
            except ValueError:
                raise ConfigError(f"burst: {burst} of {given} are more than a day") from None
        return self._limits[key]

    def _doorkeeper(self, path: str) -> Doorkeeper:
        path = os.path.abspath(path)
        if path not in self._doorkeepers:
            self._doorkeepers[path] = Doorkeeper(path, self._table())
        return self._doorkeepers[path]

    def _pages_of(self, given: str) -> list[tuple[int, bytes, bytes]]:
        statuses, _, path = given.partition("=")
        if path not in self._pages:
            try:
                self._pages[path] = read_page(path)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise ConfigError(f"error-page: {path} cannot be read: {why}") from None
        return [(int(status), *self._pages[path]) for status in statuses.split(",")]

    @property
    def pause(self) -> float | None:
        """So often somebody has to look, in seconds; None: never."""
        return PAUSE if self._closable else None

    def look(self) -> None:
        """Close and open routes as the files of their maintenance say; not more often than is of use."""
        if self._closable and time.monotonic() >= self._looks_at:
            self._looks_at = time.monotonic() + PAUSE / 2
            for one in self._closable.values():
                one.look()


class Closable:
    """Routes that are closed while a file is there."""

    def __init__(self, path: str) -> None:
        self.guards: list[Guard] = []
        self._path = path
        self._seen: tuple[int, ...] = ()

    def look(self) -> None:
        seen = signature(self._path)
        if seen == self._seen:
            return
        was_open = not self._seen
        self._seen = seen
        if not seen:
            for guard in self.guards:
                guard.open()
            LOG.info("maintenance: %s is gone, its routes are served again", self._path)
            return
        page = None
        try:
            page = read_page(self._path)
        except (OSError, ValueError) as error:
            LOG.warning("maintenance: %s cannot be sent, clients get a text instead: %s", self._path, error)
        for guard in self.guards:
            guard.close(page if page is not None and page[1] else None)
        if was_open:
            LOG.info("maintenance: %s is there, its routes answer 503", self._path)


def challenge(realm: str) -> bytes:
    """What WWW-Authenticate says (RFC 7617)."""
    escaped = realm.replace("\\", "\\\\").replace('"', '\\"')
    return f'Basic realm="{escaped}", charset="UTF-8"'.encode()


def read_page(path: str) -> tuple[bytes, bytes]:
    """Type and content of a file; OSError, or ValueError if it is none to send. It never waits."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        content = file.read(PAGE_MOST + 1)
    if len(content) > PAGE_MOST:
        raise ValueError("larger than 1 MiB")
    kind = TYPES.guess_type(path)[0] or "text/plain"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return kind.encode(), content
