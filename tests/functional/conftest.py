"""A crew in this process, whose row of a board the tests can look at."""

import logging
import mmap
import os
import socket
import threading

import pytest

from conftest import GREENLETS
from fastwsgi import Settings, config
from fastwsgi._stats import Board
from fastwsgi.listener import Listener
from fastwsgi.worker import crew_class
from support import PATIENCE, Client, Gate


class Crewed:
    """A crew with a row of a board, and a thread in its attend()."""

    def __init__(self, application, *, starts=True, **options):
        self.attributes = {
            name: options.pop(name) for name in ("beat", "watched_fd", "max_requests") if name in options
        }
        settings = Settings(**options)
        threads = settings.concurrency
        self.board = Board(mmap.mmap(-1, Board.size(2, threads)), 2, threads)
        self.row = self.board.row(0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        listeners = [Listener(self.listener, "here")]
        self.crew = crew_class(settings)(
            application, listeners, settings, logging.getLogger("fastwsgi"), row=self.row
        )
        for name, value in self.attributes.items():
            setattr(self.crew, name, value)
        self.returns = 0
        self.thread = threading.Thread(target=self.attend, daemon=True)
        if starts:
            self.start()

    def start(self):
        self.crew.start()
        self.thread.start()

    def attend(self):
        while not self.crew.finished:
            self.crew.attend()
            self.returns += 1
        self.crew.attend()

    def connect(self):
        return Client(self.listener.getsockname())

    def stop(self):
        self.crew.stop(5)
        self.thread.join(PATIENCE)
        self.listener.close()
        assert not self.thread.is_alive()


@pytest.fixture
def crewed(serve, request):
    """crewed(application, **options): for each poller and number of threads."""
    poller, threads = request.node.callspec.params["serve"]
    made = []

    def make(application, **options):
        options = {"poller": poller, "threads": threads, "gevent": GREENLETS, **options}
        config.GREENLETS = options["threads"] if GREENLETS else config.GREENLETS
        made.append(Crewed(application, **options))
        made[-1].row.pid = os.getpid()
        return made[-1]

    yield make
    for gate in Gate.made:
        gate.open()
    for one in made:
        one.stop()
