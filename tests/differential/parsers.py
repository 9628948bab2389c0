"""What three parsers make of the octets of one connection, in one form: ours, llhttp (of Node.js) and h11."""

from typing import NamedTuple

import h11
import pytest

from parsing import converse

httptools = pytest.importorskip("httptools")

METHOD_OF_TUNNELS = "CONNECT"


class Request(NamedTuple):
    method: str
    target: str
    version: str
    fields: tuple
    """(name, value) of each field line, the name in lower case."""
    content: str
    keep_alive: bool


class Reading(NamedTuple):
    requests: list
    """Those that are complete, up to the first after which the connection closes."""
    refused: str | None
    """Why the one after them is refused: for ours the name of the refusal, otherwise the message."""


def read_with_ours(octets, limits):
    found, outcome = converse([octets], limits)
    requests = []
    for head in found:
        requests.append(
            Request(
                head["method"],
                head["target"],
                "{}.{}".format(*head["version"]),
                tuple((name.lower(), value) for name, value in head["fields"]),
                head["content"],
                head["keep_alive"],
            )
        )
        if not head["keep_alive"] or head["method"] == METHOD_OF_TUNNELS:
            return Reading(requests, None)
    return Reading(requests, outcome if outcome.startswith("REFUSAL_") else None)


class Collector:
    """The callbacks of httptools."""

    def __init__(self):
        self.requests = []
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self):
        self.url = b""
        self.fields = []
        self.content = b""
        self.in_head = True

    def on_url(self, part):
        self.url += part

    def on_header(self, name, value):
        # Trailer fields come this way too. White space after a value is left to the user.
        if self.in_head:
            self.fields.append((name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self):
        self.in_head = False
        self.head = (
            self.parser.get_method().decode("latin-1"),
            self.url.decode("latin-1"),
            self.parser.get_http_version(),
            tuple(self.fields),
        )
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, part):
        self.content += part

    def on_message_complete(self):
        self.requests.append(Request(*self.head, self.content.decode("latin-1"), self.keep_alive))


def read_with_llhttp(octets):
    collector = Collector()
    refused = None
    while octets:
        try:
            collector.parser.feed_data(octets)
        except httptools.HttpParserUpgrade as upgrade:
            # It leaves the connection to another protocol; we do not speak one, and go on.
            rest = octets[upgrade.args[0] :]
            if collector.requests[-1].method == METHOD_OF_TUNNELS or not rest or len(rest) == len(octets):
                break
            octets = rest
            requests = collector.requests
            collector = Collector()
            collector.requests = requests
            continue
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            refused = str(error)
        break
    for count, request in enumerate(collector.requests, 1):
        if not request.keep_alive or request.method == METHOD_OF_TUNNELS:
            return Reading(collector.requests[:count], None)
    return Reading(collector.requests, refused)


def read_with_h11(octets):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(octets)
    requests = []
    while True:
        try:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = (
                    event.method.decode("latin-1"),
                    event.target.decode("latin-1"),
                    event.http_version.decode("latin-1"),
                    tuple(
                        (name.decode("latin-1").lower(), value.decode("latin-1"))
                        for name, value in event.headers.raw_items()
                    ),
                )
                content = b""
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                status = 501 if head[0] == METHOD_OF_TUNNELS else 200
                connection.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                keep_alive = connection.our_state is h11.DONE
                requests.append(Request(*head, content.decode("latin-1"), keep_alive))
                if not keep_alive or head[0] == METHOD_OF_TUNNELS:
                    return Reading(requests, None)
                connection.start_next_cycle()
            else:
                return Reading(requests, None)
        except h11.RemoteProtocolError as error:
            return Reading(requests, str(error))


OTHERS = {"llhttp": read_with_llhttp, "h11": read_with_h11}
