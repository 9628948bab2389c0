from typing import Self, final

@final
class Asked:
    """What a request head asks of a file: Asked(("Range", "bytes=0-4"))."""

    def __new__(cls, *fields: tuple[str, str]) -> Self: ...
    def precondition(self, etag: bytes, modified: int, is_weak: bool = False) -> int:
        """200, 304 or 412 for a file with that entity-tag (in quotes) and time."""

    def ranges(
        self, size: int, etag: bytes = b'""', modified: int = 0, is_weak: bool = False
    ) -> list[tuple[int, int]] | None:
        """The parts that are wanted of a file of that size, [] for all of it; None if it has none of them."""

    def codings(self) -> tuple[int, ...]:
        """The weights of identity, br, zstd and gzip."""

def seconds_of(text: bytes) -> int:
    """Seconds since 1970 of an HTTP-date, or -1."""
