"""Certificates to TLS contexts: what the settings ask for, and which certificate a client gets.

    policy = Policy.of(settings)
    tls = Tls(policy, policy.read())
    tls.context.wrap_bio(incoming, outgoing, server_side=True)

The context is made before workers are forked: what it seals session tickets with is the same in all of them.
It is never changed. Newer certificates (`renewal`) are in contexts of their own, which clients get by SNI.
"""

import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeAlias

from fastwsgi.errors import ConfigError
from fastwsgi.logs import LOG
from fastwsgi.process import nameless_file

if TYPE_CHECKING:
    from fastwsgi.config import Settings

# Mozilla, Server Side TLS 6.0, "intermediate": for TLS 1.2. Those of TLS 1.3 are OpenSSL's. Clients choose.
CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
REQUIREMENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

# What ssl.SSLContext, or gevent's in its place, is a subclass of.
IN_C: Any = ssl.SSLContext.__mro__[-2]

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module has no name for.
NO_CHECK_TIME = 0x200000

# Makes a context out of the one that the function returns: the hook ssl_context of gunicorn.
Customize: TypeAlias = Callable[[Callable[[], ssl.SSLContext]], ssl.SSLContext]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key: the files, what is in them, and what the certificate says."""

    certfile: str
    keyfile: str
    chain: str
    key: str
    names: tuple[str, ...]  # of hosts, in lower case
    begins: float  # seconds since 1970
    ends: float

    @property
    def title(self) -> str:
        return self.names[0] if self.names else self.certfile

    def days_left(self) -> int:
        return int((self.ends - time.time()) // 86400)

    def out_of_date(self) -> str:
        """Why no client takes it now; empty if it is good."""
        now = time.time()
        if now >= self.ends:
            return f"the certificate in {self.certfile} has ended ({day(self.ends)})"
        if now < self.begins:
            return f"the certificate in {self.certfile} is not valid before {day(self.begins)}"
        return ""


@dataclass(frozen=True, slots=True)
class Material:
    """All that contexts are made of: certificates, the first for clients that ask for no other, and those
    whose certificates are taken from clients (a file, and the PEM in it).
    """

    certificates: tuple[Certificate, ...]
    ca_certs: str | None = None
    authorities: str = ""

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        return tuple((one.certfile, one.keyfile) for one in self.certificates)


class Newest(Protocol):
    """Where newer certificates are found: `version` changes when there are some."""

    @property
    def version(self) -> int: ...

    def read(self) -> Material | None:
        """None if they are just being written."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings ask for. Paths are absolute."""

    files: tuple[tuple[str, str], ...]  # of certificates and keys
    ca_certs: str | None
    cert_reqs: str
    ciphers: str
    protocol_min: str

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Of settings with a certificate; paths count from the current directory."""
        given = [] if settings.certfile is None else [(settings.certfile, settings.keyfile)]
        for text in settings.tls_cert:
            certfile, _, keyfile = text.partition(",")
            given.append((certfile, keyfile or None))
        return cls(
            tuple((os.path.abspath(cert), os.path.abspath(key or cert)) for cert, key in given),
            None if settings.ca_certs is None else os.path.abspath(settings.ca_certs),
            settings.cert_reqs,
            settings.ciphers or CIPHERS,
            settings.tls_protocol_min,
        )

    def paths(self) -> list[str]:
        """All files."""
        paths = [path for pair in self.files for path in pair]
        return [*dict.fromkeys(paths), *((self.ca_certs,) if self.ca_certs is not None else ())]

    def read(self) -> Material:
        """Read the files and try them; raise ConfigError for what no client could be served with."""
        authorities = "" if self.ca_certs is None else read_pem(self.ca_certs, "CERTIFICATE", "--ca-certs")
        material = Material(
            tuple(self._certificate(*pair) for pair in self.files), self.ca_certs, authorities
        )
        for together in by_names(material.certificates):
            self.make_context(together, authorities)
        return material

    def _certificate(self, certfile: str, keyfile: str) -> Certificate:
        chain = read_pem(certfile, "CERTIFICATE", "--certfile, --tls-cert")
        key = read_pem(keyfile, "PRIVATE KEY", "--keyfile, --tls-cert")
        bare = Certificate(certfile, keyfile, chain, key, (), 0.0, 0.0)
        try:
            said = presented(self._plain_context([bare]), bare)
            begins, ends = (float(ssl.cert_time_to_seconds(said[date])) for date in ("notBefore", "notAfter"))
        except ConfigError:
            raise
        except (ValueError, OSError, OverflowError) as error:
            # A name that is no UTF-8, a date that is none, no descriptors left, ...
            raise ConfigError(f"the certificate in {certfile} cannot be read: {error}") from None
        return Certificate(certfile, keyfile, chain, key, host_names(said), begins, ends)

    def make_context(
        self, certificates: Sequence[Certificate], authorities: str, customize: Customize | None = None
    ) -> ssl.SSLContext:
        """A context with certificates of the same names, one for each kind of key.

        Raises ConfigError if OpenSSL does not take something.
        """

        def make() -> ssl.SSLContext:
            context = self._plain_context(certificates)
            context.set_alpn_protocols(["http/1.1"])
            context.verify_mode = REQUIREMENTS[self.cert_reqs]
            if authorities:
                try:
                    context.load_verify_locations(cadata=authorities)
                except ssl.SSLError as error:
                    raise ConfigError(f"--ca-certs {self.ca_certs}: {reason_of(error)}") from None
            return context

        if customize is None:
            return make()
        try:
            context = customize(make)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"the hook ssl_context: {type(error).__name__}: {error}") from error
        if not isinstance(context, ssl.SSLContext):
            raise ConfigError(f"the hook ssl_context returns {context!r}, which is no SSLContext")
        return context

    def _plain_context(self, certificates: Sequence[Certificate]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.protocol_min]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            context.set_ciphers(self.ciphers)
        except ssl.SSLError:
            raise ConfigError(f"--ciphers {self.ciphers}: OpenSSL knows none of them") from None
        # Of those with keys of one kind the last counts.
        for certificate in reversed(certificates):
            load(context, certificate)
        return context


class Tls:
    """What the connections of a worker have TLS from: `context`, the same before and after the fork."""

    def __init__(
        self,
        policy: Policy,
        material: Material,
        newest: Newest | None = None,
        customize: Customize | None = None,
    ) -> None:
        """newest: where to look for newer certificates at each handshake. Raises ConfigError."""
        self._policy = policy
        self._customize = customize
        self._newest = newest
        self._version = 0 if newest is None else newest.version
        self._material = material
        self._renewing = threading.Lock()
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._first = self._take(material)
        self._begin_with(self._first)

    def _begin_with(self, context: ssl.SSLContext) -> None:
        """Connections begin with this context, whose sessions are resumed, and those of no other.

        So it changes with the authorities alone: a session is not verified again.
        """
        context.options |= ssl.OP_NO_RENEGOTIATION  # of the hook, too
        self._former: Any = context.sni_callback
        # Where gevent has patched ssl, its setter is for contexts of sockets.
        IN_C.sni_callback.__set__(context, self._choose)
        self.context = context

    def _take(self, material: Material) -> ssl.SSLContext:
        """Make contexts for all names; return the one for clients that ask for none of them."""
        by_name: dict[str, ssl.SSLContext] = {}
        first: ssl.SSLContext | None = None
        for together in by_names(material.certificates):
            context = self._policy.make_context(together, material.authorities, self._customize)
            first = first or context
            for name in together[0].names:
                by_name.setdefault(name, context)
        assert first is not None
        self._by_name = by_name
        return first

    def _choose(
        self, sslobject: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> Any:
        """The callback of a handshake: give it the newest context for that name."""
        if self._newest is not None and self._newest.version != self._version:
            self._renew(self._newest)
        if context is not self.context and sslobject.session_reused:
            return ssl.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN  # former authorities have verified it
        chosen = self._first if name is None else self._named(name.lower().rstrip("."))
        if chosen is not context:
            sslobject.context = chosen
        return None if self._former is None else self._former(sslobject, name, context)

    def _named(self, name: str) -> ssl.SSLContext:
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name.get(f"*.{name.partition('.')[2]}")
        return found or self._first

    def _renew(self, newest: Newest) -> None:
        # Handshakes that come meanwhile wait: none of them gets a certificate that is not in use any more.
        with self._renewing:
            version = newest.version
            material = newest.read() if version != self._version else None
            if material is None:
                return  # another thread has done it, or there are others in a moment
            try:
                if material != self._material:
                    has_others = material.authorities != self._material.authorities
                    self._first, self._material = self._take(material), material
                    if has_others:
                        self._begin_with(self._first)
            except (ConfigError, OSError) as error:
                LOG.error("The certificates in use stay: %s", error)
            self._version = version  # last: whoever sees it does not wait


def by_names(certificates: Iterable[Certificate]) -> Iterator[list[Certificate]]:
    """Certificates of the same names together: such as one with an RSA key, and one with an ECDSA key."""
    found: dict[object, list[Certificate]] = {}
    for certificate in certificates:
        found.setdefault(frozenset(certificate.names) or certificate.certfile, []).append(certificate)
    return iter(found.values())


def read_pem(path: str, what: str, option: str) -> str:
    """Read a file; raise ConfigError if it cannot be read, or has nothing of what is looked for."""
    try:
        with open(path, "rb") as file:
            # Whoever has comments in it may have them in any language.
            text = file.read().decode("ascii", "backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({option}): {error.strerror}") from None
    if f"{what}-----" not in text:
        raise ConfigError(f"{path} ({option}): there is no {what.lower()} in it (PEM)")
    return text


def load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Give a context a certificate and its key; raise ConfigError if OpenSSL does not take them."""

    def no_password() -> NoReturn:
        raise ConfigError(
            f"{certificate.keyfile}: the key is encrypted, and nobody is there to ask for its password; "
            "store it without one"
        )

    try:
        with readable(certificate.chain, certificate.key) as (chain, key):
            context.load_cert_chain(chain, key, no_password)
    except ssl.SSLError as error:
        # The latter: a key of another kind, such as RSA with a certificate for ECDSA.
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            raise ConfigError(
                f"the key in {certificate.keyfile} is not that of the certificate in {certificate.certfile}"
            ) from None
        where = f"the certificate in {certificate.certfile} or the key in {certificate.keyfile}"
        raise ConfigError(f"{where}: {reason_of(error)}") from None


