"""Sentry's agent, with the integrations that it finds by itself in Flask and in Django."""

import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from support import wait_until

INIT = """
import os
import sentry_sdk
sentry_sdk.init(dsn=os.environ["TEST_DSN"], traces_sample_rate=1.0)
"""

FLASK = (
    INIT
    + """
from flask import Flask, Response
app = Flask(__name__)

@app.get("/items/<int:number>")
def item(number):
    sentry_sdk.set_tag("number", number)
    if number % 2:
        raise ZeroDivisionError(f"item {number}")
    return "fine"

@app.get("/stream/<int:number>")
def stream(number):
    sentry_sdk.set_tag("number", number)
    return Response(f"{line}\\n" for line in range(number))
"""
)

DJANGO = (
    INIT
    + """
from django.conf import settings
settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

def item(request, number):
    sentry_sdk.set_tag("number", number)
    if number % 2:
        raise ZeroDivisionError(f"item {number}")
    return HttpResponse("fine")

def stream(request, number):
    sentry_sdk.set_tag("number", number)
    return StreamingHttpResponse(f"{line}\\n" for line in range(number))

urlpatterns = [path("items/<int:number>", item), path("stream/<int:number>", stream)]
app = get_wsgi_application()
"""
)


@pytest.mark.parametrize("application", [FLASK, DJANGO], ids=["flask", "django"])
def test_each_request_is_reported_as_what_it_was(start, write, collector, application):
    write({"shop.py": application})
    server = start("--threads", "4", "shop:app", TEST_DSN=collector.dsn)
    paths = [
        *(f"/items/{number}" for number in range(12)),
        *(f"/stream/{number}" for number in range(100, 104)),
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(paths, pool.map(server.ask, paths)))
    assert {path: answer.status for path, answer in answers.items()} == {
        path: 500 if path.startswith("/items") and int(path[-1]) % 2 else 200 for path in paths
    }
    assert answers["/stream/100"].text == "".join(f"{line}\n" for line in range(100))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.stderr
    failed = [path for path in paths if answers[path].status == 500]
    wait_until(
        lambda: len(collector.transactions) == len(paths) and len(collector.exceptions) == len(failed),
        lambda: f"{collector.events}",
    )
    assert sorted(collector.exceptions) == sorted(
        ("ZeroDivisionError", f"item {path.rpartition('/')[2]}") for path in failed
    )
    # In which thread whatever ran: what a request has said of itself is in its own report alone.
    reports = {"event": [], "transaction": []}
    for event in collector.events:
        path = urlsplit(event["request"]["url"]).path
        assert event["request"]["method"] == "GET"
        assert str(event["tags"]["number"]) == path.rpartition("/")[2]
        reports[event.get("type", "event")].append((path, event))
    assert sorted(path for path, _ in reports["event"]) == sorted(failed)
    assert sorted(path for path, _ in reports["transaction"]) == sorted(paths)
    for path, transaction in reports["transaction"]:
        assert transaction["contexts"]["trace"]["status"] == ("internal_error" if path in failed else "ok")
    assert len({event["contexts"]["trace"]["trace_id"] for _, event in reports["transaction"]}) == len(paths)
