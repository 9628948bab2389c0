"""Names of routes, and the mean that is not moved by single jumps."""

import sys

import pytest

from fastwsgi.config import Settings
from fastwsgi.console import leaks_text
from fastwsgi.errors import ConfigError
from fastwsgi.leaks import OTHERS, ROUTES, VALUES, Left, Routes, fitting, is_value, robust, short, usual


@pytest.mark.parametrize(
    "segment",
    [
        *("1", "42", "4711.json", "-3", "2025-11-23", "20251123T101112Z", "10:30", "3.14"),
        *("de305d54-75b4-431b-adb2-eb6b9e546014", "deadbeef1", "9e107d9d372bb6826bd81d3542a419d6"),
        *(
            "dGhpcyBpcyBhIHRlc3Q0",
            "me@example.org",
            "a%20b",
            "a-title-of-many-words-which-is-longer-than-what-people-type",
        ),
    ],
)
def test_values(segment):
    assert is_value(segment)


@pytest.mark.parametrize(
    "segment",
    ["", "orders", "v1", "api2", "search", "deadbeef", "oauth2callback", "two-words", "index.html", "s3"],
)
def test_words(segment):
    assert not is_value(segment)


@pytest.mark.parametrize(
    ("line", "route"),
    [
        ("GET /", "GET /"),
        ("GET /orders/17/items?page=3", "GET /orders/*/items"),
        ("POST http://example.org/a/2025-01-01", "POST /a/*"),
        ("GET http://example.org", "GET /"),
        ("OPTIONS *", "OPTIONS *"),
    ],
)
def test_a_request_has_a_route(line, route):
    assert Routes().of(line, None).name == route


def test_what_the_application_says_wins():
    routes = Routes()
    assert routes.of("GET /a/b", "/<first>/<second>").name == "/<first>/<second>"
    assert routes.of("GET /a/b", None).name == "GET /a/b"
    assert routes.of("GET /a/b", 7).name == "GET /a/b"


def test_a_segment_of_many_values_becomes_one_route():
    routes = Routes()
    for number in range(VALUES + 5):
        word = "w" + "".join(chr(97 + int(digit)) for digit in str(number))
        route = routes.of(f"GET /blog/{word}/comments", None)
        route.count += 1
        route.samples.append((number, 0))
    assert [one.name for one in routes] == ["GET /blog/*/comments"]
    (joined,) = routes
    assert joined.count == VALUES + 5
    assert [number for number, _ in joined.samples] == list(range(VALUES + 5))
    assert routes.of("GET /blog/w/comments", None) is joined


def test_there_are_only_so_many_routes():
    routes = Routes()
    words = ["".join((a, b)) for a in "abcdefgh" for b in "ijklmnopqrs"]
    for first in words[: VALUES - 1]:
        for second in words[: VALUES - 1]:
            routes.of(f"GET /{first}/{second}", None)
    assert len(routes) == ROUTES + 1
    assert routes.of("GET /another/one", None).name == OTHERS


def test_the_mean_does_not_see_single_jumps():
    assert robust([5.0] * 20) == (5.0, 0.0)
    assert robust([0.0] * 19 + [1e9]) == (0.0, 0.0)
    assert robust([0.0] * 10 + [-1e9] + [0.0] * 9) == (0.0, 0.0)
    mean, error = robust([0.0, 4.0] * 20)
    assert mean == 2.0
    assert 0.3 < error < 0.5
    mean, error = robust([-1.0, 1.0] * 20)
    assert mean == 0.0
    assert usual([9.0, *[float(i) for i in range(1, 9)], 0.0]) == list(range(1, 9))


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (Left(10, 10, 10, 1000, 0, 0), 10),  # all of it
        (Left(10, 10, 0, 1000, 10, 0), 0),  # garbage, collected
        (Left(10, 10, 10, 1000, 0, 10), 0),  # in place of others
        (Left(10, 10, 4, 1000, 0, 0), 4),  # others have let go of it
        (Left(128, 64, 32, 1000, 32, 0), 64),  # half of the blocks were followed
        (Left(13, 13, 5, 1000, 8, 3), 2),  # garbage, a full cache, and two
        (Left(0, 0, 0, 0, 0, 3), -3),
    ],
)
def test_what_a_request_keeps(left, kept):
    assert left.kept == kept


def test_routes_that_keep_least_are_left_out():
    known = {"routes": [{"route": "a" * 100}, {"route": "b" * 100}, {"route": "c" * 100}]}
    assert '"bbb' in fitting(dict(known, routes=[*known["routes"]]), 300)
    assert '"ccc' not in fitting(dict(known, routes=[*known["routes"]]), 300)
    assert fitting({"routes": [{"route": "a" * 100}]}, 50) == '{"routes": []}'


def test_files_are_shown_as_they_are_imported(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "/srv/app", "/usr/lib/python3"])
    assert short("/srv/app/shop/views.py") == "shop/views.py"
    assert short("/elsewhere/views.py") == "/elsewhere/views.py"
    assert short("<string>") == "<string>"


def report(route, total, requests, leaks=True):
    return {
        "samples": 40,
        "too_large": 0,
        "routes": [
            {
                "route": route,
                "samples": 20,
                "requests": requests,
                "kept": total // requests,
                "total": total,
                "leaks": leaks,
                "where": ["views.py:3 (view)"] if leaks else [],
            }
        ],
        "growth": {"requests": 1000, "before": 80 << 20, "now": 120 << 20},
    }


def test_workers_are_shown_together():
    workers = [
        {"pid": 11, "leaks": report("GET /a", 30 << 20, 1000)},
        {"pid": 12, "leaks": report("GET /a", 10 << 20, 1000)},
        {"pid": 13, "leaks": {**report("GET /b", 100, 50, leaks=False), "too_large": 3}},
        {"pid": 14, "leaks": None},
    ]
    assert leaks_text(workers).splitlines() == [
        "worker 11: 40 samples; from 80 MiB to 120 MiB in 1000 requests",
        "worker 12: 40 samples; from 80 MiB to 120 MiB in 1000 requests",
        "worker 13: 40 samples, 3 more were too large; from 80 MiB to 120 MiB in 1000 requests",
        "",
        " A REQUEST      SO FAR   REQUESTS  SAMPLES  ROUTE",
        "  20.5 KiB      40 MiB       2000       40  GET /a, allocated at views.py:3 (view)",
        "         -           -         50       20  GET /b",
    ]


def test_before_there_are_samples():
    empty = {"samples": 0, "too_large": 0, "routes": []}
    assert leaks_text([{"pid": 11, "leaks": empty}]).endswith("no route has enough samples yet\n")
    with pytest.raises(ConfigError, match="serve with --leak-report"):
        leaks_text([{"pid": 11, "leaks": None}])


def test_it_is_refused_where_there_is_no_gil(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 0, "final", 0))
    monkeypatch.setattr(sys, "abiflags", "")
    assert Settings(leak_report=True).leak_report
    monkeypatch.setattr(sys, "abiflags", "t")
    with pytest.raises(ConfigError, match="leak_report: not with a free-threaded Python"):
        Settings(leak_report=True)
    assert not Settings().leak_report


@pytest.mark.parametrize("version", [(3, 11, 0, "final", 0), (3, 13, 0, "final", 0), (3, 14, 2, "final", 0)])
def test_it_is_refused_where_frames_cannot_be_looked_at(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "abiflags", "")
    with pytest.raises(ConfigError, match=r"leak_report: not with Python 3\.1\d\.\d, .* 3\.11\.1 to 3\.12 "):
        Settings(leak_report=True)
    assert not Settings().leak_report
