"""What `manage.py runserver` is in a worker: Django's checks and messages, then the application.

    fastwsgi dev 'fastwsgi.contrib.django.development:application("8001", "--nostatic")'

The words are those of runserver. Imported in the worker, after it was forked: so it is all done anew when
code has changed.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastwsgi import loader, mounts
from fastwsgi.errors import AppLoadError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def arguments(address: str, words: Sequence[str]) -> list[str]:
    """What `fastwsgi dev` is given for a runserver with these words."""
    threads = ["--threads", "1"] if "--nothreading" in words else []
    target = f"{__name__}:application({', '.join(map(repr, words))})"
    return ["--bind", address, *threads, *others_to_watch(), target]


def others_to_watch() -> Iterator[str]:
    """What the project asks Django's reloader to watch beside modules: templates, translations."""
    from django.utils.autoreload import BaseReloader, autoreload_started

    asked = BaseReloader()
    autoreload_started.send(sender=asked)
    found = [str(path) for path in asked.extra_files]
    for directory, patterns in asked.directory_globs.items():
        found += [str(directory if pattern == "**/*" else directory / pattern) for pattern in patterns]
    for path in sorted(found):
        # Nobody edits what is installed.
        if not path.startswith(os.path.join(sys.prefix, "")):
            yield f"--reload-extra-file={path}"


def application(*words: str) -> "WSGIApplication":
    """Do what runserver does until it would serve; return what it would serve."""
    from django.conf import settings
    from django.core.management.base import CommandError
    from django.core.servers.basehttp import get_internal_wsgi_application

    # It sets Django up; here, since the command takes an OSError for one of its own.
    get_internal_wsgi_application()
    from fastwsgi.contrib.django.management.commands.runserver import Command

    taken: list[WSGIApplication] = []

    class Taker:
        """In the place of the server."""

        def __init__(self, address: tuple[str, int], *_: object, **__: object) -> None:
            self.server_port = address[1]

        def set_app(self, app: "WSGIApplication") -> None:
            taken.append(app)

        def serve_forever(self) -> None:
            """Somebody else does."""

    class Rehearsal(Command):
        server_cls = Taker

        def run(self, **options: Any) -> None:
            self.inner_run(None, **options)

    command = Rehearsal()
    options = vars(command.create_parser("manage.py", "runserver").parse_args(words))
    try:
        command.execute(*options.pop("args", ()), **options)
    except CommandError as error:
        # It says all itself: which checks have failed.
        raise AppLoadError("runserver cannot serve this project") from error.with_traceback(None)
    sys.stdout.flush()
    loader.made_from = (settings.WSGI_APPLICATION or "").rpartition(".")[0]
    return taken[0]


def settle_static_files(options: Mapping[str, Any]) -> None:
    """Have the server serve files as --nostatic and --insecure say."""
    from fastwsgi.contrib.django import apps

    if not options.get("use_static_handler", True):
        mounts.announced.clear()
    elif options.get("insecure_serving"):
        apps.announce(with_finders=True)
