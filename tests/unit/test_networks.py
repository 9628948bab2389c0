"""Addresses in their canonical form, and sets of them."""

import ipaddress
import random

import pytest

from fastwsgi._networks import Networks, canonical


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"127.0.0.1", "127.0.0.1"),
        (b"255.255.255.255", "255.255.255.255"),
        (b"::1", "::1"),
        (b"2001:DB8:0:0::0:1", "2001:db8::1"),
        (b"::ffff:1.2.3.4", "1.2.3.4"),
        (b"::FFFF:102:304", "1.2.3.4"),
        (b"::", "::"),
        (b"ffff:" * 7 + b"fff0", "ffff:" * 7 + "fff0"),
        (b"0000:" * 5 + b"ffff:255.255.255.255", "255.255.255.255"),
        (b"ffff:" * 6 + b"255.255.255.254", "ffff:" * 7 + "fffe"),
        (b"::255.255.255.254", "::255.255.255.254"),
    ],
)
def test_an_address_has_one_form(text, shown):
    assert canonical(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1",
        b"1.2.3",
        b"1.2.3.4.5",
        b"1.2.3.256",
        b"01.2.3.4",
        b"1.2.3.0x4",
        b" 1.2.3.4",
        b"1.2.3.4 ",
        b"1.2.3.4\0",
        b"1.2.3.4:80",
        b"[::1]",
        b":::",
        b"1::2::3",
        b"12345::",
        b"fe80::1%eth0",
        b"localhost",
        b"1" * 100,
    ],
)
def test_no_address(text):
    assert canonical(text) is None


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        (("10.0.0.0/8",), ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["9.255.255.255", "11.0.0.0"]),
        (("192.0.2.7",), ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
        (("192.0.2.128/29",), ["192.0.2.128", "192.0.2.135"], ["192.0.2.127", "192.0.2.136"]),
        (("2001:db8::/33",), ["2001:db8::1", "2001:db8:7fff::"], ["2001:db8:8000::", "2001:db9::"]),
        (("0.0.0.0/0",), ["1.2.3.4", "::ffff:1.2.3.4"], ["::1"]),
        (("::/0",), ["::1", "2001:db8::"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        (("::ffff:10.0.0.0/104",), ["10.1.2.3"], ["11.0.0.0", "::1"]),
        (("10.0.0.1", "::1"), ["10.0.0.1", "::1"], ["10.0.0.2", "::2"]),
        (("*",), [], ["1.2.3.4"]),
        (("none",), [], ["127.0.0.1"]),
    ],
)
def test_networks(networks, inside, outside):
    found = Networks(*networks)
    assert all(text.encode() in found for text in inside)
    assert not any(text.encode() in found for text in outside)


def test_networks_are_those_of_the_standard_library():
    chance = random.Random(3)
    for _ in range(300):
        version, size = chance.choice([(ipaddress.IPv4Address, 32), (ipaddress.IPv6Address, 128)])
        address = version(chance.getrandbits(size))
        prefix = chance.randrange(size + 1)
        network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
        ours = Networks(str(network))
        for _ in range(10):
            flipped = version(int(address) ^ (1 << chance.randrange(size)))
            assert (str(flipped).encode() in ours) == (flipped in network)


@pytest.mark.parametrize(
    ("given", "peers"),
    [
        (("127.0.0.1", "::1"), {b"127.0.0.1", b"::1", None}),
        (("10.0.0.0/8",), {b"10.1.1.1", None}),
        (("*",), {b"127.0.0.1", b"::1", b"10.1.1.1", None}),
        (("unix",), {None}),
        (("none",), set()),
    ],
)
def test_peers(given, peers):
    found = Networks(*given)
    assert {peer for peer in (b"127.0.0.1", b"::1", b"10.1.1.1", None) if found.has_peer(peer)} == peers
