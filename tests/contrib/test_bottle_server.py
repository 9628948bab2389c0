"""Bottle finds the server by module and class, or by its name once that has been imported."""

import signal

import bottle

from support import wait_until

APP = """
import sys
import bottle

@bottle.get("/")
def index():
    return f"{bottle.request.environ['wsgi.multithread']} first"

if __name__ == "__main__":
    bottle.run(server=sys.argv[1], port=0, threads=1, reloader=True, interval=0.1, quiet=True)
"""


def test_with_bottles_reloader(run, write, tmp_path):
    write({"shop.py": APP})
    server = run("shop.py", "fastwsgi.contrib.bottle:Server")
    assert server.ask("/").text == "False first"
    (tmp_path / "shop.py").write_text(APP.replace("first", "and second"))
    wait_until(lambda: server.stderr.count("Listening") == 2, lambda: server.stderr)
    port = int(server.stderr.rpartition("Listening at http://127.0.0.1:")[2].split()[0])
    with server.connect(("127.0.0.1", port)) as client:
        assert client.ask("/").text == "False and second"
    server.signal(signal.SIGINT)
    server.wait()


def test_what_is_wrong_ends_it_in_one_line(run, write):
    write({"shop.py": APP.replace("threads=1", "therads=1")})
    process = run("shop.py", "fastwsgi.contrib.bottle:Server", wait="")
    assert process.wait() == 1
    assert "fastwsgi: unknown setting therads; did you mean threads?" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_name_alone_once_it_is_imported():
    from fastwsgi.contrib.bottle import Server

    assert bottle.server_names["fastwsgi"] is Server
