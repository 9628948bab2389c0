"""A worker for gunicorn: `gunicorn -k fastwsgi.contrib.gunicorn.Worker shop:app`.

gunicorn's arbiter starts, watches and replaces the processes; in each of them is a worker of ours at
gunicorn's sockets. What gunicorn has a setting for is gunicorn's, with its defaults: threads, times, limits,
trust, TLS. What it has none for comes from fastwsgi.toml and FASTWSGI_ variables.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from gunicorn.workers import base

from fastwsgi import systemd, worker
from fastwsgi._stats import wants_t
from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.gunicorn import translate
from fastwsgi.listener import Address, Listener, adopt
from fastwsgi.logs import LOG
from fastwsgi.sources import GUNICORN_COMMAND_LINE, gather, starting_directory

# What a worker heeds. All else is the arbiter's, or of the base class.
HEEDED = (
    "access_log_format",
    "accesslog",
    "ca_certs",
    "cert_reqs",
    "certfile",
    "ciphers",
    "forwarded_allow_ips",
    "forwarder_headers",
    "graceful_timeout",
    "header_map",
    "keepalive",
    "keyfile",
    "limit_request_field_size",
    "limit_request_fields",
    "limit_request_line",
    "proxy_allow_ips",
    "proxy_protocol",
    "threads",
    "timeout",
    "worker_connections",
)

# What is asked of a worker, and it does not do; the words are those of `fastwsgi --config`.
UNHEEDED = (
    "casefold_http_method",
    "do_handshake_on_connect",
    "http2_cleartext",
    "http_parser",
    "http_protocols",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "protocol",
    "secure_scheme_headers",
    "sendfile",
    "ssl_version",
    "strip_header_spaces",
    "suppress_ragged_eofs",
)

# What gunicorn's logger would do with each request, and the loop of fastwsgi writes its lines itself.
NO_RECORDS = "of requests nothing goes there; accesslog is for that"
OF_THE_LOGGER = {
    **dict.fromkeys(("logconfig", "logconfig_dict", "logconfig_json", "syslog"), NO_RECORDS),
    "statsd_host": "nothing is told of requests",
}

# What the arbiter takes for a worker that cannot start.
BOOT_ERROR = 3

# How often at least the arbiter hears that this worker is alive, and this worker looks after the arbiter.
PAUSE = 1.0


class Arbiter(systemd.Manager):
    """Who is told that a worker is alive."""

    def __init__(self, place: "Worker") -> None:
        super().__init__(None)
        self._place = place

    def alive(self) -> bool:
        self._place.notify()
        self._place.look()
        return True


class Body(worker.Worker):
    """Our worker in one of gunicorn's, which goes when it has had its number of requests."""

    def __init__(self, place: "Worker", listeners: list[Listener], settings: Settings) -> None:
        super().__init__(
            place.wsgi,
            listeners,
            settings,
            manager=Arbiter(place),
            watchdog=min(PAUSE, place.timeout / 2) if place.timeout else PAUSE,
            renewal=worker.watched_certificates(settings),
            has_others=place.cfg.workers > 1,
        )
        self._place = place
        if place.max_requests != sys.maxsize:
            self._crew.max_requests = place.max_requests

    def _tell(self, manager: systemd.Manager) -> None:
        super()._tell(manager)
        if self._crew.row.wants == wants_t.WANTS_REQUESTS and self._place.alive:
            LOG.info("Autorestarting worker: it has had its requests (max_requests)")
            self._place.leave()

    def reopen_logs(self) -> None:
        """At USR1."""
        self._reopen_logs()


class Worker(base.Worker):  # type: ignore[misc]
    """What -k names."""

    body: Body | None = None
    told: tuple[str, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        """In the arbiter, before the fork: it is told once what is not honoured."""
        super().__init__(*arguments)
        remarks = tuple(remarks_on(self.cfg))
        if remarks != Worker.told:
            Worker.told = remarks
            if remarks:
                self.log.warning("fastwsgi cannot honour: %s", "; ".join(remarks))

    def run(self) -> None:
        """Serve until the arbiter says that it is enough."""
        self.share_log()
        try:
            settings = settings_of(self.cfg)
            self.body = Body(self, [borrow(one) for one in self.sockets], settings)
        except ConfigError as error:
            self.log.error("fastwsgi: %s", error)
            sys.exit(BOOT_ERROR)
        if not self.alive:
            self.leave()
        # Or a worker that hangs at once would be left alone.
        self.notify()
        with worker.wakeup(self.body):
            self.body.run()
        self.log.debug("%s", self.body.summary())
        self.body.close()

    def share_log(self) -> None:
        """What we have to say goes where gunicorn's messages go."""
        theirs = getattr(self.log, "error_log", None)
        if theirs is not None:
            LOG.handlers, LOG.propagate = theirs.handlers[:], theirs.propagate
            LOG.setLevel(theirs.level)
            LOG.disabled = False

    def leave(self, grace: float | None = None) -> None:
        """Accept nothing more, finish what runs; the others stay, or whoever comes next."""
        self.alive = False
        if self.body is not None:
            self.body.stop(self.cfg.graceful_timeout if grace is None else grace, leave=True)

    def look(self) -> None:
        """Leave if nobody watches any more, or the reloader has seen a change."""
        if self.body is None or not self.alive:
            self.leave()
        elif self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.leave()

    # Signals; in the main thread, whatever it does.

    def handle_exit(self, sig: int, frame: object) -> None:
        self.leave()

    def handle_quit(self, sig: int, frame: object) -> None:
        if self.body is None:
            super().handle_quit(sig, frame)
        self.leave(0)
        self.cfg.worker_int(self)

    def handle_usr1(self, sig: int, frame: object) -> None:
        super().handle_usr1(sig, frame)
        if self.body is not None:
            self.body.reopen_logs()


def values_of(cfg: Any, names: Iterable[str]) -> dict[str, Any]:
    """gunicorn's settings as they are; each version has others."""
    return {name: cfg.settings[name].get() for name in names if name in cfg.settings}


def remarks_on(cfg: Any) -> Iterator[str]:
    """What is not honoured, and why."""
    try:
        yield from translate(values_of(cfg, UNHEEDED), "").remarks
    except ConfigError:
        return  # each worker tells of it, and ends
    for name, value in values_of(cfg, OF_THE_LOGGER).items():
        if value:
            yield f"{name} ({OF_THE_LOGGER[name]})"


def settings_of(cfg: Any) -> Settings:
    """Settings for a worker; raise ConfigError for what is wrong, or may not be left out."""
    translation = translate(values_of(cfg, HEEDED + UNHEEDED), "gunicorn")
    given = {name: setting.value for name, setting in translation.settings.items()}
    # What speaks of addresses and numbers of workers is the arbiter's.
    foreign = (GUNICORN_COMMAND_LINE, "PORT", "WEB_CONCURRENCY")
    environ = {name: value for name, value in os.environ.items() if name not in foreign}
    return gather([], environ, starting_directory(), given, "gunicorn's").settings


def borrow(sock: Any) -> Listener:
    """A listener at one of gunicorn's sockets, which others have as well."""
    fd = os.dup(sock.fileno())
    text = f"fd://{fd}"
    return Listener(adopt(Address(text, fd=fd)), text, is_borrowed=True)
