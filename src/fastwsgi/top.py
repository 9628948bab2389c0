"""`fastwsgi top`: one screen, live, of what a server does, with curses on any terminal.

What is shown is made as lines of text first (`Screen`), which needs no terminal.
"""

import contextlib
import curses
import os
import sys
import textwrap
import time
from collections import deque
from typing import Any

from fastwsgi.blackbox import show_age
from fastwsgi.console import GoneError, Server, headline, latencies, plain, stack_text, subject
from fastwsgi.errors import ConfigError
from fastwsgi.resources import show_size

# Between two looks at the server, in seconds.
PERIOD = 1.0
# Rates and latencies are of so many looks.
WINDOW = 10
# From so many columns on there is one for request ids.
WIDE = 100
# A key is waited for so long at a time, in milliseconds.
KEY_PATIENCE = 100

ESCAPE = 27
ENTER = (curses.KEY_ENTER, 10, 13)

ORDERS = ("age", "worker", "request")
KEYS = "arrows select   Enter stack   k end it   s sort   q quit"
KEYS_OF_STACK = "arrows scroll   Esc back   k end it   q quit"


class Screen:
    """What is seen: the server as it was told last, the request that is selected, what the keys have done."""

    def __init__(self, stats: dict[str, Any]) -> None:
        self.stats = stats
        self.order = ORDERS[0]
        self.selected: tuple[int, int, int] | None = None  # worker, thread, number
        self.shows_stack = False
        self.scrolled = 0
        self.asks: tuple[int, int, int] | None = None  # whether to end this one
        self.said = ""  # one line at the bottom
        self.has_ended = False
        self._before = deque([stats], maxlen=WINDOW)  # what was told last, the latest at the end

    # ---- what the server tells ----

    def take(self, stats: dict[str, Any]) -> None:
        """Show this from now on."""
        self.stats = stats
        self._before.append(stats)
        if self.selected is not None and self.current is None and not self.shows_stack:
            self.selected = None

    @property
    def _rate(self) -> str:
        """Requests that ended in each of the last seconds."""
        first = self._before[0]
        seconds = self.stats["uptime"] - first["uptime"]
        done = sum(self.stats["times"]["counts"]) - sum(first["times"]["counts"])
        return f"{done / seconds:.0f}" if seconds > 0 else "-"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Those that run, in the order that is wanted."""
        found: list[dict[str, Any]] = list(self.stats["requests"])
        if self.order == "worker":
            found.sort(key=lambda one: (one["worker"], one["thread"]))
        elif self.order == "request":
            found.sort(key=lambda one: one["line"])
        return found

    @property
    def current(self) -> dict[str, Any] | None:
        """The request that is selected, if it still runs."""
        return next((one for one in self.requests if key_of(one) == self.selected), None)

    # ---- keys ----

    def move(self, by: int) -> None:
        """Select another one, or scroll the stack."""
        if self.shows_stack:
            self.scrolled = max(0, self.scrolled - by)
            return
        keys = [key_of(one) for one in self.requests]
        if keys:
            at = keys.index(self.selected) + by if self.selected in keys else 0 if by > 0 else len(keys) - 1
            self.selected = keys[min(max(at, 0), len(keys) - 1)]

    def sort(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]

    def open(self) -> None:
        """Show the stack of the one that is selected, or of the first."""
        if self.selected is None:
            self.move(1)
        if self.current is not None:
            self.shows_stack, self.scrolled = True, 0

    def back(self) -> None:
        if self.asks is not None:
            self.asks, self.said = None, "not ended"
        elif self.shows_stack:
            self.shows_stack = False
        else:
            self.selected = None

    def ask_to_end(self) -> None:
        """k: it takes a y to do it."""
        current = self.current
        if current is None:
            self.said = "select a request first" if self.selected is None else "it does not run any more"
        else:
            self.asks = key_of(current)

    # ---- lines ----

    def lines(self, height: int, width: int) -> tuple[list[str], int]:
        """What the screen shows, in lines that are not too long; and which one is selected, or -1."""
        top = self._header()
        bottom = self._footer()
        room = max(0, height - len(top) - len(bottom))
        body, marked = self._stack(room, width - 1) if self.shows_stack else self._table(room, width - 1)
        body = [*body, *[""] * room][:room]
        found = [*top, *body, *bottom] if height > len(bottom) + 1 else bottom
        at = -1 if marked < 0 else len(top) + marked
        return [plain(line.replace("\n", " "))[: max(0, width - 1)] for line in found[:height]], at

    def _header(self) -> list[str]:
        stats = self.stats
        workers = stats["workers"]
        total = {
            name: sum(worker[name] or 0 for worker in workers)
            for name in ("memory", "connections", "exchanges")
        }
        return [
            headline(stats),
            subject(stats),
            f"{self._rate} requests/s  {latencies(stats, self._before[0])}  {total['exchanges']} running  "
            f"{total['connections']} connections  {show_size(total['memory'])}",
            "",
        ]

    def _footer(self) -> list[str]:
        if self.asks is not None:
            worker, thread, _ = self.asks
            return [f"End the request in thread {thread} of worker {worker} (503 for its client)? y/n"]
        keys = KEYS_OF_STACK if self.shows_stack else KEYS
        return [self.said or (keys if self.shows_stack else f"{keys}   (by {self.order})")]

    def _table(self, room: int, width: int) -> tuple[list[str], int]:
        requests = self.requests
        if not requests or room < 2:
            return ["no requests are running" if not requests else "(too small to show them)"], -1
        keys = [key_of(one) for one in requests]
        at = keys.index(self.selected) if self.selected in keys else -1
        first = max(0, at - (room - 2))
        # The target is what matters most where there is not much room.
        id_width = 11 if width >= WIDE else 0
        lines = [
            f"{'AGE':>7} {'WORKER':>7} THR {'PHASE':11} {'CLIENT':15} {'ID':{id_width}.{id_width}}REQUEST"
        ]
        for one in requests[first : first + room - 1]:
            known_as = (one["request_id"] or "-")[: max(0, id_width - 1)].ljust(id_width)
            lines.append(
                f"{show_age(one['age']):>7} {one['worker']:7} {one['thread']:3} {short(one['phase']):11.11} "
                f"{one['client']:15.15} {known_as}{one['line']}"
            )
        return lines, at - first + 1 if at >= 0 else -1

    def _stack(self, room: int, width: int) -> tuple[list[str], int]:
        current = self.current
        if current is None:
            return ["it does not run any more"], -1
        first, *stack = stack_text(current).rstrip("\n").split("\n")
        head = textwrap.wrap(first, max(width, 20))
        # Of the stack the end is what matters.
        hidden = max(0, len(stack) - max(0, room - len(head)))
        self.scrolled = min(self.scrolled, hidden)
        return [*head, *stack[hidden - self.scrolled :]][:room], -1


def key_of(one: dict[str, Any]) -> tuple[int, int, int]:
    return one["worker"], one["thread"], one["number"]


def short(phase: str) -> str:
    """A phase in a column."""
    words = phase.removeprefix("in the ").removeprefix("in ")
    for long, brief in (("waiting for the GIL", "waits GIL"), ("waiting for its client", "sends")):
        words = words.replace(long, brief)
    return "taken away" if words.endswith("taken away") else words


# ---- the terminal ----


def show(server: Server, stats: dict[str, Any]) -> str:
    """Show it until the user has seen enough; return what to print then. ConfigError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top needs a terminal; fastwsgi stats prints the same once")
    # An arrow begins with Escape: how long to wait for the rest, which is slower over ssh.
    os.environ.setdefault("ESCDELAY", "100")
    # Where they are exported, as by a program with readline, curses would not see that the size changes.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    screen = Screen(stats)
    try:
        curses.wrapper(lambda window: loop(window, server, screen))
    except curses.error as error:
        raise ConfigError(
            f"top cannot use this terminal (TERM={os.environ.get('TERM', '')}): {error}"
        ) from None
    except KeyboardInterrupt:
        pass
    return f"{screen.said}\n" if screen.has_ended else ""


