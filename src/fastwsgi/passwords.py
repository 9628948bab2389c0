"""Password files (`auth`), credentials held against them, and the command that writes them.

A line is user:hash, as htpasswd has it. What is slow by intent happens without the GIL, a few at a time;
credentials that were right are known again for a while, by a digest that nobody else can make.
"""

import _thread
import base64
import binascii
import getpass
import hashlib
import hmac
import importlib
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastwsgi._rates import Rate, Rates
from fastwsgi.errors import ConfigError
from fastwsgi.greening import original
from fastwsgi.logs import LOG

USAGE = "passwd FILE USER"

# For so long credentials are known again, and at most so many of them.
REMEMBERED = 300.0
REMEMBERED_MOST = 1024
# Passwords that are verified at the same time in a process, and how long another one waits for that.
AT_ONCE = 2
PATIENCE = 5.0
# Wrong passwords of a client: so many at once, and one more in so many seconds.
WRONG_AT_ONCE = 10
WRONG_INTERVAL = 6.0
# Between two looks at a file.
LOOK_PAUSE = 1.0

# Where a client has no address: one behind a unix socket.
NO_ADDRESS = b"::"

# As Django makes them; tens of milliseconds and, for scrypt, 16 MiB.
PBKDF2_ITERATIONS = 1_000_000
SCRYPT_WORK, SCRYPT_BLOCK, SCRYPT_PARALLEL = 1 << 14, 8, 5
# What a line may ask for at most.
PBKDF2_MOST = 20_000_000
SCRYPT_MOST = 256 << 20
BCRYPT_COST_MOST = 16
# bcrypt never looks at more, and its libraries differ in what they do about it.
BCRYPT_OCTETS = 72

WEAK = {
    "{SHA}": "SHA-1 without a salt",
    "$apr1$": "MD5, as htpasswd makes it if it is not told otherwise",
    "$1$": "MD5",
    "{PLAIN}": "no hash at all",
}
BETTER = "make another one by `fastwsgi passwd` or `htpasswd -B`"

Verify = Callable[[bytes], bool]

