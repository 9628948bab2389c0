"""The process tests run for each poller."""

import sys

import pytest


@pytest.fixture(params=["epoll", "poll"] if sys.platform == "linux" else ["poll"])
def start_polled(start, request):
    """start, once for each poller."""
    return lambda *arguments, **options: start("--poller", request.param, *arguments, **options)