def loop(window: "curses.window", server: Server, screen: Screen) -> None:
    with contextlib.suppress(curses.error):  # a terminal that cannot hide its cursor
        curses.curs_set(0)
    window.timeout(KEY_PATIENCE)
    next_look = time.monotonic() + PERIOD
    draw(window, screen)
    while True:
        key = window.getch()
        if key >= 0:
            if not heed(key, server, screen):
                return
        elif time.monotonic() < next_look:
            continue
        if time.monotonic() >= next_look:
            look(server, screen)
            next_look = time.monotonic() + PERIOD
        draw(window, screen)


def look(server: Server, screen: Screen) -> None:
    """Ask the server how it is."""
    try:
        screen.take(server.ask("GET", "/stats"))
    except (GoneError, ConfigError) as error:
        screen.has_ended = True
        screen.said = f"the server (process {screen.stats['pid']}) has ended, or does not answer: {error}"
    else:
        if screen.has_ended:
            screen.has_ended, screen.said = False, ""


def heed(key: int, server: Server, screen: Screen) -> bool:
    """Do what a key stands for; False: the user has seen enough."""
    if not screen.has_ended:
        screen.said = ""
    if screen.asks is not None and key != curses.KEY_RESIZE:
        if key in (ord("y"), ord("Y")):
            end(server, screen)
        else:
            screen.back()
    elif key in (ord("q"), ord("Q")):
        return False
    elif key in (curses.KEY_UP, ord("p")):
        screen.move(-1)
    elif key in (curses.KEY_DOWN, ord("n")):
        screen.move(1)
    elif key in ENTER:
        screen.open()
    elif key == ESCAPE:
        screen.back()
    elif key == ord("k"):
        screen.ask_to_end()
    elif key == ord("s"):
        screen.sort()
    return True


def end(server: Server, screen: Screen) -> None:
    """Have the request taken away that was asked about."""
    assert screen.asks is not None
    worker, thread, number = screen.asks
    screen.asks = None
    try:
        server.ask("POST", "/end", {"worker": worker, "thread": thread, "number": number})
        screen.said = "ended: its client gets 503, and the error log has the stack"
    except (GoneError, ConfigError) as error:
        screen.said = f"not ended: {error}"


def draw(window: "curses.window", screen: Screen) -> None:
    height, width = window.getmaxyx()
    lines, marked = screen.lines(height, width)
    window.erase()
    for at, line in enumerate(lines):
        try:
            window.addstr(at, 0, line, curses.A_REVERSE if at == marked else curses.A_NORMAL)
        except curses.error:  # it has just become smaller
            return
    window.refresh()
