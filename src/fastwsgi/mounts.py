"""Routes: which hosts and paths have what of their own, from settings to what the core's router takes.

A route is a line of text, `HOST/PATH key=value key=value`, or a table with the same keys. Each key is
declared once, in `KEYS`.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from fastwsgi.errors import ConfigError, did_you_mean
from fastwsgi.kinds import (
    Kind,
    authority,
    beneath,
    clients,
    count,
    expiry,
    field_line,
    fixed,
    frequency,
    listed,
    pages,
    printable,
    redirect_status,
    rewriting,
    size,
    switch,
    template,
    text,
    word_or,
)

if TYPE_CHECKING:
    from fastwsgi.config import Settings

# What the routes of a host have, by path.
Site: TypeAlias = Mapping[str, Mapping[str, Any]]

# What stands for the application where there is none: routes have all that is served.
NO_APPLICATION = ""

# Where the authorities of the web's certificates look for what they have asked for (RFC 8555, 8.3).
ACME_PATH = "/.well-known/acme-challenge"

# Of all hosts together: what is made of them is in the memory of each worker.
ROUTES_MOST = 100_000

# What browsers are asked to be careful about, and what breaks hardly any site.
SECURITY_FIELDS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """One of the keys of a route: how its value is read, and what it does."""

    name: str
    kind: Kind
    help: str
    is_action: bool = False  # it says what answers; a route has at most one of these
    is_repeatable: bool = False
    adds_up: bool = False  # what is inherited comes behind what a route has itself; it is repeatable

    def read(self, value: object) -> object:
        """Return the checked value; raise ConfigError if it is none."""
        try:
            if not self.is_repeatable:
                return self.kind.read(value)
            values = value if isinstance(value, (tuple, list)) else (value,)
            return tuple(self.kind.read(one) for one in values)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{self.name}: {value!r} is not {error}") from None

    def words(self, value: Any) -> Iterator[str]:
        """It, as words of a line."""
        for one in value if self.is_repeatable else (value,):
            yield f"{self.name}={self.kind.show(one)}"


KEYS = {
    key.name: key
    for key in (
        Key(
            "app",
            text("MODULE:NAME"),
            "this application; SCRIPT_NAME is the path of the route, PATH_INFO what follows",
            is_action=True,
        ),
        Key("static", text("DIRECTORY"), "files of this directory", is_action=True),
        Key(
            "index",
            listed(beneath()),
            "the file that stands for a directory, index.html; of several, separated by commas, the first "
            "that is there; none: no file does",
        ),
        Key(
            "fallback",
            word_or("app", beneath()),
            "what answers for paths that are no file: a file, such as index.html, or app, the application "
            "that would answer here without static",
        ),
        Key(
            "expires",
            expiry(),
            "for how long browsers may keep files: a time; 0: they ask each time; immutable: for ever; off: "
            "nothing is said; auto: for ever if the name has a hash of the content, else an hour",
        ),
        Key("internal", switch(), "files only for X-Accel-Redirect of the application; 404 for clients"),
        Key(
            "redirect",
            template(),
            "another address; $uri is path and query as they came, $path and $query are each of them, $rest "
            "is the path behind that of the route, $host and $scheme are what the client has asked for",
            is_action=True,
        ),
        Key(
            "status", redirect_status(), "of redirect: 301, 302 (this one if none is given), 303, 307 or 308"
        ),
        Key(
            "respond",
            fixed(),
            "this status, perhaps with a text, such as '410 It has moved.'",
            is_action=True,
        ),
        Key(
            "canonical-host",
            authority(),
            "requests for any other host are redirected to this one with 308, whatever they ask for",
        ),
        Key(
            "rewrite",
            rewriting(),
            "where the path matches this regular expression, the application gets that path instead, with "
            "groups as $1; with a status such as 301 as a third word, the client is redirected there",
        ),
        Key(
            "header",
            field_line(),
            "a field for every response that has none of this name yet, such as 'X-Robots-Tag: noindex'; "
            "without a value, an inherited one is not sent; may be given several times",
            is_repeatable=True,
            adds_up=True,
        ),
        Key(
            "security-headers",
            switch(),
            "; ".join(f"{name}: {value}" for name, value in SECURITY_FIELDS),
        ),
        Key(
            "allow",
            clients(),
            "addresses and networks that are let in, others get 403; *: everyone, unix: who has no address",
        ),
        Key(
            "deny",
            clients(),
            "addresses and networks that get 403; of allow and deny the first one is looked at first",
        ),
        Key(
            "rate", word_or("none", frequency()), "requests of a client, such as 10/s or 100/m; more get 429"
        ),
        Key(
            "burst",
            count(0, 1_000_000),
            "so many of them may be ahead of that rate; without it one less than the rate says",
        ),
        Key("auth", word_or("none", text("FILE")), "who is not in this password file gets 401 (HTTP basic)"),
        Key("realm", printable("TEXT"), "what browsers say that the password is for"),
        Key(
            "limit-request-body",
            size(1 << 50),
            "as the option of that name, for this route; larger than that one, too; 0 is no limit",
        ),
        Key(
            "error-page",
            pages(),
            "404,502=FILE: what the server answers with these statuses has the content of a file",
            is_repeatable=True,
            adds_up=True,
        ),
        Key(
            "maintenance",
            word_or("none", text("FILE")),
            "while this file is there, every request gets 503 with its content",
        ),
        Key("maintenance-allow", clients(), "who is let in meanwhile"),
    )
}


# What these keys do nothing without. Others may be for files that the application will announce.
NEEDS = {
    "internal": "static",
    "status": "redirect",
    "burst": "rate",
    "realm": "auth",
    "maintenance-allow": "maintenance",
}


@dataclass(frozen=True, slots=True)
class Given:
    """A route as it was given: its own keys, with nothing inherited."""

    hosts: tuple[str, ...]  # "" is any
    path: str
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{','.join(self.hosts)}{self.path}"

    def __str__(self) -> str:
        words = [word for name, value in self.values.items() for word in KEYS[name].words(value)]
        return shlex.join([self.place, *words])


@dataclass(frozen=True, slots=True)
class Answer:
    """What the loop answers without looking for anything."""

    status: int
    content: str
    location: tuple[tuple[str, str], ...] = ()  # as `pieces` has it
    other_status: int = 0  # for methods other than GET and HEAD, if they have another one

    @property
    def status_line(self) -> str:
        return status_line(self.status)


def status_line(status: int) -> str:
    from http import HTTPStatus  # for servers that have such a route

    known = HTTPStatus._value2member_map_.get(status)
    return f"{status} {known.phrase if isinstance(known, HTTPStatus) else 'Status'}"


NOTHING = Answer(404, "nothing is served at this address\n")


@dataclass(frozen=True, slots=True)
class Route:
    """What the core takes: a host, a path, and all that holds for them, inherited keys too."""

    host: str  # "" is any, "*.example.com" every host that ends so
    path: str  # without a slash at its end, unless it is "/"
    action: str  # "app", "static", or "answer"
    action_path: str  # of the route that has that key
    application: int  # of Plan.applications; -1 is none
    application_path: str  # where it is mounted
    values: Mapping[str, Any]
    answer: Answer | None  # with the action of that name
    fields: tuple[tuple[str, str], ...]  # of its responses, each name once


@dataclass(frozen=True, slots=True)
class Plan:
    """All routes, and the applications that they have."""

    routes: list[Route]
    applications: list[tuple[int, str | None]]  # 0 or a number of `targets`, and its rewriting

    def number_of(self, application: int, rewriting: str | None) -> int:
        """Where it is in `applications`; it is added if it is not there."""
        if (application, rewriting) not in self.applications:
            self.applications.append((application, rewriting))
        return self.applications.index((application, rewriting))


# ---- reading ----


def parse(value: object) -> Given:
    """Read a route from its line, or from a table; raise ConfigError for what is wrong in it."""
    if isinstance(value, Mapping):
        keys = dict(value)
        host, path = keys.pop("host", ""), keys.pop("path", "/")
        hosts = host.split(",") if isinstance(host, str) else host
        if not isinstance(hosts, (tuple, list)) or not all(isinstance(one, str) for one in hosts):
            raise ConfigError(f"host: {host!r} is not a host or a list of hosts")
        if not isinstance(path, str):
            raise ConfigError(f"path: {path!r} is not a path such as /admin")
        return checked(hosts, path, keys.items())
    if isinstance(value, str):
        return parse_line(value)
    raise ConfigError(f"{value!r} is not a route such as 'example.com/admin allow=10.0.0.0/8'")


# Settings are made of settings several times on the way to a worker.
@lru_cache(maxsize=10_000)
def parse_line(value: str) -> Given:
    try:
        place, *words = shlex.split(value) or [""]
    except ValueError as error:
        raise ConfigError(f"{value!r}: {error}") from None
    host, slash, rest = place.partition("/")
    if not slash and ("=" in place or not place):
        raise ConfigError(f"{value!r} does not begin with HOST/PATH, such as example.com/admin or /admin")
    pairs = []
    for word in words:
        name, equals, one = word.partition("=")
        if not equals:
            raise ConfigError(f"{place}: what is {word!r}? A key has a value: {name}=...")
        pairs.append((name, one))
    return checked(host.split(","), f"/{rest}", pairs)


def checked(hosts: Iterable[str], path: str, pairs: Iterable[tuple[str, object]]) -> Given:
    hosts, path = tuple(map(read_host, hosts)), read_path(path)
    given = Given(hosts, path, {})
    values: dict[str, Any] = {}
    for name, value in pairs:
        name = name.replace("_", "-")
        key = KEYS.get(name)
        if key is None:
            raise ConfigError(
                f"{given.place}: unknown key {name}{did_you_mean(name, (*KEYS, 'host', 'path'))}"
            )
        try:
            read = key.read(value)
        except ConfigError as error:
            raise ConfigError(f"{given.place}: {error}") from None
        if name in values and not key.is_repeatable:
            raise ConfigError(f"{given.place}: {name} is there twice")
        values[name] = values.get(name, ()) + read if isinstance(read, tuple) and key.is_repeatable else read
    check_actions(given.place, values)
    return Given(hosts, path, values)


def check_actions(place: str, values: Mapping[str, Any]) -> None:
    actions = [name for name in values if KEYS[name].is_action]
    if len(actions) > 1:
        raise ConfigError(f"{place}: {' and '.join(actions)} cannot both answer; give one of them")


def read_host(host: str) -> str:
    """A host as the core has it; raise ConfigError if it is none."""
    try:
        name = host.strip().lower().encode("idna" if not host.isascii() else "ascii").decode()
    except UnicodeError:
        name = "?"
    name = name.removesuffix(".")
    if name in ("http:", "https:"):
        raise ConfigError(
            f"{host!r} is not a host: routes are by host and path, whatever the scheme; leave it out"
        )
    if re.search(r"[^]]:[0-9]*$", name) and not re.fullmatch(r"\[[0-9a-f:.]+\]", name):
        raise ConfigError(f"{host!r} has a port: routes are by host alone; leave it out")
    if name and not re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", name):
        raise ConfigError(f"{host!r} is not a host such as example.com or *.example.com (nothing: any host)")
    return name


def read_path(path: str) -> str:
    """A path as the core has it; raise ConfigError if it is none."""
    plain = unquote(path)
    segments = plain.removesuffix("/").split("/")[1:]
    if not plain.startswith("/") or any(segment in ("", ".", "..") for segment in segments):
        raise ConfigError(
            f"{path!r} is not a path such as /admin: it begins with /, and has no //, /. and /.."
        )
    if len(segments) > 60 or set(plain) & set("*?#\0"):
        raise ConfigError(f"{path!r} is not the beginning of a path, such as /admin (no * and no ?)")
    return plain if plain == "/" else plain.removesuffix("/")


def routes() -> Kind:
    """A tuple of routes, each as a line of text; none is an empty one."""

    def read(value: object) -> tuple[str, ...]:
        if value == "none":
            return ()
        values = (value,) if isinstance(value, (str, Mapping)) else value
        if not isinstance(values, (tuple, list)):
            raise ValueError("a list of routes")
        return tuple(str(parse(one)) for one in values)

    return Kind("'HOST/PATH KEY=VALUE...'", read, lambda value: shlex.join(value) or "none")


def places(key: str, metavar: str) -> Kind:
    """A tuple of PATH=VALUE, each short for a route with this one key; a mapping is one, too; so is none."""

    def read(value: object) -> tuple[str, ...]:
        if value == "none":
            return ()
        if isinstance(value, Mapping):
            value = [f"{place}={one}" for place, one in value.items()]
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, (tuple, list)) or not all(isinstance(one, str) for one in values):
            raise ValueError(f"a list of PATH={metavar}")
        for one in values:
            in_place(key, one)
        return tuple(values)

    return Kind(f"PATH={metavar}", read, lambda value: shlex.join(value) or "none")


def in_place(key: str, value: str) -> Given:
    """The route that PATH=VALUE is short for; the path may have hosts before it."""
    place, equals, one = value.partition("=")
    if not equals or "/" not in place:
        raise ConfigError(f"{value!r} is not PATH={KEYS[key].kind.metavar}, such as /{key}=...")
    hosts, _, path = place.partition("/")
    return checked(hosts.split(","), f"/{path}", [(key, one)])


# ---- files ----

# By path: the keys of routes that the application has asked for while it was imported.
announced: dict[str, dict[str, Any]] = {}


def announce(path: str, roots: Iterable[tuple[str, str]], expires: str | float) -> None:
    """Serve files at a path, unless settings say what answers there; by the application, before `plan`."""
    announced[read_path(path)] = {"static": tuple(roots), "expires": expires}


def static_roots(route: Route) -> list[tuple[str, str]]:
    """The directories of a route, each with the beginning of the paths that it is for, "" for all."""
    given = route.values["static"]
    roots = [(given, "")] if isinstance(given, str) else given
    return [(os.path.abspath(directory), prefix) for directory, prefix in roots]


def missing_directories(settings: "Settings", routes: Iterable[Route]) -> list[str]:
    """What to say of directories that are not there (yet): nothing can be served from them."""
    named = [(directory, "--sendfile-root") for directory, _ in sendfile_roots(settings.sendfile_root)]
    for route in routes:
        if "static" in route.values:
            place = "--acme-dir" if route.path == ACME_PATH else f"route {route.host}{route.action_path}"
            named += [(directory, place) for directory, _ in static_roots(route)]
    # Routes that inherit the directory come behind the one that has it, and name it.
    found = {directory: place for directory, place in reversed(named) if not os.path.isdir(directory)}
    return [
        f"{place}: {directory} is no directory: until it is one, what is served from there is not found"
        for directory, place in reversed(found.items())
    ]


def static_settings(route: Route) -> dict[str, Any]:
    """How the files of a route are served, as the core takes it."""
    values = route.values
    fallback = values.get("fallback")
    # What an application keeps to itself is not for caches, unless somebody says so.
    expires = values.get("expires", "off" if values.get("internal") else "auto")
    return {
        "indexes": values.get("index", ("index.html",)),
        "fallback": None if fallback == "app" else fallback,
        "falls_to_application": fallback == "app",
        "expires": EXPIRY.get(expires) or f"max-age={expires:.0f}",
    }


EXPIRY = {
    "auto": "auto",
    "off": "off",
    "immutable": "max-age=31536000, immutable",
    0.0: "no-cache",
}


def sendfile_roots(directories: Iterable[str]) -> list[tuple[str, str]]:
    """Directories that X-Sendfile may name files of, for whole paths without their first slash."""
    return [(path, path.removeprefix("/")) for path in map(os.path.abspath, directories)]


# ---- what holds where ----


def pieces(target: str) -> tuple[tuple[str, str], ...]:
    """The target of a redirect, as the core has it: names of variables, and "" with text."""
    found = re.split(r"\$(\w+)", target)
    return tuple((part, "") if number % 2 else ("", part) for number, part in enumerate(found) if part)


def given_in(
    route: Iterable[str], static: Iterable[str], mount: Iterable[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """The keys of each host and path, from settings; raise ConfigError where two contradict each other."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (
        *map(parse, route),
        *(in_place("static", one) for one in static),
        *(in_place("app", one) for one in mount),
    ):
        for host in one.hosts:
            values = found.setdefault((host, one.path), {})
            for name, value in one.values.items():
                if KEYS[name].is_repeatable:
                    value = (*values.get(name, ()), *value)
                elif name in values:
                    raise ConfigError(f"route {host}{one.path}: {name} is there twice; give one of them")
                values[name] = value
            check_actions(f"route {host}{one.path}", values)
    return found


