"""Contexts for certificates: clients and servers that shake hands in memory."""

import ssl

import pytest

from certificates import AUTHORITY, Authority, Meeting, client_context
from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.tls import Policy, Tls


@pytest.fixture
def issue(tmp_path):
    """issue("stem", *names): the files of a new certificate and its key."""
    return lambda stem, *names, **options: AUTHORITY.write(tmp_path, stem, *names, **options)


def policy_of(*pairs, **options):
    return Policy.of(Settings(tls_cert=[",".join(pair) for pair in pairs], **options))


def tls_of(*pairs, **options):
    policy = policy_of(*pairs, **options)
    return Tls(policy, policy.read())


def names_for(tls, name):
    return Meeting(tls.context, client_context(), name).names


def test_the_name_that_a_client_asks_for_chooses(issue):
    tls = tls_of(
        issue("first", "first.example"),
        issue("second", "second.example", "*.second.example"),
        issue("third", "third.example", "second.example"),
    )
    assert names_for(tls, None) == ["first.example"]
    assert names_for(tls, "FIRST.example") == ["first.example"]
    assert names_for(tls, "www.second.example")[0] == "second.example"
    assert names_for(tls, "third.example")[0] == "third.example"
    # The first that has it; one label for a star; and whoever asks for nothing of ours gets the first one.
    assert names_for(tls, "second.example")[0] == "second.example"
    for other in ("a.b.second.example", "other.example"):
        assert names_for(tls, other) == ["first.example"]


def test_without_alternative_names_the_common_one_counts(issue):
    tls = tls_of(issue("first", "first.example"), issue("old", common="Old.example"))
    client = client_context()
    assert "subjectAltName" not in Meeting(tls.context, client, "old.example").client.getpeercert()


def test_two_kinds_of_keys_for_the_same_names(issue):
    rsa, ecdsa = issue("rsa", "a.example", kind="rsa"), issue("ec", "a.example")
    tls = tls_of(rsa, ecdsa)
    for kind in ("RSA", "ECDSA"):
        client = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        client.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        assert Meeting(tls.context, client, "a.example").client.cipher()[0].startswith(f"ECDHE-{kind}")


def test_one_file_may_have_both(issue, tmp_path):
    certificate, key = AUTHORITY.issue("both.example")
    # In any order, and with words in any language.
    (tmp_path / "both.pem").write_text(f"Schlüssel\n{key}{certificate}")
    policy = Policy.of(Settings(certfile=str(tmp_path / "both.pem")))
    assert names_for(Tls(policy, policy.read()), "both.example") == ["both.example"]


def test_certfile_comes_before_tls_cert(issue):
    (certfile, keyfile), other = issue("a", "a.example"), issue("b", "b.example")
    policy = Policy.of(Settings(certfile=certfile, keyfile=keyfile, tls_cert=[",".join(other)]))
    assert names_for(Tls(policy, policy.read()), None) == ["a.example"]


def test_what_is_spoken(issue):
    tls = tls_of(issue("a", "a.example", kind="rsa"))
    meeting = Meeting(tls.context, client_context())
    assert (meeting.client.version(), meeting.client.compression()) == ("TLSv1.3", None)
    client = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_alpn_protocols(["h2", "http/1.1"])
    meeting = Meeting(tls.context, client)
    assert (meeting.client.version(), meeting.client.selected_alpn_protocol()) == ("TLSv1.2", "http/1.1")
    # The client's order counts: it knows what its processor is good at.
    client.set_ciphers("ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256")
    assert Meeting(tls.context, client).client.cipher()[0] == "ECDHE-RSA-CHACHA20-POLY1305"
    for option in (ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
        assert tls.context.options & option


@pytest.mark.parametrize(
    "ciphers", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"]
)
def test_ciphers_that_are_not_mozillas(issue, ciphers):
    pair = issue("a", "a.example", kind="rsa")
    client = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        Meeting(tls_of(pair).context, client)
    if not ciphers.startswith("DHE"):
        assert Meeting(tls_of(pair, ciphers=ciphers).context, client).client.cipher()[0] == ciphers


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions(issue):
    pair = issue("a", "a.example")
    old = client_context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        Meeting(tls_of(pair).context, old)
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        Meeting(
            tls_of(pair, tls_protocol_min="1.3").context,
            client_context(maximum_version=ssl.TLSVersion.TLSv1_2),
        )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["a.example", "b.example", None])
def test_sessions_are_resumed(issue, version, name):
    """Whichever certificate it was: tickets are the first context's, which workers share."""
    tls = tls_of(issue("a", "a.example"), issue("b", "b.example"))
    client = client_context(maximum_version=version)
    first = Meeting(tls.context, client, name)
    assert not first.client.session_reused
    again = Meeting(tls.context, client, name, session=first.client.session)
    assert again.client.session_reused


