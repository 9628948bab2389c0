"""What goes before an application while it is written: pages for what it raises, and what has them refreshed.

    around(application, settings, listeners, code)      # what the core calls instead

A page shows source code and paths. So it is for whoever sits at this machine alone (`may_see`).
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from html import escape
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastwsgi._exchange import FileWrapper
from fastwsgi.config import Settings
from fastwsgi.logs import LOG

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from fastwsgi.listener import Listener
    from fastwsgi.reloader import Code

# What a page asks for, beneath the place of its application.
EDITION = "/.fastwsgi/edition"

HERE = os.path.join(os.path.dirname(__file__), "")

# What packages and Python itself have in their paths.
INSTALLED = ("site-packages", "dist-packages", f"lib/python{sys.version_info.major}.", "<frozen ")

STATUS = "500 Internal Server Error"

STYLE = """\
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.3rem; color: light-dark(#a40000, #ff8a80); overflow-wrap: anywhere; white-space: pre-wrap }
pre { font: 14px/1.45 ui-monospace, monospace; padding: 1rem; overflow-x: auto; border-radius: 6px;
  background: light-dark(#f4f4f2, #222) }
footer { color: light-dark(#666, #999) }
"""

# Asked again whatever comes: while code is mended there may be no answer, or one of the page's own kind.
SCRIPT = """\
(function ask() {
  setTimeout(function () {
    fetch("%s", {cache: "no-store"}).then(function (answer) { return answer.text() }).then(function (now) {
      if (now === "%s") ask(); else location.reload()
    }).catch(ask)
  }, 400)
})()
"""

# Nothing of the page may come from elsewhere.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Answer = tuple[list[tuple[str, str]], bytes]


def around(
    app: "WSGIApplication", settings: Settings, listeners: "Iterable[Listener]", code: "Code | None"
) -> "WSGIApplication":
    """An application with what settings want before it."""
    if settings.lint:
        from fastwsgi.lint import Lint

        app = Lint(app)
    if settings.tracebacks and is_private(listeners):
        app = Shown(app, code)
    if settings.lint or settings.tracebacks:
        LOG.addFilter(without_our_frames)
    return app if code is None else Gate(app, code)


class Gate:
    """Tells a page which edition of the code is served, and leaves all else to the application."""

    def __init__(self, app: "WSGIApplication", code: "Code") -> None:
        self._app = app
        self._token = code.token.encode()

    def __call__(self, environ: "WSGIEnvironment", start_response: Any) -> Iterable[bytes]:
        # Whoever dispatches to applications may have the page ask beneath one of them.
        if not environ["PATH_INFO"].endswith(EDITION):
            return self._app(environ, start_response)
        start_response.leave_unlogged()
        fields = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(self._token))),
            ("Cache-Control", "no-store"),
        ]
        start_response("200 OK", fields)
        return [self._token]


class Failure:
    """Stands for an application that could not be loaded, and says why."""

    def __init__(self, what: str, error: BaseException | None, code: "Code", *, is_private: bool) -> None:
        self._page = Page(what, error)
        self._is_private = is_private
        self._code = code

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        shows = self._is_private and may_see(environ)
        fields, content = self._page.answer(environ, self._code, shows=shows)
        start_response(STATUS, fields)
        return [content]


class Shown:
    """Has an exception of the application shown to its client, if nothing was sent yet; then raises it."""

    def __init__(self, app: "WSGIApplication", code: "Code | None") -> None:
        self._app = app
        self._code = code

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not may_see(environ):
            return self._app(environ, start_response)
        try:
            iterable = self._app(environ, start_response)
        except Exception as error:
            shown = ShownBlocks((), environ, start_response, self._code)
            shown.fail(error)
            return shown
        # Nothing of the application is called for these blocks.
        if isinstance(iterable, (list, tuple, FileWrapper)):
            return iterable
        return ShownBlocks(iterable, environ, start_response, self._code)


class ShownBlocks:
    """The blocks of an application; or the page of what it raises, and behind it that exception."""

    def __init__(
        self,
        iterable: Iterable[bytes],
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        code: "Code | None",
    ) -> None:
        self._iterable = iterable
        self._iterator: Iterator[bytes] | None = None
        self._environ, self._start_response, self._code = environ, start_response, code
        self._page: bytes | None = None
        self._error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Have the page sent instead; raises the error where that is too late."""
        gone: Any = self._environ.get("fastwsgi.client_gone")
        if gone is not None and gone.is_set():
            raise error
        fields, content = Page("", error).answer(self._environ, self._code, shows=True)
        # Raises it if the head has been sent.
        stack = error.__traceback__
        assert stack is not None
        self._start_response(STATUS, fields, (type(error), error, stack))
        self._page, self._error = content, error

    def __iter__(self) -> "ShownBlocks":
        return self

    def __next__(self) -> bytes:
        if self._error is None:
            try:
                if self._iterator is None:
                    self._iterator = iter(self._iterable)
                return next(self._iterator)
            except StopIteration:
                raise
            except Exception as error:
                self.fail(error)
        if self._page is not None:
            page, self._page = self._page, None
            return page
        failed, self._error = self._error, None
        # The server says what there is to say.
        raise failed or StopIteration

    def close(self) -> None:
        if self._error is not None:
            LOG.error("The application failed, and its client is gone", exc_info=self._error)
            self._error = None
        close: Callable[[], object] | None = getattr(self._iterable, "close", None)
        if close is not None:
            close()


def without_our_frames(record: logging.LogRecord) -> bool:
    """Have a traceback in the log begin where the application does."""
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        kind, error, stack = record.exc_info
        record.exc_info = (kind, error, of_application(stack))
    return True


def of_application(stack: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package that it begins with; whole if it has no others."""
    found = stack
    while found is not None and is_ours(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found or stack


def is_ours(file: str) -> bool:
    return file.startswith(HERE) or file.endswith(".pyx")


class Page:
    """What there is to say of a failure, as HTML or as text."""

    def __init__(self, what: str, error: BaseException | None) -> None:
        """what: does not work; empty where the error says all."""
        self._headline, _, self._stack = what.partition("\n")
        self._what = self._headline
        if error is not None:
            told = traceback.TracebackException(type(error), error, of_application(error.__traceback__))
            # What is wrong with the syntax comes behind the line that it is in.
            said = [line for line in told.format_exception_only() if not line.startswith(" ")]
            self._headline = "".join(said).strip()
            self._stack = "".join(told.format())

    def answer(self, environ: "WSGIEnvironment", code: "Code | None", *, shows: bool) -> Answer:
        """Fields and content; without `shows`, nothing that is not for everybody."""
        is_html = "text/html" in environ.get("HTTP_ACCEPT", "")
        text = self._html(environ, code, shows) if is_html else self._text(shows)
        content = text.encode("utf-8", "backslashreplace")
        fields = [
            ("Content-Type", f"text/{'html' if is_html else 'plain'}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        return [*fields, ("Content-Security-Policy", POLICY)] if is_html else fields, content

    def _text(self, shows: bool) -> str:
        if not shows:
            return "The application has failed; the terminal of its server says why.\n"
        return f"{self._what}\n\n{self._stack}".strip() + "\n"

    def _html(self, environ: "WSGIEnvironment", code: "Code | None", shows: bool) -> str:
        headline = self._headline if shows else "The application has failed"
        what = self._what if shows and self._what != headline else ""
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(headline.splitlines()[0])}</title>",
            f"<style>{STYLE}</style>",
        ]
        # Another method would be done again.
        refreshes = code is not None and environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if refreshes:
            parts.append('<noscript><meta http-equiv="refresh" content="2"></noscript>')
        parts.append(f"</head><body><h1>{escape(headline)}</h1>")
        if what:
            parts.append(f"<p>{escape(what)}</p>")
        if shows and self._stack:
            lines = "\n".join(map(marked, self._stack.splitlines()))
            parts.append(f"<pre>{lines}</pre>")
        if not shows:
            parts.append("<p>The terminal of its server says why.</p>")
        if refreshes and code is not None:
            place = quoted(environ.get("SCRIPT_NAME", "") + EDITION)
            parts.append("<footer>This page refreshes itself when the code has changed.</footer>")
            parts.append(f"<script>{SCRIPT % (place, code.token)}</script>")
        return "\n".join([*parts, "</body></html>", ""])


def marked(line: str) -> str:
    """A line of a traceback as HTML; those that lead to what is not installed stand out."""
    is_own = line.startswith('  File "') and not any(place in line for place in INSTALLED)
    return f"<b>{escape(line)}</b>" if is_own else escape(line)


def quoted(path: str) -> str:
    """A path of the environ as a URL that means the same, also within a string of a script."""
    return quote(path.encode("latin-1"))


def may_see(environ: "WSGIEnvironment") -> bool:
    """The client is this machine, and it was asked for by a name of its own.

    A page of somebody else may have its name lead to this machine, and read what a browser gets from there.
    And whoever comes by a proxy is somewhere else.
    """
    return (
        is_loopback(environ.get("REMOTE_ADDR", ""))
        and is_local_name(environ.get("HTTP_HOST", ""))
        and "fastwsgi.peer_addr" not in environ
    )


def is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def is_local_name(host: str) -> bool:
    """A Host field names this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        return is_loopback(name[1:-1])
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_private(listeners: "Iterable[Listener]") -> bool:
    """Nobody but this machine can connect."""
    names = [listener.socket.getsockname() for listener in listeners]
    return all(isinstance(name, tuple) and is_loopback(name[0]) for name in names)
