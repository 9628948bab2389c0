from collections.abc import Sequence
from typing import Self, final

@final
class Site:
    """Directories whose files are served at one place.

    roots: pairs of a directory and the beginning of the paths that it is for ("" is any); the first that has
    a file gives it. expires: "auto", "off", or what Cache-Control says.
    """

    def __new__(
        cls,
        roots: Sequence[tuple[str, str]],
        *,
        indexes: Sequence[str] = ("index.html",),
        fallback: str | None = None,
        falls_to_application: bool = False,
        expires: str = "auto",
        walks: bool | None = None,
    ) -> Self: ...
    def look(self, path: bytes, now: int = 0) -> tuple[int, list[tuple[str, int, str, str, bytes | None]]]:
        """For tests: (status, [(coding, size, tag, field lines, content or None)]) of a path."""

@final
class Files:
    """What is remembered, for tests."""

    looks: int
    """At the disk, so far."""
    held: tuple[int, int, int]
    """How many are remembered, descriptors, octets of content."""
    def __new__(cls) -> Self: ...
    def find(self, site: Site, path: bytes, now_ms: int) -> int:
        """The status of a path, by a look at the disk where it is not remembered."""
