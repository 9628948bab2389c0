"""An application in which things go wrong, each in a view of its own."""

import contextlib
import ctypes
import os
import queue
import sqlite3
import threading
import time

HERE = os.environ.get("TEST_DIRECTORY", ".")
MIB = 1 << 20

LOCK = threading.Lock()

# Of connections to a database; nobody gives one back before /release.
POOL = queue.Queue()


def connect():
    return sqlite3.connect(os.path.join(HERE, "shop.db"), timeout=60, check_same_thread=False)


OTHER = connect()
OTHER.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER)")


@contextlib.contextmanager
def pooled():
    connection = POOL.get()
    try:
        yield connection
    finally:
        POOL.put(connection)


def wait():
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)


def hold():
    """Somebody has the lock and writes to the database."""
    LOCK.acquire()
    OTHER.execute("BEGIN IMMEDIATE")


def release():
    """Let everybody go on."""
    LOCK.release()
    OTHER.rollback()
    POOL.put(connect())


def lock():
    with LOCK:
        pass


def query():
    connection = connect()
    connection.execute("INSERT INTO orders VALUES (1)")
    connection.commit()


def pool():
    with pooled() as connection:
        connection.execute("SELECT count(*) FROM orders")


def hold_the_gil():
    ctypes.PyDLL(None).sleep(60)


def crash():
    ctypes.string_at(0)


def fail():
    raise ValueError("x" * 8000)


def too_much():
    return bytearray(4096 * MIB)


def grow():
    kept = []
    while True:
        kept.append(b"x" * (4 * MIB))
        time.sleep(0.1)


VIEWS = {
    f"/{view.__name__}": view
    for view in (wait, hold, release, lock, query, pool, hold_the_gil, crash, fail, too_much, grow)
}


def application(environ, start_response):
    VIEWS.get(environ["PATH_INFO"], bool)()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
