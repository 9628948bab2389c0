"""A gibibyte in and a gibibyte out, slowly, with flat memory."""

import contextlib
import time
import zlib

from scene import MIB, Normal, figure, play, promise, victim
from victim import MEGABYTE

from support import Client, request

# What a giant request may add to the memory of the server: buffers, and blocks of the application.
GROWTH = 16 * MIB
SECONDS = 20.0


@contextlib.contextmanager
def flat_memory(server, what):
    before = server.memory()
    server.forget_peak()
    begun = time.monotonic()
    with Normal(server.address) as normal:
        yield
    took, peak, after = time.monotonic() - begun, server.peak(), server.memory()
    figure(what, f"{took:.1f} s", *(f"{size / MIB:.1f} MiB" for size in (before, peak, after)))
    promise(peak - before <= GROWTH, f"memory grows by {GROWTH / MIB:.0f} MiB at most")
    normal.report()


def pieces(mebibytes, seconds):
    """So many times, as evenly as that many seconds allow."""
    begun = time.monotonic()
    for number in range(mebibytes):
        time.sleep(max(0.0, begun + seconds * number / mebibytes - time.monotonic()))
        yield


def up_and_down(is_long):
    """A large upload and large downloads by a slow client; memory before, at its peak, and after"""
    mebibytes, seconds = (1024, SECONDS) if is_long else (96, 2.0)
    size = mebibytes * MIB
    with victim("--limit-request-body", "2g", "--response-spool", "2g") as server:
        figure("", "time, before, peak, after")
        # The threads have their stacks and arenas, the application its modules.
        server.ask("/content", "POST", content=MEGABYTE * 2)
        with contextlib.closing(Client(server.address)) as client:
            checksum = 0
            with flat_memory(server, f"{mebibytes} MiB uploaded"):
                client.send(request("/content", "POST", fields=[("Content-Length", size)]))
                for _ in pieces(mebibytes, seconds):
                    client.send(MEGABYTE)
                    checksum = zlib.crc32(MEGABYTE, checksum)
                text = client.read_response("POST").text
            promise(text == f"{size} {checksum}", f"it arrives whole: {text}")
        for how in ("generator", "write"):
            with contextlib.closing(Client(server.address, receive_buffer=65536)) as client:
                with flat_memory(server, f"{mebibytes} MiB downloaded ({how})"):
                    client.send(request(f"/big?size={size}&how={how}"))
                    client.read_head()
                    same = True
                    for _ in pieces(mebibytes, seconds):
                        same = same and client.take(MIB) == MEGABYTE
                promise(same, "it arrives whole")
        server.leave()


if __name__ == "__main__":
    play(up_and_down)