def given(settings: "Settings") -> dict[tuple[str, str], dict[str, Any]]:
    found = given_in(settings.route, settings.static, settings.mount)
    if settings.header:
        values = found.setdefault(("", "/"), {})
        values["header"] = (*values.get("header", ()), *settings.header)
    return found


def plans(settings: "Settings", has_application: bool, port: int) -> tuple[Plan, Plan]:
    """The plans for requests that come over TLS, and for others; one and the same if they do not differ.

    port: of TLS, for redirects.
    """
    secure = plan(settings, has_application)
    if settings.hsts:
        field = f"Strict-Transport-Security: max-age={settings.hsts:.0f}"
        secure = plan(replace(settings, header=(*settings.header, field)), has_application)
    if settings.tls_redirect != "off":
        given_port = settings.tls_redirect
        return secure, redirection(port if given_port == "on" else int(given_port), settings.acme_dir)
    return secure, plan(settings, has_application) if settings.hsts else secure


def redirection(port: int, acme_dir: str | None) -> Plan:
    """Everything leads to the same place over TLS, but for challenges: who asks these may not know TLS yet.

    With GET it is a 301, which every client knows.
    """
    authority = "$host" if port == 443 else f"$host:{port}"
    answer = Answer(301, "", pieces(f"https://{authority}$uri"), other_status=308)
    routes = [Route("", "/", "answer", "/", -1, "/", {}, answer, ())]
    return Plan([*routes, *([] if acme_dir is None else [acme_route("", acme_dir)])], [])


