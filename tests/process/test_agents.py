"""What watches applications has threads and queues of its own, which have to be those of the worker."""

from collections import Counter

import pytest

from process.family import stop, wait_for_workers
from support import wait_until

WAYS = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])

# As its documentation has it for servers that fork; the exporter alone is of the test.
TELEMETRY = """
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class ToFile(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            file.writelines(f"{os.getpid()} {span.name}\\n" for span in spans)
        return SpanExportResult.SUCCESS


def post_fork(server, worker):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ToFile(), schedule_delay_millis=3600_000))
    trace.set_tracer_provider(provider)


def worker_exit(server, worker):
    trace.get_tracer_provider().shutdown()
"""

TRACED = """
from opentelemetry import trace
from numbered import numbered

answer, tracer = numbered("1"), trace.get_tracer("shop")


def app(environ, start_response):
    with tracer.start_as_current_span(environ["PATH_INFO"]):
        return answer(environ, start_response)
"""

# Initialised at the import, as a Django project does in its settings.
SENTRY = """
import os
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

sentry_sdk.init(dsn=os.environ["TEST_DSN"], default_integrations=False)


def fail(environ, start_response):
    raise ZeroDivisionError(f"in {os.getpid()}")


app = SentryWsgiMiddleware(fail)
"""


@WAYS
def test_opentelemetry_begun_in_post_fork_has_every_request(start, tmp_path, options):
    (tmp_path / "gunicorn.conf.py").write_text(TELEMETRY)
    (tmp_path / "traced.py").write_text(TRACED)
    server = start("-c", "gunicorn.conf.py", "--workers", "2", *options, "traced:app")
    server.wait_said("workers serve")
    workers = wait_for_workers(server, 2 + bool(options))
    seen = Counter()
    for number in range(1, 401):
        seen[server.ask(f"/{number}")["Worker"]] += 1
        if number > 50 and len(seen) == 2:
            break
    assert len(seen) == 2 and {int(pid) for pid in seen} <= workers
    # Nothing has been exported yet: what there is leaves with the workers.
    stop(server)
    lines = [line.split() for line in (tmp_path / "spans").read_text().splitlines()]
    assert Counter(pid for pid, _ in lines) == seen
    assert {name for _, name in lines} == {f"/{asked}" for asked in range(1, number + 1)}


@WAYS
def test_sentry_hears_of_failures_in_every_worker(start, tmp_path, collector, options):
    (tmp_path / "failing.py").write_text(SENTRY)
    server = start(
        *("--workers", "2", *options, "failing:app"),
        TEST_DSN=f"http://public@127.0.0.1:{collector.server_port}/1",
    )
    server.wait_said("workers serve")
    asked = 0
    while len(set(collector.exceptions)) < 2 and asked < 400:
        asked += 1
        assert server.ask().status == 500
    wait_until(lambda: len(collector.exceptions) == asked, lambda: f"{collector.exceptions}: {server.stderr}")
    pids = {f"in {pid}" for pid in wait_for_workers(server, 2 + bool(options))}
    assert {kind for kind, _ in collector.exceptions} == {"ZeroDivisionError"}
    assert len({value for _, value in collector.exceptions}) == 2
    assert {value for _, value in collector.exceptions} <= pids
    stop(server)
