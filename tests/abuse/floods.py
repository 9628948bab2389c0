"""More connections than are allowed or than there are descriptors for, and many that come only to leave."""

import contextlib
import resource
import time

from scene import Normal, crowd, figure, play, promise, victim

from support import Client, request, wait_until

NO_ROOM = "as many connections as --worker-connections allows"
NO_DESCRIPTORS = "no more connections can be accepted"
UPLOAD = b"x" * 2_000_000  # more than --request-buffer


def limit_descriptors(server, soft):
    """Set the limit; returns what it was."""
    before, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    return before


def idle_ones(is_long):
    """Clients that keep connections and ask nothing, five times --worker-connections"""
    with victim("--worker-connections", "200") as server:
        with Normal(server.address) as normal, crowd(server.ports[0], idle=1000) as counted:
            time.sleep(10 if is_long else 2)
            # Those that make room are closed at the end of a turn, which accepts 64 at most.
            connections = server.counters()["connections"]
            promise(connections <= 200 + 64, f"{connections} connections where 200 are allowed")
        normal.report()
        figure("1000 idle clients, 200 allowed", counted)
        promise(server.said(NO_ROOM) == 0, "idle connections make room")
        server.leave()


def busy_ones(is_long):
    """Clients that never finish a request head, five times --worker-connections"""
    seconds = 20 if is_long else 3
    with victim("--worker-connections", "200", "--header-timeout", "2s") as server:
        with contextlib.closing(Client(server.address, timeout=seconds + 10)) as inside:
            # Not idle, or it would make room for another.
            inside.send(request(f"/wait?seconds={seconds}"))
            with crowd(server.ports[0], head=1000) as counted:
                server.wait_said(NO_ROOM)
                promise(inside.read_response().text == "waited", "a client inside is served")
        figure("1000 unfinished heads, 200 allowed", counted)
        lines = server.said(NO_ROOM)
        figure("log records that say so", lines)
        promise(1 <= lines <= 2 + seconds / 10, f"{lines} log records say that there is no room")
        server.leave()


def no_descriptors(is_long):
    """Every descriptor taken: accepting pauses, spools and the application fail alone, all recovers"""
    with victim() as server:
        limit = server.before + 50
        with contextlib.closing(Client(server.address)) as kept:
            assert kept.ask().text == "hello"
            limit_descriptors(server, limit)
            cpu, begun = server.cpu_seconds(), time.monotonic()
            with crowd(server.ports[0], head=200) as counted:
                server.wait_said(NO_DESCRIPTORS)
                until = time.monotonic() + (12 if is_long else 2)
                while time.monotonic() < until:
                    promise(kept.ask().text == "hello", "a client inside is served")
                    time.sleep(0.05)  # well within --keep-alive-requests
                response = kept.ask("/opened?files=20")
                promise(response.status == 500, "an application that cannot open its files is answered for")
                share = (server.cpu_seconds() - cpu) / (time.monotonic() - begun)
                lines = server.said(NO_DESCRIPTORS)
        figure("200 clients, descriptors for 50", counted)
        figure("CPU share meanwhile", f"{share:.0%}")
        figure("log records that say so", lines)
        promise(1 <= lines <= 3, f"{lines} log records say that descriptors have run out")
        promise(server.ask("/content", "POST", content=UPLOAD).status == 200, "an upload is spooled again")
        server.leave(failures_of_the_application=1)


def no_descriptor_for_a_spool(is_long):
    """A connection is the last descriptor: its upload is refused, its large answer arrives all the same"""
    with victim("--response-buffer", "64k") as server:
        with contextlib.closing(Client(server.address, receive_buffer=4096)) as slow:
            with contextlib.closing(Client(server.address)) as kept:
                assert slow.ask().text == kept.ask().text == "hello"
                wait_until(lambda: server.descriptors() == server.before + 2, "nothing but these two")
                before = limit_descriptors(server, server.before + 2)
                slow.send(request("/big?size=8000000&how=generator"))
                slow.read_head()
                kept.send(request("/content", "POST", content=UPLOAD))
                response = kept.read_response()
                figure("upload without a descriptor", f"{response.status} {response.reason}")
                promise(response.status == 500, "it is refused")
                wait_until(lambda: server.said("refused with 500") == 1, "the log record")
            octets = len(slow.take(8_000_000))
            figure("download without a descriptor", f"{octets} octets")
        limit_descriptors(server, before)
        promise(server.ask("/content", "POST", content=UPLOAD).status == 200, "an upload is spooled again")
        server.leave()


def resetting_ones(is_long):
    """Clients that connect, send half a request line and reset, a thousand a second"""
    with victim() as server:
        with Normal(server.address) as normal, crowd(server.ports[0], resetting=1000) as counted:
            time.sleep(15 if is_long else 3)
        normal.report()
        figure("resets", counted)
        server.leave()


if __name__ == "__main__":
    play(idle_ones, busy_ones, no_descriptors, no_descriptor_for_a_spool, resetting_ones)
