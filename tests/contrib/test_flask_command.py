"""`flask --app hello fastwsgi`: production, and debug mode with Werkzeug's debugger."""

import re
import signal
from urllib.parse import quote

import pytest

from support import wait_until

HELLO = """
import os
from flask import Flask, request

def create_app(name="by default"):
    app = Flask(__name__)

    @app.get("/")
    def index():
        names = ["wsgi.multithread", "wsgi.multiprocess"]
        return " ".join([name, str(app.debug), *(str(request.environ[name]) for name in names)])

    @app.get("/fail")
    def fail():
        price = 6 * 7
        raise ZeroDivisionError("the price")

    return app

if __name__ == "__main__":
    from flask.cli import FlaskGroup
    FlaskGroup(create_app=create_app)()
"""


@pytest.fixture
def flask(run, write):
    """flask("--app", "hello", "fastwsgi"): the command, with hello.py there."""
    write({"hello.py": HELLO})
    return lambda *words, **options: run("-m", "flask", *words, **options)


def stop(server):
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.stderr


def test_in_production(flask):
    server = flask(
        *("--app", "hello:create_app('by name')", "fastwsgi", "--host", "127.0.0.1", "--port", "0"),
        *("--workers", "2", "--threads", "1", "--access-logfile=-"),
    )
    server.wait_said("All 2 workers serve")
    assert server.ask("/").text == "by name False False True"
    assert "debugger" not in server.ask("/fail").text
    wait_until(lambda: '"GET / HTTP/1.1" 200' in server.stdout, "the access log")
    stop(server)


def test_the_debugger_and_its_pin(flask, tmp_path):
    server = flask("--app", "hello", "--debug", "fastwsgi", "--port", "0")
    assert server.ask("/").text == "by default True True False"
    wait_until(lambda: "Debugger PIN" in server.stderr, lambda: server.stderr)
    wait_until(lambda: ", hello.py; not for production: " in server.stderr, lambda: server.stderr)
    [pin] = re.findall(r"Debugger PIN: (\S+)", server.stderr)
    page = server.ask("/fail")
    assert page.status == 500 and "the price" in page.text
    [secret] = re.findall('SECRET = "(.*?)"', page.text)
    frame = re.findall('id="frame-([0-9]+)"', page.text)[-1]

    def ask(command, **fields):
        query = "&".join(f"{name}={quote(value)}" for name, value in {"s": secret, **fields}.items())
        host = [("Host", f"127.0.0.1:{server.ports[0]}")]
        return server.ask(f"/fail?__debugger__=yes&cmd={quote(command)}&{query}", fields=[*host, *cookies])

    cookies = []
    # Who has no pin gets the page of the application, which fails again.
    assert ask("price + 1", frm=frame).status == 500
    answer = ask("pinauth", pin="000-000-000")
    assert '"auth": false' in answer.text
    answer = ask("pinauth", pin=pin)
    assert '"auth": true' in answer.text
    cookies = [("Cookie", answer["Set-Cookie"].partition(";")[0])]
    assert "43" in ask("price + 1", frm=frame).text
    # Another process when code has changed, with the same pin.
    (tmp_path / "hello.py").write_text(HELLO.replace("by default", "by another default"))
    wait_until(lambda: server.ask("/").text.startswith("by another"), lambda: server.stderr)
    wait_until(lambda: server.stderr.count(f"Debugger PIN: {pin}") == 2, lambda: server.stderr)
    stop(server)


def test_what_is_wrong(flask, run):
    wrong = {
        "flask: Could not import 'nothing'.": flask("--app", "nothing", "fastwsgi", wait=""),
        "unknown option --thread": flask("--app", "hello", "fastwsgi", "--thread", "3", wait=""),
        "--cert adhoc is for debug mode": flask("--app", "hello", "fastwsgi", "--cert", "adhoc", wait=""),
        "create_app of __main__ cannot be imported": run("hello.py", "fastwsgi", wait=""),
    }
    for words, process in wrong.items():
        assert process.wait() in (1, 2, 4)
        assert words in process.stderr and "Traceback" not in process.stderr, process.stderr
