"""The hooks of a gunicorn.conf.py, by gunicorn's names, and the objects that they are called with.

Those objects have what hooks use in practice: numbers of processes, the log, the settings, the request.
"""

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from fastwsgi.errors import ConfigError
from fastwsgi.logs import LOG

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from fastwsgi.gunicorn import Config

Hook: TypeAlias = Callable[..., Any]

# How many arguments each is called with; fewer are possible where there are several numbers.
ARITY = {
    "on_starting": (1,),
    "on_reload": (1,),
    "when_ready": (1,),
    "pre_fork": (2,),
    "post_fork": (2,),
    "post_worker_init": (1,),
    "worker_int": (1,),
    "worker_abort": (1,),
    "pre_exec": (1,),
    "pre_request": (2,),
    "post_request": (4, 3, 2),
    "child_exit": (2,),
    "worker_exit": (2,),
    "nworkers_changed": (3,),
    "on_exit": (1,),
    "ssl_context": (2,),
}


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions of a configuration file that the server calls, and all else that the file defines.

    on_starting(server), before any worker. when_ready(server), once it listens. on_reload(server), at HUP.
    pre_fork(server, worker), in the supervisor; post_fork(server, worker), in the worker;
    post_worker_init(worker), when it has the application. worker_int(worker), at INT or QUIT;
    worker_abort(worker), when it hangs. worker_exit(server, worker), at its end, in the worker;
    child_exit(server, worker), after it, in the supervisor. nworkers_changed(server, new, old).
    pre_exec(server), before an upgrade. on_exit(server), last of all.
    pre_request(worker, req) and post_request(worker, req, environ, resp): see `with_request_hooks`.
    """

    on_starting: Hook | None = None
    on_reload: Hook | None = None
    when_ready: Hook | None = None
    pre_fork: Hook | None = None
    post_fork: Hook | None = None
    post_worker_init: Hook | None = None
    worker_int: Hook | None = None
    worker_abort: Hook | None = None
    pre_exec: Hook | None = None
    pre_request: Hook | None = None
    post_request: Hook | None = None
    child_exit: Hook | None = None
    worker_exit: Hook | None = None
    nworkers_changed: Hook | None = None
    on_exit: Hook | None = None
    ssl_context: Hook | None = None
    given: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def found_in(cls, given: Mapping[str, object], file: str) -> Self:
        """The hooks among what a file defines; raise ConfigError for one that takes other arguments."""
        found = {name: read_hook(given[name], name, file) for name in ARITY if given.get(name) is not None}
        return cls(**found, given=given)

    def call(self, name: str, *arguments: object) -> bool:
        """Call a hook if there is one; log what it raises. False if it raised."""
        hook = getattr(self, name)
        if hook is not None:
            try:
                hook(*arguments)
            except Exception:
                LOG.exception("The hook %s failed", name)
                return False
        return True


NO_HOOKS = Hooks()


def read_hook(value: object, name: str, file: str) -> Hook:
    """A function, or the "module.name" of one, that takes as many arguments as the hook is given."""
    if isinstance(value, str):
        module, _, attribute = value.rpartition(".")
        try:
            value = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"{file}: {name}: cannot import {value!r}: {error}") from None
    if not callable(value):
        raise ConfigError(f"{file}: {name} is not callable: it is of type {type(value).__name__}")
    for number in ARITY[name]:
        if takes(value, number):
            return with_fewer(value, number) if number < ARITY[name][0] else value
    raise ConfigError(f"{file}: {name} has to take {ARITY[name][0]} arguments")


def takes(function: Hook, number: int) -> bool:
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError:
        return False
    except ValueError:  # of a builtin that does not tell
        return True
    return True


def with_fewer(function: Hook, number: int) -> Hook:
    return lambda *arguments: function(*arguments[:number])


@dataclass(slots=True, eq=False)
class Worker:
    """`worker`, as hooks know it. The process number is there after the fork, `wsgi` after the import."""

    age: int
    ppid: int
    cfg: "Config"
    pid: int | str = "[booting]"
    wsgi: "WSGIApplication | None" = None
    alive: bool = True
    booted: bool = False
    aborted: bool = False
    nr: int = 0
    log: logging.Logger = LOG

    @property
    def timeout(self) -> float:
        return float(self.cfg.timeout)

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


@dataclass(slots=True, eq=False)
class Server:
    """`server`, as hooks know it: the supervisor. `WORKERS` has its workers by their process numbers."""

    cfg: "Config"
    num_workers: int
    worker_age: int = 0
    pid: int = field(default_factory=os.getpid)
    WORKERS: dict[int, Worker] = field(default_factory=dict)
    log: logging.Logger = LOG

    @property
    def address(self) -> list[str]:
        return list(self.cfg.bind)

    @property
    def proc_name(self) -> str:
        return self.cfg.proc_name or "fastwsgi"

    @property
    def timeout(self) -> float:
        return float(self.cfg.timeout)


class Request:
    """`req`: what a hook reads of a request. It is made from the environ, so changes of it change nothing."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.uri: str = environ.get("RAW_URI", "")
        target, _, self.fragment = self.uri.partition("#")
        self.path, _, self.query = target.partition("?")
        self.scheme: str = environ["wsgi.url_scheme"]
        major, _, minor = environ["SERVER_PROTOCOL"].removeprefix("HTTP/").partition(".")
        self.version = (int(major), int(minor or 0))
        self.headers = list(header_fields(environ))
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))
        self.peer_addr = self.remote_addr
        self.body = environ["wsgi.input"]