def targets(settings: "Settings") -> dict[str, str]:
    """The applications of routes, as `module:name`, each with the place of a route that has it."""
    found: dict[str, str] = {}
    for (host, path), values in given(settings).items():
        if "app" in values:
            found.setdefault(values["app"], f"{host}{path}")
    return found


def has_root(found: Mapping[tuple[str, str], Mapping[str, Any]]) -> bool:
    """Routes say themselves what answers where no other one does."""
    return action_of(found.get(("", "/"), {})) is not None


def action_of(values: Mapping[str, Any]) -> str | None:
    return next((name for name in values if KEYS[name].is_action), None)


def plan(settings: "Settings", has_application: bool = True) -> Plan:
    """Every route with what it inherits, for each host "/" among them; no routes if none was given.

    A route inherits from those with a shorter path, and for the same path from those of less exact hosts. A
    host whose "/" says what answers takes nothing but the keys of "/" from other hosts.
    """
    made = Plan([], [(0, None)])
    sites: dict[str, dict[str, dict[str, Any]]] = {}
    for (host, path), values in given(settings).items():
        sites.setdefault(host, {})[path] = values
    for path, values in announced.items():
        here = sites.setdefault("", {}).setdefault(path, {})
        if action_of(here) is None:
            sites[""][path] = {**values, **here}
    numbers = {target: number for number, target in enumerate(targets(settings), 1)}
    # Canonical hosts need routes of their own: those of all others lead there.
    for site in list(sites.values()):
        for values in site.values():
            if "canonical-host" in values:
                sites.setdefault(host_of(values["canonical-host"]), {})
    if sites or settings.acme_dir is not None:
        sites.setdefault("", {})
    wide = sorted((host for host in sites if host.startswith("*")), key=len, reverse=True)
    for host in sites:
        own: list[Site] = []
        other: list[Site] = []
        for one in levels(host, wide):
            # Behind a "/" that answers are other sites.
            (other if any(map(answers_all, own)) else own).append(sites[one])
        paths = dict.fromkeys(["/", *(path for site in own for path in site)])
        if settings.acme_dir is not None:
            paths.pop(ACME_PATH, None)
            made.routes.append(acme_route(host, settings.acme_dir))
        if len(made.routes) + len(paths) > ROUTES_MOST:
            raise ConfigError(
                f"there are more than {ROUTES_MOST} routes: those of any host count again for each host that "
                "has routes, unless its / says what answers"
            )
        for path in paths:
            made.routes.append(route_of(host, path, own, other, numbers, made, has_application))
    check_needs(sites, made.routes)
    return made


