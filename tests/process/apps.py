"""Applications for the tests of the process; served as `apps:NAME`."""

import atexit
import contextlib
import ctypes
import functools
import itertools
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time

TEXT = [("Content-Type", "text/plain")]
HERE = os.environ.get("TEST_DIRECTORY", ".")

if "TEST_ATEXIT" in os.environ:
    atexit.register(lambda: open(os.path.join(HERE, "atexit"), "w").close())


def wait_for(name):
    """Wait until the test has made a file of that name; say before that we are here."""
    open(os.path.join(HERE, name + ".waits"), "w").close()
    while not os.path.exists(os.path.join(HERE, name)):
        time.sleep(0.005)


def hello(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"hello"]


def tell(environ, start_response):
    """Who asks, and how, as JSON."""
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "fastwsgi.peer_addr", "wsgi.url_scheme", "HTTP_HOST", "SERVER_PORT")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ.get(key) for key in keys}).encode()]


def shared(environ, start_response):
    """Whether others may run it at the same time: another thread, another process."""
    start_response("200 OK", TEXT)
    return [f"{environ['wsgi.multithread']} {environ['wsgi.multiprocess']}".encode()]


def secure(environ, start_response):
    """What is known of TLS, as JSON, and who answers."""
    known = {key: value for key, value in environ.items() if key.startswith("SSL_") or key == "HTTPS"}
    start_response("200 OK", [("Content-Type", "application/json")])
    known |= {"scheme": environ["wsgi.url_scheme"], "port": environ["SERVER_PORT"], "worker": os.getpid()}
    return [json.dumps(known).encode()]


def variables(environ, start_response):
    """What the process has in its environment, as JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(dict(os.environ)).encode()]


def wait(environ, start_response):
    """Wait for the file that the path names, then answer with the name; / answers at once."""
    name = environ["PATH_INFO"].strip("/")
    if name:
        wait_for(name)
    start_response("200 OK", TEXT)
    return [name.encode()]


def stream(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"first "
    wait_for("second")
    yield b"second"


def stuck(environ, start_response):
    """Never comes back."""
    if environ["PATH_INFO"] == "/":
        return hello(environ, start_response)
    open(os.path.join(HERE, "stuck.waits"), "w").close()
    while True:
        time.sleep(1)


def hold_gil(environ, start_response):
    """/gil is in C for two seconds without letting go of the GIL; /stream does not end."""
    if environ["PATH_INFO"] == "/gil":
        ctypes.PyDLL(None).usleep(2_000_000)
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", TEXT)
        return itertools.repeat(b"x" * 200_000)
    return hello(environ, start_response)


def lose_threads(environ, start_response):
    """/lose does not come back, whatever is raised in it."""
    while environ["PATH_INFO"] == "/lose":
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
    return hello(environ, start_response)


def fail(environ, start_response):
    raise ZeroDivisionError("in the application")


def fail_with_words(environ, start_response):
    """As many applications do: with what the client has sent."""
    raise ValueError(f"no such thing: {environ['PATH_INFO']} {environ.get('HTTP_X_WORDS')}")


def complain(environ, start_response):
    environ["wsgi.errors"].write("written to wsgi.errors\n")
    environ["wsgi.errors"].flush()
    print("printed to stdout", flush=True)
    print("printed to stderr", file=sys.stderr, flush=True)
    logging.getLogger("of.the.application").error("logged by the application")
    return hello(environ, start_response)


def exit_now(environ, start_response):
    sys.exit("the application wants to leave")


def run_command(environ, start_response):
    start_response("200 OK", TEXT)
    return [subprocess.run(["echo", "from a command"], stdout=subprocess.PIPE, check=True).stdout]


def close_and_print(environ, start_response):
    """Close the standard output, or write to it whatever it is."""
    if environ["PATH_INFO"] == "/close":
        os.close(1)
    else:
        with contextlib.suppress(OSError):
            os.write(1, b"this is for nobody")
    start_response("200 OK", TEXT)
    return [b"done"]


def leave_a_child(environ, start_response):
    """Fork a child, or start a command, that outlives the exchange by far; answer with its process id."""
    if environ["PATH_INFO"] == "/fork":
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    else:
        child = subprocess.Popen(["sleep", "60"], close_fds=environ["PATH_INFO"] != "/open").pid
    start_response("200 OK", TEXT)
    return [str(child).encode()]


def fork_and_exit(environ, start_response):
    """Fork a child that ends without coming back from here, and wait for it."""
    child = os.fork()
    if child == 0:
        os._exit(7)
    _, status = os.waitpid(child, 0)
    start_response("200 OK", TEXT)
    return [str(os.waitstatus_to_exitcode(status)).encode()]


def fork_and_return(environ, start_response):
    """Fork a child that comes back from here as its parent does; each would answer with its process id."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    start_response("200 OK", TEXT)
    return [str(os.getpid()).encode()]


