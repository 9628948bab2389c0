"""Where messages and access log lines go; reopening the files after a rotation."""

import errno
import logging
import logging.handlers
import os
import re
import stat
import sys
from contextlib import suppress

from fastwsgi.errors import ConfigError

LOG = logging.getLogger("fastwsgi")

# What moves a cursor, changes colours or begins a line: C0 but for line ends and tabs, DEL, C1, and the
# separators of Unicode.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"


class SafeFormatter(logging.Formatter):
    """One record, one line that begins with a bracket: what else belongs to it is indented, tracebacks too.

    Control characters are escaped. The text of an exception of the application may be a client's, and shall
    neither reach a terminal nor pass for a record of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        safe = CONTROLS.sub(lambda found: escape(found[0]), super().format(record))
        return safe.replace("\n", "\n  ")


def escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class ErrorLog:
    """Where messages of at least a level go: a file, or the standard error for "-".

    A file that was moved away is opened anew by itself. If the logger has handlers of somebody else, they
    stay, and nothing is opened.
    """

    def __init__(self, file: str, level: str, fd: int = -1) -> None:
        """Open it; raise ConfigError if that fails. Messages go there from `use` on.

        fd: after an exec, where messages have gone before; it does if the file cannot be opened.
        """
        self._level = level.upper()
        self._handler = None if LOG.handlers and not own_handlers() else open_handler(file, fd)

    def use(self) -> None:
        """Have messages go there, and not any more to the one that was used before."""
        if self._handler is None:
            return
        former = own_handlers()
        LOG.addHandler(self._handler)  # nothing is changed if it is there
        for handler in former:
            if handler is not self._handler:
                LOG.removeHandler(handler)
                handler.close()
        LOG.setLevel(self._level)
        # What the application does with the root logger shall not print our messages twice.
        LOG.propagate = False

    def close(self) -> None:
        """If it is not the one that is used."""
        if self._handler is not None and self._handler not in LOG.handlers:
            self._handler.close()


def set_up_error_log(file: str, level: str) -> None:
    """Open and use an `ErrorLog`, if nobody has set up the logger before."""
    if not LOG.handlers:
        ErrorLog(file, level).use()


def open_handler(file: str, fd: int) -> logging.Handler:
    handler: logging.Handler
    try:
        if file == "-":
            handler = logging.StreamHandler(sys.stderr)
        else:
            handler = FileHandler(file, encoding="utf-8", errors="backslashreplace")
            if fd > 2:
                os.close(fd)
    except OSError as error:
        if fd < 0:
            raise ConfigError(f"--error-logfile {file}: {error.strerror}") from None
        handler = logging.StreamHandler(os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace"))
    handler.setFormatter(SafeFormatter(FORMAT, DATE_FORMAT))
    return handler


class FileHandler(logging.handlers.WatchedFileHandler):
    """Goes on in the old file where a new one cannot be had; the base class would raise that for ever."""

    def reopenIfNeeded(self) -> None:
        with suppress(OSError):
            os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
            super().reopenIfNeeded()


def own_handlers() -> list[logging.Handler]:
    return [handler for handler in LOG.handlers if isinstance(handler.formatter, SafeFormatter)]


def error_log_fd() -> int | None:
    """The descriptor of the error log, for what is written without Python; None if there is none."""
    for handler in LOG.handlers:
        if isinstance(handler, logging.StreamHandler):
            with suppress(AttributeError, ValueError, OSError):
                return int(handler.stream.fileno())
    return None


def give_error_log_to(uid: int, gid: int) -> None:
    """Let a user and a group own the file, so that they can open it anew."""
    for handler in LOG.handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            give_file(handler.stream.fileno(), handler.baseFilename, uid, gid)


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


class AccessLog:
    """The descriptor that access log lines are written to; -1 when there is no access log."""

    def __init__(self, file: str | None, fd: int = -1) -> None:
        """Open a file for appending, or the standard output for "-"; raise ConfigError if that fails.

        fd: it is open already, after an exec.
        """
        self._path = None if file is None or file == "-" else os.path.abspath(file)
        self.fd = fd
        if fd >= 0:
            return
        if self._path is not None:
            self.fd = self._open(self._path)
        elif file == "-":
            if sys.__stdout__ is None:
                raise ConfigError("--access-logfile -: the standard output is closed; give a file")
            self.fd = os.dup(sys.__stdout__.fileno())

    @property
    def state(self) -> tuple[str, int] | None:
        """What makes it again after an exec; None if there is no access log."""
        return (self._path or "-", self.fd) if self.fd >= 0 else None

    def reopen(self) -> None:
        """Go on in a new file if the old one was moved away; raise ConfigError if it cannot be opened.

        The descriptor keeps its number, so that whoever writes to it need not know.
        """
        if self._path is not None and self.fd >= 0:
            new = self._open(self._path)
            os.dup2(new, self.fd, inheritable=False)
            os.close(new)

    def follow_output(self) -> None:
        """Go on where the standard output goes now, if it goes there."""
        if self._path is None and self.fd >= 0:
            os.dup2(1, self.fd, inheritable=False)

    def give_to(self, uid: int, gid: int) -> None:
        """Let a user and a group own the file, so that they can open it anew."""
        if self._path is not None:
            give_file(self.fd, self._path, uid, gid)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @staticmethod
    def _open(path: str) -> int:
        try:
            # Opening a FIFO would wait for somebody to read from it.
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        except OSError as error:
            reason = "nobody reads from this pipe" if error.errno == errno.ENXIO else error.strerror
            raise ConfigError(f"--access-logfile {path}: {reason}") from None
        os.set_blocking(fd, True)
        return fd
