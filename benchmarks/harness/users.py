"""Users: each asks, waits for the answer, perhaps pauses, and asks again; every answer is checked.

One thread over epoll; the servers have the rest of the machine. A request has failed when it did not bring a
complete answer with the right content: refused, reset, ended, too late, wrong. A kept connection that the
server closes before the first octet of an answer is no failure: as a browser does, the user asks again on a
new one.
"""

import heapq
import math
import os
import re
import select
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

PATIENCE = 10.0
# Or a server that refuses would be asked in a tight loop.
FAILURE_PAUSE = 0.1
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection:[^\r]*\bclose\b", re.IGNORECASE)
OK = (b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")


class _Failure(Exception):
    """Why a request failed, in a word."""


@dataclass
class Seen:
    """What the users have seen. seconds: that each answer took; in_time: how many came before the end."""

    seconds: list[float] = field(default_factory=list)
    in_time: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    sent_again: int = 0

    def quantile(self, share: float) -> float:
        took = sorted(self.seconds)
        return took[math.ceil(len(took) * share) - 1] if took else math.nan


class _User:
    """One of them: its connection, and how far it is with its request."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection: socket.socket | None = None
        self.is_connecting = False
        self.is_waiting = False  # for an answer
        self.has_been_answered = False  # on this connection
        self.received = b""
        self.begun = 0.0


class Users:
    """So many of them, on one server, all coming at once."""

    def __init__(
        self, port: int, octets: bytes, content: bytes, count: int, pause: float, keeps: bool
    ) -> None:
        """octets: of a request; pause: seconds after each answer; keeps: its connection, if it may."""
        self._address = ("127.0.0.1", port)
        self._octets = octets
        self._content = content
        self._pause = pause
        self._keeps = keeps
        self._users = [_User(number) for number in range(count)]

    def run(self, seconds: float) -> Seen:
        """Ask for so long; then answers are waited for, and nothing is begun."""
        # Those of a real server are on other machines. These shall not interrupt a server in its work
        # whenever an answer comes: how much that takes from it would depend on when it happens to send.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        self._seen = Seen()
        self._poller = select.epoll()
        self._by_fd: dict[int, _User] = {}
        begin = time.perf_counter()
        self._end = end = begin + seconds
        # When each user who is not waiting asks next.
        self._due = [(begin, number) for number in range(len(self._users))]
        look_at = begin
        try:
            while True:
                now = time.perf_counter()
                if now >= end and not any(user.is_waiting for user in self._users):
                    break
                while now < end and self._due and self._due[0][0] <= now:
                    self._ask(heapq.heappop(self._due)[1])
                if now >= look_at:
                    self._look_at_clock(now)
                    look_at = now + 0.1
                timeout = min(look_at, self._due[0][0] if self._due else look_at) - time.perf_counter()
                for fd, _ in self._poller.poll(max(0.0, timeout)):
                    if fd in self._by_fd:
                        self._go_on(self._by_fd[fd])
        finally:
            for user in self._users:
                self._hang_up(user)
            self._poller.close()
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return self._seen

    def _ask(self, number: int) -> None:
        user = self._users[number]
        user.begun = time.perf_counter()
        user.is_waiting = True
        self._send(user)

    def _send(self, user: _User) -> None:
        try:
            if user.connection is None:
                self._connect(user)
            if not user.is_connecting:
                assert user.connection is not None
                user.connection.send(self._octets)
        except OSError as error:
            self._fail(user, _word(error))

    def _connect(self, user: _User) -> None:
        user.connection = socket.socket()
        user.connection.setblocking(False)
        user.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_fd[user.connection.fileno()] = user
        user.is_connecting = True
        with suppress(BlockingIOError):
            user.connection.connect(self._address)
            user.is_connecting = False
        events = select.EPOLLOUT if user.is_connecting else select.EPOLLIN
        self._poller.register(user.connection, events)

    def _go_on(self, user: _User) -> None:
        assert user.connection is not None
        try:
            if user.is_connecting:
                error = user.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "")
                user.is_connecting = False
                self._poller.modify(user.connection, select.EPOLLIN)
                self._send(user)
            else:
                data = user.connection.recv(65536)
                if data:
                    self._take(user, data)
                else:
                    self._closed(user)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(user, _word(error))
        except _Failure as failure:
            self._fail(user, str(failure))

    def _take(self, user: _User, data: bytes) -> None:
        """Take what has come, and the answer if it is complete."""
        if not user.is_waiting:
            raise _Failure("unasked")
        user.received += data
        head_end = user.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = LENGTH.search(user.received, 0, head_end)
        if length and len(user.received) >= head_end + 4 + int(length[1]):
            self._answered(user, head_end, closes=bool(CLOSES.search(user.received, 0, head_end)))

    def _closed(self, user: _User) -> None:
        """The server has closed."""
        head_end = user.received.find(b"\r\n\r\n")
        if not user.is_waiting:
            self._hang_up(user)
        elif head_end > 0 and not LENGTH.search(user.received, 0, head_end):
            self._answered(user, head_end, closes=True)
        elif not user.received and user.has_been_answered:
            self._seen.sent_again += 1
            self._hang_up(user)
            self._send(user)
        else:
            raise _Failure("ended")

    def _answered(self, user: _User, head_end: int, closes: bool) -> None:
        if not user.received.startswith(OK):
            raise _Failure(user.received[9:12].decode("latin-1"))
        if user.received[head_end + 4 :] != self._content:
            raise _Failure("wrong")
        now = time.perf_counter()
        self._seen.seconds.append(now - user.begun)
        self._seen.in_time += now <= self._end
        user.received = b""
        user.has_been_answered = True
        if closes or not self._keeps:
            self._hang_up(user)
        self._rest(user)

    def _rest(self, user: _User, at_least: float = 0.0) -> None:
        user.is_waiting = False
        heapq.heappush(self._due, (time.perf_counter() + max(self._pause, at_least), user.number))

    def _fail(self, user: _User, word: str) -> None:
        self._seen.failures[word] += 1
        self._hang_up(user)
        if user.is_waiting:
            self._rest(user, FAILURE_PAUSE)

    def _hang_up(self, user: _User) -> None:
        if user.connection is not None:
            del self._by_fd[user.connection.fileno()]
            user.connection.close()
        user.connection = None
        user.is_connecting = user.has_been_answered = False
        user.received = b""

    def _look_at_clock(self, now: float) -> None:
        for user in self._users:
            if user.is_waiting and now - user.begun > PATIENCE:
                self._fail(user, "timeout")


def _word(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    return type(error).__name__
