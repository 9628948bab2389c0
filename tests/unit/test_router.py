"""Host and path to a route, held against a slow and obvious way to find it."""

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._router import Router, is_plain, resolve
from fastwsgi.config import Settings
from fastwsgi.mounts import plan


def router(*routes):
    return Router(plan(Settings(route=routes)).routes)


def resolved(path):
    """The path, segment by segment."""
    kept = []
    *segments, last = unquote_to_bytes(path).split(b"/")[1:]
    for segment in (*segments, last):
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    ends_in_slash = kept and last in (b"", b".", b"..")
    return b"/" + b"/".join(kept) + (b"/" if ends_in_slash else b"")


segments = st.sampled_from(
    [b"", b".", b"..", b"a", b"admin", b".a", b"a.", b"...", b"%2e", b"%2E%2e", b"%2F"]
)
paths = st.lists(segments | st.binary(max_size=3).map(lambda some: quote_from_bytes(some).encode())).map(
    lambda some: b"/" + b"/".join(some)
)


@given(paths)
def test_paths_are_resolved(path):
    assert resolve(path) == resolved(path)
    if is_plain(path):
        assert resolve(path) == path


@given(paths)
def test_what_is_resolved_stays_so(path):
    found = resolve(path)
    if found is not None:
        assert resolve(quote_from_bytes(found).encode()) == found


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/x.y", "/", "/a/b/c", "/a.b/c..d", "/~a"])
def test_plain_paths(path):
    assert is_plain(path.encode())


names = st.sampled_from(["a", "b", "ab", "admin", "é"])
some_paths = st.lists(names, max_size=3).map(lambda some: "/" + "/".join(some))
hosts = st.sampled_from(["", "a.org", "b.a.org", "*.a.org", "*.b.a.org", "c.org", "[::1]"])
asked_hosts = st.sampled_from(
    ["a.org", "b.a.org", "x.b.a.org", "x.y.a.org", "c.org", "d.org", "xa.org", "org", ""]
)


def chosen(tables, host, path):
    """The routes of the most exact host, and of these the longest path that is a whole number of segments."""
    exact = [host, *("*" + host[i:] for i, octet in enumerate(host) if octet == "."), ""]
    found = next(one for one in exact if one in tables)
    fitting = [one for one in tables[found] if one == "/" or f"{path}/".startswith(f"{one}/")]
    return found, max(fitting, key=len)


@given(st.lists(st.tuples(hosts, some_paths), min_size=1, unique=True), asked_hosts, some_paths)
def test_the_longest_path_of_the_most_exact_host(places, host, path):
    made = router(*(f"{host}{path} respond=204" for host, path in places))
    tables = {}
    for route in made.routes:
        tables.setdefault(route.host, []).append(route.path)
    found = made.match(host.encode(), path.encode())
    assert (found.host, found.path) == chosen(tables, host, path)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com:8443", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:80", "example.com"),
        ("www.example.com", "*.example.com"),
        ("a.b.example.com:", "*.example.com"),
        ("notexample.com", ""),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("[2001:db8::2]", ""),
        ("", ""),
        (".", ""),
        (":", ""),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_how_hosts_are_written(authority, host):
    made = router(
        "example.com/ respond=204",
        "*.example.com/ respond=204",
        "[2001:db8::1]/ respond=204",
        "bücher.example/ respond=204",
    )
    assert made.match(authority.encode(), b"/").host == host


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("EXAMPLE.com:8443", "example.com"),
        ("example.com.", "example.com"),
        ("examples.com", ""),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("5", ""),  # an octet that is that of "u" modulo 32
        ("U:1", "u"),
        ("127.0.0.1:8000", ""),
        ("", ""),
        (":80", ""),
    ],
)
def test_hosts_where_no_pattern_has_a_star(authority, host):
    made = router("example.com/ respond=204", "[2001:db8::1]/ respond=204", "u/ respond=204")
    assert made.match(authority.encode(), b"/").host == host
    assert made.match(authority.encode(), b"/admin").host == host


@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/admin/",
        "/admin/users",
        "//admin",
        "/./admin/",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/x%2F..%2Fadmin",
        "/x/.%2e//admin/.",
        "/admin%2Fusers",
        "/admin/x/..",
    ],
)
def test_no_spelling_gets_round_a_route(path):
    assert router("/admin respond=403").match(b"test.example", path.encode()).path == "/admin"


@pytest.mark.parametrize("path", ["/adminx", "/Admin", "/x/admin", "/admin/..", "/admin%", "/%2561dmin"])
def test_other_paths(path):
    assert router("/admin respond=403").match(b"test.example", path.encode()).path == "/"


@pytest.mark.parametrize("path", ["/..", "/../admin", "/a/../..", "/%2e%2e/", "/a/..%2f../b", "/./.."])
def test_paths_that_lead_out(path):
    assert router("/admin respond=403").match(b"test.example", path.encode()) is None


def test_many_routes():
    places = [(f"host{number}.example", f"/p{number}/deep") for number in range(300)]
    made = router(*(f"{host}{path} respond=204" for host, path in places))
    for host, path in places:
        assert made.match(host.encode(), f"{path}/er".encode()).path == path
        assert made.match(host.encode(), b"/p0").path == "/"


@given(st.text(st.sampled_from("/.a"), max_size=30))
def test_what_is_not_plain(rest):
    path = f"/{rest}"
    assert is_plain(path.encode()) == ("//" not in path and "/." not in path)
