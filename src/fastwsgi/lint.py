"""Holds what an application does against PEP 3333, and says each violation once, with its place (`--lint`).

    application = Lint(application)

Nothing is changed by it, and nothing refused: what the server makes of a violation is its own matter.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from fastwsgi._exchange import FileWrapper
from fastwsgi.logs import LOG

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HERE = os.path.join(os.path.dirname(__file__), "")

STATUS = re.compile(r"[1-5][0-9]{2} [^\x00-\x1f\x7f]*")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 2616, 13.5.1: between the server and its client alone; so says PEP 3333, "Other HTTP Features".
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)

CONTENTLESS = ("1", "204", "304")


class Lint:
    """Stands before an application."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app
        self._said: set[tuple[str, str]] = set()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        call = Call(self, environ, start_response)
        environ["wsgi.input"] = Input(environ["wsgi.input"], call)
        iterable: Any = self._app(environ, call.start_response)
        if type(iterable) is FileWrapper:
            call.look_at_start(self.place())
            return iterable
        if isinstance(iterable, (list, tuple)):
            # Iterating over it calls nothing of the application's.
            call.look_at_start(self.place())
            for block in iterable:
                call.count(block, self.place())
            call.end(self.place())
            return iterable
        if isinstance(iterable, (str, bytes)):
            kind = type(iterable).__name__
            self.say(f"the application returned {kind}, and not an iterable of bytes", self.place())
            return iterable  # type: ignore[return-value]
        if not hasattr(iterable, "__iter__"):
            kind = type(iterable).__name__
            self.say(f"the application returned {kind}, which is not an iterable", self.place())
            return iterable  # type: ignore[no-any-return]
        return Blocks(iterable, call, self)

    def place(self) -> str:
        """Where the application is."""
        app: Any = inspect.unwrap(self._app)
        function = getattr(app, "__func__", app)
        if not hasattr(function, "__code__"):
            function = type(app).__call__
        code = getattr(function, "__code__", None)
        return show(code, code.co_firstlineno) if isinstance(code, CodeType) else repr(app)

    def say(self, what: str, where: str) -> None:
        if (what, where) not in self._said:
            self._said.add((what, where))
            LOG.warning("Against PEP 3333: %s; %s", what, where)


