"""An application in trouble: what a supervisor has workers for."""

import ctypes
import os
import threading
import time

from numbered import numbered

HERE = os.environ.get("TEST_DIRECTORY", ".")
MIB = 1 << 20

leaked = []

if "TEST_CRASH" in os.environ:
    # A worker of this module does not live for long, whatever is asked of it.
    crash = threading.Timer(0.5, os._exit, [9])
    crash.daemon = True
    crash.start()


def segfault():
    ctypes.string_at(0)


def leave():
    os._exit(7)


def hang():
    """In C, with the GIL held: no thread of Python runs meanwhile."""
    ctypes.PyDLL(None).sleep(60)


def leak():
    leaked.append(b"x" * (200 * MIB))


def grow():
    leaked.append(b"x" * (20 * MIB))


def leave_a_stranger():
    """A grandchild that has lost its parent, and ends soon."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
    os.waitpid(child, 0)


TROUBLES = {
    f"/{trouble.__name__}": trouble for trouble in (segfault, leave, hang, leak, grow, leave_a_stranger)
}


def hold(name):
    """Say in a file who waits, and wait until the test has made the file of that name."""
    path = os.path.join(HERE, name)
    with open(f"{path}.begun", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.begun", f"{path}.waits")
    while not os.path.exists(path):
        time.sleep(0.005)


def troubled(generation):
    """The application, as this generation of the code.

    /hold/NAME waits for the test; /segfault, /leave, /hang, /leak, /grow and /leave_a_stranger do what they
    say; all else is answered as `numbered` does.
    """
    others = numbered(generation)

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/hold/"):
            hold(path.removeprefix("/hold/"))
        elif path in TROUBLES:
            TROUBLES[path]()
        else:
            return others(environ, start_response)
        fields = [("Content-Type", "text/plain"), ("Worker", str(os.getpid())), ("Generation", generation)]
        start_response("200 OK", fields)
        return [path.encode()]

    return application
