"""Requests, generated and mutated, to our parser, to llhttp and to h11: every disagreement is explained.

DIFFERENTIAL=100000 tries so many of each kind, and others each time.
"""

import json
import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from differential.parsers import OTHERS, read_with_ours
from differential.rules import CHOICES, OTHERS_REFUSE, OTHERS_UNDERSTAND, Unexplained, explain

FILES = sorted(Path(__file__).parents[1].glob("vectors/*/*/*.http"))
VECTORS = [file.read_bytes() for file in FILES]
EXAMPLES = int(os.environ.get("DIFFERENTIAL", "0"))
bounded = settings(
    max_examples=EXAMPLES or 2000,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def compare(octets, limits=None):
    """The rules and refusals that explain how the others read the octets."""
    ours = read_with_ours(octets, limits or {})
    try:
        return [why for name, read in OTHERS.items() for why in explain(name, octets, ours, read(octets))]
    except Unexplained as error:
        error.add_note(repr(octets))
        raise


def test_vectors():
    used = set()
    for file, octets in zip(FILES, VECTORS):
        used.update(compare(octets, json.loads(file.with_suffix(".json").read_text()).get("limits")))
    assert used >= {*OTHERS_REFUSE, *OTHERS_UNDERSTAND, *CHOICES}, "a rule that explains nothing"


# A request of parts, each of which is either as it should be (the first) or as it should not.
# fmt: off
PARTS = {
    "before": [b"", b"\r\n", b"\n", b"\r\n\r\n", b" ", b"\r", b"\0"],
    "method": [
        b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"X-Y", b"G ET", b"", b"PRI", b"G\0T",
    ],
    "space": [b" ", b"  ", b"\t", b"", b"\n", b"\x0b", b"\r"],
    "target": [
        b"/", b"/a?b=c", b"/%41", b"/%4", b"*", b"http://a/b", b"http://b", b"HTTPS://a:443/", b"a:80",
        b"//a/b", b"/a#b", b"/\xc3\xa9", b"/a b", b"http://u@a/", b"ftp://a/", b"?", b"/a\\b", b"/<",
        b"/\x7f", b"/\0", b"/\r",
    ],
    "version": [
        b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9",
        b"HTTP/1.10", b"HTTP/01.1", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1", b"",
    ],
    "line end": [b"\r\n", b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n\r\n"],
    "host": [b"Host: a\r\n", b"", b"Host : a\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a b\r\n", b"Host:\r\n"],
    "head end": [b"\r\n", b"\n", b"\r", b"\r\r\n", b"", b"\r\n\r\n", b" \r\n"],
    "size": [
        b"5", b"05", b"0x5", b"+5", b"-5", b"5 ", b" 5", b"", b"5_", b"G", b"f" * 15, b"f" * 16,
        b"0" * 17 + b"5", b"5\0", b"5.0", b"5,",
    ],
    "extension": [
        b"", b";a", b";a=b", b';a="b"', b" ; a = b", b";", b";;a", b";a=", b';a="\n"', b";\n", b";a\r",
        b";a b", b" a", b";\0", b'\t;\ta="\\""', b';a="', b";a\r\r",
    ],
    "chunk end": [b"\r\n", b"\n", b"\r", b"", b"XX", b"\r\n\r\n", b" \r\n"],
    "last": [b"0", b"00", b"0x0", b"-0", b"", b" 0", b"0 ", b"0;a", b"0_"],
    "trailer": [
        b"", b"X: y\r\n", b"Content-Length: 5\r\n", b"X : y\r\n", b"X\r\n", b" y\r\n", b"X: y\n", b"\n",
        b"X: \0\r\n",
    ],
}
NAMES = [b"Content-Length", b"Transfer-Encoding"] * 3 + [
    b"Host", b"Connection", b"Expect", b"Upgrade", b"Content_Length", b"Transfer-Encoding\0",
    b"Content-Length\x85", b" X", b"X", b"X Y", b"", b"\xe9", b"X[]", b"Transfer\r-Encoding",
    b"Connection ", b"Proxy-Connection",
]
SEPARATORS = [b": "] * 8 + [b":", b" : ", b":\t", b"\t:", b":  ", b";", b"", b":\x0b", b":\r\n "]
VALUES = {
    b"Content-Length": [
        b"0", b"5", b"05", b"+5", b"-5", b"0x5", b"5_0", b"5 ", b" 5", b"5, 5", b"5,6", b"", b"5;a",
        b"\xd9\xa5", b"9223372036854775807", b"9223372036854775808", b"18446744073709551621", b"5\r\n ",
        b"5,",
    ],
    b"Transfer-Encoding": [
        b"chunked", b"Chunked", b"identity", b"gzip, chunked", b"chunked, identity", b"chunked, chunked",
        b",chunked", b"chunked,", b"chunked;a=b", b'"chunked"', b"\x0bchunked", b"chunked\t",
        b"chunked\xa0", b"chunk", b"xchunked", b"", b"chunked\r\n ", b"chunked chunked",
    ],
    b"Host": [
        b"a", b"a:80", b"[::1]", b"", b"a b", b"a,b", b"u@a", b"a/b", b"a:b", b"\xe9", b"a\0", b"[::1",
        b"%41",
    ],
    b"Connection": [
        b"close", b"keep-alive", b"Close, x", b"keep-alive, close", b"Upgrade", b"", b"a b", b"x",
    ],
    b"Expect": [b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, x"],
    b"Upgrade": [b"websocket", b"h2c", b"HTTP/2.0", b""],
}
OTHER_VALUES = [
    b"", b"x", b"x\0y", b"x\ry", b"x\ny", b"\xff", b"x\ty", b"x\x7f", b"\x85x\xa0", b"x:y", b"x\r\n y",
    b"close",
]
LINE_ENDS = [b"\r\n"] * 8 + [b"\n", b"\r", b" \r\n", b"\r\r\n", b"\n\r\n", b"\r\n\r\n", b"\r\n ", b""]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"=", b'"', b"0\r\n\r\n", b"\r\n\r\n",
    b"\xff", b"\x85", b"chunked", b"close", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n", b"f" * 16, b"-1", b"Connection: close\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.0", b"5", b"x", b"Upgrade: x\r\n",
]
# fmt: on


def make_field(generator):
    name = generator.choice(NAMES)
    value = generator.choice(VALUES.get(name, OTHER_VALUES))
    return name + generator.choice(SEPARATORS) + value + generator.choice(LINE_ENDS)


def make_request(generator):
    """A request of which up to two parts are odd, and maybe with an odd field."""
    odd = generator.sample(list(PARTS), generator.choice([0, 1, 1, 2]))
    part = {name: generator.choice(some[1:]) if name in odd else some[0] for name, some in PARTS.items()}
    fields = [make_field(generator)] if generator.random() < 0.6 else []
    framing = generator.choice(["none", "length", "chunked", "chunked"])
    if framing == "length":
        fields.append(b"Content-Length: 5\r\n")
    elif framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked\r\n")
    generator.shuffle(fields)
    line = [part["method"], part["space"], part["target"], b" ", part["version"], part["line end"]]
    head = b"".join([part["before"], *line, part["host"], *fields, part["head end"]])
    chunk = [part["size"], part["extension"], b"\r\n", b"hello", part["chunk end"]]
    chunked = b"".join([*chunk, part["last"], b"\r\n", part["trailer"], b"\r\n"])
    return head + {"none": b"", "length": b"hello", "chunked": chunked}[framing]


def mutate(generator, octets):
    """A few small changes."""
    for _ in range(generator.randint(1, 3)):
        start = generator.randint(0, min(len(octets), 400))
        end = start + generator.choice([0, 0, 1, 1, 2, 5, 20])
        kind = generator.randint(0, 3)
        if kind == 0:
            octets = octets[:start] + generator.choice(PIECES) + octets[end:]
        elif kind == 1:
            octets = octets[:start] + octets[end:]
        elif kind == 2:
            octets = octets[:start] + generator.randbytes(end - start) + octets[end:]
        else:
            octets = octets[:end] + octets[start:]
    return octets


# A generator that hypothesis seeds: drawing each part from hypothesis itself would take ten times as long.
GENERATORS = st.randoms(use_true_random=True)


@bounded
@given(GENERATORS)
def test_generated(generator):
    compare(b"".join(make_request(generator) for _ in range(generator.randint(1, 3))))


@bounded
@given(GENERATORS)
def test_mutated(generator):
    compare(mutate(generator, generator.choice(VECTORS)) + generator.choice(VECTORS))
