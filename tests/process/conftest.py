"""The process tests run for each poller, those of the end also with one thread."""

import sys

import pytest

POLLERS = ["epoll", "poll"] if sys.platform == "linux" else ["poll"]


@pytest.fixture(params=POLLERS)
def start_polled(start, request):
    """start, once for each poller."""
    return lambda *arguments, **options: start("--poller", request.param, *arguments, **options)


@pytest.fixture(params=["1", "4"])
def start_crew(start_polled, request):
    """start, once for each poller and number of threads."""
    return lambda *arguments, **options: start_polled("--threads", request.param, *arguments, **options)
