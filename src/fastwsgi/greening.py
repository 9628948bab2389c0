"""What --gevent wants of a process: that gevent is there, and has patched the standard library in time.

And for processes without it: what to say of an application that has done so by itself.
"""

import sys
import warnings
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fastwsgi.errors import ConfigError

MISSING = "gevent is not installed: pip install 'fastwsgi[gevent]'"


def original(module: ModuleType, name: str) -> Any:
    """What a module of the standard library had by that name before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)


def require() -> None:
    """Raise ConfigError where gevent is missing; without importing it."""
    if find_spec("gevent") is None:
        raise ConfigError(f"--gevent: {MISSING}")


def patch() -> None:
    """Have all that waits in the standard library let others run; before the application is imported."""
    require()
    with warnings.catch_warnings():
        # That ssl was imported before: what has subclasses or references of its classes is not ours.
        warnings.simplefilter("ignore")
        from gevent import monkey

        monkey.patch_all()


def is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def check_patched() -> None:
    """Raise ConfigError in a program that has not patched its own process."""
    require()
    if not is_patched():
        raise ConfigError(
            "gevent: this process is not patched; begin the program with "
            "`from gevent import monkey; monkey.patch_all()`, or serve with the command"
        )


def check_may_block() -> None:
    """Raise ConfigError in a greenlet of gevent's hub: waiting there without gevent would stop all others."""
    if not is_patched():
        return
    from gevent import getcurrent

    if getcurrent().parent is not None:
        raise ConfigError(
            "gevent: threads are greenlets here, and one that serves would stop all others; "
            "give gevent=True, or call serve_forever() in the main one"
        )


def remark() -> str | None:
    """What to say of an application that was made for greenlets, and gets threads."""
    if is_patched():
        return (
            "The application has patched threading with gevent: each of its requests has a real thread of "
            "its own all the same; --gevent runs them in greenlets"
        )
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return (
            "The application has patched threading with eventlet: each of its requests has a real thread of "
            "its own all the same; --gevent runs them in greenlets, if gevent patches it instead"
        )
    return None
