"""The header of the PROXY protocol: what is one, and that cuts make no difference."""

import random
import socket
import struct

import pytest

from fastwsgi._proxy import read_header

V1, V2 = 1, 2
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def v2(command=0x21, family=0x11, block=None, length=None):
    if block is None:
        addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.1")
        block = addresses + struct.pack(">HH", 56324, 443)
    return (
        SIGNATURE
        + bytes([command, family])
        + struct.pack(">H", len(block) if length is None else length)
        + block
    )


IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack(">HH", 56324, 443)
TLVS = b"\x03\x00\x04\x01\x02\x03\x04" + b"\x04\x00\x10" + bytes(16)

GOOD = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", ("address", "192.0.2.1", 56324)),
    "TCP4, port 0": (b"PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n", ("address", "255.255.255.255", 0)),
    "TCP6": (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n", ("address", "2001:db8::1", 56324)),
    "TCP6, the longest": (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        ("address", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", ("hidden", None, 0)),
    "UNKNOWN and more": (b"PROXY UNKNOWN ffff:: nonsense\t1 2\r\n", ("hidden", None, 0)),
    "v2 IPv4": (v2(), ("address", "192.0.2.1", 56324)),
    "v2 IPv6": (v2(family=0x21, block=IPV6), ("address", "2001:db8::1", 56324)),
    "v2 with TLVs": (v2(family=0x21, block=IPV6 + TLVS), ("address", "2001:db8::1", 56324)),
    "v2 with much": (v2(block=v2()[16:] + bytes(4084)), ("address", "192.0.2.1", 56324)),
    "v2 LOCAL": (v2(0x20, 0x00, b""), ("proxy", None, 0)),
    "v2 LOCAL with anything": (v2(0x20, 0xFF, b"anything"), ("proxy", None, 0)),
    "v2 UNSPEC": (v2(family=0x00, block=b""), ("hidden", None, 0)),
    "v2 UNSPEC with something": (v2(family=0x00, block=TLVS), ("hidden", None, 0)),
    "v2 UNIX": (v2(family=0x31, block=bytes(216)), ("hidden", None, 0)),
}

BAD = {
    "no family": b"PROXY \r\n",
    "TCP": b"PROXY TCP 192.0.2.1 198.51.100.1 1 2\r\n",
    "TCP5": b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
    "tcp4": b"PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n",
    "UNKNOWN and a letter": b"PROXY UNKNOWNX\r\n",
    "IPv6 in TCP4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "IPv4 in TCP6": b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
    "two spaces before a port": b"PROXY TCP4 192.0.2.1 198.51.100.1  1 2\r\n",
    "a tab": b"PROXY TCP4\t192.0.2.1 198.51.100.1 1 2\r\n",
    "a space at the end": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
    "one word more": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
    "one port": b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
    "one address": b"PROXY TCP4 192.0.2.1\r\n",
    "no address": b"PROXY TCP4\r\n",
    "leading zero in an address": b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
    "leading zero in a port": b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
    "negative port": b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
    "large port": b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
    "large other port": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 99999\r\n",
    "no CR": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
    "two CR": b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\r\n",
    "CR within": b"PROXY TCP4 192.0.2.1\r198.51.100.1 1 2\r\n",
    "NUL": b"PROXY TCP4 192.0.2.1\0 198.51.100.1 1 2\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "endless": b"PROXY " + b"x" * 200,
    "v2 of version 1": v2(0x11),
    "v2 of version 3": v2(0x31),
    "v2 with another command": v2(0x22),
    "v2 UDP": v2(family=0x12),
    "v2 SCTP": v2(family=0x13),
    "v2 another family": v2(family=0x41, block=bytes(300)),
    "v2 UNIX datagrams": v2(family=0x32, block=bytes(216)),
    "v2 UNIX, short": v2(family=0x31, block=bytes(215)),
    "v2 IPv4, short": v2(block=bytes(11)),
    "v2 IPv6, short": v2(family=0x21, block=bytes(35)),
    "v2 longer than any": v2(length=4097),
}

MISSING = {
    "a request": REQUEST,
    "lower case": b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    "not at the beginning": b" PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    "an empty line before": b"\r\nPROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    "no space": b"PROXYTCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    "a wrong signature": b"\r\n\r\n\0\r\nQUIT\r\n" + v2()[12:],
    "TLS": b"\x16\x03\x01\x02\x00",
}


def outcome(data, cuts, versions=V1 | V2):
    """What is said at the first cut that decides; MORE if none does."""
    for cut in [*sorted(cuts), len(data)]:
        found = read_header(data[:cut], versions)
        if found != "MORE":
            return found
    return "MORE"


def all_cuts(data):
    chance = random.Random(len(data))
    yield []
    yield range(len(data))
    for _ in range(20):
        yield chance.sample(range(len(data)), k=min(3, len(data)))


@pytest.mark.parametrize(("header", "found"), GOOD.values(), ids=GOOD.keys())
def test_good(header, found):
    for behind in (b"", REQUEST, header):
        for cuts in all_cuts(header + behind):
            assert outcome(header + behind, cuts) == (len(header), *found)


@pytest.mark.parametrize("header", [header for header, _ in GOOD.values()], ids=GOOD.keys())
def test_no_beginning_of_one_is_one(header):
    for size in range(len(header)):
        assert read_header(header[:size]) == "MORE"


@pytest.mark.parametrize("header", BAD.values(), ids=BAD.keys())
def test_bad(header):
    for behind in (b"", REQUEST):
        for cuts in all_cuts(header + behind):
            assert outcome(header + behind, cuts) == "BAD"


@pytest.mark.parametrize("data", MISSING.values(), ids=MISSING.keys())
def test_missing(data):
    for cuts in all_cuts(data):
        assert outcome(data, cuts) == "MISSING"


def test_versions():
    first, second = GOOD["TCP4"][0], GOOD["v2 IPv4"][0]
    assert read_header(first, V2) == read_header(second, V1) == "MISSING"
    assert read_header(first, V1)[0] == len(first)
    assert read_header(second, V2)[0] == len(second)


def test_no_octets_do_harm():
    chance = random.Random(5)
    headers = [header for header, _ in GOOD.values()] + list(BAD.values())
    for _ in range(5000):
        data = bytearray(chance.choice(headers) + REQUEST)
        for _ in range(chance.randrange(4)):
            data[chance.randrange(min(len(data), 60))] = chance.randrange(256)
        cuts = chance.sample(range(len(data)), k=3)
        assert outcome(bytes(data), cuts) == outcome(bytes(data), [])
