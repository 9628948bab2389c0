from collections.abc import Iterable
from typing import Self

from typing_extensions import disjoint_base

from fastwsgi._guard import Guard
from fastwsgi.mounts import Route

def resolve(path: bytes) -> bytes | None:
    """The path as routes know it; None if it leads out of the root."""

def is_plain(path: bytes) -> bool:
    """`resolve` would not change it."""

ACTIONS: dict[str, int]
PIECES: dict[str, int]

@disjoint_base
class Router:
    """The table of routes: Router(routes) of mounts.Route, each host's "/" among them.

    guards: what stands before each of them.
    """

    routes: tuple[Route, ...]

    def __new__(cls, routes: Iterable[Route], guards: Iterable[Guard | None] = ()) -> Self: ...
    def match(self, authority: bytes, path: bytes) -> Route | None:
        """The route of a request with this Host and this path; None if the path leads out of the root."""

    def find(self, authority: bytes, path: bytes) -> int:
        """The same with a path that is resolved, and returning the index."""

    def time(self, authority: bytes, path: bytes, times: int) -> float:
        """How many nanoseconds the core takes for it, on average of so many times."""
