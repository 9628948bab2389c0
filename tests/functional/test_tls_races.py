"""Handshakes of several clients at once, while what they are made of changes.

For as long as the tests of test_races.py (RACES_SECONDS).
"""

import dataclasses
import random
import ssl
import threading
import time

import pytest

from certificates import AUTHORITY, Authority, client_context
from conftest import POLLERS, crew_id, of_threads, serving
from fastwsgi.config import Settings
from fastwsgi.tls import Policy
from functional.test_races import SECONDS
from secure import SecureServer
from support import answering, wait_until

CLIENTS = 4
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

pytestmark = of_threads


@pytest.fixture(params=[(poller, 4) for poller in POLLERS], ids=crew_id)
def serve(request):
    yield from serving(request, SecureServer, *request.param)


@answering
def who_asks(environ):
    return f"{environ['SSL_PROTOCOL']} {environ['SSL_CIPHER']} {environ.get('SSL_CLIENT_S_DN')}"


def materials(directory):
    """Settings of a server, and what its certificates and authorities are one after the other."""
    ca = directory / "ca.pem"
    found = []
    for number, authorities in enumerate((AUTHORITY.pem, AUTHORITY.pem + Authority("Other").pem)):
        ca.write_text(authorities)
        certfile, keyfile = AUTHORITY.write(directory, "site", "localhost", f"{number}.example")
        files = {"certfile": certfile, "keyfile": keyfile, "ca_certs": str(ca), "cert_reqs": "optional"}
        found.append(Policy.of(Settings(**files)).read())
    first, second = found
    only_certificates = dataclasses.replace(second, authorities=first.authorities)
    return files, [first, only_certificates, second]


class Asking(threading.Thread):
    """Comes again and again, with one version of TLS or the other, and perhaps a session of before."""

    def __init__(self, server, over, name, certificate):
        super().__init__(name=name)
        self.server = server
        self.over = over
        self.name_of_client = None if certificate is None else f"CN={name}"
        self.contexts = [client_context(minimum_version=one, maximum_version=one) for one in VERSIONS]
        if certificate is not None:
            for context in self.contexts:
                context.load_cert_chain(*certificate)
        self.sessions = dict.fromkeys(self.contexts)
        self.asked = self.resumed = 0
        self.wrong = []

    def run(self):
        while not self.over.is_set():
            context = random.choice(self.contexts)
            session = self.sessions.pop(context, None)
            try:
                self.ask(context, session)
            except (ssl.SSLError, ConnectionError) as error:
                # Authorities that are not there any more may have verified that session; then, and only then.
                if session is None:
                    self.wrong.append(error)

    def ask(self, context, session):
        with self.server.connect(context=context, session=session) as client:
            side = client.socket.ssl
            expected = f"{side.version()} {side.cipher()[0]} {self.name_of_client}"
            for _ in range(2):
                said = client.ask().text
                if said != expected:
                    self.wrong.append((expected, said))
            self.resumed += side.session_reused
            self.sessions[context] = side.session
        self.asked += 1


def test_all_that_handshakes_are_made_of_changes(serve, tmp_path):
    files, several = materials(tmp_path)
    server = serve(who_asks, **files)
    server.log.allow("a TLS handshake failed")
    server.log.allow("handshakes failed")
    over = threading.Event()
    clients = []
    for number in range(CLIENTS):
        name = f"client-{number}"
        certificate = AUTHORITY.write(tmp_path, name, common=name, is_client=True) if number % 2 else None
        clients.append(Asking(server, over, name, certificate))
    # As the process does that watches the files.
    store, renewals = server.server._renewal.store, 0

    def served(what="asked"):
        return sum(getattr(client, what) for client in clients)

    def some_are_served(so_many):
        wait_until(
            lambda: served() >= so_many or any(client.wrong for client in clients), "clients to be served"
        )

    for client in clients:
        client.start()
    try:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until or (renewals < 99 and not served("resumed")):
            store.write(several[renewals % len(several)])
            renewals += 1
            some_are_served(served() + random.randrange(3 * CLIENTS))
    finally:
        over.set()
        for client in clients:
            client.join()
    assert [client.wrong for client in clients] == [[]] * CLIENTS
    assert served("resumed")
    # The last ones are those of all clients from now on.
    store.write(several[-1])
    with server.connect() as client:
        names = client.socket.ssl.getpeercert()["subjectAltName"]
    assert names == (("DNS", "localhost"), ("DNS", "1.example"))