def fork_and_raise(environ, start_response):
    """Fork a child that leaves here by an exception; answer with its exit code."""
    child = os.fork()
    if child == 0:
        raise SystemExit(5) if environ["PATH_INFO"] == "/exit" else ZeroDivisionError("in the child")
    _, status = os.waitpid(child, 0)
    start_response("200 OK", TEXT)
    return [str(os.waitstatus_to_exitcode(status)).encode()]


def signals(environ, start_response):
    """The signals that are blocked in this thread and in a child."""
    import signal

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    child = subprocess.run(
        [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(0, []))"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    start_response("200 OK", TEXT)
    return [f"{sorted(blocked)} {child.decode().strip()}".encode()]


def create_app(greeting="hello from a factory"):
    def application(environ, start_response):
        start_response("200 OK", TEXT)
        return [greeting.encode()]

    return application


class Holder:
    """For `apps:holder.application`."""

    @staticmethod
    def application(environ, start_response):
        return hello(environ, start_response)


holder = Holder()
not_callable = "text"


def thread_of_its_own(environ, start_response):
    """Leave a thread behind that runs for ever."""
    threading.Thread(target=lambda: time.sleep(60), name="of-the-application", daemon=True).start()
    return hello(environ, start_response)


def stubborn_thread(environ, start_response):
    """Leave a thread behind that Python waits for at its end."""
    threading.Thread(target=lambda: time.sleep(60), name="stubborn-thread", daemon=False).start()
    return hello(environ, start_response)


@functools.cache
def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE visits (path)")
    return connection


def visits(environ, start_response):
    """Use one connection for all requests; sqlite3 checks that it is the same thread."""
    database().execute("INSERT INTO visits VALUES (?)", [environ["PATH_INFO"]])
    start_response("200 OK", TEXT)
    return [str(database().execute("SELECT count(*) FROM visits").fetchone()[0]).encode()]


def big(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "20000000")])
    return [b"x" * 1_000_000] * 20


def big_or_small(environ, start_response):
    return (big if environ["PATH_INFO"] == "/big" else hello)(environ, start_response)


def patient(environ, start_response):
    """Waits for a file without opening anything."""
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)
    return hello(environ, start_response)


def print_in_all_ways(environ, start_response):
    """Each a line, in order: by Python, by the descriptor, by C, by another program, by logging."""
    print("one, printed")
    os.write(1, b"two, to descriptor 1\n")
    os.write(2, b"three, to descriptor 2\n")
    libc = ctypes.CDLL(None)
    libc.dprintf(1, b"four, by C\n")
    subprocess.run(["sh", "-c", "echo five, by a command; echo six, to its standard error >&2"], check=True)
    print("seven, ", end="", file=sys.stderr, flush=True)
    print("in two parts \x1b[31m\xe9", file=sys.stderr, flush=True)
    logging.getLogger("of.the.application").error("eight, by logging")
    environ["wsgi.errors"].write("nine, to wsgi.errors\n")
    os.write(1, b"ten \xff\n\nafter an empty line\n")
    return hello(environ, start_response)


def print_and_die(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        print("last words", flush=True)
        os.write(1, b"and half a line")
        os.kill(os.getpid(), 9)
    return hello(environ, start_response)


def print_holding_gil(environ, start_response):
    """Far more than a pipe holds, by C code that does not let go of the GIL."""
    libc = ctypes.PyDLL(None)
    for _ in range(4):
        libc.write(1, b"x" * 99_999 + b"\n", 100_000)
    return hello(environ, start_response)
