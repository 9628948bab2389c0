"""What will hurt by what the configuration says: addresses, trust, ends, files that are served."""

import ipaddress
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from fastwsgi import resources
from fastwsgi.errors import ConfigError
from fastwsgi.findings import Checks, Found, Said, error, hint, warning
from fastwsgi.listener import parse_address
from fastwsgi.privileges import Identity
from fastwsgi.scene import BALANCER_IDLE, Scene, is_local
from fastwsgi.sources import GUNICORN_COMMAND_LINE

# From TERM to KILL: of Kubernetes, Docker and systemd, unless told otherwise; and what an end takes beside
# --shutdown-delay and --graceful-timeout: exit handlers, and what does not end.
KUBERNETES_GRACE = 30.0
DOCKER_GRACE = 10.0
SYSTEMD_GRACE = 90.0
END = 7.0

# What only a developer wants, and what it does to others.
DEVELOPMENT = {
    "reload": "workers are replaced when a file changes",
    "lint": "each request is checked, which takes time",
    "tracebacks": "exceptions are shown in the browser",
    "leak_report": "requests are sampled, which takes a hundredth of the time",
}

# Names in a directory that is not meant for everybody.
PRIVATE_NAMES = {".env", ".git", ".hg", ".svn", ".htpasswd", "id_rsa", "id_ed25519", "fastwsgi.toml"}
PRIVATE_ENDINGS = (".sqlite3", ".sqlite", ".db")
# What may be private: by what is at its begin.
KEY_ENDINGS = (".key", ".pem")
KEY_MARK, KEY_WITHIN = b"PRIVATE KEY-----", 64 << 10
SOURCE_ENDINGS = (".py", ".pyc")
# Entries of a directory that are looked at.
ENTRIES_MOST = 1000

CHECKS: Checks[Scene] = Checks()


# ---- the configuration as a whole ----


@CHECKS.add("configuration")
def configuration(scene: Scene) -> Found:
    """What a start would refuse."""
    from fastwsgi import compression
    from fastwsgi._accesslog import LogFormat
    from fastwsgi.guards import Guards

    settings = scene.settings
    attempts: list[Callable[[], object]] = [partial(parse_address, text) for text in settings.bind]
    attempts += [
        lambda: Identity.find(settings.user, settings.group),
        lambda: LogFormat(settings.access_logformat, is_json=settings.log_format == "json"),
        lambda: compression.makers(settings.compress),
        lambda: Guards(scene.plan.routes),
        lambda: settings.metrics and parse_address(settings.metrics),
    ]
    for attempt in attempts:
        try:
            attempt()
        except ValueError as problem:  # or a ConfigError
            yield error(
                str(problem), "correct this setting; fastwsgi --print-config shows where each is from"
            )


@CHECKS.add("settings-ignored")
def ignored(scene: Scene) -> Found:
    for notice in scene.notices:
        if not notice.startswith(f"{GUNICORN_COMMAND_LINE} is heeded"):
            yield warning(notice, "take it out, so that nobody counts on it; or do what the line says")


@CHECKS.add("development-options")
def development(scene: Scene) -> Found:
    for name, effect in DEVELOPMENT.items():
        if getattr(scene.settings, name):
            flag = name.replace("_", "-")
            yield warning(f"--{flag} is on: {effect}", f"--no-{flag} where others are served")
    if scene.settings.log_level == "debug":
        yield hint("--log-level debug: the log has lines for what is no news", "--log-level info")
    if scene.settings.poller == "poll" and sys.platform == "linux":
        yield hint("--poller poll is for diagnosis: it takes longer with each connection", "--poller auto")


@CHECKS.add("deadlines-off")
def deadlines(scene: Scene) -> Found:
    if not scene.settings.timeout:
        yield warning(
            "--timeout 0: a request that hangs keeps its thread for ever", "--timeout 30s, or what pages take"
        )
    if not scene.settings.worker_timeout and scene.settings.workers:
        yield warning("--worker-timeout 0: a worker that hangs is never replaced", "--worker-timeout 60s")
    if not scene.settings.limit_request_body:
        yield hint(
            "--limit-request-body 0: one upload may fill the disk",
            "--limit-request-body 100m, or what you need",
        )


