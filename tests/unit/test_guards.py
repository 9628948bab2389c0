"""What stands before a route, from its keys: who is judged how, and what is said of keys that are wrong."""

import logging
import os

import pytest

from fastwsgi import Settings
from fastwsgi._guard import Guard
from fastwsgi._rates import Rate, Rates
from fastwsgi._refusals import refusal_t
from fastwsgi.errors import ConfigError
from fastwsgi.guards import Guards
from fastwsgi.mounts import plan

CLIENT = b"10.0.0.1"
MAINTENANCE = refusal_t["REFUSAL_MAINTENANCE"]


def guards_of(*routes):
    return Guards(plan(Settings(route=routes)).routes)


def guard_of(*routes):
    """What stands before the last of the routes."""
    return guards_of(*routes).of_routes[-1]


def test_no_guard_lets_everybody_in():
    assert guards_of().of_routes == ()
    assert guard_of("/x static=/tmp") is None
    for address in (CLIENT, b"::1", None):
        assert Guard().judge(address) == (None, 0)


@pytest.mark.parametrize(
    ("route", "addresses"),
    [
        ("/x allow=10.0.0.0/8", {CLIENT: True, b"11.0.0.1": False, b"::1": False, None: False}),
        ("/x allow=10.0.0.0/8,unix", {CLIENT: True, b"11.0.0.1": False, None: True}),
        ("/x deny=10.0.0.0/8", {CLIENT: False, b"11.0.0.1": True, None: True}),
        ("/x deny=*", {CLIENT: False, None: False}),
        ("/x deny=10.0.0.1 allow=10.0.0.0/8", {CLIENT: False, b"10.0.0.2": True, b"11.0.0.1": False}),
        ("/x allow=10.0.0.1 deny=*", {CLIENT: True, b"10.0.0.2": False, None: False}),
        ("/x allow=* deny=10.0.0.1", {CLIENT: True}),
    ],
)
def test_who_is_let_in(route, addresses):
    guard = guard_of(route)
    for address, is_let_in in addresses.items():
        assert guard.judge(address) == (None if is_let_in else "REFUSAL_ADDRESS", 0), address


def test_an_inner_route_has_what_it_does_not_say_from_the_outer_one():
    guard = guard_of("/ deny=10.0.0.1", "/x allow=10.0.0.0/8")
    assert guard.judge(CLIENT) == (None, 0), "its own comes first"
    assert guard.judge(b"11.0.0.1")[0] == "REFUSAL_ADDRESS"
    assert guard_of("/ deny=*", "/x rate=1/s").judge(CLIENT)[0] == "REFUSAL_ADDRESS"


def test_the_order_in_which_guards_look():
    guard = Guard(deny=["10.0.0.2"], rate=Rate(Rates(), 60, 0), doorkeeper=object(), maintenance=["::1"])
    guard.close(None)
    assert guard.judge(b"10.0.0.2") == ("REFUSAL_MAINTENANCE", 60)
    assert guard.judge(b"::1") == ("REFUSAL_NO_CREDENTIALS", 0)
    guard.open()
    assert guard.judge(b"10.0.0.2")[0] == "REFUSAL_ADDRESS"
    assert guard.judge(CLIENT, has_credentials=True) == (None, 0)
    name, retry_after = guard.judge(CLIENT, has_credentials=True)
    assert name == "REFUSAL_RATE"
    assert 55 <= retry_after <= 60


def test_clients_without_an_address_share_a_rate():
    guard = guard_of("/x rate=2/h")
    assert [guard.judge(None)[0] for _ in range(3)] == [None, None, "REFUSAL_RATE"]


def test_routes_share_what_they_have_from_one_line():
    one, other, own = guards_of("/ rate=1/m", "/x rate=1/m", "/y allow=*").of_routes
    assert one is not other
    assert one.judge(CLIENT) == other.judge(CLIENT) == (None, 0)
    assert own.judge(CLIENT)[0] == "REFUSAL_RATE"
    several = [guard for guard in guards_of("a.example,b.example/ rate=1/m").of_routes if guard is not None]
    assert len(several) == 2
    assert several[0] is several[1]


