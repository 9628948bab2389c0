"""Handshakes that stop half-way, that are reset once they have cost something, and too many of them."""

import contextlib
import tempfile
import time
from pathlib import Path

from scene import Normal, crowd, figure, play, promise, victim

from certificates import AUTHORITY, client_context

HELD_MOST = 1024
SECONDS = 3


@contextlib.contextmanager
def secure_victim(*arguments):
    """One that has TLS at its first address, and none at its last, for what the scripts ask themselves."""
    with tempfile.TemporaryDirectory(prefix="abuse-tls-") as directory:
        certfile, keyfile = AUTHORITY.write(Path(directory), "localhost", "localhost")
        files = ("--certfile", certfile, "--keyfile", keyfile)
        with victim("--bind", "http://127.0.0.1:0", *files, *arguments) as server:
            yield server


def normal_over_tls(server):
    return Normal(("127.0.0.1", server.ports[0]), tls=client_context())


def half_way(is_long):
    """250 clients that send half of their first flight, 250 that send all of it, 500 that do so and reset"""
    with secure_victim("--header-timeout", "2s") as server:
        cpu = server.cpu_seconds()
        with normal_over_tls(server) as normal:
            with crowd(server.ports[0], half_hello=250, hello=250, hello_resets=500) as counted:
                time.sleep(20 if is_long else SECONDS)
            used = server.cpu_seconds() - cpu
        normal.report()
        figure("1000 clients", counted)
        figure("CPU seconds", f"{used:.2f}")
        promise(
            counted.get("closed by the server", 0) >= 500, "what stops half-way ends with --header-timeout"
        )
        server.leave()


def too_many(is_long):
    """Twice as many unfinished handshakes as are held at once"""
    with secure_victim() as server:
        with normal_over_tls(server) as normal, crowd(server.ports[0], half_hello=2 * HELD_MOST) as counted:
            time.sleep(10 if is_long else 1)
            held = server.counters()["connections"]
        normal.report()
        figure(f"{2 * HELD_MOST} clients", counted)
        # Those of the normal client, and the one that asks.
        promise(held <= HELD_MOST + 4, f"{held} connections are held, where {HELD_MOST} handshakes may be")
        server.leave()


def spoken_to_in_plain(is_long):
    """500 clients a second that take the address for one without TLS"""
    with secure_victim() as server:
        with normal_over_tls(server) as normal, crowd(server.ports[0], idle=500) as counted:
            time.sleep(10 if is_long else SECONDS)
        normal.report()
        figure("500 clients", counted)
        promise(counted.get("answered 400", 0) >= 500, "each is told so in what it speaks")
        server.leave()


if __name__ == "__main__":
    play(half_way, too_many, spoken_to_in_plain)
