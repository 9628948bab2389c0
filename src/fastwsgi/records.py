"""What a record of the error log looks like: a line of text, or a JSON object."""

import json
import logging
import re
from datetime import datetime
from typing import Any

# What moves a cursor, changes colours or begins a line: C0 but for line ends and tabs, DEL, C1, and the
# separators of Unicode.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

# Half a character of UTF-16 alone, which is none of UTF-8.
SURROGATES = re.compile(r"[\ud800-\udfff]")

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"

COLOURS = {
    "DEBUG": "\x1b[2m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}
PLAIN = "\x1b[0m"

# What every record has; what else there is comes from `extra`.
USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class SafeFormatter(logging.Formatter):
    """One record, one line that begins with a bracket: what else belongs to it is indented, tracebacks too.

    Control characters are escaped. The text of an exception of the application may be a client's, and shall
    neither reach a terminal nor pass for a record of ours.
    """

    def __init__(self, form: str = FORMAT, *, has_colours: bool = False) -> None:
        super().__init__(form, DATE_FORMAT)
        self._has_colours = has_colours

    def format(self, record: logging.LogRecord) -> str:
        safe = CONTROLS.sub(lambda found: escape(found[0]), super().format(record))
        text = safe.replace("\n", "\n  ")
        if self._has_colours and record.levelname in COLOURS:
            mark = f"[{record.levelname}]"
            text = text.replace(mark, f"{COLOURS[record.levelname]}{mark}{PLAIN}", 1)
        return text


def escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class JsonFormatter(logging.Formatter):
    """One record, one line: a JSON object in ASCII, with what was given as `extra` too."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.threadName:
            said["thread"] = record.threadName
        if record.exc_info:
            kind = record.exc_info[0]
            said["exception"] = self.formatException(record.exc_info)
            said["exception_type"] = None if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        if record.stack_info:
            said["stack"] = record.stack_info
        for name, value in vars(record).items():
            if name not in USUAL:
                said.setdefault(name, value)
        return json.dumps(whole(said), separators=(",", ":"), allow_nan=False)


def whole(value: object) -> object:
    """The same with text that every reader of JSON takes, and as text what JSON has no word for."""
    if isinstance(value, dict):
        return {str(whole(str(name))): whole(each) for name, each in value.items()}
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    return SURROGATES.sub(octet, str(value))


def octet(found: re.Match[str]) -> str:
    """What stands for an octet that was no UTF-8 becomes the character of its number."""
    code = ord(found[0])
    return chr(code & 0xFF) if 0xDC80 <= code <= 0xDCFF else "\ufffd"
