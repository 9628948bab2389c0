from collections.abc import Iterable

from typing_extensions import disjoint_base

@disjoint_base
class Survivors:
    """Samples of what exchanges leave behind; one in a process."""

    collections: int
    """Full collections of cyclic garbage so far."""
    is_blind: bool
    """Somebody has put back the allocators of before: nothing is sampled any more."""
    is_full: bool
    """A sample could not be followed: forget some."""
    too_large: int
    """Samples that had too many blocks to be followed."""

    def open(self) -> None:
        """Begin: from here on each free() is looked at, and exchanges are sampled."""

    def close(self) -> None:
        """Put back Python's allocators."""

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """For gc.callbacks."""

    def take(self) -> list[tuple[int, bytes, object]]:
        """The samples that have ended since the last time: their number, the line, and the name or None."""

    def left(self, sample: int) -> tuple[int, int, int, int, int, int]:
        """What is known of a sample: see `Left` in leaks.py."""

    def places(self, samples: Iterable[int]) -> list[tuple[str, str, int, int]]:
        """Where what these samples have left was allocated, if it is there: file, function, line, octets."""

    def forget(self, sample: int) -> None:
        """Follow the blocks of a sample no more."""