class Call:
    """One call of the application, as far as it has come."""

    def __init__(self, lint: Lint, environ: "WSGIEnvironment", start_response: "StartResponse") -> None:
        self.say = lint.say
        self.is_over = False
        self.is_iterated = False
        self._start_response: Any = start_response
        self._method = str(environ.get("REQUEST_METHOD"))
        self._status = ""
        self._content_type: str | None = None
        self._content_length: int | None = None
        self._is_started = False
        self._sent = 0

    def start_response(self, *arguments: Any, **named: Any) -> Callable[[bytes], object]:
        where = caller()
        if named:
            self.say(f"start_response has {', '.join(named)} by name: its arguments are positional", where)
        status, fields, exc_info = (*arguments, *([None] * 3))[:3]
        status, fields = named.get("status", status), named.get("headers", fields)
        exc_info = named.get("exc_info", exc_info)
        if self._is_started and exc_info is None:
            self.say("start_response is called a second time without exc_info", where)
        if exc_info is not None and not is_exc_info(exc_info):
            self.say(f"exc_info is {exc_info!r:.60}, and not what sys.exc_info() returns", where)
        self._look_at_status(status, where)
        self._look_at_fields(fields, where)
        write = self._start_response(*arguments, **named)
        self._is_started = True
        return self._checked(write)

    def _checked(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def checked(data: bytes) -> object:
            where = caller()
            if self.is_iterated:
                self.say("write() is called while the iterable is iterated over, or after that", where)
            self.count(data, where)
            return write(data)

        return checked

    def _look_at_status(self, status: object, where: str) -> None:
        self._status = ""
        if type(status) is not str:
            self.say(f"the status is {status!r:.60}, of type {type(status).__name__}, and not a str", where)
        elif not STATUS.fullmatch(status):
            self.say(f"the status {status!r:.60} is not three digits, a space and a reason", where)
        elif status != status.strip() and status[4:]:
            self.say(f"the status {status!r:.60} has white space around it", where)
        else:
            self._status = status
        if isinstance(status, str):
            self._look_at_text("the status", status, where)

    def _look_at_fields(self, fields: object, where: str) -> None:
        self._content_length = self._content_type = None
        if type(fields) is not list:
            self.say(f"the headers are of type {type(fields).__name__}, and not a list", where)
        if not isinstance(fields, (list, tuple)):
            return
        for field in fields:
            if type(field) is not tuple or len(field) != 2:
                self.say(f"the header {field!r:.60} is not a tuple of name and value", where)
            elif type(field[0]) is not str or type(field[1]) is not str:
                self.say(f"the header {field!r:.60} is not a tuple of two str", where)
            else:
                self._look_at_field(*field, where)

    def _look_at_field(self, name: str, value: str, where: str) -> None:
        lower = name.lower()
        if not TOKEN.fullmatch(name):
            self.say(f"{name!r:.60} is not the name of a header", where)
        elif name[-1] in "-_":
            self.say(f"the header name {name!r:.60} ends with {name[-1]!r}", where)
        elif lower == "status":
            self.say("there is a header Status: the status is an argument of its own", where)
        elif lower in HOP_BY_HOP:
            self.say(f"the header {name} is for the server to set (hop-by-hop)", where)
        if CONTROLS.search(value):
            self.say(f"the value of {name} has control characters: {value!r:.60}", where)
        self._look_at_text(f"the value of {name}", value, where)
        if lower == "content-type":
            self._content_type = value
        elif lower == "content-length":
            if not (value.isascii() and value.isdigit()):
                self.say(f"the Content-Length {value!r:.60} is not a number", where)
            elif self._content_length not in (None, int(value)):
                self.say("there are two values of Content-Length", where)
            else:
                self._content_length = int(value)

    def _look_at_text(self, what: str, text: str, where: str) -> None:
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            self.say(f"{what} has characters beyond ISO-8859-1: {text!r:.60}", where)

    def look_at_start(self, where: str) -> None:
        if not self._is_started:
            self.say("start_response was not called before there was content", where)
            self._is_started = True

    def count(self, block: object, where: str) -> None:
        """A block of the application's, or what it writes."""
        if type(block) is not bytes:
            self.say(f"a block of content is of type {type(block).__name__}, and not bytes", where)
        elif block:
            self.look_at_start(where)
            if self._status.startswith(CONTENTLESS):
                self.say(f"there is content with the status {self._status}", where)
            elif self._content_type is None and not self._sent and self._status:
                self.say("there is content without a Content-Type", where)
            self._sent += len(block)

    def end(self, where: str) -> None:
        """The application has given all."""
        self.is_over = True
        self.look_at_start(where)
        length = self._content_length
        if length is None or self._method == "HEAD" or self._status.startswith(CONTENTLESS):
            return
        if length != self._sent:
            self.say(f"the content has {self._sent} bytes, and Content-Length says {length}", where)


class Blocks:
    """The iterable of an application, on its way to the server."""

    def __init__(self, iterable: Iterable[bytes], call: Call, lint: Lint) -> None:
        self._iterable = iterable
        self._iterator: Iterator[bytes] | None = None
        self._call = call
        self._lint = lint

    def __iter__(self) -> "Blocks":
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        self._call.is_iterated = True
        try:
            block = next(self._iterator)
        except StopIteration:
            self._call.end(self._place())
            raise
        self._call.count(block, self._place())
        return block

    def close(self) -> None:
        self._call.is_over = True
        close: Any = getattr(self._iterable, "close", None)
        if close is None:
            return
        if not callable(close):
            kind = type(close).__name__
            self._lint.say(f"close of the iterable is of type {kind}, and cannot be called", self._place())
        close()

    def _place(self) -> str:
        """Where a generator is; else where the application is that made the iterable."""
        frame = getattr(self._iterator, "gi_frame", None)
        code = getattr(self._iterator, "gi_code", None)
        if isinstance(code, CodeType):
            return show(code, frame.f_lineno if isinstance(frame, FrameType) else code.co_firstlineno)
        return self._lint.place()


class Input:
    """`wsgi.input`, with a look at how it is read."""

    def __init__(self, stream: Any, call: Call) -> None:
        self._stream = stream
        self._call = call

    def read(self, *arguments: Any) -> bytes:
        self._look("read", arguments)
        return self._stream.read(*arguments)  # type: ignore[no-any-return]

    def readline(self, *arguments: Any) -> bytes:
        self._look("readline", arguments)
        return self._stream.readline(*arguments)  # type: ignore[no-any-return]

    def readlines(self, *arguments: Any) -> list[bytes]:
        self._look("readlines", arguments)
        return self._stream.readlines(*arguments)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        self._call.say("wsgi.input is closed: that is for the server", caller())
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _look(self, method: str, arguments: tuple[Any, ...]) -> None:
        if len(arguments) > 1 or not all(one is None or isinstance(one, int) for one in arguments):
            self._call.say(f"wsgi.input.{method} takes a number of bytes, and nothing else", caller())
        if self._call.is_over:
            self._call.say(f"wsgi.input.{method} is called when the request is over", caller())


def is_exc_info(given: object) -> bool:
    return (
        isinstance(given, tuple)
        and len(given) == 3
        and isinstance(given[0], type)
        and isinstance(given[1], BaseException)
    )


def caller() -> str:
    """The nearest line that is not of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return "" if frame is None else show(frame.f_code, frame.f_lineno)


def show(code: CodeType, line: int) -> str:
    return f"{code.co_filename}, line {line}, in {code.co_name}"
