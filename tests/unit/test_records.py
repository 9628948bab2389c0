"""Records as JSON: whatever is in them, one line that Python's json reads back."""

import json
import logging
import re
import sys
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from fastwsgi.records import JsonFormatter, SafeFormatter


def record(message="hello %s", args=("there",), level=logging.WARNING, exc_info=None, **extra):
    made = logging.getLogger("fastwsgi").makeRecord(
        "fastwsgi", level, "", 0, message, args, exc_info, extra=extra
    )
    made.created = 1_000_000_000.25
    return made


def read(made):
    line = JsonFormatter().format(made)
    assert re.fullmatch("[ -~]*", line)
    line.encode()
    return json.loads(line)


def test_a_record():
    said = read(record(request_id="4f0c", number=5, nothing=None, thing=object, size=float("inf")))
    assert datetime.fromisoformat(said.pop("time")).timestamp() == 1_000_000_000.25
    assert said.pop("pid") > 0
    assert said == {
        "level": "warning",
        "logger": "fastwsgi",
        "thread": "MainThread",
        "message": "hello there",
        "request_id": "4f0c",
        "number": 5,
        "nothing": None,
        "thing": "<class 'object'>",
        "size": "inf",
    }


def test_an_exception():
    try:
        raise ValueError("first\nsecond\u2028\udcff\ud800")
    except ValueError:
        said = read(record(exc_info=sys.exc_info()))
    assert said["message"] == "hello there"
    assert said["exception_type"] == "builtins.ValueError"
    assert said["exception"].startswith("Traceback (most recent call last):\n")
    assert said["exception"].endswith("ValueError: first\nsecond\u2028\xff\ufffd")


def test_what_is_ours_is_not_replaced():
    made = record()
    made.level = "forged"
    assert read(made)["level"] == "warning"


@given(st.text(st.characters(exclude_categories=[])), st.text(st.characters(exclude_categories=[])))
def test_any_text(message, name):
    made = record("%s", (message,))
    setattr(made, "x" + name, message)
    said = read(made)
    expected = re.sub("[\ud800-\udfff]", lambda found: octet(ord(found[0])), message)
    assert said["message"] == expected
    json.dumps(said, ensure_ascii=False).encode()


def octet(code):
    return chr(code & 0xFF) if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def test_colours():
    text = SafeFormatter(has_colours=True).format(record("\x1b[2J [WARNING]", ()))
    assert text.endswith("\x1b[33m[WARNING]\x1b[0m \\x1b[2J [WARNING]")
    assert "\x1b" not in SafeFormatter(has_colours=True).format(record(level=logging.INFO))
    assert "\x1b" not in SafeFormatter().format(record())
