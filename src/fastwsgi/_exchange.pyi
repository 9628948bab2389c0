from collections.abc import Callable, Iterator
from typing import Any, final

from typing_extensions import disjoint_base

@disjoint_base
class Context:
    """What the exchanges of a worker share."""

@final
class Exchange:
    """The start_response callable of one request, and what becomes of it."""

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """start_response of PEP 3333; returns write()."""

    def is_set(self) -> bool:
        """True once the client has left, or ended its side of the connection, which may be just that.

        As environ["fastwsgi.client_gone"]; from any thread, and after the exchange too.
        """

    def leave_unlogged(self) -> None:
        """Have no line of this exchange in the access log."""

@final
class Write:
    """The write callable of PEP 3333."""

    def __call__(self, data: bytes) -> None:
        """Send data before the iterable's blocks; raises ConnectionError when the client is gone."""

@final
class EarlyHints:
    """environ["wsgi.early_hints"], as gunicorn has it: sends a 103 with these fields (RFC 8297)."""

    def __call__(self, headers: list[tuple[str, str]]) -> None:
        """Send the fields at once; does nothing when it is too late, or for HTTP/1.0."""

@final
class FileWrapper:
    """wsgi.file_wrapper: an iterable over a file; a real file is sent by sendfile(2) (PEP 3333)."""

    filelike: Any
    blksize: int

    def __init__(self, filelike: Any, blksize: int = 8192) -> None: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None:
        """Close the file, if it can be closed."""
