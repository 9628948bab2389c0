"""`fastwsgi dev`: the command as developers want it, and with --tls a certificate for this machine.

    command_line(["app:app", "--tls"])      # what the command is given instead

And what is for them where the options are given one by one, too: a line on what is not for production, the
browser, and a terminal as it was.
"""

import os
import platform
import subprocess
import sys
import termios
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIG_IGN, SIGTTOU, signal
from typing import TYPE_CHECKING, Any

from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError

if TYPE_CHECKING:
    from fastwsgi.reloader import Report

# What follows wins over it. Files and variables, which may be meant for production, do not.
ALWAYS = (
    *("--workers", "1", "--no-preload", "--no-reuse-port", "--no-daemon"),
    *("--reload", "--lint", "--tracebacks"),
    *("--access-logfile", "-", "--access-logformat", "short"),
    # For who sits at a breakpoint.
    *("--timeout", "0", "--log-slow", "0"),
)

SWITCH = "--tls"

LIFETIME_DAYS = 90
# One that ends so soon is replaced.
LEAST_DAYS = 7


def command_line(words: Sequence[str]) -> list[str]:
    """The words of a command line for those behind `dev`; makes a certificate if they want one.

    Raises ConfigError if that is not possible.
    """
    # As `flask run --debug` does: or Flask keeps exceptions to itself, and templates as they were.
    os.environ.setdefault("FLASK_DEBUG", "1")
    own = list(words[: words.index("--")] if "--" in words else words)
    rest = list(words[len(own) :])
    if SWITCH not in own:
        return [*ALWAYS, *own, *rest]
    own = [word for word in own if word != SWITCH]
    return [*ALWAYS, "--certfile", str(certificate_file()), *own, *rest]


def kept_certificate() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "fastwsgi", "localhost.pem")


def certificate_file() -> Path:
    """A file with a certificate for localhost and its key, kept from one start to the next."""
    file = kept_certificate()
    if days_left(file) < LEAST_DAYS:
        content = self_signed()
        try:
            write(file, content)
        except OSError as error:
            raise ConfigError(f"{SWITCH}: cannot write {file}: {error.strerror}") from None
        if sys.stderr is not None:
            print(
                f"fastwsgi: a certificate for localhost is in {file}; browsers ask whether to trust it, and "
                f"curl takes it with --cacert {file}",
                file=sys.stderr,
            )
    return file


def days_left(file: Path) -> int:
    """How long a certificate is good; 0 for what is none."""
    from fastwsgi.tls import Policy

    try:
        return Policy.of(Settings(certfile=str(file))).read().certificates[0].days_left()
    except ConfigError:
        return 0


def write(file: Path, content: bytes) -> None:
    """Write a file for its owner alone; it is there as a whole, or as it was."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as opened:
            opened.write(content)
        new.replace(file)
    except BaseException:
        new.unlink()
        raise


def self_signed() -> bytes:
    """PEM of a new certificate for localhost, signed by itself, and of its key; raise ConfigError without
    the package that can do that.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise ConfigError(
            f"{SWITCH} makes a certificate with the package cryptography: pip install 'fastwsgi[tls]', or "
            "give one (--certfile)"
        ) from None
    import datetime
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("*.localhost"),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def describe(settings: Settings, report: "Report | None") -> str:
    """What developers want to know of a server that starts; report: of the first worker."""
    known = [f"Python {platform.python_version()}"]
    if report is not None and report.entry:
        known.append(os.path.relpath(report.entry) if is_beneath(report.entry) else report.entry)
    return f"{', '.join(known)}; not for production: {', '.join(unfit_for_production(settings, report))}"


def unfit_for_production(settings: Settings, report: "Report | None") -> Iterator[str]:
    for name in ("reload", "lint", "tracebacks"):
        if getattr(settings, name):
            yield f"--{name}"
    if settings.certfile == str(kept_certificate()):
        yield "a self-signed certificate"
    if report is not None:
        yield from report.remarks


def is_beneath(file: str) -> bool:
    """It is in the current directory."""
    return os.path.abspath(file).startswith(os.path.join(os.getcwd(), ""))


def open_browser(urls: Iterable[str]) -> "subprocess.Popen[bytes] | None":
    """Have a browser show the first address that it can, if there is one; nobody waits for it."""
    url = next((url for url in urls if url.startswith(("http://", "https://"))), None)
    if url is None:
        return None
    # What comes behind it is for people.
    return subprocess.Popen(
        [sys.executable, "-m", "webbrowser", url.partition(" ")[0]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C here is not meant for it
    )


class Terminal:
    """How the terminal was, which a debugger that was killed may have left without echo."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._attributes: list[Any] | None = None
        with suppress(termios.error, OSError, ValueError):
            self._attributes = termios.tcgetattr(self._fd)

    def restore(self) -> None:
        if self._attributes is None:
            return
        with suppress(termios.error, OSError, ValueError):
            if termios.tcgetattr(self._fd) != self._attributes:
                # Whoever is not in the foreground would be stopped for it.
                former = signal(SIGTTOU, SIG_IGN)
                try:
                    termios.tcsetattr(self._fd, termios.TCSANOW, self._attributes)
                finally:
                    signal(SIGTTOU, former)