# ---- who may reach it, and who is believed ----


def is_everyone(word: str) -> bool:
    return word == "*" or (word not in ("unix", "none") and ipaddress.ip_network(word).prefixlen == 0)


@CHECKS.add("trusts-everyone")
def trusts_everyone(scene: Scene) -> Found:
    """A client that is believed says itself who it is."""
    if not scene.public:
        return
    where = ", ".join(address.text for address in scene.public)
    # A container has a network of its own, which may have nobody in it but the proxy.
    say = warning if scene.is_container else error
    for name in ("forwarded_allow_ips", "proxy_allow_from"):
        given = getattr(scene.settings, name) or ()
        if name == "proxy_allow_from" and scene.settings.proxy_protocol == "off":
            continue
        if any(map(is_everyone, given)):
            flag = f"--{name.replace('_', '-')}"
            yield say(
                f"{flag} {','.join(given)} and --bind {where}: whoever connects chooses its address and "
                "scheme, "
                "and gets past guards by address",
                f"{flag} with the addresses of the proxies, or --bind 127.0.0.1:PORT",
            )


@CHECKS.add("no-tls")
def no_tls(scene: Scene) -> Found:
    settings = scene.settings
    if scene.public and not settings.has_tls and not scene.trusts_others and not scene.is_container:
        where = ", ".join(address.text for address in scene.public)
        say = warning if any(address.port == 443 for address in scene.public) else hint
        yield say(
            f"--bind {where} without a certificate and without a trusted proxy: passwords and cookies are "
            "in the clear",
            "--certfile FILE --keyfile FILE, or --forwarded-allow-ips with the proxy that has the "
            "certificate",
        )


@CHECKS.add("application-unreachable")
def application_unreachable(scene: Scene) -> Found:
    """Routes leave nothing for the application that is named."""
    routes, applications = scene.plan.routes, scene.plan.applications
    if not scene.application or not routes:
        return
    for route in routes:
        has_it = route.application >= 0 and applications[route.application][0] == 0
        if has_it and (route.action == "app" or route.values.get("fallback") == "app"):
            return
    yield error(
        f"no path is left for {scene.application.partition('(')[0]}: routes answer all of them",
        "fallback=app for files at /, or a longer path for what answers there",
    )


@CHECKS.add("loopback-in-container")
def loopback_in_container(scene: Scene) -> Found:
    tcp = [address for address in scene.addresses if address.unix is None and address.fd is None]
    if scene.is_container and tcp and all(map(is_local, tcp)) and len(tcp) == len(scene.addresses):
        where = ", ".join(address.text for address in tcp)
        yield warning(
            f"--bind {where} in a container: nobody outside of it gets there", f"--bind :{tcp[0].port}"
        )


@CHECKS.add("metrics-public")
def metrics_public(scene: Scene) -> Found:
    try:
        address = parse_address(scene.settings.metrics or "unix:none")
    except ConfigError:  # told by the check of the configuration
        return
    if address.unix is None and not is_local(address) and not scene.is_container:
        yield warning(
            f"{scene.shown('metrics')}: whoever reaches that port reads the metrics",
            f"--metrics 127.0.0.1:{address.port}",
        )


@CHECKS.add("password-in-the-clear")
def password_in_the_clear(scene: Scene) -> Found:
    has_passwords = any(route.values.get("auth", "none") != "none" for route in scene.plan.routes)
    if has_passwords and scene.public and not scene.settings.has_tls and not scene.trusts_others:
        yield warning(
            "auth= of a route, and no TLS here or in a trusted proxy: passwords are in the clear",
            "--certfile FILE --keyfile FILE --tls-redirect",
        )


# ---- balancers and ends ----


