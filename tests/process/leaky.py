"""Routes that keep memory, and routes that only look as if they did."""

import functools
import os
import threading
import time

KEPT = []
TABLE = {}
QUEUE = []
LOCAL = threading.local()


def leak(number):
    KEPT.append(f"{number} is kept" * 1000)


def small_leak(number):
    KEPT.append([])  # from a list of free ones, if there is any


def reuse(number):
    for _ in range(3):
        words = [str(number)]  # whose memory the next one has, and then the one below
        del words
    KEPT.append(["this one"])


def sometimes(number):
    if number % 2 == 0:
        TABLE[number, time.monotonic()] = bytes(20_000)


def clean(number):
    return [[{"row": i, "words": [str(i), str(number)]} for i in range(100)] for _ in range(3)]


def once(number):
    if number % 20 not in TABLE:
        TABLE[number % 20] = bytes(5000)


def garbage(number):
    ring = {"data": bytes(5000)}
    ring["itself"] = [ring]


@functools.lru_cache(maxsize=64)
def least_recently_used(number):
    return [str(number)] * 500


def last(number):
    LOCAL.answer = {"answer": [str(number)] * 100}


def produce(number):
    QUEUE.append({"work": str(number) * 100})


def consume(number):
    while QUEUE:
        QUEUE.pop()


def named(number):
    KEPT.append(bytearray(3000))


def own(number):
    time.sleep(0.002)


def fork(number):
    child = os.fork()
    if not child:
        words = [str(i) for i in range(10_000)]
        os._exit(0 if len(words) == 10_000 else 1)
    assert os.waitpid(child, 0)[1] == 0


VIEWS = {
    "leak": leak,
    "small": small_leak,
    "reuse": reuse,
    "sometimes": sometimes,
    "clean": clean,
    "once": once,
    "garbage": garbage,
    "lru": least_recently_used,
    "last": last,
    "produce": produce,
    "consume": consume,
    "named": named,
    "wait": own,
    "fork": fork,
}


def application(environ, start_response):
    name, _, number = environ["PATH_INFO"][1:].partition("/")
    if name == "named":
        environ["fastwsgi.route"] = "the named one"
    VIEWS[name](int(number))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
