"""Renewed certificates: files are watched, and what is new in them reaches every process of the server.

    renewal = Renewal.of(policy)
    tls = renewal.tls()
    for level, text in renewal.look(): ...          # every PAUSE

One process looks at the files and writes what it has read to a `Store`, whose descriptor the others have
from the fork. They look there at the next handshake (`Tls`), so nobody has to tell them, and nothing is
asked of the system's rights in them. Where the server has given up root's rights, a process that has not
(`Reader`) does the looking.
"""

import hashlib
import json
import logging
import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Self, TypeAlias

from fastwsgi.errors import ConfigError
from fastwsgi.process import nameless_file
from fastwsgi.tls import Certificate, Customize, Material, Policy, Tls, day

# How often files are looked at; and how long what has changed there has to be as it is until it counts: a
# certificate and its key are not replaced in the same moment.
PAUSE = 1.0
REST = 0.25
# From so many days on it is said, once a day, that a certificate ends.
DAYS = 14
DAY = 86400.0

# What changes when a file does, or when a link leads to another one; None: it cannot be looked at.
Signature: TypeAlias = tuple[int, ...] | None

DIGEST = 32
NUMBER = 8
HEAD = 2 * NUMBER + DIGEST


class Store:
    """The newest certificates, in memory that processes share: one of them writes, the others read.

    A version, the length of what follows, a digest of both and what follows: whoever reads while somebody
    writes sees that.
    """

    def __init__(self, fd: int | None = None) -> None:
        """fd: of one that is there already."""
        self.fd = nameless_file() if fd is None else fd

    @property
    def version(self) -> int:
        return int.from_bytes(os.pread(self.fd, NUMBER, 0))

    def write(self, material: Material, problem: str = "") -> None:
        """problem: why these are still the former ones."""
        said = json.dumps({"problem": problem, **asdict(material)}).encode()
        numbers = (self.version + 1).to_bytes(NUMBER) + len(said).to_bytes(NUMBER)
        os.pwrite(self.fd, numbers + hashlib.sha256(numbers + said).digest() + said, 0)

    def read(self) -> Material | None:
        """None if it is just being written."""
        return None if (found := self.read_all()) is None else found[0]

    def read_all(self) -> tuple[Material, str] | None:
        """The same with the problem."""
        head = os.pread(self.fd, HEAD, 0)
        numbers, digest = head[: 2 * NUMBER], head[2 * NUMBER :]
        said = os.pread(self.fd, int.from_bytes(numbers[NUMBER:]), HEAD)
        if hashlib.sha256(numbers + said).digest() != digest:
            return None
        found = json.loads(said)
        certificates = tuple(
            Certificate(**{**one, "names": tuple(one["names"])}) for one in found["certificates"]
        )
        return Material(certificates, found["ca_certs"], found["authorities"]), found["problem"]

    def close(self) -> None:
        os.close(self.fd)