@CHECKS.add("keep-alive")
def keep_alive(scene: Scene) -> Found:
    """A balancer that sends a request as the connection is being closed gets no answer."""
    kept, idle = scene.settings.keep_alive, scene.balancer_idle
    has_proxy = scene.trusts_others if scene.public else scene.is_given("keep_alive")
    if kept > idle or not (has_proxy or idle != BALANCER_IDLE):
        return
    after = f"after {idle:g} s"
    if idle == BALANCER_IDLE:
        after = "after 60 s unless told otherwise (AWS ALB, nginx)"
    yield warning(
        f"{scene.shown('keep_alive')}, and balancers give up idle connections {after}: some requests get 502",
        f"--keep-alive {idle + 15:g}s",
    )


@CHECKS.add("stop-time")
def stop_time(scene: Scene) -> Found:
    """Who stops the server has less patience than it has."""
    settings = scene.settings
    needed = settings.shutdown_delay + settings.graceful_timeout + END
    reason = f"{scene.shown('shutdown_delay')}, {scene.shown('graceful_timeout')} and {END:g} s for the rest"
    if scene.is_kubernetes:
        if needed > KUBERNETES_GRACE:
            yield warning(
                f"{reason}: Kubernetes kills after {KUBERNETES_GRACE:g} s unless told otherwise",
                f"terminationGracePeriodSeconds: {needed:.0f}",
            )
    elif scene.is_container:
        if needed > DOCKER_GRACE:
            yield hint(
                f"{reason}: `docker stop` kills after {DOCKER_GRACE:g} s unless told otherwise",
                f"docker run --stop-timeout {needed:.0f}, or stop_grace_period: {needed:.0f}s in a Compose "
                "file",
            )
    else:
        for unit, grace in systemd_graces(scene):
            if needed > grace:
                yield warning(
                    f"{reason}: systemd kills after {grace:g} s ({unit})",
                    f"TimeoutStopSec={needed:.0f} there",
                )


def systemd_graces(scene: Scene) -> Iterator[tuple[str, float]]:
    """The units that serve this application, and how long systemd waits for each."""
    for file in sorted((scene.root / "etc/systemd/system").glob("*.service")):
        text = resources.read(file)
        if "fastwsgi" in text and scene.application and scene.application.partition(":")[0] in text:
            found = re.findall(r"^TimeoutStopSec=(.+)$", text, re.MULTILINE)
            yield file.name, seconds(found[-1]) if found else SYSTEMD_GRACE


def seconds(text: str) -> float:
    """A time as systemd has it: 90, 1min 30s, infinity."""
    if text.strip() in ("infinity", "0"):
        return math.inf
    units = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    return sum(
        float(number) * units.get(unit, 0.0) for number, unit in re.findall(r"([0-9.]+)\s*([a-z]*)", text)
    )


@CHECKS.add("probes")
def probes(scene: Scene) -> Found:
    if not scene.is_kubernetes:
        return
    settings = scene.settings
    if settings.health is None or settings.ready is None:
        yield hint(
            "no --health or no --ready: a probe of the application fails when all threads are busy",
            "--health /healthz --ready /readyz, and probes at these paths",
        )
    if not settings.shutdown_delay:
        yield warning(
            "--shutdown-delay 0: a pod that ends still gets connections for a while, which are refused",
            "--shutdown-delay 5s with --ready /readyz",
        )


# ---- files that are served ----


def directory_problem(path: str, identity: Identity | None) -> Said | None:
    """Why nothing comes from a directory with files to serve."""
    if not os.path.isdir(path):
        return error(
            f"{path} is no directory: all files there are 404", f"mkdir -p {shlex.quote(path)}, and fill it"
        )
    if not may_read(path, identity):
        whom = f"user {identity.uid}" if identity else "this user"
        return error(
            f"{whom} may not read {path}: all files there are 403", f"chmod a+rx {shlex.quote(path)}"
        )
    if not any(os.scandir(path)):
        return warning(
            f"{path} is empty: all files there are 404", "fill it (Django: manage.py collectstatic)"
        )
    return None


