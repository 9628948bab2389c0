"""What systemd and we tell each other: sockets handed over, how the service is, and that it is alive.

All of it is in environment variables; nothing here changes them. They have to outlive an exec in the same
process, and to be kept from children: the sockets and the watchdog are meant for one process only.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Self

from fastwsgi.errors import ConfigError

# What children must not inherit.
VARIABLES = (
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)

FIRST_FD = 3
MOST_FDS = 1000


def handed_over(environ: Mapping[str, str], pid: int) -> dict[str, str]:
    """The sockets for the process of that number, as addresses for `--bind`, with the names of their units.

    {"fd://3": "web.socket"}; empty without socket activation. They replace `--bind`, even where it is
    given: it is common to have the same address there and in the socket unit, and one of them would be in
    the other's way. gunicorn does the same. Raises ConfigError if the number of sockets cannot be read.
    """
    if environ.get("LISTEN_PID") != str(pid) or "LISTEN_FDS" not in environ:
        return {}
    count = read_number(environ["LISTEN_FDS"], MOST_FDS)
    if count is None:
        raise ConfigError(
            f"LISTEN_FDS={environ['LISTEN_FDS']}: this is not a number of sockets; "
            "leave the variable to whoever opens them"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return {f"fd://{FIRST_FD + i}": names[i] for i in range(count)}


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """How often that process has to say that it is alive, in seconds: twice in the time that systemd waits.

    None if nobody waits for it (no `WatchdogSec=`).
    """
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = read_number(environ.get("WATCHDOG_USEC", ""), 10**18)
    return microseconds / 2_000_000 if microseconds else None


def read_number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        return None
    return int(text) if int(text) <= most else None


class Manager:
    """Who is told how the service is: `Type=notify` and `notify-reload`. Telling never fails and never waits.

    Each method returns whether the message has left; without a manager it has not.
    """

    def __init__(self, address: str | None) -> None:
        """`address`: the path of its socket, or @name for an abstract one; None: nobody listens."""
        self._address = address

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        return cls(environ.get("NOTIFY_SOCKET"))

    def ready(self) -> bool:
        """The start, or the reload, is over."""
        return self._tell("READY=1")

    def reloading(self) -> bool:
        # In one message with the time, or systemd takes it for one from before its own request.
        return self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        return self._tell("STOPPING=1")

    def alive(self) -> bool:
        """Once in each `watchdog_interval`."""
        return self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> bool:
        if not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A socket for each message: none is there to be inherited, closed or stale.
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(os.fsencode("\n".join(lines)), address)
        except (OSError, ValueError):
            return False
        return True
