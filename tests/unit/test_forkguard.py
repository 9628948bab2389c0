"""What an import leaves behind, in processes of their own: an audit hook stays until the end."""

import json
import subprocess
import sys

import pytest

PROLOGUE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from fastwsgi.forkguard import ForkGuard
"""
IMPORT = """
with ForkGuard() as guard:
    import application
"""
EPILOGUE = """
print(json.dumps(guard.ghosts()))
sys.stdout.flush()
__import__("os")._exit(0)
"""


@pytest.fixture
def ghosts(tmp_path):
    """ghosts(source): the lines about a module with this source, application.py.

    `before` and `after` are run around its import, by the program that imports it.
    """

    def run(source, *, before="", after=""):
        (tmp_path / "application.py").write_text(source)
        code = PROLOGUE + before + IMPORT + after + EPILOGUE
        output = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True, timeout=20)
        return [line.replace(f"{tmp_path}/", "") for line in json.loads(output)]

    return run


def test_an_application_without_ghosts(ghosts):
    assert ghosts("import asyncio, logging, sqlite3\ndef app(environ, start_response): ...") == []


THREAD = """
import threading, time
thread = threading.Thread(target=time.sleep, args=(60,), name="poller", daemon=True)

thread.start()
"""


def test_a_thread_is_named_with_the_line_that_started_it(ghosts):
    assert ghosts(THREAD) == ["thread 'poller', started at application.py:5"]


def test_a_thread_that_has_ended_is_none(ghosts):
    assert ghosts("import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()") == []


def test_a_thread_of_a_pool(ghosts):
    source = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1, thread_name_prefix="pool")
pool.submit(int).result()
"""
    assert ghosts(source) == ["thread 'pool_0', started at application.py:4"]


def test_a_thread_of_the_low_level_module(ghosts):
    source = """
import _thread, threading, time
began = threading.Event()
def poll():
    began.set()
    time.sleep(60)
_thread.start_new_thread(poll, ())
began.wait()
"""
    (line,) = ghosts(source)
    assert line.endswith(", in poll (application.py:4)")


def test_an_event_loop_that_runs(ghosts):
    source = """
import asyncio, threading
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
"""
    assert ghosts(source) == [
        "thread 'loop' with an event loop, started at application.py:4",
        "one end of a pair of sockets, made at application.py:3",
        "one end of a pair of sockets, made at application.py:3",
    ]


LISTENER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
sys.argv.append(str(address[1]))
"""


def test_a_connection_is_named_with_what_to(ghosts, tmp_path):
    source = "import socket, sys\nconnection = socket.create_connection(('localhost', int(sys.argv[2])))\n"
    (line,) = ghosts(source, before=LISTENER)
    assert line.startswith(("connection to 127.0.0.1:", "connection to [::1]:"))
    assert line.endswith(", made at application.py:2")


def test_a_connection_of_a_library_is_named_with_both_lines(ghosts, tmp_path):
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "client.py").write_text(
        "import socket\ndef connect(address):\n    return socket.create_connection(address)"
    )
    source = "import sys\nsys.path.append(sys.argv[1] + '/site-packages')\nimport client\n\n"
    source += "connection = client.connect(('127.0.0.1', int(sys.argv[2])))"
    (line,) = ghosts(source, before=LISTENER)
    assert line.endswith(", made at site-packages/client.py:3, called at application.py:5")


def test_a_closed_connection_is_none(ghosts):
    source = "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[2]))).close()\n"
    assert ghosts(source, before=LISTENER) == []


def test_a_socket_that_listens(ghosts):
    (line,) = ghosts("import socket\n\nmetrics = socket.create_server(('127.0.0.1', 0))")
    assert line.startswith("socket that listens at 127.0.0.1:")
    assert line.endswith(", made at application.py:3")


def test_unix_sockets(ghosts, short_path):
    source = f"""
import socket
a = socket.socket(socket.AF_UNIX)
a.bind({f"{short_path}/a"!r})
a.listen()
b = socket.socket(socket.AF_UNIX)
b.connect({f"{short_path}/a"!r})
"""
    assert ghosts(source) == [
        f"socket that listens at {short_path}/a, made at application.py:3",
        f"connection to {short_path}/a, made at application.py:6",
    ]


def test_a_connection_of_c_code(ghosts):
    # Like a database library in C, this makes its sockets without Python knowing.
    source = """
import ctypes, os
pair = (ctypes.c_int * 2)()
ctypes.CDLL(None).socketpair(1, 1, 0, pair)
"""
    assert ghosts(source) == ["one end of a pair of sockets, made by C code"] * 2


def test_datagram_sockets_do_no_harm(ghosts):
    source = """
import socket
statsd = socket.socket(type=socket.SOCK_DGRAM)
statsd.connect(("127.0.0.1", 8125))
unconnected = socket.socket()
"""
    assert ghosts(source) == []


def test_sqlite(ghosts, tmp_path):
    source = """
import sqlite3, sys
path = sys.argv[1] + "/data.sqlite3"
closed = sqlite3.connect(path)
closed.close()
memory = sqlite3.connect(":memory:")
gone = sqlite3.connect(path)
del gone
database = sqlite3.connect(path)
"""
    assert ghosts(source) == ["SQLite database data.sqlite3, opened at application.py:9"]


def test_a_child_process(ghosts):
    source = """
import subprocess
ended = subprocess.run(["true"])
helper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
"""
    (line,) = ghosts(source)
    assert line.startswith("child process ")
    assert line.endswith(", started at application.py:4")


def test_what_was_there_before_is_not_the_applications(ghosts):
    before = """
import socket, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
ours = socket.create_server(("127.0.0.1", 0))
"""
    assert ghosts("import os", before=before) == []


def test_an_import_that_fails_ends_the_watch(ghosts):
    before = """
import socket, threading
start = threading.Thread.start
try:
    with ForkGuard() as guard:
        raise ValueError("as ever")
except ValueError as error:
    assert str(error) == "as ever"
assert threading.Thread.start is start
"""
    after = """
with socket.create_server(("127.0.0.1", 0)):
    (line,) = guard.ghosts()
    assert line.endswith("made by C code"), "this was not noted any more"
"""
    assert ghosts("", before=before, after=after + "guard = ForkGuard().__enter__()\n") == []


def test_a_wrapper_around_start_stays(ghosts):
    source = """
import threading
former = threading.Thread.start
def traced(self):
    calls.append(self)
    former(self)
calls = []
threading.Thread.start = traced
"""
    after = """
import threading
assert threading.Thread.start is application.traced
thread = threading.Thread(target=int)
thread.start()
thread.join()
assert application.calls == [thread]
"""
    assert ghosts(source, after=after) == []


def test_what_the_hook_meets_goes_on_as_ever(ghosts):
    source = """
import _socket, socket, subprocess
a = _socket.socket()
try:
    socket.create_connection(("127.0.0.1", 1), timeout=5)
except ConnectionRefusedError:
    pass
try:
    subprocess.Popen(["/no/such/program"])
except FileNotFoundError:
    pass
try:
    subprocess.Popen(["true"], cwd=7.5)
except TypeError as error:
    kept = error
"""
    assert ghosts(source) == []
