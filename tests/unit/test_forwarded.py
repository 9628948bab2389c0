"""Forwarded and X-Forwarded-For: which hop is the client."""

import random

import pytest

from fastwsgi._forwarded import read_forwarded, read_x_forwarded_for
from fastwsgi._networks import Networks

TRUSTED = Networks("10.0.0.0/8", "2001:db8:7::/48")


def client(address, port=0, scheme=None, host="", found="CLIENT"):
    return found, address, port, scheme, host


X_FORWARDED_FOR = {
    "192.0.2.1": client("192.0.2.1"),
    "192.0.2.1:4711": client("192.0.2.1", 4711),
    "2001:db8::1": client("2001:db8::1"),
    "[2001:DB8::1]": client("2001:db8::1"),
    "[2001:db8::1]:4711": client("2001:db8::1", 4711),
    "::ffff:192.0.2.1": client("192.0.2.1"),
    # The right-most that is not trusted, whatever stands left of it.
    "198.51.100.1, 192.0.2.1": client("192.0.2.1"),
    "198.51.100.1, 192.0.2.1, 10.0.0.1": client("192.0.2.1"),
    "198.51.100.1,192.0.2.1,10.0.0.1,10.9.9.9, 2001:db8:7::1": client("192.0.2.1"),
    "<script>, 192.0.2.1": client("192.0.2.1"),
    "127.0.0.1, 192.0.2.1\t,\t::ffff:10.0.0.1": client("192.0.2.1"),
    # All trusted: the first of them.
    "10.0.0.1": client("10.0.0.1", found="TRUSTED"),
    "10.0.0.3:80, 10.0.0.2, 10.0.0.1": client("10.0.0.3", 80, found="TRUSTED"),
    # Nobody says who.
    "unknown": client(None),
    "_hidden, 10.0.0.1": client(None),
    "192.0.2.1, UNKNOWN": client(None),
    # Empty elements do not count.
    "": "NONE",
    " , ,": "NONE",
    ",192.0.2.1, ,": client("192.0.2.1"),
    "192.0.2.1, , 10.0.0.1": client("192.0.2.1"),
    # What decides is no address.
    "192.0.2.1, garbage": "BAD",
    "garbage, 10.0.0.1": "BAD",
    "192.0.2.1 10.0.0.1": "BAD",
    "192.0.2.256": "BAD",
    "192.0.2.1:": "BAD",
    "192.0.2.1:0": "BAD",
    "192.0.2.1:65536": "BAD",
    "192.0.2.1:080000": "BAD",
    "192.0.2.1:+80": "BAD",
    '"192.0.2.1"': "BAD",
    "[192.0.2.1]": "BAD",
    "[::1": "BAD",
    "::1]": "BAD",
    "[]": "BAD",
    "[::1]80": "BAD",
    "fe80::1%eth0": "BAD",
    "_": "BAD",
    "_a b": "BAD",
    "localhost": "BAD",
}

