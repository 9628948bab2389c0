"""TLS from outside: what clients get, certificates that are renewed, and who may read them."""

import http.client
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess

import httpx
import psutil
import pytest
import requests

from certificates import AUTHORITY, Authority, client_context
from process.family import stop, wait_for_workers, workers_of
from process.load import load
from subprocesses import Process
from support import PATIENCE, Client, request, wait_until

HELLO = "apps:hello"
HSTS = "Strict-Transport-Security"


class Site:
    """Certificates of a server, its clients' authority, and what it is started with."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = directory / "ca.pem"
        self.ca.write_text(AUTHORITY.pem)
        self.issue("localhost")

    def issue(self, *names, stem="site", **options):
        """A certificate in the place of the one that is there, as a tool that renews does it."""
        new = AUTHORITY.write(self.directory, "new", *names, **options)
        paths = [str(self.directory / f"{stem}.{kind}") for kind in ("pem", "key")]
        for path, target in zip(new, paths, strict=True):
            os.chmod(path, 0o600)
            os.replace(path, target)
        return paths

    @property
    def flags(self):
        return ("--certfile", str(self.directory / "site.pem"), "--keyfile", str(self.directory / "site.key"))


@pytest.fixture
def tls_site(short_path):
    return Site(short_path)


def connect(server, context=None, name="localhost", port=None, session=None):
    """A client that has shaken hands."""
    sock = socket.create_connection(("127.0.0.1", port or server.ports[0]), timeout=PATIENCE)
    return (context or client_context()).wrap_socket(sock, server_hostname=name, session=session)


def names_of(client):
    return [value for _, value in client.getpeercert()["subjectAltName"]]


def names_served(server, name="localhost"):
    with connect(server, name=name) as client:
        return names_of(client)


def ask(client, target="/"):
    """What it answers, as JSON; the connection is kept."""
    client.sendall(request(target))
    response = http.client.HTTPResponse(client)
    response.begin()
    assert response.status == 200
    return json.loads(response.read())


def wait_count(server, words, number):
    wait_until(
        lambda: server.stderr.count(words) == number, lambda: f"{words} {number} times: {server.stderr}"
    )


def s_client(server, *arguments, said="GET / HTTP/1.0\r\n\r\n"):
    """What `openssl s_client` tells of a connection."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.ports[0]}", *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_clients(start, tls_site):
    server = start(*tls_site.flags, "--bind", "127.0.0.1:0", "--bind", "http://127.0.0.1:0", "apps:secure")
    assert server.stderr.count("Listening at https://127.0.0.1:") == 1
    assert server.stderr.count("Listening at http://127.0.0.1:") == 1
    assert f"TLS with the certificate of localhost in {tls_site.directory}/site.pem, until " in server.stderr
    sealed, plain = server.ports
    ca = str(tls_site.ca)
    url = f"https://localhost:{sealed}/"
    said = [
        json.loads(subprocess.check_output(["curl", "-sS", "--cacert", ca, url])),
        requests.get(url, verify=ca, timeout=PATIENCE).json(),
        httpx.get(url, verify=ssl.create_default_context(cafile=ca)).json(),
    ]
    for one in said:
        assert (one["scheme"], one["HTTPS"], one["port"]) == ("https", "on", str(sealed))
        assert one["SSL_PROTOCOL"] == "TLSv1.3"
        assert one["SSL_CIPHER"].startswith("TLS_")
    unsealed = requests.get(f"http://localhost:{plain}/", timeout=PATIENCE).json()
    assert unsealed == {"scheme": "http", "port": str(plain), "worker": server.worker}
    stop(server)