class Renewal:
    """The certificates of a server: what they are, and what there is to say of them."""

    def __init__(
        self, policy: Policy, material: Material, store: Store, seen: list[Signature] | None = None
    ) -> None:
        """seen: how the files were before they were read; None if another process watches them."""
        self.material = material
        self.store = store
        self.pause = PAUSE
        self.due = time.monotonic() + PAUSE
        self._policy = policy
        self._version = store.version
        self._told_at = -DAY
        self._taken = self._seen = seen

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """Read the files, and watch them; raise ConfigError for what no client could be served with."""
        seen = signatures(policy)
        material = policy.read()
        store = Store()
        store.write(material)
        return cls(policy, material, store, seen)

    @classmethod
    def shared(cls, policy: Policy, fd: int) -> Self:
        """What another process watches and writes to a store; raise ConfigError if that is something else.

        fd: of the store, which stays the caller's.
        """
        store = Store(os.dup(fd))
        try:
            return cls(policy, at_hand(policy, store), store)
        except BaseException:
            store.close()
            raise

    def tls(self, customize: Customize | None = None) -> Tls:
        """What workers have TLS from; raises ConfigError if it cannot be made."""
        return Tls(self._policy, self.material, self.store, customize)

    def look(self) -> Iterator[tuple[int, str]]:
        """See whether there is something new; say what there is to say of it, with levels of logging."""
        now = time.monotonic()
        self.due = now + PAUSE
        if self._seen is not None:
            self._look_at_files()
        version = self.store.version
        if version != self._version:
            yield from self._learn(version)
        if now - self._told_at >= DAY:
            self._told_at = now
            yield from ending(self.material)

    def give_up_rights(self) -> None:
        """Files look otherwise to the user that this process is from now on: that is no change of theirs."""
        if self._seen is not None:
            self._taken = self._seen = signatures(self._policy)

    def descriptions(self) -> list[str]:
        """What certificates there are, for the log."""
        return [f"TLS with {description(one)}" for one in self.material.certificates]

    def ends(self) -> tuple[tuple[str, str, float], ...]:
        """Names and files of the certificates, and when they end: seconds since 1970."""
        return tuple((one.title, one.certfile, one.ends) for one in self.material.certificates)

    def _look_at_files(self) -> None:
        before, self._seen = self._seen, signatures(self._policy)
        if self._seen != before:
            self.due = time.monotonic() + REST
        elif self._seen != self._taken:
            self._taken = self._seen
            try:
                self.store.write(renewed(self._policy))
            except (ConfigError, OSError) as error:
                self.store.write(newest_in(self.store), str(error))

    def _learn(self, version: int) -> Iterator[tuple[int, str]]:
        """What another version brings."""
        found = self.store.read_all()
        if found is None:
            return
        material, problem = found
        self._version = version
        if problem:
            yield logging.ERROR, f"Certificates are not renewed, those in use stay: {problem}"
        elif material != self.material:
            for one in material.certificates:
                if one not in self.material.certificates:
                    yield logging.INFO, f"Renewed: {description(one)}"
            self.material = material
            self._told_at = -DAY

    def check_after(self, former: Material) -> None:
        """Raise ConfigError for a certificate that no client takes, where one of former ones is good."""
        good = [one for one in former.certificates if not one.out_of_date()]
        for new in self.material.certificates:
            why = new.out_of_date()
            if why and any(new.certfile == one.certfile or {*new.names} & {*one.names} for one in good):
                raise ConfigError(f"{why}, and the one in use is good")

    def close(self) -> None:
        self.store.close()


@dataclass(frozen=True, slots=True)
class Reader:
    """A process that has kept root's rights to read certificates, and nothing else to do."""

    pid: int
    store: Store


def read_apart(renewal: Renewal, life_fd: int) -> None:
    """What that process does, until the other end of a pipe is closed; others say what there is to say."""
    end = select.poll()
    end.register(life_fd, 0)  # that it hangs up is told in any case
    with suppress(KeyboardInterrupt):  # TERM
        while not end.poll(max(0.0, renewal.due - time.monotonic()) * 1000):
            for _ in renewal.look():
                pass


def at_hand(policy: Policy, store: Store) -> Material:
    """What is in a store; raise ConfigError if it is not what the policy asks for."""
    material = newest_in(store)
    if (material.files, material.ca_certs) != (policy.files, policy.ca_certs):
        raise ConfigError(
            "other certificates cannot be read by a reload, as the server has given up root's rights "
            "(--user); stop and start it"
        )
    return material


def newest_in(store: Store) -> Material:
    """What is in a store that has been written to."""
    while (material := store.read()) is None:
        time.sleep(0.001)  # somebody is at it
    return material


def renewed(policy: Policy) -> Material:
    """Read files that have changed; raise ConfigError for what would be worse than what is in use."""
    material = policy.read()
    for one in material.certificates:
        if why := one.out_of_date():
            raise ConfigError(why)
    return material


def signatures(policy: Policy) -> list[Signature]:
    return [signature(path) for path in policy.paths()]


def signature(path: str) -> Signature:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def ending(material: Material) -> Iterator[tuple[int, str]]:
    """What to say of certificates that end soon, or have ended."""
    for one in material.certificates:
        left = one.days_left()
        if why := one.out_of_date():
            yield logging.ERROR, f"No client takes it: {why}"
        elif left < DAYS:
            yield logging.WARNING, f"Ends soon: {description(one)}"


def description(one: Certificate) -> str:
    left = one.days_left()
    return f"the certificate of {one.title} in {one.certfile}, until {day(one.ends)} ({left} days)"
