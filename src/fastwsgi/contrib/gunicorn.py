"""A worker for gunicorn: `gunicorn -k fastwsgi.contrib.gunicorn.Worker shop:app`.

gunicorn's arbiter starts, watches and replaces the processes; in each of them is a worker of ours at
gunicorn's sockets. What gunicorn has a setting for is gunicorn's, with its defaults: threads, times, limits,
trust, TLS. What it has none for comes from fastwsgi.toml and FASTWSGI_ variables.
"""

import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from gunicorn.workers import base

from fastwsgi import systemd, worker
from fastwsgi._stats import Board, wants_t
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

# Workers may become more (TTIN).
LEAST_ROWS = 16

# What the arbiter takes for a worker that cannot start.
BOOT_ERROR = 3

# How often at least the arbiter hears that a worker is alive, and a worker looks after gunicorn's reloader.
PAUSE = 1.0


class Site:
    """What the workers of an arbiter share, made in it before they are forked: how each is, who is busy."""

    def __init__(self, workers: int, threads: int) -> None:
        rows = max(2 * workers + 2, LEAST_ROWS)
        self.board = Board(mmap.mmap(-1, Board.size(rows, threads)), rows, threads)
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if hasattr(os, "eventfd") else -1
        self.life_fd, self._life = os.pipe()
        os.set_blocking(self.life_fd, False)
        self._places: dict[int, Worker] = {}

    def take(self, place: "Worker") -> int | None:
        """The row of a new worker, one whose former worker has ended; None if there is none."""
        for index, former in list(self._places.items()):
            if former.has_ended:
                self.board.row(index).clear()
                del self._places[index]
                if self.kick_fd >= 0:
                    # It may have been the one that was to accept.
                    os.eventfd_write(self.kick_fd, 1)
        for index in range(self.board.workers):
            if index not in self._places:
                self._places[index] = place
                return index
        return None

    def post(self, index: int, *, has_others: bool) -> worker.Post:
        """Where a worker stands; nobody reads what it tells."""
        row = self.board.row(index)
        return worker.Post(self.board, row, index + 1, self.kick_fd, self.life_fd, -1, has_others)

    def in_worker(self) -> None:
        """After the fork: when the arbiter is gone, nobody shall hold the other end."""
        os.close(self._life)


class Arbiter(systemd.Manager):
    """Who is told that a worker is alive."""

    def __init__(self, place: "Worker") -> None:
        super().__init__(None)
        self._place = place

    def alive(self) -> bool:
        self._place.notify()
        if not self._place.alive:
            # gunicorn's reloader has seen a change.
            self._place.leave()
        return True


class Body(worker.Worker):
    """Our worker in one of gunicorn's, which goes when it has had its number of requests."""

    def __init__(self, place: "Worker", listeners: list[Listener], settings: Settings) -> None:
        super().__init__(
            place.wsgi,
            listeners,
            settings,
            post=place.site.post(place.index, has_others=place.cfg.workers > 1),
            manager=Arbiter(place),
            watchdog=settings.worker_timeout / 4,
            renewal=worker.watched_certificates(settings),
        )
        self._place = place
        self._crew.max_requests = 0 if place.max_requests == sys.maxsize else place.max_requests

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

    # Of the arbiter's process: what its newest workers share, and what it was told.
    newest: Site | None = None
    told: tuple[str, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        """In the arbiter, before the fork: it is told once what is not honoured."""
        super().__init__(*arguments)
        remarks = tuple(remarks_on(self.cfg))
        if remarks != Worker.told:
            Worker.told = remarks
            if remarks:
                self.log.warning("fastwsgi cannot honour: %s", "; ".join(remarks))
        site, index = Worker.newest, None
        if site is not None and site.board.threads == self.cfg.threads:
            index = site.take(self)
        if site is None or index is None:
            site = Worker.newest = Site(self.cfg.workers, self.cfg.threads)
            index = site.take(self)
            assert index is not None
        self.site, self.index = site, index

    @property
    def has_ended(self) -> bool:
        """The process is gone, and the arbiter knows; or it was never there."""
        if not isinstance(self.pid, int):
            return True
        try:
            os.kill(self.pid, 0)
        except OSError:
            return True
        return False

    def init_process(self) -> None:
        """In the worker, before the application is loaded."""
        self.site.in_worker()
        super().init_process()

    def run(self) -> None:
        """Serve until the arbiter says that it is enough."""
        self.share_log()
        try:
            settings = settings_of(self.cfg)
            self.body = Body(self, [self.borrow(one) for one in self.sockets], settings)
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

    def borrow(self, sock: Any) -> Listener:
        """A listener at one of gunicorn's sockets, which others have as well but for reuse_port."""
        fd = os.dup(sock.fileno())
        text = f"fd://{fd}"
        is_own = bool(self.cfg.reuse_port)
        return Listener(adopt(Address(text, fd=fd)), text, is_borrowed=not is_own, is_own=is_own)

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
    given["worker_timeout"] = 4 * (min(PAUSE, cfg.timeout / 4) or PAUSE)  # it gives four signs of life in it
    # What speaks of addresses and numbers of workers is the arbiter's.
    foreign = (GUNICORN_COMMAND_LINE, "PORT", "WEB_CONCURRENCY")
    environ = {name: value for name, value in os.environ.items() if name not in foreign}
    return gather([], environ, starting_directory(), given, "gunicorn's").settings