def test_redirects_and_hsts(start, tls_site):
    server = start(
        *(*tls_site.flags, "--bind", "127.0.0.1:0", "--bind", "http://127.0.0.1:0"),
        *("--tls-redirect", "--hsts", "30d", "--health", "/healthz", "--acme-dir", str(tls_site.directory)),
        "apps:secure",
    )
    sealed, plain = server.ports
    url = f"http://localhost:{plain}/a%20b?c=d"

    def asked(method, url, **fields):
        options = {"allow_redirects": False, "timeout": PATIENCE, "verify": str(tls_site.ca)}
        answer = requests.request(method, url, headers=fields, **options)
        return answer.status_code, answer.headers.get("Location"), answer.headers.get(HSTS)

    there = f"https://localhost:{sealed}/a%20b?c=d"
    assert asked("GET", url) == asked("HEAD", url) == (301, there, None)
    assert asked("POST", url) == (308, there, None)
    assert asked("GET", there) == (200, None, "max-age=2592000")
    assert asked("GET", f"http://localhost:{plain}/healthz") == (200, None, None)
    (tls_site.directory / "token").write_text("token.key")
    assert asked("GET", f"http://localhost:{plain}/.well-known/acme-challenge/token") == (200, None, None)
    # A proxy of this machine is trusted.
    assert asked("GET", url, **{"X-Forwarded-Proto": "https"}) == (200, None, "max-age=2592000")
    assert asked("GET", there, **{"X-Forwarded-Proto": "http"}) == (301, there, None)
    with Client(("127.0.0.1", plain)) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.read_response().status == 400  # nobody knows where to
    stop(server)


def test_without_a_supervisor(start, tls_site):
    server = start(*tls_site.flags, "--workers", "0", "apps:secure")
    with connect(server) as client:
        assert ask(client)["worker"] == server.pid
        tls_site.issue("localhost", "renewed.example")
        server.wait_said("Renewed: the certificate of localhost")
        assert names_served(server) == ["localhost", "renewed.example"]
        ask(client)
    stop(server)


@pytest.mark.parametrize("way", [("--preload",), ("--reuse-port",), ("--health", "/healthz")], ids=str)
def test_ways_of_workers(start, tls_site, way):
    server = start(*tls_site.flags, "--workers", "2", *way, "apps:secure", alone=False)
    server.wait_said("workers serve")
    with connect(server) as client:
        ask(client)
    stop(server)


def test_the_name_chooses_the_certificate(start, tls_site):
    other = ",".join(tls_site.issue("shop.example", "*.shop.example", stem="shop"))
    server = start(*tls_site.flags, "--tls-cert", other, HELLO)
    assert names_served(server) == ["localhost"]
    assert names_served(server, "www.shop.example") == ["shop.example", "*.shop.example"]
    said = s_client(server, "-servername", "shop.example", "-CAfile", str(tls_site.ca))
    assert "CN = shop.example" in said.stdout
    assert "Verify return code: 0 (ok)" in said.stdout
    stop(server)


