"""fastwsgi: a WSGI server with a Cython core.

import fastwsgi
fastwsgi.run(app, bind="127.0.0.1:8000", threads=4)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastwsgi.alone import run
    from fastwsgi.config import Settings
    from fastwsgi.errors import AppLoadError, ConfigError, RequestTimeout
    from fastwsgi.worker import Worker, make_server

__version__ = "0.1.0"

__all__ = [
    "AppLoadError",
    "ConfigError",
    "RequestTimeout",
    "Settings",
    "Worker",
    "__version__",
    "make_server",
    "run",
]


# What is imported when it is asked for: `import fastwsgi` alone costs next to nothing.
HOMES = {
    **dict.fromkeys(("AppLoadError", "ConfigError", "RequestTimeout"), "fastwsgi.errors"),
    "Settings": "fastwsgi.config",
    **dict.fromkeys(("Worker", "make_server"), "fastwsgi.worker"),
    "run": "fastwsgi.alone",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
