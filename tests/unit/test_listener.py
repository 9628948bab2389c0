"""Addresses, sockets and socket files."""

import contextlib
import json
import os
import re
import socket
import sys

import pytest

from fastwsgi.errors import ConfigError
from fastwsgi.listener import (
    CAN_REUSE_PORT,
    Address,
    Listener,
    file_identity,
    open_listeners,
    parse_address,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are of Linux")


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def listen():
    """listen(*addresses, **options): open listeners; they are closed after the test."""
    opened = []

    def open_them(*bind, **options):
        listeners = open_listeners(bind, 16, **options)
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
        ("fd://3", Address("fd://3", fd=3)),
        ("http://:80", Address("http://:80", "", 80, scheme="http")),
        ("https://unix:/x", Address("https://unix:/x", unix="/x", scheme="https")),
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
        ("tcp://127.0.0.1:8000", "give the address alone, such as 127.0.0.1:8000"),
        ("[]:8000", "give [::]:8000 for every address"),
        ("unix:", "the path is missing; give unix:/path/to/socket"),
        ("unix:@", "the path is missing; give unix:/path/to/socket"),
        ("fd://", "give the number of a descriptor, as in fd://3"),
        ("fd://web", "give the number of a descriptor, as in fd://3"),
        ("fd://-1", "give the number of a descriptor, as in fd://3"),
        ("fd://" + "9" * 5000, "give the number of a descriptor, as in fd://3"),
    ],
)
def test_wrong_addresses(text, advice):
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert str(caught.value) == f"cannot listen at {text}: {advice}"


def test_the_same_address_twice(short_path):
    for address in ("127.0.0.1:8000", f"unix:{short_path}/socket", "fd://0"):
        with pytest.raises(ConfigError) as caught:
            open_listeners([address, address], 10)
        assert str(caught.value) == f"cannot listen at {address} twice; give it once (--bind)"


def test_where_tls_is_spoken(listen, short_path):
    bind = ("127.0.0.1:0", f"http://unix:{short_path}/plain", f"unix:{short_path}/sealed", "https://[::1]:0")
    listeners = listen(*(bind if has_ipv6() else bind[:3]))
    for listener in listeners:
        listener.mark(has_tls=True)
    assert [listener.is_tls for listener in listeners] == [True, False, True, True][: len(listeners)]
    urls = [listener.url.partition("://")[0] for listener in listeners]
    assert urls == ["https", f"unix:{short_path}/plain", "https", "https"][: len(listeners)]
    with pytest.raises(ConfigError, match=r"cannot listen at 127.0.0.1:1 twice"):
        listen("127.0.0.1:1", "http://127.0.0.1:1")


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


def refusal(*bind, **options):
    with pytest.raises(ConfigError) as caught:
        open_listeners(bind, 16, **options)
    return str(caught.value)


def port_of(listener):
    return listener.socket.getsockname()[1]


def test_busy_port(listen):
    (listener,) = listen("127.0.0.1:0")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    said = refusal(address)
    if sys.platform == "linux":
        found = re.search(r" \(process ([0-9]+): .+\)(?=; stop it)", said)
        assert int(found[1]) == os.getpid()
        said = said.replace(found[0], "")
    assert said == (
        f"cannot listen at {address}: another server is listening there; "
        "stop it, or choose another address (--bind)"
    )


def test_a_refusal_names_the_option(listen):
    (busy,) = listen("127.0.0.1:0")
    address = f"127.0.0.1:{busy.socket.getsockname()[1]}"
    with pytest.raises(ConfigError, match=r"choose another address \(--metrics\)"):
        open_listeners([address], 16, option="--metrics")


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


# ---- sockets of others ----


@contextlib.contextmanager
def made_by_another(family=socket.AF_INET, address=("127.0.0.1", 0), kind=socket.SOCK_STREAM, listens=True):
    """A socket as whoever starts us would have left it; its address for --bind."""
    with socket.socket(family, kind) as sock:
        sock.bind(address)
        if listens:
            sock.listen(1)
        sock.set_inheritable(True)
        fd = os.dup(sock.fileno())
        os.set_inheritable(fd, True)
        yield sock, f"fd://{fd}"


def test_a_socket_of_another_is_served(listen):
    with made_by_another() as (sock, address):
        (listener,) = listen(address)
        assert listener.is_borrowed
        assert listener.url == f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert listener.socket.fileno() == int(address.removeprefix("fd://"))
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()
        assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(sock.getsockname()):
            pass
        listener.close()
        # It goes on with whoever has made it.
        socket.create_connection(sock.getsockname()).close()


def test_the_socket_file_of_another_stays(listen, short_path):
    path = f"{short_path}/s"
    with made_by_another(socket.AF_UNIX, path) as (_, address):
        (listener,) = listen(address)
        assert listener.url == f"unix:{path}"
        listener.close()
        assert os.path.exists(path)


def test_beside_other_addresses(listen):
    with made_by_another() as (_, address):
        borrowed, own = listen(address, "127.0.0.1:0")
        assert (borrowed.is_borrowed, own.is_borrowed) == (True, False)


HANDED_OVER = "whoever starts the server opens it (systemd: ListenStream=, and Accept=no)"


def test_not_a_socket(tmp_path):
    with open(tmp_path / "file", "w") as file:
        address = f"fd://{file.fileno()}"
        assert refusal(address) == f"cannot listen at {address}: this is not a socket; {HANDED_OVER}"
        file.write("it is left open")


def test_nothing_open():
    assert refusal("fd://999999") == f"cannot listen at fd://999999: nothing is open there; {HANDED_OVER}"