def test_certificates_of_clients(start, tls_site):
    certificate, key = AUTHORITY.write(tls_site.directory, "ada", common="Ada", is_client=True)
    required = ("--ca-certs", str(tls_site.ca), "--cert-reqs", "required")
    server = start(*tls_site.flags, *required, "apps:secure")
    url = f"https://localhost:{server.ports[0]}/"
    curl = ["curl", "-sS", "--cacert", str(tls_site.ca)]
    known = json.loads(subprocess.check_output([*curl, "--cert", certificate, "--key", key, url]))
    assert (known["SSL_CLIENT_VERIFY"], known["SSL_CLIENT_S_DN"]) == ("SUCCESS", "CN=Ada")
    assert known["SSL_CLIENT_I_DN"] == "CN=Test Authority"
    assert known["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
    assert subprocess.run([*curl, url], capture_output=True, check=False).returncode != 0
    stranger = Authority("Other").write(tls_site.directory, "eve", common="Eve", is_client=True)
    refused = [*curl, "--cert", stranger[0], "--key", stranger[1], url]
    assert subprocess.run(refused, capture_output=True, check=False).returncode != 0
    stop(server)


# Renewal.


def test_renewal_under_load(start, tls_site):
    """Connections go on, each new one has the new certificate, in each worker, and sessions are resumed."""
    server = start(*tls_site.flags, "--workers", "2", "numbered:application", alone=False)
    server.wait_said("workers serve")
    before = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    with connect(server, before) as kept, load(server.address, clients=10, tls=before) as running:
        kept.sendall(request("/1"))
        kept.recv(65536)
        session = kept.session
        for number in (1, 2):
            tls_site.issue("localhost", f"{number}.example")
            wait_count(server, "Renewed: ", number)
            for _ in range(10):
                assert names_served(server) == ["localhost", f"{number}.example"]
        running.wait_workers(*map(str, workers_of(server)))
        with connect(server, before, session=session) as again:
            assert again.session_reused
        kept.sendall(request("/2"))
        assert kept.recv(65536)
        assert names_of(kept) == ["localhost"]
    running.report.check()
    stop(server)


def test_a_broken_renewal_changes_nothing(start, tls_site):
    server = start(*tls_site.flags, HELLO)
    (tls_site.directory / "site.key").write_text("nothing")
    server.wait_said(
        "Certificates are not renewed, those in use stay: "
        f"{tls_site.directory}/site.key (--keyfile, --tls-cert): there is no private key in it (PEM)"
    )
    assert names_served(server) == ["localhost"]
    tls_site.issue("localhost", "good.example")
    server.wait_said("Renewed: ")
    assert names_served(server) == ["localhost", "good.example"]
    stop(server)


def test_a_reload_reads_them_too(start, tls_site):
    config = tls_site.directory / "fastwsgi.toml"

    def write(*pairs):
        config.write_text(f"app = '{HELLO}'\nworkers = 1\nbind = '127.0.0.1:0'\ntls_cert = {list(pairs)}\n")

    write(",".join(tls_site.issue("localhost")))
    server = start("--config", str(config), started=False)
    server.wait_started()
    write(",".join(tls_site.issue("localhost", "other.example", stem="other")))
    server.signal(signal.SIGHUP)
    server.wait_said("Reloaded in")
    assert names_served(server) == ["localhost", "other.example"]
    write(f"{tls_site.directory}/missing.pem")
    server.signal(signal.SIGHUP)
    server.wait_said(f"go on as before: cannot read {tls_site.directory}/missing.pem")
    write(",".join(tls_site.issue("localhost", stem="ended", days=-0.5)))
    server.signal(signal.SIGHUP)
    server.wait_said(f"go on as before: the certificate in {tls_site.directory}/ended.pem has ended")
    # What is watched is what serves.
    tls_site.issue("localhost", "renewed.example", stem="other")
    server.wait_said("Renewed: ")
    assert names_served(server) == ["localhost", "renewed.example"]
    stop(server)


def test_broken_code_at_a_reload_changes_nothing(start, tls_site):
    """Each time the certificates of the generation that is refused are given up once."""
    code = tls_site.directory / "sealed.py"
    code.write_text("from apps import hello\n")
    server = start(*tls_site.flags, "--pythonpath", str(tls_site.directory), "sealed:hello")
    for times in (1, 2):
        code.write_text("def")
        server.signal(signal.SIGHUP)
        wait_count(server, "Not reloaded", times)
        assert names_served(server) == ["localhost"]
        code.write_text("from apps import hello\n")
        server.signal(signal.SIGHUP)
        wait_count(server, "Reloaded in", times)
    assert names_served(server) == ["localhost"]
    stop(server)


def test_an_upgrade_goes_on_with_them(start, tls_site):
    server = start(*tls_site.flags, HELLO)
    server.signal(signal.SIGUSR2)
    server.wait_said("Reloaded in")
    tls_site.issue("localhost", "renewed.example")
    server.wait_said("Renewed: ")
    assert names_served(server) == ["localhost", "renewed.example"]
    # The next one cannot have them; those that serve are handed on.
    (tls_site.directory / "site.key").unlink()
    server.wait_said("site.key (--keyfile, --tls-cert): No such file")
    os.kill(next(iter(workers_of(server))), signal.SIGKILL)
    wait_for_workers(server, 1)
    assert names_served(server) == ["localhost", "renewed.example"]
    stop(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")
def test_without_roots_rights(interpreter, short_path):
    """Keys are root's alone; a process of root's reads what is renewed, through reloads and upgrades."""
    keys = short_path / "keys"
    keys.mkdir(mode=0o700)  # as certbot has its directories
    short_path.chmod(0o755)
    site, nobody = Site(keys), pwd.getpwnam("nobody").pw_uid
    arguments = (*site.flags, "--bind", "127.0.0.1:0", "--user", "nobody", "--workers", "2", HELLO)
    server = Process(arguments, short_path, {}, interpreter)
    try:
        server.wait_started()
        owners = sorted(psutil.Process(pid).uids().real for pid in wait_for_workers(server, 3))
        assert [psutil.Process(server.pid).uids().real, *owners] == [nobody, 0, nobody, nobody]
        for number, then in enumerate((None, signal.SIGHUP, signal.SIGUSR2)):
            if then is not None:
                server.signal(then)
                wait_count(server, "Reloaded in", number)
            site.issue("localhost", f"{number}.example")
            wait_count(server, "Renewed: ", number + 1)
            for _ in range(4):
                assert names_served(server) == ["localhost", f"{number}.example"]
        stop(server)
    finally:
        server.clean_up()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")
def test_when_roots_process_dies(start_public, tls_site):
    server = start_public(*tls_site.flags, "--user", "nobody", HELLO)
    (reader,) = (pid for pid in wait_for_workers(server, 2) if psutil.Process(pid).uids().real == 0)
    os.kill(reader, signal.SIGKILL)
    server.wait_said("The process that reads certificates was killed by SIGKILL")
    assert names_served(server) == ["localhost"]
    server.stop()


# Sessions.


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed_by_other_workers(start, tls_site, version):
    server = start(*tls_site.flags, "--workers", "2", "--reuse-port", "apps:secure", alone=False)
    server.wait_said("workers serve")
    file = tls_site.directory / "session"
    workers = set()

    def asked(how, *arguments):
        said = s_client(server, version, "-ign_eof", *arguments)
        assert f"{how}, TLSv1" in said.stdout, said
        workers.add(json.loads(re.search('{".*}', said.stdout)[0])["worker"])
        return len(workers) == 2

    asked("New", "-sess_out", str(file))
    wait_until(lambda: asked("Reused", "-sess_in", str(file)), "both workers")
    stop(server)


# What is refused: a small table as testssl.sh makes it.


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """One server for all of it, with an RSA and an ECDSA certificate."""
    site = Site(tmp_path_factory.mktemp("tls"))
    rsa = ",".join(site.issue("localhost", stem="rsa", kind="rsa"))
    arguments = (*site.flags, "--tls-cert", rsa, "--bind", "127.0.0.1:0", "--workers", "1", HELLO)
    server = Process(arguments, site.directory, {})
    server.wait_started()
    yield server
    server.stop()
    server.clean_up()


WEAK = "@SECLEVEL=0"


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (("-tls1_3",), "TLSv1.3, Cipher is TLS_"),
        (("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), "Cipher is TLS_CHACHA20_POLY1305"),
        (("-tls1_2",), "Cipher is ECDHE-ECDSA-"),
        (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "Cipher is ECDHE-RSA-AES128-GCM-SHA256"),
        (("-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"), "Cipher is ECDHE-RSA-CHACHA20-POLY1305"),
        # Versions.
        (("-tls1_1", "-cipher", f"ALL:{WEAK}"), None),
        (("-tls1", "-cipher", f"ALL:{WEAK}"), None),
        # A client that says that it has come down from a newer version has been tampered with.
        (("-tls1_2", "-fallback_scsv"), None),
        # Without forward secrecy, without integrity that goes with the cipher, without either end's name.
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), None),
        (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"), None),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"), None),
        (("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"), None),
        (("-tls1_2", "-cipher", f"AECDH-AES128-SHA:ADH-AES128-SHA256:{WEAK}"), None),
        (("-tls1_2", "-cipher", f"NULL:{WEAK}"), None),
        (("-tls1_2", "-cipher", f"DES-CBC3-SHA:3DES:{WEAK}"), None),
        (("-tls1_2", "-cipher", f"PSK:{WEAK}"), None),
        (("-tls1_2", "-curves", "P-192", "-cipher", f"ALL:{WEAK}"), None),
        # Weak signatures.
        (("-tls1_2", "-sigalgs", "RSA+SHA1:ECDSA+SHA1", "-cipher", f"ALL:{WEAK}"), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_spoken(table, arguments, outcome):
    said = s_client(table, *arguments)
    if outcome is None:
        assert "Cipher is (NONE)" in said.stdout or "no cipher match" in said.stderr.lower(), said
        assert said.returncode != 0
    else:
        assert outcome in said.stdout, said
        assert "Compression: NONE" in said.stdout


def test_protocols_that_this_openssl_has_not(table):
    """SSL 3.0, by hand: an alert or the end, and no ServerHello."""
    hello = (
        bytes.fromhex("16030000310100002d0300") + bytes(32) + bytes.fromhex("000006000a0005000401") + b"\0"
    )
    with socket.create_connection(table.address, timeout=PATIENCE) as client:
        client.sendall(hello)
        assert client.recv(1) in (b"\x15", b"")


def test_renegotiation_is_refused(table):
    said = s_client(table, "-tls1_2", said="R\n")
    assert "no renegotiation" in said.stderr or "unexpected eof" in said.stderr, said


def test_plain_http_gets_an_answer(table):
    with Client(table.address) as client:
        client.send(request("/"))
        response = client.read_response()
    assert response.status == 400
    assert b"https://" in response.content or b"TLS" in response.content


# Settings.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--certfile", "none.pem"), "cannot read {0}/none.pem (--certfile, --tls-cert): No such file"),
        (("--bind", "https://:0"), "cannot listen at https://:0 without a certificate: give certfile"),
        (("--keyfile", "x"), "keyfile: x is the key of what? give certfile, too"),
        (("--tls-redirect",), "tls_redirect without a certificate: give certfile"),
    ],
    ids=["missing", "https", "key", "redirect"],
)
@pytest.mark.parametrize("way", [(), ("--check-config",), ("--workers", "0")], ids=["", "check", "alone"])
def test_what_cannot_be_served(start, tmp_path, arguments, message, way):
    server = start("--bind", "127.0.0.1:0", *arguments, *way, HELLO, started=False)
    assert server.wait() == 1
    assert message.format(tmp_path) in server.stderr


