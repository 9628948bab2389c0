"""Certificates for tests: an authority, what it issues, and clients and servers that meet in memory."""

import contextlib
import datetime
import ssl

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def new_key(kind="ec"):
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs; `pem` is its own certificate."""

    def __init__(self, name="Test Authority"):
        self.name = name_of(name)
        self.key = new_key()
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = self._sign(self.name, self.key, 30, -1, [x509.BasicConstraints(True, None), usage])
        self.pem = pem_of(self.certificate)

    def _sign(self, subject, key, days, age, extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=age))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names, kind="ec", days=60.5, age=-1, is_client=False, common=None, password=None):
        """PEM of a new certificate and of its key."""
        key = new_key(kind)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
        extensions = [x509.ExtendedKeyUsage([purpose])]
        if names:
            extensions.append(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]))
        certificate = self._sign(name_of(common or names[0]), key, days, age, extensions)
        return pem_of(certificate), pem_of_key(key, password)

    def write(self, directory, stem, *names, **options):
        """Issue to STEM.pem and STEM.key; return the paths."""
        paths = directory / f"{stem}.pem", directory / f"{stem}.key"
        for path, pem in zip(paths, self.issue(*names, **options), strict=True):
            path.write_text(pem)
        return tuple(map(str, paths))


def pem_of(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def pem_of_key(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, encryption).decode()


AUTHORITY = Authority()


def client_context(**attributes):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.pem)
    context.check_hostname = False
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


class Meeting:
    """A client and a server in memory, as far as they came."""

    def __init__(self, server, client, name=None, session=None):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(back, there, server_hostname=name, session=session)
        self.server = server.wrap_bio(there, back, server_side=True)
        done = set()
        for side in (self.client, self.server) * 4:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                done.add(side)
        assert len(done) == 2
        # Tickets of TLS 1.3 come behind the handshake.
        self.server.write(b"x")
        assert self.client.read(1) == b"x"

    @property
    def names(self):
        return [value for _, value in self.client.getpeercert()["subjectAltName"]]
