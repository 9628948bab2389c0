"""A started server: its processes, what the kernel counts for them, and its end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.watchdog import watchdog

START_SECONDS = 20.0
# Beneath the range that the kernel takes client ports from, so that no client sits on a server's port.
FIRST_PORT, LAST_PORT = 20000, 32000

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_next_port = FIRST_PORT + os.getpid() * 37 % (LAST_PORT - FIRST_PORT)


class ServerFailedError(Exception):
    """The server did not start, ended, or answered wrongly; the text says which."""


def free_port() -> int:
    global _next_port
    while True:
        _next_port = _next_port + 1 if _next_port < LAST_PORT else FIRST_PORT
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", _next_port))
            return _next_port


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(stat.parent.name))
    return found


@dataclass
class Processes:
    """The processes of one server, children included."""

    roots: list[subprocess.Popen[bytes]]
    log: Path

    def pids(self) -> list[int]:
        children, found, pending = _children(), [], [root.pid for root in self.roots]
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += children.get(pid, [])
        return found

    def cpu_ns(self) -> int:
        """User and system time so far, of ended threads and reaped children too."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                # The CPU clock of another process (clock_getcpuclockid): the scheduler's own count, in
                # nanoseconds, where /proc/PID/stat has clock ticks.
                total += time.clock_gettime_ns(~pid << 3 | 2)
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[13]) + int(fields[14])) * _TICK_NS
        return total

    def voluntary_switches(self) -> int:
        total = 0
        for pid in self.pids():
            for status in Path(f"/proc/{pid}/task").glob("*/status"):
                with suppress(OSError):
                    for line in status.read_text().splitlines():
                        if line.startswith("voluntary_ctxt_switches:"):
                            total += int(line.split()[1])
        return total

    def pss_bytes(self) -> int:
        """Memory in use, what is shared between processes divided among them."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def check_alive(self) -> None:
        for root in self.roots:
            if root.poll() is not None:
                raise ServerFailedError(f"ended with code {root.returncode}: {self.log_tail()}")

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return " / ".join(lines[-3:])[-400:] or "nothing was logged"

    def stop(self) -> None:
        for root in self.roots:
            # The group rather than the process: a worker may outlive its parent.
            with suppress(ProcessLookupError):
                os.killpg(root.pid, signal.SIGKILL)
        for root in self.roots:
            root.wait()
            watchdog().remove(root.pid)


def _wait_until_listening(processes: Processes, port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes.check_alive()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise ServerFailedError(f"does not listen after {seconds:.0f} s: {processes.log_tail()}")


@contextmanager
def started(
    commands: list[list[str]],
    port: int,
    cores: str,
    environment: dict[str, str],
    folder: Path,
    start_seconds: float = START_SECONDS,
) -> Iterator[Processes]:
    """Start commands on some cores; they have ended when the block has, whatever happened in it."""
    log = folder / "server.log"
    processes = Processes([], log)
    try:
        with log.open("wb") as output:
            for command in commands:
                root = subprocess.Popen(
                    ["taskset", "-c", cores, *command],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                watchdog().add(root.pid)
                processes.roots.append(root)
        _wait_until_listening(processes, port, start_seconds)
        yield processes
    finally:
        processes.stop()
