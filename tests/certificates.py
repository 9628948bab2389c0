"""Certificates for tests: an authority, what it issues, and clients and servers that meet in memory.

The command `openssl` makes them, which there is for every Python.
"""

import contextlib
import datetime
import secrets
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

if shutil.which("openssl") is None:
    pytest.skip("certificates are made with the command openssl, which is not here", allow_module_level=True)

# For requests (`openssl req`) and for what comes of them (`openssl ca`).
CONFIGURATION = """
[req]
prompt = no
utf8 = yes
string_mask = utf8only
distinguished_name = subject
[subject]
CN = {common}
[ca]
default_ca = authority
[authority]
certificate = authority.pem
private_key = authority.key
serial = serial
database = index
new_certs_dir = .
default_md = sha256
policy = policy
x509_extensions = extensions
[policy]
commonName = supplied
[extensions]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{extensions}
"""
OF_AUTHORITY = "basicConstraints = critical, CA:true\nkeyUsage = keyCertSign, cRLSign"
KEYS = {"ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "rsa": ("-newkey", "rsa:2048")}


class Authority:
    """Signs; `pem` is its own certificate."""

    def __init__(self, name="Test Authority"):
        self.pem, self.key = made(name, OF_AUTHORITY, days=30, age=-1)

    def issue(self, *names, kind="ec", days=60.5, age=-1, is_client=False, common=None, password=None):
        """PEM of a new certificate and of its key.

        The names go into a configuration of OpenSSL: nothing in them means something there ($, #, \\).
        """
        extensions = f"extendedKeyUsage = {'clientAuth' if is_client else 'serverAuth'}"
        if names:
            extensions += "\nsubjectAltName = " + ", ".join(f"DNS:{name}" for name in names)
        return made(
            common or names[0], extensions, days=days, age=age, kind=kind, password=password, issuer=self
        )

    def write(self, directory, stem, *names, **options):
        """Issue to STEM.pem and STEM.key; return the paths."""
        paths = directory / f"{stem}.pem", directory / f"{stem}.key"
        for path, pem in zip(paths, self.issue(*names, **options), strict=True):
            path.write_text(pem)
        return tuple(map(str, paths))


def made(common, extensions, *, days, age, kind="ec", password=None, issuer=None):
    """PEM of a certificate, signed by itself if there is no issuer, and of its key."""
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = (f"{now + datetime.timedelta(days=count):%y%m%d%H%M%SZ}" for count in (age, days))
    sealed = ("-nodes",) if password is None else ("-passout", f"pass:{password.decode()}")
    signed = ("-selfsign", "-keyfile", "key") if issuer is None else ()
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        directory = Path(name)
        # What `ca` remembers of what it has signed is gone with the directory; so the number is a new one.
        files = {"index": "", "serial": "00" + secrets.token_hex(16)}
        files["configuration"] = CONFIGURATION.format(common=common, extensions=extensions)
        if issuer is not None:
            files |= {"authority.pem": issuer.pem, "authority.key": issuer.key}
        for file, text in files.items():
            (directory / file).write_text(text)
        openssl(directory, "req", "-new", *KEYS[kind], *sealed, "-keyout", "key", "-out", "request")
        dates = ("-startdate", begins, "-enddate", ends)
        openssl(directory, "ca", "-batch", "-notext", *signed, *dates, "-in", "request", "-out", "pem")
        return (directory / "pem").read_text(), (directory / "key").read_text()


def openssl(directory, command, *arguments):
    words = ("openssl", command, "-config", "configuration", *arguments)
    done = subprocess.run(words, cwd=directory, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


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
