"""OpenTelemetry around applications: one span for each request, as long as its answer, in its own context."""

from concurrent.futures import ThreadPoolExecutor

import flask
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from support import TEXT, wait_until

# In the order in which its versions have had them.
METHOD = ("http.request.method", "http.method")
STATUS = ("http.response.status_code", "http.status_code")


class Spans:
    """What was exported."""

    def __init__(self):
        self.provider = TracerProvider()
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("shop")

    @property
    def all(self):
        return self.exporter.get_finished_spans()

    @property
    def of_requests(self):
        return [span for span in self.all if span.kind is SpanKind.SERVER]

    def wait(self, number):
        """The spans of so many requests, once they are here; no more come."""
        wait_until(lambda: len(self.of_requests) >= number, lambda: f"{number} of {self.all}")
        assert len(self.of_requests) == number
        return self.of_requests


@pytest.fixture
def spans():
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def value(span, names):
    return next(span.attributes[name] for name in names if name in span.attributes)


def facts(span):
    """What a span says of its request: its name, method and status."""
    return span.name, value(span, METHOD), value(span, STATUS), span.status.status_code


def test_a_span_is_as_long_as_the_answer(serve, spans):
    closed = []

    def blocks():
        try:
            yield b"first"
            with spans.tracer.start_as_current_span("second"):
                yield b"second"
        finally:
            closed.append(len(spans.of_requests))

    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        return blocks()

    server = serve(OpenTelemetryMiddleware(app, tracer_provider=spans.provider))
    with server.connect() as client:
        assert client.ask("/a").content == b"firstsecond"
        [span] = spans.wait(1)
        # The iterable was closed before its span came to the end.
        assert closed == [0]
        assert facts(span)[1:] == ("GET", 200, StatusCode.UNSET)
        [inner] = [one for one in spans.all if one.name == "second"]
        assert inner.parent.span_id == span.context.span_id
        assert client.ask("/b", method="POST", content=b"x").status == 200
    first, second = spans.wait(2)
    assert facts(second)[1] == "POST"
    assert first.context.trace_id != second.context.trace_id and second.parent is None


def test_a_client_that_leaves_ends_its_span(serve, spans):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        while True:
            yield b"x" * 10_000

    server = serve(OpenTelemetryMiddleware(app, tracer_provider=spans.provider), response_buffer=100_000)
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.take(20_000)
        assert not spans.of_requests
        client.reset()
    [span] = spans.wait(1)
    assert value(span, STATUS) == 200


def test_an_exception_is_on_the_span(serve, spans):
    def app(environ, start_response):
        raise ZeroDivisionError("the price")

    server = serve(OpenTelemetryMiddleware(app, tracer_provider=spans.provider))
    with server.connect() as client:
        assert client.ask("/").status == 500
    [span] = spans.wait(1)
    assert span.status.status_code is StatusCode.ERROR
    server.log.expect("ZeroDivisionError: the price")


def test_requests_at_the_same_time_have_contexts_of_their_own(serve, spans):
    def app(environ, start_response):
        with spans.tracer.start_as_current_span("work") as span:
            start_response("200 OK", [TEXT])
            yield f"{span.get_span_context().trace_id:032x} ".encode()
            yield f"{trace.get_current_span().get_span_context().trace_id:032x}".encode()

    server = serve(OpenTelemetryMiddleware(app, tracer_provider=spans.provider))

    def ask(number):
        fields = [("traceparent", f"00-{number:032x}-{number:016x}-01")]
        with server.connect() as client:
            return client.ask("/", fields=fields).text

    numbers = range(1, 25)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, numbers))
    assert answers == [f"{number:032x} {number:032x}" for number in numbers]
    servers = spans.wait(len(numbers))
    assert sorted(span.parent.span_id for span in servers) == list(numbers)
    parents = {span.context.span_id: span.context.trace_id for span in servers}
    work = [span for span in spans.all if span.name == "work"]
    assert {parents[span.parent.span_id] for span in work} == set(numbers)
    assert all(parents[span.parent.span_id] == span.context.trace_id for span in work)


def test_flask(serve, spans):
    app = flask.Flask("shop")
    app.logger.disabled = True

    @app.get("/items/<int:number>")
    def item(number):
        if number == 3:
            raise ZeroDivisionError("the price")
        return flask.stream_template_string("{{ number }}", number=number)

    FlaskInstrumentor().instrument_app(app, tracer_provider=spans.provider)
    server = serve(app, validate=False)
    with server.connect() as client:
        assert client.ask("/items/2").content == b"2"
        assert client.ask("/items/3").status == 500
        assert client.ask("/nowhere").status == 404
    good, failed, missing = spans.wait(3)
    assert facts(good) == ("GET /items/<int:number>", "GET", 200, StatusCode.UNSET)
    assert facts(failed) == ("GET /items/<int:number>", "GET", 500, StatusCode.ERROR)
    assert value(missing, STATUS) == 404
    assert good.attributes["http.route"] == "/items/<int:number>"
    FlaskInstrumentor().uninstrument_app(app)


def test_django(serve, spans):
    import django_app
    from django.core.wsgi import get_wsgi_application

    DjangoInstrumentor().instrument(tracer_provider=spans.provider)
    try:
        server = serve(get_wsgi_application(), validate=False)
        with server.connect() as client:
            assert client.ask("/about/this").status == 200
            assert client.ask("/stream").content == b"".join(b"%d\n" % number for number in range(100))
            assert client.ask("/fail").status == 500
    finally:
        DjangoInstrumentor().uninstrument()
    about, stream, failed = spans.wait(3)
    assert facts(about) == ("GET about/<path:name>", "GET", 200, StatusCode.UNSET)
    assert facts(stream) == ("GET stream", "GET", 200, StatusCode.UNSET)
    assert facts(failed) == ("GET fail", "GET", 500, StatusCode.ERROR)
    assert django_app.application
