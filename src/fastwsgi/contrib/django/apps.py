"""Tells the server where a Django project has its static files.

It does so when Django is set up, which is when the server imports the application; routes are made after
that. With DEBUG they come from where the finders would look, without it from STATIC_ROOT.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig, apps
from django.conf import settings

from fastwsgi import mounts
from fastwsgi.logs import LOG


class StaticFiles(AppConfig):  # type: ignore[misc]
    """The line of INSTALLED_APPS: "fastwsgi.contrib.django"."""

    name = "fastwsgi.contrib.django"
    label = "fastwsgi"

    def ready(self) -> None:
        """Announce the files."""
        announce(with_finders=settings.DEBUG and apps.is_installed("django.contrib.staticfiles"))


def announce(*, with_finders: bool) -> None:
    """Say where the files are: with_finders: where the finders look, else in STATIC_ROOT."""
    url = urlsplit(settings.STATIC_URL or "")
    if url.netloc:
        LOG.info("STATIC_URL is %s: somebody else serves it", settings.STATIC_URL)
        return
    if not url.path.strip("/"):
        LOG.warning("STATIC_URL is %r: no static files are served", settings.STATIC_URL)
        return
    roots = list(found()) if with_finders else [(str(settings.STATIC_ROOT or ""), "")]
    if not any(directory for directory, _ in roots):
        LOG.warning("STATIC_ROOT is not set: no static files are served")
        return
    # What is being edited is asked for each time.
    mounts.announce("/" + url.path.strip("/"), roots, 0.0 if with_finders else "auto")


def found() -> Iterator[tuple[str, str]]:
    """Where the finders look, in their order: directories, and what paths begin with for each."""
    from django.contrib.staticfiles.finders import get_finders

    for finder in get_finders():
        locations: list[Any] = getattr(finder, "locations", [])
        yield from ((str(directory), prefix or "") for prefix, directory in locations)
        storages: dict[Any, Any] = getattr(finder, "storages", {})
        one = getattr(finder, "storage", None)
        for storage in (*(() if locations else storages.values()), *([one] if one else [])):
            yield str(storage.location), getattr(storage, "prefix", None) or ""
