"""From the command of a framework to ours: the same process goes on as `python -m fastwsgi`.

    become(["--bind", "127.0.0.1:8000", "shop.wsgi"])

It is a new program, so that nothing of the project has been imported where workers are forked: what they
import is what they serve, and a reload is one. The number of the process, its descriptors and its
environment stay, which is what systemd and terminals go by.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn


def become(words: Sequence[str]) -> NoReturn:
    """Go on as the command with these words; modules are found where this process finds them."""
    os.environ["PYTHONPATH"] = os.pathsep.join(import_directories())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.execv(sys.executable, [sys.executable, *interpreter_flags(), "-m", "fastwsgi", *words])


def import_directories() -> list[str]:
    """What of `sys.path` a new interpreter would not have by itself."""
    standard = os.path.dirname(os.path.dirname(os.__file__))
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    found: dict[str, None] = {}
    is_ahead = True
    for entry in map(os.path.abspath, sys.path):
        # First what the interpreter was started with or was put before all else, then its own, last what was
        # appended: by installed packages, which it finds again, or by the program.
        is_ahead = is_ahead and os.path.dirname(entry) != standard
        if is_ahead or (is_beneath(entry, here) and not is_beneath(entry, sys.prefix)):
            found[entry] = None
    return list(found)


def is_beneath(path: str, directory: str) -> bool:
    return path == directory or path.startswith(os.path.join(directory, ""))


def interpreter_flags() -> Iterator[str]:
    """The flags of this interpreter."""
    flags = sys.flags
    if flags.optimize:
        yield "-" + "O" * flags.optimize
    if flags.dont_write_bytecode:
        yield "-B"
    yield from (f"-W{one}" for one in sys.warnoptions)
    for name, value in sys._xoptions.items():
        yield f"-X{name}" if value is True else f"-X{name}={value}"
