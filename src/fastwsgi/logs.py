"""Where messages and access log lines go; reopening the files after a rotation."""

import errno
import logging
import logging.handlers
import os
import sys

from fastwsgi.errors import ConfigError

LOG = logging.getLogger("fastwsgi")

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"


def set_up_error_log(file: str, level: str) -> None:
    """Send messages of at least a level to a file, or to the standard error for "-".

    A file that was moved away is opened anew by itself. Raises ConfigError if it cannot be opened. Does
    nothing if the logger has handlers already: then somebody else has set it up.
    """
    if LOG.handlers:
        return
    handler: logging.Handler
    try:
        if file == "-":
            handler = logging.StreamHandler(sys.stderr)
        else:
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"--error-logfile {file}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
    LOG.addHandler(handler)
    LOG.setLevel(level.upper())
    # What the application does with the root logger shall not print our messages twice.
    LOG.propagate = False


class AccessLog:
    """The descriptor that access log lines are written to; -1 when there is no access log."""

    def __init__(self, file: str | None) -> None:
        """Open a file for appending, or the standard output for "-"; raise ConfigError if that fails."""
        self._path = None if file is None or file == "-" else os.path.abspath(file)
        self.fd = -1
        if self._path is not None:
            self.fd = self._open(self._path)
        elif file == "-":
            if sys.__stdout__ is None:
                raise ConfigError("--access-logfile -: the standard output is closed; give a file")
            self.fd = os.dup(sys.__stdout__.fileno())

    def reopen(self) -> None:
        """Go on in a new file if the old one was moved away; raise ConfigError if it cannot be opened.

        The descriptor keeps its number, so that whoever writes to it need not know.
        """
        if self._path is not None and self.fd >= 0:
            new = self._open(self._path)
            os.dup2(new, self.fd, inheritable=False)
            os.close(new)

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
