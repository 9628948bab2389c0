"""What agents send their reports to: a server that takes Sentry's."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

brotli = pytest.importorskip("brotli")


class Collector(ThreadingHTTPServer):
    """Takes what Sentry's agent sends, as `dsn` tells it; `events` is what is an event or a transaction."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.dsn = f"http://public@127.0.0.1:{self.server_port}/1"
        self.events = []

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.shutdown()
        self.thread.join()
        self.server_close()

    @property
    def exceptions(self):
        """Kind and text of each."""
        return [
            (exception["type"], exception["value"])
            for event in self.events
            for exception in event.get("exception", {}).get("values", ())
        ]

    @property
    def transactions(self):
        return [event for event in self.events if event.get("type") == "transaction"]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        # Sentry takes what is installed.
        coding = self.headers["Content-Encoding"]
        if coding is not None:
            content = {"gzip": gzip.decompress, "br": brotli.decompress}[coding](content)
        lines = map(json.loads, content.splitlines())
        self.server.events += [line for line in lines if "event_id" in line and "platform" in line]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass
