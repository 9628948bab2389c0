"""The environ of a request, without a server."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastwsgi._environ import environ_of


def get(target="/", *lines):
    return environ_of("\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *lines, "", ""]).encode("latin-1"))


PATHS = st.lists(
    st.one_of(st.sampled_from("abc/.-~"), st.integers(0, 255).map("%{:02x}".format)), max_size=20
).map(lambda pieces: "/" + "".join(pieces))


@given(PATHS)
def test_the_path_is_decoded_octet_by_octet(path):
    environ = get(path + "?a=%41")
    assert environ["PATH_INFO"] == unquote_to_bytes(path).decode("latin-1")
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == path + "?a=%41"
    assert environ["QUERY_STRING"] == "a=%41"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/?", "/"),
        ("/?a", "/"),
        ("//", "//"),
        ("/a", "/a"),
        ("*", ""),
        ("http://h", "/"),
        ("http://h/", "/"),
    ],
)
def test_what_is_made_of_a_target(target, path):
    environ = environ_of(f"OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert environ["PATH_INFO"] == path
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target


def test_field_lines():
    environ = get(
        "/", "Accept: a", "X-Own: 1", "accept: b", "x-own: 2", "Cookie: c=1", "Cookie: d=2", "X_Own: evil"
    )
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_X_OWN"] == "1,2"
    assert environ["HTTP_COOKIE"] == "c=1; d=2"


def test_a_field_name_longer_than_any_table():
    name = "x-" + "long" * 100
    assert get("/", f"{name}: v")["HTTP_" + name.upper().replace("-", "_")] == "v"


def test_the_target_replaces_the_host():
    assert get("http://other:81/p")["HTTP_HOST"] == "other:81"


def test_requests_share_nothing_that_changes():
    one, other = get(), get()
    one["HTTP_X"] = one["mine"] = "here"
    assert "mine" not in other and "HTTP_X" not in other
