"""fastwsgi: a WSGI server with a Cython core.

import fastwsgi
fastwsgi.run(app, bind="127.0.0.1:8000", threads=4)
"""

from typing import TYPE_CHECKING, Any

from fastwsgi.errors import AppLoadError, ConfigError, RequestTimeout

if TYPE_CHECKING:
    from fastwsgi.alone import run
    from fastwsgi.config import Settings
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


def __getattr__(name: str) -> Any:
    # Each when it is needed: who imports only an error, or asks for the version, does without.
    if name in ("Worker", "make_server"):
        from fastwsgi import worker

        return getattr(worker, name)
    if name == "Settings":
        from fastwsgi.config import Settings

        return Settings
    if name == "run":
        from fastwsgi.alone import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