def header_fields(environ: "WSGIEnvironment") -> Iterator[tuple[str, str]]:
    """Names in upper case and values; what came in several lines is one."""
    for name, value in environ.items():
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
            yield name.removeprefix("HTTP_").replace("_", "-"), value


class Response:
    """`resp`: what a hook reads of an answer. `sent` counts content, without its framing."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0

    @property
    def status_code(self) -> int:
        return int(self.status[:3] or 0)


def with_request_hooks(app: "WSGIApplication", hooks: Hooks, worker: Worker) -> "WSGIApplication":
    """An application that calls pre_request before and post_request after each request, if they are set.

    What pre_request raises is the application's failure; what post_request raises is logged. post_request
    comes when the content has been given to the server, which may still be sending it.
    """
    pre_request, post_request = hooks.pre_request, hooks.post_request

    def call_before(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        if pre_request is not None:
            pre_request(worker, Request(environ))
        worker.nr += 1
        return app(environ, start_response)

    def call_around(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        request, response = Request(environ), Response()

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], Any]:
            write = start_response(status, headers, exc_info)
            response.status, response.headers = status, list(headers)

            def counted(data: bytes) -> None:
                write(data)
                response.sent += len(data)

            return counted

        def over() -> None:
            hooks.call("post_request", worker, request, environ, response)

        try:
            if pre_request is not None:
                pre_request(worker, request)
            worker.nr += 1
            result = app(environ, start)
        except BaseException:
            over()
            raise
        return watched(result, response, over, environ.get("wsgi.file_wrapper"))

    if post_request is not None:
        return call_around
    return call_before if pre_request is not None else app


def watched(result: Any, response: Response, over: Callable[[], None], file_wrapper: Any) -> Any:
    """The iterable of an answer, with `over` called after its close(); it stays as good as it was."""
    if file_wrapper is not None and type(result) is file_wrapper:
        # So that it is still sent by sendfile.
        return file_wrapper(WatchedFile(result.filelike, response, over), result.blksize)
    kind = WatchedSequence if hasattr(type(result), "__len__") else WatchedBlocks
    return kind(result, response, over)


class WatchedBlocks:
    def __init__(self, blocks: Any, response: Response, over: Callable[[], None]) -> None:
        self._blocks = blocks
        self._response = response
        self._over = over

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._response.sent += len(block)
            yield block

    def close(self) -> None:
        try:
            if hasattr(self._blocks, "close"):
                self._blocks.close()
        finally:
            self._over()


class WatchedSequence(WatchedBlocks):
    """The same where the number of blocks is known: one alone needs no chunks."""

    def __len__(self) -> int:
        return len(self._blocks)


class WatchedFile:
    def __init__(self, file: Any, response: Response, over: Callable[[], None]) -> None:
        self._file = file
        self._response = response
        self._over = over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        lengths = [value for name, value in self._response.headers if name.lower() == "content-length"]
        self._response.sent += int(lengths[0]) if lengths else 0
        try:
            if hasattr(self._file, "close"):
                self._file.close()
        finally:
            self._over()
