"""Files of certificates that change, and how others come to know."""

import logging
import os
import re
import ssl
import threading

import pytest

from certificates import AUTHORITY, Authority, Meeting, client_context
from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.renewal import Renewal, Store
from fastwsgi.tls import Policy


class Site:
    """A directory as certbot has it: the certificate in use is a link."""

    def __init__(self, directory):
        self.directory = directory
        self.number = 0
        self.paths = directory / "live.pem", directory / "live.key"

    def issue(self, *names, **options):
        self.number += 1
        for path, new in zip(
            self.paths, AUTHORITY.write(self.directory, f"{self.number}", *names, **options), strict=True
        ):
            link = self.directory / "link"
            link.symlink_to(new)
            link.replace(path)

    def policy(self, **options):
        return Policy.of(Settings(certfile=str(self.paths[0]), keyfile=str(self.paths[1]), **options))


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.issue("one.example")
    return site


@pytest.fixture
def renewal(site):
    renewal = Renewal.of(site.policy())
    yield renewal
    renewal.close()


def looks(renewal, times=2):
    """What is said when files are looked at; what has changed counts at the second time."""
    return [said for _ in range(times) for said in renewal.look()]


def names_served(tls):
    return Meeting(tls.context, client_context()).names


def test_a_renewed_certificate_is_in_the_next_handshake(site, renewal):
    tls = renewal.tls()
    assert looks(renewal) == []
    assert names_served(tls) == ["one.example"]
    site.issue("two.example")
    # The first look sees that there is something; perhaps not all of it is there.
    assert looks(renewal, 1) == []
    assert names_served(tls) == ["one.example"]
    ((level, text),) = looks(renewal, 1)
    assert level == logging.INFO
    assert text.startswith(f"Renewed: the certificate of two.example in {site.paths[0]}, until ")
    assert names_served(tls) == ["two.example"]
    assert looks(renewal) == []


def test_sessions_outlive_a_renewal(site, renewal):
    tls = renewal.tls()
    client = client_context()
    first = Meeting(tls.context, client)
    site.issue("two.example")
    looks(renewal)
    assert names_served(tls) == ["two.example"]
    assert Meeting(tls.context, client, session=first.client.session).client.session_reused


@pytest.mark.parametrize("what", ["key", "missing", "broken", "odd", "ended", "not yet"])
def test_a_broken_one_leaves_the_former(site, renewal, what):
    tls = renewal.tls()
    if what == "key":
        site.paths[1].write_text(AUTHORITY.issue("two.example")[1])
        words = "is not that of the certificate"
    elif what == "missing":
        site.paths[0].unlink()
        words = "No such file"
    elif what == "broken":
        site.paths[0].write_text("gone")
        words = "there is no certificate in it"
    elif what == "odd":
        # A name that is no UTF-8.
        site.issue("two.example")
        octets = ssl.PEM_cert_to_DER_cert(site.paths[0].read_text().strip() + "\n")
        site.paths[0].write_text(ssl.DER_cert_to_PEM_cert(octets.replace(b"two.example", b"tw\xff.example")))
        words = "the certificate in"
    elif what == "ended":
        site.issue("two.example", age=-9, days=-2)
        words = "has ended"
    else:
        site.issue("two.example", age=2)
        words = "is not valid before"
    ((level, text),) = looks(renewal)
    assert level == logging.ERROR
    assert text.startswith("Certificates are not renewed, those in use stay: ")
    assert words in text
    assert looks(renewal) == []
    assert names_served(tls) == ["one.example"]
    # And a good one after it.
    site.issue("three.example")
    assert [level for level, _ in looks(renewal)] == [logging.INFO]
    assert names_served(tls) == ["three.example"]


def test_a_certificate_without_its_key_is_not_told_of_at_once(site, renewal):
    new, key = AUTHORITY.issue("two.example")
    site.paths[0].unlink()
    site.paths[0].write_text(new)
    assert looks(renewal, 1) == []
    site.paths[1].unlink()
    site.paths[1].write_text(key)
    assert [level for level, _ in looks(renewal)] == [logging.INFO]


def test_other_authorities_for_clients(site, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text(AUTHORITY.pem)
    renewal = Renewal.of(site.policy(ca_certs=str(ca), cert_reqs="required"))
    tls, other = renewal.tls(), Authority("Other")
    client = client_context()
    client.load_cert_chain(*other.write(tmp_path, "client", common="Ada", is_client=True))
    ca.write_text(AUTHORITY.pem + other.pem)
    looks(renewal)
    assert Meeting(tls.context, client).server.getpeercert()
    renewal.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_does_not_outlive_its_authority(site, tmp_path, version):
    ca = tmp_path / "ca.pem"
    ca.write_text(AUTHORITY.pem)
    renewal = Renewal.of(site.policy(ca_certs=str(ca), cert_reqs="required"))
    tls = renewal.tls()
    client = client_context(maximum_version=version)
    client.load_cert_chain(*AUTHORITY.write(tmp_path, "client", common="Ada", is_client=True))
    first = Meeting(tls.context, client)
    again = Meeting(tls.context, client, session=first.client.session)
    assert again.client.session_reused
    ca.write_text(Authority("Other").pem)
    looks(renewal)
    # That of the very handshake in which it is seen, and those behind it.
    for _ in range(2):
        with pytest.raises((ssl.SSLError, AssertionError)):
            Meeting(tls.context, client, session=again.client.session)
    renewal.close()


def test_another_process_reads(site):
    """The descriptor of the store is all that crosses; whoever reads there has no right to read the files."""
    renewal = Renewal.of(site.policy())
    shared = Renewal.shared(site.policy(), renewal.store.fd)
    tls = shared.tls()
    site.issue("two.example")
    assert looks(shared) == []
    looks(renewal)
    assert [text.split(" in ")[0] for _, text in looks(shared)] == ["Renewed: the certificate of two.example"]
    assert names_served(tls) == ["two.example"]
    other = Policy.of(Settings(certfile=str(site.directory / "1.pem")))
    with pytest.raises(ConfigError, match="other certificates cannot be read by a reload"):
        Renewal.shared(other, renewal.store.fd)
    shared.close()
    renewal.close()


def test_whoever_reads_amid_a_write_sees_that(site):
    store, material = Store(), site.policy().read()
    store.write(material)
    writes = threading.Thread(target=lambda: [store.write(material) for _ in range(300)])
    writes.start()
    found = []
    while writes.is_alive():
        found.append(store.read())
    writes.join()
    assert set(found) <= {material, None}
    assert store.read() == material
    assert store.version == 301
    os.pwrite(store.fd, b"\xff", 60)
    assert store.read() is None
    store.close()


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (9.5, logging.WARNING, r"Ends soon: .*\(9 days\)"),
        (-1, logging.ERROR, "No client takes it: .* has ended"),
    ],
)
def test_the_end_comes_near(site, days, level, words):
    site.issue("one.example", age=-9, days=days)
    renewal = Renewal.of(site.policy())
    ((found, text),) = looks(renewal)
    assert found == level
    assert re.search(words, text)
    # Once a day.
    assert looks(renewal) == []
    renewal.close()


def test_what_is_told_of_certificates(renewal, site):
    assert [text.split(",")[0] for text in renewal.descriptions()] == [
        f"TLS with the certificate of one.example in {site.paths[0]}"
    ]
    ((name, file, ends),) = renewal.ends()
    assert (name, file) == ("one.example", str(site.paths[0]))
    assert ends == renewal.material.certificates[0].ends
