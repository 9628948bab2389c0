"""Where messages and access log lines go; reopening the files after a rotation."""

import json
import logging
import logging.config
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from fastwsgi.errors import ConfigError
from fastwsgi.outlets import FileOutlet, Outlet, lead_nowhere, open_log, own_description
from fastwsgi.records import JsonFormatter, SafeFormatter
from fastwsgi.syslog import Peer, Syslog, SyslogOutlet, usual_address

if TYPE_CHECKING:
    from fastwsgi.config import Settings

LOG = logging.getLogger("fastwsgi")

# In syslog the daemon says when.
SYSLOG_FORMAT = "[%(levelname)s] %(message)s"

# What those configurations may count on that were made for gunicorn.
GUNICORN_DEFAULTS = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": "ext://sys.stderr",
        },
    },
}


class OutletHandler(logging.Handler):
    """Hands records to an outlet, which never blocks."""

    def __init__(self, outlet: Outlet, formatter: logging.Formatter) -> None:
        super().__init__()
        self.outlet = outlet
        self.setFormatter(formatter)
        outlet.notice = self._notice

    def emit(self, record: logging.LogRecord) -> None:
        # Without memory the record is lost, and not the server with it.
        with suppress(MemoryError):
            self.outlet.write(self.render(record))

    def render(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:
            said = f"{record.msg!r} with {record.args!r}: {error!r}"
            text = self.format(LOG.makeRecord(record.name, record.levelno, "", 0, said, (), None))
        return f"{text}\n".encode("utf-8", "backslashreplace")

    def _notice(self, lost: int, why: str) -> bytes:
        said = f"{lost} log records before this one were lost: {why}"
        return self.render(LOG.makeRecord(LOG.name, logging.WARNING, "", 0, said, (), None))

    def advance(self) -> bool:
        with self.lock:  # type: ignore[union-attr]
            return self.outlet.advance()

    def flush(self) -> None:
        """At the end of the process."""
        with self.lock:  # type: ignore[union-attr]
            self.outlet.finish()

    def give_up(self) -> None:
        """Close it and its outlet.

        `close` is for `logging`: an application that configures that anew has it close every handler that
        there is, and those that are still in use go on.
        """
        self.close()
        self.outlet.close()


class SyslogHandler(OutletHandler):
    """The same, for a syslog daemon: one line each, after a priority."""

    def __init__(self, syslog: Syslog, formatter: logging.Formatter) -> None:
        super().__init__(SyslogOutlet(syslog), formatter)
        self._syslog = syslog

    def render(self, record: logging.LogRecord) -> bytes:
        # As syslog daemons write a line end within a message.
        text = super().render(record).rstrip(b"\n").replace(b"\n", b"#012")
        return self._syslog.start(record.levelno) + text + b"\n"


class ErrorLog:
    """Where messages of at least a level go: a file, or the standard error for "-"; and to syslog, too.

    A file that was moved away is opened anew by itself. If the logger has handlers of somebody else, they
    stay, and nothing is opened.
    """

    def __init__(
        self, file: str, level: str, *, is_json: bool = False, syslog: Syslog | None = None, fd: int = -1
    ) -> None:
        """Open it; raise ConfigError if that fails. Messages go there from `use` on.

        fd: after an exec, where messages have gone before; it does if the file cannot be opened, and then
        nothing is raised.
        """
        self._level = level.upper()
        self._handlers: list[OutletHandler] = []
        if LOG.handlers and not own_handlers():
            close_former(fd)
            return
        self._handlers.append(open_handler(file, is_json, fd))
        if syslog is not None:
            formatter = JsonFormatter() if is_json else SafeFormatter(SYSLOG_FORMAT)
            try:
                self._handlers.append(SyslogHandler(syslog, formatter))
            except ConfigError:
                if fd < 0:
                    self.close()
                    raise

    @classmethod
    def of(cls, settings: "Settings", fd: int = -1) -> "ErrorLog":
        is_json = settings.log_format == "json"
        syslog = syslog_of(settings)
        return cls(settings.error_logfile, settings.log_level, is_json=is_json, syslog=syslog, fd=fd)

    def use(self) -> None:
        """Have messages go there, and not any more to the one that was used before."""
        if not self._handlers:
            return
        former = own_handlers()
        for handler in self._handlers:
            LOG.addHandler(handler)  # nothing is changed if it is there
        for handler in former:
            if handler not in self._handlers:
                LOG.removeHandler(handler)
                handler.flush()
                handler.give_up()
        LOG.setLevel(self._level)
        # What the application does with the root logger shall not print our messages twice.
        LOG.propagate = False

    def close(self) -> None:
        """If it is not the one that is used."""
        for handler in self._handlers:
            if handler not in LOG.handlers:
                handler.give_up()


def open_handler(file: str, is_json: bool, fd: int) -> OutletHandler:
    outlet: Outlet
    try:
        outlet = Outlet(own_description(2)) if file == "-" else FileOutlet(file, "--error-logfile")
    except (ConfigError, OSError):
        if fd < 0:
            raise
        outlet = Outlet(own_description(fd))
    close_former(fd)
    has_colours = file == "-" and wants_colours(outlet.fd)
    return OutletHandler(outlet, JsonFormatter() if is_json else SafeFormatter(has_colours=has_colours))


def close_former(fd: int) -> None:
    """Close where messages have gone before, unless that is nowhere or a standard descriptor."""
    if fd > 2:
        os.close(fd)


def wants_colours(fd: int) -> bool:
    """It is a terminal, and nobody wants none (no-color.org); or they are asked for (force-color.org)."""
    if os.environ.get("FORCE_COLOR") and not os.environ.get("NO_COLOR"):
        return True
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def own_handlers() -> list[OutletHandler]:
    return [handler for handler in LOG.handlers if isinstance(handler, OutletHandler)]


def set_up_error_log(settings: "Settings") -> None:
    """Do what --log-config says; open and use an `ErrorLog` unless somebody has set up the logger.

    Raises ConfigError where that is not possible.
    """
    if not LOG.handlers:
        configure(settings)
    if not LOG.handlers:
        ErrorLog.of(settings).use()


def advance() -> bool:
    """Write what has been waiting for a reader or for room; True if something still does."""
    # Not any(): each has its own.
    return bool([handler for handler in own_handlers() if handler.advance()])


def flush() -> None:
    """The same, and wait for it, but not for long: the process is about to end."""
    for handler in own_handlers():
        handler.flush()


def call_when_waiting(function: Callable[[], object]) -> None:
    """Have a function called, from any thread, when a record waits: `advance` shall come soon."""
    for handler in own_handlers():
        handler.outlet.when_waiting = function


def leave_terminal() -> None:
    """In a daemon: messages on the standard error go nowhere, unless that is a file."""
    for handler in own_handlers():
        if type(handler.outlet) is Outlet:
            handler.outlet.leave_terminal()


def error_log_fd() -> int | None:
    """The descriptor of the error log, for what is written without Python; None if there is none."""
    for handler in LOG.handlers:
        if isinstance(handler, OutletHandler):
            return handler.outlet.fd
        if isinstance(handler, logging.StreamHandler):
            with suppress(AttributeError, ValueError, OSError):
                return int(handler.stream.fileno())
    return None


def give_error_log_to(uid: int, gid: int) -> None:
    """Let a user and a group own the file, so that they can open it anew."""
    for handler in own_handlers():
        if isinstance(handler.outlet, FileOutlet):
            give_file(handler.outlet.fd, handler.outlet.path, uid, gid)


def give_file(fd: int, path: str, uid: int, gid: int) -> None:
    """Change the owner of a file that is ours; pipes, devices and the files of others stay as they are."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        try:
            os.fchown(fd, uid, gid)
        except OSError as error:
            raise ConfigError(
                f"--user, --group: cannot give {path} to user {uid} and group {gid}: {error.strerror}"
            ) from None


# ---- what the user has configured ----


def configure(settings: "Settings") -> None:
    """Do what --log-config or one of its kind says; raise ConfigError for what is wrong."""
    given = [
        (flag, value)
        for flag, value in (
            ("--log-config", settings.log_config),
            ("--log-config-json", settings.log_config_json),
            ("--log-config-dict", settings.log_config_dict),
        )
        if value is not None
    ]
    if not given:
        return
    if len(given) > 1:
        raise ConfigError(f"{given[0][0]} and {given[1][0]} are both given; one configures all logs")
    [(flag, value)] = given
    label = f"{flag} {value}" if isinstance(value, str) else flag
    try:
        if isinstance(value, Mapping):
            configure_by(value)
        elif flag == "--log-config-json" or value.endswith(".json"):
            with open(value, encoding="utf-8") as file:
                configure_by(json.load(file))
        elif value.endswith(".toml"):
            with open(value, "rb") as toml:
                configure_by(tomllib.load(toml))
        else:
            # It would pass in silence over a file that is not there.
            with open(value, encoding="utf-8") as file:
                here = {"__file__": os.path.abspath(value), "here": os.path.dirname(os.path.abspath(value))}
                logging.config.fileConfig(file, here, disable_existing_loggers=False)
    except OSError as error:
        raise ConfigError(f"{label}: {error.strerror or error}") from None
    except Exception as error:
        raise ConfigError(f"{label}: {one_line(error)}") from error
    theirs = logging.getLogger("gunicorn.error")
    if theirs.handlers and not LOG.handlers:
        LOG.handlers, LOG.propagate = theirs.handlers[:], theirs.propagate
        LOG.setLevel(theirs.level)
    if LOG.level == logging.NOTSET:
        LOG.setLevel(settings.log_level.upper())
    if LOG.hasHandlers() and not LOG.handlers:
        # Those of the root logger are meant, then.
        LOG.addHandler(logging.NullHandler())
    if logging.getLogger("gunicorn.access").handlers:
        LOG.warning("%s: the handlers of gunicorn.access get nothing; --access-logfile is for that", label)


def configure_by(given: object) -> None:
    if not isinstance(given, Mapping):
        raise TypeError("not an object of JSON")
    logging.config.dictConfig({**GUNICORN_DEFAULTS, **given})


def one_line(error: BaseException) -> str:
    """What went wrong; logging.config has the cause in another exception."""
    cause = f": {error.__cause__}" if error.__cause__ is not None else ""
    return " ".join(f"{error}{cause}".split()) or type(error).__name__


def syslog_of(settings: "Settings") -> Syslog | None:
    """The daemon that --log-syslog is about, or None without that."""
    if not settings.log_syslog:
        return None
    tag = settings.log_syslog_prefix or settings.name or "fastwsgi"
    return Syslog(settings.log_syslog_to or usual_address(), settings.log_syslog_facility, tag)


# ---- the access log ----


class AccessLog:
    """The descriptor that access log lines are written to; -1 when there is no access log."""

    def __init__(self, file: str | None, syslog: Syslog | None = None, fd: int = -1) -> None:
        """Open a file for appending, the standard output for "-", or a connection to syslog without a file.

        fd: it is open already, after an exec. Raises ConfigError if it cannot be opened.
        """
        self._path = None if file is None or file == "-" else os.path.abspath(file)
        self._syslog = syslog if file is None else None
        self._peer: Peer | None = None
        self.fd = fd
        if fd >= 0:
            return
        if self._path is not None:
            self.fd = open_log(self._path, "--access-logfile")
        elif file == "-":
            if sys.__stdout__ is None:
                raise ConfigError("--access-logfile -: the standard output is closed; give a file")
            self.fd = own_description(sys.__stdout__.fileno())
        elif self._syslog is not None:
            self.fd, self._peer = self._syslog.connect()

    @classmethod
    def of(cls, settings: "Settings") -> "AccessLog":
        to_syslog = not settings.disable_redirect_access_to_syslog
        return cls(settings.access_logfile, syslog_of(settings) if to_syslog else None)

    @classmethod
    def restored(cls, state: tuple[str | None, int] | None, settings: "Settings") -> "AccessLog":
        """Make it again from its `state`, after an exec."""
        return cls(None) if state is None else cls(state[0], syslog_of(settings), state[1])

    @property
    def state(self) -> tuple[str | None, int] | None:
        """File, none for syslog, and descriptor; None if there is no access log."""
        file = self._path if self._path is not None or self._syslog is not None else "-"
        return (file, self.fd) if self.fd >= 0 else None

    @property
    def line_start(self) -> bytes:
        """What each line of this process begins with."""
        return b"" if self._syslog is None else self._syslog.start(logging.INFO, ".access")

    def reopen(self) -> None:
        """Go on in a new file if the old one was moved away; raise ConfigError if it cannot be opened.

        The descriptor keeps its number, so that whoever writes to it need not know.
        """
        if self.fd < 0:
            return
        if self._path is not None:
            self._go_on_in(open_log(self._path, "--access-logfile"))
        elif self._syslog is not None:
            fd, self._peer = self._syslog.connect()
            self._go_on_in(fd)

    def renew(self) -> None:
        """After an error: whoever has been at the other end may be there again."""
        if self._peer is not None:
            self._peer.renew(self.fd)

    def leave_terminal(self) -> None:
        """In a daemon: lines for the standard output go nowhere, unless that is a file."""
        goes_to_output = self._path is None and self._syslog is None and self.fd >= 0
        if goes_to_output and not stat.S_ISREG(os.fstat(self.fd).st_mode):
            lead_nowhere(self.fd)

    def _go_on_in(self, fd: int) -> None:
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    def give_to(self, uid: int, gid: int) -> None:
        """Let a user and a group own the file, so that they can open it anew."""
        if self._path is not None:
            give_file(self.fd, self._path, uid, gid)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
