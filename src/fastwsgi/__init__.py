"""fastwsgi: a WSGI server with a Cython core."""

from fastwsgi.config import Settings
from fastwsgi.errors import AppLoadError, ConfigError

__version__ = "0.1.0"

__all__ = ["AppLoadError", "ConfigError", "Settings", "__version__"]