allocate_lock = original(_thread, "allocate_lock")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of credentials: a user, or the status of the answer and when to come again."""

    user: str | None = None
    status: int = 200
    retry_after: float = 0.0


# ---- hashes ----


def verifier(hashed: str) -> Verify:
    """What tells whether a password is that of a hash; raise ValueError, saying why, if it is none to use."""
    if hashed.startswith("pbkdf2_sha256$"):
        return pbkdf2_verifier(hashed)
    if hashed.startswith("scrypt$"):
        return scrypt_verifier(hashed)
    if re.match(r"\$2[aby]\$", hashed):
        return bcrypt_verifier(hashed)
    for start, what in WEAK.items():
        if hashed.startswith(start):
            raise ValueError(f"a hash that is too easily undone ({what}): {BETTER}")
    if re.fullmatch(r"[./0-9A-Za-z]{13}", hashed):
        raise ValueError(f"a hash that is too easily undone (DES): {BETTER}")
    raise ValueError(f"no hash that is known (bcrypt, scrypt$ or pbkdf2_sha256$): {BETTER}")


def pbkdf2_verifier(hashed: str) -> Verify:
    match = re.fullmatch(r"pbkdf2_sha256\$([1-9][0-9]{0,7})\$([^$]+)\$([A-Za-z0-9+/]+=*)", hashed)
    if match is None or int(match[1]) > PBKDF2_MOST:
        raise ValueError(f"not pbkdf2_sha256$ITERATIONS$SALT$HASH: {BETTER}")
    iterations, salt, digest = int(match[1]), match[2].encode(), decoded(match[3])
    return lambda password: hmac.compare_digest(
        hashlib.pbkdf2_hmac("sha256", password, salt, iterations, len(digest)), digest
    )


def scrypt_verifier(hashed: str) -> Verify:
    match = re.fullmatch(
        r"scrypt\$([1-9][0-9]{0,7})\$([^$]+)\$([1-9][0-9]?)\$([1-9][0-9]?)\$([A-Za-z0-9+/]+=*)", hashed
    )
    if match is None:
        raise ValueError(f"not scrypt$N$SALT$R$P$HASH: {BETTER}")
    work, block, parallel = int(match[1]), int(match[3]), int(match[4])
    if work & (work - 1) or 128 * work * block > SCRYPT_MOST:
        raise ValueError(f"scrypt's N is a power of two, and 128*N*R at most 256 MiB: {BETTER}")
    salt, digest = match[2].encode(), decoded(match[5])
    return lambda password: hmac.compare_digest(
        scrypt(password, salt, work, block, parallel, len(digest)), digest
    )


def scrypt(password: bytes, salt: bytes, work: int, block: int, parallel: int, size: int) -> bytes:
    # All that it takes, and a little for OpenSSL.
    most = 128 * block * (work + parallel + 2) + 65536
    return hashlib.scrypt(password, salt=salt, n=work, r=block, p=parallel, maxmem=most, dklen=size)


def bcrypt_verifier(hashed: str) -> Verify:
    match = re.fullmatch(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}", hashed)
    if match is None or not 4 <= int(match[1]) <= BCRYPT_COST_MOST:
        raise ValueError(f"not a bcrypt hash with a cost of at most {BCRYPT_COST_MOST}: {BETTER}")
    try:
        bcrypt = importlib.import_module("bcrypt")
    except ImportError:
        raise ValueError(
            "a bcrypt hash, for which bcrypt has to be installed: pip install 'fastwsgi[bcrypt]'"
        ) from None
    expected = hashed.encode()
    return lambda password: b"\0" not in password and bool(bcrypt.checkpw(password[:BCRYPT_OCTETS], expected))


def decoded(text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) < 16:
        raise ValueError(f"its last part is not a digest in base64: {BETTER}")
    return digest


def new_hash(password: bytes) -> str:
    """A hash of a password, with a salt of its own."""
    salt = secrets.token_hex(11)
    if hasattr(hashlib, "scrypt"):
        digest = scrypt(password, salt.encode(), SCRYPT_WORK, SCRYPT_BLOCK, SCRYPT_PARALLEL, 64)
        start = f"scrypt${SCRYPT_WORK}${salt}${SCRYPT_BLOCK}${SCRYPT_PARALLEL}"
    else:
        digest = hashlib.pbkdf2_hmac("sha256", password, salt.encode(), PBKDF2_ITERATIONS)
        start = f"pbkdf2_sha256${PBKDF2_ITERATIONS}${salt}"
    return f"{start}${base64.b64encode(digest).decode()}"


# ---- files ----


def read_passwords(path: str) -> dict[str, Verify]:
    """The users of a file; raise ConfigError, saying in which line, for what is none."""
    found: dict[str, Verify] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"auth: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"auth: {path} is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise ConfigError(f"auth: {path}, line {number}: not USER:HASH")
        if user in found:
            raise ConfigError(f"auth: {path}, line {number}: {user} is there a second time")
        try:
            # htpasswd's form may go on behind another colon.
            found[user] = verifier(hashed.split(":")[0].strip())
        except ValueError as error:
            raise ConfigError(f"auth: {path}, line {number}: {user} has {error}") from None
    return found


def basic_credentials(field: str) -> tuple[str, bytes] | None:
    """User and password of an Authorization field (RFC 7617), as WSGI has it; None: another scheme."""
    scheme, _, token = field.strip(" \t").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(" \t"), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:
        return None


class Doorkeeper:
    """Lets in who has a password of a file. Shared by all threads; made before the fork, like its rate."""

    def __init__(self, path: str, rates: Rates) -> None:
        """Read the file; raise ConfigError if it has something that is none of ours."""
        self.path: Final = path
        self._wrong = Rate(rates, WRONG_INTERVAL, WRONG_AT_ONCE - 1)
        self._secret = secrets.token_bytes(32)
        self._lock = allocate_lock()
        self._verifying = [allocate_lock() for _ in range(AT_ONCE)]
        self._known: dict[bytes, tuple[str, float]] = {}
        self._looks_at = time.monotonic() + LOOK_PAUSE
        self._seen = signature(path)
        self._users: Mapping[str, Verify] = read_passwords(path)

    def judge(self, field: str | None, client: bytes) -> Judgement:
        """Say who comes with this Authorization field from that address (empty: it has none)."""
        self._look()
        credentials = None if field is None else basic_credentials(field)
        if field is None or credentials is None:
            return Judgement(status=401)
        digest = hashlib.blake2b(field.encode("latin-1"), key=self._secret, digest_size=16).digest()
        user = self._remembered(digest)
        if user is not None:
            return Judgement(user)
        # The same credentials wait for the same lock: a browser sends several requests with them at once.
        lock = self._verifying[digest[0] % AT_ONCE]
        if not lock.acquire(timeout=PATIENCE):
            return Judgement(status=503, retry_after=1.0)
        try:
            user = self._remembered(digest)
            return Judgement(user) if user is not None else self._verify(*credentials, client, digest)
        finally:
            lock.release()

    def _verify(self, user: str, password: bytes, client: bytes, digest: bytes) -> Judgement:
        client = client or NO_ADDRESS
        wait = self._wrong.wait(client, takes=False)
        if wait:
            return Judgement(status=429, retry_after=wait)
        users = self._users
        # Somebody who is not there takes as long as one who is.
        verify = users.get(user) or next(iter(users.values()), None)
        if verify is not None and verify(password) and user in users:
            with self._lock:
                if users is self._users:
                    self._remember(digest, user)
            return Judgement(user)
        self._wrong.wait(client)
        return Judgement(status=401)

    def _remembered(self, digest: bytes) -> str | None:
        user, until = self._known.get(digest, (None, 0.0))
        return user if until > time.monotonic() else None

    def _remember(self, digest: bytes, user: str) -> None:
        """With the lock held."""
        known = self._known
        known.pop(digest, None)
        while len(known) >= REMEMBERED_MOST:
            del known[next(iter(known))]
        known[digest] = (user, time.monotonic() + REMEMBERED)

    def _look(self) -> None:
        """See now and then whether the file has changed; one that is no good changes nothing."""
        now = time.monotonic()
        if now < self._looks_at or not self._lock.acquire(blocking=False):
            return
        try:
            self._looks_at = now + LOOK_PAUSE
            seen = signature(self.path)
            if seen == self._seen:
                return
            self._seen = seen
            try:
                self._users = read_passwords(self.path)
            except ConfigError as error:
                LOG.error("%s; what it had before goes on to count", error)
                return
            self._known = {}
            LOG.info("auth: %s has changed and was read again", self.path)
        finally:
            self._lock.release()


def signature(path: str) -> tuple[int, ...]:
    """What changes when a file does."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


