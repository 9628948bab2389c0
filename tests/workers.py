"""Several workers as processes of their own over one listener, with a board and a kick: no supervisor."""

import contextlib
import logging
import mmap
import os
import signal
import socket
import time
import traceback

from fastwsgi import Settings
from fastwsgi._crew import Crew
from fastwsgi._stats import Board, row_state_t
from fastwsgi.listener import Listener
from support import PATIENCE, wait_until


class Workers:
    """TERM drains one and all, USR2 lets one leave."""

    def __init__(self, count, application, *, family=socket.AF_INET, path=None, **options):
        self.settings = Settings(**options)
        self.application = application
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        threads = self.settings.threads
        self.board = Board(mmap.mmap(-1, Board.size(count, threads)), count, threads)
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
        self.rows = [self.board.row(index) for index in range(count)]
        self.children = {}
        for row in self.rows:
            self.start(row)

    def start(self, row):
        row.clear()
        child = os.fork()
        if not child:
            code = 1
            try:
                self._work(row)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.children[row.index] = child
        wait_until(lambda: row.state == row_state_t.ROW_SERVING, "the worker serves")

    def _work(self, row):
        row.pid = os.getpid()
        log = logging.getLogger("fastwsgi.worker")
        log.propagate = False
        log.addHandler(logging.NullHandler())
        listeners = [Listener(self.listener, "here")]
        crew = Crew(self.application, listeners, self.settings, log, row=row, kick_fd=self.kick)
        signal.signal(signal.SIGTERM, lambda *_: crew.stop(PATIENCE))
        signal.signal(signal.SIGUSR2, lambda *_: crew.stop(PATIENCE, leave=True))
        signal.set_wakeup_fd(crew.wakeup_fd, warn_on_full_buffer=False)
        crew.start()
        row.state = row_state_t.ROW_SERVING
        said = []
        while not crew.finished:
            said += crew.attend()
        assert not [text for level, text in said if level >= logging.WARNING], said

    def signal(self, number, *rows):
        for index in rows or self.children:
            os.kill(self.children[index], number)

    def pause(self, *rows):
        """Stop workers where they are, and wait until they have; CONT lets them go on."""
        for index in rows or self.children:
            os.kill(self.children[index], signal.SIGSTOP)
            os.waitpid(self.children[index], os.WUNTRACED)

    def wait(self, *rows):
        """Wait for the end of workers; their exit codes."""
        codes = []
        for index in rows or list(self.children):
            deadline = time.monotonic() + 2 * PATIENCE
            while not (found := os.waitpid(self.children[index], os.WNOHANG))[0]:
                assert time.monotonic() < deadline, f"worker {index} does not end"
                time.sleep(0.005)
            del self.children[index]
            codes.append(os.waitstatus_to_exitcode(found[1]))
        return codes

    def counts(self, name="connections"):
        return [row.counters()[name] for row in self.rows]

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for child in self.children.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.listener.close()
        if self.kick >= 0:
            os.close(self.kick)


def connected(address, family=socket.AF_INET):
    """A new connection; one whose handshake takes its time is an error."""
    client = socket.socket(family)
    client.settimeout(PATIENCE)
    client.connect(address)
    return client


@contextlib.contextmanager
def clients():
    """A list of sockets that are closed at the end."""
    opened = []
    try:
        yield opened
    finally:
        for client in opened:
            client.close()