def check_needs(sites: Mapping[str, Site], routes: Iterable[Route]) -> None:
    """Raise ConfigError for a key that does nothing, as no route that it is for has the one that it needs."""
    for host, site in sites.items():
        for path, values in site.items():
            for name in values.keys() & NEEDS.keys():
                need = NEEDS[name]
                if need in values or not values[name]:
                    continue
                beneath_it = path if path == "/" else f"{path}/"
                if not any(
                    need in route.values
                    and f"{route.path}/".startswith(beneath_it)
                    and (route.host == host or not host or host.startswith("*"))
                    for route in routes
                ):
                    raise ConfigError(
                        f"route {host}{path}: {name} does nothing without {need}: give that, too"
                    )


def acme_route(host: str, directory: str) -> Route:
    """Challenges for a certificate of a host: neither guarded nor redirected, whatever else the host has."""
    return Route(host, ACME_PATH, "static", ACME_PATH, -1, "/", {"static": directory}, None, ())


def levels(host: str, wide: list[str]) -> list[str]:
    """The host and the less exact ones that stand for it, the nearest first; wide: those with a star."""
    name = host.removeprefix("*")
    wider = [one for one in wide if name.endswith(one[1:]) and one != host]
    return [*([host] if host else []), *(wider if host else []), ""]


