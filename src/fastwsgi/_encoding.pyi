from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

from fastwsgi.compression import Stream

CODINGS: tuple[str, ...]
"""The names of the codings there are."""

@final
class Encodings:
    """Which answers get a content coding, and which one; never changes."""

    least: int
    """Content that is known to be shorter is left as it is."""

    def __new__(
        cls, makers: Mapping[str, Callable[[int | None], Stream]], types: Sequence[str], least: int
    ) -> Encodings:
        """makers: of streams by coding, the one that is liked best first; types: patterns of media types."""

    def head(
        self, request: bytes, status: bytes, fields: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str | None, bytes]:
        """The coding of an answer of this status and these fields to a request, and the lines of its head."""

@final
class Coder:
    """What puts the content of one answer into its coding."""
