"""Bottle's server adapter: `bottle.run(server="fastwsgi.contrib.bottle:Server")`.

Bottle finds servers in a table of its own, or as module:class. So the name "fastwsgi" alone is one once
this module has been imported.
"""

from typing import TYPE_CHECKING

import bottle

from fastwsgi.alone import run
from fastwsgi.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Server(bottle.ServerAdapter):  # type: ignore[misc]
    """Serves in this process; options that Bottle does not know are fastwsgi's, such as threads=8."""

    def run(self, handler: "WSGIApplication") -> None:
        """Serve until Ctrl-C, TERM, or a change that Bottle's reloader sees."""
        host, port = self.host, self.port
        if host.startswith("unix:"):
            bind = host
        else:
            bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            run(handler, bind=bind, **self.options)
        except ConfigError as error:
            # Bottle's reloader would try again and again.
            raise SystemExit(f"fastwsgi: {error}") from None


bottle.server_names["fastwsgi"] = Server
