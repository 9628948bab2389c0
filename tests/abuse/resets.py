"""Clients that reset or half-close at every point of a request and of its answer."""

import contextlib
import time

from scene import Normal, figure, play, promise, victim

from support import Client, Incomplete, chunked, request

CONTENT = bytes(range(256))
POST = request("/content", "POST", content=CONTENT)
CHUNKED = request(
    "/content", "POST", fields=[("Transfer-Encoding", "chunked")], content=chunked(CONTENT, 100)
)
UPLOAD = request("/content", "POST", content=b"x" * 700_000)  # more than --request-buffer
HOW = ("list", "generator", "write", "file")
ANSWER = 3_000_000
RESPONSE_BUFFER = ("--response-buffer", "64k")


def points(size, count):
    """So many numbers from 0 to size, both included."""
    return sorted({size * number // (count - 1) for number in range(count)})


def resets_in_requests(is_long):
    """A reset at every octet of a POST, with a length and chunked, and at points of an upload"""
    with victim() as server:
        connections = 0
        with Normal(server.address) as normal:
            for octets, stops in (
                (POST, range(len(POST) + 1)),
                (CHUNKED, range(len(CHUNKED) + 1)),
                (UPLOAD, points(len(UPLOAD), 200 if is_long else 30)),
            ):
                for stop in stops:
                    # At once, and when the server has had the time to receive what was sent.
                    for pause in (0, 0.002) if is_long else (0.002 * (stop % 2),):
                        client = Client(server.address)
                        with contextlib.suppress(ConnectionError):
                            client.send(octets[:stop])
                        time.sleep(pause)
                        client.reset()
                        connections += 1
        normal.report()
        figure("connections reset", connections)
        server.leave()


def resets_in_answers(is_long):
    """A reset at points of a large answer, each way an application can give it"""
    with victim(*RESPONSE_BUFFER) as server:
        (server.directory / "file").write_bytes(b"x" * ANSWER)
        connections = 0
        # Every octet of the head and what follows it, and then here and there.
        stops = sorted({*range(0, 300, 1 if is_long else 20), *points(ANSWER, 60 if is_long else 12)})
        with Normal(server.address) as normal:
            for how in HOW:
                for stop in stops:
                    client = Client(server.address, receive_buffer=4096)
                    client.send(request(f"/big?size={ANSWER}&how={how}"))
                    if stop:
                        client.take(stop)
                    client.reset()
                    connections += 1
        normal.report()
        figure("connections reset", connections)
        server.leave()


def half_closed_requests(is_long):
    """A half-close after every octet of a POST: an answer if all was there, the end if not"""
    with victim() as server:
        answered = ended = 0
        slowest = 0.0
        with Normal(server.address) as normal:
            for octets in (POST, CHUNKED):
                for stop in range(len(octets) + 1):
                    with contextlib.closing(Client(server.address)) as client:
                        client.send(octets[:stop])
                        begun = time.monotonic()
                        client.half_close()
                        if stop == len(octets):
                            answered += client.read_response("POST").text.startswith("256 ")
                        client.expect_end()
                        ended += 1
                        slowest = max(slowest, time.monotonic() - begun)
        normal.report()
        figure("connections half-closed", f"{ended}, slowest end {slowest * 1000:.0f} ms")
        promise(answered == 2, "the two complete ones are answered")
        server.leave()


def half_closed_answers(is_long):
    """A half-close behind a complete request: pipelined, in the application, while a large answer is sent"""
    with victim(*RESPONSE_BUFFER) as server:
        (server.directory / "file").write_bytes(b"x" * ANSWER)
        with Normal(server.address) as normal:
            with contextlib.closing(Client(server.address)) as client:
                client.send(request() * 40)
                client.half_close()
                answers = 0
                with contextlib.suppress(Incomplete):
                    while client.read_response().text == "hello":
                        answers += 1
            figure("40 pipelined", f"{answers} answered")
            promise(answers == 40, "all pipelined requests are answered")
            with contextlib.closing(Client(server.address)) as client:
                client.send(request("/wait?seconds=0.5"))
                time.sleep(0.1)
                client.half_close()
                promise(client.read_response().text == "waited", "an answer that takes a while arrives")
                client.expect_end()
            for how in HOW:
                with contextlib.closing(Client(server.address, receive_buffer=4096)) as client:
                    client.send(request(f"/big?size={ANSWER}&how={how}"))
                    client.read_head()
                    client.half_close()
                    octets = len(client.take(ANSWER))
                    promise(octets == ANSWER, f"a large answer ({how}) arrives whole")
                    client.expect_end()
            figure("large answers", f"{len(HOW)} whole")
        normal.report()
        server.leave()


if __name__ == "__main__":
    play(resets_in_requests, resets_in_answers, half_closed_requests, half_closed_answers)
