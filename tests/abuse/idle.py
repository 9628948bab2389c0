"""Ten thousand connections on which nothing happens."""

import resource
import time

from scene import MIB, Normal, crowd, figure, play, promise, victim

CONNECTIONS = 10_000
SPARE = 200  # descriptors for everything else
OCTETS_EACH = 1024


def ten_thousand(is_long):
    """Ten thousand kept connections after one request each, and a normal client beside them"""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The server takes connections for four fifths of its descriptors.
    count = min(CONNECTIONS, hard * 4 // 5 - SPARE)
    with victim() as server:
        with Normal(server.address) as normal:
            time.sleep(5 if is_long else 1)
        figure("without them:")
        normal.report()
        before, begun = server.memory(), time.monotonic()
        with crowd(server.ports[0], idle=count) as counted:
            figure("connected within", f"{time.monotonic() - begun:.1f} s")
            time.sleep(0.5)
            held = server.counters()["connections"] - 1
            grown = server.memory() - before
            figure("memory", f"{before / MIB:.0f} MiB before, {(before + grown) / MIB:.0f} MiB with them")
            figure("octets a connection", f"{grown / held:.0f}")
            promise(grown <= OCTETS_EACH * held + 4 * MIB, f"no more than {OCTETS_EACH} octets a connection")
            seconds = 5 if is_long else 1
            cpu = server.cpu_seconds()
            time.sleep(seconds)
            share = (server.cpu_seconds() - cpu) / seconds
            figure("CPU share while nothing happens", f"{share:.1%}")
            with Normal(server.address) as normal:
                time.sleep(10 if is_long else 1)
            normal.report()
        figure(f"of {count} clients", counted)
        promise(counted.get("closed by the server", 0) == 0, "none is closed")
        promise(held == count, f"{held} connections of {count} are held")
        server.leave()


if __name__ == "__main__":
    play(ten_thousand)
