"""The process tests run for each poller, those of the end also with one thread."""

import contextlib
import functools
import sys

import pytest

from process.family import Configured, Site, run_as_nobody

POLLERS = ["epoll", "poll"] if sys.platform == "linux" else ["poll"]


@pytest.fixture(params=POLLERS)
def start_polled(start, request):
    """start, once for each poller."""
    return lambda *arguments, **options: start("--poller", request.param, *arguments, **options)


@pytest.fixture(params=["1", "4"])
def start_crew(start_polled, request):
    """start, once for each poller and number of threads."""
    return lambda *arguments, **options: start_polled("--threads", request.param, *arguments, **options)


@pytest.fixture
def site(tmp_path):
    """The code that `start_site` serves; of generation 1 until it is written again."""
    site = Site(tmp_path)
    site.write("1")
    return site


@pytest.fixture
def start_site(start, site):
    """start_site(*options): serve the site with two workers; workers=None leaves the number to the server."""

    def start_site(*options, workers=2, **others):
        if workers is not None:
            options = ("--workers", str(workers), *options)
        # A generation may be as long as the one before and of the same second: bytecode would be that one's.
        server = start(
            *options,
            "site_app:application",
            alone=workers is not None,
            PYTHONDONTWRITEBYTECODE="1",
            **others,
        )
        if workers is not None and workers > 1 and others.get("started", True):
            server.wait_said("workers serve")
        return server

    return start_site


@pytest.fixture
def configured(start, site, tmp_path):
    return Configured(start, tmp_path)


@pytest.fixture(scope="module")
def interpreter():
    """A Python that others than root can run: this one may be in a directory of root's."""
    version = "{}.{}".format(*sys.version_info)
    for path in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        with contextlib.suppress(OSError):
            if run_as_nobody(path, "-c", "import identity_app, fastwsgi._crew").returncode == 0:
                return path
    pytest.skip("nobody can run this Python, or read these files")


@pytest.fixture
def start_public(start, interpreter):
    return functools.partial(start, interpreter=interpreter)
