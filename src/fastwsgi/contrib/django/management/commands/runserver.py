"""`manage.py runserver`: `fastwsgi dev`, with the options, messages and checks of Django's own.

Django's command does nearly all of it. Each new worker runs it up to the point where it would serve
(`fastwsgi.contrib.django.development`); with --noreload this process does, and serves itself.
"""

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.management.base import CommandError

from fastwsgi.contrib.command import become
from fastwsgi.contrib.django import development
from fastwsgi.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands import runserver
else:
    from django.core.management.commands import runserver

# By the names of options, the flags that say what is not the default.
FLAGS = {
    "use_ipv6": ("--ipv6", True),
    "use_threading": ("--nothreading", False),
    "use_static_handler": ("--nostatic", False),
    "insecure_serving": ("--insecure", True),
    "skip_checks": ("--skip-checks", True),
    "no_color": ("--no-color", True),
    "force_color": ("--force-color", True),
}


class Server:
    """What Django's command binds and has serve: fastwsgi in this process, for --noreload."""

    threads = 4

    def __init__(self, address: tuple[str, int], *_: object, **__: object) -> None:
        from fastwsgi.logs import set_up_error_log
        from fastwsgi.worker import make_server

        host, port = address
        self._app: WSGIApplication | None = None
        try:
            # Whoever stands at a breakpoint needs more time than any limit.
            self._server = make_server(
                "0.0.0.0" if host == "0" else host,
                port,
                self._answer,
                threads=self.threads,
                timeout=0,
                log_slow=0,
                access_logfile="-",
                access_logformat="short",
            )
            set_up_error_log(self._server.settings)
        except ConfigError as error:
            raise CommandError(str(error)) from None
        self.server_port = self._server.server_port

    def set_app(self, app: "WSGIApplication") -> None:
        self._app = app

    def _answer(self, environ: Any, start_response: Any) -> Any:
        assert self._app is not None
        return self._app(environ, start_response)

    def serve_forever(self) -> None:
        with self._server:
            self._server.serve_forever()


class OneThread(Server):
    """With --nothreading."""

    threads = 1


class Command(runserver.Command):  # type: ignore[misc]
    """Django's command, whose server is ours."""

    help = "Starts fastwsgi for development: it restarts when code changes, and serves static files."

    def run(self, **options: Any) -> None:
        """Go on as `fastwsgi dev`, or serve in this process."""
        if options["use_reloader"]:
            become(["dev", *development.arguments(self.address, words_of(options))])
        self.server_cls = Server if options["use_threading"] else OneThread
        # Django would mix a class of its own into it, which is for servers with a thread for each request.
        self.inner_run(None, **{**options, "use_threading": False})

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The application; with files announced to the server as the options say."""
        handler = super().get_handler(*args, **options)
        development.settle_static_files(options)
        return handler

    @property
    def address(self) -> str:
        """As --bind takes it."""
        host = "0.0.0.0" if self.addr == "0" else self.addr
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def words_of(options: dict[str, Any]) -> list[str]:
    """The command line that means these options."""
    words = [options["addrport"]] if options["addrport"] else []
    words += [flag for name, (flag, value) in FLAGS.items() if options.get(name) is value]
    if options["verbosity"] != 1:
        words.append(f"--verbosity={options['verbosity']}")
    return words