FORWARDED = {
    "for=192.0.2.1": client("192.0.2.1"),
    "FOR=192.0.2.1;Proto=HTTPS": client("192.0.2.1", scheme="https"),
    "for=192.0.2.1; proto=http; by=203.0.113.43": client("192.0.2.1", scheme="http"),
    'for="192.0.2.1:47011"': client("192.0.2.1", 47011),
    'for="[2001:db8:cafe::17]:4711"': client("2001:db8:cafe::17", 4711),
    'for="[2001:db8:cafe::17]"': client("2001:db8:cafe::17"),
    'for="192.0.2.1:_port"': client("192.0.2.1"),
    'for=192.0.2.1;host="example.com:8443";proto=https': client(
        "192.0.2.1", scheme="https", host="example.com:8443"
    ),
    "for=192.0.2.1;host=example.com": client("192.0.2.1", host="example.com"),
    "proto=wss;for=192.0.2.1": client("192.0.2.1", scheme="https"),
    # The hop that is the client speaks for itself alone.
    "for=198.51.100.1;proto=http, for=192.0.2.1;proto=https;host=a, for=10.0.0.1;proto=http;host=b": client(
        "192.0.2.1", scheme="https", host="a"
    ),
    "for=192.0.2.1, for=10.0.0.1;proto=https": client("192.0.2.1"),
    "for=10.0.0.2;host=a, for=10.0.0.1;host=b": client("10.0.0.2", host="a", found="TRUSTED"),
    "for=unknown": client(None),
    "for=_gazonk": client(None),
    "proto=https": client(None, scheme="https"),
    "by=10.0.0.1": client(None),
    "for=garbage, for=192.0.2.1": client("192.0.2.1"),
    "proto=gopher;for=1.2.3.4, for=192.0.2.1": client("192.0.2.1"),
    'for=192.0.2.1;secret="a, \\"b;c=d"': client("192.0.2.1"),
    "for=192.0.2.1;": client("192.0.2.1"),
    "": "NONE",
    ", ,": "NONE",
    # Malformed where it counts.
    "for=garbage": "BAD",
    "for=192.0.2.1;proto=gopher": "BAD",
    "for=192.0.2.1:80": "BAD",
    'for="2001:db8::1"': "BAD",
    'for="\\192.0.2.1"': "BAD",
    "for=192.0.2.1;host=a/b": "BAD",
    "for=192.0.2.1;for=192.0.2.2": "BAD",
    "for=192.0.2.1;host=a;host=b": "BAD",
    "for": "BAD",
    "for=": "BAD",
    "=192.0.2.1": "BAD",
    "for =192.0.2.1": "BAD",
    "for= 192.0.2.1": "BAD",
    "for=192.0.2.1 proto=http": "BAD",
    "192.0.2.1": "BAD",
    # A client's open quote, before what the proxy appends.
    'for="x, for=192.0.2.1': "BAD",
    'for=_x;a=", for=192.0.2.1;host="h"': "BAD",
    'for=_x;a=", for="[2001:db8::1]"': "BAD",
    'for=_x;a="\\': "BAD",
}


@pytest.mark.parametrize(("value", "found"), X_FORWARDED_FOR.items(), ids=X_FORWARDED_FOR.keys())
def test_x_forwarded_for(value, found):
    assert read_x_forwarded_for(value.encode(), TRUSTED) == found


@pytest.mark.parametrize(("value", "found"), FORWARDED.items(), ids=FORWARDED.keys())
def test_forwarded(value, found):
    assert read_forwarded(value.encode(), TRUSTED) == found


def test_everyone_is_a_peer_and_no_hop():
    # With * whoever connects is believed; what is in the list is another matter.
    everyone = Networks("*", "10.0.0.1")
    assert read_x_forwarded_for(b"192.0.2.9, 192.0.2.1", everyone) == client("192.0.2.1")
    assert read_x_forwarded_for(b"192.0.2.9, 192.0.2.1, 10.0.0.1", everyone) == client("192.0.2.1")
    assert read_forwarded(b"for=192.0.2.9, for=192.0.2.1", everyone) == client("192.0.2.1")


@pytest.mark.parametrize("read", [read_x_forwarded_for, read_forwarded])
def test_no_value_does_harm(read):
    chance = random.Random(11)
    pieces = [
        *X_FORWARDED_FOR,
        *FORWARDED,
        ",",
        ";",
        "=",
        '"',
        "\\",
        "[",
        "]",
        ":",
        "for=",
        "host=",
        "proto=",
    ]
    for _ in range(5000):
        value = "".join(chance.choices(pieces, k=chance.randrange(1, 5))).encode()
        if value and chance.random() < 0.5:
            at = chance.randrange(len(value))
            value = value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
        found = read(value, TRUSTED)
        assert found in ("BAD", "NONE") or found[0] in ("CLIENT", "TRUSTED")