def test_pages(tmp_path):
    (tmp_path / "a.html").write_bytes(b"a")
    (tmp_path / "b.txt").write_bytes(b"b")
    guard = guard_of(
        f"/ error-page=404,502={tmp_path}/b.txt",
        f"/x error-page=404={tmp_path}/a.html error-page=403={tmp_path}/b.txt",
    )
    assert guard.page(404) == (b"text/html; charset=utf-8", b"a")
    assert guard.page(403) == guard.page(502) == (b"text/plain; charset=utf-8", b"b")
    assert guard.page(500) is None


def test_a_page_of_a_maintenance():
    guard = Guard(maintenance=())
    assert guard.page(503, MAINTENANCE) is None
    guard.close((b"text/plain", b"closed"))
    assert guard.page(503, MAINTENANCE) == (b"text/plain", b"closed")
    assert guard.page(503) is None
    guard.close(None)
    assert guard.page(503, MAINTENANCE) is None
    with pytest.raises(ValueError, match="no maintenance"):
        Guard().close(None)


def test_a_maintenance_is_looked_for(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "fastwsgi")
    monkeypatch.setattr("fastwsgi.guards.PAUSE", 0.0)
    page = tmp_path / "closed"
    guards = guards_of(f"/ maintenance={page}")
    assert guards.pause == 0.0
    assert guards_of("/ allow=*").pause is None
    (guard,) = guards.of_routes
    for _ in range(2):
        page.write_bytes(b"x" * ((1 << 20) + 1))
        guards.look()
        assert (guard.judge(CLIENT)[0], guard.page(503, MAINTENANCE)) == ("REFUSAL_MAINTENANCE", None)
        page.write_bytes(b"closed")
        guards.look()
        assert guard.page(503, MAINTENANCE) == (b"text/plain; charset=utf-8", b"closed")
        page.unlink()
        guards.look()
        assert guard.judge(CLIENT) == (None, 0)
    os.mkfifo(page)
    guards.look()
    assert guard.judge(CLIENT)[0] == "REFUSAL_MAINTENANCE"
    assert "larger than 1 MiB" in caplog.text
    assert "not a regular file" in caplog.text
    assert caplog.text.count("is there, its routes answer 503") == 3
    assert caplog.text.count("is gone, its routes are served again") == 2


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("/x allow=", "/x: allow: '' is not a list of at least one address"),
        (
            "/x allow=none",
            "addresses, networks such as 10.0.0.0/8, * or unix, separated by commas: what is none?",
        ),
        ("/x deny=10.0.0.1/8", "10.0.0.1/8 has bits beyond its prefix, 10.0.0.0/8 has not"),
        (
            "/x rate=10",
            "rate: '10' is not none or so many in a second, a minute or an hour: 10/s, 100/m, 1000/h",
        ),
        ("/x rate=0/s", "rate: '0/s' is not"),
        ("/x rate=10/s burst=-1", "burst: '-1' is not a whole number from 0"),
        ("/x error-page=404", "error-page: '404' is not statuses from 400 to 599 and a file"),
        ("/x error-page=200=x", "error-page: '200=x' is not"),
        ("/x limit-request-body=much", "limit-request-body: 'much' is not a size such as 64k"),
        ("/x realm='a\nb'", "realm: "),
    ],
)
def test_keys_that_are_wrong(route, said):
    with pytest.raises(ConfigError) as error:
        Settings(route=[route])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("a.example/x rate=1/h burst=100", "route a.example/x: burst: 100 of 1/h are more than a day"),
        ("/x auth=nowhere", "route /x: auth: "),
        ("/x error-page=404=nowhere", "route /x: error-page: nowhere cannot be read"),
        ("/x error-page=404=.", "route /x: error-page: . cannot be read: not a regular file"),
    ],
)
def test_what_cannot_be_opened_names_the_route(route, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        guards_of(route)
    assert said in str(error.value)