def reason_of(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    reason = getattr(error, "verify_message", "") or (error.reason or "this is broken").lower().replace(
        "_", " "
    )
    return f"OpenSSL says: {reason}"


@contextmanager
def readable(*texts: str) -> Iterator[list[str]]:
    """Paths under which this process finds these texts, in files without names: keys stay off the disk."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    with ExitStack() as closing:
        paths = []
        for text in texts:
            fd = nameless_file()
            closing.callback(os.close, fd)
            os.pwrite(fd, text.encode(), 0)
            paths.append(f"{directory}/{fd}")
        yield paths


def presented(context: ssl.SSLContext, certificate: Certificate) -> dict[str, Any]:
    """What a client reads in the certificate that it gets: one in memory, which shakes hands with a server.

    Raises ConfigError if it does not come to that.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    # Whoever has issued it, and whether it is its time.
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        trusting.load_verify_locations(cadata=certificate.chain)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(back, there)
        server = context.wrap_bio(there, back, server_side=True)
        while not advances(client):
            advances(server)
    except ssl.SSLError as error:
        raise ConfigError(f"the certificate in {certificate.certfile}: {reason_of(error)}") from None
    said = client.getpeercert()
    assert said
    return said


def advances(side: ssl.SSLObject) -> bool:
    """Go on with a handshake; True if that side is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def host_names(said: dict[str, Any]) -> tuple[str, ...]:
    """The names in a certificate: alternative ones, or if there are none the common one."""
    names = [value for kind, value in said.get("subjectAltName", ()) if kind == "DNS"]
    common = [value for part in said.get("subject", ()) for key, value in part if key == "commonName"]
    return tuple(dict.fromkeys(name.lower() for name in names or common))


def day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def tell_unraisable(what: "sys.UnraisableHookArgs", former: Any = sys.unraisablehook) -> None:
    """A name that is not ASCII is none of ours: that handshake fails, and is counted, without a traceback."""
    if not (isinstance(what.exc_value, UnicodeDecodeError) and isinstance(what.object, bytes)):
        former(what)


# The interpreter decodes the name before it calls us.
sys.unraisablehook = tell_unraisable