def answers_all(site: Site) -> bool:
    return action_of(site.get("/", {})) is not None


def route_of(
    host: str,
    path: str,
    own: Iterable[Site],
    other: Iterable[Site],
    numbers: Mapping[str, int],
    made: Plan,
    has_application: bool,
) -> Route:
    """The route of a host and a path; own: the routes it inherits all from, other: only the keys of "/"."""
    values: dict[str, Any] = {}
    action, action_path = "app" if has_application else "none", "/"
    application, application_path = 0 if has_application else -1, "/"
    has_action = False
    for prefix, site in ((prefix, site) for prefix in prefixes(path) for site in own):
        here = site.get(prefix, {})
        its_action = action_of(here)
        if its_action is not None and not has_action:
            action, action_path, has_action = its_action, prefix, True
        if "app" in here and "app" not in values:
            application, application_path = numbers[here["app"]], prefix
        inherit(values, here)
    for site in other:
        inherit(
            values, {name: value for name, value in site.get("/", {}).items() if not KEYS[name].is_action}
        )
    if action == "static" and values.get("fallback") == "app" and application < 0:
        raise ConfigError(
            f"route {host}{path}: fallback=app, and there is no application: name one, or another fallback"
        )
    if host_of(values.get("canonical-host", host)) != host:
        action = "canonical-host"
    if application >= 0:
        application = made.number_of(application, values.get("rewrite"))
    answer = answer_of(action, values)
    if answer is not None:
        action = "answer"
    fields = fields_of(values)
    return Route(host, path, action, action_path, application, application_path, values, answer, fields)


