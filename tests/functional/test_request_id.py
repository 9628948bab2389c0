"""--request-id: from a trusted peer or made; to the application, the client, the board and the logs."""

import json
import re

import pytest

from support import answering, request

MADE = re.compile("[0-9a-f]{32}")
OTHERS = "192.0.2.0/24"  # the peers of these tests are not in it
THEIRS = ("X-Request-ID", "pod-7:12/34")


@answering
def shown(environ):
    return environ.get("HTTP_X_REQUEST_ID", "none")


def app_with_own(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("x-REQUEST-id", "own")])
    return [environ["HTTP_X_REQUEST_ID"].encode()]


def failing(environ, start_response):
    raise ZeroDivisionError("in the application")


def test_off_by_default(serve):
    server = serve(shown)
    assert server.ask().text == "none"
    answer = server.ask(fields=[THEIRS])
    assert answer.text == THEIRS[1]
    assert answer["X-Request-ID"] is None


def test_made(serve):
    server = serve(shown, request_id=True)
    with server.connect() as client:
        answers = [client.ask() for _ in range(50)]
        client.send(request() * 50)
        answers += [client.read_response() for _ in range(50)]
    ids = [answer.text for answer in answers]
    assert ids == [answer["X-Request-ID"] for answer in answers]
    assert all(MADE.fullmatch(each) for each in ids)
    assert len(set(ids)) == 100


def test_taken_from_a_trusted_peer(serve):
    server = serve(shown, request_id=True)
    with server.connect() as client:
        for fields in ([THEIRS], [("x-request-id", THEIRS[1])]):
            answer = client.ask(fields=fields)
            assert answer.text == answer["X-Request-ID"] == THEIRS[1]
        # It is not the next one's.
        assert MADE.fullmatch(client.ask().text)


@pytest.mark.parametrize(
    "fields",
    [
        [("X-Request-ID", "two words")],
        [("X-Request-ID", "\xe9")],
        [("X-Request-ID", "x" * 129)],
        [("X-Request-ID", "")],
        [THEIRS, THEIRS],
        [("X_Request_ID", "with-underscores")],
    ],
    ids=["spaces", "obs-text", "long", "empty", "twice", "underscores"],
)
def test_what_is_not_sane_is_replaced(serve, fields):
    server = serve(shown, request_id=True, header_map="dangerous")
    answer = server.ask(fields=fields)
    assert MADE.fullmatch(answer.text)
    assert answer["X-Request-ID"] == answer.text


def test_replaced_where_nobody_is_trusted(serve):
    server = serve(shown, request_id=True, forwarded_allow_ips=OTHERS)
    answer = server.ask(fields=[THEIRS])
    assert MADE.fullmatch(answer.text)


def test_the_application_may_send_its_own(serve):
    answer = serve(app_with_own, request_id=True).ask()
    assert MADE.fullmatch(answer.text)
    assert answer["X-Request-ID"] == "own"


def test_failures_and_refusals_have_one(serve):
    server = serve(failing, request_id=True, validate=False)
    answer = server.ask("/fails", fields=[THEIRS])
    assert answer.status == 500
    assert answer["X-Request-ID"] == THEIRS[1]
    server.log.expect(f"GET /fails (request id {THEIRS[1]}): the application failed")
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\n\r\n")
        answer = client.read_response()
        assert answer.status == 400
        assert MADE.fullmatch(answer["X-Request-ID"])
        server.log.expect(f"request id {answer['X-Request-ID']}, while receiving the request head")


def test_in_the_access_log(serve, tmp_path):
    log = tmp_path / "access.log"
    atoms = "%(id)s %({x-request-id}i)s %({x-request-id}o)s"
    server = serve(shown, request_id=True, access_logfile=str(log), access_logformat=atoms, log_format="json")
    server.ask(fields=[THEIRS])
    made = server.ask().text
    server.stop()
    ours = ("request_id", "request_header_x_request_id", "response_header_x_request_id")
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert [[line[key] for key in ours] for line in said] == [[THEIRS[1]] * 3, [made] * 3]