def test_settings_are_shown(start, tls_site):
    server = start(*tls_site.flags, "--check-config", HELLO, started=False)
    assert server.wait() == 0
    assert "certificate" not in server.stderr
    tls_site.issue("localhost", days=-0.5)
    server = start(*tls_site.flags, "--check-config", HELLO, started=False)
    assert server.wait() == 0
    assert f"No client takes it: the certificate in {tls_site.directory}/site.pem has ended" in server.stderr
    tls_site.issue("localhost")
    server = start(*tls_site.flags, "--cert-reqs", "0", "--print-config", HELLO, started=False)
    assert server.wait() == 0
    assert f'certfile = "{tls_site.directory}/site.pem"  # --certfile' in server.stdout
    assert 'cert_reqs = "none"' in server.stdout


def test_gunicorns_file(start, tls_site, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        f"""
import ssl
certfile, keyfile = {str(tls_site.directory / "site.pem")!r}, {str(tls_site.directory / "site.key")!r}
bind = "127.0.0.1:0"
workers = 1

def ssl_context(config, default_ssl_context_factory):
    assert config.is_ssl and config.certfile == certfile
    context = default_ssl_context_factory()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
"""
    )
    server = start("--config", "gunicorn.conf.py", HELLO, started=False)
    server.wait_started()
    with connect(server) as client:
        assert client.version() == "TLSv1.2"
    stop(server)


def test_dev(start, tmp_path):
    pytest.importorskip("cryptography")
    server = start(
        "dev", "--tls", "--bind", "127.0.0.1:0", "apps:secure", started=False, XDG_CACHE_HOME=str(tmp_path)
    )
    server.wait_started()
    file = tmp_path / "fastwsgi/localhost.pem"
    url = f"https://localhost:{server.ports[0]}/"
    said = json.loads(subprocess.check_output(["curl", "-sS", "--cacert", str(file), url]))
    assert said["scheme"] == "https"
    wait_until(lambda: " 200 GET /  " in server.stdout, lambda: server.stdout)
    stop(server)


def test_when_certificates_end_is_told(start, tls_site):
    tls_site.issue("localhost", days=9.5)
    server = start(*tls_site.flags, "--metrics", "127.0.0.1:0", HELLO)
    server.wait_said("Ends soon: the certificate of localhost")
    stop(server)
