from collections.abc import Iterable
from typing import Self, final

from fastwsgi._rates import Rate
from fastwsgi.passwords import Doorkeeper

@final
class Guard:
    """What stands before a route, and what its errors are answered with.

    allow, deny: addresses and networks, "*", "unix"; None: no such key. pages: (status, type, content) of
    each. maintenance: who comes in while the route is closed; None: it never is.
    """

    doorkeeper: Doorkeeper | None

    def __new__(
        cls,
        *,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] | None = None,
        denies_first: bool = False,
        rate: Rate | None = None,
        doorkeeper: Doorkeeper | None = None,
        challenge: bytes = b"",
        content_most: int | None = None,
        pages: Iterable[tuple[int, bytes, bytes]] = (),
        maintenance: Iterable[str] | None = None,
    ) -> Self: ...
    def close(self, page: tuple[bytes, bytes] | None) -> None:
        """Closed for maintenance from now on; page: (type, content) of the answer; None: the server's own."""

    def open(self) -> None:
        """Open again."""

    def judge(
        self, address: bytes | None, *, has_credentials: bool = False, now_ns: int | None = None
    ) -> tuple[str | None, int]:
        """(name of the refusal or None, seconds until it may come again); None: a client of no address."""

    def page(self, status: int, reason: int = 0) -> tuple[bytes, bytes] | None:
        """(type, content) that an error is answered with; None: the server's own text."""
