from typing_extensions import disjoint_base

@disjoint_base
class ResponseHead:
    """A response head without a socket, for tests: start, field, finish."""

    def start(self, status: bytes) -> int:
        """Begin with a status such as b"200 OK"; returns 0 or one of the negative codes."""

    def field(self, name: bytes, value: bytes) -> int:
        """Add a field line; returns 0, 1 when it is left out, or one of the negative codes."""

    def finish(
        self,
        *,
        is_head_request: bool = False,
        version_minor: int = 1,
        length: int | None = None,
        keep_alive: bool = True,
        now: int = 0,
    ) -> tuple[bytes, str]:
        """The head and how the content is framed; length: of the content when all of it is at hand."""

def refuse(
    reason: int,
    *,
    is_head_request: bool = False,
    request_id: bytes = b"",
    now: int = 0,
    page: tuple[bytes, bytes] | None = None,
    challenge: bytes = b"",
    retry_after: int = 0,
    keep_alive: bool = False,
    version_minor: int = 1,
) -> bytes:
    """The whole answer to a request that is refused for a reason of `_refusals`; page: (type, content)."""

def chunk_size_line(size: int) -> bytes:
    """The line before a chunk of that size."""