def may_read(path: str, identity: Identity | None) -> bool:
    """Whether workers may enter a directory and read it, from its mode and those above it."""
    if identity is None or identity.is_ours:
        return os.access(path, os.R_OK | os.X_OK)
    if identity.uid == 0:
        return True
    real = Path(os.path.realpath(path))
    return allowed(real, identity, 5) and all(allowed(above, identity, 1) for above in real.parents)


def allowed(path: Path, identity: Identity, bits: int) -> bool:
    told = path.stat()
    if told.st_uid == identity.uid:
        return told.st_mode >> 6 & bits == bits
    if told.st_gid in (identity.gid, *identity.groups):
        return told.st_mode >> 3 & bits == bits
    return told.st_mode & bits == bits


def static_directories(scene: Scene) -> Iterator[tuple[str, str]]:
    """Directories of routes, each once, with the place of a route."""
    seen = set()
    for route in scene.plan.routes:
        given = route.values.get("static")
        if isinstance(given, str) and given not in seen:
            seen.add(given)
            yield scene.path(given), f"{route.host}{route.path}"


@CHECKS.add("static-directory")
def static_directory(scene: Scene) -> Found:
    for path, place in static_directories(scene):
        problem = directory_problem(path, scene.identity)
        if problem is not None:
            yield problem._replace(what=f"static of {place}: {problem.what}")
    for path in scene.settings.sendfile_root:
        problem = directory_problem(scene.path(path), scene.identity)
        if problem is not None and problem.severity == "error":
            yield problem._replace(what=f"--sendfile-root: {problem.what}")


@CHECKS.add("static-private")
def static_private(scene: Scene) -> Found:
    """Names that begin with a dot are served as any other."""
    for path, place in static_directories(scene):
        if not os.path.isdir(path) or not os.access(path, os.R_OK):
            continue
        with os.scandir(path) as entries:
            names = [entry.name for entry, _ in zip(entries, range(ENTRIES_MOST), strict=False)]
        private = sorted(name for name in names if is_private(os.path.join(path, name)))
        sources = sorted(name for name in names if name.endswith(SOURCE_ENDINGS))
        for say, found in ((error, private), (warning, sources)):
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                yield say(
                    f"static of {place}: everybody may have {', '.join(found[:3])}{more} of {path}",
                    "a directory of its own for files that everybody may read",
                )


def is_private(path: str) -> bool:
    name = os.path.basename(path)
    if name in PRIVATE_NAMES or name.lower().endswith(PRIVATE_ENDINGS):
        return True
    if name.lower().endswith(KEY_ENDINGS) and os.path.isfile(path):
        with suppress(OSError), open(path, "rb") as file:
            return KEY_MARK in file.read(KEY_WITHIN)
    return False


@CHECKS.add("static-overlap")
def static_overlap(scene: Scene) -> Found:
    """One place that is served at two paths, and what guards only one of them."""
    found = list(static_directories(scene))
    guarding = {"allow", "deny", "auth", "internal"}
    guards = {f"{route.host}{route.path}": guarding & set(route.values) for route in scene.plan.routes}
    for inner, place in found:
        for outer, other in found:
            is_within = inner != outer and Path(inner).resolve().is_relative_to(Path(outer).resolve())
            if is_within and guards.get(place) and guards.get(place) != guards.get(other):
                yield error(
                    f"{inner} is guarded at {place}, and a part of {outer}, which {other} serves without "
                    "that",
                    "directories of which none is within the other",
                )


@CHECKS.add("acme-dir")
def acme_dir(scene: Scene) -> Found:
    given = scene.settings.acme_dir
    if given is not None and not os.path.isdir(scene.path(given)):
        yield warning(
            f"--acme-dir {given} is no directory: certificates cannot be renewed",
            f"mkdir -p {shlex.quote(scene.path(given))}",
        )