def inherit(values: dict[str, Any], outer: Mapping[str, Any]) -> None:
    """Take what is not there yet, and of what adds up, the rest."""
    for name, value in outer.items():
        if name not in values:
            values[name] = value
        elif KEYS[name].adds_up:
            values[name] = (*values[name], *value)


def answer_of(action: str, values: Mapping[str, Any]) -> Answer | None:
    """What the loop answers by itself, if an action is one for that."""
    if action == "canonical-host":
        return Answer(308, "", pieces(f"$scheme://{values[action]}$uri"))
    if action == "redirect":
        return Answer(values.get("status", 302), "", pieces(values[action]))
    if action == "respond":
        status, _, content = values[action].partition(" ")
        answer = Answer(int(status), f"{content}\n")
        if answer.status in (204, 205, 304):
            return replace(answer, content="")
        return answer if content else replace(answer, content=f"{answer.status_line}\n")
    return NOTHING if action == "none" else None


def fields_of(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The response fields of a route: for each name the nearest, and those that are empty left out."""
    found: dict[str, tuple[str, str]] = {}
    given = (tuple(one.split(": ", 1)) for one in values.get("header", ()))
    for name, value in (*given, *(SECURITY_FIELDS if values.get("security-headers") else ())):
        found.setdefault(name.lower(), (name, value))
    return tuple((name, value) for name, value in found.values() if value)


def host_of(authority: str) -> str:
    """It without its port."""
    return re.sub(":[0-9]+$", "", authority).removesuffix(".")


def prefixes(path: str) -> Iterator[str]:
    """The path, and those that it is beneath: the longest first, "/" last."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
    yield "/"