def test_client_certificates(issue, tmp_path):
    (tmp_path / "ca.pem").write_text(AUTHORITY.pem)
    pair = issue("a", "a.example")
    known = client_context()
    known.load_cert_chain(*issue("client", common="Ada", is_client=True))
    stranger = client_context()
    stranger.load_cert_chain(*Authority("Other").write(tmp_path, "stranger", common="Eve", is_client=True))
    for requirement in ("required", "optional"):
        tls = tls_of(pair, ca_certs=str(tmp_path / "ca.pem"), cert_reqs=requirement)
        subject = Meeting(tls.context, known).server.getpeercert()["subject"]
        assert subject == ((("commonName", "Ada"),),)
        with pytest.raises(ssl.SSLCertVerificationError):
            Meeting(tls.context, stranger)
    assert not Meeting(tls.context, client_context()).server.getpeercert()
    tls = tls_of(pair, ca_certs=str(tmp_path / "ca.pem"), cert_reqs="2")
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        Meeting(tls.context, client_context())


def test_the_hook_ssl_context(issue):
    policy, asked = policy_of(issue("a", "a.example"), issue("b", "b.example")), []

    def customize(factory):
        context = factory()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.sni_callback = lambda _, name, __: asked.append(name)
        return context

    tls = Tls(policy, policy.read(), customize=customize)
    meeting = Meeting(tls.context, client_context(), "b.example")
    assert (meeting.names, meeting.client.version()) == (["b.example"], "TLSv1.2")
    assert asked == ["b.example"]
    for wrong, words in ((lambda _: None, "returns None"), (lambda _: 1 / 0, "ZeroDivisionError")):
        with pytest.raises(ConfigError, match=f"the hook ssl_context.*{words}"):
            Tls(policy, policy.read(), customize=wrong)


def test_wrong_files(issue, tmp_path):
    (first, first_key), (second, second_key) = issue("a", "a.example"), issue("b", "b.example")
    nothing, sealed = tmp_path / "nothing.pem", tmp_path / "sealed.key"
    nothing.write_text("nothing")
    sealed.write_text(AUTHORITY.issue("c.example", password=b"secret")[1])
    broken = tmp_path / "broken.pem"
    broken.write_text(f"{'-' * 5}BEGIN CERTIFICATE{'-' * 5}\nMIIB\n{'-' * 5}END CERTIFICATE{'-' * 5}\n")
    purpose = issue("client", "client.example", is_client=True)
    _, other_kind = issue("rsa", "rsa.example", kind="rsa")
    for pair, words in (
        (("missing.pem",), r"cannot read .*missing.pem \(--certfile, --tls-cert\): No such file"),
        ((first, f"{tmp_path}/no.key"), r"cannot read .*no.key \(--keyfile, --tls-cert\): No such file"),
        ((str(nothing), first_key), r"nothing.pem .*: there is no certificate in it"),
        ((first, str(nothing)), r"nothing.pem .*: there is no private key in it"),
        ((first,), r"a.pem \(--keyfile, --tls-cert\): there is no private key in it"),
        ((first, second_key), "the key in .*b.key is not that of the certificate in .*a.pem"),
        ((first, other_kind), "the key in .*rsa.key is not that of the certificate in .*a.pem"),
        ((second, str(sealed)), "sealed.key: the key is encrypted"),
        ((str(broken), first_key), "the certificate in .*broken.pem .*OpenSSL says"),
        (purpose, "the certificate in .*client.pem: OpenSSL says: .*purpose"),
    ):
        with pytest.raises(ConfigError, match=words):
            policy_of(pair).read()
    for options, words in (
        ({"ciphers": "NONE-OF-THEM"}, "--ciphers NONE-OF-THEM: OpenSSL knows none of them"),
        ({"ca_certs": str(nothing)}, r"nothing.pem \(--ca-certs\): there is no certificate"),
        ({"ca_certs": str(broken)}, "--ca-certs .*broken.pem: OpenSSL says"),
    ):
        with pytest.raises(ConfigError, match=words):
            policy_of((first, first_key), **options).read()


def test_wrong_settings():
    for options, words in (
        ({"keyfile": "k"}, "keyfile: k is the key of what"),
        ({"cert_reqs": 2}, "cert_reqs is required: give ca_certs"),
        ({"cert_reqs": 2, "ca_certs": "ca.pem"}, "there is no TLS in which to ask for them: give certfile"),
        ({"bind": "http://:80", "certfile": "c"}, "bind has no address with TLS, and there is a certificate"),
        ({"bind": "https://:8443"}, "cannot listen at https://:8443 without a certificate"),
        ({"tls_cert": "a,b,c"}, "is not CERT,KEY"),
        ({"tls_protocol_min": "1.1"}, "is not one of 1.2, 1.3"),
        ({"cert_reqs": "3"}, "is not one of none, optional, required"),
    ):
        with pytest.raises(ConfigError, match=words):
            Settings(**options)
    for given, read in (("TLSv1.3", "1.3"), ("tls1.2", "1.2"), (1.3, "1.3")):
        assert Settings(tls_protocol_min=given).tls_protocol_min == read
    assert Settings(cert_reqs=ssl.CERT_NONE).cert_reqs == "none"