@pytest.mark.parametrize("options", [{"kind": socket.SOCK_DGRAM, "listens": False}, {"listens": False}])
def test_a_socket_that_does_not_listen(options):
    with made_by_another(**options) as (_, address):
        assert refusal(address) == (
            f"cannot listen at {address}: this socket does not listen for streams; {HANDED_OVER}"
        )
        os.close(int(address.removeprefix("fd://")))  # it was left open


# ---- going on after an exec, and after a reload ----


def test_the_state_brings_a_listener_back(listen, short_path):
    (before,) = listen(f"unix:{short_path}/s")
    state = before.state
    before.socket.detach()
    after = Listener.restored(json.loads(json.dumps(state)))
    assert after.state == state
    assert not after.socket.get_inheritable()
    assert not after.is_borrowed
    after.close()
    assert not (short_path / "s").exists()


def test_the_state_knows_what_is_borrowed(listen, short_path):
    with made_by_another(socket.AF_UNIX, f"{short_path}/s") as (_, address):
        (before,) = listen(address)
        state = json.loads(json.dumps(before.state))
        before.socket.detach()
        after = Listener.restored(state)
        assert after.is_borrowed
        assert after.address == address
        after.close()
        assert (short_path / "s").exists()


def test_a_state_without_its_socket(listen):
    (before,) = listen("127.0.0.1:0")
    state = before.state
    before.close()
    with pytest.raises(ConfigError, match="nothing is open there"):
        Listener.restored(state)


def test_addresses_that_stay_keep_their_sockets(listen, short_path):
    path = f"unix:{short_path}/s"
    old = listen("127.0.0.1:0", path, "localhost:0")
    new = listen(path, "[::1]:0" if has_ipv6() else "127.0.0.2:0", "127.0.0.1:0", kept=old)
    assert new[0] is old[1]
    assert new[2] is old[0]
    assert new[1] not in old
    assert [listener for listener in old if listener not in new] == old[2:]
    socket.create_connection(old[2].socket.getsockname()[:2]).close()


def test_an_address_that_is_there_twice(listen):
    old = listen("127.0.0.1:0", "127.0.0.1:0")
    assert listen("127.0.0.1:0", kept=old) == old[:1]
    assert listen("127.0.0.1:0", "127.0.0.1:0", kept=old) == old
    assert listen("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", kept=old)[:2] == old


def test_when_one_cannot_be_had_those_that_were_there_stay(listen, short_path):
    old = listen("127.0.0.1:0")
    (busy,) = listen("127.0.0.1:0")
    refusal("127.0.0.1:0", f"unix:{short_path}/s", f"127.0.0.1:{port_of(busy)}", kept=old)
    socket.create_connection(old[0].socket.getsockname()).close()
    assert not (short_path / "s").exists()


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_the_same_port_at_more_addresses_needs_a_restart(listen, host):
    (free,) = listen("127.0.0.1:0")
    port = port_of(free)
    free.close()
    old = listen(f"127.0.0.1:{port}")
    assert refusal(f"{host}:{port}", kept=old) == (
        f"cannot listen at {host}:{port}: that is taken, and this server itself listens at 127.0.0.1:{port}; "
        "to change from one to the other, stop and start it"
    )


def test_the_same_socket_file_by_another_name(listen, short_path, monkeypatch):
    old = listen(f"unix:{short_path}/s")
    monkeypatch.chdir(short_path)
    assert f"this server itself listens at unix:{short_path}/s" in refusal("unix:s", kept=old)


# ---- several queues at one address ----

needs_reuse_port = pytest.mark.skipif(not CAN_REUSE_PORT, reason="no SO_REUSEPORT here")


def listening_clone(listener):
    clone = listener.clone()
    clone.listen(16)
    return clone


@needs_reuse_port
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::]", marks=needs_ipv6)])
def test_clones_have_queues_of_their_own(listen, host):
    (first,) = listen(f"{host}:0", reuse_port=True)
    clones = [listening_clone(first) for _ in range(3)]
    every = [first, *clones]
    assert {port_of(listener) for listener in every} == {port_of(first)}
    assert {listener.address for listener in every} == {first.address}
    clients = [socket.create_connection(("127.0.0.1", port_of(first))) for _ in range(40)]
    for client in clients:
        client.send(b"x")
    served = []
    for listener in every:
        listener.socket.settimeout(2)
        served.append(0)
        with contextlib.suppress(TimeoutError):
            while True:
                listener.socket.accept()[0].close()
                served[-1] += 1
                listener.socket.settimeout(0.2)
    assert sum(served) == 40
    assert all(served)
    for closed in (*clients, *clones):
        closed.close()


def test_what_is_borrowed_is_not_cloned(listen):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as sock:
        (listener,) = listen(f"fd://{sock.fileno()}", reuse_port=True)
        listener.rest()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        clone = listener.clone()
        assert clone.is_borrowed
        assert not clone.is_own
        with socket.create_connection(sock.getsockname()):
            clone.socket.setblocking(True)
            clone.socket.settimeout(5)
            clone.socket.accept()[0].close()
        clone.close()
        sock.detach()


def test_a_clone_of_what_has_one_queue_shares_it(listen, short_path):
    (tcp, unix) = listen("127.0.0.1:0", f"unix:{short_path}/s")
    for listener in (tcp, unix):
        clone = listening_clone(listener)
        assert clone.socket.getsockname() == listener.socket.getsockname()
        assert clone.socket.fileno() != listener.socket.fileno()
        assert not clone.socket.get_inheritable()
        assert not clone.is_borrowed
        clone.close()
    assert (short_path / "s").exists()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{short_path}/s")


@needs_reuse_port
def test_without_it_a_port_is_for_one_server(listen):
    (first,) = listen("127.0.0.1:0", reuse_port=True)
    assert "another server is listening there" in refusal(f"127.0.0.1:{port_of(first)}")
    listen(f"127.0.0.1:{port_of(first)}", reuse_port=True)