# ---- the command ----


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Do what `fastwsgi passwd` says; the exit code and the text to print."""
    if len(arguments) != 2 or any(word.startswith("-") for word in arguments):
        raise ConfigError(f"usage: fastwsgi {USAGE}")
    path, user = arguments
    if not user or ":" in user or user.startswith("#") or not user.isprintable():
        raise ConfigError(f"{user!r} cannot be a user: no colon, no control character, no # before it")
    line = f"{user}:{new_hash(asked_password())}"
    was_there = write_line(os.path.realpath(path), user, line)
    return 0, f"{path}: {'another password for' if was_there else 'with'} {user}\n"


def asked_password() -> bytes:
    """From the terminal, twice; or the first line of the standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Once more: "):
            raise ConfigError("these two differ; nothing was written")
    else:
        password = sys.stdin.readline().rstrip("\r\n") if sys.stdin is not None else ""
    if not password:
        raise ConfigError("no password was given; nothing was written")
    return password.encode("utf-8", "surrogateescape")


def write_line(path: str, user: str, line: str) -> bool:
    """Replace or add the line of a user; tell whether there was one. Readers see all of it or nothing."""
    try:
        before = os.stat(path)
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        before, lines = None, []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    kept = [one for one in lines if one.partition(":")[0] != user]
    try:
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write("".join(f"{one}\n" for one in [*kept, line]))
            if before is not None:
                with suppress(PermissionError):
                    os.fchown(fd, before.st_uid, before.st_gid)
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return len(kept) < len(lines)
