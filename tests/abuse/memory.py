"""No memory beyond a limit (ulimit -v): what needs it fails, the server stays."""

import collections
import contextlib
import resource
import time

from scene import MIB, Normal, crowd, figure, play, promise, text_of, victim

from support import Client, request

ROOM = 64 * MIB


def limit(server, room):
    """No more than what it has and some room; returns what the limit was."""
    before, hard = resource.prlimit(server.pid, resource.RLIMIT_AS)
    most = server.status("VmSize") + room
    resource.prlimit(server.pid, resource.RLIMIT_AS, (most, hard))
    return before, hard


def greedy_application(is_long):
    """An application that asks for more memory than there is, in its code and for its answer"""
    times = 50 if is_long else 10
    with victim() as server:
        limit(server, ROOM)
        statuses = collections.Counter()
        with Normal(server.address) as normal:
            for _ in range(times):
                statuses[server.ask(f"/allocate?size={4 * ROOM}").status] += 1
                # 1 MiB of memory for each, many times over: as much as fits, then the spool.
                with contextlib.closing(Client(server.address, receive_buffer=4096)) as client:
                    client.send(request(f"/big?size={4 * ROOM}&how=generator"))
                    statuses[client.read_head().status] += 1
                time.sleep(0.05)
        normal.report()
        figure("answers", {f"answered {status}": count for status, count in statuses.items()})
        promise(statuses == {500: times, 200: times}, "what needs too much is answered with 500, no other")
        server.leave(failures_of_the_application=times)


def leaking_application(is_long):
    """An application that takes all the memory there is and keeps it"""
    with victim() as server:
        before = limit(server, 16 * MIB)
        answers = collections.Counter()
        for target in ("/leak", *("/" for _ in range(200 if is_long else 30))):
            try:
                answers[f"answered {server.ask(target).status}"] += 1
            except (OSError, AssertionError):
                answers["not answered"] += 1  # there is no memory for an answer either
        figure("answers", answers)
        promise(server.is_running(), "the server stays")
        resource.prlimit(server.pid, resource.RLIMIT_AS, before)
        promise(server.ask().text == "hello", "with memory, a normal request is answered")
        server.stop()
        figure("log records lost, for lack of memory", server.said("--- Logging error ---"))
        promise("Stopped after" in server.stderr, "the server ends in order")


def greedy_clients(is_long):
    """Clients that announce content, send a little of it and stay, until there is no memory for more"""
    out_of_memory(64 * MIB, 15 if is_long else 3, announced=1000)


def many_heads(is_long):
    """Clients that begin a request head and stay, until there is no memory for more"""
    out_of_memory(8 * MIB, 12 if is_long else 3, head=3000)


def out_of_memory(room, seconds, **kinds):
    with victim() as server:
        limit(server, room)
        with Normal(server.address) as normal, crowd(server.ports[0], **kinds) as counted:
            time.sleep(seconds)
        normal.report(may_fail=True)
        figure(f"{text_of(kinds)}, {room // MIB} MiB of room", counted)
        figure("log records of refusals", server.said("refused with 503"))
        promise(counted.get("answered 503", 0) > 0, "some are refused")
        server.leave()


if __name__ == "__main__":
    play(greedy_application, leaking_application, greedy_clients, many_heads)
