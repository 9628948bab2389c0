"""Requests that are nearly right: mutations of the vectors."""

from pathlib import Path

SEEDS = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "vectors").rglob("*.http"))]

# What a parser looks at.
INTERESTING = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"\xff",
    b"chunked",
    b"close",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"ffffffffffffffff",
    b"-1",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"GET / HTTP/1.1\r\n",
    b"X" * 9000,
]


def mutated(generator):
    """A vector with a few small changes: octets changed, cut out, put in, doubled, or another vector's."""
    data = bytearray(generator.choice(SEEDS))
    for _ in range(generator.randint(1, 4)):
        start = generator.randint(0, len(data))
        end = min(len(data), start + generator.choice([0, 1, 1, 2, 5, 20]))
        kind = generator.randint(0, 4)
        if kind == 0:
            data[start:end] = generator.randbytes(end - start)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = generator.choice(INTERESTING)
        elif kind == 3:
            data[start:start] = data[start:end]
        else:
            data[start:] = generator.choice(SEEDS)[start:]
    return bytes(data)
