"""Which processes listen somewhere, as far as this one may see: from /proc, so only on Linux.

of_port(8000)       # ["process 123: python -m http.server"]
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

LISTENS = "0A"
ACCEPTS = 0x10000  # of the flags of a unix socket

# One that is there before and after a fork is named once; that is enough to know what to stop.
MOST = 2
LONGEST = 100


def of_port(port: int) -> list[str]:
    """Who listens at a TCP port of any address."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for words in rows(table):
            if len(words) > 9 and words[3] == LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(words[9])
    return [describe(pid) for pid in with_sockets(inodes)]


def of_unix(path: str) -> list[str]:
    """Who listens at a unix socket; "@name" is an abstract one."""
    inodes, place = set(), os.path.abspath(path)
    for words in rows("/proc/net/unix"):
        if len(words) > 7 and int(words[3], 16) & ACCEPTS and os.path.abspath(words[7]) == place:
            inodes.add(words[6])
    return [describe(pid) for pid in with_sockets(inodes)]


def rows(table: str) -> Iterator[Sequence[str]]:
    with suppress(OSError), open(table, encoding="utf-8", errors="replace") as file:
        next(file, "")
        for line in file:
            yield line.split()


def with_sockets(inodes: set[str]) -> list[int]:
    """The processes that have one of these sockets open; a server's first one, not what it has forked."""
    if not inodes:
        return []
    targets = {f"socket:[{inode}]" for inode in inodes}
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and has_open(int(name), targets):
            found[int(name)] = parent_of(int(name))
    return sorted(pid for pid, parent in found.items() if parent not in found)[:MOST]


def has_open(pid: int, targets: set[str]) -> bool:
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for fd in os.listdir(directory):
            with suppress(OSError):
                if os.readlink(f"{directory}/{fd}") in targets:
                    return True
    return False


def parent_of(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        # The name before it may have blanks and brackets.
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def describe(pid: int) -> str:
    """`process 123: python -m http.server`"""
    command = b""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        command = file.read(4096)
    words = [word.decode("utf-8", "replace") for word in command.rstrip(b"\0").split(b"\0")]
    text = "".join(character if character.isprintable() else "?" for character in " ".join(words))
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    return f"process {pid}: {text}" if command.strip(b"\0") else f"process {pid}"
