"""Addresses, sockets and socket files."""

import contextlib
import os
import socket
import sys

import pytest

from fastwsgi.errors import ConfigError
from fastwsgi.listener import Address, file_identity, open_listeners, parse_address

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are of Linux")


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def listen():
    """listen(*addresses): open listeners; they are closed after the test."""
    opened = []

    def open_them(*bind):
        listeners = open_listeners(bind, 16)
        opened.extend(listeners)
        return listeners

    yield open_them
    for listener in opened:
        listener.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1:8000", "127.0.0.1", 8000)),
        ("localhost:0", Address("localhost:0", "localhost", 0)),
        ("[::1]:8000", Address("[::1]:8000", "::1", 8000)),
        (":80", Address(":80", "", 80)),
        ("unix:/run/x.sock", Address("unix:/run/x.sock", unix="/run/x.sock")),
        ("unix:x.sock", Address("unix:x.sock", unix="x.sock")),
        ("unix:@name", Address("unix:@name", unix="@name")),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("8000", "give 127.0.0.1:8000 (this machine alone) or :8000 (every address)"),
        ("localhost", "the port is missing; give localhost:8000"),
        ("[::1]", "the port is missing; give [::1]:8000"),
        ("::1:80", "an IPv6 address needs brackets, as in [::1]:8000"),
        ("localhost:http", "'http' is not a port, a number from 0 (any free one) to 65535"),
        ("localhost:65536", "'65536' is not a port, a number from 0 (any free one) to 65535"),
        ("localhost:-1", "'-1' is not a port, a number from 0 (any free one) to 65535"),
        (
            "localhost:\N{SUPERSCRIPT TWO}",
            "'\N{SUPERSCRIPT TWO}' is not a port, a number from 0 (any free one) to 65535",
        ),
        ("localhost:" + "9" * 5000, f"'{'9' * 5000}' is not a port, a number from 0 (any free one) to 65535"),
        ("http://127.0.0.1:8000", "give the address alone, such as 127.0.0.1:8000"),
        ("[]:8000", "give [::]:8000 for every address"),
        ("unix:", "the path is missing; give unix:/path/to/socket"),
        ("unix:@", "the path is missing; give unix:/path/to/socket"),
    ],
)
def test_wrong_addresses(text, advice):
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert str(caught.value) == f"cannot listen at {text}: {advice}"


def test_the_same_address_twice(short_path):
    for address in ("127.0.0.1:8000", f"unix:{short_path}/socket"):
        with pytest.raises(ConfigError) as caught:
            open_listeners([address, address], 10)
        assert str(caught.value) == f"cannot listen at {address} twice; give it once (--bind)"


@needs_ipv6
def test_the_scope_of_an_ipv6_address_is_kept(listen):
    with pytest.raises(ConfigError) as caught:
        listen("[fe80::1%lo]:0")
    assert "this machine has no such address" in str(caught.value)


def test_a_listening_socket(listen):
    (listener,) = listen("127.0.0.1:0")
    port = listener.socket.getsockname()[1]
    assert listener.url == f"http://127.0.0.1:{port}"
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    socket.create_connection(("127.0.0.1", port)).close()


@needs_ipv6
def test_ipv6(listen):
    (listener,) = listen("[::1]:0")
    assert listener.url == f"http://[::1]:{listener.socket.getsockname()[1]}"


@needs_ipv6
@pytest.mark.parametrize("address", [":0", "[::]:0"])
def test_every_address_is_both_families(listen, address):
    (listener,) = listen(address)
    port = listener.socket.getsockname()[1]
    assert listener.url == f"http://127.0.0.1:{port} (every address)"
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port)).close()


@needs_ipv6
def test_both_wildcards_side_by_side(listen):
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    assert len(listen(f"[::]:{port}", f"0.0.0.0:{port}")) == 2


def test_a_name_is_bound_at_all_its_addresses_and_one_port(listen):
    listeners = listen("localhost:0")
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1


def refusal(*bind):
    with pytest.raises(ConfigError) as caught:
        open_listeners(bind, 16)
    return str(caught.value)


def test_busy_port(listen):
    (listener,) = listen("127.0.0.1:0")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    assert refusal(address) == (
        f"cannot listen at {address}: another server is listening there; "
        "stop it, or choose another address (--bind)"
    )


def test_all_or_none(listen, tmp_path):
    (busy,) = listen("127.0.0.1:0")
    refusal(f"unix:{tmp_path}/s", f"127.0.0.1:{busy.socket.getsockname()[1]}")
    assert not (tmp_path / "s").exists()


def test_unknown_name_and_foreign_address():
    assert refusal("no-such-host.invalid:80").endswith("the host name 'no-such-host.invalid' is not known")
    assert "this machine has no such address" in refusal("192.0.2.1:8000")


def test_low_port_without_permission(monkeypatch):
    def forbidden(sock, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    assert "are for root; choose a higher one, such as 8000" in refusal("127.0.0.1:80")


def test_socket_file_lives_as_long_as_the_listener(listen, tmp_path):
    path = tmp_path / "s"
    (listener,) = listen(f"unix:{path}")
    assert listener.url == f"unix:{path}"
    assert path.is_socket()
    listener.close()
    assert not path.exists()


def test_relative_socket_file_is_removed_from_elsewhere(listen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (listener,) = listen("unix:s")
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "s").exists()


def test_a_socket_file_of_another_is_left(listen, tmp_path):
    path = str(tmp_path / "s")
    (first,) = listen(f"unix:{path}")
    os.rename(path, path + ".old")
    (second,) = listen(f"unix:{path}")
    identity = file_identity(path)
    first.close()
    assert file_identity(path) == identity
    second.close()


def test_stale_socket_file_is_replaced(listen, tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listen(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_live_socket_file_is_respected(listen, tmp_path):
    path = tmp_path / "s"
    (live,) = listen(f"unix:{path}")
    assert "another server is listening there" in refusal(f"unix:{path}")
    assert path.is_socket()
    live.socket.settimeout(5)
    live.socket.accept()[0].close()


def test_other_files_are_respected(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    assert "this is not a socket" in refusal(f"unix:{path}")
    assert path.read_text() == "precious"


def test_wrong_paths(tmp_path):
    assert refusal(f"unix:{tmp_path}/missing/s").endswith(
        f"the directory {tmp_path}/missing does not exist; create it"
    )
    assert "too long" in refusal("unix:/" + 200 * "x")


@linux_only
def test_abstract_name(listen):
    name = f"fastwsgi-test-{os.getpid()}"
    (listener,) = listen(f"unix:@{name}")
    assert listener.url == f"unix:@{name}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name)
    assert "another server is listening there" in refusal(f"unix:@{name}")
