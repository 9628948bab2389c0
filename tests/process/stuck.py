"""An application whose requests do not end by themselves: what operators look for."""

import ctypes
import os
import threading
import time

import fastwsgi

LOCK = threading.Lock()
LOCK.acquire()

HERE = os.environ.get("TEST_DIRECTORY", ".")


def wait_for_the_lock():
    while not LOCK.acquire(timeout=0.05):
        if os.path.exists(os.path.join(HERE, "go")):
            return


def wait_patiently():
    """Until the test has made the file `go`, or somebody interrupts it."""
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)


def hold_the_gil():
    """In C: no thread of Python runs meanwhile."""
    ctypes.PyDLL(None).sleep(60)


def crash_later():
    while not os.path.exists(os.path.join(HERE, "crash")):
        time.sleep(0.01)
    ctypes.string_at(0)


VIEWS = {f"/{view.__name__}": view for view in (wait_for_the_lock, wait_patiently, hold_the_gil, crash_later)}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    said = "done"
    try:
        if path in VIEWS:
            VIEWS[path]()
    except fastwsgi.RequestTimeout:
        said = "interrupted"
        with open(os.path.join(HERE, "interrupted"), "w"):
            pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
